"""How much to write at once, and when.

Little load: whatever comes is written at once, as often as the interval allows. More load: what
came in an interval is one write, and a write begins early when `size` events wait. `size` follows
the load, doubling while writes begin early, up to the store's own maximum. After a failure `limit`,
which bounds a write, is halved, as what took too long at once may go through in parts.
"""

from __future__ import annotations

NS_PER_MS = 1_000_000
# A failed write is tried again with fewer events, but not one by one for every event of the day.
LIMIT_MIN = 16


class Pace:
    """One store's. Times are monotonic nanoseconds."""

    def __init__(self, interval_ms: int, size_max: int) -> None:
        self._interval_ns = interval_ms * NS_PER_MS
        self._size_max = max(1, size_max)
        self._next_ns = 0
        self._early = False
        self.size = 1
        self.limit = self._size_max

    def due_in_ns(self, waiting: int, now_ns: int) -> int:
        """How long to wait before writing `waiting` events (at least 1); 0 for now."""
        if waiting >= self.size:
            return 0
        return max(0, self._next_ns - now_ns)

    def begins(self, now_ns: int) -> None:
        """A write begins."""
        self._early = now_ns < self._next_ns
        self._next_ns = now_ns + self._interval_ns

    def wrote(self, events: int) -> None:
        """It went well, with so many events."""
        if self._early:
            self.size = min(self._size_max, self.size * 2)
        elif events * 2 < self.size:
            self.size //= 2
        self.limit = min(self._size_max, self.limit * 2)

    def failed(self) -> None:
        """It failed."""
        self.limit = max(min(LIMIT_MIN, self._size_max), self.limit // 2)


def rest_ns(took_ns: int, share: float) -> int:
    """How long a store rests after work of `took_ns`, to have at most this share of the time."""
    return int(took_ns * (1 - share) / share)

"""How many orders an account may send in a second, counted at the door.

Rates depend on when bytes arrive, which is not in the log; so the door decides, and what is too
much travels as a flag of the command: the matcher rejects it and the log shows why.
"""

from engine import clock

# What the decoder takes for "no limit".
UNLIMITED = -1


class RateWindow:
    """Windows of one second: each begins with the first message after the last one ended."""

    __slots__ = ("_spent", "_started_ns", "per_second")

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._started_ns = 0
        self._spent = 0

    def budget(self, now_ns: int) -> int:
        """Messages still allowed now. `now_ns` is monotonic; a limit of 0 is off."""
        if not self.per_second:
            return UNLIMITED
        if now_ns - self._started_ns >= clock.NS_PER_S:
            self._started_ns, self._spent = now_ns, 0
        return max(0, self.per_second - self._spent)

    def spend(self, messages: int) -> None:
        """Count messages, those that were too many included (they cost their sender nothing
        more: the window does not grow)."""
        self._spent += messages

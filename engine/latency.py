"""From the door to the answer: how long commands were under way.

Kept per group of commands that were matched in one call, never per order: the stage of the
matcher notes when the oldest of the group came, the stage that answers looks it up.
"""

from __future__ import annotations

from collections import deque

from engine import clock
from engine.metrics import Metrics


class Acks:
    """Times of groups that were matched and not answered yet, in the order of their events."""

    def __init__(self, metrics: Metrics) -> None:
        self.time = metrics.histogram(
            "order_ack", "ns",
            "from the arrival of the oldest command of a group to the group's answers, durable, "
            "counted once for each event")
        self._waiting: deque[tuple[int, int, int]] = deque()

    def matched(self, last_seq: int, events: int, since_ns: int) -> None:
        """A group gave so many events, the last one `last_seq`; its oldest command came at
        `since_ns` (monotonic)."""
        self._waiting.append((last_seq, events, since_ns))

    def answered(self, seq: int) -> None:
        """The events up to this seq were told to their owners."""
        waiting = self._waiting
        if not waiting or waiting[0][0] > seq:
            return
        now_ns = clock.monotonic_ns()
        while waiting and waiting[0][0] <= seq:
            _, events, since_ns = waiting.popleft()
            self.time.observe(now_ns - since_ns, events)

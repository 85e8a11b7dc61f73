"""When to try again what failed: a state machine without clock, dice or I/O.

*Closed*: each failure is followed by a short wait, which doubles. After so many failures in a row
it *opens*: nothing is tried until the wait is over; then it is *half-open*, and one try decides
whether it closes or opens again, for longer. Waits are spread, so that stores which died together
don't come back together.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """What the breaker lets through."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Counts failures in a row. Waits are nanoseconds between `wait_min_ns` and `wait_max_ns`."""

    def __init__(self, failures_max: int, wait_min_ns: int, wait_max_ns: int) -> None:
        self._failures_max = failures_max
        self._wait_min_ns, self._wait_max_ns = wait_min_ns, wait_max_ns
        self.state = State.CLOSED
        # In a row, and how often it opened in all.
        self.failures = 0
        self.openings = 0

    def failed(self, dice: float) -> int:
        """A try failed; returns how long to wait before the next. `dice` is from 0 to 1: the wait
        is between half of what is due and all of it."""
        self.failures += 1
        if self.state is State.HALF_OPEN or self.failures >= self._failures_max:
            if self.state is State.CLOSED:
                self.openings += 1
            self.state = State.OPEN
        # Beyond 2**40 the longest wait is reached whatever the shortest.
        due_ns = min(self._wait_max_ns, self._wait_min_ns << min(self.failures - 1, 40))
        return max(self._wait_min_ns, due_ns // 2 + int(dice * (due_ns - due_ns // 2)))

    def waited(self) -> None:
        """The wait is over: the next try may begin."""
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN

    def succeeded(self) -> None:
        """A try went well."""
        self.state = State.CLOSED
        self.failures = 0

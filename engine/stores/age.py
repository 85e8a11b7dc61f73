"""How old the oldest event is that a store has not: notes of where the log ended, and when.

A store under steady load is never quite level, as the newest events always wait for the next
write; so it is not asked when it last had everything, but when the log ended where the store is.
"""

from __future__ import annotations

from collections import deque

# A store that is far behind is not told exactly how far: beyond so many every other note goes.
NOTES_MAX = 1_024


class Age:
    """Times are monotonic nanoseconds. `level_ns` is the newest time of which it is known that
    the store has all that was durable then."""

    def __init__(self, now_ns: int) -> None:
        self.level_ns = now_ns
        self._notes: deque[tuple[int, int]] = deque()

    def ends(self, seq: int, now_ns: int) -> None:
        """The log ends at `seq` now."""
        notes = self._notes
        if notes and notes[-1][0] == seq:
            notes[-1] = seq, now_ns
            return
        notes.append((seq, now_ns))
        if len(notes) > NOTES_MAX:
            self._notes = deque(list(notes)[::2])

    def has(self, seq: int) -> None:
        """The store has everything up to `seq`."""
        notes = self._notes
        while notes and notes[0][0] <= seq:
            self.level_ns = notes.popleft()[1]

"""One stream in Redis, read from its oldest entry on: its rows, and what its entries say of
themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from cython_core.rows import COLUMNS
from engine.redis_values import COLUMNS as NAMES
from engine.redis_values import COUNT, DATA, FIRST, PREVIOUS, decode

# Rows that are read at once, as far as one can tell from the entries before.
PAGE_ROWS = 5_000
PAGE_ENTRIES = 500

Row: TypeAlias = tuple[int, list[Any]]
# The rows of an entry's fields, each behind its seq. Raises ValueError, KeyError, TypeError.
Read: TypeAlias = Callable[[Mapping[bytes, bytes]], list[Row]]

_EVENT_COLUMNS = COLUMNS["order_events"]
_IDS = tuple(_EVENT_COLUMNS.index(name) for name in ("order_id", "other_order_id"))
_SEQ = _EVENT_COLUMNS.index("seq")


def event_of(fields: Mapping[bytes, bytes]) -> list[Row]:
    """The rows of an entry of the order events."""
    columns = fields[NAMES].decode()
    if columns != ",".join(_EVENT_COLUMNS):
        raise ValueError(f"it has other columns: {columns}")
    found = []
    for row in decode(fields[DATA]):
        for place in _IDS:
            # JSON has identifiers as texts.
            if isinstance(row[place], str):
                row[place] = int(row[place])
        found.append((row[_SEQ], row))
    return found


def trade_of(fields: Mapping[bytes, bytes]) -> list[Row]:
    """The trades of an entry of a market's stream."""
    return [(one["seq"], [int(one["match"]), one["price"], one["quantity"], one["side"],
                          one["time"], one["seq"]]) for one in decode(fields[DATA])["trades"]]


class Found:
    """A stream. `start` is the first event that it covers as it is now: what is older was cut off,
    or was never there (`began`)."""

    def __init__(self, name: str, key: str, node: Any, read: Read, began: int,
                 tell: Callable[[str], None]) -> None:
        self.name, self._key, self._node, self._read = name, key, node, read
        self._began, self._tell = began, tell
        self.start = began + 1
        self._rows: deque[Row] = deque()
        self._next_id = "-"
        # The last row that was read, and the first.
        self._last = self._first = 0
        self._entries_at_once = 1
        self._missing: list[int] = []

    async def begin(self) -> None:
        """See where it begins."""
        oldest = await self._oldest()
        if oldest is not None:
            self.start = max(self.start, oldest + 1)

    async def _oldest(self) -> int | None:
        """Behind which event the oldest entry is."""
        found = await self._node.xrange(self._key, count=1)
        try:
            return int(found[0][1][PREVIOUS]) if found else None
        except (KeyError, ValueError):
            return None

    async def take(self, to_seq: int) -> list[Row]:
        """The next rows, up to an event."""
        found = []
        while True:
            while self._rows and self._rows[0][0] <= to_seq:
                found.append(self._rows.popleft())
            if self._rows or not await self._more(to_seq):
                return found

    async def _more(self, to_seq: int) -> bool:
        page = await self._node.xrange(self._key, min=self._next_id, count=self._entries_at_once)
        rows = 1
        for entry_id, fields in page:
            rows = max(rows, await self._take_entry(entry_id.decode(), fields, to_seq))
        self._entries_at_once = max(1, min(PAGE_ENTRIES, PAGE_ROWS // rows))
        return bool(page)

    async def _take_entry(self, entry_id: str, fields: Mapping[bytes, bytes],
                          to_seq: int) -> int:
        head, _, tail = entry_id.partition("-")
        before, self._next_id = self._last, f"{head}-{int(tail) + 1}"
        try:
            rows, previous = self._read(fields), int(fields[PREVIOUS])
            first, count = int(fields[FIRST]), int(fields[COUNT])
            seqs = [seq for seq, _ in rows]
        except (KeyError, ValueError, TypeError, IndexError) as error:
            self._tell(f"{self.name}, entry {entry_id}: can't be read: "
                       f"{type(error).__name__}: {error}")
            # Nobody knows what it had.
            self._last = int(head)
            self.start = max(self.start, self._last + 1)
            return 1
        if not before:
            self.start = max(self.start, previous + 1)
        elif previous > before:
            await self._skip(entry_id, before, previous)
        if (f"{seqs[-1] if seqs else 0}-0", seqs[:1], len(rows)) != (entry_id, [first], count):
            self._tell(f"{self.name}, entry {entry_id}: says first {first}, count {count}, has "
                       f"{len(rows)} rows from {seqs[:1]} to {seqs[-1:]}")
        if previous >= first:
            self._tell(f"{self.name}, entry {entry_id}: begins at {first}, and follows on "
                       f"{previous}")
        for seq, row in rows:
            if seq <= self._last:
                self._tell(f"{self.name} {seq}: twice, or behind {self._last}")
            else:
                self._rows.append((seq, row))
                self._first = self._first or seq
                self._last = seq
        return len(rows)

    async def _skip(self, entry_id: str, before: int, previous: int) -> None:
        """An entry that does not follow on the one before: was it cut off meanwhile?"""
        oldest = await self._oldest()
        if oldest is not None and oldest >= before:
            self.start = max(self.start, previous + 1)

    def missing(self, seq: int) -> None:
        """The log has this row, the stream has not."""
        if seq < (self._first or 2**63) and self.start == self._began + 1:
            self._missing.append(seq)
        else:
            self._tell(f"{self.name} {seq}: missing")

    def late(self, marks: Mapping[str, int], group: str) -> list[str]:
        """Rows that are missing before the first one of a whole stream: a market that has a
        stream only since redis.markets names it, or differences."""
        if not self._missing:
            return []
        if not group or (group in marks and not self._first):
            for seq in self._missing:
                self._tell(f"{self.name} {seq}: missing")
            return []
        return [f"{self.name}: {len(self._missing)} events before "
                f"{self._first or 'the next one'} are not in it; redis.markets names this market "
                "only since then"]

"""A part of the log, by time, as rows of one table: what `matchd export` reads.

The log is walked twice. Once for the definitions of instruments, which say how many decimals a
price has; then from the segment in which the span begins. A venue may be writing meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from cython_core import record
from cython_core.event import EventBatch
from cython_core.rows import Rows
from engine.journal.reader import (
    Cursor,
    first_header,
    follow,
    log_tag,
    read_header,
)
from engine.journal.segment import UNIT_BYTES, segment_name, segment_numbers
from engine.journal.snapshot import BadSnapshot, read_snapshot, snapshot_seqs
from engine.journal.storage import Storage
from engine.stores.tables import new_rows

# Rows that are written at once, and so about what is in memory.
CHUNK_ROWS = 2 * 122_880

Progress = Callable[[int, int], None]


class Scale(NamedTuple):
    """How integers of an instrument become decimals."""

    price_decimals: int
    quantity_decimals: int
    lot_size: int


class Definition(NamedTuple):
    """What an instrument was from an event on; seq 0 for what was before the log begins."""

    seq: int
    instrument_id: int
    symbol: str
    scale: Scale


class Sink(Protocol):
    """Takes rows to a file."""

    def write(self, rows: Rows, start: int, stop: int, scales: dict[str, Scale]) -> None:
        """Write some rows, whose symbols have these scales."""


class LogSpan:
    """The events of a log with from_ns <= time < to_ns, both 0 when open, up to `last_seq`. What
    was taken is from `first_seq` to `last_seq`, both 0 when there was nothing."""

    def __init__(self, storage: Storage, from_ns: int, to_ns: int, last_seq: int,
                 progress: Progress) -> None:
        self.from_ns, self.to_ns = from_ns, to_ns
        self.first_seq = self.last_seq = 0
        self._storage, self._limit_seq, self._progress = storage, last_seq, progress
        header = first_header(storage)
        self.log_id = header.log_id
        self._first = Cursor(header.number, UNIT_BYTES, header.first_seq,
                             header.previous_checksum, header.incarnation)
        self._start = self._segment_before(from_ns)
        self._places, self._bytes = self._segment_places()
        self._walked = 0
        self.definitions = self._find_definitions()

    def take(self, table: str, sink: Sink, boundary_ns: int = 0) -> None:
        """Give the span's rows of a table to `sink`.

        Rows go in chunks, those of candles between times that `boundary_ns` divides, so that no
        candle is in two of them; an order is whole only at the end of the span. Raises
        JournalError.
        """
        # Both walks count as one way.
        self._walked = self._bytes
        taking: _Taking | None = None
        before: Rows | None = None
        for batch in self._batches(self._start):
            if before is None:
                before = self._named_rows(batch.first_seq - 1, ())
            if taking is None:
                if self.from_ns and before.apply(batch, until_ns=self.from_ns):
                    before.clear()
                    continue
                rows = self._named_rows(before.applied_seq, (table,))
                taking = _Taking(rows, table, sink, self, boundary_ns)
            if not taking.take(batch):
                break
        if taking is not None:
            taking.finish()
            if taking.rows.applied_seq >= taking.first_seq:
                self.first_seq, self.last_seq = taking.first_seq, taking.rows.applied_seq
        self._progress(2 * self._bytes, 2 * self._bytes)

    # -- where to begin ----------------------------------------------------------------------

    def _segment_before(self, from_ns: int) -> Cursor:
        """The newest segment whose first block is older than `from_ns`; else the oldest."""
        best, tag = self._first, log_tag(self.log_id)
        numbers = segment_numbers(self._storage)
        low, high = 1, len(numbers) if from_ns else 0
        while low < high:
            middle = (low + high) // 2
            header = read_header(self._storage, numbers[middle])
            time_ns = self._first_time_ns(numbers[middle], tag) if header is not None else None
            if header is not None and time_ns is not None and time_ns < from_ns:
                best = Cursor(numbers[middle], UNIT_BYTES, header.first_seq,
                              header.previous_checksum, header.incarnation)
                low = middle + 1
            else:
                high = middle
        return best

    def _first_time_ns(self, number: int, tag: int) -> int | None:
        file = self._storage.open(segment_name(number))
        try:
            block = record.parse_block_header(file.pread(UNIT_BYTES, UNIT_BYTES), tag)
        finally:
            file.close()
        return None if block is None else block.time_ns

    # -- names and decimals ------------------------------------------------------------------

    def _find_definitions(self) -> list[Definition]:
        """Every definition up to the end of the span, in order."""
        start, found = self._known_before()
        rows = new_rows(start.next_seq - 1, ())
        for one in found:
            rows.define(one.instrument_id, one.symbol)
        for batch in self._batches(start):
            rows.apply(batch)
            if rows.count("instruments"):
                found += [_definition(event["seq"], event["instrument_id"], event)
                          for event in batch.dicts() if event["kind"] == "instrument_defined"
                          and not 0 < self.to_ns <= event["time_ns"]]
            if self.to_ns and rows.last_time_ns >= self.to_ns:
                break
            rows.clear()
        return found

    def _known_before(self) -> tuple[Cursor, list[Definition]]:
        """A place at or before the span's first segment, and what was defined before it: the
        newest snapshot there, else the beginning of the log. Of a log whose beginning is gone the
        oldest snapshot serves."""
        for seq in snapshot_seqs(self._storage):
            if seq < self._start.next_seq or (self._first.next_seq > 1
                                              and seq == snapshot_seqs(self._storage)[-1]):
                try:
                    snapshot = read_snapshot(self._storage, seq)
                except BadSnapshot:
                    continue
                if snapshot.log_id == self.log_id:
                    return (min(snapshot.cursor, self._start, key=lambda place: place.next_seq),
                            _instruments(snapshot.matcher))
        return self._first, []

    def _named_rows(self, applied_seq: int, keep: tuple[str, ...]) -> Rows:
        rows = new_rows(applied_seq, keep)
        for one in self.definitions:
            if one.seq <= applied_seq:
                rows.define(one.instrument_id, one.symbol)
        return rows

    # -- reading -----------------------------------------------------------------------------

    def _segment_places(self) -> tuple[dict[int, int], int]:
        """Where each segment begins when all stand one behind the other, and their length."""
        places, total = {}, 0
        for number in segment_numbers(self._storage):
            file = self._storage.open(segment_name(number))
            places[number] = total
            total += file.size()
            file.close()
        return places, total

    def _batches(self, start: Cursor) -> Iterator[EventBatch]:
        """Whole commands from a place on, up to `limit_seq`."""
        for run in follow(self._storage, start):
            batch, place = run.batch, self._places.get(run.segment, self._bytes) + run.offset
            self._progress(self._walked + min(place, self._bytes), 2 * self._bytes)
            if batch.first_seq > self._limit_seq:
                return
            if batch.first_seq + batch.event_count - 1 > self._limit_seq:
                yield record.events_before(batch, self._limit_seq + 1)
                return
            yield batch


class _Taking:
    """Rows as they fill, and the scales that hold for them."""

    def __init__(self, rows: Rows, table: str, sink: Sink, span: LogSpan,
                 boundary_ns: int) -> None:
        self.rows, self.first_seq = rows, rows.applied_seq + 1
        self._table, self._sink, self._span, self._boundary_ns = table, sink, span, boundary_ns
        self._scales: dict[str, Scale] = {}
        # Slices of orders, which are written last, and the scales of each.
        self._pieces: list[tuple[int, int, dict[str, Scale]]] = []
        self._changes: list[Definition] = []
        for one in span.definitions:
            if one.seq <= rows.applied_seq or one.symbol not in self._scales:
                self._scales[one.symbol] = one.scale
            elif one.scale != self._last_scale(one.symbol):
                self._changes.append(one)

    def _last_scale(self, symbol: str) -> Scale:
        changed = [one.scale for one in self._changes if one.symbol == symbol]
        return changed[-1] if changed else self._scales[symbol]

    def take(self, batch: EventBatch) -> bool:
        """Take a batch; False when the span ends in it."""
        while self._changes and self._changes[0].seq < batch.first_seq + batch.event_count:
            if not self._apply(record.events_before(batch, self._changes[0].seq)):
                return False
            # What was made so far has the scales from before.
            self._write()
            change = self._changes.pop(0)
            self._scales[change.symbol] = change.scale
        return self._apply(batch)

    def finish(self) -> None:
        """Write the rest."""
        self._write()
        for start, stop, scales in self._pieces:
            for at in range(start, stop, CHUNK_ROWS):
                self._sink.write(self.rows, at, min(at + CHUNK_ROWS, stop), scales)

    def _apply(self, batch: EventBatch) -> bool:
        rows, to_ns = self.rows, self._span.to_ns
        if self._table == "orders":
            return rows.apply(batch, until_ns=to_ns)
        if rows.count(self._table) < CHUNK_ROWS:
            return rows.apply(batch, until_ns=to_ns)
        if self._boundary_ns:
            boundary = (rows.last_time_ns // self._boundary_ns + 1) * self._boundary_ns
            if rows.apply(batch, until_ns=min(boundary, to_ns or boundary)):
                return True
            if to_ns and boundary >= to_ns:
                return False
        self._write()
        return rows.apply(batch, until_ns=to_ns)

    def _write(self) -> None:
        """Give on what was not given on; orders stay, they may change."""
        count = self.rows.count(self._table)
        if self._table == "orders":
            start = self._pieces[-1][1] if self._pieces else 0
            self._pieces.append((start, count, dict(self._scales)))
        elif count:
            self._sink.write(self.rows, 0, count, self._scales)
            self.rows.clear()


def _definition(seq: int, instrument_id: int, fields: dict[str, int | str]) -> Definition:
    return Definition(seq, instrument_id, str(fields["symbol"]),
                      Scale(int(fields["price_decimals"]), int(fields["quantity_decimals"]),
                            int(fields["lot_size"])))


def _instruments(state: memoryview) -> list[Definition]:
    from cython_core.matcher import Matcher
    return [_definition(0, number, row)
            for number, row in Matcher.load(state).instruments().items()]

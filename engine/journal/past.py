"""The log as a past that can be asked: events between two seqs, the state at one.

For threads beside the loop: everything here reads files (or what memory keeps) and may take long.
One thread at a time uses an object. What is asked for must be committed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cython_core import record
from cython_core.errors import CoreError
from cython_core.event import EventBatch
from cython_core.ledger import last_whole_seq
from engine.errors import JournalError, NotKeptError
from engine.journal.chunks import ChunkIndex
from engine.journal.index import StreamIndex, unpack_index_file
from engine.journal.reader import (
    RUN_UNITS,
    WINDOW_BYTES,
    Cursor,
    LogWalk,
    cursor_before,
    first_header,
    log_tag,
    read_header,
)
from engine.journal.segment import UNIT_BYTES, index_name, segment_name
from engine.journal.snapshot import BadSnapshot, read_snapshot, snapshot_seqs
from engine.journal.storage import Storage

if TYPE_CHECKING:
    from cython_core.matcher import Matcher

# Where one block is wanted, so much is read at once: a chunk of the index and a block.
LOOKUP_BYTES = 512 << 10
INDEXES_MAX = 8


class FilePast:
    """The past of a log on disk, which a journal may be writing."""

    def __init__(self, storage: Storage, index: StreamIndex, log_id: bytes,
                 load_matcher: Callable[[memoryview], Matcher]) -> None:
        self._storage, self._index, self._log_id = storage, index, log_id
        self._load_matcher = load_matcher
        self._tag = log_tag(log_id)
        self._closed: dict[int, ChunkIndex | None] = {}

    def oldest_seq(self) -> int:
        """The first seq that is kept. Raises JournalError."""
        return first_header(self._storage).first_seq

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        """The events from_seq..to_seq in order, in batches of whole commands: the first may begin
        earlier, the last end later. Raises NotKeptError, JournalError."""
        if from_seq > to_seq:
            return
        cursor = self._cursor(from_seq)
        single = from_seq == to_seq
        for batch in self._walk(cursor, to_seq, LOOKUP_BYTES if single else WINDOW_BYTES,
                                1 if single else RUN_UNITS):
            if batch.first_seq + batch.event_count > from_seq:
                yield batch

    def state_at(self, seq: int, events_max: int) -> tuple[Matcher, int]:
        """The matcher after the last whole command up to `seq`, and the seq it stands at.

        Raises NotKeptError when it would take more than `events_max` events, or what it takes is
        gone; JournalError when the log can't be read.
        """
        matcher, cursor = self._snapshot_before(seq)
        if seq - matcher.next_seq >= events_max:
            raise NotKeptError(f"the state at seq {seq} is {seq - matcher.next_seq + 1} events "
                               "from the nearest snapshot")
        if matcher.next_seq <= seq:
            for batch in self._walk(cursor, seq, WINDOW_BYTES, RUN_UNITS):
                replay_until(matcher, batch, seq)
        return matcher, matcher.next_seq - 1

    def oldest_state(self) -> tuple[Matcher, int]:
        """The state of the oldest snapshot from which the kept events lead on, and its seq.
        Raises NotKeptError when there is none that can be read."""
        oldest = self.oldest_seq()
        for at in reversed(snapshot_seqs(self._storage)):
            matcher = self._matcher_of(at) if at >= oldest - 1 else None
            if matcher is not None:
                return matcher[0], at
        raise NotKeptError(f"the log begins at {oldest}, and no snapshot can be read that says "
                           "what was before")

    def incarnation_at(self, seq: int) -> int:
        """The incarnation of the log in which the committed event `seq` was written. Raises
        NotKeptError, JournalError."""
        walk = LogWalk(self._storage, self._cursor(seq))
        walk.window_bytes = LOOKUP_BYTES
        for run in walk.runs(1):
            if run.batch.first_seq + run.batch.event_count > seq:
                return walk.cursor().incarnation
        raise JournalError(f"the log ends before seq {seq}")

    # -- places ------------------------------------------------------------------------------

    def _walk(self, cursor: Cursor, to_seq: int, window_bytes: int,
              run_units: int) -> Iterator[EventBatch]:
        """Whole blocks from a place on, until `to_seq` is among them."""
        while True:
            walk = LogWalk(self._storage, cursor)
            walk.window_bytes = window_bytes
            for run in walk.runs(run_units):
                yield run.batch
                if run.batch.first_seq + run.batch.event_count > to_seq:
                    return
            # A walk may end at a block that was just being written: it is whole by now.
            if walk.cursor() == cursor:
                raise JournalError(f"the log ends before seq {to_seq}, at {cursor.next_seq - 1}")
            cursor = walk.cursor()

    def _cursor(self, seq: int) -> Cursor:
        """A place between blocks, at or a little before the block that holds `seq`."""
        start = cursor_before(self._storage, seq)
        if start is None:
            raise NotKeptError(f"seq {seq} is not kept: the log begins at {self.oldest_seq()}")
        index = self._chunks(start.segment)
        place = index.place_of(seq) if index is not None else None
        if place is None:
            return start
        offset, first_seq = place
        file = self._storage.open(segment_name(start.segment))
        try:
            header = record.parse_block_header(file.pread(UNIT_BYTES, offset), self._tag)
        finally:
            file.close()
        if header is None or header.first_seq != first_seq:
            # The index is of another segment by now: the long way round.
            return start
        return Cursor(start.segment, offset, first_seq, header.previous_checksum,
                      header.incarnation)

    def _chunks(self, segment: int) -> ChunkIndex | None:
        """The chunk index of a segment; None where there is none (the segment is then walked)."""
        if segment == self._index.segment:
            return self._index.current
        if segment not in self._closed:
            while len(self._closed) >= INDEXES_MAX:
                del self._closed[next(iter(self._closed))]
            self._closed[segment] = self._load_chunks(segment)
        return self._closed[segment]

    def _load_chunks(self, segment: int) -> ChunkIndex | None:
        try:
            following = read_header(self._storage, segment + 1)
            file = self._storage.open(index_name(segment))
            try:
                data = file.pread(file.size(), 0)
            finally:
                file.close()
            chain = following.previous_checksum if following is not None else 0
            return unpack_index_file(data, self._log_id, segment, chain)
        except (OSError, ValueError):
            return None

    def _snapshot_before(self, seq: int) -> tuple[Matcher, Cursor]:
        """The newest good snapshot at or before `seq` and where the log goes on from it."""
        for at in snapshot_seqs(self._storage):
            found = self._matcher_of(at) if at <= seq else None
            if found is not None:
                return found
        if self.oldest_seq() != 1:
            raise NotKeptError(f"no snapshot reaches back to seq {seq}, and the log begins at "
                               f"{self.oldest_seq()}")
        return new_matcher(), self._first_cursor()

    def _matcher_of(self, seq: int) -> tuple[Matcher, Cursor] | None:
        """What the snapshot of this seq holds; None when it is no good one of this log."""
        try:
            snapshot = read_snapshot(self._storage, seq)
            if snapshot.log_id == self._log_id:
                return self._load_matcher(snapshot.matcher), snapshot.cursor
        except (BadSnapshot, CoreError):
            pass
        return None

    def _first_cursor(self) -> Cursor:
        header = first_header(self._storage)
        return Cursor(header.number, UNIT_BYTES, header.first_seq, header.previous_checksum,
                      header.incarnation)


class MemoryPast:
    """The past of a log in memory: the batches that are kept, oldest first."""

    def __init__(self, batches: Callable[[], list[EventBatch]]) -> None:
        self._batches = batches

    def oldest_seq(self) -> int:
        """The first seq that is kept."""
        batches = self._batches()
        return batches[0].first_seq if batches else 1

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        """As FilePast.events. Raises NotKeptError."""
        if from_seq > to_seq:
            return
        batches = self._batches()
        start = bisect_right(batches, from_seq, key=lambda batch: batch.first_seq) - 1
        if start < 0:
            raise NotKeptError(f"seq {from_seq} is not kept in memory any more")
        for batch in batches[start:]:
            if batch.first_seq > to_seq:
                return
            yield batch

    def oldest_state(self) -> tuple[Matcher, int]:
        """As FilePast.oldest_state: there is none, there are no snapshots. Raises NotKeptError."""
        raise NotKeptError(f"memory keeps events from {self.oldest_seq()} on and no state")

    def state_at(self, seq: int, events_max: int) -> tuple[Matcher, int]:
        """As FilePast.state_at; there are no snapshots, so the log must be there from its
        beginning."""
        if self.oldest_seq() != 1 or seq > events_max:
            raise NotKeptError(f"the way to the state at seq {seq} is not kept in memory")
        matcher = new_matcher()
        for batch in self.events(1, seq):
            replay_until(matcher, batch, seq)
        return matcher, matcher.next_seq - 1


def replay_until(matcher: Matcher, batch: EventBatch, seq: int) -> None:
    """Apply what the matcher has not of a batch of whole commands, as far as whole commands go
    up to `seq`. Raises CoreError."""
    whole = last_whole_seq(batch, seq)
    if whole >= matcher.next_seq:
        matcher.replay(record.events_before(record.events_from(batch, matcher.next_seq),
                                            whole + 1))


def new_matcher() -> Matcher:
    """A matcher without instruments and accounts."""
    from cython_core.matcher import Matcher
    return Matcher()

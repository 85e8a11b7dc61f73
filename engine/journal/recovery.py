"""Start-up: the newest good snapshot, then the blocks after it.

There is one way to start, taken at every start. Where the log is damaged, the damage is judged
(reader.judge): a torn tail is cut, zeroed and named in the notes, and a new incarnation begins;
corruption stops the start before anything on disk is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cython_core import record
from cython_core.errors import CoreError
from cython_core.event import EventBatch
from engine.errors import JournalError
from engine.journal.index import StreamIndex, pack_index_file
from engine.journal.reader import (
    Cursor,
    Ending,
    JournalCorrupt,
    LogWalk,
    Run,
    first_header,
    first_nonzero_byte,
    judge,
    read_header,
)
from engine.journal.segment import (
    FOLDER,
    UNIT_BYTES,
    index_name,
    segment_name,
    segment_numbers,
)
from engine.journal.snapshot import BadSnapshot, Snapshot, read_snapshot, snapshot_seqs
from engine.journal.storage import COPY_BYTES, Storage


class State(NamedTuple):
    """What the log and its snapshots give."""

    matcher: Any
    streams: StreamIndex
    log_id: bytes
    cursor: Cursor
    # Whether the log ends with the closing block of a clean shutdown.
    closed: bool
    # Whether a new incarnation has to begin: something was cut that somebody may have seen.
    cut: bool
    snapshot_seq: int
    events: int
    notes: list[str]


# Told from time to time: bytes of the log that were read, bytes to read, events applied.
Progress = Callable[[int, int, int], None]


def silent(done_bytes: int, all_bytes: int, events: int) -> None:
    """Progress that nobody wants to know."""


class _Refused(Exception):
    """The snapshot does not fit the log; the text says why."""


def recover(storage: Storage, make_matcher: Callable[[], Any],
            load_matcher: Callable[[memoryview], Any], progress: Progress = silent) -> State:
    """The state at the end of the log; cuts a torn tail. What `progress` raises ends it with
    nothing changed.

    Raises JournalCorrupt, with nothing changed, when what was on disk is damaged; JournalError
    when a file can't be read or the log is of another layout.
    """
    notes: list[str] = []
    header = first_header(storage)
    ahead = False
    for seq in snapshot_seqs(storage):
        try:
            snapshot = read_snapshot(storage, seq)
            matcher = _load(load_matcher, snapshot)
            return _walk(storage, header, snapshot, matcher, notes, ahead, progress)
        except (BadSnapshot, _Refused) as reason:
            notes.append(f"snapshots/{seq}.snap is refused: it {reason}")
            ahead = ahead or "ahead of the log" in str(reason)
    if header.first_seq != 1:
        raise JournalCorrupt(f"the log begins at seq {header.first_seq} and no good snapshot "
                             "reaches it", segment_name(header.number), 0, header.first_seq)
    return _walk(storage, header, None, make_matcher(), notes, ahead, progress)


def _load(load_matcher: Callable[[memoryview], Any], snapshot: Snapshot) -> Any:
    try:
        matcher = load_matcher(snapshot.matcher)
    except Exception as error:
        raise BadSnapshot(f"can't be loaded: {error}") from error
    if matcher.next_seq != snapshot.seq + 1:
        raise BadSnapshot(f"holds the state of seq {matcher.next_seq - 1}")
    return matcher


def _walk(storage: Storage, header: record.SegmentHeader, snapshot: Snapshot | None, matcher: Any,
          notes: list[str], ahead: bool, progress: Progress) -> State:
    """Apply the log behind the snapshot. Raises _Refused when the two do not belong together."""
    before = snapshot and _join(storage, header, snapshot)
    walk = LogWalk(storage, before and before.cursor)
    feed = _Feed(storage, walk, matcher, snapshot.streams if snapshot else StreamIndex())
    all_bytes = walk.bytes_ahead()
    for run in walk.runs(feed.index.current.room_units):
        feed.take(run)
        progress(walk.blocks_bytes, all_bytes, feed.events)
    ending = _ending(walk)
    feed.finish()
    judge(storage, walk.log_id, ending, snapshot.seq if snapshot else 0)
    if snapshot and ending.cursor.next_seq <= snapshot.seq:
        raise _Refused(f"is ahead of the log, which ends at seq {ending.cursor.next_seq - 1}")
    feed.check()
    notes.extend(ending.notes)
    flags = before.flags if before and not walk.blocks else ending.flags
    lazy = bool(flags & record.LAZY) and not flags & record.CLOSING
    if lazy:
        notes.append("the last run was not closed and synced at intervals: what it acknowledged "
                     "in its last interval may be missing")
    if ending.damage:
        notes.append(cut_tail(storage, ending))
    feed.keep()
    return State(matcher, feed.index, walk.log_id, ending.cursor,
                 bool(flags & record.CLOSING) and not ending.damage,
                 bool(ending.damage) or lazy or ahead, snapshot.seq if snapshot else 0,
                 feed.events, notes)


def _ending(walk: LogWalk) -> Ending:
    if walk.ending is None:
        raise JournalError("a walk over the log did not end")
    return walk.ending


def _join(storage: Storage, oldest: record.SegmentHeader, snapshot: Snapshot) -> Ending:
    """The walk to the snapshot's place in the log, over the blocks of that segment before it.

    Raises _Refused when the log does not come by that place, JournalCorrupt when it is damaged
    before it (the snapshot proves that it was on disk).
    """
    if snapshot.log_id != oldest.log_id:
        raise _Refused("belongs to another log")
    numbers, cursor = segment_numbers(storage), snapshot.cursor
    if cursor.segment > numbers[-1]:
        raise _Refused(f"is ahead of the log, which ends in segment {numbers[-1]}")
    if cursor.segment not in numbers:
        raise _Refused(f"needs segment {cursor.segment}, which is not there")
    header = read_header(storage, cursor.segment)
    if header is None:
        if first_nonzero_byte(storage, cursor.segment, 0) < 0:
            raise _Refused(f"is ahead of the log, which ends before segment {cursor.segment}")
        raise JournalCorrupt("the segment's header is damaged", segment_name(cursor.segment), 0,
                             snapshot.seq)
    walk = LogWalk(storage, Cursor(header.number, UNIT_BYTES, header.first_seq,
                                   header.previous_checksum, header.incarnation), cursor)
    for _ in walk.runs():
        pass
    ending = _ending(walk)
    if ending.damage:
        judge(storage, walk.log_id, ending, cursor.next_seq - 1)
    if ending.cursor != cursor:
        if ending.cursor.next_seq < cursor.next_seq and not ending.damage:
            raise _Refused(f"is ahead of the log, which ends at seq {ending.cursor.next_seq - 1}")
        raise _Refused("does not belong to this log: the blocks at its place are others")
    return ending


class _Feed:
    """Hands the events of a walk to the stream index, and to the matcher from its seq on."""

    # Chunk indexes of segments closed on the way are kept until the log proved good. Beyond so
    # much they are left to be made again when they are needed.
    KEEP_BYTES_MAX = 64 << 20

    def __init__(self, storage: Storage, walk: LogWalk, matcher: Any, index: StreamIndex) -> None:
        self._storage, self._walk, self._matcher = storage, walk, matcher
        self.index = index
        self.index.segment = walk.cursor().segment
        self._matcher_from = matcher.next_seq
        self._closed: dict[int, bytes] = {}
        self._closed_bytes = 0
        self.events = 0

    def take(self, run: Run) -> None:
        """One run of the walk."""
        self._enter(run.segment)
        self.index.add(run.offset, run.batch)
        # A run that went on beyond the end of a chunk would make it longer than a lookup reads.
        self._walk.run_units = self.index.current.room_units
        if run.batch.first_seq + run.batch.event_count > self._matcher_from:
            self._replay(run, record.events_from(run.batch, self._matcher_from))

    def finish(self) -> None:
        """The walk is over: it may have stepped into a segment without an event."""
        self._enter(self._walk.cursor().segment)

    def check(self) -> None:
        """Raise JournalError unless index and matcher count the same streams."""
        for account_id, number in self.index.next_numbers().items():
            if self._matcher.stream_next(account_id) != number:
                raise JournalError(f"account {account_id} has {number} as its next message in the "
                                   f"index and {self._matcher.stream_next(account_id)} in the "
                                   "matcher")

    def keep(self) -> None:
        """Write the chunk indexes of segments that have none. Raises OSError."""
        for number, chunks in self._closed.items():
            header = read_header(self._storage, number + 1)
            if header is not None:
                write_index(self._storage, self._walk.log_id, number, header.previous_checksum,
                            chunks)

    def _enter(self, segment: int) -> None:
        while self.index.segment < segment:
            closed = self.index.segment
            chunks = self.index.next_segment(closed + 1)
            if self._closed_bytes < self.KEEP_BYTES_MAX and not self._storage.exists(
                    index_name(closed)):
                self._closed[closed] = chunks
                self._closed_bytes += len(chunks)

    def _replay(self, run: Run, batch: EventBatch) -> None:
        try:
            self._matcher.replay(batch)
        except CoreError as error:
            raise JournalCorrupt(f"the checksums are right, but {error}",
                                 segment_name(run.segment), run.offset,
                                 self._matcher.next_seq) from error
        self.events += batch.event_count
        expected = batch.first_seq + batch.event_count
        if self._matcher.next_seq != expected:
            raise JournalError(f"after replaying up to seq {expected - 1} the matcher is at "
                               f"{self._matcher.next_seq - 1}")


def write_index(storage: Storage, log_id: bytes, number: int, chain: int, chunks: bytes) -> None:
    """Keep the chunk index of a closed segment, durably. `chain` is the checksum of its last
    block. Raises OSError."""
    name = index_name(number)
    unfinished = name + ".tmp"
    if storage.exists(unfinished):
        storage.unlink(unfinished)
    file = storage.open(unfinished, create=True)
    try:
        file.pwritev([pack_index_file(log_id, number, chain, chunks)], 0)
        file.fdatasync()
    finally:
        file.close()
    storage.rename(unfinished, name)
    storage.sync_folder(FOLDER)


def cut_tail(storage: Storage, ending: Ending) -> str:
    """Zero everything behind the ending, durably; returns the line that says so.

    Raises OSError.
    """
    cursor = ending.cursor
    cut_bytes = 0
    for number in segment_numbers(storage):
        if number >= cursor.segment:
            start = cursor.offset if number == cursor.segment else 0
            cut_bytes += zero_from(storage, number, start)
    return (f"{segment_name(cursor.segment)}: {ending.damage}: a torn tail, cut at byte "
            f"{cursor.offset} ({cut_bytes} bytes zeroed); the log goes on after seq "
            f"{cursor.next_seq - 1}")


def zero_from(storage: Storage, number: int, start: int) -> int:
    """Zero the pages of a segment that are not zero from `start` on; returns their bytes."""
    file = storage.open(segment_name(number), write=True)
    zeroed = 0
    try:
        size = file.size()
        for offset in range(start, size, COPY_BYTES):
            data = file.pread(min(COPY_BYTES, size - offset), offset)
            if record.first_nonzero(data) >= 0:
                file.pwritev([bytes(len(data))], offset)
                zeroed += len(data)
        if zeroed:
            file.fdatasync()
    finally:
        file.close()
    return zeroed

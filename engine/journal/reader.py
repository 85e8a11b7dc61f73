"""The one reader of the log: recovery, replay, verify, dump and stores all walk with it.

`LogWalk` goes through blocks from a place on and stops where no good next block is. What that
means is decided by `judge`: the end of the log, a torn tail (nothing at or above it was known to
be on disk) or corruption. It only reads, so it may run beside the venue: it then sees what is
valid at that moment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, TypeVar

from cython_core import record
from cython_core.event import EventBatch
from cython_core.model import EVENT_LAYOUT_VERSION as LAYOUT_VERSION
from engine.errors import CorruptError, JournalError
from engine.journal.segment import PAGE_BYTES, UNIT_BYTES, segment_name, segment_numbers
from engine.journal.storage import File, Storage

# What is read at once; a larger block is read whole.
WINDOW_BYTES = 4 << 20
# Events are handed out in runs of about so many units, in step with the index's chunks.
RUN_UNITS = 4096


Found = TypeVar("Found")


class JournalCorrupt(CorruptError):
    """Bytes that were known to be on disk are damaged. Nothing was changed."""

    def __init__(self, detail: str, file: str, offset: int, seq: int) -> None:
        super().__init__(f"{file} is corrupt at byte {offset}, seq {seq}: {detail}",
                         "restore the file from a copy, or let `matchd journal repair` cut there")
        self.file, self.offset, self.seq = file, offset, seq


class Run(NamedTuple):
    """Events of whole blocks, and where the first of these blocks is."""

    batch: EventBatch
    segment: int
    offset: int


class Cursor(NamedTuple):
    """A place between two blocks, and what the next block has to follow."""

    segment: int
    offset: int
    next_seq: int
    chain: int
    incarnation: int


class Ending(NamedTuple):
    """Where a walk stopped, and why. `damage` is empty at a clean end."""

    cursor: Cursor
    damage: str
    synced_seq: int
    time_ns: int
    flags: int
    notes: tuple[str, ...]


def log_tag(log_id: bytes) -> int:
    """What the blocks of this log carry to be known as its own."""
    return record.crc32c(log_id)


def read_header(storage: Storage, number: int) -> record.SegmentHeader | None:
    """The header of a segment; None when it is not in use yet or damaged."""
    file = storage.open(segment_name(number))
    try:
        return record.parse_segment_header(file.pread(UNIT_BYTES, 0))
    finally:
        file.close()


def first_header(storage: Storage) -> record.SegmentHeader:
    """The header of the oldest segment. Raises JournalCorrupt, JournalError."""
    return _beside_removal(storage, _first_header)


def _beside_removal(storage: Storage, read: Callable[[Storage], Found]) -> Found:
    """What `read` finds, read again when a segment that it saw was removed meanwhile."""
    while True:
        numbers = segment_numbers(storage)
        try:
            return read(storage)
        except FileNotFoundError:
            if segment_numbers(storage) == numbers:
                raise


def _first_header(storage: Storage) -> record.SegmentHeader:
    numbers = segment_numbers(storage)
    if not numbers:
        raise JournalError(f"there is no journal in {storage}",
                           "start the venue once, or name --data-dir")
    header = read_header(storage, numbers[0])
    if header is None or header.number != numbers[0]:
        raise JournalCorrupt("the segment's header is damaged", segment_name(numbers[0]), 0, 0)
    if not 1 <= header.layout_version <= LAYOUT_VERSION:
        raise JournalError(f"the log has layout {header.layout_version}, this matchd reads "
                           f"{LAYOUT_VERSION}", "read it with the version that wrote it")
    return header


class LogWalk:
    """Walks the blocks of the log in order.

    `start` must be a place between blocks; without it the walk begins with the oldest segment.
    It goes to the end of the log, or to the offset of `until` in that segment. Iterate `runs()`,
    then look at `ending`. Opening checks the oldest header only.
    """

    def __init__(self, storage: Storage, start: Cursor | None = None,
                 until: Cursor | None = None) -> None:
        self._storage = storage
        self._until = until
        self._numbers = segment_numbers(storage)
        header = first_header(storage)
        self.log_id = header.log_id
        self.oldest = header
        if start is None:
            start = Cursor(header.number, UNIT_BYTES, header.first_seq, header.previous_checksum,
                           header.incarnation)
        self._walker = record.BlockWalker(log_tag(self.log_id), start.next_seq, start.chain,
                                          start.incarnation)
        self._segment, self._offset = start.segment, start.offset
        self._notes: list[str] = []
        self.ending: Ending | None = None
        self.blocks_bytes = 0
        self.run_units = RUN_UNITS
        self.window_bytes = WINDOW_BYTES

    @property
    def blocks(self) -> int:
        """Blocks walked so far."""
        return self._walker.blocks

    def cursor(self) -> Cursor:
        """The place reached: behind the last run that was handed out."""
        walker = self._walker
        return Cursor(self._segment, self._offset, walker.next_seq, walker.chain,
                      walker.incarnation)

    def bytes_ahead(self) -> int:
        """About how many bytes of blocks the walk has before it. Raises OSError."""
        found = 0
        for number in self._numbers:
            if number >= self._segment:
                used = used_bytes(self._storage, number)
                found += max(used - (self._offset if number == self._segment else 0), 0)
        return found

    def runs(self, run_units: int = RUN_UNITS) -> Iterator[Run]:
        """Yield the events in order, in runs of whole blocks of one segment.

        Who takes the runs may set `run_units` for the next one. An empty block is no run. Raises
        JournalError when a file can't be read.
        """
        self.run_units = run_units
        while True:
            damage = yield from self._segment_runs()
            if self._until and self._offset == self._until.offset and (
                    self._segment == self._until.segment):
                self._end("")
                return
            if not self._go_to_next(damage):
                return

    def _segment_runs(self) -> Generator[Run, None, str]:
        """The runs of one segment; returns what was wrong at its end, or ""."""
        try:
            file = self._storage.open(segment_name(self._segment))
        except OSError as error:
            return f"the segment can't be opened: {error.strerror}"
        try:
            yield from self._walk(file)
        finally:
            file.close()
        return self._end_of_segment()

    def _walk(self, file: File) -> Iterator[Run]:
        walker, size = self._walker, file.size()
        if self._until and self._segment == self._until.segment:
            size = min(size, self._until.offset)
        data, base, want = b"", self._offset, self.window_bytes
        while True:
            if not data:
                base = self._offset
                data = file.pread(max(min(max(want, self.window_bytes), size - base), 0), base)
            start, batch = self._offset, EventBatch()
            self._offset = base + walker.take(data, start - base, self.run_units, batch)
            self.blocks_bytes += self._offset - start
            if len(batch):
                yield Run(batch, self._segment, start)
            if walker.stop == record.Stop.MORE:
                want = walker.need_bytes
                if self._offset + want > size or len(data) - (self._offset - base) >= want:
                    return
                data = b""
            elif walker.stop != record.Stop.LIMIT:
                return

    def _end_of_segment(self) -> str:
        walker = self._walker
        if walker.stop == record.Stop.BAD:
            return walker.reason
        if walker.stop == record.Stop.MORE and walker.need_bytes > UNIT_BYTES:
            return "the block reaches beyond the end of the segment"
        return ""

    # -- from one segment to the next --------------------------------------------------------

    def _go_to_next(self, damage: str) -> bool:
        """Step into the next segment; False, with `ending` set, when the walk is over."""
        following = self._following()
        if following is not None:
            header = read_header(self._storage, following)
            if header is not None and self._follows(header, following):
                self._note_rest(following)
                self._segment, self._offset = following, UNIT_BYTES
                self._walker.incarnation = header.incarnation
                return True
        if not damage:
            damage = self._what_is_behind()
        self._end(damage)
        return False

    def _following(self) -> int | None:
        position = bisect_right(self._numbers, self._segment)
        if position == len(self._numbers):
            # The venue may have begun a segment since the walk started.
            self._numbers = segment_numbers(self._storage)
            position = bisect_right(self._numbers, self._segment)
        return self._numbers[position] if position < len(self._numbers) else None

    def _follows(self, header: record.SegmentHeader, number: int) -> bool:
        walker = self._walker
        return (number == self._segment + 1 and header.number == number
                and header.log_id == self.log_id and header.first_seq == walker.next_seq
                and header.previous_checksum == walker.chain
                and header.incarnation >= walker.incarnation)

    def _note_rest(self, following: int) -> None:
        """The log goes on in the next segment: the rest of this one must be zeros."""
        place = first_nonzero_byte(self._storage, self._segment, self._offset)
        if place >= 0:
            self._notes.append(f"{segment_name(self._segment)}: bytes behind its last block "
                               f"(from {place}) are not zero; nothing is missing, they are "
                               "ignored")

    def _what_is_behind(self) -> str:
        """What speaks against this being the end of the log, or ""."""
        if first_nonzero_byte(self._storage, self._segment, self._offset) >= 0:
            return "behind the last block there are bytes that are no block"
        for number in self._numbers[bisect_right(self._numbers, self._segment):]:
            if first_nonzero_byte(self._storage, number, 0) >= 0:
                if number != self._segment + 1:
                    return f"segment {self._segment + 1} is missing"
                return f"segment {number} does not go on where segment {self._segment} ends"
        return ""

    def _end(self, damage: str) -> None:
        walker = self._walker
        self.ending = Ending(self.cursor(), damage, walker.synced_seq, walker.time_ns,
                             walker.flags, tuple(self._notes))


def used_bytes(storage: Storage, number: int) -> int:
    """About how much of a segment is written: blocks lie without a hole, behind them are zeros.
    A few reads find the end, to a page."""
    file = storage.open(segment_name(number))
    try:
        low, high = 0, -(-file.size() // PAGE_BYTES)
        while low < high:
            middle = (low + high) // 2
            if record.first_nonzero(file.pread(PAGE_BYTES, middle * PAGE_BYTES)) >= 0:
                low = middle + 1
            else:
                high = middle
        return low * PAGE_BYTES
    finally:
        file.close()


def first_nonzero_byte(storage: Storage, number: int, start: int) -> int:
    """Offset of the first byte of a segment from `start` on that is not zero, or -1."""
    file = storage.open(segment_name(number))
    try:
        size = file.size()
        for offset in range(start, size, WINDOW_BYTES):
            data = file.pread(min(WINDOW_BYTES, size - offset), offset)
            found = record.first_nonzero(data)
            if found >= 0:
                return offset + found
    finally:
        file.close()
    return -1


def stated_synced_seq(storage: Storage, cursor: Cursor, tag: int) -> int:
    """The highest synced seq that any block header from `cursor` on states; 0 without any."""
    highest = 0
    for number in segment_numbers(storage):
        if number < cursor.segment:
            continue
        file = storage.open(segment_name(number))
        try:
            start = cursor.offset if number == cursor.segment else 0
            for offset in range(start, file.size(), WINDOW_BYTES):
                data = file.pread(WINDOW_BYTES, offset)
                at = record.find_block(data, tag, 0)
                while at >= 0:
                    header = record.parse_block_header(data, tag, at)
                    if header is not None:
                        highest = max(highest, header.synced_seq)
                    at = record.find_block(data, tag, at + UNIT_BYTES)
        finally:
            file.close()
    return highest


def judge(storage: Storage, log_id: bytes, ending: Ending, known_synced_seq: int = 0) -> None:
    """Raise JournalCorrupt unless the walk ended at a clean end or at a torn tail.

    `known_synced_seq` is what others know to be on disk (a snapshot's seq).
    """
    if not ending.damage:
        return
    cursor = ending.cursor
    synced_seq = max(ending.synced_seq, known_synced_seq,
                     stated_synced_seq(storage, cursor, log_tag(log_id)))
    if cursor.next_seq <= synced_seq:
        raise JournalCorrupt(f"{ending.damage}; everything up to seq {synced_seq} was on disk",
                             segment_name(cursor.segment), cursor.offset, cursor.next_seq)


def follow(storage: Storage, start: Cursor | None = None) -> Iterator[Run]:
    """Runs of events up to what is valid now, also while the venue writes.

    Raises JournalCorrupt for damage; a torn tail, or a block that is being written, is the end.
    """
    while True:
        walk = LogWalk(storage, start)
        yield from walk.runs()
        ending = walk.ending
        if ending is None or not ending.damage or not was_being_written(storage, walk.log_id,
                                                                        ending):
            return
        start = ending.cursor


def was_being_written(storage: Storage, log_id: bytes, ending: Ending) -> bool:
    """Whether the log goes on at a place where a walk beside the writer ended with damage.

    The writer may have finished this very block, and more behind it, since the walk looked. What
    is on disk for certain can be read at a second look, or is damaged: JournalCorrupt.
    """
    try:
        judge(storage, log_id, ending)
    except JournalCorrupt:
        again = LogWalk(storage, ending.cursor)
        if next(again.runs(), None) is not None:
            return True
        if again.ending is None or again.ending.cursor != ending.cursor:
            return True
        judge(storage, log_id, again.ending)
        raise
    return False


def cursor_before(storage: Storage, seq: int) -> Cursor | None:
    """The start of the segment that holds `seq` (or would); None when the log begins later.

    Raises JournalCorrupt when a segment header on the way is damaged.
    """
    return _beside_removal(storage, lambda storage: _cursor_before(storage, seq))


def _cursor_before(storage: Storage, seq: int) -> Cursor | None:
    numbers = segment_numbers(storage)
    best: Cursor | None = None
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        header = read_header(storage, numbers[middle])
        if header is not None and header.first_seq <= seq:
            best = Cursor(numbers[middle], UNIT_BYTES, header.first_seq,
                          header.previous_checksum, header.incarnation)
            low = middle + 1
        else:
            high = middle
    return best


def events_since(storage: Storage, seq: int) -> Iterator[EventBatch]:
    """The events from `seq` on, in order, up to what is valid now.

    Raises JournalError when the log begins after `seq`, JournalCorrupt for damage.
    """
    start = cursor_before(storage, seq)
    if start is None:
        header = first_header(storage)
        raise JournalError(f"the log begins at seq {header.first_seq}, seq {seq} is not kept")
    for run in follow(storage, start):
        if run.batch.first_seq + run.batch.event_count > seq:
            yield record.events_from(run.batch, seq)

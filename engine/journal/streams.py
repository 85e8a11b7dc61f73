"""An account's numbered messages, read back from the log in bounded slices."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from cython_core import record
from cython_core.event import EventBatch
from cython_core.stream import WireNames, encode_account
from engine.journal.chunks import CHUNK_UNITS, ChunkIndex
from engine.journal.index import Place, ReplayUnavailable, StreamIndex, unpack_index_file
from engine.journal.reader import Cursor, JournalCorrupt, LogWalk, log_tag, read_header
from engine.journal.recovery import write_index
from engine.journal.segment import UNIT_BYTES, index_name, segment_name
from engine.journal.storage import File, Storage

# Kept at hand: chunk indexes of closed segments, open segment files, events of whole chunks.
INDEXES_MAX = 8
FILES_MAX = 8
CHUNKS_MAX = 4
# A first guess at the bytes of a chunk: one that is not full yet and one block.
CHUNK_BYTES = 2 * CHUNK_UNITS * UNIT_BYTES

Key = TypeVar("Key")
Kept = TypeVar("Kept")


class _Recent(Generic[Key, Kept]):
    """The values used last, by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Key, Kept] = OrderedDict()

    def get(self, key: Key) -> Kept | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Key, value: Kept) -> Kept | None:
        """Keep a value; returns the one that had to go for it."""
        self._kept[key] = value
        return self._kept.popitem(last=False)[1] if len(self._kept) > self._limit else None

    def clear(self) -> list[Kept]:
        kept = list(self._kept.values())
        self._kept.clear()
        return kept


class StreamReader:
    """Reads streams of the log that a journal writes, up to what is committed.

    `end_of` gives the bytes of a segment that may be read; `note` gets a line for each index file
    that had to be made again.
    """

    def __init__(self, storage: Storage, index: StreamIndex, log_id: bytes, names: WireNames,
                 end_of: Callable[[int, int], int], note: Callable[[str], None]) -> None:
        self._storage, self._index, self._log_id, self._names = storage, index, log_id, names
        self._end_of, self._note = end_of, note
        self._tag = log_tag(log_id)
        self._indexes: _Recent[int, ChunkIndex] = _Recent(INDEXES_MAX)
        self._files: _Recent[int, File] = _Recent(FILES_MAX)
        self._chunks: _Recent[tuple[int, int], EventBatch] = _Recent(CHUNKS_MAX)

    def read(self, account_id: int, from_number: int, limit_bytes: int) -> tuple[bytes, int]:
        """Framed `S` packets from message `from_number` on, and the number after them.

        At most `limit_bytes` (but at least one message when there is one), all from one chunk of
        the log. (b"", from_number) when there is no such message yet. Raises ReplayUnavailable
        when the log is not kept that far back, JournalCorrupt for damage.
        """
        if from_number < 1:
            raise ValueError("messages are numbered from 1")
        if from_number >= self._index.current.next_number(account_id):
            return b"", from_number
        place = self._find(account_id, from_number)
        batch = self._events(place)
        if batch.first_seq <= self._index.generation_seq:
            batch = record.events_from(batch, self._index.generation_seq + 1)
        packets, number, _ = encode_account(self._names, batch, batch.first_seq, account_id,
                                            place.number, from_number, limit_bytes)
        if number <= from_number:
            raise JournalCorrupt(f"message {from_number} of account {account_id} is not where the "
                                 "index says", segment_name(place.segment), place.offset,
                                 place.first_seq)
        return packets, number

    def can_read(self, account_id: int, from_number: int) -> bool:
        """Whether the account's messages are still kept from this number on."""
        return (from_number >= self._index.current.next_number(account_id)
                or self._index.current.find(account_id, from_number) is not None
                or self._index.closed_place(account_id, from_number) is not None)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.clear():
            file.close()

    # -- where ---------------------------------------------------------------------------------

    def _find(self, account_id: int, number: int) -> Place:
        found = self._index.current.find(account_id, number)
        if found is not None:
            return Place(self._index.segment, *found)
        closed = self._index.closed_place(account_id, number)
        if closed is None:
            raise ReplayUnavailable(f"message {number} of account {account_id} is not kept")
        segment = closed[0]
        found = self._closed_index(segment).find(account_id, number)
        if found is None:
            raise JournalCorrupt(f"the stream index misses message {number} of account "
                                 f"{account_id}", index_name(segment), 0, 0)
        return Place(segment, *found)

    def _closed_index(self, segment: int) -> ChunkIndex:
        index = self._indexes.get(segment)
        if index is None:
            index = self._load_index(segment)
            self._indexes.put(segment, index)
        return index

    def _load_index(self, segment: int) -> ChunkIndex:
        header = read_header(self._storage, segment + 1)
        if header is None:
            raise JournalCorrupt("the segment's header is damaged", segment_name(segment + 1), 0,
                                 0)
        try:
            file = self._storage.open(index_name(segment))
            try:
                data = file.pread(file.size(), 0)
            finally:
                file.close()
            return unpack_index_file(data, self._log_id, segment, header.previous_checksum)
        except FileNotFoundError:
            reason = "it is missing"
        except ValueError as error:
            reason = str(error)
        self._note(f"{index_name(segment)} is made again: {reason}")
        return self._make_index(segment, header.previous_checksum)

    def _make_index(self, segment: int, chain: int) -> ChunkIndex:
        """Count one segment again, from the numbers at its start."""
        header = read_header(self._storage, segment)
        if header is None:
            raise JournalCorrupt("the segment's header is damaged", segment_name(segment), 0, 0)
        index = ChunkIndex()
        for account_id, number in self._index.first_numbers(segment).items():
            index.start_at(account_id, number)
        walk = LogWalk(self._storage, Cursor(segment, UNIT_BYTES, header.first_seq,
                                             header.previous_checksum, header.incarnation))
        for run in walk.runs():
            if run.segment != segment:
                break
            index.add(run.offset, run.batch)
            walk.run_units = index.room_units
        if walk.ending is not None and walk.ending.damage:
            cursor = walk.ending.cursor
            raise JournalCorrupt(walk.ending.damage, segment_name(cursor.segment), cursor.offset,
                                 cursor.next_seq)
        write_index(self._storage, self._log_id, segment, chain, index.save())
        return index

    # -- what ----------------------------------------------------------------------------------

    def _events(self, place: Place) -> EventBatch:
        """The events of the chunk that begins at this place."""
        key = (place.segment, place.offset)
        kept = self._chunks.get(key)
        if kept is not None:
            return kept
        file = self._file(place.segment)
        end = self._end_of(place.segment, file.size())
        batch, full = EventBatch(), False
        want = CHUNK_BYTES
        while not full and len(batch) == 0:
            data = file.pread(min(want, end - place.offset), place.offset)
            walker = self._walker(place, data)
            walker.take(data, 0, CHUNK_UNITS, batch)
            if walker.stop == record.Stop.MORE and len(data) < end - place.offset:
                want = max(2 * want, walker.need_bytes)
                batch = EventBatch()
            elif walker.stop == record.Stop.BAD or len(batch) == 0:
                raise JournalCorrupt(walker.reason or "a block is missing",
                                     segment_name(place.segment), place.offset, walker.next_seq)
            else:
                full = walker.stop == record.Stop.LIMIT
        if full:
            self._chunks.put(key, batch)
        return batch

    def _walker(self, place: Place, data: bytes) -> record.BlockWalker:
        header = record.parse_block_header(data, self._tag)
        if header is None or header.first_seq != place.first_seq:
            raise JournalCorrupt("the block header is damaged", segment_name(place.segment),
                                 place.offset, place.first_seq)
        return record.BlockWalker(self._tag, header.first_seq, header.previous_checksum,
                                  header.incarnation)

    def _file(self, segment: int) -> File:
        file = self._files.get(segment)
        if file is None:
            try:
                file = self._storage.open(segment_name(segment))
            except FileNotFoundError:
                raise ReplayUnavailable(f"segment {segment} is not kept any more") from None
            oldest = self._files.put(segment, file)
            if oldest is not None:
                oldest.close()
        return file

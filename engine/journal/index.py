"""From an account's message number to its place in the log, for the whole log.

Two levels. In memory, for each account: the closed segments that hold messages of it, with the
first number in each. In a file beside each closed segment (and in memory for the open one): the
chunks of that segment. So a start reads nothing of old segments, and a lookup reads one small
file. Numbers count within a session generation; a roll forgets what was before it.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from typing import NamedTuple

from cython_core import record
from cython_core.event import EventBatch
from engine.errors import JournalError
from engine.journal.chunks import ChunkIndex

_HEAD = struct.Struct("<8sQQII32x")
_MAGIC = b"MDSTIDX1"
_FILE_HEAD = struct.Struct("<8s16sIIQII16x")
_FILE_MAGIC = b"MDIDXFL1"
ACCOUNT_HEAD = struct.Struct("<II")


class ReplayUnavailable(JournalError):
    """The stream's messages from that number on are not kept any more."""


class Place(NamedTuple):
    """Where to start reading for a message number."""

    segment: int
    offset: int
    first_seq: int
    number: int


class StreamIndex:
    """Counts the committed events' messages; finds where a message is."""

    def __init__(self) -> None:
        self.segment = 1
        self.current = ChunkIndex()
        self._closed: dict[int, tuple[array[int], array[int]]] = {}
        self._rolls = 0

    @property
    def generation_seq(self) -> int:
        """Seq of the event that began the present session generation; 0 for the first."""
        return self.current.generation_seq

    def add(self, offset: int, batch: EventBatch, new_block: bool = True) -> None:
        """Count a batch of the block at `offset` in the open segment."""
        self.current.add(offset, batch, new_block)
        if self.current.rolls != self._rolls:
            self._rolls = self.current.rolls
            self._closed.clear()

    def next_segment(self, number: int) -> bytes:
        """The open segment is full; returns its chunk index, to be kept in a file."""
        kept = self.current.save()
        for account_id, first in self.current.first_numbers().items():
            segments, numbers = self._closed.setdefault(account_id, (array("I"), array("Q")))
            segments.append(self.segment)
            numbers.append(first)
        self.current.next_segment()
        self.segment = number
        return kept

    def next_numbers(self) -> dict[int, int]:
        """{account id: next number} of every account that ever had a message."""
        return self.current.next_numbers()

    def closed_place(self, account_id: int, number: int) -> tuple[int, int] | None:
        """(closed segment that holds message `number`, the account's first number there)."""
        segments, numbers = self._closed.get(account_id, (array("I"), array("Q")))
        position = bisect_right(numbers, number) - 1
        return (segments[position], numbers[position]) if position >= 0 else None

    def first_numbers(self, segment: int) -> dict[int, int]:
        """{account id: its first number} in a closed segment."""
        first = {}
        for account_id, (segments, numbers) in self._closed.items():
            position = bisect_right(segments, segment) - 1
            if position >= 0 and segments[position] == segment:
                first[account_id] = numbers[position]
        return first

    def forget_before(self, segment: int) -> None:
        """Segments below `segment` are gone."""
        for account_id, (segments, numbers) in list(self._closed.items()):
            keep = bisect_right(segments, segment - 1)
            if keep == len(segments):
                del self._closed[account_id]
            elif keep:
                self._closed[account_id] = (segments[keep:], numbers[keep:])

    # -- keeping -----------------------------------------------------------------------------

    def save(self) -> bytes:
        """The index as bytes, for a snapshot."""
        current = self.current.save()
        parts = [_HEAD.pack(_MAGIC, len(current), len(self._closed), self.segment, 0), current]
        for account_id, (segments, numbers) in self._closed.items():
            parts += (ACCOUNT_HEAD.pack(account_id, len(segments)), segments.tobytes(),
                      numbers.tobytes())
        return b"".join(parts)

    @classmethod
    def load(cls, data: memoryview) -> StreamIndex:
        """What `save` gave. Raises ValueError, struct.error when the bytes do not add up."""
        index = cls()
        magic, current_bytes, accounts, index.segment, _ = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not a stream index")
        at = _HEAD.size
        index.current = ChunkIndex.load(data[at:at + current_bytes])
        at += current_bytes
        for _ in range(accounts):
            account_id, count = ACCOUNT_HEAD.unpack_from(data, at)
            at += ACCOUNT_HEAD.size
            segments, numbers = array("I"), array("Q")
            segments.frombytes(data[at:at + 4 * count])
            numbers.frombytes(data[at + 4 * count:at + 12 * count])
            at += 12 * count
            if len(numbers) != count:
                raise ValueError("the stream index is cut short")
            index._closed[account_id] = (segments, numbers)
        return index


def pack_index_file(log_id: bytes, segment: int, chain: int, chunks: bytes) -> bytes:
    """The bytes of a closed segment's index file. `chain` is its last block's checksum."""
    checked = record.crc32c(chunks)
    head = _FILE_HEAD.pack(_FILE_MAGIC, log_id, segment, chain, len(chunks), checked, 0)
    return head[:-20] + struct.pack("<I16x", record.crc32c(head[:-20])) + chunks


def unpack_index_file(data: bytes, log_id: bytes, segment: int, chain: int) -> ChunkIndex:
    """The chunk index in the bytes of an index file.

    Raises ValueError when they are damaged, or were made of another segment than the one whose
    last block has the checksum `chain`.
    """
    if len(data) < _FILE_HEAD.size:
        raise ValueError("too short")
    magic, found_id, found, found_chain, size, checked, own = _FILE_HEAD.unpack_from(data)
    chunks = memoryview(data)[_FILE_HEAD.size:]
    if (magic != _FILE_MAGIC or own != record.crc32c(data[:_FILE_HEAD.size - 20])
            or size != len(chunks) or record.crc32c(chunks) != checked
            or data[_FILE_HEAD.size - 16:_FILE_HEAD.size] != bytes(16)):
        raise ValueError("its checksum is wrong")
    if (found_id, found, found_chain) != (log_id, segment, chain):
        raise ValueError("it belongs to another segment")
    return ChunkIndex.load(chunks)

"""Reading the log at the very moment at which the venue writes: what looks damaged is not."""

from __future__ import annotations

import asyncio

import pytest

from engine.config import JournalConfig
from engine.journal import JournalCorrupt
from engine.journal.reader import LogWalk, cursor_before, first_header, follow, read_header
from engine.journal.segment import segment_name, segment_numbers
from engine.journal.storage import DiskFile, FileStorage
from tests.journal.venue import Venue


class LateFile(DiskFile):
    """A file whose bytes from some place on appear only after so many reads of the storage."""

    storage: LateStorage

    def pread(self, size: int, offset: int) -> bytes:
        data = super().pread(size, offset)
        self.storage.reads += 1
        if self.storage.reads > self.storage.late or self.name != self.storage.segment:
            return data
        kept = max(0, min(len(data), self.storage.from_byte - offset))
        return data[:kept] + bytes(len(data) - kept)


class LateStorage(FileStorage):
    """The files of a venue that goes on writing while somebody reads."""

    def __init__(self, folder, segment: str, from_byte: int, late: int) -> None:
        super().__init__(folder)
        self.segment, self.from_byte, self.late, self.reads = segment, from_byte, late, 0

    def open(self, name: str, *, write: bool = False, create: bool = False) -> DiskFile:
        file = super().open(name, write=write, create=create)
        file.__class__ = LateFile
        file.storage = self
        return file


@pytest.fixture
def traded(tmp_path):
    """A closed log of one segment."""
    config = JournalConfig(segment_bytes=1 << 20, first_segment_bytes=1 << 20)
    venue = asyncio.run(Venue(FileStorage(tmp_path), config).run(40, 6))
    assert venue.error is None
    return tmp_path


def places(folder):
    """Where each block begins."""
    walk, found = LogWalk(FileStorage(folder)), []
    before = walk.cursor()
    for run in walk.runs(1):
        found.append((before, run))
        before = walk.cursor()
    return found


@pytest.mark.parametrize("late", range(8))
def test_blocks_that_appear_between_two_looks_are_no_damage(traded, late):
    found = places(traded)
    start, run = found[len(found) // 2]
    last = found[-1][1].batch
    storage = LateStorage(traded, segment_name(start.segment), start.offset, late)
    seqs = [run.batch.first_seq for run in follow(storage, start)]
    # A reader that came before them sees none, and all when it comes again.
    assert not seqs or seqs[0] == run.batch.first_seq
    storage.late = 0
    again = list(follow(storage, start))
    assert again[0].batch.first_seq == run.batch.first_seq
    assert again[-1].batch.first_seq + again[-1].batch.event_count == (
        last.first_seq + last.event_count)


def test_what_stays_damaged_is_damage(traded):
    found = places(traded)
    start, _ = found[len(found) // 2]
    path = traded / segment_name(start.segment)
    data = bytearray(path.read_bytes())
    data[start.offset + 70] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalCorrupt):
        list(follow(FileStorage(traded), start))


class VanishingStorage(FileStorage):
    """The oldest segments are removed at the moment at which somebody opens them."""

    left = 2

    def open(self, name: str, *, write: bool = False, create: bool = False) -> DiskFile:
        if self.left and not write and name == segment_name(segment_numbers(self)[0]):
            self.left -= 1
            self.unlink(name)
        return super().open(name, write=write, create=create)


def test_segments_that_go_while_the_oldest_is_looked_for(tmp_path):
    # At least six segments, however much was committed at once.
    asyncio.run(Venue(FileStorage(tmp_path)).run(400, 12))
    third = first_seq_of(tmp_path, segment_numbers(FileStorage(tmp_path))[2])
    assert first_header(VanishingStorage(tmp_path)).first_seq == third
    later = first_seq_of(tmp_path, segment_numbers(FileStorage(tmp_path))[2])
    found = cursor_before(VanishingStorage(tmp_path), later + 1)
    assert found is not None
    assert found.next_seq == later
    with pytest.raises(FileNotFoundError):
        read_header(FileStorage(tmp_path), 1)


def first_seq_of(folder, number: int) -> int:
    header = read_header(FileStorage(folder), number)
    assert header is not None
    return header.first_seq

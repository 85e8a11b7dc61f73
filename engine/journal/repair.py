"""`matchd journal repair`: cut a damaged log at a place that the operator names.

What comes before the place must be undamaged and stays as it is; everything from there on is
taken out of the log and kept in a folder beside it. A new incarnation begins, so that nobody who
saw what was cut takes the new log for the old one.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cython_core import record
from engine.errors import DiskError, JournalError
from engine.journal.commit import LogWriter
from engine.journal.reader import Cursor, LogWalk, cursor_before, read_header
from engine.journal.recovery import zero_from
from engine.journal.segment import (
    FOLDER,
    UNIT_BYTES,
    index_name,
    segment_name,
    segment_numbers,
)
from engine.journal.snapshot import FOLDER as SNAPSHOTS
from engine.journal.snapshot import snapshot_name, snapshot_seqs
from engine.journal.storage import FileStorage, Storage, copy_file


class RepairReport(NamedTuple):
    """Where the log was cut, its last seq now, and where what was cut is kept."""

    file: str
    offset: int
    last_seq: int
    incarnation: int
    kept_in: str
    moved: list[str]


def repair(data_dir: str | Path, *, seq: int | None = None, file: str | None = None,
           offset: int | None = None) -> RepairReport:
    """Cut the log before the block that holds event `seq`, or the byte `offset` of `file`.

    `file` is a segment, with or without its folder. A block is cut whole, since a command's events
    are in one block. Raises JournalError when the log is damaged before that place, ends before
    it, or is in use; DiskError when the disk fails.
    """
    storage = FileStorage(data_dir)
    storage.lock()
    try:
        if seq is not None:
            cursor = _place_of_seq(storage, seq)
        elif file is not None and offset is not None:
            cursor = _place_of_offset(storage, Path(file).name, offset)
        else:
            raise JournalError("repair needs a place", "name a seq, or a file and an offset")
        return _cut(storage, cursor)
    except OSError as error:
        raise DiskError(f"the journal can't be repaired: {error.strerror}") from error
    finally:
        storage.unlock()


def _place_of_seq(storage: Storage, seq: int) -> Cursor:
    start = cursor_before(storage, seq)
    if start is None or seq < 1:
        raise JournalError(f"seq {seq} is not in the log")
    walk = LogWalk(storage, start)
    place = start
    for run in walk.runs(1):
        if run.batch.first_seq + run.batch.event_count > seq:
            return place
        place = walk.cursor()
    end = walk.cursor()
    if end.next_seq == seq:
        return end
    raise JournalError(f"the log ends or is damaged at seq {end.next_seq} "
                       f"({segment_name(end.segment)}, byte {end.offset}), before seq {seq}",
                       f"name seq {end.next_seq} or a lower one")


def _place_of_offset(storage: Storage, name: str, offset: int) -> Cursor:
    numbers = {Path(segment_name(number)).name: number for number in segment_numbers(storage)}
    if name not in numbers:
        raise JournalError(f"{name} is no segment of this log")
    number = numbers[name]
    header = read_header(storage, number)
    if header is None or offset < UNIT_BYTES:
        return _end_of_segment_before(storage, number)
    walk = LogWalk(storage, Cursor(number, UNIT_BYTES, header.first_seq, header.previous_checksum,
                                   header.incarnation))
    place = walk.cursor()
    for run in walk.runs(1):
        if run.segment != number or walk.cursor().offset > offset:
            break
        place = walk.cursor()
    end = walk.ending.cursor if walk.ending is not None else place
    if end.segment == number and end.offset <= offset:
        if end.offset < offset:
            raise JournalError(f"the log ends or is damaged at byte {end.offset} of {name} "
                               f"(seq {end.next_seq}), before byte {offset}",
                               f"name byte {end.offset} or a lower one")
        return end
    return place


def _end_of_segment_before(storage: Storage, number: int) -> Cursor:
    header = read_header(storage, number - 1) if number > 1 else None
    if header is None:
        raise JournalError(f"nothing before {segment_name(number)} is left to go on from")
    walk = LogWalk(storage, Cursor(number - 1, UNIT_BYTES, header.first_seq,
                                   header.previous_checksum, header.incarnation))
    place = walk.cursor()
    for run in walk.runs(1):
        if run.segment != number - 1:
            break
        place = walk.cursor()
    return place


def _cut(storage: FileStorage, cursor: Cursor) -> RepairReport:
    """Copy or move out of the way what is behind the cursor, then end the log there."""
    folder = f"repair-{cursor.incarnation}-{cursor.next_seq}"
    storage.make_folder(folder)
    moved = [f"{folder}/{Path(segment_name(cursor.segment)).name}"]
    if not storage.exists(moved[0]):
        copy_file(storage, segment_name(cursor.segment), moved[0])
    for seq in snapshot_seqs(storage):
        if seq >= cursor.next_seq:
            moved.append(_move(storage, snapshot_name(seq), folder))
    for number in reversed(segment_numbers(storage)):
        if number >= cursor.segment and storage.exists(index_name(number)):
            moved.append(_move(storage, index_name(number), folder))
        if number > cursor.segment:
            moved.append(_move(storage, segment_name(number), folder))
    for name in (folder, SNAPSHOTS, FOLDER):
        storage.sync_folder(name)
    zero_from(storage, cursor.segment, cursor.offset)
    writer = LogWriter(storage, LogWalk(storage).log_id,
                       cursor._replace(incarnation=cursor.incarnation + 1), 0, 1 << 20, False)
    try:
        if not writer.fits(0):
            writer.move_on_now(0)
        writer.write_now([], True, record.OPENING)
        incarnation = writer.cursor.incarnation
    finally:
        writer.close(None)
    return RepairReport(segment_name(cursor.segment), cursor.offset, cursor.next_seq - 1,
                        incarnation, folder, moved)


def _move(storage: Storage, name: str, folder: str) -> str:
    target = f"{folder}/{Path(name).name}"
    storage.rename(name, target)
    return target

"""`matchd journal stats`: what is in the log, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cython_core import record
from cython_core.model import KIND_NAMES
from engine.journal.reader import LogWalk, was_being_written
from engine.journal.segment import UNIT_BYTES, segment_name, segment_numbers
from engine.journal.snapshot import snapshot_seqs
from engine.journal.storage import FileStorage, Storage

Progress = Callable[[int, int], None]


class SegmentStats(NamedTuple):
    """One segment that holds events."""

    file: str
    first_seq: int
    events: int
    used_bytes: int
    size_bytes: int


class LogStats(NamedTuple):
    """The whole log. Bytes are those of blocks with their headers; times are UTC nanoseconds."""

    log_id: str
    incarnation: int
    first_seq: int
    last_seq: int
    events: int
    events_by_kind: dict[str, int]
    blocks: int
    bytes: int
    bytes_per_event: float
    first_time_ns: int
    last_time_ns: int
    segments: list[SegmentStats]
    snapshot_seqs: list[int]
    notes: list[str]


def log_bytes(storage: Storage) -> int:
    """Bytes of all segment files: what a progress bar counts up to."""
    total = 0
    for number in segment_numbers(storage):
        file = storage.open(segment_name(number))
        total += file.size()
        file.close()
    return total


def no_progress(done_bytes: int, total_bytes: int) -> None:
    """Tell nobody."""


def stats(data_dir: str | Path, progress: Progress = no_progress) -> LogStats:
    """Count the log of a data directory; may run beside the venue.

    `progress` is called with (bytes done, bytes in all). Raises JournalError when there is no
    journal, JournalCorrupt for damage.
    """
    storage = FileStorage(data_dir)
    walk, total = LogWalk(storage), log_bytes(storage)
    kinds: Counter[int] = Counter()
    segments: dict[int, SegmentStats] = {}
    first_time_ns = time_ns = 0
    for run in walk.runs():
        kinds.update(record.count_kinds(run.batch))
        time_ns = record.last_time_ns(run.batch)
        first_time_ns = first_time_ns or record.first_time_ns(run.batch)
        _add(storage, segments, run.segment, run.batch.first_seq, run.batch.event_count,
             walk.cursor().offset)
        progress(walk.blocks_bytes, total)
    progress(total, total)
    notes: list[str] = []
    if walk.ending is not None:
        was_being_written(storage, walk.log_id, walk.ending)
        notes = [*walk.ending.notes, walk.ending.damage] if walk.ending.damage else list(
            walk.ending.notes)
    cursor, events = walk.cursor(), sum(kinds.values())
    return LogStats(
        walk.log_id.hex(), cursor.incarnation, walk.oldest.first_seq, cursor.next_seq - 1, events,
        {KIND_NAMES.get(kind, str(kind)): count for kind, count in sorted(kinds.items())},
        walk.blocks, walk.blocks_bytes, round(walk.blocks_bytes / events, 2) if events else 0.0,
        first_time_ns, time_ns, list(segments.values()), snapshot_seqs(storage), notes)


def _add(storage: Storage, segments: dict[int, SegmentStats], number: int, seq: int, events: int,
         used_bytes: int) -> None:
    known = segments.get(number)
    if known is None:
        file = storage.open(segment_name(number))
        known = SegmentStats(segment_name(number), seq, 0, UNIT_BYTES, file.size())
        file.close()
    segments[number] = known._replace(events=known.events + events, used_bytes=used_bytes)

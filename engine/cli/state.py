"""The venue's state, rebuilt from snapshots and journal for reading; the venue may be running."""

from cython_core import record
from cython_core.errors import CoreError
from cython_core.matcher import Matcher
from engine.cli import output
from engine.cli.follow import require_log
from engine.config import Config
from engine.journal.reader import Cursor, LogWalk, first_header, was_being_written
from engine.journal.segment import segment_name, segment_numbers
from engine.journal.snapshot import BadSnapshot, read_snapshot, snapshot_seqs
from engine.journal.storage import FileStorage


def read_state(config: Config) -> Matcher:
    """The matcher as the log leaves it now. Writes nothing.

    Raises JournalError when there is no journal, CorruptError when it is damaged.
    """
    require_log(config)
    storage = FileStorage(config.data_dir)
    matcher, cursor = _newest_snapshot(storage)
    walk = LogWalk(storage, cursor)
    with output.Progress("reading the journal", _bytes_from(storage, cursor)) as progress:
        for run in walk.runs():
            if run.batch.first_seq + run.batch.event_count > matcher.next_seq:
                matcher.replay(record.events_from(run.batch, matcher.next_seq))
            progress.at(walk.blocks_bytes)
    if walk.ending is not None:
        was_being_written(storage, walk.log_id, walk.ending)
    return matcher


def _newest_snapshot(storage: FileStorage) -> tuple[Matcher, Cursor | None]:
    """The newest good snapshot of this log and where the log goes on; else nothing, from the
    start of the log."""
    log_id = first_header(storage).log_id
    for seq in snapshot_seqs(storage):
        try:
            snapshot = read_snapshot(storage, seq)
            if snapshot.log_id == log_id:
                return Matcher.load(snapshot.matcher), snapshot.cursor
        except (BadSnapshot, CoreError):
            continue
    return Matcher(), None


def _bytes_from(storage: FileStorage, cursor: Cursor | None) -> int:
    total = 0
    for number in segment_numbers(storage):
        if cursor is None or number >= cursor.segment:
            file = storage.open(segment_name(number))
            total += file.size()
            file.close()
    return total

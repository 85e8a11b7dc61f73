"""Follows the journal of a venue that may be running, without touching it."""

import time
from collections.abc import Iterator

from cython_core.event import EventBatch
from engine import control
from engine.config import Config
from engine.errors import JournalError
from engine.journal.reader import (
    Cursor,
    LogWalk,
    cursor_before,
    first_header,
    was_being_written,
)
from engine.journal.storage import FileStorage

# How long to wait before looking for new events again.
POLL_S = 0.05
# Beyond every seq: what stands before it is the end of the log.
END_SEQ = 2**64 - 1


def events(config: Config, from_seq: int | None, once: bool) -> Iterator[EventBatch]:
    """The durable events from `from_seq` on (None: only new ones), in batches of whole blocks; the
    first batch may begin earlier.

    Ends at the end of the log when `once`, else never. Raises JournalError when there is no
    journal or it begins after `from_seq`, CorruptError when it is damaged.
    """
    require_log(config)
    storage = FileStorage(config.data_dir)
    cursor = cursor_before(storage, from_seq or END_SEQ)
    if cursor is None:
        first_seq = first_header(storage).first_seq
        raise JournalError(f"the log begins at seq {first_seq}, seq {from_seq} is not kept")
    if from_seq is None:
        cursor = _end(storage, cursor)
    while True:
        reached = cursor
        walk = LogWalk(storage, cursor)
        for run in walk.runs():
            cursor = walk.cursor()
            _wait_until_durable(config, cursor.next_seq - 1)
            yield run.batch
        if walk.ending is not None and cursor == reached:
            # No step further: a block that is being written may stand here, but no damage.
            was_being_written(storage, walk.log_id, walk.ending)
        if once:
            return
        time.sleep(POLL_S)


def require_log(config: Config) -> None:
    """Raise JournalError when the configuration has no journal."""
    if config.journal.sync == "off":
        raise JournalError("journal.sync is off: there is no log to read")


def _end(storage: FileStorage, cursor: Cursor) -> Cursor:
    walk = LogWalk(storage, cursor)
    for _ in walk.runs():
        pass
    return walk.cursor()


def _wait_until_durable(config: Config, seq: int) -> None:
    """A block is in the file before it is synced; the daemon knows which are. Without a daemon
    nothing more is written."""
    while True:
        try:
            committed = control.request(config.data_dir, "status")["seq"]
        except control.ControlError:
            return
        if committed >= seq:
            return
        time.sleep(POLL_S)

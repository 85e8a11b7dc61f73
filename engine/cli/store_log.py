"""The log as stores see it, without a venue: for `matchd store` beside one, or in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine import control
from engine.cli.follow import END_SEQ, require_log
from engine.config import Config
from engine.instruments import Instrument
from engine.journal.index import StreamIndex
from engine.journal.journal import load_matcher
from engine.journal.past import FilePast
from engine.journal.reader import (
    Cursor,
    LogWalk,
    cursor_before,
    first_header,
    was_being_written,
)
from engine.journal.storage import FileStorage
from engine.metrics import Metrics
from engine.stores.follower import Follower
from engine.stores.hub import make_store
from engine.stores.meters import Meters
from engine.stores.store import Position, Store, StoreDown
from engine.stores.tail import Tail


class ReadLog:
    """What a follower needs of a journal, out of its files. Nothing is kept for anybody here."""

    def __init__(self, config: Config) -> None:
        require_log(config)
        self.storage = FileStorage(config.data_dir)
        self.log_id = first_header(self.storage).log_id
        end = self._end()
        self.incarnation = end.incarnation
        self.committed_seq = min(end.next_seq - 1, _committed_seq(config))

    @property
    def end(self) -> Position:
        """Where the log ends."""
        return Position(self.log_id, self.incarnation, self.committed_seq)

    def _end(self) -> Cursor:
        start = cursor_before(self.storage, END_SEQ)
        while True:
            walk = LogWalk(self.storage, start)
            for _ in walk.runs():
                pass
            ending = walk.ending
            if ending is None or not was_being_written(self.storage, walk.log_id, ending):
                return walk.cursor()
            start = ending.cursor

    def new_past(self) -> FilePast:
        """The log for one thread."""
        return FilePast(self.storage, StreamIndex(), self.log_id, load_matcher)

    def hold(self, name: str, seq: int) -> None:
        """Nothing is removed while nobody runs."""

    async def hold_all(self, name: str) -> None:
        """The same."""


def _committed_seq(config: Config) -> int:
    """What is durable: a daemon that runs says so, without one all that can be read is."""
    try:
        return int(control.request(config.data_dir, "status")["seq"])
    except control.ControlError:
        return END_SEQ


def follower(name: str, config: Config, log: ReadLog,
             instruments: Sequence[Instrument]) -> Follower:
    """What feeds a store in the place of a venue, as fast as it goes."""
    def make() -> Store:
        return make_store(name, config, None, instruments)

    quick = msgspec.structs.replace(config.stores, cpu_share=1.0)
    return Follower(name, make, log, Tail(1, log.committed_seq), quick,
                    Meters(name, Metrics()), lambda: False)


def check(row: dict[str, Any]) -> None:
    """Raise StoreDown when a store, as its row says, does not get on."""
    if row["state"] == "stopped" or row["breaker"] == "open":
        raise StoreDown(f"the store does not get on: {row['error']}")

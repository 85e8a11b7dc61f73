"""kill -9 of the real daemon at random moments, while SQLite follows it.

Whatever the moment, the file is whole and its position fits its rows; in the end every table is
what the journal says, row by row, and what a plain model makes of the same events.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cython_core.event import EventBatch
from engine.config import SqliteConfig
from engine.journal.past import MemoryPast
from engine.journal.reader import events_since, first_header
from engine.journal.storage import FileStorage
from engine.stores.sqlite import SqliteStore
from engine.stores.store import Position
from engine.stores.verify import Report, verify
from tests.crash.test_kill import ACCOUNTS, GENTLE_S, Load, Stream
from tests.stores.rows_model import TABLES, model_of
from tests.stores.test_sqlite_store import WIDE
from tests.support.daemon import Daemon

KILLS, KILLS_LONG = 8, 200
WAIT_S = 120.0
# Small transactions, small segments, a queue that overflows: kills hit the changes too.
SETTINGS = {"sqlite__enabled": True, "sqlite__max_batch_size": 200, "sqlite__batch_interval_ms": 5,
            "queues__stores_units": 2_000, "journal__snapshot_events": 2_000,
            "journal__segment_bytes": 2**19, "journal__first_segment_bytes": 2**18}


def log_of(daemon: Daemon) -> list[EventBatch]:
    """Every event of the journal as it is on disk."""
    return list(events_since(FileStorage(daemon.data_dir), 1))


def end_of(log: list[EventBatch]) -> int:
    """The seq of the last event."""
    return log[-1].first_seq + log[-1].event_count - 1


def history(daemon: Daemon) -> Path:
    """The file."""
    return daemon.data_dir / "history.sqlite"


def position(path: Path) -> int:
    """How far the file says that it is, without making one."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT seq FROM store_position").fetchone()
    return int(row[0]) if row else 0


def position_or_0(daemon: Daemon) -> int:
    """The same, 0 while there is no file or no table."""
    try:
        return position(history(daemon))
    except sqlite3.OperationalError:
        return 0


def check_alone(daemon: Daemon) -> None:
    """What a kill left behind is whole, and its position is that of its rows."""
    path = history(daemon)
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return
        last, rows = connection.execute("SELECT max(seq), count(*) FROM order_events").fetchone()
        found = connection.execute("SELECT seq FROM store_position").fetchone()
    at = found[0] if found else 0
    assert (last or 0) == at == rows, "every event has its row, once"
    assert at <= end_of(log_of(daemon)), "never ahead of the log"


async def caught_up(daemon: Daemon) -> None:
    """Wait until the store has every event."""
    deadline_s = time.monotonic() + WAIT_S
    end = end_of(log_of(daemon))
    while position_or_0(daemon) < end:
        assert time.monotonic() < deadline_s, "the store does not catch up"
        await asyncio.sleep(0.1)


async def compare(daemon: Daemon) -> Report:
    """All tables against the journal."""
    log, header = log_of(daemon), first_header(FileStorage(daemon.data_dir))
    store = SqliteStore(daemon_config(), daemon.data_dir)
    report = await verify(store, MemoryPast(lambda: log), Position(header.log_id, 1, end_of(log)),
                          daemon.data_dir)
    await store.close()
    return report


def daemon_config() -> SqliteConfig:
    """As the daemon has it, as far as it matters for reading."""
    return SqliteConfig()


def check_model(daemon: Daemon) -> None:
    """All tables against the plain model."""
    model = model_of(log_of(daemon))
    with closing(sqlite3.connect(history(daemon))) as connection:
        for table, (columns, key) in TABLES.items():
            found = connection.execute(f"SELECT {', '.join(columns)} FROM {table} "
                                       f"ORDER BY {', '.join(key)}").fetchall()
            assert [tuple(int(value) if name in WIDE else value
                          for name, value in zip(columns, row, strict=True))
                    for row in found] == model.rows(table), table


async def load_and_kill(daemon: Daemon, streams: list[Stream], chance: random.Random) -> None:
    """Trade until there are answers and the store writes, and for a random while; then kill."""
    told, at = [len(stream.told) for stream in streams], position_or_0(daemon)
    clients = [asyncio.create_task(Load(stream, chance, GENTLE_S).run(daemon.port, name))
               for stream, name in zip(streams, ACCOUNTS, strict=True)]
    deadline_s = time.monotonic() + WAIT_S
    while position_or_0(daemon) <= at or any(
            len(stream.told) < before + 50 for stream, before in zip(streams, told, strict=True)):
        for client in clients:
            # One that ends here, before the kill, says why.
            assert not client.done(), client.result()
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)
    await asyncio.sleep(chance.uniform(0, 0.3))
    daemon.kill()
    await asyncio.gather(*clients)
    for stream in streams:
        # The next numbers are those behind what was answered.
        stream.understand()


@pytest.mark.timeout(3_600)
async def test_tables_are_the_journals_after_kills_at_random_moments(
        make_daemon: Callable[..., Daemon], long_profile: bool) -> None:
    daemon, chance = make_daemon(**SETTINGS), random.Random(20_261_121)
    streams = [Stream() for _ in ACCOUNTS]
    for kill in range(KILLS_LONG if long_profile else KILLS):
        if chance.random() < 0.3:
            # Now and then while it starts, or catches up.
            daemon.spawn()
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            daemon.kill()
        daemon.start()
        await load_and_kill(daemon, streams, chance)
        if kill % 3 == 0:
            check_alone(daemon)
    daemon.start()
    await caught_up(daemon)
    assert daemon.stop() == 0
    report = await compare(daemon)
    assert report.exit_code == 0, report
    assert report.position is not None
    assert report.position.seq == end_of(log_of(daemon)) == report.rows["order_events"]
    assert report.rows["trades"] > 100
    check_model(daemon)
    assert daemon.run("journal", "verify").returncode == 0


async def test_a_file_that_vanishes_under_the_daemon_is_made_again(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon, chance = make_daemon(**SETTINGS).start(), random.Random(3)
    stream = Stream()
    load = asyncio.create_task(Load(stream, chance).run(daemon.port, ACCOUNTS[0]))
    await caught_up_some(daemon, 500)
    history(daemon).unlink()
    daemon.wait_for_line("store down", store="sqlite")
    told = len(stream.told)
    await caught_up_some(daemon, 500)
    assert len(stream.told) > told, "trading went on"
    daemon.kill()
    await load
    daemon.start()
    await caught_up(daemon)
    assert (await compare(daemon)).exit_code == 0
    assert daemon.stop() == 0


async def caught_up_some(daemon: Daemon, seq: int) -> None:
    """Wait until the file holds so many events."""
    deadline_s = time.monotonic() + WAIT_S
    while position_or_0(daemon) < seq:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("spoil", "line"), [
    (lambda path: path.write_bytes(b"my notes, long enough to be looked at" * 100),
     "not a database"),
    (lambda path: closing(sqlite3.connect(path)).thing.executescript("CREATE TABLE mine (a)"),
     "not a history of matchd"),
])
async def test_a_foreign_file_stops_the_store_and_not_the_venue(
        make_daemon: Callable[..., Daemon], spoil: Callable[[Path], None], line: str) -> None:
    daemon = make_daemon(**SETTINGS)
    daemon.data_dir.mkdir(parents=True)
    spoil(history(daemon))
    before = history(daemon).read_bytes()
    daemon.start()
    stopped = daemon.wait_for_line("store stopped", store="sqlite")
    assert line in stopped["reason"]
    stream, chance = Stream(), random.Random(4)
    load = asyncio.create_task(Load(stream, chance).run(daemon.port, ACCOUNTS[0]))
    deadline_s = time.monotonic() + WAIT_S
    while len(stream.told) < 100:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)
    daemon.kill()
    await load
    assert history(daemon).read_bytes() == before, "nothing of it was touched"


async def test_the_history_of_another_venue_stops_the_store_and_not_the_venue(
        make_daemon: Callable[..., Daemon]) -> None:
    other = make_daemon("other", **SETTINGS).start()
    await caught_up_some(other, 5)
    assert other.stop() == 0
    daemon = make_daemon("ours", **SETTINGS)
    daemon.data_dir.mkdir(parents=True)
    history(other).rename(history(daemon))
    daemon.start()
    stopped = daemon.wait_for_line("store stopped", store="sqlite")
    assert "it belongs to the log" in stopped["reason"]
    done = daemon.run("store", "rebuild", "sqlite", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seq"] == end_of(log_of(daemon)) == position(history(daemon))
    assert daemon.stop() == 0
    assert (await compare(daemon)).exit_code == 0

"""The real daemon and a real PostgreSQL: both killed at random moments, and what operators do."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator

import pytest

from cython_core.event import EventBatch
from engine.journal.reader import events_since
from engine.journal.storage import FileStorage
from tests.crash.test_kill import ACCOUNTS, GENTLE_S, Load, Stream
from tests.stores.rows_model import TABLES, model_of
from tests.support.daemon import Daemon
from tests.support.postgres import PostgresServer, ScratchDatabase, installed

KILLS, KILLS_LONG = 6, 100
WAIT_S = 120.0
# Small transactions and segments, a queue that overflows, short patience.
SETTINGS = {"postgres__max_batch_size": 300, "postgres__batch_interval_ms": 5,
            "postgres__pool_min_size": 1, "postgres__pool_max_size": 3,
            "postgres__connect_timeout_ms": 2_000, "stores__retry_min_ms": 20,
            "stores__retry_max_ms": 200, "queues__stores_units": 2_000,
            "journal__snapshot_events": 2_000, "journal__segment_bytes": 2**19,
            "journal__first_segment_bytes": 2**18}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server to kill."""
    made = PostgresServer(max(installed())).start()
    yield made
    made.close()


def log_of(daemon: Daemon) -> list[EventBatch]:
    """Every event of the journal as it is on disk."""
    return list(events_since(FileStorage(daemon.data_dir), 1))


def end_of(log: list[EventBatch]) -> int:
    """The seq of the last event."""
    return log[-1].first_seq + log[-1].event_count - 1


def position(scratch: ScratchDatabase) -> int:
    """How far the tables are; 0 while they can't be asked."""
    try:
        return int(scratch.sql("select seq from store_position")[0]["seq"])
    except Exception:
        return 0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline_s = time.monotonic() + WAIT_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)


def check(daemon: Daemon, scratch: ScratchDatabase) -> None:
    """Every table has the rows of a plain model of the journal, and `store verify` agrees."""
    log = log_of(daemon)
    model = model_of(log)
    for table, (columns, key) in TABLES.items():
        rows = scratch.sql(f"select {', '.join(columns)} from {table} order by {', '.join(key)}")
        assert [tuple(row.values()) for row in rows] == model.rows(table), table
    assert position(scratch) == end_of(log)
    done = daemon.run("store", "verify", "postgres", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["rows"]["order_events"] == end_of(log)


@pytest.mark.timeout(3_600)
async def test_daemon_and_server_killed_in_turn(
        make_daemon: Callable[..., Daemon], server: PostgresServer, long_profile: bool) -> None:
    scratch = server.database()
    daemon = make_daemon(postgres__url=scratch.url, **SETTINGS)
    chance, streams = random.Random(7), [Stream() for _ in ACCOUNTS]
    for kill in range(KILLS_LONG if long_profile else KILLS):
        daemon.start()
        told, at = [len(stream.told) for stream in streams], position(scratch)
        clients = [asyncio.create_task(Load(stream, chance, GENTLE_S).run(daemon.port, name))
                   for stream, name in zip(streams, ACCOUNTS, strict=True)]

        def traded(told: list[int] = told) -> bool:
            return all(len(stream.told) > before + 50
                       for stream, before in zip(streams, told, strict=True))
        if kill % 2:
            await asyncio.sleep(chance.uniform(0, 0.3))
            await asyncio.to_thread(server.kill)
            # Orders are served all the same.
            told[:] = [len(stream.told) for stream in streams]
            await until(traded)
            await asyncio.to_thread(server.start)
        await until(lambda at=at, traded=traded: traded() and position(scratch) > at)
        daemon.kill()
        await asyncio.gather(*clients)
        for stream in streams:
            stream.understand()
    daemon.start()
    await until(lambda: position(scratch) >= end_of(log_of(daemon)))
    assert daemon.stop() == 0
    check(daemon, scratch)


async def test_a_store_that_is_wrong_at_the_start_is_told_and_trading_goes_on(
        make_daemon: Callable[..., Daemon], server: PostgresServer) -> None:
    scratch = server.database()
    daemon = make_daemon(postgres__url=scratch.url.replace(":demo@", ":wrong@"), **SETTINGS)
    daemon.start()
    line = daemon.wait_for_line("store down", store="postgres")
    assert "refuses the login" in line["reason"] and "wrong" not in line["reason"]
    stream = Stream()
    load = asyncio.create_task(
        Load(stream, random.Random(3), GENTLE_S).run(daemon.port, ACCOUNTS[0]))
    await until(lambda: len(stream.told) > 100)
    daemon.kill()
    await load
    # The right password, and all of it comes.
    daemon = make_daemon(postgres__url=scratch.url, **SETTINGS).start()
    await until(lambda: position(scratch) >= end_of(log_of(daemon)))
    assert daemon.stop() == 0
    check(daemon, scratch)
    # A table lost, a rebuild.
    scratch.sql("drop table trades cascade")
    done = daemon.run("store", "rebuild", "postgres", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    check(daemon, scratch)
    # Tables of another log.
    other = make_daemon("other", postgres__url=scratch.url, **SETTINGS).start()
    stopped = other.wait_for_line("store stopped", store="postgres")
    assert "belongs to the log" in stopped["reason"]
    assert other.stop() == 0
    check(daemon, scratch)


async def test_migrations_by_hand(make_daemon: Callable[..., Daemon], server: PostgresServer
                                  ) -> None:
    scratch = server.database()
    daemon = make_daemon(postgres__url=scratch.url, postgres__migrate=False, **SETTINGS).start()
    line = daemon.wait_for_line("store down", store="postgres")
    assert "matchd store migrate postgres" in line["hint"]
    assert daemon.run("store", "migrate", "postgres").returncode == 0
    await until(lambda: position(scratch) > 0)
    assert daemon.stop() == 0
    check(daemon, scratch)

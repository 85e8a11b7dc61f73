"""A store that is empty while the log's beginning is gone begins with the oldest event that is
kept, at a command's first one, and is from there on what the log says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cython_core.event import EventBatch
from cython_core.ledger import last_whole_seq
from engine.config import PostgresConfig, RedisConfig, SqliteConfig
from engine.errors import NotKeptError
from engine.journal import Journal, journal
from engine.journal.segment import remove_segments, segment_numbers
from engine.journal.storage import Storage
from engine.stores.postgres import PostgresStore
from engine.stores.sqlite import SqliteStore
from engine.stores.verify import BEGINNINGS, verify
from tests.market.venue import INSTRUMENT_LIST
from tests.stores.fed import FedVenue, until
from tests.stores.redis_venue import RedisVenue
from tests.support.postgres import ScratchDatabase
from tests.support.redis import RedisServer

Make = Callable[[], Any]


@asynccontextmanager
async def late(folder: Path, make: Make, follow: bool = True) -> AsyncIterator[FedVenue]:
    """A venue that has let its first segments go before its store was switched on."""
    venue = FedVenue(folder, make, retain_segments=1)
    await venue.start(follow=False)
    # Nobody holds anything, as when the store is off.
    venue.journal.hold("file", 2**62)
    while venue.journal.new_past().oldest_seq() < 500:
        venue.trade(20)
        await venue.committed()
        await asyncio.sleep(0.002)
    if follow:
        venue.follow()
    yield venue
    await venue.close()


async def follows_late(folder: Path, make: Make) -> None:
    async with late(folder, make) as venue:
        await venue.level()
        oldest = venue.journal.new_past().oldest_seq()
        # A new connection reads the names of markets from the tables.
        await venue.follower.store.close()
        venue.follower.look_again()
        venue.trade(30)
        await venue.committed()
        await venue.level()
        store = venue.follower.store
        assert store is not None
        async with store.snapshot() as snapshot:
            rows = await snapshot.fetch("SELECT min(seq), max(seq), count(*) FROM order_events", ())
            names = await snapshot.fetch("SELECT symbol, tick_units, state, seq FROM instruments "
                                         "ORDER BY symbol", ())
            trades = await snapshot.fetch("SELECT count(*) FROM trades WHERE symbol = 'AAPL'", ())
        assert rows[0][0] <= oldest + 3 and rows[0][1] == venue.last_seq
        assert [tuple(row)[:3] for row in names] == [("AAPL", 100, "trading"),
                                                     ("MSFT", 100, "trading")]
        assert trades[0][0] > 0
        end = venue.follower.position
        report = await verify(store, venue.journal.new_past(), end, folder)
        assert report.differences == [] and report.rows["order_events"] > 100
        assert "the log begins at seq" in report.notes[0]


async def test_segments_that_are_just_being_removed_are_not_begun_with(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go, removed = threading.Event(), threading.Event(), threading.Event()
    real = journal.remove_segments

    def slow(storage: Storage, below: int) -> int:
        if segment_numbers(storage)[0] < below:
            inside.set()
            assert go.wait(30)
        count = real(storage, below)
        removed.set()
        return count

    async with late(tmp_path, lambda: SqliteStore(SqliteConfig(), tmp_path), follow=False) as venue:
        monkeypatch.setattr(journal, "remove_segments", slow)
        while not inside.is_set():
            venue.trade(20)
            await venue.committed()
            await asyncio.sleep(0.002)
        # What will be removed is decided, and is gone before the store reads, which comes now.
        start = venue.follower.supply.start

        def late_start(seq: int) -> None:
            removed.clear()
            go.set()
            assert removed.wait(30)
            start(seq)

        monkeypatch.setattr(venue.follower.supply, "start", late_start)
        venue.follow()
        with contextlib.suppress(AssertionError):
            await until(go.is_set, 0.5)
        monkeypatch.setattr(venue.follower.supply, "start", start)
        go.set()
        await venue.level()
        monkeypatch.undo()


class Shrinking:
    """A past whose oldest segment goes the first times that somebody begins to read it."""

    def __init__(self, journal: Journal, times: int = 2) -> None:
        self._past, self._storage = journal.new_past(), journal._storage
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._past, name)

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        if self.left:
            self.left -= 1
            first = min(segment_numbers(self._storage))
            assert remove_segments(self._storage, first + 1)
        return self._past.events(from_seq, to_seq)


class Gone(Shrinking):
    """A past that is always gone when somebody begins to read it."""

    begun = 0

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        self.begun += 1
        raise NotKeptError(f"seq {from_seq} is gone")


async def test_the_beginning_may_go_while_the_tables_are_compared(tmp_path: Path) -> None:
    store = SqliteStore(SqliteConfig(), tmp_path, INSTRUMENT_LIST)
    venue = await FedVenue(tmp_path, lambda: store).start()
    for _ in range(100):
        venue.trade(5)
        await venue.committed()
    await venue.level()
    assert len(segment_numbers(venue.journal._storage)) > 4
    past = Shrinking(venue.journal)
    report = await verify(store, past, venue.follower.position, tmp_path)
    assert past.left == 0
    assert report.differences == [] and report.rows["order_events"] > 0
    gone = Gone(venue.journal, 0)
    with pytest.raises(NotKeptError):
        await verify(store, gone, venue.follower.position, tmp_path)
    assert gone.begun >= BEGINNINGS
    await venue.close()


async def test_sqlite(tmp_path: Path) -> None:
    await follows_late(tmp_path, lambda: SqliteStore(SqliteConfig(), tmp_path, INSTRUMENT_LIST))


async def test_postgres(tmp_path: Path, postgres_database: ScratchDatabase) -> None:
    config = PostgresConfig(url=postgres_database.url, schema=postgres_database.schema,
                            pool_min_size=1, pool_max_size=3)
    await follows_late(tmp_path, lambda: PostgresStore(config, INSTRUMENT_LIST))


async def test_markets_need_not_be_configured(tmp_path: Path) -> None:
    async with late(tmp_path, lambda: SqliteStore(SqliteConfig(), tmp_path)) as venue:
        await venue.level()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path / "redis").start()
    yield one
    one.kill()


async def test_redis_begins_at_a_command_wherever_that_is(tmp_path: Path,
                                                          server: RedisServer) -> None:
    venue = RedisVenue(tmp_path, RedisConfig(url=server.url), seed=3)
    await venue.start()
    venue.trade(60)
    await venue.settle()
    end = venue.end.seq
    ends = {0}
    for batch in venue.log:
        seqs = range(batch.first_seq, batch.first_seq + batch.event_count)
        ends |= {seq for seq in seqs if last_whole_seq(batch, seq) == seq}
    assert len(ends) < 0.9 * end, "commands have several events"
    begun = set()
    for events in range(1, min(end, 150)):
        venue.redis = RedisConfig(url=server.url, backfill_events=events)
        store = venue.store()
        start = await venue.open(store)
        begun.add(start.seq)
        assert start.seq in ends
        # At the command that the oldest of these events is of, or behind it: no more than these.
        assert end - events <= start.seq <= min(one for one in ends if one >= end - events)
        await store.close()
    assert len(begun) > 20
    await venue.close()

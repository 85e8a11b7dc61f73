"""The Redis store on a real server: what it writes, exactly once, and how it refuses to go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import RedisConfig
from engine.redis_values import decode
from engine.stores.redis_store import RedisStore
from engine.stores.store import Position, StoreDown, StoreMoved, StoreStopped, Work
from tests.stores.redis_venue import RedisVenue, stream
from tests.support.flaky_proxy import FlakyProxy
from tests.support.redis import RedisServer

# Every change is written at once, and nothing is trimmed.
ALL = {"min_change": 0.0, "batch_interval_ms": 1, "stream_entries_max": 10**9,
       "max_batch_size": 1_000}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path / "redis").start()
    yield one
    one.kill()


@pytest.fixture
async def venues(tmp_path: Path) -> AsyncIterator[list[RedisVenue]]:
    started: list[RedisVenue] = []
    yield started
    for venue in started:
        await venue.close()


async def begin(venues: list[RedisVenue], tmp_path: Path, server: RedisServer,
                **settings: Any) -> tuple[RedisVenue, RedisStore]:
    config = RedisConfig(**({"url": server.url} | ALL | settings))
    venue = RedisVenue(tmp_path / f"venue{len(venues)}", config, seed=len(venues))
    venues.append(venue)
    await venue.start()
    return venue, venue.store()


@pytest.mark.parametrize(("encoding", "above"), [("msgpack", 0), ("json", 0), ("msgpack", 200),
                                                 ("json", 200)])
async def test_streams_and_books_are_what_the_log_says(
        tmp_path: Path, server: RedisServer, venues: list[RedisVenue], encoding: str,
        above: int) -> None:
    venue, store = await begin(venues, tmp_path, server, encoding=encoding,
                               compress_above_bytes=above)
    at = await venue.open(store)
    assert at.seq == 0
    for events in (50, 10**9, 7):
        venue.trade(30)
        at = await venue.follow(store, at, events)
    await asyncio.sleep(0.002)
    await store.write(Work([], at, at, True))
    with server.client() as client:
        if encoding == "msgpack":
            venue.check(client)
        events, trades = venue.expected()
        found = [row for _, entry in stream(client, venue.keys.order_events)
                 for row in decode(entry[b"data"])]
        assert [row[0] for row in found] == [row[0] for row in events]
        for symbol, expected in trades.items():
            rows = [trade for _, entry in stream(client, venue.keys.trades(symbol))
                    for trade in decode(entry[b"data"])["trades"]]
            assert [int(row["match"]) for row in rows] == [row["match"] for row in expected]
            if encoding == "json" and rows:
                assert isinstance(rows[0]["match"], str)
        venue.check_books(client)
    await store.close()


async def begun(venues: list[RedisVenue], tmp_path: Path, server: RedisServer,
                **settings: Any) -> tuple[RedisVenue, RedisStore, Position]:
    """A venue that traded, and a store that has all of it."""
    venue, store = await begin(venues, tmp_path, server, **settings)
    venue.trade(20)
    at = await venue.follow(store, await venue.open(store))
    return venue, store, at


def seen(server: RedisServer) -> dict[bytes, Any]:
    """Everything that is in Redis, but books and tickers."""
    with server.client() as client:
        keys: Any = client.keys("*")
        return {key: client.dump(key) for key in keys
                if not key.startswith((b"matchd:book", b"matchd:ticker", b"matchd:last"))}


async def test_two_venues_do_not_mix(tmp_path: Path, server: RedisServer,
                                     venues: list[RedisVenue]) -> None:
    venue, store, at = await begun(venues, tmp_path, server)
    other, stranger = await begin(venues, tmp_path, server)
    before = seen(server)
    assert await stranger.open(other.end) == at
    with pytest.raises(StoreMoved):
        await stranger.write(other.work(at))
    assert seen(server) == before
    # A second one of the same log: who comes second is told.
    second = venue.store()
    assert await venue.open(second) == at
    venue.trade(5)
    await venue.follow(second, at)
    with pytest.raises(StoreMoved):
        await store.write(venue.work(at))
    with pytest.raises(StoreMoved):
        await store.write(Work([], at, at, True))
    assert seen(server) != before
    await stranger.reset()
    await other.follow(stranger, await other.open(stranger))
    with server.client() as client:
        other.check(client)
    for one in (store, second, stranger):
        await one.close()


async def test_a_reset_is_seen_and_everything_is_written_again(
        tmp_path: Path, server: RedisServer, venues: list[RedisVenue]) -> None:
    venue, store, at = await begun(venues, tmp_path, server)
    with server.client() as client:
        client.rpush("matchd:orders", "of somebody else")
        tool = RedisStore(venue.redis, None)
        assert await tool.open(venue.end) == at
        await tool.reset()
        assert client.keys("*") == [b"matchd:orders"]
        assert await tool.open(venue.end) is None
        await tool.close()
        venue.trade(3)
        await venue.settle()
        with pytest.raises(StoreMoved, match="is gone"):
            await store.write(venue.work(at))
        await venue.chase(store)
        venue.check(client)
    await store.close()


async def test_an_empty_redis_begins_so_many_events_ago(
        tmp_path: Path, server: RedisServer, venues: list[RedisVenue]) -> None:
    venue, store, at = await begun(venues, tmp_path, server, backfill_events=40)
    with server.client() as client:
        client.flushall()
        found = await store.open(venue.end)
        assert found is not None and at.seq - 40 <= found.seq < at.seq
        await venue.chase(store)
        venue.check(client, found.seq + 1)
    await store.close()


@pytest.mark.parametrize("lost", ["position:{venue}", "position:{AAPL}", "marks:{venue}"])
async def test_a_key_that_went_missing(tmp_path: Path, server: RedisServer,
                                       venues: list[RedisVenue], lost: str) -> None:
    venue, store, _ = await begun(venues, tmp_path, server)
    symbol = next(iter(venue.market.instruments.values())).symbol
    with server.client() as client:
        assert client.delete(f"matchd:{lost.replace('AAPL', symbol)}") == 1
        venue.trade(5)
        await venue.chase(store)
        venue.check(client)
        text = venue.keys.venue_position
        assert client.get(text) == f"{venue.end.log_id.hex()}-1:{venue.end.seq}".encode()
    await store.close()


async def test_a_lost_answer_writes_nothing_twice(tmp_path: Path, server: RedisServer,
                                                  venues: list[RedisVenue]) -> None:
    proxy = FlakyProxy(("127.0.0.1", server.port)).start()
    try:
        venue, store, at = await begun(venues, tmp_path, server, socket_timeout_s=0.2,
                                       url=f"redis://127.0.0.1:{proxy.port}")
        venue.trade(5)
        await venue.settle()
        proxy.stall(up=False)
        with pytest.raises(StoreDown, match="no answer in time"):
            await store.write(venue.work(at))
        proxy.heal()
        assert (await venue.open(store)).seq > at.seq
        await venue.chase(store)
        venue.trade(5)
        await venue.settle()
        proxy.cut_after(300)
        with pytest.raises(StoreDown):
            await store.write(venue.work(await venue.open(store)))
        await venue.chase(store)
        with server.client() as client:
            venue.check(client)
        await store.close()
    finally:
        proxy.close()


async def test_a_full_redis(tmp_path: Path, server: RedisServer,
                            venues: list[RedisVenue]) -> None:
    venue, store, at = await begun(venues, tmp_path, server)
    with server.client() as client:
        before = seen(server)
        client.config_set("maxmemory", 1)
        venue.trade(5)
        await venue.settle()
        with pytest.raises(StoreDown, match=r"^Redis at \S+: the server.s memory is full"):
            await store.write(venue.work(at))
        assert seen(server) == before
        client.config_set("maxmemory", 0)
        await venue.chase(store)
        venue.check(client)
    await store.close()


@pytest.mark.parametrize("key", ["trades:{%s}", "order_events:{venue}", "marks:{venue}",
                                 "ticker:{%s}", "position:{venue}", "last:{venue}"])
async def test_a_key_of_another_type(tmp_path: Path, server: RedisServer,
                                     venues: list[RedisVenue], key: str) -> None:
    venue, store, at = await begun(venues, tmp_path, server)
    symbol = next(iter(venue.market.instruments.values())).symbol
    name = f"matchd:{key % symbol if '%' in key else key}"
    with server.client() as client:
        client.delete(name)
        client.sadd(name, "of somebody else")
        before = seen(server)
        # Enough for every market to trade.
        venue.trade(60)
        await venue.settle()
        with pytest.raises(StoreStopped, match=r"another type: matchd:"):
            await store.write(venue.work(at))
        assert seen(server) == before
    await store.close()


async def test_an_entry_of_somebody_else(tmp_path: Path, server: RedisServer,
                                         venues: list[RedisVenue]) -> None:
    venue, store, at = await begun(venues, tmp_path, server)
    with server.client() as client:
        client.xadd("matchd:order_events:{venue}", {"a": "b"})
        before = seen(server)
        venue.trade(5)
        await venue.settle()
        with pytest.raises(StoreStopped, match="somebody else wrote into a stream"):
            await store.write(venue.work(at))
        assert seen(server) == before
    await store.close()


async def test_a_replica_is_no_place_to_write(tmp_path: Path, server: RedisServer,
                                              venues: list[RedisVenue]) -> None:
    venue, store, at = await begun(venues, tmp_path, server)
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
        venue.trade(5)
        await venue.settle()
        with pytest.raises(StoreDown, match="read-only replica"):
            await store.write(venue.work(at))
        client.replicaof("NO", "ONE")
        await venue.chase(store)
        venue.check(client)
    await store.close()

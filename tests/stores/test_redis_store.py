"""The Redis store on a real server: what it writes, exactly once, and how it refuses to go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.config import RedisConfig
from engine.redis_values import decode
from engine.stores.redis_store import RedisStore
from engine.stores.store import Position, StoreDown, StoreMoved, StoreStopped, Work
from tests.stores.redis_venue import RedisVenue, stream
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
    config = RedisConfig(url=server.url, **(ALL | settings))
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

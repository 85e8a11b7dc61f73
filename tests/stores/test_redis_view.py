"""Every key is read by the client, as a stranger would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cython_core.rows import COLUMNS
from engine.clients.redis_view import MissedError, RedisView
from engine.config import RedisConfig
from tests.stores.redis_venue import RedisVenue
from tests.support.redis import RedisServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    one = RedisServer(tmp_path / "redis").start()
    yield one
    one.kill()


async def venue_of(tmp_path: Path, server: RedisServer, **settings: Any) -> RedisVenue:
    options: dict[str, Any] = {"url": server.url, "min_change": 0.0, "batch_interval_ms": 1,
                               "prefix": "venue[7]:"}
    return await RedisVenue(tmp_path / "venue", RedisConfig(**(options | settings))).start()


@pytest.mark.parametrize(("encoding", "above"), [("msgpack", 0), ("json", 200)])
async def test_every_key(tmp_path: Path, server: RedisServer, encoding: str,
                         above: int) -> None:
    venue = await venue_of(tmp_path, server, encoding=encoding, compress_above_bytes=above)
    store = venue.store()
    venue.trade(50)
    await venue.chase(store, events=100)
    events, trades = venue.expected()
    symbols = [one.symbol for one in venue.market.instruments.values()]
    async with RedisView(server.url, "venue[7]:") as view:
        books = await view.books([*symbols, "NONE"])
        assert sorted(books) == sorted(symbols) and await view.book("NONE") is None
        last, position = await view.last_prices(), await view.position()
        assert position == (venue.end.log_id.hex(), 1, venue.end.seq)
        assert await view.position("NONE") is None and await view.ticker("NONE") is None
        for symbol in symbols:
            book = await view.book(symbol)
            assert book == books[symbol] and book["symbol"] == symbol
            assert book["seq"] == venue.end.seq and book["time"] == venue.market.applied_time_ns
            found = await view.trades(symbol)
            assert [int(row["match"]) for row in found] == [row["match"]
                                                           for row in trades[symbol]]
            ticker = await view.ticker(symbol)
            if found:
                assert ticker is not None and ticker["last"] == found[-1]["price"] == last[symbol]
                middle = found[len(found) // 2]["seq"]
                assert await view.trades(symbol, middle) == [
                    row for row in found if row["seq"] > middle]
        names = COLUMNS["order_events"]
        rows = await view.order_events()
        assert [row["seq"] for row in rows] == [row[0] for row in events]
        if encoding == "msgpack":
            assert rows == [dict(zip(names, row, strict=True)) for row in events]
        assert await view.order_events(rows[10]["seq"]) == rows[11:]
    await store.close()
    await venue.close()


async def test_following_a_stream_misses_nothing(tmp_path: Path, server: RedisServer) -> None:
    venue = await venue_of(tmp_path, server)
    store = venue.store()
    symbol = next(iter(venue.market.instruments.values())).symbol
    seen: list[int] = []
    events: list[int] = []

    async def trades(view: RedisView) -> None:
        async for trade in view.follow_trades(symbol):
            seen.append(trade["seq"])

    async def all_events(view: RedisView) -> None:
        async for event in view.follow_order_events():
            events.append(event["seq"])

    async with RedisView(server.url, "venue[7]:") as view:
        tasks = [asyncio.ensure_future(trades(view)), asyncio.ensure_future(all_events(view))]
        for _ in range(20):
            venue.trade(3)
            await venue.chase(store)
        rows, expected = venue.expected()
        async with asyncio.timeout(20):
            while len(events) < len(rows) or len(seen) < len(expected[symbol]):
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == [trade["seq"] for trade in expected[symbol]]
    assert events == [row[0] for row in rows]
    await store.close()
    await venue.close()


async def test_a_reader_ends_whenever_it_is_cancelled(tmp_path: Path, server: RedisServer
                                                      ) -> None:
    async def follow(view: RedisView) -> None:
        async for _ in view.follow_order_events():
            raise AssertionError("nobody trades")

    async with RedisView(server.url, "venue[7]:") as view:
        for turns in range(60):
            task = asyncio.ensure_future(follow(view))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=30)
            assert done and task.cancelled()


async def test_what_is_gone_is_told(tmp_path: Path, server: RedisServer) -> None:
    venue = await venue_of(tmp_path, server, stream_entries_max=1)
    store = venue.store()
    for _ in range(300):
        venue.trade(1)
        await venue.chase(store)
    rows, _ = venue.expected()
    async with RedisView(server.url, "venue[7]:") as view:
        kept = await view.order_events()
        # A stream is cut in pieces of its server's own.
        assert 0 < len(kept) < len(rows) and kept[-1]["seq"] == rows[-1][0]
        first = kept[0]["seq"]
        assert await view.order_events(first) == kept[1:]
        with pytest.raises(MissedError) as missed:
            await view.order_events(rows[0][0])
        assert missed.value.first == first
    await store.close()
    await venue.close()


async def test_what_is_published(tmp_path: Path, server: RedisServer) -> None:
    venue = await venue_of(tmp_path, server, encoding="json", compress_above_bytes=300)
    store = venue.store()
    at = await venue.open(store)
    one = next(iter(venue.market.instruments.values()))
    messages: list[dict[str, Any]] = []

    async def listen(*symbols: str) -> None:
        async with RedisView(server.url, "venue[7]:") as view:
            async for message in view.watch(*symbols):
                messages.append(message)

    tasks = [asyncio.ensure_future(listen(one.symbol)), asyncio.ensure_future(listen())]
    with server.client() as client:
        while client.pubsub_numpat() < 1 or not client.pubsub_channels():
            await asyncio.sleep(0.01)
    venue.trade(40)
    await venue.follow(store, at)
    _, trades = venue.expected()
    async with asyncio.timeout(10):
        while sum(message["channel"] == "trades" and message["symbol"] == one.symbol
                  for message in messages) < 2:
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    told = [message for message in messages if message["channel"] == "trades"
            and message["symbol"] == one.symbol]
    # Both heard it: who asked for this market, and who asked for all.
    assert told[0] == told[1]
    assert [int(row["match"]) for row in told[0]["trades"]] == [
        row["match"] for row in trades[one.symbol]]
    assert {message["channel"] for message in messages} == {"book", "trades"}
    await store.close()
    await venue.close()

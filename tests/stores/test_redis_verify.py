"""`store verify redis`: a Redis is what the log says, or every difference is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import RedisConfig
from engine.redis_values import Coder, decode
from engine.stores import redis_verify
from engine.stores.redis_store import RedisStore
from engine.stores.redis_verify import verify
from engine.stores.store import Position, StoreDown, StoreStopped
from engine.stores.verify import Report
from tests.market.venue import INSTRUMENT_LIST
from tests.stores.redis_venue import RedisVenue, stream
from tests.support.redis import Cluster, RedisServer

ALL = {"min_change": 0.0, "batch_interval_ms": 1, "stream_entries_max": 10**9,
       "max_batch_size": 1_000}
SYMBOL = INSTRUMENT_LIST[0].symbol


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path / "redis").start()
    yield one
    one.kill()


@pytest.fixture
async def venues() -> AsyncIterator[list[RedisVenue]]:
    started: list[RedisVenue] = []
    yield started
    for venue in started:
        await venue.close()


async def filled(venues: list[RedisVenue], folder: Path, url: str, rounds: int = 120,
                 events: int = 40, **settings: Any) -> tuple[RedisVenue, RedisStore, Position]:
    """A venue whose Redis has everything."""
    venue = RedisVenue(folder / f"venue{len(venues)}",
                       RedisConfig(**({"url": url} | ALL | settings)), seed=len(venues))
    venues.append(venue)
    await venue.start()
    store = venue.store()
    at = await venue.open(store)
    venue.trade(rounds)
    at = await venue.follow(store, at, events)
    await venue.write_all(store, at)
    return venue, store, at


async def check(venue: RedisVenue, **settings: Any) -> Report:
    config = venue.redis
    if settings:
        config = RedisConfig(**({"url": config.url} | ALL | settings))
    return await verify(config, INSTRUMENT_LIST, venue.journal.new_past(), lambda: venue.end)


@pytest.mark.parametrize(("encoding", "above"), [("msgpack", 0), ("json", 0), ("json", 200)])
async def test_it_is_what_the_log_says(tmp_path: Path, server: RedisServer,
                                       venues: list[RedisVenue], encoding: str,
                                       above: int) -> None:
    venue, store, at = await filled(venues, tmp_path, server.url, encoding=encoding,
                                    compress_above_bytes=above)
    report = await check(venue)
    assert (report.different, report.differences, report.exit_code) == (0, [], 0)
    events, trades = venue.expected()
    assert report.position == at and not report.notes
    assert report.rows["order_events"] == len(events)
    assert report.rows["trades"] == sum(map(len, trades.values())) > 20
    assert report.rows["books"] == len(INSTRUMENT_LIST)
    traded = sum(bool(rows) for rows in trades.values())
    assert report.rows["tickers"] == report.rows["last_prices"] == traded
    await store.close()


async def test_an_empty_one_and_another_log_s(tmp_path: Path, server: RedisServer,
                                              venues: list[RedisVenue]) -> None:
    venue, store, _ = await filled(venues, tmp_path, server.url)
    other, more, _ = await filled(venues, tmp_path, server.url, prefix="other:")
    report = await check(venue, prefix="nobody:")
    assert (report.position, report.exit_code, report.notes) == (None, 0, ["the store is empty"])
    with pytest.raises(StoreStopped, match="belongs to the log"):
        await check(venue, prefix="other:")
    server.stop()
    with pytest.raises(StoreDown):
        await check(other)
    await store.close()
    await more.close()


def first_entry(client: Any, key: str) -> tuple[str, dict[bytes, bytes]]:
    """The third entry: it has some before it and some behind."""
    return stream(client, key)[2]


def rewrite(client: Any, key: str, change: Callable[[dict[bytes, Any]], None]) -> None:
    """Make a stream again with another third entry."""
    entries = stream(client, key)
    client.delete(key)
    for number, (entry_id, fields) in enumerate(entries):
        if number == 2:
            change(fields)
        client.xadd(key, fields, id=entry_id)


def worse_row(fields: dict[bytes, Any]) -> None:
    rows = decode(fields[b"data"])
    rows[0][-1] = "changed"
    fields[b"data"] = Coder("msgpack", 0).value(rows)


def worse_price(fields: dict[bytes, Any]) -> None:
    body = decode(fields[b"data"])
    body["trades"][0]["price"] = "0.0001"
    fields[b"data"] = Coder("msgpack", 0).value(body)


def no_row(fields: dict[bytes, Any]) -> None:
    fields[b"data"] = Coder("msgpack", 0).value(decode(fields[b"data"])[1:])


def twice(fields: dict[bytes, Any]) -> None:
    rows = decode(fields[b"data"])
    fields[b"data"] = Coder("msgpack", 0).value([rows[0], *rows])


EVENTS, TRADES = "matchd:order_events:{venue}", f"matchd:trades:{{{SYMBOL}}}"
BOOK, TICKER = f"matchd:book:{{{SYMBOL}}}", f"matchd:ticker:{{{SYMBOL}}}"
LAST, POSITION = "matchd:last:{venue}", f"matchd:position:{{{SYMBOL}}}"


def worse_book(client: Any) -> None:
    book = decode(client.get(BOOK))
    book["bids"] = book["bids"][1:] or [["1.0000", "1", 1]]
    client.set(BOOK, Coder("msgpack", 0).value(book))


@pytest.mark.parametrize(("harm", "words"), [
    (lambda client: client.xdel(EVENTS, first_entry(client, EVENTS)[0]),
     "order_events [0-9]+: missing"),
    (lambda client: client.xdel(TRADES, first_entry(client, TRADES)[0]),
     f"trades {SYMBOL} [0-9]+: missing"),
    (lambda client: client.delete(TRADES), f"trades {SYMBOL} [0-9]+: missing"),
    (lambda client: rewrite(client, EVENTS, worse_row), "order_events .*changed.*should be"),
    (lambda client: rewrite(client, EVENTS, no_row), "says first"),
    (lambda client: rewrite(client, EVENTS, twice), "twice, or behind"),
    (lambda client: rewrite(client, TRADES, worse_price), "0.0001.* should be"),
    (lambda client: rewrite(client, TRADES, lambda fields: fields.update({b"data": b"\xc1"})),
     "can't be read"),
    (lambda client: client.xadd(EVENTS, {"a": "b"}), "order_events, entry .* can't be read"),
    (lambda client: client.delete(EVENTS), "order_events 1: missing"),
    (worse_book, f"book {SYMBOL} at [0-9]+: bids is"),
    (lambda client: client.set(BOOK, "x"), f"book {SYMBOL}: can't be read"),
    (lambda client: client.delete(BOOK), f"book {SYMBOL}: missing"),
    (lambda client: client.hset(TICKER, "high", "99"), f"ticker {SYMBOL} at [0-9]+: high is '99'"),
    (lambda client: client.delete(TICKER), f"ticker {SYMBOL}: missing"),
    (lambda client: client.hset(LAST, SYMBOL, "99"), f"last price {SYMBOL}: is 99, should be"),
    (lambda client: client.hdel(LAST, SYMBOL), f"last price {SYMBOL}: is None"),
    (lambda client: client.delete(POSITION), f"position {SYMBOL}: missing"),
    (lambda client: client.set(POSITION, "x"), f"position {SYMBOL}: .* is none of ours"),
    (lambda client: client.delete("matchd:position:{venue}"), "position venue: missing"),
])
async def test_every_difference_is_told(tmp_path: Path, server: RedisServer,
                                        venues: list[RedisVenue], harm: Callable[[Any], Any],
                                        words: str) -> None:
    venue, store, _ = await filled(venues, tmp_path, server.url)
    with server.client() as client:
        harm(client)
    report = await check(venue)
    assert report.exit_code == 4 and report.different >= len(report.differences) > 0
    with pytest.raises(AssertionError, match=words):
        raise AssertionError("\n".join(report.differences))
    await store.close()


async def test_events_that_the_log_lost(tmp_path: Path, server: RedisServer,
                                        venues: list[RedisVenue]) -> None:
    venue, store, at = await filled(venues, tmp_path, server.url)
    short = await verify(venue.redis, INSTRUMENT_LIST, venue.journal.new_past(),
                         lambda: at._replace(seq=at.seq - 30))
    assert short.exit_code == 4
    assert f"holds events up to {at.seq} that the log lost" in short.differences[0]
    await store.close()


async def test_what_was_cut_or_expired_is_no_difference(
        tmp_path: Path, server: RedisServer, venues: list[RedisVenue]) -> None:
    venue, store, _ = await filled(venues, tmp_path, server.url, events=5, rounds=200,
                                   stream_entries_max=10, expire_s=100)
    with server.client() as client:
        assert int(stream(client, EVENTS)[0][1][b"previous"]) > 100
        client.xtrim(TRADES, 2, approximate=False)
        client.delete(BOOK)
    report = await check(venue, stream_entries_max=10, expire_s=100)
    assert report.differences == []
    notes = "; ".join(report.notes)
    assert "streams were cut at their beginning" in notes
    assert "1 books are not there, as they expire" in notes
    events, _ = venue.expected()
    assert 0 < report.rows["order_events"] < len(events)
    await store.close()


async def test_streams_that_begin_late(tmp_path: Path, server: RedisServer,
                                       venues: list[RedisVenue]) -> None:
    venue, store, at = await filled(venues, tmp_path, server.url, backfill_events=100)
    with server.client() as client:
        client.flushall()
    await store.close()
    await venue.chase(store)
    report = await check(venue, backfill_events=100)
    assert report.differences == [] and report.position == at
    assert "the streams begin behind event" in report.notes[0]
    assert 100 <= report.rows["order_events"] < 200
    await store.close()


async def test_markets_that_are_named_later(tmp_path: Path, server: RedisServer,
                                            venues: list[RedisVenue]) -> None:
    venue, store, _ = await filled(venues, tmp_path, server.url,
                                   markets=[one.symbol for one in INSTRUMENT_LIST[1:]])
    await store.close()
    venue.redis = RedisConfig(**({"url": server.url} | ALL))
    store = venue.store()
    at = await venue.open(store)
    report = await check(venue)
    assert [line for line in report.differences if "trades" in line] == []
    venue.trade(100)
    at = await venue.follow(store, at)
    await venue.write_all(store, at)
    report = await check(venue)
    assert report.differences == []
    assert any(f"trades {SYMBOL}" in note and "redis.markets" in note for note in report.notes)
    await store.close()


async def test_beside_a_venue_that_writes_and_cuts(
        tmp_path: Path, server: RedisServer, venues: list[RedisVenue],
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_verify, "SLICE_EVENTS", 50)
    venue, store, _ = await filled(venues, tmp_path, server.url, events=5,
                                   stream_entries_max=20)
    over = asyncio.Event()

    async def work() -> None:
        while not over.is_set():
            venue.trade(2)
            await venue.chase(store, events=5)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(work())
    try:
        for _ in range(10):
            report = await check(venue, stream_entries_max=20)
            assert report.differences == []
    finally:
        over.set()
        await task
    await store.close()


async def test_a_cluster(tmp_path: Path, venues: list[RedisVenue]) -> None:
    cluster = Cluster(tmp_path / "cluster")
    try:
        cluster.start()
        venue, store, at = await filled(venues, tmp_path, cluster.url)
        report = await check(venue)
        assert report.differences == [] and report.position == at
        await store.close()
    finally:
        cluster.kill()

"""Clients that don't read: they are skipped, caught up or cut, and nobody else notices."""

from __future__ import annotations

import asyncio

import pytest

from tests.feed.flow import Book, Flow
from tests.feed.raw import Raw
from tests.feed.venue import told, trade

pytestmark = pytest.mark.asyncio

SMALL = {"feed__send_buffer_bytes": 4_096}


async def stalled(venue, channels=("book", "trades"), receive_bytes: int = 4_096) -> Raw:
    """A client that subscribes and then reads nothing."""
    raw = await Raw.upgraded(venue.app.ports["feed"], receive_bytes)
    for channel in channels:
        await raw.request(op="subscribe", channel=channel, symbol="AAPL")
    return raw


async def until(condition) -> None:
    """Wait until something is so."""
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never was")


async def test_what_joined_in_the_tick_that_finds_a_client_slow_was_told(make_venue,
                                                                        connect) -> None:
    venue = await make_venue()
    feed, flow = venue.app.feed, Flow(1)
    peer = await connect(venue)
    await peer.subscribe("book")
    await trade(venue, flow, 5)
    await told(venue)
    client = next(iter(feed.connected.values()))
    held = next(iter(client.subscriptions.values()))
    # In one tick the book speaks, the client's subscription joins by a snapshot, and the batch of
    # its group leaves the client out.
    feed.joins.stop(client)
    feed.regroup_now()
    held.chain.before_seq, held.chain.tick = held.chain.seq - 1, feed.fan.tick
    feed.joins.go_on(client)
    before, held.last_seq = held.chain.seq, 0
    client.wire.skip(feed.fan.tick)
    feed.is_fanning_out = True
    feed.joins.stop(client)
    feed.is_fanning_out = False
    assert held.last_seq == before


async def test_a_client_that_stalls_is_skipped_and_then_goes_on(make_venue, connect) -> None:
    venue = await make_venue(journal__sync="interval", **SMALL)
    feed, flow = venue.app.feed, Flow(1)
    # A reader that the library does not read ahead for.
    peer, stays = await connect(venue, max_queue=1), await connect(venue)
    book, other = Book(), Book()
    book.take(await peer.subscribe("book"))
    last = (await peer.subscribe("trades"))["seq"]
    other.take(await stays.subscribe("book"))
    await stays.subscribe("trades")
    client = next(iter(feed.connected.values()))
    while not client.slow:
        await trade(venue, flow, 20)
    ticks = feed.fan.tick
    await trade(venue, flow, 50)
    skipped = feed.fan.tick - ticks if client.slow else 0
    assert client.wire.unsent_bytes < 2**20
    # Now it reads.
    trades, snapshots = [], 0

    async def read() -> None:
        nonlocal last, snapshots
        while "ok" not in (message := await peer.get()):
            if message["channel"] == "book":
                snapshots += message["type"] == "snapshot"
                book.take(message)
                book.check(message["crc"])
            else:
                assert message["prev_seq"] == last
                last = message["seq"]
                trades.extend(message["trades"])

    reading = asyncio.create_task(read())
    await until(lambda: not client.slow)
    await trade(venue, flow, 5)
    await told(venue)
    await peer.send(op="ping")
    await asyncio.wait_for(reading, 20)
    await stays.ask(op="ping")
    assert snapshots == client.conflated >= 1
    assert client.row()["dropped"] >= skipped
    every = []
    for message in stays.messages:
        if message["channel"] == "book":
            other.take(message)
        else:
            every += message["trades"]
    assert trades == every
    assert book.sides == other.sides
    assert feed.stats()["clients_dropped"] == 0


async def test_a_client_that_never_reads_is_cut_with_a_reason(make_venue) -> None:
    venue = await make_venue(feed__pong_timeout_ms=1_500, **SMALL)
    raw = await stalled(venue)
    feed = venue.app.feed
    await until(lambda: feed.connected)
    client, = feed.connected.values()
    running = asyncio.create_task(trade(venue, Flow(2), 400))
    await until(lambda: client.closed)
    assert feed.stats()["clients_dropped"] == 1
    # What was sent before can still be read, and then the reason.
    code, reason = await raw.closed()
    assert (code, reason) == (1008, "no pong in time")
    await running
    await until(lambda: not feed.connected)
    assert feed.upkeep.slow_count == 0


async def test_unread_bytes_have_a_limit(make_venue) -> None:
    venue = await make_venue(feed__unsent_max_bytes=20_000, feed__requests_per_second=1_000_000,
                             **SMALL)
    raw = await Raw.upgraded(venue.app.ports["feed"], 4_096)
    feed = venue.app.feed
    for _ in range(2_000):
        await raw.request(op="list", id="x" * 200)
        if feed.stats()["clients_dropped"]:
            break
        await asyncio.sleep(0)
    await until(lambda: feed.stats()["clients_dropped"] == 1)
    assert (await raw.closed())[1] == "slow client: too much is unread"


async def test_who_stalls_costs_others_nothing(make_venue, connect) -> None:
    venue = await make_venue(**SMALL)
    feed = venue.app.feed
    peers = [await connect(venue) for _ in range(10)]
    for peer in peers:
        for channel in ("book", "trades"):
            await peer.subscribe(channel)
    raws = [await stalled(venue) for _ in range(3)]
    while feed.upkeep.slow_count < 3:
        await trade(venue, Flow(3 + feed.fan.tick), 20)
    before = [client.wire.batches_sent for client in feed.connected.values()]
    ticks = feed.fan.tick
    await trade(venue, Flow(2), 50)
    await until(lambda: not feed.registry.dirty and not feed.is_fanning_out)
    sent = [client.wire.batches_sent - start for client, start in
            zip(feed.connected.values(), before, strict=True)]
    # Readers got one batch of each tick that said anything, those who stall none.
    assert len(set(sent[:10])) == 1
    assert 0 < sent[0] <= feed.fan.tick - ticks
    assert sent[10:] == [0, 0, 0]
    answers = [await peer.ask(op="ping") for peer in peers]
    assert all(answer["ok"] for answer in answers)
    assert all(peer.messages == peers[0].messages for peer in peers)
    for raw in raws:
        raw.close()


async def test_a_client_without_traffic_is_pinged(make_venue, connect) -> None:
    venue = await make_venue(feed__pong_timeout_ms=900)
    peer, raw = await connect(venue), await Raw.upgraded(venue.app.ports["feed"])
    # Half open: it never answers. The other one's library does.
    code, reason = await raw.closed()
    assert (code, reason) == (1008, "no pong in time")
    client = next(iter(venue.app.feed.connected.values()))
    assert client.wire.latency_ns > 0
    assert (await peer.ask(op="ping"))["ok"]

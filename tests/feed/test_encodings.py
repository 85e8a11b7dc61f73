"""Three encodings say the same, and a book kept from any of them is the venue's."""

from __future__ import annotations

import asyncio

import pytest

from tests.feed.flow import Book, Flow
from tests.feed.venue import everything, told, trade

pytestmark = pytest.mark.asyncio

ENCODINGS = ("json", "msgpack", "msgpack-lz4")


def numbers(value):
    """A message with texts of digits under the names of identifiers as numbers."""
    if isinstance(value, dict):
        return {key: int(one) if key in ("order_id", "match") else numbers(one)
                for key, one in value.items()}
    return [numbers(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("channel", ["book", "book_l3", "bbo", "trades", "candles", "ticker",
                                     "orders", "executions"])
async def test_the_encodings_say_the_same(make_venue, connect, channel) -> None:
    venue = await make_venue(feed__compress_above_bytes=100)
    peers = [await connect(venue, encoding) for encoding in ENCODINGS]
    for peer in peers:
        await peer.subscribe(channel)
    await trade(venue, Flow(1))
    first, *others = [await everything(venue, peer) for peer in peers]
    assert first
    if channel == "book_l3":
        assert isinstance(first[0]["events"][0]["order_id"], str)
        assert isinstance(others[0][0]["events"][0]["order_id"], int)
    for other in others:
        assert numbers(other) == numbers(first)


async def test_only_large_messages_are_compressed(make_venue, connect) -> None:
    venue = await make_venue(feed__compress_above_bytes=200)
    await trade(venue, Flow(2), 20)
    await told(venue)
    peer = await connect(venue, "msgpack-lz4")
    kinds = []
    peer.decode = lambda data: (kinds.append((data[0], len(data))), type(peer).decode(
        peer, data))[1]
    await peer.subscribe("bbo")
    await peer.subscribe("book")
    assert [kind for kind, _ in kinds] == [0, 0, 0, 1]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("depth", [None, 10, 25])
async def test_a_book_joined_at_any_time_is_the_venues(make_venue, connect, encoding,
                                                       depth) -> None:
    venue = await make_venue(feed__requests_per_second=1_000)
    more = {} if depth is None else {"depth": depth}
    running = asyncio.create_task(trade(venue, Flow(3), 150))
    peers, books = [], []
    for _ in range(6):
        peers.append(await connect(venue, encoding))
        books.append(Book())
        await peers[-1].ask(op="subscribe", channel="book", symbol="AAPL", **more)
        await asyncio.sleep(0.02)
    await running
    for peer, book in zip(peers, books, strict=True):
        for message in await everything(venue, peer):
            book.take(message)
            book.check(message["crc"])
        bids, asks = venue.app.matcher.levels(1, depth or 10_000)
        for side, levels in (("bids", bids), ("asks", asks)):
            assert [(round(float(price) * 10_000), int(quantity), orders)
                    for price, quantity, orders in book.rows(side)] == levels

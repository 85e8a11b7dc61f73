"""Each channel says what the market did, in the shapes that clients rely on."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable

import pytest

from cython_core.model import Source
from tests.feed.peer import Peer
from tests.support.venue import Venue

pytestmark = pytest.mark.asyncio

Connect = Callable[..., Awaitable[Peer]]

HEAD = ["channel", "symbol", "seq", "prev_seq", "time", "type"]


def cross(batch):
    """A bid that rests, an offer, and a buyer who takes half of it."""
    batch.enter(1, 1, 1, "B", 100, 1_000_000)
    batch.enter(1, 2, 1, "S", 100, 1_010_000)
    batch.enter(2, 1, 1, "B", 50, 1_010_000)


async def test_book_says_levels_with_a_checksum(venue: Venue, connect: Connect) -> None:
    peer = await connect(venue)
    snapshot = await peer.subscribe("book")
    assert list(snapshot) == [*HEAD, "bids", "asks", "crc"]
    assert (snapshot["type"], snapshot["prev_seq"], snapshot["bids"]) == ("snapshot", 0, [])
    venue.inside(cross)
    delta = await peer.get()
    assert list(delta) == [*HEAD, "bids", "asks", "crc"]
    assert (delta["type"], delta["prev_seq"]) == ("delta", snapshot["seq"])
    assert delta["bids"] == [["100.0000", "100", 1]]
    assert delta["asks"] == [["101.0000", "50", 1]]
    assert delta["crc"] == zlib.crc32(b"1010000:50,1000000:100")
    venue.inside(lambda batch: batch.enter(2, 2, 1, "B", 50, 1_010_000))
    gone = await peer.get()
    assert (gone["bids"], gone["asks"]) == ([], [["101.0000", "0", 0]])
    assert gone["prev_seq"] == delta["seq"]


async def test_bbo_says_the_best_of_each_side(venue: Venue, connect: Connect) -> None:
    peer = await connect(venue)
    snapshot = await peer.subscribe("bbo")
    assert (snapshot["bid"], snapshot["ask"]) == (None, None)
    venue.inside(cross)
    update = await peer.get()
    assert list(update) == [*HEAD, "bid", "ask"]
    assert (update["bid"], update["ask"]) == (["100.0000", "100"], ["101.0000", "50"])


async def test_trades_say_the_takers_side(venue: Venue, connect: Connect) -> None:
    peer = await connect(venue)
    assert (await peer.subscribe("trades"))["trades"] == []
    venue.inside(cross)
    update = await peer.get()
    trade, = update["trades"]
    assert list(trade) == ["match", "price", "quantity", "side", "time", "seq"]
    assert isinstance(trade["match"], str)
    assert (trade["price"], trade["quantity"], trade["side"]) == ("101.0000", "50", "buy")
    assert trade["seq"] <= update["seq"]


async def test_l3_says_every_order(venue: Venue, connect: Connect) -> None:
    peer = await connect(venue)
    await peer.subscribe("book_l3")
    venue.inside(cross)
    delta = await peer.get()
    assert [event["e"] for event in delta["events"]] == ["add", "add", "fill"]
    assert set(delta["events"][0]) == {"e", "order_id", "side", "price", "quantity", "remaining"}
    other = await connect(venue)
    snapshot = await other.subscribe("book_l3")
    bid, = snapshot["bids"]
    assert bid == ["100.0000", delta["events"][0]["order_id"], "100"]
    assert snapshot["seq"] == delta["seq"]


async def test_a_candle_is_told_once_more_when_it_is_over(venue: Venue,
                                                          connect: Connect) -> None:
    peer = await connect(venue)
    empty = await peer.subscribe("candles", interval="1s")
    assert (empty["open_time"], empty["trades"], empty["interval"]) == (None, 0, "1s")
    venue.inside(cross)
    candle = await peer.get()
    assert list(candle) == [*HEAD, "interval", "open_time", "open", "high", "low", "close",
                            "volume", "trades", "closed"]
    assert (candle["close"], candle["volume"], candle["closed"]) == ("101.0000", "50", False)
    over = await peer.get()
    assert over == candle | {"closed": True, "time": over["time"], "prev_seq": candle["seq"]}
    assert over["time"] >= candle["open_time"] + 1_000_000_000


async def test_ticker_says_the_day(venue: Venue, connect: Connect) -> None:
    peer = await connect(venue)
    assert (await peer.subscribe("ticker"))["last"] is None
    venue.inside(cross)
    ticker = await peer.get()
    assert list(ticker) == [*HEAD, "open", "high", "low", "last", "volume", "change"]
    assert (ticker["last"], ticker["volume"], ticker["change"]) == ("101.0000", "50", "0.0000")


async def test_status_says_that_trading_goes_on(venue: Venue, connect: Connect) -> None:
    peer = await connect(venue)
    status = await peer.subscribe("status")
    assert list(status) == [*HEAD, "state", "reason"]
    assert (status["state"], status["reason"]) == ("trading", "")
    venue.inside(lambda batch: batch.halt_instrument(1, reason="news", source=Source.ADMIN))
    halted = await peer.get()
    assert (halted["type"], halted["prev_seq"]) == ("update", status["seq"])
    assert (halted["state"], halted["reason"]) == ("halted", "news")
    assert (await (await connect(venue)).subscribe("status"))["state"] == "halted"
    venue.inside(lambda batch: batch.resume_instrument(1, source=Source.ADMIN))
    assert (await peer.get())["state"] == "trading"


async def test_a_depth_is_kept_by_the_server(venue: Venue, connect: Connect) -> None:
    def ladder(batch):
        for step in range(20):
            batch.enter(1, step + 1, 1, "B", 10, 1_000_000 - step * 100)

    venue.inside(ladder)
    peer = await connect(venue)
    full = await peer.subscribe("book")
    top, ten = await peer.subscribe("book", depth=1), await peer.subscribe("book", depth=10)
    assert [len(one["bids"]) for one in (full, top, ten)] == [20, 1, 10]
    assert full["crc"] == top["crc"] == ten["crc"]
    # The best goes: the eleventh comes in.
    venue.inside(lambda batch: batch.enter(2, 1, 1, "S", 10, 1_000_000, time_in_force="3"))
    delta = await peer.get()
    assert delta["bids"] == [["100.0000", "0", 0], ["99.9000", "10", 1]]
    await peer.nothing(0.05)


async def test_one_tick_is_one_message(make_venue, connect: Connect) -> None:
    venue = await make_venue(feed__batch_interval_ms=300)
    peer = await connect(venue)
    await peer.subscribe("bbo")
    # The first change after a quiet time goes out at once, what follows is joined.
    venue.inside(lambda batch: batch.enter(1, 1, 1, "B", 1, 1_000_000))
    await peer.get()
    for step in range(2, 20):
        venue.inside(lambda batch, step=step: batch.enter(1, step, 1, "B", 1,
                                                          1_000_000 + step * 100))
        await asyncio.sleep(0)
    assert (await peer.get())["bid"] == ["100.1900", "1"]
    await peer.nothing()

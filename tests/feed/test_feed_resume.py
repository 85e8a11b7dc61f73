"""A client that comes back goes on where it was: without a hole, without a repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.feed.flow import Book, Flow
from tests.feed.peer import Peer
from tests.feed.venue import everything, trade
from tests.support.venue import Venue

pytestmark = pytest.mark.asyncio

Connect = Callable[..., Awaitable[Peer]]


def chained(messages: list[dict[str, Any]], seq: int) -> int:
    """Each message follows the one before; returns where they end."""
    for message in messages:
        assert message["prev_seq"] == seq, (message, seq)
        assert message["seq"] >= seq
        seq = message["seq"]
    return seq


@pytest.fixture
async def kept(make_venue) -> Venue:
    """A venue with its log on disk, and some past."""
    venue = await make_venue(journal__sync="interval")
    await trade(venue, Flow(1))
    return venue


async def test_a_book_is_resumed_from_what_was_sent_lately(make_venue, connect) -> None:
    venue, flow = await make_venue(), Flow(2)
    stays, book = await connect(venue), Book()
    book.take(await stays.subscribe("book"))
    await trade(venue, flow)
    messages = await everything(venue, stays)
    for message in messages:
        book.take(message)
        book.check(message["crc"])
    # At every point where it could have been cut.
    for place in range(0, len(messages), 3):
        peer = await connect(venue)
        answer = await peer.ask(op="subscribe", channel="book", symbol="AAPL",
                                resume_from=messages[place]["seq"])
        assert answer["ok"]
        missed = await everything(venue, peer)
        assert missed == messages[place + 1:]
        await peer.close()


@pytest.mark.parametrize("channel", ["book", "bbo", "candles", "ticker"])
async def test_what_is_not_at_hand_is_reset(make_venue, connect, channel) -> None:
    venue = await make_venue(feed__resume_window_ms=50)
    stays = await connect(venue)
    first = await stays.subscribe(channel)
    await trade(venue, Flow(3))
    await asyncio.sleep(0.2)
    venue.inside(lambda batch: batch.enter(4, 1, 1, "S", 1, 1_100_000))
    venue.inside(lambda batch: batch.enter(4, 2, 1, "B", 1, 1_100_000))
    await everything(venue, stays)
    peer = await connect(venue)
    reset = await peer.subscribe(channel, resume_from=first["seq"])
    assert (reset["type"], reset["prev_seq"]) == ("reset", 0)
    assert reset["reason"] == "the position is older than the resume window"
    assert reset.get("interval") == first.get("interval")
    snapshot = await peer.get()
    assert (snapshot["type"], snapshot["prev_seq"]) == ("snapshot", reset["seq"])


async def test_positions_of_another_log_and_of_the_future_are_reset(venue, connect) -> None:
    peer = await connect(venue)
    answer = await peer.ask(op="ping")
    reset = await peer.subscribe("bbo", resume_from=answer["seq"] + 1)
    assert reset["reason"] == "the position is beyond the end of the log"
    await peer.get()
    reset = await peer.subscribe("trades", resume_from=answer["seq"], log="00-1")
    assert reset["reason"] == "the position is one of another log"
    assert (await peer.get())["type"] == "snapshot"


@pytest.mark.parametrize("encoding", ["json", "msgpack", "msgpack-lz4"])
@pytest.mark.parametrize("channel", ["trades", "book_l3", "candles"])
async def test_a_reset_has_the_same_fields_in_each_encoding(venue, connect, channel,
                                                            encoding) -> None:
    peer = await connect(venue, encoding)
    reset = await peer.subscribe(channel, resume_from=0, log="00-1")
    assert {*reset} - {"interval"} == {"channel", "symbol", "type", "seq", "prev_seq", "time",
                                       "reason"}


async def test_the_answer_names_the_log(venue, connect) -> None:
    peer = await connect(venue)
    answer = await peer.ask(op="subscribe", channel="bbo", symbol="AAPL")
    await peer.get()
    again = await peer.ask(op="subscribe", channel="bbo", symbol="AAPL", log=answer["log"],
                           resume_from=answer["seq"])
    assert again["log"] == answer["log"]
    log_id, incarnation = answer["log"].split("-")
    assert bytes.fromhex(log_id) == venue.app.journal.log_id
    assert int(incarnation) == venue.app.journal.incarnation
    await peer.nothing(0.05)


@pytest.mark.parametrize("restart", [False, True])
async def test_trades_are_resumed_from_the_log(kept: Venue, connect, restart) -> None:
    flow, stays = Flow(4, 2, 100_000, 1), await connect(kept)
    first = await stays.subscribe("trades", "BTC-USDT")
    await trade(kept, flow, 40)
    messages = await everything(kept, stays)
    chained(messages, first["seq"])
    every = [one for message in messages for one in message["trades"]]
    assert len({one["match"] for one in every}) == len(every) > 10
    if restart:
        await stays.close()
        await kept.restart()
    for cut in range(0, len(every), 7):
        peer = await connect(kept)
        await peer.ask(op="subscribe", channel="trades", symbol="BTC-USDT",
                       resume_from=every[cut]["seq"])
        await trade(kept, flow, 3)
        missed = await everything(kept, peer)
        chained(missed, every[cut]["seq"])
        got = [one for message in missed for one in message["trades"]]
        known = every[cut + 1:]
        assert got[:len(known)] == known
        every += got[len(known):]
        await peer.close()


@pytest.mark.parametrize("restart", [False, True])
async def test_orders_and_executions_are_resumed_from_the_log(kept: Venue, connect,
                                                              restart) -> None:
    flow, stays = Flow(5, 2, 100_000, 1), await connect(kept)
    for channel in ("orders", "executions"):
        await stays.subscribe(channel, "BTC-USDT")
    start = (await stays.ask(op="ping"))["seq"]
    await trade(kept, flow, 20)
    messages = await everything(kept, stays)
    if restart:
        await stays.close()
        await kept.restart()
    peer = await connect(kept)
    for channel in ("orders", "executions"):
        answer = await peer.ask(op="subscribe", channel=channel, resume_from=start)
        assert answer["symbols"] == ["AAPL", "BTC-USDT"]
    again = await everything(kept, peer)
    for channel in ("orders", "executions"):
        before = [one for one in messages if one["channel"] == channel]
        after = [one for one in again if one["channel"] == channel]
        assert len(before) > 5
        chained(after, start)
        assert [{**one, "prev_seq": 0} for one in after] == [
            {**one, "prev_seq": 0} for one in before]


async def test_l3_is_resumed_from_the_log(kept: Venue, connect) -> None:
    flow, stays = Flow(6, 2, 100_000, 1), await connect(kept)
    first = await stays.subscribe("book_l3", "BTC-USDT")
    await trade(kept, flow, 20)
    messages = await everything(kept, stays)
    chained(messages, first["seq"])
    await stays.close()
    await kept.restart()
    peer = await connect(kept)
    await peer.ask(op="subscribe", channel="book_l3", symbol="BTC-USDT",
                   resume_from=messages[3]["seq"])
    await trade(kept, flow, 5)
    again = await everything(kept, peer)
    chained(again, messages[3]["seq"])
    before = [event for message in messages[4:] for event in message["events"]]
    after = [event for message in again for event in message["events"]]
    assert after[:len(before)] == before
    assert len(after) > len(before)


async def test_a_resume_with_no_news_says_nothing_until_there_is_some(kept: Venue,
                                                                     connect) -> None:
    peer = await connect(kept)
    seq = (await peer.ask(op="ping"))["seq"]
    await peer.ask(op="subscribe", channel="trades", symbol="BTC-USDT", resume_from=seq - 20)
    await peer.nothing(0.1)
    kept.inside(lambda batch: batch.enter(4, 1, 2, "S", 5, 100_000))
    kept.inside(lambda batch: batch.enter(4, 2, 2, "B", 5, 100_000))
    update = await peer.get()
    assert (update["prev_seq"], len(update["trades"])) == (seq - 20, 1)


async def test_nothing_is_lost_while_the_past_is_read(kept: Venue, connect) -> None:
    flow, stays = Flow(7, 2, 100_000, 1), await connect(kept)
    start = (await stays.subscribe("trades", "BTC-USDT"))["seq"]
    await trade(kept, flow, 20)
    running = asyncio.create_task(trade(kept, flow, 60))
    peers = []
    for _ in range(5):
        peers.append(await connect(kept))
        await peers[-1].ask(op="subscribe", channel="trades", symbol="BTC-USDT",
                            resume_from=start)
        await asyncio.sleep(0.01)
    await running
    told = [one for message in await everything(kept, stays) for one in message["trades"]]
    for peer in peers:
        messages = await everything(kept, peer)
        chained(messages, start)
        assert [one for message in messages for one in message["trades"]] == told

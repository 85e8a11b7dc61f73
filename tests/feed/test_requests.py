"""Every request is answered; errors carry a code and a sentence."""

from __future__ import annotations

import json

import msgpack
import pytest

from tests.feed.peer import Peer
from tests.support.venue import Venue

pytestmark = pytest.mark.asyncio


async def refused(peer: Peer, **request: object) -> str:
    """The code of an error; its sentence is there."""
    answer = await peer.ask(**request)
    assert not answer["ok"]
    assert set(answer) == {"id", "ok", "code", "message"} and len(answer["message"]) > 5
    return str(answer["code"])


async def test_ping_list_subscribe_and_unsubscribe(venue: Venue, connect) -> None:
    peer = await connect(venue)
    assert set(await peer.ask(op="ping")) == {"id", "ok", "time", "seq"}
    assert (await peer.ask(op="list"))["subscriptions"] == []
    answer = await peer.ask(op="subscribe", channel="book", symbol="AAPL", depth=10)
    assert set(answer) == {"id", "ok", "channel", "symbols", "log", "seq"}
    await peer.ask(op="subscribe", channel="candles", symbol="AAPL")
    await peer.ask(op="subscribe", channel="candles", symbol="AAPL", interval="1h")
    assert (await peer.ask(op="list"))["subscriptions"] == [
        {"channel": "book", "symbol": "AAPL", "depth": 10},
        {"channel": "candles", "symbol": "AAPL", "interval": "1m"},
        {"channel": "candles", "symbol": "AAPL", "interval": "1h"}]
    # Subscribing twice replaces.
    await peer.ask(op="subscribe", channel="book", symbol="AAPL")
    assert len((await peer.ask(op="list"))["subscriptions"]) == 3
    assert (await peer.ask(op="unsubscribe", channel="candles", symbol="AAPL",
                           interval="1h"))["symbols"] == ["AAPL"]
    await peer.ask(op="unsubscribe", channel="book", symbol="*")
    assert (await peer.ask(op="list"))["subscriptions"] == [
        {"channel": "candles", "symbol": "AAPL", "interval": "1m"}]
    peer.messages.clear()
    venue.inside(lambda batch: batch.enter(1, 1, 1, "B", 1, 1_000_000))
    await peer.nothing(0.1)


@pytest.mark.parametrize(("code", "request_"), [
    ("unknown_op", {"op": "buy"}),
    ("bad_request", {"op": "subscribe"}),
    ("bad_request", {"op": "subscribe", "channel": "book"}),
    ("bad_request", {"op": "subscribe", "channel": "book", "symbol": 7}),
    ("bad_request", {"op": "subscribe", "channel": "book", "symbol": "AAPL", "depth": 0}),
    ("bad_request", {"op": "subscribe", "channel": "book", "symbol": "AAPL", "depth": 1001}),
    ("bad_request", {"op": "subscribe", "channel": "bbo", "symbol": "AAPL", "depth": 5}),
    ("bad_request", {"op": "subscribe", "channel": "book", "symbol": "AAPL", "depht": 5}),
    ("bad_request", {"op": "subscribe", "channel": "bbo", "symbol": "AAPL", "resume_from": -1}),
    ("bad_request", {"op": "subscribe", "channel": "book", "symbol": "AAPL", "interval": "1m"}),
    ("bad_request", {"op": "subscribe", "channel": "candles", "symbol": "AAPL",
                     "interval": "2m"}),
    ("bad_request", {"op": "ping", "channel": "book"}),
    ("bad_request", {"op": "auth"}),
    ("bad_request", {}),
    ("unknown_channel", {"op": "subscribe", "channel": "news", "symbol": "AAPL"}),
    ("unknown_channel", {"op": "unsubscribe", "channel": "news", "symbol": "AAPL"}),
    ("unknown_symbol", {"op": "subscribe", "channel": "book", "symbol": "MSFT"}),
    ("unknown_symbol", {"op": "subscribe", "channel": "book", "symbol": "*-EUR"}),
    ("not_subscribed", {"op": "unsubscribe", "channel": "book", "symbol": "AAPL"}),
    ("not_authenticated", {"op": "auth", "token": "nobody.nothing"}),
])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_what_is_wrong_is_answered(venue: Venue, connect, code, request_, encoding) -> None:
    peer = await connect(venue, encoding)
    assert await refused(peer, **request_) == code


async def test_what_is_no_request_is_answered_without_an_id(venue: Venue, connect) -> None:
    peer = await connect(venue)
    for text in ("", "{", "[1]", "null", '"ping"', "[" * 10_000, '{"op": "ping", "id": [1]}'):
        await peer.socket.send(text)
        answer = await peer.receive()
        assert (answer["id"], answer["ok"], answer["code"]) == (None, False, "bad_request")
    for data in (b"", b"\xc1", b"\x91" * 5_000, msgpack.packb([1]), msgpack.packb({1: 2})):
        await peer.socket.send(data)
        answer = await peer.receive()
        assert (answer["id"], answer["ok"], answer["code"]) == (None, False, "bad_request")
    assert (await peer.ask(op="ping"))["ok"]


async def test_a_text_is_json_and_the_rest_is_msgpack_whatever_is_sent_back(
        venue: Venue, connect) -> None:
    peer = await connect(venue, "msgpack")
    await peer.socket.send(json.dumps({"op": "ping", "id": "one"}))
    assert (await peer.receive())["id"] == "one"


async def test_patterns_are_of_symbols(venue: Venue, connect) -> None:
    peer = await connect(venue)
    for pattern, symbols in (("*", ["AAPL", "BTC-USDT"]), ("*-USDT", ["BTC-USDT"]),
                             ("?APL", ["AAPL"]), ("[AB]*", ["AAPL", "BTC-USDT"])):
        answer = await peer.ask(op="subscribe", channel="bbo", symbol=pattern)
        assert answer["symbols"] == symbols
        assert [(await peer.get())["symbol"] for _ in symbols] == symbols


async def test_too_many_subscriptions_are_refused(make_venue, connect) -> None:
    venue = await make_venue(feed__subscriptions_max=3)
    peer = await connect(venue)
    assert (await peer.ask(op="subscribe", channel="bbo", symbol="*"))["ok"]
    assert await refused(peer, op="subscribe", channel="book",
                         symbol="*") == "too_many_subscriptions"
    assert (await peer.ask(op="subscribe", channel="bbo", symbol="*"))["ok"]
    assert (await peer.ask(op="subscribe", channel="book", symbol="AAPL"))["ok"]


async def test_too_many_requests_are_refused(make_venue, connect) -> None:
    venue = await make_venue(feed__requests_per_second=5)
    peer = await connect(venue)
    codes = [(await peer.ask(op="ping")).get("code") for _ in range(12)]
    assert "rate_limited" in codes
    assert codes[0] is None


async def test_who_must_log_in_gets_nothing_before(make_venue, connect) -> None:
    venue = await make_venue(feed__require_login="true", feed__login_timeout_ms=300)
    peer = await connect(venue)
    assert await refused(peer, op="subscribe", channel="bbo",
                         symbol="AAPL") == "not_authenticated"
    assert (await peer.ask(op="ping"))["ok"]
    await peer.socket.wait_closed()
    assert (peer.socket.close_code, peer.socket.close_reason) == (1008, "no login in time")

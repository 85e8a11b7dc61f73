"""Market data over HTTP, against what was traded over OUCH."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Caller
from tests.support.wire import Wire, enter


@pytest.fixture(scope="module")
def traded(venue: Daemon) -> Daemon:
    """BTC-USDT: bids 60000.00 x 0.1 and 59999.50 x 0.3 (two orders), an offer 60010.00 x 0.5, and
    two trades at 60000.00."""

    async def trade() -> None:
        wire = await Wire.logged_in(venue.port, "MAKER1")
        orders = [("B", 200_000, 6_000_000), ("B", 100_000, 5_999_950), ("B", 200_000, 5_999_950),
                  ("S", 500_000, 6_001_000), ("S", 60_000, 6_000_000), ("S", 40_000, 6_000_000)]
        for number, (side, lots, units) in enumerate(orders, 1):
            wire.send(enter(number, side, lots, units, "BTC-USDT", "1"))
        letters = [await wire.packet() for _ in range(len(orders) + 4)]
        assert len(letters) == 10
        wire.writer.close()

    asyncio.run(trade())
    return venue


def test_the_book_shows_levels_best_first(traded: Daemon, call: Callable[..., Caller]) -> None:
    got = call()("GET", "/v1/book/BTC-USDT")
    assert got.status == 200
    assert got.json["bids"] == [["60000.00", "0.100000", 1], ["59999.50", "0.300000", 2]]
    assert got.json["asks"] == [["60010.00", "0.500000", 1]]
    text = "6001000:500000,6000000:100000,5999950:300000"
    assert got.json["crc"] == zlib.crc32(text.encode())
    assert got.json["symbol"] == "BTC-USDT"


def test_a_book_may_be_cut_to_a_depth(traded: Daemon, call: Callable[..., Caller]) -> None:
    whole = call()("GET", "/v1/book/BTC-USDT?depth=0").json
    one = call()("GET", "/v1/book/BTC-USDT?depth=1").json
    assert (one["bids"], one["asks"]) == (whole["bids"][:1], whole["asks"])
    assert one["crc"] == whole["crc"]


@pytest.mark.parametrize(("target", "status", "code"), [
    ("/v1/book/NOTHING", 404, "unknown_symbol"), ("/v1/book/", 404, "unknown_symbol"),
    ("/v1/book/BTC-USDT?depth=-1", 400, "bad_value"), ("/v1/book/BTC-USDT?depth=x", 400,
                                                      "bad_value"),
    ("/v1/book/BTC-USDT?deep=1", 400, "unknown_field"),
    ("/v1/book/BTC-USDT?depth=1&depth=2", 400, "bad_query"),
    ("/v1/candles", 400, "missing_field"), ("/v1/candles?symbol=X", 404, "unknown_symbol"),
    ("/v1/candles?symbol=BTC-USDT&interval=2m", 400, "bad_value"),
    ("/v1/candles?symbol=BTC-USDT&limit=0", 400, "bad_value"),
    ("/v1/candles?symbol=BTC-USDT&limit=1001", 400, "bad_value"),
    ("/v1/trades/NOTHING", 404, "unknown_symbol"),
    ("/v1/trades/BTC-USDT?limit=1.5", 400, "bad_value"),
    ("/v1/trades?symbol=NOTHING", 404, "unknown_symbol"),
    ("/v1/instruments?x=1", 400, "unknown_field"), ("/v1/book/%ff", 404, "unknown_symbol"),
    ("/v1/book/BTC-USDT?depth=%ff", 400, "bad_query"),
])
def test_wrong_questions_are_errors(traded: Daemon, call: Callable[..., Caller], target: str,
                                    status: int, code: str) -> None:
    got = call()("GET", target)
    assert (got.status, got.code) == (status, code)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_of_own_trades_miss_neither_side_of_a_self_trade(
        call: Callable[..., Caller], limit: int) -> None:
    taker = call("TAKER1")
    for side, quantity in (("sell", 2), ("buy", 1), ("buy", 1)):
        assert taker("POST", "/v1/orders", {"symbol": "SOL-USDT", "side": side, "price": "20",
                                            "quantity": quantity}).status == 201
    every = taker("GET", "/v1/trades?limit=1000").json["trades"]
    assert len(every) == 2 * len({one["match"] for one in every})
    got, before = [], 0
    while before is not None:
        page = taker("GET", f"/v1/trades?limit={limit}&before={before}").json
        assert len(page["trades"]) <= max(limit, 2)
        got += page["trades"]
        before = page["next"]
    assert got == every


def test_the_last_trades_are_newest_last(traded: Daemon, call: Callable[..., Caller]) -> None:
    got = call()("GET", "/v1/trades/BTC-USDT").json["trades"]
    assert [(one["price"], one["quantity"], one["side"]) for one in got] == [
        ("60000.00", "0.060000", "sell"), ("60000.00", "0.040000", "sell")]
    assert int(got[0]["match"]) < int(got[1]["match"])
    assert call()("GET", "/v1/trades/BTC-USDT?limit=1").json["trades"] == got[1:]


def test_own_fills_are_newest_first_and_only_ones_own(
        traded: Daemon, call: Callable[..., Caller]) -> None:
    call("MAKER1")("GET", "/v1/orders")
    assert call("MAKER2")("GET", "/v1/trades").json == {"trades": [], "next": None}


def test_candles_say_what_traded(traded: Daemon, call: Callable[..., Caller]) -> None:
    for interval in ("1s", "1m", "5m", "1h", "1d"):
        got = call()("GET", f"/v1/candles?symbol=BTC-USDT&interval={interval}").json
        volumes = [float(one["volume"]) for one in got["candles"]]
        assert sum(volumes) == pytest.approx(0.1)
        assert sum(one["trades"] for one in got["candles"]) == 2
        assert got["candles"][-1]["close"] == "60000.00"


def test_instruments_say_their_scales_and_state(traded: Daemon,
                                                call: Callable[..., Caller]) -> None:
    rows = {one["symbol"]: one for one in call()("GET", "/v1/instruments").json["instruments"]}
    btc = rows["BTC-USDT"]
    assert (btc["tick"], btc["lot"], btc["price_decimals"], btc["state"], btc["reason"]) == (
        "0.01", "0.000001", 2, "trading", "")


def test_head_is_answered_without_a_body(traded: Daemon, call: Callable[..., Caller]) -> None:
    got = call()("HEAD", "/v1/book/BTC-USDT")
    assert (got.status, got.body) == (200, b"")
    assert int(got.headers["content-length"]) > 0

"""Orders over the wire: what is accepted, matched and ended, and every reject with its reason."""

import pytest

from cython_core.soupbin import build_debug, build_packet, build_unsequenced
from tests.sessions.conftest import StartVenue
from tests.support.transports import BOTH, TCP, UDP, Transport, over
from tests.support.venue import Venue
from tests.support.wire import Wire, cancel, enter, message, replace

MARKET = 0x7FFFFFFF


@pytest.fixture(params=BOTH, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Everything here holds over TCP and over UDP, unless a test says for which."""
    return request.param


async def test_an_order_is_accepted_with_its_terms(maker: Wire) -> None:
    maker.send(enter(1, "B", 100, 1_000_000, client_order="mine"))
    accepted = await maker.message()
    assert (accepted["type"], accepted["user_ref_num"], accepted["side"]) == ("A", 1, "B")
    assert (accepted["symbol"], accepted["client_order"]) == ("AAPL", "mine")
    assert (accepted["quantity_lots"], accepted["price_units"]) == (100, 1_000_000)
    assert accepted["order_state"] == "L"


async def test_a_trade_tells_both_sides_the_same_match(maker: Wire, taker: Wire) -> None:
    maker.send(enter(1, "S", 100, 1_000_000))
    await maker.message()
    taker.send(enter(1, "B", 40, 1_010_000))
    accepted, bought = await taker.messages(2)
    sold = await maker.message()
    assert accepted["type"] == "A"
    assert (bought["type"], bought["quantity_lots"], bought["liquidity"]) == ("E", 40, "R")
    assert (sold["type"], sold["quantity_lots"], sold["liquidity"]) == ("E", 40, "A")
    assert bought["price_units"] == sold["price_units"] == 1_000_000
    assert bought["match_number"] == sold["match_number"]


async def test_a_trade_with_oneself_tells_the_taker_first(maker: Wire) -> None:
    maker.send(enter(1, "S"), enter(2, "B"))
    assert await maker.types(2) == "AA"
    first, second = await maker.messages(2)
    assert (first["user_ref_num"], first["liquidity"]) == (2, "R")
    assert (second["user_ref_num"], second["liquidity"]) == (1, "A")


@pytest.mark.parametrize(("order", "answers", "reason"), [
    (enter(1, tif="3"), "AC", "I"),
    (enter(1, tif="4"), "AC", "I"),
    (enter(1, price=MARKET, tif="3"), "AC", "I"),
    (enter(1, tif="3", min_quantity_lots=100), "AC", "I"),
], ids=["ioc", "fok", "market", "minimum"])
async def test_what_cannot_rest_is_accepted_and_canceled(maker: Wire, order: bytes, answers: str,
                                                         reason: str) -> None:
    maker.send(order)
    found = await maker.messages(len(answers))
    assert "".join(one["type"] for one in found) == answers
    assert found[-1]["reason"] == reason


async def test_post_only_that_would_trade_is_canceled_with_g(maker: Wire, taker: Wire) -> None:
    maker.send(enter(1, "S"))
    await maker.message()
    taker.send(enter(1, "B", post_only="P"))
    accepted, canceled = await taker.messages(2)
    assert (accepted["type"], canceled["type"], canceled["reason"]) == ("A", "C", "G")


async def test_a_cancel_reduces_or_ends_and_a_dead_order_is_silence(maker: Wire) -> None:
    maker.send(enter(1, quantity=100), cancel(1, 30), cancel(1, 50), cancel(1), cancel(1),
               cancel(9))
    assert await maker.types(1) == "A"
    first, second = await maker.messages(2)
    assert (first["quantity_lots"], first["reason"]) == (70, "U")
    assert (second["quantity_lots"], second["reason"]) == (30, "U")
    assert await maker.silent()


async def test_a_replace_takes_a_new_number_and_the_chain(maker: Wire, taker: Wire) -> None:
    maker.send(enter(1, "S", 500))
    taker.send(enter(1, "B", 100))
    await maker.messages(2)
    await taker.messages(2)
    maker.send(replace(1, 2, 600, 1_000_000))
    replaced = await maker.message()
    assert (replaced["type"], replaced["orig_user_ref_num"]) == ("U", 1)
    assert (replaced["user_ref_num"], replaced["quantity_lots"]) == (2, 500)


async def test_a_replace_with_wrong_terms_cancels_the_original(maker: Wire) -> None:
    maker.send(enter(1), replace(1, 2, 100, 1_000_001))
    assert await maker.types(1) == "A"
    canceled = await maker.message()
    assert (canceled["type"], canceled["user_ref_num"], canceled["reason"]) == ("C", 1, "U")
    maker.send(enter(2))
    assert (await maker.message())["user_ref_num"] == 2


async def test_modify_mass_cancel_and_the_switches_are_answered(maker: Wire) -> None:
    maker.send(enter(1, "S"), message("M", user_ref_num=1, side="T", quantity_lots=60),
               enter(2, "S"), message("C", user_ref_num=3, firm="", symbol="AAPL"),
               message("D", user_ref_num=4, firm=""), enter(5),
               message("E", user_ref_num=6, firm=""), enter(7), message("Q"))
    found = await maker.messages(11)
    assert "".join(one["type"] for one in found) == "AMAXCCGJKAQ"
    assert (found[1]["side"], found[1]["quantity_lots"]) == ("T", 60)
    assert found[7]["reject_reason"] == 0x000C
    assert found[10]["next_user_ref_num"] == 8


@over(TCP)
async def test_a_repeated_or_overtaken_number_is_ignored(maker: Wire) -> None:
    maker.send(enter(5), enter(5), enter(4), enter(6))
    assert [one["user_ref_num"] for one in await maker.messages(2)] == [5, 6]
    assert await maker.silent()


async def test_at_the_last_number_further_orders_are_rejected(maker: Wire,
                                                              transport: Transport) -> None:
    last = 2**32 - 1
    maker.send(enter(last), enter(last), enter(7))
    assert await maker.types(1) == "A"
    # Over UDP what was used a moment ago is a repeat, here too.
    rejected = [7] if transport is UDP else [last, 7]
    assert [(one["user_ref_num"], one["reject_reason"])
            for one in await maker.messages(len(rejected))] == [
        (number, 0x000F) for number in rejected]


@pytest.mark.parametrize(("order", "reason"), [
    (enter(1, side="X"), 0x0009), (enter(1, symbol="NOPE"), 0x0017),
    (enter(1, quantity=0), 0x0013), (enter(1, price=1_000_001), 0x001D),
    (enter(1, price=0), 0x001D), (enter(1, price=2_000_000_100), 0x001D),
    (enter(1, symbol="BTC-USDT", quantity=2**30), 0x0013),
    (enter(1, display="N"), 0x0003), (enter(1, max_floor_lots=10), 0x0004),
    (enter(1, price_type="M"), 0x0011), (enter(1, peg_offset_units=5), 0x0011),
    (enter(1, iso="Y"), 0x0008), (enter(1, cross_type="O"), 0x0014),
    (enter(1, route="ABCD"), 0x0016), (enter(1, aiq_strategy="1"), 0x0040),
    (enter(1, min_quantity_lots=10), 0x000D), (enter(1, tif="6", expire_time_s=60), 0x000F),
    (enter(1, tif="5"), 0x000F), (enter(1, stop_price_units=100), 0x000F),
], ids=["side", "symbol", "quantity 0", "tick", "price 0", "price too high", "quantity too much",
        "display", "max floor", "peg", "peg offset", "iso", "cross", "route", "aiq", "min quantity",
        "gtt", "tif", "stop"])
async def test_every_refused_value_has_its_reason(maker: Wire, order: bytes, reason: int) -> None:
    maker.send(order, enter(2))
    rejected, accepted = await maker.messages(2)
    assert (rejected["type"], rejected["user_ref_num"]) == ("J", 1)
    assert rejected["reject_reason"] == reason
    assert accepted["type"] == "A"


@pytest.mark.parametrize(("limits", "orders", "reason"), [
    ({"quantity_max_lots": 50}, [enter(1, quantity=51)], 0x0031),
    ({"notional_max": 1_000_000}, [enter(1, quantity=2)], 0x0030),
    ({"open_orders_max": 1}, [enter(1), enter(2)], 0x0020),
    ({"collar_bps": 100}, [enter(1), enter(2, price=1_200_000)], 0x0026),
    ({"messages_per_second": 2}, [enter(1), enter(2), enter(3)], 0x0029),
], ids=["quantity", "notional", "open orders", "collar", "rate"])
async def test_every_risk_limit_has_its_reason(start_venue: StartVenue, transport: Transport,
                                               limits: dict[str, object], orders: list[bytes],
                                               reason: int) -> None:
    venue = await start_venue(limits={"MAKER1": limits})
    wire = await transport.logged_in(venue, "MAKER1")
    wire.send(*orders)
    found = await wire.messages(len(orders))
    assert [one["type"] for one in found[:-1]] == ["A"] * (len(orders) - 1)
    assert (found[-1]["type"], found[-1]["reject_reason"]) == ("J", reason)


async def test_cancels_are_never_limited_and_the_rate_recovers(start_venue: StartVenue,
                                                               transport: Transport) -> None:
    venue = await start_venue(limits={"MAKER1": {"messages_per_second": 3}})
    wire = await transport.logged_in(venue, "MAKER1")
    wire.send(enter(1), enter(2), enter(3), enter(4), cancel(1), cancel(2), cancel(3))
    assert await wire.types(7) == "AAAJCCC"
    # A new connection does not get a new allowance.
    again = await transport.logged_in(venue, "MAKER1", sequence=0)
    again.send(enter(5))
    assert await again.types(1) == "J"
    seat = venue.app.registry.seat(1)
    assert seat.window.budget(2**62) == 3


@over(TCP)
@pytest.mark.parametrize("data", [
    build_packet("X"), build_packet("L", bytes(46)), build_packet("R", b"more"), b"\0\0\0",
    build_unsequenced(b"Z" + bytes(40)), build_unsequenced(b"O" + bytes(10)),
    build_unsequenced(b""), build_unsequenced(b"O" + bytes(44) + b"\x00\x09" + b"\xff" * 9),
    build_unsequenced(bytes(60_000)),
], ids=["packet type", "second login", "heartbeat with payload", "length 0", "message type",
        "message length", "empty", "appendage", "oversized"])
async def test_wrong_bytes_close_that_session_and_no_other(venue: Venue, maker: Wire, taker: Wire,
                                                           data: bytes) -> None:
    maker.send(enter(1), data, enter(2))
    while (await maker.packet())[0]:
        pass
    taker.send(enter(1))
    assert await taker.types(1) == "A"
    assert venue.app.metrics.snapshot()["wrong_bytes"] == 1
    # What came before the wrong bytes counts, and nothing after them.
    again = await Wire.logged_in(venue.port, "MAKER1")
    assert await again.types(1) == "A"
    assert await again.silent(0.02)


@over(TCP)
async def test_debug_packets_are_ignored_however_long(maker: Wire) -> None:
    maker.send(build_debug("x" * 60_000), enter(1), build_debug(""))
    assert await maker.types(1) == "A"


@over(TCP)
async def test_messages_may_be_cut_anywhere(maker: Wire) -> None:
    data = b"".join(enter(number) for number in range(1, 21))
    for start in range(0, len(data), 7):
        maker.send(data[start:start + 7])
        await maker.writer.drain()
    assert await maker.types(20) == "A" * 20


async def test_an_order_of_a_connection_that_closes_at_once_still_counts(
        venue: Venue, transport: Transport, maker: Wire) -> None:
    maker.send(enter(1))
    await maker.close()
    again = await transport.logged_in(venue, "MAKER1")
    assert (await again.message())["user_ref_num"] == 1

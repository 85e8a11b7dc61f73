"""Login: both rejects, both lengths, every padding, takeover and refusal, time-outs, limits."""

import asyncio

import pytest

from cython_core.soupbin import build_debug, build_login, build_packet
from tests.sessions.conftest import StartVenue
from tests.support.transports import Transport, over_both
from tests.support.venue import Venue
from tests.support.wire import Wire, enter


def padded_login(username: bytes, password: bytes, session: bytes, sequence: bytes,
                 timeout: bytes = b"") -> bytes:
    return build_packet("L", username + password + session + sequence + timeout)


@over_both
async def test_a_login_is_accepted_with_session_and_next_number(
        venue: Venue, transport: Transport) -> None:
    wire = await transport.open(venue)
    accepted = await wire.login("MAKER1")
    assert accepted == (venue.app.registry.session_id, 1)
    assert len(venue.app.registry.session_id) == 10
    await wire.close()


@over_both
async def test_the_acceptance_is_padded_on_the_left(venue: Venue, transport: Transport) -> None:
    wire = await transport.open(venue)
    wire.send(build_login("MAKER1", "demo"))
    kind, payload = await wire.packet()
    assert kind == "A"
    assert payload == venue.app.registry.session_id.rjust(10).encode() + b"1".rjust(20)
    await wire.close()


@over_both
@pytest.mark.parametrize(("username", "password"), [
    ("MAKER1", "wrong"), ("NOBODY", "demo"), ("", ""), ("MAKER1", ""), ("MAKER2", "demo1")])
async def test_a_wrong_user_or_password_is_answered_a_and_closed(
        venue: Venue, username: str, password: str, transport: Transport) -> None:
    wire = await transport.open(venue)
    assert await wire.login(username, password) == "A"
    assert await wire.closed()


@over_both
async def test_an_unknown_session_is_answered_s_and_closed(
        venue: Venue, transport: Transport) -> None:
    wire = await transport.open(venue)
    assert await wire.login("MAKER1", session="NOSUCHONE") == "S"
    assert await wire.closed()


@over_both
async def test_the_running_session_may_be_named(venue: Venue, transport: Transport) -> None:
    await transport.logged_in(venue, "MAKER1", session=venue.app.registry.session_id)


@over_both
async def test_a_number_beyond_the_next_is_answered_s(
        venue: Venue, maker: Wire, transport: Transport) -> None:
    maker.send(enter(1))
    await maker.message()
    wire = await transport.open(venue)
    assert await wire.login("MAKER1", sequence=3) == "S"
    assert await wire.closed()
    again = await transport.logged_in(venue, "MAKER1", sequence=2)
    assert again.next_number == 2


@over_both
async def test_a_read_only_account_may_not_enter_orders(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(limits={"MAKER2": {"role": "read-only"}})
    wire = await transport.open(venue)
    assert await wire.login("MAKER2") == "A"


@over_both
@pytest.mark.parametrize(("username", "password"), [
    ("maker1", "DEMO"), ("Maker1", "Demo"), ("MAKER1", "demo")])
async def test_case_does_not_matter(
        venue: Venue, username: str, password: str, transport: Transport) -> None:
    await transport.logged_in(venue, username, password)


@over_both
@pytest.mark.parametrize("fields", [
    (b"MAKER1", b"demo      ", b" " * 10, b"1".ljust(20)),
    (b"MAKER1", b"      demo", b" " * 10, b"1".rjust(20)),
    (b"MAKER1", b"demo" + bytes(6), bytes(10), b"1" + bytes(19)),
    (b"MAKER1", b"demo      ", b" " * 10, b"0" * 19 + b"1"),
    (b"MAKER1", b"demo      ", b" " * 10, b" " * 20),
    (b"MAKER1", b"demo      ", b" " * 10, b"1".ljust(20), b"30000"),
    (b"MAKER1", b"demo      ", b" " * 10, b"1".ljust(20), b" 5000"),
    (b"MAKER1", b"demo      ", b" " * 10, b"1".ljust(20), b"5000 "),
    (b"MAKER1", b"demo      ", b" " * 10, b"1".ljust(20), b"     "),
], ids=str)
async def test_every_padding_and_both_lengths_are_taken(
        venue: Venue, fields: tuple[bytes, ...], transport: Transport) -> None:
    wire = await transport.open(venue)
    wire.send(padded_login(*fields))
    assert (await wire.packet())[0] == "A"
    await wire.close()


async def test_a_login_may_come_byte_by_byte_and_after_debug_packets(venue: Venue) -> None:
    wire = await Wire.open(venue.port)
    for byte in build_debug("hello") + build_login("MAKER1", "demo"):
        wire.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await wire.packet())[0] == "A"
    await wire.close()


async def test_orders_may_follow_the_login_in_one_piece(venue: Venue) -> None:
    wire = await Wire.open(venue.port)
    wire.send(build_login("MAKER1", "demo"), enter(1), enter(2))
    assert (await wire.packet())[0] == "A"
    assert await wire.types(2) == "AA"
    await wire.close()


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), b"\xff" * 100, enter(1),
    build_packet("L", b"short"), build_packet("O"), padded_login(
        b"MAKER1", b"demo      ", b" " * 10, b"one".ljust(20)),
], ids=["http", "zeros", "ones", "order", "short login", "logout", "number"])
async def test_a_first_packet_that_is_no_login_closes_the_connection(venue: Venue,
                                                                     data: bytes) -> None:
    wire = await Wire.open(venue.port)
    wire.send(data)
    assert await wire.closed()
    assert venue.app.metrics.snapshot()["wrong_bytes"] == 1


async def test_a_connection_without_a_login_is_closed_in_time(start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__login_timeout_ms=100, order_entry__heartbeat_ms=50)
    wire = await Wire.open(venue.port)
    wire.send(build_debug("still here"))
    assert await wire.closed()


@over_both
async def test_a_second_login_takes_over(venue: Venue, maker: Wire, transport: Transport) -> None:
    maker.send(enter(1))
    await maker.message()
    again = await transport.logged_in(venue, "MAKER1", sequence=2)
    assert await maker.closed()
    again.send(enter(2))
    assert (await again.message())["user_ref_num"] == 2
    assert venue.app.metrics.snapshot()["takeovers"] == 1
    assert venue.app.registry.live_count() == 1


@over_both
async def test_a_second_login_is_refused_where_that_is_configured(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(order_entry__second_login="refuse")
    first = await transport.logged_in(venue, "MAKER1")
    second = await transport.open(venue)
    assert await second.login("MAKER1") == "S"
    first.send(enter(1))
    assert (await first.message())["type"] == "A"
    first.logout()
    assert await first.closed()
    await transport.logged_in(venue, "MAKER1")


@over_both
async def test_a_wrong_password_does_not_take_over(
        venue: Venue, maker: Wire, transport: Transport) -> None:
    wire = await transport.open(venue)
    assert await wire.login("MAKER1", "guess") == "A"
    maker.send(enter(1))
    assert (await maker.message())["type"] == "A"


@over_both
async def test_many_logins_at_once_are_all_answered(venue: Venue, transport: Transport) -> None:
    wires = await asyncio.gather(*(transport.open(venue) for _ in range(40)))
    answers = await asyncio.gather(*(wire.login("TAKER2", "wrong") for wire in wires))
    assert answers == ["A"] * 40

"""Heartbeats both ways, time-outs, logout."""

import asyncio

from tests.sessions.conftest import StartVenue
from tests.support.transports import Transport, over_both
from tests.support.venue import Venue
from tests.support.wire import enter


@over_both
async def test_the_server_sends_heartbeats_when_it_sends_nothing_else(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(order_entry__heartbeat_ms=40)
    wire = await transport.logged_in(venue, "MAKER1")
    while wire.heartbeats < 3:
        await wire.silent(0.05)


@over_both
async def test_what_is_sent_stands_for_a_heartbeat(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(order_entry__heartbeat_ms=60_000, order_entry__timeout_ms=120_000)
    wire = await transport.logged_in(venue, "MAKER1")
    wire.send(enter(1))
    await wire.message()
    assert await wire.silent()
    assert wire.heartbeats == 0


@over_both
async def test_a_silent_client_is_cut(start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(order_entry__heartbeat_ms=40, order_entry__timeout_ms=120)
    wire = await transport.logged_in(venue, "MAKER1")
    assert await wire.closed()
    assert venue.app.registry.live_count() == 0


@over_both
async def test_heartbeats_keep_a_client_alive(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(order_entry__heartbeat_ms=40, order_entry__timeout_ms=400)
    wire = await transport.logged_in(venue, "MAKER1")
    for _ in range(12):
        wire.heartbeat()
        assert await wire.silent(0.05)
    wire.send(enter(1))
    assert await wire.types(1) == "A"


@over_both
async def test_a_client_of_4_10_names_its_own_time_out(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(order_entry__heartbeat_ms=40, order_entry__timeout_ms=120)
    patient = await transport.logged_in(venue, "MAKER1", heartbeat_timeout_ms=60_000)
    assert await patient.silent(0.4)
    # What is asked for is bounded below, by a second.
    hasty = await transport.logged_in(venue, "MAKER2", heartbeat_timeout_ms=1)
    assert await hasty.silent(0.3)
    assert await hasty.closed()


@over_both
async def test_a_logout_closes_the_connection_and_the_session_lives_on(
        venue: Venue, transport: Transport) -> None:
    wire = await transport.logged_in(venue, "MAKER1")
    wire.send(enter(1))
    await wire.message()
    wire.logout()
    assert await wire.closed()
    again = await transport.logged_in(venue, "MAKER1", session=wire.session, sequence=2)
    again.send(enter(2))
    assert (await again.message())["user_ref_num"] == 2


@over_both
async def test_orders_before_a_logout_are_taken_and_after_it_are_not(
        venue: Venue, transport: Transport) -> None:
    wire = await transport.logged_in(venue, "MAKER1")
    wire.send(enter(1))
    wire.logout()
    wire.send(enter(2))
    await asyncio.sleep(0.1)
    again = await transport.logged_in(venue, "MAKER1")
    assert (await again.message())["user_ref_num"] == 1
    assert await again.silent()

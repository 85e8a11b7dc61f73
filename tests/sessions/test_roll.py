"""The session roll: Day orders end, Z, a new session from 1, GTC orders announced."""

import asyncio

import pytest

from engine import clock, control
from engine.trading.timers import roll_missed
from tests.sessions.conftest import StartVenue
from tests.support.transports import UDP, Transport, over, over_both
from tests.support.venue import Venue
from tests.support.wire import Wire, cancel, enter, message


async def roll(venue: Venue) -> dict[str, object]:
    """Roll as `matchd session roll` does."""
    return await asyncio.to_thread(control.request, venue.data_dir, "roll")


@over_both
async def test_a_roll_ends_day_orders_and_the_session(
        venue: Venue, maker: Wire, taker: Wire, transport: Transport) -> None:
    maker.send(enter(1), enter(2, tif="1"))
    await maker.messages(2)
    old = venue.app.registry.session_id
    answer = await roll(venue)
    assert answer == {"generation": 2, "session": venue.app.registry.session_id}
    ended = await maker.message()
    assert (ended["type"], ended["user_ref_num"], ended["reason"]) == ("C", 1, "E")
    for wire in (maker, taker):
        assert (await wire.packet())[0] == "Z"
        assert await wire.closed()
    assert venue.app.registry.session_id != old
    wire = await transport.open(venue)
    assert await wire.login("MAKER1", session=old) == "S"


@over_both
async def test_good_till_cancel_orders_are_announced_with_new_numbers(
        venue: Venue, maker: Wire, transport: Transport) -> None:
    maker.send(enter(7, tif="1"), enter(8), enter(9, tif="1", client_order="keep"))
    first, _, last = await maker.messages(3)
    await roll(venue)
    again = await transport.logged_in(venue, "MAKER1")
    announced = await again.messages(2)
    assert [one["type"] for one in announced] == ["A", "A"]
    assert [one["user_ref_num"] for one in announced] == [1, 2]
    assert [one["order_id"] for one in announced] == [first["order_id"], last["order_id"]]
    assert announced[1]["client_order"] == "keep"
    again.send(cancel(1), enter(2), enter(3))
    assert await again.types(2) == "CA"


@over_both
async def test_the_new_session_survives_a_restart(
        venue: Venue, maker: Wire, transport: Transport) -> None:
    maker.send(enter(1, tif="1"))
    await maker.messages(1)
    await roll(venue)
    session = venue.app.registry.session_id
    await venue.restart()
    assert venue.app.registry.session_id == session
    assert venue.app.registry.generation == 2
    again = await transport.logged_in(venue, "MAKER1", session=session)
    assert await again.types(1) == "A"


@over_both
async def test_sessions_may_roll_again_and_again(venue: Venue, transport: Transport) -> None:
    for generation in range(2, 6):
        wire = await transport.logged_in(venue, "MAKER1")
        wire.send(enter(1))
        await wire.messages(1)
        assert (await roll(venue))["generation"] == generation
        assert await wire.types(1) == "C"


@over_both
async def test_orders_of_the_old_session_that_come_too_late_are_ignored(
        venue: Venue, maker: Wire, transport: Transport) -> None:
    venue.inside(lambda batch: batch.session_roll())
    maker.send(enter(1))
    assert (await maker.packet())[0] == "Z"
    again = await transport.logged_in(venue, "MAKER1")
    assert await again.silent(0.05)
    again.send(enter(1))
    assert await again.types(1) == "A"


@over(UDP)
async def test_a_late_datagram_of_the_old_session_is_not_done_in_the_next(
        venue: Venue, maker: Wire, transport: Transport) -> None:
    await roll(venue)
    assert (await maker.packet())[0] == "Z"
    again = await transport.logged_in(venue, "MAKER1")
    maker.send(enter(1), enter(2))
    assert await again.silent()
    again.send(message("Q"))
    assert (await again.message())["next_user_ref_num"] == 1


@over_both
async def test_a_session_rolls_at_its_time_of_day(
        start_venue: StartVenue, transport: Transport) -> None:
    # On a busy machine a venue and a login may take longer than the time that is left.
    for ahead_s in (2, 10, 40):
        roll_s = clock.now_ns() // clock.NS_PER_S + ahead_s
        second = roll_s % 86_400
        at = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        venue = await start_venue(order_entry__session_roll_at=at)
        wire = await transport.logged_in(venue, "MAKER1")
        if clock.now_ns() < roll_s * clock.NS_PER_S:
            break
    assert (await wire.packet())[0] == "Z"
    assert venue.app.registry.generation == 2


DAY = clock.NS_PER_DAY
NOON = 12 * 3600


@pytest.mark.parametrize(("last_ns", "now_ns", "missed"), [
    (0, DAY, False),
    (DAY + 1, DAY + 2, False),
    (DAY + 1, DAY + NOON * clock.NS_PER_S, True),
    (DAY + NOON * clock.NS_PER_S, DAY + NOON * clock.NS_PER_S + 5, False),
    (DAY + NOON * clock.NS_PER_S + 1, 2 * DAY, False),
    (DAY + NOON * clock.NS_PER_S + 1, 3 * DAY, True),
])
def test_a_roll_is_missed_when_the_log_ends_before_it(last_ns: int, now_ns: int,
                                                      missed: bool) -> None:
    assert roll_missed(NOON, last_ns, now_ns) is missed
    assert roll_missed(None, last_ns, now_ns) is False

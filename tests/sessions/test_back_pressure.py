"""Full queues: the door stops reading, nothing is lost, and what is born inside comes first."""

import asyncio

import pytest

from tests.sessions.conftest import StartVenue
from tests.support.transports import Transport, over_both
from tests.support.venue import Venue
from tests.support.wire import Wire, enter

ORDERS = 2_000
NAMES = ("MAKER1", "MAKER2", "TAKER1", "TAKER2")


async def beat(wire: Wire) -> None:
    """Heartbeats for ever, whatever else is to be done."""
    while True:
        wire.heartbeat()
        await asyncio.sleep(0.02)


async def send_and_count(venue: Venue, transport: Transport, name: str) -> list[int]:
    """Send everything at once, then read what is answered."""
    wire = await transport.logged_in(venue, name)
    heart = asyncio.create_task(beat(wire))
    wire.send(*(enter(number, "B", 1, 10_000) for number in range(1, ORDERS + 1)))
    found = [one["user_ref_num"] for one in await wire.messages(ORDERS)]
    heart.cancel()
    return found


@over_both
@pytest.mark.parametrize("sync", ["commit", "interval", "off"])
async def test_with_queues_of_one_unit_every_order_is_answered_in_order(
        start_venue: StartVenue, sync: str, transport: Transport) -> None:
    venue = await start_venue(journal__sync=sync, queues__commands_units=1,
                              queues__events_units=1, queues__reports_units=1,
                              order_entry__receive_buffer_bytes=4_096)
    found = await asyncio.gather(*(send_and_count(venue, transport, name) for name in NAMES))
    assert found == [[*range(1, ORDERS + 1)]] * len(NAMES)
    assert venue.app.metrics.snapshot()["queue_units{queue=commands}"] == 0


@over_both
async def test_a_roll_does_not_stand_behind_a_crowd_at_the_door(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(queues__commands_units=1)
    wires = [await transport.logged_in(venue, name) for name in NAMES]
    for wire in wires:
        wire.send(*(enter(number, "B", 1, 10_000) for number in range(1, ORDERS + 1)))
    await wires[0].message()
    venue.inside(lambda batch: batch.session_roll())
    for wire in wires:
        while (packet := await wire.packet())[0] == "S":
            pass
        assert packet[0] == "Z"
    again = await transport.logged_in(venue, "MAKER1", sequence=0)
    assert again.next_number == 1


@over_both
async def test_a_connection_that_is_held_back_is_not_called_silent(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(queues__commands_units=1, order_entry__heartbeat_ms=20,
                              order_entry__timeout_ms=150)
    found = await asyncio.gather(*(send_and_count(venue, transport, name) for name in NAMES))
    assert all(len(every) == ORDERS for every in found)

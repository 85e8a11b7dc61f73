"""Replay: from every number, also after a restart, in slices, joined live without a hole."""

import asyncio

import pytest

from cython_core.soupbin import build_sequenced
from engine.intake.replay import first_packets
from tests.sessions.conftest import StartVenue
from tests.support.transports import Transport, over_both
from tests.support.venue import Venue
from tests.support.wire import Wire, cancel, enter


async def trade_a_little(venue: Venue, transport: Transport) -> list[bytes]:
    """Some messages of many kinds for MAKER1; returns their bytes."""
    maker = await transport.logged_in(venue, "MAKER1")
    taker = await transport.logged_in(venue, "TAKER1")
    maker.send(enter(1, "S", 100), enter(2, "S", 50, 1_010_000), enter(3, symbol="NOPE"))
    await maker.messages(3)
    taker.send(enter(1, "B", 120, 1_010_000), enter(2, "B", 10, 900_000))
    await taker.messages(4)
    maker.send(cancel(2, 30), enter(4, "B", 5, 800_000, tif="3"))
    await maker.messages(5)
    await maker.close()
    await taker.close()
    return maker.raw


async def read_from(venue: Venue, transport: Transport, number: int, count: int) -> list[bytes]:
    wire = await transport.logged_in(venue, "MAKER1", sequence=number)
    assert wire.next_number == (number or 9)
    await wire.messages(count)
    assert await wire.silent(0.02)
    await wire.close()
    return wire.raw


@over_both
async def test_every_number_replays_the_same_bytes(venue: Venue, transport: Transport) -> None:
    sent = await trade_a_little(venue, transport)
    assert len(sent) == 8
    for number in range(1, 10):
        assert await read_from(venue, transport, number, 9 - number) == sent[number - 1:]
    assert await read_from(venue, transport, 0, 0) == []


@over_both
async def test_every_number_replays_the_same_bytes_after_a_restart(
        venue: Venue, transport: Transport) -> None:
    sent = await trade_a_little(venue, transport)
    session = venue.app.registry.session_id
    await venue.restart()
    assert venue.app.registry.session_id == session
    for number in range(1, 10):
        assert await read_from(venue, transport, number, 9 - number) == sent[number - 1:]


@over_both
async def test_a_stream_goes_on_after_a_restart(venue: Venue, transport: Transport) -> None:
    sent = await trade_a_little(venue, transport)
    await venue.restart()
    maker = await transport.logged_in(venue, "MAKER1", sequence=7)
    assert (await maker.message(), maker.raw)[1] == sent[6:7]
    await maker.message()
    maker.send(enter(4), enter(5))
    assert (await maker.message())["user_ref_num"] == 5
    assert maker.next_number == 10


@over_both
async def test_the_shutdown_closes_without_end_of_session(venue: Venue, maker: Wire) -> None:
    maker.send(enter(1))
    await maker.message()
    await venue.stop()
    assert await maker.closed()


@over_both
async def test_without_a_journal_sessions_resume_from_memory(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(journal__sync="off")
    sent = await trade_a_little(venue, transport)
    for number in range(1, 10):
        assert await read_from(venue, transport, number, 9 - number) == sent[number - 1:]


@over_both
async def test_without_a_journal_what_is_kept_no_more_is_answered_s(
        start_venue: StartVenue, transport: Transport) -> None:
    venue = await start_venue(journal__sync="off", journal__memory_max_bytes=4_096)
    maker = await transport.logged_in(venue, "MAKER1")
    for number in range(1, 401):
        maker.send(enter(number))
    await maker.messages(400)
    await maker.close()
    wire = await transport.open(venue)
    assert await wire.login("MAKER1", sequence=1) == "S"
    late = await transport.logged_in(venue, "MAKER1", sequence=400)
    assert (await late.message())["user_ref_num"] == 400


@over_both
@pytest.mark.parametrize("sync", ["commit", "interval", "off"])
async def test_a_long_replay_joins_a_busy_stream_without_hole_or_repeat(
        start_venue: StartVenue, sync: str, transport: Transport) -> None:
    venue = await start_venue(journal__sync=sync, order_entry__replay_slice_bytes=4_096)
    maker = await transport.logged_in(venue, "MAKER1")
    maker.send(*(enter(number, "S", 1) for number in range(1, 1_001)))
    await maker.messages(1_000)
    await maker.close()
    taker = await transport.logged_in(venue, "TAKER1")

    async def keep_trading() -> None:
        for number in range(1, 201):
            taker.send(enter(number, "B", 1))
            await taker.messages(2)

    trading = asyncio.create_task(keep_trading())
    for number in (1, 500, 0):
        maker = await transport.logged_in(venue, "MAKER1", sequence=number)
        await asyncio.sleep(0.02)
    await trading
    again = await transport.logged_in(venue, "MAKER1", sequence=1)
    everything = await again.messages(1_200)
    assert [one["user_ref_num"] for one in everything] == [*range(1, 1_001), *range(1, 201)]


@over_both
async def test_each_of_several_replays_at_once_is_whole(venue: Venue, transport: Transport) -> None:
    names = ("MAKER1", "MAKER2", "TAKER2")
    for name in names:
        wire = await transport.logged_in(venue, name)
        wire.send(*(enter(number, "B", 1) for number in range(1, 301)))
        await wire.messages(300)
        await wire.close()
    wires = await asyncio.gather(*(transport.logged_in(venue, name) for name in names))
    found = await asyncio.gather(*(wire.messages(300) for wire in wires))
    assert all([one["user_ref_num"] for one in every] == [*range(1, 301)] for every in found)


def test_packets_are_cut_by_count() -> None:
    data = b"".join(build_sequenced(bytes(length)) for length in (5, 300, 0))
    assert first_packets(data, 0) == b""
    assert first_packets(data, 2) == data[:-3]
    assert first_packets(data, 3) == data

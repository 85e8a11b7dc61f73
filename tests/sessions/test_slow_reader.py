"""A client that stops reading is cut at a stated limit, and resumes where it stopped."""

import asyncio
import socket

from cython_core.soupbin import build_login
from tests.sessions.conftest import StartVenue
from tests.support.wire import Wire, enter

ORDERS = 60_000


async def test_a_client_that_stops_reading_is_cut_and_resumes(start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__unsent_max_bytes=100_000)
    loop = asyncio.get_running_loop()
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    stuck.setblocking(False)
    await loop.sock_connect(stuck, ("127.0.0.1", venue.port))
    await loop.sock_sendall(stuck, build_login("MAKER1", "demo"))
    sent = 0
    while not venue.app.metrics.snapshot()["slow_readers"] and sent < ORDERS:
        try:
            await loop.sock_sendall(
                stuck, b"".join(enter(sent + extra, "B", 1, 10_000) for extra in range(1, 501)))
        except ConnectionError:
            break
        sent += 500
        await asyncio.sleep(0)
    assert venue.app.metrics.snapshot()["slow_readers"] == 1
    stuck.close()
    again = await Wire.logged_in(venue.port, "MAKER1")
    first = await again.messages(1_000)
    assert [one["user_ref_num"] for one in first] == [*range(1, 1_001)]


async def test_a_client_that_does_not_read_its_replay_costs_a_bounded_memory(
        start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__unsent_max_bytes=10_000)
    wire = await Wire.logged_in(venue.port, "MAKER1")
    for start in range(1, 20_001, 1_000):
        wire.send(*(enter(number, "B", 1, 10_000) for number in range(start, start + 1_000)))
        await wire.messages(1_000)
    await wire.close()
    # More than the limit is replayed to a client that reads, and it is not cut.
    again = await Wire.logged_in(venue.port, "MAKER1")
    everything = await again.messages(20_000)
    assert everything[-1]["user_ref_num"] == 20_000
    assert venue.app.metrics.snapshot()["slow_readers"] == 0

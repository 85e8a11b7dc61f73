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
    # The kernel's buffers hold some MB of answers before any byte waits in the venue.
    while not venue.app.metrics.snapshot()["slow_readers"] and sent < 10 * ORDERS:
        try:
            await loop.sock_sendall(
                stuck, b"".join(enter(sent + extra, "B", 1, 10_000) for extra in range(1, 501)))
        except ConnectionError:
            break
        sent += 500
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while not venue.app.metrics.snapshot()["slow_readers"]:
            await asyncio.sleep(0.01)
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


async def test_a_client_that_reads_its_replay_slowly_goes_live_without_being_cut(
        start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__unsent_max_bytes=50_000, order_entry__heartbeat_ms=20)
    wire = await Wire.logged_in(venue.port, "MAKER1")
    for start in range(1, ORDERS, 500):
        wire.send(*(enter(number, "B", 1, 10_000) for number in range(start, start + 500)))
        await wire.messages(500)
    await wire.close()
    loop = asyncio.get_running_loop()
    with socket.socket() as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        late.setblocking(False)
        await loop.sock_connect(late, ("127.0.0.1", venue.port))
        await loop.sock_sendall(late, build_login("MAKER1", "demo", sequence=1))
        received = bytearray()
        while received.count(b"\x00\x41S") < ORDERS:
            # Each read waits, so the venue is always ahead with what it may leave unsent, and
            # comes to write a heartbeat behind it.
            await asyncio.sleep(0.001)
            data = await loop.sock_recv(late, 65_536)
            assert data, "cut in the middle of the replay"
            received += data
    assert venue.app.metrics.snapshot()["slow_readers"] == 0

"""What strangers can hold is bounded, and a full door lets a newcomer in: the HTTP gateway, the
feed, the log. (Order entry: tests/sessions/test_throttle.py.)"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest
import structlog

from engine import log
from engine.api import protocol
from engine.api.limits import ADDRESSES_MAX, Addresses
from engine.feed import server as feed_server
from tests.feed.raw import Raw, frame
from tests.sessions.conftest import StartVenue
from tests.support.venue import Venue

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Http:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, venue: Venue) -> Http:
        return cls(*await asyncio.open_connection("127.0.0.1", venue.app.ports["api"]))

    async def ask(self, request: bytes = GET) -> int:
        """Send a request; returns the status."""
        self.writer.write(request)
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)
        size = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        await self.reader.readexactly(int(size))
        return int(head.split(b" ")[1])

    async def ended(self) -> bool:
        """Wait until the venue has ended the connection."""
        try:
            while await asyncio.wait_for(self.reader.read(65_536), 30):
                pass
        except ConnectionError:
            pass
        return True


async def until(wanted: Any) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(30):
        while not wanted():
            await asyncio.sleep(0.01)


async def test_http_strangers_go_before_those_at_rest(start_venue: StartVenue) -> None:
    venue = await start_venue(api__connections_max=3)
    resting = await Http.open(venue)
    assert await resting.ask() == 200
    silent, half = await Http.open(venue), await Http.open(venue)
    half.writer.write(GET[:20])
    newcomer = await Http.open(venue)
    assert await newcomer.ask() == 200
    assert await silent.ended()
    # A request that is half here is no reason to stay either.
    another = await Http.open(venue)
    assert await another.ask() == 200
    assert await half.ended()
    # Now who rests longest.
    last = await Http.open(venue)
    assert await last.ask() == 200
    assert await resting.ended()
    assert await newcomer.ask() == 200 and await another.ask() == 200


async def test_http_requests_under_way_stay_and_the_newcomer_is_told(
        start_venue: StartVenue) -> None:
    venue = await start_venue(api__connections_max=2)
    going = asyncio.Event()
    bound = next(one for one in venue.app.gateway.table if one.route.path == "/v1/account")
    handler = bound.route.handler

    async def slow(call: Any) -> Any:
        await going.wait()
        return await handler(call)

    bound.route = msgspec.structs.replace(bound.route, handler=slow)
    busy = [await Http.open(venue) for _ in range(2)]
    asked = [asyncio.create_task(one.ask(GET.replace(b"/health/live", b"/v1/account")))
             for one in busy]
    server = venue.app.http
    assert server is not None
    await until(lambda: server.connection_count == 2)
    await asyncio.sleep(0.1)
    assert await (await Http.open(venue)).ask() == 503
    going.set()
    assert await asyncio.gather(*asked) == [200, 200]


async def test_http_who_does_not_read_goes_last(start_venue: StartVenue) -> None:
    venue = await start_venue(api__connections_max=1)
    deaf = await Http.open(venue)
    deaf.writer.transport.pause_reading()
    deaf.writer.write(GET.replace(b"/health/live", b"/openapi.json") * 500)

    def stalled() -> bool:
        server: Any = venue.app.http
        return any(one.stalled_ns for one in server._server.server_state.connections)

    await until(stalled)
    assert await (await Http.open(venue)).ask() == 200


async def test_http_large_bodies_that_never_end_are_bounded(
        start_venue: StartVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODIES_BYTES_MAX", 150_000)
    venue = await start_venue()
    head = (b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n")
    pinned = [await Http.open(venue) for _ in range(4)]
    for one in pinned:
        one.writer.write(head % 200_000 + b" " * 60_000)
    # The third was one too many, the others are held.
    refused = [asyncio.create_task(one.reader.readuntil(b"\r\n\r\n")) for one in pinned]
    done, _ = await asyncio.wait(refused, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert all(task.result().startswith(b"HTTP/1.1 503") for task in done)
    # Orders are small, and always taken.
    order = json.dumps({"symbol": "AAPL", "side": "buy", "quantity": "1",
                        "price": "1.00"}).encode()
    assert await (await Http.open(venue)).ask(head % len(order) + order) in (200, 201)
    for one in pinned:
        one.writer.close()
    server: Any = venue.app.http
    await until(lambda: server.connection_count <= 1)
    for task in refused:
        task.cancel()
    await asyncio.gather(*refused, return_exceptions=True)
    one = await Http.open(venue)
    assert await one.ask(head % 100_000 + b" " * 100_000) == 400


async def test_feed_who_never_asks_goes_first(
        start_venue: StartVenue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_server, "BESIDE_MAX", 3)
    venue = await start_venue(feed__clients_max=2)
    port = venue.app.ports["feed"]
    silent = [await Raw.connect(port) for _ in range(5)]
    await until(lambda: len(venue.app.feed_server.openings) == 5)
    clients = [await Raw.upgraded(port) for _ in range(2)]
    assert await ended(silent[0]) and await ended(silent[1])
    for client in clients:
        await client.send(frame(b'{"op":"ping"}'))
        assert await client.until(b'"ok":true')
    for _ in range(30):
        silent.append(await Raw.connect(port))
    await until(lambda: len(venue.app.feed_server.openings) <= 3)
    assert len(venue.app.feed.connected) == 2


async def ended(raw: Raw) -> bool:
    loop = asyncio.get_running_loop()
    try:
        return await asyncio.wait_for(loop.sock_recv(raw.socket, 10), 30) == b""
    except ConnectionError:
        return True


async def test_feed_who_does_not_log_in_makes_room(start_venue: StartVenue) -> None:
    venue = await start_venue(feed__clients_max=2, feed__require_login=True)
    feed, port = venue.app.feed, venue.app.ports["feed"]

    class Who:
        account_id, username = 1, "MAKER1"

    feed.authenticate = lambda token, host: Who() if token == "right" else None
    inside, stranger = await Raw.upgraded(port), await Raw.upgraded(port)
    await inside.send(frame(b'{"op":"auth","token":"right"}'))
    await inside.until(b'"MAKER1"')
    newcomer = await Raw.upgraded(port)
    assert (await stranger.closed())[0] == 1013
    await newcomer.send(frame(b'{"op":"auth","token":"right"}'))
    await newcomer.until(b'"MAKER1"')
    # All are logged in: the next one is refused.
    with pytest.raises(AssertionError, match="503"):
        await Raw.upgraded(port)
    await inside.send(frame(b'{"op":"ping"}'))
    await inside.until(b'"ok":true')


async def test_feed_wrong_tokens_end_the_connection_and_are_logged(
        start_venue: StartVenue, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    venue = await start_venue()
    raw = await Raw.upgraded(venue.app.ports["feed"])
    for number in range(5):
        await raw.send(frame(b'{"op":"auth","token":"abcdef.0123%d"}' % number))
    code, reason = await raw.closed()
    assert (code, reason) == (1008, "too many wrong tokens")
    assert venue.app.metrics.snapshot()["feed_failed_logins"] == 5
    said = capsys.readouterr().err
    assert '"credentials refused"' in said and "0123" not in said


# -- tables that strangers fill --------------------------------------------------------------------

def test_log_lines_of_many_addresses_are_limited_together() -> None:
    limiter = log.RepeatLimiter()
    passed = 0
    for number in range(25_000):
        try:
            event = limiter(None, "info", {"event": "credentials refused", "key": number})
        except structlog.DropEvent:
            continue
        passed += 1
        assert "key" not in event
    assert passed == log.LINES_MAX
    # What we warn about is never drowned by it.
    assert limiter(None, "warning", {"event": "credentials refused", "key": "x"})
    assert limiter(None, "info", {"event": "another", "key": "x"})


def test_requests_are_counted_by_network() -> None:
    addresses = Addresses(5)
    first = addresses.window("2001:db8::1")
    assert addresses.window("2001:db8::2") is first
    assert addresses.window("2001:db8:0:1::1") is not first
    assert addresses.window("::ffff:10.0.0.1") is addresses.window("10.0.0.1")
    for number in range(3 * ADDRESSES_MAX):
        addresses.window(str(number))
        assert len(addresses._windows) <= ADDRESSES_MAX


async def test_a_stranger_has_little_room_to_write_into(start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__receive_buffer_bytes=2**20)
    reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
    connection = next(iter(venue.app.door._connections))
    assert len(connection.get_buffer(-1)) <= 4_096
    # A packet larger than any first one is refused by its head alone.
    writer.write(struct.pack(">H", 60_000) + b"L" + b" " * 100_000)
    done: Awaitable[bytes] = reader.read()
    try:
        assert await asyncio.wait_for(done, 30) == b""
    except ConnectionError:
        pass
    assert venue.app.metrics.snapshot()["wrong_bytes"] == 1

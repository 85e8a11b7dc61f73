"""The feed's port: WebSocket handshakes, and plain GET of the daemon's numbers.

A connection starts as HTTP. A GET that asks for an upgrade becomes a WebSocket in picows' hands,
any other is answered here, and the connection may ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from engine.config import is_loopback
from engine.errors import EngineError
from engine.feed.client import LINGER_S, Client
from engine.feed.encode import ENCODINGS
from engine.feed.stage import Feed
from engine.listen import listen

HEAD_MAX_BYTES = 16_384
# A head must be there within this time, and another within it after an answer.
HEAD_TIMEOUT_S = 10.0
# Connections that are no clients, or not yet, beside as many as there may be clients.
BESIDE_MAX = 512
# picows' own buffer for each client; it grows for a larger request.
READ_BUFFER_BYTES = 2_048

JSON = b"application/json"
_STATUS = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden",
           404: b"Not Found", 405: b"Method Not Allowed", 429: b"Too Many Requests",
           431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
           503: b"Service Unavailable"}

Headers = Sequence[tuple[bytes, bytes]]
Page = tuple[int, Headers, bytes]
# Path, query, headers (names in lower case), address: a status, headers and a body.
Pages = Callable[[bytes, bytes, Headers, str], Awaitable[Page]]
# What else this port answers, as the gateway does.
SHARED_PAGES = (b"/stats", b"/clients", b"/health", b"/metrics", b"/api/v1/performance/")


class Server:
    """Listens for feed clients."""

    def __init__(self, feed: Feed, pages: Pages, tls: ssl.SSLContext | None = None) -> None:
        self.feed = feed
        self.pages = pages
        self._tls = tls
        # Connections that are no clients (yet), in the order of waiting.
        self.openings: dict[Opening, None] = {}
        self.silent = _silent_logger()
        self._number = 0
        self._connections: set[asyncio.Transport] = set()
        self._server: Any = None
        self._upkeep: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()

    async def start(self) -> int:
        """Listen; returns the port. Raises EngineError when the address is not ours."""
        config, loop = self.feed.config, asyncio.get_running_loop()
        self.feed.open()
        try:
            self._server = await listen(lambda: Opening(self), config.host, config.port, 4_096,
                                        self._tls)
        except OSError as error:
            raise EngineError(f"cannot listen on {config.host}:{config.port}: "
                              f"{error.strerror or error}", "feed.host and feed.port") from error
        port: int = self._server.sockets[0].getsockname()[1]
        self._upkeep = loop.create_task(self.feed.upkeep.run(), name="feed upkeep")
        self.feed.log.info("feed listening", host=config.host, port=port)
        return port

    async def close(self, reason: str = "the venue stops") -> None:
        """Listen no more, and close every client with a reason."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self._upkeep is not None:
            self._upkeep.cancel()
        for client in [*self.feed.connected.values()]:
            client.close(WSCloseCode.GOING_AWAY, reason)
        clients = {client.underlying for client in self.feed.connected.values()}
        for transport in self._connections - clients:
            transport.close()
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), LINGER_S + 1)
        for transport in [*self._connections]:
            transport.abort()

    def made(self, transport: asyncio.Transport) -> None:
        """A connection was made."""
        self._connections.add(transport)

    def lost(self, transport: asyncio.Transport) -> None:
        """A connection is gone."""
        self._connections.discard(transport)
        if not self._connections:
            self._empty.set()

    def make_room(self) -> None:
        """A connection was made. With one too many the one that has been waiting longest for a
        request has to go."""
        feed = self.feed
        if len(self.openings) + len(feed.connected) <= feed.config.clients_max + BESIDE_MAX:
            return
        feed.meters.turned_away.add()
        longest = next((one for one in self.openings if not one.is_served), None)
        if longest is not None:
            longest.abort()

    def accept(self, request: WSUpgradeRequest, address: str) -> Any:
        """What becomes of a handshake: a client, or a refusal."""
        feed = self.feed
        path, _, query = request.path.decode("latin-1").partition("?")
        if path != "/":
            return _refused(404, "not_found", "the feed is at /")
        if len(feed.connected) >= feed.config.clients_max and not feed.make_room():
            feed.meters.turned_away.add()
            return _refused(503, "too_many_clients",
                            f"at most {feed.config.clients_max} clients",
                            {"Retry-After": "5"})
        if not is_allowed(request.headers.get("Origin"), request.headers.get("Host", ""),
                          feed.config.origins, is_loopback(feed.config.host)):
            feed.meters.turned_away.add()
            return _refused(403, "foreign_origin", "pages of this origin may not connect")
        names = parse_qs(query, keep_blank_values=True)
        encoding = ENCODINGS.get(names.get("encoding", ["json"])[-1])
        if encoding is None:
            return _refused(400, "unknown_encoding", f"encoding is one of {', '.join(ENCODINGS)}")
        self._number += 1
        return Client(feed, self._number, address, encoding)


class Opening(asyncio.BufferedProtocol):
    """A connection that has not become a WebSocket (yet)."""

    def __init__(self, server: Server) -> None:
        self._server = server
        # It is never resized: the loop holds it while it calls us.
        self._buffer = bytearray(HEAD_MAX_BYTES)
        self._filled = 0
        self._transport: asyncio.Transport
        self._address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # -- the transport calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = f"{peer[0]}:{peer[1]}" if peer else "?"
        server = self._server
        server.made(self._transport)
        server.openings[self] = None
        self._wait_for_head()
        server.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._server.openings.pop(self, None)
        if self._task is not None:
            self._task.cancel()
        self._server.lost(self._transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled:]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._task is None:
            self._look()

    def eof_received(self) -> bool:
        return False

    # -- heads -------------------------------------------------------------------------------

    def _look(self) -> None:
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            if self._filled >= HEAD_MAX_BYTES:
                self._end(431, "head_too_large", "the request's head is too large")
            return
        self._stop_waiting()
        request = _parse(bytes(self._buffer[:end]))
        if request is None:
            self._end(400, "bad_request", "this is no HTTP request")
            return
        method, target, headers = request
        names = dict(headers)
        if b"websocket" in names.get(b"upgrade", b"").lower():
            self._upgrade()
            return
        size = names.get(b"content-length", b"0")
        if b"transfer-encoding" in names or size.strip() != b"0":
            self._end(400, "bad_request", "requests on this port have no body")
            return
        self._consume(end + 4)
        self._transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(
            self._serve(method, target, headers, _keeps(target, names)))

    def _upgrade(self) -> None:
        """Hand the connection and what was read over to picows."""
        self._server.openings.pop(self, None)
        config, transport = self._server.feed.config, self._transport
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
        protocol = Upgraded(self._server, transport, self._address)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.feed_bytes(memoryview(self._buffer)[:self._filled])

    async def _serve(self, method: str, target: bytes, headers: Headers, keep: bool) -> None:
        """Answer one plain request."""
        path, _, query = target.partition(b"?")
        try:
            if method not in ("GET", "HEAD"):
                page = _error(405, "method_not_allowed", "this port answers GET only")
            else:
                page = await self._page(path, query, headers)
        except Exception as error:
            self._server.feed.log.error("a page failed", path=path.decode("latin-1"),
                                        error=repr(error))
            page = _error(500, "internal_error", "this is a mistake of the venue's")
        self._task = None
        self._write(page, keep, method == "HEAD")
        if keep and not self._transport.is_closing():
            self._server.openings.pop(self, None)
            self._server.openings[self] = None
            self._wait_for_head()
            self._transport.resume_reading()
            if self._filled:
                self._look()

    async def _page(self, path: bytes, query: bytes, headers: Headers) -> Page:
        if path.startswith(SHARED_PAGES):
            return await self._server.pages(path, query, headers,
                                            self._address.rpartition(":")[0])
        return _error(404, "not_found", "this port answers WebSocket at /, and GET of /stats, "
                      "/clients, /health, /metrics and /api/v1/performance/...")

    def _write(self, page: Page, keep: bool, head_only: bool) -> None:
        status, headers, body = page
        lines = [b"HTTP/1.1 %d %b" % (status, _STATUS.get(status, b"Status"))]
        lines += [name + b": " + value for name, value in headers
                  if name.lower() not in (b"connection", b"content-length")]
        lines += [b"content-length: %d" % len(body),
                  b"connection: " + (b"keep-alive" if keep else b"close"), b"", b""]
        self._transport.write(b"\r\n".join(lines) + (b"" if head_only else body))
        if not keep:
            self._transport.close()

    def _end(self, status: int, code: str, message: str) -> None:
        self._write(_error(status, code, message), False, False)

    # -- helpers -----------------------------------------------------------------------------

    def _consume(self, count: int) -> None:
        left = self._filled - count
        self._buffer[:left] = self._buffer[count:self._filled]
        self._filled = left

    @property
    def is_served(self) -> bool:
        """Whether an answer is being made for it."""
        return self._task is not None

    def abort(self) -> None:
        """Go, because others need the room."""
        self._server.openings.pop(self, None)
        self._transport.abort()

    def _wait_for_head(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self._transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Upgraded(WSProtocol):  # type: ignore[misc]
    """picows' protocol, which stops to read at the first broken frame."""

    def __init__(self, server: Server, transport: asyncio.Transport, address: str) -> None:
        super().__init__(
            None, None, False, lambda request: server.accept(request, address), server.silent,
            True, HEAD_TIMEOUT_S, False, 1.0, 1.0, WSAutoPingStrategy.PING_WHEN_IDLE, False,
            server.feed.config.message_max_bytes, None, READ_BUFFER_BYTES)
        self._server = server
        self._below = transport

    def feed_bytes(self, data: memoryview) -> None:
        """Take in bytes that were read before the handover."""
        while len(data):
            room = self.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            data = data[count:]
            self.buffer_updated(count)

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self.transport.is_close_frame_sent and isinstance(self.listener, Client) \
                and not self.listener.closed:
            # picows found a frame that breaks the protocol, told so, and will end this.
            self._server.feed.meters.bad_frames.add()
            self.listener.lost()
            if self._below.is_reading():
                self._below.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.lost(self._below)


def is_allowed(origin: str | None, host: str, origins: Sequence[str], is_local: bool) -> bool:
    """Whether a page of this origin may connect. A program sends no origin, and always may.

    Without a list these are pages of loopback; beyond loopback also those of the host that was
    asked for. On loopback a host's name proves nothing: a page may point its own at this machine.
    """
    if origin is None or "*" in origins:
        return True
    if origins:
        return origin in origins
    try:
        page, asked = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return page is not None and (is_loopback(page) or (page == asked and not is_local))


def _parse(head: bytes) -> tuple[str, bytes, Headers] | None:
    """Method, target and headers of a request; None when it is none."""
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0") or not parts[1]:
        return None
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            return None
        headers.append((name.lower(), value.strip()))
    return parts[0].decode("latin-1"), parts[1], headers


def _keeps(target: bytes, names: dict[bytes, bytes]) -> bool:
    return names.get(b"connection", b"").lower() != b"close"


def _json(value: Any, status: int = 200) -> Page:
    return status, ((b"content-type", JSON), (b"cache-control", b"no-store")), \
        msgspec.json.encode(value)


def _error(status: int, code: str, message: str) -> Page:
    return _json({"code": code, "message": message, "details": {}}, status)


def _refused(status: int, code: str, message: str,
             headers: dict[str, str] | None = None) -> WSUpgradeResponseWithListener:
    body = msgspec.json.encode({"code": code, "message": message, "details": {}})
    more = {"Content-Type": "application/json", **(headers or {})}
    return WSUpgradeResponseWithListener(
        WSUpgradeResponse.create_error_response(status, body, more), None)


def _silent_logger() -> logging.LoggerAdapter[logging.Logger]:
    """picows writes a line for each connection and each broken frame: we count them instead."""
    logger = logging.Logger("picows", logging.CRITICAL + 1)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logging.LoggerAdapter(logger, {})

"""uvicorn's HTTP/1.1 connection, with bounds: how many, how long a head, how slow a request.

Two things are done otherwise than in uvicorn, because they cost a sixth of an order: head and body
of an answer leave in one write, and no timer is made for each answer: the sweep that cuts slow
requests closes idle connections too.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from engine import clock

# A request's line and headers together.
HEAD_BYTES_MAX = 16_384
# From a request's first byte to its last, and from the connection to its first byte.
REQUEST_NS_MAX = 15 * clock.NS_PER_S
# From an answer to the next request.
REST_NS_MAX = 75 * clock.NS_PER_S
TOO_MANY = (b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
            b"retry-after: 1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b")
TOO_MANY_BODY = (b'{"code":"too_many_connections","message":"the venue has as many HTTP '
                 b'connections as api.connections_max allows","details":{}}')
TOO_LONG = (b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b")
TOO_LONG_BODY = (b'{"code":"head_too_large","message":"the line and headers of a request have at '
                 b'most 16384 bytes","details":{}}')


class Cycle(RequestResponseCycle):
    """One request and its answer. An answer that is whole is written at once."""

    start: Any = None

    async def send(self, message: Any) -> None:
        """Take a message of the application's; a head waits for its body."""
        if self.start is None and not self.response_started:
            self.start = message
        elif self.response_started or message.get("more_body") or not self._write(message):
            if not self.response_started:
                await super().send(self.start)
            await super().send(message)

    def _write(self, message: Any) -> bool:
        """Write head and body together; returns False when that is not so simple."""
        start, body = self.start, message.get("body", b"")
        if self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD":
            return False
        lines = [STATUS_LINE[start["status"]]]
        length = -1
        for name, value in (*self.default_headers, *start["headers"]):
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" or name == b"transfer-encoding":
                return False
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if length != len(body) or not head.count(b"\n") == head.count(b"\r") == len(lines):
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(head + b"\r\n" + body)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


class Connection(HttpToolsProtocol):
    """One connection. `connections_max` is set by the server on a class of its own."""

    connections_max = 1_000_000

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_bytes = 0
        self.begun_ns = clock.monotonic_ns()
        # When the last answer left.
        self.rested_ns = self.begun_ns
        if len(self.connections) > self.connections_max:
            transport.write(TOO_MANY % (len(TOO_MANY_BODY), TOO_MANY_BODY))
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self.begun_ns:
            self.begun_ns = clock.monotonic_ns()
        # Counts what came while a head was incomplete; a body sets it back.
        self.head_bytes += len(data)
        super().data_received(data)
        if self.head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.transport.write(TOO_LONG % (len(TOO_LONG_BODY), TOO_LONG_BODY))
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin a request: as uvicorn does, without what this server has not (paths in front,
        upgrades, a log line for each request)."""
        self.head_bytes = 0
        version, parsed = self.parser.get_http_version(), httptools.parse_url(self.url)
        scope: Any = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["raw_path"] = parsed.path
        scope["path"] = unquote(parsed.path.decode("ascii"))
        scope["query_string"] = parsed.query or b""
        before = self.cycle
        self.cycle = Cycle(
            scope=scope, transport=self.transport, flow=self.flow, logger=self.logger,
            access_logger=self.access_logger, access_log=False,
            default_headers=self.server_state.default_headers, message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete)
        if before is None or before.response_complete:
            self._begin(self.cycle, self.app)
        else:
            # Requests that came before the last one was answered wait for their turn.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _begin(self, cycle: Any, app: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """An answer has left: go on with the next request, or rest."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.rested_ns = clock.monotonic_ns()
        self.flow.resume_reading()
        if self.pipeline:
            self._begin(*self.pipeline.pop())

    def on_body(self, body: bytes) -> None:
        self.head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.begun_ns = 0
        self.head_bytes = 0
        super().on_message_complete()

    def cut_if_slow(self, now_ns: int) -> bool:
        """Close when a request takes its sender too long, and returns whether it did; also closes
        a connection that has rested for too long."""
        if self.begun_ns:
            if now_ns - self.begun_ns < REQUEST_NS_MAX:
                return False
            self.transport.abort()
            return True
        idle = self.cycle is None or self.cycle.response_complete
        if idle and now_ns - self.rested_ns >= REST_NS_MAX:
            self.transport.close()
        return False


def limited(connections_max: int) -> type[Any]:
    """A class of connections of which there are at most so many."""
    return type("Connection", (Connection,), {"connections_max": connections_max})

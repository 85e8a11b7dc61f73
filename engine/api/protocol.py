"""uvicorn's HTTP/1.1 connection, bounded and made for small JSON.

A request begins when it is whole, so its body is there when it is asked for; its answer leaves in
one write, head and body together (two writes are two system calls). No timer is made for each
answer: the sweep that cuts slow requests closes idle connections too. An answer without a length
leaves in chunks, each when the client has read enough of those before. Bounds: how many
connections, how long a head and a body, how slow a sender and a reader. After a refusal what is
still on its way is read and thrown away for a while (RFC 9112 9.6): the kernel would reset the
connection otherwise, and the client might never read why.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from engine import clock, log

# A request's line and headers together.
HEAD_BYTES_MAX = 16_384
# From a request's first byte to its last, and from the connection to its first byte.
REQUEST_NS_MAX = 15 * clock.NS_PER_S

# From an answer to the next request.
REST_NS_MAX = 75 * clock.NS_PER_S

# A client that reads nothing of a long answer for so long is gone.
STALL_NS_MAX = 60 * clock.NS_PER_S

# Bodies that have not all come yet, of all connections together; small ones are always taken.
BODIES_BYTES_MAX = 64 * 2**20
BODY_BYTES_SMALL = 16_384

# So much is thrown away after a refusal; who sends more is reset.
THROWN_BYTES_MAX = 64 * 2**20

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

App = Callable[[Any, Any, Any], Awaitable[None]]


def _refusal(status: int, code: str, message: str) -> bytes:
    """An answer after which the connection is closed."""
    body = f'{{"code":"{code}","message":"{message}","details":{{}}}}'.encode()
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    return STATUS_LINE[status] + (b"content-type: application/json\r\nconnection: close\r\n"
                                  b"%bcontent-length: %d\r\n\r\n%b" % (retry, len(body), body))


NO_HTTP = _refusal(400, "no_http", "this is no request of HTTP/1.1")
TOO_MANY = _refusal(503, "too_many_connections",
                    "the venue has as many HTTP connections as api.connections_max allows")
TOO_LONG = _refusal(431, "head_too_large",
                    f"the line and headers of a request have at most {HEAD_BYTES_MAX} bytes")
TOO_LARGE = _refusal(413, "body_too_large", "the body is larger than api.body_max_bytes")
TOO_BUSY = _refusal(503, "too_many_bodies", "too many large bodies are on their way")


class GoneError(Exception):
    """Who asked is gone: the rest of a long answer need not be made."""


class Exchange:
    """One request with its answer: ASGI's `receive` and `send`."""

    __slots__ = (
        "_chunked",
        "_head",
        "_long",
        "body",
        "connection",
        "disconnected",
        "head_only",
        "keep_alive",
        "response_complete",
        "scope",
    )

    def __init__(self, connection: Connection, scope: dict[str, Any], keep_alive: bool) -> None:
        self.connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.body: bytes | bytearray = b""
        self.head_only = scope["method"] == "HEAD"
        self.disconnected = False
        self.response_complete = False
        self._head = b""
        # An answer whose length nobody knows; whether its parts say how long they are.
        self._long = self._chunked = False

    @property
    def message_event(self) -> Exchange:
        """uvicorn wakes a request that waits for its body: none of ours does."""
        return self

    def set(self) -> None:
        """See message_event."""

    async def run(self, app: App) -> None:
        """Have the application answer. A mistake of ours closes the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except GoneError:
            self._cut()
            return
        except Exception:
            self.connection.logger.exception("a request failed")
            self._cut()
            return
        if not self.response_complete and not self.disconnected:
            self.connection.logger.error("a request was left without its answer")
            self.connection.transport.close()

    def _cut(self) -> None:
        """End the connection; a long answer by a reset, or an old client would take what it has
        for the whole."""
        transport = self.connection.transport
        if not self._long:
            transport.close()
            return
        if not transport.is_closing():
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()

    async def receive(self) -> dict[str, Any]:
        """The whole body."""
        return {"type": "http.request", "body": bytes(self.body), "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """The head is kept until the body comes. Names and values of headers are our own. Raises
        GoneError when nobody reads a long answer any more."""
        if self._long and (self.disconnected or self.connection.transport.is_closing()):
            raise GoneError
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._head = self._make_head(message["status"], message["headers"])
            return
        connection, data = self.connection, message.get("body", b"")
        last = not message.get("more_body")
        if self.head_only:
            data = b""
        elif self._chunked:
            data = _chunk(data, last)
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            if connection.flow.write_paused:
                await connection.read_on()
            connection.transport.write(data)
        if last:
            self.response_complete = True
            if not self.keep_alive:
                connection.transport.close()
            connection.on_response_complete()

    def _make_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        parts = [STATUS_LINE[status]]
        for name, value in self.connection.server_state.default_headers:
            parts += name, b": ", value, b"\r\n"
        for name, value in headers:
            if name == b"connection" and value == b"close":
                # Said once, below.
                self.keep_alive = False
            elif name == b"transfer-encoding":
                self._long = True
            else:
                parts += name, b": ", value, b"\r\n"
        if self._long:
            self._chunked = self.scope["http_version"] != "1.0"
            if self._chunked:
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                # The end of the connection is the end of the answer.
                self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)


def _chunk(data: bytes, last: bool) -> bytes:
    """A part of an answer as RFC 9112 7.1 writes it, with the end behind the last."""
    part = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return part + b"0\r\n\r\n" if last else part


class Shared:
    """What the connections of one server have in common."""

    def __init__(self) -> None:
        # Who waits for a request, in the order of waiting: those who have made none yet, and those
        # who rest after one.
        self.silent: dict[Connection, None] = {}
        self.at_rest: dict[Connection, None] = {}
        self.body_bytes = 0

    def forget(self, connection: Connection) -> None:
        """It waits no more."""
        self.silent.pop(connection, None)
        self.at_rest.pop(connection, None)

    def make_room(self, connections: Iterable[Any]) -> bool:
        """End the connection that has been waiting longest: of those without a request, then of
        those at rest, then of those that do not read their answer. Returns whether there was
        one."""
        longest = next(iter(self.silent), None) or next(iter(self.at_rest), None)
        if longest is None:
            stalled = [one for one in connections if one.stalled_ns]
            longest = min(stalled, key=lambda one: one.stalled_ns, default=None)
        if longest is None:
            return False
        self.forget(longest)
        log.get("api").info("connection closed to make room", address=longest.client and
                            longest.client[0], key="room")
        # Nobody waits until it has read its last answer, or shaken hands at the end of TLS.
        longest.transport.abort()
        return True


class Connection(HttpToolsProtocol):
    """One connection. The bounds are set by the server on a class of its own."""

    connections_max = 1_000_000
    body_max = 1 << 20
    shared = Shared()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_bytes = self.body_bytes = 0
        self.long_read = False
        self.begun_ns = clock.monotonic_ns()
        # When the last answer left.
        self.rested_ns = self.begun_ns
        # Since when an answer waits for the client to read; 0 while none does.
        self.stalled_ns = 0
        # The last answer, after which nothing is taken, and what came since.
        self.refusal = b""
        self.thrown_bytes = 0
        # Refused when the first bytes come: a client may read nothing before it has sent.
        self.too_many = (len(self.connections) > self.connections_max
                         and not self.shared.make_room(self.connections))
        self.shared.silent[self] = None
        if len(self.connections) > 2 * self.connections_max:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.forget(self)
        self._body_is_over()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.refusal:
            self.thrown_bytes += len(data)
            if self.thrown_bytes > THROWN_BYTES_MAX:
                self.transport.abort()
            return
        if self.too_many:
            self._refuse(TOO_MANY)
            return
        if not self.begun_ns:
            self.begun_ns = clock.monotonic_ns()
        # Counts what came while a head was incomplete; a whole head or a body sets it back.
        self.head_bytes += len(data)
        # Only then a head can be too long; its size is not worth a count each time.
        self.long_read = self.head_bytes > HEAD_BYTES_MAX
        super().data_received(data)
        if self.head_bytes > HEAD_BYTES_MAX:
            self._refuse(TOO_LONG)

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        self.head_bytes = 0
        parser = self.parser
        url, _, query = self.url.partition(b"?")
        path = url.decode("ascii")
        scope = {
            "type": "http", "http_version": parser.get_http_version(),
            "method": parser.get_method().decode("ascii"), "scheme": self.scheme,
            "path": urllib.parse.unquote(path) if "%" in path else path, "raw_path": url,
            "query_string": query, "headers": self.headers, "client": self.client or ("", 0),
            "server": self.server, "root_path": "",
        }
        exchange: Any = Exchange(self, scope, parser.should_keep_alive())
        self.waiting = exchange
        if self.long_read and self._head_size() > HEAD_BYTES_MAX:
            self._refuse(TOO_LONG)
        elif self.expect_100_continue and not self._is_over():
            self._go_on()

    def _head_size(self) -> int:
        """Bytes of the request's address, and of its headers as they are sent."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _go_on(self) -> None:
        """The client asks before it sends a body, and says how large that will be."""
        length = dict(self.headers).get(b"content-length", b"")
        if length.isdigit() and int(length) > self.body_max:
            self._refuse(TOO_LARGE)
        else:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._is_over():
            return
        self.head_bytes = 0
        exchange, shared = self.waiting, self.shared
        self.body_bytes += len(body)
        shared.body_bytes += len(body)
        if not exchange.body:
            exchange.body = body
        else:
            if isinstance(exchange.body, bytes):
                exchange.body = bytearray(exchange.body)
            exchange.body += body
        if len(exchange.body) > self.body_max:
            self._refuse(TOO_LARGE)
        elif shared.body_bytes > BODIES_BYTES_MAX and self.body_bytes > BODY_BYTES_SMALL:
            self._refuse(TOO_BUSY)

    def on_message_complete(self) -> None:
        if self._is_over():
            return
        self.begun_ns = 0
        self.head_bytes = 0
        self._body_is_over()
        self.shared.forget(self)
        exchange, before = self.waiting, self.cycle
        self.cycle = exchange
        if before is None or before.response_complete:
            self._begin(exchange)
        else:
            # Requests that came in one go are answered one after the other.
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def on_response_complete(self) -> None:
        """An answer has left: go on with the next request, or rest."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.rested_ns = clock.monotonic_ns()
        self.flow.resume_reading()
        if self.pipeline:
            self._begin(self.pipeline.pop()[0])
        elif self.refusal:
            self._say_no()
        else:
            self.shared.at_rest[self] = None

    async def read_on(self) -> None:
        """Wait until the client has read enough, or is gone."""
        self.stalled_ns = clock.monotonic_ns()
        try:
            await self.flow.drain()
        finally:
            self.stalled_ns = 0

    def _begin(self, exchange: Any) -> None:
        task = self.loop.create_task(exchange.run(self.app))
        tasks = self.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when its parser gives up."""
        self._refuse(NO_HTTP)

    def _refuse(self, answer: bytes) -> None:
        """Answer so, after the requests before, and take nothing more."""
        if self._is_over():
            return
        self.refusal = answer
        self.begun_ns = self.begun_ns or clock.monotonic_ns()
        # What there is of a body is let go.
        self.waiting = None
        self._body_is_over()
        if self.cycle is None or self.cycle.response_complete:
            self._say_no()

    def _say_no(self) -> None:
        self.transport.write(self.refusal)
        # TLS has no end for one side alone: the client sees the length and `connection: close`.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _is_over(self) -> bool:
        """Whether nothing more is taken."""
        return bool(self.refusal) or self.transport.is_closing()

    def _body_is_over(self) -> None:
        self.shared.body_bytes -= self.body_bytes
        self.body_bytes = 0

    def cut_if_slow(self, now_ns: int) -> bool:
        """Close when a request takes its sender too long, or an answer its reader, and returns
        whether it did; also closes a connection that has rested for too long."""
        if self.stalled_ns and now_ns - self.stalled_ns >= STALL_NS_MAX:
            self.transport.abort()
            return True
        if self.begun_ns:
            if now_ns - self.begun_ns < REQUEST_NS_MAX:
                return False
            self.transport.abort()
            return not self.refusal
        idle = self.cycle is None or self.cycle.response_complete
        if idle and now_ns - self.rested_ns >= REST_NS_MAX:
            self.transport.close()
        return False


def limited(connections_max: int, body_max: int) -> type[Any]:
    """A class of connections with these bounds."""
    return type("Connection", (Connection,), {"connections_max": connections_max,
                                              "body_max": body_max, "shared": Shared()})

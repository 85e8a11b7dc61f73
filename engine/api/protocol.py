"""uvicorn's HTTP/1.1 connection, with bounds: how many, how long a head, how slow a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine import clock

# A request's line and headers together.
HEAD_BYTES_MAX = 16_384
# From a request's first byte to its last, and from the connection to its first byte.
REQUEST_NS_MAX = 15 * clock.NS_PER_S
TOO_MANY = (b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
            b"retry-after: 1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b")
TOO_MANY_BODY = (b'{"code":"too_many_connections","message":"the venue has as many HTTP '
                 b'connections as api.connections_max allows","details":{}}')
TOO_LONG = (b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b")
TOO_LONG_BODY = (b'{"code":"head_too_large","message":"the line and headers of a request have at '
                 b'most 16384 bytes","details":{}}')


class Connection(HttpToolsProtocol):
    """One connection. `connections_max` is set by the server on a class of its own."""

    connections_max = 1_000_000

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_bytes = 0
        self.begun_ns = clock.monotonic_ns()
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
        super().on_headers_complete()
        self.head_bytes = 0

    def on_body(self, body: bytes) -> None:
        self.head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.begun_ns = 0
        self.head_bytes = 0
        super().on_message_complete()

    def cut_if_slow(self, now_ns: int) -> bool:
        """Close when a request takes its sender too long; returns whether it did."""
        if not self.begun_ns or now_ns - self.begun_ns < REQUEST_NS_MAX:
            return False
        self.transport.abort()
        return True


def limited(connections_max: int) -> type[Any]:
    """A class of connections of which there are at most so many."""
    return type("Connection", (Connection,), {"connections_max": connections_max})

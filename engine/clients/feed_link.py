"""One WebSocket connection to the feed: requests with their answers, and decoded messages.

What the venue encodes with msgspec is decoded here with other packages, so that reading it shows
that it is what it is called.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

import lz4.block
import msgpack
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from engine.clients.errors import ConnectionLostError, FeedRefusedError
from engine.errors import ProtocolError

ENCODINGS = ("json", "msgpack", "msgpack-lz4")

# What leads a message of msgpack-lz4: MessagePack as it is, or one lz4 block, size in front.
PLAIN = 0
COMPRESSED = 1

# A snapshot of a deep book comes in one frame.
FRAME_BYTES_MAX = 2**28
HANDSHAKE_TIMEOUT_S = 10.0

Body = dict[str, Any]
OnMessage = Callable[[Body], None]
OnAnswer = Callable[[Body], None]


def encode_request(body: Body, encoding: str) -> tuple[WSMsgType, bytes]:
    """A request as the frame's type and bytes."""
    if encoding == "json":
        return WSMsgType.TEXT, json.dumps(body).encode("utf-8")
    return WSMsgType.BINARY, msgpack.packb(body)


def decode_message(data: bytes, encoding: str) -> Body:
    """A message of the venue. Raises ProtocolError when it is none."""
    try:
        if encoding == "json":
            body = json.loads(data)
        elif encoding == "msgpack":
            body = msgpack.unpackb(data)
        elif data[0] == PLAIN:
            body = msgpack.unpackb(data[1:])
        elif data[0] == COMPRESSED:
            body = msgpack.unpackb(lz4.block.decompress(data[1:]))
        else:
            raise ProtocolError(f"a message begins with byte {data[0]}, not 0 or 1")
    except (ValueError, IndexError, lz4.block.LZ4BlockError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a message is not {encoding}: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError("a message is not a map")
    return body


class FeedLink(WSListener):
    """A connection. `on_message` is called with every message that is no answer, in order; what it
    raises ends the connection. `closed` is done when the connection is gone. Use `open_feed_link`.
    """

    def __init__(self, encoding: str, on_message: OnMessage) -> None:
        self._encoding = encoding
        self._on_message = on_message
        self._transport: WSTransport | None = None
        self._parts: list[bytes] = []
        self._next_id = 1
        self._waiting: dict[int, tuple[asyncio.Future[Body], OnAnswer | None]] = {}
        self._fault: Exception | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def fault(self) -> Exception:
        """Why the link is closed."""
        return self._fault or ConnectionLostError("the feed closed the connection")

    @property
    def asking(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._waiting)

    def ask(self, body: Body, on_answer: OnAnswer | None = None) -> "asyncio.Future[Body]":
        """Send a request. The future gives the answer, or raises FeedRefusedError, or
        ConnectionLostError; `on_answer` is called with a good answer before any later message."""
        future: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        if self._transport is None or self.closed.done():
            future.set_exception(ConnectionLostError("the feed is not connected"))
            return future
        number = self._next_id
        self._next_id += 1
        self._waiting[number] = future, on_answer
        self._transport.send(*encode_request({**body, "id": number}, self._encoding))
        return future

    def pause_reading(self) -> None:
        """Leave what comes in the socket."""
        if self._transport is not None:
            self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None and not self.closed.done():
            self._transport.underlying_transport.resume_reading()

    def close(self) -> None:
        """Say good-bye and close."""
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    # -- called by the transport ---------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._fault is None:
            said = transport.close_handshake.recv if transport.close_handshake else None
            if said is not None and said.code != WSCloseCode.OK:
                self._fault = ConnectionLostError(
                    f"the feed closed the connection: {said.reason or said.code.name}")
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(self.fault)
                # Whoever gave up waiting does not want to hear of it.
                future.exception()
        self._waiting.clear()
        if not self.closed.done():
            self.closed.set_result(None)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        if kind not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            return
        self._parts.append(frame.get_payload_as_bytes())
        if not frame.fin:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        try:
            self._receive(decode_message(data, self._encoding))
        except Exception as error:
            self._fault = error
            transport.send_close(WSCloseCode.PROTOCOL_ERROR)
            transport.disconnect(graceful=False)

    def _receive(self, body: Body) -> None:
        if "ok" not in body:
            self._on_message(body)
            return
        future, on_answer = self._waiting.pop(body.get("id") or 0, (None, None))
        if future is None:
            return
        if body["ok"]:
            if on_answer is not None:
                on_answer(body)
            if not future.done():
                future.set_result(body)
        elif not future.done():
            future.set_exception(FeedRefusedError(str(body.get("code")),
                                                  str(body.get("message"))))


async def open_feed_link(host: str, port: int, encoding: str, on_message: OnMessage,
                         silence_max_s: float, tls: ssl.SSLContext | None = None) -> FeedLink:
    """Connect. A connection that says nothing for `silence_max_s`, and does not answer a ping for
    as long, counts as lost. Raises ConnectionLostError."""
    host_text = f"[{host}]" if ":" in host else host
    url = f"{'wss' if tls else 'ws'}://{host_text}:{port}/?encoding={encoding}"
    try:
        _, link = await ws_connect(
            lambda: FeedLink(encoding, on_message), url, ssl_context=tls, enable_auto_ping=True,
            auto_ping_idle_timeout=silence_max_s, auto_ping_reply_timeout=silence_max_s,
            max_frame_size=FRAME_BYTES_MAX, websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S)
    except (OSError, WSError, TimeoutError) as error:
        raise ConnectionLostError(f"no feed at {host}:{port}: {error}") from error
    if not isinstance(link, FeedLink):
        raise ConnectionLostError(f"no feed at {host}:{port}")
    return link

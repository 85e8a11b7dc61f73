"""One client's WebSocket: frames become requests, and every frame has a bound.

Nothing that a client sends may raise here or grow without limit: broken frames end the connection,
broken requests are answered, too many of them end it too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from engine import clock
from engine.feed.encode import Body, Encoding
from engine.feed.groups import Group
from engine.feed.subscription import Subscription, Told
from engine.feed.wire import Wire

if TYPE_CHECKING:
    from engine.feed.chains import Chain
    from engine.feed.stage import Feed, Identity

# How long a connection that is being closed may take for its last bytes.
LINGER_S = 3.0
# Beyond so many times its rate a client is not answered any more but closed.
FLOOD_FACTOR = 10

# What a client that gets its past may leave unread before we wait for it.
UNSENT_BYTES = 2**18

# What identifies a subscription of a client: channel, symbol, and the interval of candles.
Name = tuple[str, str, int]


class Client(WSListener):
    """One connection, from its handshake to its end."""

    def __init__(self, feed: Feed, number: int, address: str, encoding: Encoding) -> None:
        self.feed = feed
        self.id = number
        self.address = address
        self.host = address.rpartition(":")[0]
        self.encoding = encoding
        self.identity: Identity | None = None
        # What it logged in with: a key may end while the client stays.
        self.token = ""
        self.wrong_tokens = 0
        self.subscriptions: dict[Name, Subscription] = {}
        self.group: Group | None = None
        # A slow client gets nothing but answers until it has read what it was sent.
        self.slow = False
        self.slow_tick = 0
        self.conflated = 0
        # Ticks that went by without it.
        self.skipped = 0
        self.connected_ns = 0
        self.closed = False
        # For those who send it much at a time: cleared while UNSENT_BYTES are unread.
        self.writable = asyncio.Event()
        self.writable.set()
        self.wire: Wire
        self._transport: WSTransport
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._parts_type = WSMsgType.TEXT
        self._second = 0
        self._requests = 0

    # -- the transport calls -------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        below = transport.underlying_transport
        # What TLS encrypts goes by the transport, everything else straight to the socket.
        plain = below.get_extra_info("ssl_object") is None
        self.wire = Wire(self, below,
                         below.get_extra_info("socket").fileno() if plain else -1)
        below.set_write_buffer_limits(high=UNSENT_BYTES)
        self.connected_ns = clock.monotonic_ns()
        self.feed.arrived(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.lost()
        self.feed.left(self)
        # Each held the other: both would wait for the garbage collector.
        del self._transport

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if self.closed:
            if kind == WSMsgType.CLOSE:
                transport.disconnect()
        elif kind == WSMsgType.PONG:
            self.wire.pong(frame.get_payload_as_bytes(), clock.monotonic_ns())
            if self.slow:
                self.feed.upkeep.look_at_slow(self)
        elif kind == WSMsgType.CLOSE:
            self._answer_close(frame)
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(WSCloseCode.PROTOCOL_ERROR, "reserved bits without an extension")
        elif not self._count_request():
            return
        elif kind == WSMsgType.PING:
            if not self.over_rate:
                self.wire.given()
                transport.send_pong(frame.get_payload_as_bytes())
        else:
            self._take_part(kind, frame)

    # -- requests ------------------------------------------------------------------------------

    def _count_request(self) -> bool:
        """Count a frame; returns whether it may be looked at."""
        second = clock.monotonic_ns() // clock.NS_PER_S
        if second != self._second:
            self._second, self._requests = second, 0
        self._requests += 1
        if self._requests <= self.feed.config.requests_per_second * FLOOD_FACTOR:
            return True
        self.close(WSCloseCode.POLICY_VIOLATION, "far too many requests")
        self.underlying.pause_reading()
        return False

    @property
    def over_rate(self) -> bool:
        """Whether it has made its requests of this second."""
        return self._requests > self.feed.config.requests_per_second

    def _take_part(self, kind: WSMsgType, frame: WSFrame) -> None:
        """A data frame: a whole message, or a part of one."""
        if (kind == WSMsgType.CONTINUATION) != bool(self._parts):
            self.close(WSCloseCode.PROTOCOL_ERROR, "a continuation without a beginning"
                       if kind == WSMsgType.CONTINUATION else "a message within a message")
            return
        payload = frame.get_payload_as_bytes()
        if frame.fin and not self._parts:
            self._receive(kind, payload)
            return
        if not self._parts:
            self._parts_type, self._parts_bytes = kind, 0
        # An empty part counts too, or a client could send them for ever.
        self._parts_bytes += len(payload) + 1
        if self._parts_bytes > self.feed.config.message_max_bytes:
            self.close(WSCloseCode.MESSAGE_TOO_BIG, "the message is too large")
            return
        self._parts.append(payload)
        if frame.fin:
            whole, self._parts = b"".join(self._parts), []
            self._receive(self._parts_type, whole)

    def _receive(self, kind: WSMsgType, payload: bytes) -> None:
        self.feed.flush_to(self)
        self.feed.requests.receive(self, kind == WSMsgType.TEXT, payload)

    def answer(self, body: Body) -> None:
        """Send an answer."""
        self.send_frames([self.feed.encoder.frame(body, self.encoding)])

    def send_frames(self, frames: list[bytes]) -> None:
        """Send messages to this client alone, as one write."""
        if frames and not self.closed:
            self.wire.send(b"".join(frames), len(frames))
            if self.wire.unsent_bytes > self.feed.config.unsent_max_bytes:
                self.feed.upkeep.cut(self, "slow client: too much is unread")

    @property
    def underlying(self) -> asyncio.Transport:
        """The connection's transport."""
        return self._transport.underlying_transport

    def live_chains(self) -> frozenset[Chain]:
        """The chains whose own messages the client gets."""
        if self.closed:
            return frozenset()
        return frozenset([held.chain for held in self.subscriptions.values()
                          if held.told is Told.LIVE])

    # -- the end -------------------------------------------------------------------------------

    def close(self, code: WSCloseCode, reason: str) -> None:
        """Close with a code and a reason; what was sent before still goes out, for some time."""
        if self.closed:
            return
        self.lost()
        self.feed.closed(self, code, reason)
        self._transport.send_close(code, reason)
        # The other side answers with its own close, or is cut.
        asyncio.get_running_loop().call_later(
            LINGER_S, self.underlying.abort)

    def lost(self) -> None:
        """Nothing more is sent or taken in."""
        self.closed = True
        self.wire.open = False
        self.writable.set()
        self._parts = []

    def _answer_close(self, frame: WSFrame) -> None:
        code = frame.get_close_code()
        self.lost()
        self._transport.send_close(code if code != WSCloseCode.NO_INFO else WSCloseCode.OK)
        self._transport.disconnect()
        asyncio.get_running_loop().call_later(
            LINGER_S, self.underlying.abort)

    # -- what is told about it -----------------------------------------------------------------

    def row(self) -> dict[str, Any]:
        """The client as `GET /clients` shows it."""
        wire = self.wire
        return {
            "id": self.id, "address": self.address,
            "account": self.identity.username if self.identity else None,
            "encoding": ("json", "msgpack", "msgpack-lz4")[self.encoding],
            "subscriptions": len(self.subscriptions),
            "messages_sent": wire.messages_sent, "bytes_sent": wire.bytes_sent,
            "batches_sent": wire.batches_sent,
            "latency_ms": round(wire.latency_ns / clock.NS_PER_MS, 3),
            "queue_size": wire.behind, "unsent_bytes": wire.unsent_bytes,
            "conflated": self.conflated, "dropped": self.skipped, "slow": self.slow,
        }

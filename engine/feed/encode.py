"""Messages and their encodings: each message is encoded and framed once per encoding, whoever
gets it, and every client of that encoding is sent the same bytes.

Identifiers that may pass 2**53 (`order_id`, `match`) are texts in JSON and integers in MessagePack.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import lz4.block
import msgspec

from engine.feed.wire import frame

OP_TEXT = 0x1
OP_BINARY = 0x2
OP_CLOSE = 0x8

# What leads a message of msgpack-lz4: MessagePack as it is, or one block with its size in front.
PLAIN = b"\x00"
COMPRESSED = b"\x01"

# The identifiers that a double cannot hold.
ID_KEYS = frozenset(("order_id", "match", "replaces", "replaced_by"))

Body = dict[str, Any]


class Encoding(IntEnum):
    """How a client wants its messages."""

    JSON = 0
    MSGPACK = 1
    MSGPACK_LZ4 = 2


ENCODINGS = {"json": Encoding.JSON, "msgpack": Encoding.MSGPACK,
             "msgpack-lz4": Encoding.MSGPACK_LZ4}

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder()


class Encoder:
    """Makes frames. `compress_above_bytes`: larger messages are compressed for who asked."""

    def __init__(self, compress_above_bytes: int) -> None:
        self._compress_above_bytes = compress_above_bytes

    def frame(self, body: Mapping[str, Any], encoding: Encoding) -> bytes:
        """One message as one frame; its identifiers are integers."""
        if encoding is Encoding.JSON:
            return frame(OP_TEXT, _json.encode(_with_text_ids(body)))
        return self._packed_frame(_msgpack.encode(body), encoding)

    def _packed_frame(self, packed: bytes, encoding: Encoding) -> bytes:
        if encoding is Encoding.MSGPACK:
            return frame(OP_BINARY, packed)
        if len(packed) <= self._compress_above_bytes:
            return frame(OP_BINARY, PLAIN + packed)
        return frame(OP_BINARY, COMPRESSED + lz4.block.compress(packed, store_size=True))


class Message:
    """One message of a chain. It keeps its frames, and its body packed once it is `settled`."""

    __slots__ = ("_body", "_encoder", "_frames", "_packed", "prev_seq", "sent_ns", "seq")

    def __init__(self, encoder: Encoder, body: Body) -> None:
        self._encoder = encoder
        self._body: Body | None = body
        self._packed = b""
        self._frames: list[bytes | None] = [None, None, None]
        self.seq: int = body["seq"]
        self.prev_seq: int = body["prev_seq"]
        self.sent_ns = 0

    @property
    def body(self) -> Body:
        """The message as a map, identifiers as integers."""
        if self._body is not None:
            return self._body
        body: Body = _unpack.decode(self._packed)
        return dict(body)

    @property
    def held_bytes(self) -> int:
        """About what a settled message holds in memory."""
        return 200 + len(self._packed) + sum(len(made) for made in self._frames if made)

    def frame(self, encoding: Encoding) -> bytes:
        """The message as bytes for the socket."""
        made = self._frames[encoding]
        if made is None:
            made = self._frames[encoding] = self._encoder.frame(self.body, encoding)
        return made

    def settle(self, now_ns: int) -> None:
        """Keep the message for who resumes: its map would take ten times the memory."""
        self.sent_ns = now_ns
        if self._body is not None:
            self._packed = _msgpack.encode(self._body)
            self._body = None

    def after(self, prev_seq: int) -> Message:
        """The same message for a subscription whose previous one was another."""
        return Message(self._encoder, {**self.body, "prev_seq": prev_seq})


def _with_text_ids(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message with its identifiers as texts. Only some channels carry any."""
    convert = _CONVERSIONS.get(body.get("channel", ""))
    return body if convert is None or "ok" in body else convert(body)


def text_ids(row: Mapping[str, Any]) -> Body:
    """One map with its identifiers, and those of its fills, as texts."""
    made: Body = {key: str(value) if key in ID_KEYS and value is not None else value
            for key, value in row.items()}
    if made.get("fills"):
        made["fills"] = [text_ids(fill) for fill in made["fills"]]
    return made


def _trades(body: Mapping[str, Any]) -> Body:
    if "trades" not in body:  # a reset
        return dict(body)
    return {**body, "trades": [text_ids(trade) for trade in body["trades"]]}


def _book_l3(body: Mapping[str, Any]) -> Body:
    made = dict(body)
    for side in ("bids", "asks"):
        if side in made:
            made[side] = [[price, str(order_id), quantity]
                          for price, order_id, quantity in made[side]]
    if "events" in made:
        made["events"] = [text_ids(event) for event in made["events"]]
    return made


def _private(body: Mapping[str, Any]) -> Body:
    made = text_ids(body)
    for key in ("orders", "executions"):
        if key in made:
            made[key] = [text_ids(row) for row in made[key]]
    return made


_CONVERSIONS = {"trades": _trades, "book_l3": _book_l3, "orders": _private,
                "executions": _private}

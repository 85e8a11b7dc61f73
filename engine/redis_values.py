"""What stands in Redis: the names of its keys, and how values are encoded. docs/redis.md has all.

A value is MessagePack or JSON. Where `redis.compress_above_bytes` is set it is framed as the feed's
msgpack-lz4: a leading byte 0x01 before one lz4 block with its raw size in front, 0x00 before a
value as it is. A reader needs no setting: neither encoding of a map or a list begins with these.
"""

from __future__ import annotations

from typing import Any, Literal

import lz4.block
import msgspec

PLAIN = b"\x00"
COMPRESSED = b"\x01"
# Fields of a stream's entry.
PREVIOUS, FIRST, COUNT, COLUMNS, DATA = b"previous", b"first", b"count", b"columns", b"data"

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_unjson = msgspec.json.Decoder()
_unpack = msgspec.msgpack.Decoder()
_JSON_BEGINS = frozenset(b"{[")


class Keys:
    """The names of the keys. What stands in braces decides the slot of a cluster: a market's keys
    are together, and so are the venue's."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.venue_position = f"{prefix}position:{{venue}}"
        self.order_events = f"{prefix}order_events:{{venue}}"
        self.last_prices = f"{prefix}last:{{venue}}"
        # Of each market, the seq of the newest entry of its stream; and where streams began.
        self.marks = f"{prefix}marks:{{venue}}"

    def position(self, symbol: str) -> str:
        """How far a market's stream is."""
        return f"{self.prefix}position:{{{symbol}}}"

    def trades(self, symbol: str) -> str:
        """A market's stream of trades."""
        return f"{self.prefix}trades:{{{symbol}}}"

    def book(self, symbol: str) -> str:
        """A market's book."""
        return f"{self.prefix}book:{{{symbol}}}"

    def ticker(self, symbol: str) -> str:
        """A market's last 24 hours."""
        return f"{self.prefix}ticker:{{{symbol}}}"

    def channel(self, symbol: str) -> str:
        """Where a market's news are published."""
        return f"{self.prefix}market:{{{symbol}}}"

    @property
    def every_channel(self) -> str:
        """A pattern that fits the channels of all markets."""
        return f"{escaped(self.prefix)}market:{{*}}"

    @property
    def every_book(self) -> str:
        """A pattern that fits the books of all markets."""
        return f"{escaped(self.prefix)}book:{{*}}"

    def symbol_of(self, name: str) -> str:
        """The market of a key or a channel."""
        return name[name.rindex("{") + 1:-1]


class Coder:
    """Makes values. `compress_above_bytes`: larger ones are compressed; 0 never."""

    def __init__(self, encoding: Literal["msgpack", "json"], compress_above_bytes: int) -> None:
        self.is_json = encoding == "json"
        self._encode = _json.encode if self.is_json else _msgpack.encode
        self._compress_above_bytes = compress_above_bytes

    def value(self, body: Any) -> bytes:
        """A map or a list as a value."""
        data: bytes = self._encode(body)
        return self.framed(data)

    def part(self, rows: list[Any]) -> bytes:
        """Some rows of a longer list, for `joined`."""
        data: bytes = self._encode(rows)
        return data[1:-1] if self.is_json else data[_header_bytes(len(rows)):]

    def joined(self, parts: list[bytes], rows: int) -> bytes:
        """The list of all rows out of its parts, as a value."""
        if self.is_json:
            return self.framed(b"[" + b",".join(part for part in parts if part) + b"]")
        return self.framed(_header(rows) + b"".join(parts))

    def framed(self, data: bytes) -> bytes:
        """What is encoded, as a value."""
        if not self._compress_above_bytes:
            return data
        if len(data) <= self._compress_above_bytes:
            return PLAIN + data
        block: bytes = lz4.block.compress(data, store_size=True)
        return COMPRESSED + block


def decode(value: bytes) -> Any:
    """A value as a map or a list. Raises ValueError when it is none."""
    try:
        if value[:1] == COMPRESSED:
            value = lz4.block.decompress(value[1:])
        elif value[:1] == PLAIN:
            value = value[1:]
        return (_unjson if value[0] in _JSON_BEGINS else _unpack).decode(value)
    except (lz4.block.LZ4BlockError, msgspec.DecodeError, IndexError, ValueError) as error:
        raise ValueError(f"this is no value of ours: {error}") from error


def escaped(text: str) -> str:
    """A text as a pattern of Redis that fits it alone."""
    return "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in text)


def _header_bytes(rows: int) -> int:
    return 1 if rows < 16 else 3 if rows < 2**16 else 5


def _header(rows: int) -> bytes:
    """The beginning of a list of so many rows in MessagePack."""
    if rows < 16:
        return bytes((0x90 | rows,))
    if rows < 2**16:
        return b"\xdc" + rows.to_bytes(2, "big")
    return b"\xdd" + rows.to_bytes(4, "big")


def position_text(log_id: bytes, incarnation: int, seq: int) -> str:
    """A position as it stands in Redis."""
    return f"{log_id.hex()}-{incarnation}:{seq}"


def position_of(text: bytes) -> tuple[bytes, int, int]:
    """(log id, incarnation, seq) of such a text. Raises ValueError when it is none."""
    log, _, seq = text.decode("ascii", "replace").partition(":")
    log_id, _, incarnation = log.partition("-")
    return bytes.fromhex(log_id), int(incarnation), int(seq)

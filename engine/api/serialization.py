"""`POST /api/v1/performance/serialization/test`: sizes and times of the feed's encodings.

For payloads of the caller's or for samples of the feed's own shapes, so that one can see from
which size on compression pays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any

import lz4.block
import msgspec
from msgspec import Meta

from engine import clock
from engine.api.route import Access, ApiError, Call, Reply, Route, json_reply
from engine.config import FeedConfig

# Enough for a figure, little enough to be over soon.
BUDGET_NS = 200 * clock.NS_PER_MS
SLICE = 20

_json, _msgpack = msgspec.json.Encoder(), msgspec.msgpack.Encoder()
_from_json, _from_msgpack = msgspec.json.Decoder(), msgspec.msgpack.Decoder()


class SerializationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to measure: any JSON values (samples of the feed's messages without any), each encoded
    so many times, or fewer when time runs out."""

    payloads: Annotated[list[Any], Meta(max_length=20)] = []
    rounds: Annotated[int, Meta(ge=1, le=10_000)] = 200


class EncodingFigures(msgspec.Struct, frozen=True):
    """One payload in one encoding; `rounds` were done."""

    encoding: str
    bytes: int
    part_of_json: float
    encode_us: float
    decode_us: float
    rounds: int


class PayloadFigures(msgspec.Struct, frozen=True):
    """One payload in every encoding."""

    payload: str
    encodings: list[EncodingFigures]


class SerializationResult(msgspec.Struct, frozen=True):
    """The answer; `compress_above_bytes` is the feed's setting."""

    compress_above_bytes: int
    payloads: list[PayloadFigures]


def _pack_lz4(value: Any) -> bytes:
    packed: bytes = lz4.block.compress(_msgpack.encode(value), store_size=True)
    return b"\x01" + packed


def _unpack_lz4(data: bytes) -> Any:
    return _from_msgpack.decode(lz4.block.decompress(data[1:]))


ENCODINGS: tuple[tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]], ...] = (
    ("json", _json.encode, _from_json.decode),
    ("msgpack", _msgpack.encode, _from_msgpack.decode),
    ("msgpack-lz4", _pack_lz4, _unpack_lz4),
)


def samples() -> dict[str, Any]:
    """Messages in the shapes of the feed, small and large."""
    head = {"symbol": "BTC-USDT", "seq": 123_456, "prev_seq": 123_450,
            "time": 1_700_000_000_000_000_000}

    def book(levels: int) -> dict[str, Any]:
        sides = {side: [[f"{60_000 + sign * level}.00", f"0.{level % 9 + 1}00000", level % 5 + 1]
                        for level in range(1, levels + 1)]
                 for side, sign in (("bids", -1), ("asks", 1))}
        return {"channel": "book", "type": "snapshot", **head, **sides, "crc": 397_708_106}

    return {
        "bbo": {"channel": "bbo", "type": "update", **head, "bid": ["60000.00", "0.100000"],
                "ask": ["60010.00", "0.500000"]},
        "book of 10 levels": book(10),
        "book of 200 levels": book(200),
        "50 trades": {"channel": "trades", "type": "update", **head, "trades": [
            {"match": str(10_000 + number), "price": "60000.00", "quantity": "0.100000",
             "side": "buy", "time": head["time"], "seq": 123_400 + number}
            for number in range(50)]},
    }


def measure(payloads: dict[str, Any], rounds: int) -> list[PayloadFigures]:
    """Encode and decode each payload; for a thread, as it may take a fraction of a second."""
    budget_ns = BUDGET_NS // max(1, len(payloads) * len(ENCODINGS))
    return [_measure(name, value, rounds, budget_ns) for name, value in payloads.items()]


def _measure(name: str, value: Any, rounds: int, budget_ns: int) -> PayloadFigures:
    json_bytes = len(_json.encode(value))
    figures = []
    for encoding, encode, decode in ENCODINGS:
        data = encode(value)
        encode_ns, _ = _timed(encode, value, rounds, budget_ns // 2)
        decode_ns, done = _timed(decode, data, rounds, budget_ns // 2)
        figures.append(EncodingFigures(encoding, len(data), round(len(data) / json_bytes, 3),
                                       round(encode_ns / 1_000, 3), round(decode_ns / 1_000, 3),
                                       done))
    return PayloadFigures(name, figures)


def _timed(work: Callable[[Any], Any], value: Any, rounds: int,
           budget_ns: int) -> tuple[float, int]:
    """Nanoseconds of one round, and how many were done."""
    done = spent_ns = 0
    while done < rounds and spent_ns < budget_ns:
        started_ns = clock.monotonic_ns()
        count = min(SLICE, rounds - done) if done else 1
        for _ in range(count):
            work(value)
        spent_ns += clock.monotonic_ns() - started_ns
        done += count
        # Orders don't wait for this.
        time.sleep(0)
    return spent_ns / done, done


class SerializationDesk:
    """Answers the test, one at a time."""

    def __init__(self, config: FeedConfig) -> None:
        self._config = config
        self._one = asyncio.Lock()

    async def test(self, call: Call) -> Reply:
        """`POST .../serialization/test`. Raises ApiError 400."""
        request: SerializationRequest = call.body
        payloads = {f"payload {number}": value
                    for number, value in enumerate(request.payloads, 1)} or samples()
        async with self._one:
            try:
                figures = await asyncio.to_thread(measure, payloads, request.rounds)
            except (OverflowError, RecursionError) as error:
                raise ApiError(400, "bad_value", "payloads: MessagePack has no room for integers "
                               f"beyond 64 bits, nor for deep nests ({error})",
                               {"field": "payloads"}) from None
        return json_reply(SerializationResult(self._config.compress_above_bytes, figures))

    def routes(self) -> list[Route]:
        """The one route."""
        return [Route(method="POST", path="/api/v1/performance/serialization/test",
                      handler=self.test, body=SerializationRequest, answer=SerializationResult,
                      access=Access.READ, tag="Operations",
                      summary="Sizes and times of the feed's encodings")]

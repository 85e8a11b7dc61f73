"""Nothing that a client sends stops the feed, or costs it memory for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.feed.raw import HANDSHAKE, Raw, frame

pytestmark = pytest.mark.asyncio

PING = b'{"op":"ping","id":1}'


async def close_of(venue, *data: bytes) -> tuple[int, str]:
    """How a connection ends after it sent this."""
    raw = await Raw.upgraded(venue.app.ports["feed"])
    for part in data:
        await raw.send(part)
    ended = await raw.closed()
    raw.close()
    return ended


@pytest.mark.parametrize(("code", "data"), [
    (1002, [frame(PING, masked=False)]),
    (1002, [frame(PING, opcode=3)]),
    (1002, [frame(PING, bits=0x40)]),
    (1002, [frame(b"x" * 126, opcode=9)]),
    (1002, [frame(b"", opcode=9, fin=False)]),
    (1002, [frame(PING, opcode=0)]),
    (1002, [frame(b"{", fin=False), frame(PING)]),
    (1002, [frame(b"\x03", opcode=8)]),
    (1002, [frame(b"\x00\x01", opcode=8)]),
    (1007, [frame(b"\xff\xfe")]),
    (1007, [frame(b"\x03\xe8\xff", opcode=8)]),
    (1009, [frame(b"x" * 20_000)]),
    (1009, [b"\x81\xff" + b"\x7f" + b"\xff" * 7 + b"abcd"]),
    (1009, [frame(b"x" * 10_000, fin=False), frame(b"x" * 10_000, opcode=0)]),
    (1000, [frame(b"", opcode=8)]),
    (1000, [frame(b"\x03\xe8bye", opcode=8)]),
])
async def test_broken_frames_end_their_connection_only(venue, connect, code, data) -> None:
    peer = await connect(venue)
    assert (await close_of(venue, *data))[0] == code
    assert (await peer.ask(op="ping"))["ok"]
    assert len(venue.app.feed.connected) == 1


async def test_parts_of_a_message_are_joined(venue) -> None:
    raw = await Raw.upgraded(venue.app.ports["feed"])
    for byte in (frame(PING[:5], fin=False) + frame(b"", opcode=9)
                 + frame(PING[5:], opcode=0) + frame(b"", opcode=8)):
        await raw.send(bytes([byte]))
    assert [opcode for opcode, _ in await raw.frames()] == [10, 1, 8]


async def test_parts_without_an_end_have_an_end(make_venue) -> None:
    venue = await make_venue(feed__requests_per_second=1_000_000)
    raw = await Raw.upgraded(venue.app.ports["feed"])
    await raw.send(frame(b"", fin=False))
    await raw.send(frame(b"x" * 100, opcode=0, fin=False) * 200)
    assert (await raw.closed())[0] == 1009


@pytest.mark.parametrize("flood", [frame(PING), frame(b"", opcode=9), frame(b"{"),
                                   frame(b"", fin=False)])
async def test_a_flood_is_cut(make_venue, connect, flood) -> None:
    venue = await make_venue(feed__requests_per_second=20)
    peer, raw = await connect(venue), await Raw.upgraded(venue.app.ports["feed"])
    ended = asyncio.create_task(raw.closed())
    for _ in range(200):
        try:
            await raw.send(flood * 100)
        except OSError:
            break
        await asyncio.sleep(0)
    assert (await ended)[0] in (1008, 1009, 1002, 0)
    assert (await peer.ask(op="ping"))["ok"]


async def test_more_after_a_broken_frame_is_not_read(venue) -> None:
    raw = await Raw.upgraded(venue.app.ports["feed"])
    await raw.send(frame(PING, masked=False))
    sent = 0
    try:
        for _ in range(400):
            await asyncio.wait_for(raw.send(b"x" * 65_536), 0.5)
            sent += 65_536
    except (OSError, TimeoutError):
        pass
    # The kernel's buffers, and no more.
    assert sent < 400 * 65_536
    raw.close()
    assert venue.app.feed.meters.bad_frames.value == 1


@pytest.mark.parametrize("head", [
    b"", b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/3\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nbroken\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000,
    HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X") % (b"", b""),
    HANDSHAKE.replace(b": 13", b": 12") % (b"", b""),
    HANDSHAKE % (b"?encoding=xml", b""), HANDSHAKE % (b"elsewhere", b""),
    HANDSHAKE % (b"", b"Origin: https://example.org\r\n"),
    HANDSHAKE % (b"", b"Origin: http://[::1\r\n"),
])
async def test_broken_handshakes_are_refused(venue, connect, head) -> None:
    raw = await Raw.connect(venue.app.ports["feed"])
    await raw.send(head)
    if head:
        answer = await raw.more()
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer
        assert b" 50" not in answer.split(b"\r\n")[0]
    raw.close()
    peer = await connect(venue)
    assert (await peer.ask(op="ping"))["ok"]
    assert len(venue.app.feed.connected) == 1


def enter(number: int, batch) -> None:
    """An order that may trade."""
    batch.enter(1, number, 1, random.Random(number).choice("BS"), 5, 1_000_000)


def requests() -> st.SearchStrategy[bytes]:
    """Requests that are nearly right."""
    value = st.one_of(
        st.sampled_from(["subscribe", "unsubscribe", "list", "auth", "ping", "book", "book_l3",
                         "trades", "bbo", "candles", "orders", "executions", "AAPL", "*", "[",
                         "*-USDT", "1m", "1s", "0-1"]),
        st.integers(-2, 60), st.integers(2**62, 2**70), st.none(), st.booleans(), st.floats(),
        st.text(max_size=8), st.lists(st.integers(), max_size=2))
    names = st.sampled_from(["op", "id", "channel", "symbol", "depth", "interval", "resume_from",
                             "log", "token", "x"])
    maps = st.dictionaries(names, value, max_size=6)
    right = st.fixed_dictionaries(
        {"op": st.sampled_from(["subscribe", "unsubscribe"]),
         "channel": st.sampled_from(["book", "bbo", "book_l3", "trades", "candles", "orders"]),
         "symbol": st.sampled_from(["AAPL", "*", "BTC-USDT"])},
        optional={"resume_from": st.integers(0, 60), "depth": st.integers(1, 20)})
    return st.one_of(
        right.map(lambda one: frame(msgspec.json.encode(one))),
        maps.map(lambda one: frame(_text(one))),
        right.map(lambda one: frame(msgspec.msgpack.encode(one), opcode=2)),
        st.binary(max_size=40).map(lambda data: frame(data, opcode=2)),
        st.binary(max_size=40).map(frame),
        st.binary(max_size=20))


def _text(value) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (OverflowError, ValueError, msgspec.EncodeError):
        return b"{}"


async def test_random_bytes_and_requests_harm_nobody(make_venue, connect) -> None:
    venue = await make_venue(feed__requests_per_second=1_000_000, feed__resume_window_ms=0)
    loop, feed = asyncio.get_running_loop(), venue.app.feed
    failures: list[object] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    peer = await connect(venue)
    await peer.subscribe("book")
    number = 0

    async def run(parts: list[bytes]) -> None:
        nonlocal number
        raw = await Raw.upgraded(venue.app.ports["feed"])
        for part in parts:
            # It may be closed already.
            with contextlib.suppress(ConnectionError):
                await raw.send(part)
            number += 1
            venue.inside(partial(enter, number))
            await asyncio.sleep(0)
        raw.close()

    @settings(max_examples=60, deadline=None,
              suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(requests(), max_size=8))
    def fuzz(parts: list[bytes]) -> None:
        asyncio.run_coroutine_threadsafe(run(parts), loop).result(30)

    await asyncio.to_thread(fuzz)
    for _ in range(200):
        if len(feed.connected) == 1 and len(feed.registry) <= 1:
            break
        await asyncio.sleep(0.05)
    assert not failures
    assert (await peer.ask(op="ping"))["ok"]
    # Nothing is left of them.
    assert len(feed.connected) == 1
    assert len(feed.registry) == 1
    assert not feed.joins.catching_up and not feed.upkeep.slow_count
    assert len(feed._groups) == 1

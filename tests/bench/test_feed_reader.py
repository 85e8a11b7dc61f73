"""The feed's reader believes nobody: a feed with a gap gets no figure."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.wsreader import Reader, WrongFeed, masked_frame, open_socket
from tests.bench.fake_feed import SEQ_STEP, FakeFeed, frame

Make = Callable[..., tuple[FakeFeed, Reader]]


@pytest.fixture
def connected() -> Iterator[Make]:
    """Makes readers that are subscribed at a fake feed, and can tick."""
    feeds = []

    def make(clients: int = 3, **options: Any) -> tuple[FakeFeed, Reader]:
        feed = FakeFeed(**options)
        feeds.append(feed)
        reader = Reader("127.0.0.1", feed.port, clients, chains=feed.chains)
        reader.connect([])
        reader.bytes_to(socket.create_connection(("127.0.0.1", feed.tick_port)), SEQ_STEP)
        return feed, reader

    yield make
    for feed in feeds:
        feed.stop()


@pytest.mark.parametrize(("cut", "rest"), [(1 << 20, 20), (1, 20), (7, 300), (1_000, 70_000)])
def test_every_message_is_counted_however_the_bytes_are_cut(connected: Make, cut: int,
                                                            rest: int) -> None:
    feed, reader = connected(cut=cut, rest=rest)
    reader.start()
    fast = reader.closed_loop(0.2)
    paced = reader.paced(50, 0.2)
    assert fast["ticks"] > 0
    assert paced["ticks"] == 10
    assert paced["messages"] == paced["latency"]["count"] == 10 * 3 * feed.chains
    assert paced["joined"] == 0
    assert 0 < fast["latency"]["p50_ns"] <= fast["latency"]["max_ns"]
    assert paced["message_bytes"] > rest


def test_no_tick_leaves_before_the_last_one_was_delivered(connected: Make) -> None:
    feed, reader = connected()
    reader.start()
    figures = reader.closed_loop(0.2, behind=1)
    assert feed.ticks - 2 >= figures["ticks"] > 0
    # With one tick out at a time all clients have all of them, give or take the ends.
    assert abs(figures["messages"] - figures["ticks"] * 3 * feed.chains) <= 3 * feed.chains


def with_(**fields: Any) -> Callable[[int, dict[str, Any]], Any]:
    """Changes fields of the fourth tick's messages; a callable gets the value."""
    def twist(tick: int, message: dict[str, Any]) -> Any:
        if tick != 4:
            return message
        return message | {name: value(message[name]) if callable(value) else value
                          for name, value in fields.items()}
    return twist


@pytest.mark.parametrize(("twist", "text"), [
    (with_(prev_seq=lambda seq: seq - 1), "a gap in a chain"),
    (with_(seq=lambda seq: seq - SEQ_STEP), "a gap in a chain"),
    (with_(type="reset"), "a gap in a chain"),
    (with_(type="snapshot"), "a snapshot instead of every change"),
    (with_(symbol="OTHER"), "a chain that was not subscribed"),
    (with_(seq=lambda seq: seq + 1000), "the feed's seq|a gap in a chain"),
    (lambda tick, message: message if tick != 4 else b'{"id":1,"ok":false}', "not answered with"),
])
def test_a_wrong_message_ends_the_run(connected: Make, twist: Any, text: str) -> None:
    _, reader = connected(twist=twist)
    reader.start()
    with pytest.raises(WrongFeed, match=text):
        reader.closed_loop(5)


def test_a_reader_that_may_be_slow_takes_snapshots() -> None:
    feed = FakeFeed(twist=with_(type="snapshot", prev_seq=0))
    reader = Reader("127.0.0.1", feed.port, 1, chains=feed.chains, strict=False)
    reader.connect([])
    ticks = socket.create_connection(("127.0.0.1", feed.tick_port))
    ticks.sendall(b"t" * 6)
    figures = reader.read(0.3)
    assert (figures["messages"], figures["snapshots"]) == (5 * feed.chains, feed.chains)
    feed.stop()


@pytest.mark.parametrize(("data", "text"), [
    (b"\x88\x00", "closed a WebSocket"), (b"\x81\x80abcd", "is masked"),
    (b"\x01\x00", "no whole text message"), (b"\xc1\x00", "no whole text message"),
])
def test_a_wrong_frame_ends_the_run(connected: Make, data: bytes, text: str) -> None:
    feed, reader = connected()
    reader.start()
    feed.clients[1].sendall(data)
    with pytest.raises(WrongFeed, match=text):
        reader.closed_loop(5)


def test_a_closed_connection_ends_the_run(connected: Make) -> None:
    feed, reader = connected()
    reader.start()
    feed.clients[2].shutdown(socket.SHUT_RDWR)
    with pytest.raises(WrongFeed, match="closed a connection"):
        reader.read(5)


def test_ticks_in_one_message_are_each_late(connected: Make) -> None:
    """A feed that joins every other tick with the next one."""
    held: dict[str, int] = {}

    def join(tick: int, message: dict[str, Any]) -> Any:
        if tick <= 2:
            return message
        if tick % 2:
            held[message["symbol"]] = message["prev_seq"]
            return b'{"ok":true}'
        return message | {"prev_seq": held[message["symbol"]]}

    feed, reader = connected(twist=join)
    reader.start()
    figures = reader.paced(100, 0.2)
    assert figures["ticks"] == 20
    assert figures["joined"] == 10 * 3 * feed.chains
    assert figures["latency"]["count"] == 20 * 3 * feed.chains
    # The tick that waited for the next one waited ten milliseconds.
    assert figures["latency"]["max_ns"] > 9_000_000


def test_pings_are_answered_with_masked_pongs(connected: Make) -> None:
    feed, reader = connected(clients=1)
    feed.clients[0].sendall(frame(b"are you there", 0x89))
    assert reader.read(0.3)["pings"] == 1
    assert feed.received == b"\x8a" + bytes([0x80 | 13]) + bytes(4) + b"are you there"


def test_requests_are_sent_masked() -> None:
    feed = FakeFeed()
    Reader("127.0.0.1", feed.port, 1, chains=2).connect(['{"op":"list"}', "y" * 200, "z" * 70_000])
    wanted = b"".join(masked_frame(1, text) for text in (b'{"op":"list"}', b"y" * 200,
                                                         b"z" * 70_000))
    assert wanted[:2] == b"\x81\x8d"
    deadline = time.monotonic() + 10
    while len(feed.received) < len(wanted) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert feed.received == wanted
    feed.stop()


def test_a_refused_upgrade_is_told() -> None:
    feed = FakeFeed(upgrade=b"503 Service Unavailable")
    with pytest.raises(WrongFeed, match="503"):
        open_socket("127.0.0.1", feed.port, "/")
    feed.stop()


def test_a_phase_needs_ticks() -> None:
    with pytest.raises(ValueError):
        Reader("127.0.0.1", 1, 1).closed_loop(1)

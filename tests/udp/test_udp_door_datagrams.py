"""Datagrams in one system call: what is read, decoded, put back, sent, and refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from cython_core.event import CommandBatch
from cython_core.model import Flag, Source
from cython_core.ouch import Decoder, SymbolTable
from engine import clock
from engine.intake.datagrams import DATAGRAM_MAX, Caller, DatagramSocket
from engine.intake.rate import RateWindow
from engine.intake.udp import UNSENT_DATAGRAMS_MAX, Line
from tests.support.wire import enter, message

NOW_NS = clock.NS_PER_S


class Pair:
    """A bound socket with its reader, and a client's socket connected to it."""

    def __init__(self) -> None:
        self.bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.bound.setblocking(False)
        self.bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        self.bound.bind(("127.0.0.1", 0))
        self.client = self.connect()
        self.reader = DatagramSocket(self.bound.fileno())
        symbols = SymbolTable()
        symbols.add("AAPL", 1)
        self.caller = Caller()
        self.caller.decoder = Decoder(symbols, 7, int(Source.UDP))
        self.callers = {key_of(self.client): self.caller}

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(self.bound.getsockname())
        client.settimeout(5)
        return client


def key_of(made: socket.socket) -> bytes:
    host, port = made.getsockname()
    family = int(socket.AF_INET).to_bytes(2, "little")
    return family + port.to_bytes(2, "big") + socket.inet_aton(host) + bytes(8)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.bound.close()
    made.client.close()


def test_nothing_there(pair: Pair) -> None:
    assert pair.reader.receive() == 0
    assert pair.reader.count == 0
    with pytest.raises(IndexError):
        pair.reader.data(0)


def test_many_datagrams_are_one_batch(pair: Pair) -> None:
    for first in range(1, 41, 2):
        pair.client.send(enter(first) + enter(first + 1))
    assert pair.reader.receive() == 20
    batch = CommandBatch()
    assert pair.reader.take_in(pair.callers, 0, batch, NOW_NS) == 20
    assert pair.caller.heard
    found = batch.dicts()
    assert [row["user_ref_num"] for row in found] == list(range(1, 41))
    assert {(row["source"], row["account_id"]) for row in found} == {("udp", 7)}
    assert pair.reader.bytes_in == 40 * len(enter(1))


def test_more_than_one_read_takes(pair: Pair) -> None:
    for number in range(1, 601):
        pair.client.send(enter(number))
    batch, sizes = CommandBatch(), []
    while pair.reader.receive():
        sizes.append(pair.reader.count)
        assert pair.reader.take_in(pair.callers, 0, batch, NOW_NS) == sizes[-1]
    assert sizes == [256, 256, 88]
    assert [row["user_ref_num"] for row in batch.dicts()] == list(range(1, 601))


def test_a_wrong_one_leaves_nothing_and_the_next_is_taken(pair: Pair) -> None:
    for data in (enter(1), enter(2) + enter(3) + b"\0\2Ux", enter(4)):
        pair.client.send(data)
    pair.reader.receive()
    batch = CommandBatch()
    assert pair.reader.take_in(pair.callers, 0, batch, NOW_NS) == 1
    assert pair.reader.fault == "unknown message type 0x78"
    assert not pair.reader.is_logout
    assert pair.reader.take_in(pair.callers, 2, batch, NOW_NS) == 3
    assert [row["user_ref_num"] for row in batch.dicts()] == [1, 4]


def test_what_stands_before_a_logout_is_done(pair: Pair) -> None:
    pair.client.send(enter(1) + b"\0\1O")
    pair.client.send(b"\0\1O" + enter(2))
    pair.reader.receive()
    batch = CommandBatch()
    assert pair.reader.take_in(pair.callers, 0, batch, NOW_NS) == 0
    assert pair.reader.is_logout
    pair.caller.decoder.reset()  # type: ignore[union-attr]
    assert pair.reader.take_in(pair.callers, 1, batch, NOW_NS) == 1
    assert not pair.reader.is_logout and pair.reader.fault == "packets behind a logout"
    assert [row["user_ref_num"] for row in batch.dicts()] == [1]


def test_strangers_are_counted_and_their_logins_shown(pair: Pair) -> None:
    other = pair.connect()
    other.send(enter(1))
    other.send(b"\0\x2fL" + bytes(46))
    other.send(b"")
    pair.client.send(enter(1))
    pair.reader.receive()
    batch = CommandBatch()
    assert pair.reader.take_in(pair.callers, 0, batch, NOW_NS) == 1
    assert pair.reader.sender(1) == key_of(other)
    assert pair.reader.take_in(pair.callers, 2, batch, NOW_NS) == 4
    assert (pair.reader.strangers, batch.command_count) == (2, 1)
    other.close()


def test_a_longer_one_than_is_taken_is_known_as_cut(pair: Pair) -> None:
    whole = (enter(1) * 200)[:DATAGRAM_MAX]
    pair.client.send(whole)
    pair.client.send(whole + b"\0")
    pair.reader.receive()
    assert [pair.reader.is_cut(at) for at in (0, 1)] == [False, True]
    assert pair.reader.take_in(pair.callers, 1, CommandBatch(), NOW_NS) == 1


def test_the_rate_counts_what_was_done(pair: Pair) -> None:
    pair.caller.window = RateWindow(3)
    for data in (enter(1) + enter(2) + b"\0", enter(1) + message("Q"), enter(2) + enter(3),
                 enter(4)):
        pair.client.send(data)
    pair.reader.receive()
    batch = CommandBatch()
    assert pair.reader.take_in(pair.callers, 0, batch, NOW_NS) == 0
    assert pair.reader.take_in(pair.callers, 1, batch, NOW_NS) == 4
    late = [bool(row["flags"] & int(Flag.RATE_EXCEEDED)) for row in batch.dicts()]
    assert late == [False, False, False, False, True]


def test_what_is_sent_arrives_in_order(pair: Pair) -> None:
    datagrams = [str(number).encode() for number in range(200)]
    assert pair.reader.send(key_of(pair.client), datagrams) == 200
    assert [pair.client.recv(100) for _ in range(200)] == datagrams
    assert (pair.reader.datagrams_out, pair.reader.failed) == (200, 0)
    assert pair.reader.bytes_out == sum(map(len, datagrams))


def test_what_the_system_refuses_is_counted_and_passed_over(pair: Pair) -> None:
    datagrams = [b"one", bytes(70_000), b"two"]
    assert pair.reader.send(key_of(pair.client), datagrams) == 3
    assert [pair.client.recv(100) for _ in range(2)] == [b"one", b"two"]
    assert (pair.reader.failed, pair.reader.datagrams_out) == (1, 2)
    assert pair.reader.failure


def test_a_closed_one_never_touches_its_old_descriptor(pair: Pair) -> None:
    pair.reader.close()
    assert pair.reader.send(key_of(pair.client), [b"x"]) == 1
    assert (pair.reader.failed, pair.reader.datagrams_out) == (1, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair.reader.receive()


def test_no_address_and_no_bytes(pair: Pair) -> None:
    with pytest.raises(ValueError, match="address"):
        pair.reader.send(b"nowhere", [b"x"])
    with pytest.raises(TypeError):
        pair.reader.send(key_of(pair.client), ["x"])  # type: ignore[list-item]


async def test_without_room_datagrams_wait_and_then_are_lost() -> None:
    """UDP on loopback never has no room, so the system call is played here."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", 0))
    line, sent = Line(bound), Fake()
    line.datagrams = sent  # type: ignore[assignment]
    sent.room = 2
    line.send(b"a", [b"1", b"2", b"3"])
    line.send(b"b", [b"4"])
    assert sent.gone == [(b"a", b"1"), (b"a", b"2")]
    line.send(b"c", [b"5"] * UNSENT_DATAGRAMS_MAX)
    assert line.unsent == UNSENT_DATAGRAMS_MAX
    sent.room = 10
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(sent.gone) == 4:
            break
    assert sent.gone[2:] == [(b"a", b"3"), (b"b", b"4")]
    line.send(b"d", [b"6"])
    assert sent.gone[-1] == (b"d", b"6")
    line.close()


class Fake:
    """A socket with room for so many datagrams."""

    def __init__(self) -> None:
        self.room = 0
        self.closed = False
        self.gone: list[tuple[bytes, bytes]] = []

    def send(self, address: bytes, datagrams: list[bytes], start: int = 0) -> int:
        some = min(self.room, len(datagrams))
        self.room -= some
        self.gone += [(address, data) for data in datagrams[:some]]
        return some

    def close(self) -> None:
        self.closed = True

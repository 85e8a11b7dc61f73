"""Every row of PROTOCOLS 3.2's table, byte for byte, against the real daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cython_core.mold import build_request, parse_header
from cython_core.ouch import decode
from cython_core.soupbin import build_debug, build_login
from tests.support.daemon import Daemon
from tests.support.datagrams import Raw
from tests.support.wire import cancel, enter

SESSION = b"0123456789"


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[Raw]:
    with Raw(daemon.udp_port) as made:
        yield made


@pytest.mark.parametrize("timeout_ms", [None, 5_000])
def test_login_and_its_reply(raw: Raw, timeout_ms: int | None) -> None:
    request = (b"\0\x2fL" if timeout_ms is None else b"\0\x34L") + (
        b"MAKER1demo      " + b" " * 10 + b" " * 19 + b"1")
    if timeout_ms is not None:
        request += b" 5000"
    raw.send(request)
    reply = raw.receive()
    assert len(reply) == 33 <= len(request)
    assert reply[:3] == b"\0\x1fA"
    assert reply[3:13].strip().isalnum() and reply[3:13] == reply[3:13].strip().rjust(10)
    assert reply[13:] == b" " * 19 + b"1"
    raw.send(request)
    assert raw.receive() == reply


@pytest.mark.parametrize(("change", "letter"), [
    ({"password": "wrong"}, b"A"), ({"user": "NOBODY"}, b"A"),
    ({"session": "ELSEWHERE"}, b"S"), ({"sequence": 7}, b"S"),
])
def test_a_refused_login(raw: Raw, change: dict[str, object], letter: bytes) -> None:
    assert raw.login(**change) == b"\0\x02J" + letter  # type: ignore[arg-type]
    assert raw.silence()


def test_orders_and_their_responses(raw: Raw) -> None:
    raw.login()
    session = raw.session.rjust(10).encode()
    raw.send(enter(1, "B", 100, symbol="BTC-USDT", price=6_750_000),
             enter(2, "B", 50, symbol="BTC-USDT", price=6_750_000), cancel(1))
    data = raw.receive()
    assert data[:20] == session + (1).to_bytes(8, "big") + (3).to_bytes(2, "big")
    blocks, at = [], 20
    while at < len(data):
        size = int.from_bytes(data[at:at + 2], "big")
        blocks.append(data[at + 2:at + 2 + size])
        at += 2 + size
    assert at == len(data)
    assert [block[:1] for block in blocks] == [b"A", b"A", b"C"]
    assert [decode("out", block)["user_ref_num"] for block in blocks] == [1, 2, 1]
    # The stream's numbers run on.
    raw.send(cancel(2))
    assert raw.receive()[:20] == session + (4).to_bytes(8, "big") + (1).to_bytes(2, "big")


def test_server_heartbeat(raw: Raw) -> None:
    raw.login()
    session = raw.session.rjust(10).encode()
    assert raw.receive() == session + (1).to_bytes(8, "big") + b"\0\0"
    raw.send(enter(1))
    assert raw.receive()[18:20] == b"\0\1"
    assert raw.receive() == session + (2).to_bytes(8, "big") + b"\0\0"


def test_gap_request_and_its_reply(raw: Raw) -> None:
    raw.login()
    raw.send(*(enter(number) for number in range(1, 6)))
    whole = raw.receive()
    assert whole[18:20] == b"\0\5"
    request = raw.session.rjust(10).encode() + (2).to_bytes(8, "big") + (3).to_bytes(2, "big")
    assert request == build_request(raw.session, 2, 3)
    raw.send(request)
    size = (len(whole) - 20) // 5
    expected = raw.session.rjust(10).encode() + (2).to_bytes(8, "big") + b"\0\3"
    assert raw.receive() == expected + whole[20 + size:20 + 4 * size]
    raw.send(build_request(raw.session, 1, 5))
    assert raw.receive() == whole


def test_client_heartbeat_keeps_the_session(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(order_entry__timeout_ms=1_500, order_entry__heartbeat_ms=100).start()
    with Raw(daemon.udp_port) as lively, Raw(daemon.udp_port) as silent:
        lively.login("MAKER1")
        silent.login("MAKER2")
        for _ in range(30):
            lively.send(b"\0\1R")
            lively.until(lambda data: data[18:20] == b"\0\0")
        lively.send(enter(1))
        lively.mold()
        assert silent.debug() == "silent for 1500 ms"


def test_end_of_session(daemon: Daemon, raw: Raw) -> None:
    raw.login()
    raw.send(enter(1))
    raw.mold()
    old = raw.session
    assert daemon.run("session", "roll").returncode == 0
    # What the roll does to the order comes before the end.
    header, messages = raw.mold()
    assert (header.session, header.sequence, [kind[:1] for kind in messages]) == (old, 2, [b"C"])
    end = raw.until(lambda data: data[18:20] == b"\xff\xff")
    assert end == old.rjust(10).encode() + (3).to_bytes(8, "big") + b"\xff\xff"
    # Told again by itself, and to whoever goes on as if nothing had happened.
    assert raw.receive() == end
    raw.send(enter(2))
    assert raw.receive() == end
    # A request still works, and a login opens the next session.
    raw.ask(1, 2, old)
    assert raw.receive()[18:20] == b"\0\2"
    reply = raw.login()
    assert raw.session != old and int(reply[13:]) == 1
    raw.send(enter(1))
    assert raw.mold()[0].sequence == 1


def test_logout_ends_the_session_without_a_word(raw: Raw) -> None:
    raw.login()
    raw.send(enter(1), b"\0\1O")
    # The order before it was done; its answer is for the next session.
    assert raw.silence(1.5)
    raw.send(enter(2))
    assert raw.silence(0.5)
    assert int(raw.login(sequence=1)[13:]) == 1
    assert [decode("out", data)["user_ref_num"] for data in raw.messages(1, 1)] == [1]


def test_debug_packets_are_passed_over_and_sent(raw: Raw) -> None:
    raw.login()
    raw.send(build_debug("hello"), enter(1), build_debug("x" * 500))
    assert raw.mold()[0].sequence == 1
    raw.send(b"\0\2Ux")
    assert raw.debug() == "datagram dropped: unknown message type 0x78"


def test_strangers_are_not_answered(raw: Raw) -> None:
    for data in (enter(1), b"\0\1R", b"\0\1O", build_debug("hello"), SESSION + bytes(10),
                 build_request("0123456789", 1, 10), b"", b"L", build_login("MAKER1", "demo")[:-1],
                 build_login("MAKER1", "demo") + b" ", build_login("MAKER1", "demo") * 2,
                 b"\0\x30L" + b" " * 46, b"\0\x2fL" + b"\xff" * 46):
        raw.send(data)
    assert raw.silence(1.0)


def test_a_login_stands_alone(raw: Raw) -> None:
    raw.send(build_login("MAKER1", "demo"), enter(1))
    assert raw.silence(0.5)
    raw.login()
    assert parse_header(raw.receive()).sequence == 1

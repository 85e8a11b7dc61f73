"""The HTTP connection itself: one write for an answer, requests in a row, an end to idleness."""

from __future__ import annotations

import socket

import pytest

from engine.api.protocol import REQUEST_NS_MAX, REST_NS_MAX, Connection
from tests.support.daemon import Daemon

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n%b\r\n"


def read_answer(sock: socket.socket, data: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """Head and body of the next answer, and what came after it."""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(rest) < size:
        rest += sock.recv(65536)
    return head, rest[:size], rest[size:]


@pytest.fixture
def sock(make_daemon):
    daemon: Daemon = make_daemon().start()
    with socket.create_connection(("127.0.0.1", daemon.api_port), timeout=10) as sock:
        yield sock


def test_an_answer_comes_in_one_piece(sock):
    sock.sendall(GET % b"")
    head, body, rest = read_answer(sock, sock.recv(65536))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body[:1] == b"{"
    assert rest == b""
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert len(set(names)) == len(names)
    assert {b"date", b"content-type", b"content-length"} <= set(names)


def test_requests_in_a_row_are_answered_in_their_order(sock):
    sock.sendall(GET % b"" + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + GET % b"")
    rest, found = b"", []
    for _ in range(3):
        head, _, rest = read_answer(sock, rest)
        found.append(head.split(b" ")[1])
    assert found == [b"200", b"404", b"200"]


def test_a_client_that_wants_the_end_gets_it(sock):
    sock.sendall(GET % b"Connection: close\r\n")
    head, _, rest = read_answer(sock)
    assert b"connection: close" in head.lower()
    assert rest + sock.recv(1) == b""


def test_a_head_alone_has_no_body(sock):
    sock.sendall((GET % b"").replace(b"GET", b"HEAD") + GET % b"")
    data = b""
    while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"}"):
        data += sock.recv(65536)
    first, _, second = data.partition(b"\r\n\r\n")
    assert second.startswith(b"HTTP/1.1 200")
    assert b"content-length" in first.lower()


class Rests:
    """What the sweep looks at of a connection."""

    def __init__(self, begun_ns: int, rested_ns: int, answered: bool) -> None:
        self.begun_ns, self.rested_ns = begun_ns, rested_ns
        self.stalled_ns = 0
        self.refusal = b""
        self.cycle = type("Cycle", (), {"response_complete": answered})
        self.calls: list[str] = []
        self.transport = self

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")


@pytest.mark.parametrize(("connection", "now_ns", "calls"), [
    (Rests(1, 1, True), REQUEST_NS_MAX, []),
    (Rests(1, 1, True), REQUEST_NS_MAX + 1, ["abort"]),
    (Rests(0, 1, True), REST_NS_MAX, []),
    (Rests(0, 1, True), REST_NS_MAX + 1, ["close"]),
    (Rests(0, 1, False), REST_NS_MAX + 1, []),
])
def test_slow_requests_are_cut_and_idle_connections_closed(connection, now_ns, calls):
    assert Connection.cut_if_slow(connection, now_ns) == (calls == ["abort"])
    assert connection.calls == calls

"""The HTTP load generator believes nobody either, and its signatures are the venue's."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bench import request
from bench.httpload import COUNTER, HttpLoad, WrongAnswer

Answer = Callable[[int, bytes], bytes]


def answer(body: bytes, status: str = "201 Created", length: bytes | None = None) -> bytes:
    """A whole answer; its header's name is written in an unusual way on purpose."""
    return b"HTTP/1.1 %b\r\nserver: x\r\nCONTENT-length:  %b\r\nx: y\r\n\r\n%b" % (
        status.encode(), length or str(len(body)).encode(), body)


def honest(number: int, _: bytes) -> bytes:
    """An order for each request."""
    return answer(b'{"order_id":"%d","rest":"%b"}' % (1000 + number, b"x" * (number % 50)))


class FakeHttp:
    """Answers each request by a function of its number and bytes, so many bytes at a time."""

    def __init__(self, make: Answer, cut: int = 1 << 20) -> None:
        self.make, self.cut = make, cut
        self.requests: list[bytes] = []
        self.numbers = itertools.count()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError), client:
            while part := client.recv(65536):
                data += part
                while b"\r\n\r\n" in data:
                    head, _, rest = data.partition(b"\r\n\r\n")
                    found = re.search(rb"Content-Length: (\d+)", head)
                    size = int(found[1]) if found else 0
                    if len(rest) < size:
                        break
                    self.requests.append(head + b"\r\n\r\n" + rest[:size])
                    data = rest[size:]
                    reply = self.make(next(self.numbers), self.requests[-1])
                    for at in range(0, len(reply), self.cut):
                        client.sendall(reply[at:at + self.cut])


@pytest.fixture
def served() -> Iterator[Callable[..., FakeHttp]]:
    """Makes fake servers."""
    servers = []

    def make(make: Answer = honest, cut: int = 1 << 20) -> FakeHttp:
        servers.append(FakeHttp(make, cut))
        return servers[-1]

    yield make
    for server in servers:
        server.listener.close()


def load(server: FakeHttp, requests: list[bytes], connections: int = 4, **options: object
         ) -> HttpLoad:
    made = HttpLoad("127.0.0.1", server.port, connections, requests,
                    **{"expect": 201, "ids_after": b'"order_id":"'} | options)  # type: ignore
    made.connect()
    return made


ORDER = request.request("POST", "/v1/orders", b'{"client_order_id":"a-' + COUNTER + b'"}')


@pytest.mark.parametrize("cut", [1 << 20, 1, 30])
def test_every_request_is_answered_and_counted(served: Callable[..., FakeHttp], cut: int) -> None:
    server = served(cut=cut)
    generator = load(server, [ORDER])
    for _ in range(2):
        figures = generator.run(0.2)
        assert figures["requests"] == figures["latency"]["count"] > 0
        assert figures["statuses"] == {201: figures["requests"]}
        assert figures["body_bytes"] > 20
    ids = {json.loads(one.partition(b"\r\n\r\n")[2])["client_order_id"] for one in server.requests}
    assert len(ids) == len(server.requests)
    assert f"a-{0:012d}" in ids
    # The last answers of a run are waited for, and are not in its figures.
    assert len(server.requests) >= figures["requests"]


@pytest.mark.parametrize(("make", "text"), [
    (lambda number, _: answer(b"{}", "503 Busy"), "not the status.*503 Busy"),
    (lambda number, _: answer(b'{"order_id":"77"}'), "a number came twice"),
    (lambda number, _: answer(b'{"order":"77"}'), "without a number"),
    (lambda number, _: answer(b"{}", length=b"99999"), "without Content-Length, or a long one"),
    (lambda number, _: b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "without Content-Length"),
    (lambda number, _: honest(number, _) + b"HTTP/1.1 200", "nothing asked for"),
    (lambda number, _: b"x" * 70_000, "without an end of its head"),
])
def test_a_wrong_answer_ends_the_run(served: Callable[..., FakeHttp], make: Answer,
                                     text: str) -> None:
    generator = load(served(make), [ORDER])
    with pytest.raises(WrongAnswer, match=f"(?s){text}"):
        generator.run(5)


def test_a_request_that_may_be_sent_once_is_sent_once(served: Callable[..., FakeHttp]) -> None:
    server = served()
    generator = load(server, [ORDER] * 20, once=True)
    with pytest.raises(WrongAnswer, match="too few requests"):
        generator.run(5)
    assert len(server.requests) <= 20


def hang_up(number: int, _: bytes) -> bytes:
    raise ConnectionError


def test_a_closed_connection_ends_the_run(served: Callable[..., FakeHttp]) -> None:
    server = served()
    generator = load(server, [ORDER])
    server.make = hang_up
    with pytest.raises(WrongAnswer, match="closed a connection"):
        generator.run(5)


def test_signed_orders_carry_what_the_venue_checks() -> None:
    job = {"seconds": 0.001, "warmup_seconds": 0.0, "signer": {"key": "k1", "secret": "s3cret"}}
    made = request.order_requests(job)
    assert len(made) >= 1000
    assert len({one.partition(b"\r\n\r\n")[2] for one in made}) == len(made)
    head, _, body = made[3].partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    text = f"{headers['X-MATCHD-TIMESTAMP']}\nPOST\n/v1/orders\n".encode() + body
    assert headers["X-MATCHD-SIGNATURE"] == hmac.new(b"s3cret", text, hashlib.sha256).hexdigest()
    assert headers["X-MATCHD-KEY"] == "k1"
    assert int(headers["Content-Length"]) == len(body)
    assert json.loads(body)["side"] == "sell"


def tolerant(server: FakeHttp, **options: object) -> HttpLoad:
    return load(server, [ORDER], tolerant=True, **options)


def test_a_tolerant_run_counts_other_statuses(served: Callable[..., FakeHttp]) -> None:
    def sometimes(number: int, _: bytes) -> bytes:
        return answer(b"{}", "503 Service Unavailable") if number % 4 == 0 else honest(number, _)
    figures = tolerant(served(sometimes)).run(0.3)
    assert figures["statuses"].keys() == {201, 503}
    assert figures["errors"] == figures["statuses"][503]
    assert figures["error_rate"] == figures["errors"] / sum(figures["statuses"].values())
    assert 0.1 < figures["error_rate"] < 0.4


def test_a_tolerant_run_goes_on_over_new_connections(served: Callable[..., FakeHttp]) -> None:
    def hangs_up(number: int, _: bytes) -> bytes:
        return hang_up(number, _) if number % 10 == 5 else honest(number, _)
    figures = tolerant(served(hangs_up)).run(0.5)
    assert figures["lost"] == figures["errors"] > 1
    assert figures["statuses"][201] > figures["lost"]


def test_a_tolerant_run_counts_what_nobody_can_read(served: Callable[..., FakeHttp]) -> None:
    figures = tolerant(served(lambda number, _: answer(b"{}", length=b"99999"))).run(0.3)
    assert figures["requests"] == 0
    assert figures["errors"] == figures["lost"] > 0
    assert figures["error_rate"] == 1.0


def test_a_tolerant_run_counts_what_is_never_answered(served: Callable[..., FakeHttp]) -> None:
    figures = tolerant(served(lambda number, _: b""), settle_seconds=0.1).run(0.2)
    assert (figures["requests"], figures["lost"], figures["errors"]) == (0, 4, 4)


def test_a_tolerant_run_counts_connections_that_are_refused(
        served: Callable[..., FakeHttp]) -> None:
    server = served(hang_up)
    generator = tolerant(server)
    server.listener.close()
    figures = generator.run(0.3)
    assert figures["requests"] == 0
    assert figures["refused"] > 0
    assert figures["errors"] == figures["lost"] + figures["refused"]


def test_not_even_a_tolerant_run_takes_an_order_twice(served: Callable[..., FakeHttp]) -> None:
    with pytest.raises(WrongAnswer, match="came twice"):
        tolerant(served(lambda number, _: honest(7, _))).run(5)

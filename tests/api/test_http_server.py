"""The server itself: limits, connections, the end."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.api.protocol import THROWN_BYTES_MAX
from tests.api.conftest import make_key
from tests.support.daemon import Daemon
from tests.support.http import Caller
from tests.support.venue import Venue

BODY = {"symbol": "BTC-USDT", "side": "buy", "quantity": "0.5", "price": "60000"}


def raw(port: int, data: bytes) -> bytes:
    """What comes back for these bytes, until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), 20) as peer:
        peer.sendall(data)
        got = b""
        while piece := peer.recv(65536):
            got += piece
        return got


def test_every_answer_says_what_is_left_and_too_many_are_429(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(api__requests_per_second=5).start()
    caller = Caller(daemon.api_port, make_key(daemon, "MAKER1"))
    answers = [caller("GET", "/v1/account") for _ in range(40)]
    first, late = answers[0], [got for got in answers if got.status == 429]
    assert (first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]) == (
        "5", "4")
    assert abs(int(first.headers["x-ratelimit-reset"]) - time.time()) < 60
    assert late
    assert (late[0].code, late[0].headers["retry-after"], late[0].headers[
        "x-ratelimit-remaining"]) == ("rate_limited", "1", "0")
    # Another key has its own allowance.
    assert Caller(daemon.api_port, make_key(daemon, "MAKER1"))("GET", "/v1/account").status == 200


def test_an_accounts_orders_in_a_second_are_counted_over_all_doors(tmp_path: Path) -> None:
    async def session() -> None:
        venue = Venue(tmp_path, limits={"MAKER1": {"messages_per_second": 3}})
        await venue.start()
        port = venue.app.ports["api"]

        def send(number: int) -> tuple[int, str]:
            got = Caller(port)("POST", "/v1/orders", BODY | {"client_order_id": f"rate-{number}"})
            return got.status, got.code

        answers = [await asyncio.to_thread(send, number) for number in range(30)]
        refused = [number for number, (status, _) in enumerate(answers) if status == 429]
        assert refused and {answers[number] for number in refused} == {
            (429, "message_rate_exceeded")}
        # Such an order may be sent again with its id.
        deadline = time.monotonic() + 10
        while (again := await asyncio.to_thread(send, refused[0]))[0] == 429:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert again == (201, "")
        await venue.stop()

    asyncio.run(session())


def test_while_the_venue_stops_requests_are_503(tmp_path: Path) -> None:
    async def session() -> None:
        venue = await Venue(tmp_path).start()
        port = venue.app.ports["api"]
        caller = Caller(port)
        assert (await asyncio.to_thread(caller, "POST", "/v1/orders", BODY)).status == 201
        venue.app.drain_http()
        for method, path, body in (("POST", "/v1/orders", BODY), ("GET", "/v1/orders", None)):
            got = await asyncio.to_thread(Caller(port), method, path, body)
            assert (got.status, got.code) == (503, "stopping")
            assert int(got.headers["retry-after"]) >= 1
            assert got.headers["connection"] == "close"
        await venue.stop()
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(Caller(port), "GET", "/v1/orders")

    asyncio.run(session())


def test_orders_under_way_are_answered_when_a_signal_comes(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    port = daemon.api_port
    callers = [Caller(port) for _ in range(8)]
    for caller in callers:
        assert caller("POST", "/v1/orders", BODY).status == 201
    assert daemon.stop() == 0
    daemon.start()
    found = Caller(daemon.api_port)("GET", "/v1/orders?limit=1000").json["orders"]
    assert len(found) == 8
    assert {one["status"] for one in found} == {"open"}


def test_a_venue_that_has_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    async def life() -> weakref.ref[object]:
        venue = await Venue(tmp_path).start()
        status = await asyncio.to_thread(
            lambda: Caller(venue.app.ports["api"])("GET", "/v1/instruments").status)
        assert status == 200
        await venue.stop()
        return weakref.ref(venue.app)

    ended = asyncio.run(life())
    gc.collect()
    assert ended() is None


@pytest.mark.parametrize("data", [
    b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    b"POST /v1/orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
])
def test_bytes_that_are_no_http_are_answered_and_closed(venue: Daemon, data: bytes) -> None:
    got = raw(venue.api_port, data)
    assert got.startswith(b"HTTP/1.1 400") and b'"code":"no_http"' in got
    assert Caller(venue.api_port)("GET", "/v1/account").status == 200


def test_a_head_without_end_is_cut(venue: Daemon) -> None:
    got = raw(venue.api_port, b"GET / HTTP/1.1\r\n" + b"".join(
        b"x-%d: %b\r\n" % (number, b"a" * 1000) for number in range(100)))
    assert got.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("data", [
    b"GET /v1/instruments HTTP/1.1\r\nhost: x\r\nx-long: %b\r\n\r\n" % (b"a" * 17_000),
    b"GET /v1/instruments?x=%b HTTP/1.1\r\nhost: x\r\n\r\n" % (b"a" * 17_000),
])
def test_a_head_that_comes_whole_has_the_same_bound(venue: Daemon, data: bytes) -> None:
    assert raw(venue.api_port, data).startswith(b"HTTP/1.1 431")
    short = data.replace(b"a" * 2_000, b"", 1).replace(b"host: x", b"host: x\r\nconnection: close")
    assert not raw(venue.api_port, short).startswith(b"HTTP/1.1 431")


def test_a_body_that_will_be_too_large_is_refused_before_it_is_sent(venue: Daemon) -> None:
    head = (b"POST /v1/orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n")
    assert raw(venue.api_port, head % 5_000_000).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", venue.api_port), 20) as peer:
        peer.sendall(head % 2)
        assert peer.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(b"{}")
        assert peer.recv(65536).startswith(b"HTTP/1.1 400")


LARGE = b"POST /v1/orders HTTP/1.1\r\nhost: localhost\r\n%b\r\n"


@pytest.mark.parametrize(("headers", "piece"), [
    (b"content-length: 20000000\r\n", b" " * 100_000),
    (b"transfer-encoding: chunked\r\n", b"186a0\r\n%b\r\n" % (b" " * 100_000)),
])
def test_who_sends_a_body_that_is_too_large_to_its_end_reads_why_it_was_refused(
        venue: Daemon, headers: bytes, piece: bytes) -> None:
    one = b"GET /v1/account HTTP/1.1\r\nhost: localhost\r\n\r\n"
    got = raw(venue.api_port, one + LARGE % headers + piece * 200 + b"0\r\n\r\nnonsense")
    lines = got.split(b"\r\n")
    # The request before it has its answer first, and nothing behind it is looked at.
    assert [line for line in lines if b"HTTP/1.1 " in line] == [
        b"HTTP/1.1 200 OK", next(line for line in lines if b"HTTP/1.1 413" in line)]
    assert got.endswith(b'"details":{}}') and b"body_too_large" in lines[-1]


def test_what_is_thrown_away_after_a_refusal_is_bounded(venue: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", venue.api_port), 20) as peer:
        peer.sendall(LARGE % b"content-length: 1000000000\r\n")
        sent = 0
        with pytest.raises(OSError, match=r"reset|Broken"):
            while sent < 1_000_000_000:
                peer.sendall(bytes(1_000_000))
                sent += 1_000_000
    assert sent >= THROWN_BYTES_MAX
    assert Caller(venue.api_port)("GET", "/v1/account").status == 200


def test_requests_in_one_write_are_answered_in_their_order(venue: Daemon) -> None:
    one = b"GET /v1/account HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = b"GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    got = raw(venue.api_port, one * 5 + last)
    statuses = [line for line in got.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert len(statuses) == 6
    assert all(b" 200 " in line for line in statuses[:5])
    assert b" 404 " in statuses[5]


def test_a_taken_port_is_one_line(make_daemon: Callable[..., Daemon], venue: Daemon) -> None:
    daemon = make_daemon(api__port=venue.api_port)
    daemon.spawn()
    assert daemon.wait() == 1
    assert "api.host and api.port" in daemon.log_path.read_text().splitlines()[-1]


def test_the_running_venue_says_its_ports(venue: Daemon) -> None:
    import json

    got = json.loads(venue.run("session", "status", "--json").stdout)
    assert got["ports"]["order_entry"] == venue.port
    assert got["ports"]["api"] == venue.api_port

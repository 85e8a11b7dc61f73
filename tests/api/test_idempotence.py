"""A client_order_id makes an order safe to send again: it trades once."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.conftest import make_key
from tests.support.daemon import Daemon
from tests.support.http import Caller, signed

BODY = {"symbol": "BTC-USDT", "side": "buy", "quantity": "0.5", "price": "60000"}


def logged(daemon: Daemon, kind: str) -> list[dict[str, Any]]:
    """The events of a kind in the log."""
    done = daemon.run("journal", "dump")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_the_same_order_again_gives_the_first_answer(call: Callable[..., Caller]) -> None:
    maker, taker = call("MAKER1"), call("TAKER1")
    first = maker("POST", "/v1/orders", BODY | {"client_order_id": "again-1"})
    taker("POST", "/v1/orders", BODY | {"side": "sell", "quantity": "0.1"})
    again = maker("POST", "/v1/orders", BODY | {"client_order_id": "again-1"})
    assert (first.status, again.status) == (201, 200)
    assert again.json == first.json
    assert again.headers["idempotent-replay"] == "true"
    assert "idempotent-replay" not in first.headers
    # Written otherwise, it is the same order all the same.
    same = BODY | {"client_order_id": "again-1", "quantity": "0.500000", "price": "60000.00",
                   "time_in_force": "gtc", "order_type": "limit", "post_only": False}
    assert maker("POST", "/v1/orders", same).json == first.json
    assert maker("GET", "/v1/orders/again-1").json["status"] == "partially_filled"
    maker("DELETE", "/v1/orders/again-1")
    assert maker("POST", "/v1/orders", BODY | {"client_order_id": "again-1"}).json == first.json


@pytest.mark.parametrize("change", [{"quantity": "0.6"}, {"price": "60000.01"}, {"side": "sell"},
                                    {"time_in_force": "day"}, {"post_only": True},
                                    {"symbol": "AAPL", "quantity": 1}])
def test_another_order_with_the_same_id_is_409(call: Callable[..., Caller],
                                               change: dict[str, Any]) -> None:
    maker = call("MAKER1")
    maker("POST", "/v1/orders", BODY | {"client_order_id": "other-1"})
    got = maker("POST", "/v1/orders", BODY | {"client_order_id": "other-1"} | change)
    assert (got.status, got.code) == (409, "client_order_id_reused")
    assert got.json["details"]["client_order_id"] == "other-1"


def test_ids_are_the_accounts_own(call: Callable[..., Caller]) -> None:
    one = call("MAKER1")("POST", "/v1/orders", BODY | {"client_order_id": "own-1"})
    two = call("MAKER2")("POST", "/v1/orders", BODY | {"client_order_id": "own-1"})
    assert (one.status, two.status) == (201, 201)
    assert one.json["order_id"] != two.json["order_id"]


def test_a_refused_order_is_refused_again_and_its_id_is_used(call: Callable[..., Caller]) -> None:
    maker = call("MAKER1")
    wrong = BODY | {"symbol": "AAPL", "quantity": 1, "price": "1.005",
                    "client_order_id": "refused-1"}
    first, again = (maker("POST", "/v1/orders", wrong) for _ in range(2))
    assert (first.status, again.status) == (422, 422)
    assert first.json == again.json
    assert again.headers["idempotent-replay"] == "true"
    right = maker("POST", "/v1/orders", wrong | {"price": "1.01"})
    assert (right.status, right.code) == (409, "client_order_id_reused")


def test_many_at_once_enter_one_order(venue: Daemon, keys: dict[str, dict[str, Any]]) -> None:
    barrier = threading.Barrier(16)

    def send(_: int) -> tuple[int, str]:
        caller = Caller(venue.api_port, keys["MAKER2"])
        caller("GET", "/v1/account")
        barrier.wait()
        got = caller("POST", "/v1/orders", BODY | {"client_order_id": "crowd-1"})
        caller.close()
        return got.status, got.json["order_id"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(16)))
    assert Counter(status for status, _ in answers) == {201: 1, 200: 15}
    assert len({order_id for _, order_id in answers}) == 1


def test_a_lost_reply_and_a_resend_across_a_kill_trade_once(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    maker, taker = make_key(daemon, "MAKER1"), make_key(daemon, "TAKER1")
    assert Caller(daemon.api_port, maker)("POST", "/v1/orders", BODY).status == 201
    order = json.dumps(BODY | {"side": "sell", "client_order_id": "lost-1"}).encode()
    rejected = json.dumps(BODY | {"symbol": "AAPL", "quantity": 1, "price": "1.005",
                                  "client_order_id": "lost-2"}).encode()
    for body in (order, rejected):
        send_and_hang_up(daemon.api_port, taker, body)
    # The order is durable once another request, made after it, is answered.
    watcher = Caller(daemon.api_port, taker)
    while not watcher("GET", "/v1/trades").json["trades"]:
        pass
    first = watcher("POST", "/v1/orders", order)
    daemon.kill()

    daemon.start()
    again = Caller(daemon.api_port, taker)("POST", "/v1/orders", order)
    assert (again.status, again.headers["idempotent-replay"]) == (200, "true")
    assert again.json == first.json
    assert again.json["status"] == "filled"
    refused = Caller(daemon.api_port, taker)("POST", "/v1/orders", rejected)
    assert (refused.status, refused.code) == (422, "price_off_tick")
    other = Caller(daemon.api_port, taker)("POST", "/v1/orders", BODY | {
        "client_order_id": "lost-1"})
    assert (other.status, other.code) == (409, "client_order_id_reused")
    found = Caller(daemon.api_port, taker)("GET", "/v1/orders/lost-1")
    assert found.json["status"] == "filled"
    assert found.json["fills"] == again.json["fills"]
    assert daemon.stop() == 0
    assert len(logged(daemon, "fill")) == 1
    verified = daemon.run("journal", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def send_and_hang_up(port: int, key: dict[str, Any], body: bytes) -> None:
    """Send an order and close the connection before its answer."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        headers = signed(key, "POST", "/v1/orders", body)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        peer.sendall("\r\n".join(["POST /v1/orders HTTP/1.1", "Host: 127.0.0.1",
                                  f"Content-Length: {len(body)}", *lines]).encode()
                     + b"\r\n\r\n" + body)

"""The real daemon, killed at random moments: what HTTP says of orders, trades and first answers
afterwards is what it said before."""

from __future__ import annotations

import json
import random
import urllib.error
import urllib.request
from typing import Any

import pytest

KILLS = 4
SETTINGS = {"journal__snapshot_events": 150, "journal__segment_bytes": 2**19,
            "journal__first_segment_bytes": 2**18, "journal__snapshots_kept": 2}


def call(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """One request as the demo account; (status, decoded answer)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method,
                                     headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def order(chance: random.Random, number: int) -> dict[str, Any]:
    return {"symbol": "AAPL", "order_type": "limit", "side": chance.choice(("buy", "sell")),
            "quantity": str(chance.randint(1, 90)),
            "price": f"{chance.randint(9_980, 10_020) / 100:.2f}",
            "time_in_force": chance.choice(("gtc", "gtc", "day", "ioc")),
            "client_order_id": f"n{number}"}


@pytest.mark.parametrize("seed", [1])
def test_orders_trades_and_first_answers_outlive_kills(make_daemon, seed):
    daemon = make_daemon(**SETTINGS)
    chance, number = random.Random(seed), 0
    sent: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for _ in range(KILLS):
        daemon.start()
        port = daemon.api_port
        for body, first in list(sent.values())[-40:]:
            # The reply may have been lost: the same order again trades nothing and says the same.
            assert call(port, "POST", "/v1/orders", body) == (200, first)
        for _ in range(80):
            number += 1
            body = order(chance, number)
            status, answer = call(port, "POST", "/v1/orders", body)
            assert status == 201, answer
            sent[body["client_order_id"]] = (body, answer)
        ids = [first["order_id"] for _, first in sent.values()]
        before = {one: call(port, "GET", f"/v1/orders/{one}") for one in ids[-60:]}
        trades = call(port, "GET", "/v1/candles?symbol=AAPL&interval=1d")
        daemon.kill()
        daemon.start()
        port = daemon.api_port
        for one, (status, row) in before.items():
            assert (status, row) == call(port, "GET", f"/v1/orders/{one}")
        assert call(port, "GET", "/v1/candles?symbol=AAPL&interval=1d") == trades
        filled = [row for _, row in before.values() if row["fills"]]
        assert filled
        daemon.kill()

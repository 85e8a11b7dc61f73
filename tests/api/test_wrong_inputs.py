"""Inputs that once were taken for something else, or broke a route."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.ops_client import Operator
from tests.support.daemon import Daemon


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    daemon = Daemon(tmp_path_factory.mktemp("wrong"))
    yield Operator(daemon.start())
    daemon.kill()


@pytest.mark.parametrize("query", ["side=null", "symbol=null", "side=NULL", "side="])
def test_no_word_in_a_query_means_every_order(operator: Operator, query: str) -> None:
    entered = operator.post("/v1/orders", {"symbol": "BTC-USDT", "side": "buy", "price": "1",
                                           "quantity": "0.1"}, 201)
    status, _, text = operator.ask("DELETE", f"/v1/orders?{query}")
    # Symbols are texts: one that is called null is an unknown one.
    assert status in (400, 404), text
    assert operator.get(f"/v1/orders/{entered['order_id']}")["status"] == "open"


def test_a_body_that_is_nested_too_deeply_is_refused(operator: Operator) -> None:
    body = b'{"payloads":[' + b"[" * 5_000 + b"]" * 5_000 + b"]}"
    status, _, text = operator.ask("POST", "/api/v1/performance/serialization/test", body)
    assert status == 400 and b"bad_json" in text


def test_an_empty_body_is_an_empty_object(operator: Operator) -> None:
    assert operator.post("/api/v1/performance/serialization/test", b"")["payloads"]
    wrong = operator.post("/v1/orders", b"", 400)
    assert wrong["code"] == "missing_field"


def test_a_float_is_named_as_what_it_should_have_been(operator: Operator) -> None:
    order = {"symbol": "BTC-USDT", "side": "buy", "price": 1.5, "quantity": "0.1"}
    assert operator.post("/v1/orders", order, 400)["code"] == "float_not_allowed"
    test = {"rounds": 1.5}
    wrong = operator.post("/api/v1/performance/serialization/test", test, 400)
    assert wrong["code"] == "bad_value" and "int" in wrong["message"]

"""Paths to routes, and what is wrong with an input, without a server."""

from __future__ import annotations

import msgspec
import pytest

from engine.api import types
from engine.api.route import ApiError
from engine.api.table import Table
from engine.api.wrong import wrong_input


def made() -> Table[str]:
    table: Table[str] = Table()
    table.add("GET", "/", "root")
    table.add("GET", "/v1/orders", "list")
    table.add("POST", "/v1/orders", "enter")
    table.add("POST", "/v1/orders/batch", "batch")
    table.add("GET", "/v1/orders/{id}", "one")
    table.add("POST", "/v1/admin/instruments/{symbol:path}/halt", "halt")
    return table


@pytest.mark.parametrize(("method", "path", "target", "values"), [
    ("GET", "/", "root", {}),
    ("GET", "/v1/orders", "list", {}),
    ("GET", "/v1/orders/", "list", {}),
    ("HEAD", "/v1/orders", "list", {}),
    ("POST", "/v1/orders", "enter", {}),
    ("POST", "/v1/orders/batch", "batch", {}),
    ("GET", "/v1/orders/client:a.b-c_d", "one", {"id": "client:a.b-c_d"}),
    ("POST", "/v1/admin/instruments/BTC/USDT/halt", "halt", {"symbol": "BTC/USDT"}),
])
def test_a_path_leads_to_its_target(method: str, path: str, target: str,
                                    values: dict[str, str]) -> None:
    assert made().find(method, path) == (target, values)


@pytest.mark.parametrize(("method", "path", "status", "allow"), [
    ("GET", "/v2", 404, None), ("GET", "/v1/orders/a/b", 404, None), ("GET", "", 404, None),
    ("PUT", "/v1/orders", 405, "GET, POST"), ("DELETE", "/v1/orders/1", 405, "GET"),
])
def test_what_is_not_there_is_an_error(method: str, path: str, status: int,
                                       allow: str | None) -> None:
    found = made().find(method, path) if path else made().find(method, "x")
    assert isinstance(found, ApiError)
    assert found.status == status
    assert dict(found.headers).get(b"allow") == (allow.encode() if allow else None)


def test_a_path_is_given_once() -> None:
    with pytest.raises(ValueError, match="taken"):
        made().add("GET", "/v1/orders/", "other")


def test_a_pattern_is_shown_as_it_is() -> None:
    for body, pattern in (
            (b'{"symbol":"A","side":"buy","quantity":"x"}',
             r"^[0-9]{1,20}(\.[0-9]{1,20})?$(?!\n)"),
            (b'{"symbol":"A","side":"buy","quantity":"1","client_order_id":"a b"}',
             r"^[A-Za-z0-9._:-]{1,36}$(?!\n)")):
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.json.decode(body, type=types.NewOrder)
        message = wrong_input(caught.value).message
        assert message.endswith(f" is not written as it should be: expected a text like {pattern}")


@pytest.mark.parametrize(("text", "code", "field"), [
    (b'{"symbol":"A","side":"buy","quantity":1.5}', "float_not_allowed", "quantity"),
    (b'{"symbol":"A","side":"buy","quantity":"1","price":1e3}', "float_not_allowed", "price"),
    (b'{"symbol":"A","side":"buy","quantity":1.0}', "float_not_allowed", "quantity"),
    (b'{"symbol":"A","side":"buy","quantity":"1","x":1}', "unknown_field", "x"),
    (b'{"symbol":"A","side":"buy"}', "missing_field", "quantity"),
    (b'{"symbol":"A","side":"up","quantity":"1"}', "bad_value", "side"),
    (b'{"symbol":"A","side":"buy","quantity":"-1"}', "bad_value", "quantity"),
    (b'{"symbol":"A","side":"buy","quantity":"1e3"}', "bad_value", "quantity"),
    (b'{"symbol":"A","side":"buy","quantity":"1\\n"}', "bad_value", "quantity"),
    (b'{"symbol":"A","side":"buy","quantity":-1}', "bad_value", "quantity"),
    (b'{"symbol":"A","side":"buy","quantity":null}', "bad_value", "quantity"),
    (b'{"symbol":"","side":"buy","quantity":"1"}', "bad_value", "symbol"),
    (b'{"symbol":"A","side":"buy","quantity":"1","client_order_id":"a b"}', "bad_value",
     "client_order_id"),
    (b'{"symbol":"A","side":"buy","quantity":"1","client_order_id":""}', "bad_value",
     "client_order_id"),
    (b"[]", "bad_value", None), (b"3", "bad_value", None), (b'"x"', "bad_value", None),
    (b"", "bad_json", None), (b"{", "bad_json", None), (b"{'a': 1}", "bad_json", None),
    (b'{"symbol":"\xff"}', "bad_json", None), (b'{"symbol":NaN}', "bad_json", None),
])
def test_a_wrong_body_is_named(text: bytes, code: str, field: str | None) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)) as caught:
        msgspec.json.decode(text, type=types.NewOrder)
    error = wrong_input(caught.value)
    assert (error.status, error.code, error.details.get("field")) == (400, code, field)
    assert error.message

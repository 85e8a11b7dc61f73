"""Orders over HTTP: what is answered, what is refused, what others see."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Caller, Got
from tests.support.wire import Wire, enter

BTC = "BTC-USDT"
_numbers = itertools.count(1)


def order(side: str = "buy", quantity: Any = "0.5", price: Any = "60000", **more: Any) -> Any:
    body = {"symbol": BTC, "side": side, "quantity": quantity, "price": price, **more}
    return {key: value for key, value in body.items() if value is not None}


def fresh(prefix: str = "t") -> str:
    return f"{prefix}-{next(_numbers)}"


@pytest.fixture
def maker(call: Callable[..., Caller]) -> Iterator[Caller]:
    """MAKER1, whose orders are cancelled before and after."""
    caller = call("MAKER1")
    caller("DELETE", "/v1/orders")
    yield caller
    caller("DELETE", "/v1/orders")


@pytest.fixture
def taker(call: Callable[..., Caller]) -> Iterator[Caller]:
    """TAKER1, whose orders are cancelled after."""
    caller = call("TAKER1")
    yield caller
    caller("DELETE", "/v1/orders")


# -- entering ------------------------------------------------------------------------------------


def test_an_order_is_answered_with_all_its_fields(maker: Caller) -> None:
    got = maker("POST", "/v1/orders", order(client_order_id=(name := fresh())))
    assert got.status == 201
    found = got.json
    assert int(found.pop("order_id")) > 0
    assert found.pop("time") > 1_700_000_000 * 10**9
    assert found == {
        "client_order_id": name, "symbol": BTC, "side": "buy", "order_type": "limit",
        "time_in_force": "gtc", "price": "60000.00", "quantity": "0.500000",
        "filled_quantity": "0.000000", "remaining_quantity": "0.500000", "status": "open",
        "fills": [], "reason": None}


@pytest.mark.parametrize(("quantity", "price", "told"), [
    ("0.000001", "0.01", ("0.000001", "0.01")),
    ("1.000000", "60000.10", ("1.000000", "60000.10")),
    (2, 60000, ("2.000000", "60000.00")),
    ("0003", "060000.1", ("3.000000", "60000.10")),
    ("4294.967295", "19999999.99", ("4294.967295", "19999999.99")),
    ("0.10000000000000", "60000.0000", ("0.100000", "60000.00")),
])
def test_prices_and_quantities_are_exact(maker: Caller, quantity: Any, price: Any,
                                         told: tuple[str, str]) -> None:
    got = maker("POST", "/v1/orders", order(quantity=quantity, price=price))
    assert got.status == 201, got.body
    assert (got.json["quantity"], got.json["price"]) == told


@pytest.mark.parametrize(("change", "code", "field"), [
    ({"quantity": 0.5}, "float_not_allowed", "quantity"),
    ({"price": 60000.5}, "float_not_allowed", "price"),
    ({"price": 60000.0}, "float_not_allowed", "price"),
    ({"quantity": "1e3"}, "bad_value", "quantity"), ({"quantity": "-1"}, "bad_value", "quantity"),
    ({"quantity": " 1"}, "bad_value", "quantity"), ({"quantity": "1,0"}, "bad_value", "quantity"),
    ({"quantity": "٣"}, "bad_value", "quantity"), ({"quantity": ""}, "bad_value", "quantity"),
    ({"price": True}, "bad_value", "price"), ({"side": "BUY"}, "bad_value", "side"),
    ({"symbol": 7}, "bad_value", "symbol"), ({"symbol": ""}, "bad_value", "symbol"),
    ({"time_in_force": "gtd"}, "bad_value", "time_in_force"),
    ({"order_type": "stop"}, "bad_value", "order_type"),
    ({"post_only": "yes"}, "bad_value", "post_only"), ({"stop_price": "1"}, "unknown_field",
                                                      "stop_price"),
    ({"price": None}, "missing_field", "price"), ({"quantity": None}, "missing_field",
                                                  "quantity"),
    ({"order_type": "market"}, "bad_value", "price"),
    ({"order_type": "market", "price": None, "post_only": True}, "bad_value", "post_only"),
    ({"order_type": "market", "price": None, "time_in_force": "gtc"}, "bad_value",
     "time_in_force"),
    ({"client_order_id": "x" * 37}, "bad_value", "client_order_id"),
    ({"client_order_id": "a/b"}, "bad_value", "client_order_id"),
    ({"client_order_id": "a\n"}, "bad_value", "client_order_id"),
])
def test_a_malformed_order_is_400(maker: Caller, change: dict[str, Any], code: str,
                                  field: str) -> None:
    got = maker("POST", "/v1/orders", order(**(order() | change)))
    assert (got.status, got.code, got.json["details"]["field"]) == (400, code, field)
    assert maker("GET", "/v1/orders").json["orders"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"{}" * 3,
                                  b'{"symbol": NaN}', b"[" * 50_000])
def test_what_is_no_json_object_is_400(maker: Caller, body: bytes) -> None:
    assert maker("POST", "/v1/orders", body).status == 400


def test_a_body_that_is_too_large_is_413(call: Callable[..., Caller]) -> None:
    got = call("MAKER1")("POST", "/v1/orders", b" " * 300_000)
    assert (got.status, got.code) == (413, "body_too_large")


@pytest.mark.parametrize(("change", "code", "details"), [
    ({"price": "60000.001"}, "price_off_tick", {"tick": "0.01"}),
    ({"price": "0"}, "price_out_of_range", {"max": "19999999.99"}),
    ({"price": "20000000"}, "price_out_of_range", {"max": "19999999.99"}),
    ({"price": 10**18}, "price_out_of_range", {"max": "19999999.99"}),
    ({"quantity": "0"}, "invalid_quantity", {"max": "4294.967295"}),
    ({"quantity": "0.0000001"}, "quantity_off_lot", {"lot": "0.000001"}),
    ({"quantity": "4294.967296"}, "invalid_quantity", {"max": "4294.967295"}),
    ({"symbol": "NOTHING"}, "unknown_symbol", {"symbol": "NOTHING"}),
    ({"symbol": "AAPL", "quantity": 1, "price": "150.005"}, "price_off_tick", {"tick": "0.0100"}),
])
def test_a_rule_of_the_venue_is_422(maker: Caller, change: dict[str, Any], code: str,
                                    details: dict[str, str]) -> None:
    got = maker("POST", "/v1/orders", order(**(order() | change)))
    assert (got.status, got.code) == (422, code)
    assert details.items() <= got.json["details"].items()
    assert got.json["message"]


def test_orders_trade_and_both_sides_are_told(maker: Caller, taker: Caller) -> None:
    resting = maker("POST", "/v1/orders", order(quantity="0.5")).json
    taking = taker("POST", "/v1/orders", order("sell", "0.2", None, order_type="market"))
    assert taking.status == 201
    assert (taking.json["status"], taking.json["price"], taking.json["time_in_force"]) == (
        "filled", None, "ioc")
    [fill] = taking.json["fills"]
    assert fill == {"match": fill["match"], "price": "60000.00", "quantity": "0.200000",
                    "liquidity": "taker"}
    now = maker("GET", f"/v1/orders/{resting['order_id']}").json
    assert (now["status"], now["filled_quantity"], now["remaining_quantity"]) == (
        "partially_filled", "0.200000", "0.300000")
    assert now["fills"] == [fill | {"liquidity": "maker"}]
    [trade] = maker("GET", "/v1/trades?limit=1").json["trades"]
    assert (trade["match"], trade["order_id"], trade["liquidity"], trade["side"]) == (
        fill["match"], resting["order_id"], "maker", "buy")


@pytest.mark.parametrize(("more", "status", "reason"), [
    ({"order_type": "market", "price": None}, "canceled", "unfilled"),
    ({"time_in_force": "ioc"}, "canceled", "unfilled"),
    ({"time_in_force": "fok"}, "canceled", "unfilled"),
    ({"time_in_force": "day"}, "open", None),
    ({"post_only": True}, "open", None),
])
def test_what_finds_nothing_rests_or_ends(maker: Caller, more: dict[str, Any], status: str,
                                          reason: str | None) -> None:
    got = maker("POST", "/v1/orders", order(**(order("sell", price="90000") | more)))
    assert (got.status, got.json["status"], got.json["reason"]) == (201, status, reason)


def test_a_post_only_order_that_would_trade_ends(maker: Caller, taker: Caller) -> None:
    maker("POST", "/v1/orders", order())
    got = taker("POST", "/v1/orders", order("sell", post_only=True))
    assert (got.status, got.json["status"], got.json["reason"], got.json["fills"]) == (
        201, "canceled", "post_only", [])


def test_a_batch_is_answered_one_by_one_in_its_order(maker: Caller) -> None:
    name = fresh()
    orders = [order(client_order_id=name), order(price=1.5), order(price="60000.001"),
              order(client_order_id=name), order(client_order_id=name, quantity="9"), 3,
              order("sell", "0.1", "61000")]
    got = maker("POST", "/v1/orders/batch", {"orders": orders})
    assert got.status == 200
    results = got.json["results"]
    assert [one["status"] for one in results] == [201, 400, 422, 200, 409, 400, 201]
    assert [one["error"]["code"] for one in results if "error" in one] == [
        "float_not_allowed", "price_off_tick", "client_order_id_reused", "bad_value"]
    assert results[0]["order"] == results[3]["order"]
    ids = [one["order_id"] for one in maker("GET", "/v1/orders").json["orders"]]
    assert ids == [results[6]["order"]["order_id"], results[0]["order"]["order_id"]]


@pytest.mark.parametrize("body", [{"orders": []}, {"orders": [{}] * 101}, {}, {"orders": 1},
                                  {"orders": [], "x": 1}])
def test_a_batch_has_one_to_a_hundred_orders(maker: Caller, body: Any) -> None:
    assert maker("POST", "/v1/orders/batch", body).status == 400


# -- looking up ----------------------------------------------------------------------------------


def test_another_accounts_orders_are_not_there(maker: Caller, taker: Caller) -> None:
    name = fresh()
    order_id = maker("POST", "/v1/orders", order(client_order_id=name)).json["order_id"]
    for path in (f"/v1/orders/{order_id}", f"/v1/orders/{name}", f"/v1/orders/client:{name}"):
        assert maker("GET", path).json["order_id"] == order_id
        for method in ("GET", "DELETE"):
            got = taker(method, path)
            assert (got.status, got.code) == (404, "unknown_order")
        assert taker("PATCH", path, {"quantity": "0.1"}).status == 404
    assert taker("GET", "/v1/orders?status=all&limit=1000").json["orders"] == [
        one for one in taker("GET", "/v1/orders?status=all&limit=1000").json["orders"]
        if one["order_id"] != order_id]
    assert maker("GET", f"/v1/orders/{order_id}").json["status"] == "open"


def test_digits_are_an_order_id_first_and_a_clients_id_then(maker: Caller) -> None:
    first = maker("POST", "/v1/orders", order(client_order_id=f"9{next(_numbers):015d}")).json
    digits = first["order_id"]
    second = maker("POST", "/v1/orders", order(quantity="0.2", client_order_id=digits)).json
    assert maker("GET", f"/v1/orders/{digits}").json["order_id"] == first["order_id"]
    assert maker("GET", f"/v1/orders/client:{digits}").json["order_id"] == second["order_id"]
    assert maker("GET", f"/v1/orders/{first['client_order_id']}").json == first


@pytest.mark.parametrize("name", ["999999999", "no-such", "client:", "client:1", "%00", "0",
                                  "18446744073709551616", "%F0%9F%98%80"])
def test_an_unknown_order_is_404(maker: Caller, name: str) -> None:
    for method in ("GET", "DELETE"):
        got = maker(method, f"/v1/orders/{name}")
        assert (got.status, got.code) == (404, "unknown_order"), got.body


def test_lists_are_newest_first_in_pages(maker: Caller) -> None:
    ids = [maker("POST", "/v1/orders", order(price=60000 + n)).json["order_id"]
           for n in range(5)][::-1]
    aapl = maker("POST", "/v1/orders", order(symbol="AAPL", quantity=1, price="1")).json
    page = maker("GET", f"/v1/orders?symbol={BTC}&limit=2").json
    assert [one["order_id"] for one in page["orders"]] == ids[:2]
    page = maker("GET", f"/v1/orders?symbol={BTC}&limit=2&before={page['next']}").json
    assert [one["order_id"] for one in page["orders"]] == ids[2:4]
    page = maker("GET", f"/v1/orders?symbol={BTC}&limit=2&before={page['next']}").json
    assert ([one["order_id"] for one in page["orders"]], page["next"]) == (ids[4:], None)
    assert maker("GET", "/v1/orders").json["orders"][0] == aapl
    maker("DELETE", f"/v1/orders/{ids[0]}")
    closed = maker("GET", "/v1/orders?status=closed&limit=1").json["orders"]
    assert [one["order_id"] for one in closed] == ids[:1]


@pytest.mark.parametrize(("query", "status"), [
    ("limit=0", 400), ("limit=1001", 400), ("limit=x", 400), ("status=dead", 400),
    ("before=-1", 400), ("symbol=NOTHING", 404), ("who=me", 400), ("limit=1&limit=2", 400)])
def test_wrong_filters_are_refused(maker: Caller, query: str, status: int) -> None:
    assert maker("GET", f"/v1/orders?{query}").status == status


# -- cancelling ----------------------------------------------------------------------------------


def test_a_cancel_answers_with_the_order_and_a_second_one_with_409(maker: Caller) -> None:
    order_id = maker("POST", "/v1/orders", order()).json["order_id"]
    got = maker("DELETE", f"/v1/orders/{order_id}")
    assert (got.status, got.json["status"], got.json["reason"], got.json["remaining_quantity"]) \
        == (200, "canceled", "user", "0.000000")
    for method, body in (("DELETE", None), ("PATCH", {"quantity": "0.1"})):
        again = maker(method, f"/v1/orders/{order_id}", body)
        assert (again.status, again.code) == (409, "order_not_live")
        assert again.json["details"]["order"] == got.json


def test_all_orders_are_cancelled_by_filter(maker: Caller, taker: Caller) -> None:
    for side, price in (("buy", 100), ("buy", 200), ("sell", 90_000)):
        maker("POST", "/v1/orders", order(side, price=price))
    maker("POST", "/v1/orders", order(symbol="AAPL", quantity=1, price="1"))
    others = taker("POST", "/v1/orders", order(price=50)).json["order_id"]
    assert maker("DELETE", f"/v1/orders?symbol={BTC}&side=buy").json["canceled"] == 2
    assert maker("DELETE", "/v1/orders?side=sell").json["canceled"] == 1
    assert maker("DELETE", "/v1/orders?symbol=NOTHING").status == 404
    assert maker("DELETE", "/v1/orders?side=up").status == 400
    assert maker("DELETE", "/v1/orders").json["canceled"] == 1
    assert maker("DELETE", "/v1/orders").json["canceled"] == 0
    assert taker("GET", f"/v1/orders/{others}").json["status"] == "open"


def test_orders_that_came_over_ouch_are_seen_reduced_and_cancelled(venue: Daemon,
                                                                   call: Callable[..., Caller],
                                                                   ) -> None:
    async def over_ouch() -> None:
        wire = await Wire.logged_in(venue.port, "MAKER2", sequence=0)
        first = wire_number("MAKER2")
        wire.send(enter(first, "B", 500_000, 100, BTC, "1"), enter(first + 1, "B", 300_000, 101,
                                                                   BTC, "1"))
        assert [(await wire.packet())[1][:1] for _ in range(2)] == [b"A", b"A"]
        maker = await asyncio.to_thread(call, "MAKER2")
        newest, oldest = (await asyncio.to_thread(maker, "GET", "/v1/orders")).json["orders"]
        assert (newest["price"], newest["client_order_id"]) == ("1.01", None)
        path = f"/v1/orders/{oldest['order_id']}"
        got = await asyncio.to_thread(maker, "PATCH", path, {"quantity": "0.2"})
        assert (got.status, got.json["quantity"], got.json["order_id"]) == (
            200, "0.200000", oldest["order_id"])
        got = await asyncio.to_thread(maker, "PATCH", path, {"price": "1.02"})
        assert (got.status, got.code) == (422, "order_of_another_door")
        assert (await asyncio.to_thread(maker, "DELETE", path)).json["status"] == "canceled"
        assert (await asyncio.to_thread(maker, "DELETE", "/v1/orders")).json["canceled"] == 1
        # The owner's stream is told of each: a reduction, a cancel, and the mass cancel's one.
        assert [(await wire.packet())[1][:1] for _ in range(3)] == [b"C", b"C", b"C"]
        wire.writer.close()

    asyncio.run(over_ouch())


_ouch_numbers: dict[str, itertools.count[int]] = {}


def wire_number(account: str) -> int:
    counter = _ouch_numbers.setdefault(account, itertools.count(1, 10))
    return next(counter)


# -- changing ------------------------------------------------------------------------------------


def queue_of(caller: Caller, *orders: Got) -> list[str]:
    """The ids of these orders in the order in which a market order meets them."""
    ids = {one.json["order_id"] for one in orders}
    lots = len(orders)
    caller("POST", "/v1/orders", order("sell", f"{lots}.5", None, order_type="market"))
    fills = [(int(fill["match"]), order_id) for order_id in ids
             for fill in caller("GET", f"/v1/orders/{order_id}").json["fills"]]
    return [order_id for _, order_id in sorted(fills)]


def test_a_smaller_quantity_keeps_its_place_and_its_id(maker: Caller) -> None:
    first, second = (maker("POST", "/v1/orders", order(quantity=quantity))
                     for quantity in ("2", "1"))
    got = maker("PATCH", f"/v1/orders/{first.json['order_id']}", {"quantity": "1"})
    assert (got.status, got.json["order_id"], got.json["quantity"]) == (
        200, first.json["order_id"], "1.000000")
    assert queue_of(maker, first, second) == [first.json["order_id"], second.json["order_id"]]


@pytest.mark.parametrize("change", [{"quantity": "1", "price": "60000"}, {"price": "60000"},
                                    {"quantity": "1"}, {"time_in_force": "day"},
                                    {"client_order_id": None}])
def test_anything_else_replaces_and_loses_its_place(maker: Caller,
                                                    change: dict[str, Any]) -> None:
    change = {key: value or fresh() for key, value in change.items()}
    first, second = (maker("POST", "/v1/orders", order(quantity="1", client_order_id=fresh()))
                     for _ in range(2))
    got = maker("PATCH", f"/v1/orders/{first.json['client_order_id']}", change)
    assert got.status == 200
    assert got.json["order_id"] != first.json["order_id"]
    assert got.json["replaces"] == first.json["order_id"]
    assert got.json["client_order_id"] == change.get("client_order_id",
                                                     first.json["client_order_id"])
    old = maker("GET", f"/v1/orders/{first.json['order_id']}").json
    assert (old["status"], old["reason"]) == ("canceled", "replaced")
    assert queue_of(maker, got, second) == [second.json["order_id"], got.json["order_id"]]


def test_a_replaced_order_counts_what_its_chain_did(maker: Caller, taker: Caller) -> None:
    first = maker("POST", "/v1/orders", order(quantity="1", client_order_id=(name := fresh())))
    taker("POST", "/v1/orders", order("sell", "0.4"))
    got = maker("PATCH", f"/v1/orders/{first.json['order_id']}", {"quantity": "2",
                                                                  "price": "60001"})
    assert (got.json["quantity"], got.json["filled_quantity"], got.json["remaining_quantity"],
            got.json["status"]) == ("2.000000", "0.400000", "1.600000", "partially_filled")
    assert maker("GET", f"/v1/orders/{name}").json == got.json


@pytest.mark.parametrize(("change", "status", "code"), [
    ({}, 400, "missing_field"), ({"price": 1.5}, 400, "float_not_allowed"),
    ({"side": "sell"}, 400, "unknown_field"), ({"quantity": "x"}, 400, "bad_value"),
    ({"price": "60000.001"}, 422, "price_off_tick"), ({"price": "0"}, 422, "price_out_of_range"),
    ({"quantity": "0"}, 422, "invalid_quantity"),
    ({"quantity": "4294.967296"}, 422, "invalid_quantity"),
])
def test_a_change_that_is_refused_leaves_the_order(maker: Caller, change: dict[str, Any],
                                                   status: int, code: str) -> None:
    before = maker("POST", "/v1/orders", order()).json
    path = f"/v1/orders/{before['order_id']}"
    got = maker("PATCH", path, change)
    assert (got.status, got.code) == (status, code)
    assert maker("GET", path).json == before


# -- roles ---------------------------------------------------------------------------------------


def test_a_reader_may_look_and_not_touch(venue: Daemon, maker: Caller) -> None:
    from tests.api.conftest import make_key

    reader = Caller(venue.api_port, make_key(venue, "MAKER1", "--role", "read-only"))
    order_id = maker("POST", "/v1/orders", order()).json["order_id"]
    assert reader("GET", f"/v1/orders/{order_id}").status == 200
    for method, path, body in (("POST", "/v1/orders", order()), ("DELETE", "/v1/orders", None),
                               ("POST", "/v1/orders/batch", {"orders": [order()]}),
                               ("DELETE", f"/v1/orders/{order_id}", None),
                               ("PATCH", f"/v1/orders/{order_id}", {"quantity": "0.1"})):
        got = reader(method, path, body)
        assert (got.status, got.code) == (403, "forbidden"), path
        assert got.json["details"] == {"role_needed": "trader"}
    assert maker("GET", f"/v1/orders/{order_id}").json["status"] == "open"

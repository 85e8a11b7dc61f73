"""Examples for the OpenAPI document, by the name of the type; a test holds them against it."""

from __future__ import annotations

from typing import Any

_ORDER = {
    "order_id": "4711", "client_order_id": "my-order-1", "symbol": "BTC-USDT", "side": "buy",
    "order_type": "limit", "time_in_force": "gtc", "price": "60010.00", "quantity": "0.100000",
    "filled_quantity": "0.040000", "remaining_quantity": "0.060000",
    "status": "partially_filled",
    "fills": [{"match": "9001", "price": "60010.00", "quantity": "0.040000",
               "liquidity": "taker"}],
    "time": 1_750_000_000_000_000_000, "reason": None,
}
_NEW = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.1",
        "price": "60010", "client_order_id": "my-order-1"}

EXAMPLES: dict[str, Any] = {
    "NewOrder": _NEW,
    "NewOrders": {"orders": [_NEW]},
    "OrderChange": {"quantity": "0.05"},
    "Order": _ORDER,
    "AdminNote": {"reason": "news pending"},
    "Book": {"symbol": "BTC-USDT", "seq": 123_456, "time": 1_750_000_000_000_000_000,
             "bids": [["60000.00", "0.100000", 1]], "asks": [["60010.00", "0.500000", 2]],
             "crc": 397_708_106},
    "Error": {"code": "price_off_tick", "message": "60010.001 is not a multiple of the tick 0.01",
              "details": {}},
    "BenchmarkRequest": {"orders": 100_000, "seconds": 3},
    "SerializationRequest": {"payloads": [{"price": "60010.00", "quantity": "0.1"}],
                             "rounds": 200},
}

# What stands in paths, by name.
PARAMETERS: dict[str, dict[str, Any]] = {
    "id": {"description": "An id as an answer gave it.",
           "schema": {"type": "string", "minLength": 1, "maxLength": 64}},
    "symbol": {"description": "An instrument, as `BTC-USDT`.",
               "schema": {"type": "string", "minLength": 1, "maxLength": 24}},
    "username": {"description": "An account's name, as `MAKER1`.",
                 "schema": {"type": "string", "minLength": 1, "maxLength": 6}},
}

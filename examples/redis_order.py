"""Orders through a queue in Redis: enter, change, cancel, with the venue's demo account.

    redis-server                            # or valkey-server, in another terminal
    MATCHD_REDIS__URL=redis://127.0.0.1:6379 MATCHD_REDIS__ORDER_QUEUE=orders make run
    .venv/bin/python examples/redis_order.py

The address of the server may be given as an argument.
"""

import json
import sys

import redis

QUEUE, REPLIES = "orders", "orders:replies"


class Desk:
    """Writes entries to the stream, and finds their answers."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=30)
        newest = self._redis.xrevrange(REPLIES, count=1)
        self._last = newest[0][0] if newest else "0"

    def ask(self, **fields: str) -> tuple[int, dict]:
        """One entry; returns the status and the body of its answer."""
        entry = self._redis.xadd(QUEUE, {"account": "MAKER1", **fields})
        while True:
            for _, answers in self._redis.xread({REPLIES: self._last}, block=20_000):
                for self._last, answer in answers:
                    if answer.get("entry") == entry:
                        return int(answer["status"]), json.loads(answer["body"])


def main(url: str) -> None:
    desk = Desk(url)
    # Without a client_order_id the order would get one from its entry.
    order = {"symbol": "BTC-USDT", "side": "buy", "quantity": "0.5", "price": "60000.00",
             "client_order_id": "example-1"}
    status, body = desk.ask(**order)
    print(f"{status}: {body['status']}, {body['remaining_quantity']} at {body['price']}")
    status, again = desk.ask(**order)
    print(f"{status}: the same order: {again['order_id'] == body['order_id']}")
    status, body = desk.ask(op="change", client_order_id="example-1", quantity="0.2")
    print(f"{status}: reduced to {body['remaining_quantity']}")
    status, body = desk.ask(op="cancel", client_order_id="example-1")
    print(f"{status}: {body['status']}")
    status, body = desk.ask(symbol="BTC-USDT", side="buy", quantity="0.5", price="60000.001")
    print(f"{status}: {body['code']}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379")

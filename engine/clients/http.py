"""The Python client of the HTTP gateway: orders, market data, one's account.

Every order carries a client_order_id (one is made where none is given), so an answer that was lost
is asked for again by sending the same order again: it trades once, also when the venue was killed
and came back in between.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from decimal import Decimal
from typing import Any, BinaryIO, Literal, Self, TypeAlias
from urllib.parse import quote, urlencode

import msgspec

from engine import clock
from engine.clients.errors import ConnectionLostError
from engine.clients.http_errors import (
    ConflictError,
    HttpError,
    RateLimitedError,
    UnavailableError,
    http_error,
)
from engine.clients.http_wire import Connections, HttpAnswer

# Never a float: most prices are not one.
Number: TypeAlias = str | int | Decimal
Side: TypeAlias = Literal["buy", "sell"]
HistoryKind: TypeAlias = Literal["orders", "trades", "executions", "candles"]
HistoryFormat: TypeAlias = Literal["csv", "arrow", "parquet"]

RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
_SAFE_TO_REPEAT = ("GET", "DELETE")


class OrderFill(msgspec.Struct, frozen=True):
    """A part of an order that traded."""

    match: str
    price: Decimal
    quantity: Decimal
    liquidity: Literal["maker", "taker"]


class HttpOrder(msgspec.Struct, frozen=True):
    """An order as the venue told it. `time` is in nanoseconds since 1970 UTC."""

    order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    order_type: Literal["limit", "market"]
    time_in_force: str
    price: Decimal | None
    quantity: Decimal
    filled_quantity: Decimal
    remaining_quantity: Decimal
    status: Literal["open", "partially_filled", "filled", "canceled", "rejected"]
    fills: tuple[OrderFill, ...]
    time: int
    reason: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None

    @property
    def live(self) -> bool:
        """Whether it can still trade."""
        return self.status in ("open", "partially_filled")


class HttpClient:
    """One account's way to the gateway. Use it in an `async with` block.

    `key` and `secret` sign every request, or `token` is sent as it is; with neither the venue's
    demo account acts, on loopback. A request without an answer is sent again, where that is safe,
    until `retry_s` is over; `timeout_s` is one attempt's.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str = "", secret: str = "",
                 token: str = "", timeout_s: float = 10.0, retry_s: float = 30.0,
                 tls: ssl.SSLContext | None = None) -> None:
        """`tls` says whom an https:// address has to be; without it the system's authorities."""
        self._connections = Connections(url, timeout_s, tls)
        self._key, self._secret, self._token = key, secret.encode(), token
        self._retry_s = retry_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    # -- orders --------------------------------------------------------------------------------

    async def submit(self, symbol: str, side: Side, quantity: Number, price: Number | None = None,
                     *, time_in_force: str | None = None, post_only: bool = False,
                     client_order_id: str | None = None) -> HttpOrder:
        """Enter an order, without a price a market order; returns when it is durable.

        Raises TypeError for a float, RejectedError for what the venue refuses, ConflictError for a
        client_order_id of another order, ConnectionLostError when nothing was heard in `retry_s`.
        """
        order = _new_order(symbol, side, quantity, price, time_in_force, post_only,
                           client_order_id)
        return _order(await self.request("POST", "/v1/orders", body=order, repeat=True))

    async def submit_many(self, orders: Iterable[Mapping[str, Any]]) -> list[HttpOrder | HttpError]:
        """Enter up to 100 orders, each with the arguments of `submit` by name; returns for each
        the order, or the error that it met."""
        bodies = [_new_order(**_arguments(one)) for one in orders]
        answer = await self.request("POST", "/v1/orders/batch", body={"orders": bodies},
                                    repeat=True)
        results = msgspec.json.decode(answer.body)["results"]
        return [msgspec.convert(one["order"], HttpOrder) if "order" in one
                else http_error(one["status"], retry_after_s=0.0, **one["error"])
                for one in results]

    async def order(self, order_id: str) -> HttpOrder:
        """An order by its id or its client_order_id."""
        return _order(await self.request("GET", _path(order_id)))

    async def orders(self, symbol: str | None = None, status: str = "open",
                     limit: int = 100) -> list[HttpOrder]:
        """The account's orders, newest first; `status` is "open", "closed" or "all"."""
        answer = await self.request("GET", "/v1/orders", {"symbol": symbol, "status": status,
                                                         "limit": limit})
        return msgspec.convert(msgspec.json.decode(answer.body)["orders"], list[HttpOrder])

    async def cancel(self, order: str | HttpOrder) -> HttpOrder:
        """Cancel an order; returns it. Raises ConflictError when it was not live any more."""
        try:
            return _order(await self.request("DELETE", _path(_id(order))))
        except ConflictError as error:
            # The answer to our own cancel may have been the one that was lost.
            found = error.details.get("order")
            if error.code == "order_not_live" and found and error.repeated \
                    and found["status"] == "canceled" and found["reason"] == "user":
                return msgspec.convert(found, HttpOrder)
            raise

    async def change(self, order: str | HttpOrder, quantity: Number | None = None,
                     price: Number | None = None, **more: Any) -> HttpOrder:
        """Reduce an order (only a smaller total quantity: it keeps its place) or replace it.

        Is not sent again when its answer is lost: ConnectionLostError says so, look it up then.
        """
        body = {name: value for name, value in {
            "quantity": _number(quantity), "price": _number(price), **more}.items()
            if value is not None}
        return _order(await self.request("PATCH", _path(_id(order)), body=body))

    async def cancel_all(self, symbol: str | None = None, side: Side | None = None) -> int:
        """Cancel all of the account's orders; returns how many."""
        answer = await self.request("DELETE", "/v1/orders", {"symbol": symbol, "side": side})
        return int(msgspec.json.decode(answer.body)["canceled"])

    # -- what is known -------------------------------------------------------------------------

    async def trades(self, symbol: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The account's fills, newest first."""
        answer = await self.get("/v1/trades", symbol=symbol, limit=limit)
        return list(answer["trades"])

    async def book(self, symbol: str, depth: int = 10) -> dict[str, Any]:
        """The order book: `bids` and `asks` of [price, quantity, orders], best first."""
        return await self.get(f"/v1/book/{quote(symbol)}", depth=depth)

    async def candles(self, symbol: str, interval: str = "1m",
                      limit: int = 100) -> list[dict[str, Any]]:
        """Candles, newest last."""
        answer = await self.get("/v1/candles", symbol=symbol, interval=interval, limit=limit)
        return list(answer["candles"])

    async def instruments(self) -> list[dict[str, Any]]:
        """What is traded."""
        return list((await self.get("/v1/instruments"))["instruments"])

    async def account(self) -> dict[str, Any]:
        """Who this client is to the venue."""
        return await self.get("/v1/account")

    # -- the past ------------------------------------------------------------------------------

    async def history(self, kind: HistoryKind, **filters: Any) -> AsyncIterator[dict[str, Any]]:
        """Every row of the past that the filters leave, page by page, newest first without
        `order="asc"`. Filters are those of the route; `from_` is `from`."""
        while True:
            page = await self.history_page(kind, **filters)
            for row in page[kind]:
                yield row
            if page["next"] is None:
                return
            filters["cursor"] = page["next"]

    async def history_page(self, kind: HistoryKind, **filters: Any) -> dict[str, Any]:
        """One page of the past: the rows under the name of their kind, `next`, `last`,
        `complete`, `seq`, `store`."""
        return await self.get(f"/v1/history/{kind}", **_filters(filters))

    async def download(self, kind: HistoryKind, file: BinaryIO, format: HistoryFormat = "parquet",
                       **filters: Any) -> int:
        """Write a whole range of the past into a file, as it comes; returns the `seq` of the last
        event that the store had. Raises ConnectionLostError when it breaks off: what is in the
        file is then only a part."""
        query = {name: value for name, value in _filters(filters | {"format": format}).items()
                 if value is not None}
        target = f"/v1/history/{kind}?{urlencode(query)}"
        async with self._connections.stream(
                "GET", target, self._headers("GET", target, b"")) as answer:
            if answer.status != 200:
                _checked(HttpAnswer(answer.status, answer.headers,
                                    b"".join([part async for part in answer.parts])))
            async for part in answer.parts:
                file.write(part)
            return int(answer.headers["x-matchd-seq"])

    async def query(self, sql: str, *parameters: str | int | float | bool | None,
                    cache_strategy: str = "hybrid", **more: Any) -> dict[str, Any]:
        """One statement that reads the history database, with an administrator's key: `columns`,
        `rows`, `truncated`, `seq`, `store`, `cached`, `took_ms`."""
        body = {"query": sql, "parameters": list(parameters), "cache_strategy": cache_strategy,
                **more}
        answer = await self.request("POST", "/api/v1/performance/database/query", body=body,
                                    repeat=True)
        found: dict[str, Any] = msgspec.json.decode(answer.body)
        return found

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Any other GET of the gateway, decoded."""
        answer = await self.request("GET", path, query)
        found: dict[str, Any] = msgspec.json.decode(answer.body)
        return found

    # -- requests ------------------------------------------------------------------------------

    async def request(self, method: str, path: str, query: Mapping[str, Any] | None = None,
                      body: Any = None, repeat: bool = False) -> HttpAnswer:
        """One request, sent again when its answer was lost and that is safe (GET and DELETE, and
        others with `repeat`). Raises HttpError for an answer that is an error."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        data = b"" if body is None else msgspec.json.encode(body)
        repeat = repeat or method in _SAFE_TO_REPEAT
        deadline_s, pause_s, repeated = clock.monotonic_s() + self._retry_s, RETRY_FIRST_S, False
        while True:
            try:
                return _checked(await self._connections.request(
                    method, target, self._headers(method, target, data), data))
            except (ConnectionLostError, UnavailableError, RateLimitedError) as error:
                wait_s = max(pause_s, getattr(error, "retry_after_s", 0.0))
                if not repeat or clock.monotonic_s() + wait_s > deadline_s:
                    raise
            except HttpError as error:
                error.repeated = repeated
                raise
            await asyncio.sleep(wait_s)
            pause_s, repeated = min(2 * pause_s, RETRY_MOST_S), True

    def _headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json"} if body else {}
        if self._key:
            stamp = str(clock.now_ns() // clock.NS_PER_MS)
            headers |= {"x-matchd-key": self._key, "x-matchd-timestamp": stamp,
                        "x-matchd-signature": sign(self._secret, stamp, method, target, body)}
        elif self._token:
            headers["authorization"] = f"Bearer {self._token}"
        return headers


def _filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """`from_` as the venue names it."""
    return {"from" if name == "from_" else name: value for name, value in filters.items()}


def sign(secret: bytes, timestamp: str, method: str, target: str, body: bytes) -> str:
    """The signature of a request; `target` is the path with its query."""
    text = f"{timestamp}\n{method}\n{target}\n".encode() + body
    return hmac.digest(secret, text, "sha256").hex()


def _checked(answer: HttpAnswer) -> HttpAnswer:
    if answer.status < 400:
        return answer
    try:
        found = msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.MsgspecError:
        found = {}
    raise http_error(answer.status, found.get("code", f"http_{answer.status}"),
                     found.get("message", "the gateway gave no reason"),
                     found.get("details", {}), float(answer.headers.get("retry-after", 0)))


def _order(answer: HttpAnswer) -> HttpOrder:
    return msgspec.json.decode(answer.body, type=HttpOrder)


def _new_order(symbol: str, side: Side, quantity: Number, price: Number | None,
               time_in_force: str | None, post_only: bool,
               client_order_id: str | None) -> dict[str, Any]:
    order: dict[str, Any] = {
        "symbol": symbol, "side": side, "quantity": _number(quantity),
        "order_type": "market" if price is None else "limit",
        "client_order_id": client_order_id or secrets.token_hex(16)}
    if price is not None:
        order["price"] = _number(price)
    if time_in_force is not None:
        order["time_in_force"] = time_in_force
    if post_only:
        order["post_only"] = True
    return order


def _arguments(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"price": None, "time_in_force": None, "post_only": False, "client_order_id": None,
            **one}


def _number(value: Number | None) -> str | None:
    """A price or quantity as it is sent. Raises TypeError for a float."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"prices and quantities are decimal texts, Decimals or integers, "
                    f"not a {type(value).__name__}")


def _id(order: str | HttpOrder) -> str:
    return order if isinstance(order, str) else order.order_id


def _path(order_id: str) -> str:
    return f"/v1/orders/{quote(order_id, safe=':')}"

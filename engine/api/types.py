"""The shapes of requests and answers (PROTOCOLS 7). They check what comes in, and the OpenAPI
document is made from them.

Prices and quantities are decimal texts, exact, with the instrument's decimals; times are
nanoseconds since 1970 UTC; ids above 2**53 are texts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

# A float is not a price: texts and whole numbers are taken, nothing else. In the pattern, Python's
# `$` alone would let a line end pass.
Decimal: TypeAlias = (
    Annotated[str, Meta(pattern=r"^[0-9]{1,20}(\.[0-9]{1,20})?$(?!\n)", max_length=41,
                        description="a decimal text, as \"60010.5\"")]
    | Annotated[int, Meta(ge=0, le=2**63 - 1, description="a whole number")])
# A client's own id stands in paths: nothing that would have to be escaped there.
ClientId: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,36}$(?!\n)", max_length=36, min_length=1,
              description="1 to 36 of A-Z a-z 0-9 . _ : -")]
Symbol: TypeAlias = Annotated[str, Meta(min_length=1, max_length=24)]
Side: TypeAlias = Literal["buy", "sell"]
OrderType: TypeAlias = Literal["limit", "market"]
TimeInForce: TypeAlias = Literal["gtc", "day", "ioc", "fok"]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=1_000)]
Cursor: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Reason: TypeAlias = Annotated[str, Meta(pattern=r"^[ -~]{0,24}$(?!\n)", max_length=24,
                                        description="up to 24 printable ASCII characters")]

ORDERS_PER_BATCH_MAX = 100


# -- requests ----------------------------------------------------------------------------------


class NewOrder(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An order to enter. A limit order needs a price, a market order has none. Without
    `time_in_force` a limit order stands until cancelled (`gtc`), a market order is `ioc`."""

    symbol: Symbol
    side: Side
    quantity: Decimal
    price: Decimal | None = None
    order_type: OrderType = "limit"
    time_in_force: TimeInForce | None = None
    post_only: bool = False
    client_order_id: ClientId | None = None


class NewOrders(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 100 orders, entered one after the other in this order. One that is malformed is
    refused alone."""

    orders: Annotated[
        list[Annotated[msgspec.Raw, Meta(
            extra_json_schema={"description": "an order, as POST /v1/orders takes it"})]],
        Meta(min_length=1, max_length=ORDERS_PER_BATCH_MAX)]


class OrderChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to change. `quantity` is the new total, what was executed already included: alone and
    smaller than before it reduces the order, which keeps its place in the queue. Anything else
    replaces the order: it gets a new order_id and goes to the end of its queue."""

    quantity: Decimal | None = None
    price: Decimal | None = None
    time_in_force: TimeInForce | None = None
    post_only: bool | None = None
    client_order_id: ClientId | None = None


class OrdersQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which orders: newest first, those older than the order_id in `before`."""

    symbol: Symbol | None = None
    status: Literal["open", "closed", "all"] = "open"
    limit: Limit = 100
    before: Cursor = 0


class CancelQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which orders to cancel; all without a filter."""

    symbol: Symbol | None = None
    side: Side | None = None


class TradesQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which fills: newest first, those with a match below `before`."""

    symbol: Symbol | None = None
    limit: Limit = 100
    before: Cursor = 0


class TapeQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How many of the last trades."""

    limit: Limit = 100


class BookQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How many price levels of each side; 0 is all."""

    depth: Annotated[int, Meta(ge=0, le=10_000)] = 10


class CandlesQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which candles."""

    symbol: Symbol
    interval: Literal["1s", "1m", "5m", "1h", "1d"] = "1m"
    limit: Limit = 100


class AdminNote(msgspec.Struct, forbid_unknown_fields=True):
    """Why: the words stand in the log beside the act."""

    reason: Reason = ""


class CancelAll(msgspec.Struct, forbid_unknown_fields=True):
    """Whose orders, of which instrument; all without a filter."""

    account: Annotated[str, Meta(pattern=r"^[A-Z0-9]{1,6}$(?!\n)")] | None = None
    symbol: Symbol | None = None
    reason: Reason = ""


# -- answers -----------------------------------------------------------------------------------


class Error(msgspec.Struct):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str
    details: dict[str, Any]


class Fill(msgspec.Struct):
    """A part of an order that traded."""

    match: str
    price: str
    quantity: str
    liquidity: Literal["maker", "taker"]


class Order(msgspec.Struct):
    """An order as it stands. `reason` says why it was canceled or rejected. `replaces` and
    `replaced_by` lead along a chain of replaces."""

    order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    price: str | None
    quantity: str
    filled_quantity: str
    remaining_quantity: str
    status: Literal["open", "partially_filled", "filled", "canceled", "rejected"]
    fills: list[Fill]
    time: int
    reason: str | None
    replaces: str | msgspec.UnsetType = msgspec.UNSET
    replaced_by: str | msgspec.UnsetType = msgspec.UNSET


class Orders(msgspec.Struct):
    """A page of orders; `next` is the cursor for `before`, null at the end."""

    orders: list[Order]
    next: str | None


class OrderResult(msgspec.Struct):
    """What became of one order of a batch: its status as a request of its own would have, and
    the order or the error."""

    status: int
    order: Order | msgspec.UnsetType = msgspec.UNSET
    error: Error | msgspec.UnsetType = msgspec.UNSET


class OrderResults(msgspec.Struct):
    """One result for each order of a batch, in the batch's order."""

    results: list[OrderResult]


class Canceled(msgspec.Struct):
    """How many orders were cancelled, and the event that says so."""

    canceled: int
    seq: int


class OwnTrade(msgspec.Struct):
    """One fill of the account's."""

    match: str
    order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    price: str
    quantity: str
    liquidity: Literal["maker", "taker"]
    time: int


class OwnTrades(msgspec.Struct):
    """A page of fills; `next` is the cursor for `before`, null at the end."""

    trades: list[OwnTrade]
    next: str | None


class Trade(msgspec.Struct):
    """One trade of the venue's; `side` is the taker's."""

    match: str
    price: str
    quantity: str
    side: Side
    time: int
    seq: int


class Trades(msgspec.Struct):
    """The last trades of an instrument, newest last."""

    symbol: str
    seq: int
    trades: list[Trade]


class Book(msgspec.Struct):
    """Price levels, best first: price, quantity, number of orders. `crc` as on the feed."""

    symbol: str
    seq: int
    time: int
    bids: list[tuple[str, str, int]]
    asks: list[tuple[str, str, int]]
    crc: int


class Candle(msgspec.Struct):
    """One candle."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int
    closed: bool


class Candles(msgspec.Struct):
    """Candles, newest last. Intervals without a trade have none."""

    symbol: str
    interval: str
    candles: list[Candle]


class InstrumentRow(msgspec.Struct):
    """One instrument; `state` is `trading` or `halted`, `reason` the operator's words."""

    symbol: str
    id: int
    price_decimals: int
    tick: str
    quantity_decimals: int
    lot: str
    quantity_max: str
    state: str
    reason: str


class Instruments(msgspec.Struct):
    """What is traded."""

    instruments: list[InstrumentRow]


class AccountRow(msgspec.Struct):
    """Who you are to the venue. Limits of 0 are off."""

    username: str
    account_id: int
    role: str
    key: str
    entry_enabled: bool
    open_orders: int
    quantity_max_lots: int
    notional_max: int
    open_orders_max: int
    collar_bps: int
    messages_per_second: int


class Act(msgspec.Struct):
    """An admin act is durable: the event that says who did it."""

    seq: int
    time: int


class CanceledAct(msgspec.Struct):
    """An admin act that cancelled orders."""

    seq: int
    time: int
    canceled: int


class SnapshotTaken(msgspec.Struct):
    """A snapshot is being written; the event that says who asked for it."""

    seq: int
    time: int
    started: bool


class SessionRow(msgspec.Struct):
    """One account's place at the order-entry doors; `transport` is "tcp" or "udp" while it is
    connected, else empty."""

    username: str
    account_id: int
    connected: bool
    transport: str
    address: str
    next_number: int


class Sessions(msgspec.Struct):
    """The order-entry sessions."""

    generation: int
    session: str
    sessions: list[SessionRow]


class Disconnected(msgspec.Struct):
    """Whether there was a connection to close."""

    seq: int
    time: int
    disconnected: bool

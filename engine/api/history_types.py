"""The shapes of questions about the past and of their answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.api.types import Side, Symbol

Time: TypeAlias = Annotated[str, Meta(
    min_length=1, max_length=40,
    description="nanoseconds since 1970 UTC, or ISO 8601 as 2026-01-31, 2026-01-31T12:00 or "
    "2026-01-31T12:00:00.123456789Z; UTC unless it names another zone")]
Cursor: TypeAlias = Annotated[str, Meta(
    pattern=r"^[A-Za-z0-9_-]{1,200}$(?!\n)", max_length=200,
    description="`next` or `last` of an answer to the same question")]
Limit: TypeAlias = Annotated[int, Meta(
    ge=1, le=2**63 - 1, description="rows of a page of JSON, 100 without and history.rows_max at "
    "most; rows in all for the other formats, all without")]
Account: TypeAlias = Annotated[str, Meta(
    pattern=r"^[A-Z0-9]{1,6}$(?!\n)", max_length=6, description="a username")]
Order: TypeAlias = Annotated[Literal["asc", "desc"], Meta(
    description="oldest or newest first")]
Format: TypeAlias = Annotated[Literal["json", "csv", "arrow", "parquet"], Meta(
    description="a page as JSON, or the whole range as a stream; without it the header Accept "
    "decides")]
Status: TypeAlias = Annotated[
    Literal["open", "partially_filled", "filled", "canceled", "live", "ended"],
    Meta(description="`live` is open or partially_filled, `ended` filled or canceled")]
Interval: TypeAlias = Literal["1s", "1m", "5m", "1h", "1d"]
Cell: TypeAlias = Any


class Range(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True,
            rename={"from_": "from"}):
    """What all questions share: `from` included, `to` not."""

    symbol: Symbol | None = None
    from_: Time | None = None
    to: Time | None = None
    order: Order = "desc"
    limit: Limit | None = None
    cursor: Cursor | None = None
    format: Format | None = None


class PastOrdersQuery(Range, frozen=True, kw_only=True):
    """Which orders, by the time at which they were taken."""

    account: Account | None = None
    side: Side | None = None
    status: Status | None = None


class PastTradesQuery(Range, frozen=True, kw_only=True):
    """Which trades; `side` is the taker's."""

    side: Side | None = None


class PastExecutionsQuery(Range, frozen=True, kw_only=True):
    """Which executions; `side` is the own one."""

    account: Account | None = None
    side: Side | None = None


class PastCandlesQuery(Range, frozen=True, kw_only=True):
    """Which candles, by the time that they open."""

    symbol: Symbol
    interval: Interval = "1m"


class PastOrder(msgspec.Struct):
    """An order as the store has it. `time` is when it was taken, `updated` when something last
    happened to it, by the event `updated_seq`."""

    order_id: str
    client_order_id: str | None
    account: str
    symbol: str
    side: Side
    order_type: Literal["limit", "market"]
    time_in_force: str
    post_only: bool
    price: str | None
    quantity: str
    filled_quantity: str
    remaining_quantity: str
    status: Literal["open", "partially_filled", "filled", "canceled"]
    reason: str | None
    source: str
    replaces: str | None
    replaced_by: str | None
    time: int
    updated: int
    updated_seq: int


class PastTrade(msgspec.Struct):
    """One trade of the venue's; `side` is the taker's."""

    match: str
    symbol: str
    price: str
    quantity: str
    side: Side
    time: int
    seq: int


class PastExecution(msgspec.Struct):
    """One side of a trade."""

    match: str
    order_id: str
    client_order_id: str | None
    account: str
    symbol: str
    side: Side
    price: str
    quantity: str
    liquidity: Literal["maker", "taker"]
    time: int


class PastCandle(msgspec.Struct):
    """One candle; `closed` says that nothing more can come into it."""

    open_time: int
    symbol: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int
    closed: bool


class _Answer(msgspec.Struct, kw_only=True):
    next: str | None
    last: str | None
    complete: bool
    seq: int
    store: str


class PastOrders(_Answer, kw_only=True):
    """A page. `next` is the cursor of the following one, null when this is the last; `last` that
    of what may come later behind it. `complete`: the range has ended, nothing more can come into
    it. `seq` is the last event that the store had."""

    orders: list[PastOrder]


class PastTrades(_Answer, kw_only=True):
    """A page, as of orders."""

    trades: list[PastTrade]


class PastExecutions(_Answer, kw_only=True):
    """A page, as of orders."""

    executions: list[PastExecution]


class PastCandles(_Answer, kw_only=True):
    """A page, as of orders."""

    candles: list[PastCandle]


class DatabaseQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One statement that reads. `parameters` stand for `?` in SQLite and `$1`, `$2` in
    PostgreSQL. Time and rows are bounded by history.query_timeout_ms and query_rows_max too."""

    query: Annotated[str, Meta(min_length=1, max_length=100_000)]
    parameters: Annotated[list[str | int | float | bool | None], Meta(max_length=1_000)] = []
    cache_strategy: Literal["none", "memory", "redis", "hybrid"] = "hybrid"
    store: Literal["sqlite", "postgres"] | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class DatabaseAnswer(msgspec.Struct, kw_only=True):
    """The rows. `cached` says where they were kept, null when the store was asked; `seq` is the
    last event that the store had; `took_ms` is the venue's own time for it. Whole numbers above
    2^53 are texts, but for columns that end with `_ns`."""

    cached: Literal["memory", "redis"] | None
    took_ms: float
    store: str
    seq: int
    columns: list[str]
    rows: list[list[Cell]]
    truncated: bool

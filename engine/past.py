"""Questions about the past and their answers: what the gateway asks, and a store's reader answers.

Rows are plain tuples in wire units, in the order of COLUMNS; the gateway writes them as decimals.
Rows of a page are in the order of their key, which never changes and is never given twice: so
pages follow each other without a hole or a repeat while new rows arrive.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from engine.errors import EngineError

Kind: TypeAlias = Literal["orders", "trades", "executions", "candles"]
Row: TypeAlias = tuple[Any, ...]
Key: TypeAlias = tuple[int, ...]

COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "orders": (
        "order_id", "client_order_id", "symbol", "account_id", "side", "order_type",
        "time_in_force", "post_only", "price_units", "quantity_lots", "filled_lots",
        "remaining_lots", "status", "reason", "source", "replaces", "replaced_by", "time_ns",
        "updated_seq", "updated_time_ns"),
    "trades": (
        "match_number", "symbol", "price_units", "quantity_lots", "taker_side", "time_ns", "seq"),
    # `part` is 0 for the maker's side of a trade and 1 for the taker's.
    "executions": (
        "match_number", "part", "order_id", "client_order_id", "account_id", "symbol", "side",
        "price_units", "quantity_lots", "time_ns"),
    "candles": (
        "open_time_ns", "symbol", "open_units", "high_units", "low_units", "close_units",
        "volume_lots", "trades"),
}
# The first columns of a row are its key.
KEY_LENGTH: Mapping[Kind, int] = {"orders": 1, "trades": 1, "executions": 2, "candles": 1}


class PastError(EngineError):
    """A question that has no answer; `status` and `code` are those of HTTP."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code = status, code


def unavailable(reason: str) -> PastError:
    """No store can answer now."""
    return PastError(503, "history_unavailable", reason)


class Place(NamedTuple):
    """How far the store was that answered: the last event that it held, of which log. A seq of 0
    is an empty store."""

    log_id: str
    incarnation: int
    seq: int
    time_ns: int


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One question. Empty texts and zeros are no filter.

    Times: `from_ns` included, `to_ns` not. `after` is the key of the last row that was given.
    `last_seq` leaves out what began later: a long answer of several pages ends where it began.
    `interval_s` is for candles. `store` must answer, or any may.
    """

    kind: Kind
    store: str = ""
    symbol: str = ""
    account_id: int = 0
    side: str = ""
    statuses: tuple[str, ...] = ()
    from_ns: int = 0
    to_ns: int = 0
    newest_first: bool = True
    after: Key = ()
    last_seq: int = 0
    interval_s: int = 0
    limit: int = 1000


class Page(NamedTuple):
    """Rows that follow each other, the place of the store when it gave them, and whether there
    were more. `store` is its name."""

    rows: Sequence[Row]
    place: Place
    more: bool
    store: str


class Scale(NamedTuple):
    """How units and lots of a symbol become decimals."""

    price_decimals: int
    quantity_decimals: int
    lot_size: int


class Result(NamedTuple):
    """What a statement gave. `truncated`: there were more rows than were allowed."""

    columns: Sequence[str]
    rows: Sequence[Row]
    truncated: bool


class Reads(Protocol):
    """What a store's reader offers for this. Parameters are `?` in SQLite and `$1` in
    PostgreSQL."""

    name: str

    @property
    def takes_statements(self) -> bool:
        """Whether `query` is any use here; a store says no when its settings forbid it."""

    async def fetch(self, sql: str, parameters: Sequence[Any], limit: int) -> list[Row]:
        """The first `limit` rows of our own statement. Raises EngineError."""

    async def query(self, sql: str, parameters: Sequence[Any], timeout_ms: int,
                    rows_max: int) -> tuple[Sequence[str], Sequence[Row], bool]:
        """A stranger's statement, read-only and within these bounds. Raises EngineError."""


class History(Protocol):
    """What answers questions about the past."""

    async def page(self, ask: Ask) -> Page:
        """Raises PastError."""

    async def scales(self, symbols: Collection[str] | None = None) -> Mapping[str, Scale]:
        """How to write units of these symbols, or of all that the store knows now; those that were
        never traded here are missing. Raises PastError."""

    async def place(self, store: str = "") -> tuple[str, Place]:
        """The name of the store that answers statements, or of the one that is asked for, and how
        far it is. Raises PastError."""

    async def query(self, store: str, sql: str, parameters: Sequence[Any], timeout_ms: int,
                    rows_max: int) -> Result:
        """One statement of an administrator's. Raises PastError."""

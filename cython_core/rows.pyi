# A store writes a run in one transaction, in this order:
#
# 1. `instruments`, `accounts`: insert, or update every column named there. The columns `state`
#    ('trading' at first) and `reason` of instruments, `entry_disabled` and `killed` (false at
#    first) of accounts are not in these rows: a new definition leaves them as they are.
# 2. `instrument_changes`: set state, reason, seq, time. `account_changes`: set seq, time, and
#    entry_disabled and killed where they are not NULL.
# 3. `orders`, `order_events`, `trades`: insert.
# 4. `order_changes` (c), joined with the orders (o) that are older than the run:
#      filled_lots = o.filled_lots + c.filled_lots
#      quantity_lots = o.quantity_lots - c.reduced_lots
#      remaining_lots = CASE WHEN c.closed IS NULL
#          THEN o.remaining_lots - c.filled_lots - c.reduced_lots ELSE 0 END
#      status = COALESCE(c.closed, CASE WHEN o.filled_lots + c.filled_lots > 0
#          THEN 'partially_filled' ELSE 'open' END)
#      reason, replaced_by, user_ref_num = COALESCE(c.X, o.X)
#      updated_seq, updated_time_ns = c.X
# 5. `order_heirs`: client_order_id = that of the order `heir_of`, which is older than the run.
# 6. `candles`: insert, or keep open_units, take the highest high, the lowest low, the new
#    close_units, and add volume_lots and trades. `positions`: insert, or add all but seq and
#    time_ns, which are the new ones.
#
# Columns of PostgreSQL that are times (`time` before `time_ns`, ...) are not among COLUMNS;
# pgcopy adds them.
from collections.abc import Collection, Mapping
from typing import Any

from cython_core.event import EventBatch

COLUMNS: dict[str, tuple[str, ...]]
INTERVALS_S: tuple[int, ...]


class Rows:
    applied_seq: int
    last_time_ns: int
    def __init__(
        self, applied_seq: int, reject_codes: Mapping[int, str], cancel_codes: Mapping[str, str],
        roles: Mapping[str, int], keep: Collection[str] | None = None,
    ) -> None: ...
    @property
    def events(self) -> int: ...
    @property
    def min_change_id(self) -> int: ...
    @property
    def max_change_id(self) -> int: ...
    def define(
        self, instrument_id: int, symbol: str, wire_symbol: str = "", price_decimals: int = 0,
        quantity_decimals: int = 0, lot_size: int = 1,
    ) -> None: ...
    def apply(self, batch: EventBatch, until_ns: int = 0, limit_rows: int = 0) -> bool: ...
    def count(self, table: str) -> int: ...
    def rows(
        self, table: str, start: int = 0, stop: int | None = None,
    ) -> list[tuple[Any, ...]]: ...
    def flat(self, table: str, start: int = 0, stop: int | None = None) -> list[Any]: ...
    def arrays(
        self, table: str, start: int = 0, stop: int | None = None,
    ) -> dict[str, tuple[Any, ...]]: ...
    def scaled(
        self, table: str, column: str, factors: Mapping[str, int], start: int = 0,
        stop: int | None = None, digits: int = 38,
    ) -> bytearray: ...
    def clear(self) -> None: ...

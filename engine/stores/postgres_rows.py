# ruff: noqa: S608 (the statements are made of names of ours alone)
"""How rows go into PostgreSQL: binary COPY, into tables or into temporary ones that are merged.

The streams are encoded in Cython from the events' rows; no row becomes a Python object. They are
encoded and handed on in pieces, so that the loop has a turn between them.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

from cython_core.pgcopy import COLUMNS, encode
from cython_core.rows import Rows
from engine.stores.beginning import BEGINNING, Beginning
from engine.stores.postgres_schema import PARTITIONED
from engine.stores.store import Row

# So many rows are encoded at a time (a tenth of a millisecond), so many bytes are given to the
# connection.
ENCODE_ROWS = 1_000
PIECE_BYTES = 2**16
# The header and the end of a COPY stream: slices lose what is not theirs.
HEADER_BYTES = 19
TRAILER_BYTES = 2

# Tables whose rows are merged, each by way of a temporary one, in the order that merging wants.
FIRST_MERGED = ("instruments", "accounts", "instrument_changes", "account_changes")
LAST_MERGED = ("order_changes", "order_heirs", "candles", "positions")


def copy_columns(table: str) -> list[str]:
    """The columns of a COPY stream, times among them."""
    return [name for name, _ in COLUMNS[table]]


def _staging() -> str:
    """The temporary tables of a connection."""
    made = []
    for table in (*FIRST_MERGED, *LAST_MERGED):
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS[table])
        made.append(f"create temporary table if not exists new_{table} ({columns}) "
                    "on commit delete rows")
    return ";\n".join(made)


STAGING = _staging()


def _upsert(table: str, key: str) -> str:
    """Insert, or take every column that came."""
    names = copy_columns(table)
    taken = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
    return (f"insert into {table} ({', '.join(names)}) select {', '.join(names)} "
            f"from pg_temp.new_{table} on conflict ({key}) do update set {taken}")


def _insert_or(table: str, key: str, changes: str) -> str:
    names = ", ".join(copy_columns(table))
    return (f"insert into {table} as t ({names}) select {names} from pg_temp.new_{table} "
            f"on conflict ({key}) do update set {changes}")


# A definition that came behind the change has the newer time.
_NEWER = ("seq = greatest(t.seq, c.seq), time = greatest(t.time, c.time), "
          "time_ns = greatest(t.time_ns, c.time_ns)")

MERGE = {
    "instruments": _upsert("instruments", "instrument_id"),
    "accounts": _upsert("accounts", "account_id"),
    "instrument_changes":
        f"update instruments t set state = c.state, reason = c.reason, {_NEWER} "
        "from pg_temp.new_instrument_changes c where t.instrument_id = c.instrument_id",
    "account_changes":
        "update accounts t set entry_disabled = coalesce(c.entry_disabled, t.entry_disabled), "
        f"killed = coalesce(c.killed, t.killed), {_NEWER} "
        "from pg_temp.new_account_changes c where t.account_id = c.account_id",
    # $1 and $2 are the bounds of the ids, $3 is the seq before the run: they choose partitions.
    "order_changes":
        "update orders t set filled_lots = t.filled_lots + c.filled_lots, "
        "quantity_lots = t.quantity_lots - c.reduced_lots, "
        "remaining_lots = case when c.closed is null "
        "then t.remaining_lots - c.filled_lots - c.reduced_lots else 0 end, "
        "status = coalesce(c.closed, case when t.filled_lots + c.filled_lots > 0 "
        "then 'partially_filled' else 'open' end), "
        "reason = coalesce(c.reason, t.reason), "
        "replaced_by = coalesce(c.replaced_by, t.replaced_by), "
        "user_ref_num = coalesce(c.user_ref_num, t.user_ref_num), "
        "updated_seq = c.updated_seq, updated_time = c.updated_time, "
        "updated_time_ns = c.updated_time_ns from pg_temp.new_order_changes c "
        "where t.order_id = c.order_id and t.order_id between $1 and $2",
    "order_heirs":
        "update orders t set client_order_id = p.client_order_id "
        "from pg_temp.new_order_heirs c, orders p where t.order_id = c.order_id "
        "and t.order_id > $3 and p.order_id = c.heir_of and p.order_id between $1 and $2",
    "candles": _insert_or(
        "candles", "symbol, interval_s, open_time_ns",
        "high_units = greatest(t.high_units, excluded.high_units), "
        "low_units = least(t.low_units, excluded.low_units), "
        "close_units = excluded.close_units, volume_lots = t.volume_lots + excluded.volume_lots, "
        "trades = t.trades + excluded.trades"),
    "positions": _insert_or(
        "positions", "account_id, symbol",
        "position_lots = t.position_lots + excluded.position_lots, "
        "bought_lots = t.bought_lots + excluded.bought_lots, "
        "sold_lots = t.sold_lots + excluded.sold_lots, "
        "bought_value = t.bought_value + excluded.bought_value, "
        "sold_value = t.sold_value + excluded.sold_value, "
        "trades = t.trades + excluded.trades, seq = excluded.seq, time = excluded.time, "
        "time_ns = excluded.time_ns"),
}


# Columns of times beside those of nanoseconds that they are made of.
_TIMES = {"time": "time_ns", "updated_time": "updated_time_ns"}


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _utc(time_ns: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(microseconds=time_ns // 1000)


async def write_beginning(connection: Any, beginning: Beginning) -> None:
    """Write what was there before the first event, inside a transaction. Raises asyncpg's
    errors."""
    for table, rows in beginning.tables.items():
        names = BEGINNING[table]
        times = [name for name, source in _TIMES.items() if source in names]
        sources = [names.index(_TIMES[name]) for name in times]
        wide = names.index("notional_max") if "notional_max" in names else -1

        def full(row: Row, sources: list[int] = sources, wide: int = wide) -> Row:
            if wide >= 0:
                row = (*row[:wide], Decimal(row[wide]), *row[wide + 1:])
            return (*row, *(_utc(row[source]) for source in sources))

        for start in range(0, len(rows), ENCODE_ROWS):
            await connection.copy_records_to_table(
                table, records=[full(row) for row in rows[start:start + ENCODE_ROWS]],
                columns=[*names, *times])


async def write_rows(connection: Any, rows: Rows, before_seq: int) -> int:
    """Write all tables of a run, inside a transaction; how many rows. Raises asyncpg's errors."""
    written = 0
    for table in FIRST_MERGED:
        written += await _merge(connection, rows, table, before_seq)
    for table in PARTITIONED:
        if rows.count(table):
            await copy_rows(connection, rows, table, table)
            written += rows.count(table)
    for table in LAST_MERGED:
        written += await _merge(connection, rows, table, before_seq)
    return written


async def _merge(connection: Any, rows: Rows, table: str, before_seq: int) -> int:
    count = rows.count(table)
    if count:
        await copy_rows(connection, rows, table, f"new_{table}", "pg_temp")
        bounds: tuple[int, ...] = ()
        if table == "order_changes":
            bounds = rows.min_change_id, rows.max_change_id
        elif table == "order_heirs":
            bounds = rows.min_change_id, rows.max_change_id, before_seq
        await connection.fetch(MERGE[table], *bounds)
    return count


async def copy_rows(connection: Any, rows: Rows, table: str, into: str, schema: str | None = None,
                    start: int = 0, stop: int | None = None) -> None:
    """Copy the rows start..stop of one table. Raises asyncpg's errors."""
    end = rows.count(table) if stop is None else min(stop, rows.count(table))
    async with aclosing(_pieces(rows, table, start, end)) as pieces:
        await connection.copy_to_table(into, source=pieces, columns=copy_columns(table),
                                       schema_name=schema, format="binary")


async def _pieces(rows: Rows, table: str, start: int, end: int
                  ) -> AsyncGenerator[memoryview, None]:
    """The stream of some rows in pieces."""
    for first in range(start, end, ENCODE_ROWS):
        behind = min(first + ENCODE_ROWS, end)
        data = memoryview(encode(rows, table, first, behind))
        begin = 0 if first == start else HEADER_BYTES
        last = len(data) - (TRAILER_BYTES if behind < end else 0)
        for at in range(begin, last, PIECE_BYTES):
            yield data[at:min(at + PIECE_BYTES, last)]
        await asyncio.sleep(0)

# ruff: noqa: S608 - table and column names are our own, values are parameters.
"""Rows of a run as statements for SQLite: inserts, merges and updates of many rows at once.

A statement with its parameters is bound while the interpreter is held and carried out while it is
not. So statements are of some dozens of rows: long enough that their number costs little, short
enough that the loop never waits for one to be bound. Each table has statements of 1, 2, 4, ... rows
and no others, so that SQLite reads each of them once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cython_core.rows import COLUMNS, Rows
from engine import clock
from engine.stores.beginning import BEGINNING, Beginning
from engine.stores.tables import new_rows

# Values of one statement at most. Larger ones are hardly faster, and the loop waits longer.
VALUES_MAX = 256
# Python's sqlite3 takes ten times as long to bind a None or a bool as an integer, and nobody else
# runs meanwhile. So NULL travels as the one integer that no row has.
NULL = -2**63
# Columns that may be NULL, and those that are bools.
_NULLABLE = {
    "instrument_changes": ("reason",),
    "account_changes": ("entry_disabled", "killed"),
    "accounts": ("firm",),
    "orders": ("price_units", "reason", "client_order_id", "client_order", "user_ref_num",
               "user_ref_idx", "replaces", "replaced_by"),
    "order_changes": ("closed", "reason", "replaced_by", "user_ref_num"),
    "order_events": ("symbol", "account_id", "order_id", "other_order_id", "other_account_id",
                     "side", "price_units", "quantity_lots", "remaining_lots", "reason",
                     "user_ref_num", "source", "client_order_id"),
}
_BOOLS = {"orders": ("post_only",)}
# Columns whose integers are beyond what SQLite has: they go as texts.
_WIDE = {"accounts": ("notional_max",), "positions": ("bought_value", "sold_value")}


class Statement(NamedTuple):
    """What to do with the rows of a table: `head` `row`, `row`, .. `tail`."""

    head: str
    row: str
    tail: str
    columns: int
    bools: tuple[int, ...]
    wide: tuple[int, ...]


def _statement(table: str, head: str, tail: str) -> Statement:
    """A statement for rows with the columns of `table`."""
    names = COLUMNS[table]
    nullable = _NULLABLE.get(table, ())
    row = ", ".join(f"NULLIF(?, {NULL})" if name in nullable else "?" for name in names)
    return Statement(head, f"({row})", tail, len(names), _places(table, _BOOLS),
                     _places(table, _WIDE))


def _places(table: str, columns: Mapping[str, tuple[str, ...]]) -> tuple[int, ...]:
    return tuple(COLUMNS[table].index(name) for name in columns.get(table, ()))


def _insert(table: str, key: str = "", merge: str = "") -> Statement:
    """Insert rows; where their key is there already, `merge` says what to set."""
    tail = f" ON CONFLICT ({key}) DO UPDATE SET {merge}" if merge else ""
    return _statement(table, f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES ", tail)


def _define(table: str) -> Statement:
    """Insert, or replace every column that is named."""
    key, *names = COLUMNS[table]
    return _insert(table, key, ", ".join(f"{name} = excluded.{name}" for name in names))


def _update(table: str, changes: str, assignments: str) -> Statement:
    """Join rows of `changes` with a table by their first columns; `{name}` in the assignments is
    a column of the change."""
    names = COLUMNS[changes]
    new = {name: f"c.column{number}" for number, name in enumerate(names, 1)}
    tail = f") AS c WHERE {table}.{names[0]} = c.column1"
    return _statement(changes, f"UPDATE {table} SET {assignments.format(**new)} FROM (VALUES ",
                      tail)


def _sum(name: str) -> str:
    """Adds two numbers that are texts; in SQLite itself where 64 bits are enough."""
    old, new = f"positions.{name}", f"excluded.{name}"
    return (f"{name} = CASE WHEN length({old}) <= 18 AND length({new}) <= 18 "
            f"THEN CAST(CAST({old} AS INTEGER) + CAST({new} AS INTEGER) AS TEXT) "
            f"ELSE matchd_sum({old}, {new}) END")


def _add(table: str, *names: str) -> str:
    return ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in names)


# In the order in which cython_core/rows.pyi wants them.
STATEMENTS: dict[str, Statement] = {
    "instruments": _define("instruments"),
    "accounts": _define("accounts"),
    "instrument_changes": _update(
        "instruments", "instrument_changes",
        "state = {state}, reason = {reason}, seq = {seq}, time_ns = {time_ns}"),
    "account_changes": _update(
        "accounts", "account_changes",
        "entry_disabled = COALESCE({entry_disabled}, accounts.entry_disabled), "
        "killed = COALESCE({killed}, accounts.killed), seq = {seq}, time_ns = {time_ns}"),
    "orders": _insert("orders"),
    "order_events": _insert("order_events"),
    "trades": _insert("trades"),
    "order_changes": _update(
        "orders", "order_changes",
        "filled_lots = orders.filled_lots + {filled_lots}, "
        "quantity_lots = orders.quantity_lots - {reduced_lots}, "
        "remaining_lots = CASE WHEN {closed} IS NULL "
        "THEN orders.remaining_lots - {filled_lots} - {reduced_lots} ELSE 0 END, "
        "status = COALESCE({closed}, CASE WHEN orders.filled_lots + {filled_lots} > 0 "
        "THEN 'partially_filled' ELSE 'open' END), "
        "reason = COALESCE({reason}, orders.reason), "
        "replaced_by = COALESCE({replaced_by}, orders.replaced_by), "
        "user_ref_num = COALESCE({user_ref_num}, orders.user_ref_num), "
        "updated_seq = {updated_seq}, updated_time_ns = {updated_time_ns}"),
    "order_heirs": _update(
        "orders", "order_heirs",
        "client_order_id = (SELECT o.client_order_id FROM orders AS o "
        "WHERE o.order_id = {heir_of})"),
    "candles": _insert(
        "candles", "symbol, interval_s, open_time_ns",
        "high_units = max(candles.high_units, excluded.high_units), "
        "low_units = min(candles.low_units, excluded.low_units), "
        "close_units = excluded.close_units, " + _add("candles", "volume_lots", "trades")),
    "positions": _insert(
        "positions", "account_id, symbol",
        f"{_add('positions', 'position_lots', 'bought_lots', 'sold_lots', 'trades')}, "
        f"{_sum('bought_value')}, {_sum('sold_value')}, "
        "seq = excluded.seq, time_ns = excluded.time_ns"),
}


def known_rows(connection: sqlite3.Connection, applied_seq: int) -> Rows:
    """Rows that begin behind a seq and know the markets of the file. Raises sqlite3.Error."""
    connection.create_function("matchd_sum", 2, lambda one, two: str(int(one) + int(two)),
                               deterministic=True)
    rows = new_rows(applied_seq)
    for instrument in connection.execute(
            "SELECT instrument_id, symbol, wire_symbol, price_decimals, quantity_decimals, "
            "lot_size FROM instruments"):
        rows.define(*instrument)
    return rows


def write_beginning(connection: sqlite3.Connection, beginning: Beginning) -> None:
    """Write what was there before the first event, within the transaction that is open. Raises
    sqlite3.Error, OverflowError."""
    for table, rows in beginning.tables.items():
        names = BEGINNING[table]
        wide = [names.index(name) for name in _WIDE.get(table, ())]
        values = ((str(value) if place in wide else value for place, value in enumerate(row))
                  for row in rows)
        connection.executemany(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES "
            f"({', '.join('?' * len(names))})", map(tuple, values))


def write_rows(connection: sqlite3.Connection, rows: Rows) -> int:
    """Write all rows within the transaction that is open; returns how many. Raises
    sqlite3.Error, OverflowError."""
    return sum(write_table(connection, rows, table) for table in STATEMENTS)


def write_table(connection: sqlite3.Connection, rows: Rows, table: str, start: int = 0,
                stop: int | None = None) -> int:
    """The same for rows start..stop of one table."""
    end = min(rows.count(table), rows.count(table) if stop is None else stop)
    for first, behind, sql in _slices(STATEMENTS[table], start, end):
        connection.execute(sql, _values(rows, table, first, behind))
        # Many kernels leave a computing thread its core until the next tick, 4 ms away: let the
        # loop have it between two statements.
        clock.yield_core()
    return max(0, end - start)


def _values(rows: Rows, table: str, start: int, stop: int) -> list[Any]:
    """The parameters of one statement."""
    statement = STATEMENTS[table]
    values = [NULL if value is None else value for value in rows.flat(table, start, stop)]
    for column in statement.bools:
        values[column::statement.columns] = map(int, values[column::statement.columns])
    for column in statement.wide:
        values[column::statement.columns] = map(str, values[column::statement.columns])
    return values


def _slices(statement: Statement, start: int, stop: int) -> Iterator[tuple[int, int, str]]:
    """Where the rows of each statement begin and end, and the statement."""
    size = 1 << max(0, (VALUES_MAX // statement.columns).bit_length() - 1)
    while start < stop:
        while size > stop - start:
            size //= 2
        yield start, start + size, _text(statement, size)
        start += size


_texts: dict[tuple[Statement, int], str] = {}


def _text(statement: Statement, size: int) -> str:
    text = _texts.get((statement, size))
    if text is None:
        text = statement.head + ", ".join([statement.row] * size) + statement.tail
        _texts[statement, size] = text
    return text

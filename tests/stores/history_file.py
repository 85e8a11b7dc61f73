"""Makes history files with rows of the test's own, without a journal."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engine.clock import NS_PER_DAY
from engine.stores import sqlite_file

LOG_ID = bytes(range(16))
# A midnight.
DAY_0_NS = 20_000 * NS_PER_DAY


def make(path: Path) -> sqlite3.Connection:
    """A new file with its tables."""
    return sqlite_file.open_for_writing(path)


def insert(connection: sqlite3.Connection, table: str, **values: object) -> None:
    """One row; columns that are not named get what their type allows."""
    for _, name, kind, required, default, key, hidden in connection.execute(
            f"PRAGMA table_xinfo({table})").fetchall():
        if not hidden and (required or key) and default is None:
            values.setdefault(name, 0 if kind == "INTEGER" else "")
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))


def trade_a_day(connection: sqlite3.Connection, day: int, orders: int, symbol: str = "A") -> None:
    """A day of orders, three seqs apart, each with a trade; all are dead but the first."""
    first = day * 1_000_000 + 1
    start_ns = DAY_0_NS + day * NS_PER_DAY
    connection.execute("BEGIN")
    for number in range(orders):
        seq, time_ns = first + 3 * number, start_ns + number
        status = "open" if number == 0 else "filled"
        insert(connection, "orders", order_id=seq, symbol=symbol, status=status, time_ns=time_ns)
        insert(connection, "order_events", seq=seq, kind="accepted", time_ns=time_ns)
        insert(connection, "order_events", seq=seq + 1, kind="filled", time_ns=time_ns)
        insert(connection, "trades", match_number=seq + 1, seq=seq + 1, symbol=symbol,
               time_ns=time_ns)
    for interval_s in (60, 86_400):
        insert(connection, "candles", symbol=symbol, interval_s=interval_s, open_time_ns=start_ns)
    connection.execute("COMMIT")


def count(connection: sqlite3.Connection, table: str, where: str = "1") -> int:
    """Rows of a table."""
    found: int = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0]
    return found

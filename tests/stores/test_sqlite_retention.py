"""Old history goes: whole days, in slices, and only what is dead."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from engine import clock
from engine.clock import NS_PER_DAY
from engine.config import SqliteConfig
from engine.stores import sqlite_retention
from engine.stores.sqlite_retention import Retention, first_seq_at, kept_from, used_bytes
from tests.stores.history_file import DAY_0_NS, count, insert, make, trade_a_day


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    made = make(tmp_path / "history.sqlite")
    insert(made, "instruments", instrument_id=1, symbol="A", lot_size=1)
    return made


def run_out(retention: Retention, connection: sqlite3.Connection) -> int:
    """Run until there is nothing more to do for now; returns the slices."""
    for number in range(10_000):
        retention.run(connection)
        if retention.due_ns > clock.monotonic_ns() + clock.NS_PER_S:
            return number
    raise AssertionError("it never ends")


def retention_on(day: int, **settings: int) -> Retention:
    """Retention at noon of a day."""
    now_ns = DAY_0_NS + day * NS_PER_DAY + NS_PER_DAY // 2
    return Retention(SqliteConfig(**settings), lambda: now_ns)


def test_without_limits_it_is_never_due() -> None:
    retention = Retention(SqliteConfig())
    assert retention.due_ns == 0
    assert not retention.is_due()


def test_days_go_and_live_orders_stay(connection: sqlite3.Connection,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_retention, "SLICE_ROWS", 7)
    for day in range(4):
        trade_a_day(connection, day, 20)
    retention = retention_on(3, retain_days=1)
    assert retention.is_due()
    assert run_out(retention, connection) > 4 * 2 * 20 // 7, "each slice is small"
    boundary = 2_000_001
    assert kept_from(connection) == (boundary, DAY_0_NS + 2 * NS_PER_DAY)
    for table, key, rows in (("trades", "match_number", 40), ("order_events", "seq", 80)):
        assert count(connection, table) == rows
        assert count(connection, table, f"{key} < {boundary}") == 0
    assert count(connection, "candles") == 4
    assert count(connection, "candles", f"open_time_ns < {DAY_0_NS + 2 * NS_PER_DAY}") == 0
    assert count(connection, "orders") == 42
    assert count(connection, "orders", f"order_id < {boundary} AND status = 'open'") == 2


def test_an_old_order_goes_when_it_is_dead(connection: sqlite3.Connection) -> None:
    for day in range(3):
        trade_a_day(connection, day, 5)
    retention = retention_on(2, retain_days=1)
    run_out(retention, connection)
    assert count(connection, "orders", "order_id < 1000000") == 1
    connection.execute("UPDATE orders SET status = 'canceled' WHERE order_id = 1")
    run_out(retention, connection)
    assert count(connection, "orders", "order_id < 1000000") == 0


def test_the_largest_size_takes_the_oldest_days(connection: sqlite3.Connection) -> None:
    for day in range(5):
        trade_a_day(connection, day, 3_000)
    before, limit = used_bytes(connection), used_bytes(connection) // 2
    retention = retention_on(4, retain_max_bytes=limit)
    run_out(retention, connection)
    assert limit * 0.5 < used_bytes(connection) <= limit
    assert kept_from(connection)[0] in (2_000_001, 3_000_001)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    assert pages * 4096 < before * 0.6, "the file itself became smaller"
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_today_stays_however_large(connection: sqlite3.Connection) -> None:
    trade_a_day(connection, 0, 50)
    run_out(retention_on(0, retain_max_bytes=1), connection)
    assert count(connection, "trades") == 50
    assert kept_from(connection) == (0, 0)


def test_what_was_cut_short_is_finished(connection: sqlite3.Connection,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_retention, "SLICE_ROWS", 7)
    for day in range(3):
        trade_a_day(connection, day, 20)
    first = retention_on(2, retain_days=1)
    first.run(connection)
    assert count(connection, "trades", "match_number < 1000000") == 13
    run_out(retention_on(2, retain_days=1), connection)
    assert count(connection, "trades", "match_number < 1000000") == 0


def test_a_time_is_found_by_halving(connection: sqlite3.Connection) -> None:
    assert first_seq_at(connection, 5) == 1
    for seq, time_ns in ((3, 10), (4, 10), (9, 20), (100, 30)):
        insert(connection, "order_events", seq=seq, time_ns=time_ns)
    found = [first_seq_at(connection, time_ns) for time_ns in (5, 10, 11, 20, 29, 30, 31)]
    assert found == [3, 3, 9, 9, 100, 100, 101]

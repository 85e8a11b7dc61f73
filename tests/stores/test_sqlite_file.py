"""The history file: its tables and views, and files that are something else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.instruments import unscaled
from engine.stores import sqlite_file
from engine.stores.sqlite_schema import MIGRATIONS, SCHEMA_VERSION
from engine.stores.store import StoreDown, StoreStopped
from tests.stores import history_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def test_a_new_file_has_its_tables_once(path: Path) -> None:
    first = history_file.make(path)
    history_file.insert(first, "instruments", instrument_id=1, symbol="A", lot_size=1)
    first.close()
    again = history_file.make(path)
    assert history_file.count(again, "instruments") == 1
    assert again.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION == len(MIGRATIONS)
    assert again.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    again.close()


def test_times_are_texts_with_nanoseconds(path: Path) -> None:
    connection = history_file.make(path)
    history_file.insert(connection, "trades", match_number=1, time_ns=1_763_750_400_000_000_007)
    assert connection.execute("SELECT time FROM trades").fetchone()[0] \
        == "2025-11-21T18:40:00.000000007Z"


lots = st.integers(0, 2**63 - 1)
lot_sizes = st.one_of(
    st.integers(0, 18).map(lambda zeros: 10**zeros), st.integers(1, 8_999_999_999),
    st.builds(lambda digits, zeros: digits * 10**zeros, st.integers(1, 999_999),
              st.integers(0, 12)))


@settings(max_examples=300, deadline=None)
@given(decimals=st.tuples(st.integers(0, 12), st.integers(0, 12)), lot_size=lot_sizes,
       quantity=lots, negative=st.booleans(), value=st.integers(0, 10**30),
       price=st.integers(1, 2**40))
def test_views_show_exact_decimals(decimals: tuple[int, int], lot_size: int, quantity: int,
                                   negative: bool, value: int, price: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(MIGRATIONS[0])
    price_decimals, quantity_decimals = decimals
    history_file.insert(connection, "instruments", instrument_id=1, symbol="A", lot_size=lot_size,
                        price_decimals=price_decimals, quantity_decimals=quantity_decimals)
    position = -quantity if negative else quantity
    history_file.insert(connection, "positions", symbol="A", position_lots=position,
                        bought_lots=quantity, bought_value=str(value), sold_value="0")
    history_file.insert(connection, "trades", match_number=1, symbol="A", price_units=price,
                        quantity_lots=quantity)
    row = connection.execute("SELECT position, bought, bought_value, sold_value "
                             "FROM positions_view").fetchone()
    both = price_decimals + quantity_decimals
    assert row == (unscaled(position * lot_size, quantity_decimals),
                   unscaled(quantity * lot_size, quantity_decimals),
                   unscaled(value * lot_size, both), unscaled(0, both))
    assert connection.execute("SELECT price, quantity FROM trades_view").fetchone() \
        == (unscaled(price, price_decimals), unscaled(quantity * lot_size, quantity_decimals))
    connection.close()


def test_every_view_can_be_read(path: Path) -> None:
    connection = history_file.make(path)
    for table in ("orders", "order_events", "trades", "candles", "positions"):
        history_file.insert(connection, table)
        # Also of a market that is not known: without its decimals, but there.
        assert len(connection.execute(f"SELECT * FROM {table}_view").fetchall()) == 1
    connection.close()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"these are my notes\n" * 1000)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        sqlite_file.open_for_writing(path)
    meant = sqlite_file.failure(caught.value, path, "opening")
    assert isinstance(meant, StoreStopped)
    assert str(path) in str(meant)
    assert path.read_bytes().startswith(b"these are my notes")


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (a)")
    other.commit()
    other.close()
    with pytest.raises(StoreStopped, match="not a history of matchd"):
        sqlite_file.open_for_writing(path)
    other = sqlite3.connect(path)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    other.close()


def test_a_schema_of_the_future_is_refused(path: Path) -> None:
    connection = history_file.make(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreStopped, match=f"has schema {SCHEMA_VERSION + 1}"):
        sqlite_file.open_for_writing(path)


def test_a_position_of_the_future_is_refused(path: Path) -> None:
    connection = history_file.make(path)
    history_file.insert(connection, "store_position", schema_version=SCHEMA_VERSION + 1)
    connection.close()
    for writing in (True, False):
        with pytest.raises(StoreStopped, match=f"has schema {SCHEMA_VERSION + 1}, this matchd"):
            if writing:
                sqlite_file.open_for_writing(path)
            else:
                sqlite_file.check(sqlite_file.connect(path, writing=False), path)
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE store_position SET schema_version = {SCHEMA_VERSION}")
    connection.commit()
    connection.close()
    sqlite_file.open_for_writing(path).close()


def test_strangers_on_the_machine_read_no_file(path: Path) -> None:
    connection = sqlite_file.open_for_writing(path)
    connection.execute("UPDATE store_position SET seq = 1")
    modes = {one.name: one.stat().st_mode & 0o007 for one in path.parent.glob(f"{path.name}*")}
    assert len(modes) == 3 and not any(modes.values())
    connection.close()


def test_a_failed_migration_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = MIGRATIONS[0] + "\nCREATE TABLE trades (a);\n"
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (broken,))
    with pytest.raises(sqlite3.OperationalError):
        sqlite_file.open_for_writing(path)
    monkeypatch.undo()
    connection = history_file.make(path)
    assert history_file.count(connection, "trades") == 0
    connection.close()


def test_what_errors_mean(path: Path) -> None:
    connection = history_file.make(path)
    connection.execute("PRAGMA max_page_count = 60")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                           "INSERT INTO order_events (seq, time_ns, kind) SELECT i, 0, 'a' FROM n "
                           "LIMIT 100000")
    full = sqlite_file.failure(caught.value, path, "writing")
    assert isinstance(full, StoreDown)
    assert "full" in str(full)
    connection.close()
    missing = path.parent / "nowhere" / "history.sqlite"
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite_file.open_for_writing(missing)
    assert isinstance(sqlite_file.failure(caught.value, missing, "opening"), StoreDown)


def test_a_damaged_file_is_put_aside_whole(path: Path) -> None:
    for number in (1, 2):
        path.write_text(f"damaged {number}")
        Path(f"{path}-wal").write_text("its log")
        aside = sqlite_file.set_aside(path)
        assert aside.name == f"history.sqlite.damaged-{number}"
        assert aside.read_text() == f"damaged {number}"
        assert Path(f"{aside}-wal").read_text() == "its log"
        assert not path.exists()

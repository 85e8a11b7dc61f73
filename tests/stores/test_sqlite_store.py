"""The SQLite store: what it writes, exactly once, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cython_core import record
from cython_core.event import EventBatch
from cython_core.rows import COLUMNS
from engine.clock import NS_PER_DAY
from engine.config import SqliteConfig
from engine.stores import sqlite, sqlite_rows
from engine.stores.sqlite import SqliteStore
from engine.stores.sqlite_rows import STATEMENTS
from engine.stores.sqlite_schema import SCHEMA_VERSION, TABLES
from engine.stores.store import Position, StoreDown, StoreMoved, StoreRefused, StoreStopped, Work
from engine.stores.tables import new_rows
from tests.oracle.random_flow import FIRMS, TICKS, RandomFlow
from tests.oracle.venue_pair import VenuePair
from tests.stores import rows_model

LOG_ID = bytes(range(100, 116))
START = Position(LOG_ID, 1, 0)
KEYS = {name: ", ".join(key) for name, (_, key) in rows_model.TABLES.items()}
# Integers of more than 64 bits are texts in SQLite.
WIDE = {"notional_max", "bought_value", "sold_value"}


def random_log(seed: int, operations: int, days: int = 1) -> list[EventBatch]:
    """Events of a random flow over every kind of order, a batch for each command."""
    pair = VenuePair()
    flow = RandomFlow(seed, pair)
    flow.define()
    for day in range(days):
        pair.time_ns = max(pair.time_ns, day * NS_PER_DAY)
        flow.run(operations // days)
    return [part for batch in pair.log for part in commands_of(batch)]


def commands_of(batch: EventBatch) -> list[EventBatch]:
    """A batch for each command of a batch."""
    starts = [event["seq"] for event in batch.dicts() if event["first"]]
    ends = [*starts[1:], batch.first_seq + batch.event_count]
    return [record.events_before(record.events_from(batch, start), end)
            for start, end in zip(starts, ends, strict=True)]


LOG = random_log(7, 1_500)


def end_of(batches: Sequence[EventBatch]) -> int:
    return batches[-1].first_seq + batches[-1].event_count - 1


def work_of(batches: list[EventBatch], before: Position) -> Work:
    """Work that brings a store from `before` to the end of the batches."""
    return Work(batches, before, before._replace(seq=end_of(batches)), live=True)


async def write_in_parts(store: SqliteStore, log: list[EventBatch], most: int, seed: int,
                         position: Position = START) -> Position:
    """Write a log in runs of 1 to `most` batches; returns the last position."""
    chance, at = random.Random(seed), 0
    while at < len(log):
        batches = log[at:at + chance.randint(1, most)]
        work = work_of(batches, position)
        await store.write(work)
        position, at = work.after, at + len(batches)
    return position


def read(path: Path, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Ask the file beside the store."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in the order of the keys."""
    return {table: read(path, f"SELECT * FROM {table} ORDER BY {key}")
            for table, key in KEYS.items()}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteConfig(), tmp_path)
    yield store
    await store.close()


# -- what it writes --------------------------------------------------------------------------------


def test_the_tables_have_the_columns_that_rows_have(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = SqliteStore(SqliteConfig(), tmp_path)
    asyncio.run(store.open(START))
    for table in KEYS:
        found = [row[1] for row in read(path, f"PRAGMA table_info({table})")]
        missing = [name for name in COLUMNS[table] if name not in found]
        assert not missing
        made = {"time", "open_time", "updated_time", "entry"}
        inside = {"state", "reason", "entry_disabled", "killed"} if table in (
            "instruments", "accounts") else set()
        assert set(found) - set(COLUMNS[table]) - inside <= made
        # What the table may leave out, its statement has to.
        required = {row[1] for row in read(path, f"PRAGMA table_info({table})") if row[3] or row[5]}
        assert set(sqlite_rows._NULLABLE.get(table, ())) == set(COLUMNS[table]) - required
    assert set(STATEMENTS) == set(COLUMNS)
    assert set(KEYS) | {"store_position", "store_retention"} == set(TABLES)


@pytest.mark.parametrize("most", [1, 10, 300, 10_000])
async def test_every_table_is_that_of_the_model(store: SqliteStore, most: int) -> None:
    await store.open(START)
    position = await write_in_parts(store, LOG, most, seed=most)
    assert await store.open(START) == position
    model = rows_model.model_of(LOG)
    for table, (columns, _) in rows_model.TABLES.items():
        names = [f"CAST({name} AS TEXT)" if name in WIDE else name for name in columns]
        found = read(store.path, f"SELECT {', '.join(names)} FROM {table} ORDER BY {KEYS[table]}")
        assert found == [tuple(str(value) if name in WIDE else value
                               for name, value in zip(columns, row, strict=True))
                         for row in model.rows(table)], table
        assert len(found) > 3, "the test has something to compare"
    assert read(store.path, "SELECT log_id, incarnation, seq, time_ns, schema_version "
                "FROM store_position") \
        == [(LOG_ID.hex(), 1, position.seq, LOG[-1].dicts()[-1]["time_ns"], SCHEMA_VERSION)]


async def test_sums_go_beyond_64_bits(store: SqliteStore) -> None:
    await store.open(START)
    # Nobody has traded yet, and everybody is known.
    known = LOG[:len(FIRMS) + len(TICKS)]
    await store.write(work_of(known, START))
    await store.close()
    connection = sqlite3.connect(store.path)
    large = str(2**63 - 5)
    connection.execute("INSERT INTO positions SELECT account_id, symbol, 0, 0, 0, ?, ?, 0, 0, 0 "
                       "FROM accounts, instruments", (large, large))
    connection.commit()
    connection.close()
    await store.open(START)
    await write_in_parts(store, LOG[len(known):], 10, 1, START._replace(seq=end_of(known)))
    rows = new_rows()
    for batch in LOG:
        rows.apply(batch)
    at = {name: number for number, name in enumerate(COLUMNS["positions"])}
    sums = {(row[at["account_id"]], row[at["symbol"]]):
            (str(2**63 - 5 + row[at["bought_value"]]), str(2**63 - 5 + row[at["sold_value"]]))
            for row in rows.rows("positions")}
    found = read(store.path, "SELECT account_id, symbol, bought_value, sold_value FROM positions")
    assert sums
    assert {row[:2]: row[2:] for row in found if row[:2] in sums} == sums


async def test_statements_of_any_length_do_the_same(store: SqliteStore, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    await store.open(START)
    await write_in_parts(store, LOG, 30, 1)
    monkeypatch.setattr(sqlite_rows, "VALUES_MAX", 1)
    single = SqliteStore(SqliteConfig(file="single.sqlite"), tmp_path)
    await single.open(START)
    await write_in_parts(single, LOG, 30, 1)
    await single.close()
    assert contents(store.path) == contents(single.path)


def test_updates_look_orders_up_by_their_key(tmp_path: Path) -> None:
    store = SqliteStore(SqliteConfig(), tmp_path)
    asyncio.run(store.open(START))
    connection = sqlite3.connect(store.path)
    for table in ("order_changes", "order_heirs"):
        sql = sqlite_rows._text(STATEMENTS[table], 16)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}",
                                  [1] * 16 * STATEMENTS[table].columns).fetchall()
        steps = [row[3] for row in plan]
        assert any("SEARCH orders USING INTEGER PRIMARY KEY" in step for step in steps), steps
        assert not any(step.startswith("SCAN orders") for step in steps), steps
    connection.close()


# -- its position ----------------------------------------------------------------------------------


async def test_an_empty_store_has_no_position(store: SqliteStore) -> None:
    assert await store.open(START) is None
    assert await store.open(START) is None
    work = work_of(LOG[:3], START)
    await store.write(work)
    assert await store.open(START) == work.after


async def test_what_was_written_is_not_written_again(store: SqliteStore) -> None:
    await store.open(START)
    work = work_of(LOG[:50], START)
    await store.write(work)
    before = contents(store.path)
    with pytest.raises(StoreMoved):
        await store.write(work)
    assert contents(store.path) == before
    # It is still open, and goes on.
    await store.write(work_of(LOG[50:], work.after))


async def test_a_hole_is_refused(store: SqliteStore) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    with pytest.raises(StoreRefused):
        await store.write(work_of(LOG[51:], first.after))
    assert await store.open(START) == first.after


async def test_another_writer_is_noticed(store: SqliteStore, tmp_path: Path) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    other = SqliteStore(SqliteConfig(), tmp_path)
    await other.open(START)
    await other.write(work_of(LOG[50:60], first.after))
    await other.close()
    with pytest.raises(StoreMoved):
        await store.write(work_of(LOG[50:55], first.after))


async def test_a_rebuild_beside_a_running_store_is_noticed(store: SqliteStore,
                                                           tmp_path: Path) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    other = SqliteStore(SqliteConfig(), tmp_path)
    await other.open(START)
    await other.reset()
    await other.close()
    with pytest.raises(StoreMoved):
        await store.write(work_of(LOG[50:55], first.after))
    assert await store.open(START) is None
    await write_in_parts(store, LOG, 20, 1)
    assert len(contents(store.path)["orders"]) > 100


async def test_two_stores_that_both_found_it_empty(store: SqliteStore, tmp_path: Path) -> None:
    other = SqliteStore(SqliteConfig(), tmp_path)
    assert await store.open(START) is None
    assert await other.open(START) is None
    await other.write(work_of(LOG[:50], START))
    await other.close()
    with pytest.raises(StoreMoved):
        await store.write(work_of(LOG[:50], START))


async def test_what_is_not_synced_is_not_safe(store: SqliteStore, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    await store.open(START)
    half = len(LOG) // 2
    position = await write_in_parts(store, LOG[:half], half, 1)
    # The journal has to keep what only the unsynced log beside the file has.
    assert store.safe_seq(position.seq) == 0
    monkeypatch.setattr(sqlite, "SAFE_NS", 0)
    reader = sqlite3.connect(tmp_path / "history.sqlite")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM trades").fetchall()
    position = await write_in_parts(store, LOG[half:-1], half, 1, position)
    assert store.safe_seq(position.seq) < position.seq, "a reader keeps pages back"
    reader.close()
    position = await write_in_parts(store, LOG[-1:], 1, 1, position)
    assert store.safe_seq(position.seq) == position.seq == end_of(LOG)
    # The file alone, as a power cut may leave it, has everything up to there.
    (tmp_path / "alone.sqlite").write_bytes((tmp_path / "history.sqlite").read_bytes())
    assert read(tmp_path / "alone.sqlite", "SELECT seq FROM store_position") == [(position.seq,)]
    await store.close()
    assert await store.open(START) == position
    assert store.safe_seq(position.seq) == position.seq


async def test_work_without_events_changes_nothing(store: SqliteStore) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    before = contents(store.path)
    await store.write(Work([], first.after, first.after, live=True))
    assert contents(store.path) == before
    assert store.due_ns() == 0


async def test_reset_empties_all_tables(store: SqliteStore) -> None:
    await store.open(START)
    await store.write(work_of(LOG, START))
    await store.reset()
    assert all(not rows for rows in contents(store.path).values())
    await store.write(work_of(LOG, START))
    assert len(contents(store.path)["orders"]) > 100


# -- what goes wrong -------------------------------------------------------------------------------


async def test_a_row_that_is_there_already_is_refused(store: SqliteStore) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    await store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("INSERT INTO order_events (seq, time_ns, kind) VALUES (?, 0, 'foreign')",
                       (end_of(LOG[:50]) + 3,))
    connection.commit()
    connection.close()
    await store.open(START)
    before = contents(store.path)
    with pytest.raises(StoreRefused, match="order_events"):
        await store.write(work_of(LOG[50:], first.after))
    assert contents(store.path) == before, "all or nothing"


@pytest.mark.parametrize("replace", [False, True])
async def test_a_file_that_vanishes_is_noticed(store: SqliteStore, tmp_path: Path,
                                               replace: bool) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    if replace:
        other = SqliteStore(SqliteConfig(file="other.sqlite"), tmp_path)
        await other.open(START)
        await other.write(work_of(LOG[:20], START))
        await other.close()
        other.path.rename(store.path)
    else:
        store.path.unlink()
    with pytest.raises(StoreDown, match="replaced" if replace else "removed"):
        await store.write(work_of(LOG[50:60], first.after))
    found = await store.open(START)
    assert (found.seq if found else 0) == (end_of(LOG[:20]) if replace else 0)
    await write_in_parts(store, LOG[20 if replace else 0:], 20, 1, found or START)
    assert read(store.path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_new_log_beside_the_new_file_survives(store: SqliteStore, tmp_path: Path) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    aside = tmp_path / "aside"
    aside.mkdir()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{store.path}{suffix}").rename(aside / f"history.sqlite{suffix}")
    other = SqliteStore(SqliteConfig(), tmp_path)
    await other.open(START)
    await other.write(work_of(LOG[:20], START))
    # What the other wrote is in its log only; closing our old file must leave that alone.
    with pytest.raises(StoreDown):
        await store.write(work_of(LOG[50:60], first.after))
    assert Path(f"{store.path}-wal").exists()
    found = await store.open(START)
    assert found is not None
    assert found.seq == end_of(LOG[:20])
    await other.close()


async def test_a_file_that_others_hold_is_down_for_a_while(
        store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stores.sqlite_file.BUSY_S", 0.1)
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreDown, match="locked"):
        await store.write(work_of(LOG[50:60], first.after))
    holder.execute("ROLLBACK")
    holder.close()
    assert await store.open(START) == first.after
    await store.write(work_of(LOG[50:60], first.after))


async def test_a_full_disk_is_down_until_there_is_room(store: SqliteStore) -> None:
    await store.open(START)
    first = work_of(LOG[:50], START)
    await store.write(first)
    assert store._connection is not None
    store._connection.execute("PRAGMA max_page_count = 40")
    with pytest.raises(StoreDown, match="make room"):
        await store.write(work_of(LOG[50:], first.after))
    assert await store.open(START) == first.after
    await store.write(work_of(LOG[50:], first.after))
    assert read(store.path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_store_that_is_not_open_is_down(store: SqliteStore) -> None:
    with pytest.raises(StoreDown, match="not open"):
        await store.write(work_of(LOG[:5], START))


async def test_a_damaged_file_stops_the_store_and_can_be_rebuilt(store: SqliteStore) -> None:
    await store.open(START)
    await store.write(work_of(LOG, START))
    await store.close()
    size = store.path.stat().st_size
    with store.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    with pytest.raises(StoreStopped, match="rebuild"):
        await store.open(START)
    await store.reset()
    assert Path(f"{store.path}.damaged-1").stat().st_size == size
    await store.write(work_of(LOG, START))
    assert len(contents(store.path)["orders"]) > 100


async def test_a_foreign_database_is_not_reset(store: SqliteStore) -> None:
    other = sqlite3.connect(store.path)
    other.execute("CREATE TABLE mine (a)")
    other.commit()
    other.close()
    for act in (store.open(START), store.reset()):
        with pytest.raises(StoreStopped, match="not a history of matchd"):
            await act
    assert read(store.path, "SELECT name FROM sqlite_master") == [("mine",)]


async def test_a_directory_in_its_place_is_down(store: SqliteStore) -> None:
    store.path.mkdir()
    with pytest.raises(StoreDown, match="unable to open"):
        await store.open(START)


async def test_old_history_goes_between_writes(tmp_path: Path) -> None:
    store = SqliteStore(SqliteConfig(retain_days=1), tmp_path)
    await store.open(START)
    assert store.due_ns() > 0
    log = random_log(5, 1_500, days=3)
    await store.write(work_of(log, START))
    # The events of the test are from 1970: all go but the newest day, and live orders stay.
    at = START._replace(seq=end_of(log))
    for _ in range(100):
        await store.write(Work([], at, at, live=True))
        await asyncio.sleep(0.006)
    newest_ns = 2 * NS_PER_DAY
    assert read(store.path, "SELECT kept_from_ns FROM store_retention") == [(newest_ns,)]
    for table in ("trades", "order_events"):
        assert read(store.path, f"SELECT count(*), min(time_ns) >= {newest_ns} FROM {table}") \
            > [(10, 1)]
    found = contents(store.path)
    assert {row[0] for row in read(store.path, "SELECT status FROM orders WHERE time_ns < ?",
                                   newest_ns)} == {"open", "partially_filled"}
    assert len(found["positions"]) > 3
    assert await store.open(START) == at
    await store.close()

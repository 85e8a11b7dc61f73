"""Questions to the history file: only reading, in time, and of the file that is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.stores import sqlite_reader
from engine.stores.sqlite_reader import SqliteReader
from engine.stores.store import QueryRefused, QueryTimeout, StoreDown, StoreStopped
from tests.stores import history_file

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "history.sqlite"
    connection = history_file.make(path)
    history_file.trade_a_day(connection, 0, 10)
    connection.close()
    return path


@pytest.fixture
async def reader(path: Path) -> AsyncIterator[SqliteReader]:
    reader = SqliteReader(path, "test")
    yield reader
    await reader.close()


async def test_fetch_gives_rows_up_to_its_limit(reader: SqliteReader) -> None:
    sql = "SELECT match_number FROM trades WHERE match_number > ? ORDER BY match_number"
    assert await reader.fetch(sql, (5,), 2) == [(8,), (11,)]
    assert len(await reader.fetch(sql, (0,), 100)) == 10


async def test_a_query_gives_columns_and_says_what_it_left_out(reader: SqliteReader) -> None:
    answer = await reader.query("SELECT count(*) AS n, ?1 AS given FROM trades", ("x",), 1000, 10)
    assert answer == (["n", "given"], [(10, "x")], False)
    answer = await reader.query("SELECT seq FROM trades", (), 1000, 10)
    assert (len(answer.rows), answer.truncated) == (10, False)
    answer = await reader.query("SELECT seq FROM trades", (), 1000, 9)
    assert (len(answer.rows), answer.truncated) == (9, True)


@pytest.mark.parametrize("sql", [
    "DELETE FROM trades", "INSERT INTO store_position DEFAULT VALUES", "DROP TABLE trades",
    "UPDATE orders SET status = 'open'", "CREATE TABLE x (a)", "CREATE TEMP TABLE x (a)",
    "ATTACH '/tmp/other.sqlite' AS other", "PRAGMA query_only = OFF", "PRAGMA user_version",
    "VACUUM INTO '/tmp/copy.sqlite'", "BEGIN", "COMMIT", "SELECT load_extension('x')",
    "SELECT 1; SELECT 2", "SELECT 1; DELETE FROM trades", "not SQL", "", "SELECT * FROM nowhere",
    "SELECT ?1, ?2", "SELECT zeroblob(100000000)", "SELECT '" + "x" * 200_000 + "'",
    "REINDEX", "ANALYZE", "WITH a AS (SELECT 1) DELETE FROM trades",
])
async def test_all_but_reading_is_refused(reader: SqliteReader, sql: str) -> None:
    with pytest.raises(QueryRefused):
        await reader.query(sql, (1,) if "?" in sql else (), 1000, 10)
    assert (await reader.query("SELECT count(*) FROM trades", (), 1000, 10)).rows == [(10,)]


@pytest.mark.parametrize("parameters", [(2**70,), (object(),), ({},)])
async def test_parameters_that_do_not_fit_are_refused(reader: SqliteReader,
                                                      parameters: tuple[object]) -> None:
    with pytest.raises(QueryRefused):
        await reader.query("SELECT ?", parameters, 1000, 10)


async def test_a_statement_of_ours_does_not_hold_up_the_others(
        reader: SqliteReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_reader, "FETCH_NS_MAX", 50_000_000)
    with pytest.raises(QueryTimeout, match="less at once"):
        await reader.fetch(FOR_EVER, (), 1)
    assert await reader.fetch("SELECT count(*) FROM trades", (), 1) == [(10,)]


async def test_a_query_that_takes_too_long_is_ended(reader: SqliteReader) -> None:
    started = time.monotonic()
    with pytest.raises(QueryTimeout):
        await reader.query(FOR_EVER, (), 100, 10)
    assert time.monotonic() - started < 20
    # The limit was that query's alone.
    await reader.fetch("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT "
                       "1000000) SELECT max(i) FROM n", (), 1)


async def test_an_answer_is_bounded_in_bytes(reader: SqliteReader,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_reader, "ANSWER_MAX_BYTES", 100_000)
    answer = await reader.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                                "LIMIT 100000) SELECT printf('%1000d', i) FROM n", (), 9000, 90000)
    assert answer.truncated
    assert len(answer.rows) < 500


async def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    reader = SqliteReader(tmp_path / "later.sqlite", "test")
    with pytest.raises(StoreDown):
        await reader.fetch("SELECT 1", (), 1)
    connection = history_file.make(tmp_path / "later.sqlite")
    assert await reader.fetch("SELECT count(*) FROM trades", (), 1) == [(0,)]
    connection.close()
    await reader.close()


async def test_another_file_in_its_place_is_read(reader: SqliteReader, path: Path) -> None:
    assert await reader.fetch("SELECT count(*) FROM trades", (), 1) == [(10,)]
    other = path.with_name("other")
    connection = history_file.make(other)
    history_file.trade_a_day(connection, 0, 3)
    connection.close()
    other.rename(path)
    assert await reader.fetch("SELECT count(*) FROM trades", (), 1) == [(3,)]
    path.unlink()
    with pytest.raises(StoreDown):
        await reader.fetch("SELECT count(*) FROM trades", (), 1)


async def test_a_damaged_file_is_an_error_of_the_store(reader: SqliteReader, path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StoreStopped):
        await reader.query("SELECT * FROM trades", (), 1000, 100)


async def test_a_snapshot_shows_one_moment(reader: SqliteReader, path: Path) -> None:
    connection = history_file.make(path)
    history_file.insert(connection, "store_position", log_id=history_file.LOG_ID.hex(),
                        incarnation=1, seq=30)
    history_file.insert(connection, "store_retention", kept_from_seq=7, kept_from_ns=70)
    async with reader.snapshot() as snapshot:
        assert snapshot.position == (history_file.LOG_ID, 1, 30)
        assert (snapshot.kept_from_seq, snapshot.kept_from_ns) == (7, 70)
        connection.execute("DELETE FROM trades")
        rows = await snapshot.fetch("SELECT count(*) FROM trades", ())
        assert rows == [(10,)]
    assert await reader.fetch("SELECT count(*) FROM trades", (), 1) == [(0,)]
    connection.close()


async def test_the_loop_runs_on_while_a_query_works(reader: SqliteReader) -> None:
    query = asyncio.create_task(reader.query(FOR_EVER, (), 300, 10))
    turns = 0
    while not query.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20
    with pytest.raises(QueryTimeout):
        await query


async def test_closing_waits_for_no_query(reader: SqliteReader) -> None:
    query = asyncio.create_task(reader.query(FOR_EVER, (), 60_000, 10))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(reader.close(), 10)
    with pytest.raises(QueryTimeout):
        await query
    assert await reader.fetch("SELECT count(*) FROM trades", (), 1) == [(10,)]

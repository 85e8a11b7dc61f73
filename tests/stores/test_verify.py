"""A store is held against the log, row by row: it is the same, or every difference is told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cython_core.event import EventBatch
from engine.clock import NS_PER_DAY
from engine.config import SqliteConfig
from engine.journal.past import MemoryPast
from engine.stores import verify as verifying
from engine.stores.postgres import PostgresStore
from engine.stores.sqlite import SqliteStore
from engine.stores.store import Position, StoreStopped, Work
from engine.stores.verify import Report, verify
from tests.stores.postgres_flow import SmallFollower, at, config_of, days_log
from tests.stores.test_sqlite_store import (
    LOG,
    START,
    end_of,
    random_log,
    work_of,
    write_in_parts,
)
from tests.support.postgres import ScratchDatabase

END = START._replace(seq=end_of(LOG))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteConfig(), tmp_path)
    await store.open(START)
    await write_in_parts(store, LOG, 40, 1)
    yield store
    await store.close()


async def check(store: SqliteStore, log: list[EventBatch] = LOG, end: Position = END,
                **more: object) -> Report:
    report = await verify(store, MemoryPast(lambda: log), end, store.path.parent, **more)
    assert not list(store.path.parent.glob("verify-*")), "the scratch files are removed"
    return report


def change(store: SqliteStore, *statements: str) -> None:
    """Change the file as nobody should."""
    connection = sqlite3.connect(store.path)
    for statement in statements:
        assert connection.execute(statement).rowcount
    connection.commit()
    connection.close()


async def test_a_store_is_what_the_log_says(store: SqliteStore,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "PAGE_ROWS", 17)
    monkeypatch.setattr(verifying, "RUN_EVENTS", 100)
    told: list[tuple[int, int]] = []
    report = await check(store, progress=lambda done, total: told.append((done, total)))
    assert report.exit_code == 0
    assert report.position == END
    assert report.rows["order_events"] == END.seq
    assert all(report.rows.values())
    assert len(report.rows) == 7
    assert told[-1] == (sum(report.rows.values()),) * 2


async def test_an_empty_store_is_no_difference(tmp_path: Path) -> None:
    store = SqliteStore(SqliteConfig(), tmp_path)
    await store.open(START)
    report = await check(store)
    assert (report.position, report.exit_code) == (None, 0)
    assert report.notes == ["the store is empty"]
    await store.close()


@pytest.mark.parametrize("page", [3, 5_000])
@pytest.mark.parametrize(("statement", "told"), [
    ("UPDATE orders SET filled_lots = filled_lots + 1 WHERE order_id IN "
     "(SELECT order_id FROM orders LIMIT 1 OFFSET 100)", "filled_lots is"),
    ("DELETE FROM trades WHERE match_number IN (SELECT match_number FROM trades "
     "ORDER BY 1 DESC LIMIT 1)", "missing"),
    ("DELETE FROM order_events WHERE seq IN (SELECT seq FROM order_events ORDER BY 1 LIMIT 1)",
     "missing"),
    ("INSERT INTO order_events (seq, time_ns, kind) VALUES (99999999, 1, 'x')",
     "should not be there"),
    ("UPDATE positions SET bought_value = bought_value || '0' "
     "WHERE bought_value != '0' AND symbol = 'INSTR1' AND account_id = 1", "bought_value is"),
    ("DELETE FROM candles WHERE interval_s = 86400 AND symbol IN (SELECT symbol FROM candles "
     "LIMIT 1)", "missing"),
    ("UPDATE accounts SET killed = 1 - killed WHERE account_id = 2", "killed is"),
    ("UPDATE instruments SET state = 'x' WHERE instrument_id = 2", "state is 'x'"),
])
async def test_each_difference_is_told(store: SqliteStore, monkeypatch: pytest.MonkeyPatch,
                                       page: int, statement: str, told: str) -> None:
    monkeypatch.setattr(verifying, "PAGE_ROWS", page)
    change(store, statement)
    report = await check(store)
    assert report.exit_code == 4
    assert report.different == 1
    assert told in report.differences[0]


async def test_many_differences_are_counted(store: SqliteStore) -> None:
    change(store, "UPDATE orders SET source = 'udp2'", "DELETE FROM trades")
    report = await check(store)
    assert len(report.differences) == verifying.DIFFERENCES_SHOWN
    assert report.different == report.rows["orders"] + report.rows["trades"]


async def test_damage_is_told(store: SqliteStore) -> None:
    connection = sqlite3.connect(store.path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trades_symbol'"
                              ).fetchone()[0]
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    await store.close()
    with store.path.open("r+b") as file:
        # An index that has lost its rows; the tables are whole.
        file.seek((root - 1) * 4096 + 3)
        file.write(b"\0\0")
    report = await check(store)
    assert report.different == 0
    assert report.problems
    assert report.exit_code == 4


async def test_another_log_is_refused(store: SqliteStore) -> None:
    with pytest.raises(StoreStopped, match="belongs to the log"):
        await check(store, end=END._replace(log_id=bytes(16)))


async def test_a_store_that_is_behind_is_compared_as_far_as_it_is(tmp_path: Path) -> None:
    store = SqliteStore(SqliteConfig(), tmp_path)
    await store.open(START)
    half = LOG[:len(LOG) // 2]
    position = await write_in_parts(store, half, 10, 2)
    report = await check(store)
    assert (report.exit_code, report.position) == (0, position)
    await store.close()


async def test_it_may_be_written_meanwhile(tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "PAGE_ROWS", 5)
    store = SqliteStore(SqliteConfig(), tmp_path)
    await store.open(START)
    third = len(LOG) // 3
    await store.write(work_of(LOG[:third], START))
    writing = asyncio.create_task(write_in_parts(
        store, LOG[third:], 3, 2, START._replace(seq=end_of(LOG[:third]))))
    report = await check(store)
    assert report.exit_code == 0
    assert report.position is not None
    assert report.position.seq >= end_of(LOG[:third])
    await writing
    assert (await check(store)).position == END
    await store.close()


async def test_what_retention_removed_is_no_difference(tmp_path: Path) -> None:
    log = random_log(5, 1_500, days=4)
    store = SqliteStore(SqliteConfig(retain_days=1), tmp_path)
    # The test's events are from 1970.
    store._retention._now_ns = lambda: log[-1].dicts()[-1]["time_ns"]
    at = START
    await store.open(START)
    for part in range(0, len(log), 300):
        at = await write_in_parts(store, log[part:part + 300], 40, 1, at)
        store._retention.due_ns = 1
        for _ in range(10):
            await store.write(Work([], at, at, live=True))
            await asyncio.sleep(0.006)
    report = await check(store, log, START._replace(seq=end_of(log)))
    assert report.exit_code == 0, report.differences
    assert "keeps everything from" in report.notes[0]
    assert 0 < report.rows["order_events"] < end_of(log) * 0.7
    connection = sqlite3.connect(store.path)
    assert connection.execute("SELECT min(time_ns) FROM order_events").fetchone()[0] >= NS_PER_DAY
    connection.close()
    await store.close()


async def test_a_log_without_its_beginning_still_proves_the_rest(store: SqliteStore) -> None:
    rest = LOG[len(LOG) // 2:]
    report = await check(store, rest)
    assert report.exit_code == 0, report.differences
    assert "positions" not in report.rows
    assert report.rows["trades"] > 10
    assert "begins at seq" in report.notes[0]
    change(store, "UPDATE trades SET quantity_lots = 1 + quantity_lots WHERE match_number IN "
           "(SELECT max(match_number) FROM trades)")
    assert (await check(store, rest)).different == 1


async def test_postgresql_is_compared_in_the_same_way(postgres_database: ScratchDatabase,
                                                      tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "PAGE_ROWS", 17)
    log = days_log()
    store = PostgresStore(config_of(postgres_database))
    await SmallFollower(store, log, seed=1).run()
    past, end = MemoryPast(lambda: log), at(end_of(log))
    report = await verify(store, past, end, tmp_path)
    assert (report.exit_code, report.differences) == (0, [])
    assert len(report.rows) == 7
    assert report.rows["order_events"] == end.seq
    postgres_database.sql(
        "update orders set post_only = not post_only where order_id = "
        "(select max(order_id) from orders)",
        "update positions set sold_value = sold_value + 1 where ctid = "
        "(select ctid from positions limit 1)",
        "delete from candles where (symbol, open_time_ns) in "
        "(select symbol, min(open_time_ns) from candles where interval_s = 60 "
        "group by symbol limit 1) and interval_s = 60")
    report = await verify(store, past, end, tmp_path)
    assert report.different == 3, report.differences
    await store.close()

"""The process of the PostgreSQL rows: takes one JSON job on stdin, prints one JSON answer.

A job: {"kind": "store" | "copy", "seconds", "url"}. "store" follows the canonical flow with the
whole store, with the loop looked at every millisecond (looplag.py). "copy" writes one table of
twelve columns with a primary key in three ways, in turn: ours, and two of the client's own.
"""

import asyncio
import datetime
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import uvloop

from bench.looplag import LoopLag
from bench.sqlitejob import START, canonical_events, parts
from cython_core import pgcopy
from cython_core.event import EventBatch
from engine.config import PostgresConfig
from engine.stores.postgres import PostgresStore
from engine.stores.postgres_rows import copy_rows
from engine.stores.store import Work
from engine.stores.tables import new_rows

# More than the store writes in the time of a run.
OPERATIONS_PER_SECOND = 100_000
TRANSACTION_ROWS = 10_000
# One operation in seven trades.
TRADES_MORE = 8
IDLE_S = 0.5
NAMES = [name for name, _ in pgcopy.COLUMNS["trades"]]
TYPES = ", ".join(f"{name} {kind}{' primary key' if name == 'match_number' else ''}"
                  for name, kind in pgcopy.COLUMNS["trades"])
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
Write = Callable[[Any, int, int], Awaitable[object]]


async def store(url: str, seconds: float) -> dict[str, Any]:
    """The whole store, as it follows a log that never ends."""
    config = PostgresConfig(url=url)
    works = grouped(canonical_events(int(OPERATIONS_PER_SECOND * seconds)), config.max_batch_size)
    made, at = PostgresStore(config), START
    await made.open(START)
    idle = LoopLag()
    await idle.start()
    await asyncio.sleep(IDLE_S)
    before = idle.stop()
    lag = LoopLag()
    await lag.start()
    cpu, started = time.process_time(), time.perf_counter()
    for batches in works:
        after = at._replace(seq=batches[-1].first_seq + batches[-1].event_count - 1)
        await made.write(Work(batches, at, after, live=False))
        at = after
        if time.perf_counter() - started > seconds:
            break
    taken = time.perf_counter() - started
    figures = {"rows": made.facts()["rows"], "events": at.seq, "seconds": taken}
    answer = {"figures": figures, "cpu_seconds": time.process_time() - cpu, "lag": lag.stop(),
              "idle_lag": before}
    await made.close()
    return answer


def grouped(batches: list[EventBatch], events_max: int) -> list[list[EventBatch]]:
    """Runs of at most so many events, as the follower makes them."""
    runs: list[list[EventBatch]] = [[]]
    count = 0
    for batch in parts(batches, events_max):
        if count + batch.event_count > events_max:
            runs.append([])
            count = 0
        runs[-1].append(batch)
        count += batch.event_count
    return runs


async def copy(url: str, seconds: float) -> dict[str, Any]:
    """Three tables, three ways, ten thousand rows a transaction each in turn."""
    rows = new_rows(keep=["trades"])
    for batch in canonical_events(int(OPERATIONS_PER_SECOND * seconds * TRADES_MORE)):
        rows.apply(batch)
    place = NAMES.index("time_ns")
    # The client's ways get rows that are there already, ours makes its stream meanwhile.
    records = [(*row[:place - 1], EPOCH + datetime.timedelta(microseconds=row[place - 1] // 1000),
                *row[place - 1:]) for row in rows.rows("trades")]
    places = ", ".join(f"${number}" for number in range(1, len(NAMES) + 1))

    async def ours(connection: Any, start: int, stop: int) -> None:
        await copy_rows(connection, rows, "trades", "bench_ours", start=start, stop=stop)

    async def records_way(connection: Any, start: int, stop: int) -> None:
        await connection.copy_records_to_table("bench_records", records=records[start:stop],
                                               columns=NAMES)

    async def many_way(connection: Any, start: int, stop: int) -> None:
        await connection.executemany(f"insert into bench_many values ({places})",
                                     records[start:stop])
    ways = {"ours": ours, "records": records_way, "many": many_way}
    spent = dict.fromkeys(ways, 0.0)
    connection = await asyncpg.connect(url)
    for name in ways:
        await connection.execute(f"drop table if exists bench_{name}")
        await connection.execute(f"create table bench_{name} ({TYPES})")
    written = 0
    for start in range(0, len(records), TRANSACTION_ROWS):
        for name, write in ways.items():
            spent[name] += await _timed(connection, write, start, start + TRANSACTION_ROWS)
        written = min(start + TRANSACTION_ROWS, len(records))
        if spent["ours"] > seconds:
            break
    for name in ways:
        count = await connection.fetchval(f"select count(*) from bench_{name}")
        if count != written:
            return {"wrong": f"bench_{name} has {count} rows, not {written}"}
    await connection.close()
    return {"rows": written, "seconds": spent}


async def _timed(connection: Any, write: Write, start: int, stop: int) -> float:
    """Seconds of one transaction."""
    begun = time.perf_counter()
    async with connection.transaction():
        await write(connection, start, stop)
    return time.perf_counter() - begun


if __name__ == "__main__":
    job = json.load(sys.stdin)
    work = store if job["kind"] == "store" else copy
    print(json.dumps(uvloop.run(work(job["url"], job["seconds"]))))

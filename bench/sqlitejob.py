"""The process of the SQLite rows: takes one JSON job on stdin, prints one JSON answer.

A job: {"kind": "store" | "trades" | "executemany", "seconds", "folder"}. The loop of the process is
looked at every millisecond (looplag.py), for a while before and while it works. The answer: rows,
events and seconds of the work, processor time, the loop's lag.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from bench.canonical import Flow
from bench.looplag import LoopLag
from bench.matcher import MEAN, SEED
from cython_core import record
from cython_core.event import EventBatch
from cython_core.ledger import last_whole_seq
from cython_core.matcher import Matcher
from engine.config import SqliteConfig
from engine.stores import sqlite_file, sqlite_rows
from engine.stores.sqlite import SqliteStore
from engine.stores.store import Position, Work
from engine.stores.tables import new_rows

# More than the store writes in the time of a run.
OPERATIONS_PER_SECOND = 200_000
MS = 1_000_000
TRANSACTION_ROWS = 1_000
START = Position(b"bench" + bytes(11), 1, 0)
# One operation in seven trades.
TRADES_MORE = 8
IDLE_S = 0.5


def canonical_events(operations: int) -> list[EventBatch]:
    """The events of the canonical flow, a millisecond between batches of commands."""
    flow = Flow(SEED)
    flow.canonical(operations, 1, MEAN)
    matcher, batches = Matcher(), []
    for number, commands in enumerate([Flow.definitions(1), *flow.finish()]):
        events = EventBatch()
        matcher.apply(commands, events, (number + 1) * MS)
        batches.append(events)
    return batches


def parts(batches: list[EventBatch], events_max: int) -> list[EventBatch]:
    """The same in batches of whole commands with at most so many events."""
    found = []
    for batch in batches:
        start, last = batch.first_seq, batch.first_seq + batch.event_count - 1
        while start <= last:
            end = last_whole_seq(batch, min(last, start + events_max - 1))
            found.append(record.events_before(record.events_from(batch, start), end + 1))
            start = end + 1
    return found


Done = dict[str, float]


def store(folder: Path, seconds: float) -> Callable[[], Coroutine[Any, Any, Done]]:
    """The whole store, as it follows a log that never ends."""
    config = SqliteConfig()
    batches = parts(canonical_events(int(OPERATIONS_PER_SECOND * seconds)), config.max_batch_size)

    async def work() -> Done:
        made, at = SqliteStore(config, folder), START
        await made.open(START)
        started = time.perf_counter()
        for batch in batches:
            after = at._replace(seq=batch.first_seq + batch.event_count - 1)
            await made.write(Work([batch], at, after, live=False))
            at = after
            if time.perf_counter() - started > seconds:
                break
        taken = time.perf_counter() - started
        rows = float(str(made.facts()["rows"]))
        await made.close()
        return {"rows": rows, "events": at.seq, "seconds": taken,
                "bytes": made.path.stat().st_size}
    return work


def trades(folder: Path, seconds: float,
           write: Callable[..., int]) -> Callable[[], Coroutine[Any, Any, Done]]:
    """One table of twelve columns, in transactions of a thousand rows, in a thread."""
    rows = new_rows(keep=["trades"])
    for batch in canonical_events(int(OPERATIONS_PER_SECOND * seconds * TRADES_MORE)):
        rows.apply(batch)

    def work() -> Done:
        connection = sqlite_file.open_for_writing(folder / "trades.sqlite")
        started, written = time.perf_counter(), 0
        for start in range(0, rows.count("trades"), TRANSACTION_ROWS):
            connection.execute("BEGIN IMMEDIATE")
            written += write(connection, rows, start, start + TRANSACTION_ROWS)
            connection.execute("COMMIT")
            if time.perf_counter() - started > seconds:
                break
        taken = time.perf_counter() - started
        connection.close()
        return {"rows": written, "events": written, "seconds": taken}
    return lambda: asyncio.to_thread(work)


def ours(connection: Any, rows: Any, start: int, stop: int) -> int:
    """As the store writes them."""
    return sqlite_rows.write_table(connection, rows, "trades", start, stop)


def executemany(connection: Any, rows: Any, start: int, stop: int) -> int:
    """As the standard library's documentation does it."""
    statement = sqlite_rows.STATEMENTS["trades"]
    made = rows.rows("trades", start, stop)
    connection.executemany(statement.head + statement.row, made)
    return len(made)


def prepare(job: dict[str, Any]) -> Callable[[], Coroutine[Any, Any, Done]]:
    """The work of a job, ready to begin."""
    folder, seconds = Path(job["folder"]), job["seconds"]
    if job["kind"] == "store":
        return store(folder, seconds)
    return trades(folder, seconds, ours if job["kind"] == "trades" else executemany)


async def run(work: Callable[[], Coroutine[Any, Any, Done]]) -> dict[str, Any]:
    """Do it, with the loop's lag before and meanwhile."""
    idle = LoopLag()
    await idle.start()
    await asyncio.sleep(IDLE_S)
    before = idle.stop()
    lag = LoopLag()
    await lag.start()
    cpu = time.process_time()
    figures = await work()
    return {"figures": figures, "cpu_seconds": time.process_time() - cpu, "lag": lag.stop(),
            "idle_lag": before}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(prepare(json.load(sys.stdin))))))

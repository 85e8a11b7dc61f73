"""A year of one market out of the journal: how fast it is written, how fast it reads back.

`python -m bench.export [DAYS RUNS]` prints the figures. The log has a trade in every minute; its
candles go through `matchd export` into Parquet and, as the anchor, into CSV, and DuckDB reads both
into memory: the six columns of a chart, every column, and a few totals of one day in the week.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from bench.servers import work_directory
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from engine import cli
from engine.config import Config, JournalConfig
from engine.journal import Journal
from engine.queues import BatchQueue

DAYS = 365
RUNS = 15
DAY_MINUTES = 1_440
MINUTE_NS = 60_000_000_000
START_NS = 1_735_689_600_000_000_000      # 2025-01-01
BATCH_MINUTES = 8


def run(days: int = DAYS, runs: int = RUNS) -> dict[str, Any]:
    """The figures: rows, bytes, events per second, milliseconds to read."""
    # Not what is measured: what a first export in a process waits for.
    import pyarrow.parquet  # noqa: F401

    with work_directory() as folder:
        events = asyncio.run(write_log(folder / "data", days * DAY_MINUTES))
        figures: dict[str, Any] = {"minutes": days * DAY_MINUTES, "events": events}
        for kind in ("parquet", "csv"):
            path = folder / f"candles.{kind}"
            started = time.perf_counter()
            export(folder / "data", "candles", kind, path)
            taken = time.perf_counter() - started
            figures[f"{kind}_events_per_second"] = events / taken
            figures[f"{kind}_bytes"] = path.stat().st_size
            figures |= {f"{kind}_{name}": value
                        for name, value in read_times(kind, path, days, runs).items()}
        started = time.perf_counter()
        export(folder / "data", "orders", "parquet", folder / "orders.parquet")
        figures["orders_events_per_second"] = events / (time.perf_counter() - started)
    return figures


def export(data_dir: Path, what: str, kind: str, path: Path) -> None:
    """What the command does, without the start of a process."""
    code = cli.run(["export", what, "--data-dir", str(data_dir), "--format", kind, "--output",
                    str(path), "--interval", "1m"])
    if code:
        raise RuntimeError(f"the export ended with {code}")


async def write_log(folder: Path, minutes: int) -> int:
    """One trade in every minute, at a price that walks; returns the number of events."""
    config = Config(journal=JournalConfig(sync="interval", snapshot_events=0))
    recovered = Journal.open(config, data_dir=folder)
    matcher = recovered.matcher
    source: BatchQueue[EventBatch] = BatchQueue("events", 1 << 16)
    stage = asyncio.ensure_future(recovered.journal.run(source, []))
    await source.put(apply(matcher, definitions(), START_NS))
    for first in range(0, minutes, BATCH_MINUTES):
        batch = EventBatch()
        for minute in range(first, min(first + BATCH_MINUTES, minutes)):
            matcher.apply(trade(minute), batch, START_NS + minute * MINUTE_NS)
        await source.put(batch)
    source.close()
    await stage
    recovered.journal.abandon()
    return matcher.next_seq - 1


def apply(matcher: Matcher, commands: CommandBatch, time_ns: int) -> EventBatch:
    """A batch of their events."""
    events = EventBatch()
    matcher.apply(commands, events, time_ns)
    return events


def definitions() -> CommandBatch:
    """One market of two price decimals, two accounts."""
    commands = CommandBatch()
    commands.define_instrument(1, "BTC-USDT", "BTC-USDT", 2, 1, 6)
    for account_id in (1, 2):
        commands.define_account(account_id, f"ACC{account_id}")
    return commands


def trade(minute: int) -> CommandBatch:
    """An order that rests and one that takes it."""
    commands = CommandBatch()
    price_units = 6_000_000 + minute * 7_919 % 200_003
    for account_id, side in ((1, "S"), (2, "B")):
        commands.enter(account_id, minute + 1, 1, side, 1_000 + minute % 997, price_units)
    return commands


def read_times(kind: str, path: Path, days: int, runs: int) -> dict[str, float]:
    """Medians in milliseconds."""
    connection = duckdb.connect()
    reader = f"read_{kind}('{path}')"
    chart = f"SELECT open_time, open, high, low, close, volume FROM {reader}"
    total = (f"SELECT sum(volume), min(low), max(high) FROM {reader} "
             f"WHERE open_time_ns // {DAY_MINUTES * MINUTE_NS} % 7 = 0")
    (count,), = connection.sql(f"SELECT count(*) FROM {reader}").fetchall()
    if count != days * DAY_MINUTES:
        raise RuntimeError(f"{count} candles were read, {days * DAY_MINUTES} were made")
    return {
        "chart_ms": median_ms(lambda: connection.sql(chart).to_arrow_table(), runs),
        "whole_ms": median_ms(
            lambda: connection.sql(f"SELECT * FROM {reader}").to_arrow_table(), runs),
        "total_ms": median_ms(lambda: connection.sql(total).fetchall(), runs)}


def median_ms(work: Callable[[], object], runs: int) -> float:
    """The median of some runs."""
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


if __name__ == "__main__":
    sys.stdout, answers = sys.stderr, sys.stdout
    found = run(*(int(argument) for argument in sys.argv[1:]))
    print(json.dumps(found, indent=1), file=answers)

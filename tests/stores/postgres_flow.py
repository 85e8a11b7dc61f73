"""What tests of the PostgreSQL store share: logs of several days, a small follower, comparisons."""

from __future__ import annotations

import asyncio
import datetime
import random
from functools import cache
from typing import Any

from cython_core.event import UNIT_BYTES, EventBatch
from engine.clock import NS_PER_DAY
from engine.config import PostgresConfig
from engine.stores.postgres import PostgresStore
from engine.stores.store import Position, StoreDown, StoreMoved, Work
from tests.oracle.random_flow import RandomFlow
from tests.oracle.venue_pair import VenuePair
from tests.stores.rows_model import TABLES, RowsModel, model_of
from tests.support.postgres import ScratchDatabase

LOG_ID = bytes(range(16))
# 2026-11-20 23:00 UTC: the first midnight is near.
START_NS = 1_795_215_600_000_000_000
EVENT_MIN, EV_FILL, FLAG_FIRST = 64, 70, 128


@cache
def days_log(seed: int = 1, operations: int = 1_500, days: int = 3) -> list[EventBatch]:
    """The events of a random flow that runs over some midnights, a batch for each command; not
    every day has events."""
    pair = VenuePair()
    chance = random.Random(seed)
    flow = RandomFlow(seed, pair)
    pair.time_ns = START_NS
    flow.define()
    for day in range(days):
        if day:
            pair.time_ns += NS_PER_DAY * chance.choice((1, 1, 2))
            pair.time_ns -= chance.randrange(NS_PER_DAY // 24)
        flow.run(operations // days)
    return [command for batch in pair.log for command in commands_in(batch)]


def commands_in(batch: EventBatch) -> list[EventBatch]:
    """A batch for each command of a batch."""
    units = memoryview(batch).cast("B")
    starts, seqs, seq = [], [], batch.first_seq
    for at_byte in range(0, len(units), UNIT_BYTES):
        kind, flags = units[at_byte], units[at_byte + 63]
        if kind >= EVENT_MIN:
            if kind != EV_FILL and flags & FLAG_FIRST:
                starts.append(at_byte)
                seqs.append(seq)
            seq += 1
    ends = [*starts[1:], len(units)]
    return [EventBatch.from_bytes(bytes(units[start:end]), first)
            for start, end, first in zip(starts, ends, seqs, strict=True)]


@cache
def days_model(seed: int = 1, operations: int = 1_500, days: int = 3) -> RowsModel:
    """All tables of that log."""
    return model_of(days_log(seed, operations, days))


def last_seq(batch: EventBatch) -> int:
    """The last event of a batch."""
    return batch.first_seq + batch.event_count - 1


def joined(batches: list[EventBatch]) -> EventBatch:
    """Several batches as one."""
    return EventBatch.from_bytes(b"".join(bytes(memoryview(batch)) for batch in batches),
                                 batches[0].first_seq)


def config_of(scratch: ScratchDatabase, **more: Any) -> PostgresConfig:
    """The store's settings for a scratch database, quick to give up."""
    few: dict[str, Any] = {"url": scratch.url, "schema": scratch.schema, "pool_min_size": 1,
                           "pool_max_size": 3, "connect_timeout_ms": 2_000}
    return PostgresConfig(**(few | more))


def at(seq: int, incarnation: int = 0) -> Position:
    """A position of our log."""
    return Position(LOG_ID, incarnation, seq)


async def write_all(store: PostgresStore, log: list[EventBatch], seq: int = 0) -> None:
    """Write a log behind `seq` in one piece."""
    await store.write(Work(log, at(seq), at(last_seq(log[-1])), True))


class SmallFollower:
    """Does what a follower has to do, without its pace: writes runs of random length, and after
    every failure opens again and goes on from the position that the store tells."""

    def __init__(self, store: PostgresStore, log: list[EventBatch], seed: int = 0,
                 run_max: int = 60, pause_s: float = 0.01) -> None:
        self.store, self.log = store, log
        self.failures: list[StoreDown | StoreMoved] = []
        self.writes = 0
        self._random = random.Random(seed)
        self._run_max, self._pause_s = run_max, pause_s

    async def run(self) -> None:
        """Until everything is written; anything but StoreDown and StoreMoved is raised."""
        while True:
            try:
                found = await self.store.open(at(last_seq(self.log[-1])))
                assert found is None or found.log_id == LOG_ID
                await self._follow(found.seq if found else 0)
                return
            except (StoreDown, StoreMoved) as error:
                self.failures.append(error)
                if len(self.failures) > 300:
                    raise
                await asyncio.sleep(self._pause_s)

    async def _follow(self, seq: int) -> None:
        waiting = [batch for batch in self.log if last_seq(batch) > seq]
        while waiting:
            count = self._random.randint(1, self._run_max)
            run, waiting = waiting[:count], waiting[count:]
            if self._random.random() < 0.5:
                run = [joined(run)]
            await self.store.write(Work(run, at(seq), at(last_seq(run[-1])), False))
            seq = last_seq(run[-1])
            self.writes += 1
            await asyncio.sleep(0)


def table_rows(scratch: ScratchDatabase, table: str) -> list[tuple[Any, ...]]:
    """The rows of a table by its key, read over a connection that is not the store's."""
    columns, key = TABLES[table]
    return [tuple(row.values()) for row in scratch.sql(
        f"select {', '.join(columns)} from {table} order by {', '.join(key)}")]


def assert_tables(scratch: ScratchDatabase, model: RowsModel, seq: int) -> None:
    """Every table has exactly the model's rows, and the position is that of the log's end."""
    for table in TABLES:
        assert table_rows(scratch, table) == model.rows(table), table
    rows = scratch.sql("select log_id, incarnation, seq from store_position")
    assert rows == [{"log_id": LOG_ID.hex(), "incarnation": 0, "seq": seq}]
    times = (("orders", "time"), ("orders", "updated_time"), ("order_events", "time"),
             ("trades", "time"), ("candles", "open_time"), ("positions", "time"),
             ("instruments", "time"), ("accounts", "time"))
    # In one statement: each would have a connection of its own.
    assert not scratch.sql(" union all ".join(
        f"select '{table}.{column}' as wrong from {table} where {column} <> "
        f"'epoch'::timestamptz + {column}_ns / 1000 * interval '1 us'" for table, column in times))


def days_of(log: list[EventBatch]) -> dict[datetime.date, int]:
    """The first seq of every UTC day of a log."""
    found: dict[datetime.date, int] = {}
    for batch in log:
        for event in batch.dicts():
            day = datetime.datetime.fromtimestamp(event["time_ns"] // 10**9, datetime.UTC).date()
            found.setdefault(day, event["seq"])
    return found

"""A matcher, a journal and followers behind it, over random orders; a crash is `crash()`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cython_core.event import CommandBatch, EventBatch
from engine import clock
from engine.config import (
    Config,
    JournalConfig,
    QueuesConfig,
    StoresConfig,
    VenueConfig,
)
from engine.journal import Journal
from engine.metrics import Metrics
from engine.queues import BatchQueue
from engine.stores.follower import Follower
from engine.stores.meters import Meters
from engine.stores.store import Store
from engine.stores.tail import Tail
from tests.journal.venue import Flow, definitions

QUICK = StoresConfig(retry_min_ms=1, retry_max_ms=8, breaker_failures=3, cpu_share=1.0)


class FedVenue:
    """Trades at random; everything that was matched stays in `log`. `store` makes the store."""

    def __init__(self, folder: Path, store: Callable[[], Store], seed: int = 0,
                 units: int = 1 << 20, stores: StoresConfig = QUICK, **journal: Any) -> None:
        small = {"segment_bytes": 24 << 10, "first_segment_bytes": 16 << 10,
                 "snapshot_events": 250, "interval_ms": 1} | journal
        self.config = Config(venue=VenueConfig(data_dir=str(folder)), stores=stores,
                             journal=JournalConfig(**small),
                             queues=QueuesConfig(stores_units=units))
        self.flow = Flow(random.Random(seed))
        self.log: list[EventBatch] = []
        self.trading = False
        self._make = store

    async def start(self, follow: bool = True) -> FedVenue:
        """Recover and run."""
        recovered = Journal.open(self.config)
        assert isinstance(recovered.journal, Journal)
        self.journal, self.matcher = recovered.journal, recovered.matcher
        self.log = [batch for batch in self.log if batch.first_seq < self.matcher.next_seq]
        self._source: BatchQueue[EventBatch] = BatchQueue("events", 1 << 20)
        self.tail = Tail(self.config.queues.stores_units, self.journal.committed_seq)
        self.metrics = Metrics()
        self.follower = Follower("file", self._make, self.journal, self.tail, self.config.stores,
                                 Meters("file", self.metrics), lambda: self.trading)
        self._run = asyncio.ensure_future(self.journal.run(self._source, [self.tail]))
        self.following: asyncio.Task[None] | None = None
        if follow:
            self.follow()
        if self.matcher.next_seq == 1:
            self.apply(definitions())
        return self

    def follow(self) -> None:
        """Begin to feed the store."""
        self.following = asyncio.ensure_future(self.follower.run())

    def apply(self, commands: CommandBatch) -> None:
        """Match; the events become durable later."""
        events = EventBatch()
        self.matcher.apply(commands, events, self.matcher.last_time_ns + 1_000_000)
        if len(events):
            self.log.append(events)
            self._source.put_nowait(events)
            self.journal.maybe_snapshot(self.matcher)

    def trade(self, rounds: int, most: int = 8) -> None:
        """Some random commands."""
        for _ in range(rounds):
            self.apply(self.flow.commands(self.matcher, self.flow.rng.randint(1, most), True))

    @property
    def last_seq(self) -> int:
        """The newest event, durable or not."""
        return self.matcher.next_seq - 1

    async def committed(self) -> None:
        """Wait until everything is durable and handed on."""
        await until(lambda: self.tail.last_seq == self.last_seq)

    async def level(self) -> None:
        """Wait until the store has everything."""
        await until(lambda: self.follower.position.seq == self.last_seq
                    and self.follower.connected)

    def events(self) -> list[dict[str, Any]]:
        """What the store has to hold."""
        return [event for batch in self.log for event in batch.dicts()]

    async def close(self, drain_s: float = 5.0) -> None:
        """End in order."""
        self._source.close()
        await self._run
        if self.following is not None:
            self.follower.drain()
            await asyncio.wait([self.following], timeout=drain_s)
            self.following.cancel()
            await asyncio.wait([self.following])
        await self.follower.close()
        self.journal.close(self.matcher)

    async def crash(self) -> None:
        """End as kill -9 would: nothing more is written."""
        self.journal.abandon()
        tasks = [task for task in (self._run, self.following) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.follower.close()


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until something is so."""
    deadline_s = clock.monotonic_s() + timeout_s
    while not condition():
        assert clock.monotonic_s() < deadline_s, "it never was so"
        await asyncio.sleep(0.001)

"""All stores of one venue: makes those that are on, feeds them, tells how they are.

A store's class is imported when it is used: a venue without Redis never loads a client of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cython_core.event import EventBatch
from engine import clock, log
from engine.config import Config
from engine.errors import StoreError
from engine.instruments import Instrument
from engine.market.stage import Market
from engine.metrics import Metrics
from engine.queues import Sink
from engine.stores.follower import Follower, Log
from engine.stores.meters import Meters
from engine.stores.store import Store, StoreStopped
from engine.stores.tail import Tail
from engine.tasks import end_all

# How often is looked whether the venue trades.
LOOK_S = 0.25
# A store that does not end in this time is left behind.
CLOSE_S = 2.0
# A store keeps too much of the log when so few segments more have room. The journal itself
# complains at four.
SEGMENTS_ROOM = 16

class StoreLog(Log, Protocol):
    """The journal, as far as all stores together need it."""

    held_segments: int


def enabled(config: Config) -> list[str]:
    """The names of the stores that are on."""
    on = {"sqlite": config.sqlite.enabled, "postgres": bool(config.postgres.url),
          "redis": bool(config.redis.url)}
    return [name for name, wanted in on.items() if wanted]


def make_store(name: str, config: Config, market: Market | None,
               instruments: Sequence[Instrument] = ()) -> Store:
    """The store of this name. Only Redis needs the market, for books; the others begin a log whose
    beginning is gone with these `instruments`. May take a moment, and may run in a thread. Raises
    StoreStopped when its client is not installed."""
    try:
        if name == "sqlite":
            from engine.stores.sqlite import SqliteStore
            return SqliteStore(config.sqlite, config.data_dir, instruments)
        if name == "postgres":
            from engine.stores.postgres import PostgresStore
            return PostgresStore(config.postgres, instruments)
        from engine.stores.redis_store import RedisStore
        return RedisStore(config.redis, market)
    except ImportError as error:
        raise StoreStopped(f"its client can't be loaded: {error}",
                           "install matchd with all its dependencies",
                           "its client is not installed") from error


class Stores:
    """The stores of a venue. Without a journal, or with none switched on, there is nothing here.
    """

    def __init__(self, config: Config, journal: StoreLog | None, market: Market,
                 metrics: Metrics) -> None:
        self._config = config.stores
        self._segment_bytes = config.journal.segment_bytes
        self._journal = journal
        self.tail: Tail | None = None
        self.followers: dict[str, Follower] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        # Room for the journal, as somebody measures it; -1 when it is not known.
        self.free_bytes: Callable[[], int] = lambda: -1
        # Why a store's hold on the journal is a danger, "" when it is none.
        self.alarm = ""
        self._trading = False
        self._seen_seq = 0
        self._log = log.get("stores")
        names = enabled(config)
        if journal is None:
            if names:
                self._log.info("no stores: journal.sync is off", stores=names)
            return
        if names:
            self.tail = Tail(config.queues.stores_units, journal.committed_seq)
        for name in names:
            self._add(name, config, journal, market, metrics)

    def _add(self, name: str, config: Config, journal: StoreLog, market: Market,
             metrics: Metrics) -> None:
        def make() -> Store:
            return make_store(name, config, market, list(market.instruments.values()))

        self.followers[name] = self.follow(name, make, journal, metrics)

    def follow(self, name: str, make: Callable[[], Store], journal: Log,
               metrics: Metrics) -> Follower:
        """A follower over the common tail."""
        tail = self.tail
        if tail is None:
            raise StoreStopped("there is no tail to follow")
        follower = Follower(name, make, journal, tail, self._config, Meters(name, metrics),
                            lambda: self._trading)
        gauge, labels = metrics.gauge, {"store": name}
        gauge("store_connected", "stores", "whether a store takes what comes (1) or not (0)",
              lambda: int(follower.connected), labels)
        gauge("store_seq", "events", "seq of the newest event in a store",
              lambda: follower.position.seq, labels)
        gauge("store_lag_events", "events", "durable events that a store has not",
              lambda: follower.lag_events, labels)
        gauge("store_lag", "ns", "age of the oldest durable event that a store has not",
              lambda: follower.lag_ms * clock.NS_PER_MS, labels)
        gauge("store_batch_size", "events",
              "a write of a store begins before its interval is over when so many events wait",
              lambda: follower.pace.size, labels)
        gauge("store_breaker", "states",
              "the breaker of a store: 0 closed, 1 half-open (one try), 2 open (left alone)",
              lambda: int(follower.breaker.state), labels)
        metrics.counter("store_overflows", "overflows", "how often a store was so far behind "
                        "that it had to read the journal",
                        lambda: follower.supply.reader.overflows, labels)
        return follower

    @property
    def sinks(self) -> Sequence[Sink[EventBatch]]:
        """What the journal has to put committed batches on."""
        return [] if self.tail is None else [self.tail]

    def get(self, name: str) -> Store | None:
        """A store that is connected now, to be asked."""
        follower = self.followers.get(name)
        return follower.store if follower is not None and follower.connected else None

    def rows(self) -> dict[str, dict[str, Any]]:
        """How each of them is, by name."""
        return {name: follower.row() for name, follower in self.followers.items()}

    # -- the life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and follow, beside everything else."""
        for name, follower in self.followers.items():
            self._tasks[name] = asyncio.create_task(follower.run(), name=f"store {name}")
        if self.followers:
            self._keeper = asyncio.create_task(self._keep(), name="stores")

    def look_again(self, name: str, rebuild: bool) -> None:
        """Have the position read again, also by a stopped store; with `rebuild` empty it first.
        Raises StoreError when it is not on."""
        follower = self.followers.get(name)
        if follower is None:
            raise StoreError(f"the venue runs without the store {name}")
        if rebuild:
            follower.rebuild()
        else:
            follower.look_again()

    async def drain(self) -> None:
        """The journal has ended: let stores that can write what waits, within stores.drain_ms."""
        for name, follower in self.followers.items():
            follower.drain()
            if not follower.connected and name in self._tasks:
                self._tasks[name].cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._config.drain_ms / 1000)
        for name, follower in self.followers.items():
            if follower.lag_events:
                self._log.warning("store is behind and will catch up at the next start",
                                  store=name, lag_events=follower.lag_events)
        await self.close()

    async def close(self) -> None:
        """End everything, in bounded time."""
        tasks = [task for task in (*self._tasks.values(), self._keeper) if task is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await end_all(tasks)
        self._tasks, self._keeper = {}, None
        for follower in self.followers.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(follower.close(), CLOSE_S)

    async def _keep(self) -> None:
        """See whether the venue trades and the disk has room, and write the lines of the log."""
        said_ns = clock.monotonic_ns()
        while True:
            await asyncio.sleep(LOOK_S)
            seq = self.tail.last_seq if self.tail is not None else 0
            self._trading, self._seen_seq = seq != self._seen_seq, seq
            for follower in self.followers.values():
                follower.note_end()
            was, self.alarm = self.alarm, self._danger()
            if clock.monotonic_ns() - said_ns >= self._config.report_interval_s * clock.NS_PER_S:
                said_ns, was = clock.monotonic_ns(), ""
                for follower in self.followers.values():
                    follower.meters.say(follower.lag_events, follower.lag_ms, follower.facts())
            if self.alarm and not was:
                self._log.error("the disk fills up because of a store", reason=self.alarm)

    def _danger(self) -> str:
        held = self._journal.held_segments if self._journal is not None else 0
        free_bytes = self.free_bytes()
        if not held or not 0 <= free_bytes < SEGMENTS_ROOM * self._segment_bytes:
            return ""
        slowest = min(self.followers.values(), key=lambda follower: follower.holds_seq)
        return (f"{held} segments of the journal are kept only because {slowest.name} has not read "
                f"them, and {free_bytes} bytes of disk are free: make it work, or switch it off")

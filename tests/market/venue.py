"""A matcher, a journal and a market behind it, over random orders; a crash is `crash()`."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from cython_core.event import CommandBatch, EventBatch
from cython_core.model import Source
from engine.config import ApiConfig, Config, FeedConfig, JournalConfig, VenueConfig
from engine.instruments import Instrument
from engine.journal import Journal
from engine.market.stage import Market
from engine.queues import BatchQueue
from tests.journal.venue import ACCOUNTS, INSTRUMENTS, Flow, definitions

INSTRUMENT_LIST = [Instrument(number, symbol, symbol, 4, 100, 0, 1)
                   for number, symbol in INSTRUMENTS.items()]


class MarketVenue:
    """Trades at random; everything that was matched stays in `log`."""

    def __init__(self, folder: Path, sync: str = "commit", seed: int = 0,
                 **feed: int) -> None:
        journal = JournalConfig(sync=sync, segment_bytes=24 << 10, first_segment_bytes=16 << 10,
                                snapshot_events=250, interval_ms=1)
        self.config = Config(venue=VenueConfig(data_dir=str(folder)), journal=journal,
                             feed=FeedConfig(books_idle_ms=1, **feed), api=ApiConfig())
        self.flow = Flow(random.Random(seed))
        self.log: list[EventBatch] = []
        self._request_id = 0

    async def start(self) -> MarketVenue:
        """Recover and run."""
        recovered = Journal.open(self.config)
        self.journal, self.matcher = recovered.journal, recovered.matcher
        self.log = [batch for batch in self.log if batch.first_seq < self.matcher.next_seq]
        self._source: BatchQueue[EventBatch] = BatchQueue("events", 1 << 20)
        committed: BatchQueue[EventBatch] = BatchQueue("market", 1 << 20)
        self.market = Market(committed, self.matcher, INSTRUMENT_LIST, self.config, self.journal)
        self._tasks = [asyncio.ensure_future(self.journal.run(self._source, [committed])),
                       asyncio.ensure_future(self.market.run())]
        if self.matcher.next_seq == 1:
            self.apply(definitions())
            await self.settle()
        return self

    def apply(self, commands: CommandBatch) -> EventBatch:
        """Match; the events become durable later."""
        events = EventBatch()
        self.matcher.apply(commands, events, self.matcher.last_time_ns + 1_000_000)
        if len(events):
            self.log.append(events)
            self._source.put_nowait(events)
            self.journal.maybe_snapshot(self.matcher)
        return events

    def trade(self, rounds: int, rolls: bool = True) -> None:
        """Some random commands by both doors."""
        for _ in range(rounds):
            self.apply(self.flow.commands(self.matcher, self.flow.rng.randint(1, 8), rolls))
            self.apply(self._private())

    def _private(self) -> CommandBatch:
        """An order by HTTP, or something done to one."""
        chance, batch = self.flow.rng, CommandBatch()
        account_id, self._request_id = chance.choice(ACCOUNTS), self._request_id + 1
        ids = self.matcher.client_ids(account_id)
        who: dict[str, Any] = {"source": Source.HTTP, "request_id": self._request_id}
        draw = chance.random()
        if draw < 0.5 or not ids:
            batch.enter(account_id, 0, chance.choice(list(INSTRUMENTS)), chance.choice("BS"),
                        chance.randint(1, 90), 100 * chance.randint(985, 1015),
                        chance.choice("0113"), client_order_id=f"c{chance.randrange(300)}", **who)
        elif draw < 0.75:
            batch.cancel(account_id, 0, chance.choice((0, 0, 5)),
                         order_id=chance.choice(list(ids)), **who)
        else:
            batch.replace(account_id, 0, 0, chance.randint(1, 90), 100 * chance.randint(985, 1015),
                          order_id=chance.choice(list(ids)), **who)
        return batch

    async def settle(self) -> None:
        """Wait until everything that was matched is durable and seen."""
        await asyncio.wait_for(self.market.reached(self.matcher.next_seq - 1), 20)

    async def _end(self) -> None:
        self._source.close()
        await asyncio.gather(*self._tasks)
        self.market.close()

    async def close(self) -> None:
        """End in order."""
        await self._end()
        self.journal.close(self.matcher)

    async def crash(self) -> None:
        """End as kill -9 would: nothing more is written."""
        self.journal.abandon()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.market.close()

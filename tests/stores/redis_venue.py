"""A venue with a Redis store behind it, and what Redis has to hold by the log alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from cython_core.event import CommandBatch, EventBatch
from cython_core.record import events_from
from cython_core.rows import COLUMNS
from engine.config import RedisConfig
from engine.redis_values import Keys, decode
from engine.stores.redis_store import RedisStore
from engine.stores.store import Position, StoreDown, StoreMoved, Work
from engine.stores.tables import new_rows
from tests.market.venue import MarketVenue

SIDES = {"B": "buy", "S": "sell"}


class RedisVenue(MarketVenue):
    """Trades at random; `follow` brings a store to the end of the log."""

    def __init__(self, folder: Path, config: RedisConfig, seed: int = 0) -> None:
        super().__init__(folder, seed=seed)
        self.redis = config
        self.keys = Keys(config.prefix)
        self.failures: list[Exception] = []

    def apply(self, commands: CommandBatch) -> EventBatch:
        """Match, at the time that it is: tickers are about today."""
        events = EventBatch()
        self.matcher.apply(commands, events, max(time.time_ns(), self.matcher.last_time_ns + 1))
        if len(events):
            self.log.append(events)
            self._source.put_nowait(events)
            self.journal.maybe_snapshot(self.matcher)
        return events

    @property
    def end(self) -> Position:
        """Where the log ends."""
        return Position(self.journal.log_id, self.journal.incarnation, self.market.applied_seq)

    def store(self) -> RedisStore:
        """A store that knows nothing yet."""
        return RedisStore(self.redis, self.market)

    def work(self, before: Position, events: int = 10**9, live: bool = True) -> Work:
        """The next events behind a position: whole batches, at least one if there is one."""
        batches: list[EventBatch] = []
        last = before.seq
        for batch in self.log:
            end = batch.first_seq + batch.event_count - 1
            if end > self.market.applied_seq or events <= 0:
                break
            if end > last:
                batches.append(events_from(batch, last + 1))
                events -= end - last
                last = end
        after = Position(self.journal.log_id, self.journal.incarnation, last)
        return Work(batches, before, after, live)

    async def open(self, store: RedisStore) -> Position:
        """Open it; where it goes on."""
        return await store.open(self.end) or self.end._replace(seq=0)

    async def follow(self, store: RedisStore, before: Position, events: int = 10**9) -> Position:
        """Write until the store has all."""
        await self.settle()
        while before.seq < self.market.applied_seq:
            work = self.work(before, events)
            await store.write(work)
            before = work.after
        return before

    async def chase(self, store: RedisStore, events: int = 200, seconds: float = 30) -> None:
        """Bring a store to the end as the loop over all stores does: what fails is begun anew
        with the position that Redis tells."""
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            try:
                before = await self.open(store)
                before = await self.follow(store, before, events)
                await self.write_all(store, before)
                return
            except (StoreDown, StoreMoved) as error:
                self.failures.append(error)
                await store.close()
                await asyncio.sleep(0.02)
        raise AssertionError(f"it never came to the end: {self.failures[-3:]}")

    async def storm(self, store: RedisStore, trouble: Callable[[], Awaitable[None]]) -> None:
        """Trade, and follow, while `trouble` happens; then follow to the end."""
        over = asyncio.Event()

        async def trades() -> None:
            while not over.is_set():
                self.trade(1)
                await asyncio.sleep(0.005)

        async def follows() -> None:
            while not over.is_set():
                await self.chase(store, events=50)
                await asyncio.sleep(0.001)

        tasks = [asyncio.ensure_future(trades()), asyncio.ensure_future(follows())]
        try:
            await trouble()
        finally:
            over.set()
            await asyncio.gather(*tasks)
        await self.chase(store)

    async def write_all(self, store: RedisStore, at: Position) -> None:
        """Write what is due although nothing happens, until nothing is."""
        while 0 < store.due_ns() < time.monotonic_ns() + 10**9:
            await asyncio.sleep(0.002)
            await store.write(Work([], at, at, True))

    # -- what has to be there ----------------------------------------------------------------

    def expected(self, from_seq: int = 1) -> tuple[list[list[Any]], dict[str, list[Any]]]:
        """Order events, and trades by market, by the log."""
        rows = new_rows()
        for batch in self.log:
            rows.apply(batch)
        trades: dict[str, list[Any]] = {one.symbol: [] for one in self.market.instruments.values()}
        for row in rows.rows("trades"):
            trade = dict(zip(COLUMNS["trades"], row, strict=True))
            one = next(one for one in self.market.instruments.values()
                       if one.symbol == trade["symbol"])
            if trade["seq"] >= from_seq:
                trades[one.symbol].append(
                    {"match": trade["match_number"], "price": one.price_text(trade["price_units"]),
                     "quantity": one.quantity_text(trade["quantity_lots"]),
                     "side": trade["taker_side"], "time": trade["time_ns"], "seq": trade["seq"]})
        return [list(row) for row in rows.rows("order_events") if row[0] >= from_seq], trades

    def check(self, client: Any, from_seq: int = 1) -> None:
        """Every stream equals the log, entry by entry; every book equals the matcher's."""
        events, trades = self.expected(from_seq)
        found: list[Any] = []
        for entry_id, entry in stream(client, self.keys.order_events):
            assert int(entry[b"previous"]) >= (found[-1][0] if found else from_seq - 1)
            rows = decode(entry[b"data"])
            assert entry[b"columns"].decode().split(",") == list(COLUMNS["order_events"])
            assert entry_id == f"{rows[-1][0]}-0" and int(entry[b"first"]) == rows[0][0]
            assert int(entry[b"count"]) == len(rows)
            found += rows
        assert found == events
        for symbol, expected in trades.items():
            found = []
            for entry_id, entry in stream(client, self.keys.trades(symbol)):
                assert int(entry[b"previous"]) == (found[-1]["seq"] if found else from_seq - 1)
                message = decode(entry[b"data"])
                assert entry_id == f"{message['seq']}-0" and message["symbol"] == symbol
                assert int(entry[b"count"]) == len(message["trades"])
                found += message["trades"]
            assert found == expected, symbol
        self.check_books(client)
        self.check_prices(client)

    def check_prices(self, client: Any) -> None:
        """Tickers and last prices are those of the trades."""
        _, trades = self.expected()
        last: Any = client.hgetall(self.keys.last_prices)
        for symbol, rows in trades.items():
            ticker: Any = client.hgetall(self.keys.ticker(symbol))
            if not rows:
                assert not ticker and symbol.encode() not in last
                continue
            prices = [Decimal(row["price"]) for row in rows]
            assert last[symbol.encode()].decode() == rows[-1]["price"]
            fields = {name.decode(): value.decode() for name, value in ticker.items()}
            assert fields["symbol"] == symbol and int(fields["seq"]) >= rows[-1]["seq"]
            assert (fields["open"], fields["last"]) == (rows[0]["price"], rows[-1]["price"])
            assert (Decimal(fields["high"]), Decimal(fields["low"])) == (max(prices), min(prices))
            assert Decimal(fields["change"]) == prices[-1] - prices[0]
            assert Decimal(fields["volume"]) == sum(Decimal(row["quantity"]) for row in rows)
            assert int(fields["trades"]) == len(rows)

    def check_books(self, client: Any) -> None:
        """Every book is the matcher's, as it is now."""
        for one in self.market.instruments.values():
            value = client.get(self.keys.book(one.symbol))
            assert isinstance(value, bytes), one.symbol
            book = decode(value)
            sides = self.matcher.levels(one.id, self.redis.depth)
            for name, levels in zip(("bids", "asks"), sides, strict=True):
                assert book[name] == [[one.price_text(price), one.quantity_text(lots), orders]
                                      for price, lots, orders in levels], one.symbol


def stream(client: Any, key: str) -> list[tuple[str, dict[bytes, bytes]]]:
    """All entries of a stream: id, fields."""
    found: Any = client.xrange(key)
    return [(entry_id.decode(), fields) for entry_id, fields in found]

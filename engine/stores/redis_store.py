"""The Redis store: books, tickers and last prices as they are now, trades and order events as
streams, each exactly once. docs/redis.md tells every key.

A write is one script for each group of keys (engine/stores/redis_script.py); on one server all
groups are one script, in a cluster the markets' groups come first and the venue's last. What is
now comes from the market; streams come from the events of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from redis.exceptions import RedisError

from cython_core.errors import CoreError
from cython_core.rows import Rows
from engine import clock
from engine import log as logs
from engine.config import RedisConfig
from engine.errors import ConfigError, JournalError
from engine.instruments import Instrument
from engine.market.stage import Market
from engine.redis_errors import reason_of, word_of
from engine.redis_link import RedisLink, parse
from engine.redis_values import COLUMNS, COUNT, DATA, FIRST, PREVIOUS, Coder, Keys
from engine.stores.redis_now import Now
from engine.stores.redis_positions import BEGAN, VENUE, Positions
from engine.stores.redis_script import Part, Value
from engine.stores.redis_streams import EVENT_COLUMNS, TABLES, Run, Streams
from engine.stores.store import (
    Position,
    StoreDown,
    StoreMoved,
    StoreRefused,
    StoreStopped,
    Work,
)
from engine.stores.tables import new_rows

# Events of one write: what takes the loop some ten slices of a millisecond.
EVENTS_MAX = 5_000
# Keys that are read, or deleted, with one command.
KEYS_AT_ONCE = 500
_COLUMNS_TEXT = ",".join(EVENT_COLUMNS)


class RedisStore:
    """One Redis. `market` is the read model that books, tickers and last prices come from; without
    it the store can be opened and reset, not written."""

    name = "redis"
    wants_beginning = False

    def __init__(self, config: RedisConfig, market: Market | None) -> None:
        self.batch_interval_ms = config.batch_interval_ms
        # Of events; `redis.max_batch_size` counts markets.
        self.max_batch_size = EVENTS_MAX
        self._config, self._market = config, market
        self._keys = Keys(config.prefix)
        self._coder = Coder(config.encoding, config.compress_above_bytes)
        self._link: RedisLink | None = None
        # Whether the last attempt to connect failed.
        self._doubtful = False
        self._instruments: dict[str, Instrument] = {}
        self._positions: Positions | None = None
        self._streams = Streams(self._coder, {})
        self._now = Now(config, market, self._keys, self._coder) if market is not None else None
        self._rows: Rows | None = None
        self._updates = self._entries = 0

    # -- beginning and end -------------------------------------------------------------------

    async def open(self, log: Position) -> Position | None:
        """Connect and read every position; see Store."""
        await self.close()
        try:
            await self._connect()
            self._instruments = {one.symbol: one for one in self._listed()
                                 if self._is_kept(one.symbol)}
            self._streams = Streams(self._coder, self._instruments)
            self._positions = await self._read_positions(log)
        except ConfigError as error:
            raise StoreStopped(error.detail, error.hint) from error
        except (RedisError, OSError) as error:
            self._fail(error)
        if self._positions.foreign is not None:
            # Its keys stay as they are, unless a reset is wanted.
            found, self._positions = self._positions.foreign, None
            return found
        if self._now is not None:
            await self._now.begin(self._instruments.values())
        if self._positions.lost:
            logs.get("stores").warning(
                "Redis lost data of markets; their streams are written again",
                markets=len(self._positions.lost), first=self._positions.lost[0],
                from_seq=self._positions.start_seq + 1)
        if self._positions.is_empty and self._positions.start_seq == 0:
            return None
        return self._positions.start

    async def _connect(self) -> None:
        self._link = RedisLink(self._config, doubtful=self._doubtful)
        self._doubtful = True
        await self._link.open()
        self._doubtful = False

    def _listed(self) -> list[Instrument]:
        return list(self._market.instruments.values()) if self._market is not None else []

    def _is_kept(self, symbol: str) -> bool:
        return any(fnmatchcase(symbol, pattern) for pattern in self._config.markets)

    async def _read_positions(self, log: Position) -> Positions:
        marks = {symbol.decode(): int(seq) for symbol, seq in
                 (await self._node(self._keys.marks).hgetall(self._keys.marks)).items()}
        symbols = list(self._instruments if self._market is not None else marks.keys() - {BEGAN})
        names = [self._keys.venue_position, *map(self._keys.position, symbols)]
        texts = await self._get_all(names)
        found = Positions(log, await self._floor(log), texts[0],
                          dict(zip(symbols, texts[1:], strict=True)), marks)
        for symbol in found.unmarked:
            key = self._keys.trades(symbol)
            newest = await self._node(key).xrevrange(key, count=1)
            found.found(symbol, int(newest[0][0].partition(b"-")[0]) if newest
                        else found.seq(symbol))
        return found

    async def _get_all(self, names: list[str]) -> list[bytes | None]:
        """Values by name, wherever they are."""
        by_node: dict[int, tuple[Any, list[str]]] = {}
        for name in names:
            node = self._node(name)
            by_node.setdefault(id(node), (node, []))[1].append(name)
        found: dict[str, bytes | None] = {}
        for node, mine in by_node.values():
            for at in range(0, len(mine), KEYS_AT_ONCE):
                some = mine[at:at + KEYS_AT_ONCE]
                async with node.pipeline(transaction=False) as pipe:
                    for name in some:
                        pipe.get(name)
                    found |= zip(some, await pipe.execute(), strict=True)
        return [found[name] for name in names]

    async def _floor(self, log: Position) -> int:
        """Where streams of an empty Redis begin: behind the last whole command that is so many
        events ago, or is not kept any more."""
        floor = max(0, log.seq - self._config.backfill_events)
        if self._market is None:
            return floor
        try:
            oldest = await self._market.history.oldest_seq()
            if floor < oldest:
                return max(0, oldest - 1)
            answer = await self._market.history.answer_of(floor)
        except JournalError as error:
            raise StoreDown(f"the log can't be read: {error}") from error
        return min(log.seq, answer.last_seq) if answer is not None else oldest - 1

    def _node(self, key: str) -> Any:
        if self._link is None:
            raise StoreDown("not connected")
        return self._link.node(key)

    def safe_seq(self, written_seq: int) -> int:
        """All of it: a Redis that lost something tells it by its position."""
        return written_seq

    async def reset(self) -> None:
        """Remove every key of ours but the order queue's, the venue's first; see Store. Connects
        if nobody did."""
        keys = self._keys
        names = [keys.venue_position, keys.marks, keys.order_events, keys.last_prices]
        try:
            if self._link is None:
                await self._connect()
            known = await self._node(keys.marks).hkeys(keys.marks)
            symbols = {*(one.symbol for one in self._listed()), *await self._found(),
                       *(symbol.decode() for symbol in known)}
            for symbol in sorted(symbols):
                names += (keys.position(symbol), keys.trades(symbol), keys.book(symbol),
                          keys.ticker(symbol))
            await self._delete(names)
        except ConfigError as error:
            raise StoreStopped(error.detail, error.hint) from error
        except (RedisError, OSError) as error:
            self._fail(error)

    async def _found(self) -> set[str]:
        """Markets that have a book on the one server, whatever we know of them."""
        if self._link is None or self._link.place.kind == "cluster":
            return set()
        return {self._keys.symbol_of(name.decode()) async for name in self._node("").scan_iter(
            match=self._keys.every_book, count=KEYS_AT_ONCE)}

    async def _delete(self, names: list[str]) -> None:
        if self._link is not None and self._link.place.kind != "cluster":
            async with self._node("").pipeline(transaction=True) as pipe:
                for at in range(0, len(names), KEYS_AT_ONCE):
                    pipe.delete(*names[at:at + KEYS_AT_ONCE])
                await pipe.execute()
            return
        for name in names:
            await self._node(name).delete(name)

    async def close(self) -> None:
        """Close the connections; see Store."""
        if self._now is not None:
            self._now.end()
        self._positions = self._rows = None
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    # -- writing -----------------------------------------------------------------------------

    def due_ns(self) -> int:
        """When a book or a ticker is due; see Store."""
        if self._positions is None or self._now is None:
            return 0
        return self._now.next_ns()

    async def write(self, work: Work) -> None:
        """Write what the events add to the streams, and what is due of the rest; see Store."""
        positions, now = self._positions, self._now
        if positions is None or now is None:
            raise StoreMoved("not open")
        run = await self._run(work, positions)
        now_ns = clock.monotonic_ns()
        now.take(run.updates, run.trades, work.after.seq, work.live, now_ns)
        parts = self._stream_parts(work, run, positions)
        groups = [*run.trades, *([VENUE] if work.after.seq > positions.seq(VENUE) else [])]
        now.add_parts(parts, now_ns)
        for group, part in parts.items():
            part.guard(self._position_key(group), positions.text(group))
        try:
            await self._send(parts)
        except (RedisError, OSError) as error:
            self._fail(error)
        positions.wrote(groups, work.after,
                        {symbol: entry.seq for symbol, entry in run.trades.items()})
        now.wrote(now_ns)
        self._updates += sum(run.updates.values())
        self._entries += len(run.trades) + (run.events is not None)

    async def _run(self, work: Work, positions: Positions) -> Run:
        if not work.batches:
            return Run(None, {}, {})
        if self._rows is None or self._rows.applied_seq != work.before.seq:
            self._rows = new_rows(work.before.seq, TABLES)
            for one in self._listed():
                self._rows.define(one.id, one.symbol, one.wire_symbol, one.price_decimals,
                                  one.quantity_decimals, one.lot_size)
        rows = self._rows
        try:
            for batch in work.batches:
                rows.apply(batch)
            return await self._streams.run(rows, positions.seq, positions.seq(VENUE))
        except CoreError as error:
            self._rows = None
            raise StoreRefused(str(error)) from error
        finally:
            rows.clear()

    def _stream_parts(self, work: Work, run: Run, positions: Positions) -> dict[str, Part]:
        """What the run adds, by group; the venue's group comes last."""
        keys, entries_max = self._keys, self._config.stream_entries_max
        parts: dict[str, Part] = {}
        for symbol, entry in run.trades.items():
            part = parts[symbol] = Part(keys.position(symbol))
            if positions.begins_anew(symbol):
                part.delete(keys.trades(symbol))
            data = Value(entry.data)
            part.add_entry(keys.trades(symbol), entry.seq, entries_max, PREVIOUS,
                           positions.previous(symbol), FIRST, entry.first, COUNT, entry.rows,
                           DATA, data)
            part.set_value(keys.position(symbol), positions.text_of(work.after))
            if work.live:
                part.publish(keys.channel(symbol), data)
        venue = parts[VENUE] = Part(keys.venue_position)
        if work.after.seq <= positions.seq(VENUE):
            return parts
        if positions.begins_anew(VENUE):
            venue.delete(keys.order_events)
            venue.delete(keys.marks)
            venue.set_fields(keys.marks, {BEGAN: positions.seq(VENUE)})
        if run.events is not None:
            venue.add_entry(keys.order_events, run.events.seq, entries_max, PREVIOUS,
                            positions.previous(VENUE), FIRST, run.events.first, COUNT,
                            run.events.rows, COLUMNS, _COLUMNS_TEXT, DATA, run.events.data)
        if run.trades:
            venue.set_fields(keys.marks, {symbol: entry.seq
                                          for symbol, entry in run.trades.items()})
        venue.set_value(keys.venue_position, positions.text_of(work.after))
        return parts

    def _position_key(self, group: str) -> str:
        return self._keys.venue_position if group == VENUE else self._keys.position(group)

    async def _send(self, parts: dict[str, Part]) -> None:
        venue = parts.pop(VENUE)
        if self._link is not None and self._link.place.kind != "cluster":
            # One server: one transaction for all.
            joined = Part(venue.node_key)
            for part in (*parts.values(), venue):
                joined.join(part)
            _check(await self._node(venue.node_key).execute_command(*joined.call()))
            return
        by_node: dict[int, tuple[Any, list[Part]]] = {}
        for part in parts.values():
            node = self._node(part.node_key)
            by_node.setdefault(id(node), (node, []))[1].append(part)
        # All of them end before the next thing is done, whatever fails.
        for failed in await asyncio.gather(*(_send_to(*one) for one in by_node.values()),
                                           return_exceptions=True):
            if failed is not None:
                raise failed
        if not venue.is_empty or not by_node:
            _check(await self._node(venue.node_key).execute_command(*venue.call()))

    def _fail(self, error: Exception) -> NoReturn:
        """Say what went wrong in the words of stores."""
        word, text = word_of(error), str(error)
        if word == "WRONGTYPE":
            raise StoreStopped(f"a key in Redis is of another type: {_key_in(text)}",
                               "set another redis.prefix, or remove the key",
                               "a key of another type") from error
        if "FOREIGN" in text:
            raise StoreStopped(f"somebody else wrote into a stream of ours: {_key_in(text)}",
                               "run `matchd store rebuild redis`",
                               "somebody else's entry in a stream") from error
        raise StoreDown(f"Redis at {parse(self._config.url).where}: {reason_of(error)}") from error

    # -- what it tells -----------------------------------------------------------------------

    def facts(self) -> Mapping[str, object]:
        """Updates of books, books written, and how many updates a written book stands for."""
        books = self._now.books_written if self._now is not None else 0
        return {"book_updates": self._updates, "books_written": books,
                "updates_per_book": round(self._updates / books, 1) if books else 0,
                "stream_entries": self._entries, "markets": len(self._instruments)}


async def _send_to(node: Any, parts: Iterable[Part]) -> None:
    async with node.pipeline(transaction=False) as pipe:
        for part in parts:
            pipe.execute_command(*part.call())
        for answer in await pipe.execute():
            _check(answer)


def _check(answer: Any) -> None:
    if answer != 1:
        key, found = answer
        raise StoreMoved(f"{key.decode()} is {found.decode('ascii', 'replace') or 'gone'}")


def _key_in(text: str) -> str:
    return text.rpartition("[")[2].partition("]")[0] or text

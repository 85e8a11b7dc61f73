"""`matchd store verify redis`: what is in Redis, against what the log says.

Positions, books, tickers and last prices are read at one moment, on one server in one transaction;
then the streams from their oldest entry up to that moment's position, beside a walk through the
log. A book and a ticker say by their seq what they have to be equal to. What Redis dropped by its
own rules (a cap, an expiry) is no difference, and is told. Reads only; the venue may be running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from redis.exceptions import RedisError

from cython_core.errors import CoreError
from cython_core.event import EventBatch
from cython_core.matcher import Matcher
from cython_core.record import events_before, first_time_ns
from cython_core.rows import COLUMNS, Rows
from engine import clock
from engine.config import RedisConfig
from engine.errors import ConfigError
from engine.instruments import Instrument
from engine.redis_errors import reason_of, word_of
from engine.redis_link import RedisLink
from engine.redis_values import Keys, position_of
from engine.stores.redis_positions import BEGAN
from engine.stores.redis_verify_books import compare_books
from engine.stores.redis_verify_prices import Prices
from engine.stores.redis_verify_streams import Found, event_of, trade_of
from engine.stores.store import Position, StoreDown, StoreStopped
from engine.stores.tables import new_rows
from engine.stores.verify import DIFFERENCES_SHOWN, Progress, Report

# Events that are taken from the log at once.
SLICE_EVENTS = 20_000
# The log is walked so far back for tickers and last prices, even if the streams begin later.
PRICE_EVENTS = 1_000_000
TABLES = ("order_events", "trades")
# How often, and how long apart, is looked for what is not there yet.
LOOKS = 4
LOOK_S = 0.25
_MATCH, _SEQ, _SYMBOL = (COLUMNS["trades"].index(name)
                         for name in ("match_number", "seq", "symbol"))
_EVENT_SEQ = COLUMNS["order_events"].index("seq")


class Past(Protocol):
    """The log, as far as it is needed here."""

    def oldest_seq(self) -> int:
        """The first seq that is kept."""

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        """Batches of whole commands that have all of from_seq..to_seq. Raises NotKeptError."""

    def state_at(self, seq: int, events_max: int) -> tuple[Matcher, int]:
        """The matcher after the last whole command up to `seq`. Raises NotKeptError."""

    def incarnation_at(self, seq: int) -> int:
        """In which incarnation of the log the event was written. Raises NotKeptError."""


class Moment(NamedTuple):
    """What was read at one moment: values by symbol, None where there is none."""

    venue: bytes | None
    marks: dict[str, int]
    last: dict[bytes, bytes]
    positions: dict[str, bytes | None]
    books: dict[str, bytes | None]
    tickers: dict[str, dict[bytes, bytes]]


class Tally:
    """Counts what was compared, and keeps the first differences."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.different = 0
        self.differences: list[str] = []
        self.notes: list[str] = []

    def count(self, name: str, rows: int = 1) -> None:
        """So many more of this kind were compared."""
        self.rows[name] = self.rows.get(name, 0) + rows

    def tell(self, difference: str) -> None:
        """Something is not as the log says."""
        self.different += 1
        if len(self.differences) < DIFFERENCES_SHOWN:
            self.differences.append(difference)


async def verify(config: RedisConfig, instruments: Sequence[Instrument], past: Past,
                 read_end: Callable[[], Position],
                 progress: Progress = lambda done, total: None) -> Report:
    """Compare a Redis with the log. `read_end` gives the log's committed end, in a thread, as it
    is when it is called. Raises StoreDown, StoreStopped, JournalError, NotKeptError."""
    try:
        link = RedisLink(config)
        try:
            await link.open()
            return await _Check(config, instruments, past, link, progress).run(read_end)
        finally:
            await link.close()
    except ConfigError as error:
        raise StoreStopped(error.detail, error.hint) from error
    except CoreError as error:
        raise StoreStopped(f"the log makes no rows: {error}") from error
    except (RedisError, OSError) as error:
        if word_of(error) == "WRONGTYPE":
            raise StoreStopped("a key in Redis is of another type",
                               "set another redis.prefix, or remove the key") from error
        raise StoreDown(reason_of(error)) from error


class _Check:
    def __init__(self, config: RedisConfig, instruments: Sequence[Instrument], past: Past,
                 link: RedisLink, progress: Progress) -> None:
        self._config, self._past, self._link = config, past, link
        self._all = instruments
        self._markets = {one.symbol: one for one in instruments
                         if any(fnmatchcase(one.symbol, text) for text in config.markets)}
        self._keys = Keys(config.prefix)
        self._progress = progress
        self._tally = Tally()

    async def run(self, read_end: Callable[[], Position]) -> Report:
        tally, moment = self._tally, await self._read()
        for _ in range(LOOKS):
            if self._is_complete(moment):
                break
            # A venue that has just connected is still writing them.
            await asyncio.sleep(LOOK_S)
            moment = await self._read()
        if moment.venue is None and not any(moment.positions.values()):
            return Report(None, {}, 0, [], [], ["the store is empty"])
        streams = await self._streams(moment)
        end = await asyncio.to_thread(read_end)
        position = await self._check_positions(moment, end)
        if position is not None:
            await self._compare(moment, streams, min(position.seq, end.seq), end.seq)
        return Report(position, tally.rows, tally.different, tally.differences, [], tally.notes)

    # -- reading -----------------------------------------------------------------------------

    async def _read(self) -> Moment:
        """On one server in one transaction, in a cluster node by node, the venue's keys first."""
        keys, symbols = self._keys, list(self._markets)
        single = self._link.place.kind != "cluster"
        asked: list[tuple[str, str]] = [("get", keys.venue_position), ("hgetall", keys.marks),
                                        ("hgetall", keys.last_prices)]
        for symbol in symbols:
            asked += (("get", keys.position(symbol)), ("get", keys.book(symbol)),
                      ("hgetall", keys.ticker(symbol)))
        by_node: dict[int, tuple[Any, list[int]]] = {}
        for place, (_, key) in enumerate(asked):
            node = self._link.node(key)
            by_node.setdefault(id(node), (node, []))[1].append(place)
        found: list[Any] = [None] * len(asked)
        for node, places in by_node.values():
            async with node.pipeline(transaction=single) as pipe:
                for place in places:
                    command, key = asked[place]
                    pipe.execute_command(command.upper(), key)
                for place, answer in zip(places, await pipe.execute(), strict=True):
                    found[place] = answer
        marks = {symbol.decode(): int(seq) for symbol, seq in found[1].items()}
        return Moment(found[0], marks, found[2], dict(zip(symbols, found[3::3], strict=True)),
                      dict(zip(symbols, found[4::3], strict=True)),
                      dict(zip(symbols, found[5::3], strict=True)))

    def _is_complete(self, moment: Moment) -> bool:
        """Whether there is everything that a venue writes in the moments after it connects."""
        books = self._config.expire_s or all(moment.books.values())
        traded = {symbol.encode() for symbol in moment.marks.keys() & self._markets.keys()}
        return moment.venue is None or bool(books and traded <= moment.last.keys())

    async def _streams(self, moment: Moment) -> dict[str, Found]:
        """Every stream at its oldest entry; "" is that of the order events."""
        keys, began = self._keys, moment.marks.get(BEGAN, 0)
        names = {"": ("order_events", keys.order_events, event_of)} | {
            symbol: (f"trades {symbol}", keys.trades(symbol), trade_of)
            for symbol in self._markets}
        found = {group: Found(name, key, self._link.node(key), read, began, self._tally.tell)
                 for group, (name, key, read) in names.items()}
        for stream in found.values():
            await stream.begin()
        return found

    # -- positions ---------------------------------------------------------------------------

    async def _check_positions(self, moment: Moment, end: Position) -> Position | None:
        venue = self._position("venue", moment.venue)
        if venue is not None and venue.log_id != end.log_id:
            raise StoreStopped(f"the store belongs to the log {venue.log_id.hex()}, this is "
                               f"{end.log_id.hex()}")
        await self._check_position("venue", venue, end)
        for symbol, text in moment.positions.items():
            found, mark = self._position(symbol, text), moment.marks.get(symbol)
            await self._check_position(symbol, found, end)
            if mark is not None and text is None:
                self._tally.tell(f"position {symbol}: missing, its stream was written up to {mark}")
            elif mark is not None and found is not None and found.seq < mark:
                self._tally.tell(f"position {symbol}: is {found.seq}, its stream was written up to "
                                 f"{mark}")
        return venue

    def _position(self, group: str, text: bytes | None) -> Position | None:
        if text is None:
            if group == "venue":
                self._tally.tell("position venue: missing")
            return None
        self._tally.count("positions")
        try:
            return Position(*position_of(text))
        except ValueError:
            self._tally.tell(f"position {group}: {text[:80]!r} is none of ours")
            return None

    async def _check_position(self, group: str, found: Position | None, end: Position) -> None:
        if found is None:
            return
        lost = found.seq > end.seq or found.incarnation > end.incarnation
        if found.log_id != end.log_id:
            self._tally.tell(f"position {group}: of the log {found.log_id.hex()}, this is "
                             f"{end.log_id.hex()}")
        elif lost or (found.seq and found.incarnation < end.incarnation
                      and await asyncio.to_thread(self._past.incarnation_at, found.seq)
                      > found.incarnation):
            self._tally.tell(f"position {group}: holds events up to {found.seq} that the log "
                             f"lost (it ends at {end.seq})")

    # -- streams, books, prices --------------------------------------------------------------

    async def _compare(self, moment: Moment, streams: dict[str, Found], seq: int,
                       end_seq: int) -> None:
        oldest = await asyncio.to_thread(self._past.oldest_seq)
        self._note_beginnings(moment, streams, oldest)
        prices = Prices(self._markets, moment.tickers, moment.last, seq, clock.now_ns())
        first = min(stream.start for stream in streams.values())
        first = max(oldest, min(first, end_seq - PRICE_EVENTS + 1))
        rows, since_ns = None, 0
        walk = self._past.events(first, end_seq)
        while batches := await asyncio.to_thread(_slice, walk, end_seq):
            if rows is None:
                rows = self._rows(batches[0].first_seq - 1)
                since_ns = first_time_ns(batches[0]) if first > 1 else 0
            await asyncio.to_thread(_apply, rows, batches)
            await self._compare_rows(rows, streams, prices, min(seq, rows.applied_seq))
            rows.clear()
            self._progress(rows.applied_seq - first + 1, end_seq - first + 1)
        # What stands behind the last rows of the log.
        for group, stream in streams.items():
            await self._compare_stream(group, stream, [], seq)
            for late in stream.late(moment.marks, group):
                self._tally.notes.append(late)
        prices.compare(self._tally, since_ns)
        shown, notes = await asyncio.to_thread(
            compare_books, self._past, self._config, self._markets, moment.books, end_seq)
        for difference in shown:
            self._tally.tell(difference)
        self._tally.count("books", sum(value is not None for value in moment.books.values()))
        self._tally.notes += notes
        venue: Any = await self._link.node(self._keys.venue_position).get(
            self._keys.venue_position)
        if venue is None or position_of(venue)[2] < seq:
            raise StoreStopped("the store was emptied meanwhile", "try again")

    def _rows(self, seq: int) -> Rows:
        rows = new_rows(seq, (*TABLES, "instruments"))
        for one in self._all:
            rows.define(one.id, one.symbol, one.wire_symbol, one.price_decimals,
                        one.quantity_decimals, one.lot_size)
        return rows

    def _note_beginnings(self, moment: Moment, streams: dict[str, Found], oldest: int) -> None:
        notes, began = self._tally.notes, moment.marks.get(BEGAN, 0)
        if began:
            notes.append(f"the streams begin behind event {began} (redis.backfill_events, or the "
                         "log began later)")
        cut = [stream for stream in streams.values() if stream.start > began + 1]
        if cut:
            notes.append(f"{len(cut)} streams were cut at their beginning "
                         f"(redis.stream_entries_max), the first kept event is "
                         f"{min(stream.start for stream in cut)}")
        old = [stream for stream in streams.values() if stream.start < oldest]
        for stream in old:
            stream.start = oldest
        if old:
            notes.append(f"the log begins at seq {oldest}: what is older in {len(old)} streams "
                         "can't be compared")

    async def _compare_rows(self, rows: Rows, streams: dict[str, Found], prices: Prices,
                            seq: int) -> None:
        events, trades = streams[""], rows.rows("trades")
        prices.take(trades)
        if seq >= events.start:
            want = [(row[_EVENT_SEQ], list(row)) for row in rows.rows("order_events")
                    if row[_EVENT_SEQ] <= seq]
            await self._compare_stream("", events, want, seq)
        by_market: dict[str, list[tuple[int, list[Any]]]] = {}
        for row in trades:
            one = self._markets.get(row[_SYMBOL])
            if one is not None and row[_SEQ] <= seq:
                by_market.setdefault(one.symbol, []).append((row[_SEQ], _trade(one, row)))
        for symbol, mine in by_market.items():
            await self._compare_stream(symbol, streams[symbol], mine, seq)

    async def _compare_stream(self, group: str, stream: Found,
                              want: list[tuple[int, list[Any]]], seq: int) -> None:
        have = await stream.take(seq)
        if want and want[0][0] < stream.start:
            want = [row for row in want if row[0] >= stream.start]
        if have and have[0][0] < stream.start:
            have = [row for row in have if row[0] >= stream.start]
        self._tally.count("trades" if group else "order_events", len(want))
        if want == have:
            return
        wanted, there = dict(want), dict(have)
        for key in sorted(wanted.keys() | there.keys()):
            ours, theirs = wanted.get(key), there.get(key)
            if ours == theirs:
                continue
            if theirs is None:
                stream.missing(key)
            elif ours is None:
                self._tally.tell(f"{stream.name} {key}: should not be there")
            else:
                self._tally.tell(f"{stream.name} {key}: is {theirs}, should be {ours}")


def _apply(rows: Rows, batches: list[EventBatch]) -> None:
    for batch in batches:
        rows.apply(batch)


def _slice(walk: Iterator[EventBatch], to_seq: int) -> list[EventBatch]:
    found: list[EventBatch] = []
    events = 0
    for batch in walk:
        found.append(events_before(batch, to_seq + 1))
        events += found[-1].event_count
        if events >= SLICE_EVENTS:
            break
    return found


_TRADE = {name: place for place, name in enumerate(COLUMNS["trades"])}


def _trade(one: Instrument, row: tuple[Any, ...]) -> list[Any]:
    """A trade of the log as `trade_of` gives one of a stream."""
    return [row[_MATCH], one.price_text(row[_TRADE["price_units"]]),
            one.quantity_text(row[_TRADE["quantity_lots"]]), row[_TRADE["taker_side"]],
            row[_TRADE["time_ns"]], row[_SEQ]]

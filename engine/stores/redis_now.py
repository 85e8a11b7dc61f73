"""What is now: books, tickers and last prices out of the market, as far as they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from cython_core.depth import decimal_text
from engine import clock
from engine.config import RedisConfig
from engine.instruments import Instrument
from engine.market.leases import Lease
from engine.market.stage import Market
from engine.redis_values import Coder, Keys
from engine.stores.redis_due import Due
from engine.stores.redis_positions import VENUE
from engine.stores.redis_script import Part, Value

# So many books are opened, or compared with what was written, between two looks at the loop.
SLICE = 100
# Tickers change while nothing trades, as what was a day ago leaves them.
TICKERS_NS = 60 * clock.NS_PER_S


class Shown:
    """One market: its lease, and what of it was written last."""

    __slots__ = ("crc", "depth", "instrument", "last", "lease", "ticker")

    def __init__(self, instrument: Instrument, lease: Lease, depth: int) -> None:
        self.instrument, self.lease, self.depth = instrument, lease, depth
        self.crc = -1
        self.ticker: tuple[int, ...] | str | None = ""
        self.last = 0


class Now:
    """The books, tickers and last prices of one Redis."""

    def __init__(self, config: RedisConfig, market: Market, keys: Keys, coder: Coder) -> None:
        self._config, self._market, self._keys, self._coder = config, market, keys, coder
        self._shown: dict[str, Shown] = {}
        self._symbols: dict[int, str] = {}
        self._due = self._new_due()
        # Markets that changed behind what the market has seen, or whose book is not ready yet.
        self._waiting: set[str] = set()
        self._waiting_seq = 0
        self._stale: dict[str, None] = {}
        self._live = False
        self._sweep_ns = 0
        self._sweep: list[str] = []
        # What the present write has: told to be written once it is.
        self._books: list[tuple[Shown, int, int, int]] = []
        self._tickers: list[tuple[Shown, tuple[int, ...] | None, int]] = []
        self.books_written = 0

    def _new_due(self) -> Due:
        config = self._config
        # Half of the time that it may live: a book that is there was there lately.
        return Due(config.min_change, config.max_age_ms, config.batch_interval_ms,
                   config.expire_s * 500)

    # -- beginning and end -------------------------------------------------------------------

    async def begin(self, instruments: Iterable[Instrument]) -> None:
        """Open the books, and find every one of them due."""
        self.end()
        now_ns = clock.monotonic_ns()
        for number, one in enumerate(instruments):
            self._shown[one.symbol] = Shown(one, self._market.use_book(one.id),
                                            depth_of(self._config, one.symbol))
            self._symbols[one.id] = one.symbol
            self._due.force(one.id, now_ns)
            self._stale[one.symbol] = None
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def end(self) -> None:
        """Let the books go, and forget what was written."""
        for shown in self._shown.values():
            shown.lease.release()
        self._shown.clear()
        self._symbols.clear()
        self._waiting.clear()
        self._stale.clear()
        self._sweep.clear()
        self._sweep_ns = 0
        self._due = self._new_due()

    # -- what changed ------------------------------------------------------------------------

    def take(self, updates: Mapping[str, int], traded: Iterable[str], seq: int, live: bool,
             now_ns: int) -> None:
        """These markets changed, and of them these traded, by events up to `seq`. While a store
        catches up that says nothing of now: every market is looked at in its turn."""
        if live:
            self._waiting.update(updates)
            self._waiting_seq = max(self._waiting_seq, seq)
            self._stale.update(dict.fromkeys(traded))
            if self._waiting and self._market.applied_seq >= self._waiting_seq:
                waiting, self._waiting = self._waiting, set()
                for symbol in waiting:
                    self._changed(symbol, now_ns)
        if live and not self._live:
            self._sweep_ns = now_ns
        self._live = live
        self._look_around(now_ns)

    def _changed(self, symbol: str, now_ns: int) -> None:
        shown = self._shown.get(symbol)
        if shown is None:
            return
        if not shown.lease.ready:
            self._waiting.add(symbol)
            return
        bid, _, ask, _ = self._market.books.bbo(shown.instrument.id)
        self._due.changed(shown.instrument.id, bid, ask, now_ns)

    def _look_around(self, now_ns: int) -> None:
        """Compare some markets with what was written of them."""
        if not self._sweep and now_ns >= self._sweep_ns:
            self._sweep = list(self._shown)
            self._sweep_ns = now_ns + (TICKERS_NS if self._live
                                       else self._config.max_age_ms * clock.NS_PER_MS)
        some, self._sweep = self._sweep[:SLICE], self._sweep[SLICE:]
        for symbol in some:
            shown = self._shown[symbol]
            if not shown.lease.ready:
                self._waiting.add(symbol)
            elif self._market.books.crc(shown.instrument.id) != shown.crc:
                self._changed(symbol, now_ns)
            if self._ticker(shown) != shown.ticker:
                self._stale[symbol] = None

    def _ticker(self, shown: Shown) -> tuple[int, ...] | None:
        return self._market.tape.ticker(shown.instrument.id, clock.now_ns())

    def next_ns(self) -> int:
        """When there is something to write although no event comes; 0 for never."""
        if not self._shown:
            return 0
        now_ns = clock.monotonic_ns()
        if self._sweep or self._stale:
            return now_ns
        times = [self._sweep_ns, self._due.next_ns()]
        if self._waiting:
            times.append(now_ns + self._config.batch_interval_ms * clock.NS_PER_MS)
        return min((at for at in times if at), default=0)

    # -- what is written ---------------------------------------------------------------------

    def add_parts(self, parts: dict[str, Part], now_ns: int) -> None:
        """Add what is due to the groups, at most `redis.max_batch_size` markets of each kind."""
        self._books, self._tickers = [], []
        limit = self._config.max_batch_size
        for market_id in self._due.take(now_ns, limit):
            shown = self._shown[self._symbols[market_id]]
            if shown.lease.ready:
                self._add_book(self._part(parts, shown), shown)
        last: dict[Any, Any] = {}
        for symbol in list(self._stale)[:limit]:
            del self._stale[symbol]
            if symbol in self._shown:
                self._add_ticker(parts, self._shown[symbol], last)
        if last:
            parts[VENUE].set_fields(self._keys.last_prices, last)

    def _part(self, parts: dict[str, Part], shown: Shown) -> Part:
        symbol = shown.instrument.symbol
        part = parts.get(symbol)
        if part is None:
            part = parts[symbol] = Part(self._keys.position(symbol))
        return part

    def _add_book(self, part: Part, shown: Shown) -> None:
        market, instrument = self._market, shown.instrument
        bids, asks = market.books.rows(instrument.id, shown.depth)
        bid, _, ask, _ = market.books.bbo(instrument.id)
        crc = market.books.crc(instrument.id)
        value = Value(self._coder.value(
            {"channel": "book", "symbol": instrument.symbol, "seq": market.applied_seq,
             "time": market.applied_time_ns, "bids": bids, "asks": asks, "crc": crc}))
        part.set_value(self._keys.book(instrument.symbol), value, self._config.expire_s)
        part.publish(self._keys.channel(instrument.symbol), value)
        self._books.append((shown, bid, ask, crc))

    def _add_ticker(self, parts: dict[str, Part], shown: Shown, last: dict[Any, Any]) -> None:
        instrument, key = shown.instrument, self._keys.ticker(shown.instrument.symbol)
        ticker, newest = self._ticker(shown), self._market.tape.trades(instrument.id, 1)
        price = newest[0][1] if newest else 0
        if ticker != shown.ticker:
            part = self._part(parts, shown)
            if ticker is None:
                part.delete(key)
            else:
                part.set_fields(key, self._ticker_fields(instrument, ticker))
        if price and price != shown.last:
            last[instrument.symbol] = decimal_text(price, instrument.price_decimals)
        self._tickers.append((shown, ticker, price))

    def _ticker_fields(self, instrument: Instrument, ticker: tuple[int, ...]) -> dict[Any, Any]:
        first, high, low, last, lots, trades = ticker
        names = {"open": first, "high": high, "low": low, "last": last, "change": last - first}
        return {"symbol": instrument.symbol, "seq": self._market.applied_seq,
                "time": self._market.applied_time_ns,
                **{name: decimal_text(units, instrument.price_decimals)
                   for name, units in names.items()},
                "volume": decimal_text(lots * instrument.lot_size, instrument.quantity_decimals),
                "trades": trades}

    def wrote(self, now_ns: int) -> None:
        """What was added last is in Redis."""
        for shown, bid, ask, crc in self._books:
            shown.crc = crc
            self._due.wrote(shown.instrument.id, bid, ask, now_ns)
        for shown, ticker, price in self._tickers:
            shown.ticker, shown.last = ticker, price
        self.books_written += len(self._books)
        self._books, self._tickers = [], []


def depth_of(config: RedisConfig, symbol: str) -> int:
    """Levels of a market's book: of the first pattern that fits."""
    for text in config.depths:
        pattern, _, depth = text.rpartition("=")
        if fnmatchcase(symbol, pattern):
            return int(depth)
    return config.depth

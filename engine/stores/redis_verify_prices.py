"""Tickers and last prices in Redis against the trades of the log.

A ticker says by its seq which trades it knows, and covers the 24 hours before it was written, to
the minute. When that was is not told: between its last event and now. Where trades lie that would
make a difference, only its last price is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cython_core.rows import COLUMNS
from engine import clock
from engine.instruments import Instrument

if TYPE_CHECKING:
    from engine.stores.redis_verify import Tally

DAY_NS = 86_400 * clock.NS_PER_S
MINUTE_NS = 60 * clock.NS_PER_S
_SYMBOL, _SEQ, _TIME, _PRICE, _LOTS = (COLUMNS["trades"].index(name) for name in (
    "symbol", "seq", "time_ns", "price_units", "quantity_lots"))


class _Market:
    """What the log says of one market."""

    def __init__(self, one: Instrument, ticker: Mapping[str, str], last: str | None, seq: int,
                 now_ns: int) -> None:
        self.one, self.ticker, self.last = one, ticker, last
        # The trades up to here are known to the ticker; later ones may be known to the last price.
        self._seq = int(ticker["seq"]) if ticker else seq
        self._known_seq = min(seq, self._seq)
        self._surely_ns = now_ns - DAY_NS + MINUTE_NS
        self.never_ns = (int(ticker["time"]) if ticker else 0) - DAY_NS - MINUTE_NS
        self.is_unsure = self.is_known = False
        self.newest = 0
        self.prices: set[int] = set()
        self.open = self.high = self.low = self.lots = self.trades = 0

    def take(self, seq: int, time_ns: int, price: int, lots: int) -> None:
        """The next trade."""
        if seq <= self._known_seq:
            self.prices.clear()
            self.is_known = True
        self.prices.add(price)
        if seq > self._seq:
            return
        self.newest = price
        if time_ns < self.never_ns:
            return
        if time_ns < self._surely_ns:
            self.is_unsure = True
            return
        if not self.trades:
            self.open = self.high = self.low = price
        self.high, self.low = max(self.high, price), min(self.low, price)
        self.lots += lots
        self.trades += 1

    def fields(self) -> dict[str, str]:
        """The ticker as it should be."""
        one = self.one
        last = {"symbol": one.symbol, "last": one.price_text(self.newest)}
        if self.is_unsure:
            return last
        change = self.newest - self.open
        return last | {
            "open": one.price_text(self.open), "high": one.price_text(self.high),
            "low": one.price_text(self.low), "volume": one.quantity_text(self.lots),
            "change": f"{'-' if change < 0 else ''}{one.price_text(abs(change))}",
            "trades": str(self.trades)}


class Prices:
    """Of all markets; takes the trades of the log in their order."""

    def __init__(self, markets: Mapping[str, Instrument],
                 tickers: Mapping[str, Mapping[bytes, bytes]], last: Mapping[bytes, bytes],
                 seq: int, now_ns: int) -> None:
        self._broken: list[str] = []
        self._markets: dict[str, _Market] = {}
        for symbol, one in markets.items():
            ticker = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
                      for name, value in tickers[symbol].items()}
            price = last.get(symbol.encode())
            try:
                self._markets[symbol] = _Market(
                    one, ticker, None if price is None else price.decode(), seq, now_ns)
            except (KeyError, ValueError):
                self._broken.append(f"ticker {symbol}: seq or time is none")

    def take(self, trades: Iterable[tuple[Any, ...]]) -> None:
        """Rows of trades, all behind those before."""
        for row in trades:
            market = self._markets.get(row[_SYMBOL])
            if market is not None:
                market.take(row[_SEQ], row[_TIME], row[_PRICE], row[_LOTS])

    def compare(self, tally: Tally, since_ns: int) -> None:
        """Tell what is not as it should be. The trades since then were taken; 0 for all."""
        for difference in self._broken:
            tally.tell(difference)
        unsure = 0
        for symbol, market in self._markets.items():
            unsure += self._compare(tally, symbol, market, since_ns)
        if unsure:
            tally.notes.append(f"{unsure} tickers or last prices can't be compared, or not in "
                               "full: their trades are longer ago than what was read of the log, "
                               "or were just leaving the 24 hours")

    def _compare(self, tally: Tally, symbol: str, market: _Market, since_ns: int) -> bool:
        """Whether there was something that can't be compared."""
        if market.prices and (market.is_known or market.last is not None):
            tally.count("last_prices")
            texts = sorted(market.one.price_text(price) for price in market.prices)
            if market.last not in texts:
                tally.tell(f"last price {symbol}: is {market.last}, should be "
                           f"{' or '.join(texts[:5])}")
        elif not since_ns and market.last is not None:
            tally.tell(f"last price {symbol}: should not be there")
        market.is_unsure = market.is_unsure or since_ns > market.never_ns
        if not market.ticker:
            if market.trades:
                tally.tell(f"ticker {symbol}: missing")
            return market.is_unsure and market.last is not None
        if market.newest:
            self._compare_ticker(tally, symbol, market)
        elif not since_ns:
            tally.tell(f"ticker {symbol}: should not be there")
        return market.is_unsure

    def _compare_ticker(self, tally: Tally, symbol: str, market: _Market) -> None:
        tally.count("tickers")
        for name, value in market.fields().items():
            found = market.ticker.get(name)
            if found != value:
                tally.tell(f"ticker {symbol} at {market.ticker['seq']}: {name} is {found!r}, "
                           f"should be {value!r}")

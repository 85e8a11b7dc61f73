"""The markets of a venue as its feed tells them: best prices, last trade, who is busy."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from engine import clock
from engine.clients.errors import ClientError, FeedRefusedError
from engine.clients.feed import FeedClient
from engine.clients.local_book import Row

# What happened counts half after so many seconds.
HALF_LIFE_S = 5.0
# A change of the best prices counts a tenth of a trade.
QUOTE = 0.1
# With more markets than a connection may follow, the first ones are.
SOME = 25
RATE_PAUSE_S = 1.0
# The order of busy markets stays so long, so that rows can be read.
ORDER_S = 5.0
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 2.0
DEPTH = 50
CHANNELS = ("bbo", "ticker", "candles", "status")

Message = dict[str, Any]


class MarketRow(msgspec.Struct, frozen=True):
    """One market; texts are "" where there is nothing. `change` is of 24 hours, in the
    price's unit."""

    symbol: str
    bid_quantity: str
    bid: str
    ask: str
    ask_quantity: str
    last: str
    change: str
    trades_per_second: float
    state: str


class _Rate:
    """How much comes in a second, of late."""

    __slots__ = ("_at_s", "_heat")

    def __init__(self) -> None:
        self._heat = self._at_s = 0.0

    def add(self, amount: float) -> None:
        """So much came now."""
        now_s = clock.monotonic_s()
        self._heat = self._at(now_s) + amount
        self._at_s = now_s

    def _at(self, now_s: float) -> float:
        return self._heat * math.exp(math.log(0.5) * (now_s - self._at_s) / HALF_LIFE_S)

    @property
    def per_second(self) -> float:
        """The rate now."""
        return self._at(clock.monotonic_s()) * math.log(2) / HALF_LIFE_S


class Market:
    """What is known of one market."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._bid: list[str] | None = None
        self._ask: list[str] | None = None
        self._ticker: Message = {}
        self._state = ""
        self._candle: tuple[int, int] | None = None
        # Whether its prices came.
        self.known = False
        self._trades, self._quotes = _Rate(), _Rate()

    def take(self, message: Message) -> None:
        """A message of one of its channels."""
        channel = message["channel"]
        if message["type"] == "reset":
            self._candle = None
        elif channel == "bbo":
            self._bid, self._ask, self.known = message["bid"], message["ask"], True
            self._quotes.add(float(message["type"] != "snapshot"))
        elif channel == "ticker":
            self._ticker = message
        elif channel == "status":
            self._state = message["state"]
        elif channel == "candles":
            self._take_candle(message)

    def _take_candle(self, message: Message) -> None:
        """Candles count trades; a snapshot says where counting begins."""
        open_time, trades = message["open_time"], message["trades"]
        if message["type"] != "snapshot":
            same = self._candle is not None and self._candle[0] == open_time
            self._trades.add(trades - (self._candle[1] if same and self._candle else 0))
        self._candle = open_time, trades

    @property
    def heat(self) -> float:
        """How busy it is."""
        return self._trades.per_second + QUOTE * self._quotes.per_second

    def row(self) -> MarketRow:
        """What is shown of it."""
        bid, ask, ticker = self._bid or ["", ""], self._ask or ["", ""], self._ticker
        return MarketRow(self.symbol, bid[1], bid[0], ask[0], ask[1], ticker.get("last") or "",
                         ticker.get("change") or "", round(self._trades.per_second, 3),
                         self._state)


class Markets:
    """All markets, by one connection to the feed that is made again whenever it is lost."""

    def __init__(self, token: str = "", pattern: str = "*",
                 tls: ssl.SSLContext | None = None) -> None:
        self.found: dict[str, Market] = {}
        # How many there are; more than `found` when they are too many to follow.
        self.count = 0
        # Set once every market has prices, or has none.
        self.settled = asyncio.Event()
        # Why there is no feed, "" while there is one.
        self.wrong = "not connected"
        self._token, self._pattern, self._tls = token, pattern, tls
        # Whether all of them were more than one connection may follow.
        self._too_many = False
        self._client: FeedClient | None = None
        self._book = ""
        self._order: list[str] = []
        self._ordered_s = -math.inf
        self._since_s = 0.0

    def busiest(self) -> list[MarketRow]:
        """A row for each market, the busiest first; the order changes now and then only."""
        now_s = clock.monotonic_s()
        # Nobody is busy yet when the first messages come.
        stays_s = min(ORDER_S, now_s - self._since_s)
        if now_s - self._ordered_s >= stays_s or len(self._order) != len(self.found):
            self._order = sorted(self.found, key=lambda name: (-round(self.found[name].heat, 1),
                                                               name))
            self._ordered_s = now_s
        return [self.found[name].row() for name in self._order]

    def by_name(self) -> list[MarketRow]:
        """A row for each market, in the order of their names."""
        return [self.found[name].row() for name in sorted(self.found)]

    def levels(self) -> tuple[list[Row], list[Row]] | None:
        """Bids and asks of the book that is followed, best first; None before they came."""
        if self._client is None or not self._book:
            return None
        try:
            book = self._client.book(self._book)
        except KeyError:
            return None
        return (book.bids, book.asks) if book.ready else None

    async def follow_book(self, symbol: str) -> None:
        """Follow the levels of this market, and of no other one; "" for none."""
        old, self._book = self._book, symbol
        client = self._client
        if client is None or old == symbol:
            return
        try:
            if old:
                await client.unsubscribe("book", old)
            if symbol:
                await client.subscribe("book", symbol, depth=DEPTH)
        except ClientError:
            # The connection is made anew, with the book.
            pass

    async def follow(self, host: str, port: int, symbols: list[str]) -> None:
        """Follow every market over one connection, until it breaks. Raises ClientError."""
        client = FeedClient(host, port, token=self._token, instruments=(), reconnect_for_s=0,
                            tls=self._tls)
        self.count = len(symbols)
        if self._too_many:
            symbols = symbols[:SOME]
        self.found = {symbol: self.found.get(symbol) or Market(symbol) for symbol in symbols}
        try:
            async with client:
                for name in symbols if self._too_many else [self._pattern]:
                    for channel in CHANNELS:
                        await self._subscribe(client, channel, name)
                self._client, self.wrong, self._since_s = client, "", clock.monotonic_s()
                if self._book:
                    await client.subscribe("book", self._book, depth=DEPTH)
                async for message in client:
                    market = self.found.get(message["symbol"])
                    if market is not None:
                        market.take(message)
                    if not self.settled.is_set() and all(
                            one.known for one in self.found.values()):
                        self.settled.set()
        finally:
            self._client = None

    async def _subscribe(self, client: FeedClient, channel: str, name: str) -> None:
        """Subscribe, as slowly as the venue wants it. Raises ClientError."""
        while True:
            try:
                await client.subscribe(channel, name)
                return
            except FeedRefusedError as error:
                self._too_many = self._too_many or error.code == "too_many_subscriptions"
                if error.code != "rate_limited":
                    raise
            await asyncio.sleep(RATE_PAUSE_S)

    async def follow_for_ever(self, host: str,
                              where: Callable[[str], Awaitable[Message]]) -> None:
        """Follow them, and make every lost connection again. `where` is asked for `/v1/venue`
        each time: a venue that came back may have other markets and another port."""
        pause_s = RETRY_FIRST_S
        while True:
            try:
                venue = await where("/v1/venue")
                if not venue["feed_port"]:
                    raise ClientError("the venue's feed does not listen")
                await self.follow(host, venue["feed_port"],
                                  [one["symbol"] for one in venue["instruments"]
                                   if fnmatchcase(one["symbol"], self._pattern)])
                self.wrong, pause_s = "the connection is lost", RETRY_FIRST_S
            except (ClientError, ValueError, KeyError) as error:
                self.wrong = str(error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)

"""What the venue keeps in Redis, read: books, tickers, last prices, trades, order events.

    async with RedisView("redis://127.0.0.1:6379") as view:
        book = await view.book("BTC-USDT")
        async for trade in view.follow_trades("BTC-USDT", after=book["seq"]):
            ...

Values are as docs/redis.md has them: prices and quantities as decimal texts, times in nanoseconds
since 1970. Entries of streams are known by seqs of the venue's log, so a reader that remembers the
last seq goes on without a hole and without a repeat, as long as the stream still has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.config import RedisConfig
from engine.redis_link import RedisLink
from engine.redis_values import COLUMNS, DATA, FIRST, PREVIOUS, Keys, decode, position_of

Trade = dict[str, Any]
# A read that follows a stream waits so long at the server before it asks again.
WAIT_MS = 2_000
ENTRIES_AT_ONCE = 100


class MissedError(Exception):
    """What was asked for is no longer in the stream; it begins with the event `first`."""

    def __init__(self, first: int) -> None:
        super().__init__(f"the stream begins with event {first}; what was before it is gone")
        self.first = first


class RedisView:
    """Reads the keys of one venue. `url` and `prefix` as in the section `[redis]`; other settings
    of a connection (`username`, `password_file`, `ssl_root_cert_file`, ...) by name.

    Raises ConfigError for an address that is none; later OSError or redis.RedisError when Redis
    can't answer, and ValueError for a value that the venue did not write.
    """

    def __init__(self, url: str, prefix: str = "matchd:", **settings: Any) -> None:
        self.keys = Keys(prefix)
        self._link = RedisLink(RedisConfig(url=url, prefix=prefix, **settings),
                               wait_s=WAIT_MS / 1_000)
        self._open = False

    async def open(self) -> RedisView:
        """Connect."""
        await self._link.open()
        self._open = True
        return self

    async def close(self) -> None:
        """Close the connections. Never raises."""
        self._open = False
        await self._link.close()

    async def __aenter__(self) -> RedisView:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    def _node(self, key: str) -> Any:
        if not self._open:
            raise RedisConnectionError("the view is not open")
        return self._link.node(key)

    # -- now ---------------------------------------------------------------------------------

    async def book(self, symbol: str) -> dict[str, Any] | None:
        """A market's book: `symbol`, `seq`, `time`, `bids`, `asks` (lists of [price, quantity,
        orders], best first), `crc`. None when there is none."""
        value = await self._node(self.keys.book(symbol)).get(self.keys.book(symbol))
        return None if value is None else decode(value)

    async def books(self, symbols: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The books of these markets, as far as there are any. Each has its own seq."""
        by_node: dict[int, tuple[Any, list[str]]] = {}
        for symbol in symbols:
            node = self._node(self.keys.book(symbol))
            by_node.setdefault(id(node), (node, []))[1].append(symbol)
        found = {}
        for node, mine in by_node.values():
            async with node.pipeline(transaction=False) as pipe:
                for symbol in mine:
                    pipe.get(self.keys.book(symbol))
                for symbol, value in zip(mine, await pipe.execute(), strict=True):
                    if value is not None:
                        found[symbol] = decode(value)
        return found

    async def ticker(self, symbol: str) -> dict[str, str] | None:
        """The last 24 hours: `open`, `high`, `low`, `last`, `change`, `volume`, `trades`, with
        `symbol`, `seq`, `time`; all are texts. None when nothing traded."""
        key = self.keys.ticker(symbol)
        fields = await self._node(key).hgetall(key)
        return {name.decode(): value.decode() for name, value in fields.items()} or None

    async def last_prices(self) -> dict[str, str]:
        """The price of every market's last trade, by symbol."""
        fields = await self._node(self.keys.last_prices).hgetall(self.keys.last_prices)
        return {symbol.decode(): price.decode() for symbol, price in fields.items()}

    async def position(self, symbol: str = "") -> tuple[str, int, int] | None:
        """(log id, incarnation, seq): how far the venue's stream is, or that of a market. None
        when it never began."""
        key = self.keys.position(symbol) if symbol else self.keys.venue_position
        text = await self._node(key).get(key)
        if text is None:
            return None
        log_id, incarnation, seq = position_of(text)
        return log_id.hex(), incarnation, seq

    # -- streams -----------------------------------------------------------------------------

    async def trades(self, symbol: str, after: int = 0, entries: int = ENTRIES_AT_ONCE,
                     ) -> list[Trade]:
        """The trades behind the event `after`, of at most so many entries: `match`, `price`,
        `quantity`, `side` (the taker's), `time`, `seq`. With `after` 0 from the oldest on that
        the stream has. Raises MissedError when it does not have all behind `after` any more."""
        key = self.keys.trades(symbol)
        found: list[Trade] = []
        for fields in await self._entries(key, after, entries):
            found += [row for row in decode(fields[DATA])["trades"] if row["seq"] > after]
        return found

    async def order_events(self, after: int = 0, entries: int = ENTRIES_AT_ONCE,
                           ) -> list[dict[str, Any]]:
        """The events behind `after`, of at most so many entries, as maps of docs/redis.md's
        columns. Raises MissedError as `trades` does."""
        found: list[dict[str, Any]] = []
        for fields in await self._entries(self.keys.order_events, after, entries):
            names = fields[COLUMNS].decode().split(",")
            found += [row for row in (dict(zip(names, values, strict=True))
                                      for values in decode(fields[DATA])) if row["seq"] > after]
        return found

    async def _entries(self, key: str, after: int, entries: int) -> list[dict[bytes, bytes]]:
        found = await self._node(key).xrange(key, min=f"{after + 1}-0", count=entries)
        # Every entry tells the one before it.
        if found and after and int(found[0][1][PREVIOUS]) > after:
            raise MissedError(int(found[0][1][FIRST]))
        return [fields for _, fields in found]

    async def follow_trades(self, symbol: str, after: int = 0) -> AsyncIterator[Trade]:
        """The trades behind `after`, and each that comes. Raises MissedError."""
        while True:
            trades = await self.trades(symbol, after)
            for trade in trades:
                yield trade
                after = trade["seq"]
            if not trades:
                await self._wait(self.keys.trades(symbol), after)

    async def follow_order_events(self, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """The events behind `after`, and each that comes. Raises MissedError."""
        while True:
            events = await self.order_events(after)
            for event in events:
                yield event
                after = event["seq"]
            if not events:
                await self._wait(self.keys.order_events, after)

    async def _wait(self, key: str, after: int) -> None:
        _go_on()
        await self._node(key).xread({key: f"{after}-0"}, count=1, block=WAIT_MS)

    # -- news --------------------------------------------------------------------------------

    async def watch(self, *symbols: str) -> AsyncIterator[dict[str, Any]]:
        """What is published of these markets, of all without any: books as `book` has them, and
        {"channel": "trades", "symbol", "seq", "time", "trades"}. A message that comes while
        nobody listens is lost: streams are for who needs all."""
        node = self._node(self.keys.channel(symbols[0] if symbols else ""))
        async with node.pubsub(ignore_subscribe_messages=True) as listener:
            if symbols:
                await listener.subscribe(*map(self.keys.channel, symbols))
            else:
                await listener.psubscribe(self.keys.every_channel)
            while True:
                _go_on()
                message = await listener.get_message(timeout=WAIT_MS / 1_000)
                if message is not None:
                    yield decode(message["data"])


def _go_on() -> None:
    """End a task that was cancelled all the same: before Python 3.12 `asyncio.wait_for`, which the
    client of Redis sends with, drops a cancellation that comes together with its result."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

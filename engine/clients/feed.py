"""The client of the venue's feed: market data, and one's own orders, over WebSocket.

    async with FeedClient("127.0.0.1", 8001) as feed:
        await feed.subscribe("book", "BTC-USDT")
        async for message in feed:
            print(feed.book("BTC-USDT").best_bid)

Every message is checked to follow the one before it, and every book to have the venue's checksum.
What does not fit is subscribed anew, or raised, as one likes. A broken connection is made again and
each subscription goes on where it was: the venue sends what was missed, or says with a `reset` that
it can't and sends a snapshot.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from engine import config, log
from engine.clients.errors import (
    AnswerTimeoutError,
    BookMismatchError,
    ClientError,
    ConnectionLostError,
    FeedGapError,
    FeedRefusedError,
)
from engine.clients.feed_link import ENCODINGS, FeedLink, OnAnswer, open_feed_link
from engine.clients.local_book import LocalBook, LocalOrders
from engine.errors import EngineError
from engine.instruments import Instrument

RECONNECT_DELAY_S = 0.05
RECONNECT_DELAY_MAX_S = 2.0
# After a refusal for too many requests.
RATE_DELAY_S = 1.0

Body = dict[str, Any]
# Channel, symbol, and the interval of candles.
Name = tuple[str, str, str]


@dataclass
class _Held:
    """A subscription, and where it is."""

    channel: str
    symbol: str
    depth: int | None
    interval: str | None
    # The seq of the last message that came, or where to resume; None before the first.
    seq: int | None = None
    # Out of step: nothing counts before the next snapshot.
    broken: bool = False
    # The messages that have this `seq`, without what changes when they are sent again.
    told: list[Body] = field(default_factory=list)
    resumed: bool = False

    def is_repeat(self, message: Body) -> bool:
        """Whether a message came already before the connection broke. Where one event makes
        several messages, none but the last covers it, so a resume after one of the others gives
        them all again."""
        content = {key: value for key, value in message.items() if key not in ("prev_seq", "time")}
        if message["seq"] != self.seq:
            self.told, self.resumed = [content], False
            return False
        if self.resumed and content in self.told:
            return True
        self.told.append(content)
        return False

    def request(self) -> Body:
        """What to ask the venue for."""
        body: Body = {"op": "subscribe", "channel": self.channel, "symbol": self.symbol}
        if self.depth is not None:
            body["depth"] = self.depth
        if self.interval is not None:
            body["interval"] = self.interval
        return body


class FeedClient:
    """A connection to the feed. Not thread-safe; belongs to the running event loop."""

    def __init__(
        self, host: str, port: int, *, encoding: str = "msgpack", token: str = "",
        instruments: Iterable[Instrument] | None = None, repair: bool = True,
        answer_timeout_s: float = 10.0, silence_max_s: float = 10.0,
        reconnect_for_s: float = 60.0, backlog_max: int = 65_536,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`encoding` is json, msgpack or msgpack-lz4. `token` logs in, for private channels.

        `instruments` tell the lots that checksums are made of (default: those of the configuration
        found here; the checksum of an unknown instrument is not checked). With `repair` a
        subscription that got out of step is made anew; without, iterating raises FeedGapError or
        BookMismatchError. `reconnect_for_s` is how long a lost connection is tried again, 0 for
        not at all. `backlog_max` bounds the messages that wait to be iterated over: beyond it the
        client reads no more, but for the answer to a request. `tls` is for a feed that speaks it.
        """
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding is one of {', '.join(ENCODINGS)}")
        self._address, self._encoding, self._token = (host, port), encoding, token
        self._tls = tls
        if instruments is None:
            instruments = config.load_settings().instruments
        self._lots = {one.symbol: one.lot_size for one in instruments}
        self._repair, self._answer_timeout_s = repair, answer_timeout_s
        self._silence_max_s, self._reconnect_for_s = silence_max_s, reconnect_for_s
        self._log = log.get("client")

        self._link: FeedLink | None = None
        self._online = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: Exception | None = None
        self._over = False

        self._held: dict[Name, _Held] = {}
        self._books: dict[str, LocalBook] = {}
        self._orders: dict[str, LocalOrders] = {}
        self._backlog: deque[Body] = deque()
        self._backlog_max = backlog_max
        self._paused = False
        self._arrived = asyncio.Event()
        # The venue's log, whose positions `seq` are.
        self.log_id = ""
        # Connections made again, subscriptions put right, messages that came.
        self.reconnects = self.repairs = self.received = 0

    # -- the connection ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, with every subscription made on it."""
        return self._online.is_set()

    async def connect(self) -> None:
        """Connect and log in. The first connection is not tried again: raises
        ConnectionLostError; FeedRefusedError when the token is."""
        self._link = await self._open()
        self._online.set()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Close the connection, end the iteration."""
        self._over = True
        for task in [self._keeper, *self._tasks]:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._link is not None:
            self._link.close()
            await asyncio.wait([self._link.closed], timeout=1.0)
        self._end(None)

    async def _open(self) -> FeedLink:
        """A new connection, logged in."""
        link = await open_feed_link(*self._address, self._encoding, self._receive,
                                    self._silence_max_s, self._tls)
        try:
            if self._token:
                await self._answer_of(link, {"op": "auth", "token": self._token})
        except BaseException:
            link.close()
            raise
        return link

    async def _keep(self) -> None:
        """Make the connection again, whenever it is lost."""
        loop = asyncio.get_running_loop()
        while True:
            link = self._link
            if link is None:
                return
            # Not the future itself: it would be cancelled with this task.
            await asyncio.wait([link.closed])
            self._online.clear()
            self._log.info("feed connection lost", reason=str(link.fault))
            if self._reconnect_for_s == 0 or not isinstance(link.fault, ConnectionLostError):
                self._end(link.fault)
                return
            give_up_at = loop.time() + self._reconnect_for_s
            try:
                self._link = await self._reopen(give_up_at)
            except EngineError as error:
                self._end(error)
                return
            self.reconnects += 1
            self._paused = False
            self._online.set()

    async def _reopen(self, give_up_at: float) -> FeedLink:
        """Try until there is a connection with all subscriptions."""
        loop = asyncio.get_running_loop()
        delay = RECONNECT_DELAY_S
        while True:
            try:
                return await self._open_again()
            except (ConnectionLostError, AnswerTimeoutError):
                if loop.time() + delay > give_up_at:
                    raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECONNECT_DELAY_MAX_S)

    async def _open_again(self) -> FeedLink:
        """A new connection, with every subscription from where it was."""
        link = await self._open()
        try:
            for held in [*self._held.values()]:
                await self._renew(link, held, held.seq)
        except BaseException:
            link.close()
            raise
        return link

    async def _renew(self, link: FeedLink, held: _Held, resume_from: int | None) -> None:
        """Subscribe again, from a position or with a snapshot."""
        body = held.request()
        if resume_from is not None and not held.broken:
            body |= {"resume_from": resume_from, "log": self.log_id}
            held.resumed = True
        while True:
            try:
                await self._answer_of(link, body)
                return
            except FeedRefusedError as error:
                if error.code != "rate_limited":
                    raise
            await asyncio.sleep(RATE_DELAY_S)

    def _end(self, fault: Exception | None) -> None:
        """Nothing more will come."""
        self._fault = self._fault or fault
        self._over = True
        self._online.set()
        self._arrived.set()

    # -- requests ----------------------------------------------------------------------------

    async def auth(self, token: str) -> Body:
        """Log in. Raises FeedRefusedError when the token is not valid."""
        answer = await self._ask({"op": "auth", "token": token})
        self._token = token
        return answer

    async def subscribe(self, channel: str, symbol: str = "", *, depth: int | None = None,
                        interval: str | None = None, resume_from: int | None = None,
                        log_id: str | None = None) -> Body:
        """Subscribe; `symbol` may be a pattern like "*-USDT". Returns the venue's answer.

        Without `resume_from` a snapshot comes first. With it, what happened behind that `seq` (and
        `log_id`, to be sure that it is the same log), or a `reset` and a snapshot. Raises
        FeedRefusedError.
        """
        asked = _Held(channel, symbol, depth, interval)
        body = asked.request()
        if not symbol:
            del body["symbol"]
        if resume_from is not None:
            body["resume_from"] = resume_from
        if log_id is not None:
            body["log"] = log_id

        def hold(answer: Body) -> None:
            # Before any message of it can come.
            self.log_id = answer.get("log", "")
            for one in answer["symbols"]:
                self._hold(_Held(channel, one, depth, interval, resume_from))

        return await self._ask(body, hold)

    async def unsubscribe(self, channel: str, symbol: str = "*", *,
                          interval: str | None = None) -> Body:
        """End subscriptions; `symbol` may be a pattern. Raises FeedRefusedError."""
        body: Body = {"op": "unsubscribe", "channel": channel, "symbol": symbol}
        if interval is not None:
            body["interval"] = interval

        def leave(answer: Body) -> None:
            for name in [*self._held]:
                if name[0] == channel and name[1] in answer["symbols"] \
                        and interval in (None, name[2]):
                    self._leave(name)

        return await self._ask(body, leave)

    async def subscriptions(self) -> list[Body]:
        """The subscriptions of this connection, as the venue has them."""
        answer = await self._ask({"op": "list"})
        rows: list[Body] = answer["subscriptions"]
        return rows

    async def ping(self) -> Body:
        """Ask for a sign of life: the venue's `time` and `seq`."""
        return await self._ask({"op": "ping"})

    async def _ask(self, body: Body, on_answer: OnAnswer | None = None) -> Body:
        """A request that is made again if the connection breaks before its answer."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._answer_timeout_s + self._reconnect_for_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(give_up_at):
                    while not self._online.is_set():
                        await self._online.wait()
            if self._over or self._link is None or not self._online.is_set():
                raise self._fault or ConnectionLostError("the feed is not connected")
            try:
                return await self._answer_of(self._link, body, on_answer)
            except ConnectionLostError:
                if loop.time() >= give_up_at or not self._reconnect_for_s:
                    raise
            # The keeper notices the loss in this turn of the loop or the next.
            await asyncio.sleep(RECONNECT_DELAY_S)

    async def _answer_of(self, link: FeedLink, body: Body,
                         on_answer: OnAnswer | None = None) -> Body:
        self._read_on()
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                return await link.ask(body, on_answer)
        except TimeoutError:
            raise AnswerTimeoutError(
                f"no answer to {body['op']} in {self._answer_timeout_s} s") from None

    # -- subscriptions -----------------------------------------------------------------------

    def _hold(self, held: _Held) -> None:
        """The venue took a subscription."""
        self._held[held.channel, held.symbol, held.interval or ""] = held
        if held.channel == "candles" and held.interval is None:
            held.interval = "1m"
            self._held[held.channel, held.symbol, "1m"] = self._held.pop(
                (held.channel, held.symbol, ""))
        if held.channel == "book":
            self._books[held.symbol] = LocalBook(held.symbol, held.depth,
                                                 self._lots.get(held.symbol))
        if held.channel == "book_l3":
            self._orders[held.symbol] = LocalOrders(held.symbol)

    def _leave(self, name: Name) -> None:
        del self._held[name]
        if name[0] == "book":
            self._books.pop(name[1], None)
        if name[0] == "book_l3":
            self._orders.pop(name[1], None)

    def book(self, symbol: str) -> LocalBook:
        """The book of a subscription to `book`, as of the last message that was iterated over.
        Raises KeyError when there is none."""
        return self._books[symbol]

    def orders(self, symbol: str) -> LocalOrders:
        """The single orders of a subscription to `book_l3`. Raises KeyError when there is none."""
        return self._orders[symbol]

    def position(self, channel: str, symbol: str, interval: str | None = None) -> int | None:
        """The `seq` of the last message that came: what to resume from. None before the first."""
        if channel == "candles" and interval is None:
            interval = "1m"
        return self._held[channel, symbol, interval or ""].seq

    # -- messages ----------------------------------------------------------------------------

    def _receive(self, message: Body) -> None:
        """A message came: does it follow the one before?"""
        self.received += 1
        held = self._held.get((message["channel"], message["symbol"],
                               message.get("interval", "")))
        if message["type"] == "reset":
            # A snapshot follows.
            self._keep_message(message)
            return
        if held is None:
            return
        if message["type"] == "snapshot":
            held.broken = False
        elif held.broken:
            return
        elif held.seq is not None and message["prev_seq"] != held.seq:
            self._put_right(held, FeedGapError(
                f"{held.channel} {held.symbol}: a message follows seq {message['prev_seq']}, "
                f"the last one here is {held.seq}"))
            return
        elif held.is_repeat(message):
            return
        held.seq = message["seq"]
        self._keep_message(message)

    def _keep_message(self, message: Body) -> None:
        self._backlog.append(message)
        self._arrived.set()
        link = self._link
        if len(self._backlog) >= self._backlog_max and not self._paused and link is not None \
                and not link.asking:
            self._paused = True
            link.pause_reading()

    def _read_on(self) -> None:
        if self._paused and self._link is not None:
            self._paused = False
            self._link.resume_reading()

    def _put_right(self, held: _Held, error: ClientError) -> None:
        """A subscription is out of step: make it anew, or give up."""
        held.broken = True
        self._log.warning("feed out of step", channel=held.channel, symbol=held.symbol,
                          reason=str(error))
        if not self._repair or self._link is None:
            self._end(error)
            return
        self.repairs += 1
        task = asyncio.get_running_loop().create_task(self._repair_one(self._link, held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _repair_one(self, link: FeedLink, held: _Held) -> None:
        try:
            await self._renew(link, held, None)
        except ConnectionLostError:
            # The keeper makes a new one, and this subscription with it.
            return
        except EngineError as error:
            self._end(error)

    def __aiter__(self) -> AsyncIterator[Body]:
        return self.messages()

    async def messages(self) -> AsyncIterator[Body]:
        """Every message as the venue sent it, in order; ends when the client is closed.

        Raises ConnectionLostError when the connection is lost for good, and what else ended it.
        """
        while True:
            while self._backlog:
                message = self._backlog.popleft()
                if len(self._backlog) <= self._backlog_max // 2:
                    self._read_on()
                if self._take(message):
                    yield message
            if self._over:
                if self._fault is not None:
                    raise self._fault
                return
            self._arrived.clear()
            await self._arrived.wait()

    def _take(self, message: Body) -> bool:
        """Bring the local book up to a message; returns whether the message counts."""
        copies: dict[str, LocalBook] | dict[str, LocalOrders]
        channel = message["channel"]
        if channel not in ("book", "book_l3"):
            return True
        copies = self._books if channel == "book" else self._orders
        copy = copies.get(message["symbol"])
        if copy is None:
            return False
        if message["type"] == "delta" and copy.lost:
            # It was on its way behind the message that did not fit.
            return False
        try:
            copy.apply(message)
        except BookMismatchError as error:
            self._put_right(self._held[channel, message["symbol"], ""], error)
            if not self._repair:
                raise
            return False
        return True

"""Chains: what all subscriptions to one channel, symbol and depth (or interval) are told.

A chain turns the market's state into messages once per tick, whoever listens. Its messages follow
each other: the `prev_seq` of one is the `seq` of the one before. `seq` is the last event that a
message covers, so it may jump, but there is never a hole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from cython_core.depth import DepthView
from engine import clock
from engine.feed.encode import Body, Encoder, Message
from engine.feed.groups import Group
from engine.feed.ring import Ring
from engine.feed.subscription import Subscription
from engine.instruments import Instrument, unscaled
from engine.market.leases import Lease
from engine.market.stage import Market, Status

if TYPE_CHECKING:
    from engine.feed.accounts import Accounts

INTERVALS = {"1s": 1, "1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
SIDES = {"B": "buy", "S": "sell"}
INTERVAL_NAMES = {seconds: name for name, seconds in INTERVALS.items()}

# Channel, instrument, account (0 for public ones), depth or interval in seconds (0 for none).
Key = tuple[str, int, int, int]


class Source(Protocol):
    """What chains stand on: the feed."""

    market: Market
    encoder: Encoder
    resume_window_ns: int

    def crc(self, instrument_id: int) -> int:
        """The checksum of the instrument's book as it is now."""

    @property
    def accounts(self) -> Accounts:
        """The accounts that somebody follows."""

    def settled(self) -> bool:
        """Whether all that the matcher has done is durable."""

    def fell_back(self, chain: Chain) -> None:
        """A chain lost count of what changed: who follows it goes on from the log."""


class Chain:
    """One channel of one instrument. `seq` is where its messages have come to."""

    channel: ClassVar[str]
    # Whether a resume may start anywhere in the event log, or in the ring only.
    from_log: ClassVar[bool] = False
    # What tells that something may have changed: books, orders, tape, status or account.
    reads: ClassVar[str]

    def __init__(self, source: Source, instrument: Instrument, param: int = 0,
                 account_id: int = 0) -> None:
        self.source = source
        self.market = source.market
        self.instrument = instrument
        self.param = param
        self.account_id = account_id
        self.seq = 0
        # Where the chain was before the tick of this number.
        self.before_seq = 0
        self.tick = 0
        self.started = False
        self.subscriptions = 0
        self.groups: set[Group] = set()
        self.waiting: list[Subscription] = []
        self.bridging: list[Subscription] = []
        self.ring = Ring(source.resume_window_ns)
        self._snapshot: Message | None = None

    @property
    def key(self) -> Key:
        """The chain's name within the feed."""
        return self.channel, self.instrument.id, self.account_id, self.param

    @property
    def _change(self) -> str:
        """The type of messages that change what was told before."""
        return "delta" if self.channel.startswith("book") else "update"

    def start(self) -> bool:
        """Begin at the market's state, if that can be read yet; returns whether it can."""
        if not self.started and self.is_readable():
            self.begin()
            self.seq = self.before_seq = self.market.applied_seq
            self.started = True
        return self.started

    def flush(self, tick: int, time_ns: int, now_ns: int) -> list[Message]:
        """The messages of what changed since the last call."""
        self.before_seq, self.tick = self.seq, tick
        messages = []
        for seq, fields in self.collect(time_ns):
            message = self._message(self._change, seq, self.seq, time_ns, fields)
            self.seq = seq
            self.ring.add(message, now_ns)
            messages.append(message)
        if messages:
            self._snapshot = None
        return messages

    def snapshot(self, prev_seq: int = 0) -> Message:
        """The state at `seq`, to which the next message of the chain fits. Only while nothing
        waits to be flushed."""
        made = self._snapshot
        if made is None:
            made = self._message("snapshot", self.seq, 0, clock.now_ns(), self.state())
            self._snapshot = made
        return made.after(prev_seq) if prev_seq else made

    def past(self, seq: int, prev_seq: int, fields: Body) -> Message:
        """A message of the past, for one subscription."""
        return self._message(self._change, seq, prev_seq, clock.now_ns(), fields)

    def reset(self, reason: str, prev_seq: int = 0) -> Message:
        """Says that a resume was not possible."""
        return self._message("reset", self.seq, prev_seq, clock.now_ns(),
                             {**self.label(), "reason": reason})

    def _message(self, kind: str, seq: int, prev_seq: int, time_ns: int, fields: Body) -> Message:
        head: Body = {"channel": self.channel, "symbol": self.instrument.symbol, "seq": seq,
                      "prev_seq": prev_seq, "time": time_ns, "type": kind}
        return Message(self.source.encoder, {**head, **fields})

    # -- what each channel does ----------------------------------------------------------------

    def label(self) -> Body:
        """What tells the chain's messages from others of its channel and symbol."""
        return {}

    def is_readable(self) -> bool:
        """Whether the state may be read."""
        return True

    def begin(self) -> None:
        """Take the state as it is as told."""

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        """What changed since the last call: the last event covered, and the message's fields."""
        raise AttributeError(self.channel)

    def is_due(self, now_ns: int) -> bool:
        """Whether the clock alone changed what is to be told."""
        return False

    def state(self) -> Body:
        """The fields of a snapshot."""
        raise AttributeError(self.channel)

    def close(self) -> None:
        """Nobody listens any more."""


class BookReader(Chain):
    """A chain that reads a book by price levels, and keeps it open."""

    def __init__(self, source: Source, instrument: Instrument, param: int = 0,
                 account_id: int = 0) -> None:
        super().__init__(source, instrument, param, account_id)
        self._lease = self.lease()

    def lease(self) -> Lease:
        """The lease on the book."""
        return self.market.use_book(self.instrument.id)

    def is_readable(self) -> bool:
        return self._lease.ready

    def close(self) -> None:
        self._lease.release()


class BookChain(BookReader):
    """`book`: price levels, at most `param` of each side (0 for all)."""

    channel = "book"
    reads = "books"
    _view: DepthView
    _crc = 0

    def begin(self) -> None:
        self._view = DepthView(self.market.books, self.instrument.id, self.param)
        self._crc = self.source.crc(self.instrument.id)

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        bids, asks = self._view.changes()
        if not bids and not asks:
            return []
        self._crc = self.source.crc(self.instrument.id)
        return [(self.market.applied_seq, {"bids": bids, "asks": asks, "crc": self._crc})]

    def state(self) -> Body:
        bids, asks = self._view.rows()
        return {"bids": bids, "asks": asks, "crc": self._crc}


class BboChain(BookReader):
    """`bbo`: the best bid and offer."""

    channel = "bbo"
    reads = "books"
    _told: tuple[int, int, int, int] = (0, 0, 0, 0)

    def begin(self) -> None:
        self._told = self.market.books.bbo(self.instrument.id)

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        best = self.market.books.bbo(self.instrument.id)
        if best == self._told:
            return []
        self._told = best
        return [(self.market.applied_seq, self.state())]

    def state(self) -> Body:
        bid_units, bid_lots, ask_units, ask_lots = self._told
        return {"bid": self._level(bid_units, bid_lots), "ask": self._level(ask_units, ask_lots)}

    def _level(self, price_units: int, lots: int) -> list[str] | None:
        if lots == 0:
            return None
        return [self.instrument.price_text(price_units), self.instrument.quantity_text(lots)]


class OrderBookChain(BookReader):
    """`book_l3`: every order in its place."""

    channel = "book_l3"
    reads = "orders"
    from_log = True

    def lease(self) -> Lease:
        return self.market.use_order_book(self.instrument.id)

    def begin(self) -> None:
        self.market.order_books.take_order_events(self.instrument.id)

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        events = order_events(self.market.order_books.take_order_events(self.instrument.id))
        return [(self.market.applied_seq, {"events": events})] if events else []

    def state(self) -> Body:
        bids, asks = self.market.order_books.orders(self.instrument.id)
        return {"bids": bids, "asks": asks}


class TradesChain(Chain):
    """`trades`: every fill, once."""

    channel = "trades"
    reads = "tape"
    from_log = True

    def begin(self) -> None:
        self.market.tape.take_trades(self.instrument.id)

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        trades = trade_rows(self.instrument, self.market.tape.take_trades(self.instrument.id))
        return [(self.market.applied_seq, {"trades": trades})] if trades else []

    def state(self) -> Body:
        return {"trades": []}

    def close(self) -> None:
        self.market.tape.leave_trades(self.instrument.id)


class CandlesChain(Chain):
    """`candles`: the candle of this moment, and once more with `closed` when its time is over."""

    channel = "candles"
    reads = "tape"
    _told: tuple[int, ...] | None = None
    _closed = False

    def label(self) -> Body:
        return {"interval": INTERVAL_NAMES[self.param]}

    def begin(self) -> None:
        self._told = self._last(1)[0]
        self._closed = self._is_over(self._told)

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        found: list[tuple[int, Body]] = []
        told = self._told
        for candle in self._since(told):
            over = self._is_over(candle)
            if candle != self._told or over != self._closed:
                self._told, self._closed = candle, over
                found.append((self.market.applied_seq, self.state()))
        # Of several only the last covers everything; who was cut between them gets all again.
        return [(self.seq if number < len(found) - 1 else seq, fields)
                for number, (seq, fields) in enumerate(found)]

    def is_due(self, now_ns: int) -> bool:
        return not self._closed and self._is_over(self._told)

    def _since(self, told: tuple[int, ...] | None) -> list[tuple[int, ...]]:
        """The candle that was told last and those after it; each but the newest is over."""
        newest = self._last(1)[0]
        if newest is None:
            return []
        if told is None or newest[0] == told[0]:
            return [newest]
        return [candle for candle in self._last(16) if candle and candle[0] >= told[0]]

    def _last(self, limit: int) -> list[tuple[int, ...] | None]:
        found: list[tuple[int, ...] | None] = [
            *self.market.tape.candles(self.instrument.id, self.param, limit)]
        return found or [None]

    def _is_over(self, candle: tuple[int, ...] | None) -> bool:
        """Whether no event can come into the candle any more."""
        if candle is None:
            return False
        end_ns = candle[0] + self.param * clock.NS_PER_S
        return self.market.applied_time_ns >= end_ns or (
            clock.now_ns() >= end_ns and self.source.settled())

    def state(self) -> Body:
        return candle_fields(self.instrument, self.param, self._told, self._closed)


class TickerChain(Chain):
    """`ticker`: the last 24 hours."""

    channel = "ticker"
    reads = "tape"
    _told: tuple[int, ...] | None = None

    def begin(self) -> None:
        self._told = self.market.tape.ticker(self.instrument.id, clock.now_ns())

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        now = self.market.tape.ticker(self.instrument.id, time_ns)
        if now == self._told:
            return []
        self._told = now
        return [(self.market.applied_seq, self.state())]

    def state(self) -> Body:
        return ticker_fields(self.instrument, self._told)


class StatusChain(Chain):
    """`status`: whether the instrument trades."""

    channel = "status"
    reads = "status"
    _told: Status

    def begin(self) -> None:
        self._told = self.market.status(self.instrument.id)

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        now = self.market.status(self.instrument.id)
        if now == self._told:
            return []
        self._told = now
        return [(self.market.applied_seq, self.state())]

    def state(self) -> Body:
        return {"state": self._told.state, "reason": self._told.reason}


def trade_rows(instrument: Instrument,
               trades: list[tuple[int, int, int, str, int, int]]) -> list[Body]:
    """Trades as `trades` has them, identifiers as integers."""
    return [{"match": match, "price": instrument.price_text(price_units),
             "quantity": instrument.quantity_text(lots), "side": SIDES[side],
             "time": time_ns, "seq": seq}
            for match, price_units, lots, side, time_ns, seq in trades]


def order_events(events: list[dict[str, str | int]]) -> list[Body]:
    """Events of orders as `book_l3` has them, identifiers as integers."""
    return [{key: value for key, value in event.items() if key != "seq"} for event in events]


def candle_fields(instrument: Instrument, interval_s: int, candle: tuple[int, ...] | None,
                  closed: bool) -> Body:
    """A candle as `candles` has it; without any trade so far its prices are null."""
    fields: Body = {"interval": INTERVAL_NAMES[interval_s]}
    if candle is None:
        return fields | {"open_time": None, "open": None, "high": None, "low": None,
                         "close": None, "volume": instrument.quantity_text(0), "trades": 0,
                         "closed": False}
    open_ns, first, high, low, last, lots, trades = candle
    price = instrument.price_text
    return fields | {"open_time": open_ns, "open": price(first), "high": price(high),
                     "low": price(low), "close": price(last),
                     "volume": instrument.quantity_text(lots), "trades": trades,
                     "closed": closed}


def ticker_fields(instrument: Instrument, ticker: tuple[int, ...] | None) -> Body:
    """A ticker as `ticker` has it; without a trade in 24 hours its prices are null."""
    if ticker is None:
        return {"open": None, "high": None, "low": None, "last": None,
                "volume": instrument.quantity_text(0), "change": None}
    first, high, low, last, lots, _ = ticker
    price = instrument.price_text
    return {"open": price(first), "high": price(high), "low": price(low), "last": price(last),
            "volume": instrument.quantity_text(lots),
            "change": unscaled(last - first, instrument.price_decimals)}


PUBLIC_CHAINS: dict[str, type[Chain]] = {
    kind.channel: kind for kind in (BookChain, BboChain, OrderBookChain, TradesChain,
                                    CandlesChain, TickerChain, StatusChain)}

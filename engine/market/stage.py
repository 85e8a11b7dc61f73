"""Market: committed events become books, trades, candles and orders that others read.

The feed and the HTTP gateway share one of these. Everything here is made of durable events, so
nothing can be seen that a crash could take back. Readers get three things from it: what is true
now (books, tape, ledger), a call after each group of events (`listen`), and what was (`history`,
`resume`). With nobody reading, an event costs a nanosecond or two: no Python runs per event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from cython_core.depth import Books
from cython_core.event import EventBatch
from cython_core.ledger import Answer, Change, Ledger, answers
from cython_core.matcher import Matcher
from cython_core.model import Kind
from cython_core.record import last_time_ns
from cython_core.tape import Tape
from engine import clock, log
from engine.config import Config, FeedConfig
from engine.errors import JournalError
from engine.instruments import Instrument
from engine.market.history import History, Past
from engine.market.leases import EVERY_LEVEL, Lease, Shelf
from engine.market.reasons import CANCEL_CODES, REJECT_CODES
from engine.market.resume import Resume
from engine.market.warm import pack, warm_tape
from engine.queues import BatchQueue

Listener = Callable[[], None]


class Status(NamedTuple):
    """What an instrument does: `state` is "trading" or "halted", `reason` the operator's words,
    `seq` the event that made it so."""

    state: str
    reason: str
    seq: int


class Log(Protocol):
    """The journal, as far as this stage knows it."""

    log_id: bytes

    @property
    def incarnation(self) -> int:
        """One more for each time that a tail was cut."""

    @property
    def past(self) -> Past:
        """What it lets threads read."""

    def keep_beside(self, maker: Callable[[], bytes]) -> None:
        """Keep what `maker` makes beside every snapshot."""

    def kept_beside(self) -> Iterator[bytes]:
        """What was kept, the newest first."""


def scales(instrument: Instrument) -> tuple[int, int, int]:
    """What texts of an instrument need: price decimals, quantity decimals, lot."""
    return instrument.price_decimals, instrument.quantity_decimals, instrument.lot_size


class Watch:
    """One reader of an account's changes. An account has at most one (see Market.watch)."""

    def __init__(self, ledger: Ledger, account_id: int, from_seq: int,
                 release: Callable[[], None]) -> None:
        self.account_id = account_id
        # Changes of events up to here are not told: whoever wants them reads the log.
        self.from_seq = from_seq
        self._ledger = ledger
        self._release: Callable[[], None] | None = release

    def take(self) -> list[Change] | None:
        """What happened since the last call: (seq, "order" | "execution", row), in order.

        None when more happened than is kept for a reader that does not come: it goes on from the
        log (`market.resume`), from the last seq it got up to `market.applied_seq`.
        """
        return self._ledger.take_changes(self.account_id)

    def release(self) -> None:
        """The reader is done. A second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()


class Market:
    """The read model. One per venue; belongs to the loop's thread."""

    def __init__(self, committed: BatchQueue[EventBatch], matcher: Matcher,
                 instruments: Iterable[Instrument], config: Config, journal: Log) -> None:
        self._committed = committed
        self._matcher = matcher
        self.applied_seq = matcher.next_seq - 1
        self.applied_time_ns = matcher.last_time_ns
        # Futures of answers by request id: who sends a private command puts one here first.
        self.pending: dict[int, asyncio.Future[Answer]] = {}
        self._request_id = 0
        self._listeners: list[Listener] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

        # Books without orders, and with: each is read by leases. A book that is opened with its
        # orders runs ahead until it is ready, so the two kinds don't share one object.
        feed = config.feed
        self.books = Books(self.applied_seq)
        self.order_books = Books(self.applied_seq)
        self._shelf = Shelf(self.books, self._open_book, self.books.close, feed.books_idle_ms,
                            self.reached)
        self._order_shelf = Shelf(self.order_books, self._open_orders, self.order_books.close,
                                  feed.books_idle_ms, self.reached)
        self.tape = self._warm_tape(journal, feed)
        journal.keep_beside(lambda: pack(self.tape, feed.trades_kept, feed.candles_kept))
        self.ledger = Ledger(self.applied_seq, config.api.orders_kept, REJECT_CODES, CANCEL_CODES)
        self._orders_kept = config.api.orders_kept
        self._watched: set[int] = set()
        self._activated: set[int] = set()
        self._activations: dict[int, asyncio.Task[None]] = {}

        # Symbols and decimals: those of the log, then those of the file, which the log takes
        # over before the venue listens.
        self.instruments: dict[int, Instrument] = {}
        self._statuses: dict[int, Status] = {}
        # Grows with every change of a status, so that a reader sees at once whether to look.
        self.status_changes = 0
        self._define_all(instruments)

        # What was: the log. Positions of readers are good for one log and incarnation.
        self.log_name = f"{journal.log_id.hex()}-{journal.incarnation}"
        self.history = History(journal.past, self.make_ledger, self.make_books,
                               feed.warm_events_max)
        self.resume = Resume(self.history)

    def _warm_tape(self, journal: Log, feed: FeedConfig) -> Tape:
        started_ns = clock.monotonic_ns()
        try:
            warm = warm_tape(journal.kept_beside(), journal.past, self.applied_seq,
                             feed.trades_kept, feed.candles_kept, feed.warm_events_max)
        except JournalError as error:
            # Orders can be taken without them: what recovery needed of the log was good.
            log.get("market").warning("trades and candles begin anew", reason=str(error))
            return Tape(self.applied_seq, feed.trades_kept, feed.candles_kept)
        if self.applied_seq:
            log.get("market").info(
                "trades and candles are there again", from_checkpoint=warm.from_checkpoint,
                events=warm.events, events_left_out=warm.missing,
                ms=(clock.monotonic_ns() - started_ns) // clock.NS_PER_MS)
        return warm.tape

    def close(self) -> None:
        """Answer no more questions about the past."""
        self.history.close()

    def _define_all(self, instruments: Iterable[Instrument]) -> None:
        known = self._matcher.instruments()
        for instrument_id, row in known.items():
            self.define(Instrument(instrument_id, row["symbol"], row["wire_symbol"],
                                   row["price_decimals"], row["tick_units"],
                                   row["quantity_decimals"], row["lot_size"],
                                   row["quantity_max_lots"]))
            self._statuses[instrument_id] = Status(
                "halted" if row["halted"] else "trading", row["halt_reason"], self.applied_seq)
        for instrument in instruments:
            self.define(instrument)

    def define(self, instrument: Instrument) -> None:
        """Take an instrument's names and scales, for texts."""
        before = self.instruments.get(instrument.id)
        self.instruments[instrument.id] = instrument
        if before is not None and (scales(before), before.tick_units) == (
                scales(instrument), instrument.tick_units):
            return
        self._statuses.setdefault(instrument.id, Status("trading", "", self.applied_seq))
        for books in (self.books, self.order_books):
            books.define(instrument.id, *scales(instrument), instrument.tick_units)
        self.ledger.define(instrument.id, instrument.symbol, *scales(instrument))

    def make_ledger(self, seq: int) -> Ledger:
        """An empty ledger behind `seq` that knows the instruments and keeps every change."""
        ledger = Ledger(seq, self._orders_kept, REJECT_CODES, CANCEL_CODES, 2**32 - 1)
        for instrument in self.instruments.values():
            ledger.define(instrument.id, instrument.symbol, *scales(instrument))
        return ledger

    def make_books(self, seq: int) -> Books:
        """Books behind `seq`, none open, that know the instruments."""
        books = Books(seq)
        for instrument in self.instruments.values():
            books.define(instrument.id, *scales(instrument), instrument.tick_units)
        return books

    # -- the stage ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Take what is committed until the queue is closed and empty. Taking never waits."""
        await self._committed.hand_to(self.take)

    def take(self, batches: list[EventBatch]) -> None:
        """Apply batches that follow each other, resolve answers, then call every listener."""
        for batch in batches:
            self.books.apply(batch)
            self.order_books.apply(batch)
            self.tape.apply(batch)
            self.ledger.apply(batch)
            for answer in answers(batch, self.pending):
                self._answer(answer)
        last = batches[-1]
        self.applied_seq = last.first_seq + last.event_count - 1
        self.applied_time_ns = last_time_ns(last)
        if self._waiters:
            self._wake()
        for listener in self._listeners:
            listener()

    def _answer(self, answer: Answer) -> None:
        if answer.kind == Kind.INSTRUMENT_HALTED:
            self._statuses[answer.instrument_id] = Status("halted", answer.text, answer.seq)
            self.status_changes += 1
        elif answer.kind == Kind.INSTRUMENT_RESUMED:
            self._statuses[answer.instrument_id] = Status("trading", answer.text, answer.seq)
            self.status_changes += 1
        waiting = self.pending.pop(answer.request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for seq, waiter in waiters:
            if seq > self.applied_seq:
                self._waiters.append((seq, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    async def reached(self, seq: int) -> None:
        """Wait until the event of this seq is durable and applied here."""
        while self.applied_seq < seq:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((seq, waiter))
            await waiter

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called after each group of events, in the loop: it must be quick and not
        raise. Returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- answers to private commands ---------------------------------------------------------

    def expect(self) -> tuple[int, asyncio.Future[Answer]]:
        """A request id for a private command that is about to be sent, and the future of its
        answer: the command's first event, once it is durable. By then books and ledger know of
        it. Who stops waiting cancels the future and calls `forget`."""
        while True:
            self._request_id = self._request_id % 0xFFFFFFFF + 1
            if self._request_id not in self.pending:
                break
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.pending[self._request_id] = future
        return self._request_id, future

    def forget(self, request_id: int) -> None:
        """Nobody waits for this answer any more."""
        self.pending.pop(request_id, None)

    # -- books -------------------------------------------------------------------------------

    def status(self, instrument_id: int) -> Status:
        """Whether the instrument trades. KeyError: no such instrument."""
        return self._statuses[instrument_id]

    def use_book(self, instrument_id: int) -> Lease:
        """A lease on the instrument's book by price levels (`lease.books` is `market.books`).
        KeyError: no such instrument."""
        return self._shelf.use(self.instruments[instrument_id].id)

    def use_order_book(self, instrument_id: int) -> Lease:
        """A lease on the instrument's book with every order in it (`lease.books` is
        `market.order_books`). KeyError: no such instrument."""
        return self._order_shelf.use(self.instruments[instrument_id].id)

    def _open_book(self, instrument_id: int) -> int:
        seq = self._matcher.next_seq - 1
        self.books.open(instrument_id, *self._matcher.levels(instrument_id, EVERY_LEVEL), seq)
        return seq

    def _open_orders(self, instrument_id: int) -> int:
        seq = self._matcher.next_seq - 1
        self.order_books.open_orders(
            instrument_id, self._matcher.export_orders(instrument_id=instrument_id), seq)
        return seq

    # -- orders of accounts ------------------------------------------------------------------

    async def use_account(self, account_id: int) -> Ledger:
        """The ledger, as soon as it knows this account's orders: from now on it keeps them.

        The first call for an account takes its live orders from the matcher, waits until they are
        durable, and looks their times and fills up in the log; later calls return at once.
        """
        if account_id not in self._activated:
            task = self._activations.get(account_id)
            if task is None:
                task = asyncio.ensure_future(self._activate(account_id))
                self._activations[account_id] = task
            # Who stops waiting must not take the orders from others that wait.
            await asyncio.shield(task)
        return self.ledger

    async def _activate(self, account_id: int) -> None:
        seq = self._matcher.next_seq - 1
        self.ledger.activate(account_id, self._matcher.export_orders(account_id), seq)
        try:
            await self.reached(seq)
            await self.history.complete(self.ledger, account_id, seq)
        except JournalError as error:
            log.get("market").warning("orders are shown without what the log says of them",
                                      account=account_id, reason=str(error))
        finally:
            del self._activations[account_id]
        self._activated.add(account_id)

    async def watch(self, account_id: int) -> Watch:
        """The changes of an account behind `watch.from_seq`, for its one reader.

        In the turn of the loop in which this returns, `ledger.orders(account_id, live=True)` are
        its orders at that seq. Raises ValueError when somebody watches the account already.
        """
        if account_id in self._watched:
            raise ValueError(f"account {account_id} is watched already")
        self._watched.add(account_id)
        try:
            await self.use_account(account_id)
        except BaseException:
            self._watched.discard(account_id)
            raise
        self.ledger.watch(account_id)

        def release() -> None:
            self._watched.discard(account_id)
            self.ledger.unwatch(account_id)

        return Watch(self.ledger, account_id, self.applied_seq, release)

"""What was: the log, asked beside the loop.

Every question runs in a thread, one of a kind at a time: short ones (one block of the log) never
wait for long ones (a state, a walk). The compiled parts let the loop run on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from cython_core.depth import Books
from cython_core.event import EventBatch
from cython_core.ledger import Answer, Ledger, OwnFill, answer_at, answers, own_fills
from cython_core.record import events_before, events_from
from engine.errors import NotKeptError

if TYPE_CHECKING:
    from cython_core.matcher import Matcher

Result = TypeVar("Result")

# Orders that an account was activated with: of so many the time is looked up.
LOOKUPS_MAX = 1_000
# Steps back along a chain of replaced orders.
CHAIN_MAX = 1_000
EMPTY = EventBatch()


class Past(Protocol):
    """The log, as a journal lets threads read it."""

    def oldest_seq(self) -> int:
        """The first seq that is kept."""

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        """Batches of whole commands that have all of from_seq..to_seq. Raises NotKeptError."""

    def state_at(self, seq: int, events_max: int) -> tuple[Matcher, int]:
        """The matcher after the last whole command up to `seq`. Raises NotKeptError."""


class History:
    """Questions to the log. `make_ledger(seq)` and `make_books(seq)` give empty ones that know
    the instruments' names; a walk or a state costs at most `events_max` events."""

    def __init__(self, past: Past, make_ledger: Callable[[int], Ledger],
                 make_books: Callable[[int], Books], events_max: int) -> None:
        self._past = past
        self.make_ledger, self.make_books = make_ledger, make_books
        self._events_max = events_max
        self._scratch: Ledger | None = None
        self._short = ThreadPoolExecutor(1, "history")
        self._long = ThreadPoolExecutor(1, "walks")

    def _words(self) -> Ledger:
        """A ledger for its texts alone."""
        if self._scratch is None:
            self._scratch = self.make_ledger(0)
        return self._scratch

    def close(self) -> None:
        """Take no more questions; what runs ends by itself."""
        self._short.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)

    # -- short questions ---------------------------------------------------------------------

    async def oldest_seq(self) -> int:
        """The first seq that is kept."""
        return await self._soon(self._past.oldest_seq)

    async def answer_of(self, seq: int) -> Answer | None:
        """The answer of the command whose events the committed `seq` is among: what its sender was
        told, or would have been. Together with `Ledger.order_after(answer.events)` it gives the
        same first answer again, also after a restart. None when it is not kept any more."""
        return await self._soon(lambda: self._answer(seq))

    def _answer(self, seq: int) -> Answer | None:
        try:
            for batch in self._past.events(seq, seq):
                return answer_at(batch, seq)
        except NotKeptError:
            pass
        return None

    # -- long questions ----------------------------------------------------------------------

    async def state_at(self, seq: int) -> tuple[Matcher, int]:
        """The matcher after the last whole command up to the committed `seq`, and where that is.
        Raises NotKeptError, JournalError."""
        return await self._later(lambda: self._past.state_at(seq, self._events_max))

    def state_now(self, seq: int) -> tuple[Matcher, int]:
        """The same at once, for who is in a thread already."""
        return self._past.state_at(seq, self._events_max)

    async def find_order(self, account_id: int, order_id: int,
                         applied_seq: int) -> dict[str, Any] | None:
        """An order that the ledger does not keep (any more), with its fills, as the events up to
        `applied_seq` leave it. None when the account has no such order. Raises NotKeptError when
        its events are gone or too many to walk."""
        return await self._later(lambda: self._find(account_id, order_id, applied_seq))

    def _find(self, account_id: int, order_id: int, applied_seq: int) -> dict[str, Any] | None:
        if not 0 < order_id <= applied_seq:
            return None
        answer = self._answer(order_id)
        if answer is None:
            raise NotKeptError(f"the events of order {order_id} are not kept")
        brought = self._words().order_after(answer.events)
        if answer.account_id != account_id or brought is None or brought["order_id"] != order_id:
            return None
        first = min([order_id, *self._earlier(brought)])
        ledger = self.make_ledger(first - 1)
        ledger.activate(account_id, EMPTY, first - 1)
        for batch in self.walk(first, applied_seq):
            ledger.apply(batch)
            handle = ledger.handle(account_id, order_id)
            if handle is not None and not handle["live"]:
                break
        return ledger.order(account_id, order_id)

    def _earlier(self, order: dict[str, Any]) -> list[int]:
        """Ids of the orders that this one, directly or not, replaced; the newest first."""
        found: list[int] = []
        replaces = order.get("replaces")
        while replaces and len(found) < CHAIN_MAX:
            found.append(replaces)
            answer = self._answer(replaces)
            before = self._words().order_after(answer.events) if answer else None
            replaces = before.get("replaces") if before else None
        return found

    def walk(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        """Batches of exactly from_seq..to_seq. Raises NotKeptError when these are too many."""
        if to_seq - from_seq >= self._events_max:
            raise NotKeptError(f"{to_seq - from_seq + 1} events are too many to walk")
        for batch in self._past.events(from_seq, to_seq):
            yield events_before(events_from(batch, from_seq), to_seq + 1)

    async def find_marked(self, key: str, marks: Collection[str], from_seq: int,
                          to_seq: int) -> dict[str, int]:
        """Private commands that were sent with this key and one of these marks, in the committed
        from_seq..to_seq: the seq of each one's first event, by its mark. Raises NotKeptError when
        these are gone or too many to walk."""
        return await self._later(lambda: self._find_marked(key, marks, from_seq, to_seq))

    def _find_marked(self, key: str, marks: Collection[str], from_seq: int,
                     to_seq: int) -> dict[str, int]:
        return {answer.text: answer.seq for batch in self.walk(from_seq, to_seq)
                for answer in answers(batch) if answer.key == key and answer.text in marks}

    # -- what an account was activated with --------------------------------------------------

    async def complete(self, ledger: Ledger, account_id: int, seq: int) -> None:
        """Give the orders that a ledger got from the matcher at the committed `seq` what the
        matcher does not know: when they were accepted, and their fills up to then. As far as the
        log is kept."""
        orders = ledger.incomplete(account_id)
        if orders:
            facts = await self._later(lambda: self._facts(account_id, orders, seq))
            facts.tell(ledger, account_id)

    def complete_now(self, ledger: Ledger, account_id: int, seq: int) -> None:
        """The same at once, for who is in a thread already."""
        orders = ledger.incomplete(account_id)
        if orders:
            self._facts(account_id, orders, seq).tell(ledger, account_id)

    def _facts(self, account_id: int, orders: list[tuple[int, bool]], seq: int) -> Facts:
        beginnings: dict[int, tuple[int, int]] = {}
        live_ids: dict[int, int] = {}
        for order_id, fills_missing in orders[-LOOKUPS_MAX:]:
            answer = self._answer(order_id)
            brought = self._words().order_after(answer.events) if answer else None
            if answer is None or brought is None or brought["order_id"] != order_id:
                continue
            beginnings[order_id] = (answer.time_ns, brought.get("replaces", 0))
            if fills_missing:
                for known in (order_id, *self._earlier(brought)):
                    live_ids[known] = order_id
        fills: list[OwnFill] = []
        try:
            if live_ids:
                for batch in self.walk(min(live_ids), seq):
                    own_fills(batch, account_id, live_ids, fills)
        except NotKeptError:
            # The orders are there all the same, without fills that are so long ago.
            fills = []
        return Facts(beginnings, fills)

    # -- threads -----------------------------------------------------------------------------

    async def _soon(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._short, work)

    async def _later(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._long, work)

    async def steps(self, begin: Callable[[], Iterator[Result]]) -> AsyncIterator[Result]:
        """Run a generator in the thread of long questions, one step after another: others have
        their turns between the steps."""
        iterator = await self._later(begin)
        end = object()
        while True:
            result = await self._later(lambda: next(iterator, end))
            if result is end:
                return
            yield result  # type: ignore[misc]


class Facts(NamedTuple):
    """What the log says of orders: by id when each was accepted and what it replaced; fills."""

    beginnings: dict[int, tuple[int, int]]
    fills: list[OwnFill]

    def tell(self, ledger: Ledger, account_id: int) -> None:
        """Put it into the ledger."""
        for order_id, (time_ns, replaces) in self.beginnings.items():
            ledger.set_beginning(order_id, time_ns, replaces)
        ledger.add_earlier(account_id, self.fills)

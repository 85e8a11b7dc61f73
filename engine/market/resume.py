"""Log-backed resumption: what a reader missed, out of the log, up to where it joins the live feed.

A reader that has everything up to `from_seq` and will get what follows `to_seq` live iterates one
of these: it yields what lies between, in order, without a hole and without a repeat, in lists of
moderate size. `to_seq` must be committed (`market.applied_seq` at some moment). What is yielded
has the same form as what the live reader gets from tape, books and ledger.

A seq that is so long ago that the log does not have it, or that its state would take too long to
make, raises NotKeptError before anything is yielded: the reader needs a fresh snapshot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from cython_core.ledger import Change, Trade, trades_of
from engine.market.history import History

OrderEvent = dict[str, Any]


class Resume:
    """Makes the iterators. They run in the thread of the history's long questions, in steps."""

    def __init__(self, history: History) -> None:
        self._history = history

    def trades(self, instrument_id: int, from_seq: int, to_seq: int) -> AsyncIterator[list[Trade]]:
        """The instrument's trades, as `Tape.take_trades` gives them."""
        def walk() -> Iterator[list[Trade]]:
            for batch in self._history.walk(from_seq + 1, to_seq):
                if found := trades_of(batch, instrument_id, from_seq, to_seq):
                    yield found

        return self._history.steps(walk)

    def order_events(self, instrument_id: int, from_seq: int,
                     to_seq: int) -> AsyncIterator[list[OrderEvent]]:
        """What happened to every order of the instrument, as `Books.take_order_events` gives it;
        `seq` in each says where."""
        def walk() -> Iterator[list[OrderEvent]]:
            matcher, seq = self._history.state_now(from_seq)
            books = self._history.make_books(seq)
            books.open_orders(instrument_id,
                              matcher.export_orders(instrument_id=instrument_id), seq)
            del matcher
            for batch in self._history.walk(seq + 1, to_seq):
                books.apply(batch)
                found = [event for event in books.take_order_events(instrument_id)
                         if int(event["seq"]) > from_seq]
                if found:
                    yield found

        return self._history.steps(walk)

    def changes(self, account_id: int, from_seq: int,
                to_seq: int) -> AsyncIterator[list[Change]]:
        """The account's changes of orders and executions, as `Watch.take` gives them."""
        def walk() -> Iterator[list[Change]]:
            matcher, seq = self._history.state_now(from_seq)
            ledger = self._history.make_ledger(seq)
            ledger.activate(account_id, matcher.export_orders(account_id), seq)
            del matcher
            self._history.complete_now(ledger, account_id, seq)
            ledger.watch(account_id)
            for batch in self._history.walk(seq + 1, to_seq):
                ledger.apply(batch)
                found = [change for change in ledger.take_changes(account_id) or ()
                         if change[0] > from_seq]
                if found:
                    yield found

        return self._history.steps(walk)

"""Books in Redis, each against the book that the log makes at its seq."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from cython_core.depth import Books
from cython_core.event import EventBatch
from cython_core.ledger import last_whole_seq
from cython_core.matcher import Matcher
from cython_core.record import events_before, events_from
from engine.config import RedisConfig
from engine.errors import NotKeptError
from engine.instruments import Instrument
from engine.redis_values import decode
from engine.stores.redis_now import depth_of

# Events that may be replayed for all books together, and those from a snapshot to one of them.
EVENTS_MAX = 20_000_000
JUMP_EVENTS = 1_000_000
# More than there can be prices.
LEVELS_MAX = 2**31


class Past(Protocol):
    """The log, as far as it is needed here."""

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        """Batches of whole commands that have all of from_seq..to_seq. Raises NotKeptError."""

    def state_at(self, seq: int, events_max: int) -> tuple[Matcher, int]:
        """The matcher after the last whole command up to `seq`. Raises NotKeptError."""


class _State:
    """The matcher, at one seq after the other."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._left = EVENTS_MAX
        self.matcher: Matcher | None = None

    def go_to(self, seq: int) -> Matcher:
        """The matcher at `seq`, or at the last whole command before. Raises NotKeptError."""
        at = self.matcher.next_seq - 1 if self.matcher is not None else -1
        if self.matcher is None or seq - at > JUMP_EVENTS:
            limit = min(JUMP_EVENTS, self._left)
            self.matcher, _ = self._past.state_at(seq, limit)
            # What lies between the snapshot and here is not told: it is no more than this.
            self._left -= min(limit, seq)
        elif seq > at:
            if seq - at > self._left:
                raise NotKeptError("it would take too many events")
            self._left -= seq - at
            for batch in self._past.events(at + 1, seq):
                _replay(self.matcher, batch, seq)
        return self.matcher


def _replay(matcher: Matcher, batch: EventBatch, seq: int) -> None:
    whole = last_whole_seq(batch, seq)
    if whole >= matcher.next_seq:
        matcher.replay(events_before(events_from(batch, matcher.next_seq), whole + 1))


def compare_books(past: Past, config: RedisConfig, markets: Mapping[str, Instrument],
                  values: Mapping[str, bytes | None],
                  end_seq: int) -> tuple[list[str], list[str]]:
    """(differences, notes) of the books of all markets. For a thread. Raises JournalError."""
    differences: list[str] = []
    books: list[tuple[int, str, dict[str, Any]]] = []
    absent = [symbol for symbol, value in values.items() if value is None]
    for symbol, value in values.items():
        if value is None:
            continue
        try:
            book = decode(value)
            books.append((int(book["seq"]), symbol, book))
        except (ValueError, KeyError, TypeError) as error:
            differences.append(f"book {symbol}: can't be read: {error}")
    skipped: dict[str, str] = {}
    state = _State(past)
    for seq, symbol, book in sorted(books, key=lambda one: one[:2]):
        if seq > end_seq:
            differences.append(f"book {symbol}: of seq {seq}, the log ends at {end_seq}")
            continue
        try:
            matcher = state.go_to(seq)
        except NotKeptError as error:
            skipped[symbol] = str(error)
            continue
        differences += _compare(matcher, markets[symbol], depth_of(config, symbol), seq, book)
    notes = []
    if absent and config.expire_s:
        notes.append(f"{len(absent)} books are not there, as they expire (redis.expire_s)")
    elif absent:
        differences += [f"book {symbol}: missing" for symbol in absent]
    if skipped:
        symbol, reason = next(iter(skipped.items()))
        notes.append(f"{len(skipped)} books are too old to be compared; {symbol}: {reason}")
    return differences, notes


def _compare(matcher: Matcher, one: Instrument, depth: int, seq: int,
             book: dict[str, Any]) -> list[str]:
    name = f"book {one.symbol} at {seq}"
    if matcher.next_seq - 1 != seq:
        return [f"{name}: not behind a whole command"]
    books = Books(seq)
    books.define(one.id, one.price_decimals, one.quantity_decimals, one.lot_size, one.tick_units)
    if one.id in matcher.instruments():
        books.open(one.id, *matcher.levels(one.id, LEVELS_MAX), seq)
    else:
        books.open(one.id, [], [], seq)
    bids, asks = books.rows(one.id, depth)
    want = {"channel": "book", "symbol": one.symbol, "time": matcher.last_time_ns, "bids": bids,
            "asks": asks, "crc": books.crc(one.id)}
    return [f"{name}: {field} is {book.get(field)!r}, should be {value!r}"
            for field, value in want.items() if book.get(field) != value]

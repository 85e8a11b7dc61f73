"""A LOBSTER recording as commands that any price-time engine can be given.

A recording is two files of the same length: messages, and the ten best levels (or another number)
after each. What the window does not show is not known, so the book is kept exactly as wide as
the window: levels that leave it are cancelled, levels that come into view are posted as seeds.
A message about an order that is not in the book means a share of a seed at its price.

An execution becomes an IOC order of the other side. It must fill the order that the recording
names; where that order is not the next to trade (a handful of rows in a day, out of price-time
order on the exchange too), the shares are taken off by a cancel instead.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from engine.clients.replay.commands import (
    SEED_PREFIX,
    BookRow,
    Check,
    Command,
    Delete,
    End,
    Hit,
    Level,
    New,
    Nothing,
    Reduce,
    ReplayError,
    Step,
    Sync,
    read_lines,
)

NEW_ORDER, PARTIAL_CANCEL, DELETION, EXECUTION = 1, 2, 3, 4
COLUMNS_PER_LEVEL = 4


class Message(NamedTuple):
    """One row of a message file. `side` is that of the resting order."""

    time_ns: int
    kind: int
    order: str
    quantity_lots: int
    price_units: int
    side: str


def read_messages(path: Path) -> Iterator[Message]:
    """Yield the rows of a message file. Raises ReplayError, with file and line."""
    for number, fields in read_lines(path):
        try:
            time, kind, order, quantity, price, direction = fields
            yield Message(parse_time_ns(time), int(kind), order, int(quantity), int(price),
                          "B" if int(direction) == 1 else "S")
        except ValueError as error:
            raise ReplayError(f"{path}:{number}: not a LOBSTER message row: {error}") from error


def read_book_rows(path: Path) -> Iterator[BookRow]:
    """Yield the rows of an order book file. Raises ReplayError, with file and line."""
    for number, fields in read_lines(path):
        try:
            yield parse_book_row(fields)
        except ValueError as error:
            raise ReplayError(f"{path}:{number}: not a LOBSTER book row: {error}") from error


def parse_time_ns(text: str) -> int:
    """Seconds with up to nine decimals as nanoseconds, exactly."""
    seconds, _, decimals = text.partition(".")
    if len(decimals) > 9:
        raise ValueError(f"time {text!r} has more than nine decimals")
    return int(seconds) * 1_000_000_000 + int(decimals.ljust(9, "0"))


def parse_book_row(fields: list[str]) -> BookRow:
    """One row's fields; levels of quantity 0 fill an empty place and are left out."""
    if len(fields) % COLUMNS_PER_LEVEL:
        raise ValueError(f"{len(fields)} columns are not whole levels")
    values = list(map(int, fields))
    asks = [level for level in zip(values[0::4], values[1::4], strict=True) if level[1]]
    bids = [level for level in zip(values[2::4], values[3::4], strict=True) if level[1]]
    return BookRow(asks, bids)


def derive(messages: Path, book: Path) -> Iterator[Step]:
    """Yield the steps of a recording, one per row. Raises ReplayError."""
    window = Window()
    rows = zip_longest(read_messages(messages), read_book_rows(book))
    for number, (message, row) in enumerate(rows, 1):
        if message is None or row is None:
            raise ReplayError(f"{messages} and {book} do not have the same number of rows")
        if number == 1:
            commands = window.match(row)
        else:
            try:
                commands = window.apply(message)
            except ValueError as error:
                raise ReplayError(f"{messages}:{number}: {error}") from error
            commands.append(Check(number, *window.agreement(row)))
            edge = window.match(row)
            if edge:
                commands += [Sync(), *edge]
        commands.append(End(number))
        yield Step(message.time_ns, commands, row)


class _Side:
    """One side of the window: orders by price, oldest first, and the prices in order."""

    def __init__(self, letter: str) -> None:
        self.letter = letter
        # Prices times this sign ascend from the best.
        self._sign = -1 if letter == "B" else 1
        self._keys: list[int] = []
        self._orders: dict[int, dict[str, int]] = {}
        self._quantity: dict[int, int] = {}

    def levels(self) -> list[Level]:
        return [(key * self._sign, self._quantity[key]) for key in self._keys]

    def orders_at(self, price: int) -> dict[str, int]:
        return self._orders.get(price * self._sign, {})

    def is_best(self, price: int) -> bool:
        return self._keys[0] == price * self._sign

    def add(self, order: str, price: int, quantity: int) -> None:
        key = price * self._sign
        if key not in self._orders:
            insort(self._keys, key)
            self._orders[key], self._quantity[key] = {}, 0
        self._orders[key][order] = quantity
        self._quantity[key] += quantity

    def take(self, order: str, price: int, quantity: int) -> int:
        """Take shares off an order; returns what is left of it."""
        key = price * self._sign
        orders = self._orders[key]
        orders[order] -= quantity
        self._quantity[key] -= quantity
        left = orders[order]
        if not left:
            del orders[order]
        if not orders:
            del self._orders[key], self._quantity[key]
            del self._keys[bisect_left(self._keys, key)]
        return left


class Window:
    """The book as far as the recording shows it, and the commands that keep it so."""

    def __init__(self) -> None:
        self._sides = {"S": _Side("S"), "B": _Side("B")}
        self._prices: dict[str, int] = {}
        self._seeds = 0

    def apply(self, message: Message) -> list[Command]:
        """The commands for one message; the book row after it is not looked at."""
        if message.kind == NEW_ORDER:
            return [self._post(message.order, message.side, message.price_units,
                               message.quantity_lots)]
        if message.kind in (PARTIAL_CANCEL, DELETION, EXECUTION):
            order = self._find(message)
            if order is not None:
                return [self._reduce_or_hit(message, order)]
        return [Nothing(message.kind)]

    def agreement(self, row: BookRow) -> tuple[int, int]:
        """How many of the best ask and bid levels are those of the row, before the edge is."""
        return (_leading_equal(self._sides["S"].levels(), row.asks),
                _leading_equal(self._sides["B"].levels(), row.bids))

    def match(self, row: BookRow) -> list[Command]:
        """The commands that make the book equal the row, every level. Often none."""
        return self._match_side("S", row.asks) + self._match_side("B", row.bids)

    def _find(self, message: Message) -> str | None:
        if self._prices.get(message.order) == message.price_units:
            return message.order
        orders = self._sides[message.side].orders_at(message.price_units)
        return next((order for order in orders if order.startswith(SEED_PREFIX)), None)

    def _reduce_or_hit(self, message: Message, order: str) -> Command:
        side = self._sides[message.side]
        price = message.price_units
        orders = side.orders_at(price)
        quantity = min(message.quantity_lots, orders[order])
        if (message.kind == EXECUTION and side.is_best(price) and next(iter(orders)) == order):
            self._take(side, order, price, quantity)
            return Hit("S" if side.letter == "B" else "B", price, quantity, order)
        return self._cancel(side, order, price, quantity)

    def _post(self, order: str, side: str, price: int, quantity: int) -> New:
        if order in self._prices:
            raise ValueError(f"order {order} is entered twice")
        self._sides[side].add(order, price, quantity)
        self._prices[order] = price
        return New(order, side, price, quantity)

    def _seed(self, side: str, price: int, quantity: int) -> New:
        self._seeds += 1
        return self._post(f"{SEED_PREFIX}{self._seeds}", side, price, quantity)

    def _cancel(self, side: _Side, order: str, price: int, quantity: int) -> Command:
        if self._take(side, order, price, quantity):
            return Reduce(order, quantity)
        return Delete(order)

    def _take(self, side: _Side, order: str, price: int, quantity: int) -> int:
        left = side.take(order, price, quantity)
        if not left:
            del self._prices[order]
        return left

    def _match_side(self, letter: str, wanted: list[Level]) -> list[Command]:
        side = self._sides[letter]
        have = side.levels()
        if have == wanted:
            return []
        commands: list[Command] = []
        targets = dict(wanted)
        for price, quantity in have:
            commands += self._trim(side, price, quantity - targets.get(price, 0))
        known = dict(have)
        for price, quantity in wanted:
            if quantity > known.get(price, 0):
                commands.append(self._seed(letter, price, quantity - known.get(price, 0)))
        return commands

    def _trim(self, side: _Side, price: int, excess: int) -> Iterator[Command]:
        """Cancel `excess` shares of a level; a level that stays loses its newest first."""
        whole = excess == sum(side.orders_at(price).values())
        orders = list(side.orders_at(price).items())
        for order, quantity in orders if whole else reversed(orders):
            if excess <= 0:
                return
            cut = min(quantity, excess)
            excess -= cut
            yield self._cancel(side, order, price, cut)


def _leading_equal(have: list[Level], wanted: list[Level]) -> int:
    if have[:len(wanted)] == wanted[:len(have)]:
        return min(len(have), len(wanted))
    pairs = zip(have, wanted, strict=False)
    return next(index for index, (mine, theirs) in enumerate(pairs) if mine != theirs)

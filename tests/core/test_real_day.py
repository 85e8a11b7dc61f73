"""A whole recorded NASDAQ day straight through the matcher, checked against its order book file.

The data is not part of the project: MATCHD_TEST_DATA names the folder that has it. Its README
says what the lines mean.
"""

import lzma
import os
from pathlib import Path

import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher

DATA = os.environ.get("MATCHD_TEST_DATA")
FOLDER = Path(DATA or ".") / "lobster"
COMMANDS = FOLDER / "GOOG_10.commands.csv.xz"
BOOKS = FOLDER / "GOOG_2012-06-21_34200000_57600000_orderbook_10.csv.xz"
INSTRUMENT, MAKER, TAKER = 7, 1, 2
LEVELS = 10

pytestmark = [
    pytest.mark.skipif(not DATA, reason="MATCHD_TEST_DATA names no folder with recorded days"),
    pytest.mark.skipif(bool(DATA) and not COMMANDS.exists(), reason=f"{COMMANDS} is not there"),
]


class Day:
    """The matcher, the batch that is being filled, and what each recorded order became."""

    def __init__(self):
        self.matcher = Matcher()
        self.commands = CommandBatch()
        self.events = EventBatch()
        self.numbers = {}
        self.intended_lots = {}
        self.taker_number = 0
        self.commands.define_instrument(INSTRUMENT, "GOOG", "GOOG", 4, 100, 0)
        self.commands.define_account(MAKER, "MAKER")
        self.commands.define_account(TAKER, "TAKER")
        self.flush(3)

    def flush(self, event_count):
        """Apply what is waiting; no command may cause more or fewer events than foreseen."""
        self.matcher.apply(self.commands, self.events, 0)
        assert self.events.event_count == event_count
        self.commands.clear()
        self.commands.generation = 1
        self.events.clear()

    def new(self, order_id, side, price_units, quantity_lots):
        number = len(self.numbers) + 1
        self.numbers[order_id] = number
        self.intended_lots[order_id] = quantity_lots
        self.commands.enter(MAKER, number, INSTRUMENT, side, quantity_lots, price_units)

    def reduce(self, order_id, quantity_lots):
        self.intended_lots[order_id] -= quantity_lots
        self.commands.cancel(MAKER, self.numbers[order_id], self.intended_lots[order_id])

    def delete(self, order_id):
        self.commands.cancel(MAKER, self.numbers[order_id], 0)

    def hit(self, side, price_units, quantity_lots, maker_id):
        """An IOC must be accepted and fill its whole quantity with the named order."""
        self.taker_number += 1
        self.commands.enter(TAKER, self.taker_number, INSTRUMENT, side, quantity_lots,
                            price_units, "3")
        self.matcher.apply(self.commands, self.events, 0)
        accepted, fill = self.events.dicts()
        assert accepted["kind"] == "accepted"
        assert (fill["kind"], fill["maker_account_id"], fill["maker_user_ref_num"]) == (
            "fill", MAKER, self.numbers[maker_id])
        assert (fill["quantity_lots"], fill["price_units"]) == (quantity_lots, price_units)
        self.commands.clear()
        self.events.clear()

    def book(self):
        """Price and lots of the levels, best first, of asks and bids; one more than is shown."""
        bids, asks = self.matcher.levels(INSTRUMENT, LEVELS + 1)
        return [level[:2] for level in asks], [level[:2] for level in bids]


def read_books():
    """Asks and bids of every row, levels that the recording leaves empty not counted."""
    with lzma.open(BOOKS, "rt") as lines:
        for line in lines:
            numbers = [int(number) for number in line.split(",")]
            asks = list(zip(numbers[0::4], numbers[1::4], strict=True))
            bids = list(zip(numbers[2::4], numbers[3::4], strict=True))
            yield [level for level in asks if level[1]], [level for level in bids if level[1]]


def play(day, lines, books):
    """Run every line; returns how many lines of each kind there were."""
    counts = {}
    waiting = 0
    for line in lines:
        kind, *fields = line.rstrip().split(",")
        counts[kind] = counts.get(kind, 0) + 1
        if kind in ("NEW", "RED", "DEL"):
            waiting += 1
            send(day, kind, fields)
            continue
        if waiting:
            day.flush(waiting)
            waiting = 0
        if kind == "HIT":
            day.hit(fields[0], int(fields[1]), int(fields[2]), fields[3])
        elif kind in ("CHK", "END"):
            check(day, books[int(fields[0]) - 1], fields[1:])
        else:
            assert kind in ("SYN", "NOP")
    return counts


def send(day, kind, fields):
    if kind == "NEW":
        day.new(fields[0], fields[1], int(fields[2]), int(fields[3]))
    elif kind == "RED":
        day.reduce(fields[0], int(fields[1]))
    else:
        day.delete(fields[0])


def check(day, expected, depths):
    """The best levels (CHK names how many) or the whole book (END) is that of the recording."""
    asks, bids = day.book()
    if depths:
        asks, bids = asks[:int(depths[0])], bids[:int(depths[1])]
        expected = expected[0][:int(depths[0])], expected[1][:int(depths[1])]
    assert ([*map(tuple, asks)], [*map(tuple, bids)]) == (expected[0], expected[1])


def test_every_line_of_a_real_day_comes_true():
    day = Day()
    with lzma.open(COMMANDS, "rt") as lines:
        counts = play(day, lines, list(read_books()))
    assert (counts["HIT"], counts["CHK"], counts["END"]) == (7_759, 147_915, 147_916)
    day.matcher.check_invariants()

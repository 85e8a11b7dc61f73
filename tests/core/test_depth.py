"""Books rebuilt from events alone are those of the matcher, wherever they were opened."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_core.depth import Books, DepthView, decimal_text
from cython_core.errors import CoreError
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from engine.instruments import unscaled
from tests.core.flow import INSTRUMENTS, Flow, definitions
from tests.oracle.random_flow import TICKS, RandomFlow
from tests.oracle.venue_pair import VenuePair

EVERY = 1_000_000
DEPTHS = (1, 5, 10, 0)


def make_events(matcher, commands, time_ns):
    events = EventBatch()
    matcher.apply(commands, events, time_ns)
    return events


class Recorded:
    """A flow that was run, with what every book was after each of its batches."""

    def __init__(self, seed, batches, size=40):
        self.matcher = Matcher()
        self.events = []
        self.pictures = {0: ({}, {})}
        self.exports = {}
        flow = Flow(seed)
        for number in range(batches):
            batch = definitions() if number == 0 else flow.batch(flow.random.randint(1, size))
            events = make_events(self.matcher, batch, 1_000 * number)
            if events.event_count:
                self.events.append(events)
            self.keep()

    def keep(self):
        seq = self.matcher.next_seq - 1
        levels = {one: self.matcher.levels(one, EVERY) for one in INSTRUMENTS}
        orders = {one: self.matcher.orders(one) for one in INSTRUMENTS}
        self.pictures[seq] = (levels, orders)
        self.exports[seq] = EventBatch.from_bytes(bytes(self.matcher.export_orders()), 0)

    def levels(self, seq, instrument):
        return self.pictures[seq][0].get(instrument, ([], []))

    def orders(self, seq, instrument):
        return self.pictures[seq][1].get(instrument, [])


def plain(books, instrument):
    return tuple([*map(tuple, side)] for side in books.levels(instrument))


def order_rows(orders, side_is_buy):
    return [[unscaled(one["price_units"], 2), one["order_id"], str(one["quantity_lots"])]
            for one in orders if (one["side"] == "B") == side_is_buy]


class NaiveReader:
    """What a client of L3 knows: it applies the events of orders one by one."""

    def __init__(self, rows):
        self.sides = {name: [list(row) for row in side]
                      for name, side in zip(("buy", "sell"), rows, strict=True)}

    def apply(self, events):
        for event in events:
            side = self.sides[event["side"]]
            if event["e"] == "add":
                sign = 1 if event["side"] == "sell" else -1
                place = sum(float(row[0]) * sign <= float(event["price"]) * sign for row in side)
                side.insert(place, [event["price"], event["order_id"], event["quantity"]])
                assert event["quantity"] == event["remaining"]
                continue
            place, = (place for place, row in enumerate(side) if row[1] == event["order_id"])
            row = side[place]
            assert row[0] == event["price"]
            assert int(row[2]) - int(event["quantity"]) == int(event["remaining"])
            row[2] = event["remaining"]
            assert (event["remaining"] == "0") or event["e"] in ("reduce", "fill")
            if event["remaining"] == "0":
                assert event["e"] in ("remove", "fill")
                del side[place]


def crc_of(levels):
    bids, asks = levels
    text = ",".join(f"{price}:{lots}" for price, lots, _ in [*asks[:10], *bids[:10]])
    return zlib.crc32(text.encode())


def apply_rows(told, changes):
    """A naive client: price to row, by side; returns what it holds, best first."""
    for side, rows in zip(told, changes, strict=True):
        prices = [row[0] for row in rows]
        assert len(set(prices)) == len(prices)
        for price, quantity, orders in rows:
            if quantity == "0":
                del side[price]
            else:
                assert side.get(price) != [price, quantity, orders], "told without a change"
                side[price] = [price, quantity, orders]
    return tuple(sorted(side.values(), key=lambda row: float(row[0]), reverse=number == 0)
                 for number, side in enumerate(told))


def as_rows(levels, depth):
    return tuple([[unscaled(price, 2), str(lots), orders]
                  for price, lots, orders in side[:depth or None]] for side in levels)


def opened(depth=0):
    """An open, empty book of instrument 1 with 2 price and 6 quantity decimals."""
    books = Books()
    books.define(1, 2, 6, 1)
    books.open(1, [], [], 0)
    return books


@pytest.mark.parametrize("seed", range(6))
def test_levels_and_orders_follow_the_events(seed):
    record = Recorded(seed, 300)
    books = Books()
    for instrument in INSTRUMENTS:
        books.define(instrument, 2, 0, 1)
        books.open_orders(instrument, EventBatch(), 0)
    readers = {one: NaiveReader(books.orders(one)) for one in INSTRUMENTS}
    for events in record.events:
        books.apply(events)
        books.check()
        seq = books.applied_seq
        assert seq == events.first_seq + events.event_count - 1
        for instrument in INSTRUMENTS:
            assert plain(books, instrument) == record.levels(seq, instrument)
            expected = tuple(order_rows(record.orders(seq, instrument), buy)
                             for buy in (True, False))
            assert books.orders(instrument) == expected
            told = books.take_order_events(instrument)
            assert [one["seq"] for one in told] == sorted(one["seq"] for one in told)
            assert all(events.first_seq <= one["seq"] <= seq for one in told)
            readers[instrument].apply(told)
            assert (readers[instrument].sides["buy"], readers[instrument].sides["sell"]) \
                == expected


@pytest.mark.parametrize("seed", range(6))
def test_books_opened_ahead_of_what_was_applied(seed):
    """The matcher runs ahead: a book starts at its seq, and waits for the events behind it."""
    record = Recorded(100 + seed, 250)
    draw = random.Random(seed)
    books = Books()
    ends = [0] + [one.first_seq + one.event_count - 1 for one in record.events]
    checked = 0
    for place, events in enumerate(record.events):
        for instrument in INSTRUMENTS:
            ahead = draw.choice(ends[place:place + 8])
            chance = draw.random()
            if chance < 0.03:
                books.open(instrument, *record.levels(ahead, instrument), ahead)
            elif chance < 0.06:
                books.open_orders(instrument, record.exports.get(ahead, EventBatch()), ahead)
            elif chance < 0.07:
                books.close(instrument)
            elif chance < 0.08:
                books.close_orders(instrument)
        books.apply(events)
        seq = books.applied_seq
        for instrument in INSTRUMENTS:
            if books.ready(instrument):
                assert plain(books, instrument) == record.levels(seq, instrument)
                checked += 1
            if books.orders_ready(instrument):
                assert books.orders(instrument) == tuple(
                    [row[:1] + row[1:] for row in side] for side in (
                        [[str(one["price_units"]), one["order_id"], str(one["quantity_lots"])]
                         for one in record.orders(seq, instrument)
                         if (one["side"] == "B") == buy] for buy in (True, False)))
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("seed", range(3))
def test_oracle_flow_with_sparse_prices(seed):
    """Ticks from 1 to 100, prices scattered over millions: window, tree and grid all move.
    Orders without a stream, halts and rolls are in it too."""
    pair = VenuePair()
    flow = RandomFlow(seed, pair)
    flow.define()
    flow.run(3_000)
    books = Books()
    for instrument in TICKS:
        books.open_orders(instrument, EventBatch(), 0)
    for events in pair.log:
        books.apply(events)
        books.check()
    for instrument in TICKS:
        assert plain(books, instrument) == pair.oracle.levels(instrument)
        assert books.orders(instrument) == tuple(
            [[str(one.price_units), one.order_id, str(one.open_lots)] for one in side]
            for side in pair.oracle.orders(instrument))


@pytest.mark.parametrize("seed", range(3))
def test_what_views_tell_adds_up_to_the_book(seed):
    record = Recorded(200 + seed, 250, size=12)
    books = Books()
    for instrument in INSTRUMENTS:
        books.define(instrument, 2, 0, 1)
        books.open(instrument, [], [], 0)
    views = {(one, depth): DepthView(books, one, depth) for one in INSTRUMENTS for depth in DEPTHS}
    told = {key: ({}, {}) for key in views}
    draw = random.Random(seed)
    for events in record.events:
        books.apply(events)
        for (instrument, depth), view in views.items():
            if draw.random() < 0.3:
                continue
            levels = record.levels(books.applied_seq, instrument)
            before = view.rows()
            assert before == apply_rows(told[instrument, depth], ([], []))
            seen = apply_rows(told[instrument, depth], view.changes())
            assert seen == as_rows(levels, depth) == view.rows()
            assert books.rows(instrument, depth) == as_rows(levels, depth)
            assert view.changes() == ([], [])
            assert books.crc(instrument) == crc_of(levels)
            best = [side[0][:2] if side else (0, 0) for side in levels]
            assert books.bbo(instrument) == (*best[0], *best[1])


def test_crc_of_the_example():
    books = Books()
    books.define(1, 2, 6, 1)
    books.open(1, [(6_000_000, 100_000, 1)], [(6_001_000, 500_000, 3)], 0)
    assert books.crc(1) == 0x17B48B4A == 397_708_106
    assert books.rows(1) == ([["60000.00", "0.100000", 1]], [["60010.00", "0.500000", 3]])


def test_crc_of_an_empty_book_and_of_wide_numbers():
    books = opened()
    assert books.crc(1) == zlib.crc32(b"")
    bids = [(1_999_999_999 - one, 2**64 - 1 - one, 7) for one in range(12)]
    books.open(1, bids, [], 0)
    assert books.crc(1) == crc_of((bids, []))


def test_touched_names_each_changed_book_once():
    record = Recorded(5, 60)
    books = Books()
    books.open(1, [], [], 0)
    books.open(300, [], [], 0)
    assert books.touched() == [1, 300]
    before = {one: plain(books, one) for one in (1, 300)}
    for events in record.events:
        books.apply(events)
        touched = books.touched()
        assert len(set(touched)) == len(touched)
        for instrument in (1, 300):
            now = plain(books, instrument)
            assert now == before[instrument] or instrument in touched
            before[instrument] = now
        assert 2 not in touched
    assert books.touched() == []


def test_a_gap_is_refused_and_what_is_known_left_out():
    record = Recorded(7, 40)
    whole = EventBatch.from_bytes(b"".join(bytes(one) for one in record.events), 1)
    books = opened()
    with pytest.raises(CoreError, match="the books are at 0"):
        books.apply(record.events[1])
    for events in record.events[:20]:
        books.apply(events)
    books.apply(record.events[3])
    books.apply(whole)
    assert books.applied_seq == record.matcher.next_seq - 1
    assert plain(books, 1) == record.levels(books.applied_seq, 1)


def test_events_that_do_not_fit_are_refused():
    matcher = Matcher()
    make_events(matcher, definitions(), 1)
    first = make_events(matcher, entered(7, 1, "B", 10, 1000), 2)
    batch = CommandBatch()
    batch.cancel(7, 1)
    canceled = make_events(matcher, batch, 3)
    for begin in ("open", "open_orders"):
        books = Books(first.first_seq)
        getattr(books, begin)(1, *(([], []) if begin == "open" else (EventBatch(),)),
                              first.first_seq)
        with pytest.raises(CoreError, match=f"event {canceled.first_seq} does not fit"):
            books.apply(canceled)


def entered(account, number, side, lots, price, time_in_force="0", post_only=False):
    batch = CommandBatch()
    batch.enter(account, number, 1, side, lots, price, time_in_force, post_only=post_only)
    return batch


def test_seeds_that_can_not_be():
    books = Books(10)
    with pytest.raises(ValueError, match="older than what was applied"):
        books.open(1, [], [], 9)
    for level in ((0, 1, 1), (2_000_000_000, 1, 1), (5, 0, 1), (5, 1, 0)):
        with pytest.raises(ValueError, match="no level"):
            books.open(1, [level], [], 10)
        assert not books.is_open(1)
    with pytest.raises(ValueError, match="no level"):
        books.open(1, [(5, 1, 1), (5, 1, 1)], [], 10)
    for ask in ("levels", "rows", "crc", "bbo", "orders", "take_order_events"):
        with pytest.raises(KeyError):
            getattr(books, ask)(1)
    with pytest.raises(KeyError):
        DepthView(books, 1, 5)
    books.open(1, [], [], 10)
    with pytest.raises(KeyError, match="orders"):
        books.orders(1)
    with pytest.raises(ValueError, match="decimals"):
        books.define(1, 21, 0, 1)


def test_a_level_that_leaves_the_best_is_removed_and_comes_back():
    matcher = Matcher()
    books = opened()
    view = DepthView(books, 1, 2)
    books.apply(make_events(matcher, definitions(), 0))
    for number, price in enumerate((1000, 1005, 1010), 1):
        books.apply(make_events(matcher, entered(7, number, "B", 3, price), number))
    assert view.changes()[0] == [["10.10", "0.000003", 1], ["10.05", "0.000003", 1]]
    books.apply(make_events(matcher, entered(7, 4, "B", 4, 1015), 9))
    assert view.changes()[0] == [["10.15", "0.000004", 1], ["10.05", "0", 0]]
    batch = CommandBatch()
    batch.cancel(7, 3)
    books.apply(make_events(matcher, batch, 10))
    assert view.changes() == ([["10.10", "0", 0], ["10.05", "0.000003", 1]], [])


def test_a_view_survives_a_book_that_is_opened_again():
    books = opened()
    view = DepthView(books, 1, 0)
    books.open(1, [(100, 5, 1)], [(105, 1, 1)], 4)
    assert view.changes() == ([["1.00", "0.000005", 1]], [["1.05", "0.000001", 1]])
    books.open(1, [(7, 5, 1)], [(105, 1, 1)], 4)
    assert view.changes() == ([["1.00", "0", 0], ["0.07", "0.000005", 1]], [])
    books.close(1)
    with pytest.raises(KeyError):
        view.changes()
    books.open(1, [], [], 4)
    assert view.changes() == ([["0.07", "0", 0]], [["1.05", "0", 0]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1_999_999_999), st.integers(1, 2**64 - 1),
                          st.integers(1, 2**32 - 1)), max_size=40, unique_by=lambda one: one[0]),
       st.integers(0, 12), st.integers(0, 12), st.integers(1, 10**12))
def test_any_levels_any_decimals(levels, price_decimals, quantity_decimals, lot_size):
    """The grid of prices is found by itself, texts are exact."""
    levels.sort()
    half = len(levels) // 2
    bids, asks = levels[:half][::-1], levels[half:]
    books = Books()
    books.define(9, price_decimals, quantity_decimals, lot_size)
    books.open(9, bids, asks, 0)
    books.check()
    assert plain(books, 9) == (bids, asks)
    assert books.rows(9) == tuple(
        [[unscaled(price, price_decimals), unscaled(lots * lot_size, quantity_decimals), orders]
         for price, lots, orders in side] for side in (bids, asks))
    assert books.crc(9) == crc_of((bids, asks))
    assert DepthView(books, 9, 3).rows() == books.rows(9, 3)


@given(st.integers(-2**200, 2**200), st.integers(0, 20))
def test_decimal_text(value, decimals):
    assert decimal_text(value, decimals) == unscaled(value, decimals)

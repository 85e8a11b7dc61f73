"""A subscriber's copies, fed with what the core's books tell, are those books."""

import random

import pytest

from cython_core.depth import Books, DepthView
from cython_core.event import EventBatch
from cython_core.matcher import Matcher
from engine.clients import BookMismatchError, LocalBook, LocalOrders
from tests.core.flow import INSTRUMENTS, Flow, definitions

DEPTHS = (None, 1, 5, 10, 30)


def flow_of(seed, batches):
    matcher, flow = Matcher(), Flow(seed)
    for number in range(batches):
        events = EventBatch()
        commands = definitions() if number == 0 else flow.batch(flow.random.randint(1, 15))
        matcher.apply(commands, events, number)
        if events.event_count:
            yield events


def message(kind, seq, **fields):
    return {"type": kind, "seq": seq, "time": 7, **fields}


def snapshot(books, view, instrument):
    bids, asks = view.rows()
    return message("snapshot", books.applied_seq, bids=bids, asks=asks, crc=books.crc(instrument))


def delta(books, view, instrument):
    bids, asks = view.changes()
    return message("delta", books.applied_seq, bids=bids, asks=asks, crc=books.crc(instrument))


def open_books():
    books = Books()
    for instrument in INSTRUMENTS:
        books.define(instrument, 2, 0, 5)
        books.open_orders(instrument, EventBatch(), 0)
    return books


@pytest.mark.parametrize("seed", range(3))
def test_local_books_follow_snapshots_and_deltas(seed):
    books, draw = open_books(), random.Random(seed)
    copies = {}
    for events in flow_of(seed, 300):
        books.apply(events)
        for instrument in INSTRUMENTS:
            for depth in DEPTHS:
                if (instrument, depth) not in copies or draw.random() < 0.01:
                    view = DepthView(books, instrument, depth or 0)
                    local = LocalBook("X", depth, 5)
                    local.apply(snapshot(books, view, instrument))
                    copies[instrument, depth] = view, local
                elif draw.random() < 0.7:
                    view, local = copies[instrument, depth]
                    local.apply(delta(books, view, instrument))
                else:
                    continue
                bids, asks = books.rows(instrument, depth or 0)
                assert (local.bids, local.asks) == (bids, asks)
                assert local.best_bid == (bids[0] if bids else None)
                assert local.best_ask == (asks[0] if asks else None)
                assert local.seq == books.applied_seq and local.ready
    assert all((local.checked > 0) == (depth is None or depth >= 10)
               for (_, depth), (_, local) in copies.items())


def test_a_wrong_level_is_found_by_the_checksum():
    books = open_books()
    view = DepthView(books, 1, 0)
    local = LocalBook("X", None, 5)
    found = 0
    for number, events in enumerate(flow_of(9, 400)):
        books.apply(events)
        fits = delta(books, view, 1)
        if not local.ready:
            assert local.lost == (number > 0)
            local.apply(fits)
            assert not local.ready, "a delta puts nothing right"
            local.apply(snapshot(books, view, 1))
        if number % 20 == 19 and (fits["bids"] or fits["asks"]):
            row = (fits["bids"] or fits["asks"])[0]
            row[1] = str(int(row[1]) + 5)
            try:
                local.apply(fits)
            except BookMismatchError:
                found += 1
                assert local.lost and not local.ready
            else:
                local.apply(snapshot(books, view, 1))
        else:
            local.apply(fits)
            assert local.bids == books.rows(1)[0]
    assert found > 3


def test_without_the_lot_nothing_is_checked():
    local = LocalBook("X")
    local.apply(message("snapshot", 1, bids=[["1.00", "5", 1]], asks=[], crc=1))
    assert local.ready and local.checked == 0


def test_a_reset_empties_until_the_snapshot():
    local, orders = LocalBook("X"), LocalOrders("X")
    for copy, row in ((local, ["1.00", "5", 1]), (orders, ["1.00", 5, "5"])):
        copy.apply(message("snapshot", 1, bids=[row], asks=[], crc=1))
        assert copy.bids == [row]
        copy.apply(message("reset", 1, reason="gone"))
        assert (copy.ready, copy.bids, copy.lost) == (False, [], False)
        copy.apply(message("delta", 2, bids=[row], asks=[], crc=1, events=[]))
        assert (copy.ready, copy.bids) == (False, [])


@pytest.mark.parametrize("seed", range(3))
def test_local_orders_follow_snapshots_and_events(seed):
    books = open_books()
    copies = {one: LocalOrders("X") for one in INSTRUMENTS}
    for one, local in copies.items():
        bids, asks = books.orders(one)
        local.apply(message("snapshot", 0, bids=bids, asks=asks))
    for events in flow_of(50 + seed, 250):
        books.apply(events)
        for one, local in copies.items():
            local.apply(message("delta", books.applied_seq, events=books.take_order_events(one)))
            assert (local.bids, local.asks) == books.orders(one)


@pytest.mark.parametrize("event", [
    {"e": "fill", "order_id": 9, "side": "buy", "price": "1.00", "quantity": "1",
     "remaining": "0"},
    {"e": "fill", "order_id": 5, "side": "buy", "price": "1.00", "quantity": "1",
     "remaining": "0"},
    {"e": "remove", "order_id": 5, "side": "buy", "price": "1.01", "quantity": "5",
     "remaining": "0"},
    {"e": "reduce", "order_id": 5, "side": "sell", "price": "1.00", "quantity": "1",
     "remaining": "4"},
])
def test_an_event_that_does_not_fit_its_order_is_found(event):
    local = LocalOrders("X")
    local.apply(message("snapshot", 1, bids=[["1.00", 5, "5"]], asks=[]))
    with pytest.raises(BookMismatchError):
        local.apply(message("delta", 2, events=[event]))
    assert local.lost and not local.ready

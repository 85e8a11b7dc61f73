"""The ledger against a slow model over random flow, activated at any seq while the matcher is
ahead; its bounds; answers and first answers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.ledger import Ledger, answer_at, answers, last_whole_seq, trades_of
from cython_core.matcher import Matcher
from cython_core.model import Kind, Source
from engine.journal.past import MemoryPast
from engine.market.history import History
from engine.market.reasons import CANCEL_CODES, REJECT_CODES
from tests.market.orders_model import OrdersModel, model_of
from tests.oracle.random_flow import FIRMS, RandomFlow
from tests.oracle.venue_pair import VenuePair

EVERY = 10**6


def make_ledger(log: list[EventBatch], seq: int = 0, orders_kept: int = 100_000,
                **more: int) -> Ledger:
    """A ledger that knows the instruments of a log."""
    ledger = Ledger(seq, orders_kept, REJECT_CODES, CANCEL_CODES, **more)
    for batch in log:
        for event in batch.dicts():
            if event["kind"] == "instrument_defined":
                ledger.define(event["instrument_id"], event["symbol"], event["price_decimals"],
                              event["quantity_decimals"], event["lot_size"])
    return ledger


def make_history(log: list[EventBatch]) -> History:
    """The past of a log in memory."""
    definitions = log[:1]
    return History(MemoryPast(lambda: log), lambda seq: make_ledger(definitions, seq),
                   lambda seq: pytest.fail("no books here"), EVERY)


def random_log(seed: int, operations: int) -> list[EventBatch]:
    """The events of a random flow over every kind of order."""
    pair = VenuePair()
    flow = RandomFlow(seed, pair)
    flow.define()
    flow.run(operations)
    return pair.log


def end_of(batch: EventBatch) -> int:
    return batch.first_seq + batch.event_count - 1


class Activation:
    """One account, activated when `applied` batches were durable and `matched` were matched."""

    def __init__(self, account_id: int, applied: int, matched: int) -> None:
        self.account_id, self.applied, self.matched = account_id, applied, matched


def draw_activations(chance: random.Random, batches: int) -> Iterator[Activation]:
    for account_id in FIRMS:
        applied = chance.randint(1, batches - 1)
        yield Activation(account_id, applied, min(batches, applied + chance.randint(0, 4)))


@pytest.mark.parametrize("seed", range(4))
def test_rows_trades_and_changes_are_those_of_the_model(seed):
    log = random_log(seed, 1_500)
    chance = random.Random(seed)
    activations = list(draw_activations(chance, len(log)))
    history = make_history(log)
    ahead = {number: Matcher() for number in range(len(activations))}
    for number, activation in enumerate(activations):
        for batch in log[:activation.matched]:
            ahead[number].replay(batch)
    ledger, model = make_ledger(log[:1]), OrdersModel()
    changes: dict[int, list] = {activation.account_id: [] for activation in activations}
    for position in range(len(log) + 1):
        for number, activation in enumerate(activations):
            account_id, seq = activation.account_id, ahead[number].next_seq - 1
            if activation.applied == position:
                ledger.activate(account_id, ahead[number].export_orders(account_id), seq)
            if activation.matched == position:
                assert ledger.ready(account_id)
                history.complete_now(ledger, account_id, seq)
                ledger.watch(account_id)
            elif activation.applied <= position < activation.matched:
                assert not ledger.ready(account_id) or seq <= ledger.applied_seq
        if position == len(log):
            break
        ledger.apply(log[position])
        model.apply(log[position])
        for account_id in ledger.changed():
            changes[account_id] += ledger.take_changes(account_id)
    for number, activation in enumerate(activations):
        compare(ledger, model, model_of(log[:activation.matched]), activation.account_id,
                ahead[number].next_seq - 1, changes[activation.account_id])


def compare(ledger: Ledger, model: OrdersModel, then: OrdersModel, account_id: int, seq: int,
            changes: list) -> None:
    """Everything that the ledger can be asked about an account activated at `seq`; `then` is the
    model as it was at that seq."""
    expected = model.known(account_id, seq)
    assert ledger.orders(account_id, limit=EVERY) == expected
    live = [row for row in expected if row["status"] in ("open", "partially_filled")]
    assert ledger.orders(account_id, live=True, limit=EVERY) == live
    assert ledger.orders(account_id, live=False, limit=EVERY) == [
        row for row in expected if row not in live]
    assert changes == [change for change in model.changes.get(account_id, ()) if change[0] > seq]
    for row in expected:
        assert ledger.order(account_id, row["order_id"]) == row
        assert ledger.order(account_id ^ 4, row["order_id"]) is None
        handle = ledger.handle(account_id, row["order_id"])
        assert handle is not None
        assert handle["live"] == (row in live)
    for (owner, text), order_id in model.clients.items():
        found = ledger.by_client_id(owner, text) if owner == account_id else None
        if found is not None:
            assert found["order_id"] == order_id
    mine = {(fill["match"], fill["liquidity"]) for row in then.known(account_id, seq)
            for fill in row["fills"]}
    assert [{**trade, "client_order_id": 0} for trade in ledger.trades(account_id, limit=EVERY)] \
        == [{**trade, "client_order_id": 0} for trade in reversed(model.trades.get(account_id, []))
            if trade["match"] > seq or (trade["match"], trade["liquidity"]) in mine]


def test_orders_and_trades_are_paged_and_filtered():
    log = random_log(9, 800)
    account_id = 2
    ledger = make_ledger(log[:1])
    ledger.activate(account_id, EventBatch(), 0)
    for batch in log:
        ledger.apply(batch)
    every = ledger.orders(account_id, limit=EVERY)
    paged, before = [], 0
    while page := ledger.orders(account_id, before=before, limit=7):
        paged += page
        before = page[-1]["order_id"]
    assert paged == every
    of_one = ledger.orders(account_id, instrument_id=2, limit=EVERY)
    assert of_one == [row for row in every if row["symbol"] == "INSTR2"]
    trades = ledger.trades(account_id, limit=EVERY)
    assert len(trades) > 20
    assert ledger.trades(account_id, before=trades[5]["match"], limit=3) == [
        trade for trade in trades if trade["match"] < trades[5]["match"]][:3]


def test_dead_orders_and_fills_are_bounded_and_live_ones_stay():
    log = random_log(5, 1_500)
    ledger, whole = make_ledger(log[:1], orders_kept=20), make_ledger(log[:1])
    for one in (ledger, whole):
        for account_id in FIRMS:
            one.activate(account_id, EventBatch(), 0)
    for batch in log:
        for one in (ledger, whole):
            one.apply(batch)
    for account_id in FIRMS:
        live, dead, fills = ledger.counts(account_id)
        assert dead == 20
        assert fills <= 40
        assert live == whole.counts(account_id)[0]
        kept = ledger.orders(account_id, limit=EVERY)
        assert len(kept) == live + dead
        for row in kept:
            known = whole.order(account_id, row["order_id"])
            assert known is not None
            assert {**row, "fills": []} == {**known, "fills": []}
            assert row["fills"] == known["fills"][len(known["fills"]) - len(row["fills"]):]


def test_a_reader_that_does_not_come_is_told_to_read_the_log():
    log = random_log(6, 500)
    ledger = make_ledger(log[:1], changes_max=10)
    ledger.activate(1, EventBatch(), 0)
    ledger.watch(1)
    for batch in log:
        ledger.apply(batch)
    assert ledger.changed() == [1]
    assert ledger.take_changes(1) is None
    assert ledger.take_changes(1) == []
    ledger.unwatch(1)
    assert ledger.changed() == []


# -- answers -----------------------------------------------------------------------------------

class Desk:
    """A matcher, a ledger with account 1, and private commands with request ids."""

    def __init__(self) -> None:
        self.matcher, self.ledger = Matcher(), Ledger(0, 100, REJECT_CODES, CANCEL_CODES)
        self.ledger.define(1, "BTC-USDT", 2, 6, 1)
        batch = CommandBatch()
        batch.define_instrument(1, "BTC-USDT", "BTCUSDT", 2, 1, 6)
        for account_id in (1, 2):
            batch.define_account(account_id, f"ACC{account_id}")
        self.send(batch)
        self.ledger.activate(1, EventBatch(), self.matcher.next_seq - 1)

    def send(self, batch: CommandBatch) -> EventBatch:
        events = EventBatch()
        self.matcher.apply(batch, events, 1_000)
        self.ledger.apply(events)
        return events


def test_each_private_command_has_one_answer_with_its_order():
    desk = Desk()
    batch = CommandBatch()
    batch.enter(2, 1, 1, "S", 300_000, 6_000_000)
    batch.enter(1, 0, 1, "B", 500_000, 6_001_000, "1", source=Source.HTTP, request_id=7,
                client_order_id="mine", actor_account_id=1, key="K1")
    batch.enter(1, 0, 1, "B", 500_000, -1, source=Source.HTTP, request_id=8)
    events = desk.send(batch)
    assert answers(events, {}) == []
    first, second = answers(events, {7, 8, 9})
    assert [one.request_id for one in answers(events)] == [7, 8]
    assert (first.kind, first.request_id, first.key) == (Kind.ACCEPTED, 7, "K1")
    assert first.last_seq == first.seq + 1
    order = desk.ledger.order_after(first.events)
    assert order == desk.ledger.order(1, first.order_id) == desk.ledger.by_client_id(1, "mine")
    assert order is not None
    assert (order["status"], order["filled_quantity"]) == ("partially_filled", "0.300000")
    assert (second.kind, second.reason) == (Kind.REJECTED, 0x1D)
    refused = desk.ledger.order_after(second.events)
    assert refused is not None
    assert (refused["status"], refused["reason"]) == ("rejected", "price_off_tick")
    assert refused == desk.ledger.order(1, second.seq)
    # The same again, whenever it is asked, and whatever became of the order since.
    more = CommandBatch()
    more.cancel(1, 0, source=Source.HTTP, request_id=9, order_id=first.order_id)
    canceled, = answers(desk.send(more), {9})
    assert (canceled.kind, canceled.order_id, canceled.canceled) == (
        Kind.CANCELED, first.order_id, 1)
    again = answer_at(events, first.last_seq)
    assert again is not None
    assert again.seq == first.seq
    assert desk.ledger.order_after(again.events) == order


def test_a_halt_is_an_answer_even_when_nobody_waits():
    desk = Desk()
    batch = CommandBatch()
    batch.halt_instrument(1, source=Source.ADMIN, request_id=3, reason="news")
    batch.resume_instrument(1, source=Source.ADMIN, request_id=4)
    halt, resumed = answers(desk.send(batch), {})
    assert (halt.kind, halt.instrument_id, halt.text) == (Kind.INSTRUMENT_HALTED, 1, "news")
    assert resumed.kind == Kind.INSTRUMENT_RESUMED


def test_commands_and_trades_are_found_in_batches():
    for batch in random_log(11, 300):
        starts = [event["seq"] for event in batch.dicts() if event["first"]]
        fills = [event["seq"] for event in batch.dicts() if event["kind"] == "fill"]
        ends = [*(seq - 1 for seq in starts), end_of(batch)]
        for seq in range(batch.first_seq, end_of(batch) + 1):
            answer = answer_at(batch, seq)
            assert answer is not None
            assert answer.seq == max(start for start in starts if start <= seq)
            assert last_whole_seq(batch, seq) == max(end for end in ends if end <= seq)
        found = [trade[0] for instrument in (1, 2, 3, 65_535)
                 for trade in trades_of(batch, instrument, 0, 2**63)]
        assert sorted(found) == fills
        assert answer_at(batch, end_of(batch) + 1) is None

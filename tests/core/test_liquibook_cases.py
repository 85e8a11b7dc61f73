"""Cases of a peer's own unit tests, as far as this venue defines things the same way.

The cases are not part of the project: MATCHD_TEST_DATA names the folder that has them.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher

DATA = os.environ.get("MATCHD_TEST_DATA")
CASES = Path(DATA or ".") / "liquibook_cases.jsonl"
COMPLETE_CASES = 105
INSTRUMENT, ACCOUNT = 1, 1
MARKET_PRICE = 0x7FFFFFFF

AON_RESTS = "rests an all-or-none order; here a fill-or-kill order ends at once"
MARKET_RESTS = "rests a market order; here what is left of it is cancelled"
MARKET_MEETS_MARKET = "matches two market orders at a last price"
STOP = "enters stop orders, which are not served"

AON_CASES = (
    "TestRegBidMatchAon", "TestRegBidMatchMulti", "TestAonBidNoMatch", "TestAonBidMatchReg",
    "TestAonBidMatchMulti", "TestAonBidNoMatchMulti", "TestAonBidMatchAon",
    "TestRegAskMatchAon", "TestRegAskMatchMulti", "TestAonAskNoMatch", "TestAonAskMatchReg",
    "TestAonAskMatchMulti", "TestOneAonBidOneAonAsk", "TestTwoAonBidOneAonAsk",
    "TestOneAonBidTwoAsk", "TestOneBidTwoAonAsk", "TestAonAskNoMatchMulti",
    "TestAonAskMatchAon", "TestReplaceAonBidSmallerMatch", "TestReplaceAonBidPriceMatch",
    "TestReplaceBidLargerMatchAon",
)
LEFT_OUT = {f"all_or_none-{case}": AON_RESTS for case in AON_CASES} | {
    "bbo_order_book-TestBboMatchMarketOrderBid": MARKET_RESTS,
    "bbo_order_book-TestBboMatchMarketOrderAsk": MARKET_RESTS,
    "bbo_order_book-TestBboMatchMultipleMarketOrderBid": MARKET_RESTS,
    "bbo_order_book-TestBboMatchMultipleMarketOrderAsk": MARKET_RESTS,
    "order_book-TestMatchMarketOrderBid": MARKET_RESTS,
    "order_book-TestMatchMarketOrderAsk": MARKET_RESTS,
    "order_book-TestMatchMultipleMarketOrderBid": MARKET_RESTS,
    "order_book-TestMatchMultipleMarketOrderAsk": MARKET_RESTS,
    "market_price-TestNoMktToMktWithoutPreviousTrade": MARKET_RESTS,
    "market_price-TestTradeSetsMarketPrice": MARKET_RESTS,
    "market_price-TestExplicitlySettingMarketPriceAllowsMarketToMarketTrades":
        MARKET_MEETS_MARKET,
    "stop_orders-TestStopOrdersOffMarketNoTrade": STOP,
    "stop_orders-TestStopMarketOrdersOnMarketTradeImmediately": STOP,
    "stop_orders-TestStopMarketOrdersTradeWhenStopPriceReached": STOP,
    "stop_orders-TestStopOrdersCancelBeforeTrigger": STOP,
}


def complete_cases():
    """The cases whose steps were all understood, as (file, case), or one that is skipped."""
    if not DATA or not CASES.exists():
        reason = "MATCHD_TEST_DATA names no folder with liquibook_cases.jsonl"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    return [pytest.param(case, id=name_of(case)) for case in cases if not case["unparsed"]]


def name_of(case):
    return f"{case['file'].removeprefix('ut_').removesuffix('.cpp')}-{case['case']}"


class Book:
    """One instrument, and for every order of the case what became of it."""

    def __init__(self, depth):
        self.matcher = Matcher()
        self.depth = depth
        self.numbers = {}
        self.names = {}
        self.last_number = 0
        self.open_lots = {}
        self.done_lots = defaultdict(int)
        self.prices = {}
        self.states = {}
        self.fills = []
        self.step = 0
        commands = CommandBatch()
        commands.define_instrument(INSTRUMENT, "TEST", "TEST", 4, 1, 0)
        commands.define_account(ACCOUNT, "USER")
        self.send(commands)

    def send(self, commands):
        """Apply, and take down what the events say. Returns the kinds of the events."""
        events = EventBatch()
        self.matcher.apply(commands, events, 0)
        for event in events.dicts():
            if event["kind"] == "fill":
                self.filled(event["user_ref_num"], event)
                self.filled(event["maker_user_ref_num"], event)
            elif event["kind"] == "canceled":
                name = self.names[event["user_ref_num"]]
                self.open_lots[name] = event["remaining_lots"]
                self.states[name] = "cancelled"
            elif event["kind"] in ("accepted", "replaced"):
                name = self.names[event["user_ref_num"]]
                self.open_lots[name] = event["quantity_lots"]
                self.states[name] = "accepted"
            elif event["kind"] == "rejected":
                self.states[self.names[event["user_ref_num"]]] = "rejected"

    def filled(self, number, event):
        name = self.names[number]
        self.fills.append((self.step, name, event["quantity_lots"], event["price_units"]))
        self.open_lots[name] -= event["quantity_lots"]
        self.done_lots[name] += event["quantity_lots"]
        if self.open_lots[name] == 0:
            self.states[name] = "complete"

    def name_next(self, name):
        self.last_number += 1
        self.names[self.last_number] = name
        return self.last_number

    def add(self, step):
        name, commands = step["id"], CommandBatch()
        self.prices[name] = step["price"] or MARKET_PRICE
        time_in_force = "1"
        if step.get("ioc"):
            time_in_force = "4" if step.get("aon") else "3"
        self.numbers[name] = self.name_next(name)
        commands.enter(ACCOUNT, self.numbers[name], INSTRUMENT, step["side"][0].upper(),
                       step["qty"], self.prices[name], time_in_force)
        self.send(commands)

    def cancel(self, step):
        commands = CommandBatch()
        commands.cancel(ACCOUNT, self.numbers[step["id"]])
        self.send(commands)

    def replace(self, step):
        name, commands = step["id"], CommandBatch()
        original = self.numbers[name]
        number = self.name_next(name)
        self.prices[name] = step.get("price", self.prices[name])
        commands.replace(ACCOUNT, original, number, self.order_lots(name) + step["delta"],
                         self.prices[name], "1")
        self.numbers[name] = number
        self.send(commands)

    def order_lots(self, name):
        return self.done_lots[name] + self.open_lots[name]

    def names_on(self, side):
        """Names of the resting orders of a side in the order in which they would trade."""
        buys = side == "buy"
        return [self.names[order["user_ref_num"]] for order in self.matcher.orders(INSTRUMENT)
                if (order["side"] == "B") == buys]

    def check_expectation(self, step):
        expected, name = step.get("expect", {}), step["id"]
        now = [fill for fill in self.fills if fill[0] == self.step and fill[1] == name]
        if "matched" in expected:
            assert bool(now) == expected["matched"]
        if "match_qty" in expected:
            assert sum(fill[2] for fill in now) == expected["match_qty"]
        if "state" in expected:
            assert self.states[name] == expected["state"]

    def check(self, step):
        kind = step["check"]
        if kind == "fill":
            fills = [fill for fill in self.fills
                     if fill[0] >= step["fills_from"] and fill[1] == step["id"]]
            assert sum(fill[2] for fill in fills) == step["qty"]
            assert sum(fill[2] * fill[3] for fill in fills) == step["cost"]
        elif kind == "depth":
            bids, asks = self.matcher.levels(INSTRUMENT, self.depth)
            found = [[[price, orders, lots] for price, lots, orders in side]
                     for side in (bids, asks)]
            # An empty level is written as zeros.
            expected = [[level for level in side if any(level)]
                        for side in (step["bid"], step["ask"])]
            assert found == expected
        elif kind == "orders":
            assert len(self.names_on(step["side"])) == step["n"]
        elif kind == "first":
            assert self.names_on(step["side"])[0] == step["id"]
        elif kind == "open_qty":
            assert self.open_lots[step["id"]] == step["value"]
        elif kind == "order_qty":
            assert self.order_lots(step["id"]) == step["value"]
        else:
            assert kind == "state"
            assert self.states[step["id"]] == step["state"]


@pytest.mark.parametrize("case", complete_cases())
def test_a_case_of_liquibook_comes_out_the_same(case):
    if name_of(case) in LEFT_OUT:
        pytest.skip(LEFT_OUT[name_of(case)])
    # The books of these tests show five levels, the one for best bid and offer a single one.
    book = Book(depth=1 if "bbo" in case["file"] else 5)
    for index, step in enumerate(case["steps"]):
        book.step = index
        if "check" in step:
            book.check(step)
        else:
            getattr(book, step["op"])(step)
            book.check_expectation(step)
        book.matcher.check_invariants()


@pytest.mark.skipif(not DATA or not CASES.exists(), reason="MATCHD_TEST_DATA has no such cases")
def test_no_case_is_left_out_by_mistake():
    names = [name_of(case.values[0]) for case in complete_cases()]
    assert len(names) == len(set(names)) == COMPLETE_CASES
    assert set(LEFT_OUT) <= set(names)

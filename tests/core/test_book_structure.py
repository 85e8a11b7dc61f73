"""The structures under the matcher: windows of ticks, far levels, the slab, the index."""

import os
import random
from pathlib import Path

import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher

LONG = os.environ.get("MATCHD_TEST_PROFILE") == "long"
WINDOW_TICKS_MAX = 262_144
PRICE_MAX = 1_999_999_999
SELLER, BUYER = 1, 2


class Desk:
    """A matcher with some instruments of tick 1 and two accounts that count upwards."""

    def __init__(self, instruments=1):
        self.matcher = Matcher()
        self.batch = CommandBatch()
        self.numbers = {SELLER: 0, BUYER: 0}
        for account in self.numbers:
            self.batch.define_account(account, f"user{account}")
        for number in range(1, instruments + 1):
            self.batch.define_instrument(number, f"I-{number}", f"I{number}", 0, 1, 0)

    def enter(self, account, side, price, lots=1, time_in_force="0", instrument=1):
        self.numbers[account] += 1
        self.batch.enter(account, self.numbers[account], instrument, side, lots, price,
                         time_in_force)
        return self.numbers[account]

    def cancel(self, account, number):
        self.batch.cancel(account, number)

    def flush(self, check=True):
        """Run what was gathered; returns the events."""
        events = EventBatch()
        self.matcher.apply(self.batch, events, 0)
        self.batch.clear()
        if check:
            self.matcher.check_invariants()
        return events

    def prices(self):
        bids, asks = self.matcher.levels(1, 1 << 30)
        return [row[0] for row in bids], [row[0] for row in asks]


@pytest.mark.parametrize("seed", range(4))
def test_prices_anywhere_between_the_limits_stay_in_order(seed):
    desk, pick = Desk(), random.Random(seed)
    live = {}
    for _ in range(60):
        for _ in range(25):
            side = pick.choice("BS")
            near = pick.random() < 0.5
            half = PRICE_MAX // 2
            if side == "B":
                price = half - pick.randrange(3000 if near else half - 1)
            else:
                price = half + 1 + pick.randrange(3000 if near else half)
            account = BUYER if side == "B" else SELLER
            live[account, desk.enter(account, side, price)] = price
        for key in pick.sample(sorted(live), min(len(live), 12)):
            desk.cancel(*key)
            del live[key]
        desk.flush()
        bids, asks = desk.prices()
        assert bids == sorted({price for (who, _), price in live.items() if who == BUYER},
                              reverse=True)
        assert asks == sorted({price for (who, _), price in live.items() if who == SELLER})
    for key in live:
        desk.cancel(*key)
    desk.flush()
    assert desk.prices() == ([], [])


@pytest.mark.parametrize("step", [1, 7, 5000, 300_000, -1, -7, -5000, -300_000])
def test_the_window_follows_a_price_that_runs_away(step):
    desk = Desk()
    middle = 1_000_000_000
    for turn in range(700):
        at = middle + turn * step
        desk.enter(BUYER, "B", at - 5, 2)
        desk.enter(SELLER, "S", at + 5, 2)
        desk.enter(SELLER, "S", at - 5, 1, "3")
        desk.enter(BUYER, "B", at + 5, 1, "3")
        desk.flush(check=turn % 50 == 0)
    desk.matcher.check_invariants()
    bids, asks = desk.prices()
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]


def test_levels_that_fall_out_of_the_window_are_still_found():
    desk = Desk()
    low = [desk.enter(BUYER, "B", 1000 + tick) for tick in range(900)]
    desk.flush()
    high = 1_500_000_000
    for tick in range(3000):
        desk.enter(SELLER, "S", high + tick)
        desk.enter(BUYER, "B", high - 1 - tick)
    desk.flush()
    for number in low[::2]:
        desk.cancel(BUYER, number)
    desk.flush()
    bids, _ = desk.prices()
    assert bids[:3000] == [high - 1 - tick for tick in range(3000)]
    assert bids[3000:] == [1000 + tick for tick in range(899, 0, -2)]


def test_a_sweep_goes_from_the_window_into_far_levels_and_takes_all():
    desk = Desk()
    prices = [*range(1000, 1400), *(10 ** power for power in range(4, 10)),
              *range(900_000, 900_000 + 5 * WINDOW_TICKS_MAX, WINDOW_TICKS_MAX // 3)]
    random.Random(1).shuffle(prices)
    for price in prices:
        desk.enter(SELLER, "S", price)
    desk.flush()
    desk.enter(BUYER, "B", PRICE_MAX, len(prices), "4")
    fills = [event["price_units"] for event in desk.flush().dicts() if event["kind"] == "fill"]
    assert fills == sorted(prices)
    assert desk.prices() == ([], [])


def test_both_ends_of_the_price_range_can_be_best_in_turn():
    desk = Desk()
    for _ in range(300):
        number = desk.enter(BUYER, "B", 1)
        desk.flush(check=False)
        desk.cancel(BUYER, number)
        number = desk.enter(SELLER, "S", PRICE_MAX)
        desk.flush(check=False)
        desk.cancel(SELLER, number)
        number = desk.enter(BUYER, "B", PRICE_MAX)
        desk.flush(check=False)
        desk.cancel(BUYER, number)
    desk.flush()
    assert desk.matcher.resting_orders == 0


@pytest.mark.parametrize("tick", [1, 2, 3, 7, 10, 99, 1000, 65_537, 999_983, PRICE_MAX])
def test_prices_are_divided_into_ticks_exactly(tick):
    matcher, batch, events = Matcher(), CommandBatch(), EventBatch()
    batch.define_account(1, "one")
    batch.define_instrument(1, "I", "I", 0, tick, 0)
    pick = random.Random(tick)
    wanted = []
    for number in range(1, 400):
        price = pick.randrange(1, PRICE_MAX + 1)
        price -= pick.choice((0, price % tick, price % tick))
        batch.enter(1, number, 1, "B", 1, price, "1")
        wanted.append(price > 0 and price % tick == 0)
    matcher.apply(batch, events, 0)
    matcher.check_invariants()
    assert [event["kind"] == "accepted" for event in events.dicts()[2:]] == wanted


def test_the_index_grows_and_finds_every_handle():
    desk = Desk()
    count = 200_000 if LONG else 30_000
    pick = random.Random(3)
    live = []
    for turn in range(count):
        live.append(desk.enter(BUYER, "B", 1000 + turn % 50))
        if pick.random() < 0.3:
            place = pick.randrange(len(live))
            live[place], live[-1] = live[-1], live[place]
            desk.cancel(BUYER, live.pop())
        if turn % 997 == 0:
            desk.flush(check=turn % 9 == 0)
    desk.flush()
    assert desk.matcher.resting_orders == len(live)
    for number in live:
        desk.cancel(BUYER, number)
    events = desk.flush()
    assert events.event_count == len(live)
    assert desk.matcher.resting_orders == 0


def test_handles_that_share_a_home_are_kept_apart():
    desk = Desk()
    slot = 2  # the second account's
    def home(number):
        return ((slot << 32 ^ number) * 0x9E3779B97F4A7C15 & 2**64 - 1) >> 57
    clashing = [number for number in range(1, 20_000) if home(number) == 5][:120]
    for number in clashing:
        desk.batch.enter(BUYER, number, 1, "B", 1, 1000)
    desk.flush()
    pick = random.Random(0)
    pick.shuffle(clashing)
    for number in clashing:
        desk.cancel(BUYER, number)
        desk.cancel(BUYER, number)
    assert desk.flush().event_count == len(clashing)


def test_slots_are_used_again():
    desk = Desk()
    for _ in range(50):
        numbers = [desk.enter(BUYER, "B", 500 + tick) for tick in range(100)]
        for number in numbers:
            desk.cancel(BUYER, number)
    desk.flush()
    orders_bytes = len(desk.matcher.save()[-1])
    assert orders_bytes <= 64 * 102


def test_accounts_may_have_any_ids_and_be_many():
    matcher, batch, events = Matcher(), CommandBatch(), EventBatch()
    ids = random.Random(5).sample(range(2**32), 3000)
    for number in ids:
        batch.define_account(number, "someone")
    batch.define_instrument(65_535, "LAST", "LAST", 0, 1, 0)
    for number in ids:
        batch.enter(number, 1, 65_535, "B", 1, 100, user_ref_idx=number % 256)
    matcher.apply(batch, events, 0)
    matcher.check_invariants()
    assert matcher.resting_orders == len(ids)
    again = Matcher.load(b"".join(matcher.save()))
    assert again.state_hash() == matcher.state_hash()
    assert sorted(again.accounts()) == sorted(ids)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_idle_instruments_cost_little_memory():
    before = resident_bytes()
    desk = Desk(instruments=65_000)
    defined = len(desk.batch) * 64
    desk.flush(check=False)
    assert len(desk.matcher.instruments()) == 65_000
    assert resident_bytes() - before < defined * 4 + 120_000_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_resting_order_takes_at_most_128_bytes():
    orders = 5_000_000 if LONG else 400_000
    desk = Desk()
    before = resident_bytes()
    highest = 0.0
    events = EventBatch()
    for first in range(1, orders, 20_000):
        for number in range(first, first + 20_000):
            desk.batch.enter(BUYER, number, 1, "B", 1, 50_000 - number % 2000)
        events.clear()
        desk.matcher.apply(desk.batch, events, 0)
        desk.batch.clear()
        if first > 100_000:
            highest = max(highest, (resident_bytes() - before) / desk.matcher.resting_orders)
    assert desk.matcher.resting_orders == orders
    # What is not orders: the batches of the test, levels, the interpreter.
    assert highest <= 128 + 12_000_000 / 100_000
    assert (resident_bytes() - before - 8_000_000) / orders <= 128
    desk.matcher.check_invariants()


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="minutes; MATCHD_TEST_PROFILE=long")
def test_millions_of_orders_rest_save_and_load():
    desk = Desk()
    events = EventBatch()
    pick = random.Random(9)
    for turn in range(250):
        for _ in range(20_000):
            side = pick.random() < 0.5
            price = 500_000 - pick.randrange(40_000) if side else 500_001 + pick.randrange(40_000)
            desk.enter(BUYER if side else SELLER, "B" if side else "S", price)
        events.clear()
        desk.matcher.apply(desk.batch, events, turn)
        desk.batch.clear()
    assert desk.matcher.resting_orders == 5_000_000
    loaded = Matcher.load(b"".join(desk.matcher.save()))
    loaded.check_invariants()
    assert loaded.state_hash() == desk.matcher.state_hash()
    desk.batch.mass_cancel(BUYER, desk.numbers[BUYER] + 1)
    desk.batch.session_roll()
    desk.flush()
    assert desk.matcher.resting_orders == 0

"""What the matcher does, rule by rule."""

import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from cython_core.model import Flag, Source

ONE, TWO, LIMITED = 1, 2, 3
MARKET = 0x7FFFFFFF
LAST_NUMBER = 2**32 - 1
DOOR = int(Flag.DOOR_REASON)


class Venue:
    """A matcher with two accounts, one instrument with tick 5 and one with tick 1."""

    def __init__(self, **limits):
        self.matcher = Matcher()
        self.time_ns = 1_000
        self.numbers = {}
        batch = CommandBatch()
        batch.define_account(ONE, "one", firm="AAAA")
        batch.define_account(TWO, "two", firm="BBBB")
        batch.define_account(LIMITED, "limited", **limits)
        batch.define_instrument(1, "ABC-USD", "ABC", 2, 5, 0, quantity_max_lots=10_000)
        batch.define_instrument(2, "XYZ-USD", "XYZ", 2, 1, 0)
        self.run(batch)

    def run(self, batch):
        """The events of a batch as dicts; the books are checked after it."""
        events = EventBatch()
        self.time_ns += 10
        self.matcher.apply(batch, events, self.time_ns)
        self.matcher.check_invariants()
        return events.dicts()

    def do(self, name, *args, **kwargs):
        batch = CommandBatch()
        getattr(batch, name)(*args, **kwargs)
        return self.run(batch)

    def next_number(self, account):
        self.numbers[account] = self.numbers.get(account, 0) + 1
        return self.numbers[account]

    def enter(self, account, side, lots, price, *args, instrument=1, **kwargs):
        """Enter an order under the next number; returns its events."""
        number = self.next_number(account)
        return self.do("enter", account, number, instrument, side, lots, price, *args, **kwargs)

    def replace(self, account, original, lots, price, *args, **kwargs):
        number = self.next_number(account)
        return self.do("replace", account, original, number, lots, price, *args, **kwargs)

    def book(self, instrument=1):
        return self.matcher.levels(instrument, 100)


def kinds(events):
    return [event["kind"] for event in events]


@pytest.fixture
def venue():
    return Venue()


def refused(events, reason):
    assert kinds(events) == ["rejected"]
    assert events[0]["first"]
    assert events[0]["reason"] == reason
    return True


# ---- entering -------------------------------------------------------------------------------

def test_an_order_that_meets_nobody_rests(venue):
    [event] = venue.enter(ONE, "B", 100, 1000, client_order="hello", capacity="A", display="N")
    assert event["kind"] == "accepted"
    assert event["order_id"] == event["seq"]
    assert event["client_order"] == "hello"
    assert event["capacity"] == "A"
    assert event["display"] == "N"
    assert venue.book() == ([(1000, 100, 1)], [])
    assert venue.matcher.resting_orders == 1


def test_the_best_price_trades_first_and_at_one_price_the_oldest(venue):
    ids = [venue.enter(ONE, "S", 10, price)[0]["order_id"] for price in (1010, 1005, 1005, 1000)]
    events = venue.enter(TWO, "B", 35, 1010)
    fills = events[1:]
    assert kinds(fills) == ["fill"] * 4
    assert [fill["maker_order_id"] for fill in fills] == [ids[3], ids[1], ids[2], ids[0]]
    assert [fill["price_units"] for fill in fills] == [1000, 1005, 1005, 1010]
    assert [fill["quantity_lots"] for fill in fills] == [10, 10, 10, 5]
    assert [fill["maker_done"] for fill in fills] == [True, True, True, False]
    assert [fill["taker_done"] for fill in fills] == [False, False, False, True]
    assert venue.book() == ([], [(1010, 5, 1)])


def test_what_is_left_of_a_limit_order_rests_at_its_own_price(venue):
    venue.enter(ONE, "S", 10, 1000)
    assert kinds(venue.enter(TWO, "B", 25, 1005)) == ["accepted", "fill"]
    assert venue.book() == ([(1005, 15, 1)], [])


def test_an_account_may_trade_with_itself(venue):
    venue.enter(ONE, "S", 10, 1000)
    events = venue.enter(ONE, "B", 10, 1000)
    assert kinds(events) == ["accepted", "fill"]
    assert events[1]["account_id"] == events[1]["maker_account_id"] == ONE


def test_sides_t_and_e_sell_and_are_echoed(venue):
    assert venue.enter(ONE, "T", 10, 1000)[0]["side"] == "T"
    assert venue.enter(ONE, "E", 10, 1000)[0]["side"] == "E"
    assert venue.book() == ([], [(1000, 20, 2)])


@pytest.mark.parametrize("price", [MARKET, MARKET + 1, 2_000_000_000])
def test_a_market_order_takes_any_price_and_never_rests(venue, price):
    venue.enter(ONE, "S", 10, 1_999_999_995)
    events = venue.enter(TWO, "B", 15, price)
    assert kinds(events) == ["accepted", "fill", "canceled"]
    assert events[1]["price_units"] == 1_999_999_995
    assert (events[2]["reason"], events[2]["quantity_lots"]) == ("I", 5)
    assert events[2]["remaining_lots"] == 0
    venue.enter(ONE, "B", 10, 5)
    assert kinds(venue.enter(TWO, "S", 15, price)) == ["accepted", "fill", "canceled"]
    assert venue.book() == ([], [])


def test_the_rest_of_an_ioc_is_canceled(venue):
    venue.enter(ONE, "S", 10, 1000)
    venue.enter(ONE, "S", 10, 1005)
    events = venue.enter(TWO, "B", 25, 1000, "3")
    assert kinds(events) == ["accepted", "fill", "canceled"]
    assert (events[2]["reason"], events[2]["quantity_lots"]) == ("I", 15)
    assert not events[2]["first"]


def test_a_fok_trades_whole_or_not_at_all(venue):
    venue.enter(ONE, "S", 10, 1000)
    venue.enter(ONE, "S", 10, 1005)
    for lots, price in ((21, 1005), (11, 1000)):
        events = venue.enter(TWO, "B", lots, price, "4")
        assert kinds(events) == ["accepted", "canceled"]
        assert (events[1]["reason"], events[1]["quantity_lots"]) == ("I", lots)
    assert kinds(venue.enter(TWO, "B", 20, 1005, "4")) == ["accepted", "fill", "fill"]


def test_an_ioc_whose_minimum_is_its_quantity_is_a_fok(venue):
    venue.enter(ONE, "S", 10, 1000)
    events = venue.enter(TWO, "B", 11, 1000, "3", min_quantity_lots=11)
    assert kinds(events) == ["accepted", "canceled"]
    events = venue.enter(TWO, "B", 10, 1000, "3", min_quantity_lots=10)
    assert kinds(events) == ["accepted", "fill"]


def test_an_ioc_below_its_minimum_does_not_trade(venue):
    venue.enter(ONE, "S", 10, 1000)
    assert kinds(venue.enter(TWO, "B", 30, 1000, "3", min_quantity_lots=11)) == [
        "accepted", "canceled"]
    assert kinds(venue.enter(TWO, "B", 30, 1000, "3", min_quantity_lots=10)) == [
        "accepted", "fill", "canceled"]


def test_a_post_only_order_that_would_trade_is_canceled_whole(venue):
    venue.enter(ONE, "S", 10, 1000)
    events = venue.enter(TWO, "B", 30, 1000, post_only=True)
    assert kinds(events) == ["accepted", "canceled"]
    assert (events[1]["reason"], events[1]["quantity_lots"]) == ("G", 30)
    assert kinds(venue.enter(TWO, "B", 30, 995, post_only=True)) == ["accepted"]


def test_a_number_that_is_not_new_is_ignored(venue):
    venue.do("enter", ONE, 5, 1, "B", 1, 1000)
    for number in (5, 4, 0):
        assert venue.do("enter", ONE, number, 1, "B", 1, 1000) == []
    assert venue.matcher.last_user_ref_num(ONE, 0) == 5


def test_channels_count_for_themselves(venue):
    venue.do("enter", ONE, 5, 1, "B", 1, 1000)
    assert kinds(venue.do("enter", ONE, 3, 1, "B", 1, 1000, user_ref_idx=200)) == ["accepted"]
    assert venue.do("enter", ONE, 3, 1, "B", 1, 1000, user_ref_idx=200) == []
    assert venue.do("cancel", ONE, 3) == []
    assert kinds(venue.do("cancel", ONE, 3, user_ref_idx=200)) == ["canceled"]
    assert venue.matcher.last_user_ref_num(ONE, 200) == 3


def test_a_refused_order_uses_its_number_up(venue):
    refused(venue.do("enter", ONE, 7, 9, "B", 1, 1000), 0x17)
    assert venue.do("enter", ONE, 7, 1, "B", 1, 1000) == []


def test_after_the_last_number_every_enter_is_refused(venue):
    assert kinds(venue.do("enter", ONE, LAST_NUMBER, 1, "B", 1, 1000)) == ["accepted"]
    for number in (1, LAST_NUMBER):
        refused(venue.do("enter", ONE, number, 1, "B", 1, 1000), 0x0F)
    [event] = venue.do("account_query", ONE)
    assert event["next_user_ref_num"] == LAST_NUMBER


def test_what_the_door_refused_is_refused_with_its_reason(venue):
    batch = CommandBatch()
    batch.enter(ONE, 1, 1, "B", 1, 1000, flags=DOOR)
    raw = bytearray(bytes(batch))
    raw[16] = 0x40
    batch = CommandBatch()
    batch.extend_bytes(bytes(raw))
    batch.command_count = 1
    refused(venue.run(batch), 0x40)
    refused(venue.do("enter", ONE, 2, 1, "B", 1, 1000, flags=DOOR), 0)


def test_a_message_beyond_the_rate_is_refused_before_anything_else(venue):
    refused(venue.enter(ONE, "B", 0, -1, flags=DOOR | int(Flag.RATE_EXCEEDED)), 0x29)


@pytest.mark.parametrize(("lots", "price", "instrument", "reason"), [
    (1, 1000, 9, 0x17), (1, 1000, 0, 0x17), (0, 1000, 1, 0x13), (10_001, 1000, 1, 0x13),
    (1, 0, 1, 0x1D), (1, -5, 1, 0x1D), (1, 1001, 1, 0x1D), (1, 2_000_000_005, 1, 0x1D),
    (1, 2_000_000_001, 2, 0x1D), (0, 0, 1, 0x13), (0, 0, 9, 0x17)])
def test_a_mistake_in_an_order_gets_its_reason(venue, lots, price, instrument, reason):
    refused(venue.enter(ONE, "B", lots, price, instrument=instrument), reason)


def test_a_minimum_quantity_needs_an_ioc_and_at_most_the_quantity(venue):
    refused(venue.enter(ONE, "B", 10, 1000, min_quantity_lots=5), 0x0D)
    refused(venue.enter(ONE, "B", 10, 1000, "4", min_quantity_lots=5), 0x0D)
    refused(venue.enter(ONE, "B", 10, 1000, "3", min_quantity_lots=11), 0x0D)


def test_prices_from_the_lowest_to_the_highest_can_rest(venue):
    venue.enter(ONE, "B", 1, 1, instrument=2)
    venue.enter(ONE, "S", 1, 1_999_999_999, instrument=2)
    assert venue.book(2) == ([(1, 1, 1)], [(1_999_999_999, 1, 1)])


# ---- risk -----------------------------------------------------------------------------------

def test_an_order_above_the_quantity_limit_is_refused():
    venue = Venue(quantity_max_lots=50)
    refused(venue.enter(LIMITED, "B", 51, 1000), 0x31)
    assert kinds(venue.enter(LIMITED, "B", 50, 1000)) == ["accepted"]
    assert kinds(venue.enter(ONE, "B", 51, 1000)) == ["accepted"]


def test_an_order_above_the_notional_limit_is_refused():
    venue = Venue(notional_max=10_000)
    refused(venue.enter(LIMITED, "B", 11, 1000), 0x30)
    assert kinds(venue.enter(LIMITED, "B", 10, 1000)) == ["accepted"]


def test_the_notional_of_a_market_order_is_taken_at_the_best_price_or_the_last_trade():
    venue = Venue(notional_max=10_000)
    assert kinds(venue.enter(LIMITED, "B", 11, MARKET)) == ["accepted", "canceled"]
    venue.enter(ONE, "S", 1, 1000)
    refused(venue.enter(LIMITED, "B", 11, MARKET), 0x30)
    venue.enter(TWO, "B", 1, 1000)
    refused(venue.enter(LIMITED, "B", 11, MARKET), 0x30)


def test_a_notional_beyond_64_bits_is_seen():
    venue = Venue(notional_max=2**63)
    assert kinds(venue.enter(LIMITED, "B", 2**32 - 1, 1_999_999_999, instrument=2)) == ["accepted"]
    batch = CommandBatch()
    batch.define_instrument(3, "BIG", "BIG", 0, 1, 0, quantity_max_lots=2**64 - 1)
    venue.run(batch)
    refused(venue.enter(LIMITED, "B", 2**63, 4, instrument=3), 0x30)


def test_only_orders_that_could_rest_count_as_open():
    venue = Venue(open_orders_max=1)
    venue.enter(LIMITED, "B", 1, 1000)
    refused(venue.enter(LIMITED, "B", 1, 1000), 0x20)
    refused(venue.enter(LIMITED, "B", 1, 1000, "1"), 0x20)
    assert kinds(venue.enter(LIMITED, "B", 1, 1000, "3")) == ["accepted", "canceled"]
    assert kinds(venue.enter(LIMITED, "B", 1, MARKET)) == ["accepted", "canceled"]
    assert kinds(venue.replace(LIMITED, 1, 5, 1000)) == ["replaced"]


def test_the_collar_goes_by_the_last_trade_then_the_other_side_then_the_own():
    venue = Venue(collar_bps=1000)
    assert kinds(venue.enter(LIMITED, "B", 1, 10)) == ["accepted"]
    refused(venue.enter(LIMITED, "B", 1, 15), 0x26)  # own side's quote is 10
    venue.enter(ONE, "S", 1, 2000)
    refused(venue.enter(LIMITED, "B", 1, 15), 0x26)  # the other side's is 2000
    assert kinds(venue.enter(LIMITED, "B", 1, 1800)) == ["accepted"]
    refused(venue.enter(LIMITED, "B", 1, 1795), 0x26)
    venue.enter(ONE, "S", 1, 1800)                   # the last trade is 1800
    refused(venue.enter(LIMITED, "S", 1, 1985), 0x26)
    assert kinds(venue.enter(LIMITED, "S", 1, 1980)) == ["accepted"]
    assert kinds(venue.enter(LIMITED, "S", 1, MARKET))[0] == "accepted"


def test_a_limit_of_quantity_is_told_before_one_of_notional():
    venue = Venue(quantity_max_lots=5, notional_max=10, open_orders_max=1, collar_bps=1)
    refused(venue.enter(LIMITED, "B", 6, 1000), 0x31)
    refused(venue.enter(LIMITED, "B", 5, 1000), 0x30)


def test_new_limits_count_from_then_on(venue):
    venue.do("define_account", LIMITED, "limited", quantity_max_lots=5)
    refused(venue.enter(LIMITED, "B", 6, 1000), 0x31)
    venue.do("define_account", LIMITED, "limited")
    assert kinds(venue.enter(LIMITED, "B", 6, 1000)) == ["accepted"]


# ---- replacing ------------------------------------------------------------------------------

def test_a_replace_opens_what_the_chain_has_not_executed(venue):
    venue.enter(ONE, "S", 500, 1000)
    venue.enter(TWO, "B", 100, 1000)
    [event] = venue.replace(ONE, 1, 600, 1005)
    assert event["kind"] == "replaced"
    assert event["order_id"] == event["seq"]
    assert event["quantity_lots"] == 500
    assert event["chain_quantity_lots"] == 600
    assert event["chain_done_lots"] == 100
    assert event["orig_price_units"] == 1000
    assert event["orig_open_lots"] == 400
    assert event["orig_time_in_force"] == "0"
    assert event["instrument_id"] == 1
    assert venue.book() == ([], [(1005, 500, 1)])


def test_a_replace_keeps_counting_over_several_steps(venue):
    venue.enter(ONE, "S", 100, 1000)
    venue.enter(TWO, "B", 10, 1000)
    venue.replace(ONE, 1, 100, 1000)
    venue.enter(TWO, "B", 20, 1000)
    [event] = venue.replace(ONE, 2, 100, 1000)
    assert (event["quantity_lots"], event["chain_done_lots"]) == (70, 30)


def test_a_replace_loses_its_place_even_for_less(venue):
    venue.enter(ONE, "S", 10, 1000)
    second = venue.enter(TWO, "S", 10, 1000)[0]["order_id"]
    venue.replace(ONE, 1, 5, 1000)
    assert venue.enter(TWO, "B", 1, 1000)[1]["maker_order_id"] == second


def test_a_replace_may_trade_at_once(venue):
    venue.enter(ONE, "S", 10, 1000)
    venue.enter(TWO, "B", 10, 900)
    assert kinds(venue.replace(TWO, 1, 15, 1000)) == ["replaced", "fill"]
    assert venue.book() == ([(1000, 5, 1)], [])


def test_a_replace_of_what_is_not_live_is_ignored_and_uses_nothing_up(venue):
    assert venue.do("replace", ONE, 1, 2, 10, 1000) == []
    assert kinds(venue.do("enter", ONE, 1, 1, "B", 10, 1000)) == ["accepted"]
    assert venue.do("replace", ONE, 1, 1, 10, 1000) == []
    assert kinds(venue.do("replace", ONE, 1, 2, 10, 1000)) == ["replaced"]
    assert venue.do("replace", ONE, 1, 3, 10, 1000) == []


@pytest.mark.parametrize("terms", [
    (0, 1000, "0", {}), (10_001, 1000, "0", {}), (4, 1000, "0", {}), (3, 1000, "0", {}),
    (20, 1001, "0", {}), (20, 0, "0", {}), (20, 2_000_000_005, "0", {}),
    (20, 1000, "0", {"side": "B"}), (20, 1000, "0", {"min_quantity_lots": 1}),
    (20, 1000, "3", {"min_quantity_lots": 17}), (20, 1000, "0", {"flags": DOOR})])
def test_a_replace_with_invalid_terms_cancels_the_original(venue, terms):
    lots, price, time_in_force, more = terms
    venue.enter(ONE, "S", 10, 1000)
    original = venue.enter(TWO, "B", 4, 1000)[1]["maker_order_id"]
    events = venue.replace(ONE, 1, lots, price, time_in_force, **more)
    assert kinds(events) == ["replace_refused", "canceled"]
    assert events[0]["first"]
    assert not events[1]["first"]
    assert events[1]["order_id"] == original
    assert (events[1]["reason"], events[1]["quantity_lots"]) == ("U", 6)
    assert venue.book() == ([], [])
    assert venue.matcher.last_user_ref_num(ONE, 0) == 1
    assert kinds(venue.do("enter", ONE, 2, 1, "B", 1, 1000)) == ["accepted"]


def test_a_replace_that_fails_a_limit_cancels_the_original():
    venue = Venue(quantity_max_lots=50, notional_max=30_000)
    venue.enter(LIMITED, "B", 10, 1000)
    assert kinds(venue.replace(LIMITED, 1, 51, 100)) == ["replace_refused", "canceled"]
    venue.do("enter", LIMITED, 10, 1, "B", 10, 1000)
    assert kinds(venue.do("replace", LIMITED, 10, 11, 31, 1000)) == ["replace_refused", "canceled"]


def test_the_side_may_change_among_the_sells_only(venue):
    venue.enter(ONE, "S", 10, 1000)
    assert venue.replace(ONE, 1, 10, 1000, side="T")[0]["side"] == "T"
    assert venue.replace(ONE, 2, 10, 1000, side="S")[0]["side"] == "S"
    [event] = venue.replace(ONE, 3, 10, 1000)
    assert (event["side"], event["command_side"], event["orig_side"]) == ("S", "", "S")
    venue.enter(TWO, "B", 10, 900)
    assert kinds(venue.replace(TWO, 1, 10, 900, side="S")) == ["replace_refused", "canceled"]


def test_post_only_is_inherited_unless_the_message_says_otherwise(venue):
    venue.enter(ONE, "S", 10, 1000)
    venue.enter(TWO, "B", 10, 900, post_only=True)
    [event] = venue.replace(TWO, 1, 10, 905)
    assert event["post_only"]
    assert event["command_flags"] == 0
    assert kinds(venue.replace(TWO, 2, 10, 1000, post_only=False)) == ["replaced", "fill"]
    venue.enter(ONE, "S", 10, 1000)
    venue.enter(TWO, "B", 10, 900, post_only=True)
    events = venue.replace(TWO, 4, 10, 1000)
    assert (kinds(events), events[1]["reason"]) == (["replaced", "canceled"], "G")


def test_a_replace_takes_display_from_the_message_and_capacity_from_the_original(venue):
    venue.enter(ONE, "S", 10, 1000, display="A", capacity="R")
    [event] = venue.replace(ONE, 1, 10, 1000, display="N")
    assert (event["display"], event["capacity"]) == ("N", "R")


def test_firm_is_carried_over_a_replace_and_minimum_quantity_is_not(venue):
    venue.enter(ONE, "S", 10, 1000, firm="ABCD")
    assert venue.replace(ONE, 1, 10, 1005)[0]["options"] == {"firm": "ABCD"}
    [event, canceled] = venue.replace(ONE, 2, 10, 1005, "3", min_quantity_lots=2)
    assert event["options"] == {"firm": "ABCD", "min_quantity_lots": 2}
    assert canceled["reason"] == "I"
    venue.enter(ONE, "S", 10, 1000)
    assert "options" not in venue.replace(ONE, 4, 10, 1005)[0]


@pytest.mark.parametrize(("flags", "reason"), [
    (Flag.RATE_EXCEEDED, 0x29), (Flag.DOOR_REASON | Flag.UNSERVED, 0)])
def test_a_replace_refused_as_a_message_leaves_the_original(venue, flags, reason):
    venue.enter(ONE, "S", 10, 1000)
    events = venue.replace(ONE, 1, 10, 1005, flags=int(flags))
    assert refused(events, reason)
    assert venue.book() == ([], [(1000, 10, 1)])
    assert venue.matcher.last_user_ref_num(ONE, 0) == 2


# ---- canceling and modifying ----------------------------------------------------------------

def test_a_cancel_takes_all_or_down_to_a_size(venue):
    venue.enter(ONE, "B", 100, 1000, client_order="x")
    [event] = venue.do("cancel", ONE, 1, 40)
    assert event["first"]
    assert (event["quantity_lots"], event["remaining_lots"]) == (60, 40)
    assert (event["reason"], event["command"], event["command_quantity"]) == (
        "U", "cmd_cancel", 40)
    assert venue.book() == ([(1000, 40, 1)], [])
    [event] = venue.do("cancel", ONE, 1)
    assert (event["quantity_lots"], event["remaining_lots"]) == (40, 0)
    assert venue.book() == ([], [])


def test_the_intended_size_includes_what_was_executed(venue):
    venue.enter(ONE, "B", 100, 1000)
    venue.enter(TWO, "S", 30, 1000)
    assert venue.do("cancel", ONE, 1, 100) == []
    [event] = venue.do("cancel", ONE, 1, 50)
    assert (event["quantity_lots"], event["remaining_lots"]) == (50, 20)
    [event] = venue.do("cancel", ONE, 1, 30)
    assert (event["quantity_lots"], event["remaining_lots"]) == (20, 0)


def test_a_superfluous_cancel_is_ignored(venue):
    venue.enter(ONE, "B", 100, 1000)
    for size in (100, 101, 2**40):
        assert venue.do("cancel", ONE, 1, size) == []
    assert venue.do("cancel", ONE, 2) == []
    assert venue.do("cancel", TWO, 1) == []
    assert venue.do("modify", ONE, 9, "B", 10) == []


def test_reducing_keeps_the_place(venue):
    first = venue.enter(ONE, "S", 10, 1000)[0]["order_id"]
    venue.enter(TWO, "S", 10, 1000)
    venue.do("cancel", ONE, 1, 5)
    venue.do("modify", ONE, 1, "S", 4)
    fill = venue.enter(TWO, "B", 1, 1000)[1]
    assert fill["maker_order_id"] == first


def test_a_modify_reduces_and_is_always_answered(venue):
    venue.enter(ONE, "S", 10, 1000)
    [event] = venue.do("modify", ONE, 1, "T", 6)
    assert event["kind"] == "modified"
    assert (event["side"], event["previous_side"], event["command_side"]) == ("T", "S", "T")
    assert (event["quantity_lots"], event["reduced_lots"], event["command_quantity"]) == (6, 4, 6)
    [event] = venue.do("modify", ONE, 1, "T", 600)
    assert (event["quantity_lots"], event["reduced_lots"]) == (6, 0)
    assert venue.book() == ([], [(1000, 6, 1)])


def test_a_modify_to_nothing_cancels(venue):
    venue.enter(ONE, "S", 10, 1000)
    venue.enter(TWO, "B", 3, 1000)
    [event] = venue.do("modify", ONE, 1, "E", 3)
    assert (event["kind"], event["reason"], event["command"]) == ("canceled", "U", "cmd_modify")
    assert (event["quantity_lots"], event["remaining_lots"], event["side"]) == (7, 0, "S")


@pytest.mark.parametrize(("old", "new"), [
    ("S", "B"), ("B", "S"), ("T", "S"), ("T", "E"), ("E", "S"), ("S", "x"), ("B", "T")])
def test_a_modify_to_a_side_that_is_not_allowed_is_refused(venue, old, new):
    venue.enter(ONE, old, 10, 1000)
    [event] = venue.do("modify", ONE, 1, new, 5)
    refused([event], 0x09)
    assert event["command"] == "cmd_modify"
    assert venue.matcher.orders(1)[0]["quantity_lots"] == 10
    assert venue.matcher.orders(1)[0]["side"] == old


@pytest.mark.parametrize(("old", "new"), [("S", "E"), ("S", "T"), ("E", "T"), ("B", "B")])
def test_a_modify_to_a_side_that_is_allowed(venue, old, new):
    venue.enter(ONE, old, 10, 1000)
    assert venue.do("modify", ONE, 1, new, 10)[0]["side"] == new


# ---- whole accounts -------------------------------------------------------------------------

def test_a_mass_cancel_takes_what_it_means_oldest_first(venue):
    ids = [event["order_id"] for event in (
        *venue.enter(ONE, "B", 1, 1000), *venue.enter(ONE, "S", 1, 1100),
        *venue.enter(ONE, "T", 1, 1050, instrument=2), *venue.enter(ONE, "B", 1, 1005))]
    venue.enter(TWO, "B", 1, 1000)
    events = venue.do("mass_cancel", ONE, 50)
    assert kinds(events) == ["mass_canceled"] + ["canceled"] * 4
    assert [event["order_id"] for event in events[1:]] == ids
    assert {event["reason"] for event in events[1:]} == {"U"}
    assert venue.matcher.resting_orders == 1
    assert venue.do("mass_cancel", ONE, 50) == []


@pytest.mark.parametrize(("filters", "left"), [
    ({"side": "B"}, 3), ({"side": "S"}, 1), ({"side": "T"}, 1), ({"instrument_id": 2}, 3),
    ({"instrument_id": 1}, 1), ({"instrument_id": 1, "side": "S"}, 2), ({"group_id": 0}, 0),
    ({"group_id": 3}, 4), ({"instrument_id": 7}, 4)])
def test_a_mass_cancel_can_be_narrowed(venue, filters, left):
    venue.enter(ONE, "B", 1, 1000)
    venue.enter(ONE, "S", 1, 1100)
    venue.enter(ONE, "T", 1, 1050, instrument=2)
    venue.enter(ONE, "E", 1, 1200)
    venue.do("mass_cancel", ONE, 50, **filters)
    assert venue.matcher.resting_orders == left


def test_a_mass_cancel_covers_every_channel_and_only_sequenced_sources(venue):
    venue.do("enter", ONE, 1, 1, "B", 1, 1000, user_ref_idx=9)
    venue.do("enter", ONE, 1, 1, "B", 1, 1000, source=int(Source.HTTP))
    assert kinds(venue.do("mass_cancel", ONE, 1, user_ref_idx=4)) == ["mass_canceled", "canceled"]
    assert [order["source"] for order in venue.matcher.orders(1)] == ["http"]


@pytest.mark.parametrize("name", ["mass_cancel", "order_entry"])
def test_an_account_action_for_another_firm_is_refused(venue, name):
    arguments = (False,) if name == "order_entry" else ()
    [event] = venue.do(name, ONE, 1, *arguments, firm="BBBB")
    refused([event], 0x0C)
    assert event["firm"] == "BBBB"
    assert len(venue.do(name, ONE, 1, *arguments, firm="AAAA")) == 0  # the number is used up
    assert len(venue.do(name, ONE, 2, *arguments, firm="AAAA")) == 1


def test_disabled_entry_refuses_new_orders_and_leaves_resting_ones(venue):
    venue.enter(ONE, "B", 1, 1000)
    assert kinds(venue.do("order_entry", ONE, 10, False)) == ["entry_disabled"]
    assert kinds(venue.do("order_entry", ONE, 11, False)) == ["entry_disabled"]
    refused(venue.do("enter", ONE, 12, 1, "B", 1, 1000), 0x0C)
    refused(venue.do("replace", ONE, 1, 13, 1, 1000), 0x0C)
    assert venue.book() == ([(1000, 1, 1)], [])
    assert kinds(venue.do("cancel", ONE, 1)) == ["canceled"]
    assert kinds(venue.do("order_entry", ONE, 14, True)) == ["entry_enabled"]
    assert kinds(venue.do("enter", ONE, 15, 1, "B", 1, 1000)) == ["accepted"]


def test_an_account_query_tells_the_next_number(venue):
    assert venue.do("account_query", ONE)[0]["next_user_ref_num"] == 1
    venue.do("enter", ONE, 41, 1, "B", 1, 1000)
    assert venue.do("account_query", ONE)[0]["next_user_ref_num"] == 42
    assert venue.do("account_query", ONE, user_ref_idx=7)[0]["next_user_ref_num"] == 1


# ---- the session ----------------------------------------------------------------------------

def test_a_roll_ends_day_orders_and_announces_the_others(venue):
    venue.enter(ONE, "B", 10, 1000)
    kept = venue.enter(ONE, "B", 20, 995, "1", firm="ABCD", client_order="keep")[0]["order_id"]
    venue.enter(TWO, "S", 12, 995)
    events = venue.do("session_roll")
    assert kinds(events) == ["roll_started", "session_started", "announced"]
    assert events[0]["generation"] == events[1]["generation"] == 2
    announced = events[2]
    assert announced["order_id"] == kept
    assert (announced["user_ref_num"], announced["quantity_lots"]) == (1, 18)
    assert (announced["client_order"], announced["options"]) == ("keep", {"firm": "ABCD"})
    assert venue.matcher.generation == 2
    assert venue.matcher.orders(1)[0]["chain_done_lots"] == 0
    assert kinds(venue.do("cancel", ONE, 1)) == ["canceled"]


def test_a_roll_cancels_day_orders_in_order_of_their_ids(venue):
    ids = [venue.enter(ONE, side, 1, price)[0]["order_id"]
           for side, price in (("B", 1000), ("S", 1100), ("B", 1005))]
    events = venue.do("session_roll")
    assert kinds(events) == ["roll_started"] + ["canceled"] * 3 + ["session_started"]
    assert [event["order_id"] for event in events[1:4]] == ids
    assert {event["reason"] for event in events[1:4]} == {"E"}


def test_numbers_start_again_after_a_roll_and_entry_stays_disabled(venue):
    venue.do("enter", ONE, 100, 1, "B", 1, 1000, user_ref_idx=3)
    venue.do("order_entry", TWO, 9, False)
    venue.do("session_roll")
    assert venue.matcher.last_user_ref_num(ONE, 3) == 0
    assert kinds(venue.do("enter", ONE, 1, 1, "B", 1, 1000, user_ref_idx=3)) == ["accepted"]
    refused(venue.do("enter", TWO, 1, 1, "B", 1, 1000), 0x0C)


def test_a_batch_of_an_older_generation_is_ignored(venue):
    venue.do("session_roll")
    batch = CommandBatch()
    batch.generation = 1
    batch.enter(ONE, 1, 1, "B", 1, 1000)
    assert venue.run(batch) == []
    assert venue.matcher.counters["stale"] == 1
    batch.generation = 2
    assert kinds(venue.run(batch)) == ["accepted"]


def test_streams_count_messages_of_sequenced_sources(venue):
    assert venue.matcher.stream_next(ONE) == 1
    venue.enter(ONE, "S", 10, 1000)                             # A
    venue.enter(TWO, "B", 4, 1000)                              # A, E; E for the maker
    assert (venue.matcher.stream_next(ONE), venue.matcher.stream_next(TWO)) == (3, 3)
    venue.enter(TWO, "B", 1, 1000, source=int(Source.HTTP))     # nothing; E for the maker
    assert (venue.matcher.stream_next(ONE), venue.matcher.stream_next(TWO)) == (4, 3)
    venue.replace(ONE, 1, 0, 1000)                              # refused: only the C
    assert venue.matcher.stream_next(ONE) == 5
    venue.do("session_roll")
    assert venue.matcher.stream_next(ONE) == 1


def test_private_sides_of_a_fill_are_marked(venue):
    venue.enter(ONE, "S", 10, 1000, source=int(Source.HTTP))
    fill = venue.enter(TWO, "B", 4, 1000)[1]
    assert (fill["taker_private"], fill["maker_private"]) == (False, True)


def test_time_never_goes_back(venue):
    events = EventBatch()
    batch = CommandBatch()
    batch.account_query(ONE)
    venue.matcher.apply(batch, events, 5_000)
    venue.matcher.apply(batch, events, 4_000)
    assert [event["time_ns"] for event in events.dicts()] == [5_000, 5_000]
    assert venue.matcher.last_time_ns == 5_000


def test_ignored_commands_leave_nothing_behind(venue):
    before = venue.matcher.state_hash()
    venue.time_ns += 1_000_000
    assert venue.do("cancel", ONE, 7) == []
    assert venue.do("enter", ONE, 0, 1, "B", 1, 1000) == []
    assert venue.matcher.state_hash() == before


def test_events_are_appended_and_counted(venue):
    events = EventBatch()
    for number in range(1, 4):
        batch = CommandBatch()
        batch.enter(ONE, number, 1, "B", 1, 1000, firm="ABCD")
        assert venue.matcher.apply(batch, events, 0) == 1
    assert (events.event_count, len(events)) == (3, 6)
    assert [event["seq"] for event in events.dicts()] == [6, 7, 8]
    with pytest.raises(ValueError, match="do not end where the log ends"):
        Matcher().apply(CommandBatch(), events, 0)


def test_events_that_are_looked_at_can_not_grow(venue):
    events = EventBatch()
    view = memoryview(events)
    with pytest.raises(BufferError):
        venue.matcher.apply(CommandBatch(), events, 0)
    view.release()
    venue.matcher.apply(CommandBatch(), events, 0)


def test_unknown_instruments_and_accounts_are_key_errors_for_python(venue):
    for question in (lambda: venue.matcher.orders(9), lambda: venue.matcher.levels(9, 1),
                     lambda: venue.matcher.stream_next(99),
                     lambda: venue.matcher.last_user_ref_num(99, 0)):
        with pytest.raises(KeyError):
            question()


def test_the_tables_show_where_everything_stands(venue):
    venue.enter(ONE, "S", 10, 1000)
    venue.enter(TWO, "B", 4, 1000)
    venue.do("order_entry", TWO, 9, False)
    accounts, instruments = venue.matcher.accounts(), venue.matcher.instruments()
    assert accounts[ONE]["open_orders"] == 1
    assert (accounts[TWO]["entry_disabled"], accounts[TWO]["firm"]) == (True, "BBBB")
    assert accounts[TWO]["last_user_ref_num"] == {0: 9}
    assert instruments[1]["last_trade_units"] == 1000
    assert (instruments[1]["symbol"], instruments[1]["tick_units"]) == ("ABC-USD", 5)
    assert instruments[1]["resting_orders"] == 1
    assert instruments[2]["last_trade_units"] == 0


def test_exported_orders_are_announcements_in_priority_order(venue):
    venue.enter(ONE, "S", 10, 1005, firm="ABCD")
    venue.enter(ONE, "S", 10, 1000)
    batch = venue.matcher.export_orders()
    assert batch.event_count == 2
    assert [event["price_units"] for event in batch.dicts()] == [1000, 1005]
    assert batch.dicts()[1]["options"] == {"firm": "ABCD"}

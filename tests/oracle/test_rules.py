"""The rules of the venue, one scene each, with the answer known beforehand."""

import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from cython_core.model import Flag, Kind, Reject, Source
from tests.oracle.commands import Command
from tests.oracle.desk import KEEP_NO_POST_ONLY, MARKET, POST_ONLY, Desk


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.close()


# Matching


def test_the_best_price_trades_first_and_at_one_price_the_oldest(desk):
    desk.sell(1, 10, 101)
    desk.sell(2, 10, 100)
    desk.sell(1, 10, 100)
    assert desk.buy(3, 25, 105) == [
        ("accepted", 1, 25), ("fill", 2, 1, 10, 100), ("fill", 1, 2, 10, 100),
        ("fill", 1, 1, 5, 101)]


def test_an_account_may_trade_with_itself(desk):
    desk.sell(1, 10, 100)
    assert desk.buy(1, 10, 100) == [("accepted", 2, 10), ("fill", 1, 1, 10, 100)]


@pytest.mark.parametrize("price", [MARKET, MARKET + 1, 2_000_000_000, 2**63 - 1])
def test_a_market_order_takes_every_price_and_never_rests(desk, price):
    desk.sell(1, 10, 1_999_999_999)
    assert desk.buy(2, 15, price) == [
        ("accepted", 1, 15), ("fill", 1, 1, 10, 1_999_999_999), ("canceled", 1, 5, "I")]


def test_what_an_ioc_leaves_is_cancelled(desk):
    desk.sell(1, 10, 100)
    desk.sell(1, 10, 101)
    assert desk.buy(2, 15, 100, "3") == [
        ("accepted", 1, 15), ("fill", 1, 1, 10, 100), ("canceled", 1, 5, "I")]


@pytest.mark.parametrize("terms", [
    {"time_in_force": "4"}, {"time_in_force": "3", "options": {"min_quantity_lots": 20}}])
def test_a_fill_or_kill_trades_wholly_or_not_at_all(desk, terms):
    desk.sell(1, 10, 100)
    desk.sell(1, 9, 101)
    assert desk.buy(2, 20, 101, **terms) == [("accepted", 1, 20), ("canceled", 1, 20, "I")]
    desk.sell(1, 1, 101)
    told = desk.buy(2, 20, 101, **terms)
    assert [event[0] for event in told] == ["accepted", "fill", "fill", "fill"]


def test_an_ioc_with_a_minimum_trades_from_the_minimum_on(desk):
    desk.sell(1, 10, 100)
    assert desk.buy(2, 20, 100, "3", options={"min_quantity_lots": 11}) == [
        ("accepted", 1, 20), ("canceled", 1, 20, "I")]
    assert desk.buy(2, 20, 100, "3", options={"min_quantity_lots": 10}) == [
        ("accepted", 2, 20), ("fill", 1, 1, 10, 100), ("canceled", 2, 10, "I")]


def test_a_post_only_order_that_would_trade_is_cancelled(desk):
    desk.sell(1, 10, 100)
    assert desk.buy(2, 5, 100, flags=POST_ONLY) == [("accepted", 1, 5), ("canceled", 1, 5, "G")]
    assert desk.buy(2, 5, 99, flags=POST_ONLY) == [("accepted", 2, 5)]


# Numbers and rejects


def test_a_number_at_or_below_the_last_is_ignored(desk):
    desk.buy(1, 5, 100, number=7)
    assert desk.buy(1, 5, 100, number=7) == []
    assert desk.buy(1, 5, 100, number=6) == []
    assert desk.buy(1, 5, 100, number=0) == []
    assert desk.buy(1, 5, 100, number=1, channel=3) == [("accepted", 1, 5)]


def test_after_the_last_number_every_order_is_rejected(desk):
    desk.buy(1, 5, 100, number=2**32 - 1)
    assert desk.buy(1, 5, 100, number=1) == [("rejected", "000F")]
    assert desk.query(1) == [("account_queried", 2**32 - 1)]
    desk.roll()
    assert desk.buy(1, 5, 100, number=1) == [("accepted", 1, 5)]


def test_a_reject_consumes_the_number(desk):
    assert desk.buy(1, 0, 100) == [("rejected", "0013")]
    assert desk.query(1) == [("account_queried", 2)]


@pytest.mark.parametrize(("order", "reason"), [
    ({"instrument_id": 9}, "0017"), ({"quantity_lots": 2**32}, "0013"),
    ({"quantity_lots": 2**64 - 1}, "0013"), ({"price_units": 0}, "001D"),
    ({"price_units": -2**63}, "001D"), ({"price_units": 150}, "001D"),
    ({"price_units": 2_000_000_001}, "001D"), ({"price_units": 2**31 - 2}, "001D"),
    ({"options": {"min_quantity_lots": 1}}, "000D"),
    ({"time_in_force": "3", "options": {"min_quantity_lots": 11}}, "000D"),
    ({"time_in_force": "4", "options": {"min_quantity_lots": 10}}, "000D"),
    ({"flags": Flag.DOOR_REASON, "door_reason": Reject.AIQ, "quantity_lots": 0}, "0040"),
    ({"flags": Flag.DOOR_REASON | Flag.RATE_EXCEEDED, "door_reason": Reject.AIQ}, "0029"),
])
def test_an_order_is_rejected_for_the_first_thing_that_is_wrong_with_it(desk, order, reason):
    terms = {"account_id": 1, "quantity_lots": 10, "price_units": 200, "instrument_id": 2, **order}
    assert desk.buy(**terms) == [("rejected", reason)]


def test_orders_of_a_disabled_account_are_rejected_before_anything_else_is_looked_at(desk):
    desk.buy(1, 10, 100)
    assert desk.order_entry(1, enable=False) == [("entry_disabled",)]
    assert desk.order_entry(1, enable=False) == [("entry_disabled",)]
    assert desk.buy(1, 0, 0) == [("rejected", "000C")]
    assert desk.replace(1, 1, 5, 100) == [("rejected", "000C")]
    assert desk.cancel(1, 1, 4) == [("canceled", 1, 6, "U")]
    desk.roll()
    assert desk.buy(1, 5, 100) == [("rejected", "000C")]
    assert desk.order_entry(1, enable=True) == [("entry_enabled",)]
    assert desk.buy(1, 5, 100) == [("accepted", 3, 5)]


# Risk


def test_the_quantity_limit_counts_the_chain_of_a_replace(desk):
    desk.limits(1, quantity_max_lots=10)
    assert desk.buy(1, 11, 100) == [("rejected", "0031")]
    desk.buy(1, 10, 100)
    desk.sell(2, 8, 100)
    assert desk.replace(1, 2, 11, 100) == [("replace_refused",), ("canceled", 2, 2, "U")]


def test_the_notional_limit_counts_what_a_replace_leaves_open(desk):
    desk.limits(1, notional_max=1_000)
    assert desk.buy(1, 11, 100) == [("rejected", "0030")]
    desk.buy(1, 10, 100)
    desk.sell(2, 8, 100)
    assert desk.replace(1, 2, 18, 100) == [("replaced", 3, 10)]
    assert desk.replace(1, 3, 19, 100) == [("replace_refused",), ("canceled", 3, 10, "U")]


@pytest.mark.parametrize("limits", [
    {"quantity_max_lots": 2**8}, {"quantity_max_lots": 2**63}, {"notional_max": 2**16},
    {"notional_max": 2**40}, {"open_orders_max": 2**8}, {"collar_bps": 2**8},
    {"collar_bps": 2**31}])
def test_a_limit_counts_whatever_its_lowest_bits_are(desk, limits):
    """Whether an account has limits at all must not be read off one byte of a limit."""
    desk.buy(2, 1, 2**10)
    desk.limits(1, **limits)
    commands = [Command(Kind.CMD_ENTER, 1, number, 0, 1, "B", 1, 2**10, "0")
                for number in range(1, 300)]
    commands.append(Command(Kind.CMD_ENTER, 1, 300, 0, 1, "B", 2**32 - 1, 1_999_999_999, "0"))
    commands.append(Command(Kind.CMD_ENTER, 1, 301, 0, 1, "B", 300, 2**11, "0"))
    desk.pair.send(commands)
    desk.pair.compare_state()


def test_the_notional_limit_does_not_overflow(desk):
    desk.limits(1, notional_max=2**64 - 1)
    assert desk.buy(1, 2**32 - 1, 1_999_999_999) == [("accepted", 1, 2**32 - 1)]


def test_the_notional_of_a_market_order_is_taken_at_the_best_opposite_price(desk):
    desk.limits(1, notional_max=1_000)
    assert desk.buy(1, 11, MARKET) == [("accepted", 1, 11), ("canceled", 1, 11, "I")]
    desk.sell(2, 1, 100)
    assert desk.buy(1, 11, MARKET) == [("rejected", "0030")]
    desk.buy(3, 1, 100)
    assert desk.buy(1, 11, MARKET) == [("rejected", "0030")]
    assert desk.buy(1, 10, MARKET) == [("accepted", 4, 10), ("canceled", 4, 10, "I")]


def test_the_limit_of_open_orders_spares_orders_that_cannot_rest(desk):
    desk.limits(1, open_orders_max=2)
    desk.buy(1, 5, 100)
    desk.buy(1, 5, 100, instrument_id=2)
    assert desk.buy(1, 5, 100) == [("rejected", "0020")]
    assert desk.buy(1, 5, 100, "3") == [("accepted", 4, 5), ("canceled", 4, 5, "I")]
    assert desk.buy(1, 5, MARKET) == [("accepted", 5, 5), ("canceled", 5, 5, "I")]
    assert desk.replace(1, 1, 6, 100) == [("replaced", 6, 6)]
    desk.cancel(1, 6)
    assert desk.buy(1, 5, 100) == [("accepted", 7, 5)]


def test_the_collar_looks_at_the_last_trade_then_opposite_then_own_quote(desk):
    desk.limits(1, collar_bps=100)
    assert desk.buy(1, 1, 77) == [("accepted", 1, 1)]
    desk.cancel(1, 1)
    desk.buy(2, 1, 1_000)
    assert desk.buy(1, 1, 989) == [("rejected", "0026")]
    assert desk.buy(1, 1, 990) == [("accepted", 3, 1)]
    desk.sell(2, 1, 2_000)
    assert desk.buy(1, 1, 990) == [("rejected", "0026")]
    assert desk.buy(1, 1, 1_980) == [("accepted", 5, 1)]
    desk.buy(3, 1, 2_000)
    assert desk.buy(1, 1, 2_021) == [("rejected", "0026")]
    assert desk.buy(1, 1, 2_020) == [("accepted", 7, 1)]
    assert desk.buy(1, 1, MARKET) == [("accepted", 8, 1), ("canceled", 8, 1, "I")]


# Replace


def test_a_replace_counts_what_the_chain_has_executed(desk):
    desk.buy(1, 500, 100)
    desk.sell(2, 100, 100)
    assert desk.replace(1, 1, 500, 99) == [("replaced", 2, 400)]
    assert desk.replace(1, 2, 600, 99) == [("replaced", 3, 500)]
    assert desk.cancel(1, 3, 300) == [("canceled", 3, 300, "U")]
    assert desk.replace(1, 3, 100, 99) == [("replace_refused",), ("canceled", 3, 200, "U")]


def test_a_replace_loses_its_place_even_for_less(desk):
    desk.sell(1, 10, 100)
    desk.sell(2, 10, 100)
    assert desk.replace(1, 1, 5, 100) == [("replaced", 2, 5)]
    assert desk.buy(3, 11, 100) == [
        ("accepted", 1, 11), ("fill", 2, 1, 10, 100), ("fill", 1, 2, 1, 100)]


def test_a_replacement_may_trade_at_once_and_its_fills_join_the_chain(desk):
    desk.sell(2, 5, 105)
    desk.buy(1, 10, 100)
    assert desk.replace(1, 1, 10, 105) == [("replaced", 2, 10), ("fill", 2, 1, 5, 105)]
    assert desk.replace(1, 2, 5, 105) == [("replace_refused",), ("canceled", 2, 5, "U")]


def test_a_replace_of_what_is_not_live_or_with_a_used_number_is_ignored(desk):
    desk.buy(1, 10, 100)
    assert desk.replace(1, 9, 10, 101) == []
    assert desk.replace(1, 1, 10, 101, number=1) == []
    assert desk.replace(1, 1, 10, 101, channel=2) == []
    assert desk.query(1) == [("account_queried", 2)]


@pytest.mark.parametrize("terms", [
    {"quantity_lots": 0}, {"quantity_lots": 2**32}, {"price_units": 0}, {"price_units": 150},
    {"side": "B"}, {"options": {"min_quantity_lots": 1}},
    {"time_in_force": "3", "options": {"min_quantity_lots": 11}}, {"flags": Flag.DOOR_REASON}])
def test_a_replace_with_invalid_terms_cancels_the_original_and_consumes_no_number(desk, terms):
    desk.sell(1, 10, 100, instrument_id=2)
    terms = {"quantity_lots": 10, "price_units": 200, **terms}
    assert desk.replace(1, 1, **terms) == [("replace_refused",), ("canceled", 1, 10, "U")]
    assert desk.query(1) == [("account_queried", 2)]


@pytest.mark.parametrize("flags", [
    Flag.RATE_EXCEEDED, Flag.DOOR_REASON | Flag.UNSERVED, Flag.RATE_EXCEEDED | Flag.DOOR_REASON])
def test_a_rejected_replace_leaves_the_original_and_consumes_the_number(desk, flags):
    desk.buy(1, 10, 100)
    (told,) = desk.replace(1, 1, 0, 0, flags=flags, door_reason=Reject.PEG)
    assert told == ("rejected", "0029" if Flag.RATE_EXCEEDED in flags else "0011")
    assert desk.query(1) == [("account_queried", 3)]
    assert desk.cancel(1, 1) == [("canceled", 1, 10, "U")]


def test_a_replace_may_change_the_marking_of_a_sale_but_not_its_side(desk):
    desk.sell(1, 10, 100)
    assert desk.replace(1, 1, 10, 100, side="T") == [("replaced", 2, 10)]
    assert desk.replace(1, 2, 10, 100, side="S") == [("replaced", 3, 10)]
    assert desk.replace(1, 3, 10, 100, side="E") == [("replaced", 4, 10)]
    assert desk.replace(1, 4, 10, 100, side="B") == [("replace_refused",), ("canceled", 4, 10, "U")]


def test_a_replacement_inherits_post_only_unless_its_message_decides(desk):
    desk.sell(2, 10, 105)
    desk.buy(1, 10, 100, flags=POST_ONLY)
    desk.replace(1, 1, 10, 101)
    assert desk.replace(1, 2, 10, 105) == [("replaced", 3, 10), ("canceled", 3, 10, "G")]
    desk.buy(1, 10, 100, flags=POST_ONLY)
    assert desk.replace(1, 4, 10, 105, flags=KEEP_NO_POST_ONLY) == [
        ("replaced", 5, 10), ("fill", 2, 1, 10, 105)]


def test_a_replacement_may_be_immediate_or_at_market(desk):
    desk.sell(2, 4, 105)
    desk.buy(1, 10, 100)
    assert desk.replace(1, 1, 10, 105, "3") == [
        ("replaced", 2, 10), ("fill", 2, 1, 4, 105), ("canceled", 2, 6, "I")]
    desk.buy(1, 10, 100)
    assert desk.replace(1, 3, 10, MARKET) == [("replaced", 4, 10), ("canceled", 4, 10, "I")]
    desk.buy(1, 10, 100)
    assert desk.replace(1, 5, 10, 105, "4") == [("replaced", 6, 10), ("canceled", 6, 10, "I")]


def test_a_replacement_carries_options_but_not_those_that_must_be_repeated(desk):
    desk.buy(1, 10, 100, options={"group_id": 7, "firm": "CCCC", "shares_located": "Y"})
    events = desk.pair.log
    desk.replace(1, 1, 10, 100, options={"customer_type": "R"})
    (replaced,) = events[-1].dicts()
    assert replaced["options"] == {"group_id": 7, "firm": "CCCC", "customer_type": "R"}
    assert desk.mass_cancel(1, group_id=7) == [("mass_canceled",), ("canceled", 2, 10, "U")]


# Cancel and modify


def test_a_cancel_names_the_size_that_is_meant_and_keeps_the_place(desk):
    desk.sell(1, 10, 100)
    desk.sell(2, 10, 100)
    desk.buy(3, 4, 100)
    assert desk.cancel(1, 1, 10) == []
    assert desk.cancel(1, 1, 7) == [("canceled", 1, 3, "U")]
    assert desk.buy(3, 4, 100) == [
        ("accepted", 2, 4), ("fill", 1, 1, 3, 100), ("fill", 2, 1, 1, 100)]
    assert desk.cancel(1, 1) == []
    assert desk.cancel(2, 1, 1) == [("canceled", 1, 9, "U")]


def test_sizes_beyond_32_bits_are_reduced_exactly():
    """The log shows no more than 32 bits of the size asked for; the order is exact."""
    matcher, commands, events = Matcher(), CommandBatch(), EventBatch()
    commands.define_instrument(1, "ONE", "ONE", 4, 1, 12, quantity_max_lots=2**63)
    commands.define_account(1, "ALICE")
    commands.enter(1, 1, 1, "B", 2**40, 100)
    commands.enter(1, 2, 1, "B", 2**40, 99)
    commands.cancel(1, 1, 2**39)
    commands.modify(1, 2, "B", 2**38)
    matcher.apply(commands, events, 0)
    canceled, modified = events.dicts()[-2:]
    assert (canceled["quantity_lots"], canceled["remaining_lots"]) == (2**39, 2**39)
    assert (modified["quantity_lots"], modified["reduced_lots"]) == (2**38, 2**40 - 2**38)
    assert canceled["command_quantity"] == modified["command_quantity"] == 2**32 - 1
    assert matcher.levels(1, 2)[0] == [(100, 2**39, 1), (99, 2**38, 1)]


def test_a_modify_changes_short_markings_only_forward(desk):
    desk.sell(1, 10, 100)
    assert desk.modify(1, 1, "T", 10) == [("modified", 1, 10, "T")]
    assert desk.modify(1, 1, "S", 10) == [("rejected", "0009")]
    assert desk.order("E", 1, 10, 100) == [("accepted", 2, 10)]
    assert desk.modify(1, 2, "T", 8) == [("modified", 2, 8, "T")]
    assert desk.modify(1, 2, "E", 8) == [("rejected", "0009")]
    assert desk.modify(1, 2, "?", 8) == [("rejected", "0009")]
    assert desk.query(1) == [("account_queried", 3)]


def test_a_modify_never_grows_keeps_the_place_and_is_always_answered(desk):
    desk.buy(1, 10, 100)
    desk.buy(2, 10, 100)
    assert desk.modify(1, 1, "B", 99) == [("modified", 1, 10, "B")]
    assert desk.modify(1, 1, "B", 6) == [("modified", 1, 6, "B")]
    assert desk.sell(3, 7, 100) == [
        ("accepted", 1, 7), ("fill", 1, 1, 6, 100), ("fill", 2, 1, 1, 100)]
    assert desk.modify(1, 1, "B", 6) == []
    assert desk.modify(2, 1, "B", 1) == [("canceled", 1, 9, "U")]


# Accounts


def test_a_mass_cancel_takes_orders_of_every_channel_by_age(desk):
    desk.sell(1, 1, 103, channel=9)
    desk.buy(1, 2, 90)
    desk.buy(2, 3, 90)
    desk.sell(1, 4, 200, instrument_id=2)
    desk.order("T", 1, 5, 104)
    assert desk.mass_cancel(1, channel=4, side="S", instrument_id=1) == [
        ("mass_canceled",), ("canceled", 1, 1, "U"), ("canceled", 3, 5, "U")]
    assert desk.mass_cancel(1, number=1, channel=4) == []
    assert desk.mass_cancel(1) == [
        ("mass_canceled",), ("canceled", 1, 2, "U"), ("canceled", 2, 4, "U")]
    assert desk.mass_cancel(2, side="B") == [("mass_canceled",), ("canceled", 1, 3, "U")]


def test_a_mass_cancel_of_group_zero_takes_orders_without_a_group(desk):
    desk.buy(1, 1, 90, options={"group_id": 5})
    desk.buy(1, 2, 90)
    desk.buy(1, 3, 90, options={"group_id": 0})
    assert desk.mass_cancel(1, group_id=0) == [
        ("mass_canceled",), ("canceled", 2, 2, "U"), ("canceled", 3, 3, "U")]
    assert desk.mass_cancel(1, group_id=5) == [("mass_canceled",), ("canceled", 1, 1, "U")]


def test_an_act_in_the_name_of_another_firm_is_rejected(desk):
    assert desk.mass_cancel(1, firm="AAAA") == [("rejected", "000C")]
    assert desk.mass_cancel(2, firm="AAAA") == [("mass_canceled",)]
    assert desk.order_entry(2, enable=False, firm="BBBB") == [("rejected", "000C")]
    assert desk.order_entry(2, enable=False, firm="BBBB", number=1) == []
    assert desk.buy(2, 1, 100) == [("accepted", 3, 1)]


def test_a_mass_cancel_of_an_unknown_symbol_is_rejected(desk):
    desk.buy(1, 1, 90)
    told = desk.mass_cancel(1, symbol="NOSUCH", flags=Flag.DOOR_REASON,
                            door_reason=Reject.SYMBOL, firm="ZZZZ")
    assert told == [("rejected", "0017")]
    assert desk.query(1) == [("account_queried", 3)]


# Sessions and time


def test_a_roll_ends_day_orders_and_announces_the_others_with_new_numbers(desk):
    desk.buy(1, 10, 100, "0")
    desk.buy(1, 10, 99, "1")
    desk.sell(2, 5, 100, "1", channel=6)
    desk.sell(1, 20, 110, "1", options={"group_id": 3})
    assert desk.buy(2, 8, 110) == [("accepted", 1, 8), ("fill", 1, 3, 8, 110)]
    assert desk.roll() == [
        ("roll_started",), ("canceled", 1, 5, "E"), ("session_started",),
        ("announced", 1, 10), ("announced", 2, 12)]
    assert desk.pair.matcher.generation == 2
    assert desk.pair.matcher.stream_next(1) == 3
    assert desk.pair.matcher.stream_next(2) == 1
    assert desk.query(1) == [("account_queried", 3)]
    assert desk.cancel(1, 2, 11) == [("canceled", 2, 1, "U")]
    assert desk.mass_cancel(1, group_id=3) == [("mass_canceled",), ("canceled", 2, 11, "U")]


def test_a_batch_of_an_older_session_is_ignored(desk):
    desk.roll()
    desk.pair.send_stale([Command(Kind.CMD_ACCOUNT_QUERY, 1)], 1)


def test_time_never_goes_back(desk):
    for time_ns, stamped_ns in ((5_000, 5_000), (4_000, 5_000), (0, 5_000), (5_001, 5_001)):
        desk.pair.time_ns = time_ns
        desk.query(1)
        assert desk.pair.matcher.last_time_ns == stamped_ns


def test_a_command_without_an_answer_leaves_no_trace_of_its_time(desk):
    desk.pair.time_ns = 9_000
    assert desk.cancel(1, 5) == []
    desk.pair.time_ns = 8_000
    desk.query(1)
    assert desk.pair.matcher.last_time_ns == 8_000


def test_both_ouch_transports_are_one_stream_and_one_set_of_numbers(desk):
    desk.buy(1, 5, 100, source=Source.UDP)
    assert desk.buy(1, 5, 100, number=1) == []
    assert desk.cancel(1, 1) == [("canceled", 1, 5, "U")]
    assert desk.pair.matcher.stream_next(1) == 3

"""Seeded order flow through matcher and oracle, and proof that a broken rule would be noticed."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from cython_core.model import Flag, Kind, Reject
from tests.oracle import naive_venue
from tests.oracle.naive_venue import NaiveVenue, Order
from tests.oracle.random_flow import RandomFlow
from tests.oracle.venue_pair import VenuePair

LONG = os.environ.get("MATCHD_TEST_PROFILE") == "long"
# A pair keeps its whole log, so many short lives rather than one endless one.
OPERATIONS_PER_SEED = 10_000
# Events that used a number up: each of its own, and of a resting order at a roll.
NUMBERED = ("accepted", "replaced", "mass_canceled", "entry_disabled", "entry_enabled",
            "announced")
SEEDS = range(100 if LONG else 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_flow_gives_the_events_and_the_state_of_the_oracle(seed):
    pair = VenuePair()
    flow = RandomFlow(seed, pair)
    flow.define()
    flow.run(OPERATIONS_PER_SEED)
    pair.finish()


@pytest.mark.parametrize("seed", range(1_000, 1_010 if LONG else 1_001))
def test_deep_and_scattered_books_behave_like_small_ones(seed):
    pair = VenuePair()
    flow = RandomFlow(seed, pair, orders_wanted=3_000)
    flow.define()
    flow.run(30_000 if LONG else 8_000)
    pair.finish()


def test_random_flow_meets_every_kind_of_event_and_every_reason():
    pair = VenuePair()
    flow = RandomFlow(33, pair)
    flow.define()
    flow.run(OPERATIONS_PER_SEED)
    events = [event for batch in pair.log for event in batch.dicts()]
    assert {event["kind"] for event in events} == {
        "accepted", "rejected", "replaced", "replace_refused", "canceled", "modified", "fill",
        "mass_canceled", "entry_disabled", "entry_enabled", "account_queried", "roll_started",
        "session_started", "announced", "instrument_defined", "account_defined",
        "instrument_halted", "instrument_resumed", "admin_act", "rules_set"}
    reasons = {event["reason"] for event in events if event["kind"] == "rejected"}
    assert reasons >= {
        Reject.RISK_MESSAGE_RATE, Reject.FIRM, Reject.SYMBOL, Reject.QUANTITY, Reject.PRICE,
        Reject.MIN_QUANTITY, Reject.RISK_QUANTITY, Reject.RISK_NOTIONAL,
        Reject.RISK_OPEN_ORDERS, Reject.RISK_COLLAR, Reject.SIDE, Reject.OTHER, Reject.PEG,
        Reject.HALTED, Reject.UNKNOWN_ORDER, Reject.DUPLICATE_CLIENT_ID, Reject.OTHER_DOOR,
        Reject.NOT_SMALLER}
    replies = [event for event in events if event["first"] and event["source"] == "http"]
    assert {event["kind"] for event in replies} >= {"accepted", "replaced", "mass_canceled"}
    # An order that came by OUCH, canceled or reduced by another door.
    assert any(event["kind"] == "canceled" and event.get("origin") and event["source"] == "tcp"
               for event in events)
    reasons = {event["reason"] for event in events if event["kind"] == "canceled"}
    assert reasons == {"U", "I", "G", "E"}
    assert late_kinds(events) >= {"accepted", "replaced", "mass_canceled", "entry_enabled"}


def late_kinds(events: list[dict[str, Any]]) -> set[str]:
    """What was done under a number that a later one had overtaken; by UDP alone."""
    last: dict[tuple[int, int], int] = {}
    kinds = set()
    for event in events:
        if event["kind"] == "session_started":
            last = {}
        if event.get("source") not in ("tcp", "udp") or event["kind"] not in NUMBERED:
            continue
        highest = last.get(channel_of(event), 0)
        if event["user_ref_num"] < highest:
            assert event["source"] == "udp"
            kinds.add(event["kind"])
        last[channel_of(event)] = max(event["user_ref_num"], highest)
    return kinds


def channel_of(event: dict[str, Any]) -> tuple[int, int]:
    return event["account_id"], event["user_ref_idx"]


class NewestFirst(NaiveVenue):
    """Within a price, the newest order trades first."""

    def orders(self, instrument_id: int) -> tuple[list[Order], list[Order]]:
        resting = list(reversed(self.resting.get(instrument_id, [])))
        buys = sorted((order for order in resting if order.is_buy), key=lambda o: -o.price_units)
        sells = sorted((order for order in resting if not order.is_buy),
                       key=lambda o: o.price_units)
        return buys, sells


class ReplaceKeepsItsPlace(NaiveVenue):
    """A replacement stands where its original stood."""

    def _replace(self, command: Any) -> None:
        original = self._live(command, command.orig_user_ref_num)
        place = original and self.resting[original.instrument_id].index(original)
        super()._replace(command)
        resting = original and self.resting[original.instrument_id]
        if resting and resting[-1].user_ref_num == command.user_ref_num:
            resting.insert(place, resting.pop())


class TakerPaysItsOwnPrice(NaiveVenue):
    """Trades happen at the taker's price."""

    def _emit(self, event: dict[str, Any]) -> None:
        if event["kind"] == "fill":
            event["price_units"] += 1
        super()._emit(event)


class ReducedOrderGoesToTheBack(NaiveVenue):
    """A partial cancel costs the place in the queue."""

    def _take_off(self, order: Order, *arguments: Any) -> None:
        super()._take_off(order, *arguments)
        if order.open_lots:
            self._remove(order)
            self.resting[order.instrument_id].append(order)


class ChainForgetsItsExecutions(NaiveVenue):
    """What a replace chain has executed does not count against its total."""

    def _fill(self, taker: Order, maker: Order) -> None:
        super()._fill(taker, maker)
        taker.chain_done_lots -= 1


class RollForgetsToRestartNumbers(NaiveVenue):
    """Numbers run on over a session roll."""

    def _session_roll(self, command: Any) -> None:
        numbers = {key: dict(value.last_number) for key, value in self.accounts.items()}
        super()._session_roll(command)
        for key, value in numbers.items():
            self.accounts[key].last_number.update(value)


class StrictOverUdp(NaiveVenue):
    """A number that a later one overtook is ignored, whatever the window."""

    def _is_in_window(self, command: Any) -> bool:
        return False


class WindowForAll(NaiveVenue):
    """What was overtaken is taken over TCP too."""

    def _is_in_window(self, command: Any) -> bool:
        distance = self.last_number(command.account_id, command.user_ref_idx)
        return 0 <= distance - command.user_ref_num < self.rules["udp_window"]


class WiderWindow(NaiveVenue):
    """The window has one number more."""

    def _is_in_window(self, command: Any) -> bool:
        self.rules["udp_window"] += self.rules["udp_window"] > 0
        found = super()._is_in_window(command)
        self.rules["udp_window"] -= self.rules["udp_window"] > 0
        return found


class RejectsLeaveTheirNumber(NaiveVenue):
    """A rejected order's number may come again over UDP."""

    def _reject(self, command: Any, reason: int, first_seq: int | None = None) -> None:
        super()._reject(command, reason, first_seq)
        account = self.accounts.get(command.account_id)
        if account is not None and command.kind != Kind.CMD_MODIFY:
            account.used.get(command.user_ref_idx, set()).discard(command.user_ref_num)


class OldGapsStayOpen(NaiveVenue):
    """What was missing before there was a window may still come."""

    def _set_rules(self, command: Any) -> None:
        super()._set_rules(command)
        for account in self.accounts.values():
            account.settled = {}


class CollarWithoutTrades(NaiveVenue):
    """The collar looks at quotes only."""

    def _collar_reference(self, order: Order) -> int:
        trades, self.last_trade = self.last_trade, {}
        reference = super()._collar_reference(order)
        self.last_trade = trades
        return reference


class MassCancelOfOneChannel(NaiveVenue):
    """A mass cancel takes the channel of its message only."""

    def _mass_cancel(self, command: Any) -> None:
        covers = naive_venue._mass_cancel_covers

        def only_this_channel(command: Any, order: Order) -> bool:
            return covers(command, order) and order.user_ref_idx == command.user_ref_idx

        naive_venue._mass_cancel_covers = only_this_channel
        try:
            super()._mass_cancel(command)
        finally:
            naive_venue._mass_cancel_covers = covers


class PostOnlyIsForgottenByReplace(NaiveVenue):
    """A replacement is post-only only if its own message says so."""

    def _replace(self, command: Any) -> None:
        command.flags |= Flag.POST_ONLY_SET
        super()._replace(command)
        command.flags &= ~Flag.POST_ONLY_SET


class KillSwitchIsTheAccounts(NaiveVenue):
    """The account can undo what the operator switched off."""

    def _order_entry(self, command: Any) -> None:
        super()._order_entry(command)
        account = self.accounts[command.account_id]
        if command.kind == Kind.CMD_ENABLE_ENTRY and not account.entry_disabled:
            account.killed = False


class HaltForgottenByReplace(NaiveVenue):
    """A halted instrument still takes replaces."""

    def _reason_against_replace(self, *arguments: Any) -> int | None:
        reason = super()._reason_against_replace(*arguments)
        return None if reason == Reject.HALTED else reason


class PrivateMassCancelOfPrivateOrders(NaiveVenue):
    """A mass cancel from a private source leaves OUCH orders alone."""

    def _mass_cancel(self, command: Any) -> None:
        covers = naive_venue._mass_cancel_covers
        naive_venue._mass_cancel_covers = lambda command, order: (
            covers(command, order) and command.is_private != order.has_stream)
        try:
            super()._mass_cancel(command)
        finally:
            naive_venue._mass_cancel_covers = covers


class PrivateOrdersUseNumbers(NaiveVenue):
    """A private order gets a number at a roll."""

    def _session_roll(self, command: Any) -> None:
        super()._session_roll(command)
        for order in self.live_orders():
            order.user_ref_num += not order.has_stream


class RefusedPrivateReplaceCancels(NaiveVenue):
    """A private replace with bad terms costs the original, as by OUCH."""

    def _private_replace(self, command: Any) -> None:
        original = self._private_order(command)
        super()._private_replace(command)
        if original and self.events[-1]["kind"] == "rejected" and original in self.live_orders():
            self._take_off(original, original.open_lots, "U")


class IdsEndWithTheFirstOrder(NaiveVenue):
    """A replacement does not carry its original's id on."""

    def _private_replace(self, command: Any) -> None:
        super()._private_replace(command)
        for order in self.live_orders():
            if order.order_id == self.next_seq - 1 and not command.client_order_id:
                order.client_order_id = ""


class IdsAreForgottenByAgeAlone(NaiveVenue):
    """How many ids an account has does not matter."""

    def _forget(self, account_id: int) -> None:
        self.rules, kept = {**self.rules, "kept_min": 0}, self.rules
        super()._forget(account_id)
        self.rules = kept


class RejectsAreNotRemembered(NaiveVenue):
    """An id may be used again after a reject."""

    def _reject_for_good(self, command: Any, reason: int) -> None:
        super()._reject_for_good(command, reason)
        self.client_ids.get(command.account_id, {}).pop(command.client_order_id, None)


@pytest.mark.parametrize("broken", [
    NewestFirst, ReplaceKeepsItsPlace, TakerPaysItsOwnPrice, ReducedOrderGoesToTheBack,
    ChainForgetsItsExecutions, RollForgetsToRestartNumbers, CollarWithoutTrades,
    MassCancelOfOneChannel, PostOnlyIsForgottenByReplace, KillSwitchIsTheAccounts,
    HaltForgottenByReplace, PrivateMassCancelOfPrivateOrders, PrivateOrdersUseNumbers,
    RefusedPrivateReplaceCancels, IdsEndWithTheFirstOrder, IdsAreForgottenByAgeAlone,
    RejectsAreNotRemembered, StrictOverUdp, WindowForAll, WiderWindow, RejectsLeaveTheirNumber,
    OldGapsStayOpen,
])
def test_a_broken_rule_is_noticed(broken: Callable[[], NaiveVenue]):
    pair = VenuePair(broken())
    flow = RandomFlow(1, pair)
    flow.define()
    with pytest.raises(AssertionError):
        flow.run(OPERATIONS_PER_SEED)

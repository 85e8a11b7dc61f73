"""Hypothesis looks for the shortest command sequence on which matcher and oracle differ.

Prices come from eleven ticks around one price and quantities are small, so that almost every
sequence trades; the values at the edges of their types are mixed in.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cython_core.model import Flag, Kind, Reject, Source
from tests.oracle.commands import Command, define_account, define_instrument, set_rules
from tests.oracle.naive_venue import Order
from tests.oracle.venue_pair import VenuePair

# The long profile takes minutes; the time limit of a single test is not meant for it.
pytestmark = pytest.mark.timeout(7_200)

LONG = os.environ.get("MATCHD_TEST_PROFILE") == "long"

TICKS = {1: 1, 2: 100, 9: 7}
UNKNOWN_INSTRUMENT = 5
FIRMS = {1: "", 2: "AAAA", 4_000_000_000: "BBBB"}

accounts = st.sampled_from(tuple(FIRMS))
channels = st.sampled_from((0, 0, 0, 1, 255))
instruments = st.sampled_from(tuple(TICKS))
sides = st.sampled_from("BBBSSTE")
picks = st.integers(0, 1_000)
ticks_away = st.integers(-5, 5)
# Orders that did not come by OUCH rest and trade like any other, but have no handle there.
sources = st.sampled_from((Source.TCP, Source.TCP, Source.TCP, Source.UDP, Source.HTTP))
private_sources = st.sampled_from((Source.HTTP, Source.REDIS, Source.ADMIN, Source.INTERNAL))
client_texts = st.sampled_from(("", "", "a", "b", "c", "d", "e", "f" * 35, "f" * 36))
keep_sizes = st.one_of(st.just(0), st.integers(0, 25), st.sampled_from((2**32, 2**40, 2**64 - 1)))
quantities = st.one_of(
    st.integers(1, 20), st.integers(1, 20),
    st.sampled_from((0, 999_999, 2**32 - 1, 2**32, 2**63, 2**64 - 1)))
odd_prices = st.sampled_from((
    None, None, None, None, None, None, -2**63, -1, 0, 1, 699, 1_999_999_999, 2_000_000_000,
    2_000_000_001, 2**31 - 2, 2**31 - 1, 2**31, 2**63 - 1))
ouch_sources = st.sampled_from((Source.TCP, Source.UDP))
# "late": a number that was never used, if there is one; "late" in vain is a repeat.
number_steps = st.sampled_from((1, 1, 1, 1, 1, 1, 0, -1, 2, 7, "late", "late", -2, -3, -1_023,
                                -1_024, -1_025, 1_023, 1_024, 1_025, "last", "nearly last"))
windows = st.sampled_from((0, 1, 2, 7, 1_023, 1_024, 1_024, 1_024))
times_in_force = st.sampled_from("000000113345")
post_only = st.sampled_from((
    Flag(0), Flag(0), Flag(0), Flag(0), Flag.POST_ONLY_SET, Flag.POST_ONLY_SET | Flag.POST_ONLY))
door_flags = st.sampled_from((
    Flag(0), Flag(0), Flag(0), Flag(0), Flag(0), Flag(0), Flag.RATE_EXCEEDED, Flag.DOOR_REASON,
    Flag.DOOR_REASON | Flag.UNSERVED))
options = st.one_of(
    st.just({}), st.just({}), st.just({}),
    st.fixed_dictionaries({}, optional={
        "min_quantity_lots": st.integers(0, 25), "group_id": st.integers(0, 2),
        "firm": st.just("AAAA"), "customer_type": st.sampled_from("RN "),
        "shares_located": st.sampled_from("YN"), "locate_broker": st.just("LOCB"),
        "handle_inst": st.sampled_from(" O")}))
limits = st.fixed_dictionaries({}, optional={
    "quantity_max_lots": st.sampled_from((1, 10, 15)),
    "notional_max": st.sampled_from((1, 7_000, 700_000, 2**64 - 1)),
    "open_orders_max": st.integers(1, 4), "collar_bps": st.sampled_from((1, 20, 100, 2**32 - 1)),
    "messages_per_second": st.just(1)})


def price_of(instrument_id: int, away: int, odd: int | None) -> int:
    """A price some ticks from the middle, or the odd one."""
    tick = TICKS[instrument_id]
    return odd if odd is not None else (700 // tick + 10 + away) * tick


class VenueMachine(RuleBasedStateMachine):
    """Every rule is one command, or one thing that is done to the venue from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = VenuePair()
        self.oracle = self.pair.oracle

    @initialize(account_limits=st.tuples(limits, limits, limits), window=windows)
    def define(self, account_limits: tuple[dict[str, int], ...], window: int) -> None:
        self.pair.send([define_instrument(number, f"I{number}", tick)
                        for number, tick in TICKS.items()], 1_000)
        self.pair.send([define_account(number, f"A{index}", FIRMS[number], **account_limits[index])
                        for index, number in enumerate(FIRMS)])
        if window:
            self.pair.send([set_rules(10, 1, 5, window)])

    def number(self, account_id: int, channel: int, step: int | str) -> int:
        if step == "last":
            return 2**32 - 1
        if step == "nearly last":
            return 2**32 - 1_000
        if step == "late":
            missing = self.oracle.missing_numbers(account_id, channel)
            return missing[len(missing) // 2] if missing else 1
        return min(max(0, self.oracle.last_number(account_id, channel) + int(step)), 2**32 - 1)

    def live(self, pick: int) -> Order | None:
        orders = self.oracle.live_orders()
        return orders[pick % len(orders)] if orders else None

    @rule(account_id=accounts, channel=channels, step=number_steps, instrument_id=instruments,
          side=sides, quantity_lots=quantities, away=ticks_away, odd=odd_prices,
          time_in_force=times_in_force, flags=post_only, door=door_flags, source=sources,
          extra=options, unknown=st.sampled_from((False,) * 9 + (True,)),
          reason=st.sampled_from((0, Reject.DISPLAY)))
    def enter(self, account_id: int, channel: int, step: int | str, instrument_id: int, side: str,
              quantity_lots: int, away: int, odd: int | None, time_in_force: str, flags: Flag,
              door: Flag, source: Source, extra: dict[str, Any], unknown: bool,
              reason: int) -> None:
        self.pair.send([Command(
            Kind.CMD_ENTER, account_id, self.number(account_id, channel, step), channel,
            UNKNOWN_INSTRUMENT if unknown else instrument_id, side, quantity_lots,
            price_of(instrument_id, away, odd), time_in_force, client_order="text",
            source=source, flags=flags | door, options=extra, raw=b"R" * 70 if door else b"",
            door_reason=reason if Flag.DOOR_REASON in door else 0)])

    @rule(account_id=accounts, instrument_id=instruments, channel=channels,
          orders=st.lists(st.tuples(sides, st.integers(1, 20), ticks_away,
                                    st.sampled_from("00013")), min_size=2, max_size=12))
    def enter_many(self, account_id: int, instrument_id: int, channel: int,
                   orders: list[tuple[str, int, int, str]]) -> None:
        first = self.oracle.last_number(account_id, channel) + 1
        if first + len(orders) < 2**32:
            self.pair.send([
                Command(Kind.CMD_ENTER, account_id, first + index, channel, instrument_id, side,
                        quantity_lots, price_of(instrument_id, away, None), time_in_force)
                for index, (side, quantity_lots, away, time_in_force) in enumerate(orders)])

    @rule(pick=picks, step=number_steps, more_lots=st.integers(-10, 20), absolute=quantities,
          use_absolute=st.sampled_from((False,) * 5 + (True,)), away=ticks_away, odd=odd_prices,
          time_in_force=times_in_force, side=st.sampled_from(("", "", "", "B", "S", "T", "E")),
          flags=post_only, door=door_flags, extra=options, dead=st.sampled_from((0, 0, 0, 0, 1)),
          source=ouch_sources)
    def replace(self, pick: int, step: int | str, more_lots: int, absolute: int,
                use_absolute: bool, away: int, odd: int | None, time_in_force: str, side: str,
                flags: Flag, door: Flag, extra: dict[str, Any], dead: int,
                source: Source) -> None:
        order = self.live(pick)
        if order is None:
            return
        total_lots = max(0, order.open_lots + order.chain_done_lots + more_lots)
        self.pair.send([Command(
            Kind.CMD_REPLACE, order.account_id,
            self.number(order.account_id, order.user_ref_idx, step), order.user_ref_idx,
            quantity_lots=absolute if use_absolute else total_lots,
            price_units=price_of(order.instrument_id, away, odd), time_in_force=time_in_force,
            display="N", iso="Y", client_order="replaced", flags=flags | door, source=source,
            door_reason=Reject.PEG if Flag.DOOR_REASON in door else 0, command_side=side,
            orig_user_ref_num=max(0, order.user_ref_num - dead), options=extra)])

    @rule(pick=picks, keep_lots=st.one_of(st.just(0), st.integers(0, 25)), dead=st.booleans(),
          source=sources)
    def cancel(self, pick: int, keep_lots: int, dead: bool, source: Source) -> None:
        order = self.live(pick)
        if order is not None:
            channel = order.user_ref_idx ^ int(dead)
            self.pair.send([Command(Kind.CMD_CANCEL, order.account_id, order.user_ref_num, channel,
                                    quantity_lots=keep_lots, source=source)])

    @rule(pick=picks, side=st.sampled_from(("same", "B", "S", "T", "E", "x", "")),
          keep_lots=st.integers(0, 25))
    def modify(self, pick: int, side: str, keep_lots: int) -> None:
        order = self.live(pick)
        if order is not None:
            self.pair.send([Command(
                Kind.CMD_MODIFY, order.account_id, order.user_ref_num, order.user_ref_idx,
                side=order.side if side == "same" else side, quantity_lots=keep_lots)])

    @rule(account_id=accounts, number=st.integers(0, 2**32 - 1), channel=channels,
          kind=st.sampled_from((Kind.CMD_CANCEL, Kind.CMD_MODIFY)))
    def handle_out_of_the_blue(self, account_id: int, number: int, channel: int,
                               kind: Kind) -> None:
        self.pair.send([Command(kind, account_id, number, channel, side="S")])

    @rule(account_id=accounts, channel=channels, step=number_steps,
          instrument_id=st.sampled_from((0, 0, *TICKS, UNKNOWN_INSTRUMENT)),
          side=st.sampled_from(("", "", "B", "S", "T", "E")),
          firm=st.sampled_from(("", "", "AAAA", "BBBB")), refused=st.sampled_from((0, 0, 0, 1)),
          group_id=st.sampled_from((None, None, 0, 1, 2)), source=ouch_sources)
    def mass_cancel(self, account_id: int, channel: int, step: int | str, instrument_id: int,
                    side: str, firm: str, refused: int, group_id: int | None,
                    source: Source) -> None:
        self.pair.send([Command(
            Kind.CMD_MASS_CANCEL, account_id, self.number(account_id, channel, step), channel,
            instrument_id, side, firm=firm, symbol="SYMBOL", group_id=group_id, source=source,
            flags=Flag.DOOR_REASON if refused else Flag(0),
            door_reason=Reject.SYMBOL if refused else 0)])

    @rule(account_id=accounts, channel=channels, step=number_steps, enable=st.booleans(),
          firm=st.sampled_from(("", "", "AAAA")), source=ouch_sources)
    def order_entry(self, account_id: int, channel: int, step: int | str, enable: bool,
                    firm: str, source: Source) -> None:
        self.pair.send([Command(
            Kind.CMD_ENABLE_ENTRY if enable else Kind.CMD_DISABLE_ENTRY, account_id,
            self.number(account_id, channel, step), channel, firm=firm, source=source)])

    @rule(account_id=accounts, instrument_id=instruments, side=sides, quantity_lots=quantities,
          away=ticks_away, odd=odd_prices, time_in_force=times_in_force, flags=post_only,
          door=door_flags, source=private_sources, text=client_texts, extra=options)
    def private_enter(self, account_id: int, instrument_id: int, side: str, quantity_lots: int,
                      away: int, odd: int | None, time_in_force: str, flags: Flag, door: Flag,
                      source: Source, text: str, extra: dict[str, Any]) -> None:
        self.pair.send([Command(
            Kind.CMD_ENTER, account_id, 0, 0, instrument_id, side, quantity_lots,
            price_of(instrument_id, away, odd), time_in_force, source=source, flags=flags | door,
            options=extra, client_order_id=text, request_id=7, actor_account_id=account_id,
            key="key")])

    @rule(pick=picks, source=private_sources, quantity_lots=keep_sizes, named=st.booleans(),
          other=st.sampled_from((0, 0, 0, 0, 1)), kind=st.sampled_from(
              (Kind.CMD_CANCEL, Kind.CMD_CANCEL, Kind.CMD_CANCEL, Kind.CMD_MODIFY)))
    def private_cancel(self, pick: int, source: Source, quantity_lots: int, named: bool,
                       other: int, kind: Kind) -> None:
        order = self.live(pick)
        if order is not None:
            account_id = next(iter(FIRMS)) if other else order.account_id
            self.pair.send([Command(
                kind, account_id, order.user_ref_num * named, order.user_ref_idx * named,
                quantity_lots=quantity_lots, source=source, order_id=order.order_id,
                side="S" if kind == Kind.CMD_MODIFY else "", request_id=2**32 - 1)])

    @rule(pick=picks, source=private_sources, more_lots=st.integers(-10, 20), away=ticks_away,
          odd=odd_prices, time_in_force=times_in_force, flags=post_only, door=door_flags,
          side=st.sampled_from(("", "", "", "B", "S", "T")), text=client_texts, extra=options,
          dead=st.sampled_from((0, 0, 0, 0, 1)))
    def private_replace(self, pick: int, source: Source, more_lots: int, away: int,
                        odd: int | None, time_in_force: str, flags: Flag, door: Flag, side: str,
                        text: str, extra: dict[str, Any], dead: int) -> None:
        order = self.live(pick)
        if order is not None:
            self.pair.send([Command(
                Kind.CMD_REPLACE, order.account_id, 0, order.user_ref_idx,
                quantity_lots=max(0, order.open_lots + order.chain_done_lots + more_lots),
                price_units=price_of(order.instrument_id, away, odd), display="N",
                time_in_force=time_in_force, source=source, flags=flags | door,
                door_reason=Reject.PEG if Flag.DOOR_REASON in door else 0, command_side=side,
                orig_user_ref_num=order.user_ref_num, options=extra, client_order_id=text,
                order_id=order.order_id + dead, reason="by hand")])

    @rule(account_id=accounts, source=private_sources, side=st.sampled_from(("", "", "B", "S")),
          instrument_id=st.sampled_from((0, 0, *TICKS)), firm=st.sampled_from(("", "", "AAAA")),
          kind=st.sampled_from((Kind.CMD_MASS_CANCEL, Kind.CMD_DISABLE_ENTRY,
                                Kind.CMD_ENABLE_ENTRY, Kind.CMD_ENABLE_ENTRY)))
    def private_action(self, account_id: int, source: Source, side: str, instrument_id: int,
                       firm: str, kind: Kind) -> None:
        if kind == Kind.CMD_MASS_CANCEL:
            self.pair.send([Command(kind, account_id, 0, 0, instrument_id, side, source=source,
                                    firm=firm)])
        else:
            self.pair.send([Command(kind, account_id, source=source, firm=firm)])

    @rule(instrument_id=st.sampled_from((*TICKS, UNKNOWN_INSTRUMENT)),
          reason=st.sampled_from(("", "news", "r" * 24)), source=private_sources,
          kind=st.sampled_from((Kind.CMD_HALT_INSTRUMENT, Kind.CMD_RESUME_INSTRUMENT,
                                Kind.CMD_RESUME_INSTRUMENT, Kind.CMD_ADMIN_ACT)))
    def operator(self, instrument_id: int, reason: str, source: Source, kind: Kind) -> None:
        self.pair.send([Command(kind, instrument_id=instrument_id, source=source, reason=reason)])

    @rule(window_ns=st.sampled_from((0, 10, 2**64 - 1)), kept_min=st.sampled_from((0, 1, 3)),
          kept_max=st.sampled_from((0, 2, 5, 2**64 - 1)), window=windows)
    def rules(self, window_ns: int, kept_min: int, kept_max: int, window: int) -> None:
        self.pair.send([set_rules(window_ns, kept_min, kept_max, window)])

    @rule(account_id=accounts, channel=channels, start=number_steps, away=ticks_away,
          order=st.permutations(range(8)))
    def datagrams_overtake(self, account_id: int, channel: int, start: int | str, away: int,
                           order: list[int]) -> None:
        """A run of new orders over UDP in any order, half of them twice."""
        first = self.number(account_id, channel, start)
        self.pair.send([
            Command(Kind.CMD_ENTER, account_id, min(first + step, 2**32 - 1), channel, 1,
                    "BS"[step % 2], 5, price_of(1, away, None), "0", source=Source.UDP)
            for step in (*order, *order[::2])])

    @rule(account_id=accounts, channel=channels)
    def account_query(self, account_id: int, channel: int) -> None:
        self.pair.send([Command(Kind.CMD_ACCOUNT_QUERY, account_id, 0, channel)])

    @rule(behind=st.integers(1, 3), account_id=accounts)
    def session_roll(self, behind: int, account_id: int) -> None:
        self.pair.send([Command(Kind.CMD_SESSION_ROLL, source=Source.ADMIN)])
        self.pair.send_stale(
            [Command(Kind.CMD_ENTER, account_id, 50, 0, 1, "B", 5, 700, "0")],
            (self.oracle.generation - behind) % 65_536 or 65_535)

    @rule(account_id=accounts, values=limits)
    def change_limits(self, account_id: int, values: dict[str, int]) -> None:
        self.pair.send([define_account(account_id, "CHANGED", FIRMS[account_id], **values)])

    @rule(instrument_id=instruments, quantity_max_lots=st.sampled_from((5, 10, 2**32 - 1, 2**40)))
    def change_instrument(self, instrument_id: int, quantity_max_lots: int) -> None:
        self.pair.send([define_instrument(instrument_id, f"I{instrument_id}",
                                          TICKS[instrument_id], quantity_max_lots)])

    @rule(time_ns=st.integers(0, 2**62))
    def set_the_clock(self, time_ns: int) -> None:
        self.pair.time_ns = time_ns

    @rule()
    def save(self) -> None:
        self.pair.save()

    @rule()
    def restart(self) -> None:
        self.pair.reload()

    @invariant()
    def both_are_in_the_same_state(self) -> None:
        self.pair.compare_state()

    def teardown(self) -> None:
        self.pair.finish()


VenueMachine.TestCase.settings = settings(
    max_examples=1_000 if LONG else 150, stateful_step_count=60 if LONG else 50, deadline=None,
    suppress_health_check=list(HealthCheck))
TestVenueMachine = VenueMachine.TestCase

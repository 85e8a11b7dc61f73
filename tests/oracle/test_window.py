"""UserRefNums over UDP come in any order (PROTOCOLS 3.2), one scene for each part of the rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from cython_core.model import Kind, Source
from tests.oracle.commands import Command, set_rules
from tests.oracle.desk import Desk, Told

NUMBER_MAX = 2**32 - 1


class UdpDesk(Desk):
    """Account 1 sends orders that never trade, over UDP."""

    def window(self, numbers: int) -> None:
        self.tell(set_rules(0, 0, 2**64 - 1, numbers))

    def send(self, number: int, channel: int = 0, source: Source = Source.UDP) -> Told:
        return self.buy(1, 1, 50, number=number, channel=channel, source=source)

    def takes(self, *numbers: int, channel: int = 0, source: Source = Source.UDP) -> bool:
        """Whether all are done, or none of them. Anything between fails."""
        told = [self.send(number, channel, source) for number in numbers]
        assert all(one in ([], [("accepted", number, 1)])
                   for one, number in zip(told, numbers, strict=True))
        assert all(told) or not any(told)
        return all(told)


@pytest.fixture
def desk():
    desk = UdpDesk()
    desk.window(1_024)
    yield desk
    desk.close()


def test_an_overtaken_order_is_done_once(desk):
    assert desk.takes(1, 3, 2)
    assert not desk.takes(1, 2, 3)
    assert desk.query(1) == [("account_queried", 4)]
    assert desk.takes(4)


def test_no_order_has_the_number_0(desk):
    assert not desk.takes(0)
    assert desk.takes(7)
    assert not desk.takes(0)


def test_over_tcp_numbers_grow_whatever_the_window(desk):
    assert desk.takes(5, source=Source.TCP)
    assert not desk.takes(4, 1, source=Source.TCP)
    assert desk.takes(4)
    assert not desk.takes(4)


def test_both_transports_use_the_same_numbers_up(desk):
    assert desk.takes(2)
    assert desk.takes(4, source=Source.TCP)
    assert desk.takes(1, 3)
    assert not desk.takes(1, 2, 3, 4, source=Source.TCP)
    assert not desk.takes(1, 2, 3, 4)


@pytest.mark.parametrize("window", [1, 2, 64, 65, 1_023, 1_024])
def test_the_window_is_the_last_numbers_and_no_more(desk, window):
    desk.window(window)
    last = 3_000
    assert desk.takes(last)
    assert not desk.takes(last - window, last - window - 1, last - 1_024, 1)
    if window > 1:
        assert desk.takes(last - window + 1)
    assert not desk.takes(last - window + 1, last)
    assert desk.takes(last + 1)
    if window > 2:
        assert not desk.takes(last - window + 1)
        assert desk.takes(last - window + 2)


def test_a_window_of_0_is_strict(desk):
    desk.window(0)
    assert desk.takes(5)
    assert not desk.takes(4, 5)


def test_what_was_missing_before_there_was_a_window_stays_lost(desk):
    desk.window(0)
    assert desk.takes(5)
    desk.window(1_024)
    assert not desk.takes(4)
    assert desk.takes(8, 7)
    desk.window(0)
    assert not desk.takes(6)
    desk.window(1_024)
    assert not desk.takes(6)
    assert desk.takes(10, 9)


def test_a_wider_window_finds_what_was_missing_beyond_a_narrow_one(desk):
    desk.window(2)
    assert desk.takes(10)
    assert not desk.takes(8)
    desk.window(3)
    assert desk.takes(8)


def test_channels_have_their_own_gaps(desk):
    assert desk.takes(3)
    assert desk.takes(9, channel=255)
    assert desk.takes(4, channel=7)
    assert desk.takes(1, 2)
    assert desk.takes(1, 2, channel=255)
    assert not desk.takes(1, 9, channel=255)
    assert desk.pair.matcher.missing_numbers(1, 255) == [3, 4, 5, 6, 7, 8]
    assert desk.pair.matcher.missing_numbers(1, 7) == [1, 2, 3]
    assert desk.pair.matcher.missing_numbers(1) == []


def test_a_roll_begins_with_no_gaps(desk):
    desk.buy(1, 1, 50, "1", number=3, source=Source.UDP)
    assert desk.takes(9)
    assert ("announced", 1, 1) in desk.roll()
    assert desk.pair.matcher.missing_numbers(1) == []
    assert not desk.takes(1)
    assert desk.takes(3, 2)
    assert not desk.takes(3)


def test_a_rejected_order_used_its_number(desk):
    assert desk.takes(3)
    assert desk.buy(1, 0, 50, number=2, source=Source.UDP) == [("rejected", "0013")]
    assert desk.buy(1, 1, 50, number=2, source=Source.UDP) == []
    assert desk.takes(1)


def test_a_replace_may_be_late_and_is_done_once(desk):
    assert desk.takes(1, 4)
    assert desk.replace(1, 1, 7, 60, number=2, source=Source.UDP) == [("replaced", 2, 7)]
    assert desk.replace(1, 1, 7, 60, number=2, source=Source.UDP) == []
    assert desk.replace(1, 2, 8, 60, number=3, source=Source.TCP) == []
    assert desk.replace(1, 2, 8, 60, number=3, source=Source.UDP) == [("replaced", 3, 8)]


def test_a_replace_that_comes_before_its_original_may_come_again(desk):
    assert desk.replace(1, 1, 7, 60, number=2, source=Source.UDP) == []
    assert desk.takes(3, 1)
    assert desk.replace(1, 1, 7, 60, number=2, source=Source.UDP) == [("replaced", 2, 7)]


def test_a_replace_with_bad_terms_leaves_its_number(desk):
    assert desk.takes(1, 3)
    assert desk.replace(1, 1, 0, 60, number=2, source=Source.UDP) == [
        ("replace_refused",), ("canceled", 1, 1, "U")]
    assert desk.takes(2)


def test_account_acts_may_be_late_and_are_done_once(desk):
    assert desk.takes(5)
    for told in ([("mass_canceled",), ("canceled", 5, 1, "U")], []):
        assert desk.mass_cancel(1, number=3, source=Source.UDP) == told
    for told in ([("entry_disabled",)], []):
        assert desk.tell(Command(Kind.CMD_DISABLE_ENTRY, 1, 2, source=Source.UDP)) == told
    for told in ([("entry_enabled",)], []):
        assert desk.tell(Command(Kind.CMD_ENABLE_ENTRY, 1, 4, source=Source.UDP)) == told
    assert desk.takes(1)


def test_one_jump_forgets_all_that_is_behind_the_window(desk):
    assert desk.takes(1, 3, 1_026)
    assert not desk.takes(2)
    assert desk.takes(4)
    assert desk.takes(5_000)
    assert not desk.takes(1_027, 3_976)
    assert desk.takes(3_977, 4_999)


def test_a_gap_that_leaves_the_window_costs_nothing_any_more(desk):
    assert desk.takes(2)
    for number in range(3, 1_025):
        desk.pair.queue(order(1, number, Source.TCP))
    desk.pair.flush()
    assert desk.pair.matcher.missing_numbers(1) == [1]
    assert desk.takes(1_025)
    assert desk.pair.matcher.missing_numbers(1) == []
    assert not desk.takes(1)


def order(account_id: int, number: int, source: Source) -> Command:
    """A new order that meets nobody."""
    return Command(Kind.CMD_ENTER, account_id, number, 0, 1, "B", 1, 50, "0", source=source)


# The end of the numbers


def test_at_the_end_late_orders_are_done_and_repeats_ignored(desk):
    assert desk.takes(NUMBER_MAX - 1, NUMBER_MAX)
    assert not desk.takes(NUMBER_MAX, NUMBER_MAX - 1)
    assert desk.takes(NUMBER_MAX - 1_023, NUMBER_MAX - 2)
    assert not desk.takes(NUMBER_MAX - 2)
    assert desk.query(1) == [("account_queried", NUMBER_MAX)]


@pytest.mark.parametrize("number", [0, 1, NUMBER_MAX - 1_024])
def test_at_the_end_what_is_no_repeat_for_sure_is_rejected(desk, number):
    assert desk.takes(NUMBER_MAX)
    assert desk.send(number) == [("rejected", "000F")]
    desk.window(0)
    assert desk.send(number) == [("rejected", "000F")]
    assert desk.send(NUMBER_MAX) == [("rejected", "000F")]


def test_at_the_end_a_reject_uses_no_number_within_the_widest_window(desk):
    desk.window(10)
    assert desk.takes(NUMBER_MAX)
    assert desk.send(NUMBER_MAX - 500) == [("rejected", "000F")]
    desk.window(1_024)
    assert desk.takes(NUMBER_MAX - 500)


def test_at_the_end_tcp_rejects_all(desk):
    assert desk.takes(NUMBER_MAX)
    for number in (NUMBER_MAX, NUMBER_MAX - 1, 1):
        assert desk.send(number, source=Source.TCP) == [("rejected", "000F")]
    assert desk.takes(NUMBER_MAX - 1)


# Any order of arrival


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(1, 41)), st.lists(st.integers(1, 40), max_size=40), st.data())
def test_any_order_of_arrival_within_the_window_does_each_once(numbers, repeats, data):
    """With a restart from a saved state somewhere between."""
    desk = UdpDesk()
    desk.window(40)
    arrivals = list(itertools.chain(numbers, repeats))
    at = data.draw(st.integers(0, len(arrivals)))
    done = []
    for index, number in enumerate(arrivals):
        if index == at:
            desk.pair.reload()
        done += [event[1] for event in desk.send(number)]
    assert sorted(done) == list(range(1, 41))
    assert done == numbers
    assert desk.pair.matcher.missing_numbers(1) == []
    desk.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=60), st.integers(1, 1_024))
def test_any_numbers_are_judged_as_a_set_would(numbers, window):
    matcher, used, last = Matcher(), set(), 0
    batch = CommandBatch()
    batch.define_instrument(1, "ONE", "ONE", 4, 1, 0)
    batch.define_account(1, "ONE")
    batch.set_rules(0, 0, 0, window)
    matcher.apply(batch, EventBatch(), 1)
    for number in numbers:
        batch, events = CommandBatch(), EventBatch()
        batch.enter(1, number, 1, "B", 1, 50, source=Source.UDP)
        matcher.apply(batch, events, 1)
        new = number > last or (last - number < window and number not in used)
        assert events.event_count == new
        if new:
            used.add(number)
            last = max(last, number)
        matcher.check_invariants()
    assert matcher.missing_numbers(1) == [
        number for number in range(max(1, last - 1_023), last) if number not in used]


def test_a_window_is_no_wider_than_1024():
    for window in (-1, 1_025):
        with pytest.raises(ValueError, match="window"):
            CommandBatch().set_rules(0, 0, 0, window)

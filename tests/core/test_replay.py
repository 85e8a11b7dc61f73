"""Replaying the log, saving and loading must lead to the very state that matching led to."""

import os
import random

import pytest

from cython_core.errors import CoreError
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher, commands_of
from tests.core.flow import ACCOUNTS, Flow, definitions

LONG = os.environ.get("MATCHD_TEST_PROFILE") == "long"
SEEDS = range(40 if LONG else 6)
BATCHES = 300 if LONG else 60
WINDOWS = (1_024, 0, 5)


def run_flow(seed, limits=False, batches=BATCHES, check=None):
    """Run a random flow; returns the matcher and the event batches that it left."""
    matcher = Matcher()
    flow = Flow(seed)
    log = []
    time_ns = 1_700_000_000_000_000_000
    for turn in range(batches):
        events = EventBatch()
        commands = flow.batch(flow.random.randrange(1, 60))
        if turn == 0:
            commands = definitions(limits, WINDOWS[seed % len(WINDOWS)])
        time_ns += flow.random.randrange(-1000, 5000)
        matcher.apply(commands, events, time_ns)
        if len(events):
            log.append(events)
        if check is not None:
            check(matcher)
    return matcher, log


def copy_of(batch):
    return EventBatch.from_bytes(bytes(batch), batch.first_seq)


@pytest.mark.parametrize("seed", SEEDS)
def test_replaying_the_events_leads_to_the_same_state(seed):
    matcher, log = run_flow(seed, limits=seed % 2 == 0)
    again = Matcher()
    for events in log:
        assert again.replay(events) == events.event_count
    again.check_invariants()
    assert again.state_hash() == matcher.state_hash()
    assert again.next_seq == matcher.next_seq
    assert again.last_time_ns == matcher.last_time_ns
    assert again.generation == matcher.generation
    assert again.accounts() == matcher.accounts()
    assert again.instruments() == matcher.instruments()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_invariants_hold_after_every_batch(seed):
    run_flow(seed, batches=40, check=lambda matcher: matcher.check_invariants())


@pytest.mark.parametrize("seed", SEEDS)
def test_replay_agrees_after_every_batch(seed):
    matcher, log = run_flow(seed, batches=25)
    fresh, replayed = Matcher(), Matcher()
    for events in log:
        out = EventBatch()
        assert fresh.apply_logged(events, out) == -1
        replayed.replay(events)
        assert fresh.state_hash() == replayed.state_hash()
    assert fresh.state_hash() == matcher.state_hash()


@pytest.mark.parametrize("seed", SEEDS)
def test_running_the_logged_commands_again_gives_the_same_bytes(seed):
    _, log = run_flow(seed, limits=True)
    again = Matcher()
    for events in log:
        out = EventBatch()
        assert again.apply_logged(events, out) == -1
        assert bytes(out) == bytes(events)
        assert out.first_seq == events.first_seq
        assert out.event_count == events.event_count


@pytest.mark.parametrize("seed", SEEDS)
def test_commands_taken_from_the_log_run_as_batches_too(seed):
    _, log = run_flow(seed)
    again = Matcher()
    for events in log:
        out = EventBatch()
        commands = commands_of(events)
        assert again.apply(commands, out, events.dicts()[0]["time_ns"]) == commands.command_count
        assert bytes(out) == bytes(events)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_saved_state_goes_on_like_the_one_it_was_saved_from(seed):
    matcher, _ = run_flow(seed)
    saved = b"".join(matcher.save())
    loaded = Matcher.load(saved)
    loaded.check_invariants()
    assert loaded.state_hash() == matcher.state_hash()
    flow = Flow(seed + 1000)
    for account in ACCOUNTS:
        for channel in (0, 3, 255):
            flow.numbers[account, channel] = matcher.last_user_ref_num(account, channel)
    for _ in range(20):
        commands, one, two = flow.batch(40), EventBatch(), EventBatch()
        matcher.apply(commands, one, 0)
        loaded.apply(commands, two, 0)
        assert bytes(one) == bytes(two)
    assert loaded.state_hash() == matcher.state_hash()


def test_a_saved_state_of_version_2_loads():
    """Version 2 knew no window of numbers: its header ended before it, and so did its tables."""
    matcher, _ = run_flow(1)
    assert matcher.rules()["udp_window"] == 0
    saved = b"".join(matcher.save())
    assert saved[8:12] == (3).to_bytes(4, "little")
    old = saved[:8] + (2).to_bytes(4, "little") + saved[12:104] + saved[112:]
    loaded = Matcher.load(old)
    loaded.check_invariants()
    assert loaded.state_hash() == matcher.state_hash()
    assert loaded.rules() == matcher.rules()
    with pytest.raises(CoreError):
        Matcher.load(old[:-1])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_state_saved_at_any_point_and_the_log_after_it_equal_the_log_from_the_start(seed):
    whole, log = run_flow(seed)
    for at in range(0, len(log), max(1, len(log) // 8)):
        half = Matcher()
        for events in log[:at]:
            half.replay(events)
        restored = Matcher.load(b"".join(half.save()))
        assert restored.state_hash() == half.state_hash()
        for events in log[at:]:
            restored.replay(events)
        restored.check_invariants()
        assert restored.state_hash() == whole.state_hash()


def test_a_snapshot_and_the_log_after_it_equal_the_log_from_the_start():
    whole, log = run_flow(3)
    half = Matcher()
    for events in log[:30]:
        half.replay(events)
    restored = Matcher.load(b"".join(half.save()))
    for events in log[30:]:
        restored.replay(events)
    assert restored.state_hash() == whole.state_hash()


def test_a_changed_event_is_named_by_its_index():
    _, log = run_flow(5)
    again = Matcher()
    for events in log:
        raw = bytearray(bytes(events))
        index = random.Random(len(raw)).randrange(events.event_count)
        position = unit_of(events, index)
        raw[64 * position + 23] ^= 1  # inside order_id, which no command brings with it
        trial = Matcher.load(b"".join(again.save()))
        result = trial.apply_logged(EventBatch.from_bytes(bytes(raw), events.first_seq),
                                    EventBatch())
        assert result == index
        again.replay(events)


def unit_of(events, index):
    """The unit at which the event with this index begins."""
    raw, position = bytes(events), 0
    for _ in range(index):
        position += 1 + raw[64 * position + 1]
    return position


def test_a_log_that_goes_on_longer_than_its_commands_do_is_a_mismatch():
    matcher = Matcher()
    events = EventBatch()
    commands = definitions()
    commands.enter(7, 1, 1, "B", 10, 1000)
    commands.enter(7, 2, 1, "S", 10, 1000)
    matcher.apply(commands, events, 5)
    assert [event["kind"] for event in events.dicts()][-3:] == ["accepted", "accepted", "fill"]
    extra = bytes(events) + bytes(events)[-64:]
    result = Matcher().apply_logged(EventBatch.from_bytes(extra, 1), EventBatch())
    assert result == events.event_count


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_events_are_refused_or_leave_a_sound_state(seed):
    _, log = run_flow(seed, batches=12)
    pick = random.Random(seed)
    for _ in range(60):
        again = Matcher()
        raw = bytearray(bytes(log[-1]))
        for events in log[:-1]:
            again.replay(events)
        for _ in range(pick.randrange(1, 4)):
            raw[pick.randrange(len(raw))] = pick.randrange(256)
        try:
            again.replay(EventBatch.from_bytes(bytes(raw), log[-1].first_seq))
        except CoreError:
            continue
        again.check_invariants()


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_saved_states_are_refused_or_sound(seed):
    matcher, _ = run_flow(seed, batches=15)
    saved = b"".join(matcher.save())
    pick = random.Random(seed)
    for _ in range(150):
        raw = bytearray(saved)
        for _ in range(pick.randrange(1, 6)):
            raw[pick.randrange(len(raw))] = pick.randrange(256)
        try:
            loaded = Matcher.load(bytes(raw))
        except CoreError:
            continue
        loaded.check_invariants()


def test_a_saved_state_cut_short_is_refused():
    matcher, _ = run_flow(1, batches=10)
    saved = b"".join(matcher.save())
    for length in (0, 1, 63, 64, 100, len(saved) // 2, len(saved) - 1):
        with pytest.raises(CoreError):
            Matcher.load(saved[:length])
    with pytest.raises(CoreError):
        Matcher.load(saved + b"\0")


def test_events_that_do_not_follow_on_are_refused():
    _, log = run_flow(1, batches=10)
    again = Matcher()
    with pytest.raises(CoreError, match="the state is before 1"):
        again.replay(log[1])


def test_an_empty_matcher_saves_and_loads():
    matcher = Matcher()
    assert Matcher.load(b"".join(matcher.save())).state_hash() == matcher.state_hash()


def test_nothing_is_applied_while_a_saved_view_is_held():
    matcher, _ = run_flow(1, batches=5)
    regions = matcher.save()
    with pytest.raises(BufferError):
        matcher.apply(CommandBatch(), EventBatch(), 0)
    del regions
    matcher.apply(CommandBatch(), EventBatch(), 0)

"""The tail: never full, kept for who is level, let go of when it is too much."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from hypothesis import given
from hypothesis import strategies as some

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from engine.stores.supply import count, first_command_end, last_seq, take_slice
from engine.stores.tail import CHUNK_EVENTS, Reader, Tail
from tests.journal.venue import Flow, definitions


def random_log(seed: int, batches: int, most: int = 8) -> list[EventBatch]:
    matcher, flow, found = Matcher(), Flow(random.Random(seed)), []
    for turn in range(batches):
        commands: CommandBatch = definitions() if not turn else flow.commands(
            matcher, flow.rng.randint(1, most))
        events = EventBatch()
        matcher.apply(commands, events, matcher.last_time_ns + 1_000)
        if events.event_count:
            found.append(events)
    return found


LOG = random_log(1, 400)


def dicts(batches: list[EventBatch]) -> list[object]:
    return [event for batch in batches for event in batch.dicts()]


def test_nothing_is_kept_for_nobody() -> None:
    tail = Tail(100, 0)
    for batch in LOG:
        tail.put_nowait(batch)
    assert not tail.full()
    assert tail.weight_units == 0
    assert tail.last_seq == LOG[-1].first_seq + LOG[-1].event_count - 1


def test_a_reader_gets_all_behind_its_place_in_few_batches() -> None:
    tail = Tail(1 << 20, 0)
    for batch in LOG[:100]:
        tail.put_nowait(batch)
    reader = Reader(tail)
    assert reader.attach() == LOG[100].first_seq - 1
    for batch in LOG[100:]:
        tail.put_nowait(batch)
    taken = reader.take(1 << 20)
    assert dicts(taken) == dicts(LOG[100:])
    assert len(taken) <= 2 + count(taken) // (CHUNK_EVENTS // 2)
    assert tail.weight_units == 0
    reader.detach()
    reader.detach()


def test_what_was_handed_out_never_changes() -> None:
    tail = Tail(1 << 20, 0)
    reader = Reader(tail)
    reader.attach()
    tail.put_nowait(LOG[0])
    first = reader.take(1)
    seen = dicts(first)
    tail.put_nowait(LOG[1])
    assert dicts(first) == seen
    assert dicts(reader.take(1)) == dicts([LOG[1]])


def test_the_slowest_reader_is_cut_off_and_the_others_go_on() -> None:
    tail = Tail(1_500, 0)
    slow, quick = Reader(tail), Reader(tail)
    slow.attach()
    quick.attach()
    taken: list[EventBatch] = []
    for batch in LOG:
        tail.put_nowait(batch)
        assert tail.weight_units <= 1_500 + len(batch)
        taken += quick.take(1)
    taken += quick.take(1 << 20)
    assert dicts(taken) == dicts(LOG)
    assert (slow.attached, slow.overflows) == (False, 1)
    assert (quick.attached, quick.overflows) == (True, 0)
    assert slow.take(1) == []


async def test_a_bell_rings_once_when_the_seq_is_reached() -> None:
    tail, rung = Tail(100, 0), []
    tail.when(0, lambda: rung.append("at once"))
    def later() -> None:
        rung.append("later")
    def never() -> None:
        rung.append("never")
    tail.when(LOG[3].first_seq, later)
    tail.when(LOG[2].first_seq, never)
    tail.forget(never)
    for batch in LOG[:3]:
        await tail.put(batch)
    assert rung == ["at once"]
    for batch in LOG[3:6]:
        tail.put_nowait(batch)
    assert rung == ["at once", "later"]
    tail.close()
    await asyncio.sleep(0)


@given(some.lists(some.integers(1, 200), min_size=1, max_size=60))
def test_slices_are_whole_commands_and_lose_nothing(limits: list[int]) -> None:
    pending, taken = deque(LOG[:120]), []
    for limit in limits:
        part = take_slice(pending, limit)
        taken += part
        if not part:
            break
        # More than asked for only when it is one command.
        heads = [event["first"] for event in dicts(part)]  # type: ignore[index]
        assert heads[0]
        assert len(heads) <= limit or sum(heads) == 1
    assert dicts(taken + list(pending)) == dicts(LOG[:120])


def test_a_command_ends_where_the_next_begins() -> None:
    lengths = set()
    for batch in LOG:
        heads = [event["seq"] for event in batch.dicts() if event["first"]]
        end = heads[1] - 1 if len(heads) > 1 else last_seq(batch)
        assert first_command_end(batch) == end
        lengths.add(end - batch.first_seq + 1)
    assert {1, 2, 3} < lengths

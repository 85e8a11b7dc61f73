"""The joints of the path: bounded by weight, drained in one go, closed from the front."""

import asyncio

import pytest

from engine import clock
from engine.queues import BatchQueue, QueueClosed, TwoLaneQueue


def batch(units: int) -> bytes:
    return bytes(units)


async def test_everything_that_waits_is_taken_in_one_go() -> None:
    queue: BatchQueue[bytes] = BatchQueue("commands", 100)
    for units in (1, 2, 3):
        queue.put_nowait(batch(units))
    assert [len(item) for item in await queue.get_many(100)] == [1, 2, 3]
    assert queue.weight_units == 0
    assert queue.weight_max_units == 6


async def test_a_drain_stops_at_its_limit_but_always_takes_one() -> None:
    queue: BatchQueue[bytes] = BatchQueue("commands", 100)
    for units in (50, 2, 3):
        queue.put_nowait(batch(units))
    assert [len(item) for item in queue.drain(10)] == [50]
    assert [len(item) for item in queue.drain(4)] == [2]
    assert queue.weight_units == 3


def arrivals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The times that queues read from now on, settable; moves on by one with each look."""
    now = [0]

    def tick() -> int:
        now[0] += 1
        return now[0]

    monkeypatch.setattr(clock, "monotonic_ns", tick)
    return now


async def test_a_queue_knows_when_the_oldest_of_what_it_gave_out_came(
        monkeypatch: pytest.MonkeyPatch) -> None:
    now = arrivals(monkeypatch)
    queue: TwoLaneQueue[bytes] = TwoLaneQueue("commands", 100)
    now[0] = 10
    queue.put_nowait(batch(3))
    now[0] = 20
    queue.put_nowait(batch(3))
    queue.drain(100)
    assert queue.drained_since_ns == 11
    now[0] = 30
    queue.put_inside(batch(1))
    queue.put_nowait(batch(1))
    queue.drain(100)
    assert queue.drained_since_ns == 31


async def test_what_was_left_behind_keeps_its_age_however_often_it_is(
        monkeypatch: pytest.MonkeyPatch) -> None:
    now = arrivals(monkeypatch)
    queue: BatchQueue[bytes] = BatchQueue("commands", 1_000)
    came: list[int] = []
    for turn in range(1, 20):
        now[0] = turn * 100
        for _ in range(3 if turn < 8 else 1):
            came.append(now[0])
            queue.put_nowait(batch(5))
        now[0] += 50
        taken = len(queue.drain(10))
        oldest, came = came[0], came[taken:]
        # Never younger than it is, and older by less than a turn.
        assert oldest - 100 < queue.drained_since_ns <= oldest + 1
    assert not came


async def test_a_producer_that_found_it_full_is_counted() -> None:
    queue: BatchQueue[bytes] = BatchQueue("commands", 1)
    await queue.put(batch(1))
    queue.when_room(lambda: None)
    waiting = asyncio.ensure_future(queue.put(batch(1)))
    await asyncio.sleep(0)
    assert queue.waits == 2
    queue.drain(1)
    await waiting


async def test_the_bound_is_orders_and_not_batches() -> None:
    queue: BatchQueue[bytes] = BatchQueue("commands", 10)
    queue.put_nowait(batch(9))
    queue.put_nowait(batch(9))
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(batch(1))


async def test_a_producer_waits_until_there_is_room() -> None:
    queue: BatchQueue[bytes] = BatchQueue("events", 1)
    queue.put_nowait(batch(1))
    producer = asyncio.ensure_future(queue.put(batch(2)))
    await asyncio.sleep(0)
    assert not producer.done()
    assert len(await queue.get()) == 1
    await producer
    assert queue.weight_units == 2


async def test_a_producer_that_cannot_await_is_called_back() -> None:
    queue: BatchQueue[bytes] = BatchQueue("commands", 1)
    queue.put_nowait(batch(1))
    called = []
    queue.when_room(lambda: (called.append("first"), queue.put_nowait(batch(1))))
    queue.when_room(lambda: called.append("second"))
    queue.drain(10)
    assert called == ["first"]
    queue.drain(10)
    assert called == ["first", "second"]


async def test_a_closed_queue_gives_what_waits_and_then_an_empty_list() -> None:
    queue: BatchQueue[bytes] = BatchQueue("commands", 10)
    queue.put_nowait(batch(1))
    queue.close()
    assert await queue.get_many(10) == [batch(1)]
    assert await queue.get_many(10) == []
    with pytest.raises(QueueClosed):
        queue.put_nowait(batch(1))


async def test_closing_wakes_a_waiting_consumer() -> None:
    queue: BatchQueue[bytes] = BatchQueue("commands", 10)
    consumer = asyncio.ensure_future(queue.get_many(10))
    await asyncio.sleep(0)
    queue.close()
    assert await consumer == []


async def test_the_inside_lane_is_drained_first_and_never_full() -> None:
    queue: TwoLaneQueue[bytes] = TwoLaneQueue("commands", 1)
    queue.put_nowait(b"door")
    assert queue.full()
    queue.put_inside(b"roll")
    queue.put_inside(b"kill")
    assert await queue.get_many(10) == [b"roll", b"kill", b"door"]
    queue.put_inside(b"roll")
    assert await queue.get() == b"roll"


async def test_a_taker_gets_each_batch_the_moment_it_is_put() -> None:
    queue: BatchQueue[bytes] = BatchQueue("reports", 1)
    queue.put_nowait(b"early")
    taken: list[list[bytes]] = []
    task = asyncio.ensure_future(queue.hand_to(taken.append))
    await asyncio.sleep(0)
    queue.put_nowait(b"one")
    await queue.put(b"two")
    assert taken == [[b"early"], [b"one"], [b"two"]]
    assert queue.weight_units == 0
    queue.close()
    await task


async def test_what_a_taker_raises_reaches_the_producer() -> None:
    queue: BatchQueue[bytes] = BatchQueue("reports", 1)

    def fail(batches: list[bytes]) -> None:
        raise ValueError(batches)

    task = asyncio.ensure_future(queue.hand_to(fail))
    await asyncio.sleep(0)
    with pytest.raises(ValueError):
        queue.put_nowait(b"one")
    queue.close()
    await task

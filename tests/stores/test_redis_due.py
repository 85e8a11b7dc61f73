"""Which books are written when, against rules told once more, the slow way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.stores.redis_due import NS_PER_MS, Due

START_NS = 10**12


def at(ms: float) -> int:
    return START_NS + int(ms * NS_PER_MS)


def written(due: Due, now_ns: int, best: dict[int, tuple[int, int]], limit: int = 50) -> list[int]:
    found = due.take(now_ns, limit)
    for market_id in found:
        due.wrote(market_id, *best[market_id], now_ns)
    return found


def test_a_new_market_is_due_at_once() -> None:
    due = Due(0.0001, 1_000, 100)
    due.changed(1, 100, 101, at(0))
    assert due.next_ns() == at(0)
    assert written(due, at(0), {1: (100, 101)}) == [1]
    assert due.next_ns() == 0
    assert due.take(at(5_000), 50) == []


def test_a_large_move_waits_for_the_interval_a_small_one_for_the_age() -> None:
    due = Due(0.01, 1_000, 100)
    due.changed(1, 1_000, 1_100, at(0))
    due.changed(2, 1_000, 1_100, at(0))
    written(due, at(0), {1: (1_000, 1_100), 2: (1_000, 1_100)})
    due.changed(1, 1_011, 1_100, at(10))
    due.changed(2, 1_010, 1_100, at(10))
    assert due.next_ns() == at(100)
    assert due.take(at(99), 50) == []
    assert written(due, at(100), {1: (1_011, 1_100)}) == [1]
    assert due.next_ns() == at(1_000)
    assert written(due, at(1_000), {2: (1_010, 1_100)}) == [2]


def test_steps_that_add_up_count_from_what_was_written() -> None:
    due = Due(0.01, 60_000, 100)
    due.changed(1, 1_000, 0, at(0))
    written(due, at(0), {1: (1_000, 0)})
    for step, bid in enumerate((1_004, 1_008)):
        due.changed(1, bid, 0, at(step))
    assert due.next_ns() == at(60_000)
    due.changed(1, 1_012, 0, at(50))
    assert due.next_ns() == at(100)


def test_a_side_that_comes_or_goes_is_a_move() -> None:
    for before, now in (((100, 0), (100, 5)), ((100, 5), (0, 5))):
        due = Due(0.5, 60_000, 100)
        due.changed(1, *before, at(0))
        written(due, at(0), {1: before})
        due.changed(1, *now, at(1))
        assert due.next_ns() == at(100)


def test_zero_means_every_change() -> None:
    due = Due(0, 60_000, 100)
    due.changed(1, 100, 101, at(0))
    written(due, at(0), {1: (100, 101)})
    due.changed(1, 100, 101, at(1))
    assert due.next_ns() == at(100)


def test_more_than_one_pipeline_holds() -> None:
    due = Due(0, 1_000, 100)
    for market_id in range(120):
        due.changed(market_id, 1, 2, at(market_id / 1_000))
    best = dict.fromkeys(range(120), (1, 2))
    assert written(due, at(1), best) == list(range(50))
    assert due.next_ns() <= at(1)
    assert written(due, at(1), best) == list(range(50, 100))
    assert written(due, at(1), best) == list(range(100, 120))


def test_what_was_not_written_stays_due() -> None:
    due = Due(0, 1_000, 100)
    due.changed(1, 1, 2, at(0))
    assert due.take(at(0), 50) == [1]
    assert due.take(at(0), 50) == [1]


def test_a_quiet_book_is_written_again_before_it_expires() -> None:
    due = Due(0, 1_000, 100, refresh_ms=5_000)
    due.changed(1, 1, 2, at(0))
    written(due, at(0), {1: (1, 2)})
    assert due.next_ns() == at(5_000)
    assert written(due, at(5_000), {1: (1, 2)}) == [1]
    assert due.next_ns() == at(10_000)


STEPS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50), st.integers(0, 50),
                           st.integers(0, 400)), max_size=60)


@given(STEPS, st.sampled_from((0.0, 0.02, 0.3)), st.integers(1, 3))
def test_any_flow(steps: list[tuple[int, int, int, int]], min_change: float, limit: int) -> None:
    """Never more often than the interval, never later than the age, and nothing is forgotten."""
    due, now_ms = Due(min_change, 1_000, 100), 0.0
    book: dict[int, tuple[int, int]] = {}
    told: dict[int, tuple[int, int]] = {}
    told_ms: dict[int, float] = {}
    since_ms: dict[int, float] = {}

    def write() -> None:
        for market_id in due.take(at(now_ms), limit):
            assert now_ms - told_ms.get(market_id, -1e9) >= 100
            assert market_id in since_ms
            due.wrote(market_id, *book[market_id], at(now_ms))
            told[market_id], told_ms[market_id] = book[market_id], now_ms
            del since_ms[market_id]

    for market_id, bid, ask, wait_ms in steps:
        book[market_id] = (bid, ask)
        due.changed(market_id, bid, ask, at(now_ms))
        since_ms.setdefault(market_id, now_ms)
        write()
        now_ms += wait_ms
    for _ in range(20):
        if not due.next_ns():
            break
        now_ms = max(now_ms, (due.next_ns() - START_NS) / NS_PER_MS)
        write()
    assert not since_ms and told == book

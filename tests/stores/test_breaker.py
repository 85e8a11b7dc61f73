"""The breaker and the pace: pure, so every path is walked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from engine.breaker import Breaker, State
from engine.stores.pace import Pace, rest_ns

MS = 1_000_000


def test_it_opens_after_so_many_failures_and_half_opens_after_the_wait() -> None:
    breaker = Breaker(3, 100, 10_000)
    assert [breaker.failed(1.0), breaker.failed(1.0)] == [100, 200]
    assert breaker.state is State.CLOSED
    assert breaker.failed(1.0) == 400
    assert breaker.state is State.OPEN
    breaker.waited()
    assert breaker.state == State.HALF_OPEN
    assert breaker.failed(0.0) == 400
    assert breaker.state == State.OPEN
    assert breaker.openings == 1
    breaker.waited()
    breaker.succeeded()
    assert breaker.state == State.CLOSED
    assert breaker.failed(1.0) == 100


STEPS = some.lists(some.tuples(some.sampled_from(["fail", "wait", "succeed"]),
                               some.floats(0, 1)), max_size=200)


@given(some.integers(1, 10), some.integers(1, 10**9), some.integers(0, 10**12), STEPS)
def test_whatever_comes_the_waits_are_bounded_and_the_states_follow(
        failures_max: int, least: int, more: int, steps: list[tuple[str, float]]) -> None:
    breaker, row, longest = Breaker(failures_max, least, least + more), 0, 0
    for step, dice in steps:
        before = breaker.state
        if step == "fail":
            row += 1
            wait_ns = breaker.failed(dice)
            assert least <= wait_ns <= least + more
            # The spread is at most half of what is due, and what is due never shrinks.
            assert wait_ns * 2 + 2 >= min(longest, least + more) or dice < 1
            longest = max(longest, wait_ns) if row > 1 else wait_ns
            opened = row >= failures_max or before is not State.CLOSED
            assert (breaker.state is State.OPEN) == opened
        elif step == "wait":
            breaker.waited()
            assert breaker.state is (State.HALF_OPEN if before is State.OPEN else before)
        else:
            breaker.succeeded()
            row = longest = 0
            assert breaker.state is State.CLOSED
        assert breaker.failures == row


def test_little_load_is_written_at_once_and_much_of_it_together() -> None:
    pace = Pace(100, 1_000)
    assert pace.due_in_ns(1, 10**12) == 0
    now, sizes = 10**12, []
    # 10,000 events in a second: one more every 0.1 ms.
    waiting = 0
    for _ in range(3_000):
        now += MS // 10
        waiting += 1
        if pace.due_in_ns(waiting, now) == 0:
            pace.begins(now)
            pace.wrote(waiting)
            sizes.append(waiting)
            waiting = 0
    # It starts with single events and soon writes at most as often as the interval says.
    assert sizes[0] == 1
    assert sizes[-1] >= 500
    assert len(sizes) < 15
    assert pace.size == 1_000


def test_the_timer_fires_although_nothing_else_comes() -> None:
    pace = Pace(100, 1_000)
    for _ in range(4):
        pace.begins(1_000)
        pace.wrote(pace.size)
    assert pace.size == 8
    assert pace.due_in_ns(1, 1_000) == 100 * MS
    assert pace.due_in_ns(1, 1_000 + 60 * MS) == 40 * MS
    assert pace.due_in_ns(1, 1_000 + 100 * MS) == 0
    assert pace.due_in_ns(8, 1_000) == 0


def test_after_a_burst_the_size_goes_down_again() -> None:
    pace = Pace(100, 64)
    for now in range(1_000, 1_010):
        pace.begins(now)
        pace.wrote(64)
    assert pace.size == 64
    for turn in range(10):
        pace.begins(turn * 10**12 + 10**12)
        pace.wrote(1)
    assert pace.size <= 2


def test_failures_halve_a_write_and_successes_double_it() -> None:
    pace = Pace(100, 1_000)
    for _ in range(20):
        pace.failed()
    assert pace.limit == 16
    for _ in range(20):
        pace.wrote(1)
    assert pace.limit == 1_000
    small = Pace(100, 4)
    small.failed()
    assert small.limit == 4


@given(some.integers(0, 10**10), some.floats(0.01, 1))
def test_work_and_rest_are_in_the_share(took_ns: int, share: float) -> None:
    rest = rest_ns(took_ns, share)
    assert rest >= 0
    assert abs(took_ns - (took_ns + rest) * share) <= 1 + took_ns * 1e-9

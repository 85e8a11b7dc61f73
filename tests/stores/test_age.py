"""How old the oldest event is that a store has not."""

from __future__ import annotations

import random

from engine.stores.age import NOTES_MAX, Age


def test_a_store_that_is_never_quite_level_is_not_old() -> None:
    age = Age(0)
    for now_ns in range(1, 10_000):
        age.ends(10 * now_ns, now_ns)
        age.has(10 * (now_ns - 3))
        assert now_ns - age.level_ns <= 3


def test_while_nothing_new_comes_it_had_everything_until_now() -> None:
    age = Age(0)
    age.ends(5, 10)
    age.ends(5, 20)
    age.has(5)
    assert age.level_ns == 20
    age.ends(6, 30)
    age.has(5)
    assert age.level_ns == 20


def test_a_store_that_is_away_grows_old_and_is_known_roughly_then() -> None:
    age = Age(7)
    ends = 20 * NOTES_MAX
    for now_ns in range(8, ends):
        age.ends(now_ns, now_ns)
        age.has(7)
    assert age.level_ns == 7
    step = 64
    for seq in random.Random(1).sample(range(8, ends), 500):
        again = Age(7)
        for now_ns in range(8, ends, 16):
            again.ends(now_ns, now_ns)
        again.has(seq)
        # Never younger than it is.
        assert seq - step <= again.level_ns <= seq

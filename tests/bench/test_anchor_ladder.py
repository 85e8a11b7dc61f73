"""The anchor matches rightly: an anchor that did less than matching would be no anchor."""

from __future__ import annotations

import random

import pytest

from bench.anchor_ladder import Ladder
from cython_core.event import CommandBatch


class Naive:
    """A book as lists: oldest first at each price, best price found by looking at all."""

    def __init__(self) -> None:
        self.orders: list[list[int | bool]] = []  # ref, buy, price, open, done
        self.fills = 0

    def enter(self, ref: int, buy: bool, price: int, lots: int, done: int, ioc: bool) -> None:
        while lots:
            others = [one for one in self.orders if one[1] != buy
                      and (one[2] <= price if buy else one[2] >= price)]
            if not others:
                break
            best = min(one[2] for one in others) if buy else max(one[2] for one in others)
            maker = next(one for one in others if one[2] == best)
            traded = min(lots, maker[3])
            lots, done = lots - traded, done + traded
            maker[3] -= traded
            maker[4] += traded
            self.fills += 1
            if maker[3] == 0:
                self.orders.remove(maker)
        if lots and not ioc:
            self.orders.append([ref, buy, price, lots, done])

    def take(self, ref: int) -> list[int | bool] | None:
        found = next((one for one in self.orders if one[0] == ref), None)
        if found is not None:
            self.orders.remove(found)
        return found


@pytest.mark.parametrize("seed", range(5))
def test_the_ladder_trades_as_a_book_of_lists(seed: int) -> None:
    choose = random.Random(seed)
    ladder, naive = Ladder(1, 1000, 9000, orders_max=1024), Naive()
    batch = CommandBatch()
    for ref in range(1, 3000):
        batch.clear()
        buy, lots = choose.random() < 0.5, choose.randint(1, 100)
        price = choose.choice((5000, 8000)) + choose.randint(-200, 200)
        live = choose.choice(naive.orders)[0] if naive.orders else 0
        kind = choose.random()
        if kind < 0.45 or not live:
            ioc = choose.random() < 0.2
            batch.enter(1, ref, 1, "B" if buy else "S", lots, price, "3" if ioc else "0")
            naive.enter(ref, buy, price, lots, 0, ioc)
        elif kind < 0.8:
            batch.cancel(1, live)
            naive.take(live)
        else:
            batch.replace(1, live, ref, lots + 50, price)
            old = naive.take(live)
            assert old is not None
            if lots + 50 > old[4]:
                naive.enter(ref, bool(old[1]), price, lots + 50 - old[4], int(old[4]), False)
        ladder.apply(batch)
        assert ladder.fills == naive.fills
        assert ladder.resting == len(naive.orders)
    assert naive.fills > 200

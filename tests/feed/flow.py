"""Orders at random, and a book that a client keeps from what the feed tells."""

from __future__ import annotations

import random
import zlib
from typing import Any


class Flow:
    """Random orders of two makers and a taker around a price, on one instrument."""

    def __init__(self, seed: int, instrument_id: int = 1, middle: int = 1_000_000,
                 tick: int = 100) -> None:
        self._random = random.Random(seed)
        self._instrument_id = instrument_id
        # Each flow has its own numbers.
        self._channel = seed
        self._middle, self._tick = middle, tick
        self._numbers = {1: 0, 2: 0, 3: 0}
        self._live: list[tuple[int, int]] = []

    def fill(self, batch: Any, orders: int = 10) -> None:
        """Put so many commands into a batch."""
        for _ in range(orders):
            self._command(batch)

    def _command(self, batch: Any) -> None:
        dice = self._random.random()
        if self._live and dice < 0.35:
            account, number = self._live.pop(self._random.randrange(len(self._live)))
            batch.cancel(account, number, user_ref_idx=self._channel)
            return
        account = self._random.choice((1, 2)) if dice < 0.85 else 3
        self._numbers[account] += 1
        side = self._random.choice("BS")
        away = self._random.randrange(-12, 4) if account == 3 else self._random.randrange(1, 20)
        price = self._middle + (-away if side == "B" else away) * self._tick
        batch.enter(account, self._numbers[account], self._instrument_id, side,
                    self._random.randrange(1, 100), price,
                    user_ref_idx=self._channel,
                    time_in_force="3" if account == 3 and dice < 0.95 else "0")
        if account != 3:
            self._live.append((account, self._numbers[account]))


class Book:
    """What a client knows of a book: rows by price, made of snapshots and deltas."""

    def __init__(self, price_decimals: int = 4, quantity_decimals: int = 0) -> None:
        self._scales = 10 ** price_decimals, 10 ** quantity_decimals
        self.sides: dict[str, dict[str, list[Any]]] = {"bids": {}, "asks": {}}
        self.seq = 0

    def take(self, message: dict[str, Any]) -> None:
        """Apply a message, and hold it against what is known: order, removals, checksum."""
        if message["type"] == "snapshot":
            self.sides = {"bids": {}, "asks": {}}
            assert message["prev_seq"] in (0, self.seq)
        else:
            assert message["type"] == "delta"
            assert message["prev_seq"] == self.seq
        self.seq = message["seq"]
        for name, side in self.sides.items():
            for price, quantity, orders in message[name]:
                if self._scaled(quantity, 1):
                    side[price] = [price, quantity, orders]
                else:
                    assert orders == 0
                    del side[price]

    def check(self, crc: int) -> None:
        """Hold the best ten against the checksum."""
        rows = self.rows("asks")[:10] + self.rows("bids")[:10]
        text = ",".join(f"{self._scaled(price, 0)}:{self._scaled(quantity, 1)}"
                        for price, quantity, _ in rows)
        assert zlib.crc32(text.encode()) == crc

    def rows(self, name: str) -> list[list[Any]]:
        """One side, best first."""
        return sorted(self.sides[name].values(), key=lambda row: self._scaled(row[0], 0),
                      reverse=name == "bids")

    def _scaled(self, text: str, which: int) -> int:
        return round(float(text) * self._scales[which])

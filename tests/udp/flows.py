"""Orders for the lossy link, and what came of them.

A flow is a list of phases; all of a phase is answered before the next one begins. Within a phase
of `commutative` the order of arrival changes nothing that `Ledger` and `trades_by_price` can see:
each resting order has a price of its own, each is touched once, and takers take what they are
given, whoever comes first. `crowded` has no such care: there every arrival matters.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from tests.udp.reference import Reference, cancel, enter, replace, told, unsequenced

ACCOUNTS = ("MAKER1", "MAKER2", "TAKER1", "TAKER2")
SYMBOLS = ("AAPL", "MSFT")
# Prices are whole ticks of a cent, in units of a hundredth of a cent.
TICK = 100
BASE = 50_000_000
FAR = 1_500_000_000
IOC = "3"


class Step(NamedTuple):
    """Messages for one datagram. One with a number is answered under it; `fenced` ones may be
    ignored by the venue, and `numbers` are those they would use."""

    messages: list[bytes]
    numbers: list[tuple[int, int]]
    fenced: bool = False

    def give(self, client: Reference) -> None:
        """Let a client send it."""
        if self.fenced:
            client.ask_fenced(self.messages, self.numbers)
        else:
            channel, number = self.numbers[0]
            client.ask(number, self.messages[0], channel)

    def packets(self) -> bytes:
        """The same for a connection over TCP."""
        return b"".join(unsequenced(message) for message in self.messages)


Phase = dict[str, list[Step]]


class Numbers:
    """The next numbers of an account's channels."""

    def __init__(self) -> None:
        self._next: Counter[int] = Counter()

    def take(self, channel: int) -> int:
        self._next[channel] += 1
        return self._next[channel]


class Commutative:
    """Makes one: half of the orders rest, some are changed, the other half takes."""

    def __init__(self, seed: int, orders: int) -> None:
        self._chance = random.Random(seed)
        self._orders = orders
        self._numbers = {name: Numbers() for name in ACCOUNTS}
        self._places: Counter[tuple[str, str]] = Counter()
        self._resting: dict[str, list[tuple[int, int, str, str, int]]] = {
            name: [] for name in ACCOUNTS}
        self._lots: Counter[tuple[str, str]] = Counter()

    def phases(self) -> list[Phase]:
        """Resting orders, changes of them, takers."""
        resting = self._orders * 55 // 100
        return [self._rest(resting), self._change(), self._take(self._orders - resting)]

    def _own_price(self, symbol: str, side: str) -> int:
        self._places[symbol, side] += 1
        away = TICK * self._places[symbol, side]
        return BASE + away if side == "S" else BASE - away

    def _rest(self, count: int) -> Phase:
        chance, phase = self._chance, _empty()
        for _ in range(count):
            name, channel = chance.choice(ACCOUNTS), chance.choice((0, 0, 3))
            symbol, side, lots = chance.choice(SYMBOLS), chance.choice("BS"), chance.randint(1, 90)
            number = self._numbers[name].take(channel)
            message = enter(number, side, lots, self._own_price(symbol, side), symbol,
                            channel=channel)
            phase[name].append(Step([message], [(channel, number)]))
            self._resting[name].append((channel, number, symbol, side, lots))
            self._lots[symbol, side] += lots
        return phase

    def _change(self) -> Phase:
        chance, phase = self._chance, _empty()
        for name, orders in self._resting.items():
            messages: list[bytes] = []
            numbers: list[tuple[int, int]] = []
            for channel, number, symbol, side, lots in orders:
                if chance.random() < 0.2:
                    left = chance.choice((0, chance.randint(0, lots)))
                    messages.append(cancel(number, left, channel))
                    self._lots[symbol, side] -= lots - left
                elif chance.random() < 0.12:
                    fresh = self._numbers[name].take(channel)
                    messages.append(replace(number, fresh, lots, self._own_price(symbol, side),
                                            channel=channel))
                    numbers.append((channel, fresh))
                if len(messages) >= 8 or (messages and chance.random() < 0.05):
                    phase[name].append(Step(messages, numbers, fenced=True))
                    messages, numbers = [], []
            if messages:
                phase[name].append(Step(messages, numbers, fenced=True))
        return phase

    def _take(self, count: int) -> Phase:
        chance, phase, left = self._chance, _empty(), self._lots.copy()
        for _ in range(count):
            name, channel = chance.choice(ACCOUNTS), chance.choice((0, 0, 3))
            symbol, side, lots = chance.choice(SYMBOLS), chance.choice("BS"), chance.randint(1, 60)
            other = "S" if side == "B" else "B"
            # What rests is always enough, so no taker's fill depends on who came first.
            lots = min(lots, max(1, left[symbol, other] // 10))
            left[symbol, other] -= lots
            number = self._numbers[name].take(channel)
            message = enter(number, side, lots, FAR if side == "B" else TICK, symbol, IOC,
                            channel=channel)
            phase[name].append(Step([message], [(channel, number)]))
        assert min(left.values()) > 0
        return phase


def crowded(seed: int, orders: int) -> list[Phase]:
    """Enters, cancels and replaces at a few prices, so that nearly everything trades."""
    chance, phase = random.Random(seed), _empty()
    numbers = {name: Numbers() for name in ACCOUNTS}
    for _ in range(orders):
        name = chance.choice(ACCOUNTS)
        number = numbers[name].take(0)
        price = BASE + TICK * chance.randint(-8, 8)
        message = enter(number, chance.choice("BS"), chance.randint(1, 90), price,
                        chance.choice(SYMBOLS), chance.choice("0013"))
        phase[name].append(Step([message], [(0, number)]))
        if chance.random() < 0.5:
            phase[name].append(_changes(chance, numbers[name], number))
    return [phase]


def _changes(chance: random.Random, numbers: Numbers, newest: int) -> Step:
    """Changes of orders that may live, be gone, or not have arrived."""
    messages, used = [], []
    for _ in range(chance.randint(1, 4)):
        number = chance.randint(max(1, newest - 60), newest)
        if chance.random() < 0.8:
            messages.append(cancel(number, chance.choice((0, 0, 10))))
            continue
        fresh = numbers.take(0)
        used.append((0, fresh))
        messages.append(replace(number, fresh, chance.randint(1, 90),
                                BASE + TICK * chance.randint(-8, 8)))
    return Step(messages, used, fenced=True)


def _empty() -> Phase:
    return {name: [] for name in ACCOUNTS}


class Fate(NamedTuple):
    """What became of an order: the letter of its first answer, lots done, taken off, open."""

    letter: str
    executed: int
    canceled: int
    open: int


class Ledger:
    """What an account's stream says of each of its orders, read with the tables of PROTOCOLS 2.4
    alone. It fails when an order is answered twice or more is done than there was."""

    def __init__(self, messages: Iterable[bytes]) -> None:
        self.orders: dict[tuple[int, int], Fate] = {}
        self.live: dict[tuple[int, int], tuple[str, str, int]] = {}
        for message in messages:
            self._read(message)

    def levels(self, symbol: str) -> dict[str, dict[int, list[int]]]:
        """{side: {price: [lots, orders]}} of what is open."""
        found: dict[str, dict[int, list[int]]] = {"B": {}, "S": {}}
        for key, (name, side, price) in self.live.items():
            if name == symbol:
                level = found[side].setdefault(price, [0, 0])
                level[0] += self.orders[key].open
                level[1] += 1
        return found

    def _read(self, message: bytes) -> None:
        letter, number, channel, original = told(message)
        key = (channel, number)
        if letter in "AJU":
            assert key not in self.orders, f"order {key} was answered twice"
            self._begin(letter, key, message, (channel, original))
        elif letter in "EC":
            lots = int.from_bytes(message[13:17], "big")
            fate = self.orders[key]
            done = lots if letter == "E" else 0
            self._set(key, Fate(fate.letter, fate.executed + done, fate.canceled + lots - done,
                                fate.open - lots))

    def _begin(self, letter: str, key: tuple[int, int], message: bytes,
               original: tuple[int, int]) -> None:
        if letter == "J":
            self.orders[key] = Fate("J", 0, 0, 0)
            return
        at = 13 if letter == "A" else 17
        side, lots, symbol, price = struct.unpack_from("!cI8sQ", message, at)
        if letter == "U":
            fate = self.orders[original]
            self._set(original, fate._replace(open=0))
        self.live[key] = (symbol.decode().strip(), side.decode(), price)
        self._set(key, Fate(letter, 0, 0, lots))

    def _set(self, key: tuple[int, int], fate: Fate) -> None:
        assert fate.open >= 0, f"more of order {key} is gone than there was"
        self.orders[key] = fate
        if not fate.open:
            self.live.pop(key, None)

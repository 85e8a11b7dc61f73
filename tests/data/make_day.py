"""Makes the small day in this folder: a market of our own, recorded as LOBSTER would record it.

    python -m tests.data.make_day

A seed drives a book that is deeper than the five levels that are recorded, so that levels leave
the window and come back with orders that the recording never named. Some orders rest before the
first row. There are hidden executions, halts, and a few executions out of price-time order, all
of which real days have too. A test makes the day again and compares.
"""

import lzma
import random
from collections.abc import Iterator
from pathlib import Path

from engine.clients.replay import commands, lobster

FOLDER = Path(__file__).parent
SEED = 20260801
ROWS = 1_500
LEVELS = 5
TICK_UNITS = 100
START_UNITS = 400_000
START_NS = 34_200_000_000_000
# What LOBSTER writes where a side has fewer levels.
NO_ASK, NO_BID = 9_999_999_999, -9_999_999_999

MESSAGES = FOLDER / f"MSFT_made_message_{LEVELS}.csv"
BOOK = FOLDER / f"MSFT_made_orderbook_{LEVELS}.csv.xz"
COMMANDS = FOLDER / f"MSFT_made_{LEVELS}.commands.csv.xz"

# Type, order, quantity, price, direction: a message without its time.
Row = tuple[int, int, int, int, int]


class Market:
    """A book with price-time priority and people who trade in it at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sides: dict[str, dict[int, list[list[int]]]] = {"B": {}, "S": {}}
        self.next_order = 1
        self.mid_units = START_UNITS
        for _ in range(60):
            self.enter()

    def prices(self, side: str) -> list[int]:
        """Best first."""
        return sorted(self.sides[side], reverse=side == "B")

    def window(self) -> dict[int, set[int]]:
        """The recorded prices by direction."""
        return {1: set(self.prices("B")[:LEVELS]), -1: set(self.prices("S")[:LEVELS])}

    def step(self) -> Iterator[Row]:
        """What happens next; the book is as after each row when the row is given."""
        chance = self.random.random()
        if chance < 0.002:
            yield from ((7, 0, 0, state, -1) for state in (-1, 0, 1))
        elif chance < 0.47:
            yield self.enter()
        elif chance < 0.86:
            yield from self.cancel()
        elif chance < 0.89:
            yield 5, 0, self.random.randint(1, 90), self.mid_units, self.random.choice((1, -1))
        else:
            yield from self.trade()

    def enter(self) -> Row:
        """Somebody posts an order that does not trade."""
        side = self.random.choice("BS")
        sign = 1 if side == "S" else -1
        away = 1 + int(self.random.expovariate(0.25))
        price = self.mid_units // TICK_UNITS * TICK_UNITS + sign * away * TICK_UNITS
        against = self.prices("B" if side == "S" else "S")
        if against and sign * (price - against[0]) <= 0:
            price = against[0] + sign * TICK_UNITS
        quantity = self.random.choice((10, 25, 50, 100, 100, 100, 200, 500))
        order, self.next_order = self.next_order, self.next_order + self.random.randint(1, 3)
        self.sides[side].setdefault(price, []).append([order, quantity])
        return 1, order, quantity, price, -sign

    def cancel(self) -> Iterator[Row]:
        """Somebody takes back an order, or a part of it."""
        side = self.random.choice("BS")
        if self.sides[side]:
            price = self.random.choice(self.prices(side)[:LEVELS + 1])
            order = self.random.choice(self.sides[side][price])
            part = order[1] > 10 and self.random.random() < 0.15
            quantity = self.random.randrange(1, order[1]) if part else order[1]
            self.take(side, price, order, quantity)
            yield 2 if part else 3, order[0], quantity, price, 1 if side == "B" else -1

    def trade(self) -> Iterator[Row]:
        """Somebody trades with the best orders; now and then the newest is taken first."""
        side = self.random.choice("BS")
        direction = 1 if side == "B" else -1
        wanted = self.random.choice((5, 50, 100, 150, 400))
        while wanted and self.sides[side]:
            price = self.prices(side)[0]
            queue = self.sides[side][price]
            order = queue[-1] if self.random.random() < 0.03 else queue[0]
            quantity = min(wanted, order[1])
            wanted -= quantity
            self.take(side, price, order, quantity)
            yield 4, order[0], quantity, price, direction
        self.mid_units -= direction * TICK_UNITS * self.random.randint(0, 3)

    def take(self, side: str, price: int, order: list[int], quantity: int) -> None:
        """Shares of an order are gone."""
        order[1] -= quantity
        if not order[1]:
            self.sides[side][price].remove(order)
        if not self.sides[side][price]:
            del self.sides[side][price]


def book_row(market: Market) -> str:
    """The levels of the window, as one line."""
    fields: list[int] = []
    asks, bids = market.prices("S"), market.prices("B")
    for level in range(LEVELS):
        for side, prices, nothing in (("S", asks, NO_ASK), ("B", bids, NO_BID)):
            price = prices[level] if level < len(prices) else nothing
            fields += [price, sum(order[1] for order in market.sides[side].get(price, ()))]
    return ",".join(map(str, fields)) + "\n"


def make(seed: int = SEED, rows: int = ROWS) -> tuple[list[str], list[str]]:
    """The lines of the message file and of the order book file."""
    market = Market(seed)
    messages: list[str] = []
    books: list[str] = []
    time_ns = START_NS
    while len(messages) < rows:
        time_ns += int(market.random.expovariate(1 / 4e6))
        before = market.window()
        for kind, order, quantity, price, direction in market.step():
            after = market.window()
            # What happens below the window is not recorded.
            if kind > 4 or price in before[direction] or price in after[direction]:
                time = f"{time_ns // 10**9}.{time_ns % 10**9:09}"
                messages.append(f"{time},{kind},{order},{quantity},{price},{direction}\n")
                books.append(book_row(market))
            before = after
    return messages, books


def main() -> None:
    """Write the three files."""
    messages, books = make()
    MESSAGES.write_text("".join(messages))
    with lzma.open(BOOK, "wt") as file:
        file.writelines(books)
    with lzma.open(COMMANDS, "wt") as file:
        file.writelines(commands.write_commands(lobster.derive(MESSAGES, BOOK)))


if __name__ == "__main__":
    main()

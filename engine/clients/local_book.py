"""A subscriber's own copy of a book, kept from the messages of the feed.

Plain Python on purpose: it shares nothing with the engine's book but the messages, so its checksum
says something about both.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

from engine.clients.errors import BookMismatchError

# The checksum covers so many levels of each side.
CHECKED_LEVELS = 10

Row = list[Any]
Message = Mapping[str, Any]


def digits(text: str) -> int:
    """A decimal text without its point: wire units, since the feed writes all decimals."""
    return int(text.replace(".", ""))


class LocalBook:
    """Price levels as the channel `book` tells them.

    `lot_size` is the instrument's lot in its smallest decimal, None if it is not known: then
    checksums are not checked. `depth` is that of the subscription, None for the full book.
    """

    def __init__(self, symbol: str, depth: int | None = None,
                 lot_size: int | None = None) -> None:
        self.symbol = symbol
        self.seq = 0
        self.time_ns = 0
        # Checksums that were compared so far.
        self.checked = 0
        self._lot_size = lot_size
        self._checks = lot_size is not None and (depth is None or depth >= CHECKED_LEVELS)
        self._ready = False
        # Whether something did not fit, and no snapshot came since.
        self.lost = False
        # Rows by price, and the prices in rising order; bids, then asks.
        self._rows: tuple[dict[int, Row], dict[int, Row]] = ({}, {})
        self._prices: tuple[list[int], list[int]] = ([], [])

    @property
    def ready(self) -> bool:
        """Whether a snapshot came and everything since then fitted."""
        return self._ready

    @property
    def bids(self) -> list[Row]:
        """[price, quantity, orders], best first."""
        return [self._rows[0][price] for price in reversed(self._prices[0])]

    @property
    def asks(self) -> list[Row]:
        """[price, quantity, orders], best first."""
        return [self._rows[1][price] for price in self._prices[1]]

    @property
    def best_bid(self) -> Row | None:
        """The best bid, or None."""
        return self._rows[0][self._prices[0][-1]] if self._prices[0] else None

    @property
    def best_ask(self) -> Row | None:
        """The best ask, or None."""
        return self._rows[1][self._prices[1][0]] if self._prices[1] else None

    def apply(self, message: Message) -> None:
        """Take a snapshot, delta or reset. Raises BookMismatchError when the result is not the
        venue's book; the book is then not ready until the next snapshot."""
        kind = message["type"]
        if kind == "snapshot":
            self.clear()
            self._ready = True
        if kind == "reset":
            self.clear()
        if kind == "reset" or not self._ready:
            return
        for side, name in enumerate(("bids", "asks")):
            for row in message[name]:
                self._put(side, row)
        self.seq, self.time_ns = message["seq"], message["time"]
        if self._checks:
            self.checked += 1
            if self.crc() != message["crc"]:
                self._ready, self.lost = False, True
                raise BookMismatchError(
                    f"the book of {self.symbol} at seq {self.seq} has the checksum {self.crc()}, "
                    f"the venue's has {message['crc']}",
                    "subscribe again: the snapshot puts it right")

    def clear(self) -> None:
        """Forget everything; nothing is taken before the next snapshot."""
        self._ready = self.lost = False
        for rows, prices in zip(self._rows, self._prices, strict=True):
            rows.clear()
            prices.clear()

    def crc(self) -> int:
        """The checksum of the best ten levels of each side, as the venue computes it."""
        rows = [(price, self._rows[1][price]) for price in self._prices[1][:CHECKED_LEVELS]]
        bids = self._prices[0][:-CHECKED_LEVELS - 1:-1]
        rows += [(price, self._rows[0][price]) for price in bids]
        return crc32(",".join(f"{price}:{digits(row[1]) // (self._lot_size or 1)}"
                              for price, row in rows).encode("ascii"))

    def _put(self, side: int, row: Row) -> None:
        price = digits(row[0])
        rows, prices = self._rows[side], self._prices[side]
        if row[1] == "0":
            if rows.pop(price, None) is not None:
                del prices[bisect_left(prices, price)]
            return
        if price not in rows:
            insort(prices, price)
        rows[price] = row


class LocalOrders:
    """Single orders as the channel `book_l3` tells them, in the order in which they trade."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.seq = 0
        self.time_ns = 0
        self._ready = False
        # Whether something did not fit, and no snapshot came since.
        self.lost = False
        # Queues by price, bids, then asks: order id to [price, order id, quantity], oldest first.
        self._levels: tuple[dict[int, dict[Any, Row]], dict[int, dict[Any, Row]]] = ({}, {})

    @property
    def ready(self) -> bool:
        """Whether a snapshot came and everything since then fitted."""
        return self._ready

    @property
    def bids(self) -> list[Row]:
        """[price, order_id, quantity], in queue order."""
        return [*self._walk(0)]

    @property
    def asks(self) -> list[Row]:
        """[price, order_id, quantity], in queue order."""
        return [*self._walk(1)]

    def apply(self, message: Message) -> None:
        """Take a snapshot, delta or reset. Raises BookMismatchError for what does not fit."""
        kind = message["type"]
        if kind in ("snapshot", "reset"):
            self.clear()
        if kind == "snapshot":
            self._ready = True
            for side, name in enumerate(("bids", "asks")):
                for row in message[name]:
                    self._levels[side].setdefault(digits(row[0]), {})[row[1]] = [*row]
        elif self._ready and kind == "delta":
            for event in message["events"]:
                self._change(event)
        if self._ready:
            self.seq, self.time_ns = message["seq"], message["time"]

    def clear(self) -> None:
        """Forget everything; nothing is taken before the next snapshot."""
        self._ready = self.lost = False
        for levels in self._levels:
            levels.clear()

    def _walk(self, side: int) -> Iterator[Row]:
        levels = self._levels[side]
        for price in sorted(levels, reverse=side == 0):
            yield from levels[price].values()

    def _change(self, event: Message) -> None:
        levels = self._levels[0 if event["side"] == "buy" else 1]
        price, order_id = digits(event["price"]), event["order_id"]
        if event["e"] == "add":
            levels.setdefault(price, {})[order_id] = [event["price"], order_id, event["quantity"]]
            return
        row = levels.get(price, {}).get(order_id)
        if row is None or digits(row[2]) - digits(event["quantity"]) != digits(event["remaining"]):
            self._ready, self.lost = False, True
            raise BookMismatchError(
                f"order {order_id} of {self.symbol} changes and is not as it should be",
                "subscribe again: the snapshot puts it right")
        row[2] = event["remaining"]
        if digits(row[2]) == 0:
            del levels[price][order_id]
            if not levels[price]:
                del levels[price]

"""The matcher behind the line protocol of tracebook-conformance: JSON in, JSON out.

Every book, trade and rejection comes from `cython_core.matcher`; this file only translates. An
instrument's price unit is one tick of the protocol, a lot is 1e-12, and one account enters all
orders. Run as `python adapter.py`; it reads stdin until `finish`.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher

PROTOCOL = {"protocol": "tracebook.conformance", "protocol_version": 1}
ENGINE = {"name": "matchd", "version": "1", "language": "Cython"}
ACCOUNT = 1
MARKET_PRICE = 0x7FFFFFFF
QUANTITY_MAX_LOTS = 2**63 - 1
TIMES_IN_FORCE = {"LIMIT": "1", "MARKET": "3", "IOC": "3", "FOK": "4"}
LETTERS = {"BUY": "B", "SELL": "S"}


class Refused(Exception):
    """The event is rejected with the protocol's reason code."""


@dataclass
class Order:
    """What the protocol knows of a live order that the matcher does not."""

    order_id: int
    owner: int
    side: str
    price_units: int
    open_lots: int
    done_lots: int
    user_ref_num: int


class Book:
    """One symbol: its instrument, and its live orders by the protocol's id and by our number."""

    def __init__(self, instrument_id):
        self.instrument_id = instrument_id
        self.by_id = {}
        self.by_number = {}

    def put(self, order):
        self.by_id[order.order_id] = self.by_number[order.user_ref_num] = order

    def drop(self, order):
        del self.by_id[order.order_id], self.by_number[order.user_ref_num]


class Adapter:
    """Carries out the protocol's events on one matcher."""

    def __init__(self, config):
        self.tick = Decimal(str(config["tick_size"]))
        self.tick_float = float(config["tick_size"])
        self.places = config["quantity_decimal_places"]
        self.matcher = Matcher()
        self.books = {}
        self.last_number = 0
        commands = CommandBatch()
        commands.define_account(ACCOUNT, "TRACE")
        self.apply(commands)

    def apply(self, commands):
        """The events of one command."""
        events = EventBatch()
        self.matcher.apply(commands, events, 0)
        return events.dicts()

    def handle(self, event):
        """Carry out one event; returns its trades. Raises Refused."""
        symbol, operation = event["symbol"], event["op"]
        if symbol not in self.books:
            if operation not in ("new", "clear"):
                raise Refused("ORDER_NOT_ACTIVE")
            self.open_book(symbol)
        book = self.books[symbol]
        events = getattr(self, operation)(book, event)
        return self.take_down(symbol, book, events)

    def open_book(self, symbol):
        book = self.books[symbol] = Book(len(self.books) + 1)
        commands = CommandBatch()
        commands.define_instrument(book.instrument_id, symbol, symbol[:8], 2, 1, 12,
                                   quantity_max_lots=QUANTITY_MAX_LOTS)
        self.apply(commands)

    # Operations of the protocol

    def new(self, book, event):
        if event["order_id"] in book.by_id:
            raise Refused("DUPLICATE_ORDER_ID")
        is_market = event["order_type"] == "MARKET"
        price_units = MARKET_PRICE if is_market else self.units_of(event["price"])
        lots = max(0, self.lots_of(event["quantity"]))
        order = Order(event["order_id"], event["owner"], LETTERS[event["side"]], price_units, lots,
                      0, self.next_number())
        commands = CommandBatch()
        commands.enter(ACCOUNT, order.user_ref_num, book.instrument_id, order.side, lots,
                       price_units, TIMES_IN_FORCE[event["order_type"]])
        events = self.apply(commands)
        if events[0]["kind"] == "rejected":
            raise Refused("INVALID_ORDER")
        book.put(order)
        return events

    def cancel(self, book, event):
        order = self.live(book, event)
        commands = CommandBatch()
        commands.cancel(ACCOUNT, order.user_ref_num)
        return self.apply(commands)

    def reduce(self, book, event):
        """The protocol names what comes off, OUCH what the whole chain shall be."""
        order = self.live(book, event)
        lots = self.lots_of(event["quantity"])
        if not 0 < lots <= order.open_lots:
            raise Refused("INVALID_ORDER")
        commands = CommandBatch()
        commands.cancel(ACCOUNT, order.user_ref_num, order.done_lots + order.open_lots - lots)
        return self.apply(commands)

    def replace(self, book, event):
        """A price below the grid is refused, but costs the order its place as a replace does."""
        order = self.live(book, event)
        lots = order.open_lots if event["quantity"] is None else self.lots_of(event["quantity"])
        price_units = order.price_units
        if event["price"] is not None:
            price_units = self.units_of(event["price"])
        if lots <= 0:
            raise Refused("INVALID_REPLACEMENT")
        if price_units <= 0:
            events = self.send_replace(book, order, order.open_lots, order.price_units)
            self.take_down(event["symbol"], book, events)
            raise Refused("INVALID_REPLACEMENT")
        return self.send_replace(book, order, lots, price_units)

    def send_replace(self, book, order, lots, price_units):
        book.drop(order)
        original, order.user_ref_num = order.user_ref_num, self.next_number()
        order.open_lots, order.price_units = lots, price_units
        book.put(order)
        commands = CommandBatch()
        commands.replace(ACCOUNT, original, order.user_ref_num, order.done_lots + lots,
                         price_units, "1")
        return self.apply(commands)

    def clear(self, book, event):
        commands = CommandBatch()
        commands.mass_cancel(ACCOUNT, self.next_number(), instrument_id=book.instrument_id)
        return self.apply(commands)

    # Pieces

    def live(self, book, event):
        if event["order_id"] not in book.by_id:
            raise Refused("ORDER_NOT_ACTIVE")
        return book.by_id[event["order_id"]]

    def next_number(self):
        self.last_number += 1
        return self.last_number

    def units_of(self, price):
        """Ticks, snapped as the protocol's reference does: half-even on the float quotient."""
        return round(price / self.tick_float)

    def lots_of(self, quantity):
        lots = Decimal(str(quantity)).scaleb(self.places)
        return int(lots.to_integral_value(ROUND_HALF_EVEN))

    def take_down(self, symbol, book, events):
        """Keep the live orders in step with the events; returns the trades among them."""
        trades = []
        for event in events:
            if event["kind"] == "fill":
                trades.append(self.trade(symbol, book, event))
            elif event["kind"] == "canceled":
                order = book.by_number[event["user_ref_num"]]
                order.open_lots = event["remaining_lots"]
                if order.open_lots == 0:
                    book.drop(order)
        return trades

    def trade(self, symbol, book, fill):
        taker = book.by_number[fill["user_ref_num"]]
        maker = book.by_number[fill["maker_user_ref_num"]]
        for order in (taker, maker):
            order.open_lots -= fill["quantity_lots"]
            order.done_lots += fill["quantity_lots"]
            if order.open_lots == 0:
                book.drop(order)
        buyer, seller = (taker, maker) if taker.side == "B" else (maker, taker)
        return {
            "symbol": symbol, "buy_order_id": buyer.order_id, "sell_order_id": seller.order_id,
            "price": self.price_text(fill["price_units"]),
            "quantity": self.lots_text(fill["quantity_lots"])}

    def price_text(self, price_units):
        return decimal_text(price_units * self.tick)

    def lots_text(self, lots):
        return decimal_text(Decimal(lots).scaleb(-self.places))

    def state(self):
        """Every book as the matcher has it, in its own order of priority."""
        books = []
        for symbol in sorted(self.books):
            book = self.books[symbol]
            sides = {"B": [], "S": []}
            for order in self.matcher.orders(book.instrument_id):
                known = book.by_number[order["user_ref_num"]]
                sides[order["side"]].append({
                    "order_id": known.order_id, "owner": known.owner, "order_type": "LIMIT",
                    "price": self.price_text(order["price_units"]),
                    "remaining_quantity": self.lots_text(order["quantity_lots"])})
            books.append({"symbol": symbol, "bids": sides["B"], "asks": sides["S"]})
        return {"books": books}

    def observe(self, index, event):
        outcome, trades = {"status": "applied", "reason": None, "message": None}, []
        try:
            trades = self.handle(event)
        except Refused as refusal:
            outcome = {"status": "rejected", "reason": str(refusal), "message": str(refusal)}
        self.matcher.check_invariants()
        text = json.dumps(self.state(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return {"type": "observation", "index": index, "outcome": outcome, "trades": trades,
                "state_hash": hashlib.sha256(text.encode("utf-8")).hexdigest(),
                "resting_order_count": self.matcher.resting_orders}


def decimal_text(value):
    """No exponent, no sign, no trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def answer(adapter, message):
    """The reply to one message after `hello`."""
    kind = message["type"]
    if kind == "event":
        return adapter.observe(message["index"], message["event"])
    if kind == "snapshot":
        return {"type": "snapshot", "index": message["index"], "state": adapter.state()}
    if kind == "finish":
        return {"type": "complete", "event_count": message["event_count"]}
    raise ValueError(f"unknown message type {kind!r}")


def serve(source, sink):
    """Speak the protocol until `finish`."""
    def write(message):
        sink.write(json.dumps(message, separators=(",", ":")) + "\n")
        sink.flush()

    adapter = Adapter(json.loads(source.readline())["config"])
    write({"type": "ready", **PROTOCOL, "engine": ENGINE})
    for line in source:
        message = json.loads(line)
        write(answer(adapter, message))
        if message["type"] == "finish":
            return


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)

"""A price-time book in plain lists that answers in OUCH: the judge of the replay's checker.

It knows limit orders, IOC and cancels, for one instrument. The daemon is tested elsewhere; here
its answers can be bent, to see that the checker notices.
"""

from collections.abc import Iterator

from cython_core import ouch, soupbin

# (role, message): role 0 is the maker's connection, 1 the taker's.
Answer = tuple[int, bytes]


class SlowVenue:
    """Answers packets of one or two accounts."""

    def __init__(self) -> None:
        self.resting: list[dict[str, object]] = []
        self.orders = 0
        self.matches = 0

    def handle(self, packets: bytes, role: int = 0) -> Iterator[Answer]:
        """The answers to the packets of one connection, in order."""
        for kind, payload in soupbin.PacketReader("client").feed(packets):
            assert kind == "U"
            message = ouch.decode("in", payload)
            handler = {"O": self.enter, "X": self.cancel}[message["type"]]
            yield from handler(message, role)

    def enter(self, order: dict, role: int) -> Iterator[Answer]:
        self.orders += 1
        open_lots = order["quantity_lots"]
        yield role, ouch.encode_outbound("A", timestamp_ns=0, order_id=self.orders,
                                         order_state="L", **_without(order, "type", "options"))
        sign = 1 if order["side"] == "B" else -1
        others = [one for one in self.resting if one["side"] != order["side"]
                  and sign * (order["price_units"] - one["price_units"]) >= 0]
        for maker in sorted(others, key=lambda one: sign * one["price_units"]):
            lots = min(open_lots, maker["open"])
            if not lots:
                break
            self.matches += 1
            yield role, self.executed(order, lots, maker["price_units"], "R")
            yield maker["role"], self.executed(maker, lots, maker["price_units"], "A")
            open_lots -= lots
            self.reduce(maker, lots)
        if open_lots and order["time_in_force"] == "3":
            yield role, self.canceled(order, open_lots, "I")
        elif open_lots:
            self.resting.append({**order, "open": open_lots, "role": role,
                                 "done": order["quantity_lots"] - open_lots})

    def cancel(self, request: dict, role: int) -> Iterator[Answer]:
        for one in self.resting:
            if (one["role"], one["user_ref_num"]) == (role, request["user_ref_num"]):
                lots = one["open"] - max(0, request["quantity_lots"] - one["done"])
                if lots > 0:
                    self.reduce(one, lots)
                    one["done"] -= lots
                    yield role, self.canceled(one, lots, "U")
                return

    def reduce(self, order: dict, lots: int) -> None:
        order["open"] -= lots
        order["done"] += lots
        if not order["open"]:
            self.resting.remove(order)

    def executed(self, order: dict, lots: int, price_units: int, liquidity: str) -> bytes:
        return ouch.encode_outbound(
            "E", timestamp_ns=0, user_ref_num=order["user_ref_num"], quantity_lots=lots,
            price_units=price_units, liquidity=liquidity, match_number=self.matches)

    def canceled(self, order: dict, lots: int, reason: str) -> bytes:
        return ouch.encode_outbound("C", timestamp_ns=0, user_ref_num=order["user_ref_num"],
                                    quantity_lots=lots, reason=reason)


def _without(fields: dict, *names: str) -> dict:
    return {name: value for name, value in fields.items() if name not in names}

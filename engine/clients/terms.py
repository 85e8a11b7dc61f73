"""The letters and numbers of an order, and exact conversion of what a user writes."""

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from cython_core.model import MARKET_PRICE_UNITS
from engine.clients.errors import ClientError
from engine.instruments import Instrument, by_symbol

# A decimal text or a Decimal is in the instrument's own numbers, an int in wire units (or lots).
# Never a float: most prices are not one.
Price: TypeAlias = int | str | Decimal
Quantity: TypeAlias = int | str | Decimal


class Side(StrEnum):
    """Which way; SHORT and EXEMPT count as selling."""

    BUY = "B"
    SELL = "S"
    SHORT = "T"
    EXEMPT = "E"


class TimeInForce(StrEnum):
    """How long an order stands."""

    DAY = "0"
    GTC = "1"
    IOC = "3"
    FOK = "4"


class Terms:
    """Converts prices and quantities by the instruments of the venue."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = by_symbol(instruments)

    def wire_symbol(self, symbol: str) -> str:
        """The eight characters that stand for a symbol on the wire; an unknown one is sent as it
        is, so that the venue refuses it."""
        known = self._instruments.get(symbol)
        return symbol if known is None else known.wire_symbol

    def price_units(self, symbol: str, price: Price | None) -> int:
        """A price in wire units, None for a market order. Raises TypeError for a float and
        ValueError for what does not convert exactly."""
        if price is None:
            return int(MARKET_PRICE_UNITS)
        if isinstance(price, int):
            return price
        return self._instrument(symbol).price_units(_text("price", price))

    def quantity_lots(self, symbol: str, quantity: Quantity) -> int:
        """A quantity in lots. Raises TypeError for a float and ValueError for what does not
        convert exactly."""
        if isinstance(quantity, int):
            return quantity
        return self._instrument(symbol).quantity_lots(_text("quantity", quantity))

    def _instrument(self, symbol: str) -> Instrument:
        known = self._instruments.get(symbol)
        if known is None:
            raise ClientError(f"no instrument {symbol!r} is known here",
                              "give prices in wire units and quantities in lots, as integers")
        return known


def _text(what: str, value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, str):
        return value
    raise TypeError(f"a {what} is a decimal text, a Decimal or an integer of wire units, "
                    f"not a {type(value).__name__}")

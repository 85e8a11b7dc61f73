"""What is traded: `instruments.toml`, and exact conversion between decimals and wire integers.

A price on the wire is the decimal price times 10**price_decimals (price_units). A quantity on the
wire is a number of lots. No float comes near either: a decimal text converts exactly or is
refused.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from engine.tables import Problems, check_table, check_unique, read_rows, show

# OUCH's largest limit price (PROTOCOLS 2.1): what lies above is reserved for market orders.
PRICE_UNITS_MAX = 1_999_999_999
# Quantities are 32 bits on the wire.
QUANTITY_LOTS_MAX = 2**32 - 1

_DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,20}))?")

Decimals = Annotated[int, Meta(ge=0, le=12)]
DecimalText = Annotated[str, Meta(pattern=r"^[0-9]{1,20}(\.[0-9]{1,20})?$",
                                  description='a decimal in quotes, like "0.01"')]


class InstrumentRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[instrument]]` as it stands in the file."""

    id: Annotated[int, Meta(ge=1, le=65_535)]
    symbol: Annotated[str, Meta(pattern=r"^[A-Z0-9][A-Z0-9._/-]{0,23}$",
                                description="1 to 24 of A-Z 0-9 . _ / -")]
    price_decimals: Decimals
    tick: DecimalText
    quantity_decimals: Decimals
    lot: DecimalText
    wire_symbol: Annotated[str, Meta(pattern=r"^([A-Z0-9][A-Z0-9._/-]{0,7})?$",
                                     description="1 to 8 of A-Z 0-9 . _ / -, or \"\"")] = ""
    quantity_max: Annotated[str, Meta(pattern=r"^([0-9]{1,20}(\.[0-9]{1,20})?)?$",
                                      description='a decimal in quotes, or ""')] = ""


class Instrument(msgspec.Struct, frozen=True):
    """One instrument in wire integers."""

    id: int
    symbol: str
    wire_symbol: str
    price_decimals: int
    tick_units: int
    quantity_decimals: int
    lot_size: int
    quantity_max_lots: int = QUANTITY_LOTS_MAX

    def price_units(self, text: str) -> int:
        """A decimal price in wire units. Raises ValueError when it is none, too large or off the
        instrument's tick."""
        units = scaled(text, self.price_decimals)
        if not 1 <= units <= PRICE_UNITS_MAX:
            raise ValueError(f"{text} is outside {self.price_text(1)}.."
                             f"{self.price_text(PRICE_UNITS_MAX)}")
        if units % self.tick_units:
            raise ValueError(f"{text} is not a multiple of {self.price_text(self.tick_units)}")
        return units

    def price_text(self, price_units: int) -> str:
        """Wire units as a decimal text with all of the instrument's decimals."""
        return unscaled(price_units, self.price_decimals)

    def quantity_lots(self, text: str) -> int:
        """A decimal quantity in lots. Raises ValueError when it is none, not whole lots, zero or
        above the instrument's limit."""
        lots, rest = divmod(scaled(text, self.quantity_decimals), self.lot_size)
        if rest:
            raise ValueError(f"{text} is not a multiple of {self.quantity_text(1)}")
        if not 1 <= lots <= self.quantity_max_lots:
            raise ValueError(f"{text} is outside {self.quantity_text(1)}.."
                             f"{self.quantity_text(self.quantity_max_lots)}")
        return lots

    def quantity_text(self, quantity_lots: int) -> str:
        """Lots as a decimal text with all of the instrument's decimals."""
        return unscaled(quantity_lots * self.lot_size, self.quantity_decimals)


def scaled(text: str, decimals: int) -> int:
    """A decimal text times 10**decimals, exactly. Raises ValueError where that is no integer."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a decimal number")
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > decimals:
        raise ValueError(f"{text} has more than {decimals} decimals")
    return int(whole + fraction.ljust(decimals, "0"))


def unscaled(value: int, decimals: int) -> str:
    """The decimal text of `value` / 10**decimals."""
    if decimals == 0:
        return str(value)
    digits = str(abs(value)).rjust(decimals + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-decimals]}.{digits[-decimals:]}"


def load(path: Path, problems: Problems | None = None) -> list[Instrument]:
    """The instruments of a file, by id. Mistakes are noted in `problems`; without one they are
    raised together as ConfigError."""
    found = Problems() if problems is None else problems
    rows = read_rows(path, "instrument", found)
    instruments = [_instrument(where, row, path, found) for where, row in rows]
    for key in ("id", "symbol"):
        check_unique(rows, key, path, found)
    check_unique([(where, {"wire_symbol": row.get("wire_symbol") or row.get("symbol")})
                  for where, row in rows], "wire_symbol", path, found)
    if problems is None:
        found.raise_all()
    return sorted((one for one in instruments if one is not None), key=lambda one: one.id)


def _instrument(where: str, table: Mapping[str, Any], path: Path,
                problems: Problems) -> Instrument | None:
    row = check_table(InstrumentRow, table, path, where, problems)
    if row is None:
        return None
    wire_symbol = row.wire_symbol or row.symbol
    if len(wire_symbol) > 8:
        problems.note(path, f"{where}.wire_symbol", "1 to 8 characters for the wire",
                      show(wire_symbol))
    before = len(problems)
    tick_units = _positive(row.tick, row.price_decimals, path, f"{where}.tick", problems)
    lot_size = _positive(row.lot, row.quantity_decimals, path, f"{where}.lot", problems)
    if len(problems) > before:
        return None
    quantity_max_lots = _quantity_max(row, lot_size, path, where, problems)
    return Instrument(row.id, row.symbol, wire_symbol, row.price_decimals, tick_units,
                      row.quantity_decimals, lot_size, quantity_max_lots)


def _positive(text: str, decimals: int, path: Path, key: str, problems: Problems) -> int:
    try:
        value = scaled(text, decimals)
    except ValueError:
        value = 0
    if not 1 <= value < 2**63:
        problems.note(path, key, f"a positive number of at most {decimals} decimals",
                      show(text))
    return value


def _quantity_max(row: InstrumentRow, lot_size: int, path: Path, where: str,
                  problems: Problems) -> int:
    if not row.quantity_max:
        return QUANTITY_LOTS_MAX
    value = _positive(row.quantity_max, row.quantity_decimals, path, f"{where}.quantity_max",
                      problems)
    if value % lot_size or value // lot_size > QUANTITY_LOTS_MAX:
        problems.note(path, f"{where}.quantity_max",
                      f"whole lots, at most {QUANTITY_LOTS_MAX} of them", show(row.quantity_max))
    return value // lot_size


def by_symbol(instruments: Iterable[Instrument]) -> dict[str, Instrument]:
    """The instruments by symbol; a wire symbol leads there too unless it is another's symbol."""
    every = list(instruments)
    return {one.wire_symbol: one for one in every} | {one.symbol: one for one in every}

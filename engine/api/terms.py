"""An order as it is written over HTTP, and as the matcher takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cython_core.event import CommandBatch
from cython_core.model import MARKET_PRICE_UNITS, Flag, Reject
from engine.api.reasons import rejected
from engine.api.route import ApiError, Identity
from engine.api.types import NewOrder
from engine.instruments import (
    PRICE_UNITS_MAX,
    QUANTITY_LOTS_MAX,
    Instrument,
    by_symbol,
    scaled,
)

SIDES = {"buy": "B", "sell": "S"}
TIMES_IN_FORCE = {"day": "0", "gtc": "1", "ioc": "3", "fok": "4"}
_RATE_EXCEEDED = int(Flag.RATE_EXCEEDED)
_MARKET = int(MARKET_PRICE_UNITS)


class Terms(NamedTuple):
    """An order in wire integers and letters."""

    instrument: Instrument
    side: str
    quantity_lots: int
    price_units: int
    time_in_force: str
    post_only: bool
    client_order_id: str

    def enter(self, batch: CommandBatch, request_id: int, who: Identity,
              exceeded: bool = False) -> None:
        """Put the order into a batch. One that is too many for this second is refused without its
        client's id, so that it can be sent again."""
        batch.enter(who.account_id, 0, self.instrument.id, self.side, self.quantity_lots,
                    self.price_units, self.time_in_force, post_only=self.post_only,
                    source=who.source, flags=_RATE_EXCEEDED if exceeded else 0,
                    request_id=request_id, actor_account_id=who.account_id, key=who.key,
                    reason=who.mark,
                    client_order_id="" if exceeded else self.client_order_id)

    def replace(self, batch: CommandBatch, request_id: int, who: Identity,
                handle: Mapping[str, Any], post_only: bool | None, exceeded: bool) -> None:
        """Put a replace of another order by this one into a batch; `post_only` None keeps the
        other's."""
        batch.replace(who.account_id, handle["user_ref_num"], 0, self.quantity_lots,
                      self.price_units, self.time_in_force, user_ref_idx=handle["user_ref_idx"],
                      post_only=post_only, source=who.source, reason=who.mark,
                      flags=_RATE_EXCEEDED if exceeded else 0, request_id=request_id,
                      order_id=handle["order_id"], actor_account_id=who.account_id, key=who.key,
                      client_order_id="" if exceeded else self.client_order_id)


class Instruments:
    """Instruments by symbol, and the conversion of what an order says about one. `known` are those
    that are not listed any more: orders of before may rest there."""

    def __init__(self, instruments: Iterable[Instrument],
                 known: Iterable[Instrument] = ()) -> None:
        self._all: list[Instrument] = []
        self._by_symbol: dict[str, Instrument] = {}
        self.replace(instruments, known)

    def replace(self, instruments: Iterable[Instrument],
                known: Iterable[Instrument] = ()) -> None:
        """Have these listed, and no others."""
        self._all = list(instruments)
        self._by_symbol = by_symbol(known) | by_symbol(self._all)

    def all(self) -> list[Instrument]:
        """Every instrument that is listed, by id."""
        return self._all

    def of(self, symbol: str, status: int = 422) -> Instrument:
        """The instrument. Raises ApiError `unknown_symbol`."""
        found = self._by_symbol.get(symbol)
        if found is None:
            raise ApiError(status, "unknown_symbol", f"there is no instrument {symbol!r}",
                           {"symbol": symbol})
        return found

    def terms(self, order: NewOrder) -> Terms:
        """The order in wire integers. Raises ApiError 400, 422."""
        instrument = self.of(order.symbol)
        lots = quantity_lots(instrument, order.quantity)
        tif = order.time_in_force
        if order.order_type == "limit":
            if order.price is None:
                raise _bad("missing_field", "price", "a limit order needs a price")
            units = price_units(instrument, order.price)
            tif = tif or "gtc"
        else:
            if order.price is not None:
                raise _bad("bad_value", "price", "a market order has no price")
            if order.post_only:
                raise _bad("bad_value", "post_only", "a market order can't be post-only")
            tif = tif or "ioc"
            if tif not in ("ioc", "fok"):
                raise _bad("bad_value", "time_in_force", "a market order never rests: it is "
                           "ioc or fok")
            units = _MARKET
        return Terms(instrument, SIDES[order.side], lots, units, TIMES_IN_FORCE[tif],
                     order.post_only, order.client_order_id or "")


def price_units(instrument: Instrument, price: str | int) -> int:
    """A price in wire units. Raises ApiError 422 where the wire has no number for it; whether it
    is on the tick is the matcher's to say, and leaves an event."""
    text = price if isinstance(price, str) else str(price)
    try:
        units = scaled(text, instrument.price_decimals)
    except ValueError:
        raise _off_tick(instrument, text) from None
    if units > PRICE_UNITS_MAX:
        raise _out_of_range(instrument, text)
    return units


def quantity_lots(instrument: Instrument, quantity: str | int) -> int:
    """A quantity in lots. Raises ApiError 422 where the wire has no number for it; whether it is
    allowed is the matcher's to say, and leaves an event."""
    text = quantity if isinstance(quantity, str) else str(quantity)
    try:
        lots, rest = divmod(scaled(text, instrument.quantity_decimals), instrument.lot_size)
    except ValueError:
        lots, rest = 0, 1
    if rest:
        lot = instrument.quantity_text(1)
        raise ApiError(422, "quantity_off_lot", f"{text} is not a multiple of the lot {lot}",
                       {"quantity": text, "lot": lot})
    if lots > QUANTITY_LOTS_MAX:
        raise _too_many(instrument, text)
    return lots


def refused(reason: int, instrument: Instrument, price: int, quantity: int,
            details: Mapping[str, Any]) -> ApiError:
    """The matcher's refusal of these wire integers, said as closely as is known."""
    error = rejected(reason, details)
    closer = None
    if reason == Reject.PRICE:
        text = instrument.price_text(price)
        closer = (_off_tick(instrument, text) if price % instrument.tick_units
                  else _out_of_range(instrument, text))
    elif reason == Reject.QUANTITY:
        closer = _too_many(instrument, instrument.quantity_text(quantity))
    if closer is not None:
        error.code, error.message = closer.code, closer.message
        error.details.update(closer.details)
    return error


def _off_tick(instrument: Instrument, text: str) -> ApiError:
    tick = instrument.price_text(instrument.tick_units)
    return ApiError(422, "price_off_tick", f"{text} is not a multiple of the tick {tick}",
                    {"price": text, "tick": tick})


def _out_of_range(instrument: Instrument, text: str) -> ApiError:
    least, most = instrument.price_text(1), instrument.price_text(PRICE_UNITS_MAX)
    return ApiError(422, "price_out_of_range", f"a price is from {least} to {most}",
                    {"price": text, "max": most})


def _too_many(instrument: Instrument, text: str) -> ApiError:
    least = instrument.quantity_text(1)
    most = instrument.quantity_text(instrument.quantity_max_lots)
    return ApiError(422, "invalid_quantity", f"a quantity is from {least} to {most}",
                    {"quantity": text, "max": most})


def _bad(code: str, field: str, message: str) -> ApiError:
    return ApiError(400, code, message, {"field": field})

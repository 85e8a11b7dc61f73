"""The rows that stores keep, with this venue's words for reasons and roles."""

from collections.abc import Collection, Iterable
from typing import Any

from cython_core.rows import Rows
from engine.accounts import ROLES
from engine.instruments import Instrument
from engine.market.reasons import CANCEL_CODES, REJECT_CODES


def new_rows(applied_seq: int = 0, keep: Collection[str] | None = None) -> Rows:
    """Rows of the events behind `applied_seq`; `keep` names the tables wanted, None is all."""
    return Rows(applied_seq, REJECT_CODES, CANCEL_CODES, ROLES, keep)


def defined_before(instruments: Iterable[Instrument], seq: int,
                   time_ns: int) -> list[tuple[Any, ...]]:
    """Rows of `instruments` for a store that begins behind `seq`, where the log does not have
    their definitions any more: as they are configured now."""
    return [(one.id, one.symbol, one.wire_symbol, one.price_decimals, one.quantity_decimals,
             one.tick_units, one.lot_size, one.quantity_max_lots, seq, time_ns)
            for one in instruments]

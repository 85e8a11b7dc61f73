"""Rows of the past as they are written: from wire units to decimals, from keys to cursors."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

import msgspec

from cython_core.depth import decimal_text
from engine import clock
from engine.api.history_types import PastCandle, PastExecution, PastOrder, PastTrade
from engine.api.route import ApiError
from engine.past import KEY_LENGTH, Ask, Key, Row, Scale

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"(?:([Zz])|([+-])(\d\d):?(\d\d))?", re.ASCII)
_DIGITS = re.compile(r"\d{1,19}", re.ASCII)
_INT64_MAX = 2**63 - 1
_CURSOR_VERSION = 1

Shown: TypeAlias = PastOrder | PastTrade | PastExecution | PastCandle


class Names(NamedTuple):
    """What a row's numbers are called: symbols' scales, accounts' usernames; for candles, up to
    when no trade can come any more and how long one is."""

    scales: Mapping[str, Scale]
    usernames: Mapping[int, str]
    settled_ns: int = 0
    length_ns: int = 0


def _order(row: Row, names: Names) -> PastOrder:
    (order_id, client_order_id, symbol, account_id, side, order_type, tif, post_only, units, lots,
     filled, remaining, status, reason, source, replaces, replaced_by, time_ns, updated_seq,
     updated_ns) = row
    scale = names.scales[symbol]
    decimals, size = scale.quantity_decimals, scale.lot_size
    return PastOrder(
        str(order_id), client_order_id or None, _username(names, account_id), symbol, side,
        order_type, tif, bool(post_only),
        None if units is None else decimal_text(units, scale.price_decimals),
        decimal_text(lots * size, decimals), decimal_text(filled * size, decimals),
        decimal_text(remaining * size, decimals), status, reason or None, source, _id(replaces),
        _id(replaced_by), time_ns, updated_ns, updated_seq)


def _trade(row: Row, names: Names) -> PastTrade:
    match, symbol, units, lots, side, time_ns, seq = row
    scale = names.scales[symbol]
    return PastTrade(str(match), symbol, decimal_text(units, scale.price_decimals),
                     decimal_text(lots * scale.lot_size, scale.quantity_decimals), side, time_ns,
                     seq)


def _execution(row: Row, names: Names) -> PastExecution:
    match, part, order_id, client_order_id, account_id, symbol, side, units, lots, time_ns = row
    scale = names.scales[symbol]
    return PastExecution(
        str(match), str(order_id), client_order_id or None, _username(names, account_id), symbol,
        side, decimal_text(units, scale.price_decimals),
        decimal_text(lots * scale.lot_size, scale.quantity_decimals),
        "taker" if part else "maker", time_ns)


def _candle(row: Row, names: Names) -> PastCandle:
    opens_ns, symbol, first, high, low, last, lots, trades = row
    scale = names.scales[symbol]
    decimals = scale.price_decimals
    return PastCandle(
        opens_ns, symbol, decimal_text(first, decimals), decimal_text(high, decimals),
        decimal_text(low, decimals), decimal_text(last, decimals),
        decimal_text(lots * scale.lot_size, scale.quantity_decimals), trades,
        opens_ns + names.length_ns <= names.settled_ns)


SHOW: Mapping[str, Callable[[Row, Names], Shown]] = {
    "orders": _order, "trades": _trade, "executions": _execution, "candles": _candle}
SHOWN: Mapping[str, type[Shown]] = {
    "orders": PastOrder, "trades": PastTrade, "executions": PastExecution, "candles": PastCandle}
# Where the symbol stands in a row.
SYMBOL_AT: Mapping[str, int] = {"orders": 2, "trades": 1, "executions": 5, "candles": 1}


def _username(names: Names, account_id: int) -> str:
    return names.usernames.get(account_id) or f"#{account_id}"


def _id(value: int | None) -> str | None:
    return str(value) if value else None


# -- cursors -----------------------------------------------------------------------------------


def cursor(ask: Ask, key: Key) -> str:
    """What leads on behind this key, and only in answers to the same question."""
    data = msgspec.msgpack.encode((_CURSOR_VERSION, _mark(ask), *key))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_in(ask: Ask, text: str) -> Key:
    """The key in a cursor. Raises ApiError 400."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        version, mark, *key = msgspec.msgpack.decode(data, type=list[int])
    except (ValueError, msgspec.MsgspecError):
        raise _bad_cursor("this is no cursor of ours") from None
    if version != _CURSOR_VERSION or len(key) != KEY_LENGTH[ask.kind] \
            or not all(0 <= part <= _INT64_MAX for part in key):
        raise _bad_cursor("this is no cursor of this route")
    if mark != _mark(ask):
        raise _bad_cursor("this cursor belongs to another question: ask with the same filters")
    return tuple(key)


def _mark(ask: Ask) -> int:
    """A number for the question, whatever its page."""
    return zlib.crc32(msgspec.msgpack.encode(
        (ask.kind, ask.symbol, ask.account_id, ask.side, ask.statuses, ask.from_ns, ask.to_ns,
         ask.newest_first, ask.interval_s)))


def _bad_cursor(message: str) -> ApiError:
    return ApiError(400, "bad_cursor", message, {"field": "cursor"})


# -- times -------------------------------------------------------------------------------------


def time_ns(field: str, text: str | None) -> int:
    """A time as nanoseconds since 1970 UTC; 0 for none. Raises ApiError 400."""
    if text is None:
        return 0
    value = int(text) if _DIGITS.fullmatch(text) else _iso_ns(text)
    if not 0 <= value <= _INT64_MAX:
        raise ApiError(400, "bad_time", f"{field}: {text!r} is no time: give nanoseconds since "
                       "1970 UTC, or ISO 8601 as 2026-01-31T12:00:00Z (in a query, + is %2B)",
                       {"field": field})
    return value


def _iso_ns(text: str) -> int:
    """-1 for what is no time, or one before 1970."""
    match = _TIME.fullmatch(text)
    if match is None:
        return -1
    day, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = match.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{hour or '00'}:{minute or '00'}:{second or '00'}")
        offset = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
        zone = timezone(-offset if sign == "-" else offset) if sign else UTC
        # Whole seconds: exact as a float too.
        seconds = int((at.replace(tzinfo=zone) - _EPOCH) / timedelta(seconds=1))
    except (ValueError, OverflowError):
        return -1
    return seconds * clock.NS_PER_S + int((fraction or "").ljust(9, "0"))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def fields_of(kind: str) -> tuple[str, ...]:
    """The names of a row's fields, as they are written."""
    return SHOWN[kind].__struct_fields__


def symbols_of(kind: str, rows: Sequence[Row]) -> set[str]:
    """The symbols that stand in these rows."""
    at = SYMBOL_AT[kind]
    return {row[at] for row in rows}


def values_of(shown: Any) -> tuple[Any, ...]:
    """A row's values in the order of its fields."""
    return msgspec.structs.astuple(shown)

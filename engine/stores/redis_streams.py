"""A run of events as entries of streams: one of the venue's order events, one for each market
that traded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from cython_core.depth import decimal_text
from cython_core.rows import COLUMNS, Rows
from engine.instruments import Instrument
from engine.redis_values import Coder

# So many rows are made between two looks at the loop: about a millisecond.
SLICE_ROWS = 500
TABLES = ("order_events", "trades", "instruments")

EVENT_COLUMNS = COLUMNS["order_events"]
_SEQ, _TIME, _KIND, _SYMBOL, *_IDS = (EVENT_COLUMNS.index(name) for name in (
    "seq", "time_ns", "kind", "symbol", "order_id", "other_order_id"))
_TRADE = {name: place for place, name in enumerate(COLUMNS["trades"])}
# They leave a book as it is.
_QUIET = frozenset(("rejected", "replace_refused"))


class Entry(NamedTuple):
    """One entry: the seqs of its first and last row, when that was, how many rows, the value."""

    first: int
    seq: int
    time_ns: int
    rows: int
    data: bytes


class Run(NamedTuple):
    """What a run of events adds: None where there is nothing. `updates` are the events that
    changed each market's book."""

    events: Entry | None
    trades: dict[str, Entry]
    updates: dict[str, int]


class Streams:
    """Makes entries in one encoding; `instruments` by symbol are the markets that are kept."""

    def __init__(self, coder: Coder, instruments: Mapping[str, Instrument]) -> None:
        self._coder = coder
        self._instruments = instruments

    async def run(self, rows: Rows, seq_of: Callable[[str], int], venue_seq: int) -> Run:
        """The entries of all rows behind `venue_seq`, or behind `seq_of` a market. Lets the loop
        run on now and then."""
        updates: dict[str, int] = {}
        parts: list[bytes] = []
        first, last, count = 0, None, 0
        for piece in _slices(rows, "order_events"):
            for row in piece:
                if row[_KIND] not in _QUIET and row[_SYMBOL] in self._instruments:
                    updates[row[_SYMBOL]] = updates.get(row[_SYMBOL], 0) + 1
            if piece[0][_SEQ] <= venue_seq:
                piece = [row for row in piece if row[_SEQ] > venue_seq]
            if piece:
                parts.append(self._coder.part(self._event_rows(piece)))
                first, last, count = first or piece[0][_SEQ], piece[-1], count + len(piece)
            await asyncio.sleep(0)
        events = None if last is None else Entry(
            first, last[_SEQ], last[_TIME], count,
            self._coder.joined(parts, count))
        return Run(events, await self._trades(rows, seq_of), updates)

    def _event_rows(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        if not self._coder.is_json:
            return rows
        # A double, as JSON's readers have it, may not hold an identifier.
        found = []
        for row in rows:
            changed = list(row)
            for place in _IDS:
                if changed[place] is not None:
                    changed[place] = str(changed[place])
            found.append(changed)
        return found

    async def _trades(self, rows: Rows, seq_of: Callable[[str], int]) -> dict[str, Entry]:
        found: dict[str, list[dict[str, Any]]] = {}
        for piece in _slices(rows, "trades"):
            for row in piece:
                symbol = row[_TRADE["symbol"]]
                instrument = self._instruments.get(symbol)
                if instrument is not None and row[_TRADE["seq"]] > seq_of(symbol):
                    found.setdefault(symbol, []).append(self._trade(instrument, row))
            await asyncio.sleep(0)
        return {symbol: self._entry(symbol, trades) for symbol, trades in found.items()}

    def _trade(self, instrument: Instrument, row: tuple[Any, ...]) -> dict[str, Any]:
        """A trade as the feed's `trades` has it."""
        match = row[_TRADE["match_number"]]
        return {
            "match": str(match) if self._coder.is_json else match,
            "price": decimal_text(row[_TRADE["price_units"]], instrument.price_decimals),
            "quantity": decimal_text(row[_TRADE["quantity_lots"]] * instrument.lot_size,
                                     instrument.quantity_decimals),
            "side": row[_TRADE["taker_side"]], "time": row[_TRADE["time_ns"]],
            "seq": row[_TRADE["seq"]]}

    def _entry(self, symbol: str, trades: list[dict[str, Any]]) -> Entry:
        last = trades[-1]
        return Entry(trades[0]["seq"], last["seq"], last["time"], len(trades), self._coder.value(
            {"channel": "trades", "symbol": symbol, "seq": last["seq"], "time": last["time"],
             "trades": trades}))


def _slices(rows: Rows, table: str) -> Iterator[list[tuple[Any, ...]]]:
    count = rows.count(table)
    return (rows.rows(table, at, min(at + SLICE_ROWS, count))
            for at in range(0, count, SLICE_ROWS))

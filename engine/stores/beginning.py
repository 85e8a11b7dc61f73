"""What a store has to know that begins where the log's beginning is gone.

Markets and accounts were defined, and orders accepted, before the oldest event that is kept. They
are taken from the oldest snapshot, which is of that event or later. What it tells of an order is
taken back by what the events between did to it, so that they may be written behind it: the store
is right at every seq in what remains of the order. Markets and accounts stand as the snapshot has
them, also those that were defined, halted or switched a little later; the same events bring the
store there again.

An order that rested then and ended before the snapshot is not known; changes of it change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cython_core import record
from cython_core.event import EventBatch, read_units
from cython_core.rows import COLUMNS, Rows
from engine.accounts import ROLES
from engine.errors import NotKeptError
from engine.stores.store import Row
from engine.stores.tables import new_rows

if TYPE_CHECKING:
    from cython_core.matcher import Matcher

INT64_MAX = 2**63 - 1
_ROLE_WORDS = {number: word for word, number in ROLES.items()}
_TIMES_IN_FORCE = {"0": "day", "1": "gtc", "3": "ioc", "4": "fok"}

# What the rows of each table have.
BEGINNING: dict[str, tuple[str, ...]] = {
    "instruments": (*COLUMNS["instruments"], "state", "reason"),
    "accounts": (*COLUMNS["accounts"], "entry_disabled", "killed"),
    "orders": COLUMNS["orders"],
}


class KeptLog(Protocol):
    """The log, as far as its beginning is concerned."""

    def oldest_seq(self) -> int:
        """The first seq that is kept."""

    def events(self, from_seq: int, to_seq: int) -> Iterator[EventBatch]:
        """Batches of whole commands that have all of from_seq..to_seq. Raises NotKeptError."""

    def oldest_state(self) -> tuple[Matcher, int]:
        """The state of the oldest snapshot from which the kept events lead on, and its seq.
        Raises NotKeptError."""


class Beginning(NamedTuple):
    """Rows of before the first kept event `seq`, which has the time `time_ns`; they are what the
    state at `state_seq` knew. Columns as in BEGINNING."""

    seq: int
    time_ns: int
    state_seq: int
    tables: dict[str, list[Row]]

    def define(self, rows: Rows) -> None:
        """Let rows know the markets."""
        for row in self.tables["instruments"]:
            number, symbol, wire_symbol, price_decimals, quantity_decimals, _, lot_size = row[:7]
            rows.define(number, symbol, wire_symbol, price_decimals, quantity_decimals, lot_size)


def beginning_of(past: KeptLog) -> Beginning | None:
    """What has to be known behind the oldest kept event; None when that is the first of all.

    Reads a snapshot and the events up to it. Raises NotKeptError where none can be read,
    JournalError.
    """
    while (seq := past.oldest_seq()) > 1:
        try:
            found = _beginning(past, seq)
        except (NotKeptError, OSError):
            if past.oldest_seq() == seq:
                raise
            continue
        # The venue may have let go of more before it was told not to.
        if past.oldest_seq() == seq:
            return found
    return None


def _beginning(past: KeptLog, seq: int) -> Beginning:
    matcher, state_seq = past.oldest_state()
    markets = matcher.instruments()
    orders = {order["order_id"]: order for number in markets
              for order in read_units(matcher.export_orders(0, number))
              if order["order_id"] < seq}
    rows = new_rows(seq - 1, ("orders",))
    for number, market in markets.items():
        rows.define(number, market["symbol"])
    filled, reduced, time_ns = _changes(past, rows, state_seq, orders)
    time_ns = time_ns or matcher.last_time_ns
    at = (seq - 1, time_ns)
    return Beginning(seq, time_ns, state_seq, {
        "instruments": [_instrument(number, market, at) for number, market in markets.items()],
        "accounts": [_account(number, fields, at)
                     for number, fields in matcher.accounts().items()],
        "orders": [_order(orders[number], str(markets[orders[number]["instrument_id"]]["symbol"]),
                          filled[number], reduced[number], at) for number in sorted(orders)]})


def _changes(past: KeptLog, rows: Rows, to_seq: int, orders: Collection[int]
             ) -> tuple[Counter[int], Counter[int], int]:
    """What the events behind the rows did to these orders: lots filled, lots taken off; and the
    time of the first event."""
    filled: Counter[int] = Counter()
    reduced: Counter[int] = Counter()
    time_ns = 0
    for batch in past.events(rows.applied_seq + 1, to_seq):
        time_ns = time_ns or record.first_time_ns(batch)
        rows.apply(record.events_before(batch, to_seq + 1))
        for order_id, filled_lots, reduced_lots, *_ in rows.rows("order_changes"):
            if order_id in orders:
                filled[order_id] += filled_lots
                reduced[order_id] += reduced_lots
        rows.clear()
    return filled, reduced, time_ns


def _instrument(number: int, market: dict[str, object], at: tuple[int, int]) -> Row:
    named = {**market, "instrument_id": number}
    return (*(named[name] for name in COLUMNS["instruments"][:-3]),
            min(int(str(market["quantity_max_lots"])), INT64_MAX), *at,
            "halted" if market["halted"] else "trading",
            market["halt_reason"] or None if market["halted"] else None)


def _account(number: int, fields: dict[str, object], at: tuple[int, int]) -> Row:
    named = {**fields, "account_id": number, "firm": fields["firm"] or None,
             "role": _ROLE_WORDS[int(str(fields["role"]))],
             "quantity_max_lots": min(int(str(fields["quantity_max_lots"])), INT64_MAX)}
    return (*(named[name] for name in COLUMNS["accounts"][:-2]), *at,
            fields["entry_disabled"], fields["killed"])


def _order(order: dict[str, object], symbol: str, filled: int, reduced: int,
           at: tuple[int, int]) -> Row:
    """A resting order as it was. What it had done is known since the last session roll."""
    remaining = int(str(order["quantity_lots"])) + filled + reduced
    done = max(0, int(str(order.get("chain_done_lots", 0))) - filled)
    seq, time_ns = at
    return (order["order_id"], symbol, order["account_id"],
            "buy" if order["side"] == "B" else "sell", "limit",
            _TIMES_IN_FORCE[str(order["time_in_force"])], order["post_only"],
            order["price_units"], remaining + done, done, remaining,
            "partially_filled" if done else "open", None, order.get("client_order_id"),
            order["client_order"] or None, order["source"], order["user_ref_num"] or None,
            order["user_ref_idx"], None, None, time_ns, seq, time_ns)

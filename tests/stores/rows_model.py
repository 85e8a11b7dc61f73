"""All tables of the stores out of the events of a log, the slow and plain way.

It knows everything since the first event and keeps whole tables, where `cython_core.rows` knows a
run of events and keeps nothing. `Folded` is what a store does with such runs, in dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cython_core.event import EventBatch
from cython_core.model import Reject
from cython_core.rows import COLUMNS, Rows
from engine.accounts import ROLES
from engine.market.reasons import CANCEL_CODES, REJECT_CODES

Event = dict[str, Any]
Row = dict[str, Any]
Table = dict[Any, Row]

TIMES = {"0": "day", "1": "gtc", "3": "ioc", "4": "fok"}
SIDES = {"B": "buy", "S": "sell", "T": "sell", "E": "sell"}
ROLE_NAMES = {number: name for name, number in ROLES.items()}
INTERVALS_S = (60, 300, 3600, 86400)
INT64_MAX = 2**63 - 1
# The tables as a store has them: columns, and which of them are the key.
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "instruments": (("instrument_id", "symbol", "wire_symbol", "price_decimals",
                     "quantity_decimals", "tick_units", "lot_size", "quantity_max_lots", "state",
                     "reason", "seq", "time_ns"), ("instrument_id",)),
    "accounts": (("account_id", "username", "firm", "role", "open_orders_max",
                  "quantity_max_lots", "notional_max", "collar_bps", "messages_per_second",
                  "entry_disabled", "killed", "seq", "time_ns"), ("account_id",)),
    "orders": (COLUMNS["orders"], ("order_id",)),
    "order_events": (COLUMNS["order_events"], ("seq",)),
    "trades": (COLUMNS["trades"], ("match_number",)),
    "candles": (COLUMNS["candles"], ("symbol", "interval_s", "open_time_ns")),
    "positions": (COLUMNS["positions"], ("account_id", "symbol")),
}


def price_or_none(units: int) -> int | None:
    """The price of a limit order; market orders have none."""
    return None if units >= 2**31 - 1 or units == 2_000_000_000 else units


def lots_or_none(lots: int) -> int | None:
    """Only a refused order may ask for more than 63 bits."""
    return lots if lots <= INT64_MAX else None


class RowsModel:
    """The tables after the batches that were applied."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {name: {} for name in TABLES}
        self.symbols: dict[int, str] = {}

    def apply(self, batch: EventBatch) -> None:
        """Take a batch of whole commands."""
        for event in batch.dicts():
            take = getattr(self, f"_{event['kind']}", None)
            if take is not None:
                take(event)
            row = dict.fromkeys(COLUMNS["order_events"]) | self._event_row(event)
            self.tables["order_events"][event["seq"]] = row

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """A table's rows in the order of its key."""
        table = self.tables[name]
        return [tuple(table[key][column] for column in TABLES[name][0]) for key in sorted(table)]

    # -- instruments and accounts ------------------------------------------------------------

    def _instrument_defined(self, event: Event) -> None:
        number = event["instrument_id"]
        row = self.tables["instruments"].setdefault(number, {"state": "trading", "reason": None})
        row |= {name: event[name] for name in COLUMNS["instruments"]}
        self.symbols[number] = event["symbol"]

    def _instrument_halted(self, event: Event) -> None:
        halted = event["kind"] == "instrument_halted"
        reason = event["origin"]["reason"] if halted and "origin" in event else None
        self.tables["instruments"][event["instrument_id"]].update(
            state="halted" if halted else "trading", reason=reason or None,
            seq=event["seq"], time_ns=event["time_ns"])

    _instrument_resumed = _instrument_halted

    def _account_defined(self, event: Event) -> None:
        row = self.tables["accounts"].setdefault(
            event["account_id"], {"entry_disabled": False, "killed": False})
        row |= {name: event[name] for name in COLUMNS["accounts"]}
        row.update(role=ROLE_NAMES[event["role"]], firm=event["firm"] or None)

    def _entry_disabled(self, event: Event) -> None:
        switch = "killed" if event["source"] == "admin" else "entry_disabled"
        self.tables["accounts"][event["account_id"]].update(
            {switch: event["kind"] == "entry_disabled"}, seq=event["seq"],
            time_ns=event["time_ns"])

    _entry_enabled = _entry_disabled

    # -- orders ------------------------------------------------------------------------------

    def _touch(self, order_id: int, event: Event, **changes: Any) -> Row:
        row = self.tables["orders"][order_id]
        row.update(changes, updated_seq=event["seq"], updated_time_ns=event["time_ns"])
        return row

    def _accepted(self, event: Event) -> None:
        price_units = price_or_none(event["price_units"])
        self.tables["orders"][event["order_id"]] = {
            **{name: event[name] for name in (
                "order_id", "account_id", "post_only", "quantity_lots", "source", "user_ref_idx",
                "time_ns")},
            "symbol": self.symbols[event["instrument_id"]], "side": SIDES[event["side"]],
            "order_type": "market" if price_units is None else "limit",
            "time_in_force": TIMES[event["time_in_force"]], "price_units": price_units,
            "filled_lots": 0, "remaining_lots": event["quantity_lots"], "status": "open",
            "reason": None, "client_order_id": event.get("client_order_id"),
            "client_order": event["client_order"] or None,
            "user_ref_num": event["user_ref_num"] or None, "replaces": None, "replaced_by": None,
            "updated_seq": event["seq"], "updated_time_ns": event["time_ns"]}

    def _replaced(self, event: Event) -> None:
        old = self._touch(event["orig_order_id"], event, status="canceled", reason="replaced",
                          remaining_lots=0, replaced_by=event["order_id"])
        self._accepted(event)
        done = event["chain_done_lots"]
        self.tables["orders"][event["order_id"]].update(
            quantity_lots=event["chain_quantity_lots"], filled_lots=done,
            status="partially_filled" if done else "open", replaces=event["orig_order_id"],
            client_order_id=event.get("client_order_id") or old["client_order_id"])

    def _canceled(self, event: Event) -> None:
        row = self._touch(event["order_id"], event, remaining_lots=event["remaining_lots"])
        if row["remaining_lots"]:
            row["quantity_lots"] -= event["quantity_lots"]
        else:
            row.update(status="canceled", reason=CANCEL_CODES[event["reason"]])

    def _modified(self, event: Event) -> None:
        row = self._touch(event["order_id"], event, remaining_lots=event["quantity_lots"])
        row["quantity_lots"] -= event["reduced_lots"]

    def _announced(self, event: Event) -> None:
        if event["source"] in ("tcp", "udp"):
            self._touch(event["order_id"], event, user_ref_num=event["user_ref_num"])

    # -- trades ------------------------------------------------------------------------------

    def _fill(self, event: Event) -> None:
        symbol, lots = self.symbols[event["instrument_id"]], event["quantity_lots"]
        self.tables["trades"][event["seq"]] = {
            **{name: event[name] for name in ("seq", "time_ns", "price_units", "quantity_lots",
                                              "maker_order_id", "maker_account_id")},
            "match_number": event["seq"], "symbol": symbol, "taker_side": SIDES[event["side"]],
            "taker_order_id": event["order_id"], "taker_account_id": event["account_id"]}
        for order_id in (event["order_id"], event["maker_order_id"]):
            row = self._touch(order_id, event)
            row["filled_lots"] += lots
            row["remaining_lots"] -= lots
            row["status"] = "partially_filled" if row["remaining_lots"] else "filled"
        for interval_s in INTERVALS_S:
            self._candle(event, symbol, interval_s)
        buys = event["side"] == "B"
        self._position(event, symbol, event["account_id"], buys)
        self._position(event, symbol, event["maker_account_id"], not buys)

    def _candle(self, event: Event, symbol: str, interval_s: int) -> None:
        opened = event["time_ns"] // (interval_s * 10**9) * interval_s * 10**9
        price = event["price_units"]
        row = self.tables["candles"].setdefault((symbol, interval_s, opened), {
            "symbol": symbol, "interval_s": interval_s, "open_time_ns": opened,
            "open_units": price, "high_units": price, "low_units": price, "volume_lots": 0,
            "trades": 0})
        row.update(high_units=max(row["high_units"], price), close_units=price,
                   low_units=min(row["low_units"], price), trades=row["trades"] + 1,
                   volume_lots=row["volume_lots"] + event["quantity_lots"])

    def _position(self, event: Event, symbol: str, account_id: int, buys: bool) -> None:
        row = self.tables["positions"].setdefault((account_id, symbol), {
            "account_id": account_id, "symbol": symbol, "position_lots": 0, "bought_lots": 0,
            "sold_lots": 0, "bought_value": 0, "sold_value": 0, "trades": 0})
        lots = event["quantity_lots"]
        done = "bought" if buys else "sold"
        row[f"{done}_lots"] += lots
        row[f"{done}_value"] += lots * event["price_units"]
        row["position_lots"] += lots if buys else -lots
        row.update(trades=row["trades"] + 1, seq=event["seq"], time_ns=event["time_ns"])

    # -- the row of an event -----------------------------------------------------------------

    def _event_row(self, event: Event) -> Row:
        kind = event["kind"]
        row = {
            "seq": event["seq"], "time_ns": event["time_ns"],
            "kind": "filled" if kind == "fill" else kind,
            "symbol": self.symbols.get(event["instrument_id"]),
            "account_id": event["account_id"] or None,
            "user_ref_num": event.get("user_ref_num") or None,
            "source": event.get("source"), "client_order_id": event.get("client_order_id")}
        if kind == "fill":
            return row | self._fill_row(event)
        if kind == "rejected":
            return row | self._rejected_row(event)
        if kind in ("accepted", "replaced", "replace_refused", "canceled", "modified",
                    "announced"):
            return row | self._order_row(event)
        return row | {"side": SIDES.get(event.get("side", "")),
                      "reason": event.get("origin", {}).get("reason") or None}

    def _fill_row(self, event: Event) -> Row:
        return {"order_id": event["order_id"], "other_order_id": event["maker_order_id"],
                "other_account_id": event["maker_account_id"], "side": SIDES[event["side"]],
                "price_units": event["price_units"], "quantity_lots": event["quantity_lots"],
                "remaining_lots": self.tables["orders"][event["order_id"]]["remaining_lots"]}

    def _order_row(self, event: Event) -> Row:
        row = {"order_id": event["order_id"], "side": SIDES.get(event["side"]),
               "price_units": price_or_none(event["price_units"]),
               "quantity_lots": lots_or_none(event["quantity_lots"]),
               "remaining_lots": event["quantity_lots"]}
        if event["kind"] == "canceled":
            row.update(remaining_lots=event["remaining_lots"],
                       reason=CANCEL_CODES[event["reason"]])
        elif event["kind"] == "modified":
            row["quantity_lots"] = event["reduced_lots"]
        elif event["kind"] == "replaced":
            row["other_order_id"] = event["orig_order_id"]
        elif event["kind"] == "replace_refused":
            row["remaining_lots"] = None
        return row

    def _rejected_row(self, event: Event) -> Row:
        reason, command = event["reason"], event["command"]
        row: Row = {"reason": REJECT_CODES.get(reason, f"reject_{reason:04X}")}
        if command in ("cmd_enter", "cmd_replace"):
            row.update(side=SIDES.get(event["side"]),
                       price_units=price_or_none(event["price_units"]),
                       quantity_lots=lots_or_none(event["quantity_lots"]))
        target = event.get("origin", {}).get("order_id")
        if reason == Reject.DUPLICATE_CLIENT_ID:
            # The origin names the first answer to the id then.
            target = event.get("orig_order_id")
        if command in ("cmd_cancel", "cmd_modify"):
            row["order_id"] = target or None
        elif command == "cmd_replace" and "origin" in event:
            row["other_order_id"] = target or None
        return row


def model_of(batches: Iterable[EventBatch]) -> RowsModel:
    """A model after these batches."""
    model = RowsModel()
    for batch in batches:
        model.apply(batch)
    return model


class Folded:
    """What a store makes of runs: inserts, changes joined to older orders, merged totals."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {name: {} for name in TABLES}

    def fold(self, run: Rows) -> None:
        """Take a run, in the order that the .pyi of `rows` says."""
        self._upsert(run, "instruments", {"state": "trading", "reason": None})
        self._upsert(run, "accounts", {"entry_disabled": False, "killed": False})
        for change in self._dicts(run, "instrument_changes"):
            self.tables["instruments"][change["instrument_id"]].update(change)
        for change in self._dicts(run, "account_changes"):
            self.tables["accounts"][change["account_id"]].update(
                (name, value) for name, value in change.items() if value is not None)
        for name in ("orders", "order_events", "trades"):
            self._insert(run, name)
        for change in self._dicts(run, "order_changes"):
            assert run.min_change_id <= change["order_id"] <= run.max_change_id
            self._change(self.tables["orders"][change["order_id"]], change)
        for heir in self._dicts(run, "order_heirs"):
            orders = self.tables["orders"]
            assert orders[heir["order_id"]]["client_order_id"] is None
            orders[heir["order_id"]]["client_order_id"] = orders[heir["heir_of"]][
                "client_order_id"]
        self._merge(run)

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """A table's rows in the order of its key."""
        table = self.tables[name]
        return [tuple(table[key][column] for column in TABLES[name][0]) for key in sorted(table)]

    @staticmethod
    def _dicts(run: Rows, name: str) -> list[Row]:
        return [dict(zip(COLUMNS[name], row, strict=True)) for row in run.rows(name)]

    @staticmethod
    def _key(name: str, row: Row) -> Any:
        key = tuple(row[column] for column in TABLES[name][1])
        return key if len(key) > 1 else key[0]

    def _insert(self, run: Rows, name: str) -> None:
        for row in self._dicts(run, name):
            key = self._key(name, row)
            assert key not in self.tables[name]
            self.tables[name][key] = row

    def _upsert(self, run: Rows, name: str, beginning: Row) -> None:
        rows = self._dicts(run, name)
        assert len({self._key(name, row) for row in rows}) == len(rows)
        for row in rows:
            self.tables[name].setdefault(self._key(name, row), dict(beginning)).update(row)

    @staticmethod
    def _change(row: Row, change: Row) -> None:
        row["filled_lots"] += change["filled_lots"]
        row["quantity_lots"] -= change["reduced_lots"]
        row["remaining_lots"] -= change["filled_lots"] + change["reduced_lots"]
        if change["closed"] is not None:
            row["remaining_lots"] = 0
        row["status"] = change["closed"] or (
            "partially_filled" if row["filled_lots"] else "open")
        for name in ("reason", "replaced_by", "user_ref_num"):
            if change[name] is not None:
                row[name] = change[name]
        row.update(updated_seq=change["updated_seq"], updated_time_ns=change["updated_time_ns"])

    def _merge(self, run: Rows) -> None:
        for name in ("candles", "positions"):
            rows = self._dicts(run, name)
            assert len({self._key(name, row) for row in rows}) == len(rows)
            for row in rows:
                old = self.tables[name].setdefault(self._key(name, row), row)
                if old is not row:
                    for column, value in row.items():
                        if column.endswith(("lots", "value", "trades")):
                            old[column] += value
                        elif column == "high_units":
                            old[column] = max(old[column], value)
                        elif column == "low_units":
                            old[column] = min(old[column], value)
                        elif column not in ("open_units", *TABLES[name][1]):
                            old[column] = value

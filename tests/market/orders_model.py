"""Orders of every account out of events, the slow and plain way: what the ledger is judged by."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from cython_core.event import EventBatch
from engine.market.reasons import CANCEL_CODES, REJECT_CODES

Row = dict[str, Any]
Change = tuple[int, str, Row]
DUPLICATE = 0x8002
TIMES = {"0": "day", "1": "gtc", "3": "ioc", "4": "fok"}
SIDES = {"B": "buy", "S": "sell", "T": "sell", "E": "sell"}
MARKET_PRICES = (2_000_000_000,)


def market(price_units: int) -> bool:
    """Whether a wire price means a market order."""
    return price_units >= 2**31 - 1 or price_units in MARKET_PRICES


def decimal(value: int, decimals: int) -> str:
    """An integer with a point."""
    sign, digits = ("-" if value < 0 else ""), str(abs(value)).rjust(decimals + 1, "0")
    return sign + (f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits)


class OrdersModel:
    """Knows everything since the first event: orders, fills, changes, client ids."""

    def __init__(self) -> None:
        self.names: dict[int, Row] = {}
        self.orders: dict[int, Row] = {}
        self.owner: dict[int, int] = {}
        self.trades: dict[int, list[Row]] = {}
        self.changes: dict[int, list[Change]] = {}
        self.clients: dict[tuple[int, str], int] = {}
        self.died: dict[int, int] = {}
        self._incoming = 0
        self._incoming_seq = 0

    def apply(self, batch: EventBatch) -> None:
        """Take a batch of whole commands."""
        for event in batch.dicts():
            if event["first"]:
                self._settle()
            take = getattr(self, f"_{event['kind']}", None)
            if take is not None:
                take(event)
        self._settle()

    def _instrument_defined(self, event: Row) -> None:
        self.names[event["instrument_id"]] = event

    def _price(self, instrument_id: int, units: int) -> str:
        return decimal(units, self.names.get(instrument_id, {}).get("price_decimals", 0))

    def _lots(self, instrument_id: int, lots: int) -> str:
        names = self.names.get(instrument_id, {"lot_size": 1, "quantity_decimals": 0})
        return decimal(lots * names["lot_size"], names["quantity_decimals"])

    def _new(self, event: Row, order_id: int, done: int, total: int, open_lots: int,
             client: str | None) -> Row:
        instrument_id = event["instrument_id"]
        is_market = market(event["price_units"])
        row = {
            "order_id": order_id, "client_order_id": client,
            "symbol": self.names.get(instrument_id, {}).get("symbol"),
            "side": SIDES.get(event["side"]),
            "order_type": "market" if is_market else "limit",
            "time_in_force": TIMES.get(event["time_in_force"]),
            "price": None if is_market else self._price(instrument_id, event["price_units"]),
            "fills": [], "time": event["time_ns"], "reason": None,
            "_instrument": instrument_id, "_done": done, "_total": total, "_open": open_lots,
            "_status": "", "_earlier": []}
        self.orders[order_id] = row
        self.owner[order_id] = event["account_id"]
        if client and (row["_status"] != "rejected" or (event["account_id"], client)
                       not in self.clients):
            self.clients[event["account_id"], client] = order_id
        return row

    def shown(self, row: Row) -> Row:
        """The row as the ledger would give it."""
        instrument_id = row["_instrument"]
        status = row["_status"] or ("partially_filled" if row["_done"] else "open")
        whole = {key: deepcopy(value) for key, value in row.items() if key[0] != "_"}
        return whole | {
            "quantity": self._lots(instrument_id, row["_total"]),
            "filled_quantity": self._lots(instrument_id, row["_done"]),
            "remaining_quantity": self._lots(instrument_id, row["_open"]), "status": status}

    def _tell(self, order_id: int, seq: int) -> None:
        if order_id == self._incoming:
            self._incoming_seq = seq
        else:
            self.changes.setdefault(self.owner[order_id], []).append(
                (seq, "order", self.shown(self.orders[order_id])))

    def _settle(self) -> None:
        order_id, self._incoming = self._incoming, 0
        if order_id:
            self._tell(order_id, self._incoming_seq)

    def _end(self, order_id: int, status: str, reason: str | None, seq: int) -> None:
        self.orders[order_id].update(_open=0, _status=status, reason=reason)
        self.died[order_id] = seq

    def _accepted(self, event: Row) -> None:
        self._new(event, event["order_id"], 0, event["quantity_lots"], event["quantity_lots"],
                  event.get("client_order_id"))
        self._incoming, self._incoming_seq = event["order_id"], event["seq"]

    def _rejected(self, event: Row) -> None:
        if event["command"] != "cmd_enter" or event["reason"] == DUPLICATE:
            return
        self._new(event, event["seq"], 0, event["quantity_lots"], 0, event.get("client_order_id"))
        reason = REJECT_CODES.get(event["reason"], f"reject_{event['reason']:04X}")
        self._end(event["seq"], "rejected", reason, event["seq"])
        self._tell(event["seq"], event["seq"])

    def _replaced(self, event: Row) -> None:
        old = self.orders[event["orig_order_id"]]
        row = self._new(event, event["order_id"], event["chain_done_lots"],
                        event["chain_quantity_lots"], event["quantity_lots"],
                        event.get("client_order_id") or old["client_order_id"])
        row["fills"] = list(old["fills"])
        row["replaces"] = event["orig_order_id"]
        if row["client_order_id"]:
            self.clients[event["account_id"], row["client_order_id"]] = event["order_id"]
        self._end(event["orig_order_id"], "canceled", "replaced", event["seq"])
        self._incoming, self._incoming_seq = event["order_id"], event["seq"]
        self._tell(event["orig_order_id"], event["seq"])

    def _canceled(self, event: Row) -> None:
        row = self.orders[event["order_id"]]
        row["_open"] = event["remaining_lots"]
        if row["_open"]:
            row["_total"] = row["_done"] + row["_open"]
        else:
            self._end(event["order_id"], "canceled", CANCEL_CODES[event["reason"]], event["seq"])
        self._tell(event["order_id"], event["seq"])

    def _announced(self, event: Row) -> None:
        if event["source"] in ("tcp", "udp"):
            row = self.orders[event["order_id"]]
            row.update(_done=0, _total=row["_open"], fills=[])
            self._tell(event["order_id"], event["seq"])

    def _modified(self, event: Row) -> None:
        row = self.orders[event["order_id"]]
        row["_open"] = event["quantity_lots"]
        row["_total"] = row["_done"] + row["_open"]
        self._tell(event["order_id"], event["seq"])

    def _fill(self, event: Row) -> None:
        self._fill_side(event, event["account_id"], event["order_id"], "taker")
        self._fill_side(event, event["maker_account_id"], event["maker_order_id"], "maker")

    def _fill_side(self, event: Row, account_id: int, order_id: int, liquidity: str) -> None:
        row, instrument_id = self.orders[order_id], event["instrument_id"]
        fill = {"match": event["seq"], "price": self._price(instrument_id, event["price_units"]),
                "quantity": self._lots(instrument_id, event["quantity_lots"]),
                "liquidity": liquidity}
        row["fills"].append(fill)
        row["_done"] += event["quantity_lots"]
        row["_open"] -= event["quantity_lots"]
        trade = fill | {"order_id": order_id, "client_order_id": row["client_order_id"],
                        "symbol": row["symbol"], "side": row["side"], "time": event["time_ns"]}
        self.trades.setdefault(account_id, []).append(trade)
        self.changes.setdefault(account_id, []).append((event["seq"], "execution", trade))
        if row["_open"] == 0:
            self._end(order_id, "filled", None, event["seq"])
        self._tell(order_id, event["seq"])

    # -- questions ---------------------------------------------------------------------------

    def known(self, account_id: int, from_seq: int) -> list[Row]:
        """The rows, newest first, that a ledger has that was activated at `from_seq`."""
        return [self.shown(self.orders[order_id]) for order_id in sorted(self.orders, reverse=True)
                if self.owner[order_id] == account_id
                and self.died.get(order_id, from_seq + 1) > from_seq]


def model_of(batches: Iterable[EventBatch]) -> OrdersModel:
    """A model after these batches."""
    model = OrdersModel()
    for batch in batches:
        model.apply(batch)
    return model

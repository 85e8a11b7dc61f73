"""What happened to an order, in one line or as JSON, from the wire's messages or from the log."""

from collections.abc import Iterator, Mapping
from typing import Any

from cython_core.model import MARKET_PRICE_UNITS, Reject
from engine.instruments import Instrument

Report = dict[str, Any]

SIDES = {"B": "buy", "S": "sell", "T": "sell short", "E": "sell short exempt"}
TIMES_IN_FORCE = {"0": "day", "1": "gtc", "3": "ioc", "4": "fok"}
CANCEL_REASONS = {"U": "by the user", "I": "immediate or cancel", "G": "post-only would trade",
                  "E": "the session rolled"}
# A fill has no field for the other side's letter, and no need: sales are S, T or E.
MAKER_SIDES = {"B": "sell"}

_ORDER_EVENTS = ("accepted", "rejected", "replaced", "canceled", "modified", "announced",
                 "replace_refused")


def from_message(message: Any, instrument: Instrument | None) -> Report:
    """A report of one message of the client library."""
    report: Report = {"type": type(message).__name__.lower()}
    for name in ("user_ref_num", "orig_user_ref_num", "order_id", "match_number",
                 "next_user_ref_num"):
        if (value := getattr(message, name, None)) is not None:
            report[name] = value
    if side := getattr(message, "side", ""):
        report["side"] = SIDES.get(side, side)
    if tif := getattr(message, "time_in_force", ""):
        report["time_in_force"] = TIMES_IN_FORCE.get(tif, tif)
    if liquidity := getattr(message, "liquidity", ""):
        report["liquidity"] = "maker" if liquidity == "A" else "taker"
    if (reason := getattr(message, "reason", "")):
        report["reason"] = CANCEL_REASONS.get(reason, reason)
    if (code := getattr(message, "reject_reason", None)) is not None:
        report["reason"] = reject_text(code)
    return report | _amounts(instrument, getattr(message, "quantity_lots", None),
                             getattr(message, "price_units", None))


def from_event(event: Mapping[str, Any], account_id: int,
               instruments: Mapping[int, Instrument]) -> Iterator[Report]:
    """The reports that one event of the log gives an account: none, one, or two for a fill with
    itself."""
    instrument = instruments.get(event["instrument_id"])
    if event["kind"] == "fill":
        for role in ("taker", "maker"):
            if (report := _fill(event, role, account_id, instrument)) is not None:
                yield report
        return
    if event["account_id"] != account_id or event["kind"] not in _ORDER_EVENTS:
        return
    report = {"type": event["kind"], "seq": event["seq"], "time_ns": event["time_ns"],
              "user_ref_num": event["user_ref_num"]}
    for name in ("orig_user_ref_num", "order_id"):
        if name in event:
            report[name] = event[name]
    if event.get("side"):
        report["side"] = SIDES.get(event["side"], event["side"])
    if event["kind"] in ("accepted", "replaced", "announced") and event.get("time_in_force"):
        report["time_in_force"] = TIMES_IN_FORCE.get(event["time_in_force"])
    if event["kind"] == "canceled":
        report["reason"] = CANCEL_REASONS.get(event["reason"], event["reason"])
    if event["kind"] == "rejected":
        report["reason"] = reject_text(event["reason"])
    yield report | _amounts(instrument, event.get("quantity_lots"), event.get("price_units"))


def _fill(event: Mapping[str, Any], role: str, account_id: int,
          instrument: Instrument | None) -> Report | None:
    prefix = "maker_" if role == "maker" else ""
    if event[f"{prefix}account_id"] != account_id:
        return None
    side = SIDES.get(event["side"], "")
    if role == "maker":
        side = MAKER_SIDES.get(event["side"], "buy")
    return {"type": "executed", "seq": event["seq"], "time_ns": event["time_ns"],
            "user_ref_num": event[f"{prefix}user_ref_num"],
            "order_id": event[f"{prefix}order_id"], "match_number": event["seq"], "side": side,
            "liquidity": role} | _amounts(instrument, event["quantity_lots"],
                                          event["price_units"])


def _amounts(instrument: Instrument | None, lots: int | None, units: int | None) -> Report:
    """Quantity and price in the instrument's decimals; in wire units where it is not known."""
    found: Report = {}
    if instrument is not None:
        found["symbol"] = instrument.symbol
    if lots is not None:
        found["quantity"] = instrument.quantity_text(lots) if instrument else f"{lots} lots"
    if units:
        if units >= MARKET_PRICE_UNITS:
            found["price"] = "market"
        else:
            found["price"] = instrument.price_text(units) if instrument else f"{units} units"
    return found


def reject_text(code: int) -> str:
    """A reject reason: OUCH's code, and a word for it."""
    try:
        return f"{code:04X} {Reject(code).name.lower().replace('_', ' ')}"
    except ValueError:
        return f"{code:04X}"


def line(report: Report) -> str:
    """A report in one line."""
    words = [report["type"].replace("_", " ")]
    if "user_ref_num" in report:
        words.append(f"#{report['user_ref_num']}")
    if "orig_user_ref_num" in report:
        words.append(f"in place of #{report['orig_user_ref_num']}")
    words += [report[name] for name in ("side", "quantity", "symbol") if name in report]
    if "price" in report:
        words.append(f"at {report['price']}" if report["price"] != "market" else "market")
    words += [report[name] for name in ("time_in_force", "liquidity") if name in report]
    if "reason" in report:
        words.append(f"({report['reason']})")
    words += [f"{text} {report[name]}" for name, text in
              (("order_id", "order"), ("match_number", "match")) if name in report]
    return " ".join(words)

"""Every reason for which the venue refuses an order, or lets it end, as a sentence; and the HTTP
status of the refusals. The codes are those of `engine.market.reasons`, the feed's too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cython_core.model import Reject
from engine.api.route import ApiError, Headers
from engine.market.reasons import CANCEL_CODES, REJECT_CODES

# A rule of the venue refused it. Other statuses stand in STATUS.
REFUSED = 422

REJECT_SENTENCES: dict[int, str] = {
    Reject.DISPLAY: "hidden orders are not served",
    Reject.MAX_FLOOR: "iceberg orders are not served",
    Reject.HALTED: "the instrument is halted: orders can only be canceled",
    Reject.ISO: "intermarket sweep orders are not served",
    Reject.SIDE: "the side is neither buy nor sell",
    Reject.FIRM: "order entry is disabled for this account",
    Reject.MIN_QUANTITY: "a minimum quantity needs an order that is immediate or cancel",
    Reject.OTHER: "the order asks for something that is not served",
    Reject.PEG: "pegged orders are not served",
    Reject.QUANTITY: "the quantity is zero or above the instrument's limit",
    Reject.CROSS: "cross orders are not served",
    Reject.ROUTE: "routing is not served",
    Reject.SYMBOL: "there is no such instrument",
    Reject.PRICE: "the price is not a multiple of the instrument's tick, or out of its range",
    Reject.RISK_OPEN_ORDERS: "the account has as many open orders as it may",
    Reject.RISK_COLLAR: "the price is too far from the market",
    Reject.RISK_MESSAGE_RATE: "the account sent more orders in this second than it may",
    Reject.RISK_NOTIONAL: "the order's value is above the account's limit",
    Reject.RISK_QUANTITY: "the order's quantity is above the account's limit",
    Reject.AIQ: "self-match prevention is not served",
    Reject.UNKNOWN_ORDER: "the order is not live",
    Reject.DUPLICATE_CLIENT_ID: "this client_order_id was used for another order",
    Reject.OTHER_DOOR: "an order that came over OUCH is replaced over OUCH",
    Reject.NOT_SMALLER: "the new quantity is not smaller than the order's",
}

STATUS: dict[int, int] = {
    Reject.RISK_MESSAGE_RATE: 429,
    Reject.UNKNOWN_ORDER: 409,
    Reject.DUPLICATE_CLIENT_ID: 409,
}

CANCEL_SENTENCES: dict[str, str] = {
    "U": "somebody asked for it",
    "I": "what could not trade at once does not rest",
    "G": "a post-only order would have traded",
    "E": "the session ended",
    "H": "the instrument was halted",
    "S": "the venue's operator did it",
    "Q": "it would have traded with an order of the same account",
    "T": "its time was over",
    "Z": "the venue did it",
    "R": "another order took its place",
}


def rejected(reason: int, details: Mapping[str, Any] | None = None) -> ApiError:
    """The venue's refusal of a command, by the reason in its event."""
    code = REJECT_CODES.get(reason, f"reject_{reason:04x}")
    sentence = REJECT_SENTENCES.get(reason, f"the venue refused it with reason {reason:#06x}")
    headers: Headers = ((b"retry-after", b"1"),) if reason == Reject.RISK_MESSAGE_RATE else ()
    return ApiError(STATUS.get(reason, REFUSED), code, sentence,
                    {"reason_code": f"0x{reason:04x}", **(details or {})}, headers)


def sentences() -> dict[str, str]:
    """Every code with its sentence: for the documentation."""
    refused = {REJECT_CODES[reason]: text for reason, text in REJECT_SENTENCES.items()}
    return refused | {CANCEL_CODES[letter]: text for letter, text in CANCEL_SENTENCES.items()}

"""Why an order was refused or canceled, as words: the reasons of PROTOCOLS 2.6 and 2.7 that the
venue gives, and those that only HTTP meets. The words are part of the interface: they stand in
`reason` of an order and in `code` of an error."""

from cython_core.model import Reject

REJECT_CODES: dict[int, str] = {
    Reject.DISPLAY: "display_not_served",
    Reject.MAX_FLOOR: "max_floor_not_served",
    Reject.HALTED: "instrument_halted",
    Reject.ISO: "iso_not_served",
    Reject.SIDE: "invalid_side",
    Reject.FIRM: "account_disabled",
    Reject.MIN_QUANTITY: "invalid_min_quantity",
    Reject.OTHER: "invalid_order",
    Reject.PEG: "peg_not_served",
    Reject.QUANTITY: "invalid_quantity",
    Reject.CROSS: "cross_not_served",
    Reject.ROUTE: "route_not_served",
    Reject.SYMBOL: "unknown_symbol",
    Reject.PRICE: "price_off_tick",
    Reject.RISK_OPEN_ORDERS: "too_many_open_orders",
    Reject.RISK_COLLAR: "price_outside_collar",
    Reject.RISK_MESSAGE_RATE: "message_rate_exceeded",
    Reject.RISK_NOTIONAL: "notional_too_large",
    Reject.RISK_QUANTITY: "quantity_too_large",
    Reject.AIQ: "self_match_not_served",
    Reject.UNKNOWN_ORDER: "order_not_live",
    Reject.DUPLICATE_CLIENT_ID: "client_order_id_reused",
    Reject.OTHER_DOOR: "order_of_another_door",
    Reject.NOT_SMALLER: "quantity_not_smaller",
}

# "R" is ours: the order that a replace put another in the place of.
CANCEL_CODES: dict[str, str] = {
    "U": "user",
    "I": "unfilled",
    "G": "post_only",
    "E": "session_end",
    "H": "halted",
    "S": "supervisory",
    "Q": "self_match",
    "T": "expired",
    "Z": "system",
    "R": "replaced",
}

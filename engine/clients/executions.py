"""What the venue tells an account: OUCH's outbound messages as typed values.

Prices are wire units, quantities lots; `Instrument.price_text` and `quantity_text` turn them into
decimals. Times are nanoseconds since midnight UTC. Field by field: PROTOCOLS section 2.4.
"""

from typing import Any, TypeAlias

import msgspec

from cython_core import ouch


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What every message has: its number in the session (from 1), its time, its tags by name."""

    sequence: int
    timestamp_ns: int
    options: dict[str, Any] = {}

    @property
    def user_ref_idx(self) -> int:
        """The order-flow channel, 0 unless the request named another."""
        return int(self.options.get("user_ref_idx", 0))


class OrderTerms(Message, frozen=True, kw_only=True):
    """The terms of an order as the venue took them. `order_id` is the venue's number of it,
    `symbol` the wire symbol, `quantity_lots` what is open."""

    user_ref_num: int
    side: str
    quantity_lots: int
    symbol: str
    price_units: int
    time_in_force: str
    display: str
    order_id: int
    capacity: str
    iso: str
    cross_type: str
    order_state: str
    client_order: str


class Accepted(OrderTerms, frozen=True, kw_only=True):
    """The order was taken."""


class Replaced(OrderTerms, frozen=True, kw_only=True):
    """The order `orig_user_ref_num` is gone; this one stands in its place."""

    orig_user_ref_num: int


class Canceled(Message, frozen=True, kw_only=True):
    """`quantity_lots` came off the order now. Reasons: PROTOCOLS section 2.6."""

    user_ref_num: int
    quantity_lots: int
    reason: str


class AiqCanceled(Message, frozen=True, kw_only=True):
    """Self-match prevention took `quantity_lots` off the order."""

    user_ref_num: int
    quantity_lots: int
    reason: str
    prevented_lots: int
    price_units: int
    liquidity: str
    strategy: str


class Executed(Message, frozen=True, kw_only=True):
    """`quantity_lots` of the order traded. The match number is the same on both sides;
    liquidity is R for the side that came second, A for the one that was resting."""

    user_ref_num: int
    quantity_lots: int
    price_units: int
    liquidity: str
    match_number: int


class BrokenTrade(Message, frozen=True, kw_only=True):
    """The trade `match_number` is void."""

    user_ref_num: int
    match_number: int
    reason: str
    client_order: str


class Rejected(Message, frozen=True, kw_only=True):
    """The request was refused. Reasons: PROTOCOLS section 2.7."""

    user_ref_num: int
    reject_reason: int
    client_order: str


class CancelPending(Message, frozen=True, kw_only=True):
    """A cancel waits for a cross to end."""

    user_ref_num: int


class CancelRejected(Message, frozen=True, kw_only=True):
    """A cancel was refused."""

    user_ref_num: int


class PriorityUpdated(Message, frozen=True, kw_only=True):
    """The order has a new place in the queue, and a new number at the venue."""

    user_ref_num: int
    price_units: int
    display: str
    order_id: int


class Modified(Message, frozen=True, kw_only=True):
    """The order has a new marking or size; `quantity_lots` is open."""

    user_ref_num: int
    side: str
    quantity_lots: int


class Restated(Message, frozen=True, kw_only=True):
    """The venue changed the displayed part or price of the order."""

    user_ref_num: int
    reason: str


class MassCanceled(Message, frozen=True, kw_only=True):
    """A mass cancel was carried out; a Canceled follows for each order."""

    user_ref_num: int
    firm: str
    symbol: str


class EntryDisabled(Message, frozen=True, kw_only=True):
    """New orders of the account are refused from now on."""

    user_ref_num: int
    firm: str


class EntryEnabled(Message, frozen=True, kw_only=True):
    """New orders of the account are taken again."""

    user_ref_num: int
    firm: str


class AccountQueried(Message, frozen=True, kw_only=True):
    """The lowest number the account may give its next order in this channel."""

    next_user_ref_num: int


class SystemEvent(Message, frozen=True, kw_only=True):
    """Start (S) or end (E) of the day."""

    event_code: str


class SessionEnded(msgspec.Struct, frozen=True, kw_only=True):
    """Not a message: `session` is over, what follows belongs to `next_session` and is numbered
    from 1. `complete` says that no message of the old session was missed."""

    session: str
    next_session: str
    complete: bool


Execution: TypeAlias = (
    Accepted | Replaced | Canceled | AiqCanceled | Executed | BrokenTrade | Rejected
    | CancelPending | CancelRejected | PriorityUpdated | Modified | Restated | MassCanceled
    | EntryDisabled | EntryEnabled | AccountQueried | SystemEvent
)

BY_LETTER: dict[str, type[Execution]] = {
    "S": SystemEvent, "A": Accepted, "U": Replaced, "C": Canceled, "D": AiqCanceled,
    "E": Executed, "B": BrokenTrade, "J": Rejected, "P": CancelPending, "I": CancelRejected,
    "T": PriorityUpdated, "M": Modified, "R": Restated, "X": MassCanceled, "G": EntryDisabled,
    "K": EntryEnabled, "Q": AccountQueried,
}


def decode(sequence: int, payload: bytes) -> Execution:
    """One message of the venue, typed. Raises ouch.WireError when it is not OUCH 5.0."""
    fields = ouch.decode("out", payload)
    return BY_LETTER[fields.pop("type")](sequence=sequence, **fields)

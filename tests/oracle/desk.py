"""A short hand for writing scenes: traders at a desk, and what the venue tells them.

Every act goes through matcher and oracle alike, so a scene is a known answer for both.
"""

from __future__ import annotations

from typing import Any

from cython_core.model import Flag, Kind, Source
from tests.oracle.commands import Command, define_account, define_instrument
from tests.oracle.naive_venue import EventDict
from tests.oracle.venue_pair import VenuePair

MARKET = 0x7FFFFFFF
Told = list[tuple[Any, ...]]


class Desk:
    """Instruments 1 (tick 1) and 2 (tick 100), accounts 1 (blank firm), 2 and 3 (firm AAAA)."""

    def __init__(self) -> None:
        self.pair = VenuePair()
        self.pair.send([define_instrument(1, "ONE", 1), define_instrument(2, "TWO", 100),
                        define_account(1, "ALICE"), define_account(2, "BOB", "AAAA"),
                        define_account(3, "CAROL", "AAAA")], 1_000)

    def tell(self, command: Command) -> Told:
        """Send one command; both venues must agree, in the end by every road."""
        events = self.pair.send([command])
        self.pair.compare_state()
        return [short(event) for event in events]

    def close(self) -> None:
        self.pair.finish()

    def limits(self, account_id: int, firm: str = "", **limits: int) -> Told:
        return self.tell(define_account(account_id, "AGAIN", firm, **limits))

    def next_number(self, account_id: int, channel: int = 0) -> int:
        return self.pair.oracle.last_number(account_id, channel) + 1

    def order(self, side: str, account_id: int, quantity_lots: int, price_units: int,
              time_in_force: str = "0", *, instrument_id: int = 1, channel: int = 0,
              number: int | None = None, **more: Any) -> Told:
        number = self.next_number(account_id, channel) if number is None else number
        return self.tell(Command(Kind.CMD_ENTER, account_id, number, channel, instrument_id, side,
                                 quantity_lots, price_units, time_in_force, **more))

    def buy(self, *arguments: Any, **more: Any) -> Told:
        return self.order("B", *arguments, **more)

    def sell(self, *arguments: Any, **more: Any) -> Told:
        return self.order("S", *arguments, **more)

    def replace(self, account_id: int, original: int, quantity_lots: int, price_units: int,
                time_in_force: str = "0", *, number: int | None = None, side: str = "",
                channel: int = 0, **more: Any) -> Told:
        number = self.next_number(account_id, channel) if number is None else number
        return self.tell(Command(
            Kind.CMD_REPLACE, account_id, number, channel, quantity_lots=quantity_lots,
            price_units=price_units, time_in_force=time_in_force, orig_user_ref_num=original,
            command_side=side, **more))

    def cancel(self, account_id: int, number: int, quantity_lots: int = 0, channel: int = 0,
               **more: Any) -> Told:
        return self.tell(Command(Kind.CMD_CANCEL, account_id, number, channel,
                                 quantity_lots=quantity_lots, **more))

    def modify(self, account_id: int, number: int, side: str, quantity_lots: int) -> Told:
        return self.tell(Command(Kind.CMD_MODIFY, account_id, number, side=side,
                                 quantity_lots=quantity_lots))

    def mass_cancel(self, account_id: int, channel: int = 0, number: int | None = None,
                    **filters: Any) -> Told:
        number = self.next_number(account_id, channel) if number is None else number
        return self.tell(Command(Kind.CMD_MASS_CANCEL, account_id, number, channel, **filters))

    def order_entry(self, account_id: int, enable: bool, firm: str = "",
                    number: int | None = None) -> Told:
        kind = Kind.CMD_ENABLE_ENTRY if enable else Kind.CMD_DISABLE_ENTRY
        number = self.next_number(account_id) if number is None else number
        return self.tell(Command(kind, account_id, number, firm=firm))

    def query(self, account_id: int, channel: int = 0) -> Told:
        return self.tell(Command(Kind.CMD_ACCOUNT_QUERY, account_id, 0, channel))

    def roll(self) -> Told:
        return self.tell(Command(Kind.CMD_SESSION_ROLL, source=Source.ADMIN))


def short(event: EventDict) -> tuple[Any, ...]:
    """What a scene wants to see of an event."""
    kind, number = event["kind"], event.get("user_ref_num")
    if kind == "fill":
        return (kind, event["maker_account_id"], event["maker_user_ref_num"],
                event["quantity_lots"], event["price_units"])
    if kind == "canceled":
        return kind, number, event["quantity_lots"], event["reason"]
    if kind == "rejected":
        return kind, f"{event['reason']:04X}"
    if kind == "account_queried":
        return kind, event["next_user_ref_num"]
    if kind == "modified":
        return kind, number, event["quantity_lots"], event["side"]
    if kind in ("accepted", "replaced", "announced"):
        return kind, number, event["quantity_lots"]
    return (kind,)


POST_ONLY = Flag.POST_ONLY | Flag.POST_ONLY_SET
KEEP_NO_POST_ONLY = Flag.POST_ONLY_SET

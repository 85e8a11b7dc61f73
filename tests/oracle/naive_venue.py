"""The whole venue in plain Python: slow, without cleverness, the judge of the fast matcher.

It takes `Command`s and returns events as the dictionaries that `EventBatch.dicts()` gives. There
are no levels, no indexes and no bit sets: what rests on an instrument is one list in order of
arrival, every question walks it, and the state is never rebuilt from events. Where this file and
the matcher differ, one of them has misread the rules of docs and design; nothing here is derived
from the matcher's source.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cython_core.model import ACT_NAMES, KIND_NAMES, SOURCE_NAMES, Flag, Kind, Reject, Source
from tests.oracle.commands import ACTIONS, Command

EventDict = dict[str, Any]

LIMIT_PRICE_MAX = 1_999_999_999
MARKET_PRICES_FROM = 0x7FFFFFFF
MARKET_PRICE_CROSS = 2_000_000_000
NUMBER_MAX = 2**32 - 1
SIDES = ("B", "S", "T", "E")
TIMES_IN_FORCE = DAY, GTC, IOC, FOK = "0", "1", "3", "4"
# A Modify may only change the marking of a short sale (PROTOCOLS 2.1).
SIDE_CHANGES = {("S", "E"), ("S", "T"), ("E", "T")}
# These options belong to one message and are never inherited by a replacement (PROTOCOLS 2.2).
OPTIONS_TO_REPEAT = ("shares_located", "locate_broker")


class OracleError(AssertionError):
    """The oracle caught itself in a state that no venue may have."""


@dataclass
class Order:
    """One accepted order: what it said, what is open, what its replace chain has executed."""

    order_id: int
    account_id: int
    user_ref_num: int
    user_ref_idx: int
    instrument_id: int
    side: str
    price_units: int
    open_lots: int
    time_in_force: str
    display: str
    capacity: str
    iso: str
    cross: str
    client_order: str
    source: Source
    flags: Flag
    options: dict[str, Any]
    chain_done_lots: int = 0
    entered_lots: int = 0
    filled_lots: int = 0
    taken_off_lots: int = 0
    client_order_id: str = ""

    @property
    def is_buy(self) -> bool:
        return self.side == "B"

    @property
    def has_stream(self) -> bool:
        return self.source in (Source.TCP, Source.UDP)

    @property
    def handle(self) -> tuple[int, int, int]:
        return self.account_id, self.user_ref_idx, self.user_ref_num

    @property
    def group_id(self) -> int:
        return int(self.options.get("group_id", 0))

    def crosses(self, maker: Order) -> bool:
        """May this order trade at the maker's price?"""
        if is_market(self.price_units):
            return True
        if self.is_buy:
            return maker.price_units <= self.price_units
        return maker.price_units >= self.price_units


@dataclass
class Account:
    """Limits, whether entry is open, and the numbers used on each channel.

    `settled` is how far up a channel's numbers all count as used, whether they were or not.
    """

    definition: dict[str, Any]
    entry_disabled: bool = False
    killed: bool = False
    last_number: dict[int, int] = field(default_factory=dict)
    used: dict[int, set[int]] = field(default_factory=dict)
    settled: dict[int, int] = field(default_factory=dict)
    stream_next: int = 1


@dataclass
class ClientId:
    """An id that a client gave: where its first answer is, and when its last order ended."""

    seq: int
    ended_ns: int | None = None


# At most so many ids are forgotten at once, of one account.
FORGOTTEN_AT_ONCE = 4
DEFAULT_RULES = {"window_ns": 86_400 * 10**9, "kept_min": 100_000, "kept_max": 10_000_000,
                 "udp_window": 0}
# The widest window that there is (PROTOCOLS 3.2).
WINDOW_MAX = 1_024


def is_market(price_units: int) -> bool:
    """The two spellings of a market order (PROTOCOLS 2.1)."""
    return price_units >= MARKET_PRICES_FROM or price_units == MARKET_PRICE_CROSS


class NaiveVenue:
    """Commands in, events out. `apply` is the only thing that changes it."""

    def __init__(self) -> None:
        self.instruments: dict[int, dict[str, Any]] = {}
        self.accounts: dict[int, Account] = {}
        self.resting: dict[int, list[Order]] = {}
        self.last_trade: dict[int, int] = {}
        self.halts: dict[int, str] = {}
        # By account, then text; a dictionary keeps the order in which ids ended.
        self.client_ids: dict[int, dict[str, ClientId]] = {}
        self.rules = dict(DEFAULT_RULES)
        self.next_seq = 1
        self.last_time_ns = 0
        self.generation = 1
        self.events: list[EventDict] = []
        self.time_ns = 0
        self.handlers = {
            Kind.CMD_ENTER: self._enter, Kind.CMD_REPLACE: self._replace,
            Kind.CMD_CANCEL: self._cancel, Kind.CMD_MODIFY: self._modify,
            Kind.CMD_MASS_CANCEL: self._mass_cancel,
            Kind.CMD_DISABLE_ENTRY: self._order_entry, Kind.CMD_ENABLE_ENTRY: self._order_entry,
            Kind.CMD_ACCOUNT_QUERY: self._account_query,
            Kind.CMD_SESSION_ROLL: self._session_roll,
            Kind.CMD_DEFINE_INSTRUMENT: self._define_instrument,
            Kind.CMD_DEFINE_ACCOUNT: self._define_account,
            Kind.CMD_HALT_INSTRUMENT: self._halt, Kind.CMD_RESUME_INSTRUMENT: self._halt,
            Kind.CMD_ADMIN_ACT: self._admin_act, Kind.CMD_SET_RULES: self._set_rules,
        }
        self.private_handlers = {
            Kind.CMD_ENTER: self._private_enter, Kind.CMD_REPLACE: self._private_replace,
            Kind.CMD_CANCEL: self._private_cancel, Kind.CMD_MODIFY: self._private_modify,
        }

    def apply(self, commands: list[Command], generation: int, time_ns: int) -> list[EventDict]:
        """Carry out a batch; generation 0 comes from inside and is always taken."""
        self.events = []
        if generation not in (0, self.generation):
            return self.events
        for command in commands:
            self.time_ns = max(self.last_time_ns, time_ns)
            handlers = self.private_handlers if command.is_private else {}
            handlers.get(command.kind, self.handlers[command.kind])(command)
        return self.events

    # Queries

    def orders(self, instrument_id: int) -> tuple[list[Order], list[Order]]:
        """What rests, buys and sells, each best price first and then oldest first."""
        resting = self.resting.get(instrument_id, [])
        buys = sorted((order for order in resting if order.is_buy), key=lambda o: -o.price_units)
        sells = sorted((order for order in resting if not order.is_buy),
                       key=lambda o: o.price_units)
        return buys, sells

    def levels(self, instrument_id: int) -> tuple[list[tuple[int, int, int]], ...]:
        """(price, lots, orders) of every level, best first, of both sides."""
        return tuple(_levels(side) for side in self.orders(instrument_id))

    def live_orders(self) -> list[Order]:
        """All that rests anywhere, by order id."""
        every = [order for resting in self.resting.values() for order in resting]
        return sorted(every, key=lambda order: order.order_id)

    def last_number(self, account_id: int, user_ref_idx: int) -> int:
        account = self.accounts.get(account_id)
        return account.last_number.get(user_ref_idx, 0) if account else 0

    def missing_numbers(self, account_id: int, user_ref_idx: int) -> list[int]:
        """What a datagram that was overtaken could still bring, were the window the widest."""
        account = self.accounts[account_id]
        last = account.last_number.get(user_ref_idx, 0)
        if self.rules["udp_window"] == 0:
            return []
        lowest = max(1, last - WINDOW_MAX + 1, account.settled.get(user_ref_idx, 0) + 1)
        return sorted(set(range(lowest, last + 1)) - account.used.get(user_ref_idx, set()))

    # Numbers

    def _is_new(self, command: Command) -> bool:
        """Over TCP numbers grow; over UDP any may come that was never used and is not too old."""
        account = self.accounts[command.account_id]
        number, channel = command.user_ref_num, command.user_ref_idx
        if number > account.last_number.get(channel, 0):
            return True
        return (self._is_in_window(command) and number > account.settled.get(channel, 0)
                and number not in account.used.get(channel, set()))

    def _is_in_window(self, command: Command) -> bool:
        last = self.last_number(command.account_id, command.user_ref_idx)
        return (command.source == Source.UDP
                and 0 <= last - command.user_ref_num < self.rules["udp_window"])

    def _use(self, account_id: int, channel: int, number: int) -> None:
        account = self.accounts[account_id]
        account.used.setdefault(channel, set()).add(number)
        account.last_number[channel] = max(number, account.last_number.get(channel, 0))

    def _use_number(self, command: Command) -> None:
        self._use(command.account_id, command.user_ref_idx, command.user_ref_num)

    # Enter

    def _enter(self, command: Command) -> None:
        account = self.accounts[command.account_id]
        if not self._is_new(command):
            is_over = self.last_number(command.account_id, command.user_ref_idx) == NUMBER_MAX
            if is_over and not self._is_in_window(command):
                self._reject(command, Reject.OTHER)
            return None
        self._use_number(command)
        reason = self._reason_against_entry(command, account)
        if reason is not None:
            return self._reject(command, reason)
        order = _order_of(command, self.next_seq)
        self._emit_order(Kind.ACCEPTED, order, first=True, flags=command.flags | Flag.FIRST,
                         **_raw_field(command), **_private_fields(command))
        return self._trade_and_rest(order)

    def _reason_against_entry(self, command: Command, account: Account) -> int | None:
        if Flag.RATE_EXCEEDED in command.flags:
            return Reject.RISK_MESSAGE_RATE
        if account.entry_disabled or account.killed:
            return Reject.FIRM
        if Flag.DOOR_REASON in command.flags:
            return command.door_reason
        if command.side not in SIDES:
            return Reject.SIDE
        if command.time_in_force not in TIMES_IN_FORCE:
            return Reject.OTHER
        if command.instrument_id not in self.instruments:
            return Reject.SYMBOL
        if command.instrument_id in self.halts:
            return Reject.HALTED
        instrument = self.instruments[command.instrument_id]
        if not 0 < command.quantity_lots <= instrument["quantity_max_lots"]:
            return Reject.QUANTITY
        if not _price_is_good(command.price_units, instrument):
            return Reject.PRICE
        if not _minimum_is_good(command, command.quantity_lots):
            return Reject.MIN_QUANTITY
        return self._reason_of_risk(account, _order_of(command, 0), command.quantity_lots,
                                    is_new=True)

    def _reason_of_risk(self, account: Account, order: Order, quantity_lots: int,
                        is_new: bool) -> int | None:
        limits = account.definition
        if limits["quantity_max_lots"] and quantity_lots > limits["quantity_max_lots"]:
            return Reject.RISK_QUANTITY
        if limits["notional_max"]:
            price_units = self._price_for_notional(order)
            if price_units * order.open_lots > limits["notional_max"]:
                return Reject.RISK_NOTIONAL
        may_rest = order.time_in_force in (DAY, GTC) and not is_market(order.price_units)
        if is_new and may_rest and limits["open_orders_max"]:
            mine = [o for o in self.live_orders() if o.account_id == order.account_id]
            if len(mine) >= limits["open_orders_max"]:
                return Reject.RISK_OPEN_ORDERS
        if limits["collar_bps"] and not is_market(order.price_units):
            reference = self._collar_reference(order)
            distance = abs(order.price_units - reference)
            if reference and distance * 10_000 > limits["collar_bps"] * reference:
                return Reject.RISK_COLLAR
        return None

    def _price_for_notional(self, order: Order) -> int:
        """The order's own price; for a market order what it would meet, 0 if nothing is known."""
        if not is_market(order.price_units):
            return order.price_units
        opposite = self._opposite(order)
        if opposite:
            return opposite[0].price_units
        return self.last_trade.get(order.instrument_id, 0)

    def _collar_reference(self, order: Order) -> int:
        """Last trade, else the best opposite quote, else the best on its own side, else 0."""
        if order.instrument_id in self.last_trade:
            return self.last_trade[order.instrument_id]
        buys, sells = self.orders(order.instrument_id)
        own, opposite = (buys, sells) if order.is_buy else (sells, buys)
        best = opposite[:1] or own[:1]
        return best[0].price_units if best else 0

    # Matching

    def _opposite(self, order: Order) -> list[Order]:
        buys, sells = self.orders(order.instrument_id)
        return sells if order.is_buy else buys

    def _trade_and_rest(self, order: Order) -> None:
        reason = self._reason_to_stop(order)
        if reason:
            return self._emit_canceled(order, order.open_lots, reason)
        for maker in self._opposite(order):
            if order.open_lots == 0 or not order.crosses(maker):
                break
            self._fill(order, maker)
        if order.open_lots == 0:
            return None
        if order.time_in_force in (IOC, FOK) or is_market(order.price_units):
            return self._emit_canceled(order, order.open_lots, "I")
        self.resting.setdefault(order.instrument_id, []).append(order)
        return None

    def _reason_to_stop(self, order: Order) -> str:
        """The cancel reason of an order that is not allowed to trade at all, else ""."""
        makers = [maker for maker in self._opposite(order) if order.crosses(maker)]
        available_lots = sum(maker.open_lots for maker in makers)
        if Flag.POST_ONLY in order.flags and makers:
            return "G"
        needed_lots = 0
        if order.time_in_force == FOK:
            needed_lots = order.open_lots
        elif order.time_in_force == IOC:
            needed_lots = order.options.get("min_quantity_lots", 0)
        return "I" if available_lots < needed_lots else ""

    def _fill(self, taker: Order, maker: Order) -> None:
        quantity_lots = min(taker.open_lots, maker.open_lots)
        for order in (taker, maker):
            order.open_lots -= quantity_lots
            order.chain_done_lots += quantity_lots
            order.filled_lots += quantity_lots
        if maker.open_lots == 0:
            self._remove(maker)
        self.last_trade[maker.instrument_id] = maker.price_units
        self._emit({
            "kind": "fill", "instrument_id": maker.instrument_id,
            "price_units": maker.price_units, "quantity_lots": quantity_lots,
            "account_id": taker.account_id, "order_id": taker.order_id,
            "user_ref_num": taker.user_ref_num, "user_ref_idx": taker.user_ref_idx,
            "side": taker.side, "taker_done": taker.open_lots == 0,
            "maker_account_id": maker.account_id, "maker_order_id": maker.order_id,
            "maker_user_ref_num": maker.user_ref_num, "maker_user_ref_idx": maker.user_ref_idx,
            "maker_done": maker.open_lots == 0, "first": False,
            "taker_private": not taker.has_stream, "maker_private": not maker.has_stream,
        })
        for order in (taker, maker):
            if order.has_stream:
                self.accounts[order.account_id].stream_next += 1

    def _remove(self, order: Order) -> None:
        resting = self.resting[order.instrument_id]
        self.resting[order.instrument_id] = [other for other in resting if other is not order]
        self._end_id(order.account_id, order.client_order_id)

    # Replace

    def _replace(self, command: Command) -> None:
        account = self.accounts[command.account_id]
        if not self._is_new(command):
            return None
        original = self._live(command, command.orig_user_ref_num)
        if original is None:
            return None
        reason = self._reason_against_replace(command, account, original)
        if reason is None and Flag.DOOR_REASON in command.flags and Flag.UNSERVED in command.flags:
            reason = command.door_reason
        if reason is not None:
            self._use_number(command)
            return self._reject(command, reason)
        order = _replacement_of(command, original, self.next_seq)
        if self._reason_against_terms(command, original, order, account) is not None:
            return self._refuse_replace(command, original)
        self._use_number(command)
        self._remove(original)
        original.taken_off_lots += original.open_lots
        self._emit_replaced(command, original, order)
        return self._trade_and_rest(order)

    def _reason_against_replace(self, command: Command, account: Account,
                                original: Order) -> int | None:
        """What forbids any replace now, whatever its terms."""
        if Flag.RATE_EXCEEDED in command.flags:
            return Reject.RISK_MESSAGE_RATE
        if account.entry_disabled or account.killed:
            return Reject.FIRM
        return Reject.HALTED if original.instrument_id in self.halts else None

    def _reason_against_terms(self, command: Command, original: Order, order: Order,
                              account: Account) -> int | None:
        instrument = self.instruments[original.instrument_id]
        if Flag.DOOR_REASON in command.flags:
            return command.door_reason
        if command.time_in_force not in TIMES_IN_FORCE:
            return Reject.OTHER
        if not 0 < command.quantity_lots <= instrument["quantity_max_lots"] \
                or command.quantity_lots <= original.chain_done_lots:
            return Reject.QUANTITY
        if not _price_is_good(command.price_units, instrument):
            return Reject.PRICE
        if order.side != original.side and not (order.side in "STE" and original.side in "STE"):
            return Reject.SIDE
        if not _minimum_is_good(order, order.open_lots):
            return Reject.MIN_QUANTITY
        return self._reason_of_risk(account, order, command.quantity_lots, is_new=False)

    def _refuse_replace(self, command: Command, original: Order) -> None:
        event = {**_command_fields(command, Kind.REPLACE_REFUSED),
                 **_order_fields(command), **_replace_command_fields(command),
                 **_option_fields(command.options), **_raw_field(command),
                 "flags": command.flags | Flag.FIRST}
        event["order_id"] = original.order_id
        self._emit(event)
        self._take_off(original, original.open_lots, "U")

    def _emit_replaced(self, command: Command, original: Order, order: Order) -> None:
        self._emit_order(
            Kind.REPLACED, order, first=True,
            flags=_without_post_only(command.flags) | (order.flags & Flag.POST_ONLY) | Flag.FIRST,
            orig_user_ref_num=command.orig_user_ref_num, orig_order_id=original.order_id,
            chain_quantity_lots=command.quantity_lots, chain_done_lots=original.chain_done_lots,
            orig_price_units=original.price_units, orig_open_lots=original.open_lots,
            orig_side=original.side, command_side=command.command_side,
            command_flags=command.flags, orig_time_in_force=original.time_in_force,
            **_raw_field(command), **_private_fields(command))

    # Cancel and modify

    def _live(self, command: Command, user_ref_num: int) -> Order | None:
        handle = (command.account_id, command.user_ref_idx, user_ref_num)
        for resting in self.resting.values():
            for order in resting:
                if order.handle == handle and order.has_stream:
                    return order
        return None

    def _cancel(self, command: Command) -> None:
        order = self._live(command, command.user_ref_num)
        if order is None:
            return
        new_open_lots = max(0, command.quantity_lots - order.chain_done_lots)
        if new_open_lots < order.open_lots:
            self._take_off(order, order.open_lots - new_open_lots, "U", command)

    def _modify(self, command: Command) -> None:
        order = self._live(command, command.user_ref_num)
        if order is None:
            return
        if command.side != order.side and (order.side, command.side) not in SIDE_CHANGES:
            self._reject(command, Reject.SIDE)
            return
        new_open_lots = max(0, command.quantity_lots - order.chain_done_lots)
        if new_open_lots == 0:
            self._take_off(order, order.open_lots, "U", command)
            return
        reduced_lots = max(0, order.open_lots - new_open_lots)
        previous_side, order.side = order.side, command.side
        order.open_lots -= reduced_lots
        order.taken_off_lots += reduced_lots
        self._emit({
            **_order_common(order, Kind.MODIFIED), "first": True, "order_id": order.order_id,
            "side": order.side, "price_units": order.price_units,
            "quantity_lots": order.open_lots, "reduced_lots": reduced_lots,
            "previous_side": previous_side, "command_side": command.side,
            "command_quantity": min(command.quantity_lots, NUMBER_MAX),
        })
        self._count_message(order)

    def _take_off(self, order: Order, quantity_lots: int, reason: str,
                  command: Command | None = None) -> None:
        if quantity_lots == order.open_lots:
            self._remove(order)
        self._emit_canceled(order, quantity_lots, reason, command)

    # Account actions

    def _action_is_open(self, command: Command) -> bool:
        """Consume the number of an account action; say whether it is to be carried out."""
        account = self.accounts[command.account_id]
        if not command.is_private:
            if not self._is_new(command):
                return False
            self._use_number(command)
        if Flag.DOOR_REASON in command.flags:
            self._reject(command, command.door_reason)
            return False
        if command.firm and command.firm != account.definition["firm"]:
            self._reject(command, Reject.FIRM)
            return False
        return True

    def _mass_cancel(self, command: Command) -> None:
        if not self._action_is_open(command):
            return
        self._emit_action(Kind.MASS_CANCELED, command)
        reason = "S" if command.source == Source.ADMIN else "U"
        for order in self.live_orders():
            if (order.has_stream or command.is_private) and _mass_cancel_covers(command, order):
                self._take_off(order, order.open_lots, reason)

    def _order_entry(self, command: Command) -> None:
        if not self._action_is_open(command):
            return
        disable = command.kind == Kind.CMD_DISABLE_ENTRY
        if command.source == Source.ADMIN:
            self.accounts[command.account_id].killed = disable
        else:
            self.accounts[command.account_id].entry_disabled = disable
        self._emit_action(Kind.ENTRY_DISABLED if disable else Kind.ENTRY_ENABLED, command)

    def _emit_action(self, kind: Kind, command: Command) -> None:
        self._emit({**_command_fields(command, kind), **_action_fields(command)})
        self._count_message(command)

    def _account_query(self, command: Command) -> None:
        last = self.last_number(command.account_id, command.user_ref_idx)
        self._emit({**_command_fields(command, Kind.ACCOUNT_QUERIED),
                    "next_user_ref_num": min(last + 1, NUMBER_MAX)})
        self._count_message(command)

    # Private commands: no numbers, orders by id, and an answer to each

    def _private_order(self, command: Command) -> Order | None:
        """The live order of the account that the command names; an OUCH order by both names."""
        for order in self.live_orders():
            if order.order_id == command.order_id and order.account_id == command.account_id:
                named = (command.user_ref_idx, command.orig_user_ref_num or command.user_ref_num)
                if not order.has_stream or named == (order.user_ref_idx, order.user_ref_num):
                    return order
        return None

    def _is_duplicate(self, command: Command) -> bool:
        known = self.client_ids.get(command.account_id, {}).get(command.client_order_id)
        if not command.client_order_id or known is None:
            return False
        self._reject(command, Reject.DUPLICATE_CLIENT_ID, known.seq)
        return True

    def _private_enter(self, command: Command) -> None:
        if self._is_duplicate(command):
            return
        self._remember(command)
        reason = self._reason_against_entry(command, self.accounts[command.account_id])
        if reason is not None:
            return self._reject_for_good(command, reason)
        order = _order_of(command, self.next_seq)
        order.client_order_id = command.client_order_id
        self._emit_order(Kind.ACCEPTED, order, first=True, flags=command.flags | Flag.FIRST,
                         **_raw_field(command), **_private_fields(command))
        return self._trade_and_settle(order)

    def _trade_and_settle(self, order: Order) -> None:
        self._trade_and_rest(order)
        if all(order is not other for other in self.live_orders()):
            self._end_id(order.account_id, order.client_order_id)

    def _reject_for_good(self, command: Command, reason: int) -> None:
        self._reject(command, reason)
        self._end_id(command.account_id, command.client_order_id)

    def _private_replace(self, command: Command) -> None:
        if self._is_duplicate(command):
            return
        self._remember(command)
        account = self.accounts[command.account_id]
        original = self._private_order(command)
        if original is None:
            return self._reject_for_good(command, Reject.UNKNOWN_ORDER)
        if original.has_stream:
            return self._reject_for_good(command, Reject.OTHER_DOOR)
        order = _replacement_of(command, original, self.next_seq)
        order.client_order_id = command.client_order_id or original.client_order_id
        reason = self._reason_against_replace(command, account, original)
        if reason is None:
            reason = self._reason_against_terms(command, original, order, account)
        if reason is not None:
            return self._reject_for_good(command, reason)
        if not command.client_order_id:
            original.client_order_id = ""
        self._remove(original)
        original.taken_off_lots += original.open_lots
        self._emit_replaced(command, original, order)
        return self._trade_and_settle(order)

    def _private_cancel(self, command: Command) -> None:
        order = self._private_order(command)
        if order is None:
            return self._reject(command, Reject.UNKNOWN_ORDER)
        new_open_lots = max(0, command.quantity_lots - order.chain_done_lots)
        if new_open_lots >= order.open_lots:
            return self._reject(command, Reject.NOT_SMALLER)
        return self._take_off(order, order.open_lots - new_open_lots, "U", command)

    def _private_modify(self, command: Command) -> None:
        self._reject(command, Reject.OTHER_DOOR)

    # Ids of clients

    def _remember(self, command: Command) -> None:
        """A new id comes in; a few old ones of the account may go, and of another in its turn."""
        if not command.client_order_id:
            return
        accounts = list(self.accounts)
        drawn = (self.next_seq * 0x9E3779B97F4A7C15 % 2**64 >> 32) % len(accounts)
        for account_id in (command.account_id, accounts[drawn]):
            self._forget(account_id)
        known = self.client_ids.setdefault(command.account_id, {})
        known[command.client_order_id] = ClientId(self.next_seq)

    def _forget(self, account_id: int) -> None:
        for _ in range(FORGOTTEN_AT_ONCE):
            known = self.client_ids.get(account_id, {})
            ended = {text: one for text, one in known.items() if one.ended_ns is not None}
            if len(ended) <= self.rules["kept_min"]:
                return
            text, oldest = next(iter(ended.items()))
            is_old = self.time_ns - oldest.ended_ns >= self.rules["window_ns"]
            if not is_old and sum(map(len, self.client_ids.values())) < self.rules["kept_max"]:
                return
            del known[text]

    def _end_id(self, account_id: int, text: str) -> None:
        """No live order carries the id any more: it goes behind those that ended before."""
        known = self.client_ids.get(account_id, {})
        if text:
            known[text].ended_ns = self.time_ns
            known[text] = known.pop(text)

    # What the venue does to itself

    def _halt(self, command: Command) -> None:
        if command.instrument_id not in self.instruments:
            return self._reject(command, Reject.SYMBOL)
        self.halts.pop(command.instrument_id, None)
        if command.kind == Kind.CMD_RESUME_INSTRUMENT:
            return self._emit(_command_fields(command, Kind.INSTRUMENT_RESUMED))
        self.halts[command.instrument_id] = command.reason
        return self._emit(_command_fields(command, Kind.INSTRUMENT_HALTED))

    def _admin_act(self, command: Command) -> None:
        self._emit(_command_fields(command, Kind.ADMIN_ACT))

    def _set_rules(self, command: Command) -> None:
        if self.rules["udp_window"] == 0:
            for account in self.accounts.values():
                account.settled = dict(account.last_number)
        self.rules = dict(command.definition)
        self._emit({**_command_fields(command, Kind.RULES_SET), **command.definition})

    def _session_roll(self, command: Command) -> None:
        self.generation += 1
        self._emit({**_command_fields(command, Kind.ROLL_STARTED), "generation": self.generation})
        for order in self.live_orders():
            if order.time_in_force == DAY:
                self._take_off(order, order.open_lots, "E")
        for account in self.accounts.values():
            account.last_number, account.used, account.settled = {}, {}, {}
            account.stream_next = 1
        started = _command_fields(command, Kind.SESSION_STARTED)
        started.pop("origin", None)
        self._emit({**started, "first": False, "generation": self.generation})
        for order in self.live_orders():
            if order.has_stream:
                order.user_ref_num = self.last_number(order.account_id, order.user_ref_idx) + 1
                self._use(*order.handle)
                order.chain_done_lots = order.filled_lots = order.taken_off_lots = 0
                order.entered_lots = order.open_lots
            self._emit_order(Kind.ANNOUNCED, order, first=False, flags=order.flags)

    def _define_instrument(self, command: Command) -> None:
        self.instruments[command.instrument_id] = command.definition
        self._emit_definition(Kind.INSTRUMENT_DEFINED, command)

    def _define_account(self, command: Command) -> None:
        if command.account_id in self.accounts:
            self.accounts[command.account_id].definition = command.definition
        else:
            self.accounts[command.account_id] = Account(command.definition)
        self._emit_definition(Kind.ACCOUNT_DEFINED, command)

    def _emit_definition(self, kind: Kind, command: Command) -> None:
        self._emit({**_command_fields(command, kind), **_order_fields(command),
                    "order_id": 0, "flags": Flag.FIRST, **command.definition})

    # Events

    def _emit(self, event: EventDict) -> None:
        self.events.append({"seq": self.next_seq, "time_ns": self.time_ns, **event})
        self.next_seq += 1
        self.last_time_ns = self.time_ns

    def _count_message(self, owner: Order | Command) -> None:
        if owner.source in (Source.TCP, Source.UDP):
            self.accounts[owner.account_id].stream_next += 1

    def _reject(self, command: Command, reason: int, first_seq: int | None = None) -> None:
        event = {**_command_fields(command, Kind.REJECTED), "reason": int(reason),
                 "command": KIND_NAMES[command.kind], **_private_fields(command, first_seq)}
        if command.kind in ACTIONS:
            event.update(_action_fields(command))
        else:
            event.update(_order_fields(command), flags=command.flags | Flag.FIRST)
        if command.kind == Kind.CMD_REPLACE:
            event.update(_replace_command_fields(command))
            if first_seq is not None and command.has_origin:
                event["orig_order_id"] = command.order_id
        self._emit({**event, **_option_fields(command.options), **_raw_field(command)})
        self._count_message(command)

    def _emit_order(self, kind: Kind, order: Order, first: bool, flags: int,
                    **more: Any) -> None:
        self._emit({
            **_order_common(order, kind), "first": first, "order_id": order.order_id,
            "side": order.side, "price_units": order.price_units,
            "quantity_lots": order.open_lots, "time_in_force": order.time_in_force,
            "display": order.display, "capacity": order.capacity, "iso": order.iso,
            "cross": order.cross, "client_order": order.client_order,
            "post_only": Flag.POST_ONLY in order.flags, "flags": flags,
            **_option_fields(order.options), **more,
        })
        self._count_message(order)

    def _emit_canceled(self, order: Order, quantity_lots: int, reason: str,
                       command: Command | None = None) -> None:
        order.open_lots -= quantity_lots
        order.taken_off_lots += quantity_lots
        self._emit({
            **_order_common(order, Kind.CANCELED), "first": command is not None,
            "order_id": order.order_id, "side": order.side, "price_units": order.price_units,
            "quantity_lots": quantity_lots, "remaining_lots": order.open_lots, "reason": reason,
            "command": KIND_NAMES[command.kind if command else Kind.EMPTY],
            "command_quantity": _told_quantity(command), **_told_origin(command),
        })
        self._count_message(order)

    # The oracle judges itself

    def check(self) -> None:
        """Raise OracleError when the venue is in a state that it may never be in."""
        live = self.live_orders()
        handles = [order.handle for order in live if order.has_stream]
        if len(handles) != len(set(handles)):
            raise OracleError("two live orders have the same handle")
        if len({order.order_id for order in live}) != len(live):
            raise OracleError("two live orders have the same id")
        for order in live:
            _check_order(order)
            used = self.accounts[order.account_id].used.get(order.user_ref_idx, set())
            if order.has_stream and order.user_ref_num not in used:
                raise OracleError(f"order {order.order_id} has a number not yet used")
        for instrument_id in self.resting:
            buys, sells = self.orders(instrument_id)
            if buys and sells and buys[0].price_units >= sells[0].price_units:
                raise OracleError(f"the book of instrument {instrument_id} is crossed")


def _check_order(order: Order) -> None:
    if order.open_lots <= 0:
        raise OracleError(f"order {order.order_id} rests with nothing open")
    if order.time_in_force not in (DAY, GTC) or is_market(order.price_units):
        raise OracleError(f"order {order.order_id} is of a kind that never rests")
    if order.entered_lots != order.open_lots + order.filled_lots + order.taken_off_lots:
        raise OracleError(f"lots of order {order.order_id} were made or lost")
    if order.filled_lots > order.chain_done_lots:
        raise OracleError(f"the chain of order {order.order_id} lost an execution")


def _levels(orders: list[Order]) -> list[tuple[int, int, int]]:
    levels: list[tuple[int, int, int]] = []
    for order in orders:
        lots, count = order.open_lots, 1
        if levels and levels[-1][0] == order.price_units:
            _, lots_before, count_before = levels.pop()
            lots, count = lots + lots_before, count + count_before
        levels.append((order.price_units, lots, count))
    return levels


def _price_is_good(price_units: int, instrument: dict[str, Any]) -> bool:
    if is_market(price_units):
        return True
    return 1 <= price_units <= LIMIT_PRICE_MAX and price_units % instrument["tick_units"] == 0


def _minimum_is_good(terms: Command | Order, quantity_lots: int) -> bool:
    minimum_lots = terms.options.get("min_quantity_lots", 0)
    if minimum_lots == 0:
        return True
    return terms.time_in_force == IOC and minimum_lots <= quantity_lots


def _told_quantity(command: Command | None) -> int:
    """The size that a cancel meant: 32 bits on the wire, all of it from elsewhere."""
    if command is None or command.is_private:
        return command.quantity_lots if command else 0
    return min(command.quantity_lots, NUMBER_MAX)


def _told_origin(command: Command | None) -> EventDict:
    return _private_fields(command) if command is not None else {}


def _mass_cancel_covers(command: Command, order: Order) -> bool:
    if order.account_id != command.account_id:
        return False
    if command.instrument_id and order.instrument_id != command.instrument_id:
        return False
    if command.side and order.is_buy != (command.side == "B"):
        return False
    return command.group_id is None or order.group_id == command.group_id


def _without_post_only(flags: Flag) -> Flag:
    return flags & ~Flag.POST_ONLY


def _order_of(command: Command, order_id: int) -> Order:
    return Order(
        order_id, command.account_id, command.user_ref_num, command.user_ref_idx,
        command.instrument_id, command.side, command.price_units, command.quantity_lots,
        command.time_in_force, command.display, command.capacity, command.iso, command.cross,
        command.client_order, command.source, command.flags, dict(command.options),
        entered_lots=command.quantity_lots)


def _replacement_of(command: Command, original: Order, order_id: int) -> Order:
    """The new order: terms of the message, what it leaves open taken from the original."""
    order = _order_of(command, order_id)
    order.instrument_id = original.instrument_id
    order.capacity, order.cross = original.capacity, original.cross
    order.side = command.command_side or original.side
    order.open_lots = max(0, command.quantity_lots - original.chain_done_lots)
    order.entered_lots = order.open_lots + original.chain_done_lots
    order.filled_lots = order.chain_done_lots = original.chain_done_lots
    inherited = {name: value for name, value in original.options.items()
                 if name not in OPTIONS_TO_REPEAT}
    order.options = {**inherited, **command.options}
    decides = command.flags if Flag.POST_ONLY_SET in command.flags else original.flags
    order.flags = _without_post_only(command.flags) | (decides & Flag.POST_ONLY)
    return order


def _command_fields(command: Command, kind: Kind) -> EventDict:
    return {
        "kind": KIND_NAMES[kind], "account_id": command.account_id,
        "instrument_id": command.instrument_id, "user_ref_num": command.user_ref_num,
        "user_ref_idx": command.user_ref_idx, "source": SOURCE_NAMES[command.source],
        "first": True, **_private_fields(command),
    }


def _private_fields(command: Command, order_id: int | None = None) -> EventDict:
    """Who sent a private command, and its client's id; `order_id` in place of the command's."""
    fields: EventDict = {}
    if command.has_origin:
        fields["origin"] = {
            "source": SOURCE_NAMES[command.source], "request_id": command.request_id,
            "order_id": command.order_id if order_id is None else order_id,
            "actor_account_id": command.actor_account_id, "key": command.key,
            "reason": command.reason, "act": ACT_NAMES[command.act],
        }
    if command.client_order_id:
        fields["client_order_id"] = command.client_order_id
    return fields


def _order_common(order: Order, kind: Kind) -> EventDict:
    return {
        "kind": KIND_NAMES[kind], "account_id": order.account_id,
        "instrument_id": order.instrument_id, "user_ref_num": order.user_ref_num,
        "user_ref_idx": order.user_ref_idx, "source": SOURCE_NAMES[order.source],
    }


def _order_fields(command: Command) -> EventDict:
    """Order fields as the command has them."""
    return {
        "side": command.side, "price_units": command.price_units,
        "quantity_lots": command.quantity_lots, "time_in_force": command.time_in_force,
        "display": command.display, "capacity": command.capacity,
        "iso": command.iso, "cross": command.cross, "client_order": command.client_order,
        "post_only": Flag.POST_ONLY in command.flags,
    }


def _replace_command_fields(command: Command) -> EventDict:
    """A replace that did not happen keeps its extension as it came."""
    return {
        "orig_user_ref_num": command.orig_user_ref_num, "orig_order_id": 0,
        "chain_quantity_lots": command.quantity_lots, "chain_done_lots": 0,
        "orig_price_units": 0, "orig_open_lots": 0, "orig_side": "",
        "command_side": command.command_side, "command_flags": 0, "orig_time_in_force": "",
    }


def _action_fields(command: Command) -> EventDict:
    return {"firm": command.firm, "symbol": command.symbol, "side": command.side,
            "group_id": command.group_id}


def _option_fields(options: dict[str, Any]) -> EventDict:
    return {"options": dict(options)} if options else {}


def _raw_field(command: Command) -> EventDict:
    return {"raw": command.raw.hex()} if command.raw else {}

"""One command as plain data, and its 64-byte units packed without help from the core.

The oracle reads the plain data, the matcher reads the units, so a mistake in the core's own
builders or readers shows as a difference between the two.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from cython_core.event import CommandBatch
from cython_core.model import Flag, Kind, Source

ORDER = struct.Struct("<BBHIQQqQIBBBB14sBB")
ACTION = struct.Struct("<BBHIQQqQIBBBB4s8sHBB")
OPTIONS = struct.Struct("<BxHIQQII4si4sBBBBBBBx2s2xq")
REPLACE = struct.Struct("<BBBBIQQQqQB15x")
RAW = struct.Struct("<BB62s")
ORIGIN = struct.Struct("<BBBxIQI4x16s24s")
CLIENT_ID = struct.Struct("<BB6x36s20x")
RULES = struct.Struct("<BBHIQQQQQH12xBB")
INSTRUMENT = struct.Struct("<BBBB4x24s8sQqQ")
ACCOUNT = struct.Struct("<BB2xI24sQQII4s4x")

NO_FLAGS = Flag(0)
RULE_NAMES = ("window_ns", "kept_min", "kept_max", "udp_window")
ACTIONS = (Kind.CMD_MASS_CANCEL, Kind.CMD_DISABLE_ENTRY, Kind.CMD_ENABLE_ENTRY)

# Tag of each option that an order may carry (PROTOCOLS 2.2).
OPTION_TAGS = {
    "firm": 2, "min_quantity_lots": 3, "customer_type": 4, "display_quantity_lots": 5,
    "price_type": 6, "peg_offset_units": 7, "discretion_price_units": 9,
    "discretion_price_type": 10, "post_only_tag": 12, "random_reserves": 13, "expire_time_s": 15,
    "trade_now": 16, "handle_inst": 17, "group_id": 24, "shares_located": 25, "locate_broker": 26,
    "aiq_strategy": 29, "aiq_group": 30,
}


@dataclass
class Command:
    """Every field that any command has. Letters are one-character strings, "" is a zero byte."""

    kind: Kind
    account_id: int = 0
    user_ref_num: int = 0
    user_ref_idx: int = 0
    instrument_id: int = 0
    side: str = ""
    quantity_lots: int = 0
    price_units: int = 0
    time_in_force: str = ""
    display: str = "Y"
    capacity: str = "A"
    iso: str = "N"
    cross: str = "N"
    client_order: str = ""
    source: Source = Source.TCP
    flags: Flag = NO_FLAGS
    door_reason: int = 0
    orig_user_ref_num: int = 0
    command_side: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    firm: str = ""
    symbol: str = ""
    group_id: int | None = None
    definition: dict[str, Any] = field(default_factory=dict)
    # of private commands
    order_id: int = 0
    client_order_id: str = ""
    request_id: int = 0
    actor_account_id: int = 0
    key: str = ""
    reason: str = ""
    act: int = 0

    @property
    def is_private(self) -> bool:
        """Whether the source has no stream."""
        return self.source not in (Source.TCP, Source.UDP)

    @property
    def has_origin(self) -> bool:
        """Commands from inside say nothing about themselves unless they have something to say."""
        says = (self.request_id, self.order_id, self.actor_account_id, self.key, self.reason)
        return self.is_private and (self.source != Source.INTERNAL or any(says))

    def units(self) -> bytes:
        """The command as it goes to the matcher."""
        extensions = self._extensions()
        return self._base(len(extensions)) + b"".join(extensions)

    def _base(self, ext_count: int) -> bytes:
        common = (self.kind, ext_count, self.instrument_id, self.account_id, 0, self.door_reason,
                  self.price_units, self.quantity_lots, self.user_ref_num, self.user_ref_idx,
                  _byte(self.side), _byte(self.time_in_force))
        if self.kind == Kind.CMD_SET_RULES:
            rules = (self.definition[name] for name in RULE_NAMES)
            return RULES.pack(*common[:6], *rules, self.source, self.flags)
        if self.kind in ACTIONS:
            return ACTION.pack(*common, self.group_id is not None, _padded(self.firm, 4),
                               _padded(self.symbol, 8), self.group_id or 0, self.source,
                               self.flags)
        client_order = b""
        if self.kind in (Kind.CMD_ENTER, Kind.CMD_REPLACE):
            client_order = _padded(self.client_order, 14)
        return ORDER.pack(*common, self.attributes(), client_order, self.source, self.flags)

    def attributes(self) -> int:
        """Display, capacity, ISO and cross type in one byte; zero where a kind has none."""
        if self.kind not in (Kind.CMD_ENTER, Kind.CMD_REPLACE):
            return 0
        return ("YNAZ".index(self.display) | "APRO".index(self.capacity) << 2
                | "NY".index(self.iso) << 4 | "NOCHSREA".index(self.cross) << 5)

    def _extensions(self) -> list[bytes]:
        units = []
        if self.kind == Kind.CMD_REPLACE:
            units.append(REPLACE.pack(Kind.EXT_REPLACE, _byte(self.command_side), 0, 0,
                                      self.orig_user_ref_num, 0, self.quantity_lots, 0, 0, 0, 0))
        if self.has_origin:
            units.append(ORIGIN.pack(
                Kind.EXT_ORIGIN, self.act, self.source, self.request_id, self.order_id,
                self.actor_account_id, self.key.encode(), self.reason.encode()))
        if self.client_order_id:
            text = self.client_order_id.encode("ascii")
            units.append(CLIENT_ID.pack(Kind.EXT_CLIENT_ID, len(text), text))
        if self.options:
            units.append(_pack_options(self.options))
        for start in range(0, len(self.raw), 62):
            piece = self.raw[start:start + 62]
            units.append(RAW.pack(Kind.EXT_RAW, len(piece), piece))
        if self.kind == Kind.CMD_DEFINE_INSTRUMENT:
            units.append(_pack_instrument(self.definition))
        if self.kind == Kind.CMD_DEFINE_ACCOUNT:
            units.append(_pack_account(self.definition))
        return units


def command_batch(commands: list[Command], generation: int) -> CommandBatch:
    """The commands as one batch for the matcher."""
    batch = CommandBatch()
    batch.extend_bytes(b"".join(command.units() for command in commands))
    batch.command_count = len(commands)
    batch.generation = generation
    return batch


def define_instrument(instrument_id: int, symbol: str, tick_units: int,
                      quantity_max_lots: int = 0xFFFFFFFF) -> Command:
    """An instrument of whole lots with four price decimals."""
    return Command(Kind.CMD_DEFINE_INSTRUMENT, instrument_id=instrument_id,
                   source=Source.INTERNAL, definition={
                       "symbol": symbol, "wire_symbol": symbol[:8], "price_decimals": 4,
                       "quantity_decimals": 0, "tick_units": tick_units, "lot_size": 1,
                       "quantity_max_lots": quantity_max_lots, "state": 0})


def define_account(account_id: int, username: str, firm: str = "", **limits: int) -> Command:
    """An account; limits that are not named are off."""
    definition = {"username": username, "firm": firm, "role": 0, "quantity_max_lots": 0,
                  "notional_max": 0, "open_orders_max": 0, "collar_bps": 0,
                  "messages_per_second": 0, **limits}
    return Command(Kind.CMD_DEFINE_ACCOUNT, account_id=account_id, source=Source.INTERNAL,
                   definition=definition)


def set_rules(window_ns: int, kept_min: int, kept_max: int, udp_window: int = 0) -> Command:
    """How long the ids of clients are remembered, and which old numbers are taken over UDP."""
    return Command(Kind.CMD_SET_RULES, source=Source.INTERNAL, definition=dict(
        zip(RULE_NAMES, (window_ns, kept_min, kept_max, udp_window), strict=True)))


def _byte(letter: str) -> int:
    return ord(letter) if letter else 0


def _padded(text: str, width: int) -> bytes:
    return text.encode("ascii").ljust(width)


def _pack_options(options: dict[str, Any]) -> bytes:
    present = sum(1 << OPTION_TAGS[name] for name in options)
    number = {**dict.fromkeys(OPTION_TAGS, 0), **options}

    def letter(name: str) -> int:
        return _byte(options.get(name, ""))

    def text(name: str, width: int) -> bytes:
        return _padded(options[name], width) if name in options else b""

    return OPTIONS.pack(
        Kind.EXT_OPTIONS, number["group_id"], present, number["min_quantity_lots"],
        number["display_quantity_lots"], number["random_reserves"], number["expire_time_s"],
        text("firm", 4), number["peg_offset_units"], text("locate_broker", 4),
        letter("customer_type"), letter("price_type"), letter("trade_now"), letter("handle_inst"),
        letter("shares_located"), letter("discretion_price_type"), letter("aiq_strategy"),
        text("aiq_group", 2), number["discretion_price_units"])


def _pack_instrument(value: dict[str, Any]) -> bytes:
    return INSTRUMENT.pack(
        Kind.EXT_INSTRUMENT, value["price_decimals"], value["quantity_decimals"], value["state"],
        value["symbol"].encode("ascii"), _padded(value["wire_symbol"], 8), value["lot_size"],
        value["tick_units"], value["quantity_max_lots"])


def _pack_account(value: dict[str, Any]) -> bytes:
    return ACCOUNT.pack(
        Kind.EXT_ACCOUNT, value["role"], value["open_orders_max"],
        value["username"].encode("ascii"), value["quantity_max_lots"], value["notional_max"],
        value["collar_bps"], value["messages_per_second"], _padded(value["firm"], 4))

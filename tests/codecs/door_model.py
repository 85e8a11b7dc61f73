"""The door in plain Python: what `ouch.Decoder` has to make of any bytes.

Written from the tables of PROTOCOLS 2.2 to 2.5 and the reject rules of DESIGN 5, with `ouch.decode`
for the fields. It packs whole units with `struct`, so that a comparison is one of bytes.
"""

import struct

from cython_core import ouch
from cython_core.model import Flag, Kind, Reject
from cython_core.ouch import INBOUND, TAGS, Stop

EVENT = struct.Struct("<BBHIQQqQIBBBB14sBB")
ACTION = struct.Struct("<BBHIQQqQIBBBB4s8sHBB")
OPTIONS = struct.Struct("<BxHIQQII4si4sBBBBBBBx2s2xq")
REPLACE = struct.Struct("<BBBBIQQQqQB15x")
RAW = struct.Struct("<BB62s")

UNSERVED = True
LETTERS = {
    "side": (Reject.SIDE, "BSTE", ""), "time_in_force": (Reject.OTHER, "0134", "56E"),
    "display": (Reject.DISPLAY, "YA", "N"), "capacity": (Reject.OTHER, "APRO", ""),
    "iso": (Reject.ISO, "N", "Y"), "cross_type": (Reject.CROSS, "N", "OCHSREA"),
}
PACKING = {"display": ("YNAZ", 0), "capacity": ("APRO", 2), "iso": ("NY", 4),
           "cross_type": ("NOCHSREA", 5)}
# Tag name: its neutral or served values, then the reason, then what is valid but not served
# (None: everything else).
TAG_RULES = {
    "customer_type": ("RN ", Reject.OTHER, ""), "max_floor_lots": ((0,), Reject.MAX_FLOOR, None),
    "price_type": ("L", Reject.PEG, "PMRQm"), "peg_offset_units": ((0,), Reject.PEG, None),
    "discretion_price_units": ((0,), Reject.OTHER, None),
    "discretion_price_type": ("L", Reject.PEG, None),
    "discretion_peg_offset_units": ((0,), Reject.PEG, None),
    "post_only": ("PN", Reject.OTHER, ""), "random_reserves_lots": ((0,), Reject.OTHER, None),
    "route": (("",), Reject.ROUTE, None), "expire_time_s": ((0,), Reject.OTHER, None),
    "trade_now": ("N ", Reject.OTHER, "Y"), "handle_inst": (" ", Reject.OTHER, None),
    "side": ("BSTE", Reject.SIDE, ""), "aiq_strategy": (" ", Reject.AIQ, None),
    "aiq_group": (("",), Reject.AIQ, None), "shares_located": ("YN", Reject.OTHER, ""),
}
ENTER_TAGS = {2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 24, 25, 26, 28, 29, 30}
REPLACE_TAGS = {3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 25, 26, 27, 28, 29, 30}
NUMBERS = {tag.name: number for number, tag in TAGS.items()}


def decode(data, symbols, account_id, source, enter_budget=-1):
    """(units as bytes, commands, consumed bytes, stop) for a whole stream of packets."""
    units, commands, position, entered = b"", 0, 0, 0
    while True:
        rest = data[position:]
        length = int.from_bytes(rest[:2], "big")
        stop = packet_fault(rest, length)
        if stop is not None:
            return units, commands, position, stop
        if rest[2:3] == b"O":
            return units, commands, position + 3, Stop.LOGOUT
        if rest[2:3] == b"U":
            message = rest[3:2 + length]
            stop = message_fault(message)
            if stop is not None:
                return units, commands, position, stop
            exceeded = 0 <= enter_budget <= entered
            entered += message[:1] in (b"O", b"U")
            units += command_units(message, symbols, account_id, source, exceeded)
            commands += 1
        position = min(position + 2 + length, len(data))


def packet_fault(rest, length):
    if len(rest) >= 2 and length == 0:
        return Stop.PACKET_LENGTH
    if len(rest) < 3:
        return Stop.NEED_MORE
    kind = chr(rest[2])
    if kind == "L":
        return Stop.LOGIN
    if kind not in "UROL+":
        return Stop.PACKET_TYPE
    if (kind in "RO" and length != 1) or (kind == "U" and length == 1):
        return Stop.PACKET_LENGTH
    if kind == "U" and length > ouch.MESSAGE_MAX:
        return Stop.OVERSIZED
    if kind != "+" and len(rest) < length + 2:
        return Stop.NEED_MORE
    return None


def message_fault(message):
    shape = INBOUND.get(chr(message[0]))
    if shape is None:
        return Stop.MESSAGE_TYPE
    if len(message) == shape.fixed_bytes and shape.appendage == "optional":
        return None
    if len(message) < shape.fixed_bytes + 2:
        return Stop.MESSAGE_LENGTH
    try:
        ouch.decode("in", message)
    except ouch.WireError:
        return Stop.APPENDAGE
    return None


def command_units(message, symbols, account_id, source, rate_exceeded):
    fields = ouch.decode("in", message)
    kind = fields["type"]
    if kind in "OU":
        return order_units(fields, message, symbols, account_id, source, rate_exceeded)
    if kind in "CDE":
        return action_units(fields, message, symbols, account_id, source)
    number = {"X": Kind.CMD_CANCEL, "M": Kind.CMD_MODIFY, "Q": Kind.CMD_ACCOUNT_QUERY}[kind]
    return EVENT.pack(number, 0, 0, account_id, 0, 0, 0, fields.get("quantity_lots", 0),
                      fields.get("user_ref_num", 0), fields["options"].get("user_ref_idx", 0),
                      ord(fields.get("side", "\0")), 0, 0, bytes(14), source, 0)


def order_units(fields, message, symbols, account_id, source, rate_exceeded):
    enter = fields["type"] == "O"
    options = fields["options"]
    refusal = order_refusal(fields, symbols, ENTER_TAGS if enter else REPLACE_TAGS)
    flags = Flag.RATE_EXCEEDED if rate_exceeded else Flag(0)
    if "post_only" in options:
        flags |= Flag.POST_ONLY_SET
        flags |= Flag.POST_ONLY if options["post_only"] == "P" else Flag(0)
    extensions = []
    if not enter:
        side = ord(options.get("side", "\0"))
        extensions.append(REPLACE.pack(Kind.EXT_REPLACE, side, 0, 0, fields["orig_user_ref_num"],
                                       0, fields["quantity_lots"], 0, 0, 0, 0))
    if refusal:
        flags |= Flag.DOOR_REASON | (Flag.UNSERVED if refusal[1] else Flag(0))
        extensions += raw_units(message)
    elif packed := option_unit(options):
        extensions.append(packed)
    client_order = message[31:45] if enter else message[24:38]
    return EVENT.pack(
        Kind.CMD_ENTER if enter else Kind.CMD_REPLACE, len(extensions),
        symbols.get(fields.get("symbol"), 0), account_id, 0, refusal[0] if refusal else 0,
        min(fields["price_units"], 2**63 - 1), fields["quantity_lots"], fields["user_ref_num"],
        options.get("user_ref_idx", 0), ord(fields["side"]) if enter else 0,
        ord(fields["time_in_force"]), packed_attributes(fields), client_order, source, flags,
    ) + b"".join(extensions)


def order_refusal(fields, symbols, known_tags):
    """The first fault in the order of the wire as (reason, unserved), or None."""
    for name, value in fields.items():
        if name == "symbol" and value not in symbols:
            return Reject.SYMBOL, False
        if name in LETTERS and value not in LETTERS[name][1]:
            return LETTERS[name][0], value in LETTERS[name][2]
    for name, value in fields["options"].items():
        number = NUMBERS.get(name)
        if number not in known_tags:
            return Reject.OTHER, True
        if name in TAG_RULES:
            served, reason, unserved = TAG_RULES[name]
            if value not in served:
                return reason, unserved is None or value in unserved
    return None


def packed_attributes(fields):
    packed = 0
    for name, (letters, shift) in PACKING.items():
        if fields.get(name, "-") in letters:
            packed |= letters.index(fields[name]) << shift
    return packed


def raw_units(message):
    pieces = [message[start:start + 62] for start in range(0, len(message), 62)]
    return [RAW.pack(Kind.EXT_RAW, len(piece), piece) for piece in pieces]


def option_unit(options):
    present = sum(1 << NUMBERS[name] for name in options
                  if name not in ("post_only", "side", "user_ref_idx"))
    if not present:
        return b""

    def letter(name):
        return ord(options.get(name, "\0"))

    def text(name, width):
        return options[name].encode("latin-1").ljust(width) if name in options else bytes(width)

    return OPTIONS.pack(
        Kind.EXT_OPTIONS, options.get("group_id", 0), present,
        options.get("min_quantity_lots", 0), 0, 0, 0, text("firm", 4), 0,
        text("locate_broker", 4), letter("customer_type"), letter("price_type"),
        letter("trade_now"), letter("handle_inst"), letter("shares_located"),
        letter("discretion_price_type"), letter("aiq_strategy"), text("aiq_group", 2), 0)


def action_units(fields, message, symbols, account_id, source):
    options = fields["options"]
    mass = fields["type"] == "C"
    kind = {"C": Kind.CMD_MASS_CANCEL, "D": Kind.CMD_DISABLE_ENTRY,
            "E": Kind.CMD_ENABLE_ENTRY}[fields["type"]]
    refusal = action_refusal(fields, symbols) if mass else None
    extensions = raw_units(message) if refusal else []
    group = options.get("group_id") if mass else None
    return ACTION.pack(
        kind, len(extensions), symbols.get(fields.get("symbol"), 0), account_id, 0, refusal or 0,
        0, 0, fields["user_ref_num"], options.get("user_ref_idx", 0),
        ord(options.get("side", "\0")) if mass else 0, 0, group is not None,
        message[5:9], message[9:17] if mass else b" " * 8, group or 0, source,
        Flag.DOOR_REASON if refusal else 0,
    ) + b"".join(extensions)


def action_refusal(fields, symbols):
    if fields["symbol"] and fields["symbol"] not in symbols:
        return Reject.SYMBOL
    if fields["options"].get("side", "B") not in "BSTE":
        return Reject.SIDE
    return None

"""Event units packed with `struct`, and the message that each must become."""

import struct

from cython_core import ouch
from cython_core.event import read_units
from cython_core.model import Flag, Kind

EVENT = struct.Struct("<BBHIQQqQIBBBB14sBB")
CANCELED = struct.Struct("<BBHIQQqQIBBBBQIBBBB")
ACTION = struct.Struct("<BBHIQQqQIBBBB4s8sHBB")
FILL = struct.Struct("<BBHIQQqQIBBBBQII")
OPTIONS = struct.Struct("<BxHIQQII4si4sBBBBBBBx2s2xq")
REPLACE = struct.Struct("<BBBBIQQQqQB15x")
INSTRUMENT = struct.Struct("<BBBB4x24s8sQqQ")

DAY_NS = 86_400_000_000_000
TIME_NS = 20_001 * DAY_NS + 34_200_000_000_000
SYMBOL_ID = 5
TCP, HTTP = 1, 3


def order(kind, account=7, order_id=9, price=675_000_000, quantity=100, number=3, index=0,
          side="B", time_in_force="0", attributes=0, client_order="CL-1", source=TCP, flags=0,
          extensions=()):
    """An accepted, replaced, announced or rejected event, or one of the session."""
    return EVENT.pack(kind, len(extensions), SYMBOL_ID, account, TIME_NS, order_id, price,
                      quantity, number, index, ord(side), ord(time_in_force), attributes,
                      client_order.encode().ljust(14), source, flags) + b"".join(extensions)


def rejected(reason, command=Kind.CMD_ENTER, **fields):
    return order(Kind.REJECTED, order_id=reason | command << 16, **fields)


def canceled(account=7, quantity=40, reason="U", number=3, index=0, source=TCP, remaining=60):
    return CANCELED.pack(Kind.CANCELED, 0, SYMBOL_ID, account, TIME_NS, 9, 675_000_000, quantity,
                         number, index, ord("B"), ord("0"), 0, remaining, 0, ord(reason), 0,
                         source, 0)


def modified(account=7, quantity=40, side="T", number=3, index=0, source=TCP):
    return CANCELED.pack(Kind.MODIFIED, 0, SYMBOL_ID, account, TIME_NS, 9, 675_000_000, quantity,
                         number, index, ord(side), ord("0"), 0, 60, 0, ord(side), ord("S"),
                         source, 0)


def action(kind, account=7, firm="", symbol="", side="\0", group=None, number=3, index=0,
           source=TCP):
    return ACTION.pack(kind, 0, 0, account, TIME_NS, 0, 0, 0, number, index, ord(side), 0,
                       group is not None, firm.encode().ljust(4), symbol.encode().ljust(8),
                       group or 0, source, 0)


def fill(taker=7, maker=8, price=675_000_000, quantity=25, taker_number=3, maker_number=4,
         taker_index=0, maker_index=0, flags=0):
    return FILL.pack(Kind.FILL, 0, SYMBOL_ID, taker, TIME_NS, 9, price, quantity, taker_number,
                     taker_index, ord("B"), maker_index, flags, 2, maker, maker_number)


def replace_unit(orig_number=2):
    return REPLACE.pack(Kind.EXT_REPLACE, 0, 0, 0, orig_number, 1, 500, 100, 1, 1, ord("0"))


def options_unit(**options):
    """The unit for tags by name, the way the door packs them (only served values)."""
    names = {tag.name: number for number, tag in ouch.TAGS.items()}
    present = sum(1 << names[name] for name in options)

    def letter(name):
        return ord(options.get(name, "\0"))

    def text(name, width):
        return options.get(name, "").encode().ljust(width)

    return OPTIONS.pack(
        Kind.EXT_OPTIONS, options.get("group_id", 0), present,
        options.get("min_quantity_lots", 0), 0, 0, 0, text("firm", 4), 0,
        text("locate_broker", 4), letter("customer_type"), letter("price_type"),
        letter("trade_now"), letter("handle_inst"), letter("shares_located"),
        letter("discretion_price_type"), letter("aiq_strategy"), text("aiq_group", 2), 0)


def instrument(wire_symbol="BTC-USDT", instrument_id=SYMBOL_ID):
    ext = INSTRUMENT.pack(Kind.EXT_INSTRUMENT, 2, 6, 0, wire_symbol.encode(),
                          wire_symbol.encode().ljust(8), 1, 1, 2**32 - 1)
    return EVENT.pack(Kind.INSTRUMENT_DEFINED, 1, instrument_id, 0, TIME_NS, 0, 0, 0, 0, 0, 0, 0,
                      0, bytes(14), 0, 128) + ext


def session_started(generation=2):
    return order(Kind.SESSION_STARTED, account=0, order_id=generation, source=0)


# -- the stream rule in plain Python ---------------------------------------------------------------

ACCEPTED_TAGS = {2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 14, 15, 16, 17, 24, 25, 29, 30}
REPLACED_TAGS = {2, 3, 5, 6, 15, 16, 17, 29, 30}


def expected_messages(data, first_seq, symbols):
    """[(account, message)] for whole event units."""
    data = bytes(data)
    messages = []
    position = 0
    for fields in read_units(data, first_seq):
        unit = data[position:position + 64 * (1 + data[position + 1])]
        position += len(unit)
        if fields["kind"] == "fill":
            messages += fill_messages(fields)
        elif fields["source"] in ("tcp", "udp"):
            message = one_message(fields, unit, symbols)
            if message is not None:
                messages.append((fields["account_id"], message))
    return messages


def fill_messages(fields):
    common = {"timestamp_ns": fields["time_ns"] % DAY_NS, "price_units": fields["price_units"],
              "quantity_lots": min(fields["quantity_lots"], 2**32 - 1),
              "match_number": fields["seq"]}
    messages = []
    if not fields["taker_private"]:
        messages.append((fields["account_id"], ouch.encode_outbound(
            "E", index_option(fields["user_ref_idx"]), user_ref_num=fields["user_ref_num"],
            liquidity="R", **common)))
    if not fields["maker_private"]:
        messages.append((fields["maker_account_id"], ouch.encode_outbound(
            "E", index_option(fields["maker_user_ref_idx"]),
            user_ref_num=fields["maker_user_ref_num"], liquidity="A", **common)))
    return messages


def index_option(index):
    return {"user_ref_idx": index} if index else {}


def one_message(fields, unit, symbols):
    common = {"timestamp_ns": fields["time_ns"] % DAY_NS, "user_ref_num": fields["user_ref_num"]}
    index = index_option(fields["user_ref_idx"])
    kind = fields["kind"]
    quantity = min(fields.get("quantity_lots", 0), 2**32 - 1)
    if kind in ("accepted", "announced", "replaced"):
        return terms_message(fields, unit, symbols, common, index, quantity)
    if kind == "canceled":
        return ouch.encode_outbound("C", index, quantity_lots=quantity, reason=fields["reason"],
                                    **common)
    if kind == "modified":
        return ouch.encode_outbound("M", index, quantity_lots=quantity, side=fields["side"],
                                    **common)
    if kind == "rejected":
        text = unit[48:62].decode() if fields["command"] in ("cmd_enter", "cmd_replace") else ""
        return ouch.encode_outbound("J", index, reject_reason=fields["reason"],
                                    client_order=text, **common)
    if kind == "account_queried":
        return ouch.encode_outbound("Q", index, timestamp_ns=common["timestamp_ns"],
                                    next_user_ref_num=fields["next_user_ref_num"])
    return action_message(fields, common, index)


def action_message(fields, common, index):
    letter = {"entry_disabled": "G", "entry_enabled": "K", "mass_canceled": "X"}
    if fields["kind"] not in letter:
        return None
    if fields["kind"] != "mass_canceled":
        return ouch.encode_outbound(letter[fields["kind"]], index, firm=fields["firm"], **common)
    if fields["group_id"] is not None:
        index["group_id"] = fields["group_id"]
    if fields["side"]:
        index["side"] = fields["side"]
    return ouch.encode_outbound("X", index, firm=fields["firm"], symbol=fields["symbol"], **common)


def terms_message(fields, unit, symbols, common, options, quantity):
    replaced = fields["kind"] == "replaced"
    options |= echoed_options(unit, REPLACED_TAGS if replaced else ACCEPTED_TAGS)
    if fields["flags"] & (Flag.POST_ONLY | Flag.POST_ONLY_SET):
        options["post_only"] = "P" if fields["flags"] & Flag.POST_ONLY else "N"
    if replaced:
        common["orig_user_ref_num"] = fields["orig_user_ref_num"]
    return ouch.encode_outbound(
        "U" if replaced else "A", options, side=fields["side"], quantity_lots=quantity,
        symbol=symbols.get(fields["instrument_id"], ""), price_units=fields["price_units"],
        time_in_force=fields["time_in_force"], display=fields["display"],
        order_id=fields["order_id"], capacity=fields["capacity"], iso=fields["iso"],
        cross_type=fields["cross"], order_state="L", client_order=unit[48:62].decode(), **common)


def echoed_options(unit, tags):
    """What of an options unit an answer repeats, with the neutral value where it holds none."""
    options = {}
    for start in range(64, len(unit), 64):
        if unit[start] != Kind.EXT_OPTIONS:
            continue
        (_, group, present, minimum, _, _, _, firm, _, broker, customer, price_type, trade_now,
         handle, located, discretion, aiq, aiq_group, _) = OPTIONS.unpack(unit[start:start + 64])
        values = {
            2: firm.decode(), 3: minimum, 4: chr(customer), 6: chr(price_type),
            10: chr(discretion), 14: "", 16: chr(trade_now), 17: chr(handle), 24: group,
            25: chr(located), 26: broker.decode(), 29: chr(aiq), 30: aiq_group.decode(),
        }
        options = {ouch.TAGS[number].name: values.get(number, 0)
                   for number in tags if present >> number & 1}
    return options

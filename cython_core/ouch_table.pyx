# cython: language_level=3
"""OUCH 5.0 as one table: every message and tag of both directions, to and from dictionaries.

A message is a dictionary of its fixed fields plus `type` (its letter) and `options` (its tags by
name, in the order of the wire). Numbers are integers in wire units, letters and texts are `str`
without the padding. Unknown and private tags are options named `tag_N` with their bytes.
A message takes about a microsecond; the daemon's hot paths are `ouch.Decoder` and
`stream.Streams`.
"""

import struct
from collections import namedtuple

from cython_core.soupbin import WireError

Field = namedtuple("Field", "name kind width")
Field.__doc__ = """A field of fixed place. `kind` is "number", "signed", "letter" or "text"."""

Message = namedtuple("Message", "letter name fields appendage tags layout fixed_bytes")
Message.__doc__ = """A message. `appendage` is "none", "required" (always emitted) or "optional"
(emitted when not empty). `layout` is the struct of the fixed part, which has `fixed_bytes`: the
Appendage Length is not in it."""

# Widths of the kinds that have only one.
_FIELDS = {
    "user_ref_num": ("number", 4), "orig_user_ref_num": ("number", 4),
    "next_user_ref_num": ("number", 4), "quantity_lots": ("number", 4),
    "prevented_lots": ("number", 4), "timestamp_ns": ("number", 8), "price_units": ("number", 8),
    "order_id": ("number", 8), "match_number": ("number", 8), "reject_reason": ("number", 2),
    "symbol": ("text", 8), "firm": ("text", 4), "client_order": ("text", 14),
}

TAGS = {
    number: Field(name, kind, width) for number, name, kind, width in (
        (1, "secondary_order_id", "number", 8), (2, "firm", "text", 4),
        (3, "min_quantity_lots", "number", 4), (4, "customer_type", "letter", 1),
        (5, "max_floor_lots", "number", 4), (6, "price_type", "letter", 1),
        (7, "peg_offset_units", "signed", 4), (9, "discretion_price_units", "number", 8),
        (10, "discretion_price_type", "letter", 1),
        (11, "discretion_peg_offset_units", "signed", 4), (12, "post_only", "letter", 1),
        (13, "random_reserves_lots", "number", 4), (14, "route", "text", 4),
        (15, "expire_time_s", "number", 4), (16, "trade_now", "letter", 1),
        (17, "handle_inst", "letter", 1), (18, "bbo_weight", "letter", 1),
        (22, "display_quantity_lots", "number", 4), (23, "display_price_units", "number", 8),
        (24, "group_id", "number", 2), (25, "shares_located", "letter", 1),
        (26, "locate_broker", "text", 4), (27, "side", "letter", 1),
        (28, "user_ref_idx", "number", 1), (29, "aiq_strategy", "letter", 1),
        (30, "aiq_group", "text", 2),
        (128, "stop_price_units", "number", 8), (129, "trigger", "letter", 1),
        (130, "expire_at_ns", "number", 8), (131, "trail_offset_units", "signed", 8),
        (132, "order_flags", "number", 1), (133, "quantity_quote", "number", 8),
        (134, "link_group", "number", 4),
    )
}
_NUMBERS = {tag.name: number for number, tag in TAGS.items()}

# Letter, name, fields, appendage, tags. A field that is not in _FIELDS is one letter.
_INBOUND = (
    ("O", "enter", "user_ref_num side quantity_lots symbol price_units time_in_force display "
     "capacity iso cross_type client_order", "required",
     (2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 24, 25, 26, 28, 29, 30)),
    ("U", "replace", "orig_user_ref_num user_ref_num quantity_lots price_units time_in_force "
     "display iso client_order", "required",
     (3, 5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17, 25, 26, 27, 28, 29, 30)),
    ("X", "cancel", "user_ref_num quantity_lots", "optional", (28,)),
    ("M", "modify", "user_ref_num side quantity_lots", "optional", (25, 26, 28)),
    ("C", "mass_cancel", "user_ref_num firm symbol", "required", (24, 27, 28)),
    ("D", "disable_order_entry", "user_ref_num firm", "required", (28,)),
    ("E", "enable_order_entry", "user_ref_num firm", "required", (28,)),
    ("Q", "account_query", "", "optional", (28,)),
)
_OUTBOUND = (
    ("S", "system_event", "timestamp_ns event_code", "none", ()),
    ("A", "accepted", "timestamp_ns user_ref_num side quantity_lots symbol price_units "
     "time_in_force display order_id capacity iso cross_type order_state client_order",
     "required",
     (2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 25, 28, 29, 30)),
    ("U", "replaced", "timestamp_ns orig_user_ref_num user_ref_num side quantity_lots symbol "
     "price_units time_in_force display order_id capacity iso cross_type order_state "
     "client_order", "required", (2, 3, 5, 6, 12, 15, 16, 17, 18, 28, 29, 30)),
    ("C", "canceled", "timestamp_ns user_ref_num quantity_lots reason", "optional", (28,)),
    ("D", "aiq_canceled", "timestamp_ns user_ref_num quantity_lots reason prevented_lots "
     "price_units liquidity strategy", "optional", (28,)),
    ("E", "executed", "timestamp_ns user_ref_num quantity_lots price_units liquidity "
     "match_number", "required", (28,)),
    ("B", "broken", "timestamp_ns user_ref_num match_number reason client_order", "optional",
     (28,)),
    ("J", "rejected", "timestamp_ns user_ref_num reject_reason client_order", "optional", (28,)),
    ("P", "cancel_pending", "timestamp_ns user_ref_num", "optional", (28,)),
    ("I", "cancel_rejected", "timestamp_ns user_ref_num", "optional", (28,)),
    ("T", "priority_update", "timestamp_ns user_ref_num price_units display order_id",
     "optional", (28,)),
    ("M", "modified", "timestamp_ns user_ref_num side quantity_lots", "optional", (25, 26, 28)),
    ("R", "restated", "timestamp_ns user_ref_num reason", "required", (1, 22, 23, 28)),
    ("X", "mass_canceled", "timestamp_ns user_ref_num firm symbol", "required", (24, 27, 28)),
    ("G", "order_entry_disabled", "timestamp_ns user_ref_num firm", "required", (28,)),
    ("K", "order_entry_enabled", "timestamp_ns user_ref_num firm", "required", (28,)),
    ("Q", "account_queried", "timestamp_ns next_user_ref_num", "optional", (28,)),
)


cdef dict _by_letter(rows):
    messages = {}
    for letter, name, names, appendage, tags in rows:
        fields = tuple(Field(field, *_FIELDS.get(field, ("letter", 1))) for field in names.split())
        layout = struct.Struct(">c" + "".join(_format(field) for field in fields))
        messages[letter] = Message(letter, name, fields, appendage, tags, layout, layout.size)
    return messages


cdef str _format(field):
    if field.kind == "number":
        return {1: "B", 2: "H", 4: "I", 8: "Q"}[field.width]
    return f"{field.width}s"


INBOUND = _by_letter(_INBOUND)
OUTBOUND = _by_letter(_OUTBOUND)
_DIRECTIONS = {"in": INBOUND, "out": OUTBOUND}


# -- reading -----------------------------------------------------------------------------------

def decode(direction, data):
    """Read one unframed message; `direction` is "in" (client to venue) or "out".

    Tolerant where the text is: an optional appendage may be missing, length field and all, and
    any tag may stand in any appendage. Raises WireError for an unknown type, a wrong length or a
    broken appendage.
    """
    data = bytes(data)
    message = _DIRECTIONS[direction].get(chr(data[0])) if data else None
    if message is None:
        raise WireError(f"unknown message type {data[:1]!r}")
    if len(data) < message.fixed_bytes:
        raise WireError(f"{message.name} has {len(data)} bytes, not {message.fixed_bytes}")
    values = message.layout.unpack_from(data)
    fields = {"type": message.letter}
    for (name, kind, _), value in zip(message.fields, values[1:]):
        fields[name] = value if kind == "number" else _string(kind, value)
    fields["options"] = _options(message, data[message.fixed_bytes:])
    return fields


cdef str _string(str kind, bytes raw):
    text = raw.decode("latin-1")
    return text.rstrip(" ") if kind == "text" else text


cdef _value(field, bytes raw):
    if field.kind in ("text", "letter"):
        return _string(field.kind, raw)
    return int.from_bytes(raw, "big", signed=field.kind == "signed")


cdef dict _options(message, bytes rest):
    if message.appendage == "none" or not rest and message.appendage == "optional":
        if rest:
            raise WireError(f"{message.name} has {len(rest)} bytes too many")
        return {}
    if len(rest) < 2:
        raise WireError(f"{message.name} ends within its appendage length")
    if int.from_bytes(rest[:2], "big") != len(rest) - 2:
        raise WireError(f"{message.name}: the appendage length is not what follows")
    options = {}
    position = 2
    while position < len(rest):
        element = rest[position]
        value = rest[position + 2:position + 1 + element]
        if element == 0 or position + 1 + element > len(rest):
            raise WireError(f"{message.name}: an element of {element} bytes runs over")
        _add_option(message, options, rest[position + 1], value)
        position += 1 + element
    return options


cdef int _add_option(message, dict options, int number, bytes value) except -1:
    tag = TAGS.get(number)
    if tag is None:
        options.setdefault(f"tag_{number}", value)
        return 0
    if len(value) != tag.width:
        raise WireError(f"{message.name}: tag {number} has {len(value)} bytes, not {tag.width}")
    if tag.name in options:
        raise WireError(f"{message.name}: tag {number} comes twice")
    options[tag.name] = _value(tag, value)
    return 0


# -- writing -----------------------------------------------------------------------------------

def encode_inbound(letter, options=None, **fields):
    """One unframed message of a client. Every fixed field has to be given by name.

    `options` are the tags by name, written in ascending order; any tag may also stand among the
    fields when the message has no fixed field of that name. Raises WireError for an unknown
    message or name, a missing field, a value that does not fit.
    """
    return _encode(INBOUND, letter, options, fields)


def encode_outbound(letter, options=None, **fields):
    """One unframed message of the venue, exact in its appendage: C D B J P I T M Q have none
    unless `user_ref_idx` is given and not 0. Otherwise like `encode_inbound`."""
    options = dict(options or {})
    message = OUTBOUND.get(letter)
    if message is not None and message.appendage == "optional":
        index = fields.get("user_ref_idx", options.get("user_ref_idx", 0))
        if not index:
            fields.pop("user_ref_idx", None)
            options = {}
    return _encode(OUTBOUND, letter, options, fields)


cdef bytes _encode(dict messages, letter, options, dict fields):
    message = messages.get(letter)
    if message is None:
        raise WireError(f"unknown message type {letter!r}")
    if fields.pop("type", letter) != letter:
        raise WireError(f"the fields are of another type than {letter!r}")
    fixed = _fixed(message, fields)
    appendage = _appendage({**(options or {}), **fields}) if options or fields else b""
    if appendage and message.appendage == "none":
        raise WireError(f"{message.name} has no appendage")
    if appendage or message.appendage == "required":
        return fixed + len(appendage).to_bytes(2, "big") + appendage
    return fixed


# Takes the fixed fields out of `fields`.
cdef bytes _fixed(message, dict fields):
    values = [message.letter.encode()]
    for field in message.fields:
        name, kind, _ = field
        if name not in fields:
            raise WireError(f"{message.name} needs {name}")
        value = fields.pop(name)
        values.append(value if kind == "number" else _raw(field, value))
    try:
        return message.layout.pack(*values)
    except struct.error as error:
        numbers = {field.name: value for field, value in zip(message.fields, values[1:])
                   if field.kind == "number"}
        raise WireError(f"{message.name} can't hold {numbers}: {error}") from None


cdef bytes _appendage(dict options):
    parts = []
    for number, name in sorted((_tag_number(name), name) for name in options):
        tag = TAGS.get(number)
        raw = bytes(options[name]) if tag is None else _raw(tag, options[name])
        if len(raw) > 254:
            raise WireError(f"{name} is longer than 254 bytes")
        parts.append(bytes((1 + len(raw), number)) + raw)
    appendage = b"".join(parts)
    if len(appendage) > 65535:
        raise WireError(f"an appendage of {len(appendage)} bytes is over 65,535")
    return appendage


cdef _tag_number(name):
    number = _NUMBERS.get(name)
    if number is None and name.startswith("tag_") and name[4:].isdigit():
        number = int(name[4:])
    if number is None or not 0 <= number < 256:
        raise WireError(f"unknown field or option {name!r}")
    return number


cdef bytes _raw(field, value):
    name, kind, width = field
    try:
        if kind in ("number", "signed"):
            return value.to_bytes(width, "big", signed=kind == "signed")
        raw = value.encode("latin-1")
    except (AttributeError, OverflowError, UnicodeEncodeError) as error:
        raise WireError(f"{name} can't be {value!r}: {error}") from None
    if len(raw) > width or (kind == "letter" and len(raw) != 1):
        raise WireError(f"{name} can't be {value!r}: {width} bytes at most")
    return raw.ljust(width)

"""Every OUCH message against bytes derived by hand from PROTOCOLS 2.3 and 2.4, and round trips."""

import pytest
import wire_strategies
from hypothesis import given
from hypothesis import strategies as st

from cython_core import ouch
from cython_core.ouch import INBOUND, OUTBOUND, TAGS, WireError

# 34,200 s after midnight, in nanoseconds.
TS_NS = 34_200_000_000_000
TS = "00001f1aced9f000"
SYMBOL = "4254432d55534454"
TEXT = "434c2d3120202020202020202020"

ENTER = {"user_ref_num": 1, "side": "B", "quantity_lots": 100, "symbol": "BTC-USDT",
         "price_units": 675_000_000, "time_in_force": "0", "display": "Y", "capacity": "A",
         "iso": "N", "cross_type": "N", "client_order": "CL-1"}
INBOUND_GOLDENS = [
    ("O", ENTER, {}, f"4f000000014200000064{SYMBOL}00000000283baec030 59 41 4e 4e{TEXT}0000"),
    ("O", ENTER, {"min_quantity_lots": 100, "post_only": "P", "user_ref_idx": 5},
     f"4f000000014200000064{SYMBOL}00000000283baec030 59 41 4e 4e{TEXT}"
     "000c 0503 00000064 020c 50 021c 05"),
    ("U", {"orig_user_ref_num": 1, "user_ref_num": 2, "quantity_lots": 500,
           "price_units": 0x7FFFFFFF, "time_in_force": "3", "display": "A", "iso": "N",
           "client_order": "CL-1"}, {"side": "T"},
     f"55 00000001 00000002 000001f4 000000007fffffff 33 41 4e {TEXT} 0003 021b54"),
    ("X", {"user_ref_num": 4, "quantity_lots": 0}, {}, "58 00000004 00000000"),
    ("X", {"user_ref_num": 4, "quantity_lots": 60}, {"user_ref_idx": 5},
     "58 00000004 0000003c 0003 021c05"),
    ("M", {"user_ref_num": 4, "side": "E", "quantity_lots": 60}, {}, "4d 00000004 45 0000003c"),
    ("M", {"user_ref_num": 4, "side": "T", "quantity_lots": 60},
     {"shares_located": "Y", "locate_broker": "ABCD"},
     "4d 00000004 54 0000003c 0009 0219 59 051a 41424344"),
    ("C", {"user_ref_num": 9, "firm": "", "symbol": ""}, {},
     "43 00000009 20202020 2020202020202020 0000"),
    ("C", {"user_ref_num": 9, "firm": "FIRM", "symbol": "BTC-USDT"},
     {"group_id": 0, "side": "S"},
     f"43 00000009 4649524d {SYMBOL} 0007 0318 0000 021b 53"),
    ("D", {"user_ref_num": 10, "firm": "FIRM"}, {}, "44 0000000a 4649524d 0000"),
    ("E", {"user_ref_num": 11, "firm": ""}, {"user_ref_idx": 1},
     "45 0000000b 20202020 0003 021c01"),
    ("Q", {}, {}, "51"),
    ("Q", {}, {"user_ref_idx": 255}, "51 0003 021cff"),
]

ACCEPTED = {"timestamp_ns": TS_NS, "user_ref_num": 1, "side": "B", "quantity_lots": 100,
            "symbol": "BTC-USDT", "price_units": 675_000_000, "time_in_force": "0",
            "display": "Y", "order_id": 0x0102030405060708, "capacity": "P", "iso": "N",
            "cross_type": "N", "order_state": "L", "client_order": "CL-1"}
OUTBOUND_GOLDENS = [
    ("S", {"timestamp_ns": TS_NS, "event_code": "S"}, {}, f"53 {TS} 53"),
    ("A", ACCEPTED, {},
     f"41 {TS} 00000001 42 00000064 {SYMBOL} 00000000283baec0 30 59 0102030405060708 50 4e 4e 4c"
     f"{TEXT} 0000"),
    ("A", ACCEPTED, {"firm": "FIRM", "post_only": "N", "group_id": 258},
     f"41 {TS} 00000001 42 00000064 {SYMBOL} 00000000283baec0 30 59 0102030405060708 50 4e 4e 4c"
     f"{TEXT} 000d 0502 4649524d 020c 4e 0318 0102"),
    ("U", {"orig_user_ref_num": 1, **ACCEPTED, "user_ref_num": 2}, {},
     f"55 {TS} 00000001 00000002 42 00000064 {SYMBOL} 00000000283baec0 30 59 0102030405060708"
     f"50 4e 4e 4c {TEXT} 0000"),
    ("C", {"timestamp_ns": TS_NS, "user_ref_num": 4, "quantity_lots": 120, "reason": "U"}, {},
     f"43 {TS} 00000004 00000078 55"),
    ("C", {"timestamp_ns": TS_NS, "user_ref_num": 4, "quantity_lots": 120, "reason": "U"},
     {"user_ref_idx": 5}, f"43 {TS} 00000004 00000078 55 0003 021c05"),
    ("D", {"timestamp_ns": TS_NS, "user_ref_num": 4, "quantity_lots": 10, "reason": "Q",
           "prevented_lots": 20, "price_units": 7, "liquidity": "R", "strategy": "D"}, {},
     f"44 {TS} 00000004 0000000a 51 00000014 0000000000000007 52 44"),
    ("E", {"timestamp_ns": TS_NS, "user_ref_num": 4, "quantity_lots": 25,
           "price_units": 675_000_000, "liquidity": "A", "match_number": 77}, {},
     f"45 {TS} 00000004 00000019 00000000283baec0 41 000000000000004d 0000"),
    ("B", {"timestamp_ns": TS_NS, "user_ref_num": 4, "match_number": 77, "reason": "E",
           "client_order": "CL-1"}, {},
     f"42 {TS} 00000004 000000000000004d 45 {TEXT}"),
    ("J", {"timestamp_ns": TS_NS, "user_ref_num": 4, "reject_reason": 0x0017,
           "client_order": "CL-1"}, {}, f"4a {TS} 00000004 0017 {TEXT}"),
    ("P", {"timestamp_ns": TS_NS, "user_ref_num": 4}, {}, f"50 {TS} 00000004"),
    ("I", {"timestamp_ns": TS_NS, "user_ref_num": 4}, {"user_ref_idx": 2},
     f"49 {TS} 00000004 0003 021c02"),
    ("T", {"timestamp_ns": TS_NS, "user_ref_num": 4, "price_units": 7, "display": "Y",
           "order_id": 8}, {}, f"54 {TS} 00000004 0000000000000007 59 0000000000000008"),
    ("M", {"timestamp_ns": TS_NS, "user_ref_num": 4, "side": "T", "quantity_lots": 60}, {},
     f"4d {TS} 00000004 54 0000003c"),
    ("R", {"timestamp_ns": TS_NS, "user_ref_num": 4, "reason": "R"},
     {"secondary_order_id": 9, "display_quantity_lots": 10, "display_price_units": 7},
     f"52 {TS} 00000004 52 001a 0901 0000000000000009 0516 0000000a 0917 0000000000000007"),
    ("X", {"timestamp_ns": TS_NS, "user_ref_num": 9, "firm": "FIRM", "symbol": ""},
     {"group_id": 3, "side": "B", "user_ref_idx": 1},
     f"58 {TS} 00000009 4649524d 2020202020202020 000a 0318 0003 021b 42 021c 01"),
    ("G", {"timestamp_ns": TS_NS, "user_ref_num": 10, "firm": ""}, {},
     f"47 {TS} 0000000a 20202020 0000"),
    ("K", {"timestamp_ns": TS_NS, "user_ref_num": 11, "firm": "FIRM"}, {},
     f"4b {TS} 0000000b 4649524d 0000"),
    ("Q", {"timestamp_ns": TS_NS, "next_user_ref_num": 12}, {}, f"51 {TS} 0000000c"),
]

# Fixed part without and with the Appendage Length, as the headings of 2.3 and 2.4 give them.
FIXED_BYTES = {
    "in": {"O": 45, "U": 38, "X": 9, "M": 10, "C": 17, "D": 9, "E": 9, "Q": 1},
    "out": {"S": 10, "A": 62, "U": 66, "C": 18, "D": 32, "E": 34, "B": 36, "J": 29, "P": 13,
            "I": 13, "T": 30, "M": 18, "R": 14, "X": 25, "G": 17, "K": 17, "Q": 13},
}
WIDTHS = {1: 8, 2: 4, 3: 4, 4: 1, 5: 4, 6: 1, 7: 4, 9: 8, 10: 1, 11: 4, 12: 1, 13: 4, 14: 4,
          15: 4, 16: 1, 17: 1, 18: 1, 22: 4, 23: 8, 24: 2, 25: 1, 26: 4, 27: 1, 28: 1, 29: 1,
          30: 2, 128: 8, 129: 1, 130: 8, 131: 8, 132: 1, 133: 8, 134: 4}
ENCODERS = {"in": ouch.encode_inbound, "out": ouch.encode_outbound}
GOLDENS = [("in", *golden) for golden in INBOUND_GOLDENS]
GOLDENS += [("out", *golden) for golden in OUTBOUND_GOLDENS]


def test_the_golden_bytes_cover_every_message():
    assert {letter for letter, *_ in INBOUND_GOLDENS} == set(INBOUND)
    assert {letter for letter, *_ in OUTBOUND_GOLDENS} == set(OUTBOUND)


@pytest.mark.parametrize(("direction", "letter", "fields", "options", "golden"), GOLDENS)
def test_a_message_has_its_golden_bytes_both_ways(direction, letter, fields, options, golden):
    data = bytes.fromhex(golden.replace(" ", ""))
    assert ENCODERS[direction](letter, options, **fields) == data
    assert ouch.decode(direction, data) == {"type": letter, **fields, "options": options}


@pytest.mark.parametrize("direction", ["in", "out"])
def test_every_message_has_the_length_of_the_text(direction):
    table = {"in": INBOUND, "out": OUTBOUND}[direction]
    assert {key: shape.fixed_bytes for key, shape in table.items()} == FIXED_BYTES[direction]


def test_every_tag_has_the_width_of_the_text():
    assert {number: tag.width for number, tag in TAGS.items()} == WIDTHS


def test_the_builders_for_clients_agree_with_the_table():
    fields = {**ENTER, "capacity": "P"}
    assert ouch.encode_enter(1, "B", 100, "BTC-USDT", 675_000_000, "0", "CL-1", framed=False) == (
        ouch.encode_inbound("O", **fields))
    assert ouch.encode_replace(1, 2, 500, 7, "3", "CL-1", framed=False) == ouch.encode_inbound(
        "U", orig_user_ref_num=1, user_ref_num=2, quantity_lots=500, price_units=7,
        time_in_force="3", display="Y", iso="N", client_order="CL-1")
    assert ouch.encode_cancel(4, 60, framed=False) == ouch.encode_inbound(
        "X", user_ref_num=4, quantity_lots=60)


def test_a_framed_message_is_an_unsequenced_packet():
    assert ouch.encode_enter(1, "B", 1, "AAPL", 1)[:3] == b"\x00\x30U"
    assert ouch.encode_cancel(4) == b"\x00\x0aU" + ouch.encode_cancel(4, framed=False)
    assert ouch.encode_replace(1, 2, 3, 4)[:3] == b"\x00\x29U"


@pytest.mark.parametrize("arguments", [
    (1, "B", 1, "NINECHARS", 1), (1, "BS", 1, "A", 1), (1, "", 1, "A", 1), (1, "é", 1, "A", 1),
    (1, "B", 1, "A", 1, "0", "fifteen letters"),
])
def test_the_builders_refuse_texts_that_do_not_fit(arguments):
    with pytest.raises(WireError):
        ouch.encode_enter(*arguments)


def test_the_builders_refuse_numbers_that_do_not_fit():
    with pytest.raises(OverflowError):
        ouch.encode_cancel(2**32)
    with pytest.raises(OverflowError):
        ouch.encode_enter(1, "B", -1, "A", 1)


@pytest.mark.parametrize("direction", ["in", "out"])
@given(data=st.data())
def test_every_message_comes_back_as_it_was(direction, data):
    letter, fields, options = data.draw(wire_strategies.messages(direction))
    shape = {"in": INBOUND, "out": OUTBOUND}[direction][letter]
    encoded = ENCODERS[direction](letter, options, **fields)
    if direction == "out" and shape.appendage == "optional" and not options.get("user_ref_idx"):
        options = {}
        assert len(encoded) == shape.fixed_bytes
    assert ouch.decode(direction, encoded) == {"type": letter, **fields, "options": options}


@pytest.mark.parametrize("number", sorted(TAGS))
@given(data=st.data())
def test_every_tag_is_decoded_wherever_it_stands(number, data):
    tag = TAGS[number]
    value = data.draw(wire_strategies.values(tag))
    encoded = ouch.encode_inbound("Q", {tag.name: value})
    assert encoded[:5] == bytes((0x51, 0, 2 + tag.width, 1 + tag.width, number))
    assert ouch.decode("in", encoded)["options"] == {tag.name: value}


def test_unknown_tags_are_kept_as_bytes():
    decoded = ouch.decode("in", bytes.fromhex("51 0007 03c80102 020800"))
    assert decoded["options"] == {"tag_200": b"\1\2", "tag_8": b"\0"}
    assert ouch.encode_inbound("Q", decoded["options"]) == bytes.fromhex("51 0007 020800 03c80102")


def test_tags_are_written_in_ascending_order():
    options = {"user_ref_idx": 1, "firm": "FIRM", "post_only": "P"}
    decoded = ouch.decode("out", ouch.encode_outbound("A", options, **ACCEPTED))
    assert list(decoded["options"]) == ["firm", "post_only", "user_ref_idx"]


@pytest.mark.parametrize("letter", sorted(
    letter for letter, shape in OUTBOUND.items() if shape.appendage == "optional"))
def test_an_optional_appendage_goes_out_only_for_a_channel(letter):
    _, fields, _, _ = next(golden for golden in OUTBOUND_GOLDENS if golden[0] == letter)
    fixed = FIXED_BYTES["out"][letter]
    assert len(ouch.encode_outbound(letter, **fields)) == fixed
    assert len(ouch.encode_outbound(letter, {"user_ref_idx": 0}, **fields)) == fixed
    with_channel = ouch.encode_outbound(letter, {"user_ref_idx": 7}, **fields)
    assert with_channel[fixed:] == b"\x00\x03\x02\x1c\x07"


@pytest.mark.parametrize("letter", sorted(
    letter for letter, shape in OUTBOUND.items() if shape.appendage == "required"))
def test_a_required_appendage_goes_out_even_when_empty(letter):
    _, fields, _, _ = next(golden for golden in OUTBOUND_GOLDENS if golden[0] == letter)
    assert ouch.encode_outbound(letter, **fields)[FIXED_BYTES["out"][letter]:] == b"\0\0"


@pytest.mark.parametrize(("direction", "letter", "fields"), [
    *(("in", letter, fields) for letter, fields, *_ in INBOUND_GOLDENS if letter in "XMQ"),
    *(("out", letter, fields) for letter, fields, *_ in OUTBOUND_GOLDENS if letter in "CDBJPITMQ"),
])
def test_an_optional_appendage_is_read_present_or_not(direction, letter, fields):
    without = ENCODERS[direction](letter, **fields)
    assert ouch.decode(direction, without) == ouch.decode(direction, without + b"\0\0")


@pytest.mark.parametrize(("direction", "message"), [
    ("in", ""), ("in", "5a"), ("in", "41"), ("out", "4f"), ("in", "58000000"),
    ("in", "58 00000004 00000000 00"), ("in", "58 00000004 00000000 0001"),
    ("in", "44 0000000a 4649524d"), ("in", "51 0001 00"), ("in", "51 0002 091c"),
    ("in", "51 0004 031c0001"), ("in", "51 0006 021c01 021c01"), ("in", "51 0003 021c0101"),
    ("out", "53 0000000000000001 53 0000"),
])
def test_broken_messages_are_wire_errors(direction, message):
    with pytest.raises(WireError):
        ouch.decode(direction, bytes.fromhex(message))


@pytest.mark.parametrize(("letter", "fields"), [
    ("Z", {}), ("X", {"user_ref_num": 1}), ("X", {"user_ref_num": 1, "quantity_lots": -1}),
    ("X", {"user_ref_num": 2**32, "quantity_lots": 1}),
    ("X", {"user_ref_num": "1", "quantity_lots": 1}),
    ("X", {"user_ref_num": 1, "quantity_lots": 1, "colour": 3}),
    ("X", {"user_ref_num": 1, "quantity_lots": 1, "tag_256": b""}),
    ("X", {"user_ref_num": 1, "quantity_lots": 1, "tag_99": bytes(255)}),
    ("M", {"user_ref_num": 1, "side": "", "quantity_lots": 1}),
    ("M", {"user_ref_num": 1, "side": "BB", "quantity_lots": 1}),
    ("D", {"user_ref_num": 1, "firm": "FIRMS"}), ("D", {"user_ref_num": 1, "firm": "€"}),
    ("D", {"type": "E", "user_ref_num": 1, "firm": ""}),
])
def test_what_does_not_fit_a_message_is_a_wire_error(letter, fields):
    with pytest.raises(WireError):
        ouch.encode_inbound(letter, **fields)


def test_a_system_event_takes_no_tags():
    with pytest.raises(WireError):
        ouch.encode_outbound("S", {"firm": "X"}, timestamp_ns=1, event_code="S")


@given(st.sampled_from(["in", "out"]), st.binary(max_size=120))
def test_any_bytes_are_a_message_or_a_wire_error(direction, data):
    try:
        decoded = ouch.decode(direction, data)
    except WireError:
        return
    assert decoded["type"] == chr(data[0])

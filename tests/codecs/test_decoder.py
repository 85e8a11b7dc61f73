"""The door: bytes into commands, against goldens and against the door in plain Python."""

import os
import random

import door_model
import pytest
import wire_strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_core import ouch, soupbin
from cython_core.event import CommandBatch
from cython_core.model import Flag, Reject
from cython_core.ouch import Stop

LONG = os.environ.get("MATCHD_TEST_PROFILE") == "long"
EXAMPLES = 6_000 if LONG else 400
MUTATIONS = 100_000 if LONG else 4_000

SYMBOLS = {"BTC-USDT": 1, "AAPL": 65_535}
ACCOUNT, SOURCE = 7, 2

ENTER = {"user_ref_num": 1, "side": "B", "quantity_lots": 100, "symbol": "BTC-USDT",
         "price_units": 675_000_000, "time_in_force": "0", "display": "Y", "capacity": "P",
         "iso": "N", "cross_type": "N", "client_order": "CL-1"}
REPLACE = {"orig_user_ref_num": 1, "user_ref_num": 2, "quantity_lots": 500, "price_units": 7,
           "time_in_force": "0", "display": "Y", "iso": "N", "client_order": "CL-2"}


def symbol_table():
    table = ouch.SymbolTable()
    for symbol, instrument_id in SYMBOLS.items():
        table.add(symbol, instrument_id)
    return table


TABLE = symbol_table()


def decoder():
    return ouch.Decoder(TABLE, ACCOUNT, SOURCE)


def decode(data, enter_budget=-1):
    """(units, commands, consumed, stop) of the decoder, like the model's."""
    batch = CommandBatch()
    consumed, stop = decoder().feed(data, batch, enter_budget)
    return bytes(batch), batch.command_count, consumed, Stop(stop)


def model(data, enter_budget=-1):
    return door_model.decode(data, SYMBOLS, ACCOUNT, SOURCE, enter_budget)


def packets(*messages):
    return b"".join(soupbin.build_unsequenced(message) for message in messages)


def commands(*messages, enter_budget=-1):
    batch = CommandBatch()
    data = packets(*messages)
    assert decoder().feed(data, batch, enter_budget) == (len(data), Stop.NEED_MORE)
    assert batch.command_count == len(messages)
    assert bytes(batch) == model(data, enter_budget)[0]
    return batch.dicts()


def enter(options=None, **fields):
    return ouch.encode_inbound("O", options, **{**ENTER, **fields})


def replace(options=None, **fields):
    return ouch.encode_inbound("U", options, **{**REPLACE, **fields})


def verdict(command):
    """(reason, unserved) of a command refused at the door, None of another."""
    if not command["flags"] & Flag.DOOR_REASON:
        return None
    return command["reason"], bool(command["flags"] & Flag.UNSERVED)


# -- what becomes of each message ----------------------------------------------------------------

def test_the_golden_enter_order_becomes_a_command():
    golden = bytes.fromhex("4F 00000001 42 00000064 4254432D55534454 00000000283BAEC0"
                           "30 59 41 4E 4E 434C2D3120202020202020202020 0000")
    [command] = commands(golden)
    assert command["kind"] == "cmd_enter"
    assert (command["account_id"], command["source"], command["instrument_id"]) == (7, "udp", 1)
    assert (command["side"], command["quantity_lots"], command["price_units"]) == (
        "B", 100, 675_000_000)
    assert (command["display"], command["capacity"], command["client_order"]) == ("Y", "A", "CL-1")
    assert command["flags"] == 0


def test_every_message_becomes_its_command():
    messages = [
        enter(), replace(), ouch.encode_cancel(1, 60, framed=False),
        ouch.encode_inbound("M", user_ref_num=1, side="E", quantity_lots=50),
        ouch.encode_inbound("C", {"group_id": 0, "side": "S", "user_ref_idx": 4},
                            user_ref_num=3, firm="FIRM", symbol="AAPL"),
        ouch.encode_inbound("D", user_ref_num=4, firm="FIRM"),
        ouch.encode_inbound("E", {"user_ref_idx": 9}, user_ref_num=5, firm=""),
        ouch.encode_inbound("Q"),
    ]
    found = commands(*messages)
    assert [command["kind"] for command in found] == [
        "cmd_enter", "cmd_replace", "cmd_cancel", "cmd_modify", "cmd_mass_cancel",
        "cmd_disable_entry", "cmd_enable_entry", "cmd_account_query"]
    assert found[1]["orig_user_ref_num"] == 1
    assert found[1]["chain_quantity_lots"] == found[1]["quantity_lots"] == 500
    assert found[2]["quantity_lots"] == 60
    assert (found[3]["side"], found[3]["quantity_lots"]) == ("E", 50)
    assert (found[4]["instrument_id"], found[4]["symbol"], found[4]["side"],
            found[4]["group_id"], found[4]["firm"], found[4]["user_ref_idx"]) == (
                65_535, "AAPL", "S", 0, "FIRM", 4)
    assert (found[5]["firm"], found[6]["firm"], found[6]["user_ref_idx"]) == ("FIRM", "", 9)


def test_tags_to_carry_come_in_an_options_unit():
    options = {"firm": "FIRM", "min_quantity_lots": 5, "customer_type": "R", "group_id": 9,
               "shares_located": "Y", "locate_broker": "BRKR", "post_only": "N",
               "user_ref_idx": 3}
    [command] = commands(enter(options))
    assert command["options"] == {name: value for name, value in options.items()
                                  if name not in ("post_only", "user_ref_idx")}
    assert command["user_ref_idx"] == 3
    assert command["flags"] == Flag.POST_ONLY_SET


def test_post_only_and_channel_need_no_options_unit():
    [command] = commands(enter({"post_only": "P", "user_ref_idx": 3}))
    assert "options" not in command
    assert command["flags"] == Flag.POST_ONLY_SET | Flag.POST_ONLY


def test_prices_beyond_the_signed_range_are_the_largest_signed_price():
    found = commands(enter(price_units=2**64 - 1), replace(price_units=2**63),
                     enter(price_units=2**63 - 1))
    assert [command["price_units"] for command in found] == [2**63 - 1] * 3


# -- refusals ------------------------------------------------------------------------------------

@pytest.mark.parametrize(("field", "value", "expected"), [
    *(("side", letter, None) for letter in "BSTE"),
    *(("side", letter, (Reject.SIDE, False)) for letter in "XbC \0"),
    *(("time_in_force", letter, None) for letter in "0134"),
    *(("time_in_force", letter, (Reject.OTHER, True)) for letter in "56E"),
    *(("time_in_force", letter, (Reject.OTHER, False)) for letter in "279eX "),
    *(("display", letter, None) for letter in "YA"),
    ("display", "N", (Reject.DISPLAY, True)),
    *(("display", letter, (Reject.DISPLAY, False)) for letter in "ZPX "),
    *(("capacity", letter, None) for letter in "APRO"),
    *(("capacity", letter, (Reject.OTHER, False)) for letter in "aX "),
    ("iso", "N", None), ("iso", "Y", (Reject.ISO, True)), ("iso", "X", (Reject.ISO, False)),
    ("cross_type", "N", None),
    *(("cross_type", letter, (Reject.CROSS, True)) for letter in "OCHSREA"),
    *(("cross_type", letter, (Reject.CROSS, False)) for letter in "XY "),
    ("symbol", "AAPL", None), ("symbol", "AAP", (Reject.SYMBOL, False)),
    ("symbol", "", (Reject.SYMBOL, False)), ("symbol", "btc-usdt", (Reject.SYMBOL, False)),
    ("quantity_lots", 0, None), ("price_units", 0, None),
])
def test_an_enter_order_is_served_or_refused_by_each_field(field, value, expected):
    [command] = commands(enter(**{field: value}))
    assert verdict(command) == expected


@pytest.mark.parametrize(("field", "value", "expected"), [
    ("time_in_force", "3", None), ("time_in_force", "6", (Reject.OTHER, True)),
    ("time_in_force", "x", (Reject.OTHER, False)), ("display", "N", (Reject.DISPLAY, True)),
    ("display", "Z", (Reject.DISPLAY, False)), ("iso", "Y", (Reject.ISO, True)),
    ("iso", "?", (Reject.ISO, False)), ("quantity_lots", 0, None),
])
def test_a_replace_is_served_or_refused_by_each_field(field, value, expected):
    [command] = commands(replace(**{field: value}))
    assert verdict(command) == expected


BOTH_MESSAGES = [
    ("min_quantity_lots", 7, None), ("max_floor_lots", 0, None),
    ("max_floor_lots", 1, (Reject.MAX_FLOOR, True)), ("price_type", "L", None),
    *(("price_type", letter, (Reject.PEG, True)) for letter in "PMRQm"),
    ("price_type", "Z", (Reject.PEG, False)), ("peg_offset_units", 0, None),
    ("peg_offset_units", -1, (Reject.PEG, True)), ("discretion_price_units", 0, None),
    ("discretion_price_units", 1, (Reject.OTHER, True)), ("discretion_price_type", "L", None),
    ("discretion_price_type", "P", (Reject.PEG, True)), ("discretion_peg_offset_units", 0, None),
    ("discretion_peg_offset_units", 1, (Reject.PEG, True)), ("post_only", "P", None),
    ("post_only", "N", None), ("post_only", "Y", (Reject.OTHER, False)),
    ("random_reserves_lots", 0, None), ("random_reserves_lots", 1, (Reject.OTHER, True)),
    ("route", "", None), ("route", "NYSE", (Reject.ROUTE, True)), ("expire_time_s", 0, None),
    ("expire_time_s", 60, (Reject.OTHER, True)), ("trade_now", "N", None),
    ("trade_now", " ", None), ("trade_now", "Y", (Reject.OTHER, True)),
    ("trade_now", "X", (Reject.OTHER, False)), ("handle_inst", " ", None),
    ("handle_inst", "I", (Reject.OTHER, True)), ("shares_located", "Y", None),
    ("shares_located", "N", None), ("shares_located", "?", (Reject.OTHER, False)),
    ("locate_broker", "ABCD", None), ("user_ref_idx", 255, None), ("aiq_strategy", " ", None),
    ("aiq_strategy", "O", (Reject.AIQ, True)), ("aiq_group", "", None),
    ("aiq_group", "G1", (Reject.AIQ, True)),
    ("secondary_order_id", 0, (Reject.OTHER, True)), ("bbo_weight", " ", (Reject.OTHER, True)),
    ("display_quantity_lots", 0, (Reject.OTHER, True)),
    ("display_price_units", 0, (Reject.OTHER, True)), ("tag_8", b"", (Reject.OTHER, True)),
    ("tag_19", b"\0", (Reject.OTHER, True)), ("tag_99", b"??", (Reject.OTHER, True)),
    ("stop_price_units", 0, (Reject.OTHER, True)), ("trigger", "L", (Reject.OTHER, True)),
    ("expire_at_ns", 0, (Reject.OTHER, True)), ("trail_offset_units", 0, (Reject.OTHER, True)),
    ("order_flags", 0, (Reject.OTHER, True)), ("quantity_quote", 0, (Reject.OTHER, True)),
    ("link_group", 0, (Reject.OTHER, True)), ("tag_135", b"", (Reject.OTHER, True)),
]


@pytest.mark.parametrize(("name", "value", "expected"), [
    *BOTH_MESSAGES, ("firm", "FIRM", None), ("customer_type", "R", None),
    ("customer_type", "N", None), ("customer_type", " ", None),
    ("customer_type", "X", (Reject.OTHER, False)), ("group_id", 3, None),
    ("side", "B", (Reject.OTHER, True)),
])
def test_an_enter_order_is_served_or_refused_by_each_tag(name, value, expected):
    [command] = commands(enter({name: value}))
    assert verdict(command) == expected


@pytest.mark.parametrize(("name", "value", "expected"), [
    *BOTH_MESSAGES, ("firm", "FIRM", (Reject.OTHER, True)), ("group_id", 3, (Reject.OTHER, True)),
    ("customer_type", "R", (Reject.OTHER, True)), ("side", "T", None),
    ("side", "X", (Reject.SIDE, False)),
])
def test_a_replace_is_served_or_refused_by_each_tag(name, value, expected):
    [command] = commands(replace({name: value}))
    assert verdict(command) == expected
    assert command["command_side"] == (value if name == "side" else "")


def test_the_first_fault_in_the_order_of_the_wire_counts():
    faults = {"side": ("X", Reject.SIDE), "symbol": ("?", Reject.SYMBOL),
              "time_in_force": ("5", Reject.OTHER), "display": ("N", Reject.DISPLAY),
              "capacity": ("?", Reject.OTHER), "iso": ("Y", Reject.ISO),
              "cross_type": ("O", Reject.CROSS)}
    names = list(faults)
    for index, name in enumerate(names):
        wrong = {later: faults[later][0] for later in names[index:]}
        [command] = commands(enter({"max_floor_lots": 1}, **wrong))
        assert command["reason"] == faults[name][1]
    [command] = commands(enter({"max_floor_lots": 1, "price_type": "P"}))
    assert command["reason"] == Reject.MAX_FLOOR


def test_a_refused_message_is_carried_as_it_came():
    message = enter({"tag_99": bytes(range(200)), "user_ref_idx": 6, "post_only": "P"}, side="?")
    [command] = commands(message)
    assert command["raw"] == message.hex()
    assert command["user_ref_idx"] == 6
    assert "options" not in command
    [command] = commands(replace({"max_floor_lots": 1}))
    assert command["raw"] == replace({"max_floor_lots": 1}).hex()
    assert command["orig_user_ref_num"] == 1


@pytest.mark.parametrize(("symbol", "options", "refused"), [
    ("", {}, False), ("AAPL", {"side": "E"}, False), ("NOSUCH", {}, True),
    ("", {"side": "X"}, True),
])
def test_a_mass_cancel_is_refused_for_its_symbol_or_side(symbol, options, refused):
    message = ouch.encode_inbound("C", options, user_ref_num=1, firm="", symbol=symbol)
    [command] = commands(message)
    assert ("raw" in command) == refused


def test_tags_that_other_messages_do_not_know_are_passed_over():
    options = {"firm": "FIRM", "side": "?", "tag_99": b"??", "stop_price_units": 4,
               "display_price_units": 1, "user_ref_idx": 2}
    for letter, fields in (("X", {"user_ref_num": 1, "quantity_lots": 0}), ("Q", {})):
        [command] = commands(ouch.encode_inbound(letter, options, **fields))
        assert "raw" not in command
        assert command["user_ref_idx"] == 2


# -- rates ---------------------------------------------------------------------------------------

def test_enters_and_replaces_beyond_the_budget_are_marked():
    messages = [enter(), ouch.encode_cancel(1, framed=False), replace(), enter(),
                ouch.encode_inbound("Q"), replace(display="N")]
    found = commands(*messages, enter_budget=2)
    marked = [bool(command["flags"] & Flag.RATE_EXCEEDED) if "flags" in command else False
              for command in found]
    assert marked == [False, False, False, True, False, True]


@pytest.mark.parametrize(("budget", "marked"), [(-1, 0), (0, 3), (1, 2), (3, 0), (10, 0)])
def test_the_budget_counts_down_and_its_use_is_told(budget, marked):
    batch = CommandBatch()
    door = decoder()
    door.feed(packets(enter(), enter(), enter()), batch, budget)
    assert door.entered == 3
    assert sum(bool(command["flags"] & Flag.RATE_EXCEEDED) for command in batch.dicts()) == marked


# -- stops ---------------------------------------------------------------------------------------

GOOD = packets(enter())


@pytest.mark.parametrize(("bad", "stop", "reason"), [
    (b"\x00\x00", Stop.PACKET_LENGTH, "wrong packet length 0"),
    (b"\x00\x01H", Stop.PACKET_TYPE, "unknown packet type 0x48"),
    (b"\x00\x01S", Stop.PACKET_TYPE, "unknown packet type 0x53"),
    (b"\xff\xff\x00", Stop.PACKET_TYPE, "unknown packet type 0x00"),
    (b"\x00\x02R", Stop.PACKET_LENGTH, "wrong packet length 2"),
    (b"\x00\x02Ox", Stop.PACKET_LENGTH, "wrong packet length 2"),
    (b"\x00\x01U", Stop.PACKET_LENGTH, "wrong packet length 1"),
    (b"\x00\x2fL", Stop.LOGIN, "a second login on one connection"),
    (b"\x08\x01U", Stop.OVERSIZED, "packet length 2049 is over the limit"),
    (b"\x00\x02UZ", Stop.MESSAGE_TYPE, "unknown message type 0x5A"),
    (b"\x00\x02UA", Stop.MESSAGE_TYPE, "unknown message type 0x41"),
    (b"\x00\x02UX", Stop.MESSAGE_LENGTH, "message type 0x58 has a wrong length"),
    (b"\x00\x03UQ\0", Stop.MESSAGE_LENGTH, "message type 0x51 has a wrong length"),
    (packets(enter())[:1] + b"\x2eU" + enter()[:45], Stop.MESSAGE_LENGTH,
     "message type 0x4F has a wrong length"),
    (packets(enter() + b"\0"), Stop.APPENDAGE, "message type 0x4F has a broken appendage"),
    (packets(bytes.fromhex("51 0001 00")), Stop.APPENDAGE,
     "message type 0x51 has a broken appendage"),
    (packets(bytes.fromhex("51 0003 031c05")), Stop.APPENDAGE,
     "message type 0x51 has a broken appendage"),
    (packets(bytes.fromhex("51 0003 036305")), Stop.APPENDAGE,
     "message type 0x51 has a broken appendage"),
    (packets(bytes.fromhex("51 0001 01")), Stop.APPENDAGE,
     "message type 0x51 has a broken appendage"),
    (packets(bytes.fromhex("51 0004 031c0505")), Stop.APPENDAGE,
     "message type 0x51 has a broken appendage"),
    (packets(bytes.fromhex("51 0006 021c05 021c05")), Stop.APPENDAGE,
     "message type 0x51 has a broken appendage"),
    (packets(bytes.fromhex("51 0004 0380 0000")), Stop.APPENDAGE,
     "message type 0x51 has a broken appendage"),
])
def test_a_fault_stops_the_decoder_and_leaves_the_commands_before_it(bad, stop, reason):
    batch = CommandBatch()
    door = decoder()
    assert door.feed(GOOD + bad + GOOD, batch) == (len(GOOD), stop)
    assert door.stop_reason == reason
    assert bytes(batch) == model(GOOD)[0]
    assert (batch.command_count, door.messages) == (1, 1)
    assert door.feed(GOOD, batch) == (0, stop)
    assert batch.command_count == 1


def test_a_logout_stops_after_itself_and_reset_goes_on():
    batch = CommandBatch()
    door = decoder()
    assert door.feed(GOOD + b"\x00\x01O" + GOOD, batch) == (len(GOOD) + 3, Stop.LOGOUT)
    assert door.stop_reason == "logout"
    assert door.feed(GOOD, batch) == (0, Stop.LOGOUT)
    door.reset()
    assert door.feed(GOOD, batch) == (len(GOOD), Stop.NEED_MORE)
    assert door.stop_reason == "no fault"


def test_heartbeats_and_debug_packets_are_counted_and_passed_over():
    batch = CommandBatch()
    door = decoder()
    data = b"\x00\x01R" + soupbin.build_debug("hello") + GOOD + b"\x00\x01R\x00\x01+"
    assert door.feed(data, batch) == (len(data), Stop.NEED_MORE)
    assert (door.heartbeats, door.debug_packets, door.messages) == (2, 2, 1)


def test_a_debug_packet_longer_than_any_buffer_is_passed_over():
    batch = CommandBatch()
    door = decoder()
    data = soupbin.build_debug(b"x" * 65_534) + GOOD
    for start in range(0, len(data), 1_000):
        piece = data[start:start + 1_000]
        assert door.feed(piece, batch) == (len(piece), Stop.NEED_MORE)
    assert (door.debug_packets, batch.command_count) == (1, 1)


def test_the_longest_message_is_decoded():
    tag = {f"tag_{number}": bytes(240) for number in range(31, 39)}
    message = enter(tag)
    filler = {"tag_39": bytes(ouch.MESSAGE_MAX - 1 - len(message) - 2)}
    [command] = commands(enter(tag | filler))
    assert len(command["raw"]) == 2 * (ouch.MESSAGE_MAX - 1)


# -- the interface -------------------------------------------------------------------------------

def test_only_the_named_part_of_the_buffer_is_read():
    batch = CommandBatch()
    buffer = bytearray(b"\xff" * 5 + GOOD + b"\xff" * 5)
    assert decoder().feed(memoryview(buffer), batch, -1, 5, 5 + len(GOOD)) == (len(GOOD), 0)
    with pytest.raises(ValueError, match="not within"):
        decoder().feed(buffer, batch, -1, 0, len(buffer) + 1)
    assert decoder().feed(b"", batch) == (0, Stop.NEED_MORE)


def test_a_batch_that_is_exported_cannot_be_decoded_into():
    batch = CommandBatch()
    view = memoryview(batch)
    with pytest.raises(BufferError):
        decoder().feed(GOOD, batch)
    view.release()


def test_symbols_added_later_are_known_to_every_decoder():
    table = ouch.SymbolTable()
    door = ouch.Decoder(table, 1)
    for number in range(1, 5_000):
        table.add(f"S{number}", number)
    assert len(table) == 4_999
    assert [table.find(f"S{number}") for number in (1, 2_500, 4_999, 5_000)] == [1, 2_500, 4_999, 0]
    batch = CommandBatch()
    door.feed(packets(enter(symbol="S4321")), batch)
    assert batch.dicts()[0]["instrument_id"] == 4_321
    table.add("S1", 9)
    assert (table.find(b"S1      "), len(table)) == (9, 4_999)


@pytest.mark.parametrize(("symbol", "number"), [("", 1), ("NINECHARS", 1), ("A", 0), ("A", 65_536)])
def test_a_symbol_table_refuses_what_the_wire_cannot_say(symbol, number):
    with pytest.raises(ValueError, match=r"symbol|within"):
        ouch.SymbolTable().add(symbol, number)


# -- against the model, on any bytes -------------------------------------------------------------

PACKET = st.one_of(
    wire_strategies.inbound_bytes().map(soupbin.build_unsequenced),
    wire_strategies.inbound_bytes().map(soupbin.build_unsequenced),
    st.sampled_from([b"\x00\x01R", b"\x00\x05+deb"]),
    st.sampled_from([b"\x00\x01O", b"\x00\x00", b"\x00\x01H", b"\x00\x2fL", b"\x00\x09+"]),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(PACKET, max_size=8).map(b"".join), st.integers(-1, 4))
def test_the_decoder_and_the_model_make_the_same_of_any_packets(data, budget):
    assert decode(data, budget) == model(data, budget)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=150))
def test_the_decoder_and_the_model_make_the_same_of_any_bytes(data):
    assert decode(data) == model(data)


def in_pieces(data, cuts):
    """What a session sees: each piece comes behind what was left over."""
    batch = CommandBatch()
    door = decoder()
    taken, rest, stop = 0, b"", 0
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        rest += data[start:end]
        consumed, stop = door.feed(rest, batch)
        rest = rest[consumed:]
        taken += consumed
        if stop:
            break
    return bytes(batch), batch.command_count, taken, Stop(stop)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(st.lists(PACKET, max_size=6).map(b"".join))
def test_a_split_after_every_byte_changes_nothing(data):
    assert in_pieces(data, range(1, len(data))) == decode(data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(PACKET, max_size=8).map(b"".join), st.data())
def test_a_split_anywhere_changes_nothing(data, choice):
    cuts = choice.draw(st.lists(st.integers(0, len(data)), max_size=6).map(sorted))
    assert in_pieces(data, cuts) == decode(data)


def test_mutated_streams_always_end_in_a_defined_stop():
    chooser = random.Random(20)
    base = packets(enter(), replace({"side": "S"}), ouch.encode_cancel(3, framed=False),
                   enter({"min_quantity_lots": 4, "tag_99": b"x"}), ouch.encode_inbound("Q"),
                   ouch.encode_inbound("C", {"side": "B"}, user_ref_num=1, firm="", symbol=""))
    for _ in range(MUTATIONS):
        data = bytearray(base)
        for _ in range(chooser.randint(1, 6)):
            place = chooser.randrange(len(data))
            change = chooser.random()
            if change < 0.6:
                data[place] = chooser.randrange(256)
            elif change < 0.8:
                del data[place:place + chooser.randint(1, 9)]
            else:
                data[place:place] = chooser.randbytes(chooser.randint(1, 9))
        assert decode(bytes(data)) == model(bytes(data)), data.hex()

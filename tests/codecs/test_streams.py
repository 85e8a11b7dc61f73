"""Events into numbered messages: goldens, the stream rule in plain Python, numbering and replay."""

import os

import event_units as units
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_core import ouch, soupbin, stream
from cython_core.event import EventBatch
from cython_core.model import Flag, Kind, Reject

LONG = os.environ.get("MATCHD_TEST_PROFILE") == "long"
EXAMPLES = 3_000 if LONG else 200

SYMBOLS = {units.SYMBOL_ID: "BTC-USDT"}
TS = "00001f1aced9f000"
HEAD = f"{TS} 00000003"
TERMS = "4254432d55534454 00000000283baec0 30 59 0000000000000009 41 4e 4e 4c"
TEXT = "434c2d3120202020202020202020"
BLANK = "20" * 14

ANSWERS = [
    (units.order(Kind.ACCEPTED), f"41 {HEAD} 42 00000064 {TERMS} {TEXT} 0000"),
    (units.order(Kind.ANNOUNCED, index=5), f"41 {HEAD} 42 00000064 {TERMS} {TEXT} 0003 021c05"),
    (units.order(Kind.ACCEPTED, flags=Flag.POST_ONLY | Flag.POST_ONLY_SET),
     f"41 {HEAD} 42 00000064 {TERMS} {TEXT} 0003 020c50"),
    (units.order(Kind.ACCEPTED, flags=Flag.POST_ONLY_SET),
     f"41 {HEAD} 42 00000064 {TERMS} {TEXT} 0003 020c4e"),
    (units.order(Kind.ACCEPTED, attributes=2 | 3 << 2 | 1 << 4 | 7 << 5),
     f"41 {HEAD} 42 00000064 4254432d55534454 00000000283baec0 30 41 0000000000000009"
     f"4f 59 41 4c {TEXT} 0000"),
    (units.order(Kind.ACCEPTED, quantity=2**40),
     f"41 {HEAD} 42 ffffffff {TERMS} {TEXT} 0000"),
    (units.order(Kind.REPLACED, extensions=[units.replace_unit(2)]),
     f"55 {TS} 00000002 00000003 42 00000064 {TERMS} {TEXT} 0000"),
    (units.order(Kind.REPLACED, index=1, flags=Flag.POST_ONLY, extensions=[
        units.replace_unit(2), units.options_unit(firm="FIRM", group_id=3, min_quantity_lots=9)]),
     f"55 {TS} 00000002 00000003 42 00000064 {TERMS} {TEXT}"
     "0012 0502 4649524d 0503 00000009 020c50 021c01"),
    (units.canceled(), f"43 {HEAD} 00000028 55"),
    (units.canceled(reason="I", index=5), f"43 {HEAD} 00000028 49 0003 021c05"),
    (units.modified(), f"4d {HEAD} 54 00000028"),
    (units.modified(index=6), f"4d {HEAD} 54 00000028 0003 021c06"),
    (units.rejected(Reject.SYMBOL), f"4a {HEAD} 0017 {TEXT}"),
    (units.rejected(Reject.AIQ, Kind.CMD_REPLACE, index=2), f"4a {HEAD} 0040 {TEXT} 0003 021c02"),
    (units.rejected(Reject.SIDE, Kind.CMD_MODIFY), f"4a {HEAD} 0009 {BLANK}"),
    (units.rejected(Reject.FIRM, Kind.CMD_MASS_CANCEL), f"4a {HEAD} 000c {BLANK}"),
    (units.action(Kind.MASS_CANCELED), f"58 {HEAD} 20202020 2020202020202020 0000"),
    (units.action(Kind.MASS_CANCELED, firm="FIRM", symbol="BTC-USDT", side="S", group=0, index=1),
     f"58 {HEAD} 4649524d 4254432d55534454 000a 0318 0000 021b53 021c01"),
    (units.action(Kind.ENTRY_DISABLED, firm="FIRM"), f"47 {HEAD} 4649524d 0000"),
    (units.action(Kind.ENTRY_ENABLED, index=1), f"4b {HEAD} 20202020 0003 021c01"),
    (units.order(Kind.ACCOUNT_QUERIED, order_id=12), f"51 {TS} 0000000c"),
    (units.order(Kind.ACCOUNT_QUERIED, order_id=2**32 - 1, index=1),
     f"51 {TS} ffffffff 0003 021c01"),
]


def names():
    known = stream.WireNames()
    known.define(units.SYMBOL_ID, "BTC-USDT")
    return known


def batch_of(*events, first_seq=100):
    return EventBatch.from_bytes(b"".join(events), first_seq)


def live(*accounts):
    streams = stream.Streams(names())
    for account in accounts:
        streams.set_live(account, True)
    return streams


def framed(messages):
    return b"".join(soupbin.build_sequenced(message) for message in messages)


# -- what becomes of each event ------------------------------------------------------------------

@pytest.mark.parametrize(("event", "golden"), ANSWERS)
def test_an_event_becomes_its_message(event, golden):
    message = bytes.fromhex(golden.replace(" ", ""))
    assert stream.messages_of(batch_of(event), names()) == [(7, message)]
    streams = live(7)
    streams.route(batch_of(event))
    assert streams.take(7) == soupbin.build_sequenced(message)


def test_a_fill_goes_to_the_taker_and_then_to_the_maker():
    messages = stream.messages_of(batch_of(units.fill(maker_index=5)), names())
    common = f"{TS} {{}} 00000019 00000000283baec0 {{}} 0000000000000064"
    taker = "45" + common.format("00000003", "52") + "0000"
    maker = "45" + common.format("00000004", "41") + "0003 021c05"
    assert messages == [(7, bytes.fromhex(taker)), (8, bytes.fromhex(maker))]


def test_one_account_on_both_sides_gets_both():
    [(_, first), (_, second)] = stream.messages_of(batch_of(units.fill(maker=7)), names())
    assert (first[25:26], second[25:26]) == (b"R", b"A")
    streams = live(7)
    streams.route(batch_of(units.fill(maker=7)))
    assert streams.take(7) == framed([first, second])
    assert streams.next_number(7) == 3


@pytest.mark.parametrize(("flags", "accounts"), [(0, [7, 8]), (4, [8]), (8, [7]), (12, [])])
def test_a_private_side_of_a_fill_gets_no_message(flags, accounts):
    batch = batch_of(units.fill(flags=flags))
    messages = stream.messages_of(batch, names())
    assert [account for account, _ in messages] == accounts
    for account, message in messages:
        assert message[25:26] == (b"R" if account == 7 else b"A")
        assert stream.encode_account(names(), batch, 100, account, 1, 1, 1_000)[0] == (
            framed([message]))


@pytest.mark.parametrize("event", [
    units.order(Kind.REPLACE_REFUSED), units.order(Kind.ROLL_STARTED, account=0),
    units.session_started(), units.instrument(), units.order(Kind.ACCEPTED, source=units.HTTP),
    units.canceled(source=units.HTTP), units.action(Kind.MASS_CANCELED, source=5),
    units.order(Kind.ACCOUNT_DEFINED, source=0),
])
def test_other_events_make_no_message(event):
    assert stream.messages_of(batch_of(event), names()) == []
    assert stream.count_account(batch_of(event), 7, 1) == 1


def test_every_tag_that_accepted_repeats_is_repeated_as_given():
    options = {"firm": "FIRM", "min_quantity_lots": 9, "customer_type": "R", "max_floor_lots": 0,
               "price_type": "L", "peg_offset_units": 0, "discretion_price_units": 0,
               "discretion_price_type": "L", "discretion_peg_offset_units": 0,
               "random_reserves_lots": 0, "route": "", "expire_time_s": 0, "trade_now": " ",
               "handle_inst": " ", "group_id": 7, "shares_located": "N", "locate_broker": "BRKR",
               "aiq_strategy": " ", "aiq_group": ""}
    extensions = [units.options_unit(**options)]
    accepted = units.order(Kind.ACCEPTED, index=9, flags=Flag.POST_ONLY, extensions=extensions)
    [(_, message)] = stream.messages_of(batch_of(accepted), names())
    del options["locate_broker"]
    expected = options | {"post_only": "P", "user_ref_idx": 9}
    decoded = ouch.decode("out", message)["options"]
    assert decoded == expected
    assert set(decoded) == {ouch.TAGS[tag].name for tag in ouch.OUTBOUND["A"].tags} - {"bbo_weight"}
    assert len(soupbin.build_sequenced(message)) == 160


def test_a_replaced_order_repeats_the_tags_of_its_list_only():
    options = {"firm": "FIRM", "min_quantity_lots": 9, "customer_type": "R", "max_floor_lots": 0,
               "price_type": "L", "peg_offset_units": 0, "expire_time_s": 0, "trade_now": "N",
               "handle_inst": " ", "group_id": 7, "shares_located": "N", "aiq_group": ""}
    replaced = units.order(Kind.REPLACED, extensions=[
        units.replace_unit(), units.options_unit(**options)])
    [(_, message)] = stream.messages_of(batch_of(replaced), names())
    assert list(ouch.decode("out", message)["options"]) == [
        "firm", "min_quantity_lots", "max_floor_lots", "price_type", "expire_time_s", "trade_now",
        "handle_inst", "aiq_group"]


def test_symbols_are_learnt_from_the_events():
    batch = batch_of(units.instrument("ETH-USDT", 300), units.order(Kind.ACCEPTED))
    streams = stream.Streams()
    streams.route(batch)
    assert streams.names.symbol(300) == "ETH-USDT"
    assert streams.names.symbol(units.SYMBOL_ID) == ""
    assert streams.names.symbol(65_535) == ""
    with pytest.raises(ValueError, match="NINECHARS"):
        streams.names.define(1, "NINECHARS")


# -- numbering and delivery ------------------------------------------------------------------------

def test_accounts_are_counted_whether_they_are_live_or_not():
    streams = live(8)
    streams.open_account(7, 41)
    streams.route(batch_of(units.order(Kind.ACCEPTED), units.fill(), units.canceled(account=9)))
    assert [streams.next_number(account) for account in (7, 8, 9, 10)] == [43, 2, 2, 1]
    assert streams.touched() == [8]
    assert streams.take(7) == b""


def test_bytes_are_taken_once_and_in_order():
    streams = live(7, 8)
    first = [units.order(Kind.ACCEPTED), units.fill()]
    streams.route(batch_of(*first))
    streams.route(batch_of(units.canceled(), first_seq=102))
    assert streams.touched() == [7, 8]
    mine = [message for account, message in
            stream.messages_of(batch_of(*first, units.canceled()), names()) if account == 7]
    assert streams.take(7) == framed(mine)
    assert streams.take(7) == b""
    assert streams.touched() == [8]
    streams.take(8)
    assert streams.touched() == []
    streams.route(batch_of(units.canceled()))
    assert streams.touched() == [7]


def test_an_account_that_left_gets_nothing_more():
    streams = live(7)
    streams.route(batch_of(units.canceled()))
    assert streams.is_live(7)
    streams.set_live(7, False)
    assert not streams.is_live(7)
    streams.route(batch_of(units.canceled()))
    assert streams.touched() == []
    assert streams.next_number(7) == 3


def test_a_roll_ends_the_live_streams_and_numbers_from_one_again():
    streams = live(7)
    streams.open_account(7, 10)
    streams.open_account(8, 20)
    before = units.canceled(reason="E")
    streams.route(batch_of(before, units.session_started(3), units.order(Kind.ANNOUNCED)))
    [(_, message)] = stream.messages_of(batch_of(before), names())
    assert streams.take(7) == soupbin.build_sequenced(message) + soupbin.END_OF_SESSION
    assert [streams.next_number(account) for account in (7, 8)] == [2, 1]
    assert streams.generation == 3
    assert not streams.is_live(7)


def test_a_live_account_without_messages_is_told_the_end_of_the_session():
    streams = live(7)
    streams.route(batch_of(units.session_started()))
    assert streams.touched() == [7]
    assert streams.take(7) == soupbin.END_OF_SESSION


def test_thousands_of_accounts_and_long_bursts_are_kept_apart():
    streams = stream.Streams(names())
    accounts = [number * 65_537 % 2**32 for number in range(1, 3_000)]
    for account in accounts:
        streams.set_live(account, True)
    for _ in range(3):
        streams.route(batch_of(*(units.canceled(account=account) for account in accounts)))
    streams.route(batch_of(*[units.canceled(account=accounts[5])] * 5_000))
    assert streams.touched() == accounts
    one = len(framed([stream.messages_of(batch_of(units.canceled()), names())[0][1]]))
    for account in accounts:
        expected = 5_003 if account == accounts[5] else 3
        assert streams.next_number(account) == expected + 1
        assert len(streams.take(account)) == one * expected


def test_units_that_do_not_add_up_are_refused():
    accepted = units.order(Kind.ACCEPTED, extensions=[units.options_unit(firm="A")])
    for data in (accepted[:64], accepted[:100]):
        with pytest.raises(ValueError, match="units"):
            live(7).route(data)
        with pytest.raises(ValueError, match="units"):
            stream.count_account(data, 7, 1)


def test_plain_bytes_are_routed_with_the_seq_that_is_given():
    streams = live(7)
    streams.route(memoryview(units.fill()), 100)
    assert streams.take(7) == framed([stream.messages_of(batch_of(units.fill()), names())[0][1]])


# -- any events: against the rule in plain Python, and read again ----------------------------------

ACCOUNTS = st.sampled_from([7, 8, 9])
SOURCES = st.sampled_from([units.TCP, 2, units.HTTP, 5])
INDEXES = st.sampled_from([0, 0, 5])
OPTIONS = st.fixed_dictionaries({}, optional={
    "firm": st.just("FIRM"), "min_quantity_lots": st.integers(0, 9), "customer_type": st.just("N"),
    "max_floor_lots": st.just(0), "price_type": st.just("L"), "trade_now": st.just("N"),
    "route": st.just(""), "group_id": st.integers(0, 9), "shares_located": st.just("Y"),
    "locate_broker": st.just("BRKR"), "aiq_group": st.just("")})


@st.composite
def orders(draw):
    kind = draw(st.sampled_from([Kind.ACCEPTED, Kind.REPLACED, Kind.ANNOUNCED, Kind.REJECTED,
                                 Kind.REPLACE_REFUSED, Kind.ACCOUNT_QUERIED]))
    extensions = [units.replace_unit()] if kind == Kind.REPLACED else []
    if options := draw(OPTIONS):
        extensions.append(units.options_unit(**options))
    command = draw(st.sampled_from([Kind.CMD_ENTER, Kind.CMD_REPLACE, Kind.CMD_MODIFY]))
    order_id = 23 | command << 16 if kind == Kind.REJECTED else draw(st.integers(1, 2**32 - 1))
    return units.order(
        kind, account=draw(ACCOUNTS), order_id=order_id, index=draw(INDEXES),
        quantity=draw(st.sampled_from([1, 2**32 - 1, 2**33])), source=draw(SOURCES),
        side=draw(st.sampled_from("BSTE")), time_in_force=draw(st.sampled_from("0134")),
        attributes=draw(st.integers(0, 255)), flags=draw(st.sampled_from([0, 1, 2, 3, 128])),
        extensions=extensions)


EVENTS = st.one_of(
    orders(),
    st.builds(units.fill, taker=ACCOUNTS, maker=ACCOUNTS, taker_index=INDEXES,
              maker_index=INDEXES, flags=st.sampled_from([0, 0, 0, 3, 4, 8])),
    st.builds(units.canceled, account=ACCOUNTS, index=INDEXES, source=SOURCES,
              reason=st.sampled_from("UIGE")),
    st.builds(units.modified, account=ACCOUNTS, index=INDEXES, source=SOURCES),
    st.builds(units.action, st.sampled_from([Kind.MASS_CANCELED, Kind.ENTRY_DISABLED,
                                             Kind.ENTRY_ENABLED]),
              account=ACCOUNTS, index=INDEXES, source=SOURCES, side=st.sampled_from("\0BS"),
              group=st.sampled_from([None, 0, 9]), symbol=st.sampled_from(["", "BTC-USDT"])),
    st.just(units.instrument()),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_any_events_make_the_messages_of_the_rule(events):
    batch = batch_of(*events)
    expected = units.expected_messages(batch, 100, SYMBOLS)
    assert stream.messages_of(batch, names()) == expected
    streams = live(7, 8)
    streams.route(batch)
    for account in (7, 8, 9):
        mine = [message for owner, message in expected if owner == account]
        assert streams.take(account) == (b"" if account == 9 else framed(mine))
        assert streams.next_number(account) == len(mine) + 1
        assert stream.count_account(batch, account, 5) == len(mine) + 5


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(EVENTS, max_size=12), st.integers(1, 15), st.integers(1, 300))
def test_slices_read_again_join_to_the_live_stream(events, from_number, limit_bytes):
    batch = batch_of(*events)
    mine = [message for owner, message in stream.messages_of(batch, names()) if owner == 7]
    number, data = from_number, b""
    for _ in range(50):
        piece, after, sessions = stream.encode_account(names(), batch, 100, 7, 1, number,
                                                       limit_bytes)
        assert sessions == 0
        if not piece:
            break
        assert len(piece) <= max(limit_bytes, 256)
        assert after == number + len(list(soupbin.PacketReader().feed(piece)))
        number, data = after, data + piece
    assert data == framed(mine[from_number - 1:])
    assert number == max(from_number, after)


def test_reading_again_starts_over_at_a_session_start():
    batch = batch_of(units.canceled(), units.canceled(), units.session_started(),
                     units.order(Kind.ANNOUNCED), units.canceled(reason="I"))
    messages = [message for _, message in stream.messages_of(batch, names())]
    assert stream.encode_account(names(), batch, 100, 7, 50, 1, 1_000) == (
        framed(messages[2:]), 3, 1)
    assert stream.count_account(batch, 7, 50) == 3

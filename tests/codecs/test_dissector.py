"""The dissector for Wireshark shows what our decoder reads: every message, every tag, any bytes."""

import random
import re
import struct
import tomllib
from functools import cache

import pytest
from dissection import (
    OPTION,
    SCRIPT,
    TABLES,
    UDP_PORT,
    columns,
    dissect,
    messages_of,
    needs_dissector,
    tshark,
    write,
)
from test_ouch_messages import ACCEPTED, ENTER, GOLDENS, INBOUND_GOLDENS, OUTBOUND_GOLDENS

from cython_core import mold, ouch, soupbin
from cython_core.ouch import TAGS
from cython_core.soupbin import WireError

pytestmark = needs_dissector
NAMES = {"in": "client", "out": "server"}
ENCODERS = {"in": ouch.encode_inbound, "out": ouch.encode_outbound}
SAMPLES = {"number": 77, "signed": -77, "letter": "Y", "text": "AB"}


def raw(golden):
    return bytes.fromhex(golden[-1].replace(" ", ""))


@cache
def golden_messages():
    """[(direction, bytes)]: the goldens, each message with all of its tags, each tag there is."""
    found = [(golden[0], raw(golden)) for golden in GOLDENS]
    for direction, table in TABLES.items():
        goldens = {"in": INBOUND_GOLDENS, "out": OUTBOUND_GOLDENS}[direction]
        for letter, fields, _, _ in goldens:
            tags = {TAGS[number].name: SAMPLES[TAGS[number].kind]
                    for number in table[letter].tags}
            found.append((direction, ENCODERS[direction](letter, tags, **fields)))
    for tag in TAGS.values():
        found.append(("in", ouch.encode_inbound("O", {tag.name: SAMPLES[tag.kind]}, **ENTER)))
        found.append(("out", ouch.encode_outbound("A", {tag.name: SAMPLES[tag.kind]},
                                                  **ACCEPTED)))
    return found


def over_tcp(direction, message):
    build = soupbin.build_unsequenced if direction == "in" else soupbin.build_sequenced
    return NAMES[direction], build(message)


def over_udp(direction, message, number=1):
    if direction == "in":
        return over_tcp(direction, message)
    return "server", mold.build_packet("S000000001", number, [message])


def same_as_decoder(found, messages):
    """Check that tshark's messages are what the decoder reads in these."""
    assert len(found) == len(messages)
    for message, (direction, data) in zip(found, messages, strict=True):
        assert message.direction == direction
        assert message.decoded == ouch.decode(direction, data), data.hex()
        assert not message.errors


# -- every message and tag -------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "carry"), [("tcp.pcap", over_tcp), ("udp.pcap", over_udp)])
def test_every_message_and_tag_is_read_as_the_decoder_does(tmp_path, name, carry):
    messages = golden_messages()
    path = write(tmp_path / name, [carry(*message) for message in messages])
    same_as_decoder(messages_of(dissect(path)), messages)


def test_many_messages_of_a_datagram_and_of_a_segment_are_all_read(tmp_path):
    messages = golden_messages()
    inbound = [message for message in messages if message[0] == "in"]
    outbound = [message for message in messages if message[0] == "out"]
    requests = b"".join(over_tcp(*message)[1] for message in inbound)
    answers = mold.build_packet("S1", 5, [data for _, data in outbound])
    path = write(tmp_path / "udp.pcap", [("client", requests), ("server", answers)])
    frames = dissect(path)
    same_as_decoder(messages_of(frames), inbound + outbound)
    assert frames[1].fields["matchd.mold.message_sequence"] == [
        str(5 + index) for index in range(len(outbound))]

    path = write(tmp_path / "tcp.pcap", [("client", requests)])
    same_as_decoder(messages_of(dissect(path)), inbound)


def test_packets_that_segments_cut_are_joined(tmp_path):
    messages = golden_messages()
    path = write(tmp_path / "tcp.pcap", [over_tcp(*message) for message in messages], cut_bytes=7)
    same_as_decoder(messages_of(dissect(path)), messages)


def test_wiresharks_own_soupbintcp_finds_the_messages_and_counts_them(tmp_path):
    messages = golden_messages()
    session = [("client", soupbin.build_login("MAKER1", "demo", "", 5)),
               ("server", soupbin.build_login_accepted("S1", 5))]
    path = write(tmp_path / "tcp.pcap", session + [over_tcp(*message) for message in messages])
    read = ("-d", "tcp.port==9001,soupbintcp")
    same_as_decoder(messages_of(dissect(path, *read)), messages)
    numbers = re.findall(r"Sequence number: (\d+) \(Calc", tshark(path, *read, "-V"))
    assert numbers == [
        str(5 + index) for index in range(sum(direction == "out" for direction, _ in messages))]


def test_the_table_of_the_script_has_our_tags_and_marks_the_others(tmp_path):
    listed = {(direction, letter): set(message.tags) for direction, table in TABLES.items()
              for letter, message in table.items() if message.tags}
    sent = []
    for direction, letter in listed:
        fields = next(golden[1] for golden in
                      {"in": INBOUND_GOLDENS, "out": OUTBOUND_GOLDENS}[direction]
                      if golden[0] == letter)
        for number, tag in TAGS.items():
            options = {tag.name: SAMPLES[tag.kind], "user_ref_idx": 9}
            data = ENCODERS[direction](letter, options, **fields)
            sent.append((direction, letter, number, data))
    path = write(tmp_path / "udp.pcap",
                 [over_udp(direction, data) for direction, _, _, data in sent])
    for message, (direction, letter, number, _) in zip(messages_of(dissect(path)), sent,
                                                       strict=True):
        strange = [note for note in message.notes if "does not list this tag" in note]
        assert len(strange) == (number not in listed[direction, letter]), (letter, number)


# -- what a user sees ------------------------------------------------------------------------------

# What the texts of the protocol say that each code means, letter by letter.
MEANINGS = {
    ("in", "O", "side"): {"B": "buy", "S": "sell", "T": "sell short", "E": "sell short exempt"},
    ("in", "O", "time_in_force"): {
        "0": "day", "1": "good till cancelled", "3": "immediate or cancel", "4": "fill or kill",
        "5": "extended hours", "6": "good till time", "E": "after hours"},
    ("out", "A", "display"): {"Y": "visible", "N": "hidden", "A": "attributable",
                              "Z": "conformant"},
    ("in", "O", "capacity"): {"A": "agency", "P": "principal", "R": "riskless", "O": "other"},
    ("in", "O", "iso"): {"Y": "yes", "N": "no"},
    ("in", "O", "cross_type"): {
        "N": "continuous", "O": "opening", "C": "closing", "H": "halt or IPO",
        "S": "supplemental", "R": "retail", "E": "extended life", "A": "after-hours close"},
    ("out", "A", "order_state"): {"L": "live", "D": "dead"},
    ("out", "S", "event_code"): {"S": "start of day", "E": "end of day"},
    ("out", "B", "reason"): {"E": "erroneous", "C": "consent", "S": "supervisory",
                             "X": "external"},
    ("out", "R", "reason"): {"R": "display refreshed", "P": "displayed price changed"},
    ("out", "C", "reason"): {
        "D": "regulatory", "E": "closed", "F": "post-only would have been slid for NMS",
        "G": "post-only would have traded", "H": "halted", "I": "rest of immediate or cancel",
        "K": "market collars", "Q": "self-match prevention", "S": "supervisory",
        "T": "time in force expired", "U": "asked for by the user", "X": "open protection",
        "Z": "system", "e": "direct-listing raise over the shares offered"},
    ("out", "E", "liquidity"): {
        "A": "added", "R": "removed", "J": "non-displayed adding",
        "u": "non-displayed adding through a reserve order", "k": "added at midpoint",
        "m": "removed at midpoint", "N": "passive midpoint", "n": "midpoint extended life",
        "e": "retail added displayed", "7": "added, improves NBBO",
        "8": "added, sets QBBO while joining NBBO", "O": "opening cross", "C": "closing cross",
        "H": "halt or IPO cross", "K": "halt cross", "i": "after-hours closing cross",
        "M": "imbalance-only opening cross", "L": "imbalance-only closing cross",
        "0": "supplemental", "j": "RPI provides", "1": "RPI provides, no RPII",
        "p": "removed price-improving hidden", "q": "retail removes midpoint",
        "r": "retail removes RPI", "t": "retail removes other hidden"},
    ("out", "D", "strategy"): {
        "O": "cancel oldest, firm", "W": "cancel newest, firm", "D": "decrement both, firm",
        "Y": "decrement both without details, firm", "o": "cancel oldest, organisation",
        "w": "cancel newest, organisation", "d": "decrement both, organisation",
        "y": "decrement both without details, organisation"},
}
OPTION_MEANINGS = {
    "customer_type": {"R": "retail designated", "N": "not retail", " ": "port default"},
    "price_type": {"L": "limit", "P": "market peg", "M": "midpoint peg", "R": "primary peg",
                   "Q": "market-maker peg", "m": "midpoint"},
    "discretion_price_type": {"L": "limit", "P": "market peg", "M": "midpoint peg",
                              "R": "primary peg"},
    "post_only": {"P": "post only", "N": "no"},
    "trade_now": {"Y": "yes", "N": "no", " ": "port default"},
    "handle_inst": {"I": "imbalance only", "O": "retail type 1", "T": "retail type 2",
                    "Q": "retail price improvement", "R": "RPI hidden",
                    "B": "extended life and continuous", "D": "direct-listing capital raise",
                    " ": "none"},
    "bbo_weight": {"0": "up to 0.2 %", "1": "0.2 to 1 %", "2": "1 to 2 %", "3": "over 2 %",
                   "S": "sets QBBO, joins NBBO", "N": "improves NBBO", " ": "unspecified"},
    "shares_located": {"Y": "yes", "N": "no"},
    "side": {"B": "buy", "S": "sell", "T": "sell short", "E": "sell short exempt"},
    "aiq_strategy": {"O": "cancel oldest, firm", "y":
                     "decrement both without details, organisation"},
    "trigger": {"L": "last trade", "B": "best quote", "M": "mark"},
}
REJECTS = (
    "quote unavailable", "destination closed", "invalid display", "invalid max floor",
    "invalid peg type", "fat finger", "halted", "ISO not allowed", "invalid side",
    "processing error", "cancel pending", "firm not authorised", "invalid min quantity",
    "no closing reference price", "other", "cancel not allowed", "pegging not allowed",
    "crossed market", "invalid quantity", "invalid cross order", "replace not allowed",
    "routing not allowed", "invalid symbol", "test", "late LOC too aggressive",
    "retail not allowed", "invalid midpoint post-only price", "invalid destination",
    "invalid price", "shares exceed threshold", "exceeds maximum notional",
    "risk: aggregate exposure", "risk: market impact", "risk: restricted stock",
    "risk: short sell restricted", "risk: ISO not allowed", "risk: exceeds ADV limit",
    "risk: fat finger", "risk: locate required", "risk: symbol message rate",
    "risk: port message rate", "risk: duplicate message rate", "risk: short sell not allowed",
    "risk: market order not allowed", "risk: pre-market not allowed",
    "risk: post-market not allowed", "risk: short sell exempt not allowed",
    "risk: single order notional", "risk: max quantity", "Reg SHO state not available",
    "risk: IPO market buy")


def golden_fields(direction, letter):
    goldens = {"in": INBOUND_GOLDENS, "out": OUTBOUND_GOLDENS}[direction]
    return next(golden[1] for golden in goldens if golden[0] == letter)


def shown(tmp_path, messages, *arguments):
    """What is shown of each message's fields."""
    path = write(tmp_path / "udp.pcap", [over_udp(*message) for message in messages])
    return messages_of(dissect(path, *arguments))


def test_codes_are_shown_with_their_meanings(tmp_path):
    wanted, messages = [], []
    for (direction, letter, name), meanings in MEANINGS.items():
        for code, meaning in meanings.items():
            fields = {**golden_fields(direction, letter), name: code}
            wanted.append((name, f"{code} ({meaning})"))
            messages.append((direction, ENCODERS[direction](letter, **fields)))
    for name, meanings in OPTION_MEANINGS.items():
        for code, meaning in meanings.items():
            wanted.append((name, f"{code} ({meaning})"))
            messages.append(("in", ouch.encode_inbound("Q", {name: code})))
    for code, meaning in [*enumerate(REJECTS, 1), (0x40, "invalid AIQ"), (0x8001, "private"),
                          (0x99, "unknown")]:
        fields = {**golden_fields("out", "J"), "reject_reason": code}
        wanted.append(("reject_reason", f"0x{code:04X} ({meaning})"))
        messages.append(("out", ouch.encode_outbound("J", **fields)))
    found = shown(tmp_path, messages)
    assert [(name, message.texts[name]) for message, (name, _) in
            zip(found, wanted, strict=True)] == wanted


def test_a_code_without_a_meaning_is_a_note_and_no_error(tmp_path):
    [message] = shown(tmp_path, [("in", ouch.encode_inbound("O", **{**ENTER, "side": "?"}))])
    assert message.texts["side"] == "?"
    assert message.notes == ["no meaning of ? is known"]
    assert not message.errors


def executed(number, units):
    fields = {**golden_fields("out", "E"), "user_ref_num": number, "price_units": units}
    return "out", ouch.encode_outbound("E", **fields)


def entered(number, symbol, units=6_000_000, **options):
    fields = {**ENTER, "user_ref_num": number, "symbol": symbol, "price_units": units}
    return "in", ouch.encode_inbound("O", options, **fields)


def test_prices_have_the_decimals_of_their_instrument(tmp_path):
    replaced = ouch.encode_inbound("U", orig_user_ref_num=1, user_ref_num=3, quantity_lots=1,
                                   price_units=1, time_in_force="0", display="Y", iso="N",
                                   client_order="")
    found = shown(tmp_path, [
        entered(1, "BTC-USDT"), entered(2, "AAPL"), entered(2, "SHIBUSDT", user_ref_idx=5),
        executed(1, 6_000_000), executed(2, 6_000_000), ("in", replaced), executed(3, 99),
        executed(4, 6_000_000)])
    assert [message.texts["price_units"] for message in found] == [
        "6000000 (60000.00)", "6000000 (600.0000)", "6000000 (0.06000000)",
        "6000000 (60000.00)", "6000000 (600.0000)", "1 (0.01)", "99 (0.99)",
        "6000000 (600.0000 with 4 decimals)"]


def test_decimals_are_a_preference(tmp_path):
    messages = [entered(1, "BTC-USDT"), entered(2, "GOLD"), entered(3, "WHOLE")]
    found = shown(tmp_path, messages, "-o", "matchd.decimals:GOLD=3 WHOLE=0")
    assert [message.texts["price_units"] for message in found] == [
        "6000000 (600.0000)", "6000000 (6000.000)", "6000000 (6000000)"]


def test_the_decimals_are_at_first_those_of_the_shipped_instruments(tmp_path):
    shipped = tomllib.loads((SCRIPT.parents[1] / "instruments.toml").read_text())["instrument"]
    wanted = {row.get("wire_symbol", row["symbol"]): row["price_decimals"] for row in shipped}
    found = shown(tmp_path, [entered(number, symbol, 1) for number, symbol in enumerate(wanted)])
    decimals = {message.decoded["symbol"]: len(message.texts["price_units"]) - len("1 (0.)")
                for message in found}
    assert decimals == wanted


@pytest.mark.parametrize(("units", "text"), [
    (1_999_999_999, "199999.9999"), (2_000_000_000, "market"), (2_000_000_001, "200000.0001"),
    (0x7FFFFFFE, "214748.3646"), (0x7FFFFFFF, "market"), (2**64 - 1, "market"), (0, "0.0000"),
])
def test_market_prices_are_named(tmp_path, units, text):
    [message] = shown(tmp_path, [entered(1, "AAPL", units)])
    assert message.texts["price_units"] == f"{units} ({text})"


def test_times_dates_and_offsets_are_readable(tmp_path):
    day_ns = 86_400 * 10**9
    fields = [{"timestamp_ns": ns, "next_user_ref_num": 1} for ns in (
        0, 34_200_123_456_789, day_ns - 1, day_ns, 2**64 - 1)]
    found = shown(tmp_path, [("out", ouch.encode_outbound("Q", **row)) for row in fields])
    assert [message.texts["timestamp_ns"] for message in found] == [
        "0 (00:00:00.000000000)", "34200123456789 (09:30:00.123456789)",
        f"{day_ns - 1} (23:59:59.999999999)", str(day_ns), str(2**64 - 1)]
    assert [bool(message.notes) for message in found] == [False] * 3 + [True] * 2

    found = shown(tmp_path, [("in", ouch.encode_inbound("Q", options)) for options in (
        {"expire_at_ns": 1_600_000_000_000_000_001, "trail_offset_units": -5},
        {"peg_offset_units": -12_345, "expire_at_ns": 2**64 - 1})])
    assert found[0].texts["expire_at_ns"] == (
        "1600000000000000001 (2020-09-13 12:26:40.000000001 UTC)")
    assert found[0].texts["trail_offset_units"] == "-5 (-0.0005 with 4 decimals)"
    assert found[1].texts["peg_offset_units"] == "-12345 (-1.2345 with 4 decimals)"
    assert found[1].texts["expire_at_ns"].startswith(f"{2**64 - 1} (2554-")


def test_the_info_column_tells_what_happens(tmp_path):
    datagrams = [
        ("client", soupbin.build_login("MAKER1", "demo")),
        ("server", soupbin.build_login_accepted("S1", 1)),
        over_udp(*entered(1, "BTC-USDT")), over_udp(*executed(1, 6_000_000)),
        ("server", mold.build_heartbeat("S1", 19)), ("client", mold.build_request("S1", 3, 5)),
        ("server", mold.build_end_of_session("S1", 19)),
        ("client", soupbin.CLIENT_HEARTBEAT + soupbin.LOGOUT_REQUEST),
        ("server", soupbin.build_login_rejected("A")), ("server", soupbin.build_debug("slow")),
        ("client", over_udp(*entered(1, "AAPL"))[1] * 10),
        over_udp("in", ouch.encode_inbound("Q", {"user_ref_idx": 200})),
    ]
    path = write(tmp_path / "udp.pcap", datagrams)
    order = "Enter Order 1: buy 100 AAPL at 600.0000, day"
    assert columns(path) == [("MATCHD", info) for info in (
        "Login Request MAKER1", "Login Accepted, next is 1",
        "Enter Order 1: buy 100 BTC-USDT at 60000.00, day",
        "Order Executed 1: 25 at 60000.00, added", "Heartbeat, next is 19",
        "Request for 5 from 3", "End of Session, next is 19",
        "Client Heartbeat | Logout Request", "Login Rejected, not authorised", "Debug slow",
        " | ".join([order] * 8 + ["2 more"]), "Account Query Request, channel 200")]


def test_filters_find_by_the_names_of_the_fields(tmp_path):
    path = write(tmp_path / "udp.pcap", [over_udp(*message) for message in golden_messages()])
    both = [ouch.decode(*message) for message in golden_messages()]
    wanted = {
        "matchd.ouch.type == \"O\"": sum(row["type"] == "O" for row in both),
        "matchd.ouch.symbol == \"BTC-USDT\" && matchd.ouch.side == \"B\" "
        "&& matchd.ouch.price_units == 675000000": sum(
            row.get("price_units") == 675_000_000 and "symbol" in row for row in both),
        f"{OPTION}user_ref_idx == 5": sum(
            row["options"].get("user_ref_idx") == 5 for row in both),
        f"{OPTION}peg_offset_units < 0": sum(
            row["options"].get("peg_offset_units", 0) < 0 for row in both),
        "matchd.ouch.reject_reason == 0x17": sum(
            row.get("reject_reason") == 0x17 for row in both),
        "matchd.mold.session == \"S000000001\"": sum(
            direction == "out" for direction, _ in golden_messages()),
        "matchd.malformed": 0,
    }
    for text, count in wanted.items():
        assert len(tshark(path, "-Y", text).splitlines()) == count, text
    assert wanted["matchd.ouch.reject_reason == 0x17"] > 0


# -- the session layer -----------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["tcp.pcap", "udp.pcap"])
def test_logins_and_their_answers_are_shown(tmp_path, name):
    path = write(tmp_path / name, [
        ("client", soupbin.build_login("MAKER1", "demo", "S1", 12, 30_000)),
        ("server", soupbin.build_login_accepted("S1", 12)),
        ("server", soupbin.build_login_rejected("S")),
        ("server", soupbin.build_debug("text")), ("client", soupbin.LOGOUT_REQUEST)])
    frames = [frame for frame in dissect(path) if frame.fields]
    assert not [error for frame in frames for error in frame.errors]
    assert frames[0].fields | {"matchd.soup.length": 0} == {
        "matchd.soup.length": 0, "matchd.soup.type": ["L"], "matchd.soup.username": ["MAKER1"],
        "matchd.soup.password": ["demo"], "matchd.soup.session": ["S1"],
        "matchd.soup.sequence": ["12"], "matchd.soup.heartbeat_timeout_ms": ["30000"]}
    assert frames[1].fields["matchd.soup.sequence"] == ["12"]
    assert frames[2].fields["matchd.soup.reject_reason"] == ["S"]
    assert frames[3].fields["matchd.soup.text"] == ["text"]
    assert frames[4].fields["matchd.soup.type"] == ["O"]


def test_every_kind_of_mold_packet_is_shown(tmp_path):
    path = write(tmp_path / "udp.pcap", [
        ("server", mold.build_heartbeat("S1", 2**64 - 1)),
        ("client", mold.build_request("S1", 3, 5)),
        ("server", mold.build_end_of_session("S1", 7)),
        ("server", mold.build_packet("S1", 2**53 + 1, [raw(OUTBOUND_GOLDENS[0])] * 2))])
    frames = dissect(path)
    assert [[frame.fields[f"matchd.mold.{name}"][0]
             for name in ("kind", "session", "sequence", "count")] for frame in frames] == [
        ["Heartbeat", "S1", str(2**64 - 1), "0"], ["Request", "S1", "3", "5"],
        ["End of Session", "S1", "7", "65535"], ["Messages", "S1", str(2**53 + 1), "2"]]
    assert frames[3].fields["matchd.mold.message_sequence"] == [str(2**53 + 1), str(2**53 + 2)]


def test_ports_are_a_preference_and_a_choice(tmp_path):
    sent = [over_udp(*golden_messages()[0])]
    path = write(tmp_path / "udp.pcap", sent, port=7_777)
    assert not messages_of(dissect(path))
    assert messages_of(dissect(path, "-o", "matchd.udp_ports:7000-8000"))
    assert messages_of(dissect(path, "-d", "udp.port==7777,matchd"))
    assert not messages_of(dissect(write(tmp_path / "udp2.pcap", sent),
                                   "-o", f"matchd.udp_ports:{UDP_PORT + 1}"))
    path = write(tmp_path / "tcp.pcap", sent, port=7_777)
    assert not messages_of(dissect(path))
    assert messages_of(dissect(path, "-o", "matchd.tcp_ports:1-7776,7777"))
    assert messages_of(dissect(path, "-d", "tcp.port==7777,matchd"))
    assert not messages_of(dissect(path, "-d", "tcp.port==7777,soupbintcp"))
    assert messages_of(dissect(path, "-d", "tcp.port==7777,soupbintcp",
                               "-o", "matchd.tcp_ports:7777"))


@pytest.mark.parametrize(("name", "carry"), [("tcp.pcap", over_tcp), ("udp.pcap", over_udp)])
def test_heuristics_find_a_login_when_they_are_on_and_only_then(tmp_path, name, carry):
    messages = golden_messages()[:40]
    sent = [("client", soupbin.build_login("MAKER1", "demo")),
            ("server", soupbin.build_login_accepted("S1", 1))]
    path = write(tmp_path / name, sent + [carry(*message) for message in messages], port=7_777)
    assert not messages_of(dissect(path))
    same_as_decoder(messages_of(dissect(path, "-o", "matchd.heuristics:TRUE")), messages)


# -- what is wrong ---------------------------------------------------------------------------------

CANCEL = bytes.fromhex("58 00000004 00000000")
MALFORMED = [
    ("client", b"\0\2Ux", "no message x comes from this side"),
    ("server", mold.build_packet("S1", 1, [b"O" * 45]), "no message O comes from this side"),
    ("client", soupbin.build_unsequenced(CANCEL[:-1]),
     "Cancel Order Request has 8 bytes, not 9"),
    ("client", soupbin.build_unsequenced(CANCEL + b"\0"), "1 bytes too many"),
    ("client", soupbin.build_unsequenced(CANCEL + b"\0\1"),
     "the Appendage Length is 1, but 0 bytes follow"),
    ("client", soupbin.build_unsequenced(CANCEL + b"\0\1\0"), "an element of length 0"),
    ("client", soupbin.build_unsequenced(CANCEL + b"\0\2\2\x1c"),
     "an element of 2 bytes, where 1 follow"),
    ("client", soupbin.build_unsequenced(CANCEL + b"\0\4\3\x1c\0\1"),
     "UserRefIdx has 2 bytes, not 1"),
    ("client", soupbin.build_unsequenced(CANCEL + b"\0\6\2\x1c\1\2\x1c\1"),
     "UserRefIdx comes twice"),
    ("client", soupbin.build_unsequenced(b"D\0\0\0\1    "), "the Appendage Length is missing"),
    ("server", mold.build_packet("S1", 1, [bytes(9)]), "no message ? comes from this side"),
    ("client", b"\0\1U", "no message in it"),
    ("client", b"\0\0", "a packet without a type"),
    ("client", b"\0\1H", "Server Heartbeat does not come from this side"),
    ("server", b"\0\1R", "Client Heartbeat does not come from this side"),
    ("client", b"\0\1?", "no packet ? is known"),
    ("client", b"\0\3R12", "Client Heartbeat with 5 bytes"),
    ("client", b"\0\x10L", "a packet of 18 bytes, where 3 are left"),
    ("client", b"\0", "a packet of 2 bytes, where 1 are left"),
    ("client", b"short", "MoldUDP64 with 5 bytes"),
    ("client", mold.build_request("S1", 1, 2) + b"xx", "2 bytes too many"),
    ("server", mold.build_heartbeat("S1", 1) + b"xx", "2 bytes too many"),
    ("server", mold.build_end_of_session("S1", 1) + b"xxx", "3 bytes too many"),
    ("server", mold.build_request("S1", 1, 1) + b"\0\5abc", "message 1 of 1 is not all here"),
    ("server", mold.build_packet("S1", 1, [b""]), "no message in it"),
    ("server", mold.build_packet("S1", 1, [raw(OUTBOUND_GOLDENS[0])]) + b"x",
     "1 bytes after the last message"),
    ("server", mold.build_heartbeat("S1", 1).replace(b"S1", b"S\1"), "the session is no text"),
]


def test_what_is_wrong_is_said(tmp_path):
    path = write(tmp_path / "udp.pcap", [(sender, data) for sender, data, _ in MALFORMED])
    for frame, (_, data, text) in zip(dissect(path), MALFORMED, strict=True):
        assert text in frame.errors, (data, frame.errors)


def test_what_the_capture_cut_off_is_not_called_malformed(tmp_path):
    sent = [("client", b"".join(over_tcp(*message)[1] for message in golden_messages()[:6])),
            ("server", mold.build_packet("S1", 1, [raw(row) for row in OUTBOUND_GOLDENS]))]
    lengths = (55, 57, 63, 80, 99, 121, 150, 180)
    # Datagrams know nothing of each other: all lengths in one capture.
    datagrams = write(tmp_path / "udp.pcap", sent).read_bytes()
    segments = write(tmp_path / "tcp.pcap", sent[:1]).read_bytes()
    several = datagrams[:24] + b"".join(shorten(datagrams, keep)[24:] for keep in lengths)
    for capture, frames_sent in ((several, len(sent) * len(lengths)),
                                 *((shorten(segments, keep), 1) for keep in lengths)):
        path = tmp_path / "cut.pcap"
        path.write_bytes(capture)
        frames = dissect(path)
        assert not [error for frame in frames for error in frame.errors]
        assert [frame.cut for frame in frames if frame.fields] == [True] * frames_sent


def shorten(capture, keep):
    """The same capture with at most so many bytes of each frame, as a snapshot length gives."""
    parts, place = [capture[:24]], 24
    while place < len(capture):
        seconds, micros, size, whole = struct.unpack_from("<IIII", capture, place)
        data = capture[place + 16:place + 16 + min(size, keep)]
        parts.append(struct.pack("<IIII", seconds, micros, len(data), whole) + data)
        place += 16 + size
    return b"".join(parts)


# -- any bytes -------------------------------------------------------------------------------------

def mutations(rng, count):
    """[(direction, bytes)]: messages with a few bytes changed, cut, added, or all random."""
    messages = golden_messages()
    found = []
    for _ in range(count):
        direction, data = rng.choice(messages)
        data = bytearray(data)
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 2, 3, 28, 255, rng.randrange(256)))
        match rng.randrange(5):
            case 0:
                data = data[:rng.randrange(1, len(data) + 1)]
            case 1:
                data += rng.randbytes(rng.randrange(1, 12))
            case 2 if rng.randrange(4) == 0:
                data = bytearray(rng.randbytes(rng.randrange(1, 90)))
        found.append((direction, bytes(data)))
    return found


def outcome(direction, data):
    """What the decoder says: the values, or None for a message that it refuses."""
    try:
        return ouch.decode(direction, data)
    except WireError:
        return None


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_message_is_an_error_exactly_where_the_decoder_refuses_it(tmp_path, seed,
                                                                            long_profile):
    messages = mutations(random.Random(seed), 6_000 if long_profile else 1_200)
    path = write(tmp_path / "udp.pcap", [over_udp(*message) for message in messages])
    found = messages_of(dissect(path))
    assert len(found) == len(messages)
    refused = 0
    for message, (direction, data) in zip(found, messages, strict=True):
        wanted = outcome(direction, data)
        assert bool(message.errors) == (wanted is None), (direction, data.hex(), message.errors)
        if wanted is None:
            refused += 1
        else:
            assert message.decoded == wanted, data.hex()
    assert len(messages) / 6 < refused < 5 * len(messages) / 6


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["udp.pcap", "tcp.pcap"])
def test_no_bytes_make_an_error_of_lua(tmp_path, name, seed):
    rng = random.Random(seed)
    sent = []
    for _ in range(1_500):
        sender = rng.choice(("client", "server"))
        if rng.randrange(2):
            data = rng.randbytes(rng.randrange(1, 200))
        else:
            direction, message = rng.choice(mutations(rng, 1))
            data = bytearray(over_udp(direction, message)[1] * rng.randrange(1, 4))
            for _ in range(rng.randrange(4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        sent.append((sender, bytes(data)))
    path = write(tmp_path / name, sent)
    frames = dissect(path)
    assert sum(bool(frame.errors) for frame in frames) > 300 or name == "tcp.pcap"
    columns(path)
    if name == "tcp.pcap":
        # With the right lengths, so that no packet takes those after it for a part of itself.
        sent = [(sender, (len(data) - 2).to_bytes(2, "big") + data[2:])
                for sender, data in sent if len(data) > 2]
        frames = dissect(write(path, sent))
        assert sum(bool(frame.errors) for frame in frames) > 300

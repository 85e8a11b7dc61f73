"""SoupBinTCP packets: bytes derived by hand from PROTOCOLS 1.2, padding of 1.5, any split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cython_core import soupbin
from cython_core.soupbin import PacketReader, WireError

LOGIN_47 = b"\x00\x2fLMAKER1demo                1                   "
ACCEPTED = b"\x00\x1fA   SESSION                   2"


def test_packets_without_payload_are_three_bytes():
    assert soupbin.SERVER_HEARTBEAT == b"\x00\x01H"
    assert soupbin.CLIENT_HEARTBEAT == b"\x00\x01R"
    assert soupbin.END_OF_SESSION == b"\x00\x01Z"
    assert soupbin.LOGOUT_REQUEST == b"\x00\x01O"


def test_data_and_debug_packets_hold_their_payload():
    assert soupbin.build_sequenced(b"xyz") == b"\x00\x04Sxyz"
    assert soupbin.build_unsequenced(b"xyz") == b"\x00\x04Uxyz"
    assert soupbin.build_debug("hello") == b"\x00\x06+hello"


def test_the_longest_payload_fits_and_one_more_does_not():
    assert soupbin.build_packet("S", bytes(65_534))[:3] == b"\xff\xffS"
    with pytest.raises(WireError):
        soupbin.build_packet("S", bytes(65_535))


def test_a_login_accepted_is_padded_on_the_left():
    assert soupbin.build_login_accepted("SESSION", 2) == ACCEPTED
    assert soupbin.parse_login_accepted(ACCEPTED[3:]) == ("SESSION", 2)


@pytest.mark.parametrize("reason", ["A", "S"])
def test_a_login_reject_gives_its_reason(reason):
    packet = soupbin.build_login_rejected(reason)
    assert packet == b"\x00\x02J" + reason.encode()
    assert soupbin.parse_login_rejected(packet[3:]) == reason


@pytest.mark.parametrize("reason", ["X", "", "AS"])
def test_a_login_reject_has_no_other_reason(reason):
    with pytest.raises(WireError):
        soupbin.build_login_rejected(reason)
    with pytest.raises(WireError):
        soupbin.parse_login_rejected(reason.encode())


def test_a_login_is_built_in_both_lengths():
    short = soupbin.build_login("MAKER1", "demo", sequence=7)
    assert short == b"\x00\x2fLMAKER1demo                " + b"7".rjust(20)
    long = soupbin.build_login("MAKER1", "demo", "ABC", 7, 30_000)
    assert long == b"\x00\x34LMAKER1demo             ABC" + b"7".rjust(20) + b"30000"


def pad_left(text, width):
    return text.rjust(width)


def pad_right(text, width):
    return text.ljust(width)


def pad_nul(text, width):
    return text.ljust(width, b"\0")


def pad_both(text, width):
    return (b" " + text + b"\0").ljust(width)


@pytest.mark.parametrize("pad", [pad_left, pad_right, pad_nul])
@pytest.mark.parametrize("timeout", [None, b"15000"])
def test_a_login_is_read_whatever_its_padding(pad, timeout):
    payload = (pad(b"ABC", 6) + pad(b"secret", 10) + pad(b"S1", 10) + pad(b"12", 20)
               + (timeout or b""))
    assert soupbin.parse_login(payload) == ("ABC", "secret", "S1", 12, timeout and 15_000)


def test_spaces_and_nuls_may_be_mixed():
    payload = pad_both(b"A", 6) + pad_both(b"p", 10) + pad_both(b"", 10) + pad_both(b"3", 20)
    assert soupbin.parse_login(payload) == ("A", "p", "", 3, None)


def test_an_empty_sequence_is_zero_and_an_empty_timeout_is_none():
    payload = b"ABC   " + b"secret    " + b" " * 10 + b" " * 20 + b" " * 5
    assert soupbin.parse_login(payload) == ("ABC", "secret", "", 0, None)


def test_the_login_of_nasdaq_protocols_is_read():
    assert soupbin.parse_login(LOGIN_47[3:]) == ("MAKER1", "demo", "", 1, None)


@pytest.mark.parametrize("payload", [
    b"", bytes(45), bytes(47), bytes(52),
    b"ABC   secret    " + b" " * 10 + b"twelve".ljust(20),
    b"ABC   secret    " + b" " * 10 + b"-1".ljust(20),
    b"ABC   secret    " + b" " * 10 + b"1 2".ljust(20),
    b"ABC   secret    " + b" " * 10 + "²".encode().ljust(20),
    b"ABC   secret    " + b" " * 10 + b"1".ljust(20) + b"soon ",
    b"\xff".ljust(6) + b"secret    " + b" " * 10 + b"1".ljust(20),
])
def test_a_broken_login_is_a_wire_error(payload):
    with pytest.raises(WireError):
        soupbin.parse_login(payload)


@pytest.mark.parametrize("payload", [b"", b"x" * 29, b"SESSION   " + b"2x".rjust(20)])
def test_a_broken_login_accepted_is_a_wire_error(payload):
    with pytest.raises(WireError):
        soupbin.parse_login_accepted(payload)


@pytest.mark.parametrize("fields", [
    ("TOOLONGNAME", "p"), ("A", "a password too long"), ("Ä", "p"), ("A", "p", "a long session"),
    ("A", "p", "", 10**20), ("A", "p", "", -1), ("A", "p", "", 1, 100_000),
])
def test_a_login_that_does_not_fit_is_a_wire_error(fields):
    with pytest.raises(WireError):
        soupbin.build_login(*fields)


SERVER_PACKETS = [("+", b"hi"), ("A", ACCEPTED[3:]), ("J", b"S"), ("S", b"E" * 36), ("U", b"n"),
                  ("H", b""), ("S", b""), ("Z", b"")]
CLIENT_PACKETS = [("+", b""), ("L", LOGIN_47[3:]), ("L", LOGIN_47[3:] + b"15000"),
                  ("U", b"Q"), ("R", b""), ("O", b"")]


@pytest.mark.parametrize(("sender", "packets"),
                         [("server", SERVER_PACKETS), ("client", CLIENT_PACKETS)])
def test_a_reader_gives_every_packet_of_its_side_at_any_split(sender, packets):
    data = b"".join(soupbin.build_packet(kind, payload) for kind, payload in packets)
    for size in range(1, len(data) + 1):
        reader = PacketReader(sender)
        found = [packet for start in range(0, len(data), size)
                 for packet in reader.feed(data[start:start + size])]
        assert found == packets
        assert reader.take_rest() == b""


@pytest.mark.parametrize(("sender", "packet"), [
    ("server", b"\x00\x00"), ("server", b"\x00\x01R"), ("server", b"\x00\x01O"),
    ("server", b"\x00\x2fL"), ("server", b"\x00\x02H"), ("server", b"\x00\x01A"),
    ("server", b"\x00\x01?"), ("client", b"\x00\x01H"), ("client", b"\x00\x02S"),
    ("client", b"\x00\x1fA"), ("client", b"\x00\x30L"), ("client", b"\x00\x02R"),
    ("client", b"\x00\x02O"), ("client", b"\x00\x01Z"),
])
def test_a_packet_that_the_side_cannot_send_is_a_wire_error_after_those_before_it(sender, packet):
    reader = PacketReader(sender)
    found = []
    with pytest.raises(WireError):
        for kind, payload in reader.feed(b"\x00\x03+hi" + packet):
            found.append((kind, payload))
    assert found == [("+", b"hi")]


def test_a_reader_hands_back_what_it_did_not_give_out():
    reader = PacketReader("client")
    assert next(reader.feed(b"\x00\x01R\x00\x02Ux\x00\x05U")) == ("R", b"")
    assert reader.take_rest() == b"\x00\x02Ux\x00\x05U"
    assert list(reader.feed(b"\x00\x01R")) == [("R", b"")]


def test_a_reader_has_to_know_its_side():
    with pytest.raises(ValueError, match="neither"):
        PacketReader("venue")


@given(st.binary(max_size=200), st.sampled_from(["client", "server"]))
def test_any_bytes_give_packets_or_a_wire_error(data, sender):
    reader = PacketReader(sender)
    given_out = b""
    try:
        for kind, payload in reader.feed(data):
            given_out += soupbin.build_packet(kind, payload)
    except WireError:
        pass
    assert data.startswith(given_out)


@given(st.binary(max_size=60))
def test_any_login_payload_is_read_or_a_wire_error(payload):
    try:
        login = soupbin.parse_login(payload)
    except WireError:
        return
    assert login.sequence >= 0

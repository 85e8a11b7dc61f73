"""MoldUDP64 packets: bytes derived by hand from PROTOCOLS 4.1, and any run of messages packed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cython_core import mold, soupbin
from cython_core.event import CommandBatch
from cython_core.mold import MoldHeader, Packer
from cython_core.soupbin import WireError

SESSION = "S000000001"
NUMBERS = st.integers(0, (1 << 64) - 1)
SESSIONS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=10)
MESSAGES = st.lists(st.binary(max_size=90), max_size=60)
CUT_BATCH = pytest.mark.parametrize("mark", [(2, 1), (1, 2)])


def framed(messages):
    return b"".join(soupbin.build_sequenced(message) for message in messages)


# -- bytes by hand ---------------------------------------------------------------------------------

def test_a_packet_is_a_header_and_blocks():
    assert mold.build_packet("S1", 258, [b"xyz", b""]) == (
        b"        S1" b"\0\0\0\0\0\0\x01\x02" b"\x00\x02" b"\x00\x03xyz" b"\x00\x00")


def test_heartbeat_request_and_end_are_headers_alone():
    assert mold.build_heartbeat(SESSION, 7) == b"S000000001" b"\0\0\0\0\0\0\0\x07" b"\0\0"
    assert mold.build_end_of_session(SESSION, 7) == (
        b"S000000001" b"\0\0\0\0\0\0\0\x07" b"\xff\xff")
    assert mold.build_request(SESSION, 7, 300) == (
        b"S000000001" b"\0\0\0\0\0\0\0\x07" b"\x01\x2c")


def test_a_packer_makes_datagrams_of_a_run_of_packets():
    packer = Packer("S1", 5, 20 + 2 * 5)
    assert packer.pack(b"\0\x04Sabc\0\x04Sdef\0\x01S\0\x01Z") == [
        b"        S1" b"\0\0\0\0\0\0\0\x05" b"\0\x02" b"\0\x03abc" b"\0\x03def",
        b"        S1" b"\0\0\0\0\0\0\0\x07" b"\0\x01" b"\0\0",
        b"        S1" b"\0\0\0\0\0\0\0\x08" b"\xff\xff",
    ]
    assert (packer.next_number, packer.ended) == (8, True)


def test_the_first_byte_tells_the_framings_apart():
    assert mold.is_mold(mold.build_heartbeat("", 1))
    assert not mold.is_mold(soupbin.build_login("MAKER1", "demo"))
    assert not mold.is_mold(soupbin.build_debug("x" * 8_000))
    assert not mold.is_mold(b"")


# -- what was built can be read --------------------------------------------------------------------

@given(SESSIONS, NUMBERS, MESSAGES)
def test_a_packet_is_read_as_it_was_built(session, number, messages):
    packet = mold.build_packet(session, number, messages)
    assert mold.parse_packet(packet) == ((session, number, len(messages)), messages)
    assert mold.parse_packet(memoryview(packet))[0] == mold.parse_header(packet)


@given(SESSIONS, NUMBERS, st.integers(1, 0xFFFE))
def test_headers_are_read_as_they_were_built(session, number, count):
    assert mold.parse_header(mold.build_request(session, number, count)) == MoldHeader(
        session, number, count)
    assert mold.parse_packet(mold.build_heartbeat(session, number)) == ((session, number, 0), [])
    assert mold.parse_packet(mold.build_end_of_session(session, number)) == (
        (session, number, mold.END_OF_SESSION_COUNT), [])


@given(st.integers(1, 1 << 62), MESSAGES, st.integers(112, 1_400), st.booleans(), st.data())
def test_packed_datagrams_hold_every_message_once(number, messages, limit, ends, data):
    """In order, numbered on, none too large, and none that had room for one more."""
    packer = Packer(SESSION, number, limit)
    cut = data.draw(st.integers(0, len(messages)))
    datagrams = packer.pack(framed(messages[:cut])) + packer.pack(
        bytearray(framed(messages[cut:]) + soupbin.END_OF_SESSION * ends))
    found, expected = [], number
    for index, datagram in enumerate(datagrams):
        header, carried = mold.parse_packet(datagram)
        assert (header.session, header.sequence) == (SESSION, expected)
        assert len(datagram) <= limit
        assert (header.count == mold.END_OF_SESSION_COUNT) == (ends and datagram is datagrams[-1])
        found += carried
        expected += len(carried)
        after = messages[len(found):len(found) + 1]
        if index < len(datagrams) - 1 and after and len(found) != cut:
            assert len(datagram) + 2 + len(after[0]) > limit
    assert found == messages
    assert (packer.next_number, packer.ended) == (number + len(messages), ends)


def test_nothing_packs_into_nothing():
    assert Packer(SESSION, 1, 100).pack(b"") == []


# -- what is refused -------------------------------------------------------------------------------

@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(data):
    try:
        header, messages = mold.parse_packet(data)
    except WireError:
        return
    assert header.count in (len(messages), mold.END_OF_SESSION_COUNT)
    assert len(data) == 20 + sum(2 + len(message) for message in messages)


@given(MESSAGES.filter(bool), st.data())
def test_a_cut_or_lengthened_packet_is_refused(messages, data):
    packet = mold.build_packet(SESSION, 1, messages)
    size = data.draw(st.integers(0, len(packet) - 1))
    for broken in (packet[:size], packet + b"\0"):
        with pytest.raises(WireError):
            mold.parse_packet(broken)


@pytest.mark.parametrize("packet", [
    mold.build_heartbeat(SESSION, 1) + b"\0\0", mold.build_end_of_session(SESSION, 1) + b"\0\0",
    b"S00000001\n" + bytes(10), b"S00000001\xe9" + bytes(10), b"S00000001\0" + bytes(10),
])
def test_headers_with_more_or_a_strange_session_are_refused(packet):
    with pytest.raises(WireError):
        mold.parse_packet(packet)


@pytest.mark.parametrize(("session", "number"), [
    ("S0000000001", 1), ("S\n", 1), ("S\u00e9", 1), (SESSION, -1), (SESSION, 1 << 64)])
def test_values_that_do_not_fit_are_refused(session, number):
    for build in (lambda: mold.build_heartbeat(session, number),
                  lambda: mold.build_packet(session, number, [b"x"]),
                  lambda: Packer(session, number, 1_400)):
        with pytest.raises(WireError):
            build()


def test_packets_beyond_a_datagram_are_refused():
    assert len(mold.build_packet(SESSION, 1, [bytes(65_485)])) == mold.DATAGRAM_BYTES_MAX
    with pytest.raises(WireError):
        mold.build_packet(SESSION, 1, [bytes(65_486)])
    for count in (0, 0xFFFF, -1):
        with pytest.raises(WireError):
            mold.build_request(SESSION, 1, count)
    for limit in (22, 65_508):
        with pytest.raises(WireError):
            Packer(SESSION, 1, limit)


@pytest.mark.parametrize("broken", [
    b"\0", b"\0\x01", b"\0\x00S", b"\0\x05Sabc", b"\0\x01H", b"\0\x02Z!", b"\0\x02Uabc",
    soupbin.END_OF_SESSION * 2, soupbin.END_OF_SESSION + framed([b"x"]), framed([bytes(79)]),
])
def test_a_packer_takes_all_or_nothing(broken):
    packer = Packer(SESSION, 5, 100)
    with pytest.raises(WireError):
        packer.pack(framed([bytes(40), bytes(40), b"x"]) + broken)
    assert (packer.next_number, packer.ended) == (5, False)
    assert packer.pack(framed([bytes(78)]))[0][:20] == struct.pack("!10sQH", SESSION.encode(), 5, 1)


# -- a datagram's commands, all or none ------------------------------------------------------------

def test_a_batch_goes_back_to_a_mark():
    batch = CommandBatch()
    batch.enter(7, 1, 1, "B", 10, 1_000)
    before, mark = bytes(batch), batch.mark()
    batch.replace(7, 1, 2, 10, 1_000)
    batch.cancel(7, 1)
    batch.undo(mark)
    assert (bytes(batch), batch.command_count, batch.mark()) == (before, 1, mark)
    batch.cancel(7, 1)
    assert [command["kind"] for command in batch.dicts()] == ["cmd_enter", "cmd_cancel"]


@CUT_BATCH
def test_a_batch_does_not_go_beyond_its_end_or_under_a_view(mark):
    batch = CommandBatch()
    batch.cancel(7, 1)
    with pytest.raises(ValueError, match="ends before"):
        batch.undo(mark)
    with memoryview(batch), pytest.raises(BufferError):
        batch.undo((0, 0))
    assert batch.command_count == 1

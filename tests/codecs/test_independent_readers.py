"""What programs of others read: tshark's dissector and the codec of nasdaq-protocols."""

import re
import shutil
import subprocess

import event_units as units
import pytest
from capture import Capture, Datagrams
from nasdaq_protocols import soup

from cython_core import mold, ouch, soupbin, stream
from cython_core.event import EventBatch
from cython_core.model import Kind

PORT = 9_001
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None,
                                  reason="tshark is not installed")

# Packet types as the dissector of tshark names them.
NAMES = {"+": "Debug Packet", "A": "Login Accepted", "J": "Login Rejected",
         "S": "Sequenced Data", "H": "Server Heartbeat", "Z": "End of Session",
         "L": "Login Request", "U": "Unsequenced Data", "R": "Client Heartbeat",
         "O": "Logout Request"}


def tshark(path, *arguments, reads="tcp.port==9001,soupbintcp"):
    command = ["tshark", "-r", str(path), "-d", reads,
               "--disable-protocol", "ouch", "-o", "tcp.check_checksum:TRUE",
               "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def live_packets():
    """The framed messages of a few events, as reports would send them."""
    names = stream.WireNames()
    names.define(units.SYMBOL_ID, "BTC-USDT")
    streams = stream.Streams(names)
    streams.set_live(7, True)
    events = [units.order(Kind.ACCEPTED, index=3), units.fill(maker=7), units.canceled(),
              units.rejected(0x17), units.modified(), units.action(Kind.MASS_CANCELED),
              units.order(Kind.REPLACED, extensions=[units.replace_unit()]),
              units.session_started()]
    streams.route(EventBatch.from_bytes(b"".join(events), 1))
    return streams.take(7)


def conversation():
    """[(sender, bytes)] of a session with every packet type."""
    enter = ouch.encode_enter(1, "B", 100, "BTC-USDT", 675_000_000)
    return [
        ("client", soupbin.build_debug("hello")),
        ("client", soupbin.build_login("MAKER1", "demo", sequence=1)),
        ("server", soupbin.build_login_accepted("S000000001", 1)),
        ("client", enter + ouch.encode_replace(1, 2, 50, 7) + ouch.encode_cancel(2)),
        ("client", soupbin.CLIENT_HEARTBEAT),
        ("server", soupbin.SERVER_HEARTBEAT + soupbin.build_debug("slow")),
        ("server", soupbin.build_unsequenced(b"note")),
        ("server", live_packets()),
        ("client", soupbin.build_login("MAKER1", "demo", "S000000001", 12, 30_000)),
        ("server", soupbin.build_login_rejected("S")),
        ("client", enter * 100),
        ("client", soupbin.LOGOUT_REQUEST),
    ]


def packet_names():
    """The types of all packets of the conversation, in order, as tshark names them."""
    return [NAMES[kind] for sender, data in conversation()
            for kind, _ in soupbin.PacketReader(sender).feed(data)]


@needs_tshark
def test_tshark_reads_every_packet_of_a_capture(tmp_path):
    capture = Capture(PORT)
    for sender, data in conversation():
        capture.send(sender, data)
    capture.write(tmp_path / "session.pcap")
    text = tshark(tmp_path / "session.pcap", "-V")
    found = [line.split("Packet Type: ")[1].split(" (")[0] for line in text.splitlines()
             if "Packet Type: " in line]
    assert found == packet_names()
    for complaint in ("Malformed", "Bad checksum", "incorrect", "Expert Info (Warning",
                      "Expert Info (Error"):
        assert complaint not in text, complaint
    assert "Next sequence number: 1" in text
    assert "Session: S000000001" in text


@needs_tshark
def test_tshark_joins_packets_that_segments_cut(tmp_path):
    capture = Capture(PORT)
    for sender, data in conversation():
        for start in range(0, len(data), 7):
            capture.send(sender, data[start:start + 7])
    capture.write(tmp_path / "cut.pcap")
    text = tshark(tmp_path / "cut.pcap", "-V")
    found = [line.split("Packet Type: ")[1].split(" (")[0] for line in text.splitlines()
             if "Packet Type: " in line]
    assert found == packet_names()
    assert "Malformed" not in text


@needs_tshark
def test_tshark_numbers_the_sequenced_messages_and_finds_ours_in_them(tmp_path):
    capture = Capture(PORT)
    for sender, data in conversation():
        capture.send(sender, data)
    capture.write(tmp_path / "session.pcap")

    fields = tshark(tmp_path / "session.pcap", "-T", "fields", "-e", "soupbintcp.message")
    found = [message for line in fields.split() for message in line.split(",")]
    text = tshark(tmp_path / "session.pcap", "-V")
    numbers = [int(number) for number in re.findall(r"Sequence number: (\d+) \(Calc", text)]
    carried = [(kind, payload) for sender, data in conversation()
               for kind, payload in soupbin.PacketReader(sender).feed(data) if kind in "SU"]
    sequenced = [kind for kind, _ in carried].count("S")
    assert found == [payload.hex() for _, payload in carried]
    assert numbers == list(range(1, sequenced + 1))


# -- MoldUDP64 by tshark --------------------------------------------------------------------------

# What tshark calls the fields of a message block and of both headers.
MOLD_FIELDS = ("session", "sequence", "count", "msgseq", "msglen", "msgdata")


def mold_rows(datagrams, path):
    """The fields of each datagram, as tshark reads them: [[values of one field] ...]."""
    capture = Datagrams(PORT)
    for sender, data in datagrams:
        capture.send(sender, data)
    capture.write(path)
    reads = f"udp.port=={PORT},moldudp64"
    fields = [part for name in MOLD_FIELDS for part in ("-e", f"moldudp64.{name}")]
    text = tshark(path, "-T", "fields", *fields, reads=reads)
    text_of_all = tshark(path, "-V", reads=reads)
    assert not re.search(r"alformed|Invalid Message|End Of Session packet with", text_of_all)
    return [[value.split(",") if value else [] for value in line.split("\t")]
            for line in text.splitlines()]


@needs_tshark
def test_tshark_reads_the_messages_of_packed_datagrams(tmp_path):
    framed = live_packets()
    messages = [payload for kind, payload in soupbin.PacketReader("server").feed(framed)
                if kind == "S"]
    datagrams = mold.Packer("S000000001", 7, 200).pack(framed)
    rows = mold_rows([("server", data) for data in datagrams], tmp_path / "down.pcap")

    assert len(datagrams) > 1
    assert len(rows) == len(datagrams)
    assert {row[0][0] for row in rows} == {"S000000001"}
    found = [(int(number), int(size), data) for row in rows
             for number, size, data in zip(row[3], row[4], row[5], strict=True)]
    assert found == [(7 + index, len(message), message.hex())
                     for index, message in enumerate(messages)]
    # What routed the session's start ended with End of Session.
    assert [int(row[2][0]) for row in rows] == [len(row[5]) for row in rows[:-1]] + [0xFFFF]
    assert int(rows[-1][1][0]) == 7 + len(messages)


@needs_tshark
def test_tshark_reads_heartbeat_request_and_end_of_session(tmp_path):
    rows = mold_rows([
        ("server", mold.build_heartbeat("S1", 1)),
        ("client", mold.build_request("S1", (1 << 64) - 1, 300)),
        ("server", mold.build_end_of_session("S1", 1 << 40)),
        ("server", mold.build_packet("S1", 9, [b"", b"abc"])),
    ], tmp_path / "control.pcap")

    assert [(row[0][0].strip(), int(row[1][0]), int(row[2][0], 0)) for row in rows] == [
        ("S1", 1, 0), ("S1", (1 << 64) - 1, 300), ("S1", 1 << 40, 0xFFFF), ("S1", 9, 2)]
    assert [row[4] for row in rows] == [[], [], [], ["0", "3"]]


# -- nasdaq-protocols ------------------------------------------------------------------------------

PACKETS = [
    (soup.LoginRequest("MAKER1", "demo", "", "1"), None),
    (soup.LoginAccepted("SESSION", 42), None),
    (soup.LoginRejected("A"), soupbin.build_login_rejected("A")),
    (soup.LoginRejected("S"), soupbin.build_login_rejected("S")),
    (soup.SequencedData(b"E" * 36), soupbin.build_sequenced(b"E" * 36)),
    (soup.UnSequencedData(b"Q"), soupbin.build_unsequenced(b"Q")),
    (soup.Debug("hello"), soupbin.build_debug("hello")),
    (soup.ClientHeartbeat(), soupbin.CLIENT_HEARTBEAT),
    (soup.ServerHeartbeat(), soupbin.SERVER_HEARTBEAT),
    (soup.EndOfSession(), soupbin.END_OF_SESSION),
    (soup.LogoutRequest(), soupbin.LOGOUT_REQUEST),
]


@pytest.mark.parametrize(("theirs", "ours"), PACKETS)
def test_packets_agree_with_nasdaq_protocols(theirs, ours):
    _, data = theirs.to_bytes()
    if ours is not None:
        assert data == ours
    sender = "server" if type(theirs).Indicator in "AJSHZ" else "client"
    [(kind, payload)] = soupbin.PacketReader(sender).feed(data)
    assert kind == type(theirs).Indicator
    assert data[3:] == payload


def test_we_read_their_login_and_they_read_ours():
    _, data = soup.LoginRequest("MAKER1", "demo", "SESSION", "17").to_bytes()
    assert soupbin.parse_login(data[3:]) == ("MAKER1", "demo", "SESSION", 17, None)
    _, login = soup.SoupMessage.from_bytes(soupbin.build_login("MAKER1", "demo", "SESSION", 17))
    assert login == soup.LoginRequest("MAKER1", "demo", "SESSION", "17")


def test_we_read_their_accepted_and_they_read_ours():
    _, data = soup.LoginAccepted("SESSION", 17).to_bytes()
    assert soupbin.parse_login_accepted(data[3:]) == ("SESSION", 17)
    _, accepted = soup.SoupMessage.from_bytes(soupbin.build_login_accepted("SESSION", 17))
    assert accepted == soup.LoginAccepted("SESSION", 17)


@pytest.mark.parametrize("data", [
    soupbin.build_login_rejected("A"), soupbin.build_login_rejected("S"),
    soupbin.build_sequenced(b"message"), soupbin.build_unsequenced(b""),
    soupbin.build_debug("text"), soupbin.CLIENT_HEARTBEAT, soupbin.SERVER_HEARTBEAT,
    soupbin.END_OF_SESSION, soupbin.LOGOUT_REQUEST,
])
def test_nasdaq_protocols_reads_our_packets(data):
    length, packet = soup.SoupMessage.from_bytes(data)
    assert length == len(data)
    assert packet.to_bytes()[1] == data

"""Captures of sessions with the real daemon, over TCP and UDP, read by the dissector, by tshark's
own dissectors of the two framings, and by our codecs: all three see the same messages."""

import re
import socket
import time

import pytest
from dissection import SHAPES, columns, dissect, messages_of, needs_dissector, tshark, write

from cython_core import mold, ouch, soupbin

pytestmark = needs_dissector
WAIT_S = 60.0
ORDER = {"symbol": "AAPL", "price_units": 1_800_000, "time_in_force": "0", "display": "Y",
         "capacity": "P", "iso": "N", "cross_type": "N", "client_order": "live"}


class Recorder:
    """A client that keeps every byte of both directions in the order it saw them."""

    def __init__(self, transport, daemon):
        self.datagrams = transport == "udp"
        kind = socket.SOCK_DGRAM if self.datagrams else socket.SOCK_STREAM
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.settimeout(0.2)
        self.socket.connect(("127.0.0.1", daemon.udp_port if self.datagrams else daemon.port))
        self.wire = []
        self.numbers = 0
        self._reader = soupbin.PacketReader("server")
        self._waiting = []

    def send(self, *packets):
        """Send packets in one piece."""
        self.wire.append(("client", b"".join(packets)))
        self.socket.send(b"".join(packets))

    def order(self, letter, options=None, **fields):
        """One framed request."""
        return soupbin.build_unsequenced(ouch.encode_inbound(letter, options, **fields))

    def expect(self, kinds):
        """Wait for packets of these types; sequenced messages count as the letter of theirs in
        lower case, heartbeats only when they are asked for."""
        found = ""
        deadline_s = time.monotonic() + WAIT_S
        while len(found) < len(kinds):
            assert time.monotonic() < deadline_s, f"{found!r} in place of {kinds!r}"
            if not self._waiting:
                self._read()
                continue
            kind = self._waiting.pop(0)
            if kind != "H" or kinds[len(found)] == "H":
                found += kind
        assert found == kinds

    def _read(self):
        try:
            data = self.socket.recv(65_536)
        except TimeoutError:
            return
        assert data, "closed"
        self.wire.append(("server", data))
        if not self.datagrams or not mold.is_mold(data):
            self._waiting += [payload[:1].decode().lower() if kind == "S" else kind
                              for kind, payload in self._reader.feed(data)]
            return
        header, messages = mold.parse_packet(data)
        self._waiting += [message[:1].decode().lower() for message in messages]
        self._waiting += {0: "H", 0xFFFF: "Z"}.get(header.count, "")


def trade(maker, taker):
    """A session with most of what there is to say; returns the maker's and the taker's bytes."""
    for client, name in ((maker, "MAKER1"), (taker, "TAKER1")):
        client.send(soupbin.build_login(name, "demo"))
        client.expect("A")
    entry = {**ORDER, "quantity_lots": 100}
    maker.send(maker.order("O", user_ref_num=1, side="S", **entry),
               maker.order("O", {"post_only": "P", "user_ref_idx": 3, "group_id": 9},
                           user_ref_num=1, side="S", **entry),
               maker.order("Q"), maker.order("Q", {"user_ref_idx": 3}))
    maker.expect("aaqq")
    taker.send(taker.order("O", user_ref_num=1, side="B",
                           **{**entry, "time_in_force": "3", "quantity_lots": 140}))
    taker.expect("aee")
    maker.expect("ee")
    maker.send(maker.order("U", orig_user_ref_num=1, user_ref_num=2, quantity_lots=50,
                           price_units=1_790_000, time_in_force="0", display="Y", iso="N",
                           client_order="gone"))
    maker.send(maker.order("M", {"user_ref_idx": 3}, user_ref_num=1, side="S", quantity_lots=90))
    maker.expect("m")
    maker.send(maker.order("O", user_ref_num=2, side="S", **{**entry, "symbol": "NOSUCH"}),
               maker.order("O", user_ref_num=3, side="S", **entry),
               maker.order("U", orig_user_ref_num=3, user_ref_num=4, quantity_lots=80,
                           price_units=1_810_000, time_in_force="0", display="Y", iso="N",
                           client_order="mine"),
               maker.order("X", user_ref_num=4, quantity_lots=20))
    maker.expect("jauc")
    maker.send(maker.order("C", {"user_ref_idx": 3}, user_ref_num=3, firm="", symbol=""),
               maker.order("D", user_ref_num=5, firm=""),
               maker.order("E", user_ref_num=6, firm=""))
    maker.expect("xccgk")


def inside(transport, wire):
    """[(direction, message)] that our codecs find in what was recorded."""
    found = []
    readers = {name: soupbin.PacketReader(name) for name in ("client", "server")}
    for sender, data in wire:
        direction = "in" if sender == "client" else "out"
        if transport == "udp" and mold.is_mold(data):
            if sender == "server":
                found += [(direction, message) for message in mold.parse_packet(data)[1]]
            continue
        found += [(direction, payload) for kind, payload in readers[sender].feed(data)
                  if kind in "SU"]
    return found


@pytest.fixture(params=["tcp", "udp"])
def session(request, daemon):
    """(transport, daemon, the maker's client, the taker's) after some trading."""
    maker, taker = Recorder(request.param, daemon), Recorder(request.param, daemon)
    trade(maker, taker)
    yield request.param, daemon, maker, taker
    maker.socket.close()
    taker.socket.close()


def test_a_live_session_is_read_message_by_message(session, tmp_path):
    transport, daemon, maker, taker = session
    if transport == "udp":
        [header] = {mold.parse_header(data).session for sender, data in maker.wire
                    if sender == "server" and mold.is_mold(data)}
        maker.send(mold.build_request(header, 2, 3))
        maker.expect("aqq")
    maker.expect("H")
    rolled = daemon.run("session", "roll")
    assert rolled.returncode == 0, rolled.stderr
    maker.expect("Z")
    taker.send(soupbin.LOGOUT_REQUEST)

    for client in (maker, taker):
        path = write(tmp_path / f"{transport}.pcap", client.wire)
        wanted = inside(transport, client.wire)
        found = messages_of(dissect(path))
        assert [(message.direction, message.decoded) for message in found] == [
            (direction, ouch.decode(direction, message)) for direction, message in wanted]
        assert not [message.errors + message.notes for message in found
                    if message.errors + message.notes]
        assert not tshark(path, "-Y", "matchd.malformed || _ws.malformed")
    assert {message.decoded["type"] for message in found} >= set("OAE")
    assert {row[0] for row in columns(path)} <= {"MATCHD", "TCP"}


def test_tsharks_own_dissectors_see_the_same_session(session, tmp_path):
    transport, _, maker, _ = session
    path = write(tmp_path / f"{transport}.pcap", maker.wire)
    wanted = [message.hex() for direction, message in inside(transport, maker.wire)
              if transport == "tcp" or direction == "out"]
    if transport == "tcp":
        read, field = "tcp.port==9001,soupbintcp", "soupbintcp.message"
    else:
        read, field = "udp.port==9002,moldudp64", "moldudp64.msgdata"
        # It takes what is no MoldUDP64 for it, too.
        path = write(path, [(sender, data) for sender, data in maker.wire if mold.is_mold(data)])
    others = ("-d", read, "--disable-protocol", "ouch")
    text = tshark(path, *others, "-T", "fields", "-e", field, script=False)
    assert re.findall(r"[0-9a-f]{2,}", text) == wanted
    assert not tshark(path, *others, "-Y", "_ws.malformed", script=False)


def test_the_session_had_what_it_promises(session):
    transport, _, maker, taker = session
    seen = {(direction, message[:1].decode())
            for client in (maker, taker) for direction, message in inside(transport, client.wire)}
    assert seen == {("in", letter) for letter in SHAPES["in"]} | {
        ("out", letter) for letter in "AUCEJMXGKQ"}

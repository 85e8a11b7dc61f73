"""The bytes of docs/udp.md are what our codecs write, and what a running venue takes and says."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import pytest

from cython_core import mold, soupbin
from cython_core.ouch import decode, encode_inbound, encode_outbound
from tests.support.daemon import ROOT, Daemon

PAGE = ROOT / "docs" / "udp.md"
SESSION = "K7Q24X9TB0"
NINE_THIRTY_NS = 34_200_000_000_000
LATER_NS = NINE_THIRTY_NS + 10**9
WAIT_S = 60.0

ORDER = {"side": "B", "symbol": "AAPL", "time_in_force": "0", "display": "Y", "capacity": "P",
         "iso": "N", "cross_type": "N"}
FIRST = ORDER | {"user_ref_num": 1, "quantity_lots": 100, "price_units": 1_800_000,
                 "client_order": "CL-1"}
SECOND = ORDER | {"user_ref_num": 2, "quantity_lots": 50, "price_units": 1_790_000,
                  "client_order": "CL-2"}
POST_ONLY, FENCE = {"post_only": "P"}, {"user_ref_idx": 200}
ACCEPTED = {"timestamp_ns": NINE_THIRTY_NS, "order_state": "L"}
CANCELED = {"timestamp_ns": LATER_NS, "user_ref_num": 1, "quantity_lots": 100, "reason": "U"}


def requests(*messages: bytes) -> bytes:
    """A datagram of a client."""
    return b"".join(map(soupbin.build_unsequenced, messages))


def written() -> dict[str, bytes]:
    """Every example of the page by its name, as our codecs write it."""
    return {
        "login (client)": soupbin.build_login("MAKER1", "demo"),
        "accepted (venue)": soupbin.build_login_accepted(SESSION, 1),
        "refused (venue)": soupbin.build_login_rejected("A"),
        "orders (client)": requests(encode_inbound("O", **FIRST),
                                    encode_inbound("O", POST_ONLY, **SECOND)),
        "responses (venue)": mold.build_packet(SESSION, 1, [
            encode_outbound("A", order_id=14, **ACCEPTED | FIRST),
            encode_outbound("A", POST_ONLY, order_id=15, **ACCEPTED | SECOND)]),
        "cancel (client)": requests(encode_inbound("X", user_ref_num=1, quantity_lots=0),
                                    encode_inbound("Q", FENCE)),
        "canceled (venue)": mold.build_packet(SESSION, 3, [
            encode_outbound("C", **CANCELED),
            encode_outbound("Q", FENCE, timestamp_ns=LATER_NS, next_user_ref_num=1)]),
        "heartbeat (venue)": mold.build_heartbeat(SESSION, 5),
        "alive (client)": soupbin.CLIENT_HEARTBEAT,
        "request (client)": mold.build_request(SESSION, 1, 2),
        "debug (venue)": soupbin.build_debug("datagram dropped: unknown packet type 0x3F"),
        "end (venue)": mold.build_end_of_session(SESSION, 6),
        "logout (client)": soupbin.LOGOUT_REQUEST,
    }


def examples() -> dict[str, bytes]:
    """Every example of the page: the bytes before the comments."""
    found = {}
    for block in re.findall(r"^```hex\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M):
        name, *lines = block.splitlines()
        assert name not in found
        found[name] = bytes.fromhex("".join(line.split("  ")[0] for line in lines))
    return found


def test_the_examples_of_the_page_are_what_our_codecs_write() -> None:
    found = examples()
    assert list(found) == list(written())
    for name, data in written().items():
        assert found[name].hex() == data.hex(), name


class Client:
    """A socket that sends what the page says, for the session that runs."""

    def __init__(self, daemon: Daemon) -> None:
        self.page = examples()
        self.session = ""
        self.messages: dict[int, bytes] = {}
        self.heartbeats: list[int] = []
        self.ends: list[int] = []
        self.packets: list[bytes] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(0.1)
        self.socket.connect(("127.0.0.1", daemon.udp_port))

    def send(self, name: str) -> None:
        """Send an example, with the session's own name in it."""
        data = self.page[f"{name} (client)"]
        self.socket.send(data.replace(SESSION.encode(), self.session.rjust(10).encode()))

    def wait(self, what: str, there: Any) -> None:
        """Read until it is there."""
        deadline_s = time.monotonic() + WAIT_S
        while not there():
            assert time.monotonic() < deadline_s, f"no {what}"
            self.read()

    def read(self) -> None:
        """Take one datagram, if one comes."""
        try:
            data = self.socket.recv(65_536)
        except TimeoutError:
            return
        if not mold.is_mold(data):
            self.packets.append(data)
            return
        header, messages = mold.parse_packet(data)
        assert header.session == self.session
        self.messages |= dict(enumerate(messages, header.sequence))
        if header.count == 0:
            self.heartbeats.append(header.sequence)
        elif header.count == mold.END_OF_SESSION_COUNT:
            self.ends.append(header.sequence)

    def answer(self) -> bytes:
        """The next SoupBinTCP packet."""
        self.wait("answer", lambda: self.packets)
        return self.packets.pop(0)

    def same_as(self, name: str) -> None:
        """Wait for the messages of an example, and compare what a venue does not choose."""
        header, messages = mold.parse_packet(self.page[f"{name} (venue)"])
        numbers = range(header.sequence, header.sequence + header.count)
        self.wait(name, lambda: self.messages.keys() >= set(numbers))
        for number, message in zip(numbers, messages, strict=True):
            assert len(self.messages[number]) == len(message)
            assert told(self.messages[number]) == told(message)


def told(message: bytes) -> dict[str, Any]:
    """What a message says, without its time and the reference that the venue gave."""
    return decode("out", message) | {"timestamp_ns": 0, "order_id": 0}


@pytest.fixture
def client(daemon: Daemon) -> Any:
    client = Client(daemon)
    yield client
    client.socket.close()


def test_a_running_venue_takes_and_says_what_the_page_shows(daemon: Daemon,
                                                            client: Client) -> None:
    login = client.page["login (client)"]
    client.socket.send(login.replace(b"demo", b"nope"))
    assert client.answer() == client.page["refused (venue)"]

    client.send("login")
    accepted = client.answer()
    client.session = soupbin.parse_login_accepted(accepted[3:]).session
    assert accepted.replace(client.session.rjust(10).encode(), SESSION.encode()) == (
        client.page["accepted (venue)"])

    client.send("orders")
    client.same_as("responses")
    client.send("cancel")
    client.same_as("canceled")
    client.send("orders")
    client.send("alive")
    number = mold.parse_header(client.page["heartbeat (venue)"]).sequence
    client.wait("heartbeat", lambda: number in client.heartbeats)

    client.messages.clear()
    client.send("request")
    client.same_as("responses")
    client.socket.send(b"\0\1?")
    assert client.answer() == client.page["debug (venue)"]

    rolled = daemon.run("session", "roll")
    assert rolled.returncode == 0, rolled.stderr
    number = mold.parse_header(client.page["end (venue)"]).sequence
    client.wait("end", lambda: client.ends)
    assert client.ends == [number]
    assert client.messages.keys() == {1, 2, number - 1}


def test_a_logout_ends_the_session_without_a_word(client: Client) -> None:
    client.send("login")
    client.answer()
    client.send("logout")
    client.send("orders")
    deadline_s = time.monotonic() + 0.5
    while time.monotonic() < deadline_s:
        client.read()
    assert not client.packets and not client.messages

"""An order entry client over UDP in plain Python, written from the published rules alone.

It imports nothing of the venue: what it reads and sends is a second opinion on PROTOCOLS 2 and
3.2. `Reference` is the protocol without a socket, a clock or a thread: the caller gives it the
datagrams that came and the time, and sends what it asks for. `Driver` runs several of them over
real sockets.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MOLD = struct.Struct("!10sQH")
MOLD_FROM = 0x20
END_OF_SESSION = 0xFFFF
DATAGRAM_BYTES = 1_400
WINDOW = 1_024
HEARTBEAT = b"\0\1R"
LOGOUT = b"\0\1O"

ENTER = struct.Struct("!cIcI8sQccccc14sH")
REPLACE = struct.Struct("!cIIIQccc14sH")
CANCEL = struct.Struct("!cII")
# Where the length of the optional appendage stands in each outbound message (PROTOCOLS 2.4).
APPENDAGE_AT = {"A": 62, "U": 66, "C": 18, "D": 32, "E": 34, "B": 36, "J": 29, "P": 13, "I": 13,
                "T": 30, "M": 18, "R": 14, "X": 25, "G": 17, "K": 17, "Q": 13}
TAG_CHANNEL = 28
# These channels carry no orders: two account queries on them, one of each range, mark the end of a
# datagram whose requests the venue may ignore. The pairs are many, and few are out at once, so
# that the late repeat of an old datagram cannot pass for a newer one.
FENCE_FIRST, FENCE_SECOND = range(128, 192), range(192, 256)
FENCES = len(FENCE_FIRST) * len(FENCE_SECOND)
FENCES_OUT = 32
# A message that waits for one before it; more is dropped and asked for again.
EARLY_MAX = 65_536
# So many gaps are asked for at once.
GAPS_MAX = 8


class Malformed(ValueError):
    """A datagram that is not what PROTOCOLS 3.2 allows the venue to send."""


class Downstream(NamedTuple):
    """A MoldUDP64 packet. `count` 0 is a heartbeat, 0xFFFF the end of the session."""

    session: str
    sequence: int
    count: int
    messages: list[bytes]


class Told(NamedTuple):
    """What any outbound message says first. `original` is 0 except in Replaced."""

    letter: str
    number: int
    channel: int
    original: int


# -- datagrams ---------------------------------------------------------------------------------

def soup(kind: bytes, payload: bytes = b"") -> bytes:
    """A SoupBinTCP packet."""
    return struct.pack("!Hc", 1 + len(payload), kind) + payload


def login(username: str, password: str, session: str = "", sequence: int = 1,
          timeout_ms: int | None = None) -> bytes:
    """A login request: 49 bytes, 54 with the time-out of 4.10."""
    fields = f"{username:6}{password:10}{session:>10}{sequence:>20}"
    return soup(b"L", (fields + ("" if timeout_ms is None else f"{timeout_ms:5}")).encode())


def unsequenced(message: bytes) -> bytes:
    """One OUCH message as a client sends it."""
    return soup(b"U", message)


def request(session: str, first_number: int, count: int) -> bytes:
    """A MoldUDP64 request packet."""
    return MOLD.pack(session.rjust(10).encode(), first_number, count)


def parse_soup(data: bytes) -> list[tuple[str, bytes]]:
    """The packets of a datagram that SoupBinTCP packets fill exactly."""
    found, place = [], 0
    while place < len(data):
        if len(data) - place < 3:
            raise Malformed("a packet is cut")
        length, kind = struct.unpack_from("!Hc", data, place)
        if length < 1 or place + 2 + length > len(data):
            raise Malformed("a packet is cut")
        if kind not in b"AJ+":
            raise Malformed(f"packet type {kind!r} does not come from a server by UDP")
        found.append((kind.decode(), data[place + 3:place + 2 + length]))
        place += 2 + length
    if not found:
        raise Malformed("an empty datagram")
    return found


def parse_mold(data: bytes) -> Downstream:
    """A downstream packet."""
    if len(data) < MOLD.size:
        raise Malformed("shorter than its header")
    name, sequence, count = MOLD.unpack_from(data)
    if not name.isascii() or not name.decode().isprintable():
        raise Malformed("the session is no text")
    messages, place = [], MOLD.size
    for _ in range(0 if count == END_OF_SESSION else count):
        if len(data) - place < 2:
            raise Malformed("a block is cut")
        length = int.from_bytes(data[place:place + 2], "big")
        messages.append(data[place + 2:place + 2 + length])
        place += 2 + length
    if place != len(data):
        raise Malformed("the blocks do not fill the packet")
    return Downstream(name.decode(), sequence, count, messages)


# -- messages ----------------------------------------------------------------------------------

def _tags(channel: int) -> bytes:
    return bytes((2, TAG_CHANNEL, channel)) if channel else b""


def enter(number: int, side: str, quantity: int, price: int, symbol: str = "AAPL",
          tif: str = "0", client_order: str = "", channel: int = 0) -> bytes:
    """An Enter Order."""
    tags = _tags(channel)
    return ENTER.pack(b"O", number, side.encode(), quantity, symbol.encode().ljust(8), price,
                      tif.encode(), b"Y", b"P", b"N", b"N", client_order.encode().ljust(14),
                      len(tags)) + tags


def replace(original: int, number: int, quantity: int, price: int, tif: str = "0",
            channel: int = 0) -> bytes:
    """A Replace Order Request."""
    tags = _tags(channel)
    return REPLACE.pack(b"U", original, number, quantity, price, tif.encode(), b"Y", b"N",
                        b" " * 14, len(tags)) + tags


def cancel(number: int, quantity: int = 0, channel: int = 0) -> bytes:
    """A Cancel Order Request; `quantity` is the size that is intended."""
    tags = _tags(channel)
    return CANCEL.pack(b"X", number, quantity) + (
        struct.pack("!H", len(tags)) + tags if tags else b"")


def query(channel: int = 0) -> bytes:
    """An Account Query Request."""
    tags = _tags(channel)
    return b"Q" + (struct.pack("!H", len(tags)) + tags if tags else b"")


def told(message: bytes) -> Told:
    """The letter, the number and the channel of an outbound message."""
    letter = chr(message[0])
    if letter == "S":
        return Told("S", 0, 0, 0)
    if letter not in APPENDAGE_AT:
        raise Malformed(f"no outbound message begins with {letter!r}")
    first, second = struct.unpack_from("!II", message, 9) if letter == "U" else (
        0, int.from_bytes(message[9:13], "big"))
    channel, place = 0, APPENDAGE_AT[letter] + 2
    while place < len(message):
        if message[place + 1] == TAG_CHANNEL:
            channel = message[place + 2]
        place += 1 + message[place]
    return Told(letter, second, channel, first)


def _fence(first: int, second: int) -> int:
    """What the channels of two account queries in a row stand for; -1 for nothing."""
    if first in FENCE_FIRST and second in FENCE_SECOND:
        return FENCE_FIRST.index(first) * len(FENCE_SECOND) + FENCE_SECOND.index(second)
    return -1


# -- the client --------------------------------------------------------------------------------

@dataclass
class Patience:
    """How long a client waits, in seconds."""

    login_s: float = 0.4
    resend_s: float = 0.15
    resend_max_s: float = 0.5
    gap_s: float = 0.02
    gap_again_s: float = 0.08
    heartbeat_s: float = 0.5
    silence_s: float = 1.5


@dataclass
class Asked:
    """Something that is sent until it is answered: its packets travel in one datagram. An order
    is answered under its number, what the venue may ignore by the account query behind it."""

    messages: list[bytes]
    numbers: list[tuple[int, int]]
    fence: int | None = None
    due_s: float = 0.0
    wait_s: float = 0.0
    times: int = 0
    packets: bytes = field(default=b"", repr=False)


class Reference:
    """One account's client."""

    def __init__(self, username: str, password: str = "demo", next_number: int = 1,
                 patience: Patience | None = None, in_flight: int = 500,
                 packets_max: Callable[[], int] = lambda: 27) -> None:
        self.session = ""
        self.state = "login"
        self.refused = ""
        self.next_number = next_number
        self.messages: list[bytes] = []
        self.debug: list[bytes] = []
        # Heartbeats in a row that told of nothing that we don't have.
        self.quiet = 0
        self.counts = dict.fromkeys(
            ("logins", "resent", "requests", "repeated", "malformed", "silences", "stale"), 0)
        self._login = (username, password)
        self._patience = patience or Patience()
        self._in_flight = in_flight
        self._packets_max = packets_max
        self._waiting: deque[Asked] = deque()
        self._out: dict[tuple[int, int], Asked] = {}
        self._fences: dict[int, Asked] = {}
        self._half_fence = 0
        self._by_due: deque[Asked] = deque()
        self._newest: dict[int, int] = {}
        self._next_fence = 0
        self._early: dict[int, bytes] = {}
        self._known_next = next_number
        self._ends_at = 0
        self._login_due_s = 0.0
        self._gap_due_s = 0.0
        self._heard_s = 0.0
        self._sent_s = 0.0

    # -- what the user does --------------------------------------------------------------------

    def ask(self, number: int, message: bytes, channel: int = 0) -> None:
        """Send a message that is answered under its number, until it is."""
        self._waiting.append(Asked([message], [(channel, number)]))

    def ask_fenced(self, messages: Iterable[bytes],
                   numbers: Iterable[tuple[int, int]] = ()) -> None:
        """Send messages that the venue may ignore; `numbers` are the (channel, number)s that they
        would use. They travel in one datagram, with an account query behind them."""
        self._waiting.append(Asked([*messages], [*numbers], fence=-1))

    def unanswered(self) -> list[bytes]:
        """The packets of everything that is not answered, oldest first, to go over TCP."""
        while self._waiting and self._may_send(self._waiting[0]):
            self._by_due.append(self._begin(self._waiting.popleft()))
        every = {id(asked): asked for asked in (*self._out.values(), *self._fences.values())}
        return [asked.packets for asked in every.values()]

    def rejoin(self) -> None:
        """Log in (again) over UDP, and go on from the next number."""
        self.state, self._login_due_s = "login", 0.0
        self._early.clear()
        self._known_next = self.next_number

    @property
    def idle(self) -> bool:
        """Whether everything that was asked is answered, and nothing known is missing."""
        return not (self._waiting or self._out or self._fences
                    or self._known_next > self.next_number)

    # -- what came -----------------------------------------------------------------------------

    def receive(self, data: bytes, now_s: float) -> None:
        """Take a datagram; what is malformed is counted and changes nothing."""
        try:
            if data and data[0] >= MOLD_FROM:
                self._receive_mold(parse_mold(data), now_s)
            else:
                for kind, payload in parse_soup(data):
                    self._receive_soup(kind, payload, now_s)
        except Malformed:
            self.counts["malformed"] += 1

    def _receive_soup(self, kind: str, payload: bytes, now_s: float) -> None:
        if kind == "A":
            if len(payload) != 30:
                raise Malformed("an acceptance has 33 bytes")
            number = int(payload[10:])
            if self.state == "login" and number == self.next_number:
                self.state, self.session = "open", payload[:10].decode()
                self._heard_s, self._gap_due_s = now_s, 0.0
                for asked in self._by_due:
                    asked.due_s = now_s
        elif kind == "J":
            if len(payload) != 1:
                raise Malformed("a rejection has 4 bytes")
            if self.state == "login":
                self.state, self.refused = "refused", payload.decode()
        else:
            self.debug.append(payload)

    def _receive_mold(self, packet: Downstream, now_s: float) -> None:
        if self.state not in ("open", "ended") or packet.session != self.session:
            self.counts["stale"] += 1
            return
        self._heard_s = now_s
        if packet.count == END_OF_SESSION:
            self._ends_at = packet.sequence
        for number, message in enumerate(packet.messages, packet.sequence):
            if number < self.next_number or number in self._early:
                self.counts["repeated"] += 1
                if number >= self.next_number and self._early[number] != message:
                    raise AssertionError(f"number {number} came with two contents")
            elif len(self._early) < EARLY_MAX:
                self._early[number] = message
        known = packet.sequence + len(packet.messages)
        if known > self._known_next:
            if self._known_next == self.next_number:
                self._gap_due_s = now_s + self._patience.gap_s
            self._known_next = known
        self.quiet = self.quiet + 1 if packet.count == 0 and known == self.next_number else 0
        while self.next_number in self._early:
            self.take(self._early.pop(self.next_number))
        if self._ends_at and self._ends_at == self.next_number:
            self.state = "ended"

    def take(self, message: bytes) -> None:
        """The next message of the stream, by whatever transport it came."""
        self.messages.append(message)
        self.next_number += 1
        letter, number, channel, _ = told(message)
        half, self._half_fence = self._half_fence, channel if letter == "Q" else 0
        if letter == "Q":
            asked = self._fences.pop(_fence(half, channel), None)
        elif letter in "AJUXGK":
            asked = self._out.get((channel, number))
        else:
            asked = None
        if asked is not None and (letter == "Q" or asked.fence is None):
            asked.times = -1
            for key in asked.numbers:
                self._out.pop(key, None)

    # -- what is to be sent --------------------------------------------------------------------

    def due(self, now_s: float) -> list[bytes]:
        """The datagrams that are to be sent now."""
        if self.state == "open" and now_s - self._heard_s > self._patience.silence_s:
            self.counts["silences"] += 1
            self.state, self._login_due_s = "login", 0.0
        if self.state == "login":
            found = self._due_login(now_s)
        elif self.state == "open":
            found = [*self._due_gap(now_s), *self._due_asked(now_s)]
        else:
            found = []
        if not found and self.state == "open" and (
                now_s - self._sent_s >= self._patience.heartbeat_s):
            found = [HEARTBEAT]
        if found:
            self._sent_s = now_s
        return found

    def _due_login(self, now_s: float) -> list[bytes]:
        if now_s < self._login_due_s:
            return []
        self.counts["logins"] += 1
        self._login_due_s = now_s + self._patience.login_s
        return [login(*self._login, self.session.strip(), self.next_number)]

    def _due_gap(self, now_s: float) -> list[bytes]:
        """A gap is asked for after a while, for what is late may have been overtaken only."""
        if self._known_next <= self.next_number or now_s < self._gap_due_s:
            return []
        self._gap_due_s = now_s + self._patience.gap_again_s
        found: list[bytes] = []
        number = self.next_number
        for ends in (*sorted(self._early), self._known_next):
            if ends > number and len(found) < GAPS_MAX:
                found.append(request(self.session, number,
                                     min(ends - number, END_OF_SESSION - 1)))
            number = ends + 1
        self.counts["requests"] += len(found)
        return found

    def _due_asked(self, now_s: float) -> list[bytes]:
        ready: list[Asked] = []
        while self._by_due and (self._by_due[0].times < 0 or self._by_due[0].due_s <= now_s):
            asked = self._by_due.popleft()
            if asked.times >= 0:
                self.counts["resent"] += 1
                ready.append(asked)
        while self._waiting and self._may_send(self._waiting[0]):
            ready.append(self._begin(self._waiting.popleft()))
        for asked in ready:
            asked.times += 1
            asked.wait_s = min(self._patience.resend_max_s,
                               asked.wait_s * 1.5 or self._patience.resend_s)
            asked.due_s = now_s + asked.wait_s
        # Sorted by when they are due, as nearly as it takes.
        self._by_due = deque(sorted((*self._by_due, *ready), key=lambda one: one.due_s)
                             ) if ready else self._by_due
        return self._packed(ready)

    def _may_send(self, asked: Asked) -> bool:
        """Whether the numbers stay within the window of what is not answered yet."""
        if len(self._out) + len(self._fences) >= self._in_flight:
            return False
        if asked.fence is not None and (
                len(self._fences) >= FENCES_OUT or self._next_fence in self._fences):
            return False
        for channel, number in asked.numbers:
            oldest = next((other for where, other in self._out if where == channel), number)
            if number - oldest >= WINDOW:
                return False
        return True

    def _begin(self, asked: Asked) -> Asked:
        for channel, number in asked.numbers:
            self._newest[channel] = max(number, self._newest.get(channel, 0))
            self._out[channel, number] = asked
        if asked.fence is not None:
            asked.fence = self._next_fence
            self._next_fence = (asked.fence + 1) % FENCES
            self._fences[asked.fence] = asked
            first, second = divmod(asked.fence, len(FENCE_SECOND))
            asked.messages += [query(FENCE_FIRST[first]), query(FENCE_SECOND[second])]
        asked.packets = b"".join(unsequenced(message) for message in asked.messages)
        return asked

    def _packed(self, ready: Sequence[Asked]) -> list[bytes]:
        found, data, count, limit = [], b"", 0, self._packets_max()
        for asked in ready:
            if data and (len(data) + len(asked.packets) > DATAGRAM_BYTES or count >= limit):
                found.append(data)
                data, count, limit = b"", 0, self._packets_max()
            data += asked.packets
            count += len(asked.messages)
        return [*found, data] if data else found


class Driver:
    """Runs clients over sockets of their own, each towards one address, in the caller's thread."""

    def __init__(self, clients: Sequence[Reference], address: tuple[str, int]) -> None:
        self.address = address
        self._selector = selectors.DefaultSelector()
        self._sockets: list[tuple[Reference, socket.socket]] = []
        for client in clients:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
            made.bind(("0.0.0.0", 0))
            made.setblocking(False)
            self._selector.register(made, selectors.EVENT_READ, client)
            self._sockets.append((client, made))

    def turn(self, wait_s: float = 0.005) -> None:
        """Read what came, send what is due."""
        for key, _ in self._selector.select(wait_s):
            self._read(key.fileobj, key.data)
        now_s = time.monotonic()
        for client, made in self._sockets:
            for data in client.due(now_s):
                try:
                    made.sendto(data, self.address)
                except (BlockingIOError, ConnectionRefusedError):
                    # As good as lost on the way.
                    pass

    def until(self, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Go on until something holds; fails when it does not in time."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            self.turn()
            if time.monotonic() > deadline_s:
                raise AssertionError(f"not done in {timeout_s} s: {self.told()}")

    def told(self) -> list[dict[str, Any]]:
        """How each client stands, for messages."""
        return [{"state": client.state, "next": client.next_number, "idle": client.idle,
                 **client.counts} for client, _ in self._sockets]

    def socket_of(self, client: Reference) -> socket.socket:
        """The socket of one of the clients."""
        return next(made for one, made in self._sockets if one is client)

    def close(self) -> None:
        """Close the sockets, without a logout."""
        self._selector.close()
        for _, made in self._sockets:
            made.close()

    def _read(self, made: Any, client: Reference) -> None:
        now_s = time.monotonic()
        for _ in range(200):
            try:
                data = made.recv(65_536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            client.receive(data, now_s)

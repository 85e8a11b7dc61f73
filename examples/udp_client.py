"""Order entry over UDP in plain Python: a complete small client, of the standard library only.

    make run                                # in another terminal
    python3 examples/udp_client.py

The port of the venue may be given as an argument. docs/udp.md explains what happens here; lost,
repeated and overtaken datagrams change nothing of it.
"""

import socket
import struct
import sys
import time
from collections import deque
from itertools import cycle

MOLD = struct.Struct("!10sQH")  # session, number of the first message, messages
END_OF_SESSION = 0xFFFF
ENTER = struct.Struct("!cIcI8sQccccc14sH")
CANCEL = struct.Struct("!cII")
FENCE = struct.Struct("!cHBBB")  # an account query with the tag UserRefIdx (28)
FENCES = range(128, 256)  # channels that no order of ours uses
EARLY_MAX = 10_000  # messages that wait for one before them
PENDING_MAX = 32  # datagrams: their orders stay within the last 1,024 numbers
DATAGRAM_BYTES = 1_400

AGAIN_S, AGAIN_MAX_S, GAP_S = 0.1, 2.0, 0.05
SILENT_S, DEAD_S, LOGIN_S, LOGIN_TRIES = 1.0, 3.0, 0.5, 20


def packet(kind, payload=b""):
    """A SoupBinTCP packet."""
    return struct.pack("!Hc", 1 + len(payload), kind) + payload


def enter(number, side, quantity, symbol, price, time_in_force="0"):
    """An Enter Order; the price in units of the wire."""
    return ENTER.pack(b"O", number, side.encode(), quantity, symbol.encode().ljust(8), price,
                      time_in_force.encode(), b"Y", b"P", b"N", b"N", b"example".ljust(14), 0)


class Client:
    """One session. `messages` fills with what the venue says, in order, each once."""

    def __init__(self, host, port, user, password):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((host, port))
        self.socket.settimeout(0.01)
        self._user, self._password = user, password
        self.session, self.ended = "", False
        self._next = self._known_next = 0  # the message we wait for; the one the venue sends next
        self._early, self.messages = {}, deque()
        self._pending = {}  # by fence: [datagram, when to send it again, how long to wait then]
        self._fences = cycle(FENCES)
        self._sent_s = self._heard_s = self._login_s = self._asked_s = 0.0
        for _ in range(LOGIN_TRIES):
            self._log_in()
            while not self._next and time.monotonic() < self._login_s + LOGIN_S:
                self._read()
            if self._next:
                return
        raise ConnectionError("the venue does not answer")

    def send(self, *requests):
        """Send requests, and send them again until the venue has answered the fence behind them.

        A datagram comes whole or not at all, so that its fence's answer speaks for all of it.
        """
        while len(self._pending) >= PENDING_MAX:
            self.turn()
        fence = next(fence for fence in self._fences if fence not in self._pending)
        requests += (FENCE.pack(b"Q", 3, 2, 28, fence),)
        datagram = b"".join(packet(b"U", request) for request in requests)
        if len(datagram) > DATAGRAM_BYTES:
            raise ValueError("too many requests for one datagram")
        self._pending[fence] = [datagram, time.monotonic() + AGAIN_S, 2 * AGAIN_S]
        self._put(datagram)

    def settle(self):
        """Wait until the venue has answered everything."""
        while self._pending:
            self.turn()

    def log_out(self):
        """Leave. The venue answers nothing."""
        self._put(packet(b"O"))
        self.socket.close()

    def turn(self):
        """Read what comes for a moment, and send what is due."""
        self._read()
        now_s = time.monotonic()
        if self.ended:
            raise ConnectionError("the session ended: log in to the next one")
        if now_s > self._heard_s + DEAD_S and now_s > self._login_s + LOGIN_S:
            self._log_in()
        for waiting in self._pending.values():
            datagram, again_s, wait_s = waiting
            if now_s >= again_s:
                waiting[1:] = now_s + wait_s, min(2 * wait_s, AGAIN_MAX_S)
                self._put(datagram)
        if self._known_next > self._next and now_s > self._asked_s + GAP_S:
            missing = min(self._early, default=self._known_next) - self._next
            self._asked_s = now_s
            self._put(MOLD.pack(self.session.rjust(10).encode(), self._next, min(missing, 1_000)))
        if now_s > self._sent_s + SILENT_S:
            self._put(packet(b"R"))

    def _log_in(self):
        """Log in, the first time without the past, later from the message that we wait for."""
        self._login_s = time.monotonic()
        text = f"{self._user:6}{self._password:10}{self.session:>10}{self._next:>20}"
        self._put(packet(b"L", text.encode()))

    def _put(self, datagram):
        self._sent_s = time.monotonic()
        try:
            self.socket.send(datagram)
        except ConnectionRefusedError:
            pass  # nobody was there for an earlier one; perhaps soon

    def _read(self):
        try:
            data = self.socket.recv(65_536)
        except (TimeoutError, ConnectionRefusedError):
            return
        if data[:1] >= b" ":
            self._take_mold(data)
        elif len(data) > 2 and len(data) == 2 + int.from_bytes(data[:2], "big"):
            self._take_packet(data[2:3], data[3:].decode("ascii", "replace"))

    def _take_packet(self, kind, text):
        if kind == b"J":
            raise ConnectionError(f"the login was refused: {text}")
        if kind == b"+":
            sys.stderr.write(f"the venue says: {text}\n")
        elif kind == b"A" and len(text) == 30:
            self._heard_s = time.monotonic()
            if not self._next:
                self.session = text[:10].strip()
                self._next = self._known_next = int(text[10:])

    def _take_mold(self, data):
        if len(data) < MOLD.size or data[:10].decode("ascii", "replace").strip() != self.session:
            return
        _, number, count = MOLD.unpack_from(data)
        blocks, place = [], MOLD.size
        while place + 2 <= len(data):
            end = place + 2 + int.from_bytes(data[place:place + 2], "big")
            blocks.append(data[place + 2:end])
            place = end
        if place != len(data) or len(blocks) != (0 if count == END_OF_SESSION else count):
            return  # not from our venue
        self._heard_s = time.monotonic()
        self._known_next = max(self._known_next, number + len(blocks))
        self._early.update((at, block) for at, block in enumerate(blocks, number)
                           if self._next <= at < self._next + EARLY_MAX)
        while self._next in self._early:
            message = self._early.pop(self._next)
            self._next += 1
            if message[:1] == b"Q" and len(message) == 18 and message[17] in FENCES:
                self._pending.pop(message[17], None)
            else:
                self.messages.append(message)
        self.ended |= count == END_OF_SESSION and self._next >= number


LAYOUTS = {b"A": ("!13xcI8sQ", "accepted %s %d %s at %d"), b"E": ("!13xIQ", "executed %d at %d"),
           b"C": ("!13xIc", "canceled %d, reason %s"), b"J": ("!13xH", "rejected, reason %04X")}


def describe(message):
    """A message as a line of text; prices in units of the wire."""
    layout, text = LAYOUTS[message[:1]]
    values = struct.unpack_from(layout, message)
    return text % tuple(value.decode().strip() if isinstance(value, bytes) else value
                        for value in values)


def main(port):
    client = Client("127.0.0.1", port, "MAKER1", "demo")
    client.send(b"Q")  # which UserRefNum is next
    client.settle()
    first = int.from_bytes(client.messages.popleft()[9:13], "big")

    client.send(enter(first, "B", 500, "AAPL", 1_800_000),
                enter(first + 1, "S", 200, "AAPL", 1_800_000, "3"),
                enter(first + 2, "B", 1, "NOSUCH", 1))
    client.settle()  # a cancel must not overtake its order
    client.send(CANCEL.pack(b"X", first, 0))  # all of it
    client.settle()
    for message in client.messages:
        if message[:1] in LAYOUTS:
            print(describe(message))
    client.log_out()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9002)

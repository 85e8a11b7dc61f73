"""The fake venue over UDP: it can lose, repeat and reorder datagrams, and answer wrongly."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.fake_venue import Answers, Twist, framed, honest

SESSION = b"FAKE".rjust(10)
DATAGRAM_BYTES = 1_400
HEADER = struct.Struct(">10sQH")
# What goes out, as a whole datagram; may become several, or none.
Mangle = Callable[[bytes], list[bytes]]


def whole(datagram: bytes) -> list[bytes]:
    """Send the datagram as it should be."""
    return [datagram]


@dataclass(frozen=True)
class Link:
    """The share of datagrams, both ways, that are lost, that come twice, that come late."""

    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    seed: int = 1


class FakeUdpVenue:
    """Serves one account until `stop`. Each UserRefNum is done once, in the order of arrival.

    `twist` may change each answer in its packet, `mangle` each datagram of answers; `swallow` are
    numbers of messages that are counted and never sent.
    """

    def __init__(self, link: Link | None = None, twist: Twist = honest, mangle: Mangle = whole,
                 swallow: range = range(0)) -> None:
        self.link = link or Link()
        self.twist, self.mangle, self.swallow = twist, mangle, swallow
        self.answers = Answers()
        self.used: set[int] = set()
        self.sent: list[bytes] = []
        # How many messages came in each datagram.
        self.came: list[int] = []
        self._chance = random.Random(self.link.seed)
        self._late: dict[str, list[bytes]] = {"in": [], "out": []}
        self._peer: tuple[str, int] = ("", 0)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more datagrams."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, self._peer = self._socket.recvfrom(65_536)
                if not data:
                    return
                for one in self._fate("in", data):
                    self._take(one)

    def _fate(self, way: str, data: bytes) -> list[bytes]:
        """What arrives now: this datagram, some that were held back, or nothing."""
        chance, link, late = self._chance, self.link, self._late[way]
        if chance.random() < link.late:
            late.append(data)
            return []
        arriving = [] if chance.random() < link.lost else [data]
        arriving *= 2 if chance.random() < link.repeated else 1
        arriving += late
        late.clear()
        return arriving

    def _send(self, data: bytes) -> None:
        for one in self._fate("out", data):
            self._socket.sendto(one, self._peer)

    def _take(self, data: bytes) -> None:
        if data[0] >= 0x20:
            _, number, count = HEADER.unpack(data)
            self._say(number, min(number - 1 + count, len(self.sent)))
        elif data[2:3] == b"L":
            self._send(framed(b"A" + SESSION + str(len(self.sent) + 1).rjust(20).encode()))
        elif data[2:3] in b"RO":
            self._send(HEADER.pack(SESSION, len(self.sent) + 1, 0))
        else:
            first = len(self.sent)
            self._do(data)
            self._say(first + 1, len(self.sent))

    def _do(self, data: bytes) -> None:
        """Each message of a datagram; a number that was used before gets no answer."""
        at = 0
        self.came.append(0)
        while at < len(data):
            self.came[-1] += 1
            length = 2 + int.from_bytes(data[at:at + 2], "big")
            message, at = data[at + 3:at + length], at + length
            if message[:1] in b"OC":
                ref = struct.unpack_from(">I", message, 1)[0]
                if ref in self.used:
                    continue
                self.used.add(ref)
            for answer in self.answers.to(message):
                twisted = self.twist(framed(b"S" + answer))
                while twisted:
                    length = 2 + int.from_bytes(twisted[:2], "big")
                    self.sent.append(twisted[3:length])
                    twisted = twisted[length:]

    def _say(self, first: int, last: int) -> None:
        """Messages `first` to `last` in as few datagrams as hold them."""
        while first <= last:
            blocks, count = b"", 0
            while first + count <= last and first + count not in self.swallow:
                message = self.sent[first + count - 1]
                if len(blocks) + len(message) + 2 > DATAGRAM_BYTES - HEADER.size:
                    break
                blocks += struct.pack(">H", len(message)) + message
                count += 1
            if count:
                for one in self.mangle(HEADER.pack(SESSION, first, count) + blocks):
                    self._send(one)
            first += count or 1

"""A venue that accepts everything and matches nothing, and can be told to answer wrongly."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

Twist = Callable[[bytes], bytes]


def honest(answer: bytes) -> bytes:
    """Send the answer as it should be."""
    return answer


class Answers:
    """What the venue answers to each message; it knows what is open."""

    def __init__(self) -> None:
        self.last_ref = 0
        self.open: dict[int, int] = {}

    def to(self, message: bytes) -> list[bytes]:
        """The messages that this one brings forth."""
        if message[:1] == b"Q":
            return [b"Q" + bytes(8) + struct.pack(">I", self.last_ref + 1)]
        ref = struct.unpack_from(">I", message, 1)[0]
        if message[:1] == b"O":
            return self._enter(ref, message)
        if message[:1] == b"X":
            return [self._canceled(ref, b"U")] if ref in self.open else []
        self.last_ref = max(self.last_ref, ref)
        answer = b"X" + bytes(8) + message[1:5] + message[5:17] + b"\0\0"
        return [answer] + [self._canceled(one, b"U") for one in sorted(self.open)]

    def _enter(self, ref: int, message: bytes) -> list[bytes]:
        self.last_ref = max(self.last_ref, ref)
        self.open[ref] = struct.unpack_from(">I", message, 6)[0]
        accepted = (b"A" + bytes(8) + message[1:5] + message[5:6] + message[6:10] + message[10:18]
                    + message[18:26] + message[26:28] + struct.pack(">Q", ref) + message[28:31]
                    + b"L" + message[31:45] + b"\0\0")
        return [accepted] + ([self._canceled(ref, b"I")] if message[26:27] == b"3" else [])

    def _canceled(self, ref: int, reason: bytes) -> bytes:
        return b"C" + bytes(8) + struct.pack(">II", ref, self.open.pop(ref)) + reason


class FakeVenue:
    """Serves connections until `stop`. `twist` may change each answer that is not a login's."""

    def __init__(self, twist: Twist = honest) -> None:
        self.twist = twist
        self.sequence = 0
        self.answers = Answers()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        self.listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            reader = connection.makefile("rb")
            while True:
                packet = _read(reader, struct.unpack(">H", _read(reader, 2))[0])
                if packet[:1] == b"L":
                    number = str(self.sequence + 1).rjust(20)
                    connection.sendall(framed(b"A" + b"SESSION".rjust(10) + number.encode()))
                elif packet[:1] == b"U":
                    for answer in self.answers.to(packet[1:]):
                        self.sequence += 1
                        connection.sendall(self.twist(framed(b"S" + answer)))


def framed(packet: bytes) -> bytes:
    """A packet behind its length."""
    return struct.pack(">H", len(packet)) + packet


def _read(reader: object, size: int) -> bytes:
    data = reader.read(size)  # type: ignore[attr-defined]
    if len(data) < size:
        raise EOFError
    return data

"""The load generator's login over UDP (PROTOCOLS 3.2): said again until it is answered.

Written without the engine's codecs, as all that the load generator speaks.
"""

import socket
import struct
import time
from dataclasses import dataclass

# A datagram is said again after so long, this often.
AGAIN_SECONDS = 0.2
TRIES = 150
DATAGRAM_BYTES = 65_536
MOLD = struct.Struct(">10sQH")
END_OF_SESSION = 0xFFFF
QUERY = b"\x00\x02UQ"
LOGOUT = b"\x00\x01O"
# A venue's answers to a full window at once must fit.
BUFFER_BYTES = 4 * 2**20


class Refused(Exception):
    """The venue does not let us in, or answers what nobody asked."""


@dataclass(frozen=True)
class Opened:
    """A session: its name as the venue writes it, the number of the next message, and the next
    UserRefNum."""

    session: bytes
    next_number: int
    next_ref: int


def connect(host: str, port: int) -> socket.socket:
    """A socket whose datagrams go there and come from there."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port,
                                                            type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind, protocol)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    sock.connect(address)
    sock.settimeout(AGAIN_SECONDS)
    return sock


def log_in(sock: socket.socket, username: str, password: str) -> Opened:
    """Log in at the newest number and ask for the next UserRefNum. Raises Refused."""
    session, number = say_login(sock, username, password)
    for asked in range(TRIES):
        if asked:
            # The answer may be what was lost.
            sock.send(MOLD.pack(session, number, 100))
        sock.send(QUERY)
        for got, message in _messages(sock, session):
            if got != number:
                continue
            if message[:1] != b"Q":
                raise Refused(f"an account query was answered {message!r}")
            return Opened(session, number + 1, int.from_bytes(message[9:13], "big"))
    raise Refused(f"an account query was not answered {TRIES} times")


def say_login(sock: socket.socket, username: str, password: str) -> tuple[bytes, int]:
    """Log in at the newest number; returns the session and that number. Raises Refused."""
    login = (b"\x00\x2fL" + username.ljust(6).encode() + password.ljust(10).encode() + b" " * 10
             + b"0".rjust(20))
    for _ in range(TRIES):
        sock.send(login)
        try:
            answer = sock.recv(DATAGRAM_BYTES)
        except TimeoutError:
            continue
        if len(answer) != 33 or answer[2:3] != b"A":
            raise Refused(f"login of {username} was answered {answer!r}")
        return answer[3:13], int(answer[13:33])
    raise Refused(f"login of {username} was not answered {TRIES} times")


def _messages(sock: socket.socket, session: bytes) -> list[tuple[int, bytes]]:
    """The numbered messages of a datagram that comes within a while; without one, none."""
    until = time.monotonic() + AGAIN_SECONDS
    while time.monotonic() < until:
        try:
            data = sock.recv(DATAGRAM_BYTES)
        except TimeoutError:
            break
        if data[:10] != session or len(data) < MOLD.size:
            continue
        found, at = [], MOLD.size
        _, number, count = MOLD.unpack_from(data)
        if count == END_OF_SESSION:
            raise Refused("the session ended")
        for index in range(count):
            length = int.from_bytes(data[at:at + 2], "big")
            found.append((number + index, data[at + 2:at + 2 + length]))
            at += 2 + length
        if found:
            return found
    return []

"""A bare UDP socket for tests of the door: it sends and sees datagrams, byte for byte."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

from cython_core.mold import MoldHeader, parse_header, parse_packet
from cython_core.soupbin import CLIENT_HEARTBEAT, LOGOUT_REQUEST, build_login

WAIT_S = 60.0


class Raw:
    """One client's socket. `bytes_out` and `bytes_in` count what it sent and got."""

    def __init__(self, port: int, host: str = "127.0.0.1", local_port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        if local_port:
            self.socket.bind((host, local_port))
        self.socket.connect((host, port))
        self.session = ""
        self.bytes_out = self.bytes_in = 0

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def local_port(self) -> int:
        return int(self.socket.getsockname()[1])

    def send(self, *packets: bytes) -> None:
        """All packets in one datagram."""
        data = b"".join(packets)
        self.bytes_out += len(data)
        self.socket.send(data)

    def receive(self, timeout_s: float = WAIT_S) -> bytes:
        """The next datagram. Raises TimeoutError."""
        self.socket.settimeout(timeout_s)
        data = self.socket.recv(65_536)
        self.bytes_in += len(data)
        return data

    def silence(self, for_s: float = 0.3) -> bool:
        """Whether nothing comes for so long."""
        try:
            self.receive(for_s)
        except TimeoutError:
            return True
        return False

    def until(self, wanted: Callable[[bytes], bool], timeout_s: float = WAIT_S) -> bytes:
        """The next datagram that is wanted; what comes before is passed over."""
        deadline_s = time.monotonic() + timeout_s
        while not wanted(data := self.receive(max(0.001, deadline_s - time.monotonic()))):
            pass
        return data

    # -- the protocol --------------------------------------------------------------------------

    def login(self, user: str = "MAKER1", password: str = "demo", sequence: int = 1,
              session: str = "", timeout_ms: int | None = None) -> bytes:
        """Log in; returns the answer, `A` or `J`."""
        request = build_login(user, password, session, sequence, timeout_ms)
        self.send(request)
        answer = self.until(lambda data: data[2:3] in (b"A", b"J") and data[0] < 0x20)
        if answer[2:3] == b"A":
            self.session = answer[3:13].decode().strip()
        return answer

    def heartbeat(self) -> None:
        self.send(CLIENT_HEARTBEAT)

    def logout(self) -> None:
        self.send(LOGOUT_REQUEST)

    def ask(self, first: int, count: int, session: str = "") -> None:
        """A gap request, wrong ones too."""
        self.send(struct.pack("!10sQH", (session or self.session).rjust(10).encode(), first, count))

    def mold(self, timeout_s: float = WAIT_S) -> tuple[MoldHeader, list[bytes]]:
        """The next downstream packet that holds messages."""
        return parse_packet(self.until(
            lambda data: data[0] >= 0x20 and 0 < parse_header(data).count < 0xFFFF, timeout_s))

    def messages(self, first: int, count: int) -> list[bytes]:
        """So many messages from number `first` on, which must come in order."""
        found: list[bytes] = []
        while len(found) < count:
            header, messages = self.mold()
            assert header.session == self.session
            assert header.sequence == first + len(found)
            found += messages
        assert len(found) == count
        return found

    def debug(self, timeout_s: float = WAIT_S) -> str:
        """The text of the next debug packet."""
        return self.until(lambda data: data[2:3] == b"+" and data[0] < 0x20,
                          timeout_s)[3:].decode()

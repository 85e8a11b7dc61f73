"""`Wire` over UDP: the same calls, so that a test of orders runs over either transport.

Sequenced messages are put in order and asked for again when they are missing, as PROTOCOLS 3.2 has
it; requests are sent once, for a test decides itself what it repeats.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from cython_core.soupbin import LoginAccepted
from tests.support.wire import WAIT_S, Wire
from tests.udp.reference import (
    DATAGRAM_BYTES,
    END_OF_SESSION,
    HEARTBEAT,
    LOGOUT,
    MOLD_FROM,
    Downstream,
    login,
    parse_mold,
    parse_soup,
    request,
)

# A session that lives says something in every second; this long it says nothing only when it is
# over. Short, once a debug packet has said why it ends.
QUIET_S = 2.5
QUIET_AFTER_DEBUG_S = 0.3
GAP_S = 0.05
HEARTBEAT_S = 1.0


class UdpWire(Wire):
    """One socket. `datagrams` keeps everything that came, as it came; `debug` the texts."""

    def __init__(self, made: socket.socket) -> None:
        self.socket = made
        self.datagrams: list[bytes] = []
        self.debug: list[str] = []
        self.refused = False
        self.heartbeats = 0
        self.raw: list[bytes] = []
        self.session = ""
        self.next_number = 0
        self._waiting: list[tuple[str, bytes]] = []
        self._early: dict[int, bytes] = {}
        self._next_in = 0
        self._known_next = 0
        self._ends_at = -1

    @classmethod
    async def open(cls, port: int) -> UdpWire:
        """A socket that is connected to the venue's port, without a login."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        made.setblocking(False)
        made.connect(("127.0.0.1", port))
        return cls(made)

    async def login(self, username: str, password: str = "demo", session: str = "",
                    sequence: int = 1, **more: Any) -> LoginAccepted | str:
        """Log in; returns the acceptance or the reject's letter."""
        self._next_in = self._known_next = 0
        self.send(login(username, password, session, sequence,
                        more.get("heartbeat_timeout_ms")))
        kind, payload = await self.packet()
        if kind == "J":
            return payload.decode()
        assert kind == "A", kind
        return LoginAccepted(self.session, self.next_number)

    def send(self, *packets: bytes) -> None:
        """Send framed packets in as few datagrams as they fit in; a larger one goes alone."""
        data = b""
        for packet in packets:
            if data and len(data) + len(packet) > DATAGRAM_BYTES:
                self.datagram(data)
                data = b""
            data += packet
        self.datagram(data)

    def datagram(self, data: bytes) -> None:
        """Send these bytes as one datagram."""
        try:
            self.socket.send(data)
        except ConnectionRefusedError:
            # About an earlier one: nobody is there.
            pass

    def heartbeat(self) -> None:
        self.datagram(HEARTBEAT)

    def logout(self) -> None:
        self.datagram(LOGOUT)

    def ask_again(self, first_number: int, count: int, session: str = "") -> None:
        """Send a gap request."""
        self.datagram(request(session or self.session, first_number, count))

    async def packet(self, timeout_s: float = WAIT_S) -> tuple[str, bytes]:
        """The next packet that is no heartbeat and no debug text; ("Z", b"") at the end of the
        session, ("", b"") when nobody is there any more."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not self._waiting:
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                raise TimeoutError
            gap = self._known_next > self._next_in
            data = await self._read(min(left_s, GAP_S if gap else HEARTBEAT_S))
            if data is None:
                if gap:
                    self.ask_again(self._next_in, self._known_next - self._next_in)
                elif left_s > HEARTBEAT_S:
                    self.heartbeat()
                continue
            if not data:
                return "", b""
            self._take(data)
        return self._waiting.pop(0)

    async def _read(self, timeout_s: float) -> bytes | None:
        """One datagram; None when none came in time, b"" when the port is closed."""
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.sock_recv(self.socket, 65_536), timeout_s)
        except TimeoutError:
            return None
        except ConnectionRefusedError:
            return b""

    def _take(self, data: bytes) -> None:
        self.datagrams.append(data)
        if data[0] >= MOLD_FROM:
            self._take_mold(parse_mold(data))
            return
        for kind, payload in parse_soup(data):
            if kind == "+":
                self.debug.append(payload.decode())
                continue
            self.refused |= kind == "J"
            if kind == "A" and not self._next_in:
                self.session = payload[:10].decode().strip()
                self.next_number = self._next_in = self._known_next = int(payload[10:])
            self._waiting.append((kind, payload))

    def _take_mold(self, packet: Downstream) -> None:
        assert packet.session.strip() == self.session
        self.heartbeats += packet.count == 0
        for number, message in enumerate(packet.messages, packet.sequence):
            if number >= self._next_in:
                assert self._early.setdefault(number, message) == message
        if packet.count == END_OF_SESSION and self._ends_at < 0:
            self._ends_at = packet.sequence
        self._known_next = max(self._known_next, packet.sequence + len(packet.messages))
        while self._next_in in self._early:
            self._waiting.append(("S", self._early.pop(self._next_in)))
            self._next_in += 1
        if self._ends_at == self._next_in:
            self._ends_at = 0
            self._waiting.append(("Z", b""))

    async def closed(self, timeout_s: float = WAIT_S) -> bool:
        """Whether the session is over: nothing but debug texts and the end of the session comes
        any more, no heartbeats either."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        quiet_s, heard_s = QUIET_S, loop.time()
        while loop.time() < min(deadline_s, heard_s + quiet_s):
            if self._waiting:
                return False
            data = await self._read(0.1)
            if data == b"":
                return True
            if data is None:
                continue
            texts, before = len(self.debug), self._ends_at
            self._take(data)
            if len(self.debug) > texts:
                quiet_s = QUIET_AFTER_DEBUG_S
            elif self.refused or before == 0:
                continue
            heard_s = loop.time()
        return loop.time() >= heard_s + quiet_s

    async def close(self) -> None:
        """Log out, and close the socket."""
        if self.socket.fileno() >= 0:
            self.logout()
            self.socket.close()

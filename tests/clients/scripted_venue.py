"""A venue over UDP that says what a test tells it to, and remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from cython_core import mold, ouch, soupbin

Address = tuple[str, int]


class ScriptedVenue(asyncio.DatagramProtocol):
    """Answers logins, account queries and gap requests of one session, unless told otherwise."""

    def __init__(self) -> None:
        self.session = "S1"
        # Messages from number 1 on.
        self.stream: list[bytes] = []
        # What came: datagrams and where they came from.
        self.got: list[tuple[bytes, Address]] = []
        self.client: Address | None = None
        # Gets the datagram; True says that there is nothing more to do about it.
        self.before: Callable[[bytes], bool] = lambda data: False
        self._came = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def port(self) -> int:
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append((data, addr))
        self.client = addr
        if not self.before(data):
            if mold.is_mold(data):
                self._gap(mold.parse_header(data))
            else:
                for kind, payload in soupbin.PacketReader("client").feed(data):
                    self._packet(kind, payload)
        self._came.set()

    def _packet(self, kind: str, payload: bytes) -> None:
        if kind == "L":
            number = soupbin.parse_login(payload).sequence or len(self.stream) + 1
            self.send(soupbin.build_login_accepted(self.session, number))
            self.beat()
        elif kind == "U":
            message = ouch.decode("in", payload)
            if message["type"] == "Q":
                self.say(ouch.encode_outbound("Q", timestamp_ns=1, next_user_ref_num=1,
                                              **message["options"]))

    def _gap(self, asked: mold.MoldHeader) -> None:
        messages = self.stream[asked.sequence - 1:][:asked.count]
        self.send(mold.build_packet(self.session, asked.sequence, messages))

    def say(self, *messages: bytes) -> None:
        """Send these as the next ones."""
        first = len(self.stream) + 1
        self.stream += messages
        self.send(mold.build_packet(self.session, first, messages))

    def lose(self, *messages: bytes) -> None:
        """Say these so that nobody hears."""
        self.stream += messages

    def beat(self) -> None:
        """Send a heartbeat."""
        self.send(mold.build_heartbeat(self.session, len(self.stream) + 1))

    def send(self, data: bytes) -> None:
        """Send a datagram to who sent the last one."""
        assert self._transport is not None
        self._transport.sendto(data, self.client)

    def all_of(self, letter: str) -> list[tuple[bytes, Address]]:
        """The datagrams that begin with such a packet."""
        return [one for one in self.got if one[0][2:3] == letter.encode() and one[0][0] < 0x20]

    def requests(self) -> list[mold.MoldHeader]:
        """The gap requests."""
        return [mold.parse_header(data) for data, _ in self.got if mold.is_mold(data)]

    async def until(self, true: Callable[[], Any], within_s: float = 20.0) -> None:
        """Wait until that is so."""
        async with asyncio.timeout(within_s):
            while not true():
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def scripted_venue() -> AsyncIterator[ScriptedVenue]:
    transport, venue = await asyncio.get_running_loop().create_datagram_endpoint(
        ScriptedVenue, local_addr=("127.0.0.1", 0))
    yield venue
    transport.close()

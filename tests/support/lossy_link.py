"""A UDP link that fails as told: it drops, repeats, reorders, delays and corrupts datagrams.

It runs in a thread with a loop of its own and stands between clients and a venue. The fate of the
n-th datagram of a client's direction follows from the seed, the client's number, the direction and
n alone: other clients, the machine's speed and what the datagrams say do not matter.

**What corrupting means here.** In the real world a UDP datagram whose bytes were changed on the way
is caught by its checksum and never arrives: to a program it is a lost one. What does arrive wrong
is what somebody's program or a forger sent so. A corrupted datagram here is therefore one that no
check of framing lets pass (cut, wrong lengths, wrong packet types, garbage, empty): a receiver must
drop it whole. A change of payload that keeps the framing is left out on purpose: neither
SoupBinTCP nor MoldUDP64 carries a checksum of its own, so no receiver could tell.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

Address = tuple[str, int]

CLIENTS_MAX = 4_096
# What the kernel keeps for us while the machine is busy: this link loses what it was told to.
BUFFER_BYTES = 2**22
# A datagram that is overtaken waits for at most so many later ones, and at most so long.
OVERTAKEN_BY_MAX = 6
OVERTAKEN_S = 0.05
SOUP_TYPES = b"AJSUHZLRO+"
MOLD_FROM = 0x20
MOLD_HEADER_BYTES = 20
MOLD_END = 0xFFFF


@dataclass(frozen=True)
class Rates:
    """The share of datagrams, 0 to 1, that meet each fate; a datagram may meet several. A delayed
    one is late by up to `delay_max_s`."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    corrupt: float = 0.0
    delay_max_s: float = 0.02

    @classmethod
    def all(cls, share: float, delay_max_s: float = 0.02) -> Rates:
        """Every fate at the same rate."""
        return cls(share, share, share, share, share, delay_max_s)


@dataclass
class Counts:
    """What happened in one direction. `sent` counts what left the link."""

    received: int = 0
    sent: int = 0
    dropped: int = 0
    duplicated: int = 0
    reordered: int = 0
    delayed: int = 0
    corrupted: int = 0
    stopped: int = 0


@dataclass(frozen=True)
class Fate:
    """What becomes of one datagram."""

    drop: bool
    duplicate: bool
    reorder: bool
    delay_s: float
    overtaken_by: int
    corrupt: int


class Fates:
    """The fates of one direction of one client, one after the other."""

    def __init__(self, seed: int, client: int, direction: str) -> None:
        self._chance = random.Random(f"{seed}/{client}/{direction}")

    def draw(self, rates: Rates) -> Fate:
        """The next one. As many numbers are drawn whatever the rates are."""
        chance = self._chance
        drop, duplicate, reorder, delay, corrupt = (chance.random() for _ in range(5))
        late_s = chance.random() * rates.delay_max_s
        overtaken_by, seed = chance.randint(1, OVERTAKEN_BY_MAX), chance.getrandbits(63) + 1
        return Fate(drop < rates.drop, duplicate < rates.duplicate, reorder < rates.reorder,
                    late_s if delay < rates.delay else 0.0, overtaken_by,
                    seed if corrupt < rates.corrupt else 0)


def is_framed(data: bytes) -> bool:
    """Whether a datagram of PROTOCOLS 3.2 fills its framing exactly, in either direction."""
    if not data:
        return False
    return _is_mold(data) if data[0] >= MOLD_FROM else _is_soup(data)


def _is_soup(data: bytes) -> bool:
    place = 0
    while len(data) - place >= 3:
        length = int.from_bytes(data[place:place + 2], "big")
        if length < 1 or data[place + 2] not in SOUP_TYPES:
            return False
        place += 2 + length
    return place == len(data)


def _is_mold(data: bytes) -> bool:
    if len(data) < MOLD_HEADER_BYTES or not data[:10].isascii():
        return False
    count = int.from_bytes(data[18:20], "big")
    if len(data) == MOLD_HEADER_BYTES:
        # A request, a heartbeat or the end of the session.
        return True
    place = MOLD_HEADER_BYTES
    for _ in range(count):
        if len(data) - place < 2:
            return False
        place += 2 + int.from_bytes(data[place:place + 2], "big")
    return count != MOLD_END and place == len(data)


def corrupted(data: bytes, seed: int) -> bytes:
    """The datagram changed so that no check of framing lets it pass."""
    chance = random.Random(seed)
    for _ in range(20):
        changed = chance.choice(_CORRUPTIONS)(data, chance)
        if not is_framed(changed):
            return changed
    return data[:1]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[:chance.randrange(max(1, len(data)))]


def _longer(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.randint(1, 40))


def _garbage(data: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(1, 1_400))


def _wrong_length(data: bytes, chance: random.Random) -> bytes:
    """Another length in front of the first packet, or of the first block."""
    place = MOLD_HEADER_BYTES if data and data[0] >= MOLD_FROM else 0
    return data[:place] + chance.randbytes(2) + data[place + 2:]


def _wrong_type(data: bytes, chance: random.Random) -> bytes:
    """Another packet type, or another count of blocks; never one that is a true message."""
    if data and data[0] >= MOLD_FROM:
        return data[:18] + chance.randint(1, MOLD_END - 1).to_bytes(2, "big") + data[20:]
    return data[:2] + bytes([chance.choice(b"\0\x01 aQXYmuz\x80\xff")]) + data[3:]


_CORRUPTIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut, _longer, _garbage, _wrong_length, _wrong_type)


class _Way:
    """One direction of one client: fates, and what later datagrams have to overtake first."""

    def __init__(self, link: LossyLink, direction: str, client: int) -> None:
        self._link = link
        self._counts = link.counts[direction]
        self._fates = Fates(link.seed, client, direction)
        # Each is [how many still have to overtake it, its timer, data, how it is sent].
        self._waiting: list[list[Any]] = []

    def take(self, data: bytes, send: Callable[[bytes], None]) -> None:
        """One datagram came."""
        counts = self._counts
        counts.received += 1
        fate = self._fates.draw(self._link.rates)
        if fate.drop:
            counts.dropped += 1
        else:
            if fate.corrupt:
                counts.corrupted += 1
                data = corrupted(data, fate.corrupt)
            self._send(data, send, fate)
            if fate.duplicate:
                counts.duplicated += 1
                self._later(data, send, fate.delay_s)
        self._overtake()

    def _send(self, data: bytes, send: Callable[[bytes], None], fate: Fate) -> None:
        if fate.reorder:
            self._counts.reordered += 1
            # The one that is being handled counts as well, at the end of `take`.
            entry = [fate.overtaken_by + 1, None, data, send]
            loop = asyncio.get_running_loop()
            entry[1] = loop.call_later(OVERTAKEN_S + fate.delay_s, self._release, entry)
            self._waiting.append(entry)
        elif fate.delay_s:
            self._counts.delayed += 1
            self._later(data, send, fate.delay_s)
        else:
            self._emit(data, send)

    def _later(self, data: bytes, send: Callable[[bytes], None], delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._emit, data, send)

    def _overtake(self) -> None:
        for entry in list(self._waiting):
            entry[0] -= 1
            if entry[0] <= 0:
                self._release(entry)

    def _release(self, entry: list[Any]) -> None:
        if entry in self._waiting:
            self._waiting.remove(entry)
            entry[1].cancel()
            self._emit(entry[2], entry[3])

    def _emit(self, data: bytes, send: Callable[[bytes], None]) -> None:
        self._counts.sent += 1
        send(data)


class _Client(asyncio.DatagramProtocol):
    """One client's socket towards the venue."""

    def __init__(self, link: LossyLink, address: Address, number: int) -> None:
        self.up = _Way(link, "up", number)
        self._down = _Way(link, "down", number)
        self._link = link
        self._address = address
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._link.is_open("down"):
            self._down.take(data, self._answer)

    def _answer(self, data: bytes) -> None:
        self._link.answer(data, self._address)

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data, self._link.target)


class _Front(asyncio.DatagramProtocol):
    """The socket that clients send to."""

    def __init__(self, link: LossyLink) -> None:
        self._link = link

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._link.arrived(data, addr)


class LossyLink:
    """Passes datagrams on between its clients and `target`, and fails at `rates`. Each client has a
    socket of its own towards the target, so it keeps its address there while `target` changes."""

    def __init__(self, target: Address, rates: Rates | None = None, seed: int = 0) -> None:
        self.port = 0
        self.target = target
        self.rates = rates or Rates()
        self.seed = seed
        self.counts = {"up": Counts(), "down": Counts()}
        self._stopped: set[str] = set()
        self._clients: dict[Address, _Client] = {}
        self._arriving: dict[Address, list[bytes]] = {}
        self._front: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> LossyLink:
        """Listen on a free port of 127.0.0.1."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        return self

    def __enter__(self) -> LossyLink:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def stop(self, up: bool = True, down: bool = True) -> None:
        """Nothing passes any more in these directions, and no fate is drawn for it."""
        self._stopped = {name for name, stopped in (("up", up), ("down", down)) if stopped}

    def heal(self) -> None:
        """Everything passes again, at the rates."""
        self._stopped = set()

    @property
    def clients(self) -> int:
        """How many addresses it has seen."""
        return len(self._clients)

    def told(self) -> dict[str, dict[str, int]]:
        """The counts as plain numbers, by direction."""
        return {name: asdict(counts) for name, counts in self.counts.items()}

    def close(self) -> None:
        """End everything; what is still held back is lost."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    # -- in the thread -------------------------------------------------------------------------

    def is_open(self, direction: str) -> bool:
        """Whether anything passes in this direction."""
        if direction in self._stopped:
            self.counts[direction].stopped += 1
            return False
        return True

    def arrived(self, data: bytes, address: Address) -> None:
        """A client sent a datagram."""
        if not self.is_open("up"):
            return
        client = self._clients.get(address)
        if client is not None:
            client.up.take(data, client.send)
        elif address in self._arriving:
            self._arriving[address].append(data)
        elif len(self._clients) + len(self._arriving) < CLIENTS_MAX:
            self._arriving[address] = [data]
            number = len(self._clients) + len(self._arriving) - 1
            task = self._loop.create_task(self._welcome(address, number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def answer(self, data: bytes, address: Address) -> None:
        """Send a datagram to a client."""
        if self._front is not None and not self._front.is_closing():
            self._front.sendto(data, address)

    async def _welcome(self, address: Address, number: int) -> None:
        client = _Client(self, address, number)
        await self._loop.create_datagram_endpoint(lambda: client, sock=_socket())
        self._clients[address] = client
        for data in self._arriving.pop(address):
            client.up.take(data, client.send)

    async def _listen(self) -> None:
        front = _socket()
        self.port = front.getsockname()[1]
        self._front, _ = await self._loop.create_datagram_endpoint(lambda: _Front(self),
                                                                   sock=front)

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in (self._front, *(client.transport for client in self._clients.values())):
            if transport is not None:
                transport.abort()
        # A round for the transports to close in.
        await asyncio.sleep(0)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made

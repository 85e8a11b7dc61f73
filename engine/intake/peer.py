"""One client's address over UDP: the shell of datagrams around its session (PROTOCOLS 3.2).

What the session writes as SoupBinTCP goes out as datagrams: sequenced messages as MoldUDP64
downstream packets, a heartbeat as one without messages, End of Session as its own, the rest as it
is. What is lost is asked for by its number and sent again.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from cython_core.event import CommandBatch
from cython_core.model import Source
from cython_core.mold import (
    MoldHeader,
    Packer,
    build_end_of_session,
    build_heartbeat,
)
from cython_core.soupbin import Login, build_debug, build_sequenced
from cython_core.stream import Streams
from engine import clock
from engine.accounts import Account
from engine.addresses import network_of_packed
from engine.errors import EngineError
from engine.intake.datagrams import Caller
from engine.intake.registry import Registry
from engine.intake.replay import StreamReader, first_packets, join, replay
from engine.intake.sent import Sent
from engine.intake.session import Session, Shell, State, Times
from engine.metrics import Counter

# A client's past goes out in runs of so many datagrams with a pause behind each: no socket of a
# client has to hold more, and other sessions come in between.
RUN_DATAGRAMS = 32
RUN_PAUSE_S = 0.002
# Nor does it go out to who has been silent for so many heartbeats.
SILENT_HEARTBEATS = 4
# A request is answered with at most so many datagrams, a session with so many a second, and out of
# the log so many times a second: a request is small and its sender's address easily forged.
REPLY_DATAGRAMS = 16
REPLIES_PER_SECOND = 4_096
LOG_READS_PER_SECOND = 64
# A session that ended with a roll says so for so long.
END_TOLD_NS = 10 * clock.NS_PER_S
# Wrong bytes are answered with a word of help, but not more often than this.
HELP_NS = clock.NS_PER_S

# A sockaddr_in6; those of IPv4 are shorter, with an address of ours behind them too.
NAME6_BYTES = 28

_ACCEPTED, _HEARTBEAT, _SEQUENCED, _END = b"AHSZ"


class Outlet(Protocol):
    """The socket that a peer's datagrams leave by."""

    def send(self, address: bytes, datagrams: list[bytes]) -> None:
        """Send, now or as soon as there is room; some may be lost."""


class Counts(Protocol):
    """What a peer counts."""

    gap_requests: Counter
    messages_again: Counter


class PeerDoor(Protocol):
    """What a peer asks of its door."""

    registry: Registry
    streams: Streams
    reader: StreamReader
    times: Times
    datagram_bytes: int
    memory_bytes: int

    @property
    def counts(self) -> Counts:
        """What is counted."""

    def check_password(self, peer: Peer, login: Login, account: Account | None) -> None:
        """Check it when its turn comes, then call the session's `password_checked`."""

    def closed(self, peer: Peer, reason: str) -> None:
        """A peer's session was closed."""

    def left(self, peer: Peer) -> None:
        """Nothing more comes from a peer or goes to it."""

    def dropped(self, reason: str) -> None:
        """A datagram was dropped."""


class Peer(Caller, Shell):
    """A login, then a live session, then maybe the telling of its end."""

    source = int(Source.UDP)

    def __init__(self, door: PeerDoor, outlet: Outlet, key: bytes, request: bytes) -> None:
        self._door = door
        self._outlet = outlet
        self.key = key
        # The login that opened it, byte for byte: a repeat gets the same answer.
        self.request = request
        self.address = address_text(key)
        self.host = self.address.rpartition(":")[0].strip("[]")
        self.session = Session(self, door.registry, door.times, clock.monotonic_ns())
        self.closed = False
        self._heard_ns = clock.monotonic_ns()
        self._speaks = asyncio.Event()
        self._speaks.set()
        # Another login at the same address took its place.
        self.replaced = False
        self._accepted = b""
        self._packer: Packer | None = None
        self._session_id = ""
        self._sent = Sent(door.memory_bytes)
        self._task: asyncio.Task[None] | None = None
        self._run_datagrams = 0
        self._end_ns = self._told_ns = self._helped_ns = 0
        self._second_ns = self._replies = self._log_reads = 0

    # -- the session calls ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        kind, packer = data[2], self._packer
        if packer is not None and kind in (_SEQUENCED, _END):
            datagrams = packer.pack(data)
            self._outlet.send(self.key, datagrams)
            self._run_datagrams += len(datagrams)
            self._sent.add(datagrams[:-1] if packer.ended else datagrams, last=packer.ended)
        elif packer is not None and kind == _HEARTBEAT:
            self._tell_next(packer)
        else:
            if kind == _ACCEPTED:
                self._accepted = data
            self._outlet.send(self.key, [data])

    def empty_batch(self) -> CommandBatch:
        raise RuntimeError("datagrams are decoded by the door")

    def give_back(self, batch: CommandBatch) -> None:
        raise RuntimeError("datagrams are decoded by the door")

    def deliver(self, batch: CommandBatch) -> None:
        raise RuntimeError("datagrams are decoded by the door")

    def check_password(self, login: Login, account: Account | None) -> None:
        self._door.check_password(self, login, account)

    def start_stream(self, account_id: int, from_number: int) -> None:
        door = self._door
        self._session_id = door.registry.session_id
        self._packer = Packer(self._session_id, from_number, door.datagram_bytes)
        self.decoder = self.session.decoder
        self.renew_limit()
        if from_number == door.streams.next_number(account_id):
            join(door.streams, self, account_id)
        else:
            self._task = asyncio.get_running_loop().create_task(
                self._replay(account_id, from_number))

    def renew_limit(self) -> None:
        """The account's limit may have changed; without one nothing is counted."""
        seat = self.session.seat
        self.window = seat.window if seat is not None and seat.window.per_second else None

    async def _replay(self, account_id: int, from_number: int) -> None:
        door = self._door
        try:
            await replay(door.reader, door.streams, self, account_id, from_number,
                         RUN_DATAGRAMS * door.datagram_bytes)
        except EngineError as error:
            self.session.close(f"replay failed: {error}")

    def close(self, reason: str) -> None:
        if self.closed:
            return
        self.closed, self.decoder = True, None
        if self._task is not None:
            self._task.cancel()
        self._door.closed(self, reason)
        if self._packer is not None and self._packer.ended:
            self._told_ns = clock.monotonic_ns()
            self._end_ns = self._told_ns + END_TOLD_NS
            return
        if self._packer is not None and not self.replaced and reason != "logout":
            self._outlet.send(self.key, [build_debug(reason)])
        self._door.left(self)

    # -- replay calls --------------------------------------------------------------------------

    def send_slice(self, data: bytes) -> bool:
        if self.closed:
            return False
        self.session.write(data)
        return True

    def is_writable(self) -> bool:
        return self._run_datagrams < RUN_DATAGRAMS

    async def writable(self) -> None:
        if self._run_datagrams >= RUN_DATAGRAMS:
            await asyncio.sleep(RUN_PAUSE_S)
            await self._speaks.wait()
            self._run_datagrams = 0

    def joined(self) -> None:
        self.session.joined = True

    # -- the door calls ------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether its session is open."""
        return self.session.state is State.OPEN

    def tick(self, now_ns: int, paused: bool) -> None:
        """The door's clock ticks."""
        if self.closed:
            if now_ns >= self._end_ns:
                self._door.left(self)
            elif now_ns - self._told_ns >= self._door.times.heartbeat_ns:
                self._told_ns = now_ns
                self.tell_end()
            return
        if self.heard:
            self.heard, self._heard_ns = False, now_ns
            self._speaks.set()
            self.session.hear()
        elif now_ns - self._heard_ns >= SILENT_HEARTBEATS * self._door.times.heartbeat_ns:
            self._speaks.clear()
        self.session.tick(now_ns, paused)

    def repeat_accepted(self) -> None:
        """The login came again: so does its answer."""
        self._outlet.send(self.key, [self._accepted])

    def tell_end(self) -> None:
        """The session is over: say so."""
        if self._packer is not None:
            self._outlet.send(self.key, [build_end_of_session(self._session_id,
                                                              self._packer.next_number)])

    def help(self, text: str, now_ns: int) -> None:
        """Tell a client's author what is wrong with a datagram, once in a while."""
        if now_ns - self._helped_ns >= HELP_NS:
            self._helped_ns = now_ns
            self._outlet.send(self.key, [build_debug(text)])

    # -- gap requests --------------------------------------------------------------------------

    def send_again(self, asked: MoldHeader, now_ns: int) -> None:
        """Answer a gap request of this session with what it asks for, as far as it is kept and
        within the limits above."""
        door, packer = self._door, self._packer
        if packer is None or asked.session != self._session_id:
            door.dropped("request_session")
            return
        self.heard = True
        door.counts.gap_requests.add()
        if asked.sequence >= packer.next_number or asked.sequence < 1 or asked.count == 0:
            self._tell_next(packer)
            return
        if not self._may_reply(now_ns):
            door.dropped("request_rate")
            return
        count = min(asked.count, packer.next_number - asked.sequence)
        try:
            framed = self._find(asked.sequence, count, now_ns)
        except EngineError as error:
            self.help(f"messages from number {asked.sequence} on: {error}", now_ns)
            return
        if framed:
            self._reply(asked.sequence, framed)

    def _find(self, first: int, count: int, now_ns: int) -> bytes:
        """Framed messages from memory or the log; b"" when the log was asked too often. Raises
        EngineError when they are not kept."""
        limit_bytes = REPLY_DATAGRAMS * self._door.datagram_bytes
        if 0 < self._sent.first_number <= first:
            messages = self._sent.messages(first, count, limit_bytes)
            return b"".join(map(build_sequenced, messages))
        seat = self.session.seat
        if self.closed or seat is None:
            raise EngineError("the session ended, and they are not in memory any more")
        if self._log_reads >= LOG_READS_PER_SECOND:
            self._door.dropped("request_rate")
            return b""
        self._log_reads += 1
        framed, after = self._door.reader.read_stream(seat.account.id, first, limit_bytes)
        return framed if after - first <= count else first_packets(framed, count)

    def _reply(self, first: int, framed: bytes) -> None:
        replies = Packer(self._session_id, first, self._door.datagram_bytes)
        datagrams = replies.pack(framed)
        if len(datagrams) > REPLY_DATAGRAMS:
            del datagrams[REPLY_DATAGRAMS:]
        self._replies += len(datagrams)
        last = datagrams[-1]
        self._door.counts.messages_again.add(
            int.from_bytes(last[10:18], "big") + int.from_bytes(last[18:20], "big") - first)
        self._outlet.send(self.key, datagrams)

    def _may_reply(self, now_ns: int) -> bool:
        if now_ns - self._second_ns >= clock.NS_PER_S:
            self._second_ns, self._replies, self._log_reads = now_ns, 0, 0
        return self._replies < REPLIES_PER_SECOND

    def _tell_next(self, packer: Packer) -> None:
        self._outlet.send(self.key, [build_heartbeat(self._session_id, packer.next_number)])


def address_text(key: bytes) -> str:
    """A socket address, IPv4 or IPv6, as HOST:PORT."""
    port = int.from_bytes(key[2:4], "big")
    if len(key) < NAME6_BYTES:
        return f"{socket.inet_ntop(socket.AF_INET, key[4:8])}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, key[8:24])}]:{port}"


def host_of(key: bytes) -> bytes:
    """What counts as one address for bad logins; see engine/addresses.py."""
    return network_of_packed(key[4:8] if len(key) < NAME6_BYTES else key[8:24])

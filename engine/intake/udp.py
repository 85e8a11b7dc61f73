"""Order entry over UDP (PROTOCOLS 3.2): the same sessions as over TCP, in datagrams.

All datagrams of one read go into one batch of commands. A stranger is listened to only for a
login, and never gets more bytes than it sent. Nothing here awaits on the order's path: when the
queue of commands is full, the door keeps its one batch, stops reading, and is called back when
there is room; meanwhile datagrams wait in the kernel, and are lost when that is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from cython_core.event import CommandBatch
from cython_core.mold import HEADER_BYTES, is_mold, parse_header
from cython_core.soupbin import Login, WireError, build_login_rejected, parse_login
from cython_core.stream import Streams
from engine import clock, log
from engine.accounts import Account, fold_username
from engine.config import OrderEntryConfig
from engine.errors import EngineError
from engine.intake.datagrams import DATAGRAM_MAX, Caller, DatagramSocket
from engine.intake.passwords import PasswordChecker
from engine.intake.peer import Peer, address_text, host_of
from engine.intake.registry import Registry
from engine.intake.replay import StreamReader
from engine.intake.session import NOT_AUTHORISED, NOT_AVAILABLE, Times
from engine.intake.throttle import Guard
from engine.metrics import Metrics
from engine.queues import TwoLaneQueue
from engine.spare import SparePool

TICKS_PER_HEARTBEAT = 4
# Logins that may wait for their turn; a client whose login found no room sends it again.
LOGINS_MAX = 256
# Datagrams that wait for room in the kernel; what comes then is lost, and asked for again.
UNSENT_DATAGRAMS_MAX = 4_096
SEND_BUFFER_BYTES = 4 * 2**20

# Linux: what a socket's memory is used for, nine numbers of which the last is what was dropped.
SO_MEMINFO = 55
# Linux; the socket module knows it from Python 3.12 on.
IP_PKTINFO = 8
MEMINFO = struct.Struct("=9I")

# Why datagrams are dropped.
REASONS = ("stranger", "wrong_bytes", "oversized", "login_full", "login_waits", "request_session",
           "request_rate", "ended")

Address = tuple[Any, ...]
Check = tuple[Peer, Login, Account | None]


class UdpCounts:
    """What the door counts beside what all doors count."""

    def __init__(self, metrics: Metrics, door: UdpDoor) -> None:
        counter = metrics.counter
        self.datagrams_in = counter("udp_datagrams_in", "datagrams", "datagrams received")
        counter("udp_received", "bytes", "bytes received in datagrams",
                lambda: door.total("bytes_in"))
        counter("udp_datagrams_out", "datagrams", "datagrams sent",
                lambda: door.total("datagrams_out"))
        counter("udp_sent", "bytes", "bytes sent in datagrams",
                lambda: door.total("bytes_out"))
        self.gap_requests = counter("udp_gap_requests", "requests",
                                    "requests for messages that were lost")
        self.messages_again = counter("udp_messages_again", "messages",
                                      "messages sent again because they were asked for")
        self.throttled = counter("udp_logins_throttled", "logins",
                                 "logins refused unseen after failures of their address or "
                                 "account")
        self.unsent = counter("udp_datagrams_unsent", "datagrams",
                              "datagrams lost because the system had no room or refused them",
                              door.unsent)
        counter("udp_kernel_drops", "datagrams",
                "datagrams that the kernel dropped because its buffer was full",
                door.kernel_drops)
        self.dropped = {reason: counter("udp_dropped", "datagrams",
                                        "datagrams that were not taken, by reason",
                                        labels={"reason": reason},
                                        read=door.strangers if reason == "stranger" else None)
                        for reason in REASONS}
        metrics.gauge("udp_peers", "peers", "addresses with a session, or one that just ended",
                      lambda: door.peer_count)


class Line:
    """One bound socket, and the datagrams that wait to leave by it."""

    def __init__(self, bound: socket.socket) -> None:
        self.socket = bound
        self.datagrams = DatagramSocket(bound.fileno(), _tell_own_address(bound))
        self.unsent = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, list[bytes]]] = deque()
        self._waiting_count = 0
        self._drops = 0

    def send(self, address: bytes, datagrams: list[bytes]) -> None:
        """Send, now or as soon as there is room."""
        if not self._waiting:
            done = self.datagrams.send(address, datagrams)
            if done == len(datagrams):
                return
            datagrams = datagrams[done:]
            self._loop.add_writer(self.socket, self._writable)
        if self._waiting_count + len(datagrams) > UNSENT_DATAGRAMS_MAX:
            self.unsent += len(datagrams)
            return
        self._waiting.append((address, datagrams))
        self._waiting_count += len(datagrams)

    def _writable(self) -> None:
        while self._waiting:
            address, datagrams = self._waiting.popleft()
            done = self.datagrams.send(address, datagrams)
            self._waiting_count -= done
            if done < len(datagrams):
                self._waiting.appendleft((address, datagrams[done:]))
                return
        self._loop.remove_writer(self.socket)

    def read(self, callback: Callable[[Line], None] | None) -> None:
        """Call back when something came; None stops that."""
        if callback is None:
            self._loop.remove_reader(self.socket)
        else:
            self._loop.add_reader(self.socket, callback, self)

    @property
    def kernel_drops(self) -> int:
        """Datagrams that came and found the kernel's buffer full."""
        with contextlib.suppress(OSError, struct.error):
            self._drops = MEMINFO.unpack(self.socket.getsockopt(
                socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size))[8]
        return self._drops

    def close(self) -> None:
        """Close the socket; what it counted stays."""
        self._drops = self.kernel_drops
        self._loop.remove_reader(self.socket)
        self._loop.remove_writer(self.socket)
        self.datagrams.close()
        self.socket.close()


class UdpDoor:
    """Listens for datagrams, and keeps every peer."""

    def __init__(self, config: OrderEntryConfig, registry: Registry, streams: Streams,
                 reader: StreamReader, commands: TwoLaneQueue[CommandBatch], spare: SparePool,
                 metrics: Metrics) -> None:
        self.registry = registry
        self.streams = streams
        self.reader = reader
        self.times = Times(config.login_timeout_ms, config.heartbeat_ms, config.timeout_ms)
        self.datagram_bytes = config.udp_datagram_bytes
        self.memory_bytes = config.udp_memory_bytes
        self.counts = UdpCounts(metrics, self)
        self.log = log.get("intake")
        self._config = config
        self._commands = commands
        self._spare = spare
        # One check at a time: a flood of logins has one core at most, and failures are counted
        # before the next one is begun.
        self._passwords = PasswordChecker(threads=1)
        self._guard = Guard()
        self._lines: list[Line] = []
        self._peers: dict[bytes, Caller] = {}
        # Peers whose login waits, by address, in the order they came.
        self._logins: dict[bytes, Peer] = {}
        self._checks: asyncio.Queue[Check] = asyncio.Queue()
        self._held: CommandBatch | None = None
        self._reading = False
        self._stopped = False

    # -- what others read off ------------------------------------------------------------------

    @property
    def peer_count(self) -> int:
        """Addresses that have a session, or had one until a moment ago."""
        return len(self._peers)

    @property
    def connection_count(self) -> int:
        """As for TCP: whoever is there, logged in or not."""
        return len(self._peers) + len(self._logins)

    @property
    def listening(self) -> bool:
        """Whether datagrams are taken; also when there is no room for more just now."""
        return bool(self._lines) and not self._stopped

    def total(self, name: str) -> int:
        """A counter of all sockets together."""
        return sum(int(getattr(line.datagrams, name)) for line in self._lines)

    def unsent(self) -> int:
        """Datagrams that could not be sent."""
        return sum(line.unsent + line.datagrams.failed for line in self._lines)

    def strangers(self) -> int:
        """Datagrams of strangers that were no logins."""
        return self.total("strangers")

    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped."""
        return sum(line.kernel_drops for line in self._lines)

    # -- life ----------------------------------------------------------------------------------

    async def listen(self, handed: Sequence[socket.socket] = ()) -> int:
        """Start to listen, on the sockets that were handed over if there are any; returns the
        port. Raises EngineError when the address is not ours."""
        host, port = self._config.host, self._config.udp_port
        try:
            for bound in handed:
                _prepare(bound, self._config.udp_receive_buffer_bytes)
                self._lines.append(Line(bound))
                host, port = bound.getsockname()[:2]
            for family, address in () if handed else await _addresses(host, port):
                bound = _bind(family, (address[0], port, *address[2:]),
                              self._config.udp_receive_buffer_bytes)
                self._lines.append(Line(bound))
                if port == 0:
                    port = bound.getsockname()[1]
        except OSError as error:
            raise EngineError(f"cannot listen on {host}:{port} for datagrams: "
                              f"{error.strerror or error}",
                              "order_entry.host and order_entry.udp_port") from error
        self._read(True)
        # What the kernel grants; it says twice as much, for its own needs.
        room = self._lines[0].socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        self.log.info("udp listening", host=host, port=port, handed_over=bool(handed),
                      receive_buffer_bytes=room)
        return port

    def renew_limits(self) -> None:
        """Limits of accounts may have changed."""
        for peer in self._peers.values():
            if isinstance(peer, Peer):
                peer.renew_limit()

    async def tick_for_ever(self) -> None:
        """Heartbeats and time-outs of every peer."""
        period_s = self._config.heartbeat_ms / 1000 / TICKS_PER_HEARTBEAT
        while True:
            await asyncio.sleep(period_s)
            now_ns = clock.monotonic_ns()
            for peer in tuple(self._peers.values()):
                if isinstance(peer, Peer):
                    peer.tick(now_ns, not self._reading)

    async def check_logins_for_ever(self) -> None:
        """Check the passwords of those who wait, one by one."""
        while True:
            peer, login, account = await self._checks.get()
            right = await self._is_right(peer, login, account)
            del self._logins[peer.key]
            self._go_on(peer, account if right else None)

    def stop_reading(self) -> None:
        """Take in nothing more: the first step of draining."""
        self._stopped = True
        self._read(False)

    async def shut(self, reason: str) -> None:
        """Close every session without End of Session, and the sockets."""
        self.stop_reading()
        for peer in tuple(self._peers.values()):
            if isinstance(peer, Peer):
                peer.session.close(reason)
        self._peers.clear()
        for line in self._lines:
            line.close()
        self._passwords.close()

    def _read(self, on: bool) -> None:
        if on == self._reading or (on and self._stopped):
            return
        self._reading = on
        for line in self._lines:
            line.read(self._readable if on else None)

    # -- datagrams -----------------------------------------------------------------------------

    def _readable(self, line: Line) -> None:
        datagrams = line.datagrams
        if self._held is not None:
            # The other socket filled the queue in this very turn of the loop.
            return
        try:
            count = datagrams.receive()
        except OSError as error:
            self.log.warning("datagrams cannot be read", error=str(error), key=error.errno)
            return
        if not count:
            return
        self.counts.datagrams_in.add(count)
        now_ns = clock.monotonic_ns()
        batch = self._spare.take()
        batch.generation = self.registry.generation
        at = 0
        while (at := datagrams.take_in(self._peers, at, batch, now_ns)) < count:
            self._look_at(line, at, now_ns)
            at += 1
        if batch.command_count:
            self._deliver(batch)
        else:
            self._spare.give(batch)

    def _deliver(self, batch: CommandBatch) -> None:
        metrics, commands = self.registry.metrics, self._commands
        metrics.commands.add(batch.command_count)
        metrics.batches.observe(batch.command_count)
        if not commands.full():
            commands.put_nowait(batch)
            return
        self._held = batch
        self._read(False)
        commands.when_room(self._room)

    def _room(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._commands.closed:
            self._commands.put_nowait(held)
        self._read(True)

    def _look_at(self, line: Line, at: int, now_ns: int) -> None:
        """A datagram that is not orders and heartbeats of an open session."""
        key, data = line.datagrams.sender(at), line.datagrams.data(at)
        peer = self._peers.get(key)
        if data[2:3] == b"L" and not is_mold(data):
            self._log_in(line, key, data, now_ns)
        elif not isinstance(peer, Peer):
            self.dropped("stranger")
        elif line.datagrams.is_cut(at):
            self._refuse(peer, "oversized", f"a datagram of over {DATAGRAM_MAX} bytes", now_ns)
        elif data and is_mold(data):
            self._request(peer, data, now_ns)
        elif peer.closed:
            self.dropped("ended")
            peer.tell_end()
        elif line.datagrams.is_logout:
            peer.session.close("logout")
        else:
            why = line.datagrams.fault or f"{len(data)} bytes are no packet"
            self._refuse(peer, "wrong_bytes", why, now_ns)

    def _refuse(self, peer: Peer, reason: str, why: str, now_ns: int) -> None:
        """A datagram from the address of a session that is wrong somewhere: none of it is done.
        The session lives on, because anybody can forge an address."""
        self.dropped(reason)
        self.log.info("datagram dropped", account=peer.session.username, address=peer.address,
                      reason=why, key=peer.key)
        peer.help(f"datagram dropped: {why}", now_ns)

    def _request(self, peer: Peer, data: bytes, now_ns: int) -> None:
        try:
            header = parse_header(data)
            if len(data) != HEADER_BYTES:
                raise WireError(f"a request of {len(data)} bytes, not {HEADER_BYTES}")
        except WireError as error:
            self._refuse(peer, "wrong_bytes", str(error), now_ns)
            return
        peer.send_again(header, now_ns)

    # -- logins --------------------------------------------------------------------------------

    def _log_in(self, line: Line, key: bytes, data: bytes, now_ns: int) -> None:
        known = self._peers.get(key)
        if isinstance(known, Peer) and known.live and known.request == data:
            known.heard = True
            known.repeat_accepted()
            return
        if key in self._logins:
            self.dropped("login_waits")
            return
        try:
            if int.from_bytes(data[:2], "big") != len(data) - 2:
                raise WireError("a login stands alone in its datagram")
            login = parse_login(data[3:])
        except WireError as error:
            if isinstance(known, Peer):
                self._refuse(known, "wrong_bytes", str(error), now_ns)
            else:
                self.dropped("stranger")
            return
        if self._guard.is_closed(host_of(key), fold_username(login.username), now_ns):
            self._throttled(line, key)
        elif known is None and self.connection_count >= self._config.connections_max:
            self.registry.metrics.turned_away.add()
            line.send(key, [build_login_rejected(NOT_AVAILABLE)])
        elif len(self._logins) >= LOGINS_MAX:
            self.dropped("login_full")
        else:
            self._logins[key] = peer = Peer(self, line, key, data)
            peer.session.log_in(login)

    def _throttled(self, line: Line, key: bytes) -> None:
        self.counts.throttled.add()
        self.registry.metrics.logins_refused.add()
        line.send(key, [build_login_rejected(NOT_AUTHORISED)])
        self.log.info("login refused unseen", address=address_text(key), key=host_of(key))

    def check_password(self, peer: Peer, login: Login, account: Account | None) -> None:
        """Check it when its turn comes."""
        self._checks.put_nowait((peer, login, account))

    async def _is_right(self, peer: Peer, login: Login, account: Account | None) -> bool:
        host, name = host_of(peer.key), fold_username(login.username)
        if self._guard.is_closed(host, name, clock.monotonic_ns()):
            self.counts.throttled.add()
            return False
        if account is not None and not account.admits(peer.host):
            self.log.info("login from a wrong place", account=account.username,
                          address=peer.address, key=account.username)
            account = None
        right = await self._passwords.check(account, login.password)
        if right:
            self._guard.succeeded(host, name)
        else:
            self._guard.failed(host, name, clock.monotonic_ns())
        return right

    def _go_on(self, peer: Peer, account: Account | None) -> None:
        """Go on with a login whose password was checked."""
        old = self._peers.get(peer.key)
        session = peer.session
        if isinstance(old, Peer) and account is not None and old.live:
            session.replaces = old.session
            old.replaced = True
        session.password_checked(account, clock.monotonic_ns())
        if not peer.live:
            if isinstance(old, Peer):
                old.replaced = False
            return
        if isinstance(old, Peer):
            old.session.close("replaced by another login at its address")
        self._peers[peer.key] = peer
        self.log.info("session opened", account=session.username, address=peer.address,
                      session=self.registry.session_id, transport="udp")

    # -- the peer calls ------------------------------------------------------------------------

    def closed(self, peer: Peer, reason: str) -> None:
        """A session was closed, or a login refused: one line, limited by what repeats."""
        name = peer.session.username
        if name:
            self.log.info("session closed", account=name, address=peer.address, reason=reason,
                          transport="udp", key=name)
        else:
            # Not limited by the whole reason: a stranger may vary it.
            self.log.info("login refused", address=peer.address, reason=reason,
                          key=reason.partition(":")[0])

    def left(self, peer: Peer) -> None:
        """Nothing more comes from a peer or goes to it."""
        if self._peers.get(peer.key) is peer:
            del self._peers[peer.key]

    def dropped(self, reason: str) -> None:
        """A datagram was dropped."""
        self.counts.dropped[reason].add()


async def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, Address]]:
    """What a host name stands for, each address once."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _tell_own_address(bound: socket.socket) -> bool:
    """Whether a socket is bound to every address: then the kernel is asked to say which one of
    ours a datagram was sent to, because answers have to leave from there."""
    host = bound.getsockname()[0].partition("%")[0]
    if not host or not ipaddress.ip_address(host).is_unspecified:
        return False
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    return True


def _bind(family: socket.AddressFamily, address: Address, receive_bytes: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_DGRAM)
    try:
        _prepare(bound, receive_bytes)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _prepare(listener: socket.socket, receive_bytes: int) -> None:
    """Have a socket as the door wants it, whoever made it. Raises OSError."""
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

"""Order entry over TCP: a thin shell of sockets around the session.

Bytes are read straight into a buffer of the connection, decoded there in one call, and what came
of it goes onto the command queue. Nothing here awaits on the order's path: when the queue is
full the connection keeps its one batch, stops reading, and is called back when there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import socket
import ssl
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from cython_core.event import CommandBatch
from cython_core.model import Source
from cython_core.soupbin import Login
from cython_core.stream import Streams
from engine import clock, log
from engine.accounts import Account, fold_username
from engine.addresses import network_of
from engine.config import OrderEntryConfig
from engine.errors import EngineError
from engine.intake.passwords import PasswordChecker
from engine.intake.registry import Registry
from engine.intake.replay import StreamReader, join, replay
from engine.intake.session import Session, Shell, State, Times
from engine.intake.throttle import Guard
from engine.listen import listen
from engine.queues import TwoLaneQueue
from engine.spare import SparePool
from engine.tls import certificate_of

# While a client is sent its past, at most this much waits for it in memory, and at most half of
# what cuts a client: it goes live with these bytes unsent, and must have room for new ones.
REPLAY_UNSENT_BYTES = 2**20
# Heartbeats and time-outs are looked at this many times per heartbeat.
TICKS_PER_HEARTBEAT = 4
# Who connects waits here until it is accepted.
BACKLOG = 1024
# How long a closing connection may take for its last bytes.
LINGER_S = 2.0
# What is read of a client before its login was accepted: that is one small packet.
STRANGER_BYTES = 4_096


class Connection(asyncio.BufferedProtocol, Shell):
    """One client's socket."""

    source = int(Source.TCP)

    def __init__(self, door: Door) -> None:
        self._door = door
        self._session = Session(self, door.registry, door.times, clock.monotonic_ns())
        # Pages of a mapping exist once they are touched: an idle connection costs one.
        self._view = memoryview(mmap.mmap(-1, door.receive_bytes))
        self._filled = 0
        self._held: CommandBatch | None = None
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._streaming = False
        # Its password is being looked at: that is gone through with, and counts.
        self._looking = False
        self.closed = False
        self.address = self.host = ""

    # -- the transport calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else "?"
        self.host = self.address.rpartition(":")[0]
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._limit_unsent(self._door.unsent_bytes)
        self._door.arrived(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._session.state is not State.OPEN:
            return self._view[self._filled:STRANGER_BYTES]
        return self._view[self._filled:] if self._filled else self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._door.registry.metrics.tcp_received.add(nbytes)
        self._take_in()

    def eof_received(self) -> None:
        self._session.close("the client closed")

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.close(f"connection lost: {exc}" if exc else "connection lost")
        if self._task is not None and not self._looking:
            self._task.cancel()
        self._writable.set()
        # The mapping goes as soon as nobody looks at it, not when the cycle collector comes.
        self._filled, self._view = 0, memoryview(b"")
        self._door.left(self)
        self._transport = None
        self._session.release()

    def pause_writing(self) -> None:
        self._writable.clear()
        if not self._streaming and not self.closed:
            self._door.registry.metrics.slow_readers.add()
            self._session.close(f"slow reader: over {self._door.unsent_bytes} bytes unsent")
            # Not at once: we are inside the transport's write.
            asyncio.get_running_loop().call_soon(self.abort)

    def resume_writing(self) -> None:
        self._writable.set()

    def _take_in(self) -> None:
        """Let the session have what was read, as far as it takes it."""
        consumed = self._session.receive(self._view, self._filled, clock.monotonic_ns())
        if consumed == self._filled:
            self._filled = 0
        elif consumed:
            left = self._filled - consumed
            self._view[:left] = self._view[consumed:self._filled]
            self._filled = left

    # -- the session calls ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            self._door.registry.metrics.tcp_sent.add(len(data))

    def empty_batch(self) -> CommandBatch:
        return self._door.spare.take()

    def give_back(self, batch: CommandBatch) -> None:
        self._door.spare.give(batch)

    def deliver(self, batch: CommandBatch) -> None:
        door = self._door
        door.registry.metrics.commands.add(batch.command_count)
        door.registry.metrics.batches.observe(batch.command_count)
        if not door.commands.full():
            door.commands.put_nowait(batch)
            return
        self._held = batch
        self._pause()
        door.commands.when_room(self._room)

    def _room(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._door.commands.closed:
            self._door.commands.put_nowait(held)
        self._resume()

    def check_password(self, login: Login, account: Account | None) -> None:
        if self._door.is_refused_unseen(self, login):
            return
        self._pause()
        self._door.sent_login(self)
        self._run(self._check_password(login, account))

    async def _check_password(self, login: Login, account: Account | None) -> None:
        door, host = self._door, network_of(self.host)
        name = fold_username(login.username)
        await door.passwords.turns.take(door.guard.is_known(host, name))
        try:
            # Others at this address may have failed meanwhile.
            if self.closed or door.is_refused_unseen(self, login):
                return
            self._looking = True
            right = await door.passwords.check(self._admitted(account), login.password)
        finally:
            door.passwords.turns.give()
            self._task, self._looking = None, False
        if right:
            door.guard.succeeded(host, name)
        else:
            door.guard.failed(host, name, clock.monotonic_ns())
        self._go_on(account if right else None)

    def _go_on(self, account: Account | None) -> None:
        """The password was checked."""
        self._session.password_checked(account, clock.monotonic_ns())
        if self._session.state is State.OPEN:
            self._door.logged_in(self, self._session)
        self._resume()
        if self._filled:
            self._take_in()

    def _admitted(self, account: Account | None) -> Account | None:
        """The account if it may log in from here, with the certificate that was shown."""
        transport = self._transport
        if account is None or transport is None:
            return None
        if account.admits(self.host, certificate_of(transport)):
            return account
        self._door.log.info("login from a wrong place", account=account.username,
                            address=self.address, key=account.username)
        return None

    def refuse_unseen(self) -> None:
        """Its password is not looked at."""
        self._session.password_checked(None, clock.monotonic_ns(), "too many failures")

    def start_stream(self, account_id: int, from_number: int) -> None:
        door = self._door
        if from_number == door.streams.next_number(account_id):
            join(door.streams, self, account_id)
            return
        self._streaming = True
        self._limit_unsent(min(REPLAY_UNSENT_BYTES, door.unsent_bytes // 2))
        self._run(self._replay(account_id, from_number))

    async def _replay(self, account_id: int, from_number: int) -> None:
        door = self._door
        try:
            await replay(door.reader, door.streams, self, account_id, from_number,
                         door.slice_bytes)
        except EngineError as error:
            self._session.close(f"replay failed: {error}")

    def close(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self._door.closed(self, self._session, reason)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    # -- replay calls --------------------------------------------------------------------------

    def send_slice(self, data: bytes) -> bool:
        if self.closed:
            return False
        self._session.write(data)
        return True

    def is_writable(self) -> bool:
        return self._writable.is_set()

    async def writable(self) -> None:
        await self._writable.wait()

    def joined(self) -> None:
        self._streaming = False
        self._session.joined = True
        self._limit_unsent(self._door.unsent_bytes)

    # -- helpers -------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """The door's clock ticks."""
        self._session.tick(now_ns, self._held is not None)

    def stop_reading(self) -> None:
        """Take in no more commands."""
        self._pause()

    def shut(self, reason: str) -> None:
        """Close without End of Session: the session lives on."""
        self._session.close(reason)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)

    def _pause(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._transport is not None and not self.closed and not self._transport.is_reading():
            self._transport.resume_reading()

    def _limit_unsent(self, high_bytes: int) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=high_bytes)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


class Door:
    """Listens, and keeps every connection."""

    def __init__(self, config: OrderEntryConfig, registry: Registry, streams: Streams,
                 reader: StreamReader, commands: TwoLaneQueue[CommandBatch],
                 spare: SparePool, tls: ssl.SSLContext | None = None) -> None:
        self.registry = registry
        self.streams = streams
        self.reader = reader
        self.commands = commands
        self.spare = spare
        self.passwords = PasswordChecker()
        self.guard = Guard()
        self.times = Times(config.login_timeout_ms, config.heartbeat_ms, config.timeout_ms)
        self.receive_bytes = config.receive_buffer_bytes
        self.unsent_bytes = config.unsent_max_bytes
        self.slice_bytes = config.replay_slice_bytes
        self.log = log.get("intake")
        self._config = config
        self._tls = tls
        self._connections: set[Connection] = set()
        # Of these, those who have not logged in, in the order they came: who has sent nothing yet,
        # and whose password is being checked.
        self._silent: dict[Connection, None] = {}
        self._checked: dict[Connection, None] = {}
        self._empty = asyncio.Event()
        self._servers: list[Any] = []

    @property
    def connection_count(self) -> int:
        """Open connections, logged in or not."""
        return len(self._connections)

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return any(server.is_serving() for server in self._servers)

    async def listen(self, handed: Sequence[socket.socket] = ()) -> int:
        """Start to listen, on the sockets that were handed over if there are any; returns the
        port. Raises EngineError when the address is not ours."""
        host, port = self._config.host, self._config.tcp_port
        try:
            for listener in handed or (None,):
                self._servers.append(await listen(
                    lambda: Connection(self), host, port, BACKLOG, self._tls, listener))
        except OSError as error:
            raise EngineError(f"cannot listen on {host}:{port}: {error.strerror or error}",
                              "order_entry.host and order_entry.tcp_port") from error
        bound = [server.sockets[0].getsockname()[:2] for server in self._servers]
        for host, port in bound:
            self.log.info("listening", host=host, port=port, handed_over=bool(handed))
        return int(bound[0][1])

    async def tick_for_ever(self) -> None:
        """Heartbeats and time-outs of every connection."""
        period_s = self._config.heartbeat_ms / 1000 / TICKS_PER_HEARTBEAT
        while True:
            await asyncio.sleep(period_s)
            now_ns = clock.monotonic_ns()
            for connection in tuple(self._connections):
                connection.tick(now_ns)

    def arrived(self, connection: Connection) -> None:
        """A connection was made. With one too many somebody has to go: who has waited longest
        without a login, then who waits longest for the answer to it; this one when all others are
        logged in."""
        self._connections.add(connection)
        self._silent[connection] = None
        self._empty.clear()
        if len(self._connections) > self._config.connections_max:
            self.registry.metrics.turned_away.add()
            longest = next(iter(self._silent))
            if longest is connection:
                longest = next(iter(self._checked), connection)
            longest.shut(f"over {self._config.connections_max} connections, and not logged in")
            longest.abort()

    def sent_login(self, connection: Connection) -> None:
        """A connection waits for the answer to its login."""
        self._silent.pop(connection, None)
        self._checked[connection] = None

    def is_refused_unseen(self, connection: Connection, login: Login) -> bool:
        """Whether a login comes after too many failures; then it has been refused."""
        if not self.guard.is_closed(network_of(connection.host), fold_username(login.username),
                                    clock.monotonic_ns()):
            return False
        self.registry.metrics.tcp_throttled.add()
        connection.refuse_unseen()
        return True

    def logged_in(self, connection: Connection, session: Session) -> None:
        """A session was opened."""
        self._forget_stranger(connection)
        self.log.info("session opened", account=session.username, address=connection.address,
                      session=self.registry.session_id)

    def _forget_stranger(self, connection: Connection) -> None:
        self._silent.pop(connection, None)
        self._checked.pop(connection, None)

    def closed(self, connection: Connection, session: Session, reason: str) -> None:
        """A connection was closed: one line, limited by what repeats."""
        self._forget_stranger(connection)
        if session.username:
            self.log.info("session closed", account=session.username, address=connection.address,
                          reason=reason, key=session.username)
        else:
            # Not limited by the whole reason: a stranger may vary it.
            self.log.info("connection closed", address=connection.address, reason=reason,
                          key=reason.partition(":")[0])

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def stop_reading(self) -> None:
        """Listen no more and take in no more commands: the first step of draining."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.stop_reading()

    async def shut(self, reason: str) -> None:
        """Close every connection without End of Session, and wait until they are gone."""
        for connection in tuple(self._connections):
            connection.shut(reason)
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), LINGER_S + 1)
        self.passwords.close()

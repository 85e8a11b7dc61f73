"""One order-entry session: the rules of SoupBinTCP (PROTOCOLS 1), without a socket.

The connection that carries a session (the `Shell`) hands it bytes and time; the session answers
by calling the shell. So every rule here can be tested with bytes alone.

    LOGIN --L--> PASSWORD --right--> OPEN --O, time-out, roll, takeover, wrong bytes--> CLOSED
"""

from __future__ import annotations

import enum
from typing import Literal, Protocol

from cython_core.event import CommandBatch
from cython_core.model import Source
from cython_core.ouch import Decoder, Stop
from cython_core.soupbin import (
    END_OF_SESSION,
    SERVER_HEARTBEAT,
    Login,
    WireError,
    build_login_accepted,
    build_login_rejected,
    parse_login,
)
from engine import clock
from engine.accounts import Account
from engine.intake.registry import Live, Registry, Seat

# A client may name its own time-out (4.10), within these bounds: a client must be able to make
# good for one lost heartbeat, and a dead peer must not hold its session for ever.
CLIENT_TIMEOUT_MIN_MS = 1_000
CLIENT_TIMEOUT_MAX_MS = 60_000

FRAME_BYTES = 3
# A login has 52 bytes; who is not logged in has no business with long packets.
FIRST_PACKET_BYTES_MAX = 1_024

NOT_AUTHORISED: Literal["A"] = "A"
NOT_AVAILABLE: Literal["S"] = "S"


class State(enum.Enum):
    """Where a session stands."""

    LOGIN = "waiting for the login"
    PASSWORD = "checking the password"  # noqa: S105 - a name of a state
    OPEN = "open"
    CLOSED = "closed"


class Times:
    """The limits of a session in time, in nanoseconds."""

    __slots__ = ("heartbeat_ns", "login_ns", "silence_ns")

    def __init__(self, login_ms: int, heartbeat_ms: int, timeout_ms: int) -> None:
        self.login_ns = login_ms * clock.NS_PER_MS
        self.heartbeat_ns = heartbeat_ms * clock.NS_PER_MS
        self.silence_ns = timeout_ms * clock.NS_PER_MS


class Shell(Protocol):
    """What a session asks of what carries it: a connection (TCP) or a peer (UDP). `address` is
    where the client is, `source` the model.Source of its commands."""

    address: str
    source: int

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def deliver(self, batch: CommandBatch) -> None:
        """Put commands on their way to the matcher; may stop reading until there is room."""

    def empty_batch(self) -> CommandBatch:
        """A batch to decode into."""

    def give_back(self, batch: CommandBatch) -> None:
        """A batch that nothing was decoded into."""

    def check_password(self, login: Login, account: Account | None) -> None:
        """Check it elsewhere, then call the session's `password_checked`."""

    def start_stream(self, account_id: int, from_number: int) -> None:
        """Send the account's messages from this number, and run on live."""

    def close(self, reason: str) -> None:
        """Close the connection once what was written is sent."""


class _Gone(Shell):
    """What is left of a shell whose connection is gone: nothing that is asked of it happens."""

    def __init__(self, shell: Shell) -> None:
        self.address, self.source = shell.address, shell.source

    def write(self, data: bytes) -> None:
        return None

    def deliver(self, batch: CommandBatch) -> None:
        return None

    def empty_batch(self) -> CommandBatch:
        return CommandBatch()

    def give_back(self, batch: CommandBatch) -> None:
        return None

    def check_password(self, login: Login, account: Account | None) -> None:
        return None

    def start_stream(self, account_id: int, from_number: int) -> None:
        return None

    def close(self, reason: str) -> None:
        return None


class Session:
    """The protocol's state for one connection, or for one login over UDP."""

    def __init__(self, shell: Shell, registry: Registry, times: Times, now_ns: int) -> None:
        self.state = State.LOGIN
        self.seat: Seat | None = None
        self.generation = 0
        self.sent = False
        # Whether the client has been sent its past and gets every new message as it comes.
        self.joined = False
        # The session that ends when this one opens, whoever else may be refused: the one at the
        # same address over UDP.
        self.replaces: Live | None = None
        self.decoder: Decoder | None = None
        self._shell: Shell = shell
        self._registry = registry
        self._times = times
        self._silence_ns = times.silence_ns
        self._heard = False
        self._heard_ns = now_ns
        self._sent_ns = now_ns
        self._login: Login | None = None

    def release(self) -> None:
        """The connection is gone. It and the session held each other: now both go without the
        garbage collector."""
        self._shell = _Gone(self._shell)

    @property
    def username(self) -> str:
        """The account's name, "" before the login is accepted."""
        return self.seat.account.username if self.seat else ""

    @property
    def address(self) -> str:
        """Where the client is."""
        return self._shell.address

    @property
    def transport(self) -> str:
        """How the client reaches us: "tcp" or "udp"."""
        return Source(self._shell.source).name.lower()

    # -- bytes from the client -----------------------------------------------------------------

    def receive(self, data: memoryview, length: int, now_ns: int) -> int:
        """Take what is complete in the first `length` bytes; returns the bytes consumed."""
        self._heard = True
        if self.state is State.OPEN:
            return self._receive__open(data, length, now_ns)
        if self.state is State.LOGIN:
            return self._receive__login(data[:length])
        return length if self.state is State.CLOSED else 0

    def _receive__open(self, data: memoryview, length: int, now_ns: int) -> int:
        decoder, seat = self.decoder, self.seat
        if decoder is None or seat is None:
            raise RuntimeError("an open session has a seat and a decoder")
        batch = self._shell.empty_batch()
        batch.generation = self.generation
        consumed, stop = decoder.feed(data, batch, seat.window.budget(now_ns), 0, length)
        seat.window.spend(decoder.entered)
        if batch.command_count:
            self._shell.deliver(batch)
        else:
            self._shell.give_back(batch)
        if stop:
            self._receive__stop(stop, decoder.stop_reason)
        return consumed

    def _receive__stop(self, stop: int, why: str) -> None:
        if stop == Stop.LOGOUT:
            self.close("logout")
        else:
            self._registry.metrics.wrong_bytes.add()
            self.close(f"wrong bytes: {why}")

    def _receive__login(self, data: memoryview) -> int:
        """The first packet is the login; debug packets and heartbeats before it are passed over."""
        consumed = 0
        try:
            while self.state is State.LOGIN and len(data) - consumed >= FRAME_BYTES:
                length = int.from_bytes(data[consumed:consumed + 2], "big")
                kind = chr(data[consumed + 2])
                if kind not in "L+R" or length > FIRST_PACKET_BYTES_MAX:
                    raise WireError(f"a first packet {kind!r} of length {length} is no login")
                if len(data) - consumed < length + 2:
                    break
                consumed += length + 2
                if kind == "L":
                    self.log_in(parse_login(data[consumed - length + 1:consumed]))
        except WireError as error:
            self._receive__stop(Stop.PACKET_TYPE, str(error))
        return consumed

    # -- the login -----------------------------------------------------------------------------

    def log_in(self, login: Login) -> None:
        """Begin the login; `password_checked` goes on with it."""
        self.state = State.PASSWORD
        self._login = login
        self._shell.check_password(login, self._registry.find(login.username))

    def password_checked(self, account: Account | None, now_ns: int,
                         why: str = "user or password") -> None:
        """Go on with the login: the account when its password was right, else None and `why`."""
        login = self._login
        if self.state is not State.PASSWORD or login is None:
            return
        if account is None or not self._registry.is_current(account):
            self._refuse(NOT_AUTHORISED, why)
            return
        refusal = self._registry.refusal(account, login.session, login.sequence, self.replaces)
        if refusal:
            self._refuse(NOT_AVAILABLE, refusal)
            return
        self._open(account, login, now_ns)

    def _refuse(self, reason: Literal["A", "S"], why: str) -> None:
        self._registry.metrics.logins_refused.add()
        self._shell.write(build_login_rejected(reason))
        name = self._login.username if self._login else ""
        self.close(f"login refused ({reason}): {why}, account {name!r}")

    def _open(self, account: Account, login: Login, now_ns: int) -> None:
        registry = self._registry
        self.seat = registry.seat(account.id)
        self.state = State.OPEN
        self._heard_ns = now_ns
        if login.heartbeat_timeout_ms:
            asked_ms = min(max(login.heartbeat_timeout_ms, CLIENT_TIMEOUT_MIN_MS),
                           CLIENT_TIMEOUT_MAX_MS)
            self._silence_ns = asked_ms * clock.NS_PER_MS
        registry.occupy(self.seat, self)
        self.generation = registry.generation
        self.decoder = registry.decoder(account.id, self._shell.source)
        number = login.sequence or registry.next_number(account.id)
        self.write(build_login_accepted(registry.session_id, number))
        self._shell.start_stream(account.id, number)

    # -- time, and what others ask of the session ----------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, which stand for a heartbeat too."""
        self.sent = True
        self._shell.write(data)

    def hear(self) -> None:
        """The client sent something that its shell took in by itself."""
        self._heard = True

    def tick(self, now_ns: int, paused: bool) -> None:
        """Look at the clock: heartbeats out, silence of the client. Called several times per
        heartbeat. While `paused` we do not read, so the client is not to blame for silence."""
        if self.state is State.OPEN:
            self._tick__open(now_ns, paused)
        elif self.state is not State.CLOSED and now_ns - self._heard_ns >= self._times.login_ns:
            self.close("no login in time")

    def _tick__open(self, now_ns: int, paused: bool) -> None:
        if self._heard or paused:
            self._heard, self._heard_ns = False, now_ns
        elif now_ns - self._heard_ns >= self._silence_ns:
            self.close(f"silent for {self._silence_ns // clock.NS_PER_MS} ms")
            return
        if self.sent:
            self.sent, self._sent_ns = False, now_ns
        elif now_ns - self._sent_ns >= self._times.heartbeat_ns:
            self._sent_ns = now_ns
            self._shell.write(SERVER_HEARTBEAT)

    def end_of_session(self) -> None:
        """The session rolled: this one is over for good. A live stream ended with Z by itself;
        one that was still being replayed ends here."""
        if not self.joined:
            self._shell.write(END_OF_SESSION)
        self.close("end of session")

    def close(self, reason: str) -> None:
        """Close the session; the account's stream lives on."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        if self.seat is not None:
            self._registry.leave(self.seat, self)
        self._shell.close(reason)

"""Who is here: accounts, their live sessions, and the running session of the venue.

One live session per account. The registry knows the generation that clients have seen end or
begin, that is where the reports stage stands, not where the matcher does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from cython_core.ouch import Decoder, SymbolTable
from cython_core.stream import Streams
from engine import log
from engine.accounts import Account, fold_username
from engine.errors import EngineError
from engine.intake.rate import RateWindow
from engine.metrics import SIZES, Metrics


class Live(Protocol):
    """A session as the registry sees it."""

    def write(self, data: bytes) -> None:
        """Send framed packets."""

    def end_of_session(self) -> None:
        """The session rolled: close."""

    def close(self, reason: str) -> None:
        """Close the session."""

    @property
    def address(self) -> str:
        """Where the client is."""

    @property
    def transport(self) -> str:
        """How it reaches us: "tcp" or "udp"."""


class Past(Protocol):
    """The journal, as far as a login needs it."""

    def session_id(self, generation: int) -> str:
        """The name of a generation's session, 10 characters."""

    def read_stream(self, account_id: int, from_number: int,
                    limit_bytes: int) -> tuple[bytes, int]:
        """Framed packets of the account's stream. Raises EngineError when they are not kept."""


class Seat:
    """One account's place at the door."""

    __slots__ = ("account", "live", "window")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.window = RateWindow(account.messages_per_second)
        self.live: Live | None = None


class DoorMetrics:
    """What the door counts."""

    def __init__(self, metrics: Metrics) -> None:
        counter = metrics.counter
        self.logins = counter("logins", "logins", "logins accepted")
        self.logins_refused = counter("logins_refused", "logins", "logins rejected")
        self.tcp_throttled = counter("tcp_logins_throttled", "logins", "logins over TCP refused "
                                     "unseen after failures of their address or account")
        self.takeovers = counter("takeovers", "sessions", "sessions taken over by a new login")
        self.wrong_bytes = counter("wrong_bytes", "sessions", "sessions closed for wrong bytes")
        self.slow_readers = counter("slow_readers", "sessions", "sessions cut as slow readers")
        self.turned_away = counter("turned_away", "connections", "connections closed, or not "
                                   "taken, because there were as many as the limit allows")
        self.commands = counter("commands", "commands", "commands taken in at the door")
        self.tcp_received = counter("tcp_received", "bytes", "bytes read from order entry's "
                                    "connections")
        self.tcp_sent = counter("tcp_sent", "bytes", "bytes written to order entry's connections")
        self.batches = metrics.histogram("command_batch_commands", "commands",
                                         "commands decoded out of one read of a socket", SIZES)


class Registry:
    """Accounts by name, sessions by account."""

    def __init__(self, accounts: Iterable[Account], symbols: SymbolTable, streams: Streams,
                 past: Past, generation: int, second_login: str, metrics: Metrics) -> None:
        self.generation = generation
        self.session_id = past.session_id(generation)
        self.metrics = DoorMetrics(metrics)
        self._seats = {account.id: Seat(account) for account in accounts}
        self._by_name = {seat.account.username: seat for seat in self._seats.values()}
        self._symbols = symbols
        self._streams = streams
        self._past = past
        self._takeover = second_login == "takeover"
        self._on_roll: list[Callable[[int], None]] = []
        self._log = log.get("intake")

    # -- logins ------------------------------------------------------------------------------

    def find(self, username: str) -> Account | None:
        """The account that may enter orders under this name; case does not matter."""
        seat = self._by_name.get(fold_username(username))
        return seat.account if seat and seat.account.role != "read-only" else None

    def is_current(self, account: Account) -> bool:
        """Whether the account may still log in with the password that was checked: the table may
        have been read again meanwhile."""
        known = self.find(account.username)
        return known is not None and known.id == account.id and (
            known.password_hash == account.password_hash)

    def refusal(self, account: Account, session_id: str, number: int,
                replaces: Live | None = None) -> str:
        """Why a login with the right password cannot be served now; "" when it can. A live session
        that it `replaces` is in nobody's way."""
        if account.id not in self._seats:
            return "the account was removed"
        if session_id and session_id != self.session_id:
            return f"session {session_id!r} is not the running one"
        next_number = self._streams.next_number(account.id)
        if number > next_number:
            return f"number {number} asked for, the next one is {next_number}"
        live = self._seats[account.id].live
        if not self._takeover and live is not None and live is not replaces:
            return "the account has a live session"
        if 0 < number < next_number:
            return self._unreadable(account.id, number)
        return ""

    def _unreadable(self, account_id: int, number: int) -> str:
        try:
            self._past.read_stream(account_id, number, 1)
        except EngineError as error:
            return f"messages from number {number} on cannot be replayed: {error}"
        return ""

    def replace(self, accounts: Iterable[Account]) -> None:
        """Have these accounts, and no others. Sessions go on, but for those of accounts that are
        gone or may not enter orders any more; a new limit holds from now on."""
        wanted = {account.id: account for account in accounts}
        for account_id, seat in list(self._seats.items()):
            account = wanted.pop(account_id, None)
            if account is None:
                self.disconnect(account_id, "the account was removed")
                del self._seats[account_id]
                continue
            if account.role == "read-only":
                self.disconnect(account_id, "the account may not enter orders any more")
            seat.account = account
            seat.window.per_second = account.messages_per_second
        self._seats |= {account.id: Seat(account) for account in wanted.values()}
        self._by_name = {seat.account.username: seat for seat in self._seats.values()}

    def seat(self, account_id: int) -> Seat:
        """The account's place."""
        return self._seats[account_id]

    def occupy(self, seat: Seat, session: Live) -> None:
        """Give the seat to a new session; an older one is closed."""
        if seat.live is not None:
            self.metrics.takeovers.add()
            seat.live.close("taken over by a new login")
        seat.live = session
        self.metrics.logins.add()

    def leave(self, seat: Seat, session: Live) -> None:
        """The session is over: nothing of the account's stream is sent any more."""
        if seat.live is session:
            seat.live = None
            self._streams.set_live(seat.account.id, False)

    def decoder(self, account_id: int, source: int) -> Decoder:
        """A fresh decoder for the account's next connection, over TCP or UDP."""
        return Decoder(self._symbols, account_id, source)

    def next_number(self, account_id: int) -> int:
        """The number of the account's next sequenced message, as far as reports has come."""
        return self._streams.next_number(account_id)

    def send(self, account_id: int, data: bytes) -> None:
        """Write framed messages to the account's live session."""
        live = self._seats[account_id].live
        if live is not None:
            live.write(data)

    # -- everybody -----------------------------------------------------------------------------

    def live(self) -> Iterator[Live]:
        """Every live session."""
        return (seat.live for seat in list(self._seats.values()) if seat.live is not None)

    def seats(self) -> Sequence[Seat]:
        """Every account's place, taken or not."""
        return list(self._seats.values())

    def disconnect(self, account_id: int, reason: str) -> bool:
        """Close an account's live session; whether there was one."""
        live = self._seats[account_id].live
        if live is not None:
            live.close(reason)
        return live is not None

    def live_count(self) -> int:
        """How many sessions are live."""
        return sum(1 for _ in self.live())

    def when_rolled(self, callback: Callable[[int], None]) -> None:
        """Call back once, with the new generation, when the next roll has reached the clients."""
        self._on_roll.append(callback)

    def rolled(self, generation: int) -> None:
        """The session rolled, durably: close everybody's and begin the next one."""
        for session in self.live():
            session.end_of_session()
        self.generation = generation
        self.session_id = self._past.session_id(generation)
        self._log.info("session rolled", generation=generation, session=self.session_id)
        callbacks, self._on_roll = self._on_roll, []
        for callback in callbacks:
            callback(generation)

"""A session over UDP: login, heartbeats, time-outs, messages in order (PROTOCOLS section 3.2).

It tells its owner what `Link` does, in the same two calls. What the network does to datagrams is
made good here for what the venue sends: messages are put in order, missing ones asked for. What
the client sends is made good by the outbox: this link sends each datagram once.

What is not well-formed is dropped: anybody can send a datagram in the venue's name.
"""

import asyncio

from cython_core import mold, soupbin
from engine.clients.datagram_socket import DatagramSocket, open_socket
from engine.clients.errors import ClientError, ConnectionLostError
from engine.clients.link import OnLogin, OnMessages, opening
from engine.clients.reorder import Gaps, Reorder
from engine.clients.round_trip import RoundTrip
from engine.clients.soup import Sequenced, login_refused
from engine.errors import ProtocolError

# A login is sent again when it is not answered; checking a password takes the venue a moment.
LOGIN_FIRST_S, LOGIN_LEAST_S, LOGIN_MOST_S = 0.3, 0.3, 2.0
# After a debug packet (the session may be over) the venue is heard of again within this time.
DOUBT_S = 1.5
# Such a word is about a datagram, and nothing changed.
HELP = "datagram dropped"
# How long the last messages of a session that ended are asked for.
END_S = 3.0
# Nobody answers a logout, so a second one stands by.
LOGOUTS = 2


class DatagramLink:
    """A session on a socket, or one that is getting there. Use `DatagramWay.open`."""

    def __init__(self, on_login: OnLogin, on_messages: OnMessages, heartbeat_s: float,
                 timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_login, self._on_messages = on_login, on_messages
        self._heartbeat_s, self._timeout_s = heartbeat_s, timeout_s
        self._socket: DatagramSocket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._login = b""
        self._login_round_trip = RoundTrip(LOGIN_FIRST_S, LOGIN_LEAST_S, LOGIN_MOST_S)
        self._logins = 0
        self._login_due = 0.0
        self._asked = soupbin.Login("", "", "", 0, None)
        self._session = ""
        self._reorder = Reorder(0)
        self._gaps = Gaps(self._reorder)
        self._end_number: int | None = None
        self._end_at = 0.0
        self._sent_at = self._heard_at = self._loop.time()
        self.disturbed_at = -1.0
        self._said = ""
        self._fault: Exception | None = None
        self.logged_in: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def ended(self) -> bool:
        """The venue said that the session is over for good."""
        return self._end_number is not None

    @property
    def complete(self) -> bool:
        """Whether everything came that is known to have been said."""
        return self._reorder.complete

    @property
    def renewable(self) -> bool:
        """Whether a new login from the same address goes on where this one was. Behind the end of
        a session it must not: a datagram that was underway would be done in the next one."""
        return (self.logged_in.done() and self.logged_in.exception() is None and not self.ended
                and not isinstance(self._fault, ProtocolError))

    @property
    def fault(self) -> Exception:
        """Why the link is closed."""
        return self._fault or ConnectionLostError("the link was closed")

    def start(self, connected: DatagramSocket, login: bytes) -> None:
        """Log in over this socket."""
        self._socket = connected
        connected.receiver = self
        connected.resume()
        self._login = login
        self._asked = soupbin.parse_login(login[3:])
        self._heard_at = self._loop.time()
        self._tick()

    def write(self, data: bytes) -> None:
        """Send one datagram; dropped when the link is closed."""
        if self._socket is not None:
            self._sent_at = self._loop.time()
            self._socket.send(data)

    def log_out(self) -> None:
        """Tell the venue that the session is over for now."""
        for _ in range(LOGOUTS):
            self.write(soupbin.LOGOUT_REQUEST)

    def pause_reading(self) -> None:
        if self._socket is not None:
            self._socket.pause()

    def resume_reading(self) -> None:
        if self._socket is not None:
            # What waited in the kernel was no silence, and what it lost was not asked for.
            self._heard_at = self._loop.time()
            self._gaps = Gaps(self._reorder)
            self._socket.resume()

    def close(self, fault: Exception | None = None) -> None:
        """Be done with the socket, which may serve another link."""
        if self.closed.done():
            return
        self._fault = fault
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.receiver = None
            self._socket = None
        if not self.logged_in.done():
            self.logged_in.set_exception(self.fault)
            self.logged_in.exception()  # told to `open` only where that still waits
        self.closed.set_result(None)

    async def wait_closed(self) -> None:
        """Wait until the link is closed. Shielded: who stops waiting closes nothing."""
        await asyncio.shield(self.closed)

    # -- called by the socket ----------------------------------------------------------------

    def received(self, datagrams: list[bytes]) -> None:
        messages: list[Sequenced] = []
        complete = self._reorder.complete
        try:
            for datagram in datagrams:
                try:
                    if mold.is_mold(datagram):
                        messages += self._sequenced(datagram)
                    else:
                        self._control(datagram)
                except soupbin.WireError:
                    continue
            if not complete or not self._reorder.complete:
                self.disturbed_at = self._loop.time()
            if messages and not self.closed.done():
                self._on_messages(messages)
        except (ClientError, ProtocolError) as error:
            self.close(error)
            return
        if self.ended and self._reorder.complete:
            self.close()
        elif not self.closed.done():
            self._tick()

    def refused(self, error: OSError) -> None:
        place = self._socket.place if self._socket is not None else "its address"
        self.close(ConnectionLostError(
            f"can't reach the venue at {place}: {error.strerror or error}",
            "is the daemon running?"))

    def _sequenced(self, datagram: bytes) -> list[Sequenced]:
        header, messages = mold.parse_packet(datagram)
        if not self.logged_in.done() or header.session.strip() != self._session:
            return []
        self._heard_at = self._loop.time()
        if header.count == mold.END_OF_SESSION_COUNT and self._end_number is None:
            self._end_number, self._end_at = header.sequence, self._heard_at + END_S
        self._reorder.announce(header.sequence)
        return self._reorder.take(header.sequence, messages)

    def _control(self, datagram: bytes) -> None:
        """A datagram of SoupBinTCP packets, in practice of one."""
        packets = soupbin.PacketReader("server").feed(datagram)
        found = list(packets)
        if packets.take_rest():
            raise soupbin.WireError("the packets do not fill the datagram")
        for kind, payload in found:
            if kind == "+":
                self._doubt(payload)
            elif kind == "A" and not self.logged_in.done():
                self._accepted(*soupbin.parse_login_accepted(payload))
            elif kind == "J" and not self.logged_in.done():
                raise login_refused(payload)

    def _accepted(self, session: str, sequence: int) -> None:
        """A login was accepted: ours, or one that we have given up for this one."""
        if (self._asked.session and self._asked.session != session
                or self._asked.sequence and self._asked.sequence != sequence):
            return
        self._heard_at = self._loop.time()
        self._session = session
        self._reorder = Reorder(sequence)
        self._gaps = Gaps(self._reorder)
        self._on_login(session, sequence)
        if not self.logged_in.done():
            self.logged_in.set_result(None)

    def _doubt(self, text: bytes) -> None:
        """The venue explains something. When it says nothing more after that, the session is
        over most likely."""
        self._said = text.decode("ascii", "replace")
        if not self._said.startswith(HELP):
            self._heard_at = min(self._heard_at, self._loop.time() - self._timeout_s + DOUBT_S)

    # -- time --------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        due = self._tick__open(now) if self.logged_in.done() else self._tick__login(now)
        if not self.closed.done():
            self._timer = self._loop.call_at(due, self._tick)

    def _tick__login(self, now: float) -> float:
        if now >= self._login_due:
            self._logins += 1
            self._login_due = now + self._login_round_trip.wait_s(self._logins)
            self.write(self._login)
        return self._login_due

    def _tick__open(self, now: float) -> float:
        if self.ended and now >= self._end_at:
            self.close()
        elif now - self._heard_at > self._timeout_s and self._reading():
            said = f"; it said last: {self._said}" if self._said else ""
            self.close(ConnectionLostError(f"the venue was silent for {self._timeout_s} s{said}"))
        elif self._gaps.stuck_s(now) > self._timeout_s and self._reading():
            # A login finds out whether the venue still has it.
            self.close(ConnectionLostError("the venue does not send again what was lost"))
        for first, count in self._gaps.ask(now):
            self.write(mold.build_request(self._session, first, count))
        if now - self._sent_at >= self._heartbeat_s * 0.9:
            self.write(soupbin.CLIENT_HEARTBEAT)
        # Often enough that a beat is never late by more than half of its period.
        due = self._gaps.due(now)
        beat = now + self._heartbeat_s / 2
        return beat if due is None else min(due, beat)

    def _reading(self) -> bool:
        return self._socket is not None and self._socket.is_reading


class DatagramWay:
    """The way to the venue over UDP. Its socket serves one link after the other while the venue
    is only silent: for the venue that is one client that logs in again."""

    def __init__(self, host: str, port: int, heartbeat_s: float, silence_max_s: float,
                 login_timeout_s: float) -> None:
        self._address = host, port
        self._times = heartbeat_s, silence_max_s
        self._login_timeout_s = login_timeout_s
        self._socket: DatagramSocket | None = None
        self._link: DatagramLink | None = None

    def new_link(self, on_login: OnLogin, on_messages: OnMessages) -> DatagramLink:
        """A link that `open` can open."""
        return DatagramLink(on_login, on_messages, *self._times)

    async def open(self, link: DatagramLink, login: bytes) -> None:
        """Log in. Raises ConnectionLostError, LoginRejectedError or ProtocolError."""
        host, port = self._address
        async with opening(link, host, port, self._login_timeout_s):
            if self._socket is None or self._link is None or not self._link.renewable:
                self.close()
                self._socket = await open_socket(host, port)
            self._link = link
            link.start(self._socket, login)
            await asyncio.shield(link.logged_in)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

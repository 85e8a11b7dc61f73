"""One TCP connection of a client: login, heartbeats, time-outs. Knows nothing of OUCH.

A `Way` makes links of one transport, and a `SessionLink` is what the client knows of either. The
link tells its owner what came by two calls, `on_login` before the first message and
`on_messages` with each read; `closed` is done when the connection is gone.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar, cast

from cython_core import soupbin
from engine.clients.errors import ClientError, ConnectionLostError
from engine.clients.soup import Sequenced, SoupSession
from engine.errors import ProtocolError

OnLogin = Callable[[str, int], None]
OnMessages = Callable[[list[Sequenced]], None]


class SessionLink(Protocol):
    """A session that is open, or about to be. `logged_in` and `closed` are done when it is."""

    logged_in: asyncio.Future[None]
    closed: asyncio.Future[None]

    @property
    def ended(self) -> bool:
        """The venue said that the session is over for good."""

    @property
    def complete(self) -> bool:
        """Whether everything came that the venue is known to have said."""

    @property
    def disturbed_at(self) -> float:
        """When something was missing last that the venue had said, by the clock of the loop."""

    @property
    def fault(self) -> Exception:
        """Why the link is closed."""

    def write(self, data: bytes) -> None:
        """Send packets; dropped when the link is closed."""

    def log_out(self) -> None:
        """Tell the venue that the session is over for now."""

    def pause_reading(self) -> None:
        """Leave what comes to the kernel."""

    def resume_reading(self) -> None:
        """Read again."""

    def close(self, fault: Exception | None = None) -> None:
        """Close the link."""

    async def wait_closed(self) -> None:
        """Wait until it is closed."""


class Link(asyncio.Protocol):
    """A logged-in connection, or one that is getting there. Use `open_link`."""

    def __init__(self, on_login: OnLogin, on_messages: OnMessages, heartbeat_s: float,
                 timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_login = on_login
        self._on_messages = on_messages
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._session = SoupSession()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = self._heard_at = self._loop.time()
        self._fault: Exception | None = None
        self.logged_in: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def ended(self) -> bool:
        """The venue said that the session is over for good."""
        return self._session.ended

    @property
    def complete(self) -> bool:
        """Whether everything came that the venue said: TCP leaves nothing out."""
        return True

    @property
    def disturbed_at(self) -> float:
        """Never: TCP leaves nothing out."""
        return -1.0

    @property
    def fault(self) -> Exception:
        """Why the link is closed."""
        return self._fault or ConnectionLostError("the venue closed the connection")

    def write(self, data: bytes) -> None:
        """Send bytes; dropped when the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._sent_at = self._loop.time()
            self._transport.write(data)

    def log_out(self) -> None:
        """Tell the venue that the session is over for now."""
        self.write(soupbin.LOGOUT_REQUEST)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            # What waited in the kernel was not silence.
            self._heard_at = self._loop.time()
            self._transport.resume_reading()

    def close(self, fault: Exception | None = None) -> None:
        """Close after what was written is sent; a fault closes at once."""
        self._fault = self._fault or fault
        if self._transport is None:
            self._set_closed()
        elif fault is None:
            self._transport.close()
        else:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone. Shielded: who stops waiting closes nothing."""
        await asyncio.shield(self.closed)

    # -- called by asyncio -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Those of uvloop are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        if self.closed.done():
            self._transport.abort()
        else:
            self._tick()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            messages = self._session.feed(data)
            if self._session.logged_in and not self.logged_in.done():
                self._on_login(self._session.session, self._session.first_sequence)
                self.logged_in.set_result(None)
            if messages:
                self._on_messages(messages)
        except (ClientError, ProtocolError) as error:
            self.close(error)
        if self._session.fault is not None:
            self.close(self._session.fault)
        elif self.ended:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if error is not None and self._fault is None:
            self._fault = ConnectionLostError(f"the connection broke: {error}")
        self._transport = None
        if not self.logged_in.done():
            self.logged_in.set_exception(self.fault)
            self.logged_in.exception()  # told to `open_link` only where that still waits
        self._set_closed()

    def _set_closed(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._heard_at > self._timeout_s and self._reading():
            self.close(ConnectionLostError(f"the venue was silent for {self._timeout_s} s"))
            return
        if self.logged_in.done() and now - self._sent_at >= self._heartbeat_s * 0.9:
            self.write(soupbin.CLIENT_HEARTBEAT)
        # Often enough that a beat is never late by more than half of its period.
        self._timer = self._loop.call_later(self._heartbeat_s / 2, self._tick)

    def _reading(self) -> bool:
        return self._transport is not None and self._transport.is_reading()


@contextlib.asynccontextmanager
async def opening(link: SessionLink, host: str, port: int,
                  timeout_s: float) -> AsyncIterator[None]:
    """Around connecting and logging in: whatever ends that early closes the link. Raises
    ConnectionLostError."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        late = ConnectionLostError(f"{host}:{port} did not answer in {timeout_s} s")
        link.close(late)
        raise late from error
    except OSError as error:
        gone = ConnectionLostError(
            f"can't reach the venue at {host}:{port}: {error.strerror or error}",
            "is the daemon running?")
        link.close(gone)
        raise gone from error
    except asyncio.CancelledError:
        link.close(ConnectionLostError("nobody waits for the login any more"))
        raise


async def open_link(link: Link, host: str, port: int, login: bytes, timeout_s: float,
                    tls: ssl.SSLContext | None = None) -> None:
    """Connect and log in. Raises ConnectionLostError, LoginRejectedError or ProtocolError."""
    loop = asyncio.get_running_loop()
    async with opening(link, host, port, timeout_s):
        await loop.create_connection(lambda: link, host, port, ssl=tls)
        link.write(login)
        await asyncio.shield(link.logged_in)


LinkKind = TypeVar("LinkKind", bound=SessionLink)


class Way(Protocol[LinkKind]):
    """The way to the venue over one transport."""

    def new_link(self, on_login: OnLogin, on_messages: OnMessages) -> LinkKind:
        """A link that `open` can open."""

    async def open(self, link: LinkKind, login: bytes) -> None:
        """Log in. Raises ConnectionLostError, LoginRejectedError or ProtocolError."""

    def close(self) -> None:
        """Open no more."""


class StreamWay:
    """The way to the venue over TCP: a connection for each link."""

    def __init__(self, host: str, port: int, heartbeat_s: float, silence_max_s: float,
                 login_timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        self._address = host, port
        self._tls = tls
        self._times = heartbeat_s, silence_max_s
        self._login_timeout_s = login_timeout_s

    def new_link(self, on_login: OnLogin, on_messages: OnMessages) -> Link:
        """A link that `open` can open."""
        return Link(on_login, on_messages, *self._times)

    async def open(self, link: Link, login: bytes) -> None:
        """Log in. Raises ConnectionLostError, LoginRejectedError or ProtocolError."""
        await open_link(link, *self._address, login, self._login_timeout_s, self._tls)

    def close(self) -> None:
        """Nothing is kept between links."""

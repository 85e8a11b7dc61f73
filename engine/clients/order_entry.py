"""The client of the venue's order entry: SoupBinTCP and OUCH 5.0, over TCP or UDP.

    async with OrderEntryClient("127.0.0.1", 9001, "MAKER1", "demo") as client:
        answer = await client.enter("BTC-USDT", "B", "0.5", "60000.00")

Every request returns an `Answer` at once: the message is on its way, in the order of the calls;
awaiting it gives what the venue said. Everything that the venue says comes by `executions()` too,
each message once, in order.

A broken connection is made again, with the same session and the next sequence number, so no
message is lost or repeated. Requests without an answer are sent again under their old numbers: the
venue takes a number once, so an order is never entered twice.

Over UDP (`transport="udp"`) the same holds for every datagram that is lost, repeated or overtaken.
A session may move from one transport to the other.

An account has one live session. A login elsewhere with the same account takes this one over, and
this client then takes it back: use one account for one program.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from cython_core import ouch, soupbin
from engine import config, log
from engine.clients.datagram_link import DatagramWay
from engine.clients.errors import (
    AnswerTimeoutError,
    ClientError,
    ConnectionLostError,
    LoginRejectedError,
    RequestIgnoredError,
    ResumeError,
    SessionOverError,
    TooManyInFlightError,
)
from engine.clients.executions import (
    Accepted,
    AccountQueried,
    Canceled,
    EntryDisabled,
    EntryEnabled,
    Execution,
    MassCanceled,
    Modified,
    Rejected,
    Replaced,
    SessionEnded,
    decode,
)
from engine.clients.link import SessionLink, StreamWay, Way
from engine.clients.outbox import DatagramOutbox, Outbox, StreamOutbox
from engine.clients.pending import Answer, Kinds, Pending, Request
from engine.clients.soup import Sequenced
from engine.clients.terms import Price, Quantity, Terms
from engine.errors import ProtocolError
from engine.instruments import Instrument

# An order is named by its UserRefNum, or by the message that told of it.
Order: TypeAlias = int | Accepted | Replaced
Report: TypeAlias = Execution | SessionEnded
Transport: TypeAlias = Literal["tcp", "udp"]

USER_REF_NUM_MAX = 2**32 - 1
# How long a venue may be silent: it says something each second. TCP repeats what is lost, UDP asks.
SILENCE_MAX_S: dict[Transport, float] = {"tcp": 15.0, "udp": 3.0}
# An account query before a login is asked again after this time.
PROBE_AGAIN_S = 0.5
RECONNECT_DELAY_S = 0.05
RECONNECT_DELAY_MAX_S = 2.0
# A connection that lived this long counts as good: the next break starts the delays anew.
STABLE_AFTER_S = 5.0


class OrderEntryClient:
    """One account's session. Not thread-safe; belongs to the running event loop."""

    def __init__(
        self, host: str, port: int, username: str, password: str, *,
        instruments: Iterable[Instrument] | None = None,
        session: str = "", sequence: int = 0,
        transport: Transport = "tcp", udp_window: int = 1_024,
        heartbeat_s: float = 1.0, silence_max_s: float | None = None,
        login_timeout_s: float = 10.0,
        answer_timeout_s: float = 30.0, reconnect_for_s: float = 60.0,
        in_flight_max: int = 10_000, backlog_max: int = 65_536,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`instruments` convert decimals (default: those of the configuration found here).

        `session` and `sequence` say where the stream of executions starts: 0 with what is new, n
        with message n of the session (blank: the running one), so 1 is all of it.
        `transport` is tcp or udp, `udp_window` the venue's `order_entry.udp_window`.
        A venue that is silent for `silence_max_s` (15 over TCP, 3 over UDP) is logged in to anew.
        `reconnect_for_s` is how long a lost connection is tried again; 0 for not at all.
        `in_flight_max` bounds the requests without an answer, `backlog_max` the messages that
        wait in `executions()`: beyond that the client stops reading. `tls` is for a venue that
        speaks it, over TCP.
        """
        self._host = host
        self._credentials = username, password
        if transport not in ("tcp", "udp"):
            raise ValueError("a transport is tcp or udp")
        self._tls = tls
        if instruments is None:
            instruments = config.load_settings().instruments
        self._terms = Terms(instruments)
        self._session, self._next_sequence = session, sequence
        self._heartbeat_s, self._silence_max_s = heartbeat_s, silence_max_s
        self._udp_window = udp_window
        self._login_timeout_s, self._answer_timeout_s = login_timeout_s, answer_timeout_s
        self._reconnect_for_s = reconnect_for_s
        self._in_flight_max = in_flight_max
        self._log = log.get("client")

        self._way = self._new_way(transport, host, port)
        self._link: SessionLink | None = None
        self._moving = False
        self._keeper: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reconnects = 0
        self._closing = False
        self._fault: Exception | None = None

        # The session that ended, and whether all of it came, until the next one is open.
        self._over: tuple[str, bool] | None = None

        # Requests, numbered in the order of asking, and how they leave.
        self._pending = Pending(self._removed)
        self._outbox = self._new_outbox(transport)
        self._requests = 0
        self._next_user_ref_num = 1
        self._queried: AccountQueried | None = None

        # Answers to fences below this number belong to somebody's past.
        self._history_end = 0

        # Once someone reads the stream, or asked for the past, nothing may be dropped.
        self._backlog: deque[Report] = deque()
        self._backlog_max = backlog_max
        self._lossless = sequence > 0
        self._paused = False
        self._arrived = asyncio.Event()

    # -- the connection ----------------------------------------------------------------------

    @property
    def session(self) -> str:
        """The running session's name."""
        return self._session

    @property
    def next_sequence(self) -> int:
        """The number of the next message: what to give as `sequence` to go on from here."""
        return self._next_sequence

    @property
    def next_user_ref_num(self) -> int:
        """The number that the next request will have."""
        return self._next_user_ref_num

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return len(self._pending)

    @property
    def reconnects(self) -> int:
        """How often the connection was made again."""
        return self._reconnects

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    async def connect(self) -> None:
        """Log in and learn the next UserRefNum.

        Raises LoginRejectedError and ConnectionLostError; the first connection is not tried again.
        """
        try:
            if self._next_sequence:
                await self._probe()
            await self._open_link(self._session, self._next_sequence)
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
            self._tick()
            if self._queried is None:
                await self.account_query()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Send what is waiting, log out, end the stream."""
        self._closing = True
        if self._link is not None:
            self._outbox.flush()
            self._link.log_out()
            self._link.close()
            await self._link.wait_closed()
        self._way.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._end(ConnectionLostError("the client was closed"))

    async def move(self, transport: Transport, port: int, host: str | None = None) -> None:
        """Go on over this transport, with the next message; returns when the venue answered there.
        Requests without an answer are sent again.

        Over TCP the venue takes numbers in ascending order only. So a request that got lost on UDP
        while a later one arrived ends with RequestIgnoredError when the session moves to TCP: it
        was not carried out.

        Raises what makes the client give up.
        """
        link, old_way = self._link, self._way
        if link is None or self._closing or self._fault is not None:
            raise self._fault or ConnectionLostError("the client is not connected")
        new_way = self._new_way(transport, host or self._host, port)
        self._outbox.link = None
        self._way, self._outbox = new_way, self._new_outbox(transport)
        self._moving = True
        link.log_out()
        link.close(ConnectionLostError(f"the session moves to {transport}"))
        old_way.close()
        await self.account_query()

    async def _probe(self) -> str:
        """Log in for new messages only, learn the UserRefNum, and leave again. Returns the name
        of the running session.

        The past of a session holds answers to old account queries; so before a login that asks
        for the past, ask once where only new messages come, and note where the past ends.
        """
        found: asyncio.Future[Sequenced] = asyncio.get_running_loop().create_future()
        session = ""

        def note_login(name: str, _sequence: int) -> None:
            nonlocal session
            session = name

        def note_messages(messages: list[Sequenced]) -> None:
            for message in messages:
                if message.payload[:1] == b"Q" and not found.done():
                    found.set_result(message)

        link = self._way.new_link(note_login, note_messages)
        await self._way.open(link, self._login("", 0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._login_timeout_s):
                while not found.done() and not link.closed.done():
                    # Over UDP it may be lost.
                    link.write(soupbin.build_unsequenced(ouch.encode_inbound("Q")))
                    await asyncio.wait((found, link.closed), timeout=PROBE_AGAIN_S,
                                       return_when=asyncio.FIRST_COMPLETED)
        link.close()
        await link.wait_closed()
        if not found.done():
            raise ConnectionLostError("no answer to an account query")
        self._take_query(decode(*found.result()))
        self._history_end = found.result().number + 1
        return session

    def _login(self, session: str, sequence: int) -> bytes:
        return bytes(soupbin.build_login(*self._credentials, session, sequence))

    def _new_way(self, transport: Transport, host: str, port: int) -> Way[Any]:
        silence_max_s = (SILENCE_MAX_S[transport] if self._silence_max_s is None
                         else self._silence_max_s)
        times = self._heartbeat_s, silence_max_s, self._login_timeout_s
        if transport == "udp":
            if self._tls is not None:
                raise ValueError("nothing encrypts order entry over UDP")
            return DatagramWay(host, port, *times)
        return StreamWay(host, port, *times, self._tls)

    def _new_outbox(self, transport: Transport) -> Outbox:
        """An outbox that has all requests without an answer."""
        if transport == "udp":
            return DatagramOutbox(self._pending, self._udp_window)
        return StreamOutbox(self._pending)

    def _removed(self, request: Request) -> None:
        self._outbox.removed(request)

    async def _open_link(self, session: str, sequence: int) -> None:
        self._outbox.link = None
        self._link = self._way.new_link(self._logged_in, self._received)
        await self._way.open(self._link, self._login(session, sequence))

    def _logged_in(self, session: str, sequence: int) -> None:
        if self._next_sequence and sequence != self._next_sequence:
            raise ProtocolError(f"asked for message {self._next_sequence}, offered {sequence}")
        self._session, self._next_sequence = session, sequence
        if self._over is not None:
            ended, complete = self._over
            self._over = None
            self._put(SessionEnded(session=ended, next_session=session, complete=complete))
        if self._link is not None:
            if self._paused:
                self._link.pause_reading()
            self._outbox.logged_in(self._link)

    async def _keep(self) -> None:
        """Make the connection again whenever it is lost, until that fails for too long."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                link = self._link
                if link is None:
                    raise RuntimeError("there is no connection to keep")
                connected_at = loop.time()
                await link.wait_closed()
                if self._closing:
                    return
                if isinstance(link.fault, ProtocolError):
                    raise link.fault
                if not link.ended:
                    self._log.warning("connection lost", reason=str(link.fault))
                delay_s = 0.0 if loop.time() - connected_at > STABLE_AFTER_S else RECONNECT_DELAY_S
                await self._reconnect(link, delay_s)
                self._moving = False
                self._reconnects += 1
        except Exception as error:
            # Whatever it is, those who wait for answers and messages have to learn of it.
            self._end(error)

    async def _reconnect(self, lost: SessionLink, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + (self._login_timeout_s if self._moving else 0.0)
        give_up_at = max(give_up_at, loop.time() + self._reconnect_for_s)
        while True:
            if loop.time() >= give_up_at:
                raise lost.fault
            await asyncio.sleep(delay_s)
            delay_s = min(max(2 * delay_s, RECONNECT_DELAY_S), RECONNECT_DELAY_MAX_S)
            try:
                if lost.ended:
                    await self._next_session(complete=lost.complete)
                else:
                    await self._open_link(self._session, self._next_sequence)
                return
            except LoginRejectedError as error:
                if error.reason != "S":
                    raise
                if await self._resume_elsewhere():
                    return
            except ConnectionLostError as error:
                self._log.info("can't reconnect yet", reason=str(error))

    async def _resume_elsewhere(self) -> bool:
        """The venue does not have our session or number: find out which. False: try again."""
        try:
            session = await self._probe()
        except LoginRejectedError as error:
            if error.reason != "S":
                raise
            return False  # someone else is logged in, and the venue does not let us take over
        except ConnectionLostError:
            return False
        if session == self._session:
            raise ResumeError(f"the venue no longer has message {self._next_sequence} of "
                              f"session {session}", "log in with sequence 0 and start afresh")
        await self._next_session(complete=False)
        return True

    async def _next_session(self, complete: bool) -> None:
        """Go on in the session that follows. What is unanswered stays so: sent again, it would
        be a new order there."""
        if self._over is None:
            self._over = self._session, complete
            self._pending.fail_all(SessionOverError(f"session {self._session} is over"))
        self._session, self._next_sequence = "", 1
        self._next_user_ref_num = 1
        try:
            await self._probe()
            await self._open_link("", 1)
        except LoginRejectedError as error:
            if error.reason != "S":
                raise
            raise ResumeError("the venue no longer has the start of the running session",
                              "log in with sequence 0 and start afresh") from error

    # -- requests ----------------------------------------------------------------------------

    def enter(
        self, symbol: str, side: str, quantity: Quantity, price: Price | None,
        time_in_force: str = "0", *, post_only: bool = False, min_quantity: Quantity = 0,
        client_order: str = "", display: str = "Y", capacity: str = "P", iso: str = "N",
        cross_type: str = "N", options: Mapping[str, Any] | None = None,
    ) -> Answer[Accepted | Rejected]:
        """Enter an order; price None is a market order. `options` are further OUCH tags by name.

        A text or Decimal is in the instrument's own numbers, an integer in wire units or lots.
        Raises TypeError for a float, ValueError for what does not convert exactly.
        """
        tags = dict(options or {})
        if post_only:
            tags["post_only"] = "P"
        if min_quantity:
            tags["min_quantity_lots"] = self._terms.quantity_lots(symbol, min_quantity)
        number = self._next_user_ref_num
        message = ouch.encode_inbound(
            "O", tags, user_ref_num=number, side=side, display=display, capacity=capacity,
            quantity_lots=self._terms.quantity_lots(symbol, quantity),
            symbol=self._terms.wire_symbol(symbol), iso=iso, cross_type=cross_type,
            price_units=self._terms.price_units(symbol, price), time_in_force=time_in_force,
            client_order=client_order)
        return self._numbered(message, {number: (Accepted, Rejected)})

    def replace(
        self, order: Order, quantity: Quantity, price: Price | None, time_in_force: str = "0", *,
        symbol: str = "", side: str = "", post_only: bool | None = None,
        min_quantity: Quantity = 0, client_order: str = "", display: str = "Y", iso: str = "N",
        options: Mapping[str, Any] | None = None,
    ) -> Answer[Replaced | Rejected | Canceled | None]:
        """Put another order in the place of `order`, at the end of the queue.

        `quantity` is the whole chain's, what is done already included. The answer is Canceled when
        the new terms are no valid order (the old one is gone then), None when `order` was not
        live any more. `symbol` is needed for decimals when `order` is a bare number.
        """
        original, symbol = _order(order, symbol)
        tags = dict(options or {})
        if side:
            tags["side"] = side
        if post_only is not None:
            tags["post_only"] = "P" if post_only else "N"
        if min_quantity:
            tags["min_quantity_lots"] = self._terms.quantity_lots(symbol, min_quantity)
        number = self._next_user_ref_num
        message = ouch.encode_inbound(
            "U", tags, orig_user_ref_num=original, user_ref_num=number, display=display, iso=iso,
            quantity_lots=self._terms.quantity_lots(symbol, quantity),
            price_units=self._terms.price_units(symbol, price), time_in_force=time_in_force,
            client_order=client_order)
        return self._numbered(
            message, {number: (Replaced, Rejected), original: (Canceled,)}, original, _nothing)

    def cancel(self, order: Order, quantity: Quantity = 0, *,
               symbol: str = "") -> Answer[Canceled | None]:
        """Cancel an order, or reduce it to `quantity` (done and open together) where it stands.

        The answer is None when there was nothing to cancel.
        """
        number, symbol = _order(order, symbol)
        message = ouch.encode_inbound(
            "X", user_ref_num=number, quantity_lots=self._terms.quantity_lots(symbol, quantity))
        return self._send(message, {number: (Canceled,)}, _nothing, names=number)

    def modify(self, order: Order, side: str, quantity: Quantity, *, symbol: str = "",
               ) -> Answer[Modified | Canceled | Rejected | None]:
        """Change the marking of a sell order, or reduce it to `quantity`; it keeps its place.

        The answer is None when the order was not live any more.
        """
        number, symbol = _order(order, symbol)
        message = ouch.encode_inbound(
            "M", user_ref_num=number, side=side,
            quantity_lots=self._terms.quantity_lots(symbol, quantity))
        return self._send(message, {number: (Modified, Canceled, Rejected)}, _nothing,
                          names=number)

    def mass_cancel(self, symbol: str = "", *, side: str = "", firm: str = "",
                    group_id: int | None = None) -> Answer[MassCanceled | Rejected]:
        """Cancel all orders, or those of a symbol, a side, a group. A Canceled follows for each."""
        tags: dict[str, Any] = {}
        if side:
            tags["side"] = side
        if group_id is not None:
            tags["group_id"] = group_id
        number = self._next_user_ref_num
        message = ouch.encode_inbound("C", tags, user_ref_num=number, firm=firm,
                                      symbol=self._terms.wire_symbol(symbol))
        return self._numbered(message, {number: (MassCanceled, Rejected)})

    def disable(self, firm: str = "") -> Answer[EntryDisabled | Rejected]:
        """Refuse new orders of the account from now on. Resting orders stay."""
        number = self._next_user_ref_num
        message = ouch.encode_inbound("D", user_ref_num=number, firm=firm)
        return self._numbered(message, {number: (EntryDisabled, Rejected)})

    def enable(self, firm: str = "") -> Answer[EntryEnabled | Rejected]:
        """Take new orders of the account again."""
        number = self._next_user_ref_num
        message = ouch.encode_inbound("E", user_ref_num=number, firm=firm)
        return self._numbered(message, {number: (EntryEnabled, Rejected)})

    def account_query(self) -> Answer[AccountQueried]:
        """Ask for the lowest number that the next order may have."""
        # The fence behind it tells this answer from those to older queries.
        return self._send(ouch.encode_inbound("Q"), {}, lambda: self._queried)

    def _numbered(self, message: bytes, answered_by: Mapping[int, Kinds], names: int = 0,
                  ignored: Callable[[], Any] | None = None) -> Answer[Any]:
        """Send a request that takes the next UserRefNum."""
        number = self._next_user_ref_num
        if number > USER_REF_NUM_MAX:
            raise ClientError("every UserRefNum of this session is used", "roll the session")
        answer = self._send(message, answered_by, ignored or (lambda: RequestIgnoredError(
            f"the venue took number {number} for one that it had seen before",
            "another program uses the same account, or the session moved to TCP meanwhile")),
            takes=number, names=names, fenced=ignored is not None)
        self._next_user_ref_num = number + 1
        return answer

    def _send(self, message: bytes, answered_by: Mapping[int, Kinds], ignored: Callable[[], Any],
              *, takes: int = 0, names: int = 0, fenced: bool = True) -> Answer[Any]:
        if self._closing or self._fault is not None:
            raise self._fault or ConnectionLostError("the client was closed")
        if len(self._pending) >= self._in_flight_max:
            raise TooManyInFlightError(f"{len(self._pending)} requests have no answer yet",
                                       "await some of them first")
        deadline = asyncio.get_running_loop().time() + self._answer_timeout_s
        request = Request(
            self._requests, bytes(soupbin.build_unsequenced(message)), answered_by,
            Answer(takes or names), deadline, ignored, takes=takes, names=names, fenced=fenced)
        self._requests += 1
        self._pending.add(request)
        self._outbox.add(request)
        return request.answer

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._pending.expire(loop.time(), lambda: AnswerTimeoutError(
            f"no answer in {self._answer_timeout_s} s", "the request may still be carried out"))
        self._timer = loop.call_later(min(1.0, self._answer_timeout_s / 4), self._tick)

    # -- messages ----------------------------------------------------------------------------

    async def executions(self) -> AsyncIterator[Report]:
        """Every message of the venue from `sequence` on, each once, in order; a SessionEnded where
        one session follows another. For one reader.

        It ends when the client is closed, and raises what made the client give up. Before someone
        reads, the newest `backlog_max` messages are kept; from then on the client stops reading
        from the venue rather than drop one.
        """
        self._lossless = True
        while True:
            while self._backlog:
                message = self._backlog.popleft()
                if self._paused and len(self._backlog) <= self._backlog_max // 2:
                    self._resume_reading()
                yield message
            if self._closing:
                return
            if self._fault is not None:
                raise self._fault
            self._arrived.clear()
            await self._arrived.wait()

    def _received(self, messages: list[Sequenced]) -> None:
        for number, payload in messages:
            try:
                message = decode(number, payload)
            except ouch.WireError as error:
                raise ProtocolError(f"message {number} is not OUCH 5.0: {error}") from error
            self._next_sequence = number + 1
            self._process(message)
            self._put(message)

    def _process(self, message: Execution) -> None:
        if isinstance(message, AccountQueried):
            if not message.user_ref_idx:
                self._take_query(message)
            elif message.sequence >= self._history_end:
                self._outbox.fence_answered(message)
            return
        number = getattr(message, "user_ref_num", 0)
        if not message.user_ref_idx:
            # The venue itself numbers the orders that live on in a new session.
            self._next_user_ref_num = max(self._next_user_ref_num, number + 1)
        self._pending.resolve(message, number)

    def _take_query(self, message: Execution) -> None:
        if isinstance(message, AccountQueried):
            self._queried = message
            self._next_user_ref_num = max(self._next_user_ref_num, message.next_user_ref_num)

    def _put(self, message: Report) -> None:
        if len(self._backlog) >= self._backlog_max:
            if not self._lossless:
                self._backlog.popleft()
            elif not self._paused and self._link is not None:
                self._paused = True
                self._link.pause_reading()
        self._backlog.append(message)
        self._arrived.set()

    def _resume_reading(self) -> None:
        self._paused = False
        if self._link is not None:
            self._link.resume_reading()

    def _end(self, error: Exception) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._fault is None:
            self._fault = error
        self._outbox.link = None
        self._pending.fail_all(error)
        self._arrived.set()


def _order(order: Order, symbol: str) -> tuple[int, str]:
    """An order's number, and its symbol where it is known."""
    if isinstance(order, int):
        return order, symbol
    return order.user_ref_num, symbol or order.symbol


def _nothing() -> None:
    """What a request that the venue ignored comes to."""

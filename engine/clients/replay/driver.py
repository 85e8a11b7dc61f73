"""Drives a recorded day through the venue: connections, window, pace."""

import asyncio
import ssl
from bisect import bisect_right
from collections.abc import Callable
from typing import Self

import msgspec

from cython_core import soupbin
from engine.clients.executions import Rejected
from engine.clients.link import Link, open_link
from engine.clients.order_entry import OrderEntryClient
from engine.clients.replay.checker import Checker
from engine.clients.replay.commands import ReplayError
from engine.clients.replay.day import Day
from engine.clients.replay.report import JournalBook, Report, compare_books
from engine.clients.soup import Sequenced
from engine.instruments import Instrument

# Messages sent and not answered: enough to keep every stage of the venue busy, little enough that
# neither side's buffers grow.
WINDOW_MESSAGES = 4_096
# How long the venue may be silent while answers are due: what it ignores it never answers.
SILENCE_MAX_S = 10.0
LOGIN_TIMEOUT_S = 10.0
HEARTBEAT_S = 1.0
NS_PER_S = 1_000_000_000

MAKER, TAKER = 0, 1

Progress = Callable[[int], None]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a day goes. `taker` is the account of the executing orders, often the maker's own:
    then one connection carries everything. `speed` is times the recording's own pace, 0 for as
    fast as it goes."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    instrument: Instrument
    maker: str
    taker: str
    password: str
    speed: float = 0.0
    window_messages: int = WINDOW_MESSAGES


async def replay(day: Day, target: Target, progress: Progress | None = None,
                 journal_book: JournalBook | None = None) -> Report:
    """Send the day and check every answer; `progress` is told the lines done so far.

    The maker's (and taker's) orders in the instrument are cancelled first. Raises ClientError and
    ReplayError when the replay can't start or the connection breaks.
    """
    accounts = [target.maker] if target.taker == target.maker else [target.maker, target.taker]
    refs = [await _clear(target, account) for account in accounts]
    checker = Checker(day, target.instrument.wire_symbol, *refs)
    async with _Drive(day, checker, target, progress or (lambda _lines: None)) as drive:
        _require_empty(target, drive.session, journal_book)
        seconds = await drive.run()
    checks, failures, notes = checker.counts(), list(checker.failures), []
    if not day.recorded_rows:
        notes.append("there are no recorded book rows: books were held against the lines' own")
    journal = journal_book(target.instrument, drive.session) if journal_book else None
    if journal is None:
        notes.append("not compared with the journal: this venue keeps none here")
    else:
        differences = compare_books(checker.book(), journal)
        checks["journal"] = (int(not differences), int(bool(differences)))
        failures += differences
    return Report(target.instrument.symbol, len(day), checker.settled_messages, seconds, checks,
                  failures, notes)


async def _clear(target: Target, account: str) -> int:
    """Cancel the account's orders in the instrument; returns the next UserRefNum."""
    client = OrderEntryClient(target.host, target.port, account, target.password,
                              instruments=[target.instrument], reconnect_for_s=0,
                              tls=target.tls)
    async with client:
        answer = await client.mass_cancel(target.instrument.symbol)
        if isinstance(answer, Rejected):
            raise ReplayError(f"the venue does not let {account} trade {target.instrument.symbol}, "
                              f"reason {answer.reject_reason:04X}")
        await client.account_query()
        return client.next_user_ref_num


def _require_empty(target: Target, session: str, journal_book: JournalBook | None) -> None:
    """Raise ReplayError where the journal says that others have orders in the instrument."""
    book = journal_book(target.instrument, session) if journal_book else None
    if book is not None and any(book):
        orders = sum(level[2] for side in book for level in side)
        raise ReplayError(
            f"other accounts have {orders} orders in {target.instrument.symbol}",
            "cancel them (matchd cancel ACCOUNT --all), or replay into another --symbol")


class _Drive:
    """The connections of one replay, and what is under way on them."""

    def __init__(self, day: Day, checker: Checker, target: Target, progress: Progress) -> None:
        self._day = day
        self._checker = checker
        self._target = target
        self._progress = progress
        self._links: list[Link] = []
        self.session = ""
        self._answered = asyncio.Event()
        self._starts = [line for _, line in day.steps]

    async def __aenter__(self) -> Self:
        try:
            self._links.append(await self._open(MAKER, self._target.maker))
            if self._target.taker != self._target.maker:
                self._links.append(await self._open(TAKER, self._target.taker))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        for link in self._links:
            link.write(soupbin.LOGOUT_REQUEST)
            link.close()
            await link.wait_closed()

    async def run(self) -> float:
        """Send all; returns the seconds from the first message to the last answer."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._send_all(started)
        return loop.time() - started

    async def _open(self, role: int, account: str) -> Link:
        def take(messages: list[Sequenced]) -> None:
            for message in messages:
                self._checker.report(role, message.payload)
            self._answered.set()

        def logged_in(session: str, _sequence: int) -> None:
            self.session = session

        link = Link(logged_in, take, HEARTBEAT_S, SILENCE_MAX_S)
        link.closed.add_done_callback(lambda _closed: self._answered.set())
        target = self._target
        login = soupbin.build_login(account, target.password, "", 0)
        await open_link(link, target.host, target.port, login, LOGIN_TIMEOUT_S, target.tls)
        return link

    async def _send_all(self, started: float) -> None:
        checker, window = self._checker, self._target.window_messages
        while True:
            lines_end, wait_s = self._due(started)
            data, role = checker.pack(max(0, window - checker.in_flight), lines_end)
            if data:
                self._links[role].write(data)
            self._progress(checker.lines_settled)
            if checker.done or not await self._wait(wait_s):
                return

    def _due(self, started: float) -> tuple[int, float | None]:
        """Lines that may be sent by now, and the seconds until there are more (None: all are)."""
        if not self._target.speed:
            return len(self._day), None
        elapsed_s = asyncio.get_running_loop().time() - started
        begin_ns = self._day.steps[0][0] if self._day.steps else 0
        now_ns = begin_ns + int(elapsed_s * self._target.speed * NS_PER_S)
        step = bisect_right(self._day.steps, now_ns, key=_time_of)
        if step == len(self._starts):
            return len(self._day), None
        ahead_ns = self._day.steps[step][0] - now_ns
        return self._starts[step], ahead_ns / NS_PER_S / self._target.speed

    async def _wait(self, wait_s: float | None) -> bool:
        """Wait for answers, or for the time of the next step. False: the venue is silent."""
        checker = self._checker
        settled = checker.settled_messages
        limit_s = SILENCE_MAX_S if wait_s is None else wait_s
        self._answered.clear()
        try:
            async with asyncio.timeout(limit_s):
                await self._answered.wait()
        except TimeoutError:
            if wait_s is None:
                checker.give_up()
                return False
        for link in self._links:
            if link.closed.done() and checker.settled_messages == settled:
                raise ReplayError(f"the connection broke at line {checker.lines_settled + 1}: "
                                  f"{link.fault}")
        return True


def _time_of(step: tuple[int, int]) -> int:
    return step[0]

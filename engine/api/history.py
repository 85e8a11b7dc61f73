"""`GET /v1/history/...`: orders, trades, executions and candles as a store has them.

JSON answers a page and a cursor. CSV, Arrow and Parquet answer the whole range as a stream: page by
page, as fast as the client reads, never more than some pages of it in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

import msgspec

from engine import clock
from engine.accounts import Account, AccountTable
from engine.api import history_types as types
from engine.api.formats import (
    CONTENT_TYPES,
    SLICE_ROWS,
    TYPES,
    Encoder,
    chosen,
    encoder,
    json_rows,
)
from engine.api.gateway import stopping
from engine.api.history_rows import Names, cursor, key_in, symbols_of, time_ns
from engine.api.reads import INTERVALS_S
from engine.api.route import Access, ApiError, Call, Identity, Reply, Route
from engine.config import HistoryConfig
from engine.metrics import Metrics
from engine.past import KEY_LENGTH, Ask, History, Kind, Page, PastError, Row

PAGE_ROWS = 100
# Streams at once, of everybody and of one account or address.
STREAMS_MAX = 16
STREAMS_OF_ONE_MAX = 4
_STATUSES = {"live": ("open", "partially_filled"), "ended": ("filled", "canceled")}
_NOTHING: tuple[str, ...] = ()


class HistoryRoutes:
    """Answers about the past. `newest` tells the last event that the venue knows of, durable or
    not; `draining` whether the venue stops."""

    def __init__(self, history: History, accounts: Iterable[Account], config: HistoryConfig,
                 metrics: Metrics, newest: Callable[[], int],
                 draining: Callable[[], bool]) -> None:
        self._history, self._config = history, config
        self._newest, self._draining = newest, draining
        self._accounts = AccountTable.of(accounts)
        self._streams: dict[str, int] = {}
        metrics.gauge("history_streams", "streams", "answers of /v1/history that are under way as "
                      "streams", lambda: sum(self._streams.values()))
        self._rows = metrics.counter("history_rows", "rows", "rows that /v1/history answered")

    def routes(self) -> list[Route]:
        """For the gateway's table."""
        public = Access.PUBLIC
        return [
            self._route("orders", self.orders, types.PastOrdersQuery, types.PastOrders,
                        "Your orders as they are now or ended", Access.READ),
            self._route("trades", self.trades, types.PastTradesQuery, types.PastTrades,
                        "All trades of the venue", public),
            self._route("executions", self.executions, types.PastExecutionsQuery,
                        types.PastExecutions, "Your sides of trades", Access.READ),
            self._route("candles", self.candles, types.PastCandlesQuery, types.PastCandles,
                        "Candles of an instrument", public),
        ]

    def _route(self, name: str, handler: Any, query: Any, answer: Any, summary: str,
               access: Access) -> Route:
        return Route(
            method="GET", path=f"/v1/history/{name}", handler=handler, summary=summary,
            query=query, answer=answer, access=access, tag="History", errors=(404,),
            content_types=CONTENT_TYPES, description="From a store that follows the log, as far "
            "back as it goes; `seq` is the last event that it had. A page of JSON, or the whole "
            "range as a stream of CSV, Arrow or Parquet.")

    # -- questions -----------------------------------------------------------------------------

    async def orders(self, call: Call) -> Reply:
        """`GET /v1/history/orders`."""
        query: types.PastOrdersQuery = call.query
        status = query.status or ""
        return await self._answer(call, self._ask(
            "orders", query, account_id=self._whose(call.identity, query.account),
            side=query.side or "",
            statuses=_STATUSES.get(status, (status,) if status else _NOTHING)))

    async def trades(self, call: Call) -> Reply:
        """`GET /v1/history/trades`."""
        query: types.PastTradesQuery = call.query
        return await self._answer(call, self._ask("trades", query, side=query.side or ""))

    async def executions(self, call: Call) -> Reply:
        """`GET /v1/history/executions`."""
        query: types.PastExecutionsQuery = call.query
        return await self._answer(call, self._ask(
            "executions", query, account_id=self._whose(call.identity, query.account),
            side=query.side or ""))

    async def candles(self, call: Call) -> Reply:
        """`GET /v1/history/candles`."""
        query: types.PastCandlesQuery = call.query
        return await self._answer(call, self._ask(
            "candles", query, interval_s=INTERVALS_S[query.interval]))

    def _ask(self, kind: Kind, query: types.Range, **more: Any) -> Ask:
        """The question without its page. Raises ApiError 400."""
        ask = Ask(kind=kind, symbol=query.symbol or "", from_ns=time_ns("from", query.from_),
                  to_ns=time_ns("to", query.to), newest_first=query.order == "desc", **more)
        if 0 < ask.to_ns < ask.from_ns:
            raise ApiError(400, "bad_time", "to is before from", {"field": "to"})
        return ask if query.cursor is None else msgspec.structs.replace(
            ask, after=key_in(ask, query.cursor))

    def _whose(self, who: Identity, account: str | None) -> int:
        """The account whose rows are meant; 0 for everybody's. Raises ApiError 403, 404."""
        if who.access >= Access.ADMIN:
            if account is None:
                return 0
            if account not in self._accounts.by_name:
                raise ApiError(404, "unknown_account", f"there is no account {account!r}",
                               {"account": account})
            return self._accounts.by_name[account].id
        if account not in (None, who.username):
            raise ApiError(403, "forbidden", "this shows your own account; another's needs a key "
                           "with the role admin", {"role_needed": "admin"})
        return who.account_id

    # -- answers -------------------------------------------------------------------------------

    async def _answer(self, call: Call, ask: Ask) -> Reply:
        """A page of JSON, or a stream. Raises ApiError."""
        format_ = chosen(call.query.format, call.headers)
        try:
            if ask.symbol and ask.symbol not in await self._history.scales([ask.symbol]):
                raise ApiError(404, "unknown_symbol", f"history knows no instrument "
                               f"{ask.symbol!r}", {"symbol": ask.symbol})
            if format_ == "json":
                return await self._page(call.query.limit, ask)
            return await self._stream(call, ask, format_)
        except PastError as error:
            raise refusal(error) from None

    async def _page(self, limit: int | None, ask: Ask) -> Reply:
        most = self._config.rows_max
        if limit is not None and limit > most:
            raise ApiError(400, "bad_value", f"limit: a page has at most {most} rows; ask for csv, "
                           "arrow or parquet to get more", {"field": "limit"})
        page = await self._history.page(msgspec.structs.replace(
            ask, limit=limit or min(PAGE_ROWS, most)))
        rows = await json_rows(ask.kind, page.rows, await self._names(ask, page))
        self._rows.add(len(page.rows))
        last = cursor(ask, _key(ask, page.rows[-1])) if page.rows else (
            cursor(ask, ask.after) if ask.after else None)
        envelope = msgspec.json.encode({
            "next": last if page.more else None, "last": last,
            "complete": not page.more and self._settled(ask, page), "seq": page.place.seq,
            "store": page.store})
        return Reply(200, b'{"%b":%b,%b' % (ask.kind.encode(), rows, envelope[1:]))

    async def _names(self, ask: Ask, page: Page) -> Names:
        """What is needed to write these rows. Raises PastError."""
        scales = await self._history.scales(symbols_of(ask.kind, page.rows))
        usernames = {account.id: account.username for account in self._accounts}
        return Names(scales, usernames, self._settled_ns(page),
                     ask.interval_s * clock.NS_PER_S)

    def _settled_ns(self, page: Page) -> int:
        """The time before which nothing more can happen that the page does not know."""
        if page.place.seq and page.place.seq >= self._newest():
            # Time is read when a command is matched: what comes next is later than now.
            return max(clock.now_ns(), page.place.time_ns)
        return page.place.time_ns

    def _settled(self, ask: Ask, page: Page) -> bool:
        return 0 < ask.to_ns <= self._settled_ns(page)

    # -- streams -------------------------------------------------------------------------------

    async def _stream(self, call: Call, ask: Ask, format_: str) -> Reply:
        who = call.identity.key or call.address
        mine = self._streams.get(who, 0)
        if mine >= STREAMS_OF_ONE_MAX or sum(self._streams.values()) >= STREAMS_MAX:
            raise ApiError(429, "too_many_streams", f"at most {STREAMS_OF_ONE_MAX} of these at "
                           f"once, {STREAMS_MAX} of all callers together",
                           headers=((b"retry-after", b"1"),))
        ask = msgspec.structs.replace(ask, limit=self._config.rows_max)
        left: int | None = call.query.limit
        first = await self._history.page(_no_more(ask, left))
        ask = msgspec.structs.replace(ask, store=first.store)
        # Whatever stands on later pages is known now.
        made = await encoder(format_, ask.kind, await self._history.scales(), ask.symbol)
        kind = TYPES[format_]
        return Reply(200, content_type=kind.content_type, headers=(
            (b"content-disposition", f'attachment; filename="{ask.kind}.{kind.suffix}"'.encode()),
            (b"x-matchd-seq", b"%d" % first.place.seq),
            (b"x-matchd-store", first.store.encode())),
            stream=self._parts(who, ask, left, first, made))

    async def _parts(self, who: str, ask: Ask, left: int | None, page: Page,
                     made: Encoder) -> AsyncGenerator[bytes, None]:
        """The answer, part by part; what begins after the first page stays out of it."""
        self._streams[who] = self._streams.get(who, 0) + 1
        seq, taken = page.place.seq, page
        pace = Pace()
        try:
            part = made.begin()
            while True:
                names = await self._names(ask, taken)
                for start in range(0, len(taken.rows), SLICE_ROWS):
                    part += made.rows(taken.rows[start:start + SLICE_ROWS], names)
                    await pace.rest()
                self._rows.add(len(taken.rows))
                left = None if left is None else left - len(taken.rows)
                last = not taken.more or left == 0
                part += await made.flush(last)
                if part:
                    yield part
                if last:
                    return
                part = b""
                if self._draining():
                    raise PastError(503, "stopping", stopping().message)
                pace.begin()
                ask = msgspec.structs.replace(ask, last_seq=seq, after=(
                    _key(ask, taken.rows[-1]) if taken.rows else ask.after))
                taken = await self._history.page(_no_more(ask, left))
        finally:
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]


class Pace:
    """Leaves the loop to others for as long as it was used."""

    def __init__(self) -> None:
        self._begun_ns = clock.monotonic_ns()

    def begin(self) -> None:
        """Work begins."""
        self._begun_ns = clock.monotonic_ns()

    async def rest(self) -> None:
        """Rest for as long as the work took, and begin again."""
        spent_ns = clock.monotonic_ns() - self._begun_ns
        await asyncio.sleep(spent_ns / clock.NS_PER_S)
        self.begin()


def _no_more(ask: Ask, left: int | None) -> Ask:
    if left is None or left >= ask.limit:
        return ask
    return msgspec.structs.replace(ask, limit=left)


def _key(ask: Ask, row: Row) -> tuple[int, ...]:
    return row[:KEY_LENGTH[ask.kind]]


def refusal(error: PastError) -> ApiError:
    """What has no answer, as it is sent."""
    headers = ((b"retry-after", b"5"),) if error.status == 503 else ()
    return ApiError(error.status, error.code, str(error), headers=headers)

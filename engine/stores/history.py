# ruff: noqa: S608 - names in the statements are our own, what others say goes in as parameters.
"""Questions about the past, answered from a SQL store: the statements, in both dialects.

Every id of ours is a seq, and time never goes back in the log. So a range of times is a range of
ids: its bounds are searched for in the primary key of `order_events`, and neither an index over
times nor a scan is needed. Each statement reads the store's position together with the rows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from engine import clock
from engine.brief import brief
from engine.errors import EngineError
from engine.past import (
    COLUMNS,
    Ask,
    Page,
    PastError,
    Place,
    Reads,
    Result,
    Row,
    Scale,
    unavailable,
)
from engine.stores.store import QueryRefused, QueryTimeout, StoreDown

Value = TypeVar("Value")

SECOND_NS = 1_000_000_000
# A page of candles of one second reads at most about so many trades.
TRADES_READ_MAX = 100_000
TRADES_AT_ONCE = 1_000
BOUNDS_KEPT = 1_000
# What instruments are is read anew after so long: the store may just have taken a change of them.
SCALES_NS = clock.NS_PER_S
# A store that was away is passed over for so long by questions that any store may answer.
AWAY_NS = clock.NS_PER_S

NONE_ON = ('no SQL store is on: set sqlite.enabled or postgres.url (with journal.sync = "off" '
           'there is none)')
_POSITION = "log_id, incarnation, seq, time_ns"
_NOWHERE = Place("", 0, 0, 0)
_OPPOSITE = {"buy": "sell", "sell": "buy"}


class Statement:
    """A statement under construction, with the dialect's way to write parameters."""

    def __init__(self, postgres: bool) -> None:
        self.parameters: list[Any] = []
        self._postgres = postgres

    def value(self, value: Any) -> str:
        """What stands for a value."""
        self.parameters.append(value)
        return f"${len(self.parameters)}" if self._postgres else "?"


class Bounds(msgspec.Struct, frozen=True):
    """Ids of a range of times: the first one, and the first one behind it (0: none yet)."""

    first: int = 0
    end: int = 0


def page_statement(ask: Ask, bounds: Bounds, postgres: bool) -> tuple[str, list[Any]]:
    """The statement of a page with one row more than asked for, and its parameters. Each row is
    the position and the columns of `ask.kind`; one with an empty key says that there are none."""
    made = Statement(postgres)
    if ask.kind == "executions":
        return _executions(ask, bounds, made), made.parameters
    key = COLUMNS[ask.kind][0]
    table = ask.kind
    where = _candle_filters(ask, made) if table == "candles" else _filters(ask, bounds, key, made)
    if ask.after:
        where.append(f"{key} {'<' if ask.newest_first else '>'} {made.value(ask.after[0])}")
    inner = (f"SELECT {', '.join(COLUMNS[ask.kind])} FROM {table}{_where(where)} "
             f"ORDER BY {key} {_direction(ask)} LIMIT {made.value(ask.limit + 1)}")
    return _beside_position(inner, COLUMNS[ask.kind], f"t.{key} {_direction(ask)}"), \
        made.parameters


def _beside_position(inner: str, columns: Sequence[str], order: str, joined: str = "") -> str:
    """Both from one snapshot of the database, and the position also where there is no row."""
    names = ", ".join(one if "." in one else f"t.{one}" for one in columns)
    return (f"SELECT p.log_id, p.incarnation, p.seq, p.time_ns, {names} FROM store_position p "
            f"LEFT JOIN ({inner}) t ON 1 = 1{joined} ORDER BY {order}")


def _filters(ask: Ask, bounds: Bounds, key: str, made: Statement) -> list[str]:
    """What rows of orders or trades have to be."""
    where = _range(ask, bounds, key, made)
    if ask.symbol:
        where.append(f"symbol = {made.value(ask.symbol)}")
    if ask.kind == "orders":
        if ask.account_id:
            where.append(f"account_id = {made.value(ask.account_id)}")
        if ask.statuses:
            where.append(f"status IN ({', '.join(made.value(one) for one in ask.statuses)})")
    if ask.side:
        name = "side" if ask.kind == "orders" else "taker_side"
        where.append(f"{name} = {made.value(ask.side)}")
    return where


def _range(ask: Ask, bounds: Bounds, key: str, made: Statement) -> list[str]:
    """The range of times, in ids as far as they are known: those find the rows."""
    where = []
    if bounds.first:
        where.append(f"{key} >= {made.value(bounds.first)}")
    if bounds.end:
        where.append(f"{key} < {made.value(bounds.end)}")
    if ask.last_seq:
        where.append(f"{key} <= {made.value(ask.last_seq)}")
    return where + _times(ask, "time_ns", made)


def _times(ask: Ask, column: str, made: Statement) -> list[str]:
    where = []
    if ask.from_ns:
        where.append(f"{column} >= {made.value(ask.from_ns)}")
    if ask.to_ns:
        where.append(f"{column} < {made.value(ask.to_ns)}")
    return where


def _candle_filters(ask: Ask, made: Statement) -> list[str]:
    where = [f"symbol = {made.value(ask.symbol)}", f"interval_s = {made.value(ask.interval_s)}"]
    return where + _times(ask, "open_time_ns", made)


def _executions(ask: Ask, bounds: Bounds, made: Statement) -> str:
    """Each trade is a row for its maker and one for its taker; two for somebody who was both."""
    direction = _direction(ask)
    order = f"match_number {direction}, part {direction}"
    sides = " UNION ALL ".join(_one_side(ask, bounds, made, part) for part in (0, 1))
    inner = (f"SELECT * FROM ({sides}) AS both_sides ORDER BY {order} "
             f"LIMIT {made.value(ask.limit + 1)}")
    columns = ["o.client_order_id" if one == "client_order_id" else one
               for one in COLUMNS["executions"]]
    return _beside_position(inner, columns, f"t.match_number {direction}, t.part {direction}",
                            " LEFT JOIN orders o ON o.order_id = t.order_id")


def _one_side(ask: Ask, bounds: Bounds, made: Statement, part: int) -> str:
    role = ("maker", "taker")[part]
    where = _range(ask, bounds, "match_number", made)
    if ask.symbol:
        where.append(f"symbol = {made.value(ask.symbol)}")
    if ask.account_id:
        where.append(f"{role}_account_id = {made.value(ask.account_id)}")
    if ask.side:
        where.append(f"taker_side = {made.value(ask.side if part else _OPPOSITE[ask.side])}")
    if ask.after:
        match, given = ask.after
        # The other side of the same trade may still have to come.
        beyond = part < given if ask.newest_first else part > given
        sign = ("<" if ask.newest_first else ">") + ("=" if beyond else "")
        where.append(f"match_number {sign} {made.value(match)}")
    side = "taker_side" if part else "CASE taker_side WHEN 'buy' THEN 'sell' ELSE 'buy' END"
    return (f"SELECT * FROM (SELECT match_number, {part} AS part, {role}_order_id AS order_id, "
            f"{role}_account_id AS account_id, symbol, {side} AS side, price_units, "
            f"quantity_lots, time_ns FROM trades{_where(where)} "
            f"ORDER BY match_number {_direction(ask)} LIMIT {made.value(ask.limit + 1)}) "
            f"AS {role}s")


def _where(parts: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _direction(ask: Ask) -> str:
    return "DESC" if ask.newest_first else "ASC"


class Reader:
    """Answers from one store."""

    def __init__(self, store: Reads) -> None:
        self.store = store
        self.name = store.name
        self._postgres = store.name == "postgres"
        self._scales: dict[str, Scale] = {}
        self._scales_ns = 0
        # Times to the first id at or behind them, of one log.
        self._firsts: OrderedDict[int, int] = OrderedDict()
        self._log: tuple[str, int] = ("", 0)

    async def page(self, ask: Ask) -> Page:
        """A page. Raises EngineError of the store's."""
        if ask.kind == "candles" and ask.interval_s == 1:
            return await SecondCandles(self, ask).page()
        bounds = Bounds()
        if ask.kind != "candles" and (ask.from_ns or ask.to_ns):
            bounds = await self._bounds(ask)
        sql, parameters = page_statement(ask, bounds, self._postgres)
        found = await self.store.fetch(sql, parameters, ask.limit + 1)
        place = _place(found)
        if bounds != Bounds() and (place.log_id, place.incarnation) != self._log:
            # The ids that were searched for are another log's.
            return await self.page(ask)
        rows = [row[4:] for row in found if row[4] is not None]
        return Page(rows[:ask.limit], place, len(rows) > ask.limit, self.name)

    async def place(self) -> Place:
        """How far the store is."""
        return _place(await self.store.fetch(f"SELECT {_POSITION} FROM store_position", (), 1))

    async def scales(self, symbols: Collection[str] | None) -> Mapping[str, Scale]:
        """The scales of these symbols and others; of all, read anew, for None."""
        now_ns = clock.monotonic_ns()
        if symbols is None or now_ns - self._scales_ns > SCALES_NS \
                or not self._scales.keys() >= set(symbols):
            rows = await self.store.fetch(
                "SELECT symbol, price_decimals, quantity_decimals, lot_size FROM instruments",
                (), 100_000)
            self._scales = {row[0]: Scale(*row[1:]) for row in rows}
            self._scales_ns = now_ns
        return self._scales

    # -- times to ids --------------------------------------------------------------------------

    async def _bounds(self, ask: Ask) -> Bounds:
        rows = await self.store.fetch(
            "SELECT log_id, incarnation, (SELECT min(seq) FROM order_events), "
            "(SELECT max(seq) FROM order_events) FROM store_position", (), 1)
        if not rows or rows[0][2] is None:
            return Bounds()
        log_id, incarnation, least, most = rows[0]
        if (log_id, incarnation) != self._log:
            self._firsts.clear()
            self._log = (log_id, incarnation)
        first = await self._first_at(ask.from_ns, least, most) if ask.from_ns else 0
        end = await self._first_at(ask.to_ns, least, most) if ask.to_ns else 0
        # Nothing is as late as `from`: what comes now may be.
        return Bounds(first or (most + 1 if ask.from_ns else 0), end)

    async def _first_at(self, time_ns: int, low: int, high: int) -> int:
        """The first event at this time or later; 0 when there is none yet."""
        known = self._firsts.get(time_ns)
        if known is not None:
            return known
        sql, parameters = search_statement(time_ns, low, high, self._postgres)
        rows = await self.store.fetch(sql, parameters, 1)
        if not rows or rows[0][1] < time_ns:
            return 0
        if len(self._firsts) >= BOUNDS_KEPT:
            self._firsts.popitem(last=False)
        self._firsts[time_ns] = rows[0][0]
        return int(rows[0][0])


def search_statement(time_ns: int, low: int, high: int, postgres: bool) -> tuple[str, list[Any]]:
    """The first event between two seqs whose time is not before this one, else the last one: the
    key is halved again and again, by the database itself."""
    made = Statement(postgres)
    begin = f"CAST({made.value(low)} AS bigint), CAST({made.value(high)} AS bigint)"
    late = ("(SELECT time_ns FROM order_events WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1)"
            " >= ")
    narrower = (f"CASE WHEN {late}{made.value(time_ns)} THEN low ELSE (low + high) / 2 + 1 END, "
                f"CASE WHEN {late}{made.value(time_ns)} THEN (low + high) / 2 ELSE high END")
    return (f"WITH RECURSIVE search(low, high) AS (SELECT {begin} UNION ALL "
            f"SELECT {narrower} FROM search WHERE low < high) "
            f"SELECT seq, time_ns FROM order_events WHERE seq >= "
            f"(SELECT low FROM search WHERE low >= high) ORDER BY seq LIMIT 1",
            made.parameters)


def _place(rows: Sequence[Row]) -> Place:
    return Place(*rows[0][:4]) if rows else _NOWHERE


class SecondCandles:
    """Candles of one second, made from trades: no table holds them."""

    def __init__(self, reader: Reader, ask: Ask) -> None:
        self._reader, self._ask = reader, ask
        self._candles: list[list[Any]] = []

    async def page(self) -> Page:
        """A page; it may be short of rows when there were very many trades in them."""
        ask, read = self._trades_ask(), 0
        place: Place | None = None
        while True:
            page = await self._reader.page(ask)
            place = place or page.place
            for row in page.rows:
                self._take(row)
            read += len(page.rows)
            enough = len(self._candles) > self._ask.limit or (
                read >= TRADES_READ_MAX and len(self._candles) > 1)
            if not page.more or enough:
                break
            ask = msgspec.structs.replace(ask, after=page.rows[-1][:1], last_seq=place.seq)
            await asyncio.sleep(0)
        rows = [tuple(candle) for candle in self._candles]
        if page.more:
            # The last one may lack trades.
            rows.pop()
        rows, more = rows[:self._ask.limit], page.more or len(rows) > self._ask.limit
        return Page(rows, place, more, self._reader.name)

    def _trades_ask(self) -> Ask:
        """The trades of all candles that are asked for."""
        ask, newest = self._ask, self._ask.newest_first
        # Candles are asked for by the time that they open.
        from_ns = -(-ask.from_ns // SECOND_NS) * SECOND_NS
        to_ns = -(-ask.to_ns // SECOND_NS) * SECOND_NS
        if ask.after:
            if newest:
                to_ns = ask.after[0]
            else:
                from_ns = ask.after[0] + SECOND_NS
        return Ask(kind="trades", store=ask.store, symbol=ask.symbol, from_ns=from_ns, to_ns=to_ns,
                   newest_first=newest, last_seq=ask.last_seq, limit=TRADES_AT_ONCE)

    def _take(self, row: Row) -> None:
        _, symbol, units, lots, _, time_ns, _ = row
        opens_ns = time_ns - time_ns % SECOND_NS
        if not self._candles or self._candles[-1][0] != opens_ns:
            self._candles.append([opens_ns, symbol, units, units, units, units, lots, 1])
            return
        candle = self._candles[-1]
        if self._ask.newest_first:
            candle[2] = units
        else:
            candle[5] = units
        candle[3], candle[4] = max(candle[3], units), min(candle[4], units)
        candle[6] += lots
        candle[7] += 1


class SqlHistory:
    """Answers from the first of these stores that can; an administrator may name one.

    `names` are those that are on, the preferred one first. `find` gives a store once it was made;
    `wrong` says why what stands there at a place is not our log's, "" when it is."""

    def __init__(self, names: Sequence[str], find: Callable[[str], Reads | None],
                 wrong: Callable[[Place], str] = lambda place: "") -> None:
        self._names, self._find, self._wrong = names, find, wrong
        self._readers: dict[str, Reader] = {}
        # Stores that were just away: until when (monotonic) they are passed over, and why.
        self._away: dict[str, tuple[int, str]] = {}

    async def page(self, ask: Ask) -> Page:
        """See engine.past."""
        async def page(reader: Reader) -> Page:
            found = await reader.page(ask)
            self._check(reader, found.place)
            return found

        return await self._first(ask.store, page)

    async def scales(self, symbols: Collection[str] | None = None) -> Mapping[str, Scale]:
        """See engine.past."""
        return await self._first("", lambda reader: reader.scales(symbols))

    async def place(self, store: str = "") -> tuple[str, Place]:
        """See engine.past."""
        reader = self._reader(store or self._preferred())
        try:
            place = await reader.place()
        except EngineError as error:
            raise self._gone(reader.name, error) from error
        self._check(reader, place)
        return reader.name, place

    async def query(self, store: str, sql: str, parameters: Sequence[Any], timeout_ms: int,
                    rows_max: int) -> Result:
        """See engine.past."""
        reader = self._reader(store or self._preferred())
        try:
            return Result(*await reader.store.query(sql, parameters, timeout_ms, rows_max))
        except QueryRefused as error:
            raise PastError(400, "query_refused", str(error)) from error
        except QueryTimeout as error:
            raise PastError(503, "query_timeout", str(error)) from error
        except EngineError as error:
            raise self._gone(reader.name, error) from error

    async def _first(self, store: str, ask: Callable[[Reader], Awaitable[Value]]) -> Value:
        """The answer of the named store, or of the first one that has one."""
        problem = unavailable(NONE_ON)
        for name in [store] if store else self._names:
            try:
                if not store:
                    self._pass_over(name)
                return await ask(self._reader(name))
            except PastError as error:
                problem = error
            except QueryTimeout as error:
                # Another store would take as long.
                raise PastError(503, "query_timeout", str(error)) from error
            except EngineError as error:
                problem = self._gone(name, error)
        raise problem

    def _check(self, reader: Reader, place: Place) -> None:
        wrong = self._wrong(place) if place.seq else ""
        if wrong:
            raise unavailable(f"{reader.name}: {wrong}")

    def _gone(self, name: str, error: EngineError) -> PastError:
        """A store that is away is passed over for a moment: it may let each question wait.
        Anybody may read the answer."""
        if isinstance(error, StoreDown):
            self._away[name] = (clock.monotonic_ns() + AWAY_NS, brief(error))
        return unavailable(f"{name}: {brief(error)}")

    def _pass_over(self, name: str) -> None:
        """Raises PastError for a store that was away just now."""
        until_ns, reason = self._away.get(name, (0, ""))
        if clock.monotonic_ns() < until_ns:
            raise unavailable(f"{name}: {reason}")

    def _preferred(self) -> str:
        """The store that statements are meant for: the first one that takes any."""
        for name in self._names:
            store = self._find(name)
            if store is None or store.takes_statements:
                return name
        return self._names[0] if self._names else ""

    def _reader(self, name: str) -> Reader:
        """Raises PastError."""
        if not self._names:
            raise unavailable(NONE_ON)
        if name not in self._names:
            raise PastError(400, "bad_value", f"store: {name} is off")
        store = self._find(name)
        if store is None:
            raise unavailable(f"{name} is not connected")
        reader = self._readers.get(name)
        if reader is None or reader.store is not store:
            reader = self._readers[name] = Reader(store)
        return reader

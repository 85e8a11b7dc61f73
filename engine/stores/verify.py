# ruff: noqa: S608 - table and column names are our own, values are parameters.
"""`matchd store verify`: every table of a SQL store, row by row, against what the log says.

The log is followed once more into a scratch file, which SQLite holds like the real one; then both
are read in the order of their keys. It may run beside the venue: the store is compared as it is at
one moment, with the events up to its position then.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cython_core import record
from cython_core.errors import CoreError
from cython_core.rows import COLUMNS
from engine.errors import EXIT_CORRUPT, NotKeptError
from engine.stores import sqlite_file
from engine.stores.beginning import Beginning, KeptLog, beginning_of
from engine.stores.sqlite_rows import known_rows, write_beginning, write_rows
from engine.stores.store import Position, Row, Snapshot, StoreStopped, Tables
from engine.stores.tables import new_rows

# (events or rows done, of how many)
Progress = Callable[[int, int], None]

PAGE_ROWS = 5_000
# Events of one transaction of the scratch file.
RUN_EVENTS = 20_000
DIFFERENCES_SHOWN = 20
# How often the log's beginning may go while it is begun to be read.
BEGINNINGS = 5


class Table(NamedTuple):
    """What is compared: columns, the key's before all others, and which are texts or wide;
    `where` leaves rows out."""

    name: str
    columns: tuple[str, ...]
    key: int
    texts: tuple[int, ...] = ()
    wide: tuple[int, ...] = ()
    where: str = ""


def _table(name: str, *key: str, more: tuple[str, ...] = (), texts: tuple[int, ...] = (),
           wide: tuple[str, ...] = (), less: tuple[str, ...] = ()) -> Table:
    columns = (*key, *(column for column in (*COLUMNS[name], *more)
                       if column not in (*key, *less)))
    return Table(name, columns, len(key), texts, tuple(columns.index(one) for one in wide))


INSTRUMENTS = _table("instruments", "instrument_id", more=("state", "reason"))
ACCOUNTS = _table("accounts", "account_id", more=("entry_disabled", "killed"),
                  wide=("notional_max",))
ORDERS = _table("orders", "order_id")
ORDER_EVENTS = _table("order_events", "seq")
TRADES = _table("trades", "match_number")
CANDLES = _table("candles", "symbol", "interval_s", "open_time_ns", texts=(0,))
POSITIONS = _table("positions", "account_id", "symbol", texts=(1,),
                   wide=("bought_value", "sold_value"))
DEAD = ("filled", "canceled")

# Where the log's beginning is gone, what a snapshot tells of it: not when things were defined, nor
# all that resting orders had been through.
_WHEN = ("seq", "time_ns")
KNOWN_INSTRUMENTS = _table("instruments", "instrument_id", more=("state", "reason"), less=_WHEN)
KNOWN_ACCOUNTS = _table("accounts", "account_id", more=("entry_disabled", "killed"),
                        wide=("notional_max",), less=_WHEN)
RESTING = _table("orders", "order_id", less=(
    "quantity_lots", "filled_lots", "status", "reason", "client_order_id", "user_ref_num",
    "replaces", "replaced_by", "time_ns", "updated_seq", "updated_time_ns"))


class Report(NamedTuple):
    """`differences` are the first of all, `problems` what the database says of its files;
    `notes` is worth knowing. `rows` are those compared, by table."""

    position: Position | None
    rows: dict[str, int]
    different: int
    differences: list[str]
    problems: list[str]
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """0 for the same, 4 for damage and differences."""
        return EXIT_CORRUPT if self.different or self.problems else 0


async def verify(store: Tables, past: KeptLog, end: Position, folder: Path,
                 progress: Progress = lambda done, total: None) -> Report:
    """Compare all tables of an open store with the log up to `end`.

    The scratch file, about as large as the tables, is made in `folder` and removed. `progress` gets
    events first, then rows. Raises StoreDown, StoreStopped, JournalError, NotKeptError.
    """
    scratch_folder = Path(tempfile.mkdtemp(prefix=f"verify-{store.name}-", dir=folder))
    try:
        async with store.snapshot() as first:
            at = first.position
            names = await first.fetch(_NAMES, ()) if at is not None else []
        if at is None:
            return Report(None, {}, 0, [], [], ["the store is empty"])
        _check_log(at, end)
        # Most of the work is done before the snapshot that a database has to keep meanwhile.
        scratch = await _filled(scratch_folder, past, names, at.seq, progress)
        try:
            async with store.snapshot() as snapshot:
                if snapshot.position is None:
                    raise StoreStopped("the store was emptied meanwhile", "try again")
                _check_log(snapshot.position, end)
                await asyncio.to_thread(scratch.fill, snapshot.position.seq, progress)
                return await _Comparison(store, snapshot, scratch, progress).run()
        finally:
            await asyncio.to_thread(scratch.close)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch_folder, ignore_errors=True)


async def _filled(folder: Path, past: KeptLog, names: Sequence[Row], to_seq: int,
                  progress: Progress) -> Scratch:
    """What the tables should be up to `to_seq`. A running venue may let the log's beginning go just
    when it was found: then the next one is taken. Raises as `verify` does."""
    for tried in itertools.count(1):
        own = folder / str(tried)
        own.mkdir()
        scratch = await asyncio.to_thread(Scratch, own, past, names)
        try:
            await asyncio.to_thread(scratch.fill, to_seq, progress)
        except BaseException as error:
            await asyncio.to_thread(scratch.close)
            if not isinstance(error, NotKeptError) or tried == BEGINNINGS:
                raise
        else:
            break
    return scratch


_NAMES = ("SELECT instrument_id, symbol, wire_symbol, price_decimals, quantity_decimals, lot_size "
          "FROM instruments")


def _check_log(position: Position, end: Position) -> None:
    if position.log_id != end.log_id:
        raise StoreStopped(f"the store belongs to the log {position.log_id.hex()}, this is "
                           f"{end.log_id.hex()}")


class Scratch:
    """What the tables should be. Where the log's beginning is gone, a snapshot says what was there;
    without one there is only what began behind it, and `names` are the markets that the store
    knows, for events of markets defined before."""

    def __init__(self, folder: Path, past: KeptLog, names: Sequence[Row]) -> None:
        self._past = past
        self._path = folder / "expected.sqlite"
        self.connection = sqlite_file.open_for_writing(self._path)
        # Nobody needs it after a crash.
        self.connection.execute("PRAGMA synchronous = OFF")
        self.oldest_seq = past.oldest_seq()
        # The time of the oldest event, where it is not the first.
        self.oldest_ns = 0
        known_rows(self.connection, 0)
        self._rows = new_rows(self.oldest_seq - 1)
        self.beginning = self._begin()
        if self.beginning is None and self.oldest_seq > 1:
            for instrument in names:
                self._rows.define(*instrument)

    def _begin(self) -> Beginning | None:
        try:
            beginning = beginning_of(self._past)
        except NotKeptError:
            return None
        if beginning is not None:
            self.oldest_seq = beginning.seq
            self._rows = new_rows(beginning.seq - 1)
            beginning.define(self._rows)
            self.connection.execute("BEGIN")
            write_beginning(self.connection, beginning)
            self.connection.execute("COMMIT")
        return beginning

    @property
    def seq(self) -> int:
        """The last event in it."""
        return self._rows.applied_seq

    def fill(self, to_seq: int, progress: Progress) -> None:
        """Bring it to `to_seq`. Raises JournalError, NotKeptError, StoreDown, StoreStopped."""
        try:
            self._fill(to_seq, progress)
        except CoreError as error:
            raise StoreStopped(f"the log makes no rows: {error}") from error
        except sqlite3.Error as error:
            raise sqlite_file.failure(error, self._path, "what it should be") from error

    def _fill(self, to_seq: int, progress: Progress) -> None:
        rows = self._rows
        for batch in self._past.events(rows.applied_seq + 1, to_seq):
            if self.oldest_seq > 1 and not self.oldest_ns:
                self.oldest_ns = record.first_time_ns(batch)
            rows.apply(record.events_before(batch, to_seq + 1))
            if rows.events >= RUN_EVENTS:
                self._write()
                progress(rows.applied_seq - self.oldest_seq + 1, to_seq - self.oldest_seq + 1)
        self._write()

    def _write(self) -> None:
        self.connection.execute("BEGIN")
        write_rows(self.connection, self._rows)
        self.connection.execute("COMMIT")
        self._rows.clear()

    async def fetch(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        """Every row of a statement."""
        return await asyncio.to_thread(
            lambda: self.connection.execute(sql, tuple(parameters)).fetchall())

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


class _Comparison:
    def __init__(self, store: Tables, snapshot: Snapshot, scratch: Scratch,
                 progress: Progress) -> None:
        self._store, self._snapshot, self._scratch = store, snapshot, scratch
        self._progress = progress
        self._rows: dict[str, int] = {}
        self._different = 0
        self._differences: list[str] = []
        self._notes: list[str] = []
        self._total = 0

    async def run(self) -> Report:
        snapshot, scratch = self._snapshot, self._scratch
        problems = await snapshot.check()
        from_seq = max(snapshot.kept_from_seq, scratch.oldest_seq)
        from_ns = max(snapshot.kept_from_ns, scratch.oldest_ns + 1 if scratch.oldest_ns else 0)
        tables = {ORDERS: scratch.oldest_seq, ORDER_EVENTS: from_seq, TRADES: from_seq,
                  CANDLES: from_ns}
        if scratch.oldest_seq == 1:
            tables = {INSTRUMENTS: 0, ACCOUNTS: 0, **tables, POSITIONS: 0}
        else:
            tables = self._with_what_was(tables)
        if snapshot.first_seq > 1:
            self._notes.append(f"the store's history is whole from seq {snapshot.first_seq} on; "
                               "positions and candles count from there")
        if snapshot.kept_from_seq > 1:
            self._notes.append(f"the store keeps everything from seq {snapshot.kept_from_seq} on")
        for table in tables:
            counted = await scratch.fetch(f"SELECT count(*) FROM {table.name}", ())
            self._total += counted[0][0]
        for table, lowest in tables.items():
            await self._compare(table, lowest)
        return Report(snapshot.position, self._rows, self._different, self._differences, problems,
                      self._notes)

    def _with_what_was(self, tables: dict[Table, int]) -> dict[Table, int]:
        """The tables of a log whose beginning is gone: as much of what was before as is known."""
        snapshot, scratch = self._snapshot, self._scratch
        oldest, beginning = scratch.oldest_seq, scratch.beginning
        left = ["what is older"]
        # Markets and accounts are known as the snapshot has them.
        if beginning is not None and beginning.state_seq <= scratch.seq:
            resting = RESTING._replace(where=f" AND order_id < {oldest} AND remaining_lots > 0")
            tables = {KNOWN_INSTRUMENTS: 0, KNOWN_ACCOUNTS: 0, resting: 0, **tables}
        else:
            left.insert(0, "markets, accounts")
        if snapshot.first_seq == oldest:
            tables[POSITIONS] = 0
        else:
            left.insert(0, "positions")
        self._notes.append(f"the log begins at seq {oldest}: {' and '.join(left)} can't be "
                           "compared")
        return tables

    async def _compare(self, table: Table, lowest: int) -> None:
        """Merge both sides in the order of the key."""
        self._rows.setdefault(table.name, 0)
        expected = self._pages(table, lowest, self._scratch.fetch, "?1")
        found = self._pages(table, lowest, self._snapshot.fetch, self._store.mark)
        want: list[Row] = []
        have: list[Row] = []
        while True:
            want = want or await anext(expected, [])
            have = have or await anext(found, [])
            if not want and not have:
                break
            if want == have:
                self._count(table, len(want))
                want = have = []
                continue
            # As far as both are known: up to the smaller one of the last keys.
            last = min(page[-1][:table.key] for page in (want, have) if page)
            wanted = {row[:table.key]: row for row in want if row[:table.key] <= last}
            there = {row[:table.key]: row for row in have if row[:table.key] <= last}
            for key in sorted(wanted.keys() | there.keys()):
                self._compare_row(table, key, wanted.get(key), there.get(key))
            self._count(table, len(wanted))
            want, have = want[len(wanted):], have[len(there):]

    def _count(self, table: Table, rows: int) -> None:
        self._rows[table.name] += rows
        self._progress(sum(self._rows.values()), self._total)

    async def _pages(self, table: Table, lowest: int,
                     fetch: Callable[[str, Sequence[object]], Awaitable[list[Row]]],
                     mark: str) -> AsyncIterator[list[Row]]:
        """The rows of one side from `lowest` on (a seq, or a candle's time), in pages."""
        collate = ' COLLATE "C"' if mark.startswith("$") else ""
        key = [f"{name}{collate}" if number in table.texts else name
               for number, name in enumerate(table.columns[:table.key])]
        marks = [f"{mark[0]}{number}" for number in range(1, table.key + 2)]
        low = f"{'open_time_ns' if table is CANDLES else table.columns[0]} >= {marks[0]}"
        low += table.where
        behind = f" AND ({', '.join(key)}) > ({', '.join(marks[1:])})"
        tail = f" ORDER BY {', '.join(key)} LIMIT {PAGE_ROWS}"
        head = f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {low}"
        page = await fetch(head + tail, (lowest,))
        while page:
            if table.wide:
                page = [_plain(table, row) for row in page]
            yield page
            page = await fetch(head + behind + tail,
                               (lowest, *page[-1][:table.key]))

    def _compare_row(self, table: Table, key: Row, want: Row | None, have: Row | None) -> None:
        if want is not None and have is not None and table is ORDERS:
            want = self._with_its_id(want, have)
        if want == have:
            return
        name = f"{table.name} {', '.join(map(str, key))}"
        if have is None:
            if want is not None and table.name == "orders" and self._may_be_gone(table, want):
                return
            self._tell(f"{name}: missing")
        elif want is None:
            self._tell(f"{name}: should not be there")
        else:
            self._tell(f"{name}: " + "; ".join(
                f"{column} is {theirs!r}, should be {ours!r}"
                for column, ours, theirs in zip(table.columns, want, have, strict=True)
                if ours != theirs))

    def _may_be_gone(self, table: Table, order: Row) -> bool:
        """An order of a day that went, dead by now or older than the log."""
        return bool(order[0] < self._snapshot.kept_from_seq and (
            table is not ORDERS or order[ORDERS.columns.index("status")] in DEAD))

    def _with_its_id(self, want: Row, have: Row) -> Row:
        """An order that replaced one from before the log's beginning has that one's id."""
        place = ORDERS.columns.index("client_order_id")
        if self._scratch.oldest_seq == 1 or want[place] is not None \
                or want[ORDERS.columns.index("replaces")] is None:
            return want
        return (*want[:place], have[place], *want[place + 1:])

    def _tell(self, difference: str) -> None:
        self._different += 1
        if len(self._differences) < DIFFERENCES_SHOWN:
            self._differences.append(difference)


def _plain(table: Table, row: Row) -> Row:
    """Wide numbers are texts here, decimals there."""
    return tuple(int(value) if place in table.wide else value for place, value in enumerate(row))

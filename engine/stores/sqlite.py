# ruff: noqa: S608 - table and column names are our own, values are parameters.
"""The SQLite store: history in one file of the data directory, without any server.

All of SQLite runs in one thread of its own. It shares the interpreter's lock with the loop, so it
takes that lock for short moments only: rows become Python values a few dozen at a time, and each
such slice is one statement, which SQLite then carries out without the lock.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from cython_core.errors import CoreError
from cython_core.record import first_time_ns
from cython_core.rows import COLUMNS, Rows
from engine import clock
from engine.config import SqliteConfig
from engine.errors import StoreError
from engine.instruments import Instrument
from engine.stores import sqlite_file
from engine.stores.sqlite_reader import Answer, SqliteReader, read_position
from engine.stores.sqlite_retention import Retention, first_seq, kept_from
from engine.stores.sqlite_rows import known_rows, write_beginning, write_rows
from engine.stores.sqlite_schema import SCHEMA_VERSION, TABLES
from engine.stores.store import (
    Position,
    Row,
    Snapshot,
    StoreDown,
    StoreMoved,
    StoreRefused,
    Work,
)
from engine.stores.tables import defined_before

Result = TypeVar("Result")

# What was written is made safe from a power cut so often.
SAFE_NS = 5 * clock.NS_PER_S

_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


class SqliteStore:
    """One history file. See `engine.stores.store.Store` for what the follower calls; `fetch`,
    `query` and `snapshot` read beside it."""

    name = "sqlite"
    mark = "?1"
    wants_beginning = True
    takes_statements = True

    def __init__(self, config: SqliteConfig, data_dir: Path,
                 instruments: Sequence[Instrument] = ()) -> None:
        # For a log whose beginning, with their definitions, is gone.
        self._instruments = instruments
        self.path = data_dir / config.file
        self.batch_interval_ms = config.batch_interval_ms
        self.max_batch_size = config.max_batch_size
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity = sqlite_file.Identity(None, None)
        self._rows: Rows | None = None
        # Whether the position was missing when we looked last: somebody else may empty the tables.
        self._is_empty = False
        self._retention = Retention(config)
        self._history = SqliteReader(self.path, "sqlite-history")
        self._queries = SqliteReader(self.path, "sqlite-queries")
        self._rows_written = self._from_seq = 0
        # Up to where a power cut takes nothing back, and when that was made so.
        self._safe_seq = self._safe_at_ns = 0

    # -- what the follower calls ---------------------------------------------------------------

    async def open(self, log: Position) -> Position | None:
        """Open the file, make or upgrade its tables, and read the position. Raises StoreDown,
        StoreStopped."""
        return await self._run(self._open)

    async def write(self, work: Work) -> None:
        """Write events and position in one transaction. Raises StoreDown, StoreMoved,
        StoreRefused, StoreStopped."""
        await self._run(lambda: self._write(work))

    def due_ns(self) -> int:
        """When (monotonic) old history wants to go; 0 for never."""
        return self._retention.due_ns

    def safe_seq(self, written_seq: int) -> int:
        """What is in the file itself; the rest is in its log, which is not synced."""
        return min(written_seq, self._safe_seq)

    async def reset(self) -> None:
        """Empty every table and forget the position. Needs no `open`: a damaged file is put aside
        and a new one made. Raises StoreDown, StoreStopped."""
        await self._run(self._reset)

    def facts(self) -> Mapping[str, object]:
        """For the log and `/health`."""
        return {"file": self.path.name, "rows": self._rows_written, "from_seq": self._from_seq}

    async def close(self) -> None:
        """Close the file. Never raises."""
        await self._history.close()
        await self._queries.close()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    # -- what others read ------------------------------------------------------------------------

    async def fetch(self, sql: str, parameters: Sequence[object], limit: int) -> list[Row]:
        """At most `limit` rows. Raises StoreDown, StoreStopped."""
        return await self._history.fetch(sql, parameters, limit)

    async def query(self, sql: str, parameters: Sequence[object], timeout_ms: int,
                    rows_max: int) -> Answer:
        """The answer to an operator's statement. Raises QueryRefused, QueryTimeout, StoreDown,
        StoreStopped."""
        return await self._queries.query(sql, parameters, timeout_ms, rows_max)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """One moment of all tables. Raises StoreDown, StoreStopped."""
        reader = SqliteReader(self.path, "sqlite-snapshot")
        async with reader.snapshot() as found:
            yield found

    # -- in the thread ---------------------------------------------------------------------------

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sqlite")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[], Result]) -> Result:
        """Run it; whatever goes wrong leaves nothing of it behind and is one of our errors."""
        try:
            return work()
        except (sqlite3.Error, sqlite3.Warning, OverflowError, CoreError) as error:
            meant = (StoreRefused(str(error)) if isinstance(error, CoreError)
                     else sqlite_file.failure(error, self.path, "writing"))
            self._give_up(meant)
            raise meant from error
        except StoreError as error:
            self._give_up(error)
            raise

    def _give_up(self, error: StoreError) -> None:
        # What was taken into rows is not in the file: they begin anew at the next write.
        self._rows = None
        self._retention.forget()
        if self._connection is not None:
            sqlite_file.roll_back(self._connection)
            if not isinstance(error, StoreMoved | StoreRefused):
                self._close()

    def _open(self) -> Position | None:
        self._close()
        self._connection = sqlite_file.open_for_writing(self.path)
        self._identity = sqlite_file.identity(self.path)
        found = read_position(self._connection)
        self._is_empty = found is None
        self._note_first(self._connection)
        # What a killed process left may be in the page cache only.
        self._safe_seq = 0
        self._make_safe(self._connection, found.seq if found else 0)
        return found

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreDown(f"{self.path} is not open")
        found = sqlite_file.identity(self.path)
        if found != self._identity:
            what = "removed" if found.file is None else "replaced"
            raise StoreDown(f"{self.path} or its log was {what} while the venue runs",
                            public=f"the file was {what}")
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        self._rows = None
        if connection is None:
            return
        try:
            connection.close()
        except sqlite3.Error:
            # What could not be copied out of the log stays there for the next one who opens it.
            pass
        sqlite_file.remove_stale_log(self.path, self._identity)

    def _write(self, work: Work) -> None:
        connection = self._connected()
        if work.batches:
            rows = self._taken(connection, work)
            connection.execute("BEGIN IMMEDIATE")
            self._move_position(connection, work, rows.last_time_ns)
            if work.beginning is not None:
                write_beginning(connection, work.beginning)
            elif self._begins_late(work):
                connection.executemany(
                    f"INSERT OR IGNORE INTO instruments ({', '.join(COLUMNS['instruments'])}) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    defined_before(self._instruments, work.before.seq,
                                   first_time_ns(work.batches[0])))
            self._rows_written += write_rows(connection, rows)
            connection.execute("COMMIT")
            if self._is_empty:
                self._is_empty = False
                self._note_first(connection)
            rows.clear()
            if clock.monotonic_ns() - self._safe_at_ns > SAFE_NS:
                self._make_safe(connection, work.after.seq)
        if self._retention.is_due():
            self._retention.run(connection)
            self._note_first(connection)

    def _note_first(self, connection: sqlite3.Connection) -> None:
        """From which event on history is whole."""
        self._from_seq = kept_from(connection)[0] or first_seq(connection)

    def _make_safe(self, connection: sqlite3.Connection, seq: int) -> None:
        self._safe_at_ns = clock.monotonic_ns()
        if sqlite_file.checkpoint(connection):
            self._safe_seq = seq

    def _taken(self, connection: sqlite3.Connection, work: Work) -> Rows:
        """The work's events as rows."""
        rows = self._rows
        if rows is None or rows.applied_seq != work.before.seq:
            rows = self._rows = known_rows(connection, work.before.seq)
            if work.beginning is not None:
                work.beginning.define(rows)
            else:
                for one in self._instruments if self._begins_late(work) else ():
                    rows.define(one.id, one.symbol)
        for batch in work.batches:
            rows.apply(batch)
        if rows.applied_seq != work.after.seq:
            raise StoreRefused(f"events up to {work.after.seq} were announced, those that came "
                               f"end at {rows.applied_seq}")
        return rows

    def _begins_late(self, work: Work) -> bool:
        """Whether these are the first events, and not the log's first."""
        return self._is_empty and work.before.seq > 0

    def _reset(self) -> None:
        try:
            if self._connection is None:
                self._open()
            self._empty()
        except sqlite3.DatabaseError as error:
            if not sqlite_file.is_damaged(error):
                raise
            self._close()
            sqlite_file.set_aside(self.path)
            self._open()
        self._is_empty = True

    def _empty(self) -> None:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")
        connection.execute("COMMIT")
        self._rows = None
        self._safe_seq = 0
        self._retention.forget()

    def _move_position(self, connection: sqlite3.Connection, work: Work, time_ns: int) -> None:
        """Compare and set the position. Raises StoreMoved, sqlite3.Error."""
        before, after = work.before, work.after
        values = (after.log_id.hex(), after.incarnation, after.seq, time_ns, SCHEMA_VERSION)
        if self._is_empty:
            # The row's number is given, not counted: there can be no second one.
            if connection.execute(
                    "INSERT INTO store_position (rowid, log_id, incarnation, seq, time_ns, "
                    f"schema_version, updated_at) VALUES (1, ?, ?, ?, ?, ?, {_NOW}) "
                    "ON CONFLICT DO NOTHING", values).rowcount:
                return
        elif connection.execute(
                f"UPDATE store_position SET log_id = ?, incarnation = ?, seq = ?, time_ns = ?, "
                f"schema_version = ?, updated_at = {_NOW} "
                "WHERE log_id = ? AND incarnation = ? AND seq = ?",
                (*values, before.log_id.hex(), before.incarnation, before.seq)).rowcount:
            return
        found = read_position(connection)
        raise StoreMoved(f"{self.path} is at {_text(found)}, not at "
                         f"{'its beginning' if self._is_empty else _text(before)}")


def _text(position: Position | None) -> str:
    if position is None:
        return "its beginning"
    return f"seq {position.seq} of log {position.log_id.hex()}-{position.incarnation}"

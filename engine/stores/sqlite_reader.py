"""Reads the history file beside the store that writes it: never more than reads, in time.

A reader has its own connection and thread. SQLite itself refuses all but reading: the file is
opened for reading only, `query_only` is set, and an authorizer lets nothing else through.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from engine import clock
from engine.errors import StoreError
from engine.stores import sqlite_file
from engine.stores.sqlite_retention import first_seq, kept_from
from engine.stores.store import (
    Position,
    QueryRefused,
    QueryTimeout,
    Row,
    Snapshot,
    StoreDown,
    StoreStopped,
)

Result = TypeVar("Result")
# A look at the clock after so many steps of SQLite (some milliseconds).
STEPS_PER_LOOK = 100_000
# The longest text of a statement, the longest value, and all values of one answer.
STATEMENT_MAX_BYTES = 100_000
VALUE_MAX_BYTES = 2**20
ANSWER_MAX_BYTES = 64 * 2**20
_SLICE_ROWS = 200
# Statements of ours take turns: one that looks through everything must not hold up the others.
FETCH_NS_MAX = 10 * clock.NS_PER_S
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE,
            sqlite3.SQLITE_FUNCTION}
_FORBIDDEN_FUNCTIONS = {"load_extension", "fts3_tokenizer"}


class Answer(NamedTuple):
    """Rows, the names of their columns, and whether there were more."""

    columns: list[str]
    rows: list[Row]
    truncated: bool


class SqliteReader:
    """One connection for reading, with its thread; questions wait for each other."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._until_ns = 0

    async def fetch(self, sql: str, parameters: Sequence[object], limit: int) -> list[Row]:
        """At most `limit` rows of a statement of ours. Raises QueryTimeout, StoreDown,
        StoreStopped."""
        def work() -> list[Row]:
            self._until_ns = clock.monotonic_ns() + FETCH_NS_MAX
            try:
                return self._connected().execute(sql, tuple(parameters)).fetchmany(limit)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                raise QueryTimeout("it took too long: ask for less at once") from error
            finally:
                self._until_ns = 0
        return await self._run(work)

    async def query(self, sql: str, parameters: Sequence[object], timeout_ms: int,
                    rows_max: int) -> Answer:
        """The answer to anybody's statement, cut at `rows_max` rows. Raises QueryRefused,
        QueryTimeout, StoreDown, StoreStopped."""
        def work() -> Answer:
            self._until_ns = clock.monotonic_ns() + timeout_ms * clock.NS_PER_MS
            try:
                return self._ask(sql, tuple(parameters), rows_max)
            finally:
                self._until_ns = 0
        return await self._run(work)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """One moment of the whole file. Raises StoreDown, StoreStopped.

        The file's log can't shrink meanwhile, so it should not be held for hours."""
        def begin() -> tuple[Position | None, tuple[int, int], int]:
            connection = self._connected()
            connection.set_authorizer(None)
            connection.execute("BEGIN")
            return read_position(connection), kept_from(connection), first_seq(connection)

        async def fetch(sql: str, parameters: Sequence[object]) -> list[Row]:
            return await self._run(
                lambda: self._connected().execute(sql, tuple(parameters)).fetchall())

        async def check() -> list[str]:
            found = await fetch("PRAGMA integrity_check", ())
            return [f"{self.path}: {row[0]}" for row in found if row[0] != "ok"]
        position, kept, first = await self._run(begin)
        try:
            yield Snapshot(position, *kept, fetch, check, first)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection, without the end of what it is at; the next question opens another.
        Never raises."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if self._connection is not None:
                self._connection.interrupt()
            await asyncio.get_running_loop().run_in_executor(thread, self._disconnect)
            thread.shutdown(wait=False)

    # -- in the thread -------------------------------------------------------------------------

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, self._name)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except sqlite3.Error as error:
            self._disconnect()
            raise sqlite_file.failure(error, self.path, "reading") from error
        except StoreError as error:
            if isinstance(error, StoreDown | StoreStopped):
                self._disconnect()
            raise

    def _connected(self) -> sqlite3.Connection:
        """The connection, made if there is none or if its file is another one by now."""
        if self._connection is not None and self._connection.in_transaction:
            return self._connection
        found = sqlite_file.identity(self.path).file
        if self._connection is not None and found == self._file:
            return self._connection
        self._disconnect()
        if found is None:
            raise StoreDown(f"{self.path} is not there")
        connection = sqlite_file.connect(self.path, writing=False)
        try:
            if sqlite_file.check(connection, self.path) == 0:
                raise StoreDown(f"{self.path} is empty")
            connection.execute("PRAGMA query_only = ON")
            connection.set_progress_handler(self._too_late, STEPS_PER_LOOK)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_MAX_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, STATEMENT_MAX_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_authorizer(_authorize)
        except BaseException:
            connection.close()
            raise
        self._connection, self._file = connection, found
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _too_late(self) -> int:
        return int(0 < self._until_ns <= clock.monotonic_ns())

    def _ask(self, sql: str, parameters: Row, rows_max: int) -> Answer:
        connection = self._connected()
        try:
            cursor = connection.execute(sql, parameters)
            if cursor.description is None:
                raise QueryRefused("the statement returns no rows", "send one SELECT")
            rows, truncated = _take(cursor, rows_max)
            return Answer([column[0] for column in cursor.description], rows, truncated)
        except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
            refused = _refusal(error)
            if refused is None:
                raise
            raise refused from error


def _take(cursor: sqlite3.Cursor, rows_max: int) -> tuple[list[Row], bool]:
    """Rows up to the limits, and whether there were more."""
    rows: list[Row] = []
    size = 0
    while True:
        part = cursor.fetchmany(min(_SLICE_ROWS, rows_max + 1 - len(rows)))
        rows += part
        size += sum(len(value) for row in part for value in row
                    if isinstance(value, str | bytes))
        if len(rows) > rows_max or size > ANSWER_MAX_BYTES:
            cursor.close()
            return rows[:rows_max], True
        if not part:
            return rows, False


def _refusal(error: Exception) -> StoreError | None:
    """What an error says about the question; None when it says something about the file."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryTimeout("the query took too long")
    if code == sqlite3.SQLITE_AUTH:
        return QueryRefused(f"{error}: only reading is allowed")
    if code in (None, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE,
                sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_READONLY):
        # Without a code it is about the statement or its parameters, not from SQLite.
        return QueryRefused(str(error))
    return None


def _authorize(action: int, first: str | None, second: str | None, database: str | None,
               source: str | None) -> int:
    """Let reading through, and nothing else."""
    if action not in _READING or (action == sqlite3.SQLITE_FUNCTION
                                  and second in _FORBIDDEN_FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def read_position(connection: sqlite3.Connection) -> Position | None:
    """The position in the file; None when it is empty. Raises sqlite3.Error."""
    row = connection.execute("SELECT log_id, incarnation, seq FROM store_position").fetchone()
    return Position(bytes.fromhex(row[0]), row[1], row[2]) if row else None

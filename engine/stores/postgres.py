"""The PostgreSQL store: history for those who ask with SQL.

Position and rows change in one transaction, the position by compare and set. A connection that
fails is thrown away, never used again; the position is read from the server with the next one.
A run that crosses midnight is written in two transactions, with the day's new partitions between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from cython_core.errors import CoreError
from cython_core.event import EventBatch
from cython_core.rows import COLUMNS, Rows
from engine import log as logs
from engine.config import PostgresConfig
from engine.errors import StoreError
from engine.instruments import Instrument
from engine.stores import postgres_schema
from engine.stores.beginning import Beginning
from engine.stores.postgres_days import Days, time_of
from engine.stores.postgres_link import WRITER_PLANS, Link
from engine.stores.postgres_reader import (
    Answer,
    PostgresReader,
    first_seq,
    kept_from,
    read_position,
)
from engine.stores.postgres_rights import HINT, too_mighty
from engine.stores.postgres_rows import STAGING, write_beginning, write_rows
from engine.stores.store import (
    Position,
    Row,
    Snapshot,
    StoreDown,
    StoreMoved,
    StoreRefused,
    Work,
)
from engine.stores.tables import defined_before, new_rows

Result = TypeVar("Result")

# So many events become rows at a time, a fraction of a millisecond.
APPLY_EVENTS = 2_000
CLOSE_S = 1.0


DEFINED_BEFORE = (
    f"insert into instruments ({', '.join(COLUMNS['instruments'])}, time) values "  # noqa: S608
    "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, "
    "timestamptz 'epoch' + $10::bigint / 1000 * interval '1 microsecond') on conflict do nothing")


class PostgresStore:
    """One schema of a database. See `engine.stores.store.Store` for what the follower calls;
    `fetch`, `query` and `snapshot` read beside it."""

    name = "postgres"
    mark = "$1"
    wants_beginning = True

    def __init__(self, config: PostgresConfig, instruments: Sequence[Instrument] = ()) -> None:
        # For a log whose beginning, with their definitions, is gone.
        self._instruments = instruments
        self.batch_interval_ms = config.batch_interval_ms
        self.max_batch_size = config.max_batch_size
        self._config = config
        self._link = Link(config)
        self._reader = PostgresReader(config, self._link)
        self._writer: Any = None
        self._days = Days()
        self._rows: Rows | None = None
        # Whether the tables held nothing when they were opened: then any position may follow.
        self._empty = False
        # What goes into empty tables before the first rows.
        self._beginning: Beginning | None = None
        self._server = ""
        self._rows_written = self._from_seq = 0
        # Why no statement of others is run, as far as is known.
        self._mighty = ""

    # -- what the follower calls ---------------------------------------------------------------

    async def open(self, log: Position) -> Position | None:
        """Connect, bring the tables up to date or check them, and read the position. Raises
        StoreDown, StoreStopped."""
        await self._drop_writer()
        connection = await self._link.connect(" writer", WRITER_PLANS)
        try:
            if await postgres_schema.check(connection, self._config.schema):
                await self._migrate(connection)
            await postgres_schema.check_tables(connection, self._config.schema)
            await self._days.load(connection, self._config.schema)
            await connection.execute(STAGING)
            position = await read_position(connection)
            await self._look_at_role(connection)
            kept_seq, _ = await kept_from(connection, self._config.schema)
            self._from_seq = kept_seq or await first_seq(connection)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, Exception):
                raise self._link.meaning(error) from error
            raise
        self._writer, self._empty = connection, position is None
        self._server = connection.get_settings().server_version.split()[0]
        return position

    async def write(self, work: Work) -> None:
        """Write events and position in one transaction (in two at midnight). Raises StoreDown,
        StoreMoved, StoreRefused, StoreStopped."""
        try:
            await self._write(work)
        except BaseException as error:
            # What was taken into rows is not in the tables: they begin anew at the next write.
            self._rows = None
            if not isinstance(error, Exception):
                self._terminate()
                raise
            meant = self._link.meaning(error)
            await self._roll_back(meant)
            raise meant from error

    def due_ns(self) -> int:
        """Never: nothing has to be done without events."""
        return 0

    def safe_seq(self, written_seq: int) -> int:
        """All of it: a commit is durable there."""
        return written_seq

    async def reset(self) -> None:
        """Empty every table and forget the position, in one transaction; tables that are missing
        are made anew. Needs no `open`, which may have failed. Raises StoreDown, StoreStopped."""
        await self._drop_writer()
        await self._alone(" rebuild", postgres_schema.reset)

    async def migrate(self) -> int:
        """Bring the tables up to date although a start may not; how many steps it took. Needs no
        `open`. Raises StoreDown, StoreStopped."""
        return await self._alone(" migration", postgres_schema.migrate)

    def facts(self) -> Mapping[str, object]:
        """For the log and `/health`."""
        return {"server": self._server, "rows": self._rows_written, "from_seq": self._from_seq,
                "partition": str(self._days.newest or "")}

    async def close(self) -> None:
        """Close the connections. Never raises."""
        await self._drop_writer()
        await self._reader.close()

    # -- what others read ------------------------------------------------------------------------

    async def fetch(self, sql: str, parameters: Sequence[object], limit: int) -> list[Row]:
        """At most `limit` rows of a statement of ours. Raises StoreDown, StoreStopped."""
        return await self._reader.fetch(sql, parameters, limit)

    async def query(self, sql: str, parameters: Sequence[object], timeout_ms: int,
                    rows_max: int) -> Answer:
        """The answer to an operator's statement. Raises QueryRefused, QueryTimeout, StoreDown,
        StoreStopped."""
        return await self._reader.query(sql, parameters, timeout_ms, rows_max)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """One moment of all tables. Raises StoreDown, StoreStopped."""
        async with self._reader.snapshot() as found:
            yield found

    # -- the writer ------------------------------------------------------------------------------

    async def _migrate(self, connection: Any) -> None:
        if not self._config.migrate:
            raise StoreDown(f"the tables in the schema {self._config.schema} are not made yet, or "
                            "are of an older matchd", "`matchd store migrate postgres` brings "
                            "them up to date, or postgres.migrate = true",
                            "its tables are not up to date")
        await postgres_schema.migrate(connection, self._config.schema)

    async def _look_at_role(self, connection: Any) -> None:
        """Tell the operator, once, of a role for which no statement of others is run."""
        before, self._mighty = self._mighty, await too_mighty(connection)
        if self._mighty and self._mighty != before:
            logs.get("stores").warning("database queries over HTTP are refused for PostgreSQL",
                                       reason=self._mighty, hint=HINT)

    @property
    def takes_statements(self) -> bool:
        """Whether statements of others were run for the role that logged in last."""
        return not self._mighty

    async def _write(self, work: Work) -> None:
        if self._writer is None or self._writer.is_closed():
            raise StoreDown(f"there is no connection to PostgreSQL at {self._link.where}")
        if not work.batches:
            await self._check_position(work.before)
            return
        self._beginning = work.beginning
        rows = await self._rows_behind(work.before.seq)
        if work.beginning is not None:
            work.beginning.define(rows)
        position = work.before
        try:
            for batch in work.batches:
                position = await self._take(rows, batch, position, work.after)
        except CoreError as error:
            # Names are missing where somebody emptied the tables.
            await self._check_position(position)
            raise StoreRefused(str(error)) from error
        if rows.applied_seq != work.after.seq:
            raise StoreRefused(f"events up to {work.after.seq} were announced, those that came "
                               f"end at {rows.applied_seq}")
        await self._flush(rows, position, work.after)

    async def _take(self, rows: Rows, batch: EventBatch, position: Position, after: Position
                    ) -> Position:
        """Turn a batch into rows; what is of the day before is written when a new day begins.
        Returns the position that is in the tables."""
        if self._days.newest is None and batch.first_seq + batch.event_count > rows.applied_seq + 1:
            await self._begin_day(rows, batch)
        while True:
            limit = rows.events + APPLY_EVENTS
            done = rows.apply(batch, self._days.until_ns(), limit)
            await asyncio.sleep(0)
            if done:
                return position
            if rows.events < limit:
                position = await self._flush(
                    rows, position, after._replace(seq=rows.applied_seq))
                await self._begin_day(rows, batch)

    async def _begin_day(self, rows: Rows, batch: EventBatch) -> None:
        """The event behind the rows is of another day than the one before it."""
        first_seq = rows.applied_seq + 1
        await self._days.begin(self._writer, first_seq, time_of(batch, first_seq))

    async def _flush(self, rows: Rows, before: Position, after: Position) -> Position:
        """Write what the rows hold and the position behind it in one transaction."""
        if not rows.events:
            return before
        connection = self._writer
        await connection.execute("begin isolation level read committed")
        await self._move_position(before, after, rows.last_time_ns)
        if self._beginning is not None:
            await write_beginning(connection, self._beginning)
        elif self._empty and before.seq:
            await connection.executemany(DEFINED_BEFORE, defined_before(
                self._instruments, before.seq, rows.last_time_ns))
        written = await write_rows(connection, rows, before.seq)
        if await connection.execute("commit") != "COMMIT":
            raise StoreDown(f"PostgreSQL at {self._link.where} rolled a transaction back")
        self._rows_written += written
        self._from_seq = self._from_seq or before.seq + 1
        self._empty, self._beginning = False, None
        rows.clear()
        return after

    async def _move_position(self, before: Position, after: Position, time_ns: int) -> None:
        """Compare and set the position, which locks its row. Raises StoreMoved."""
        moved = await self._writer.fetchval(
            "update store_position set log_id = $1, incarnation = $2, seq = $3, time_ns = $4, "
            "updated_at = now() where (log_id = $5 and incarnation = $6 and seq = $7) "
            "or (log_id = '' and $8) returning seq",
            after.log_id.hex(), after.incarnation, after.seq, time_ns,
            before.log_id.hex(), before.incarnation, before.seq, self._empty)
        if moved is None:
            await self._check_position(before)
            raise StoreMoved(f"the position was not {before.seq} for a moment")

    async def _check_position(self, position: Position) -> None:
        """Raises StoreMoved when the tables are not there."""
        found = await read_position(self._writer)
        if found is None and not self._empty:
            raise StoreMoved(f"the tables were emptied, they were at {position.seq}")
        if found is not None and found != position:
            raise StoreMoved(f"the position is {found.seq} of log {found.log_id.hex()}-"
                             f"{found.incarnation}, not {position.seq}")

    async def _rows_behind(self, seq: int) -> Rows:
        """Rows that go on behind `seq`, with the names of the instruments defined before."""
        rows = self._rows
        if rows is None or rows.applied_seq != seq:
            rows = new_rows(seq)
            for number, symbol in await self._writer.fetch(
                    "select instrument_id, symbol from instruments"):
                rows.define(number, symbol)
            for one in self._instruments if self._empty and seq else ():
                rows.define(one.id, one.symbol)
            self._rows = rows
        return rows

    async def _alone(self, name: str, work: Callable[[Any, str], Awaitable[Result]]) -> Result:
        """Do something with the schema on a connection of its own."""
        connection = await self._link.connect(name)
        try:
            return await work(connection, self._config.schema)
        except Exception as error:
            raise self._link.meaning(error) from error
        finally:
            connection.terminate()

    async def _roll_back(self, error: StoreError) -> None:
        """End the transaction, or the connection when it is of no more use."""
        connection = self._writer
        if connection is None or connection.is_closed():
            return
        if isinstance(error, StoreRefused | StoreMoved):
            try:
                if connection.is_in_transaction():
                    await connection.execute("rollback", timeout=CLOSE_S)
                return
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                pass
        self._terminate()

    def _terminate(self) -> None:
        if self._writer is not None:
            self._writer.terminate()
            self._writer = None

    async def _drop_writer(self) -> None:
        """Close the writer's connection, politely if that is quick."""
        connection, self._writer, self._rows = self._writer, None, None
        if connection is None or connection.is_closed():
            return
        try:
            await connection.close(timeout=CLOSE_S)
        except Exception:
            connection.terminate()

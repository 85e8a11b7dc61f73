"""Reads PostgreSQL beside the store that writes it: in transactions that can only read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import asyncpg

from engine import clock
from engine.config import PostgresConfig
from engine.errors import StoreError
from engine.stores.postgres_link import PATIENCE_S, Link, of_question
from engine.stores.postgres_rights import require_plain
from engine.stores.postgres_schema import PARTITIONED, partitions
from engine.stores.store import Position, QueryRefused, Row, Snapshot

Result = TypeVar("Result")

READS_ONLY = {"default_transaction_read_only": "on"}
STATEMENT_MAX_BYTES = 100_000
ANSWER_MAX_BYTES = 64 * 2**20
_SLICE_ROWS = 200
# So few come in one piece: about a millisecond of the loop's time.
_AT_ONCE_ROWS = 250
# What is met on a connection that the server or the net has ended.
_ENDED = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError,
          asyncpg.exceptions.IdleSessionTimeoutError, asyncpg.InterfaceError, ConnectionError)


class Answer(NamedTuple):
    """Rows, the names of their columns, and whether there were more."""

    columns: list[str]
    rows: list[Row]
    truncated: bool


class PostgresReader:
    """The pool: connections are made when the first question comes, and again after `close`."""

    def __init__(self, config: PostgresConfig, link: Link) -> None:
        self._config = config
        self._link = link
        self._pool: Any = None
        self._making = asyncio.Lock()

    async def fetch(self, sql: str, parameters: Sequence[object], limit: int) -> list[Row]:
        """At most `limit` rows of a statement of ours. Raises StoreDown, StoreStopped."""
        async def work(connection: Any) -> list[Row]:
            cursor = await connection.cursor(sql, *parameters)
            return await _rows(cursor, limit)

        async def ask() -> list[Row]:
            if limit <= _AT_ONCE_ROWS:
                return await self._at_once(sql, parameters, limit)
            return await self._reading(work)
        try:
            return await self._again(ask)
        except Exception as error:
            raise self._link.meaning(error) from error

    async def _at_once(self, sql: str, parameters: Sequence[object], limit: int) -> list[Row]:
        """Few rows in one round trip: our own statement is a transaction by itself, one that can
        only read, and is limited by itself: all that comes is taken."""
        pool = await self._connected()
        async with pool.acquire(timeout=self._config.connect_timeout_ms / 1000) as connection:
            rows = await connection.fetch(sql, *parameters)
        return [tuple(row) for row in rows[:limit]]

    async def query(self, sql: str, parameters: Sequence[object], timeout_ms: int,
                    rows_max: int) -> Answer:
        """The answer to anybody's one statement, cut at `rows_max` rows. Raises QueryRefused,
        QueryTimeout, StoreDown, StoreStopped."""
        if len(sql.encode()) > STATEMENT_MAX_BYTES:
            raise QueryRefused(f"a statement has at most {STATEMENT_MAX_BYTES} bytes")

        async def work(connection: Any) -> Answer:
            await require_plain(connection)
            await connection.execute(f"set local statement_timeout = {timeout_ms}")
            if self._config.query_role:
                role = self._config.query_role.replace('"', '""')
                await connection.execute(f'set local role "{role}"')
            # Prepared: the server takes one statement, and none that copies.
            statement = await connection.prepare(sql)
            columns = [column.name for column in statement.get_attributes()]
            if not columns:
                raise QueryRefused("the statement returns no rows", "send one SELECT")
            rows = await _rows(await statement.cursor(*parameters), rows_max + 1)
            return Answer(columns, rows[:rows_max], len(rows) > rows_max)
        try:
            async with asyncio.timeout(timeout_ms / 1000 + PATIENCE_S):
                return await self._reading(work, strange=True)
        except StoreError:
            raise
        except Exception as error:
            raise of_question(error, self._link.where) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """One moment of all tables, over a connection of its own. Raises StoreDown, StoreStopped.

        The server keeps what changes meanwhile, so it should not be held for hours."""
        connection = await self._link.connect(" snapshot")
        try:
            await connection.execute("begin isolation level repeatable read, read only")
            await connection.execute("set local idle_in_transaction_session_timeout = 0")
            position = await read_position(connection)
            kept = await kept_from(connection, self._config.schema)
            first = 0 if kept[0] else await first_seq(connection)

            async def fetch(sql: str, parameters: Sequence[object]) -> list[Row]:
                try:
                    return [tuple(row) for row in await connection.fetch(sql, *parameters)]
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                    raise self._link.meaning(error) from error

            async def check() -> list[str]:
                # The server looks after its own files.
                return []
            yield Snapshot(position, *kept, fetch, check, first)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise self._link.meaning(error) from error
        finally:
            connection.terminate()

    async def close(self) -> None:
        """Close the connections; the next question makes new ones. Never raises."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(1):
                    await pool.close()
            except Exception:
                pool.terminate()

    async def _reading(self, work: Callable[[Any], Awaitable[Result]],
                       strange: bool = False) -> Result:
        """Run it on a connection of the pool, in a transaction that can only read and is rolled
        back, so that nothing stays set; what a stranger's statement may have left beyond that (a
        lock of the session) is taken away."""
        # A stranger's statement is not sent twice: it may be what ended the connection.
        pool, connection = await self._again(self._begun)
        done = False
        try:
            result = await work(connection)
            await self._leave(connection, strange)
            done = True
            return result
        except asyncpg.PostgresError:
            if not _is_lost(connection):
                await self._leave(connection, strange)
                done = True
            raise
        except StoreError:
            await self._leave(connection, strange)
            done = True
            raise
        finally:
            if not done and not _is_lost(connection):
                # Whatever state it is in, nobody gets it again.
                connection.terminate()
            await pool.release(connection)

    async def _begun(self) -> tuple[Any, Any]:
        """The pool, and a connection of it in a transaction that can only read."""
        pool = await self._connected()
        connection = await pool.acquire(timeout=self._config.connect_timeout_ms / 1000)
        try:
            await connection.execute("begin read only")
        except BaseException:
            if not _is_lost(connection):
                connection.terminate()
            await pool.release(connection)
            raise
        return pool, connection

    async def _again(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Once more when a connection of the pool turns out to have ended while nobody used it:
        with it, others may have."""
        try:
            return await ask()
        except _ENDED as error:
            if isinstance(error, ConnectionRefusedError):
                raise
            if self._pool is not None:
                await self._pool.expire_connections()
            return await ask()

    async def _leave(self, connection: Any, strange: bool) -> None:
        await connection.execute("rollback")
        if strange:
            await connection.reset()

    async def _connected(self) -> Any:
        async with self._making:
            if self._pool is None:
                # One connection of those that are allowed is the writer's.
                config = self._config
                self._pool = await asyncpg.create_pool(
                    min_size=max(0, min(config.pool_min_size, config.pool_max_size) - 1),
                    max_size=max(1, config.pool_max_size - 1), reset=_is_clean,
                    **await self._link.arguments(" reader", READS_ONLY))
            return self._pool


def _is_lost(connection: Any) -> bool:
    """Whether it ended by itself; then the pool has taken it back, and it answers nothing more."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


async def _is_clean(connection: Any) -> None:
    """Connections are left as they were found: no round trip for each release."""


async def _rows(cursor: Any, limit: int) -> list[Row]:
    """At most `limit` rows, in slices between which the loop has a turn."""
    rows: list[Row] = []
    size = 0
    while len(rows) < limit:
        part = await cursor.fetch(min(_SLICE_ROWS, limit - len(rows)))
        rows += (tuple(row) for row in part)
        size += sum(len(value) for row in part for value in row if isinstance(value, str | bytes))
        if size > ANSWER_MAX_BYTES:
            raise QueryRefused(f"the answer takes more than {ANSWER_MAX_BYTES} bytes")
        if len(part) < _SLICE_ROWS:
            break
    return rows


async def read_position(connection: Any) -> Position | None:
    """The position in the tables; None when they are empty. Raises asyncpg's errors."""
    row = await connection.fetchrow("select log_id, incarnation, seq from store_position")
    if row is None or not row["log_id"]:
        return None
    return Position(bytes.fromhex(row["log_id"]), row["incarnation"], row["seq"])


async def kept_from(connection: Any, schema: str) -> tuple[int, int]:
    """The seq and the time from which on no partition was dropped; zeros when none was. Raises
    asyncpg's errors."""
    there = {name.rpartition("_")[2] for name in await partitions(connection, schema, "orders")}
    for table in PARTITIONED:
        there &= {name.rpartition("_")[2] for name in await partitions(connection, schema, table)}
    rows = await connection.fetch("select day, first_seq from store_days order by day")
    kept = [row for row in rows if f"{row['day']:%Y%m%d}" in there]
    if not kept or kept[0] is rows[0]:
        return 0, 0
    days = kept[0]["day"].toordinal() - _EPOCH_ORDINAL
    return kept[0]["first_seq"], days * clock.NS_PER_DAY


async def first_seq(connection: Any) -> int:
    """The first event that there is, 0 when there is none. Raises asyncpg's errors."""
    return await connection.fetchval("select min(seq) from order_events") or 0


_EPOCH_ORDINAL = 719_163

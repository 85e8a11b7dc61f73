"""The tables in PostgreSQL: migrations, what has to be there, emptying all.

Migrations are files `migrations/NNNN_name.sql` in this package. Each runs once, in order, in the
schema of the settings; those that are missing run in one transaction under a lock, so that two who
start at once don't meet.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, NamedTuple

from cython_core.pgcopy import COLUMNS
from engine.stores.store import StoreDown, StoreStopped

# Tables that the store writes; partitioned ones with their key.
PARTITIONED = {"orders": "order_id", "order_events": "seq", "trades": "match_number"}
PLAIN = ("store_position", "store_days", "instruments", "accounts", "candles", "positions")
TABLES = (*PLAIN, *PARTITIONED)
VIEWS = ("orders_view", "order_events_view", "trades_view", "candles_view", "positions_view")
# Changes of large tables take their time; so long at most.
LONG_S = 3_600.0
# Below it the partitions' ways that we use are missing.
SERVER_NEEDED = 14

_REBUILD = "restore it from a backup, or run `matchd store rebuild postgres`"


class Migration(NamedTuple):
    """One step of the schema."""

    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All steps, in order."""
    found = []
    for entry in resources.files(__package__).joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    return sorted(found)


async def version_of(connection: Any, schema: str) -> int:
    """The last migration that was run; 0 when there are no tables. Raises StoreDown when the
    position has no row, StoreStopped for tables that may not be ours, asyncpg's errors."""
    absent = await connection.fetchval("select to_regclass($1) is null",
                                       _name(schema, "store_position"))
    if absent and await _is_free(connection, schema):
        return 0
    version = await connection.fetchval("select schema_version from store_position")
    if version is None:
        raise StoreDown(f"store_position in the schema {schema} has no row", _REBUILD,
                        "its position is missing")
    return int(version)


async def check(connection: Any, schema: str) -> int:
    """How many migrations are missing. Raises StoreStopped for a server too old, a schema from
    the future, tables that may not be ours."""
    server = connection.get_server_version()
    if server.major < SERVER_NEEDED:
        raise StoreStopped(f"PostgreSQL {server.major} is too old",
                           f"{SERVER_NEEDED} or newer is needed", "a server too old")
    known = migrations()
    version = await version_of(connection, schema)
    if version > known[-1].version:
        raise StoreStopped(
            f"the tables in the schema {schema} have version {version}, this matchd knows "
            f"{known[-1].version}", "a newer matchd made them: run that one, or give this one "
            "another schema", "a newer schema")
    return known[-1].version - version


async def _is_free(connection: Any, schema: str) -> bool:
    """Whether there are no tables; False when somebody just made ours. Raises StoreStopped where
    tables have our names and `store_position` is missing: they may be anybody's, and nothing of
    ours touches them."""
    missing = await missing_tables(connection, schema)
    if "store_position" in missing and missing != [*TABLES]:
        # Or they were all made in the middle of that look, which is not of one moment.
        missing = await missing_tables(connection, schema)
    found = [table for table in TABLES if table not in missing]
    if found and "store_position" not in found:
        raise StoreStopped(
            f"the schema {schema} has {', '.join(found)}, but no store_position",
            "give the store a schema of its own in postgres.schema; if these are its old tables, "
            "drop them", "the tables are another program's")
    return not found


async def migrate(connection: Any, schema: str) -> int:
    """Run the migrations that are missing, in one transaction; returns how many there were.
    Raises StoreStopped, asyncpg's errors."""
    async with connection.transaction():
        await connection.fetchval("select pg_advisory_xact_lock(hashtextextended($1, 0))",
                                  f"matchd {schema}")
        await check(connection, schema)
        if not await connection.fetchval("select exists (select from pg_namespace where "
                                         "nspname = $1)", schema):
            await connection.execute(f'create schema "{schema}"')
        version = await version_of(connection, schema)
        missing = [step for step in migrations() if step.version > version]
        await connection.execute("set local statement_timeout = 0")
        for step in missing:
            await connection.execute(step.sql, timeout=LONG_S)
            await connection.execute("update store_position set schema_version = $1",
                                     step.version)
        return len(missing)


async def check_tables(connection: Any, schema: str) -> None:
    """Raises StoreDown when a table is missing or the position has no row, asyncpg's errors."""
    missing = await missing_tables(connection, schema)
    if missing:
        raise StoreDown(f"the schema {schema} misses {', '.join(missing)}", _REBUILD,
                        "a table is missing")


async def missing_tables(connection: Any, schema: str) -> list[str]:
    """Tables that are not there, and columns (`orders.side`). Raises asyncpg's errors."""
    rows = await connection.fetch(
        "select name from unnest($1::text[]) name where to_regclass($2 || quote_ident(name)) "
        "is null", list(TABLES), f'"{schema}".')
    missing = [row["name"] for row in rows]
    wanted = [(table, column) for table in TABLES for column, _ in COLUMNS.get(table, ())
              if table not in missing]
    rows = await connection.fetch(
        "select t, c from unnest($1::text[], $2::text[]) w(t, c) where not exists (select "
        "from pg_attribute where attrelid = to_regclass($3 || quote_ident(t)) and attname = c "
        "and not attisdropped)", [table for table, _ in wanted],
        [column for _, column in wanted], f'"{schema}".')
    return [*missing, *(f"{row['t']}.{row['c']}" for row in rows)]


async def reset(connection: Any, schema: str) -> None:
    """Empty all tables and forget the position, in one transaction; tables that are missing are
    made anew. Raises asyncpg's errors."""
    async with connection.transaction():
        try:
            missing = await check(connection, schema) or await missing_tables(connection, schema)
        except StoreDown:
            missing = True
        if missing:
            await _drop_all(connection)
            await migrate(connection, schema)
            return
        # Whoever writes now has to wait here, and then finds another position than he thought.
        await connection.execute(
            "update store_position set log_id = '', incarnation = 0, seq = 0, time_ns = 0")
        for table in PARTITIONED:
            for name in await partitions(connection, schema, table):
                await connection.execute(f'drop table "{name}"')
        await connection.execute(
            "truncate store_days, instruments, accounts, candles, positions")


async def _drop_all(connection: Any) -> None:
    for view in VIEWS:
        await connection.execute(f"drop view if exists {view}")
    for table in TABLES:
        await connection.execute(f"drop table if exists {table}")


async def partitions(connection: Any, schema: str, table: str) -> list[str]:
    """The names of a table's partitions, oldest first. Raises asyncpg's errors."""
    rows = await connection.fetch(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
        "where i.inhparent = to_regclass($1) order by c.relname", _name(schema, table))
    return [row["relname"] for row in rows]


def _name(schema: str, table: str) -> str:
    return f'"{schema}"."{table}"'

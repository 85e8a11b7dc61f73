"""Partitions by day: orders, order_events and trades are cut at the same seqs.

The keys of all three tables are seqs, so one seq a day divides them, and no event ever belongs into
an older partition. The newest partition has no end. When a day begins it gets one: a check that the
server has validated beside its readers makes the change of bounds a matter of milliseconds.

    1. add the check (not valid), validate it                 each may be there already
    2. in one transaction, if the position is still there:    all of it or nothing
       detach, attach with its end, drop the check, make the next partition, note the day

When long queries keep the tables locked, the newest partition just goes on, and it is tried later.
"""

from __future__ import annotations

import datetime
from typing import Any

import asyncpg

from cython_core.event import EventBatch
from engine import clock, log
from engine.stores.postgres_schema import LONG_S, PARTITIONED, partitions
from engine.stores.store import StoreDown, StoreMoved

LOCK_TIMEOUT_MS = 1_000
TRY_AGAIN_NS = 60 * clock.NS_PER_S
_EVENT_MIN = 64
_UNIT_BYTES = 64


class Days:
    """The partitions of one schema, as `store_days` has them; the writer's connection is passed
    in. `end_ns` is when the newest day ends: events from there on want a new partition."""

    def __init__(self) -> None:
        self.newest: datetime.date | None = None
        self._lower = "minvalue"
        self.end_ns = 0
        self._again_ns = 0
        self._log = log.get("stores")

    async def load(self, connection: Any, schema: str) -> None:
        """Read which day is the newest. Raises StoreDown when a partition of it is missing,
        asyncpg's errors."""
        row = await connection.fetchrow(
            "select day, first_seq from store_days order by day desc limit 1")
        if row is None:
            self._set(None, "minvalue")
            return
        for table in PARTITIONED:
            name = partition_name(table, row["day"])
            if name not in await partitions(connection, schema, table):
                raise StoreDown(f"the schema {schema} misses the partition {name}",
                                "restore it from a backup, or run `matchd store rebuild postgres`",
                                "a partition is missing")
        # The first of all partitions has no lower end.
        bound = await connection.fetchval(
            "select pg_get_expr(relpartbound, oid) from pg_class where oid = to_regclass($1)",
            f'"{schema}".{partition_name("trades", row["day"])}')
        self._set(row["day"], "minvalue" if "MINVALUE" in bound else str(row["first_seq"]))

    def until_ns(self) -> int:
        """Where a run of events has to stop; 0 for nowhere, while a new partition is put off."""
        return 0 if self._again_ns > clock.monotonic_ns() else self.end_ns

    async def begin(self, connection: Any, first_seq: int, time_ns: int) -> None:
        """Make the day of `time_ns` begin with the event `first_seq`, which is to be written next.
        Raises StoreMoved, asyncpg's errors."""
        day = day_of(time_ns)
        if self.newest is not None and day <= self.newest:
            return
        try:
            if self.newest is not None:
                await self._prepare(connection, first_seq)
            async with connection.transaction():
                await self._change(connection, first_seq, day)
            self._set(day, "minvalue" if self.newest is None else str(first_seq))
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            # Without it rows of the new day may go where those of the old one are.
            async with connection.transaction():
                await self._drop_checks(connection)
            self._again_ns = clock.monotonic_ns() + TRY_AGAIN_NS
            self._log.warning("PostgreSQL: the day's partition has to wait", day=str(day),
                              reason=str(error), hint="long queries keep the tables locked; "
                              "rows go on into the partition of the day before")

    def _set(self, day: datetime.date | None, lower: str) -> None:
        self.newest, self._lower = day, lower
        self.end_ns = 0 if day is None else (_days(day) + 1) * clock.NS_PER_DAY
        self._again_ns = 0

    async def _prepare(self, connection: Any, end: int) -> None:
        """Step 1: the checks, on all tables or none."""
        async with connection.transaction():
            await self._drop_checks(connection)
            for table, key in PARTITIONED.items():
                name, check = self._names(table)
                bound = f"{key} < {end}"
                if self._lower != "minvalue":
                    bound += f" and {key} >= {self._lower}"
                await connection.execute(
                    f"alter table {name} add constraint {check} check ({bound}) not valid")
        for table in PARTITIONED:
            name, check = self._names(table)
            async with connection.transaction():
                # It reads the whole day: a second for some ten million rows.
                await connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
                await connection.execute("set local statement_timeout = 0")
                await connection.execute(f"alter table {name} validate constraint {check}",
                                         timeout=LONG_S)

    async def _drop_checks(self, connection: Any) -> None:
        """Take step 1 back, inside a transaction; tables without a check are not locked."""
        await connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
        for table in PARTITIONED:
            name, check = self._names(table)
            if await connection.fetchval("select exists (select from pg_constraint where "
                                         "conrelid = to_regclass($1) and conname = $2)",
                                         name, check):
                await connection.execute(f"alter table {name} drop constraint {check}")

    async def _change(self, connection: Any, first_seq: int, day: datetime.date) -> None:
        """Step 2, inside a transaction."""
        if not await connection.fetchval(
                "select true from store_position where seq = $1 or log_id = '' for update",
                first_seq - 1):
            raise StoreMoved(f"the position is not {first_seq - 1} when a day begins")
        await connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
        first = "minvalue"
        if self.newest is not None:
            for table in PARTITIONED:
                name, check = self._names(table)
                await connection.execute(f"alter table {table} detach partition {name}")
                await connection.execute(f"alter table {table} attach partition {name} "
                                         f"for values from ({self._lower}) to ({first_seq})")
                await connection.execute(f"alter table {name} drop constraint {check}")
            first = str(first_seq)
        for table in PARTITIONED:
            space = " with (fillfactor = 80)" if table == "orders" else ""
            await connection.execute(
                f"create table {partition_name(table, day)} partition of {table} "
                f"for values from ({first}) to (maxvalue){space}")
        await connection.execute("insert into store_days (day, first_seq) values ($1, $2)",
                                 day, first_seq)

    def _names(self, table: str) -> tuple[str, str]:
        """The newest partition of a table, and the check on its end."""
        if self.newest is None:
            raise StoreMoved("there is no partition yet")
        name = partition_name(table, self.newest)
        return name, f"{name}_end"


def partition_name(table: str, day: datetime.date) -> str:
    """As in `trades_20261121`."""
    return f"{table}_{day:%Y%m%d}"


def day_of(time_ns: int) -> datetime.date:
    """The UTC day of a time."""
    return datetime.date(1970, 1, 1) + datetime.timedelta(days=time_ns // clock.NS_PER_DAY)


def _days(day: datetime.date) -> int:
    return (day - datetime.date(1970, 1, 1)).days


def time_of(batch: EventBatch, seq: int) -> int:
    """The time of one event of a batch."""
    units = memoryview(batch).cast("B")
    left = seq - batch.first_seq
    # The kinds alone, taken out in C: a batch of ten thousand takes under a millisecond.
    for place, kind in enumerate(bytes(units[::_UNIT_BYTES])):
        if kind >= _EVENT_MIN:
            if left == 0:
                at = place * _UNIT_BYTES + 8
                return int.from_bytes(units[at:at + 8], "little")
            left -= 1
    raise IndexError(f"no event {seq} in a batch of {batch.event_count}")

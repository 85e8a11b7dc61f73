"""The PostgreSQL store on real servers: its tables, their partitions, positions, questions."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engine.config import PostgresConfig
from engine.stores import postgres_schema
from engine.stores.postgres import PostgresStore
from engine.stores.store import (
    QueryRefused,
    QueryTimeout,
    StoreDown,
    StoreMoved,
    StoreRefused,
    StoreStopped,
    Work,
)
from tests.stores.postgres_flow import (
    LOG_ID,
    SmallFollower,
    assert_tables,
    at,
    config_of,
    days_log,
    days_model,
    days_of,
    joined,
    last_seq,
    write_all,
)
from tests.support.postgres import PostgresServer, ScratchDatabase, installed, run_sql

LOG = days_log()
# For what is done again and again.
FEW = (1, 400)
END = last_seq(LOG[-1])


@pytest.fixture
async def store(postgres_database):
    """A store over an empty database as a plain role, not opened."""
    made = PostgresStore(config_of(postgres_database, url=postgres_database.plain_url))
    yield made
    await made.close()


@pytest.mark.parametrize("version", installed())
async def test_tables_are_those_of_the_log_on_every_server_at_hand(version):
    server = PostgresServer(version).start()
    scratch = server.database()
    store = PostgresStore(config_of(scratch))
    try:
        follower = SmallFollower(store, LOG, seed=version)
        await follower.run()
        assert not follower.failures
        assert store.facts()["server"].startswith(str(version))
        assert_tables(scratch, days_model(), END)
        await store.close()
        again = PostgresStore(config_of(scratch))
        assert await again.open(at(END)) == at(END)
        await again.close()
    finally:
        server.close()


@pytest.mark.parametrize("seed", range(3))
async def test_runs_cut_anywhere_give_the_same_tables(store, postgres_database, seed):
    follower = SmallFollower(store, LOG, seed, run_max=(5, 60, 10_000)[seed])
    await follower.run()
    assert_tables(postgres_database, days_model(), END)


async def test_an_empty_store_has_no_position_and_takes_any(store, postgres_database):
    assert await store.open(at(END)) is None
    half = len(LOG) // 2
    with pytest.raises(StoreRefused, match="instrument"):
        # Its instruments were defined before.
        await write_all(store, LOG[half:], last_seq(LOG[half - 1]))
    await write_all(store, LOG[:half])
    assert await store.open(at(END)) == at(last_seq(LOG[half - 1]))


async def test_the_position_is_compared_and_nothing_is_written_twice(store, postgres_database):
    await store.open(at(END))
    await write_all(store, LOG[:100])
    seq = last_seq(LOG[99])
    for before in (at(0), at(last_seq(LOG[98])), at(seq, 1), at(seq)._replace(log_id=bytes(16))):
        with pytest.raises(StoreMoved, match=f"is {seq} of log {LOG_ID.hex()}-0"):
            await store.write(Work(LOG[:200], before, at(last_seq(LOG[199])), True))
        assert await store.open(at(END)) == at(seq)
    await write_all(store, LOG[100:], seq)
    assert_tables(postgres_database, days_model(), END)


async def test_two_writers_never_mix(store, postgres_database):
    other = PostgresStore(config_of(postgres_database, url=postgres_database.plain_url))
    followers = [SmallFollower(one, LOG, seed, 20) for seed, one in enumerate((store, other))]
    await asyncio.gather(*(follower.run() for follower in followers))
    assert followers[0].failures or followers[1].failures
    assert_tables(postgres_database, days_model(), END)
    await other.close()


async def test_a_reset_under_a_running_writer_is_no_hole(store, postgres_database):
    """What `matchd store rebuild` does beside a running venue."""
    await store.open(at(END))
    await write_all(store, LOG[:200])
    other = PostgresStore(config_of(postgres_database, url=postgres_database.plain_url))
    await other.open(at(END))
    await other.reset()
    await other.close()
    with pytest.raises(StoreMoved, match="emptied"):
        await write_all(store, LOG[200:300], last_seq(LOG[199]))
    assert await store.open(at(END)) is None
    await write_all(store, LOG)
    assert_tables(postgres_database, days_model(), END)


async def test_a_reset_makes_anew_what_was_dropped(store, postgres_database):
    await store.open(at(END))
    await write_all(store, LOG)
    postgres_database.sql("drop table trades cascade")
    with pytest.raises(StoreDown, match="misses trades"):
        await store.open(at(END))
    await store.reset()
    await SmallFollower(store, LOG).run()
    assert_tables(postgres_database, days_model(), END)


async def test_what_the_server_refuses_is_told_as_such(store, postgres_database):
    """A row that is there already, as after a clumsy restore."""
    await store.open(at(END))
    await write_all(store, LOG[:50])
    seq = last_seq(LOG[49])
    postgres_database.sql(
        f"insert into order_events (seq, time, time_ns, kind) values ({seq + 1}, now(), 1, 'x')")
    with pytest.raises(StoreRefused, match=f"duplicate key.*{seq + 1}"):
        await write_all(store, LOG[50:100], seq)
    postgres_database.sql(f"delete from order_events where seq = {seq + 1}")
    await write_all(store, LOG[50:], seq)
    assert_tables(postgres_database, days_model(), END)


# -- partitions -----------------------------------------------------------------------------------

async def test_days_are_partitions_with_the_same_bounds(store, postgres_database):
    await store.open(at(END))
    await write_all(store, [joined(LOG)])
    days = days_of(LOG)
    assert len(days) == 3
    rows = postgres_database.sql("select day, first_seq from store_days order by day")
    assert {row["day"]: row["first_seq"] for row in rows} == days
    firsts = [*days.values(), None]
    for table in postgres_schema.PARTITIONED:
        found = postgres_database.sql(
            "select c.relname, pg_get_expr(c.relpartbound, c.oid) as bound from pg_inherits i "
            f"join pg_class c on c.oid = i.inhrelid where i.inhparent = '{table}'::regclass "
            "order by 1")
        assert [row["relname"] for row in found] == [f"{table}_{day:%Y%m%d}" for day in days]
        for index, row in enumerate(found):
            low = f"'{firsts[index]}'" if index else "MINVALUE"
            high = f"'{firsts[index + 1]}'" if firsts[index + 1] else "MAXVALUE"
            assert row["bound"] == f"FOR VALUES FROM ({low}) TO ({high})"
    assert not postgres_database.sql("select conname from pg_constraint where contype = 'c'"
                                     " and conname like '%\\_end'")
    assert_tables(postgres_database, days_model(), END)


class Crash(Exception):
    """The end of a process, for a test."""


class CrashingConnection:
    """Passes everything on, but for one statement that is the last."""

    def __init__(self, connection, left):
        self._connection, self.left = connection, left

    def __getattr__(self, name):
        return getattr(self._connection, name)

    async def execute(self, sql, *arguments, **options):
        self.left -= 1
        if self.left < 0:
            self._connection.terminate()
            raise Crash(sql)
        return await self._connection.execute(sql, *arguments, **options)


@pytest.mark.parametrize("statements", range(32))
async def test_midnight_interrupted_at_any_statement(store, postgres_database, statements):
    log = days_log(*FEW)
    days = list(days_of(log).values())
    evening = next(index for index, batch in enumerate(log) if last_seq(batch) >= days[1])
    await store.open(at(last_seq(log[-1])))
    await write_all(store, log[:evening - 10])
    seq = last_seq(log[evening - 11])
    store._writer = CrashingConnection(store._writer, statements)
    with contextlib.suppress(StoreDown):
        await write_all(store, [joined(log[evening - 10:evening + 10])], seq)
        assert statements > 15
    await SmallFollower(store, log).run()
    assert_tables(postgres_database, days_model(*FEW), last_seq(log[-1]))
    rows = postgres_database.sql("select first_seq from store_days order by day")
    assert [row["first_seq"] for row in rows] == days


async def test_a_long_query_at_midnight_holds_up_the_partition_and_not_the_rows(
        store, postgres_database):
    days = list(days_of(LOG).values())
    evening = next(index for index, batch in enumerate(LOG) if last_seq(batch) >= days[1])
    await store.open(at(END))
    await write_all(store, LOG[:evening - 10])
    async with store.snapshot() as snapshot:
        await snapshot.fetch("select count(*) from trades", [])
        await write_all(store, LOG[evening - 10:evening + 50], last_seq(LOG[evening - 11]))
    assert postgres_database.sql("select count(*) as days from store_days") == [{"days": 1}]
    await SmallFollower(store, LOG).run()
    assert_tables(postgres_database, days_model(), END)
    # The day begins where it was tried again.
    rows = postgres_database.sql("select first_seq from store_days order by day")
    assert [row["first_seq"] for row in rows] == [
        days[0], last_seq(LOG[evening + 49]) + 1, days[2]]


async def test_old_days_can_be_dropped_while_it_writes(store, postgres_database):
    days = days_of(LOG)
    last = next(index for index, batch in enumerate(LOG) if last_seq(batch) >= [*days.values()][2])
    await store.open(at(END))
    await write_all(store, LOG[:last + 1])
    first = f"{[*days][0]:%Y%m%d}"
    postgres_database.sql(f"drop table trades_{first}", f"drop table orders_{first}",
                          f"drop table order_events_{first}")
    await write_all(store, LOG[last + 1:], last_seq(LOG[last]))
    async with store.snapshot() as snapshot:
        assert snapshot.kept_from_seq == [*days.values()][1]
        day_s = snapshot.kept_from_ns / 10**9
        assert datetime.datetime.fromtimestamp(day_s, datetime.UTC).date() == [*days][1]
    kept = [row for row in days_model().rows("trades") if row[0] >= [*days.values()][1]]
    found = postgres_database.sql("select match_number from trades order by 1")
    assert [row["match_number"] for row in found] == [row[0] for row in kept]


# -- schema ---------------------------------------------------------------------------------------

async def test_every_table_view_and_column_has_a_comment(store, postgres_database):
    await store.open(at(END))
    missing = postgres_database.sql(
        "select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid "
        f"where c.relnamespace = '{postgres_database.schema}'::regnamespace "
        "and c.relkind in ('r', 'p') and a.attnum > 0 and not c.relispartition "
        "and col_description(c.oid, a.attnum) is null")
    assert not missing
    bare = postgres_database.sql(
        f"select relname from pg_class where relnamespace = '{postgres_database.schema}'"
        "::regnamespace and relkind in ('r', 'p', 'v') and obj_description(oid) is null")
    assert not bare


async def test_views_show_decimals_exactly(store, postgres_database):
    await store.open(at(END))
    await write_all(store, LOG)
    postgres_database.sql(
        "update instruments set price_decimals = 8, quantity_decimals = 18, lot_size = 1000001",
        "update positions set bought_value = 340282366920938463463374607431768211455")
    scales = 26
    for row, units in zip(
            postgres_database.sql("select * from trades_view order by match_number"),
            postgres_database.sql("select * from trades order by match_number"), strict=True):
        assert row["price"] == decimal.Decimal(units["price_units"]).scaleb(-8)
        assert row["quantity"] == decimal.Decimal(units["quantity_lots"] * 1000001).scaleb(-18)
    with decimal.localcontext(prec=100):
        want = decimal.Decimal((2**128 - 1) * 1000001).scaleb(-scales)
        assert postgres_database.sql("select * from positions_view")[0]["bought_value"] == want
    for name, table in (("orders_view", "orders"), ("order_events_view", "order_events"),
                        ("candles_view", "candles")):
        assert postgres_database.sql(f"select count(*) as n from {name}") == \
            postgres_database.sql(f"select count(*) as n from {table}")


async def test_a_schema_from_the_future_stops_the_store(store, postgres_database):
    await store.open(at(END))
    postgres_database.sql("update store_position set schema_version = 99")
    with pytest.raises(StoreStopped, match="have version 99, this matchd knows"):
        await store.open(at(END))


async def test_a_start_migrates_only_when_it_may(postgres_database):
    store = PostgresStore(config_of(postgres_database, migrate=False))
    with pytest.raises(StoreDown, match="matchd store migrate"):
        await store.open(at(END))
    assert await store.migrate() == len(postgres_schema.migrations())
    assert await store.migrate() == 0
    assert await store.open(at(END)) is None
    await store.close()


async def test_two_who_start_at_once_migrate_once(postgres_database):
    stores = [PostgresStore(config_of(postgres_database)) for _ in range(4)]
    assert await asyncio.gather(*(one.open(at(END)) for one in stores)) == [None] * 4
    for one in stores:
        await one.close()


async def test_another_schema_is_made_and_used(postgres_database):
    store = PostgresStore(config_of(postgres_database, schema=f"{postgres_database.name}_b"))
    try:
        await SmallFollower(store, LOG[:100]).run()
        assert store.facts()["rows"]
        rows = await store.fetch("select current_schema(), count(*) from order_events", [], 10)
        assert rows == [(f"{postgres_database.name}_b", last_seq(LOG[99]))]
    finally:
        await store.close()
        postgres_database.sql(f"drop schema {postgres_database.name}_b cascade")


# -- questions ------------------------------------------------------------------------------------

async def test_fetch_takes_parameters_and_a_limit(store):
    await store.open(at(END))
    await write_all(store, LOG)
    trades = days_model().rows("trades")
    rows = await store.fetch("select match_number from trades where price_units >= $1 "
                             "order by 1", [0], 5)
    assert rows == [(row[0],) for row in trades[:5]]
    assert len(await store.fetch("select seq from order_events", [], 10**6)) == END


async def test_a_query_reads_only_and_one_statement(store, postgres_database):
    await store.open(at(END))
    await write_all(store, LOG)
    answer = await store.query("select seq, kind from order_events order by seq", [], 1000, 3)
    assert (answer.columns, answer.truncated) == (["seq", "kind"], True)
    assert [row[0] for row in answer.rows] == [1, 2, 3]
    answer = await store.query("select $1::bigint + 1 as n", [41], 1000, 1)
    assert answer == (["n"], [(42,)], False)
    for sql in ("delete from trades", "delete from trades returning *", "drop table trades",
                "update orders set side = 'x' returning 1", "create table x (y int)",
                "with gone as (delete from trades returning 1) select * from gone",
                "select 1; select 2", "copy trades to stdout", "selec 1", "select 1 / 0",
                "select * from nowhere", "begin", "commit", "set role none", "listen x", "",
                "select pg_sleep('x')", "lock table trades", "select nextval('x')",
                "explain analyze delete from trades",
                "select set_config('transaction_read_only', 'off', true)"):
        with pytest.raises(QueryRefused) as refused:
            await store.query(sql, [], 1000, 10)
        assert "\n" not in refused.value.detail, sql
    for parameters in ([], ["a"], [1, 2], [2**70]):
        with pytest.raises(QueryRefused):
            await store.query("select $1::bigint", parameters, 1000, 10)
    assert_tables(postgres_database, days_model(), END)


async def test_a_query_takes_no_longer_than_it_may(store):
    await store.open(at(END))
    started = asyncio.get_running_loop().time()
    with pytest.raises(QueryTimeout):
        await store.query("select pg_sleep(30)", [], 200, 1)
    assert asyncio.get_running_loop().time() - started < 10
    # The connection goes on, and nothing stays set.
    for _ in range(3):
        answer = await store.query("select current_setting('statement_timeout')", [], 1000, 1)
        assert answer.rows == [("1s",)]
    rows = await store.fetch("select current_setting('statement_timeout'), "
                             "current_setting('transaction_read_only')", [], 1)
    assert rows == [("30s", "on")]


async def test_a_query_leaves_no_lock_behind(store):
    await store.open(at(END))
    await store.query("select pg_advisory_lock(77)", [], 1000, 1)
    held = "select count(*) from pg_locks where locktype = 'advisory' and objid = 77"
    assert await store.fetch(held, [], 1) == [(0,)]
    assert await store.fetch(held, [], 1000) == [(0,)]


async def test_a_query_has_the_rights_of_its_role(postgres_database):
    role = f"{postgres_database.name}_asks"
    url = postgres_database.plain_url
    store = PostgresStore(config_of(postgres_database, url=url, query_role=role))
    await store.open(at(END))
    await write_all(store, LOG)
    postgres_database.sql(f"create role {role}", f"grant {role} to {urlsplit(url).username}",
                          f"grant usage on schema {postgres_database.schema} to {role}",
                          f"grant select on trades to {role}")
    try:
        answer = await store.query("select current_user, count(*) from trades", [], 1000, 1)
        assert answer.rows == [(role, len(days_model().rows("trades")))]
        with pytest.raises(QueryRefused, match="permission denied"):
            await store.query("select * from orders", [], 1000, 1)
        assert await store.fetch("select 1 from orders", [], 1) == [(1,)]
    finally:
        await store.close()
        postgres_database.sql(f"drop owned by {role}", f"drop role {role}")


async def test_questions_are_answered_while_the_store_is_closed(store):
    await store.open(at(END))
    await write_all(store, LOG)
    await store.close()
    assert await store.fetch("select count(*) from order_events", [], 1) == [(END,)]


@pytest.mark.parametrize("connections", [1, 2, 3])
async def test_a_small_pool_needs_no_other_key(postgres_database, connections):
    # What it begins with is more than it may have: as when only the limit was set.
    store = PostgresStore(config_of(postgres_database, url=postgres_database.plain_url,
                                    pool_min_size=5, pool_max_size=connections))
    like = "select count(*) from pg_stat_activity where application_name = 'matchd reader'"
    answers = await asyncio.gather(*(store.query(like, [], 5_000, 1) for _ in range(8)))
    assert max(answer.rows[0][0] for answer in answers) <= max(1, connections - 1)
    await store.close()


async def test_a_snapshot_sees_one_moment(store):
    await store.open(at(END))
    await write_all(store, LOG[:100])
    async with store.snapshot() as snapshot:
        await write_all(store, LOG[100:], last_seq(LOG[99]))
        assert snapshot.position == at(last_seq(LOG[99]))
        assert (snapshot.kept_from_seq, snapshot.kept_from_ns) == (0, 0)
        assert await snapshot.fetch("select max(seq) from order_events where seq > $1", [0]) == [
            (last_seq(LOG[99]),)]


async def test_a_server_of_the_environment_needs_no_new_database(postgres_urls):
    """Where no database may be made, tests have a schema of their own."""
    url, admin_url = postgres_urls
    scratch = ScratchDatabase(url, admin_url)
    name = f"{scratch.name}_poor"
    run_sql(scratch.admin_url, f"create role {name} login password 'poor'",
            f"grant create on database {scratch.name if scratch.own_database else 'postgres'} "
            f"to {name}")
    poor_url = scratch.url.replace("postgres:demo@", f"{name}:poor@")
    poor = ScratchDatabase(poor_url)
    try:
        assert not poor.own_database
        store = PostgresStore(config_of(poor))
        await SmallFollower(store, LOG[:100]).run()
        assert poor.sql("select seq from store_position") == [{"seq": last_seq(LOG[99])}]
        await store.close()
    finally:
        poor.drop()
        run_sql(scratch.admin_url, f"grant {name} to current_user", f"drop owned by {name}",
                f"drop role {name}")
        scratch.drop()


async def test_the_sql_of_the_page_works():
    """Every block of docs/postgres.md, in its order, on a server of its own."""
    text = (Path(__file__).parents[2] / "docs" / "postgres.md").read_text("utf-8")
    blocks = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    server = PostgresServer(max(installed())).start()
    try:
        run_sql(server.socket_url, *blocks[0].split(";\n")[:-1], *blocks[1].split(";\n")[:-1])
        url = server.url.replace("postgres:demo@", "matchd:change%20me@")
        store = PostgresStore(PostgresConfig(url=url, schema="history", pool_min_size=1,
                                             query_role="matchd_reader"))
        # All days but the last are older than 90 days.
        days = days_of(LOG)
        await SmallFollower(store, LOG).run()
        run_sql(server.socket_url, "update history.store_days set day = day - 1000",
                *(f"alter table history.{table}_{day:%Y%m%d} rename to {table}_"
                  f"{day - datetime.timedelta(days=1000):%Y%m%d}" for day in days
                  for table in postgres_schema.PARTITIONED))
        assert (await store.query("select current_user", [], 1000, 1)).rows == [
            ("matchd_reader",)]
        for query in blocks[2].split(";\n")[:-1]:
            await store.query(query, [], 1000, 10)
        await store.close()
        run_sql(server.socket_url, blocks[3])
        left = run_sql(server.socket_url, "select min(seq) as seq from history.order_events")
        assert left == [{"seq": [*days.values()][-1]}]
        kept = run_sql(server.socket_url, "select order_id from history.orders where status in "
                       "('open', 'partially_filled') order by 1")
        assert [row["order_id"] for row in kept] == [
            row[0] for row in days_model().rows("orders") if row[11] in (
                "open", "partially_filled")]
    finally:
        server.close()


async def test_without_events_a_write_says_whether_the_position_is_there(store, postgres_database):
    await store.open(at(END))
    await store.write(Work([], at(0), at(0), True))
    await write_all(store, LOG)
    here = at(last_seq(LOG[-1]))
    await store.write(Work([], here, here, True))
    postgres_database.sql("update store_position set seq = 7")
    with pytest.raises(StoreMoved, match="is 7 of log"):
        await store.write(Work([], here, here, True))

"""Whose statements are run over PostgreSQL: only those of a role that reads tables and no more."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import structlog.testing

from engine.config import SqliteConfig
from engine.past import PastError
from engine.stores.history import SqlHistory
from engine.stores.postgres import PostgresStore
from engine.stores.postgres_rights import POWERS
from engine.stores.sqlite import SqliteStore
from engine.stores.store import QueryRefused
from tests.stores.postgres_flow import at, config_of
from tests.support.postgres import PostgresServer, installed

FILE = "select pg_read_file('/etc/hostname')"
# Goes back to the role that logged in, and then reads a file: a role that is set is no wall.
AROUND = """
select word from (select set_config('role', 'none', true) as role offset 0) a, lateral
(select word from ts_stat(case when a.role is not null then
$$select to_tsvector('simple', pg_read_file('/etc/hostname'))$$ end)) b"""


@pytest.fixture(scope="module", params=installed())
def server(request):
    """One server of each version."""
    made = PostgresServer(request.param).start()
    yield made
    made.close()


@pytest.fixture
def scratch(server):
    made = server.database()
    yield made
    made.drop()


async def refusal_of(store, sql="select 1"):
    with pytest.raises(QueryRefused) as refused:
        await store.query(sql, [], 5_000, 10)
    return str(refused.value)


async def test_a_superuser_reads_no_file_whatever_role_is_set(scratch):
    scratch.sql(f"create role {scratch.name}_asks")
    try:
        for role in ("", f"{scratch.name}_asks"):
            store = PostgresStore(config_of(scratch, query_role=role))
            with structlog.testing.capture_logs() as lines:
                for _ in range(3):
                    await store.open(at(0))
            warned = [line["reason"] for line in lines if line["log_level"] == "warning"]
            assert warned == ["the role postgres of postgres.url is a superuser"]
            for sql in (FILE, AROUND, "select * from pg_authid", "select 1"):
                said = await refusal_of(store, sql)
                assert said.startswith("the role postgres of postgres.url is a superuser: ")
                assert "docs/postgres.md" in said
            with pytest.raises(PastError) as caught:
                await SqlHistory(["postgres"], lambda name, one=store: one).query(
                    "postgres", FILE, [], 5_000, 10)
            assert (caught.value.status, caught.value.code) == (400, "query_refused")
            # What is ours goes on.
            assert await store.fetch("select count(*) from orders", [], 1) == [(0,)]
            await store.close()
    finally:
        scratch.sql(f"drop role {scratch.name}_asks")


async def test_statements_without_a_store_go_to_one_that_takes_them(scratch, tmp_path):
    sqlite = SqliteStore(SqliteConfig(), tmp_path)
    await sqlite.open(at(0))
    for is_plain, meant in ((False, "sqlite"), (True, "postgres")):
        url = scratch.plain_url if is_plain else scratch.url
        stores = {"postgres": PostgresStore(config_of(scratch, url=url)), "sqlite": sqlite}
        await stores["postgres"].open(at(0))
        past = SqlHistory(list(stores), stores.get)
        assert (await past.place())[0] == meant
        # Who names one gets it, or hears why not.
        assert (await past.place("postgres"))[0] == "postgres"
        assert (await past.query(meant, "select 1", [], 5_000, 10)).rows == [(1,)]
        # Without the other one it is told why.
        assert (await SqlHistory(["postgres"], stores.get).place())[0] == "postgres"
        await stores["postgres"].close()
        scratch.sql(f'drop schema "{scratch.schema}" cascade', f'create schema "{scratch.schema}"')
    await sqlite.close()


async def test_members_of_mighty_roles_are_refused_until_they_are_plain(scratch):
    url = scratch.plain_url
    name, group = urlsplit(url).username, f"{scratch.name}_group"
    store = PostgresStore(config_of(scratch, url=url))
    await store.open(at(0))
    assert (await store.query("select 1", [], 5_000, 1)).rows == [(1,)]
    for sql in (FILE, AROUND, "select * from pg_authid"):
        assert "permission denied" in await refusal_of(store, sql)
    scratch.sql(f"create role {group}", f"grant {group} to {name}")
    try:
        for power in POWERS:
            scratch.sql(f"grant {power} to {group}")
            said = f"the role {name} of postgres.url is a member of {power}: "
            assert (await refusal_of(store)).startswith(said)
            scratch.sql(f"revoke {power} from {group}")
        scratch.sql(f"alter role {group} superuser")
        assert f"is a member of {group}, a superuser: " in await refusal_of(store)
        scratch.sql(f"alter role {group} nosuperuser")
        assert (await store.query("select 1", [], 5_000, 1)).rows == [(1,)]
    finally:
        await store.close()
        scratch.sql(f"drop role {group}")

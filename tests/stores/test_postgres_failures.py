"""The PostgreSQL store when the server dies, the net fails or the operator errs: every failure is
one clear line, and afterwards every table is that of the log, row by row."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl

import pytest

from engine.stores.history import SqlHistory
from engine.stores.postgres import PostgresStore
from engine.stores.store import StoreDown, StoreMoved, StoreStopped, Work
from tests.stores.postgres_flow import (
    SmallFollower,
    assert_tables,
    at,
    config_of,
    days_log,
    days_model,
    joined,
    last_seq,
    write_all,
)
from tests.support.certificates import Certificates
from tests.support.flaky_proxy import FlakyProxy
from tests.support.postgres import PostgresServer, installed, run_sql

LOG = days_log(2, 3_000, 3)
MODEL = days_model(2, 3_000, 3)
END = last_seq(LOG[-1])


@pytest.fixture(scope="module")
def server():
    """A server that tests of this file may harm."""
    made = PostgresServer(max(installed())).start()
    yield made
    made.close()


@pytest.fixture
def scratch(server):
    """An empty database on it."""
    made = server.database()
    yield made
    made.drop()


@pytest.fixture
def proxy(server):
    """A proxy in front of it."""
    made = FlakyProxy(("127.0.0.1", server.port)).start()
    yield made
    made.close()


def through(proxy, scratch, **more):
    """A store that reaches its database through the proxy."""
    host, _, name = scratch.url.rpartition("/")
    url = f"{host.rpartition(':')[0]}:{proxy.port}/{name}"
    return PostgresStore(config_of(scratch, **({"url": url, "statement_timeout_ms": 500} | more)))


async def until_done(task, harm, pause_s):
    """Do harm at random moments until the task is over."""
    chance = random.Random(4)
    harmed = 0
    while not task.done():
        await asyncio.sleep(chance.random() * pause_s)
        if not task.done() and harmed < 12:
            await asyncio.to_thread(harm)
            harmed += 1
    await task
    return harmed


# -- the server dies ------------------------------------------------------------------------------

@pytest.mark.parametrize("version", installed())
async def test_a_server_killed_and_restarted_under_load(version):
    server = PostgresServer(version).start()
    scratch = server.database()
    store = PostgresStore(config_of(scratch))
    follower = SmallFollower(store, LOG, seed=version, run_max=20)

    def kill():
        server.kill()
        server.start()

    try:
        assert await until_done(asyncio.create_task(follower.run()), kill, 0.3)
        assert follower.failures
        assert_tables(scratch, MODEL, END)
    finally:
        await store.close()
        server.close()


async def test_a_server_that_is_stopped_in_order_and_started(server, scratch):
    store = PostgresStore(config_of(scratch))
    follower = SmallFollower(store, LOG, seed=5, run_max=20)

    def restart():
        server.stop()
        server.start()

    assert await until_done(asyncio.create_task(follower.run()), restart, 0.3)
    assert_tables(scratch, MODEL, END)
    await store.close()


async def test_a_backend_killed_under_load(server, scratch):
    """The server then throws all connections out and recovers."""
    store = PostgresStore(config_of(scratch))
    follower = SmallFollower(store, LOG, seed=6, run_max=20)

    def kill():
        with contextlib.suppress(Exception):
            server.kill_backend()

    assert await until_done(asyncio.create_task(follower.run()), kill, 0.5)
    assert follower.failures
    assert_tables(scratch, MODEL, END)
    await store.close()


# -- the net fails --------------------------------------------------------------------------------

async def test_a_reader_whose_backend_dies_says_so_and_goes_on(scratch):
    store = PostgresStore(config_of(scratch, url=scratch.plain_url, pool_min_size=0,
                                    pool_max_size=3))
    try:
        for _ in range(4):
            with pytest.raises(StoreDown, match="terminating connection"):
                await store.query("select pg_terminate_backend(pg_backend_pid())", [], 5_000, 1)
            assert (await store.query("select 2", [], 5_000, 1)).rows == [(2,)]
    finally:
        await store.close()


async def test_readers_that_were_cut_while_nobody_asked_are_replaced(server, scratch):
    """Nobody is told of a connection that ended between two questions, however it ended."""
    store = PostgresStore(config_of(scratch, url=scratch.plain_url, pool_min_size=5,
                                    pool_max_size=9))
    past = SqlHistory(["postgres"], lambda name: store)
    like = "matchd reader"
    try:
        await store.open(at(END))
        await write_all(store, LOG)
        await store.query("select 1", [], 5_000, 1)
        for one_by_one in (True, False, True, False):
            for _ in range(3):
                count = 1 if one_by_one else 99
                # Nothing is read of the sockets before the next question is on its way.
                _terminate_now(server, like, count)
                if one_by_one:
                    assert (await past.query("postgres", "select 2", [], 5_000, 1)).rows == [(2,)]
                assert (await past.place("postgres"))[1].seq == END
                assert len(await store.fetch("select seq from order_events", [], 10**6)) == END
    finally:
        await store.close()


def _terminate_now(server, like, count):
    """End backends, and wait until they are gone, while the loop stands still."""
    run_sql(server.socket_url, "select pg_terminate_backend(pid, 5000) from (select pid from "
            f"pg_stat_activity where application_name = '{like}' limit {count}) one")


async def test_connections_cut_at_random_moments(proxy, scratch):
    store = through(proxy, scratch)
    follower = SmallFollower(store, LOG, seed=7, run_max=20)
    assert await until_done(asyncio.create_task(follower.run()), proxy.cut, 0.15)
    assert follower.failures
    assert_tables(scratch, MODEL, END)
    await store.close()


async def test_connections_cut_in_the_middle_of_what_is_sent(proxy, scratch):
    store = through(proxy, scratch)
    follower = SmallFollower(store, LOG, seed=8, run_max=30)
    chance = random.Random(8)
    task = asyncio.create_task(follower.run())
    while not task.done():
        await asyncio.sleep(0.02)
        if len(follower.failures) < 40:
            proxy.cut_after(chance.randrange(1, 60_000))
        else:
            proxy.heal()
    await task
    assert len(follower.failures) >= 10
    assert_tables(scratch, MODEL, END)
    await store.close()


async def test_a_lost_answer_to_commit_is_found_out_from_the_position(proxy, scratch):
    store = through(proxy, scratch, statement_timeout_ms=5_000)
    await store.open(at(END))
    await write_all(store, LOG[:100])
    seq, after = last_seq(LOG[99]), last_seq(LOG[199])
    connection = store._writer
    sent = connection.execute

    class Losing:
        """The connection, with the answers lost as soon as it commits."""

        def __getattr__(self, name):
            return getattr(connection, name)

        async def execute(self, sql, *arguments, **options):
            if sql == "commit":
                proxy.stall(up=False)
            return await sent(sql, *arguments, **options)

    store._writer = Losing()
    task = asyncio.create_task(write_all(store, LOG[100:200], seq))
    while scratch.sql("select seq from store_position")[0]["seq"] == seq:
        await asyncio.sleep(0.01)
    proxy.cut()
    with pytest.raises(StoreDown):
        await task
    proxy.heal()
    assert await store.open(at(END)) == at(after)
    await SmallFollower(store, LOG).run()
    assert_tables(scratch, MODEL, END)
    await store.close()


@pytest.mark.parametrize("up", [True, False])
async def test_a_stalled_connection_is_given_up_in_time(proxy, scratch, up):
    store = through(proxy, scratch)
    await store.open(at(END))
    await write_all(store, LOG[:100])
    assert await store.fetch("select 1", [], 1) == [(1,)]
    proxy.stall(up=up, down=not up)
    with pytest.raises(StoreDown):
        await asyncio.wait_for(write_all(store, LOG[100:], last_seq(LOG[99])), 30)
    with pytest.raises(StoreDown):
        await asyncio.wait_for(store.fetch("select 1", [], 1), 30)
    with pytest.raises(StoreDown):
        await asyncio.wait_for(store.open(at(END)), 30)
    await asyncio.wait_for(store.close(), 10)
    proxy.cut()
    proxy.heal()
    await SmallFollower(store, LOG).run()
    assert_tables(scratch, MODEL, END)
    assert await store.fetch("select 1", [], 1) == [(1,)]
    await store.close()


async def test_a_writer_that_was_believed_dead_writes_nothing_more(proxy, scratch):
    """The old connection stalls in the middle of a transaction and comes back later."""
    old, new = through(proxy, scratch, statement_timeout_ms=20_000), \
        PostgresStore(config_of(scratch))
    await old.open(at(END))
    await write_all(old, LOG[:100])
    proxy.delay(0.02)
    task = asyncio.create_task(write_all(old, LOG[100:], last_seq(LOG[99])))
    await asyncio.sleep(0.2)
    proxy.stall()
    follower = SmallFollower(new, LOG, seed=9, run_max=50)
    # Its transaction holds the row of the position until the server learns that it is gone.
    following = asyncio.create_task(follower.run())
    await asyncio.sleep(0.5)
    proxy.heal()
    with contextlib.suppress(StoreDown, StoreMoved):
        await task
    await following
    assert_tables(scratch, MODEL, END)
    await old.close()
    await new.close()


async def test_a_slow_net_is_only_slow(proxy, scratch):
    proxy.delay(0.005)
    store = through(proxy, scratch, statement_timeout_ms=10_000)
    follower = SmallFollower(store, LOG, seed=3, run_max=3_000)
    await follower.run()
    assert not follower.failures
    assert_tables(scratch, MODEL, END)
    await store.close()


# -- operators err ---------------------------------------------------------------------------------

async def refused(work, *words):
    """The StoreDown of a coroutine: one line that has all the words."""
    with pytest.raises(StoreDown) as caught:
        await work
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    assert "demo" not in str(caught.value)


async def test_a_database_that_turns_read_only_and_back(server, scratch):
    store = PostgresStore(config_of(scratch))
    await store.open(at(END))
    await write_all(store, LOG[:100])
    name = scratch.name
    run_sql(server.socket_url, f"alter database {name} set default_transaction_read_only = on")
    await store.close()
    await refused(store.open(at(END)), "takes no changes", "read-only")
    assert await store.fetch("select seq from store_position", [], 1) == [(last_seq(LOG[99]),)]
    run_sql(server.socket_url, f"alter database {name} set default_transaction_read_only = off")
    await SmallFollower(store, LOG).run()
    assert_tables(scratch, MODEL, END)
    await store.close()


async def test_a_session_that_turns_read_only_under_the_writer(scratch):
    store = PostgresStore(config_of(scratch))
    await store.open(at(END))
    await write_all(store, LOG[:100])
    await store._writer.execute("set default_transaction_read_only = on")
    await refused(write_all(store, LOG[100:], last_seq(LOG[99])), "takes no changes", "UPDATE")
    await SmallFollower(store, LOG).run()
    assert_tables(scratch, MODEL, END)
    await store.close()


@pytest.mark.parametrize(("statement", "words"), [
    ("drop table trades cascade", ("trades", "rebuild")),
    ("drop table candles cascade", ("candles", "rebuild")),
    ("alter table orders drop column side cascade", ("side", "rebuild")),
    ("revoke all on trades from poor", ("does not allow it", "trades")),
    ("drop table trades_20261122, orders_20261122, order_events_20261122", ("partition",)),
])
async def test_what_is_gone_is_named(server, scratch, statement, words):
    """Under a running writer; rights are those of a user who owns nothing."""
    first = PostgresStore(config_of(scratch))
    await first.open(at(END))
    half = next(index for index, batch in enumerate(LOG) if batch.dicts()[0]["time_ns"]
                // 10**9 >= 1_795_305_600)
    await write_all(first, LOG[:half + 10])
    await first.close()
    days = scratch.sql("select day from store_days order by day")
    statement = statement.replace("20261122", f"{days[-1]['day']:%Y%m%d}")
    run_sql(scratch.admin_url, "drop role if exists poor", "create role poor login password 'p'",
            "grant all on all tables in schema public to poor")
    url = scratch.url.replace("postgres:demo", "poor:p") if "revoke" in statement else scratch.url
    store = PostgresStore(config_of(scratch, url=url))
    try:
        await store.open(at(END))
        scratch.sql(statement)
        await refused(write_all(store, LOG[half + 10:], last_seq(LOG[half + 9])), *words)
        if "revoke" not in statement:
            await refused(store.open(at(END)), *words)
            await store.reset()
            await SmallFollower(store, LOG).run()
            assert_tables(scratch, MODEL, END)
    finally:
        await store.close()
        run_sql(scratch.admin_url, "drop owned by poor", "drop role poor")


async def test_tables_of_others_are_left_alone(scratch):
    scratch.sql("create table orders (mine integer)", "insert into orders values (1)")
    store = PostgresStore(config_of(scratch))
    for work in (store.open(at(0)), store.reset(), store.migrate()):
        with pytest.raises(StoreStopped, match="has orders, but no store_position"):
            await work
    assert scratch.sql("select * from orders") == [{"mine": 1}]
    scratch.sql("drop table orders")
    await SmallFollower(store, LOG[:50]).run()
    scratch.sql("drop table store_position")
    with pytest.raises(StoreStopped, match="trades, but no store_position"):
        await store.open(at(END))
    await store.close()


async def test_logins_that_fail_are_told(scratch, tmp_path):
    def store(old, new, **more):
        return PostgresStore(config_of(scratch, url=scratch.url.replace(old, new), **more))

    await refused(store(":demo@", ":wrong@").open(at(0)), "refuses the login", "postgres")
    await refused(store(":demo@", "@").open(at(0)), "password")
    await refused(store("/" + scratch.name, "/nowhere").open(at(0)), "no such database", "nowhere")
    await refused(store("//postgres:", "//nobody:").open(at(0)), "refuses the login")
    await refused(PostgresStore(config_of(
        scratch, url="postgresql://a:b@127.0.0.1:9/x")).open(at(0)), "can't be reached")
    await refused(PostgresStore(config_of(
        scratch, url="postgresql://a:b@no.such.host.invalid/x")).open(at(0)), "can't be reached")
    for url in ("mysql://x/y", "postgresql://a:b@h:port/x", "://"):
        with pytest.raises(StoreStopped, match=r"postgres\.url"):
            await PostgresStore(config_of(scratch, url=url)).open(at(0))
    secret = tmp_path / "password"
    secret.write_text("demo\n")
    good = store(":demo@", "@", password_file=str(secret))
    assert await good.open(at(0)) is None
    await good.close()
    with pytest.raises(StoreStopped, match="nothing here"):
        await store(":demo@", "@", password_file=str(tmp_path / "nothing here")).open(at(0))


async def test_a_server_without_free_connections(server, scratch):
    run_sql(scratch.admin_url, "drop role if exists few",
            "create role few login password 'p' connection limit 1",
            f"grant create on database {scratch.name} to few",
            "grant create on schema public to few")
    url = scratch.url.replace("postgres:demo", "few:p")
    store, other = (PostgresStore(config_of(scratch, url=url)) for _ in range(2))
    await store.open(at(END))
    await refused(other.open(at(END)), "has no room")
    await refused(store.fetch("select 1", [], 1), "has no room")
    await write_all(store, LOG)
    await store.close()
    assert await other.open(at(END)) == at(END)
    await other.close()
    assert_tables(scratch, MODEL, END)
    scratch.sql("reassign owned by few to postgres", "drop owned by few", "drop role few")


async def test_locks_of_others_end_in_a_timeout(scratch):
    store = PostgresStore(config_of(scratch, statement_timeout_ms=300))
    await store.open(at(END))
    await write_all(store, LOG[:100])
    other = PostgresStore(config_of(scratch))
    await other.open(at(END))
    await other._writer.execute("begin; lock table candles")
    await refused(write_all(store, LOG[100:], last_seq(LOG[99])), "statement timeout")
    await other.close()
    await SmallFollower(store, LOG).run()
    assert_tables(scratch, MODEL, END)
    await store.close()


async def test_a_canceled_write_leaves_nothing_behind(scratch):
    store = PostgresStore(config_of(scratch))
    chance = random.Random(10)
    for _ in range(10):
        found = await store.open(at(END))
        seq = found.seq if found else 0
        rest = [batch for batch in LOG if last_seq(batch) > seq]
        task = asyncio.create_task(store.write(Work(
            [joined(rest[:500])], at(seq), at(last_seq(rest[:500][-1])), False)))
        await asyncio.sleep(chance.random() * 0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await SmallFollower(store, LOG).run()
    assert_tables(scratch, MODEL, END)
    await store.close()


# -- TLS ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, a server's certificate for 127.0.0.1 and a client's."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def test_tls_with_every_mode(server, scratch, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    proxy = FlakyProxy(("127.0.0.1", server.port), tls=context).start()

    async def tried(**more):
        store = through(proxy, scratch, statement_timeout_ms=5_000, **more)
        try:
            return await store.open(at(0))
        finally:
            await store.close()

    try:
        root = str(certificates.authority)
        assert await tried(ssl_mode="require") is None
        assert await tried(ssl_mode="prefer") is None
        assert await tried(ssl_mode="verify-ca", ssl_root_cert_file=root) is None
        assert await tried(ssl_mode="verify-full", ssl_root_cert_file=root) is None
        assert await tried(ssl_root_cert_file=root) is None
        await refused(tried(ssl_mode="verify-full"), "no TLS", "certificate")
        await refused(tried(ssl_mode="verify-ca",
                            ssl_root_cert_file=str(certificates.other_authority)), "no TLS")
        with pytest.raises(StoreStopped, match="missing"):
            await tried(ssl_mode="verify-ca", ssl_root_cert_file="/missing")
        host = config_of(scratch).url.replace("127.0.0.1", "localhost")
        port = f":{proxy.port}/"
        named = host.rpartition(":")[0] + port + host.rpartition("/")[2]
        await refused(tried(url=named, ssl_mode="verify-full", ssl_root_cert_file=root), "no TLS")
        assert await tried(url=named, ssl_mode="verify-ca", ssl_root_cert_file=root) is None
    finally:
        proxy.close()


async def test_a_client_certificate_and_tables_over_tls(server, scratch, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    context.load_verify_locations(certificates.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    proxy = FlakyProxy(("127.0.0.1", server.port), tls=context).start()
    try:
        options = {"ssl_mode": "verify-full", "ssl_root_cert_file": str(certificates.authority)}
        await refused(through(proxy, scratch, **options).open(at(0)))
        store = through(proxy, scratch, ssl_cert_file=str(certificates.client_cert),
                        ssl_key_file=str(certificates.client_key), **options)
        await SmallFollower(store, LOG, run_max=500).run()
        assert_tables(scratch, MODEL, END)
        await store.close()
    finally:
        proxy.close()


async def test_a_server_without_tls_where_it_is_required(scratch):
    await refused(PostgresStore(config_of(scratch, ssl_mode="require")).open(at(0)), "SSL")

"""Redis fails at random moments while the venue trades; afterwards every stream equals the log,
entry by entry, and every book the matcher's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.config import RedisConfig
from engine.stores.store import StoreMoved
from tests.stores.redis_venue import RedisVenue
from tests.support.flaky_proxy import FlakyProxy
from tests.support.redis import Cluster, RedisServer, Sentinels, TlsFront

pytestmark = pytest.mark.timeout(120)
Start = Callable[..., Awaitable[RedisVenue]]
# What docs/redis.md lists for the ACL user.
RULES = ("resetchannels &matchd:* ~matchd:* -@all +ping +get +set +del +xadd +xrange +xrevrange "
         "+hset +hlen +hgetall +hkeys +publish +eval +select +multi +exec +scan "
         "+client|setinfo +client|setname")


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[RedisVenue] = []

    async def begin(url: str, **settings: Any) -> RedisVenue:
        options: dict[str, Any] = {
            "url": url, "min_change": 0.0, "batch_interval_ms": 1, "stream_entries_max": 10**9,
            "socket_timeout_s": 0.5, "connect_timeout_s": 0.5}
        venue = RedisVenue(tmp_path / f"venue{len(started)}", RedisConfig(**(options | settings)))
        started.append(await venue.start())
        return venue

    yield begin
    for venue in started:
        await venue.close()


@pytest.mark.parametrize("options", [
    pytest.param({}, id="keeps nothing"),
    pytest.param({"appendonly": "yes", "appendfsync": "always"}, id="keeps all"),
    pytest.param({"appendonly": "yes", "appendfsync": "no"}, id="keeps some"),
    pytest.param({"save": "1 1"}, id="snapshots")])
async def test_killed_and_started_again(tmp_path: Path, start: Start,
                                        options: dict[str, object]) -> None:
    server = RedisServer(tmp_path / "redis", **options).start()
    chance = random.Random(str(options))
    try:
        venue = await start(server.url)
        store = venue.store()

        async def trouble() -> None:
            for _ in range(4):
                await asyncio.sleep(chance.uniform(0.2, 0.7))
                server.kill()
                await asyncio.sleep(chance.uniform(0, 0.2))
                await asyncio.to_thread(server.start)

        await venue.storm(store, trouble)
        assert venue.failures
        with server.client() as client:
            venue.check(client)
        await store.close()
    finally:
        server.kill()


async def test_flushed(tmp_path: Path, start: Start) -> None:
    server = RedisServer(tmp_path / "redis").start()
    try:
        venue = await start(server.url)
        store = venue.store()

        async def trouble() -> None:
            with server.client() as client:
                for _ in range(5):
                    # What was written since the last time goes, however slow the machine is.
                    while not client.dbsize():
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0.1)
                    client.flushall()

        await venue.storm(store, trouble)
        with server.client() as client:
            venue.check(client)
            # Between two writes of one and the same store it is noticed.
            before = await venue.follow(store, await venue.open(store))
            client.flushall()
            venue.trade(20)
            with pytest.raises(StoreMoved, match="is gone"):
                await venue.follow(store, before)
            await venue.chase(store)
            venue.check(client)
        await store.close()
    finally:
        server.kill()


async def test_cut_and_stalled(tmp_path: Path, start: Start) -> None:
    server = RedisServer(tmp_path / "redis").start()
    proxy = FlakyProxy(("127.0.0.1", server.port)).start()
    chance = random.Random(2)
    try:
        venue = await start(f"redis://127.0.0.1:{proxy.port}", socket_timeout_s=0.1)
        store = venue.store()

        async def trouble() -> None:
            for _ in range(12):
                await asyncio.sleep(chance.uniform(0.02, 0.3))
                chance.choice([proxy.cut, proxy.stall, lambda: proxy.stall(up=False),
                               lambda: proxy.stall(down=False),
                               lambda: proxy.cut_after(chance.randrange(1, 20_000))])()
                await asyncio.sleep(chance.uniform(0.05, 0.3))
                proxy.heal()

        await venue.storm(store, trouble)
        assert venue.failures
        with server.client() as client:
            venue.check(client)
        await store.close()
    finally:
        proxy.close()
        server.kill()


def is_master(server: RedisServer) -> bool:
    """A server that changes its role cuts whoever asks."""
    with contextlib.suppress(redis.ConnectionError), server.client() as client:
        role: Any = client.role()
        return bool(role[0] == b"master")
    return False


async def test_failover(tmp_path: Path, start: Start) -> None:
    trio = Sentinels(tmp_path)
    try:
        trio.start()
        venue = await start(trio.url)
        store = venue.store()

        async def trouble() -> None:
            await asyncio.sleep(0.5)
            # What the replica has not got yet is lost with the master.
            trio.master.kill()
            async with asyncio.timeout(30):
                while not is_master(trio.replica):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)

        await venue.storm(store, trouble)
        assert venue.failures
        with trio.replica.client() as client:
            venue.check(client)
        await store.close()
    finally:
        trio.kill()


async def test_a_cluster_whose_nodes_lose_everything(tmp_path: Path, start: Start) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        venue = await start(cluster.url)
        store = venue.store()

        async def trouble() -> None:
            for node in cluster.nodes:
                await asyncio.sleep(0.5)
                node.kill()
                await asyncio.sleep(0.1)
                await asyncio.to_thread(node.start)

        await venue.storm(store, trouble)
        assert venue.failures
        with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
            venue.check(client)
        await store.reset()
        await venue.chase(store)
        with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
            venue.check(client)
        await store.close()
    finally:
        cluster.kill()


async def test_tls_and_a_user_with_the_least_rights(tmp_path: Path, start: Start) -> None:
    server = RedisServer(tmp_path / "redis")
    server.use_password("secret", "venue", RULES)
    server.start()
    front = TlsFront(tmp_path / "tls", server)
    (tmp_path / "password").write_text("secret\n")
    try:
        venue = await start(front.url, username="venue",
                            password_file=str(tmp_path / "password"),
                            ssl_root_cert_file=str(front.ca_path))
        store = venue.store()
        venue.trade(30)
        await venue.chase(store)
        with redis.Redis(port=server.port) as client:
            # The default user may still look.
            venue.check(client)
        await store.reset()
        await venue.chase(store)
        with redis.Redis(port=server.port) as client:
            venue.check(client)
        await store.close()
    finally:
        front.close()
        server.kill()

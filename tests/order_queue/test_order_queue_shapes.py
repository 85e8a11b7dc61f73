"""The order queue in a cluster, behind sentinels, and over a connection that is cut."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.order_queue.conftest import Producer, until
from tests.support.flaky_proxy import FlakyProxy
from tests.support.redis import Cluster, RedisServer, Sentinels

ORDER = {"account": "MAKER1", "symbol": "AAPL", "side": "buy", "quantity": "10",
         "price": "100.00"}


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_in_a_cluster_the_keys_share_a_hash_tag(start_venue, tmp_path: Path,
                                                      kind: str) -> None:
    cluster = Cluster(tmp_path / "cluster")
    try:
        url = cluster.start().url
        client: Any = redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
        await start_venue(redis__url=url, redis__order_queue="{orders}")
        raw = json.dumps(ORDER | {"client_order_id": "c", "request_id": "1"})
        if kind == "stream":
            client.xadd("{orders}", {"order": raw})
        else:
            client.rpush("{orders}", raw)
        await until(lambda: client.xlen("{orders}:replies"))
        ((_, answer),) = client.xrange("{orders}:replies")
        assert answer[b"status"] == b"201"
    finally:
        cluster.kill()


async def test_in_a_cluster_names_without_a_tag_are_refused_in_words(start_venue,
                                                                     tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    try:
        venue = await start_venue(redis__url=cluster.start().url)
        await until(lambda: "need one hash tag" in venue.app.order_queue.error)
    finally:
        cluster.kill()


async def test_after_a_failover_the_new_master_is_served(start_venue, tmp_path: Path) -> None:
    trio = Sentinels(tmp_path / "trio")
    try:
        venue = await start_venue(redis__url=trio.start().url, redis__socket_timeout_s=1)
        first = Producer(trio.master.client(), "stream")
        assert (await first.ask(**ORDER))["status"] == 201
        trio.master.kill()
        second = Producer(trio.replica.client(), "stream")

        def writable() -> bool:
            try:
                second.client.xadd("orders", {"order": json.dumps(
                    ORDER | {"client_order_id": "after", "request_id": "after"})})
            except redis.RedisError:
                return False
            return True

        await until(writable)
        await until(lambda: any(row.get("request_id") == "after" for row in second.replies()))
        assert venue.app.order_queue.connected
    finally:
        trio.kill()


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_cut_connections_lose_and_repeat_nothing(start_venue, server: RedisServer,
                                                       kind: str) -> None:
    proxy = FlakyProxy(("127.0.0.1", server.port)).start()
    try:
        venue = await start_venue(redis__url=f"redis://127.0.0.1:{proxy.port}/0",
                                  redis__socket_timeout_s=0.3)
        producer = Producer(server.client(), kind)
        sent = 0
        for turn in range(12):
            for _ in range(60):
                sent += 1
                producer.send(**ORDER, client_order_id=f"x{sent}")
                producer.send(account="MAKER1", op="change", client_order_id=f"x{sent}",
                              price="99")
            await asyncio.sleep(0.03)
            if turn % 3 == 2:
                # What is under way is done, its answers are lost on the way.
                proxy.stall(up=False, down=True)
                await asyncio.sleep(0.05)
            proxy.cut()
            proxy.heal()
        answers = await producer.answers(2 * sent)
        assert {answer["status"] for answer in answers} == {200, 201}
        assert len({answer["request_id"] for answer in answers}) == 2 * sent
        past = venue.app.journal.past
        kinds = [event["kind"] for batch in past.events(1, venue.app.market.applied_seq)
                 for event in batch.dicts() if event.get("origin", {}).get("source") == "redis"]
        assert kinds.count("accepted") == kinds.count("replaced") == sent
        assert len(kinds) == 2 * sent
        await until(producer.nothing_left)
    finally:
        proxy.close()

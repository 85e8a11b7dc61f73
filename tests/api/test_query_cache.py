"""Which answers may be kept, how long, how many; and the route that keeps them."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.api.auth import Auth
from engine.api.database import DatabaseDesk, encoded
from engine.api.gateway import Gateway
from engine.api.keys import KeyFile
from engine.api.query_cache import MemoryCache, Remote, cacheable, key_of
from engine.api.remote_cache import RemoteCache
from engine.api.route import Access, Call, Identity, Reply
from engine.config import ApiConfig, HistoryConfig, RedisConfig
from engine.metrics import Metrics
from engine.past import Place, Result
from engine.stores.history import SqlHistory
from engine.stores.store import QueryRefused, QueryTimeout
from tests.stores.past_data import SqliteReads, make
from tests.support.redis import RedisServer

DATA = make(200, random.Random(2))
ADMIN = Identity(9, "ADMIN", Access.ADMIN, "key")


@pytest.mark.parametrize("sql", [
    "SELECT count(*) FROM orders",
    "select symbol, sum(quantity_lots) from trades group by symbol order by 2 desc limit 5;",
    "WITH big AS (SELECT * FROM trades WHERE quantity_lots > 5) SELECT count(*) FROM big",
    "WITH a AS MATERIALIZED (SELECT 1 AS x), b AS (SELECT 2 AS y) SELECT * FROM a, b",
    "SELECT * FROM orders o JOIN accounts a ON a.account_id = o.account_id, candles c",
    "SELECT * FROM (SELECT symbol FROM trades) x, orders WHERE status IN ('open', 'filled')",
    "SELECT price_units FROM trades WHERE symbol = $1 AND seq > $2 -- now() in a comment",
    "SELECT max(seq) OVER (PARTITION BY symbol) /* clock_timestamp() */ FROM order_events",
    "SELECT 'it''s from nowhere'",
    "SELECT count(*) FILTER (WHERE side = 'buy') FROM trades_view",
])
def test_answers_that_the_position_decides(sql: str) -> None:
    assert cacheable(sql, ["BTC-USDT", 5])


@pytest.mark.parametrize(("sql", "parameters"), [
    ("SELECT now()", []),
    ("SELECT count(*) FROM trades WHERE time > now() - interval '1 hour'", []),
    ("SELECT current_timestamp", []),
    ("SELECT count(*) FROM trades WHERE time > 'yesterday'::timestamptz", []),
    ("SELECT count(*) FROM trades WHERE time > $1::timestamptz", ["Now"]),
    ("SELECT datetime('now')", []),
    ("SELECT random() FROM trades", []),
    ("SELECT * FROM pg_stat_activity", []),
    ("SELECT * FROM information_schema.tables", []),
    ("SELECT * FROM sqlite_master", []),
    ("SELECT * FROM trades, pg_locks", []),
    ("SELECT * FROM other.trades", []),
    ("SELECT * FROM trades JOIN mine USING (seq)", []),
    ('SELECT * FROM "my table"', []),
    ("SELECT * FROM `mine`", []),
    ("SELECT E'\\' || clock_timestamp() || '", []),
    ("SELECT $$text$$, clock_timestamp()", []),
    ("SELECT updated_at FROM store_position", []),
    ("TABLE trades", []),
    ("SELECT 1 FROM trades WHERE EXISTS (SELECT 1 FROM other)", []),
    ("SELECT * FROM (SELECT 1) x, other", []),
    ("SELECT * FROM trades JOIN orders ON 1 = 1, other", []),
    ("SELECT * FROM trades JOIN orders USING (symbol, seq), other", []),
    ("SELECT my_function(seq) FROM trades", []),
    ("SELECT current_user", []),
    ("EXPLAIN ANALYZE SELECT 1", []),
])
def test_answers_that_may_differ_at_any_time(sql: str, parameters: list[Any]) -> None:
    assert not cacheable(sql, parameters)


def test_the_key_has_everything_that_decides_the_answer() -> None:
    place = Place("ab", 1, 5, 100)
    keys = {key_of("sqlite", place, "SELECT 1", [], 10),
            key_of("postgres", place, "SELECT 1", [], 10),
            key_of("sqlite", place._replace(seq=6), "SELECT 1", [], 10),
            key_of("sqlite", place._replace(incarnation=2), "SELECT 1", [], 10),
            key_of("sqlite", place._replace(log_id="cd"), "SELECT 1", [], 10),
            key_of("sqlite", place, "SELECT 2", [], 10),
            key_of("sqlite", place, "SELECT 1", [1], 10),
            key_of("sqlite", place, "SELECT 1", ["1"], 10),
            key_of("sqlite", place, "SELECT 1", [True], 10),
            key_of("sqlite", place, "SELECT 1", [], 11)}
    assert len(keys) == 10
    assert key_of("sqlite", place, "SELECT 1", [], 10) in keys


def test_memory_is_bounded_by_number_and_size() -> None:
    cache = MemoryCache(3, 100)
    for name in "abcd":
        cache.put(name, b"x" * 10, (1,))
    assert len(cache) == 3 and cache.get("a") is None and cache.get("b") == b"x" * 10
    cache.put("e", b"y" * 85, (1,))
    # What was used last stays longest.
    assert [name for name in "abcde" if cache.get(name)] == ["b", "e"]
    assert cache.size_bytes == 95
    cache.put("e", b"z", (1,))
    assert cache.size_bytes == 11
    cache.put("f", b"too large" * 100, (1,))
    assert cache.get("f") is None and len(cache) == 2
    # Another place of the store: nothing of before is kept.
    cache.put("g", b"new", (2,))
    assert len(cache) == 1 and cache.size_bytes == 3 and cache.get("b") is None
    off = MemoryCache(0, 100)
    off.put("a", b"x", (1,))
    assert off.get("a") is None


class Shared:
    """A cache behind ours."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    async def put(self, key: str, value: bytes) -> None:
        self.kept[key] = value

    async def close(self) -> None:
        return


class Desk:
    """The route over a small database."""

    def __init__(self, folder: Path, shared: Remote | None = None, **config: Any) -> None:
        self.reads, self.metrics = SqliteReads(DATA), Metrics()
        self.config = HistoryConfig(**config)
        self.desk = DatabaseDesk(
            SqlHistory(["sqlite"], lambda name: self.reads), self.config, self.metrics,
            (lambda: shared) if shared is not None else None)
        self.gateway = Gateway(Auth(ApiConfig(), (), KeyFile(folder, "")), 1000)
        self.gateway.add(self.desk.routes())

    async def ask(self, query: str, *parameters: Any, **more: Any) -> Reply:
        """The answer to an administrator."""
        route = self.desk.routes()[0]
        body = msgspec.json.encode({"query": query, "parameters": list(parameters), **more})
        return await route.handler(Call(ADMIN, {}, {}, msgspec.json.decode(body, type=route.body)))

    async def answer(self, query: str, *parameters: Any, **more: Any) -> dict[str, Any]:
        reply = await self.ask(query, *parameters, **more)
        assert reply.status == 200
        return dict(json.loads(reply.body))

    @property
    def counts(self) -> dict[str, int]:
        return {key: value for key, value in self.metrics.counts().items()
                if key.startswith("query_")}


COUNT = "SELECT count(*), sum(quantity_lots) FROM trades WHERE symbol = ?"


async def test_an_answer_is_kept_until_the_store_moves(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first = await desk.answer(COUNT, "DOGE")
    wanted = [row["quantity_lots"] for row in DATA.trades if row["symbol"] == "DOGE"]
    assert first["rows"] == [[len(wanted), sum(wanted)]]
    assert first["cached"] is None and not first["truncated"]
    assert (first["store"], first["seq"]) == ("sqlite", DATA.place[2])
    assert first["columns"] == ["count(*)", "sum(quantity_lots)"]
    again = await desk.answer(COUNT, "DOGE")
    assert again["cached"] == "memory" and again["rows"] == first["rows"]
    assert (await desk.answer(COUNT, "BTC-USDT"))["cached"] is None
    assert (await desk.answer(COUNT, "DOGE", cache_strategy="none"))["cached"] is None
    # A new trade: what was kept is another position's.
    desk.reads.connection.execute("UPDATE trades SET quantity_lots = quantity_lots + 1")
    desk.reads.connection.execute("UPDATE store_position SET seq = seq + 1")
    moved = await desk.answer(COUNT, "DOGE")
    assert moved["cached"] is None and moved["rows"] == [[len(wanted), sum(wanted) + len(wanted)]]
    assert moved["seq"] == first["seq"] + 1
    assert desk.counts == {"query_hits{cache=memory}": 1, "query_hits{cache=redis}": 0,
                           "query_misses": 3}


async def test_an_answer_of_an_unclear_moment_is_not_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    query = desk.reads.query

    async def moving(*arguments: Any) -> Any:
        found = await query(*arguments)
        desk.reads.connection.execute("UPDATE store_position SET seq = seq + 1")
        return found

    desk.reads.query = moving  # type: ignore[method-assign]
    await desk.answer(COUNT, "DOGE")
    desk.reads.query = query  # type: ignore[method-assign]
    assert (await desk.answer(COUNT, "DOGE"))["cached"] is None
    assert (await desk.answer(COUNT, "DOGE"))["cached"] == "memory"


async def test_each_strategy_uses_its_caches(tmp_path: Path) -> None:
    shared = Shared()
    desk, other = Desk(tmp_path, shared), Desk(tmp_path, shared)
    assert (await desk.answer(COUNT, "DOGE", cache_strategy="hybrid"))["cached"] is None
    assert len(shared.kept) == 1
    assert (await desk.answer(COUNT, "DOGE", cache_strategy="hybrid"))["cached"] == "memory"
    assert (await desk.answer(COUNT, "DOGE", cache_strategy="redis"))["cached"] == "redis"
    assert (await other.answer(COUNT, "DOGE", cache_strategy="memory"))["cached"] is None
    assert (await other.answer(COUNT, "DOGE", cache_strategy="redis"))["cached"] == "redis"
    third = Desk(tmp_path, shared)
    assert (await third.answer(COUNT, "DOGE"))["cached"] == "redis"
    # From then on in memory.
    assert (await third.answer(COUNT, "DOGE"))["cached"] == "memory"
    alone = Desk(tmp_path)
    assert (await alone.answer(COUNT, "DOGE", cache_strategy="redis"))["cached"] is None
    assert (await alone.answer(COUNT, "DOGE", cache_strategy="redis"))["cached"] is None
    assert (await alone.answer(COUNT, "DOGE", cache_strategy="memory"))["cached"] is None


async def test_rows_are_bounded_by_the_smaller_of_both_limits(tmp_path: Path) -> None:
    desk = Desk(tmp_path, query_rows_max=20)
    for limit, rows in ((None, 20), (5, 5), (500, 20)):
        more = {} if limit is None else {"limit": limit}
        found = await desk.answer("SELECT seq FROM order_events ORDER BY seq", **more)
        assert len(found["rows"]) == rows and found["truncated"]
    assert not (await desk.answer("SELECT 1"))["truncated"]


@pytest.mark.parametrize(("error", "status", "code"), [
    (QueryRefused("only reading is allowed"), 400, "query_refused"),
    (QueryTimeout("it took too long"), 503, "query_timeout"),
])
async def test_what_the_database_refuses(
        tmp_path: Path, error: Exception, status: int, code: str) -> None:
    desk = Desk(tmp_path)

    async def refuse(*_: Any) -> Any:
        raise error

    desk.reads.query = refuse  # type: ignore[method-assign]
    with pytest.raises(Exception, match=str(error)) as caught:
        await desk.ask("DELETE FROM trades")
    assert (caught.value.status, caught.value.code) == (status, code)  # type: ignore[attr-defined]


async def test_it_is_for_administrators(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    reply = await desk.gateway.answer("POST", b"/api/v1/performance/database/query", b"", [],
                                      b'{"query": "SELECT 1"}', "127.0.0.1")
    assert reply.status == 401


async def test_cells_are_what_every_reader_of_json_takes() -> None:
    body = await encoded("sqlite", Place("", 1, 7, 0), Result(
        ["id", "time_ns", "huge", "small", "text", "none", "at", "flag"],
        [(2**53 + 1, 1_790_000_000_000_000_001, 10**30, 5, "x", None,
          datetime(2026, 1, 1, tzinfo=UTC), True)] * 300 + [(
              Decimal("1.50"), -2**60, -2**60, 2**53, "y", 1.5, None, False)], True))
    found = json.loads(body)
    assert found["rows"][0] == ["9007199254740993", 1_790_000_000_000_000_001, "1" + "0" * 30, 5,
                                "x", None, "2026-01-01T00:00:00Z", True]
    assert found["rows"][300] == ["1.50", -2**60, str(-2**60), 2**53, "y", 1.5, None, False]
    assert len(found["rows"]) == 301 and found["truncated"] is True and found["seq"] == 7


# -- Redis -------------------------------------------------------------------------------------


async def until(cache: RemoteCache, key: str, value: bytes) -> None:
    """Until Redis keeps it; nobody waits for that but this test."""
    async with asyncio.timeout(20):
        while True:
            await cache.put(key, value)
            if await cache.get(key) == value:
                return
            await asyncio.sleep(0.02)


async def test_redis_keeps_answers_and_is_not_waited_for_while_it_is_away(
        tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis").start()
    cache = RemoteCache(RedisConfig(url=server.url, prefix="p:"), ttl_s=60)
    other = RemoteCache(RedisConfig(url=server.url, prefix="p:"), ttl_s=60)
    try:
        # The first question begins to connect and is not answered by Redis.
        assert await cache.get("a") is None
        await until(cache, "a", b"one")
        await until(other, "b", b"two")
        assert await cache.get("b") == b"two"
        server.kill()
        assert await cache.get("a") is None
        loop = asyncio.get_running_loop()
        before = loop.time()
        for _ in range(1000):
            assert await cache.get("a") is None
            await cache.put("c", b"three")
        # No connection was tried for any of them.
        assert loop.time() - before < 2
        server.start()
        await until(cache, "d", b"four")
    finally:
        await cache.close()
        await other.close()
        server.kill()


async def test_a_wrong_address_is_said_once_and_costs_nothing(tmp_path: Path) -> None:
    cache = RemoteCache(RedisConfig(url="http://nowhere"), ttl_s=60)
    for _ in range(3):
        assert await cache.get("a") is None
        await asyncio.sleep(0.01)
    await cache.close()

"""The past of a running venue: what its client reads is what it did, in every format."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.clients import (
    AuthenticationError,
    BadRequestError,
    ConnectionLostError,
    ForbiddenError,
    HttpClient,
    NotFoundError,
    UnavailableError,
)
from tests.api.conftest import make_key
from tests.support.daemon import Daemon
from tests.support.postgres import PostgresServer, ScratchDatabase

BTC, ETH = "BTC-USDT", "ETH-USDT"


@pytest.fixture(params=["sqlite", "postgres"])
def venue(request: pytest.FixtureRequest, tmp_path: Path,
          postgres_database: ScratchDatabase) -> Iterator[Daemon]:
    """A venue whose history one of the stores answers."""
    settings: dict[str, Any] = {"sqlite__enabled": True} if request.param == "sqlite" else {
        "postgres__url": postgres_database.plain_url, "postgres__schema": postgres_database.schema,
        "postgres__pool_min_size": 1}
    daemon = Daemon(tmp_path / "venue", history__rows_max=50, **settings).start()
    yield daemon
    daemon.kill()


async def client(daemon: Daemon, account: str, *options: str) -> HttpClient:
    made = await asyncio.to_thread(make_key, daemon, account, *options)
    return HttpClient(f"http://127.0.0.1:{daemon.api_port}", token=made["token"])


@pytest.fixture
async def clients(venue: Daemon) -> AsyncIterator[Callable[[str], HttpClient]]:
    """A client of each account, by name."""
    made = {name: await client(venue, name) for name in ("MAKER1", "TAKER1")}
    made["ADMIN"] = await client(venue, "ADMIN", "--role", "admin")
    yield made.__getitem__
    for one in made.values():
        one.close()


async def trade(clients: Callable[[str], HttpClient], rounds: int) -> list[str]:
    """Makers and takers meet; returns the ids of the makers' orders, oldest first."""
    found = []
    for number in range(rounds):
        symbol = (BTC, ETH)[number % 2]
        order = await clients("MAKER1").submit(symbol, "sell", "2", f"{100 + number % 7}")
        found.append(order.order_id)
        if number % 3:
            await clients("TAKER1").submit(symbol, "buy", "1", "200")
    return found


async def reached(one: HttpClient, seq: int) -> None:
    """Until the store has this event."""
    async with asyncio.timeout(30):
        while True:
            try:
                if (await one.history_page("trades"))["seq"] >= seq:
                    return
            except (UnavailableError, NotFoundError):
                pass
            await asyncio.sleep(0.02)


async def newest(one: HttpClient) -> int:
    """The newest event."""
    return int((await one.book(BTC))["seq"])


async def test_the_past_is_what_happened(
        clients: Callable[[str], HttpClient], tmp_path: Path) -> None:
    maker, taker, admin = clients("MAKER1"), clients("TAKER1"), clients("ADMIN")
    ids = await trade(clients, 80)
    await reached(maker, await newest(maker))
    rows = [row async for row in maker.history("orders", order="asc", limit=7)]
    assert [row["order_id"] for row in rows] == ids
    # As memory has them, field by field.
    for row in rows[-15:]:
        order = await maker.get(f"/v1/orders/{row['order_id']}")
        for name in row.keys() & order.keys():
            assert row[name] == order[name], name
        assert set(order) - set(row) == {"fills"}
    fills = await maker.trades(limit=1000)
    mine = [row async for row in maker.history("executions")]
    assert [{name: row[name] for name in fills[0]} for row in mine] == fills
    others = [row async for row in taker.history("executions", side="buy")]
    assert {row["match"] for row in others} <= {row["match"] for row in mine}
    both = [row async for row in admin.history("executions", symbol=BTC)]
    assert len(both) == 2 * sum(row["symbol"] == BTC for row in mine)
    for interval in ("1s", "1m", "1d"):
        now = await maker.candles(BTC, interval, 1000)
        past = [row async for row in maker.history("candles", symbol=BTC, interval=interval,
                                                   order="asc")]
        assert [{name: row[name] for name in one if name != "closed"}
                for one, row in zip(now, past, strict=True)] == [
            {name: value for name, value in one.items() if name != "closed"} for one in now]
    tape = (await maker.get(f"/v1/trades/{BTC}", limit=1000))["trades"]
    past = [row async for row in maker.history("trades", symbol=BTC, order="asc")]
    assert [{name: row[name] for name in tape[0]} for row in past] == tape
    await _files(maker, mine, tmp_path)


async def _files(maker: HttpClient, mine: list[dict[str, Any]], folder: Path) -> None:
    """The same rows in files."""
    path = folder / "executions.parquet"
    with path.open("wb") as file:
        seq = await maker.download("executions", file)
    assert seq == await newest(maker)
    assert [str(match) for match in pq.read_table(path)["match"].to_pylist()] \
        == [row["match"] for row in mine]
    text = io.BytesIO()
    await maker.download("executions", text, "csv", symbol=ETH)
    found = list(csv.DictReader(io.StringIO(text.getvalue().decode(), newline="")))
    assert [row["match"] for row in found] == [
        row["match"] for row in mine if row["symbol"] == ETH]
    with pytest.raises(NotFoundError):
        await maker.download("trades", text, "csv", symbol="NOTHING")


async def test_pages_stand_still_while_the_venue_trades(
        clients: Callable[[str], HttpClient]) -> None:
    maker = clients("MAKER1")
    await trade(clients, 60)
    await reached(maker, await newest(maker))
    before = [row["match"] async for row in maker.history("trades")]
    trading = asyncio.create_task(trade(clients, 100))
    found = []
    cursor = (await maker.history_page("trades", limit=1))["last"]
    async for row in maker.history("trades", limit=3, cursor=cursor):
        found.append(row["match"])
        await asyncio.sleep(0.002)
    assert found[-len(before) + 1:] == before[1:]
    # Oldest first, from where one has stopped: everything that came since, once.
    page = await maker.history_page("trades", order="asc", limit=50)
    seen, ended = [row["match"] for row in page["trades"]], False
    while not ended:
        ended = trading.done() and page["seq"] >= await newest(maker)
        page = await maker.history_page("trades", order="asc", limit=50, cursor=page["last"])
        seen += [row["match"] for row in page["trades"]]
        ended = ended and page["next"] is None
    everything = [row["match"] async for row in maker.history("trades", order="asc")]
    assert seen == everything and len(seen) > len(before)
    await trading


async def test_statements(clients: Callable[[str], HttpClient], venue: Daemon) -> None:
    admin, maker = clients("ADMIN"), clients("MAKER1")
    await trade(clients, 30)
    await reached(admin, await newest(admin))
    store = (await admin.history_page("trades"))["store"]
    mark = {"postgres": "$1", "sqlite": "?"}[store]
    sql = f"SELECT count(*) AS n FROM trades WHERE symbol = {mark}"
    first = await admin.query(sql, BTC)
    assert first["rows"] == [[10]] and first["columns"] == ["n"] and first["cached"] is None
    again = await admin.query(sql, BTC)
    assert again["cached"] == "memory" and again["rows"] == [[10]]
    assert (await admin.query(sql, BTC, cache_strategy="none"))["cached"] is None
    await trade(clients, 2)
    await reached(admin, await newest(admin))
    assert (await admin.query(sql, ETH))["rows"] == [[11]]
    assert (await admin.query(sql, BTC))["cached"] is None
    for wrong in ("DELETE FROM trades", "nonsense", "SELECT 1; SELECT 2"):
        with pytest.raises(BadRequestError) as refused:
            await admin.query(wrong)
        assert refused.value.code == "query_refused"
    with pytest.raises(ForbiddenError):
        await maker.query(sql, BTC)
    async with HttpClient(f"http://127.0.0.1:{venue.api_port}", token="none.none") as nobody:
        with pytest.raises(AuthenticationError):
            await nobody.query(sql, BTC)
    metrics = (await admin.request("GET", "/metrics")).body.decode()
    assert re.search(r'^matchd_query_hits_total\{cache="memory"\} 1\.0$', metrics, re.MULTILINE)


async def test_the_store_may_be_killed_under_a_reader(
        clients: Callable[[str], HttpClient], venue: Daemon) -> None:
    maker = clients("MAKER1")
    await trade(clients, 40)
    await reached(maker, await newest(maker))
    rows, broken = 0, False
    async with HttpClient(f"http://127.0.0.1:{venue.api_port}", retry_s=0.2) as reader:
        try:
            async for _ in reader.history("orders", limit=1):
                rows += 1
                if rows == 20:
                    venue.kill()
        except ConnectionLostError:
            broken = True
    assert broken and rows == 20
    venue.start()
    async with HttpClient(f"http://127.0.0.1:{venue.api_port}") as again:
        await reached(again, await newest(again))
        assert len([row async for row in again.history("orders")]) == 40


async def test_sqlite_answers_while_postgresql_is_away(
        make_daemon: Callable[..., Daemon]) -> None:
    server = PostgresServer().start()
    daemon = make_daemon(
        sqlite__enabled=True, postgres__url=server.url, postgres__pool_min_size=1,
        postgres__pool_max_size=2, stores__retry_max_ms=200).start()
    try:
        async with HttpClient(f"http://127.0.0.1:{daemon.api_port}") as maker:
            await maker.submit(BTC, "buy", "1", "10")
            await answers_from(maker, "postgres", 1)
            await asyncio.to_thread(server.kill)
            await maker.submit(BTC, "buy", "1", "10")
            await answers_from(maker, "sqlite", 2)
            await asyncio.to_thread(server.start)
            await answers_from(maker, "postgres", 2)
    finally:
        await asyncio.to_thread(server.close)


async def answers_from(one: HttpClient, store: str, orders: int) -> None:
    """Until this store answers with so many orders."""
    async with asyncio.timeout(60):
        while True:
            try:
                page = await one.history_page("orders")
            except UnavailableError:
                continue
            if page["store"] == store and len(page["orders"]) == orders:
                return
            await asyncio.sleep(0.05)


async def test_answers_in_redis_outlive_the_venue(
        make_daemon: Callable[..., Daemon], redis_place: tuple[str, str]) -> None:
    url, prefix = redis_place
    daemon = make_daemon(sqlite__enabled=True, redis__url=url, redis__prefix=prefix).start()
    sql = "SELECT count(*) FROM orders"
    for life in (1, 2):
        admin = await client(daemon, "ADMIN", "--role", "admin")
        if life == 1:
            async with HttpClient(f"http://127.0.0.1:{daemon.api_port}") as maker:
                await maker.submit(BTC, "buy", "1", "10")
        await reached(admin, await newest(admin))
        # The venue does not wait for Redis: the first answers may not reach it.
        async with asyncio.timeout(30):
            while (found := await admin.query(sql, cache_strategy="redis"))["cached"] is None:
                await asyncio.sleep(0.02)
        assert found["cached"] == "redis" and found["rows"] == [[1]]
        assert (await admin.query(sql))["cached"] == "redis"
        assert (await admin.query(sql))["cached"] == "memory"
        admin.close()
        if life == 1:
            await asyncio.to_thread(daemon.stop)
            await asyncio.to_thread(daemon.start)


async def test_without_a_store_the_reason_is_said(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    async with HttpClient(f"http://127.0.0.1:{daemon.api_port}", retry_s=0) as one:
        with pytest.raises(UnavailableError, match="sqlite.enabled") as refused:
            await one.history_page("trades")
        assert refused.value.code == "history_unavailable"


def test_a_long_stream_holds_nobody_up(make_daemon: Callable[..., Daemon]) -> None:
    """A reader that does not read keeps a stream, and nothing else, waiting."""
    daemon = make_daemon(sqlite__enabled=True).start()

    async def fill() -> None:
        async with HttpClient(f"http://127.0.0.1:{daemon.api_port}") as maker:
            for _ in range(20):
                await maker.submit_many([{"symbol": BTC, "side": "buy", "quantity": "1",
                                          "price": "10"}] * 100)
            await reached(maker, await newest(maker))

    asyncio.run(fill())
    with socket.create_connection(("127.0.0.1", daemon.api_port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /v1/history/orders?format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)
        began = time.monotonic()
        asyncio.run(fill())
        assert time.monotonic() - began < 25
        found = b""
        sock.settimeout(20)
        while not found.endswith(b"0\r\n\r\n"):
            found += sock.recv(65536)
    assert found.count(b"BTC-USDT") == 2000

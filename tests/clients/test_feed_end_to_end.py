"""The feed's client against the real daemon: what it rebuilds is the venue's book, tick by tick by
its checksum and at the end level by level, order by order and trade by trade; over replayed days
and random orders, in every encoding, with connections cut anywhere and the daemon killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.clients import FeedClient, LocalBook, LocalOrders, OrderEntryClient
from engine.clients.feed_link import ENCODINGS
from tests.clients.cutting_proxy import CuttingProxy
from tests.data import make_day
from tests.support.daemon import Daemon

MakeDaemon = Callable[..., Daemon]
WAIT_S = 60.0
DEPTH_SHOWN = "1000000"
real_day = pytest.mark.skipif("MATCHD_TEST_DATA" not in os.environ,
                              reason="MATCHD_TEST_DATA is not set")


class Follower:
    """One client, and all that it was told of one instrument."""

    def __init__(self, client: FeedClient, symbol: str, depth: int | None) -> None:
        self.client, self.symbol, self.depth = client, symbol, depth
        self.trades: list[dict[str, Any]] = []
        self.executions: list[dict[str, Any]] = []
        self.bbo: dict[str, Any] = {}
        self.types: dict[str, int] = {}
        self.checked = 0
        self.fault: Exception | None = None

    async def run(self) -> None:
        """Subscribe and follow until the client is closed."""
        await self.client.subscribe("book", self.symbol, depth=self.depth)
        for channel in ("book_l3", "trades", "bbo", "executions"):
            await self.client.subscribe(channel, self.symbol)
        self.types["subscribed"] = 1
        try:
            async for message in self.client:
                self._take(message)
        except Exception as error:
            self.fault = error
            raise

    def _take(self, message: dict[str, Any]) -> None:
        channel, kind = message["channel"], message["type"]
        self.types[kind] = self.types.get(kind, 0) + 1
        if channel == "bbo" and kind != "reset":
            self.bbo = message
        self.trades += message.get("trades", [])
        if channel == "executions" and kind == "update":
            self.executions.append(message)
        if channel == "book":
            self.checked += 1

    @property
    def book(self) -> LocalBook:
        return self.client.book(self.symbol)

    @property
    def orders(self) -> LocalOrders:
        return self.client.orders(self.symbol)


class Truth:
    """What the venue itself has of an instrument, from its log."""

    def __init__(self, daemon: Daemon, symbol: str) -> None:
        book, = asked(daemon, "book", symbol, "--depth", DEPTH_SHOWN)
        self.bids, self.asks, self.crc = book["bids"], book["asks"], book["crc"]
        orders, = asked(daemon, "book", symbol, "--orders")
        self.orders = tuple(
            [[one["price"], one["order_id"], one["quantity"]] for one in orders["orders"]
             if one["side"] == side] for side in ("buy", "sell"))
        events = asked(daemon, "journal", "dump", plain=True)
        ids = {one["symbol"]: one["instrument_id"] for one in events if "wire_symbol" in one}
        fills = [one for one in events
                 if one["kind"] == "fill" and one["instrument_id"] == ids[symbol]]
        self.matches = [one["seq"] for one in fills]
        self.maker1 = sorted(one["seq"] for one in fills for account in
                             (one["account_id"], one["maker_account_id"]) if account == 1)


def asked(daemon: Daemon, *arguments: str, plain: bool = False) -> list[dict[str, Any]]:
    done = daemon.run(*arguments, *([] if plain else ["--json"]))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(follower: Follower, truth: Truth) -> list[str]:
    """What the follower has not, or not yet, as the venue has it. Wrong trades never become
    right."""
    matches = [int(one["match"]) for one in follower.trades]
    assert matches == truth.matches[:len(matches)], "a trade is missing, or came twice"
    own = sorted(int(one["match"]) for one in follower.executions)
    orders = tuple([[price, int(order_id), quantity] for price, order_id, quantity in side]
                   for side in (follower.orders.bids, follower.orders.asks))
    best = [side[0][:2] if side else None for side in (truth.bids, truth.asks)]
    same = {
        "trades": len(matches) == len(truth.matches), "executions": own == truth.maker1,
        "bids": follower.book.bids == truth.bids[:follower.depth],
        "asks": follower.book.asks == truth.asks[:follower.depth],
        "crc": follower.depth is not None or follower.book.crc() == truth.crc,
        "orders": orders == truth.orders,
        "bbo": [follower.bbo.get("bid"), follower.bbo.get("ask")] == best,
        "ready": follower.book.ready and follower.orders.ready,
    }
    return [name for name, fits in same.items() if not fits]


@contextlib.asynccontextmanager
async def following(daemon: Daemon, symbol: str, seed: int,
                    cut_bytes: int) -> AsyncIterator[tuple[list[Follower], list[CuttingProxy]]]:
    """A follower in each encoding, of the full book and of ten levels, each behind a proxy that
    cuts its connections."""
    async with contextlib.AsyncExitStack() as stack:
        followers, proxies, tasks = [], [], []
        for number, encoding in enumerate((*ENCODINGS, "msgpack")):
            proxy = await stack.enter_async_context(
                CuttingProxy(daemon.feed_port, seed + number, 0))
            # `repair` off: nothing may get out of step, however connections break.
            client = await stack.enter_async_context(FeedClient(
                "127.0.0.1", proxy.port, encoding=encoding, repair=False))
            followers.append(Follower(client, symbol, 10 if number == 3 else None))
            proxies.append(proxy)
            tasks.append(asyncio.create_task(followers[-1].run()))
        async with asyncio.timeout(WAIT_S):
            while not all("subscribed" in one.types for one in followers):
                await asyncio.sleep(0.01)
        for proxy in proxies:
            # From the next connection on.
            proxy.bytes_max = cut_bytes
            proxy.cut_all()
        yield followers, proxies
        for follower in followers:
            await follower.client.close()
        await asyncio.gather(*tasks)


async def becomes_true(daemon: Daemon, followers: list[Follower]) -> None:
    """Every follower comes to what the venue has."""
    truth = await asyncio.to_thread(Truth, daemon, followers[0].symbol)
    give_up_at = asyncio.get_running_loop().time() + WAIT_S
    for follower in followers:
        while wrong := differences(follower, truth):
            if follower.fault is not None:
                raise follower.fault
            assert asyncio.get_running_loop().time() < give_up_at, (
                wrong, follower.types, follower.client.reconnects, len(follower.executions),
                len(truth.maker1))
            await asyncio.sleep(0.05)
    for follower in followers:
        assert (follower.book.checked > 0, follower.client.repairs) == (True, 0)


async def replay(make_daemon: MakeDaemon, symbol: str, files: list[str], cut_bytes: int,
                 minimum: int) -> None:
    """A day goes through the venue while it is followed."""
    daemon = make_daemon(feed__batch_interval_ms=1).start()
    async with following(daemon, symbol, 7, cut_bytes) as (followers, proxies):
        process = await asyncio.create_subprocess_exec(
            *daemon.command("replay", *files, "--port", str(daemon.port), "--json"),
            env=daemon.environment, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT)
        shown, _ = await process.communicate()
        assert process.returncode == 0, shown.decode()
        for proxy in proxies:
            proxy.bytes_max = 0
            proxy.cut_all()
        await becomes_true(daemon, followers)
        assert all(follower.client.reconnects > 0 for follower in followers)
        assert min(follower.checked for follower in followers) > minimum, [
            (follower.types, follower.checked) for follower in followers]


async def test_a_replayed_day(make_daemon: MakeDaemon) -> None:
    # Slow enough for many ticks and several cuts.
    await replay(make_daemon, "MSFT", ["lobster", str(make_day.MESSAGES), str(make_day.BOOK),
                                       "--speed", "2"], 30_000, 30)


@real_day
@pytest.mark.timeout(900)
async def test_the_real_day(make_daemon: MakeDaemon) -> None:
    folder = Path(os.environ["MATCHD_TEST_DATA"]) / "lobster"
    await replay(make_daemon, "GOOG", ["commands", str(folder / "GOOG_10.commands.csv.xz")],
                 4_000_000, 30)


class Trader:
    """Random orders of one account, through a proxy that finds the venue again."""

    def __init__(self, client: OrderEntryClient, symbol: str, seed: int) -> None:
        self._client, self._symbol = client, symbol
        self._random = random.Random(seed)
        self._live: list[int] = []

    async def trade(self, rounds: int) -> None:
        """Enter, replace and cancel around a price."""
        draw, client = self._random, self._client
        for _ in range(rounds):
            answers = [client.enter(self._symbol, draw.choice("BS"), draw.randint(1, 90),
                                    5_000_000 + 100 * int(draw.gauss(0, 9)),
                                    draw.choice("111113"))
                       for _ in range(draw.randint(1, 12))]
            while self._live and draw.random() < 0.7:
                number = self._live.pop(draw.randrange(len(self._live)))
                if draw.random() < 0.3:
                    client.replace(number, draw.randint(1, 90),
                                   5_000_000 + 100 * int(draw.gauss(0, 9)), "1",
                                   symbol=self._symbol)
                elif draw.random() < 0.3:
                    client.cancel(number, draw.randint(1, 40), symbol=self._symbol)
                else:
                    client.cancel(number)
            for answer in answers:
                self._live.append((await answer).user_ref_num)


@pytest.mark.parametrize(("seed", "kills"), [(1, 0), (2, 3)])
async def test_random_orders_with_cuts_and_kills(make_daemon: MakeDaemon, seed: int, kills: int,
                                                 long_profile: bool) -> None:
    daemon = make_daemon(feed__batch_interval_ms=1, journal__snapshot_events=2_000).start()
    rounds = 400 if long_profile else 60
    draw = random.Random(seed)
    async with CuttingProxy(daemon.port, seed, 0) as entry, \
            following(daemon, "GOOG", seed, 60_000) as (followers, proxies), \
            OrderEntryClient("127.0.0.1", entry.port, "MAKER1", "demo") as first, \
            OrderEntryClient("127.0.0.1", entry.port, "TAKER1", "demo") as second:
        traders = [Trader(one, "GOOG", seed + number) for number, one in
                   enumerate((first, second))]
        for round_ in range(kills + 1):
            trading = asyncio.gather(*(one.trade(rounds) for one in traders))
            if round_ < kills:
                await asyncio.sleep(draw.random() * 0.5)
                await asyncio.to_thread(daemon.kill)
                await asyncio.to_thread(daemon.start)
                entry.port_upstream = daemon.port
                for proxy in proxies:
                    proxy.port_upstream = daemon.feed_port
            async with asyncio.timeout(WAIT_S):
                await trading
        for proxy in proxies:
            proxy.bytes_max = 0
            proxy.cut_all()
        await becomes_true(daemon, followers)
        assert all(len(follower.trades) > 50 for follower in followers)
        assert all(follower.client.reconnects > kills for follower in followers)

"""The HTTP client: typed answers and errors, and orders that are sent again until they are told."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from engine.clients import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ConnectionLostError,
    HttpClient,
    HttpOrder,
    NotFoundError,
    RejectedError,
)
from tests.api.conftest import make_key
from tests.support.daemon import Daemon

BTC = "BTC-USDT"


def url(daemon: Daemon) -> str:
    return f"http://127.0.0.1:{daemon.api_port}"


async def test_orders_and_errors_are_typed(daemon: Daemon) -> None:
    made = await asyncio.to_thread(make_key, daemon, "MAKER1")
    async with HttpClient(url(daemon), key=made["key"], secret=made["secret"]) as venue:
        order = await venue.submit(BTC, "buy", "0.5", Decimal("60000.10"))
        assert (order.price, order.quantity, order.live) == (Decimal("60000.10"), Decimal("0.5"),
                                                             True)
        assert await venue.order(order.order_id) == order
        assert await venue.order(order.client_order_id or "") == order
        assert await venue.orders() == [order]
        other = await venue.change(order, price="60001")
        assert (other.replaces, other.price) == (order.order_id, Decimal("60001"))
        found = await venue.submit_many([
            {"symbol": BTC, "side": "sell", "quantity": "0.1"},
            {"symbol": BTC, "side": "sell", "quantity": "0.1", "price": "70000.001"}])
        assert isinstance(found[0], HttpOrder) and found[0].status == "filled"
        assert isinstance(found[1], RejectedError) and found[1].code == "price_off_tick"
        assert [one["liquidity"] for one in await venue.trades()] == ["maker", "taker"]
        assert await venue.cancel_all() == 1
        with pytest.raises(ConflictError) as late:
            await venue.cancel(other)
        assert late.value.code == "order_not_live"
        with pytest.raises(NotFoundError):
            await venue.order("nothing")
        with pytest.raises(NotFoundError):
            await venue.book("NOTHING")
        with pytest.raises(BadRequestError):
            await venue.submit(BTC, "sideways", "1", "1")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await venue.submit(BTC, "buy", 0.5, "1")  # type: ignore[arg-type]
        assert (await venue.account())["username"] == "MAKER1"
    async with HttpClient(url(daemon), key=made["key"], secret="wrong") as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.account()


async def test_orders_sent_while_the_venue_is_killed_trade_once(daemon: Daemon) -> None:
    made = await asyncio.to_thread(make_key, daemon, "MAKER1")
    port = daemon.api_port
    # Started again, it has to be where the client looks for it.
    daemon._settings["api__port"] = port
    done: list[HttpOrder] = []

    async with HttpClient(f"http://127.0.0.1:{port}", token=made["token"], retry_s=60) as venue:
        async def trade(worker: int) -> None:
            for number in range(15):
                for side in ("buy", "sell"):
                    done.append(await venue.submit(
                        BTC, side, "0.1", "60000",  # type: ignore[arg-type]
                        client_order_id=f"w{worker}-{number}-{side}"))

        async def kill() -> None:
            for orders in (40, 120):
                while len(done) < orders:
                    await asyncio.sleep(0.002)
                await asyncio.to_thread(daemon.kill)
                await asyncio.to_thread(daemon.start)

        await asyncio.gather(kill(), *(trade(worker) for worker in range(8)))
        assert len({order.order_id for order in done}) == len(done) == 240
        assert await venue.orders() == []
    assert await asyncio.to_thread(daemon.stop) == 0
    dumped = (await asyncio.to_thread(daemon.run, "journal", "dump")).stdout
    events: list[dict[str, Any]] = [json.loads(line) for line in dumped.splitlines()]
    accepted = [event["client_order_id"] for event in events if event["kind"] == "accepted"]
    assert len(accepted) == len(set(accepted)) == 240
    traded = sum(event["quantity_lots"] for event in events if event["kind"] == "fill")
    assert traded == 120 * 100_000


async def test_a_venue_that_is_not_there_is_one_error() -> None:
    async with HttpClient("http://127.0.0.1:1", retry_s=0.2) as venue:
        with pytest.raises(ConnectionLostError):
            await venue.account()

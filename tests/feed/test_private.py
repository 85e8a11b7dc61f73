"""What an account does is told to its own clients only."""

from __future__ import annotations

import asyncio

import pytest
import websockets

from tests.feed.venue import everything, told
from tests.support.venue import Venue

pytestmark = pytest.mark.asyncio


def cross(batch):
    """Account 1 offers, account 2 takes half."""
    batch.enter(1, 1, 1, "S", 100, 1_000_000)
    batch.enter(2, 1, 1, "B", 50, 1_000_000)


class Who:
    """An identity as the gateway gives it."""

    def __init__(self, account_id: int, username: str) -> None:
        self.account_id, self.username = account_id, username


def use_tokens(venue: Venue, **accounts: int) -> None:
    """Have these tokens, and nobody without one."""
    venue.app.feed.demo = lambda: None
    venue.app.feed.authenticate = lambda token, host: (
        Who(accounts[token], token.upper()) if token in accounts else None)


async def test_without_a_login_there_is_nothing_private(venue: Venue, connect) -> None:
    use_tokens(venue, one=1)
    peer = await connect(venue)
    for channel in ("orders", "executions"):
        answer = await peer.ask(op="subscribe", channel=channel)
        assert answer["code"] == "not_authenticated"
    answer = await peer.ask(op="auth", token="two")
    assert answer["code"] == "not_authenticated"
    assert (await peer.ask(op="auth", token="one"))["account"] == "ONE"
    assert (await peer.subscribe("orders"))["orders"] == []


async def test_on_loopback_with_demo_passwords_the_demo_account_is_there(
        venue: Venue, connect) -> None:
    peer = await connect(venue)
    await peer.subscribe("orders")
    venue.inside(cross)
    assert [one["filled_quantity"] for one in await everything(venue, peer)] == ["0", "50"]


async def test_each_account_gets_its_own(venue: Venue, connect) -> None:
    use_tokens(venue, one=1, two=2, three=3)
    peers = {}
    for name in ("one", "two", "three"):
        peers[name] = await connect(venue)
        await peers[name].ask(op="auth", token=name)
        for channel in ("orders", "executions"):
            await peers[name].subscribe(channel)
    venue.inside(cross)
    got = {name: await everything(venue, peer) for name, peer in peers.items()}
    assert got["three"] == []
    assert [(one["channel"], one.get("status"), one["side"]) for one in got["one"]] == [
        ("orders", "open", "sell"), ("orders", "partially_filled", "sell"),
        ("executions", None, "sell")]
    assert [(one["channel"], one.get("status"), one["side"]) for one in got["two"]] == [
        ("orders", "filled", "buy"), ("executions", None, "buy")]
    execution = got["two"][-1]
    assert (execution["liquidity"], execution["price"], execution["quantity"]) == (
        "taker", "100.0000", "50")
    assert isinstance(execution["order_id"], str) and isinstance(execution["match"], str)


async def test_a_login_cannot_change_while_something_private_is_followed(
        venue: Venue, connect) -> None:
    use_tokens(venue, one=1, two=2)
    peer = await connect(venue)
    await peer.ask(op="auth", token="one")
    await peer.subscribe("orders")
    assert (await peer.ask(op="auth", token="two"))["code"] == "forbidden"
    assert (await peer.ask(op="auth", token="one"))["ok"]
    await peer.ask(op="unsubscribe", channel="orders", symbol="*")
    assert (await peer.ask(op="auth", token="two"))["ok"]


async def test_a_login_ends_with_its_key(venue: Venue, connect) -> None:
    use_tokens(venue, one=1, two=2)
    peers = {}
    for name in ("one", "two"):
        peers[name] = await connect(venue)
        await peers[name].ask(op="auth", token=name)
        await peers[name].subscribe("orders")
    stranger = await connect(venue)
    use_tokens(venue, two=2)
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await asyncio.wait_for(peers["one"].socket.recv(), 10)
    assert closed.value.rcvd.code == 1008
    assert closed.value.rcvd.reason == "the key of the login is over"
    assert (await peers["two"].ask(op="ping"))["ok"]
    assert (await stranger.ask(op="ping"))["ok"]


async def test_a_trade_with_oneself_is_two_executions(venue: Venue, connect) -> None:
    peer = await connect(venue)
    first = await peer.subscribe("executions")
    venue.inside(lambda batch: (batch.enter(1, 1, 1, "S", 10, 1_000_000),
                                batch.enter(1, 2, 1, "B", 10, 1_000_000)))
    one, two = await everything(venue, peer)
    assert {one["liquidity"], two["liquidity"]} == {"maker", "taker"}
    # The first does not cover the event: who is cut between them gets both again.
    assert (one["prev_seq"], two["prev_seq"]) == (first["seq"], one["seq"])
    assert two["seq"] == one["seq"] + 1


async def test_nobody_watches_an_account_whose_clients_are_gone(make_venue, connect) -> None:
    venue = await make_venue(feed__resume_window_ms=0)
    peer = await connect(venue)
    await peer.subscribe("orders", "*")
    assert venue.app.market._watched == {1}
    await peer.close()
    for _ in range(100):
        await told(venue)
        if not venue.app.market._watched:
            break
        await asyncio.sleep(0.05)
    assert venue.app.market._watched == set()
    assert len(venue.app.feed.registry) == 0

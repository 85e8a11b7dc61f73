"""What an operator does, and that the log says who did it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Caller
from tests.support.wire import Wire, enter

BODY = {"symbol": "BTC-USDT", "side": "buy", "quantity": "0.5", "price": "60000"}
ADMIN = "/v1/admin"


@pytest.fixture
def admin(call: Callable[..., Caller]) -> Iterator[Caller]:
    """ADMIN with an admin's key; what was switched off is on again afterwards."""
    caller = call("ADMIN")
    yield caller
    caller("POST", f"{ADMIN}/instruments/BTC-USDT/resume")
    caller("POST", f"{ADMIN}/accounts/MAKER1/enable")
    caller("POST", f"{ADMIN}/cancel-all")


def event(daemon: Daemon, seq: int) -> dict[str, Any]:
    """One event of the log."""
    done = daemon.run("journal", "dump", "--from", str(seq), "--to", str(seq))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[0]))


def check_actor(daemon: Daemon, seq: int, kind: str, key: str, reason: str = "",
                act: str = "none") -> dict[str, Any]:
    """The event is of this kind and says that ADMIN did it, with this key and these words."""
    found = event(daemon, seq)
    origin = found["origin"]
    assert (found["kind"], found["source"]) == (kind, "admin")
    assert (origin["actor_account_id"], origin["key"], origin["reason"], origin["act"]) == (
        5, key, reason, act)
    return found


ACTS = [("POST", f"{ADMIN}/instruments/BTC-USDT/halt"),
        ("POST", f"{ADMIN}/instruments/BTC-USDT/resume"),
        ("POST", f"{ADMIN}/accounts/MAKER1/disable"), ("POST", f"{ADMIN}/accounts/MAKER1/enable"),
        ("POST", f"{ADMIN}/cancel-all"), ("POST", f"{ADMIN}/snapshot"),
        ("GET", f"{ADMIN}/sessions"), ("POST", f"{ADMIN}/sessions/MAKER1/disconnect")]


@pytest.mark.parametrize(("method", "path"), ACTS)
def test_only_an_admin_may(call: Callable[..., Caller], method: str, path: str) -> None:
    for who in ("MAKER1", ""):
        got = call(who)(method, path)
        assert (got.status, got.code) == (403, "forbidden")
        assert got.json["details"] == {"role_needed": "admin"}


@pytest.mark.parametrize(("path", "body", "status", "code"), [
    ("instruments/NOTHING/halt", None, 404, "unknown_symbol"),
    ("instruments/NOTHING/resume", None, 404, "unknown_symbol"),
    ("accounts/NOBODY/disable", None, 404, "unknown_account"),
    ("accounts/NOBODY/enable", None, 404, "unknown_account"),
    ("sessions/NOBODY/disconnect", None, 404, "unknown_account"),
    ("cancel-all", {"account": "NOBODY"}, 404, "unknown_account"),
    ("cancel-all", {"symbol": "NOTHING"}, 404, "unknown_symbol"),
    ("cancel-all", {"who": "all"}, 400, "unknown_field"),
    ("cancel-all", {"account": "maker1"}, 400, "bad_value"),
    ("instruments/BTC-USDT/halt", {"reason": "x" * 25}, 400, "bad_value"),
    ("instruments/BTC-USDT/halt", {"reason": "caf\u00e9"}, 400, "bad_value"),
    ("snapshot", {"x": 1}, 400, "unknown_field"), ("snapshot", b"{", 400, "bad_json"),
])
def test_wrong_acts_are_refused(admin: Caller, path: str, body: Any, status: int,
                                code: str) -> None:
    got = admin("POST", f"{ADMIN}/{path}", body)
    assert (got.status, got.code) == (status, code)


def test_a_halt_refuses_orders_and_lets_cancels_through(
        venue: Daemon, admin: Caller, call: Callable[..., Caller], keys: Any) -> None:
    maker = call("MAKER1")
    order_id = maker("POST", "/v1/orders", BODY).json["order_id"]
    halted = admin("POST", f"{ADMIN}/instruments/BTC-USDT/halt", {"reason": "news pending"})
    assert halted.status == 200
    check_actor(venue, halted.json["seq"], "instrument_halted", keys["ADMIN"]["key"],
                "news pending")
    rows = maker("GET", "/v1/instruments").json["instruments"]
    assert [(one["state"], one["reason"]) for one in rows if one["symbol"] == "BTC-USDT"] == [
        ("halted", "news pending")]
    for method, path, body in (("POST", "/v1/orders", BODY),
                               ("PATCH", f"/v1/orders/{order_id}", {"price": "1"})):
        got = maker(method, path, body)
        assert (got.status, got.code) == (422, "instrument_halted")
    assert maker("GET", f"/v1/orders/{order_id}").json["status"] == "open"
    assert maker("PATCH", f"/v1/orders/{order_id}", {"quantity": "0.4"}).status == 200
    assert maker("DELETE", f"/v1/orders/{order_id}").status == 200
    resumed = admin("POST", f"{ADMIN}/instruments/BTC-USDT/resume")
    check_actor(venue, resumed.json["seq"], "instrument_resumed", keys["ADMIN"]["key"])
    assert maker("POST", "/v1/orders", BODY).status == 201


def test_a_halt_outlives_a_kill(make_daemon: Callable[..., Daemon]) -> None:
    from tests.api.conftest import make_key

    daemon = make_daemon().start()
    key = make_key(daemon, "ADMIN", "--role", "admin")
    Caller(daemon.api_port, key)("POST", f"{ADMIN}/instruments/BTC-USDT/halt",
                                 {"reason": "over night"})
    daemon.kill()
    daemon.start()
    caller = Caller(daemon.api_port, key)
    rows = caller("GET", "/v1/instruments").json["instruments"]
    assert [(one["state"], one["reason"]) for one in rows if one["symbol"] == "BTC-USDT"] == [
        ("halted", "over night")]
    assert caller("POST", "/v1/orders", BODY).code == "instrument_halted"


def test_the_kill_switch_cancels_and_refuses_at_every_door(
        venue: Daemon, admin: Caller, call: Callable[..., Caller], keys: Any) -> None:
    maker = call("MAKER1")
    for price in ("100", "200"):
        maker("POST", "/v1/orders", BODY | {"price": price})

    async def over_ouch() -> None:
        wire = await Wire.logged_in(venue.port, "MAKER1", sequence=0)
        wire.send(enter(1, "B", 500_000, 100, "BTC-USDT", "1"))
        assert (await wire.packet())[1][:1] == b"A"
        got = await asyncio.to_thread(admin, "POST", f"{ADMIN}/accounts/maker1/disable",
                                      {"reason": "limits"})
        assert (got.status, got.json["canceled"]) == (200, 3)
        found = await asyncio.to_thread(check_actor, venue, got.json["seq"], "entry_disabled",
                                        keys["ADMIN"]["key"], "limits")
        assert found["account_id"] == 1
        assert (await wire.packet())[1][:1] == b"C"
        wire.send(enter(2, "B", 500_000, 100, "BTC-USDT", "1"))
        assert (await wire.packet())[1][:1] == b"J"
        wire.writer.close()

    asyncio.run(over_ouch())
    assert maker("GET", "/v1/orders").json["orders"] == []
    got = maker("POST", "/v1/orders", BODY)
    assert (got.status, got.code) == (422, "account_disabled")
    assert maker("GET", "/v1/account").json["entry_enabled"] is False
    assert call("MAKER2")("POST", "/v1/orders", BODY).status == 201
    assert admin("POST", f"{ADMIN}/accounts/MAKER1/enable").status == 200
    assert maker("GET", "/v1/account").json["entry_enabled"] is True
    assert maker("POST", "/v1/orders", BODY).status == 201


def test_orders_are_cancelled_for_one_account_or_all(
        venue: Daemon, admin: Caller, call: Callable[..., Caller], keys: Any) -> None:
    makers = [call("MAKER1"), call("MAKER2")]
    for maker in makers:
        for more in ({}, {"symbol": "AAPL", "quantity": 1, "price": "1"}):
            assert maker("POST", "/v1/orders", BODY | more).status == 201
    one = admin("POST", f"{ADMIN}/cancel-all", {"account": "MAKER1", "symbol": "AAPL"})
    assert one.json["canceled"] == 1
    check_actor(venue, one.json["seq"], "mass_canceled", keys["ADMIN"]["key"])
    every = admin("POST", f"{ADMIN}/cancel-all", {"reason": "end of test"})
    assert every.json["canceled"] == 3
    check_actor(venue, every.json["seq"], "mass_canceled", keys["ADMIN"]["key"], "end of test")
    none = admin("POST", f"{ADMIN}/cancel-all")
    assert none.json["canceled"] == 0
    check_actor(venue, none.json["seq"], "admin_act", keys["ADMIN"]["key"], act="other")


def test_a_snapshot_is_written_now(venue: Daemon, admin: Caller, keys: Any) -> None:
    got = admin("POST", f"{ADMIN}/snapshot", {"reason": "before the update"})
    assert (got.status, got.json["started"]) == (200, True)
    check_actor(venue, got.json["seq"], "admin_act", keys["ADMIN"]["key"], "before the update",
                "snapshot")
    deadline = time.monotonic() + 20
    while not [path for path in venue.data_dir.rglob("*.snap")
               if int(path.stem) >= got.json["seq"]]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_session_is_shown_and_closed(venue: Daemon, admin: Caller, keys: Any) -> None:
    async def session() -> None:
        wire = await Wire.logged_in(venue.port, "TAKER1", sequence=0)
        rows = (await asyncio.to_thread(admin, "GET", f"{ADMIN}/sessions")).json
        [row] = [one for one in rows["sessions"] if one["username"] == "TAKER1"]
        assert (row["connected"], row["address"].split(":")[0], row["next_number"]) == (
            True, "127.0.0.1", wire.next_number)
        assert rows["session"] == wire.session.strip()
        got = await asyncio.to_thread(admin, "POST", f"{ADMIN}/sessions/TAKER1/disconnect")
        assert got.json["disconnected"] is True
        found = await asyncio.to_thread(check_actor, venue, got.json["seq"], "admin_act",
                                        keys["ADMIN"]["key"], "", "disconnect")
        assert found["account_id"] == 3
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            while (await wire.packet())[0]:
                pass
            raise ConnectionResetError
        rows = (await asyncio.to_thread(admin, "GET", f"{ADMIN}/sessions")).json
        assert [one["connected"] for one in rows["sessions"]
                if one["username"] == "TAKER1"] == [False]

    asyncio.run(session())

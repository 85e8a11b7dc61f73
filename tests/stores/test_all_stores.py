"""The daemon with all three stores and real servers, which are killed while it trades."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores.test_stores_daemon import SMALL, MakeDaemon, Traders, wait_for
from tests.support.daemon import Daemon
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer

BREAKER = {"stores__retry_min_ms": 20, "stores__retry_max_ms": 200, "stores__breaker_failures": 3}


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer().start()
    yield server
    server.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", appendonly="yes", appendfsync="always").start()
    yield server
    server.kill()


def wait_for_state(daemon: Daemon, name: str, state: str) -> None:
    wait_for(daemon, lambda report: bool(report[name] == state))


def test_servers_killed_under_load_miss_and_repeat_nothing(
        make_daemon: MakeDaemon, postgres: PostgresServer, redis: RedisServer) -> None:
    database = postgres.database()
    daemon = make_daemon(**SMALL, **BREAKER, postgres__url=database.url, redis__url=redis.url,
                         redis__batch_interval_ms=5, postgres__batch_interval_ms=5).start()
    wait_for(daemon, lambda report: {report["postgres"], report["redis"], report["sqlite"]}
             == {"connected"})
    traders = Traders(daemon, 1)
    for server, name in ((postgres, "postgres"), (redis, "redis"), (postgres, "postgres")):
        time.sleep(0.3)
        server.kill()
        wait_for_state(daemon, name, "down")
        server.start()
        wait_for_state(daemon, name, "connected")
    traders.stop()
    assert traders.sent > 50
    report = wait_for(daemon, lambda report: not report["reasons"] and all(
        report["parts"][name]["seq"] == report["seq"] for name in ("postgres", "redis", "sqlite")))
    status = json.loads(daemon.run("store", "status", "--json").stdout)
    assert {row["seq"] for row in status["stores"].values()} == {report["seq"]}
    for name in ("postgres", "sqlite"):
        found = daemon.run("store", "verify", name, "--json")
        assert found.returncode == 0, found.stdout + found.stderr
        assert json.loads(found.stdout)["seq"] == report["seq"]
    # Rebuilt beside the venue, and by the command alone.
    rebuilt = daemon.run("store", "rebuild", "postgres", "--yes", "--json")
    assert json.loads(rebuilt.stdout)["seq"] == report["seq"], rebuilt.stderr
    assert daemon.run("store", "rebuild", "redis", "--yes").returncode == 0
    assert daemon.stop() == 0
    assert daemon.run("store", "rebuild", "postgres", "--yes").returncode == 0
    assert daemon.run("store", "verify", "postgres").returncode == 0
    assert not [line for line in daemon.lines() if line.get("level") == "error"
                and line["event"] != "store left alone for a while"]
    database.drop()

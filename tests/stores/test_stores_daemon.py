"""The real daemon with its stores: killed, rebuilt, with stores that are dead or say nothing."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine import clock
from tests.api.ops_client import Operator, make_token
from tests.market.test_market_daemon import call, order
from tests.support.daemon import Daemon

MakeDaemon = Callable[..., Daemon]
SMALL = {"sqlite__enabled": True, "journal__snapshot_events": 400,
         "journal__segment_bytes": 2**19, "journal__first_segment_bytes": 2**18,
         "sqlite__batch_interval_ms": 5}
KILLS = 8
WAIT_S = 120.0


def wait_for(daemon: Daemon, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The report of /health, as soon as it is so."""
    deadline_s = clock.monotonic_s() + WAIT_S
    while True:
        report: dict[str, Any] = call(daemon.api_port, "GET", "/health")[1]
        if condition(report):
            return report
        assert clock.monotonic_s() < deadline_s, report
        time.sleep(0.01)


def trade(daemon: Daemon, chance: random.Random, start: int, count: int) -> None:
    """Some orders of one client."""
    for number in range(start, start + count):
        assert call(daemon.api_port, "POST", "/v1/orders", order(chance, number))[0] == 201


class Traders:
    """Trade in the background until the venue is gone."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self._port = daemon.api_port
        self._chance = random.Random(seed)
        self._seed = seed
        self._over = False
        self.sent = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over:
                body = order(self._chance, self._seed * 1_000_000 + self.sent)
                assert call(self._port, "POST", "/v1/orders", body)[0] == 201
                self.sent += 1
        except OSError:
            pass

    def stop(self) -> None:
        self._over = True
        self._thread.join()


def verified(daemon: Daemon) -> dict[str, Any]:
    found = daemon.run("store", "verify", "sqlite", "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def test_kills_at_random_moments_leave_every_row_once(make_daemon: MakeDaemon) -> None:
    daemon, chance = make_daemon(**SMALL), random.Random(5)
    for round_ in range(KILLS):
        daemon.start()
        traders = Traders(daemon, round_)
        time.sleep(chance.uniform(0.02, 0.5))
        daemon.kill()
        traders.stop()
    daemon.start()
    # However little was traded on a slow machine.
    trade(daemon, random.Random(1), 9_000_000, 100)
    wait_for(daemon, lambda report: report["parts"]["sqlite"]["seq"] == report["seq"])
    seq = call(daemon.api_port, "GET", "/health")[1]["seq"]
    assert daemon.stop() == 0
    answer = verified(daemon)
    assert answer["seq"] == seq > 100
    assert answer["rows"]["trades"] > 0


def test_a_rebuild_beside_trading_ends_with_the_same_tables(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(**SMALL).start()
    trade(daemon, random.Random(1), 0, 150)
    traders = Traders(daemon, 1)
    found = daemon.run("store", "rebuild", "sqlite", "--yes", "--json")
    traders.stop()
    assert found.returncode == 0, found.stderr
    assert traders.sent > 0
    daemon.wait_for_line("store is emptied, to be filled from the log", store="sqlite")
    wait_for(daemon, lambda report: report["parts"]["sqlite"]["lag_events"] == 0)
    beside = verified(daemon)
    assert daemon.stop() == 0
    assert verified(daemon) == beside


def test_without_a_venue_status_and_rebuild_do_it_themselves(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(**SMALL).start()
    trade(daemon, random.Random(1), 0, 50)
    assert daemon.stop() == 0
    before = json.loads(daemon.run("store", "status", "--json").stdout)
    assert not before["running"]
    assert before["stores"]["sqlite"]["lag_events"] == 0
    done = daemon.run("store", "rebuild", "sqlite", "--yes", "--json")
    assert json.loads(done.stdout) == {"store": "sqlite", "first_seq": 1, "seq": before["seq"]}
    assert json.loads(daemon.run("store", "status", "--json").stdout) == before
    assert verified(daemon)["seq"] == before["seq"]
    # Another log's file is told, and left alone.
    other = make_daemon(name="other", **SMALL).start()
    assert other.stop() == 0
    (daemon.data_dir / "history.sqlite").replace(other.data_dir / "history.sqlite")
    row = json.loads(other.run("store", "status", "--json").stdout)["stores"]["sqlite"]
    assert row["state"] == "foreign"
    other.start()
    line = other.wait_for_line("store stopped", store="sqlite")
    assert "belongs to the log" in line["reason"]
    assert call(other.api_port, "POST", "/v1/orders", order(random.Random(1), 1))[0] == 201
    assert other.stop() == 0
    assert other.run("store", "rebuild", "sqlite", "--yes").returncode == 0
    verified(other)


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that accepts and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield port


@pytest.mark.parametrize("dead", [closed_port, silent_server])
def test_dead_stores_hold_up_neither_start_nor_orders_nor_the_end(
        make_daemon: MakeDaemon, dead: Callable[[], Any]) -> None:
    with dead() as port:
        daemon = make_daemon(
            sqlite__enabled=True, postgres__url=f"postgresql://nobody@127.0.0.1:{port}/none",
            redis__url=f"redis://127.0.0.1:{port}/0", postgres__connect_timeout_ms=300,
            redis__connect_timeout_s=0.3, redis__socket_timeout_s=0.3,
            stores__retry_min_ms=10, stores__retry_max_ms=100, stores__breaker_failures=2,
            stores__drain_ms=500)
        daemon.start()
        trade(daemon, random.Random(1), 0, 20)
        report = wait_for(daemon, lambda report: len(report["reasons"]) == 2
                          and not report["parts"]["sqlite"]["lag_events"])
        assert report["status"] == "degraded"
        assert report["ready"]
        assert (report["postgres"], report["redis"], report["sqlite"]) == (
            "down", "down", "connected")
        assert report["parts"]["redis"]["breaker"] in ("open", "half_open")
        # Anybody may know that much, and no more.
        words = "connection refused" if dead is closed_port else "no answer in time"
        assert {report["parts"][name]["error"] for name in ("postgres", "redis")} == {words}
        assert "127.0.0.1" not in str(report) and str(port) not in str(report["reasons"])
        operator = Operator(daemon)
        assert operator.ask("GET", "/api/v1/performance/stores")[0] == 403
        admin = Operator(daemon, make_token(daemon, "ADMIN", "admin"))
        stores = admin.get("/api/v1/performance/stores")["stores"]
        assert f"127.0.0.1:{port}" in stores["postgres"]["error"]
        trade(daemon, random.Random(2), 20, 20)
        started_s = clock.monotonic_s()
        assert daemon.stop() == 0
        assert clock.monotonic_s() - started_s < 6
    assert daemon.wait_for_line("stopped")
    assert not [line for line in daemon.lines() if "Traceback" in line["event"]]


def test_without_a_journal_there_are_no_stores(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(sqlite__enabled=True, journal__sync="off").start()
    line = daemon.wait_for_line("no stores: journal.sync is off")
    assert line["stores"] == ["sqlite"]
    assert call(daemon.api_port, "GET", "/health")[1]["sqlite"] == "off"
    assert daemon.stop() == 0
    assert not (daemon.data_dir / "history.sqlite").exists()


def test_each_store_tells_of_itself_now_and_then(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(**SMALL, stores__report_interval_s=1).start()
    trade(daemon, random.Random(1), 0, 30)
    line = daemon.wait_for_line("store", store="sqlite")
    assert {"events", "events_per_s", "writes", "writes_per_s", "events_per_write", "lag_events",
            "lag_ms", "errors", "rows"} <= set(line)
    wait_for(daemon, lambda report: report["parts"]["sqlite"]["lag_events"] == 0)
    assert daemon.stop() == 0
    told = sum(found["events"] for found in daemon.lines() if found["event"] == "store")
    assert told > 30


def test_a_store_that_is_switched_on_when_the_log_s_beginning_is_gone(
        make_daemon: MakeDaemon) -> None:
    small = SMALL | {"journal__retain_segments": 1, "journal__snapshot_events": 200,
                     "journal__segment_bytes": 2**16, "journal__first_segment_bytes": 2**16}
    off = make_daemon(**small | {"sqlite__enabled": False}).start()
    first, number = off.data_dir / "journal" / "00000001.log", 0
    while first.exists():
        trade(off, random.Random(number), number, 50)
        number += 50
        assert number < 5_000
    assert off.stop() == 0
    daemon = make_daemon(**small).start()
    line = daemon.wait_for_line("store begins with the oldest event that is kept")
    assert line["seq"] > 1 and line["store"] == "sqlite"
    trade(daemon, random.Random(1), number, 50)
    wait_for(daemon, lambda report: report["parts"]["sqlite"]["seq"] == report["seq"])
    for command in ("verify", "rebuild"):
        found = daemon.run("store", command, "sqlite", *(["--yes"] * (command == "rebuild")))
        assert found.returncode == 0, found.stdout + found.stderr
    assert daemon.stop() == 0
    assert daemon.run("store", "rebuild", "sqlite", "--yes").returncode == 0
    found = daemon.run("store", "verify", "sqlite", "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    report = json.loads(found.stdout)
    assert report["rows"]["order_events"] > 0 and "the log begins" in report["notes"][0]

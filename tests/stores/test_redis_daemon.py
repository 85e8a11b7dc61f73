"""The real daemon with Redis: both killed at random, rebuilt, another venue's, told of."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cython_core.event import EventBatch
from cython_core.rows import COLUMNS
from engine import clock, config
from engine.redis_values import decode
from engine.stores.tables import new_rows
from tests.market.test_market_daemon import call, order
from tests.stores.redis_venue import stream
from tests.stores.test_stores_daemon import WAIT_S, Traders, trade, wait_for
from tests.support.daemon import Daemon
from tests.support.redis import RedisServer

MakeDaemon = Callable[..., Daemon]
SMALL = {"journal__snapshot_events": 400, "journal__segment_bytes": 2**19,
         "journal__first_segment_bytes": 2**18, "redis__batch_interval_ms": 5,
         "redis__min_change": 0, "redis__stream_entries_max": 10**9,
         "stores__retry_min_ms": 5, "stores__retry_max_ms": 50}
KILLS = 6


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path / "redis", appendonly="yes", appendfsync="always").start()
    yield one
    one.kill()


def level(daemon: Daemon) -> int:
    """Wait until Redis has all; the seq."""
    wait_for(daemon, lambda report: report["parts"]["redis"]["seq"] == report["seq"])
    return int(call(daemon.api_port, "GET", "/health")[1]["seq"])


def logged(daemon: Daemon) -> tuple[list[Any], list[Any]]:
    """Order events, and numbers of trades, as the journal has them."""
    from engine.cli.store_log import ReadLog
    loaded, _ = config.load(None, {}, daemon.data_dir)
    log, rows = ReadLog(loaded), new_rows()
    batches: Iterator[EventBatch] = log.new_past().events(1, log.committed_seq)
    for batch in batches:
        rows.apply(batch)
    matches = [row[COLUMNS["trades"].index("match_number")] for row in rows.rows("trades")]
    return [list(row) for row in rows.rows("order_events")], matches


def stored(server: RedisServer) -> tuple[list[Any], list[Any]]:
    """The same as Redis has them."""
    with server.client() as client:
        events = [row for _, entry in stream(client, "matchd:order_events:{venue}")
                  for row in decode(entry[b"data"])]
        names: Any = client.keys("matchd:trades:*")
        matches = [trade["match"] for name in names for _, entry in stream(client, name.decode())
                   for trade in decode(entry[b"data"])["trades"]]
    return events, sorted(matches)


def same_books(daemon: Daemon, server: RedisServer) -> bool:
    """Whether each book in Redis is what HTTP shows."""
    with server.client() as client:
        names: Any = client.keys("matchd:book:*")
        assert names
        for name in names:
            value: Any = client.get(name)
            book = decode(value)
            shown = call(daemon.api_port, "GET",
                         f"/v1/book/{book['symbol']}?depth=10")[1]
            if (book["bids"], book["asks"]) != (shown["bids"], shown["asks"]):
                return False
    return True


def verified(daemon: Daemon) -> dict[str, Any]:
    """The report of `store verify redis`, which finds nothing."""
    found = daemon.run("store", "verify", "redis", "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    assert report["good"] and report["seq"] > 0
    return report


def test_both_killed_at_random_moments(make_daemon: MakeDaemon, server: RedisServer) -> None:
    daemon, chance = make_daemon(redis__url=server.url, **SMALL), random.Random(7)
    for round_ in range(KILLS):
        daemon.start()
        traders = Traders(daemon, round_)
        time.sleep(chance.uniform(0.05, 0.5))
        if round_ % 2:
            server.kill()
            time.sleep(chance.uniform(0, 0.2))
            server.start()
            time.sleep(chance.uniform(0, 0.3))
        daemon.kill()
        traders.stop()
    daemon.start()
    # However little was traded on a slow machine: some entries there are.
    for part in range(6):
        trade(daemon, random.Random(part), 100_000 + part * 10, 10)
        seq = level(daemon)
    assert seq > 60
    # Books are due a moment later than the events of a stream.
    deadline_s = clock.monotonic_s() + WAIT_S
    while not same_books(daemon, server):
        assert clock.monotonic_s() < deadline_s
        time.sleep(0.05)
    # Beside a venue that trades, and at rest.
    traders = Traders(daemon, KILLS)
    for _ in range(3):
        verified(daemon)
    traders.stop()
    assert daemon.stop() == 0
    assert stored(server) == logged(daemon)
    report = verified(daemon)
    assert report["rows"]["order_events"] == len(logged(daemon)[0])
    with server.client() as client:
        key = "matchd:order_events:{venue}"
        client.xdel(key, stream(client, key)[-3][0])
    found = daemon.run("store", "verify", "redis")
    assert found.returncode == 4 and "missing" in found.stdout


def test_it_is_told_of_and_rebuilt(make_daemon: MakeDaemon, server: RedisServer) -> None:
    daemon = make_daemon(redis__url=server.url, stores__report_interval_s=1, **SMALL).start()
    report = wait_for(daemon, lambda report: report["redis"] == "connected")
    trade(daemon, random.Random(1), 0, 100)
    line = daemon.wait_for_line("store", store="redis")
    assert {"book_updates", "books_written", "updates_per_book"} <= line.keys()
    found = daemon.run("store", "rebuild", "redis", "--yes", "--json")
    assert found.returncode == 0, found.stderr
    trade(daemon, random.Random(1), 100, 20)
    seq = level(daemon)
    assert report["redis"] == "connected"
    server.pause()
    try:
        trade(daemon, random.Random(1), 200, 20)
        wait_for(daemon, lambda report: report["redis"] == "down")
    finally:
        server.resume()
    assert level(daemon) > seq
    assert daemon.stop() == 0
    assert stored(server) == logged(daemon)
    row = json.loads(daemon.run("store", "status", "--json").stdout)["stores"]["redis"]
    assert row["state"] == "at rest" and row["lag_events"] == 0
    # Another venue on the same keys is told so, and trades on.
    other = make_daemon(name="other", redis__url=server.url, **SMALL).start()
    line = other.wait_for_line("store stopped", store="redis")
    assert "belongs to the log" in line["reason"]
    assert call(other.api_port, "POST", "/v1/orders", order(random.Random(1), 1))[0] == 201
    assert other.stop() == 0
    assert other.run("store", "rebuild", "redis", "--yes").returncode == 0
    other.start()
    level(other)
    assert other.stop() == 0
    assert stored(server) == logged(other)


def test_a_wrong_password_is_one_clear_line(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "locked")
    server.use_password("right")
    server.start()
    try:
        url = server.url.replace("redis://", "redis://:wrong@")
        daemon = make_daemon(redis__url=url, **SMALL).start()
        line = daemon.wait_for_line("store down", store="redis")
        assert line["reason"].startswith("Redis at ")
        assert line["reason"].endswith(": wrong user or password")
        assert "wrong@" not in json.dumps(line)
        assert call(daemon.api_port, "POST", "/v1/orders", order(random.Random(1), 1))[0] == 201
        assert daemon.stop() == 0
    finally:
        server.kill()

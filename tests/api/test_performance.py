"""The figures under `/stats`, `/clients` and `/api/v1/performance`, and what is said about them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets.sync.client

from engine import clock
from engine.api.benchmark import BenchmarkRequest, Run, Stop
from engine.api.recent import Recent
from engine.api.recommend import recommendations
from engine.api.serialization import ENCODINGS, measure, samples
from engine.metrics import Metrics
from tests.api.ops_client import Operator, make_token
from tests.api.test_health import Desk
from tests.support.daemon import Daemon

BASE = "/api/v1/performance"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("performance"))
    yield daemon.start()
    daemon.kill()


@pytest.fixture(scope="module")
def operator(daemon: Daemon) -> Operator:
    return Operator(daemon, make_token(daemon, "ADMIN", "admin"))


# -- the last minute ---------------------------------------------------------------------------


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Moves the clock on by a second."""
    now = [clock.monotonic_ns()]
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now[0])

    def step() -> None:
        now[0] += clock.NS_PER_S

    return step


def test_rates_are_of_the_last_seconds_only(second: Callable[[], None]) -> None:
    metrics = Metrics()
    orders = metrics.counter("orders", "orders", "")
    time_ns = metrics.histogram("time", "ns", "")
    recent = Recent(metrics)
    for number in range(1, 31):
        orders.add(100 if number <= 15 else 7)
        time_ns.observe(number, 3)
        second()
        recent.take()
        if number in (5, 15):
            assert recent.rates()["orders"] == 100
            assert recent.per_second("time") == 3
    assert recent.rates()["orders"] == 7
    assert recent.grown("orders", 20) == 15 * 7 + 5 * 100
    assert recent.spread("time").count == 90
    assert recent.spread("time", 10).count == 30
    assert recent.spread("nothing").count == recent.grown("nothing") == 0


# -- recommendations ---------------------------------------------------------------------------


class Crowd:
    """A feed with a crowd of clients."""

    def __init__(self, behind: int) -> None:
        self._rows = [{"queue_size": 50 if number < behind else 0} for number in range(200)]

    def stats(self) -> dict[str, Any]:
        return {"batches_sent": 100, "avg_batch_size": 1.1, "active_connections": 200,
                "clients_dropped": 4}

    def clients(self) -> list[dict[str, Any]]:
        return self._rows


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    from engine.config import Config, VenueConfig
    return Desk(Config(venue=VenueConfig(data_dir=str(tmp_path))))


def advice(desk: Desk) -> dict[tuple[str, str], Any]:
    said = recommendations(desk.watch)
    order = [one.action == "keep" for one in said]
    assert order == sorted(order)
    for one in said:
        assert one.sentence.endswith(".") and one.figure.unit
    return {(one.setting, one.figure.name): one for one in said}


def test_a_quiet_venue_may_stay_as_it_is(desk: Desk) -> None:
    assert {one.action for one in advice(desk).values()} == {"keep"}


def test_every_figure_that_is_bad_gives_a_sentence_with_it(desk: Desk) -> None:
    desk.queues[1].put_nowait(bytes(60))
    desk.queues[1].drain(1_000)
    desk.commit.observe(30 * clock.NS_PER_MS, 50)
    desk.lag.observe(50 * clock.NS_PER_MS, 300)
    desk.metrics.histogram("gc_pause", "ns", "", labels={"generation": "2"}).observe(
        2 * clock.NS_PER_S)
    desk.metrics.histogram("commit_units", "units", "", (60_000,)).observe(60_000, 10)
    desk.metrics.counter("turned_away", "connections", "").add(5)
    desk.metrics.counter("feed_resumed", "subscriptions", "").add(10)
    desk.metrics.counter("feed_resets", "subscriptions", "").add(9)
    desk.metrics.counter("http_requests", "requests", "", labels={
        "method": "GET", "route": "/", "status": "429"}).add(3)
    desk.watch.recent.take()
    desk.watch.feed = Crowd(behind=60)
    said = advice(desk)
    wanted = {
        ("queues.events_units", "queue_units_max{queue=events}"): 60,
        ("journal.sync", "commit_p99"): pytest.approx(50, rel=0.5),
        ("journal.group_max_bytes", "commit_units_p99"): pytest.approx(3_800_000, rel=0.02),
        ("order_entry.connections_max", "turned_away"): 5,
        ("feed.batch_interval_ms", "avg_batch_size"): 1.1,
        ("feed.slow_client_threshold", "clients_behind"): 60,
        ("feed.unsent_max_bytes", "clients_dropped"): 4,
        ("feed.resume_window_ms", "feed_resets"): 9,
        ("feed.batch_interval_ms", "loop_lag_p99"): pytest.approx(50, rel=0.5),
        ("(none)", "gc_pause_part"): pytest.approx(1 / 30, rel=0.01),
        ("api.requests_per_second", "http_429"): 3,
    }
    for key, value in wanted.items():
        assert said[key].action != "keep", key
        assert said[key].figure.value == value, key


def test_the_rate_of_writing_says_how_long_disk_and_segment_last(
        desk: Desk, second: Callable[[], None]) -> None:
    written = desk.metrics.counter("journal_written", "bytes", "")
    desk.watch.disk_free_bytes = 36_000 * 2**20
    for _ in range(12):
        written.add(10 * 2**20)
        second()
        desk.watch.recent.take()
    said = advice(desk)
    assert said["journal.segment_bytes", "journal_segment_fill"].figure.value == 26
    assert said["journal.segment_bytes", "journal_segment_fill"].action == "change"
    assert said["journal.retain_segments", "disk_full_in"].figure.value == 1.0


# -- a daemon ----------------------------------------------------------------------------------


def test_status_says_what_happened_lately(operator: Operator) -> None:
    for number in range(20):
        operator.post("/v1/orders", {"symbol": "BTC-USDT", "side": "sell", "quantity": "0.1",
                                     "price": str(60_000 + number)}, 201)
    deadline_s = time.monotonic() + 10
    while True:
        status = operator.get(f"{BASE}/status")
        if status["rates"]["commands_per_second"] > 0 or time.monotonic() > deadline_s:
            break
        time.sleep(0.1)
    assert status["rates"]["commands_per_second"] > 0
    assert status["rates"]["journal_bytes_per_second"] > 0
    assert status["times"]["commit"]["count"] >= 20
    assert status["times"]["order_ack"]["count"] >= 20
    assert status["times"]["http_request"]["count"] >= 20
    assert 0 < status["times"]["commit"]["p50_ms"] <= status["times"]["commit"]["p99_ms"] < 10_000
    assert [queue["name"] for queue in status["queues"]][:3] == ["commands", "events", "reports"]
    figures = operator.get(f"{BASE}/metrics")
    assert figures["counters"]["matcher{kind=accepted}"] >= 20
    assert figures["gauges"]["resting_orders"] >= 20
    names = {one["name"] for one in figures["times"]}
    assert {"matchd_commit_seconds", "matchd_http_request_seconds"} <= names
    checks = operator.get(f"{BASE}/health")["checks"]
    assert {"disk_free", "stuck", "queue_commands"} <= {check["name"] for check in checks}
    assert operator.get(f"{BASE}/recommendations")["recommendations"]


def test_metrics_come_as_prometheus_wants_them(operator: Operator) -> None:
    from tests.api.test_metrics import lint, sample
    operator.get("/health")
    status, headers, text = operator.ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    assert list(lint(text)) == []
    assert sample(text, "matchd_http_requests_total", route="/health", status="200") >= 1
    assert sample(text, "matchd_http_request_seconds_count", route="/health") >= 1
    assert sample(text, "matchd_disk_free_bytes") > 0


@pytest.mark.parametrize("port", ["api_port", "feed_port"])
def test_the_feed_is_told_of_on_both_ports(daemon: Daemon, port: str) -> None:
    operator = Operator(daemon)
    operator.on(getattr(daemon, port))
    url = f"ws://127.0.0.1:{daemon.feed_port}/"
    with websockets.sync.client.connect(url) as client:
        client.send(json.dumps({"op": "subscribe", "id": 1, "channel": "bbo",
                                "symbol": "BTC-USDT"}))
        client.recv()
        stats = operator.get("/stats")
        assert {"avg_batch_size", "batches_sent", "total_messages", "active_connections",
                "pending_batch", "clients_dropped"} <= set(stats)
        assert stats["active_connections"] == 1
        row = operator.get("/clients")["clients"][0]
        assert {"id", "address", "subscriptions", "messages_sent", "bytes_sent", "latency_ms",
                "queue_size", "dropped"} <= set(row)
        assert row["subscriptions"] == 1
        assert "account" not in row
    assert operator.get("/health")["parts"]["feed"]["state"] == "ok"
    for name in ("status", "metrics", "health", "recommendations"):
        operator.get(f"{BASE}/{name}")


# -- the benchmark -----------------------------------------------------------------------------


def test_a_benchmark_runs_beside_the_venue_and_leaves_nothing(
        daemon: Daemon, operator: Operator) -> None:
    before = operator.get("/health")
    begun = operator.post(f"{BASE}/benchmark", {"orders": 20_000, "seconds": 2}, 202)
    assert begun["state"] == "running" and begun["account"] == "ADMIN"
    again, _, text = operator.ask("POST", f"{BASE}/benchmark", {})
    assert again == 409 and b"benchmark_running" in text
    deadline_s = time.monotonic() + 20
    result = begun
    while result["state"] == "running" and time.monotonic() < deadline_s:
        time.sleep(0.05)
        result = operator.get(f"{BASE}/benchmark/results/{begun['id']}")
    assert result["state"] == "done", result
    assert 1_000 <= result["matcher"]["commands"] <= 20_000
    assert result["matcher"]["fills"] > 0 and result["matcher"]["resting"] > 0
    assert result["matcher"]["ns_per_command"] > 0
    assert result["json"]["ns_per_text"] > 0
    assert result["disk"]["fdatasync"]["count"] > 0
    after = operator.get("/health")
    assert after["seq"] == before["seq"]
    assert [path.name for path in daemon.data_dir.iterdir() if "benchmark" in path.name] == []
    assert operator.ask("GET", f"{BASE}/benchmark/results/none")[0] == 404


def test_only_administrators_run_benchmarks(daemon: Daemon) -> None:
    assert Operator(daemon).ask("POST", f"{BASE}/benchmark", {})[0] == 403


@pytest.mark.parametrize("body", [{"orders": 999}, {"seconds": 11}, {"orders": "many"},
                                  {"books": 1}])
def test_a_benchmark_has_bounds(operator: Operator, body: dict[str, Any]) -> None:
    assert operator.ask("POST", f"{BASE}/benchmark", body)[0] == 400


def test_a_benchmark_ends_with_its_time_and_with_the_venue(tmp_path: Path) -> None:
    request = BenchmarkRequest(500_000, 1)
    started_s = time.monotonic()
    figures = Run(request, tmp_path, msgspec.json.decode, lambda: False).matcher()
    assert figures.commands < 500_000 or time.monotonic() - started_s < 1
    with pytest.raises(Stop):
        Run(request, tmp_path, msgspec.json.decode, lambda: True).matcher()
    assert list(tmp_path.iterdir()) == []


def test_the_same_flow_every_time(tmp_path: Path) -> None:
    request = BenchmarkRequest(5_000, 10)
    runs = [Run(request, tmp_path, msgspec.json.decode, lambda: False).matcher()
            for _ in range(2)]
    assert runs[0].commands == 5_000
    assert (runs[0].events, runs[0].fills, runs[0].resting) == (
        runs[1].events, runs[1].fills, runs[1].resting)


def test_a_benchmark_lets_other_threads_run(tmp_path: Path) -> None:
    looks: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            looks.append(1)
            time.sleep(0.001)

    thread = threading.Thread(target=look)
    thread.start()
    Run(BenchmarkRequest(50_000, 5), tmp_path, msgspec.json.decode, lambda: False).matcher()
    done.set()
    thread.join()
    assert len(looks) > 5


# -- encodings ---------------------------------------------------------------------------------


def test_every_encoding_gives_back_what_went_in() -> None:
    for value in samples().values():
        for _, encode, decode in ENCODINGS:
            assert decode(encode(value)) == value


def test_sizes_are_those_of_the_encodings() -> None:
    import lz4.block
    import msgpack
    value = samples()["book of 200 levels"]
    (figures,) = measure({"book": value}, 5)
    sizes = {one.encoding: one.bytes for one in figures.encodings}
    assert sizes["json"] == len(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    packed = msgpack.packb(value)
    assert sizes["msgpack"] == len(packed)
    assert sizes["msgpack-lz4"] == 1 + len(lz4.block.compress(packed))
    assert all(one.rounds == 5 and one.encode_us > 0 for one in figures.encodings)


def test_the_test_takes_payloads_and_is_bounded(operator: Operator) -> None:
    path = f"{BASE}/serialization/test"
    made = operator.post(path, {"payloads": [{"a": 1}, [1, "x"]], "rounds": 3})
    assert [one["payload"] for one in made["payloads"]] == ["payload 1", "payload 2"]
    assert made["compress_above_bytes"] == 512
    assert operator.post(path, {"payloads": [10**30]}, 400)["code"] == "bad_value"
    assert operator.ask("POST", path, {"payloads": [1] * 21})[0] == 400
    assert operator.ask("POST", path, {"rounds": 0})[0] == 400
    started_s = time.monotonic()
    operator.post(path, {"payloads": [list(range(5_000))] * 5, "rounds": 10_000})
    assert time.monotonic() - started_s < 20

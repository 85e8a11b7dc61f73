"""Clock, metrics, errors and log lines."""

import bisect
import json
import math

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from engine import clock, errors, log
from engine.metrics import SIZES, Histogram, Metrics, Spread


def test_the_next_roll_is_later_the_same_day_or_the_day_after():
    day = 20_000 * clock.NS_PER_DAY
    at = clock.next_daily_ns(90 * 60, day)
    assert at == day + 90 * 60 * clock.NS_PER_S
    assert clock.next_daily_ns(90 * 60, at) == at + clock.NS_PER_DAY
    assert clock.next_daily_ns(90 * 60, at - 1) == at
    assert clock.ns_since_midnight(at) == 90 * 60 * clock.NS_PER_S


def test_clocks_run():
    assert clock.monotonic_ns() <= clock.monotonic_ns()
    assert clock.now_ns() > 1_600_000_000 * clock.NS_PER_S
    assert clock.monotonic_s() > 0


def test_metrics_count_and_are_read_by_name():
    metrics = Metrics()
    orders = metrics.counter("orders_in", "orders", "orders that came in")
    orders.add()
    orders.add(2)
    assert metrics.counter("orders_in", "orders", "") is orders
    metrics.gauge("queue", "units", "depth now", lambda: 7)
    level = metrics.gauge("level", "units", "")
    level.set(5)
    assert metrics.snapshot() == {"level": 5, "orders_in": 3, "queue": 7}
    assert [metric.name for metric in metrics] == ["orders_in", "queue", "level"]


def test_a_metric_keeps_its_kind():
    metrics = Metrics()
    metrics.counter("a", "", "")
    metrics.gauge("b", "", "")
    with pytest.raises(TypeError):
        metrics.gauge("a", "", "")
    with pytest.raises(TypeError):
        metrics.counter("b", "", "")


def test_a_metric_may_have_labels_and_be_read_when_somebody_looks():
    metrics = Metrics()
    for queue, depth in (("a", 1), ("b", 2)):
        metrics.gauge("depth", "units", "", lambda depth=depth: depth, {"queue": queue})
    metrics.counter("written", "bytes", "", lambda: 9)
    metrics.table("events", "events", "", "kind", lambda: {"fill": 3}, grows=True)
    assert metrics.snapshot() == {"depth{queue=a}": 1, "depth{queue=b}": 2, "written": 9,
                                  "events{kind=fill}": 3}
    with pytest.raises(TypeError):
        metrics.counter("depth", "units", "", labels={"queue": "c"})


def test_a_histogram_counts_in_buckets_whose_bounds_belong_to_them():
    histogram = Metrics().histogram("size", "orders", "", (10, 100))
    for value in (0, 10, 11, 100, 101, 5_000):
        histogram.observe(value)
    histogram.observe(50, 4)
    assert histogram.counts == [2, 6, 2]
    assert histogram.spread().count == 10
    assert (histogram.total, histogram.last, histogram.most) == (5_422, 50, 5_000)
    assert histogram.spread().mean == 542.2


def test_quantiles_are_exact_to_their_bucket():
    assert Spread((10, 100), (0, 0, 0), 0).quantile(0.5) == 0
    assert Spread((10, 100), (10, 0, 0), 50).quantile(0.5) == 5
    assert Spread((10, 100), (5, 5, 0), 300).quantile(0.5) == 10
    assert Spread((10, 100), (5, 5, 0), 300).quantile(0.9) == 82
    assert Spread((10, 100), (0, 0, 3), 900).quantile(0.1) == 100


@given(st.lists(st.integers(0, 200_000), min_size=1), st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values, part):
    histogram = Histogram("size", "orders", "", bounds=SIZES)
    for value in values:
        histogram.observe(value)
    true = sorted(values)[max(0, math.ceil(part * len(values)) - 1)]
    index = bisect.bisect_left(SIZES, true)
    low = SIZES[index - 1] if 0 < index <= len(SIZES) else 0
    high = SIZES[min(index, len(SIZES) - 1)]
    assert min(low, high) <= histogram.spread().quantile(part) <= high


def test_a_spread_stays_and_gives_what_came_after_it():
    histogram = Metrics().histogram("size", "orders", "", (10, 100))
    histogram.observe(5)
    before = histogram.spread()
    histogram.observe(50, 3)
    since = histogram.spread() - before
    assert (before.count, since.count, since.total, since.mean) == (1, 3, 150, 50.0)


def test_every_error_has_its_exit_code():
    codes = {errors.EngineError: 1, errors.ConfigError: 2, errors.NotComparableError: 3,
             errors.CorruptError: 4, errors.DiskError: 5, errors.ProtocolError: 1}
    for kind, code in codes.items():
        assert kind("x").exit_code == code
    assert str(errors.EngineError("what", "do this")) == "what (do this)"


@pytest.fixture
def lines(capsys):
    yield lambda: capsys.readouterr().err
    structlog.reset_defaults()


def test_json_lines_have_time_level_part_and_fields(lines):
    log.configure("info", "json")
    log.get("door").info("session opened", account="MAKER1")
    log.get("door").debug("unseen")
    line = json.loads(lines())
    assert line["event"] == "session opened"
    assert (line["level"], line["part"], line["account"]) == ("info", "door", "MAKER1")
    assert line["time"].endswith("Z")


def test_console_lines_are_for_people(lines):
    log.configure("debug", "console")
    log.get("door").debug("hello", port=9001)
    text = lines()
    assert "hello" in text
    assert "port=9001" in text


def test_repeated_lines_are_limited_and_the_next_says_how_many_are_missing(lines, monkeypatch):
    now = [0]
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now[0])
    log.configure("info", "json")
    door = log.get("door")
    for _ in range(log.REPEATS_MAX + 5):
        door.warning("login refused", key="10.0.0.1")
    door.warning("login refused", key="10.0.0.2")
    assert len(lines().splitlines()) == log.REPEATS_MAX + 1
    now[0] += log.PERIOD_NS
    door.warning("login refused", key="10.0.0.1")
    last = json.loads(lines().splitlines()[-1])
    assert last["suppressed"] == 5
    assert "key" not in last


def test_errors_are_never_suppressed(lines):
    log.configure("info", "json")
    for _ in range(log.REPEATS_MAX + 5):
        log.get("journal").error("sync failed")
    assert len(lines().splitlines()) == log.REPEATS_MAX + 5


def test_a_scan_cannot_grow_the_memory_of_repeats(lines, monkeypatch):
    monkeypatch.setattr(log, "KEYS_MAX", 10)
    limiter = log.RepeatLimiter()
    for number in range(1000):
        limiter(None, "warning", {"event": "refused", "key": number})
    assert len(limiter._seen) <= 10

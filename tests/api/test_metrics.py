"""What `GET /metrics` says, read by Prometheus's own parser and held to its naming rules."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine import log
from engine.api.metrics import exposition
from engine.metrics import Metrics
from engine.vitals import Vitals
from tests.support.venue import Venue
from tests.support.wire import Wire, enter

KINDS = ("counter", "gauge", "histogram")


def read(text: bytes) -> dict[str, object]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def sample(text: bytes, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text.decode()):
        for one in family.samples:
            if one.name == name and labels.items() <= one.labels.items():
                return one.value
    raise AssertionError(f"no {name} {labels}")


def lint(text: bytes) -> Iterator[str]:
    """What promtool's `check metrics` would complain of, and the bounds of histograms."""
    for family in text_string_to_metric_families(text.decode()):
        name = family.name
        if name.startswith("process_"):
            continue
        if not name.startswith("matchd_"):
            yield f"{name} has not our prefix"
        if not family.documentation:
            yield f"{name} has no help text"
        if family.type not in KINDS:
            yield f"{name} is a {family.type}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name):
            yield f"{name} is no name"
        if family.type != "counter" and name.endswith("_total"):
            yield f"{name} ends like a counter"
        if re.search(r"_(count|sum|bucket)$", name):
            yield f"{name} ends like a part of a histogram"
        if re.search(r"_(ns|us|ms|milliseconds|minutes|kib|kb|mb|kilobytes|percent)(_|$)", name):
            yield f"{name} is not in a base unit"
        for one in family.samples:
            if family.type == "counter" and not one.name.endswith("_total"):
                yield f"{one.name} is a counter without _total"
            if one.value < 0:
                yield f"{one.name} is below zero"
        if family.type == "histogram":
            yield from lint_buckets(family.samples)


def lint_buckets(samples: list) -> Iterator[str]:
    series: dict[tuple, list] = {}
    for one in samples:
        labels = tuple(sorted((k, v) for k, v in one.labels.items() if k != "le"))
        series.setdefault(labels, []).append(one)
    for labels, found in series.items():
        buckets = [(float(one.labels["le"]), one.value) for one in found if "le" in one.labels]
        count = next(one.value for one in found if one.name.endswith("_count"))
        if buckets != sorted(buckets) or len(dict(buckets)) != len(buckets):
            yield f"buckets of {labels} are out of order"
        if [value for _, value in buckets] != sorted(value for _, value in buckets):
            yield f"buckets of {labels} do not add up"
        if buckets[-1] != (float("inf"), count):
            yield f"buckets of {labels} do not end with the count"


async def test_the_text_is_what_prometheus_expects() -> None:
    metrics = Metrics()
    metrics.counter("orders", "orders", "orders that came in").add(3)
    metrics.gauge("memory", "bytes", "what is kept").set(2**40)
    metrics.table("events", "events", "events", "kind", lambda: {"fill": 2, 'a"\\\n': 1}, True)
    time = metrics.histogram("ack", "ns", "until the answer", labels={"door": "tcp"})
    for value in (5_000, 20_000, 1_500_000, 20_000_000_000):
        time.observe(value)
    text = await exposition(metrics)
    assert list(lint(text)) == []
    assert sample(text, "matchd_orders_total") == 3
    assert sample(text, "matchd_memory_bytes") == 2**40
    assert sample(text, "matchd_events_total", kind='a"\\\n') == 1
    assert sample(text, "matchd_ack_seconds_bucket", le="1e-05", door="tcp") == 1
    assert sample(text, "matchd_ack_seconds_bucket", le="2e-05") == 2
    assert sample(text, "matchd_ack_seconds_bucket", le="10") == 3
    assert sample(text, "matchd_ack_seconds_bucket", le="+Inf") == 4
    assert sample(text, "matchd_ack_seconds_sum") == pytest.approx(20.001525)
    assert sample(text, "process_resident_memory_bytes") > 10**6


def test_the_lint_finds_what_it_looks_for() -> None:
    bad = b"""# HELP other X.
# TYPE other gauge
other -1
# TYPE matchd_wait_ms gauge
matchd_wait_ms 1
"""
    assert len(list(lint(bad))) == 4


@pytest.fixture
async def venue(tmp_path: Path) -> Venue:
    log.configure("warning", "json")
    venue = Venue(tmp_path / "venue")
    yield await venue.start()
    await venue.stop()


async def test_every_stage_of_a_running_venue_is_counted(venue: Venue) -> None:
    maker = await Wire.logged_in(venue.port, "MAKER1")
    for number in range(1, 11):
        maker.send(enter(number))
        await maker.message()
    text = await exposition(venue.app.metrics)
    await maker.close()
    assert list(lint(text)) == []
    assert sample(text, "matchd_commands_total") == 10
    assert sample(text, "matchd_matcher_total", kind="accepted") == 10
    assert sample(text, "matchd_commit_seconds_count") >= 10
    assert sample(text, "matchd_match_seconds_count") >= 10
    assert sample(text, "matchd_match_events_sum") >= 10
    # The events of the start-up count too: instruments and accounts become durable like orders.
    seq = sample(text, "matchd_answered_seq")
    assert sample(text, "matchd_order_ack_seconds_count") == seq
    assert 0 < sample(text, "matchd_order_ack_seconds_sum") < 60 * seq
    assert sample(text, "matchd_command_batch_commands_count") == 10
    assert sample(text, "matchd_resting_orders") == 10
    assert sample(text, "matchd_sessions") == 1
    assert sample(text, "matchd_journal_written_bytes_total") >= 64 * seq
    for queue in ("commands", "events", "reports"):
        assert sample(text, "matchd_queue_units", queue=queue) == 0
        assert sample(text, "matchd_queue_units_limit", queue=queue) > 0
        assert sample(text, "matchd_queue_waits_total", queue=queue) == 0


async def test_a_loop_that_stands_still_shows_as_lag() -> None:
    vitals = Vitals(Metrics())
    sampler = asyncio.create_task(vitals.sample_for_ever())
    await asyncio.sleep(0.01)
    await asyncio.to_thread(lambda: None)
    asyncio.get_running_loop().call_soon(stand_still)
    await asyncio.sleep(0.3)
    sampler.cancel()
    assert vitals.lag.most > 50_000_000
    assert vitals.lag.spread().count >= 1


def stand_still() -> None:
    import time
    time.sleep(0.25)


def test_collections_are_timed_while_it_is_asked_for() -> None:
    vitals = Vitals(Metrics())
    gc.collect()
    vitals.start()
    gc.collect()
    vitals.stop()
    gc.collect()
    vitals.stop()
    assert vitals.pauses[2].spread().count == 1
    assert vitals.pauses[2].total > 0

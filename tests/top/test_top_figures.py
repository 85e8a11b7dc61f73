"""What `matchd top` makes of a venue's answers, without a venue."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.metrics import exposition
from engine.clients.top import tables
from engine.clients.top.markets import Market
from engine.clients.top.scrape import Scrape
from engine.clients.top.view import Look, Looks
from engine.metrics import Metrics

TIMES = st.lists(st.integers(0, 30 * 10**9), max_size=60)


def scrape(metrics, started_s=1.0):
    """What `/metrics` says of these, of a process that began then."""
    text = asyncio.run(exposition(metrics)).decode()
    lines = [line for line in text.splitlines() if not line.startswith("process_start_time")]
    return Scrape("\n".join([*lines, f"process_start_time_seconds {started_s}", ""]))


@given(first=TIMES, second=TIMES)
def test_a_scraped_histogram_has_the_quantiles_of_the_venue_s(first, second):
    metrics = Metrics()
    parts = [metrics.histogram("gc_pause", "ns", "pauses", labels={"generation": str(number)})
             for number in range(2)]
    for part, values in zip(parts, (first, second), strict=True):
        for value in values:
            part.observe(value)
    found, whole = scrape(metrics).spread("matchd_gc_pause_seconds"), \
        parts[0].spread() + parts[1].spread()
    assert (found.bounds, found.counts) == (whole.bounds, whole.counts)
    assert [found.quantile(part) for part in (0.5, 0.99)] == [
        whole.quantile(part) for part in (0.5, 0.99)]
    alone = scrape(metrics).spread("matchd_gc_pause_seconds", generation="1")
    assert alone.counts == parts[1].spread().counts


def test_what_is_not_there_counts_as_nothing():
    found = scrape(Metrics())
    assert found.value("matchd_nothing") == 0
    assert found.spread("matchd_nothing_seconds").count == 0
    assert found.by("matchd_nothing", "queue") == {}
    with pytest.raises(ValueError, match=r".*"):
        Scrape("{ not an exposition")


def look(time_s, metrics, started_s=1.0, **health):
    return Look(time_s, scrape(metrics, started_s), {"name": "v", "status": "healthy", **health},
                {})


def test_rates_are_of_the_last_interval_and_times_of_the_window():
    metrics = Metrics()
    commands = metrics.counter("commands", "commands", "commands")
    match = metrics.histogram("match", "ns", "matching")
    looks = Looks()
    commands.add(1_000)
    match.observe(10**9)
    looks.add(look(100.0, metrics))
    for step in range(1, 31):
        commands.add(step)
        match.observe(15_000 if step > 15 else 10**8)
        looks.add(look(100.0 + step, metrics))
    view = looks.view()
    assert view.rates["commands"] == 30
    row = next(row for row in view.times if row.name == "match")
    # The slow half is older than the window.
    assert row.p999_ms < 0.021 and row.per_second == pytest.approx(1)


def test_a_restart_begins_the_rates_anew():
    metrics, again = Metrics(), Metrics()
    metrics.counter("commands", "commands", "commands").add(5_000)
    commands = again.counter("commands", "commands", "commands")
    looks = Looks()
    looks.add(look(1.0, metrics))
    looks.add(look(2.0, again, started_s=2.0))
    assert looks.view().rates["commands"] == 0
    commands.add(7)
    looks.add(look(3.0, again, started_s=2.0))
    assert looks.view().rates["commands"] == 7


def test_stores_say_their_state_and_what_is_wrong():
    metrics = Metrics()
    labels = {"store": "redis"}
    metrics.gauge("store_lag_events", "events", "behind", lambda: 12, labels)
    metrics.gauge("store_breaker", "states", "breaker", lambda: 2, labels)
    looks = Looks()
    looks.add(look(1.0, metrics, status="degraded", reasons=["redis takes nothing now"], parts={
        "redis": {"state": "down", "error": "connection refused"}}))
    row = looks.view().stores[0]
    assert (row.name, row.state, row.lag_events, row.breaker, row.error) == (
        "redis", "down", 12, "open", "connection refused")


@given(st.floats(0, 1e12))
def test_numbers_stay_short(value):
    assert len(tables.short(value)) <= 6
    assert len(tables.took(value / 1e6)) <= 9


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (0.25, "0.25"), (12, "12"), (9_999, "9,999"), (12_345, "12.3k"),
    (1_500_000, "1.50M"), (123_456, "123k")])
def test_numbers_as_they_are_read(value, text):
    assert tables.short(value) == text


@pytest.mark.parametrize(("value_ms", "text"), [
    (0, "-"), (0.0123, "12 us"), (0.9999, "1.0 ms"), (9.94, "9.9 ms"), (12.3, "12 ms"),
    (1_500, "1.50 s")])
def test_times_as_they_are_read(value_ms, text):
    assert tables.took(value_ms) == text


def test_bars_are_as_high_as_the_highest():
    assert tables.spark([0, 1, 2, 4], 10) == "▁▃▅█"
    assert tables.spark([0, 0], 10) == "▁▁"
    assert tables.spark([9, 1, 1], 2) == "██"


def test_a_market_counts_trades_from_its_candles():
    market = Market("AAPL")
    for kind, open_time, trades in (("snapshot", 60, 100), ("update", 60, 103), ("update", 120, 2)):
        market.take({"channel": "candles", "type": kind, "open_time": open_time, "trades": trades})
    # Five trades a moment ago: halved every 5 s, that is 5 ln 2 / 5 a second.
    assert market.row().trades_per_second == pytest.approx(0.693, rel=0.05)
    market.take({"channel": "bbo", "type": "snapshot", "bid": ["1.00", "5"], "ask": None})
    assert (market.row().bid, market.row().ask) == ("1.00", "")

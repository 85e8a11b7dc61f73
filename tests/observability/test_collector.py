"""The garbage collector: small portions under load, everything only at rest, and nothing to find
behind clients that are gone."""

import asyncio
import gc

import pytest

from engine import collector
from engine.clients import FeedClient, HttpClient, OrderEntryClient
from engine.collector import NEVER, PORTIONS, YOUNG, Collector
from engine.metrics import Metrics
from tests.observability.looking import scrape
from tests.support.daemon import Daemon
from tests.support.venue import Venue


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path, sqlite__enabled=True).start()
    yield daemon
    daemon.kill()


async def feed_client(port, reader):
    async with FeedClient("127.0.0.1", port, instruments=()) as client:
        for channel in ("bbo", "trades", "book"):
            await client.subscribe(channel, "*")
        if reader % 2:
            await client.unsubscribe("book", "*")


async def test_clients_that_are_gone_leave_nothing_to_find(daemon):
    scrape(daemon)
    before = scrape(daemon).value("matchd_gc_found_total")
    for number in range(60):
        await feed_client(daemon.feed_port, number)
        async with OrderEntryClient("127.0.0.1", daemon.port, "MAKER1", "demo") as client:
            await client.enter("AAPL", "B", "1", "150.00")
    async with HttpClient(f"http://127.0.0.1:{daemon.api_port}") as client:
        for _ in range(60):
            await client.cancel(await client.submit("BTC-USDT", "buy", "0.01", "50000.00"))
    found = scrape(daemon).value("matchd_gc_found_total") - before
    # A feed client alone was 18 objects and more.
    assert found < 200, found


async def test_under_load_only_young_objects_are_looked_at(daemon):
    scrape(daemon)
    held = [FeedClient("127.0.0.1", daemon.feed_port, instruments=()) for _ in range(40)]
    async with OrderEntryClient("127.0.0.1", daemon.port, "MAKER1", "demo") as client:
        for one in held:
            await one.connect()
            await one.subscribe("book", "*")
            await asyncio.gather(*(client.enter("AAPL", "B", "1", "150.00") for _ in range(50)))
        now = scrape(daemon)
    for one in held:
        await one.close()

    def collections(generation):
        return now.value("matchd_gc_pause_seconds_count", generation=generation)

    assert collections("0") + collections("1") > 0
    assert collections("2") == 0
    # A scrape itself may bring one about.
    assert 0 <= now.value("matchd_gc_waiting") - collections("1") <= 3


async def test_the_settings_are_the_venue_s_while_it_runs_and_as_before_then(tmp_path):
    before = gc.get_threshold()
    venue = await Venue(tmp_path).start()
    assert gc.get_threshold() == (YOUNG, PORTIONS, NEVER)
    await venue.stop()
    assert gc.get_threshold() == before


def test_everything_is_looked_at_when_there_is_something_and_not_too_often(monkeypatch):
    now_s = [1_000.0]
    monkeypatch.setattr(collector.clock, "monotonic_s", lambda: now_s[0])
    kept = Collector(Metrics(), object)
    gc.collect()
    now_s[0] += 1_000
    kept.rest()
    assert kept.whole.value == 0, "nothing to look at"
    for _ in range(collector.GROWN):
        gc.collect(1)
    kept.rest()
    assert kept.whole.value == 1
    for _ in range(collector.GROWN):
        gc.collect(1)
    now_s[0] += collector.EVERY_S / 2
    kept.rest()
    assert kept.whole.value == 1, "a moment ago"
    now_s[0] += collector.EVERY_S
    kept.rest()
    assert kept.whole.value == 2


async def test_it_waits_until_nothing_happens(monkeypatch):
    monkeypatch.setattr(collector, "LOOK_S", 0.001)
    seen, rests = iter(range(10)), []
    kept = Collector(Metrics(), lambda: next(seen, "rest"))
    kept.rest = lambda: rests.append(1)
    task = asyncio.create_task(kept.look_for_ever())
    while not rests:
        await asyncio.sleep(0.001)
    task.cancel()
    assert next(seen, None) is None, "it rested while something happened"

"""All stores together: what is on, the alarm, the end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cython_core.matcher import Matcher
from engine import clock
from engine.api.health import HealthDesk
from engine.api.watch import Watch
from engine.config import Config, PostgresConfig, RedisConfig, SqliteConfig, StoresConfig
from engine.errors import StoreError
from engine.metrics import Metrics
from engine.queues import BatchQueue
from engine.stores.hub import SEGMENTS_ROOM, Stores, enabled
from engine.stores.store import StoreDown, StoreStopped
from tests.stores.fed import FedVenue, until
from tests.stores.file_store import FileStore

NO_MARKET: Any = None


class Door:
    """Nobody connects here."""

    connection_count = 0


class Hub:
    """A venue whose journal feeds a hub with one store of the tests' own."""

    def __init__(self, folder: Path, **journal: Any) -> None:
        self.store = FileStore(folder / "events.txt")
        self.venue = FedVenue(folder / "data", lambda: self.store, **journal)

    async def start(self) -> Hub:
        venue = self.venue
        await venue.start(follow=False)
        # The venue's own follower, which does not run here, needs nothing.
        venue.journal.hold("file", 1 << 62)
        config = msgspec.structs.replace(
            venue.config, sqlite=SqliteConfig(enabled=False), redis=RedisConfig(),
            stores=msgspec.structs.replace(venue.config.stores, drain_ms=200))
        self.metrics = Metrics()
        self.hub = Stores(config, venue.journal, NO_MARKET, self.metrics)
        self.hub.tail = venue.tail
        self.hub.followers["sqlite"] = self.hub.follow(
            "sqlite", lambda: self.store, venue.journal, self.metrics)
        watch = Watch(config, self.metrics, Matcher(), venue.journal, Door(), lambda: 0,
                      [BatchQueue("commands", 100)], lambda: True)
        watch.stores = self.hub
        self.health = HealthDesk(watch)
        return self

    def reasons(self) -> list[str]:
        return self.health.report().reasons

    def part(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(msgspec.json.encode(self.health.report()))
        return found["parts"]["sqlite"] | {"top": found["sqlite"]}

    async def close(self) -> None:
        await self.hub.drain()
        await self.venue.close()


def test_stores_are_on_by_their_addresses() -> None:
    assert enabled(Config()) == ["sqlite"]
    assert enabled(Config(sqlite=SqliteConfig(enabled=False))) == []
    assert enabled(Config(postgres=PostgresConfig(url="postgresql://a"),
                          redis=RedisConfig(url="redis://a"))) == ["sqlite", "postgres", "redis"]


async def test_health_tells_what_a_store_does(tmp_path: Path) -> None:
    both = await Hub(tmp_path).start()
    assert both.part()["top"] == "down"
    # It has not failed: nobody has to look yet.
    assert both.reasons() == []
    both.hub.start()
    both.venue.trade(20)
    await both.venue.committed()
    await until(lambda: both.part()["lag_events"] == 0 and both.part()["top"] == "connected")
    assert both.part()["seq"] == both.venue.last_seq
    assert both.hub.get("sqlite") is both.store
    assert both.hub.get("redis") is None

    def trouble(what: str, work: object) -> None:
        raise StoreDown("db.internal is read-only", public="read-only")

    both.store.trouble = trouble
    both.venue.trade(20)
    await until(lambda: both.reasons() == ["sqlite takes nothing now: read-only"])
    part = both.part()
    assert (part["state"], part["error"]) == ("down", "read-only")
    assert both.hub.rows()["sqlite"]["error"] == "db.internal is read-only"
    assert part["breaker"] in ("open", "half_open")
    assert part["lag_events"] > 0
    assert both.hub.get("sqlite") is None
    both.store.trouble = lambda what, work: None
    await until(lambda: both.reasons() == [] and both.part()["top"] == "connected")
    await both.close()
    assert both.store.events() == both.venue.events()


async def test_an_alarm_before_a_store_s_journal_fills_the_disk(tmp_path: Path) -> None:
    both = await Hub(tmp_path, retain_segments=1).start()

    def trouble(what: str, work: object) -> None:
        raise StoreStopped("not now")

    both.store.trouble = trouble
    room = SEGMENTS_ROOM * both.venue.config.journal.segment_bytes
    free = [room - 1]
    both.hub.free_bytes = lambda: free[0]
    both.hub.start()
    await until(lambda: both.hub.followers["sqlite"].state == "stopped")
    assert both.hub.alarm == ""
    for _ in range(4_000):
        both.venue.trade(10)
        # The child that writes a snapshot takes its time, the more the larger this process is.
        await asyncio.sleep(0.005)
        if both.hub.alarm:
            break
    assert "only because sqlite has not read them" in both.hub.alarm
    assert any("only because sqlite" in reason for reason in both.reasons())
    free[0] = room
    await until(lambda: not both.hub.alarm)
    free[0] = room - 1
    await until(lambda: bool(both.hub.alarm))
    both.store.trouble = lambda what, work: None
    both.hub.look_again("sqlite", rebuild=False)
    await until(lambda: both.hub.followers["sqlite"].lag_events == 0)
    while both.venue.journal.held_segments:
        both.venue.trade(10)
        await asyncio.sleep(0.005)
    await until(lambda: not both.hub.alarm)
    await both.close()


async def test_a_store_that_hangs_is_left_behind_in_time(tmp_path: Path) -> None:
    both = await Hub(tmp_path).start()
    both.hub.start()
    await until(lambda: both.part()["top"] == "connected")
    hang = asyncio.Event()
    both.store.trouble = lambda what, work: hang.wait()
    both.venue.trade(20)
    await both.venue.committed()
    started_s = clock.monotonic_s()
    await both.close()
    assert clock.monotonic_s() - started_s < 5


async def test_a_client_that_is_not_installed_stops_its_store(tmp_path: Path) -> None:
    both = await Hub(tmp_path).start()

    def make() -> FileStore:
        raise StoreStopped("its client can't be loaded: no module", public="no client")

    both.hub.followers["sqlite"] = both.hub.follow("sqlite", make, both.venue.journal,
                                                   Metrics())
    both.hub.start()
    await until(lambda: both.part()["error"] == "stopped: no client")
    await both.close()


async def test_a_store_that_is_off_can_t_be_asked(tmp_path: Path) -> None:
    hub = Stores(Config(sqlite=SqliteConfig(enabled=False), stores=StoresConfig()), None,
                 NO_MARKET, Metrics())
    assert list(hub.sinks) == []
    with pytest.raises(StoreError, match="without the store redis"):
        hub.look_again("redis", rebuild=True)
    hub.start()
    await hub.drain()

"""What the operator's routes look at: the running parts, the last minute, the disk.

The stages don't know who looks at them. `app.py` hands their objects over; here they are seen
through what is read of them and nothing more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine import clock
from engine.api.recent import SAMPLE_S, Recent
from engine.config import Config
from engine.metrics import Counter, Gauge, Metrics


class QueueView(Protocol):
    """A queue between two stages."""

    @property
    def name(self) -> str: ...
    @property
    def limit_units(self) -> int: ...
    @property
    def weight_units(self) -> int: ...
    @property
    def weight_max_units(self) -> int: ...
    @property
    def waits(self) -> int: ...


class MatcherView(Protocol):
    """The matcher."""

    @property
    def next_seq(self) -> int: ...
    @property
    def resting_orders(self) -> int: ...


class JournalView(Protocol):
    """The journal."""

    @property
    def committed_seq(self) -> int: ...
    @property
    def synced_seq(self) -> int: ...


class FeedView(Protocol):
    """The feed, as far as it tells about itself."""

    def stats(self) -> Mapping[str, Any]:
        """What `GET /stats` answers."""

    def clients(self) -> Sequence[Mapping[str, Any]]:
        """A row for each client of `GET /clients`."""


class DoorView(Protocol):
    """Order entry: how many are there."""

    @property
    def connection_count(self) -> int: ...


class FollowerView(Protocol):
    """A store, and how far it is."""

    @property
    def connected(self) -> bool: ...
    @property
    def well(self) -> bool: ...
    @property
    def public(self) -> str:
        """What is wrong, as far as anybody may know."""

    def row(self) -> Mapping[str, Any]:
        """All that is told about it."""


class StoresView(Protocol):
    """All stores."""

    @property
    def followers(self) -> Mapping[str, FollowerView]: ...
    @property
    def alarm(self) -> str: ...


class OrderQueueView(Protocol):
    """Orders from Redis."""

    @property
    def connected(self) -> bool: ...
    @property
    def kind(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def public(self) -> str: ...
    @property
    def in_flight(self) -> int: ...


class Watch:
    """The running venue, as the operator's routes see it."""

    def __init__(self, config: Config, metrics: Metrics, matcher: MatcherView,
                 journal: JournalView, door: DoorView, sessions: Callable[[], int],
                 queues: Sequence[QueueView], serving: Callable[[], bool]) -> None:
        self.config, self.metrics, self.matcher, self.journal = config, metrics, matcher, journal
        self.door, self.sessions, self.queues, self.serving = door, sessions, queues, serving
        # Parts that are made later, or not at all.
        self.udp_door: DoorView | None = None
        self.feed: FeedView | None = None
        self.api: DoorView | None = None
        self.order_queue: OrderQueueView | None = None
        self.stores: StoresView | None = None
        self.recent = Recent(metrics)
        self.started_ns = clock.now_ns()
        self.disk_free_bytes = -1
        # Since when (monotonic) events have waited without one being committed; 0 when none do.
        self._stuck_since_ns = 0
        self._stuck_seq = 0
        if config.journal.sync != "off":
            metrics.gauge("disk_free", "bytes", "room left for the journal",
                          lambda: max(0, self.disk_free_bytes))

    def number(self, key: str) -> int:
        """A counter or gauge by its name; 0 for one that is not there."""
        metric = self.metrics.get(key)
        return metric.value if isinstance(metric, Counter | Gauge) else 0

    @property
    def feed_clients(self) -> int:
        """Connected clients of the feed."""
        return self.number("feed_clients")

    async def sample_for_ever(self) -> None:
        """Look at the venue every second."""
        while True:
            await self.look()
            await asyncio.sleep(SAMPLE_S)

    async def look(self) -> None:
        """Look at the disk, at the last second and at whether the journal gets on."""
        if self.config.journal.sync != "off":
            # A file system that hangs must not hold up the loop.
            self.disk_free_bytes = await asyncio.to_thread(free_bytes, self.config.data_dir)
        self.recent.take()
        committed_seq = self.journal.committed_seq
        if committed_seq >= self.matcher.next_seq - 1:
            self._stuck_since_ns = 0
        elif committed_seq != self._stuck_seq or not self._stuck_since_ns:
            self._stuck_since_ns = clock.monotonic_ns()
        self._stuck_seq = committed_seq

    @property
    def stuck_ns(self) -> int:
        """How long events have waited for the disk without one of them becoming durable."""
        return clock.monotonic_ns() - self._stuck_since_ns if self._stuck_since_ns else 0

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return round((clock.now_ns() - self.started_ns) / clock.NS_PER_S, 3)


def free_bytes(folder: Path) -> int:
    """Room for us on the folder's file system; -1 when it cannot be told."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return -1
    return found.f_bavail * found.f_frsize

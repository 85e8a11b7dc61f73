"""What one store did since the start, and the line in the log that tells of it now and then."""

from __future__ import annotations

from collections.abc import Mapping

from engine import clock, log
from engine.metrics import SIZES, Metrics


class Meters:
    """The counters of one store."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        labels = {"store": name}
        self._log = log.get("stores")
        self.name = name
        self.events = metrics.counter("store_events", "events", "events that a store took in",
                                      labels=labels)
        self.writes = metrics.counter("store_writes", "writes", "writes (transactions) of a store",
                                      labels=labels)
        self.errors = metrics.counter("store_errors", "errors", "tries of a store that failed",
                                      labels=labels)
        self.write = metrics.histogram("store_write", "ns", "the time of one write of a store",
                                       labels=labels)
        self.write_events = metrics.histogram("store_write_events", "events",
                                              "events in one write of a store", SIZES, labels)
        self._said_ns = clock.monotonic_ns()
        self._said = (0, 0, 0)

    def wrote(self, events: int, took_ns: int) -> None:
        """Count one write."""
        self.events.add(events)
        self.writes.add()
        self.write.observe(took_ns)
        self.write_events.observe(events)

    def say(self, lag_events: int, lag_ms: int, facts: Mapping[str, object]) -> None:
        """The line about what was done since the last one."""
        now_ns = clock.monotonic_ns()
        took_s = max(now_ns - self._said_ns, 1) / clock.NS_PER_S
        now = (self.events.value, self.writes.value, self.errors.value)
        events, writes, errors = (new - old for new, old in zip(now, self._said, strict=True))
        self._said_ns, self._said = now_ns, now
        self._log.info("store", key=self.name, store=self.name, events=events,
                       events_per_s=round(events / took_s, 1), writes=writes,
                       writes_per_s=round(writes / took_s, 1),
                       events_per_write=round(events / writes, 1) if writes else 0.0,
                       lag_events=lag_events, lag_ms=lag_ms, errors=errors, **facts)

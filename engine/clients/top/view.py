"""Figures out of looks at a venue: rates between the last two, times over the last seconds."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec

from engine.clients.top.scrape import Scrape
from engine.clock import NS_PER_MS, NS_PER_S
from engine.metrics import Spread

# Quantiles are of so many seconds: enough values to mean something, few enough to be of now.
WINDOW_S = 10.0
LOOKS_MAX = 1_000

# Every stage that has times, on the path of an order; then what is beside it.
STAGES = {
    "command wait": "matchd_command_wait_seconds",
    "match": "matchd_match_seconds",
    "commit": "matchd_commit_seconds",
    "report": "matchd_report_seconds",
    "order ack": "matchd_order_ack_seconds",
    "market": "matchd_market_seconds",
    "feed tick": "matchd_feed_tick_seconds",
    "http": "matchd_http_request_seconds",
    "loop lag": "matchd_loop_lag_seconds",
    "gc pause": "matchd_gc_pause_seconds",
}
# What comes in a second. Kinds of the matcher's table that are orders, refused ones too.
_ORDERS = ("accepted", "rejected", "replaced", "replace_refused")
_COUNTERS = {
    "commands": "matchd_commands_total",
    "http_requests": "matchd_http_requests_total",
    "feed_messages": "matchd_feed_messages_total",
    "feed_bytes": "matchd_feed_sent_bytes_total",
    "journal_bytes": "matchd_journal_written_bytes_total",
}
_BREAKERS = ("closed", "half-open", "open")


class Look(NamedTuple):
    """What the venue said at one moment of our clock."""

    time_s: float
    scrape: Scrape
    health: dict[str, Any]
    feed: dict[str, Any]


class TimeRow(msgspec.Struct, frozen=True):
    """How long something took, over the last seconds; times are 0 where nothing came."""

    name: str
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float


class QueueRow(msgspec.Struct, frozen=True):
    """A queue in 64-byte units; `waits` counts how often a producer found it full."""

    name: str
    units: int
    max_units: int
    limit_units: int
    waits: int


class StoreRow(msgspec.Struct, frozen=True):
    """A store that is on."""

    name: str
    state: str
    lag_events: int
    lag_s: float
    events_per_second: float
    write_p99_ms: float
    breaker: str
    errors: int
    error: str


class Clients(msgspec.Struct, frozen=True):
    """Who is there."""

    sessions: int
    connections: int
    connections_limit: int
    slow_cut: int
    feed: int
    feed_slow: int
    feed_dropped: int
    http: int


class Process(msgspec.Struct, frozen=True):
    """The process; `cpu` in cores."""

    cpu: float
    memory_bytes: int
    loop_lag_max_ms: float
    gc_pause_max_ms: float
    disk_free_bytes: int


class View(msgspec.Struct, frozen=True):
    """A venue in figures."""

    name: str
    version: str
    status: str
    ready: bool
    reasons: list[str]
    uptime_s: float
    seq: int
    resting_orders: int
    rates: dict[str, float]
    times: list[TimeRow]
    queues: list[QueueRow]
    stores: list[StoreRow]
    clients: Clients
    process: Process


class Looks:
    """The last looks at one process of a venue. A restart begins them anew: what only grows began
    at 0 again."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque(maxlen=LOOKS_MAX)

    def __len__(self) -> int:
        return len(self._looks)

    def add(self, look: Look) -> None:
        """Take a look in; what is older than the window is forgotten, but for one."""
        looks = self._looks
        if looks and _process(looks[-1]) != _process(look):
            looks.clear()
        looks.append(look)
        while len(looks) > 2 and looks[1].time_s <= look.time_s - WINDOW_S:
            looks.popleft()

    def view(self) -> View:
        """The figures now. Raises IndexError before the first look."""
        first, new = self._looks[0], self._looks[-1]
        old = self._looks[-2] if len(self._looks) > 1 else new
        scrape, health = new.scrape, new.health
        return View(
            health.get("name", ""), health.get("version", ""), health.get("status", "unknown"),
            bool(health.get("ready")), health.get("reasons", []), health.get("uptime_s", 0.0),
            health.get("seq", 0), int(scrape.value("matchd_resting_orders")), _rates(old, new),
            [_times(name, metric, first, new) for name, metric in STAGES.items()],
            _queues(scrape), _stores(old, new, first), _clients(new), _about(old, new))


def _process(look: Look) -> float:
    return look.scrape.value("process_start_time_seconds")


def _rate(old: Look, new: Look, name: str, **labels: str) -> float:
    """How much a counter grew in a second."""
    took_s = new.time_s - old.time_s
    grown = new.scrape.value(name, **labels) - old.scrape.value(name, **labels)
    return round(max(0.0, grown) / took_s, 3) if took_s > 0 else 0.0


def _rates(old: Look, new: Look) -> dict[str, float]:
    def matched(*kinds: str) -> float:
        return round(sum(_rate(old, new, "matchd_matcher_total", kind=kind) for kind in kinds), 3)

    return {
        "orders": matched(*_ORDERS), "trades": matched("fill"), "rejects": matched("rejected"),
        "commits": _rate(old, new, "matchd_commit_seconds_count"),
        **{name: _rate(old, new, metric) for name, metric in _COUNTERS.items()}}


def _grown(first: Look, new: Look, metric: str, **labels: str) -> Spread:
    """What a histogram counted between two looks."""
    whole = new.scrape.spread(metric, **labels)
    if first is new:
        return whole
    before = first.scrape.spread(metric, **labels)
    # A histogram with new labels (a route that was asked for the first time) has old ones too.
    return whole - before if before.bounds == whole.bounds else whole


def _times(name: str, metric: str, first: Look, new: Look) -> TimeRow:
    spread, took_s = _grown(first, new, metric), new.time_s - first.time_s
    return TimeRow(name, round(spread.count / took_s, 3) if took_s > 0 else 0.0,
                   *(_ms(spread.quantile(part)) for part in (0.5, 0.9, 0.99, 0.999)))


def _queues(scrape: Scrape) -> list[QueueRow]:
    limits = scrape.by("matchd_queue_units_limit", "queue")
    most = scrape.by("matchd_queue_units_max", "queue")
    waits = scrape.by("matchd_queue_waits_total", "queue")
    return [QueueRow(name, int(units), int(most.get(name, 0)), int(limits.get(name, 0)),
                     int(waits.get(name, 0)))
            for name, units in scrape.by("matchd_queue_units", "queue").items()]


def _stores(old: Look, new: Look, first: Look) -> list[StoreRow]:
    scrape, found = new.scrape, []
    for name, lag in scrape.by("matchd_store_lag_events", "store").items():
        told = new.health.get("parts", {}).get(name, {})
        breaker = int(scrape.value("matchd_store_breaker", store=name))
        found.append(StoreRow(
            name, told.get("state", "unknown"), int(lag),
            round(scrape.value("matchd_store_lag_seconds", store=name), 3),
            _rate(old, new, "matchd_store_events_total", store=name),
            _ms(_grown(first, new, "matchd_store_write_seconds", store=name).quantile(0.99)),
            _BREAKERS[breaker] if breaker < len(_BREAKERS) else str(breaker),
            int(scrape.value("matchd_store_errors_total", store=name)), told.get("error", "")))
    return found


def _clients(new: Look) -> Clients:
    def number(name: str) -> int:
        return int(new.scrape.value(name))

    return Clients(
        number("matchd_sessions"), number("matchd_connections"),
        number("matchd_connections_limit"), number("matchd_slow_readers_total"),
        new.feed.get("active_connections", 0), new.feed.get("slow_clients", 0),
        new.feed.get("clients_dropped", 0), number("matchd_http_connections"))


def _about(old: Look, new: Look) -> Process:
    scrape = new.scrape
    return Process(
        _rate(old, new, "process_cpu_seconds_total"),
        int(scrape.value("process_resident_memory_bytes")),
        _ms(scrape.value("matchd_loop_lag_max_seconds") * NS_PER_S),
        _ms(scrape.value("matchd_gc_pause_max_seconds") * NS_PER_S),
        int(scrape.value("matchd_disk_free_bytes")))


def _ms(value_ns: float) -> float:
    return round(value_ns / NS_PER_MS, 4)

"""`/stats`, `/clients`, `/metrics` and `/api/v1/performance/*`: the venue's figures."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import msgspec

from engine import clock
from engine.api.health import Check, HealthDesk
from engine.api.published import CONTENT_TYPE, published_name
from engine.api.recent import RATE_WINDOW_S, SPREAD_WINDOW_S
from engine.api.recommend import Recommendation, recommendations
from engine.api.route import Access, ApiError, Call, Handler, Reply, Route, json_reply
from engine.api.watch import Watch
from engine.metrics import Histogram, Spread

_BASE = "/api/v1/performance"


class FeedStats(msgspec.Struct, frozen=True):
    """The feed in numbers, since the start. `pending_batch` counts the messages that wait for the
    next tick, `avg_batch_size` is messages for each batch that was sent. More figures of the feed
    may stand beside these."""

    avg_batch_size: float
    batches_sent: int
    total_messages: int
    active_connections: int
    pending_batch: int
    clients_dropped: int


class ClientRow(msgspec.Struct, frozen=True):
    """One client of the feed. `latency_ms` is the time of its last ping, 0 before the first
    answer; `queue_size` counts batches it has not read; `dropped` those it was spared. More
    figures may stand beside these."""

    id: int
    address: str
    subscriptions: int
    messages_sent: int
    bytes_sent: int
    latency_ms: float
    queue_size: int
    dropped: int


class FeedClients(msgspec.Struct, frozen=True):
    """Every client of the feed."""

    clients: list[ClientRow]


class Timing(msgspec.Struct, frozen=True):
    """A histogram in figures: milliseconds, exact to a bucket (the buckets stand in `/metrics`)."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float


class Size(msgspec.Struct, frozen=True):
    """A histogram of sizes in figures, exact to a bucket."""

    count: int
    mean: float
    p50: int
    p90: int
    p99: int
    p999: int


class RecentRates(msgspec.Struct, frozen=True):
    """How much happened in a second, over the last seconds."""

    window_s: int
    commands_per_second: float
    trades_per_second: float
    events_per_second: float
    commits_per_second: float
    journal_bytes_per_second: float
    http_requests_per_second: float
    feed_messages_per_second: float
    feed_bytes_per_second: float


class RecentTimes(msgspec.Struct, frozen=True):
    """How long things took in the last minute."""

    window_s: int
    order_ack: Timing
    match: Timing
    commit: Timing
    http_request: Timing
    loop_lag: Timing
    gc_pause: Timing


class QueueStatus(msgspec.Struct, frozen=True):
    """A queue between two stages, in 64-byte units. `waits` counts producers that found it full."""

    name: str
    units: int
    max_units: int
    limit_units: int
    waits: int


class Status(msgspec.Struct, frozen=True):
    """The answer of `/api/v1/performance/status`."""

    time: int
    uptime_s: float
    seq: int
    resting_orders: int
    sessions: int
    connections: int
    feed_clients: int
    rates: RecentRates
    times: RecentTimes
    queues: list[QueueStatus]


class TimeFigures(msgspec.Struct, frozen=True):
    """One histogram of times, since the start and in the last minute."""

    name: str
    labels: dict[str, str]
    since_start: Timing
    last_minute: Timing


class SizeFigures(msgspec.Struct, frozen=True):
    """One histogram of sizes, since the start and in the last minute."""

    name: str
    labels: dict[str, str]
    unit: str
    since_start: Size
    last_minute: Size


class MetricFigures(msgspec.Struct, frozen=True):
    """The answer of `/api/v1/performance/metrics`: the numbers of `/metrics` as JSON. Counters
    and gauges are named as the stages name them; times are nanoseconds there."""

    counters: dict[str, int]
    gauges: dict[str, int]
    rates: dict[str, float]
    times: list[TimeFigures]
    sizes: list[SizeFigures]


class HealthChecks(msgspec.Struct, frozen=True):
    """The answer of `/api/v1/performance/health`: every check with its figure and its limit."""

    status: str
    ready: bool
    checks: list[Check]


class StoreFigures(msgspec.Struct, frozen=True):
    """A store in figures, as `matchd store status` has it. `error` is all that is known of what is
    wrong. More figures of the store may stand beside these."""

    state: str
    seq: int
    lag_events: int
    lag_ms: int
    breaker: str
    failures: int
    batch_size: int
    error: str
    rebuilding: bool


class StoresFigures(msgspec.Struct, frozen=True):
    """Every store that is on, by name; `order_queue_error` is what keeps orders in Redis."""

    seq: int
    stores: dict[str, StoreFigures]
    order_queue_error: str


class Recommendations(msgspec.Struct, frozen=True):
    """The answer of `/api/v1/performance/recommendations`."""

    time: int
    window_s: int
    recommendations: list[Recommendation]


class PerformanceDesk:
    """Answers what operators ask about speed."""

    def __init__(self, watch: Watch, health: HealthDesk) -> None:
        self._watch, self._health = watch, health

    # -- the feed --------------------------------------------------------------------------------

    async def stats(self, call: Call) -> Reply:
        """`GET /stats`."""
        return json_reply(self._feed().stats())

    async def clients(self, call: Call) -> Reply:
        """`GET /clients`. Whose they are is for administrators."""
        rows = self._feed().clients()
        if call.identity.access < Access.ADMIN:
            rows = [{key: value for key, value in row.items() if key != "account"}
                    for row in rows]
        return json_reply({"clients": rows})

    def _feed(self) -> Any:
        if self._watch.feed is None:
            raise ApiError(503, "unavailable", "the feed does not run")
        return self._watch.feed

    # -- figures ---------------------------------------------------------------------------------

    async def metrics(self, call: Call) -> Reply:
        """`GET /metrics`."""
        module = await asyncio.to_thread(importlib.import_module, "engine.api.metrics")
        return Reply(200, await module.exposition(self._watch.metrics), CONTENT_TYPE.encode())

    async def status(self, call: Call) -> Reply:
        """`GET .../status`."""
        watch = self._watch
        queues = [QueueStatus(queue.name, queue.weight_units, queue.weight_max_units,
                              queue.limit_units, queue.waits) for queue in watch.queues]
        return json_reply(Status(
            clock.now_ns(), watch.uptime_s, watch.journal.committed_seq,
            watch.matcher.resting_orders, watch.sessions(), watch.door.connection_count,
            watch.feed_clients, self._rates(), self._times(), queues))

    def _rates(self) -> RecentRates:
        rates = self._watch.recent.rates()

        def of(prefix: str) -> float:
            return round(sum(rate for key, rate in rates.items()
                             if key == prefix or key.startswith(prefix + "{")), 3)

        events = sum(rate for key, rate in rates.items() if key.startswith("matcher{")
                     and key not in _NO_EVENTS)
        commits = self._watch.recent.per_second("commit")
        return RecentRates(RATE_WINDOW_S, of("matcher{kind=commands}"), of("matcher{kind=fill}"),
                     round(events, 3), round(commits, 3), of("journal_written"),
                     of("http_requests"), of("feed_messages"), of("feed_sent"))

    def _times(self) -> RecentTimes:
        recent = self._watch.recent
        return RecentTimes(SPREAD_WINDOW_S, timing(recent.spread("order_ack")),
                     timing(recent.spread("match")), timing(recent.spread("commit")),
                     timing(self._joined("http_request")), timing(recent.spread("loop_lag")),
                     timing(self._joined("gc_pause")))

    def _joined(self, name: str) -> Spread:
        """A histogram's last minute, all its labels together."""
        keys = [metric.key for metric in self._watch.metrics
                if metric.name == name and isinstance(metric, Histogram)]
        spreads = [self._watch.recent.spread(key) for key in keys]
        if not spreads:
            return self._watch.recent.spread(name)
        return sum(spreads[1:], spreads[0])

    async def figures(self, call: Call) -> Reply:
        """`GET .../metrics`."""
        watch = self._watch
        counters = watch.metrics.counts()
        gauges = {key: value for key, value in watch.metrics.snapshot().items()
                  if key not in counters}
        rates = {key: round(rate, 3) for key, rate in watch.recent.rates().items() if rate}
        times, sizes = [], []
        for metric in watch.metrics:
            if not isinstance(metric, Histogram):
                continue
            name, labels = published_name(metric), dict(metric.labels)
            whole, minute = metric.spread(), watch.recent.spread(metric.key)
            if metric.unit == "ns":
                times.append(TimeFigures(name, labels, timing(whole), timing(minute)))
            else:
                sizes.append(SizeFigures(name, labels, metric.unit, _size(whole), _size(minute)))
        return json_reply(MetricFigures(counters, gauges, rates, times, sizes))

    async def health(self, call: Call) -> Reply:
        """`GET .../health`."""
        checks = self._health.checks()
        well = all(check.ok for check in checks)
        return json_reply(HealthChecks("healthy" if well else "degraded", self._watch.serving(),
                                       checks))

    async def stores(self, call: Call) -> Reply:
        """`GET .../stores`: their errors with all that servers say, which is not for everybody."""
        watch = self._watch
        followers = watch.stores.followers if watch.stores is not None else {}
        return json_reply({
            "seq": watch.journal.committed_seq,
            "stores": {name: follower.row() for name, follower in followers.items()},
            "order_queue_error": watch.order_queue.error if watch.order_queue else ""})

    async def recommendations(self, call: Call) -> Reply:
        """`GET .../recommendations`."""
        return json_reply(Recommendations(clock.now_ns(), SPREAD_WINDOW_S,
                                          recommendations(self._watch)))

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            _route("/stats", self.stats, FeedStats, "The feed in numbers", errors=(503,)),
            _route("/clients", self.clients, FeedClients, "The feed's clients, each in numbers",
                   errors=(503,), access=Access.READ),
            _route("/metrics", self.metrics, None, "All metrics, for Prometheus",
                   content_type=CONTENT_TYPE.partition(";")[0]),
            _route(f"{_BASE}/status", self.status, Status,
                   "Rates and times of the last seconds, and the queues"),
            _route(f"{_BASE}/metrics", self.figures, MetricFigures, "All metrics as JSON"),
            _route(f"{_BASE}/health", self.health, HealthChecks,
                   "Every check of the venue's health with its figure"),
            _route(f"{_BASE}/stores", self.stores, StoresFigures,
                   "The stores in figures, with the whole texts of their errors",
                   access=Access.ADMIN),
            _route(f"{_BASE}/recommendations", self.recommendations, Recommendations,
                   "What the figures say about the settings"),
        ]


# Rows of the matcher's table that are no events.
_NO_EVENTS = {f"matcher{{kind={kind}}}" for kind in ("commands", "ignored", "stale")}


def _route(path: str, handler: Handler, answer: type[msgspec.Struct] | None, summary: str,
           errors: tuple[int, ...] = (), access: Access = Access.PUBLIC,
           content_type: str = "application/json") -> Route:
    return Route(method="GET", path=path, handler=handler, answer=answer, summary=summary,
                 errors=errors, access=access, tag="Operations", content_type=content_type)


def timing(spread: Spread) -> Timing:
    """A spread of nanoseconds in figures."""
    return Timing(spread.count, _ms(spread.mean), *(
        _ms(spread.quantile(part)) for part in (0.5, 0.9, 0.99, 0.999)))


def _size(spread: Spread) -> Size:
    return Size(spread.count, round(spread.mean, 3), *(
        spread.quantile(part) for part in (0.5, 0.9, 0.99, 0.999)))


def _ms(value_ns: float) -> float:
    return round(value_ns / clock.NS_PER_MS, 4)

"""The operator's side of the gateway: health, figures, benchmarks, the documentation."""

from __future__ import annotations

from engine.api.benchmark import BenchmarkDesk
from engine.api.health import HealthDesk
from engine.api.performance import PerformanceDesk
from engine.api.route import Route
from engine.api.serialization import SerializationDesk
from engine.api.watch import Watch
from engine.metrics import Counter, Histogram, Metrics

# Upper bounds of a request's time in nanoseconds: fewer than elsewhere, as every route has them.
HTTP_TIMES_NS = (50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
                 50_000_000, 200_000_000, 1_000_000_000, 5_000_000_000)


class HttpMetrics:
    """Counts requests by route and status, and their times by route."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._times: dict[tuple[str, str], Histogram] = {}

    def observe(self, route: Route, status: int, took_ns: int) -> None:
        """A request was answered."""
        key = (route.method, route.path, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._begin(key)
        counter.add()
        self._times[key[:2]].observe(took_ns)

    def _begin(self, key: tuple[str, str, int]) -> Counter:
        method, path, status = key
        labels = {"method": method, "route": path}
        self._times[key[:2]] = self._metrics.histogram(
            "http_request", "ns", "the time a route took for its answer", HTTP_TIMES_NS, labels)
        self._counters[key] = counter = self._metrics.counter(
            "http_requests", "requests", "requests that were answered, by status",
            labels={**labels, "status": str(status)})
        return counter


class Operations:
    """Builds the desks around what they look at."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.health = HealthDesk(watch)
        self.performance = PerformanceDesk(watch, self.health)
        self.benchmark = BenchmarkDesk(watch.config.data_dir)
        self.serialization = SerializationDesk(watch.config.feed)
        self.http = HttpMetrics(watch.metrics)
        self._publish(watch.metrics)

    def _publish(self, metrics: Metrics) -> None:
        """Health as numbers, for alarms that read nothing else."""
        metrics.table("health_check_ok", "checks", "whether a check of the venue's health holds "
                      "(1) or not (0)", "check",
                      lambda: {check.name: int(check.ok) for check in self.health.checks()})
        metrics.gauge("serving", "venues", "1 while orders are taken, 0 while the venue starts or "
                      "stops", lambda: int(self.watch.serving()))

    def routes(self) -> list[Route]:
        """All their routes."""
        return [*self.health.routes(), *self.performance.routes(), *self.benchmark.routes(),
                *self.serialization.routes()]

    def close(self) -> None:
        """The venue stops: end what runs beside it."""
        self.benchmark.close()

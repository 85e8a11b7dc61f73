"""The venue's metrics for OpenTelemetry: OTLP over HTTP, every few seconds. Off without an address.

The numbers are read in the loop, one metric at a turn, so that no order waits for them; they are
encoded and sent in a thread, a few metrics at a time, because a thread that encodes has the
interpreter. Nothing here is imported while it is off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from engine import __version__, clock, log
from engine import metrics as ours
from engine.config import Config
from engine.errors import ConfigError

# Where a receiver takes metrics (OTLP/HTTP).
METRICS_PATH = "/v1/metrics"
# Metrics in one request.
SLICE = 8
# Units as OpenTelemetry writes them; a number of things is {things}.
UNITS = {"ns": "s", "bytes": "By"}
CUMULATIVE = AggregationTemporality.CUMULATIVE

Known = ours.Counter | ours.Gauge | ours.Table | ours.Histogram


class Telemetry:
    """Sends the metrics of a venue to one receiver, from `run` until it is cancelled."""

    def __init__(self, config: Config, metrics: ours.Metrics) -> None:
        """Raises ConfigError for a file of headers that can't be read."""
        settings = config.telemetry
        self._metrics = metrics
        self._interval_s = settings.interval_ms / 1_000
        self._resource = Resource.create({
            "service.name": "matchd", "service.version": __version__,
            "service.instance.id": config.venue.name})
        self._scope = InstrumentationScope("matchd", __version__)
        self._started_ns = clock.now_ns()
        headers = _headers(settings.headers_file)
        self._exporter = OTLPMetricExporter(
            endpoint=_endpoint(settings.otlp_url), timeout=settings.timeout_ms / 1_000,
            headers=headers)
        self._said = _Said([*(headers or {}).values(), *_secrets_of(settings.otlp_url)])
        self._log = log.get("telemetry")
        self.exports = metrics.counter("otlp_exports", "exports", "exports to OpenTelemetry that "
                                       "arrived")
        self.failures = metrics.counter("otlp_failures", "exports", "exports to OpenTelemetry that "
                                        "did not arrive")

    async def run(self) -> None:
        """Export for ever. A receiver that is away costs its exports and nothing else: what only
        grows is told again with the next one."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self.export()
        finally:
            # Ends an export that waits to try again.
            self._exporter.shutdown()

    async def export(self) -> bool:
        """Send everything once; returns whether it arrived."""
        found = []
        now_ns = clock.now_ns()
        for metric in self._metrics:
            converted = self._convert(metric, now_ns)
            # A table may be empty, and a metric without a number is none.
            if converted.data.data_points:
                found.append(converted)
            await asyncio.sleep(0)
        if await _in_thread(lambda: self._send(found)):
            self.exports.add()
            return True
        self.failures.add()
        self._log.warning("OpenTelemetry export failed", key="otlp", reason=self._said.last)
        return False

    def _send(self, metrics: list[Metric]) -> bool:
        """In a thread. A receiver that refuses one part is not bothered with the others."""
        return all(self._exporter.export(data) is MetricExportResult.SUCCESS
                   for data in self._slices(metrics))

    def _slices(self, metrics: list[Metric]) -> Iterator[MetricsData]:
        for begin in range(0, len(metrics), SLICE):
            scope = ScopeMetrics(self._scope, metrics[begin:begin + SLICE], "")
            yield MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _convert(self, metric: Known, now_ns: int) -> Metric:
        """One metric with its numbers as they are now."""
        seconds = metric.unit == "ns"
        data: Sum | Gauge | Histogram
        if isinstance(metric, ours.Histogram):
            data = Histogram([self._spread(metric, now_ns, seconds)], CUMULATIVE)
        else:
            points = [NumberDataPoint(attributes, self._started_ns, now_ns,
                                      value / clock.NS_PER_S if seconds else value)
                      for attributes, value in _values(metric)]
            grows = isinstance(metric, ours.Counter) or (
                isinstance(metric, ours.Table) and metric.grows)
            data = Sum(points, CUMULATIVE, True) if grows else Gauge(points)
        return Metric(f"matchd.{metric.name}", metric.help,
                      UNITS.get(metric.unit, f"{{{metric.unit}}}"), data)

    def _spread(self, metric: ours.Histogram, now_ns: int, seconds: bool) -> HistogramDataPoint:
        spread, scale = metric.spread(), clock.NS_PER_S if seconds else 1
        return HistogramDataPoint(
            dict(metric.labels), self._started_ns, now_ns, spread.count, spread.total / scale,
            spread.counts, [bound / scale for bound in spread.bounds], 0.0, metric.most / scale)


def _endpoint(url: str) -> str:
    """Where to send: an address without a path is a receiver's own, and metrics have their usual
    place there."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path if parts.path.strip("/") else METRICS_PATH).geturl()


def _values(metric: ours.Counter | ours.Gauge | ours.Table,
            ) -> Iterable[tuple[Mapping[str, str], int]]:
    """Each number with its labels."""
    if isinstance(metric, ours.Table):
        return [({metric.label: value}, number) for value, number in metric.read().items()]
    return [(dict(metric.labels), metric.value)]


async def _in_thread(work: Callable[[], bool]) -> bool:
    """Call it in a thread that the process does not wait for at its end: a receiver may hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def finish(arrived: bool) -> None:
        if not done.done():
            done.set_result(arrived)

    def run() -> None:
        try:
            arrived = work()
        except Exception as error:
            logging.getLogger("opentelemetry").warning("%s", error)
            arrived = False
        with contextlib.suppress(RuntimeError):
            # The loop may be closed by now.
            loop.call_soon_threadsafe(finish, arrived)

    threading.Thread(target=run, name="telemetry", daemon=True).start()
    return await done


def _headers(name: str) -> dict[str, str] | None:
    """The lines `name: value` of a file: they may be secrets."""
    if not name:
        return None
    try:
        lines = Path(name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"telemetry.headers_file: {error}") from error
    pairs = (line.partition(":") for line in lines if line.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _secrets_of(url: str) -> list[str]:
    """What of an address is nobody's business: user with password, the password, parameters."""
    parts = urlsplit(url)
    return [text for text in (parts.netloc.rpartition("@")[0], parts.password, parts.query) if text]


class _Said(logging.Handler):
    """What the library logs: kept for our own line, which is limited where it repeats, without
    the secrets that may stand in it."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(logging.WARNING)
        # The longest first: one may stand in another.
        self._secrets = sorted((text for text in secrets if text), key=len, reverse=True)
        self.last = ""
        logger: Any = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [self], False

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        self.last = text

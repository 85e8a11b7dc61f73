"""`GET /metrics`: what the stages count, in the text format of Prometheus.

A metric is called `matchd_`, its name, the base unit where it has one (`_seconds`, `_bytes`) and,
for what only grows, `_total`. Nothing is kept here: every scrape walks over the metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, ProcessCollector
from prometheus_client import Metric as MetricFamily
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from engine import __version__
from engine.clock import NS_PER_S
from engine.metrics import Counter, Gauge, Histogram, Metric, Metrics, Table

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "matchd_"
# Base units stand in the name; names of things (orders, sessions) are not units.
SUFFIXES = {"ns": "_seconds", "bytes": "_bytes"}

Number = Counter | Gauge | Table


def published_name(metric: Metric) -> str:
    """The metric's name as a scrape shows it."""
    suffix = SUFFIXES.get(metric.unit, "")
    name = PREFIX + metric.name
    if not name.endswith(suffix):
        name += suffix
    return f"{name}_total" if grows(metric) else name


def grows(metric: Metric) -> bool:
    """Whether it is a counter for Prometheus."""
    return isinstance(metric, Counter) or (isinstance(metric, Table) and metric.grows)


def label_names(metric: Metric) -> tuple[str, ...]:
    """The names of its labels."""
    if isinstance(metric, Table):
        return (metric.label,)
    return tuple(label for label, _ in metric.labels)


async def exposition(metrics: Metrics) -> bytes:
    """All metrics of the venue, and the usual ones of its process.

    Lets the loop run between two metrics: a scrape takes milliseconds, an order must not wait for
    all of them.
    """
    parts = []
    for family in families(metrics):
        parts.append(generate_latest(_One(family)))
        await asyncio.sleep(0)
    return b"".join(parts)


def families(metrics: Metrics) -> Iterator[MetricFamily]:
    """The metrics as they are now, as Prometheus's library has them: one family for each name."""
    build = InfoMetricFamily(f"{PREFIX}build", "The version that runs.")
    build.add_metric([], {"version": __version__})
    yield build
    groups: dict[str, list[Number | Histogram]] = {}
    for metric in metrics:
        groups.setdefault(published_name(metric), []).append(metric)
    for name, group in groups.items():
        yield _family(name, group)
    yield from ProcessCollector(registry=None).collect()


class _One(Collector):
    """One family, as something to collect from."""

    def __init__(self, family: MetricFamily) -> None:
        self._family = family

    def collect(self) -> Iterable[MetricFamily]:
        return [self._family]


def _family(name: str, group: Sequence[Number | Histogram]) -> MetricFamily:
    first = group[0]
    text, labels = sentence(first.help), label_names(first)
    if isinstance(first, Histogram):
        return _histograms(HistogramMetricFamily(name, text, labels=labels), group)
    family = (CounterMetricFamily if grows(first) else GaugeMetricFamily)(name, text, labels=labels)
    for metric in group:
        if isinstance(metric, Table):
            for value, number in metric.read().items():
                family.add_metric([value], published_value(number, metric.unit))
        elif not isinstance(metric, Histogram):
            family.add_metric([value for _, value in metric.labels],
                              published_value(metric.value, metric.unit))
    return family


def _histograms(family: HistogramMetricFamily,
                group: Sequence[Number | Histogram]) -> HistogramMetricFamily:
    for metric in group:
        if isinstance(metric, Histogram):
            family.add_metric([value for _, value in metric.labels], list(_buckets(metric)),
                              published_value(metric.total, metric.unit))
    return family


def _buckets(metric: Histogram) -> Iterator[tuple[str, float]]:
    seen = 0
    for bound, count in zip(metric.bounds, metric.counts, strict=False):
        seen += count
        yield f"{published_value(bound, metric.unit):g}", seen
    yield "+Inf", seen + metric.counts[-1]


def published_value(value: int, unit: str) -> float:
    """A value in its base unit: nanoseconds become seconds."""
    return value / NS_PER_S if unit == "ns" else value


def sentence(text: str) -> str:
    """A help text as a line of its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")

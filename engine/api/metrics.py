"""`GET /metrics`: what the stages count, in the text format of Prometheus.

Nothing is kept here: every scrape walks over the metrics. The library takes a while to import, so
this file is imported at the first scrape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Metric as MetricFamily
from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from engine import __version__
from engine.api.published import (
    PREFIX,
    grows,
    label_names,
    published_name,
    published_value,
    sentence,
)
from engine.metrics import Counter, Gauge, Histogram, Metrics, Table

Number = Counter | Gauge | Table


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

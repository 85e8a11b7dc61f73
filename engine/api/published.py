"""How metrics are called where they are published.

A metric is called `matchd_`, its name, the base unit where it has one (`_seconds`, `_bytes`) and,
for what only grows, `_total`.
"""

from __future__ import annotations

from engine.clock import NS_PER_S
from engine.metrics import Counter, Metric, Table

# The text format that `GET /metrics` answers with.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "matchd_"
# Base units stand in the name; names of things (orders, sessions) are not units.
SUFFIXES = {"ns": "_seconds", "bytes": "_bytes"}


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


def published_value(value: int, unit: str) -> float:
    """A value in its base unit: nanoseconds become seconds."""
    return value / NS_PER_S if unit == "ns" else value


def sentence(text: str) -> str:
    """A help text as a line of its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")

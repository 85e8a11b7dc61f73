"""What a venue publishes, and what expressions ask for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import promql_parser
from prometheus_client.parser import text_string_to_metric_families

from engine import config
from engine.api.metrics import exposition
from engine.app import App
from engine.journal.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
# Everything that has metrics of its own; nothing is connected to.
EVERYTHING = {"MATCHD_REDIS__URL": "redis://127.0.0.1", "MATCHD_REDIS__ORDER_QUEUE": "orders",
              "MATCHD_POSTGRES__URL": "postgresql://127.0.0.1/none"}
# What the scrape adds, and what `up` has.
SCRAPED = {"instance", "job"}

# Labels of each metric with their values.
Known = dict[str, dict[str, set[str]]]


def published(folder: Path) -> Known:
    """Every metric of a venue that has all its parts."""
    settings = config.load_settings(ROOT / "config" / "matchd.toml", EVERYTHING, folder)
    recovered = Journal.open(settings.config)
    try:
        app = App(settings, recovered)
        app.operations.http.observe(app.gateway.routes[0], 200, 1)
        # As after the first look at the disk.
        app.operations.watch.disk_free_bytes = 1
        return labels_of(asyncio.run(exposition(app.metrics)).decode())
    finally:
        recovered.journal.abandon()


def labels_of(text: str) -> Known:
    """The metrics of an answer of `/metrics`."""
    found: Known = {"up": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Every metric that an expression asks for. Raises ValueError for one that is none."""
    text = re.sub(r"\$__rate_interval", "1m", expression)
    yield from _walk(promql_parser.parse(text))


def _walk(node: object) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        inner = getattr(node, name, None)
        if inner is not None:
            yield from _walk(inner)
    for argument in getattr(node, "args", ()):
        yield from _walk(argument)


def wrong(expression: str, known: Known) -> list[str]:
    """What an expression asks for that no venue has."""
    found = []
    for selector in selectors(expression):
        labels = known.get(selector.name)
        if labels is None:
            found.append(f"there is no metric {selector.name}")
            continue
        for matcher in selector.matchers.matchers:
            values = labels.get(matcher.name)
            if values is None and matcher.name not in SCRAPED:
                found.append(f"{selector.name} has no label {matcher.name}")
            elif values is not None and matcher.op == promql_parser.MatchOp.Equal \
                    and matcher.value not in values:
                found.append(f"{selector.name} has no {matcher.name} {matcher.value!r}")
    return found


@cache
def rules() -> list[dict]:
    """Every alarm of the rules."""
    import yaml

    read = yaml.safe_load((ROOT / "config" / "prometheus" / "matchd.rules.yml").read_text())
    return [rule for group in read["groups"] for rule in group["rules"]]

"""What `GET /metrics` said, to be asked by name and labels."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from engine.clock import NS_PER_S
from engine.metrics import Spread

Rows = list[tuple[dict[str, str], float]]


class Scrape:
    """One answer of `/metrics`. What is not in it counts as 0 or nothing: an older or newer venue
    has other metrics. Raises ValueError for a text that is no exposition."""

    def __init__(self, text: str) -> None:
        self._rows: dict[str, Rows] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._rows.setdefault(sample.name, []).append((sample.labels, sample.value))

    def rows(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """The labels and value of each row that has these labels."""
        wanted = labels.items()
        return ((found, value) for found, value in self._rows.get(name, ())
                if wanted <= found.items())

    def value(self, name: str, **labels: str) -> float:
        """The sum of the rows that have these labels."""
        return math.fsum(value for _, value in self.rows(name, **labels))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Values by one label."""
        found: dict[str, float] = {}
        for labels, value in self.rows(name):
            key = labels.get(label, "")
            found[key] = found.get(key, 0.0) + value
        return found

    def spread(self, name: str, **labels: str) -> Spread:
        """A histogram of times in nanoseconds, `name` without `_bucket`; rows of other labels
        than these added up."""
        upto: dict[float, float] = {}
        for found, value in self.rows(f"{name}_bucket", **labels):
            bound = float(found.get("le", "inf"))
            upto[bound] = upto.get(bound, 0.0) + value
        bounds = sorted(upto)
        counts = [int(upto[bound] - (upto[bounds[place - 1]] if place else 0.0))
                  for place, bound in enumerate(bounds)]
        return Spread(tuple(round(bound * NS_PER_S) for bound in bounds if bound < math.inf)
                      or (0,), counts or (0, 0),
                      round(self.value(f"{name}_sum", **labels) * NS_PER_S))

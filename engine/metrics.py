"""Counters, gauges and histograms of the stages: plain integers with a name and a unit.

A stage makes its metrics once and keeps the objects, so counting is one addition; nothing is
counted per order, only per batch, commit or request. Who publishes them walks over `Metrics`.
Counters only grow; a gauge is set, or asked for when it is read. Times are nanoseconds inside
(unit "ns") and become seconds where they are published.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

Labels = tuple[tuple[str, str], ...]

# Upper bounds of times in nanoseconds: 10 us to 10 s, each decade in three steps.
TIMES_NS = (*(step * 10 ** power for power in range(4, 10) for step in (1, 2, 5)), 10 ** 10)
# Upper bounds of numbers of things in a batch.
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


class Metric:
    """What all of them have: a name, a unit, a help text of one line, fixed labels."""

    __slots__ = ("help", "labels", "name", "unit")

    def __init__(self, name: str, unit: str, help: str, labels: Labels = ()) -> None:
        self.name, self.unit, self.help, self.labels = name, unit, help, labels

    @property
    def key(self) -> str:
        """The name with its labels, as in `queue_units{queue=commands}`."""
        return key_of(self.name, self.labels)


class Counter(Metric):
    """A number that only grows; with `read` it is asked for when somebody looks."""

    __slots__ = ("_read", "_value")

    def __init__(self, name: str, unit: str, help: str, labels: Labels = (),
                 read: Callable[[], int] | None = None) -> None:
        super().__init__(name, unit, help, labels)
        self._read, self._value = read, 0

    def add(self, amount: int = 1) -> None:
        """Count `amount` more. A counter with `read` ignores it."""
        self._value += amount

    @property
    def value(self) -> int:
        """The value now."""
        return self._read() if self._read else self._value


class Gauge(Metric):
    """A number that goes up and down; with `read` it is asked for when somebody looks."""

    __slots__ = ("_read", "_value")

    def __init__(self, name: str, unit: str, help: str, labels: Labels = (),
                 read: Callable[[], int] | None = None) -> None:
        super().__init__(name, unit, help, labels)
        self._read, self._value = read, 0

    def set(self, value: int) -> None:
        """Set the value. A gauge with `read` ignores it."""
        self._value = value

    @property
    def value(self) -> int:
        """The value now."""
        return self._read() if self._read else self._value


class Table(Metric):
    """Numbers that somebody else keeps by name: one metric with one label, read when asked."""

    __slots__ = ("grows", "label", "read")

    def __init__(self, name: str, unit: str, help: str, label: str,
                 read: Callable[[], Mapping[str, int]], grows: bool) -> None:
        super().__init__(name, unit, help)
        self.label, self.read, self.grows = label, read, grows

    def rows(self) -> dict[str, int]:
        """Its numbers now, each under its name with its label."""
        return {key_of(self.name, ((self.label, value),)): number
                for value, number in self.read().items()}


class Spread:
    """How values were spread over buckets: what a histogram held, or what came in between."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...], counts: Sequence[int], total: int) -> None:
        self.bounds, self.counts, self.total = bounds, tuple(counts), total

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Their mean; 0 without any."""
        count = self.count
        return self.total / count if count else 0.0

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.bounds, [one + two for one, two in
                                    zip(self.counts, other.counts, strict=True)],
                      self.total + other.total)

    def __sub__(self, older: Spread) -> Spread:
        return Spread(self.bounds, [new - old for new, old in
                                    zip(self.counts, older.counts, strict=True)],
                      self.total - older.total)

    def quantile(self, part: float) -> int:
        """The value that a `part` (0 to 1) of all values does not exceed; 0 without any.

        Exact to its bucket, straight between the bucket's bounds. Values beyond the last bound
        count as that bound.
        """
        wanted = part * self.count
        seen = 0
        for index, count in enumerate(self.counts):
            if count and seen + count >= wanted:
                if index == len(self.bounds):
                    return self.bounds[-1]
                low = self.bounds[index - 1] if index else 0
                return low + int((self.bounds[index] - low) * max(0.0, wanted - seen) / count)
            seen += count
        return 0


class Histogram(Metric):
    """Counts values in fixed buckets. A value belongs to the first bound that is not below it,
    and beyond the last bound to a bucket of its own."""

    __slots__ = ("bounds", "counts", "last", "most", "total")

    def __init__(self, name: str, unit: str, help: str, labels: Labels = (),
                 bounds: tuple[int, ...] = TIMES_NS) -> None:
        super().__init__(name, unit, help, labels)
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = self.last = self.most = 0

    def observe(self, value: int, times: int = 1) -> None:
        """Count a value, `times` over: a batch's time stands for each order in it."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times
        self.last = value
        if value > self.most:
            self.most = value

    def spread(self) -> Spread:
        """What it holds now; stays as it is while the histogram goes on."""
        return Spread(self.bounds, self.counts, self.total)


Known = TypeVar("Known", Counter, Gauge, Table, Histogram)


def key_of(name: str, labels: Labels) -> str:
    """A metric's name with its labels, as one text."""
    if not labels:
        return name
    return f"{name}{{{','.join(f'{label}={value}' for label, value in labels)}}}"


class Metrics:
    """The metrics of one venue, by name and labels.

    A name keeps its kind: asked for again it gives the same object, as another kind it raises
    TypeError. `labels` are fixed texts (`{"queue": "commands"}`), few and known beforehand.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge | Table | Histogram] = {}
        self._kinds: dict[str, type[Metric]] = {}

    def counter(self, name: str, unit: str, help: str, read: Callable[[], int] | None = None,
                labels: Mapping[str, str] | None = None) -> Counter:
        """The counter of this name and labels, made at the first call."""
        return self.register(Counter(name, unit, help, _fixed(labels), read))

    def gauge(self, name: str, unit: str, help: str, read: Callable[[], int] | None = None,
              labels: Mapping[str, str] | None = None) -> Gauge:
        """The gauge of this name and labels, made at the first call."""
        return self.register(Gauge(name, unit, help, _fixed(labels), read))

    def histogram(self, name: str, unit: str, help: str, bounds: tuple[int, ...] = TIMES_NS,
                  labels: Mapping[str, str] | None = None) -> Histogram:
        """The histogram of this name and labels, made at the first call."""
        return self.register(Histogram(name, unit, help, _fixed(labels), bounds))

    def table(self, name: str, unit: str, help: str, label: str,
              read: Callable[[], Mapping[str, int]], grows: bool = False) -> Table:
        """Numbers that `read` gives by the value of `label`; `grows` makes them counters."""
        return self.register(Table(name, unit, help, label, read, grows))

    def register(self, metric: Known) -> Known:
        """Take in a metric that its owner made; returns the one that is known under its name."""
        kind = type(metric)
        if self._kinds.setdefault(metric.name, kind) is not kind:
            raise TypeError(f"{metric.name} is a {self._kinds[metric.name].__name__.lower()}")
        known = self._metrics.setdefault(metric.key, metric)
        if not isinstance(known, kind):
            raise TypeError(f"{metric.key} is a {type(known).__name__.lower()}")
        return known

    def __iter__(self) -> Iterator[Counter | Gauge | Table | Histogram]:
        return iter(tuple(self._metrics.values()))

    def get(self, key: str) -> Counter | Gauge | Table | Histogram | None:
        """The metric of this name and labels, written as its `key`, if there is one."""
        return self._metrics.get(key)

    def counts(self) -> dict[str, int]:
        """What only grows, by name and labels."""
        found: dict[str, int] = {}
        for key, metric in self._metrics.items():
            if isinstance(metric, Counter):
                found[key] = metric.value
            elif isinstance(metric, Table) and metric.grows:
                found |= metric.rows()
        return found

    def snapshot(self) -> dict[str, int]:
        """Every number's value now, by name and labels; histograms are in `spreads`."""
        found: dict[str, int] = {}
        for key, metric in sorted(self._metrics.items()):
            if isinstance(metric, Counter | Gauge):
                found[key] = metric.value
            elif isinstance(metric, Table):
                found |= metric.rows()
        return found

    def spreads(self) -> dict[str, Spread]:
        """What every histogram holds now, by name and labels."""
        return {key: metric.spread() for key, metric in sorted(self._metrics.items())
                if isinstance(metric, Histogram)}


def _fixed(labels: Mapping[str, str] | None) -> Labels:
    return tuple((labels or {}).items())

"""Counters and gauges of the stages: plain integers with a name and a unit.

A stage makes its metrics once and keeps the objects, so counting is one addition. Who publishes
them reads `snapshot`. Counters only grow; a gauge is set, or asked for when it is read.
"""

from collections.abc import Callable, Iterator


class Counter:
    """A number that only grows."""

    __slots__ = ("help", "name", "unit", "value")

    def __init__(self, name: str, unit: str, help: str) -> None:
        self.name, self.unit, self.help, self.value = name, unit, help, 0

    def add(self, amount: int = 1) -> None:
        """Count `amount` more."""
        self.value += amount


class Gauge:
    """A number that goes up and down; with `read` it is asked for when somebody looks."""

    __slots__ = ("_read", "_value", "help", "name", "unit")

    def __init__(self, name: str, unit: str, help: str,
                 read: Callable[[], int] | None = None) -> None:
        self.name, self.unit, self.help = name, unit, help
        self._read = read
        self._value = 0

    def set(self, value: int) -> None:
        """Set the value. A gauge with `read` ignores it."""
        self._value = value

    @property
    def value(self) -> int:
        """The value now."""
        return self._read() if self._read else self._value


class Metrics:
    """The metrics of one venue, by name. A name exists once and keeps its kind."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge] = {}

    def counter(self, name: str, unit: str, help: str) -> Counter:
        """The counter of this name, made at the first call. Raises TypeError for a gauge."""
        metric = self._metrics.setdefault(name, Counter(name, unit, help))
        if not isinstance(metric, Counter):
            raise TypeError(f"{name} is a gauge")
        return metric

    def gauge(self, name: str, unit: str, help: str,
              read: Callable[[], int] | None = None) -> Gauge:
        """The gauge of this name, made at the first call. Raises TypeError for a counter."""
        metric = self._metrics.setdefault(name, Gauge(name, unit, help, read))
        if not isinstance(metric, Gauge):
            raise TypeError(f"{name} is a counter")
        return metric

    def __iter__(self) -> Iterator[Counter | Gauge]:
        return iter(self._metrics.values())

    def snapshot(self) -> dict[str, int]:
        """Every metric's value now, by name."""
        return {name: metric.value for name, metric in sorted(self._metrics.items())}

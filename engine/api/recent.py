"""What happened lately: rates and spreads of times over the last seconds.

Counters and histograms only grow, so the difference of two looks is what came in between. A look
is taken every second and kept for a minute.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from engine import clock
from engine.metrics import Histogram, Metrics, Spread

SAMPLE_S = 1.0
KEPT = 61
RATE_WINDOW_S = 10
SPREAD_WINDOW_S = 60


class _Look(NamedTuple):
    time_ns: int
    counts: dict[str, int]
    spreads: dict[str, Spread]


class Recent:
    """The last minute of a venue's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._looks: deque[_Look] = deque(maxlen=KEPT)
        self.take()

    def take(self) -> None:
        """Look now; to be called about once in a second."""
        self._looks.append(_Look(clock.monotonic_ns(), self._metrics.counts(),
                                 self._metrics.spreads()))

    def rates(self, window_s: int = RATE_WINDOW_S) -> dict[str, float]:
        """How much every counter grew in a second, by name and labels, over the last looks."""
        old, new = self._before(window_s), self._looks[-1]
        took_s = (new.time_ns - old.time_ns) / clock.NS_PER_S
        if took_s <= 0:
            return dict.fromkeys(new.counts, 0.0)
        return {key: (value - old.counts.get(key, 0)) / took_s
                for key, value in new.counts.items()}

    def grown(self, key: str, window_s: int = SPREAD_WINDOW_S) -> int:
        """How much a counter grew."""
        old, new = self._before(window_s), self._looks[-1]
        return new.counts.get(key, 0) - old.counts.get(key, 0)

    def spread(self, key: str, window_s: int = SPREAD_WINDOW_S) -> Spread:
        """What a histogram counted since then, up to this moment; empty for an unknown one."""
        metric = self._metrics.get(key)
        if not isinstance(metric, Histogram):
            return Spread((0,), (0, 0), 0)
        old = self._before(window_s).spreads.get(key)
        return metric.spread() - old if old else metric.spread()

    def per_second(self, key: str, window_s: int = RATE_WINDOW_S) -> float:
        """How many values a histogram counted in a second, over the last looks."""
        old, new = self._before(window_s), self._looks[-1]
        took_s = (new.time_ns - old.time_ns) / clock.NS_PER_S
        if took_s <= 0 or key not in new.spreads:
            return 0.0
        before = old.spreads[key].count if key in old.spreads else 0
        return (new.spreads[key].count - before) / took_s

    def _before(self, window_s: int) -> _Look:
        """The youngest look that is at least so old, else the oldest."""
        since_ns = self._looks[-1].time_ns - int(window_s * clock.NS_PER_S)
        for look in reversed(self._looks):
            if look.time_ns <= since_ns:
                return look
        return self._looks[0]

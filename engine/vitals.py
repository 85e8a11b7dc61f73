"""How the process itself is doing: how late its loop runs, how long the collector stops it.

One loop does everything, so a callback that takes long makes every order wait; that shows as lag.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from engine import clock
from engine.metrics import Metrics

# Rare enough to cost nothing, often enough to see what stands still for a tenth of a second.
SAMPLE_S = 0.1
# Collections of the youngest generation come by the thousand and are short: one histogram each.
GENERATIONS = 3


class Vitals:
    """Samples the loop's lag and counts the collector's pauses, from `start` to `stop`."""

    def __init__(self, metrics: Metrics) -> None:
        self.started_ns = clock.now_ns()
        self.lag = metrics.histogram(
            "loop_lag", "ns", "how much later than asked for the event loop ran a timer")
        self.pauses = [
            metrics.histogram("gc_pause", "ns", "how long a garbage collection stopped everything",
                              labels={"generation": str(generation)})
            for generation in range(GENERATIONS)]
        metrics.gauge("loop_lag_max", "ns", "the most that a timer of the event loop was late",
                      lambda: self.lag.most)
        metrics.gauge("gc_pause_max", "ns", "the longest garbage collection since the start",
                      lambda: max(pause.most for pause in self.pauses))
        self.found = metrics.counter("gc_found", "objects", "objects that the garbage collector "
                                     "found: they referred to each other, and nobody to them")
        self._collection_ns = 0

    def start(self) -> None:
        """Begin to time the collector. Its callbacks are the process's, so `stop` must follow."""
        gc.callbacks.append(self._collector)

    def stop(self) -> None:
        """Leave the collector alone again."""
        if self._collector in gc.callbacks:
            gc.callbacks.remove(self._collector)

    def _collector(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._collection_ns = clock.monotonic_ns()
        elif self._collection_ns:
            self.pauses[info["generation"]].observe(clock.monotonic_ns() - self._collection_ns)
            self._collection_ns = 0
            self.found.add(info["collected"])

    async def sample_for_ever(self) -> None:
        """Sleep, and see how late it woke up."""
        while True:
            due_ns = clock.monotonic_ns() + int(SAMPLE_S * clock.NS_PER_S)
            await asyncio.sleep(SAMPLE_S)
            self.lag.observe(max(0, clock.monotonic_ns() - due_ns))

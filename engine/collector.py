"""Keeps the pauses of Python's garbage collector short.

Most objects go when nobody refers to them any more; the collector is only for those that refer to
each other, and stops everything while it looks. How long depends on how many objects it looks at:

- what the start made is never looked at again (`gc.freeze`);
- young objects are looked at in small portions, so a pause is a fraction of a millisecond;
- all the others, whose number nobody bounds, are looked at only while the venue is at rest.

That is safe because the doors leave no objects behind that refer to each other: sessions, feed
clients and requests go by themselves. A test counts what the collector finds after them.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from engine import clock
from engine.metrics import Metrics

# So many new objects are looked at in one portion; what survives two portions, once more.
YOUNG = 400
PORTIONS = 1
# The oldest generation is never looked at by itself.
NEVER = 2**31 - 1
# At rest: nothing happened between two looks.
LOOK_S = 1.0
# A look at everything is worth it after so many portions, and not more often than this.
GROWN = 20
EVERY_S = 60.0


class Collector:
    """Sets the collector up, and lets it look at everything when the venue is at rest.

    `activity` tells what the venue has done so far: two equal answers mean that it rests.
    """

    def __init__(self, metrics: Metrics, activity: Callable[[], object]) -> None:
        self._activity = activity
        self._before: tuple[int, int, int] | None = None
        self._last_s = clock.monotonic_s()
        self.whole = metrics.counter(
            "gc_at_rest", "collections", "garbage collections of everything, while the venue was "
            "at rest")
        metrics.gauge("gc_waiting", "collections", "garbage collections of younger objects since "
                      "the last one of everything", lambda: gc.get_count()[2])

    def start(self) -> None:
        """Forget what the start left behind, and begin. The settings are the process's, so `stop`
        must follow."""
        gc.collect()
        gc.freeze()
        self._before = gc.get_threshold()
        gc.set_threshold(YOUNG, PORTIONS, NEVER)

    def stop(self) -> None:
        """Leave the collector as it was."""
        if self._before is not None:
            gc.set_threshold(*self._before)
            gc.unfreeze()
            self._before = None

    async def look_for_ever(self) -> None:
        """Look at everything whenever the venue rests and there is something to look at."""
        seen = self._activity()
        while True:
            await asyncio.sleep(LOOK_S)
            before, seen = seen, self._activity()
            if before == seen:
                self.rest()

    def rest(self) -> None:
        """The venue rests now."""
        now_s = clock.monotonic_s()
        if gc.get_count()[2] >= GROWN and now_s - self._last_s >= EVERY_S:
            gc.collect()
            self.whole.add()
            self._last_s = now_s

"""The wish to stop, and the wish to hurry with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from engine import clock

# What was cut off has so long to notice.
NOTICE_S = 0.5


class Stop:
    """Asked for with `set`; a second `set` means: hurry."""

    def __init__(self) -> None:
        # Set from within a signal's handler, also while the loop can't run a callback.
        self.wanted = False
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()

    def set(self) -> None:
        """Ask, or hurry when it was asked for before."""
        (self._hurried if self._asked.is_set() else self._asked).set()
        self.wanted = True

    def clear(self) -> None:
        """Nobody wants it any more."""
        self.wanted = False
        self._asked.clear()
        self._hurried.clear()

    @property
    def hurried(self) -> bool:
        """Whether it was asked for twice."""
        return self._hurried.is_set()

    async def wait(self) -> None:
        """Wait until it is asked for."""
        await self._asked.wait()

    async def give_time(self, work: Awaitable[Any], until_s: float, hurried_s: float) -> bool:
        """Let `work` run until `until_s` (monotonic), and only `hurried_s` longer when there is a
        hurry; whether it ended. Raises what it raises; what takes longer is cancelled."""
        task = asyncio.ensure_future(work)
        hurry = asyncio.create_task(self._hurried.wait(), name="hurry")
        try:
            await asyncio.wait([task, hurry], timeout=max(until_s - clock.monotonic_s(), 0),
                               return_when=asyncio.FIRST_COMPLETED)
            if hurry.done() and not task.done():
                await asyncio.wait([task], timeout=hurried_s)
        finally:
            hurry.cancel()
        if task.done():
            await task
            return True
        task.cancel()
        await asyncio.wait([task], timeout=NOTICE_S)
        return False

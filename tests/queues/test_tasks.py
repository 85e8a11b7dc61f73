"""Ending tasks: also those that lose a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

from engine.tasks import end_all


async def test_tasks_end_also_when_a_cancellation_is_lost() -> None:
    lost = 0

    async def loses(times: int) -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if times == 0:
                    raise
                times, lost = times - 1, lost + 1

    async def fails() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise ValueError("at the end")

    async def over() -> int:
        return 1

    tasks = [asyncio.create_task(work)
             for work in (loses(0), loses(1), loses(3), fails(), over())]
    await asyncio.sleep(0)
    await end_all(tasks)
    assert lost == 4
    assert all(task.done() for task in tasks)
    assert isinstance(tasks[3].exception(), ValueError)
    assert tasks[4].result() == 1


async def test_nothing_to_end() -> None:
    await end_all([])

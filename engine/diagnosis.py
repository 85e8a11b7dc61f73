"""What a running process is doing right now, for SIGUSR1: its tasks, its threads, where each is.

A task that waits shows the chain of its calls, the innermost first. Nothing is changed by looking.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

ROOT = Path(__file__).parent.parent
# The innermost calls of a chain tell where it waits.
CALLS_MAX = 6


class Queue(Protocol):
    """A queue between two stages."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def limit_units(self) -> int:
        """Its bound."""

    @property
    def weight_units(self) -> int:
        """What waits."""

    @property
    def weight_max_units(self) -> int:
        """The most that ever waited."""

    @property
    def waits(self) -> int:
        """How often a producer found it full."""


def tell_all(tell: Callable[..., None], queues: Iterable[Queue]) -> None:
    """A line for each queue, task and thread."""
    for queue in queues:
        tell("queue", name=queue.name, units=queue.weight_units, units_max=queue.weight_max_units,
             limit=queue.limit_units, waits=queue.waits, key=queue.name)
    for name, calls in sorted(tasks()):
        tell("task", name=name, at=calls, key=name)
    for name, calls in sorted(threads()):
        tell("thread", name=name, at=calls, key=name)


def tasks() -> Iterator[tuple[str, str]]:
    """Name and place of every task of the running loop."""
    current = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not current:
            yield task.get_name(), " < ".join(_chain(task.get_coro())) or "about to run"


def threads() -> Iterator[tuple[str, str]]:
    """Name and place of every thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield names.get(ident, str(ident)), " < ".join(_stack(frame))


def _chain(waiting: Any) -> list[str]:
    """The suspended calls from the innermost to the task's own."""
    calls: list[str] = []
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None) \
            or getattr(waiting, "ag_frame", None)
        if frame is not None:
            calls.append(_place(frame))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None) \
            or getattr(waiting, "ag_await", None)
    return calls[::-1][:CALLS_MAX]


def _stack(frame: FrameType | None) -> list[str]:
    calls: list[str] = []
    while frame is not None and len(calls) < CALLS_MAX:
        calls.append(_place(frame))
        frame = frame.f_back
    return calls


def _place(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-2:])
    return f"{frame.f_code.co_name} ({name}:{frame.f_lineno})"

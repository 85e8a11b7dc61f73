"""Trading: everything that waits at the door goes through the matcher in one go.

The matcher runs ahead of the disk; its output does not. What this stage puts on the journal's
queue is seen by nobody before it is durable.
"""

from __future__ import annotations

from typing import Protocol

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from engine import clock
from engine.latency import Acks
from engine.metrics import SIZES, Metrics
from engine.queues import BatchQueue, TwoLaneQueue
from engine.spare import SparePool

# Commands applied before the loop may look at its sockets again: some 3 ms of matching, and a
# journal block of about 1 MiB.
APPLY_UNITS_MAX = 16_384


class Snapshots(Protocol):
    """The journal, as far as this stage knows it."""

    def maybe_snapshot(self, matcher: Matcher) -> object:
        """Write a snapshot if it is time; called between batches."""


class Trading:
    """Runs the matcher over the command queue."""

    def __init__(self, matcher: Matcher, commands: TwoLaneQueue[CommandBatch],
                 events: BatchQueue[EventBatch], spare: SparePool, snapshots: Snapshots,
                 acks: Acks, metrics: Metrics) -> None:
        self.matcher = matcher
        self._commands = commands
        self._events = events
        self._spare = spare
        self._snapshots = snapshots
        self._acks = acks
        self._wait = metrics.histogram("command_wait", "ns", "how long the oldest command of a "
                                       "matching call had waited for the matcher")
        self._time = metrics.histogram("match", "ns", "matching of all commands that waited")
        self._sizes = metrics.histogram("match_events", "events", "events of one matching call",
                                        SIZES)

    async def run(self) -> None:
        """Match until the command queue is closed and empty, then close the event queue."""
        while batches := await self._commands.get_many(APPLY_UNITS_MAX):
            started_ns = clock.monotonic_ns()
            self._wait.observe(started_ns - self._commands.drained_since_ns)
            events = self.apply(batches)
            self._time.observe(clock.monotonic_ns() - started_ns)
            if len(events):
                self._sizes.observe(events.event_count)
                self._acks.matched(self.matcher.next_seq - 1, events.event_count,
                                   self._commands.drained_since_ns)
                if self._events.full():
                    await self._events.put(events)
                else:
                    self._events.put_nowait(events)
                self._snapshots.maybe_snapshot(self.matcher)
        self._events.close()

    def apply(self, batches: list[CommandBatch]) -> EventBatch:
        """The events of these commands. The clock is read once."""
        events = EventBatch()
        now_ns = clock.now_ns()
        for batch in batches:
            self.matcher.apply(batch, events, now_ns)
            self._spare.give(batch)
        return events

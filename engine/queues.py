"""Bounded queues of batches, the joints of the order's path.

A queue is bounded by the weight of what waits (units, that is orders), never by the number of
batches, so that a thousand tiny batches and one large one are treated alike. Closing the first
queue drains the engine: each consumer empties its queue, then closes the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sized
from typing import Protocol, TypeVar

from engine import clock
from engine.metrics import Histogram

Batch = TypeVar("Batch", bound=Sized)
Given = TypeVar("Given", contravariant=True)


class QueueClosed(Exception):
    """Something was put on a queue after `close`: a mistake of the caller."""


class Sink(Protocol[Given]):
    """What a stage puts its batches on: a queue, as its producer sees it."""

    def full(self) -> bool:
        """Whether a producer has to wait."""

    def put_nowait(self, item: Given, /) -> None:
        """Add a batch; not when full."""

    async def put(self, item: Given, /) -> None:
        """Add a batch, first waiting for room."""

    def close(self) -> None:
        """No more batches."""


class BatchQueue(asyncio.Queue[Batch]):
    """An asyncio.Queue bounded by weight, with one consumer that takes all that waits.

    The weight of a batch is its length in units, at least 1. A queue is full once the waiting
    weight reaches `limit_units`; a batch that is larger than the room left still enters whole, so
    the true bound is `limit_units` plus one batch of each producer.
    """

    def __init__(self, name: str, limit_units: int, taking: Histogram | None = None) -> None:
        """`taking` counts how long the consumer of `hand_to` was at work, by each call."""
        super().__init__()
        self.name = name
        self.limit_units = limit_units
        self._taking = taking
        self.weight_units = 0
        self.weight_max_units = 0
        # How often a producer found it full, and since when (monotonic) the oldest of what was
        # drained last had waited.
        self.waits = 0
        self.drained_since_ns = 0
        # Moments before which not more than so many units had ever been put, the oldest first.
        self._arrivals: deque[tuple[int, int]] = deque()
        self._put_units = 0
        self.closed = False
        self._items: deque[Batch] = deque()
        self._consumer: asyncio.Future[None] | None = None
        self._producers: deque[asyncio.Future[None]] = deque()
        self._room_callbacks: deque[Callable[[], None]] = deque()
        self._taker: Callable[[list[Batch]], None] | None = None

    def qsize(self) -> int:
        """Batches waiting. See `weight_units` for the orders in them."""
        return len(self._items)

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        """Whether a producer has to wait."""
        return self.weight_units >= self.limit_units

    # -- producers ---------------------------------------------------------------------------

    def put_nowait(self, item: Batch) -> None:
        """Add a batch. Raises asyncio.QueueFull, QueueClosed."""
        if self.weight_units >= self.limit_units:
            raise asyncio.QueueFull
        self._add(item)

    async def put(self, item: Batch) -> None:
        """Add a batch, first waiting for room. Raises QueueClosed."""
        while self.weight_units >= self.limit_units:
            self.waits += 1
            waiter = asyncio.get_running_loop().create_future()
            self._producers.append(waiter)
            await waiter
        self._add(item)

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when there is room again: for producers that cannot await.

        Callbacks are called in the order they came, as long as there is room left.
        """
        self.waits += 1
        self._room_callbacks.append(callback)

    def close(self) -> None:
        """No more batches. The consumer gets what waits, then an empty list."""
        self.closed = True
        self._wake_consumer()

    def _add(self, item: Batch) -> None:
        if self.closed:
            raise QueueClosed(self.name)
        if self._taker is not None:
            self._taker([item])
            return
        if self.empty():
            self._begin()
        self._items.append(item)
        weight = len(item) or 1
        self.weight_units += weight
        self._put_units += weight
        if self._consumer is not None:
            self._wake_consumer()

    def _begin(self) -> None:
        """The first batch comes to an empty queue."""
        self._arrivals.clear()
        self._arrivals.append((self._put_units, clock.monotonic_ns()))

    def _note_rest(self) -> None:
        """Some were left behind: what is put from now on is younger than they are."""
        arrivals = self._arrivals
        arrivals.append((self._put_units, clock.monotonic_ns()))
        taken_units = self._put_units - self.weight_units
        while len(arrivals) > 1 and arrivals[1][0] <= taken_units:
            arrivals.popleft()

    # -- the consumer ------------------------------------------------------------------------

    async def get(self) -> Batch:
        """The next batch. Raises QueueClosed when the queue is closed and empty."""
        while self.empty():
            if self.closed:
                raise QueueClosed(self.name)
            await self._wait()
        return self.get_nowait()

    def get_nowait(self) -> Batch:
        """The next batch. Raises asyncio.QueueEmpty."""
        if not self._items:
            raise asyncio.QueueEmpty
        item = self._items.popleft()
        self.weight_units -= len(item) or 1
        self._wake_producers()
        return item

    async def get_many(self, limit_units: int) -> list[Batch]:
        """Wait for a batch, then take what waits up to `limit_units` (at least one batch).

        Returns an empty list only when the queue is closed and empty.
        """
        while self.empty():
            if self.closed:
                return []
            await self._wait()
        return self.drain(limit_units)

    async def hand_to(self, taker: Callable[[list[Batch]], None]) -> None:
        """Call `taker` with every batch the moment it is put, until the queue is closed.

        For a consumer that never waits: it saves the loop a turn for each batch, which is most
        of what a queue costs one order alone. What `taker` raises reaches the producer.
        """
        if self._taking is not None:
            taker = _timed(taker, self._taking)
        if self._items:
            taker(self.drain(self.weight_units))
        self._taker = taker
        while not self.closed:
            await self._wait()

    def drain(self, limit_units: int) -> list[Batch]:
        """Take what waits, up to `limit_units` (at least one batch if there is one)."""
        self.weight_max_units = max(self.weight_max_units, self.weight_units)
        if self._arrivals:
            self.drained_since_ns = self._arrivals[0][1]
        items = self._items
        if self.weight_units <= limit_units:
            taken = list(items)
            items.clear()
            self.weight_units = 0
        else:
            taken = self._take_some(limit_units)
            self._note_rest()
        if self._producers or self._room_callbacks:
            self._wake_producers()
        return taken

    def _take_some(self, limit_units: int) -> list[Batch]:
        taken: list[Batch] = []
        taken_units = 0
        while self._items:
            weight = len(self._items[0]) or 1
            if taken and taken_units + weight > limit_units:
                break
            taken.append(self._items.popleft())
            taken_units += weight
        self.weight_units -= taken_units
        return taken

    async def _wait(self) -> None:
        self._consumer = asyncio.get_running_loop().create_future()
        await self._consumer

    def _wake_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None and not consumer.done():
            consumer.set_result(None)

    def _wake_producers(self) -> None:
        # Those that cannot await come first: their sockets are paused.
        while self._room_callbacks and not self.full():
            self._room_callbacks.popleft()()
        if not self.full():
            while self._producers:
                waiter = self._producers.popleft()
                if not waiter.done():
                    waiter.set_result(None)


def _timed(taker: Callable[[list[Batch]], None],
           times: Histogram) -> Callable[[list[Batch]], None]:
    """The same taker, with its times counted."""
    def take(batches: list[Batch]) -> None:
        started_ns = clock.monotonic_ns()
        taker(batches)
        times.observe(clock.monotonic_ns() - started_ns)

    return take


class TwoLaneQueue(BatchQueue[Batch]):
    """A BatchQueue with a second lane for batches born inside the engine.

    The second lane is drained first and never makes its producer wait: a session roll, a kill
    switch or a disconnect must not stand behind, or be refused because of, a crowd at the door.
    """

    def __init__(self, name: str, limit_units: int) -> None:
        super().__init__(name, limit_units)
        self._inside: deque[Batch] = deque()

    def qsize(self) -> int:
        return len(self._items) + len(self._inside)

    def empty(self) -> bool:
        return not self._items and not self._inside

    def put_inside(self, item: Batch) -> None:
        """Add a batch to the lane that is drained first. Raises QueueClosed."""
        if self.closed:
            raise QueueClosed(self.name)
        if self.empty():
            self._begin()
        self._inside.append(item)
        self._wake_consumer()

    def get_nowait(self) -> Batch:
        return self._inside.popleft() if self._inside else super().get_nowait()

    def drain(self, limit_units: int) -> list[Batch]:
        if not self._inside:
            return super().drain(limit_units)
        inside = list(self._inside)
        self._inside.clear()
        return inside + super().drain(limit_units)

"""The events behind a store's position, in order: first out of the log, then out of the tail.

A store that is far behind, or was away, reads the log in slices, in a thread. Near the end it gets
a place in the tail, reads the log up to that very seq, and takes the tail from there on: no event
is missed and none comes twice. Cut off by the tail, it reads the log again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from cython_core.event import EventBatch
from cython_core.ledger import last_whole_seq
from cython_core.record import events_before, events_from
from engine.errors import JournalError
from engine.stores.beginning import Beginning, KeptLog, beginning_of
from engine.stores.tail import Reader, Tail

# So near its end the log is not left before the tail is reached.
JOIN_EVENTS = 50_000
# One slice of reading has at least so many events, if there are so many.
SLICE_EVENTS = 4_096


class Past(KeptLog, Protocol):
    """The log, as a journal lets a thread read it."""

    def incarnation_at(self, seq: int) -> int:
        """In which incarnation of the log the event was written. Raises NotKeptError."""


class Supply:
    """The events for one store. Belongs to the loop's thread, but for what reads the log."""

    def __init__(self, name: str, past: Past, tail: Tail) -> None:
        self._past, self._tail = past, tail
        self.reader = Reader(tail)
        self._thread = ThreadPoolExecutor(1, f"store-{name}")
        self._pending: deque[EventBatch] = deque()
        self._walk: Iterator[EventBatch] | None = None
        self._walk_to = 0
        # The last event that was read, and the last that was given out.
        self._read_seq = 0
        self.given_seq = 0
        # Up to where the log has to be read once there is a place in the tail.
        self._join_seq = 0

    def start(self, seq: int) -> None:
        """Go on behind `seq`, wherever we were before."""
        self.stop()
        self._read_seq = self.given_seq = seq

    def stop(self) -> None:
        """Hold nothing any more."""
        self.reader.detach()
        self._pending.clear()
        self._walk = None

    def close(self) -> None:
        """Read nothing any more."""
        self.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Events that were committed and not given out yet."""
        return self._tail.last_seq - self.given_seq

    @property
    def live(self) -> bool:
        """Whether what was given out last is the newest: the log has been caught up with."""
        return self.reader.attached and self.given_seq >= self._join_seq

    async def take(self, limit: int) -> list[EventBatch]:
        """The next events, whole commands, about `limit` of them: more only if one command has
        more. Empty when there are none. Raises NotKeptError, JournalError."""
        while sum(batch.event_count for batch in self._pending) < limit:
            found = await self._more(limit)
            if not found:
                break
            self._check(found)
            self._pending.extend(found)
        taken = take_slice(self._pending, limit)
        if taken:
            self.given_seq = last_seq(taken[-1])
        return taken

    async def oldest_seq(self) -> int:
        """The first seq that the log keeps. Raises JournalError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread,
                                                                self._past.oldest_seq)

    async def beginning(self) -> Beginning | None:
        """What was there before the first kept event; None when that is the first of all. Raises
        NotKeptError, JournalError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, beginning_of,
                                                                self._past)

    async def incarnation_at(self, seq: int) -> int:
        """In which incarnation of the log this event was written. Raises NotKeptError,
        JournalError."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._past.incarnation_at, seq)

    def _check(self, batches: list[EventBatch]) -> None:
        for batch in batches:
            if batch.first_seq != self._read_seq + 1:
                raise JournalError(f"event {batch.first_seq} follows on {self._read_seq}")
            self._read_seq = last_seq(batch)

    async def _more(self, limit: int) -> list[EventBatch]:
        if self.reader.attached and self._read_seq >= self._join_seq:
            return self.reader.take(limit)
        end_seq = self._join_seq if self.reader.attached else self._tail.last_seq
        if not self.reader.attached and end_seq - self._read_seq <= JOIN_EVENTS:
            self._join_seq = end_seq = self.reader.attach()
            if self._read_seq >= end_seq:
                return self.reader.take(limit)
        if self._walk is None:
            self._walk, self._walk_to = self._past.events(self._read_seq + 1, end_seq), end_seq
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, read_slice, self._walk,
                                           self._read_seq + 1, self._walk_to,
                                           max(limit, SLICE_EVENTS))
        if not found or last_seq(found[-1]) >= self._walk_to:
            self._walk = None
        return found


def read_slice(walk: Iterator[EventBatch], from_seq: int, to_seq: int,
               events: int) -> list[EventBatch]:
    """At least `events` events off a walk through the log, if there are so many up to `to_seq`."""
    found: list[EventBatch] = []
    for batch in walk:
        # A block has whole commands, and may reach beyond what is committed.
        part = events_before(events_from(batch, from_seq), to_seq + 1)
        found.append(part)
        from_seq += part.event_count
        events -= part.event_count
        if events <= 0 or from_seq > to_seq:
            break
    return found


def last_seq(batch: EventBatch) -> int:
    """The batch's last event."""
    return batch.first_seq + batch.event_count - 1


def count(batches: list[EventBatch]) -> int:
    """How many events."""
    return sum(batch.event_count for batch in batches)


def take_slice(pending: deque[EventBatch], limit: int) -> list[EventBatch]:
    """Take whole commands off the front, `limit` events at most, but one command at least."""
    taken: list[EventBatch] = []
    while pending and limit > 0:
        batch = pending[0]
        if batch.event_count <= limit:
            taken.append(pending.popleft())
            limit -= batch.event_count
            continue
        cut = last_whole_seq(batch, batch.first_seq + limit - 1)
        if cut < batch.first_seq:
            if taken:
                break
            cut = first_command_end(batch)
        taken.append(events_before(batch, cut + 1))
        pending.popleft()
        if cut < last_seq(batch):
            pending.appendleft(events_from(batch, cut + 1))
        break
    return taken


def first_command_end(batch: EventBatch) -> int:
    """The last seq of the first command of a batch of whole commands."""
    short, events = 0, 1
    while last_whole_seq(batch, batch.first_seq + events - 1) < batch.first_seq:
        short, events = events, events * 2
    # So many hold it, and `short` do not: it ends in between.
    while events - short > 1:
        middle = (short + events) // 2
        if last_whole_seq(batch, batch.first_seq + middle - 1) < batch.first_seq:
            short = middle
        else:
            events = middle
    return batch.first_seq + events - 1

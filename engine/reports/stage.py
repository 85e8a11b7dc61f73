"""Reports: what is durable becomes sequenced messages on each owner's connection.

One write for each account and batch; the loop joins writes of one turn into one system call. At a
session roll `Streams` ends every live stream itself, so that nothing of the next generation goes
out on an old connection; this stage then has the sessions closed.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cython_core.event import EventBatch
from cython_core.stream import Streams
from engine.latency import Acks
from engine.queues import BatchQueue


class Owners(Protocol):
    """Who gets the messages: the sessions at the door."""

    def send(self, account_id: int, data: bytes) -> None:
        """Write to the account's live session."""

    def rolled(self, generation: int) -> None:
        """The session rolled."""


class Reports:
    """Routes committed events to the sessions of their owners."""

    def __init__(self, committed: BatchQueue[EventBatch], streams: Streams, owners: Owners,
                 routed_seq: int, acks: Acks) -> None:
        self.routed_seq = routed_seq
        self._committed = committed
        self._streams = streams
        self._owners = owners
        self._acks = acks
        self._generation = streams.generation
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def run(self) -> None:
        """Send until the queue is closed and empty. Sending never waits, so what is committed is
        sent in the same turn of the loop."""
        await self._committed.hand_to(self.take)

    def take(self, batches: list[EventBatch]) -> None:
        """Route batches that follow each other, then write to each account once."""
        streams = self._streams
        for batch in batches:
            streams.route(batch)
        for account_id in streams.touched():
            self._owners.send(account_id, streams.take(account_id))
        if streams.generation != self._generation:
            self._generation = streams.generation
            self._owners.rolled(self._generation)
        self.routed_seq = batches[-1].first_seq + batches[-1].event_count - 1
        self._acks.answered(self.routed_seq)
        if self._waiters:
            self._wake()

    async def reached(self, seq: int) -> None:
        """Wait until the event of this seq is durable and was told to its owners."""
        while self.routed_seq < seq:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((seq, waiter))
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for seq, waiter in waiters:
            if seq > self.routed_seq:
                self._waiters.append((seq, waiter))
            elif not waiter.done():
                waiter.set_result(None)

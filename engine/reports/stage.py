"""Reports: what is durable becomes sequenced messages on each owner's connection.

One write for each account and wake-up, however many batches were committed by then. A session
roll is where streams end: what came before it is sent, then End of Session, then nothing of the
next generation on an old connection.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cython_core.event import EventBatch
from cython_core.stream import Streams
from engine.queues import BatchQueue

# Units encoded before the loop may look at its sockets again.
ROUTE_UNITS_MAX = 32_768


class Owners(Protocol):
    """Who gets the messages: the sessions at the door."""

    def send(self, account_id: int, data: bytes) -> None:
        """Write to the account's live session."""

    def rolled(self, generation: int) -> None:
        """The session rolled."""


class Reports:
    """Routes committed events to the sessions of their owners."""

    def __init__(self, committed: BatchQueue[EventBatch], streams: Streams,
                 owners: Owners) -> None:
        self.routed_seq = 0
        self._committed = committed
        self._streams = streams
        self._owners = owners
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def run(self) -> None:
        """Send until the queue is closed and empty."""
        while batches := await self._committed.get_many(ROUTE_UNITS_MAX):
            for batch in batches:
                self._streams.route(batch)
            self._flush()
            self.routed_seq = batches[-1].first_seq + batches[-1].event_count - 1
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

    def _flush(self) -> None:
        streams, owners = self._streams, self._owners
        for account_id in streams.touched():
            owners.send(account_id, streams.take(account_id))

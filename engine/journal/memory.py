"""journal.sync = "off": no files, for simulations.

Events pass through as they come. The newest ones stay in memory, so that a session that was cut
can be resumed; how far back is bounded by bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cython_core.event import EventBatch
from cython_core.record import events_from
from cython_core.stream import Streams, WireNames, encode_account
from engine.journal.chunks import ChunkIndex
from engine.journal.identity import session_id
from engine.journal.index import ReplayUnavailable
from engine.journal.past import MemoryPast
from engine.journal.segment import UNIT_BYTES
from engine.queues import BatchQueue, Sink

if TYPE_CHECKING:
    from cython_core.matcher import Matcher

# What is kept goes in parts, the oldest first: so many of them are full at once.
PARTS = 16
BATCHES_PER_PART = 4096
# The least room that a batch has, with its Python object.
BATCH_UNITS_MIN = 68


class _Part:
    """Some batches and the index of their messages; a batch's place is its position."""

    def __init__(self, numbers: dict[int, int]) -> None:
        self.index = ChunkIndex()
        for account_id, number in numbers.items():
            self.index.start_at(account_id, number)
        self.batches: list[EventBatch] = []
        self.units = 0

    def add(self, batch: EventBatch) -> None:
        self.index.add(len(self.batches), batch)
        self.batches.append(batch)
        self.units += weight(batch)


def weight(batch: EventBatch) -> int:
    """What a batch takes in memory, in units: a small one has room for more than it holds."""
    return max(len(batch), BATCH_UNITS_MIN)


class MemoryLog:
    """Has the interface of `Journal` and keeps nothing on disk."""

    def __init__(self, memory_max_bytes: int) -> None:
        self.log_id = os.urandom(16)
        self.incarnation = 1
        self.committed_seq = 0
        self.synced_seq = 0
        self._units_max = memory_max_bytes // UNIT_BYTES
        self._units = 0
        self._names = WireNames()
        self._learner = Streams(self._names)
        self._parts: deque[_Part] = deque([_Part({})])
        self.past = MemoryPast(self.batches)

    def session_id(self, generation: int) -> str:
        """The name of a generation's session, 10 characters."""
        return session_id(self.log_id, generation)

    async def run(self, source: BatchQueue[EventBatch],
                  sinks: Sequence[Sink[EventBatch]]) -> None:
        """Hand every batch on, in the turn of the loop in which it comes; ends, and closes the
        sinks, when the source is closed."""
        def take(batches: list[EventBatch]) -> None:
            for batch in batches:
                self._keep(batch)
                for sink in sinks:
                    sink.put_nowait(batch)

        await source.hand_to(take)
        for sink in sinks:
            sink.close()

    def _keep(self, batch: EventBatch) -> None:
        part = self._parts[-1]
        if len(part.batches) >= BATCHES_PER_PART or part.units >= self._units_max // PARTS:
            part = _Part(part.index.next_numbers())
            self._parts.append(part)
        rolls, definitions = part.index.rolls, part.index.definitions
        part.add(batch)
        self._units += weight(batch)
        self.committed_seq = self.synced_seq = batch.first_seq + batch.event_count - 1
        if part.index.definitions != definitions:
            self._learner.route(batch, batch.first_seq)
        if part.index.rolls != rolls:
            self._forget(len(self._parts) - 1)
        while self._units > self._units_max and len(self._parts) > 1:
            self._forget(1)

    def _forget(self, parts: int) -> None:
        for _ in range(parts):
            self._units -= self._parts.popleft().units

    def batches(self) -> list[EventBatch]:
        """What is kept, oldest first. May be called in a thread."""
        return [batch for part in list(self._parts) for batch in list(part.batches)]

    def can_read(self, account_id: int, from_number: int) -> bool:
        """Whether the account's stream is still kept from this number on."""
        if from_number >= self._parts[-1].index.next_number(account_id):
            return True
        return any(part.index.find(account_id, from_number) for part in self._parts)

    def read_stream(self, account_id: int, from_number: int,
                    limit_bytes: int) -> tuple[bytes, int]:
        """Framed `S` packets from message `from_number` on, and the number after them.

        Raises ReplayUnavailable when they are not kept any more.
        """
        if from_number >= self._parts[-1].index.next_number(account_id):
            return b"", from_number
        for part in self._parts:
            found = part.index.find(account_id, from_number)
            if found is not None:
                return self._read(part, account_id, from_number, limit_bytes, found)
        raise ReplayUnavailable(f"message {from_number} of account {account_id} is not kept")

    def _read(self, part: _Part, account_id: int, from_number: int, limit_bytes: int,
              found: tuple[int, int, int]) -> tuple[bytes, int]:
        position, _, number = found
        # The chunk may begin before the present generation: its numbers begin behind the roll.
        while position < len(part.batches):
            batch = part.batches[position]
            if batch.first_seq <= part.index.generation_seq:
                batch = events_from(batch, part.index.generation_seq + 1)
            packets, number, _ = encode_account(
                self._names, batch, batch.first_seq, account_id, number, from_number, limit_bytes)
            if packets:
                return packets, number
            position += 1
        return b"", from_number

    def maybe_snapshot(self, matcher: Matcher) -> bool:
        """There are no snapshots."""
        return False

    def keep_beside(self, maker: Callable[[], bytes]) -> None:
        """There are no snapshots."""

    def kept_beside(self) -> Iterator[bytes]:
        """Nothing was kept."""
        return iter(())

    def snapshot_now(self, matcher: Matcher) -> bool:
        """There are no snapshots."""
        return False

    def close(self, matcher: Matcher, snapshot: bool = True) -> None:
        """There is nothing to keep."""

    def abandon(self) -> None:
        """There is nothing to keep."""

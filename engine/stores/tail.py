"""The newest durable events, kept for the stores that are level with the log.

One sink of the journal for all stores, and one that is never full: what a store left lying too
long is thrown away, and that store reads the log instead. So nothing in an order's path ever
waits for a store; a batch costs it one call, and nothing is kept for stores that are away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cython_core.event import EventBatch

# Small batches are joined up to so many events, larger ones stay as they are: stores pay for
# every batch, and a batch of one order takes the memory of sixty.
CHUNK_EVENTS = 512
NEVER = 2**63


class Tail:
    """What was committed last. `limit_units` bounds what is kept, `last_seq` is where the log
    ends now. Belongs to the loop's thread."""

    name = "stores"

    def __init__(self, limit_units: int, last_seq: int) -> None:
        self.limit_units = limit_units
        self.last_seq = last_seq
        self.weight_units = 0
        self.weight_max_units = 0
        self.waits = 0
        self._readers: list[Reader] = []
        self._chunks: deque[EventBatch] = deque()
        # The absolute number of the oldest chunk, and the newest one while it may still grow.
        self._first = 0
        self._open: EventBatch | None = None
        # The lowest seq that somebody waits for.
        self._wake_seq = NEVER
        self._bells: list[tuple[int, Callable[[], None]]] = []

    # -- the journal's side ------------------------------------------------------------------

    def full(self) -> bool:
        """Never: no producer waits here."""
        return False

    def put_nowait(self, batch: EventBatch, /) -> None:
        """Take a committed batch."""
        if not batch.event_count:
            return
        self.last_seq = batch.first_seq + batch.event_count - 1
        if self._readers:
            self._keep(batch)
        if self.last_seq >= self._wake_seq:
            self._ring()

    async def put(self, batch: EventBatch, /) -> None:
        """The same; it never waits."""
        self.put_nowait(batch)

    def close(self) -> None:
        """Nothing more comes: the venue stops."""

    def _keep(self, batch: EventBatch) -> None:
        chunk = self._open
        if batch.event_count >= CHUNK_EVENTS:
            self._chunks.append(batch)
            self._open = None
        else:
            if chunk is None or chunk.event_count + batch.event_count > CHUNK_EVENTS:
                self._open = chunk = EventBatch()
                chunk.first_seq = batch.first_seq
                self._chunks.append(chunk)
            chunk.extend_bytes(batch)
            chunk.event_count += batch.event_count
        self.weight_units += len(batch)
        if self.weight_units > self.limit_units:
            self._let_go()

    def _let_go(self) -> None:
        """Too much lies here: whoever is farthest behind reads the log instead."""
        while self.weight_units > self.limit_units and len(self._chunks) > 1:
            self._drop_first()
            for reader in [reader for reader in self._readers if reader.next < self._first]:
                reader.cut_off()

    def _drop_first(self) -> None:
        self.weight_max_units = max(self.weight_max_units, self.weight_units)
        self.weight_units -= len(self._chunks.popleft())
        self._first += 1

    # -- the stores' side --------------------------------------------------------------------

    def when(self, seq: int, bell: Callable[[], None]) -> None:
        """Call `bell` once when the log has reached `seq`."""
        if self.last_seq >= seq:
            bell()
            return
        self._bells.append((seq, bell))
        self._wake_seq = min(self._wake_seq, seq)

    def forget(self, bell: Callable[[], None]) -> None:
        """Don't call it any more."""
        self._bells = [entry for entry in self._bells if entry[1] != bell]
        self._wake_seq = min((seq for seq, _ in self._bells), default=NEVER)

    def _ring(self) -> None:
        reached = self.last_seq
        due = [bell for at, bell in self._bells if at <= reached]
        self._bells = [entry for entry in self._bells if entry[0] > reached]
        self._wake_seq = min((at for at, _ in self._bells), default=NEVER)
        for bell in due:
            bell()

    def attach(self, reader: Reader) -> int:
        """Keep everything behind the present end for this reader; returns where that is."""
        self._open = None
        reader.next = self._first + len(self._chunks)
        self._readers.append(reader)
        return self.last_seq

    def detach(self, reader: Reader) -> None:
        """Keep nothing more for this reader."""
        if reader in self._readers:
            self._readers.remove(reader)
            self._trim()

    def take(self, reader: Reader, events: int) -> list[EventBatch]:
        """What follows for this reader, whole chunks, until there are so many events."""
        taken: list[EventBatch] = []
        while events > 0 and reader.next < self._first + len(self._chunks):
            chunk = self._chunks[reader.next - self._first]
            if chunk is self._open:
                # What is handed out never changes.
                self._open = None
            taken.append(chunk)
            events -= chunk.event_count
            reader.next += 1
        self._trim()
        return taken

    def _trim(self) -> None:
        needed = min((reader.next for reader in self._readers),
                     default=self._first + len(self._chunks))
        while self._first < needed:
            self._drop_first()
        if not self._chunks:
            self._open = None


class Reader:
    """One store's place in the tail."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self.next = 0
        self.attached = False
        # How often it was cut off because it left too much lying.
        self.overflows = 0

    def attach(self) -> int:
        """Miss nothing from here on; returns the seq up to which the log has to be read."""
        self.attached = True
        return self._tail.attach(self)

    def detach(self) -> None:
        """Want nothing any more. May be called again."""
        self.attached = False
        self._tail.detach(self)

    def cut_off(self) -> None:
        """The tail lets go of it."""
        self.overflows += 1
        self.detach()

    def take(self, events: int) -> list[EventBatch]:
        """The next chunks, until there are so many events; none without a place."""
        return self._tail.take(self, events) if self.attached else []

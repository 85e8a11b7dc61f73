"""Leases on books: an instrument's book is kept while somebody reads it.

A book starts as a copy of the matcher's, which runs ahead of the disk at some seq M. It shows
nothing before the committed events reach M: what is not durable stays unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from cython_core.depth import Books

# As `depth` of Matcher.levels: more levels than a book can have.
EVERY_LEVEL = 2**31


class Lease:
    """The right to read one instrument's book in `books`. Not before `ready`, not after
    `release`."""

    def __init__(self, books: Books, instrument_id: int, ready_seq: int,
                 reached: Callable[[int], Awaitable[None]], release: Callable[[], None]) -> None:
        self.books = books
        self.instrument_id = instrument_id
        self.ready_seq = ready_seq
        self._reached = reached
        self._release: Callable[[], None] | None = release

    @property
    def ready(self) -> bool:
        """Whether the book may be read."""
        return self.books.applied_seq >= self.ready_seq

    async def wait(self) -> None:
        """Return when the book may be read: as soon as what the matcher had done is durable."""
        await self._reached(self.ready_seq)

    def release(self) -> None:
        """The reader is done. A second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()


class Opens(Protocol):
    """Fills a book from the matcher; returns the seq of the matcher's last event."""

    def __call__(self, instrument_id: int) -> int:
        """Open the book of this instrument."""


class Shelf:
    """Open books of one kind (with or without orders), closed some time after the last lease."""

    def __init__(self, books: Books, opens: Opens, closes: Callable[[int], None], idle_ms: int,
                 reached: Callable[[int], Awaitable[None]]) -> None:
        self.books = books
        self._opens, self._closes = opens, closes
        self._idle_s = idle_ms / 1000
        self._reached = reached
        self._ready_seqs: dict[int, int] = {}
        self._readers: dict[int, int] = {}
        self._closing: dict[int, asyncio.TimerHandle] = {}

    @property
    def open_count(self) -> int:
        """Books that are open."""
        return len(self._ready_seqs)

    def use(self, instrument_id: int) -> Lease:
        """A lease on the instrument's book, which is opened if it is not. Needs a running loop."""
        timer = self._closing.pop(instrument_id, None)
        if timer is not None:
            timer.cancel()
        if instrument_id not in self._ready_seqs:
            self._ready_seqs[instrument_id] = self._opens(instrument_id)
        self._readers[instrument_id] = self._readers.get(instrument_id, 0) + 1
        return Lease(self.books, instrument_id, self._ready_seqs[instrument_id], self._reached,
                     lambda: self._release(instrument_id))

    def _release(self, instrument_id: int) -> None:
        self._readers[instrument_id] -= 1
        if self._readers[instrument_id] == 0:
            del self._readers[instrument_id]
            self._closing[instrument_id] = asyncio.get_running_loop().call_later(
                self._idle_s, self._close, instrument_id)

    def _close(self, instrument_id: int) -> None:
        del self._closing[instrument_id], self._ready_seqs[instrument_id]
        self._closes(instrument_id)

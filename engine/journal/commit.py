"""Puts blocks behind one another, through one segment after the other.

`LogWriter` knows the place of the next block and what it has to chain to, and does the writes. It
decides nothing about when: that is journal.py.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import TYPE_CHECKING, NamedTuple

from cython_core import record
from cython_core.event import EventBatch
from engine.journal.reader import Cursor, log_tag
from engine.journal.segment import PAGE_BYTES, UNIT_BYTES, SpareMaker, segment_name, whole_pages
from engine.journal.storage import File, Storage

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Group(NamedTuple):
    """What one block holds, where it is, and the place behind it."""

    batches: list[EventBatch]
    units: int
    offset: int
    end: Cursor


class LogWriter:
    """The end of the log. `segment_bytes` is the size of segments to come."""

    def __init__(self, storage: Storage, log_id: bytes, cursor: Cursor, time_ns: int,
                 segment_bytes: int, lazy: bool) -> None:
        self._storage, self._log_id, self._tag = storage, log_id, log_tag(log_id)
        self._segment_bytes = segment_bytes
        self._flags = record.LAZY if lazy else 0
        self._time_ns = time_ns
        self.cursor = cursor
        self.synced_seq = cursor.next_seq - 1
        self.file: File = storage.open(segment_name(cursor.segment), write=True)
        self._lazy = lazy
        self._open_for_blocks(self.file)
        self._size = self.file.size()
        self._begun = True
        self._spare = SpareMaker(storage)
        # The file changes hands in a thread, and may be closed at any time.
        self._hands = threading.Lock()
        self._ended = False
        self._writer = storage.writer()
        self._reader_added = False
        self._written: asyncio.Future[None] | None = None

    # -- a block -----------------------------------------------------------------------------

    def fits(self, units: int) -> bool:
        """Whether a block of so many units has room in the open segment."""
        return self.cursor.offset + (units + 1) * UNIT_BYTES <= self._size

    def frame(self, batches: list[EventBatch], flags: int = 0) -> tuple[Group, list[Buffer], int]:
        """The next block: what it is, the pieces to write, and where."""
        cursor = self.cursor
        units = sum(map(len, batches))
        if batches:
            self._time_ns = record.last_time_ns(batches[-1])
        header = record.frame_block(batches, cursor.next_seq, cursor.chain, self.synced_seq,
                                    cursor.incarnation, self._tag, self._time_ns,
                                    flags | self._flags)
        next_seq = cursor.next_seq
        if batches:
            next_seq = batches[-1].first_seq + batches[-1].event_count
        self.cursor = Cursor(cursor.segment, cursor.offset + (units + 1) * UNIT_BYTES, next_seq,
                             record.block_checksum(header), cursor.incarnation)
        group = Group(batches, units, cursor.offset, self.cursor)
        if self._begun:
            return group, [header, *batches], cursor.offset
        self._begun = True
        return group, [self._segment_header(cursor), header, *batches], 0

    def _segment_header(self, cursor: Cursor) -> bytes:
        return record.segment_header(self._log_id, cursor.segment, cursor.next_seq, self._size,
                                     cursor.incarnation, cursor.chain)

    def write_now(self, batches: list[EventBatch], sync: bool, flags: int = 0) -> Group:
        """Write a block, and sync it if asked, in this thread. Raises OSError."""
        group, pieces, offset = self.frame(batches, flags)
        self._writer.write_now(self.file, pieces, offset, sync)
        return group

    def start(self, batches: list[EventBatch], sync: bool) -> Group:
        """Begin to write a block in the writer's thread; then await `written`."""
        loop = asyncio.get_running_loop()
        if not self._reader_added:
            loop.add_reader(self._writer.fileno(), self._on_written)
            self._reader_added = True
        group, pieces, offset = self.frame(batches)
        self._written = loop.create_future()
        self._writer.start(self.file, pieces, offset, sync)
        return group

    @property
    def writing(self) -> bool:
        """Whether a write was started that was not waited for."""
        return self._written is not None

    async def written(self) -> None:
        """Wait for the write that was started. Raises OSError."""
        if self._written is not None:
            await self._written
            self._written = None

    def _on_written(self) -> None:
        waiter = self._written
        try:
            self._writer.finish()
        except OSError as error:
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
            return
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- segments ----------------------------------------------------------------------------

    def prepare_next(self) -> None:
        """Have the segment after the open one made ready in the background."""
        with self._hands:
            if not self._ended:
                self._spare.start(self.cursor.segment + 1, self._segment_bytes)

    async def move_on(self, units: int) -> None:
        """Open the next segment, with room for a block of so many units. Raises OSError.

        Everything in the segment before must be synced.
        """
        await asyncio.get_running_loop().run_in_executor(None, self.move_on_now, units)
        self.prepare_next()

    def move_on_now(self, units: int) -> None:
        """The same at once, in this thread; the next spare is not begun."""
        with self._hands:
            if self._ended:
                raise OSError(errno.ECANCELED, "the log was closed")
            number = self.cursor.segment + 1
            size = max(self._segment_bytes, whole_pages((units + 2) * UNIT_BYTES))
            file = self._spare.take(number, size)
            self._open_for_blocks(file)
            self.file.close()
            self.file, self._size, self._begun = file, file.size(), False
            self.cursor = self.cursor._replace(segment=number, offset=UNIT_BYTES)

    def _open_for_blocks(self, file: File) -> None:
        # What is acknowledged from the page cache has to go through it.
        if not self._lazy and file.size() % PAGE_BYTES == 0:
            file.bypass_cache()

    def close(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Stop the threads and close the file. Writes nothing."""
        if loop is not None and self._reader_added:
            loop.remove_reader(self._writer.fileno())
        with self._hands:
            self._ended = True
            self._spare.wait()
            self._writer.close()
            self.file.close()

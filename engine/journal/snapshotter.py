"""Takes snapshots while the venue runs: forks, waits for the child, renames, keeps some."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable

from engine import clock
from engine.journal import beside
from engine.journal.index import StreamIndex
from engine.journal.reader import Cursor
from engine.journal.snapshot import (
    FOLDER,
    Saves,
    fork_snapshot,
    remove_old,
    snapshot_name,
    write_snapshot,
)
from engine.journal.storage import Storage


class Snapshotter:
    """At most one snapshot is under way. `note` gets a line when one fails, `written` is called
    when the child has written one.

    A failed snapshot stops nothing: the log is the truth, and the next one is tried as usual.
    """

    def __init__(self, storage: Storage, log_id: bytes, keep: int, newest_seq: int,
                 note: Callable[[str], None], written: Callable[[], None]) -> None:
        self._storage, self._log_id, self._keep = storage, log_id, keep
        self._note, self._on_written = note, written
        # Makes what is kept beside each snapshot; None for nothing.
        self.maker: beside.Maker | None = None
        # The newest snapshot that was begun, and the newest that is in place.
        self.begun_seq = newest_seq
        self.newest_seq = newest_seq
        self.pause_ns = 0
        self.count = 0
        self._child = 0
        self._written_seq = 0
        # A snapshot is put in place by a thread, and may meet the shutdown's.
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written, or waits for the log to be synced through it."""
        return bool(self._child or self._written_seq)

    @property
    def writing(self) -> bool:
        """Whether a child is at work."""
        return bool(self._child)

    @property
    def written_seq(self) -> int:
        """Seq of the snapshot that waits for the log; 0 when none does."""
        return self._written_seq

    def begin(self, matcher: Saves, index: StreamIndex, cursor: Cursor) -> None:
        """Write the state as it is now to a file, in a child where the storage allows it."""
        seq = matcher.next_seq - 1
        self.begun_seq = seq
        started_ns = clock.monotonic_ns()
        try:
            if self._storage.forks:
                self._child = fork_snapshot(self._storage, _unfinished(seq), matcher, index,
                                            cursor, self._log_id, self.maker)
            else:
                self._write(seq, matcher, index, cursor)
                self._written_seq = seq
        except OSError as error:
            self._note(f"snapshot {seq} failed: {error.strerror}")
        self.pause_ns = clock.monotonic_ns() - started_ns
        if self._child:
            self._watch()

    def _write(self, seq: int, matcher: Saves, index: StreamIndex, cursor: Cursor) -> None:
        write_snapshot(self._storage, _unfinished(seq), matcher, index, cursor, self._log_id)
        if self.maker is not None:
            beside.write(self._storage, seq, self._log_id, cursor.incarnation, self.maker())

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(self._child)

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._reap()

        loop.add_reader(descriptor, ended)

    def _reap(self) -> None:
        if not self._child:
            return
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        if os.waitstatus_to_exitcode(status) == 0:
            self._written_seq = self.begun_seq
            self._on_written()
        else:
            self._note(f"snapshot {self.begun_seq} failed: its writer ended with "
                       f"{os.waitstatus_to_exitcode(status)}")

    def put_in_place(self) -> None:
        """Rename the written snapshot, if one waits; the log must be synced through it. Raises
        OSError."""
        with self._lock:
            try:
                if self._written_seq:
                    self._place(self._written_seq)
            finally:
                # Only now may the next one begin: what is cleared away must not be its file. One
                # that can't be put in place is given up.
                self._written_seq = 0

    def _place(self, seq: int) -> None:
        self._storage.rename(_unfinished(seq), snapshot_name(seq))
        beside.place(self._storage, seq)
        self._storage.sync_folder(FOLDER)
        self.newest_seq = seq
        self.count += 1
        remove_old(self._storage, self._keep)

    def write_last(self, matcher: Saves, index: StreamIndex, cursor: Cursor) -> None:
        """The snapshot of a shutdown: in this process, in place at once. Raises OSError."""
        self.stop()
        with self._lock:
            self.begun_seq = matcher.next_seq - 1
            self._write(self.begun_seq, matcher, index, cursor)
            self._place(self.begun_seq)

    def stop(self) -> None:
        """End the child that is under way; its snapshot is not made."""
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = 0
        with self._lock:
            self._written_seq = 0


def _unfinished(seq: int) -> str:
    return f"{FOLDER}/{seq}.tmp"

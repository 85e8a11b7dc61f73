"""The seam between the journal and the disk.

Everything the journal does to files goes through a `Storage`, so that the tests can put one in its
place that loses what was not synced, fills up or fails. Names are relative to the data directory
and use `/`. Every method may raise OSError; the journal decides what that means.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from engine.errors import JournalError
from engine.journal.writer import NativeFiller, NativeWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Linux takes at most this many pieces in one pwritev (IOV_MAX).
PIECES_MAX = 1024
COPY_BYTES = 1 << 20
FILL_BYTES = 1 << 16


class File(Protocol):
    """One open file."""

    name: str

    def pwritev(self, pieces: Sequence[Buffer], offset: int) -> None:
        """Write all the pieces, one after the other, from `offset` on."""

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""

    def fdatasync(self) -> None:
        """Return when what was written is on disk."""

    def size(self) -> int:
        """Bytes in the file."""

    def reserve(self, size: int) -> None:
        """Make the file `size` bytes long with the blocks of the disk behind it; reads as zero."""

    def truncate(self, size: int) -> None:
        """Cut the file, or lengthen it by a hole of zeros."""

    def bypass_cache(self) -> None:
        """From now on let a `Writer` put what it syncs past the page cache, where that is possible.

        For files that are whole pages long and written from front to back: what stands behind a
        write, up to the end of its page, becomes zero.
        """

    def close(self) -> None:
        """Give the file back. Nothing is synced by this."""


class Writer(Protocol):
    """Writes and syncs off the loop, one write at a time."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when the write that was started is over."""

    def start(self, file: File, pieces: list[Buffer], offset: int, sync: bool) -> None:
        """Write the pieces at `offset`, then sync if asked, elsewhere. They must not change."""

    def finish(self) -> None:
        """Take the result of the write that was started. Raises OSError."""

    def write_now(self, file: File, pieces: list[Buffer], offset: int, sync: bool) -> None:
        """The same at once. Raises OSError."""

    def close(self) -> None:
        """End, after the write that is under way."""


class Filler(Protocol):
    """Fills a file with zeros, in a thread of the caller's."""

    def fill(self, file: File, offset: int, size: int) -> None:
        """Write and sync zeros from `offset` up to `size`, or until `hurry`. Raises OSError."""

    def hurry(self) -> None:
        """End the filling that is under way, and every later one."""


class Storage(Protocol):
    """A directory of files. `forks`: a forked child can write them too."""

    forks: bool

    def writer(self) -> Writer:
        """A writer for files of this storage."""

    def filler(self) -> Filler:
        """A filler for files of this storage."""

    def open(self, name: str, *, write: bool = False, create: bool = False) -> File:
        """Open a file. `create` makes a new one and refuses one that exists."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def list(self, folder: str) -> list[str]:
        """Names (without the folder) of the files in it, sorted; empty when it is missing."""

    def make_folder(self, folder: str) -> None:
        """Make the folder and its parents, durably; nothing happens when it is there."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, in place of what had that name."""

    def unlink(self, name: str) -> None:
        """Remove a file."""

    def sync_folder(self, folder: str) -> None:
        """Make the folder's names durable."""

    def lock(self) -> None:
        """Keep a second writer out until `unlock`. Raises JournalError when there is one."""

    def unlock(self) -> None:
        """Let others write."""


class DiskFile:
    """A real file. `direct` is a second descriptor past the page cache, or -1."""

    _serials = itertools.count(1)

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self.direct = -1
        self.serial = next(self._serials)

    def pwritev(self, pieces: Sequence[Buffer], offset: int) -> None:
        views = [memoryview(piece).cast("B") for piece in pieces]
        while views:
            written = os.pwritev(self.descriptor, views[:PIECES_MAX], offset)
            offset += written
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if views and written:
                views[0] = views[0][written:]

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self.descriptor, size, offset)
        if not data or len(data) == size:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(self.descriptor, size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def fdatasync(self) -> None:
        os.fdatasync(self.descriptor)

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def reserve(self, size: int) -> None:
        os.posix_fallocate(self.descriptor, 0, size)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.descriptor, size)

    def bypass_cache(self) -> None:
        if self.direct < 0:
            # Some file systems (tmpfs) don't have it; then everything goes through the cache.
            with contextlib.suppress(OSError):
                self.direct = os.open(f"/proc/self/fd/{self.descriptor}",
                                      os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)

    def close(self) -> None:
        for descriptor in (self.descriptor, self.direct):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self.direct = -1


class ThreadWriter:
    """The writer for files that are no descriptors: a Python thread."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._jobs: SimpleQueue[tuple[File, list[Buffer], int, bool] | None] = SimpleQueue()
        self._result: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._descriptor

    def start(self, file: File, pieces: list[Buffer], offset: int, sync: bool) -> None:
        self._jobs.put((file, pieces, offset, sync))

    def finish(self) -> None:
        os.eventfd_read(self._descriptor)
        result, self._result = self._result, None
        if result is not None:
            raise result

    def write_now(self, file: File, pieces: list[Buffer], offset: int, sync: bool) -> None:
        if pieces:
            file.pwritev(pieces, offset)
        if sync:
            file.fdatasync()

    def close(self) -> None:
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
            os.close(self._descriptor)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self.write_now(*job)
            except OSError as error:
                self._result = error
            os.eventfd_write(self._descriptor, 1)


class StepFiller:
    """The filler for files that are no descriptors."""

    def __init__(self) -> None:
        self._hurried = False

    def fill(self, file: File, offset: int, size: int) -> None:
        for start in range(offset, size, FILL_BYTES):
            if self._hurried:
                return
            file.pwritev([bytes(min(FILL_BYTES, size - start))], start)
            file.fdatasync()

    def hurry(self) -> None:
        self._hurried = True


class FileStorage:
    """Files in a real directory."""

    forks = True

    def __init__(self, data_dir: str | Path) -> None:
        self.data_dir = Path(data_dir)
        self._lock_descriptor = -1

    def __str__(self) -> str:
        return str(self.data_dir)

    def writer(self) -> Writer:
        return NativeWriter()

    def filler(self) -> Filler:
        return NativeFiller()

    def open(self, name: str, *, write: bool = False, create: bool = False) -> DiskFile:
        flags = os.O_CLOEXEC | (os.O_RDWR if write or create else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return DiskFile(name, os.open(self.data_dir / name, flags, 0o640))

    def exists(self, name: str) -> bool:
        return (self.data_dir / name).is_file()

    def list(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.data_dir / folder))
        except FileNotFoundError:
            return []

    def make_folder(self, folder: str) -> None:
        path = self.data_dir / folder
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            _sync_directory(path.parent)

    def rename(self, source: str, target: str) -> None:
        os.rename(self.data_dir / source, self.data_dir / target)

    def unlink(self, name: str) -> None:
        os.unlink(self.data_dir / name)

    def sync_folder(self, folder: str) -> None:
        _sync_directory(self.data_dir / folder)

    def lock(self) -> None:
        descriptor = os.open(self.data_dir / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise JournalError(f"{self.data_dir} is in use by process {owner or 'unknown'}",
                               "stop it first, or name another --data-dir") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._lock_descriptor = descriptor

    def unlock(self) -> None:
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(storage: Storage, source: str, target: str) -> None:
    """Copy a file and sync the copy; an existing target is an OSError."""
    reader = storage.open(source)
    writer = storage.open(target, create=True)
    try:
        size = reader.size()
        for offset in range(0, size, COPY_BYTES):
            writer.pwritev([reader.pread(min(COPY_BYTES, size - offset), offset)], offset)
        writer.fdatasync()
    finally:
        reader.close()
        writer.close()

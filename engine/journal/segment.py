"""Segment files: their names, and the next one made ready before it is needed.

A segment is zero-filled and synced before its first block, because a sync into a file whose blocks
were written before costs half of one that has to allocate them, and an eighth when the write is
large. That takes seconds, so it happens in a thread while the segment before it fills. Should the
log be faster than the filling, the next segment is used as the file system gave it: slower, but
nothing waits.
"""

from __future__ import annotations

import contextlib
import re
import threading

from engine.journal.storage import File, Filler, Storage

FOLDER = "journal"
UNIT_BYTES = 64
# Segments begin and end with pages.
PAGE_BYTES = 4096

_SEGMENT = re.compile(r"(\d{8})\.log")


def segment_name(number: int) -> str:
    """Where segment `number` is, relative to the data directory."""
    return f"{FOLDER}/{number:08d}.log"


def index_name(number: int) -> str:
    """Where the stream index of a closed segment is."""
    return f"{FOLDER}/{number:08d}.idx"


def segment_numbers(storage: Storage) -> list[int]:
    """Numbers of the segment files that exist, ascending."""
    names = (_SEGMENT.fullmatch(name) for name in storage.list(FOLDER))
    return [int(match[1]) for match in names if match]


def whole_pages(size_bytes: int) -> int:
    """`size_bytes` rounded up to pages."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def make_segment(storage: Storage, number: int, size_bytes: int, filler: Filler,
                 head: bytes = b"") -> None:
    """Make a zero-filled segment file durably; it has its name only when it is whole.

    `head` is put at its beginning. When the filler is hurried, the rest of the file has its blocks
    on disk but was not written: it reads as zeros too. Raises OSError.
    """
    name = segment_name(number)
    unfinished = name.removesuffix(".log") + ".tmp"
    if storage.exists(unfinished):
        storage.unlink(unfinished)
    file = storage.open(unfinished, create=True)
    try:
        file.reserve(size_bytes)
        file.bypass_cache()
        filler.fill(file, 0, size_bytes)
        if head:
            file.pwritev([head], 0)
        file.fdatasync()
    except BaseException:
        with contextlib.suppress(OSError):
            storage.unlink(unfinished)
        raise
    finally:
        file.close()
    storage.rename(unfinished, name)
    storage.sync_folder(FOLDER)


def remove_segments(storage: Storage, below: int) -> int:
    """Remove the segments with a number below this one, and their indexes; returns how many.

    The oldest goes first, so that the log never has a hole. Raises OSError.
    """
    removed = 0
    for number in segment_numbers(storage):
        if number >= below:
            break
        storage.unlink(segment_name(number))
        if storage.exists(index_name(number)):
            storage.unlink(index_name(number))
        removed += 1
    if removed:
        storage.sync_folder(FOLDER)
    return removed


class SpareMaker:
    """Makes the next segment in a thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._thread: threading.Thread | None = None
        self._filler = storage.filler()
        # Why the last filling failed; `take` tries again and meets the reason itself.
        self.error: OSError | None = None

    def start(self, number: int, size_bytes: int) -> None:
        """Begin to make segment `number`. The one before must have been taken."""
        self.error, self._filler = None, self._storage.filler()
        self._thread = threading.Thread(target=self._make, args=(number, size_bytes),
                                        name="segment", daemon=True)
        self._thread.start()

    def take(self, number: int, size_bytes: int) -> File:
        """Segment `number` with at least `size_bytes`, open for writing. Raises OSError.

        Waits only for the file to get its blocks, not for the filling.
        """
        self.wait()
        name = segment_name(number)
        if self._storage.exists(name):
            file = self._storage.open(name, write=True)
            if file.size() < size_bytes:
                file.reserve(size_bytes)
                file.fdatasync()
            return file
        make_segment(self._storage, number, size_bytes, self._filler)
        return self._storage.open(name, write=True)

    def wait(self) -> None:
        """End the filling that is under way, early."""
        self._filler.hurry()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _make(self, number: int, size_bytes: int) -> None:
        try:
            if not self._storage.exists(segment_name(number)):
                make_segment(self._storage, number, size_bytes, self._filler)
        except OSError as error:
            self.error = error

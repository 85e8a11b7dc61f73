"""Files beside the snapshots: what another stage would have to make again from much of the log.

`snapshots/SEQ.tape` is written together with `snapshots/SEQ.snap` (by the same forked child), put
in place after it, and removed with it. It holds bytes of its maker, who knows up to which seq they
go; nothing depends on them: a damaged file is as good as none.

    head (64 bytes, checksummed) | the maker's bytes
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cython_core import record
from engine.journal.storage import Storage

FOLDER = "snapshots"
SUFFIX = "tape"
_HEAD = struct.Struct("<8s16sIIQQI8x")
_MAGIC = b"MDBESID1"
_NAME = re.compile(rf"(\d+)\.{SUFFIX}")
_WRITE_BYTES = 1 << 20

# Makes the bytes, of the state as it is at the call.
Maker = Callable[[], bytes]


class Kept(NamedTuple):
    """A good file: the seq of its snapshot, the incarnation of the log then, the maker's bytes."""

    seq: int
    incarnation: int
    data: bytes


def name_of(seq: int) -> str:
    """Where the file of the snapshot at `seq` is, relative to the data directory."""
    return f"{FOLDER}/{seq}.{SUFFIX}"


def unfinished(seq: int) -> str:
    """Its name while it is written."""
    return f"{FOLDER}/{seq}.{SUFFIX}.tmp"


def write(storage: Storage, seq: int, log_id: bytes, incarnation: int, data: bytes) -> None:
    """Write and sync the unfinished file. Raises OSError."""
    name = unfinished(seq)
    if storage.exists(name):
        storage.unlink(name)
    head = _HEAD.pack(_MAGIC, log_id, incarnation, record.crc32c(data), seq, len(data), 0)
    head += struct.pack("<I", record.crc32c(head))
    file = storage.open(name, create=True)
    try:
        file.pwritev([head], 0)
        for start in range(0, len(data), _WRITE_BYTES):
            file.pwritev([memoryview(data)[start:start + _WRITE_BYTES]], len(head) + start)
        file.fdatasync()
    finally:
        file.close()


def place(storage: Storage, seq: int) -> None:
    """Give the file of this snapshot its name, if there is one. Raises OSError."""
    if storage.exists(unfinished(seq)):
        storage.rename(unfinished(seq), name_of(seq))


def seqs(storage: Storage) -> list[int]:
    """Seqs of the files, newest first."""
    names = (_NAME.fullmatch(name) for name in storage.list(FOLDER))
    return sorted((int(match[1]) for match in names if match), reverse=True)


def read_all(storage: Storage, log_id: bytes, note: Callable[[str], None]) -> Iterator[Kept]:
    """The good files of this log, newest first; `note` gets a line for each other one."""
    for seq in seqs(storage):
        try:
            file = storage.open(name_of(seq))
            try:
                data = file.pread(file.size(), 0)
            finally:
                file.close()
            yield _parse(seq, log_id, data)
        except OSError as error:
            note(f"{name_of(seq)} can't be read: {error.strerror}")
        except ValueError as error:
            note(f"{name_of(seq)} is left aside: {error}")


def _parse(seq: int, log_id: bytes, data: bytes) -> Kept:
    size = _HEAD.size + 4
    if len(data) < size:
        raise ValueError("it is cut short")
    magic, found_id, incarnation, checksum, stated_seq, length, _ = _HEAD.unpack_from(data)
    if (magic != _MAGIC
            or struct.unpack_from("<I", data, _HEAD.size)[0] != record.crc32c(data[:_HEAD.size])):
        raise ValueError("its head is damaged")
    if found_id != log_id or stated_seq != seq:
        raise ValueError("it belongs to another log or snapshot")
    body = data[size:]
    if len(body) != length or record.crc32c(body) != checksum:
        raise ValueError("its checksum is wrong")
    return Kept(seq, incarnation, body)

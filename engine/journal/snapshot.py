"""Snapshots: the whole state at one seq, written by a forked child while trading goes on.

The child has the parent's memory as it was at the fork, so its state is consistent at one seq and
trading pauses only for the fork itself. It writes `SEQ.tmp` and syncs it; the parent renames the
file once the log is on disk through SEQ, so no snapshot is ever ahead of the log it belongs to.

    head (two units, checksummed) | matcher state | stream index

The matcher's state is that after `seq`; the stream index that at `cursor`, a block boundary of the
log at or before it: recovery walks on from there.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cython_core import record
from cython_core.model import MATCHER_SEMANTICS_VERSION
from engine.journal import beside
from engine.journal.index import StreamIndex
from engine.journal.reader import Cursor
from engine.journal.storage import File, Storage
from engine.journal.writer import die_with_parent, fork

if TYPE_CHECKING:
    from typing_extensions import Buffer

FOLDER = "snapshots"
HEAD = struct.Struct("<8sHHI16sQQIIIIQQQ36x")
MAGIC = b"MDSNAPS1"
LAYOUT = 1
READ_BYTES = 16 << 20
WRITE_BYTES = 1 << 20

_NAME = re.compile(r"(\d+)\.snap")


class Saves(Protocol):
    """The matcher, as far as a snapshot needs it."""

    @property
    def next_seq(self) -> int:
        """The seq after the state's last event."""

    def save(self) -> list[Buffer]:
        """Regions whose concatenation restores the state."""


class Snapshot(NamedTuple):
    """What a good snapshot file holds."""

    name: str
    seq: int
    log_id: bytes
    cursor: Cursor
    matcher: memoryview
    streams: StreamIndex


class BadSnapshot(Exception):
    """The file is no good snapshot; the text says why."""


def snapshot_name(seq: int) -> str:
    """Where the snapshot at `seq` is, relative to the data directory."""
    return f"{FOLDER}/{seq}.snap"


def snapshot_seqs(storage: Storage) -> list[int]:
    """Seqs of the snapshot files, newest first."""
    names = (_NAME.fullmatch(name) for name in storage.list(FOLDER))
    return sorted((int(match[1]) for match in names if match), reverse=True)


def write_snapshot(storage: Storage, name: str, matcher: Saves, index: StreamIndex,
                   cursor: Cursor, log_id: bytes) -> None:
    """Write and sync a snapshot file. Raises OSError."""
    regions = [memoryview(region).cast("B") for region in matcher.save()]
    index_bytes = index.save()
    matcher_checksum = 0
    for region in regions:
        matcher_checksum = record.crc32c(region, matcher_checksum)
    head = HEAD.pack(MAGIC, LAYOUT, MATCHER_SEMANTICS_VERSION, cursor.incarnation, log_id,
                     matcher.next_seq - 1, cursor.next_seq, cursor.segment, cursor.chain,
                     matcher_checksum, record.crc32c(index_bytes),
                     sum(map(len, regions)), len(index_bytes), cursor.offset)
    head += struct.pack("<I", record.crc32c(head))
    if storage.exists(name):
        storage.unlink(name)
    file = storage.open(name, create=True)
    try:
        _write_pieces(file, [head, *regions, index_bytes])
        file.fdatasync()
    finally:
        file.close()


def _write_pieces(file: File, pieces: Sequence[Buffer]) -> None:
    offset = 0
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), WRITE_BYTES):
            file.pwritev([view[start:start + WRITE_BYTES]], offset + start)
        offset += len(view)


def read_snapshot(storage: Storage, seq: int) -> Snapshot:
    """Read and check a snapshot. Raises BadSnapshot, which says what is wrong with it."""
    name = snapshot_name(seq)
    try:
        file = storage.open(name)
    except OSError as error:
        raise BadSnapshot(f"can't be opened: {error.strerror}") from None
    try:
        size = file.size()
        data = b"".join(file.pread(min(READ_BYTES, size - offset), offset)
                        for offset in range(0, size, READ_BYTES))
    except OSError as error:
        raise BadSnapshot(f"can't be read: {error.strerror}") from None
    finally:
        file.close()
    return _parse(name, seq, data)


def _parse(name: str, seq: int, data: bytes) -> Snapshot:
    head_bytes = HEAD.size + 4
    if len(data) < head_bytes:
        raise BadSnapshot("is cut short")
    (magic, layout, version, incarnation, log_id, stated_seq, next_seq, segment, chain,
     matcher_checksum, index_checksum, matcher_bytes, index_bytes, offset) = HEAD.unpack_from(data)
    if (magic != MAGIC or struct.unpack_from("<I", data, HEAD.size)[0]
            != record.crc32c(data[:HEAD.size])):
        raise BadSnapshot("has a damaged head")
    if layout != LAYOUT or not 1 <= version <= MATCHER_SEMANTICS_VERSION:
        raise BadSnapshot(f"was written by another version (layout {layout}, rules {version})")
    if len(data) != head_bytes + matcher_bytes + index_bytes:
        raise BadSnapshot("has a wrong length")
    if stated_seq != seq:
        raise BadSnapshot(f"has the name of another one: it is of seq {stated_seq}")
    view = memoryview(data)
    matcher, index = (view[head_bytes:head_bytes + matcher_bytes],
                      view[head_bytes + matcher_bytes:])
    if record.crc32c(matcher) != matcher_checksum or record.crc32c(index) != index_checksum:
        raise BadSnapshot("has a wrong checksum")
    try:
        streams = StreamIndex.load(index)
    except (ValueError, struct.error) as error:
        raise BadSnapshot(f"has a bad stream index: {error}") from None
    cursor = Cursor(segment, offset, next_seq, chain, incarnation)
    return Snapshot(name, seq, log_id, cursor, matcher, streams)


def oldest_segment_needed(storage: Storage) -> int:
    """The oldest segment that a snapshot in place needs; 0 when none is readable."""
    segments = []
    for seq in snapshot_seqs(storage):
        file = storage.open(snapshot_name(seq))
        try:
            head = file.pread(HEAD.size, 0)
        finally:
            file.close()
        segments.append(HEAD.unpack(head)[7] if len(head) == HEAD.size else 0)
    return min(segments, default=0)


def remove_old(storage: Storage, keep: int) -> None:
    """Remove all but the newest `keep` snapshots with what is beside them, and unfinished ones.
    Raises OSError."""
    for name in storage.list(FOLDER):
        if name.endswith(".tmp"):
            storage.unlink(f"{FOLDER}/{name}")
    seqs = snapshot_seqs(storage)
    for seq in seqs[keep:]:
        storage.unlink(snapshot_name(seq))
    for seq in beside.seqs(storage):
        if seq not in seqs[:keep]:
            storage.unlink(beside.name_of(seq))


def fork_snapshot(storage: Storage, name: str, matcher: Saves, index: StreamIndex,
                  cursor: Cursor, log_id: bytes, maker: beside.Maker | None = None) -> int:
    """Fork a child that writes the snapshot; returns its process id. Raises OSError.

    `maker` makes what is kept beside it; the snapshot is good without.

    The child keeps no socket and no lock of the venue open, ends when its parent does, and exits
    with 0 when the file is on disk.
    """
    parent = os.getpid()
    child = fork()
    if child:
        return child
    status = 1
    with contextlib.suppress(BaseException):
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        if die_with_parent(parent):
            os.nice(5)
            write_snapshot(storage, name, matcher, index, cursor, log_id)
            status = 0
            if maker is not None:
                beside.write(storage, matcher.next_seq - 1, log_id, cursor.incarnation, maker())
    os._exit(status)

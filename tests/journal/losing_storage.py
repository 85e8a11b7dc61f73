"""A storage in memory that behaves like a disk whose power can be cut.

What was written since a file's last sync may be there after a cut or not, page by page, and a
page that was being written may be torn at a multiple of 512 bytes. A file's name, and whether it
was removed, is sure only once its folder was synced.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Sequence

from engine.journal.storage import StepFiller, ThreadWriter

PAGE = 4096
SECTOR = 512


class PowerCut(OSError):
    """The machine is off."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the power is off")


class Node:
    """The contents of one file, as programs see them and as the disk has them."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytes(data)
        self.dirty: set[int] = set()

    def write(self, offset: int, piece: bytes) -> None:
        if offset + len(piece) > len(self.data):
            self.resize(offset + len(piece))
        self.data[offset:offset + len(piece)] = piece
        self.dirty.update(range(offset // PAGE, (offset + len(piece) - 1) // PAGE + 1))

    def resize(self, size: int) -> None:
        if size > len(self.data):
            self.data.extend(bytes(size - len(self.data)))
        else:
            del self.data[size:]

    def sync(self) -> None:
        size = len(self.data)
        if len(self.durable) != size or len(self.dirty) > size // PAGE // 2:
            self.durable = bytes(self.data)
        elif self.dirty:
            durable = bytearray(self.durable)
            for page in self.dirty:
                durable[page * PAGE:(page + 1) * PAGE] = self.data[page * PAGE:(page + 1) * PAGE]
            self.durable = bytes(durable)
        self.dirty.clear()

    def after_cut(self, rng: random.Random, keep: float) -> bytes:
        """What the disk has after a cut: each unsynced page kept, lost or torn."""
        size = len(self.data) if rng.random() < 0.5 else max(len(self.durable), 0)
        data = bytearray(self.durable[:size].ljust(size, b"\0"))
        for page in sorted(self.dirty):
            start, end = page * PAGE, min((page + 1) * PAGE, size)
            if start >= size or rng.random() >= keep:
                continue
            if rng.random() < 0.3:
                middle = start + rng.randrange(PAGE // SECTOR) * SECTOR
                start, end = (start, min(middle, end)) if rng.random() < 0.5 else (middle, end)
            data[start:end] = self.data[start:end]
        return bytes(data)


class LosingFile:
    """One open file."""

    def __init__(self, storage: LosingStorage, name: str, node: Node) -> None:
        self.name, self._storage, self.node = name, storage, node

    def pwritev(self, pieces: Sequence[object], offset: int) -> None:
        data = b"".join(bytes(memoryview(piece).cast("B")) for piece in pieces)
        with self._storage.guard:
            self._storage.step(self.node, offset, data)
            self._storage.use_room(max(0, offset + len(data) - len(self.node.data)))
            self.node.write(offset, data)

    def pread(self, size: int, offset: int) -> bytes:
        with self._storage.guard:
            return bytes(self.node.data[offset:offset + size])

    def fdatasync(self) -> None:
        with self._storage.guard:
            self._storage.step()
            if self._storage.sync_error:
                raise OSError(self._storage.sync_error, os.strerror(self._storage.sync_error))
            self.node.sync()
            self._storage.syncs += 1

    def size(self) -> int:
        return len(self.node.data)

    def reserve(self, size: int) -> None:
        with self._storage.guard:
            self._storage.step()
            self._storage.use_room(max(0, size - len(self.node.data)))
            if size > len(self.node.data):
                self.node.resize(size)

    def truncate(self, size: int) -> None:
        with self._storage.guard:
            self._storage.step()
            self.node.resize(size)

    def bypass_cache(self) -> None:
        """There is no page cache but the one that a cut loses."""

    def close(self) -> None:
        pass


class LosingStorage:
    """Files by name. After `steps_left` more changes the power goes; -1 is never."""

    forks = False

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.guard = threading.RLock()
        self.nodes = {name: Node(data) for name, data in (files or {}).items()}
        self.durable_nodes = dict(self.nodes)
        self.steps_left = -1
        self.room_bytes = -1
        self.sync_error = 0
        self.syncs = 0
        self._rng = random.Random(0)

    # -- faults ------------------------------------------------------------------------------

    def step(self, node: Node | None = None, offset: int = 0, data: bytes = b"") -> None:
        """One change; when the power goes in the middle of a write, a part of it is done."""
        if self.steps_left == 0:
            raise PowerCut
        if self.steps_left > 0:
            self.steps_left -= 1
            if self.steps_left == 0:
                if node is not None and data:
                    node.write(offset, data[:self._rng.randrange(1, len(data) + 1)])
                raise PowerCut

    def use_room(self, size: int) -> None:
        if self.room_bytes < 0 or not size:
            return
        if size > self.room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room_bytes -= size

    def after_cut(self, rng: random.Random) -> LosingStorage:
        """What is there after a power cut at this moment."""
        keep = rng.choice((0.0, 0.3, 0.7, 1.0))
        # Changes of names reach the disk in order: nothing since the last sync, or all.
        names = self.nodes if rng.random() < 0.5 else self.durable_nodes
        return LosingStorage({name: node.after_cut(rng, keep) for name, node in names.items()})

    def copy(self) -> LosingStorage:
        """The files as they are now."""
        return LosingStorage({name: bytes(node.data) for name, node in self.nodes.items()})

    # -- the seam ----------------------------------------------------------------------------

    def writer(self) -> ThreadWriter:
        return ThreadWriter()

    def filler(self) -> StepFiller:
        return StepFiller()

    def open(self, name: str, *, write: bool = False, create: bool = False) -> LosingFile:
        with self.guard:
            if create:
                self.step()
                if name in self.nodes:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
                self.nodes[name] = Node()
            elif name not in self.nodes:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            return LosingFile(self, name, self.nodes[name])

    def exists(self, name: str) -> bool:
        return name in self.nodes

    def list(self, folder: str) -> list[str]:
        with self.guard:
            return sorted(name.partition("/")[2] for name in self.nodes
                          if name.startswith(folder + "/"))

    def make_folder(self, folder: str) -> None:
        pass

    def rename(self, source: str, target: str) -> None:
        with self.guard:
            self.step()
            self.nodes[target] = self.nodes.pop(source)

    def unlink(self, name: str) -> None:
        with self.guard:
            self.step()
            del self.nodes[name]

    def sync_folder(self, folder: str) -> None:
        with self.guard:
            self.step()
            inside = folder + "/"
            self.durable_nodes = {
                **{name: node for name, node in self.durable_nodes.items()
                   if not name.startswith(inside)},
                **{name: node for name, node in self.nodes.items() if name.startswith(inside)}}

    def lock(self) -> None:
        pass

    def unlock(self) -> None:
        pass

"""A store as small as one can be and still be one: a file of transactions, each one line.

A line is written and synced whole; a torn one at the end is cut off at `open`. So everything that
a follower promises can be shown with it: the events in the file, in order, are what the log has.
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.stores.store import Position, StoreMoved, Work


class FileStore:
    """Keeps every event as a dictionary. `trouble` is called before each write and each open, and
    may raise or wait; `after_write` when all is on disk, before the answer."""

    name = "file"
    wants_beginning = False

    def __init__(self, path: Path, interval_ms: int = 5, batch_max: int = 100) -> None:
        self.path = path
        self.batch_interval_ms, self.max_batch_size = interval_ms, batch_max
        self.trouble: Callable[[str, Work | None], Any] = lambda what, work: None
        self.after_write: Callable[[Work], Any] = lambda work: None
        self.opened = self.closed = 0
        self.due = 0
        self.works: list[Work] = []
        self._file: Any = None

    async def open(self, log: Position) -> Position | None:
        await _maybe(self.trouble("open", None))
        self.opened += 1
        self._file = self.path.open("ab+")
        whole, position = 0, None
        for line in self.lines():
            whole += len(line)
            position = _position(line)
        self._file.truncate(whole)
        return position

    async def write(self, work: Work) -> None:
        await _maybe(self.trouble("write", work))
        lines = self.lines()
        at = _position(lines[-1]) if lines else None
        if at != work.before and not (at is None and not lines):
            raise StoreMoved(f"at {at}, not {work.before}")
        if work.batches:
            await asyncio.to_thread(self._append, work)
        self.works.append(work)
        self.due = 0
        await _maybe(self.after_write(work))

    def _append(self, work: Work) -> None:
        events = [event for batch in work.batches for event in batch.dicts()]
        body = json.dumps({"log": work.after.log_id.hex(), "incarnation": work.after.incarnation,
                           "seq": work.after.seq, "events": events}).encode()
        self._file.write(b"%08x %b\n" % (zlib.crc32(body), body))
        self._file.flush()
        os.fsync(self._file.fileno())

    def due_ns(self) -> int:
        return self.due

    def safe_seq(self, written_seq: int) -> int:
        return written_seq

    async def reset(self) -> None:
        self.path.write_bytes(b"")

    def facts(self) -> Mapping[str, object]:
        return {"lines": len(self.works)}

    async def close(self) -> None:
        self.closed += 1
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- what a test looks at --------------------------------------------------------------------

    def lines(self) -> list[bytes]:
        """The whole transactions in the file."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or int(line[:8], 16) != zlib.crc32(line[9:-1]):
                break
            found.append(line)
        return found

    def events(self) -> list[dict[str, Any]]:
        """All events, in the order in which they were written."""
        return [event for line in self.lines() for event in json.loads(line[9:])["events"]]

    def seqs(self) -> list[int]:
        """Their seqs."""
        return [event["seq"] for event in self.events()]


def _position(line: bytes) -> Position:
    body = json.loads(line[9:])
    return Position(bytes.fromhex(body["log"]), body["incarnation"], body["seq"])


async def _maybe(result: Any) -> None:
    if result is not None:
        await result

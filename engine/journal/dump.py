"""`matchd journal dump`: the log as one JSON object per event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.journal.reader import events_since, first_header
from engine.journal.storage import FileStorage


def dump(data_dir: str | Path, from_seq: int | None = None,
         to_seq: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the events from `from_seq` (the oldest kept) to `to_seq` (the newest), both included.

    Each is a dictionary whose first key is `seq`; the others are those of
    `cython_core.event.read_units`. Reads only, and may run beside the venue. Raises JournalError
    when there is no journal or it begins after `from_seq`, JournalCorrupt for damage.
    """
    storage = FileStorage(data_dir)
    if from_seq is None:
        from_seq = first_header(storage).first_seq
    for batch in events_since(storage, max(from_seq, 1)):
        for event in batch.dicts():
            if to_seq is not None and event["seq"] > to_seq:
                return
            yield event


def dump_lines(data_dir: str | Path, from_seq: int | None = None,
               to_seq: int | None = None) -> Iterator[str]:
    """The same as lines of JSON, without line ends."""
    for event in dump(data_dir, from_seq, to_seq):
        yield json.dumps(event, separators=(",", ":"))

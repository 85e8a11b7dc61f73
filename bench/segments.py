"""When the journal changed segments in a run, and what the tail looked like there."""

import struct
from pathlib import Path
from typing import Any

from bench.histogram import Histogram

UNIT_BYTES = 64
FIRST_EVENT_KIND = 64
SCAN_UNITS = 64


def change_times(data_dir: Path) -> list[int]:
    """The time (ns since 1970) of the first event in each segment but the first one."""
    times = [_first_event_time(path) for path in sorted((data_dir / "journal").glob("*.log"))]
    return [time for time in times[1:] if time]


def _first_event_time(path: Path) -> int:
    """The time of a segment's first event, 0 when it has none yet."""
    with path.open("rb") as file:
        head = file.read(SCAN_UNITS * UNIT_BYTES)
    for start in range(0, len(head) - UNIT_BYTES + 1, UNIT_BYTES):
        if head[start] >= FIRST_EVENT_KIND:
            return int(struct.unpack_from("<Q", head, start + 8)[0])
    return 0


def tails(run: dict[str, Any], changes: list[int]) -> dict[str, Any]:
    """Latency in the windows that hold a segment change, and in all others.

    A change counts for its own window and the one after it, since its cost may show there.
    """
    width_ns = int(run["window_seconds"] * 1e9)
    marked = set()
    for time_ns in changes:
        window = (time_ns - run["started_unix_ns"]) // width_ns
        marked |= {window, window + 1}
    at_change, elsewhere = Histogram(), Histogram()
    for index, window in enumerate(run["windows"]):
        (at_change if index in marked else elsewhere).add_sparse(window)
    return {"segment_changes": len(changes), "latency_at_segment_change": at_change.summary(),
            "latency_elsewhere": elsewhere.summary()}

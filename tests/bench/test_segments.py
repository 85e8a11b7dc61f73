"""Where a journal changed segments, and which latencies belong to that."""

from __future__ import annotations

import struct
from pathlib import Path

from bench import segments
from bench.histogram import Histogram
from cython_core.model import Kind

SECOND = 1_000_000_000


def unit(kind: Kind, time_ns: int = 0) -> bytes:
    return struct.pack("<BB6xQ", kind, 0, time_ns).ljust(segments.UNIT_BYTES, b"\0")


def write_segment(folder: Path, number: int, *units: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number:08d}.log").write_bytes(b"".join(units).ljust(8192, b"\0"))


def test_a_change_is_the_first_event_of_each_segment_but_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    opening = unit(Kind.SEGMENT_HEADER, 77), unit(Kind.BLOCK_HEADER, 88)
    write_segment(folder, 1, *opening, unit(Kind.ACCEPTED, 1 * SECOND))
    write_segment(folder, 2, *opening, unit(Kind.FILL, 2 * SECOND), unit(Kind.FILL, 9 * SECOND))
    write_segment(folder, 3)
    assert segments.change_times(tmp_path) == [2 * SECOND]


def test_latencies_of_the_change_and_of_the_window_after_it_are_told_apart() -> None:
    windows = []
    for value in (1_000, 50_000, 60_000, 2_000):
        window = Histogram()
        window.record(value)
        windows.append(window.sparse())
    run = {"window_seconds": 0.1, "started_unix_ns": 10 * SECOND, "windows": windows}
    found = segments.tails(run, [10 * SECOND + 150_000_000])
    assert found["segment_changes"] == 1
    assert found["latency_at_segment_change"]["count"] == 2
    assert found["latency_at_segment_change"]["max_ns"] == 60_000
    assert found["latency_elsewhere"]["max_ns"] == 2_000

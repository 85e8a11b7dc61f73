"""The disk's anchor: what one fdatasync of 4 KiB costs in a file that was written before."""

import os
import time
from pathlib import Path
from typing import Any

from bench.histogram import Histogram

PAGE_BYTES = 4096
FILE_BYTES = 16 << 20


def fdatasync_times(directory: Path, count: int) -> dict[str, Any]:
    """Overwrite `count` pages one after the other, each followed by fdatasync. Times in ns."""
    path = directory / "prewritten"
    page = os.urandom(PAGE_BYTES)
    histogram = Histogram()
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, bytes(FILE_BYTES), 0)
        os.fsync(fd)
        for index in range(count):
            started = time.perf_counter_ns()
            os.pwrite(fd, page, index * PAGE_BYTES % FILE_BYTES)
            os.fdatasync(fd)
            histogram.record(time.perf_counter_ns() - started)
    finally:
        os.close(fd)
        path.unlink()
    summary: dict[str, Any] = histogram.summary()
    return summary

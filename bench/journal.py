"""The journal alone: recovery, the pause for a snapshot, and the disk's own figures.

`python -m bench.journal [OPERATIONS RESTING]` prints them; `run()` gives them as a dictionary. The
log that is recovered holds the canonical flow, written in groups of the size that a busy venue
commits.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.canonical import Flow
from bench.matcher import MEAN, SEED
from bench.servers import work_directory
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from engine.config import Config, JournalConfig
from engine.journal import Journal
from engine.queues import BatchQueue

OPERATIONS = 2_000_000
RESTING_ORDERS = 1_000_000
SYNC_SIZES = {"fdatasync_4k_us": 4 << 10, "fdatasync_256k_us": 256 << 10}
SYNCS = 200
SYNC_FILE_BYTES = 64 << 20
RECOVERIES = 3
SNAPSHOTS = 3


def run(operations: int = OPERATIONS, resting_orders: int = RESTING_ORDERS,
        syncs: int = SYNCS) -> dict[str, float]:
    """Every figure: events per second, milliseconds, microseconds."""
    with work_directory() as folder:
        figures = sync_times(folder, syncs)
        figures["recovery_events_per_second"] = recovery(folder / "log", operations)
        figures["snapshot_pause_ms"] = snapshot_pause(folder / "snapshot", resting_orders)
    return figures


def sync_times(folder: Path, syncs: int) -> dict[str, float]:
    """Median of pwrite and fdatasync into a file that was written before, in microseconds."""
    path = folder / "written"
    path.write_bytes(bytes(SYNC_FILE_BYTES))
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    figures = {}
    for name, size in SYNC_SIZES.items():
        data, taken = os.urandom(size), []
        for index in range(syncs):
            started = time.perf_counter_ns()
            os.pwrite(descriptor, data, index * size % SYNC_FILE_BYTES)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter_ns() - started)
        figures[name] = statistics.median(taken) / 1000
    os.close(descriptor)
    path.unlink()
    return figures


def _config(**journal: Any) -> Config:
    return Config(journal=JournalConfig(snapshot_events=0, **journal))


async def _write(folder: Path, batches: list[CommandBatch]) -> Matcher:
    """Run the commands through matcher and journal; ends as a kill would, without a snapshot."""
    recovered = Journal.open(_config(sync="interval"), data_dir=folder)
    matcher = recovered.matcher
    source: BatchQueue[EventBatch] = BatchQueue("events", 1 << 16)
    stage = asyncio.ensure_future(recovered.journal.run(source, []))
    for batch in batches:
        events = EventBatch()
        matcher.apply(batch, events, 1)
        if len(events):
            await source.put(events)
    source.close()
    await stage
    recovered.journal.abandon()
    return matcher


def recovery(folder: Path, operations: int) -> float:
    """Events per second that a start without a snapshot takes in; the median of some."""
    flow = Flow(SEED)
    flow.canonical(operations, 1, MEAN)
    written = asyncio.run(_write(folder, [Flow.definitions(1), *flow.finish()]))
    rates = []
    for _ in range(RECOVERIES):
        started = time.perf_counter()
        recovered = Journal.open(_config(), data_dir=folder)
        taken = time.perf_counter() - started
        recovered.journal.abandon()
        if recovered.matcher.state_hash() != written.state_hash():
            raise RuntimeError("the recovered state is another one")
        rates.append(recovered.replayed / taken)
    return statistics.median(rates)


def snapshot_pause(folder: Path, resting_orders: int) -> float:
    """Milliseconds for which trading stands still for a snapshot; the worst of some."""
    return asyncio.run(_snapshots(folder, _filling(resting_orders)))


def _filling(resting_orders: int) -> list[CommandBatch]:
    flow = Flow(SEED)
    flow.fill(resting_orders, 2000.0)
    return [Flow.definitions(1), *flow.finish()]


async def _snapshots(folder: Path, batches: list[CommandBatch]) -> float:
    # Only what a venue holds may be in this process: a fork costs by its pages.
    resting_orders = (await _write(folder, batches)).resting_orders
    batches.clear()
    recovered = Journal.open(Config(journal=JournalConfig(snapshot_events=1)), data_dir=folder)
    journal, worst = recovered.journal, 0.0
    if not isinstance(journal, Journal):
        raise RuntimeError("a journal on disk is what is measured")
    for _ in range(SNAPSHOTS):
        journal.snapshots.begin(recovered.matcher, journal.index, journal.counted)
        worst = max(worst, journal.snapshot_pause_ns / 1e6)
        while journal.snapshots.writing:
            await asyncio.sleep(0.01)
        journal.snapshots.stop()
    journal.abandon()
    if recovered.matcher.resting_orders != resting_orders:
        raise RuntimeError("the recovered state is another one")
    return worst


if __name__ == "__main__":
    print(json.dumps(run(*(int(argument) for argument in sys.argv[1:])), indent=1))

"""Rows of the core: the matcher alone beside a plain ladder in C, memory of a resting order.

Each run is a process of its own, so that no memory of another run helps or hurts it.
"""

import json
import subprocess
import sys
from typing import Any

from bench.measure import TINY, Pace, Row
from bench.servers import ROOT

# Operations, and runs of which the median counts.
FULL_MATCHER = (2_000_000, 5)
QUICK_MATCHER = (200_000, 3)
TINY_MATCHER = (4_000, 1)
# Scenario of bench/matcher.py, title, target in ns, and what that was beside the ladder that the
# target was set with.
MATCHER_ROWS = (
    ("canonical", "matcher alone, one book, canonical flow", 35.0, 35 / 20.5),
    ("cold_cancel", "matcher alone, cold cancels, 500,000 resting", 180.0, 180 / 148),
    ("books100", "matcher alone, canonical flow over 100 books", 60.0, 60 / 30.5),
)
SHAPES = ("quiet", "swing25", "swing40", "flash")
SHAPE_RATIO_MAX = 2.0
# Operations in the log that is recovered, and resting orders in the snapshot.
FULL_JOURNAL = (2_000_000, 1_000_000)
QUICK_JOURNAL = (300_000, 100_000)
TINY_JOURNAL = (5_000, 5_000)
RECOVERY_TARGET = 5e6
SNAPSHOT_PAUSE_TARGET_MS = 10
RESTING_ORDERS = 1_000_000
MEMORY_TARGET_BYTES = 128


def run_module(*arguments: str) -> Any:
    """The JSON that `python -m MODULE ARGUMENTS` prints. Raises RuntimeError when it fails."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, text=True,
                          capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def matcher(pace: Pace) -> list[Row]:
    """Nanoseconds per operation, events written, on every flow."""
    operations, runs = TINY_MATCHER if pace is TINY else \
        QUICK_MATCHER if pace.quick else FULL_MATCHER
    found = run_module("bench.ladder", str(operations), str(runs))
    rows = [Row(f"matcher-{name}", title, "ns", found[name]["ours_ns"], "array ladder in C",
                found[name]["ladder_ns"], target, ratio, False, found[name])
            for name, title, target, ratio in MATCHER_ROWS]
    worst = max(SHAPES, key=lambda name: float(found[name]["ours_ns"]))
    return [*rows, Row("matcher-shapes", f"matcher alone, the worst shape of book ({worst})", "ns",
                       found[worst]["ours_ns"], "the canonical flow",
                       found["canonical"]["ours_ns"], None, SHAPE_RATIO_MAX, False,
                       {name: found[name] for name in SHAPES})]


def recovery(pace: Pace) -> list[Row]:
    """Events per second that a start takes in, and how long trading pauses for a snapshot."""
    operations, resting = TINY_JOURNAL if pace is TINY else \
        QUICK_JOURNAL if pace.quick else FULL_JOURNAL
    found = run_module("bench.journal", str(operations), str(resting))
    return [Row("recovery", "recovery", "events/s", found["recovery_events_per_second"],
                target=RECOVERY_TARGET, details=found),
            Row("snapshot-pause", f"pause for a snapshot, {resting:,} resting", "ms",
                found["snapshot_pause_ms"], target=SNAPSHOT_PAUSE_TARGET_MS, higher=False)]


def memory(pace: Pace) -> list[Row]:
    """Resident memory of the matcher for each resting order."""
    count = RESTING_ORDERS // 100 if pace is TINY else RESTING_ORDERS
    found = float(run_module("bench.memory", str(count)))
    return [Row("memory", f"memory per resting order, {count:,} resting", "bytes", found,
                target=MEMORY_TARGET_BYTES, higher=False)]

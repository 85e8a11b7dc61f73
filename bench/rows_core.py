"""Rows of the core: memory of a resting order.

Each run is a process of its own, so that no memory of another run helps or hurts it.
"""

import json
import subprocess
import sys
from typing import Any

from bench.measure import Pace, Row
from bench.servers import ROOT

RESTING_ORDERS = 1_000_000
MEMORY_TARGET_BYTES = 128


def run_module(*arguments: str) -> Any:
    """The JSON that `python -m MODULE ARGUMENTS` prints. Raises RuntimeError when it fails."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, text=True,
                          capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def memory(pace: Pace) -> list[Row]:
    """Resident memory of the matcher for each resting order."""
    count = RESTING_ORDERS // 100 if pace.quick else RESTING_ORDERS
    found = float(run_module("bench.memory", str(count)))
    return [Row("memory", f"memory per resting order, {count:,} resting", "bytes", found,
                target=MEMORY_TARGET_BYTES, higher=False)]

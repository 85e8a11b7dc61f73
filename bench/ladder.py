"""Our matcher and the ladder on the same commands, in turn.

`python -m bench.ladder OPERATIONS RUNS` prints JSON.

Both must trade the same and leave the same number of orders, else there is no figure.
"""

import gc
import json
import statistics
import sys
import time
from typing import Any

from bench.anchor_ladder import Ladder
from bench.canonical import PRICE_LOW, PRICE_TICKS
from bench.matcher import Scenario, scenarios, time_matcher

# Room in the ladder: twice what rests at most, since its map is sized by it.
ORDERS_MAX = {"canonical": 1 << 13, "cold_cancel": 1 << 20, "books100": 1 << 17}
ORDERS_MAX_ELSE = 1 << 16


def time_ladder(scenario: Scenario) -> tuple[float, Ladder]:
    """Nanoseconds per operation, and the ladder afterwards."""
    ladder = Ladder(scenario.instruments, PRICE_LOW, PRICE_TICKS,
                    orders_max=ORDERS_MAX.get(scenario.name, ORDERS_MAX_ELSE))
    for batch in scenario.setup:
        ladder.apply(batch)
    gc.collect()
    started = time.perf_counter_ns()
    for batch in scenario.batches:
        ladder.apply(batch)
    return (time.perf_counter_ns() - started) / scenario.operations, ladder


def compare(scenario: Scenario, runs: int) -> dict[str, Any]:
    """Every run of both. Raises RuntimeError when they disagree."""
    ours, ladders, units = [], [], 0
    for _ in range(runs):
        took, matcher, units = time_matcher(scenario)
        ours.append(took)
        took, ladder = time_ladder(scenario)
        ladders.append(took)
        theirs = (ladder.fills, ladder.resting)
        if (matcher.counters["fill"], matcher.resting_orders) != theirs:
            raise RuntimeError(f"{scenario.name}: {matcher.counters['fill']} fills and "
                               f"{matcher.resting_orders} resting, the ladder has {theirs}")
    return {"ours_ns": statistics.median(ours), "ladder_ns": statistics.median(ladders),
            "ours_runs_ns": ours, "ladder_runs_ns": ladders, "operations": scenario.operations,
            "fills": theirs[0], "resting": theirs[1],
            "bytes_per_operation": units * 64 / scenario.operations}


if __name__ == "__main__":
    found = {scenario.name: compare(scenario, int(sys.argv[2]))
             for scenario in scenarios(int(sys.argv[1]))}
    print(json.dumps(found))

"""Events into rows of every table, and those into PostgreSQL's binary COPY.

`python -m bench.rowcopy [OPERATIONS]` prints events per second of both steps and of each alone, for
the canonical flow in runs of the size that a store which catches up takes.
"""

import json
import statistics
import sys
import time

from bench.matcher import BUILDERS, log_of
from cython_core import pgcopy
from cython_core.event import EventBatch
from cython_core.rows import COLUMNS
from engine.stores.tables import new_rows

OPERATIONS = 2_000_000
RUN_EVENTS = 20_000
REPEATS = 5


def run(operations: int = OPERATIONS) -> dict[str, float]:
    """The figures; medians of some passes over the same log."""
    log = log_of(BUILDERS["canonical"](operations))
    events = sum(batch.event_count for batch in log)
    made, coded, size = zip(*(one_pass(log) for _ in range(REPEATS)), strict=True)
    both = [events / (one + other) for one, other in zip(made, coded, strict=True)]
    return {"events": events, "events_per_second": statistics.median(both),
            "rows_events_per_second": events / statistics.median(made),
            "copy_events_per_second": events / statistics.median(coded),
            "copy_bytes_per_event": size[0] / events}


def one_pass(log: list[EventBatch]) -> tuple[float, float, int]:
    """Seconds for rows, seconds for COPY, bytes of COPY."""
    rows, made, coded, size = new_rows(), 0.0, 0.0, 0
    for number, batch in enumerate(log, 1):
        whole = False
        while not whole:
            started = time.perf_counter()
            whole = rows.apply(batch, limit_rows=RUN_EVENTS)
            middle = time.perf_counter()
            made += middle - started
            if rows.events >= RUN_EVENTS or not whole or number == len(log):
                size += sum(len(pgcopy.encode(rows, table)) for table in COLUMNS)
                coded += time.perf_counter() - middle
                rows.clear()
    return made, coded, size


if __name__ == "__main__":
    print(json.dumps(run(*(int(argument) for argument in sys.argv[1:])), indent=1))

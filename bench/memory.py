"""What a resting order costs in memory, everything included: `python -m bench.memory COUNT`.

A fresh process with one matcher enters so many orders that all rest, spread over two sides and
many prices, and looks at what its resident memory grew by.
"""

import json
import os
import sys
from pathlib import Path

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher

BATCH_ORDERS = 1_000
PRICES_PER_SIDE = 10_000
MID_UNITS = 1_000_000
LOTS_MAX = 1_000_000


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def enter(matcher: Matcher, first: int, count: int, batch: CommandBatch,
          events: EventBatch) -> None:
    """Enter orders with numbers from `first` on; none of them trades."""
    batch.clear()
    events.clear()
    batch.generation = matcher.generation
    for number in range(first, first + count):
        buy = number & 1
        distance = 1 + number * 7919 % PRICES_PER_SIDE
        batch.enter(1, number, 1, "B" if buy else "S", 10,
                    MID_UNITS - distance if buy else MID_UNITS + distance)
    matcher.apply(batch, events, number)


def bytes_per_order(count: int) -> float:
    """Resident bytes for each of `count` orders."""
    matcher, batch, events = Matcher(), CommandBatch(), EventBatch()
    batch.define_instrument(1, "BENCH", "BENCH", 2, 1, 0, 1, LOTS_MAX)
    batch.define_account(1, "BENCH")
    matcher.apply(batch, events, 1)
    enter(matcher, 1, BATCH_ORDERS, batch, events)
    before = resident_bytes()
    for first in range(BATCH_ORDERS + 1, BATCH_ORDERS + count, BATCH_ORDERS):
        enter(matcher, first, BATCH_ORDERS, batch, events)
    if matcher.resting_orders != BATCH_ORDERS + count:
        raise RuntimeError(f"{matcher.resting_orders} orders rest, not {BATCH_ORDERS + count}")
    return (resident_bytes() - before) / count


if __name__ == "__main__":
    print(json.dumps(bytes_per_order(int(sys.argv[1]))))

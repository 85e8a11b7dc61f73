"""The matcher alone: nanoseconds per operation on the flows of canonical.pyx, events written.

`python -m bench.matcher` prints every figure; `run()` gives them as a dictionary, `scenarios()` the
commands themselves, for an anchor that shall do the same work.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.canonical import Flow
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher

OPERATIONS = 2_000_000
SEED = 20_120_621
RUNS = 5
MEAN = 48.0               # ticks that a new order stands away from the mid, on average
MEMORY_ORDERS = 1_000_000


@dataclass
class Scenario:
    """Commands to be timed, after some that are not."""

    name: str
    instruments: int
    setup: list[CommandBatch] = field(repr=False)
    batches: list[CommandBatch] = field(repr=False)

    @property
    def operations(self) -> int:
        """Commands that are timed."""
        return sum(batch.command_count for batch in self.batches)


def make(name: str, instruments: int, build: Callable[[Flow], None], *, orders: int = 0,
         mean: float = MEAN) -> Scenario:
    """A scenario: `orders` resting before it, then what `build` adds."""
    flow = Flow(SEED, instruments)
    flow.fill(orders, mean, instruments)
    setup = [Flow.definitions(instruments), *flow.finish()]
    build(flow)
    return Scenario(name, instruments, setup, flow.finish())


BUILDERS: dict[str, Callable[[int], Scenario]] = {
    "canonical": lambda count: make(
        "canonical", 1, lambda flow: flow.canonical(count, 1, MEAN), orders=2_500),
    "cold_cancel": lambda count: make(
        "cold_cancel", 1, lambda flow: flow.cold(count), orders=min(500_000, count), mean=2000.0),
    "books100": lambda count: make(
        "books100", 100, lambda flow: flow.canonical(count, 100, MEAN), orders=38_000),
    "quiet": lambda count: make(
        "quiet", 1, lambda flow: flow.quiet(count, 20_000), orders=20_000, mean=8.0),
    "swing25": lambda count: make("swing25", 1, lambda flow: flow.swing(count, 0.25, 4, MEAN)),
    "swing40": lambda count: make("swing40", 1, lambda flow: flow.swing(count, 0.40, 4, MEAN)),
    "flash": lambda count: make("flash", 1, lambda flow: flow.crash(count, 4, MEAN)),
}


def scenarios(operations: int = OPERATIONS) -> Iterator[Scenario]:
    """Every scenario, one after the other, because each takes a lot of memory."""
    for build in BUILDERS.values():
        yield build(operations)


def time_matcher(scenario: Scenario) -> tuple[float, Matcher, int]:
    """Nanoseconds per operation, the matcher afterwards, units of events written."""
    matcher, events, units = Matcher(), EventBatch(), 0
    for batch in scenario.setup:
        events.clear()
        matcher.apply(batch, events, 1)
    gc.collect()
    started = time.perf_counter_ns()
    for batch in scenario.batches:
        events.clear()
        matcher.apply(batch, events, 1)
        units += len(events)
    took = time.perf_counter_ns() - started
    return took / scenario.operations, matcher, units


def log_of(scenario: Scenario) -> list[EventBatch]:
    """The events of a scenario, batch by batch."""
    matcher, log = Matcher(), []
    for batch in scenario.setup + scenario.batches:
        events = EventBatch()
        matcher.apply(batch, events, 1)
        log.append(events)
    return log


def time_replay(log: list[EventBatch]) -> float:
    """Events per second that a matcher takes in."""
    matcher = Matcher()
    started = time.perf_counter_ns()
    events = sum(matcher.replay(batch) for batch in log)
    return events * 1e9 / (time.perf_counter_ns() - started)


def resident_bytes() -> int:
    """Memory of this process that is really there."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def memory_per_order(orders: int) -> float:
    """Bytes that a resting order adds to the process, everything in."""
    flow = Flow(SEED, 1)
    flow.fill(orders, 2000.0)
    batches = [Flow.definitions(1), *flow.finish()]
    matcher, events = Matcher(), EventBatch()
    gc.collect()
    before = resident_bytes()
    for batch in batches:
        events.clear()
        matcher.apply(batch, events, 1)
    return (resident_bytes() - before) / matcher.resting_orders


def run(operations: int = OPERATIONS, runs: int = RUNS) -> dict[str, float]:
    """Every figure: medians of several runs."""
    figures: dict[str, float] = {}
    for scenario in scenarios(operations):
        timed = [time_matcher(scenario) for _ in range(runs)]
        figures[f"{scenario.name}_ns"] = statistics.median(ns for ns, _, _ in timed)
        if scenario.name == "canonical":
            figures["bytes_per_operation"] = timed[0][2] * 64 / scenario.operations
            figures["fills"] = timed[0][1].counters["fill"]
            figures["resting"] = timed[0][1].resting_orders
            figures["levels"] = sum(map(len, timed[0][1].levels(1, 1_000_000)))
            log = log_of(scenario)
            figures["replay_events_per_second"] = statistics.median(
                time_replay(log) for _ in range(runs))
    figures["memory_per_order_bytes"] = memory_per_order(min(MEMORY_ORDERS, operations))
    return figures


if __name__ == "__main__":
    for key, value in run().items():
        print(f"{key:28} {value:16,.1f}")

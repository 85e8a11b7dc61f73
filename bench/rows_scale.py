"""Rows of scale: does throughput hold with more connections, instruments, resting orders?

Each question changes one thing and keeps the rest: orders in flight per connection, orders that
rest in all books together. The journal is off, since a sync hides what an order costs.
"""

from typing import Any

from bench.measure import Pace, Row, closed, drive, median_of
from bench.rows_tcp import per_second
from bench.servers import daemon

TARGET_RATIO = 0.7
RESTING = 20_000
IN_FLIGHT_EACH = 100


def _row(key: str, title: str, figures: dict[int, float]) -> Row:
    """The last figure beside the first one."""
    first, last = min(figures), max(figures)
    return Row(key, title, "messages/s", figures[last], f"the same with {first:,}",
               figures[first], None, TARGET_RATIO,
               details={"per_second": {str(size): figure for size, figure in figures.items()}})


def _measure(pace: Pace, in_flight: int, resting: int, *, connections: int = 1,
             instruments: int = 1, depth_ticks: int = 8) -> float:
    """Messages per second with books that are full before the clock starts."""
    phases: list[dict[str, Any]] = [
        {"kind": "fill", "resting": resting, "in_flight": min(500, in_flight)},
        *[closed(in_flight, pace.seconds, resting=resting) for _ in range(pace.repeats)]]
    with daemon("off", accounts=connections, instruments=instruments) as server:
        runs = drive(server, phases, connections=connections, instruments=instruments,
                     depth_ticks=depth_ticks, orders_max=resting + 3 * in_flight)[1:]
    return median_of(runs, per_second)


def connections(pace: Pace) -> list[Row]:
    """1 to 1,000 connections, one account each: as many orders in flight on each of them, and,
    the hard question, as many in flight on all of them together."""
    sizes = (1, 10) if pace.quick else (1, 10, 100, 1000)
    each = {size: _measure(pace, IN_FLIGHT_EACH, RESTING // size, connections=size)
            for size in sizes}
    shared = {size: _measure(pace, 1000 // size, RESTING // size, connections=size)
              for size in sizes}
    return [_row("scale-connections", f"connections 1 to {max(sizes):,}, 100 in flight on each",
                 each),
            _row("scale-connections-shared",
                 f"connections 1 to {max(sizes):,}, 1,000 in flight on all", shared)]


def instruments(pace: Pace) -> list[Row]:
    """1 to 10,000 instruments, 20,000 resting orders over all of them."""
    sizes = (1, 100) if pace.quick else (1, 100, 10_000)
    figures = {size: _measure(pace, 1000, RESTING, instruments=size) for size in sizes}
    return [_row("scale-instruments", f"instruments 1 to {max(sizes):,}", figures)]


def resting(pace: Pace) -> list[Row]:
    """1,000 to 1,000,000 resting orders in one book; any of them may be the next to be canceled."""
    sizes = (1_000, 20_000) if pace.quick else (1_000, 30_000, 1_000_000)
    figures = {size: _measure(pace, 1000, size, depth_ticks=max(8, size // 500))
               for size in sizes}
    return [_row("scale-resting", f"resting orders 1,000 to {max(sizes):,}", figures)]

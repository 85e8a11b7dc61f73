"""Rows of scale: does throughput hold with more connections, instruments, resting orders?

Each question changes one thing and keeps the rest: orders in flight, and orders that rest in all
books together. Each is asked twice: of the venue as it comes (durable), and without a journal,
where no sync hides what an order costs.
"""

from typing import Any

from bench.measure import Pace, Row, closed, drive, median_of
from bench.rows_tcp import per_second
from bench.servers import daemon, echo_server

MODES = {"commit": "durable", "off": "sync off"}
TARGET_RATIO = 0.7
RESTING = 20_000
# Orders in flight on each connection when each has as many, and on all when they share them.
IN_FLIGHT_EACH = 100
IN_FLIGHT_ALL = 1_000
# Canceling a million orders in one message is a burst of 21 MB, and the proof at the end does it.
BURST_BYTES = 2**26


def _row(key: str, title: str, figures: dict[int, float]) -> Row:
    """The last figure beside the first one."""
    first, last = min(figures), max(figures)
    return Row(key, title, "messages/s", figures[last], f"the same with {first:,}",
               figures[first], None, TARGET_RATIO, details=_figures(figures))


def _figures(figures: dict[int, float]) -> dict[str, Any]:
    return {"per_second": {str(size): figure for size, figure in figures.items()}}


def _measure(pace: Pace, sync: str, in_flight: int, resting: int, *, connections: int = 1,
             instruments: int = 1, depth_ticks: int = 8) -> float:
    """Messages per second with books that are full before the clock starts."""
    phases: list[dict[str, Any]] = [
        {"kind": "fill", "resting": resting, "in_flight": min(500, in_flight)},
        *[closed(in_flight, pace.seconds, resting=resting) for _ in range(pace.repeats)]]
    with daemon(sync, accounts=connections, instruments=instruments,
                settings={"order_entry": {"unsent_max_bytes": BURST_BYTES}}) as server:
        runs = drive(server, phases, connections=connections, instruments=instruments,
                     depth_ticks=depth_ticks, orders_max=resting + 3 * in_flight)[1:]
    return median_of(runs, per_second)


def connections(pace: Pace) -> list[Row]:
    """1 to 1,000 connections, one account each: as many orders in flight on each of them, and
    as many in flight on all of them together, which leaves single messages to read and write."""
    sizes = (1, 10) if pace.quick else (1, 30, 1000)
    rows = []
    for sync, name in MODES.items():
        each = {size: _measure(pace, sync, IN_FLIGHT_EACH, RESTING // size, connections=size)
                for size in sizes}
        rows.append(_row(f"scale-connections-{sync}", f"connections 1 to {max(sizes):,}, "
                         f"{IN_FLIGHT_EACH} in flight on each, {name}", each))
    return [*rows, _shared(pace, sizes)]


def _shared(pace: Pace, sizes: tuple[int, ...]) -> Row:
    """Messages one by one over many connections, beside an echo server that gets them so."""
    shared = {size: _measure(pace, "off", IN_FLIGHT_ALL // size, RESTING // size,
                             connections=size) for size in sizes}
    last = max(sizes)
    with echo_server("uvloop") as server:
        echo = drive(server, [closed(IN_FLIGHT_ALL // last, pace.seconds, resting=1)],
                     connections=last, echo=True)
    return Row("scale-connections-shared", f"connections {last:,}, {IN_FLIGHT_ALL:,} in flight on "
               "all together, sync off", "messages/s", shared[last],
               f"uvloop echo over {last:,}", per_second(echo[0]), details=_figures(shared))


def instruments(pace: Pace) -> list[Row]:
    """1 to 10,000 instruments, 20,000 resting orders over all of them."""
    sizes = (1, 100) if pace.quick else (1, 100, 10_000)
    return [_row(f"scale-instruments-{sync}", f"instruments 1 to {max(sizes):,}, {name}",
                 {size: _measure(pace, sync, IN_FLIGHT_ALL, RESTING, instruments=size)
                  for size in sizes}) for sync, name in MODES.items()]


def resting(pace: Pace) -> list[Row]:
    """1,000 to 1,000,000 resting orders in one book; any of them may be the next to be canceled."""
    sizes = (1_000, 20_000) if pace.quick else (1_000, 30_000, 1_000_000)
    return [_row(f"scale-resting-{sync}", f"resting orders 1,000 to {max(sizes):,}, {name}",
                 {size: _measure(pace, sync, IN_FLIGHT_ALL, size,
                                 depth_ticks=max(8, size // 500)) for size in sizes})
            for sync, name in MODES.items()]

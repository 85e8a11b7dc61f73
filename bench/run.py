"""`make bench`: every row of the table with its anchor, in one run, with its conditions.

Prints each row when it is done and writes all of them to bench/results/ as JSON. Refuses a debug
build, whose figures mean nothing; warns when others use the machine.
"""

import sys
from pathlib import Path

if not __package__:
    # Called as `python bench/run.py`: this folder would hide the standard library's http.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench import (
    history,
    rows_core,
    rows_export,
    rows_feed,
    rows_history,
    rows_http,
    rows_postgres,
    rows_queue,
    rows_redis,
    rows_scale,
    rows_sqlite,
    rows_stores,
    rows_tcp,
    rows_udp,
    servers,
)
from bench.conditions import (
    JITTER_SECONDS,
    TINY_JITTER_SECONDS,
    conditions,
    stamp,
    warnings,
)
from bench.measure import FULL, QUICK, TINY, Pace, Row, number, target_text
from cython_core.build import BUILD_MODE

# Titles in the table at the end are cut to this.
TITLE_WIDTH = 64
RESULTS_DIR = Path(__file__).resolve().parent / "results"

ROWS: dict[str, Callable[[Pace], list[Row]]] = {
    "matcher": rows_core.matcher,
    "durable": rows_tcp.sustained,
    "durable-100": rows_tcp.durable_100,
    "off": rows_tcp.off_1000,
    "trips": rows_tcp.round_trips,
    "udp-latency": rows_udp.latency,
    "udp-throughput": rows_udp.throughput,
    "udp-sustained": rows_udp.sustained,
    "connections": rows_scale.connections,
    "instruments": rows_scale.instruments,
    "resting": rows_scale.resting,
    "memory": rows_core.memory,
    "recovery": rows_core.recovery,
    "export": rows_export.export,
    "feed": rows_feed.feed,
    "feed-cost": rows_feed.cost,
    "http-orders": rows_http.orders,
    "http-health": rows_http.health,
    "redis": rows_redis.store,
    "redis-orders": rows_queue.orders,
    "dead-store": rows_stores.dead_store,
    "sustained": rows_stores.sustained,
    "history": rows_history.history,
    "sqlite": rows_sqlite.store,
    "sqlite-orders": rows_sqlite.orders,
    "postgres": rows_postgres.store,
}


def print_row(row: Mapping[str, Any]) -> None:
    """Two lines for the eye."""
    parts = [f"    matchd {number(row['ours'])} {row['unit']}"]
    if row["anchor"] is not None:
        parts += [f"{row['anchor_name']} {number(row['anchor'])}", f"ratio {row['ratio']:.2f}"]
    if row["reached"]:
        parts += [f"target {target_text(row)}", f"reached: {row['reached']}"]
    print(row["title"] + "\n" + " · ".join(parts), flush=True)


def one_table(result: dict[str, Any], before: Sequence[history.Named]) -> list[str]:
    """Every row in a line, beside what it was in earlier runs."""
    head = ["what", "matchd", "ratio", "target", "before", "change", "best", ""]
    lines = [head]
    for row in result["rows"]:
        stands = history.standing(row, history.earlier(before, result, row["key"]))
        lines.append([
            row["title"][:TITLE_WIDTH], f"{number(row['ours'])} {row['unit']}",
            f"{row['ratio']:.2f}" if row["ratio"] else "-", row["reached"] or "-",
            number(stands.previous.ours) if stands.previous else "-",
            f"{stands.change:+.1%}" if stands.change is not None else "-",
            number(stands.best), stands.worse or ("best so far" if stands.is_best else "")])
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return ["", *("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)
                            ).rstrip() for line in lines), "", history.legend(result, before)]


def print_curves(curves: dict[str, list[dict[str, Any]]]) -> None:
    """Latency (us) against offered load (messages/s), one block for each sync mode."""
    for sync, points in curves.items():
        print(f"latency from the intended send time, journal.sync = {sync} (us)")
        print(f"    {'offered/s':>10} {'answered/s':>10} {'p50':>8} {'p90':>8} {'p99':>8} "
              f"{'p99.9':>8} {'max':>8}")
        for point in points:
            times = [point["latency"][f"{name}_ns"] / 1000
                     for name in ("p50", "p90", "p99", "p99.9", "max")]
            print(f"    {number(point['offered']):>10} {number(point['answered']):>10} "
                  + " ".join(f"{time:8.0f}" for time in times)
                  + ("" if point["carried"] else "   not carried"), flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", help=f"which: {' '.join([*ROWS, 'curve'])} (all)")
    parser.add_argument("--quick", action="store_true", help="in a minute, less sure")
    parser.add_argument("--tiny", action="store_true", help="only that everything runs")
    parser.add_argument("--minutes", type=float, metavar="N", help="the length of long runs "
                        "(`durable`, each store of `sustained`, `udp-sustained`), in place of one "
                        "minute, and of five")
    parser.add_argument("--unpinned", action="store_true",
                        help="let servers run on the load generator's core too")
    parser.add_argument("--json", action="store_true", help="print the result file instead")
    parser.add_argument("--results", type=Path, default=RESULTS_DIR, help="where results go")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.rows) - {*ROWS, "curve"}
    if unknown:
        parser.error(f"no such row: {' '.join(sorted(unknown))}")
    return chosen


def measure(chosen: list[str], pace: Pace, show: bool) -> dict[str, Any]:
    """Run the chosen rows one after the other."""
    rows: list[dict[str, Any]] = []
    for name in chosen:
        if name == "curve":
            continue
        for row in ROWS[name](pace):
            rows.append(row.as_dict())
            if show:
                print_row(rows[-1])
    result: dict[str, Any] = {"rows": rows}
    if "curve" in chosen:
        result["curves"] = rows_tcp.curves(pace)
        if show:
            print_curves(result["curves"])
    return result


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit code: 1 for a build that must not be measured."""
    chosen = parse(arguments)
    if BUILD_MODE != "release":
        print(f"bench: this is a {BUILD_MODE} build; `make build` makes a release build",
              file=sys.stderr)
        return 1
    pace = TINY if chosen.tiny else QUICK if chosen.quick else FULL
    if chosen.minutes is not None:
        pace = replace(pace, minute=60 * chosen.minutes, long=60 * chosen.minutes)
    started = time.monotonic()
    servers.PINNED = not chosen.unpinned
    noise_seconds = TINY_JITTER_SECONDS if chosen.tiny else JITTER_SECONDS
    result: dict[str, Any] = {"conditions": conditions(noise_seconds)
                              | {"servers_pinned": servers.PINNED},
                              "pace": pace.__dict__}
    for line in warnings(result["conditions"]["noise"]):
        print(f"bench: the machine is not quiet: {line}", file=sys.stderr)
    result |= measure(chosen.rows or [*ROWS, "curve"], pace, not chosen.json)
    result["seconds"] = time.monotonic() - started
    result["noise_after"] = conditions(noise_seconds)["noise"]
    before = history.load(chosen.results)
    path = write_result(result, chosen.results)
    print(json.dumps(result, indent=1) if chosen.json
          else "\n".join([*one_table(result, before),
                          f"{result['seconds']:.0f} s; written to {path}"]))
    return 0


def write_result(result: dict[str, Any], directory: Path) -> Path:
    """Keep the result under its time and commit."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stamp(result['conditions'])}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())

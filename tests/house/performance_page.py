"""Makes the tables of docs/performance.md from the results of `make bench` in bench/results.

`python -m tests.house.performance_page` writes them; a test holds them against the results. Each
figure is the newest that there is of its row, beside the command that measures it again.
"""

import json
import re
from pathlib import Path
from typing import Any

from bench.table import number, target_text

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "bench" / "results"

BEGIN, END = "<!-- measured: begins -->", "<!-- measured: ends -->"

# What the key of a row begins with, and the row of `make bench` that makes it: the first that fits.
MADE_BY = {
    "matcher-": "matcher", "tcp-durable-100$": "durable-100", "tcp-durable-": "durable",
    "tcp-off-": "off", "trip-": "trips", "udp-sustained": "udp-sustained",
    "udp-(latency|trip)": "udp-latency", "udp-": "udp-throughput",
    "scale-connections": "connections", "scale-instruments": "instruments",
    "scale-resting": "resting", "memory$": "memory", "recovery$": "recovery",
    "snapshot-pause$": "recovery", "export-": "export", "rows$": "export",
    "feed-(cost|idle)": "feed-cost", "feed-": "feed", "http-orders": "http-orders",
    "http-health$": "http-health", "redis-orders": "redis-orders", "redis": "redis",
    "dead-store": "dead-store", "sustained-": "sustained", "history-": "history",
    "sqlite-(orders|p99|catch-up)$": "sqlite-orders", "sqlite-": "sqlite", "postgres-": "postgres",
}
# The page's sections, in its order.
SECTIONS = {
    "Order entry": ("durable", "durable-100", "off", "trips"),
    "Order entry over UDP": ("udp-latency", "udp-throughput", "udp-sustained"),
    "Many connections, instruments, orders": ("connections", "instruments", "resting"),
    "Matcher, memory, recovery": ("matcher", "memory", "recovery"),
    "Feed": ("feed", "feed-cost"),
    "HTTP": ("http-orders", "http-health", "history"),
    "Stores": ("sqlite", "sqlite-orders", "postgres", "redis", "redis-orders", "dead-store",
               "sustained"),
    "Export": ("export",),
}


def made_by(key: str) -> str:
    """The row of `make bench` that a result's key comes from. Raises KeyError for a new one."""
    for begin, name in MADE_BY.items():
        if re.match(begin, key):
            return name
    raise KeyError(f"{key}: which row of `make bench` makes it? MADE_BY has to say")


def newest() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each row as (file, its run's result, row), from the newest file that has it."""
    seen: set[str] = set()
    found = []
    for path in sorted(RESULTS.glob("[0-9]*.json"), reverse=True):
        result = json.loads(path.read_text())
        rows = [row for row in result["rows"] if row["key"] not in seen]
        seen.update(row["key"] for row in rows)
        found += [(path.name, result, row) for row in rows]
    return found


def run_text(name: str, result: dict[str, Any]) -> str:
    """Where and when a run was."""
    about = result["conditions"]
    return (f"`bench/results/{name}`: {about['cpu']}, {about['cores']} cores, Linux "
            f"{about['kernel']}, Python {about['python']}, "
            f"{about['filesystem'].partition(' ')[0]}; commit {about['commit']}, "
            f"{about['time'][:10]}")


def line(row: dict[str, Any], run: int) -> str:
    """One row of a table."""
    anchor = f"{row['anchor_name']}: {number(row['anchor'])}" if row["anchor"] else ""
    ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
    target = f"{target_text(row)}: {row['reached']}" if row["reached"] else ""
    return (f"| {row['title']} | {number(row['ours'])} {row['unit']} | {anchor} | {ratio} | "
            f"{target} | `make bench ARGS={made_by(row['key'])}` | {run} |")


def curve(result: dict[str, Any], run: int) -> list[str]:
    """Latency against load, for each mode of the journal."""
    curves = result["curves"]
    rates = sorted({point["offered"] for points in curves.values() for point in points})
    lines = ["", "## Latency against load", "",
             f"`make bench ARGS=curve`, run {run}. Microseconds from the moment a message was "
             "meant to leave until its answer, p50 / p99.9, by messages offered per second and "
             "`journal.sync`.", "",
             "| offered | " + " | ".join(f"`{sync}`" for sync in curves) + " |",
             "|---|" + "---|" * len(curves)]
    for rate in rates:
        cells = [cell([point for point in points if point["offered"] == rate])
                 for points in curves.values()]
        lines.append(f"| {number(rate)} | " + " | ".join(cells) + " |")
    return lines


def cell(points: list[dict[str, Any]]) -> str:
    """One load in one mode."""
    if not points:
        return ""
    point, latency = points[0], points[0]["latency"]
    if not point["carried"]:
        return f"not carried: {number(point['answered'])}"
    return f"{latency['p50_ns'] / 1000:.0f} / {latency['p99.9_ns'] / 1000:.0f}"


def tables() -> str:
    """All that is measured."""
    found = newest()
    runs = sorted({name: result for name, result, _ in found}.items(), reverse=True)
    numbers = {name: index for index, (name, _) in enumerate(runs, 1)}
    lines = []
    for title, makers in SECTIONS.items():
        rows = [(makers.index(made_by(row["key"])), row, numbers[name])
                for name, _, row in found if made_by(row["key"]) in makers]
        if rows:
            lines += ["", f"## {title}", "", "| what | matchd | anchor | ratio | target | again | "
                      "run |", "|---|---|---|---|---|---|---|",
                      *(line(row, run) for _, row, run in sorted(rows, key=lambda one: one[0]))]
    curves = [(name, result) for name, result in runs if "curves" in result]
    if curves:
        lines += curve(curves[0][1], numbers[curves[0][0]])
    lines += ["", "## The runs", "", *(f"{index}. {run_text(name, result)}"
                                       for index, (name, result) in enumerate(runs, 1))]
    return "\n".join(lines) + "\n\n"


def page() -> str:
    """The whole page, with what stands around the tables as it is."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page())

"""The soak's report: one HTML page that needs nothing else, its plots as SVG files, and the JSON.

The page has every check with its limit, the machine, and the plots; each plot has its figures as a
table behind it, for those who don't see it or want to count.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from bench.histogram import Histogram
from bench.plot import Axis, Line, line_plot
from bench.soakchecks import MIB, Check, Plan, Run, latency, memory_points
from bench.soakwatch import slope_per_second

# A table has at most so many rows; of more, every second, third ...
ROWS_MAX = 60
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
Points = list[tuple[float, float]]

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1f2328; background: #ffffff }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px }
th, td { border: 1px solid #d0d7de; padding: .3rem .6rem; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.failed { font-weight: 700; color: #b3261e }
figure { margin: 1.5rem 0 }
figure svg { width: 100%; height: auto; border: 1px solid #d0d7de }
pre { overflow: auto }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117 }
  th, td, figure svg { border-color: #30363d }
  .failed { color: #ff9a92 }
}
"""


class Figure:
    """One plot with the file's name and its lines."""

    def __init__(self, name: str, title: str, unit: str, drawn: Sequence[Line], *,
                 log: bool = False, from_zero: bool = True) -> None:
        self.name, self.title, self.drawn = name, title, drawn
        about = "; ".join(f"{line.name}: {_range(line)} {unit}" for line in drawn)
        self.svg = line_plot(name, title, f"{title} against minutes. {about}",
                             Axis("time (minutes)"), Axis(f"{title.split(',')[0]} ({unit})", log),
                             drawn, from_zero=from_zero)

    def table(self) -> str:
        """The figures, for those who don't see the plot."""
        times = [one for one, _ in self.drawn[0].points] if self.drawn else []
        step = max(1, -(-len(times) // ROWS_MAX))
        values = [dict(line.points) for line in self.drawn]
        head = "".join(f"<th scope='col'>{escape(line.name)}</th>" for line in self.drawn)
        rows = "".join(
            f"<tr><td class='number'>{at:.2f}</td>" + "".join(
                f"<td class='number'>{column[at]:,.4g}</td>" if at in column else "<td></td>"
                for column in values) + "</tr>" for at in times[::step])
        return (f"<details><summary>{escape(self.title)}: the figures</summary><table>"
                f"<tr><th scope='col'>minute</th>{head}</tr>{rows}</table></details>")


def _range(line: Line) -> str:
    values = [value for _, value in line.points]
    if not values:
        return "nothing,"
    return f"{min(values):.4g} to {max(values):.4g}, at the end {values[-1]:.4g}"


def _over_time(rows: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> Points:
    return [(row["time_s"] / 60, of(row)) for row in rows]


def _sampled(run: Run, key: str) -> Points:
    return _over_time(run.samples, lambda row: float(row[key]))


def _piece_latency(run: Run, percent: float) -> Points:
    def milliseconds(piece: dict[str, Any]) -> float:
        found = Histogram()
        found.add_sparse(piece["histogram"])
        return found.percentile(percent) / 1e6
    return _over_time(run.pieces, milliseconds)


def figures(plan: Plan, run: Run) -> list[Figure]:
    """Every plot of the report."""
    memory = [Line("the daemon", _over_time(run.samples, lambda row: row["rss_bytes"] / MIB))]
    points = memory_points(plan, run)
    if len(points) > 2:
        # A line of the median slope through the middle of what was measured.
        slope = slope_per_second(points)
        middle_x = (points[0][0] + points[-1][0]) / 2
        level = sorted(value - slope * (at - middle_x) for at, value in points)[len(points) // 2]
        memory.append(Line(f"median slope, {slope * 3600:+.1f} MiB an hour",
                           [(at / 60, level + slope * (at - middle_x))
                            for at in (points[0][0], points[-1][0])]))
    return [
        Figure("memory", "Resident memory", "MiB", memory, from_zero=False),
        Figure("latency", "Answer latency, order to durable answer, as the client sees it", "ms",
               [Line(name, _piece_latency(run, percent))
                for name, percent in PERCENTILES.items()], log=True),
        Figure("rate", "Orders answered", "per second",
               [Line("answered", _over_time(run.pieces, lambda one: one["orders_per_second"])),
                Line("set", [(at / 60, plan.rate) for at in (0, plan.seconds)])]),
        Figure("lag", "Loop lag", "ms", [Line("p50", _sampled(run, "lag_p50_ms")),
                                         Line("p99", _sampled(run, "lag_p99_ms"))]),
        Figure("gc", "Pauses of the garbage collector", "ms",
               [Line("p50", _sampled(run, "gc_p50_ms")), Line("p99", _sampled(run, "gc_p99_ms"))]),
        Figure("stages", "Commits and answers inside the venue, p99", "ms",
               [Line("commit", _sampled(run, "commit_p99_ms")),
                Line("answer", _sampled(run, "ack_p99_ms"))], log=True),
        Figure("cpu", "Processor time of the daemon", "cores",
               [Line("used", _sampled(run, "cpu"))]),
        Figure("stores", "Stores behind the journal", "s",
               [Line("the slowest", _sampled(run, "store_lag_s"))])]


def write(folder: Path, plan: Plan, run: Run, found: Sequence[Check],
          about: dict[str, Any]) -> Path:
    """Write the report; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures(plan, run)
    for one in drawn:
        (folder / f"{one.name}.svg").write_text(one.svg)
    path = folder / "report.html"
    path.write_text(page(plan, run, found, about, drawn))
    short = asdict(run) | {"pieces": [{key: value for key, value in piece.items()
                                       if key != "histogram"} for piece in run.pieces]}
    (folder / "soak.json").write_text(json.dumps(
        {"conditions": about, "plan": asdict(plan), "checks": [asdict(one) for one in found],
         "latency": latency(plan, run).summary(), "run": short}, indent=1) + "\n")
    return path


def page(plan: Plan, run: Run, found: Sequence[Check], about: dict[str, Any],
         drawn: Sequence[Figure]) -> str:
    """The whole page."""
    bad = [one.name for one in found if one.passed is False]
    verdict = f"<p class='failed'>Failed: {escape(', '.join(bad))}</p>" if bad \
        else "<p>Every check passed.</p>"
    command = (f'make soak ARGS="--minutes {plan.minutes:g} --rate {plan.rate:g} '
               f"--transport {plan.transport} --connections {plan.connections} "
               f"--instruments {plan.instruments} --feed-clients {plan.feed_clients} "
               f"--stores '{','.join(plan.stores)}'\"")
    plots = "\n".join(f"<figure>{one.svg}{one.table()}</figure>" for one in drawn)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Soak of {escape(about["commit"])}, {escape(about["time"])}</title>
<style>{STYLE}</style></head>
<body>
<h1>Soak: {plan.minutes:g} minutes, {plan.rate:,.0f} orders/s</h1>
{verdict}
{_check_table(found)}
<p>Behind the first {plan.warm_seconds:.0f} seconds: {escape(_summary(plan, run))}.</p>
<h2>Over time</h2>
{plots}
<h2>Conditions</h2>
{_conditions(about)}
<h2>Again</h2>
<pre>{escape(command)}</pre>
</body>
</html>
"""


def _summary(plan: Plan, run: Run) -> str:
    total, whole = latency(plan, run), run.whole
    parts = [f"answers {name} {total.percentile(percent) / 1e6:.2f} ms"
             for name, percent in PERCENTILES.items()]
    if whole:
        parts += [f"loop lag p99 {whole['lag_p99_ms']:.2f} ms, at most {whole['lag_max_ms']:.2f}",
                  f"pauses of the garbage collector p99 {whole['gc_p99_ms']:.2f} ms, at most "
                  f"{whole['gc_max_ms']:.2f}, {whole['gc_share']:.2%} of the time",
                  f"{whole['cpu']:.2f} cores used"]
    return ", ".join(parts)


def _check_table(found: Sequence[Check]) -> str:
    words = {True: "<td>passed</td>", False: "<td class='failed'>FAILED</td>",
             None: "<td>not judged</td>"}
    rows = "\n".join(f"<tr><th scope='row'>{escape(one.name)}</th>{words[one.passed]}"
                     f"<td>{_text(one.found)}</td><td>{_text(one.limit)}</td></tr>"
                     for one in found)
    return ("<table><tr><th scope='col'>check</th><th scope='col'></th><th scope='col'>found</th>"
            f"<th scope='col'>limit</th></tr>\n{rows}</table>")


def _text(words: str) -> str:
    """Commands stand between backticks."""
    return re.sub(r"`(.*?)`", r"<code>\1</code>", escape(words))


def _conditions(about: dict[str, Any]) -> str:
    rows = "\n".join(f"<tr><th scope='row'>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
                     for name, value in about.items() if name != "noise")
    noise = about["noise"]
    return (f"<table>{rows}<tr><th scope='row'>load before</th><td>{noise['load_average']:.2f}, "
            f"{noise['others_share']:.0%} of the machine taken by others</td></tr></table>")

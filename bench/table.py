"""Renders the README's tables from the newest results: `python -m bench.table [--write]`.

Every number comes from a result file, and the file from `make bench`. A run of some rows only gets
a table of its own; the others stay as they were measured last. `--history` prints every row over
all runs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import history
from bench.measure import number, target_text
from bench.run import RESULTS_DIR
from bench.servers import ROOT

HEADING = "## Measured"
EARLIER = (
    "`earlier` is the run before on the same processor, measured as long and as often, with the "
    "change since, then the best so far; **worse** is more than the runs of a row lie apart (at "
    f"least {history.SPREAD_MIN:.0%}), and `-` a row without such a run. All runs of a row: "
    "`python -m bench.table --history`.")


def newest(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    """Results with the names of their files, newest first, each row in the newest that has it.
    Raises FileNotFoundError when there are none."""
    seen: set[str] = set()
    found = []
    for name, result in reversed(history.load(directory)):
        rows = [row for row in result["rows"] if row["key"] not in seen]
        if rows:
            found.append((name, result | {"rows": rows}))
        seen.update(row["key"] for row in rows)
    if not found:
        raise FileNotFoundError(f"no results in {directory}: run `make bench` first")
    return found


def _row(row: dict[str, Any], earlier: str) -> str:
    ours = f"{number(row['ours'])} {row['unit']}"
    anchor = f"{row['anchor_name']}: {number(row['anchor'])}" if row["anchor"] else "-"
    ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
    return (f"| {row['title']} | {ours} | {anchor} | {ratio} | {target_text(row)} | "
            f"{row['reached']} | {earlier} |")


def _curve(curves: dict[str, list[dict[str, Any]]]) -> list[str]:
    """p50 / p99.9 of each sync mode at each offered rate."""
    rates = sorted({point["offered"] for points in curves.values() for point in points})
    lines = ["", "Acknowledgement latency in us, p50 / p99.9, from the intended send time, "
             "against messages offered per second:", "",
             "| offered | " + " | ".join(f"`{sync}`" for sync in curves) + " |",
             "|---|" + "---|" * len(curves)]
    for rate in rates:
        cells = []
        for points in curves.values():
            found = [point for point in points if point["offered"] == rate]
            cells.append(_point(found[0]) if found else "")
        lines.append(f"| {number(rate)} | " + " | ".join(cells) + " |")
    return lines


def _point(point: dict[str, Any]) -> str:
    if not point["carried"]:
        return f"not carried: {number(point['answered'])}"
    latency = point["latency"]
    return f"{latency['p50_ns'] / 1000:.0f} / {latency['p99.9_ns'] / 1000:.0f}"


def render(results: list[tuple[str, dict[str, Any]]],
           before: Sequence[history.Named] = ()) -> str:
    """The section, heading included, without a blank line at its end. `before`: all results,
    which rows are compared with."""
    return "\n\n".join([HEADING, EARLIER, *(_table(result, name, before)
                                            for name, result in results)])


def _table(result: dict[str, Any], name: str, before: Sequence[history.Named]) -> str:
    about = result["conditions"]
    noise = about["noise"]
    lines = [
        f"`make bench` on {about['cpu']}, {about['cores']} cores shared by the venue, the load "
        f"generator and the disk; Linux {about['kernel']}, Python {about['python']}, "
        f"{about['filesystem'].partition(' ')[0]}; commit {about['commit']}, {about['time'][:10]}, "
        f"load {noise['load_average']:.2f} before the run. All figures of one run: "
        f"`bench/results/{name}`. What each row asks: [bench/README.md](bench/README.md).", "",
        "| what | matchd | anchor in the same run | ratio | target | reached | earlier |",
        "|---|---|---|---|---|---|---|",
        *[_row(row, history.text(history.standing(row, history.earlier(before, result,
                                                                       row["key"]))))
          for row in result["rows"]]]
    if "curves" in result:
        lines += _curve(result["curves"])
    return "\n".join(lines)


def replace_section(text: str, section: str) -> str:
    """The README with its section exchanged, or with it at the end when it had none."""
    before, found, after = text.partition(HEADING)
    if not found:
        return text.rstrip("\n") + "\n\n" + section + "\n"
    at = after.find("\n## ")
    return before + section + "\n" + (after[at:] if at >= 0 else "")


def main(arguments: list[str] | None = None) -> int:
    """Print the section, or put it into README.md; or the history of rows."""
    parser = argparse.ArgumentParser(prog="bench.table", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    parser.add_argument("result", nargs="?", type=Path, help="a result file (else the newest)")
    parser.add_argument("--history", nargs="*", metavar="KEY",
                        help="print every row over all runs, or those whose keys begin so")
    parser.add_argument("--results", type=Path, default=RESULTS_DIR, help="where results are")
    chosen = parser.parse_args(arguments)
    path, every = chosen.result, history.load(chosen.results)
    if chosen.history is not None:
        print("\n".join(history.lines(every, chosen.history)))
        return 0
    found = [(path.name, json.loads(path.read_text()))] if path else newest(chosen.results)
    section = render(found, every)
    readme = ROOT / "README.md"
    if chosen.write:
        readme.write_text(replace_section(readme.read_text(), section))
    else:
        print(section)
    return 0


if __name__ == "__main__":
    sys.exit(main())

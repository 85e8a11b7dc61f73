"""How each row did in earlier runs: what is compared with what, and what counts as worse.

Figures of two machines say nothing about the code, so a row is compared only with runs on the same
processor with as many cores, as long and as often measured. The runs that a figure is the median
of lie some way apart; only what is worse by more than that is called worse.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conditions import warnings
from bench.measure import number

# Runs closer than this are alike, however close to each other the runs of one row were.
SPREAD_MIN = 0.05
# What is assumed of rows that were measured once.
SPREAD_UNKNOWN = 0.10

Result = dict[str, Any]
# A result with the name of its file.
Named = tuple[str, Result]


@dataclass(frozen=True)
class Earlier:
    """One row in one earlier run."""

    file: str
    commit: str
    time: str
    ours: float
    ratio: float | None
    anchor_name: str
    spread: float | None


@dataclass(frozen=True)
class Standing:
    """A row beside the comparable runs before it. `change` is ours / previous - 1; `worse` is
    empty, "worse", or "worse, not the ratio" where the anchor fell with it."""

    runs: int
    previous: Earlier | None
    change: float | None
    best: float | None
    is_best: bool
    allowed: float
    worse: str


def load(directory: Path) -> list[Named]:
    """The results of `make bench` in a folder, oldest first; other benches' are named otherwise."""
    return [(path.name, json.loads(path.read_text()))
            for path in sorted(directory.glob("[0-9]*.json"))]


def machine(result: Result) -> str:
    """What a result was measured on, as far as figures depend on it."""
    about = result["conditions"]
    return f"{about['cpu']}, {about['cores']} cores"


def comparable(result: Result) -> tuple[Any, ...]:
    """Results are compared when this is equal: the machine, and how it was measured."""
    pace = result.get("pace", {})
    return (machine(result), result["conditions"].get("servers_pinned", True),
            pace.get("quick"), pace.get("seconds"), pace.get("repeats"))


def is_noisy(result: Result) -> bool:
    """Whether others used the machine, before or after."""
    found = [result["conditions"].get("noise"), result.get("noise_after")]
    return any(warnings(noise) for noise in found if noise)


def earlier(results: Iterable[Named], result: Result, key: str) -> list[Earlier]:
    """The row of this key in the comparable results before this one, oldest first."""
    alike = comparable(result)
    found = []
    for name, other in results:
        if other["conditions"]["time"] >= result["conditions"]["time"] \
                or comparable(other) != alike:
            continue
        found += [_earlier(name, other, row) for row in other["rows"] if row["key"] == key]
    return sorted(found, key=lambda one: one.time)


def _earlier(name: str, result: Result, row: dict[str, Any]) -> Earlier:
    about = result["conditions"]
    return Earlier(name, about["commit"], about["time"], float(row["ours"]), row["ratio"],
                   row["anchor_name"], row.get("spread"))


def standing(row: dict[str, Any], before: Sequence[Earlier]) -> Standing:
    """How a row stands beside what it was."""
    if not before:
        return Standing(0, None, None, None, False, SPREAD_UNKNOWN, "")
    previous, ours, higher = before[-1], float(row["ours"]), row["higher"]
    best = (max if higher else min)(one.ours for one in before)
    allowed = _allowed(row, previous)
    worse = ""
    if _is_worse(ours, previous.ours, higher, allowed):
        # Where the anchor fell as much, it is the machine that is slower.
        beside = previous.ratio if previous.anchor_name == row["anchor_name"] else None
        holds = beside is not None and row["ratio"] is not None \
            and not _is_worse(row["ratio"], beside, higher, allowed)
        worse = "worse, not the ratio" if holds else "worse"
    change = ours / previous.ours - 1 if previous.ours else None
    return Standing(len(before), previous, change, best,
                    ours >= best if higher else ours <= best, allowed, worse)


def _allowed(row: dict[str, Any], previous: Earlier) -> float:
    known = [spread for spread in (row.get("spread"), previous.spread) if spread is not None]
    return max([SPREAD_MIN, *known]) if known else SPREAD_UNKNOWN


def _is_worse(now: float, before: float, higher: bool, allowed: float) -> bool:
    return now < before * (1 - allowed) if higher else now > before * (1 + allowed)


def legend(result: Result, results: Sequence[Named]) -> str:
    """What the columns of earlier runs are of."""
    alike = sum(comparable(other) == comparable(result) and
                other["conditions"]["time"] < result["conditions"]["time"]
                for _, other in results)
    return (f"before, best: of {alike} earlier results on {machine(result)}{_how(result)}. worse: "
            f"by more than the runs of a row lie apart, at least {SPREAD_MIN:.0%} "
            f"({SPREAD_UNKNOWN:.0%} where a row is measured once); not the ratio: its anchor fell "
            "with it.")


def text(stands: Standing) -> str:
    """A cell of the README's table."""
    if stands.previous is None:
        return "-"
    change = f" ({stands.change:+.0%})" if stands.change is not None else ""
    best = "best" if stands.is_best else f"best {number(stands.best)}"
    worse = f" **{stands.worse}**" if stands.worse else ""
    return f"{number(stands.previous.ours)}{change}, {best}{worse}"


def lines(results: Sequence[Named], keys: Sequence[str] = ()) -> list[str]:
    """Every row over all runs, oldest first: of each machine for itself. `keys` chooses rows by
    how their keys begin."""
    titles: dict[str, dict[str, Any]] = {}
    for _, result in results:
        titles |= {row["key"]: row for row in result["rows"]}
    found = []
    for key, row in titles.items():
        if keys and not key.startswith(tuple(keys)):
            continue
        found.append(f"{key}: {row['title']} ({row['unit']}, "
                     f"{'more' if row['higher'] else 'less'} is better)")
        for kind in dict.fromkeys(comparable(result) for _, result in results):
            found += _of_machine([one for one in results if comparable(one[1]) == kind], key)
    return found


def _of_machine(results: Sequence[Named], key: str) -> list[str]:
    found: list[str] = []
    for _, result in results:
        for row in result["rows"]:
            if row["key"] != key:
                continue
            if not found:
                found.append(f"  {machine(result)}{_how(result)}")
            about, stands = result["conditions"], standing(row, earlier(results, result, key))
            parts = [f"    {about['time'][:16].replace('T', ' ')}", f"{about['commit']:<13}",
                     f"{number(row['ours']):>7}",
                     f"ratio {row['ratio']:5.2f}" if row["ratio"] else " " * 11]
            if stands.change is not None:
                parts.append(f"{stands.change:+7.1%}")
            parts += ["best" for _ in range(stands.is_best)]
            parts += [stands.worse] if stands.worse else []
            parts += ["(the machine was not quiet)"] if is_noisy(result) else []
            found.append("  ".join(parts).rstrip())
    return found


def _how(result: Result) -> str:
    pace = result.get("pace", {})
    return (f", {pace.get('repeats')} x {pace.get('seconds'):g} s"
            if pace.get("seconds") else "")

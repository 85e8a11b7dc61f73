"""A row is compared with runs that can be compared, and called worse when it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import history, run, table
from bench.measure import Median, Row, median_of

QUIET = {"others_share": 0.0, "cores": {"0": {"share": 0.0, "longest_us": 9.0}},
         "load_average": 0.1}


def result(day: int, ours: float, *, anchor: float | None = 50.0, cpu: str = "A",
           higher: bool = True, spread: float | None = 0.02, seconds: float = 3.0,
           noise: dict[str, Any] | None = None) -> history.Named:
    row = Row("key", "the title", "orders/s", ours, "anchor" if anchor else "", anchor,
              higher=higher).as_dict() | {"spread": spread}
    if spread is None:
        del row["spread"]
    return f"2026110{day}.json", {
        "conditions": {"commit": f"c{day}", "time": f"2026-11-0{day}T00:00:00+00:00", "cpu": cpu,
                       "cores": 2, "servers_pinned": True, "noise": noise or QUIET,
                       "kernel": "6", "python": "3.11", "filesystem": "ext4 on x"},
        "pace": {"quick": False, "seconds": seconds, "repeats": 3}, "rows": [row],
        "noise_after": QUIET}


def stand(*results: history.Named) -> history.Standing:
    last = results[-1][1]
    return history.standing(last["rows"][0], history.earlier(results, last, "key"))


def test_a_median_remembers_its_runs_and_the_row_says_their_spread() -> None:
    runs = [{"value": value} for value in (90.0, 100.0, 110.0)]
    middle = median_of(runs, lambda one: one["value"])
    assert middle == 100.0
    assert isinstance(middle, Median)
    assert json.loads(json.dumps(middle)) == 100.0
    assert Row("key", "title", "unit", middle).as_dict()["spread"] == pytest.approx(0.2)
    assert Row("key", "title", "unit", 100.0).spread is None
    assert Row("key", "title", "unit", Median([5.0])).spread is None


def test_a_row_stands_beside_the_run_before_and_the_best() -> None:
    found = stand(result(1, 120), result(2, 100), result(3, 110))
    assert found.runs == 2
    assert found.previous is not None
    assert found.previous.commit == "c2"
    assert found.change == pytest.approx(0.1)
    assert (found.best, found.is_best, found.worse) == (120, False, "")
    assert history.text(found) == "100 (+10%), best 120"
    assert stand(result(1, 120), result(2, 130)).is_best


def test_less_may_be_better() -> None:
    found = stand(result(1, 80, higher=False), result(2, 100, higher=False, anchor=None))
    assert (found.best, found.is_best, found.worse) == (80, False, "worse")
    assert stand(result(1, 80, higher=False), result(2, 70, higher=False)).is_best


@pytest.mark.parametrize(("ours", "spread", "worse"), [
    (96, 0.02, ""), (94, 0.02, "worse"), (94, 0.08, ""), (91, 0.08, "worse"),
    (91, None, ""), (89, None, "worse")])
def test_worse_is_more_than_the_runs_lie_apart(ours: float, spread: float | None,
                                               worse: str) -> None:
    assert stand(result(1, 100, anchor=None, spread=spread),
                 result(2, ours, anchor=None, spread=spread)).worse == worse


def test_a_slower_machine_is_told_from_slower_code() -> None:
    assert stand(result(1, 100, anchor=50), result(2, 80, anchor=40)).worse \
        == "worse, not the ratio"
    assert stand(result(1, 100, anchor=50), result(2, 80, anchor=50)).worse == "worse"


@pytest.mark.parametrize("other", [
    result(1, 100, cpu="B"), result(1, 100, seconds=0.6), result(3, 100)])
def test_other_machines_other_paces_and_later_runs_are_not_compared(other: history.Named) -> None:
    found = stand(other, result(2, 50))
    assert (found.runs, found.previous, found.worse) == (0, None, "")
    assert history.text(found) == "-"


def test_the_history_lists_each_machine_for_itself() -> None:
    loud = QUIET | {"others_share": 0.5}
    lines = history.lines([result(1, 100), result(2, 300, cpu="B"), result(3, 80, noise=loud)])
    assert lines[0] == "key: the title (orders/s, more is better)"
    assert [line for line in lines if "cores" in line] == ["  A, 2 cores, 3 x 3 s",
                                                           "  B, 2 cores, 3 x 3 s"]
    assert "-20.0%" in lines[3]
    assert "worse" in lines[3]
    assert lines[3].endswith("(the machine was not quiet)")
    assert history.lines([result(1, 100)], ["other"]) == []


def test_results_of_other_benches_are_no_rows(tmp_path: Path) -> None:
    name, made = result(1, 100)
    (tmp_path / name).write_text(json.dumps(made))
    (tmp_path / "http-20261101T000000-c1.json").write_text("{}")
    assert [found for found, _ in history.load(tmp_path)] == [name]
    assert [found for found, _ in table.newest(tmp_path)] == [name]


def test_the_tables_have_a_column_for_it(tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    before = [result(1, 100), result(2, 80)]
    for name, made in before:
        (tmp_path / name).write_text(json.dumps(made))
    section = table.render([before[-1]], before)
    assert "| earlier |" in section
    assert "| 100 (-20%), best 100 **worse** |" in section
    text = "\n".join(run.one_table(before[-1][1], before))
    assert "-20.0%" in text
    assert "1 earlier results on A, 2 cores" in text
    assert table.main(["--history", "ke", "--results", str(tmp_path)]) == 0
    assert "-20.0%" in capsys.readouterr().out

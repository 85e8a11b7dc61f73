"""The soak finds what creeps and what is lost, and its report can be read by everybody."""

from __future__ import annotations

import json
import re
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench import plot, soak, soakreport
from bench.histogram import Histogram
from bench.servers import Server
from bench.soakchecks import MIB, Check, Plan, Run, checks
from bench.soakwatch import slope_per_second

SVG = "{http://www.w3.org/2000/svg}"
NOISE = {"load_average": 1.0, "others_share": 0.1}


# -- plots -----------------------------------------------------------------------------------------


def drawn(*lines: plot.Line, log: bool = False) -> ET.Element:
    text = plot.line_plot("name", "Memory & more", "what it <shows>", plot.Axis("time (minutes)"),
                          plot.Axis("memory (MiB)", log), lines)
    return ET.fromstring(text)


def texts(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def test_a_plot_says_what_it_shows() -> None:
    root = drawn(plot.Line("rss", [(0, 10), (1, 20), (2, 15)]), plot.Line("limit", [(0, 30)]))
    ids = {one.get("id"): one.text for one in root if one.get("id")}
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", " ".join(ids))
    assert list(ids.values()) == ["Memory & more", "what it <shows>"]
    assert {"time (minutes)", "memory (MiB)", "rss", "limit", "Memory & more"} <= {*texts(root)}
    lines = [*root.iter(f"{SVG}polyline")]
    # Colours are not all that tells lines apart.
    assert len({line.get("stroke-dasharray") for line in lines}) == len(lines) == 2
    assert "prefers-color-scheme: dark" in plot.STYLE


def test_points_lie_where_the_axes_say() -> None:
    root = drawn(plot.Line("one", [(0, 0), (10, 100)]))
    line = next(root.iter(f"{SVG}polyline")).get("points")
    assert line == (f"{plot.LEFT:.1f},{plot.HEIGHT - plot.BOTTOM:.1f} "
                    f"{plot.WIDTH - plot.RIGHT:.1f},{plot.TOP:.1f}")
    assert {"0", "20", "100"} <= {*texts(root)}


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    root = drawn(plot.Line("one", [(0, 0), (1, 0.5), (2, 300)]), log=True)
    assert {"0.1", "1", "10", "100", "1,000"} <= {*texts(root)}
    points = [tuple(map(float, pair.split(",")))
              for pair in str(next(root.iter(f"{SVG}polyline")).get("points")).split()]
    assert all(plot.TOP <= y <= plot.HEIGHT - plot.BOTTOM for _, y in points)


@pytest.mark.parametrize("points", [[], [(0.0, 0.0)], [(5.0, 7.0)], [(0.0, -3.0), (1.0, 1e9)]])
@pytest.mark.parametrize("log", [False, True])
def test_few_and_odd_points_can_be_drawn(points: list[tuple[float, float]], log: bool) -> None:
    assert drawn(plot.Line("one", points), log=log).tag == f"{SVG}svg"
    assert drawn(log=log).tag == f"{SVG}svg"


# -- checks ----------------------------------------------------------------------------------------


def test_the_slope_is_that_of_most_points() -> None:
    line = [(float(x), 3.0 + 2.0 * x) for x in range(50)]
    assert slope_per_second(line) == pytest.approx(2.0)
    line[10] = (10.0, 9_999.0)
    assert slope_per_second(line) == pytest.approx(2.0, rel=0.01)
    assert slope_per_second([]) == slope_per_second([(1.0, 5.0)]) == 0.0
    many = [(x / 10, 7.0) for x in range(5_000)]
    assert slope_per_second(many) == 0.0


PLAN = Plan(minutes=10, rate=1_000.0)


def good_run() -> Run:
    """A run in which everything holds."""
    histogram = Histogram()
    histogram.record(2_000_000)
    piece = {"seconds": 300.0, "orders": 300_000, "orders_per_second": 1_000.0,
             "histogram": histogram.sparse(), "latency": histogram.summary()}
    seen = {"wrong": "", "messages": 9, "trades": 40, "snapshots": 0, "resets": 0, "repairs": 0,
            "levels_left": 0}
    sample = dict.fromkeys((
        "cpu", "lag_p50_ms", "lag_p99_ms", "gc_p50_ms", "gc_p99_ms", "commit_p99_ms",
        "ack_p99_ms", "store_lag_s"), 1.0)
    return Run(
        pieces=[piece | {"time_s": 300.0}, piece | {"time_s": 600.0}],
        proof={"orders": 600_000, "cancels": 500_000, "fills": 80},
        samples=[sample | {"time_s": float(at), "rss_bytes": 100 * MIB}
                 for at in range(0, 601, 5)],
        whole={"lag_p99_ms": 1.0, "lag_max_ms": 2.0, "gc_p99_ms": 0.2, "gc_max_ms": 0.5,
               "gc_share": 0.001, "cpu": 0.5},
        feed=[seen, dict(seen)],
        journal={"verdict": "good", "events": 1_200_000},
        events={"accepted": 600_000, "fill": 40},
        stores={"sqlite": {"good": True, "behind_s": 0.1}}, exit_code=0)


def failed(run: Run, plan: Plan = PLAN) -> list[str]:
    return [one.name for one in checks(plan, run) if one.passed is False]


def test_a_good_run_passes_every_check() -> None:
    assert failed(good_run()) == []
    assert all(one.limit for one in checks(PLAN, good_run()))


def grow(run: Run, mib_per_hour: float) -> None:
    for sample in run.samples:
        sample["rss_bytes"] += int(mib_per_hour * MIB * sample["time_s"] / 3600)


@pytest.mark.parametrize(("mib_per_hour", "names"), [
    (20, []), (30, []), (60, ["memory flat"]), (-60, [])])
def test_memory_that_creeps_is_found(mib_per_hour: float, names: list[str]) -> None:
    run = good_run()
    grow(run, mib_per_hour)
    assert failed(run) == names


def test_memory_may_fill_caches_in_the_beginning() -> None:
    run = good_run()
    for sample in run.samples:
        if sample["time_s"] < PLAN.memory_warm_seconds:
            sample["rss_bytes"] = int(sample["time_s"] / PLAN.memory_warm_seconds * 100 * MIB)
    assert failed(run) == []


def test_memory_of_a_run_that_only_fills_caches_is_not_judged() -> None:
    slow = replace(PLAN, rate=200.0)
    assert (slow.memory_warm_seconds, slow.judges_memory) == (500.0, False)
    run = good_run()
    grow(run, 1_000)
    found = next(one for one in checks(slow, run) if one.name == "memory flat")
    assert found.passed is None
    assert "11.1 minutes are enough" in found.limit
    assert "+1000.0 MiB an hour" in found.found


@pytest.mark.parametrize(("change", "name"), [
    (lambda run: setattr(run, "wrong", "2 messages are still unanswered"),
     "every order answered once"),
    (lambda run: run.proof.clear(), "every order answered once"),
    (lambda run: run.pieces.pop(), None),
    (lambda run: run.pieces[0].update(orders=100_000), "the rate was kept"),
    (lambda run: run.feed[1].update(trades=39), "feed client 2: no hole, nothing twice"),
    (lambda run: run.feed[0].update(repairs=1), "feed client 1: no hole, nothing twice"),
    (lambda run: run.feed[0].update(levels_left=1), "feed client 1: no hole, nothing twice"),
    (lambda run: run.feed[0].update(wrong="lost"), "feed client 1: no hole, nothing twice"),
    (lambda run: run.journal.update(verdict="damaged"), "the journal holds everything"),
    (lambda run: run.events.update(accepted=599_999), "the journal holds everything"),
    (lambda run: run.stores["sqlite"].update(good=False), "sqlite holds what the journal says"),
    (lambda run: run.stores.clear(), "sqlite holds what the journal says"),
    (lambda run: run.samples.clear(), "memory flat"),
    (lambda run: setattr(run, "exit_code", -9), "a clean stop")])
def test_what_is_lost_or_wrong_is_found(change: Any, name: str | None) -> None:
    run = good_run()
    change(run)
    assert (name in failed(run)) if name else not failed(run)


def test_limits_that_are_set_are_kept() -> None:
    tight = replace(PLAN, ack_p99_ms=1.0, lag_p99_ms=0.5, gc_max_ms=0.1)
    assert len(failed(good_run(), tight)) == 3
    wide = replace(PLAN, ack_p99_ms=5.0, lag_p99_ms=5.0, gc_max_ms=5.0)
    assert failed(good_run(), wide) == []


def test_a_run_that_found_nothing_fails_and_can_be_shown(tmp_path: Path) -> None:
    found = checks(PLAN, Run())
    assert [one for one in found if one.passed is False]
    about = {"commit": "c", "time": "now", "noise": NOISE}
    path = soakreport.write(tmp_path, PLAN, Run(), found, about)
    assert "Failed: " in path.read_text()


def test_a_disk_that_is_too_small_is_said_before() -> None:
    assert soak.missing_bytes(PLAN, 1 << 40) == 0
    assert soak.missing_bytes(PLAN, 1 << 30) == 1_000 * 600 * 1_600
    assert soak.missing_bytes(replace(PLAN, stores=()), 1 << 30) == 1_000 * 600 * 400


# -- the report ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page is made of; every element must be closed."""

    VOID = ("meta", "rect", "line", "path", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.ids += [value for key, value in attrs if key == "id" and value]
        self.outside += [str(named[key]) for key in ("src", "href") if key in named]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag


def test_the_report_stands_alone(tmp_path: Path) -> None:
    found = [*checks(PLAN, good_run()), Check("made up", "<b>", "none", False)]
    about = {"commit": "c", "time": "now", "cpu": "A & B", "noise": NOISE}
    path = soakreport.write(tmp_path, PLAN, good_run(), found, about)
    text = path.read_text()
    page = Page(text)
    names = {one.stem for one in tmp_path.glob("*.svg")}
    assert {"memory", "latency", "lag", "gc", "rate"} <= names
    assert page.tags.count("svg") == len(names)
    assert len(page.ids) == len(set(page.ids))
    assert page.outside == []
    assert "&lt;b&gt;" in text
    assert "Failed: made up" in text
    for one in tmp_path.glob("*.svg"):
        ET.parse(one)
    kept = json.loads((tmp_path / "soak.json").read_text())
    assert kept["plan"]["rate"] == 1_000.0
    assert len(kept["checks"]) == len(found)


# -- the real thing --------------------------------------------------------------------------------

TINY = ["--minutes", "0.08", "--rate", "150"]


@pytest.mark.parametrize("more", [
    [], ["--transport", "udp", "--stores", "", "--feed-clients", "1", "--connections", "2"]])
def test_a_short_soak_finds_nothing_wrong(more: list[str], tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    code = soak.main([*TINY, *more, "--report", str(tmp_path)])
    said = capsys.readouterr().out
    kept = json.loads((tmp_path / "soak.json").read_text())
    wrong = [one for one in kept["checks"] if one["passed"] is False]
    # A machine that is busy may not keep the rate.
    assert [one for one in wrong if one["name"] != "the rate was kept"] == [], said
    assert code == (1 if wrong else 0)
    assert kept["run"]["proof"]["orders"] > 100
    assert kept["run"]["samples"][-1]["rss_bytes"] > 10 * MIB
    assert said.splitlines()[-1] == str(tmp_path / "report.html")
    Page((tmp_path / "report.html").read_text())


def test_a_daemon_that_dies_fails_the_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    drive = soak._drive

    def killed(server: Server, *rest: Any) -> None:
        timer = threading.Timer(1.0, server.process.kill)
        timer.start()
        drive(server, *rest)
        timer.join()

    monkeypatch.setattr(soak, "_drive", killed)
    monkeypatch.setattr("bench.rows_stores.CATCH_UP_SECONDS", 1.0)
    assert soak.main([*TINY, "--report", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for name in ("every order answered once", "feed client 1", "a clean stop"):
        assert re.search(f"FAILED  {name}", said), said


@pytest.mark.parametrize("arguments", [["--stores", "oracle"], ["--minutes", "0"]])
def test_what_can_t_be_run_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        soak.main(arguments)

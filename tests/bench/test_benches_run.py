"""Every bench runs once, tiny, so that none rots. No speed is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import conditions, rows_feed, rows_http, rows_tcp, run, table
from bench.measure import TINY, Row, closed, drive, drive_redis
from bench.servers import echo_server, redis_server, work_directory


@pytest.mark.parametrize("name", ["http", "profile", "run", "soak"])
def test_it_may_be_called_by_its_file_too(name: str, tmp_path: Path) -> None:
    script = Path(run.__file__).with_name(f"{name}.py")
    called = subprocess.run([sys.executable, str(script), "--help"], cwd=tmp_path, text=True,
                            capture_output=True, check=False, timeout=90)
    assert called.returncode == 0, called.stderr
    assert "usage:" in called.stdout


@pytest.mark.parametrize("kind", ["c", "uvloop", "udp-c", "udp-uvloop"])
def test_the_echo_anchor_answers(kind: str) -> None:
    with echo_server(kind) as server:
        figures = drive(server, [closed(10, 0.3), {"kind": "round_trips", "seconds": 0.3}],
                        echo=True, transport="udp" if kind.startswith("udp") else "tcp")
    assert figures[0]["messages"] > 0
    assert figures[1]["latency"]["count"] == figures[1]["messages"] > 0


@pytest.mark.parametrize("durable", [True, False])
def test_the_redis_anchor_answers(durable: bool) -> None:
    with redis_server(durable=durable) as server:
        figures = drive_redis(server, 10, 0.3)
    assert figures["latency"]["count"] == figures["messages"] > 0


@pytest.mark.parametrize("kind", ["websockets", "picows"])
def test_the_broadcast_anchor_answers(kind: str) -> None:
    figures = rows_feed.measure_anchor(TINY, kind, 5, 200)
    assert figures["loops"][0]["message_bytes"] == 200
    assert figures["paced"]["latency"]["count"] > 0


@pytest.mark.parametrize("kind", ["orders", "health"])
def test_the_bare_http_anchor_answers(kind: str) -> None:
    figures = rows_http.measure_anchor(TINY, kind, [{"body_bytes": 300}])
    assert figures[0]["body_bytes"] == 300
    assert figures[0]["requests"] > 0


def test_the_disk_anchor_answers() -> None:
    with work_directory() as directory:
        assert rows_tcp.fdatasync_times(directory, 3)["count"] == 3
    assert not directory.exists()


def test_the_conditions_say_what_a_reader_needs() -> None:
    found = conditions.conditions()
    assert {"commit", "cpu", "cores", "kernel", "python", "governor", "noise"} <= found.keys()
    quiet = {"others_share": 0.0, "cores": {"0": {"share": 0.0, "longest_us": 9.0}}}
    assert conditions.warnings(quiet) == []
    loud = {"others_share": 0.5, "cores": {"0": {"share": 0.3, "longest_us": 9000.0}}}
    assert len(conditions.warnings(loud)) == 2


@pytest.mark.parametrize("name", [*run.ROWS, "curve"])
def test_a_row_runs(name: str, tmp_path: Path) -> None:
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        assert run.main([name, "--tiny", "--results", str(folder)]) == 0
        result = json.loads(next(folder.glob("*.json")).read_text())
        # A difference of two short runs may have any sign. And in so short a time a loaded machine
        # may get nothing done at all: then once more.
        if measured := bool(result.get("curves")) or all(
                row["ours"] > 0 or "extra" in row["title"] for row in result["rows"]):
            break
    assert measured
    assert table.HEADING in table.render([("result.json", result)])


def test_each_row_comes_from_the_newest_result_that_has_it(tmp_path: Path) -> None:
    rows = {"1.json": ["a", "b"], "2.json": ["b", "c"], "3.json": ["c"]}
    for name, keys in rows.items():
        (tmp_path / name).write_text(json.dumps({"rows": [{"key": key} for key in keys]}))
    found = [(name, [row["key"] for row in result["rows"]])
             for name, result in table.newest(tmp_path)]
    assert found == [("3.json", ["c"]), ("2.json", ["b"]), ("1.json", ["a"])]
    with pytest.raises(FileNotFoundError):
        table.newest(tmp_path / "empty")


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(SystemExit):
        run.main(["nonsense"])


def test_a_debug_build_is_not_measured(monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "BUILD_MODE", "debug")
    assert run.main(["trips"]) == 1
    assert "debug build" in capsys.readouterr().err


@pytest.mark.parametrize(("ours", "anchor", "higher", "verdict"), [
    (120, 20, True, "yes"), (120, 50, True, "the figure, not the ratio"),
    (80, 15, True, "the ratio, not the figure"), (80, 50, True, "no"),
    (90, 50, False, "yes"), (110, 20, False, "no"),
])
def test_the_verdict_says_which_target_is_reached(ours: float, anchor: float, higher: bool,
                                                  verdict: str) -> None:
    assert Row("key", "title", "unit", ours, "anchor", anchor, 100.0, 4.0, higher).reached \
        == verdict
    assert Row("key", "title", "unit", ours, "anchor", anchor, None, 4.0, higher).reached \
        in ("yes", "no")
    assert Row("key", "title", "unit", ours).reached == ""


def test_the_readme_keeps_what_is_around_its_table() -> None:
    text = "# A\n\n## Measured\n\nold\n\n## After\n\nrest\n"
    assert table.replace_section(text, "## Measured\n\nnew") == \
        "# A\n\n## Measured\n\nnew\n\n## After\n\nrest\n"
    assert table.replace_section("# A\n", "## Measured\n\nnew") == "# A\n\n## Measured\n\nnew\n"

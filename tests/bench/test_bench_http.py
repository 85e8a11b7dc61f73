"""The bench of the HTTP gateway runs against its own daemon and any other, and counts errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import history, http
from bench.servers import Server, closed_port, daemon, make_key

SHORT = ["--seconds", "0.2", "--users", "1,3"]


@pytest.fixture(scope="module")
def venue() -> Iterator[Server]:
    with daemon("commit", settings={"api": {"requests_per_second": 3_000}}) as server:
        yield server


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = http.main([*arguments, "--results", str(folder)])
    found = sorted(folder.glob("http-*.json"))
    return code, json.loads(found[-1].read_text()) if found else {}


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.api_port}"


def orders_taken(server: Server, token: str) -> int:
    found = http._ask(url(server), "/v1/orders?status=all&limit=1", token)["orders"]
    return len(found)


def test_its_own_daemon_is_measured_and_the_result_kept(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run(tmp_path, *SHORT)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert result["errors"] == 0
    assert {"commit", "cpu", "cores", "noise", "build"} <= result["conditions"].keys()
    assert [(line["what"], line["users"], line["how"]) for line in result["lines"]] == [
        ("GET /health", 1, "sequential"), ("GET /health", 3, "concurrent"),
        ("POST /v1/orders", 1, "sequential"), ("POST /v1/orders", 3, "concurrent")]
    for line in result["lines"]:
        times = [line["latency"][f"{name}_ns"] for name in ("p50", "p95", "p99", "max")]
        assert 0 < times[0] <= times[1] <= times[2] <= times[3]
        assert line["requests"] > 0
    assert "p95 ms" in printed
    assert "POST /v1/orders, sequential" in printed
    # The rows of `make bench` don't see it.
    assert history.load(tmp_path) == []


def test_another_venue_gets_health_checks_alone(venue: Server, tmp_path: Path) -> None:
    code, result = run(tmp_path, "--url", url(venue), *SHORT, "--users", "1")
    assert code == (1 if result["errors"] else 0)
    assert {line["what"] for line in result["lines"]} == {"GET /health"}
    token = make_key(venue)["token"]
    assert orders_taken(venue, token) == 0


def test_another_venue_gets_orders_that_leave_nothing_behind(venue: Server,
                                                             tmp_path: Path) -> None:
    token = make_key(venue)["token"]
    code, result = run(tmp_path, "--url", url(venue), "--orders", "--token", token, *SHORT,
                       "--users", "1")
    line = result["lines"][-1]
    assert line["statuses"].get("201", 0) > 0
    assert code == (1 if result["errors"] else 0)
    assert orders_taken(venue, token) == 1
    assert http._ask(url(venue), "/v1/orders", token)["orders"] == []


@pytest.mark.parametrize("arguments", [["--orders"], ["--orders", "--token", "nonsense"]])
def test_refusals_are_errors(venue: Server, tmp_path: Path, arguments: list[str],
                             capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run(tmp_path, "--url", url(venue), *arguments, *SHORT, "--users", "1")
    assert code == 1
    assert result["lines"][-1]["statuses"].keys() <= {"401", "429"}
    assert result["lines"][-1]["error_rate"] == 1.0
    assert "100.00%" in capsys.readouterr().out


def test_what_can_t_be_asked_says_why(venue: Server, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    with closed_port() as port:
        cases = {f"http://127.0.0.1:{port}": "refused", "https://127.0.0.1:1": "no TLS",
                 "127.0.0.1": "not like"}
        for bad, words in cases.items():
            assert run(tmp_path, "--url", bad, *SHORT) == (1, {})
            assert words in capsys.readouterr().err
    assert run(tmp_path, "--url", url(venue), "--orders", "--symbol", "NONE", *SHORT) == (1, {})
    assert "no instrument NONE" in capsys.readouterr().err

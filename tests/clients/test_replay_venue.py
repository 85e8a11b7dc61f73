"""`matchd replay` against the running venue: the made day everywhere, the real one where it is."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.clients import OrderEntryClient
from tests.data import make_day
from tests.support.daemon import Daemon

MADE = {
    "lobster": ("lobster", str(make_day.MESSAGES), str(make_day.BOOK)),
    "commands": ("commands", str(make_day.COMMANDS)),
}
real_day = pytest.mark.skipif("MATCHD_TEST_DATA" not in os.environ,
                              reason="MATCHD_TEST_DATA is not set")


def run(daemon: Daemon, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run `matchd replay ... --json`; returns its report."""
    done = daemon.run("replay", *arguments, "--port", str(daemon.port), "--json")
    assert done.returncode == code, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def goog_files(kind: str) -> list[str]:
    folder = Path(os.environ["MATCHD_TEST_DATA"]) / "lobster"
    if kind == "commands":
        return [str(folder / "GOOG_10.commands.csv.xz")]
    return [str(next(folder.glob(f"GOOG_*_{part}_10.csv.xz"))) for part in ("message", "orderbook")]


@pytest.mark.parametrize("kind", MADE)
def test_the_made_day_passes_every_check(daemon: Daemon, kind: str) -> None:
    report = run(daemon, *MADE[kind])
    assert report["failed"] == 0, report["failures"]
    assert report["notes"] == []
    assert report["messages"] == 1_742
    assert {name: check["passed"] for name, check in report["checks"].items()} == {
        "orders": 1_402, "hits": 340, "levels": 1_499, "rows": 1_500, "strays": 0, "journal": 1}


def test_a_day_can_be_replayed_again_and_with_two_accounts(daemon: Daemon) -> None:
    for options in ((), (), ("--taker", "TAKER1")):
        report = run(daemon, *MADE["commands"], *options)
        assert report["failed"] == 0, report["failures"]
        assert report["checks"]["journal"]["passed"] == 1


def test_a_day_at_its_own_pace_takes_its_time(daemon: Daemon) -> None:
    first, last = (float(make_day.MESSAGES.read_text().splitlines()[at].split(",")[0])
                   for at in (0, -1))
    report = run(daemon, *MADE["lobster"], "--speed", "10")
    assert report["failed"] == 0, report["failures"]
    # The last step is not sent before its time; it may come as late as the machine is slow.
    assert report["seconds"] >= (last - first) / 10


def test_other_peoples_orders_in_the_instrument_are_told_before_anything_is_sent(
        daemon: Daemon) -> None:
    async def enter() -> None:
        async with OrderEntryClient("127.0.0.1", daemon.port, "MAKER2", "demo") as client:
            await client.enter("MSFT", "B", 1, "40.00")

    asyncio.run(enter())
    done = daemon.run("replay", *MADE["commands"], "--port", str(daemon.port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "other accounts have 1 orders in MSFT" in done.stderr


def test_a_failed_check_exits_with_1_and_says_which(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "MSFT_wrong.commands.csv"
    path.write_text("NEW,1,B,400000,10\nNEW,2,B,400000,5\nHIT,S,400000,5,2\nEND,1\n")
    report = run(daemon, "commands", str(path), code=1)
    assert report["checks"]["hits"] == {"passed": 0, "failed": 1}
    assert "line 3" in report["failures"][0]
    assert "no recorded book rows" in report["notes"][0]


def test_a_book_row_that_differs_fails(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "MSFT_wrong.commands.csv").write_text("NEW,1,B,400000,10\nEND,1\n")
    (tmp_path / "MSFT_wrong_orderbook_1.csv").write_text("9999999999,0,400000,11\n")
    report = run(daemon, "commands", str(tmp_path / "MSFT_wrong.commands.csv"), code=1)
    assert report["checks"]["rows"] == {"passed": 0, "failed": 1}


def test_files_and_symbols_that_are_not_there_are_told_in_one_line(daemon: Daemon,
                                                                   tmp_path: Path) -> None:
    missing = daemon.run("replay", "commands", str(tmp_path / "none.csv"))
    (tmp_path / "XYZ_1.csv").write_text("END,1\n")
    unknown = daemon.run("replay", "commands", str(tmp_path / "XYZ_1.csv"))
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "there is no instrument XYZ" in unknown.stderr


def test_a_venue_that_is_not_there_is_told_in_one_line(daemon: Daemon) -> None:
    done = daemon.run("replay", *MADE["commands"], "--port", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("matchd: can't reach the venue at 127.0.0.1:1")
    assert done.stderr.count("\n") == 1


@real_day
@pytest.mark.parametrize("kind", ["commands", "lobster"])
def test_the_real_day_passes_every_check(daemon: Daemon, kind: str) -> None:
    report = run(daemon, kind, *goog_files(kind))
    assert report["failed"] == 0, report["failures"]
    assert report["messages"] == 235_646
    assert {name: check["passed"] for name, check in report["checks"].items()} == {
        "orders": 227_887, "hits": 7_759, "levels": 147_915, "rows": 147_916, "strays": 0,
        "journal": 1}

"""The end: what is queued is finished, clients are told, a second signal hurries, and it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import errors, lifecycle
from engine.app import App
from tests.feed.raw import Raw
from tests.support.daemon import ROOT, Daemon
from tests.support.http import Caller
from tests.support.venue import Venue
from tests.support.wire import Wire, enter

GOING_AWAY = 1001
ORDERS = 2_000


async def _stays(daemon: Daemon) -> Raw:
    """A feed client that never answers a close: the farewell to it takes seconds."""
    return await Raw.upgraded(daemon.feed_port)


async def _close_frame(raw: Raw) -> tuple[int, str]:
    """Code and words of the close frame; pings may come before it."""
    found = b""
    while True:
        found += await raw.more()
        match = re.search(rb"\x88(.)(..)", found, re.DOTALL)
        if match and len(found) >= match.start() + 2 + match[1][0]:
            words = found[match.start() + 4:match.start() + 2 + match[1][0]]
            return struct.unpack(">H", match[2])[0], words.decode()


async def test_sigterm_tells_everybody_and_finishes_what_is_queued(daemon: Daemon) -> None:
    wire = await Wire.logged_in(daemon.port, "MAKER1")
    feed, http = await _stays(daemon), Caller(daemon.api_port)
    assert http("GET", "/v1/account").status == 200
    wire.send(*(enter(number, "B", 1) for number in range(1, ORDERS + 1)))
    await wire.message()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)

    code, reason = await asyncio.wait_for(_close_frame(feed), 30)
    assert (code, reason) == (GOING_AWAY, "the venue stops")
    # It still waits for that client, and answers who asks meanwhile.
    answer = await asyncio.to_thread(http, "GET", "/v1/account")
    assert (answer.status, answer.code) == (503, "stopping")
    assert int(answer.headers["retry-after"]) > 0
    fresh = Caller(daemon.api_port)
    assert (await asyncio.to_thread(fresh, "POST", "/v1/orders", {})).status == 503

    while (packet := await wire.packet())[0] == "S":
        wire.raw.append(packet[1])
    assert await wire.closed()
    assert await asyncio.to_thread(daemon.wait) == 0
    assert daemon.lines()[-1]["event"] == "stopped"
    assert any(daemon.data_dir.glob("snapshots/*.snap"))

    # No End of Session: the session goes on where it stood.
    daemon.start()
    again = await Wire.logged_in(daemon.port, "MAKER1", session=wire.session, sequence=0)
    assert again.next_number == len(wire.raw) + 1
    assert daemon.stop() == 0


async def test_a_second_sigterm_hurries_and_loses_nothing(daemon: Daemon) -> None:
    wire = await Wire.logged_in(daemon.port, "MAKER1")
    await _stays(daemon)
    wire.send(*(enter(number, "B", 1) for number in range(1, ORDERS + 1)))
    await wire.message()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(daemon.wait_for_line, "stopping")
    daemon.process.send_signal(signal.SIGTERM)
    while (packet := await wire.packet())[0] == "S":
        wire.raw.append(packet[1])
    assert await asyncio.to_thread(daemon.wait) == 0
    assert daemon.lines()[-1]["event"] == "stopped"
    assert not any(daemon.data_dir.glob("snapshots/*.snap"))
    daemon.start()
    again = await Wire.logged_in(daemon.port, "MAKER1", session=wire.session, sequence=0)
    assert again.next_number == len(wire.raw) + 1
    assert daemon.stop() == 0
    assert any(daemon.data_dir.glob("snapshots/*.snap"))


async def test_what_does_not_drain_in_time_is_named(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    real = App.start_stages

    def with_one_that_is_stuck(app: App) -> list[asyncio.Task[None]]:
        async def stuck() -> None:
            await asyncio.Event().wait()

        return [*real(app), asyncio.create_task(stuck(), name="molasses")]

    monkeypatch.setattr(App, "start_stages", with_one_that_is_stuck)
    venue = await Venue(tmp_path, venue__drain_timeout_ms=300).start()
    wire = await Wire.logged_in(venue.port, "MAKER1")
    wire.send(enter(1))
    await wire.message()
    with pytest.raises(lifecycle.StageError, match="molasses did not drain in time"):
        await venue.stop()
    said = capfd.readouterr()
    assert re.search(r"task .*name=molasses", said.out + said.err)
    monkeypatch.undo()
    await venue.start()
    assert venue.app.matcher.resting_orders == 1
    await venue.stop()


async def test_a_hurry_ends_what_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = App.start_stages

    def with_one_that_is_stuck(app: App) -> list[asyncio.Task[None]]:
        async def stuck() -> None:
            await asyncio.Event().wait()

        return [*real(app), asyncio.create_task(stuck(), name="molasses")]

    monkeypatch.setattr(App, "start_stages", with_one_that_is_stuck)
    monkeypatch.setattr(lifecycle, "STAGE_HURRIED_S", 0.1)
    venue = await Venue(tmp_path, venue__drain_timeout_ms=3_600_000).start()
    venue._stop.set()
    with pytest.raises(lifecycle.StageError, match="molasses"):
        await venue.stop()


async def test_sigusr1_says_what_everything_does(daemon: Daemon) -> None:
    wire = await Wire.logged_in(daemon.port, "MAKER1")
    assert daemon.api_port
    assert daemon.feed_port
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGUSR1)
    await asyncio.to_thread(daemon.wait_for_line, "thread", name="MainThread")
    told = {(line["event"], line["name"]): line for line in daemon.lines()
            if line.get("part") == "diagnosis"}
    for queue in ("commands", "events", "reports", "market"):
        assert told["queue", queue]["limit"] > told["queue", queue]["units"] >= 0
    for stage in ("trading", "reports", "market"):
        assert told["task", stage]["at"].startswith("_wait (engine/queues.py:")
    assert "run (engine/journal/journal.py:" in told["task", "journal"]["at"]
    assert "wait (engine/stopping.py:" in told["task", "lifecycle"]["at"]
    # It goes on as if nothing had been.
    wire.send(enter(1))
    assert (await wire.message())["type"] == "A"
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_listens_ends_it_too(make_daemon: Callable[..., Daemon],
                                                number: signal.Signals) -> None:
    daemon = make_daemon()
    daemon.spawn()
    daemon.wait_for_line("recovered")
    assert daemon.stop(number) == 0
    assert "Traceback" not in daemon.log_path.read_text()


# -- exit codes ------------------------------------------------------------------------------------


def test_the_exit_codes_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE))
    assert {int(code) for code in rows} >= {
        0, errors.EXIT_OTHER, errors.EXIT_CONFIG, errors.EXIT_NOT_COMPARABLE, errors.EXIT_CORRUPT,
        errors.EXIT_DISK, 130, 134, 137}


def test_a_wrong_configuration_is_exit_2(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(order_entry__heartbeat_ms="soon")
    daemon.spawn()
    assert daemon.wait() == errors.EXIT_CONFIG


def test_a_damaged_log_is_exit_4(daemon: Daemon) -> None:
    async def trade() -> None:
        wire = await Wire.logged_in(daemon.port, "MAKER1")
        wire.send(*(enter(number, "B", 1) for number in range(1, 101)))
        await wire.message()

    asyncio.run(trade())
    daemon.stop()
    for path in daemon.data_dir.glob("snapshots/*"):
        path.unlink()
    segment = min(daemon.data_dir.glob("journal/*.log"))
    data = bytearray(segment.read_bytes())
    data[64 * 20] ^= 0xFF
    segment.write_bytes(data)
    daemon.spawn()
    assert daemon.wait() == errors.EXIT_CORRUPT


def test_a_disk_that_takes_no_more_is_exit_5(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.folder.mkdir()
    # 100 KiB a file: a limit that also holds for root.
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 100 && exec "$@"', "sh", *daemon.command("run")], cwd=ROOT,
        env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == errors.EXIT_DISK, done.stderr
    assert "Traceback" not in done.stderr

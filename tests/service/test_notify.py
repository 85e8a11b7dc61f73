"""What a service manager is told: readiness, progress, beats of the watchdog, the end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import config, lifecycle
from engine.journal.journal import Journal
from engine.stopping import Stop
from engine.supervisor import Supervisor
from tests.support.daemon import ROOT, Daemon
from tests.support.service_manager import ServiceManager
from tests.support.venue import Venue

WATCHDOG_S = 0.6
STUCK_S = 1.5


def test_ready_comes_when_everything_listens(
        make_daemon: Callable[..., Daemon], make_manager: Callable[..., ServiceManager]) -> None:
    daemon, manager = make_daemon(), make_manager()
    daemon.manager = manager
    daemon.spawn()
    ready = manager.wait_for(lambda message: message.get("READY") == "1")
    # At that moment, not some time later: no waiting here.
    for event in ("listening", "feed listening", "api listening"):
        port = next(line["port"] for line in daemon.lines() if line["event"] == event)
        socket.create_connection(("127.0.0.1", port)).close()
    before = manager.messages[:ready]
    assert any("reading the log" in message.get("STATUS", "") for message in before)
    assert any(int(message.get("EXTEND_TIMEOUT_USEC", 0)) >= 10**7 for message in before)
    assert "0 sessions" in manager.messages[ready]["STATUS"]
    # Nobody asked for beats.
    assert daemon.stop() == 0
    stopping = manager.wait_for(lambda message: message.get("STOPPING") == "1")
    assert stopping > ready
    assert not manager.beats()


def test_what_the_manager_said_is_not_handed_on() -> None:
    variables = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000"}
    os.environ.update(variables)
    assert config.take_service_variables() == variables
    assert not any(name in os.environ for name in variables)


def test_a_failed_start_says_why(make_daemon: Callable[..., Daemon],
                                 make_manager: Callable[..., ServiceManager]) -> None:
    first, manager = make_daemon("one").start(), make_manager()
    second = make_daemon("two", order_entry__tcp_port=first.port)
    second.manager = manager
    second.spawn()
    assert second.wait() == 1
    failed = manager.wait_for(lambda message: "failed" in message.get("STATUS", ""))
    assert "cannot listen" in manager.messages[failed]["STATUS"]
    assert not any(message.get("READY") for message in manager.messages)


def test_beats_stop_with_the_loop(make_daemon: Callable[..., Daemon],
                                  make_manager: Callable[..., ServiceManager]) -> None:
    """Lines of the log are written by the loop; nobody reads the pipe, so it stands still."""
    daemon, manager = make_daemon(), make_manager(watchdog_s=WATCHDOG_S)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    daemon.folder.mkdir()
    process = manager.start(daemon.command("run"), daemon.environment, ROOT, writing)
    daemon.process = process
    os.close(writing)
    os.set_blocking(reading, False)
    try:
        _read_until(reading, manager, lambda: any(
            message.get("READY") for message in manager.messages))
        seen = manager.beats()
        _read_until(reading, manager, lambda: manager.beats() > seen + 2)
        for _ in range(4):
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.05)
        _wait(lambda: time.monotonic() - _last_beat_s(manager) > STUCK_S)
        stuck = manager.beats()
        # It goes on when somebody reads again.
        text = _read_until(reading, manager, lambda: manager.beats() > stuck)
        assert b'"part": "diagnosis"' in text
        # What systemd does to a service that stands still; the log then says where it stood.
        process.send_signal(signal.SIGABRT)
        text = _read_until(reading, manager, lambda: process.poll() is not None)
        assert process.wait() == -signal.SIGABRT
        assert b"Fatal Python error: Aborted" in text
        assert b"lifecycle.py" in text
    finally:
        os.close(reading)
    # And starts it again.
    daemon.manager = manager
    assert daemon.start().port
    assert daemon.stop() == 0


def test_beats_come_at_half_of_the_watchdogs_time() -> None:
    variables = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "3000000",
                 "WATCHDOG_PID": str(os.getpid())}
    assert Supervisor(variables).beat_s == 1.5
    assert Supervisor(variables | {"WATCHDOG_PID": "1"}).beat_s == 10
    assert Supervisor({}).beat_s == 10


def test_a_manager_that_is_gone_is_no_reason_to_end(
        make_daemon: Callable[..., Daemon], make_manager: Callable[..., ServiceManager]) -> None:
    daemon, manager = make_daemon(), make_manager(watchdog_s=WATCHDOG_S)
    daemon.manager = manager
    daemon.start()
    manager.close()
    (manager._address).unlink()
    daemon.wait_for_line("the service manager can't be told")
    assert daemon.stop() == 0


async def test_progress_of_recovery(tmp_path: Path) -> None:
    venue = await Venue(tmp_path).start()
    for number in range(300):
        venue.inside(lambda batch, number=number: batch.enter(
            1, number + 1, 1, "B", 5, 1_000_000, "1"))
        await asyncio.sleep(0)
    await venue.stop()
    settings = config.load_settings(tmp_path / "matchd.toml", venue._env, venue.data_dir)
    for path in (venue.data_dir / "snapshots").iterdir():
        path.unlink()
    told: list[tuple[int, int, int]] = []
    recovered = Journal.open(settings.config, progress=lambda *progress: told.append(progress))
    recovered.journal.abandon()
    assert told == sorted(told)
    done, whole, events = told[-1]
    assert events == recovered.replayed >= 300
    assert whole - 8_192 < done <= whole


async def test_progress_is_told_and_a_stop_ends_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        make_manager: Callable[..., ServiceManager]) -> None:
    manager = make_manager()
    monkeypatch.setattr(lifecycle, "PROGRESS_NS", 0)
    supervisor = Supervisor({"NOTIFY_SOCKET": str(manager._address)})
    stop = Stop()
    progress = lifecycle._Progress(stop, supervisor)
    progress(50, 200, 1_000_000)
    told = manager.messages[manager.wait_for(lambda message: "STATUS" in message)]
    assert told["STATUS"].startswith("reading the log: 25 %, ")
    assert told["STATUS"].endswith("events per second")
    assert int(told["EXTEND_TIMEOUT_USEC"]) > 10**7
    stop.wanted = True
    with pytest.raises(lifecycle.StoppedEarlyError):
        progress(60, 200, 1_000_000)

    # The same in the venue: nothing is held, the next start works.
    venue = await Venue(tmp_path / "venue").start()
    venue.inside(lambda batch: batch.enter(1, 1, 1, "B", 5, 1_000_000, "1"))
    await venue.stop()
    for path in (venue.data_dir / "snapshots").iterdir():
        path.unlink()
    settings = config.load_settings(tmp_path / "venue" / "matchd.toml", venue._env, venue.data_dir)
    with pytest.raises(lifecycle.StoppedEarlyError):
        await lifecycle.serve(settings, stop)
    await venue.start()
    assert venue.app.matcher.resting_orders == 1
    await venue.stop()


def _last_beat_s(manager: ServiceManager) -> float:
    return max(at for at, message in zip(manager.times_s, manager.messages, strict=False)
               if message.get("WATCHDOG"))


def _wait(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def _read_until(reading: int, manager: ServiceManager, condition: Callable[[], bool]) -> bytes:
    found = b""

    def read() -> bool:
        nonlocal found
        try:
            found += os.read(reading, 65_536)
        except BlockingIOError:
            pass
        return condition()

    _wait(read)
    # What was written before the condition held.
    read()
    return found

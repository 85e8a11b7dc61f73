"""The unit files, checked by systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import ROOT

UNITS = ROOT / "config" / "systemd"
EXPOSURE_MAX = 2.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None,
                                   reason="no systemd-analyze here (Debian package systemd)")


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True,
                          timeout=60, check=False)


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    # What is only there once it is installed is taken from here.
    program = shutil.which("true")
    for unit in UNITS.glob("matchd.*"):
        text = unit.read_text().replace("/usr/bin/matchd", str(program))
        (tmp_path / unit.name).write_text(text)
    found = _analyze("verify", "--man=no", *(str(path) for path in sorted(tmp_path.iterdir())))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    # The check can fail.
    service = tmp_path / "matchd.service"
    service.write_text(service.read_text().replace("WatchdogSec=", "WatchdogSeconds="))
    assert "WatchdogSeconds" in _analyze("verify", "--man=no", str(service)).stderr


@needs_systemd
def test_the_sandbox_is_tight() -> None:
    found = _analyze("security", "--offline=true", "--no-pager",
                     str(UNITS / "matchd.service")).stdout
    match = re.search(r"Overall exposure level for matchd.service: ([0-9.]+)", found)
    assert match, found
    assert float(match[1]) <= EXPOSURE_MAX


def test_the_units_fit_the_program() -> None:
    """Exit codes, times and ports that stand in two places."""
    from engine import errors
    from engine.config import Config

    service = (UNITS / "matchd.service").read_text()
    prevented = re.search(r"^RestartPreventExitStatus=(.*)$", service, re.MULTILINE)
    assert prevented
    assert [int(code) for code in prevented[1].split()] == [
        errors.EXIT_CONFIG, errors.EXIT_NOT_COMPARABLE, errors.EXIT_CORRUPT]
    stop = re.search(r"^TimeoutStopSec=(\d+)$", service, re.MULTILINE)
    config = Config()
    assert stop
    assert int(stop[1]) * 1000 > config.venue.drain_timeout_ms
    listen = (UNITS / "matchd.socket").read_text()
    assert f"ListenStream=127.0.0.1:{config.order_entry.tcp_port}\n" in listen
    assert f"ListenDatagram=127.0.0.1:{config.order_entry.udp_port}\n" in listen

"""A flame graph of the daemon names our functions; without leave to look, it says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import profile


def frames(path: Path) -> set[str]:
    return set(re.findall(r"<title>(.*?) \(\d+ samples", path.read_text()))


def make(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What it printed; skips where the system allows no look at other processes."""
    code = profile.main(arguments)
    said = capsys.readouterr()
    if code and profile.hint(said.err):
        pytest.skip(f"ptrace is not permitted here: {profile.hint(said.err)}")
    assert code == 0, said.err
    return said.out


def test_a_daemon_under_load_has_a_flame_graph(tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "orders.svg"
    said = make(["orders", "--seconds", "2", "--output", str(path)], capsys)
    assert said.splitlines()[-1] == str(path)
    found = frames(path)
    assert any("engine/lifecycle.py" in frame for frame in found), found
    assert "matchd: OUCH over TCP" in path.read_text()


@pytest.mark.parametrize("load", ["udp", "feed", "http", "stores"])
def test_every_load_can_be_looked_at(load: str, tmp_path: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{load}.svg"
    make([load, "--seconds", "1", "--no-native", "--output", str(path)], capsys)
    assert any("engine/" in frame for frame in frames(path))


def test_a_running_process_can_be_looked_at(tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"],
                               stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        path = tmp_path / "pid.svg"
        make(["--pid", str(process.pid), "--seconds", "1", "--output", str(path)], capsys)
        assert "<svg" in path.read_text()
    finally:
        process.kill()
        process.wait()


def test_no_process_no_flame_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = tmp_path / "none.svg"
    assert profile.main(["--pid", str(process.pid), "--output", str(path)]) == 1
    assert "profile: " in capsys.readouterr().err
    assert not path.exists()


def test_it_says_what_to_do_where_nobody_may_look(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    scope = tmp_path / "ptrace_scope"
    monkeypatch.setattr(profile, "PTRACE_SCOPE", scope)
    assert "SYS_PTRACE" in profile.hint("Error: Permission Denied: Try running again with sudo")
    assert profile.hint("Error: something else") == ""
    for value, words in (("2", "root"), ("3", "next boot")):
        scope.write_text(f"{value}\n")
        assert words in profile.hint("")
    scope.write_text("1\n")
    assert profile.hint("") == ""


def test_a_user_who_may_not_look_is_told_what_to_do(tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    # What py-spy says then, as it is.
    denied = tmp_path / "py-spy"
    denied.write_text("#!/bin/sh\necho 'Permission Denied: Try running again with elevated "
                      "permissions' >&2\nexit 1\n")
    denied.chmod(0o755)
    monkeypatch.setattr(profile, "py_spy", lambda: str(denied))
    assert profile.main(["--pid", "1", "--output", str(tmp_path / "none.svg")]) == 1
    said = capsys.readouterr().err
    assert "Permission Denied" in said
    assert "SYS_PTRACE" in said or "root" in said


def test_without_py_spy_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(profile.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profile.main(["--pid", str(os.getpid())]) == 1
    assert "pip install 'py-spy" in capsys.readouterr().err

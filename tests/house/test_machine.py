"""What is missing on the machine is said in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def machine(tmp_path, **env):
    """Run the check as make does, in a folder of its own."""
    return subprocess.run(["sh", ROOT / ".ci" / "machine"], cwd=tmp_path, text=True,
                          capture_output=True, timeout=120,
                          env={**os.environ, "PYTHON": sys.executable, **env})


def script(tmp_path, text):
    """A stand-in for Python: a shell script."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_this_machine_has_what_is_needed(tmp_path):
    shown = machine(tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(("fake", "message"), [
    ('case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac',
     "Python 3.9.2 is too old: Python 3.11 or later is needed"),
    ('case "$*" in *ensurepip*) exit 1;; esac', "has no venv module: install it"),
])
def test_a_python_that_does_not_do_is_said_in_one_line(tmp_path, fake, message):
    shown = machine(tmp_path, PYTHON=script(tmp_path, fake))
    assert shown.returncode == 1
    assert message in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(("variable", "message"), [
    ("PYTHON", "no nosuch: install Python 3.11"), ("CC", "no C compiler (nosuch): install one")])
def test_a_program_that_is_missing_is_said_in_one_line(tmp_path, variable, message):
    shown = machine(tmp_path, **{variable: "nosuch"})
    assert shown.returncode == 1
    assert message in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_a_compiler_without_headers_is_said_in_one_line(tmp_path):
    shown = machine(tmp_path, CC="false")
    assert shown.returncode == 1
    assert "finds no C headers" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1

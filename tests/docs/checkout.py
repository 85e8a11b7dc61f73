"""A reader's machine: a folder like a fresh checkout, and a shell in it that runs what is copied.

What is different from the reader's, and nothing else:

- `.venv/bin/matchd` and `.venv/bin/python` are this Python's, and `matchd` is in the PATH. `make`
  takes its target `build` as done.
- Ports are free ones: MATCHD_... variables have them, and 8000, 8001, 9001, 9002 and Redis' 6379
  are replaced by them in the text of a command.
- curl says the status behind the answer (a `.curlrc`).
- A program that isn't installed (redis-cli, sqlite3, duckdb) is stood in for by
  tests/docs/programs.py.
- A question ("empty it?") is answered with y.
- `--speed` of a replay is 1000, where the page wants to show something for a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.daemon import ROOT
from tests.support.redis import free_port

WAIT_S = 60.0
# What a fresh checkout does not have.
_NOT_THERE = (".venv", "build", "data", "dist")
_DOORS = {9001: "ORDER_ENTRY__TCP_PORT", 9002: "ORDER_ENTRY__UDP_PORT", 8000: "API__PORT",
          8001: "FEED__PORT"}
# These run until somebody ends them: they are given time to begin, and go on beside the others.
ENDLESS = re.compile(r"^make run$|matchd watch \w+ &$|matchd watch (book|trades) \S+$")
_STARTED = ("listening", "udp listening", "api listening", "feed listening")


class Ran(NamedTuple):
    """What a command did: its exit code, its output (both streams), the status curl got."""

    code: int
    output: str
    status: str


class Checkout:
    """The folder, its venue, and its shell. `close` it at the end."""

    def __init__(self, folder: Path, redis_port: int = 0) -> None:
        self.folder = folder
        self.log_path = folder / "venue.log"
        self.ports = {door: free_port() for door in _DOORS} | {6379: redis_port or 6379}
        self.environment = self._environment()
        self._running: list[subprocess.Popen[bytes]] = []
        # Commands without an end, and the files of their output.
        self.heard: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.venue: subprocess.Popen[bytes] | None = None
        self._lay_out()

    def close(self) -> None:
        """End everything that runs."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start(self, command: str = "make run", **settings: str) -> Checkout:
        """Start the venue as the README says, and return when every door listens. Settings are
        named section__key."""
        self.environment |= {f"MATCHD_{key.upper()}": value for key, value in settings.items()}
        self.venue = self._spawn(command, self.log_path)
        self._until(lambda: set(_STARTED) <= {line.get("event") for line in self.log()})
        return self

    def stop(self) -> int:
        """Ctrl-C; returns the venue's exit code."""
        assert self.venue is not None
        os.killpg(self.venue.pid, signal.SIGINT)
        return self.venue.wait(WAIT_S)

    def log(self) -> list[dict[str, object]]:
        """The venue's log so far."""
        lines = self.log_path.read_text("utf-8").splitlines() if self.log_path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def run(self, command: str) -> Ran:
        """Run a command as it stands, and wait for its end; one that has none is left running."""
        if ENDLESS.search(command):
            return self._begin(command)
        done = subprocess.run(
            ["bash", "-c", self._here(command)], cwd=self.folder, input=b"y\n",
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=WAIT_S, check=False)
        # What `-o` wrote into a file may be no text, but that is not what is read here.
        output, status = done.stdout.decode("utf-8", "replace"), ""
        if "curl" in command:
            output, _, status = output.rpartition("\n")
        return Ran(done.returncode, output, status)

    def _begin(self, command: str) -> Ran:
        if command == "make run":
            self.start()
            return Ran(0, "", "")
        path = self.folder / f"output-{len(self.heard)}"
        self.heard.append((self._spawn(command.removesuffix("&"), path), path))
        return Ran(0, "", "")

    def await_output(self, nudge: Callable[[], object] = lambda: time.sleep(0.02)) -> list[str]:
        """What each command without an end has said, once it said something; until then `nudge`
        gives it reasons. Raises RuntimeError for one that ended, or stays silent."""
        deadline_s = time.monotonic() + WAIT_S
        for process, path in self.heard:
            while not path.stat().st_size:
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"{process.args!r} ended or said nothing")
                nudge()
        return [path.read_text("utf-8") for _, path in self.heard]

    def _spawn(self, command: str, output: Path) -> subprocess.Popen[bytes]:
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", self._here(command)], cwd=self.folder,
                env=self.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True)
        self._running.append(process)
        return process

    def _until(self, there: object) -> None:
        assert callable(there) and self.venue is not None
        deadline_s = time.monotonic() + WAIT_S
        while not there():
            if time.monotonic() > deadline_s or self.venue.poll() is not None:
                raise RuntimeError(f"the venue does not start:\n{self.log_path.read_text('utf-8')}")
            time.sleep(0.02)

    def _here(self, command: str) -> str:
        text = re.sub(r"(?<![\d.])(9001|9002|8000|8001|6379)(?!\d)",
                      lambda found: str(self.ports[int(found[0])]), command)
        return re.sub(r"--speed \S+", "--speed 1000", text)

    def _environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items()
                 if not key.startswith(("MATCHD_", "COV_"))}
        doors = {f"MATCHD_{name}": str(self.ports[door]) for door, name in _DOORS.items()}
        small = {"MATCHD_JOURNAL__SEGMENT_BYTES": str(2**22), "MATCHD_LOG__FORMAT": "json",
                 "MATCHD_JOURNAL__FIRST_SEGMENT_BYTES": str(2**20)}
        bin_folders = f"{self.folder}/bin:{self.folder}/.venv/bin"
        return clean | doors | small | {
            "PATH": f"{bin_folders}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "CURL_HOME": str(self.folder), "HOME": str(self.folder), "PYTHONPATH": str(ROOT),
            "REDIS_PORT": str(self.ports[6379]), "NO_COLOR": "1"}

    def _lay_out(self) -> None:
        self.folder.mkdir(parents=True)
        for path in ROOT.iterdir():
            if path.name not in _NOT_THERE and not path.name.startswith(".git"):
                (self.folder / path.name).symlink_to(path)
        (self.folder / ".curlrc").write_text('silent\nshow-error\nwrite-out = "\\n%{http_code}"\n')
        start = f"#!{sys.executable}\n"
        self._program(".venv/bin/matchd", start + "from engine.cli import main\n\nmain()\n")
        self._program(".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        make = shutil.which("make")
        self._program("bin/make", f'#!/bin/sh\nexec {make} --no-print-directory -o build "$@"\n')
        for name in ("redis-cli", "sqlite3", "duckdb"):
            if shutil.which(name) is None:
                self._program(f"bin/{name}", f'#!/bin/sh\nexec {sys.executable} '
                                             f'{ROOT}/tests/docs/programs.py {name} "$@"\n')

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

"""The real daemon in a process of its own, over a data directory of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.service_manager import ServiceManager

ROOT = Path(__file__).parents[2]
# Only what never happens waits so long; a loaded machine may need most of it.
WAIT_S = 90.0


class Daemon:
    """Starts, stops and kills `matchd run`. Settings are named section__key, as in the
    environment: `Daemon(folder, journal__sync="interval")`."""

    def __init__(self, folder: Path, config: Path | None = None, **settings: object) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_path = folder / "daemon.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        # Set by a test: the daemon is then started as a service manager does it.
        self.manager: ServiceManager | None = None
        self._config = config or ROOT / "config" / "matchd.toml"
        # Without stores, unless a test asks for one: most tests are about something else.
        self._settings = {"order_entry__tcp_port": 0, "order_entry__udp_port": 0, "feed__port": 0,
                          "api__port": 0, "log__format": "json", "sqlite__enabled": False,
                          "journal__segment_bytes": 2**22, "journal__first_segment_bytes": 2**20
                          } | settings

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the process: ours, without other settings, with these."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MATCHD_")}
        return clean | {f"MATCHD_{key.upper()}": str(value)
                        for key, value in self._settings.items()}

    def command(self, *arguments: str) -> list[str]:
        """The command line of `matchd ARGUMENTS` over this configuration and data directory."""
        return [sys.executable, "-m", "engine", *arguments, "--config", str(self._config),
                "--data-dir", str(self.data_dir)]

    def start(self) -> Daemon:
        """Start, and return when it listens. Raises RuntimeError with its log if it ends."""
        self.spawn()
        self.port = self.wait_for_line("listening")["port"]
        return self

    @property
    def udp_port(self) -> int:
        """The port of order entry over UDP, as soon as it listens."""
        return int(self.wait_for_line("udp listening")["port"])

    @property
    def feed_port(self) -> int:
        """The port of the WebSocket feed, as soon as it listens."""
        return int(self.wait_for_line("feed listening")["port"])

    @property
    def api_port(self) -> int:
        """The port of the HTTP gateway, as soon as it listens."""
        return int(self.wait_for_line("api listening")["port"])

    def spawn(self) -> None:
        """Start, and don't wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            if self.manager is not None:
                self.process = self.manager.start(self.command("run"), self.environment, ROOT, log)
            else:
                self.process = subprocess.Popen(self.command("run"), cwd=ROOT,
                                                env=self.environment, stdout=log, stderr=log)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of matchd on the same configuration and data directory."""
        return subprocess.run(self.command(*arguments), cwd=ROOT, env=self.environment,
                              capture_output=True, text=True, timeout=WAIT_S, check=False)

    def lines(self) -> list[dict[str, Any]]:
        """The log lines so far; a line that is no JSON is {"event": the line}."""
        found = []
        for line in self.log_path.read_text("utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": line})
        return found

    def wait_for_line(self, event: str, **fields: object) -> Mapping[str, Any]:
        """The first log line of this event and fields, as soon as there is one."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            for line in self.lines():
                if line.get("event") == event and fields.items() <= line.items():
                    return line
            if self.process is None or self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"no line {event!r} in the daemon's log:\n{self.log_path.read_text()}")

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait for the end; returns the exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop, and wait; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """kill -9, as often as one likes."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

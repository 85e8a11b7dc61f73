"""A stand-in for systemd: it hears what a service tells, and hands it listening sockets.

The protocol is real (sd_notify(3), sd_listen_fds(3)); what is missing is everything else.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

WAIT_S = 90.0
FIRST = 3
# What a manager does between fork and exec: descriptors from 3 on, and whose they are.
_LAUNCH = """
import os, sys
fds = [int(text) for text in sys.argv[1].split(",") if text]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""

Message = dict[str, str]


class ServiceManager:
    """Hears and hands over. `watchdog_s` 0 is none."""

    def __init__(self, folder: Path, watchdog_s: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.messages: list[Message] = []
        self.times_s: list[float] = []
        self._watchdog_s = watchdog_s
        self._sockets: list[tuple[str, socket.socket]] = []
        self._address = folder / "notify"
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(self._address))
        self._ear.settimeout(0.1)
        self._over = False
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear no more, and close the sockets that were handed over."""
        self._over = True
        self._thread.join()
        self._ear.close()
        for _, listener in self._sockets:
            listener.close()

    def listen(self, name: str, kind: socket.SocketKind = socket.SOCK_STREAM,
               backlog: int = 1024) -> int:
        """A socket on a free port of loopback, to be handed over under this name; its port."""
        listener = socket.socket(socket.AF_INET, kind)
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen(backlog)
        self._sockets.append((name, listener))
        return int(listener.getsockname()[1])

    def start(self, command: list[str], environment: Mapping[str, str], folder: Path,
              output: IO[bytes] | int) -> subprocess.Popen[bytes]:
        """Start a service; stdout and stderr go to `output`."""
        # High numbers, so that none of them is in the way of 3, 4, ...
        fds = [fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 100)
               for _, listener in self._sockets]
        variables = {"NOTIFY_SOCKET": str(self._address)}
        if self._watchdog_s:
            variables["WATCHDOG_USEC"] = str(int(self._watchdog_s * 1e6))
        if fds:
            variables |= {"LISTEN_FDS": str(len(fds)),
                          "LISTEN_FDNAMES": ":".join(name for name, _ in self._sockets)}
        try:
            return subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, ",".join(map(str, fds)), *command], cwd=folder,
                env={**environment, **variables}, pass_fds=fds, stdout=output, stderr=output)
        finally:
            for fd in fds:
                os.close(fd)

    def beats(self) -> int:
        """How often the service said that it lives."""
        return sum(1 for message in self.messages if message.get("WATCHDOG") == "1")

    def wait_for(self, wanted: Callable[[Message], bool], after: int = 0) -> int:
        """The place of the first message from `after` on that is wanted, as soon as it came."""
        return self.wait_until(lambda: next(
            (place for place, message in enumerate(self.messages[after:], after)
             if wanted(message)), None))

    def wait_until(self, condition: Callable[[], int | None]) -> int:
        """Wait until the condition gives a number."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            found = condition()
            if found is not None:
                return found
            time.sleep(0.01)
        raise RuntimeError(f"it never came; heard: {self.messages[-20:]}")

    def _hear(self) -> None:
        while not self._over:
            try:
                data = self._ear.recv(65_536)
            except TimeoutError:
                continue
            lines = (line.partition("=") for line in data.decode().splitlines())
            self.times_s.append(time.monotonic())
            self.messages.append({name: value for name, _, value in lines})

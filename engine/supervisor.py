"""The service manager that started us, if one did: what it is told, and the sockets it hands over.

The protocol is that of systemd: datagrams of `NAME=value` lines to the socket that NOTIFY_SOCKET
names (sd_notify(3)), and listening sockets from descriptor 3 on (sd_listen_fds(3)). Without those
variables everything here does nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from engine import clock, log
from engine.errors import EngineError

FIRST_DESCRIPTOR = 3
# What a manager calls a socket that it was given no name for: "unknown", or as its unit is called.
UNNAMED = ("", "unknown")
UNIT_ENDING = ".socket"
# Without a watchdog the line of `systemctl status` is still renewed this often.
STATUS_S = 10.0
# A state must arrive, so its datagram may wait so long for room; a beat is dropped instead.
SEND_S = 1.0


class Supervisor:
    """Who started this process. `variables` are those of `config.take_service_variables`."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        variables = variables or {}
        address = variables.get("NOTIFY_SOCKET", "")
        # A name that starts with @ is one without a file.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._log = log.get("supervisor")
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._watchdog_s = _watchdog_s(variables) if self._socket else 0.0
        self._sockets = self._take_sockets(variables)

    @property
    def beat_s(self) -> float:
        """The time between two beats: half of what the watchdog waits."""
        return self._watchdog_s / 2 or STATUS_S

    # -- what it is told -----------------------------------------------------------------------

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(f"STATUS={text}", must_arrive=False)

    def starting(self, text: str, more_s: int) -> None:
        """The start goes on, and should be given so many seconds more from now."""
        self._send(f"STATUS={text}\nEXTEND_TIMEOUT_USEC={more_s * 1_000_000}")

    def ready(self, text: str) -> None:
        """The venue has recovered and listens; also: a reload is over."""
        self._send(f"READY=1\nSTATUS={text}")

    def reloading(self) -> None:
        """The tables are read again; `ready` says that it is over."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={clock.monotonic_ns() // 1_000}\n"
                   "STATUS=reading the tables again")

    def stopping(self, text: str) -> None:
        """The venue stops."""
        self._send(f"STOPPING=1\nSTATUS={text}")

    async def beat_for_ever(self, status: Callable[[], str]) -> None:
        """Say at regular times that the loop runs; it can't while something blocks it."""
        while True:
            watchdog = "WATCHDOG=1\n" if self._watchdog_s else ""
            self._send(f"{watchdog}STATUS={status()}", must_arrive=False)
            await asyncio.sleep(self.beat_s)

    def _send(self, text: str, must_arrive: bool = True) -> None:
        if self._socket is None:
            return
        self._socket.settimeout(SEND_S if must_arrive else 0.0)
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            # It may be gone or full; the venue does not depend on it.
            self._log.warning("the service manager can't be told",
                              error=error.strerror or str(error), key="notify")

    # -- what it hands over --------------------------------------------------------------------

    def take_sockets(self, name: str, kind: socket.SocketKind) -> list[socket.socket]:
        """Listening sockets of this name (FileDescriptorName=), or of none, and of this kind; each
        is given once."""
        taken = [one for one in self._sockets if (one[0] == name or _is_unnamed(one[0]))
                 and one[1].type == kind and one[1].family in (socket.AF_INET, socket.AF_INET6)]
        for one in taken:
            self._sockets.remove(one)
        return [listener for _, listener in taken]

    def hosts(self) -> list[str]:
        """The addresses that the sockets are bound to."""
        return [str(listener.getsockname()[0]) for _, listener in self._sockets
                if listener.family in (socket.AF_INET, socket.AF_INET6)]

    def close_others(self) -> None:
        """Close the sockets that nobody took, and say so."""
        for name, listener in self._sockets:
            self._log.warning("a socket that was handed over is none of ours", name=name,
                              address=str(listener.getsockname()))
            listener.close()
        self._sockets = []

    def _take_sockets(self, variables: Mapping[str, str]) -> list[tuple[str, socket.socket]]:
        """The sockets with their names. Raises EngineError for a descriptor that is none."""
        if variables.get("LISTEN_PID") != str(os.getpid()):
            return []
        text = variables.get("LISTEN_FDS", "")
        count = int(text) if text.isdecimal() else 0
        names = variables.get("LISTEN_FDNAMES", "").split(":")
        found = []
        for number in range(count):
            name = (names[number] if number < len(names) else "") or "unknown"
            try:
                listener = socket.socket(fileno=FIRST_DESCRIPTOR + number)
            except OSError as error:
                raise EngineError(f"descriptor {FIRST_DESCRIPTOR + number} ({name}) that was "
                                  f"handed over is no socket: {error.strerror}") from error
            listener.set_inheritable(False)
            listener.setblocking(False)
            found.append((name, listener))
        return found


def _is_unnamed(name: str) -> bool:
    return name in UNNAMED or name.endswith(UNIT_ENDING)


def _watchdog_s(variables: Mapping[str, str]) -> float:
    """After how long a silence the watchdog bites; 0 without one, or when it is another's."""
    if variables.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = variables.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() else 0.0

"""How the command line talks to a running daemon: a socket in its data directory.

JSON lines, one request and one answer: `{"op": "roll"}` gives `{"ok": true, "generation": 2}`, or
`{"ok": false, "error": "..."}`. Only the daemon's user may connect (mode 0600).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import log
from engine.errors import ConfigError, EngineError

SOCKET_NAME = "control.sock"
REQUEST_BYTES_MAX = 65_536

Answer = dict[str, Any]
Operation = Callable[[Mapping[str, Any]], Awaitable[Answer]]


class ControlError(EngineError):
    """The daemon cannot be reached, or refused the request."""


@contextmanager
def _socket_path(data_dir: Path) -> Iterator[str]:
    """A name for the socket that is short enough for the kernel (108 bytes), whatever the
    length of the data directory's."""
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)


class ControlServer:
    """Answers requests with the operations it was given."""

    def __init__(self, data_dir: Path, operations: Mapping[str, Operation]) -> None:
        self._data_dir = data_dir
        self._operations = operations
        self._server: asyncio.Server | None = None
        self._log = log.get("control")

    async def start(self) -> None:
        """Listen. A socket that a killed daemon left behind is replaced.

        Raises ControlError when another daemon answers on it: without a journal there is no lock
        that would have told it.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        if await asyncio.to_thread(is_answered, self._data_dir):
            raise ControlError(f"another daemon runs on {self._data_dir}",
                               "give each its own venue.data_dir")
        (self._data_dir / SOCKET_NAME).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            with _socket_path(self._data_dir) as path:
                listener.bind(path)
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener,
                                                       limit=REQUEST_BYTES_MAX)

    def close(self) -> None:
        """Listen no more and take the socket away."""
        if self._server is not None:
            self._server.close()
            (self._data_dir / SOCKET_NAME).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            # Gone, or a line without end: nobody is left to answer.
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            operation = self._operations[request["op"]]
        except (ValueError, TypeError, KeyError):
            known = ", ".join(sorted(self._operations))
            return {"ok": False, "error": f"expected a JSON object with op one of {known}"}
        # Commands that wait for something ask for these again and again.
        tell = self._log.debug if request["op"] in ("status", "stores") else self._log.info
        tell("control request", op=request["op"])
        try:
            return {"ok": True, **await operation(request)}
        except ConfigError as error:
            return {"ok": False, "error": str(error), "problems": list(error.problems)}
        except EngineError as error:
            return {"ok": False, "error": str(error)}


def request(data_dir: Path, operation: str, timeout_s: float = 10.0,
            **arguments: object) -> Answer:
    """Ask the daemon that runs on `data_dir`. Raises ControlError when none does, or it refuses;
    ConfigError when it refuses for what is in its files."""
    try:
        line = _exchange(data_dir, json.dumps({"op": operation, **arguments}), timeout_s)
    except (OSError, ValueError) as error:
        raise ControlError(f"no daemon answers on {data_dir}: {error}",
                           "is it running, with this data directory?") from error
    if not line:
        raise ControlError(f"the daemon on {data_dir} closed the connection")
    answer: Answer = json.loads(line)
    if not answer.pop("ok"):
        if "problems" in answer:
            raise ConfigError(answer["error"], problems=tuple(answer["problems"]))
        raise ControlError(answer["error"])
    return answer


def is_answered(data_dir: Path) -> bool:
    """Whether a daemon listens on the data directory's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(1.0)
        try:
            with _socket_path(data_dir) as path:
                peer.connect(path)
        except OSError:
            return False
    return True


def _exchange(data_dir: Path, text: str, timeout_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(timeout_s)
        with _socket_path(data_dir) as path:
            peer.connect(path)
        peer.sendall(text.encode() + b"\n")
        with peer.makefile("rb") as lines:
            return lines.readline()

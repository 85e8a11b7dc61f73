"""A program in a real terminal: a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping

import pyte

WAIT_S = 60.0


class Terminal:
    """Runs a program in a terminal of so many columns and lines. Use it in an `async with`
    block."""

    def __init__(self, command: list[str], env: Mapping[str, str], columns: int = 80,
                 lines: int = 24) -> None:
        # The terminal's size is its own, whatever the environment says of another one.
        self._env = {key: value for key, value in env.items() if key not in ("COLUMNS", "LINES")}
        self._env["TERM"] = "xterm-256color"
        self._command = command
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        # Everything that the program wrote.
        self.written = b""
        self._size = columns, lines
        self._master = -1
        self.process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Terminal:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ,
                    struct.pack("HHHH", self._size[1], self._size[0], 0, 0))
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(self._command, env=self._env, stdin=slave, stdout=slave,
                                        stderr=slave, start_new_session=True)
        os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65_536)
        except OSError:
            # The last one who had the other end is gone.
            asyncio.get_running_loop().remove_reader(self._master)
            return
        self.written += data
        self._stream.feed(data)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    @property
    def lines(self) -> list[str]:
        """What the screen shows."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The same in one text."""
        return "\n".join(self.lines)

    def line(self, begins: str) -> str:
        """The line that begins so, "" when there is none."""
        return next((line for line in self.lines if line.startswith(begins)), "")

    async def wait_until(self, holds: Callable[[Terminal], object], what: str) -> None:
        """Wait until the screen is as it should be. Raises AssertionError with the screen."""
        deadline_s = time.monotonic() + WAIT_S
        while not holds(self):
            assert time.monotonic() < deadline_s, f"never {what}:\n{self.text}"
            await asyncio.sleep(0.05)

    async def wait_for(self, text: str) -> None:
        """Wait until the screen shows this."""
        await self.wait_until(lambda terminal: text in terminal.text, f"shown {text!r}")

    async def ended(self) -> int:
        """Wait for the program's end; returns its exit code."""
        assert self.process is not None
        deadline_s = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, "the program does not end"
            await asyncio.sleep(0.02)
        return self.process.returncode

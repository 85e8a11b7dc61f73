"""HTTP/1.1 for the client: a few kept connections, one request at a time on each."""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.clients.errors import ClientError, ConnectionLostError

HEAD_BYTES_MAX = 65_536
IDLE_MAX = 16


class HttpAnswer(NamedTuple):
    """What came back. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Wire(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Connections:
    """Connections to one venue, kept for the next request."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"{url!r} is no address of a gateway", "http://HOST:PORT")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = parts.scheme == "https"
        self._name = parts.netloc
        self._timeout_s = timeout_s
        self._idle: list[_Wire] = []

    async def request(self, method: str, target: str, headers: dict[str, str],
                      body: bytes) -> HttpAnswer:
        """Send a request and wait for its answer. Raises ConnectionLostError when there is none:
        the request may have been carried out."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._name}",
                 f"content-length: {len(body)}",
                 *(f"{name}: {value}" for name, value in headers.items())]
        data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        wire = None
        try:
            async with asyncio.timeout(self._timeout_s):
                wire = await self._wire()
                wire.writer.write(data)
                answer = await _read(wire.reader, method)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError,
                ValueError) as error:
            _close(wire)
            raise ConnectionLostError(f"no answer from {self._name}: "
                                      f"{str(error) or type(error).__name__}") from error
        except BaseException:
            _close(wire)
            raise
        if answer.headers.get("connection") == "close" or len(self._idle) >= IDLE_MAX:
            _close(wire)
        else:
            self._idle.append(wire)
        return answer

    async def _wire(self) -> _Wire:
        while self._idle:
            wire = self._idle.pop()
            if not wire.reader.at_eof() and not wire.writer.is_closing():
                return wire
            _close(wire)
        return _Wire(*await asyncio.open_connection(
            self._host, self._port, ssl=self._tls or None, limit=HEAD_BYTES_MAX))

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            _close(self._idle.pop())


async def _read(reader: asyncio.StreamReader, method: str) -> HttpAnswer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
    return HttpAnswer(int(first.split(" ", 2)[1]), headers, await reader.readexactly(length))


def _close(wire: _Wire | None) -> None:
    if wire is not None:
        wire.writer.close()

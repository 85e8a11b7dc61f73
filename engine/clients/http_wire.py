"""HTTP/1.1 for the client: a few kept connections, one request at a time on each."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.clients.errors import ClientError, ConnectionLostError

HEAD_BYTES_MAX = 65_536
IDLE_MAX = 16

_BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError,
           ValueError)


class HttpAnswer(NamedTuple):
    """What came back. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class LongAnswer(NamedTuple):
    """An answer whose body is still coming, whatever its length."""

    status: int
    headers: dict[str, str]
    parts: AsyncGenerator[bytes, None]


class _Wire(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Connections:
    """Connections to one venue, kept for the next request."""

    def __init__(self, url: str, timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"{url!r} is no address of a gateway", "http://HOST:PORT")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls: ssl.SSLContext | bool | None = None
        if parts.scheme == "https":
            self._tls = tls or True
        self._name = parts.netloc
        self._timeout_s = timeout_s
        self._idle: list[_Wire] = []

    async def request(self, method: str, target: str, headers: dict[str, str],
                      body: bytes) -> HttpAnswer:
        """Send a request and wait for its answer. Raises ConnectionLostError when there is none:
        the request may have been carried out."""
        data = self._data(method, target, headers, body)
        wire = None
        try:
            async with asyncio.timeout(self._timeout_s):
                wire = await self._wire()
                wire.writer.write(data)
                answer = await _read(wire.reader, method)
        except _BROKEN as error:
            _close(wire)
            raise self._lost(error) from error
        except BaseException:
            _close(wire)
            raise
        if answer.headers.get("connection") == "close" or len(self._idle) >= IDLE_MAX:
            _close(wire)
        else:
            self._idle.append(wire)
        return answer

    @asynccontextmanager
    async def stream(self, method: str, target: str,
                     headers: dict[str, str]) -> AsyncIterator[LongAnswer]:
        """Send a request and read its answer as it comes, over a connection of its own. Raises
        ConnectionLostError when it breaks off; no part may take longer than a whole answer."""
        wire = None
        try:
            try:
                async with asyncio.timeout(self._timeout_s):
                    wire = await self._new_wire()
                    wire.writer.write(self._data(method, target, headers, b""))
                    status, found = await _read_head(wire.reader)
            except _BROKEN as error:
                raise self._lost(error) from error
            yield LongAnswer(status, found, self._parts(wire.reader, found))
        finally:
            _close(wire)

    async def _parts(self, reader: asyncio.StreamReader,
                     headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
        parts = _parts(reader, headers)
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    part = await anext(parts, None)
            except _BROKEN as error:
                raise self._lost(error) from error
            if part is None:
                return
            yield part

    def _data(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._name}",
                 f"content-length: {len(body)}",
                 *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def _lost(self, error: Exception) -> ConnectionLostError:
        reason = f"nothing came in {self._timeout_s:g} s" if isinstance(error, TimeoutError) \
            else str(error) or type(error).__name__
        return ConnectionLostError(f"no answer from {self._name}: {reason}")

    async def _wire(self) -> _Wire:
        while self._idle:
            wire = self._idle.pop()
            if not wire.reader.at_eof() and not wire.writer.is_closing():
                return wire
            _close(wire)
        return await self._new_wire()

    async def _new_wire(self) -> _Wire:
        return _Wire(*await asyncio.open_connection(
            self._host, self._port, ssl=self._tls or None, limit=HEAD_BYTES_MAX))

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            _close(self._idle.pop())


async def _read(reader: asyncio.StreamReader, method: str) -> HttpAnswer:
    status, headers = await _read_head(reader)
    if method == "HEAD":
        return HttpAnswer(status, headers, b"")
    return HttpAnswer(status, headers, b"".join([part async for part in _parts(reader, headers)]))


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(first.split(" ", 2)[1]), headers


async def _parts(reader: asyncio.StreamReader,
                 headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
    """A body in parts, with its length known or not: RFC 9112 6 and 7.1."""
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        part = await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk is longer than it says")
        if not size:
            return
        yield part


def _close(wire: _Wire | None) -> None:
    if wire is not None:
        wire.writer.close()

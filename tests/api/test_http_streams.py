"""Answers without a length: chunks, back-pressure, clients that go, streams that fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import clock
from engine.api import protocol
from engine.api.auth import Auth
from engine.api.gateway import Gateway
from engine.api.keys import KeyFile
from engine.api.protocol import Connection
from engine.api.route import Access, Call, Reply, Route
from engine.api.server import Server
from engine.config import ApiConfig
from engine.errors import EngineError

PART = b"x" * 10_000
Stream = Callable[[], AsyncGenerator[bytes, None]]


class Made:
    """A stream that says how far it got."""

    def __init__(self, parts: int, fails: type[Exception] | None = None) -> None:
        self.parts, self.fails = parts, fails
        self.made = 0
        self.ended = asyncio.Event()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(self.parts):
                self.made += 1
                yield PART
                await asyncio.sleep(0)
            if self.fails is not None:
                raise self.fails("no more")
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(folder: Path, made: Made) -> AsyncIterator[int]:
    """A gateway whose `/long` answers with a stream; its port."""
    async def long(call: Call) -> Reply:
        return Reply(200, content_type=b"text/csv", stream=made.stream())

    async def short(call: Call) -> Reply:
        return Reply(200, b"{}")

    config = ApiConfig(port=0)
    gateway = Gateway(Auth(config, (), KeyFile(folder, "")), 1000)
    gateway.add([Route(method="GET", path="/long", handler=long, summary="", access=Access.PUBLIC),
                 Route(method="GET", path="/short", handler=short, summary="",
                       access=Access.PUBLIC)])
    server = Server(config, gateway)
    try:
        yield await server.start()
    finally:
        await server.close()


async def ask(port: int, request: bytes) -> bytes:
    """Everything until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    found = b""
    try:
        while data := await asyncio.wait_for(reader.read(65536), 10):
            found += data
    except ConnectionResetError:
        pass
    writer.close()
    return found


def unchunked(body: bytes) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it was whole."""
    whole = b""
    while True:
        size, mark, rest = body.partition(b"\r\n")
        if not mark:
            return whole, b"", False
        length = int(size, 16)
        if len(rest) < length + 2:
            return whole + rest, b"", False
        if not length:
            return whole, rest[2:], True
        whole, body = whole + rest[:length], rest[length + 2:]


async def test_a_stream_comes_in_chunks_and_the_connection_lives_on(tmp_path: Path) -> None:
    made = Made(50)
    async with serving(tmp_path, made) as port:
        found = await ask(port, b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n"
                                b"GET /short HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.lower().count(b"transfer-encoding: chunked") == 1
    assert b"content-length" not in head.lower() and b"content-type: text/csv" in head.lower()
    whole, after, complete = unchunked(body)
    assert complete and whole == PART * 50
    assert after.startswith(b"HTTP/1.1 200") and after.endswith(b"{}")
    assert made.ended.is_set()


async def test_an_old_client_reads_to_the_end_of_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, Made(3)) as port:
        found = await ask(port, b"GET /long HTTP/1.0\r\n\r\n")
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower() and b"connection: close" in head.lower()
    assert body == PART * 3


async def test_a_head_asks_for_nothing(tmp_path: Path) -> None:
    made = Made(3)
    async with serving(tmp_path, made) as port:
        found = await ask(port, b"HEAD /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert found.endswith(b"\r\n\r\n") and b"transfer-encoding: chunked" in found.lower()
    assert made.made == 0


@pytest.mark.parametrize("fails", [EngineError, RuntimeError])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_stream_that_fails_is_no_whole_answer(
        tmp_path: Path, fails: type[Exception], version: bytes) -> None:
    made = Made(3, fails)
    async with serving(tmp_path, made) as port:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(b"GET /long HTTP/" + version + b"\r\nHost: x\r\n\r\n")
        sock.settimeout(10)
        await asyncio.wait_for(made.ended.wait(), 10)
        found, reset = b"", False
        try:
            while data := await asyncio.to_thread(sock.recv, 65536):
                found += data
        except ConnectionResetError:
            reset = True
        sock.close()
    assert reset or not unchunked(found.partition(b"\r\n\r\n")[2])[2]
    if version == b"1.0":
        # Only a reset tells an old client that something is missing.
        assert reset or PART * 3 not in found


async def test_a_client_that_does_not_read_holds_the_stream_up_and_ends_it(
        tmp_path: Path) -> None:
    made = Made(100_000)
    async with serving(tmp_path, made) as port:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while made.made != before or not before:
            before = made.made
            await asyncio.sleep(0.3)
        assert made.made < 2_000
        sock.close()
        await asyncio.wait_for(made.ended.wait(), 10)
        assert made.made < 2_000


async def test_a_client_that_reads_nothing_is_cut(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STALL_NS_MAX", clock.NS_PER_S // 2)
    made = Made(100_000)
    async with serving(tmp_path, made) as port:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(made.ended.wait(), 10)
    assert made.made < 100_000


def test_only_a_stalled_answer_is_cut() -> None:
    class Stalls:
        begun_ns, rested_ns, stalled_ns = 0, 1, 5
        cycle = type("Cycle", (), {"response_complete": False})
        aborted = False

        @property
        def transport(self) -> Stalls:
            return self

        def abort(self) -> None:
            self.aborted = True

    connection = Stalls()
    cut: Any = Connection.cut_if_slow
    assert not cut(connection, 4 + protocol.STALL_NS_MAX)
    assert cut(connection, 5 + protocol.STALL_NS_MAX)
    assert connection.aborted

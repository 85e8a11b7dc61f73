"""A server that was away is knocked at before a client is built for it; it is found when it is
back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from engine import redis_link
from engine.config import PostgresConfig, RedisConfig
from engine.knock import Address, knock
from engine.stores.postgres_link import Link
from engine.stores.redis_store import RedisStore
from engine.stores.store import Position, StoreDown
from tests.support.postgres import PostgresServer, installed
from tests.support.redis import RedisServer, TlsFront

LOG = Position(bytes(16), 0, 1)
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
WAIT_S = 30.0


@pytest.fixture
def closed() -> Address:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as once:
        return "127.0.0.1", once.getsockname()[1]


class Heard:
    """A server that notes what each connection says first, and answers with `answer`; None closes
    without a word, nothing at all keeps silent."""

    def __init__(self, answer: bytes | None = b"") -> None:
        self.answer = answer
        self.first: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.first.append(await reader.read(100))
        with contextlib.suppress(OSError):
            if self.answer:
                writer.write(self.answer)
            if self.answer != b"":
                writer.close()
            await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def listening(heard: Heard) -> AsyncIterator[Address]:
    server = await asyncio.start_server(heard.serve, "127.0.0.1", 0)
    try:
        yield "127.0.0.1", server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("answer", [b"N", None], ids=["a byte", "the end"])
async def test_an_answer_is_an_answer_whatever_it_says(answer: bytes | None) -> None:
    heard = Heard(answer)
    async with listening(heard) as address:
        await knock([address], b"hello", WAIT_S)
    assert heard.first == [b"hello"]


async def test_who_refuses_and_who_keeps_silent_is_told_apart(closed: Address) -> None:
    with pytest.raises(ConnectionRefusedError):
        await knock([closed], b"hello", WAIT_S)
    async with listening(Heard()) as silent:
        with pytest.raises(TimeoutError):
            await knock([silent], b"hello", 0.05)
        # Without a question the connection is enough.
        await knock([silent], b"", WAIT_S)


async def test_one_of_several_is_enough(closed: Address, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    heard = Heard(b"N")
    server = await asyncio.start_unix_server(heard.serve, path)
    async with listening(Heard()) as silent:
        await knock([closed, silent, path], b"hello", 0.05)
    server.close()
    assert heard.first == [b"hello"]
    with pytest.raises(FileNotFoundError):
        await knock([closed, f"{path}-none"], b"hello", WAIT_S)
    with pytest.raises(ConnectionError, match="label empty"):
        await knock([closed, ("no..name", 1)], b"hello", WAIT_S)


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[None]:
    """Count calls of a function, which does what it did."""
    calls: list[None] = []
    before: Callable[..., Any] = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


async def test_no_client_is_built_for_a_postgresql_that_stays_away(
        monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_calls(monkeypatch, asyncpg, "connect")
    heard = Heard()
    async with listening(heard) as (host, port):
        link = Link(PostgresConfig(url=f"postgresql://nobody:none@{host}:{port}/none",
                                   connect_timeout_ms=50))
        for _ in range(3):
            with pytest.raises(StoreDown, match=f"{port}/none did not answer in time"):
                await link.connect()
    with pytest.raises(StoreDown, match=f"{port}/none can't be reached"):
        await link.connect()
    assert len(built) == 1
    assert heard.first == [SSL_REQUEST] * 3


async def test_a_postgresql_that_is_back_is_found_and_not_knocked_at_again(
        monkeypatch: pytest.MonkeyPatch) -> None:
    server = PostgresServer(max(installed())).start()
    try:
        link = Link(PostgresConfig(url=server.url))
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreDown):
                await link.connect()
        server.start()
        await (await link.connect()).close()
        knocks = count_calls(monkeypatch, link, "_knock")
        await (await link.connect()).close()
        assert not knocks
    finally:
        server.close()


@pytest.mark.parametrize("url", [
    "postgresql://u:p@127.0.0.1:{port},127.0.0.1:{port}/none",
    "postgresql://u:p@/none?host=127.0.0.1&port={port}",
], ids=["two servers", "a host in the query"])
async def test_what_is_no_plain_address_is_tried_as_it_is(
        monkeypatch: pytest.MonkeyPatch, closed: Address, url: str) -> None:
    built = count_calls(monkeypatch, asyncpg, "connect")
    link = Link(PostgresConfig(url=url.format(port=closed[1])))
    for _ in range(2):
        with pytest.raises(StoreDown):
            await link.connect()
    assert len(built) == 2


@pytest.mark.parametrize("shape", ["an escaped socket", "a port of the environment"])
async def test_a_postgresql_that_is_back_is_found_by_what_the_client_alone_knows(
        monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    server = PostgresServer(max(installed())).start()
    try:
        if shape == "an escaped socket":
            url = f"postgresql://postgres@{quote(str(server.folder), '')}:{server.port}/postgres"
        else:
            url = server.url.replace(f":{server.port}/", "/")
            monkeypatch.setenv("PGPORT", str(server.port))
        link = Link(PostgresConfig(url=url))
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreDown):
                await link.connect()
        server.start()
        await (await link.connect()).close()
    finally:
        server.close()


async def test_no_client_is_built_for_a_redis_that_stays_away(
        monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_calls(monkeypatch, redis_link, "Redis")
    heard = Heard()
    async with listening(heard) as (host, port):
        store = RedisStore(RedisConfig(url=f"redis://{host}:{port}/0", connect_timeout_s=0.05,
                                       socket_timeout_s=0.05), None)
        for _ in range(3):
            with pytest.raises(StoreDown, match=f"Redis at {host}:{port}: no answer in time"):
                await store.open(LOG)
    with pytest.raises(StoreDown, match=f"Redis at {host}:{port}"):
        await store.open(LOG)
    await store.close()
    assert len(built) == 1
    assert heard.first[1:] == [b"*1\r\n$4\r\nPING\r\n"] * 2


async def test_a_redis_whose_name_is_none_is_down_each_time() -> None:
    store = RedisStore(RedisConfig(url="redis://no..name:6379"), None)
    for _ in range(3):
        with pytest.raises(StoreDown, match="no..name:6379: .*label empty"):
            await store.open(LOG)
    await store.close()


@pytest.mark.parametrize("shape", ["plain", "password", "tls", "unix"])
async def test_a_redis_that_is_back_is_found(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: str) -> None:
    server = RedisServer(tmp_path / "server")
    if shape == "password":
        # Whoever has not logged in gets an error: an answer too.
        server.use_password("secret")
    server.start()
    front = TlsFront(tmp_path / "tls", server) if shape == "tls" else None
    url = {"plain": server.url, "password": server.url.replace("://", "://:secret@"),
           "unix": server.unix_url}.get(shape) or (front.url if front else "")
    files = {"ssl_root_cert_file": str(front.ca_path)} if front else {}
    store = RedisStore(RedisConfig(url=url, connect_timeout_s=2.0, **files), None)
    try:
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreDown):
                await store.open(LOG)
        server.start()
        await store.open(LOG)
        await store.close()
        knocks = count_calls(monkeypatch, redis_link, "knock")
        await store.open(LOG)
        assert not knocks
    finally:
        await store.close()
        if front is not None:
            front.close()
        server.kill()

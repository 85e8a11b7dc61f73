"""What a real server refuses is said in one clear line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import RedisConfig
from engine.redis_errors import reason_of
from engine.redis_link import RedisLink
from engine.stores.redis_store import RedisStore
from engine.stores.store import Position, StoreDown
from tests.support.redis import RedisServer, TlsFront


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path / "server")
    yield one
    one.kill()


async def failure(config: RedisConfig) -> str:
    link = RedisLink(config)
    try:
        await link.open()
        await link.node("a").set("a", "b")
    except Exception as error:
        return reason_of(error)
    finally:
        await link.close()
    return ""


async def test_wrong_password(server: RedisServer) -> None:
    server.use_password("p@ss", "venue")
    server.start()
    url = server.url.replace("redis://", "redis://venue:wrong@")
    assert await failure(RedisConfig(url=url)) == "wrong user or password"


async def test_missing_password(server: RedisServer) -> None:
    server.use_password("secret")
    server.start()
    assert await failure(RedisConfig(url=server.url)) == "the server wants a password"


async def test_rights(server: RedisServer) -> None:
    server.use_password("pw", "venue", "~matchd:* +get")
    server.start()
    url = server.url.replace("redis://", "redis://venue:pw@")
    assert (await failure(RedisConfig(url=url))).startswith("the user may not do this")


async def test_a_full_server_and_a_replica(server: RedisServer, tmp_path: Path) -> None:
    server.start()
    with server.client() as client:
        client.config_set("maxmemory", 1)
        assert await failure(RedisConfig(url=server.url)) == \
            "the server's memory is full (maxmemory)"
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", 1)
        assert await failure(RedisConfig(url=server.url)) == \
            "the server is a read-only replica"


async def test_nobody_there_and_nobody_answers(server: RedisServer) -> None:
    server.start()
    config = RedisConfig(url=server.url, socket_timeout_s=0.2)
    server.pause()
    try:
        assert await failure(config) in ("no answer in time", "Timeout reading from socket")
    finally:
        server.resume()
    server.kill()
    assert "onnect" in await failure(config)


async def test_a_certificate_that_nobody_vouches_for(server: RedisServer, tmp_path: Path) -> None:
    server.start()
    front = TlsFront(tmp_path / "tls", server)
    try:
        assert "certificate" in (await failure(RedisConfig(url=front.url))).lower()
    finally:
        front.close()


async def test_the_store_names_its_server_and_no_secret(server: RedisServer) -> None:
    server.use_password("p@ss", "venue")
    server.start()
    host = server.url.removeprefix("redis://").rstrip("/").partition("/")[0]
    url = server.url.replace("redis://", "redis://venue:wrong@")
    store = RedisStore(RedisConfig(url=url), None)
    with pytest.raises(StoreDown) as caught:
        await store.open(Position(bytes(16), 0, 1))
    assert caught.value.detail == f"Redis at {host}: wrong user or password"
    await store.close()
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    store = RedisStore(RedisConfig(url=f"redis://venue:secret@127.0.0.1:{port}/0",
                                   socket_timeout_s=0.2), None)
    with pytest.raises(StoreDown) as caught:
        await store.open(Position(bytes(16), 0, 1))
    assert caught.value.detail == f"Redis at 127.0.0.1:{port}: no answer in time"
    await store.close()
    silent.close()

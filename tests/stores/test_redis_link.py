"""Connections to Redis in every shape that the configuration knows, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from engine.config import RedisConfig
from engine.errors import ConfigError
from engine.redis_link import RedisLink, parse
from tests.support.redis import Cluster, RedisServer, Sentinels, TlsFront

MakeRedis = Callable[..., RedisServer]


async def talks(**settings: Any) -> bool:
    """Whether a transaction gets through."""
    link = RedisLink(RedisConfig(**settings))
    try:
        await link.open()
        pipe = link.node("{here}:one").pipeline(transaction=True)
        pipe.delete("{here}:one")
        pipe.incr("{here}:one")
        return bool((await pipe.execute())[1] == 1)
    finally:
        await link.close()


async def test_one_server_over_tcp_and_over_its_socket(make_redis: MakeRedis) -> None:
    server = make_redis().start()
    assert await talks(url=server.url)
    if server.unix_path.exists():
        assert await talks(url=server.unix_url)


async def test_a_password_from_a_file_and_an_acl_user_from_the_url(make_redis: MakeRedis,
                                                                   tmp_path: Path) -> None:
    server = make_redis()
    server.use_password("p@ss/word", "venue")
    server.start()
    secret = tmp_path / "secret"
    secret.write_text("p@ss/word\n")
    assert await talks(url=server.url, username="venue", password_file=str(secret))
    assert await talks(url=server.url.replace("//", "//venue:p%40ss%2Fword@"))
    with pytest.raises(redis.AuthenticationError):
        await talks(url=server.url.replace("//", "//venue:wrong@"))


async def test_tls_checks_both_sides(make_redis: MakeRedis, tmp_path: Path) -> None:
    front = TlsFront(tmp_path / "tls", make_redis().start(), ask_client=True)
    known = {"ssl_root_cert_file": str(front.ca_path)}
    own = {"ssl_cert_file": str(front.cert_path), "ssl_key_file": str(front.key_path)}
    try:
        assert await talks(url=front.url, **known, **own)
        for missing in (known, own):
            with pytest.raises((redis.ConnectionError, OSError)):
                await talks(url=front.url, **missing)
    finally:
        front.close()


async def test_a_cluster(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        assert await talks(url=cluster.start().url)
    finally:
        cluster.kill()


async def test_sentinels_lead_to_the_new_master(tmp_path: Path) -> None:
    trio = Sentinels(tmp_path)
    try:
        assert await talks(url=trio.start().url)
        trio.master.kill()
        for _ in range(200):
            try:
                assert await talks(url=trio.url, socket_timeout_s=0.5)
                break
            except redis.RedisError:
                await asyncio.sleep(0.1)
        else:
            pytest.fail("the sentinels chose no other master")
    finally:
        trio.kill()


@pytest.mark.parametrize("url", ["http://a", "redis+sentinel://a:1", "redis://a:port",
                                 "redis://a/word", "unix://", "a:1"])
def test_a_wrong_url_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url: expected"):
        parse(url)
    with pytest.raises(ConfigError) as said:
        parse("redis://user:hidden@host:port")
    assert "hidden" not in str(said.value)


def test_a_url_shows_where_and_not_how() -> None:
    assert str(parse("rediss+sentinel://u:secret@a,b:7/main/2")) == \
        "rediss+sentinel://a:26379,b:7/main"
    assert str(parse("redis://:secret@h/3")) == "redis://h:6379"

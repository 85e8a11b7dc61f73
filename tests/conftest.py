"""What several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.support.daemon import Daemon
from tests.support.postgres import ScratchDatabase, shared_server
from tests.support.redis import RedisServer, scratch_redis


@pytest.fixture(autouse=True)
def plain_logging() -> Iterator[None]:
    """What a test configures of the log ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def long_profile() -> bool:
    """Whether the long profiles were asked for (MATCHD_TEST_PROFILE=long)."""
    return os.environ.get("MATCHD_TEST_PROFILE") == "long"


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons over a folder of the test (`make_daemon(name="a", journal__sync="off")`);
    they are not started yet, and killed at the end."""
    made: list[Daemon] = []

    def make(name: str = "venue", **settings: Any) -> Daemon:
        made.append(Daemon(tmp_path / name, **settings))
        return made[-1]

    yield make
    for daemon in made:
        daemon.kill()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that runs on a free port."""
    return make_daemon().start()


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes Redis servers (`make_redis(name="a", maxmemory="5mb")`); they are not started yet,
    and killed at the end."""
    made: list[RedisServer] = []

    def make(name: str = "redis", **options: Any) -> RedisServer:
        made.append(RedisServer(tmp_path / name, **options))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def redis_place(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A running server's address and a prefix of the test's own in it: the server of
    MATCHD_TEST_REDIS_URL if there is one."""
    with scratch_redis(tmp_path / "redis") as place:
        yield place


@pytest.fixture(scope="session")
def postgres_urls() -> Iterator[tuple[str, str]]:
    """(url, url of an administrator) of the PostgreSQL server that tests share."""
    yield from shared_server()


@pytest.fixture
def postgres_database(postgres_urls: tuple[str, str]) -> Iterator[ScratchDatabase]:
    """An empty database (or schema: `.schema`) on the shared server; `.url` leads to it."""
    scratch = ScratchDatabase(*postgres_urls)
    yield scratch
    scratch.drop()

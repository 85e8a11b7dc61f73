"""What anybody is told of an error: our words, whatever real servers and the system say."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.brief import brief
from engine.config import PostgresConfig, RedisConfig
from engine.errors import JournalError, StoreError
from engine.stores import sqlite_file
from engine.stores.postgres import PostgresStore
from engine.stores.redis_store import RedisStore
from engine.stores.store import Position, Store, StoreDown, StoreStopped
from tests.support.postgres import ScratchDatabase
from tests.support.redis import RedisServer, free_port

END = Position(bytes(range(16)), 1, 0)


async def said(store: Store) -> str:
    """The words for what `open` fails with."""
    try:
        await store.open(END)
    except StoreError as error:
        return brief(error)
    finally:
        await store.close()
    return ""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path / "redis")
    one.use_password("right", "venue", "~other:* +@all")
    yield one.start()
    one.kill()


async def test_redis(redis: RedisServer) -> None:
    def at(user_info: str, port: int = redis.port) -> RedisStore:
        return RedisStore(RedisConfig(url=f"redis://{user_info}127.0.0.1:{port}/0",
                                      connect_timeout_s=1, socket_timeout_s=1), None)

    assert await said(at("venue:wrong@")) == "wrong user or password"
    assert await said(at("venue:right@")) == "the user may not do this"
    assert await said(at("", free_port())) == "connection refused"
    store = RedisStore(RedisConfig(url="redis://redis.invalid:1/0", connect_timeout_s=5), None)
    assert await said(store) == "unknown host"


async def test_postgres(postgres_database: ScratchDatabase) -> None:
    postgres = postgres_database

    def at(url: str, schema: str = "brief") -> PostgresStore:
        return PostgresStore(PostgresConfig(url=url, schema=schema, migrate=False,
                                            connect_timeout_ms=5_000))

    assert await said(at(postgres.url)) == "its tables are not up to date"
    assert await said(at(postgres.url.replace(":demo@", ":wrong@"))) == "wrong password"
    assert await said(at(re.sub(r"/[^/?]+(\?|$)", r"/nowhere\1", postgres.url))) \
        == "unknown database"
    assert await said(at(f"postgresql://who@127.0.0.1:{free_port()}/it")) == "connection refused"
    assert await said(at("postgresql://who@database.invalid:1/it")) == "unknown host"
    postgres.sql("create schema brief", "create table brief.trades (a int)")
    assert await said(at(postgres.url)) == "the tables are another program's"


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "secret name"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.Error) as caught:
        sqlite3.connect(path).execute("SELECT * FROM sqlite_schema")
    meant = sqlite_file.failure(caught.value, path, "opening")
    meant.__cause__ = caught.value
    assert "secret name" in str(meant) and brief(meant) == "the file is no database"


def fail(error: BaseException, cause: BaseException | None) -> BaseException:
    """An error that was raised from another."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(("make", "words"), [
    (lambda: StoreDown("db.internal said no"), "failed"),
    (lambda: StoreDown("db.internal", "look", "read-only"), "read-only"),
    (lambda: fail(StoreDown("a"), fail(ValueError("b"), ConnectionResetError(104, "c"))),
     "connection lost"),
    (lambda: fail(StoreStopped("a"), FileNotFoundError(2, "key", "/home/me/key")), "not there"),
    (lambda: fail(StoreDown("a"), OSError(28, "x")), "no room on the disk"),
    (lambda: StoreError("x", public="mine").with_traceback(None), "mine"),
    (lambda: JournalError("/data/1.log"), "the log can't be read"),
    (lambda: KeyError("secret"), "failed")])
def test_words(make: Callable[[], BaseException], words: str) -> None:
    assert brief(make()) == words


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = StoreDown("a"), StoreDown("b")
    first.__cause__, second.__cause__ = second, first
    assert brief(first) == "failed"

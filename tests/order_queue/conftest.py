"""A venue that takes orders from a queue in a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop

from engine import log
from tests.support.redis import RedisServer
from tests.support.venue import Venue

WAIT_S = 60.0


@pytest.fixture(scope="session")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    log.configure("error", "json")


class Producer:
    """Writes orders and reads answers, as somebody outside would."""

    def __init__(self, client: redis.Redis, kind: str, queue: str = "orders") -> None:
        self.client, self.kind, self.queue = client, kind, queue
        self._number = 0

    def send(self, raw: bytes | None = None, **fields: Any) -> str:
        """One entry: fields as JSON, or bytes as they are; returns its request id."""
        self._number += 1
        request_id = str(fields.setdefault("request_id", f"r{self._number}"))
        data = json.dumps(fields).encode() if raw is None else raw
        if self.kind == "stream":
            self.client.xadd(self.queue, {"order": data})
        else:
            self.client.rpush(self.queue, data)
        return request_id

    def replies(self) -> list[dict[str, Any]]:
        """All answers so far: their fields, `body` decoded."""
        found: Any = self.client.xrange(f"{self.queue}:replies")
        rows = [{str(name, "utf-8"): value for name, value in fields.items()}
                for _, fields in found]
        return [{name: json.loads(value) if name in ("body", "status")
                 else str(value, "utf-8", "replace") for name, value in row.items()}
                for row in rows]

    async def answers(self, count: int) -> list[dict[str, Any]]:
        """The first `count` answers; fails when there are more."""
        await until(lambda: self.client.xlen(f"{self.queue}:replies") >= count,
                    lambda: f"{count} answers wanted, the last ones are {self.replies()[-3:]}")
        found = self.replies()
        assert len(found) == count
        return found

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """Send one entry and wait for its answer."""
        request_id = self.send(**fields)
        found: list[dict[str, Any]] = []
        seen = 0

        def look() -> bool:
            nonlocal seen
            count: Any = self.client.xlen(f"{self.queue}:replies")
            if count != seen:
                seen = count
                found[:] = [row for row in self.replies() if row.get("request_id") == request_id]
            return bool(found)

        await until(look, lambda: f"no answer to {fields}")
        assert len(found) == 1
        return found[0]

    def nothing_left(self) -> bool:
        """Whether every entry was taken and acknowledged."""
        if self.kind == "list":
            return not self.client.exists(self.queue, f"{self.queue}:taken")
        if self.client.xlen(self.queue):
            return False
        pending: Any = self.client.xpending(self.queue, "matchd")
        return bool(pending["pending"] == 0)


async def until(done: Callable[[], Any], what: Callable[[], str] = lambda: "") -> None:
    """Wait until something is so."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + WAIT_S
    while not done():
        if loop.time() > deadline_s:
            pytest.fail(what())
        await asyncio.sleep(0.005)


@pytest.fixture
def server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    return make_redis().start()


@pytest.fixture
async def start_venue(tmp_path: Path, server: RedisServer
                      ) -> AsyncIterator[Callable[..., Awaitable[Venue]]]:
    """Starts venues that serve the queue "orders", and stops them at the end."""
    venues: list[Venue] = []

    async def start(**settings: Any) -> Venue:
        venues.append(Venue(tmp_path / "venue", **({
            "sqlite__enabled": False, "redis__url": server.url, "redis__order_queue": "orders",
            "redis__socket_timeout_s": 5, "stores__retry_min_ms": 10, "stores__retry_max_ms": 50,
        } | settings)))
        return await venues[-1].start()

    yield start
    for venue in venues:
        with contextlib.suppress(Exception):
            await venue.stop()


@pytest.fixture(params=["stream", "list"])
def producer(request: pytest.FixtureRequest, server: RedisServer) -> Producer:
    return Producer(server.client(), request.param)


@pytest.fixture
def stream(server: RedisServer) -> Producer:
    return Producer(server.client(), "stream")

"""Answers that are kept in Redis. While Redis is away nobody waits for it: after the first failure
it is asked again beside the requests, and used again when it answers.

This file imports redis: it is imported where redis.url is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import RedisError

from engine import log
from engine.config import RedisConfig
from engine.errors import ConfigError
from engine.redis_link import RedisLink
from engine.tasks import end_all

RETRY_FIRST_S = 0.5
RETRY_MOST_S = 30.0
# A question that Redis has not answered by then goes to the store.
WAIT_S = 0.25


class RemoteCache:
    """Texts by key, each for a while."""

    def __init__(self, config: RedisConfig, ttl_s: int) -> None:
        self._config, self._ttl_s = config, ttl_s
        self._prefix = f"{config.prefix}history:"
        self._link: RedisLink | None = None
        self._ready = False
        self._mending: asyncio.Task[None] | None = None
        self._log = log.get("history")

    async def get(self, key: str) -> bytes | None:
        """What is kept; None when nothing is, or Redis is away."""
        if not self._usable():
            return None
        name = self._prefix + key
        found: bytes | None = await self._try(name, lambda node: node.get(name))
        return found

    async def put(self, key: str, value: bytes) -> None:
        """Keep it, if Redis is there."""
        if self._usable():
            name = self._prefix + key
            await self._try(name, lambda node: node.set(name, value, ex=self._ttl_s))

    async def close(self) -> None:
        """Close the connections. Never raises."""
        self._ready = False
        if self._mending is not None:
            await end_all([self._mending])
        if self._link is not None:
            await self._link.close()

    # -- beside the requests -------------------------------------------------------------------

    def _usable(self) -> bool:
        if not self._ready and self._mending is None:
            # The first question of all begins to connect, and does not wait for it.
            self._mend()
        return self._ready

    def _mend(self) -> None:
        self._ready = False
        if self._mending is None:
            self._mending = asyncio.create_task(self._connect(), name="history cache")

    async def _connect(self) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            try:
                self._link = self._link or RedisLink(self._config)
                await self._link.open()
            except ConfigError as error:
                self._log.error("answers are not kept in Redis", error=str(error))
                # The task stays: nothing is tried again.
                return
            except (OSError, RedisError) as error:
                self._log.info("Redis keeps no answers for now", error=str(error), key="away")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MOST_S)
            else:
                self._ready, self._mending = True, None
                return

    async def _try(self, name: str, command: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            async with asyncio.timeout(WAIT_S):
                if self._link is not None:
                    return await command(self._link.node(name))
        except (OSError, RedisError) as error:
            self._log.info("Redis keeps no answers for now", error=str(error), key="away")
            self._mend()
        return None

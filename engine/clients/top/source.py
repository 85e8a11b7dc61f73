"""Asks a venue, again and again: `/metrics`, `/health`, `/stats`, and where its feed is."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import msgspec

from engine import clock
from engine.clients.errors import ClientError, ConnectionLostError
from engine.clients.http_wire import Connections
from engine.clients.top.scrape import Scrape
from engine.clients.top.view import Look, Looks

# A venue that does not answer in this time is as good as gone.
TIMEOUT_S = 5.0


class Source:
    """One venue over HTTP. `looks` has what it said; `wrong` why it does not answer, "" while it
    does, and `silent_since_s` since when (monotonic)."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S,
                 tls: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self.looks = Looks()
        self.wrong = ""
        self.silent_since_s = clock.monotonic_s()
        self._timeout_s = timeout_s
        self._connections = Connections(self.url, timeout_s, tls)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    async def look(self) -> bool:
        """Ask once; returns whether the venue answered."""
        try:
            metrics, health, feed = await asyncio.gather(
                self._get("/metrics"), self.json("/health"), self._feed_stats())
            self.looks.add(Look(clock.monotonic_s(), Scrape(metrics.decode()), health, feed))
        except (ClientError, ValueError) as error:
            self._failed(error)
            return False
        self.wrong = ""
        self.silent_since_s = clock.monotonic_s()
        return True

    def _failed(self, error: Exception) -> None:
        self.wrong = str(error)
        # What was kept may be of a process that is gone.
        self._connections.close()

    async def json(self, path: str) -> dict[str, Any]:
        """The answer of a path. Raises ConnectionLostError, ValueError when it is no JSON."""
        found: dict[str, Any] = msgspec.json.decode(await self._get(path), type=dict[str, Any])
        return found

    async def _feed_stats(self) -> dict[str, Any]:
        """`/stats`, or nothing while the feed does not run."""
        try:
            return await self.json("/stats")
        except _Refused:
            return {}

    async def _get(self, path: str) -> bytes:
        answer = await self._connections.request("GET", path, {}, b"")
        if answer.status != 200:
            raise _Refused(f"{self.url}{path} answers {answer.status}")
        return answer.body


class _Refused(ConnectionLostError):
    """An answer that is none."""

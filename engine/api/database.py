"""`POST /api/v1/performance/database/query`: one statement that reads, for administrators.

The database itself lets nothing but reading through. Answers are kept until the store moves on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from engine import clock
from engine.api.formats import SLICE_ROWS
from engine.api.history import refusal
from engine.api.history_types import DatabaseAnswer, DatabaseQuery
from engine.api.query_cache import MemoryCache, Remote, cacheable, key_of
from engine.api.route import Access, Call, Reply, Route
from engine.config import HistoryConfig
from engine.metrics import Metrics
from engine.past import History, PastError, Place, Result, Row

# Whole numbers that every reader of JSON takes.
_EXACT_MAX = 2**53

Where = Literal["memory", "redis"]


class DatabaseDesk:
    """Answers statements. `remote` makes the cache behind ours; None for none."""

    def __init__(self, history: History, config: HistoryConfig, metrics: Metrics,
                 remote: Callable[[], Remote] | None = None) -> None:
        self._history, self._config = history, config
        self._memory = MemoryCache(config.cache_entries_max, config.cache_max_bytes)
        self._make_remote = remote
        self._remote: Remote | None = None
        self._metrics(metrics)

    def _metrics(self, metrics: Metrics) -> None:
        self._hits = {name: metrics.counter(
            "query_hits", "queries", "statements that a cache answered", labels={"cache": name})
            for name in ("memory", "redis")}
        self._misses = metrics.counter(
            "query_misses", "queries", "statements that were looked for in a cache in vain")
        self._times = {name: metrics.histogram(
            "query", "ns", "the time of a statement's answer, by who gave it",
            labels={"source": name}) for name in ("memory", "redis", "store")}
        metrics.gauge("query_cache", "bytes", "size of the answers kept in memory",
                      lambda: self._memory.size_bytes)
        metrics.gauge("query_cache_entries", "answers", "answers kept in memory",
                      lambda: len(self._memory))

    def routes(self) -> list[Route]:
        """For the gateway's table."""
        return [Route(
            method="POST", path="/api/v1/performance/database/query", handler=self.query,
            access=Access.ADMIN, tag="History", body=DatabaseQuery, answer=DatabaseAnswer,
            summary="One statement that reads the history database",
            description="Read-only by the database itself, bounded in time and rows. Answers are "
            "kept by `cache_strategy` until the store has another event.")]

    async def close(self) -> None:
        """Close the connections of the cache behind ours."""
        if self._remote is not None:
            await self._remote.close()

    async def query(self, call: Call) -> Reply:
        """The route. Raises ApiError."""
        started_ns = clock.monotonic_ns()
        try:
            where, body = await self._answer(call.body)
        except PastError as error:
            raise refusal(error) from None
        took_ns = clock.monotonic_ns() - started_ns
        self._times[where or "store"].observe(took_ns)
        head = b'{"cached":%b,"took_ms":%.3f,' % (
            b'"%b"' % where.encode() if where else b"null", took_ns / clock.NS_PER_MS)
        return Reply(200, head + body[1:])

    async def _answer(self, ask: DatabaseQuery) -> tuple[Where | None, bytes]:
        """Who had it, and the answer without its head. Raises PastError."""
        rows_max = min(ask.limit or self._config.query_rows_max, self._config.query_rows_max)
        store, place = await self._history.place(ask.store or "")
        key = ""
        if ask.cache_strategy != "none" and cacheable(ask.query, ask.parameters):
            key = key_of(store, place, ask.query, ask.parameters, rows_max)
            where, found = await self._find(ask.cache_strategy, key, (store, *place))
            if where and found is not None:
                self._hits[where].add()
                return where, found
            self._misses.add()
        result = await self._history.query(
            store, ask.query, ask.parameters,
            min(ask.timeout_ms or self._config.query_timeout_ms, self._config.query_timeout_ms),
            rows_max)
        body = await encoded(store, place, result)
        # What came while the statement ran may be in its answer, which is then no place's.
        if key and await self._history.place(store) == (store, place):
            await self._keep(ask.cache_strategy, key, body, (store, *place))
        return None, body

    async def _find(self, strategy: str, key: str,
                    place: tuple[object, ...]) -> tuple[Where | None, bytes | None]:
        if strategy != "redis":
            found = self._memory.get(key)
            if found is not None:
                return "memory", found
        if strategy != "memory" and self._behind is not None:
            found = await self._behind.get(key)
            if found is not None:
                if strategy == "hybrid":
                    self._memory.put(key, found, place)
                return "redis", found
        return None, None

    async def _keep(self, strategy: str, key: str, body: bytes,
                    place: tuple[object, ...]) -> None:
        if strategy != "redis":
            self._memory.put(key, body, place)
        if strategy != "memory" and self._behind is not None:
            await self._behind.put(key, body)

    @property
    def _behind(self) -> Remote | None:
        if self._remote is None and self._make_remote is not None:
            self._remote = self._make_remote()
        return self._remote


async def encoded(store: str, place: Place, result: Result) -> bytes:
    """An answer as JSON, made in slices between which the loop goes on."""
    encode = msgspec.json.Encoder(enc_hook=str).encode
    exact = [name.endswith("_ns") for name in result.columns]
    parts = []
    for start in range(0, len(result.rows), SLICE_ROWS):
        shown = [_cells(row, exact) for row in result.rows[start:start + SLICE_ROWS]]
        parts.append(encode(shown)[1:-1])
        await asyncio.sleep(0)
    head = encode({"store": store, "seq": place.seq, "columns": list(result.columns)})
    return b'%b,"rows":[%b],"truncated":%b}' % (
        head[:-1], b",".join(parts), b"true" if result.truncated else b"false")


def _cells(row: Row, exact: Sequence[bool]) -> list[Any]:
    return [str(value) if type(value) is int and not -_EXACT_MAX <= value <= _EXACT_MAX
            and not (is_exact and -2**63 <= value < 2**63) else value
            for value, is_exact in zip(row, exact, strict=True)]

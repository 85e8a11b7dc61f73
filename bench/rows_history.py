"""Rows of the past over HTTP: a statement that is answered from memory, and pages of a large table.

The table is what one connection does in a minute; a page is asked for when the store has all of
it.
"""

import http.client
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.measure import Pace, Row, drive
from bench.servers import ADMIN, Server, daemon, make_key, symbols

HIT_TARGET_MS = 1.0
# So many messages fill the table, at a rate that the store follows or nearly so.
FILL_RATE, FILL_MESSAGES, FILL_MESSAGES_QUICK = 60_000, 3_000_000, 100_000
REQUESTS, REQUESTS_QUICK = 1000, 100
WAIT_SECONDS = 300.0
STATEMENT = "SELECT side, count(*), sum(quantity_lots) FROM orders GROUP BY side"


class Asker:
    """Requests of an administrator over one kept connection."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.api_port, timeout=60)
        self._headers = {"Authorization": f"Bearer {make_key(server, ADMIN)['token']}"}

    def get(self, path: str) -> dict[str, Any]:
        """The answer to a GET."""
        return self._ask("GET", path, None)

    def query(self, sql: str) -> dict[str, Any]:
        """The answer to a statement."""
        return self._ask("POST", "/api/v1/performance/database/query", {"query": sql})

    def _ask(self, method: str, path: str, body: Any) -> dict[str, Any]:
        self._connection.request(method, path, json.dumps(body) if body else None, self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:500]!r}")
        found: dict[str, Any] = json.loads(data)
        return found


def times_ms(ask: Callable[[], Any], count: int) -> dict[str, float]:
    """How long these answers took, from the request to the last byte."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1000)
    steps = statistics.quantiles(took, n=100)
    return {"p50": steps[49], "p99": steps[98], "max": max(took), "count": count}


def fill(server: Server, pace: Pace, asker: Asker) -> int:
    """Trade, and wait until the store has all of it; returns how many orders it holds."""
    messages = FILL_MESSAGES_QUICK if pace.quick else FILL_MESSAGES
    drive(server, [{"kind": "open_loop", "per_second": FILL_RATE,
                    "seconds": messages / FILL_RATE}], orders_max=8192)
    until = time.monotonic() + WAIT_SECONDS
    newest = asker.get(f"/v1/book/{symbols(1)[0]}")["seq"]
    while asker.get("/v1/history/trades?limit=1")["seq"] < newest:
        if time.monotonic() > until:
            raise RuntimeError(f"the store has not come to {newest} in {WAIT_SECONDS:.0f} s")
        time.sleep(0.1)
    return int(asker.query("SELECT count(*) FROM orders")["rows"][0][0])


def history(pace: Pace) -> list[Row]:
    """A hit, and three pages."""
    count = REQUESTS_QUICK if pace.quick else REQUESTS
    with daemon("commit", settings={"sqlite": {"enabled": True},
                                    "history": {"query_timeout_ms": 600_000}}) as server:
        asker = Asker(server)
        orders = fill(server, pace, asker)
        began = time.perf_counter()
        if asker.query(STATEMENT)["cached"] is not None:
            raise RuntimeError("an answer was there before its question")
        missed_ms = (time.perf_counter() - began) * 1000

        def hit() -> None:
            if asker.query(STATEMENT)["cached"] != "memory":
                raise RuntimeError("an answer that was kept is not found")

        hits = times_ms(hit, count)
        middle = asker.query("SELECT min(time_ns) + (max(time_ns) - min(time_ns)) / 2 "
                             "AS middle_ns FROM orders")["rows"][0][0]
        pages = {
            "newest": times_ms(lambda: asker.get("/v1/history/orders"), count),
            "of an account, oldest": times_ms(
                lambda: asker.get("/v1/history/executions?account=B00000&order=asc"), count),
            "from the middle of the time": times_ms(
                lambda: asker.get(f"/v1/history/orders?from={middle}&order=asc"), count)}
    title = f"100 rows over HTTP, SQLite with {orders / 1e6:.2g} M orders"
    return [
        Row("history-hit", "a statement that memory answers, over HTTP, p50", "ms", hits["p50"],
            target=HIT_TARGET_MS, higher=False, details={**hits, "missed_ms": missed_ms}),
        *(Row(f"history-{key}", f"{title}: {name}, p50", "ms", pages[name]["p50"], higher=False,
              details=pages[name])
          for key, name in zip(("page", "account", "time"), pages, strict=True))]

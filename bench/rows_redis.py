"""Rows of the Redis store: how often it writes, and what that costs the venue's process."""

import statistics
from typing import Any

import redis

from bench.measure import Pace, Row, drive
from bench.servers import Server, daemon, redis_server

MARKETS = 45
UPDATES_PER_SECOND = 1_000
# Few updates need a while until their cost shows.
SECONDS_FACTOR = 2
PAIRS, QUICK_PAIRS = 3, 1
WRITES_TARGET = 50.0
CPU_TARGET_PERCENT = 5.0


def _writes(server: Server) -> int:
    """Scripts that Redis was given so far: each is a write of the store."""
    with redis.Redis(port=server.port) as client:
        stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_eval", {"calls": 0})["calls"])


def _run(pace: Pace, kept: Server | None) -> dict[str, Any]:
    """Orders at the rate over all markets; with a Redis, what was written meanwhile."""
    seconds = pace.seconds * SECONDS_FACTOR
    settings = {"redis": {"url": f"redis://127.0.0.1:{kept.port}/0"}} if kept else {}
    with daemon("commit", instruments=MARKETS, settings=settings) as server:
        # The first second has every book for the first time.
        drive(server, [{"kind": "open_loop", "per_second": UPDATES_PER_SECOND, "seconds": 1.0}],
              instruments=MARKETS)
        before = _writes(kept) if kept else 0
        run = drive(server, [{"kind": "open_loop", "per_second": UPDATES_PER_SECOND,
                              "seconds": seconds}], instruments=MARKETS)[0]
        run["writes"] = _writes(kept) - before if kept else 0
    run["cpu_percent"] = 100 * run["server_cpu_seconds"] / run["seconds"]
    return run


def store(pace: Pace) -> list[Row]:
    """Writes, and processor time with Redis on and off in turn."""
    on, off = [], []
    for _ in range(PAIRS if not pace.quick else QUICK_PAIRS):
        off.append(_run(pace, None))
        with redis_server(durable=False) as kept:
            on.append(_run(pace, kept))
    extra = [one["cpu_percent"] - other["cpu_percent"] for one, other in zip(on, off, strict=True)]
    writes = statistics.median(run["writes"] / run["seconds"] for run in on)
    details = {"on": on, "off": off, "extra_percent": extra}
    return [
        Row("redis", f"Redis, {MARKETS} markets under {UPDATES_PER_SECOND:,} updates/s",
            "writes/s", writes, "one write per update", float(UPDATES_PER_SECOND), WRITES_TARGET,
            higher=False, details=details),
        Row("redis-cpu", "the same, extra processor time of the venue", "% of a core",
            statistics.median(extra), "the venue without it",
            statistics.median(run["cpu_percent"] for run in off), CPU_TARGET_PERCENT,
            higher=False, details=details)]

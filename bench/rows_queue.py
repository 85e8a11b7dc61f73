"""Rows of the order queue in Redis: orders that are durable when they are answered."""

import os
import subprocess
import sys
from typing import Any

from bench.measure import WARMUP_SECONDS, Pace, Row, median_of, run_job
from bench.servers import (
    ROOT,
    Server,
    account_names,
    daemon,
    load_core,
    redis_server,
    server_cores,
    symbols,
)

IN_FLIGHT = 2_000
# As long as an order's answer is.
BODY_BYTES = 330
# The load generator looks at every answer: it does not run for longer than it has to.
SECONDS_MAX = 3.0
BARE = "redis.asyncio worker without a venue"


def per_second(run: dict[str, Any]) -> float:
    """The figure of a run."""
    return float(run["per_second"])


def _drive(redis: Server, pace: Pace, kind: str, in_flight: int) -> dict[str, Any]:
    seconds = min(pace.seconds, SECONDS_MAX)
    run: dict[str, Any] = run_job("bench.queueload", {
        "port": redis.port, "kind": kind, "cpu": load_core(), "in_flight": in_flight,
        "seconds": seconds, "warmup_seconds": min(WARMUP_SECONDS, seconds),
        "account": account_names(1)[0], "symbol": symbols(1)[0]})["figures"]
    return run


def _ours(pace: Pace, kind: str, in_flight: int) -> list[dict[str, Any]]:
    with redis_server(durable=False) as redis:
        settings = {"redis": {"url": f"redis://127.0.0.1:{redis.port}", "order_queue": "orders",
                              # The store of the same section has a row of its own.
                              "markets": ["none"], "batch_interval_ms": 60_000}}
        with daemon("commit", settings=settings):
            return [_drive(redis, pace, kind, in_flight) for _ in range(pace.repeats)]


def measure_anchor(pace: Pace) -> list[dict[str, Any]]:
    """The worker that does nothing, on the same stream."""
    with redis_server(durable=False) as redis:
        command = [sys.executable, "-m", "bench.bareworker", str(redis.port), str(BODY_BYTES)]
        worker = subprocess.Popen(command, cwd=ROOT)
        try:
            os.sched_setaffinity(worker.pid, server_cores())
            return [_drive(redis, pace, "stream", IN_FLIGHT) for _ in range(pace.repeats)]
        finally:
            worker.terminate()
            worker.wait()


def orders(pace: Pace) -> list[Row]:
    """A stream and a list at full speed, and one order alone."""
    stream, listed = _ours(pace, "stream", IN_FLIGHT), _ours(pace, "list", IN_FLIGHT)
    alone = _ours(pace, "stream", 1)
    anchor = measure_anchor(pace)
    beside = median_of(anchor, per_second)
    title = f"orders from Redis, {IN_FLIGHT:,} in flight, durable"
    return [
        Row("redis-orders", f"{title}, a stream", "orders/s", median_of(stream, per_second), BARE,
            beside, details={"runs": stream, "anchor_runs": anchor}),
        Row("redis-orders-list", f"{title}, a list", "orders/s", median_of(listed, per_second),
            BARE, beside, details={"runs": listed}),
        Row("redis-orders-alone", "orders from Redis, one at a time, durable, p50", "us",
            median_of(alone, lambda run: float(run["latency"]["p50_us"])), higher=False,
            details={"runs": alone}),
    ]

"""Rows of the HTTP gateway: orders that are durable when they are answered, and GET /health.

Both beside a bare BlackSheep handler on uvicorn that reads as much and answers as much.
"""

from typing import Any

from bench.measure import WARMUP_SECONDS, Pace, Row, median_of, run_job
from bench.servers import Server, bare_http_server, daemon, load_core, make_key

CONNECTIONS = 64
# Signed requests are made in advance and stay valid for five seconds.
SECONDS_MAX = 2.0
ORDERS_TARGET, ORDERS_RATIO = 15e3, 15 / 27
HEALTH_TARGET, HEALTH_RATIO = 20e3, 20 / 29
BARE = "bare BlackSheep handler"


def per_second(run: dict[str, Any]) -> float:
    """The figure of a run."""
    return float(run["per_second"])


def drive(server: Server, pace: Pace, kind: str, **more: Any) -> dict[str, Any]:
    """One run of the load generator."""
    seconds = min(pace.seconds, SECONDS_MAX)
    run: dict[str, Any] = run_job("bench.request", {
        "host": "127.0.0.1", "port": server.api_port, "cpu": load_core(), "kind": kind,
        "connections": CONNECTIONS, "seconds": seconds,
        "warmup_seconds": min(WARMUP_SECONDS, seconds),
        "server_pid": server.process.pid, **more})["figures"]
    return run


def _runs(server: Server, pace: Pace, kind: str, **more: Any) -> list[dict[str, Any]]:
    return [drive(server, pace, kind, **more) for _ in range(pace.repeats)]


def measure_anchor(pace: Pace, kind: str, like: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The anchor with answers as long as ours."""
    size = round(median_of(like, lambda run: float(run["body_bytes"])))
    with bare_http_server(size, size) as server:
        return _runs(server, pace, kind, any_answer=True)


def orders(pace: Pace) -> list[Row]:
    """POST /v1/orders: without client order ids, with one for each order, and signed."""
    with daemon("commit") as server:
        made = make_key(server)
        plain = _runs(server, pace, "orders", token=made["token"])
        ids = _runs(server, pace, "orders", token=made["token"], client_ids=True)
        signed = _runs(server, pace, "orders", signer=made)
    anchor = measure_anchor(pace, "orders", ids)
    beside = median_of(anchor, per_second)
    title = f"POST /v1/orders, {CONNECTIONS} connections, durable"
    return [
        Row("http-orders", title, "requests/s", median_of(plain, per_second), BARE, beside,
            ORDERS_TARGET, ORDERS_RATIO, details={"runs": plain, "anchor_runs": anchor}),
        Row("http-orders-ids", f"{title}, a client order id each", "requests/s",
            median_of(ids, per_second), BARE, beside, ORDERS_TARGET, ORDERS_RATIO,
            details={"runs": ids}),
        Row("http-orders-signed", f"{title}, a client order id each, signed", "requests/s",
            median_of(signed, per_second), BARE, beside, details={"runs": signed}),
    ]


def health(pace: Pace) -> list[Row]:
    """GET /health."""
    with daemon("commit") as server:
        runs = _runs(server, pace, "health")
    anchor = measure_anchor(pace, "health", runs)
    return [Row("http-health", f"GET /health, {CONNECTIONS} connections", "requests/s",
                median_of(runs, per_second), BARE, median_of(anchor, per_second),
                HEALTH_TARGET, HEALTH_RATIO, details={"runs": runs, "anchor_runs": anchor})]

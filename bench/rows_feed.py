"""Rows of the WebSocket feed: what it delivers, how late, and what its readers cost the orders."""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.broadcast import SEQ_STEP
from bench.measure import WARMUP_SECONDS, Pace, Row, closed, drive, median_of, right, run_job
from bench.rows_tcp import per_second
from bench.servers import (
    PASSWORD,
    ROOT,
    Server,
    account_names,
    broadcast_server,
    daemon,
    load_core,
    symbols,
)
from bench.watch import clients_that_fit

SIZES = (1, 100, 1_000, 4_000)
QUICK_SIZES = (1, 1_000)
TINY_SIZES = (1, 10)
# The size whose row has the target, and rows for latency and processor time.
MAIN_SIZE = 1_000
TARGET, TARGET_RATIO = 0.8e6, 0.8 / 0.1
# Messages of one tick: one for each instrument.
CHAINS = 5
MESSAGE_BYTES = 200
# The most ticks that a reader may lack when the next one leaves.
BEHIND = 3
SECONDS_MAX = 1.0
# A pace that a library's broadcast to a thousand carries too; where one does not, half of what
# it does.
TICKS_PER_SECOND = 10
SHARE_MAX = 0.5
DEPTH = 10
BROADCAST = "websockets broadcast()"
# What the fixed rate of feed-cost is, and how often both sides are measured.
FIXED_RATE = 500_000
PAIRS, QUICK_PAIRS = 3, 1
SUBSCRIBERS, TINY_SUBSCRIBERS = 1_000, 10
IN_FLIGHT = 1_000
KEPT_SHARE = 0.9
# A run of the commit before there was a feed.
RECORDED = Path(__file__).resolve().parent / "results" / "20261121T043528-68dc7662fbe5.json"


def subscribe(channel: str, symbol: str, number: int) -> str:
    """A request for a channel of a symbol or a pattern."""
    request: dict[str, Any] = {"op": "subscribe", "id": number, "channel": channel,
                               "symbol": symbol}
    return json.dumps(request | {"depth": DEPTH} if channel == "book" else request)


def _watch_job(port: int, clients: int, requests: list[str], chains: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "clients": clients, "chains": chains,
            "requests": requests, "cpu": load_core()}


def _measure(server: Server, job: dict[str, Any], pace: Pace) -> dict[str, Any]:
    """Closed loops, then ticks at a quiet pace. The median of the closed loops counts."""
    seconds = min(pace.seconds, SECONDS_MAX)
    fast = {"kind": "closed_loop", "seconds": seconds, "behind": BEHIND,
            "warmup_seconds": min(WARMUP_SECONDS, seconds)}
    phases = [*[fast] * pace.repeats,
              {"kind": "paced", "per_second": TICKS_PER_SECOND, "share_max": SHARE_MAX,
               "seconds": 2 * seconds}]
    *loops, paced = run_job("bench.watch", {**job, "phases": phases,
                                            "server_pid": server.process.pid})["phases"]
    return {"loops": loops, "paced": paced, "per_second": median_of(loops, per_second)}


def _ours(pace: Pace, clients: int) -> dict[str, Any]:
    """The venue as it comes, but that it sends after each commit: durable, conflating."""
    feed = {"batch_interval_ms": 0, "clients_max": clients + 100}
    with daemon("commit", instruments=CHAINS, settings={"feed": feed}) as server:
        job = _watch_job(server.feed_port, clients, [subscribe("book", "*", 1)], CHAINS)
        job["ticks"] = {"port": server.port, "user": account_names(1)[0], "password": PASSWORD,
                        "symbols": symbols(CHAINS)}
        return _measure(server, job, pace)


def measure_anchor(pace: Pace, kind: str, clients: int, message_bytes: int) -> dict[str, Any]:
    with broadcast_server(kind, message_bytes) as server:
        job = _watch_job(server.port, clients, [], CHAINS)
        job["ticks"] = {"port": server.feed_port, "bytes": SEQ_STEP}
        return _measure(server, job, pace)


def feed(pace: Pace) -> list[Row]:
    """Messages delivered, by clients; latency and processor time with the main size of them."""
    sizes = SIZES if not pace.quick else QUICK_SIZES if pace.seconds > 0.3 else TINY_SIZES
    main_size = MAIN_SIZE if MAIN_SIZE in sizes else max(sizes)
    rows = []
    for wanted in sizes:
        clients = clients_that_fit(wanted)
        ours = _ours(pace, clients)
        anchor = measure_anchor(pace, "websockets", clients, _message_bytes(ours))
        details = {"ours": ours, "websockets": anchor, "wanted_clients": wanted}
        if wanted == main_size:
            details["picows_joined"] = measure_anchor(pace, "picows", clients, _message_bytes(ours))
        target = (TARGET, TARGET_RATIO) if wanted == main_size else (None, None)
        rows.append(Row(f"feed-{wanted}", f"feed, {clients:,} clients, five messages of "
                        f"{_message_bytes(ours)} bytes a tick", "messages/s", ours["per_second"],
                        BROADCAST, anchor["per_second"], *target, details=details))
        if wanted == main_size:
            rows += _main_rows(clients, ours, anchor)
    return rows


def _message_bytes(measured: dict[str, Any]) -> int:
    return round(median_of(measured["loops"], lambda run: float(run["message_bytes"])))


def _main_rows(clients: int, ours: dict[str, Any], anchor: dict[str, Any]) -> list[Row]:
    """Processor time of a message, and how late it comes at a quiet pace."""
    def cpu_us(measured: dict[str, Any]) -> float:
        return median_of(measured["loops"], lambda run: 1e6 * float(run["server_cpu_seconds"])
                         / float(run["messages"]))
    rows = [Row("feed-cpu", f"feed, {clients:,} clients, the server's processor time a message",
                "us", cpu_us(ours), BROADCAST, cpu_us(anchor), higher=False)]
    for name in ("p50", "p99"):
        figures = [measured["paced"]["latency"][f"{name}_ns"] / 1000 for measured in (ours, anchor)]
        rows.append(Row(f"feed-latency-{name}", f"feed, {clients:,} clients, order sent to message "
                        f"read, {TICKS_PER_SECOND} ticks/s, {name}", "us", figures[0],
                        BROADCAST, figures[1], higher=False))
    return rows


# -- what subscribers cost the order path ----------------------------------------------------------

@contextlib.contextmanager
def subscribers(server: Server, clients: int) -> Iterator[dict[str, Any]]:
    """So many clients that read the book and the best prices while this is open; their figures at
    the end. Raises RuntimeError when what they read was wrong."""
    requests = [subscribe("book", symbols(1)[0], 1), subscribe("bbo", symbols(1)[0], 2)]
    job = _watch_job(server.feed_port, clients, requests, 2) | {"hold": True, "strict": False}
    process = subprocess.Popen([sys.executable, "-m", "bench.watch"], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    figures: dict[str, Any] = {}
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        right(json.loads(process.stdout.readline()))
        yield figures
        process.stdin.close()
        figures.update(right(json.loads(process.stdout.readline()))["phases"][0])
    finally:
        process.kill()
        process.wait()


def _order_path(server: Server, pace: Pace) -> dict[str, Any]:
    """At full speed, then at a fixed rate: throughput, latency, the server's processor time."""
    seconds = min(pace.seconds, SECONDS_MAX)
    full = drive(server, [closed(IN_FLIGHT, seconds)], orders_max=8192)[0]
    fixed = drive(server, [{"kind": "open_loop", "per_second": FIXED_RATE, "seconds": seconds}],
                  orders_max=500_000)[0]
    return {"full": full, "fixed": fixed, "per_second": full["per_second"],
            "cpu_ns": 1e9 * fixed["server_cpu_seconds"] / max(1, fixed["messages"]),
            "p99_us": fixed["latency"]["p99_ns"] / 1000}


def _pairs(pace: Pace, sync: str) -> dict[str, list[dict[str, Any]]]:
    """Without and with subscribers, in turn, on one daemon that forgets them quickly."""
    pairs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    clients = clients_that_fit(TINY_SUBSCRIBERS if pace.seconds < 0.3 else SUBSCRIBERS)
    feed = {"clients_max": clients + 100, "resume_window_ms": 0, "books_idle_ms": 1}
    with daemon(sync, settings={"feed": feed}) as server:
        for _ in range(QUICK_PAIRS if pace.quick else PAIRS):
            pairs["without"].append(_order_path(server, pace))
            with subscribers(server, clients) as read:
                pairs["with"].append(_order_path(server, pace))
            pairs["with"][-1]["read"] = read
    return pairs


def _spread(runs: list[dict[str, Any]], name: str) -> float:
    """How far the runs lie apart, as a share of their median."""
    values = [float(run[name]) for run in runs]
    return (max(values) - min(values)) / statistics.median(values)


def cost(pace: Pace) -> list[Row]:
    """The order path without and with subscribers, and beside what it was before the feed."""
    rows = []
    for sync, name, recorded in (("commit", "durable", "tcp-durable-1000"),
                                 ("off", "sync off", "tcp-off-1000")):
        pairs = _pairs(pace, sync)
        details = {"pairs": pairs, "spread": {side: _spread(runs, "per_second")
                                              for side, runs in pairs.items()}}
        rows += [_cost_row(f"feed-cost-{sync}", f"orders with {SUBSCRIBERS:,} feed subscribers, "
                           f"{name}, {IN_FLIGHT:,} in flight", "messages/s", "per_second", pairs,
                           details),
                 _cost_row(f"feed-cost-{sync}-cpu", f"the same at {FIXED_RATE:,}/s, the server's "
                           "processor time a message", "ns", "cpu_ns", pairs),
                 _cost_row(f"feed-cost-{sync}-p99", f"the same at {FIXED_RATE:,}/s, p99 of the "
                           "answers", "us", "p99_us", pairs),
                 Row(f"feed-idle-{sync}", f"orders, nobody subscribed, {name}, {IN_FLIGHT:,} in "
                     "flight", "messages/s", median_of(pairs["without"], per_second),
                     "recorded before the feed", _recorded(recorded), None, KEPT_SHARE)]
    return rows


def _cost_row(key: str, title: str, unit: str, figure: str, pairs: dict[str, list[dict[str, Any]]],
              details: dict[str, Any] | None = None) -> Row:
    ours, without = (median_of(pairs[side], lambda run: float(run[figure]))
                     for side in ("with", "without"))
    return Row(key, title, unit, ours, "without subscribers", without,
               higher=figure == "per_second", details=details or {})


def _recorded(key: str) -> float:
    rows = json.loads(RECORDED.read_text())["rows"]
    return next(float(row["ours"]) for row in rows if row["key"] == key)

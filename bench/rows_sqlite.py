"""Rows of the SQLite store: how fast it writes, what the loop notices of it, what orders do."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from bench.measure import Pace, Row, closed, drive, median_of, run_job
from bench.servers import Server, daemon, work_directory

ROWS_TARGET = 0.34e6
LAG_TARGET_US = 1_000.0
# A rate that the store follows easily, for what a single order sees.
CALM_PER_SECOND = 5_000
# The store has caught up when it has not moved for so long.
STILL_S = 1.0
CATCH_UP_SECONDS_MAX = 60.0
OFF = "the same without it"


def _rows_per_second(run: dict[str, Any]) -> float:
    return float(run["figures"]["rows"] / run["figures"]["seconds"])


def _events_per_second(run: dict[str, Any]) -> float:
    return float(run["figures"]["events"] / run["figures"]["seconds"])


def _runs(pace: Pace, kind: str) -> list[dict[str, Any]]:
    found = []
    for _ in range(pace.repeats):
        with work_directory() as folder:
            found.append(run_job("bench.sqlitejob", {"kind": kind, "seconds": pace.seconds,
                                                     "folder": str(folder)}))
    return found


def store(pace: Pace) -> list[Row]:
    """In a process of its own: one table beside the standard way, and the whole store."""
    anchor = _runs(pace, "executemany")
    table = _runs(pace, "trades")
    whole = _runs(pace, "store")
    anchor += _runs(pace, "executemany")
    beside = median_of(anchor, _rows_per_second)
    lag = median_of(whole, lambda run: float(run["lag"]["p99_us"]))
    idle = median_of(whole, lambda run: float(run["idle_lag"]["p99_us"]))
    return [
        Row("sqlite-trades", "SQLite, trades (12 columns, 4 indexes), 1,000 rows a transaction",
            "rows/s", median_of(table, _rows_per_second), "sqlite3.executemany", beside,
            ROWS_TARGET, details={"runs": table, "anchor_runs": anchor}),
        Row("sqlite-rows", "SQLite, all tables of the canonical flow", "rows/s",
            median_of(whole, _rows_per_second),
            details={"runs": whole, "events_per_second": median_of(whole, _events_per_second)}),
        Row("sqlite-lag", "SQLite at full speed, loop lag p99", "us", lag, "the loop alone", idle,
            LAG_TARGET_US, higher=False, details={"runs": [run["lag"] for run in whole]}),
    ]


def _position(server: Server) -> int:
    """How far the store of a running daemon is; 0 when it has not begun."""
    path = server.directory / "data" / "history.sqlite"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as connection:
            row = connection.execute("SELECT seq FROM store_position").fetchone()
    except sqlite3.OperationalError:
        return 0
    return int(row[0]) if row else 0


def _caught_up(server: Server) -> dict[str, float]:
    """Wait until the store stands still; events and seconds on the way."""
    begun = time.monotonic()
    first = last = _position(server)
    moved = begun
    while time.monotonic() < min(moved + STILL_S, begun + CATCH_UP_SECONDS_MAX):
        time.sleep(0.02)
        now = _position(server)
        if now != last:
            last, moved = now, time.monotonic()
    return {"events": last - first, "seconds": max(moved - begun, 1e-9), "seq": last}


def per_second(run: dict[str, Any]) -> float:
    """The figure of a run at full speed."""
    return float(run["per_second"])


def p99_us(run: dict[str, Any]) -> float:
    """The figure of a run at a fixed rate."""
    return float(run["latency"]["p99_ns"]) / 1000


def orders(pace: Pace) -> list[Row]:
    """The daemon with and without the store, in turn: at full speed, then at a calm rate; behind
    the first the store catches up from the journal."""
    calm = {"kind": "open_loop", "per_second": CALM_PER_SECOND, "seconds": pace.seconds}
    runs: dict[bool, list[list[dict[str, Any]]]] = {True: [], False: []}
    caught = []
    for number in range(pace.repeats):
        # The other one first, every second time.
        for on in (True, False) if number % 2 else (False, True):
            with daemon("commit", settings={"sqlite": {"enabled": on}}) as server:
                full = drive(server, [closed(1000, pace.seconds)], orders_max=8192)[0]
                if on:
                    caught.append(_caught_up(server))
                runs[on].append([full, drive(server, [calm], orders_max=8192)[0]])

    def median(on: bool, phase: int, of: Callable[[dict[str, Any]], float]) -> float:
        return median_of((run[phase] for run in runs[on]), of)
    details = {"on": runs[True], "off": runs[False]}
    return [
        Row("sqlite-orders", "durable, 1,000 in flight, with SQLite on", "messages/s",
            median(True, 0, per_second), OFF, median(False, 0, per_second), details=details),
        Row("sqlite-p99", f"{CALM_PER_SECOND:,} orders/s with SQLite on, p99", "us",
            median(True, 1, p99_us), OFF, median(False, 1, p99_us), higher=False),
        Row("sqlite-catch-up", "SQLite catches up from the journal, no orders meanwhile",
            "events/s", median_of(caught, lambda run: run["events"] / run["seconds"]),
            details={"runs": caught}),
    ]

"""Rows of the PostgreSQL store: COPY beside the client's own ways, the whole store, the loop."""

import contextlib
from collections.abc import Iterator
from typing import Any

from bench.measure import Pace, Row, median_of, run_job
from tests.support.postgres import PostgresServer, installed

ROWS_TARGET = 0.45e6
ROWS_TARGET_RATIO = 1.18
LAG_TARGET_US = 2_000.0
# What ships with PostgreSQL, syncs included; tests have other settings.
SETTINGS = {"fsync": "on", "shared_buffers": "128MB", "max_wal_size": "1GB"}


@contextlib.contextmanager
def server() -> Iterator[PostgresServer]:
    """A server of the newest version at hand, with the durability that it comes with."""
    made = PostgresServer(max(installed()), SETTINGS)
    try:
        yield made.start()
    finally:
        made.close()


def _runs(pace: Pace, kind: str) -> list[dict[str, Any]]:
    found = []
    for _ in range(pace.repeats):
        with server() as running:
            scratch = running.database()
            found.append(run_job("bench.postgresjob", {
                "kind": kind, "seconds": pace.seconds, "url": scratch.admin_url}))
    return found


def _per_second(way: str) -> Any:
    return lambda run: float(run["rows"] / run["seconds"][way])


def store(pace: Pace) -> list[Row]:
    """One table in three ways, in one run; then the whole store."""
    copies = _runs(pace, "copy")
    whole = _runs(pace, "store")
    ours = median_of(copies, _per_second("ours"))
    lag = median_of(whole, lambda run: float(run["lag"]["p99_us"]))
    idle = median_of(whole, lambda run: float(run["idle_lag"]["p99_us"]))

    def rate(what: str) -> float:
        return median_of(whole, lambda run: float(run["figures"][what] / run["figures"]["seconds"]))
    return [
        Row("postgres-copy", "PostgreSQL, trades (12 columns, primary key), 10,000 rows a "
            "transaction", "rows/s", ours, "asyncpg copy_records_to_table",
            median_of(copies, _per_second("records")), ROWS_TARGET, ROWS_TARGET_RATIO,
            details={"runs": copies}),
        Row("postgres-many", "the same", "rows/s", ours, "asyncpg executemany",
            median_of(copies, _per_second("many"))),
        Row("postgres-rows", "PostgreSQL, all tables of the canonical flow", "rows/s",
            rate("rows"), details={"runs": whole}),
        Row("postgres-events", "the same in events of the log", "events/s", rate("events")),
        Row("postgres-lag", "PostgreSQL at full speed, loop lag p99", "us", lag,
            "the loop alone", idle, LAG_TARGET_US, higher=False,
            details={"runs": [run["lag"] for run in whole]}),
    ]

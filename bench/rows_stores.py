"""Rows of all stores: what a dead one costs the orders, and what each can follow for long."""

import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from bench.measure import Pace, Row, drive
from bench.servers import ROOT, Server, closed_port, daemon, redis_server, symbols

# Orders on their way for each other's p99: a rate that the venue carries on any machine.
RATE = 20_000
PAIRS, QUICK_PAIRS, TINY_PAIRS = 7, 3, 1
# Long enough that one stall of the disk (some 20 ms) is not the p99 of a run.
SECONDS_FACTOR = 5
P99_RATIO = 1.10
WITHOUT = "the same without them"

# Rates at which each store is tried, messages/s; it follows one when it has everything so soon
# after the load ends: in a part of the time that the load took, or in no time to speak of.
RATES = (2_500, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000)
FOLLOWS_SHARE, FOLLOWS_SECONDS = 0.1, 0.5
# The venue carries a rate when so much of it was answered by the end.
CARRIED_SHARE = 0.9
# A long run is driven in pieces: between them the lag is looked at.
PIECE_SECONDS = 10.0
CATCH_UP_SECONDS = 120.0
STORES = ("sqlite", "postgres", "redis")
ORDERS_MAX = 500_000
# What a stream keeps: it is read after each piece.
STREAM_ENTRIES = 2_000


# -- dead stores -----------------------------------------------------------------------------------


def p99_us(run: dict[str, Any]) -> float:
    """The figure of a run."""
    return float(run["latency"]["p99_ns"]) / 1_000


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=1_000) as listener:
        yield int(listener.getsockname()[1])


def _dead(port_postgres: int, port_redis: int) -> dict[str, dict[str, Any]]:
    return {"postgres": {"url": f"postgresql://nobody:none@127.0.0.1:{port_postgres}/none"},
            "redis": {"url": f"redis://127.0.0.1:{port_redis}/0"}}


def _orders(pace: Pace, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    seconds = pace.seconds * SECONDS_FACTOR
    with daemon("commit", settings=settings) as server:
        phase = {"kind": "open_loop", "per_second": RATE, "seconds": seconds}
        # The first run finds caches cold and the breakers still closed.
        drive(server, [phase | {"seconds": seconds / 2}], orders_max=ORDERS_MAX)
        return drive(server, [phase], orders_max=ORDERS_MAX)[0]


def _dead_pairs(pace: Pace, settings: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    pairs = PAIRS if not pace.quick else QUICK_PAIRS if pace.seconds > 0.3 else TINY_PAIRS
    runs: dict[str, list[Any]] = {"with": [], "without": []}
    for number in range(pairs):
        # In turn, and each first every other time: what drifts meets both.
        sides = ("with", "without") if number % 2 else ("without", "with")
        for side in sides:
            runs[side].append(_orders(pace, settings if side == "with" else {}))
    return runs


def _dead_row(key: str, title: str, pace: Pace, settings: dict[str, dict[str, Any]]) -> Row:
    runs = _dead_pairs(pace, settings)
    figures = {side: [p99_us(run) for run in found] for side, found in runs.items()}
    ratios = [ours / other for ours, other in zip(figures["with"], figures["without"],
                                                  strict=True)]
    spread = {side: (max(one) - min(one)) / statistics.median(one)
              for side, one in figures.items()}
    return Row(key, f"{title}, {RATE:,} messages/s, p99, {len(ratios)} pairs", "us",
               statistics.median(figures["with"]), WITHOUT,
               statistics.median(figures["without"]), target_ratio=P99_RATIO, higher=False,
               details={"p99_us": figures, "ratios": ratios, "spread": spread,
                        "median_of_ratios": statistics.median(ratios)})


def dead_store(pace: Pace) -> list[Row]:
    """PostgreSQL and Redis configured and gone: nobody listens, or nobody answers."""
    with closed_port() as postgres, closed_port() as redis:
        rows = [_dead_row("dead-store", "orders while PostgreSQL and Redis refuse connections",
                          pace, _dead(postgres, redis))]
    with silent_port() as postgres, silent_port() as redis:
        rows.append(_dead_row("dead-store-silent", "orders while PostgreSQL and Redis take "
                              "connections and say nothing", pace, _dead(postgres, redis)))
    return rows


# -- what a store can follow -----------------------------------------------------------------------


@contextlib.contextmanager
def store_settings(name: str) -> Iterator[dict[str, dict[str, Any]]]:
    """The settings of a venue with this store alone; its server runs as it comes."""
    if name == "sqlite":
        yield {"sqlite": {"enabled": True}}
    elif name == "redis":
        with redis_server(durable=False) as server:
            yield {"redis": {"url": f"redis://127.0.0.1:{server.port}/0",
                             "stream_entries_max": STREAM_ENTRIES}}
    else:
        from tests.support.postgres import PostgresServer

        # With syncs, as a server that keeps its promises.
        postgres = PostgresServer(18, {"fsync": "on", "shared_buffers": "128MB",
                                       "max_wal_size": "1GB"}).start()
        try:
            yield {"postgres": {"url": postgres.url}}
        finally:
            postgres.close()


def matchd(server: Server, *words: str) -> dict[str, Any]:
    """The JSON that a command of matchd says about this daemon's files, whatever its exit code.
    Raises RuntimeError when it says none."""
    folder = server.directory
    done = subprocess.run(
        [sys.executable, "-m", "engine", *words, "--json", "--config",
         str(folder / "matchd.toml"), "--data-dir", str(folder / "data")],
        cwd=ROOT, text=True, capture_output=True, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr[-2_000:])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _health(server: Server, name: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.api_port}/health"
    with urllib.request.urlopen(url, timeout=30) as answer:
        report = json.load(answer)
    part: dict[str, Any] = report["parts"][name]
    return part | {"venue_seq": report["seq"]}


def caught_up(server: Server, name: str) -> float:
    """Seconds until the store has everything. Raises RuntimeError when it does not get there."""
    start = time.monotonic()
    while time.monotonic() - start < CATCH_UP_SECONDS:
        part = _health(server, name)
        if part["state"] == "connected" and not part["lag_events"] \
                and part["seq"] == part["venue_seq"]:
            return time.monotonic() - start
        time.sleep(0.05)
    raise RuntimeError(f"{name} did not catch up: {part}")


def _load(server: Server, name: str, rate: float, seconds: float) -> dict[str, Any]:
    """Messages at this rate; how far the store is behind when they end, and for how long."""
    run = drive(server, [{"kind": "open_loop", "per_second": rate, "seconds": seconds}],
                orders_max=ORDERS_MAX)[0]
    part = _health(server, name)
    behind = caught_up(server, name)
    return {"rate": rate, "per_second": run["per_second"], "messages": run["messages"],
            "p99_us": p99_us(run), "lag_events": part["lag_events"], "lag_ms": part["lag_ms"],
            "carried": run["per_second"] >= CARRIED_SHARE * rate,
            "seconds_behind": behind,
            "follows": behind <= max(FOLLOWS_SECONDS, FOLLOWS_SHARE * seconds)}


def _highest(server: Server, name: str, pace: Pace) -> list[dict[str, Any]]:
    """One rate after the other until the store does not follow, or the venue does not."""
    caught_up(server, name)
    tried = []
    for rate in RATES if pace.seconds > 0.3 else RATES[:1]:
        tried.append(_load(server, name, rate, pace.seconds))
        if not (tried[-1]["follows"] and tried[-1]["carried"]):
            break
    return tried


class _Check:
    """Whether the store has everything, at the end; of Redis's stream of trades, on the way."""

    def __init__(self, server: Server, name: str, url: str) -> None:
        self._server, self._name, self._url = server, name, url
        self._trades, self._last = 0, 0

    def look(self) -> None:
        """Read what a stream has that is new; a hole is an error."""
        if self._name == "redis":
            asyncio.run(self._follow())

    async def _follow(self) -> None:
        from engine.clients.redis_view import RedisView

        async with RedisView(self._url) as view:
            while found := await view.trades(symbols(1)[0], self._last):
                self._trades += len(found)
                self._last = found[-1]["seq"]

    def end(self) -> dict[str, Any]:
        """Raises RuntimeError when something is lost or twice."""
        self.look()
        if self._name == "redis":
            wanted = matchd(self._server, "journal", "stats")["events_by_kind"].get("fill", 0)
            if self._trades != wanted:
                raise RuntimeError(f"{self._trades} trades in Redis, {wanted} in the journal")
            return {"trades": self._trades}
        report = matchd(self._server, "store", "verify", self._name)
        if not report["good"]:
            raise RuntimeError(f"{self._name} is not what the journal says: {report}")
        return {"rows": report["rows"], "different": report["different"]}



def _sustained(name: str, pace: Pace) -> Row:
    with store_settings(name) as settings, daemon("commit", settings=settings) as server:
        check = _Check(server, name, settings[name].get("url", ""))
        tried = _highest(server, name, pace)
        check.look()
        good = [one["rate"] for one in tried if one["follows"] and one["carried"]] or [RATES[0]]
        pieces = _keep(server, name, good.pop(), pace, check)
        while good and not all(one["follows"] and one["carried"] for one in pieces):
            # A burst says more than it can keep: the next lower rate, from the beginning.
            tried += pieces
            pieces = _keep(server, name, good.pop(), pace, check)
        proof = check.end()
    behind = max(one["lag_events"] for one in pieces)
    return Row(f"sustained-{name}", f"{name} follows for {pace.minute:.0f} s, nothing lost",
               "messages/s", statistics.median(one["per_second"] for one in pieces),
               details={"rate": pieces[0]["rate"], "tried": tried, "pieces": pieces, "proof": proof,
                        "lag_events_max": behind})


def _keep(server: Server, name: str, rate: float, pace: Pace,
          check: _Check) -> list[dict[str, Any]]:
    """This rate for the whole time, or until the store does not follow."""
    pieces = []
    until = time.monotonic() + pace.minute
    while (left := until - time.monotonic()) > 0:
        # As the rates were found: a piece is not shorter than one of those.
        pieces.append(_load(server, name, rate, max(pace.seconds, min(PIECE_SECONDS, left))))
        check.look()
        if not (pieces[-1]["follows"] and pieces[-1]["carried"]):
            break
    return pieces


def sustained(pace: Pace) -> list[Row]:
    """The highest of some rates that each store follows, kept for long; then every row is
    compared with the journal."""
    return [_sustained(name, pace) for name in STORES]

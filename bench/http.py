"""`make bench-http`: what one, ten and fifty users of the HTTP gateway get, errors included.

Each user has a connection and sends the next request when the last one is answered: one user asks
sequentially, many at once. Health checks, then orders. Without --url it measures a daemon of its
own, which is durable; with --url a venue that runs, whose orders it leaves alone unless asked. An
error makes the exit code 1.
"""

import sys
from pathlib import Path

if not __package__:
    # Called as `python bench/http.py`: this folder would hide the standard library's http.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import socket
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from bench.conditions import conditions, stamp, warnings
from bench.measure import number, run_job
from bench.run import RESULTS_DIR
from bench.servers import NotListening, Server, daemon, load_core, make_key
from cython_core.build import BUILD_MODE

USERS = (1, 10, 50)
SECONDS, WARM_SECONDS = 3.0, 0.3
ASK_SECONDS = 10.0
COLUMNS = ("what", "users", "requests", "errors", "error rate", "per second", "p50 ms", "p95 ms",
           "p99 ms", "max ms", "answers")


class CannotAsk(RuntimeError):
    """The venue can't be measured; says why."""


def _ask(url: str, path: str, token: str = "") -> Any:
    """The JSON of a GET. Raises CannotAsk."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers),
                                    timeout=ASK_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise CannotAsk(f"{url}{path}: {error}") from None


def address(url: str) -> tuple[str, int]:
    """Host and port of a venue's URL. Raises CannotAsk for what the load generator can't speak."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise CannotAsk(f"{url} is not like http://127.0.0.1:8000 (this bench speaks no TLS)")
    try:
        return socket.gethostbyname(parts.hostname), parts.port or 80
    except (OSError, ValueError) as error:
        raise CannotAsk(f"{url}: {error}") from None


def harmless_order(url: str, chosen: argparse.Namespace) -> dict[str, str]:
    """Fields of an order for somebody else's venue: immediate or cancel, one lot bought at one
    tick, so that it neither rests nor trades unless a price is given. Raises CannotAsk."""
    found = _ask(url, "/v1/instruments")["instruments"]
    alike = [one for one in found if chosen.symbol in ("", one["symbol"])]
    if not alike:
        raise CannotAsk(f"{url} has no instrument {chosen.symbol}")
    return {"symbol": alike[0]["symbol"], "price": chosen.price or alike[0]["tick"],
            "quantity": chosen.quantity or alike[0]["lot"], "time_in_force": "ioc"}


def measure(job: dict[str, Any], kind: str, users: int, seconds: float) -> dict[str, Any]:
    """One line of the table."""
    figures: dict[str, Any] = run_job("bench.request", {
        **job, "kind": kind, "connections": users, "seconds": seconds, "cpu": load_core(),
        "warmup_seconds": min(WARM_SECONDS, seconds), "tolerant": True})["figures"]
    return {"what": "GET /health" if kind == "health" else "POST /v1/orders", "users": users,
            "how": "sequential" if users == 1 else "concurrent", **figures}


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table as texts, in the order of COLUMNS."""
    times = [f"{row['latency'][f'{name}_ns'] / 1e6:.2f}" for name in ("p50", "p95", "p99", "max")]
    answers = ", ".join(f"{status}: {count:,}" for status, count in row["statuses"].items())
    lost = [f"{row[name]:,} {words}" for name, words in (
        ("lost", "lost"), ("refused", "connections refused")) if row[name]]
    return [f"{row['what']}, {row['how']}", str(row["users"]), f"{row['requests']:,}",
            f"{row['errors']:,}", f"{row['error_rate']:.2%}", number(row["per_second"]), *times,
            ", ".join([answers, *lost]) or "none"]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The table with its head, columns aligned."""
    lines = [list(COLUMNS), *map(cells, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    last = len(COLUMNS) - 1
    return ["  ".join(text.ljust(width) if at in (0, last) else text.rjust(width)
                      for at, (text, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in lines]


def run(job: dict[str, Any], chosen: argparse.Namespace, kinds: list[str]) -> list[dict[str, Any]]:
    """All kinds with all numbers of users."""
    return [measure(job, kind, users, chosen.seconds) for kind in kinds for users in chosen.users]


def _own(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    with daemon("commit") as server:
        return run(_job("127.0.0.1", server.api_port, make_key(server)["token"], server), chosen,
                   ["health", "orders"])


def _running(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    url = chosen.url.rstrip("/")
    host, port = address(url)
    _ask(url, "/health/live")
    job = _job(host, port, chosen.token)
    if not chosen.orders:
        return run(job, chosen, ["health"])
    job |= {"order": harmless_order(url, chosen), "sides": ["buy"]}
    return run(job, chosen, ["health", "orders"])


def _job(host: str, port: int, token: str, server: Server | None = None) -> dict[str, Any]:
    return {"host": host, "port": port, "token": token,
            "server_pid": server.process.pid if server else 0}


def _numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.http", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="", help="a venue that runs, like http://127.0.0.1:8000 "
                        "(else a daemon of its own)")
    parser.add_argument("--orders", action="store_true", help="with --url: send it orders too, "
                        "immediate or cancel, one lot bought at one tick: they don't rest, and "
                        "trade with nobody who offers for more")
    parser.add_argument("--symbol", default="", help="with --orders: (the first instrument)")
    parser.add_argument("--price", default="", help="with --orders: (one tick)")
    parser.add_argument("--quantity", default="", help="with --orders: (one lot)")
    parser.add_argument("--token", default=os.environ.get("MATCHD_TOKEN", ""),
                        help="of `matchd key make` (MATCHD_TOKEN)")
    parser.add_argument("--users", type=_numbers, default=list(USERS), metavar="N,N",
                        help="how many users at once (1,10,50)")
    parser.add_argument("--seconds", type=float, default=SECONDS,
                        help=f"of each line ({SECONDS:g})")
    parser.add_argument("--json", action="store_true", help="print the result file instead")
    parser.add_argument("--results", type=Path, default=RESULTS_DIR,
                        help="where http-TIME-COMMIT.json goes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit code: 1 when there were errors, or nothing could be measured."""
    chosen = parse(arguments)
    about = conditions() | {"build": BUILD_MODE, "url": chosen.url or "a daemon of its own"}
    for line in warnings(about["noise"]):
        print(f"bench: the machine is not quiet: {line}", file=sys.stderr)
    try:
        rows = _running(chosen) if chosen.url else _own(chosen)
    except (CannotAsk, NotListening, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    errors = sum(row["errors"] for row in rows)
    result = {"conditions": about, "seconds": chosen.seconds, "lines": rows, "errors": errors}
    chosen.results.mkdir(parents=True, exist_ok=True)
    path = chosen.results / f"http-{stamp(about)}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if chosen.json
          else "\n".join([*table(rows), f"{errors:,} errors; written to {path}"]))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())

"""`make soak`: minutes of orders at a set rate against a real daemon. Does anything creep?

The daemon is durable and has feed clients and stores. While the orders run, its memory, loop lag,
pauses of the garbage collector and latencies are sampled. At the end every count must agree: orders
answered and in the journal, trades told and in the journal, the journal and the stores. The report
(build/soak/TIME/report.html) shows all of it over time; one check that fails makes the exit code 1.
"""

import sys
from pathlib import Path

if not __package__:
    # Called as `python bench/soak.py`: this folder would hide the standard library's http.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from bench import soakreport
from bench.conditions import conditions, stamp, warnings
from bench.rows_stores import STORES, caught_up, matchd, store_settings
from bench.servers import (
    PASSWORD,
    ROOT,
    WORK_DIR,
    NotListening,
    Server,
    account_names,
    daemon,
    load_core,
    symbols,
)
from bench.soakchecks import Check, Plan, Run, checks
from bench.soakwatch import FeedWatchers, Sampler
from cython_core.build import BUILD_MODE

SOAK_DIR = ROOT / "build" / "soak"
# What an order and its cancel leave on the disk: events in the journal, rows in a store.
JOURNAL_BYTES, STORE_BYTES = 400, 1_200
SAY_SECONDS = 10.0
# Smaller segments than usual: even a short run sees some of them begin.
SEGMENT_BYTES = 64 << 20
STOP_SECONDS = 60.0
ORDERS_MAX = 100_000
# Of each connection. Few, so that the books have their size soon.
RESTING = 250


# -- the load --------------------------------------------------------------------------------------


def _job(server: Server, plan: Plan) -> dict[str, Any]:
    """Pieces of an open loop: of the messages, half are new orders, the others cancels."""
    count = max(1, round(plan.seconds / plan.interval))
    piece = {"kind": "open_loop", "per_second": 2 * plan.rate, "seconds": plan.seconds / count,
             "busy": False, "histogram": True, "resting": RESTING}
    return {
        "host": "127.0.0.1", "port": server.udp_port if plan.transport == "udp" else server.port,
        "cpu": load_core(), "stream": True, "symbols": symbols(plan.instruments),
        "credentials": [[name, PASSWORD] for name in account_names(plan.connections)],
        "server_pid": server.process.pid,
        "options": {"transport": plan.transport, "orders_max": ORDERS_MAX},
        "phases": [piece] * count}


def _drive(server: Server, plan: Plan, run: Run, show: bool) -> None:
    """Send orders until the time is over; a line now and then says how it goes."""
    process = subprocess.Popen([sys.executable, "-m", "bench.load"], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    begun = time.monotonic()
    say_at = begun
    answer: dict[str, Any] = {"wrong": "the load generator ended without a word"}
    try:
        process.stdin.write(json.dumps(_job(server, plan)))
        process.stdin.close()
        for line in process.stdout:
            said = json.loads(line)
            if "phase" not in said:
                answer = said
                break
            run.pieces.append(said["phase"] | {"time_s": time.monotonic() - begun})
            if show and time.monotonic() >= say_at:
                say_at = time.monotonic() + SAY_SECONDS
                _say(run.pieces[-1], plan)
    finally:
        process.kill()
        process.wait()
    run.wrong, run.proof = answer.get("wrong", ""), answer.get("finish") or {}


def _say(piece: dict[str, Any], plan: Plan) -> None:
    latency = piece["latency"]
    print(f"{piece['time_s']:6.0f} of {plan.seconds:.0f} s: {piece['orders_per_second']:,.0f} "
          f"orders/s, answers p50 {latency['p50_ns'] / 1e6:.2f}, p99 {latency['p99_ns'] / 1e6:.2f}"
          f", max {latency['max_ns'] / 1e6:.1f} ms", flush=True)


# -- a whole run -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _settings(stores: tuple[str, ...]) -> Iterator[dict[str, dict[str, Any]]]:
    with contextlib.ExitStack() as stack:
        joined: dict[str, dict[str, Any]] = {"journal": {"segment_bytes": SEGMENT_BYTES}}
        for name in stores:
            joined |= stack.enter_context(store_settings(name))
        yield joined


def soak(plan: Plan, show: bool = True) -> Run:
    """Run it. What was found wrong is in the answer; raises only when nothing could be run."""
    run = Run()
    with _settings(plan.stores) as settings, \
            daemon("commit", accounts=plan.connections, instruments=plan.instruments,
                   udp=plan.transport == "udp", settings=settings) as server:
        with FeedWatchers(server, plan.feed_clients) as feed:
            with Sampler(server, plan.interval) as sampler:
                _drive(server, plan, run, show)
            run.samples, run.whole = sampler.samples, sampler.whole(plan.warm_seconds)
            if show:
                print("the orders are over; comparing feed, stores and journal", flush=True)
            run.feed = feed.end(server)
        _compare(server, plan, run)
    return run


def _compare(server: Server, plan: Plan, run: Run) -> None:
    """Stores level with the log, a clean stop, then what journal and stores hold."""
    for name in plan.stores:
        try:
            run.stores[name] = {"behind_s": caught_up(server, name)}
        except (OSError, RuntimeError) as error:
            run.stores[name] = {"error": str(error)}
    server.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.exit_code = server.process.wait(STOP_SECONDS)
    try:
        run.journal = matchd(server, "journal", "verify")
        run.events = matchd(server, "journal", "stats")["events_by_kind"]
        for name in plan.stores:
            run.stores[name] |= matchd(server, "store", "verify", name)
    except RuntimeError as error:
        run.journal.setdefault("verdict", str(error))


# -- the command -----------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=usual.minutes)
    parser.add_argument("--rate", type=float, default=usual.rate,
                        help="new orders a second; about as many cancels come on top "
                        f"({usual.rate:.0f})")
    parser.add_argument("--transport", choices=("tcp", "udp"), default=usual.transport)
    parser.add_argument("--connections", type=int, default=usual.connections)
    parser.add_argument("--instruments", type=int, default=usual.instruments)
    parser.add_argument("--feed-clients", type=int, default=usual.feed_clients)
    parser.add_argument("--stores", default=",".join(usual.stores),
                        help=f"of {', '.join(STORES)}, joined by commas; '' for none "
                        f"({','.join(usual.stores)})")
    parser.add_argument("--memory-mib-per-hour", type=float, default=usual.memory_mib_per_hour,
                        help=f"memory may grow so fast ({usual.memory_mib_per_hour:g})")
    parser.add_argument("--ack-p99-ms", type=float, help="answers may take so long (no limit)")
    parser.add_argument("--lag-p99-ms", type=float, help="the loop may be so late (no limit)")
    parser.add_argument("--gc-max-ms", type=float, help="a pause may take so long (no limit)")
    parser.add_argument("--report", type=Path, help="the report's folder (build/soak/TIME)")
    chosen = parser.parse_args(arguments)
    chosen.stores = tuple(name for name in chosen.stores.split(",") if name)
    if unknown := set(chosen.stores) - set(STORES):
        parser.error(f"no such store: {' '.join(sorted(unknown))}")
    if chosen.minutes <= 0 or chosen.rate <= 0:
        parser.error("--minutes and --rate are more than 0")
    return chosen


def missing_bytes(plan: Plan, free_bytes: int) -> int:
    """How much more disk a run needs than there is; 0 when it fits."""
    each = JOURNAL_BYTES + STORE_BYTES * len(plan.stores)
    return max(0, int(plan.rate * plan.seconds * each) + (1 << 30) - free_bytes)


def _print(found: list[Check]) -> None:
    words = {True: "ok", False: "FAILED", None: "-"}
    for check in found:
        print(f"{words[check.passed]:>6}  {check.name}: {check.found} (limit: {check.limit})")


def main(arguments: list[str] | None = None) -> int:
    """Returns the process's exit code: 1 when a check failed, or nothing could be run."""
    chosen = vars(parse(arguments))
    folder = chosen.pop("report")
    plan = Plan(**chosen)
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    if missing := missing_bytes(plan, shutil.disk_usage(WORK_DIR).free):
        print(f"soak: {WORK_DIR} lacks some {missing / 1e9:.1f} GB for that", file=sys.stderr)
        return 1
    about = conditions()
    for line in warnings(about["noise"]):
        print(f"soak: the machine is not quiet: {line}", file=sys.stderr)
    try:
        run = soak(plan)
    except (NotListening, RuntimeError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    found = checks(plan, run)
    folder = folder or SOAK_DIR / stamp(about)
    path = soakreport.write(folder, plan, run, found, about | {"build": BUILD_MODE})
    _print(found)
    print(path)
    return 1 if any(check.passed is False for check in found) else 0


if __name__ == "__main__":
    sys.exit(main())

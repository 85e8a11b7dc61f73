"""The process of the feed's readers: takes one JSON job on stdin, prints JSON answers.

A job: {"host", "port", "clients", "chains", "requests": [texts], "path", "cpu": core or null,
"ticks": null | {"port", "bytes": events} | {"port", "user", "password", "symbols": [..]},
"phases": [{"kind": .., ..}], "server_pid": process or 0, "strict": true, "hold": false}. A phase's
kind is a method of Reader (closed_loop, paced, read); the rest are its arguments. "share_max" of a
paced phase keeps it below that share of what the closed loop before it reached. The answer is one
line, {"phases": [..]} or {"wrong": text}. With "hold", a first line {"ready": true} says that all
are subscribed, and the readers go on reading until stdin ends.
"""

import json
import os
import resource
import select
import socket
import sys
from typing import Any

from bench.loadgen import log_in
from bench.wsreader import Reader, WrongFeed

PHASES = ("closed_loop", "paced", "read")
# Files that are open beside the clients' sockets.
OTHER_FILES = 64


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def clients_that_fit(wanted: int) -> int:
    """How many of so many clients this process, or a server like it, may have open."""
    limit = raise_open_files()
    return wanted if limit == resource.RLIM_INFINITY else min(wanted, limit - OTHER_FILES)


def connect(job: dict[str, Any]) -> Reader:
    """Readers that are subscribed, with what makes the ticks."""
    reader = Reader(job["host"], job["port"], job["clients"], chains=job["chains"],
                    server_pid=job.get("server_pid", 0), strict=job.get("strict", True))
    reader.connect(job["requests"], path=job.get("path", "/"))
    ticks = job.get("ticks")
    if ticks is None:
        return reader
    sock = socket.create_connection((job["host"], ticks["port"]), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "bytes" in ticks:
        sock.settimeout(None)
        reader.bytes_to(sock, ticks["bytes"])
    else:
        _, next_ref = log_in(sock, ticks["user"], ticks["password"])
        sock.settimeout(None)
        reader.orders(sock, next_ref, ticks["symbols"])
    reader.start()
    return reader


def run_phase(reader: Reader, phase: dict[str, Any], before: list[dict[str, Any]]) -> Any:
    """Run one phase."""
    arguments = dict(phase)
    kind = arguments.pop("kind")
    if kind not in PHASES:
        raise ValueError(f"{kind} is no phase of a job; there are {', '.join(PHASES)}")
    share = arguments.pop("share_max", None)
    if share is not None:
        reached = before[-1]["ticks"] / before[-1]["seconds"]
        arguments["per_second"] = min(arguments["per_second"], share * reached)
    return getattr(reader, kind)(**arguments)


def hold(reader: Reader) -> dict[str, Any]:
    """Read until stdin ends; the figures of all that time."""
    print(json.dumps({"ready": True}), flush=True)
    total: dict[str, Any] = {"messages": 0, "bytes": 0, "snapshots": 0, "seconds": 0.0}
    while not select.select([sys.stdin], [], [], 0)[0]:
        part = reader.read(0.1)
        total = {key: total[key] + part[key] for key in total}
    return total


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Connect, subscribe, run the phases. A wrong feed is an answer, not a crash."""
    raise_open_files()
    if job.get("cpu") is not None:
        os.sched_setaffinity(0, {job["cpu"]})
    phases: list[dict[str, Any]] = []
    try:
        reader = connect(job)
        for phase in job.get("phases", []):
            phases.append(run_phase(reader, phase, phases))
        if job.get("hold"):
            phases.append(hold(reader))
    except WrongFeed as wrong:
        return {"wrong": str(wrong)}
    return {"phases": phases}


if __name__ == "__main__":
    print(json.dumps(run_job(json.loads(sys.stdin.readline()))), flush=True)

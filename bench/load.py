"""The load generator's process: takes one JSON job on stdin, prints one JSON answer.

A job: {"host", "port", "credentials": [[user, password]], "symbols": [..], "cpu": core or null,
"options": {..of LoadGenerator}, "phases": [{"kind": .., ..}], "finish": true, "server_pid": process
or 0, "stream": false}. A phase's kind is a method of LoadGenerator (closed_loop, open_loop,
round_trips, fill, settle); the rest are its arguments. The answer is {"phases": [..],
"finish": ..}, each phase with the processor time that the server took in it, warm-up included, or
{"wrong": text}. With "stream", each phase has a line of its own, {"phase": ..}, when it is over.
"""

import json
import os
import sys
from typing import Any

from bench.cpu import cpu_seconds
from bench.loadgen import LoadGenerator, WrongAnswer

PHASES = ("closed_loop", "open_loop", "round_trips", "fill", "settle")


def run_phase(generator: LoadGenerator, phase: dict[str, Any], server_pid: int = 0) -> Any:
    """Run one phase and turn its histograms into what JSON can carry."""
    arguments = dict(phase)
    kind = arguments.pop("kind")
    if kind not in PHASES:
        raise ValueError(f"{kind} is no phase of a job; there are {', '.join(PHASES)}")
    before = cpu_seconds(server_pid)
    figures = getattr(generator, kind)(**arguments)
    if figures:
        figures["server_cpu_seconds"] = cpu_seconds(server_pid) - before
    if figures and "windows" in figures:
        figures["windows"] = [window.sparse() for window in figures["windows"]]
    if figures and "histogram" in figures:
        figures["histogram"] = figures["histogram"].sparse()
    return figures


def run_phases(generator: LoadGenerator, job: dict[str, Any]) -> list[Any]:
    """Run the phases one after the other; those that are told at once are not kept."""
    found = []
    for phase in job["phases"]:
        figures = run_phase(generator, phase, job.get("server_pid", 0))
        if job.get("stream"):
            print(json.dumps({"phase": figures}), flush=True)
        else:
            found.append(figures)
    return found


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Connect, run the phases, prove the answers. Wrong answers are an answer, not a crash."""
    if job.get("cpu") is not None:
        os.sched_setaffinity(0, {job["cpu"]})
    generator = LoadGenerator(job["host"], job["port"], job["credentials"], job["symbols"],
                              **job.get("options", {}))
    try:
        generator.connect()
        phases = run_phases(generator, job)
        finish = generator.finish() if job.get("finish", True) else None
    except WrongAnswer as wrong:
        return {"wrong": str(wrong)}
    return {"phases": phases, "finish": finish}


if __name__ == "__main__":
    json.dump(run_job(json.load(sys.stdin)), sys.stdout)

"""What every row of the bench shares: a row's form, medians, and the load generator's process."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.servers import PASSWORD, ROOT, Server, account_names, load_core, symbols

# A closed loop counts from here on: the book has its size, the caches are warm.
WARMUP_SECONDS = 0.5


@dataclass(frozen=True)
class Pace:
    """How long and how often to measure. `minute` is the length of the sustained run, `long` of
    the one that is to last five minutes."""

    repeats: int
    seconds: float
    minute: float
    quick: bool
    long: float


FULL = Pace(repeats=3, seconds=3.0, minute=60.0, quick=False, long=300.0)
QUICK = Pace(repeats=1, seconds=0.6, minute=4.0, quick=True, long=10.0)
TINY = Pace(repeats=1, seconds=0.2, minute=0.4, quick=True, long=0.6)


@dataclass
class Row:
    """One line of the table: our figure, the anchor's beside it, and the target.

    `higher` says whether more is better. `target` is our figure to reach in `unit`;
    `target_ratio` the ratio ours / anchor that says the same on any machine. None: no such target.
    """

    key: str
    title: str
    unit: str
    ours: float
    anchor_name: str = ""
    anchor: float | None = None
    target: float | None = None
    target_ratio: float | None = None
    higher: bool = True
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def spread(self) -> float | None:
        """How far the runs that `ours` is the median of lie apart, as a share of it; None for a
        figure of one run."""
        values = self.ours.values if isinstance(self.ours, Median) else ()
        return (max(values) - min(values)) / self.ours if len(values) > 1 and self.ours else None

    @property
    def ratio(self) -> float | None:
        """Ours divided by the anchor's."""
        return self.ours / self.anchor if self.anchor else None

    @property
    def reached(self) -> str:
        """Whether the target is reached. Machines drift: where figure and ratio disagree, this
        says which of both is reached. Empty without a target."""
        figure = self._reaches(self.ours, self.target)
        ratio = self._reaches(self.ratio, self.target_ratio)
        if figure is None and ratio is None:
            return ""
        if figure is None or ratio is None or figure == ratio:
            return "yes" if figure or ratio else "no"
        return "the figure, not the ratio" if figure else "the ratio, not the figure"

    def _reaches(self, value: float | None, wanted: float | None) -> bool | None:
        if value is None or wanted is None:
            return None
        return value >= wanted if self.higher else value <= wanted

    def as_dict(self) -> dict[str, Any]:
        """The row for the result file."""
        return {**self.__dict__, "ratio": self.ratio, "reached": self.reached,
                "spread": self.spread}


class Median(float):
    """A median that knows what it is of."""

    values: tuple[float, ...]

    def __new__(cls, values: Iterable[float]) -> "Median":
        every = tuple(values)
        made = super().__new__(cls, statistics.median(every))
        made.values = every
        return made


def median_of(runs: Iterable[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> Median:
    """The median of one figure over several runs."""
    return Median(value(run) for run in runs)


def number(value: float | None) -> str:
    """A figure with three digits that count."""
    if value is None:
        return "-"
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 1e4:
        return f"{value / 1e3:.0f} k"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def target_text(row: Mapping[str, Any]) -> str:
    """The target as the table shows it: the figure and the ratio it meant where it was set."""
    sign = ">=" if row["higher"] else "<="
    parts = []
    if row["target"] is not None:
        parts.append(f"{sign} {number(row['target'])}")
    if row["target_ratio"] is not None:
        parts.append(f"{sign} {row['target_ratio']:.2g} x")
    return ", ".join(parts) or "-"


def drive(server: Server, phases: list[dict[str, Any]], *, connections: int = 1,
          instruments: int = 1, echo: bool = False, finish: bool = True, transport: str = "tcp",
          **options: Any) -> list[dict[str, Any]]:
    """Run phases of the load generator in its own process, on its own core; over TCP, or over
    "udp".

    Each phase's figures also say how busy the server's process was. Raises RuntimeError when the
    server's answers were wrong.
    """
    job = {
        "host": "127.0.0.1", "port": server.udp_port if transport == "udp" else server.port,
        "cpu": load_core(), "finish": finish,
        "credentials": [[name, PASSWORD] for name in account_names(connections)],
        "symbols": symbols(instruments), "phases": phases, "server_pid": server.process.pid,
        "options": {"echo": echo, "transport": transport, **options},
    }
    phases_done: list[dict[str, Any]] = run_job("bench.load", job)["phases"]
    return phases_done


def run_job(module: str, job: dict[str, Any]) -> dict[str, Any]:
    """Give a load generator's process its job; returns its answer.

    Raises RuntimeError when it fails, or when what it measured answered wrongly.
    """
    done = subprocess.run([sys.executable, "-m", module], input=json.dumps(job) + "\n", text=True,
                          cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    # What its libraries log may stand before the answer.
    return right(json.loads(done.stdout.splitlines()[-1]))


def right(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, if what was measured answered rightly. Raises RuntimeError."""
    if "wrong" in answer:
        raise RuntimeError(f"wrong answers, no figure: {answer['wrong']}")
    return answer


def closed(in_flight: int, seconds: float, **more: Any) -> dict[str, Any]:
    """A closed-loop phase; the load generator sleeps when nothing has come."""
    return {"kind": "closed_loop", "in_flight": in_flight, "seconds": seconds,
            "warmup_seconds": min(WARMUP_SECONDS, seconds), **more}


def drive_redis(server: Server, in_flight: int, seconds: float) -> dict[str, Any]:
    """SET with so many requests in flight, from a process of its own on the load's core."""
    code = (f"import json, os; from bench.anchors import SetClient; "
            f"os.sched_setaffinity(0, {{{load_core()}}}); "
            f"print(json.dumps(SetClient('127.0.0.1', {server.port}, {in_flight})"
            f".run({seconds}, {min(WARMUP_SECONDS, seconds)})))")
    done = subprocess.run([sys.executable, "-c", code], text=True, cwd=ROOT, capture_output=True,
                          check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures

"""What the soak looks at while the orders run: the daemon's own figures, and the feed."""

import json
import math
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from types import TracebackType
from typing import Any, Self

from bench.servers import ROOT, Server, load_core
from engine.clients.top.scrape import Scrape
from engine.clock import NS_PER_MS

ANSWER_SECONDS = 10.0
QUANTILES = {"p50": 0.5, "p99": 0.99}
# What has times in /metrics, by the name that it has here.
TIMES = {"ack": "matchd_order_ack_seconds", "commit": "matchd_commit_seconds",
         "lag": "matchd_loop_lag_seconds", "gc": "matchd_gc_pause_seconds"}
MOST = {"lag": "matchd_loop_lag_max_seconds", "gc": "matchd_gc_pause_max_seconds"}
GENERATIONS = ("0", "1", "2")


class Sampler:
    """Reads `/metrics` at every interval, in a thread, while the context is open.

    Each sample is what the time since the one before showed: milliseconds at p50 and p99 (exact to
    a bucket of the venue's histograms), memory and processor time as they are.
    """

    def __init__(self, server: Server, interval_seconds: float) -> None:
        self._url = f"http://127.0.0.1:{server.api_port}/metrics"
        self._interval = interval_seconds
        self.samples: list[dict[str, Any]] = []
        self.missed = 0
        self._looks: list[tuple[float, Scrape]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever)

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _look_for_ever(self) -> None:
        due = self._begun
        while True:
            due += self._interval
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            self._look()

    def _look(self) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=ANSWER_SECONDS) as answer:
                scrape = Scrape(answer.read().decode())
        except (OSError, ValueError):
            # A daemon that is gone: the load notices, and says so.
            self.missed += 1
            return
        self._looks.append((time.monotonic() - self._begun, scrape))
        if len(self._looks) > 1:
            self.samples.append(_sample(*self._looks[-2], *self._looks[-1]))

    def whole(self, warm_seconds: float) -> dict[str, Any]:
        """The figures of all the time behind the warm-up, as those of a sample."""
        late = [look for look in self._looks if look[0] >= warm_seconds] or self._looks
        if len(late) < 2:
            return {}
        last = late[-1][1]
        return _sample(*late[0], *late[-1]) | {
            **{f"{short}_max_ms": last.value(name) * 1e3 for short, name in MOST.items()},
            "gc_found": last.value("matchd_gc_found_total"),
            "feed_conflated": last.value("matchd_feed_conflated_total"),
            "queue_waits": last.value("matchd_queue_waits_total")}


def _sample(before_s: float, before: Scrape, now_s: float, now: Scrape) -> dict[str, Any]:
    took = max(now_s - before_s, 1e-9)

    def per_second(name: str, **labels: str) -> float:
        return (now.value(name, **labels) - before.value(name, **labels)) / took

    found: dict[str, Any] = {
        "time_s": now_s, "rss_bytes": int(now.value("process_resident_memory_bytes")),
        "cpu": per_second("process_cpu_seconds_total"),
        "commands": per_second("matchd_commands_total"),
        "feed_messages": per_second("matchd_feed_messages_total"),
        "queue_units": max(now.by("matchd_queue_units", "queue").values(), default=0.0),
        "store_lag_s": max(now.by("matchd_store_lag_seconds", "store").values(), default=0.0),
        "gc_share": per_second("matchd_gc_pause_seconds_sum"),
        "gc": {generation: per_second("matchd_gc_pause_seconds_count", generation=generation)
               for generation in GENERATIONS}}
    for short, name in TIMES.items():
        spread = now.spread(name) - before.spread(name) if before.value(f"{name}_count") \
            else now.spread(name)
        # A bucket's bound may lie beyond the longest time there was.
        most_ms = now.value(MOST[short]) * 1e3 if short in MOST else math.inf
        for quantile, part in QUANTILES.items():
            found[f"{short}_{quantile}_ms"] = min(spread.quantile(part) / NS_PER_MS, most_ms)
    return found


def slope_per_second(points: list[tuple[float, float]]) -> float:
    """The median slope between all pairs of points (Theil and Sen): a few that lie far off don't
    count. 0 with fewer than two."""
    # A thousand points have half a million pairs; a part of them says the same.
    step = max(1, len(points) // 400)
    kept = points[::step]
    slopes = [(other_y - y) / (other_x - x) for index, (x, y) in enumerate(kept)
              for other_x, other_y in kept[index + 1:] if other_x > x]
    return statistics.median(slopes) if slopes else 0.0


class FeedWatchers:
    """Feed clients in processes of their own (bench/soakfeed.py), subscribed when this is
    entered."""

    def __init__(self, server: Server, count: int) -> None:
        self._server, self._count = server, count
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        job = {"host": "127.0.0.1", "port": self._server.feed_port, "cpu": load_core(),
               "config": str(self._server.directory / "matchd.toml")}
        try:
            for _ in range(self._count):
                process = subprocess.Popen([sys.executable, "-m", "bench.soakfeed"], cwd=ROOT,
                                           text=True, stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE)
                self._processes.append(process)
                self._tell(process, job)
            for process in self._processes:
                if not self._answer(process).get("ready"):
                    raise RuntimeError("a feed client could not subscribe")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._kill()

    def end(self, server: Server) -> list[dict[str, Any]]:
        """What each client saw, once it has everything that is durable now."""
        try:
            url = f"http://127.0.0.1:{server.api_port}/health"
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
                seq = json.load(answer)["seq"]
            for process in self._processes:
                self._tell(process, {"seq": seq})
        except OSError as error:
            return [{"wrong": f"the venue does not answer: {error}"} for _ in self._processes]
        return [self._answer(process) for process in self._processes]

    @staticmethod
    def _tell(process: subprocess.Popen[str], words: dict[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        for line in process.stdout:
            # What its libraries log stands between.
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        return {"wrong": "the feed client ended without a word"}

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

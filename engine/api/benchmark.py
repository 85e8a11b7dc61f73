"""`POST /api/v1/performance/benchmark`: a short load on a scratch instrument.

It has a matcher of its own, so nothing of it reaches the live books, and a thread of its own that
gives way after every few commands: orders wait for it a fraction of a millisecond at most. One
runs at a time, for at most as long and with as many orders as was asked for.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from engine import clock, log
from engine.api.performance import Timing, timing
from engine.api.route import Access, ApiError, Call, Reply, Route, json_reply
from engine.metrics import Histogram

RESULTS_KEPT = 20
# Commands made or texts parsed before other threads may run: about a tenth of a millisecond.
SLICE = 100
# The parts of the time that each measurement may take.
MATCHER_PART, JSON_PART = 0.6, 0.8
SYNCS_MAX = 500
SYNC_BYTES = 4_096
FILE_BYTES = 1 << 20

# The scratch market: prices around a middle, one account that trades with itself.
_ACCOUNT = _INSTRUMENT = 1
_MIDDLE, _SPREAD, _LOTS = 1_000_000, 200, 100
_KEEP = 2_500
_TEXT = (b'{"symbol":"BTC-USDT","order_type":"limit","side":"buy","quantity":"0.1",'
         b'"price":"60010","client_order_id":"benchmark-0001"}')

State = Literal["running", "done", "failed"]


class BenchmarkRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much to do: whichever comes first ends it."""

    orders: Annotated[int, Meta(ge=1_000, le=500_000)] = 100_000
    seconds: Annotated[int, Meta(ge=1, le=10)] = 3


class MatcherFigures(msgspec.Struct, frozen=True):
    """The matcher alone, events written; `resting` orders were left at the end."""

    commands: int
    events: int
    fills: int
    resting: int
    ns_per_command: float
    commands_per_second: float


class ParseFigures(msgspec.Struct, frozen=True):
    """Reading the JSON of an order as the gateway reads it."""

    texts: int
    bytes_each: int
    ns_per_text: float


class DiskFigures(msgspec.Struct, frozen=True):
    """Writing 4 KiB into a written file of the data directory and waiting for the disk."""

    bytes_each: int
    fdatasync: Timing


class BenchmarkResult(msgspec.Struct, frozen=True):
    """One benchmark; a part that was not reached yet is null."""

    id: str
    state: State
    account: str
    started: int
    took_ms: float = 0.0
    error: str | None = None
    matcher: MatcherFigures | None = None
    json: ParseFigures | None = None
    disk: DiskFigures | None = None


class Stop(Exception):
    """The venue stops."""


class Run:
    """One benchmark, in a thread. `stopped` is asked between slices."""

    def __init__(self, request: BenchmarkRequest, folder: Path, decode: Callable[[bytes], Any],
                 stopped: Callable[[], bool]) -> None:
        self._request, self._folder, self._decode = request, folder, decode
        self._stopped = stopped
        self._started_ns = clock.monotonic_ns()

    def _over(self, part: float) -> bool:
        """Whether this part of the time is over; lets others run. Raises Stop."""
        time.sleep(0)
        if self._stopped():
            raise Stop
        spent_ns = clock.monotonic_ns() - self._started_ns
        return spent_ns > part * self._request.seconds * clock.NS_PER_S

    def matcher(self) -> MatcherFigures:
        """Match orders on the scratch instrument."""
        matcher, spent_ns = _scratch(), 0
        commands = events = 0
        for batch in _flow(self._request.orders):
            made = EventBatch()
            started_ns = clock.monotonic_ns()
            matcher.apply(batch, made, started_ns)
            spent_ns += clock.monotonic_ns() - started_ns
            commands += batch.command_count
            events += made.event_count
            if self._over(MATCHER_PART):
                break
        each_ns = spent_ns / commands
        return MatcherFigures(commands, events, matcher.counters["fill"], matcher.resting_orders,
                              round(each_ns, 1), round(clock.NS_PER_S / each_ns))

    def json(self) -> ParseFigures:
        """Read the text of an order again and again."""
        texts = spent_ns = 0
        while texts < self._request.orders and not self._over(JSON_PART):
            started_ns = clock.monotonic_ns()
            for _ in range(SLICE):
                self._decode(_TEXT)
            spent_ns += clock.monotonic_ns() - started_ns
            texts += SLICE
        return ParseFigures(texts, len(_TEXT), round(spent_ns / max(1, texts), 1))

    def disk(self) -> DiskFigures:
        """Write and wait for the disk, in a file that is gone afterwards. Raises OSError."""
        histogram, block = Histogram("fdatasync", "ns", ""), os.urandom(SYNC_BYTES)
        with tempfile.TemporaryFile(dir=self._folder, prefix="benchmark.") as file:
            file.write(bytes(FILE_BYTES))
            file.flush()
            os.fsync(file.fileno())
            for number in range(SYNCS_MAX):
                started_ns = clock.monotonic_ns()
                os.pwrite(file.fileno(), block, number * SYNC_BYTES % FILE_BYTES)
                os.fdatasync(file.fileno())
                histogram.observe(clock.monotonic_ns() - started_ns)
                if self._over(1.0):
                    break
        return DiskFigures(SYNC_BYTES, timing(histogram.spread()))


def _scratch() -> Matcher:
    matcher, batch = Matcher(), CommandBatch()
    batch.define_instrument(_INSTRUMENT, "SCRATCH", "SCRATCH", 2, 1, 0)
    batch.define_account(_ACCOUNT, "BENCH")
    matcher.apply(batch, EventBatch(), 1)
    return matcher


def _flow(orders: int) -> Iterator[CommandBatch]:
    """Half new orders around a middle, most of the rest cancels of old ones, some that trade.

    The same every time: a figure is compared with the one before.
    """
    draw, number, batch = 1, 0, CommandBatch()
    for index in range(orders):
        draw = (draw * 6364136223846793005 + 1442695040888963407) % 2**64
        kind, step = draw >> 33 & 0xF, draw >> 40 & 0xFF
        side = "B" if draw >> 60 & 1 else "S"
        away = -1 - step % _SPREAD if side == "B" else 1 + step % _SPREAD
        if kind < 6 and number > _KEEP:
            batch.cancel(_ACCOUNT, number - step * 8 % _KEEP)
        else:
            number += 1
            price = _MIDDLE - away if kind == 15 else _MIDDLE + away
            batch.enter(_ACCOUNT, number, _INSTRUMENT, side, 1 + step % _LOTS, price,
                        "3" if kind == 15 else "0")
        if index % SLICE == SLICE - 1:
            yield batch
            batch = CommandBatch()
    if batch.command_count:
        yield batch


class BenchmarkDesk:
    """Runs benchmarks one at a time and keeps the last results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results: OrderedDict[str, BenchmarkResult] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._next = 1
        self._log = log.get("api")
        # What reads an order's text: the gateway's own type, once its routes are known.
        self.decode: Callable[[bytes], Any] = msgspec.json.decode

    def use_routes(self, routes: list[Route]) -> None:
        """Read orders as `POST /v1/orders` does."""
        for route in routes:
            if (route.method, route.path) == ("POST", "/v1/orders"):
                self.decode = msgspec.json.Decoder(route.body).decode

    def close(self) -> None:
        """End what runs: the venue stops."""
        self._stopped = True

    async def begin(self, call: Call) -> Reply:
        """`POST .../benchmark`. Raises ApiError 409 while one runs."""
        if self._task is not None and not self._task.done():
            raise ApiError(409, "benchmark_running", "a benchmark runs: wait for its result",
                           {"id": next(reversed(self._results))})
        name = f"{self._next}"
        self._next += 1
        self._keep(BenchmarkResult(name, "running", call.identity.username, clock.now_ns()))
        self._log.info("benchmark", id=name, account=call.identity.username, key=name)
        self._task = asyncio.get_running_loop().create_task(self._run(name, call.body))
        return json_reply(self._results[name], 202)

    async def result(self, call: Call) -> Reply:
        """`GET .../benchmark/results/{id}`. Raises ApiError 404."""
        found = self._results.get(call.path["id"])
        if found is None:
            raise ApiError(404, "not_found", f"no benchmark {call.path['id']!r}: the last "
                           f"{RESULTS_KEPT} are kept")
        return json_reply(found)

    def _keep(self, result: BenchmarkResult) -> None:
        self._results[result.id] = result
        while len(self._results) > RESULTS_KEPT:
            self._results.popitem(last=False)

    async def _run(self, name: str, request: BenchmarkRequest) -> None:
        run = Run(request, self._folder, self.decode, lambda: self._stopped)
        started_ns, found = clock.monotonic_ns(), self._results[name]
        try:
            for part, work in (("matcher", run.matcher), ("json", run.json), ("disk", run.disk)):
                figures: Any = await asyncio.to_thread(work)
                found = msgspec.structs.replace(found, **{part: figures})
                self._keep(found)
            found = msgspec.structs.replace(found, state="done")
        except (Stop, OSError) as error:
            found = msgspec.structs.replace(found, state="failed",
                                            error=str(error) or "the venue stops")
        except BaseException:
            self._keep(msgspec.structs.replace(found, state="failed", error="it was ended"))
            raise
        took_ms = (clock.monotonic_ns() - started_ns) / clock.NS_PER_MS
        self._keep(msgspec.structs.replace(found, took_ms=round(took_ms, 1)))

    def routes(self) -> list[Route]:
        """Both."""
        base = "/api/v1/performance/benchmark"
        return [
            Route(method="POST", path=base, handler=self.begin, body=BenchmarkRequest,
                  answer=BenchmarkResult, status=202, access=Access.ADMIN, errors=(409,),
                  tag="Operations", summary="Run a short load on a scratch instrument",
                  description="It never touches the live books. One runs at a time; ask for its "
                  "result by its id."),
            Route(method="GET", path=f"{base}/results/{{id}}", handler=self.result,
                  answer=BenchmarkResult, access=Access.ADMIN, errors=(404,), tag="Operations",
                  summary="What a benchmark measured"),
        ]

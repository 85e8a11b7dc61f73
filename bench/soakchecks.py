"""What the soak promises: its plan, what a run found, and the checks that compare both."""

from dataclasses import dataclass, field
from typing import Any

from bench.histogram import Histogram
from bench.soakwatch import slope_per_second

# The beginning, which times don't count.
WARM_SHARE, WARM_SECONDS_MAX = 0.25, 300.0
# Memory may grow for longer: until caches of the stores and of the feed are full.
WARM_ORDERS = 100_000
# So much of a run must be left for its memory to be judged.
JUDGED_SHARE = 0.25
# Looks at the daemon: so often, and at least so many.
SAMPLE_SECONDS, SAMPLES_MIN, SAMPLE_SECONDS_MIN = 5.0, 60, 0.25
MIB = 1 << 20
# Growth that a short run can't tell from noise.
MEMORY_NOISE_MIB = 4.0
# A rate is kept when so much of it was answered in its time.
KEPT_SHARE = 0.95


@dataclass(frozen=True)
class Plan:
    """What is run, and its limits; None: no limit. `rate` counts new orders; about as many
    cancels come on top."""

    minutes: float = 10.0
    rate: float = 2_000.0
    transport: str = "tcp"
    connections: int = 4
    instruments: int = 4
    feed_clients: int = 2
    stores: tuple[str, ...] = ("sqlite",)
    memory_mib_per_hour: float = 32.0
    ack_p99_ms: float | None = None
    lag_p99_ms: float | None = None
    gc_max_ms: float | None = None

    @property
    def seconds(self) -> float:
        """How long orders are sent."""
        return 60 * self.minutes

    @property
    def interval(self) -> float:
        """Seconds between two looks at the daemon, and of one piece of the load."""
        return max(SAMPLE_SECONDS_MIN, min(SAMPLE_SECONDS, self.seconds / SAMPLES_MIN))

    @property
    def warm_seconds(self) -> float:
        """The beginning, which times don't count."""
        return min(WARM_SHARE * self.seconds, WARM_SECONDS_MAX)

    @property
    def memory_warm_seconds(self) -> float:
        """The beginning in which memory may grow."""
        return max(self.warm_seconds, WARM_ORDERS / self.rate)

    @property
    def judges_memory(self) -> bool:
        """Whether enough of the run is left behind that."""
        return self.seconds - self.memory_warm_seconds >= JUDGED_SHARE * self.seconds


@dataclass
class Run:
    """What came out: pieces of the load in order, its last word, looks at the daemon, feed
    clients, journal, stores. Empty where it did not come so far."""

    pieces: list[dict[str, Any]] = field(default_factory=list)
    wrong: str = ""
    proof: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    whole: dict[str, Any] = field(default_factory=dict)
    feed: list[dict[str, Any]] = field(default_factory=list)
    journal: dict[str, Any] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    stores: dict[str, dict[str, Any]] = field(default_factory=dict)
    exit_code: int | None = None


@dataclass(frozen=True)
class Check:
    """A promise, what was found, and the limit. `passed` None: nobody set a limit."""

    name: str
    found: str
    limit: str
    passed: bool | None


def latency(plan: Plan, run: Run) -> Histogram:
    """The answers behind the warm-up, all together."""
    total = Histogram()
    for piece in run.pieces:
        if piece["time_s"] > plan.warm_seconds:
            total.add_sparse(piece["histogram"])
    return total


def checks(plan: Plan, run: Run) -> list[Check]:
    """Every promise beside what was found."""
    ack = latency(plan, run)
    ack_ms = ack.percentile(99) / 1e6 if len(ack) else None
    return [
        _answers(run), _rate(plan, run),
        *(_feed(number, seen, run) for number, seen in enumerate(run.feed, 1)),
        _journal(run), *(_store(name, run.stores.get(name, {})) for name in plan.stores),
        _memory(plan, run), _stop(run),
        _at_most("answers, p99", ack_ms, plan.ack_p99_ms),
        _at_most("loop lag, p99", run.whole.get("lag_p99_ms"), plan.lag_p99_ms),
        _at_most("pauses of the garbage collector, the longest", run.whole.get("gc_max_ms"),
                 plan.gc_max_ms)]


def _answers(run: Run) -> Check:
    """The load generator's proof: bench/trader.pxd checks each answer, its end all of them."""
    found = run.wrong or "the orders did not end"
    if run.proof and not run.wrong:
        found = (f"{run.proof['orders']:,} orders and {run.proof['cancels']:,} cancels answered, "
                 f"{run.proof['fills']:,} fills told to takers and makers, message numbers "
                 "without a hole")
    return Check("every order answered once", found, "none missing, none twice, none wrong",
                 bool(run.proof) and not run.wrong)


def _rate(plan: Plan, run: Run) -> Check:
    seconds = sum(piece["seconds"] for piece in run.pieces)
    orders = sum(piece["orders"] for piece in run.pieces)
    reached = orders / seconds if seconds else 0.0
    return Check("the rate was kept", f"{reached:,.0f} orders/s", f"at least {KEPT_SHARE:.0%} of "
                 f"{plan.rate:,.0f} orders/s", reached >= KEPT_SHARE * plan.rate)


def _feed(number: int, seen: dict[str, Any], run: Run) -> Check:
    name = f"feed client {number}: no hole, nothing twice"
    limit = "each message follows the one before, each trade told once, books as the venue's"
    if seen.get("wrong"):
        return Check(name, str(seen["wrong"]), limit, False)
    wanted = run.events.get("fill", -1)
    found = (f"{seen['messages']:,} messages, {seen['trades']:,} trades told of {wanted:,} in the "
             f"journal, {seen['repairs']} gaps or wrong books, {seen['snapshots']} conflations, "
             f"{seen['levels_left']} levels left in empty books")
    return Check(name, found, limit,
                 seen["trades"] == wanted and not seen["repairs"] and not seen["resets"]
                 and not seen["levels_left"])


def _journal(run: Run) -> Check:
    name, limit = "the journal holds everything", "`matchd journal verify` good, counts agree"
    verdict = str(run.journal.get("verdict", "not looked at"))
    accepted, fills = run.events.get("accepted", 0), run.events.get("fill", 0)
    found = (f"{verdict}: {run.journal.get('events', 0):,} events, {accepted:,} orders and "
             f"{fills:,} fills")
    # Of each fill two are told.
    agree = (accepted, 2 * fills) == (run.proof.get("orders"), run.proof.get("fills"))
    return Check(name, found, limit, verdict == "good" and agree)


def _store(name: str, found: dict[str, Any]) -> Check:
    words = found.get("error") or (
        f"level with the journal after {found.get('behind_s', 0):.1f} s, "
        + ("as it says" if found.get("good") else f"NOT what it says: {found.get('different')}"))
    return Check(f"{name} holds what the journal says", words, "`matchd store verify` good",
                 bool(found.get("good")) and "error" not in found)


def memory_points(plan: Plan, run: Run) -> list[tuple[float, float]]:
    """Seconds and MiB behind the warm-up; of a run too short for it, its second half."""
    begin = plan.memory_warm_seconds if plan.judges_memory else plan.seconds / 2
    return [(one["time_s"], one["rss_bytes"] / MIB) for one in run.samples
            if one["time_s"] >= begin]


def _memory(plan: Plan, run: Run) -> Check:
    points = memory_points(plan, run)
    measured = points[-1][0] - points[0][0] if points else 0.0
    slope = slope_per_second(points)
    allowed = max(MEMORY_NOISE_MIB, plan.memory_mib_per_hour * measured / 3600)
    found = (f"{slope * measured:+.2f} MiB in {measured:,.0f} s, {slope * 3600:+.1f} MiB an hour, "
             f"at {points[-1][1]:.0f} MiB" if points else "not sampled")
    if not plan.judges_memory:
        enough = WARM_ORDERS / plan.rate / (1 - JUDGED_SHARE) / 60
        return Check("memory flat", found, f"not judged: caches fill in the first {WARM_ORDERS:,} "
                     f"orders; at this rate {enough:.1f} minutes are enough", None)
    return Check("memory flat", found, f"a median slope of at most {plan.memory_mib_per_hour:g} "
                 f"MiB an hour, or {MEMORY_NOISE_MIB:g} MiB in all: {allowed:.1f} MiB here",
                 len(points) > 2 and slope * measured <= allowed)


def _stop(run: Run) -> Check:
    return Check("a clean stop", f"exit code {run.exit_code}", "0 after SIGTERM",
                 run.exit_code == 0)


def _at_most(name: str, found_ms: float | None, limit_ms: float | None) -> Check:
    found = "not measured" if found_ms is None else f"{found_ms:.2f} ms"
    if limit_ms is None:
        return Check(name, found, "none set", None)
    return Check(name, found, f"{limit_ms:g} ms", found_ms is not None and found_ms <= limit_ms)

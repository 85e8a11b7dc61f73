"""`GET /health`: whether the venue is well, and the state of each of its parts.

`healthy` turns into `degraded` when one of the checks below fails: the venue trades on, and an
operator should look. What makes trading impossible stops the process, so nobody is left to say
so. Reports are made at most every few milliseconds; a load balancer may ask as often as it likes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine import __version__, clock
from engine.api.route import Access, ApiError, Call, Handler, Reply, Route, json_reply
from engine.api.watch import QueueView, StoresView, Watch
from engine.metrics import Histogram, Spread

# A report is given out again for so long.
KEEP_NS = 20 * clock.NS_PER_MS
# A queue this full makes its producer wait soon.
QUEUE_PART = 0.9
# Room for fewer segments than this is worth a look.
SEGMENTS_ROOM = 4
# Of fewer values than this, the slowest percent says nothing.
VALUES_MIN = 100
# The slowest percent of commits in the last minute.
COMMIT_MS = 250.0
# So long without a commit while events wait.
STUCK_MS = 1_000.0
# The slowest percent of the loop's timers in the last minute.
LAG_MS = 100.0

State = Literal["ok", "degraded", "off"]
StoreState = Literal["connected", "off", "down"]


class Check(msgspec.Struct, frozen=True):
    """One thing that is looked at: `value` beyond `limit` makes the venue degraded."""

    part: str
    name: str
    ok: bool
    value: float
    limit: float
    unit: str
    message: str


class OrderEntryHealth(msgspec.Struct, frozen=True):
    """Order entry: connections over TCP, peers over UDP, and the live sessions of both."""

    state: State
    connections: int
    connections_limit: int
    sessions: int
    udp: State
    udp_peers: int


class MatcherHealth(msgspec.Struct, frozen=True):
    """The matcher: `seq` is its newest event, durable or not yet."""

    state: State
    seq: int
    resting_orders: int
    queue_units: int
    queue_limit_units: int


class JournalHealth(msgspec.Struct, frozen=True):
    """The log. `disk_free_bytes` is -1 and the times are 0 without one (journal.sync off)."""

    state: State
    sync: str
    committed_seq: int
    synced_seq: int
    waiting_events: int
    last_commit_ms: float
    commit_p99_ms: float
    disk_free_bytes: int


class FeedHealth(msgspec.Struct, frozen=True):
    """The WebSocket feed."""

    state: State
    clients: int
    clients_limit: int
    clients_dropped: int


class ApiHealth(msgspec.Struct, frozen=True):
    """The HTTP gateway."""

    state: State
    connections: int


class LoopHealth(msgspec.Struct, frozen=True):
    """The event loop: how late its timers ran in the last minute."""

    state: State
    lag_p99_ms: float
    lag_max_ms: float


class StoreHealth(msgspec.Struct, frozen=True):
    """A store behind the venue. `seq` is its newest event, `lag_events` says how many it lacks and
    `lag_ms` how old the oldest of them is, `breaker` whether it is left alone: "closed",
    "half_open" (one try) or "open". `error` is why it is down, in a few words; administrators see
    more elsewhere."""

    state: StoreState
    seq: int = 0
    lag_events: int = 0
    lag_ms: int = 0
    breaker: str = "closed"
    failures: int = 0
    error: str = ""


class OrderQueueHealth(msgspec.Struct, frozen=True):
    """Orders from a queue in Redis. `kind` is "list", "stream", or "" as long as nobody has
    written to it; `in_flight` are entries that are taken and not acknowledged yet."""

    state: StoreState
    kind: str
    in_flight: int
    error: str


class Parts(msgspec.Struct, frozen=True):
    """Every part of the venue."""

    order_entry: OrderEntryHealth
    matcher: MatcherHealth
    journal: JournalHealth
    feed: FeedHealth
    api: ApiHealth
    loop: LoopHealth
    order_queue: OrderQueueHealth
    redis: StoreHealth
    postgres: StoreHealth
    sqlite: StoreHealth


class Health(msgspec.Struct, frozen=True):
    """The answer of `/health`. `reasons` has a sentence for each check that failed."""

    status: Literal["healthy", "degraded"]
    ready: bool
    redis: StoreState
    postgres: StoreState
    sqlite: StoreState
    name: str
    version: str
    seq: int
    uptime_s: float
    time: int
    reasons: list[str]
    parts: Parts


class Alive(msgspec.Struct, frozen=True):
    """The answer of `/health/live`."""

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct, frozen=True):
    """The answer of `/health/ready`."""

    ready: bool
    status: Literal["healthy", "degraded"]
    reasons: list[str]


class HealthDesk:
    """Makes the reports, and answers with them."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._made_ns = -KEEP_NS
        self._reply = Reply()
        self._alive = json_reply(Alive()).body

    # -- what is looked at ---------------------------------------------------------------------

    def checks(self) -> list[Check]:
        """All checks, those that hold included."""
        watch = self._watch
        found = [_queue_check(queue) for queue in watch.queues]
        entry = watch.config.order_entry
        found.append(_check("order_entry", "connections", watch.door.connection_count,
                            entry.connections_max, "connections",
                            "{value:.0f} of {limit:.0f} connections are taken"))
        if watch.udp_door is not None:
            found.append(_check("order_entry_udp", "peers", watch.udp_door.connection_count,
                                entry.connections_max, "peers",
                                "{value:.0f} of {limit:.0f} peers over UDP are there"))
        if watch.config.journal.sync != "off":
            found += self._journal_checks()
        lag_ms = _slowest_ms(watch.recent.spread("loop_lag"))
        found.append(_check("loop", "lag_p99", lag_ms, LAG_MS, "ms",
                            "one in a hundred timers ran more than {value:.1f} ms late"))
        if watch.feed is not None:
            found.append(_check("feed", "clients", watch.feed_clients,
                                watch.config.feed.clients_max, "clients",
                                "{value:.0f} of {limit:.0f} feed clients are connected"))
        if watch.stores is not None:
            found += _store_checks(watch.stores)
        if watch.order_queue is not None:
            found.append(Check("order_queue", "connected", watch.order_queue.connected,
                               int(watch.order_queue.connected), 1, "connections",
                               f"orders are not taken from Redis: {watch.order_queue.public}"))
        return found

    def _journal_checks(self) -> list[Check]:
        watch = self._watch
        found = [
            _check("journal", "commit_p99", _slowest_ms(watch.recent.spread("commit")), COMMIT_MS,
                   "ms", "one in a hundred commits took more than {value:.1f} ms"),
            _check("journal", "stuck", watch.stuck_ns / clock.NS_PER_MS, STUCK_MS, "ms",
                   "events have waited {value:.0f} ms for the disk"),
        ]
        room = SEGMENTS_ROOM * watch.config.journal.segment_bytes
        free = watch.disk_free_bytes
        if free >= 0:
            found.append(Check("journal", "disk_free", free >= room, free, room, "bytes",
                               f"{free} bytes of disk are free; {SEGMENTS_ROOM} segments take "
                               f"{room}"))
        return found

    def report(self) -> Health:
        """The whole report."""
        watch, checks = self._watch, self.checks()
        failed = [check for check in checks if not check.ok]
        bad = {check.part for check in failed}
        parts = Parts(
            order_entry=OrderEntryHealth(
                _state("order_entry", bad), watch.door.connection_count,
                watch.config.order_entry.connections_max, watch.sessions(),
                _state("order_entry_udp", bad) if watch.udp_door else "off",
                watch.udp_door.connection_count if watch.udp_door else 0),
            matcher=self._matcher(bad), journal=self._journal(bad), feed=self._feed(bad),
            api=ApiHealth("ok" if watch.api else "off",
                          watch.api.connection_count if watch.api else 0),
            loop=self._loop(bad), order_queue=self._order_queue(),
            redis=self._store("redis"), postgres=self._store("postgres"),
            sqlite=self._store("sqlite"))
        return Health(
            "degraded" if failed else "healthy", watch.serving(), parts.redis.state,
            parts.postgres.state, parts.sqlite.state, watch.config.venue.name, __version__,
            watch.journal.committed_seq, watch.uptime_s, clock.now_ns(),
            [check.message for check in failed], parts)

    def _matcher(self, bad: set[str]) -> MatcherHealth:
        watch = self._watch
        commands = watch.queues[0]
        return MatcherHealth(_state("matcher", bad), watch.matcher.next_seq - 1,
                             watch.matcher.resting_orders, commands.weight_units,
                             commands.limit_units)

    def _journal(self, bad: set[str]) -> JournalHealth:
        watch = self._watch
        journal, last = watch.journal, watch.metrics.get("commit")
        return JournalHealth(
            _state("journal", bad), watch.config.journal.sync, journal.committed_seq,
            journal.synced_seq, watch.matcher.next_seq - 1 - journal.committed_seq,
            _ms(last.last) if isinstance(last, Histogram) else 0.0,
            _ms(watch.recent.spread("commit").quantile(0.99)), watch.disk_free_bytes)

    def _feed(self, bad: set[str]) -> FeedHealth:
        watch = self._watch
        limit = watch.config.feed.clients_max
        if watch.feed is None:
            return FeedHealth("off", 0, limit, 0)
        return FeedHealth(_state("feed", bad), watch.feed_clients, limit,
                          watch.number("feed_clients_dropped"))

    def _loop(self, bad: set[str]) -> LoopHealth:
        lag = self._watch.recent.spread("loop_lag")
        return LoopHealth(_state("loop", bad), _ms(lag.quantile(0.99)), _ms(lag.quantile(1.0)))

    def _store(self, name: str) -> StoreHealth:
        stores = self._watch.stores
        follower = stores.followers.get(name) if stores is not None else None
        if follower is None:
            return StoreHealth("off")
        row = follower.row()
        return StoreHealth("connected" if follower.connected else "down", row["seq"],
                           row["lag_events"], row["lag_ms"], row["breaker"], row["failures"],
                           follower.public)

    def _order_queue(self) -> OrderQueueHealth:
        queue = self._watch.order_queue
        if queue is None:
            return OrderQueueHealth("off", "", 0, "")
        return OrderQueueHealth("connected" if queue.connected else "down", queue.kind,
                                queue.in_flight, queue.public)

    # -- routes --------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """`/health` and its two short forms."""
        return [
            _route("/health", self.health, Health, "The state of the venue and its parts",
                   "Always 200 while the process answers. `degraded` says that a check failed and "
                   "`reasons` which; the venue trades on."),
            _route("/health/live", self.live, Alive, "Whether the process answers"),
            _route("/health/ready", self.ready, Ready, "Whether orders are taken",
                   "503 while the venue starts or stops.", (503,)),
        ]

    async def health(self, call: Call) -> Reply:
        """`GET /health`."""
        now_ns = clock.monotonic_ns()
        if now_ns - self._made_ns >= KEEP_NS:
            self._reply = json_reply(self.report())
            self._made_ns = now_ns
        return Reply(200, self._reply.body)

    async def live(self, call: Call) -> Reply:
        """`GET /health/live`."""
        return Reply(200, self._alive)

    async def ready(self, call: Call) -> Reply:
        """`GET /health/ready`. Raises ApiError 503 when orders are not taken."""
        report = self.report()
        if not report.ready:
            raise ApiError(503, "not_ready", "the venue starts or stops: it takes no orders now",
                           headers=((b"retry-after", b"1"),))
        return json_reply(Ready(True, report.status, report.reasons))


def _route(path: str, handler: Handler, answer: type[msgspec.Struct], summary: str,
           description: str = "", errors: tuple[int, ...] = ()) -> Route:
    return Route(method="GET", path=path, handler=handler, answer=answer, summary=summary,
                 description=description, errors=errors, access=Access.PUBLIC, tag="Operations")


def _queue_check(queue: QueueView) -> Check:
    parts = {"commands": "matcher", "events": "journal", "reports": "order_entry"}
    return _check(parts.get(queue.name, "feed"), f"queue_{queue.name}", queue.weight_units,
                  QUEUE_PART * queue.limit_units, "units",
                  f"{{value:.0f}} of {queue.limit_units} units wait in the queue of {queue.name}")


def _store_checks(stores: StoresView) -> list[Check]:
    found = [Check(name, f"{name}_well", follower.well, int(follower.well), 1, "stores",
                   f"{name} takes nothing now: {follower.public}")
             for name, follower in stores.followers.items()]
    if found:
        found.append(Check("journal", "held_for_stores", not stores.alarm, int(bool(stores.alarm)),
                           1, "alarms", stores.alarm))
    return found


def _check(part: str, name: str, value: float, limit: float, unit: str, message: str) -> Check:
    return Check(part, name, value < limit, round(value, 3), round(limit, 3), unit,
                 message.format(value=value, limit=limit))


def _state(part: str, bad: set[str]) -> State:
    return "degraded" if part in bad else "ok"


def _slowest_ms(spread: Spread) -> float:
    """What one in a hundred exceeded, if there are enough to say so."""
    return _ms(spread.quantile(0.99)) if spread.count >= VALUES_MIN else 0.0


def _ms(value_ns: float) -> float:
    return round(value_ns / clock.NS_PER_MS, 3)

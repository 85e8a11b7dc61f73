"""Orders from Redis: entries of a list or a stream become commands, by the door of HTTP orders.

An entry is taken, done, and once that is durable acknowledged together with its answer. Many are
under way at once, so that what a commit costs is paid by all that it covers. After a crash, ours
or the server's, what was not acknowledged is taken again; the door sees what was done before.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from redis.exceptions import RedisError

from engine import clock, log
from engine.brief import brief
from engine.config import RedisConfig, StoresConfig
from engine.errors import EngineError, NotKeptError
from engine.intake.redis_queue import WAIT_S as READ_WAIT_S
from engine.intake.redis_queue import Done, Entry, Queue, find_queue, names_of, read_position
from engine.metrics import SIZES, Metrics
from engine.redis_errors import reason_of
from engine.redis_link import RedisLink
from engine.tasks import end_all

# Entries that are taken and not acknowledged yet, at most.
WINDOW = 4_000
# Answers of one transaction.
ANSWERS_MAX = 1_000
# How often a queue that is not there yet is looked for, and entries of another venue that is gone.
LOOK_S = 0.05
TAKE_OVER_S = 15.0
# Of an entry that nothing else names, so much is shown in its answer.
RAW_MAX = 1_024
# A write to a connection that was closed just now is a RuntimeError of uvloop's.
TROUBLES = (OSError, RedisError, EngineError, RuntimeError)


class Planned(Protocol):
    """What the door made of an entry."""

    @property
    def op(self) -> str: ...
    @property
    def lane(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def mark(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def client_order_id(self) -> str: ...


class Door(Protocol):
    """Where orders go in."""

    def plan(self, fields: dict[str, Any], entry_id: str, texts: bool) -> Any:
        """Look at an entry; returns a Planned."""

    def unreadable(self, problem: str) -> Any:
        """The Planned of an entry that cannot be read."""

    async def ready(self, planned: Any) -> None:
        """Wait until the entry's account can trade."""

    async def do(self, planned: Any, done_seq: int = 0) -> tuple[int, bytes, bool]:
        """Do it: status, body, and whether it was done before."""

    def position(self) -> tuple[str, int]:
        """The log's name and its newest event."""

    async def look_back(self, marks: Collection[str], after_seq: int) -> dict[str, int]:
        """Which marks are in the log behind `after_seq`. Raises NotKeptError."""


class Commands(Protocol):
    """The queue of commands, as far as it makes us wait."""

    def full(self) -> bool:
        """Whether there is no room."""

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back once when there is."""


class Taken:
    """An entry on its way. It was not done at or before the event `after_seq`, and if it was taken
    before, `done_seq` is where the log has it."""

    __slots__ = ("after_seq", "done_seq", "entry", "planned", "reply", "started_ns")

    def __init__(self, entry: Entry, planned: Planned, after_seq: int, done_seq: int) -> None:
        self.entry, self.planned = entry, planned
        self.after_seq, self.done_seq = after_seq, done_seq
        self.started_ns = clock.monotonic_ns()
        self.reply: dict[str, str | bytes | int] = {}


class Lane:
    """The entries of one account: begun in their order, and together as far as that allows.

    Orders go to the matcher in their order anyway. A cancel or a change looks at its order first,
    so it waits until that is durable, and what comes behind it waits with it."""

    def __init__(self, door: Door, start: Callable[[Taken], asyncio.Task[None]]) -> None:
        self._door, self._start = door, start
        self._waiting: deque[Taken] = deque()
        self._runner: asyncio.Task[None] | None = None
        # What is under way, by the orders that it names; and the newest change of any.
        self._named: dict[str, asyncio.Task[None]] = {}
        self._change: asyncio.Task[None] | None = None
        self._stopped = False

    def add(self, taken: Taken) -> None:
        """The next entry."""
        if self._stopped:
            return
        self._waiting.append(taken)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.get_running_loop().create_task(self._run(), name="lane")

    def stop(self) -> None:
        """Begin nothing more: what was taken behind an entry that is left undone must not be done
        before it."""
        self._stopped = True
        self._waiting.clear()
        if self._runner is not None:
            self._runner.cancel()

    async def _run(self) -> None:
        while self._waiting:
            taken = self._waiting[0]
            await self._door.ready(taken.planned)
            if taken.planned.op != "enter":
                await self._clear(taken.planned)
            self._waiting.popleft()
            self._begin(taken)

    async def _clear(self, planned: Planned) -> None:
        """Wait until what the entry is about is done: its order, and a change, which may give the
        order another id."""
        while True:
            before = [task for task in (self._change, *map(self._named.get, planned.names))
                      if task is not None and not task.done()]
            if not before:
                return
            await asyncio.wait(before)

    def _begin(self, taken: Taken) -> None:
        task = self._start(taken)
        if taken.planned.op == "change":
            self._change = task
        for name in taken.planned.names:
            self._named[name] = task
        task.add_done_callback(lambda done: self._forget(taken.planned.names, done))

    def _forget(self, names: Iterable[str], task: asyncio.Task[None]) -> None:
        for name in names:
            if self._named.get(name) is task:
                del self._named[name]
        if self._change is task:
            self._change = None


class OrderMetrics:
    """What is counted."""

    def __init__(self, metrics: Metrics, orders: RedisOrders) -> None:
        counter, gauge = metrics.counter, metrics.gauge
        self.entries = counter("redis_orders", "entries",
                               "entries taken from the order queue in Redis")
        self.again = counter("redis_orders_again", "entries", "entries of the order queue that "
                             "were taken again: a crash had come before their answer")
        self.refused = counter("redis_orders_refused", "entries",
                               "entries of the order queue that were answered with an error")
        self.pauses = counter("redis_orders_pauses", "pauses", "how often the order queue was not "
                              "read because the venue was behind")
        self.failures = counter("redis_orders_failures", "failures",
                                "how often the order queue could not be read or answered")
        self.reads = metrics.histogram("redis_orders_read", "entries",
                                       "entries of the order queue out of one read", SIZES)
        self.times = metrics.histogram("redis_orders_time", "ns", "from the read of an entry of "
                                       "the order queue until its answer is in Redis")
        gauge("redis_orders_in_flight", "entries", "entries of the order queue that are taken "
              "and not acknowledged yet", lambda: orders.in_flight)
        gauge("redis_orders_connected", "connections", "1 while the order queue is served",
              lambda: int(orders.connected))


class RedisOrders:
    """Serves the configured queue. `consumer` names this venue's log in a stream's group."""

    def __init__(self, config: RedisConfig, stores: StoresConfig, consumer: str, door: Door,
                 commands: Commands, metrics: Metrics) -> None:
        self._config, self._stores, self._consumer = config, stores, consumer
        self._door, self._commands = door, commands
        self._link = RedisLink(config, READ_WAIT_S)
        self._names = names_of(config)
        self._lanes: dict[str, Lane] = {}
        # Everything taken and not acknowledged; what of it is done; what is being acknowledged.
        self._taken: dict[Taken, None] = {}
        self._done: deque[Taken] = deque()
        self._acking: list[Taken] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._stopping = False
        # Set when there is something to acknowledge; when there may be room to read.
        self._answered, self._room = asyncio.Event(), asyncio.Event()
        self._log = log.get("intake")
        # What health and metrics show: "" before the queue was found.
        # `error` is all that is known, `public` what anybody may be told of it.
        self.connected, self.kind = False, ""
        self.error = self.public = "not connected yet"
        self._metrics = OrderMetrics(metrics, self)

    @property
    def in_flight(self) -> int:
        """Entries that are taken and not acknowledged."""
        return len(self._taken)

    # -- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve for ever; what goes wrong with the server is tried again later."""
        wait_ms = self._stores.retry_min_ms
        try:
            while True:
                try:
                    await self._session()
                    continue
                except TROUBLES as error:
                    if self.connected:
                        wait_ms = self._stores.retry_min_ms
                    self._lost(error)
                except Exception as error:
                    # A mistake of ours, or of the client's: trading does not stop for it.
                    self._log.exception("the order queue failed", key="order queue")
                    self._lost(error)
                await asyncio.sleep(wait_ms / 1_000 * random.uniform(0.5, 1.0))
                wait_ms = min(2 * wait_ms, self._stores.retry_max_ms)
        finally:
            self._drop_all()
            await self._link.close()

    def stop(self) -> None:
        """Take nothing more; what is under way goes on. The first step of draining."""
        self._stopping = True
        if self._reader is not None:
            self._reader.cancel()
        for lane in self._lanes.values():
            lane.stop()

    async def finish(self) -> None:
        """Once the venue has answered everything: wait, for a bounded time, until the answers are
        in Redis. What is not is taken again after the next start."""
        deadline_s = clock.monotonic_s() + self._stores.drain_ms / 1_000
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline_s - clock.monotonic_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline_s - clock.monotonic_s())):
                while (self._done or self._acking) and self.connected:
                    self._room.clear()
                    await self._room.wait()
        if self._taken:
            self._log.info("entries of the order queue are left for the next start",
                           entries=len(self._taken))

    def _drop_all(self) -> None:
        """Nothing is acknowledged any more."""
        self._stopping, self.connected = True, False
        self._done.clear()
        for lane in self._lanes.values():
            lane.stop()
        for task in self._tasks:
            task.cancel()

    def _lost(self, error: BaseException) -> None:
        self._metrics.failures.add()
        self.connected, self.kind = False, ""
        self.error, self.public = str(error), brief(error)
        if not isinstance(error, EngineError):
            self.error = f"Redis at {self._link.place.where}: {reason_of(error)}"
        self._log.warning("orders are not taken from Redis", server=str(self._link.place),
                          queue=self._names.queue, error=self.error, key="order queue")

    # -- one connection --------------------------------------------------------------------------

    async def _session(self) -> None:
        """From connecting to trouble, which is raised; returns to look anew at what is there."""
        await self._link.open()
        queue = await self._found()
        await queue.open()
        again = await self._recover(queue)
        if self.kind != queue.kind:
            self._log.info("orders are taken from Redis", server=str(self._link.place),
                           queue=self._names.queue, kind=queue.kind, again=again)
        self.connected, self.kind, self.error, self.public = True, queue.kind, "", ""
        acker = asyncio.create_task(self._acknowledge(queue), name="answers to Redis")
        self._reader = asyncio.create_task(self._read(queue), name="orders from Redis")
        tasks = (self._reader, acker)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping and not acker.done():
                await acker
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await end_all(tasks)

    async def _found(self) -> Queue:
        while True:
            queue = await find_queue(self._link, self._config, self._consumer)
            if queue is not None:
                return queue
            # Nobody has written to it yet: its type is the first producer's choice.
            if not self.connected:
                self._log.info("the order queue is not there yet", queue=self._names.queue)
            self.connected, self.kind, self.error, self.public = True, "", "", ""
            await asyncio.sleep(LOOK_S)

    async def _recover(self, queue: Queue) -> int:
        """Compare what the server holds as taken with what we do: some of ours may have been
        acknowledged, their answer lost; what we don't know is from before a crash. Returns how
        many those are."""
        name, seq = self._door.position()
        position = await read_position(self._link, self._config, f"{name} {seq}")
        left = await queue.left_over()
        held = Counter(entry.key for entry in left)
        ours = Counter(taken.entry.key for taken in self._taken)
        for taken in reversed(self._acking):
            key = taken.entry.key
            if held[key] < ours[key]:
                ours[key] -= 1
                del self._taken[taken]
            else:
                self._done.appendleft(taken)
        self._acking = []
        unknown = []
        for entry in left:
            if ours[entry.key] > 0:
                ours[entry.key] -= 1
            else:
                unknown.append(entry)
        if unknown and not self._stopping:
            # A seq of another log, or of one that was cut, says nothing here.
            known, _, text = position.partition(" ")
            await self._begin_again(unknown, int(text) if known == name else 0)
        return len(unknown)

    async def _begin_again(self, entries: list[Entry], after_seq: int) -> None:
        self._metrics.again.add(len(entries))
        plans = [self._plan(entry) for entry in entries]
        marks = {planned.mark for planned in plans if planned.op != "enter" and planned.mark}
        try:
            seqs = await self._door.look_back(marks, after_seq)
        except NotKeptError as error:
            self._log.warning("cancels and changes of the order queue may be done again",
                              entries=len(marks), reason=str(error))
            seqs = {}
        for entry, planned in zip(entries, plans, strict=True):
            self._begin(Taken(entry, planned, after_seq, seqs.get(planned.mark, 0)))

    # -- reading ---------------------------------------------------------------------------------

    async def _read(self, queue: Queue) -> None:
        look_s = clock.monotonic_s() + TAKE_OVER_S
        while not self._stopping:
            await self._has_room()
            entries = await queue.take()
            if entries and not self._stopping:
                self._metrics.entries.add(len(entries))
                self._metrics.reads.observe(len(entries))
                after_seq = self._door.position()[1]
                for entry in entries:
                    self._begin(Taken(entry, self._plan(entry), after_seq, 0))
            if clock.monotonic_s() >= look_s:
                look_s += TAKE_OVER_S
                if not {taken.entry.key for taken in self._taken}.issuperset(
                        await queue.taken_over()):
                    return

    async def _has_room(self) -> None:
        """Wait while the matcher is behind, or too many entries are under way."""
        if not self._commands.full() and len(self._taken) < WINDOW:
            return
        self._metrics.pauses.add()
        while self._commands.full() or len(self._taken) >= WINDOW:
            self._room.clear()
            if self._commands.full():
                self._commands.when_room(self._room.set)
            await self._room.wait()

    def _plan(self, entry: Entry) -> Planned:
        plan: Planned = (self._door.unreadable(entry.problem) if entry.fields is None
                         else self._door.plan(entry.fields, entry.entry_id, entry.texts))
        return plan

    def _begin(self, taken: Taken) -> None:
        self._taken[taken] = None
        name = taken.planned.lane
        if not taken.planned.op:
            self._start(taken)
            return
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self._door, self._start)
        lane.add(taken)

    # -- doing -----------------------------------------------------------------------------------

    def _start(self, taken: Taken) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._do(taken))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _do(self, taken: Taken) -> None:
        if not self._stopping:
            status, body, again = await self._door.do(taken.planned, taken.done_seq)
            # While stopping: not done, or not known to be. It stays in Redis until we are back.
            if status < 500 or not self._stopping:
                self._answer(taken, status, body, again)

    def _answer(self, taken: Taken, status: int, body: bytes, again: bool) -> None:
        if status >= 400:
            self._metrics.refused.add()
        planned, entry = taken.planned, taken.entry
        reply: dict[str, str | bytes | int] = {"status": status, "body": body}
        for name, value in (("entry", entry.entry_id), ("request_id", planned.request_id),
                            ("account", planned.lane), ("op", planned.op),
                            ("client_order_id", planned.client_order_id)):
            if value:
                reply[name] = value
        if again:
            reply["again"] = "true"
        if not entry.entry_id and not planned.op:
            reply["raw"] = entry.key[:RAW_MAX]
        taken.reply = reply
        self._done.append(taken)
        self._answered.set()

    # -- acknowledging ---------------------------------------------------------------------------

    async def _acknowledge(self, queue: Queue) -> None:
        while True:
            while not self._done:
                self._answered.clear()
                await self._answered.wait()
            self._acking = batch = [self._done.popleft()
                                    for _ in range(min(len(self._done), ANSWERS_MAX))]
            await queue.acknowledge([Done(one.entry.key, one.reply) for one in batch],
                                    self._position(batch))
            self._acking = []
            now_ns = clock.monotonic_ns()
            for one in batch:
                del self._taken[one]
                self._metrics.times.observe(now_ns - one.started_ns)
            self._room.set()

    def _position(self, batch: list[Taken]) -> str:
        """Behind which event everything is that will be taken and not acknowledged by then."""
        name, seq = self._door.position()
        gone = set(batch)
        first = min((one.after_seq for one in self._taken if one not in gone), default=seq)
        return f"{name} {first}"

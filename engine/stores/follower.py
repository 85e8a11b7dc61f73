"""The loop that feeds one store: batches, positions, retries, the breaker, catching up.

    connect -> read the position -> write what follows, in whole commands, for ever
       ^                                   |
       |  wait, longer with every failure  |  down, or the position is not where it was
       +-----------------------------------+

The position comes from the store after every connect, never from memory: what a lost answer left
behind is told by the store itself. After any failure the log is read from there on. A store that
can't go on is stopped, with one error; the venue never is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cython_core.event import EventBatch
from engine import clock, log
from engine.breaker import Breaker, State
from engine.brief import brief
from engine.config import StoresConfig
from engine.errors import EngineError, JournalError, NotKeptError, StoreError
from engine.stores.age import Age
from engine.stores.beginning import Beginning
from engine.stores.meters import Meters
from engine.stores.pace import Pace, rest_ns
from engine.stores.store import (
    Position,
    Store,
    StoreDown,
    StoreMoved,
    StoreRefused,
    StoreStopped,
    Work,
)
from engine.stores.supply import Past, Supply, count, first_command_end, last_seq, take_slice
from engine.stores.tail import Tail

# A store that wants to be called all the time is called so often.
DUE_MIN_NS = clock.NS_PER_MS
# While nothing happens a store is asked so often whether it is still there, and where it was: or a
# quiet venue would call a dead server connected, and leave an emptied one empty.
LOOK_NS = 5 * clock.NS_PER_S


class Log(Protocol):
    """The journal, as far as stores know it."""

    log_id: bytes

    @property
    def incarnation(self) -> int:
        """One more for each time that a tail was cut."""

    @property
    def committed_seq(self) -> int:
        """The newest durable event."""

    def new_past(self) -> Past:
        """The log for one thread of our own."""

    def hold(self, name: str, seq: int) -> None:
        """Keep the events from `seq` on, 0 for all, until told otherwise."""

    async def hold_all(self, name: str) -> None:
        """Keep all; what there is when this returns stays."""


class Follower:
    """Feeds one store; `run` never raises but for its cancellation.

    `make` makes the store when it is first needed. `trading` says whether the venue has work of
    its own. Everything that others read of it is plain values."""

    def __init__(self, name: str, make: Callable[[], Store], journal: Log, tail: Tail,
                 config: StoresConfig, meters: Meters, trading: Callable[[], bool]) -> None:
        self.name, self._make, self._config = name, make, config
        self._journal, self._tail, self._trading = journal, tail, trading
        self.meters = meters
        self.supply = Supply(name, journal.new_past(), tail)
        self.breaker = Breaker(config.breaker_failures, config.retry_min_ms * clock.NS_PER_MS,
                               config.retry_max_ms * clock.NS_PER_MS)
        self.pace = Pace(1, 1)
        self._age = Age(clock.monotonic_ns())
        self.store: Store | None = None
        self.position = Position(journal.log_id, journal.incarnation, 0)
        self.state = "connecting"
        # Why the store is stopped or down, "" while it is well: all of it, and what anybody may
        # be told.
        self.error = self.public = ""
        # What an empty store has to be told with its first events.
        self._beginning: Beginning | None = None
        self._bell = asyncio.Event()
        self._draining = self._look_again = self._anew = self._shown = False
        self._log = log.get("stores")
        # From where on the journal is kept for it.
        self.holds_seq = 0
        self._hold(0)

    # -- what others see and ask -----------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether it takes what comes."""
        return self.state == "connected" and not self.breaker.failures

    @property
    def well(self) -> bool:
        """Whether nobody has to look: it works, or has just begun to."""
        return self.state != "stopped" and self.breaker.state is State.CLOSED

    @property
    def lag_events(self) -> int:
        """Durable events that the store has not."""
        return max(0, self._tail.last_seq - self.position.seq)

    @property
    def lag_ms(self) -> int:
        """How old the oldest durable event is that it has not, to about a quarter of a second; 0
        when it has all."""
        if self.connected and not self.lag_events:
            return 0
        return (clock.monotonic_ns() - self._age.level_ns) // clock.NS_PER_MS

    def note_end(self) -> None:
        """Note where the log ends now, and since when the store has what it has."""
        self._age.ends(self._tail.last_seq, clock.monotonic_ns())
        if self.connected:
            self._age.has(self.position.seq)

    def facts(self) -> Mapping[str, object]:
        """What the store tells of itself."""
        try:
            return self.store.facts() if self.store is not None else {}
        except Exception as error:
            # Whoever asks is not to suffer for it.
            return {"facts": f"{type(error).__name__}: {error}"}

    def look_again(self) -> None:
        """Read the position again: somebody changed the store. A stopped one tries again."""
        self._look_again = True
        self._bell.set()

    def rebuild(self) -> None:
        """Empty the store and fill it again from the log."""
        self._anew = True
        self.look_again()

    def drain(self) -> None:
        """Nothing more comes: write what waits and end. Without a connection it ends at once."""
        self._draining = True
        self._bell.set()

    # -- the life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is drained."""
        while not self._draining:
            try:
                await self._live()
            except StoreStopped as error:
                self._stop(error)
            except NotKeptError as error:
                self._stop(StoreStopped(str(error), "what this store needs of the log is gone",
                                        "what it needs of the log is gone"))
            except StoreMoved as error:
                self._log.warning("store: somebody else moved its position", key=self.name,
                                  store=self.name, reason=str(error))
                await self._failed(error)
            except (StoreError, JournalError) as error:
                await self._failed(error)
            except OSError as error:
                await self._failed(StoreDown(f"{type(error).__name__}: {error}",
                                             public=brief(error)))
            except Exception as error:
                self._stop(StoreStopped(f"{type(error).__name__}: {error}",
                                        "a mistake of ours: please report it",
                                        "a mistake of matchd"), trace=error)
            finally:
                self.supply.stop()
                await self._close_store()
            if self.state == "stopped":
                await self._until_asked()

    async def close(self) -> None:
        """Let go of everything."""
        self.supply.close()
        await self._close_store()

    async def _close_store(self) -> None:
        if self.store is not None:
            try:
                await self.store.close()
            except Exception as error:
                self._log.warning("store could not be closed", store=self.name,
                                  reason=f"{type(error).__name__}: {error}")

    def _stop(self, error: EngineError, trace: Exception | None = None) -> None:
        self.state, self.error = "stopped", str(error)
        self.public = f"stopped: {brief(error)}"
        self.meters.errors.add()
        self._log.error("store stopped", store=self.name, reason=error.detail, hint=error.hint,
                        seq=self.position.seq, exc_info=trace)

    async def _failed(self, error: EngineError) -> None:
        """Wait, according to how often it failed before."""
        self.meters.errors.add()
        was = self.breaker.state
        wait_ns = self.breaker.failed(random.random())
        self.pace.failed()
        if not self.error:
            self._log.warning("store down", store=self.name, reason=error.detail,
                              hint=error.hint)
        elif was is State.CLOSED and self.breaker.state is State.OPEN:
            self._log.error("store left alone for a while", store=self.name, reason=error.detail,
                            failures=self.breaker.failures)
        self.state, self.error, self.public = "down", str(error), brief(error)
        self.supply.stop()
        deadline_ns = clock.monotonic_ns() + wait_ns
        while not (self._draining or self._look_again):
            left_ns = deadline_ns - clock.monotonic_ns()
            if left_ns <= 0:
                break
            await self._listen(left_ns)
        self.breaker.waited()

    def _hold(self, seq: int) -> None:
        self.holds_seq = seq
        self._journal.hold(self.name, seq)

    async def _hold_all(self) -> None:
        self.holds_seq = 0
        await self._journal.hold_all(self.name)

    async def _until_asked(self) -> None:
        while not (self._draining or self._look_again):
            await self._listen(0)
        self.state, self._look_again = "connecting", False

    async def _listen(self, wait_ns: int, seq: int = 0) -> None:
        """Until somebody rings, the log reaches `seq`, or the time is over; 0 is no such end."""
        self._bell.clear()
        if seq:
            self._tail.when(seq, self._bell.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_ns / clock.NS_PER_S if wait_ns else None):
                await self._bell.wait()
        if seq:
            self._tail.forget(self._bell.set)

    # -- one connection --------------------------------------------------------------------------

    async def _live(self) -> None:
        """Connect, then write until something fails or all is drained."""
        if self.store is None:
            self.store = await asyncio.to_thread(self._make)
            self.pace = Pace(self.store.batch_interval_ms, self.store.max_batch_size)
        self._look_again = False
        store = self.store
        if self._anew:
            await self._empty(store)
        self.position = await self._open(store)
        self._hold(store.safe_seq(self.position.seq))
        self.supply.start(self.position.seq)
        self.state = "connected"
        if not self.supply.waiting:
            self._went_well()
        while await self._until_due(store):
            if self._look_again:
                return
            await self._write_next(store)

    async def _empty(self, store: Store) -> None:
        await self._hold_all()
        if store.wants_beginning:
            try:
                # Nothing is emptied that can't be filled again.
                await self._begin()
            except StoreStopped:
                self._anew = False
                raise
        self._log.warning("store is emptied, to be filled from the log", store=self.name)
        await store.reset()
        self._anew = False

    async def _begin(self) -> Beginning | None:
        """What was there before the first event that is kept. Raises StoreStopped."""
        try:
            return await self.supply.beginning()
        except NotKeptError as error:
            raise StoreStopped(error.detail, "markets and accounts of before are not known, so an "
                               "empty store can't be filled; the next snapshot that is made mends "
                               f"it, then `matchd store rebuild {self.name}`",
                               "no snapshot says what was before the log's beginning") from error

    async def _open_empty(self, store: Store) -> int:
        """The seq behind which an empty store begins."""
        await self._hold_all()
        if not store.wants_beginning:
            oldest = await self.supply.oldest_seq()
            if oldest > 1:
                self._log.warning("store begins with the oldest event that is kept",
                                  store=self.name, seq=oldest)
            return oldest - 1
        self._beginning = beginning = await self._begin()
        if beginning is None:
            return 0
        self._log.warning("store begins with the oldest event that is kept", store=self.name,
                          seq=beginning.seq, orders=len(beginning.tables["orders"]),
                          state_seq=beginning.state_seq,
                          hint="history is whole from there, positions and candles count from "
                          "there; orders of before are there if they still rested at state_seq")
        return beginning.seq - 1

    async def _open(self, store: Store) -> Position:
        """Connect; where the store stands, if it fits our log."""
        journal = self._journal
        end = Position(journal.log_id, journal.incarnation, journal.committed_seq)
        found = await store.open(end)
        self._beginning = None
        if found is None:
            return end._replace(seq=await self._open_empty(store))
        if found.log_id != journal.log_id:
            raise StoreStopped(
                f"it belongs to the log {found.log_id.hex()}, ours is {journal.log_id.hex()}",
                f"give each venue its own, or `matchd store rebuild {self.name}`",
                "another log")
        lost = found.seq > end.seq
        if not lost and found.seq and found.incarnation != end.incarnation:
            lost = await self.supply.incarnation_at(found.seq) > found.incarnation
        if lost:
            raise StoreStopped(
                f"it holds events up to {found.seq} that the log lost (it ends at {end.seq})",
                f"`matchd store rebuild {self.name}` makes it anew from the log",
                "it holds events that the log lost")
        return found

    async def _until_due(self, store: Store) -> bool:
        """Wait until there is something to do; False when all is drained."""
        ended_ns = clock.monotonic_ns()
        while not self._look_again:
            now_ns, waiting = clock.monotonic_ns(), self.supply.waiting
            wait_ns = 0
            if waiting:
                wait_ns = self.pace.due_in_ns(waiting, now_ns)
                if not wait_ns or self._draining:
                    return True
            due_ns = store.due_ns()
            if self._draining and not waiting:
                # What is due in a moment is shown before the end, once.
                soon_ns = now_ns + 2 * store.batch_interval_ms * clock.NS_PER_MS
                if self._shown or not 0 < due_ns < soon_ns:
                    return False
            look_ns = ended_ns + LOOK_NS
            due_in_ns = max(min(due_ns or look_ns, look_ns), ended_ns + DUE_MIN_NS) - now_ns
            if due_in_ns <= 0:
                self._shown = self._draining
                return True
            wait_ns = min(wait_ns or due_in_ns, due_in_ns)
            more = self.pace.size if waiting else 1
            await self._listen(wait_ns, self.supply.given_seq + more)
        return True

    async def _write_next(self, store: Store) -> None:
        """One write, and a rest behind it when there is much to do and the venue trades."""
        started_ns = clock.monotonic_ns()
        self.pace.begins(started_ns)
        self._age.ends(self._tail.last_seq, started_ns)
        batches = await self.supply.take(self.pace.limit)
        await self._write(store, batches)
        took_ns = clock.monotonic_ns() - started_ns
        self.pace.wrote(count(batches))
        self._went_well()
        if self.supply.waiting >= self.pace.limit and not self._draining:
            rest = rest_ns(took_ns, self._config.cpu_share) if self._trading() else 0
            # A turn for the loop in any case.
            await asyncio.sleep(rest / clock.NS_PER_S)

    async def _write(self, store: Store, batches: list[EventBatch]) -> None:
        before = self.position
        after = self._behind(batches) if batches else before
        started_ns = clock.monotonic_ns()
        only_looks = not batches and not 0 < store.due_ns() <= started_ns
        try:
            await store.write(Work(batches, before, after, self.supply.live, self._beginning))
        except StoreRefused as error:
            await self._bisect(store, batches, error)
            return
        if only_looks:
            return
        self.meters.wrote(count(batches), clock.monotonic_ns() - started_ns)
        if batches:
            self._beginning = None
        self.position = after
        self._hold(store.safe_seq(after.seq))

    def _behind(self, batches: list[EventBatch]) -> Position:
        journal = self._journal
        return Position(journal.log_id, journal.incarnation, last_seq(batches[-1]))

    async def _bisect(self, store: Store, batches: list[EventBatch], error: StoreRefused) -> None:
        """Write what is good of a refused run; raises StoreStopped at the command that is not."""
        events = count(batches)
        if not batches or first_command_end(batches[0]) == last_seq(batches[-1]):
            raise StoreStopped(f"it refuses {_named(batches)}: {error.detail}",
                               error.hint or "the events before it are stored, none behind it is; "
                               "nothing is skipped", f"it refuses {_named(batches)}") from error
        pending = deque(batches)
        while pending:
            await self._write(store, take_slice(pending, max(1, events // 2)))

    def _went_well(self) -> None:
        if self.error:
            self._log.info("store is back", store=self.name, seq=self.position.seq)
        self.error = self.public = ""
        self.breaker.succeeded()
        self.note_end()

    def row(self) -> dict[str, Any]:
        """All that is told about it, in health and status."""
        state = "down" if self.state == "connected" and self.breaker.failures else self.state
        return {"state": state, "seq": self.position.seq, "lag_events": self.lag_events,
                "lag_ms": self.lag_ms,
                "breaker": self.breaker.state.name.lower(), "failures": self.breaker.failures,
                "batch_size": self.pace.size, "error": self.error, "rebuilding": self._anew,
                **self.facts()}


def _named(batches: list[EventBatch]) -> str:
    """The command of these events, in words."""
    if not batches:
        return "a write without events"
    first, last = batches[0], last_seq(batches[-1])
    kind = first.dicts()[0]["kind"]
    if last == first.first_seq:
        return f"event {last} ({kind})"
    return f"the events {first.first_seq} to {last}, one command ({kind})"

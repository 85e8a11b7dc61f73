"""The journal stage: event batches go in, durable event batches come out.

Everything that waits becomes one block and one sync, so the cost of the disk is shared by all
that came while the disk was busy. The next block is written only after the sync of the one before
returned; while it is under way, the loop matches on and hands out what was committed before.

A small group on a quick disk is written and synced in the loop itself: for one order at a time,
two hand-overs between threads cost more than they win.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cython_core import record
from cython_core.event import EventBatch
from cython_core.model import EVENT_LAYOUT_VERSION, MATCHER_SEMANTICS_VERSION
from cython_core.stream import Streams, WireNames
from engine import clock, log
from engine.config import Config
from engine.errors import DiskError
from engine.journal import beside
from engine.journal.commit import Group, LogWriter
from engine.journal.identity import session_id
from engine.journal.memory import MemoryLog
from engine.journal.past import FilePast
from engine.journal.reader import cursor_before, read_header
from engine.journal.recovery import Progress, State, recover, silent, write_index
from engine.journal.segment import (
    FOLDER,
    UNIT_BYTES,
    make_segment,
    remove_segments,
    segment_numbers,
    whole_pages,
)
from engine.journal.snapshot import FOLDER as SNAPSHOT_FOLDER
from engine.journal.snapshot import oldest_segment_needed
from engine.journal.snapshotter import Snapshotter
from engine.journal.storage import FileStorage, Storage
from engine.journal.streams import StreamReader
from engine.metrics import SIZES, Histogram, Metrics
from engine.queues import BatchQueue, Sink

if TYPE_CHECKING:
    from cython_core.matcher import Matcher

# A group of up to so many units is synced in the loop, if the disk answers within the time
# below; after a slower sync the thread does it for the next so many groups.
INLINE_UNITS_MAX = 32
INLINE_NS_MAX = 400_000
INLINE_REST_GROUPS = 1_000
# The same for a write into the page cache alone (journal.sync "interval"), which is a copy.
INLINE_LAZY_UNITS_MAX = 1_024


class Recovered(NamedTuple):
    """What a start found. `streams` are the accounts' next message numbers; `notes` are lines to
    log; `replayed` counts the events applied after the snapshot at `snapshot_seq`."""

    journal: Journal | MemoryLog
    matcher: Matcher
    log_id: bytes
    incarnation: int
    generation: int
    streams: dict[int, int]
    notes: list[str]
    snapshot_seq: int
    replayed: int


class JournalStats:
    """What the stage counted since the start."""

    def __init__(self) -> None:
        self.groups_inline = 0
        self.units = 0
        self.segments = 0
        self.commit = Histogram("commit", "ns", "from the write of a group of batches to its "
                                "being durable (in the page cache with journal.sync interval)")
        self.group_units = Histogram("commit_units", "units", "64-byte units in one commit",
                                     bounds=SIZES)

    def publish(self, journal: Journal, metrics: Metrics) -> None:
        """Have all of it published."""
        metrics.register(self.commit)
        metrics.register(self.group_units)
        counter, gauge = metrics.counter, metrics.gauge
        counter("commit_inline", "commits", "groups that were written in the loop itself",
                lambda: self.groups_inline)
        counter("journal_written", "bytes", "bytes of events written to the log",
                lambda: self.units * UNIT_BYTES)
        counter("journal_segments", "segments", "segments that were begun", lambda: self.segments)
        gauge("synced_seq", "events", "seq of the newest event that is known to be on disk",
              lambda: journal.synced_seq)
        gauge("journal_segment", "segments", "number of the open segment",
              lambda: journal.counted.segment)
        gauge("journal_segment_used", "bytes", "bytes of the open segment that are written",
              lambda: journal.counted.offset)
        counter("snapshots", "snapshots", "snapshots put in place", lambda: journal.snapshots.count)
        gauge("snapshot_seq", "events", "seq of the newest snapshot", lambda: journal.snapshot_seq)
        gauge("snapshot_pause", "ns", "how long trading stood still for the last snapshot",
              lambda: journal.snapshot_pause_ns)

    def committed(self, group: Group, took_ns: int, inline: bool) -> None:
        """Count one group."""
        self.groups_inline += inline
        self.units += group.units
        self.commit.observe(took_ns)
        self.group_units.observe(group.units)


def new_matcher() -> Matcher:
    """A matcher without instruments and accounts."""
    from cython_core.matcher import Matcher
    return Matcher()


def load_matcher(data: memoryview) -> Matcher:
    """The matcher that a snapshot holds."""
    from cython_core.matcher import Matcher
    return Matcher.load(data)


class Journal:
    """The log of one venue, open for writing. Get one from `Journal.open`."""

    def __init__(self, config: Config, storage: Storage, state: State) -> None:
        self._config = config.journal
        self._storage = storage
        self._sync = self._config.sync == "commit"
        self.log_id = state.log_id
        self.stats = JournalStats()

        # The end of the log, and how far it is known to be on disk and to the rest of the venue.
        self._log = LogWriter(storage, state.log_id, state.cursor, state.matcher.last_time_ns,
                              self._config.segment_bytes, not self._sync)
        self.committed_seq = state.cursor.next_seq - 1
        self._closed = state.closed
        self._failed = False
        self._inline_rest = 0

        # journal.sync "interval": the page cache is synced beside the writing.
        self._syncer = storage.writer()
        self._sync_lock = asyncio.Lock()
        self._interval: asyncio.Task[None] | None = None

        # What was committed: where its messages are.
        self.index = state.streams
        self.counted = state.cursor
        self._names = WireNames()
        for instrument_id, instrument in state.matcher.instruments().items():
            self._names.define(instrument_id, instrument["wire_symbol"])
        self._learner = Streams(self._names)
        self._streams = StreamReader(storage, self.index, self.log_id, self._names, self._end_of,
                                     self._note)
        self.past = self.new_past()
        self.snapshots = Snapshotter(storage, state.log_id, 1 + self._config.snapshots_kept,
                                      state.snapshot_seq, self._note, self._snapshot_written)
        # Who needs old events, and from which seq on; segments that are kept for them alone.
        self._holds: dict[str, int] = {}
        self.held_segments = 0
        self._running = False
        self._placing = False
        self._retiring = asyncio.Lock()
        self._abandoned = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- start -------------------------------------------------------------------------------

    @staticmethod
    def open(config: Config, storage: Storage | None = None,
             data_dir: str | Path | None = None, progress: Progress = silent) -> Recovered:
        """Recover the state in the data directory, or begin a new log, and lock it for writing.

        With journal.sync "off" there is nothing to recover. `progress` is told how far it is.
        Raises JournalCorrupt for damage to what was on disk, DiskError when the disk fails,
        JournalError when the directory is in use.
        """
        if config.journal.sync == "off":
            return _open_memory(config)
        if storage is None:
            storage = FileStorage(config.data_dir if data_dir is None else data_dir)
        try:
            for folder in (FOLDER, SNAPSHOT_FOLDER):
                storage.make_folder(folder)
            storage.lock()
        except OSError as error:
            raise _disk_error("the data directory can't be used", error) from error
        try:
            return _open_log(config, storage, progress)
        except OSError as error:
            storage.unlock()
            raise _disk_error("the journal can't be opened", error) from error
        except BaseException:
            storage.unlock()
            raise

    @property
    def incarnation(self) -> int:
        """The log's incarnation: one more for each time that a tail was cut."""
        return self._log.cursor.incarnation

    @property
    def synced_seq(self) -> int:
        """The highest seq that is known to be on disk."""
        return self._log.synced_seq

    @property
    def snapshot_seq(self) -> int:
        """The seq of the newest snapshot in place; 0 without any."""
        return self.snapshots.newest_seq

    @property
    def snapshot_pause_ns(self) -> int:
        """How long trading stood still for the last snapshot."""
        return self.snapshots.pause_ns

    def session_id(self, generation: int) -> str:
        """The name of a generation's session, 10 characters."""
        return session_id(self.log_id, generation)

    def begin(self, cut: bool) -> None:
        """Open the log for this run: sync what the last run may have left in the page cache, and
        say so in a block of its own, unless the last run closed the log. What a matcher of other
        rules wrote, or in another layout, stays in segments of its own. Raises OSError."""
        self._log.file.fdatasync()
        if cut:
            cursor = self._log.cursor
            self._log.cursor = cursor._replace(incarnation=cursor.incarnation + 1)
        header = read_header(self._storage, self._log.cursor.segment)
        other = header is not None and (header.matcher_version, header.layout_version) != (
            MATCHER_SEMANTICS_VERSION, EVENT_LAYOUT_VERSION)
        if other:
            self._log.move_on_now(0)
        if cut or other or not self._closed:
            self._write_empty(record.OPENING)

    def _write_empty(self, flags: int) -> None:
        if not self._log.fits(0):
            self._log.move_on_now(0)
        self._count(self._log.write_now([], True, flags))

    def publish(self, metrics: Metrics) -> None:
        """Have what the stage counts published."""
        self.stats.publish(self, metrics)

    # -- the stage ---------------------------------------------------------------------------

    async def run(self, source: BatchQueue[EventBatch],
                  sinks: Sequence[Sink[EventBatch]]) -> None:
        """Commit what comes from `source` and put it on every sink, in order.

        Ends, and closes the sinks, when the source is closed and empty. Raises DiskError when a
        write or a sync fails: what was not acknowledged then never is.
        """
        self._running = True
        self._log.prepare_next()
        stage = asyncio.ensure_future(self._commit_all(source, sinks))
        waiting = {stage}
        if not self._sync:
            self._interval = asyncio.ensure_future(self._sync_at_intervals())
            waiting.add(self._interval)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                if task.done():
                    task.result()
            for sink in sinks:
                sink.close()
        except OSError as error:
            self._failed = True
            raise _disk_error("the journal can't be written", error) from error
        except BaseException:
            self._failed = True
            raise
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, *self._tasks, return_exceptions=True)
            self._running = False

    async def _commit_all(self, source: BatchQueue[EventBatch],
                          sinks: Sequence[Sink[EventBatch]]) -> None:
        limit_units = self._config.group_max_bytes // UNIT_BYTES
        done: Group | None = None
        started_ns = 0
        while True:
            if done is None:
                batches = await source.get_many(limit_units)
                if not batches:
                    return
            else:
                batches = source.drain(limit_units)
            units = sum(map(len, batches))
            if batches and not self._log.fits(units):
                if done is not None:
                    await self._hand_on(done, sinks)
                    done = None
                await self._move_on(units)
            if not batches:
                group = None
            elif done is None and self._may_inline(units):
                group = self._commit_inline(batches)
            else:
                started_ns = clock.monotonic_ns()
                group = self._log.start(batches, self._sync)
            if done is not None:
                await self._hand_on(done, sinks)
            if group is not None:
                await self._finish(group, started_ns)
            done = group

    def _may_inline(self, units: int) -> bool:
        """Whether this group is better written here than in the thread."""
        if not self._sync:
            return units <= INLINE_LAZY_UNITS_MAX
        if self._inline_rest:
            self._inline_rest -= 1
            return False
        return units <= INLINE_UNITS_MAX

    def _commit_inline(self, batches: list[EventBatch]) -> Group:
        started_ns = clock.monotonic_ns()
        group = self._log.write_now(batches, self._sync)
        took_ns = clock.monotonic_ns() - started_ns
        if took_ns > INLINE_NS_MAX:
            self._inline_rest = INLINE_REST_GROUPS
        self.stats.committed(group, took_ns, True)
        return group

    async def _finish(self, group: Group, started_ns: int) -> None:
        """Wait until the group is written; from here on it is committed."""
        if self._log.writing:
            await self._log.written()
            self.stats.committed(group, clock.monotonic_ns() - started_ns, False)
        self._closed = False
        self.committed_seq = group.end.next_seq - 1
        if self._sync:
            self._log.synced_seq = self.committed_seq

    async def _hand_on(self, group: Group, sinks: Sequence[Sink[EventBatch]]) -> None:
        self._count(group)
        if self.snapshots.written_seq:
            self._snapshot_written()
        for sink in sinks:
            for batch in group.batches:
                if sink.full():
                    await sink.put(batch)
                else:
                    sink.put_nowait(batch)

    def _count(self, group: Group) -> None:
        """Note where the messages of the group are."""
        if group.end.segment != self.index.segment:
            self._close_index()
        definitions = self.index.current.definitions
        new_block = True
        for batch in group.batches:
            self.index.add(group.offset, batch, new_block)
            new_block = False
        if self.index.current.definitions != definitions:
            for batch in group.batches:
                self._learner.route(batch, batch.first_seq)
        self.counted = group.end

    # -- segments ----------------------------------------------------------------------------

    async def _move_on(self, units: int) -> None:
        """Go on in the next segment. Every group before it has been handed on."""
        if not self._sync:
            await self._sync_all()
        await self._log.move_on(units)
        self.stats.segments += 1

    def _close_index(self) -> None:
        """The chunk index of the segment that was left becomes a file."""
        number, chain = self.index.segment, self.counted.chain
        chunks = self.index.next_segment(number + 1)
        keep = partial(write_index, self._storage, self.log_id, number, chain, chunks)
        if self._running:
            self._in_background(asyncio.to_thread(keep))
        else:
            keep()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # None of this work is needed for what is acknowledged: the log has it all.
            self._note(str(task.exception()))

    def _note(self, text: str) -> None:
        log.get("journal").warning(text)

    # -- journal.sync "interval" -------------------------------------------------------------

    async def _sync_at_intervals(self) -> None:
        while True:
            await asyncio.sleep(self._config.interval_ms / 1000)
            if self.synced_seq < self.committed_seq:
                await self._sync_all()

    async def _sync_all(self) -> None:
        """Sync everything that was committed until now. Raises OSError."""
        async with self._sync_lock:
            seq = self.committed_seq
            if self.synced_seq >= seq:
                return
            loop = asyncio.get_running_loop()
            synced = loop.create_future()
            loop.add_reader(self._syncer.fileno(), _resolve, synced)
            self._syncer.start(self._log.file, [], 0, True)
            try:
                await asyncio.shield(synced)
            finally:
                loop.remove_reader(self._syncer.fileno())
            self._syncer.finish()
            self._log.synced_seq = max(self._log.synced_seq, seq)

    # -- what others ask ---------------------------------------------------------------------

    def read_stream(self, account_id: int, from_number: int,
                    limit_bytes: int) -> tuple[bytes, int]:
        """Framed `S` packets of the account's messages from a number on, and the number after.

        Only what is committed, of the present session generation; at most `limit_bytes` (but at
        least one message when there is one) out of one chunk of the log, so that a call stays
        short. (b"", from_number) when there is no such message yet. Raises ReplayUnavailable when
        the log is not kept that far back, JournalCorrupt for damage.
        """
        return self._streams.read(account_id, from_number, limit_bytes)

    def can_read(self, account_id: int, from_number: int) -> bool:
        """Whether the account's stream is still kept from this number on."""
        return self._streams.can_read(account_id, from_number)

    def _end_of(self, segment: int, size: int) -> int:
        return self.counted.offset if segment == self.counted.segment else size

    # -- snapshots ---------------------------------------------------------------------------

    def maybe_snapshot(self, matcher: Matcher) -> bool:
        """Begin a snapshot if it is time, without waiting for it; whether one was begun.

        Called between two batches; returns after the fork.
        """
        events = self._config.snapshot_events
        if (not events or matcher.next_seq <= self.snapshots.begun_seq + events
                or self.snapshots.busy):
            return False
        self.snapshots.begin(matcher, self.index, self.counted)
        return True

    def snapshot_now(self, matcher: Matcher) -> bool:
        """Begin a snapshot whether it is time or not; False while one is being written. Called
        between two batches; returns after the fork."""
        if self.snapshots.busy:
            return False
        self.snapshots.begin(matcher, self.index, self.counted)
        return True

    def _snapshot_written(self) -> None:
        """Have the written snapshot put in place, once the log is synced through it."""
        if self.snapshots.written_seq <= self.synced_seq and not self._placing and self._running:
            self._placing = True
            self._in_background(self._place_snapshot())

    async def _place_snapshot(self) -> None:
        try:
            await asyncio.to_thread(self.snapshots.put_in_place)
            async with self._retiring:
                await self._retire()
        finally:
            self._placing = False

    async def _retire(self) -> None:
        """Remove the segments that journal.retain_segments lets go and no snapshot needs."""
        if not self._config.retain_segments:
            return
        free = min(self.counted.segment - self._config.retain_segments + 1,
                   await asyncio.to_thread(oldest_segment_needed, self._storage))
        first = min(free, await asyncio.to_thread(self._oldest_held))
        self.held_segments = free - first
        if await asyncio.to_thread(remove_segments, self._storage, first):
            self.index.forget_before(first)

    def hold(self, name: str, seq: int) -> None:
        """Keep the segments with the events from `seq` on, whatever retain_segments says, for
        `name`; 0 keeps all. A later call takes the place of the one before."""
        self._holds[name] = seq

    async def hold_all(self, name: str) -> None:
        """Keep every segment for `name`. What is there when this returns stays: segments that were
        free before, and are just being removed, are gone then."""
        self.hold(name, 0)
        async with self._retiring:
            pass

    def _oldest_held(self) -> int:
        """The oldest segment that somebody holds; beyond all when nobody does."""
        seqs = list(self._holds.values())
        if not seqs:
            return self.counted.segment + 1
        numbers = segment_numbers(self._storage)
        cursor = cursor_before(self._storage, max(1, min(seqs)))
        return cursor.segment if cursor is not None else min(numbers, default=0)

    def new_past(self) -> FilePast:
        """The log as a past of its own, for one more thread."""
        return FilePast(self._storage, self.index, self.log_id, load_matcher)

    def keep_beside(self, maker: beside.Maker) -> None:
        """Have what `maker` makes kept beside every snapshot from now on."""
        self.snapshots.maker = maker

    def kept_beside(self) -> Iterator[bytes]:
        """What was kept beside snapshots of this log, the newest first; only good ones."""
        for kept in beside.read_all(self._storage, self.log_id, self._note):
            # Events that were cut since may have become others, under a higher incarnation.
            if (kept.seq <= self.committed_seq
                    and self.past.incarnation_at(kept.seq) <= kept.incarnation):
                yield kept.data

    # -- the end -----------------------------------------------------------------------------

    def close(self, matcher: Matcher, snapshot: bool = True) -> None:
        """End a run that was drained: sync, a closing block, and a snapshot unless there is no
        time for one. Raises DiskError."""
        if self._failed or matcher.next_seq != self.committed_seq + 1:
            self.abandon()
            return
        try:
            if self.synced_seq < self.committed_seq:
                self._log.file.fdatasync()
                self._log.synced_seq = self.committed_seq
            if not self._closed:
                self._write_empty(record.CLOSING)
                self._closed = True
            if snapshot and self.snapshots.newest_seq != self.committed_seq != 0:
                self.snapshots.write_last(matcher, self.index, self.counted)
        except OSError as error:
            raise _disk_error("the journal can't be closed", error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop without writing anything more, as a crash would; the next start recovers."""
        if self._abandoned:
            return
        self._abandoned = self._failed = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        self.snapshots.stop()
        self._streams.close()
        self._syncer.close()
        self._log.close(loop)
        self._storage.unlock()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _disk_error(what: str, error: OSError) -> DiskError:
    reason = error.strerror or str(error)
    where = f" ({error.filename})" if error.filename else ""
    return DiskError(f"{what}: {reason}{where}",
                     "nothing was acknowledged that is not on disk; make the disk work or make "
                     "room, then start again")


def _open_memory(config: Config) -> Recovered:
    memory = MemoryLog(config.journal.memory_max_bytes)
    matcher = new_matcher()
    return Recovered(memory, matcher, memory.log_id, memory.incarnation, matcher.generation, {},
                     ["journal.sync is off: nothing is kept when the process ends"], 0, 0)


def _open_log(config: Config, storage: Storage, progress: Progress) -> Recovered:
    for name in storage.list(FOLDER):
        if name.endswith(".tmp"):
            storage.unlink(f"{FOLDER}/{name}")
    notes = []
    if not segment_numbers(storage):
        log_id = _new_log(config, storage)
        notes.append(f"a new log begins: {log_id.hex()}")
    state = recover(storage, new_matcher, load_matcher, progress)
    journal = Journal(config, storage, state)
    try:
        journal.begin(state.cut)
    except BaseException:
        journal.abandon()
        raise
    matcher = state.matcher
    return Recovered(journal, matcher, state.log_id, journal.incarnation, matcher.generation,
                     state.streams.next_numbers(), notes + state.notes, state.snapshot_seq,
                     state.events)


def _new_log(config: Config, storage: Storage) -> bytes:
    """The first segment of a new log, whole and with its header, under its name or not at all."""
    log_id = os.urandom(16)
    journal = config.journal
    size = whole_pages(min(journal.first_segment_bytes, journal.segment_bytes))
    header = record.segment_header(log_id, 1, 1, size, 1, 0)
    make_segment(storage, 1, size, storage.filler(), header)
    return log_id

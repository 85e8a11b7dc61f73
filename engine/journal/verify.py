"""`matchd journal verify`: the whole log, block by block, and the commands run once more.

Three questions: are the bytes those that were written (checksums, chain, seqs); does a fresh
matcher give the same events for the same commands, byte for byte; do the snapshots and index
files beside the log say what the log says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cython_core import record
from cython_core.errors import CoreError
from cython_core.event import EventBatch
from cython_core.matcher import Matcher
from cython_core.model import MATCHER_SEMANTICS_VERSION
from engine.errors import EXIT_CORRUPT, EXIT_NOT_COMPARABLE
from engine.journal.index import StreamIndex, unpack_index_file
from engine.journal.reader import JournalCorrupt, LogWalk, judge, read_header
from engine.journal.segment import index_name, segment_numbers
from engine.journal.snapshot import BadSnapshot, Snapshot, read_snapshot, snapshot_seqs
from engine.journal.stats import Progress, log_bytes, no_progress
from engine.journal.storage import FileStorage, Storage


class VerifyReport(NamedTuple):
    """`problems` are what is wrong, `notes` what is worth knowing; `compared` counts the events
    that the commands gave again."""

    first_seq: int
    last_seq: int
    events: int
    blocks: int
    bytes: int
    compared: int
    comparable: bool
    state_hash: str
    snapshots: int
    problems: list[str]
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """0 good, 4 damaged, 3 good but written by other rules of matching."""
        if self.problems:
            return EXIT_CORRUPT
        return 0 if self.comparable else EXIT_NOT_COMPARABLE


def verify(data_dir: str | Path, progress: Progress = no_progress) -> VerifyReport:
    """Check the log of a data directory; may run beside the venue, up to what is there then.

    `progress` is called with (bytes done, bytes in all). Raises JournalError when there is no
    journal; damage is not raised but reported.
    """
    return verify_storage(FileStorage(data_dir), progress)


def verify_storage(storage: Storage, progress: Progress = no_progress) -> VerifyReport:
    """The same for any storage."""
    return _Verify(storage).run(progress)


class _Verify:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._compared = 0
        self._matcher: Any = None
        self._compare_from = 0
        self._comparable = True
        self._count = StreamIndex()
        self._count_ready = False
        self._snapshots: dict[int, Snapshot] = {}

    def run(self, progress: Progress) -> VerifyReport:
        try:
            walk = LogWalk(self._storage)
        except JournalCorrupt as error:
            return VerifyReport(0, 0, 0, 0, 0, 0, True, "", 0, [str(error)], [])
        total = log_bytes(self._storage)
        self._check_versions()
        self._read_snapshots()
        self._begin(walk)
        events = 0
        for run in walk.runs():
            events += run.batch.event_count
            if self._count_ready:
                self._enter(walk.log_id, run.segment)
                self._count.add(run.offset, run.batch)
            self._compare(run.batch)
            progress(walk.blocks_bytes, total)
        progress(total, total)
        self._end(walk)
        state_hash = self._matcher.state_hash().hex() if self._matcher is not None else ""
        return VerifyReport(walk.oldest.first_seq, walk.cursor().next_seq - 1, events, walk.blocks,
                            walk.blocks_bytes, self._compared, self._comparable, state_hash,
                            len(self._snapshots), self.problems, self.notes)

    # -- before ------------------------------------------------------------------------------

    def _check_versions(self) -> None:
        for number in segment_numbers(self._storage):
            header = read_header(self._storage, number)
            if header is not None and header.matcher_version != MATCHER_SEMANTICS_VERSION:
                self._comparable = False
                self.notes.append(f"events not comparable: segment {number} was written by "
                                  f"version {header.matcher_version} of the matcher's rules, "
                                  f"this is version {MATCHER_SEMANTICS_VERSION}")
                return

    def _read_snapshots(self) -> None:
        for seq in snapshot_seqs(self._storage):
            try:
                self._snapshots[seq] = read_snapshot(self._storage, seq)
            except BadSnapshot as reason:
                self.problems.append(f"snapshots/{seq}.snap {reason}")

    def _begin(self, walk: LogWalk) -> None:
        """Where the comparing begins: at the first event, or at the oldest snapshot's."""
        self._count_ready = walk.oldest.first_seq == 1
        self._count.segment = walk.oldest.number
        if not self._comparable:
            return
        if walk.oldest.first_seq == 1:
            self._matcher = Matcher()
            return
        usable = [seq for seq, found in self._snapshots.items()
                  if found.log_id == walk.log_id and seq >= walk.oldest.first_seq - 1]
        if not usable:
            self._comparable = False
            self.notes.append("events not comparable: the log's beginning is not kept and no "
                              "snapshot stands in for it")
            return
        self._compare_from = min(usable)
        self._matcher = Matcher.load(self._snapshots[self._compare_from].matcher)
        self.notes.append(f"the log's beginning is not kept: events are compared after seq "
                          f"{self._compare_from}")

    # -- events ------------------------------------------------------------------------------

    def _compare(self, batch: EventBatch) -> None:
        """Run the commands of the batch again, with a stop at each snapshot's seq."""
        if self._matcher is None:
            return
        end = batch.first_seq + batch.event_count
        for seq in sorted(self._snapshots):
            if batch.first_seq <= seq < end and seq > self._compare_from:
                self._compare_part(record.events_before(batch, seq + 1))
                self._compare_snapshot(seq)
                batch = record.events_from(batch, seq + 1)
        self._compare_part(batch)

    def _compare_part(self, batch: EventBatch) -> None:
        batch = record.events_from(batch, self._compare_from + 1)
        if self._matcher is None or not len(batch):
            return
        again = EventBatch()
        try:
            differs = self._matcher.apply_logged(batch, again)
        except CoreError as error:
            self._stop_comparing(f"from seq {batch.first_seq} on the events are not those of "
                                 f"whole commands: {error}")
            return
        if differs >= 0:
            self._stop_comparing(f"seq {batch.first_seq + differs} is not the event that its "
                                 "command gives")
            return
        self._compared += batch.event_count

    def _compare_snapshot(self, seq: int) -> None:
        if self._matcher is None:
            return
        try:
            kept = Matcher.load(self._snapshots[seq].matcher).state_hash()
        except CoreError as error:
            self.problems.append(f"snapshots/{seq}.snap can't be loaded: {error}")
            return
        if kept != self._matcher.state_hash():
            self.problems.append(f"snapshots/{seq}.snap is not the state that the log gives")

    def _stop_comparing(self, problem: str) -> None:
        self.problems.append(problem)
        self._matcher = None

    # -- index files and the end -------------------------------------------------------------

    def _enter(self, log_id: bytes, segment: int) -> None:
        while self._count.segment < segment:
            closed = self._count.segment
            expected = self._count.current.next_numbers()
            firsts = self._count.current.first_numbers()
            self._count.next_segment(closed + 1)
            self._check_index(log_id, closed, expected, firsts)

    def _check_index(self, log_id: bytes, segment: int, expected: dict[int, int],
                     firsts: dict[int, int]) -> None:
        name = index_name(segment)
        if not self._storage.exists(name):
            self.notes.append(f"{name} is missing; it is made again when it is needed")
            return
        following = read_header(self._storage, segment + 1)
        file = self._storage.open(name)
        try:
            index = unpack_index_file(file.pread(file.size(), 0), log_id, segment,
                                      following.previous_checksum if following else 0)
        except ValueError as error:
            self.problems.append(f"{name} is damaged: {error}")
            return
        finally:
            file.close()
        if index.next_numbers() != expected or index.first_numbers() != firsts:
            self.problems.append(f"{name} does not say what the log says")

    def _end(self, walk: LogWalk) -> None:
        ending = walk.ending
        if ending is None:
            return
        self.notes.extend(ending.notes)
        newest = max((seq for seq, found in self._snapshots.items()
                      if found.log_id == walk.log_id), default=0)
        if newest >= ending.cursor.next_seq:
            self.problems.append(f"snapshots/{newest}.snap is ahead of the log, which ends at seq "
                                 f"{ending.cursor.next_seq - 1}")
        try:
            judge(self._storage, walk.log_id, ending)
        except JournalCorrupt as error:
            self.problems.append(str(error))
        else:
            if ending.damage:
                self.notes.append(f"the log ends with a torn tail: {ending.damage}, at seq "
                                  f"{ending.cursor.next_seq}; the next start cuts it")

"""Every single byte of a small log flipped in turn: never a wrong state, never silence.

The short profile flips every third: blocks and units are multiples of 64 bytes, so each place in
them has its turn in one of every three."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from cython_core.event import EventBatch
from engine.config import Config
from engine.errors import JournalError
from engine.journal import Journal
from engine.journal.snapshot import BadSnapshot, read_snapshot
from engine.journal.verify import verify_storage
from tests.journal.losing_storage import LosingStorage
from tests.journal.venue import ACCOUNTS, SMALL, Venue, state_after

TINY = msgspec.structs.replace(SMALL, segment_bytes=4096, first_segment_bytes=4096,
                               snapshot_events=60)


class SmallLog:
    """A log that was closed cleanly, over several segments, with snapshots and index files."""

    def __init__(self, end: str) -> None:
        self.storage = LosingStorage()
        self.history: list[EventBatch] = []
        for seed, last in ((1, "close"), (2, "abandon"), (3, end)):
            venue = Venue(self.storage, TINY, seed)
            asyncio.run(venue.run(12, 4, end=last))
            self.history += venue.produced
        self.seq = venue.matcher.next_seq - 1
        self.states: dict[int, bytes] = {}
        self.streams = {account_id: venue_stream(self.storage, account_id)
                        for account_id in ACCOUNTS}
        self.clean = verify_storage(self.storage)

    def state(self, seq: int) -> bytes:
        if seq not in self.states:
            self.states[seq] = state_after(self.history, seq)
        return self.states[seq]


def venue_stream(storage: LosingStorage, account_id: int) -> bytes:
    venue = Venue(storage.copy(), TINY)
    stream = venue.read_all(account_id)
    venue.journal.abandon()
    return stream


@contextmanager
def flipped(storage: LosingStorage, name: str, position: int) -> Iterator[LosingStorage]:
    """A copy of the storage with one bit of one file changed."""
    copy = storage.copy()
    copy.nodes[name].data[position] ^= 1 << position % 8
    yield copy


def check_flip(log: SmallLog, name: str, position: int) -> str:
    """What a flipped byte leads to; fails for a wrong state and for silence."""
    with flipped(log.storage, name, position) as storage:
        report = verify_storage(storage)
        noticed = report.problems or report.notes != log.clean.notes
        assert noticed, f"verify does not notice byte {position} of {name}"
        before = {name: bytes(node.data) for name, node in storage.nodes.items()}
        try:
            recovered = Journal.open(Config(journal=TINY), storage)
        except JournalError:
            assert {name: bytes(node.data) for name, node in storage.nodes.items()} == before
            return "refused"
        recovered.journal.abandon()
        seq = recovered.matcher.next_seq - 1
        assert bytes(recovered.matcher.state_hash()) == log.state(seq)
        if seq < log.seq:
            assert recovered.notes and recovered.incarnation == 2
            return "cut"
        return "noted" if recovered.notes else "verified"


@pytest.fixture(scope="module")
def closed() -> SmallLog:
    return SmallLog("close")


@pytest.fixture(scope="module")
def crashed() -> SmallLog:
    """The same, after a kill: there is no closing block, and no snapshots are there either."""
    log = SmallLog("abandon")
    for name in [name for name in log.storage.nodes if name.startswith("snapshots/")]:
        del log.storage.nodes[name]
    log.clean = verify_storage(log.storage)
    return log


@pytest.fixture
def step(long_profile: bool) -> int:
    return 1 if long_profile else 3


def segments(log: SmallLog) -> list[str]:
    return [name for name in log.storage.nodes if name.endswith(".log")]


def test_the_small_log_has_several_segments_snapshots_and_index_files(closed):
    names = list(closed.storage.nodes)
    assert len(segments(closed)) >= 4
    assert sum(name.endswith(".idx") for name in names) >= 2
    assert sum(name.endswith(".snap") for name in names) >= 2
    assert not closed.clean.problems
    assert closed.clean.compared == closed.seq


def test_a_flipped_byte_in_a_closed_log_is_never_cut_away(closed, step):
    outcomes = {check_flip(closed, name, position) for name in segments(closed)
                for position in range(0, len(closed.storage.nodes[name].data), step)}
    assert outcomes <= {"refused", "noted", "verified"}


def test_a_flipped_byte_after_a_crash_costs_at_most_the_unproved_tail(crashed, step):
    outcomes = {}
    for name in segments(crashed):
        for position in range(0, len(crashed.storage.nodes[name].data), step):
            outcomes.setdefault(check_flip(crashed, name, position), (name, position))
    assert set(outcomes) == {"refused", "noted", "cut"}


def test_a_flipped_byte_of_an_index_file_changes_no_stream(closed):
    for name in [name for name in closed.storage.nodes if name.endswith(".idx")]:
        for position in range(len(closed.storage.nodes[name].data)):
            with flipped(closed.storage, name, position) as storage:
                assert verify_storage(storage).problems
                if position % 7:
                    continue
                venue = Venue(storage, TINY)
                for account_id in ACCOUNTS:
                    assert venue.read_all(account_id) == closed.streams[account_id]
                venue.journal.abandon()
                assert not verify_storage(storage).problems


def test_a_flipped_byte_of_a_snapshot_is_always_noticed(closed):
    newest = max((name for name in closed.storage.nodes if name.endswith(".snap")),
                 key=lambda name: int(name[10:-5]))
    data = closed.storage.nodes[newest].data
    for position in range(len(data)):
        data[position] ^= 1 << position % 8
        with pytest.raises(BadSnapshot):
            read_snapshot(closed.storage, int(newest[10:-5]))
        data[position] ^= 1 << position % 8
    for position in range(0, len(data), max(1, len(data) // 50)):
        assert check_flip(closed, newest, position) == "noted"

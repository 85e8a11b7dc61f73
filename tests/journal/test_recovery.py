"""Start-up is recovery: snapshots of every kind of age, segments missing, tails torn."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading

import msgspec
import pytest

from cython_core.event import EventBatch
from engine.errors import EXIT_CORRUPT, JournalError
from engine.journal import Journal, JournalCorrupt
from engine.journal.reader import LogWalk
from engine.journal.segment import segment_name, segment_numbers
from engine.journal.snapshot import snapshot_name, snapshot_seqs
from engine.journal.storage import FileStorage
from tests.journal.losing_storage import LosingStorage
from tests.journal.venue import SMALL, Venue, state_after


@pytest.fixture(params=["disk", "memory"])
def storage(request, tmp_path):
    return FileStorage(tmp_path) if request.param == "disk" else LosingStorage()


async def traded(storage, runs=3, rounds=40, end="close", config=SMALL) -> list[EventBatch]:
    history: list[EventBatch] = []
    for seed in range(runs):
        venue = await Venue(storage, config, seed).run(rounds, end=end)
        assert venue.error is None
        history += venue.produced
    return history


def opened(storage, config=SMALL) -> Venue:
    venue = Venue(storage, config)
    venue.journal.abandon()
    return venue


def state_of(venue: Venue) -> tuple[int, bytes]:
    return venue.matcher.next_seq - 1, bytes(venue.matcher.state_hash())


async def test_the_state_from_zero_is_the_state_from_snapshot_and_tail(storage):
    history = await traded(storage)
    last = history[-1].first_seq + history[-1].event_count - 1
    with_snapshot = opened(storage)
    assert with_snapshot.recovered.snapshot_seq == last
    seqs = snapshot_seqs(storage)
    storage.unlink(snapshot_name(seqs[0]))
    with_tail = opened(storage)
    assert 0 < with_tail.recovered.snapshot_seq < last
    assert with_tail.recovered.replayed == last - with_tail.recovered.snapshot_seq
    for seq in seqs[1:]:
        storage.unlink(snapshot_name(seq))
    from_zero = opened(storage)
    assert (from_zero.recovered.snapshot_seq, from_zero.recovered.replayed) == (0, last)
    expected = (last, state_after(history, last))
    assert state_of(with_snapshot) == state_of(with_tail) == state_of(from_zero) == expected


async def test_a_clean_start_changes_nothing_on_disk(storage):
    await traded(storage, runs=1)
    before = LogWalk(storage)
    list(before.runs())
    venue = Venue(storage)
    venue.journal.close(venue.matcher)
    after = LogWalk(storage)
    list(after.runs())
    assert after.cursor() == before.cursor()
    assert not venue.recovered.notes


async def test_a_killed_run_is_recovered_without_loss_and_in_the_same_incarnation(storage):
    history = await traded(storage, runs=4, end="abandon")
    venue = opened(storage)
    last = history[-1].first_seq + history[-1].event_count - 1
    assert state_of(venue) == (last, state_after(history, last))
    assert venue.recovered.incarnation == 1


async def test_an_unclosed_run_at_intervals_begins_a_new_incarnation():
    storage = LosingStorage()
    config = msgspec.structs.replace(SMALL, sync="interval")
    await traded(storage, runs=1, end="abandon", config=config)
    venue = opened(storage)
    assert venue.recovered.incarnation == 2
    assert any("last interval" in note for note in venue.recovered.notes)
    assert opened(storage).recovered.incarnation == 2


async def test_a_snapshot_ahead_of_the_log_is_refused_and_a_new_incarnation_begins():
    storage, history = LosingStorage(), []
    history += await traded(storage, runs=1, rounds=10)
    old = storage.copy()
    await traded_on(storage)
    newest = snapshot_name(snapshot_seqs(storage)[0])
    old.nodes[newest] = storage.nodes[newest]
    venue = opened(old)
    last = history[-1].first_seq + history[-1].event_count - 1
    assert state_of(venue) == (last, state_after(history, last))
    assert any("is ahead of the log" in note for note in venue.recovered.notes)
    assert venue.recovered.incarnation == 2


async def traded_on(storage) -> None:
    venue = await Venue(storage, SMALL, 99).run(40)
    assert venue.error is None


async def test_a_snapshot_of_another_log_is_refused():
    storage, other = LosingStorage(), LosingStorage()
    history = await traded(storage, runs=1)
    await traded(other, runs=1)
    seq, foreign = snapshot_seqs(storage)[0], snapshot_seqs(other)[0]
    storage.nodes[snapshot_name(seq + foreign)] = other.nodes[snapshot_name(foreign)]
    storage.nodes[snapshot_name(seq)] = other.nodes[snapshot_name(foreign)]
    venue = opened(storage)
    last = history[-1].first_seq + history[-1].event_count - 1
    assert state_of(venue) == (last, state_after(history, last))
    assert len(venue.recovered.notes) >= 2


async def test_a_snapshot_that_is_half_written_is_never_in_place():
    storage = LosingStorage()
    await traded(storage, runs=1)
    assert not [name for name in storage.nodes if name.endswith(".tmp") and "snap" in name]
    storage.nodes["snapshots/999.tmp"] = storage.nodes[snapshot_name(snapshot_seqs(storage)[0])]
    assert not opened(storage).recovered.notes


async def test_a_missing_segment_in_the_middle_is_corruption_and_nothing_is_changed(storage):
    await traded(storage, runs=6)
    numbers = segment_numbers(storage)
    for seq in snapshot_seqs(storage):
        storage.unlink(snapshot_name(seq))
    storage.unlink(segment_name(numbers[2]))
    before = contents(storage)
    with pytest.raises(JournalCorrupt, match=f"segment {numbers[2]} is missing") as caught:
        Venue(storage)
    assert caught.value.exit_code == EXIT_CORRUPT
    assert caught.value.file == segment_name(numbers[1])
    assert caught.value.seq > 0
    assert contents(storage) == before


def contents(storage) -> dict[str, bytes]:
    files = {}
    for folder in ("journal", "snapshots"):
        for name in storage.list(folder):
            file = storage.open(f"{folder}/{name}")
            files[name] = bytes(file.pread(file.size(), 0))
            file.close()
    return files


async def test_a_missing_first_segment_without_a_snapshot_is_corruption(storage):
    await traded(storage, runs=4)
    for seq in snapshot_seqs(storage):
        storage.unlink(snapshot_name(seq))
    storage.unlink(segment_name(1))
    with pytest.raises(JournalCorrupt, match="begins at seq"):
        Venue(storage)


@pytest.mark.parametrize(("first_bytes", "found_bytes"), [(16 << 10, 16 << 10),
                                                           (64 << 10, 24 << 10)])
async def test_the_first_segment_is_never_longer_than_the_others(first_bytes, found_bytes):
    storage = LosingStorage()
    assert SMALL.segment_bytes == 24 << 10
    await Venue(storage, msgspec.structs.replace(SMALL, first_segment_bytes=first_bytes)).run(12)
    assert len(storage.nodes[segment_name(1)].data) == found_bytes


async def test_a_torn_last_block_is_cut_at_any_length_and_the_log_goes_on():
    storage = LosingStorage()
    venue = await Venue(storage, msgspec.structs.replace(
        SMALL, segment_bytes=64 << 10, first_segment_bytes=64 << 10)).run(12, end="abandon")
    walk = LogWalk(storage)
    ends = [0]
    for _ in walk.runs(1):
        ends.append(walk.cursor().offset)
    data, last = storage.nodes[segment_name(1)].data, ends[-1]
    whole = bytes(data[ends[-2]:last])
    rng = random.Random(3)
    for length in sorted(rng.sample(range(1, len(whole)), min(60, len(whole) - 1))):
        torn = storage.copy()
        torn.nodes[segment_name(1)].data[ends[-2] + length:last] = bytes(len(whole) - length)
        if whole[length:].count(0) == len(whole) - length:
            continue
        recovered = opened(torn)
        kept = recovered.matcher.next_seq - 1
        assert state_of(recovered)[1] == state_after(venue.produced, kept)
        assert recovered.recovered.incarnation == 2
        assert "torn tail" in recovered.recovered.notes[0]
        assert opened(torn).recovered.incarnation == 2
        again = await Venue(torn, SMALL, 7).run(5)
        assert again.error is None


async def test_bytes_behind_the_last_block_are_a_torn_tail():
    storage = LosingStorage()
    history = await traded(storage, runs=1)
    walk = LogWalk(storage)
    list(walk.runs())
    cursor = walk.cursor()
    storage.nodes[segment_name(cursor.segment)].data[cursor.offset + 100] = 7
    venue = opened(storage)
    last = history[-1].first_seq + history[-1].event_count - 1
    assert state_of(venue) == (last, state_after(history, last))
    assert "torn tail" in venue.recovered.notes[0]
    assert storage.nodes[segment_name(cursor.segment)].data[cursor.offset + 100] == 0


async def test_two_venues_never_write_one_log(tmp_path):
    venue = Venue(FileStorage(tmp_path))
    with pytest.raises(JournalError, match="in use by process"):
        Venue(FileStorage(tmp_path))
    venue.journal.abandon()
    opened(FileStorage(tmp_path))


async def test_a_block_larger_than_a_segment_gets_a_larger_segment():
    storage = LosingStorage()
    venue = await Venue(storage, msgspec.structs.replace(
        SMALL, segment_bytes=8192, first_segment_bytes=8192)).run(10, 600)
    assert venue.error is None
    assert max(len(node.data) for node in storage.nodes.values()) > 30_000
    assert state_of(opened(storage)) == state_of(venue)


async def test_snapshots_are_forked_while_trading_goes_on_and_some_are_kept(tmp_path):
    storage = FileStorage(tmp_path)
    venue = Venue(storage, msgspec.structs.replace(SMALL, snapshot_events=100))
    stage = asyncio.ensure_future(venue.run(150, end="abandon", snapshots=1))
    await stage
    assert venue.error is None
    await asyncio.sleep(0)
    assert venue.journal.snapshot_seq > 0
    assert 1 <= len(snapshot_seqs(storage)) <= 3
    assert venue.journal.snapshot_pause_ns > 0
    again = opened(storage)
    assert again.recovered.snapshot_seq == snapshot_seqs(storage)[0]
    assert state_of(again) == state_of(venue)


def test_the_session_id_follows_from_log_and_generation(tmp_path):
    first, second = (Journal.open(Venue(LosingStorage()).config, LosingStorage()).journal
                     for _ in range(2))
    assert first.session_id(1) == first.session_id(1)
    assert len({first.session_id(1), first.session_id(2), second.session_id(1)}) == 3
    assert len(first.session_id(1)) == 10
    assert first.session_id(1).isalnum()


async def test_a_closed_journal_leaves_no_descriptor_and_no_thread(tmp_path):
    storage = FileStorage(tmp_path)
    await traded(storage, runs=1)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for end in ("close", "abandon", "close"):
        venue = await Venue(storage, SMALL).run(60, end=end)
        venue.journal.abandon()
        assert venue.error is None
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(os.listdir("/proc/self/fd")) <= files
    assert threading.active_count() <= threads


class WatchedStorage(FileStorage):
    """Tells when the folder of snapshots is looked through, and may refuse to rename in it."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.looked, self.refused = lambda: None, 0

    def list(self, folder):
        if folder == "snapshots":
            self.looked()
        return super().list(folder)

    def rename(self, source, target):
        if self.refused and source.endswith(".tmp") and "snapshots" in source:
            self.refused -= 1
            raise OSError(errno.EIO, "no")
        super().rename(source, target)


async def test_nothing_is_cleared_away_while_the_next_snapshot_may_be_written(tmp_path):
    storage = WatchedStorage(tmp_path)
    venue = Venue(storage)
    free = []
    storage.looked = lambda: free.append(not venue.journal.snapshots.busy)
    await venue.run(100, end="abandon", snapshots=2)
    assert free
    assert not any(free), "a snapshot could begin while unfinished ones were removed"


async def test_after_a_snapshot_that_cannot_be_put_in_place_comes_the_next(tmp_path):
    storage = WatchedStorage(tmp_path)
    storage.refused = 1
    venue = await Venue(storage).run(100, end="abandon", snapshots=2)
    assert venue.snapshots_placed >= 2
    assert storage.refused == 0
    assert not [name for name in storage.list("snapshots") if name.endswith(".tmp")][1:]

"""Every account's messages, from any number, across segments, restarts and rolls."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from cython_core.event import EventBatch
from engine.config import Config
from engine.journal import Journal, JournalCorrupt, MemoryLog, ReplayUnavailable
from engine.journal import chunks as chunks_module
from engine.journal.chunks import ChunkIndex
from engine.journal.segment import segment_numbers
from engine.journal.storage import FileStorage
from tests.journal.losing_storage import LosingStorage
from tests.journal.venue import ACCOUNTS, SMALL, Venue, split_packets, stream_of

MEMORY = msgspec.structs.replace(SMALL, sync="off")


def check_streams(venue: Venue, history: list[EventBatch], rng: random.Random) -> None:
    """From the first message, and from some others, what is read is what the events say."""
    for account_id in ACCOUNTS:
        expected = stream_of(history, account_id)
        assert split_packets(venue.read_all(account_id)) == expected
        assert venue.matcher.stream_next(account_id) == len(expected) + 1
        for number in rng.sample(range(1, len(expected) + 2), min(20, len(expected))):
            data, after = venue.journal.read_stream(account_id, number, 1 << 20)
            assert split_packets(data) == expected[number - 1:after - 1]
            assert venue.journal.can_read(account_id, number)


@pytest.mark.parametrize("rolls", [False, True])
@pytest.mark.parametrize("place", ["disk", "memory"])
async def test_streams_are_the_same_across_segments_and_restarts(place, rolls, tmp_path):
    storage = FileStorage(tmp_path) if place == "disk" else LosingStorage()
    history: list[EventBatch] = []
    rng = random.Random(5)
    for seed in range(4):
        venue = Venue(storage, SMALL, seed)
        if history:
            check_streams(venue, history, rng)
        await venue.run(60, rolls=rolls, end=rng.choice(("close", "abandon")))
        history += venue.produced
    venue = Venue(storage, SMALL)
    assert venue.recovered.generation > 1 or not rolls
    check_streams(venue, history, rng)
    venue.journal.abandon()


async def test_streams_are_read_while_the_log_grows():
    venue, rng = Venue(LosingStorage()), random.Random(1)
    running = asyncio.ensure_future(venue.run(80))
    while not running.done():
        await asyncio.sleep(0)
        seq = venue.journal.committed_seq
        history = [batch for batch in venue.produced if batch.first_seq <= seq]
        account_id = rng.choice(ACCOUNTS)
        expected = stream_of(history, account_id) if history else []
        if expected:
            number = rng.randrange(1, len(expected) + 1)
            data, after = venue.journal.read_stream(account_id, number, 500)
            told = split_packets(data)
            assert told == expected[number - 1:after - 1] or after - 1 > len(expected)
    await running


async def test_a_slice_is_bounded_but_never_empty():
    venue = await Venue(LosingStorage()).run(40, end="stay")
    venue = Venue(venue.storage)
    data, after = venue.journal.read_stream(1, 1, 1)
    assert (len(split_packets(data)), after) == (1, 2)
    data, after = venue.journal.read_stream(1, 1, 200)
    assert len(data) <= 200
    next_number = venue.matcher.stream_next(1)
    assert venue.journal.read_stream(1, next_number, 200) == (b"", next_number)
    assert venue.journal.read_stream(999, 1, 200) == (b"", 1)
    venue.journal.abandon()


async def test_a_start_reads_no_old_segment_for_the_index(tmp_path):
    storage = FileStorage(tmp_path)
    await Venue(storage).run(300, 12)
    opened_files: list[str] = []
    real = storage.open

    def open_noted(name, *, write=False, create=False):
        opened_files.append(name)
        return real(name, write=write, create=create)

    storage.open = open_noted
    venue = Venue(storage)
    assert not [name for name in opened_files if name.endswith(".idx")]
    venue.journal.read_stream(1, 1, 100)
    assert [name for name in opened_files if name.endswith(".idx")]
    venue.journal.abandon()


async def test_a_missing_index_file_is_made_again():
    storage = LosingStorage()
    venue = await Venue(storage).run(300, 12)
    before = [stream_of(venue.produced, account_id) for account_id in ACCOUNTS]
    names = [name for name in storage.nodes if name.endswith(".idx")]
    assert names
    for name in names:
        storage.unlink(name)
    again = Venue(storage)
    assert [split_packets(again.read_all(account_id)) for account_id in ACCOUNTS] == before
    assert [name for name in storage.nodes if name.endswith(".idx")] != []
    again.journal.abandon()


async def test_damage_under_a_replay_is_an_error_and_not_a_wrong_message():
    storage = LosingStorage()
    await Venue(storage).run(300, 12)
    venue = Venue(storage)
    storage.nodes["journal/00000001.log"].data[500] ^= 1
    with pytest.raises(JournalCorrupt, match="00000001.log is corrupt"):
        venue.read_all(1)
    venue.journal.abandon()


async def test_segments_go_only_when_no_snapshot_needs_them_and_then_replay_is_refused():
    storage = LosingStorage()
    config = msgspec.structs.replace(SMALL, retain_segments=2, snapshots_kept=0)
    expected: dict[int, list[bytes]] = {}
    history: list[EventBatch] = []
    for seed in range(3):
        venue = await Venue(storage, config, seed).run(200, 12)
        assert venue.error is None
        history += venue.produced
    kept = segment_numbers(storage)
    assert kept[0] > 1
    assert kept == list(range(kept[0], kept[-1] + 1))
    venue = Venue(storage, config)
    for account_id in ACCOUNTS:
        expected[account_id] = stream_of(history, account_id)
        assert not venue.journal.can_read(account_id, 1)
        with pytest.raises(ReplayUnavailable):
            venue.journal.read_stream(account_id, 1, 100)
        last = len(expected[account_id])
        data, after = venue.journal.read_stream(account_id, last, 100)
        assert (split_packets(data), after) == (expected[account_id][-1:], last + 1)
    venue.journal.abandon()


async def test_without_a_journal_streams_are_read_from_memory():
    venue = await Venue(LosingStorage(), MEMORY).run(100, 12, rolls=True)
    assert isinstance(venue.journal, MemoryLog)
    assert venue.storage.nodes == {}
    check_streams(venue, venue.produced, random.Random(2))


async def test_memory_is_bounded_and_what_is_gone_is_refused():
    config = msgspec.structs.replace(MEMORY, memory_max_bytes=64 << 10)
    venue = await Venue(LosingStorage(), config).run(400, 12)
    expected = stream_of(venue.produced, 1)
    assert not venue.journal.can_read(1, 1)
    with pytest.raises(ReplayUnavailable):
        venue.journal.read_stream(1, 1, 100)
    assert venue.journal.can_read(1, len(expected))
    data, after = venue.journal.read_stream(1, len(expected), 1000)
    assert (split_packets(data), after) == (expected[-1:], len(expected) + 1)
    assert len(split_packets(venue.journal.read_stream(1, len(expected) - 5, 1 << 20)[0])) >= 1


def test_an_index_that_is_saved_and_loaded_finds_the_same():
    venue = asyncio.run(Venue(LosingStorage(), MEMORY).run(50, 12))
    index = ChunkIndex()
    for place, batch in enumerate(venue.produced):
        index.add(place * 64, batch)
    again = ChunkIndex.load(index.save())
    assert again.next_numbers() == index.next_numbers()
    assert again.first_numbers() == index.first_numbers()
    for account_id in ACCOUNTS:
        for number in range(1, index.next_number(account_id) + 1):
            assert again.find(account_id, number) == index.find(account_id, number)


def test_a_chunk_without_a_message_of_the_account_is_skipped():
    venue = asyncio.run(Venue(LosingStorage(), MEMORY).run(400, 40))
    index, chunk_units = ChunkIndex(), 0
    for place, batch in enumerate(venue.produced):
        index.add(place, batch)
        chunk_units += len(batch)
    assert index.chunk_total == pytest.approx(chunk_units / chunks_module.CHUNK_UNITS, abs=2)
    assert index.find(1, index.next_number(1)) is None
    assert index.find(999, 1) is None


def test_recovered_numbers_seed_the_live_streams(tmp_path):
    venue = asyncio.run(Venue(FileStorage(tmp_path)).run(50))
    recovered = Journal.open(Config(journal=SMALL), FileStorage(tmp_path))
    recovered.journal.abandon()
    assert recovered.streams == {account_id: venue.matcher.stream_next(account_id)
                                 for account_id in ACCOUNTS}

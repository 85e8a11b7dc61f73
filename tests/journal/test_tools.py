"""verify, repair, dump and stats; and reading beside a venue that writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from itertools import pairwise

import msgspec
import pytest

from cython_core import record
from cython_core.event import EventBatch
from cython_core.model import Kind
from engine.errors import EXIT_CORRUPT, EXIT_NOT_COMPARABLE, JournalError
from engine.journal import JournalCorrupt
from engine.journal.dump import dump, dump_lines
from engine.journal.reader import LogWalk, events_since
from engine.journal.repair import repair
from engine.journal.segment import segment_name
from engine.journal.snapshot import snapshot_name, snapshot_seqs
from engine.journal.stats import stats
from engine.journal.storage import FileStorage
from engine.journal.verify import verify
from tests.journal.venue import SMALL, Venue, state_after


@pytest.fixture
def traded(tmp_path):
    """A closed log of several segments, and its events."""
    venue = asyncio.run(Venue(FileStorage(tmp_path)).run(200, 12, snapshots=2))
    assert venue.error is None
    return tmp_path, venue.produced


def change(path, position: int, value: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(value)


def blocks(storage: FileStorage) -> list[tuple[int, int, int, int]]:
    """(segment, offset, first seq, end) of each block with events."""
    walk, found = LogWalk(storage), []
    for run in walk.runs(1):
        found.append((run.segment, run.offset, run.batch.first_seq, walk.cursor().offset))
    return found


# -- verify ----------------------------------------------------------------------------------

def test_a_good_log_gives_every_event_again(traded):
    folder, history = traded
    report = verify(folder)
    last = history[-1].first_seq + history[-1].event_count - 1
    assert (report.exit_code, report.problems, report.notes) == (0, [], [])
    assert (report.first_seq, report.last_seq, report.events) == (1, last, last)
    assert report.compared == last
    assert report.state_hash == state_after(history, last).hex()
    # How many there are depends on how quick the children that write them were.
    assert report.snapshots == len(list(snapshot_seqs(FileStorage(folder)))) >= 2


def test_progress_ends_at_the_whole(traded):
    seen: list[tuple[int, int]] = []
    verify(traded[0], lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    assert seen == sorted(seen)


def test_a_changed_event_is_caught_even_with_right_checksums(traded):
    folder, history = traded
    accepted = {event["seq"] for batch in history for event in batch.dicts()
                if event["kind"] == "accepted"}
    segment, seq = [(segment, seq) for segment, _, seq, _ in blocks(FileStorage(folder))
                    if seq in accepted][-1]
    path = folder / segment_name(segment)
    data = bytearray(path.read_bytes())
    rewrite_chain(data, seq, {39: 7})
    path.write_bytes(data)
    report = verify(folder)
    assert report.exit_code == EXIT_CORRUPT
    assert not any("is corrupt" in line for line in report.problems)
    assert any("is not the event that its command gives" in line for line in report.problems)


def test_an_event_that_does_not_fit_the_state_stops_a_start(traded):
    folder, _ = traded
    storage = FileStorage(folder)
    for seq in snapshot_seqs(storage):
        storage.unlink(snapshot_name(seq))
    segment, _, seq, _ = blocks(storage)[-1]
    path = folder / segment_name(segment)
    data = bytearray(path.read_bytes())
    # A cancel of an order that never was.
    rewrite_chain(data, seq, {0: Kind.CANCELED, 1: 0, 16: 0xFF, 23: 0xFF})
    path.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="the checksums are right, but"):
        Venue(FileStorage(folder))


def rewrite_chain(data: bytearray, changed_seq: int,
                  values: Mapping[int, int]) -> None:
    """Change an event (offset: byte) and make every checksum of the segment right again."""
    header = record.parse_segment_header(data)
    tag, offset, chain = record.crc32c(header.log_id), 64, header.previous_checksum
    while (block := record.parse_block_header(data, tag, offset)) is not None:
        end = offset + 64 * (1 + block.unit_count)
        events = EventBatch.from_bytes(bytes(data[offset + 64:end]), block.first_seq)
        if block.first_seq <= changed_seq < block.first_seq + block.event_count:
            for position, value in values.items():
                data[offset + 64 + position] = value
            events = EventBatch.from_bytes(bytes(data[offset + 64:end]), block.first_seq)
        unit = record.frame_block([events] if len(events) else [], block.first_seq, chain,
                                  block.synced_seq, block.incarnation, tag, block.time_ns,
                                  block.flags)
        data[offset:offset + 64] = unit
        chain, offset = record.block_checksum(unit), end


def test_another_version_of_the_rules_is_checked_but_not_compared(traded):
    folder, _ = traded
    path = folder / segment_name(1)
    data = path.read_bytes()
    header = record.parse_segment_header(data)
    change(path, 0, record.segment_header(header.log_id, 1, 1, header.size_bytes,
                                          header.incarnation, header.previous_checksum, 9))
    report = verify(folder)
    assert report.exit_code == EXIT_NOT_COMPARABLE
    assert report.compared == 0
    assert report.blocks > 0
    assert report.notes[0].startswith("events not comparable")


def test_a_snapshot_that_is_not_the_logs_state_is_a_problem(traded):
    folder, _ = traded
    storage = FileStorage(folder)
    first, second = snapshot_seqs(storage)[:2]
    (folder / snapshot_name(first)).rename(folder / snapshot_name(second))
    report = verify(folder)
    assert report.exit_code == EXIT_CORRUPT
    assert any(snapshot_name(second) in line for line in report.problems)


def test_without_a_journal_verify_says_so(tmp_path):
    with pytest.raises(JournalError, match="there is no journal"):
        verify(tmp_path)


# -- repair ----------------------------------------------------------------------------------

def test_a_damaged_log_starts_again_after_a_repair_and_what_was_cut_is_kept(traded):
    folder, history = traded
    storage = FileStorage(folder)
    segment, offset, seq, _ = blocks(storage)[len(blocks(storage)) // 2]
    path = folder / segment_name(segment)
    change(path, offset + 70, b"\xff\xfe")
    for snapshot in snapshot_seqs(storage):
        if snapshot < seq:
            continue
        storage.unlink(snapshot_name(snapshot))
    damaged = path.read_bytes()
    with pytest.raises(JournalCorrupt) as caught:
        Venue(FileStorage(folder))
    assert (caught.value.file, caught.value.offset, caught.value.seq) == (
        segment_name(segment), offset, seq)
    report = repair(folder, file=caught.value.file, offset=caught.value.offset)
    assert (report.last_seq, report.incarnation) == (seq - 1, 2)
    assert (folder / report.kept_in / path.name).read_bytes() == damaged
    assert len(report.moved) > 1
    venue = Venue(FileStorage(folder))
    assert venue.matcher.next_seq == seq
    assert venue.recovered.incarnation == 2
    assert bytes(venue.matcher.state_hash()) == state_after(history, seq - 1)
    asyncio.run(venue.run(20))
    assert venue.error is None
    assert verify(folder).exit_code == 0


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_log_is_cut_before_the_block_that_holds_a_seq(traded, part):
    folder, history = traded
    last = history[-1].first_seq + history[-1].event_count - 1
    wanted = int(last * part)
    before = [block for block in blocks(FileStorage(folder)) if block[2] <= wanted][-1]
    report = repair(folder, seq=wanted)
    assert report.last_seq == before[2] - 1
    assert all(seq <= report.last_seq for seq in snapshot_seqs(FileStorage(folder)))
    venue = Venue(FileStorage(folder))
    assert bytes(venue.matcher.state_hash()) == state_after(history, report.last_seq)
    venue.journal.abandon()


def test_a_missing_segment_is_cut_at_the_first_seq_that_is_missing(traded):
    folder, history = traded
    storage = FileStorage(folder)
    for seq in snapshot_seqs(storage):
        storage.unlink(snapshot_name(seq))
    storage.unlink(segment_name(2))
    with pytest.raises(JournalCorrupt, match="segment 2 is missing") as caught:
        Venue(FileStorage(folder))
    report = repair(folder, seq=caught.value.seq)
    assert report.last_seq == caught.value.seq - 1
    venue = Venue(FileStorage(folder))
    assert bytes(venue.matcher.state_hash()) == state_after(history, report.last_seq)
    venue.journal.abandon()


def test_a_damaged_header_of_a_segment_is_cut_with_the_segment(traded):
    folder, history = traded
    storage = FileStorage(folder)
    change(folder / segment_name(2), 20, b"\xaa\xaa\xaa")
    for seq in snapshot_seqs(storage):
        storage.unlink(snapshot_name(seq))
    report = repair(folder, file=segment_name(2), offset=0)
    assert report.file == segment_name(1)
    venue = Venue(FileStorage(folder))
    assert bytes(venue.matcher.state_hash()) == state_after(history, report.last_seq)
    venue.journal.abandon()


def test_repair_does_not_cut_behind_damage(traded):
    folder, _ = traded
    found = blocks(FileStorage(folder))
    segment, offset, seq, _ = next(
        block for block, after in pairwise(found[2:]) if after[2] > block[2] + 1)
    change(folder / segment_name(segment), offset + 70, b"\xff\xfe")
    with pytest.raises(JournalError, match=f"damaged at seq {seq}"):
        repair(folder, seq=seq + 1)
    with pytest.raises(JournalError, match=f"damaged at byte {offset}"):
        repair(folder, file=segment_name(segment), offset=offset + 64)
    with pytest.raises(JournalError, match="needs a place"):
        repair(folder)


def test_repair_keeps_out_while_the_venue_runs(tmp_path):
    venue = Venue(FileStorage(tmp_path))
    with pytest.raises(JournalError, match="in use"):
        repair(tmp_path, seq=1)
    venue.journal.abandon()


# -- dump and stats --------------------------------------------------------------------------

def test_dump_gives_one_object_per_event_with_the_seq_first(traded):
    folder, history = traded
    lines = list(dump_lines(folder))
    events = [json.loads(line) for line in lines]
    last = history[-1].first_seq + history[-1].event_count - 1
    assert [event["seq"] for event in events] == list(range(1, last + 1))
    assert all(line.startswith('{"seq":') for line in lines)
    assert events == json.loads(json.dumps([event for batch in history for event in batch.dicts()]))


def test_dump_takes_a_range(traded):
    assert [event["seq"] for event in dump(traded[0], 100, 110)] == list(range(100, 111))


def test_stats_count_events_blocks_and_bytes(traded):
    folder, history = traded
    counted = stats(folder)
    events = [event for batch in history for event in batch.dicts()]
    assert counted.events == len(events) == sum(counted.events_by_kind.values())
    assert counted.events_by_kind["fill"] == sum(e["kind"] == "fill" for e in events)
    assert counted.blocks >= len(blocks(FileStorage(folder)))
    assert (counted.first_time_ns, counted.last_time_ns) == (events[0]["time_ns"],
                                                             events[-1]["time_ns"])
    assert counted.bytes_per_event == pytest.approx(counted.bytes / counted.events, abs=0.01)
    assert sum(segment.events for segment in counted.segments) == counted.events
    assert counted.notes == []


# -- beside a running venue ------------------------------------------------------------------

async def test_a_reader_beside_a_running_venue_sees_a_prefix_and_no_damage(tmp_path):
    venue = Venue(FileStorage(tmp_path), msgspec.structs.replace(SMALL, snapshot_events=0))
    running = asyncio.ensure_future(venue.run(150, 12))
    last_seen = 0
    while not running.done():
        await asyncio.sleep(0.002)
        seen = list(await asyncio.to_thread(lambda: list(events_since(FileStorage(tmp_path), 1))))
        logged = b"".join(map(bytes, seen))
        produced = b"".join(map(bytes, venue.produced))
        assert produced.startswith(logged)
        end = seen[-1].first_seq + seen[-1].event_count - 1 if seen else 0
        assert end >= last_seen
        last_seen = end
    await running
    assert b"".join(map(bytes, events_since(FileStorage(tmp_path), 1))) == b"".join(
        map(bytes, venue.produced))


def test_reading_begins_at_any_seq(traded):
    folder, history = traded
    last = history[-1].first_seq + history[-1].event_count - 1
    for seq in (1, 2, last // 3, last // 2, last, last + 1):
        batches = list(events_since(FileStorage(folder), seq))
        assert [event["seq"] for batch in batches for event in batch.dicts()] == list(
            range(seq, last + 1))

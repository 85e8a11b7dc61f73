"""Headers, checksums and the walk over blocks, on bytes alone."""

import random

import pytest

from cython_core import event, record
from cython_core.event import CommandBatch, EventBatch
from cython_core.model import Kind

TAG = 77


def batch(first_seq: int, count: int) -> EventBatch:
    commands = CommandBatch()
    for number in range(count):
        commands.enter(1, number + 1, 1, "B", 10, 100, min_quantity_lots=number % 2)
    return EventBatch.from_bytes(bytes(commands), first_seq)


def block(first_seq: int, count: int, chain: int, synced_seq: int = 0) -> bytes:
    events = batch(first_seq, count)
    header = record.frame_block([events], first_seq, chain, synced_seq, 1, TAG, 5)
    return header + bytes(events)


def chain_of(blocks: bytes, offset: int = 0) -> int:
    return record.block_checksum(blocks[offset:offset + 64])


def test_the_checksum_is_crc32c():
    assert record.crc32c(b"123456789") == 0xE3069283
    assert record.crc32c(bytes(32)) == 0x8A9136AA
    assert record.crc32c(b"") == 0


def test_the_instruction_and_the_table_agree_at_every_length_and_seed():
    rng = random.Random(1)
    for length in [*range(70), 511, 4096, 4099]:
        data, seed = rng.randbytes(length), rng.getrandbits(32)
        assert record.crc32c(data, seed) == record.crc32c_by_table(data, seed)


def test_a_checksum_goes_on_over_pieces():
    data = random.Random(2).randbytes(1000)
    assert record.crc32c(data[333:], record.crc32c(data[:333])) == record.crc32c(data)


def test_a_segment_header_comes_back_as_it_was_written():
    log_id = bytes(range(16))
    unit = record.segment_header(log_id, 3, 1000, 1 << 28, 2, 0xDEADBEEF)
    header = record.parse_segment_header(unit)
    assert len(unit) == 64
    assert (header.log_id, header.number, header.first_seq) == (log_id, 3, 1000)
    assert (header.size_bytes, header.incarnation) == (1 << 28, 2)
    assert header.previous_checksum == 0xDEADBEEF
    assert header.matcher_version >= 1


def test_a_header_with_any_bit_changed_is_no_header():
    segment, blocks = record.segment_header(bytes(16), 1, 1, 4096, 1, 0), block(1, 1, 0)
    for bit in range(512):
        changed = bytearray(segment)
        changed[bit // 8] ^= 1 << bit % 8
        assert record.parse_segment_header(changed) is None
        changed = bytearray(blocks[:64])
        changed[bit // 8] ^= 1 << bit % 8
        assert record.parse_block_header(changed, TAG) is None


def test_a_block_header_of_another_log_is_no_header():
    assert record.parse_block_header(block(1, 1, 0), TAG).event_count == 1
    assert record.parse_block_header(block(1, 1, 0), TAG + 1) is None


def test_the_checksum_of_a_block_covers_all_its_batches():
    one, two = batch(1, 2), batch(3, 1)
    header = record.frame_block([one, two], 1, 9, 0, 1, TAG, 5)
    parsed = record.parse_block_header(header, TAG)
    assert (parsed.first_seq, parsed.event_count, parsed.unit_count) == (1, 3, 4)
    assert parsed.payload_checksum == record.crc32c(bytes(one) + bytes(two))
    assert parsed.previous_checksum == 9


def test_batches_that_do_not_follow_one_another_are_no_block():
    with pytest.raises(ValueError, match="starts at seq 4, expected 3"):
        record.frame_block([batch(1, 2), batch(4, 1)], 1, 0, 0, 1, TAG, 5)


def walk(data: bytes, limit: int = 1 << 20, start: int = 0) -> tuple[int, record.BlockWalker,
                                                                    EventBatch]:
    walker, out = record.BlockWalker(TAG), EventBatch()
    return walker.take(data, start, limit, out), walker, out


def two_blocks() -> bytes:
    first = block(1, 3, 0)
    return first + block(4, 2, chain_of(first), 3)


def test_a_walk_takes_whole_blocks_up_to_the_zeros():
    data = two_blocks()
    reached, walker, out = walk(data + bytes(640))
    assert (reached, walker.stop) == (len(data), record.Stop.END)
    assert (out.first_seq, out.event_count, len(out)) == (1, 5, 7)
    assert (walker.next_seq, walker.blocks, walker.synced_seq) == (6, 2, 3)


def test_a_walk_stops_after_the_block_that_reaches_its_limit():
    data = two_blocks()
    reached, walker, out = walk(data, limit=1)
    assert (walker.stop, out.event_count) == (record.Stop.LIMIT, 3)
    assert reached == 64 + 64 * 4


def test_a_walk_asks_for_more_where_the_data_ends_inside_a_block():
    data = two_blocks()
    first = 64 + 64 * 4
    reached, walker, _ = walk(data[:first + 70])
    assert (reached, walker.stop) == (first, record.Stop.MORE)
    assert walker.need_bytes == len(data) - first


@pytest.mark.parametrize("position", [0, 10, 70, 200, 330])
def test_a_walk_stops_at_a_changed_byte_and_says_so(position):
    data = bytearray(two_blocks())
    data[position] ^= 1
    reached, walker, _ = walk(bytes(data))
    assert walker.stop == record.Stop.BAD
    assert walker.reason
    assert reached == (0 if position < 320 else 320)


def test_a_block_that_chains_to_another_one_is_not_taken():
    first = block(1, 3, 0)
    _, walker, out = walk(first + block(4, 2, chain_of(first) ^ 1))
    assert (walker.stop, out.event_count) == (record.Stop.BAD, 3)
    assert "does not follow" in walker.reason


def test_units_that_are_not_what_the_header_counts_are_damage_even_with_a_right_checksum():
    events = bytearray(bytes(batch(1, 2)))
    events[1] = 5
    wrong = EventBatch()
    wrong.extend_bytes(bytes(events))
    wrong.first_seq, wrong.event_count = 1, 2
    _, walker, _ = walk(record.frame_block([wrong], 1, 0, 0, 1, TAG, 5) + bytes(wrong))
    assert walker.stop == record.Stop.BAD


def test_the_next_undamaged_header_is_found_behind_damage():
    data = bytearray(two_blocks())
    data[5] ^= 1
    assert record.find_block(bytes(data), TAG) == 320
    assert record.find_block(bytes(data), TAG, 321) == -1
    assert record.find_block(bytes(data), TAG + 1) == -1


def test_the_first_byte_that_is_not_zero_is_found():
    data = bytearray(5000)
    assert record.first_nonzero(data) == -1
    for position in (4999, 4096, 33, 32, 31, 0):
        data[position] = 1
        assert record.first_nonzero(data) == position


def test_a_batch_is_split_between_events_and_never_inside_one():
    events = batch(10, 4)
    for seq in range(9, 16):
        before, after = record.events_before(events, seq), record.events_from(events, seq)
        assert bytes(before) + bytes(after) == bytes(events)
        assert before.event_count + after.event_count == 4
    assert record.events_from(events, 12).first_seq == 12


def test_kinds_are_counted_without_extension_units():
    assert record.count_kinds(batch(1, 4)) == {Kind.CMD_ENTER: 4}


def test_a_segment_opens_as_one_array(tmp_path):
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "00000001.log"
    path.write_bytes(record.segment_header(bytes(16), 1, 1, 4096, 1, 0) + two_blocks() + bytes(128))
    units = numpy.memmap(path, dtype=event.dtype(), mode="r")
    assert list(units["kind"][:3]) == [Kind.SEGMENT_HEADER, Kind.BLOCK_HEADER, Kind.CMD_ENTER]
    assert (units["kind"] == Kind.CMD_ENTER).sum() == 5
    assert units["kind"][-1] == Kind.EMPTY

"""A log of layout 2, which knew no window of numbers over UDP: it recovers, goes on in a segment of
its own, and every event of both can still be compared."""

import asyncio
from pathlib import Path

import pytest

from cython_core import record
from cython_core.event import CommandBatch
from cython_core.model import Source
from engine.journal.reader import read_header
from engine.journal.segment import segment_name
from engine.journal.snapshot import snapshot_name, snapshot_seqs
from engine.journal.storage import FileStorage
from engine.journal.verify import verify
from tests.journal.venue import ACCOUNTS, INSTRUMENTS, Venue

LAYOUT_AT = 52
CHECKED_BYTES = 60


def tables() -> CommandBatch:
    """The tables alone, as a venue of that time sent them."""
    batch = CommandBatch()
    for instrument_id, symbol in INSTRUMENTS.items():
        batch.define_instrument(instrument_id, symbol, symbol, 4, 100, 0)
    for account_id in ACCOUNTS:
        batch.define_account(account_id, f"ACC{account_id}"[:6])
    return batch


def make_older(storage: FileStorage, folder: Path) -> list[int]:
    """Give every segment the layout of before. Returns their numbers."""
    numbers = [number for number in range(1, 20) if storage.exists(segment_name(number))
               and read_header(storage, number) is not None]
    for number in numbers:
        with open(folder / segment_name(number), "r+b") as file:
            head = bytearray(file.read(64))
            head[LAYOUT_AT:LAYOUT_AT + 2] = (2).to_bytes(2, "little")
            head[CHECKED_BYTES:] = record.crc32c(head[:CHECKED_BYTES]).to_bytes(4, "little")
            file.seek(0)
            file.write(head)
    for seq in snapshot_seqs(storage):
        storage.unlink(snapshot_name(seq))
    return numbers


@pytest.fixture
def older(tmp_path: Path) -> tuple[FileStorage, list[int]]:
    storage = FileStorage(tmp_path)
    venue = Venue(storage)
    venue.apply(tables())
    asyncio.run(venue.run(60, 12))
    assert venue.error is None
    numbers = make_older(storage, tmp_path)
    assert read_header(storage, 1).layout_version == 2
    return storage, numbers


async def test_it_goes_on_in_a_segment_of_its_own_and_all_is_comparable(older, tmp_path: Path):
    storage, numbers = older
    venue = Venue(storage)
    assert venue.matcher.rules()["udp_window"] == 0
    last = venue.matcher.last_user_ref_num(1)
    batch = CommandBatch()
    batch.set_rules(0, 0, 0, udp_window=1_024)
    for number in (last + 3, last + 2, last + 2, max(1, last - 1)):
        batch.enter(1, number, 1, "B", 1, 99_000, source=Source.UDP)
    before = venue.matcher.next_seq
    venue.apply(batch)
    assert venue.matcher.next_seq == before + 3
    assert venue.matcher.missing_numbers(1) == [last + 1]
    await venue.run(40, 12)
    layouts = {number: read_header(storage, number).layout_version
               for number in (*numbers, numbers[-1] + 1)}
    assert layouts == {**dict.fromkeys(numbers, 2), numbers[-1] + 1: 3}
    report = verify(tmp_path)
    assert (report.exit_code, report.problems, report.notes) == (0, [], [])
    assert report.compared == report.last_seq
    assert report.state_hash == venue.matcher.state_hash().hex()

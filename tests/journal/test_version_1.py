"""A log of version 1, which knew no private orders: it recovers, and goes on in a new segment.

tests/data/version_1_log.tar.xz was written by that version: `tests/journal/venue.py` with random
orders, a session roll, an account that disabled its entry, a snapshot at the end; `facts.json`
is what its matcher said of its state then.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cython_core.event import CommandBatch
from cython_core.matcher import Matcher
from cython_core.model import Source
from engine.config import Config
from engine.journal import Journal
from engine.journal.reader import read_header
from engine.journal.storage import FileStorage
from engine.journal.verify import verify
from tests.journal.venue import SMALL, Venue

ARCHIVE = Path(__file__).parent.parent / "data" / "version_1_log.tar.xz"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def facts_of(matcher: Matcher) -> dict[str, Any]:
    orders = {str(number): [[order["order_id"], order["account_id"], order["quantity_lots"],
                             order["chain_done_lots"]] for order in matcher.orders(number)]
              for number in (1, 2)}
    return {
        "next_seq": matcher.next_seq, "generation": matcher.generation,
        "last_time_ns": matcher.last_time_ns, "resting_orders": matcher.resting_orders,
        "levels": {str(number): [[list(level) for level in side]
                                 for side in matcher.levels(number, 1_000)] for number in (1, 2)},
        "orders": orders,
        "accounts": {str(number): {
            "stream_next": row["stream_next"], "entry_disabled": row["entry_disabled"],
            "last": row["last_user_ref_num"][0]} for number, row in matcher.accounts().items()},
    }


def versions_of(storage: FileStorage) -> dict[int, tuple[int, int]]:
    """{segment: (version of the rules, of the layout)}"""
    return {number: (header.matcher_version, header.layout_version) for number in range(1, 9)
            if storage.exists(f"journal/{number:08d}.log")
            and (header := read_header(storage, number)) is not None}


def without_snapshots(data_dir: Path) -> None:
    for snapshot in (data_dir / "snapshots").iterdir():
        snapshot.unlink()


@pytest.mark.parametrize("from_snapshot", [True, False])
def test_a_log_of_version_1_recovers(data_dir: Path, from_snapshot: bool):
    if not from_snapshot:
        without_snapshots(data_dir)
    recovered = Journal.open(Config(journal=SMALL), FileStorage(data_dir))
    assert facts_of(recovered.matcher) == json.loads((data_dir / "facts.json").read_text())
    assert (recovered.replayed == 0) is from_snapshot
    recovered.matcher.check_invariants()
    recovered.journal.abandon()


async def test_new_events_go_to_a_segment_of_their_own(data_dir: Path):
    storage = FileStorage(data_dir)
    venue = Venue(storage)
    seq = venue.matcher.next_seq
    commands = CommandBatch()
    commands.enter(1, 0, 1, "B", 5, 99_000, "1", source=Source.HTTP, client_order_id="first")
    commands.halt_instrument(2, reason="news")
    venue.apply(commands)
    await venue.run(3)
    assert versions_of(storage) == {1: (1, 1), 2: (2, 3)}
    live_hash = venue.matcher.state_hash()
    for _ in range(2):
        again = Journal.open(Config(journal=SMALL), storage)
        assert again.matcher.state_hash() == live_hash
        assert again.matcher.find_client_order(1, "first") is not None
        assert again.matcher.find_client_order(1, "first")[0] == seq
        assert again.matcher.instruments()[2]["halt_reason"] == "news"
        again.journal.abandon()
        without_snapshots(data_dir)


def test_verify_says_that_the_events_are_not_comparable(data_dir: Path):
    report = verify(data_dir)
    assert not report.comparable
    assert report.problems == []
    assert any("version 1 of the matcher's rules" in note for note in report.notes)

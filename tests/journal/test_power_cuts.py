"""A power cut at any moment: nothing acknowledged is lost, nothing is invented."""

from __future__ import annotations

import asyncio
import random

import pytest

from cython_core.event import EventBatch
from engine.errors import DiskError
from engine.journal import journal
from engine.journal.reader import events_since
from tests.journal.losing_storage import LosingStorage
from tests.journal.venue import ACCOUNTS, SMALL, Venue, split_packets, state_after, stream_of

CUTS, CUTS_LONG = 200, 10_000
# Cuts one after the other into the same log.
CUTS_PER_LOG = 5


def check_recovered(venue: Venue, history: list[EventBatch], sure_seq: int,
                    possible_seq: int) -> None:
    """The recovered state is that of a prefix that holds everything that is sure."""
    seq = venue.matcher.next_seq - 1
    assert sure_seq <= seq <= possible_seq, venue.recovered.notes
    assert bytes(venue.matcher.state_hash()) == state_after(history, seq)
    kept = [batch for batch in history if batch.first_seq <= seq]
    logged = b"".join(map(bytes, events_since(venue.storage, 1)))
    assert logged == b"".join(map(bytes, kept))
    venue.matcher.check_invariants()


async def cut_one_log(seed: int, lazy: bool = False) -> None:
    rng = random.Random(seed)
    config = SMALL if not lazy else type(SMALL)(**{
        **{name: getattr(SMALL, name) for name in SMALL.__struct_fields__}, "sync": "interval"})
    storage, history, sure_seq, possible_seq = LosingStorage(), [], 0, 0
    for _ in range(CUTS_PER_LOG):
        storage.steps_left = rng.choice((rng.randrange(1, 60), rng.randrange(40, 200)))
        try:
            venue = Venue(storage, config, rng.randrange(1 << 30))
        except (OSError, DiskError):
            # The power went during the start.
            storage = storage.after_cut(rng)
            continue
        check_recovered(venue, history, sure_seq, possible_seq)
        history = [batch for batch in history if batch.first_seq < venue.matcher.next_seq]
        await venue.run(rng.randrange(20, 60), rng.choice((3, 10, 80)),
                        end=rng.choice(("close", "abandon")))
        assert venue.error is None or isinstance(venue.error, DiskError)
        history += venue.produced
        possible_seq = venue.matcher.next_seq - 1
        sure_seq = venue.journal.synced_seq if lazy else venue.acknowledged_seq
        storage = storage.after_cut(rng)
    venue = Venue(storage, config)
    check_recovered(venue, history, sure_seq, possible_seq)
    history = [batch for batch in history if batch.first_seq < venue.matcher.next_seq]
    for account_id in ACCOUNTS if history else ():
        assert split_packets(venue.read_all(account_id)) == stream_of(history, account_id)
    venue.journal.abandon()


@pytest.mark.parametrize("part", range(10))
def test_a_power_cut_loses_no_acknowledged_message_and_invents_none(part, long_profile,
                                                                    monkeypatch):
    if part % 2:
        # Every group goes through the writer's thread, however small.
        monkeypatch.setattr(journal, "INLINE_UNITS_MAX", 0)
    cuts = (CUTS_LONG if long_profile else CUTS) // CUTS_PER_LOG // 10
    for seed in range(part * cuts, (part + 1) * cuts):
        asyncio.run(cut_one_log(seed))


def test_with_sync_at_intervals_a_power_cut_leaves_a_prefix_through_the_last_sync(long_profile):
    for seed in range(200 if long_profile else 10):
        asyncio.run(cut_one_log(seed, lazy=True))

"""Trades and candles outlive a restart: out of a checkpoint and the events since, or out of the
log alone."""

from __future__ import annotations

import asyncio

import pytest

from cython_core.tape import Tape
from tests.journal.venue import INSTRUMENTS
from tests.market.venue import MarketVenue


def shown(tape: Tape) -> list[object]:
    """Everything that a tape can be asked."""
    return [(tape.trades(number, 10_000), [tape.candles(number, interval, 10_000)
                                           for interval in (1, 60, 3_600)],
             tape.ticker(number, 10**12)) for number in INSTRUMENTS]


async def traded(folder, **feed: int) -> MarketVenue:
    """A venue that traded, crashed after some snapshots, and has events behind the last."""
    venue = await MarketVenue(folder, seed=11, **feed).start()
    for number in range(2_000):
        venue.trade(4)
        await venue.settle()
        # The child that writes a snapshot takes the longer the larger this process is.
        if number >= 60 and checkpoints(folder):
            break
        await asyncio.sleep(0.005 * (number >= 60))
    return venue


def checkpoints(folder) -> list[object]:
    return sorted((folder / "snapshots").glob("*.tape"))


async def test_after_a_crash_the_tape_is_what_it_was(tmp_path):
    venue = await traded(tmp_path)
    before = shown(venue.market.tape)
    assert venue.market.tape.trades(1, 100)
    await venue.crash()
    assert checkpoints(tmp_path)
    await venue.start()
    assert shown(venue.market.tape) == before
    venue.trade(30)
    await venue.settle()
    before = shown(venue.market.tape)
    await venue.close()
    await venue.start()
    assert shown(venue.market.tape) == before
    await venue.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other log"])
async def test_a_bad_checkpoint_is_made_again_from_the_log(tmp_path, damage):
    venue = await traded(tmp_path)
    before = shown(venue.market.tape)
    await venue.crash()
    for path in checkpoints(tmp_path):
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= 1
        elif damage == "cut":
            del data[-1:]
        elif damage == "other log":
            data[8] ^= 1
        path.write_bytes(data)
        if damage == "gone":
            path.unlink()
    await venue.start()
    assert shown(venue.market.tape) == before
    await venue.close()


async def test_an_older_checkpoint_serves_when_the_newest_is_bad(tmp_path):
    venue = await traded(tmp_path)
    before = shown(venue.market.tape)
    # A child writes them beside us.
    async with asyncio.timeout(30):
        while not checkpoints(tmp_path):
            await asyncio.sleep(0.01)
    await venue.crash()
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-5])
    await venue.start()
    assert shown(venue.market.tape) == before
    await venue.close()


async def test_other_sizes_make_the_tape_anew(tmp_path):
    venue = await traded(tmp_path)
    before = venue.market.tape.trades(1, 10_000)
    await venue.crash()
    again = MarketVenue(tmp_path, seed=12, trades_kept=5)
    await again.start()
    assert again.market.tape.trades(1, 10_000) == before[-5:]
    await again.close()


async def test_without_a_checkpoint_so_much_of_the_log_is_read_as_is_allowed(tmp_path):
    venue = await traded(tmp_path)
    before, last = venue.market.tape.trades(1, 10_000), venue.market.applied_seq
    await venue.crash()
    for path in checkpoints(tmp_path):
        path.unlink()
    again = MarketVenue(tmp_path, seed=12, warm_events_max=300)
    await again.start()
    assert again.market.tape.trades(1, 10_000) == [
        trade for trade in before if trade[5] > last - 300]
    await again.close()


async def test_checkpoints_go_with_their_snapshots(tmp_path):
    venue = await traded(tmp_path)
    await venue.close()
    seqs = {path.stem for path in (tmp_path / "snapshots").glob("*.snap")}
    assert {path.stem for path in checkpoints(tmp_path)} <= seqs
    assert len(seqs) <= 3

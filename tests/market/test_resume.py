"""What a reader missed comes out of the log, without a hole and without a repeat, from any seq,
over crashes and restarts; and without a log as far as memory reaches."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cython_core.record import events_from
from engine.errors import NotKeptError
from engine.market.stage import Market
from tests.journal.venue import ACCOUNTS, INSTRUMENTS
from tests.market.venue import MarketVenue


class Reader:
    """Takes everything live, from its start on."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.trades: dict[int, list[Any]] = {number: [] for number in INSTRUMENTS}
        self.events: dict[int, list[Any]] = {number: [] for number in INSTRUMENTS}
        self.changes: dict[int, list[Any]] = {account: [] for account in ACCOUNTS}
        self._ends: list[Any] = []

    async def start(self) -> Reader:
        """Open everything; what is told from now on is noted."""
        self.watches = [await self.market.watch(account) for account in ACCOUNTS]
        leases = [self.market.use_order_book(number) for number in INSTRUMENTS]
        for lease in leases:
            await lease.wait()
        for number in INSTRUMENTS:
            self.market.tape.take_trades(number)
            self.market.order_books.take_order_events(number)
        for watch in self.watches:
            watch.take()
        self.from_seq = self.market.applied_seq
        self._ends = [self.market.listen(self._take), *(one.release for one in self.watches),
                      *(lease.release for lease in leases)]
        return self

    def _take(self) -> None:
        for number in INSTRUMENTS:
            self.trades[number] += self.market.tape.take_trades(number)
            self.events[number] += self.market.order_books.take_order_events(number)
        for watch in self.watches:
            self.changes[watch.account_id] += watch.take() or []

    def stop(self) -> None:
        for end in self._ends:
            end()


async def gathered(parts: Any) -> list[Any]:
    """Everything that an iterator yields in lists."""
    return [one async for part in parts for one in part]


async def compare(market: Market, reader: Reader, from_seq: int, to_seq: int) -> int:
    """What lies in (from_seq, to_seq] is what the reader got live; returns how much it was."""
    resume, total = market.resume, 0
    for number in INSTRUMENTS:
        trades = await gathered(resume.trades(number, from_seq, to_seq))
        assert trades == [one for one in reader.trades[number] if from_seq < one[5] <= to_seq]
        events = await gathered(resume.order_events(number, from_seq, to_seq))
        assert events == [one for one in reader.events[number]
                          if from_seq < one["seq"] <= to_seq]
        total += len(trades) + len(events)
    for account_id in ACCOUNTS:
        changes = await gathered(resume.changes(account_id, from_seq, to_seq))
        assert changes == [one for one in reader.changes[account_id]
                           if from_seq < one[0] <= to_seq]
        total += len(changes)
    return total


@pytest.mark.parametrize("sync", ["commit", "interval", "off"])
async def test_from_any_seq_into_live(tmp_path, sync):
    venue = await MarketVenue(tmp_path, sync, seed=3).start()
    venue.trade(10, rolls=sync != "off")
    await venue.settle()
    reader = await Reader(venue.market).start()
    for _ in range(40):
        venue.trade(3, rolls=sync != "off")
        if venue.flow.rng.random() < 0.3:
            await venue.settle()
    await venue.settle()
    chance = random.Random(1)
    last, total = venue.market.applied_seq, 0
    for _ in range(12):
        total += await compare(venue.market, reader, chance.randint(reader.from_seq, last), last)
    assert total > 500
    assert await compare(venue.market, reader, last, last) == 0
    reader.stop()
    await venue.close()


async def test_readers_go_on_where_they_were_over_crashes(tmp_path):
    venue = await MarketVenue(tmp_path, seed=8).start()
    chance = random.Random(2)
    missed = []
    for _ in range(4):
        reader = await Reader(venue.market).start()
        venue.trade(25)
        await venue.settle()
        last = venue.market.applied_seq
        missed.append((reader, last))
        # Some of this becomes durable, some does not.
        venue.trade(3)
        await venue.crash()
        await venue.start()
        for known, until in missed:
            assert await compare(venue.market, known, chance.randint(known.from_seq, until),
                                 until) >= 0
            assert await compare(venue.market, known, known.from_seq, until) > 50
    await venue.close()


async def test_what_is_not_kept_is_said_before_anything_is_told(tmp_path):
    venue = await MarketVenue(tmp_path, "off", seed=5).start()
    venue.journal._units_max = 3_000
    for _ in range(30):
        venue.trade(10, rolls=False)
        await venue.settle()
    market = venue.market
    oldest = await market.history.oldest_seq()
    assert oldest > 1
    for parts in (market.resume.trades(1, 0, market.applied_seq),
                  market.resume.order_events(1, 5, market.applied_seq),
                  market.resume.changes(1, 5, market.applied_seq)):
        with pytest.raises(NotKeptError):
            await gathered(parts)
    # Trades need no state: they go back as far as events do.
    assert await gathered(market.resume.trades(1, oldest, market.applied_seq))
    assert await market.history.answer_of(1) is None
    await venue.close()


async def test_a_state_beyond_the_bound_is_refused(tmp_path):
    venue = await MarketVenue(tmp_path, seed=6, warm_events_max=40).start()
    venue.trade(60)
    await venue.settle()
    with pytest.raises(NotKeptError, match="too many"):
        await gathered(venue.market.resume.trades(1, 0, venue.market.applied_seq))
    await venue.close()


async def test_every_command_is_answered_the_same_after_a_crash(tmp_path):
    venue = await MarketVenue(tmp_path, seed=7).start()
    venue.trade(40)
    await venue.settle()
    await venue.crash()
    await venue.start()
    for batch in venue.log[::5]:
        for event in batch.dicts():
            if not event["first"]:
                continue
            answer = await venue.market.history.answer_of(event["seq"])
            assert answer is not None
            assert (answer.seq, answer.time_ns) == (event["seq"], event["time_ns"])
            whole = bytes(events_from(batch, event["seq"]))
            assert whole.startswith(bytes(answer.events))
    await venue.close()

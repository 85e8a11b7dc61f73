"""The stage: nothing is shown that is not durable, books come and go with their readers."""

from __future__ import annotations

import asyncio

import pytest

from cython_core.event import CommandBatch
from cython_core.matcher import Matcher
from cython_core.model import Kind, Source
from cython_core.record import events_before
from engine.market.leases import EVERY_LEVEL
from tests.journal.venue import ACCOUNTS, INSTRUMENTS
from tests.market.venue import MarketVenue


def state_after(venue: MarketVenue, seq: int) -> Matcher:
    """The matcher as the events up to a seq leave it."""
    matcher = Matcher()
    for batch in venue.log:
        if batch.first_seq <= seq:
            matcher.replay(events_before(batch, seq + 1))
    return matcher


async def test_books_opened_while_the_matcher_is_ahead_show_what_is_durable(tmp_path):
    venue = await MarketVenue(tmp_path, seed=1).start()
    market, seen = venue.market, 0

    def compare() -> None:
        nonlocal seen
        for lease in leases:
            if lease.ready:
                truth = state_after(venue, market.applied_seq)
                bids, asks = truth.levels(lease.instrument_id, EVERY_LEVEL)
                assert lease.books.levels(lease.instrument_id) == (bids, asks)
                seen += bool(bids)

    for _ in range(12):
        leases = []
        stop = market.listen(compare)
        venue.trade(2)
        were_open = [market.books.is_open(1), market.order_books.is_open(2)]
        leases += [market.use_book(1), market.use_order_book(2)]
        assert [lease.ready for lease in leases] == were_open
        venue.trade(3)
        for lease in leases:
            await lease.wait()
            assert lease.ready
        await venue.settle()
        stop()
        for lease in leases:
            lease.release()
            lease.release()
        if venue.flow.rng.random() < 0.5:
            await asyncio.sleep(0.01)
            assert not market.books.is_open(1)
    assert seen > 30
    await venue.close()


async def test_a_book_stays_open_while_somebody_reads_it(tmp_path):
    venue = await MarketVenue(tmp_path).start()
    first, second = venue.market.use_book(1), venue.market.use_book(1)
    await first.wait()
    first.release()
    await asyncio.sleep(0.02)
    assert venue.market.books.is_open(1)
    second.release()
    third = venue.market.use_book(1)
    await asyncio.sleep(0.02)
    assert venue.market.books.is_open(1)
    third.release()
    await asyncio.sleep(0.02)
    assert not venue.market.books.is_open(1)
    with pytest.raises(KeyError):
        venue.market.use_book(77)
    await venue.close()


async def test_an_answer_comes_when_the_order_is_durable_and_in_the_ledger(tmp_path):
    venue = await MarketVenue(tmp_path).start()
    market = venue.market
    ledger = await market.use_account(1)
    request_id, answered = market.expect()
    batch = CommandBatch()
    batch.enter(1, 0, 1, "B", 10, 100_000, source=Source.HTTP, request_id=request_id)
    venue.apply(batch)
    assert not answered.done()
    answer = await asyncio.wait_for(answered, 10)
    assert market.applied_seq >= answer.seq
    assert ledger.order(1, answer.order_id) == ledger.order_after(answer.events)
    assert market.pending == {}
    forgotten, future = market.expect()
    market.forget(forgotten)
    future.cancel()
    assert market.pending == {}
    await venue.close()


async def test_halts_are_seen_and_outlive_a_restart(tmp_path):
    venue = await MarketVenue(tmp_path).start()
    assert venue.market.status(1).state == "trading"
    batch = CommandBatch()
    batch.halt_instrument(1, source=Source.ADMIN, reason="news pending")
    venue.apply(batch)
    assert venue.market.status(1).state == "trading"
    await venue.settle()
    assert venue.market.status(1)[:2] == ("halted", "news pending")
    assert venue.market.status(2).state == "trading"
    await venue.crash()
    await venue.start()
    assert venue.market.status(1)[:2] == ("halted", "news pending")
    batch = CommandBatch()
    batch.resume_instrument(1, source=Source.ADMIN)
    venue.apply(batch)
    await venue.settle()
    assert venue.market.status(1).state == "trading"
    await venue.close()


async def test_an_account_that_is_activated_while_trading_has_its_orders_whole(tmp_path):
    venue = await MarketVenue(tmp_path, seed=4).start()
    venue.trade(40, rolls=False)
    first = [asyncio.create_task(venue.market.use_account(account)) for account in ACCOUNTS]
    second = [asyncio.create_task(venue.market.use_account(account)) for account in ACCOUNTS]
    await asyncio.sleep(0)
    first[0].cancel()
    venue.trade(20, rolls=False)
    for task in (*first[1:], *second):
        await asyncio.wait_for(task, 20)
    await venue.settle()
    for account_id in ACCOUNTS:
        for row in venue.market.ledger.orders(account_id, limit=10_000):
            assert row["time"] > 0
            found = await venue.market.history.find_order(account_id, row["order_id"],
                                                          venue.market.applied_seq)
            assert found == row
        assert await venue.market.history.find_order(
            account_id, venue.market.applied_seq + 5, venue.market.applied_seq) is None
    await venue.close()


async def test_an_account_has_one_watcher(tmp_path):
    venue = await MarketVenue(tmp_path).start()
    watch = await venue.market.watch(1)
    with pytest.raises(ValueError, match="watched already"):
        await venue.market.watch(1)
    assert watch.from_seq == venue.market.applied_seq
    watch.release()
    watch.release()
    (await venue.market.watch(1)).release()
    await venue.close()


async def test_the_kinds_that_wait_for_nobody_leave_nothing_behind(tmp_path):
    venue = await MarketVenue(tmp_path, seed=2).start()
    venue.trade(20)
    await venue.settle()
    market = venue.market
    assert market.ledger.accounts_active() == []
    assert not any(market.books.is_open(number) for number in INSTRUMENTS)
    assert market.applied_seq == venue.matcher.next_seq - 1
    assert market.applied_time_ns == venue.matcher.last_time_ns
    assert (await market.history.answer_of(1)).kind == Kind.INSTRUMENT_DEFINED
    assert await market.history.oldest_seq() == 1
    await venue.close()

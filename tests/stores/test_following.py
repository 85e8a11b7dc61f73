"""The loop that feeds a store: every event once and in order, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine import clock
from engine.breaker import State
from engine.stores import follower
from engine.stores.store import Position, StoreDown, StoreRefused, StoreStopped, Work
from tests.stores.fed import QUICK, FedVenue, until
from tests.stores.file_store import FileStore


def fed(tmp_path: Path, **settings: object) -> tuple[FedVenue, FileStore]:
    store = FileStore(tmp_path / "events.txt")
    return FedVenue(tmp_path / "data", lambda: store, **settings), store  # type: ignore[arg-type]


async def test_a_store_gets_every_event_once_in_order(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    await venue.start()
    for _ in range(30):
        venue.trade(3)
        await asyncio.sleep(0.002)
    await venue.level()
    await venue.close()
    assert store.events() == venue.events()
    assert store.works[-1].live


async def test_a_store_that_comes_late_reads_the_log_and_joins(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    store.max_batch_size = 20
    await venue.start(follow=False)
    venue.trade(200)
    await venue.committed()
    venue.follow()
    for _ in range(40):
        venue.trade(3)
        await asyncio.sleep(0.001)
    await venue.level()
    assert venue.follower.supply.live
    await venue.close()
    assert store.events() == venue.events()
    assert not store.works[0].live


async def test_a_write_is_whole_commands_of_about_the_store_s_size(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    store.max_batch_size = 7
    await venue.start(follow=False)
    venue.trade(100, most=40)
    await venue.committed()
    venue.follow()
    await venue.level()
    await venue.close()
    assert store.events() == venue.events()
    ends = {work.after.seq for work in store.works}
    firsts = {event["seq"] for event in venue.events() if event["first"]}
    assert all(end + 1 in firsts for end in ends if end != venue.last_seq)
    sizes = [sum(batch.event_count for batch in work.batches) for work in store.works]
    assert sum(size <= 7 for size in sizes) > len(sizes) / 2


async def test_a_store_cut_off_by_the_queue_reads_the_log_again(tmp_path: Path) -> None:
    venue, store = fed(tmp_path, units=64)
    await venue.start()
    for _ in range(60):
        venue.trade(20)
        await asyncio.sleep(0.001)
    await venue.level()
    await venue.close()
    assert venue.follower.supply.reader.overflows > 0
    assert store.events() == venue.events()


async def test_a_lost_answer_repeats_nothing(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    lost = 0

    def after(work: Work) -> None:
        nonlocal lost
        lost += 1
        if lost % 3 == 0:
            raise StoreDown("the connection was cut")

    store.after_write = after
    await venue.start()
    for _ in range(30):
        venue.trade(3)
        await asyncio.sleep(0.003)
    store.after_write = lambda work: None
    await venue.level()
    await venue.close()
    assert lost > 3
    assert store.events() == venue.events()


async def test_the_breaker_opens_and_closes_by_itself(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    await venue.start()
    await venue.level()
    down = True

    def trouble(what: str, work: Work | None) -> None:
        if down:
            raise StoreDown("nobody answers")

    store.trouble = trouble
    venue.trade(5)
    await until(lambda: venue.follower.breaker.openings == 1)
    follower = venue.follower
    assert follower.row()["breaker"] in ("open", "half_open")
    assert not follower.connected
    assert not follower.well
    assert follower.row()["error"] == "nobody answers"
    # A store that is away keeps nothing in memory.
    venue.trade(5)
    await venue.committed()
    assert venue.tail.weight_units == 0
    assert follower.lag_events > 0
    down = False
    await venue.level()
    assert follower.breaker.state == State.CLOSED
    assert follower.breaker.openings == 1
    assert follower.row()["error"] == ""
    await venue.close()
    assert store.events() == venue.events()


async def test_a_refused_event_stops_the_store_and_is_named(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    await venue.start()
    venue.trade(40)
    await venue.level()
    bad = venue.last_seq + 25

    def trouble(what: str, work: Work | None) -> None:
        if work is not None and any(batch.first_seq <= bad < batch.first_seq + batch.event_count
                                    for batch in work.batches):
            raise StoreRefused("a text with a zero byte")

    store.trouble = trouble
    venue.trade(60)
    await until(lambda: venue.follower.state == "stopped")
    # Everything before the refused command is stored, nothing behind it.
    command = max(event["seq"] for event in venue.events()
                  if event["first"] and event["seq"] <= bad)
    assert store.seqs() == list(range(1, command))
    assert venue.follower.position.seq == command - 1
    assert str(command) in venue.follower.error
    assert "zero byte" in venue.follower.error
    # Repaired and asked, it goes on.
    store.trouble = lambda what, work: None
    venue.follower.look_again()
    await venue.level()
    await venue.close()
    assert store.events() == venue.events()


async def test_a_mistake_in_a_store_stops_that_store_alone(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    store.trouble = lambda what, work: 1 // 0 if what == "write" else None
    await venue.start()
    venue.trade(5)
    await until(lambda: venue.follower.state == "stopped")
    assert "ZeroDivisionError" in venue.follower.error
    assert store.closed > 0
    venue.trade(5)
    await venue.committed()
    await venue.close()


async def test_a_position_that_was_moved_is_read_again(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    await venue.start()
    venue.trade(20)
    await venue.level()
    await store.reset()
    # The writer's next look finds an empty store.
    store.path.write_bytes(b"")
    venue.follower.look_again()
    venue.trade(20)
    await until(lambda: store.opened > 1)
    await venue.level()
    await venue.close()
    assert store.events() == venue.events()


async def test_another_log_s_store_stops(tmp_path: Path) -> None:
    venue, store = fed(tmp_path / "a")
    (tmp_path / "a").mkdir()
    await venue.start()
    await venue.level()
    await venue.close()
    other = FedVenue(tmp_path / "b", lambda: store)
    await other.start()
    await until(lambda: other.follower.state == "stopped")
    assert "belongs to the log" in other.follower.error
    assert venue.journal.log_id.hex() in other.follower.error
    await other.close()
    assert store.events() == venue.events()


async def test_a_store_ahead_of_the_log_stops(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    await venue.start()
    await venue.level()
    ahead = Position(venue.journal.log_id, 1, venue.last_seq + 1)

    async def opened(log: Position) -> Position:
        return ahead

    store.open = opened  # type: ignore[method-assign]
    venue.follower.look_again()
    await until(lambda: venue.follower.state == "stopped")
    assert "the log lost" in venue.follower.error
    await venue.close()


async def test_crashes_leave_no_hole_and_no_repeat(tmp_path: Path) -> None:
    venue, store = fed(tmp_path, seed=3)
    for round_ in range(12):
        await venue.start()
        for _ in range(round_ * 3):
            venue.trade(4)
            await asyncio.sleep(0.001)
        await venue.crash()
    await venue.start()
    await venue.level()
    await venue.close()
    assert store.seqs() == list(range(1, venue.last_seq + 1))


async def test_a_due_store_is_called_without_an_event(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    await venue.start()
    await venue.level()
    store.due = 1
    venue.follower._bell.set()
    await until(lambda: bool(store.works and not store.works[-1].batches))
    assert store.works[-1].before == store.works[-1].after
    assert store.due_ns() == 0
    await venue.close()


async def test_a_store_is_looked_at_while_nothing_happens(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "LOOK_NS", 20 * clock.NS_PER_MS)
    venue, store = fed(tmp_path)
    await venue.start()
    for _ in range(3):
        venue.trade(20)
        await venue.level()
    writes = venue.follower.meters.writes.value
    await until(lambda: not store.works[-1].batches)
    assert venue.follower.meters.writes.value == writes

    def away(what: str, work: object) -> None:
        raise StoreDown("gone")
    store.trouble = away
    await until(lambda: venue.follower.row()["state"] == "down")
    store.trouble = lambda what, work: None
    await until(lambda: venue.follower.connected)
    # Somebody puts an older one back: it is filled again though no event comes.
    store.path.write_bytes(store.lines()[0])
    await until(lambda: store.seqs() == list(range(1, venue.last_seq + 1)))
    await venue.close()


async def test_what_is_due_in_a_moment_is_shown_before_the_end(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    await venue.start()
    await venue.level()
    before = len(store.works)
    store.due = clock.monotonic_ns() + 8 * clock.NS_PER_MS
    # It wants to be called again and again: once is enough.
    store.after_write = lambda work: setattr(store, "due", clock.monotonic_ns())
    venue.follower.drain()
    assert venue.following is not None
    await asyncio.wait_for(venue.following, 5)
    assert [work.batches for work in store.works[before:]] == [[]]
    await venue.close()


async def test_what_waits_is_written_before_the_end(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    store.batch_interval_ms = 60_000
    await venue.start()
    await venue.level()
    venue.trade(50)
    await venue.close()
    assert store.events() == venue.events()


@pytest.mark.parametrize("what", ["open", "write"])
async def test_a_store_that_hangs_does_not_hold_up_the_end(tmp_path: Path, what: str) -> None:
    venue, store = fed(tmp_path)
    hang = asyncio.Event()
    store.trouble = lambda at, work: hang.wait() if at == what else None
    await venue.start()
    venue.trade(5)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(venue.close(drain_s=0.2), 5)


@pytest.mark.parametrize("trading", [True, False])
async def test_a_store_that_is_behind_rests_while_the_venue_trades(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trading: bool) -> None:
    rests: list[float] = []
    real = asyncio.sleep

    async def sleep(delay_s: float, result: None = None) -> None:
        if delay_s != 0.001:
            rests.append(delay_s)
        await real(0)

    venue, store = fed(tmp_path, stores=msgspec.structs.replace(QUICK, cpu_share=0.25))
    store.max_batch_size = 50
    venue.trading = trading
    await venue.start(follow=False)
    venue.trade(150)
    await venue.committed()
    monkeypatch.setattr(asyncio, "sleep", sleep)
    venue.follow()
    await venue.level()
    monkeypatch.undo()
    await venue.close()
    assert store.events() == venue.events()
    assert len(rests) > 5
    # About three times as long as it worked; else only a turn for the loop.
    assert any(rests) == trading
    worked_s = venue.follower.meters.write.total / 1e9
    assert (sum(rests) > worked_s) == trading


async def test_a_store_under_steady_load_is_as_old_as_what_it_lacks(tmp_path: Path) -> None:
    venue, store = fed(tmp_path)
    begun_ns: list[int] = []

    async def more(work: Work) -> None:
        if len(begun_ns) < 12:
            venue.trade(1)
            await venue.committed()

    store.trouble = lambda what, work: begun_ns.append(clock.monotonic_ns()) \
        if what == "write" and work.batches else None
    store.after_write = more
    await venue.start()
    await until(lambda: len(begun_ns) > 10)
    # What was durable before the last write but one is there.
    assert venue.follower.lag_ms <= (clock.monotonic_ns() - begun_ns[-3]) / 1e6
    store.after_write = lambda work: None
    await venue.level()
    assert venue.follower.lag_ms == 0
    await venue.close()


async def test_segments_that_a_store_needs_are_kept(tmp_path: Path) -> None:
    venue, store = fed(tmp_path, retain_segments=1)
    stopped = True

    def trouble(what: str, work: Work | None) -> None:
        if stopped:
            raise StoreStopped("not now")

    store.trouble = trouble
    await venue.start()

    async def trade_until(so: Callable[[], bool]) -> None:
        # Segments go when a snapshot is in place, which a child writes at its own pace.
        for _ in range(10_000):
            if so():
                break
            venue.trade(10)
            await asyncio.sleep(0.002)
        await until(so)

    await trade_until(lambda: venue.journal.held_segments > 2)
    await venue.committed()
    assert (venue.config.data_dir / "journal" / "00000001.log").exists()
    stopped = False
    venue.follower.look_again()
    await venue.level()
    await trade_until(lambda: venue.journal.held_segments == 0)
    await until(lambda: not (venue.config.data_dir / "journal" / "00000001.log").exists())
    await venue.level()
    await venue.close()
    assert store.seqs() == list(range(1, venue.last_seq + 1))

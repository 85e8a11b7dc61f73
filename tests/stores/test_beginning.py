"""Stores over a log whose beginning was let go: they begin with what a snapshot knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cython_core.event import CommandBatch
from cython_core.model import Source
from engine import clock
from engine.config import SqliteConfig
from engine.errors import NotKeptError
from engine.journal.snapshot import snapshot_name, snapshot_seqs
from engine.journal.storage import FileStorage
from engine.stores import sqlite
from engine.stores.beginning import BEGINNING, beginning_of
from engine.stores.postgres import PostgresStore
from engine.stores.sqlite import SqliteStore
from engine.stores.store import Position
from engine.stores.verify import Report, verify
from tests.stores.fed import FedVenue, until
from tests.stores.postgres_flow import config_of
from tests.stores.rows_model import RowsModel, model_of
from tests.support.postgres import ScratchDatabase

AnyStore = SqliteStore | PostgresStore
Make = Callable[[], AnyStore]
FAR = 100 * 500
WAIT_S = 120.0
# A segment more than what snapshots need is kept.
SETTINGS = {"retain_segments": 2, "snapshot_events": 700}
# What a snapshot does not know of an order from before.
UNKNOWN = {"quantity_lots", "filled_lots", "status", "reason", "user_ref_num", "replaces",
           "time_ns", "updated_seq", "updated_time_ns"}


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path,
         monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the store of one and the same file or database."""
    # The journal keeps what is not safe there.
    monkeypatch.setattr(sqlite, "SAFE_NS", 0)
    if request.param == "sqlite":
        return lambda: SqliteStore(SqliteConfig(batch_interval_ms=2), tmp_path / "data")
    scratch: ScratchDatabase = request.getfixturevalue("postgres_database")
    return lambda: PostgresStore(config_of(scratch, batch_interval_ms=2))


async def shortened(folder: Path, make: Make, follow: bool = False) -> FedVenue:
    """A venue whose log has lost its beginning: the definitions, a halt, a kill, some far orders
    that rest for ever."""
    venue = FedVenue(folder / "data", make, seed=5, **SETTINGS)
    await venue.start(follow)
    if not follow:
        venue.journal.hold("file", 2**62)
    batch = CommandBatch()
    batch.generation = venue.matcher.generation
    for number in range(1, 41):
        batch.enter(1, number, 1, "B", 10 * number, FAR, "1", f"far{number}")
        # The flow cancels by numbers, also after a roll, and by the newest ids: never these.
        batch.enter(2, 0, 1, "B", 7, FAR, "1", source=Source.HTTP,
                    client_order_id=f"far away {number}")
    batch.halt_instrument(2, reason="too wild", actor_account_id=4)
    batch.order_entry(3, 1, enable=False, source=Source.ADMIN)
    venue.apply(batch)
    deadline_s = clock.monotonic_s() + WAIT_S
    # Snapshots come from children, at their own pace; segments go when they are there.
    while clock.monotonic_s() < deadline_s:
        venue.trade(20)
        await venue.committed()
        if follow:
            await venue.level()
        if oldest_of(venue) > 500:
            if not follow:
                # As a store would, before it reads: what is being removed is removed first.
                venue.journal.hold("file", 0)
                await until(lambda: not venue.journal._placing)
            return venue
    raise AssertionError("the log keeps everything")


def oldest_of(venue: FedVenue) -> int:
    """The oldest event that is kept; 0 while the first segment is being removed."""
    try:
        return venue.journal.past.oldest_seq()
    except FileNotFoundError:
        return 0


async def again(venue: FedVenue) -> FedVenue:
    """The same venue after a stop and a start, with its store."""
    await venue.close()
    return await venue.start()


async def checked(venue: FedVenue, store: AnyStore) -> Report:
    """The report of `verify`, which finds nothing."""
    journal = venue.journal
    end = Position(journal.log_id, journal.incarnation, journal.committed_seq)
    report = await verify(store, journal.new_past(), end, Path(venue.config.data_dir))
    assert (report.problems, report.differences, report.exit_code) == ([], [], 0)
    return report


async def rows_of(store: AnyStore, table: str, columns: tuple[str, ...], where: str = "true"
                  ) -> list[tuple[Any, ...]]:
    """Rows by their first column."""
    async with store.snapshot() as snapshot:
        found = await snapshot.fetch(f"SELECT {', '.join(columns)} FROM {table} WHERE {where} "
                                     f"ORDER BY {columns[0]}", ())
    return [tuple(row) for row in found]


def expected(model: RowsModel, table: str, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in columns)
            for _, row in sorted(model.tables[table].items())]


async def assert_whole(venue: FedVenue, store: AnyStore, oldest: int) -> None:
    """The store has all events from `oldest` on, and of before what a snapshot tells."""
    model = model_of(venue.log)
    seqs = [row[0] for row in await rows_of(store, "order_events", ("seq",))]
    assert seqs == list(range(oldest, venue.last_seq + 1))
    for table, columns in {
            "instruments": ("instrument_id", "symbol", "wire_symbol", "price_decimals",
                            "quantity_decimals", "tick_units", "lot_size", "quantity_max_lots",
                            "state", "reason"),
            "accounts": ("account_id", "username", "firm", "role", "open_orders_max",
                         "collar_bps", "messages_per_second", "entry_disabled", "killed")}.items():
        assert await rows_of(store, table, columns) == expected(model, table, columns), table
    columns = tuple(model.tables["orders"][next(iter(model.tables["orders"]))])
    old = tuple(name for name in columns if name not in UNKNOWN)
    old = ("order_id", *(name for name in old if name != "order_id"))
    want = [row for row in expected(model, "orders", old) if row[old.index("remaining_lots")]]
    assert await rows_of(store, "orders", old, "remaining_lots > 0") == want
    assert sum(row[0] < oldest for row in want) > 5
    new = ("order_id", *(name for name in columns
                         if name not in ("order_id", "client_order_id")))
    assert await rows_of(store, "orders", new, f"order_id >= {oldest}") == [
        row for row in expected(model, "orders", new) if row[0] >= oldest]
    for table, key in (("positions", ("account_id", "symbol", "bought_lots", "trades")),):
        late: dict[tuple[Any, ...], list[int]] = {}
        for trade in model.tables["trades"].values():
            if trade["seq"] >= oldest:
                for side in ("maker", "taker"):
                    buys = (trade["taker_side"] == "buy") == (side == "taker")
                    entry = late.setdefault((trade[f"{side}_account_id"], trade["symbol"]), [0, 0])
                    entry[0] += trade["quantity_lots"] * buys
                    entry[1] += 1
        assert sorted(await rows_of(store, table, key)) == sorted(
            (*who, *sums) for who, sums in late.items())


async def test_a_store_that_is_switched_on_later_begins_with_what_is_known(
        tmp_path: Path, make: Make) -> None:
    venue = await shortened(tmp_path, make)
    await again(venue)
    await venue.level()
    store = make()
    async with store.snapshot() as snapshot:
        oldest = snapshot.first_seq
    assert oldest > 500
    await assert_whole(venue, store, oldest)
    report = await checked(venue, store)
    assert report.rows["positions"] and report.rows["instruments"] == 2
    assert f"whole from seq {oldest}" in " ".join(report.notes)
    # It goes on in the same way, also after a restart and when more of the log went.
    for _ in range(20):
        for _ in range(8):
            venue.trade(20)
            await venue.level()
        await again(venue)
        # Snapshots are written and segments removed beside all this, by a child that takes the
        # longer the larger this process is.
        if oldest_of(venue) > oldest:
            break
        for _ in range(40):
            venue.trade(1)
            await venue.level()
            await asyncio.sleep(0.01)
    assert oldest_of(venue) > oldest
    await venue.level()
    await assert_whole(venue, store, oldest)
    report = await checked(venue, store)
    assert "positions" not in report.rows
    assert report.rows["accounts"] == 4
    await venue.close()
    await store.close()


async def test_a_rebuild_beside_trading_begins_with_what_is_known(
        tmp_path: Path, make: Make) -> None:
    venue = await shortened(tmp_path, make, follow=True)
    store = make()
    assert (await checked(venue, store)).rows["order_events"]
    venue.follower.rebuild()
    while venue.follower.row()["rebuilding"]:
        venue.trade(1)
        await venue.committed()
    venue.trade(20)
    await venue.level()
    async with store.snapshot() as snapshot:
        oldest = snapshot.first_seq
    assert oldest > 500
    await assert_whole(venue, store, oldest)
    await checked(venue, store)
    await venue.close()
    await store.close()


async def test_without_a_snapshot_nothing_is_emptied_and_nothing_begins(
        tmp_path: Path, make: Make) -> None:
    venue = await shortened(tmp_path, make, follow=True)
    storage = FileStorage(tmp_path / "data")

    def spoil() -> None:
        for seq in snapshot_seqs(storage):
            path = tmp_path / "data" / snapshot_name(seq)
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    spoil()
    with pytest.raises(NotKeptError, match="no snapshot can be read"):
        beginning_of(venue.journal.new_past())
    store = make()
    before = await rows_of(store, "order_events", ("seq",))
    venue.follower.rebuild()
    await until(lambda: venue.follower.state == "stopped")
    assert "no snapshot can be read" in venue.follower.error
    assert await rows_of(store, "order_events", ("seq",)) == before
    # It goes on where it was when it is asked to look.
    venue.follower.look_again()
    await venue.level()
    assert await rows_of(store, "order_events", ("seq",)) == before
    # An empty one can't begin.
    await venue.follower.store.reset()  # type: ignore[union-attr]
    venue.follower.look_again()
    await until(lambda: venue.follower.state == "stopped")
    assert "no snapshot can be read" in venue.follower.error
    await venue.close()
    await store.close()


async def test_orders_of_before_are_as_they_were(tmp_path: Path) -> None:
    def none() -> SqliteStore:
        raise AssertionError("no store is wanted")
    venue = await shortened(tmp_path, none)
    past = venue.journal.new_past()
    beginning = beginning_of(past)
    assert beginning is not None and beginning.state_seq > beginning.seq > 500
    then = model_of([batch for batch in venue.log if batch.first_seq < beginning.seq])
    known = then.tables["orders"]
    place = {name: at for at, name in enumerate(BEGINNING["orders"])}
    assert len(beginning.tables["orders"]) > 5
    for row in beginning.tables["orders"]:
        want = known[row[0]]
        assert row[place["remaining_lots"]] == want["remaining_lots"] > 0
        assert row[place["client_order_id"]] == want["client_order_id"]
        assert row[place["filled_lots"]] <= want["filled_lots"]
        assert row[place["quantity_lots"]] == row[place["filled_lots"]] + want["remaining_lots"]
    await venue.close()

"""Runs of events as rows against a slow model, over random flow and runs cut at any place."""

from __future__ import annotations

import random
from functools import cache

import pytest

from cython_core.errors import CoreError
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from cython_core.model import Source
from cython_core.rows import COLUMNS, Rows
from engine.stores.tables import new_rows
from tests.market.orders_model import OrdersModel
from tests.oracle.random_flow import RandomFlow
from tests.oracle.venue_pair import VenuePair
from tests.stores.rows_model import TABLES, Folded, RowsModel, model_of


@cache
def random_log(seed: int, operations: int = 1_500) -> list[EventBatch]:
    """The events of a random flow over every kind of order."""
    pair = VenuePair()
    flow = RandomFlow(seed, pair)
    flow.define()
    flow.run(operations)
    return pair.log


@cache
def random_model(seed: int) -> RowsModel:
    return model_of(random_log(seed))


def assert_same(found: Folded, model: RowsModel) -> None:
    for name in TABLES:
        assert found.rows(name) == model.rows(name), name


@pytest.mark.parametrize("seed", range(4))
def test_one_run_is_the_model(seed):
    rows, folded = new_rows(), Folded()
    for batch in random_log(seed):
        assert rows.apply(batch)
    assert rows.count("order_changes") == rows.count("order_heirs") == 0
    folded.fold(rows)
    assert_same(folded, random_model(seed))


@pytest.mark.parametrize("seed", range(8))
def test_runs_cut_anywhere_fold_into_the_model(seed):
    """Also with a new Rows now and then, as after a restart; batches may be told again."""
    log, chance = random_log(seed % 4), random.Random(seed)
    rows, folded = new_rows(), Folded()
    heirs = 0
    for position, batch in enumerate(log):
        while not rows.apply(batch, limit_rows=chance.choice((0, 1, 5, 50))):
            heirs += rows.count("order_heirs")
            folded.fold(rows)
            rows.clear()
        if chance.random() < 0.4:
            folded.fold(rows)
            rows.clear()
        if chance.random() < 0.1:
            folded.fold(rows)
            rows = restarted(rows, log[:position + 1])
        if chance.random() < 0.1:
            before = rows.events
            assert rows.apply(batch)
            assert rows.events == before
    folded.fold(rows)
    assert heirs
    assert_same(folded, random_model(seed % 4))


def restarted(rows: Rows, before: list[EventBatch]) -> Rows:
    """Another object that goes on behind `rows`, told of the instruments."""
    fresh = new_rows(rows.applied_seq)
    for batch in before:
        for event in batch.dicts():
            if event["kind"] == "instrument_defined":
                fresh.define(event["instrument_id"], event["symbol"])
    return fresh


def test_a_limit_cuts_between_commands():
    log = random_log(1)
    firsts = {event["seq"] for batch in log for event in batch.dicts() if event["first"]}
    for batch in log:
        rows = restarted(new_rows(batch.first_seq - 1), log)
        while not rows.apply(batch, limit_rows=3):
            assert rows.events >= 3
            assert rows.applied_seq + 1 in firsts
            rows.clear()
        assert rows.applied_seq == batch.first_seq + batch.event_count - 1


def test_until_stops_before_the_first_command_of_that_time():
    log = random_log(2)
    times = sorted({batch.dicts()[0]["time_ns"] for batch in log})
    middle = times[len(times) // 2]
    before = [event for batch in log for event in batch.dicts() if event["time_ns"] < middle]
    rows = new_rows()
    stopped = next(batch for batch in log if not rows.apply(batch, until_ns=middle))
    assert not rows.apply(stopped, until_ns=middle)
    assert rows.applied_seq == before[-1]["seq"]
    assert rows.last_time_ns == before[-1]["time_ns"] < middle
    assert rows.count("order_events") == rows.events == len(before)
    assert rows.apply(stopped, until_ns=stopped.dicts()[-1]["time_ns"] + 1)


def test_a_hole_an_unknown_instrument_and_half_a_command_are_refused():
    log = random_log(0)
    with pytest.raises(CoreError, match="events begin at"):
        new_rows().apply(log[1])
    trading = next(batch for batch in log if batch.dicts()[0]["kind"] == "accepted")
    with pytest.raises(CoreError, match="not defined"):
        new_rows(trading.first_seq - 1).apply(trading)
    fill = next(event["seq"] for batch in log for event in batch.dicts()
                if event["kind"] == "fill")
    batch = next(batch for batch in log if batch.first_seq + batch.event_count > fill)
    with pytest.raises(CoreError, match="middle of a command"):
        restarted(new_rows(fill - 1), log).apply(batch)


def test_other_shapes_of_the_same_rows():
    rows = new_rows()
    for batch in random_log(3):
        rows.apply(batch)
    for table, columns in COLUMNS.items():
        whole = rows.rows(table)
        assert rows.count(table) == len(whole)
        assert rows.flat(table) == [value for row in whole for value in row]
        assert rows.rows(table, 3, 7) == whole[3:7]
        assert rows.flat(table, 3, 7) == [value for row in whole[3:7] for value in row]
        assert rows.rows(table, len(whole) + 5) == []
        found = {name: column(*arrays, len(whole)) for name, arrays in
                 rows.arrays(table).items()}
        assert tuple(found) == columns
        assert list(zip(*found.values(), strict=True)) == whole
    with pytest.raises(KeyError):
        rows.rows("order")


def column(kind: str, validity: bytearray | None, *buffers_and_count) -> list:
    """A column read by pyarrow."""
    import pyarrow as pa

    *buffers, count = buffers_and_count
    bitmap = None if validity is None else pa.py_buffer(validity)
    types = {"int64": pa.int64(), "int128": pa.decimal128(38, 0), "bool": pa.bool_(),
             "text": pa.string(), "word": pa.int32()}
    data = [bitmap, *(pa.py_buffer(buffer) for buffer in buffers if not isinstance(buffer, list))]
    values = pa.Array.from_buffers(types[kind], count, data).to_pylist()
    if kind == "word":
        return [None if value is None else buffers[1][value] for value in values]
    if kind == "int128":
        return [int(value) for value in values]
    return values


def test_only_what_is_kept_is_collected():
    whole, some = new_rows(), new_rows(keep=("trades", "candles"))
    for batch in random_log(0):
        whole.apply(batch)
        some.apply(batch)
    assert some.rows("trades") == whole.rows("trades")
    assert some.rows("candles") == whole.rows("candles")
    assert some.count("orders") == some.count("order_events") == some.count("positions") == 0
    assert some.events == whole.events
    with pytest.raises(KeyError):
        new_rows(keep=("trade",))


@pytest.mark.parametrize("seed", range(4))
def test_orders_are_those_that_http_shows(seed):
    """But for refused ones, and for the filled quantity of orders that met a session roll."""
    shown, model = OrdersModel(), random_model(seed)
    rolled = set()
    for batch in random_log(seed):
        shown.apply(batch)
        rolled |= {event["order_id"] for event in batch.dicts() if event["kind"] == "announced"}
    accepted = {order_id: shown.shown(row) for order_id, row in shown.orders.items()
                if row["_status"] != "rejected"}
    assert accepted.keys() == model.tables["orders"].keys()
    for order_id, order in accepted.items():
        row = model.tables["orders"][order_id]
        for name in ("client_order_id", "symbol", "side", "order_type", "time_in_force",
                     "reason"):
            assert row[name] == order[name]
        assert row["time_ns"] == order["time"]
        assert row["account_id"] == shown.owner[order_id]
        assert str(row["remaining_lots"]) == order["remaining_quantity"]
        if order_id in rolled:
            assert row["status"] in (order["status"], "partially_filled")
        else:
            assert str(row["quantity_lots"]) == order["quantity"]
            assert str(row["filled_lots"]) == order["filled_quantity"]
            assert row["status"] == order["status"]
        traded = sum(trade["quantity_lots"] for trade in model.tables["trades"].values()
                     if order_id in (trade["maker_order_id"], trade["taker_order_id"]))
        # A self-trade never has one order on both sides, so each trade counts once.
        assert row["filled_lots"] - traded == chains_done(seed).get(order_id, 0)


@cache
def chains_done(seed: int) -> dict[int, int]:
    return {event["order_id"]: event["chain_done_lots"] for batch in random_log(seed)
            for event in batch.dicts() if event["kind"] == "replaced"}


def test_slices_and_scaled_numbers():
    rows = new_rows()
    for batch in random_log(3):
        rows.apply(batch)
    whole = rows.rows("order_events")
    place, symbol = COLUMNS["order_events"].index("price_units"), 3
    assert COLUMNS["order_events"][symbol] == "symbol"
    for start, stop in ((0, 5), (7, 8), (9, 500), (len(whole) - 1, None), (10**6, None),
                        (5, 2)):
        part = whole[start:stop]
        found = {name: column(*arrays, len(part)) for name, arrays in
                 rows.arrays("order_events", start, stop).items()}
        assert list(zip(*found.values(), strict=True)) == part
        factors = {"INSTR1": 10**19, "INSTR2": 3}
        scaled = rows.scaled("order_events", "price_units", factors, start, stop)
        assert column("int128", None, scaled, len(part)) == [
            (row[place] or 0) * factors.get(row[symbol], 0) for row in part]
    with pytest.raises(KeyError):
        rows.scaled("order_events", "kind", {})
    with pytest.raises(KeyError):
        rows.scaled("order_events", "price", {})


def log_in_two(first: CommandBatch, second: CommandBatch) -> list[EventBatch]:
    """The events of one instrument, two accounts, and these commands."""
    matcher, begin, log = Matcher(), CommandBatch(), []
    begin.define_instrument(1, "BTC", "BTC", 2, 1, 0)
    for account_id in (1, 2):
        begin.define_account(account_id, f"A{account_id}")
    for number, commands in enumerate((begin, first, second)):
        log.append(EventBatch())
        matcher.apply(commands, log[-1], number + 1)
    return log


def fold_each(log: list[EventBatch]) -> Folded:
    """Every batch is a run of its own."""
    rows, folded = new_rows(), Folded()
    for batch in log:
        rows.apply(batch)
        folded.fold(rows)
        rows.clear()
    return folded


def test_a_clients_id_goes_on_through_several_replaces_in_one_run():
    private = {"source": Source.HTTP, "request_id": 1}
    first, second = CommandBatch(), CommandBatch()
    first.enter(1, 0, 1, "B", 10, 100, client_order_id="mine", **private)
    for order_id in (4, 5, 6):
        second.replace(1, 0, 0, 10, 100 + order_id, order_id=order_id, **private)
    log = log_in_two(first, second)
    folded = fold_each(log)
    assert_same(folded, model_of(log))
    assert {row["client_order_id"] for row in folded.tables["orders"].values()} == {"mine"}
    assert folded.tables["orders"][4]["replaced_by"] == 5
    rows = restarted(new_rows(4), log)
    rows.apply(log[2])
    assert rows.rows("order_heirs") == [(5, 4), (6, 4), (7, 4)]


def test_a_definition_after_a_halt_or_a_kill_has_the_last_word_on_the_seq():
    first, second = CommandBatch(), CommandBatch()
    second.halt_instrument(1, reason="news")
    second.order_entry(2, 0, False, source=Source.ADMIN)
    second.define_instrument(1, "BTC", "BTC", 2, 5, 0)
    second.define_account(2, "A2", open_orders_max=7)
    log = log_in_two(first, second)
    folded = fold_each([log[0], log[2]])
    assert_same(folded, model_of(log))
    assert folded.tables["instruments"][1]["state"] == "halted"
    assert folded.tables["instruments"][1]["seq"] == 6
    assert folded.tables["accounts"][2]["killed"] is True
    assert folded.tables["accounts"][2]["seq"] == 7

"""Rows as binary COPY, read back by a reader written from PostgreSQL's own description of it."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from cython_core import pgcopy
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from cython_core.rows import COLUMNS, Rows
from engine.stores.tables import new_rows
from tests.stores.test_rows import random_log

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
SIZES = {"bigint": ">q", "integer": ">i", "smallint": ">h", "boolean": ">?"}
YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)


def read_fields(stream: bytes) -> Iterator[list[bytes | None]]:
    """The fields of every row."""
    assert stream[:11] == SIGNATURE
    assert struct.unpack_from(">II", stream, 11) == (0, 0)
    at = 19
    while True:
        count, = struct.unpack_from(">h", stream, at)
        at += 2
        if count == -1:
            assert at == len(stream)
            return
        row: list[bytes | None] = []
        for _ in range(count):
            length, = struct.unpack_from(">i", stream, at)
            at += 4
            row.append(None if length == -1 else stream[at:at + length])
            assert length == -1 or len(row[-1] or b"") == length
            at += max(length, 0)
        yield row


def read_value(kind: str, data: bytes | None) -> Any:
    """A field as Python has it; times are microseconds since 1970."""
    if data is None:
        return None
    if kind in SIZES:
        value, = struct.unpack(SIZES[kind], data)
        return value
    if kind == "text":
        return data.decode("utf-8")
    if kind == "timestamptz":
        micros, = struct.unpack(">q", data)
        return (YEAR_2000 + timedelta(microseconds=micros) - datetime(1970, 1, 1, tzinfo=UTC)
                ) // timedelta(microseconds=1)
    assert kind == "numeric"
    count, weight, sign, scale = struct.unpack_from(">hhHH", data)
    digits = struct.unpack_from(f">{count}H", data, 8)
    assert (sign, scale, len(data)) == (0, 0, 8 + 2 * count)
    assert all(digit < 10_000 for digit in digits)
    # The form that PostgreSQL itself has: no zeros at either end.
    assert not count or (digits[0] and digits[-1])
    return sum(digit * 10_000 ** (weight - place) for place, digit in enumerate(digits))


def read_table(rows: Rows, table: str, start: int = 0, stop: int | None = None) -> list[tuple]:
    """What a stream holds, without the columns of times that Rows has not."""
    columns = pgcopy.COLUMNS[table]
    found = []
    for fields in read_fields(bytes(pgcopy.encode(rows, table, start, stop))):
        row = {name: read_value(kind, data)
               for (name, kind), data in zip(columns, fields, strict=True)}
        for name, kind in columns:
            if kind == "timestamptz":
                assert row[name] == row[f"{name}_ns"] // 1000
        found.append(tuple(row[name] for name in COLUMNS[table]))
    return found


@pytest.mark.parametrize("seed", range(2))
def test_every_table_reads_back_as_its_rows(seed):
    rows = new_rows()
    for number, batch in enumerate(random_log(seed)):
        rows.apply(batch)
        if number == 3:
            rows.clear()
    assert rows.count("order_changes")
    assert rows.count("order_events") > 1_000
    for table in COLUMNS:
        assert read_table(rows, table) == rows.rows(table), table
        assert read_table(rows, table, 2, 5) == rows.rows(table, 2, 5)
        assert read_table(rows, table, 5, 2) == []


async def test_a_real_server_reads_every_table(postgres_database):
    rows = new_rows()
    for number, batch in enumerate(random_log(1)):
        rows.apply(batch)
        if number == 5:
            rows.clear()
    connection = await asyncpg.connect(postgres_database.url)
    try:
        for table, columns in pgcopy.COLUMNS.items():
            described = ", ".join(f"{name} {kind}" for name, kind in columns)
            await connection.execute(f"CREATE TEMP TABLE {table} ({described})")
            await connection.copy_to_table(
                table, source=io.BytesIO(pgcopy.encode(rows, table)), format="binary")
            names = ", ".join(COLUMNS[table])
            found = [tuple(row) for row in await connection.fetch(f"SELECT {names} FROM {table}")]
            assert sorted(found, key=repr) == sorted(rows.rows(table), key=repr), table
            for name, kind in columns:
                if kind == "timestamptz":
                    wrong = await connection.fetchval(
                        f"SELECT count(*) FROM {table} WHERE {name} <> "
                        f"timestamptz 'epoch' + {name}_ns / 1000 * interval '1 microsecond'")
                    assert wrong == 0
    finally:
        await connection.close()


def test_columns_are_those_of_rows_and_times():
    for table, columns in pgcopy.COLUMNS.items():
        assert tuple(name for name, kind in columns if kind != "timestamptz") == COLUMNS[table]
    assert [name for name, _ in pgcopy.COLUMNS["trades"]] == [
        "match_number", "seq", "time", "time_ns", "symbol", "price_units", "quantity_lots",
        "taker_side", "maker_order_id", "taker_order_id", "maker_account_id", "taker_account_id"]


def trade_log(quantity_lots: int, price_units: int, time_ns: int, client_order: str = "",
              ) -> EventBatch:
    """One account sells to another."""
    matcher, events, commands = Matcher(), EventBatch(), CommandBatch()
    commands.define_instrument(1, "BTC", "BTC", 2, 1, 0, quantity_max_lots=2**63)
    for account_id in (1, 2):
        commands.define_account(account_id, f"A{account_id}", notional_max=0)
    commands.enter(1, 1, 1, "S", quantity_lots, price_units, client_order=client_order)
    commands.enter(2, 1, 1, "B", quantity_lots, price_units, client_order=client_order)
    matcher.apply(commands, events, time_ns)
    return events


@pytest.mark.parametrize(("quantity_lots", "price_units"), [
    (1, 1), (9_999, 1), (10_000, 1), (10_001, 10_000), (2**32 - 1, 1_999_999_999),
    (10**16, 10**8), (2**62, 1_999_999_999)])
def test_sums_are_exact_beyond_64_bits(quantity_lots, price_units):
    rows = new_rows()
    rows.apply(trade_log(quantity_lots, price_units, 0))
    value = quantity_lots * price_units
    expected = [(2, "BTC", quantity_lots, quantity_lots, 0, value, 0, 1, 6, 0),
                (1, "BTC", -quantity_lots, 0, quantity_lots, 0, value, 1, 6, 0)]
    assert rows.rows("positions") == expected
    assert read_table(rows, "positions") == expected


def test_scaled_numbers_have_38_digits_at_most():
    rows = new_rows()
    rows.apply(trade_log(10**18, 1, 0))
    for factor in (1, 10**19):
        scaled = rows.scaled("positions", "position_lots", {"BTC": factor})
        assert [int.from_bytes(scaled[at:at + 16], "little", signed=True) for at in (0, 16)] == [
            10**18 * factor, -10**18 * factor]
    rows = new_rows()
    rows.apply(trade_log(2**63 - 1, 1, 0))
    with pytest.raises(OverflowError, match="38 digits"):
        rows.scaled("positions", "position_lots", {"BTC": 2**64 - 1})
    with pytest.raises(OverflowError):
        rows.scaled("positions", "position_lots", {"BTC": 2**64})


@pytest.mark.parametrize("time_ns", [0, 999, 1_000, 946_684_800_000_000_000 - 1,
                                     1_764_000_000_123_456_789, 2**62])
def test_times_are_cut_to_microseconds(time_ns):
    rows = new_rows()
    rows.apply(trade_log(1, 1, time_ns))
    assert [row[2] for row in read_table(rows, "trades")] == [time_ns]


def test_any_byte_of_a_clients_text_can_be_stored():
    """Its free text may hold anything; SQL has no NUL, and wants UTF-8."""
    batch = trade_log(1, 1, 0, "marker-of-text")
    for raw, shown in ((bytes(range(14)), "\ufffd" + "".join(map(chr, range(1, 14)))),
                       (bytes(range(242, 256)), "".join(map(chr, range(242, 256)))),
                       (b"a\0b" + bytes(11), "a\ufffdb"), (b" x ".ljust(14), " x"),
                       (b"".ljust(14), None), (bytes(14), None)):
        data = bytes(batch).replace(b"marker-of-text", raw)
        rows = new_rows()
        rows.apply(EventBatch.from_bytes(data, 1))
        place = COLUMNS["orders"].index("client_order")
        assert [row[place] for row in rows.rows("orders")] == [shown, shown]
        assert [row[place] for row in read_table(rows, "orders")] == [shown, shown]


def test_an_unknown_table_is_refused():
    with pytest.raises(KeyError):
        pgcopy.encode(new_rows(), "order")
    with pytest.raises(TypeError):
        pgcopy.encode(None, "orders")

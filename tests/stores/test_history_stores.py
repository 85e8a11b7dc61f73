"""History from the real stores, filled from a log, against the slow model of all tables."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config import SqliteConfig
from engine.past import KEY_LENGTH, Ask, PastError, Row
from engine.stores.history import SqlHistory
from engine.stores.postgres import PostgresStore
from engine.stores.sqlite import SqliteStore
from tests.stores.past_data import Data, answer
from tests.stores.postgres_flow import (
    LOG_ID,
    SmallFollower,
    config_of,
    days_log,
    days_model,
    last_seq,
)
from tests.stores.rows_model import TABLES
from tests.support.postgres import ScratchDatabase

LOG = days_log()
END = last_seq(LOG[-1])


def model() -> Data:
    """The model's tables as lists."""
    def rows(table: str) -> list[dict[str, Any]]:
        return [dict(zip(TABLES[table][0], row, strict=True)) for row in days_model().rows(table)]

    return Data(rows("orders"), rows("order_events"), rows("trades"), rows("candles"))


DATA = model()
TIMES = sorted({row["time_ns"] for row in DATA.events})
SYMBOLS = sorted({row["symbol"] for row in DATA.trades})
ACCOUNTS = sorted({row["account_id"] for row in DATA.orders})


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path,
                postgres_database: ScratchDatabase) -> AsyncIterator[Any]:
    made: Any = (SqliteStore(SqliteConfig(), tmp_path) if request.param == "sqlite"
                 else PostgresStore(config_of(postgres_database, url=postgres_database.plain_url)))
    await SmallFollower(made, LOG, run_max=200).run()
    yield made
    await made.close()


def history_of(store: Any) -> SqlHistory:
    return SqlHistory([store.name], lambda name: store)


async def everything(past: SqlHistory, ask: Ask) -> list[Row]:
    """All pages, one after the other."""
    found: list[Row] = []
    while True:
        page = await past.page(ask)
        assert page.place[:3] == (LOG_ID.hex(), 0, END)
        found += page.rows
        if not page.more:
            return found
        ask = msgspec.structs.replace(ask, after=tuple(page.rows[-1][:KEY_LENGTH[ask.kind]]))


async def test_every_question_has_the_answer_of_the_log(store: Any) -> None:
    past, chance = history_of(store), random.Random(1)
    for kind in ("orders", "trades", "executions"):
        ask = Ask(kind=kind)  # type: ignore[arg-type]
        assert await everything(past, ask) == answer(DATA, ask) != []
    for number in range(80):
        kind: Any = ("orders", "trades", "executions", "candles")[number % 4]
        mine = kind in ("orders", "executions")
        ask = Ask(
            kind=kind, symbol=chance.choice(SYMBOLS if kind == "candles" else ["", *SYMBOLS]),
            account_id=chance.choice([0, *ACCOUNTS]) if mine else 0,
            side="" if kind == "candles" else chance.choice(["", "buy", "sell"]),
            statuses=chance.choice([(), ("open", "partially_filled"), ("canceled",)])
            if kind == "orders" else (),
            from_ns=chance.choice([0, *TIMES]), to_ns=chance.choice([0, *TIMES]),
            newest_first=chance.choice([True, False]), limit=chance.choice([7, 100, 1000]),
            interval_s=chance.choice([1, 60, 300, 86400]) if kind == "candles" else 0)
        assert await everything(past, ask) == answer(DATA, ask), ask


async def test_scales_are_those_of_the_instruments(store: Any) -> None:
    scales = await history_of(store).scales()
    assert {symbol: tuple(scale) for symbol, scale in scales.items()} == {
        row[1]: (row[3], row[4], row[6]) for row in days_model().rows("instruments")}


async def test_a_statement_of_a_strangers(store: Any) -> None:
    past = history_of(store)
    mark = "$1" if store.name == "postgres" else "?"
    result = await past.query(
        "", f"SELECT order_id, status FROM orders WHERE symbol = {mark} ORDER BY order_id",
        [SYMBOLS[0]], 5_000, 10)
    assert list(result.columns) == ["order_id", "status"] and result.truncated
    wanted = [(row["order_id"], row["status"]) for row in DATA.orders
              if row["symbol"] == SYMBOLS[0]]
    assert list(result.rows) == sorted(wanted)[:10]
    before = await everything(past, Ask(kind="trades"))
    for sql in ("DELETE FROM trades", "DROP TABLE trades", "SELECT 1; DELETE FROM trades",
                "INSERT INTO trades (match_number) VALUES (1)", "SELECT nothing FROM trades",
                "nonsense", "", "COMMIT; DELETE FROM trades"):
        with pytest.raises(PastError) as caught:
            await past.query("", sql, [], 5_000, 10)
        assert (caught.value.status, caught.value.code) == (400, "query_refused"), sql
    assert await everything(past, Ask(kind="trades")) == before
    endless = ("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
               "SELECT max(x) FROM n")
    with pytest.raises(PastError) as caught:
        await past.query("", endless, [], 200, 10)
    assert (caught.value.status, caught.value.code) == (503, "query_timeout")

"""Pages of the past from real databases, against a plain reading of the same lists."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.past import KEY_LENGTH, Ask, PastError, Row
from engine.stores import history
from engine.stores.history import Reader, SqlHistory
from engine.stores.store import QueryTimeout, StoreDown
from tests.stores.past_data import (
    BEGAN_NS,
    SYMBOLS,
    Data,
    PostgresReads,
    SqliteReads,
    answer,
    make,
)

DATA = make(400, random.Random(7))
TIMES = sorted({event["time_ns"] for event in DATA.events})


@asynccontextmanager
async def reading(where: str, url: str = "", data: Data = DATA) -> AsyncIterator[Any]:
    """The data in one of the databases."""
    reads = SqliteReads(data) if where == "sqlite" else await PostgresReads.make(url, data)
    try:
        yield reads
    finally:
        if where == "sqlite":
            reads.connection.close()
        else:
            await reads.connection.close()


async def everything(past: Any, ask: Ask) -> list[Row]:
    """All pages, one after the other."""
    found: list[Row] = []
    while True:
        page = await past.page(ask)
        assert len(page.rows) <= ask.limit
        found += page.rows
        assert page.place == DATA.place
        if not page.more:
            return found
        assert page.rows
        ask = msgspec.structs.replace(ask, after=tuple(page.rows[-1][:KEY_LENGTH[ask.kind]]))


times = st.sampled_from([0, BEGAN_NS - 5, TIMES[-1] + 1, *TIMES, *(one + 1 for one in TIMES)])
asks = st.builds(
    Ask, kind=st.sampled_from(["orders", "trades", "executions", "candles"]),
    symbol=st.sampled_from([*SYMBOLS]), from_ns=times, to_ns=times,
    account_id=st.sampled_from([0, 1, 2]), side=st.sampled_from(["", "buy", "sell"]),
    statuses=st.sampled_from([(), ("open",), ("open", "partially_filled")]),
    newest_first=st.booleans(), interval_s=st.sampled_from([1, 60, 300, 86400]),
    last_seq=st.sampled_from([0, DATA.events[200]["seq"], DATA.events[-1]["seq"]]),
    limit=st.sampled_from([1, 2, 3, 7, 50, 1000]), store=st.just(""))


def plain(ask: Ask) -> Ask:
    """Only filters that its kind has."""
    if ask.kind != "orders":
        ask = msgspec.structs.replace(ask, statuses=())
    if ask.kind in ("trades", "candles"):
        ask = msgspec.structs.replace(ask, account_id=0)
    if ask.kind == "candles":
        ask = msgspec.structs.replace(ask, side="", last_seq=0)
    return ask


@settings(max_examples=150, deadline=None)
@given(ask=asks, everywhere=st.booleans())
def test_pages_are_the_whole_answer(ask: Ask, everywhere: bool) -> None:
    ask = plain(ask)
    if everywhere and ask.kind != "candles":
        ask = msgspec.structs.replace(ask, symbol="")

    async def run() -> list[Row]:
        async with reading("sqlite") as reads:
            return await everything(Reader(reads), ask)

    assert asyncio.run(run()) == answer(DATA, ask)


async def test_postgresql_answers_the_same(postgres_urls: tuple[str, str]) -> None:
    chance = random.Random(11)
    async with reading("postgres", postgres_urls[0]) as reads:
        reader = Reader(reads)
        for _ in range(150):
            ask = plain(Ask(
                kind=chance.choice(["orders", "trades", "executions", "candles"]),
                symbol=chance.choice([*SYMBOLS]), from_ns=chance.choice([0, *TIMES]),
                to_ns=chance.choice([0, *TIMES]), account_id=chance.choice([0, 1, 2]),
                side=chance.choice(["", "buy", "sell"]),
                statuses=chance.choice([(), ("open",), ("open", "filled")]),
                newest_first=chance.choice([True, False]),
                interval_s=chance.choice([1, 60, 300, 86400]),
                last_seq=chance.choice([0, DATA.events[300]["seq"]]),
                limit=chance.choice([3, 50, 1000])))
            assert await everything(reader, ask) == answer(DATA, ask)


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
async def test_an_empty_store_says_so(
        where: str, postgres_urls: tuple[str, str]) -> None:
    empty = Data([], [], [], [])
    async with reading(where, postgres_urls[0], empty) as reads:
        page = await Reader(reads).page(Ask(kind="trades", from_ns=5, to_ns=BEGAN_NS))
        assert (page.rows, page.more, page.place.seq) == ([], False, 0)
        await _run(reads, "DELETE FROM store_position")
        page = await Reader(reads).page(Ask(kind="executions"))
        assert (page.rows, page.more, page.place.log_id) == ([], False, "")


async def _run(reads: Any, sql: str) -> None:
    done = reads.connection.execute(sql)
    if reads.name == "postgres":
        await done


async def test_rows_that_come_between_pages_change_nothing_of_what_was_there() -> None:
    chance = random.Random(3)
    whole = make(300, chance)
    cut = whole.events[150]["seq"]
    early = Data([row for row in whole.orders if row["order_id"] <= cut],
                 whole.events[:151], [row for row in whole.trades if row["seq"] <= cut], [])
    ask = Ask(kind="orders", limit=10)
    reads = SqliteReads(early)
    first = await Reader(reads).page(ask)
    later = SqliteReads(whole)
    rest = await _rest(Reader(later), ask, first.rows)
    assert [*first.rows, *rest] == answer(early, ask)
    # Oldest first, what has come since is at the end.
    ask = Ask(kind="orders", limit=10, newest_first=False)
    first = await Reader(reads).page(ask)
    assert [*first.rows, *await _rest(Reader(later), ask, first.rows)] == answer(whole, ask)


async def _rest(reader: Reader, ask: Ask, rows: Sequence[Row]) -> list[Row]:
    found: list[Row] = []
    while True:
        page = await reader.page(msgspec.structs.replace(ask, after=(rows[-1][0],)))
        found += page.rows
        rows = page.rows
        if not page.more:
            return found


async def test_a_range_of_times_is_found_in_the_ids_and_known_then() -> None:
    reads = SqliteReads(DATA)
    reader = Reader(reads)
    ask = Ask(kind="trades", from_ns=TIMES[40], to_ns=TIMES[60])
    await reader.page(ask)
    first = reads.asked
    await reader.page(ask)
    assert first == 4 and reads.asked - first == 2
    sql, parameters = history.page_statement(ask, history.Bounds(5, 9), postgres=True)
    assert "match_number >= $1" in sql and parameters[:2] == [5, 9]


async def test_another_log_in_the_store_is_searched_anew() -> None:
    reads = SqliteReads(DATA)
    reader = Reader(reads)
    ask = Ask(kind="orders", from_ns=TIMES[40], to_ns=TIMES[60])
    assert (await reader.page(ask)).rows == answer(DATA, ask)
    other = make(300, random.Random(1), first_seq=5_000)
    for table in ("orders", "order_events", "trades"):
        reads.connection.execute(f"DELETE FROM {table}")
    reads.connection.execute("UPDATE store_position SET log_id = 'cd'")
    fresh = SqliteReads(other)
    for table in ("orders", "order_events"):
        for row in fresh.connection.execute(f"SELECT * FROM {table}"):
            reads.connection.execute(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    assert (await reader.page(ask)).rows == answer(other, ask)[:1000]


async def test_scales_follow_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = SqliteReads(DATA)
    reader = Reader(reads)
    assert (await reader.scales(["DOGE"]))["DOGE"] == (0, 0, 1)
    await reader.scales(["BTC-USDT"])
    assert reads.asked == 1
    reads.connection.execute("UPDATE instruments SET price_decimals = 5")
    assert (await reader.scales(["DOGE"]))["DOGE"] == (0, 0, 1)
    assert (await reader.scales(None))["DOGE"] == (5, 0, 1)
    reads.connection.execute("UPDATE instruments SET price_decimals = 6")
    monkeypatch.setattr(history, "SCALES_NS", -1)
    assert (await reader.scales(["DOGE"]))["DOGE"] == (6, 0, 1)


async def test_many_trades_in_a_second_make_short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "TRADES_READ_MAX", 10)
    monkeypatch.setattr(history, "TRADES_AT_ONCE", 4)
    reader = Reader(SqliteReads(DATA))
    for newest_first in (True, False):
        ask = Ask(kind="candles", symbol="DOGE", interval_s=1, newest_first=newest_first)
        page = await reader.page(ask)
        assert 0 < len(page.rows) < 20 and page.more
        assert await everything(reader, ask) == answer(DATA, ask)


class Broken(SqliteReads):
    """A store that is down."""

    def __init__(self, data: Data, error: StoreError | None = None) -> None:
        super().__init__(data)
        self.error: StoreError | None = error or StoreError("it is away", public="it is away")

    async def fetch(self, sql: str, parameters: Sequence[Any], limit: int) -> list[Row]:
        if self.error is None:
            return await super().fetch(sql, parameters, limit)
        self.asked += 1
        raise self.error


def reads_all(*stores: Any) -> SqlHistory:
    """History that these stores answer."""
    by_name = {store.name: store for store in stores}
    return SqlHistory(list(by_name), by_name.get)


async def test_the_next_store_answers_for_one_that_is_down() -> None:
    broken = Broken(DATA)
    broken.name = "postgres"
    both = reads_all(broken, SqliteReads(DATA))
    page = await both.page(Ask(kind="trades"))
    assert page.store == "sqlite" and page.rows
    assert "BTC-USDT" in await both.scales()
    with pytest.raises(PastError, match="it is away") as caught:
        await both.page(Ask(kind="trades", store="postgres"))
    assert (caught.value.status, caught.value.code) == (503, "history_unavailable")
    with pytest.raises(PastError, match="it is away"):
        await both.place()
    assert (await both.place("sqlite"))[1].seq == DATA.place[2]


async def test_a_store_that_is_away_is_not_asked_by_everybody() -> None:
    away = Broken(DATA, StoreDown("it fell", public="the server is gone"))
    past = reads_all(away)
    for _ in range(5):
        with pytest.raises(PastError, match="sqlite: the server is gone"):
            await past.page(Ask(kind="trades"))
        with pytest.raises(PastError, match="sqlite: the server is gone"):
            await past.scales()
    assert away.asked == 1


async def test_a_store_that_is_named_is_asked_at_once_although_it_was_away() -> None:
    postgres = Broken(DATA, StoreDown("the server is gone", public="gone"))
    postgres.name = "postgres"
    past = reads_all(postgres, SqliteReads(DATA))
    for number in range(3):
        with pytest.raises(PastError, match="postgres: gone"):
            await past.place("postgres")
        assert postgres.asked == number + 1
    assert (await past.page(Ask(kind="trades"))).store == "sqlite"
    assert postgres.asked == 3
    postgres.error = None
    for named in ("postgres", ""):
        assert await past.place(named) == ("postgres", DATA.place)
    assert (await past.query("postgres", "SELECT 1", (), 1000, 1)).rows
    assert (await past.page(Ask(kind="trades", store="postgres"))).rows


async def test_what_is_not_our_log_is_no_answer() -> None:
    reads = SqliteReads(DATA)
    past = SqlHistory(["sqlite"], lambda name: reads,
                      lambda place: "" if place.seq < 10 else f"it is {place.log_id}'s")
    for question in (past.page(Ask(kind="trades")), past.place()):
        with pytest.raises(PastError, match="sqlite: it is abab") as caught:
            await question
        assert caught.value.code == "history_unavailable"
    reads.connection.execute("UPDATE store_position SET seq = 9")
    assert (await past.page(Ask(kind="trades"))).rows


async def test_a_store_that_takes_too_long_is_not_followed_by_another() -> None:
    slow = Broken(DATA, QueryTimeout("it took too long"))
    slow.name = "postgres"
    with pytest.raises(PastError, match="too long") as caught:
        await reads_all(slow, SqliteReads(DATA)).page(Ask(kind="trades"))
    assert (caught.value.status, caught.value.code) == (503, "query_timeout")


async def test_a_store_that_is_not_connected_has_no_answer() -> None:
    with pytest.raises(PastError, match="sqlite is not connected"):
        await SqlHistory(["sqlite"], lambda name: None).page(Ask(kind="trades"))
    with pytest.raises(PastError, match="postgres is off"):
        await SqlHistory(["sqlite"], lambda name: None).place("postgres")


async def test_without_a_store_there_is_no_answer() -> None:
    none = reads_all()
    for question in (none.page(Ask(kind="trades")), none.scales(), none.place(),
                     none.query("", "SELECT 1", (), 1, 1), none.place("sqlite")):
        with pytest.raises(PastError) as caught:
            await question
        assert caught.value.code == "history_unavailable"

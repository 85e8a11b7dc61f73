"""The routes of the past over a small database: rows, cursors, formats, who may see what."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import clock
from engine.accounts import Account
from engine.api import formats
from engine.api.auth import Auth
from engine.api.formats import chosen
from engine.api.gateway import Gateway
from engine.api.history import STREAMS_MAX, STREAMS_OF_ONE_MAX, HistoryRoutes
from engine.api.history_rows import fields_of, time_ns
from engine.api.keys import KeyFile, token_of
from engine.api.route import ApiError, Reply
from engine.config import ApiConfig, HistoryConfig
from engine.metrics import Metrics
from engine.past import Ask
from engine.stores.history import SqlHistory
from tests.stores.past_data import SYMBOLS, Data, SqliteReads, answer, candles, make

DATA = make(3000, random.Random(5))
LAST_SEQ, LAST_NS = DATA.place[2:]
USERS = {1: "MAKER1", 2: "MAKER2", 3: "TAKER1", 9: "ADMIN"}


class Venue:
    """A gateway with nothing but history."""

    def __init__(self, folder: Path, data: Data = DATA, **config: Any) -> None:
        self.reads = SqliteReads(data)
        self.newest, self.draining = data.place[2], False
        self.metrics = Metrics()
        accounts = [Account(id=number, username=name, password_hash="",
                            role="admin" if name == "ADMIN" else "trader")
                    for number, name in USERS.items()]
        file = KeyFile(folder, "")
        self.tokens = {}
        self.auth = Auth(ApiConfig(), accounts, file)
        for name in USERS.values():
            key = file.make(name, "admin" if name == "ADMIN" else "trader")
            self.tokens[name] = token_of(file.master(make=True), key.id)
        self.auth.reload(force=True)
        self.gateway = Gateway(self.auth, 1_000_000)
        self.routes = HistoryRoutes(
            SqlHistory(["sqlite"], lambda name: self.reads), accounts, HistoryConfig(**config),
            self.metrics, lambda: self.newest, lambda: self.draining)
        self.gateway.add(self.routes.routes())

    async def ask(self, kind: str, account: str = "ADMIN", accept: str = "",
                  **query: Any) -> Reply:
        """One answer; `from_` is `from`."""
        headers = [(b"accept", accept.encode())] if accept else []
        if account:
            headers.append((b"authorization", b"Bearer " + self.tokens[account].encode()))
        text = urlencode({name.rstrip("_"): value for name, value in query.items()
                          if value is not None})
        return await self.gateway.answer("GET", f"/v1/history/{kind}".encode(), text.encode(),
                                         headers, b"", "127.0.0.1")

    async def rows(self, kind: str, account: str = "ADMIN", **query: Any) -> list[dict[str, Any]]:
        """All rows, page by page."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = json_of(await self.ask(kind, account, cursor=cursor, **query))
            found += page[kind]
            cursor = page["next"]
            if cursor is None:
                return found


def json_of(reply: Reply, status: int = 200) -> Any:
    assert reply.status == status, reply.body
    return json.loads(reply.body)


async def whole(reply: Reply) -> bytes:
    """The body of a stream."""
    assert reply.status == 200 and reply.stream is not None, reply.body
    return b"".join([part async for part in reply.stream])


@pytest.fixture
def venue(tmp_path: Path) -> Venue:
    return Venue(tmp_path)


def price(symbol: str, units: int) -> str:
    return format(Decimal(units).scaleb(-SYMBOLS[symbol][1]), "f")


def quantity(symbol: str, lots: int) -> str:
    _, _, decimals, lot = SYMBOLS[symbol]
    return format(Decimal(lots * lot).scaleb(-decimals), "f")


async def test_orders_are_written_as_the_other_routes_write_them(venue: Venue) -> None:
    found = await venue.rows("orders", limit=70)
    rows = sorted(DATA.orders, key=lambda row: -row["order_id"])
    assert len(found) == len(rows) > 1000
    for shown, row in zip(found, rows, strict=True):
        symbol = row["symbol"]
        assert shown == {
            "order_id": str(row["order_id"]), "client_order_id": row["client_order_id"],
            "account": USERS[row["account_id"]], "symbol": symbol, "side": row["side"],
            "order_type": row["order_type"], "time_in_force": row["time_in_force"],
            "post_only": row["post_only"],
            "price": None if row["price_units"] is None else price(symbol, row["price_units"]),
            "quantity": quantity(symbol, row["quantity_lots"]),
            "filled_quantity": quantity(symbol, 0), "remaining_quantity": quantity(symbol, 0),
            "status": row["status"], "reason": row["reason"], "source": row["source"],
            "replaces": str(row["replaces"]) if row["replaces"] else None, "replaced_by": None,
            "time": row["time_ns"], "updated": row["updated_time_ns"],
            "updated_seq": row["updated_seq"]}


async def test_filters_reach_the_store(venue: Venue) -> None:
    from_ns, to_ns = DATA.events[500]["time_ns"], DATA.events[2000]["time_ns"]
    found = await venue.rows("orders", symbol="DOGE", account_="MAKER2", side="sell",
                             status="live", from_=from_ns, to=to_ns, order="asc", limit=1000)
    wanted = answer(DATA, Ask(
        kind="orders", symbol="DOGE", account_id=2, side="sell", from_ns=from_ns, to_ns=to_ns,
        statuses=("open", "partially_filled"), newest_first=False))
    assert [int(row["order_id"]) for row in found] == [row[0] for row in wanted] and wanted
    for status in ("open", "ended"):
        found = await venue.rows("orders", status=status, limit=1000)
        assert {row["status"] for row in found} == {
            "open": {"open"}, "ended": {"filled", "canceled"}}[status]
    # The time as people write it.
    text = "2026-09-21T14:13:20.000000001Z"
    assert time_ns("from", text) == 1_790_000_000_000_000_001
    found = await venue.rows("trades", from_=text, limit=1000)
    assert len(found) == len(answer(DATA, Ask(kind="trades", from_ns=time_ns("from", text))))


async def test_who_sees_what(venue: Venue) -> None:
    everybody = await venue.rows("executions", limit=1000)
    assert {row["account"] for row in everybody} == {"MAKER1", "MAKER2", "TAKER1"}
    assert len(everybody) == 2 * len(DATA.trades)
    for account in ("MAKER1", "TAKER1"):
        mine = await venue.rows("executions", account, limit=1000)
        assert mine == [row for row in everybody if row["account"] == account]
        assert {row["account"] for row in await venue.rows("orders", account, limit=1000)} \
            == {account}
    own = json_of(await venue.ask("orders", "MAKER1", account_="MAKER1"))
    assert own["orders"]
    for kind in ("orders", "executions"):
        reply = await venue.ask(kind, "MAKER1", account_="MAKER2")
        assert json_of(reply, 403)["code"] == "forbidden"
        assert json_of(await venue.ask(kind, ""), 401)["code"] == "credentials_missing"
    public = json_of(await venue.ask("trades", "", limit=5))
    assert set(public["trades"][0]) == {"match", "symbol", "price", "quantity", "side", "time",
                                        "seq"}
    assert json_of(await venue.ask("candles", "", symbol="DOGE"))["candles"]


async def test_executions_are_the_own_sides_of_trades(venue: Venue) -> None:
    trade = DATA.trades[-1]
    maker, taker = sorted(json_of(await venue.ask("executions", limit=2))["executions"],
                          key=lambda row: row["liquidity"])
    symbol = trade["symbol"]
    assert (maker["liquidity"], taker["liquidity"]) == ("maker", "taker")
    assert taker["side"] == trade["taker_side"] != maker["side"]
    assert maker["order_id"] == str(trade["maker_order_id"])
    assert taker["account"] == USERS[trade["taker_account_id"]]
    assert maker["price"] == taker["price"] == price(symbol, trade["price_units"])
    assert maker["match"] == str(trade["match_number"]) and maker["time"] == trade["time_ns"]


@pytest.mark.parametrize(("interval", "length_s"), [("1s", 1), ("1m", 60), ("1d", 86400)])
async def test_candles_of_every_length(venue: Venue, interval: str, length_s: int) -> None:
    found = await venue.rows("candles", symbol="ETH-USDT", interval=interval, order="asc",
                             limit=13)
    wanted = [one for one in candles(DATA.trades, length_s) if one["symbol"] == "ETH-USDT"]
    assert [(one["open_time"], one["open"], one["close"], one["volume"], one["trades"])
            for one in found] == [
        (one["open_time_ns"], price("ETH-USDT", one["open_units"]),
         price("ETH-USDT", one["close_units"]), quantity("ETH-USDT", one["volume_lots"]),
         one["trades"]) for one in wanted]


async def test_a_candle_is_closed_when_nothing_can_come_into_it(tmp_path: Path) -> None:
    # The last candle of the data ends after its last event, and long before now.
    venue = Venue(tmp_path)
    last = json_of(await venue.ask("candles", symbol="DOGE", interval="1d", limit=1))
    now_ns = clock.now_ns()
    ends_ns = last["candles"][0]["open_time"] + 86_400 * clock.NS_PER_S
    assert last["candles"][0]["closed"] == (ends_ns <= max(now_ns, LAST_NS))
    venue.newest += 1
    last = json_of(await venue.ask("candles", symbol="DOGE", interval="1d", limit=1))
    assert last["candles"][0]["closed"] == (ends_ns <= LAST_NS)


async def test_a_page_says_whether_more_can_come(venue: Venue) -> None:
    ended = json_of(await venue.ask("trades", to=LAST_NS, order="asc", limit=1000))
    while ended["next"]:
        assert not ended["complete"] and ended["seq"] == LAST_SEQ
        ended = json_of(await venue.ask("trades", to=LAST_NS, order="asc", limit=1000,
                                        cursor=ended["next"]))
    assert ended["complete"]
    # An event that the store has not yet may be of that time.
    later = LAST_NS + 1
    venue.newest = LAST_SEQ + 1
    assert not json_of(await venue.ask("trades", from_=LAST_NS, to=later))["complete"]
    open_end = json_of(await venue.ask("trades", order="asc", from_=DATA.trades[-2]["time_ns"]))
    assert open_end["next"] is None and not open_end["complete"]
    # What comes later is behind `last`.
    nothing = json_of(await venue.ask("trades", order="asc", from_=DATA.trades[-2]["time_ns"],
                                      cursor=open_end["last"]))
    assert nothing["trades"] == [] and nothing["last"] == open_end["last"]


@pytest.mark.parametrize(("query", "code"), [
    ({"cursor": "nonsense"}, "bad_cursor"),
    ({"cursor": "kgEB"}, "bad_cursor"),
    ({"from_": "yesterday"}, "bad_time"),
    ({"to": "2026-02-30"}, "bad_time"),
    ({"from_": "2026-01-02", "to": "2026-01-01"}, "bad_time"),
    ({"limit": "1001"}, "bad_value"),
    ({"limit": "0"}, "bad_value"),
    ({"format": "xml"}, "bad_value"),
    ({"order": "up"}, "bad_value"),
    ({"from_": "null"}, "bad_time"),
    ({"colour": "red"}, "unknown_field"),
])
async def test_malformed_questions(venue: Venue, query: dict[str, str], code: str) -> None:
    assert json_of(await venue.ask("orders", **query), 400)["code"] == code


async def test_a_cursor_is_for_its_question_alone(venue: Venue) -> None:
    cursor = json_of(await venue.ask("orders", limit=1))["next"]
    assert json_of(await venue.ask("orders", limit=3, cursor=cursor))["orders"]
    for kind, query in (("orders", {"symbol": "DOGE"}), ("orders", {"order": "asc"}),
                        ("trades", {}), ("executions", {})):
        reply = await venue.ask(kind, cursor=cursor, **query)
        assert json_of(reply, 400)["code"] == "bad_cursor"
    # Another account's is another question.
    assert json_of(await venue.ask("orders", "MAKER1", cursor=cursor), 400)["code"] == "bad_cursor"


async def test_unknown_names(venue: Venue) -> None:
    assert json_of(await venue.ask("trades", symbol="NO"), 404)["code"] == "unknown_symbol"
    reply = await venue.ask("orders", account_="NOBODY")
    assert json_of(reply, 404)["code"] == "unknown_account"


async def test_without_a_store(tmp_path: Path) -> None:
    venue = Venue(tmp_path)
    venue.reads = None  # type: ignore[assignment]
    for format_ in (None, "csv"):
        reply = await venue.ask("trades", format=format_)
        assert json_of(reply, 503)["code"] == "history_unavailable"
        assert "sqlite is not connected" in json_of(reply, 503)["message"]
        assert (b"retry-after", b"5") in reply.headers


# -- streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["orders", "trades", "executions", "candles"])
async def test_csv_has_every_row(venue: Venue, kind: str) -> None:
    query = {"symbol": "BTC-USDT"} if kind == "candles" else {}
    reply = await venue.ask(kind, format="csv", **query)
    assert reply.content_type.startswith(b"text/csv")
    assert dict(reply.headers)[b"x-matchd-seq"] == b"%d" % LAST_SEQ
    text = (await whole(reply)).decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    wanted = await venue.rows(kind, limit=1000, **query)
    assert list(found[0]) == list(fields_of(kind))
    assert found == [{name: "" if value is None else str(value).lower()
                      if isinstance(value, bool) else str(value)
                      for name, value in row.items()} for row in wanted]


async def read_arrow(reply: Reply) -> pa.Table:
    return pa.ipc.open_stream(await whole(reply)).read_all()


async def read_parquet(reply: Reply) -> pa.Table:
    return pq.read_table(io.BytesIO(await whole(reply)))


@pytest.mark.parametrize("read", [read_arrow, read_parquet])
@pytest.mark.parametrize("kind", ["orders", "trades", "executions", "candles"])
@pytest.mark.parametrize("symbol", ["ETH-USDT", ""])
async def test_tables_have_units_and_exact_decimals(
        venue: Venue, read: Any, kind: Any, symbol: str) -> None:
    if kind == "candles" and not symbol:
        return
    reply = await venue.ask(kind, format=read.__name__[5:], symbol=symbol or None, order="asc")
    table = await read(reply)
    ask = Ask(kind=kind, symbol=symbol, interval_s=60, newest_first=False)
    raw = answer(DATA, ask)
    shown = await venue.rows(kind, limit=1000, order="asc", symbol=symbol or None)
    assert len(table) == len(raw) == len(shown) > 100
    found = table.to_pylist()
    units = "open_units" if kind == "candles" else "price_units"
    decimal = units.removesuffix("_units")
    assert table.schema.field(units).type == pa.int64()
    assert table.schema.field(decimal).type == pa.decimal128(38, SYMBOLS.get(symbol, (0, 4))[1])
    for row, text in zip(found, shown, strict=True):
        assert row["symbol"] == text["symbol"]
        assert row[decimal] == (None if text[decimal] is None else Decimal(text[decimal]))
        name = "volume" if kind == "candles" else "quantity"
        assert row[name] == Decimal(text[name])
    times = "open_time" if kind == "candles" else "time"
    assert table.schema.field(times).type == pa.timestamp("us", tz="UTC")
    assert table[f"{times}_ns"].to_pylist() == [row[times] for row in shown]
    assert table[times].cast(pa.int64()).to_pylist() == [row[times] // 1000 for row in shown]
    if kind == "executions":
        assert [row["liquidity"] for row in found] == [row["liquidity"] for row in shown]
        assert [row["account"] for row in found] == [row["account"] for row in shown]


async def test_a_table_without_rows_has_its_columns(venue: Venue) -> None:
    for read in (read_arrow, read_parquet):
        table = await read(await venue.ask("orders", format=read.__name__[5:], to=1))
        assert len(table) == 0 and "price" in table.column_names


async def test_groups_of_rows_are_written_as_they_come(
        venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    module = await asyncio.to_thread(__import__, "engine.api.arrow", fromlist=["arrow"])
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 500)
    reply = await Venue.ask(venue, "orders", format="parquet")
    assert reply.stream is not None
    parts = [part async for part in reply.stream]
    assert len(parts) > 1 and all(parts)
    file = pq.ParquetFile(io.BytesIO(b"".join(parts)))
    assert file.num_row_groups > 1 and file.metadata.num_rows == len(DATA.orders)


async def test_a_limit_bounds_a_stream_and_a_cursor_begins_it(venue: Venue) -> None:
    lines = (await whole(await venue.ask("orders", format="csv", limit=1234))).splitlines()
    assert len(lines) == 1235
    cursor = json_of(await venue.ask("orders", limit=1000))["next"]
    rest = (await whole(await venue.ask("orders", format="csv", cursor=cursor))).splitlines()
    assert rest[1:] == (await whole(await venue.ask("orders", format="csv"))).splitlines()[1001:]


async def test_what_begins_during_a_stream_stays_out_of_it(tmp_path: Path) -> None:
    venue = Venue(tmp_path, rows_max=100)
    reply = await venue.ask("orders", format="csv", order="asc")
    assert reply.stream is not None
    parts = [await anext(reply.stream)]
    row = DATA.orders[-1] | {"order_id": LAST_SEQ + 1}
    venue.reads.connection.execute(
        f"INSERT INTO orders ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
        tuple(row.values()))
    venue.reads.connection.execute("UPDATE store_position SET seq = seq + 1")
    parts += [part async for part in reply.stream]
    assert len(b"".join(parts).splitlines()) == 1 + len(DATA.orders)
    assert len(parts) == -(-len(DATA.orders) // 100)


async def test_only_so_many_streams_at_once(tmp_path: Path) -> None:
    venue = Venue(tmp_path, rows_max=10)
    begun = []
    for number in range(STREAMS_OF_ONE_MAX):
        reply = await venue.ask("orders", "MAKER1", format="csv")
        assert reply.stream is not None
        await anext(reply.stream)
        begun.append(reply.stream)
        assert venue.metrics.snapshot()["history_streams"] == number + 1
    refused = await venue.ask("orders", "MAKER1", format="csv")
    assert json_of(refused, 429)["code"] == "too_many_streams"
    assert json_of(await venue.ask("orders", "MAKER1"))["orders"]
    assert STREAMS_OF_ONE_MAX < STREAMS_MAX
    for stream in begun:
        await stream.aclose()
    assert venue.metrics.snapshot()["history_streams"] == 0
    assert len(await whole(await venue.ask("orders", "MAKER1", format="csv", limit=5))) > 100


async def test_a_venue_that_stops_cuts_its_streams(tmp_path: Path) -> None:
    venue = Venue(tmp_path, rows_max=10)
    reply = await venue.ask("orders", format="csv")
    assert reply.stream is not None
    await anext(reply.stream)
    venue.draining = True
    with pytest.raises(Exception, match="stopping"):
        await anext(reply.stream)


@pytest.mark.parametrize(("accept", "wanted"), [
    ("", "json"), ("*/*", "json"), ("text/html, */*;q=0.1", "json"), ("text/csv", "csv"),
    ("text/*", "csv"), ("application/json;q=0.5, text/csv", "csv"),
    ("application/vnd.apache.parquet", "parquet"), ("application/*", "json"),
    ("application/*;q=0.2, application/vnd.apache.arrow.stream;q=0.9", "arrow"),
    ("application/json;q=0, text/csv;q=0.1", "csv"), ("image/png", "json"),
])
def test_accept_chooses_the_format(accept: str, wanted: str) -> None:
    headers = [(b"accept", accept.encode())] if accept else []
    assert chosen(None, headers) == wanted
    assert chosen("json", headers) == "json"


def test_an_accept_that_cannot_be_read() -> None:
    with pytest.raises(ApiError, match="weight"):
        chosen(None, [(b"accept", b"text/csv;q=high")])
    assert formats.CONTENT_TYPES[0] == "text/csv"

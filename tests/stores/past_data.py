"""A little history in plain lists, as tables of a real database, and the answers that a plain
reading of the lists gives."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg

from engine.past import COLUMNS, Ask, Row

LOG_ID = "ab" * 16
BEGAN_NS = 1_790_000_000_000_000_000
SYMBOLS = {"BTC-USDT": (1, 2, 6, 1), "ETH-USDT": (2, 4, 3, 10), "DOGE": (3, 0, 0, 1)}
ACCOUNTS = (1, 2, 3)

TABLES = """
CREATE TABLE store_position (log_id text, incarnation bigint, seq bigint, time_ns bigint);
CREATE TABLE instruments (instrument_id bigint, symbol text, price_decimals bigint,
    quantity_decimals bigint, lot_size bigint);
CREATE TABLE orders (order_id bigint PRIMARY KEY, client_order_id text, symbol text,
    account_id bigint, side text, order_type text, time_in_force text, post_only boolean,
    price_units bigint, quantity_lots bigint, filled_lots bigint, remaining_lots bigint,
    status text, reason text, source text, replaces bigint, replaced_by bigint, time_ns bigint,
    updated_seq bigint, updated_time_ns bigint);
CREATE TABLE order_events (seq bigint PRIMARY KEY, time_ns bigint);
CREATE TABLE trades (match_number bigint PRIMARY KEY, seq bigint, time_ns bigint, symbol text,
    price_units bigint, quantity_lots bigint, taker_side text, maker_order_id bigint,
    taker_order_id bigint, maker_account_id bigint, taker_account_id bigint);
CREATE TABLE candles (symbol text, interval_s bigint, open_time_ns bigint, open_units bigint,
    high_units bigint, low_units bigint, close_units bigint, volume_lots bigint, trades bigint,
    PRIMARY KEY (symbol, interval_s, open_time_ns));
"""


class Data(NamedTuple):
    """Rows by table, each a dict."""

    orders: list[dict[str, Any]]
    events: list[dict[str, Any]]
    trades: list[dict[str, Any]]
    candles: list[dict[str, Any]]

    @property
    def place(self) -> tuple[str, int, int, int]:
        """The position behind all of it."""
        last = self.events[-1] if self.events else {"seq": 0, "time_ns": 0}
        return LOG_ID, 7, last["seq"], last["time_ns"]


def make(events: int, chance: random.Random, first_seq: int = 1) -> Data:
    """Random events: orders and trades, some at the same time, with holes between the seqs."""
    data = Data([], [], [], [])
    seq, time_ns = first_seq, BEGAN_NS
    for _ in range(events):
        seq += chance.choice((1, 1, 1, 2, 40))
        time_ns += chance.choice((0, 0, 1, 10**8, 3 * 10**8, 7 * 10**10))
        data.events.append({"seq": seq, "time_ns": time_ns})
        if chance.random() < 0.5 or not data.orders:
            data.orders.append(_order(seq, time_ns, chance))
        elif chance.random() < 0.8:
            data.trades.append(_trade(seq, time_ns, data.orders, chance))
    for length_s in (60, 300, 3600, 86400):
        data.candles.extend(candles(data.trades, length_s))
    return data


def _order(seq: int, time_ns: int, chance: random.Random) -> dict[str, Any]:
    status = chance.choice(("open", "partially_filled", "filled", "canceled"))
    market = chance.random() < 0.1
    return {
        "order_id": seq, "client_order_id": chance.choice((None, f"id-{seq}")),
        "symbol": chance.choice(list(SYMBOLS)), "account_id": chance.choice(ACCOUNTS),
        "side": chance.choice(("buy", "sell")), "order_type": "market" if market else "limit",
        "time_in_force": "gtc", "post_only": chance.random() < 0.2,
        "price_units": None if market else chance.randint(1, 2 * 10**9),
        "quantity_lots": chance.randint(1, 10**6), "filled_lots": 0, "remaining_lots": 0,
        "status": status, "reason": "user" if status == "canceled" else None, "source": "tcp",
        "replaces": chance.choice((None, seq - 1)), "replaced_by": None, "time_ns": time_ns,
        "updated_seq": seq, "updated_time_ns": time_ns}


def _trade(seq: int, time_ns: int, orders: list[dict[str, Any]],
           chance: random.Random) -> dict[str, Any]:
    maker, taker = chance.choice(orders), chance.choice(orders)
    return {
        "match_number": seq, "seq": seq, "time_ns": time_ns, "symbol": maker["symbol"],
        "price_units": chance.randint(1, 10**6), "quantity_lots": chance.randint(1, 1000),
        "taker_side": chance.choice(("buy", "sell")), "maker_order_id": maker["order_id"],
        "taker_order_id": taker["order_id"], "maker_account_id": maker["account_id"],
        "taker_account_id": taker["account_id"]}


def candles(trades: Sequence[dict[str, Any]], length_s: int) -> list[dict[str, Any]]:
    """Candles of all symbols, made one trade at a time."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for trade in trades:
        opens_ns = trade["time_ns"] // (length_s * 10**9) * (length_s * 10**9)
        units = trade["price_units"]
        candle = found.setdefault((trade["symbol"], opens_ns), {
            "symbol": trade["symbol"], "interval_s": length_s, "open_time_ns": opens_ns,
            "open_units": units, "high_units": units, "low_units": units, "close_units": units,
            "volume_lots": 0, "trades": 0})
        candle["high_units"] = max(candle["high_units"], units)
        candle["low_units"] = min(candle["low_units"], units)
        candle["close_units"] = units
        candle["volume_lots"] += trade["quantity_lots"]
        candle["trades"] += 1
    return list(found.values())


def answer(data: Data, ask: Ask) -> list[Row]:
    """Every row that the question is about, in its order; `after` and `limit` are not looked at."""
    rows = _candidates(data, ask)
    time_name = "open_time_ns" if ask.kind == "candles" else "time_ns"
    key = COLUMNS[ask.kind][:2 if ask.kind == "executions" else 1]
    found = [row for row in rows
             if (not ask.symbol or row["symbol"] == ask.symbol)
             and row[time_name] >= ask.from_ns
             and (not ask.to_ns or row[time_name] < ask.to_ns)
             and (not ask.account_id or row["account_id"] == ask.account_id)
             and (not ask.statuses or row["status"] in ask.statuses)
             and (not ask.side or row["taker_side" if ask.kind == "trades" else "side"] == ask.side)
             and (not ask.last_seq or ask.kind == "candles" or row[key[0]] <= ask.last_seq)]
    found.sort(key=lambda row: [row[name] for name in key], reverse=ask.newest_first)
    return [tuple(row[name] for name in COLUMNS[ask.kind]) for row in found]


def _candidates(data: Data, ask: Ask) -> list[dict[str, Any]]:
    if ask.kind == "orders":
        return data.orders
    if ask.kind == "trades":
        return data.trades
    if ask.kind == "candles":
        rows = candles(data.trades, 1) if ask.interval_s == 1 else data.candles
        return [row for row in rows if row["interval_s"] == ask.interval_s]
    orders = {row["order_id"]: row for row in data.orders}
    found = []
    for trade in data.trades:
        for part, role in enumerate(("maker", "taker")):
            other = {"buy": "sell", "sell": "buy"}[trade["taker_side"]]
            found.append({
                **trade, "part": part, "order_id": trade[f"{role}_order_id"],
                "client_order_id": orders[trade[f"{role}_order_id"]]["client_order_id"],
                "account_id": trade[f"{role}_account_id"],
                "side": trade["taker_side"] if part else other})
    return found


class SqliteReads:
    """The history in SQLite, in memory."""

    name = "sqlite"
    takes_statements = True

    def __init__(self, data: Data) -> None:
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.connection.executescript(TABLES)
        for table, rows in tables(data).items():
            for row in rows:
                marks = ", ".join("?" * len(row))
                self.connection.execute(
                    f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        self.asked = 0

    async def fetch(self, sql: str, parameters: Sequence[Any], limit: int) -> list[Row]:
        """As a store does."""
        self.asked += 1
        return self.connection.execute(sql, tuple(parameters)).fetchmany(limit)

    async def query(self, sql: str, parameters: Sequence[Any], timeout_ms: int,
                    rows_max: int) -> tuple[list[str], list[Row], bool]:
        """As a store does, without its bounds."""
        self.asked += 1
        cursor = self.connection.execute(sql, tuple(parameters))
        rows = cursor.fetchmany(rows_max + 1)
        return [one[0] for one in cursor.description], rows[:rows_max], len(rows) > rows_max


class PostgresReads:
    """The history in a schema of a PostgreSQL server."""

    name = "postgres"
    takes_statements = True

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.asked = 0

    @classmethod
    async def make(cls, url: str, data: Data) -> PostgresReads:
        """Connect and fill a temporary schema."""
        reads = cls(await asyncpg.connect(url))
        await reads.connection.execute(TABLES.replace("CREATE TABLE", "CREATE TEMP TABLE"))
        for table, rows in tables(data).items():
            if rows:
                await reads.connection.copy_records_to_table(
                    table, columns=list(rows[0]), records=[tuple(row.values()) for row in rows])
        return reads

    async def fetch(self, sql: str, parameters: Sequence[Any], limit: int) -> list[Row]:
        """As a store does."""
        self.asked += 1
        return [tuple(row) for row in (await self.connection.fetch(sql, *parameters))[:limit]]

    async def query(self, sql: str, parameters: Sequence[Any], timeout_ms: int,
                    rows_max: int) -> tuple[list[str], list[Row], bool]:
        """As a store does, without its bounds."""
        self.asked += 1
        rows = await self.connection.fetch(sql, *parameters)
        return list(rows[0].keys()), [tuple(row) for row in rows[:rows_max]], len(rows) > rows_max


def tables(data: Data) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table."""
    log_id, incarnation, seq, time_ns = data.place
    return {
        "store_position": [{"log_id": log_id, "incarnation": incarnation, "seq": seq,
                            "time_ns": time_ns}],
        "instruments": [{"instrument_id": number, "symbol": symbol, "price_decimals": price,
                         "quantity_decimals": quantity, "lot_size": lot}
                        for symbol, (number, price, quantity, lot) in SYMBOLS.items()],
        "orders": data.orders, "order_events": data.events, "trades": data.trades,
        "candles": data.candles}

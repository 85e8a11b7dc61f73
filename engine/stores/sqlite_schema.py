# ruff: noqa: S608 - table and column names are our own, values are parameters.
"""The tables of the SQLite store, and the texts that make and change them.

Tables and columns have the names that the PostgreSQL store has. Prices and quantities are integers
(wire units, lots); times are nanoseconds since 1970 UTC, and the columns `time`, `updated_time` and
`open_time` beside them are texts that SQLite makes when they are read. The views show decimals: as
texts, exact, because SQLite has no decimal type.
"""

from __future__ import annotations

# "mtHD": what `file` and other tools see in a history file.
APPLICATION_ID = 0x6D744844
SCHEMA_VERSION = 1
# UPDATE ... FROM, many parameters, generated columns.
SQLITE_NEEDED = (3, 33, 0)


def _time(column: str, source: str) -> str:
    """A virtual column that shows nanoseconds as ISO 8601 in UTC."""
    return (f"{column} TEXT AS (strftime('%Y-%m-%dT%H:%M:%S', {source} / 1000000000, 'unixepoch')"
            f" || printf('.%09dZ', {source} % 1000000000)) VIRTUAL")


_TABLES = f"""
CREATE TABLE store_position (
    log_id TEXT NOT NULL PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    schema_version INTEGER NOT NULL
);
CREATE TABLE store_retention (
    kept_from_seq INTEGER NOT NULL,
    kept_from_ns INTEGER NOT NULL
);
CREATE TABLE instruments (
    instrument_id INTEGER PRIMARY KEY,
    symbol TEXT NOT NULL UNIQUE,
    wire_symbol TEXT NOT NULL,
    price_decimals INTEGER NOT NULL,
    quantity_decimals INTEGER NOT NULL,
    tick_units INTEGER NOT NULL,
    lot_size INTEGER NOT NULL,
    quantity_max_lots INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'trading',
    reason TEXT,
    seq INTEGER NOT NULL,
    {_time("time", "time_ns")},
    time_ns INTEGER NOT NULL
);
CREATE TABLE accounts (
    account_id INTEGER PRIMARY KEY,
    username TEXT NOT NULL,
    firm TEXT,
    role TEXT NOT NULL,
    open_orders_max INTEGER NOT NULL,
    quantity_max_lots INTEGER NOT NULL,
    notional_max TEXT NOT NULL,
    collar_bps INTEGER NOT NULL,
    messages_per_second INTEGER NOT NULL,
    entry_disabled INTEGER NOT NULL DEFAULT 0,
    killed INTEGER NOT NULL DEFAULT 0,
    entry TEXT AS (CASE WHEN killed THEN 'killed' WHEN entry_disabled THEN 'disabled'
                   ELSE 'enabled' END) VIRTUAL,
    seq INTEGER NOT NULL,
    {_time("time", "time_ns")},
    time_ns INTEGER NOT NULL
);
CREATE TABLE orders (
    order_id INTEGER PRIMARY KEY,
    symbol TEXT NOT NULL,
    account_id INTEGER NOT NULL,
    side TEXT NOT NULL,
    order_type TEXT NOT NULL,
    time_in_force TEXT NOT NULL,
    post_only INTEGER NOT NULL,
    price_units INTEGER,
    quantity_lots INTEGER NOT NULL,
    filled_lots INTEGER NOT NULL,
    remaining_lots INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    client_order_id TEXT,
    client_order TEXT,
    source TEXT NOT NULL,
    user_ref_num INTEGER,
    user_ref_idx INTEGER,
    replaces INTEGER,
    replaced_by INTEGER,
    {_time("time", "time_ns")},
    time_ns INTEGER NOT NULL,
    updated_seq INTEGER NOT NULL,
    {_time("updated_time", "updated_time_ns")},
    updated_time_ns INTEGER NOT NULL
);
CREATE TABLE order_events (
    seq INTEGER PRIMARY KEY,
    {_time("time", "time_ns")},
    time_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    symbol TEXT,
    account_id INTEGER,
    order_id INTEGER,
    other_order_id INTEGER,
    other_account_id INTEGER,
    side TEXT,
    price_units INTEGER,
    quantity_lots INTEGER,
    remaining_lots INTEGER,
    reason TEXT,
    user_ref_num INTEGER,
    source TEXT,
    client_order_id TEXT
);
CREATE TABLE trades (
    match_number INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    {_time("time", "time_ns")},
    time_ns INTEGER NOT NULL,
    symbol TEXT NOT NULL,
    price_units INTEGER NOT NULL,
    quantity_lots INTEGER NOT NULL,
    taker_side TEXT NOT NULL,
    maker_order_id INTEGER NOT NULL,
    taker_order_id INTEGER NOT NULL,
    maker_account_id INTEGER NOT NULL,
    taker_account_id INTEGER NOT NULL
);
CREATE TABLE candles (
    symbol TEXT NOT NULL,
    interval_s INTEGER NOT NULL,
    {_time("open_time", "open_time_ns")},
    open_time_ns INTEGER NOT NULL,
    open_units INTEGER NOT NULL,
    high_units INTEGER NOT NULL,
    low_units INTEGER NOT NULL,
    close_units INTEGER NOT NULL,
    volume_lots INTEGER NOT NULL,
    trades INTEGER NOT NULL,
    PRIMARY KEY (symbol, interval_s, open_time_ns)
) WITHOUT ROWID;
CREATE TABLE positions (
    account_id INTEGER NOT NULL,
    symbol TEXT NOT NULL,
    position_lots INTEGER NOT NULL,
    bought_lots INTEGER NOT NULL,
    sold_lots INTEGER NOT NULL,
    bought_value TEXT NOT NULL,
    sold_value TEXT NOT NULL,
    trades INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    {_time("time", "time_ns")},
    time_ns INTEGER NOT NULL,
    PRIMARY KEY (account_id, symbol)
) WITHOUT ROWID;
CREATE INDEX orders_account ON orders (account_id, order_id);
CREATE INDEX orders_symbol ON orders (symbol, order_id);
CREATE INDEX order_events_order ON order_events (order_id, seq);
CREATE INDEX trades_symbol ON trades (symbol, match_number);
CREATE INDEX trades_maker ON trades (maker_account_id, match_number);
CREATE INDEX trades_taker ON trades (taker_account_id, match_number);
"""

# -- decimals as texts ---------------------------------------------------------------------------

_ZEROS = "0" * 40
_BILLION = 1_000_000_000


def _point(digits: str, decimals: str) -> str:
    """Digits (a text) with the decimal point so far from their right."""
    padded = f"substr('{_ZEROS}', 1, max(0, {decimals} + 1 - length({digits}))) || {digits}"
    return (f"CASE WHEN {decimals} = 0 THEN {digits} ELSE substr({padded}, 1, "
            f"max(1, length({digits}) - {decimals})) || '.' || substr({padded}, -{decimals}) END")


def _product(digits: str) -> str:
    """Digits times the instrument's lot without its zeros, as digits; NULL where the lot has more
    than nine digits of its own and the product is beyond 64 bits."""
    chunk = [f"CAST(substr(substr('{_ZEROS}', 1, 36 - length({digits})) || {digits}, {at}, 9) "
             "AS INTEGER)" for at in (28, 19, 10, 1)]
    steps = f"(SELECT {chunk[0]} * s.lot_digits AS c0)"
    for number in (1, 2, 3):
        steps = (f"(SELECT *, {chunk[number]} * s.lot_digits + c{number - 1} / {_BILLION} "
                 f"AS c{number} FROM {steps})")
    long = (f"(SELECT ltrim(printf('%d%09d%09d%09d', c3, c2 % {_BILLION}, c1 % {_BILLION}, "
            f"c0 % {_BILLION}), '0') FROM {steps})")
    return (f"CASE WHEN s.lot_digits = 1 OR {digits} = '0' THEN {digits} "
            f"WHEN length({digits}) + length(s.lot_digits) <= 18 "
            f"THEN CAST(CAST({digits} AS INTEGER) * s.lot_digits AS TEXT) "
            f"WHEN s.lot_digits < 9 * {_BILLION} THEN {long} END")


def _price(column: str, name: str) -> str:
    return f"{_point(f'CAST({column} AS TEXT)', 's.price_decimals')} AS {name}"


def _scaled(column: str, name: str, decimals: str) -> str:
    """A number of lots (or their value) as a decimal with its sign."""
    digits = f"ltrim(CAST({column} AS TEXT), '-')"
    text = f"(SELECT ({_product(digits)}) || CASE WHEN {digits} = '0' THEN '' " \
           f"ELSE substr('{_ZEROS}', 1, s.lot_zeros) END AS digits)"
    return (f"(SELECT CASE WHEN {column} < 0 THEN '-' ELSE '' END || "
            f"{_point('digits', decimals)} FROM {text}) AS {name}")


def _quantity(column: str, name: str) -> str:
    return _scaled(column, name, "s.quantity_decimals")


def _value(column: str, name: str) -> str:
    return _scaled(column, name, "(s.price_decimals + s.quantity_decimals)")


_VIEWS = f"""
CREATE VIEW instrument_scales AS
SELECT symbol, price_decimals, quantity_decimals,
       CAST(rtrim(lot_size, '0') AS INTEGER) AS lot_digits,
       length(lot_size) - length(rtrim(lot_size, '0')) AS lot_zeros
FROM instruments;
CREATE VIEW orders_view AS
SELECT o.order_id, o.time, o.symbol, o.account_id, a.username, o.side, o.order_type,
       o.time_in_force, o.post_only, {_price("o.price_units", "price")},
       {_quantity("o.quantity_lots", "quantity")},
       {_quantity("o.filled_lots", "filled_quantity")},
       {_quantity("o.remaining_lots", "remaining_quantity")},
       o.status, o.reason, o.client_order_id, o.client_order, o.source, o.user_ref_num,
       o.user_ref_idx, o.replaces, o.replaced_by, o.time_ns, o.updated_seq, o.updated_time,
       o.updated_time_ns
FROM orders AS o LEFT JOIN instrument_scales AS s ON s.symbol = o.symbol
LEFT JOIN accounts AS a ON a.account_id = o.account_id;
CREATE VIEW order_events_view AS
SELECT e.seq, e.time, e.time_ns, e.kind, e.symbol, e.account_id, a.username, e.order_id,
       e.other_order_id, e.other_account_id, e.side, {_price("e.price_units", "price")},
       {_quantity("e.quantity_lots", "quantity")},
       {_quantity("e.remaining_lots", "remaining_quantity")},
       e.reason, e.user_ref_num, e.source, e.client_order_id
FROM order_events AS e LEFT JOIN instrument_scales AS s ON s.symbol = e.symbol
LEFT JOIN accounts AS a ON a.account_id = e.account_id;
CREATE VIEW trades_view AS
SELECT t.match_number, t.seq, t.time, t.time_ns, t.symbol, {_price("t.price_units", "price")},
       {_quantity("t.quantity_lots", "quantity")}, t.taker_side, t.maker_order_id,
       t.taker_order_id, t.maker_account_id, t.taker_account_id
FROM trades AS t LEFT JOIN instrument_scales AS s ON s.symbol = t.symbol;
CREATE VIEW candles_view AS
SELECT c.symbol, c.interval_s, c.open_time, c.open_time_ns, {_price("c.open_units", "open")},
       {_price("c.high_units", "high")}, {_price("c.low_units", "low")},
       {_price("c.close_units", "close")}, {_quantity("c.volume_lots", "volume")}, c.trades
FROM candles AS c LEFT JOIN instrument_scales AS s ON s.symbol = c.symbol;
CREATE VIEW positions_view AS
SELECT p.account_id, a.username, p.symbol, {_quantity("p.position_lots", "position")},
       {_quantity("p.bought_lots", "bought")}, {_quantity("p.sold_lots", "sold")},
       {_value("p.bought_value", "bought_value")}, {_value("p.sold_value", "sold_value")},
       p.trades, p.seq, p.time, p.time_ns
FROM positions AS p LEFT JOIN instrument_scales AS s ON s.symbol = p.symbol
LEFT JOIN accounts AS a ON a.account_id = p.account_id;
"""

# MIGRATIONS[n] brings a file from schema n to n + 1.
MIGRATIONS: tuple[str, ...] = (_TABLES + _VIEWS,)
# What a rebuild empties; the order does not matter, there are no references.
TABLES = ("store_position", "store_retention", "instruments", "accounts", "orders",
          "order_events", "trades", "candles", "positions")

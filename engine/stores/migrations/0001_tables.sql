-- The tables of the PostgreSQL store. Runs in one transaction, in the schema of the settings.
-- Prices are integers in the instrument's wire units, quantities are lots, times are UTC with the
-- raw nanoseconds beside. The views (0002) show decimals.

create table store_position (
    log_id text not null,
    incarnation bigint not null,
    seq bigint not null,
    time_ns bigint not null,
    updated_at timestamptz not null,
    schema_version integer not null
);
create unique index store_position_one_row on store_position ((true));
insert into store_position values ('', 0, 0, 0, now(), 0);

create table store_days (
    day date primary key,
    first_seq bigint not null unique
);

create table instruments (
    instrument_id integer primary key,
    symbol text not null unique,
    wire_symbol text not null,
    price_decimals smallint not null,
    quantity_decimals smallint not null,
    tick_units bigint not null,
    lot_size bigint not null,
    quantity_max_lots bigint not null,
    state text not null default 'trading',
    reason text,
    seq bigint not null,
    time timestamptz not null,
    time_ns bigint not null
);

create table accounts (
    account_id bigint primary key,
    username text not null,
    firm text,
    role text not null,
    open_orders_max bigint not null,
    quantity_max_lots bigint not null,
    notional_max numeric not null,
    collar_bps bigint not null,
    messages_per_second bigint not null,
    entry_disabled boolean not null default false,
    killed boolean not null default false,
    entry text generated always as (
        case when killed then 'killed' when entry_disabled then 'disabled' else 'enabled' end
    ) stored,
    seq bigint not null,
    time timestamptz not null,
    time_ns bigint not null
);

create table orders (
    order_id bigint primary key,
    symbol text not null,
    account_id bigint not null,
    side text not null,
    order_type text not null,
    time_in_force text not null,
    post_only boolean not null,
    price_units bigint,
    quantity_lots bigint not null,
    filled_lots bigint not null,
    remaining_lots bigint not null,
    status text not null,
    reason text,
    client_order_id text,
    client_order text,
    source text not null,
    user_ref_num bigint,
    user_ref_idx smallint,
    replaces bigint,
    replaced_by bigint,
    time timestamptz not null,
    time_ns bigint not null,
    updated_seq bigint not null,
    updated_time timestamptz not null,
    updated_time_ns bigint not null
) partition by range (order_id);
create index orders_account on orders (account_id, order_id);
create index orders_symbol on orders (symbol, order_id);
create index orders_time on orders using brin (time_ns);

create table order_events (
    seq bigint primary key,
    time timestamptz not null,
    time_ns bigint not null,
    kind text not null,
    symbol text,
    account_id bigint,
    order_id bigint,
    other_order_id bigint,
    other_account_id bigint,
    side text,
    price_units bigint,
    quantity_lots bigint,
    remaining_lots bigint,
    reason text,
    user_ref_num bigint,
    source text,
    client_order_id text
) partition by range (seq);
create index order_events_order on order_events (order_id, seq);
create index order_events_time on order_events using brin (time_ns);

create table trades (
    match_number bigint primary key,
    seq bigint not null,
    time timestamptz not null,
    time_ns bigint not null,
    symbol text not null,
    price_units bigint not null,
    quantity_lots bigint not null,
    taker_side text not null,
    maker_order_id bigint not null,
    taker_order_id bigint not null,
    maker_account_id bigint not null,
    taker_account_id bigint not null
) partition by range (match_number);
create index trades_symbol on trades (symbol, match_number);
create index trades_maker on trades (maker_account_id, match_number);
create index trades_taker on trades (taker_account_id, match_number);
create index trades_time on trades using brin (time_ns);

create table candles (
    symbol text not null,
    interval_s integer not null,
    open_time timestamptz not null,
    open_time_ns bigint not null,
    open_units bigint not null,
    high_units bigint not null,
    low_units bigint not null,
    close_units bigint not null,
    volume_lots bigint not null,
    trades bigint not null,
    primary key (symbol, interval_s, open_time_ns)
) with (fillfactor = 80);

create table positions (
    account_id bigint not null,
    symbol text not null,
    position_lots bigint not null,
    bought_lots bigint not null,
    sold_lots bigint not null,
    bought_value numeric not null,
    sold_value numeric not null,
    trades bigint not null,
    seq bigint not null,
    time timestamptz not null,
    time_ns bigint not null,
    primary key (account_id, symbol)
) with (fillfactor = 60);

comment on table store_position is 'How far the tables are: one row, written in every transaction that changes them.';
comment on column store_position.log_id is 'The event log that the tables come from, 32 hex digits; empty before the first event.';
comment on column store_position.incarnation is 'The incarnation of that log.';
comment on column store_position.seq is 'The last event that is in the tables.';
comment on column store_position.time_ns is 'Time of that event, nanoseconds since 1970 UTC.';
comment on column store_position.updated_at is 'When it was written, by the clock of this server.';
comment on column store_position.schema_version is 'The last migration that was run.';

comment on table store_days is 'The partitions of orders, order_events and trades: the first number of each UTC day.';
comment on column store_days.day is 'The day, as in the names of its partitions.';
comment on column store_days.first_seq is 'The first seq of the day; the day ends where the next one begins.';

comment on table instruments is 'The instruments, as the log has defined them.';
comment on column instruments.instrument_id is 'Its number, never used again for another.';
comment on column instruments.symbol is 'Its name, as all other tables use it.';
comment on column instruments.wire_symbol is 'Its name on the OUCH wire, up to eight characters.';
comment on column instruments.price_decimals is 'Decimals of price_units: a price is price_units / 10^price_decimals.';
comment on column instruments.quantity_decimals is 'Decimals of quantities: a quantity is lots * lot_size / 10^quantity_decimals.';
comment on column instruments.tick_units is 'Prices are multiples of it.';
comment on column instruments.lot_size is 'What one lot is, in the last decimal of quantities.';
comment on column instruments.quantity_max_lots is 'The largest order.';
comment on column instruments.state is 'trading or halted.';
comment on column instruments.reason is 'Why it is halted, if the operator said so.';
comment on column instruments.seq is 'The event that changed this row last.';
comment on column instruments.time is 'Time of that event.';
comment on column instruments.time_ns is 'The same in nanoseconds since 1970 UTC.';

comment on table accounts is 'The accounts with their limits; no secrets.';
comment on column accounts.account_id is 'Its number, never used again for another.';
comment on column accounts.username is 'The name that it logs in with.';
comment on column accounts.firm is 'Its firm.';
comment on column accounts.role is 'What it may do.';
comment on column accounts.open_orders_max is 'Limit of open orders; 0 is none.';
comment on column accounts.quantity_max_lots is 'Limit of one order, in lots; 0 is none.';
comment on column accounts.notional_max is 'Limit of one order, price_units * lots; 0 is none.';
comment on column accounts.collar_bps is 'How far from the market a price may be, 1/100 of a percent; 0 is no limit.';
comment on column accounts.messages_per_second is 'Limit of messages; 0 is none.';
comment on column accounts.entry_disabled is 'It asked that its orders be refused.';
comment on column accounts.killed is 'The operator has stopped it.';
comment on column accounts.entry is 'Both in a word: enabled, disabled or killed.';
comment on column accounts.seq is 'The event that changed this row last.';
comment on column accounts.time is 'Time of that event.';
comment on column accounts.time_ns is 'The same in nanoseconds since 1970 UTC.';

comment on table orders is 'Every order with its state now; partitioned by day of acceptance.';
comment on column orders.order_id is 'Its number: the seq of its acceptance.';
comment on column orders.symbol is 'Its instrument.';
comment on column orders.account_id is 'Whose it is.';
comment on column orders.side is 'buy or sell.';
comment on column orders.order_type is 'limit or market.';
comment on column orders.time_in_force is 'day, gtc, ioc or fok.';
comment on column orders.post_only is 'It never takes.';
comment on column orders.price_units is 'Its limit; null for market orders.';
comment on column orders.quantity_lots is 'Its size: what is done and what is open, before it was canceled.';
comment on column orders.filled_lots is 'Lots executed, those of the orders that it replaced included.';
comment on column orders.remaining_lots is 'Lots open.';
comment on column orders.status is 'open, partially_filled, filled or canceled.';
comment on column orders.reason is 'Why it was canceled.';
comment on column orders.client_order_id is 'The id that the client gave over HTTP or Redis.';
comment on column orders.client_order is 'The text that the client gave over OUCH (ClOrdID).';
comment on column orders.source is 'The door it came by: tcp, udp, http, redis, admin, internal.';
comment on column orders.user_ref_num is 'The client''s number of an OUCH order within its session.';
comment on column orders.user_ref_idx is 'The channel of that number.';
comment on column orders.replaces is 'The order that it took the place of.';
comment on column orders.replaced_by is 'The order that took its place.';
comment on column orders.time is 'When it was accepted.';
comment on column orders.time_ns is 'The same in nanoseconds since 1970 UTC.';
comment on column orders.updated_seq is 'The event that changed this row last.';
comment on column orders.updated_time is 'Time of that event.';
comment on column orders.updated_time_ns is 'The same in nanoseconds since 1970 UTC.';

comment on table order_events is 'Every event of an order, an account or an instrument; partitioned by day.';
comment on column order_events.seq is 'The event''s number in the log.';
comment on column order_events.time is 'Its time.';
comment on column order_events.time_ns is 'The same in nanoseconds since 1970 UTC.';
comment on column order_events.kind is 'What happened: accepted, filled, canceled, rejected, ...';
comment on column order_events.symbol is 'The instrument.';
comment on column order_events.account_id is 'The account; of a fill the taker''s.';
comment on column order_events.order_id is 'The order; of a fill the taker''s.';
comment on column order_events.other_order_id is 'Of a fill the maker''s order, of a replacement the order that is replaced.';
comment on column order_events.other_account_id is 'Of a fill the maker''s account.';
comment on column order_events.side is 'buy or sell; of a fill the taker''s.';
comment on column order_events.price_units is 'The price.';
comment on column order_events.quantity_lots is 'The quantity: of the order, of the fill, or what came off.';
comment on column order_events.remaining_lots is 'What is open behind the event.';
comment on column order_events.reason is 'Why.';
comment on column order_events.user_ref_num is 'The client''s number of an OUCH order within its session.';
comment on column order_events.source is 'The door that the command came by.';
comment on column order_events.client_order_id is 'The id that the client gave over HTTP or Redis.';

comment on table trades is 'Every fill; partitioned by day.';
comment on column trades.match_number is 'Its number, the same on both sides.';
comment on column trades.seq is 'The event''s number in the log (the same number).';
comment on column trades.time is 'Its time.';
comment on column trades.time_ns is 'The same in nanoseconds since 1970 UTC.';
comment on column trades.symbol is 'The instrument.';
comment on column trades.price_units is 'The price.';
comment on column trades.quantity_lots is 'The quantity.';
comment on column trades.taker_side is 'buy or sell.';
comment on column trades.maker_order_id is 'The order that rested.';
comment on column trades.taker_order_id is 'The order that came.';
comment on column trades.maker_account_id is 'The account of the order that rested.';
comment on column trades.taker_account_id is 'The account of the order that came.';

comment on table candles is 'Candles of 60, 300, 3600 and 86400 seconds.';
comment on column candles.symbol is 'The instrument.';
comment on column candles.interval_s is 'Its length in seconds.';
comment on column candles.open_time is 'When it begins.';
comment on column candles.open_time_ns is 'The same in nanoseconds since 1970 UTC.';
comment on column candles.open_units is 'The first price.';
comment on column candles.high_units is 'The highest price.';
comment on column candles.low_units is 'The lowest price.';
comment on column candles.close_units is 'The last price.';
comment on column candles.volume_lots is 'Lots traded.';
comment on column candles.trades is 'How many trades.';

comment on table positions is 'What each account bought and sold since the log began.';
comment on column positions.account_id is 'The account.';
comment on column positions.symbol is 'The instrument.';
comment on column positions.position_lots is 'Bought minus sold.';
comment on column positions.bought_lots is 'Lots bought.';
comment on column positions.sold_lots is 'Lots sold.';
comment on column positions.bought_value is 'Sum of price_units * lots of what was bought, exact.';
comment on column positions.sold_value is 'Sum of price_units * lots of what was sold, exact.';
comment on column positions.trades is 'How many trades, a trade with itself counted twice.';
comment on column positions.seq is 'The last trade.';
comment on column positions.time is 'Its time.';
comment on column positions.time_ns is 'The same in nanoseconds since 1970 UTC.';

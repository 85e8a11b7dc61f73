-- The tables with decimals for people. `units * '1e-2'::numeric` is exact, whatever the digits.

create view orders_view as
select o.order_id, o.time, o.symbol, o.account_id, a.username, o.side, o.order_type,
       o.time_in_force, o.post_only,
       o.price_units * ('1e-' || i.price_decimals)::numeric as price,
       o.quantity_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as quantity,
       o.filled_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as filled_quantity,
       o.remaining_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric
           as remaining_quantity,
       o.status, o.reason, o.client_order_id, o.client_order, o.source, o.user_ref_num,
       o.user_ref_idx, o.replaces, o.replaced_by, o.time_ns, o.updated_seq, o.updated_time,
       o.updated_time_ns
from orders o
left join instruments i on i.symbol = o.symbol
left join accounts a on a.account_id = o.account_id;

create view order_events_view as
select e.seq, e.time, e.time_ns, e.kind, e.symbol, e.account_id, a.username, e.order_id,
       e.other_order_id, e.other_account_id, e.side,
       e.price_units * ('1e-' || i.price_decimals)::numeric as price,
       e.quantity_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as quantity,
       e.remaining_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric
           as remaining_quantity,
       e.reason, e.user_ref_num, e.source, e.client_order_id
from order_events e
left join instruments i on i.symbol = e.symbol
left join accounts a on a.account_id = e.account_id;

create view trades_view as
select t.match_number, t.seq, t.time, t.time_ns, t.symbol,
       t.price_units * ('1e-' || i.price_decimals)::numeric as price,
       t.quantity_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as quantity,
       t.taker_side, t.maker_order_id, t.taker_order_id, t.maker_account_id, t.taker_account_id
from trades t
left join instruments i on i.symbol = t.symbol;

create view candles_view as
select c.symbol, c.interval_s, c.open_time, c.open_time_ns,
       c.open_units * ('1e-' || i.price_decimals)::numeric as open,
       c.high_units * ('1e-' || i.price_decimals)::numeric as high,
       c.low_units * ('1e-' || i.price_decimals)::numeric as low,
       c.close_units * ('1e-' || i.price_decimals)::numeric as close,
       c.volume_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as volume,
       c.trades
from candles c
left join instruments i on i.symbol = c.symbol;

create view positions_view as
select p.account_id, a.username, p.symbol,
       p.position_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as position,
       p.bought_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as bought,
       p.sold_lots::numeric * i.lot_size * ('1e-' || i.quantity_decimals)::numeric as sold,
       p.bought_value * i.lot_size
           * ('1e-' || i.price_decimals + i.quantity_decimals)::numeric as bought_value,
       p.sold_value * i.lot_size
           * ('1e-' || i.price_decimals + i.quantity_decimals)::numeric as sold_value,
       p.trades, p.seq, p.time, p.time_ns
from positions p
left join instruments i on i.symbol = p.symbol
left join accounts a on a.account_id = p.account_id;

comment on view orders_view is 'Orders with decimals.';
comment on view order_events_view is 'Order events with decimals.';
comment on view trades_view is 'Trades with decimals.';
comment on view candles_view is 'Candles with decimals.';
comment on view positions_view is 'Positions with decimals.';

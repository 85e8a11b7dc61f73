"""Market data and own fills over HTTP, all of it from durable events."""

from __future__ import annotations

from typing import Any

from cython_core.depth import decimal_text
from engine import clock
from engine.api import types
from engine.api.answers import shown
from engine.api.route import Access, Call, Reply, Route, json_reply
from engine.api.terms import Instruments
from engine.instruments import Instrument
from engine.market.stage import Market

INTERVALS_S = {"1s": 1, "1m": 60, "5m": 300, "1h": 3_600, "1d": 86_400}
_SIDES = {"B": "buy", "S": "sell"}


class ReadRoutes:
    """What everybody may see, and the fills of who asks."""

    def __init__(self, market: Market, instruments: Instruments) -> None:
        self._market = market
        self._instruments = instruments

    def routes(self) -> list[Route]:
        """For the gateway's table."""
        public, tag = Access.PUBLIC, "Market data"
        return [
            Route(method="GET", path="/v1/instruments", handler=self.instruments, access=public,
                  summary="What is traded, and whether it trades now", tag=tag,
                  answer=types.Instruments),
            Route(method="GET", path="/v1/book/{symbol:path}", handler=self.book, access=public,
                  summary="The order book, best prices first", tag=tag, query=types.BookQuery,
                  answer=types.Book, errors=(404,)),
            Route(method="GET", path="/v1/candles", handler=self.candles, access=public,
                  summary="Candles, newest last", tag=tag, query=types.CandlesQuery,
                  answer=types.Candles, errors=(404,)),
            Route(method="GET", path="/v1/trades", handler=self.own_trades,
                  summary="Your fills, newest first", query=types.TradesQuery,
                  answer=types.OwnTrades, errors=(404,)),
            Route(method="GET", path="/v1/trades/{symbol:path}", handler=self.trades,
                  access=public, summary="The last trades of an instrument, newest last", tag=tag,
                  query=types.TapeQuery, answer=types.Trades, errors=(404,)),
        ]

    async def instruments(self, call: Call) -> Reply:
        """`GET /v1/instruments`."""
        return json_reply(types.Instruments([
            self._row(one) for one in self._instruments.all()]))

    def _row(self, one: Instrument) -> types.InstrumentRow:
        status = self._market.status(one.id)
        return types.InstrumentRow(
            one.symbol, one.id, one.price_decimals, one.price_text(one.tick_units),
            one.quantity_decimals, one.quantity_text(1),
            one.quantity_text(one.quantity_max_lots), status.state, status.reason)

    async def book(self, call: Call) -> Reply:
        """`GET /v1/book/{symbol}`: the first call for an instrument opens its book, which is then
        kept for a while."""
        instrument = self._instruments.of(call.path["symbol"], 404)
        market = self._market
        lease = market.use_book(instrument.id)
        try:
            if not lease.ready:
                await lease.wait()
            bids, asks = market.books.rows(instrument.id, call.query.depth)
            return json_reply({
                "symbol": instrument.symbol, "seq": market.applied_seq,
                "time": market.applied_time_ns, "bids": bids, "asks": asks,
                "crc": market.books.crc(instrument.id)})
        finally:
            lease.release()

    async def candles(self, call: Call) -> Reply:
        """`GET /v1/candles`."""
        query: types.CandlesQuery = call.query
        instrument = self._instruments.of(query.symbol, 404)
        length_s = INTERVALS_S[query.interval]
        now_ns = clock.now_ns()
        price, lot = instrument.price_text, instrument.lot_size
        rows = self._market.tape.candles(instrument.id, length_s, query.limit)
        return json_reply(types.Candles(instrument.symbol, query.interval, [
            types.Candle(time, price(first), price(high), price(low), price(last),
                         decimal_text(lots * lot, instrument.quantity_decimals), trades,
                         now_ns >= time + length_s * clock.NS_PER_S)
            for time, first, high, low, last, lots, trades in rows]))

    async def trades(self, call: Call) -> Reply:
        """`GET /v1/trades/{symbol}`."""
        instrument = self._instruments.of(call.path["symbol"], 404)
        rows = self._market.tape.trades(instrument.id, call.query.limit)
        return json_reply({
            "symbol": instrument.symbol, "seq": self._market.applied_seq,
            "trades": [{"match": str(match), "price": instrument.price_text(units),
                        "quantity": instrument.quantity_text(lots), "side": _SIDES[side],
                        "time": time, "seq": seq}
                       for match, units, lots, side, time, seq in rows]})

    async def own_trades(self, call: Call) -> Reply:
        """`GET /v1/trades`."""
        query: types.TradesQuery = call.query
        account_id = call.identity.account_id
        ledger = await self._market.use_account(account_id)
        instrument_id = self._instruments.of(query.symbol, 404).id if query.symbol else 0
        rows = ledger.trades(account_id, instrument_id, query.before, query.limit + 2)
        page = whole_trades(rows, query.limit)
        more = str(page[-1]["match"]) if len(page) < len(rows) else None
        return json_reply({"trades": [shown(row) for row in page], "next": more})


def whole_trades(rows: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The first `limit` of `limit` + 2 fills. Both sides of an account's trade with itself stay on
    one page, because the cursor names a trade: one row less then, or one more in place of none."""
    if len(rows) <= limit or rows[limit - 1]["match"] != rows[limit]["match"]:
        return rows[:limit]
    return rows[:limit - 1] or rows[:limit + 1]

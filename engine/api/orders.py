"""Orders over HTTP: enter, look up, change, cancel.

A request is answered when its events are durable. A client_order_id makes a request safe to send
again: the same id with the same order gives the first answer, and never a second order, also after
the venue was killed and came back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from cython_core.event import CommandBatch
from cython_core.ledger import Answer
from cython_core.matcher import Matcher, fingerprint
from cython_core.model import Kind, Reject
from engine.api import types
from engine.api.answers import FirstAnswers, order_reply, shown
from engine.api.desk import Desk
from engine.api.find import Finder
from engine.api.reasons import rejected
from engine.api.route import (
    Access,
    ApiError,
    Call,
    Identity,
    Reply,
    Route,
    json_reply,
)
from engine.api.terms import TIMES_IN_FORCE, Instruments, Terms, price_units, quantity_lots, refused
from engine.api.wrong import wrong_input

_NEW_ORDER = msgspec.json.Decoder(types.NewOrder)
_REFUSALS = (401, 403, 429, 503)


class OrderRoutes:
    """What a trader does."""

    def __init__(self, desk: Desk, matcher: Matcher, instruments: Instruments,
                 finder: Finder) -> None:
        self._desk = desk
        self._market = desk.market
        self._matcher = matcher
        self._instruments = instruments
        self._find = finder
        # Orders with a client's id that are on their way: a second one waits for the first.
        self._in_flight: dict[tuple[int, str], asyncio.Future[None]] = {}
        self._first = FirstAnswers()

    def routes(self) -> list[Route]:
        """For the gateway's table."""
        one, trade = "/v1/orders/{id}", Access.TRADE
        return [
            Route(method="POST", path="/v1/orders", handler=self.enter, access=trade,
                  summary="Enter an order; answered when it is durable", body=types.NewOrder,
                  answer=types.Order, status=201, errors=(409, 422), also=((
                      200, "The order was entered before under this client_order_id: its first "
                      "answer again, with `Idempotent-Replay: true`."),)),
            Route(method="POST", path="/v1/orders/batch", handler=self.enter_many, access=trade,
                  summary="Enter up to 100 orders", body=types.NewOrders,
                  answer=types.OrderResults),
            Route(method="GET", path="/v1/orders", handler=self.many,
                  summary="Your orders, newest first", query=types.OrdersQuery,
                  answer=types.Orders, errors=(404,)),
            Route(method="DELETE", path="/v1/orders", handler=self.cancel_many, access=trade,
                  summary="Cancel all your orders, whatever way they came",
                  query=types.CancelQuery, answer=types.Canceled, errors=(404,)),
            Route(method="GET", path=one, handler=self.one, errors=(404,),
                  summary="One of your orders, by order_id or client_order_id",
                  answer=types.Order),
            Route(method="DELETE", path=one, handler=self.cancel, access=trade,
                  summary="Cancel an order", answer=types.Order, errors=(404, 409)),
            Route(method="PATCH", path=one, handler=self.change, access=trade,
                  summary="Reduce or replace an order", body=types.OrderChange,
                  answer=types.Order, errors=(404, 409, 422)),
        ]

    # -- enter ---------------------------------------------------------------------------------

    async def enter(self, call: Call) -> Reply:
        """`POST /v1/orders`."""
        return await self._enter(call.identity, call.body)

    async def enter_many(self, call: Call) -> Reply:
        """`POST /v1/orders/batch`: they travel together, in their order."""
        who = call.identity
        await self._market.use_account(who.account_id)
        replies = await asyncio.gather(*(self._enter_raw(who, raw) for raw in call.body.orders))
        results = [{"status": reply.status, _kind(reply): msgspec.Raw(reply.body)}
                   for reply in replies]
        return json_reply({"results": results})

    async def _enter_raw(self, who: Identity, raw: msgspec.Raw) -> Reply:
        try:
            return await self._enter(who, _NEW_ORDER.decode(raw))
        except ApiError as error:
            return error.reply()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return wrong_input(error).reply()

    async def _enter(self, who: Identity, order: types.NewOrder) -> Reply:
        terms = self._instruments.terms(order)
        await self._market.use_account(who.account_id)
        if not terms.client_order_id:
            return await self._send(who, terms)
        key = (who.account_id, terms.client_order_id)
        while key in self._in_flight:
            await asyncio.shield(self._in_flight[key])
        first = self._matcher.find_client_order(*key)
        if first is not None:
            return await self._again(who, terms, *first)
        done = self._in_flight[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._send(who, terms)
        finally:
            del self._in_flight[key]
            done.set_result(None)

    async def _send(self, who: Identity, terms: Terms) -> Reply:
        exceeded = self._desk.rate_exceeded(who.account_id)
        answer = await self._desk.send(
            lambda batch, request_id: terms.enter(batch, request_id, who, exceeded))
        if answer.kind == Kind.REJECTED:
            if answer.reason == Reject.DUPLICATE_CLIENT_ID:
                # Another door was quicker with the same id.
                first = self._matcher.find_client_order(who.account_id, terms.client_order_id)
                if first is not None:
                    return await self._again(who, terms, *first)
            refusal = _refusal(answer, terms).reply()
            return refusal if exceeded else self._remember(terms, answer.seq, refusal)
        row = self._market.ledger.order(who.account_id, answer.order_id)
        if row is None:
            raise ApiError(503, "unavailable", "the order was taken; ask for it again")
        return self._remember(terms, answer.seq, order_reply(row, 201))

    def _remember(self, terms: Terms, seq: int, reply: Reply) -> Reply:
        if terms.client_order_id:
            self._first.keep(seq, reply)
        return reply

    async def _again(self, who: Identity, terms: Terms, seq: int, mark: int) -> Reply:
        """The first answer to an order that was sent again; 409 when it is another order."""
        batch = CommandBatch()
        terms.enter(batch, 0, who)
        if fingerprint(batch) != mark:
            raise rejected(Reject.DUPLICATE_CLIENT_ID,
                           {"client_order_id": terms.client_order_id, "seq": seq})
        await self._market.reached(seq)
        kept = self._first.find(seq)
        if kept is None:
            answer = await self._find.answer_of(seq)
            if answer is None:
                raise ApiError(409, "already_answered", "this order was taken before; its first "
                               "answer is no longer kept",
                               {"client_order_id": terms.client_order_id, "seq": seq})
            kept = (_refusal(answer, terms).reply() if answer.kind == Kind.REJECTED
                    else order_reply(self._find.order_after(answer)))
        status = 200 if kept.status == 201 else kept.status
        return Reply(status, kept.body, headers=(*kept.headers, (b"idempotent-replay", b"true")))

    # -- look up -------------------------------------------------------------------------------

    async def one(self, call: Call) -> Reply:
        """`GET /v1/orders/{id}`."""
        return order_reply(await self._find.order(call.identity.account_id, call.path["id"]))

    async def many(self, call: Call) -> Reply:
        """`GET /v1/orders`."""
        query: types.OrdersQuery = call.query
        ledger = await self._market.use_account(call.identity.account_id)
        instrument_id = self._instruments.of(query.symbol, 404).id if query.symbol else 0
        live = {"open": True, "closed": False, "all": None}[query.status]
        rows = ledger.orders(call.identity.account_id, live, instrument_id, query.before,
                             query.limit)
        more = str(rows[-1]["order_id"]) if len(rows) == query.limit else None
        return json_reply({"orders": [shown(row) for row in rows], "next": more})

    # -- cancel --------------------------------------------------------------------------------

    async def cancel(self, call: Call) -> Reply:
        """`DELETE /v1/orders/{id}`."""
        who = call.identity
        order_id, handle = await self._find.live(who.account_id, call.path["id"])
        return await self._cancel(who, order_id, handle, 0)

    async def _cancel(self, who: Identity, order_id: int, handle: Mapping[str, Any],
                      quantity_lots: int) -> Reply:
        answer = await self._desk.send(lambda batch, request_id: batch.cancel(
            who.account_id, handle["user_ref_num"], quantity_lots, handle["user_ref_idx"],
            source=who.source, request_id=request_id, order_id=order_id,
            actor_account_id=who.account_id, key=who.key, reason=who.mark))
        if answer.kind == Kind.REJECTED:
            raise await self._not_done(who, order_id, answer)
        return await self._order_now(who, order_id)

    async def cancel_many(self, call: Call) -> Reply:
        """`DELETE /v1/orders`."""
        who, query = call.identity, call.query
        instrument = self._instruments.of(query.symbol, 404) if query.symbol else None
        answer = await self._desk.send(lambda batch, request_id: batch.mass_cancel(
            who.account_id, 0, instrument_id=instrument.id if instrument else 0,
            symbol=instrument.wire_symbol if instrument else "",
            side={"buy": "B", "sell": "S", None: ""}[query.side], source=who.source,
            request_id=request_id, actor_account_id=who.account_id, key=who.key))
        return json_reply(types.Canceled(answer.canceled, answer.seq))

    # -- change --------------------------------------------------------------------------------

    async def change(self, call: Call) -> Reply:
        """`PATCH /v1/orders/{id}`: a reduction, or a replace."""
        who, change = call.identity, call.body
        if change == types.OrderChange():
            raise ApiError(400, "missing_field", "say what to change: quantity, price, "
                           "time_in_force, post_only or client_order_id")
        order_id, handle = await self._find.live(who.account_id, call.path["id"])
        instrument = self._market.instruments[handle["instrument_id"]]
        lots = (handle["quantity_lots"] if change.quantity is None
                else quantity_lots(instrument, change.quantity))
        if change == types.OrderChange(quantity=change.quantity) \
                and 0 < lots < handle["quantity_lots"]:
            return await self._cancel(who, order_id, handle, lots)
        units = (handle["price_units"] if change.price is None
                 else price_units(instrument, change.price))
        exceeded = self._desk.rate_exceeded(who.account_id)
        terms = Terms(instrument, handle["side"], lots, units,
                      TIMES_IN_FORCE[change.time_in_force] if change.time_in_force
                      else handle["time_in_force"], bool(change.post_only),
                      change.client_order_id or "")
        answer = await self._desk.send(lambda batch, request_id: terms.replace(
            batch, request_id, who, handle, change.post_only, exceeded))
        if answer.kind == Kind.REJECTED:
            if answer.reason == Reject.UNKNOWN_ORDER:
                raise await self._not_done(who, order_id, answer)
            raise _refusal(answer, terms)
        return await self._order_now(who, answer.order_id)

    # -- answers -------------------------------------------------------------------------------

    async def answer_again(self, who: Identity, seq: int) -> Reply:
        """The answer to a cancel or a change of this account's that was done before, its first
        event is `seq`; with the order as it stands now. Raises ApiError, as the first time."""
        await self._market.use_account(who.account_id)
        answer = await self._find.answer_of(seq)
        if answer is None:
            raise ApiError(409, "already_answered", "this was done before; its answer is no "
                           "longer kept", {"seq": seq})
        if answer.kind == Kind.REJECTED:
            raise await self._not_done(who, answer.target_id, answer)
        return await self._order_now(who, answer.order_id)

    async def _order_now(self, who: Identity, order_id: int) -> Reply:
        row = self._market.ledger.order(who.account_id, order_id)
        return order_reply(row if row is not None
                           else await self._find.order(who.account_id, str(order_id)))

    async def _not_done(self, who: Identity, order_id: int, answer: Answer) -> ApiError:
        """Why a cancel or a change was refused, with the order as it stands now."""
        row = self._market.ledger.order(who.account_id, order_id)
        return rejected(answer.reason, {"order": shown(row)} if row else {"seq": answer.seq})


def _kind(reply: Reply) -> str:
    return "order" if reply.status in (200, 201) else "error"


def _refusal(answer: Answer, terms: Terms) -> ApiError:
    details: dict[str, Any] = {"seq": answer.seq}
    if terms.client_order_id:
        details["client_order_id"] = terms.client_order_id
    return refused(answer.reason, terms.instrument, terms.price_units, terms.quantity_lots,
                   details)

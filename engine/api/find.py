"""Orders by their id or their client's, in memory or in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cython_core.ledger import Answer
from cython_core.matcher import Matcher
from engine.api.answers import shown
from engine.api.route import ApiError
from engine.errors import NotKeptError
from engine.market.stage import Market

CLIENT_PREFIX = "client:"
_ORDER_ID_MAX = 2**64 - 1


class Finder:
    """Finds orders of an account; another account's are not there."""

    def __init__(self, market: Market, matcher: Matcher) -> None:
        self._market = market
        self._matcher = matcher

    async def order(self, account_id: int, text: str) -> dict[str, Any]:
        """The order that `{id}` of a path names: digits are an order_id first, then a client's
        id; `client:ID` is a client's id in any case. Raises ApiError 404."""
        ledger = await self._market.use_account(account_id)
        order_id = _order_id(text)
        if order_id:
            row = ledger.order(account_id, order_id)
            if row is None:
                row = await self._in_the_log(account_id, order_id)
            if row is not None:
                return row
        client_id = text.removeprefix(CLIENT_PREFIX)
        row = ledger.by_client_id(account_id, client_id) \
            or await self._by_old_client_id(account_id, client_id)
        if row is None:
            raise ApiError(404, "unknown_order", f"you have no order {text!r}", {"id": text})
        return row

    async def live(self, account_id: int, text: str) -> tuple[int, Mapping[str, Any]]:
        """The id and the handle of an order that can still be changed. Raises ApiError 404, and
        409 with the order when it is not live any more."""
        row = await self.order(account_id, text)
        handle = self._market.ledger.handle(account_id, row["order_id"])
        if handle is None or not handle["live"]:
            raise ApiError(409, "order_not_live", f"the order is {row['status']}",
                           {"order": shown(row)})
        return row["order_id"], handle

    async def _by_old_client_id(self, account_id: int, client_id: str) -> dict[str, Any] | None:
        found = self._matcher.find_client_order(account_id, client_id)
        if found is None:
            return None
        seq = found[0]
        await self._market.reached(seq)
        answer = await self.answer_of(seq)
        if answer is None:
            return None
        row = await self._in_the_log(account_id, answer.order_id) if answer.order_id else None
        return row or self.order_after(answer)

    async def _in_the_log(self, account_id: int, order_id: int) -> dict[str, Any] | None:
        """An order that is not in memory any more; None also when the log has let go of it."""
        market = self._market
        try:
            return await market.history.find_order(account_id, order_id, market.applied_seq)
        except NotKeptError:
            return None

    async def answer_of(self, seq: int) -> Answer | None:
        """The answer to the command whose first event has this seq, from the log; None when it
        is no longer kept."""
        return await self._market.history.answer_of(seq)

    def order_after(self, answer: Answer) -> dict[str, Any]:
        """The order as the answered command left it. Raises ApiError 404 when it brought none."""
        row = self._market.ledger.order_after(answer.events)
        if row is None:
            raise ApiError(404, "unknown_order", "there is no such order")
        return row


def _order_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        return 0
    value = int(text)
    return value if value <= _ORDER_ID_MAX else 0

"""`GET /v1/account`: who the caller is to the venue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from engine.accounts import Account, AccountTable
from engine.api import types
from engine.api.route import Access, Call, Reply, Route, json_reply

_ROLES = {Access.READ: "read-only", Access.TRADE: "trader", Access.ADMIN: "admin"}


class Known(Protocol):
    """The matcher, as far as accounts go."""

    def accounts(self) -> dict[int, dict[str, Any]]:
        """The accounts of the log, by id."""


class AccountRoutes:
    """The caller's account."""

    def __init__(self, accounts: Iterable[Account], matcher: Known) -> None:
        self._accounts = AccountTable.of(accounts).by_id
        self._matcher = matcher

    def routes(self) -> list[Route]:
        """For the gateway's table."""
        return [Route(method="GET", path="/v1/account", handler=self.account,
                      summary="Who you are to the venue, and your limits", tag="Account",
                      answer=types.AccountRow)]

    async def account(self, call: Call) -> Reply:
        """The account, the key's role, what it may do and how much."""
        who = call.identity
        account, row = self._accounts[who.account_id], self._matcher.accounts()[who.account_id]
        return json_reply(types.AccountRow(
            who.username, who.account_id, _ROLES[who.access], who.key,
            not (row["entry_disabled"] or row["killed"]), row["open_orders"],
            account.quantity_max_lots, account.notional_max, account.open_orders_max,
            account.collar_bps, account.messages_per_second))

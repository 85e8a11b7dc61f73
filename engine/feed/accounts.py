"""Private channels: what happens to the orders of one account, for its own clients only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.feed.chains import Chain, Source
from engine.feed.encode import Body, Message
from engine.instruments import Instrument

if TYPE_CHECKING:
    from engine.market.stage import Market, Watch

# Live orders of one instrument that a snapshot shows at most.
SNAPSHOT_ORDERS_MAX = 2**31 - 1

Changes = list[tuple[int, Body]]


class Account:
    """The changes of one account, handed to the chains that tell them."""

    def __init__(self, market: Market, account_id: int, ready: Callable[[], None]) -> None:
        self.account_id = account_id
        self.chains: dict[tuple[str, str], PrivateChain] = {}
        self.watch: Watch | None = None
        self._market = market
        self._ready = ready
        self._task = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        self.watch = await self._market.watch(self.account_id)
        self._ready()

    def take(self) -> None:
        """Hand on what changed since the last call."""
        if self.watch is None:
            return
        changes = self.watch.take()
        if changes is None:
            for chain in self.chains.values():
                chain.lost = True
            return
        for seq, kind, row in changes:
            wanted = self.chains.get((kind, row["symbol"]))
            if wanted is not None and wanted.started:
                wanted.changes.append((seq, row))

    def release(self) -> None:
        """Nobody wants the changes any more."""
        self._task.cancel()
        if self.watch is not None:
            self.watch.release()


class Accounts:
    """The accounts that somebody follows. `ready` is called when one can be read."""

    def __init__(self, market: Market, ready: Callable[[], None]) -> None:
        self._market = market
        self._ready = ready
        self._accounts: dict[int, Account] = {}

    def use(self, account_id: int) -> Account:
        """The account; it is watched from the first call on."""
        account = self._accounts.get(account_id)
        if account is None:
            account = Account(self._market, account_id, self._ready)
            self._accounts[account_id] = account
        return account

    def release(self, account: Account) -> None:
        """One chain less; without any the account is not watched any more."""
        if not account.chains:
            account.release()
            del self._accounts[account.account_id]

    def changed(self) -> list[int]:
        """The accounts with changes since the last call; these are handed to their chains."""
        found: list[int] = self._market.ledger.changed()
        for account_id in found:
            account = self._accounts.get(account_id)
            if account is not None:
                account.take()
        return found


class PrivateChain(Chain):
    """One kind of change of one account in one instrument."""

    from_log = True
    reads = "account"
    # As the ledger names the changes.
    kind = ""

    def __init__(self, source: Source, instrument: Instrument, param: int = 0,
                 account_id: int = 0) -> None:
        super().__init__(source, instrument, param, account_id)
        self.changes: Changes = []
        self.lost = False
        self._account = source.accounts.use(account_id)
        self._account.chains[self.kind, instrument.symbol] = self

    def is_readable(self) -> bool:
        return self._account.watch is not None

    def begin(self) -> None:
        self._account.take()
        self.changes.clear()

    def collect(self, time_ns: int) -> list[tuple[int, Body]]:
        if self.lost:
            return []
        changes, self.changes = self.changes, []
        return cover(changes)

    def flush(self, tick: int, time_ns: int, now_ns: int) -> list[Message]:
        messages = super().flush(tick, time_ns, now_ns)
        if self.lost:
            self.lost = False
            self.changes.clear()
            self.source.fell_back(self)
            self.seq = self.market.applied_seq
            self.ring.clear()
        return messages

    def close(self) -> None:
        del self._account.chains[self.kind, self.instrument.symbol]
        self.source.accounts.release(self._account)


class OrdersChain(PrivateChain):
    """`orders`: an order as it is after each change; first all live ones."""

    channel = "orders"
    kind = "order"

    def state(self) -> Body:
        return {"orders": self.market.ledger.orders(self.account_id, True, self.instrument.id, 0,
                                                    SNAPSHOT_ORDERS_MAX)}


class ExecutionsChain(PrivateChain):
    """`executions`: each of the account's own fills."""

    channel = "executions"
    kind = "execution"

    def state(self) -> Body:
        return {"executions": []}


def cover(changes: Changes) -> Changes:
    """Changes with the last event that each covers: of several by one event only the last."""
    return [(seq - 1 if place + 1 < len(changes) and changes[place + 1][0] == seq else seq, row)
            for place, (seq, row) in enumerate(changes)]


PRIVATE_CHAINS: dict[str, type[Chain]] = {kind.channel: kind
                                          for kind in (OrdersChain, ExecutionsChain)}

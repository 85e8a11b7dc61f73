"""The past of the channels that are resumed from the event log, as their chains tell it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from engine.feed.accounts import PrivateChain, cover
from engine.feed.chains import Chain, order_events, trade_rows
from engine.feed.encode import Body

if TYPE_CHECKING:
    from engine.market.resume import Resume

# A chain, the last event that a message covers, and the message's fields.
Past = tuple[Chain, int, Body]


class History:
    """Reads the log for subscriptions that resume."""

    def __init__(self, resume: Resume) -> None:
        self._resume = resume

    async def messages(self, chains: Sequence[Chain], from_seq: int,
                       to_seq: int) -> AsyncIterator[Past]:
        """What the chains would have said of the events after from_seq up to to_seq. They are one
        chain, or any of one account. Raises EngineError when the log has not enough."""
        chain = chains[0]
        if isinstance(chain, PrivateChain):
            wanted = {(one.kind, one.instrument.symbol): one for one in chains
                      if isinstance(one, PrivateChain)}
            async for changes in self._resume.changes(chain.account_id, from_seq, to_seq):
                for past in _private(wanted, changes):
                    yield past
        elif chain.channel == "trades":
            async for trades in self._resume.trades(chain.instrument.id, from_seq, to_seq):
                yield chain, trades[-1][-1], {"trades": trade_rows(chain.instrument, trades)}
        else:
            async for events in self._resume.order_events(chain.instrument.id, from_seq, to_seq):
                yield chain, int(events[-1]["seq"]), {"events": order_events(events)}


def _private(wanted: dict[tuple[str, str], PrivateChain],
             changes: Iterable[tuple[int, str, Body]]) -> Iterable[Past]:
    found: dict[PrivateChain, list[tuple[int, Body]]] = {}
    for seq, kind, row in changes:
        chain = wanted.get((kind, row["symbol"]))
        if chain is not None:
            found.setdefault(chain, []).append((seq, row))
    for chain, rows in found.items():
        for seq, row in cover(rows):
            yield chain, seq, row

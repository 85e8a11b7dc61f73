"""What tests of the feed do with a venue."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.feed.flow import Flow
from tests.feed.peer import Peer
from tests.support.venue import Venue


async def trade(venue: Venue, flow: Flow, batches: int = 20) -> None:
    """Let orders come for a while."""
    for _ in range(batches):
        venue.inside(flow.fill)
        await asyncio.sleep(0.002)


async def told(venue: Venue) -> None:
    """Wait until the feed has told all that was put into the venue."""
    app, feed = venue.app, venue.app.feed
    while not app.commands.empty():
        await asyncio.sleep(0)
    await app.market.reached(app.matcher.next_seq - 1)
    while (feed.registry.unready or feed.registry.dirty or feed.is_fanning_out
           or feed.joins.catching_up or feed.upkeep.slow_count):
        await asyncio.sleep(0.005)


async def everything(venue: Venue, peer: Peer) -> list[dict[str, Any]]:
    """All messages that the peer was sent by now."""
    await told(venue)
    await peer.ask(op="ping")
    found, peer.messages = peer.messages, []
    return found

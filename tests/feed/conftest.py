"""A venue with its feed, in the test's own loop, and sockets of an independent client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from tests.feed.peer import Peer
from tests.support.venue import Venue

MakeVenue = Callable[..., Awaitable[Venue]]
Connect = Callable[..., Awaitable[Peer]]

@pytest_asyncio.fixture
async def make_venue(tmp_path: Path) -> AsyncIterator[MakeVenue]:
    """Starts venues with these settings; stopped at the end."""
    made: list[Venue] = []

    async def make(**settings: object) -> Venue:
        small = {"journal__sync": "off", "feed__batch_interval_ms": 5}
        made.append(Venue(tmp_path / f"venue{len(made)}", **(small | settings)))
        return await made[-1].start()

    yield make
    for venue in made:
        await venue.stop()

@pytest_asyncio.fixture
async def venue(make_venue: MakeVenue) -> Venue:
    """A venue without a journal on disk."""
    return await make_venue()

@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects feed clients to a venue."""
    made: list[Peer] = []

    async def connect_to(venue: Venue, encoding: str = "json", **options: object) -> Peer:
        made.append(await Peer.connect(venue.app.ports["feed"], encoding, **options))
        return made[-1]

    yield connect_to
    for peer in made:
        await peer.close()

"""A venue in the test's own loop (uvloop, as the daemon's), and clients for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine import log
from tests.support.transports import TCP, Transport
from tests.support.venue import Venue
from tests.support.wire import Wire

StartVenue = Callable[..., Awaitable[Venue]]


@pytest.fixture(scope="session")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    log.configure("warning", "json")


@pytest.fixture
async def start_venue(tmp_path: Path) -> AsyncIterator[StartVenue]:
    """Starts venues over folders of the test, and stops them at the end."""
    venues: list[Venue] = []

    async def start(name: str = "venue", **settings: Any) -> Venue:
        venue = Venue(tmp_path / name, **settings)
        venues.append(venue)
        return await venue.start()

    yield start
    for venue in venues:
        with contextlib.suppress(Exception):
            await venue.stop()


@pytest.fixture
async def venue(start_venue: StartVenue) -> Venue:
    """A venue with the defaults."""
    return await start_venue()


@pytest.fixture
def transport() -> Transport:
    """How clients reach the venue; files whose tests hold for both doors say so."""
    return TCP


@pytest.fixture
async def maker(venue: Venue, transport: Transport) -> AsyncIterator[Wire]:
    """MAKER1, logged in."""
    wire = await transport.logged_in(venue, "MAKER1")
    yield wire
    await wire.close()


@pytest.fixture
async def taker(venue: Venue, transport: Transport) -> AsyncIterator[Wire]:
    """TAKER1, logged in."""
    wire = await transport.logged_in(venue, "TAKER1")
    yield wire
    await wire.close()

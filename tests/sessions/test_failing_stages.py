"""Our own mistakes stop the venue at once, with the name of the stage that failed."""

import asyncio
from typing import Any

import pytest

from engine.lifecycle import StageError
from tests.support.venue import Venue
from tests.support.wire import Wire, enter


class NoBatch:
    """Something that has no business on a queue."""

    def __len__(self) -> int:
        return 1


async def put(venue: Venue, queue: str) -> None:
    thing: Any = NoBatch()
    if queue == "commands":
        venue.app.commands.put_inside(thing)
    else:
        await getattr(venue.app, queue).put(thing)


@pytest.mark.parametrize(("queue", "stage"), [("commands", "trading"), ("events", "journal")])
async def test_a_stage_that_fails_stops_the_venue(venue: Venue, maker: Wire, queue: str,
                                                  stage: str) -> None:
    maker.send(enter(1))
    await maker.message()
    await put(venue, queue)
    with pytest.raises(StageError, match=f"{stage} failed"):
        await venue.ended()
    assert await maker.closed()
    # What was told before is there at the next start.
    await venue.start()
    again = await Wire.logged_in(venue.port, "MAKER1")
    assert (await again.message(), again.raw)[1] == maker.raw


async def test_a_timer_that_ends_stops_the_venue(venue: Venue) -> None:
    heartbeats = next(task for task in asyncio.all_tasks()
                      if task.get_name() == "heartbeats")
    heartbeats.cancel()
    with pytest.raises(StageError, match="heartbeats"):
        await venue.ended()

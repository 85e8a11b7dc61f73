"""Commands that a time of day brings about: the daily session roll.

A timer is a command with a time. It is born inside, so it stands in front of what waits at the
door, and what it did is in the log like anything else.
"""

from __future__ import annotations

import asyncio

from cython_core.event import CommandBatch
from cython_core.model import Source
from engine import clock, log
from engine.queues import TwoLaneQueue

# The system's clock may be set while we sleep: look at it at least so often.
SLEEP_MAX_S = 10.0


def roll_command(source: Source) -> CommandBatch:
    """The command that rolls the session."""
    batch = CommandBatch()
    batch.session_roll(source=int(source))
    return batch


def roll_missed(second_of_day: int | None, last_time_ns: int, now_ns: int) -> bool:
    """Whether a daily roll was due while nobody was there: a roll leaves an event, and the last
    event of the log is older than the last time it was due."""
    if second_of_day is None or not last_time_ns:
        return False
    return clock.next_daily_ns(second_of_day, last_time_ns) <= now_ns


async def roll_daily(second_of_day: int, commands: TwoLaneQueue[CommandBatch]) -> None:
    """Put a roll on the queue every day at this second (UTC), for ever."""
    logger = log.get("timers")
    while True:
        due_ns = clock.next_daily_ns(second_of_day, clock.now_ns())
        # The system's clock has no event to wait for.
        while (left_ns := due_ns - clock.now_ns()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left_ns / clock.NS_PER_S, SLEEP_MAX_S))
        logger.info("session roll is due")
        commands.put_inside(roll_command(Source.INTERNAL))

"""Commands of HTTP requests on their way to the matcher.

All commands of one turn of the loop travel in one batch, as those of one read of a socket do. A
full queue holds the batch back; whoever waits for its answer waits longer, and nothing is lost.
Every private command is answered by exactly one first event, so each request has its answer once
that is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from cython_core.event import CommandBatch
from cython_core.ledger import Answer
from engine import clock
from engine.api.gateway import stopping
from engine.api.route import ApiError
from engine.market.stage import Market
from engine.queues import TwoLaneQueue


class Window(Protocol):
    """How many new orders an account may still send in this second, over all doors."""

    def budget(self, now_ns: int) -> int:
        """What is left; negative for no limit. `now_ns` is monotonic."""

    def spend(self, messages: int) -> None:
        """Count messages."""


class Desk:
    """Collects commands and waits for their answers."""

    def __init__(self, commands: TwoLaneQueue[CommandBatch], market: Market,
                 windows: Callable[[int], Window]) -> None:
        self.market = market
        self._commands = commands
        self._windows = windows
        self._batch: CommandBatch | None = None
        self._stopped = False

    def rate_exceeded(self, account_id: int) -> bool:
        """Count a new order; whether it is one more than the account may send in a second."""
        window = self._windows(account_id)
        allowed = window.budget(clock.monotonic_ns()) != 0
        window.spend(1)
        return not allowed

    def send(self, fill: Callable[[CommandBatch, int], None]) -> asyncio.Future[Answer]:
        """Have `fill` put one command with this request id into a batch; returns its answer to
        come. Raises ApiError 503 when the venue stops, and what `fill` raises."""
        return self._fill(self._open_batch(), fill)

    def send_inside(self, fill: Callable[[CommandBatch, int], None]) -> asyncio.Future[Answer]:
        """As `send`, ahead of what waits at the doors: for acts of an operator."""
        if self._stopped:
            raise stopping()
        batch = CommandBatch()
        answer = self._fill(batch, fill)
        self._commands.put_inside(batch)
        return answer

    def _fill(self, batch: CommandBatch,
              fill: Callable[[CommandBatch, int], None]) -> asyncio.Future[Answer]:
        request_id, answer = self.market.expect()
        try:
            fill(batch, request_id)
        except BaseException:
            self.market.forget(request_id)
            raise
        return answer

    def _open_batch(self) -> CommandBatch:
        if self._stopped:
            raise stopping()
        batch = self._batch
        if batch is None:
            batch = self._batch = CommandBatch()
            asyncio.get_running_loop().call_soon(self._flush)
        return batch

    def _flush(self) -> None:
        batch = self._batch
        if batch is None:
            return
        if self._commands.full():
            self._commands.when_room(self._flush)
            return
        self._batch = None
        if len(batch):
            self._commands.put_nowait(batch)

    def stop(self) -> None:
        """Send what was collected and take nothing more. Called before the queue is closed."""
        self._stopped = True
        batch, self._batch = self._batch, None
        if batch is not None and len(batch):
            self._commands.put_inside(batch)

    def abandon(self) -> None:
        """Nothing is acknowledged any more: whoever still waits is told that its outcome is not
        known."""
        self._stopped = True
        pending = list(self.market.pending.values())
        self.market.pending.clear()
        for answer in pending:
            if not answer.done():
                answer.set_exception(ApiError(
                    503, "outcome_unknown", "the venue stopped before this was durable: send it "
                    "again with the same client_order_id once it is back"))

"""How a subscription comes to have all that its chain said: by a snapshot, by the messages it
missed, or by the event log; and how it stops and goes on when its client is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from engine.errors import EngineError
from engine.feed.chains import Chain
from engine.feed.client import Client, Name
from engine.feed.encode import Body, Message
from engine.feed.subscription import Subscription, Told

if TYPE_CHECKING:
    from engine.feed.stage import Feed

# So many bytes of the past are sent to one client before others have their turn.
CATCH_UP_SLICE_BYTES = 2**16

NOT_IN_RING = "the position is older than the resume window"


class History(Protocol):
    """The past from the event log (engine/feed/history.py)."""

    def messages(self, chain: Chain, from_seq: int, to_seq: int,
                 ) -> AsyncIterator[tuple[int, Body]]:
        """What the chain would have said of the events after from_seq up to to_seq: the last
        event covered by each message, and its fields. Raises EngineError when the log has not
        enough."""


class Joins:
    """Brings subscriptions to the point where they get their chain's own messages."""

    def __init__(self, feed: Feed, history: History) -> None:
        self._feed = feed
        self._history = history
        self._tasks: dict[Subscription, asyncio.Task[None]] = {}
        self._new: list[Subscription] = []

    # -- begin and end -----------------------------------------------------------------------

    def add(self, held: Subscription, name: Name) -> None:
        """A new subscription, in the place of one of the same name. It is told nothing before
        `serve`."""
        before = held.client.subscriptions.get(name)
        self._feed.registry.use(held.chain)
        if before is not None:
            self._end(before)
        held.client.subscriptions[name] = held
        held.chain.waiting.append(held)
        self._new.append(held)

    def serve(self, client: Client) -> None:
        """Tell the new subscriptions of this client at once what they can be told at once."""
        new, self._new = self._new, []
        for held in new:
            if held.told is Told.WAITING and self._feed.registry.is_clean(held.chain):
                held.chain.waiting.remove(held)
                self.join(held)

    def end(self, client: Client, name: Name) -> None:
        """A subscription is over."""
        self._end(client.subscriptions.pop(name))

    def end_all(self, client: Client) -> None:
        """A client is gone."""
        for name in [*client.subscriptions]:
            self.end(client, name)

    def _end(self, held: Subscription) -> None:
        chain, told = held.chain, held.told
        held.told = Told.ENDED
        if told is Told.WAITING:
            chain.waiting.remove(held)
        elif told is Told.BRIDGING:
            chain.bridging.remove(held)
        elif told is Told.CATCHING_UP:
            self._tasks.pop(held).cancel()
        self._feed.regroup(held.client)
        self._feed.registry.leave(chain)

    # -- joining -----------------------------------------------------------------------------

    def serve_chain(self, chain: Chain) -> None:
        """The chain was flushed: who waits for it joins."""
        waiting, chain.waiting = chain.waiting, []
        for held in waiting:
            self.join(held)

    def join(self, held: Subscription) -> None:
        """Bring one subscription to its chain's `seq`. The chain is clean."""
        if held.client.slow:
            held.told = Told.STOPPED
        elif held.resume_from is None:
            self._snapshot(held)
        else:
            self._resume(held, held.resume_from)

    def _snapshot(self, held: Subscription) -> None:
        chain, prev_seq, messages = held.chain, held.last_seq, []
        if held.reset_reason:
            self._feed.meters.resets.add()
            messages.append(chain.reset(held.reset_reason, prev_seq))
            held.reset_reason, prev_seq = "", 0
        messages.append(chain.snapshot(prev_seq))
        self._send(held, messages)
        self._live(held)

    def _resume(self, held: Subscription, seq: int) -> None:
        chain = held.chain
        held.resume_from = None
        missed = chain.ring.since(seq)
        if missed is None and seq != chain.seq:
            self._resume_further(held, seq)
            return
        self._feed.meters.resumed.add()
        self._send(held, missed or [])
        self._live(held)

    def _resume_further(self, held: Subscription, seq: int) -> None:
        """The messages since then are not at hand."""
        if not held.chain.from_log:
            held.reset_reason = NOT_IN_RING
            self._snapshot(held)
        elif seq > held.chain.seq:
            # Nothing of this chain happened since; its next message comes after `seq`.
            self._bridge(held, seq)
        else:
            held.told = Told.CATCHING_UP
            held.last_seq = seq
            task = asyncio.get_running_loop().create_task(self._catch_up(held))
            self._tasks[held] = task

    def _live(self, held: Subscription) -> None:
        held.told = Told.LIVE
        self._feed.regroup(held.client)

    def _bridge(self, held: Subscription, last_seq: int) -> None:
        held.told, held.last_seq = Told.BRIDGING, last_seq
        held.chain.bridging.append(held)

    def bridge_chain(self, chain: Chain, messages: list[Message]) -> None:
        """The chain has messages: those whose previous one was another get them on their own."""
        bridging, chain.bridging = chain.bridging, []
        for held in bridging:
            self._send(held, [messages[0].after(held.last_seq), *messages[1:]])
            self._live(held)

    def _send(self, held: Subscription, messages: list[Message]) -> None:
        encoding = held.client.encoding
        held.client.send_frames([message.frame(encoding) for message in messages])

    # -- out of the log ----------------------------------------------------------------------

    async def _catch_up(self, held: Subscription) -> None:
        """Send what the log has since `last_seq`, then join the chain. The chain goes on
        meanwhile; what it says is in its ring, or in the log by then."""
        chain = held.chain
        try:
            while True:
                until = chain.seq
                if held.last_seq < until:
                    await self._send_past(held, until)
                missed = chain.ring.since(until)
                if missed is not None or until == chain.seq:
                    break
        except EngineError as error:
            held.reset_reason = str(error)
            chain.waiting.append(held)
            held.told = Told.WAITING
            del self._tasks[held]
            if self._feed.registry.is_clean(chain):
                self.serve_chain(chain)
            return
        del self._tasks[held]
        self._feed.meters.resumed.add()
        if missed:
            self._send(held, [missed[0].after(held.last_seq), *missed[1:]])
            self._live(held)
        elif held.last_seq == chain.seq:
            self._live(held)
        else:
            self._bridge(held, held.last_seq)

    async def _send_past(self, held: Subscription, until: int) -> None:
        """Send the chain's past after `last_seq` up to `until`."""
        client, chain = held.client, held.chain
        sent_bytes = 0
        async for seq, fields in self._history.messages(chain, held.last_seq, until):
            message = chain.past(seq, held.last_seq, fields)
            made = message.frame(client.encoding)
            client.send_frames([made])
            held.last_seq = seq
            sent_bytes += len(made)
            if sent_bytes >= CATCH_UP_SLICE_BYTES:
                sent_bytes = 0
                await asyncio.sleep(0)
            await client.writable.wait()

    # -- slow clients ------------------------------------------------------------------------

    def stop(self, client: Client) -> None:
        """A client is slow: what it follows stops where it is told."""
        tick = self._feed.fan.tick
        left_out = client.wire.tick == tick and self._feed.is_fanning_out
        for held in client.subscriptions.values():
            chain = held.chain
            if held.told is Told.LIVE:
                # It was left out of the batch of this tick.
                held.last_seq = chain.before_seq if left_out and chain.tick == tick \
                    else chain.seq
            elif held.told is Told.BRIDGING:
                chain.bridging.remove(held)
            else:
                continue
            held.told = Told.STOPPED
            held.resume_from = held.last_seq if chain.from_log else None
        self._feed.regroup(client)

    def go_on(self, client: Client) -> None:
        """A slow client has read everything: it gets snapshots of what it follows, and of what
        is in the log every message."""
        for held in client.subscriptions.values():
            if held.told is not Told.STOPPED:
                continue
            if held.last_seq and not held.chain.from_log:
                client.conflated += 1
                self._feed.meters.conflated.add()
            held.told = Told.WAITING
            if self._feed.registry.is_clean(held.chain):
                self.join(held)
            else:
                held.chain.waiting.append(held)

    def fall_back(self, chain: Chain) -> None:
        """A chain lost count of what changed: its subscriptions go on from the log."""
        for held in self._feed.subscriptions_of(chain):
            if held.told is Told.BRIDGING:
                chain.bridging.remove(held)
            elif held.told is Told.LIVE:
                held.last_seq = chain.before_seq
            else:
                continue
            held.told, held.resume_from = Told.WAITING, held.last_seq
            chain.waiting.append(held)
            self._feed.regroup(held.client)

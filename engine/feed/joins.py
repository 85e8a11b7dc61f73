"""How a subscription comes to have all that its chain said: by a snapshot, by the messages it
missed, or by the event log; and how it stops and goes on when its client is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
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

    def messages(self, chains: Sequence[Chain], from_seq: int,
                 to_seq: int) -> AsyncIterator[tuple[Chain, int, Body]]:
        """What the chains would have said of the events after from_seq up to to_seq: a chain, the
        last event covered by its message, and the fields. Raises EngineError when the log has not
        enough."""


class CatchUp:
    """Subscriptions of one client that get the same part of the log together: those of one account,
    or one alone."""

    def __init__(self, from_seq: int) -> None:
        self.from_seq = from_seq
        self.members: list[Subscription] = []
        self.task: asyncio.Task[None] | None = None

    def going(self) -> list[Subscription]:
        """Members that still want it."""
        return [held for held in self.members if held.told is Told.CATCHING_UP]


class Joins:
    """Brings subscriptions to the point where they get their chain's own messages."""

    def __init__(self, feed: Feed, history: History) -> None:
        self._feed = feed
        self._history = history
        self._catching: dict[Subscription, CatchUp] = {}
        self._gathering: dict[tuple[Client, int, Chain | None, int], CatchUp] = {}
        self._new: list[Subscription] = []

    @property
    def catching_up(self) -> int:
        """Subscriptions that are being sent their past."""
        return len(self._catching)

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
            catching = self._catching.pop(held)
            if catching.task is not None and not catching.going():
                catching.task.cancel()
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
            held.reset_reason, prev_seq = "", chain.seq
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
            held.last_seq = seq
            self._gather(held, seq)

    def _live(self, held: Subscription) -> None:
        if held.client.slow:
            self._stop(held, held.chain.seq)
            return
        held.told = Told.LIVE
        self._feed.regroup(held.client)

    def _bridge(self, held: Subscription, last_seq: int) -> None:
        if held.client.slow:
            self._stop(held, last_seq)
            return
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

    def _gather(self, held: Subscription, seq: int) -> None:
        """Have one more subscription in a walk through the log that begins with the next turn."""
        chain, client = held.chain, held.client
        held.told = Told.CATCHING_UP
        key = (client, chain.account_id, None if chain.account_id else chain, seq)
        catching = self._gathering.get(key)
        if catching is None:
            catching = self._gathering[key] = CatchUp(seq)
            asyncio.get_running_loop().call_soon(self._begin, key)
        catching.members.append(held)
        self._catching[held] = catching

    def _begin(self, key: tuple[Client, int, Chain | None, int]) -> None:
        catching = self._gathering.pop(key)
        if catching.going():
            catching.task = asyncio.get_running_loop().create_task(self._catch_up(catching))

    async def _catch_up(self, catching: CatchUp) -> None:
        """Send what the log has, then join the chains. They go on meanwhile; what they say is in
        their rings, or in the log by then."""
        untils = {held: held.chain.seq for held in catching.members}
        try:
            await self._send_past(catching, untils)
        except EngineError as error:
            self._give_up(catching, str(error))
            return
        except Exception:
            self._feed.log.exception("reading the past failed")
            self._give_up(catching, "the past cannot be read")
            return
        for held in catching.going():
            del self._catching[held]
            self._join_after(held, untils[held])

    def _give_up(self, catching: CatchUp, reason: str) -> None:
        for held in catching.going():
            del self._catching[held]
            held.reset_reason = reason
            self._wait(held)

    async def _send_past(self, catching: CatchUp, untils: dict[Subscription, int]) -> None:
        """Send each member its chain's past up to where the chain was."""
        members = {held.chain: held for held in catching.members}
        client = catching.members[0].client
        sent_bytes = 0
        async for chain, seq, fields in self._history.messages(
                [*members], catching.from_seq, max(untils.values())):
            held = members[chain]
            if held.told is not Told.CATCHING_UP or seq > untils[held]:
                continue
            made = chain.past(seq, held.last_seq, fields).frame(client.encoding)
            client.send_frames([made])
            held.last_seq = seq
            sent_bytes += len(made)
            if sent_bytes >= CATCH_UP_SLICE_BYTES:
                sent_bytes = 0
                await asyncio.sleep(0)
            await client.writable.wait()

    def _join_after(self, held: Subscription, until: int) -> None:
        """The subscription has its chain's past up to `until`: now what came since."""
        chain = held.chain
        missed = chain.ring.since(until)
        if missed is None and until != chain.seq:
            # So much came meanwhile that the ring has lost it: it is in the log.
            self._gather(held, until)
            return
        self._feed.meters.resumed.add()
        if missed:
            self._send(held, [missed[0].after(held.last_seq), *missed[1:]])
            self._live(held)
        elif held.last_seq == chain.seq:
            self._live(held)
        else:
            self._bridge(held, held.last_seq)

    def _wait(self, held: Subscription) -> None:
        """Join as soon as the chain is clean."""
        held.told = Told.WAITING
        if self._feed.registry.is_clean(held.chain):
            self.join(held)
        else:
            held.chain.waiting.append(held)

    # -- slow clients ------------------------------------------------------------------------

    def stop(self, client: Client) -> None:
        """A client is slow: what it follows stops where it is told."""
        tick = self._feed.fan.tick
        # The chains of this tick's batch, when the client was left out of it. A subscription that
        # joined in this very tick is not among them: it has what its chain said.
        left_out: frozenset[Chain] = frozenset()
        if client.wire.tick == tick and self._feed.is_fanning_out and client.group is not None:
            left_out = client.group.chains
        for held in client.subscriptions.values():
            chain = held.chain
            if held.told is Told.LIVE:
                self._stop(held, chain.before_seq if chain in left_out and chain.tick == tick
                           else chain.seq)
            elif held.told is Told.BRIDGING:
                chain.bridging.remove(held)
                self._stop(held, held.last_seq)
        self._feed.regroup(client)

    def _stop(self, held: Subscription, last_seq: int) -> None:
        held.told, held.last_seq = Told.STOPPED, last_seq
        held.resume_from = last_seq if held.chain.from_log else None

    def go_on(self, client: Client) -> None:
        """A slow client has read everything: it gets snapshots of what it follows, and of what
        is in the log every message."""
        for held in client.subscriptions.values():
            if held.told is not Told.STOPPED:
                continue
            if held.last_seq and not held.chain.from_log:
                client.conflated += 1
                self._feed.meters.conflated.add()
            self._wait(held)

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

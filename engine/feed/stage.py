"""The feed: what is durable goes out to subscribers, a tick at a time.

A tick asks each changed chain for its messages, encodes each once per encoding, joins them once
per group of clients with the same subscriptions, and writes to each client once. It goes out in
slices, so that an order never waits behind a thousand sockets. Between ticks changes add up in
the market's own state: a tick that comes late says the same in fewer messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from picows import WSCloseCode

from engine import clock, log
from engine.config import FeedConfig
from engine.feed.accounts import Accounts
from engine.feed.chains import Chain
from engine.feed.client import Client
from engine.feed.encode import Encoder, Message
from engine.feed.groups import Group, Groups
from engine.feed.joins import History, Joins
from engine.feed.meters import Meters
from engine.feed.registry import Registry
from engine.feed.requests import Requests
from engine.feed.subscription import Subscription
from engine.feed.upkeep import Upkeep
from engine.feed.wire import FanOut, Wire
from engine.instruments import Instrument, by_symbol
from engine.market.stage import Market
from engine.metrics import Metrics

# So many clients are written to in one turn of the loop: about half a millisecond.
SLICE_CLIENTS = 128
# A client is not slow before it was behind for so long, however short the batches follow.
SLOW_AGE_NS = 250 * clock.NS_PER_MS
# Clients are pinged with a batch at most so often.
PING_EVERY_NS = clock.NS_PER_S


class Identity(Protocol):
    """Who a client is."""

    @property
    def account_id(self) -> int:
        """The account."""

    @property
    def username(self) -> str:
        """Its name."""


# A token and the IP address it comes from.
Authenticate = Callable[[str, str], Identity | None]


class Feed:
    """Everything the feed knows. Belongs to the loop's thread.

    `log_id` gives "LOG-INCARNATION": a position of another log means nothing here. `settled` says
    whether all that the matcher did is durable. `authenticate` gives who a token belongs to,
    `demo` who acts without one, or None.
    """

    def __init__(self, config: FeedConfig, market: Market, history: History, metrics: Metrics,
                 log_id: Callable[[], str], settled: Callable[[], bool], authenticate: Authenticate,
                 demo: Callable[[], Identity | None]) -> None:
        self.config = config
        self.market = market
        self.log_id = ""
        self._log_id = log_id
        self.settled = settled
        self.authenticate = authenticate
        self.demo = demo
        self.log = log.get("feed")
        self.encoder = Encoder(config.compress_above_bytes)
        self.resume_window_ns = config.resume_window_ms * clock.NS_PER_MS
        self.symbols: dict[str, Instrument] = {}
        self.connected: dict[int, Client] = {}
        self.accounts = Accounts(market, self.changed)
        self.registry = Registry(self)
        self.joins = Joins(self, history)
        self.requests = Requests(self)
        self.upkeep = Upkeep(self)
        self.fan = FanOut(config.slow_client_threshold, SLOW_AGE_NS, PING_EVERY_NS)
        self.meters = Meters(metrics, self)
        self.is_fanning_out = False
        self._groups = Groups()
        self._moving: dict[Client, None] = {}
        self._work: deque[Group] = deque()
        self._place = 0
        self._crcs: dict[int, int] = {}
        self._last_tick_ns = 0
        self._soon = False
        self._later: asyncio.TimerHandle | None = None
        self._stop_listening = market.listen(self.changed)

    def open(self) -> None:
        """The market knows every instrument now, and the log its name."""
        self.log_id = self._log_id()
        self.learn_symbols()

    def learn_symbols(self) -> None:
        """The market has other instruments now."""
        self.symbols = by_symbol(self.market.instruments.values())

    # -- clients -----------------------------------------------------------------------------

    def arrived(self, client: Client) -> None:
        """A client's handshake is done."""
        self.connected[client.id] = client
        self.log.debug("client connected", client=client.id, address=client.address)

    def closed(self, client: Client, code: WSCloseCode, reason: str) -> None:
        """A client is closed by us: one line, limited by what repeats."""
        self.log.info("client closed", client=client.id, address=client.address,
                      code=int(code.value), reason=reason, key=reason)

    def left(self, client: Client) -> None:
        """A client's connection is gone."""
        if self.connected.pop(client.id, None) is not None:
            self.joins.end_all(client)
            self.regroup(client)
            self.upkeep.forget(client)
            self.meters.left(client)

    def make_room(self) -> bool:
        """Where everybody has to log in, close who has been here longest without doing it. Returns
        whether there was somebody."""
        if not self.config.require_login:
            return False
        for client in self.connected.values():
            if client.identity is None and not client.closed:
                client.close(WSCloseCode.TRY_AGAIN_LATER, "not logged in, and others want to")
                client.underlying.abort()
                return True
        return False

    def regroup(self, client: Client) -> None:
        """What the client is sent has changed: before the next tick it moves to its group."""
        self._moving[client] = None

    def regroup_now(self) -> None:
        """Move every client to its group; not while a tick goes out."""
        if self.is_fanning_out:
            return
        moving, self._moving = self._moving, {}
        for client in moving:
            client.group = self._groups.move(client.wire, client.group, client.encoding,
                                             client.live_chains())
            if client.id not in self.connected:
                client.wire.release()

    def subscriptions_of(self, chain: Chain) -> Iterator[Subscription]:
        """Every subscription to a chain. Looks through all clients."""
        for client in self.connected.values():
            for held in client.subscriptions.values():
                if held.chain is chain:
                    yield held

    # -- what chains ask ---------------------------------------------------------------------

    def crc(self, instrument_id: int) -> int:
        """The checksum of the instrument's book as it is now, computed once."""
        found = self._crcs.get(instrument_id)
        if found is None:
            found = self._crcs[instrument_id] = self.market.books.crc(instrument_id)
        return found

    def fell_back(self, chain: Chain) -> None:
        """A chain lost count of what changed: who follows it goes on from the log."""
        self.joins.fall_back(chain)

    # -- ticks -------------------------------------------------------------------------------

    def changed(self) -> None:
        """The market took events."""
        self._crcs.clear()
        self.registry.changed()
        if self.registry.dirty:
            self.schedule()

    def mark(self, chain: Chain) -> None:
        """The clock changed what this chain says."""
        self.registry.dirty[chain] = None
        self.schedule()

    def schedule(self) -> None:
        """Have a tick come: after the interval, or at once when enough waits."""
        if self.is_fanning_out or self._soon:
            return
        due_ns = self._last_tick_ns + self.config.batch_interval_ms * clock.NS_PER_MS
        wait_ns = due_ns - clock.monotonic_ns()
        loop = asyncio.get_running_loop()
        if wait_ns <= 0 or len(self.registry.dirty) >= self.config.max_batch_size:
            self._soon = True
            loop.call_soon(self.tick)
        elif self._later is None:
            self._later = loop.call_later(wait_ns / clock.NS_PER_S, self.tick)

    def tick(self) -> None:
        """Tell everybody what changed since the last tick."""
        self._soon = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self.is_fanning_out:
            return
        now_ns = self._last_tick_ns = clock.monotonic_ns()
        self.regroup_now()
        self.fan.begin(now_ns)
        dirty, self.registry.dirty = self.registry.dirty, {}
        told = self._flush([*dirty], now_ns)
        self._collect(told)
        self.is_fanning_out = True
        for chain, messages in told:
            if chain.bridging:
                self.joins.bridge_chain(chain, messages)
        for chain in dirty:
            if chain.waiting:
                self.joins.serve_chain(chain)
        self._fan_out()
        self.meters.tick.observe(clock.monotonic_ns() - now_ns)

    def _flush(self, chains: list[Chain], now_ns: int) -> list[tuple[Chain, list[Message]]]:
        time_ns, tick = clock.now_ns(), self.fan.tick
        told = []
        for chain in chains:
            messages = chain.flush(tick, time_ns, now_ns)
            if messages:
                told.append((chain, messages))
        return told

    def _collect(self, told: list[tuple[Chain, list[Message]]]) -> None:
        """Make one batch for each group that gets anything."""
        groups: dict[Group, None] = {}
        for chain, messages in told:
            for group in chain.groups:
                group.collect(messages)
                groups[group] = None
        for group in groups:
            group.close_batch()
        self._work.extend(groups)

    def _fan_out(self) -> None:
        """Write the next slice of clients; the rest in the next turns of the loop."""
        room = SLICE_CLIENTS
        while self._work and room > 0:
            group = self._work[0]
            stop = min(self._place + room, len(group.wires))
            self.fan.deliver(group.wires, self._place, stop, group.data, group.messages)
            room -= stop - self._place
            self._place = stop
            if stop == len(group.wires):
                self._work.popleft()
                group.forget_batch()
                self._place = 0
        self._stop_slow(self.fan.take_slow())
        if self._work:
            asyncio.get_running_loop().call_soon(self._fan_out)
            return
        self.is_fanning_out = False
        if self.registry.dirty:
            self.schedule()

    def _stop_slow(self, wires: list[Wire]) -> None:
        for wire in wires:
            self.upkeep.slow_down(wire.owner)

    def flush_to(self, client: Client) -> None:
        """Send this client what the present tick has for it, before anything else."""
        group = client.group
        if self.is_fanning_out and group is not None and group.data:
            self.fan.deliver([client.wire], 0, 1, group.data, group.messages)
            self._stop_slow(self.fan.take_slow())

    # -- the end -----------------------------------------------------------------------------

    def finish(self) -> None:
        """The market has taken its last events: tell them now, whoever still listens."""
        self._finish_tick()
        self.tick()
        self._finish_tick()
        self._stop_listening()

    def _finish_tick(self) -> None:
        while self.is_fanning_out:
            self._fan_out()

    # -- what is told about it ---------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """The feed's numbers, as `GET /stats` shows them."""
        return self.meters.stats()

    def clients(self) -> list[dict[str, Any]]:
        """Every client, as `GET /clients` shows them."""
        return [client.row() for client in self.connected.values()]

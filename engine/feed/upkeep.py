"""What the feed does by the clock: pings, slow and silent clients, candles that end, chains that
nobody needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from picows import WSCloseCode

from engine import clock

if TYPE_CHECKING:
    from engine.feed.client import Client
    from engine.feed.stage import Feed

PERIOD_S = 0.1
# Clients are looked at one by one in so many periods.
PERIODS_PER_ROUND = 10
# A client to which nothing is sent is pinged so often, or three times within its time-out.
IDLE_PING_NS = 5 * clock.NS_PER_S
# The 24 h of a ticker move on by minutes.
TICKER_NS = 60 * clock.NS_PER_S


class Upkeep:
    """Looks after clients and chains."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._slow: dict[Client, None] = {}
        self._period = 0
        self._minute = 0
        timeout_ns = feed.config.pong_timeout_ms * clock.NS_PER_MS
        self._timeout_ns = timeout_ns
        self._idle_ping_ns = min(IDLE_PING_NS, timeout_ns // 3)
        self._login_ns = feed.config.login_timeout_ms * clock.NS_PER_MS

    @property
    def slow_count(self) -> int:
        """Clients that are slow now."""
        return len(self._slow)

    async def run(self) -> None:
        """Look after everything, for ever."""
        while True:
            await asyncio.sleep(PERIOD_S)
            self._period += 1
            self._mark_by_clock()
            for client in [*self._slow]:
                self.look_at_slow(client)
            if self._period % PERIODS_PER_ROUND == 0:
                self._look_at_all()
                self._feed.registry.drop_unused(self._feed.resume_window_ns,
                                                clock.monotonic_ns())
                self._feed.regroup_now()

    def _mark_by_clock(self) -> None:
        """Candles end, and a ticker's day goes on, without any event."""
        feed, now_ns = self._feed, clock.now_ns()
        minute = now_ns // TICKER_NS
        for chain in [*feed.registry.of("tape")]:
            if chain.is_due(now_ns) or (minute != self._minute and chain.channel == "ticker"):
                feed.mark(chain)
        self._minute = minute

    def _look_at_all(self) -> None:
        feed, now_ns = self._feed, clock.monotonic_ns()
        for client in [*feed.connected.values()]:
            wire = client.wire
            if client.closed:
                continue
            if wire.ping_sent_ns and now_ns - wire.ping_sent_ns >= self._timeout_ns:
                self.cut(client, "no pong in time")
            elif wire.unsent_bytes > feed.config.unsent_max_bytes:
                self.cut(client, "slow client: too much is unread")
            elif feed.config.require_login and client.identity is None \
                    and now_ns - client.connected_ns >= self._login_ns:
                client.close(WSCloseCode.POLICY_VIOLATION, "no login in time")
            elif client.token and feed.authenticate(client.token, client.host) is None:
                client.close(WSCloseCode.POLICY_VIOLATION, "the key of the login is over")
            elif wire.ping_sent_ns == 0 and now_ns - wire.pinged_ns >= self._idle_ping_ns:
                wire.ping(feed.fan.tick, now_ns)

    # -- slow clients ------------------------------------------------------------------------

    def slow_down(self, client: Client) -> None:
        """A client is behind: it gets nothing more until it has read what was sent."""
        if client.closed or client.slow:
            return
        feed = self._feed
        client.slow, client.slow_tick = True, feed.fan.tick
        self._slow[client] = None
        feed.meters.slowed.add()
        feed.log.debug("client is slow", client=client.id, address=client.address,
                       unsent_bytes=client.wire.unsent_bytes)
        feed.joins.stop(client)
        # Its answer says that all before it was read.
        client.wire.ping(feed.fan.tick, clock.monotonic_ns())
        if client.wire.unsent_bytes > feed.config.unsent_max_bytes:
            self.cut(client, "slow client: too much is unread")

    def look_at_slow(self, client: Client) -> None:
        """A slow client that has read everything goes on."""
        if client.wire.drained:
            self.forget(client)
            client.slow = False
            client.skipped += self._feed.fan.tick - client.slow_tick + 1
            self._feed.joins.go_on(client)

    def cut(self, client: Client, reason: str) -> None:
        """Close a client that is no longer worth its memory."""
        self._feed.meters.dropped.add()
        client.close(WSCloseCode.POLICY_VIOLATION, reason)

    def forget(self, client: Client) -> None:
        """The client is gone, or slow no more."""
        self._slow.pop(client, None)

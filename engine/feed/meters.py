"""The feed's counters, and its numbers as `GET /stats` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.metrics import Metrics

if TYPE_CHECKING:
    from engine.feed.client import Client
    from engine.feed.stage import Feed


class Meters:
    """Counts what the feed does."""

    def __init__(self, metrics: Metrics, feed: Feed) -> None:
        self._feed = feed
        # Of clients that are gone.
        self._messages = self._bytes = 0
        counter, gauge, config = metrics.counter, metrics.gauge, feed.config
        self.requests = counter("feed_requests", "requests", "requests of feed clients")
        self.refused = counter("feed_refused", "requests", "requests answered with an error")
        self.failed_logins = counter("feed_failed_logins", "requests", "wrong tokens")
        self.turned_away = counter("feed_turned_away", "connections",
                                   "connections refused: too many, or a foreign page")
        self.dropped = counter("feed_clients_dropped", "clients",
                               "clients closed because they did not read or answer")
        self.slowed = counter("feed_slowed", "clients", "times a client was found slow")
        self.conflated = counter("feed_conflated", "snapshots",
                                 "snapshots in the place of messages, for slow clients")
        self.resumed = counter("feed_resumed", "subscriptions",
                               "resumes that left nothing out")
        self.resets = counter("feed_resets", "subscriptions", "resumes answered with a reset")
        self.bad_frames = counter("feed_bad_frames", "connections",
                                  "connections ended by frames that break the protocol")
        gauge("feed_clients", "clients", "connected feed clients", lambda: len(feed.connected))
        gauge("feed_clients_limit", "clients", "the limit of feed.clients_max",
              lambda: config.clients_max)
        gauge("feed_chains", "chains", "different subscriptions that are told",
              lambda: len(feed.registry))
        gauge("feed_pending", "messages", "messages that wait for the next tick",
              lambda: len(feed.registry.dirty))
        gauge("feed_slow_clients", "clients", "clients that are slow now",
              lambda: feed.upkeep.slow_count)
        gauge("feed_catching_up", "subscriptions", "subscriptions that are sent their past",
              lambda: feed.joins.catching_up)
        self.tick = metrics.histogram(
            "feed_tick", "ns", "what a tick of the feed took until its first slice was written")
        counter("feed_ticks", "ticks", "ticks of the feed", lambda: feed.fan.tick)
        counter("feed_batches", "batches", "batches written to clients",
                lambda: feed.fan.batches_sent)
        counter("feed_messages", "messages", "messages sent to clients", lambda: self.messages)
        counter("feed_sent", "bytes", "bytes sent to clients", lambda: self.bytes)

    def left(self, client: Client) -> None:
        """A client is gone: keep its counts."""
        self._messages += client.wire.messages_sent
        self._bytes += client.wire.bytes_sent

    @property
    def messages(self) -> int:
        """Messages sent, answers included."""
        return self._messages + sum(client.wire.messages_sent
                                    for client in self._feed.connected.values())

    @property
    def bytes(self) -> int:
        """Bytes sent in frames."""
        return self._bytes + sum(client.wire.bytes_sent
                                 for client in self._feed.connected.values())

    def stats(self) -> dict[str, Any]:
        """The numbers of PROTOCOLS 7, and some more."""
        feed, batches = self._feed, self._feed.fan.batches_sent
        mean = feed.fan.messages_sent / batches if batches else 0.0
        return {
            "avg_batch_size": round(mean, 3),
            "batches_sent": batches,
            "total_messages": self.messages,
            "active_connections": len(feed.connected),
            "pending_batch": len(feed.registry.dirty),
            "clients_dropped": self.dropped.value,
            "bytes_sent": self.bytes,
            "ticks": feed.fan.tick,
            "chains": len(feed.registry),
            "slow_clients": feed.upkeep.slow_count,
            "conflated": self.conflated.value,
            "resumed": self.resumed.value,
            "resets": self.resets.value,
        }

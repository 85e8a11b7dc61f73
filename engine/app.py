"""The venue, put together: every part is built here, and the queues join them in the order of
an order's path. Reading `App.__init__` from top to bottom is reading the engine.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cython_core.event import CommandBatch, EventBatch
from cython_core.model import Act, Source
from cython_core.ouch import SymbolTable
from cython_core.stream import Streams, WireNames
from engine import clock, log
from engine.accounts import AccountTable
from engine.api.account import AccountRoutes
from engine.api.admin import AdminRoutes, Parts
from engine.api.auth import Auth, demo_account
from engine.api.database import DatabaseDesk
from engine.api.desk import Desk
from engine.api.docs import DocsDesk
from engine.api.find import Finder
from engine.api.gateway import Gateway
from engine.api.history import HistoryRoutes
from engine.api.keys import KeyFile
from engine.api.operations import Operations
from engine.api.orders import OrderRoutes
from engine.api.peer_routes import PeerRoutes, access_in
from engine.api.peers import Peers, speak_tls
from engine.api.query_cache import Remote
from engine.api.queued import QueuedOrders
from engine.api.reads import ReadRoutes
from engine.api.route import ApiError, Headers, Identity
from engine.api.terms import Instruments
from engine.api.venue import Clients, VenueRoutes
from engine.api.watch import QueueView, Watch
from engine.collector import Collector
from engine.config import Settings, is_loopback, load_again
from engine.control import Answer, ControlServer
from engine.directory import definitions
from engine.errors import ConfigError, EngineError
from engine.feed.history import History
from engine.feed.server import Page
from engine.feed.server import Server as FeedServer
from engine.feed.stage import Feed
from engine.intake.registry import Registry
from engine.intake.tcp import Door
from engine.intake.udp import UdpDoor
from engine.journal.journal import Journal, Recovered
from engine.latency import Acks
from engine.market.stage import Market
from engine.metrics import Metrics
from engine.past import Place
from engine.queues import BatchQueue, TwoLaneQueue
from engine.reload import Changes, changed_tables
from engine.reports.stage import Reports
from engine.spare import SparePool
from engine.stores.history import SqlHistory
from engine.stores.hub import Stores
from engine.supervisor import Supervisor
from engine.tls import Tls
from engine.trading.stage import Trading
from engine.trading.timers import roll_command, roll_daily, roll_missed
from engine.vitals import Vitals

if TYPE_CHECKING:
    from engine.api.server import Server
    from engine.intake.redis_orders import RedisOrders
    from engine.telemetry import Telemetry


class App:
    """One venue over one data directory."""

    def __init__(self, settings: Settings, recovered: Recovered) -> None:
        config = settings.config
        self.settings = settings
        self.accounts = AccountTable(settings.accounts)
        self.instruments = Instruments(settings.instruments)
        self.journal = journal = recovered.journal
        self.matcher = recovered.matcher
        self.metrics = Metrics()
        self.vitals, self.tls = Vitals(self.metrics), Tls(config.tls)
        spare, acks = SparePool(), Acks(self.metrics)

        self._symbols, self._wire_names = symbols, names = self._names()
        self.streams = Streams(names)
        for account_id, next_number in recovered.streams.items():
            self.streams.open_account(account_id, next_number)

        # 1. Intake: bytes become batches of commands, which wait for trading.
        self.commands: TwoLaneQueue[CommandBatch] = TwoLaneQueue(
            "commands", config.queues.commands_units)
        self.registry = Registry(self.accounts, symbols, self.streams, journal,
                                 recovered.generation, config.order_entry.second_login,
                                 self.metrics)
        self.door = Door(config.order_entry, self.registry, self.streams, journal, self.commands,
                         spare, self._tls(config.order_entry.tls))
        self.udp_door = self._udp_door(spare)

        # 2. Trading: commands become events, which wait for the journal.
        self.events: BatchQueue[EventBatch] = BatchQueue("events", config.queues.events_units)
        self.trading = Trading(self.matcher, self.commands, self.events, spare, journal,
                               acks, self.metrics)

        # 3. Journal: events become durable, and only then go on to whoever tells the world.
        self.committed = self._durable_queue("reports", config.queues.reports_units, "report",
                                             "messages to their owners")

        # 4a. Reports: durable events become messages to their owners.
        self.reports = Reports(self.committed, self.streams, self.registry,
                               self.matcher.next_seq - 1, acks)

        # 4b. Market: the same events become books, trades and orders for whoever reads them.
        self.seen = self._durable_queue("market", config.queues.market_units, "market",
                                        "books, trades and order lists")
        self.market = Market(self.seen, self.matcher, settings.instruments, config, journal)

        # 4c. Stores: the same events go into Redis, PostgreSQL and SQLite, each at its own pace.
        self.stores = Stores(config, journal if isinstance(journal, Journal) else None,
                             self.market, self.metrics)

        # 5. The gateway: who calls over HTTP, and what is answered. Its server comes last.
        self.auth = Auth(config.api, self.accounts,
                         KeyFile(config.data_dir, config.api.master_secret_file))
        self.gateway = Gateway(self.auth, config.api.requests_per_second)
        self.desk = Desk(self.commands, self.market, lambda of: self.registry.seat(of).window)
        self.operations = Operations(self._watch())
        self.gateway.observe = self.operations.http.observe
        self.http: Server | None = None
        self.ports: dict[str, int] = {}
        self._add_routes()

        # 6. The feed: what the market shows goes out to subscribers.
        self.feed = Feed(config.feed, self.market, History(self.market.resume), self.metrics,
                         self._log_id,
                         lambda: self.market.applied_seq == self.matcher.next_seq - 1,
                         self._token_owner, self._demo)
        self.feed_server = FeedServer(self.feed, self._feed_page, self._tls(config.feed.tls))
        self.operations.watch.feed = self.feed

        # 7. Beside the path: figures, the command line, reloads.
        self._make_gauges()
        self._add_control()

    def _add_control(self) -> None:
        """What the command line asks of a running venue, and what a reload needs."""
        self.control = ControlServer(self.settings.config.data_dir, {
            "status": self._status, "roll": self._roll, "keys": self._keys,
            "stores": self._stores, "store": self._look_again, "reload": self._reload})
        self._reloading = asyncio.Lock()
        self.supervisor = Supervisor()
        self.handed_hosts: list[str] = []
        # What else a reload renews: called with the new settings in a thread, each raises
        # ConfigError or returns what puts it in force.
        self.renewals: list[Callable[[Settings], Callable[[], None]]] = [self.tls.renewal]

    def _udp_door(self, spare: SparePool) -> UdpDoor | None:
        """The second door to the same sessions, if it is on."""
        config = self.settings.config.order_entry
        return UdpDoor(config, self.registry, self.streams, self.journal, self.commands, spare,
                       self.metrics) if config.udp_enabled else None

    def _durable_queue(self, name: str, units: int, times: str,
                       what: str) -> BatchQueue[EventBatch]:
        """A queue of durable events whose consumer takes them at once, and its times."""
        return BatchQueue(name, units, self.metrics.histogram(
            times, "ns", f"durable events of a group become {what}"))

    def _tls(self, wanted: bool, protocols: tuple[str, ...] = ()) -> ssl.SSLContext | None:
        """A door's context, if it speaks TLS. Raises ConfigError."""
        return self.tls.context(protocols) if wanted else None

    def _make_telemetry(self) -> Telemetry | None:
        """What sends the metrics to OpenTelemetry, if it is asked for. Raises ConfigError."""
        if not self.settings.config.telemetry.otlp_url:
            return None
        try:
            module = importlib.import_module("engine.telemetry")
        except ImportError as error:
            raise ConfigError(f"telemetry.otlp_url: OpenTelemetry can't be loaded: {error}",
                              "pip install 'matchd[otel]'") from error
        made: Telemetry = module.Telemetry(self.settings.config, self.metrics)
        return made

    def _activity(self) -> object:
        """What grows while anybody wants anything of the venue."""
        return (self.matcher.next_seq, self.journal.committed_seq, self.market.applied_seq,
                self.registry.metrics.commands.value, self.feed.meters.messages)

    def _names(self) -> tuple[SymbolTable, WireNames]:
        """What is known of names: wire symbols to instruments, and back for streams."""
        symbols, names = SymbolTable(), WireNames()
        for instrument_id, known in self.matcher.instruments().items():
            # Also those that the file has no longer: their orders can still be canceled.
            symbols.add(known["wire_symbol"], instrument_id)
            names.define(instrument_id, known["wire_symbol"])
        for instrument in self.settings.instruments:
            symbols.add(instrument.wire_symbol, instrument.id)
            names.define(instrument.id, instrument.wire_symbol)
        return symbols, names

    def _add_routes(self) -> None:
        """Everything that the gateway answers; the OpenAPI document is made from the same."""
        instruments = self.instruments
        instruments.replace(self.settings.instruments, self.market.instruments.values())
        self.gateway.add(AccountRoutes(self.accounts, self.matcher).routes())
        self.gateway.add(ReadRoutes(self.market, instruments).routes())
        orders = OrderRoutes(self.desk, self.matcher, instruments,
                             Finder(self.market, self.matcher))
        self.gateway.add(orders.routes())
        self.order_queue = self.operations.watch.order_queue = self._order_queue(orders)
        self.gateway.add(AdminRoutes(Parts(
            self.desk, self.matcher, self.accounts, instruments, self.registry,
            lambda: self.journal.snapshot_now(self.matcher))).routes())
        self.gateway.add(VenueRoutes(instruments.all, self.ports, self.metrics,
                                     lambda: self.matcher.counters, self._clients).routes())
        self.gateway.add(self.operations.routes())
        peers = self.settings.config.peers
        self.peers = Peers(peers, self.metrics,
                           self.tls.outgoing() if speak_tls(peers) else None)
        self.gateway.add(PeerRoutes(self.peers, peers.timeout_ms,
                                    access_in(self.gateway.table.find)).routes())
        self._add_history()
        self.gateway.add(DocsDesk(lambda: self.gateway.routes,
                                  lambda: self.auth.demo is not None).routes())
        self.operations.benchmark.use_routes(self.gateway.routes)

    def _order_queue(self, orders: OrderRoutes) -> RedisOrders | None:
        """Orders from a queue in Redis, by the door of those over HTTP."""
        config = self.settings.config
        if not config.redis.order_queue:
            return None
        from engine.intake.redis_orders import RedisOrders

        door = QueuedOrders(orders, self.market, self.matcher, self.accounts,
                            config.redis.order_accounts, lambda: self.auth.demo)
        return RedisOrders(config.redis, config.stores, f"matchd-{self.journal.log_id.hex()}",
                           door, self.commands, self.metrics)

    def _add_history(self) -> None:
        """What the SQL stores know of the past: PostgreSQL before SQLite."""
        config = self.settings.config
        names = [] if config.journal.sync == "off" else [
            name for name, on in (("postgres", bool(config.postgres.url)),
                                  ("sqlite", config.sqlite.enabled)) if on]
        history = SqlHistory(names, self._store, self._wrong)
        self.gateway.add(HistoryRoutes(
            history, self.accounts, config.history, self.metrics,
            lambda: self.matcher.next_seq - 1, lambda: self.gateway.draining).routes())
        self.database = DatabaseDesk(history, config.history, self.metrics,
                                     self._remote_cache if config.redis.url else None)
        self.gateway.add(self.database.routes())

    def _store(self, name: str) -> Any:
        """A SQL store, also one that can't be written now; None before it was made."""
        return self.stores.followers[name].store

    def _wrong(self, place: Place) -> str:
        """Why a store's content is not our log's."""
        if place.log_id != self.journal.log_id.hex():
            return "it belongs to another log"
        if place.seq > self.journal.committed_seq:
            return f"it holds events up to {place.seq} that the log lost"
        return ""

    def _remote_cache(self) -> Remote:
        """Answers that are kept in Redis."""
        module = importlib.import_module("engine.api.remote_cache")
        cache: Remote = module.RemoteCache(self.settings.config.redis,
                                           self.settings.config.history.cache_ttl_s)
        return cache

    def _watch(self) -> Watch:
        """What the operator's routes look at."""
        queues = (self.commands, self.events, self.committed, self.seen)
        watch = Watch(self.settings.config, self.metrics, self.matcher, self.journal, self.door,
                      self.registry.live_count, queues,
                      lambda: self.door.listening and not self.commands.closed)
        watch.udp_door, watch.stores = self.udp_door, self.stores
        self.stores.free_bytes = lambda: watch.disk_free_bytes
        return watch

    def _clients(self) -> Clients:
        return Clients(len(self.feed.connected), self.registry.live_count(),
                       self.http.connection_count if self.http else 0)

    def _make_gauges(self) -> None:
        self.collector = Collector(self.metrics, self._activity)
        self.telemetry = self._make_telemetry()
        gauge = self.metrics.gauge
        for queue in self.queues:
            self._gauge_queue(queue)
        gauge("sessions", "sessions", "live sessions", self.registry.live_count)
        gauge("connections", "connections", "open connections, logged in or not",
              lambda: self.door.connection_count)
        gauge("connections_limit", "connections", "the limit of order_entry.connections_max",
              lambda: self.settings.config.order_entry.connections_max)
        gauge("resting_orders", "orders", "orders in all books",
              lambda: self.matcher.resting_orders)
        gauge("matched_seq", "events", "seq of the newest event, durable or not yet",
              lambda: self.matcher.next_seq - 1)
        gauge("committed_seq", "events", "seq of the newest durable event",
              lambda: self.journal.committed_seq)
        gauge("answered_seq", "events", "seq of the newest event that was told to its owners",
              lambda: self.reports.routed_seq)
        gauge("market_seq", "events", "seq of the newest event in the books and order lists that "
              "feed and gateway read", lambda: self.market.applied_seq)
        gauge("http_connections", "connections", "open connections of the gateway",
              lambda: self.http.connection_count if self.http else 0)
        gauge("http_connections_limit", "connections", "the limit of api.connections_max",
              lambda: self.settings.config.api.connections_max)
        gauge("http_pending", "commands", "commands of the gateway that are not durable yet",
              lambda: len(self.market.pending))
        self.metrics.table("matcher", "commands and events",
                           "what the matcher did since the start: commands, and events by kind",
                           "kind", lambda: self.matcher.counters, grows=True)
        if isinstance(self.journal, Journal):
            self.journal.publish(self.metrics)

    def _gauge_queue(self, queue: QueueView) -> None:
        gauge, labels = self.metrics.gauge, {"queue": queue.name}
        gauge("queue_units", "units", "64-byte units that wait in a queue",
              lambda: queue.weight_units, labels)
        gauge("queue_units_max", "units", "the most that ever waited in a queue",
              lambda: queue.weight_max_units, labels)
        gauge("queue_units_limit", "units", "the bound of a queue",
              lambda: queue.limit_units, labels)
        self.metrics.counter("queue_waits", "waits", "how often a producer found a queue full",
                             lambda: queue.waits, labels)

    # -- what lifecycle starts, in the order of the path -----------------------------------------

    @property
    def queues(self) -> list[QueueView]:
        """The joints of the path, in its order."""
        queues: list[QueueView] = [self.commands, self.events, self.committed, self.seen]
        return queues if self.stores.tail is None else [*queues, self.stores.tail]

    def describe(self) -> str:
        """The venue in one line."""
        return (f"open: {self.registry.live_count()} sessions, "
                f"{self.matcher.resting_orders:,} resting orders, "
                f"seq {self.journal.committed_seq:,}")

    def start_stages(self) -> list[asyncio.Task[None]]:
        """Run every stage; a stage ends when its queue is closed and empty."""
        stages = {
            "trading": self.trading.run(),
            "journal": self.journal.run(self.events, [self.committed, self.seen,
                                                      *self.stores.sinks]),
            "reports": self.reports.run(),
            "market": self.market.run(),
        }
        return [asyncio.create_task(stage, name=name) for name, stage in stages.items()]

    async def listen_order_entry(self, streams: Sequence[socket.socket] = (),
                                 datagrams: Sequence[socket.socket] = ()) -> int:
        """Take orders over TCP, and over UDP if that is on, on sockets that were handed over or
        on our own; returns the port of TCP."""
        self.ports["order_entry"] = port = await self.door.listen(streams)
        if self.udp_door is not None:
            self.ports["order_entry_udp"] = await self.udp_door.listen(datagrams)
        else:
            for unwanted in datagrams:
                unwanted.close()
        return port

    def stop_reading_orders(self) -> None:
        """Listen no more and take in no more commands: the first step of draining."""
        self.door.stop_reading()
        if self.udp_door is not None:
            self.udp_door.stop_reading()

    async def close_order_entry(self, reason: str) -> None:
        """Close every session without End of Session: they live on."""
        if self.udp_door is not None:
            await self.udp_door.shut(reason)
        await self.door.shut(reason)

    async def listen_feed(self) -> None:
        """Serve market data over WebSocket."""
        self.ports["feed"] = await self.feed_server.start()

    async def close_feed(self) -> None:
        """Tell feed clients that the venue stops, and close their connections."""
        await self.feed_server.close()

    def _log_id(self) -> str:
        return f"{self.journal.log_id.hex()}-{self.journal.incarnation}"

    def _token_owner(self, token: str, host: str) -> Identity | None:
        try:
            return self.auth.by_token(token, host)
        except ApiError:
            return None

    def _demo(self) -> Identity | None:
        """Who acts without credentials on the feed, if anybody may."""
        return self.auth.demo if is_loopback(self.settings.config.feed.host) else None

    async def _feed_page(self, path: bytes, query: bytes, headers: Headers,
                         address: str) -> Page:
        """A page of the gateway's that the feed's port answers too."""
        reply = await self.gateway.answer("GET", path, query, headers, b"", address)
        return reply.status, [(b"content-type", reply.content_type), *reply.headers], reply.body

    async def listen_http(self) -> None:
        """Serve the gateway. Order entry listens by then: BlackSheep and uvicorn take a while to
        import, which is done beside the loop."""
        config = self.settings.config.api
        server, demo = await asyncio.gather(
            asyncio.to_thread(importlib.import_module, "engine.api.server"),
            asyncio.to_thread(demo_account, config, self.settings.accounts))
        self.auth.reload()
        if demo:
            self.auth.act_as(demo)
        self.http = server.Server(config, self.gateway, self._tls(config.tls, ("http/1.1",)))
        self.ports["api"] = await self.http.start()
        self.operations.watch.api = self.http

    def stop_order_queue(self) -> None:
        """Take no more orders from Redis; those under way go on their path."""
        if self.order_queue is not None:
            self.order_queue.stop()

    async def finish_order_queue(self) -> None:
        """Let the last answers go to Redis."""
        if self.order_queue is not None:
            await self.order_queue.finish()

    def drain_http(self) -> None:
        """Begin no request any more; commands of those under way go on their path."""
        self.gateway.drain()
        self.desk.stop()

    async def close_http(self) -> None:
        """Let the last answers go out and close every HTTP connection. What has no answer by now
        will have none: its sender is told that."""
        self.desk.abandon()
        self.operations.close()
        await self.database.close()
        await self.peers.close()
        if self.http is not None:
            await self.http.close()

    def start_timers(self) -> list[asyncio.Task[None]]:
        """Run what looks at the clock; none of it ever ends by itself."""
        tasks = [asyncio.create_task(self.door.tick_for_ever(), name="heartbeats"),
                 asyncio.create_task(self.vitals.sample_for_ever(), name="vitals"),
                 asyncio.create_task(self.collector.look_for_ever(), name="collector"),
                 asyncio.create_task(self.operations.watch.sample_for_ever(), name="watch"),
                 asyncio.create_task(self.auth.follow(), name="keys")]
        if self.udp_door is not None:
            tasks += [asyncio.create_task(self.udp_door.tick_for_ever(), name="udp heartbeats"),
                      asyncio.create_task(self.udp_door.check_logins_for_ever(),
                                          name="udp logins")]
        if self.order_queue is not None:
            tasks.append(asyncio.create_task(self.order_queue.run(), name="order queue"))
        if self.telemetry is not None:
            tasks.append(asyncio.create_task(self.telemetry.run(), name="telemetry"))
        second = self.settings.config.session_roll_second
        if second is not None:
            tasks.append(asyncio.create_task(roll_daily(second, self.commands), name="rolls"))
        return tasks

    async def settle(self) -> None:
        """Bring the log up to the files and to the time: new and changed instruments and
        accounts, and a roll that was due while nobody was there. Returns when it is durable.
        Raises ConfigError when files and log contradict each other."""
        settings = self.settings
        second = settings.config.session_roll_second
        if roll_missed(second, self.matcher.last_time_ns, clock.now_ns()):
            self.commands.put_inside(roll_command(Source.INTERNAL))
        _, instruments_file, accounts_file = settings.paths
        batch = definitions(self.matcher, settings.instruments, settings.accounts,
                            instruments_file, accounts_file, settings.config.api,
                            settings.config.order_entry)
        if batch.command_count:
            self.commands.put_inside(batch)
        # Trading takes what was put above before it lets anything else run.
        await asyncio.sleep(0)
        await self.reports.reached(self.matcher.next_seq - 1)
        await self.market.reached(self.matcher.next_seq - 1)

    # -- the tables, while the venue runs ---------------------------------------------------------

    async def reload(self) -> Changes:
        """Read instruments, accounts and limits again and put them in force; what changed. No
        session is dropped, but those of accounts that may not enter orders any more.

        Raises ConfigError with every mistake; nothing has changed then.
        """
        async with self._reloading:
            self.supervisor.reloading()
            try:
                changes = await self._reload_tables()
            finally:
                self.supervisor.ready(self.describe())
        log.get("lifecycle").info("tables read again", **changes.as_dict())
        return changes

    async def _reload_tables(self) -> Changes:
        after = await asyncio.to_thread(load_again, self.settings, self.handed_hosts)
        in_force = [await asyncio.to_thread(renewal, after) for renewal in self.renewals]
        demo = await asyncio.to_thread(demo_account, self.settings.config.api, after.accounts)
        if self.commands.closed:
            raise EngineError("the venue is stopping")
        batch = changed_tables(self.matcher, self.settings, after)
        changes = Changes.between(self.settings, after)
        for one in after.instruments:
            self.market.define(one)
            self._wire_names.define(one.id, one.wire_symbol)
        if batch.command_count:
            await self._settled(batch)

        # Durable: from here on everybody sees it, and nothing waits in between.
        for one in after.instruments:
            self._symbols.add(one.wire_symbol, one.id)
        self.instruments.replace(after.instruments, self.market.instruments.values())
        self.feed.learn_symbols()
        self.accounts.replace(after.accounts)
        self.registry.replace(self.accounts)
        self.auth.reload(force=True)
        self.auth.act_as(demo)
        if changes.instruments_added and "redis" in self.stores.followers:
            # It keeps keys for the markets that it finds when it begins.
            self.stores.look_again("redis", rebuild=False)
        self.settings = msgspec.structs.replace(
            self.settings, instruments=after.instruments, accounts=after.accounts,
            paths=after.paths)
        if self.udp_door is not None:
            self.udp_door.renew_limits()
        for put_in_force in in_force:
            put_in_force()
        return changes

    async def _settled(self, batch: CommandBatch) -> None:
        """Send commands of the venue's own, and wait until they are durable and told."""
        request_id, answer = self.market.expect()
        batch.admin_act(int(Act.OTHER), request_id=request_id, reason="tables read again")
        self.commands.put_inside(batch)
        seq = (await answer).seq
        await self.reports.reached(seq)

    # -- what the control socket asks ------------------------------------------------------------

    async def _status(self, request: Mapping[str, Any]) -> Answer:
        return {
            "name": self.settings.config.venue.name,
            "generation": self.registry.generation,
            "session": self.registry.session_id,
            "seq": self.journal.committed_seq,
            "resting_orders": self.matcher.resting_orders,
            "sessions": self.registry.live_count(),
            "connections": self.door.connection_count,
            "udp_peers": self.udp_door.connection_count if self.udp_door else 0,
            "ports": self.ports,
            "metrics": self.metrics.snapshot(),
        }

    async def _reload(self, request: Mapping[str, Any]) -> Answer:
        return (await self.reload()).as_dict()

    async def _roll(self, request: Mapping[str, Any]) -> Answer:
        rolled: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.registry.when_rolled(rolled.set_result)
        self.commands.put_inside(roll_command(Source.ADMIN))
        generation = await rolled
        return {"generation": generation, "session": self.registry.session_id}

    async def _stores(self, request: Mapping[str, Any]) -> Answer:
        return {"seq": self.journal.committed_seq, "stores": self.stores.rows()}

    async def _look_again(self, request: Mapping[str, Any]) -> Answer:
        self.stores.look_again(str(request.get("name")), request.get("rebuild") is True)
        return {}

    async def _keys(self, request: Mapping[str, Any]) -> Answer:
        self.auth.reload(force=True)
        return {"keys": self.auth.key_count}

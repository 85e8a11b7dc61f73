"""The life of the daemon: recover, listen, wait for a signal, drain in the order of the path.

A stage that fails stops everything at once: nothing is acknowledged any more, and the process
ends with the error's exit code. What was acknowledged is in the log, and the next start finds it.

SIGTERM and SIGINT drain, a second one hurries; SIGHUP reads the tables again; SIGUSR1 writes what
everything is doing to the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import resource
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from engine import clock, config, diagnosis, log
from engine.app import App
from engine.config import Settings
from engine.errors import ConfigError, EngineError
from engine.feed.server import BESIDE_MAX
from engine.journal.journal import Journal
from engine.listen import HANDSHAKES_MAX
from engine.stopping import Stop
from engine.supervisor import Supervisor
from engine.tasks import end_all

# What sockets that are handed over are called (FileDescriptorName=), if they have a name.
ORDER_ENTRY = "order-entry"
# Descriptors beside those of connections: the journal's files, the loop's, the log's.
FILES_BESIDE = 128
# In a hurry a stage may still take so long for what it has, and a farewell so long.
STAGE_HURRIED_S = 2.0
FAREWELL_HURRIED_S = 0.2
# Whatever is left of the time to stop, a farewell may take so long.
FAREWELL_S = 5.0
# While the log is read, so often a line for the service manager and for the log, and so much
# time asked for.
PROGRESS_NS = clock.NS_PER_S
PROGRESS_LOG_NS = 10 * clock.NS_PER_S
START_MORE_S = 60

Tasks = Sequence[asyncio.Task[None]]


class StageError(EngineError):
    """A part of the venue failed or ended that should run: a mistake of ours."""


class StoppedEarlyError(EngineError):
    """It was asked to stop before it had started. Nothing is wrong."""


def run(settings: Settings) -> int:
    """Run the venue until SIGTERM or SIGINT; returns the exit code.

    Raises EngineError (its `exit_code` says which) when the venue cannot start or has to stop.
    """
    log.configure(settings.config.log.level, settings.config.log.format)
    # A watchdog ends a process that stands still with SIGABRT: then stderr says where it stood.
    faulthandler.enable()
    entry, feed = settings.config.order_entry, settings.config.feed
    # The gateway tells as many again that there is no room.
    _allow_files(entry.connections_max + feed.clients_max + BESIDE_MAX
                 + 2 * settings.config.api.connections_max + 3 * HANDSHAKES_MAX + FILES_BESIDE)
    supervisor = Supervisor(config.take_service_variables())
    hosts = supervisor.hosts()
    if hosts:
        config.require_safe(settings, hosts)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve_until_signal(settings, supervisor))
        except StoppedEarlyError:
            log.get("lifecycle").info("stopped before it had started")
        except EngineError as error:
            supervisor.status(f"failed: {error}")
            raise
    return 0


def _allow_files(wanted: int) -> None:
    """Have room for a descriptor of each connection, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        # A sandbox may forbid it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < wanted:
        log.get("lifecycle").warning("fewer open files are allowed than connections_max needs",
                                     wanted=wanted, allowed=allowed)


async def _serve_until_signal(settings: Settings, supervisor: Supervisor) -> None:
    stop = Stop()
    apps: list[App] = []
    reloads: set[asyncio.Task[None]] = set()
    early: list[bool] = []

    def dump() -> None:
        _dump(apps)

    def reload() -> None:
        if not apps:
            early.append(True)
        for app in apps:
            task = asyncio.create_task(_reload(app), name="reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        _on_signal(number, stop.set, stop)
    _on_signal(signal.SIGUSR1, dump)
    _on_signal(signal.SIGHUP, reload)

    def ready(app: App, port: int) -> None:
        apps.append(app)
        if early:
            # Asked for while the log was read; the tables were read before that.
            reload()

    await serve(settings, stop, ready, supervisor)


async def _reload(app: App) -> None:
    """Read the tables again; nobody waits for the answer, so it goes into the log."""
    try:
        await app.reload()
    except ConfigError as error:
        for problem in error.problems:
            log.get("lifecycle").error("tables not read again", problem=problem)
    except EngineError as error:
        log.get("lifecycle").error("tables not read again", problem=str(error))


def _on_signal(number: int, act: Callable[[], None], stop: Stop | None = None) -> None:
    """Have `act` called in the loop. Python's own handlers, because the log is read in one call of
    the loop's: what reads it looks at `stop.wanted`."""
    loop, process = asyncio.get_running_loop(), os.getpid()

    def handle(*_: object) -> None:
        if os.getpid() != process:
            # The child that writes a snapshot: its parent ends it.
            return
        if stop is not None:
            stop.wanted = True
        with contextlib.suppress(RuntimeError):
            # The loop may be closed already: then it is over anyway.
            loop.call_soon_threadsafe(act)

    signal.signal(number, handle)


def _dump(apps: Sequence[App]) -> None:
    """What everything is doing, into the log."""
    diagnosis.tell_all(log.get("diagnosis").warning, [
        queue for app in apps for queue in app.queues])


async def serve(settings: Settings, stop: Stop, ready: Callable[[App, int], None] | None = None,
                supervisor: Supervisor | None = None) -> None:
    """The whole life, until `stop` is set. `ready` gets the app and its port once it listens.

    Raises EngineError when the venue cannot start or a part of it fails.
    """
    logger = log.get("lifecycle")
    supervisor = supervisor or Supervisor()
    for warning in settings.warnings:
        logger.warning(warning)

    # 1. Recover: the same at every start, the first included.
    app = _recover(settings, stop, supervisor)

    # 2. Run the stages, and let them take in what changed in the tables.
    stages = app.start_stages()
    timers: Tasks = []
    until_s = 0.0
    try:
        await _unless_failed(stages, app.settle())

        # 3. Listen.
        app.supervisor, app.handed_hosts = supervisor, supervisor.hosts()
        await app.control.start()
        port = await app.listen_order_entry(
            supervisor.take_sockets(ORDER_ENTRY, socket.SOCK_STREAM),
            supervisor.take_sockets(ORDER_ENTRY, socket.SOCK_DGRAM))
        timers = [*app.start_timers(), asyncio.create_task(
            supervisor.beat_for_ever(app.describe), name="beats")]
        await _unless_failed([*stages, *timers], app.listen_http())
        # After it: a client that comes back at once logs in with what the gateway reads first.
        await app.listen_feed()
        app.stores.start()
        app.collector.start()
        app.vitals.start()
        supervisor.close_others()
        supervisor.ready(app.describe())
        if ready is not None:
            ready(app, port)

        # 4. Wait for the end, or for a part that fails.
        await _unless_failed([*stages, *timers], stop.wait())

        # 5. Drain, in the order of the path.
        logger.info("stopping")
        supervisor.stopping("stopping: finishing what is queued")
        until_s = clock.monotonic_s() + settings.config.venue.drain_timeout_ms / 1000
        await _unless_failed(timers, _drain(app, stages, stop, until_s))
    except BaseException:
        app.journal.abandon()
        raise
    finally:
        await _close(app, [*timers, *stages], stop, until_s)
    app.journal.close(app.matcher, snapshot=not stop.hurried)
    logger.info("stopped", seq=app.matcher.next_seq - 1)


def _recover(settings: Settings, stop: Stop, supervisor: Supervisor) -> App:
    logger = log.get("lifecycle")
    started_ns = clock.monotonic_ns()
    supervisor.starting("reading the log", START_MORE_S)
    recovered = Journal.open(settings.config, progress=_Progress(stop, supervisor))
    supervisor.starting("making the books", START_MORE_S)
    app = App(settings, recovered)
    # What a start found in an old log, say a tail that was cut, is worth a warning.
    tell = logger.warning if app.matcher.next_seq > 1 else logger.info
    for note in recovered.notes:
        tell(note)
    logger.info("recovered", seq=app.matcher.next_seq - 1, generation=recovered.generation,
                resting_orders=app.matcher.resting_orders, snapshot_seq=recovered.snapshot_seq,
                replayed=recovered.replayed,
                ms=(clock.monotonic_ns() - started_ns) // clock.NS_PER_MS)
    return app


class _Progress:
    """Tells how far the reading of the log is, and ends it when the process shall stop."""

    def __init__(self, stop: Stop, supervisor: Supervisor) -> None:
        self._stop, self._supervisor = stop, supervisor
        self._started_ns = self._told_ns = self._logged_ns = clock.monotonic_ns()

    def __call__(self, done_bytes: int, all_bytes: int, events: int) -> None:
        if self._stop.wanted:
            raise StoppedEarlyError("asked to stop while the log was read")
        now_ns = clock.monotonic_ns()
        if now_ns - self._told_ns < PROGRESS_NS:
            return
        self._told_ns = now_ns
        percent = min(100 * done_bytes // max(all_bytes, 1), 100)
        rate = events * clock.NS_PER_S // (now_ns - self._started_ns)
        self._supervisor.starting(f"reading the log: {percent} %, {rate:,} events per second",
                                  START_MORE_S)
        if now_ns - self._logged_ns >= PROGRESS_LOG_NS:
            self._logged_ns = now_ns
            log.get("lifecycle").info("reading the log", percent=percent, events=events,
                                      events_per_second=rate)


async def _drain(app: App, stages: Tasks, stop: Stop, until_s: float) -> None:
    """Close the first queue and let each stage empty its own; the journal syncs last. In a hurry
    nobody waits for more than that: stores catch up at the next start."""
    app.stop_reading_orders()
    app.stop_order_queue()
    app.drain_http()
    app.commands.close()
    for stage in stages:
        if not await stop.give_time(asyncio.shield(stage), until_s, STAGE_HURRIED_S):
            _dump([app])
            raise StageError(f"{stage.get_name()} did not drain in time",
                             "what was acknowledged is in the log; the next start goes on from it")
    app.feed.finish()
    await stop.give_time(app.finish_order_queue(), until_s, FAREWELL_HURRIED_S)
    await stop.give_time(app.stores.drain(), until_s, FAREWELL_HURRIED_S)


async def _close(app: App, tasks: Tasks, stop: Stop, until_s: float) -> None:
    """Tell everybody, and end what runs. Each farewell has its own limit of a few seconds."""
    until_s = max(until_s, clock.monotonic_s() + FAREWELL_S)
    app.vitals.stop()
    app.collector.stop()
    app.control.close()
    app.stop_reading_orders()
    app.stop_order_queue()
    parts = (app.stores.close(), app.close_feed(), app.close_order_entry("the venue stops"))
    farewells = await asyncio.gather(
        *(stop.give_time(part, until_s, FAREWELL_HURRIED_S) for part in parts),
        return_exceptions=True)
    # Last, so that who asks while the others go is told to come again.
    await stop.give_time(app.close_http(), until_s, FAREWELL_HURRIED_S)
    await end_all(tasks)
    app.market.close()
    for error in farewells:
        if isinstance(error, BaseException):
            raise error


async def _unless_failed(tasks: Tasks, work: Coroutine[Any, Any, Any]) -> None:
    """Wait for `work`; raise when one of the tasks ends first."""
    main = asyncio.create_task(work, name="lifecycle")
    done, _ = await asyncio.wait([main, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        if task is main:
            continue
        await end_all([main])
        error = None if task.cancelled() else task.exception()
        if isinstance(error, EngineError):
            raise error
        raise StageError(f"{task.get_name()} failed: {error!r}" if error
                         else f"{task.get_name()} ended") from error
    await main



"""The life of the daemon: recover, listen, wait for a signal, drain in the order of the path.

A stage that fails stops everything at once: nothing is acknowledged any more, and the process
ends with the error's exit code. What was acknowledged is in the log, and the next start finds it.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvloop

from engine import clock, log
from engine.app import App
from engine.config import Settings
from engine.errors import EngineError
from engine.journal.journal import Journal
from engine.tasks import end_all

# A stage that has not emptied by then is stuck; the next start recovers what it held.
DRAIN_S = 30.0
# Descriptors beside those of connections: the journal's files, the loop's, the log's.
FILES_BESIDE = 128

Tasks = Sequence[asyncio.Task[None]]


class StageError(EngineError):
    """A part of the venue failed or ended that should run: a mistake of ours."""


def run(settings: Settings) -> int:
    """Run the venue until SIGTERM or SIGINT; returns the exit code.

    Raises EngineError (its `exit_code` says which) when the venue cannot start or has to stop.
    """
    log.configure(settings.config.log.level, settings.config.log.format)
    config = settings.config
    _allow_files(config.order_entry.connections_max + config.feed.clients_max + FILES_BESIDE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_signal(settings))
    return 0


def _allow_files(wanted: int) -> None:
    """Have room for a descriptor of each connection, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.get("lifecycle").warning("fewer open files are allowed than connections_max needs",
                                     wanted=wanted, allowed=allowed)


async def _serve_until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


async def serve(settings: Settings, stop: asyncio.Event,
                ready: Callable[[App, int], None] | None = None) -> None:
    """The whole life, until `stop` is set. `ready` gets the app and its port once it listens.

    Raises EngineError when the venue cannot start or a part of it fails.
    """
    logger = log.get("lifecycle")
    for warning in settings.warnings:
        logger.warning(warning)

    # 1. Recover: the same at every start, the first included.
    app = _recover(settings)

    # 2. Run the stages, and let them take in what changed in the tables.
    stages = app.start_stages()
    timers: Tasks = []
    try:
        await _unless_failed(stages, app.settle())

        # 3. Listen.
        await app.control.start()
        port = await app.listen_order_entry()
        timers = app.start_timers()
        await _unless_failed([*stages, *timers], app.listen_http())
        # After it: a client that comes back at once logs in with what the gateway reads first.
        await app.listen_feed()
        app.stores.start()
        gc.collect()
        # What start-up made lives as long as the process: no collection need look at it again.
        gc.freeze()
        app.vitals.start()
        if ready is not None:
            ready(app, port)

        # 4. Wait for the end, or for a part that fails.
        await _unless_failed([*stages, *timers], stop.wait())

        # 5. Drain, in the order of the path.
        logger.info("stopping")
        await _unless_failed(timers, _drain(app, stages))
    except BaseException:
        app.journal.abandon()
        raise
    finally:
        app.vitals.stop()
        app.control.close()
        app.stop_reading_orders()
        app.stop_order_queue()
        await app.stores.close()
        await app.close_feed()
        await app.close_http()
        await end_all([*timers, *stages])
        await app.close_order_entry("the venue stops")
        app.market.close()
    app.journal.close(app.matcher)
    logger.info("stopped", seq=app.matcher.next_seq - 1)


def _recover(settings: Settings) -> App:
    logger = log.get("lifecycle")
    started_ns = clock.monotonic_ns()
    recovered = Journal.open(settings.config)
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


async def _drain(app: App, stages: Tasks) -> None:
    """Close the first queue and let each stage empty its own; the journal syncs last."""
    app.stop_reading_orders()
    app.stop_order_queue()
    app.drain_http()
    app.commands.close()
    for stage in stages:
        try:
            await asyncio.wait_for(asyncio.shield(stage), DRAIN_S)
        except TimeoutError:
            raise StageError(f"{stage.get_name()} did not drain within {DRAIN_S:.0f} s") from None
    app.feed.finish()
    await app.finish_order_queue()
    await app.stores.drain()


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



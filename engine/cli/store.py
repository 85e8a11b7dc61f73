"""`matchd store`: how the stores are, made anew, compared with the log, brought up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from engine import config
from engine.cli import options, output
from engine.errors import StoreError

if TYPE_CHECKING:
    from engine.instruments import Instrument
    from engine.stores.store import Position
    from engine.stores.verify import Report

NAMES = ("sqlite", "postgres", "redis")
TABLES = ("sqlite", "postgres")
POLL_S = 0.1
Result = TypeVar("Result")
Told = Callable[[int, int], None]


@click.group()
def store() -> None:
    """The stores of history: SQLite, PostgreSQL, Redis.

    \b
    Example: matchd store status
             matchd store verify sqlite
    """


@store.command()
@click.argument("name", required=False, type=click.Choice(NAMES))
@options.files
@options.as_json
def status(name: str | None, config_path: Path | None, data_dir: Path | None,
           as_json: bool) -> None:
    """Show how far each store is, and what is wrong with it.

    A running venue is asked; without one the stores are, which changes nothing in them.

    \b
    Example: matchd store status
             matchd store status postgres --json
    """
    loaded = _load(config_path, data_dir)
    found = _running(loaded) or _quiet(_at_rest(loaded))
    rows = {key: row for key, row in found["stores"].items() if name in (None, key)}
    if name is not None and not rows:
        raise StoreError(f"{name} is off", _HOW[name])
    head = ("store", "state", "from_seq", "seq", "lag_events", "lag_ms", "breaker", "error")
    text = output.table(head, [[key, *(row.get(column, "-") for column in head[1:])]
                               for key, row in rows.items()]) if rows else "no store is on"
    output.answer({"seq": found["seq"], "running": found["running"], "stores": rows},
                  f"{text}\nthe log ends at seq {found['seq']}", as_json)


@store.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--yes", is_flag=True, help="Don't ask.")
@options.files
@options.as_json
def rebuild(name: str, yes: bool, config_path: Path | None, data_dir: Path | None,
            as_json: bool) -> None:
    """Empty a store and fill it again from the journal.

    What the journal does not keep any more is lost. A running venue does it itself and trades on;
    Redis is filled by a venue only, which knows its books.

    \b
    Example: matchd store rebuild sqlite --yes
    """
    loaded = _load(config_path, data_dir)
    _require(loaded, name)
    oldest = _oldest_seq(loaded)
    if oldest > 1 and name in TABLES:
        _require_state(loaded)
    lost = (f" Events before {oldest} are not in the journal any more; positions and candles "
            "will count from there." if oldest > 1 else "")
    if not yes:
        click.confirm(f"Empty {name} and fill it again from the journal?{lost}", abort=True,
                      err=True)
    with output.Progress(f"filling {name}") as progress:
        if _running(loaded) is not None:
            seq = _quiet(_rebuild_running(loaded, name, progress.at))
        else:
            instruments = config.load_settings(config_path, data_dir=data_dir).instruments
            seq = _quiet(_rebuild_at_rest(loaded, name, instruments, progress.at))
    text = f"{name} holds the events {oldest} to {seq}"
    if oldest > 1 and name in TABLES:
        text += f"; positions and candles count from {oldest}"
    if name == "redis" and not seq:
        text = "redis is empty; the venue fills it when it starts"
    output.answer({"store": name, "first_seq": oldest, "seq": seq}, text, as_json)


@store.command()
@click.argument("name", type=click.Choice(NAMES))
@options.files
@options.as_json
def verify(name: str, config_path: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Compare every row of a store with what the journal says.

    Reads only, so the venue may be running. For SQLite and PostgreSQL it needs as much room in the
    data directory as the store has, for the time it takes. Exits with 4 when something is different
    or damaged.

    \b
    Example: matchd store verify sqlite
    """
    loaded = _load(config_path, data_dir)
    _require(loaded, name)
    with output.Progress(f"verifying {name}") as progress:
        if name == "redis":
            report = _quiet(_verify_redis(config.load_settings(config_path, data_dir=data_dir),
                                          progress.at))
        else:
            report = _quiet(_verify_tables(loaded, name, progress.at))
    good = not report.exit_code
    seq = report.position.seq if report.position is not None else 0
    lines = [f"{name} is {'what the journal says' if good else 'NOT what the journal says'}, "
             f"up to seq {seq}: {sum(report.rows.values())} rows compared, "
             f"{report.different} different"]
    lines += [f"  {table} {rows}" for table, rows in report.rows.items()]
    lines += [f"problem: {problem}" for problem in report.problems]
    lines += [f"different: {difference}" for difference in report.differences]
    lines += [f"note: {note}" for note in report.notes]
    answer = {"store": name, "good": good, "seq": seq, "rows": report.rows,
              "different": report.different, "differences": report.differences,
              "problems": report.problems, "notes": report.notes}
    output.answer(answer, "\n".join(lines), as_json)
    return report.exit_code


@store.command()
@click.argument("name", type=click.Choice(TABLES))
@options.files
@options.as_json
def migrate(name: str, config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Make a store's tables, or bring them to this version.

    A start does it too, unless postgres.migrate is false. Data stays.

    \b
    Example: matchd store migrate postgres
    """
    loaded = _load(config_path, data_dir)
    _require(loaded, name)

    async def run() -> None:
        from engine.stores.store import Position
        allowed = msgspec.structs.replace(
            loaded, postgres=msgspec.structs.replace(loaded.postgres, migrate=True))
        kept = _make(allowed, name)
        try:
            await kept.open(Position(bytes(16), 1, 0))
        finally:
            await kept.close()

    _quiet(run())
    output.answer({"store": name, "migrated": True}, f"the tables of {name} are those of this "
                  "version", as_json)


# -- what they share ------------------------------------------------------------------------------

_HOW = {"sqlite": "sqlite.enabled = true switches it on",
        "postgres": "postgres.url switches it on", "redis": "redis.url switches it on"}


def _load(config_path: Path | None, data_dir: Path | None) -> config.Config:
    loaded, _ = config.load(config_path, data_dir=data_dir)
    return loaded


def _require(loaded: config.Config, name: str) -> None:
    from engine.stores.hub import enabled

    if name not in enabled(loaded):
        raise StoreError(f"{name} is off", _HOW[name])


def _make(loaded: config.Config, name: str) -> Any:
    from engine.stores.hub import make_store

    return make_store(name, loaded, None)


def _quiet(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it; what stores say on their way is not for who waits for the answer."""
    from engine import log

    log.configure("error")
    return asyncio.run(work)


def _oldest_seq(loaded: config.Config) -> int:
    from engine.cli.follow import require_log
    from engine.journal.reader import first_header
    from engine.journal.storage import FileStorage

    require_log(loaded)
    return first_header(FileStorage(loaded.data_dir)).first_seq


def _require_state(loaded: config.Config) -> None:
    """Raises StoreError when nothing says what was before the oldest event that is kept: what is
    emptied then can't be filled."""
    from engine.cli.store_log import ReadLog
    from engine.errors import NotKeptError

    try:
        ReadLog(loaded).new_past().oldest_state()
    except NotKeptError as error:
        raise StoreError(f"it can't be filled again, so it is left as it is: {error.detail}",
                         "where a venue runs, the "
                         "next snapshot that it makes mends that") from error


def _running(loaded: config.Config) -> dict[str, Any] | None:
    """What a running venue says of its stores; None when none runs."""
    from engine import control

    if not loaded.data_dir.is_dir() or not control.is_answered(loaded.data_dir):
        return None
    return {"running": True, **control.request(loaded.data_dir, "stores")}


async def _at_rest(loaded: config.Config) -> dict[str, Any]:
    """The same without a venue, out of the stores."""
    from engine.cli.store_log import ReadLog
    from engine.stores.hub import enabled

    log = ReadLog(loaded)
    rows = {name: await _row(loaded, name, log.end) for name in enabled(loaded)}
    return {"running": False, "seq": log.committed_seq, "stores": rows}


async def _row(loaded: config.Config, name: str, end: Position) -> dict[str, Any]:
    kept = _make(msgspec.structs.replace(
        loaded, postgres=msgspec.structs.replace(loaded.postgres, migrate=False)), name)
    try:
        if name in TABLES:
            async with kept.snapshot() as snapshot:
                position = snapshot.position
                from_seq = {"from_seq": snapshot.kept_from_seq or snapshot.first_seq}
        else:
            position, from_seq = await kept.open(end), {}
    except StoreError as error:
        return {"state": "unknown", "error": str(error)}
    finally:
        await kept.close()
    if position is None:
        return {"state": "empty", "seq": 0, "lag_events": end.seq, "error": ""}
    foreign = "" if position.log_id == end.log_id else (
        f"it belongs to the log {position.log_id.hex()}, ours is {end.log_id.hex()}")
    return {"state": "foreign" if foreign else "at rest", "seq": position.seq,
            "lag_events": max(0, end.seq - position.seq), "error": foreign, **from_seq}


async def _verify_tables(loaded: config.Config, name: str, told: Told) -> Report:
    from engine.cli.store_log import ReadLog
    from engine.stores.verify import verify as compare

    log, kept = ReadLog(loaded), _make(loaded, name)
    try:
        return await compare(kept, log.new_past(), log.end, loaded.data_dir, told)
    finally:
        await kept.close()


async def _verify_redis(settings: config.Settings, told: Told) -> Report:
    from engine.cli.store_log import ReadLog
    from engine.stores.redis_verify import verify as compare

    loaded = settings.config
    return await compare(loaded.redis, settings.instruments, ReadLog(loaded).new_past(),
                         lambda: ReadLog(loaded).end, told)


async def _rebuild_running(loaded: config.Config, name: str, told: Told) -> int:
    """Have the venue do it, and wait until the store holds what the log has now."""
    from engine import control
    from engine.cli.store_log import check

    wanted = control.request(loaded.data_dir, "stores")["seq"]
    control.request(loaded.data_dir, "store", name=name, rebuild=True)
    while True:
        await asyncio.sleep(POLL_S)
        answer = control.request(loaded.data_dir, "stores")
        row = answer["stores"][name]
        check(row)
        if row["rebuilding"]:
            continue
        told(row["seq"], answer["seq"])
        if row["state"] == "connected" and row["seq"] >= wanted:
            return int(row["seq"])


async def _rebuild_at_rest(loaded: config.Config, name: str, instruments: Sequence[Instrument],
                           told: Told) -> int:
    """Do it in the place of a venue, and keep one from starting meanwhile."""
    from engine.cli.store_log import ReadLog, check, follower

    log = ReadLog(loaded)
    log.storage.lock()
    try:
        if name == "redis":
            kept = _make(loaded, name)
            try:
                await kept.reset()
            finally:
                await kept.close()
            return 0
        feeding = follower(name, loaded, log, instruments)
        feeding.rebuild()
        running = asyncio.ensure_future(feeding.run())
        while not feeding.connected or feeding.lag_events:
            await asyncio.sleep(POLL_S)
            check(feeding.row())
            told(feeding.position.seq, log.committed_seq)
        feeding.drain()
        await running
        await feeding.close()
        return feeding.position.seq
    finally:
        log.storage.unlock()

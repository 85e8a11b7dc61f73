"""The real daemon, SQLite and PostgreSQL, and a journal that has let go of its beginning."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.crash.test_kill import ACCOUNTS, GENTLE_S, Load, Stream
from tests.stores.test_stores_daemon import wait_for
from tests.support.daemon import Daemon
from tests.support.postgres import ScratchDatabase

MakeDaemon = Callable[..., Daemon]
SMALL = {"journal__retain_segments": 2, "journal__segment_bytes": 2**18,
         "journal__first_segment_bytes": 2**18, "journal__snapshot_events": 2_000}
NAMES = ("sqlite", "postgres")


def answer(daemon: Daemon, *arguments: str) -> dict[str, Any]:
    """What `matchd store ARGUMENTS --json` says, which goes well."""
    done = daemon.run("store", *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def verified(daemon: Daemon, name: str, from_seq: int) -> dict[str, int]:
    """How many rows `verify` compared, by table."""
    found = answer(daemon, "verify", name)
    assert f"whole from seq {from_seq}" in " ".join(found["notes"])
    rows: dict[str, int] = found["rows"]
    assert all(rows[table] for table in ("instruments", "accounts", "orders", "trades"))
    return rows


@asynccontextmanager
async def trading(daemon: Daemon, streams: list[Stream],
                  pauses_s: Sequence[float] = (0, 0, 0.001, 0.003)) -> AsyncIterator[None]:
    """Clients that trade until the daemon is stopped."""
    loads = [Load(stream, random.Random(number), pauses_s)
             for number, stream in enumerate(streams)]
    clients = [asyncio.create_task(load.run(daemon.port, name))
               for load, name in zip(loads, ACCOUNTS, strict=True)]
    try:
        yield
    finally:
        assert await asyncio.to_thread(daemon.stop) == 0
        await asyncio.gather(*clients)
        for stream in streams:
            stream.understand()


async def until_gone(daemon: Daemon) -> None:
    """Until the first segment is no more."""
    async with asyncio.timeout(120):
        while (daemon.data_dir / "journal" / "00000001.log").exists():
            await asyncio.sleep(0.02)


@pytest.mark.timeout(600)
async def test_stores_begin_late_and_are_rebuilt(make_daemon: MakeDaemon,
                                                 postgres_database: ScratchDatabase) -> None:
    streams = [Stream() for _ in ACCOUNTS]
    first = make_daemon(**SMALL).start()
    async with trading(first, streams):
        await until_gone(first)
    on = {"sqlite__enabled": True, "postgres__url": postgres_database.url,
          "postgres__schema": postgres_database.schema, "sqlite__batch_interval_ms": 5,
          "postgres__batch_interval_ms": 5}
    daemon = make_daemon(**SMALL, **on)
    # Switched on later, without a venue.
    oldest, began = 0, {}
    for name in NAMES:
        done = answer(daemon, "rebuild", name, "--yes")
        oldest = done["first_seq"]
        assert oldest > 1_000
        assert verified(daemon, name, oldest)["positions"]
    assert {row["from_seq"] for row in answer(daemon, "status")["stores"].values()} == {oldest}
    # They go on beside a venue that trades, and are emptied and filled there.
    daemon.start()
    async with trading(daemon, streams, GENTLE_S):
        for name in NAMES:
            done = await asyncio.to_thread(answer, daemon, "rebuild", name, "--yes")
            assert done["first_seq"] >= oldest
            line = daemon.wait_for_line("store begins with the oldest event that is kept",
                                        store=name)
            began[name] = line["seq"]
    daemon.start()
    wait_for(daemon, lambda report: not any(report["parts"][name]["lag_events"]
                                            for name in NAMES))
    for name in NAMES:
        verified(daemon, name, began[name])
    assert daemon.stop() == 0
    ends = answer(daemon, "status")["stores"]
    for name in NAMES:
        assert not ends[name]["lag_events"]
        verified(daemon, name, ends[name]["from_seq"])


async def test_nothing_is_emptied_that_can_not_be_filled(make_daemon: MakeDaemon) -> None:
    streams = [Stream() for _ in ACCOUNTS]
    daemon = make_daemon(**SMALL).start()
    async with trading(daemon, streams):
        await until_gone(daemon)
    daemon = make_daemon(**SMALL, sqlite__enabled=True).start()
    report = wait_for(daemon, lambda report: not report["parts"]["sqlite"]["lag_events"])
    snapshots = list((daemon.data_dir / "snapshots").glob("*.snap"))
    kept = [(path, path.read_bytes()) for path in snapshots]
    for path in snapshots:
        path.write_bytes(b"")
    for running in (True, False):
        if not running:
            assert daemon.stop() == 0
            for path in (daemon.data_dir / "snapshots").glob("*.snap"):
                path.write_bytes(b"")
        done = daemon.run("store", "rebuild", "sqlite", "--yes")
        assert done.returncode != 0
        assert "no snapshot can be read" in done.stderr and "left as it is" in done.stderr
        row = answer(daemon, "status")["stores"]["sqlite"]
        assert row["state"] == ("connected" if running else "at rest")
        assert row["seq"] >= report["seq"]
    for path, data in kept:
        path.write_bytes(data)
    assert answer(daemon, "rebuild", "sqlite", "--yes")["first_seq"] > 1
    verified(daemon, "sqlite", answer(daemon, "status")["stores"]["sqlite"]["from_seq"])

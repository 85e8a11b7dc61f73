"""A full disk and a failing sync: no acknowledgement, one clear line, and a restart goes on."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
import threading

import msgspec
import pytest

from engine.errors import EXIT_DISK, DiskError
from engine.journal import journal
from engine.journal.storage import FileStorage
from tests.journal.losing_storage import LosingStorage
from tests.journal.venue import SMALL, Venue


@pytest.mark.parametrize("inline_units_max", [0, 32])
@pytest.mark.parametrize("sync", ["commit", "interval"])
async def test_a_failing_sync_ends_the_stage_and_nothing_more_is_acknowledged(
        sync, inline_units_max, monkeypatch):
    monkeypatch.setattr(journal, "INLINE_UNITS_MAX", inline_units_max)
    storage = LosingStorage()
    venue = Venue(storage, msgspec.structs.replace(SMALL, sync=sync))
    storage.sync_error = errno.EIO
    await venue.run(40)
    assert isinstance(venue.error, DiskError)
    assert venue.error.exit_code == EXIT_DISK
    assert "Input/output error" in str(venue.error)
    assert "\n" not in str(venue.error)
    if sync == "commit":
        assert venue.acknowledged_seq == 0
    storage.sync_error = 0
    again = await Venue(storage).run(5)
    assert again.error is None


async def test_a_full_disk_ends_the_stage_and_a_restart_after_room_is_made_goes_on():
    storage = LosingStorage()
    venue = Venue(storage)
    storage.room_bytes = 60 << 10
    await venue.run(400)
    assert isinstance(venue.error, DiskError)
    assert "No space left on device" in str(venue.error)
    acknowledged = venue.acknowledged_seq
    storage.room_bytes = -1
    again = Venue(storage)
    assert again.matcher.next_seq - 1 >= acknowledged > 0
    await again.run(5)
    assert again.error is None


async def test_a_start_without_room_says_so():
    storage = LosingStorage()
    storage.room_bytes = 1000
    with pytest.raises(DiskError, match="No space left"):
        Venue(storage)


async def test_a_failed_snapshot_stops_nothing():
    storage = LosingStorage()
    await Venue(storage).run(30)
    venue = Venue(storage, msgspec.structs.replace(SMALL, snapshot_events=50), seed=5)
    real = storage.open

    def open_no_snapshot(name, *, write=False, create=False):
        if create and name.startswith("snapshots/"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(name, write=write, create=create)

    storage.open = open_no_snapshot
    await venue.run(60, end="abandon")
    assert venue.error is None
    assert venue.acknowledged_seq == venue.matcher.next_seq - 1


async def test_a_log_that_is_closed_while_it_moves_on_keeps_no_file_open(tmp_path, monkeypatch):
    venue = Venue(FileStorage(tmp_path))
    log = venue.journal._log
    take, inside, go, errors = log._spare.take, threading.Event(), threading.Event(), []

    def slow(number, size_bytes):
        inside.set()
        assert go.wait(30)
        return take(number, size_bytes)

    def run(work, *arguments):
        try:
            work(*arguments)
        except OSError as error:
            errors.append(error)

    monkeypatch.setattr(log._spare, "take", slow)
    mover = threading.Thread(target=run, args=(log.move_on_now, 1))
    mover.start()
    assert inside.wait(30)
    closer = threading.Thread(target=run, args=(venue.journal.abandon,))
    closer.start()
    go.set()
    mover.join()
    closer.join()
    assert errors == []
    assert (log.file.descriptor, log.file.direct) == (-1, -1)
    with pytest.raises(OSError, match="closed"):
        log.move_on_now(1)


LIMITED = """
import asyncio, resource, signal, sys
from engine.errors import DiskError
from tests.journal.venue import SMALL, Venue
from engine.journal.storage import FileStorage
import msgspec
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main():
    config = msgspec.structs.replace(SMALL, segment_bytes=1 << 20)
    venue = Venue(FileStorage(sys.argv[1]), config)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, 100 << 10))
    await venue.run(400)
    print(venue.acknowledged_seq, venue.error)
    return venue.error.exit_code if venue.error else 0
sys.exit(asyncio.run(main()))
"""


def test_real_files_that_may_not_grow_are_a_disk_error(tmp_path):
    assert resource.RLIMIT_FSIZE
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == EXIT_DISK, done.stderr
    assert "File too large" in done.stdout
    acknowledged = int(done.stdout.split()[0])
    venue = Venue(FileStorage(tmp_path))
    assert venue.matcher.next_seq - 1 >= acknowledged > 0
    venue.journal.abandon()

"""The history file: how it is opened and checked, and what its errors mean.

An operator may remove, replace or lock the file at any time, or point us at one that is none of
ours; each of these is one clear error and never a write into a file that nobody sees.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from engine.errors import StoreError
from engine.stores.sqlite_schema import (
    APPLICATION_ID,
    MIGRATIONS,
    SCHEMA_VERSION,
    SQLITE_NEEDED,
)
from engine.stores.store import StoreDown, StoreRefused, StoreStopped

REBUILD = "`matchd store rebuild sqlite` makes a new one from the journal"
# As the journal's: the daemon's user, and a group that may read.
FILE_MODE = 0o640
# How long a write waits for another process that holds the file.
BUSY_S = 2.0
CACHE_KIB = 16 << 10
# The log beside the file is copied into it at so many pages (of 4 KiB), and cut down to this size.
CHECKPOINT_PAGES = 4_000
WAL_KEPT_BYTES = 64 << 20
# A statement that was prepared is kept; there is one for each table and number of rows.
STATEMENTS_KEPT = 256

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CONTENT = (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG)
_ROOM = (sqlite3.SQLITE_FULL,)


class Identity(NamedTuple):
    """Which files on disk a connection has open: device and inode of the file and of its log."""

    file: tuple[int, int] | None
    log: tuple[int, int] | None


def identity(path: Path) -> Identity:
    """The files that are there now."""
    return Identity(_inode(path), _inode(Path(f"{path}-wal")))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def failure(error: Exception, path: Path, doing: str) -> StoreError:
    """What an error of SQLite means to whoever called the store."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    detail = f"{path}: {error} ({doing})"
    if is_damaged(error):
        return StoreStopped(detail, f"restore the file from a copy; {REBUILD}")
    if code in _CONTENT or isinstance(error, sqlite3.IntegrityError | sqlite3.DataError
                                      | OverflowError):
        return StoreRefused(detail)
    if code in _ROOM:
        return StoreDown(detail, "make room on the disk")
    return StoreDown(detail)


def is_damaged(error: Exception) -> bool:
    """Whether the file is no database, or one that SQLite finds broken."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def connect(path: Path, *, writing: bool) -> sqlite3.Connection:
    """A connection without implicit transactions, for one thread at a time.

    Raises sqlite3.Error. A connection for reading makes no file.
    """
    mode = "rwc" if writing else "ro"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True,
                                 timeout=BUSY_S, isolation_level=None, check_same_thread=False,
                                 cached_statements=STATEMENTS_KEPT)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The file, made or brought to this version's schema. Raises sqlite3.Error, StoreStopped,
    StoreDown."""
    if sqlite3.sqlite_version_info < SQLITE_NEEDED:
        raise StoreStopped(f"SQLite {sqlite3.sqlite_version} is too old for the history",
                           f"use a Python with SQLite {'.'.join(map(str, SQLITE_NEEDED))} or later")
    # Not for everybody on the machine: SQLite gives the files beside it the same mode.
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, FILE_MODE))
    connection = connect(path, writing=True)
    try:
        check(connection, path)
        # Before the first table: with it, pages that become free can be given back.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreStopped(f"{path}: SQLite can't use a write-ahead log here",
                               "keep the data directory on a local disk")
        # Synced at checkpoints only: a power cut may take the last transactions back, whole, and
        # the journal has them. A sync of each would make orders wait for the same disk.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Copy the log into the file and sync both; whether everything that was committed is safe by
    now. A reader that is at work may keep some of it back. Raises sqlite3.Error."""
    busy, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and pages == copied


def check(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version, 0 for an empty file. Raises StoreStopped for what is not ours or of a
    later matchd, sqlite3.Error for what is no database."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID and (tables or application):
        raise StoreStopped(f"{path} is a database, but not a history of matchd",
                           "move it away, or set sqlite.file to another name",
                           "the file is another program's")
    found = max(version, _written_by(connection) if application == APPLICATION_ID else 0)
    if found > SCHEMA_VERSION:
        raise StoreStopped(f"{path} has schema {found}, this matchd knows {SCHEMA_VERSION}",
                           "run the matchd that wrote it, or move the file away: "
                           "a new one is filled from the journal", "a newer schema")
    return version if application == APPLICATION_ID else 0


def _written_by(connection: sqlite3.Connection) -> int:
    """The schema of whoever wrote the position; 0 where nobody did. Raises sqlite3.Error."""
    there = connection.execute("SELECT count(*) FROM pragma_table_info('store_position') "
                               "WHERE name = 'schema_version'").fetchone()[0]
    if not there:
        return 0
    written = connection.execute("SELECT max(schema_version) FROM store_position").fetchone()[0]
    return int(written or 0)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to this version, in one transaction. Raises sqlite3.Error."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, now that nobody else can do the same.
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for script in MIGRATIONS[version:]:
            for statement in script.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction without its changes, if there is one."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        # What failed before says why; a connection that can't roll back is closed by the caller.
        pass


def remove_stale_log(path: Path, closed: Identity) -> None:
    """After closing a file that was replaced meanwhile: SQLite leaves its log behind then, and
    would take it for the new file's."""
    found = identity(path)
    if found.file != closed.file and found.log is not None and found.log == closed.log:
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Give a damaged file, and what SQLite keeps beside it, another name; returns it. Raises
    OSError."""
    number = 1
    while (aside := Path(f"{path}.damaged-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        found = Path(f"{path}{suffix}")
        if found.exists():
            found.rename(f"{aside}{suffix}")
    return aside

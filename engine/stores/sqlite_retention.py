# ruff: noqa: S608 - table and column names are our own, values are parameters.
"""Lets old history go: whole days, oldest first, in slices that are short transactions.

What goes with a day are its trades, its order events, its candles, and its orders as soon as they
are dead: an order that still rests stays, however old. Markets, accounts and positions stay. From
which seq on all is kept stands in `store_retention`, so that `matchd store verify` knows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from engine import clock, log
from engine.config import SqliteConfig

# Rows that one slice removes (at least), and pages that one slice gives back.
SLICE_ROWS = 2_000
SLICE_PAGES = 500
# Pages that are free are left for new rows up to this part of the file.
FREE_SHARE = 0.05
CHECK_S = 60
# Between two slices the writer has its turn.
PAUSE_NS = 5 * clock.NS_PER_MS

_BY_SEQ = (
    "DELETE FROM trades WHERE match_number IN (SELECT match_number FROM trades "
    "WHERE match_number < ? ORDER BY match_number LIMIT ?)",
    "DELETE FROM order_events WHERE seq IN (SELECT seq FROM order_events "
    "WHERE seq < ? ORDER BY seq LIMIT ?)",
    "DELETE FROM orders WHERE order_id IN (SELECT order_id FROM orders WHERE order_id < ? "
    "AND status IN ('filled', 'canceled') ORDER BY order_id LIMIT ?)",
)
# Along the key, so that no slice looks at what stays.
_CANDLES = "DELETE FROM candles WHERE symbol = ? AND interval_s = ? AND open_time_ns < ?"
_SERIES = "SELECT symbol, interval_s FROM instruments, (SELECT DISTINCT interval_s FROM candles)"
_LEFT = ("SELECT 1 WHERE EXISTS (SELECT 1 FROM trades WHERE match_number < ?1) "
         "OR EXISTS (SELECT 1 FROM order_events WHERE seq < ?1) "
         "OR EXISTS (SELECT 1 FROM orders WHERE order_id < ?1 "
         "AND status IN ('filled', 'canceled'))")


class _Pass:
    """Everything before one seq and time goes."""

    def __init__(self, connection: sqlite3.Connection, seq: int, time_ns: int) -> None:
        self._seq, self._time_ns = seq, time_ns
        self._step = 0
        self._series = connection.execute(_SERIES).fetchall()

    def slice(self, connection: sqlite3.Connection) -> bool:
        """Remove some rows in one transaction; True when all are gone. Raises sqlite3.Error."""
        connection.execute("BEGIN IMMEDIATE")
        left = SLICE_ROWS
        while left > 0 and self._step < len(_BY_SEQ):
            done = connection.execute(_BY_SEQ[self._step], (self._seq, left)).rowcount
            self._step += done < left
            left -= done
        while left > 0 and self._series:
            key = self._series.pop()
            left -= connection.execute(_CANDLES, (*key, self._time_ns)).rowcount + 1
        connection.execute("COMMIT")
        return self._step == len(_BY_SEQ) and not self._series


class Retention:
    """What is due, and one slice of it at a time. All in the store's thread."""

    def __init__(self, config: SqliteConfig, now_ns: Callable[[], int] = clock.now_ns) -> None:
        self._days, self._bytes_max = config.retain_days, config.retain_max_bytes
        self._now_ns = now_ns
        self._log = log.get("sqlite")
        self._pass: _Pass | None = None
        self._warned = False
        # When (monotonic) `run` wants to be called; 0 never.
        self.due_ns = 1 if self._days or self._bytes_max else 0

    def is_due(self) -> bool:
        """Whether there may be something to do."""
        return 0 < self.due_ns <= clock.monotonic_ns()

    def run(self, connection: sqlite3.Connection) -> None:
        """One slice. Raises sqlite3.Error."""
        pause_ns = PAUSE_NS
        if self._pass is None:
            self._pass = self._plan(connection)
        if self._pass is not None:
            if self._pass.slice(connection):
                # The next call looks whether another day has to go.
                self._pass = None
        elif not self._give_back(connection):
            pause_ns = CHECK_S * clock.NS_PER_S
        self.due_ns = clock.monotonic_ns() + pause_ns

    def forget(self) -> None:
        """Begin anew: another connection, or after an error."""
        self._pass = None

    def _plan(self, connection: sqlite3.Connection) -> _Pass | None:
        """What has to go now, if anything."""
        kept_seq, kept_ns = kept_from(connection)
        until_ns = self._until_ns(connection)
        if until_ns > kept_ns:
            kept_seq, kept_ns = first_seq_at(connection, until_ns), until_ns
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM store_retention")
            connection.execute("INSERT INTO store_retention VALUES (?, ?)", (kept_seq, kept_ns))
            connection.execute("COMMIT")
            self._log.info("old history goes", before_seq=kept_seq, before_ns=kept_ns)
        elif connection.execute(_LEFT, (kept_seq,)).fetchone() is None:
            return None
        # Also what a pass left when it was cut short, and orders that died since the last one.
        return _Pass(connection, kept_seq, kept_ns)

    def _until_ns(self, connection: sqlite3.Connection) -> int:
        """The midnight before which everything goes by now; 0 when nothing does."""
        ends = [connection.execute(f"SELECT time_ns FROM order_events ORDER BY seq {way} LIMIT 1")
                .fetchone() for way in ("ASC", "DESC")]
        if not ends[0]:
            return 0
        # The newest day there is stays: while a store catches up, more of it may come.
        last_ns = min(_midnight(self._now_ns()), _midnight(ends[1][0]))
        until_ns = _midnight(self._now_ns()) - self._days * clock.NS_PER_DAY if self._days else 0
        if self._bytes_max and used_bytes(connection) > self._bytes_max:
            next_day_ns = _midnight(ends[0][0]) + clock.NS_PER_DAY
            if next_day_ns <= last_ns:
                until_ns = max(until_ns, next_day_ns)
            else:
                self._warn(connection)
        return min(until_ns, last_ns)

    def _give_back(self, connection: sqlite3.Connection) -> bool:
        """Give some free pages back to the disk; True when there may be more."""
        free = _pragma(connection, "freelist_count")
        if free <= FREE_SHARE * _pragma(connection, "page_count"):
            return False
        connection.execute(f"PRAGMA incremental_vacuum({SLICE_PAGES})").fetchall()
        # Where pages can't be given back (a file that was made otherwise), they are used again.
        return _pragma(connection, "freelist_count") < free

    def _warn(self, connection: sqlite3.Connection) -> None:
        if not self._warned:
            self._warned = True
            self._log.warning("one day's history alone is larger than sqlite.retain_max_bytes",
                              bytes=used_bytes(connection), limit=self._bytes_max)


def _midnight(time_ns: int) -> int:
    """The beginning of the day of a time."""
    return time_ns // clock.NS_PER_DAY * clock.NS_PER_DAY


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the rows take, free pages left out."""
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def kept_from(connection: sqlite3.Connection) -> tuple[int, int]:
    """The seq and the time from which on all is kept; (0, 0) when nothing was removed."""
    row = connection.execute("SELECT kept_from_seq, kept_from_ns FROM store_retention").fetchone()
    return (row[0], row[1]) if row else (0, 0)


def first_seq(connection: sqlite3.Connection) -> int:
    """The first event that was ever written; 0 when there is none or some were removed."""
    row = connection.execute("SELECT min(seq) FROM order_events "
                             "WHERE NOT EXISTS (SELECT 1 FROM store_retention)").fetchone()
    return row[0] or 0


def first_seq_at(connection: sqlite3.Connection, time_ns: int) -> int:
    """The first seq at or after a time; behind the last one when all are earlier. Both grow
    together, so halving finds it without an index on times."""
    last = connection.execute("SELECT max(seq) FROM order_events").fetchone()[0] or 0
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute("SELECT seq, time_ns FROM order_events WHERE seq >= ? "
                                 "ORDER BY seq LIMIT 1", (middle,)).fetchone()
        if row[1] >= time_ns:
            high = middle
        else:
            low = row[0] + 1
    found = connection.execute("SELECT min(seq) FROM order_events WHERE seq >= ?",
                               (low,)).fetchone()[0]
    return int(last + 1 if found is None else found)

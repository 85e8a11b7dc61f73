"""What a store is to the loop that feeds it, and the ways in which it can fail.

A store knows how to write a run of events and the position behind them in one transaction, and
nothing about when: that is the follower's (batches, retries, the breaker, catching up).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cython_core.event import EventBatch
from engine.errors import StoreError

if TYPE_CHECKING:
    from engine.stores.beginning import Beginning


class Position(NamedTuple):
    """How far a store is: the last event that it holds, of which log. `seq` 0 is before the first.

    Two positions of one log and incarnation differ by their seq alone; a position of another log
    never fits, one of an older incarnation only up to where that incarnation ended."""

    log_id: bytes
    incarnation: int
    seq: int


class Work(NamedTuple):
    """Events for one transaction: whole commands, without a hole, behind `before` up to `after`.

    `live`: the newest there are; False while a store catches up. Without batches `before` is
    `after`: the store is due, or is asked whether it is still there and where it was. An empty
    store takes any `before`: seq 0, or a later one where the log's beginning is not kept any
    more; then `beginning` is what was there by then, to be written in the same transaction."""

    batches: list[EventBatch]
    before: Position
    after: Position
    live: bool
    beginning: Beginning | None = None


class StoreDown(StoreError):
    """The store can't be reached, or can't write now (a lost connection, a time-out, a full disk,
    read-only, no rights, a missing table): it is tried again later."""


class StoreMoved(StoreError):
    """The position in the store is not where we left it: somebody else wrote or reset it. The
    follower reads it again and goes on from there."""


class StoreRefused(StoreError):
    """The store refuses the content of what it was given. The follower finds the event, and stops
    this store."""


class StoreStopped(StoreError):
    """This store can't go on: another log's, tables from the future, a journal that is gone, an
    event that it refuses. An operator has to look; trading goes on."""


class QueryRefused(StoreError):
    """A question that the store refuses: wrong SQL, more than reading, parameters that don't fit.
    It says nothing about the store."""


class QueryTimeout(StoreError):
    """A question took longer than it may."""


class Store(Protocol):
    """One store. Everything is called in the loop's thread, one call at a time; what takes long
    awaits. None of it may block the loop for more than a millisecond or two."""

    name: str
    # A batch is written after so long, or when so many rows (events) wait.
    batch_interval_ms: int
    max_batch_size: int
    # Whether it has to be told what was there before its first event.
    wants_beginning: bool

    async def open(self, log: Position) -> Position | None:
        """Connect, bring the schema up or check it, and read the position; None when the store is
        empty. `log` is the committed end of our log, whose tables may be needed. Raises StoreDown,
        StoreStopped."""

    async def write(self, work: Work) -> None:
        """Write the events and the position behind them in one transaction.

        Checks in the same transaction that the position is `work.before`. Raises StoreDown,
        StoreMoved, StoreRefused, StoreStopped; then nothing of it was written, or all of it
        (StoreDown after a lost answer): the position tells."""

    def due_ns(self) -> int:
        """When (monotonic) the store wants `write` to be called although no event comes, with
        empty work; 0 for never."""

    def safe_seq(self, written_seq: int) -> int:
        """Up to where a power cut takes nothing back of what was written up to `written_seq`: the
        journal may let go of those events."""

    async def reset(self) -> None:
        """Empty every table and forget the position, in one transaction; whatever was in it, also
        without `open`, which may have failed. Raises StoreDown, StoreStopped."""

    def facts(self) -> Mapping[str, object]:
        """What the line in the log and `/health` tell beside what is common to all stores."""

    async def close(self) -> None:
        """Close the connections, within a second or two; `open` may follow. Never raises."""


Row = tuple[Any, ...]


class Snapshot(NamedTuple):
    """One moment of all tables, while it is open: what is written meanwhile is not seen.

    Rows may be gone, by retention: everything is kept from `kept_from_seq` and `kept_from_ns` on,
    0 for all. `first_seq` is the first event that was ever written, as far as it is known (else
    0). `fetch(sql, parameters)` gives every row of a statement; `check()` one line for
    each thing that the database finds wrong with its own files."""

    position: Position | None
    kept_from_seq: int
    kept_from_ns: int
    fetch: Callable[[str, Sequence[object]], Awaitable[list[Row]]]
    check: Callable[[], Awaitable[list[str]]]
    first_seq: int = 0


class Tables(Protocol):
    """A store whose tables can be held against the log. `mark` is how its SQL names the
    first parameter ("?1", "$1")."""

    name: str
    mark: str

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """One moment of all tables. Raises StoreDown, StoreStopped."""

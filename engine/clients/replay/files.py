"""The files of a recorded day, read into memory."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from engine.clients.replay import lobster
from engine.clients.replay.commands import Step, read_commands
from engine.clients.replay.day import Day

# Told the steps read so far.
Progress = Callable[[int], None]

# Steps between two tellings: often enough for a bar, too rarely to cost anything.
_PROGRESS_STEPS = 1_000


def load_lobster(messages: Path, book: Path, progress: Progress | None = None) -> Day:
    """A LOBSTER recording. Raises ReplayError."""
    return _load(lobster.derive(messages, book), progress)


def load_commands(path: Path, book: Path | None = None, progress: Progress | None = None) -> Day:
    """A commands file, and the recorded book rows if there are any. Raises ReplayError."""
    day = _load(read_commands(path), progress)
    if book is not None:
        for row in lobster.read_book_rows(book):
            day.add_row(row)
    return day


def find_book(path: Path) -> Path | None:
    """The order book file beside a commands file: the one whose name begins with the same symbol;
    None when there is none, or no saying which."""
    found = [other for other in _siblings(path) if "_orderbook_" in other.name]
    return found[0] if len(found) == 1 else None


def symbol_of(path: Path) -> str:
    """The symbol that a file's name begins with, as LOBSTER names its files."""
    return path.name.split("_", 1)[0].upper()


def _siblings(path: Path) -> Iterator[Path]:
    return path.parent.glob(f"{path.name.split('_', 1)[0]}_*")


def _load(steps: Iterable[Step], progress: Progress | None) -> Day:
    day = Day()
    for count, step in enumerate(steps, 1):
        day.add_step(step)
        if progress is not None and count % _PROGRESS_STEPS == 0:
            progress(count)
    return day

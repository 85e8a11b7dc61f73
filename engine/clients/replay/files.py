"""The files of a recorded day, read into memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.clients.replay import lobster
from engine.clients.replay.commands import read_commands, read_lines
from engine.clients.replay.day import Day

# Told how many lines of the first file are read so far.
Progress = Callable[[int], None]


def load_lobster(messages: Path, book: Path, progress: Progress | None = None) -> Day:
    """A LOBSTER recording. Raises ReplayError."""
    day = Day()
    for step in lobster.derive(messages, book):
        day.add_step(step)
        if progress is not None:
            progress(len(day.steps))
    return day


def load_commands(path: Path, book: Path | None = None, progress: Progress | None = None) -> Day:
    """A commands file, and the recorded book rows if there are any. Raises ReplayError."""
    day = Day()
    for step in read_commands(path):
        day.add_step(step)
        if progress is not None:
            progress(len(day))
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


def count_lines(path: Path) -> int:
    """How many lines a plain or .xz file has. Raises ReplayError."""
    return sum(1 for _ in read_lines(path))


def _siblings(path: Path) -> Iterator[Path]:
    return path.parent.glob(f"{path.name.split('_', 1)[0]}_*")

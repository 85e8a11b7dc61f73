"""What commands print: text or JSON on stdout, errors in one line on stderr. The only file that
prints."""

import os
import sys
from collections.abc import Iterable
from typing import Any, Self

import click
import msgspec

from engine import clock

# What is over sooner needs no progress bar.
PROGRESS_AFTER_S = 0.5


def say(text: str) -> None:
    """One line of a command's answer."""
    print(text, flush=True)


def say_json(value: Any) -> None:
    """One JSON document on a line of its own."""
    print(msgspec.json.encode(value).decode("utf-8"), flush=True)


def answer(value: Any, text: str, as_json: bool) -> None:
    """A command's answer in the form that was asked for."""
    if as_json:
        say_json(value)
    else:
        say(text)


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"matchd: {text}", file=sys.stderr, flush=True)


def stop_writing() -> None:
    """Nobody reads stdout any more: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Columns, numbers to the right, without lines around them."""
    texts = [[str(cell) for cell in row] for row in rows]
    titles = list(head)
    widths = [max(len(row[column]) for row in [titles, *texts]) for column in range(len(titles))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
                     for row in [titles, *texts])


class Progress:
    """A progress bar on stderr: only on a terminal, and only for what takes longer than a moment.

    Use it in a `with` block and call `at` with how much of `length` is done.
    """

    def __init__(self, label: str, length: int = 0) -> None:
        self._label, self._length, self._done = label, length, 0
        self._begin_s = clock.monotonic_s() + PROGRESS_AFTER_S
        self._wanted = sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()

    def at(self, done: int, length: int | None = None) -> None:
        """So much is done, of `length` when that is known only now."""
        self._length = length or self._length
        if self._bar is None:
            if not self._wanted or clock.monotonic_s() < self._begin_s:
                return
            self._bar = click.progressbar(length=self._length, label=self._label,
                                          file=sys.stderr)
        self._bar.update(done - self._done)
        self._done = done

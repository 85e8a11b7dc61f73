"""What commands print: text or JSON on stdout, errors in one line on stderr. The only file that
prints."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import click
import msgspec

Item = TypeVar("Item")


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


def progress(items: Iterable[Item], length: int, label: str) -> Iterator[Item]:
    """The items, with a progress bar on stderr where that is a terminal."""
    with click.progressbar(items, length=length, label=label, file=sys.stderr) as bar:
        yield from bar

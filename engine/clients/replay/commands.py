"""The lines of a recorded day: commands for a price-time engine, and what must come of them.

One line is one command; `read_commands` reads a file of them, plain or .xz, and groups them into
steps, one for each row of the recording. The formats are told in `docs/replay.md`.
"""

import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

from engine.errors import EngineError

# Orders that the recording does not name (seeds, and what comes into view at the window's edge).
SEED_PREFIX = "P"


class ReplayError(EngineError):
    """A recording that can't be read, or a replay that can't go on."""


class New(NamedTuple):
    """Post a limit order. It never crosses."""

    order: str
    side: str
    price_units: int
    quantity_lots: int


class Reduce(NamedTuple):
    """Take `quantity_lots` off an order; it keeps its place."""

    order: str
    quantity_lots: int


class Delete(NamedTuple):
    """Cancel what is left of an order."""

    order: str


class Hit(NamedTuple):
    """Send an IOC limit of this side: it must fill exactly this quantity against this maker."""

    side: str
    price_units: int
    quantity_lots: int
    maker: str


class Check(NamedTuple):
    """The best `asks` and `bids` levels must equal the first levels of the book row `row`."""

    row: int
    asks: int
    bids: int


class Sync(NamedTuple):
    """What follows, up to the end of the row, brings levels in or out at the window's edge."""


class End(NamedTuple):
    """The whole book must now equal the book row `row`, every level."""

    row: int


class Nothing(NamedTuple):
    """A hidden execution or a halt: nothing changes."""

    kind: int


Command: TypeAlias = New | Reduce | Delete | Hit | Check | Sync | End | Nothing


Level: TypeAlias = tuple[int, int]


class BookRow(NamedTuple):
    """One recorded book: (price_units, quantity_lots), best first."""

    asks: list[Level]
    bids: list[Level]


class Step(NamedTuple):
    """The commands of one row. `time_ns` since midnight; 0 where the recording has no times.
    `row` is the book after them, where it is at hand."""

    time_ns: int
    commands: list[Command]
    row: BookRow | None = None


def open_text(path: Path) -> IO[str]:
    """Open a plain or .xz text file. Raises ReplayError when it can't be opened."""
    try:
        if path.suffix == ".xz":
            return lzma.open(path, "rt", encoding="ascii")
        return path.open(encoding="ascii")
    except OSError as error:
        raise ReplayError(f"can't open {path}: {error.strerror}") from error


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a comma-separated file. Raises ReplayError."""
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\n").split(",")
        except (EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise ReplayError(f"{path} is damaged: {error}") from error


def read_commands(path: Path) -> Iterator[Step]:
    """Yield the steps of a commands file. Raises ReplayError, with file and line."""
    commands: list[Command] = []
    for number, fields in read_lines(path):
        try:
            command = parse_command(fields)
        except (KeyError, ValueError, TypeError) as error:
            raise ReplayError(
                f"{path}:{number}: {','.join(fields)!r} is not a command of a recorded day",
                "a line looks like NEW,17,B,5800000,100 or END,42",
            ) from error
        commands.append(command)
        if isinstance(command, End):
            yield Step(0, commands)
            commands = []
    if commands:
        yield Step(0, commands)


def write_commands(steps: Iterator[Step]) -> Iterator[str]:
    """Yield the lines of a commands file for these steps."""
    for step in steps:
        for command in step.commands:
            verb = _VERBS[type(command)]
            yield ",".join((verb, *map(str, command))) + "\n"


def parse_command(fields: list[str]) -> Command:
    """One line's fields as a command. Raises KeyError, ValueError or TypeError."""
    return _PARSERS[fields[0]](*fields[1:])


def _side(letter: str) -> str:
    if letter not in ("B", "S"):
        raise ValueError(f"side {letter!r} is neither B nor S")
    return letter


def _count(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise ValueError(f"{text} is not above zero")
    return value


_PARSERS: dict[str, Callable[..., Command]] = {
    "NEW": lambda order, side, price, quantity: New(
        order, _side(side), int(price), _count(quantity)),
    "RED": lambda order, quantity: Reduce(order, _count(quantity)),
    "DEL": lambda order: Delete(order),
    "HIT": lambda side, price, quantity, maker: Hit(
        _side(side), int(price), _count(quantity), maker),
    "CHK": lambda row, asks, bids: Check(_count(row), int(asks), int(bids)),
    "SYN": lambda: Sync(),
    "END": lambda row: End(_count(row)),
    "NOP": lambda kind: Nothing(int(kind)),
}
_VERBS: dict[type, str] = {
    New: "NEW", Reduce: "RED", Delete: "DEL", Hit: "HIT",
    Check: "CHK", Sync: "SYN", End: "END", Nothing: "NOP",
}

"""`matchd replay`: a recorded day through the daemon's port, and every answer checked."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from engine import config
from engine.cli import options, output
from engine.config import Config
from engine.errors import EXIT_OTHER
from engine.instruments import Instrument, by_symbol

if TYPE_CHECKING:
    from engine.clients.replay.report import BookSides

# Every level there is.
LEVELS_MAX = 2**31 - 1

Function = TypeVar("Function", bound=Callable[..., Any])


@click.group()
def replay() -> None:
    """Send a recorded day to the venue and check what comes back.

    Every execution must fill exactly the order that the recording names, the book kept from the
    venue's reports must agree with every recorded one, and at the end with the book rebuilt from
    the journal. Exits with 1 when a check fails. The accounts' orders in the symbol are cancelled
    first; nobody else should have orders there.

    \b
    Example: matchd replay lobster GOOG_message_10.csv.xz GOOG_orderbook_10.csv.xz
             matchd replay commands GOOG_10.commands.csv.xz --json
    """


def _target(function: Function) -> Function:
    """What both kinds of recording need to know of the venue."""
    for option in (
        click.option("--symbol", help="Instrument to trade.  [default: as the file's name begins]"),
        click.option("--maker", default="MAKER1", show_default=True, metavar="ACCOUNT",
                     help="Account of the resting orders."),
        click.option("--taker", metavar="ACCOUNT",
                     help="Account of the executions.  [default: the maker's]"),
        click.option("--password", default="demo", show_default=True, envvar="MATCHD_PASSWORD",
                     help="Password of these accounts."),
        click.option("--host", help="Default: order_entry.host."),
        click.option("--port", type=click.IntRange(1, 65_535),
                     help="Default: order_entry.tcp_port."),
        options.files,
        options.as_json,
    ):
        function = option(function)
    return function


@replay.command()
@click.argument("message", type=click.Path(path_type=Path))
@click.argument("orderbook", type=click.Path(path_type=Path))
@click.option("--speed", type=click.FloatRange(0.0, min_open=True),
              help="Times the recording's own pace.  [default: as fast as it goes]")
@_target
def lobster(message: Path, orderbook: Path, speed: float | None, symbol: str | None,
            as_json: bool, **target: Any) -> int:
    """Replay a LOBSTER recording: its MESSAGE and ORDERBOOK file, plain or .xz.

    \b
    Example: matchd replay lobster GOOG_2012-06-21_34200000_57600000_message_10.csv.xz \\
                 GOOG_2012-06-21_34200000_57600000_orderbook_10.csv.xz --speed 100
    """
    from engine.clients.replay import files

    with output.Progress("reading", files.count_lines(message)) as progress:
        day = files.load_lobster(message, orderbook, progress.at)
    return _run(day, symbol or files.symbol_of(message), speed or 0.0, as_json, **target)


@replay.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--orderbook", type=click.Path(path_type=Path), metavar="FILE",
              help="Recorded book rows.  [default: the order book file beside FILE]")
@_target
def commands(file: Path, orderbook: Path | None, symbol: str | None, as_json: bool,
             **target: Any) -> int:
    """Replay a commands FILE, plain or .xz.

    Without recorded book rows its checks are held against the book that its own lines make.

    \b
    Example: matchd replay commands GOOG_10.commands.csv.xz
    """
    from engine.clients.replay import files

    with output.Progress("reading", files.count_lines(file)) as progress:
        day = files.load_commands(file, orderbook or files.find_book(file), progress.at)
    return _run(day, symbol or files.symbol_of(file), 0.0, as_json, **target)


def _run(day: Any, symbol: str, speed: float, as_json: bool, *, maker: str, taker: str | None,
         password: str, host: str | None, port: int | None, config_path: Path | None,
         data_dir: Path | None) -> int:
    """Replay, print the report; returns the exit code."""
    from engine import log
    from engine.clients.replay.driver import Target
    from engine.clients.replay.driver import replay as send
    from engine.tls import client_context

    settings = config.load_settings(config_path, data_dir=data_dir)
    log.configure("warning", settings.config.log.format)
    known = by_symbol(settings.instruments)
    if symbol not in known:
        raise click.UsageError(f"there is no instrument {symbol}; name one with --symbol")
    entry = settings.config.order_entry
    target = Target(host=host or entry.host, port=port or entry.tcp_port,
                    instrument=known[symbol], maker=maker.upper(),
                    taker=(taker or maker).upper(), password=password, speed=speed,
                    tls=client_context(settings.config.tls, entry.tls))

    def journal_book(instrument: Instrument, session: str) -> "BookSides | None":
        return _journal_book(settings.config, instrument, session)

    with output.Progress("replaying", len(day)) as progress:
        report = asyncio.run(send(day, target, progress.at, journal_book))
    output.answer(report.as_dict(), report.as_text(), as_json)
    return EXIT_OTHER if report.failed else 0


def _journal_book(settings: Config, instrument: Instrument, session: str) -> "BookSides | None":
    """The book as the journal here has it; None when it is not the journal of this session's
    venue."""
    from engine import control
    from engine.cli.state import read_state

    try:
        status = control.request(settings.data_dir, "status")
    except control.ControlError:
        return None
    if status["session"] != session or settings.journal.sync == "off":
        return None
    bids, asks = read_state(settings).levels(instrument.id, LEVELS_MAX)
    return asks, bids

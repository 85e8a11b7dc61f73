"""`matchd watch`: what happens, as it happens. One account's orders from the log; a book or the
trades of an instrument from the feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from engine import config
from engine.cli import options, output
from engine.cli.book import levels_table
from engine.config import Settings
from engine.instruments import by_symbol

Function = TypeVar("Function", bound=Callable[..., Any])

# More levels than that the feed gives as the full book.
DEPTH_MAX = 1_000


class WatchGroup(click.Group):
    """Commands; what names none of them is an account whose events are meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `events` in front of an account's name."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["events", *args]
        return super().parse_args(ctx, args)


@click.group(cls=WatchGroup)
def watch() -> None:
    """Follow an account, a book or trades.

    `matchd watch ACCOUNT` is `matchd watch events ACCOUNT`.

    \b
    Example: matchd watch MAKER1
             matchd watch book BTC-USDT
             matchd watch trades BTC-USDT --json
    """


@watch.command()
@click.argument("account")
@click.option("--fills", is_flag=True, help="Executions only, not orders and cancels.")
@click.option("--from", "from_seq", type=click.IntRange(1), metavar="SEQ",
              help="Begin with this event of the log, in place of what is new.")
@click.option("--once", is_flag=True, help="Stop at the end of the log.")
@options.files
@options.as_json
def events(account: str, fills: bool, from_seq: int | None, once: bool,
           config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show the executions and orders of ACCOUNT as they become durable.

    Reads the journal and follows it while the venue runs; the account's session is not touched.

    \b
    Example: matchd watch MAKER1
             matchd watch events MAKER1 --fills --from 1 --once --json
    """
    settings = config.load_settings(config_path, data_dir=data_dir)
    ids = {one.username: one.id for one in settings.accounts}
    if account.upper() not in ids:
        raise click.UsageError(f"there is no account {account}; there are {', '.join(ids)}")
    from engine.cli import follow, reports

    instruments = {one.id: one for one in settings.instruments}
    for batch in follow.events(settings.config, from_seq, once):
        for event in batch.dicts():
            for report in reports.from_event(event, ids[account.upper()], instruments):
                if report["seq"] >= (from_seq or 0) and (not fills or report["type"] == "executed"):
                    output.answer(report, reports.line(report), as_json)


def _feed(function: Function) -> Function:
    """`--host` and `--port` of the feed."""
    host = click.option("--host", help="In place of feed.host.")
    port = click.option("--port", type=click.IntRange(1, 65_535), help="In place of feed.port.")
    return host(port(function))


@watch.command()
@click.argument("symbol")
@click.option("--depth", type=click.IntRange(1, DEPTH_MAX), default=10, show_default=True,
              metavar="N", help="Price levels of each side.")
@click.option("--once", is_flag=True, help="Show the book as it is, and stop.")
@_feed
@options.files
@options.as_json
def book(symbol: str, depth: int, once: bool, host: str | None, port: int | None,
         config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show the book of SYMBOL as it changes, from the feed of a running venue.

    A line is one tick of the feed: the best prices, and how many levels changed. JSON shows each
    message as it came. The book is checked against the venue's checksum.

    \b
    Example: matchd watch book BTC-USDT
             matchd watch book BTC-USDT --depth 5 --once
    """
    settings = _settings(symbol, config_path, data_dir)

    async def show() -> None:
        async for client, message in _follow(settings, host, port, "book", symbol, depth=depth):
            local = client.book(symbol)
            if as_json:
                output.say_json(message)
            elif once:
                output.say(f"{symbol} at seq {message['seq']}")
                output.say(levels_table(local.bids, local.asks))
            elif message["type"] == "reset":
                output.say(f"{_clock(message['time'])}  again from a snapshot: {message['reason']}")
            else:
                output.say(_best_line(message, local.best_bid, local.best_ask))
            if once and message["type"] == "snapshot":
                return

    _run(settings, show())


@watch.command()
@click.argument("symbol")
@click.option("--from", "from_seq", type=click.IntRange(1), metavar="SEQ",
              help="Begin with this event of the log, in place of what is new.")
@click.option("--once", is_flag=True, help="Stop after the first message with trades.")
@_feed
@options.files
@options.as_json
def trades(symbol: str, from_seq: int | None, once: bool, host: str | None, port: int | None,
           config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show the trades of SYMBOL as they happen, from the feed of a running venue.

    \b
    Example: matchd watch trades BTC-USDT
             matchd watch trades BTC-USDT --from 1 --json
    """
    settings = _settings(symbol, config_path, data_dir)
    resume_from = None if from_seq is None else from_seq - 1

    async def show() -> None:
        async for _, message in _follow(settings, host, port, "trades", symbol,
                                        resume_from=resume_from):
            if message["type"] == "reset":
                output.complain(f"not everything is shown: {message['reason']}")
            for trade in message.get("trades", ()):
                output.answer(trade, _trade_line(trade), as_json)
            if once and message.get("trades"):
                return

    _run(settings, show())


def _settings(symbol: str, config_path: Path | None, data_dir: Path | None) -> Settings:
    """The configuration, with a venue that knows the symbol."""
    settings = config.load_settings(config_path, data_dir=data_dir)
    known = by_symbol(settings.instruments)
    if symbol not in known:
        raise click.UsageError(f"there is no instrument {symbol}; there are "
                               f"{', '.join(one.symbol for one in settings.instruments)}")
    return settings


def _run(settings: Settings, following: Any) -> None:
    from engine import log

    log.configure("error", settings.config.log.format)
    asyncio.run(following)


async def _follow(settings: Settings, host: str | None, port: int | None, channel: str,
                  symbol: str, **terms: Any) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """The client, and each message of one subscription."""
    from engine.clients import FeedClient
    from engine.tls import client_context

    client = FeedClient(host or settings.config.feed.host, port or _port(settings),
                        instruments=settings.instruments,
                        tls=client_context(settings.config.tls, settings.config.feed.tls))
    async with client:
        await client.subscribe(channel, symbol, **terms)
        async for message in client:
            yield client, message


def _port(settings: Settings) -> int:
    """Where the venue of this data directory has its feed, running on another port or not."""
    from engine import control

    try:
        ports = control.request(settings.config.data_dir, "status").get("ports", {})
    except control.ControlError:
        ports = {}
    return int(ports.get("feed") or settings.config.feed.port)


def _best_line(message: dict[str, Any], bid: list[Any] | None, ask: list[Any] | None) -> str:
    """A tick of a book in one line."""
    left = f"{bid[1]} x {bid[0]}" if bid else "-"
    right = f"{ask[0]} x {ask[1]}" if ask else "-"
    changed = len(message["bids"]) + len(message["asks"])
    what = "levels" if message["type"] == "snapshot" else "changed"
    return f"{_clock(message['time'])}  seq {message['seq']}  {left:>28} | {right:<28} " \
           f"{changed} {what}"


def _trade_line(trade: dict[str, Any]) -> str:
    """A trade in one line."""
    return f"{_clock(trade['time'])}  {trade['side']:<4}  {trade['quantity']:>16} at " \
           f"{trade['price']:<16} match {trade['match']}"


def _clock(time_ns: int) -> str:
    """A time of day in UTC, with microseconds."""
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%H:%M:%S}." \
           f"{time_ns % 10**9 // 1000:06d}"

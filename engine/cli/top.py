"""`matchd top`: a running venue in the terminal."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from engine import config, control, log
from engine.cli import options, output
from engine.config import Config
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.clients.top.markets import Markets
    from engine.clients.top.source import Source

# `--once` waits so long for the best prices of every market.
MARKETS_S = 2.0
PRINTED_COLUMNS = 100


@click.command()
@click.option("--url", help="The venue's HTTP gateway; without it the one of this configuration.")
@click.option("--interval", "interval_s", type=click.FloatRange(0.2, 60.0), default=1.0,
              show_default=True, metavar="SECONDS", help="How often the figures are read.")
@click.option("--markets", "pattern", default="*", show_default=True, metavar="PATTERN",
              help="Markets to follow, like \"*-USDT\".")
@click.option("--token", default="", envvar="MATCHD_TOKEN", show_envvar=True,
              help="A token, where the feed asks for a login.")
@click.option("--once", is_flag=True, help="Print the figures of one interval, and stop.")
@options.files
@options.as_json
def top(url: str | None, interval_s: float, pattern: str, token: str, once: bool,
        config_path: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Watch a running venue: rates, latencies, queues, stores, markets.

    Reads what everybody may read: /metrics, /health and /stats over HTTP, prices from the feed. The
    keys are shown below; `?` explains. `--json` prints the figures of one interval.

    \b
    Example: matchd top
             matchd top --url http://venue:8000 --interval 2
             matchd top --once
    """
    settings, _ = config.load(config_path, data_dir=data_dir)
    if not once and not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("needs a terminal; --once prints the figures")
    log.configure("error", settings.log.format)
    from engine.clients.top.markets import Markets
    from engine.clients.top.source import Source
    from engine.tls import client_context

    source = Source(url or _url(settings), tls=client_context(settings.tls))
    host = urlsplit(source.url).hostname or ""
    markets = Markets(token, pattern, client_context(settings.tls, settings.feed.tls))
    if once or as_json:
        return asyncio.run(_print_once(source, markets, host, interval_s, as_json))
    from engine.clients.top.screen import TopScreen

    screen = TopScreen(source, markets, host, interval_s)
    screen.run(mouse=False)
    return screen.return_code or 0


def _url(settings: Config) -> str:
    """Where the venue of this data directory has its gateway, running on another port or not."""
    try:
        ports = control.request(settings.data_dir, "status").get("ports", {})
    except control.ControlError:
        ports = {}
    host = settings.api.host
    scheme = "https" if settings.api.tls else "http"
    port = ports.get("api") or settings.api.port
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


async def _print_once(source: Source, markets: Markets, host: str, interval_s: float,
                      as_json: bool) -> int:
    """Two looks, and what is between them. Raises EngineError when the venue does not answer."""
    following = asyncio.create_task(markets.follow_for_ever(host, source.json))
    try:
        if not await source.look():
            raise EngineError(source.wrong, "is the venue running? --url says where")
        await asyncio.sleep(interval_s)
        if not await source.look():
            raise EngineError(source.wrong, "it answered before")
        await asyncio.wait_for(markets.settled.wait(), MARKETS_S)
    except TimeoutError:
        output.complain(f"no prices: {markets.wrong or 'they did not come'}")
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        source.close()
    view, rows = source.looks.view(), markets.busiest()
    if as_json:
        output.say_json({"url": source.url, "view": view, "markets": rows})
    else:
        output.say(_text(source.url, view, rows))
    return 0


def _text(url: str, view: Any, rows: Any) -> str:
    """The figures as plain text."""
    import io

    from rich.console import Console

    from engine.clients.top import tables

    console = Console(file=io.StringIO(), width=PRINTED_COLUMNS, no_color=True)
    with console.capture() as captured:
        for part in (tables.head(view, url), tables.rates(view), "", tables.times(view.times), "",
                     tables.side(view), "", tables.stores(view.stores), "",
                     tables.markets(rows)):
            console.print(part)
    return captured.get().rstrip()

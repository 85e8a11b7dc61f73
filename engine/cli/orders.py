"""`matchd submit`, `cancel`: orders of one account, over the wire."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from engine import config
from engine.cli import options, output
from engine.config import Settings
from engine.errors import EXIT_OTHER
from engine.instruments import by_symbol

SIDES = {"buy": "B", "sell": "S", "short": "T", "exempt": "E"}
TIMES_IN_FORCE = {"day": "0", "gtc": "1", "ioc": "3", "fok": "4"}


class Login(NamedTuple):
    """Who asks, and where; None is what the configuration says."""

    account: str
    password: str | None
    host: str | None
    port: int | None
    udp: bool


@click.command()
@click.argument("account")
@click.argument("side", type=click.Choice(list(SIDES)))
@click.argument("symbol")
@click.argument("quantity")
@click.argument("price")
@click.option("--tif", type=click.Choice(list(TIMES_IN_FORCE)), default="day", show_default=True,
              help="How long the order stands.")
@click.option("--post-only", is_flag=True, help="Cancel the order rather than trade at once.")
@click.option("--min-quantity", metavar="QUANTITY", help="Trade at least this much (with ioc).")
@click.option("--text", default="", metavar="TEXT", help="Client order id, up to 14 characters.")
@options.order_entry
@options.files
@options.as_json
def submit(account: str, side: str, symbol: str, quantity: str, price: str, tif: str,
           post_only: bool, min_quantity: str | None, text: str, password: str | None,
           host: str | None, port: int | None, udp: bool, config_path: Path | None,
           data_dir: Path | None, as_json: bool) -> int:
    """Submit an order of ACCOUNT: SIDE SYMBOL QUANTITY at PRICE, a decimal or "market".

    Prints what became of it at once. It takes over the account's session for that moment. Exits
    with 1 when the order is rejected.

    \b
    Example: matchd submit MAKER1 sell BTC-USDT 0.5 60000 --password demo
             matchd submit TAKER1 buy BTC-USDT 0.2 market --tif ioc --password demo --udp
    """
    settings = config.load_settings(config_path, data_dir=data_dir)

    async def enter(client: Any) -> Any:
        return await client.enter(
            symbol, SIDES[side], quantity, None if price == "market" else price,
            TIMES_IN_FORCE[tif], post_only=post_only, min_quantity=min_quantity or 0,
            client_order=text)

    login = Login(account, password, host, port, udp)
    return _ask(settings, login, enter, symbol, as_json)


@click.command()
@click.argument("account")
@click.argument("number", type=click.IntRange(1), required=False)
@click.argument("quantity", required=False)
@click.option("--symbol", default="", help="The order's symbol, needed with QUANTITY.")
@click.option("--all", "every", is_flag=True,
              help="Cancel every order, or those of --symbol, in place of NUMBER.")
@options.order_entry
@options.files
@options.as_json
def cancel(account: str, number: int | None, quantity: str | None, symbol: str, every: bool,
           password: str | None, host: str | None, port: int | None, udp: bool,
           config_path: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Cancel order NUMBER (its UserRefNum) of ACCOUNT, or reduce it to QUANTITY.

    QUANTITY is what was executed and what stays open, together. Exits with 1 when there was
    nothing to cancel.

    \b
    Example: matchd cancel MAKER1 3 --password demo
             matchd cancel MAKER1 3 0.25 --symbol BTC-USDT --password demo
             matchd cancel MAKER1 --all --symbol BTC-USDT --password demo
    """
    if every == (number is not None):
        raise click.UsageError("name the order's NUMBER, or --all")
    if quantity is not None and not symbol:
        raise click.UsageError("QUANTITY needs --symbol")
    settings = config.load_settings(config_path, data_dir=data_dir)

    async def take_off(client: Any) -> Any:
        if every:
            return await client.mass_cancel(symbol)
        answer = await client.cancel(number, quantity or 0, symbol=symbol)
        if answer is None:
            raise click.ClickException(f"{account} has no live order #{number} to take that off")
        return answer

    login = Login(account, password, host, port, udp)
    return _ask(settings, login, take_off, symbol, as_json)


def _ask(settings: Settings, login: Login, request: Callable[[Any], Awaitable[Any]], symbol: str,
         as_json: bool) -> int:
    """Log in, ask, print everything that came of it. Returns the exit code."""
    from engine import log
    from engine.cli import reports

    log.configure("warning", settings.config.log.format)
    known = by_symbol(settings.instruments)
    if symbol and symbol not in known:
        raise click.UsageError(f"there is no instrument {symbol}; there are "
                               f"{', '.join(one.symbol for one in settings.instruments)}")
    if login.password is None:
        if not sys.stdin.isatty():
            raise click.UsageError("the account's password is missing: --password")
        password = click.prompt("Password", hide_input=True, err=True)
        login = login._replace(password=password)
    try:
        messages = asyncio.run(_talk(settings, login, request))
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    rejected = False
    for message in messages:
        report = reports.from_message(message, known.get(
            getattr(message, "symbol", "").strip() or symbol))
        output.answer(report, reports.line(report), as_json)
        rejected |= report["type"] == "rejected"
    return EXIT_OTHER if rejected else 0


async def _talk(settings: Settings, login: Login,
                request: Callable[[Any], Awaitable[Any]]) -> list[Any]:
    """What the venue said from the answer to `request` up to that of an account query behind it."""
    from engine.clients import AccountQueried, OrderEntryClient
    from engine.tls import client_context

    entry = settings.config.order_entry
    client = OrderEntryClient(
        login.host or entry.host,
        login.port or (entry.udp_port if login.udp else entry.tcp_port),
        login.account.upper(), login.password or "", instruments=settings.instruments,
        transport="udp" if login.udp else "tcp", udp_window=entry.udp_window, reconnect_for_s=0,
        tls=None if login.udp else client_context(settings.config.tls, entry.tls))
    async with client:
        answer = await request(client)
        fence = await client.account_query()
        messages: list[Any] = []
        async for message in client.executions():
            if message == fence:
                break
            if message == answer or (messages and not isinstance(message, AccountQueried)):
                messages.append(message)
        return messages

"""`matchd book`: an instrument's book, rebuilt from the journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine import config
from engine.cli import options, output
from engine.instruments import Instrument, by_symbol

if TYPE_CHECKING:
    from cython_core.matcher import Matcher

# More than there can be prices.
LEVELS_MAX = 2**31


@click.command()
@click.argument("symbol")
@click.option("--depth", type=click.IntRange(1), default=10, show_default=True, metavar="N",
              help="Price levels of each side.")
@click.option("--orders", is_flag=True, help="Every order, in the order in which it would trade.")
@options.files
@options.as_json
def book(symbol: str, depth: int, orders: bool, config_path: Path | None, data_dir: Path | None,
         as_json: bool) -> None:
    """Show the book of SYMBOL as the journal has it.

    Reads snapshots and journal and writes nothing, so the venue may be running.

    \b
    Example: matchd book BTC-USDT --depth 5
             matchd book GOOG --orders --json
    """
    settings = config.load_settings(config_path, data_dir=data_dir)
    known = by_symbol(settings.instruments)
    if symbol not in known:
        raise click.UsageError(f"there is no instrument {symbol}; there are "
                               f"{', '.join(one.symbol for one in settings.instruments)}")
    from engine.cli.state import read_state

    instrument = known[symbol]
    matcher = read_state(settings.config)
    seq = matcher.next_seq - 1
    if instrument.id not in matcher.instruments():
        output.answer({"symbol": instrument.symbol, "seq": seq, "bids": [], "asks": []},
                      f"{instrument.symbol}: not traded yet", as_json)
    elif orders:
        _show_orders(instrument, seq, matcher.orders(instrument.id), as_json)
    else:
        _show_levels(instrument, matcher, depth, as_json)


def _show_levels(instrument: Instrument, matcher: Matcher, depth: int, as_json: bool) -> None:
    """The book as the feed tells it, with the checksum of its best levels."""
    from cython_core.depth import Books

    seq = matcher.next_seq - 1
    books = Books(seq)
    books.define(instrument.id, instrument.price_decimals, instrument.quantity_decimals,
                 instrument.lot_size, instrument.tick_units)
    books.open(instrument.id, *matcher.levels(instrument.id, LEVELS_MAX), seq)
    bids, asks = books.rows(instrument.id, depth)
    if as_json:
        output.say_json({"symbol": instrument.symbol, "seq": seq, "bids": bids, "asks": asks,
                         "crc": books.crc(instrument.id)})
        return
    output.say(f"{instrument.symbol} at seq {seq}")
    output.say(levels_table(bids, asks))


def levels_table(bids: list[list[Any]], asks: list[list[Any]]) -> str:
    """Rows of [price, quantity, orders] as one ladder, the highest price on top."""
    rows = [(*row, "ask") for row in reversed(asks)] + [(*row, "bid") for row in bids]
    return output.table(("price", "quantity", "orders", "side"), rows)


def _show_orders(instrument: Instrument, seq: int, orders: list[dict[str, object]],
                 as_json: bool) -> None:
    rows = [_order(instrument, order) for order in orders]
    if as_json:
        output.say_json({"symbol": instrument.symbol, "seq": seq, "orders": rows})
        return
    output.say(f"{instrument.symbol} at seq {seq}")
    head = ("side", "price", "quantity", "order_id", "account_id", "user_ref_num")
    output.say(output.table(head, ([row[name] for name in head] for row in rows)))


def _order(instrument: Instrument, order: dict[str, object]) -> dict[str, object]:
    return {
        "side": "buy" if order["side"] == "B" else "sell",
        "price": instrument.price_text(int(str(order["price_units"]))),
        "quantity": instrument.quantity_text(int(str(order["quantity_lots"]))),
        "order_id": order["order_id"], "account_id": order["account_id"],
        "user_ref_num": order["user_ref_num"],
    }

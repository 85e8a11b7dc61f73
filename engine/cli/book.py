"""`matchd book`: an instrument's book, rebuilt from the journal."""

from pathlib import Path

import click

from engine import config
from engine.cli import options, output
from engine.instruments import Instrument, by_symbol


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
        _show_levels(instrument, seq, matcher.levels(instrument.id, depth), as_json)


def _show_levels(instrument: Instrument, seq: int,
                 levels: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]],
                 as_json: bool) -> None:
    bids, asks = ([(instrument.price_text(price), instrument.quantity_text(lots), count)
                   for price, lots, count in side] for side in levels)
    if as_json:
        output.say_json({"symbol": instrument.symbol, "seq": seq, "bids": bids, "asks": asks})
        return
    rows = [(price, quantity, count, "ask") for price, quantity, count in reversed(asks)]
    rows += [(price, quantity, count, "bid") for price, quantity, count in bids]
    output.say(f"{instrument.symbol} at seq {seq}")
    output.say(output.table(("price", "quantity", "orders", "side"), rows))


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

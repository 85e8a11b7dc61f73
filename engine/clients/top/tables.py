"""Figures as text: the tables that the terminal shows and that `--once` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.clients.local_book import Row
from engine.clients.top.markets import MarketRow
from engine.clients.top.view import QueueRow, StoreRow, TimeRow, View

BARS = "▁▂▃▄▅▆▇█"
GOOD, BAD, WARN, DIM, HEAD = "green", "bold red", "yellow", "dim", "bold cyan"
# A queue this full is worth a colour; at 90 % the venue calls itself degraded.
QUEUE_PART = 0.5
UNITS = ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k"))


def short(value: float) -> str:
    """A number in at most six characters: 0.25, 9,999, 12.3k, 4.56M."""
    for size, unit in UNITS:
        if value >= size:
            scaled = value / (1_000 if unit == "k" else size)
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{unit}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"


def size(value: float) -> str:
    """Bytes, in powers of 1,024."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024 ** power:
            return f"{value / 1024 ** power:.1f} {unit}"
    return f"{value:.0f} B"


def took(value_ms: float) -> str:
    """A time, in the unit in which it has few digits."""
    if value_ms == 0:
        return "-"
    if value_ms < 0.9995:
        return f"{value_ms * 1_000:.0f} us"
    if value_ms < 1_000:
        return f"{value_ms:.{1 if value_ms < 9.95 else 0}f} ms"
    return f"{value_ms / 1_000:.2f} s"


def lasted(value_s: float) -> str:
    """How long something is, in days, hours, minutes and seconds."""
    days, rest = divmod(int(value_s), 86_400)
    text = f"{rest // 3_600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}d {text}" if days else text


def spark(values: Sequence[float], width: int) -> str:
    """The newest values as bars, the highest one full."""
    shown = list(values)[-width:]
    most = max(shown, default=0.0)
    return "".join(BARS[min(len(BARS) - 1, int(value / most * len(BARS)))] if most else BARS[0]
                   for value in shown)


def head(view: View, url: str) -> Text:
    """Who it is and how it is."""
    good = view.status == "healthy" and view.ready
    state = view.status if view.ready or view.status != "healthy" else "not ready"
    return Text.assemble(
        (f"{view.name} {view.version}", "bold"), "  ", (state, GOOD if good else BAD),
        f"  {url}  up {lasted(view.uptime_s)}  seq {view.seq:,}")


def rates(view: View) -> Text:
    """What comes in a second."""
    shown = {"orders": view.rates["orders"], "trades": view.rates["trades"],
             "rejects": view.rates["rejects"], "commits": view.rates["commits"],
             "http": view.rates["http_requests"], "feed": view.rates["feed_messages"]}
    parts: list[tuple[str, str]] = [("per s:  ", DIM)]
    for name, value in shown.items():
        parts += [(f"{name} ", DIM), (f"{short(value)}  ", "bold")]
    return Text.assemble(*parts)


def _table(*columns: str, width: int | None = None) -> Table:
    """A table without lines: the first column to the left, numbers to the right."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style=HEAD, pad_edge=False, width=width,
                  show_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    return table


def times(rows: Iterable[TimeRow]) -> Table:
    """Latency by stage."""
    table = _table("last 10 s", "per s", "p50", "p90", "p99", "p99.9")
    for row in rows:
        table.add_row(row.name, short(row.per_second), *(
            took(value) for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.p999_ms)),
            style="" if row.per_second else DIM)
    return table


def queues(rows: Iterable[QueueRow]) -> Table:
    """What waits between the stages."""
    table = _table("queue", "units", "full", "most", "waits")
    for row in rows:
        part = row.units / row.limit_units if row.limit_units else 0.0
        most = row.max_units / row.limit_units if row.limit_units else 0.0
        table.add_row(row.name, short(row.units), f"{part:.0%}", f"{most:.0%}", short(row.waits),
                      style=BAD if part >= QUEUE_PART else "")
    return table


def facts(view: View) -> Table:
    """Who is there, and how the process is."""
    clients, process = view.clients, view.process
    table = _table("", "")
    table.show_header, table.columns[1].justify = False, "left"
    lines = {
        "sessions": f"{clients.sessions}, {clients.connections} of "
                    f"{short(clients.connections_limit)} conns",
        "feed": f"{clients.feed}, {clients.feed_slow} slow, {clients.feed_dropped} cut",
        "http": f"{clients.http} conns",
        "cpu, mem": f"{process.cpu:.0%}, {size(process.memory_bytes)}",
        "max lag, gc": f"{took(process.loop_lag_max_ms)}, {took(process.gc_pause_max_ms)}",
    }
    for name, text in lines.items():
        table.add_row(Text(name, DIM), text)
    return table


def side(view: View) -> RenderableType:
    """Queues, and below them the rest."""
    return Group(queues(view.queues), facts(view))


def stores(rows: Iterable[StoreRow]) -> Table:
    """What follows the journal."""
    table = _table("store", "state", "behind", "for", "events/s", "write p99", "breaker",
                   "errors")
    for row in rows:
        table.add_row(
            row.name, Text(row.state, GOOD if row.state == "connected" else BAD),
            short(row.lag_events), f"{row.lag_s:.1f} s", short(row.events_per_second),
            took(row.write_p99_ms), Text(row.breaker, "" if row.breaker == "closed" else BAD),
            short(row.errors))
    return table


def markets(rows: Sequence[MarketRow], selected: str = "", title: str = "market") -> Table:
    """The best prices of each market."""
    table = _table(title, "bid qty", "bid", "ask", "ask qty", "last", "24 h", "trades/s")
    for row in rows:
        halted = row.state == "halted"
        table.add_row(
            Text(row.symbol, "reverse" if row.symbol == selected else BAD if halted else ""),
            row.bid_quantity, Text(row.bid, GOOD), Text(row.ask, "red"), row.ask_quantity,
            row.last, _change(row) if not halted else Text("halted", BAD),
            short(row.trades_per_second))
    return table


def _change(row: MarketRow) -> Text:
    if not row.change or not row.last:
        return Text("")
    change = float(row.change)
    before = float(row.last) - change
    value = change / before if before else 0.0
    return Text(f"{value:+.2%}", GOOD if value > 0 else "red" if value < 0 else "")


def ladder(symbol: str, levels: tuple[list[Row], list[Row]] | None, rows: int) -> RenderableType:
    """The best levels of one market, bids beside asks."""
    if levels is None:
        return Text(f"{symbol}: waiting for the book", DIM)
    table = _table(symbol, "orders", "bid qty", "bid", "ask", "ask qty", "orders")
    bids, asks = levels
    for place in range(min(rows, max(len(bids), len(asks)))):
        bid = bids[place] if place < len(bids) else ["", "", ""]
        ask = asks[place] if place < len(asks) else ["", "", ""]
        table.add_row(str(place + 1), str(bid[2]), bid[1], Text(bid[0], GOOD),
                      Text(ask[0], "red"), ask[1], str(ask[2]))
    return table


def wrong(view: View) -> RenderableType:
    """Why the venue is degraded, and what is wrong with its stores."""
    lines = [*view.reasons, *(f"{row.name}: {row.error}" for row in view.stores if row.error)]
    if not lines:
        return Text("every check holds", GOOD)
    return Group(*(Text(f"- {line}", BAD) for line in lines))

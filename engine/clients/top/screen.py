"""`matchd top` in the terminal: 80 columns and 24 lines are enough, more are used.

Everything is text in a few boxes that are written anew at each interval; the library sends the
terminal only what changed, which is what makes it bearable over a slow line.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from typing import Any, ClassVar

from rich.console import Group, RenderableType
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from engine import clock
from engine.clients.top import tables
from engine.clients.top.markets import MarketRow, Markets
from engine.clients.top.source import Source

INTERVALS_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
KEPT = 400
# Lines above what the lower part shows: title, or head of a table.
TITLE_LINES = 1
# The exit code of who is ended by signal N is this + N, as a shell shows it.
SIGNALED = 128

KEYS = """\
q, Ctrl+C   quit
up, down    choose a market (also k, j)
Enter       its levels; Esc goes back
s           markets by how busy they are, or by name
h           health: what is wrong
space       stand still, go on
+, -        read more or less often
?           this page

Times are of the last 10 seconds, exact to a bucket of the venue's histograms.
"command wait", "match", "commit" and "report" are the stages of an order;
"order ack" is all of them together, counted once for each event.
Queues are in 64-byte units; "most" and "max" are since the start.
"24 h" is the last price against that of 24 hours ago."""
FOOT = "q quit  ↑↓ Enter levels  s sort  h health  space still  +- speed  ? keys"


class TopScreen(App[None]):
    """The whole program: asks, and shows."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    Static { width: 100%; height: auto; }
    #middle { height: auto; }
    #times { width: 48; }
    #side { width: 1fr; padding-left: 1; }
    #lower { height: 1fr; }
    #foot { height: 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit"), Binding("down,j", "choose(1)"), Binding("up,k", "choose(-1)"),
        Binding("enter", "levels"), Binding("escape", "show('markets')"),
        Binding("s", "sort"), Binding("h", "show('health')"), Binding("space", "still"),
        Binding("question_mark", "show('keys')"), Binding("plus,equals_sign", "faster(-1)"),
        Binding("minus", "faster(1)")]

    def __init__(self, source: Source, markets: Markets, host: str, interval_s: float) -> None:
        super().__init__()
        self._source, self._markets, self._host = source, markets, host
        self._interval_s = interval_s
        self._orders: deque[float] = deque(maxlen=KEPT)
        # What the lower part shows: markets, levels, health, keys.
        self._lower = "markets"
        self._by_name = self._is_still = False
        self._selected = ""
        self._wake = asyncio.Event()

    def compose(self) -> ComposeResult:
        """The boxes, from above."""
        yield Static(id="head")
        yield Static(id="rates")
        with Horizontal(id="middle"):
            yield Static(id="times")
            yield Static(id="side")
        yield Static(id="stores")
        yield Static(id="lower")
        yield Static(FOOT, id="foot")

    def on_mount(self) -> None:
        """Begin to ask."""
        # The terminal is given back also when somebody else ends us.
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(
                number, self.exit, None, SIGNALED + number)
        self.run_worker(self._ask_for_ever(), exit_on_error=True)
        self.run_worker(self._markets.follow_for_ever(self._host, self._source.json))

    async def on_unmount(self) -> None:
        """Leave the venue alone."""
        self._source.close()

    # -- asking ----------------------------------------------------------------------------------

    async def _ask_for_ever(self) -> None:
        while True:
            if not self._is_still:
                if await self._source.look():
                    self._orders.append(self._source.looks.view().rates["orders"])
                self._show()
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), self._interval_s)
            except TimeoutError:
                pass

    # -- showing ---------------------------------------------------------------------------------

    def _put(self, name: str, content: RenderableType) -> None:
        self.query_one(f"#{name}", Static).update(content)

    def _show(self) -> None:
        """Write everything anew."""
        self._put("head", self._head())
        if len(self._source.looks):
            view = self._source.looks.view()
            bars = tables.spark(list(self._orders), max(10, self.size.width - 9))
            self._put("rates", Group(tables.rates(view), Text.assemble(
                ("orders/s ", tables.DIM), (bars, tables.GOOD))))
            self._put("times", tables.times(view.times))
            self._put("side", tables.side(view))
            self._put("stores", tables.stores(view.stores) if view.stores else "")
        self._show_lower()

    def _head(self) -> Text:
        source = self._source
        if source.wrong:
            silent_s = clock.monotonic_s() - source.silent_since_s
            return Text(f"{source.wrong}; silent for {silent_s:.0f} s, trying again", tables.BAD)
        if not len(source.looks):
            return Text(f"asking {source.url}", tables.DIM)
        head = tables.head(source.looks.view(), source.url)
        return Text.assemble(head, ("  STILL", tables.WARN)) if self._is_still else head

    def _show_lower(self) -> None:
        """The part below the stores."""
        for name in ("#middle", "#stores"):
            self.query_one(name).display = self._lower != "keys"
        rows = max(1, self.query_one("#lower").size.height - TITLE_LINES)
        content: RenderableType
        if self._lower == "keys":
            content = KEYS
        elif self._lower == "health" and len(self._source.looks):
            content = tables.wrong(self._source.looks.view())
        elif self._lower == "levels":
            content = tables.ladder(self._selected, self._markets.levels(), rows)
        else:
            content = self._market_table(rows)
        self._put("lower", content)

    def _rows(self) -> list[MarketRow]:
        return self._markets.by_name() if self._by_name else self._markets.busiest()

    def _market_table(self, rows: int) -> RenderableType:
        markets = self._markets
        found = self._rows()
        if not found:
            return Text(f"no markets: {markets.wrong}" if markets.wrong else "no markets",
                        tables.DIM)
        place = self._place(found)
        first = max(0, min(place - rows // 2, len(found) - rows))
        title = f"market 1-{len(found)}/{markets.count}" if len(found) < markets.count \
            else "no feed" if markets.wrong else "market"
        return tables.markets(found[first:first + rows], self._selected, title)

    def _place(self, rows: list[MarketRow]) -> int:
        names = [row.symbol for row in rows]
        return names.index(self._selected) if self._selected in names else 0

    # -- keys ------------------------------------------------------------------------------------

    async def action_choose(self, step: int) -> None:
        """Another market."""
        rows = self._rows()
        if not rows:
            return
        place = self._place(rows) + step if self._selected else 0
        self._selected = rows[max(0, min(len(rows) - 1, place))].symbol
        if self._lower == "levels":
            self.run_worker(self._markets.follow_book(self._selected), exclusive=True,
                            group="book")
        self._show_lower()

    async def action_levels(self) -> None:
        """The levels of the chosen market."""
        rows = self._rows()
        if rows:
            self._selected = self._selected or rows[0].symbol
            self._lower = "levels"
            self.run_worker(self._markets.follow_book(self._selected), exclusive=True,
                            group="book")
            self._show_lower()

    async def action_show(self, what: str) -> None:
        """Another lower part; the same key again goes back to the markets."""
        if self._lower == "levels":
            self.run_worker(self._markets.follow_book(""), exclusive=True, group="book")
        self._lower = "markets" if self._lower == what else what
        self._show_lower()

    def action_sort(self) -> None:
        """By how busy they are, or by name."""
        self._by_name = not self._by_name
        self._show_lower()

    def action_still(self) -> None:
        """Stand still, or go on."""
        self._is_still = not self._is_still
        self._put("head", self._head())
        self._wake.set()

    def action_faster(self, step: int) -> None:
        """Ask more or less often."""
        near = min(range(len(INTERVALS_S)),
                   key=lambda place: abs(INTERVALS_S[place] - self._interval_s))
        self._interval_s = INTERVALS_S[max(0, min(len(INTERVALS_S) - 1, near + step))]
        self._put("foot", f"every {self._interval_s:g} s  {FOOT}")
        self._wake.set()

    async def action_quit(self) -> None:
        """Leave."""
        self.exit()

    def on_resize(self, event: Any) -> None:
        """The terminal has another size."""
        self.call_after_refresh(self._show_lower)

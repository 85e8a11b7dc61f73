"""The dashboard and what it asks beside the feed: where the feed is, what is traded, how busy
the venue is.

None of it needs a key: it tells nothing of an account or an order, and a page that anybody may
open cannot keep one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from engine import __version__, clock
from engine.api.files import Folder
from engine.api.route import Access, Call, Reply, Route, json_reply
from engine.instruments import Instrument
from engine.metrics import TIMES_NS, Metrics, Spread

HERE = Path(__file__).parent
_ORDERS = ("accepted", "rejected", "replaced", "replace_refused")
_NOTHING = Spread(TIMES_NS, [0] * (len(TIMES_NS) + 1), 0)


class VenueInstrument(msgspec.Struct):
    """How an instrument's prices and quantities are written. `tick` and `lot` are decimals."""

    symbol: str
    price_decimals: int
    tick: str
    quantity_decimals: int
    lot: str


class Venue(msgspec.Struct):
    """The venue; `feed_port` is 0 while its WebSocket feed does not listen."""

    name: str
    version: str
    feed_port: int
    instruments: list[VenueInstrument]


class Times(msgspec.Struct):
    """How times were spread since the start: `counts` has one more than `bounds` (nanoseconds),
    for what was longer than the last one."""

    bounds: list[int]
    counts: list[int]


class Clients(msgspec.Struct):
    """Who is connected: readers of the feed, sessions of order entry, connections over HTTP."""

    feed: int
    order_entry: int
    http: int


class Load(msgspec.Struct):
    """Counters since the start; `orders` are those that were entered or replaced, refused ones
    too. The difference of two answers is what happened in between; `time` is a clock that only
    serves for that, in nanoseconds."""

    time: int
    orders: int
    trades: int
    commit: Times
    answer: Times
    clients: Clients


class VenueRoutes:
    """The dashboard's own routes. `clients` says how many are connected, by the fields of
    `Clients`; `counters` are the matcher's."""

    def __init__(self, instruments: Callable[[], Iterable[Instrument]], ports: Mapping[str, int],
                 metrics: Metrics, counters: Callable[[], Mapping[str, int]],
                 clients: Callable[[], Clients]) -> None:
        self._instruments, self._ports, self._metrics = instruments, ports, metrics
        self._counters, self._clients = counters, clients

    def routes(self) -> list[Route]:
        """For the gateway's table: the pages, their libraries, and what they ask."""
        pages = {route.path: route for route in Folder(HERE / "dashboard").routes("/dashboard")}
        index = msgspec.structs.replace(pages.pop("/dashboard"), path="/")
        return [
            Route(method="GET", path="/v1/venue", handler=self.venue, access=Access.PUBLIC,
                  summary="What is traded, and where the feed is", tag="Venue", answer=Venue),
            Route(method="GET", path="/v1/venue/load", handler=self.load, access=Access.PUBLIC,
                  summary="How busy the venue is", tag="Venue", answer=Load),
            index, *pages.values(), *Folder(HERE / "vendor").routes("/vendor")]

    async def venue(self, call: Call) -> Reply:
        """Its name, version, instruments and the feed's port."""
        return json_reply(Venue("matchd", __version__, self._ports.get("feed", 0),
                                [_row(instrument) for instrument in self._instruments()]))

    async def load(self, call: Call) -> Reply:
        """Orders, trades and latencies since the start, and who is connected."""
        counters, spreads = self._counters(), self._metrics.spreads()
        return json_reply(Load(
            clock.monotonic_ns(), sum(counters[kind] for kind in _ORDERS), counters["fill"],
            _times(spreads.get("commit", _NOTHING)), _times(spreads.get("order_ack", _NOTHING)),
            self._clients()))


def _times(spread: Spread) -> Times:
    return Times(list(spread.bounds), list(spread.counts))


def _row(instrument: Instrument) -> VenueInstrument:
    return VenueInstrument(
        instrument.symbol, instrument.price_decimals, instrument.price_text(instrument.tick_units),
        instrument.quantity_decimals, instrument.quantity_text(1))

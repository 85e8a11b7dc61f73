"""A feed that loses or spoils a message, or falls silent: the page notices and goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import websockets
from websockets.asyncio.server import ServerConnection

from tests.dashboard.browser import Page
from tests.dashboard.conftest import show, submit
from tests.support.daemon import Daemon

# A second feed and book of the page, over the proxy.
SECOND = """Promise.all(['feed', 'book', 'decimal'].map(name => import(`/dashboard/${name}.js`)))
  .then(async ([{Feed}, {Book}, {Format}]) => {
    const told = await (await fetch('/v1/venue')).json();
    const instrument = told.instruments.find(({symbol}) => symbol === 'BTC-USDT');
    const book = window.book = new Book(new Format(instrument));
    const feed = window.feed = new Feed(async () => 'ws://127.0.0.1:PORT/', state => {
      window.state = state;
    });
    feed.subscribe({channel: 'book', symbol: 'BTC-USDT'}, {message: one => book.apply(one)});
    feed.connect();
  })"""


class Proxy:
    """Passes messages on, both ways; those of the venue go through `change` first, which returns
    what is sent instead: nothing for None."""

    def __init__(self, feed_port: int) -> None:
        self._url = f"ws://127.0.0.1:{feed_port}/"
        self.change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda message: message
        self.connections = 0

    async def serve(self, page: ServerConnection) -> None:
        """One connection of the page."""
        self.connections += 1
        async with websockets.connect(self._url) as venue:
            passing = asyncio.create_task(self._pass_requests(page, venue))
            try:
                async for text in venue:
                    message = self.change(json.loads(text))
                    if message is not None:
                        await page.send(json.dumps(message))
            except websockets.ConnectionClosed:
                pass
            finally:
                passing.cancel()

    async def _pass_requests(self, page: ServerConnection,
                             venue: websockets.ClientConnection) -> None:
        async for text in page:
            await venue.send(text)
        await venue.close()


@pytest.fixture
async def proxy(page: Page, venue: Daemon) -> AsyncIterator[Proxy]:
    """A proxy with a second feed of the page behind it, which has its first snapshot."""
    made = Proxy(venue.feed_port)
    await show(page, venue)
    async with websockets.serve(made.serve, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await page.evaluate(SECOND.replace("PORT", str(port)))
        await page.until("window.book && book.seq > 0 && state === 'live'")
        yield made


def nth_delta(number: int, spoil: Callable[[dict[str, Any]], dict[str, Any] | None],
              ) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """Spoils the so-manieth delta of the book, once."""
    seen = 0

    def change(message: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal seen
        seen += message.get("type") == "delta"
        if seen != number or message.get("type") != "delta":
            return message
        return spoil(message)

    return change


def wrong_quantity(message: dict[str, Any]) -> dict[str, Any]:
    price, _, orders = message["bids"][0]
    return message | {"bids": [[price, "7.000000", orders]]}


@pytest.mark.parametrize("spoil", [lambda message: None, wrong_quantity],
                         ids=["lost", "spoiled"])
async def test_a_message_that_is_lost_or_spoiled_is_noticed_and_repaired(
        page: Page, venue: Daemon, proxy: Proxy,
        spoil: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    proxy.change = nth_delta(2, spoil)
    for number in range(4):
        submit(venue, "MAKER1", "buy", "BTC-USDT", "0.1", f"{50000 + number}")
    await page.until("book.bids.levels.length === 4 && book.bestBid.price === 5000300")
    assert await page.evaluate("feed.repairs") == 1
    assert await page.evaluate("book.bids.levels.map(({lots}) => lots)") == [100_000] * 4
    assert proxy.connections == 1


async def test_silence_is_shown_and_a_feed_that_speaks_again_is_live(
        page: Page, venue: Daemon, proxy: Proxy) -> None:
    proxy.change = lambda message: None
    await page.until("state === 'stale'")
    submit(venue, "MAKER1", "buy", "BTC-USDT", "0.1", "50000")
    proxy.change = lambda message: message
    submit(venue, "MAKER1", "buy", "BTC-USDT", "0.1", "50001")
    await page.until("state === 'live' && book.bids.levels.length === 2")


async def test_a_feed_that_stays_silent_is_connected_to_anew(
        page: Page, venue: Daemon, proxy: Proxy) -> None:
    submit(venue, "MAKER1", "buy", "BTC-USDT", "0.1", "50000")
    proxy.change = lambda message: None
    await page.until("state === 'reconnecting'")
    proxy.change = lambda message: message
    submit(venue, "MAKER1", "buy", "BTC-USDT", "0.1", "50001")
    await page.until("state === 'live' && book.bids.levels.length === 2")
    assert proxy.connections >= 2

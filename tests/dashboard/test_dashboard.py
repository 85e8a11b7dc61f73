"""The dashboard in a real browser, over a real venue: what it shows is what the log has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from cython_core import record
from cython_core.event import EventBatch
from cython_core.matcher import Matcher
from engine.journal.reader import LogWalk
from engine.journal.storage import FileStorage
from tests.dashboard.browser import Page
from tests.dashboard.conftest import DRAWN, LIVE, show, submit
from tests.data import make_day
from tests.support.daemon import Daemon

BEST = "({...document.querySelector('#ladder').dataset})"
MSFT = 104
VIEWS = ("markets", "chart", "book", "trades", "venue")


async def replay(venue: Daemon, *options: str) -> None:
    """Replay the made day to its end."""
    done = await asyncio.to_thread(
        venue.run, "replay", "lobster", str(make_day.MESSAGES), str(make_day.BOOK), "--port",
        str(venue.port), *options)
    assert done.returncode == 0, done.stdout + done.stderr


def book_of(venue: Daemon, symbol: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(venue.run("book", symbol, "--json").stdout)
    return shown


def best_at(venue: Daemon, instrument_id: int, seqs: list[int]) -> dict[int, tuple[int, int]]:
    """Best bid and offer in wire units after each of these events, from the log alone."""
    matcher, found, wanted = Matcher(), {}, sorted(seqs)
    for run in LogWalk(FileStorage(venue.data_dir)).runs(run_units=64):
        while wanted and wanted[0] < run.batch.first_seq + run.batch.event_count:
            seq = wanted.pop(0)
            if seq >= matcher.next_seq:
                matcher.replay(part(run.batch, matcher.next_seq, seq))
            found[seq] = best(matcher, instrument_id)
        if matcher.next_seq < run.batch.first_seq + run.batch.event_count:
            matcher.replay(record.events_from(run.batch, matcher.next_seq))
    return found


def part(batch: EventBatch, first_seq: int, last_seq: int) -> EventBatch:
    """The events from one seq to another."""
    rest = bytes(memoryview(record.events_from(batch, first_seq)))
    if last_seq + 1 < batch.first_seq + batch.event_count:
        rest = rest[:-len(bytes(memoryview(record.events_from(batch, last_seq + 1))))]
    return EventBatch.from_bytes(rest, first_seq)


def best(matcher: Matcher, instrument_id: int) -> tuple[int, int]:
    bids, asks = matcher.levels(instrument_id, 1)
    return bids[0][0] if bids else 0, asks[0][0] if asks else 0


async def shown_best(page: Page) -> tuple[int, int, int]:
    told = await page.evaluate(BEST)
    units = [int(Decimal(told[side] or 0) * 10_000) for side in ("bid", "ask")]
    return int(told["seq"]), units[0], units[1]


def rows_of(levels: list[list[Any]]) -> list[list[Any]]:
    return [[Decimal(price), Decimal(quantity), count] for price, quantity, count in levels]


async def shown_rows(page: Page) -> list[list[Any]]:
    """The ladder from top to bottom: price, quantity, orders."""
    rows = await page.evaluate(
        "[...document.querySelectorAll('.level:not(.none)')].map(row =>"
        " [...row.querySelectorAll('span')].map(cell => cell.innerText))")
    return [[Decimal(price), Decimal(size), int(orders)] for price, size, _, orders in rows]


async def eventually(ask: Callable[[], Awaitable[Any]], wanted: object) -> Any:
    """What `ask` answers as soon as it is what is wanted, or at last."""
    for _ in range(100):
        found = await ask()
        if found == wanted:
            break
        await asyncio.sleep(0.1)
    return found


async def test_during_a_replay_the_best_prices_are_those_of_the_log(
        page: Page, venue: Daemon) -> None:
    await show(page, venue, "MSFT")
    replaying = asyncio.create_task(replay(venue, "--speed", "0.4"))
    seen: dict[int, tuple[int, int]] = {}
    while not replaying.done():
        seq, *prices = await shown_best(page)
        seen[seq] = (prices[0], prices[1])
        await asyncio.sleep(0.02)
    await replaying
    assert len(seen) > 10
    assert best_at(venue, MSFT, list(seen)) == seen
    assert len(set(seen.values())) > 5
    assert await page.evaluate("document.querySelector('#state').dataset.repairs") == "0"
    assert not page.errors


async def test_after_a_replay_book_trades_and_candles_are_those_of_the_venue(
        page: Page, venue: Daemon) -> None:
    await show(page, venue, "MSFT")
    submit(venue, "MAKER2", "buy", "GOOG", "10", "570.00")
    await replay(venue)
    price = Decimal(book_of(venue, "MSFT")["bids"][0][0])
    submit(venue, "TAKER1", "sell", "MSFT", "1", str(price))
    book = book_of(venue, "MSFT")
    wanted = [*reversed(rows_of(book["asks"])), *rows_of(book["bids"])]
    assert wanted == await eventually(lambda: shown_rows(page), wanted)
    newest = await page.until("document.querySelector('#tape li.ask').innerText")
    assert newest.split()[:2] == [f"{price:.2f}", "1"]
    await page.until("document.querySelectorAll('#tape li').length === 200")
    await page.shows("#last", f"{price:.2f}")
    await page.until(f"document.querySelector('#legend').innerText.includes('C {price:.2f}')")
    bid, ask = book["bids"][0][0], book["asks"][0][0]
    await page.until(f"Number(document.querySelector('#bid').innerText) === {bid}"
                     f" && Number(document.querySelector('#ask').innerText) === {ask}")
    assert not page.errors


async def test_a_page_opened_later_shows_the_trades_and_candles_of_before(
        page: Page, venue: Daemon) -> None:
    submit(venue, "MAKER1", "sell", "BTC-USDT", "0.5", "60000")
    submit(venue, "TAKER1", "buy", "BTC-USDT", "0.2", "60000")
    await show(page, venue)
    assert "60000.00" in await page.until("document.querySelector('#tape li')?.innerText")
    await page.until("document.querySelector('#legend').innerText.includes('O 60000.00')")
    await page.shows("#symbol", "BTC-USDT")
    await page.until("document.querySelector('#ask').innerText === '60000.00'")


async def test_it_recovers_by_itself_when_the_venue_was_killed(page: Page, venue: Daemon) -> None:
    submit(venue, "MAKER1", "sell", "BTC-USDT", "0.5", "60010")
    await show(page, venue)
    for number in range(2):
        venue.kill()
        await page.until(f"!({LIVE})")
        await page.until("document.querySelector('#state').innerText.startsWith('Reconnecting')")
        venue.start()
        submit(venue, "MAKER1", "buy", "BTC-USDT", "0.1", f"{60000 + number}")
        submit(venue, "TAKER1", "buy", "BTC-USDT", "0.1", "60010")
        book = book_of(venue, "BTC-USDT")
        wanted = [*reversed(rows_of(book["asks"])), *rows_of(book["bids"])]
        assert wanted == await eventually(lambda: shown_rows(page), wanted)
        await page.until(LIVE)
        # The trade of while it was away is there, once, beside those of before.
        await page.until(f"document.querySelectorAll('#tape li').length === {number + 1}")


async def test_nothing_leaves_the_venue_and_nothing_is_complained_of(
        page: Page, venue: Daemon) -> None:
    await show(page, venue)
    submit(venue, "MAKER1", "sell", "BTC-USDT", "0.5", "60010")
    await page.until("document.querySelector('#top-clients').innerText > 0")
    await page.until("document.querySelector('#clients td') !== null")
    for key in ("ArrowDown", "ArrowUp", "3", "t", "?"):
        await page.press(key)
        await asyncio.sleep(0.2)
    asked = {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")}
    assert asked == {f"127.0.0.1:{venue.api_port}", f"127.0.0.1:{venue.feed_port}"}
    assert any("lightweight-charts" in url for url in page.requests)
    assert not page.errors


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 568), (844, 390)])
async def test_on_a_phone_nothing_is_cut_and_every_panel_can_be_reached(
        page: Page, venue: Daemon, width: int, height: int) -> None:
    submit(venue, "MAKER1", "sell", "SHIB-USDT", "123456000", "0.00002041")
    submit(venue, "TAKER1", "buy", "SHIB-USDT", "1000", "0.00002041")
    await page.size(width, height, phone=True)
    await show(page, venue, "SHIB-USDT")
    for view in VIEWS if width <= 700 else ("chart",):
        if width <= 700:
            await page.evaluate(f"document.querySelector('#tabs [data-view={view}]').click()")
        assert await page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth && innerWidth === visualViewport"
            ".width"), view
        beyond = await page.evaluate(
            "[...document.querySelectorAll('body *')].filter(node => node.getClientRects().length"
            " && node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML)")
        assert not beyond, view
    if width <= 700:
        await page.evaluate("document.querySelector('#tabs [data-view=book]').click()")
        await page.until("document.querySelector('#ladder').innerText.includes('0.00002041')")
        await page.evaluate("document.querySelector('#symbol').click()")
        await page.until("document.querySelector('#markets').innerText.includes('ETH-USDT')")


async def test_colours_follow_the_system_until_one_is_chosen(page: Page, venue: Daemon) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    await show(page, venue)
    dark = await page.evaluate(ground)
    await page.prefer("light")
    light = await page.until(f"{ground} !== '{dark}' && {ground}")
    await page.press("t")
    await page.shows("#theme", "Light")
    await page.press("t")
    await page.shows("#theme", "Dark")
    assert light != dark
    await page.until(f"{ground} === '{dark}'")
    await page.evaluate("window.before = true, location.reload()")
    await page.until(f"!window.before && {DRAWN}")
    await page.until(f"{ground} === '{dark}'")


async def test_the_keyboard_reaches_everything(page: Page, venue: Daemon) -> None:
    await show(page, venue)
    await page.press("ArrowDown")
    await page.shows("#symbol", "ETH-USDT")
    await page.press("ArrowUp")
    await page.shows("#symbol", "BTC-USDT")
    await page.press("/")
    for letter in "goog":
        await page.press(letter)
    await page.until(
        "[...document.querySelectorAll('#markets li:not([hidden])')].map(row =>"
        " row.querySelector('.name').innerText).join() === 'GOOG'")
    await page.press("Enter")
    await page.shows("#symbol", "GOOG")
    await page.press("Escape")
    await page.press("1")
    await page.shows("#intervals [aria-checked=true]", "1s")
    await page.until("document.querySelector('#group').options[0].value === '100'")
    await page.press("+")
    await page.until("document.querySelector('#group').value === '200'")
    await page.press("?")
    await page.until("document.querySelector('#help').open")


async def test_a_halted_instrument_says_so(page: Page, venue: Daemon) -> None:
    await show(page, venue)
    assert await page.evaluate("document.querySelector('#halted').hidden")


async def test_the_checksum_is_that_of_the_protocol(page: Page, venue: Daemon) -> None:
    await show(page, venue)
    assert await page.evaluate(
        "import('/dashboard/crc32.js').then(module =>"
        " module.crc32('6001000:500000,6000000:100000'))") == 0x17b48b4a

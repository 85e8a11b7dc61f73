"""A page over a venue that runs."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.dashboard import browser
from tests.dashboard.browser import Page
from tests.support.daemon import ROOT, Daemon

LIVE = "document.querySelector('#state')?.dataset.state === 'live'"
# The page has the book of its instrument, and has drawn it.
DRAWN = f"{LIVE} && document.querySelector('#ladder').dataset.seq > 0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say why, where there is nothing to show a page with."""
    missing = None
    if browser.PROGRAM is None:
        missing = "no chromium here"
    elif not (ROOT / "engine" / "api" / "vendor" / "lightweight-charts").is_dir():
        missing = "engine/api/vendor is empty: make build"
    for item in items:
        if missing and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """A browser with one empty page, as large as a desk's screen."""
    async with Page(tmp_path / "browser") as opened:
        await opened.size(1440, 900)
        await opened.prefer("dark")
        yield opened


@pytest.fixture
def venue(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that keeps its ports over a restart."""
    return make_daemon(feed__port=free_port(), api__port=free_port(),
                       order_entry__tcp_port=free_port()).start()


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def show(page: Page, venue: Daemon, symbol: str = "BTC-USDT") -> None:
    """Open the dashboard at an instrument and wait for its book."""
    await page.open(f"http://127.0.0.1:{venue.api_port}/#{symbol}")
    await page.until(DRAWN)


def submit(venue: Daemon, account: str, side: str, symbol: str, quantity: str, price: str) -> None:
    """Send one order, and wait for its answer."""
    done = venue.run("submit", account, side, symbol, quantity, price, "--password", "demo",
                     "--port", str(venue.port))
    assert done.returncode == 0, done.stdout + done.stderr

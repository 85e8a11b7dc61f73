"""`/docs` in a real browser: it shows every route and asks nobody but the venue."""

from __future__ import annotations

import json
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.dashboard.browser import Page
from tests.support.daemon import Daemon


async def test_the_page_shows_every_route_and_works_offline(page: Page, venue: Daemon) -> None:
    base = f"http://127.0.0.1:{venue.api_port}"
    with urlopen(f"{base}/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    operations = sum(len(path) for path in paths.values())
    await page.open(f"{base}/docs")
    await page.until(f"document.querySelectorAll('.opblock').length === {operations}")
    shown = await page.text("body")
    assert "/v1/orders" in shown and "Enter an order" in shown
    assert "Unable to render" not in shown
    assert {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")} == {
        f"127.0.0.1:{venue.api_port}"}
    assert page.errors == []
    # One route opened shows its schema and its example.
    await page.evaluate("document.querySelector('#operations-Orders-post_v1_orders "
                        ".opblock-summary-control').click()")
    await page.until("document.body.innerText.includes('my-order-1')")

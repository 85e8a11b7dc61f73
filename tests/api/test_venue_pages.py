"""The dashboard's files and what it asks beside the feed."""

import json
import re
from urllib.request import urlopen

import pytest

from tests.support.daemon import ROOT

DASHBOARD = ROOT / "engine" / "api" / "dashboard"
FILES = sorted(DASHBOARD.iterdir())


def ask(daemon, path):
    with urlopen(f"http://127.0.0.1:{daemon.api_port}{path}", timeout=30) as answer:
        return answer.headers, answer.read()


def test_the_venue_tells_where_its_feed_is_and_what_is_traded(daemon):
    venue = json.loads(ask(daemon, "/v1/venue")[1])
    assert venue["feed_port"] == daemon.feed_port
    assert venue["instruments"][0] == {
        "symbol": "BTC-USDT", "price_decimals": 2, "tick": "0.01", "quantity_decimals": 6,
        "lot": "0.000001"}


def test_the_load_counts_orders_trades_commits_and_clients(daemon):
    before = json.loads(ask(daemon, "/v1/venue/load")[1])
    for account, side in (("MAKER1", "sell"), ("TAKER1", "buy")):
        done = daemon.run("submit", account, side, "BTC-USDT", "0.1", "60000", "--password",
                          "demo", "--port", str(daemon.port))
        assert done.returncode == 0
    after = json.loads(ask(daemon, "/v1/venue/load")[1])
    assert after["orders"] - before["orders"] == 2
    assert after["trades"] - before["trades"] == 1
    assert after["time"] > before["time"]
    for name in ("commit", "answer"):
        assert len(after[name]["counts"]) == len(after[name]["bounds"]) + 1
        assert sum(after[name]["counts"]) > sum(before[name]["counts"])
    assert after["clients"]["http"] >= 1


def test_every_file_of_the_page_is_served_and_may_load_nothing_from_elsewhere(daemon):
    headers, body = ask(daemon, "/")
    assert body == (DASHBOARD / "index.html").read_bytes()
    assert headers["content-security-policy"].startswith("default-src 'self';")
    for path in FILES:
        assert ask(daemon, f"/dashboard/{path.name}")[1] == path.read_bytes()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_has_inline_scripts_foreign_addresses_or_long_lines(path):
    text = path.read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon[a-z]+=\"|\bstyle=\"", text)
    known = {"https://www.tradingview.com/", "http://www.w3.org/2000/svg"}
    assert set(re.findall(r"https?://[\w./-]+", text)) <= known
    assert path.suffix == ".svg" or max(len(line) for line in text.splitlines()) <= 100

"""`matchd top` in a real terminal, over a real daemon under load."""

import asyncio
import contextlib
import json
import random
import re
import signal
import socket

import pytest

from engine.clients import ClientError, OrderEntryClient
from tests.support.daemon import Daemon
from tests.support.terminal import Terminal


def free_ports(count):
    """Ports that nobody has now: a daemon that comes back must come back to its own."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture
def daemon(tmp_path):
    api, feed, orders = free_ports(3)
    daemon = Daemon(tmp_path, api__port=api, feed__port=feed, order_entry__tcp_port=orders,
                    sqlite__enabled=True).start()
    assert (daemon.api_port, daemon.feed_port) == (api, feed)
    yield daemon
    daemon.kill()


async def trade(daemon):
    """Orders without an end: bids and asks around a price, of which some trade. AAPL is busy, a
    little is done in BTC-USDT, nothing elsewhere."""
    random_ = random.Random(1)
    async with OrderEntryClient("127.0.0.1", daemon.port, "MAKER1", "demo") as client:
        while True:
            wanted = [("AAPL", random_.choice("BS"), "1", f"{150 + random_.uniform(-1, 1):.2f}")
                      for _ in range(10)]
            wanted.append(("BTC-USDT", "B", "0.01", "60000.00"))
            await asyncio.gather(*(client.enter(*one) for one in wanted))
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def load(daemon):
    task = asyncio.create_task(trade(daemon))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClientError):
            await task


def top(daemon, *more, columns=80, lines=24):
    return Terminal(daemon.command("top", "--interval", "0.3", *more), daemon.environment, columns,
                    lines)


def number(line, name):
    """The number behind a name, with its thousands."""
    found = re.search(rf"{name} +([\d.,]+)", line)
    return float(found[1].replace(",", "")) if found else 0.0


async def test_it_shows_a_venue_under_load_in_80_columns_and_24_lines(daemon):
    async with load(daemon), top(daemon) as terminal:
        await terminal.wait_until(lambda now: number(now.line("per s:"), "orders") > 10,
                                  "orders in a second")
        await terminal.wait_until(lambda now: now.line("order ack").count(" us")
                                  + now.line("order ack").count(" ms") == 4, "times of answers")
        await terminal.wait_until(lambda now: "149." in now.line("AAPL"), "prices of AAPL")
        await terminal.wait_until(lambda now: re.search(r"per s: +orders", now.lines[1]),
                                  "the rates on line 2")
        for shown in ("healthy", "commands", "reports", "loop lag", "gc pause", "max lag, gc",
                      "sqlite connected", "sessions", "60000.00"):
            await terminal.wait_for(shown)
        await terminal.wait_until(lambda now: now.lines[-1].startswith("q quit"), "the last line")
        # The busiest market is the first one.
        await terminal.wait_until(
            lambda now: re.search(r"\nmarket +bid qty .*\nAAPL .*\nBTC-USDT ", now.text),
            "AAPL first, then BTC-USDT")
        terminal.press("q")
        assert await terminal.ended() == 0
    # The terminal is as it was before: the other screen is left, the cursor is back.
    assert b"\x1b[?1049l" in terminal.written and b"\x1b[?25h" in terminal.written
    assert b"\x1b[?1000h" not in terminal.written


async def test_a_signal_gives_the_terminal_back(daemon):
    async with top(daemon) as terminal:
        await terminal.wait_until(lambda now: "healthy" in now.lines[0], "a healthy venue")
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.ended() == 128 + signal.SIGTERM
        # The last bytes are on their way when the process has ended.
        await terminal.wait_until(lambda now: b"\x1b[?1049l" in now.written
                                  and b"\x1b[?25h" in now.written, "the terminal as it was")


async def test_keys_show_levels_health_and_help(daemon):
    async with load(daemon), top(daemon, lines=30) as terminal:
        await terminal.wait_until(lambda now: "149." in now.line("AAPL"), "prices of AAPL")
        terminal.press("s")
        await terminal.wait_until(lambda now: any(
            one.startswith("AAPL") and two.startswith("AMZN")
            for one, two in zip(now.lines, now.lines[1:], strict=False)), "markets by name")
        terminal.press("j\r")
        await terminal.wait_until(lambda now: re.search(r"AAPL +orders +bid qty", now.text)
                                  and re.search(r"\n2 +\d+ +\d+ 149\.\d+ 15\d\.", now.text),
                                  "two levels of AAPL")
        terminal.press("j")
        await terminal.wait_for("AMZN orders")
        terminal.press("h")
        await terminal.wait_for("every check holds")
        terminal.press("?")
        await terminal.wait_for("choose a market")
        assert "commands" not in terminal.text
        terminal.press("\x1b")
        await terminal.wait_for("commands")
        terminal.press(" ")
        await terminal.wait_for("STILL")
        terminal.press(" ")
        await terminal.wait_until(lambda now: "STILL" not in now.text, "on again")
        terminal.press("\x03")
        assert await terminal.ended() == 0


async def test_it_says_that_the_venue_is_gone_and_goes_on_when_it_is_back(daemon):
    async with top(daemon) as terminal:
        await terminal.wait_until(lambda now: "healthy" in now.lines[0], "a healthy venue")
        daemon.kill()
        await terminal.wait_until(lambda now: "no answer from" in now.lines[0], "the venue lost")
        assert terminal.line("command wait"), "what was known stays"
        daemon.start()
        assert daemon.api_port and daemon.feed_port
        async with load(daemon):
            await terminal.wait_until(lambda now: "healthy" in now.lines[0], "the venue back")
            await terminal.wait_until(lambda now: number(now.line("per s:"), "orders") > 10,
                                      "orders in a second")
            await terminal.wait_until(lambda now: "149." in now.line("AAPL"), "prices again")
        terminal.press("q")
        assert await terminal.ended() == 0


async def test_it_uses_a_large_terminal_and_a_small_one(daemon):
    async with top(daemon, columns=160, lines=50) as terminal:
        await terminal.wait_for("SOL-USDT")
        assert terminal.lines[-1].startswith("q quit")
        terminal.press("q")
        assert await terminal.ended() == 0
    async with top(daemon, columns=40, lines=10) as terminal:
        await terminal.wait_for("command wait")
        terminal.press("q")
        assert await terminal.ended() == 0


def test_once_prints_the_figures_and_json_has_the_same(daemon):
    printed = daemon.run("top", "--once", "--interval", "0.2")
    assert printed.returncode == 0, printed.stderr
    for name in ("healthy", "order ack", "commands", "sqlite", "BTC-USDT"):
        assert name in printed.stdout
    assert "\x1b" not in printed.stdout
    found = json.loads(daemon.run("top", "--json", "--interval", "0.2", "--markets",
                                  "*-USDT").stdout)
    assert found["view"]["status"] == "healthy" and found["view"]["ready"] is True
    assert {row["name"] for row in found["view"]["queues"]} == {
        "commands", "events", "reports", "market", "stores"}
    assert [row["name"] for row in found["view"]["stores"]] == ["sqlite"]
    assert {row["symbol"] for row in found["markets"]} == {
        "BTC-USDT", "ETH-USDT", "SOL-USDT", "SHIB-USDT"}


def test_without_a_terminal_or_a_venue_it_says_so_in_one_line(daemon):
    refused = daemon.run("top")
    assert refused.returncode == 2
    assert "needs a terminal; --once prints the figures" in refused.stderr
    daemon.kill()
    lost = daemon.run("top", "--once", "--url", f"http://127.0.0.1:{daemon.api_port}")
    assert lost.returncode == 1
    assert len(lost.stderr.splitlines()) == 1 and "no answer from" in lost.stderr
    wrong = daemon.run("top", "--once", "--url", "venue:8000")
    assert wrong.returncode == 1
    assert "is no address of a gateway" in wrong.stderr

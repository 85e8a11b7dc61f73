"""What the documentation shows runs as it stands."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, Daemon
from tests.support.lossy_link import LossyLink, Rates
from tests.support.redis import RedisServer


def run_python(*arguments: str, folder: Path = ROOT, timeout_s: float = 30) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=timeout_s,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_order_example_trades_and_leaves_nothing_behind(daemon: Daemon) -> None:
    assert run_python("examples/first_order.py", str(daemon.port)) == (
        "resting: order 1, 500000 lots at 6000000\n"
        "taking: Accepted\n"
        "  3: accepted order 1\n"
        "  4: accepted order 2\n"
        "  5: sold 200000 lots\n"
        "  6: bought 200000 lots\n"
        "canceled: the other 300000 lots\n")


def test_the_http_example_buys_changes_and_cancels(daemon: Daemon) -> None:
    assert run_python("examples/http_order.py", str(daemon.api_port)) == (
        "open: 0.500000 at 60000.00\n"
        "the same order: True\n"
        "refused: price_off_tick\n"
        "reduced: 0.200000\n"
        "best bid: ['60000.00', '0.200000', 1]\n"
        "canceled: user\n")


def test_the_feed_example_sees_its_trade_and_finds_it_again(daemon: Daemon) -> None:
    assert run_python("examples/follow_feed.py", str(daemon.feed_port), str(daemon.port)) == (
        "buy 0.200000 at 60010.00\n"
        "checksums that fitted: some\n"
        "again: 0.200000 at 60010.00\n")


def test_the_redis_example_enters_changes_and_cancels(
        make_daemon: Callable[..., Daemon], make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis().start()
    make_daemon(redis__url=server.url, redis__order_queue="orders").start()
    assert run_python("examples/redis_order.py", server.url) == (
        "201: open, 0.500000 at 60000.00\n"
        "200: the same order: True\n"
        "200: reduced to 0.200000\n"
        "200: canceled\n"
        "422: price_off_tick\n")


UDP_EXAMPLE = ROOT / "examples" / "udp_client.py"
UDP_EXAMPLE_SAYS = (
    "accepted B 500 AAPL at 1800000\n"
    "accepted S 200 AAPL at 1800000\n"
    "executed 200 at 1800000\n"
    "executed 200 at 1800000\n"
    "rejected, reason 0017\n"
    "canceled 300, reason U\n")


def test_the_udp_example_trades_and_leaves_nothing_behind(daemon: Daemon) -> None:
    for _ in range(2):
        assert run_python(str(UDP_EXAMPLE), str(daemon.udp_port)) == UDP_EXAMPLE_SAYS


@pytest.mark.parametrize("seed", range(3))
def test_the_udp_example_says_the_same_over_a_lossy_link(daemon: Daemon, seed: int) -> None:
    with LossyLink(("127.0.0.1", daemon.udp_port), Rates.all(0.2), seed) as link:
        assert run_python(str(UDP_EXAMPLE), str(link.port), timeout_s=120) == UDP_EXAMPLE_SAYS


def test_the_udp_example_goes_on_after_a_restart_of_the_venue(daemon: Daemon) -> None:
    example = runpy.run_path(str(UDP_EXAMPLE))
    with LossyLink(("127.0.0.1", daemon.udp_port)) as link:
        client = example["Client"]("127.0.0.1", link.port, "MAKER1", "demo")
        client.send(example["enter"](1, "B", 10, "AAPL", 1_800_000))
        client.settle()
        daemon.stop()
        client.send(example["enter"](2, "S", 10, "AAPL", 1_800_000))
        client.turn()
        daemon.start()
        link.target = ("127.0.0.1", daemon.udp_port)
        client.settle()
    assert b"".join(message[:1] for message in client.messages) == b"AAEE"
    client.log_out()


def test_the_udp_example_is_short_and_needs_no_library() -> None:
    text = UDP_EXAMPLE.read_text("utf-8")
    imported = {name.split(".")[0] for name in re.findall(r"^(?:import|from) (\S+)", text, re.M)}
    assert imported <= sys.stdlib_module_names
    assert len(text.splitlines()) <= 200


@pytest.mark.parametrize("page", sorted(
    str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if "```python" in path.read_text("utf-8")))
def test_the_python_of_the_documentation_runs(
        make_daemon: Callable[..., Daemon], make_redis: Callable[..., RedisServer],
        tmp_path: Path, page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)
    server = make_redis().start() if any("redis://" in block for block in blocks) else None
    daemon = make_daemon(sqlite__enabled=True, redis__url=server.url if server else "").start()
    if any("candles.parquet" in block for block in blocks):
        made = daemon.run("export", "candles", "--output", str(tmp_path / "candles.parquet"))
        assert made.returncode == 0, made.stderr
    for block in blocks:
        script = tmp_path / "snippet.py"
        script.write_text(block.replace("9001", str(daemon.port))
                          .replace("9002", str(daemon.udp_port))
                          .replace("127.0.0.1:8000", f"127.0.0.1:{daemon.api_port}")
                          .replace("8001", str(daemon.feed_port))
                          .replace("redis://127.0.0.1:6379", server.url if server else ""))
        run_python(str(script), folder=tmp_path)

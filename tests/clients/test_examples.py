"""What the documentation shows runs as it stands."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, Daemon
from tests.support.redis import RedisServer


def run_python(*arguments: str, folder: Path = ROOT) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=30, check=False)
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
                          .replace("127.0.0.1:8000", f"127.0.0.1:{daemon.api_port}")
                          .replace("8001", str(daemon.feed_port))
                          .replace("redis://127.0.0.1:6379", server.url if server else ""))
        run_python(str(script), folder=tmp_path)

"""What the documentation shows runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, Daemon


def run_python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True,
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


@pytest.mark.parametrize("page", sorted(
    str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if "```python" in path.read_text("utf-8")))
def test_the_python_of_the_documentation_runs(daemon: Daemon, tmp_path: Path, page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)
    for block in blocks:
        script = tmp_path / "snippet.py"
        script.write_text(block.replace("9001", str(daemon.port)))
        run_python(str(script))

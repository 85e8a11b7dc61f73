"""tracebook-conformance, an independent judge from PyPI, on the real matcher."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JUDGE = Path(sys.executable).with_name("tracebook-conformance")
ADAPTER = Path(__file__).with_name("adapter.py")
LONG = os.environ.get("MATCHD_TEST_PROFILE") == "long"
TRACES, EVENTS = ("100", "500") if LONG else ("10", "150")


def qualify(profile, folder, candidate):
    """Run the judge; 0 is qualified, 1 a divergence, 2 an error of protocol or usage."""
    return subprocess.run(
        [JUDGE, "qualify", "--profile", profile,
         "--output-dir", folder / "out", "--seed", "1337", "--traces", TRACES,
         "--events-per-trace", EVENTS, "--timeout", "60", "--candidate", *candidate],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False)


@pytest.mark.parametrize("profile", ["fifo-limit-v1", "fifo-full-v1", "fifo-partial-fill-v1"])
def test_the_matcher_qualifies_for_the_profile(profile, tmp_path):
    result = qualify(profile, tmp_path, [sys.executable, ADAPTER])
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_matcher_that_breaks_time_priority_does_not_qualify(tmp_path):
    """The judge judges: the same adapter with the queue turned round is found out."""
    source = ADAPTER.read_text()
    turned = source.replace("in self.matcher.orders(book.instrument_id)",
                            "in reversed(self.matcher.orders(book.instrument_id))")
    assert turned != source
    (tmp_path / "turned.py").write_text(turned)
    result = qualify("fifo-limit-v1", tmp_path, [sys.executable, tmp_path / "turned.py"])
    assert result.returncode == 1, result.stdout + result.stderr

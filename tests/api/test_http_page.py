"""docs/http.md: every request in it runs, and is answered with the status it says."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from engine.api.reasons import sentences
from engine.market.reasons import CANCEL_CODES, REJECT_CODES
from tests.api.conftest import make_key
from tests.support.daemon import ROOT, Daemon

PAGE = (ROOT / "docs" / "http.md").read_text("utf-8")
LINES = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M)
         for line in block.splitlines()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_every_curl_of_the_page_gets_the_answer_it_says(venue: Daemon) -> None:
    token = make_key(venue, "ADMIN", "--role", "admin")["token"]
    ran = 0
    for index, line in enumerate(LINES):
        if not line.startswith("curl"):
            continue
        said = LINES[index + 1] if index + 1 < len(LINES) else ""
        match = re.match(r"# (\d+)", said)
        command = line.replace("localhost:8000", f"localhost:{venue.api_port}")
        done = subprocess.run(["bash", "-c", f"{command} -s -w '\\n%{{http_code}}'"], text=True,
                              capture_output=True, env={"TOKEN": token, "PATH": "/usr/bin:/bin"},
                              timeout=30, check=True)
        body, _, status = done.stdout.rpartition("\n")
        if match:
            assert status == match[1], (line, body)
        else:
            assert status.startswith("2"), (line, body)
        for code in re.findall(r'"code": "(\w+)"', said):
            assert f'"code":"{code}"' in body, (line, body)
        ran += 1
    assert ran > 30


def test_every_reason_has_its_sentence_on_the_page() -> None:
    for code in {*REJECT_CODES.values(), *CANCEL_CODES.values()}:
        assert f"| `{code}` | {sentences()[code]} |" in PAGE

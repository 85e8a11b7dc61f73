"""Requests that schemathesis makes from the daemon's own OpenAPI document: no answer is a server's
mistake, every answer is as the document says, wrong requests are refused and right ones are not,
and nothing is served without a key that needs one.

The same requests every time, as many as fit into the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.accounts import hash_password
from tests.api.ops_client import Operator, make_token
from tests.support.daemon import ROOT, Daemon
from tests.support.venue import INSTRUMENTS

EXAMPLES = {False: 5, True: 200}
SECONDS = {False: 40, True: 900}


def write_config(folder: Path) -> Path:
    """No demo passwords: then nobody is let in without a key."""
    folder.mkdir()
    (folder / "matchd.toml").write_text("")
    (folder / "instruments.toml").write_text(INSTRUMENTS)
    secret = hash_password("nodemo", 4)
    (folder / "accounts.toml").write_text("".join(
        f'[[account]]\nid = {number}\nusername = "{name}"\nrole = "{role}"\n'
        f'password_hash = "{secret}"\n'
        for number, (name, role) in enumerate((("MAKER1", "trader"), ("ADMIN", "admin")), 1)))
    return folder / "matchd.toml"


def adapted(schema: Any, symbols: list[str]) -> Any:
    """The document with lists instead of tuples, as schemathesis writes `prefixItems` as an older
    draft does and then refuses what it wrote; and with the symbols that there are, so that most
    requests come further than to an unknown one."""
    if isinstance(schema, list):
        return [adapted(one, symbols) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: adapted(value, symbols) for key, value in schema.items() if key != "prefixItems"}
    if "prefixItems" in schema:
        made["items"] = {"anyOf": [adapted(one, symbols) for one in schema["prefixItems"]]}
    if schema.get("name") == "symbol" and "in" in schema:
        made["schema"] = {"type": "string", "enum": symbols}
    if schema.get("title") == "NewOrder":
        made["properties"]["symbol"] = {"type": "string", "enum": symbols}
    return made


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "venue", write_config(tmp_path / "config"), sqlite__enabled=True)
    yield daemon.start()
    daemon.kill()


@pytest.mark.timeout(1_000)
def test_every_answer_is_as_the_document_says(daemon: Daemon, tmp_path: Path,
                                              long_profile: bool) -> None:
    operator = Operator(daemon)
    while operator.ask("GET", "/v1/history/trades")[0] != 200:
        time.sleep(0.05)
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(adapted(operator.get("/openapi.json"),
                                                ["AAPL", "BTC-USDT"])))
    token = make_token(daemon, "ADMIN", "admin")
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file",
         str(Path(__file__).with_name("schemathesis.toml")), "run", str(document),
         "--url", f"http://127.0.0.1:{daemon.api_port}", "--header",
         f"Authorization: Bearer {token}", "--phases", "examples,coverage,fuzzing,stateful",
         "--max-examples", str(EXAMPLES[long_profile]), "--max-time", str(SECONDS[long_profile]),
         "--generation-deterministic", "--continue-on-failure", "--checks", "all", "--no-color"],
        cwd=tmp_path, env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks",
                                        "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert operator.get("/health")["ready"]
    assert not [line for line in daemon.lines() if line.get("level") in ("error", "critical")]
    assert daemon.stop() == 0

"""Orders between two network namespaces, over a cable that the kernel makes bad (`tc netem`)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.accounts import hash_password
from tests.support.daemon import ROOT, Daemon
from tests.support.namespaces import VENUE_ADDRESS, Namespaces
from tests.support.venue import write_config
from tests.udp.flows import ACCOUNTS, Commutative, Ledger
from tests.udp.journal_judge import judge
from tests.udp.namespace_client import PASSWORD
from tests.udp.test_lossy_load import check_once

ORDERS, ORDERS_LONG = 1_500, 20_000
# The share that is corrupted is caught by UDP's checksum and never arrives; a reordered one goes
# at once while the others wait.
BAD = {
    "nothing": (),
    "loss": ("loss", "10%"),
    "bursts": ("loss", "gemodel", "3%", "30%", "80%", "0.5%"),
    "duplicate": ("duplicate", "30%"),
    "reorder": ("delay", "10ms", "reorder", "30%", "50%"),
    "corrupt": ("corrupt", "10%"),
    "all": ("delay", "8ms", "4ms", "loss", "15%", "duplicate", "15%", "reorder", "15%",
            "corrupt", "15%"),
}


class FarDaemon(Daemon):
    """A daemon in the venue's namespace; nobody there has the demo password."""

    def __init__(self, folder: Path, namespaces: Namespaces) -> None:
        config = write_config(folder / "config",
                              (ROOT / "config" / "instruments.toml").read_text())
        accounts = config.parent / "accounts.toml"
        accounts.write_text(re.sub('password_hash = ".*"',
                                   f'password_hash = "{hash_password(PASSWORD, 4)}"',
                                   accounts.read_text()))
        super().__init__(folder, config, order_entry__host=VENUE_ADDRESS,
                         order_entry__heartbeat_ms=200)
        self._namespaces = namespaces

    def command(self, *arguments: str) -> list[str]:
        return [*self._namespaces.venue, *super().command(*arguments)]


@pytest.fixture
def namespaces(request: pytest.FixtureRequest) -> Iterator[Namespaces]:
    netem = BAD[request.node.callspec.params["bad"]]
    if why := Namespaces.missing(bool(netem)):
        pytest.skip(why)
    made = Namespaces()
    try:
        if netem:
            made.impair(*netem)
        yield made
    finally:
        made.close()


def run_clients(namespaces: Namespaces, daemon: Daemon, orders: int, file: Path) -> Any:
    """Run the clients where they belong; returns what they were told."""
    done = subprocess.run(
        [*namespaces.client, sys.executable, "-m", "tests.udp.namespace_client", VENUE_ADDRESS,
         str(daemon.udp_port), str(daemon.port), str(orders), str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("bad", BAD)
def test_every_order_is_done_once_over_a_bad_cable(tmp_path: Path, namespaces: Namespaces,
                                                   long_profile: bool, bad: str) -> None:
    orders = ORDERS_LONG if long_profile else ORDERS
    daemon = FarDaemon(tmp_path / "venue", namespaces).start()
    try:
        found = run_clients(namespaces, daemon, orders, tmp_path / "found.json")
        for name in ACCOUNTS:
            assert found[name]["udp"] == found[name]["tcp"], f"{name} was told otherwise"
            Ledger(map(bytes.fromhex, found[name]["udp"]))
        if bad in ("loss", "bursts", "corrupt", "all"):
            assert sum(one["counts"]["resent"] for one in found.values()) > 0
            assert "dropped" in namespaces.sent()
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    check_once(daemon.data_dir, Commutative(1, orders).phases())
    assert daemon.run("journal", "verify").returncode == 0
    judge(daemon.data_dir)

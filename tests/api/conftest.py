"""A running daemon, and callers with keys of its accounts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Caller


def make_key(daemon: Daemon, account: str, *options: str) -> dict[str, Any]:
    """What `matchd key make` prints."""
    done = daemon.run("key", "make", account, "--json", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests of a file."""
    folder: Path = tmp_path_factory.mktemp("venue")
    daemon = Daemon(folder / "venue").start()
    yield daemon
    daemon.kill()


@pytest.fixture(scope="module")
def keys(venue: Daemon) -> dict[str, dict[str, Any]]:
    """A key of each account, with the account's own role."""
    return {name: make_key(venue, name, "--role", "admin" if name == "ADMIN" else "trader")
            for name in ("MAKER1", "MAKER2", "TAKER1", "ADMIN")}


@pytest.fixture
def call(venue: Daemon, keys: dict[str, dict[str, Any]]) -> Iterator[Callable[..., Caller]]:
    """Makes callers: `call("MAKER1")` signs, `call()` has no key."""
    made: list[Caller] = []

    def make(account: str = "") -> Caller:
        made.append(Caller(venue.api_port, keys[account] if account else None))
        return made[-1]

    yield make
    for caller in made:
        caller.close()

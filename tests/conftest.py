"""What several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon


@pytest.fixture
def long_profile() -> bool:
    """Whether the long profiles were asked for (MATCHD_TEST_PROFILE=long)."""
    return os.environ.get("MATCHD_TEST_PROFILE") == "long"


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons over a folder of the test (`make_daemon(name="a", journal__sync="off")`);
    they are not started yet, and killed at the end."""
    made: list[Daemon] = []

    def make(name: str = "venue", **settings: Any) -> Daemon:
        made.append(Daemon(tmp_path / name, **settings))
        return made[-1]

    yield make
    for daemon in made:
        daemon.kill()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that runs on a free port."""
    return make_daemon().start()

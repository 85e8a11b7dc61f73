"""Fixtures of the clients' tests."""

from __future__ import annotations

import pytest

from tests.clients.doors import Door
from tests.support.daemon import Daemon


@pytest.fixture(params=["tcp", "udp"])
def transport(request: pytest.FixtureRequest) -> str:
    """Over both transports."""
    return str(request.param)


@pytest.fixture
def door(daemon: Daemon, transport: str) -> Door:
    """A running daemon, by either of its doors."""
    return Door(daemon, transport)

"""A service manager for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.service_manager import ServiceManager


@pytest.fixture
def make_manager(tmp_path: Path) -> Iterator[Callable[..., ServiceManager]]:
    """Makes stand-ins for systemd (`make_manager(watchdog_s=1.0)`), closed at the end."""
    made: list[ServiceManager] = []

    def make(watchdog_s: float = 0.0) -> ServiceManager:
        made.append(ServiceManager(tmp_path / f"manager{len(made)}", watchdog_s))
        return made[-1]

    yield make
    for manager in made:
        manager.close()

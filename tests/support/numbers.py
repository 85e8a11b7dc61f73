"""A running daemon's counters and gauges, asked for over its control socket."""

from __future__ import annotations

from engine import control
from tests.support.daemon import Daemon


def metrics_of(daemon: Daemon) -> dict[str, int]:
    """Every counter and gauge by its name and labels."""
    answer = control.request(daemon.data_dir, "status")
    return {str(name): int(value) for name, value in answer["metrics"].items()}

"""`matchd session`: the trading session of a running venue."""

from pathlib import Path

import click

from engine import config
from engine.cli import options, output


@click.group()
def session() -> None:
    """The trading session of a running venue.

    \b
    Example: matchd session roll
             matchd session status --json
    """


@session.command()
@options.files
@options.as_json
def roll(config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End the session and begin the next one.

    Day orders are cancelled, numbers start at 1 again, GTC orders are announced anew.

    \b
    Example: matchd session roll --data-dir /var/lib/matchd
    """
    from engine import control

    loaded, _ = config.load(config_path, data_dir=data_dir)
    answer = control.request(loaded.data_dir, "roll", timeout_s=60)
    output.answer(answer, f"session {answer['session']} began, generation {answer['generation']}",
                  as_json)


@session.command()
@options.files
@options.as_json
def status(config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show the running venue's session, its last durable event and its counters.

    \b
    Example: matchd session status
    """
    from engine import control

    loaded, _ = config.load(config_path, data_dir=data_dir)
    answer = control.request(loaded.data_dir, "status")
    counters = answer.pop("metrics", {})
    lines = [f"{name} {value}" for name, value in {**answer, **counters}.items()]
    output.answer(answer | {"metrics": counters}, "\n".join(lines), as_json)

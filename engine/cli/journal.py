"""`matchd journal`: looks at the event log, checks it, cuts it."""

from pathlib import Path

import click

from engine import config
from engine.cli import options, output


@click.group()
def journal() -> None:
    """Look at the event log, check it, cut it.

    \b
    Example: matchd journal verify --data-dir /var/lib/matchd
    """


@journal.command()
@click.option("--from", "from_seq", type=click.IntRange(1), default=1, metavar="SEQ",
              help="Begin with this event.")
@click.option("--to", "to_seq", type=click.IntRange(1), default=2**64 - 1, metavar="SEQ",
              help="End with this event.")
@options.files
@options.as_json
def dump(from_seq: int, to_seq: int, config_path: Path | None, data_dir: Path | None,
         as_json: bool) -> None:
    """Print the events, one JSON object per line (with and without --json).

    Reads only, so the venue may be running.

    \b
    Example: matchd journal dump --from 1000 --to 1100
    """
    from engine.cli import follow

    loaded, _ = config.load(config_path, data_dir=data_dir)
    for batch in follow.events(loaded, from_seq, once=True):
        for event in batch.dicts():
            if event["seq"] > to_seq:
                return
            if event["seq"] >= from_seq:
                output.say_json(event)

"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def config_file(function: Function) -> Function:
    """`--config FILE`, as `config_path`."""
    option = click.option(
        "--config", "config_path", metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Configuration; without it ./config/matchd.toml, else the built-in defaults.")
    return option(function)


def data_dir(function: Function) -> Function:
    """`--data-dir DIR`, as `data_dir`."""
    option = click.option(
        "--data-dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
        help="Folder of journal and snapshots, in place of venue.data_dir.")
    return option(function)


def as_json(function: Function) -> Function:
    """`--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def order_entry(function: Function) -> Function:
    """`--password`, `--host`, `--port` and `--udp` of a login."""
    password = click.option("--password", envvar="MATCHD_PASSWORD", show_envvar=True,
                            help="The account's password; asked for when missing.")
    host = click.option("--host", help="In place of order_entry.host.")
    port = click.option("--port", type=click.IntRange(1, 65_535),
                        help="In place of order_entry.tcp_port, or udp_port with --udp.")
    udp = click.option("--udp", is_flag=True, help="Over UDP, not TCP.")
    return password(host(port(udp(function))))


def files(function: Function) -> Function:
    """`--config` and `--data-dir`, for every command that touches files."""
    return config_file(data_dir(function))

"""`matchd run`, `check-config`, `hash-password`: the venue itself."""

import sys
from pathlib import Path

import click

from engine import accounts, config
from engine.cli import options, output
from engine.errors import ConfigError


@click.command()
@options.files
def run(config_path: Path | None, data_dir: Path | None) -> int:
    """Run the venue until SIGTERM or SIGINT.

    \b
    Example: matchd run --data-dir /var/lib/matchd
    """
    settings = config.load_settings(config_path, data_dir=data_dir)
    config.require_safe(settings)
    from engine import lifecycle

    return lifecycle.run(settings)


@click.command()
@options.files
@options.as_json
def reload(config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Have the running venue read instruments, accounts and limits again.

    Returns when they are in force, and says what changed. A mistake in a file changes nothing: it
    is named, and the command exits with 2.

    \b
    Example: matchd reload --data-dir /var/lib/matchd
    """
    from engine import control

    loaded, _ = config.load(config_path, data_dir=data_dir)
    answer = control.request(loaded.data_dir, "reload", timeout_s=60)
    for key in answer["need_a_restart"]:
        output.complain(f"warning: {key} has changed and needs a restart")
    done = [f"{what.replace('_', ' ')}: {', '.join(names)}"
            for what, names in answer.items() if what != "need_a_restart" and names]
    output.answer(answer, "\n".join(done) or "nothing has changed", as_json)


@click.command()
@options.files
@options.as_json
def check_config(config_path: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Check configuration, instruments and accounts.

    Says every mistake and exits with 2, or what was found and exits with 0.

    \b
    Example: matchd check-config --config config/matchd.toml
    """
    try:
        settings = config.load_settings(config_path, data_dir=data_dir)
        config.require_safe(settings)
    except ConfigError as error:
        if not as_json:
            raise
        output.say_json({"ok": False, "problems": error.problems})
        return error.exit_code
    for warning in settings.warnings:
        output.complain(f"warning: {warning}")
    paths = [str(path) for path in settings.paths]
    output.answer(
        {"ok": True, "files": paths, "warnings": settings.warnings,
         "config": config.without_secrets(settings.config),
         "instruments": settings.instruments,
         "accounts": [account.username for account in settings.accounts]},
        f"ok: {', '.join(paths)}; {len(settings.instruments)} instruments, "
        f"{len(settings.accounts)} accounts", as_json)
    return 0


@click.command()
@click.argument("password", required=False)
@options.as_json
def hash_password(password: str | None, as_json: bool) -> None:
    """Print the password_hash of PASSWORD for accounts.toml.

    Without PASSWORD it is asked for, or read from standard input when that is no terminal.

    \b
    Example: matchd hash-password
             echo secret | matchd hash-password
    """
    if password is None:
        password = (click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
                    if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n"))
    try:
        text = accounts.hash_password(password)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    output.answer({"password_hash": text}, text, as_json)

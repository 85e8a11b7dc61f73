"""`matchd key`: API keys for the HTTP gateway and the feed."""

from datetime import UTC, datetime
from pathlib import Path

import click

from engine import clock, config
from engine.api.keys import ROLES, Key, KeyFile, Role, secret_of, token_of
from engine.cli import options, output
from engine.config import Config


@click.group()
def key() -> None:
    """API keys for the HTTP gateway and the feed.

    \b
    Example: matchd key make MAKER1
             matchd key list
    """


@key.command()
@click.argument("account")
@click.option("--role", type=click.Choice(ROLES), default="trader", show_default=True,
              help="What the key may do, at most what the account may.")
@click.option("--note", default="", metavar="TEXT", help="What the key is for.")
@click.option("--days", type=click.IntRange(0, 36_500), default=0, metavar="N",
              help="The key ends after so many days; 0 never.")
@options.files
@options.as_json
def make(account: str, role: Role, note: str, days: int, config_path: Path | None,
         data_dir: Path | None, as_json: bool) -> None:
    """Make a key for ACCOUNT and print its secret and token: they are shown only here.

    The secret signs requests; the token is for Authorization: Bearer.

    \b
    Example: matchd key make MAKER1
             matchd key make ADMIN --role admin --note "operations desk"
    """
    settings = config.load_settings(config_path, data_dir=data_dir)
    known = {one.username: one for one in settings.accounts}
    found = known.get(account.upper())
    if found is None:
        raise click.UsageError(f"no account {account!r} in {settings.paths[2]}")
    if ROLES.index(role) > ROLES.index(found.role):
        raise click.UsageError(f"{found.username} is {found.role}: its keys can't be {role}")
    keys = _key_file(settings.config)
    master = keys.master(make=True)
    made = keys.make(found.username, role, note, days)
    _tell_daemon(settings.config)
    secret, token = secret_of(master, made.id), token_of(master, made.id)
    output.answer(
        {"key": made.id, "account": made.account, "role": made.role, "secret": secret,
         "token": token, "expires": made.expires},
        f"key    {made.id}\nsecret {secret}\ntoken  {token}", as_json)


@key.command(name="list")
@options.files
@options.as_json
def list_keys(config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show the keys that were made, without their secrets.

    \b
    Example: matchd key list --json
    """
    loaded, _ = config.load(config_path, data_dir=data_dir)
    now_ns = clock.now_ns()
    keys = _key_file(loaded).read()
    rows = [(one.id, one.account, one.role, one.state(now_ns), _day(one.created),
             _day(one.expires), one.note) for one in keys]
    output.answer([_as_dict(one, now_ns) for one in keys],
                  output.table(("key", "account", "role", "state", "made", "ends", "note"), rows),
                  as_json)


@key.command()
@click.argument("key_id", metavar="KEY")
@options.files
@options.as_json
def revoke(key_id: str, config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """End KEY for ever. A running venue refuses it at once.

    \b
    Example: matchd key revoke 3f2a9c0d11e84b57
    """
    loaded, _ = config.load(config_path, data_dir=data_dir)
    revoked = _key_file(loaded).revoke(key_id)
    _tell_daemon(loaded)
    output.answer(_as_dict(revoked, clock.now_ns()), f"{revoked.id} is revoked", as_json)


def _key_file(loaded: Config) -> KeyFile:
    return KeyFile(loaded.data_dir, loaded.api.master_secret_file)


def _tell_daemon(loaded: Config) -> None:
    """Have a running venue read the keys again; without one the next start does."""
    from engine import control

    if loaded.data_dir.is_dir() and control.is_answered(loaded.data_dir):
        control.request(loaded.data_dir, "keys")


def _as_dict(one: Key, now_ns: int) -> dict[str, object]:
    return {"key": one.id, "account": one.account, "role": one.role, "state": one.state(now_ns),
            "created": one.created, "expires": one.expires, "revoked": one.revoked,
            "note": one.note}


def _day(time_ns: int) -> str:
    if not time_ns:
        return "-"
    return datetime.fromtimestamp(time_ns / clock.NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M")

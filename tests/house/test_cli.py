"""The command line as its users meet it: help, exit codes, one line for each error, JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from engine import cli

ROOT = Path(__file__).resolve().parents[2]


def matchd(*arguments, cwd=ROOT, stdin="", **env):
    """Run `matchd` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "engine", *map(str, arguments)], cwd=cwd, input=stdin, text=True,
        capture_output=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT), **env})


def commands():
    """Every command with its words."""
    context = click.Context(cli.matchd)
    for name in cli.matchd.list_commands(context):
        command = cli.matchd.get_command(context, name)
        yield [name], command
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                yield [name, inner], command.get_command(context, inner)


EVERY = list(commands())
LEAVES = [(words, command) for words, command in EVERY if not isinstance(command, click.Group)]


def test_the_commands_are_those_of_the_readme():
    names = {" ".join(words) for words, _ in LEAVES}
    assert names >= {
        "run", "check-config", "hash-password", "submit", "cancel", "watch events", "watch book",
        "watch trades", "top", "book",
        "session roll", "replay lobster", "replay commands", "journal dump", "journal verify",
        "journal stats", "journal repair", "export", "store status", "store rebuild",
        "store verify", "store migrate"}


@pytest.mark.parametrize(("words", "command"), EVERY, ids=lambda value: "")
def test_every_command_has_help_with_an_example(words, command):
    text = command.help
    assert "Example: matchd " + words[0] in text, words


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=lambda value: "")
def test_every_command_that_touches_files_takes_config_and_data_dir(words, command):
    options = {name for option in command.params for name in option.opts}
    if words != ["hash-password"]:
        assert {"--config", "--data-dir"} <= options, words
    if words != ["run"]:
        assert "--json" in options, words


def test_the_help_names_the_commands():
    shown = matchd("--help")
    assert shown.returncode == 0
    assert "check-config" in shown.stdout
    assert "Example: matchd run" in shown.stdout


@pytest.mark.parametrize("group", [[], ["journal"], ["session"], ["replay"], ["watch"],
                                   ["store"]], ids=str)
def test_a_group_without_a_command_shows_its_help_in_lines(group):
    shown = matchd(*group)
    assert (shown.returncode, shown.stdout) == (2, "")
    lines = shown.stderr.splitlines()
    assert lines[0].startswith("Usage: matchd")
    assert "Commands:" in lines


def test_the_version_is_that_of_the_package():
    assert matchd("--version").stdout.startswith("matchd 0.")


def test_starting_the_command_loads_neither_the_core_nor_the_loop():
    code = ("import sys; from engine import cli; cli.run(['check-config']); "
            "print([name for name in ('uvloop', 'asyncio', 'engine.app', 'cython_core.event') "
            "if name in sys.modules])")
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True,
                           timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [
    ["nothing"], ["submit"], ["submit", "MAKER1", "up", "BTC-USDT", "1", "1"], ["journal", "eat"],
    ["run", "--config"], ["book", "NOSUCH"], ["cancel", "MAKER1"], ["watch", "NOBODY"],
    ["watch", "book", "NOSUCH"], ["watch", "trades"], ["watch", "events", "NOBODY"],
    ["hash-password", "far too long"],
    ["submit", "MAKER1", "buy", "NOSUCH", "1", "1", "--password", "demo"],
    ["submit", "MAKER1", "buy", "BTC-USDT", "1", "1"],
])
def test_a_wrong_call_is_one_line_and_exit_code_2(arguments):
    shown = matchd(*arguments)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1
    assert shown.stderr.startswith("matchd: ")


def test_every_mistake_of_a_configuration_is_a_line_of_its_own(tmp_path):
    path = tmp_path / "matchd.toml"
    path.write_text('[log]\nlevel = "loud"\ncolour = 1\n')
    shown = matchd("check-config", "--config", path)
    assert shown.returncode == 2
    assert shown.stderr.splitlines() == [
        f'matchd: {path}: log.level: expected one of "debug", "error", "info", "warning", '
        'found "loud"',
        f"matchd: {path}: log.colour: expected one of level, format, found an unknown key"]
    as_json = matchd("check-config", "--config", path, "--json")
    assert as_json.returncode == 2
    assert len(json.loads(as_json.stdout)["problems"]) == 2


def test_a_good_configuration_is_said_to_be_good():
    shown = matchd("check-config", MATCHD_JOURNAL__SYNCH="x")
    assert shown.returncode == 0
    assert shown.stdout.startswith("ok: config/matchd.toml")
    assert shown.stderr == ("matchd: warning: MATCHD_JOURNAL__SYNCH in the environment names no "
                            "configuration key\n")
    found = json.loads(matchd("check-config", "--json").stdout)
    assert found["ok"]
    assert found["config"]["order_entry"]["tcp_port"] == 9001
    assert found["instruments"][0]["symbol"] == "BTC-USDT"


def test_without_files_the_package_has_its_defaults(tmp_path):
    shown = matchd("check-config", cwd=tmp_path)
    assert shown.returncode == 0
    assert "engine/defaults/matchd.toml" in shown.stdout


def test_hash_password_reads_standard_input_and_accounts_take_its_line():
    from engine.accounts import verify_password
    shown = matchd("hash-password", stdin="secret\n")
    assert verify_password(shown.stdout.strip(), "SECRET")
    assert json.loads(matchd("hash-password", "x", "--json").stdout)["password_hash"]


def test_run_refuses_demo_passwords_beyond_loopback(tmp_path):
    shown = matchd("run", "--data-dir", tmp_path, MATCHD_ORDER_ENTRY__HOST="0.0.0.0")
    assert shown.returncode == 2
    assert "demo password" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [
    ["book", "BTC-USDT"], ["watch", "MAKER1"], ["journal", "stats"], ["session", "roll"],
    ["session", "status"]])
def test_without_a_journal_or_a_daemon_one_line_says_so(tmp_path, arguments):
    shown = matchd(*arguments, "--data-dir", tmp_path / "none")
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1, shown.stderr


def test_a_reader_that_goes_away_is_no_error():
    shown = subprocess.run(f"{sys.executable} -m engine check-config --json | head -c 1",
                           shell=True, cwd=ROOT, text=True, capture_output=True, timeout=60,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert shown.stderr == ""


def test_a_venue_that_is_not_there_is_one_line():
    shown = matchd("submit", "MAKER1", "buy", "BTC-USDT", "1", "1", "--password", "demo",
                   "--port", "1")
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1

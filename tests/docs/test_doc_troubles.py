"""Symptoms of docs/troubleshooting.md, brought about: what comes is the line on the page."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import cli
from tests.docs import pages
from tests.support.daemon import ROOT, Daemon

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
ROWS = re.findall(r"^\| (.*?) \| .* \|$", PAGE, re.M)
QUOTES = [quote for row in ROWS for quote in pages.spans(row)]


def shown(quote: str, text: str) -> bool:
    """Whether a quoted line is in what was printed."""
    return re.search(re.escape(quote).replace(r"\.\.\.", ".*"), " ".join(text.split())) is not None


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    """A daemon that runs for all of them."""
    daemon = Daemon(tmp_path_factory.mktemp("troubles")).start()
    yield daemon
    daemon.kill()


@pytest.fixture
def say(venue: Daemon, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command beside that venue; returns its exit code and what it complained."""
    def run(line: str, folder: Path | None = None, **settings: object) -> tuple[int, str]:
        for key in venue.environment.keys() | {f"MATCHD_{key.upper()}" for key in settings}:
            if key.startswith("MATCHD_"):
                monkeypatch.setenv(key, str(settings.get(key[7:].lower(), venue.environment.get(
                    key, ""))))
        files = ["--config", str(ROOT / "config" / "matchd.toml"),
                 "--data-dir", str(folder or venue.data_dir)]
        return cli.run([*line.split(), *files]), capsys.readouterr().err

    return run


@pytest.mark.parametrize(("quote", "line", "code"), [
    ("there is no instrument ...", "book NOTHING", 2),
    ("the account's password is missing: --password", "cancel MAKER1 --all", 2),
    ("needs a terminal; --once prints the figures", "top", 2),
    ("... is off", "store status redis", 1),
    ("... has no live order #... to take that off", "cancel MAKER1 7 --password demo --port PORT",
     1),
    ("the venue does not know this user name or password",
     "cancel MAKER1 --all --password wrong --port PORT", 1),
])
def test_a_command_says_what_the_page_says(
        say: Callable[..., tuple[int, str]], venue: Daemon, quote: str, line: str,
        code: int) -> None:
    assert quote in QUOTES
    found = say(line.replace("PORT", str(venue.port)))
    assert found[0] == code and shown(quote, found[1]), found


def test_without_a_venue(say: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    for quote, line in (("no daemon answers on ...", "session roll"),
                        ("there is no journal in ...", "journal stats"),
                        ("can't reach the venue at ...",
                         "cancel MAKER1 --all --password demo --port 1")):
        assert quote in QUOTES
        code, text = say(line, tmp_path)
        assert code == 1 and shown(quote, text), text


def test_a_second_venue_on_the_same_data(venue: Daemon) -> None:
    assert "... is in use by process ..." in QUOTES
    made = venue.run("run")
    assert made.returncode == 1 and shown("... is in use by process ...", made.stderr)


def test_a_venue_that_does_not_start(make_daemon: Callable[..., Daemon]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for quote, code, settings in (
                ("cannot listen on ...", 1, {"order_entry__tcp_port": taken.getsockname()[1]}),
                ("order_entry.host: expected a loopback address while a demo password is in use, "
                 "found ...", 2, {"order_entry__host": "0.0.0.0"}),
                ("...: expected ..., found ...", 2, {"journal__sync": "often"})):
            assert quote in QUOTES
            daemon = make_daemon(f"bad{code}{len(quote)}", **settings)
            daemon.spawn()
            assert daemon.wait() == code
            assert shown(quote, daemon.log_path.read_text("utf-8"))


def test_a_damaged_journal(make_daemon: Callable[..., Daemon]) -> None:
    quote = "... is corrupt at byte ..., seq ...: ..."
    assert quote in QUOTES
    daemon = make_daemon("damaged").start()
    # Behind the block that is damaged there has to be another, else it could be a torn tail.
    assert daemon.run("submit", "MAKER1", "buy", "BTC-USDT", "1", "100", "--password", "demo",
                      "--port", str(daemon.port)).returncode == 0
    daemon.kill()
    with (daemon.data_dir / "journal" / "00000001.log").open("r+b") as file:
        file.seek(6 * 64)
        file.write(b"\xff" * 8)
    made = daemon.run("book", "BTC-USDT")
    assert made.returncode == 4 and shown(quote, made.stderr), made

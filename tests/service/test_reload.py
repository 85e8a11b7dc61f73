"""Instruments, accounts and limits are read again while the venue trades."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cython_core.model import Kind
from engine.clients.feed import FeedClient
from engine.config import Settings
from engine.errors import ConfigError, EngineError
from tests.support.certificates import Certificates
from tests.support.daemon import ROOT, Daemon
from tests.support.http import Caller
from tests.support.service_manager import ServiceManager
from tests.support.venue import INSTRUMENTS, USERS, Venue, write_config
from tests.support.wire import Wire, cancel, enter, message, replace

HALTED = 0x0007
NEW = """
[[instrument]]
id = 9
symbol = "NEW-USDT"
wire_symbol = "NEWUSDT"
price_decimals = 4
tick = "0.01"
quantity_decimals = 0
lot = "1"
"""
AAPL, BTC = INSTRUMENTS.split("\n\n")


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    venue = await Venue(tmp_path / "venue", sqlite__enabled=True).start()
    yield venue
    await venue.stop()


def write(venue: Venue, instruments: str = INSTRUMENTS, without: str = "",
          **limits: dict[str, object]) -> None:
    """New tables for a venue. The passwords are hashed anew, so all of them have changed."""
    write_config(venue.data_dir.parent, instruments, limits)
    if without:
        path = venue.data_dir.parent / "accounts.toml"
        rows = path.read_text().split("[[account]]")
        path.write_text("[[account]]".join(row for row in rows if f'"{without}"' not in row))


async def test_an_added_instrument_is_everywhere(venue: Venue) -> None:
    wire = await Wire.logged_in(venue.port, "MAKER1")
    wire.send(enter(1, symbol="NEWUSDT"))
    assert (await wire.message())["reject_reason"] == 0x0017
    http = Caller(venue.app.ports["api"])
    assert (await asyncio.to_thread(http, "GET", "/v1/book/NEW-USDT")).status == 404

    write(venue, INSTRUMENTS + NEW)
    changes = await venue.app.reload()
    assert changes.instruments_added == ["NEW-USDT"]
    assert changes.need_a_restart == []

    # The session that was open, with its own decoder; the gateway; the feed; the log.
    wire.send(enter(2, symbol="NEWUSDT", price=500_000))
    assert (await wire.message())["symbol"] == "NEWUSDT"
    book = await asyncio.to_thread(http, "GET", "/v1/book/NEW-USDT")
    assert book.json["bids"] == [["50.0000", "100", 1]]
    listed = (await asyncio.to_thread(http, "GET", "/v1/instruments")).json["instruments"]
    assert [one["symbol"] for one in listed] == ["AAPL", "BTC-USDT", "NEW-USDT"]
    async with FeedClient("127.0.0.1", venue.app.ports["feed"]) as feed:
        assert (await feed.subscribe("book", "NEW-*", depth=10))["symbols"] == ["NEW-USDT"]
        async with asyncio.timeout(10):
            shown = await anext(message async for message in feed if message["type"] == "snapshot")
        assert shown["bids"] == [["50.0000", "100", 1]]
    await _stored(venue, "SELECT symbol FROM instruments WHERE instrument_id = 9", "NEW-USDT")
    # And after a restart, out of the log.
    await venue.restart()
    again = await Wire.logged_in(venue.port, "MAKER1")
    again.send(cancel(2))
    while (told := await again.message())["type"] != "C":
        pass
    assert told["user_ref_num"] == 2


async def _stored(venue: Venue, query: str, wanted: object) -> None:
    """Wait until SQLite answers this."""
    async with asyncio.timeout(30):
        while True:
            # It makes its tables in its own time.
            with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(
                    f"file:{venue.data_dir}/history.sqlite?mode=ro", uri=True)) as database:
                row = database.execute(query).fetchone()
                if row is not None and row[0] == wanted:
                    return
            await asyncio.sleep(0.05)


async def test_a_removed_instrument_takes_no_orders_but_cancels(venue: Venue) -> None:
    wire = await Wire.logged_in(venue.port, "MAKER1")
    for number in (1, 2, 3):
        wire.send(enter(number, symbol="AAPL", tif="1"))
        await wire.message()
    write(venue, BTC)
    assert (await venue.app.reload()).instruments_removed == ["AAPL"]

    async def refused(wire: Wire) -> None:
        wire.send(enter(10, symbol="AAPL"))
        while (told := await wire.message())["type"] != "J":
            pass
        assert told["reject_reason"] == HALTED

    await refused(wire)
    wire.send(replace(1, 11))
    assert (await wire.message())["reject_reason"] == HALTED
    wire.send(cancel(2))
    assert (await wire.message())["type"] == "C"
    # What the file has no longer stays removed at the next start.
    await venue.restart()
    again = await Wire.logged_in(venue.port, "MAKER1")
    again.send(enter(12, symbol="AAPL"))
    while (told := await again.message())["user_ref_num"] != 12:
        pass
    assert told["reject_reason"] == HALTED
    again.send(message("C", user_ref_num=13, firm="", symbol="AAPL"))
    while (told := await again.message())["type"] != "C":
        pass
    assert venue.app.matcher.resting_orders == 0

    # It is back: it trades again, and an operator's halt is not lifted by that.
    write(venue)
    assert (await venue.app.reload()).instruments_added == ["AAPL"]
    again.send(enter(14, symbol="AAPL"))
    while (told := await again.message())["user_ref_num"] != 14:
        pass
    assert told["type"] == "A"
    venue.inside(lambda batch: batch.halt_instrument(1, reason="an operator says so"))
    await asyncio.sleep(0)
    write(venue, BTC)
    await venue.app.reload()
    write(venue)
    await venue.app.reload()
    assert venue.app.matcher.instruments()[1]["halted"]
    assert venue.app.matcher.instruments()[1]["halt_reason"] == "an operator says so"


async def test_changed_limits_hold_at_once_and_sessions_go_on(venue: Venue) -> None:
    maker = await Wire.logged_in(venue.port, "MAKER1")
    taker = await Wire.logged_in(venue.port, "TAKER1")
    write(venue, MAKER1={"quantity_max_lots": 5}, TAKER1={"messages_per_second": 1})
    before = venue.app.matcher.next_seq
    changes = await venue.app.reload()
    assert changes.accounts_changed == list(USERS)
    assert venue.app.matcher.next_seq > before
    maker.send(enter(1, quantity=6))
    assert (await maker.message())["reject_reason"] == 0x0031
    maker.send(enter(2, quantity=5))
    assert (await maker.message())["type"] == "A"
    taker.send(enter(1, price=10_000), enter(2, price=10_000))
    assert [(await taker.message())["type"] for _ in range(2)] == ["A", "J"]
    # Off again.
    write(venue)
    await venue.app.reload()
    maker.send(enter(3, quantity=6))
    assert (await maker.message())["type"] == "A"


async def test_accounts_come_and_go(venue: Venue) -> None:
    keeps = await Wire.logged_in(venue.port, "MAKER1")
    goes = await Wire.logged_in(venue.port, "MAKER2")
    goes.send(enter(1))
    await goes.message()
    write(venue, without="MAKER2")
    assert (await venue.app.reload()).accounts_removed == ["MAKER2"]
    assert await goes.closed()
    stranger = await Wire.open(venue.port)
    assert await stranger.login("MAKER2", "demo") == "A"
    # (J with the reason A: not authorised)
    keeps.send(enter(1))
    assert (await keeps.message())["type"] == "A"
    # Its order rests, trades, and nobody is told; then it is back, and finds all of it.
    taker = await Wire.logged_in(venue.port, "TAKER1")
    taker.send(enter(1, "S", 200))
    assert [(await taker.message())["type"] for _ in range(3)] == ["A", "E", "E"]
    write(venue)
    assert (await venue.app.reload()).accounts_added == ["MAKER2"]
    back = await Wire.logged_in(venue.port, "MAKER2", sequence=1)
    assert [(await back.message())["type"] for _ in range(2)] == ["A", "E"]


async def test_an_account_that_may_only_read_loses_its_session(venue: Venue) -> None:
    wire = await Wire.logged_in(venue.port, "MAKER1")
    write(venue, MAKER1={"role": "read-only"})
    await venue.app.reload()
    assert await wire.closed()


async def test_every_change_is_an_event_and_no_change_is_none(venue: Venue) -> None:
    before = venue.app.matcher.next_seq
    await venue.app.reload()
    assert venue.app.matcher.next_seq == before
    write(venue, BTC + NEW, without="TAKER2", MAKER1={"collar_bps": 10})
    await venue.app.reload()
    await venue.stop()
    done = subprocess.run([sys.executable, "-m", "engine", "journal", "dump", "--json",
                           "--data-dir", str(venue.data_dir)], cwd=ROOT, capture_output=True,
                          text=True, check=True, timeout=60)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    after = [event for event in events if event.get("seq", 0) >= before]
    kinds = [str(event.get("kind", "")).upper() for event in after]
    for kind in (Kind.INSTRUMENT_DEFINED, Kind.INSTRUMENT_HALTED, Kind.ACCOUNT_DEFINED,
                 Kind.ADMIN_ACT):
        assert kind.name in kinds, (kinds, done.stdout[:500])
    text = json.dumps(after)
    for words in ("not in the file", "account removed", "password changed", "tables read again"):
        assert words in text
    verified = subprocess.run([sys.executable, "-m", "engine", "journal", "verify", "--data-dir",
                               str(venue.data_dir)], cwd=ROOT, capture_output=True, text=True,
                              check=False, timeout=60)
    assert verified.returncode == 0, verified.stderr
    await venue.start()


@pytest.mark.parametrize(("old", "new", "problem"), [
    ('tick = "0.01"', 'tick = "much"', "tick"),
    ("price_decimals = 4", "price_decimals = 3", "expected 4 until the next start, found 3"),
    ('symbol = "AAPL"', 'symbol = "APPL"', "AAPL"),
    ("id = 2", "id = 1", "a value that"),
    ("[[instrument]]", "[[instrument", "valid TOML"),
])
async def test_a_bad_file_changes_nothing(venue: Venue, old: str, new: str,
                                          problem: str) -> None:
    wire = await Wire.logged_in(venue.port, "MAKER1")
    before = venue.app.matcher.next_seq
    # Beside what is good: nothing of it is taken over.
    write(venue, (INSTRUMENTS + NEW).replace(old, new, 1), MAKER1={"quantity_max_lots": 1})
    with pytest.raises(ConfigError) as error:
        await venue.app.reload()
    assert any(problem in line for line in error.value.problems), error.value.problems
    assert venue.app.matcher.next_seq == before
    wire.send(enter(1, symbol="AAPL", quantity=100), enter(2, symbol="NEWUSDT"))
    assert [(await wire.message())["type"] for _ in range(2)] == ["A", "J"]


@pytest.mark.parametrize("name", ["instruments", "accounts"])
async def test_a_table_that_is_gone_or_empty_changes_nothing(venue: Venue, name: str) -> None:
    # As when an editor writes it anew. The package's own table takes no missing one's place.
    path = venue.data_dir.parent / f"{name}.toml"
    text, before = path.read_text(), venue.app.matcher.next_seq
    path.unlink()
    with pytest.raises(ConfigError, match=rf"{name}.toml: expected a readable file"):
        await venue.app.reload()
    path.write_text("")
    with pytest.raises(ConfigError, match=rf"{name}.toml: expected at least one \[\[{name[:-1]}"):
        await venue.app.reload()
    assert venue.app.matcher.next_seq == before
    path.write_text(text)
    await venue.app.reload()
    assert venue.app.matcher.next_seq == before


async def test_what_else_is_renewed_is_all_or_nothing(venue: Venue) -> None:
    done: list[str] = []

    def renews(settings: Settings) -> Callable[[], None]:
        return lambda: done.append(f"{len(settings.instruments)} instruments")

    def fails(settings: Settings) -> Callable[[], None]:
        raise ConfigError("the certificate has ended")

    venue.app.renewals.append(renews)
    write(venue, INSTRUMENTS + NEW)
    venue.app.renewals.append(fails)
    with pytest.raises(ConfigError, match="certificate"):
        await venue.app.reload()
    assert done == []
    assert len(venue.app.settings.instruments) == 2
    venue.app.renewals.remove(fails)
    await venue.app.reload()
    assert done == ["3 instruments"]


async def test_a_renewed_certificate_is_shown_to_who_comes_next(tmp_path: Path) -> None:
    first, second = Certificates(tmp_path / "first"), Certificates(tmp_path / "second")
    certificate, key = tmp_path / "venue.crt", tmp_path / "venue.key"

    def install(made: Certificates) -> None:
        shutil.copy(made.server_cert, certificate)
        shutil.copy(made.server_key, key)

    def shown(port: int) -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=30)

    install(first)
    venue = await Venue(tmp_path / "venue", api__tls=True, tls__certificate_file=certificate,
                        tls__key_file=key).start()
    port = venue.app.ports["api"]
    assert await asyncio.to_thread(shown, port) == first.server_cert.read_text()
    install(second)
    key.write_text("no key")
    with pytest.raises(ConfigError, match="tls"):
        await venue.app.reload()
    assert await asyncio.to_thread(shown, port) == first.server_cert.read_text()
    install(second)
    await venue.app.reload()
    assert await asyncio.to_thread(shown, port) == second.server_cert.read_text()
    await venue.stop()


async def test_keys_that_need_a_restart_are_named(venue: Venue) -> None:
    (venue.data_dir.parent / "matchd.toml").write_text("[feed]\nclients_max = 7\n")
    assert (await venue.app.reload()).need_a_restart == ["feed.clients_max"]


async def test_a_reload_while_it_stops_is_refused(venue: Venue) -> None:
    venue.app.commands.closed = True
    with pytest.raises(EngineError, match="stopping"):
        await venue.app.reload()
    venue.app.commands.closed = False


# -- the real daemon -------------------------------------------------------------------------------


def _daemon(folder: Path, instruments: str = INSTRUMENTS, **settings: Any) -> Daemon:
    return Daemon(folder, write_config(folder / "config", instruments), **settings)


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    daemon = _daemon(tmp_path / "daemon")
    yield daemon
    daemon.kill()


async def test_sighup_and_the_command(daemon: Daemon,
                                      make_manager: Callable[..., ServiceManager]) -> None:
    daemon.manager = manager = make_manager()
    daemon.start()
    ready = manager.wait_for(lambda message: message.get("READY") == "1")
    wire = await Wire.logged_in(daemon.port, "MAKER1")
    config = daemon.folder / "config"

    (config / "instruments.toml").write_text(INSTRUMENTS + NEW)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    line = await asyncio.to_thread(daemon.wait_for_line, "tables read again")
    assert line["instruments_added"] == ["NEW-USDT"]
    reloading = manager.wait_for(lambda message: message.get("RELOADING") == "1", ready)
    assert int(manager.messages[reloading]["MONOTONIC_USEC"]) > 0
    manager.wait_for(lambda message: message.get("READY") == "1", reloading)
    wire.send(enter(1, symbol="NEWUSDT"))
    assert (await wire.message())["type"] == "A"

    # The command: what systemctl reload runs.
    (config / "instruments.toml").write_text(INSTRUMENTS)
    done = await asyncio.to_thread(daemon.run, "reload")
    assert (done.returncode, done.stdout, done.stderr) == (
        0, "instruments removed: NEW-USDT\n", "")
    done = await asyncio.to_thread(daemon.run, "reload", "--json")
    assert json.loads(done.stdout)["instruments_removed"] == []
    assert (await asyncio.to_thread(daemon.run, "reload")).stdout == "nothing has changed\n"

    # A bad file: one line for each mistake, exit code 2, and the venue is as it was.
    (config / "instruments.toml").write_text(
        INSTRUMENTS.replace('tick = "0.01"', 'tick = "x"'))
    (config / "accounts.toml").write_text("nothing here")
    done = await asyncio.to_thread(daemon.run, "reload")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all("instruments.toml" in line or "accounts.toml" in line for line in lines)
    daemon.process.send_signal(signal.SIGHUP)
    await asyncio.to_thread(daemon.wait_for_line, "tables not read again")
    wire.send(enter(2))
    assert (await wire.message())["type"] == "A"
    assert await asyncio.to_thread(daemon.stop) == 0


def test_the_command_without_a_daemon(daemon: Daemon) -> None:
    done = daemon.run("reload")
    assert done.returncode == 1
    assert "no daemon answers" in done.stderr

"""The commands that talk to a running venue, and those that read its log beside it."""

import json
import select
import subprocess
import time
import zlib

import pytest

from tests.support.daemon import ROOT


@pytest.fixture
def venue(daemon):
    """Runs a command against the venue; gives its lines, parsed when they are JSON."""
    def run(*arguments, code=0):
        more = []
        if arguments[0] in ("submit", "cancel"):
            port = daemon.udp_port if "--udp" in arguments else daemon.port
            more = ["--password", "demo", "--port", str(port)]
        shown = daemon.run(*arguments, *more)
        assert shown.returncode == code, shown.stdout + shown.stderr
        if "--json" in arguments:
            return [json.loads(line) for line in shown.stdout.splitlines()]
        return shown.stdout + shown.stderr

    run.daemon = daemon
    # The feed listens a little later than order entry.
    assert daemon.feed_port
    return run


def trade(venue):
    venue("submit", "MAKER1", "sell", "BTC-USDT", "0.5", "60000", "--tif", "gtc")
    return venue("submit", "TAKER1", "buy", "BTC-USDT", "0.2", "market", "--tif", "ioc", "--json")


def test_a_submitted_order_says_what_became_of_it(venue):
    accepted, executed = trade(venue)
    assert (accepted["type"], accepted["price"], accepted["quantity"]) == \
        ("accepted", "market", "0.200000")
    assert (executed["type"], executed["price"], executed["liquidity"]) == \
        ("executed", "60000.00", "taker")
    line = venue("submit", "maker2", "buy", "SHIB-USDT", "5000", "0.00001234", "--text", "mine")
    assert "accepted #1 buy 5000 SHIB-USDT at 0.00001234 day order" in line


def test_a_rejected_order_exits_with_1_and_its_reason(venue):
    line = venue("submit", "MAKER1", "buy", "BTC-USDT", "1", "1", "--min-quantity", "1", code=1)
    assert line == "rejected #1 BTC-USDT (000D min quantity)\n"


def test_orders_over_udp_say_the_same(venue):
    line = venue("submit", "MAKER1", "sell", "BTC-USDT", "0.5", "60000", "--udp")
    assert line.startswith("accepted #1 sell 0.500000 BTC-USDT at 60000.00 day order ")
    accepted, executed = venue("submit", "TAKER1", "buy", "BTC-USDT", "0.2", "market", "--tif",
                               "ioc", "--udp", "--json")
    assert (accepted["type"], executed["type"], executed["quantity"]) == \
        ("accepted", "executed", "0.200000")
    assert "000D" in venue("submit", "MAKER1", "buy", "BTC-USDT", "1", "1", "--min-quantity", "1",
                           "--udp", code=1)
    # The other transport knows the order.
    assert "canceled" in venue("cancel", "MAKER1", "1")
    assert "no live order #1" in venue("cancel", "MAKER1", "1", "--udp", code=1)


def test_what_does_not_fit_the_instrument_never_reaches_the_venue(venue):
    assert "more than 2 decimals" in venue("submit", "MAKER1", "buy", "BTC-USDT", "1", "1.001",
                                           code=2)
    assert "not a decimal" in venue("submit", "MAKER1", "buy", "BTC-USDT", "1e5", "1", code=2)


def test_orders_are_cancelled_reduced_and_cancelled_all(venue):
    for _ in range(2):
        venue("submit", "MAKER1", "buy", "BTC-USDT", "1", "50000")
    line = venue("cancel", "MAKER1", "1", "0.4", "--symbol", "BTC-USDT")
    assert line == "canceled #1 0.600000 BTC-USDT (by the user)\n"
    assert "canceled #1" in venue("cancel", "MAKER1", "1")
    assert "no live order #1" in venue("cancel", "MAKER1", "1", code=1)
    kinds = [one["type"] for one in venue("cancel", "MAKER1", "--all", "--json")]
    assert kinds == ["masscanceled", "canceled"]


def test_a_wrong_password_is_one_line(venue):
    shown = venue.daemon.run("submit", "MAKER1", "buy", "BTC-USDT", "1", "1", "--password", "no",
                             "--port", str(venue.daemon.port))
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1


def test_the_book_is_read_beside_the_running_venue(venue):
    trade(venue)
    venue("submit", "MAKER2", "buy", "BTC-USDT", "1", "59000")
    book, = venue("book", "BTC-USDT", "--json")
    assert book["crc"] == zlib.crc32(b"6000000:300000,5900000:1000000")
    assert book["asks"] == [["60000.00", "0.300000", 1]]
    assert book["bids"] == [["59000.00", "1.000000", 1]]
    orders, = venue("book", "BTC-USDT", "--orders", "--json")
    assert [(one["side"], one["account_id"]) for one in orders["orders"]] == \
        [("buy", 2), ("sell", 1)]
    assert "60000.00" in venue("book", "BTC-USDT")
    assert venue("book", "AAPL", "--json")[0]["bids"] == []


def test_the_book_is_the_same_after_the_venue_stopped(venue):
    trade(venue)
    book = venue("book", "BTC-USDT", "--json")
    assert venue.daemon.stop() == 0
    assert venue("book", "BTC-USDT", "--json")[0]["asks"] == book[0]["asks"]


def test_watch_shows_both_sides_of_a_trade_from_the_log(venue):
    trade(venue)
    taker = venue("watch", "TAKER1", "--from", "1", "--once", "--json")
    assert [one["type"] for one in taker] == ["accepted", "executed"]
    maker, = venue("watch", "MAKER1", "--from", "1", "--once", "--fills", "--json")
    assert (maker["liquidity"], maker["side"], maker["quantity"]) == ("maker", "sell", "0.200000")
    assert maker["match_number"] == taker[1]["match_number"]


def test_watch_follows_a_running_venue(venue):
    venue("submit", "MAKER1", "sell", "BTC-USDT", "0.5", "60000")
    watcher = subprocess.Popen(venue.daemon.command("watch", "TAKER1", "--fills", "--json"),
                               cwd=ROOT, env=venue.daemon.environment,
                               stdout=subprocess.PIPE, text=True)
    try:
        # Whenever the watcher begins, one of these comes after it.
        deadline_s = time.monotonic() + 60
        lines = []
        reader = iter(watcher.stdout.readline, "")
        while not lines and time.monotonic() < deadline_s:
            venue("submit", "TAKER1", "buy", "BTC-USDT", "0.001", "60000")
            if _readable(watcher.stdout):
                lines.append(next(reader))
        assert json.loads(lines[0])["type"] == "executed"
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()


def _readable(stream):
    return bool(select.select([stream], [], [], 0.2)[0])


def test_watch_shows_a_book_from_the_feed(venue):
    trade(venue)
    message, = venue("watch", "book", "BTC-USDT", "--once", "--json")
    assert (message["type"], message["asks"]) == ("snapshot", [["60000.00", "0.300000", 1]])
    assert message["crc"] == venue("book", "BTC-USDT", "--json")[0]["crc"]
    shown = venue("watch", "book", "BTC-USDT", "--once")
    assert shown.splitlines()[0] == f"BTC-USDT at seq {message['seq']}"
    assert "60000.00  0.300000       1   ask" in shown


def test_watch_follows_a_book(venue):
    watcher = subprocess.Popen(venue.daemon.command("watch", "book", "BTC-USDT", "--depth", "3"),
                               cwd=ROOT, env=venue.daemon.environment, text=True,
                               stdout=subprocess.PIPE)
    try:
        assert "- | -" in watcher.stdout.readline()
        venue("submit", "MAKER1", "buy", "BTC-USDT", "0.5", "60000")
        line = watcher.stdout.readline()
        assert "0.500000 x 60000.00 | -" in line
        assert line.rstrip().endswith("1 changed")
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()


def test_watch_shows_trades_of_the_past_and_what_comes(venue):
    executed = trade(venue)[1]
    past = venue("watch", "trades", "BTC-USDT", "--from", "1", "--once", "--json")
    assert [(int(one["match"]), one["side"], one["price"], one["quantity"]) for one in past] == [
        (executed["match_number"], "buy", "60000.00", "0.200000")]
    line = venue("watch", "trades", "BTC-USDT", "--from", "1", "--once")
    assert "buy           0.200000 at 60000.00" in line


def test_watch_without_a_feed_is_one_line(venue):
    assert venue.daemon.stop() == 0
    shown = venue.daemon.run("watch", "trades", "BTC-USDT", "--port", "1")
    assert shown.returncode == 1
    assert shown.stderr.startswith("matchd: no feed at 127.0.0.1:1")
    assert shown.stderr.count("\n") == 1


def test_a_session_rolls_on_request(venue):
    trade(venue)
    before, = venue("session", "status", "--json")
    rolled, = venue("session", "roll", "--json")
    assert rolled["generation"] == before["generation"] + 1 == 2
    assert rolled["session"] != before["session"]
    assert "generation 3" in venue("session", "roll")


def test_the_log_is_dumped_as_one_json_object_per_line(venue):
    trade(venue)
    events = [json.loads(line) for line in venue("journal", "dump").splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["kind"] for event in events]
    assert kinds.count("fill") == 1
    part = [json.loads(line) for line in venue(
        "journal", "dump", "--from", "3", "--to", "5").splitlines()]
    assert part == events[2:5]


def test_a_second_venue_on_the_same_data_directory_is_one_line(venue):
    shown = venue.daemon.run("run")
    assert shown.returncode == 1
    assert len([line for line in shown.stderr.splitlines() if line.startswith("matchd: ")]) == 1


def test_the_log_is_verified_and_counted_beside_the_running_venue(venue):
    trade(venue)
    report, = venue("journal", "verify", "--json")
    assert (report["verdict"], report["problems"]) == ("good", [])
    assert report["compared"] == report["events"] == report["last_seq"]
    counted, = venue("journal", "stats", "--json")
    assert counted["events_by_kind"]["fill"] == 1
    assert counted["segments"][0]["events"] == counted["events"]
    assert "good: seq 1 to" in venue("journal", "verify")
    assert "  fill 1\n" in venue("journal", "stats")


def test_damage_is_exit_code_4_and_repair_is_the_operators_decision(venue):
    trade(venue)
    trade(venue)
    daemon = venue.daemon
    daemon.kill()
    events = json.loads(daemon.run("journal", "stats", "--json").stdout)["events"]
    segment = daemon.data_dir / "journal" / "00000001.log"
    with segment.open("r+b") as file:
        file.seek(6 * 64)
        byte = file.read(1)
        file.seek(6 * 64)
        file.write(bytes([byte[0] ^ 1]))
    shown = daemon.run("journal", "verify", "--json")
    assert shown.returncode == 4
    assert json.loads(shown.stdout)["problems"]
    shown = daemon.run("book", "BTC-USDT")
    assert shown.returncode == 4
    assert len(shown.stderr.splitlines()) == 1
    assert daemon.run("journal", "repair").returncode == 2
    shown = daemon.run("journal", "repair", "--file", "00000001.log", "--offset", "64", "--yes",
                       "--json")
    assert shown.returncode == 0
    repaired = json.loads(shown.stdout)
    assert repaired["last_seq"] < events
    assert (daemon.data_dir / repaired["kept_in"]).is_dir()
    assert daemon.run("journal", "verify").returncode == 0

"""The door under load: full queues, many peers, lost room in the kernel, IPv6, rates."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cython_core.ouch import decode
from cython_core.soupbin import CLIENT_HEARTBEAT
from engine import config as configuration
from engine.accounts import hash_password
from engine.errors import ConfigError
from tests.support.daemon import Daemon
from tests.support.datagrams import WAIT_S, Raw
from tests.support.numbers import metrics_of
from tests.support.venue import write_config
from tests.support.wire import enter

Start = Callable[..., Daemon]


@pytest.mark.parametrize("sync", ["commit", "off"])
def test_with_a_full_queue_every_order_is_taken_once(make_daemon: Start, sync: str) -> None:
    daemon = make_daemon(journal__sync=sync, queues__commands_units=1, queues__events_units=1,
                         queues__reports_units=1).start()
    with Raw(daemon.udp_port) as one, Raw(daemon.udp_port) as two:
        one.login("MAKER1")
        two.login("MAKER2")
        for number in range(1, 3_001):
            one.send(enter(number))
            two.send(enter(number))
            if number % 100 == 0:
                one.send(CLIENT_HEARTBEAT)
        for raw in (one, two):
            found = [decode("out", data)["user_ref_num"] for data in raw.messages(1, 3_000)]
            assert found == list(range(1, 3_001))
        found_metrics = metrics_of(daemon)
        assert sync == "off" or found_metrics["queue_waits{queue=commands}"] > 0
        assert found_metrics["udp_kernel_drops"] == 0


def test_what_the_kernel_drops_is_counted_and_may_be_sent_again(make_daemon: Start) -> None:
    daemon = make_daemon(order_entry__udp_receive_buffer_bytes=4_096).start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        deadline_s = time.monotonic() + 3 * WAIT_S
        while metrics_of(daemon)["udp_kernel_drops"] == 0:
            assert time.monotonic() < deadline_s
            send_all(raw, 0)
        # Every datagram again, slower and slower, until all of its numbers are used.
        pause_s = 0.002
        while numbers_of(daemon) != set(range(1, 1_001)):
            assert time.monotonic() < deadline_s
            raw.login(sequence=0)
            send_all(raw, pause_s)
            time.sleep(0.2)
            pause_s *= 2


def send_all(raw: Raw, pause_s: float) -> None:
    for first in range(1, 1_001, 20):
        raw.send(*(enter(number) for number in range(first, first + 20)))
        time.sleep(pause_s)


def numbers_of(daemon: Daemon) -> set[int]:
    """The UserRefNums of all accepted orders, each of them once, read over a fresh session."""
    found: list[int] = []
    with Raw(daemon.udp_port) as raw:
        answer = raw.login("MAKER1", sequence=0)
        end = int(answer[13:])
        raw.login("MAKER1", sequence=1)
        next_number = 1
        while next_number < end:
            header, messages = raw.mold()
            assert header.sequence == next_number
            next_number += len(messages)
            found += [decode("out", data)["user_ref_num"] for data in messages
                      if data[:1] == b"A"]
    assert len(found) == len(set(found))
    return set(found)


def test_the_rate_of_an_account_holds_over_udp(tmp_path: Path) -> None:
    table = write_config(tmp_path / "conf", limits={"MAKER1": {"messages_per_second": 10}})
    daemon = Daemon(tmp_path / "venue", config=table).start()
    try:
        with Raw(daemon.udp_port) as raw:
            raw.login()
            # A datagram that is dropped whole costs nothing of it.
            raw.send(*(enter(number) for number in range(1, 21)), b"\0\2Rx")
            raw.send(*(enter(number) for number in range(1, 16)))
            found = [decode("out", data) for data in raw.messages(1, 15)]
            assert [row["type"] for row in found] == ["A"] * 10 + ["J"] * 5
            assert {row["reject_reason"] for row in found[10:]} == {0x29}
    finally:
        daemon.kill()


@pytest.mark.parametrize(("host", "to"), [
    ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.0.0.9"),
    ("::", "::1"), ("localhost", "127.0.0.1")])
def test_addresses(tmp_path: Path, host: str, to: str) -> None:
    if ":" in to:
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    table = write_config(tmp_path / "conf")
    # Beyond loopback the demo passwords are refused.
    accounts = tmp_path / "conf" / "accounts.toml"
    lines = [f'password_hash = "{hash_password("secret", 4)}"'
             if line.startswith("password_hash") else line
             for line in accounts.read_text().splitlines()]
    accounts.write_text("\n".join(lines))
    daemon = Daemon(tmp_path / "venue", config=table, order_entry__host=host).start()
    try:
        # The socket is connected: an answer from another address would not reach it.
        with Raw(daemon.udp_port, to) as raw:
            assert raw.login("MAKER1", "secret")[2:3] == b"A"
            raw.send(enter(1), enter(2))
            assert len(raw.messages(1, 2)) == 2
            line = daemon.wait_for_line("session opened")
            shown = f"[{to}]" if ":" in to else "127.0.0.1"
            assert line["address"] == f"{shown}:{raw.local_port}"
            if to == "127.0.0.9":
                # The same socket as seen at another address of ours is nobody yet.
                raw.socket.connect(("127.0.0.1", daemon.udp_port))
                raw.send(enter(3))
                assert raw.silence()
    finally:
        daemon.kill()


def test_a_port_that_is_taken(make_daemon: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        daemon = make_daemon(order_entry__udp_port=port)
        daemon.spawn()
        assert daemon.wait() != 0
        assert f"cannot listen on 127.0.0.1:{port}" in daemon.log_path.read_text()


def test_udp_may_be_off(make_daemon: Start) -> None:
    daemon = make_daemon(order_entry__udp_enabled=False).start()
    daemon.wait_for_line("feed listening")
    assert not [line for line in daemon.lines() if line["event"] == "udp listening"]
    assert "udp_peers" not in metrics_of(daemon)
    assert daemon.stop() == 0


def test_peers_are_shown_where_connections_are(make_daemon: Start) -> None:
    daemon = make_daemon().start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        found = metrics_of(daemon)
        assert (found["sessions"], found["udp_peers"], found["connections"]) == (1, 1, 0)
        assert found["udp_datagrams_in"] >= 1
        assert found["udp_received"] >= 49 and found["udp_sent"] >= 33
        raw.logout()
        deadline_s = time.monotonic() + WAIT_S
        while metrics_of(daemon)["sessions"]:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_settings_have_their_bounds(tmp_path: Path) -> None:
    table = write_config(tmp_path)
    with pytest.raises(ConfigError):
        configuration.load_settings(table, {"MATCHD_ORDER_ENTRY__UDP_DATAGRAM_BYTES": "100"})

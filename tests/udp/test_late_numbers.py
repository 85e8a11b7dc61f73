"""The real daemon does a late number once: over a crash, over a restart from a snapshot, over both
transports; and the log that it leaves can be verified."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest

from cython_core.soupbin import build_unsequenced
from tests.support.daemon import Daemon
from tests.support.udp_wire import UdpWire
from tests.support.wire import Wire, enter
from tests.udp.reference import query

LAST = 60
CHANNELS = (0, 9)


def order(number: int, channel: int) -> bytes:
    """One that rests far from any other."""
    options = {"user_ref_idx": channel} if channel else {}
    return enter(number, "B", 1, price=1_000_000 + number, symbol="BTC-USDT", **options)


async def next_numbers(wire: Wire) -> list[int]:
    """What the venue says comes next on each channel; everything before it was answered."""
    for channel in CHANNELS:
        wire.send(build_unsequenced(query(channel)))
    found = []
    while len(found) < len(CHANNELS):
        message = await wire.message()
        if message["type"] == "Q":
            found.append(message["next_user_ref_num"])
    return found


async def accepted_numbers(daemon: Daemon) -> list[tuple[int, int]]:
    """(channel, number) of all that the stream says was accepted, from its beginning."""
    wire = await UdpWire.logged_in(daemon.udp_port, "MAKER1", sequence=1)
    wire.send(build_unsequenced(query(77)))
    found = []
    while True:
        message = await wire.message()
        if message["type"] == "A":
            found.append((message["options"].get("user_ref_idx", 0), message["user_ref_num"]))
        if message["type"] == "Q" and message["options"].get("user_ref_idx") == 77:
            break
    wire.socket.close()
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_every_number_is_done_once_whatever_comes_between(
        make_daemon: Callable[..., Daemon], end: signal.Signals) -> None:
    daemon = make_daemon(journal__snapshot_events=20).start()
    pick = random.Random(int(end))
    every = [(channel, number) for channel in CHANNELS for number in range(1, LAST + 1)]
    pick.shuffle(every)
    for turn in range(4):
        wire = await UdpWire.logged_in(daemon.udp_port, "MAKER1", sequence=0)
        # Some that came before, some new ones, in any order; the last turn sends all.
        sent = every if turn == 3 else pick.sample(every, LAST)
        for channel, number in sent:
            wire.send(order(number, channel))
        assert max(await next_numbers(wire)) <= LAST + 1
        daemon.stop(end)
        wire.socket.close()
        daemon.start()
    found = await accepted_numbers(daemon)
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(every)
    daemon.stop()
    report = daemon.run("journal", "verify")
    assert report.returncode == 0, report.stdout + report.stderr


async def test_what_tcp_skipped_comes_over_udp_and_never_again(daemon: Daemon) -> None:
    tcp = await Wire.logged_in(daemon.port, "MAKER1")
    tcp.send(order(1, 0), order(5, 0), order(4, 0))
    assert (await next_numbers(tcp))[0] == 6
    await tcp.close()
    udp = await UdpWire.logged_in(daemon.udp_port, "MAKER1", sequence=0)
    udp.send(order(4, 0), order(2, 0), order(4, 0), order(5, 0))
    assert [(await udp.message())["user_ref_num"] for _ in range(2)] == [4, 2]
    assert (await next_numbers(udp))[0] == 6
    udp.socket.close()
    tcp = await Wire.logged_in(daemon.port, "MAKER1", sequence=0)
    tcp.send(order(2, 0), order(3, 0), order(6, 0))
    assert (await tcp.message())["user_ref_num"] == 6
    await tcp.close()


async def test_a_window_of_0_is_strict_and_a_change_counts_from_the_next_start(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(order_entry__udp_window=0).start()
    wire = await UdpWire.logged_in(daemon.udp_port, "MAKER1")
    wire.send(order(5, 0), order(4, 0), order(6, 0))
    assert [(await wire.message())["user_ref_num"] for _ in range(2)] == [5, 6]
    wire.socket.close()
    daemon.stop()
    daemon = make_daemon(order_entry__udp_window=1_024).start()
    wire = await UdpWire.logged_in(daemon.udp_port, "MAKER1", sequence=0)
    # What was lost under the strict rule stays lost.
    wire.send(order(4, 0), order(9, 0), order(8, 0))
    assert [(await wire.message())["user_ref_num"] for _ in range(2)] == [9, 8]
    wire.socket.close()

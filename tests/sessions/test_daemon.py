"""The real daemon: starts, stops, and says in one line why it does not."""

import json
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.transports import Transport, over_both
from tests.support.wire import Wire, enter

MakeDaemon = Callable[..., Daemon]


@over_both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_with_exit_0_and_a_snapshot(
        daemon: Daemon, number: int, transport: Transport) -> None:
    wire = await transport.logged_in(daemon, "MAKER1")
    wire.send(enter(1))
    await wire.message()
    assert daemon.stop(number) == 0
    assert await wire.closed()
    assert [line["event"] for line in daemon.lines()][-2:] != []
    assert daemon.lines()[-1]["event"] == "stopped"
    assert list((daemon.data_dir / "snapshots").iterdir())
    daemon.start()
    again = await transport.logged_in(daemon, "MAKER1", session=wire.session)
    assert (await again.message(), again.raw)[1] == wire.raw


@over_both
async def test_orders_on_their_way_at_the_signal_are_answered_or_ignored_but_never_lost(
        daemon: Daemon, transport: Transport) -> None:
    wire = await transport.logged_in(daemon, "MAKER1")
    wire.send(*(enter(number, "B", 1) for number in range(1, 5_001)))
    await wire.message()
    assert daemon.stop() == 0
    while (packet := await wire.packet())[0] == "S":
        wire.raw.append(packet[1])
    daemon.start()
    again = await transport.logged_in(daemon, "MAKER1", sequence=0)
    assert again.next_number == len(wire.raw) + 1


async def test_every_line_of_the_log_is_json(daemon: Daemon) -> None:
    wire = await Wire.open(daemon.port)
    await wire.login("NOBODY", "x")
    await Wire.logged_in(daemon.port, "MAKER1")
    daemon.stop()
    lines = [json.loads(line) for line in daemon.log_path.read_text().splitlines()]
    events = [line["event"] for line in lines]
    for event in ("recovered", "listening", "connection closed", "session opened",
                  "session closed", "stopping", "stopped"):
        assert event in events


def test_a_port_in_use_is_one_line_and_exit_1(make_daemon: MakeDaemon) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = make_daemon(order_entry__tcp_port=port)
        daemon.spawn()
        assert daemon.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in daemon.log_path.read_text()
    assert "Traceback" not in daemon.log_path.read_text()


def test_a_second_daemon_on_one_data_directory_is_refused(daemon: Daemon,
                                                          make_daemon: MakeDaemon) -> None:
    other = make_daemon("venue")
    other.log_path = Path(f"{other.log_path}.2")
    other.spawn()
    assert other.wait() == 1
    assert "Traceback" not in other.log_path.read_text()
    daemon.wait_for_line("listening")
    assert daemon.stop() == 0


def test_demo_passwords_never_listen_beyond_loopback(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(order_entry__host="0.0.0.0")
    daemon.spawn()
    assert daemon.wait() == 2
    assert "demo password" in daemon.log_path.read_text()


@over_both
async def test_a_failing_disk_stops_it_with_exit_5_and_no_acknowledgement(
        daemon: Daemon, transport: Transport) -> None:
    wire = await transport.logged_in(daemon, "MAKER1")
    wire.send(*(enter(number, "B", 1) for number in range(1, 1_001)))
    await wire.messages(1_000)
    assert daemon.process is not None
    # From here on a write fails beyond the first 32 KiB of a file, as on a full disk. The journal
    # is past that, the log is not.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (2**15, 2**15))
    wire.send(enter(1_001))
    assert await wire.closed()
    assert daemon.wait() == 5
    log = daemon.log_path.read_text()
    assert "Traceback" not in log
    assert "the journal can't be written" in log.splitlines()[-1]
    daemon.start()
    again = await transport.logged_in(daemon, "MAKER1", sequence=0)
    assert again.next_number == 1_001


async def test_there_is_a_descriptor_for_every_connection(make_daemon: MakeDaemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        daemon = make_daemon(order_entry__connections_max=600).start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wires = [await Wire.open(daemon.port) for _ in range(400)]
    last = await Wire.logged_in(daemon.port, "MAKER1")
    last.send(enter(1))
    assert await last.types(1) == "A"
    for wire in wires:
        await wire.close()


async def test_garbage_closes_that_connection_and_the_venue_goes_on(daemon: Daemon) -> None:
    for data in (b"\xff" * 1_000, b"GET / HTTP/1.1\r\n\r\n", bytes(70_000)):
        wire = await Wire.open(daemon.port)
        wire.send(data)
        assert await wire.closed()
    wire = await Wire.logged_in(daemon.port, "MAKER1")
    wire.send(enter(1))
    assert await wire.types(1) == "A"

"""Order entry on sockets that a service manager holds: a restart refuses nobody."""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from cython_core.soupbin import build_login
from tests.support.daemon import Daemon
from tests.support.service_manager import ServiceManager

NAME = "order-entry"
CONNECTIONS = 40


def _login(connection: socket.socket, user: str) -> str:
    """Log in; the packet type of the answer, "" when the connection was closed instead."""
    connection.settimeout(30)
    try:
        connection.sendall(build_login(user, "demo"))
        head = connection.recv(3, socket.MSG_WAITALL)
    except ConnectionError:
        return ""
    return chr(head[2]) if len(head) == 3 else ""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_who_connects_during_a_restart_is_served_after_it(
        make_daemon: Callable[..., Daemon], make_manager: Callable[..., ServiceManager],
        stop: signal.Signals) -> None:
    daemon, manager = make_daemon(), make_manager()
    port = manager.listen(NAME)
    daemon.manager = manager
    assert daemon.start().port == port
    first = socket.create_connection(("127.0.0.1", port))
    assert _login(first, "MAKER1") == "A"
    assert daemon.stop(stop) == (0 if stop == signal.SIGTERM else -signal.SIGKILL)
    # Nobody is there now, and everybody may come: these wait in the socket.
    waiting = [socket.create_connection(("127.0.0.1", port), timeout=30)
               for _ in range(CONNECTIONS)]
    daemon.start()
    served = [_login(connection, "MAKER1") for connection in waiting[:1]]
    assert served == ["A"]
    for connection in waiting[1:]:
        connection.sendall(build_login("MAKER1", "wrong"))
        connection.settimeout(30)
        assert connection.recv(3, socket.MSG_WAITALL)[2:] == b"J"
    for connection in (first, *waiting):
        connection.close()
    assert daemon.stop() == 0


def test_connects_all_the_time_while_it_is_restarted_again_and_again(
        make_daemon: Callable[..., Daemon], make_manager: Callable[..., ServiceManager]) -> None:
    daemon, manager = make_daemon(), make_manager()
    port = manager.listen(NAME)
    daemon.manager = manager
    daemon.start()
    over = threading.Event()
    refused: list[Exception] = []
    answers: list[str] = []

    def connect_for_ever() -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                    answers.append(_login(connection, "TAKER1"))
            except OSError as error:
                refused.append(error)
            time.sleep(0.01)

    threads = [threading.Thread(target=connect_for_ever) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            served = answers.count("A")
            deadline_s = time.monotonic() + 30
            while answers.count("A") < served + 3 and time.monotonic() < deadline_s:
                time.sleep(0.01)
            assert daemon.stop() == 0
            daemon.start()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert refused == []
    # Who was connected already when it stopped is told so by the close; nobody was turned away.
    assert set(answers) <= {"A", ""}
    assert answers.count("A") >= 9


def test_datagrams_that_come_during_a_restart_are_read_after_it(
        make_daemon: Callable[..., Daemon], make_manager: Callable[..., ServiceManager]) -> None:
    daemon, manager = make_daemon(), make_manager()
    manager.listen(NAME)
    port = manager.listen(NAME, socket.SOCK_DGRAM)
    daemon.manager = manager
    daemon.start()
    assert daemon.wait_for_line("udp listening")["port"] == port
    assert daemon.stop() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.send(build_login("MAKER1", "demo"))
        daemon.start()
        client.settimeout(30)
        answer = client.recv(2_048)
    assert struct.unpack_from(">Hc", answer) == (31, b"A")
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", ["", "unknown", "venue.socket"])
def test_sockets_without_a_name_of_their_own_are_for_orders(
        name: str, make_daemon: Callable[..., Daemon],
        make_manager: Callable[..., ServiceManager]) -> None:
    daemon, manager = make_daemon(), make_manager()
    port, udp_port = manager.listen(name), manager.listen(name, socket.SOCK_DGRAM)
    daemon.manager = manager
    assert daemon.start().port == port
    assert daemon.udp_port == udp_port
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert _login(connection, "MAKER1") == "A"
    assert daemon.stop() == 0


def test_sockets_that_are_none_of_ours_are_closed_and_named(
        make_daemon: Callable[..., Daemon], make_manager: Callable[..., ServiceManager]) -> None:
    daemon, manager = make_daemon(), make_manager()
    port = manager.listen(NAME)
    other = manager.listen("something-else")
    daemon.manager = manager
    daemon.start()
    assert daemon.port == port
    line = daemon.wait_for_line("a socket that was handed over is none of ours")
    assert line["name"] == "something-else"
    assert str(other) in line["address"]
    assert daemon.stop() == 0


def test_a_handed_socket_beyond_loopback_needs_real_passwords(
        make_daemon: Callable[..., Daemon], make_manager: Callable[..., ServiceManager]) -> None:
    daemon, manager = make_daemon(), make_manager()
    everywhere = socket.socket()
    everywhere.bind(("0.0.0.0", 0))
    everywhere.listen()
    manager._sockets.append((NAME, everywhere))
    daemon.manager = manager
    daemon.spawn()
    assert daemon.wait() == 2
    assert "handed over (0.0.0.0)" in daemon.log_path.read_text()

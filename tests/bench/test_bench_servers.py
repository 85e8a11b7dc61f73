"""What is measured says where it listens; no port is chosen before it is taken."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from bench import servers


def test_the_first_line_counts_once_it_is_whole() -> None:
    assert servers.first_line("4000 40") is None
    assert servers.first_line("4000 4001\nmore\n") == [4000, 4001]


def test_ports_are_read_from_whole_lines_of_the_log_in_the_order_asked_for() -> None:
    ports = servers.log_lines("listening", "feed listening")
    text = 'no JSON\n[1]\n{"event": "feed listening", "port": 2}\n{"event": "other"}\n'
    assert ports(text) is None
    assert ports(text + '{"event": "listening", "port": 1') is None
    assert ports(text + '{"event": "listening", "port": 1}\n') == [1, 2]


def test_a_closed_port_refuses_and_belongs_to_nobody_else() -> None:
    with servers.closed_port() as port, socket.socket() as other:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_a_port_that_another_took_meanwhile_is_not_the_end(
        monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        free = servers.closed_port

        @contextlib.contextmanager
        def taken_first() -> Iterator[int]:
            with free() as port:
                ports.append(port)
                yield ports[len(ports) - 2] if len(ports) == 2 else port

        monkeypatch.setattr(servers, "closed_port", taken_first)
        with servers.redis_server(durable=False) as server:
            assert server.port == ports[-1] != ports[0]
            socket.create_connection(("127.0.0.1", server.port), timeout=10).close()
    assert len(ports) == 3


def test_a_server_that_ends_says_why() -> None:
    with pytest.raises(servers.NotListening, match="no_such_key"), \
            servers.daemon("commit", settings={"order_entry": {"no_such_key": 1}}):
        pass

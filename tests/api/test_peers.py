"""Other instances asked for one endpoint, all at once: real venues, dead ones, silent ones."""

from __future__ import annotations

import asyncio
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.api.peers import Peers
from engine.config import PeersConfig
from engine.errors import ConfigError
from tests.api.conftest import make_key
from tests.support.daemon import Daemon
from tests.support.http import Caller

PATH = "/api/v1/performance/engines/parallel-query"
WAIT_S = 20.0
WELL = ("healthy", "degraded")


class Page(http.server.BaseHTTPRequestHandler):
    """Answers what its server was told to, and notes what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        server.ports.add(self.client_address[1])
        status, body = server.answer
        server.open.wait(WAIT_S)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def page() -> Iterator[Any]:
    """A server whose answers a test chooses."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.asked, server.ports, server.answer = [], set(), (200, b'{"a": [1, 2]}')
    server.open = threading.Event()
    server.open.set()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.open.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody listens: its port is taken, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def peers_of(*urls: str, **settings: Any) -> Peers:
    return Peers(PeersConfig(urls=urls, **settings))


async def until(done: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


def test_every_venue_has_its_part(make_daemon: Callable[..., Daemon], dead: str) -> None:
    east = make_daemon("east", venue__name="east").start()
    west = make_daemon("west", venue__name="west").start()
    urls = (f"east=http://127.0.0.1:{east.api_port},dead={dead},"
            f"west=http://127.0.0.1:{west.api_port}/")
    asker = make_daemon("asker", peers__urls=urls, peers__failures_max=1).start()
    ask = Caller(asker.api_port)
    got = ask("POST", PATH, {"endpoint": "/health"})
    assert got.status == 200, got.body
    assert (got.json["endpoint"], got.json["ok"]) == ("/health", False)
    parts = {part["peer"]: part for part in got.json["results"]}
    assert list(parts) == ["east", "dead", "west"]
    for name in ("east", "west"):
        part = parts[name]
        assert (part["ok"], part["status"], part["error"]) == (True, 200, "")
        # A machine with much to do makes a venue late, which is told.
        assert part["body"]["status"] in WELL
    part = parts["dead"]
    assert (part["ok"], part["status"], part["body"], part["error"]) == (
        False, None, None, "connection refused")
    # Its breaker is open from now on: it costs nothing.
    again = ask("POST", PATH, {"endpoint": "/stats", "peers": ["dead", "east"]}).json
    assert [part["peer"] for part in again["results"]] == ["dead", "east"]
    assert again["results"][0]["breaker"] == "open"
    assert again["results"][0]["error"] == "it is left alone for a while: connection refused"
    assert again["results"][1]["body"]["active_connections"] == 0
    figures = Caller(asker.api_port)("GET", "/metrics").body.decode()
    assert 'matchd_peer_breaker{peer="dead"} 2' in figures
    assert "matchd_peer_failures_total 2" in figures
    # The command line asks by itself.
    done = asker.run("peers", "status", "--json")
    rows = {row["peer"]: row for row in json.loads(done.stdout)["peers"]}
    assert done.returncode == 1
    assert rows["dead"]["state"] == "down"
    assert rows["east"]["state"] in WELL and rows["west"]["state"] in WELL
    done = asker.run("peers", "status", "east", "--json")
    assert done.returncode == WELL.index(json.loads(done.stdout)["peers"][0]["state"])
    assert asker.run("peers", "status", "north").returncode == 2
    assert "connection refused" in asker.run("peers", "status").stdout


def test_what_may_be_asked(make_daemon: Callable[..., Daemon], page: Any) -> None:
    asker = make_daemon("asker", peers__urls=f"one={page.url}").start()
    ask = Caller(asker.api_port)
    for endpoint in ("health", "", "http://other/health", "/no/such/path", "/health\r\nX: y",
                     "/he alth", "/../etc/passwd"):
        got = ask("POST", PATH, {"endpoint": endpoint})
        assert got.status in (400, 404), endpoint
    assert ask("POST", PATH, {"endpoint": "/health", "peers": ["two"]}).code == "unknown_peer"
    assert ask("POST", PATH, {"endpoint": "/v1/orders"}).status == 403
    assert page.asked == []
    admin = Caller(asker.api_port, make_key(asker, "ADMIN", "--role", "admin"))
    got = admin("POST", PATH, {"endpoint": "/v1/orders?symbol=BTC-USDT"})
    assert got.json["results"][0]["body"] == {"a": [1, 2]}
    assert page.asked == [("/v1/orders?symbol=BTC-USDT", None)]
    lonely = make_daemon("lonely").start()
    assert Caller(lonely.api_port)("POST", PATH, {"endpoint": "/health"}).code == "no_peers"
    assert "has no peers" in lonely.run("peers", "status").stdout


async def test_a_peer_that_comes_back_is_asked_again(page: Any, dead: str) -> None:
    peers = peers_of(f"one={page.url}", f"dead={dead}", retry_min_ms=1, retry_max_ms=5,
                     failures_max=2, cache_ms=0)
    try:
        for states in (("closed",), ("open",), ("open", "half_open")):
            part = (await peers.ask("/health", ["dead"]))[0]
            assert not part.ok and part.breaker in states
        # The address comes alive: the other server stands in for it from now on.
        peers._peers["dead"].url = page.url
        for _ in range(500):
            part = (await peers.ask("/stats", ["dead"]))[0]
            if part.ok:
                break
            await asyncio.sleep(0.01)
        assert (part.ok, part.breaker, bytes(part.body)) == (True, "closed", b'{"a": [1, 2]}')
        # The tries were about its health.
        assert {path for path, _ in page.asked} == {"/health", "/stats"}
    finally:
        await peers.close()


async def test_a_silent_peer_costs_its_time_out_and_then_nothing(silent: str, page: Any) -> None:
    peers = peers_of(f"silent={silent}", f"one={page.url}", timeout_ms=300, failures_max=1,
                     retry_min_ms=1, retry_max_ms=1)
    try:
        first = await peers.ask("/health")
        assert [part.ok for part in first] == [False, True]
        assert first[0].error == "no answer within 0.3 s"
        await until(lambda: peers._peers["silent"].state == "open")
        for _ in range(20):
            # A try goes on beside this, for as long as the time-out: nobody waits for it.
            part = (await peers.ask("/health", ["silent"]))[0]
            assert part.breaker in ("open", "half_open")
            assert part.error.startswith("it is left alone for a while: ")
            await asyncio.sleep(0.01)
        assert peers._peers["silent"].breaker.openings == 1
    finally:
        await peers.close()


async def test_questions_are_joined_and_remembered(page: Any) -> None:
    peers = peers_of(f"one={page.url}", cache_ms=60_000, cache_entries_max=2)
    try:
        page.open.clear()
        asking = [asyncio.create_task(peers.ask("/health")) for _ in range(30)]
        await until(lambda: page.asked)
        page.open.set()
        parts = [(await one)[0] for one in asking]
        assert all(part.ok for part in parts)
        assert len(page.asked) == 1
        assert (await peers.ask("/health"))[0].cached
        for path in ("/a", "/b"):
            assert not (await peers.ask(path))[0].cached
        # Two are kept, the oldest went.
        assert not (await peers.ask("/health"))[0].cached
        assert len(page.asked) == 4
    finally:
        await peers.close()


async def test_at_most_so_many_connections_to_one_peer(page: Any) -> None:
    peers = peers_of(f"one={page.url}", connections_per_host=3)
    try:
        page.open.clear()
        asking = [asyncio.create_task(peers.ask(f"/{number}")) for number in range(12)]
        await until(lambda: len(page.asked) == 3)
        await asyncio.sleep(0.05)
        assert len(page.asked) == 3
        page.open.set()
        parts = [(await one)[0] for one in asking]
        assert all(part.ok for part in parts)
        assert len(page.ports) <= 3
    finally:
        await peers.close()


async def test_odd_answers(page: Any, tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    peers = peers_of(f"one={page.url}", cache_ms=0, answer_max_bytes=1_000,
                     token_file=str(token))
    try:
        page.answer = 503, b'{"code": "unavailable"}'
        part = (await peers.ask("/x"))[0]
        assert (part.ok, part.status, part.error, part.breaker) == (False, 503, "", "closed")
        page.answer = 200, b"# HELP a\na 1\n"
        assert (await peers.ask("/x"))[0].body == "# HELP a\na 1\n"
        page.answer = 302, b"null"
        part = (await peers.ask("/x"))[0]
        assert (part.status, part.ok) == (302, False)
        page.answer = 200, b"9" * 1_001
        assert (await peers.ask("/x"))[0].error == "its answer has more than 1000 bytes"
        assert {token for _, token in page.asked} == {"Bearer secret"}
        assert {path for path, _ in page.asked} == {"/x"}
    finally:
        await peers.close()
    with pytest.raises(ConfigError, match=r"peers\.token_file"):
        peers_of(token_file=str(tmp_path / "none"))

"""The feed's port: limits, origins, plain pages, and the end of the venue."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
import websockets

from engine.feed.server import is_allowed
from tests.feed.flow import Flow
from tests.feed.peer import Peer
from tests.feed.raw import Raw
from tests.feed.venue import told, trade

pytestmark = pytest.mark.asyncio


async def page(raw: Raw, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of a plain request."""
    await raw.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = (await raw.until(b"\r\n\r\n")).decode()
    size = int(next(line for line in head.lower().split("\r\n")
                    if line.startswith("content-length:")).split(":")[1])
    body = b""
    if method != "HEAD":
        while len(raw._buffer) < size:
            raw._buffer += await raw.more()
        body, raw._buffer = raw._buffer[:size], raw._buffer[size:]
    return int(head.split()[1]), body


async def test_stats_and_clients(venue, connect) -> None:
    peer = await connect(venue)
    await peer.subscribe("book")
    await peer.subscribe("trades")
    await trade(venue, Flow(1))
    await told(venue)
    raw = await Raw.connect(venue.app.ports["feed"])
    status, body = await page(raw, "/stats")
    stats = json.loads(body)
    assert status == 200
    assert stats["active_connections"] == 1 and stats["pending_batch"] == 0
    assert stats["clients_dropped"] == 0 and 1 <= stats["avg_batch_size"] <= 2
    assert stats["total_messages"] >= stats["batches_sent"] > 0
    # The connection is kept.
    row, = json.loads((await page(raw, "/clients"))[1])["clients"]
    assert {"id", "address", "subscriptions", "messages_sent", "bytes_sent", "latency_ms",
            "queue_size", "dropped"} <= set(row)
    assert row["subscriptions"] == 2
    assert row["messages_sent"] == stats["total_messages"]
    assert (await page(raw, "/nothing"))[0] == 404
    assert (await page(raw, "/stats", "HEAD")) == (200, b"")
    assert (await page(raw, "/stats", "DELETE"))[0] == 405
    raw.close()


async def test_health_and_metrics_answer_on_this_port_too(venue) -> None:
    raw = await Raw.connect(venue.app.ports["feed"])
    status, body = await page(raw, "/health")
    assert status == 200 and json.loads(body)["status"] in ("healthy", "degraded")
    assert b"matchd_feed_clients" in (await page(raw, "/metrics"))[1]
    assert (await page(raw, "/api/v1/performance/status"))[0] == 200
    assert (await page(raw, "/v1/orders"))[0] == 404
    raw.close()


async def test_one_client_too_many_is_refused(make_venue, connect) -> None:
    venue = await make_venue(feed__clients_max=2)
    peers = [await connect(venue) for _ in range(2)]
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(venue)
    assert refused.value.response.status_code == 503
    await peers[0].close()
    while len(venue.app.feed.connected) > 1:
        await asyncio.sleep(0.01)
    assert (await (await connect(venue)).ask(op="ping"))["ok"]


async def test_origins() -> None:
    ours = "127.0.0.1:8001"
    assert is_allowed(None, ours, (), True)
    assert is_allowed("http://localhost:8000", ours, (), True)
    assert is_allowed("http://127.0.0.1:3000", ours, (), True)
    assert not is_allowed("https://example.org", ours, (), True)
    assert not is_allowed("null", ours, (), True)
    # A page that points its own name at this machine.
    assert not is_allowed("http://evil.example", "evil.example:8001", (), True)
    assert is_allowed("http://venue.example:8000", "venue.example:8001", (), False)
    assert not is_allowed("http://other.example", "venue.example:8001", (), False)
    assert is_allowed("https://example.org", ours, ("https://example.org",), True)
    assert not is_allowed("http://localhost", ours, ("https://example.org",), True)
    assert is_allowed("https://any.example", ours, ("*",), True)


async def test_a_venue_that_stops_says_so_after_its_last_words(make_venue, connect) -> None:
    venue = await make_venue(feed__batch_interval_ms=5_000)
    peer = await connect(venue)
    await peer.subscribe("bbo")
    venue.inside(lambda batch: batch.enter(1, 1, 1, "B", 1, 1_000_000))
    assert (await peer.get())["bid"] == ["100.0000", "1"]
    # This one waits for its tick, which comes early.
    venue.inside(lambda batch: batch.enter(1, 2, 1, "B", 1, 1_000_100))
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(venue.stop())
    assert (await peer.get())["bid"] == ["100.0100", "1"]
    await peer.socket.wait_closed()
    assert (peer.socket.close_code, peer.socket.close_reason) == (1001, "the venue stops")
    await asyncio.wait_for(stopping, 10)


async def test_the_daemon_serves_the_feed_and_goes_on_after_a_kill(make_daemon) -> None:
    daemon = await asyncio.to_thread(lambda: make_daemon().start())
    port = await asyncio.to_thread(lambda: daemon.feed_port)
    peer = await Peer.connect(port)
    answer = await peer.ask(op="subscribe", channel="trades", symbol="*")
    first = await peer.get()
    await asyncio.to_thread(daemon.kill)
    with pytest.raises(websockets.ConnectionClosed):
        while True:
            await peer.receive()
    await asyncio.to_thread(daemon.start)
    again = await Peer.connect(await asyncio.to_thread(lambda: daemon.feed_port))
    more = await again.ask(op="subscribe", channel="trades", symbol=first["symbol"],
                           resume_from=first["seq"], log=answer["log"])
    assert more["ok"] and more["log"] == answer["log"]
    await again.nothing(0.1)
    assert await asyncio.to_thread(daemon.stop, signal.SIGTERM) == 0
    await again.socket.wait_closed()
    assert again.socket.close_code == 1001

"""kill -9 of the daemon and of the Redis server at random moments: every entry done exactly once,
and answered exactly once.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.support.daemon import Daemon
from tests.support.redis import RedisServer

ACCOUNTS = ("MAKER1", "MAKER2", "TAKER1")
KILLS, KILLS_LONG = 8, 60
WAIT_S = 60.0


class Writer(threading.Thread):
    """One account's producer: orders that never trade, each entered, reduced, moved, canceled."""

    def __init__(self, server: RedisServer, kind: str, account: str, stop: threading.Event) -> None:
        super().__init__()
        self._server, self._kind, self._account, self._halt = server, kind, account, stop
        self._client = server.client(socket_timeout=5)
        self.chains = 0
        self.sent: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._halt.is_set():
                name = f"{self._account}-{self.chains}"
                order: dict[str, Any] = {"symbol": "AAPL", "side": "buy", "quantity": "10",
                                         "price": "100.00"}
                self._send(f"{name}-enter", client_order_id=name, **order)
                self._send(f"{name}-reduce", op="change", client_order_id=name, quantity="6")
                self._send(f"{name}-move", op="change", client_order_id=name, price="99.00")
                self._send(f"{name}-cancel", op="cancel", client_order_id=name)
                self.chains += 1
                time.sleep(0.002)
        except BaseException as error:
            self.error = error
            raise

    def _send(self, request_id: str, **fields: Any) -> None:
        raw = json.dumps({"account": self._account, "request_id": request_id, **fields})
        while True:
            try:
                if self._kind == "stream":
                    self._client.xadd("orders", {"order": raw})
                else:
                    self._client.rpush("orders", raw)
                break
            except redis.RedisError:
                if self._was_taken(raw.encode(), request_id.encode()):
                    break
        self.sent.append(request_id)

    def _was_taken(self, raw: bytes, request_id: bytes) -> bool:
        """Whether an entry whose answer was lost is in the server, done or not."""
        while True:
            try:
                # One transaction: an entry goes from the one to the other in one too.
                pipe: Any = self._client.pipeline(transaction=True)
                if self._kind == "stream":
                    pipe.xrange("orders")
                else:
                    pipe.lrange("orders", 0, -1)
                    pipe.lrange("orders:taken", 0, -1)
                pipe.xrevrange("orders:replies", count=5_000)
                *waiting, replies = pipe.execute()
                found = [fields[b"order"] for _, fields in waiting[0]] \
                    if self._kind == "stream" else [*waiting[0], *waiting[1]]
                return raw in found or any(fields.get(b"request_id") == request_id
                                           for _, fields in replies)
            except redis.RedisError:
                time.sleep(0.01)


@pytest.mark.parametrize("kind", ["stream", "list"])
def test_every_entry_is_done_and_answered_once(make_daemon: Callable[..., Daemon],
                                               make_redis: Callable[..., RedisServer], kind: str,
                                               long_profile: bool) -> None:
    chance = random.Random(f"kills {kind}")
    server = make_redis(appendonly="yes", appendfsync="always").start()
    daemon = make_daemon(
        redis__url=server.url, redis__order_queue="orders", redis__stream_entries_max=10_000_000,
        stores__retry_min_ms=10, stores__retry_max_ms=100, redis__batch_interval_ms=60_000).start()
    halt = threading.Event()
    writers = [Writer(server, kind, account, halt) for account in ACCOUNTS]
    for writer in writers:
        writer.start()
    for _ in range(KILLS_LONG if long_profile else KILLS):
        time.sleep(chance.uniform(0.1, 0.8))
        if chance.random() < 0.5:
            daemon.kill()
            daemon.start()
        else:
            server.kill()
            time.sleep(chance.uniform(0.0, 0.2))
            server.start()
    halt.set()
    for writer in writers:
        writer.join()
        assert writer.error is None
    wait_until_empty(server, kind)
    assert daemon.stop() == 0
    check_answers(server, writers)
    check_log(daemon, writers)
    assert daemon.run("journal", "verify").returncode == 0


def wait_until_empty(server: RedisServer, kind: str) -> None:
    client = server.client()
    deadline_s = time.monotonic() + WAIT_S
    while client.exists("orders:taken") or (
            client.xlen("orders") if kind == "stream" else client.llen("orders")):
        assert time.monotonic() < deadline_s, "entries are left"
        time.sleep(0.02)


def check_answers(server: RedisServer, writers: list[Writer]) -> None:
    replies: Any = server.client().xrange("orders:replies")
    answered = Counter(fields[b"request_id"].decode() for _, fields in replies)
    assert answered == Counter(one for writer in writers for one in writer.sent)
    assert {int(fields[b"status"]) for _, fields in replies} <= {200, 201}, [
        fields for _, fields in replies if int(fields[b"status"]) > 201][:3]


def check_log(daemon: Daemon, writers: list[Writer]) -> None:
    """Each order's life in the log: accepted, reduced, moved, canceled, nothing twice."""
    lives: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for line in daemon.run("journal", "dump").stdout.splitlines():
        event = json.loads(line)
        if event.get("origin", {}).get("source") != "redis":
            continue
        order_id = str(event["order_id"])
        if event["kind"] == "accepted":
            names[order_id] = event["client_order_id"]
        elif event["kind"] == "replaced":
            names[order_id] = names[str(event["orig_order_id"])]
        lives.setdefault(names[order_id], []).append(
            f"{event['kind']} {event.get('remaining_lots', '')}".strip())
    wanted = ["accepted", "canceled 6", "replaced", "canceled 0"]
    assert lives == {f"{writer._account}-{number}": wanted
                     for writer in writers for number in range(writer.chains)}
    assert sum(writer.chains for writer in writers) > 20

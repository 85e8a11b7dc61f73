"""The process of the order queue's load generator: one JSON job on stdin, one JSON answer.

A job: {"port": of the Redis server, "kind": "stream" | "list", "cpu": core or null, "in_flight",
"seconds", "warmup_seconds", "account", "symbol"}. The answer is {"figures": ..} or {"wrong": text}.

Closed loop: so many orders are kept unanswered. They buy and sell one lot at one price in turn, so
the book stays small. Every order must be answered once, with 201 and an order id of its own, and at
the end nothing may be left in the queue.
"""

import json
import os
import sys
import time
from typing import Any

import redis

QUEUE, REPLIES = "orders", "orders:replies"
PRICE = "10000.00"
# Orders of one write, answers of one read.
WRITE_MAX, READ_MAX = 250, 1_000
LAST_ANSWER_SECONDS = 60


class WrongAnswer(Exception):
    """The venue answered what it must not."""


class QueueLoad:
    """One producer that reads its answers too."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._redis: Any = redis.Redis(port=job["port"], socket_timeout=LAST_ANSWER_SECONDS)
        self._job = job
        self._run_id = f"{time.time_ns() // 1_000_000:x}"
        self._sent_at: list[float] = []
        self._answered = bytearray()
        self._order_ids: set[str] = set()
        self._last = b"0"
        self.got = 0
        self.latencies: list[float] = []

    def run(self) -> dict[str, Any]:
        """The whole run. Raises WrongAnswer."""
        # What an earlier run left is not ours to count.
        self._redis.delete(REPLIES)
        begin = time.monotonic()
        start, end = begin + self._job["warmup_seconds"], 0.0
        end = start + self._job["seconds"]
        got_before = 0
        while (now := time.monotonic()) < end:
            if not got_before and now >= start:
                start, got_before = now, self.got
                self.latencies.clear()
            self._write(min(WRITE_MAX, self._job["in_flight"] - len(self._sent_at) + self.got))
            self._read(10)
        seconds, counted = time.monotonic() - start, self.got - got_before
        times = sorted(self.latencies)
        self._finish()
        return {"per_second": counted / seconds, "orders": counted, "seconds": seconds,
                "latency": {name: 1e6 * times[int(part * (len(times) - 1))] for name, part in (
                    ("p50_us", 0.5), ("p99_us", 0.99), ("max_us", 1.0))} if times else {}}

    def _write(self, count: int) -> None:
        if count <= 0:
            return
        pipe = self._redis.pipeline(transaction=False)
        for number in range(len(self._sent_at), len(self._sent_at) + count):
            order = json.dumps({
                "account": self._job["account"], "symbol": self._job["symbol"],
                "side": "sell" if number % 2 else "buy", "quantity": 1, "price": PRICE,
                "client_order_id": f"{self._run_id}-{number}"})
            if self._job["kind"] == "stream":
                pipe.xadd(QUEUE, {"order": order})
            else:
                pipe.rpush(QUEUE, order)
        self._answered.extend(bytes(count))
        now = time.monotonic()
        self._sent_at += [now] * count
        pipe.execute()

    def _read(self, block_ms: int) -> None:
        for _, answers in self._redis.xread({REPLIES: self._last}, READ_MAX, block_ms) or ():
            now = time.monotonic()
            for self._last, answer in answers:
                self._check(answer, now)

    def _check(self, answer: dict[bytes, bytes], now: float) -> None:
        if answer[b"status"] != b"201":
            raise WrongAnswer(f"an order was answered with {answer}")
        run_id, _, number = answer[b"client_order_id"].decode().partition("-")
        order_id = json.loads(answer[b"body"])["order_id"]
        index = int(number)
        if run_id != self._run_id or self._answered[index]:
            raise WrongAnswer(f"order {number} was answered twice")
        if order_id in self._order_ids:
            raise WrongAnswer(f"order id {order_id} was given twice")
        self._answered[index] = 1
        self._order_ids.add(order_id)
        self.latencies.append(now - self._sent_at[index])
        self.got += 1

    def _finish(self) -> None:
        until = time.monotonic() + LAST_ANSWER_SECONDS
        while self.got < len(self._sent_at):
            if time.monotonic() > until:
                raise WrongAnswer(f"{len(self._sent_at) - self.got} orders were not answered")
            self._read(100)
        left = (self._redis.xlen(QUEUE) if self._job["kind"] == "stream"
                else self._redis.exists(QUEUE, f"{QUEUE}:taken"))
        if left:
            raise WrongAnswer(f"{left} entries are left in the queue")


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run. Wrong answers are an answer, not a crash."""
    if job.get("cpu") is not None:
        os.sched_setaffinity(0, {job["cpu"]})
    try:
        return {"figures": QueueLoad(job).run()}
    except WrongAnswer as wrong:
        return {"wrong": str(wrong)}


if __name__ == "__main__":
    json.dump(run_job(json.load(sys.stdin)), sys.stdout)

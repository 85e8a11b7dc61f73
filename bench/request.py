"""The process of the HTTP load generator: takes one JSON job on stdin, prints one JSON answer.

A job: {"host", "port", "cpu": core or null, "connections", "seconds", "warmup_seconds", "kind":
"orders" | "health", "client_ids": bool, "token": text or "", "signer": null | {"key", "secret"},
"any_answer": bool, "server_pid": process or 0, "order": {..}, "sides": [..], "tolerant": bool}.
The answer is {"figures": ..} or {"wrong": text}.

Orders buy and sell one lot at one price in turn: every other one trades with the one before, so
the book stays small however long a run is. `order` changes fields of them, `sides` their sides.
"tolerant" counts what went wrong; otherwise the first wrong answer ends the run.
"""

import hashlib
import hmac
import json
import os
import sys
import time
from typing import Any

from bench.httpload import COUNTER, HttpLoad, WrongAnswer

SYMBOL = "I00000"
PRICE = "10000.00"
# Signed requests are made before the run, for so many a second at most.
SIGNED_PER_SECOND = 40_000


def body(side: str, client_id: str, changes: dict[str, str] | None = None) -> bytes:
    """The order, with a client order id if there is one."""
    order = {"symbol": SYMBOL, "order_type": "limit", "side": side, "quantity": "1",
             "price": PRICE, "time_in_force": "gtc"} | (changes or {})
    if client_id:
        order["client_order_id"] = client_id
    return json.dumps(order).encode()


def request(method: str, path: str, content: bytes = b"", headers: str = "") -> bytes:
    """A whole request with keep-alive."""
    if content:
        headers += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode() + content


def signature(signer: dict[str, str], content: bytes, millis: int) -> str:
    """The headers of a signed POST /v1/orders."""
    text = f"{millis}\nPOST\n/v1/orders\n".encode() + content
    digest = hmac.digest(signer["secret"].encode(), text, hashlib.sha256).hex()
    return (f"X-MATCHD-KEY: {signer['key']}\r\nX-MATCHD-TIMESTAMP: {millis}\r\n"
            f"X-MATCHD-SIGNATURE: {digest}\r\n")


def order_requests(job: dict[str, Any]) -> list[bytes]:
    """What is sent in turn: two requests for ever, or a signed one for each order."""
    run_id = f"{time.time_ns() // 1_000_000:x}"
    sides = ("buy", "sell")
    if job.get("signer"):
        millis = time.time_ns() // 1_000_000
        count = int(SIGNED_PER_SECOND * (job["seconds"] + job["warmup_seconds"])) + 1000
        bodies = [body(sides[index % 2], f"{run_id}-{index}") for index in range(count)]
        return [request("POST", "/v1/orders", content, signature(job["signer"], content, millis))
                for content in bodies]
    client_id = f"{run_id}-{COUNTER.decode()}" if job.get("client_ids") else ""
    token = f"Authorization: Bearer {job['token']}\r\n" if job.get("token") else ""
    return [request("POST", "/v1/orders", body(side, client_id, job.get("order")), token)
            for side in job.get("sides", sides)]


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Connect and run. Wrong answers are an answer, not a crash."""
    if job.get("cpu") is not None:
        os.sched_setaffinity(0, {job["cpu"]})
    orders = job["kind"] == "orders"
    requests = order_requests(job) if orders else [request("GET", "/health")]
    checks = orders and not job.get("any_answer")
    load = HttpLoad(job["host"], job["port"], job["connections"], requests,
                    expect=201 if orders else 200, once=bool(job.get("signer")),
                    ids_after=b'"order_id":"' if checks else b"",
                    server_pid=job.get("server_pid", 0), tolerant=job.get("tolerant", False))
    try:
        load.connect()
        return {"figures": load.run(job["seconds"], warmup_seconds=job["warmup_seconds"])}
    except WrongAnswer as wrong:
        return {"wrong": str(wrong)}


if __name__ == "__main__":
    json.dump(run_job(json.load(sys.stdin)), sys.stdout)

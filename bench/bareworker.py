"""The anchor of the order queue: takes entries of a stream and answers them, and does nothing else.

    python -m bench.bareworker PORT BODY_BYTES

The same client, the same reads of up to 500, the same transaction of answers, acknowledgements and
deletions as the venue's; no order is checked, matched or made durable.
"""

import asyncio
import itertools
import json
import sys
from typing import Any

import uvloop
from redis.asyncio import Redis
from redis.exceptions import ResponseError

QUEUE, REPLIES, GROUP = "orders", "orders:replies", "bare"
READ_MAX = 500
WAIT_MS = 1_000


async def main(port: int, body_bytes: int) -> None:
    """Answer for ever; one transaction is under way while the next read is."""
    redis: Any = Redis(port=port, protocol=2)
    while not await redis.exists(QUEUE):
        await asyncio.sleep(0.01)
    try:
        await redis.xgroup_create(QUEUE, GROUP, id="0")
    except ResponseError:
        pass
    numbers = itertools.count(1)
    answering: asyncio.Task[None] | None = None
    while True:
        found = await redis.xreadgroup(GROUP, "one", {QUEUE: ">"}, READ_MAX, WAIT_MS)
        for _, entries in found:
            if answering is not None:
                await answering
            answering = asyncio.create_task(answer(redis, entries, numbers, body_bytes))


async def answer(redis: Any, entries: list[Any], numbers: Any, body_bytes: int) -> None:
    """Answer the entries of one read."""
    pipe = redis.pipeline(transaction=True)
    for key, fields in entries:
        order = json.loads(fields[b"order"])
        body = f'{{"order_id":"{next(numbers)}"'
        pipe.xadd(REPLIES, {
            "status": 201, "body": body + " " * (body_bytes - len(body) - 1) + "}", "entry": key,
            "account": order["account"], "op": "enter",
            "client_order_id": order["client_order_id"]}, maxlen=10_000, approximate=True)
    keys = [key for key, _ in entries]
    pipe.xack(QUEUE, GROUP, *keys)
    pipe.xdel(QUEUE, *keys)
    await pipe.execute()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))

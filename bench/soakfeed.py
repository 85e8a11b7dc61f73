"""A feed client of the soak, in a process of its own: does it see everything, once and in order?

Takes one JSON job on stdin: {"host", "port", "config": the venue's file, "cpu": core or null}. It
subscribes to books, best prices and trades of every instrument with the Python client, which checks
that each message follows the one before and that each book has the venue's checksum. A first line
{"ready": true} says that it is subscribed. When a second line with a `seq` comes on stdin, it waits
until the feed has passed it and nothing more comes, and answers with what it saw: {"messages",
"trades", "quantity": lots, "snapshots": those behind the first ones, "holes", "reconnects",
"unlike": books that are not empty}.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine import config
from engine.clients import FeedClient

CHANNELS = ("book", "bbo", "trades")
# The feed is silent when nothing came for so long.
SILENT_SECONDS = 0.5
PASS_SECONDS = 60.0


class Watcher:
    """Reads and counts."""

    def __init__(self, client: FeedClient) -> None:
        self._client = client
        self.counts: Counter[str] = Counter()
        self.quantity = Decimal(0)
        self.arrived = asyncio.Event()

    async def read_for_ever(self) -> None:
        """Count every message."""
        async for message in self._client:
            self.arrived.set()
            kind = message["type"]
            self.counts["messages"] += 1
            self.counts["snapshots"] += kind == "snapshot"
            self.counts["resets"] += kind == "reset"
            if message["channel"] == "trades" and kind == "update":
                self.counts["trades"] += len(message["trades"])
                self.quantity += sum(Decimal(one["quantity"]) for one in message["trades"])

    async def drain(self, seq: int) -> None:
        """Wait until the feed has passed a seq and is silent. Raises TimeoutError."""
        async with asyncio.timeout(PASS_SECONDS):
            while (await self._client.ping())["seq"] < seq:
                await asyncio.sleep(0.05)
            while True:
                self.arrived.clear()
                try:
                    await asyncio.wait_for(self.arrived.wait(), SILENT_SECONDS)
                except TimeoutError:
                    return


def _line() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sys.stdin.readline() or "{}")
    return found


async def watch(job: dict[str, Any]) -> dict[str, Any]:
    """Subscribe, read until told, and say what came."""
    instruments = config.load_settings(Path(job["config"])).instruments
    names = [one.symbol for one in instruments]
    client = FeedClient(job["host"], job["port"], instruments=instruments,
                        reconnect_for_s=0, backlog_max=1 << 20)
    async with client:
        for channel in CHANNELS:
            await client.subscribe(channel, "*")
        watcher = Watcher(client)
        reading = asyncio.create_task(watcher.read_for_ever())
        print(json.dumps({"ready": True}), flush=True)
        end = await asyncio.to_thread(_line)
        wrong = ""
        try:
            await watcher.drain(end["seq"])
        except TimeoutError:
            wrong = f"the feed did not come to seq {end['seq']} in {PASS_SECONDS:g} s"
        if reading.done():
            wrong = str(reading.exception() or "the feed ended")
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await reading
        books = [client.book(name) for name in names]
        return {**dict.fromkeys(("messages", "trades", "resets"), 0), **watcher.counts,
                "snapshots": watcher.counts["snapshots"] - len(CHANNELS) * len(names),
                "quantity": str(watcher.quantity), "repairs": client.repairs, "wrong": wrong,
                "levels_left": sum(len(book.bids) + len(book.asks) for book in books)}


if __name__ == "__main__":
    given = _line()
    if given.get("cpu") is not None:
        os.sched_setaffinity(0, {given["cpu"]})
    print(json.dumps(asyncio.run(watch(given))), flush=True)

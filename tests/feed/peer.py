"""A feed client that shares no WebSocket or MessagePack code with the feed: packages websockets and
msgpack. It checks the order of what it gets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import lz4.block
import msgpack
import websockets

WAIT_S = 60.0


class Peer:
    """One connection. `get` gives the messages that are no answers, `ask` an answer."""

    def __init__(self, socket: Any, encoding: str) -> None:
        self.socket = socket
        self.encoding = encoding
        self.messages: list[dict[str, Any]] = []
        self._number = 0

    @classmethod
    async def connect(cls, port: int, encoding: str = "json", **options: Any) -> Peer:
        """Connect to the feed on this port."""
        options = {"compression": None, "max_size": None, "max_queue": None} | options
        socket = await websockets.connect(f"ws://127.0.0.1:{port}/?encoding={encoding}",
                                          **options)
        return cls(socket, encoding)

    async def close(self) -> None:
        """Close the connection."""
        await self.socket.close()

    def decode(self, data: str | bytes) -> dict[str, Any]:
        """One message, whatever the encoding."""
        if self.encoding == "json":
            assert isinstance(data, str)
            return json.loads(data)
        assert isinstance(data, bytes)
        if self.encoding == "msgpack-lz4":
            kind, data = data[0], data[1:]
            if kind == 1:
                data = lz4.block.decompress(data)
            else:
                assert kind == 0
        return msgpack.unpackb(data)

    async def send(self, **request: Any) -> None:
        """Send a request as this encoding does."""
        await self.socket.send(json.dumps(request) if self.encoding == "json"
                               else msgpack.packb(request))

    async def receive(self) -> dict[str, Any]:
        """The next message, answer or not."""
        return self.decode(await asyncio.wait_for(self.socket.recv(), WAIT_S))

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer; other messages are kept for `get`."""
        self._number += 1
        request = {"id": self._number} | request
        await self.send(**request)
        while True:
            message = await self.receive()
            if "ok" in message and message["id"] == request["id"]:
                return message
            self.messages.append(message)

    async def get(self) -> dict[str, Any]:
        """The next message that is no answer."""
        return self.messages.pop(0) if self.messages else await self.receive()

    async def subscribe(self, channel: str, symbol: str = "AAPL", **more: Any) -> dict[str, Any]:
        """Subscribe to one symbol; returns the snapshot."""
        answer = await self.ask(op="subscribe", channel=channel, symbol=symbol, **more)
        assert answer["ok"], answer
        return await self.get()

    async def nothing(self, seconds: float = 0.2) -> None:
        """Nothing comes for so long."""
        assert not self.messages
        try:
            data = await asyncio.wait_for(self.socket.recv(), seconds)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected: {data!r}")

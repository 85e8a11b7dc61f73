"""Servers beside which the feed is measured: the same number and size of messages, and no venue.

`websockets` is what a Python programmer would take: the library's own broadcast(), on uvloop, no
compression. `picows` writes a tick's frames to each client in one write: the most that a
server in Python can deliver, and the feed's ceiling. Each byte on the tick port is one tick: five
messages to every client, with the seq and prev_seq that the reader checks.
"""

import argparse
import asyncio
import contextlib
import socket
from collections.abc import Callable

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server
from websockets.asyncio.server import ServerConnection, broadcast, serve

HOST = "127.0.0.1"
BACKLOG = 4096
# How far seq moves in each tick, so that the figures have as many digits as a venue's.
SEQ_STEP = 20


class Messages:
    """The texts of ticks, each about `size` bytes, for `chains` symbols."""

    def __init__(self, size: int, chains: int) -> None:
        self.size, self.chains = size, chains
        self.seq = 1_000_000

    def snapshots(self) -> list[str]:
        """What a new client is told first."""
        return [self._text(chain, 0, "snapshot") for chain in range(self.chains)]

    def tick(self) -> list[str]:
        """The next tick's messages."""
        before, self.seq = self.seq, self.seq + SEQ_STEP
        return [self._text(chain, before, "delta") for chain in range(self.chains)]

    def _text(self, chain: int, before: int, type: str) -> str:
        text = (f'{{"channel":"book","symbol":"I{chain:05d}","seq":{self.seq},"prev_seq":{before},'
                f'"time":1760000000000000000,"type":"{type}","rest":"')
        return text + "x" * (self.size - len(text) - 2) + '"}'


class TickPort(asyncio.Protocol):
    """Calls `tick` for each byte that comes."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick

    def data_received(self, data: bytes) -> None:
        """One tick a byte."""
        for _ in data:
            self.tick()


async def serve_websockets(messages: Messages, listener: socket.socket) -> Callable[[], None]:
    """Start the library's server. Returns what makes a tick."""
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        for text in messages.snapshots():
            await connection.send(text)
        connections.add(connection)
        with contextlib.suppress(Exception):
            await connection.wait_closed()
        connections.discard(connection)

    def tick() -> None:
        for text in messages.tick():
            broadcast(connections, text)

    await serve(handle, sock=listener, compression=None, ping_interval=None, backlog=BACKLOG)
    return tick


class Connected(WSListener):  # type: ignore[misc]
    """A client of the picows server."""

    def __init__(self, messages: Messages, connections: set[WSTransport]) -> None:
        self.messages, self.connections = messages, connections

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Tell it where everything stands."""
        for text in self.messages.snapshots():
            transport.send(WSMsgType.TEXT, text.encode())
        self.connections.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Requests mean nothing here."""

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget it."""
        self.connections.discard(transport)


def framed(text: str) -> bytes:
    """A whole text frame of a server."""
    data = text.encode()
    if len(data) < 126:
        return bytes((0x81, len(data))) + data
    return b"\x81\x7e" + len(data).to_bytes(2, "big") + data


async def serve_picows(messages: Messages, listener: socket.socket) -> Callable[[], None]:
    """Start the bare server. Returns what makes a tick."""
    connections: set[WSTransport] = set()

    def connected(request: WSUpgradeRequest) -> WSListener:
        return Connected(messages, connections)

    def tick() -> None:
        joined = b"".join(map(framed, messages.tick()))
        for transport in connections:
            transport.underlying_transport.write(joined)

    server = await ws_create_server(connected, sock=listener, backlog=BACKLOG)
    await server.start_serving()
    return tick


async def run(kind: str, listener: socket.socket, ticks: socket.socket,
              messages: Messages) -> None:
    """Serve until the process is stopped."""
    start = serve_websockets if kind == "websockets" else serve_picows
    tick = await start(messages, listener)
    server = await asyncio.get_running_loop().create_server(lambda: TickPort(tick), sock=ticks)
    await server.serve_forever()


def main() -> None:
    """Serve on free ports; the first line says them: clients, ticks."""
    parser = argparse.ArgumentParser(prog="bench.broadcast", description=__doc__)
    parser.add_argument("kind", choices=["websockets", "picows"])
    parser.add_argument("--message-bytes", type=int, default=200)
    parser.add_argument("--chains", type=int, default=5)
    chosen = parser.parse_args()
    messages = Messages(chosen.message_bytes, chosen.chains)
    listener, ticks = (socket.create_server((HOST, 0), backlog=BACKLOG) for _ in range(2))
    print(listener.getsockname()[1], ticks.getsockname()[1], flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(run(chosen.kind, listener, ticks, messages))


if __name__ == "__main__":
    main()

"""Echo servers: what a connection can carry when the server does nothing.

`c` reads and writes in C on blocking sockets: the ceiling of the load generator and the kernel.
`uvloop` is the least that a server on the daemon's event loop can do: the floor of a round trip.
"""

import argparse
import asyncio
import contextlib
import socket
from typing import cast

import uvloop

from bench.anchors import echo

READ_BYTES = 1 << 18


class EchoProtocol(asyncio.BufferedProtocol):
    """Writes back what it reads, from one buffer, as the daemon's intake reads."""

    def __init__(self) -> None:
        self.buffer = bytearray(READ_BYTES)
        self.view = memoryview(self.buffer)
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop sets TCP_NODELAY by itself."""
        self.transport = cast(asyncio.WriteTransport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The one buffer."""
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        """Write a copy back: the buffer is read into again at once."""
        if self.transport is not None:
            self.transport.write(bytes(self.view[:nbytes]))


async def serve_uvloop(listener: socket.socket) -> None:
    """Serve until the process is stopped."""
    server = await asyncio.get_running_loop().create_server(EchoProtocol, sock=listener)
    await server.serve_forever()


def serve_c(listener: socket.socket) -> None:
    """Serve one connection after the other until the process is stopped."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            echo(connection.fileno())


def main() -> None:
    """Listen on a free port, print it, serve."""
    parser = argparse.ArgumentParser(prog="bench.echo", description=__doc__)
    parser.add_argument("kind", choices=["c", "uvloop"])
    kind = parser.parse_args().kind
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        if kind == "c":
            serve_c(listener)
        else:
            uvloop.run(serve_uvloop(listener))


if __name__ == "__main__":
    main()

"""Echo servers: what a connection can carry when the server does nothing.

`c` reads and writes in C on blocking sockets: the ceiling of the load generator and the kernel.
`uvloop` is the least that a server on the daemon's event loop can do: the floor of a round trip.
`udp-c` and `udp-uvloop` are the same for datagrams; the one in C reads and writes many in one call.
"""

import argparse
import asyncio
import contextlib
import socket
from typing import cast

import uvloop

from bench.anchors import echo, echo_datagrams

READ_BYTES = 1 << 18
# As much as the daemon asks for: what comes while the server is busy is not lost.
DATAGRAMS_BYTES = 4 * 2**20


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


class EchoDatagrams(asyncio.DatagramProtocol):
    """Sends back each datagram."""

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send it back."""
        if self.transport is not None:
            self.transport.sendto(data, addr)


async def serve_udp_uvloop(sock: socket.socket) -> None:
    """Serve until the process is stopped."""
    await asyncio.get_running_loop().create_datagram_endpoint(EchoDatagrams, sock=sock)
    await asyncio.Event().wait()


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


def listen(kind: str) -> socket.socket:
    """A socket of that kind of server on a free port."""
    if not kind.startswith("udp"):
        return socket.create_server(("127.0.0.1", 0))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, DATAGRAMS_BYTES)
    sock.bind(("127.0.0.1", 0))
    return sock


def main() -> None:
    """Listen on a free port, print it, serve."""
    parser = argparse.ArgumentParser(prog="bench.echo", description=__doc__)
    parser.add_argument("kind", choices=["c", "uvloop", "udp-c", "udp-uvloop"])
    kind = parser.parse_args().kind
    sock = listen(kind)
    print(sock.getsockname()[1], flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        if kind == "c":
            serve_c(sock)
        elif kind == "udp-c":
            echo_datagrams(sock.fileno())
        elif kind == "uvloop":
            uvloop.run(serve_uvloop(sock))
        else:
            uvloop.run(serve_udp_uvloop(sock))


if __name__ == "__main__":
    main()

"""A UDP socket that is connected to the venue and read many datagrams at a time."""

import asyncio
import errno
import socket
from typing import Protocol

# A burst of the venue that comes while the loop is busy; the kernel may allow less.
RECEIVE_BUFFER_BYTES = 4 * 2**20
DATAGRAM_BYTES_MAX = 65_535
# So many are read before others have their turn.
DATAGRAMS_AT_ONCE = 64
NO_ROOM = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)


class Receiver(Protocol):
    """Who gets what comes."""

    def received(self, datagrams: list[bytes]) -> None:
        """Datagrams of the venue."""

    def refused(self, error: OSError) -> None:
        """The kernel learned that nobody is there."""


class DatagramSocket:
    """Connected, so the kernel drops datagrams of everybody else. Use `open_socket`."""

    def __init__(self, bound: socket.socket, place: str) -> None:
        """`place` is HOST:PORT of the venue, for those who read of it."""
        self.place = place
        self._loop = asyncio.get_running_loop()
        self._socket = bound
        self._reading = False
        self.closed = False
        self.receiver: Receiver | None = None
        self.resume()

    def send(self, datagram: bytes) -> None:
        """Send, or drop it as the network might: when there is no room, or nobody is there."""
        if self.closed:
            return
        try:
            self._socket.send(datagram)
        except OSError as error:
            if error.errno not in NO_ROOM:
                self._tell(error)

    def pause(self) -> None:
        """Read nothing; what the kernel can't keep is lost."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        if not self._reading and not self.closed:
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._read)

    @property
    def is_reading(self) -> bool:
        return self._reading

    def close(self) -> None:
        if not self.closed:
            self.pause()
            self.closed = True
            self.receiver = None
            self._socket.close()

    def _read(self) -> None:
        datagrams: list[bytes] = []
        fault: OSError | None = None
        try:
            while len(datagrams) < DATAGRAMS_AT_ONCE:
                datagrams.append(self._socket.recv(DATAGRAM_BYTES_MAX))
        except BlockingIOError:
            pass
        except OSError as error:
            fault = error
        if datagrams and self.receiver is not None:
            self.receiver.received(datagrams)
        if fault is not None:
            self._tell(fault)

    def _tell(self, error: OSError) -> None:
        if self.receiver is not None:
            self.receiver.refused(error)


async def open_socket(host: str, port: int) -> DatagramSocket:
    """A socket to the first address of `host` that a socket can be made for. Raises OSError."""
    loop = asyncio.get_running_loop()
    fault: OSError | None = None
    for family, _, _, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        made = socket.socket(family, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            made.connect(address)
            return DatagramSocket(made, f"{host}:{port}")
        except OSError as error:
            made.close()
            fault = error
    raise fault or OSError(f"{host} has no address")

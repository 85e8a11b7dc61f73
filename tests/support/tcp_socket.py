"""A blocking SoupBinTCP socket, for tests that speak both transports without a loop."""

from __future__ import annotations

import socket

from cython_core.soupbin import PacketReader

WAIT_S = 60.0


class TcpSocket:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self._reader = PacketReader("server")
        self._packets: list[tuple[str, bytes]] = []

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def packet(self) -> tuple[str, bytes]:
        """The next packet that is no heartbeat. Raises EOFError at the end."""
        while not self._packets:
            data = self._socket.recv(65_536)
            if not data:
                raise EOFError
            self._packets += [packet for packet in self._reader.feed(data) if packet[0] != "H"]
        return self._packets.pop(0)

    def sequenced(self) -> bytes:
        """The next sequenced message."""
        kind, payload = self.packet()
        assert kind == "S", kind
        return payload

    def ended(self) -> bool:
        """Whether the venue closes the connection, without another packet."""
        try:
            self.packet()
        except (EOFError, ConnectionResetError):
            return True
        return False

    def close(self) -> None:
        self._socket.close()

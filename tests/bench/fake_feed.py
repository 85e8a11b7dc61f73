"""A feed that ticks on request, cuts its bytes as told, and can be told to be wrong."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

SEQ_STEP = 10
Twist = Callable[[int, dict[str, Any]], Any]
GREETING = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def honest(tick: int, message: dict[str, Any]) -> Any:
    """Send the message as it should be."""
    return message


def frame(data: bytes, first: int = 0x81) -> bytes:
    """A server's frame."""
    if len(data) < 126:
        return bytes((first, len(data))) + data
    if len(data) < 65536:
        return bytes((first, 126)) + len(data).to_bytes(2, "big") + data
    return bytes((first, 127)) + len(data).to_bytes(8, "big") + data


class FakeFeed:
    """Two chains. Each byte on `tick_port` moves them by SEQ_STEP and is told to all clients.

    `twist` may change each message of a tick, or make bytes (frames) of it. `cut`: bytes of each
    write. `rest`: bytes of filling in each message.
    """

    chains = 2

    def __init__(self, twist: Twist = honest, cut: int = 1 << 20, rest: int = 20,
                 upgrade: bytes = b"101 Switching Protocols") -> None:
        self.twist, self.cut, self.rest, self.upgrade = twist, cut, rest, upgrade
        self.seq = 5_000
        self.ticks = 0
        self.clients: list[socket.socket] = []
        self.received = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.tick_listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.tick_port = self.tick_listener.getsockname()[1]
        for target in (self._accept, self._take_ticks):
            threading.Thread(target=target, daemon=True).start()

    def stop(self) -> None:
        """Take no more connections."""
        self.listener.close()
        self.tick_listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + GREETING).digest())
            first = b"".join(frame(self._text(chain, 0, "snapshot", 0))
                             for chain in range(self.chains))
            # A tick must find every client that knows itself connected.
            self.clients.append(client)
            self._send(client, b"HTTP/1.1 %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: %b\r\n\r\n" % (self.upgrade, accept) + first)
            while data := client.recv(4096):
                self.received += data

    def _take_ticks(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self.tick_listener.accept()
            while data := connection.recv(4096):
                for _ in data:
                    self._tick()

    def _tick(self) -> None:
        before, self.seq = self.seq, self.seq + SEQ_STEP
        self.ticks += 1
        joined = b"".join(frame(self._text(chain, before, "delta", self.ticks))
                          for chain in range(self.chains))
        for client in self.clients:
            self._send(client, joined)

    def _text(self, chain: int, before: int, kind: str, tick: int) -> bytes:
        message: Any = {"channel": "book", "symbol": f"S{chain}", "seq": self.seq,
                        "prev_seq": before, "type": kind, "rest": "x" * self.rest}
        if tick:
            message = self.twist(tick, message)
        return message if isinstance(message, bytes) else json.dumps(
            message, separators=(",", ":")).encode()

    def _send(self, client: socket.socket, data: bytes) -> None:
        for start in range(0, len(data), self.cut):
            client.sendall(data[start:start + self.cut])

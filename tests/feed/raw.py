"""A feed client by hand: a plain socket that says and leaves out what no library would."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

HANDSHAKE = (b"GET /%b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
             b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
             b"Sec-WebSocket-Version: 13\r\n%b\r\n")


def frame(payload: bytes, opcode: int = 1, fin: bool = True, masked: bool = True,
          bits: int = 0) -> bytes:
    """One frame as a client sends it."""
    head = bytes([(0x80 if fin else 0) | bits | opcode])
    flag, size = 0x80 if masked else 0, len(payload)
    if size < 126:
        head += bytes([flag | size])
    elif size < 65_536:
        head += bytes([flag | 126]) + struct.pack(">H", size)
    else:
        head += bytes([flag | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


class Raw:
    """A connection without any rules."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        self._buffer = b""

    @classmethod
    async def connect(cls, port: int, receive_bytes: int = 0) -> Raw:
        """A connection that has said nothing yet."""
        peer = socket.socket()
        if receive_bytes:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
        return cls(peer)

    @classmethod
    async def upgraded(cls, port: int, receive_bytes: int = 0) -> Raw:
        """A connection after its handshake."""
        raw = await cls.connect(port, receive_bytes)
        await raw.send(HANDSHAKE % (b"", b""))
        head = await raw.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return raw

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def request(self, **request: Any) -> None:
        """Send a request."""
        await self.send(frame(json.dumps(request).encode()))

    async def more(self) -> bytes:
        """What comes next; b"" at the end."""
        try:
            return await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(self.socket, 65_536), 10)
        except ConnectionError:
            return b""

    async def until(self, end: bytes) -> bytes:
        """Everything up to these bytes."""
        while end not in self._buffer:
            data = await self.more()
            assert data, "the connection ended"
            self._buffer += data
        found, _, self._buffer = self._buffer.partition(end)
        return found + end

    async def frames(self) -> list[tuple[int, bytes]]:
        """Every frame until the connection ends: opcode and payload."""
        while data := await self.more():
            self._buffer += data
        found, buffer = [], self._buffer
        while len(buffer) >= 2:
            size, start = buffer[1], 2
            if size == 126:
                size, start = struct.unpack(">H", buffer[2:4])[0], 4
            elif size == 127:
                size, start = struct.unpack(">Q", buffer[2:10])[0], 10
            found.append((buffer[0] & 15, buffer[start:start + size]))
            buffer = buffer[start + size:]
        return found

    async def closed(self) -> tuple[int, str]:
        """Read to the end: the code and reason of the close frame; (0, "") without one."""
        for opcode, payload in await self.frames():
            if opcode == 8:
                return struct.unpack(">H", payload[:2])[0], payload[2:].decode()
        return 0, ""

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

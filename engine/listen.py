"""How every door listens. With TLS, handshakes are a room of their own in front of the door: who is
shaking hands is no connection yet, and must not hold anything for long or in numbers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

# Who does not finish a handshake by then is cut.
HANDSHAKE_S = 10.0
# So many handshakes at once at a door; with one more, the one that has taken longest is cut.
HANDSHAKES_MAX = 256
# After a connection could not be accepted: no descriptor may be left for it.
AGAIN_S = 0.05

Factory = Callable[[], asyncio.BaseProtocol]


class TlsServer:
    """Accepts connections and has them shake hands before a protocol sees them. As far as we use
    it, it is an asyncio.Server."""

    def __init__(self, listeners: Sequence[socket.socket], factory: Factory,
                 context: ssl.SSLContext) -> None:
        self.sockets = listeners
        self._factory = factory
        self._context = context
        # In the order they began.
        self._shaking: dict[asyncio.Task[None], socket.socket] = {}
        loop = asyncio.get_running_loop()
        self._accepting = [loop.create_task(self._accept(one), name="accept") for one in listeners]

    @property
    def handshakes(self) -> int:
        """How many shake hands now."""
        return len(self._shaking)

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._accepting)

    def close(self) -> None:
        """Accept no more, and cut who shakes hands."""
        for task in (*self._accepting, *self._shaking):
            task.cancel()
        self._accepting = []
        for listener in self.sockets:
            listener.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(AGAIN_S)
                continue
            while len(self._shaking) >= HANDSHAKES_MAX:
                longest = next(iter(self._shaking))
                self._ended(longest)
                longest.cancel()
            task = loop.create_task(self._shake(connection), name="handshake")
            self._shaking[task] = connection
            task.add_done_callback(self._ended)

    async def _shake(self, connection: socket.socket) -> None:
        # A client that is gone, that speaks no TLS or shows the wrong certificate.
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        connection = self._shaking.pop(task, None)
        if connection is not None and (not task.done() or task.cancelled()):
            # Also that of a task that had not begun.
            connection.close()


async def listen(factory: Factory, host: str, port: int, backlog: int,
                 tls: ssl.SSLContext | None = None, handed: socket.socket | None = None) -> Any:
    """Listen on an address, or on a socket that was handed over. Raises OSError."""
    loop = asyncio.get_running_loop()
    where: dict[str, Any] = {"host": host, "port": port} if handed is None else {"sock": handed}
    if tls is None:
        return await loop.create_server(factory, backlog=backlog, **where)
    # The loop knows how addresses are bound.
    bound = await loop.create_server(factory, backlog=backlog, start_serving=False, **where)
    listeners = [socket.socket(fileno=os.dup(one.fileno())) for one in bound.sockets]
    bound.close()
    for listener in listeners:
        listener.setblocking(False)
        listener.listen(backlog)
    return TlsServer(listeners, factory, tls)

"""A TCP proxy that fails on demand: it cuts, stalls, delays and refuses connections.

It runs in a thread with a loop of its own, so that tests may call it from anywhere and a busy loop
of the test does not disturb it.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK_BYTES = 2**16
# What a client of PostgreSQL asks before it speaks TLS, and what a server that does answers.
PG_ASKS_TLS = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


class FlakyProxy:
    """Passes connections on to `target`, a (host, port) or the path of a unix socket, until it is
    told otherwise. With `tls` it is the TLS end of a PostgreSQL server that has none."""

    def __init__(self, target: tuple[str, int] | str, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.accepted = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._target = target
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay_s = 0.0
        self._cut_after: int | None = None
        self._open: dict[bool, asyncio.Event] = {}

    def start(self) -> FlakyProxy:
        """Listen on a free port of 127.0.0.1; after `refuse` on the same one again."""
        if not self._thread.is_alive():
            self._thread.start()
        self._call(self._listen())
        return self

    def cut(self) -> None:
        """End all connections at once, without a word (a reset); new ones pass."""
        self._call(self._cut())

    def refuse(self) -> None:
        """Cut, and refuse new connections until `start` or `heal`."""
        self._call(self._refuse())

    def stall(self, up: bool = True, down: bool = True) -> None:
        """Nothing passes any more towards the server (`up`) or from it (`down`); connections stay
        open and new ones are taken. With `down` alone the server works, its answers are lost."""
        self._call(self._stall(up, down))

    def delay(self, seconds: float) -> None:
        """Every piece is passed on so much later."""
        self._delay_s = seconds

    def cut_after(self, bytes_up: int) -> None:
        """Cut all connections once so many more bytes went towards the server: reached only in
        part, it sees the beginning of a message."""
        self._cut_after = bytes_up

    def heal(self) -> None:
        """Everything passes again. What was stalled goes on; after `refuse` it listens again."""
        self._delay_s, self._cut_after = 0.0, None
        self._call(self._stall(False, False))
        if self._server is None:
            self._call(self._listen())

    def close(self) -> None:
        """End everything."""
        if self._thread.is_alive():
            self._call(self._refuse())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        if not self._open:
            self._open = {True: asyncio.Event(), False: asyncio.Event()}
            await self._stall(False, False)
        if self._server is None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writers.clear()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _stall(self, up: bool, down: bool) -> None:
        for upwards, stalled in ((True, up), (False, down)):
            if stalled:
                self._open[upwards].clear()
            else:
                self._open[upwards].set()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = self._loop.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        pumps: list[asyncio.Task[None]] = []
        self._writers.add(writer)
        try:
            first = b"" if self._tls is None else await secured(self._tls, reader, writer)
            there, back = await self._connect()
            writers.append(back)
            self._writers.add(back)
            back.write(first)
            pumps = [self._loop.create_task(self._pump(reader, back, True)),
                     self._loop.create_task(self._pump(there, writer, False))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            for each in writers:
                each.transport.abort()
                self._writers.discard(each)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                    upwards: bool) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._open[upwards].wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if upwards and self._cut_after is not None:
                    data, self._cut_after = data[:self._cut_after], self._cut_after - len(data)
                if upwards:
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
                writer.write(data)
                await writer.drain()
                if upwards and self._cut_after is not None and self._cut_after <= 0:
                    self._cut_after = None
                    for each in list(self._writers):
                        each.transport.abort()
        except OSError:
            pass


async def secured(tls: ssl.SSLContext, reader: asyncio.StreamReader,
                  writer: asyncio.StreamWriter) -> bytes:
    """Begin TLS as a PostgreSQL server does when it is asked to; returns what was read of a
    client that speaks without."""
    first = await reader.readexactly(len(PG_ASKS_TLS))
    if first != PG_ASKS_TLS:
        return first
    writer.write(b"S")
    await writer.start_tls(tls)
    return b""

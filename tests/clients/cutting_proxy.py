"""A TCP proxy that cuts connections at random bytes, in either direction."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType


class CuttingProxy:
    """Stands before a venue on `port_upstream`, which may change while it runs.

    Each connection is cut after a random number of bytes up to `bytes_max`; 0 never cuts.
    """

    def __init__(self, port_upstream: int, seed: int, bytes_max: int) -> None:
        self.port_upstream = port_upstream
        self.bytes_max = bytes_max
        self.port = 0
        self.cuts = 0
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port_upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = writer, up_writer
        self._writers.update(pair)
        left = [self._random.randint(1, self.bytes_max) if self.bytes_max else 2**62]
        for source, target in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._carry(source, target, left, pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter,
                     left: list[int], pair: tuple[asyncio.StreamWriter, ...]) -> None:
        """Carry bytes one way until the shared allowance is used or a side is gone."""
        try:
            while data := await source.read(4096):
                target.write(data[:left[0]])
                left[0] -= len(data)
                if left[0] <= 0:
                    self.cuts += 1
                    break
                await target.drain()
        except ConnectionError:
            pass
        finally:
            # Closing sends what is written first: the cut falls in the middle of a packet.
            for writer in pair:
                writer.close()
                self._writers.discard(writer)

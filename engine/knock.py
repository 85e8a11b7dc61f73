"""Whether anybody answers at an address, for one small packet.

A client of a database is dear to build: TLS contexts, parsers, pools take milliseconds of the loop,
and a server that is away is tried for ever. After a failure it is knocked at first, and a client is
built when somebody answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

Address = tuple[str, int] | str


async def knock(addresses: Sequence[Address], ask: bytes, timeout_s: float) -> None:
    """Return when one of the addresses (host and port, or a socket's path) answers.

    `ask` is what a server answers before any login; empty, the connection is enough. A server that
    closes without a word counts as an answer: the client finds out why. Each address has
    `timeout_s`. Raises the last one's OSError; TimeoutError when it kept silent."""
    missing: OSError = ConnectionError("no address")
    for address in addresses:
        try:
            async with asyncio.timeout(timeout_s):
                await _ask(address, ask)
            return
        except OSError as error:
            missing = error
        except UnicodeError as error:
            # A name that can't be one of a host is no OSError.
            missing = ConnectionError(str(error))
    raise missing


async def _ask(address: Address, ask: bytes) -> None:
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    try:
        if ask:
            writer.write(ask)
            await reader.read(1)
    finally:
        writer.transport.abort()

"""Sends the past of an account's stream in slices and joins it live, without hole or repeat.

The join is one synchronous step: when the client has been sent everything up to the number that
reports will encode next, the stream is switched live before reports can run again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from cython_core.stream import Streams


class StreamReader(Protocol):
    """The journal's reader of one account's messages (the one sibling a stage may use)."""

    def read_stream(self, account_id: int, from_number: int,
                    limit_bytes: int) -> tuple[bytes, int]:
        """Framed packets from a number on, and the number after them."""


class Receiver(Protocol):
    """Where the slices go."""

    def send_slice(self, data: bytes) -> bool:
        """Send; False when the receiver is gone."""

    def is_writable(self) -> bool:
        """Whether little enough waits to be sent."""

    async def writable(self) -> None:
        """Wait until it does."""

    def joined(self) -> None:
        """The stream is live from here on."""


def join(streams: Streams, receiver: Receiver, account_id: int) -> None:
    """Switch the stream live at its next number."""
    streams.set_live(account_id, True)
    receiver.joined()


async def replay(reader: StreamReader, streams: Streams, receiver: Receiver, account_id: int,
                 from_number: int, slice_bytes: int) -> None:
    """Send everything from `from_number` on, then join. Raises what the reader raises."""
    number = from_number
    while True:
        # The journal may know messages that reports has not come to: those are left to it.
        end = streams.next_number(account_id)
        if number < end:
            data, after = reader.read_stream(account_id, number, slice_bytes)
            if after > end:
                data, after = first_packets(data, end - number), end
            if not receiver.send_slice(data):
                return
            number = after
        if number == end and receiver.is_writable():
            join(streams, receiver, account_id)
            return
        await receiver.writable()
        # Other sessions come first between slices.
        await asyncio.sleep(0)


def first_packets(data: bytes, count: int) -> bytes:
    """The first `count` packets of framed SoupBinTCP data."""
    position = 0
    for _ in range(count):
        position += 2 + int.from_bytes(data[position:position + 2], "big")
    return data[:position]

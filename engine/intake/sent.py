"""The newest downstream packets of a session over UDP, to send what got lost again."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from cython_core.mold import parse_packet

# What a kept datagram costs beside its bytes.
KEPT_BYTES = 64


class Sent:
    """Datagrams as they were sent, numbers running on, up to `limit_bytes` of memory."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._kept: deque[bytes] = deque()

    @property
    def first_number(self) -> int:
        """The number of the oldest message that is kept; 0 when none is."""
        return _number(self._kept[0]) if self._kept else 0

    def add(self, datagrams: Sequence[bytes], last: bool = False) -> None:
        """Keep what was sent, and drop the oldest for it. The `last` of a session are kept beside
        what is: a roll cancels every order in one run, and then the log is for the next one."""
        size = sum(map(len, datagrams)) + KEPT_BYTES * len(datagrams)
        if last:
            self._limit_bytes += size
        self._kept.extend(datagrams)
        self._bytes += size
        while self._bytes > self._limit_bytes and len(self._kept) > 1:
            self._bytes -= len(self._kept.popleft()) + KEPT_BYTES

    def messages(self, first: int, count: int, limit_bytes: int) -> list[bytes]:
        """Messages from number `first` on, which is kept: up to `count`, and no more datagrams
        than hold `limit_bytes`."""
        found: list[bytes] = []
        size = 0
        for index in range(bisect_right(self._kept, first, key=_number) - 1, len(self._kept)):
            header, messages = parse_packet(self._kept[index])
            found += messages[max(0, first - header.sequence):]
            size += len(self._kept[index])
            if len(found) >= count or size >= limit_bytes:
                break
        return found[:count]


def _number(datagram: bytes) -> int:
    return int.from_bytes(datagram[10:18], "big")

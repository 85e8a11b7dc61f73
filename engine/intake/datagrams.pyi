from typing import Protocol, final

from cython_core.event import CommandBatch
from cython_core.ouch import Decoder

DATAGRAM_MAX: int

class _Window(Protocol):
    def budget(self, now_ns: int) -> int: ...
    def spend(self, messages: int) -> None: ...

class Caller:
    decoder: Decoder | None
    window: _Window | None
    heard: bool

@final
class DatagramSocket:
    count: int
    is_logout: bool
    fault: str
    strangers: int
    bytes_in: int
    datagrams_out: int
    bytes_out: int
    failed: int
    def __init__(self, fileno: int, everywhere: bool = False) -> None: ...
    @property
    def failure(self) -> str: ...
    def close(self) -> None: ...
    def receive(self) -> int: ...
    def sender(self, at: int) -> bytes: ...
    def data(self, at: int) -> bytes: ...
    def is_cut(self, at: int) -> bool: ...
    def take_in(
        self, callers: dict[bytes, Caller], start: int, batch: CommandBatch, now_ns: int
    ) -> int: ...
    def send(self, address: bytes, datagrams: list[bytes], start: int = 0) -> int: ...

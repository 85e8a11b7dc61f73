import enum
from typing import final

from _typeshed import ReadableBuffer

from cython_core.event import CommandBatch
from cython_core.ouch_table import INBOUND as INBOUND
from cython_core.ouch_table import OUTBOUND as OUTBOUND
from cython_core.ouch_table import TAGS as TAGS
from cython_core.ouch_table import decode as decode
from cython_core.ouch_table import encode_inbound as encode_inbound
from cython_core.ouch_table import encode_outbound as encode_outbound
from cython_core.soupbin import WireError as WireError

MESSAGE_MAX: int

class Stop(enum.IntEnum):
    NEED_MORE = 0
    LOGOUT = 1
    LOGIN = 2
    PACKET_TYPE = 3
    PACKET_LENGTH = 4
    OVERSIZED = 5
    MESSAGE_TYPE = 6
    MESSAGE_LENGTH = 7
    APPENDAGE = 8

@final
class SymbolTable:
    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def find(self, wire_symbol: str | bytes) -> int: ...
    def add(self, wire_symbol: str | bytes, instrument_id: int) -> None: ...

@final
class Decoder:
    last_stop: int
    messages: int
    heartbeats: int
    debug_packets: int
    entered: int
    def __init__(self, symbols: SymbolTable, account_id: int, source: int = 1) -> None: ...
    @property
    def stop_reason(self) -> str: ...
    def reset(self) -> None: ...
    def feed(
        self,
        data: ReadableBuffer,
        batch: CommandBatch,
        enter_budget: int = -1,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[int, int]: ...

def encode_enter(
    user_ref_num: int,
    side: str,
    quantity_lots: int,
    symbol: str | bytes,
    price_units: int,
    time_in_force: str = "0",
    client_order: str | bytes = "",
    framed: bool = True,
) -> bytes: ...
def encode_replace(
    orig_user_ref_num: int,
    user_ref_num: int,
    quantity_lots: int,
    price_units: int,
    time_in_force: str = "0",
    client_order: str | bytes = "",
    framed: bool = True,
) -> bytes: ...
def encode_cancel(user_ref_num: int, quantity_lots: int = 0, framed: bool = True) -> bytes: ...

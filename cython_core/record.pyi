from typing import Final, NamedTuple

from typing_extensions import Buffer

from cython_core.event import EventBatch, UnitBuffer

UNIT_BYTES: Final[int]
CLOSING: Final[int]
OPENING: Final[int]
LAZY: Final[int]
HAS_CRC_INSTRUCTION: Final[bool]

class Stop:
    LIMIT: int
    END: int
    MORE: int
    BAD: int

class SegmentHeader(NamedTuple):
    log_id: bytes
    number: int
    first_seq: int
    size_bytes: int
    incarnation: int
    previous_checksum: int
    matcher_version: int
    layout_version: int

class BlockHeader(NamedTuple):
    first_seq: int
    event_count: int
    unit_count: int
    synced_seq: int
    time_ns: int
    flags: int
    incarnation: int
    log_tag: int
    payload_checksum: int
    previous_checksum: int
    checksum: int

def crc32c(data: Buffer, seed: int = 0) -> int: ...
def crc32c_by_table(data: Buffer, seed: int = 0) -> int: ...
def first_nonzero(data: Buffer, start: int = 0) -> int: ...
def segment_header(
    log_id: bytes,
    number: int,
    first_seq: int,
    size_bytes: int,
    incarnation: int,
    previous_checksum: int,
    matcher_version: int = 2,
) -> bytes: ...
def parse_segment_header(data: Buffer) -> SegmentHeader | None: ...
def frame_block(
    batches: list[EventBatch],
    first_seq: int,
    previous_checksum: int,
    synced_seq: int,
    incarnation: int,
    log_tag: int,
    time_ns: int,
    flags: int = 0,
) -> bytes: ...
def block_checksum(header: Buffer) -> int: ...
def parse_block_header(data: Buffer, log_tag: int, offset: int = 0) -> BlockHeader | None: ...
def find_block(data: Buffer, log_tag: int, start: int = 0) -> int: ...
def events_from(batch: EventBatch, seq: int) -> EventBatch: ...
def events_before(batch: EventBatch, seq: int) -> EventBatch: ...
def count_kinds(batch: EventBatch) -> dict[int, int]: ...
def first_time_ns(batch: UnitBuffer) -> int: ...
def last_time_ns(batch: UnitBuffer) -> int: ...

class BlockWalker:
    next_seq: int
    chain: int
    incarnation: int
    log_tag: int
    synced_seq: int
    time_ns: int
    blocks: int
    events: int
    flags: int
    stop: int
    reason: str
    need_bytes: int
    def __init__(
        self, log_tag: int, next_seq: int = 1, chain: int = 0, incarnation: int = 1
    ) -> None: ...
    def take(self, data: Buffer, offset: int, limit_units: int, out: EventBatch) -> int: ...

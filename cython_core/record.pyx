# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Framing of the event log: segment headers, block headers, checksums.

A segment is an array of 64-byte units:

    segment header | block header, events ... | block header, events ... | zeros to the end

    SegmentUnit  kind ext matcher  magic  log_id[16]  first_seq  size  incarnation number
                 previous_checksum  layout  reserved  header_checksum
    BlockUnit    kind ext flags  magic  first_seq  synced_seq  time_ns  event_count unit_count
                 payload_checksum previous_checksum  incarnation log_tag  reserved header_checksum

A block is what one commit wrote. `payload_checksum` is the CRC32C of its event units,
`header_checksum` that of the header's first 60 bytes, and `previous_checksum` the header checksum
of the block before it, across segments, so that a block can't be lost, repeated or exchanged
unseen. `synced_seq` is the highest seq that was known to be on disk when the block was written:
damage at or below it is corruption, damage above it is the torn tail of a crash. `log_tag` is
the CRC32C of the log id: a block of another log is not a block.
All integers are little-endian. Nothing here does I/O; the functions see bytes.
"""

from libc.string cimport memcpy, memset

from cython_core.event cimport Event, UnitBuffer, units_reserve
from cython_core.model cimport (CMD_ENTER, KIND_BLOCK_HEADER, KIND_EMPTY, KIND_SEGMENT_HEADER,
                                LAYOUT_VERSION, MATCHER_VERSION)

from typing import NamedTuple

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* CRC32C (Castagnoli), reflected polynomial 0x82F63B78. The table way takes eight bytes a
       step; the instruction does the same in three cycles. */
    static uint32_t matchd_crc_table[8][256];

    static void matchd_crc_fill(void) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = byte;
            for (int bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
            matchd_crc_table[0][byte] = crc;
        }
        for (int slice = 1; slice < 8; slice++)
            for (int byte = 0; byte < 256; byte++) {
                uint32_t crc = matchd_crc_table[slice - 1][byte];
                matchd_crc_table[slice][byte] = (crc >> 8) ^ matchd_crc_table[0][crc & 255];
            }
    }

    static uint32_t matchd_crc_by_table(uint32_t crc, const unsigned char *at, size_t size) {
        crc = ~crc;
        while (size >= 8) {
            uint64_t word;
            memcpy(&word, at, 8);
            word ^= crc;
            crc = matchd_crc_table[7][word & 255] ^ matchd_crc_table[6][word >> 8 & 255]
                ^ matchd_crc_table[5][word >> 16 & 255] ^ matchd_crc_table[4][word >> 24 & 255]
                ^ matchd_crc_table[3][word >> 32 & 255] ^ matchd_crc_table[2][word >> 40 & 255]
                ^ matchd_crc_table[1][word >> 48 & 255] ^ matchd_crc_table[0][word >> 56];
            at += 8;
            size -= 8;
        }
        while (size--)
            crc = (crc >> 8) ^ matchd_crc_table[0][(crc ^ *at++) & 255];
        return ~crc;
    }

    #if defined(__x86_64__)
    __attribute__((target("sse4.2")))
    static uint32_t matchd_crc_by_instruction(uint32_t crc, const unsigned char *at, size_t size) {
        uint64_t state = ~crc;
        while (size >= 8) {
            uint64_t word;
            memcpy(&word, at, 8);
            state = __builtin_ia32_crc32di(state, word);
            at += 8;
            size -= 8;
        }
        while (size--)
            state = __builtin_ia32_crc32qi((uint32_t)state, *at++);
        return ~(uint32_t)state;
    }
    static int matchd_crc_has_instruction(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("sse4.2");
    }
    #else
    #define matchd_crc_by_instruction matchd_crc_by_table
    static int matchd_crc_has_instruction(void) { return 0; }
    #endif
    """
    void matchd_crc_fill() noexcept nogil
    uint32_t matchd_crc_by_table(uint32_t crc, const unsigned char *at, size_t size) noexcept nogil
    uint32_t matchd_crc_by_instruction(uint32_t crc, const unsigned char *at,
                                       size_t size) noexcept nogil
    bint matchd_crc_has_instruction() noexcept nogil

UNIT_BYTES = 64
CLOSING = BLOCK_CLOSING
OPENING = BLOCK_OPENING
LAZY = BLOCK_LAZY

# One block's counts are 32 bits; more units than this in one commit are a mistake long before.
cdef enum:
    BLOCK_UNITS_MAX = 1 << 26
    HEADER_BYTES = 64
    CHECKED_BYTES = 60

for _name, _size in (("SegmentUnit", sizeof(SegmentUnit)), ("BlockUnit", sizeof(BlockUnit)),
                     ("Event", sizeof(Event))):
    if _size != HEADER_BYTES:
        raise ImportError(f"struct {_name} has {_size} bytes, the unit has {HEADER_BYTES}")

matchd_crc_fill()
cdef bint _by_instruction = matchd_crc_has_instruction()
HAS_CRC_INSTRUCTION = bool(_by_instruction)


class Stop:
    """Why `BlockWalker.take` stopped."""
    LIMIT = STOP_LIMIT
    END = STOP_END
    MORE = STOP_MORE
    BAD = STOP_BAD


class SegmentHeader(NamedTuple):
    """The first unit of a segment."""
    log_id: bytes
    number: int
    first_seq: int
    size_bytes: int
    incarnation: int
    previous_checksum: int
    matcher_version: int
    layout_version: int


class BlockHeader(NamedTuple):
    """The first unit of a block."""
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


# -- checksums -------------------------------------------------------------------------------

cdef uint32_t checksum(uint32_t seed, const void *data, size_t size_bytes) noexcept nogil:
    """CRC32C of the bytes, going on from `seed` (0 at the start)."""
    if _by_instruction:
        return matchd_crc_by_instruction(seed, <const unsigned char *>data, size_bytes)
    return matchd_crc_by_table(seed, <const unsigned char *>data, size_bytes)


def crc32c(const unsigned char[::1] data not None, uint32_t seed=0):
    """CRC32C of `data`, going on from `seed`. Releases the GIL."""
    cdef uint32_t crc = seed
    if data.shape[0]:
        with nogil:
            crc = checksum(seed, &data[0], data.shape[0])
    return crc


def crc32c_by_table(const unsigned char[::1] data not None, uint32_t seed=0):
    """The same without the processor's instruction, for machines that lack it."""
    if not data.shape[0]:
        return seed
    return matchd_crc_by_table(seed, &data[0], data.shape[0])


def first_nonzero(const unsigned char[::1] data not None, Py_ssize_t start=0):
    """Index of the first byte from `start` that is not zero, or -1. Releases the GIL."""
    cdef Py_ssize_t position
    if start >= data.shape[0]:
        return -1
    with nogil:
        position = _first_nonzero(&data[0], start, data.shape[0])
    return position


cdef Py_ssize_t _first_nonzero(const unsigned char *data, Py_ssize_t start,
                               Py_ssize_t end) noexcept nogil:
    cdef uint64_t word[4]
    while start + 32 <= end:
        memcpy(word, &data[start], 32)
        if word[0] | word[1] | word[2] | word[3]:
            break
        start += 32
    while start < end:
        if data[start]:
            return start
        start += 1
    return -1


# -- headers ---------------------------------------------------------------------------------

def segment_header(bytes log_id not None, number, first_seq, size_bytes, incarnation,
                   previous_checksum, matcher_version=MATCHER_VERSION):
    """The first unit of a segment. Raises ValueError for a log id that is not 16 bytes."""
    cdef SegmentUnit unit
    if len(log_id) != sizeof(unit.log_id):
        raise ValueError(f"a log id has 16 bytes, not {len(log_id)}")
    memset(&unit, 0, sizeof(unit))
    unit.kind = KIND_SEGMENT_HEADER
    unit.magic = SEGMENT_MAGIC
    unit.matcher_version = matcher_version
    unit.layout_version = LAYOUT_VERSION
    memcpy(unit.log_id, <const char *>log_id, sizeof(unit.log_id))
    unit.number = number
    unit.first_seq = first_seq
    unit.size_bytes = size_bytes
    unit.incarnation = incarnation
    unit.previous_checksum = previous_checksum
    unit.header_checksum = checksum(0, &unit, CHECKED_BYTES)
    return (<const char *>&unit)[:sizeof(unit)]


def parse_segment_header(const unsigned char[::1] data not None):
    """The segment header at the start of `data`, or None when its bytes are damaged."""
    cdef SegmentUnit unit
    if data.shape[0] < <Py_ssize_t>sizeof(unit):
        return None
    memcpy(&unit, &data[0], sizeof(unit))
    if (unit.kind != KIND_SEGMENT_HEADER or unit.magic != SEGMENT_MAGIC
            or unit.header_checksum != checksum(0, &unit, CHECKED_BYTES)):
        return None
    return SegmentHeader((<const char *>unit.log_id)[:sizeof(unit.log_id)], unit.number,
                         unit.first_seq, unit.size_bytes, unit.incarnation,
                         unit.previous_checksum, unit.matcher_version, unit.layout_version)


def frame_block(list batches not None, first_seq, previous_checksum, synced_seq, incarnation,
                log_tag, time_ns, flags=0):
    """The header for a block of these EventBatches, to be written in front of their bytes.

    An empty list frames an empty block. Its checksum, for the next block's chain, is
    `block_checksum(header)`. Raises ValueError when a batch does not start at the seq after the
    one before it, or holds no whole number of events.
    """
    cdef BlockUnit unit
    cdef EventBatch batch
    cdef uint64_t seq = first_seq
    memset(&unit, 0, sizeof(unit))
    for item in batches:
        batch = item
        if batch.first_seq != seq:
            raise ValueError(f"a batch starts at seq {batch.first_seq}, expected {seq}")
        seq += batch.event_count
        if unit.unit_count + batch.units.count > BLOCK_UNITS_MAX:
            raise ValueError("more units than one block can hold")
        unit.unit_count += <uint32_t>batch.units.count
        with nogil:
            unit.payload_checksum = checksum(unit.payload_checksum, batch.units.data,
                                             batch.units.count * sizeof(Event))
    unit.kind = KIND_BLOCK_HEADER
    unit.magic = BLOCK_MAGIC
    unit.flags = flags
    unit.first_seq = first_seq
    unit.event_count = <uint32_t>(seq - unit.first_seq)
    unit.synced_seq = synced_seq
    unit.time_ns = time_ns
    unit.previous_checksum = previous_checksum
    unit.incarnation = incarnation
    unit.log_tag = log_tag
    unit.header_checksum = checksum(0, &unit, CHECKED_BYTES)
    return (<const char *>&unit)[:sizeof(unit)]


def block_checksum(const unsigned char[::1] header not None):
    """The checksum that the block after this one has to name."""
    cdef BlockUnit unit
    if header.shape[0] < <Py_ssize_t>sizeof(unit):
        raise ValueError("a block header has 64 bytes")
    memcpy(&unit, &header[0], sizeof(unit))
    return unit.header_checksum


cdef bint _header_holds(const BlockUnit *unit, uint32_t log_tag) noexcept nogil:
    return (unit.kind == KIND_BLOCK_HEADER and unit.magic == BLOCK_MAGIC
            and unit.log_tag == log_tag and unit.unit_count <= BLOCK_UNITS_MAX
            and unit.header_checksum == checksum(0, unit, CHECKED_BYTES))


def parse_block_header(const unsigned char[::1] data not None, uint32_t log_tag,
                       Py_ssize_t offset=0):
    """The block header at `offset`, or None when no undamaged header of this log is there."""
    cdef BlockUnit unit
    if offset < 0 or offset + <Py_ssize_t>sizeof(unit) > data.shape[0]:
        return None
    memcpy(&unit, &data[offset], sizeof(unit))
    if not _header_holds(&unit, log_tag):
        return None
    return BlockHeader(unit.first_seq, unit.event_count, unit.unit_count, unit.synced_seq,
                       unit.time_ns, unit.flags, unit.incarnation, unit.log_tag,
                       unit.payload_checksum, unit.previous_checksum, unit.header_checksum)


def find_block(const unsigned char[::1] data not None, uint32_t log_tag, Py_ssize_t start=0):
    """Offset of the next undamaged block header of this log from `start`, or -1.

    Headers stand at multiples of 64 bytes; the payload behind a header is not looked at, since
    what a header states about the disk holds whatever became of its payload.
    """
    cdef Py_ssize_t position = (start + HEADER_BYTES - 1) // HEADER_BYTES * HEADER_BYTES
    cdef Py_ssize_t end = data.shape[0] - HEADER_BYTES
    cdef BlockUnit unit
    with nogil:
        while position <= end:
            if data[position] == KIND_BLOCK_HEADER:
                memcpy(&unit, &data[position], sizeof(unit))
                if _header_holds(&unit, log_tag):
                    break
            position += HEADER_BYTES
    return position if position <= end else -1


def events_from(EventBatch batch not None, uint64_t seq):
    """The events of `batch` from `seq` on: the batch itself, or a copy of its end."""
    cdef size_t position = 0
    cdef uint64_t current = batch.first_seq
    cdef EventBatch rest
    if seq <= current:
        return batch
    while current < seq and position < batch.units.count:
        position += 1 + batch.units.data[position].ext_count
        current += 1
    rest = EventBatch()
    rest.first_seq = seq
    if position < batch.units.count:
        rest._append(&batch.units.data[position], batch.units.count - position)
        rest.event_count = batch.first_seq + batch.event_count - seq
    return rest


def events_before(EventBatch batch not None, uint64_t seq):
    """The events of `batch` below `seq`: the batch itself, or a copy of its beginning."""
    cdef size_t position = 0
    cdef uint64_t current = batch.first_seq
    cdef EventBatch begin
    if seq >= batch.first_seq + batch.event_count:
        return batch
    while current < seq:
        position += 1 + batch.units.data[position].ext_count
        current += 1
    begin = EventBatch()
    begin.first_seq = batch.first_seq
    if position:
        begin._append(batch.units.data, position)
        begin.event_count = current - batch.first_seq
    return begin


def count_kinds(EventBatch batch not None):
    """{event kind: how many} of the batch; extension units are no events."""
    cdef size_t position = 0
    cdef uint64_t counts[256]
    memset(counts, 0, sizeof(counts))
    while position < batch.units.count:
        counts[batch.units.data[position].kind] += 1
        position += 1 + batch.units.data[position].ext_count
    return {kind: counts[kind] for kind in range(256) if counts[kind]}


def first_time_ns(UnitBuffer batch not None):
    """The time stamped on the first event of the batch; 0 when it is empty."""
    return batch.units.data[0].time_ns if batch.units.count else 0


def last_time_ns(UnitBuffer batch not None):
    """The time stamped on the last event of the batch; 0 when it is empty."""
    cdef size_t position = batch.units.count
    while position:
        position -= 1
        # Extension units have kinds below those of commands and events.
        if batch.units.data[position].kind >= CMD_ENTER:
            return batch.units.data[position].time_ns
    return 0


cdef uint64_t _whole_events(const Event *units, size_t count) noexcept nogil:
    """Events in these units; 2**64-1 when the last one reaches beyond them."""
    cdef size_t position = 0
    cdef uint64_t events = 0
    while position < count:
        position += 1 + units[position].ext_count
        events += 1
    return events if position == count else <uint64_t>-1


# -- walking ---------------------------------------------------------------------------------

cdef class BlockWalker:
    """Takes blocks one after the other out of a segment's bytes and checks each.

    It starts where `next_seq`, `chain` (checksum of the block before) and `incarnation` say, and
    moves them on. `synced_seq` is the highest that any block taken so far states.
    """

    def __init__(self, log_tag, next_seq=1, chain=0, incarnation=1):
        self.log_tag = log_tag
        self.next_seq = next_seq
        self.chain = chain
        self.incarnation = incarnation
        self.reason = ""

    def take(self, const unsigned char[::1] data not None, Py_ssize_t offset, size_t limit_units,
             EventBatch out not None):
        """Append the events of the blocks from `offset` on to `out`; return the offset reached.

        Stops after the block with which `out` reaches `limit_units`, or at the first place that
        is not a good next block; `stop` says why and `reason` in words. Releases the GIL.
        """
        cdef size_t size = data.shape[0]
        cdef size_t position = offset
        cdef int code
        if out._exports:
            raise BufferError("the batch is exported and can't grow")
        if not out.units.count:
            out.first_seq = self.next_seq
            out.event_count = 0
        self.reason = ""
        self.stop = STOP_MORE
        self.need_bytes = HEADER_BYTES
        if offset < 0 or size == 0:
            return offset
        with nogil:
            while True:
                code = self._take_block(&data[0], size, position, out)
                if code < 0:
                    break
                position += <size_t>code * HEADER_BYTES
                if out.units.count >= limit_units:
                    self.stop = STOP_LIMIT
                    break
        return position

    cdef int _take_block(self, const unsigned char *data, size_t size, size_t offset,
                         EventBatch out) except? -1 nogil:
        """Units of the block taken, its header included; -2 when there is none."""
        cdef BlockUnit unit
        cdef const Event *payload
        cdef size_t payload_bytes
        if offset + HEADER_BYTES > size:
            self.stop = STOP_MORE
            self.need_bytes = HEADER_BYTES
            return -2
        memcpy(&unit, data + offset, sizeof(unit))
        if unit.kind == KIND_EMPTY and _first_nonzero(<const unsigned char *>&unit, 0,
                                                      sizeof(unit)) < 0:
            self.stop = STOP_END
            return -2
        self.stop = STOP_BAD
        if not _header_holds(&unit, self.log_tag):
            with gil:
                self.reason = "the block header is damaged"
            return -2
        if (unit.first_seq != self.next_seq or unit.previous_checksum != self.chain
                or unit.incarnation < self.incarnation):
            with gil:
                self.reason = (f"the block does not follow the one before it: it starts at seq "
                               f"{unit.first_seq}, expected {self.next_seq}")
            return -2
        payload_bytes = unit.unit_count * sizeof(Event)
        if offset + HEADER_BYTES + payload_bytes > size:
            self.stop = STOP_MORE
            self.need_bytes = HEADER_BYTES + payload_bytes
            return -2
        payload = <const Event *>(data + offset + HEADER_BYTES)
        if unit.payload_checksum != checksum(0, payload, payload_bytes):
            with gil:
                self.reason = "the events of the block do not match its checksum"
            return -2
        if _whole_events(payload, unit.unit_count) != unit.event_count:
            with gil:
                self.reason = "the units of the block are not the events its header counts"
            return -2
        units_reserve(&out.units, unit.unit_count)
        memcpy(&out.units.data[out.units.count], payload, payload_bytes)
        out.units.count += unit.unit_count
        out.event_count += unit.event_count
        self._accept(&unit)
        return <int>(unit.unit_count + 1)

    cdef void _accept(self, const BlockUnit *header) noexcept nogil:
        self.next_seq += header.event_count
        self.chain = header.header_checksum
        self.incarnation = header.incarnation
        self.flags = header.flags
        self.time_ns = header.time_ns
        self.blocks += 1
        self.events += header.event_count
        if header.synced_seq > self.synced_seq:
            self.synced_seq = header.synced_seq

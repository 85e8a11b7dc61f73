# The journal's own units: how a segment and a block begin. The layout is drawn in record.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cython_core.event cimport EventBatch

cdef enum:
    SEGMENT_MAGIC = 0x4753444D      # "MDSG" in the file
    BLOCK_MAGIC = 0x4B42444D        # "MDBK" in the file
    BLOCK_CLOSING = 1               # written by a clean shutdown, after the last sync
    BLOCK_OPENING = 2               # written by a start that follows no clean shutdown
    BLOCK_LAZY = 4                  # acknowledged before it was synced (journal.sync interval)

# Why a walk over blocks stopped.
cdef enum:
    STOP_LIMIT = 0      # enough units were taken; there may be more
    STOP_END = 1        # a unit of zeros stands where a header would
    STOP_MORE = 2       # the data ends inside a block; need_bytes from the offset would do
    STOP_BAD = 3        # damage, named by `reason`

cdef struct SegmentUnit:
    uint8_t kind
    uint8_t ext_count
    uint16_t matcher_version
    uint32_t magic
    uint8_t log_id[16]
    uint64_t first_seq
    uint64_t size_bytes
    uint32_t incarnation
    uint32_t number
    uint32_t previous_checksum
    uint16_t layout_version
    uint16_t reserved
    uint32_t reserved2
    uint32_t header_checksum

cdef struct BlockUnit:
    uint8_t kind
    uint8_t ext_count
    uint16_t flags
    uint32_t magic
    uint64_t first_seq
    uint64_t synced_seq
    uint64_t time_ns
    uint32_t event_count
    uint32_t unit_count
    uint32_t payload_checksum
    uint32_t previous_checksum
    uint32_t incarnation
    uint32_t log_tag
    uint32_t reserved
    uint32_t header_checksum


cdef class BlockWalker:
    """Takes blocks one after the other and checks each against the one before."""
    cdef public uint64_t next_seq
    cdef public uint32_t chain
    cdef public uint32_t incarnation
    cdef public uint32_t log_tag
    # what the blocks taken so far say
    cdef public uint64_t synced_seq
    cdef public uint64_t time_ns
    cdef public uint64_t blocks
    cdef public uint64_t events
    cdef public uint16_t flags
    # why the last `take` stopped
    cdef public int stop
    cdef public str reason
    cdef public uint64_t need_bytes
    cdef int _take_block(self, const unsigned char *data, size_t size, size_t offset,
                         EventBatch out) except? -1 nogil
    cdef void _accept(self, const BlockUnit *header) noexcept nogil


cdef uint32_t checksum(uint32_t seed, const void *data, size_t size_bytes) noexcept nogil

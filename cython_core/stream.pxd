# From events to each account's numbered messages. See stream.pyx.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cython_core.event cimport Event

cdef enum:
    # The longest message is an Accepted with every tag: 160 bytes, frame included.
    MESSAGE_ROOM = 256
    # What an idle account may keep of its buffer.
    BUFFER_KEEP_BYTES = 1 << 20

# The 8-byte wire symbols by instrument id; `ids` of them are there.
cdef struct Names:
    char *symbols
    size_t ids

cdef struct Slot:
    uint32_t account_id
    bint live
    bint queued
    uint64_t next_number
    uint8_t *buffer
    size_t length
    size_t capacity


@cython.final
cdef class WireNames:
    cdef Names names
    cdef void learn(self, const Event *event) noexcept nogil


@cython.final
cdef class Streams:
    cdef readonly WireNames names
    cdef readonly uint32_t generation
    cdef Slot *_slots
    cdef size_t _slot_count
    cdef uint32_t *_index
    cdef size_t _index_capacity
    cdef uint32_t _index_shift
    cdef uint32_t *_queued
    cdef size_t _queued_count
    cdef Slot *_last
    cdef Slot *_slot(self, uint32_t account_id) noexcept nogil
    cdef Slot *_find(self, uint32_t account_id) noexcept nogil
    cdef Slot *_add(self, uint32_t account_id) noexcept nogil
    cdef void _grow(self) noexcept nogil
    cdef void _room(self, Slot *slot, size_t more) noexcept nogil
    cdef void _send(self, uint32_t account_id, const Event *event, uint64_t seq,
                    bint maker) noexcept nogil
    cdef void _route(self, const Event *data, size_t units, uint64_t seq) noexcept nogil
    cdef void _end_sessions(self) noexcept nogil


# How many messages an event makes: 0, 1 or 2. `accounts` gets their owners in order; when the
# taker of a fill is private, the one message is the maker's.
cdef int recipients(const Event *event, uint32_t *accounts) noexcept nogil

# One framed message into `out` (MESSAGE_ROOM bytes); returns its length. `maker` picks the side of
# a fill. Only for events that make a message.
cdef size_t write_message(const Names *names, const Event *event, uint64_t seq, bint maker,
                          uint8_t *out) noexcept nogil

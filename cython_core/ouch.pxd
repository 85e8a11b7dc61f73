# The door: OUCH 5.0 messages into commands. See ouch.pyx.

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cython_core.event cimport CommandBatch, Units

# Why a decoder stopped. From STOP_LOGIN up the session has to be closed.
cdef enum:
    STOP_NEED_MORE = 0
    STOP_LOGOUT = 1
    STOP_LOGIN = 2
    STOP_PACKET_TYPE = 3
    STOP_PACKET_LENGTH = 4
    STOP_OVERSIZED = 5
    STOP_MESSAGE_TYPE = 6
    STOP_MESSAGE_LENGTH = 7
    STOP_APPENDAGE = 8

cdef enum:
    # One of each known tag makes 170 bytes; the rest is room for what is unknown. Its EXT_RAW
    # units must stay below 256.
    MESSAGE_BYTES_MAX = 2048

# Wire symbol (8 bytes as they stand in memory) -> instrument id. Open addressing, at most half
# full; key 0 is a free slot, which no symbol of letters can be.
cdef struct SymbolMap:
    uint64_t *keys
    uint16_t *ids
    size_t capacity
    uint32_t shift

cdef struct Door:
    const SymbolMap *symbols
    uint32_t account_id
    uint8_t source
    int64_t allowance


@cython.final
cdef class SymbolTable:
    cdef SymbolMap map
    cdef size_t _count
    cdef int _grow(self) except -1


@cython.final
cdef class Decoder:
    cdef SymbolTable _symbols
    cdef Door _door
    cdef size_t _skip_bytes
    cdef uint32_t _detail
    cdef readonly int last_stop
    cdef readonly uint64_t messages
    cdef readonly uint64_t heartbeats
    cdef readonly uint64_t debug_packets
    cdef readonly int64_t entered
    cdef size_t feed_bytes(self, const uint8_t *data, size_t length, CommandBatch batch,
                           int64_t enter_budget) noexcept nogil
    cdef int _packet(self, const uint8_t *packet, size_t length, CommandBatch batch,
                     size_t *consumed) noexcept nogil
    cdef int _stop(self, int code, uint32_t detail) noexcept nogil


# Unframed messages into `out`; they return the bytes written. `symbol` has 8 bytes, `client_order`
# 14; the letters are OUCH's. For clients and load generators.
cdef enum:
    ENTER_BYTES = 47
    REPLACE_BYTES = 40
    CANCEL_BYTES = 9

cdef size_t write_enter(uint8_t *out, uint32_t user_ref_num, uint8_t side, uint32_t quantity,
                        const char *symbol, uint64_t price_units, uint8_t time_in_force,
                        const char *client_order) noexcept nogil
cdef size_t write_replace(uint8_t *out, uint32_t orig_user_ref_num, uint32_t user_ref_num,
                          uint32_t quantity, uint64_t price_units, uint8_t time_in_force,
                          const char *client_order) noexcept nogil
cdef size_t write_cancel(uint8_t *out, uint32_t user_ref_num, uint32_t quantity) noexcept nogil

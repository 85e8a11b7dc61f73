# Big-endian loads and stores at any address, and the frame of a SoupBinTCP packet.
#
# Header-only, so that codecs inline them. memcpy of a constant size is one instruction.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    uint16_t bswap16 "__builtin_bswap16"(uint16_t value) noexcept nogil
    uint32_t bswap32 "__builtin_bswap32"(uint32_t value) noexcept nogil
    uint64_t bswap64 "__builtin_bswap64"(uint64_t value) noexcept nogil

cdef enum:
    FRAME_BYTES = 3  # length and packet type

cdef inline uint16_t get16(const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return bswap16(value)

cdef inline uint32_t get32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return bswap32(value)

cdef inline uint64_t get64(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return bswap64(value)

cdef inline void put16(uint8_t *at, uint16_t value) noexcept nogil:
    value = bswap16(value)
    memcpy(at, &value, 2)

cdef inline void put32(uint8_t *at, uint32_t value) noexcept nogil:
    value = bswap32(value)
    memcpy(at, &value, 4)

cdef inline void put64(uint8_t *at, uint64_t value) noexcept nogil:
    value = bswap64(value)
    memcpy(at, &value, 8)

cdef inline void put_frame(uint8_t *at, uint16_t payload_bytes, uint8_t packet_type) noexcept nogil:
    put16(at, payload_bytes + 1)
    at[2] = packet_type

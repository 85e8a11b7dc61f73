# The few SoupBinTCP and OUCH 5.0 messages that the load generator speaks, written down a second
# time on purpose: what cython_core encodes is read here by code that shares nothing with it.
# Offsets count from the start of the packet (PROTOCOLS 1.1, 2.3, 2.4).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    uint16_t swap16 "__builtin_bswap16"(uint16_t value) nogil
    uint32_t swap32 "__builtin_bswap32"(uint32_t value) nogil
    uint64_t swap64 "__builtin_bswap64"(uint64_t value) nogil

cdef enum:
    ENTER_BYTES = 50
    CANCEL_BYTES = 12
    MASS_CANCEL_BYTES = 22
    QUERY_BYTES = 4
    ACCEPTED_BYTES = 67
    CANCELED_BYTES = 21
    EXECUTED_BYTES = 39
    LOGIN_BYTES = 49
    # inbound Enter Order
    ENTER_REF = 4
    ENTER_SIDE = 8
    ENTER_QUANTITY = 9
    ENTER_SYMBOL = 13
    ENTER_PRICE = 21
    ENTER_TIF = 29
    # what the answers have in common, then Accepted, Canceled, Executed
    ANSWER_TYPE = 3
    ANSWER_REF = 12
    ACCEPTED_QUANTITY = 17
    ACCEPTED_SYMBOL = 21
    ACCEPTED_PRICE = 29
    CANCELED_QUANTITY = 16
    CANCELED_REASON = 20
    EXECUTED_QUANTITY = 16
    EXECUTED_PRICE = 20
    EXECUTED_LIQUIDITY = 28
    EXECUTED_MATCH = 29

cdef inline uint16_t get16(const char *data) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, data, 2)
    return swap16(value)

cdef inline uint32_t get32(const char *data) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, data, 4)
    return swap32(value)

cdef inline uint64_t get64(const char *data) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, data, 8)
    return swap64(value)

cdef inline void put16(char *data, uint16_t value) noexcept nogil:
    value = swap16(value)
    memcpy(data, &value, 2)

cdef inline void put32(char *data, uint32_t value) noexcept nogil:
    value = swap32(value)
    memcpy(data, &value, 4)

cdef inline void put64(char *data, uint64_t value) noexcept nogil:
    value = swap64(value)
    memcpy(data, &value, 8)

cdef inline void put_enter(char *packet, uint32_t ref, uint8_t side, uint32_t quantity,
                           const char *symbol, uint64_t price, uint8_t tif) noexcept nogil:
    """One Enter Order in its SoupBinTCP packet: ENTER_BYTES."""
    memcpy(packet, b"\x00\x30UO", 4)
    put32(packet + ENTER_REF, ref)
    packet[ENTER_SIDE] = side
    put32(packet + ENTER_QUANTITY, quantity)
    memcpy(packet + ENTER_SYMBOL, symbol, 8)
    put64(packet + ENTER_PRICE, price)
    packet[ENTER_TIF] = tif
    memcpy(packet + ENTER_TIF + 1, b"YPNNbench         \x00\x00", 20)

cdef inline void put_cancel(char *packet, uint32_t ref) noexcept nogil:
    """One Cancel of all that is open: CANCEL_BYTES."""
    memcpy(packet, b"\x00\x0AUX", 4)
    put32(packet + 4, ref)
    put32(packet + 8, 0)

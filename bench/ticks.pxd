# What makes one tick of the feed row: orders that move the best bid and offer of every instrument
# and take away those of the tick before; for the anchor's server one byte.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from bench.net cimport MSG_DONTWAIT, recv, send_all
from bench.wire cimport *

cdef enum:
    INSTRUMENTS_MAX = 64
    MIDDLE_PRICE = 1_000_000
    DEPTH = 12                      # levels behind the touch on each side
    EVENTS_EACH = 4                 # two orders in, two out
    TICK_BYTES_EACH = 2 * ENTER_BYTES + 2 * CANCEL_BYTES
    ANSWER_BYTES = 1 << 16

cdef struct Ticker:
    int fd
    bint orders                     # orders to a venue, or a byte to the anchor
    uint32_t instruments
    uint32_t next_ref
    uint64_t sent                   # ticks
    uint64_t accepted
    uint64_t canceled
    const char *error
    size_t in_size
    char symbols[8 * INSTRUMENTS_MAX]
    char out_data[TICK_BYTES_EACH * INSTRUMENTS_MAX]
    char in_data[ANSWER_BYTES]

cdef inline size_t put_tick(Ticker *ticker) noexcept nogil:
    """Write the next tick's messages into `out_data`. Returns their bytes.

    Every other tick the touch is a step wider, so one level goes and one comes on each side.
    """
    cdef char *at = ticker.out_data
    cdef uint32_t index
    cdef uint32_t last = ticker.next_ref - 2 * ticker.instruments
    cdef uint32_t lots = 1 + ticker.sent % 97
    cdef uint32_t step = 1 + ticker.sent % 2
    for index in range(ticker.instruments):
        put_enter(at, ticker.next_ref, c'B', lots, ticker.symbols + 8 * index,
                  100 * (MIDDLE_PRICE - step), c'0')
        put_enter(at + ENTER_BYTES, ticker.next_ref + 1, c'S', lots, ticker.symbols + 8 * index,
                  100 * (MIDDLE_PRICE + step), c'0')
        ticker.next_ref += 2
        at += 2 * ENTER_BYTES
        if ticker.sent:
            put_cancel(at, last + 2 * index)
            put_cancel(at + CANCEL_BYTES, last + 2 * index + 1)
            at += 2 * CANCEL_BYTES
    return at - ticker.out_data

cdef inline void send_depth(Ticker *ticker) noexcept nogil:
    """Orders behind the touch that stay: a book of more levels than are subscribed."""
    cdef uint32_t index, level
    cdef char *at
    for index in range(ticker.instruments):
        at = ticker.out_data
        for level in range(<uint32_t>DEPTH):
            put_enter(at, ticker.next_ref, c'B', 50 + level, ticker.symbols + 8 * index,
                      100 * (MIDDLE_PRICE - 10 - level), c'0')
            put_enter(at + ENTER_BYTES, ticker.next_ref + 1, c'S', 50 + level,
                      ticker.symbols + 8 * index, 100 * (MIDDLE_PRICE + 10 + level), c'0')
            ticker.next_ref += 2
            at += 2 * ENTER_BYTES
        if not send_all(ticker.fd, ticker.out_data, at - ticker.out_data):
            ticker.error = "the connection for orders broke"

cdef inline void send_tick(Ticker *ticker) noexcept nogil:
    cdef size_t size = 1
    if ticker.orders:
        size = put_tick(ticker)
    if not send_all(ticker.fd, ticker.out_data, size):
        ticker.error = "the connection for orders broke"
    ticker.sent += 1

cdef inline void take_answers(Ticker *ticker) noexcept nogil:
    """Read what the venue answers: nothing but accepted orders and cancels is right."""
    cdef size_t at = 0
    cdef size_t size
    cdef ssize_t got = recv(ticker.fd, ticker.in_data + ticker.in_size,
                            ANSWER_BYTES - ticker.in_size, MSG_DONTWAIT)
    if got <= 0:
        if got == 0:
            ticker.error = "the server closed the connection for orders"
        return
    ticker.in_size += got
    while ticker.in_size - at >= 4:
        size = 2 + get16(ticker.in_data + at)
        if ticker.in_size - at < size:
            break
        if ticker.in_data[at + 2] == c'S':
            if ticker.in_data[at + ANSWER_TYPE] == c'A':
                ticker.accepted += 1
            elif ticker.in_data[at + ANSWER_TYPE] == c'C':
                ticker.canceled += 1
            else:
                ticker.error = "an order of a tick was neither accepted nor canceled"
        elif ticker.in_data[at + 2] != c'H':
            ticker.error = "a packet that nothing asked for"
        at += size
    ticker.in_size -= at
    memmove(ticker.in_data, ticker.in_data + at, ticker.in_size)

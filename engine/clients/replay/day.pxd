# A recorded day in memory, one fixed struct a line. See day.pyx.

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    VERB_NEW = 1
    VERB_REDUCE = 2
    VERB_DELETE = 3
    VERB_HIT = 4
    VERB_CHECK = 5
    VERB_SYNC = 6
    VERB_END = 7
    VERB_NOTHING = 8

# order: index of the order posted, reduced or deleted, or of the one to hit.
# row: of CHECK and END, from 0; asks and bids: how many levels CHECK compares.
cdef struct Line:
    int64_t price_units
    uint32_t order
    uint32_t quantity_lots
    uint32_t row
    uint32_t asks
    uint32_t bids
    uint8_t verb
    uint8_t side

cdef struct RowLevel:
    int64_t price_units
    int64_t quantity_lots

# Where the levels of one recorded row lie: asks, then bids, best first.
cdef struct Row:
    size_t first
    uint32_t asks
    uint32_t bids


@cython.final
cdef class Day:
    cdef Line *lines
    cdef size_t line_count
    cdef size_t _line_capacity
    cdef Row *rows
    cdef size_t row_count
    cdef size_t _row_capacity
    cdef RowLevel *levels
    cdef size_t _level_count
    cdef size_t _level_capacity
    cdef readonly list orders
    cdef readonly size_t messages
    cdef readonly list steps
    cdef dict _index
    cdef Line *_next_line(self) except NULL
    cdef int _add_levels(self, list levels) except -1
    cdef uint32_t _known(self, str order) except? 0xFFFFFFFF
    cdef int _add(self, command) except -1

# Which of a channel's last 1,024 user_ref_nums were used, for orders whose datagrams overtook
# each other.
#
# A channel whose numbers came without a gap needs none of this: all up to the last were used. A
# record of gaps exists only while a number is missing; it is taken when a number is skipped, and
# given back when the last missing one came, or fell out of the 1,024. It is a ring of bits: number
# n has bit n % 1,024, which belonged to n - 1,024 before. Numbers below 1 count as used.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from cython_core.invariant cimport INVARIANT
from cython_core.model cimport UDP_WINDOW_MAX
from cython_core.pool cimport memory_grow

cdef extern from *:
    int count_bits "__builtin_popcountll"(uint64_t bits) noexcept nogil

cdef enum:
    NUMBER_WORDS = 16           # 64 numbers each

cdef struct UsedNumbers:
    uint64_t bits[NUMBER_WORDS]
    uint32_t missing            # bits that are not set; 0: this record is free
    uint32_t next               # the next free one

cdef struct NumberPool:
    UsedNumbers *items          # item 0 is none
    uint32_t capacity
    uint32_t used               # items ever handed out, item 0 included
    uint32_t free_head
    uint32_t live

cdef inline uint32_t numbers_take(NumberPool *pool) noexcept nogil:
    """A record in which every number was used."""
    cdef uint32_t item = pool.free_head
    cdef size_t old = pool.capacity
    cdef size_t new = old * 2 if old else 64
    if item:
        pool.free_head = pool.items[item].next
    else:
        if pool.used >= pool.capacity:
            pool.items = <UsedNumbers *>memory_grow(
                pool.items, old * sizeof(UsedNumbers), new * sizeof(UsedNumbers))
            INVARIANT(pool.items != NULL, "out of memory for used numbers")
            pool.capacity = <uint32_t>new
            pool.used = max(pool.used, <uint32_t>1)
        item = pool.used
        pool.used += 1
    pool.live += 1
    memset(pool.items[item].bits, 0xFF, sizeof(pool.items[item].bits))
    pool.items[item].missing = 0
    pool.items[item].next = 0
    return item

cdef inline void numbers_give(NumberPool *pool, uint32_t item) noexcept nogil:
    pool.items[item].missing = 0
    pool.items[item].next = pool.free_head
    pool.free_head = item
    pool.live -= 1

cdef inline void numbers_forget_all(NumberPool *pool) noexcept nogil:
    """Give every record back; the memory stays."""
    pool.used = 1 if pool.capacity else 0
    pool.free_head = 0
    pool.live = 0

cdef inline bint number_was_used(const UsedNumbers *numbers, uint32_t number) noexcept nogil:
    """Of a number among the last 1,024."""
    return numbers.bits[number >> 6 & NUMBER_WORDS - 1] >> (number & 63) & 1

cdef inline void numbers_move_on(UsedNumbers *numbers, uint32_t last, uint32_t new) noexcept nogil:
    """`new` becomes the last number: what is between is missing, and so is `new` until it is used.

    What falls out of the ring is forgotten.
    """
    cdef uint32_t count = new - last
    cdef uint32_t number = last + 1
    cdef uint32_t taken
    cdef uint64_t mask
    cdef uint64_t *word
    if count >= UDP_WINDOW_MAX:
        memset(numbers.bits, 0, sizeof(numbers.bits))
        numbers.missing = UDP_WINDOW_MAX
        return
    while count:
        taken = min(count, 64 - (number & 63))
        mask = ((<uint64_t>1 << taken) - 1 if taken < 64 else ~<uint64_t>0) << (number & 63)
        word = &numbers.bits[number >> 6 & NUMBER_WORDS - 1]
        numbers.missing += taken - <uint32_t>count_bits(~word[0] & mask)
        word[0] &= ~mask
        number += taken
        count -= taken

cdef inline void number_use(UsedNumbers *numbers, uint32_t number) noexcept nogil:
    numbers.bits[number >> 6 & NUMBER_WORDS - 1] |= <uint64_t>1 << (number & 63)
    numbers.missing -= 1

# From a client's handle (account, channel, user_ref_num) to the slot of its live order.
#
# A hash table of buckets, one cache line each: seven places with 32 bits of hash and a 32-bit slot,
# looked at all at once, so that finding, adding and removing take hardly a branch that can be
# guessed wrongly. A bucket that was full when a handle came counts how many went on to its
# neighbours: a lookup goes on only while that count says so, and removing leaves no traces.
#
# The size follows the live orders: at most five of seven places are taken. Growing is spread over
# the insertions that come after it, bucket by bucket; until it is over, a lookup that fails in the
# new table is made in the old one. A handle's home follows from its hash alone, so growing never
# touches the orders.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cython_core.invariant cimport INVARIANT
from cython_core.pool cimport (Order, memory_free, memory_grow, memory_prefer_large_pages,
                               memory_prefetch, memory_release)

cdef extern from *:
    """
    #ifndef MATCHD_BUCKET_H
    #define MATCHD_BUCKET_H
    #include <stdint.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    /* Bit i is set when word i of the seven is `value`. */
    static inline uint32_t equal_words(const uint32_t *words, uint32_t value) {
        __m128i wanted = _mm_set1_epi32((int)value);
        __m128i low = _mm_cmpeq_epi32(_mm_load_si128((const __m128i *)words), wanted);
        __m128i high = _mm_cmpeq_epi32(_mm_load_si128((const __m128i *)words + 1), wanted);
        uint32_t mask = (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(low));
        mask |= (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(high)) << 4;
        return mask & 0x7F;
    }
    #else
    static inline uint32_t equal_words(const uint32_t *words, uint32_t value) {
        uint32_t mask = 0;
        for (uint32_t place = 0; place < 7; place++)
            mask |= (uint32_t)(words[place] == value) << place;
        return mask;
    }
    #endif
    #endif
    """
    uint32_t equal_words(const uint32_t *words, uint32_t value) noexcept nogil
    int lowest_bit "__builtin_ctz"(unsigned int value) noexcept nogil

cdef enum:
    INDEX_BITS_MIN = 7          # 128 buckets, 8 KiB
    INDEX_BUCKET_LOAD = 5       # places of a bucket taken on average, at most
    INDEX_MOVES = 8             # buckets emptied per insertion while growing
    INDEX_RELEASE = 1 << 14     # buckets, 1 MiB: empty memory is given back in such pieces

# Slot 0 marks a free place; its tag is whatever it was, the order behind slot 0 matches nothing.
cdef struct IndexBucket:
    uint32_t tags[7]
    uint32_t passed             # handles that wanted a place here and went on
    uint32_t slots[7]
    uint32_t reserved

cdef struct IndexTable:
    IndexBucket *buckets
    uint64_t mask
    uint32_t shift              # of a tag, to get its home

cdef struct OrderIndex:
    IndexTable table
    IndexTable old              # buckets NULL unless growing
    uint64_t count              # in both
    uint64_t limit
    uint64_t moved              # buckets of old that are empty

cdef inline uint32_t index_tag(uint32_t account, uint8_t channel,
                               uint32_t user_ref_num) noexcept nogil:
    """The hash of a handle. One multiplication spreads numbers that count upwards evenly."""
    return <uint32_t>(((<uint64_t>account << 32 ^ <uint64_t>channel << 56 ^ user_ref_num)
                       * <uint64_t>0x9E3779B97F4A7C15) >> 32)

cdef inline void table_init(IndexTable *table, uint32_t bits) noexcept nogil:
    cdef size_t buckets = <size_t>1 << bits
    table.buckets = <IndexBucket *>memory_grow(NULL, 0, buckets * sizeof(IndexBucket))
    memory_prefer_large_pages(table.buckets, buckets * sizeof(IndexBucket))
    INVARIANT(table.buckets != NULL, "out of memory for the order index")
    table.mask = buckets - 1
    table.shift = 32 - bits

cdef inline void table_free(IndexTable *table) noexcept nogil:
    memory_free(table.buckets, (table.mask + 1) * sizeof(IndexBucket))
    table.buckets = NULL

cdef inline void table_put(IndexTable *table, uint32_t tag, uint32_t slot) noexcept nogil:
    cdef uint64_t home = tag >> table.shift
    cdef IndexBucket *bucket = &table.buckets[home]
    cdef uint32_t places = equal_words(bucket.slots, 0)
    cdef uint32_t place
    while places == 0:
        bucket.passed += 1
        home = (home + 1) & table.mask
        bucket = &table.buckets[home]
        places = equal_words(bucket.slots, 0)
    place = lowest_bit(places)
    bucket.tags[place] = tag
    bucket.slots[place] = slot

cdef inline bint table_remove(IndexTable *table, uint32_t tag, uint32_t slot) noexcept nogil:
    """Take the handle out; false when it is not there."""
    cdef uint64_t home = tag >> table.shift
    cdef uint64_t at = home
    cdef uint32_t places = equal_words(table.buckets[at].slots, slot)
    while places == 0:
        if table.buckets[at].passed == 0:
            return False
        at = (at + 1) & table.mask
        places = equal_words(table.buckets[at].slots, slot)
    table.buckets[at].slots[lowest_bit(places)] = 0
    while home != at:
        table.buckets[home].passed -= 1
        home = (home + 1) & table.mask
    return True

cdef inline uint32_t table_find(const IndexTable *table, const Order *orders, uint32_t tag,
                                uint32_t account, uint8_t channel,
                                uint32_t user_ref_num) noexcept nogil:
    cdef uint64_t at = tag >> table.shift
    cdef const IndexBucket *bucket
    cdef const Order *order
    cdef uint32_t places, slot
    while True:
        bucket = &table.buckets[at]
        places = equal_words(bucket.tags, tag)
        while places:
            slot = bucket.slots[lowest_bit(places)]
            order = &orders[slot]
            if order.user_ref_num == user_ref_num and order.account == account \
                    and order.user_ref_idx == channel and slot:
                return slot
            places &= places - 1
        if bucket.passed == 0:
            return 0
        at = (at + 1) & table.mask

cdef inline uint32_t index_find(const OrderIndex *index, const Order *orders, uint32_t account,
                                uint8_t channel, uint32_t user_ref_num) noexcept nogil:
    """The slot of the live order with this handle, or 0."""
    cdef uint32_t tag = index_tag(account, channel, user_ref_num)
    cdef uint32_t slot = table_find(&index.table, orders, tag, account, channel, user_ref_num)
    if slot == 0 and index.old.buckets != NULL:
        slot = table_find(&index.old, orders, tag, account, channel, user_ref_num)
    return slot

cdef inline void index_move_some(OrderIndex *index, uint64_t buckets) noexcept nogil:
    """Empty some more buckets of the old table into the new one."""
    cdef IndexBucket *bucket
    cdef uint32_t place, tag, slot
    while buckets and index.moved <= index.old.mask:
        bucket = &index.old.buckets[index.moved]
        for place in range(7):
            slot = bucket.slots[place]
            if slot:
                tag = bucket.tags[place]
                table_remove(&index.old, tag, slot)
                table_put(&index.table, tag, slot)
        index.moved += 1
        buckets -= 1
        if index.moved % INDEX_RELEASE == 0:
            memory_release(&index.old.buckets[index.moved - INDEX_RELEASE],
                           INDEX_RELEASE * sizeof(IndexBucket))
    if index.moved > index.old.mask:
        table_free(&index.old)

cdef inline void index_size(OrderIndex *index, uint32_t bits) noexcept nogil:
    table_init(&index.table, bits)
    index.limit = (index.table.mask + 1) * INDEX_BUCKET_LOAD

cdef inline void index_grow(OrderIndex *index) noexcept nogil:
    cdef uint32_t bits = 33 - index.table.shift
    if index.old.buckets != NULL:
        index_move_some(index, index.old.mask + 1)
    INVARIANT(bits <= 32, "the order index has at most 2**32 buckets")
    index.old = index.table
    index.moved = 0
    index_size(index, bits)

cdef inline void index_init(OrderIndex *index) noexcept nogil:
    memset(index, 0, sizeof(OrderIndex))
    index_size(index, INDEX_BITS_MIN)

cdef inline void index_put(OrderIndex *index, uint32_t tag, uint32_t slot) noexcept nogil:
    """Add what has this hash."""
    if index.count >= index.limit:
        index_grow(index)
    if index.old.buckets != NULL:
        index_move_some(index, INDEX_MOVES)
    table_put(&index.table, tag, slot)
    index.count += 1

cdef inline void index_take(OrderIndex *index, uint32_t tag, uint32_t slot) noexcept nogil:
    """Remove what was put in with this hash."""
    cdef bint removed = table_remove(&index.table, tag, slot)
    if not removed:
        INVARIANT(index.old.buckets != NULL and table_remove(&index.old, tag, slot),
                  "a live order is in the index")
    index.count -= 1

cdef inline void index_insert(OrderIndex *index, uint32_t account, uint8_t channel,
                              uint32_t user_ref_num, uint32_t slot) noexcept nogil:
    """Add a handle that is not in the index."""
    index_put(index, index_tag(account, channel, user_ref_num), slot)

cdef inline void index_remove(OrderIndex *index, uint32_t account, uint8_t channel,
                              uint32_t user_ref_num, uint32_t slot) noexcept nogil:
    index_take(index, index_tag(account, channel, user_ref_num), slot)

cdef inline void index_free(OrderIndex *index) noexcept nogil:
    if index.old.buckets != NULL:
        table_free(&index.old)
    if index.table.buckets != NULL:
        table_free(&index.table)

# The same table serves orders without a handle: their hash is that of the order id.

cdef inline uint32_t index_tag_of_id(uint64_t order_id) noexcept nogil:
    return <uint32_t>(order_id * <uint64_t>0x9E3779B97F4A7C15 >> 32)

cdef inline uint32_t table_find_id(const IndexTable *table, const Order *orders,
                                   uint64_t order_id) noexcept nogil:
    cdef uint32_t tag = index_tag_of_id(order_id)
    cdef uint64_t at = tag >> table.shift
    cdef const IndexBucket *bucket
    cdef uint32_t places, slot
    while True:
        bucket = &table.buckets[at]
        places = equal_words(bucket.tags, tag)
        while places:
            slot = bucket.slots[lowest_bit(places)]
            if slot and orders[slot].order_id == order_id:
                return slot
            places &= places - 1
        if bucket.passed == 0:
            return 0
        at = (at + 1) & table.mask

cdef inline uint32_t index_find_id(const OrderIndex *index, const Order *orders,
                                   uint64_t order_id) noexcept nogil:
    """The slot of the live order that was put in under its id, or 0."""
    cdef uint32_t slot = table_find_id(&index.table, orders, order_id)
    if slot == 0 and index.old.buckets != NULL:
        slot = table_find_id(&index.old, orders, order_id)
    return slot

cdef inline void index_prefetch(const OrderIndex *index, uint32_t tag) noexcept nogil:
    memory_prefetch(&index.table.buckets[tag >> index.table.shift])

cdef inline uint32_t index_guess(const OrderIndex *index, uint32_t tag) noexcept nogil:
    """The slot that a lookup will most likely end at, without a look at the orders; 0 for none."""
    cdef const IndexBucket *bucket = &index.table.buckets[tag >> index.table.shift]
    cdef uint32_t places = equal_words(bucket.tags, tag)
    return bucket.slots[lowest_bit(places)] if places else 0

# From a client's handle (account, channel, user_ref_num) to the slot of its live order.
#
# Open addressing, linear probing, entries of 8 bytes: the slot and 32 bits of hash. An entry's
# home place follows from its hash alone, so removing (by shifting back) and growing never touch
# the orders. Eight numbers in a row share one cache line, because clients count upwards.
#
# The size follows the live orders. Growing is spread over the insertions that come after it: whole
# runs of neighbours move from the old table to the new one, so that both stay valid tables and a
# lookup that fails in one is simply made in the other.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cython_core.invariant cimport INVARIANT
from cython_core.pool cimport Order, memory_free, memory_grow, memory_prefetch

cdef enum:
    INDEX_BITS_MIN = 10
    INDEX_MOVES = 16            # entries looked at per insertion while growing

cdef struct IndexEntry:
    uint32_t slot               # 0: empty
    uint32_t tag

cdef struct IndexTable:
    IndexEntry *entries
    uint64_t mask
    uint32_t shift              # of a tag, to get the number of its line

cdef struct OrderIndex:
    IndexTable table
    IndexTable old              # entries NULL unless growing
    uint64_t count              # in both
    uint64_t limit
    uint64_t cursor             # in old: an empty entry, everything before it has moved
    uint64_t left               # entries of old still to look at

cdef inline uint32_t index_tag(uint32_t account, uint8_t channel,
                               uint32_t user_ref_num) noexcept nogil:
    """The hash of a handle. Its low three bits place the entry within a cache line."""
    cdef uint64_t key = (<uint64_t>account << 32 ^ <uint64_t>channel << 56
                         ^ (user_ref_num >> 3)) * <uint64_t>0x9E3779B97F4A7C15
    return <uint32_t>(key >> 32) & ~<uint32_t>7 | (user_ref_num & 7)

cdef inline uint64_t index_home(const IndexTable *table, uint32_t tag) noexcept nogil:
    return <uint64_t>(tag >> table.shift) << 3 | (tag & 7)

cdef inline void table_init(IndexTable *table, uint32_t bits) noexcept nogil:
    cdef size_t size = <size_t>1 << bits
    table.entries = <IndexEntry *>memory_grow(NULL, 0, size * sizeof(IndexEntry))
    INVARIANT(table.entries != NULL, "out of memory for the order index")
    table.mask = size - 1
    table.shift = 35 - bits

cdef inline void table_free(IndexTable *table) noexcept nogil:
    memory_free(table.entries, (table.mask + 1) * sizeof(IndexEntry))
    table.entries = NULL

cdef inline void table_put(IndexTable *table, uint32_t tag, uint32_t slot) noexcept nogil:
    cdef uint64_t place = index_home(table, tag)
    while table.entries[place].slot:
        place = (place + 1) & table.mask
    table.entries[place].slot = slot
    table.entries[place].tag = tag

cdef inline bint table_remove(IndexTable *table, uint32_t tag, uint32_t slot) noexcept nogil:
    """Take the entry out and close the gap; false when it is not there."""
    cdef IndexEntry *entries = table.entries
    cdef uint64_t hole = index_home(table, tag)
    cdef uint64_t place
    while entries[hole].slot != slot:
        if entries[hole].slot == 0:
            return False
        hole = (hole + 1) & table.mask
    place = hole
    while True:
        place = (place + 1) & table.mask
        if entries[place].slot == 0:
            break
        if (place - index_home(table, entries[place].tag)) & table.mask >= \
                (place - hole) & table.mask:
            entries[hole] = entries[place]
            hole = place
    entries[hole].slot = 0
    return True

cdef inline uint32_t table_find(const IndexTable *table, const Order *orders, uint32_t tag,
                                uint32_t account, uint8_t channel,
                                uint32_t user_ref_num) noexcept nogil:
    cdef uint64_t place = index_home(table, tag)
    cdef const Order *order
    while table.entries[place].slot:
        if table.entries[place].tag == tag:
            order = &orders[table.entries[place].slot]
            if order.user_ref_num == user_ref_num and order.account == account \
                    and order.user_ref_idx == channel:
                return table.entries[place].slot
        place = (place + 1) & table.mask
    return 0

cdef inline uint32_t index_find(const OrderIndex *index, const Order *orders, uint32_t account,
                                uint8_t channel, uint32_t user_ref_num) noexcept nogil:
    """The slot of the live order with this handle, or 0."""
    cdef uint32_t tag = index_tag(account, channel, user_ref_num)
    cdef uint32_t slot = table_find(&index.table, orders, tag, account, channel, user_ref_num)
    if slot == 0 and index.old.entries != NULL:
        slot = table_find(&index.old, orders, tag, account, channel, user_ref_num)
    return slot

cdef inline void index_move_some(OrderIndex *index, uint64_t entries) noexcept nogil:
    """Move at least `entries` places of the old table, and on to the end of a run."""
    cdef IndexEntry *entry
    while index.left:
        index.cursor = (index.cursor + 1) & index.old.mask
        index.left -= 1
        entry = &index.old.entries[index.cursor]
        if entry.slot:
            table_put(&index.table, entry.tag, entry.slot)
            entry.slot = 0
        elif entries == 0:
            break
        entries -= entries != 0
    if index.left == 0:
        table_free(&index.old)

cdef inline void index_grow(OrderIndex *index) noexcept nogil:
    cdef uint32_t bits = 36 - index.table.shift
    if index.old.entries != NULL:
        index_move_some(index, index.left)
    INVARIANT(bits <= 32, "the order index has at most 2**32 places")
    index.old = index.table
    table_init(&index.table, bits)
    index.limit = (index.table.mask + 1) // 8 * 5
    index.left = index.old.mask + 1
    index.cursor = 0
    while index.old.entries[index.cursor].slot:
        index.cursor += 1

cdef inline void index_init(OrderIndex *index) noexcept nogil:
    memset(index, 0, sizeof(OrderIndex))
    table_init(&index.table, INDEX_BITS_MIN)
    index.limit = (index.table.mask + 1) // 8 * 5

cdef inline void index_insert(OrderIndex *index, uint32_t account, uint8_t channel,
                              uint32_t user_ref_num, uint32_t slot) noexcept nogil:
    """Add a handle that is not in the index."""
    if index.count >= index.limit:
        index_grow(index)
    if index.old.entries != NULL:
        index_move_some(index, INDEX_MOVES)
    table_put(&index.table, index_tag(account, channel, user_ref_num), slot)
    index.count += 1

cdef inline void index_remove(OrderIndex *index, uint32_t account, uint8_t channel,
                              uint32_t user_ref_num, uint32_t slot) noexcept nogil:
    cdef uint32_t tag = index_tag(account, channel, user_ref_num)
    cdef bint removed = table_remove(&index.table, tag, slot)
    if not removed:
        INVARIANT(index.old.entries != NULL and table_remove(&index.old, tag, slot),
                  "a live order is in the index")
    index.count -= 1

cdef inline void index_free(OrderIndex *index) noexcept nogil:
    if index.old.entries != NULL:
        table_free(&index.old)
    if index.table.entries != NULL:
        table_free(&index.table)

cdef inline void index_prefetch(const OrderIndex *index, uint32_t account, uint8_t channel,
                                uint32_t user_ref_num) noexcept nogil:
    memory_prefetch(&index.table.entries[
        index_home(&index.table, index_tag(account, channel, user_ref_num))])

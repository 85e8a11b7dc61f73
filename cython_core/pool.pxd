# The orders that rest, in one slab that grows in place.
#
# An order is one cache line; links between orders are 32-bit slots, slot 0 is never an order and
# takes the writes of list ends, so that unlinking has no branches. Free slots form a last-in,
# first-out list through `next`: what was touched last is used again first. What matching never
# reads (the client's text) lies in a parallel array, and tags that few orders carry in a side pool.
#
# Memory comes straight from the kernel: it is zero, page aligned, resident only where it was
# touched, and growing it moves page tables, not orders.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cython_core.event cimport ExtOptions
from cython_core.invariant cimport INVARIANT

cdef extern from *:
    """
    #ifndef MATCHD_MEMORY_H
    #define MATCHD_MEMORY_H
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <stddef.h>
    #include <string.h>
    #include <sys/mman.h>
    static inline void memory_free(void *memory, size_t bytes) {
        if (memory != NULL) munmap(memory, bytes);
    }
    /* Whole pages that hold only zeros: the kernel takes them and gives zeros when asked. */
    static inline void memory_release(void *memory, size_t bytes) {
    #ifdef __linux__
        madvise(memory, bytes, MADV_DONTNEED);
    #else
        (void)memory; (void)bytes;
    #endif
    }
    /* Large pages for what is large and used everywhere at once: a random order costs one look
       into the page tables less, and a fork copies one entry where it copied 512. */
    static inline void memory_prefer_large_pages(void *memory, size_t bytes) {
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (memory != NULL && bytes >= (4u << 20)) madvise(memory, bytes, MADV_HUGEPAGE);
    #else
        (void)memory; (void)bytes;
    #endif
    }
    /* Zeroed pages; NULL when there is no memory. Linux moves them without a copy. */
    static inline void *memory_grow(void *memory, size_t old_bytes, size_t new_bytes) {
        void *grown;
    #ifdef MREMAP_MAYMOVE
        if (memory != NULL) {
            grown = mremap(memory, old_bytes, new_bytes, MREMAP_MAYMOVE);
            return grown == MAP_FAILED ? NULL : grown;
        }
    #endif
        grown = mmap(NULL, new_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (grown == MAP_FAILED) return NULL;
        if (memory != NULL) {
            memcpy(grown, memory, old_bytes);
            munmap(memory, old_bytes);
        }
        return grown;
    }
    /* The empty asm keeps GCC from dropping a function that does nothing but fetch. */
    #define memory_prefetch(address)                        \\
        do {                                                \\
            __builtin_prefetch((const void *)(address));    \\
            __asm__ volatile("");                           \\
        } while (0)
    #endif
    """
    void memory_free(void *memory, size_t bytes) noexcept nogil
    void *memory_grow(void *memory, size_t old_bytes, size_t new_bytes) noexcept nogil
    void memory_prefer_large_pages(void *memory, size_t bytes) noexcept nogil
    void memory_release(void *memory, size_t bytes) noexcept nogil
    void memory_prefetch(const void *address) noexcept nogil

# 64 bytes. `order_id` 0 marks a free slot.
cdef struct Order:
    uint64_t open_lots
    uint32_t next               # younger in the same level, or the next free slot
    uint32_t prev
    uint64_t order_id
    uint64_t chain_done_lots    # executed by this order and those that it replaced
    int64_t price_units
    uint32_t user_ref_num
    uint32_t account            # slot in the account table
    uint32_t level
    uint32_t options            # slot in the options pool, 0 for none
    uint16_t instrument_id
    uint8_t user_ref_idx
    uint8_t side
    uint8_t time_in_force
    uint8_t attributes
    uint8_t source
    uint8_t flags

cdef struct ClientText:
    char text[14]
    char reserved[2]

# An option unit in the side pool; a free one keeps the next free slot in `present`, kind 0.
cdef struct Pool:
    Order *orders
    ClientText *clients
    ExtOptions *options
    uint32_t capacity
    uint32_t used               # slots ever handed out, slot 0 included
    uint32_t free_head
    uint32_t live
    uint32_t options_capacity
    uint32_t options_used
    uint32_t options_free
    uint32_t options_live

cdef inline void pool_grow(Pool *pool) noexcept nogil:
    cdef size_t old = pool.capacity
    cdef size_t new = old * 2 if old else 1024
    INVARIANT(new < (<size_t>1 << 32), "at most 2**31 orders can rest")
    pool.orders = <Order *>memory_grow(pool.orders, old * sizeof(Order), new * sizeof(Order))
    pool.clients = <ClientText *>memory_grow(pool.clients, old * sizeof(ClientText),
                                             new * sizeof(ClientText))
    INVARIANT(pool.orders != NULL and pool.clients != NULL, "out of memory for orders")
    memory_prefer_large_pages(pool.orders, new * sizeof(Order))
    memory_prefer_large_pages(pool.clients, new * sizeof(ClientText))
    pool.capacity = <uint32_t>new
    if pool.used == 0:
        pool.used = 1

cdef inline uint32_t pool_take(Pool *pool) noexcept nogil:
    """A free slot; its content is up to the caller. Pointers to orders got before may move."""
    cdef uint32_t slot = pool.free_head
    pool.live += 1
    if slot:
        pool.free_head = pool.orders[slot].next
        return slot
    if pool.used >= pool.capacity:
        pool_grow(pool)
    slot = pool.used
    pool.used += 1
    return slot

cdef inline void pool_give(Pool *pool, uint32_t slot) noexcept nogil:
    cdef Order *order = &pool.orders[slot]
    order.order_id = 0
    order.next = pool.free_head
    pool.free_head = slot
    pool.live -= 1

cdef inline void options_grow(Pool *pool) noexcept nogil:
    cdef size_t old = pool.options_capacity
    cdef size_t new = old * 2 if old else 64
    pool.options = <ExtOptions *>memory_grow(pool.options, old * sizeof(ExtOptions),
                                             new * sizeof(ExtOptions))
    INVARIANT(pool.options != NULL, "out of memory for order options")
    pool.options_capacity = <uint32_t>new
    if pool.options_used == 0:
        pool.options_used = 1

cdef inline uint32_t options_take(Pool *pool, const ExtOptions *options) noexcept nogil:
    """Keep a copy of the options; returns its slot."""
    cdef uint32_t slot = pool.options_free
    if slot:
        pool.options_free = pool.options[slot].present
    else:
        if pool.options_used >= pool.options_capacity:
            options_grow(pool)
        slot = pool.options_used
        pool.options_used += 1
    memcpy(&pool.options[slot], options, sizeof(ExtOptions))
    pool.options_live += 1
    return slot

cdef inline void options_give(Pool *pool, uint32_t slot) noexcept nogil:
    memset(&pool.options[slot], 0, sizeof(ExtOptions))
    pool.options[slot].present = pool.options_free
    pool.options_free = slot
    pool.options_live -= 1

cdef inline void pool_free(Pool *pool) noexcept nogil:
    memory_free(pool.orders, pool.capacity * sizeof(Order))
    memory_free(pool.clients, pool.capacity * sizeof(ClientText))
    memory_free(pool.options, pool.options_capacity * sizeof(ExtOptions))
    memset(pool, 0, sizeof(Pool))

# Price levels: who stands at a price, which prices are taken, and which one is next.
#
# Prices are counted in ticks (price / tick size, at least 1). A level's rank is its tick for bids
# and ~tick for asks, so on both sides a better price is a larger rank, and 0 means none. Levels of
# one side are linked from best to worst; the links alone serve matching.
#
# To find a level by its tick, a book has a window over the ticks around its best prices: one 32-bit
# level number per tick and a bitmap in three layers of 64, which finds the nearest taken tick in a
# few steps. One window serves both sides: no tick is on both. Levels outside the window hang in a
# treap (a search tree kept balanced by a hash of the tick). The window widens and moves when enough
# has happened outside of it to pay for that, so no single order is made slow by it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from cython_core.invariant cimport INVARIANT
from cython_core.pool cimport memory_free, memory_grow

cdef extern from *:
    int __builtin_ctzll(unsigned long long value) noexcept nogil
    int __builtin_clzll(unsigned long long value) noexcept nogil

cdef enum:
    WINDOW_TICKS_MIN = 1024
    WINDOW_TICKS_MAX = 262144   # 64 ** 3, what three layers can hold
    WINDOW_WORK_SHIFT = 4       # move after window_ticks >> 4 visits outside

cdef enum:
    NO_TICK = 0xFFFFFFFF

cdef struct Level:
    uint64_t quantity_lots
    uint32_t head               # oldest order
    uint32_t tail
    uint32_t rank
    uint32_t better             # neighbour levels of the same side, 0 for none
    uint32_t worse
    uint32_t orders

cdef struct FarLinks:
    uint32_t lower
    uint32_t higher

# Level 0 is never a level; its rank is 0 and it takes the writes of list ends.
cdef struct LevelPool:
    Level *items
    FarLinks *far
    uint32_t capacity
    uint32_t used
    uint32_t free_head          # linked through `worse`
    uint32_t live

cdef struct Window:
    uint32_t *levels            # one per tick; the bitmaps follow in the same allocation
    uint64_t *words
    uint64_t *middle
    uint64_t top
    uint32_t base               # tick of levels[0]
    uint32_t ticks              # a power of 4 times 1024, or 0

cdef inline void levels_grow(LevelPool *pool) noexcept nogil:
    cdef size_t old = pool.capacity
    cdef size_t new = old * 2 if old else 256
    INVARIANT(new < (<size_t>1 << 32), "at most 2**31 price levels")
    pool.items = <Level *>memory_grow(pool.items, old * sizeof(Level), new * sizeof(Level))
    pool.far = <FarLinks *>memory_grow(pool.far, old * sizeof(FarLinks), new * sizeof(FarLinks))
    INVARIANT(pool.items != NULL and pool.far != NULL, "out of memory for price levels")
    pool.capacity = <uint32_t>new
    if pool.used == 0:
        pool.used = 1

cdef inline uint32_t levels_take(LevelPool *pool) noexcept nogil:
    cdef uint32_t level = pool.free_head
    pool.live += 1
    if level:
        pool.free_head = pool.items[level].worse
        return level
    if pool.used >= pool.capacity:
        levels_grow(pool)
    level = pool.used
    pool.used += 1
    return level

cdef inline void levels_give(LevelPool *pool, uint32_t level) noexcept nogil:
    pool.items[level].rank = 0
    pool.items[level].worse = pool.free_head
    pool.free_head = level
    pool.live -= 1

cdef inline void levels_free(LevelPool *pool) noexcept nogil:
    memory_free(pool.items, pool.capacity * sizeof(Level))
    memory_free(pool.far, pool.capacity * sizeof(FarLinks))
    memset(pool, 0, sizeof(LevelPool))

# A rank is its tick for bids and ~tick for asks.
cdef inline uint32_t level_tick(const Level *level) noexcept nogil:
    return level.rank if level.rank < <uint32_t>0x80000000 else ~level.rank

# ---- the window -----------------------------------------------------------------------------

cdef inline void window_init(Window *window, uint32_t base, uint32_t ticks) noexcept nogil:
    cdef size_t words = ticks >> 6
    cdef size_t middle = words >> 6 if words >= 64 else 1
    window.levels = <uint32_t *>calloc(1, ticks * 4 + (words + middle) * 8)
    INVARIANT(window.levels != NULL, "out of memory for a book's window")
    window.words = <uint64_t *>(window.levels + ticks)
    window.middle = window.words + words
    window.top = 0
    window.base = base
    window.ticks = ticks

cdef inline void window_set(Window *window, uint32_t tick, uint32_t level) noexcept nogil:
    cdef uint32_t place = tick - window.base
    window.levels[place] = level
    window.words[place >> 6] |= <uint64_t>1 << (place & 63)
    window.middle[place >> 12] |= <uint64_t>1 << (place >> 6 & 63)
    window.top |= <uint64_t>1 << (place >> 12)

cdef inline void window_clear(Window *window, uint32_t tick) noexcept nogil:
    cdef uint32_t place = tick - window.base
    window.levels[place] = 0
    window.words[place >> 6] &= ~(<uint64_t>1 << (place & 63))
    if window.words[place >> 6] == 0:
        window.middle[place >> 12] &= ~(<uint64_t>1 << (place >> 6 & 63))
        if window.middle[place >> 12] == 0:
            window.top &= ~(<uint64_t>1 << (place >> 12))

cdef inline uint64_t bits_above(uint64_t word, uint32_t bit) noexcept nogil:
    return word & (~<uint64_t>0 << bit << 1)

cdef inline uint64_t bits_below(uint64_t word, uint32_t bit) noexcept nogil:
    return word & ((<uint64_t>1 << bit) - 1)

cdef inline uint32_t window_above(const Window *window, uint32_t place) noexcept nogil:
    """The level at the nearest taken place above `place`, or 0."""
    cdef uint32_t index = place >> 6
    cdef uint32_t group = index >> 6
    cdef uint64_t word = bits_above(window.words[index], place & 63)
    if word == 0:
        word = bits_above(window.middle[group], index & 63)
        if word == 0:
            word = bits_above(window.top, group)
            if word == 0:
                return 0
            group = __builtin_ctzll(word)
            word = window.middle[group]
        index = group << 6 | <uint32_t>__builtin_ctzll(word)
        word = window.words[index]
    return window.levels[index << 6 | <uint32_t>__builtin_ctzll(word)]

cdef inline uint32_t window_below(const Window *window, uint32_t place) noexcept nogil:
    """The level at the nearest taken place below `place`, or 0."""
    cdef uint32_t index = place >> 6
    cdef uint32_t group = index >> 6
    cdef uint64_t word = bits_below(window.words[index], place & 63)
    if word == 0:
        word = bits_below(window.middle[group], index & 63)
        if word == 0:
            word = bits_below(window.top, group)
            if word == 0:
                return 0
            group = 63 - __builtin_clzll(word)
            word = window.middle[group]
        index = group << 6 | <uint32_t>(63 - __builtin_clzll(word))
        word = window.words[index]
    return window.levels[index << 6 | <uint32_t>(63 - __builtin_clzll(word))]

cdef inline uint32_t window_first(const Window *window) noexcept nogil:
    """The lowest level in the window, or 0."""
    if window.ticks == 0 or window.top == 0:
        return 0
    return window.levels[0] if window.levels[0] else window_above(window, 0)

cdef inline uint32_t window_last(const Window *window) noexcept nogil:
    """The highest level in the window, or 0."""
    if window.ticks == 0 or window.top == 0:
        return 0
    if window.levels[window.ticks - 1]:
        return window.levels[window.ticks - 1]
    return window_below(window, window.ticks - 1)

# ---- the treap ------------------------------------------------------------------------------

cdef inline uint32_t far_priority(uint32_t tick) noexcept nogil:
    cdef uint32_t value = tick * <uint32_t>0x9E3779B1
    value ^= value >> 15
    value *= <uint32_t>0x85EBCA77
    return value ^ (value >> 13)

cdef inline uint32_t far_find(const LevelPool *pool, uint32_t root, uint32_t tick) noexcept nogil:
    """The level at exactly this tick, or 0."""
    cdef uint32_t at
    while root:
        at = level_tick(&pool.items[root])
        if at == tick:
            return root
        root = pool.far[root].lower if tick < at else pool.far[root].higher
    return 0

cdef inline uint32_t far_above(const LevelPool *pool, uint32_t root, uint32_t tick) noexcept nogil:
    """The level at the nearest tick above `tick`, or 0."""
    cdef uint32_t best = 0
    while root:
        if level_tick(&pool.items[root]) > tick:
            best = root
            root = pool.far[root].lower
        else:
            root = pool.far[root].higher
    return best

cdef inline uint32_t far_below(const LevelPool *pool, uint32_t root, uint32_t tick) noexcept nogil:
    """The level at the nearest tick below `tick`, or 0."""
    cdef uint32_t best = 0
    while root:
        if level_tick(&pool.items[root]) < tick:
            best = root
            root = pool.far[root].higher
        else:
            root = pool.far[root].lower
    return best

cdef inline void far_insert(LevelPool *pool, uint32_t *root, uint32_t level) noexcept nogil:
    """Hang a level in: go down to its place by priority, then split what is there by its tick."""
    cdef uint32_t tick = level_tick(&pool.items[level])
    cdef uint32_t priority = far_priority(tick)
    cdef uint32_t *link = root
    cdef uint32_t *lower = &pool.far[level].lower
    cdef uint32_t *higher = &pool.far[level].higher
    cdef uint32_t at, node
    while link[0]:
        at = level_tick(&pool.items[link[0]])
        if far_priority(at) < priority:
            break
        link = &pool.far[link[0]].lower if tick < at else &pool.far[link[0]].higher
    node = link[0]
    link[0] = level
    while node:
        if level_tick(&pool.items[node]) < tick:
            lower[0] = node
            lower = &pool.far[node].higher
            node = lower[0]
        else:
            higher[0] = node
            higher = &pool.far[node].lower
            node = higher[0]
    lower[0] = 0
    higher[0] = 0

cdef inline void far_remove(LevelPool *pool, uint32_t *root, uint32_t level) noexcept nogil:
    """Take a level out: its two subtrees are merged in its place."""
    cdef uint32_t tick = level_tick(&pool.items[level])
    cdef uint32_t *link = root
    cdef uint32_t low, high
    while link[0] != level:
        INVARIANT(link[0] != 0, "a far level is in its tree")
        if tick < level_tick(&pool.items[link[0]]):
            link = &pool.far[link[0]].lower
        else:
            link = &pool.far[link[0]].higher
    low = pool.far[level].lower
    high = pool.far[level].higher
    while low and high:
        if far_priority(level_tick(&pool.items[low])) \
                >= far_priority(level_tick(&pool.items[high])):
            link[0] = low
            link = &pool.far[low].higher
            low = link[0]
        else:
            link[0] = high
            link = &pool.far[high].lower
            high = link[0]
    link[0] = low if low else high

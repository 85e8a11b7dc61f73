# The book of one instrument: two sides of price levels, each a queue of orders.
#
# Everything that runs once per order is inline here, so that the matcher's loop is one piece of
# machine code. Moving a window and checking a book are in book.pyx.
#
# Side 0 is bids, side 1 asks. See levels.pxd for ticks, ranks and the window.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cython_core.levels cimport *
from cython_core.model cimport PRICE_LIMIT_MAX
from cython_core.pool cimport Order, Pool

cdef extern from *:
    """
    #ifndef MATCHD_TICKS_H
    #define MATCHD_TICKS_H
    /* n / d for n and d below 2**31, given inverse = ceil(2**63 / d): exact, and no division. */
    static inline unsigned int divide_by_inverse(unsigned int n, unsigned long long inverse) {
        return (unsigned int)(((unsigned __int128)inverse * n) >> 63);
    }
    #endif
    """
    uint32_t divide_by_inverse(uint32_t n, uint64_t inverse) noexcept nogil

cdef struct Book:
    # what an incoming order looks at first
    uint32_t best_rank[2]       # 0: the side is empty
    uint32_t best_level[2]
    uint32_t tick_units
    uint32_t orders
    int64_t last_trade_units    # 0: none yet
    uint64_t quantity_max_lots
    uint64_t tick_inverse
    Window window
    # levels outside the window
    uint32_t far_root
    uint32_t far_levels
    uint32_t far_visits         # since the window moved
    uint32_t levels
    uint16_t instrument_id      # 0: not defined
    uint8_t open                # defined, and not halted
    uint8_t reserved[21]

cdef inline uint32_t side_of(uint8_t side) noexcept nogil:
    """Row of a side: 0 for B, 1 for the three kinds of sell."""
    return side != c'B'

cdef inline uint32_t rank_of(uint32_t tick, uint32_t side) noexcept nogil:
    return tick ^ (0 - side)

cdef inline uint32_t tick_of(uint32_t rank, uint32_t side) noexcept nogil:
    return rank ^ (0 - side)

cdef inline void set_tick(Book *book, uint32_t tick_units) noexcept nogil:
    book.tick_units = tick_units
    book.tick_inverse = ((<uint64_t>1 << 63) - 1) // tick_units + 1

cdef inline bint tick_from_price(const Book *book, int64_t price_units,
                                 uint32_t *tick) noexcept nogil:
    """Whether a limit price is allowed here; `tick` gets it in ticks."""
    if price_units < 1 or price_units > PRICE_LIMIT_MAX:
        return False
    tick[0] = divide_by_inverse(<uint32_t>price_units, book.tick_inverse)
    return tick[0] * book.tick_units == <uint32_t>price_units

cdef inline uint32_t choose(uint32_t condition, uint32_t yes, uint32_t no) noexcept nogil:
    """`yes` if the condition is not 0, without a branch: it can't be foreseen here."""
    return no ^ ((yes ^ no) & (0 - <uint32_t>(condition != 0)))

cdef inline int64_t best_price(const Book *book, uint32_t side) noexcept nogil:
    """The best price of a side in units, 0 when the side is empty."""
    if book.best_rank[side] == 0:
        return 0
    return <int64_t>tick_of(book.best_rank[side], side) * book.tick_units

cdef void book_move_window(Book *book, LevelPool *pool, uint32_t tick) noexcept nogil
cdef object book_check(const Book *book, const LevelPool *levels, const Pool *pool)
cdef void book_free(Book *book) noexcept nogil

cdef inline bint book_in_window(const Book *book, uint32_t tick) noexcept nogil:
    return tick - book.window.base < book.window.ticks

cdef inline uint32_t book_find_level(const Book *book, const LevelPool *pool,
                                     uint32_t tick) noexcept nogil:
    """The level at a tick, or 0."""
    if book_in_window(book, tick):
        return book.window.levels[tick - book.window.base]
    return far_find(pool, book.far_root, tick)

cdef inline uint32_t book_above(const Book *book, const LevelPool *pool,
                                uint32_t tick) noexcept nogil:
    """The level at the nearest taken tick above, or 0."""
    cdef const Window *window = &book.window
    cdef uint32_t level
    if book_in_window(book, tick):
        level = window_above(window, tick - window.base)
        if level or book.far_root == 0:
            return level
        return far_above(pool, book.far_root, window.base + window.ticks - 1)
    level = far_above(pool, book.far_root, tick)
    if tick < window.base and window.top:
        if level == 0 or level_tick(&pool.items[level]) >= window.base:
            return window_first(window)
    return level

cdef inline uint32_t book_below(const Book *book, const LevelPool *pool,
                                uint32_t tick) noexcept nogil:
    """The level at the nearest taken tick below, or 0."""
    cdef const Window *window = &book.window
    cdef uint32_t level
    if book_in_window(book, tick):
        level = window_below(window, tick - window.base)
        if level or book.far_root == 0:
            return level
        return far_below(pool, book.far_root, window.base)
    level = far_below(pool, book.far_root, tick)
    if tick >= window.base and window.top:
        if level == 0 or level_tick(&pool.items[level]) < window.base:
            return window_last(window)
    return level

cdef inline uint32_t book_add_level(Book *book, LevelPool *pool, uint32_t side,
                                    uint32_t tick) noexcept nogil:
    """A new, empty level, linked in between its neighbours."""
    cdef uint32_t level = levels_take(pool)
    cdef uint32_t rank = rank_of(tick, side)
    cdef uint32_t better = 0
    cdef uint32_t worse
    cdef Level *item = &pool.items[level]
    item.quantity_lots = 0
    item.head = 0
    item.tail = 0
    item.orders = 0
    item.rank = rank
    book.levels += 1
    if rank > book.best_rank[side]:
        worse = book.best_level[side]
        book.best_level[side] = level
        book.best_rank[side] = rank
    else:
        better = book_below(book, pool, tick) if side else book_above(book, pool, tick)
        worse = pool.items[better].worse
        pool.items[better].worse = level
    item.better = better
    item.worse = worse
    pool.items[worse].better = level
    if book_in_window(book, tick):
        window_set(&book.window, tick, level)
        return level
    far_insert(pool, &book.far_root, level)
    book.far_levels += 1
    book.far_visits += 1
    if book.far_visits > book.window.ticks >> WINDOW_WORK_SHIFT:
        book_move_window(book, pool, tick)
    return level

cdef inline void book_drop_level(Book *book, LevelPool *pool, uint32_t side,
                                 uint32_t level) noexcept nogil:
    """Unlink an empty level."""
    cdef Level *item = &pool.items[level]
    cdef uint32_t better = item.better
    cdef uint32_t worse = item.worse
    cdef uint32_t tick = tick_of(item.rank, side)
    pool.items[better].worse = worse
    pool.items[worse].better = better
    if better == 0:
        book.best_level[side] = worse
        book.best_rank[side] = pool.items[worse].rank
    if book_in_window(book, tick):
        window_clear(&book.window, tick)
    else:
        far_remove(pool, &book.far_root, level)
        book.far_levels -= 1
    book.levels -= 1
    levels_give(pool, level)

cdef inline void book_add(Book *book, LevelPool *levels, Order *orders, uint32_t slot,
                          uint32_t side, uint32_t tick) noexcept nogil:
    """Put the order behind all others at its price."""
    cdef uint32_t level = book_find_level(book, levels, tick)
    cdef uint32_t tail
    cdef Level *item
    cdef Order *order = &orders[slot]
    if level == 0:
        level = book_add_level(book, levels, side, tick)
    item = &levels.items[level]
    tail = item.tail
    item.tail = slot
    item.head = choose(tail, item.head, slot)
    orders[tail].next = slot
    item.quantity_lots += order.open_lots
    item.orders += 1
    book.orders += 1
    order.prev = tail
    order.next = 0
    order.level = level

cdef inline void book_remove(Book *book, LevelPool *levels, Order *orders,
                             const Order *order) noexcept nogil:
    """Take an order out of its queue, with whatever it has open."""
    cdef uint32_t level = order.level
    cdef Level *item = &levels.items[level]
    cdef uint32_t next = order.next
    cdef uint32_t prev = order.prev
    item.quantity_lots -= order.open_lots
    item.orders -= 1
    book.orders -= 1
    item.head = choose(prev, item.head, next)
    item.tail = choose(next, item.tail, prev)
    orders[prev].next = next
    orders[next].prev = prev
    if item.orders == 0:
        book_drop_level(book, levels, side_of(order.side), level)

cdef inline uint64_t book_available(const Book *book, const LevelPool *levels, uint32_t side,
                                    uint32_t rank, uint64_t wanted) noexcept nogil:
    """Lots on a side at this rank or better, counted until `wanted` are found."""
    cdef uint32_t level = book.best_level[side]
    cdef uint64_t found = 0
    while level and levels.items[level].rank >= rank and found < wanted:
        found += levels.items[level].quantity_lots
        level = levels.items[level].worse
    return found

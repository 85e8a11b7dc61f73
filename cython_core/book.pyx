# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The rare work on a book: moving its window of ticks, and checking all of it."""

from libc.stdlib cimport free
from libc.string cimport memset


cdef void book_free(Book *book) noexcept nogil:
    """Give the window back; the levels belong to the pool."""
    free(book.window.levels)
    memset(book, 0, sizeof(Book))


cdef uint32_t window_base_for(const Book *book, uint32_t tick, uint32_t ticks) noexcept nogil:
    """Where a window of `ticks` starts so that it holds the best prices, and `tick` if it can."""
    cdef uint32_t low = tick
    cdef uint32_t high = tick
    cdef uint32_t side, at, room
    for side in range(2):
        if book.best_rank[side]:
            at = tick_of(book.best_rank[side], side)
            low = min(low, at)
            high = max(high, at)
    if high - low >= ticks:
        side = 0 if book.best_rank[0] else 1
        low = tick_of(book.best_rank[side], side)
        high = low
    room = (ticks - (high - low)) // 2
    return low - room if low > room else 0


cdef void book_move_window(Book *book, LevelPool *pool, uint32_t tick) noexcept nogil:
    """Widen the window, or move it, so that it lies around the best prices.

    Costs the width of the window. Levels that are no longer inside go to the tree of far levels,
    those that are inside now come from it.
    """
    cdef Window old = book.window
    cdef uint32_t ticks = WINDOW_TICKS_MIN if old.ticks == 0 else old.ticks * 4
    cdef uint32_t level, next
    ticks = min(ticks, <uint32_t>WINDOW_TICKS_MAX)
    window_init(&book.window, window_base_for(book, tick, ticks), ticks)
    level = window_first(&old)
    while level:
        tick = level_tick(&pool.items[level])
        next = window_above(&old, tick - old.base)
        if book_in_window(book, tick):
            window_set(&book.window, tick, level)
        else:
            far_insert(pool, &book.far_root, level)
            book.far_levels += 1
        level = next
    free(old.levels)
    tick = book.window.base
    level = far_above(pool, book.far_root, tick - 1 if tick else 0)
    while level and book_in_window(book, level_tick(&pool.items[level])):
        far_remove(pool, &book.far_root, level)
        book.far_levels -= 1
        tick = level_tick(&pool.items[level])
        window_set(&book.window, tick, level)
        level = far_above(pool, book.far_root, tick)
    book.far_visits = 0


cdef str check_level(const Book *book, const LevelPool *levels, const Pool *pool, uint32_t side,
                     uint32_t level):
    """What is wrong with one level and its queue, or None."""
    cdef const Level *item = &levels.items[level]
    cdef uint32_t slot = item.head
    cdef uint32_t previous = 0
    cdef uint64_t lots = 0
    cdef uint32_t orders = 0
    cdef const Order *order
    while slot:
        order = &pool.orders[slot]
        if slot >= pool.used or order.order_id == 0:
            return f"slot {slot} in a queue is not a live order"
        if order.prev != previous or order.level != level:
            return f"order {order.order_id} has a wrong link"
        if order.instrument_id != book.instrument_id or side_of(order.side) != side:
            return f"order {order.order_id} is in the wrong book or on the wrong side"
        if order.price_units != <int64_t>tick_of(item.rank, side) * book.tick_units:
            return f"order {order.order_id} stands at another price than its level"
        if previous and pool.orders[previous].order_id >= order.order_id:
            return f"order {order.order_id} is younger than the one behind it"
        if order.open_lots == 0:
            return f"order {order.order_id} rests with nothing open"
        lots += order.open_lots
        orders += 1
        if orders > item.orders:
            return f"level {item.rank} has more orders than it counts"
        previous = slot
        slot = order.next
    if item.tail != previous or orders != item.orders or lots != item.quantity_lots:
        return f"level {item.rank} has {orders} orders with {lots} lots, it says otherwise"
    return None if orders else f"level {item.rank} is empty"


cdef object book_check(const Book *book, const LevelPool *levels, const Pool *pool):
    """What is wrong with a book, or None: links, totals, order of prices, bitmaps, best prices."""
    cdef uint32_t side, level, better, rank, tick
    cdef uint32_t seen = 0
    cdef uint64_t orders = 0
    for side in range(2):
        better = 0
        rank = book.best_rank[side]
        level = book.best_level[side]
        if (levels.items[level].rank if level else 0) != rank:
            return "the best price is not that of the best level"
        while level:
            if levels.items[level].better != better:
                return f"level {levels.items[level].rank} has a wrong link to the better one"
            if better and levels.items[level].rank >= levels.items[better].rank:
                return f"level {levels.items[level].rank} is out of order"
            tick = tick_of(levels.items[level].rank, side)
            if book_find_level(book, levels, tick) != level:
                return f"level at tick {tick} can't be found by its tick"
            wrong = check_level(book, levels, pool, side, level)
            if wrong is not None:
                return wrong
            orders += levels.items[level].orders
            seen += 1
            if seen > book.levels:
                return "more levels are linked than counted"
            better = level
            level = levels.items[level].worse
    if seen != book.levels or orders != book.orders:
        return f"{seen} levels with {orders} orders are linked, the book says otherwise"
    if book.best_rank[0] and book.best_rank[1] and book.best_rank[0] >= ~book.best_rank[1]:
        return "the book is crossed"
    return check_window(book, levels)


cdef object check_window(const Book *book, const LevelPool *levels):
    """What is wrong with the bitmaps and the count of far levels, or None."""
    cdef const Window *window = &book.window
    cdef uint32_t place, level
    cdef uint32_t inside = 0
    for place in range(window.ticks):
        level = window.levels[place]
        inside += level != 0
        if (window.words[place >> 6] >> (place & 63) & 1) != (level != 0):
            return f"bit of tick {window.base + place} is wrong"
        if level and level_tick(&levels.items[level]) != window.base + place:
            return f"tick {window.base + place} names a level of another price"
    for place in range(window.ticks >> 6):
        if (window.middle[place >> 6] >> (place & 63) & 1) != (window.words[place] != 0):
            return f"bitmap layer 2 is wrong at {place}"
    for place in range((window.ticks + 4095) >> 12):
        if (window.top >> place & 1) != (window.middle[place] != 0):
            return f"bitmap layer 3 is wrong at {place}"
    if inside + book.far_levels != book.levels:
        return f"{inside} levels in the window and {book.far_levels} far ones, not {book.levels}"
    return None

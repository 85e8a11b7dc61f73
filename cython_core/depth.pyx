# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Books of price levels and of orders, rebuilt from committed events alone.

A book is opened with a picture of it at some seq and then follows the events behind that seq. Only
instruments that are open cost anything: a batch is not even looked at while none is.

Levels need no map of orders. A fill names the maker's price, a replacement the original's price and
what was open of it, a cancel its own; and what rests of an order is what its command's other events
left of it, so it rests when the next command begins. The book of single orders, with its queues, is
kept only where it was asked for.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from zlib import crc32

from cython_core.book cimport *
from cython_core.event cimport *
from cython_core.invariant cimport INVARIANT
from cython_core.levels cimport *
from cython_core.model cimport *
from cython_core.pool cimport *
from cython_core.text cimport TEXT_DECIMALS_MAX, text_decimal, text_digits

from cython_core.errors import CoreError

cdef enum:
    INSTRUMENTS = 65536
    CRC_LEVELS = 10
    IDS_MIN = 1024
    ORDER_EVENTS_MAX = 1 << 20

cdef enum:
    WHAT_ADD = 0
    WHAT_REDUCE = 1
    WHAT_REMOVE = 2
    WHAT_FILL = 3

cdef tuple _WHAT = ("add", "reduce", "remove", "fill")
cdef tuple _SIDES = ("buy", "sell")

# What happened to one order of a book of orders.
cdef struct OrderEvent:
    uint64_t seq
    uint64_t order_id
    int64_t price_units
    uint64_t lots
    uint64_t remaining
    uint8_t what
    uint8_t row

# One instrument. `book` has levels only; `queues` the orders too.
cdef struct Depth:
    Book book
    uint64_t seq                # the levels hold everything up to here
    uint64_t version            # counts changes of the levels
    uint16_t instrument_id
    bint opened
    bint dirty
    uint8_t price_decimals
    uint8_t quantity_decimals
    uint64_t lot_size
    uint32_t tick_units         # as defined, 0 for unknown
    bint has_orders
    uint64_t orders_seq
    OrderEvent *events
    size_t events_count
    size_t events_capacity
    bint events_lost
    Book queues

# Where an order is, by its id: open addressing, no traces after removal.
cdef struct IdPlace:
    uint64_t order_id           # 0: free
    uint64_t slot

cdef struct IdMap:
    IdPlace *places
    uint64_t mask
    uint64_t used

# The order of the command at hand; depth NULL for none.
cdef struct Incoming:
    Depth *depth
    uint64_t seq
    uint64_t order_id
    int64_t price_units
    uint64_t open_lots
    uint8_t side

# Everything that a pass over events changes.
cdef struct Shelf:
    Depth **live                # by instrument id, NULL unless open
    LevelPool levels
    Pool pool
    IdMap ids
    Incoming incoming
    uint64_t seq                # of the event at hand
    uint32_t *touched
    uint32_t touched_count


# ---- the map of order ids -------------------------------------------------------------------

cdef inline uint64_t id_home(const IdMap *ids, uint64_t order_id) noexcept nogil:
    return (order_id * <uint64_t>0x9E3779B97F4A7C15 >> 20) & ids.mask


cdef void ids_put(IdMap *ids, uint64_t order_id, uint32_t slot) noexcept nogil:
    cdef IdMap grown
    cdef uint64_t place
    if ids.used * 2 >= ids.mask:
        grown.mask = ids.mask * 2 + 1 if ids.places != NULL else IDS_MIN - 1
        grown.used = 0
        grown.places = <IdPlace *>calloc(grown.mask + 1, sizeof(IdPlace))
        INVARIANT(grown.places != NULL, "out of memory for order ids")
        if ids.places != NULL:
            for place in range(ids.mask + 1):
                if ids.places[place].order_id:
                    ids_put(&grown, ids.places[place].order_id,
                            <uint32_t>ids.places[place].slot)
        free(ids.places)
        ids[0] = grown
    place = id_home(ids, order_id)
    while ids.places[place].order_id:
        place = (place + 1) & ids.mask
    ids.places[place].order_id = order_id
    ids.places[place].slot = slot
    ids.used += 1


cdef uint32_t ids_find(const IdMap *ids, uint64_t order_id) noexcept nogil:
    """The slot of an order, 0 when it is not there."""
    cdef uint64_t place
    if ids.places == NULL or order_id == 0:
        return 0
    place = id_home(ids, order_id)
    while ids.places[place].order_id:
        if ids.places[place].order_id == order_id:
            return <uint32_t>ids.places[place].slot
        place = (place + 1) & ids.mask
    return 0


cdef void ids_drop(IdMap *ids, uint64_t order_id) noexcept nogil:
    """Take an id out that is there; what follows moves up into the gap."""
    cdef uint64_t gap = id_home(ids, order_id)
    cdef uint64_t place, home
    while ids.places[gap].order_id != order_id:
        gap = (gap + 1) & ids.mask
    place = gap
    while True:
        place = (place + 1) & ids.mask
        if ids.places[place].order_id == 0:
            break
        home = id_home(ids, ids.places[place].order_id)
        if ((place - home) & ids.mask) >= ((place - gap) & ids.mask):
            ids.places[gap] = ids.places[place]
            gap = place
    ids.places[gap].order_id = 0
    ids.used -= 1


# ---- levels ---------------------------------------------------------------------------------

cdef uint32_t greatest_common(uint32_t a, uint32_t b) noexcept nogil:
    cdef uint32_t rest
    while b:
        rest = a % b
        a = b
        b = rest
    return a


cdef void book_regrid(Book *book, LevelPool *pool, uint32_t tick_units) noexcept nogil:
    """Count the book's prices in smaller ticks; `tick_units` divides the old ones."""
    cdef uint32_t factor = book.tick_units // tick_units
    cdef uint32_t side, level
    free(book.window.levels)
    memset(&book.window, 0, sizeof(Window))
    set_tick(book, tick_units)
    book.far_root = 0
    book.far_levels = 0
    for side in range(2):
        level = book.best_level[side]
        while level:
            pool.items[level].rank = rank_of(tick_of(pool.items[level].rank, side) * factor, side)
            far_insert(pool, &book.far_root, level)
            book.far_levels += 1
            level = pool.items[level].worse
        book.best_rank[side] = pool.items[book.best_level[side]].rank
    level = book.best_level[0] if book.best_level[0] else book.best_level[1]
    if level:
        book_move_window(book, pool, level_tick(&pool.items[level]))


cdef bint tick_for(Book *book, LevelPool *pool, int64_t price_units,
                   uint32_t *tick) noexcept nogil:
    """The tick of a price that may be new to the grid. False for no limit price."""
    if price_units < 1 or price_units > PRICE_LIMIT_MAX:
        return False
    if book.tick_units == 0:
        set_tick(book, <uint32_t>price_units)
    elif price_units % book.tick_units:
        book_regrid(book, pool, greatest_common(book.tick_units, <uint32_t>price_units))
    return tick_from_price(book, price_units, tick)


cdef inline uint32_t level_for(Book *book, LevelPool *pool, uint32_t row,
                               int64_t price_units) noexcept nogil:
    """The level at a price of a side, made when there is none; 0 for no limit price."""
    cdef uint32_t tick = 0
    cdef uint32_t level
    if not tick_from_price(book, price_units, &tick):
        if not tick_for(book, pool, price_units, &tick):
            return 0
    level = book_find_level(book, pool, tick)
    return level if level else book_add_level(book, pool, row, tick)


cdef inline void touch(Shelf *shelf, Depth *depth) noexcept nogil:
    depth.version += 1
    if not depth.dirty:
        depth.dirty = True
        shelf.touched[shelf.touched_count] = depth.instrument_id
        shelf.touched_count += 1


cdef inline const char *level_add(Shelf *shelf, Depth *depth, uint32_t row, int64_t price_units,
                                  uint64_t lots) noexcept nogil:
    """An order comes to rest."""
    cdef uint32_t level = level_for(&depth.book, &shelf.levels, row, price_units)
    cdef Level *item = &shelf.levels.items[level]
    if level == 0 or (item.rank < <uint32_t>0x80000000) == row:
        return "an order rests where it can't"
    item.quantity_lots += lots
    item.orders += 1
    touch(shelf, depth)
    return NULL


cdef inline const char *level_take(Shelf *shelf, Depth *depth, uint32_t row, int64_t price_units,
                                   uint64_t lots, uint32_t orders) noexcept nogil:
    """Lots come off a level, and that many orders with them."""
    cdef Book *book = &depth.book
    cdef uint32_t tick = 0
    cdef uint32_t level = 0
    cdef Level *item
    if tick_from_price(book, price_units, &tick):
        level = book_find_level(book, &shelf.levels, tick)
    item = &shelf.levels.items[level]
    if level == 0 or item.quantity_lots < lots or item.orders < orders:
        return "more comes off a level than it has"
    item.quantity_lots -= lots
    item.orders -= orders
    touch(shelf, depth)
    if item.orders == 0:
        if item.quantity_lots:
            return "a level without orders has lots"
        book_drop_level(book, &shelf.levels, row, level)
    return NULL


cdef void book_clear(Book *book, LevelPool *pool) noexcept nogil:
    """Give every level back, and the window."""
    cdef uint32_t side, level, worse
    for side in range(2):
        level = book.best_level[side]
        while level:
            worse = pool.items[level].worse
            levels_give(pool, level)
            level = worse
    book_free(book)


# ---- orders ---------------------------------------------------------------------------------

cdef void note_order(Shelf *shelf, Depth *depth, const OrderEvent *event) noexcept nogil:
    """Keep what happened to an order until it is asked for."""
    cdef size_t capacity
    if depth.events_count == depth.events_capacity:
        if depth.events_count >= ORDER_EVENTS_MAX:
            depth.events_lost = True
            return
        capacity = depth.events_capacity * 2 if depth.events_capacity else 64
        depth.events = <OrderEvent *>realloc(depth.events, capacity * sizeof(OrderEvent))
        INVARIANT(depth.events != NULL, "out of memory for the events of orders")
        depth.events_capacity = capacity
    depth.events[depth.events_count] = event[0]
    depth.events_count += 1
    touch(shelf, depth)


cdef const char *order_add(Shelf *shelf, Depth *depth, uint64_t order_id, uint8_t side,
                           int64_t price_units, uint64_t lots) noexcept nogil:
    """An order joins the end of its queue."""
    cdef uint32_t tick = 0
    cdef uint32_t slot
    cdef Order *order
    if not tick_for(&depth.queues, &shelf.levels, price_units, &tick):
        return "an order rests where it can't"
    slot = pool_take(&shelf.pool)
    order = &shelf.pool.orders[slot]
    order.order_id = order_id
    order.open_lots = lots
    order.price_units = price_units
    order.instrument_id = depth.instrument_id
    order.side = side
    ids_put(&shelf.ids, order_id, slot)
    book_add(&depth.queues, &shelf.levels, shelf.pool.orders, slot, side_of(side), tick)
    return NULL


cdef void order_drop(Shelf *shelf, Depth *depth, uint32_t slot) noexcept nogil:
    cdef Order *order = &shelf.pool.orders[slot]
    book_remove(&depth.queues, &shelf.levels, shelf.pool.orders, order)
    ids_drop(&shelf.ids, order.order_id)
    pool_give(&shelf.pool, slot)


cdef const char *order_take(Shelf *shelf, Depth *depth, uint64_t order_id, uint64_t lots,
                            uint64_t remaining, uint8_t what) noexcept nogil:
    """Lots come off an order; with nothing left it goes."""
    cdef uint32_t slot = ids_find(&shelf.ids, order_id)
    cdef Order *order = &shelf.pool.orders[slot]
    cdef OrderEvent event
    if slot == 0 or order.instrument_id != depth.instrument_id \
            or order.open_lots != remaining + lots:
        return "an order that changes is not as it should be"
    event.seq = shelf.seq
    event.order_id = order_id
    event.price_units = order.price_units
    event.lots = lots
    event.remaining = remaining
    event.what = what
    event.row = <uint8_t>side_of(order.side)
    note_order(shelf, depth, &event)
    if remaining == 0:
        order_drop(shelf, depth, slot)
        return NULL
    shelf.levels.items[order.level].quantity_lots -= lots
    order.open_lots = remaining
    return NULL


cdef const char *order_rests(Shelf *shelf, Depth *depth,
                             const Incoming *incoming) noexcept nogil:
    """What is left of an order after its command; the last event of the command names it."""
    cdef OrderEvent event
    event.seq = shelf.seq - 1
    event.order_id = incoming.order_id
    event.price_units = incoming.price_units
    event.lots = incoming.open_lots
    event.remaining = incoming.open_lots
    event.what = WHAT_ADD
    event.row = <uint8_t>side_of(incoming.side)
    note_order(shelf, depth, &event)
    return order_add(shelf, depth, incoming.order_id, incoming.side, incoming.price_units,
                     incoming.open_lots)


cdef const char *order_event(Shelf *shelf, Depth *depth, const Event *event) noexcept nogil:
    """One event of an instrument whose orders are kept."""
    cdef const Fill *fill = <const Fill *>event
    cdef const Canceled *canceled = <const Canceled *>event
    cdef const ExtReplace *ext = <const ExtReplace *>&event[1]
    cdef uint32_t slot
    if event.kind == EV_FILL:
        slot = ids_find(&shelf.ids, fill.maker_order_id)
        if slot == 0 or shelf.pool.orders[slot].open_lots < fill.quantity_lots:
            return "the maker of a fill is not in its book"
        return order_take(shelf, depth, fill.maker_order_id, fill.quantity_lots,
                          shelf.pool.orders[slot].open_lots - fill.quantity_lots, WHAT_FILL)
    if event.kind == EV_CANCELED:
        return order_take(shelf, depth, event.order_id, event.quantity_lots,
                          canceled.remaining_lots,
                          WHAT_REDUCE if canceled.remaining_lots else WHAT_REMOVE)
    if event.kind == EV_MODIFIED and (<const Modified *>event).reduced_lots:
        return order_take(shelf, depth, event.order_id, (<const Modified *>event).reduced_lots,
                          event.quantity_lots, WHAT_REDUCE)
    if event.kind == EV_REPLACED:
        return order_take(shelf, depth, ext.orig_order_id, ext.orig_open_lots, 0, WHAT_REMOVE)
    return NULL


# ---- a pass over events ---------------------------------------------------------------------

cdef inline const char *settle(Shelf *shelf) noexcept nogil:
    """The events of a command are over: what is open of its order rests."""
    cdef Incoming *incoming = &shelf.incoming
    cdef Depth *depth = incoming.depth
    cdef const char *trouble = NULL
    incoming.depth = NULL
    if incoming.open_lots == 0:
        return NULL
    if incoming.seq > depth.seq:
        trouble = level_add(shelf, depth, side_of(incoming.side), incoming.price_units,
                            incoming.open_lots)
    if depth.has_orders and trouble == NULL and incoming.seq > depth.orders_seq:
        trouble = order_rests(shelf, depth, incoming)
    return trouble


cdef inline void set_incoming(Shelf *shelf, Depth *depth, const Event *event) noexcept nogil:
    cdef Incoming *incoming = &shelf.incoming
    incoming.depth = depth
    incoming.seq = shelf.seq
    incoming.order_id = event.order_id
    incoming.price_units = event.price_units
    incoming.open_lots = event.quantity_lots
    incoming.side = event.side


cdef inline const char *apply_fill(Shelf *shelf, Depth *depth, const Fill *fill) noexcept nogil:
    cdef Incoming *incoming = &shelf.incoming
    cdef const char *trouble = NULL
    if incoming.depth == depth:
        if incoming.open_lots < fill.quantity_lots:
            return "an order trades more than it has"
        incoming.open_lots -= fill.quantity_lots
    if shelf.seq > depth.seq:
        trouble = level_take(shelf, depth, side_of(fill.taker_side) ^ 1, fill.price_units,
                             fill.quantity_lots, fill.flags & FILL_MAKER_DONE)
    if depth.has_orders and trouble == NULL and shelf.seq > depth.orders_seq:
        trouble = order_event(shelf, depth, <const Event *>fill)
    return trouble


cdef inline const char *apply_change(Shelf *shelf, Depth *depth,
                                     const Event *event) noexcept nogil:
    """Everything but a fill that changes the book of an open instrument."""
    cdef const Canceled *canceled = <const Canceled *>event
    cdef const ExtReplace *ext = <const ExtReplace *>&event[1]
    cdef const char *trouble = NULL
    cdef bint known = shelf.seq > depth.seq
    if event.kind == EV_ACCEPTED:
        set_incoming(shelf, depth, event)
        return NULL
    if event.kind == EV_CANCELED:
        if shelf.incoming.depth == depth and shelf.incoming.order_id == event.order_id:
            shelf.incoming.open_lots = canceled.remaining_lots
            return NULL
        if known:
            trouble = level_take(shelf, depth, side_of(event.side), event.price_units,
                                 event.quantity_lots, canceled.remaining_lots == 0)
    elif event.kind == EV_MODIFIED:
        if known and (<const Modified *>event).reduced_lots:
            trouble = level_take(shelf, depth, side_of(event.side), event.price_units,
                                 (<const Modified *>event).reduced_lots, 0)
    elif event.kind == EV_REPLACED:
        if event.ext_count == 0 or ext.kind != EXT_REPLACE:
            return "a replacement does not name its original"
        if known:
            trouble = level_take(shelf, depth, side_of(ext.orig_side), ext.orig_price_units,
                                 ext.orig_open_lots, 1)
        set_incoming(shelf, depth, event)
    if depth.has_orders and trouble == NULL and shelf.seq > depth.orders_seq:
        trouble = order_event(shelf, depth, event)
    return trouble


cdef const char *apply_units(Shelf *shelf, const Event *events, size_t units) noexcept nogil:
    """Take whole commands. Returns NULL, or what did not fit; `shelf.seq` then names the event."""
    cdef const char *trouble = NULL
    cdef size_t position = 0
    cdef const Event *event
    cdef Depth *depth
    while position < units and trouble == NULL:
        event = &events[position]
        position += 1 + <size_t>event.ext_count
        if position > units:
            return "its extension units are missing"
        shelf.seq += 1
        if event.kind == EV_FILL:
            depth = shelf.live[event.instrument_id]
            if depth != NULL:
                trouble = apply_fill(shelf, depth, <const Fill *>event)
            continue
        if shelf.incoming.depth != NULL and event.flags & FLAG_FIRST:
            trouble = settle(shelf)
            if trouble != NULL:
                break
        if event.kind >= EV_ACCEPTED and event.kind <= EV_MODIFIED:
            depth = shelf.live[event.instrument_id]
            if depth != NULL:
                trouble = apply_change(shelf, depth, event)
    if trouble == NULL and shelf.incoming.depth != NULL:
        shelf.seq += 1
        trouble = settle(shelf)
        shelf.seq -= 1
    return trouble


cdef size_t skip_events(const Event *events, size_t units, uint64_t count) noexcept nogil:
    """Where the event stands that `count` others stand before."""
    cdef size_t position = 0
    while count and position < units:
        position += 1 + <size_t>events[position].ext_count
        count -= 1
    return min(position, units)


# ---- Python ---------------------------------------------------------------------------------

cdef class Books:
    """Levels, and where asked for the single orders, of the instruments that are open.

    Prices are wire units, quantities lots. One owner at a time; not safe for two threads at once.
    An instrument that is not open raises KeyError wherever its book is asked for.
    """

    cdef Shelf shelf
    cdef Depth **known
    cdef uint64_t _applied_seq
    cdef uint32_t _open

    def __cinit__(self, *_args, **_names):
        memset(&self.shelf, 0, sizeof(Shelf))
        self.shelf.live = <Depth **>calloc(INSTRUMENTS, sizeof(Depth *))
        self.known = <Depth **>calloc(INSTRUMENTS, sizeof(Depth *))
        self.shelf.touched = <uint32_t *>calloc(INSTRUMENTS, sizeof(uint32_t))
        if self.shelf.live == NULL or self.known == NULL or self.shelf.touched == NULL:
            raise MemoryError
        levels_grow(&self.shelf.levels)
        pool_grow(&self.shelf.pool)

    def __init__(self, applied_seq=0):
        self._applied_seq = applied_seq

    def __dealloc__(self):
        cdef uint32_t number
        if self.known != NULL:
            for number in range(<uint32_t>INSTRUMENTS):
                if self.known[number] != NULL:
                    book_free(&self.known[number].book)
                    book_free(&self.known[number].queues)
                    free(self.known[number].events)
                    free(self.known[number])
        free(self.known)
        free(self.shelf.live)
        free(self.shelf.touched)
        free(self.shelf.ids.places)
        levels_free(&self.shelf.levels)
        pool_free(&self.shelf.pool)

    @property
    def applied_seq(self):
        """The seq of the last event taken."""
        return self._applied_seq

    cdef Depth *_known(self, instrument_id) except NULL:
        """The entry of an instrument, made when it is new."""
        cdef uint16_t number = instrument_id
        cdef Depth *depth = self.known[number]
        if depth == NULL:
            depth = <Depth *>calloc(1, sizeof(Depth))
            if depth == NULL:
                raise MemoryError
            depth.instrument_id = number
            depth.lot_size = 1
            self.known[number] = depth
        return depth

    cdef Depth *_opened(self, instrument_id) except NULL:
        cdef uint16_t number = instrument_id
        if self.shelf.live[number] == NULL:
            raise KeyError(f"the book of instrument {instrument_id} is not open")
        return self.shelf.live[number]

    def define(self, instrument_id, price_decimals, quantity_decimals, lot_size, tick_units=0):
        """How texts of an instrument are written; `tick_units` (0: unknown) only saves time."""
        cdef Depth *depth
        if not (0 <= price_decimals <= TEXT_DECIMALS_MAX
                and 0 <= quantity_decimals <= TEXT_DECIMALS_MAX):
            raise ValueError(f"decimals are between 0 and {TEXT_DECIMALS_MAX}")
        depth = self._known(instrument_id)
        depth.price_decimals = price_decimals
        depth.quantity_decimals = quantity_decimals
        depth.lot_size = lot_size
        depth.tick_units = tick_units

    def open(self, instrument_id, bids, asks, seq):
        """Begin with these levels (as Matcher.levels gives them), which hold all events up to
        `seq`; that may lie ahead of what was applied. Opens anew what is open already. Raises
        ValueError when `seq` lies before what was applied, or for levels that can't be.
        """
        cdef Depth *depth
        self._check_seed(seq)
        depth = self._known(instrument_id)
        book_clear(&depth.book, &self.shelf.levels)
        depth.seq = seq
        self._show(depth)
        if depth.tick_units:
            set_tick(&depth.book, depth.tick_units)
        try:
            for row, side in enumerate((bids, asks)):
                for price_units, lots, orders in side:
                    self._seed_level(depth, row, price_units, lots, orders)
        except BaseException:
            self.close(instrument_id)
            raise

    def open_orders(self, instrument_id, EventBatch announced not None, seq):
        """Begin with these orders (as Matcher.export_orders gives them; those of other instruments
        are left out), which hold all events up to `seq`. Opens the levels too when they are not.
        """
        cdef Depth *depth
        cdef size_t position = 0
        cdef const Event *event
        cdef const char *trouble = NULL
        self._check_seed(seq)
        depth = self._known(instrument_id)
        self._clear_orders(depth)
        if not depth.opened:
            self.open(instrument_id, [], [], seq)
            levels = True
        else:
            levels = False
        depth.orders_seq = seq
        depth.has_orders = True
        while position < announced.units.count and trouble == NULL:
            event = &announced.units.data[position]
            position += 1 + <size_t>event.ext_count
            if event.instrument_id == depth.instrument_id:
                if levels:
                    trouble = level_add(&self.shelf, depth, side_of(event.side),
                                        event.price_units, event.quantity_lots)
                if trouble == NULL:
                    trouble = order_add(&self.shelf, depth, event.order_id, event.side,
                                        event.price_units, event.quantity_lots)
        if trouble != NULL:
            self.close(instrument_id)
            raise ValueError(trouble.decode("ascii"))

    def _check_seed(self, seq):
        if seq < self._applied_seq:
            raise ValueError(f"a book at seq {seq} is older than what was applied, "
                             f"{self._applied_seq}")

    cdef void _show(self, Depth *depth) noexcept:
        """The instrument counts as open, and as changed."""
        if not depth.opened:
            depth.opened = True
            self._open += 1
            self.shelf.live[depth.instrument_id] = depth
        touch(&self.shelf, depth)

    cdef int _seed_level(self, Depth *depth, uint32_t row, int64_t price_units, uint64_t lots,
                         uint32_t orders) except -1:
        cdef uint32_t level = level_for(&depth.book, &self.shelf.levels, row, price_units)
        cdef Level *item = &self.shelf.levels.items[level]
        if level == 0 or item.orders or lots == 0 or orders == 0:
            raise ValueError(f"no level: {lots} lots of {orders} orders at {price_units}")
        item.quantity_lots = lots
        item.orders = orders
        return 0

    cdef void _clear_orders(self, Depth *depth) noexcept:
        cdef uint32_t side, level, slot, next
        if not depth.has_orders:
            return
        for side in range(2):
            level = depth.queues.best_level[side]
            while level:
                slot = self.shelf.levels.items[level].head
                while slot:
                    next = self.shelf.pool.orders[slot].next
                    ids_drop(&self.shelf.ids, self.shelf.pool.orders[slot].order_id)
                    pool_give(&self.shelf.pool, slot)
                    slot = next
                level = self.shelf.levels.items[level].worse
        book_clear(&depth.queues, &self.shelf.levels)
        free(depth.events)
        depth.events = NULL
        depth.events_count = 0
        depth.events_capacity = 0
        depth.events_lost = False
        depth.has_orders = False

    def close(self, instrument_id):
        """Forget the instrument's levels and orders; nothing happens when it is not open."""
        cdef Depth *depth = self._known(instrument_id)
        if not depth.opened:
            return
        self._clear_orders(depth)
        book_clear(&depth.book, &self.shelf.levels)
        depth.version += 1
        depth.opened = False
        self.shelf.live[depth.instrument_id] = NULL
        self._open -= 1

    def close_orders(self, instrument_id):
        """Forget the single orders, keep the levels."""
        self._clear_orders(self._known(instrument_id))

    def is_open(self, instrument_id):
        """Whether the instrument's levels are kept."""
        return bool(self._known(instrument_id).opened)

    def has_orders(self, instrument_id):
        """Whether the instrument's single orders are kept."""
        return bool(self._known(instrument_id).has_orders)

    def ready(self, instrument_id):
        """Whether the levels are those of `applied_seq`, not of a seq ahead of it."""
        cdef Depth *depth = self._known(instrument_id)
        return bool(depth.opened and self._applied_seq >= depth.seq)

    def orders_ready(self, instrument_id):
        """Whether the single orders are those of `applied_seq`."""
        cdef Depth *depth = self._known(instrument_id)
        return bool(depth.has_orders and self._applied_seq >= depth.orders_seq)

    def apply(self, EventBatch batch not None):
        """Take committed events: whole commands, in order. What was taken before is left out.
        Raises CoreError for a gap, or when an event does not fit its book, which is then of no
        further use.
        """
        cdef uint64_t end = batch.first_seq + batch.event_count
        cdef const char *trouble
        cdef size_t start
        if batch.event_count == 0 or end <= self._applied_seq + 1:
            return
        if batch.first_seq > self._applied_seq + 1:
            raise CoreError(f"events begin at {batch.first_seq}, the books are at "
                            f"{self._applied_seq}")
        if self._open == 0:
            self._applied_seq = end - 1
            return
        self.shelf.seq = self._applied_seq
        self.shelf.incoming.depth = NULL
        with nogil:
            start = skip_events(batch.units.data, batch.units.count,
                                self._applied_seq + 1 - batch.first_seq)
            trouble = apply_units(&self.shelf, &batch.units.data[start],
                                  batch.units.count - start)
        if trouble != NULL:
            raise CoreError(f"event {self.shelf.seq} does not fit: {trouble.decode('ascii')}")
        self._applied_seq = end - 1

    def touched(self):
        """The instruments whose books changed since the last call."""
        cdef uint32_t index
        ids = []
        for index in range(self.shelf.touched_count):
            self.known[self.shelf.touched[index]].dirty = False
            if self.shelf.live[self.shelf.touched[index]] != NULL:
                ids.append(self.shelf.touched[index])
        self.shelf.touched_count = 0
        return ids

    def bbo(self, instrument_id):
        """(bid_units, bid_lots, ask_units, ask_lots); 0 where a side is empty."""
        cdef Depth *depth = self._opened(instrument_id)
        cdef const Level *items = self.shelf.levels.items
        cdef uint32_t bid = depth.book.best_level[0]
        cdef uint32_t ask = depth.book.best_level[1]
        return (best_price(&depth.book, 0), items[bid].quantity_lots if bid else 0,
                best_price(&depth.book, 1), items[ask].quantity_lots if ask else 0)

    def levels(self, instrument_id, depth=0):
        """(bids, asks) as lists of (price_units, lots, orders), best first; depth 0 is all."""
        cdef Depth *entry = self._opened(instrument_id)
        return self._levels(entry, 0, depth), self._levels(entry, 1, depth)

    cdef list _levels(self, Depth *depth, uint32_t row, uint64_t count):
        cdef uint32_t level = depth.book.best_level[row]
        cdef const Level *item
        found = []
        while level and (count == 0 or <uint64_t>len(found) < count):
            item = &self.shelf.levels.items[level]
            found.append((<int64_t>tick_of(item.rank, row) * depth.book.tick_units,
                          item.quantity_lots, item.orders))
            level = item.worse
        return found

    def rows(self, instrument_id, depth=0):
        """(bids, asks) as lists of [price, quantity, orders] with decimal texts, best first."""
        cdef Depth *entry = self._opened(instrument_id)
        return self._rows(entry, 0, depth), self._rows(entry, 1, depth)

    cdef list _rows(self, Depth *depth, uint32_t row, uint64_t count):
        cdef uint32_t level = depth.book.best_level[row]
        cdef const Level *item
        cdef uint64_t done = 0
        found = []
        while level and (count == 0 or done < count):
            item = &self.shelf.levels.items[level]
            found.append(level_row(depth, tick_of(item.rank, row) * depth.book.tick_units,
                                   item.quantity_lots, item.orders))
            level = item.worse
            done += 1
        return found

    def crc(self, instrument_id):
        """CRC32 of the ten best asks, then the ten best bids, as `price_units:lots` joined by
        commas (PROTOCOLS 7).
        """
        cdef Depth *depth = self._opened(instrument_id)
        cdef char text[2 * CRC_LEVELS * 42]
        cdef char *at = text
        cdef uint32_t row, level, count
        cdef const Level *item
        for row in (1, 0):
            level = depth.book.best_level[row]
            count = 0
            while level and count < CRC_LEVELS:
                item = &self.shelf.levels.items[level]
                at = put_number(at, tick_of(item.rank, row) * depth.book.tick_units, c':')
                at = put_number(at, item.quantity_lots, c',')
                level = item.worse
                count += 1
        return crc32(text[:max(at - text - 1, 0)])

    def orders(self, instrument_id):
        """(bids, asks) as lists of [price, order_id, quantity], in the order in which they would
        trade.
        """
        cdef Depth *depth = self._opened(instrument_id)
        if not depth.has_orders:
            raise KeyError(f"the orders of instrument {instrument_id} are not kept")
        return self._orders(depth, 0), self._orders(depth, 1)

    cdef list _orders(self, Depth *depth, uint32_t row):
        cdef uint32_t level = depth.queues.best_level[row]
        cdef uint32_t slot
        cdef const Order *order
        found = []
        while level:
            slot = self.shelf.levels.items[level].head
            while slot:
                order = &self.shelf.pool.orders[slot]
                found.append([text_decimal(order.price_units, 1, depth.price_decimals),
                              order.order_id, quantity_text(depth, order.open_lots)])
                slot = order.next
            level = self.shelf.levels.items[level].worse
        return found

    def take_order_events(self, instrument_id):
        """What happened to the instrument's orders since the last call, as dicts with the fields
        of PROTOCOLS 7 and `seq`. Raises CoreError when it was too much to keep.
        """
        cdef Depth *depth = self._opened(instrument_id)
        cdef size_t index
        if depth.events_lost:
            depth.events_lost = False
            depth.events_count = 0
            raise CoreError(f"more than {ORDER_EVENTS_MAX} events of orders were not taken")
        taken = [order_dict(depth, &depth.events[index]) for index in range(depth.events_count)]
        depth.events_count = 0
        return taken

    def check(self):
        """Walk the books. Raises CoreError with what is wrong; slow, for tests."""
        cdef uint32_t number
        for number in range(<uint32_t>INSTRUMENTS):
            if self.shelf.live[number] == NULL:
                continue
            wrong = check_levels(&self.shelf.live[number].book, &self.shelf.levels)
            if wrong is None and self.shelf.live[number].has_orders:
                self.shelf.live[number].queues.instrument_id = <uint16_t>number
                wrong = book_check(&self.shelf.live[number].queues, &self.shelf.levels,
                                   &self.shelf.pool)
            if wrong is not None:
                raise CoreError(f"instrument {number}: {wrong}")


cdef object quantity_text(const Depth *depth, uint64_t lots):
    return text_decimal(lots, depth.lot_size, depth.quantity_decimals)


cdef list level_row(const Depth *depth, uint32_t price_units, uint64_t lots, uint32_t orders):
    return [text_decimal(price_units, 1, depth.price_decimals),
            quantity_text(depth, lots) if lots else "0", orders]


cdef char *put_number(char *at, uint64_t value, char behind) noexcept nogil:
    """Write digits and a character; returns where to go on."""
    cdef char buffer[24]
    cdef char *start = text_digits(&buffer[24], value)
    cdef size_t length = &buffer[24] - start
    memcpy(at, start, length)
    at[length] = behind
    return at + length + 1


cdef dict order_dict(const Depth *depth, const OrderEvent *event):
    return {
        "e": _WHAT[event.what], "order_id": event.order_id, "side": _SIDES[event.row],
        "price": text_decimal(event.price_units, 1, depth.price_decimals),
        "quantity": quantity_text(depth, event.lots),
        "remaining": quantity_text(depth, event.remaining), "seq": event.seq,
    }


cdef object check_levels(const Book *book, const LevelPool *pool):
    """What is wrong with the levels of a book, or None."""
    cdef uint32_t side, level, rank, count
    count = 0
    for side in range(2):
        level = book.best_level[side]
        rank = 0xFFFFFFFF
        if (pool.items[level].rank if level else 0) != book.best_rank[side]:
            return "the best price is not that of the best level"
        while level:
            if pool.items[level].rank >= rank:
                return "levels are out of order"
            rank = pool.items[level].rank
            if book_find_level(book, pool, tick_of(rank, side)) != level:
                return "a level can't be found by its price"
            if pool.items[level].orders == 0 or pool.items[level].quantity_lots == 0:
                return "a level is empty"
            count += 1
            level = pool.items[level].worse
    if count != book.levels:
        return f"{count} levels are linked, {book.levels} counted"
    if book.best_rank[0] and book.best_rank[1] and book.best_rank[0] >= ~book.best_rank[1]:
        return "the book is crossed"
    return None


# ---- what a subscription was told -----------------------------------------------------------

cdef struct Told:
    uint64_t lots
    uint32_t price_units
    uint32_t orders

cdef struct ToldSide:
    Told *items
    size_t count
    size_t capacity

cdef void told_reserve(ToldSide *side, size_t count) noexcept nogil:
    if side.capacity < count:
        side.capacity = count * 2
        side.items = <Told *>realloc(side.items, side.capacity * sizeof(Told))
        INVARIANT(side.items != NULL, "out of memory for a view")


cdef class DepthView:
    """The best `depth` levels of each side (0: all), as a reader of rows and changes knows them.

    Starts at the book as it is. Raises KeyError when the instrument is not open.
    """

    cdef Books books
    cdef object instrument_id
    cdef uint64_t _depth
    cdef uint64_t version
    cdef ToldSide sides[2]
    cdef ToldSide spare

    def __init__(self, Books books not None, instrument_id, depth):
        self.books = books
        self.instrument_id = instrument_id
        self._depth = depth
        self.changes()

    def __dealloc__(self):
        free(self.sides[0].items)
        free(self.sides[1].items)
        free(self.spare.items)

    @property
    def depth(self):
        """Levels of each side, 0 for all."""
        return self._depth

    def changes(self):
        """(bids, asks): the rows that differ from what was told, best first; now they are told.

        The quantity "0" takes a level away: it is empty, or no longer among the best `depth`.
        """
        cdef Depth *entry = self.books._opened(self.instrument_id)
        if self.version == entry.version:
            return [], []
        self.version = entry.version
        return self._side(entry, 0), self._side(entry, 1)

    cdef list _side(self, Depth *entry, uint32_t row):
        """Walk what was told and what is, side by side from the best price on."""
        cdef const Level *items = self.books.shelf.levels.items
        cdef uint32_t level = entry.book.best_level[row]
        cdef ToldSide *told = &self.sides[row]
        cdef ToldSide *now = &self.spare
        cdef ToldSide swap
        cdef size_t place = 0
        cdef uint32_t rank, old_rank
        cdef Told *item
        rows = []
        now.count = 0
        while place < told.count or level:
            if self._depth and now.count >= self._depth:
                level = 0
                if place >= told.count:
                    break
            item = &told.items[place]
            # Prices are told in units, ranks are in ticks of now.
            old_rank = rank_of(item.price_units, row) if place < told.count else 0
            rank = rank_of(tick_of(items[level].rank, row) * entry.book.tick_units, row) \
                if level else 0
            if rank < old_rank:
                rows.append(level_row(entry, item.price_units, 0, 0))
                place += 1
                continue
            if rank > old_rank or items[level].quantity_lots != item.lots \
                    or items[level].orders != item.orders:
                rows.append(level_row(entry, tick_of(rank, row), items[level].quantity_lots,
                                      items[level].orders))
            place += rank == old_rank
            told_reserve(now, now.count + 1)
            item = &now.items[now.count]
            item.price_units = tick_of(rank, row)
            item.lots = items[level].quantity_lots
            item.orders = items[level].orders
            now.count += 1
            level = items[level].worse
        # The two arrays change places.
        swap = told[0]
        told[0] = now[0]
        now[0] = swap
        return rows

    def rows(self):
        """(bids, asks) as they were told by now: what joins the changes to come."""
        cdef Depth *entry = self.books._opened(self.instrument_id)
        return self._told(entry, 0), self._told(entry, 1)

    cdef list _told(self, Depth *entry, uint32_t row):
        cdef size_t index
        cdef const Told *items = self.sides[row].items
        return [level_row(entry, items[index].price_units, items[index].lots,
                          items[index].orders) for index in range(self.sides[row].count)]


def decimal_text(value, decimals):
    """`value` / 10**decimals as an exact decimal text with all decimals."""
    if not 0 <= decimals <= TEXT_DECIMALS_MAX:
        raise ValueError(f"decimals are between 0 and {TEXT_DECIMALS_MAX}")
    if value < 0:
        return "-" + decimal_text(-value, decimals)
    if value >> 64:
        digits = str(value)
        if decimals == 0:
            return digits
        digits = digits.rjust(decimals + 1, "0")
        return f"{digits[:-decimals]}.{digits[-decimals:]}"
    return text_decimal(value, 1, decimals)

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""A run of committed events as rows of the tables that stores keep.

Nothing is remembered between runs but names. What began inside the run is a whole row, with its
state at the end of the run; of an order that is older there is a row in `order_changes` that says
what has to be added to it. Candles and positions are what the run alone makes, to be merged with
what is there. docs/stores.md has the tables; the .pyi next to this file how a run is read.

The rules are those of ledger.pyx, with one difference: a session roll leaves an order's filled
quantity as it is. So the sum of an order's trades is its `filled_lots`, less what its chain had
done when it began.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from cython_core.event cimport *
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport *

from cython_core import model
from cython_core.errors import CoreError

cdef extern from *:
    """
    #include <stdint.h>
    /* Add a * b to a number of 128 bits. */
    static inline void wide_add(uint64_t *low, uint64_t *high, uint64_t a, uint64_t b) {
        unsigned __int128 sum = ((unsigned __int128)*high << 64 | *low)
                                + (unsigned __int128)a * b;
        *low = (uint64_t)sum;
        *high = (uint64_t)(sum >> 64);
    }
    /* value * factor as a signed number of 128 bits; whether its size is below an end. */
    static inline int wide_scaled(int64_t value, uint64_t factor, uint64_t end_low,
                                  uint64_t end_high, uint64_t *out) {
        const unsigned __int128 end = (unsigned __int128)end_high << 64 | end_low;
        unsigned __int128 size = (unsigned __int128)(value < 0 ? 0 - (uint64_t)value
                                                               : (uint64_t)value) * factor;
        unsigned __int128 result = value < 0 ? -size : size;
        out[0] = (uint64_t)result;
        out[1] = (uint64_t)(result >> 64);
        return size < end;
    }
    """
    void wide_add(uint64_t *low, uint64_t *high, uint64_t a, uint64_t b) noexcept nogil
    bint wide_scaled(int64_t value, uint64_t factor, uint64_t end_low, uint64_t end_high,
                     uint64_t *out) noexcept nogil

cdef enum:
    INTERVALS = 4
    CHANGE = 1 << 31            # in `orders`: a row of ORDER_CHANGES
    UNKNOWN = 2                 # a BOOL that is NULL
    CLIENT_ID_MAX = 36
    INSTRUMENT_IDS = 1 << 16
    # How a run of apply ended.
    ALL = 0
    STOPPED = 1
    NO_NAME = 2
    NO_TAKER = 3

# Words that the code names; __init__ makes them first, in this order.
cdef enum:
    W_BUY = 1
    W_SELL = 2
    W_LIMIT = 3
    W_MARKET = 4
    W_DAY = 5
    W_GTC = 6
    W_IOC = 7
    W_FOK = 8
    W_OPEN = 9
    W_PARTIALLY_FILLED = 10
    W_FILLED = 11
    W_CANCELED = 12
    W_REPLACED = 13
    W_TRADING = 14
    W_HALTED = 15

_FIXED_WORDS = ("buy", "sell", "limit", "market", "day", "gtc", "ioc", "fok", "open",
                "partially_filled", "filled", "canceled", "replaced", "trading", "halted")

INTERVALS_S = (60, 300, 3600, 86400)
cdef uint64_t[INTERVALS] _interval_ns = [
    60 * <uint64_t>1000000000, 300 * <uint64_t>1000000000, 3600 * <uint64_t>1000000000,
    86400 * <uint64_t>1000000000]

# ---- rows ---------------------------------------------------------------------------------------

cdef struct InstrumentRow:
    int64_t instrument_id
    int64_t price_decimals
    int64_t quantity_decimals
    int64_t tick_units
    int64_t lot_size
    int64_t quantity_max_lots
    int64_t seq
    int64_t time_ns
    uint32_t symbol
    uint32_t wire_symbol

cdef struct InstrumentChange:
    int64_t instrument_id
    int64_t seq
    int64_t time_ns
    uint32_t state
    uint32_t reason

cdef struct AccountRow:
    int64_t account_id
    int64_t open_orders_max
    int64_t quantity_max_lots
    Wide notional_max
    int64_t collar_bps
    int64_t messages_per_second
    int64_t seq
    int64_t time_ns
    uint32_t username
    uint32_t firm
    uint32_t role

cdef struct AccountChange:
    int64_t account_id
    int64_t seq
    int64_t time_ns
    uint8_t entry_disabled
    uint8_t killed

cdef struct OrderRow:
    int64_t order_id
    int64_t account_id
    int64_t price_units
    int64_t quantity_lots
    int64_t filled_lots
    int64_t remaining_lots
    int64_t user_ref_num
    int64_t user_ref_idx
    int64_t replaces
    int64_t replaced_by
    int64_t time_ns
    int64_t updated_seq
    int64_t updated_time_ns
    int64_t heir_of             # whose client id it has, of an older order; NONE if its own or none
    uint32_t symbol
    uint32_t side
    uint32_t order_type
    uint32_t time_in_force
    uint32_t status
    uint32_t reason
    uint32_t client_order_id
    uint32_t client_order
    uint32_t source
    uint8_t post_only

cdef struct OrderChange:
    int64_t order_id
    int64_t filled_lots
    int64_t reduced_lots
    int64_t replaced_by
    int64_t user_ref_num
    int64_t updated_seq
    int64_t updated_time_ns
    uint32_t closed
    uint32_t reason

cdef struct OrderHeir:
    int64_t order_id
    int64_t heir_of

cdef struct EventRow:
    int64_t seq
    int64_t time_ns
    int64_t account_id
    int64_t order_id
    int64_t other_order_id
    int64_t other_account_id
    int64_t price_units
    int64_t quantity_lots
    int64_t remaining_lots
    int64_t user_ref_num
    uint32_t kind
    uint32_t symbol
    uint32_t side
    uint32_t reason
    uint32_t source
    uint32_t client_order_id

cdef struct TradeRow:
    int64_t match_number
    int64_t seq
    int64_t time_ns
    int64_t price_units
    int64_t quantity_lots
    int64_t maker_order_id
    int64_t taker_order_id
    int64_t maker_account_id
    int64_t taker_account_id
    uint32_t symbol
    uint32_t taker_side

cdef struct CandleRow:
    int64_t interval_s
    int64_t open_time_ns
    int64_t open_units
    int64_t high_units
    int64_t low_units
    int64_t close_units
    int64_t volume_lots
    int64_t trades
    uint32_t symbol

cdef struct PositionRow:
    int64_t account_id
    int64_t position_lots
    int64_t bought_lots
    int64_t sold_lots
    Wide bought_value
    Wide sold_value
    int64_t trades
    int64_t seq
    int64_t time_ns
    uint32_t symbol


cdef dict _table_numbers = {
    "instruments": INSTRUMENTS, "instrument_changes": INSTRUMENT_CHANGES, "accounts": ACCOUNTS,
    "account_changes": ACCOUNT_CHANGES, "orders": ORDERS, "order_changes": ORDER_CHANGES,
    "order_heirs": ORDER_HEIRS, "order_events": ORDER_EVENTS, "trades": TRADES,
    "candles": CANDLES, "positions": POSITIONS,
}

# The columns of every table: name, kind, place in its struct. `_describe` fills it.
cdef list _columns = [None] * TABLES
cdef size_t _row_bytes[TABLES]


cdef size_t place_in(const void *row, const void *field) noexcept nogil:
    return <size_t>(<const char *>field - <const char *>row)


cdef int describe_venue() except -1:
    cdef InstrumentRow i
    cdef InstrumentChange ic
    cdef AccountRow a
    cdef AccountChange ac
    _row_bytes[INSTRUMENTS] = sizeof(i)
    _columns[INSTRUMENTS] = [
        ("instrument_id", INT, place_in(&i, &i.instrument_id)),
        ("symbol", WORD, place_in(&i, &i.symbol)),
        ("wire_symbol", WORD, place_in(&i, &i.wire_symbol)),
        ("price_decimals", INT, place_in(&i, &i.price_decimals)),
        ("quantity_decimals", INT, place_in(&i, &i.quantity_decimals)),
        ("tick_units", INT, place_in(&i, &i.tick_units)),
        ("lot_size", INT, place_in(&i, &i.lot_size)),
        ("quantity_max_lots", INT, place_in(&i, &i.quantity_max_lots)),
        ("seq", INT, place_in(&i, &i.seq)), ("time_ns", INT, place_in(&i, &i.time_ns))]
    _row_bytes[INSTRUMENT_CHANGES] = sizeof(ic)
    _columns[INSTRUMENT_CHANGES] = [
        ("instrument_id", INT, place_in(&ic, &ic.instrument_id)),
        ("state", WORD, place_in(&ic, &ic.state)), ("reason", WORD, place_in(&ic, &ic.reason)),
        ("seq", INT, place_in(&ic, &ic.seq)), ("time_ns", INT, place_in(&ic, &ic.time_ns))]
    _row_bytes[ACCOUNTS] = sizeof(a)
    _columns[ACCOUNTS] = [
        ("account_id", INT, place_in(&a, &a.account_id)),
        ("username", WORD, place_in(&a, &a.username)), ("firm", WORD, place_in(&a, &a.firm)),
        ("role", WORD, place_in(&a, &a.role)),
        ("open_orders_max", INT, place_in(&a, &a.open_orders_max)),
        ("quantity_max_lots", INT, place_in(&a, &a.quantity_max_lots)),
        ("notional_max", WIDE, place_in(&a, &a.notional_max)),
        ("collar_bps", INT, place_in(&a, &a.collar_bps)),
        ("messages_per_second", INT, place_in(&a, &a.messages_per_second)),
        ("seq", INT, place_in(&a, &a.seq)), ("time_ns", INT, place_in(&a, &a.time_ns))]
    _row_bytes[ACCOUNT_CHANGES] = sizeof(ac)
    _columns[ACCOUNT_CHANGES] = [
        ("account_id", INT, place_in(&ac, &ac.account_id)),
        ("entry_disabled", BOOL, place_in(&ac, &ac.entry_disabled)),
        ("killed", BOOL, place_in(&ac, &ac.killed)),
        ("seq", INT, place_in(&ac, &ac.seq)), ("time_ns", INT, place_in(&ac, &ac.time_ns))]
    return 0


cdef int describe_orders() except -1:
    cdef OrderRow o
    cdef OrderChange c
    cdef OrderHeir h
    _row_bytes[ORDERS] = sizeof(o)
    _columns[ORDERS] = [
        ("order_id", INT, place_in(&o, &o.order_id)), ("symbol", WORD, place_in(&o, &o.symbol)),
        ("account_id", INT, place_in(&o, &o.account_id)), ("side", WORD, place_in(&o, &o.side)),
        ("order_type", WORD, place_in(&o, &o.order_type)),
        ("time_in_force", WORD, place_in(&o, &o.time_in_force)),
        ("post_only", BOOL, place_in(&o, &o.post_only)),
        ("price_units", INT, place_in(&o, &o.price_units)),
        ("quantity_lots", INT, place_in(&o, &o.quantity_lots)),
        ("filled_lots", INT, place_in(&o, &o.filled_lots)),
        ("remaining_lots", INT, place_in(&o, &o.remaining_lots)),
        ("status", WORD, place_in(&o, &o.status)), ("reason", WORD, place_in(&o, &o.reason)),
        ("client_order_id", TEXT, place_in(&o, &o.client_order_id)),
        ("client_order", TEXT, place_in(&o, &o.client_order)),
        ("source", WORD, place_in(&o, &o.source)),
        ("user_ref_num", INT, place_in(&o, &o.user_ref_num)),
        ("user_ref_idx", INT, place_in(&o, &o.user_ref_idx)),
        ("replaces", INT, place_in(&o, &o.replaces)),
        ("replaced_by", INT, place_in(&o, &o.replaced_by)),
        ("time_ns", INT, place_in(&o, &o.time_ns)),
        ("updated_seq", INT, place_in(&o, &o.updated_seq)),
        ("updated_time_ns", INT, place_in(&o, &o.updated_time_ns))]
    _row_bytes[ORDER_CHANGES] = sizeof(c)
    _columns[ORDER_CHANGES] = [
        ("order_id", INT, place_in(&c, &c.order_id)),
        ("filled_lots", INT, place_in(&c, &c.filled_lots)),
        ("reduced_lots", INT, place_in(&c, &c.reduced_lots)),
        ("closed", WORD, place_in(&c, &c.closed)), ("reason", WORD, place_in(&c, &c.reason)),
        ("replaced_by", INT, place_in(&c, &c.replaced_by)),
        ("user_ref_num", INT, place_in(&c, &c.user_ref_num)),
        ("updated_seq", INT, place_in(&c, &c.updated_seq)),
        ("updated_time_ns", INT, place_in(&c, &c.updated_time_ns))]
    _row_bytes[ORDER_HEIRS] = sizeof(h)
    _columns[ORDER_HEIRS] = [("order_id", INT, place_in(&h, &h.order_id)),
                             ("heir_of", INT, place_in(&h, &h.heir_of))]
    return 0


cdef int describe_market() except -1:
    cdef EventRow e
    cdef TradeRow t
    cdef CandleRow c
    cdef PositionRow p
    _row_bytes[ORDER_EVENTS] = sizeof(e)
    _columns[ORDER_EVENTS] = [
        ("seq", INT, place_in(&e, &e.seq)), ("time_ns", INT, place_in(&e, &e.time_ns)),
        ("kind", WORD, place_in(&e, &e.kind)), ("symbol", WORD, place_in(&e, &e.symbol)),
        ("account_id", INT, place_in(&e, &e.account_id)),
        ("order_id", INT, place_in(&e, &e.order_id)),
        ("other_order_id", INT, place_in(&e, &e.other_order_id)),
        ("other_account_id", INT, place_in(&e, &e.other_account_id)),
        ("side", WORD, place_in(&e, &e.side)), ("price_units", INT, place_in(&e, &e.price_units)),
        ("quantity_lots", INT, place_in(&e, &e.quantity_lots)),
        ("remaining_lots", INT, place_in(&e, &e.remaining_lots)),
        ("reason", WORD, place_in(&e, &e.reason)),
        ("user_ref_num", INT, place_in(&e, &e.user_ref_num)),
        ("source", WORD, place_in(&e, &e.source)),
        ("client_order_id", TEXT, place_in(&e, &e.client_order_id))]
    _row_bytes[TRADES] = sizeof(t)
    _columns[TRADES] = [
        ("match_number", INT, place_in(&t, &t.match_number)), ("seq", INT, place_in(&t, &t.seq)),
        ("time_ns", INT, place_in(&t, &t.time_ns)), ("symbol", WORD, place_in(&t, &t.symbol)),
        ("price_units", INT, place_in(&t, &t.price_units)),
        ("quantity_lots", INT, place_in(&t, &t.quantity_lots)),
        ("taker_side", WORD, place_in(&t, &t.taker_side)),
        ("maker_order_id", INT, place_in(&t, &t.maker_order_id)),
        ("taker_order_id", INT, place_in(&t, &t.taker_order_id)),
        ("maker_account_id", INT, place_in(&t, &t.maker_account_id)),
        ("taker_account_id", INT, place_in(&t, &t.taker_account_id))]
    _row_bytes[CANDLES] = sizeof(c)
    _columns[CANDLES] = [
        ("symbol", WORD, place_in(&c, &c.symbol)),
        ("interval_s", INT, place_in(&c, &c.interval_s)),
        ("open_time_ns", INT, place_in(&c, &c.open_time_ns)),
        ("open_units", INT, place_in(&c, &c.open_units)),
        ("high_units", INT, place_in(&c, &c.high_units)),
        ("low_units", INT, place_in(&c, &c.low_units)),
        ("close_units", INT, place_in(&c, &c.close_units)),
        ("volume_lots", INT, place_in(&c, &c.volume_lots)),
        ("trades", INT, place_in(&c, &c.trades))]
    _row_bytes[POSITIONS] = sizeof(p)
    _columns[POSITIONS] = [
        ("account_id", INT, place_in(&p, &p.account_id)),
        ("symbol", WORD, place_in(&p, &p.symbol)),
        ("position_lots", INT, place_in(&p, &p.position_lots)),
        ("bought_lots", INT, place_in(&p, &p.bought_lots)),
        ("sold_lots", INT, place_in(&p, &p.sold_lots)),
        ("bought_value", WIDE, place_in(&p, &p.bought_value)),
        ("sold_value", WIDE, place_in(&p, &p.sold_value)),
        ("trades", INT, place_in(&p, &p.trades)), ("seq", INT, place_in(&p, &p.seq)),
        ("time_ns", INT, place_in(&p, &p.time_ns))]
    return 0


describe_venue()
describe_orders()
describe_market()
COLUMNS = {table: tuple(column[0] for column in _columns[number])
           for table, number in _table_numbers.items()}


# ---- memory -------------------------------------------------------------------------------------

cdef inline void *row_add(RowSet *rows) noexcept nogil:
    """The next row, uninitialised. Pointers got before may move."""
    if rows.count == rows.capacity:
        rows.capacity = rows.capacity * 2 if rows.capacity else 64
        rows.items = <char *>realloc(rows.items, rows.capacity * rows.row_bytes)
        INVARIANT(rows.items != NULL, "out of memory for rows")
    rows.count += 1
    return rows.items + (rows.count - 1) * rows.row_bytes

cdef inline void *row_at(const RowSet *rows, size_t number) noexcept nogil:
    return rows.items + number * rows.row_bytes

cdef size_t arena_put(Arena *arena, const char *text, size_t length) noexcept nogil:
    """Add a text of Latin-1 as UTF-8; returns its place. SQL has no NUL: it is shown as U+FFFD."""
    cdef size_t place = (arena.used + 1) & ~<size_t>1
    cdef size_t index
    cdef uint8_t letter
    cdef char *out
    if place + 2 + 3 * length > arena.capacity:
        arena.capacity = arena.capacity * 2 + 4096 + 3 * length
        arena.data = <char *>realloc(arena.data, arena.capacity)
        INVARIANT(arena.data != NULL and arena.capacity < <size_t>1 << 31,
                  "the texts of a run take less than 2 GiB")
    out = arena.data + place + 2
    for index in range(length):
        letter = <uint8_t>text[index]
        if letter == 0:
            memcpy(out, b"\xef\xbf\xbd", 3)
            out += 3
        elif letter < 0x80:
            out[0] = letter
            out += 1
        else:
            out[0] = <char>(0xC0 | letter >> 6)
            out[1] = <char>(0x80 | letter & 0x3F)
            out += 2
    arena.used = <size_t>(out - arena.data)
    (<uint16_t *>(arena.data + place))[0] = <uint16_t>(arena.used - place - 2)
    return place

cdef void places_init(Places *places, size_t size) noexcept nogil:
    places.cells = <Cell *>calloc(size, sizeof(Cell))
    INVARIANT(places.cells != NULL, "out of memory for rows")
    places.mask = size - 1
    places.count = 0
    places.epoch = 1

cdef void places_clear(Places *places) noexcept nogil:
    places.count = 0
    places.epoch += 1
    if places.epoch == 0:
        memset(places.cells, 0, (places.mask + 1) * sizeof(Cell))
        places.epoch = 1

cdef inline uint32_t *places_find(Places *places, uint64_t key) noexcept nogil:
    """The value of a key: 0 if it is new, then to be set at once. It may move with the next one."""
    cdef size_t at
    if places.count * 2 > places.mask:
        places_grow(places)
    at = <size_t>(key * <uint64_t>0x9E3779B97F4A7C15 >> 20) & places.mask
    while places.cells[at].epoch == places.epoch:
        if places.cells[at].key == key:
            return &places.cells[at].value
        at = (at + 1) & places.mask
    places.cells[at].key = key
    places.cells[at].value = 0
    places.cells[at].epoch = places.epoch
    places.count += 1
    return &places.cells[at].value

cdef void places_grow(Places *places) noexcept nogil:
    cdef Places old = places[0]
    cdef size_t at
    places_init(places, (old.mask + 1) * 2)
    for at in range(old.mask + 1):
        if old.cells[at].epoch == old.epoch:
            places_find(places, old.cells[at].key)[0] = old.cells[at].value
    free(old.cells)


# ---- words --------------------------------------------------------------------------------------

cdef size_t stripped(const char *text, size_t length) noexcept nogil:
    """The length of a text without what fills it up at its end."""
    while length and (text[length - 1] == 0 or text[length - 1] == c' '):
        length -= 1
    return length

cdef void word_add(Tables *tables, size_t place) noexcept nogil:
    """A new word, whose text stands in the arena; markets have room for it as a symbol."""
    if tables.word_count + 1 >= tables.word_capacity:
        tables.word_capacity = tables.word_capacity * 2 if tables.word_capacity else 256
        tables.word_places = <size_t *>realloc(tables.word_places,
                                               tables.word_capacity * sizeof(size_t))
        tables.markets = <Market *>realloc(tables.markets, tables.word_capacity * sizeof(Market))
        INVARIANT(tables.word_places != NULL and tables.markets != NULL,
                  "out of memory for names")
    tables.word_count += 1
    tables.word_places[tables.word_count] = place
    memset(&tables.markets[tables.word_count], 0, sizeof(Market))

cdef uint32_t word_of(Tables *tables, const char *text, size_t length) noexcept nogil:
    """The word for a text of Latin-1; 0 for an empty one."""
    cdef uint64_t key = <uint64_t>0xCBF29CE484222325
    cdef size_t used = tables.words.used
    cdef size_t place, index, bytes_count
    cdef const char *known
    cdef const char *wanted
    cdef uint32_t *found
    length = stripped(text, length)
    if length == 0:
        return 0
    place = arena_put(&tables.words, text, length)
    wanted = tables.words.data + place
    bytes_count = 2 + <size_t>(<const uint16_t *>wanted)[0]
    for index in range(bytes_count):
        key = (key ^ <uint8_t>wanted[index]) * <uint64_t>0x100000001B3
    while True:
        found = places_find(&tables.word_finder, key)
        if found[0] == 0:
            word_add(tables, place)
            found[0] = tables.word_count
            return found[0]
        known = tables.words.data + tables.word_places[found[0]]
        if memcmp(known, wanted, bytes_count) == 0:
            tables.words.used = used
            return found[0]
        key += 1

cdef uint32_t text_new(Tables *tables, const char *text, size_t length) noexcept nogil:
    """A text of this run; 0 for an empty one."""
    length = stripped(text, length)
    if length == 0:
        return 0
    return <uint32_t>arena_put(&tables.texts, text, length) | <uint32_t>1 << 31


# ---- events -------------------------------------------------------------------------------------

cdef inline int64_t number_or_none(uint64_t value) noexcept nogil:
    """A number that is 0 where there is none. What an int64 can't hold, which only a refused order
    may ask for, is none too."""
    return <int64_t>value if value and value >> 63 == 0 else NONE

cdef inline int64_t lots_of(uint64_t lots) noexcept nogil:
    """A quantity. What an int64 can't hold, which only a refused order may ask for, is none."""
    return <int64_t>lots if lots >> 63 == 0 else NONE

cdef inline int64_t price_of(int64_t price_units) noexcept nogil:
    """A limit price; market orders have none."""
    return NONE if price_is_market(price_units) else price_units

cdef inline uint32_t side_word(uint8_t side) noexcept nogil:
    """All kinds of sell are one."""
    if side == c'B':
        return W_BUY
    return W_SELL if side == c'S' or side == c'T' or side == c'E' else 0

cdef inline uint32_t time_word(uint8_t time_in_force) noexcept nogil:
    if time_in_force == c'0':
        return W_DAY
    if time_in_force == c'1':
        return W_GTC
    if time_in_force == c'3':
        return W_IOC
    return W_FOK if time_in_force == c'4' else 0

cdef const Event *find_ext(const Event *event, uint8_t kind) noexcept nogil:
    """The event's extension unit of this kind, or NULL."""
    cdef uint32_t index
    for index in range(1, 1 + <uint32_t>event.ext_count):
        if event[index].kind == kind:
            return &event[index]
    return NULL

cdef inline bint starts_command(const Event *event) noexcept nogil:
    """Whether it is the first event of a command; a fill never is."""
    return event.kind != EV_FILL and event.flags & FLAG_FIRST

cdef uint32_t client_id_of(Tables *tables, const Event *event) noexcept nogil:
    cdef const ExtClientId *ext = <const ExtClientId *>find_ext(event, EXT_CLIENT_ID)
    if ext == NULL:
        return 0
    return text_new(tables, ext.text, min(ext.length, <uint8_t>CLIENT_ID_MAX))


# -- orders

cdef inline OrderRow *order_at(Tables *tables, uint32_t place) noexcept nogil:
    """The row of an order that began in this run; `place` is not 0 and no change."""
    return <OrderRow *>row_at(&tables.sets[ORDERS], place - 1)

cdef inline OrderRow *known_order(Tables *tables, uint64_t order_id) noexcept nogil:
    """The row of an order that began in this run, or NULL."""
    cdef uint32_t *place = places_find(&tables.orders, order_id)
    cdef RowSet *rows = &tables.sets[ORDER_CHANGES]
    cdef OrderChange *change
    if place[0] == 0:
        change = <OrderChange *>row_add(rows)
        memset(change, 0, sizeof(OrderChange))
        change.order_id = order_id
        change.replaced_by = NONE
        change.user_ref_num = NONE
        place[0] = <uint32_t>rows.count | <uint32_t>CHANGE
    return NULL if place[0] >> 31 else order_at(tables, place[0])

cdef inline OrderChange *change_of(Tables *tables, uint64_t order_id, uint64_t seq,
                                   uint64_t time_ns) noexcept nogil:
    """The change of an older order, which known_order has made."""
    cdef uint32_t place = places_find(&tables.orders, order_id)[0] & 0x7FFFFFFF
    cdef OrderChange *change = <OrderChange *>row_at(&tables.sets[ORDER_CHANGES], place - 1)
    change.updated_seq = seq
    change.updated_time_ns = time_ns
    return change

cdef OrderRow *order_new(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """An order begins, with the terms of an event."""
    cdef RowSet *rows = &tables.sets[ORDERS]
    cdef OrderRow *row = <OrderRow *>row_add(rows)
    places_find(&tables.orders, event.order_id)[0] = <uint32_t>rows.count
    row.order_id = event.order_id
    row.account_id = event.account_id
    row.price_units = price_of(event.price_units)
    row.quantity_lots = event.quantity_lots
    row.filled_lots = 0
    row.remaining_lots = event.quantity_lots
    row.user_ref_num = number_or_none(event.user_ref_num)
    row.user_ref_idx = event.user_ref_idx
    row.replaces = NONE
    row.replaced_by = NONE
    row.time_ns = event.time_ns
    row.updated_seq = seq
    row.updated_time_ns = event.time_ns
    row.heir_of = NONE
    row.symbol = tables.symbols[event.instrument_id]
    row.side = side_word(event.side)
    row.order_type = W_MARKET if row.price_units == NONE else W_LIMIT
    row.time_in_force = time_word(event.time_in_force)
    row.status = W_OPEN
    row.reason = 0
    row.client_order_id = client_id_of(tables, event) if event.ext_count else 0
    row.client_order = text_new(tables, event.client_order, 14)
    row.source = tables.source_words[event.source]
    row.post_only = event.flags & FLAG_POST_ONLY
    return row

cdef void order_replaced(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """The new order goes on with what its chain did, and with its client's id."""
    cdef const ExtReplace *ext = <const ExtReplace *>find_ext(event, EXT_REPLACE)
    cdef OrderRow *row
    cdef OrderRow *old
    cdef OrderChange *change
    cdef OrderHeir *heir
    INVARIANT(ext != NULL, "a replacement names its original")
    row = order_new(tables, event, seq)
    row.replaces = ext.orig_order_id
    row.quantity_lots = ext.chain_quantity_lots
    row.filled_lots = ext.chain_done_lots
    if row.filled_lots:
        row.status = W_PARTIALLY_FILLED
    old = known_order(tables, ext.orig_order_id)
    if old != NULL:
        old.replaced_by = event.order_id
        order_ended(old, W_CANCELED, W_REPLACED, seq, event.time_ns)
    else:
        change = change_of(tables, ext.orig_order_id, seq, event.time_ns)
        change.closed = W_CANCELED
        change.reason = W_REPLACED
        change.replaced_by = event.order_id
    if row.client_order_id or source_has_stream(event.source):
        return
    if old == NULL:
        row.heir_of = ext.orig_order_id
    else:
        row.client_order_id = old.client_order_id
        row.heir_of = old.heir_of
    if row.heir_of != NONE:
        heir = <OrderHeir *>row_add(&tables.sets[ORDER_HEIRS])
        heir.order_id = row.order_id
        heir.heir_of = row.heir_of

cdef void order_ended(OrderRow *row, uint32_t status, uint32_t reason, uint64_t seq,
                      uint64_t time_ns) noexcept nogil:
    row.status = status
    row.reason = reason
    row.remaining_lots = 0
    row.updated_seq = seq
    row.updated_time_ns = time_ns

cdef void order_reduced(Tables *tables, const Event *event, uint64_t lots, uint64_t remaining,
                        uint32_t reason, uint64_t seq) noexcept nogil:
    """Lots came off, and not by trading; with none remaining the order is canceled."""
    cdef OrderRow *row = known_order(tables, event.order_id)
    cdef OrderChange *change
    if row == NULL:
        change = change_of(tables, event.order_id, seq, event.time_ns)
        if remaining:
            change.reduced_lots += lots
        else:
            change.closed = W_CANCELED
            change.reason = reason
    elif remaining == 0:
        order_ended(row, W_CANCELED, reason, seq, event.time_ns)
    else:
        row.quantity_lots -= lots
        row.remaining_lots = remaining
        row.updated_seq = seq
        row.updated_time_ns = event.time_ns

cdef void order_announced(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """A new session has a new number for it."""
    cdef OrderRow *row = known_order(tables, event.order_id)
    if row == NULL:
        change_of(tables, event.order_id, seq,
                  event.time_ns).user_ref_num = event.user_ref_num
        return
    row.user_ref_num = event.user_ref_num
    row.updated_seq = seq
    row.updated_time_ns = event.time_ns

cdef inline void side_filled(Tables *tables, uint64_t order_id, const Fill *fill, bint done,
                             uint64_t seq) noexcept nogil:
    cdef OrderRow *row = known_order(tables, order_id)
    cdef OrderChange *change
    if row == NULL:
        change = change_of(tables, order_id, seq, fill.time_ns)
        change.filled_lots += fill.quantity_lots
        if done:
            change.closed = W_FILLED
        return
    row.filled_lots += fill.quantity_lots
    row.remaining_lots -= fill.quantity_lots
    row.status = W_FILLED if done else W_PARTIALLY_FILLED
    row.updated_seq = seq
    row.updated_time_ns = fill.time_ns


# -- trades

cdef void trade_new(Tables *tables, const Fill *fill, uint64_t seq) noexcept nogil:
    cdef TradeRow *row = <TradeRow *>row_add(&tables.sets[TRADES])
    row.match_number = seq
    row.seq = seq
    row.time_ns = fill.time_ns
    row.price_units = fill.price_units
    row.quantity_lots = fill.quantity_lots
    row.maker_order_id = fill.maker_order_id
    row.taker_order_id = fill.taker_order_id
    row.maker_account_id = fill.maker_account_id
    row.taker_account_id = fill.taker_account_id
    row.symbol = tables.symbols[fill.instrument_id]
    row.taker_side = side_word(fill.taker_side)

cdef void candles_traded(Tables *tables, const Fill *fill) noexcept nogil:
    """Candles exist only where something traded; time never goes back."""
    cdef uint32_t symbol = tables.symbols[fill.instrument_id]
    cdef Market *market = &tables.markets[symbol]
    cdef RowSet *rows = &tables.sets[CANDLES]
    cdef uint32_t index
    cdef CandleRow *row
    if market.epoch != tables.epoch:
        memset(market, 0, sizeof(Market))
        market.epoch = tables.epoch
    for index in range(<uint32_t>INTERVALS):
        if fill.time_ns < market.candle_end_ns[index]:
            row = <CandleRow *>row_at(rows, market.candle[index])
            row.high_units = max(row.high_units, fill.price_units)
            row.low_units = min(row.low_units, fill.price_units)
            row.close_units = fill.price_units
            row.volume_lots += fill.quantity_lots
            row.trades += 1
            continue
        row = <CandleRow *>row_add(rows)
        market.candle[index] = <uint32_t>(rows.count - 1)
        row.symbol = symbol
        row.interval_s = _interval_ns[index] // <uint64_t>1000000000
        row.open_time_ns = fill.time_ns - fill.time_ns % _interval_ns[index]
        row.open_units = fill.price_units
        row.high_units = fill.price_units
        row.low_units = fill.price_units
        row.close_units = fill.price_units
        row.volume_lots = fill.quantity_lots
        row.trades = 1
        market.candle_end_ns[index] = row.open_time_ns + _interval_ns[index]

cdef void position_traded(Tables *tables, const Fill *fill, uint32_t account_id, bint buys,
                          uint64_t seq) noexcept nogil:
    cdef uint32_t symbol = tables.symbols[fill.instrument_id]
    cdef RowSet *rows = &tables.sets[POSITIONS]
    cdef uint32_t *place = places_find(&tables.positions, <uint64_t>account_id << 32 | symbol)
    cdef PositionRow *row
    cdef Wide *value
    if place[0]:
        row = <PositionRow *>row_at(rows, place[0] - 1)
    else:
        row = <PositionRow *>row_add(rows)
        place[0] = <uint32_t>rows.count
        memset(row, 0, sizeof(PositionRow))
        row.account_id = account_id
        row.symbol = symbol
    if buys:
        value = &row.bought_value
        row.bought_lots += fill.quantity_lots
        row.position_lots += fill.quantity_lots
    else:
        value = &row.sold_value
        row.sold_lots += fill.quantity_lots
        row.position_lots -= fill.quantity_lots
    wide_add(&value.low, &value.high, <uint64_t>fill.price_units, fill.quantity_lots)
    row.trades += 1
    row.seq = seq
    row.time_ns = fill.time_ns

cdef int take_fill(Tables *tables, const Fill *fill, uint64_t seq) noexcept nogil:
    cdef bint buys = side_is_buy(fill.taker_side)
    cdef uint32_t place
    cdef EventRow *row
    if tables.symbols[fill.instrument_id] == 0:
        return NO_NAME
    if tables.kept >> TRADES & 1:
        trade_new(tables, fill, seq)
    if tables.kept >> CANDLES & 1:
        candles_traded(tables, fill)
    if tables.kept >> POSITIONS & 1:
        position_traded(tables, fill, fill.taker_account_id, buys, seq)
        position_traded(tables, fill, fill.maker_account_id, not buys, seq)
    if not tables.kept >> ORDERS & 1:
        return ALL
    place = places_find(&tables.orders, fill.taker_order_id)[0]
    if place == 0 or place >> 31:
        return NO_TAKER
    side_filled(tables, fill.taker_order_id, fill, fill.flags & FILL_TAKER_DONE, seq)
    side_filled(tables, fill.maker_order_id, fill, fill.flags & FILL_MAKER_DONE, seq)
    if tables.kept >> ORDER_EVENTS & 1:
        row = event_new(tables, <const Event *>fill, seq)
        row.account_id = fill.taker_account_id
        row.order_id = fill.taker_order_id
        row.other_order_id = fill.maker_order_id
        row.other_account_id = fill.maker_account_id
        row.side = side_word(fill.taker_side)
        row.price_units = fill.price_units
        row.quantity_lots = fill.quantity_lots
        row.remaining_lots = order_at(tables, place).remaining_lots
        row.user_ref_num = number_or_none(fill.taker_user_ref_num)
        row.source = 0
    return ALL


# -- the venue

cdef void instrument_defined(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    cdef const ExtInstrument *ext = <const ExtInstrument *>find_ext(event, EXT_INSTRUMENT)
    cdef uint32_t *place = places_find(&tables.instruments, event.instrument_id)
    cdef RowSet *rows = &tables.sets[INSTRUMENTS]
    cdef InstrumentRow *row
    cdef InstrumentChange *change
    INVARIANT(ext != NULL, "a definition has its unit")
    if place[0] == 0:
        row_add(rows)
        place[0] = <uint32_t>rows.count
    row = <InstrumentRow *>row_at(rows, place[0] - 1)
    row.instrument_id = event.instrument_id
    row.symbol = word_of(tables, ext.symbol, 24)
    row.wire_symbol = word_of(tables, ext.wire_symbol, 8)
    row.price_decimals = ext.price_decimals
    row.quantity_decimals = ext.quantity_decimals
    row.tick_units = ext.tick_units
    row.lot_size = lots_of(ext.lot_size)
    row.quantity_max_lots = min(ext.quantity_max_lots, <uint64_t>0x7FFFFFFFFFFFFFFF)
    row.seq = seq
    row.time_ns = event.time_ns
    tables.symbols[event.instrument_id] = row.symbol
    place = places_find(&tables.instrument_changes, event.instrument_id)
    if place[0]:
        # The change goes to the store after this row, and has the last word.
        change = <InstrumentChange *>row_at(&tables.sets[INSTRUMENT_CHANGES], place[0] - 1)
        change.seq = seq
        change.time_ns = event.time_ns

cdef void instrument_halted(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """Halted, or trading again; a halt may say why."""
    cdef const ExtOrigin *origin = <const ExtOrigin *>find_ext(event, EXT_ORIGIN)
    cdef uint32_t *place = places_find(&tables.instrument_changes, event.instrument_id)
    cdef RowSet *rows = &tables.sets[INSTRUMENT_CHANGES]
    cdef InstrumentChange *row
    if place[0] == 0:
        row_add(rows)
        place[0] = <uint32_t>rows.count
    row = <InstrumentChange *>row_at(rows, place[0] - 1)
    row.instrument_id = event.instrument_id
    row.seq = seq
    row.time_ns = event.time_ns
    row.state = W_HALTED if event.kind == EV_INSTRUMENT_HALTED else W_TRADING
    row.reason = 0
    if origin != NULL and row.state == W_HALTED:
        row.reason = word_of(tables, origin.reason, 24)

cdef void account_defined(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    cdef const ExtAccount *ext = <const ExtAccount *>find_ext(event, EXT_ACCOUNT)
    cdef uint32_t *place = places_find(&tables.accounts, event.account_id)
    cdef RowSet *rows = &tables.sets[ACCOUNTS]
    cdef AccountRow *row
    cdef AccountChange *change
    INVARIANT(ext != NULL, "a definition has its unit")
    if place[0] == 0:
        row_add(rows)
        place[0] = <uint32_t>rows.count
    row = <AccountRow *>row_at(rows, place[0] - 1)
    row.account_id = event.account_id
    row.username = word_of(tables, ext.username, 24)
    row.firm = word_of(tables, ext.firm, 4)
    row.role = tables.role_words[ext.role]
    row.open_orders_max = ext.open_orders_max
    row.quantity_max_lots = min(ext.quantity_max_lots, <uint64_t>0x7FFFFFFFFFFFFFFF)
    row.notional_max.low = ext.notional_max
    row.notional_max.high = 0
    row.collar_bps = ext.collar_bps
    row.messages_per_second = ext.messages_per_second
    row.seq = seq
    row.time_ns = event.time_ns
    place = places_find(&tables.account_changes, event.account_id)
    if place[0]:
        change = <AccountChange *>row_at(&tables.sets[ACCOUNT_CHANGES], place[0] - 1)
        change.seq = seq
        change.time_ns = event.time_ns

cdef void entry_switched(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """Order entry by the account's own switch, or by the operator's."""
    cdef uint32_t *place = places_find(&tables.account_changes, event.account_id)
    cdef RowSet *rows = &tables.sets[ACCOUNT_CHANGES]
    cdef AccountChange *row
    if place[0] == 0:
        row = <AccountChange *>row_add(rows)
        place[0] = <uint32_t>rows.count
        row.entry_disabled = UNKNOWN
        row.killed = UNKNOWN
    row = <AccountChange *>row_at(rows, place[0] - 1)
    row.account_id = event.account_id
    row.seq = seq
    row.time_ns = event.time_ns
    if event.source == SOURCE_ADMIN:
        row.killed = event.kind == EV_ENTRY_DISABLED
    else:
        row.entry_disabled = event.kind == EV_ENTRY_DISABLED


# -- rows of events

cdef EventRow *event_new(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """A row with what stands at the same place in all events but fills."""
    cdef EventRow *row = <EventRow *>row_add(&tables.sets[ORDER_EVENTS])
    row.seq = seq
    row.time_ns = event.time_ns
    row.account_id = number_or_none(event.account_id)
    row.order_id = NONE
    row.other_order_id = NONE
    row.other_account_id = NONE
    row.price_units = NONE
    row.quantity_lots = NONE
    row.remaining_lots = NONE
    row.user_ref_num = NONE
    row.kind = tables.kind_words[event.kind]
    row.symbol = tables.symbols[event.instrument_id]
    row.side = 0
    row.reason = 0
    row.source = tables.source_words[event.source]
    row.client_order_id = 0
    return row

cdef void event_terms(EventRow *row, const Event *event) noexcept nogil:
    """The terms of an order."""
    row.side = side_word(event.side)
    row.price_units = price_of(event.price_units)
    row.quantity_lots = lots_of(event.quantity_lots)
    row.user_ref_num = number_or_none(event.user_ref_num)

cdef void event_of_order(Tables *tables, EventRow *row, const Event *event) noexcept nogil:
    """Accepted, replaced, refused to replace, canceled, modified, announced."""
    cdef const ExtReplace *ext
    event_terms(row, event)
    row.order_id = event.order_id
    row.remaining_lots = row.quantity_lots
    if event.kind == EV_CANCELED:
        row.remaining_lots = (<const Canceled *>event).remaining_lots
        row.reason = tables.cancel_words[(<const Canceled *>event).reason]
    elif event.kind == EV_MODIFIED:
        row.quantity_lots = (<const Modified *>event).reduced_lots
    elif event.kind == EV_REPLACE_REFUSED:
        row.remaining_lots = NONE
    elif event.kind == EV_REPLACED:
        ext = <const ExtReplace *>find_ext(event, EXT_REPLACE)
        row.other_order_id = ext.orig_order_id
    if event.ext_count and event.kind != EV_CANCELED:
        row.client_order_id = client_id_of(tables, event)

cdef void event_rejected(Tables *tables, EventRow *row, const Event *event) noexcept nogil:
    """A command was refused: which order it was about, as far as its door names orders by id."""
    cdef uint8_t command = <uint8_t>(event.order_id >> 16)
    cdef const ExtOrigin *origin = <const ExtOrigin *>find_ext(event, EXT_ORIGIN)
    cdef const ExtReplace *ext = <const ExtReplace *>find_ext(event, EXT_REPLACE)
    row.reason = reject_word(tables, event.order_id & 0xFFFF)
    if command == CMD_ENTER or command == CMD_REPLACE:
        event_terms(row, event)
        row.client_order_id = client_id_of(tables, event)
    elif command >= CMD_CANCEL and command <= CMD_ENABLE_ENTRY:
        row.user_ref_num = number_or_none(event.user_ref_num)
    if origin == NULL:
        return
    if command == CMD_CANCEL or command == CMD_MODIFY:
        row.order_id = number_or_none(origin.order_id)
    elif command == CMD_REPLACE and row.reason != tables.reject_words[REJECT_DUPLICATE_CLIENT_ID]:
        row.other_order_id = number_or_none(origin.order_id)
    elif command == CMD_REPLACE:
        # The origin names the first answer then, and the target stands where OUCH has it.
        row.other_order_id = number_or_none(ext.orig_order_id)

cdef uint32_t reject_word(Tables *tables, uint32_t reason) noexcept nogil:
    """The word for a reason; a number without a word is shown as it is."""
    cdef char text[11]
    cdef uint32_t index
    cdef uint32_t digit
    if tables.reject_words[reason] == 0:
        memcpy(text, b"reject_", 7)
        for index in range(4):
            digit = reason >> (12 - 4 * index) & 15
            text[7 + index] = <char>(c'0' + digit if digit < 10 else c'A' + digit - 10)
        tables.reject_words[reason] = word_of(tables, text, 11)
    return tables.reject_words[reason]

cdef void event_of_venue(Tables *tables, EventRow *row, const Event *event) noexcept nogil:
    """What whole accounts, instruments or the venue meet; an operator may have said why."""
    cdef const ExtOrigin *origin = <const ExtOrigin *>find_ext(event, EXT_ORIGIN)
    if event.kind <= EV_ENTRY_ENABLED:
        row.side = side_word(event.side)
    if event.kind != EV_RULES_SET:
        row.user_ref_num = number_or_none(event.user_ref_num)
    if origin != NULL:
        row.reason = word_of(tables, origin.reason, 24)

cdef void event_told(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """The row in `order_events` of an event that is no fill."""
    cdef EventRow *row = event_new(tables, event, seq)
    if event.kind == EV_REJECTED:
        event_rejected(tables, row, event)
    elif event.kind <= EV_MODIFIED or event.kind == EV_ANNOUNCED:
        event_of_order(tables, row, event)
    else:
        event_of_venue(tables, row, event)

cdef inline bint needs_symbol(uint8_t kind) noexcept nogil:
    return kind == EV_ACCEPTED or kind == EV_REPLACED

cdef int take_event(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """One event into all tables. Returns ALL, or what is wrong."""
    cdef uint8_t kind = event.kind
    if kind == EV_FILL:
        return take_fill(tables, <const Fill *>event, seq)
    if needs_symbol(kind) and tables.symbols[event.instrument_id] == 0:
        return NO_NAME
    if kind == EV_INSTRUMENT_DEFINED:
        instrument_defined(tables, event, seq)
    elif kind == EV_ACCOUNT_DEFINED:
        account_defined(tables, event, seq)
    elif kind == EV_INSTRUMENT_HALTED or kind == EV_INSTRUMENT_RESUMED:
        instrument_halted(tables, event, seq)
    elif kind == EV_ENTRY_DISABLED or kind == EV_ENTRY_ENABLED:
        entry_switched(tables, event, seq)
    elif tables.kept >> ORDERS & 1:
        take_order(tables, event, seq)
    if tables.kept >> ORDER_EVENTS & 1:
        event_told(tables, event, seq)
    return ALL

cdef inline void take_order(Tables *tables, const Event *event, uint64_t seq) noexcept nogil:
    """An event of an order, other than a fill, into its row."""
    cdef const Canceled *canceled = <const Canceled *>event
    cdef uint8_t kind = event.kind
    if kind == EV_ACCEPTED:
        order_new(tables, event, seq)
    elif kind == EV_CANCELED:
        order_reduced(tables, event, event.quantity_lots, canceled.remaining_lots,
                      tables.cancel_words[canceled.reason], seq)
    elif kind == EV_REPLACED:
        order_replaced(tables, event, seq)
    elif kind == EV_MODIFIED:
        order_reduced(tables, event, (<const Modified *>event).reduced_lots, event.quantity_lots,
                      0, seq)
    elif kind == EV_ANNOUNCED and source_has_stream(event.source):
        order_announced(tables, event, seq)

cdef int take_events(Tables *tables, const Units *units, uint64_t seq, uint64_t until_ns,
                     uint64_t limit) noexcept nogil:
    """The events behind applied_seq, whole commands."""
    cdef size_t position = 0
    cdef const Event *event
    cdef int result
    while position < units.count:
        event = &units.data[position]
        if seq > tables.applied_seq:
            if (until_ns or limit) and starts_command(event) and (
                    until_ns and event.time_ns >= until_ns or limit and tables.taken >= limit):
                return STOPPED
            result = take_event(tables, event, seq)
            if result != ALL:
                return result
            tables.applied_seq = seq
            tables.last_time_ns = event.time_ns
            tables.taken += 1
        position += 1 + <size_t>event.ext_count
        seq += 1
    return ALL


# ---- Python -------------------------------------------------------------------------------------

cdef inline const char *cell_at(const RowSet *rows, size_t index, size_t column) noexcept nogil:
    return rows.items + index * rows.row_bytes + rows.columns[column].offset


cdef bint cell_is_null(const char *at, uint8_t kind) noexcept nogil:
    if kind == INT:
        return (<const int64_t *>at)[0] == NONE
    if kind == WORD or kind == TEXT:
        return (<const uint32_t *>at)[0] == 0
    return kind == BOOL and (<const uint8_t *>at)[0] == UNKNOWN


cdef RowSet slice_of(const RowSet *rows, size_t start, size_t end) noexcept nogil:
    """The rows start..end as a table of their own; their memory stays where it is."""
    cdef RowSet part = rows[0]
    start = min(start, end)
    part.items += start * rows.row_bytes
    part.count = end - start
    return part


cdef object column_validity(const RowSet *rows, size_t column):
    """A bit for each row, set where there is a value; None when all are."""
    cdef bytearray bits = bytearray((rows.count + 7) // 8)
    cdef uint8_t *out = <uint8_t *>PyByteArray_AS_STRING(bits)
    cdef uint8_t kind = rows.columns[column].kind
    cdef size_t nulls = 0
    cdef size_t index
    for index in range(rows.count):
        if cell_is_null(cell_at(rows, index, column), kind):
            nulls += 1
        else:
            out[index >> 3] |= <uint8_t>(1 << (index & 7))
    return bits if nulls else None


cdef bytearray column_values(const RowSet *rows, size_t column, size_t width):
    """The values of a column, each of so many bytes."""
    cdef bytearray data = bytearray(rows.count * width)
    cdef char *out = PyByteArray_AS_STRING(data)
    cdef size_t index
    for index in range(rows.count):
        memcpy(out + index * width, cell_at(rows, index, column), width)
    return data


cdef bytearray column_bits(const RowSet *rows, size_t column):
    cdef bytearray bits = bytearray((rows.count + 7) // 8)
    cdef uint8_t *out = <uint8_t *>PyByteArray_AS_STRING(bits)
    cdef size_t index
    for index in range(rows.count):
        if (<const uint8_t *>cell_at(rows, index, column))[0] == 1:
            out[index >> 3] |= <uint8_t>(1 << (index & 7))
    return bits


cdef object wide_value(const Wide *wide):
    return wide.low | <object>wide.high << 64 if wide.high else wide.low


cdef class Rows:
    """Rows of a run of events. One owner at a time; not safe for two threads at once.

    `reject_codes` and `cancel_codes` give the words for reasons (by number, by OUCH's letter),
    `roles` the numbers of roles by their words. `keep` names the tables to collect; those of
    instruments and accounts always are, and `order_events` needs `orders`.
    """

    def __cinit__(self, *_args, **_names):
        cdef Tables *tables = &self.tables
        cdef size_t table, index
        for table in range(<size_t>TABLES):
            tables.sets[table].row_bytes = _row_bytes[table]
            tables.sets[table].column_count = len(_columns[table])
            index = 0
            for _, kind, offset in _columns[table]:
                tables.sets[table].columns[index].kind = kind
                tables.sets[table].columns[index].offset = offset
                index += 1
        places_init(&tables.word_finder, 512)
        places_init(&tables.orders, 1024)
        places_init(&tables.positions, 64)
        places_init(&tables.instruments, 64)
        places_init(&tables.instrument_changes, 16)
        places_init(&tables.accounts, 64)
        places_init(&tables.account_changes, 16)
        tables.symbols = <uint32_t *>calloc(INSTRUMENT_IDS, sizeof(uint32_t))
        tables.reject_words = <uint32_t *>calloc(1 << 16, sizeof(uint32_t))
        INVARIANT(tables.symbols != NULL and tables.reject_words != NULL,
                  "out of memory for names")
        tables.epoch = 1
        tables.texts.used = 2
        self._strings = [None]

    def __init__(self, uint64_t applied_seq, reject_codes, cancel_codes, roles, keep=None):
        cdef Tables *tables = &self.tables
        for number, word in enumerate(_FIXED_WORDS, 1):
            if self._word(word) != number:
                raise RuntimeError("a Rows is initialised once")
        tables.applied_seq = applied_seq
        for kind in range(EV_ACCEPTED, EV_RULES_SET + 1):
            name = "filled" if kind == EV_FILL else model.KIND_NAMES[kind]
            tables.kind_words[<uint8_t>kind] = self._word(name)
        for source, name in model.SOURCE_NAMES.items():
            tables.source_words[<uint8_t>source] = self._word(name)
        for reason, name in reject_codes.items():
            tables.reject_words[<uint16_t>reason] = self._word(name)
        for reason in range(1, 128):
            name = cancel_codes.get(chr(reason), chr(reason))
            tables.cancel_words[<uint8_t>reason] = self._word(name)
        for name, role in roles.items():
            tables.role_words[<uint8_t>role] = self._word(name)
        self._keep(_table_numbers if keep is None else keep)

    cdef uint32_t _word(self, str name) except? 0:
        cdef bytes raw = name.encode("latin-1")
        return word_of(&self.tables, raw, len(raw))

    def _keep(self, names):
        for name in names:
            self.tables.kept |= 1 << self.table_number(name)
        if self.tables.kept & (1 << ORDER_EVENTS | 1 << ORDER_CHANGES | 1 << ORDER_HEIRS):
            self.tables.kept |= 1 << ORDERS

    def __dealloc__(self):
        cdef Tables *tables = &self.tables
        cdef size_t table
        for table in range(<size_t>TABLES):
            free(tables.sets[table].items)
        free(tables.words.data)
        free(tables.word_places)
        free(tables.texts.data)
        free(tables.markets)
        free(tables.word_finder.cells)
        free(tables.orders.cells)
        free(tables.positions.cells)
        free(tables.instruments.cells)
        free(tables.instrument_changes.cells)
        free(tables.accounts.cells)
        free(tables.account_changes.cells)
        free(tables.symbols)
        free(tables.reject_words)

    cdef int table_number(self, table) except -1:
        """The number of a table. KeyError: there is none of that name."""
        return _table_numbers[table]

    @property
    def applied_seq(self):
        """The last event taken: whole commands up to here."""
        return self.tables.applied_seq

    @applied_seq.setter
    def applied_seq(self, uint64_t seq):
        if self.tables.taken:
            raise ValueError("events were taken already: clear first")
        self.tables.applied_seq = seq

    @property
    def last_time_ns(self):
        """The time of the last event taken, 0 before the first."""
        return self.tables.last_time_ns

    @last_time_ns.setter
    def last_time_ns(self, uint64_t time_ns):
        self.tables.last_time_ns = time_ns

    @property
    def events(self):
        """How many events were taken since the last `clear`."""
        return self.tables.taken

    def define(self, uint16_t instrument_id, str symbol, str wire_symbol="", price_decimals=0,
               quantity_decimals=0, lot_size=1):
        """Take the name of an instrument that was defined before the first event to come. It makes
        no row; the wire symbol and the scales are not needed for any."""
        self.tables.symbols[instrument_id] = self._word(symbol)

    def apply(self, EventBatch batch not None, uint64_t until_ns=0, uint64_t limit_rows=0):
        """Take the events of a batch of whole commands that are behind `applied_seq`.

        With `until_ns` it stops before the first command at or after that time, with `limit_rows`
        before the first command once so many events were taken since `clear`. True when all of the
        batch was taken; otherwise call again with the same batch, after a `clear`.

        Raises CoreError when the batch begins behind a hole, names an instrument that was never
        defined, or a fill whose taker began before `applied_seq` (then that is not the end of a
        command); what was collected is of no use then.
        """
        cdef Tables *tables = &self.tables
        cdef int result
        if batch.event_count == 0:
            return True
        if batch.first_seq > tables.applied_seq + 1:
            raise CoreError(f"events begin at {batch.first_seq}, the rows end at "
                            f"{tables.applied_seq}")
        with nogil:
            result = take_events(tables, &batch.units, batch.first_seq, until_ns, limit_rows)
        if result == NO_NAME:
            raise CoreError(f"event {tables.applied_seq + 1} is of an instrument that was not "
                            "defined")
        if result == NO_TAKER:
            raise CoreError(f"event {tables.applied_seq + 1} is a fill in the middle of a command")
        return result == ALL

    @property
    def min_change_id(self):
        """The lowest order id in `order_changes` and of those that heirs name; 0 for none."""
        low, _ = self._bounds()
        return low

    @property
    def max_change_id(self):
        """The highest order id in `order_changes` and of those that heirs name; 0 for none."""
        _, high = self._bounds()
        return high

    def _bounds(self):
        cdef const RowSet *changes = &self.tables.sets[ORDER_CHANGES]
        cdef int64_t low = 0
        cdef int64_t high = 0
        cdef int64_t order_id
        cdef size_t index
        # An heir's original was replaced in this run, so it is among the changes.
        for index in range(changes.count):
            order_id = (<const OrderChange *>row_at(changes, index)).order_id
            low = order_id if low == 0 else min(low, order_id)
            high = max(high, order_id)
        return low, high

    def count(self, str table):
        """How many rows of a table there are. KeyError: there is no such table."""
        return self.tables.sets[self.table_number(table)].count

    def rows(self, str table, size_t start=0, stop=None):
        """The rows start..stop of a table as tuples, in the order of COLUMNS. Times are
        nanoseconds, prices units, quantities lots. KeyError: there is no such table."""
        cdef const RowSet *rows = &self.tables.sets[self.table_number(table)]
        cdef size_t end = rows.count if stop is None else min(<size_t>stop, rows.count)
        cdef size_t index, column
        cdef list found = []
        cdef tuple row
        for index in range(start, end):
            row = PyTuple_New(rows.column_count)
            for column in range(rows.column_count):
                value = self._value(rows, index, column)
                Py_INCREF(value)
                PyTuple_SET_ITEM(row, column, value)
            found.append(row)
        return found

    def flat(self, str table, size_t start=0, stop=None):
        """The values of the rows start..stop one behind the other, as `rows` gives them."""
        cdef const RowSet *rows = &self.tables.sets[self.table_number(table)]
        cdef size_t end = rows.count if stop is None else min(<size_t>stop, rows.count)
        cdef size_t index, column
        cdef list found = []
        for index in range(start, end):
            for column in range(rows.column_count):
                found.append(self._value(rows, index, column))
        return found

    cdef object _value(self, const RowSet *rows, size_t index, size_t column):
        cdef const char *at = cell_at(rows, index, column)
        cdef uint8_t kind = rows.columns[column].kind
        cdef int64_t number
        if kind == INT:
            number = (<const int64_t *>at)[0]
            return None if number == NONE else number
        if kind == WORD or kind == TEXT:
            return self._string((<const uint32_t *>at)[0])
        if kind == WIDE:
            return wide_value(<const Wide *>at)
        if (<const uint8_t *>at)[0] == UNKNOWN:
            return None
        return True if (<const uint8_t *>at)[0] else False

    cdef object _string(self, uint32_t value):
        cdef uint16_t length
        cdef const char *text
        if value >> 31:
            text = text_of(&self.tables, value, &length)
            return text[:length].decode("utf-8")
        while <size_t>len(self._strings) <= self.tables.word_count:
            text = text_of(&self.tables, <uint32_t>len(self._strings), &length)
            self._strings.append(text[:length].decode("utf-8"))
        return self._strings[value]

    def arrays(self, str table, size_t start=0, stop=None):
        """The rows start..stop by columns, in the buffers that Arrow has for them: {column: (kind,
        validity, ...)} with `validity` a bitmap or None when nothing is NULL, and then

        "int64", "int128": the values; "bool": a bitmap; "word": int32 places in a list of texts,
        and that list; "text": int32 offsets, and UTF-8. KeyError: there is no such table."""
        cdef int number = self.table_number(table)
        cdef RowSet rows = self._slice(number, start, stop)
        cdef size_t column
        found = {}
        for column in range(rows.column_count):
            name, kind, _ = _columns[number][column]
            validity = column_validity(&rows, column)
            if kind == INT:
                found[name] = ("int64", validity, column_values(&rows, column, 8))
            elif kind == WIDE:
                found[name] = ("int128", validity, column_values(&rows, column, 16))
            elif kind == BOOL:
                found[name] = ("bool", validity, column_bits(&rows, column))
            elif kind == WORD:
                self._string(1)
                found[name] = ("word", validity, column_values(&rows, column, 4),
                               ["", *self._strings[1:]])
            else:
                found[name] = ("text", validity, *self._texts(&rows, column))
        return found

    cdef RowSet _slice(self, int number, size_t start, stop) except *:
        cdef const RowSet *rows = &self.tables.sets[number]
        return slice_of(rows, start, rows.count if stop is None else min(<size_t>stop, rows.count))

    def scaled(self, str table, str column, factors, size_t start=0, stop=None, int digits=38):
        """Numbers of the rows start..stop times a factor of the row's symbol, as int128: NULL is 0.

        `factors` leads from symbols to factors below 2**64; what it does not have is 0. KeyError:
        there is no such table, or it has no such column. OverflowError: a product has more than so
        many digits (38 at most)."""
        cdef int number = self.table_number(table)
        cdef RowSet rows = self._slice(number, start, stop)
        names = COLUMNS[table]
        if column not in names or _columns[number][names.index(column)][1] != INT:
            raise KeyError(column)
        cdef size_t place = names.index(column)
        cdef size_t symbol = names.index("symbol")
        cdef bytearray by_word = bytearray((<size_t>self.tables.word_count + 1) * 8)
        cdef uint64_t *factor = <uint64_t *>PyByteArray_AS_STRING(by_word)
        cdef bytearray data = bytearray(rows.count * 16)
        cdef uint64_t *out = <uint64_t *>PyByteArray_AS_STRING(data)
        cdef size_t index
        cdef int64_t value
        cdef bint fits = True
        cdef object limit = <object>10 ** <object>min(digits, 38)
        cdef uint64_t end_low = limit & <uint64_t>0xFFFFFFFFFFFFFFFF
        cdef uint64_t end_high = limit >> 64
        self._string(1)
        for index in range(1, <size_t>self.tables.word_count + 1):
            factor[index] = factors.get(self._strings[index], 0)
        with nogil:
            for index in range(rows.count):
                value = (<const int64_t *>cell_at(&rows, index, place))[0]
                if value != NONE and not wide_scaled(
                        value, factor[(<const uint32_t *>cell_at(&rows, index, symbol))[0]],
                        end_low, end_high, out + 2 * index):
                    fits = False
        if not fits:
            raise OverflowError(f"a {column} has more than {digits} digits")
        return data

    cdef tuple _texts(self, const RowSet *rows, size_t column):
        """The offsets and the bytes of a column of texts."""
        cdef Py_ssize_t total = 0
        cdef uint16_t length
        cdef size_t index
        cdef uint32_t value
        cdef const char *text
        cdef bytearray offsets = bytearray((rows.count + 1) * 4)
        cdef int32_t *ends = <int32_t *>PyByteArray_AS_STRING(offsets)
        cdef bytearray data
        cdef char *out
        for index in range(rows.count):
            value = (<const uint32_t *>cell_at(rows, index, column))[0]
            if value:
                text_of(&self.tables, value, &length)
                total += length
            if total > 0x7FFFFFFF:
                raise OverflowError("the texts of a column take more than 2 GiB")
            ends[index + 1] = <int32_t>total
        data = bytearray(total)
        out = PyByteArray_AS_STRING(data)
        for index in range(rows.count):
            value = (<const uint32_t *>cell_at(rows, index, column))[0]
            if value:
                text = text_of(&self.tables, value, &length)
                memcpy(out, text, length)
                out += length
        return offsets, data

    def clear(self):
        """Begin the next run behind `applied_seq`: rows go, names and memory stay."""
        cdef Tables *tables = &self.tables
        cdef size_t table
        for table in range(<size_t>TABLES):
            tables.sets[table].count = 0
        tables.taken = 0
        tables.texts.used = 2
        tables.epoch += 1
        places_clear(&tables.orders)
        places_clear(&tables.positions)
        places_clear(&tables.instruments)
        places_clear(&tables.instrument_changes)
        places_clear(&tables.accounts)
        places_clear(&tables.account_changes)

# All that the matcher knows: instruments with their books, accounts, resting orders.
#
# Commands change it (matcher.pyx), logged events change it the same way (replay.pyx), and it is
# saved, loaded, hashed and checked as a whole (snapshot.pyx). What all of them need is inline here.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cython_core.book cimport *
from cython_core.client_ids cimport *
from cython_core.event cimport *
from cython_core.invariant cimport INVARIANT
from cython_core.levels cimport *
from cython_core.model cimport *
from cython_core.order_index cimport *
from cython_core.pool cimport *
from cython_core.risk cimport Limits
from cython_core.used_numbers cimport *

cdef enum:
    INSTRUMENTS = 65536
    CHANNELS = 256              # user_ref_idx is one byte
    # Bits of Account.entry_disabled.
    ENTRY_DISABLED = 1          # by the account itself
    ENTRY_KILLED = 2            # by an operator; only an operator takes it back

# One cache line. What channel 0 has is inline; the other channels share lazily made rows of 256.
cdef struct Account:
    Limits limits
    uint64_t stream_next        # number of the account's next sequenced message
    uint32_t account_id
    uint32_t open_orders
    uint32_t last_user_ref_num
    uint32_t channels           # row in the channel pool, 0 for none
    char firm[4]
    uint8_t limited             # any limit is on
    uint8_t entry_disabled
    uint16_t gaps               # channels with a missing number, see used_numbers.pxd
    uint32_t used_numbers       # channel 0's record of them, 0 for none
    uint32_t used_numbers_row   # row in the channel pool of the other channels' records, 0 for none

# A definition as it was logged, to be listed and saved.
cdef struct Definition:
    Event base
    Event ext

# Whether an instrument is halted, and why, as the operator put it.
cdef struct Halt:
    uint64_t halted
    char reason[24]

cdef struct AccountEntry:
    uint32_t account_id
    uint32_t slot               # 0: empty

cdef struct Ranked:
    uint64_t order_id
    uint32_t slot

cdef struct State:
    Pool pool
    OrderIndex index            # orders with a stream, by their handle
    LevelPool levels
    Book *books                 # by instrument id, all 65,536: untouched pages cost nothing
    Definition *instruments
    Halt *halts                 # by instrument id
    uint32_t instruments_end    # highest defined id + 1
    # accounts have dense slots from 1, in the order of their definition
    Account *accounts
    Definition *account_units
    uint32_t accounts_end
    uint32_t accounts_capacity
    AccountEntry *account_map
    uint64_t account_mask
    uint32_t cached_account_id  # the map's last answer
    uint32_t cached_slot
    uint32_t *channels
    uint32_t channels_end
    uint32_t channels_capacity
    NumberPool numbers
    uint32_t udp_window         # over UDP, a missing number so far behind the last is still taken
    # private orders
    OrderIndex by_id
    ClientIds clients
    uint64_t now_ns             # time of the command or event at hand
    # where the log is
    uint64_t next_seq
    uint64_t last_time_ns
    uint16_t generation

cdef int state_init(State *state) except -1
cdef void state_free(State *state) noexcept nogil
cdef void state_define_account(State *state, const Event *event) noexcept nogil
cdef void state_define_instrument(State *state, const Event *event) noexcept nogil
cdef void state_set_rules(State *state, const Rules *rules) noexcept nogil
cdef void state_halt(State *state, const Event *event) noexcept nogil
cdef void rest_private(State *state, uint32_t slot) noexcept nogil
cdef void forget_private(State *state, uint32_t slot) noexcept nogil
cdef uint32_t remember_client(State *state, uint32_t account, const Event *command,
                              const ExtClientId *id) noexcept nogil
cdef void settle_client(State *state, uint32_t entry, uint32_t slot,
                        uint64_t order_id) noexcept nogil
cdef uint32_t channel_row(State *state) noexcept nogil
cdef void use_beside_gaps(State *state, Account *account, uint8_t channel,
                          uint32_t user_ref_num) noexcept nogil
cdef void set_record(State *state, Account *account, uint8_t channel,
                     uint32_t record) noexcept nogil
cdef void forget_gaps(State *state) noexcept nogil
cdef uint32_t *orders_by_id(const State *state, uint32_t account) noexcept nogil
cdef Ranked *sort_ranked(Ranked *ranked, size_t count) noexcept nogil

cdef void fill_announced(const State *state, uint32_t slot, Event *event) noexcept nogil
cdef void copy_options(ExtOptions *target, const ExtOptions *source,
                       uint32_t tags) noexcept nogil
cdef void merge_options(ExtOptions *merged, const ExtOptions *original,
                        const ExtOptions *given) noexcept nogil

cdef inline uint32_t account_slot(State *state, uint32_t account_id) noexcept nogil:
    """The slot of an account, 0 when it is not defined."""
    cdef uint64_t place
    if state.cached_account_id == account_id and state.cached_slot:
        return state.cached_slot
    if state.account_map == NULL:
        return 0
    place = (account_id * <uint32_t>0x9E3779B1) & state.account_mask
    while state.account_map[place].slot:
        if state.account_map[place].account_id == account_id:
            state.cached_account_id = account_id
            state.cached_slot = state.account_map[place].slot
            return state.cached_slot
        place = (place + 1) & state.account_mask
    return 0

cdef inline uint32_t last_number(const State *state, const Account *account,
                                 uint8_t channel) noexcept nogil:
    """The highest user_ref_num used on a channel in this session, 0 for none."""
    if channel == 0:
        return account.last_user_ref_num
    if account.channels == 0:
        return 0
    return state.channels[<size_t>account.channels * CHANNELS + channel]

cdef inline void set_last_number(State *state, Account *account, uint8_t channel,
                                 uint32_t user_ref_num) noexcept nogil:
    if channel == 0:
        account.last_user_ref_num = user_ref_num
        return
    if account.channels == 0:
        account.channels = channel_row(state)
    state.channels[<size_t>account.channels * CHANNELS + channel] = user_ref_num

cdef inline uint32_t record_of_numbers(const State *state, const Account *account,
                                       uint8_t channel) noexcept nogil:
    """The record of a channel's missing numbers, 0 when there is none."""
    if channel == 0:
        return account.used_numbers
    if account.used_numbers_row == 0:
        return 0
    return state.channels[<size_t>account.used_numbers_row * CHANNELS + channel]

cdef inline bint number_is_late(const State *state, const Account *account, uint8_t channel,
                                uint32_t user_ref_num, uint32_t last) noexcept nogil:
    """Whether a number, none above the last, was never used and is still within the window."""
    cdef uint32_t record
    if user_ref_num == 0 or last - user_ref_num >= state.udp_window or account.gaps == 0:
        return False
    record = record_of_numbers(state, account, channel)
    return record != 0 and not number_was_used(&state.numbers.items[record], user_ref_num)

cdef inline bint number_is_new(const State *state, const Account *account,
                               const Event *event) noexcept nogil:
    """Whether a command or its event may use its number: over UDP also one that was overtaken."""
    cdef uint32_t last = last_number(state, account, event.user_ref_idx)
    return event.user_ref_num > last or (
        event.source == SOURCE_UDP
        and number_is_late(state, account, event.user_ref_idx, event.user_ref_num, last))

cdef inline void use_number(State *state, Account *account, uint8_t channel,
                            uint32_t user_ref_num) noexcept nogil:
    """Use a new number up. Gaps are of interest only while there is a window."""
    if state.udp_window == 0 or (
            account.gaps == 0
            and user_ref_num == last_number(state, account, channel) + 1):
        set_last_number(state, account, channel, user_ref_num)
    else:
        use_beside_gaps(state, account, channel, user_ref_num)

cdef inline void set_order(Order *order, const Event *event, uint32_t account,
                           uint64_t order_id) noexcept nogil:
    """An order as the event or command says, with nothing executed and no options yet."""
    order.open_lots = event.quantity_lots
    order.order_id = order_id
    order.chain_done_lots = 0
    order.price_units = event.price_units
    order.user_ref_num = event.user_ref_num
    order.account = account
    order.options = 0
    order.instrument_id = event.instrument_id
    order.user_ref_idx = event.user_ref_idx
    order.side = event.side
    order.time_in_force = event.time_in_force
    order.attributes = event.attributes
    order.source = event.source
    order.flags = event.flags & (FLAG_POST_ONLY | FLAG_POST_ONLY_SET)

cdef inline bint side_is_known(uint8_t side) noexcept nogil:
    return side == c'B' or side == c'S' or side == c'T' or side == c'E'

cdef inline bint order_may_rest(const Order *order) noexcept nogil:
    """Whether an order has what every resting order has."""
    return (side_is_known(order.side) and order.source <= SOURCE_ADMIN and order.open_lots != 0
            and (order.time_in_force == c'0' or order.time_in_force == c'1'))

cdef inline bint is_first(const Event *event) noexcept nogil:
    """Whether an event is the first of its command. A Fill never is (its flags are elsewhere)."""
    return event.kind != EV_FILL and event.flags & FLAG_FIRST

cdef inline const Event *find_extension(const Event *event, uint8_t kind) noexcept nogil:
    """The extension unit of a kind among an event's, or NULL."""
    cdef uint32_t index
    for index in range(1, 1 + <uint32_t>event.ext_count):
        if event[index].kind == kind:
            return &event[index]
    return NULL

cdef inline const ExtOptions *find_options(const Event *event) noexcept nogil:
    return <const ExtOptions *>find_extension(event, EXT_OPTIONS)

cdef inline const ExtClientId *find_client_id(const Event *event) noexcept nogil:
    return <const ExtClientId *>find_extension(event, EXT_CLIENT_ID)

cdef inline const ExtOrigin *find_origin(const Event *event) noexcept nogil:
    return <const ExtOrigin *>find_extension(event, EXT_ORIGIN)

cdef inline void switch_entry(Account *account, uint8_t source, bint disable) noexcept nogil:
    """Disable or enable order entry: the account's own switch, or the operator's."""
    cdef uint8_t bit = ENTRY_KILLED if source == SOURCE_ADMIN else ENTRY_DISABLED
    account.entry_disabled = account.entry_disabled & ~bit | (bit if disable else 0)

cdef inline void count_message(Account *account, uint8_t source) noexcept nogil:
    """One more sequenced message, if the source has a stream."""
    account.stream_next += source_has_stream(source)

cdef inline void rest_order(State *state, Book *book, uint32_t slot, uint32_t tick,
                            const char *client_order, const ExtOptions *options) noexcept nogil:
    """Put an order of the slab into the book, its queue and the index."""
    cdef Order *order = &state.pool.orders[slot]
    memcpy(state.pool.clients[slot].text, client_order, 14)
    order.options = options_take(&state.pool, options) if options != NULL else 0
    book_add(book, &state.levels, state.pool.orders, slot, side_of(order.side), tick)
    if source_has_stream(order.source):
        index_insert(&state.index, order.account, order.user_ref_idx, order.user_ref_num, slot)
    else:
        rest_private(state, slot)
    state.accounts[order.account].open_orders += 1

cdef inline void forget_order(State *state, uint32_t slot) noexcept nogil:
    """Give back all that belongs to an order but its place in the book."""
    cdef Order *order = &state.pool.orders[slot]
    if source_has_stream(order.source):
        index_remove(&state.index, order.account, order.user_ref_idx, order.user_ref_num, slot)
    else:
        forget_private(state, slot)
    state.accounts[order.account].open_orders -= 1
    if order.options:
        options_give(&state.pool, order.options)
    pool_give(&state.pool, slot)

cdef inline void drop_order(State *state, uint32_t slot) noexcept nogil:
    """Take an order off the book for good."""
    cdef Order *order = &state.pool.orders[slot]
    book_remove(&state.books[order.instrument_id], &state.levels, state.pool.orders, order)
    forget_order(state, slot)

cdef inline void fill_maker(State *state, Book *book, uint32_t slot, uint64_t lots) noexcept nogil:
    """Take lots off the oldest order of the best level; an order with nothing left goes."""
    cdef Order *maker = &state.pool.orders[slot]
    if maker.open_lots > lots:
        maker.open_lots -= lots
        maker.chain_done_lots += lots
        state.levels.items[maker.level].quantity_lots -= lots
        return
    book_remove(book, &state.levels, state.pool.orders, maker)
    forget_order(state, slot)

cdef inline void start_session(State *state, uint16_t generation) noexcept nogil:
    """Streams restart at 1, user_ref_nums at 0; no order has a handle until it is announced.

    Private orders have none; they stay what they are.
    """
    cdef uint32_t slot
    state.generation = generation
    for slot in range(1, state.accounts_end):
        state.accounts[slot].stream_next = 1
        state.accounts[slot].last_user_ref_num = 0
    forget_gaps(state)
    if state.channels_end:
        memset(state.channels, 0, <size_t>state.channels_end * CHANNELS * sizeof(uint32_t))
    index_free(&state.index)
    index_init(&state.index)

cdef inline void announce_order(State *state, uint32_t slot) noexcept nogil:
    """A GTC order gets its number in the new session. A private one has none, before or after."""
    cdef Order *order = &state.pool.orders[slot]
    cdef Account *account = &state.accounts[order.account]
    if not source_has_stream(order.source):
        return
    order.user_ref_num = last_number(state, account, order.user_ref_idx) + 1
    order.chain_done_lots = 0
    use_number(state, account, order.user_ref_idx, order.user_ref_num)
    index_insert(&state.index, order.account, order.user_ref_idx, order.user_ref_num, slot)
    count_message(account, order.source)

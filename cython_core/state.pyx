# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The parts of the matcher's state that do not run once per order.

cdivision: the only division is of unsigned numbers, by one that is not 0.
"""

from libc.stdlib cimport calloc, free, malloc

if NUMBER_WORDS * 64 != UDP_WINDOW_MAX or sizeof(Account) != 64:
    raise ImportError("a record of numbers has a bit for each, an account is one cache line")


cdef int state_init(State *state) except -1:
    """An empty venue in generation 1. Raises MemoryError."""
    memset(state, 0, sizeof(State))
    state.books = <Book *>memory_grow(NULL, 0, INSTRUMENTS * sizeof(Book))
    state.instruments = <Definition *>memory_grow(NULL, 0, INSTRUMENTS * sizeof(Definition))
    state.halts = <Halt *>memory_grow(NULL, 0, INSTRUMENTS * sizeof(Halt))
    if state.books == NULL or state.instruments == NULL or state.halts == NULL:
        raise MemoryError("no address space for the instrument tables")
    index_init(&state.index)
    index_init(&state.by_id)
    client_ids_init(&state.clients)
    pool_grow(&state.pool)
    levels_grow(&state.levels)
    state.accounts_end = 1
    state.next_seq = 1
    state.generation = 1
    return 0


cdef void state_free(State *state) noexcept nogil:
    """Give everything back; the state is empty memory afterwards."""
    cdef uint32_t instrument
    for instrument in range(state.instruments_end):
        book_free(&state.books[instrument])
    memory_free(state.books, INSTRUMENTS * sizeof(Book))
    memory_free(state.instruments, INSTRUMENTS * sizeof(Definition))
    memory_free(state.halts, INSTRUMENTS * sizeof(Halt))
    memory_free(state.accounts, state.accounts_capacity * sizeof(Account))
    memory_free(state.account_units, state.accounts_capacity * sizeof(Definition))
    memory_free(state.channels, <size_t>state.channels_capacity * CHANNELS * sizeof(uint32_t))
    memory_free(state.numbers.items, state.numbers.capacity * sizeof(UsedNumbers))
    free(state.account_map)
    index_free(&state.index)
    index_free(&state.by_id)
    client_ids_free(&state.clients)
    pool_free(&state.pool)
    levels_free(&state.levels)
    memset(state, 0, sizeof(State))


cdef void map_account(State *state, uint32_t account_id, uint32_t slot) noexcept nogil:
    cdef uint64_t place = (account_id * <uint32_t>0x9E3779B1) & state.account_mask
    while state.account_map[place].slot:
        place = (place + 1) & state.account_mask
    state.account_map[place].account_id = account_id
    state.account_map[place].slot = slot


cdef void accounts_grow(State *state) noexcept nogil:
    """Double the account tables; the map stays at most half full."""
    cdef size_t old = state.accounts_capacity
    cdef size_t new = old * 2 if old else 64
    cdef uint32_t slot
    state.accounts = <Account *>memory_grow(state.accounts, old * sizeof(Account),
                                            new * sizeof(Account))
    state.account_units = <Definition *>memory_grow(
        state.account_units, old * sizeof(Definition), new * sizeof(Definition))
    free(state.account_map)
    state.account_map = <AccountEntry *>calloc(new * 2, sizeof(AccountEntry))
    INVARIANT(state.accounts != NULL and state.account_units != NULL
              and state.account_map != NULL, "out of memory for accounts")
    state.accounts_capacity = <uint32_t>new
    state.account_mask = new * 2 - 1
    for slot in range(1, state.accounts_end):
        map_account(state, state.accounts[slot].account_id, slot)


cdef void state_define_account(State *state, const Event *event) noexcept nogil:
    """Add an account, or replace the limits of one."""
    cdef const ExtAccount *ext = <const ExtAccount *>&event[1]
    cdef uint32_t slot = account_slot(state, event.account_id)
    cdef Account *account
    if slot == 0:
        if state.accounts_end >= state.accounts_capacity:
            accounts_grow(state)
        slot = state.accounts_end
        state.accounts_end += 1
        state.accounts[slot].account_id = event.account_id
        state.accounts[slot].stream_next = 1
        map_account(state, event.account_id, slot)
    account = &state.accounts[slot]
    account.limits.quantity_max_lots = ext.quantity_max_lots
    account.limits.notional_max = ext.notional_max
    account.limits.open_orders_max = ext.open_orders_max
    account.limits.collar_bps = ext.collar_bps
    account.limited = (ext.quantity_max_lots != 0 or ext.notional_max != 0
                       or ext.open_orders_max != 0 or ext.collar_bps != 0)
    memcpy(account.firm, ext.firm, 4)
    memcpy(&state.account_units[slot], event, sizeof(Definition))


cdef void state_define_instrument(State *state, const Event *event) noexcept nogil:
    """Add an instrument, or replace its terms. Its tick can't change while orders rest."""
    cdef const ExtInstrument *ext = <const ExtInstrument *>&event[1]
    cdef Book *book = &state.books[event.instrument_id]
    cdef uint32_t tick_units = <uint32_t>min(ext.tick_units, <int64_t>PRICE_MARKET)
    INVARIANT(book.orders == 0 or book.tick_units == tick_units,
              "the tick of an instrument stays while orders rest")
    book.instrument_id = event.instrument_id
    set_tick(book, tick_units)
    book.quantity_max_lots = ext.quantity_max_lots
    book.open = not state.halts[event.instrument_id].halted
    memcpy(&state.instruments[event.instrument_id], event, sizeof(Definition))
    if event.instrument_id >= state.instruments_end:
        state.instruments_end = <uint32_t>event.instrument_id + 1


cdef void state_halt(State *state, const Event *event) noexcept nogil:
    """EV_INSTRUMENT_HALTED and EV_INSTRUMENT_RESUMED."""
    cdef Halt *halt = &state.halts[event.instrument_id]
    cdef const ExtOrigin *origin = find_origin(event)
    memset(halt, 0, sizeof(Halt))
    halt.halted = event.kind == EV_INSTRUMENT_HALTED
    if halt.halted and origin != NULL:
        memcpy(halt.reason, origin.reason, 24)
    state.books[event.instrument_id].open = not halt.halted


cdef void state_set_rules(State *state, const Rules *rules) noexcept nogil:
    """Without a window all numbers up to the last count as used, also when there is one again."""
    state.udp_window = rules.udp_window
    if state.udp_window == 0:
        forget_gaps(state)
    state.clients.window_ns = rules.window_ns
    state.clients.kept_min = rules.kept_min
    state.clients.kept_max = rules.kept_max


# ---- numbers --------------------------------------------------------------------------------

cdef void use_beside_gaps(State *state, Account *account, uint8_t channel,
                          uint32_t user_ref_num) noexcept nogil:
    """Use a number up that is missing, or that is not the next one, or beside gaps of others."""
    cdef uint32_t last = last_number(state, account, channel)
    cdef uint32_t record = record_of_numbers(state, account, channel)
    cdef UsedNumbers *numbers
    if user_ref_num > last:
        set_last_number(state, account, channel, user_ref_num)
    if record == 0:
        if user_ref_num == last + 1:
            return
        record = numbers_take(&state.numbers)
        account.gaps += 1
        set_record(state, account, channel, record)
    numbers = &state.numbers.items[record]
    if user_ref_num > last:
        numbers_move_on(numbers, last, user_ref_num)
    number_use(numbers, user_ref_num)
    if numbers.missing == 0:
        numbers_give(&state.numbers, record)
        account.gaps -= 1
        set_record(state, account, channel, 0)


cdef void set_record(State *state, Account *account, uint8_t channel,
                     uint32_t record) noexcept nogil:
    if channel == 0:
        account.used_numbers = record
        return
    if account.used_numbers_row == 0:
        account.used_numbers_row = channel_row(state)
    state.channels[<size_t>account.used_numbers_row * CHANNELS + channel] = record


cdef void forget_gaps(State *state) noexcept nogil:
    """No number is missing any more: all up to the last count as used."""
    cdef Account *account
    cdef uint32_t slot
    for slot in range(1, state.accounts_end):
        account = &state.accounts[slot]
        account.gaps = 0
        account.used_numbers = 0
        if account.used_numbers_row:
            memset(&state.channels[<size_t>account.used_numbers_row * CHANNELS], 0,
                   CHANNELS * sizeof(uint32_t))
    numbers_forget_all(&state.numbers)


# ---- private orders -------------------------------------------------------------------------

cdef void rest_private(State *state, uint32_t slot) noexcept nogil:
    """An order without a stream came to rest: it is found by its id."""
    index_put(&state.by_id, index_tag_of_id(state.pool.orders[slot].order_id), slot)


cdef void forget_private(State *state, uint32_t slot) noexcept nogil:
    """An order without a stream is no more; its client's id has ended."""
    cdef uint32_t entry = client_unlink(&state.clients, slot)
    index_take(&state.by_id, index_tag_of_id(state.pool.orders[slot].order_id), slot)
    if entry:
        client_end(&state.clients, entry, state.now_ns)


cdef uint32_t remember_client(State *state, uint32_t account, const Event *command,
                              const ExtClientId *id) noexcept nogil:
    """The id of the command whose first event is the next one; returns its entry.

    Makes room first: ids of the same account, and of one that the seq draws, as evenly as a hash.
    """
    cdef uint64_t drawn = state.next_seq * <uint64_t>0x9E3779B97F4A7C15 >> 32
    client_forget(&state.clients, account, state.now_ns)
    client_forget(&state.clients, 1 + <uint32_t>(drawn % (state.accounts_end - 1)), state.now_ns)
    return client_add(&state.clients, account, id.text, state.next_seq, fingerprint_of(command))


cdef void settle_client(State *state, uint32_t entry, uint32_t slot,
                        uint64_t order_id) noexcept nogil:
    """An order was matched: its id (0 for none) is carried on by what rests, or it has ended."""
    if entry == 0:
        return
    if slot and state.pool.orders[slot].order_id == order_id:
        client_link(&state.clients, entry, slot, order_id)
    else:
        client_end(&state.clients, entry, state.now_ns)


cdef uint32_t channel_row(State *state) noexcept nogil:
    """A zeroed row for an account that uses channels: of last numbers, or of their records."""
    cdef size_t old = state.channels_capacity
    cdef size_t new = old * 2 if old else 16
    cdef size_t row_bytes = CHANNELS * sizeof(uint32_t)
    if state.channels_end >= old:
        state.channels = <uint32_t *>memory_grow(state.channels, old * row_bytes, new * row_bytes)
        INVARIANT(state.channels != NULL, "out of memory for channels")
        state.channels_capacity = <uint32_t>new
        if state.channels_end == 0:
            state.channels_end = 1
    state.channels_end += 1
    return state.channels_end - 1


cdef uint32_t *orders_by_id(const State *state, uint32_t account) noexcept nogil:
    """Slots of the live orders of an account (0: of all), in ascending order of order_id.

    A slot 0 ends the array, which the caller frees. The scan ends when all have been found.
    """
    cdef size_t wanted = state.accounts[account].open_orders if account else state.pool.live
    cdef Ranked *ranked = <Ranked *>malloc((wanted + 1) * sizeof(Ranked))
    cdef uint32_t *slots = <uint32_t *>malloc((wanted + 1) * sizeof(uint32_t))
    cdef const Order *order
    cdef size_t found = 0
    cdef size_t index
    cdef uint32_t slot = 1
    INVARIANT(slots != NULL and ranked != NULL, "out of memory for a list of orders")
    while found < wanted:
        INVARIANT(slot < state.pool.used, "every open order is in the slab")
        order = &state.pool.orders[slot]
        if order.order_id and (account == 0 or order.account == account):
            ranked[found].order_id = order.order_id
            ranked[found].slot = slot
            found += 1
        slot += 1
    ranked = sort_ranked(ranked, found)
    for index in range(found):
        slots[index] = ranked[index].slot
    slots[found] = 0
    free(ranked)
    return slots


cdef Ranked *sort_ranked(Ranked *ranked, size_t count) noexcept nogil:
    """Sort by order_id, 8 bits at a time. Takes the array over, returns the sorted one."""
    cdef uint64_t high = 0
    cdef bint sorted = True
    cdef uint32_t shift = 0
    cdef size_t index
    cdef Ranked *other
    for index in range(count):
        if ranked[index].order_id < high:
            sorted = False
        high = max(high, ranked[index].order_id)
    if sorted:
        return ranked
    other = <Ranked *>malloc(count * sizeof(Ranked))
    INVARIANT(other != NULL, "out of memory for sorting orders")
    while shift < 64 and high >> shift:
        sort_digit(ranked, other, count, shift)
        ranked, other = other, ranked
        shift += 8
    free(other)
    return ranked


cdef void sort_digit(const Ranked *ranked, Ranked *other, size_t count,
                     uint32_t shift) noexcept nogil:
    """One stable pass of a radix sort."""
    cdef size_t places[257]
    cdef size_t index
    cdef uint64_t digit
    memset(places, 0, sizeof(places))
    for index in range(count):
        places[(ranked[index].order_id >> shift & 0xFF) + 1] += 1
    for index in range(256):
        places[index + 1] += places[index]
    for index in range(count):
        digit = ranked[index].order_id >> shift & 0xFF
        other[places[digit]] = ranked[index]
        places[digit] += 1


# ---- orders and their options ---------------------------------------------------------------

cdef void fill_announced(const State *state, uint32_t slot, Event *event) noexcept nogil:
    """An EV_ANNOUNCED of a resting order, without its time. Its option unit is up to the caller."""
    cdef const Order *order = &state.pool.orders[slot]
    memset(event, 0, sizeof(Event))
    event.kind = EV_ANNOUNCED
    event.ext_count = order.options != 0
    event.instrument_id = order.instrument_id
    event.account_id = state.accounts[order.account].account_id
    event.order_id = order.order_id
    event.price_units = order.price_units
    event.quantity_lots = order.open_lots
    event.user_ref_num = order.user_ref_num
    event.user_ref_idx = order.user_ref_idx
    event.side = order.side
    event.time_in_force = order.time_in_force
    event.attributes = order.attributes
    memcpy(event.client_order, state.pool.clients[slot].text, 14)
    event.source = order.source
    event.flags = order.flags


cdef void copy_options(ExtOptions *target, const ExtOptions *source,
                       uint32_t tags) noexcept nogil:
    """Copy the values of those tags that the source has; `tags` has bit t set for tag t."""
    tags &= source.present
    target.present |= tags
    if tags >> 2 & 1:
        memcpy(target.firm, source.firm, 4)
    if tags >> 3 & 1:
        target.min_quantity_lots = source.min_quantity_lots
    if tags >> 4 & 1:
        target.customer_type = source.customer_type
    if tags >> 5 & 1:
        target.display_quantity_lots = source.display_quantity_lots
    if tags >> 6 & 1:
        target.price_type = source.price_type
    if tags >> 7 & 1:
        target.peg_offset_units = source.peg_offset_units
    if tags >> 9 & 1:
        target.discretion_price_units = source.discretion_price_units
    if tags >> 10 & 1:
        target.discretion_price_type = source.discretion_price_type
    if tags >> 13 & 1:
        target.random_reserves = source.random_reserves
    if tags >> 15 & 1:
        target.expire_time_s = source.expire_time_s
    copy_late_options(target, source, tags)


cdef void copy_late_options(ExtOptions *target, const ExtOptions *source,
                            uint32_t tags) noexcept nogil:
    """The second half of copy_options: tags from 16 on."""
    if tags >> 16 & 1:
        target.trade_now = source.trade_now
    if tags >> 17 & 1:
        target.handle_inst = source.handle_inst
    if tags >> 24 & 1:
        target.group_id = source.group_id
    if tags >> 25 & 1:
        target.shares_located = source.shares_located
    if tags >> 26 & 1:
        memcpy(target.locate_broker, source.locate_broker, 4)
    if tags >> 29 & 1:
        target.aiq_strategy = source.aiq_strategy
    if tags >> 30 & 1:
        memcpy(target.aiq_group, source.aiq_group, 2)


cdef void merge_options(ExtOptions *merged, const ExtOptions *original,
                        const ExtOptions *given) noexcept nogil:
    """The options of a replacement: its own, and what it did not give from the original.

    Not carried over: MinQty (3, about one execution), PostOnly (12, a flag), and the locate tags
    (25, 26), which the specification wants repeated.
    """
    memset(merged, 0, sizeof(ExtOptions))
    merged.kind = EXT_OPTIONS
    if original != NULL:
        copy_options(merged, original, ~<uint32_t>(1 << 3 | 1 << 12 | 1 << 25 | 1 << 26))
    if given != NULL:
        copy_options(merged, given, 0xFFFFFFFF)

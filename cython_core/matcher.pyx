# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Commands in, events out: price-time matching with the rules of OUCH 5.0.

The same commands at the same times give the same events, byte for byte. A user's mistake is an
event; a broken rule of our own stops the process. One call runs a whole batch without the
interpreter: free functions over one State, events appended to one run of units. Order ids and
match numbers are the seq of the event that made them, so nothing here draws numbers of its own.
"""

from libc.stdlib cimport free
from libc.string cimport memcmp

from cython_core.event cimport *
from cython_core.risk cimport risk_collar, risk_notional, risk_quantity
from cython_core.state cimport *
from cython_core.replay cimport command_of, replay_units
from cython_core.snapshot cimport (check_state, hash_state, list_accounts, list_instruments,
                                   list_levels, list_missing, list_orders, load_state,
                                   save_state)

from cython_core import model
from cython_core.errors import CoreError

cdef enum:
    NUMBER_MAX = 0xFFFFFFFF     # the last user_ref_num there is
    NO_REASON = 0x10000         # not a reason: those have 16 bits, and the door may give 0
    ATTR_OF_MESSAGE = 0x13      # display and ISO: a Replace brings its own
    ATTR_OF_ORDER = 0xEC        # capacity and cross type: they stay
    WIDE_BUCKETS = 1 << 12      # buckets of the index from which on to fetch memory ahead
    LOOK_FAR = 24               # units ahead: the index, then the order, then its neighbours
    LOOK_NEAR = 16
    LOOK_NEXT = 8
    LOOK_RING = 32


# ---- writing events -------------------------------------------------------------------------

cdef inline Event *write_event(Run *run, uint8_t kind) noexcept nogil:
    """Room for the next event, uninitialised. Moves the sequence on."""
    run.state.next_seq += 1
    run.counts[kind] += 1
    return units_next(run.events)


cdef inline Event *write_first(Run *run, const Event *command, uint8_t kind,
                               uint64_t order_id) noexcept nogil:
    """The first event of a command: the command itself under another kind."""
    cdef uint32_t ext_count = command.ext_count
    cdef size_t place
    cdef Event *event
    if ext_count:
        units_reserve(run.events, 1 + ext_count)
    event = write_event(run, kind)
    event[0] = command[0]
    event.kind = kind
    event.time_ns = run.time_ns
    event.order_id = order_id
    event.flags |= FLAG_FIRST
    if ext_count:
        place = run.events.count
        memcpy(&run.events.data[place], &command[1], ext_count * sizeof(Event))
        run.events.count += ext_count
    return event


cdef inline Canceled *write_canceled(Run *run, const Order *order, uint64_t lots,
                                     uint64_t remaining, uint8_t reason) noexcept nogil:
    """Lots of an order come off, not by trading."""
    cdef Canceled *event = <Canceled *>write_event(run, EV_CANCELED)
    cdef Account *account = &run.state.accounts[order.account]
    event.kind = EV_CANCELED
    event.ext_count = 0
    event.instrument_id = order.instrument_id
    event.account_id = account.account_id
    event.time_ns = run.time_ns
    event.order_id = order.order_id
    event.price_units = order.price_units
    event.quantity_lots = lots
    event.user_ref_num = order.user_ref_num
    event.user_ref_idx = order.user_ref_idx
    event.side = order.side
    event.time_in_force = order.time_in_force
    event.attributes = order.attributes
    event.remaining_lots = remaining
    event.command_quantity = 0
    event.reason = reason
    event.command_kind = 0
    event.source = order.source
    event.flags = 0
    count_message(account, order.source)
    return event


cdef inline void write_fill(Run *run, const Order *taker, const Order *maker,
                            uint64_t lots) noexcept nogil:
    """One trade, told to both sides."""
    cdef Fill *event = <Fill *>write_event(run, EV_FILL)
    cdef Account *taking = &run.state.accounts[taker.account]
    cdef Account *making = &run.state.accounts[maker.account]
    event.kind = EV_FILL
    event.ext_count = 0
    event.instrument_id = taker.instrument_id
    event.taker_account_id = taking.account_id
    event.time_ns = run.time_ns
    event.taker_order_id = taker.order_id
    event.price_units = maker.price_units
    event.quantity_lots = lots
    event.taker_user_ref_num = taker.user_ref_num
    event.taker_user_ref_idx = taker.user_ref_idx
    event.taker_side = taker.side
    event.maker_user_ref_idx = maker.user_ref_idx
    event.flags = (
        <uint8_t>(maker.open_lots == lots) * FILL_MAKER_DONE
        | <uint8_t>(taker.open_lots == lots) * FILL_TAKER_DONE
        | <uint8_t>(not source_has_stream(taker.source)) * FILL_TAKER_PRIVATE
        | <uint8_t>(not source_has_stream(maker.source)) * FILL_MAKER_PRIVATE)
    event.maker_order_id = maker.order_id
    event.maker_account_id = making.account_id
    event.maker_user_ref_num = maker.user_ref_num
    count_message(taking, taker.source)
    count_message(making, maker.source)


cdef void reject(Run *run, Account *account, const Event *command, uint32_t reason) noexcept nogil:
    """Refuse a command as a whole."""
    write_first(run, command, EV_REJECTED, reason | <uint64_t>command.kind << 16)
    count_message(account, command.source)


# ---- an order against the book --------------------------------------------------------------

cdef inline void match_order(Run *run, Book *book, Order *taker, uint32_t opposite,
                             uint32_t limit_rank) noexcept nogil:
    """Trade while the best price on the other side is good enough: oldest first."""
    cdef State *state = run.state
    cdef const Order *maker
    cdef uint32_t slot
    cdef uint64_t lots
    while True:
        slot = state.levels.items[book.best_level[opposite]].head
        maker = &state.pool.orders[slot]
        lots = min(taker.open_lots, maker.open_lots)
        write_fill(run, taker, maker, lots)
        book.last_trade_units = maker.price_units
        fill_maker(state, book, slot, lots)
        taker.open_lots -= lots
        taker.chain_done_lots += lots
        if taker.open_lots == 0 or book.best_rank[opposite] < limit_rank:
            return


cdef inline bint must_not_trade(Run *run, const Book *book, const Order *taker,
                                uint32_t opposite, uint32_t limit_rank,
                                uint64_t min_lots) noexcept nogil:
    """An order that could trade now but may not, by its own terms: it is canceled whole."""
    cdef uint64_t wanted = 0
    if taker.flags & FLAG_POST_ONLY:
        write_canceled(run, taker, taker.open_lots, 0, c'G')
        return True
    if taker.time_in_force == c'4':
        wanted = taker.open_lots
    elif taker.time_in_force == c'3':
        wanted = min_lots
    if wanted == 0 or book_available(book, &run.state.levels, opposite, limit_rank,
                                     wanted) >= wanted:
        return False
    write_canceled(run, taker, taker.open_lots, 0, c'I')
    return True


cdef inline bint rests_after_matching(Run *run, Book *book, Order *taker, uint32_t tick,
                                      const ExtOptions *options) noexcept nogil:
    """An accepted order meets the book. True when something of it is open and may rest."""
    cdef uint32_t opposite = side_of(taker.side) ^ 1
    cdef bint market = price_is_market(taker.price_units)
    cdef uint32_t limit_rank = 1 if market else rank_of(tick, opposite)
    cdef uint64_t min_lots = 0
    if book.best_rank[opposite] >= limit_rank:
        if options != NULL and options.present & 1 << 3:
            min_lots = options.min_quantity_lots
        if must_not_trade(run, book, taker, opposite, limit_rank, min_lots):
            return False
        match_order(run, book, taker, opposite, limit_rank)
        if taker.open_lots == 0:
            return False
    if market or taker.time_in_force == c'3' or taker.time_in_force == c'4':
        write_canceled(run, taker, taker.open_lots, 0, c'I')
        return False
    return True


cdef inline void execute(Run *run, Book *book, uint32_t slot, uint32_t tick,
                         const char *client_order, const ExtOptions *options) noexcept nogil:
    """An order that was written into the slab is matched; it rests there or gives its slot back.

    It is never copied: reading it back as a whole, right after it was written field by field,
    would wait for every store before it.
    """
    if rests_after_matching(run, book, &run.state.pool.orders[slot], tick, options):
        rest_order(run.state, book, slot, tick, client_order, options)
    else:
        pool_give(&run.state.pool, slot)


# ---- Enter Order ----------------------------------------------------------------------------

cdef uint32_t limits_reason(const Account *account, const Book *book, int64_t price_units,
                            uint8_t side, uint64_t chain_lots, uint64_t open_lots,
                            bint counts_as_open) noexcept nogil:
    """What the account's limits say to an order, 0 for nothing."""
    cdef const Limits *limits = &account.limits
    cdef bint market = price_is_market(price_units)
    cdef uint32_t row = side_of(side)
    cdef int64_t price = price_units
    cdef int64_t reference = book.last_trade_units
    cdef uint32_t reason = risk_quantity(limits, chain_lots)
    if reason:
        return reason
    if market:
        price = best_price(book, row ^ 1)
        price = price if price else reference
    reason = risk_notional(limits, price, open_lots)
    if reason:
        return reason
    if counts_as_open and limits.open_orders_max \
            and account.open_orders >= limits.open_orders_max:
        return REJECT_RISK_OPEN_ORDERS
    if market:
        return 0
    if reference == 0:
        reference = best_price(book, row ^ 1)
    if reference == 0:
        reference = best_price(book, row)
    return risk_collar(limits, price_units, reference)


cdef inline bint may_rest(int64_t price_units, uint8_t time_in_force) noexcept nogil:
    return not price_is_market(price_units) and (time_in_force == c'0' or time_in_force == c'1')


cdef inline bint time_in_force_is_known(uint8_t time_in_force) noexcept nogil:
    return (time_in_force == c'0' or time_in_force == c'1' or time_in_force == c'3'
            or time_in_force == c'4')


cdef inline uint32_t door_reason(const Event *command) noexcept nogil:
    """What the codec refused, or NO_REASON. Letters that it must not let through count too."""
    if command.flags & FLAG_DOOR_REASON:
        return <uint32_t>command.order_id & 0xFFFF
    if not side_is_known(command.side):
        return REJECT_SIDE
    if not time_in_force_is_known(command.time_in_force):
        return REJECT_OTHER
    return NO_REASON


cdef inline uint32_t enter_reason(const Account *account, const Book *book, const Event *command,
                                  const ExtOptions *options, uint32_t *tick) noexcept nogil:
    """Why an Enter Order is refused, or NO_REASON; `tick` gets the price of a limit order."""
    cdef uint32_t reason
    if command.flags & FLAG_RATE_EXCEEDED:
        return REJECT_RISK_MESSAGE_RATE
    if account.entry_disabled:
        return REJECT_FIRM
    reason = door_reason(command)
    if reason != NO_REASON:
        return reason
    if not book.open:
        return REJECT_HALTED if book.instrument_id else REJECT_SYMBOL
    if command.quantity_lots == 0 or command.quantity_lots > book.quantity_max_lots:
        return REJECT_QUANTITY
    if not tick_from_price(book, command.price_units, tick) \
            and not price_is_market(command.price_units):
        return REJECT_PRICE
    if options != NULL and options.present & 1 << 3 and options.min_quantity_lots and (
            command.time_in_force != c'3' or options.min_quantity_lots > command.quantity_lots):
        return REJECT_MIN_QUANTITY
    reason = 0
    if account.limited:
        reason = limits_reason(account, book, command.price_units, command.side,
                               command.quantity_lots, command.quantity_lots,
                               may_rest(command.price_units, command.time_in_force))
    return reason if reason else NO_REASON


cdef bint reject_at_the_end(Run *run, Account *account, const Event *command,
                            uint32_t last) noexcept nogil:
    """An old number is ignored, until there are no more: then every Enter Order is refused.

    Over UDP one within the window is known to be a repeat, and is ignored then too.
    """
    cdef bint repeat = command.source == SOURCE_UDP \
        and last - command.user_ref_num < run.state.udp_window
    if last != NUMBER_MAX or repeat:
        return False
    reject(run, account, command, REJECT_OTHER)
    return True


cdef inline bint enter(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    cdef State *state = run.state
    cdef Account *account = &state.accounts[slot]
    cdef Book *book = &state.books[command.instrument_id]
    cdef const ExtOptions *options = find_options(command) if command.ext_count else NULL
    cdef uint32_t last = last_number(state, account, command.user_ref_idx)
    cdef uint32_t tick = 0
    cdef uint32_t reason, taker
    if command.user_ref_num <= last and not (
            command.source == SOURCE_UDP
            and number_is_late(state, account, command.user_ref_idx, command.user_ref_num, last)):
        return reject_at_the_end(run, account, command, last)
    use_number(state, account, command.user_ref_idx, command.user_ref_num)
    reason = enter_reason(account, book, command, options, &tick)
    if reason != NO_REASON:
        reject(run, account, command, reason)
        return True
    taker = pool_take(&state.pool)
    set_order(&state.pool.orders[taker], command, slot, state.next_seq)
    write_first(run, command, EV_ACCEPTED, state.next_seq)
    count_message(account, command.source)
    execute(run, book, taker, tick, command.client_order, options)
    return True


# ---- Replace Order --------------------------------------------------------------------------

cdef inline bint change_of_side_is_allowed(uint8_t old, uint8_t new) noexcept nogil:
    """A Replace may change one kind of sell into another."""
    return new == 0 or new == old or (side_is_known(new) and new != c'B' and old != c'B')


cdef uint32_t replace_reason(const Account *account, const Book *book, const Order *original,
                             const Event *command, const ExtOptions *options,
                             uint32_t *tick) noexcept nogil:
    """Why the new terms can't stand, or NO_REASON. By OUCH the original is canceled then."""
    cdef const ExtReplace *ext = <const ExtReplace *>&command[1]
    cdef uint64_t chain_lots = command.quantity_lots
    cdef uint64_t open_lots
    cdef uint32_t reason = 0
    if command.flags & FLAG_DOOR_REASON:
        return <uint32_t>command.order_id & 0xFFFF
    if not time_in_force_is_known(command.time_in_force):
        return REJECT_OTHER
    if chain_lots == 0 or chain_lots > book.quantity_max_lots \
            or chain_lots <= original.chain_done_lots:
        return REJECT_QUANTITY
    open_lots = chain_lots - original.chain_done_lots
    if not tick_from_price(book, command.price_units, tick) \
            and not price_is_market(command.price_units):
        return REJECT_PRICE
    if not change_of_side_is_allowed(original.side, ext.command_side):
        return REJECT_SIDE
    if options != NULL and options.present & 1 << 3 and options.min_quantity_lots and (
            command.time_in_force != c'3' or options.min_quantity_lots > open_lots):
        return REJECT_MIN_QUANTITY
    if account.limited:
        reason = limits_reason(account, book, command.price_units, original.side, chain_lots,
                               open_lots, False)
    return reason if reason else NO_REASON


cdef uint32_t no_entry_reason(const Account *account, const Book *book,
                              const Event *command) noexcept nogil:
    """Why neither new orders nor replaces are taken now, whatever their terms, or NO_REASON."""
    if command.flags & FLAG_RATE_EXCEEDED:
        return REJECT_RISK_MESSAGE_RATE
    if account.entry_disabled:
        return REJECT_FIRM
    return NO_REASON if book.open else REJECT_HALTED


cdef Event *write_replaced(Run *run, const Event *command, const Order *original,
                           const ExtOptions *options) noexcept nogil:
    """EV_REPLACED: the new order as it stands, and what the original was."""
    cdef const ExtReplace *asked = <const ExtReplace *>&command[1]
    cdef uint32_t kept = 1
    cdef uint32_t index
    cdef Event *event
    cdef ExtReplace *ext
    units_reserve(run.events, 2 + <size_t>command.ext_count)
    event = write_first(run, command, EV_REPLACED, run.state.next_seq)
    ext = <ExtReplace *>&event[1]
    ext.command_options = 0
    for index in range(1, 1 + <uint32_t>command.ext_count):
        if command[index].kind == EXT_OPTIONS:
            ext.command_options = (<const ExtOptions *>&command[index]).present
        else:
            event[kept] = command[index]
            kept += 1
    if options.present:
        memcpy(&event[kept], options, sizeof(Event))
        kept += 1
    run.events.count += kept - (1 + <size_t>command.ext_count)
    event.ext_count = <uint8_t>(kept - 1)
    event.instrument_id = original.instrument_id
    event.quantity_lots = command.quantity_lots - original.chain_done_lots
    event.side = asked.command_side if asked.command_side else original.side
    event.attributes = command.attributes & ATTR_OF_MESSAGE | original.attributes & ATTR_OF_ORDER
    if not command.flags & FLAG_POST_ONLY_SET:
        event.flags = event.flags & ~FLAG_POST_ONLY | original.flags & FLAG_POST_ONLY
    ext.command_flags = command.flags
    ext.orig_side = original.side
    ext.orig_order_id = original.order_id
    ext.chain_quantity_lots = command.quantity_lots
    ext.chain_done_lots = original.chain_done_lots
    ext.orig_price_units = original.price_units
    ext.orig_open_lots = original.open_lots
    ext.orig_time_in_force = original.time_in_force
    return event


cdef uint32_t replace_accepted(Run *run, Account *account, const Event *command, uint32_t original,
                               const ExtOptions *options, uint32_t tick) noexcept nogil:
    """The original leaves the book, the new order goes to it as if it were fresh.

    Returns the slot that the new order has, if it rests.
    """
    cdef State *state = run.state
    cdef uint32_t taker = pool_take(&state.pool)
    cdef Order *order = &state.pool.orders[taker]
    cdef const Order *old = &state.pool.orders[original]
    cdef ExtOptions merged
    cdef const Event *event
    merge_options(&merged, &state.pool.options[old.options] if old.options else NULL, options)
    event = write_replaced(run, command, old, &merged)
    count_message(account, command.source)
    set_order(order, event, old.account, event.order_id)
    order.chain_done_lots = old.chain_done_lots
    drop_order(state, original)
    execute(run, &state.books[order.instrument_id], taker, tick, command.client_order,
            &merged if merged.present else NULL)
    return taker


cdef bint replace(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    cdef State *state = run.state
    cdef Account *account = &state.accounts[slot]
    cdef const ExtReplace *ext = <const ExtReplace *>&command[1]
    cdef uint32_t tick = 0
    cdef uint32_t reason, found
    cdef const ExtOptions *options
    cdef Order *original
    INVARIANT(command.ext_count and ext.kind == EXT_REPLACE, "a replace names its original")
    if not number_is_new(state, account, command):
        return False
    found = index_find(&state.index, state.pool.orders, slot, command.user_ref_idx,
                       ext.orig_user_ref_num)
    if found == 0:
        return False
    original = &state.pool.orders[found]
    reason = no_entry_reason(account, &state.books[original.instrument_id], command)
    if reason == NO_REASON and command.flags & FLAG_DOOR_REASON \
            and command.flags & FLAG_UNSERVED:
        reason = <uint32_t>command.order_id & 0xFFFF
    if reason != NO_REASON:
        use_number(state, account, command.user_ref_idx, command.user_ref_num)
        reject(run, account, command, reason)
        return True
    options = find_options(command)
    if replace_reason(account, &state.books[original.instrument_id], original, command, options,
                      &tick) == NO_REASON:
        use_number(state, account, command.user_ref_idx, command.user_ref_num)
        replace_accepted(run, account, command, found, options, tick)
        return True
    write_first(run, command, EV_REPLACE_REFUSED, original.order_id)
    write_canceled(run, original, original.open_lots, 0, c'U')
    drop_order(state, found)
    return True


# ---- Cancel and Modify ----------------------------------------------------------------------

cdef inline uint64_t new_open_lots(const Order *order, uint64_t intended) noexcept nogil:
    """What stays open of an order whose size, executed part included, shall be `intended`."""
    return intended - order.chain_done_lots if intended > order.chain_done_lots else 0


cdef inline void reduce_order(State *state, Order *order, uint64_t open_lots) noexcept nogil:
    """Less of an order is open; it keeps its place."""
    state.levels.items[order.level].quantity_lots -= order.open_lots - open_lots
    order.open_lots = open_lots


cdef inline bint cancel(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    cdef State *state = run.state
    cdef uint32_t found = index_find(&state.index, state.pool.orders, slot, command.user_ref_idx,
                                     command.user_ref_num)
    cdef uint64_t intended = command.quantity_lots
    cdef Order *order
    cdef Canceled *event
    cdef uint64_t open_lots
    if found == 0:
        return False
    order = &state.pool.orders[found]
    open_lots = new_open_lots(order, intended)
    if open_lots >= order.open_lots:
        return False
    event = write_canceled(run, order, order.open_lots - open_lots, open_lots, c'U')
    event.flags = FLAG_FIRST
    event.command_kind = CMD_CANCEL
    event.command_quantity = <uint32_t>min(intended, <uint64_t>0xFFFFFFFF)
    if open_lots:
        reduce_order(state, order, open_lots)
    else:
        drop_order(state, found)
    return True


cdef inline bint modify_side_is_allowed(uint8_t old, uint8_t new) noexcept nogil:
    """Unchanged, S to E or T, or E to T."""
    return new == old or (old == c'S' and (new == c'E' or new == c'T')) \
        or (old == c'E' and new == c'T')


cdef void write_modified(Run *run, const Order *order, uint8_t previous_side, uint64_t reduced,
                         uint32_t intended) noexcept nogil:
    cdef Modified *event = <Modified *>write_event(run, EV_MODIFIED)
    cdef Account *account = &run.state.accounts[order.account]
    memset(event, 0, sizeof(Modified))
    event.kind = EV_MODIFIED
    event.instrument_id = order.instrument_id
    event.account_id = account.account_id
    event.time_ns = run.time_ns
    event.order_id = order.order_id
    event.price_units = order.price_units
    event.quantity_lots = order.open_lots
    event.user_ref_num = order.user_ref_num
    event.user_ref_idx = order.user_ref_idx
    event.side = order.side
    event.time_in_force = order.time_in_force
    event.attributes = order.attributes
    event.reduced_lots = reduced
    event.command_quantity = intended
    event.command_side = order.side
    event.previous_side = previous_side
    event.source = order.source
    event.flags = FLAG_FIRST
    count_message(account, order.source)


cdef bint modify(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    cdef State *state = run.state
    cdef Account *account = &state.accounts[slot]
    cdef uint32_t found = index_find(&state.index, state.pool.orders, slot, command.user_ref_idx,
                                     command.user_ref_num)
    cdef uint64_t intended = command.quantity_lots
    cdef uint32_t told = <uint32_t>min(intended, <uint64_t>0xFFFFFFFF)
    cdef Order *order
    cdef Canceled *event
    cdef uint64_t open_lots, reduced
    cdef uint8_t previous
    if found == 0:
        return False
    order = &state.pool.orders[found]
    if not modify_side_is_allowed(order.side, command.side):
        reject(run, account, command, REJECT_SIDE)
        return True
    open_lots = new_open_lots(order, intended)
    if open_lots == 0:
        event = write_canceled(run, order, order.open_lots, 0, c'U')
        event.flags = FLAG_FIRST
        event.command_kind = CMD_MODIFY
        event.command_quantity = told
        event.time_in_force = command.side
        drop_order(state, found)
        return True
    open_lots = min(open_lots, order.open_lots)
    reduced = order.open_lots - open_lots
    previous = order.side
    order.side = command.side
    reduce_order(state, order, open_lots)
    write_modified(run, order, previous, reduced, told)
    return True


# ---- whole accounts -------------------------------------------------------------------------

cdef bint firm_is_foreign(const Account *account, const char *firm) noexcept nogil:
    """A firm is given and it is not the account's."""
    cdef bint blank = True
    cdef uint32_t index
    for index in range(4):
        blank = blank and (firm[index] == c' ' or firm[index] == 0)
    return not blank and memcmp(firm, account.firm, 4) != 0


cdef uint32_t action_reason(const Account *account, const AccountAction *command) noexcept nogil:
    """Why a mass cancel, disable or enable is refused, or NO_REASON."""
    if command.flags & FLAG_DOOR_REASON:
        return <uint32_t>command.order_id & 0xFFFF
    return REJECT_FIRM if firm_is_foreign(account, command.firm) else NO_REASON


cdef bint mass_cancel_hits(const State *state, const AccountAction *command,
                           const Order *order) noexcept nogil:
    """Whether an order of the account is among those that the mass cancel means.

    By OUCH only OUCH orders; a private one means them all.
    """
    cdef const ExtOptions *options
    cdef uint32_t group = 0
    if source_has_stream(command.source) and not source_has_stream(order.source):
        return False
    if command.instrument_id and command.instrument_id != order.instrument_id:
        return False
    if command.side and side_of(command.side) != side_of(order.side):
        return False
    if command.attributes & 1:
        if order.options:
            options = &state.pool.options[order.options]
            group = options.group_id if options.present & 1 << 24 else 0
        return group == command.group_id
    return True


cdef void mass_cancel(Run *run, const AccountAction *command, uint32_t slot) noexcept nogil:
    """Cancel what the command means, oldest order first. The owner is told who did it."""
    cdef State *state = run.state
    cdef uint8_t reason = c'S' if command.source == SOURCE_ADMIN else c'U'
    cdef uint32_t *slots = orders_by_id(state, slot)
    cdef size_t index = 0
    cdef const Order *order
    while slots[index]:
        order = &state.pool.orders[slots[index]]
        if mass_cancel_hits(state, command, order):
            write_canceled(run, order, order.open_lots, 0, reason)
            drop_order(state, slots[index])
        index += 1
    free(slots)


cdef bint account_action(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    """Mass cancel, disable or enable order entry."""
    cdef State *state = run.state
    cdef Account *account = &state.accounts[slot]
    cdef uint8_t kind = EV_MASS_CANCELED
    cdef uint32_t reason
    if source_has_stream(command.source):
        if not number_is_new(state, account, command):
            return False
        use_number(state, account, command.user_ref_idx, command.user_ref_num)
    reason = action_reason(account, <const AccountAction *>command)
    if reason != NO_REASON:
        reject(run, account, command, reason)
        return True
    if command.kind != CMD_MASS_CANCEL:
        switch_entry(account, command.source, command.kind == CMD_DISABLE_ENTRY)
        kind = EV_ENTRY_DISABLED if command.kind == CMD_DISABLE_ENTRY else EV_ENTRY_ENABLED
    write_first(run, command, kind, 0)
    count_message(account, command.source)
    if command.kind == CMD_MASS_CANCEL:
        mass_cancel(run, <const AccountAction *>command, slot)
    return True


cdef bint account_query(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    cdef Account *account = &run.state.accounts[slot]
    cdef uint64_t next = <uint64_t>last_number(run.state, account, command.user_ref_idx) + 1
    write_first(run, command, EV_ACCOUNT_QUERIED, min(next, <uint64_t>NUMBER_MAX))
    count_message(account, command.source)
    return True


# ---- private commands -----------------------------------------------------------------------
#
# They come by HTTP, Redis, an operator or from inside. They name orders by id, use no numbers, and
# each of them leaves exactly one first event, because somebody waits for it.

cdef uint32_t find_order(const State *state, uint32_t account, uint64_t order_id,
                         uint8_t channel, uint32_t user_ref_num) noexcept nogil:
    """The slot of the account's live order with this id, or 0.

    A private order is found by its id alone, an OUCH order by the handle that comes with it.
    """
    cdef const Order *orders = state.pool.orders
    cdef uint32_t found = index_find_id(&state.by_id, orders, order_id)
    if found:
        return found if orders[found].account == account else 0
    found = index_find(&state.index, orders, account, channel, user_ref_num)
    return found if orders[found].order_id == order_id else 0


cdef inline uint64_t target_of(const Event *command) noexcept nogil:
    """The order id that a private command names, 0 for none."""
    cdef const ExtOrigin *origin = find_origin(command)
    return origin.order_id if origin != NULL else 0


cdef void reject_duplicate(Run *run, Account *account, const Event *command,
                           uint64_t first_seq) noexcept nogil:
    """The client's id was used before. The answer names that answer, and keeps the target."""
    cdef size_t place = run.events.count
    cdef Event *event
    cdef ExtOrigin *origin
    reject(run, account, command, REJECT_DUPLICATE_CLIENT_ID)
    event = &run.events.data[place]
    origin = <ExtOrigin *>find_origin(event)
    if origin == NULL:
        return
    if event[1].kind == EXT_REPLACE:
        (<ExtReplace *>&event[1]).orig_order_id = origin.order_id
    origin.order_id = first_seq


cdef bint private_enter(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    cdef State *state = run.state
    cdef Account *account = &state.accounts[slot]
    cdef Book *book = &state.books[command.instrument_id]
    cdef const ExtOptions *options = find_options(command)
    cdef const ExtClientId *id = find_client_id(command)
    cdef uint64_t order_id = state.next_seq
    cdef uint32_t entry = 0
    cdef uint32_t taker = 0
    cdef uint32_t tick = 0
    cdef uint32_t reason
    if id != NULL:
        entry = client_find(&state.clients, slot, id.text)
        if entry:
            reject_duplicate(run, account, command, state.clients.entries[entry].seq)
            return True
        entry = remember_client(state, slot, command, id)
    reason = enter_reason(account, book, command, options, &tick)
    if reason != NO_REASON:
        reject(run, account, command, reason)
    else:
        taker = pool_take(&state.pool)
        set_order(&state.pool.orders[taker], command, slot, order_id)
        write_first(run, command, EV_ACCEPTED, order_id)
        execute(run, book, taker, tick, command.client_order, options)
    settle_client(state, entry, taker, order_id)
    return True


cdef uint32_t private_replace_reason(Run *run, const Account *account, const Event *command,
                                     uint32_t found, uint32_t *tick) noexcept nogil:
    """Why a private Replace is refused, or NO_REASON. The original stays, whatever the reason."""
    cdef const Order *original = &run.state.pool.orders[found]
    cdef const Book *book = &run.state.books[original.instrument_id]
    cdef uint32_t reason
    if found == 0:
        return REJECT_UNKNOWN_ORDER
    if source_has_stream(original.source):
        return REJECT_OTHER_DOOR
    reason = no_entry_reason(account, book, command)
    if reason != NO_REASON:
        return reason
    return replace_reason(account, book, original, command, find_options(command), tick)


cdef bint private_replace(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    cdef State *state = run.state
    cdef Account *account = &state.accounts[slot]
    cdef const ExtReplace *ext = <const ExtReplace *>&command[1]
    cdef const ExtClientId *id = find_client_id(command)
    cdef uint64_t order_id = state.next_seq
    cdef uint32_t entry = 0
    cdef uint32_t taker = 0
    cdef uint32_t tick = 0
    cdef uint32_t found, reason
    INVARIANT(command.ext_count and ext.kind == EXT_REPLACE, "a replace has its unit")
    if id != NULL:
        entry = client_find(&state.clients, slot, id.text)
        if entry:
            reject_duplicate(run, account, command, state.clients.entries[entry].seq)
            return True
        entry = remember_client(state, slot, command, id)
    found = find_order(state, slot, target_of(command), command.user_ref_idx,
                       ext.orig_user_ref_num)
    reason = private_replace_reason(run, account, command, found, &tick)
    if reason != NO_REASON:
        reject(run, account, command, reason)
    else:
        if entry == 0:
            entry = client_unlink(&state.clients, found)
        taker = replace_accepted(run, account, command, found, find_options(command), tick)
    settle_client(state, entry, taker, order_id)
    return True


cdef bint private_cancel(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    """Cancel or reduce an order that came by any door; its owner's stream is told as usual."""
    cdef State *state = run.state
    cdef const ExtOrigin *origin = find_origin(command)
    cdef uint64_t intended = command.quantity_lots
    cdef uint32_t found = find_order(state, slot, target_of(command), command.user_ref_idx,
                                     command.user_ref_num)
    cdef Order *order = &state.pool.orders[found]
    cdef uint64_t open_lots = new_open_lots(order, intended)
    cdef Canceled *event
    cdef ExtOrigin *told
    if found == 0 or open_lots >= order.open_lots:
        reject(run, &state.accounts[slot], command,
               REJECT_NOT_SMALLER if found else REJECT_UNKNOWN_ORDER)
        return True
    units_reserve(run.events, 2)
    event = write_canceled(run, order, order.open_lots - open_lots, open_lots, c'U')
    event.ext_count = 1
    event.flags = FLAG_FIRST
    event.command_kind = CMD_CANCEL
    event.command_quantity = <uint32_t>intended
    told = <ExtOrigin *>units_next(run.events)
    memcpy(told, origin, sizeof(ExtOrigin))
    told.source = command.source
    told.quantity_high = <uint32_t>(intended >> 32)
    if open_lots:
        reduce_order(state, order, open_lots)
    else:
        drop_order(state, found)
    return True


cdef bint apply_private(Run *run, const Event *command, uint32_t slot) noexcept nogil:
    """A command of an account whose source has no stream."""
    if command.kind == CMD_ENTER:
        return private_enter(run, command, slot)
    if command.kind == CMD_CANCEL:
        return private_cancel(run, command, slot)
    if command.kind == CMD_REPLACE:
        return private_replace(run, command, slot)
    if command.kind == CMD_ACCOUNT_QUERY:
        return account_query(run, command, slot)
    if command.kind == CMD_MODIFY:
        reject(run, &run.state.accounts[slot], command, REJECT_OTHER_DOOR)
        return True
    return account_action(run, command, slot)


# ---- the venue ------------------------------------------------------------------------------

cdef void write_announced(Run *run, uint32_t slot) noexcept nogil:
    """An order that lives on, as its owner sees it in the new session."""
    cdef Pool *pool = &run.state.pool
    cdef const Order *order = &pool.orders[slot]
    cdef Event *event
    units_reserve(run.events, 2)
    event = write_event(run, EV_ANNOUNCED)
    fill_announced(run.state, slot, event)
    event.time_ns = run.time_ns
    if order.options:
        memcpy(&event[1], &pool.options[order.options], sizeof(Event))
        run.events.count += 1


cdef bint session_roll(Run *run, const Event *command) noexcept nogil:
    """End the session: Day orders go, streams restart, GTC orders are announced."""
    cdef State *state = run.state
    cdef uint16_t generation = <uint16_t>(state.generation + 1)
    cdef uint32_t *slots = orders_by_id(state, 0)
    cdef size_t index = 0
    cdef size_t kept = 0
    cdef const Order *order
    cdef Event *event
    generation = generation if generation else 1
    write_first(run, command, EV_ROLL_STARTED, generation)
    while slots[index]:
        order = &state.pool.orders[slots[index]]
        if order.time_in_force == c'1':
            slots[kept] = slots[index]
            kept += 1
        else:
            write_canceled(run, order, order.open_lots, 0, c'E')
            drop_order(state, slots[index])
        index += 1
    event = write_event(run, EV_SESSION_STARTED)
    memset(event, 0, sizeof(Event))
    event.kind = EV_SESSION_STARTED
    event.time_ns = run.time_ns
    event.order_id = generation
    event.source = command.source
    start_session(state, generation)
    for index in range(kept):
        announce_order(state, slots[index])
        write_announced(run, slots[index])
    free(slots)
    return True


cdef bint define(Run *run, const Event *command) noexcept nogil:
    INVARIANT(command.ext_count == 1, "a definition has one extension unit")
    if command.kind == CMD_DEFINE_INSTRUMENT:
        INVARIANT(command.instrument_id and (<const ExtInstrument *>&command[1]).tick_units > 0,
                  "an instrument has an id and a tick")
        state_define_instrument(
            run.state, write_first(run, command, EV_INSTRUMENT_DEFINED, 0))
    else:
        state_define_account(run.state, write_first(run, command, EV_ACCOUNT_DEFINED, 0))
    return True


cdef bint halt(Run *run, const Event *command) noexcept nogil:
    """Halt or resume an instrument; again is allowed, and changes the reason."""
    cdef uint8_t kind = EV_INSTRUMENT_HALTED
    if run.state.books[command.instrument_id].instrument_id == 0:
        write_first(run, command, EV_REJECTED, REJECT_SYMBOL | <uint64_t>command.kind << 16)
        return True
    if command.kind == CMD_RESUME_INSTRUMENT:
        kind = EV_INSTRUMENT_RESUMED
    state_halt(run.state, write_first(run, command, kind, 0))
    return True


cdef bint apply_venue_command(Run *run, const Event *command) noexcept nogil:
    """Commands that are not an account's."""
    cdef uint8_t kind = command.kind
    if kind == CMD_SESSION_ROLL:
        return session_roll(run, command)
    if kind == CMD_HALT_INSTRUMENT or kind == CMD_RESUME_INSTRUMENT:
        return halt(run, command)
    if kind == CMD_ADMIN_ACT:
        write_first(run, command, EV_ADMIN_ACT, 0)
        return True
    if kind == CMD_SET_RULES:
        INVARIANT((<const Rules *>command).udp_window <= UDP_WINDOW_MAX,
                  "a window has at most 1,024 numbers")
        state_set_rules(run.state, <const Rules *>write_first(run, command, EV_RULES_SET, 0))
        return True
    INVARIANT(kind == CMD_DEFINE_INSTRUMENT or kind == CMD_DEFINE_ACCOUNT,
              "a command has a known kind")
    return define(run, command)


cdef inline bint apply_command(Run *run, const Event *command) noexcept nogil:
    """Run one command; true if it left an event."""
    cdef uint32_t slot
    cdef uint8_t kind = command.kind
    if kind > CMD_ACCOUNT_QUERY:
        return apply_venue_command(run, command)
    slot = account_slot(run.state, command.account_id)
    if slot == 0:
        INVARIANT(command.source == SOURCE_INTERNAL, "a command comes from a defined account")
        return False
    if not source_has_stream(command.source):
        return apply_private(run, command, slot)
    if kind == CMD_ENTER:
        return enter(run, command, slot)
    if kind == CMD_CANCEL:
        return cancel(run, command, slot)
    if kind == CMD_REPLACE:
        return replace(run, command, slot)
    if kind == CMD_MODIFY:
        return modify(run, command, slot)
    if kind == CMD_ACCOUNT_QUERY:
        return account_query(run, command, slot)
    INVARIANT(kind >= CMD_MASS_CANCEL, "a command has a known kind")
    return account_action(run, command, slot)


cdef inline uint32_t look_far(Run *run, const Event *command) noexcept nogil:
    """Far ahead of its turn: fetch the index line that a command will ask for.

    Returns what look_near needs: the tick of a new order, the hash of another's handle.
    """
    cdef State *state = run.state
    cdef uint32_t number = command.user_ref_num
    cdef uint32_t tick = 0
    cdef uint32_t tag
    cdef const Book *book
    if command.kind < CMD_ENTER or command.kind > CMD_MODIFY:
        return 0
    if command.kind == CMD_REPLACE:
        number = (<const ExtReplace *>&command[1]).orig_user_ref_num
    tag = index_tag(account_slot(state, command.account_id), command.user_ref_idx, number)
    index_prefetch(&state.index, tag)
    if command.kind != CMD_ENTER:
        return tag
    book = &state.books[command.instrument_id]
    if book.instrument_id == 0 or not tick_from_price(book, command.price_units, &tick):
        return 0
    if book_in_window(book, tick):
        memory_prefetch(&book.window.levels[tick - book.window.base])
    return tick


cdef inline uint32_t look_near(Run *run, const Event *command, uint32_t hint) noexcept nogil:
    """Nearer: fetch the level of a new order (returned), or the order of a handle (its slot)."""
    cdef State *state = run.state
    cdef const Book *book
    cdef uint32_t found = 0
    if command.kind == CMD_ENTER:
        book = &state.books[command.instrument_id]
        if book_in_window(book, hint):
            found = book.window.levels[hint - book.window.base]
        memory_prefetch(&state.levels.items[found])
    elif command.kind >= CMD_REPLACE and command.kind <= CMD_MODIFY:
        found = index_guess(&state.index, hint)
        memory_prefetch(&state.pool.orders[found])
    return found


cdef inline void look_next(Run *run, const Event *command, uint32_t found) noexcept nogil:
    """Just before its turn: fetch the neighbours in the queue, which will be linked anew."""
    cdef State *state = run.state
    if command.kind == CMD_ENTER:
        memory_prefetch(&state.pool.orders[state.levels.items[found].tail])
    else:
        memory_prefetch(&state.pool.orders[state.pool.orders[found].next])
        memory_prefetch(&state.pool.orders[state.pool.orders[found].prev])
        memory_prefetch(&state.levels.items[state.pool.orders[found].level])


cdef uint64_t apply_wide(Run *run, const Event *commands, size_t units) noexcept nogil:
    """As apply_commands, for books beyond the caches: memory is asked for ahead of its use.

    Looks ahead by units, so it comes upon extension units too; they look like no command.
    """
    cdef uint32_t hints[LOOK_RING]
    cdef uint32_t found[LOOK_RING]
    cdef uint64_t answered = 0
    cdef size_t position = 0
    cdef size_t far = 0
    cdef size_t near = 0
    cdef size_t next = 0
    cdef size_t end
    cdef const Event *command
    while position < units:
        command = &commands[position]
        end = min(position + LOOK_FAR, units - 1)
        while far < end:
            hints[far % LOOK_RING] = look_far(run, &commands[far])
            far += 1
        end = min(position + LOOK_NEAR, far)
        while near < end:
            found[near % LOOK_RING] = look_near(run, &commands[near], hints[near % LOOK_RING])
            near += 1
        end = min(position + LOOK_NEXT, near)
        while next < end:
            look_next(run, &commands[next], found[next % LOOK_RING])
            next += 1
        position += 1 + <size_t>command.ext_count
        INVARIANT(position <= units, "a command's extension units are in its batch")
        answered += apply_command(run, command)
    return answered


cdef uint64_t apply_commands(Run *run, const Event *commands, size_t units) noexcept nogil:
    """Run commands in order; returns how many of them left events."""
    cdef uint64_t answered = 0
    cdef size_t position = 0
    cdef const Event *command
    if run.state.index.table.mask >= WIDE_BUCKETS:
        return apply_wide(run, commands, units)
    while position < units:
        command = &commands[position]
        position += 1 + <size_t>command.ext_count
        INVARIANT(position <= units, "a command's extension units are in its batch")
        answered += apply_command(run, command)
    return answered


# ---- Python ---------------------------------------------------------------------------------

cdef class Matcher:
    """The venue's state and its rules. One owner at a time; not safe for two threads at once.

    Quantities are lots, prices wire units, times nanoseconds since 1970 UTC.
    """

    def __cinit__(self):
        state_init(&self.state)

    def __dealloc__(self):
        state_free(&self.state)

    cdef int _check_free(self) except -1:
        if self._views:
            raise BufferError("a saved view of the state is still held")
        return 0

    def apply(self, CommandBatch commands not None, EventBatch events not None, uint64_t time_ns):
        """Run the commands and append what happens to `events`.

        Returns how many commands left events. A batch of another generation than the matcher's is
        ignored (0 is of every generation). Sets `events.first_seq` if the batch was empty. Raises
        ValueError when `events` does not end where the log ends, BufferError while a view of the
        events or of a saved state is held.
        """
        cdef uint64_t first = self.state.next_seq
        cdef uint64_t answered
        cdef Run run
        self._check_free()
        if events._exports:
            raise BufferError("the events are exported and can't grow")
        if events.event_count and events.first_seq + events.event_count != first:
            raise ValueError("the events to append to do not end where the log ends")
        if commands.generation and commands.generation != self.state.generation:
            self._stale += commands.command_count
            return 0
        run.state = &self.state
        run.events = &events.units
        run.time_ns = max(time_ns, self.state.last_time_ns)
        run.counts = self._counts
        self.state.now_ns = run.time_ns
        with nogil:
            answered = apply_commands(&run, commands.units.data, commands.units.count)
        self._finish(events, first, run.time_ns)
        self._commands += commands.command_count
        self._answered += answered
        return answered

    cdef void _finish(self, EventBatch events, uint64_t first,
                      uint64_t time_ns) noexcept nogil:
        """Book-keeping after events were appended; time moves only with the log."""
        if self.state.next_seq == first:
            return
        if events.event_count == 0:
            events.first_seq = first
        events.event_count += self.state.next_seq - first
        self.state.last_time_ns = time_ns

    def apply_logged(self, EventBatch expected not None, EventBatch events not None):
        """Take the commands out of logged events, run them again, and compare.

        Appends the new events to `events` (cleared first). Returns the index of the first event of
        `expected` that did not come out the same, byte for byte, or -1. Raises CoreError when the
        units are not a log of whole commands.
        """
        cdef Units scratch
        cdef long long result
        cdef const char *trouble = NULL
        self._check_free()
        events.clear()
        memset(&scratch, 0, sizeof(scratch))
        with nogil:
            result = self._compare(&expected.units, events, &scratch, &trouble)
        free(scratch.data)
        if trouble != NULL:
            raise CoreError(trouble.decode("ascii"))
        return result

    cdef long long _compare(self, const Units *expected, EventBatch events, Units *scratch,
                            const char **trouble) noexcept nogil:
        """The loop of apply_logged."""
        cdef size_t position = 0
        cdef size_t start
        cdef uint64_t first
        cdef uint64_t index = 0
        cdef Run run
        run.state = &self.state
        run.events = &events.units
        run.counts = self._counts
        while position < expected.count:
            if not is_first(&expected.data[position]):
                return <long long>index
            scratch.count = 0
            trouble[0] = command_of(&expected.data[position], expected.count - position, scratch)
            if trouble[0] != NULL:
                return <long long>index
            run.time_ns = max(expected.data[position].time_ns, self.state.last_time_ns)
            self.state.now_ns = run.time_ns
            first = self.state.next_seq
            start = events.units.count
            apply_command(&run, scratch.data)
            self._finish(events, first, run.time_ns)
            start = first_difference(expected, position, &events.units, start, &index)
            if start == position:
                return <long long>index
            position = start
        return -1

    def replay(self, EventBatch events not None):
        """Change the state as the events say. Returns how many events were taken.

        The batch must begin at `next_seq` and end at the end of a command. Raises CoreError when
        the events do not fit the state; the state is not usable afterwards.
        """
        cdef const char *trouble
        cdef uint64_t first = self.state.next_seq
        self._check_free()
        if events.units.count and events.first_seq != first:
            raise CoreError(f"events begin at {events.first_seq}, the state is before {first}")
        with nogil:
            trouble = replay_units(&self.state, events.units.data, events.units.count)
        if trouble != NULL:
            raise CoreError(f"event {self.state.next_seq} does not fit: {trouble.decode('ascii')}")
        return self.state.next_seq - first

    @property
    def next_seq(self):
        """The seq that the next event will have."""
        return self.state.next_seq

    @property
    def last_time_ns(self):
        """The time of the last event."""
        return self.state.last_time_ns

    @property
    def generation(self):
        """The session generation, from 1."""
        return self.state.generation

    @property
    def resting_orders(self):
        """Live orders in all books."""
        return self.state.pool.live

    @property
    def counters(self):
        """What this object did since it was made: commands, and events by kind."""
        names = model.KIND_NAMES
        kinds = range(EV_ACCEPTED, EV_RULES_SET + 1)
        return {
            "commands": self._commands, "ignored": self._commands - self._answered,
            "stale": self._stale,
            **{names[kind]: self._counts[kind] for kind in kinds},
        }

    def orders(self, instrument_id):
        """Resting orders of an instrument as dicts: bids, then asks, each in priority order."""
        return list_orders(&self.state, instrument_id)

    def levels(self, instrument_id, depth):
        """(bids, asks): lists of (price_units, quantity_lots, orders), best first."""
        return list_levels(&self.state, instrument_id, depth)

    def export_orders(self, account_id=0, instrument_id=0):
        """Resting orders as EV_ANNOUNCED units, of one account or instrument, or of all (0).

        `quantity_lots` is what is open; what the order and those that it replaced have executed
        follows in an EXT_PROGRESS, if anything; then the client's id. Book by book in priority
        order; an account's orders by their ids. Unknown accounts and instruments have none.
        """
        cdef EventBatch batch = EventBatch()
        cdef uint32_t slot
        cdef uint32_t number = instrument_id
        cdef uint32_t *slots
        cdef size_t index = 0
        if account_id == 0:
            self._export_books(batch, number)
            return batch
        slot = account_slot(&self.state, account_id)
        if slot == 0:
            return batch
        slots = orders_by_id(&self.state, slot)
        try:
            while slots[index]:
                if number == 0 or self.state.pool.orders[slots[index]].instrument_id == number:
                    self._export(batch, slots[index])
                index += 1
        finally:
            free(slots)
        return batch

    cdef int _export_books(self, EventBatch batch, uint32_t number) except -1:
        cdef uint32_t instrument, side, level, slot
        for instrument in range(self.state.instruments_end):
            if number and instrument != number:
                continue
            for side in range(2):
                level = self.state.books[instrument].best_level[side]
                while level:
                    slot = self.state.levels.items[level].head
                    while slot:
                        self._export(batch, slot)
                        slot = self.state.pool.orders[slot].next
                    level = self.state.levels.items[level].worse
        return 0

    cdef int _export(self, EventBatch batch, uint32_t slot) except -1:
        cdef Event event
        cdef ExtProgress progress
        cdef ExtClientId id
        cdef const Order *order = &self.state.pool.orders[slot]
        cdef uint32_t entry = client_of_slot(&self.state.clients, slot)
        fill_announced(&self.state, slot, &event)
        event.time_ns = self.state.last_time_ns
        event.ext_count += (order.chain_done_lots != 0) + (entry != 0)
        batch._append(&event, 1)
        if order.options:
            batch._append(&self.state.pool.options[order.options], 1)
        if order.chain_done_lots:
            memset(&progress, 0, sizeof(progress))
            progress.kind = EXT_PROGRESS
            progress.chain_done_lots = order.chain_done_lots
            batch._append(&progress, 1)
        if entry:
            fill_client_id(&id, &self.state.clients.entries[entry])
            batch._append(&id, 1)
        batch.event_count += 1
        return 0

    def accounts(self):
        """Every account by id: its definition and where it stands."""
        return list_accounts(&self.state)

    def instruments(self):
        """Every instrument by id: its definition and where it stands."""
        return list_instruments(&self.state)

    def last_user_ref_num(self, account_id, user_ref_idx=0):
        """The highest number used on a channel in this session. KeyError: no such account."""
        cdef uint32_t slot = self._slot(account_id)
        return last_number(&self.state, &self.state.accounts[slot], user_ref_idx)

    def missing_numbers(self, account_id, user_ref_idx=0):
        """Which of the last 1,024 numbers of a channel were never used, ascending. Without a
        window, and before it was set, all up to the last count as used. KeyError: no such account.
        """
        cdef uint32_t slot = self._slot(account_id)
        return list_missing(&self.state, &self.state.accounts[slot], user_ref_idx)

    def stream_next(self, account_id):
        """The number of the account's next sequenced message. KeyError: no such account."""
        return self.state.accounts[self._slot(account_id)].stream_next

    def rules(self):
        """How long ids of clients are remembered: `window_ns`, `kept_min`, `kept_max`; and how far
        behind the last number a missing one is taken over UDP: `udp_window`, 0 for never."""
        return {"window_ns": self.state.clients.window_ns,
                "kept_min": self.state.clients.kept_min, "kept_max": self.state.clients.kept_max,
                "udp_window": self.state.udp_window}

    @property
    def client_ids_known(self):
        """How many ids of clients are remembered, of all accounts."""
        return self.state.clients.count

    def find_client_order(self, account_id, client_order_id):
        """(seq of the id's first answer, fingerprint of its command), or None when the id is not
        remembered. The first answer is an accepted order, whose id the seq is, or a reject.
        KeyError: no such account."""
        cdef char text[CLIENT_TEXT_BYTES]
        cdef bytes raw = client_order_id.encode("utf-8")
        cdef uint32_t slot = self._slot(account_id)
        cdef uint32_t entry
        if not 0 < len(raw) <= CLIENT_TEXT_BYTES:
            return None
        memset(text, 0, CLIENT_TEXT_BYTES)
        memcpy(text, <const char *>raw, len(raw))
        entry = client_find(&self.state.clients, slot, text)
        if entry == 0:
            return None
        return self.state.clients.entries[entry].seq, self.state.clients.entries[entry].fingerprint

    def client_ids(self, account_id):
        """{order id: client's id} of the account's live private orders that have one.

        A replacement has the id of its original, unless it brought its own. KeyError: no such
        account.
        """
        cdef uint32_t *slots = orders_by_id(&self.state, self._slot(account_id))
        cdef const ClientId *entry
        cdef size_t index = 0
        table = {}
        try:
            while slots[index]:
                entry = &self.state.clients.entries[client_of_slot(&self.state.clients,
                                                                   slots[index])]
                if client_of_slot(&self.state.clients, slots[index]):
                    table[entry.order_id] = client_text(entry)
                index += 1
        finally:
            free(slots)
        return table

    def _slot(self, account_id):
        slot = account_slot(&self.state, account_id)
        if slot == 0:
            raise KeyError(f"account {account_id} is not defined")
        return slot

    def state_hash(self):
        """32 bytes that are equal exactly when two matchers will behave the same (blake2b)."""
        return hash_state(&self.state)

    def check_invariants(self):
        """Walk everything. Raises CoreError with what is wrong; slow, for tests and tools."""
        wrong = check_state(&self.state)
        if wrong is not None:
            raise CoreError(wrong)

    def save(self):
        """The state as a list of bytes-like regions; their concatenation is what load() takes.

        Most are views of live memory: quick, and only to be read while nothing is applied (in a
        forked child, or at once).
        """
        return save_state(self, &self.state, &self._views)

    @staticmethod
    def load(data):
        """A matcher from what save() gave. Raises CoreError for anything else."""
        cdef Matcher matcher = Matcher()
        load_state(&matcher.state, data)
        return matcher


cdef size_t first_difference(const Units *expected, size_t position, const Units *events,
                             size_t start, uint64_t *index) noexcept nogil:
    """Compare the units of one command; `index` counts the events that are equal.

    Returns the position in `expected` after the command, or `position` when they differ. What the
    log has beyond the command's events is left for the next command to be compared with.
    """
    cdef size_t produced = events.count - start
    cdef size_t offset = 0
    cdef size_t units
    if produced == 0:
        return position
    while offset < produced:
        units = 1 + <size_t>events.data[start + offset].ext_count
        if position + offset + units > expected.count or memcmp(
                &expected.data[position + offset], &events.data[start + offset],
                units * sizeof(Event)) != 0:
            return position
        offset += units
        index[0] += 1
    return position + produced


cdef void fill_client_id(ExtClientId *id, const ClientId *entry) noexcept nogil:
    memset(id, 0, sizeof(ExtClientId))
    id.kind = EXT_CLIENT_ID
    memcpy(id.text, entry.text, CLIENT_TEXT_BYTES)
    while id.length < CLIENT_TEXT_BYTES and id.text[id.length]:
        id.length += 1


cdef str client_text(const ClientId *entry):
    return entry.text[:CLIENT_TEXT_BYTES].rstrip(b"\0").decode("utf-8")


def fingerprint(CommandBatch commands not None):
    """64 bits that stand for what the first command, an Enter or a Replace, asks for: instrument,
    side, price, quantity, time in force, post-only and minimum quantity, not who asks. Raises
    ValueError when there is no such command."""
    if commands.units.count == 0 or commands.units.data[0].kind not in (CMD_ENTER, CMD_REPLACE):
        raise ValueError("no Enter or Replace to take the fingerprint of")
    return fingerprint_of(commands.units.data)


def commands_of(EventBatch events not None):
    """The commands that left these events, without their times. CoreError: not a log.

    Running them through a fresh matcher at the times of the log gives the same events.
    """
    cdef CommandBatch batch = CommandBatch()
    cdef Units scratch
    cdef size_t position = 0
    cdef const Event *event
    cdef const char *trouble = NULL
    memset(&scratch, 0, sizeof(scratch))
    while position < events.units.count and trouble == NULL:
        event = &events.units.data[position]
        if is_first(event):
            scratch.count = 0
            trouble = command_of(event, events.units.count - position, &scratch)
            batch._append(scratch.data, scratch.count)
            batch.command_count += 1
        position += 1 + <size_t>event.ext_count
    free(scratch.data)
    if trouble != NULL:
        raise CoreError(trouble.decode("ascii"))
    return batch

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Logged events change the state, without any matching; and commands are taken back out of them.

Every event says what happened, not why, so a newer matcher reads an older log. An accepted order is
"incoming" until the events of its command are over; then what is open of it rests. Events that do
not fit the state are reported, never obeyed.
"""

from libc.stdlib cimport free

from cython_core.state cimport *

cdef struct Replay:
    State *state
    Order incoming              # of the command at hand; order_id 0 for none
    const Event *incoming_event
    uint32_t incoming_client    # entry of its client's id, 0 for none
    uint32_t *rolled            # all orders by id while a session rolls, else NULL
    size_t cursor


cdef const char *replay_units(State *state, const Event *events, size_t units) noexcept nogil:
    """Apply events in order. Returns NULL, or what did not fit; `next_seq` then names the event."""
    cdef Replay replay
    cdef const char *trouble = NULL
    cdef size_t position = 0
    cdef const Event *event
    memset(&replay, 0, sizeof(replay))
    replay.state = state
    while position < units and trouble == NULL:
        event = &events[position]
        position += 1 + <size_t>event.ext_count
        if position > units:
            trouble = "its extension units are missing"
            break
        if is_first(event):
            trouble = settle(&replay)
        state.now_ns = event.time_ns
        if trouble == NULL:
            trouble = replay_event(&replay, event)
        if trouble == NULL:
            state.next_seq += 1
            state.last_time_ns = event.time_ns
    if trouble == NULL:
        trouble = settle(&replay)
    free(replay.rolled)
    return trouble


cdef const char *settle(Replay *replay) noexcept nogil:
    """The events of a command are over: what is open of its order rests."""
    cdef State *state = replay.state
    cdef Order *order = &replay.incoming
    cdef Book *book
    cdef uint32_t tick = 0
    cdef uint32_t slot = 0
    free(replay.rolled)
    replay.rolled = NULL
    if order.order_id == 0:
        return NULL
    if order.open_lots:
        book = &state.books[order.instrument_id]
        if not order_may_rest(order):
            return "an order rests that may not"
        if not tick_from_price(book, order.price_units, &tick):
            return "an order rests at a price that is none of its instrument"
        if book.best_rank[side_of(order.side) ^ 1] >= rank_of(tick, side_of(order.side) ^ 1):
            return "an order rests that should have traded"
        slot = pool_take(&state.pool)
        state.pool.orders[slot] = order[0]
        rest_order(state, book, slot, tick, replay.incoming_event.client_order,
                   find_options(replay.incoming_event))
    if replay.incoming_client:
        settle_client(state, replay.incoming_client, slot, order.order_id)
        replay.incoming_client = 0
    order.order_id = 0
    return NULL


cdef inline void use_number_of(State *state, uint32_t slot, const Event *event) noexcept nogil:
    """Some rejects have a number that can't be used: it is an old one, or there are no more."""
    cdef Account *account = &state.accounts[slot]
    if source_has_stream(event.source) and number_is_new(state, account, event):
        use_number(state, account, event.user_ref_idx, event.user_ref_num)


cdef void replay_client_id(Replay *replay, const Event *event, uint32_t slot) noexcept nogil:
    """The first event of a private order, or of one refused, may bring a client's id."""
    cdef const ExtClientId *id = find_client_id(event)
    if id != NULL and client_find(&replay.state.clients, slot, id.text) == 0:
        replay.incoming_client = remember_client(replay.state, slot, event, id)


cdef inline const char *replay_accepted(Replay *replay, const Event *event,
                                        uint32_t slot) noexcept nogil:
    cdef Order *order = &replay.incoming
    if event.order_id != replay.state.next_seq:
        return "its order id is not its seq"
    if replay.state.books[event.instrument_id].instrument_id == 0 \
            or not side_is_known(event.side):
        return "it names an unknown instrument or side"
    if not source_has_stream(event.source):
        replay_client_id(replay, event, slot)
    elif not number_is_new(replay.state, &replay.state.accounts[slot], event):
        return "its number was used before"
    use_number_of(replay.state, slot, event)
    count_message(&replay.state.accounts[slot], event.source)
    replay.incoming_event = event
    set_order(order, event, slot, event.order_id)
    return NULL


cdef const char *replay_replaced(Replay *replay, const Event *event,
                                 uint32_t slot) noexcept nogil:
    cdef State *state = replay.state
    cdef const ExtReplace *ext = <const ExtReplace *>&event[1]
    cdef const char *trouble
    cdef uint32_t original
    if event.ext_count == 0 or ext.kind != EXT_REPLACE:
        return "a replacement does not name its original"
    if source_has_stream(event.source):
        original = index_find(&state.index, state.pool.orders, slot, event.user_ref_idx,
                              ext.orig_user_ref_num)
    else:
        original = index_find_id(&state.by_id, state.pool.orders, ext.orig_order_id)
    if original == 0 or state.pool.orders[original].order_id != ext.orig_order_id:
        return "the original of a replacement is not live"
    trouble = replay_accepted(replay, event, slot)
    if trouble == NULL:
        replay.incoming.chain_done_lots = ext.chain_done_lots
        if replay.incoming_client == 0:
            replay.incoming_client = client_unlink(&state.clients, original)
        drop_order(state, original)
    return trouble


cdef inline const char *replay_fill(Replay *replay, const Fill *fill) noexcept nogil:
    """The taker is the incoming order, the maker the first of the other side."""
    cdef State *state = replay.state
    cdef Order *taker = &replay.incoming
    cdef Book *book = &state.books[taker.instrument_id]
    cdef uint32_t level, slot
    cdef const Order *maker
    if taker.order_id == 0 or fill.taker_order_id != taker.order_id:
        return "the taker of a fill is not the order of its command"
    level = book.best_level[side_of(taker.side) ^ 1]
    slot = state.levels.items[level].head if level else 0
    maker = &state.pool.orders[slot]
    if slot == 0 or maker.order_id != fill.maker_order_id:
        return "the maker of a fill is not the first in the book"
    if fill.quantity_lots == 0 or fill.quantity_lots > taker.open_lots \
            or fill.quantity_lots > maker.open_lots or fill.price_units != maker.price_units:
        return "a fill has a wrong price or quantity"
    count_message(&state.accounts[taker.account], taker.source)
    count_message(&state.accounts[maker.account], maker.source)
    book.last_trade_units = fill.price_units
    taker.open_lots -= fill.quantity_lots
    taker.chain_done_lots += fill.quantity_lots
    fill_maker(state, book, slot, fill.quantity_lots)
    return NULL


cdef inline uint32_t find_live(Replay *replay, const Event *event, uint32_t account) noexcept nogil:
    """The resting order that an event is about, or 0."""
    cdef State *state = replay.state
    cdef uint32_t slot
    if replay.rolled != NULL:
        while replay.rolled[replay.cursor] and state.pool.orders[
                replay.rolled[replay.cursor]].order_id < event.order_id:
            replay.cursor += 1
        slot = replay.rolled[replay.cursor]
        replay.cursor += slot != 0
    elif source_has_stream(event.source):
        slot = index_find(&state.index, state.pool.orders, account, event.user_ref_idx,
                          event.user_ref_num)
    else:
        slot = index_find_id(&state.by_id, state.pool.orders, event.order_id)
    if slot and state.pool.orders[slot].order_id == event.order_id:
        return slot
    return 0


cdef inline const char *replay_canceled(Replay *replay, const Canceled *event,
                                        uint32_t account) noexcept nogil:
    cdef State *state = replay.state
    cdef Order *order = &replay.incoming
    cdef uint32_t slot = 0
    if order.order_id != event.order_id:
        slot = find_live(replay, <const Event *>event, account)
        if slot == 0:
            return "the order canceled is not live"
        order = &state.pool.orders[slot]
    if event.quantity_lots > order.open_lots \
            or event.remaining_lots != order.open_lots - event.quantity_lots:
        return "an order is canceled by more than it has open"
    count_message(&state.accounts[account], event.source)
    if slot == 0:
        order.open_lots = event.remaining_lots
    elif event.remaining_lots == 0:
        drop_order(state, slot)
    else:
        state.levels.items[order.level].quantity_lots -= event.quantity_lots
        order.open_lots = event.remaining_lots
    return NULL


cdef const char *replay_modified(Replay *replay, const Modified *event,
                                 uint32_t account) noexcept nogil:
    cdef State *state = replay.state
    cdef uint32_t slot = find_live(replay, <const Event *>event, account)
    cdef Order *order = &state.pool.orders[slot]
    if slot == 0:
        return "the order modified is not live"
    if event.reduced_lots >= order.open_lots \
            or event.quantity_lots != order.open_lots - event.reduced_lots \
            or side_of(event.side) != side_of(order.side):
        return "an order is modified to what it can't be"
    count_message(&state.accounts[account], event.source)
    order.side = event.side
    order.open_lots = event.quantity_lots
    state.levels.items[order.level].quantity_lots -= event.reduced_lots
    return NULL


cdef const char *replay_rejected(Replay *replay, const Event *event,
                                 uint32_t account) noexcept nogil:
    """A refused Modify has the number of its live order; all others use their number up.

    A private command has none; the id that it brought is remembered, and has ended.
    """
    if not source_has_stream(event.source):
        if (event.order_id & 0xFFFF) != REJECT_DUPLICATE_CLIENT_ID:
            replay_client_id(replay, event, account)
        settle_client(replay.state, replay.incoming_client, 0, 0)
        replay.incoming_client = 0
    elif (event.order_id >> 16 & 0xFF) != CMD_MODIFY:
        use_number_of(replay.state, account, event)
    count_message(&replay.state.accounts[account], event.source)
    return NULL


cdef const char *replay_action(Replay *replay, const Event *event,
                               uint32_t account) noexcept nogil:
    """Mass canceled, entry disabled, entry enabled."""
    use_number_of(replay.state, account, event)
    count_message(&replay.state.accounts[account], event.source)
    if event.kind != EV_MASS_CANCELED:
        switch_entry(&replay.state.accounts[account], event.source,
                     event.kind == EV_ENTRY_DISABLED)
    return NULL


cdef const char *replay_announced(Replay *replay, const Event *event) noexcept nogil:
    cdef State *state = replay.state
    cdef uint32_t slot
    if replay.rolled == NULL:
        return "an order is announced outside of a session roll"
    slot = find_live(replay, event, 0)
    if slot == 0 or state.pool.orders[slot].open_lots != event.quantity_lots:
        return "the order announced is not live"
    announce_order(state, slot)
    if state.pool.orders[slot].user_ref_num != event.user_ref_num:
        return "an order is announced under a wrong number"
    return NULL


cdef const char *replay_venue(Replay *replay, const Event *event) noexcept nogil:
    """Events that are not an account's: the roll of a session, definitions, halts, rules."""
    cdef State *state = replay.state
    if event.kind == EV_ROLL_STARTED:
        replay.rolled = orders_by_id(state, 0)
        replay.cursor = 0
    elif event.kind == EV_SESSION_STARTED:
        if replay.rolled == NULL or event.order_id == 0 or event.order_id >> 16:
            return "a session starts without a roll"
        free(replay.rolled)
        start_session(state, <uint16_t>event.order_id)
        replay.rolled = orders_by_id(state, 0)
        replay.cursor = 0
    elif event.kind == EV_ANNOUNCED:
        return replay_announced(replay, event)
    elif event.kind == EV_INSTRUMENT_HALTED or event.kind == EV_INSTRUMENT_RESUMED:
        if state.books[event.instrument_id].instrument_id == 0:
            return "the instrument halted is not defined"
        state_halt(state, event)
    elif event.kind == EV_RULES_SET:
        if (<const Rules *>event).udp_window > UDP_WINDOW_MAX:
            return "its window of numbers is wider than any"
        state_set_rules(state, <const Rules *>event)
    elif event.kind == EV_INSTRUMENT_DEFINED:
        if event.ext_count != 1 or event[1].kind != EXT_INSTRUMENT or event.instrument_id == 0 \
                or (<const ExtInstrument *>&event[1]).tick_units < 1:
            return "the definition of an instrument is incomplete"
        if state.books[event.instrument_id].orders and state.books[
                event.instrument_id].tick_units != (<const ExtInstrument *>&event[1]).tick_units:
            return "the tick of an instrument changes while orders rest"
        state_define_instrument(state, event)
    elif event.kind == EV_ACCOUNT_DEFINED:
        if event.ext_count != 1 or event[1].kind != EXT_ACCOUNT:
            return "the definition of an account is incomplete"
        state_define_account(state, event)
    elif event.kind != EV_ADMIN_ACT:
        return "its kind is not that of an event"
    return NULL


cdef const char *replay_account(Replay *replay, const Event *event, uint32_t slot) noexcept nogil:
    """The rarer events of an account."""
    if event.kind == EV_REPLACED:
        return replay_replaced(replay, event, slot)
    if event.kind == EV_MODIFIED:
        return replay_modified(replay, <const Modified *>event, slot)
    if event.kind == EV_REJECTED:
        return replay_rejected(replay, event, slot)
    if event.kind == EV_REPLACE_REFUSED:
        return NULL
    if event.kind == EV_ACCOUNT_QUERIED:
        count_message(&replay.state.accounts[slot], event.source)
        return NULL
    return replay_action(replay, event, slot)


cdef inline const char *replay_event(Replay *replay, const Event *event) noexcept nogil:
    cdef uint32_t slot
    cdef uint8_t kind = event.kind
    if kind == EV_FILL:
        return replay_fill(replay, <const Fill *>event)
    if kind < EV_ACCEPTED or kind >= EV_ROLL_STARTED:
        return replay_venue(replay, event)
    if kind == EV_REJECTED and (event.order_id >> 16 & 0xFF) > CMD_ACCOUNT_QUERY:
        return NULL
    slot = account_slot(replay.state, event.account_id)
    if slot == 0:
        return "its account is not defined"
    if kind == EV_ACCEPTED:
        return replay_accepted(replay, event, slot)
    if kind == EV_CANCELED:
        return replay_canceled(replay, <const Canceled *>event, slot)
    return replay_account(replay, event, slot)


# ---- from events back to commands -----------------------------------------------------------

cdef uint8_t kind_of_command(const Event *event) noexcept nogil:
    """The command that an event is the first of, 0 if it can't be."""
    if event.kind == EV_ACCEPTED:
        return CMD_ENTER
    if event.kind == EV_REPLACED or event.kind == EV_REPLACE_REFUSED:
        return CMD_REPLACE
    if event.kind == EV_CANCELED:
        return (<const Canceled *>event).command_kind
    if event.kind == EV_REJECTED:
        return <uint8_t>(event.order_id >> 16)
    if event.kind == EV_MODIFIED:
        return CMD_MODIFY
    if event.kind == EV_MASS_CANCELED:
        return CMD_MASS_CANCEL
    if event.kind == EV_ENTRY_DISABLED:
        return CMD_DISABLE_ENTRY
    if event.kind == EV_ENTRY_ENABLED:
        return CMD_ENABLE_ENTRY
    if event.kind == EV_ACCOUNT_QUERIED:
        return CMD_ACCOUNT_QUERY
    if event.kind == EV_ROLL_STARTED:
        return CMD_SESSION_ROLL
    if event.kind == EV_INSTRUMENT_DEFINED:
        return CMD_DEFINE_INSTRUMENT
    if event.kind == EV_ACCOUNT_DEFINED:
        return CMD_DEFINE_ACCOUNT
    if event.kind == EV_INSTRUMENT_HALTED:
        return CMD_HALT_INSTRUMENT
    if event.kind == EV_INSTRUMENT_RESUMED:
        return CMD_RESUME_INSTRUMENT
    if event.kind == EV_ADMIN_ACT:
        return CMD_ADMIN_ACT
    if event.kind == EV_RULES_SET:
        return CMD_SET_RULES
    return 0


cdef const char *command_of(const Event *event, size_t units, Units *commands) noexcept nogil:
    """Append the command that `event` is the first event of. NULL, or what is wrong."""
    cdef uint8_t kind = kind_of_command(event)
    cdef uint32_t ext_count = event.ext_count
    cdef Event *command
    cdef uint32_t index
    if kind < CMD_ENTER or kind > CMD_SET_RULES or not is_first(event):
        return "an event is not the first of a command"
    if 1 + <size_t>ext_count > units:
        return "an event's extension units are missing"
    if kind == CMD_REPLACE and (ext_count == 0 or event[1].kind != EXT_REPLACE):
        return "a replacement does not name its original"
    if (kind == CMD_DEFINE_INSTRUMENT or kind == CMD_DEFINE_ACCOUNT) and (
            ext_count != 1
            or event[1].kind != EXT_INSTRUMENT + (kind - CMD_DEFINE_INSTRUMENT)):
        return "a definition is incomplete"
    if kind == CMD_SET_RULES and (<const Rules *>event).udp_window > UDP_WINDOW_MAX:
        return "a window of numbers is wider than any"
    units_reserve(commands, 1 + ext_count)
    command = &commands.data[commands.count]
    if event.kind == EV_CANCELED or event.kind == EV_MODIFIED:
        commands.count += 1 + handle_command(event, command, kind)
        return NULL
    for index in range(1 + ext_count):
        command[index] = event[index]
    command.kind = kind
    command.time_ns = 0
    command.flags &= ~FLAG_FIRST
    command.order_id = 0
    if event.kind == EV_REJECTED and event.flags & FLAG_DOOR_REASON:
        command.order_id = event.order_id & 0xFFFF
    if event.kind == EV_REJECTED and (event.order_id & 0xFFFF) == REJECT_DUPLICATE_CLIENT_ID:
        restore_target(command)
    if event.kind == EV_REPLACED:
        ext_count = replace_command(event, command)
    commands.count += 1 + ext_count
    return NULL


cdef void restore_target(Event *command) noexcept nogil:
    """Undo what the matcher's reject_duplicate did to the command's units."""
    cdef ExtOrigin *origin = <ExtOrigin *>find_origin(command)
    if origin == NULL:
        return
    origin.order_id = 0
    if command[1].kind == EXT_REPLACE:
        origin.order_id = (<const ExtReplace *>&command[1]).orig_order_id
        (<ExtReplace *>&command[1]).orig_order_id = 0


cdef uint32_t handle_command(const Event *event, Event *command, uint8_t kind) noexcept nogil:
    """A Cancel or a Modify, from the one event that it left. Returns its extension units."""
    cdef const ExtOrigin *origin = find_origin(event)
    cdef uint64_t high = 0
    memset(command, 0, sizeof(Event))
    command.kind = kind
    command.account_id = event.account_id
    command.user_ref_num = event.user_ref_num
    command.user_ref_idx = event.user_ref_idx
    command.source = event.source
    if event.kind == EV_MODIFIED:
        command.quantity_lots = (<const Modified *>event).command_quantity
        command.side = (<const Modified *>event).command_side
    else:
        command.quantity_lots = (<const Canceled *>event).command_quantity
        if kind == CMD_MODIFY:
            command.side = event.time_in_force
    if origin == NULL:
        return 0
    high = origin.quantity_high
    command.quantity_lots |= high << 32
    command.source = origin.source
    command.ext_count = 1
    memcpy(&command[1], origin, sizeof(ExtOrigin))
    (<ExtOrigin *>&command[1]).quantity_high = 0
    return 1


cdef uint32_t replace_command(const Event *event, Event *command) noexcept nogil:
    """A Replace as it was sent: without what came from the original. Returns its ext units."""
    cdef const ExtReplace *done = <const ExtReplace *>&event[1]
    cdef ExtReplace *ext = <ExtReplace *>&command[1]
    cdef uint32_t kept = 1
    cdef uint32_t index
    cdef ExtOptions options
    command.instrument_id = 0
    command.side = 0
    command.quantity_lots = done.chain_quantity_lots
    command.flags = done.command_flags
    memset(ext, 0, sizeof(ExtReplace))
    ext.kind = EXT_REPLACE
    ext.command_side = done.command_side
    ext.orig_user_ref_num = done.orig_user_ref_num
    ext.chain_quantity_lots = done.chain_quantity_lots
    for index in range(2, 1 + <uint32_t>event.ext_count):
        if event[index].kind != EXT_OPTIONS:
            kept += 1
            command[kept] = event[index]
            continue
        memset(&options, 0, sizeof(options))
        options.kind = EXT_OPTIONS
        copy_options(&options, <const ExtOptions *>&event[index], done.command_options)
        if options.present:
            kept += 1
            memcpy(&command[kept], &options, sizeof(options))
    command.ext_count = <uint8_t>kept
    return kept

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The whole state at once: listed, checked, hashed, saved and loaded.

A saved state is a header and the tables as they lie in memory, so that saving is a few views and
no loop. Loading trusts nothing: it takes the orders out of the saved slab in the order of their
ids, which is their priority too, and enters them one by one into an empty state.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, malloc

from cython_core.state cimport *

import hashlib

from cython_core.errors import CoreError

cdef enum:
    SAVE_VERSION = 3
    HASH_BUFFER_BYTES = 65536
    HEADER_BYTES_1 = 64         # of version 1, which knew no ids of clients and no halts
    HEADER_BYTES_2 = 104        # of version 2, which knew no window of numbers

cdef struct SaveHeader:
    char magic[8]
    uint32_t version
    uint32_t generation
    uint64_t next_seq
    uint64_t last_time_ns
    uint32_t instruments
    uint32_t accounts
    uint32_t channels
    uint32_t options
    uint64_t orders             # slots, free ones included
    uint64_t live
    # from here on: not in version 1
    uint64_t window_ns
    uint64_t kept_min
    uint64_t kept_max
    uint32_t queues             # accounts with a queue of ended ids
    uint32_t client_ids         # entries, free ones and entry 0 included
    uint32_t client_ids_known
    uint32_t udp_window         # from here on: not in versions 1 and 2, where this was 0
    uint32_t used_numbers       # records, free ones and record 0 included
    uint32_t reserved

cdef struct Sections:
    SaveHeader header
    const Definition *instruments
    const int64_t *last_trades
    const Account *accounts
    const Definition *account_units
    const uint32_t *channels
    const ExtOptions *options
    const ClientText *clients
    const Order *orders
    const Halt *halts
    const ClientQueue *queues
    const ClientId *client_ids
    const UsedNumbers *used_numbers


# ---- lists ----------------------------------------------------------------------------------

cdef str text_of(const ClientId *entry):
    return entry.text[:CLIENT_TEXT_BYTES].rstrip(b"\0").decode("latin-1")


cdef dict order_dict(const State *state, uint32_t slot):
    cdef const Order *order = &state.pool.orders[slot]
    cdef EventBatch batch = EventBatch()
    cdef Event event
    fill_announced(state, slot, &event)
    batch._append(&event, 1)
    if order.options:
        batch._append(&state.pool.options[order.options], 1)
    fields = batch.dicts()[0]
    for name in ("seq", "kind", "time_ns", "first"):
        del fields[name]
    fields["chain_done_lots"] = order.chain_done_lots
    entry = client_of_slot(&state.clients, slot)
    if entry:
        fields["client_order_id"] = text_of(&state.clients.entries[<uint32_t>entry])
    return fields


cdef const Book *find_book(const State *state, instrument_id) except NULL:
    cdef uint32_t number = instrument_id if 0 < instrument_id < INSTRUMENTS else 0
    if state.books[number].instrument_id == 0:
        raise KeyError(f"instrument {instrument_id} is not defined")
    return &state.books[number]


cdef list list_orders(const State *state, instrument_id):
    """Every resting order of a book as a dict, bids before asks, in priority order."""
    cdef const Book *book = find_book(state, instrument_id)
    cdef uint32_t side, level, slot
    rows = []
    for side in range(2):
        level = book.best_level[side]
        while level:
            slot = state.levels.items[level].head
            while slot:
                rows.append(order_dict(state, slot))
                slot = state.pool.orders[slot].next
            level = state.levels.items[level].worse
    return rows


cdef tuple list_levels(const State *state, instrument_id, depth):
    """(bids, asks) of a book, best first, at most `depth` levels each."""
    cdef const Book *book = find_book(state, instrument_id)
    cdef uint32_t side, level
    cdef const Level *item
    sides = ([], [])
    for side in range(2):
        level = book.best_level[side]
        while level and len(sides[side]) < depth:
            item = &state.levels.items[level]
            price = <int64_t>tick_of(item.rank, side) * book.tick_units
            sides[side].append((price, item.quantity_lots, item.orders))
            level = item.worse
    return sides


cdef dict definition_dict(const Definition *definition):
    cdef EventBatch batch = EventBatch()
    batch._append(definition, 2)
    return batch.dicts()[0]


cdef list list_missing(const State *state, const Account *account, uint8_t channel):
    """The numbers among the last 1,024 of a channel that were never used, ascending."""
    cdef uint32_t record = record_of_numbers(state, account, channel)
    cdef uint32_t last = last_number(state, account, channel)
    cdef uint32_t behind
    cdef list missing = []
    if record == 0:
        return missing
    for behind in range(min(last, <uint32_t>UDP_WINDOW_MAX)):
        if not number_was_used(&state.numbers.items[record], last - behind):
            missing.append(last - behind)
    missing.reverse()
    return missing


cdef dict list_accounts(const State *state):
    cdef uint32_t slot
    cdef const Account *account
    cdef dict table = {}
    for slot in range(1, state.accounts_end):
        account = &state.accounts[slot]
        fields = definition_dict(&state.account_units[slot])
        row = {name: fields[name] for name in (
            "username", "firm", "role", "quantity_max_lots", "notional_max", "open_orders_max",
            "collar_bps", "messages_per_second")}
        row["open_orders"] = account.open_orders
        row["entry_disabled"] = bool(account.entry_disabled & ENTRY_DISABLED)
        row["killed"] = bool(account.entry_disabled & ENTRY_KILLED)
        row["stream_next"] = account.stream_next
        row["last_user_ref_num"] = {
            channel: last_number(state, account, channel) for channel in range(CHANNELS)
            if channel == 0 or last_number(state, account, channel)}
        table[account.account_id] = row
    return table


cdef dict list_instruments(const State *state):
    cdef uint32_t number
    cdef const Book *book
    cdef dict table = {}
    for number in range(state.instruments_end):
        book = &state.books[number]
        if book.instrument_id == 0:
            continue
        fields = definition_dict(&state.instruments[number])
        row = {name: fields[name] for name in (
            "symbol", "wire_symbol", "price_decimals", "quantity_decimals", "tick_units",
            "lot_size", "quantity_max_lots", "state")}
        row["last_trade_units"] = book.last_trade_units
        row["resting_orders"] = book.orders
        row["halted"] = bool(state.halts[number].halted)
        row["halt_reason"] = state.halts[number].reason[:24].rstrip(b"\0").decode("latin-1")
        table[number] = row
    return table


# ---- checks ---------------------------------------------------------------------------------

cdef object check_state(const State *state):
    """What is wrong anywhere, as text, or None."""
    cdef uint32_t number
    cdef uint64_t orders = 0
    cdef uint64_t levels = 0
    for number in range(state.instruments_end):
        if state.books[number].open != (state.books[number].instrument_id != 0
                                        and not state.halts[number].halted):
            return f"instrument {number} is open when it should not be, or closed"
        if state.books[number].instrument_id == 0:
            continue
        wrong = book_check(&state.books[number], &state.levels, &state.pool)
        if wrong is not None:
            return f"instrument {number}: {wrong}"
        orders += state.books[number].orders
        levels += state.books[number].levels
    if orders != state.pool.live:
        return f"{orders} orders are in books, {state.pool.live} in the slab"
    if levels != state.levels.live:
        return f"{levels} levels are in books, {state.levels.live} in the pool"
    return check_orders(state) or check_numbers(state) or check_client_ids(state)


cdef object check_orders(const State *state):
    """Slab against index and accounts."""
    cdef uint64_t live = 0
    cdef uint64_t handles = 0
    cdef uint64_t options = 0
    cdef uint32_t slot
    cdef const Order *order
    cdef dict counts = {}
    for slot in range(1, state.pool.used):
        order = &state.pool.orders[slot]
        if order.order_id == 0:
            continue
        live += 1
        options += order.options != 0
        counts[order.account] = counts.get(order.account, 0) + 1
        if order.order_id >= state.next_seq or not order_may_rest(order):
            return f"order {order.order_id} is none that may rest"
        if source_has_stream(order.source):
            handles += 1
            if index_find(&state.index, state.pool.orders, order.account, order.user_ref_idx,
                          order.user_ref_num) != slot:
                return f"order {order.order_id} is not in the index"
            if not has_used_number(state, order):
                return f"order {order.order_id} has a number that was not used"
        elif index_find_id(&state.by_id, state.pool.orders, order.order_id) != slot:
            return f"private order {order.order_id} is not in the index of ids"
    if live != state.pool.live or handles != state.index.count \
            or live - handles != state.by_id.count:
        return f"{live} orders with {handles} handles are in the slab, counted otherwise"
    if options != state.pool.options_live:
        return f"{options} orders have options, {state.pool.options_live} options are kept"
    for slot in range(1, state.accounts_end):
        if state.accounts[slot].open_orders != counts.get(slot, 0):
            return f"account {state.accounts[slot].account_id} counts its open orders wrongly"
    return None


cdef bint has_used_number(const State *state, const Order *order) noexcept nogil:
    """Whether a handle can't be taken again."""
    cdef const Account *account = &state.accounts[order.account]
    cdef uint32_t last = last_number(state, account, order.user_ref_idx)
    cdef uint32_t record = record_of_numbers(state, account, order.user_ref_idx)
    if order.user_ref_num == 0 or order.user_ref_num > last:
        return False
    return (record == 0 or last - order.user_ref_num >= UDP_WINDOW_MAX
            or number_was_used(&state.numbers.items[record], order.user_ref_num))


cdef object check_numbers(const State *state):
    """Each record of missing numbers belongs to one channel, which has as many as it says."""
    cdef const Account *account
    cdef uint32_t slot, channel, record, gaps
    cdef set found = set()
    for slot in range(1, state.accounts_end):
        account = &state.accounts[slot]
        gaps = 0
        for channel in range(<uint32_t>CHANNELS):
            record = record_of_numbers(state, account, <uint8_t>channel)
            if record == 0:
                continue
            gaps += 1
            if record >= state.numbers.used or record in found:
                return f"account {account.account_id} has a record of numbers that is not its own"
            found.add(record)
            if not numbers_are_sound(&state.numbers.items[record],
                                     last_number(state, account, <uint8_t>channel)):
                return f"account {account.account_id} counts its missing numbers wrongly"
        if gaps != account.gaps:
            return f"account {account.account_id} counts its channels with gaps wrongly"
    if len(found) != state.numbers.live or (found and state.udp_window == 0):
        return f"{len(found)} channels have gaps, {state.numbers.live} are counted"
    return None


cdef bint numbers_are_sound(const UsedNumbers *numbers, uint32_t last) noexcept nogil:
    """Whether some are missing, but neither the last nor one below 1."""
    cdef uint32_t missing = 0
    cdef uint32_t behind
    for behind in range(<uint32_t>UDP_WINDOW_MAX):
        if not number_was_used(numbers, last - behind):
            if behind == 0 or behind >= last:
                return False
            missing += 1
    return missing != 0 and missing == numbers.missing


cdef object check_client_ids(const State *state):
    """Ids of clients: each is carried by one live order, or stands in its account's queue."""
    cdef const ClientIds *ids = &state.clients
    cdef const ClientQueue *queue
    cdef uint64_t carried = 0
    cdef uint64_t queued = 0
    cdef uint64_t steps
    cdef uint32_t slot, entry, last
    for slot in range(1, ids.slots_capacity):
        entry = ids.by_slot[slot]
        if entry == 0:
            continue
        carried += 1
        if slot >= state.pool.used or state.pool.orders[slot].order_id == 0 \
                or ids.entries[entry].order_id != state.pool.orders[slot].order_id \
                or ids.entries[entry].account != state.pool.orders[slot].account \
                or source_has_stream(state.pool.orders[slot].source):
            return f"the order in slot {slot} does not carry the id that it is said to carry"
    for slot in range(1, state.accounts_end):
        queue = client_queue(ids, slot)
        if queue == NULL:
            break
        steps = 0
        last = 0
        entry = queue.oldest
        while entry:
            if steps >= ids.count or ids.entries[entry].account != slot \
                    or ids.entries[entry].order_id:
                return f"the queue of ended ids of slot {slot} is wrong"
            steps += 1
            last = entry
            entry = ids.entries[entry].next
        if steps != queue.ended or last != queue.newest:
            return f"the queue of ended ids of slot {slot} is counted wrongly"
        queued += steps
    if carried + queued != ids.count or ids.index.count != ids.count:
        return f"{carried} ids are carried, {queued} have ended, {ids.count} are counted"
    for entry in range(1, ids.used):
        if ids.entries[entry].seq and client_find(ids, ids.entries[entry].account,
                                                  ids.entries[entry].text) != entry:
            return f"client id {entry} is not in the index"
    return None


# ---- the hash -------------------------------------------------------------------------------

cdef class Hasher:
    """blake2b over small pieces, gathered so that Python is called rarely."""
    cdef object hash
    cdef size_t used
    cdef unsigned char buffer[HASH_BUFFER_BYTES]

    def __cinit__(self):
        self.hash = hashlib.blake2b(digest_size=32)
        self.used = 0

    cdef int add(self, const void *data, size_t length) except -1:
        if self.used + length > HASH_BUFFER_BYTES:
            self.flush()
        memcpy(&self.buffer[self.used], data, length)
        self.used += length
        return 0

    cdef int add_number(self, uint64_t value) except -1:
        return self.add(&value, sizeof(value))

    cdef int flush(self) except -1:
        self.hash.update(<bytes>self.buffer[:self.used])
        self.used = 0
        return 0


cdef bytes hash_state(const State *state):
    """What decides the future, in an order that does not depend on memory."""
    cdef Hasher hasher = Hasher()
    cdef uint32_t number
    hasher.add_number(state.generation)
    hasher.add_number(state.next_seq)
    hasher.add_number(state.last_time_ns)
    hasher.add_number(state.clients.window_ns)
    hasher.add_number(state.clients.kept_min)
    hasher.add_number(state.clients.kept_max)
    hasher.add_number(state.udp_window)
    hash_accounts(state, hasher)
    for number in range(state.instruments_end):
        if state.books[number].instrument_id:
            hasher.add(&state.instruments[number], sizeof(Definition))
            hasher.add_number(state.books[number].last_trade_units)
            hasher.add(&state.halts[number], sizeof(Halt))
            hash_book(state, &state.books[number], hasher)
    hasher.flush()
    return hasher.hash.digest()


cdef int hash_accounts(const State *state, Hasher hasher) except -1:
    cdef uint32_t slot, channel, last, record
    cdef const Account *account
    order = sorted(range(1, state.accounts_end), key=lambda slot: state.accounts[slot].account_id)
    for slot in order:
        account = &state.accounts[slot]
        hasher.add(&state.account_units[slot], sizeof(Definition))
        hasher.add_number(account.stream_next)
        hasher.add_number(account.open_orders)
        hasher.add_number(account.entry_disabled)
        for channel in range(<uint32_t>CHANNELS):
            last = last_number(state, account, channel)
            if last:
                hasher.add_number(<uint64_t>channel << 32 | last)
            record = record_of_numbers(state, account, <uint8_t>channel)
            if record:
                hasher.add(state.numbers.items[record].bits, NUMBER_WORDS * sizeof(uint64_t))
        hasher.add_number(0)
        hash_ended_ids(state, slot, hasher)
    return 0


cdef int hash_ended_ids(const State *state, uint32_t account, Hasher hasher) except -1:
    """An account's queue of ids that no order carries any more."""
    cdef const ClientQueue *queue = client_queue(&state.clients, account)
    cdef uint32_t entry = queue.oldest if queue != NULL else 0
    while entry:
        hash_client_id(&state.clients.entries[entry], hasher)
        hasher.add_number(state.clients.entries[entry].ended_ns)
        entry = state.clients.entries[entry].next
    hasher.add_number(0)
    return 0


cdef int hash_client_id(const ClientId *id, Hasher hasher) except -1:
    hasher.add(id.text, CLIENT_TEXT_BYTES)
    hasher.add_number(id.seq)
    hasher.add_number(id.fingerprint)
    return 0


cdef int hash_book(const State *state, const Book *book, Hasher hasher) except -1:
    cdef uint32_t side, level, slot, entry
    cdef const Order *order
    cdef Event event
    for side in range(2):
        level = book.best_level[side]
        while level:
            slot = state.levels.items[level].head
            while slot:
                order = &state.pool.orders[slot]
                fill_announced(state, slot, &event)
                hasher.add(&event, sizeof(event))
                hasher.add_number(order.chain_done_lots)
                if order.options:
                    hasher.add(&state.pool.options[order.options], sizeof(ExtOptions))
                entry = client_of_slot(&state.clients, slot)
                if entry:
                    hash_client_id(&state.clients.entries[entry], hasher)
                slot = order.next
            level = state.levels.items[level].worse
    return 0


# ---- save -----------------------------------------------------------------------------------

@cython.no_gc_clear
cdef class Region:
    """A read-only view of a piece of live memory; keeps its owner alive and from changing."""
    cdef object owner
    cdef void *data
    cdef Py_ssize_t length
    cdef Py_ssize_t *views

    def __len__(self):
        return self.length

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.length, 1, flags)

    def __dealloc__(self):
        if self.views != NULL:
            self.views[0] -= 1


cdef Region region_of(object owner, const void *data, Py_ssize_t length, Py_ssize_t *views):
    cdef Region region = Region()
    region.owner = owner
    region.data = <void *>data if length else <void *>views
    region.length = length
    region.views = views
    views[0] += 1
    return region


cdef list save_state(object owner, State *state, Py_ssize_t *views):
    """The regions of a saved state, see Sections for their order."""
    cdef SaveHeader header
    cdef Pool *pool = &state.pool
    memset(&header, 0, sizeof(header))
    memcpy(header.magic, b"matchdst", 8)
    header.version = SAVE_VERSION
    header.generation = state.generation
    header.next_seq = state.next_seq
    header.last_time_ns = state.last_time_ns
    header.instruments = state.instruments_end
    header.accounts = state.accounts_end
    header.channels = state.channels_end
    header.options = pool.options_used
    header.orders = pool.used
    header.live = pool.live
    header.window_ns = state.clients.window_ns
    header.kept_min = state.clients.kept_min
    header.kept_max = state.clients.kept_max
    header.queues = min(state.clients.queues_capacity, state.accounts_end)
    header.client_ids = state.clients.used
    header.client_ids_known = state.clients.count
    header.udp_window = state.udp_window
    header.used_numbers = state.numbers.used
    trades = last_trades(state)
    tables = [
        region_of(owner, state.accounts, state.accounts_end * sizeof(Account), views)
        if state.accounts != NULL else bytes(sizeof(Account)),
        region_of(owner, state.account_units, state.accounts_end * sizeof(Definition), views)
        if state.account_units != NULL else bytes(sizeof(Definition)),
        region_of(owner, state.channels, state.channels_end * CHANNELS * sizeof(uint32_t), views),
        region_of(owner, pool.options, pool.options_used * sizeof(ExtOptions), views),
        region_of(owner, pool.clients, <size_t>pool.used * sizeof(ClientText), views),
        region_of(owner, pool.orders, <size_t>pool.used * sizeof(Order), views),
        region_of(owner, state.halts, state.instruments_end * sizeof(Halt), views),
        region_of(owner, state.clients.queues, header.queues * sizeof(ClientQueue), views),
        region_of(owner, state.clients.entries, state.clients.used * sizeof(ClientId), views)
        if state.clients.entries != NULL else bytes(sizeof(ClientId)),
        region_of(owner, state.numbers.items, state.numbers.used * sizeof(UsedNumbers), views),
    ]
    return [(<const unsigned char *>&header)[:sizeof(header)],
            region_of(owner, state.instruments, state.instruments_end * sizeof(Definition), views),
            trades, *tables]


cdef bytearray last_trades(const State *state):
    cdef bytearray table = bytearray(state.instruments_end * sizeof(int64_t))
    cdef int64_t *prices = <int64_t *><char *>table
    cdef uint32_t number
    for number in range(state.instruments_end):
        prices[number] = state.books[number].last_trade_units
    return table


# ---- load -----------------------------------------------------------------------------------

cdef int load_state(State *state, data) except -1:
    """Fill an empty state from saved bytes. Raises CoreError when they are not a saved state."""
    cdef const unsigned char[::1] view = data
    cdef Sections saved
    cdef const char *trouble
    find_sections(&saved, view)
    with nogil:
        trouble = load_tables(state, &saved)
        if trouble == NULL:
            trouble = load_orders(state, &saved)
        if trouble == NULL:
            trouble = load_client_ids(state, &saved)
    if trouble != NULL:
        raise CoreError(f"not a saved state: {trouble.decode('ascii')}")
    return 0


cdef size_t read_header(SaveHeader *header, const unsigned char[::1] view) except 0:
    """Fill the header; what its version did not know is 0. Returns its length on disk."""
    cdef size_t head = HEADER_BYTES_1
    if <size_t>view.shape[0] < HEADER_BYTES_2:
        raise CoreError("not a saved state: it is too short")
    memset(header, 0, sizeof(SaveHeader))
    memcpy(header, &view[0], HEADER_BYTES_1)
    if header.magic[:8] != b"matchdst" or not 1 <= header.version <= SAVE_VERSION:
        raise CoreError("not a saved state of this version")
    if header.version == 2:
        head = HEADER_BYTES_2
    elif header.version > 2:
        head = sizeof(SaveHeader)
    if <size_t>view.shape[0] < head:
        raise CoreError("not a saved state: it is too short")
    memcpy(header, &view[0], head)
    if header.version < 3:
        header.udp_window = 0
    if header.instruments > INSTRUMENTS or header.orders >> 32 or header.accounts == 0 \
            or header.generation == 0 or header.generation >> 16 or header.next_seq == 0 \
            or header.udp_window > UDP_WINDOW_MAX:
        raise CoreError("not a saved state: a number in its header is out of range")
    return head


cdef int find_sections(Sections *saved, const unsigned char[::1] view) except -1:
    """Where each table begins. Raises CoreError when the sizes do not add up."""
    cdef SaveHeader *header = &saved.header
    cdef const unsigned char *at
    cdef size_t head = read_header(header, view)
    expected = head + header.instruments * (sizeof(Definition) + sizeof(int64_t))
    expected += header.accounts * <object>(sizeof(Account) + sizeof(Definition))
    expected += header.channels * <object>(CHANNELS * sizeof(uint32_t))
    expected += header.options * <object>sizeof(ExtOptions)
    expected += header.orders * <object>(sizeof(ClientText) + sizeof(Order))
    if header.version > 1:
        expected += header.instruments * <object>sizeof(Halt)
        expected += header.queues * <object>sizeof(ClientQueue)
        expected += header.client_ids * <object>sizeof(ClientId)
    if header.version > 2:
        expected += header.used_numbers * <object>sizeof(UsedNumbers)
    if expected != view.shape[0]:
        raise CoreError(f"not a saved state: {view.shape[0]} bytes, not {expected}")
    at = &view[0] + head
    saved.instruments = <const Definition *>at
    at += header.instruments * sizeof(Definition)
    saved.last_trades = <const int64_t *>at
    at += header.instruments * sizeof(int64_t)
    saved.accounts = <const Account *>at
    at += header.accounts * sizeof(Account)
    saved.account_units = <const Definition *>at
    at += header.accounts * sizeof(Definition)
    saved.channels = <const uint32_t *>at
    at += <size_t>header.channels * CHANNELS * sizeof(uint32_t)
    saved.options = <const ExtOptions *>at
    at += <size_t>header.options * sizeof(ExtOptions)
    saved.clients = <const ClientText *>at
    at += header.orders * sizeof(ClientText)
    saved.orders = <const Order *>at
    at += header.orders * sizeof(Order)
    saved.halts = <const Halt *>at
    at += header.instruments * sizeof(Halt)
    saved.queues = <const ClientQueue *>at
    at += header.queues * sizeof(ClientQueue)
    saved.client_ids = <const ClientId *>at
    at += header.client_ids * sizeof(ClientId)
    saved.used_numbers = <const UsedNumbers *>at
    return 0


cdef const char *load_tables(State *state, const Sections *saved) noexcept nogil:
    """Instruments and accounts."""
    cdef const Definition *definition
    cdef const ExtInstrument *terms
    cdef uint32_t index
    cdef const char *trouble = NULL
    state.generation = <uint16_t>saved.header.generation
    state.next_seq = saved.header.next_seq
    state.last_time_ns = saved.header.last_time_ns
    state.udp_window = saved.header.udp_window
    if saved.header.version > 1:
        state.clients.window_ns = saved.header.window_ns
        state.clients.kept_min = saved.header.kept_min
        state.clients.kept_max = saved.header.kept_max
    for index in range(1, saved.header.instruments):
        definition = &saved.instruments[index]
        if definition.base.kind == 0:
            continue
        terms = <const ExtInstrument *>&definition.ext
        if definition.base.kind != EV_INSTRUMENT_DEFINED or definition.ext.kind != EXT_INSTRUMENT \
                or definition.base.instrument_id != index or definition.base.ext_count != 1 \
                or terms.tick_units < 1 or saved.last_trades[index] < 0:
            return "the definition of an instrument is damaged"
        if saved.header.version > 1:
            if saved.halts[index].halted > 1:
                return "the halt of an instrument is damaged"
            state.halts[index] = saved.halts[index]
        state_define_instrument(state, &definition.base)
        state.books[index].last_trade_units = saved.last_trades[index]
    for index in range(1, saved.header.accounts):
        trouble = load_account(state, saved, index)
        if trouble != NULL:
            return trouble
    return NULL


cdef const char *load_account(State *state, const Sections *saved, uint32_t slot) noexcept nogil:
    """Accounts keep their slots, because orders name them."""
    cdef const Definition *definition = &saved.account_units[slot]
    cdef const Account *old = &saved.accounts[slot]
    cdef Account *account
    cdef const uint32_t *row
    cdef uint32_t channel
    if definition.base.kind != EV_ACCOUNT_DEFINED or definition.ext.kind != EXT_ACCOUNT \
            or definition.base.ext_count != 1 or definition.base.account_id != old.account_id \
            or old.channels >= saved.header.channels + (old.channels == 0) \
            or old.entry_disabled > (ENTRY_DISABLED | ENTRY_KILLED) or old.stream_next == 0:
        return "the definition of an account is damaged"
    if account_slot(state, old.account_id):
        return "an account is defined twice"
    state_define_account(state, &definition.base)
    account = &state.accounts[slot]
    account.stream_next = old.stream_next
    account.entry_disabled = old.entry_disabled
    account.last_user_ref_num = old.last_user_ref_num
    if old.channels:
        row = &saved.channels[<size_t>old.channels * CHANNELS]
        for channel in range(1, <uint32_t>CHANNELS):
            if row[channel]:
                set_last_number(state, account, <uint8_t>channel, row[channel])
    return load_gaps(state, saved, old, account) if saved.header.version > 2 else NULL


cdef const char *load_gaps(State *state, const Sections *saved, const Account *old,
                           Account *account) noexcept nogil:
    """The missing numbers of an account's channels."""
    cdef uint32_t channel, last
    cdef uint32_t record = old.used_numbers
    cdef uint32_t taken
    if old.used_numbers_row >= saved.header.channels + (old.used_numbers_row == 0):
        return "the gaps of an account are damaged"
    for channel in range(<uint32_t>CHANNELS):
        if channel:
            record = 0
            if old.used_numbers_row:
                record = saved.channels[<size_t>old.used_numbers_row * CHANNELS + channel]
        if record == 0:
            continue
        last = last_number(state, account, <uint8_t>channel)
        if state.udp_window == 0 or record >= saved.header.used_numbers \
                or not numbers_are_sound(&saved.used_numbers[record], last):
            return "the missing numbers of an account are damaged"
        taken = numbers_take(&state.numbers)
        memcpy(state.numbers.items[taken].bits, saved.used_numbers[record].bits,
               NUMBER_WORDS * sizeof(uint64_t))
        state.numbers.items[taken].missing = saved.used_numbers[record].missing
        set_record(state, account, <uint8_t>channel, taken)
        account.gaps += 1
    return NULL


cdef const char *load_orders(State *state, const Sections *saved) noexcept nogil:
    """Enter the live orders of the saved slab, oldest first."""
    cdef size_t capacity = saved.header.live + 1
    cdef Ranked *ranked
    cdef size_t found = 0
    cdef size_t slot, index
    cdef const char *trouble = NULL
    if saved.header.live > saved.header.orders:
        return "it has more orders than slots"
    ranked = <Ranked *>malloc(capacity * sizeof(Ranked))
    INVARIANT(ranked != NULL, "out of memory for loading orders")
    for slot in range(1, saved.header.orders):
        if saved.orders[slot].order_id and found < capacity:
            ranked[found].order_id = saved.orders[slot].order_id
            ranked[found].slot = <uint32_t>slot
            found += 1
    if found != saved.header.live:
        free(ranked)
        return "its orders are not as many as it says"
    ranked = sort_ranked(ranked, found)
    for index in range(found):
        if index and ranked[index].order_id == ranked[index - 1].order_id:
            trouble = "two orders have the same id"
        if trouble == NULL:
            trouble = load_order(state, saved, ranked[index].slot)
        if trouble != NULL:
            break
    free(ranked)
    return trouble


cdef const char *load_order(State *state, const Sections *saved, uint32_t slot) noexcept nogil:
    cdef const Order *order = &saved.orders[slot]
    cdef Book *book = &state.books[order.instrument_id]
    cdef const ExtOptions *options = NULL
    cdef uint32_t tick = 0
    cdef uint32_t side, taken
    if not order_may_rest(order) or order.order_id >= state.next_seq or book.instrument_id == 0 \
            or order.account == 0 or order.account >= state.accounts_end:
        return "an order is damaged"
    side = side_of(order.side)
    if not tick_from_price(book, order.price_units, &tick) \
            or book.best_rank[side ^ 1] >= rank_of(tick, side ^ 1):
        return "the price of an order is damaged"
    if source_has_stream(order.source) and index_find(
            &state.index, state.pool.orders, order.account, order.user_ref_idx,
            order.user_ref_num):
        return "two orders have the same handle"
    if source_has_stream(order.source) and not has_used_number(state, order):
        return "an order has a number that was not used"
    if order.options:
        if order.options >= saved.header.options \
                or saved.options[order.options].kind != EXT_OPTIONS:
            return "the options of an order are damaged"
        options = &saved.options[order.options]
    taken = pool_take(&state.pool)
    state.pool.orders[taken] = order[0]
    rest_order(state, book, taken, tick, saved.clients[slot].text, options)
    return NULL


cdef const char *load_client_ids(State *state, const Sections *saved) noexcept nogil:
    """Ended ids account by account, oldest first, then those that live orders carry."""
    cdef const char *trouble = NULL
    cdef const ClientId *old
    cdef uint32_t slot, entry, order
    if saved.header.version == 1:
        return NULL
    for slot in range(1, saved.header.queues):
        trouble = load_queue(state, saved, slot)
        if trouble != NULL:
            return trouble
    for entry in range(1, saved.header.client_ids):
        old = &saved.client_ids[entry]
        if old.seq == 0 or old.order_id == 0:
            continue
        order = index_find_id(&state.by_id, state.pool.orders, old.order_id)
        if order == 0 or state.pool.orders[order].account != old.account \
                or client_of_slot(&state.clients, order) \
                or client_find(&state.clients, old.account, old.text):
            return "the id of a live order is damaged"
        client_link(&state.clients, load_client_id(state, old), order, old.order_id)
    if state.clients.count != saved.header.client_ids_known:
        return "its ids of clients are not as many as it says"
    return NULL


cdef const char *load_queue(State *state, const Sections *saved, uint32_t slot) noexcept nogil:
    cdef uint32_t entry = saved.queues[slot].oldest
    cdef const ClientId *old
    while entry:
        old = &saved.client_ids[entry]
        if entry >= saved.header.client_ids or slot >= state.accounts_end or old.account != slot \
                or old.seq == 0 or old.order_id or client_find(&state.clients, slot, old.text):
            return "a queue of ended ids is damaged"
        client_end(&state.clients, load_client_id(state, old), old.ended_ns)
        entry = old.next
    return NULL


cdef uint32_t load_client_id(State *state, const ClientId *old) noexcept nogil:
    return client_add(&state.clients, old.account, old.text, old.seq, old.fingerprint)

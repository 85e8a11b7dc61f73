# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The table of the ids that clients gave to private orders. See client_ids.pxd."""

from libc.string cimport memcmp, memcpy, memset

from cython_core.event cimport ExtOptions, ExtOrigin, ExtReplace
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport *
from cython_core.order_index cimport *
from cython_core.pool cimport memory_free, memory_grow

cdef enum:
    QUEUES_MIN = 64
    SLOTS_MIN = 1024
    ENTRIES_MIN = 256

cdef extern from *:
    """
    #define MATCHD_SECOND_NS 1000000000ull
    /* One step of a hash: every bit of `value` spreads over the whole word. */
    static inline unsigned long long mix_word(unsigned long long hash, unsigned long long value) {
        hash = (hash ^ value) * 0x9E3779B97F4A7C15ull;
        return hash ^ (hash >> 29);
    }
    """
    const uint64_t SECOND_NS "MATCHD_SECOND_NS"
    uint64_t mix_word(uint64_t hash, uint64_t value) noexcept nogil


cdef void client_ids_init(ClientIds *ids) noexcept nogil:
    memset(ids, 0, sizeof(ClientIds))
    index_init(&ids.index)
    ids.used = 1
    ids.window_ns = DEFAULT_WINDOW_S * SECOND_NS
    ids.kept_min = DEFAULT_KEPT_MIN
    ids.kept_max = DEFAULT_KEPT_MAX


cdef void client_ids_free(ClientIds *ids) noexcept nogil:
    memory_free(ids.entries, <size_t>ids.capacity * sizeof(ClientId))
    memory_free(ids.queues, <size_t>ids.queues_capacity * sizeof(ClientQueue))
    memory_free(ids.by_slot, <size_t>ids.slots_capacity * sizeof(uint32_t))
    index_free(&ids.index)
    memset(ids, 0, sizeof(ClientIds))


cdef void *_grown(void *table, uint32_t *capacity, uint64_t needed, uint64_t least,
                  size_t entry_bytes) noexcept nogil:
    """The table with room for `needed` entries, new ones zero; `capacity` follows."""
    cdef uint64_t new = max(<uint64_t>capacity[0], least)
    if needed <= capacity[0]:
        return table
    while new < needed:
        new *= 2
    INVARIANT(new < (<uint64_t>1 << 32), "at most 2**31 ids of clients can be kept")
    table = memory_grow(table, capacity[0] * entry_bytes, new * entry_bytes)
    INVARIANT(table != NULL, "out of memory for ids of clients")
    capacity[0] = <uint32_t>new
    return table


# ---- hashes ---------------------------------------------------------------------------------

cdef uint32_t _tag(uint32_t account, const char *text) noexcept nogil:
    cdef uint64_t words[5]
    cdef uint64_t hash = account
    cdef int index
    words[4] = 0
    memcpy(words, text, CLIENT_TEXT_BYTES)
    for index in range(5):
        hash = mix_word(hash, words[index])
    return <uint32_t>(hash >> 32)


cdef uint64_t fingerprint_of(const Event *command) noexcept nogil:
    """What a private Enter or Replace asks for, in 64 bits: the same request has the same.

    Also of an EV_REPLACED, which is not quite its command any more.
    """
    cdef const ExtReplace *replace = NULL
    cdef uint64_t hash = 0
    cdef uint64_t min_lots = 0
    cdef uint64_t target = 0
    cdef bint replaced = command.kind == EV_REPLACED
    cdef uint32_t index
    for index in range(1, 1 + <uint32_t>command.ext_count):
        if command[index].kind == EXT_REPLACE:
            replace = <const ExtReplace *>&command[index]
        elif command[index].kind == EXT_ORIGIN:
            target = (<const ExtOrigin *>&command[index]).order_id
        elif command[index].kind == EXT_OPTIONS \
                and (<const ExtOptions *>&command[index]).present & 1 << 3:
            min_lots = (<const ExtOptions *>&command[index]).min_quantity_lots
    hash = mix_word(hash, CMD_ENTER if replace == NULL else CMD_REPLACE)
    hash = mix_word(hash, command.instrument_id if replace == NULL else target)
    hash = mix_word(hash, command.side if replace == NULL else replace.command_side)
    hash = mix_word(hash, <uint64_t>command.price_units)
    hash = mix_word(hash, replace.chain_quantity_lots if replaced else command.quantity_lots)
    hash = mix_word(hash, command.time_in_force)
    hash = mix_word(hash, (replace.command_flags if replaced else command.flags)
                    & (FLAG_POST_ONLY | FLAG_POST_ONLY_SET))
    return mix_word(hash, min_lots)


# ---- entries --------------------------------------------------------------------------------

cdef uint32_t _find_in(const IndexTable *table, const ClientId *entries, uint32_t tag,
                       uint32_t account, const char *text) noexcept nogil:
    cdef uint64_t at = tag >> table.shift
    cdef const IndexBucket *bucket
    cdef uint32_t places, entry
    while True:
        bucket = &table.buckets[at]
        places = equal_words(bucket.tags, tag)
        while places:
            entry = bucket.slots[lowest_bit(places)]
            if entry and entries[entry].account == account \
                    and memcmp(entries[entry].text, text, CLIENT_TEXT_BYTES) == 0:
                return entry
            places &= places - 1
        if bucket.passed == 0:
            return 0
        at = (at + 1) & table.mask


cdef uint32_t client_find(const ClientIds *ids, uint32_t account, const char *text) noexcept nogil:
    """The entry of an id, 0 when it is not remembered. `text` has all its 36 bytes."""
    cdef uint32_t tag = _tag(account, text)
    cdef uint32_t entry = _find_in(&ids.index.table, ids.entries, tag, account, text)
    if entry == 0 and ids.index.old.buckets != NULL:
        entry = _find_in(&ids.index.old, ids.entries, tag, account, text)
    return entry


cdef uint32_t client_add(ClientIds *ids, uint32_t account, const char *text, uint64_t seq,
                         uint64_t fingerprint) noexcept nogil:
    """Remember an id that is not in the table."""
    cdef uint32_t entry = ids.free_head
    cdef ClientId *added
    if entry:
        ids.free_head = ids.entries[entry].next
    else:
        ids.entries = <ClientId *>_grown(ids.entries, &ids.capacity, <uint64_t>ids.used + 1,
                                         ENTRIES_MIN, sizeof(ClientId))
        entry = ids.used
        ids.used += 1
    added = &ids.entries[entry]
    memset(added, 0, sizeof(ClientId))
    memcpy(added.text, text, CLIENT_TEXT_BYTES)
    added.account = account
    added.seq = seq
    added.fingerprint = fingerprint
    index_put(&ids.index, _tag(account, text), entry)
    ids.count += 1
    return entry


cdef void client_end(ClientIds *ids, uint32_t entry, uint64_t now_ns) noexcept nogil:
    """No live order carries the id any more: it goes to the end of its account's queue."""
    cdef ClientId *ended = &ids.entries[entry]
    cdef ClientQueue *queue
    ids.queues = <ClientQueue *>_grown(ids.queues, &ids.queues_capacity,
                                       <uint64_t>ended.account + 1, QUEUES_MIN,
                                       sizeof(ClientQueue))
    queue = &ids.queues[ended.account]
    ended.ended_ns = now_ns
    ended.order_id = 0
    ended.next = 0
    if queue.newest:
        ids.entries[queue.newest].next = entry
    else:
        queue.oldest = entry
    queue.newest = entry
    queue.ended += 1


cdef void client_link(ClientIds *ids, uint32_t entry, uint32_t slot,
                      uint64_t order_id) noexcept nogil:
    """A resting order carries the id."""
    ids.by_slot = <uint32_t *>_grown(ids.by_slot, &ids.slots_capacity, <uint64_t>slot + 1,
                                     SLOTS_MIN, sizeof(uint32_t))
    ids.by_slot[slot] = entry
    ids.entries[entry].order_id = order_id


cdef uint32_t client_of_slot(const ClientIds *ids, uint32_t slot) noexcept nogil:
    """The entry that the resting order in this slot carries, or 0."""
    return ids.by_slot[slot] if slot < ids.slots_capacity else 0


cdef uint32_t client_unlink(ClientIds *ids, uint32_t slot) noexcept nogil:
    """Take the id off the order in this slot; returns its entry, or 0."""
    cdef uint32_t entry = client_of_slot(ids, slot)
    if entry:
        ids.by_slot[slot] = 0
    return entry


cdef void client_forget(ClientIds *ids, uint32_t account, uint64_t now_ns) noexcept nogil:
    """Forget what the rules allow of an account's ended ids, a few at a time."""
    cdef uint32_t left = FORGOTTEN_AT_ONCE
    cdef uint32_t entry
    cdef ClientQueue *queue
    cdef ClientId *oldest
    if account >= ids.queues_capacity:
        return
    queue = &ids.queues[account]
    while left and queue.ended > ids.kept_min:
        entry = queue.oldest
        oldest = &ids.entries[entry]
        if now_ns - oldest.ended_ns < ids.window_ns and ids.count < ids.kept_max:
            return
        queue.oldest = oldest.next
        queue.newest = queue.newest if queue.oldest else 0
        queue.ended -= 1
        index_take(&ids.index, _tag(account, oldest.text), entry)
        memset(oldest, 0, sizeof(ClientId))
        oldest.next = ids.free_head
        ids.free_head = entry
        ids.count -= 1
        left -= 1


cdef const ClientQueue *client_queue(const ClientIds *ids, uint32_t account) noexcept nogil:
    """The account's ended ids, oldest first; NULL when it never had any."""
    return &ids.queues[account] if account < ids.queues_capacity else NULL

# The ids that clients gave to private orders, so that a request sent again never trades twice.
#
# An id belongs to an account. It is remembered while an order that carries it lives (a replacement
# inherits it), and then in the account's queue of ended ids, in the order in which they ended. One
# leaves the head of that queue only when the account has more than `kept_min` ended ids and it
# ended `window_ns` ago or `kept_max` ids are known in all. That happens when an id is added: a few
# at a time, of the account that adds it and of one other, so that no command takes long.

from libc.stdint cimport uint32_t, uint64_t

from cython_core.event cimport Event
from cython_core.order_index cimport OrderIndex

cdef enum:
    CLIENT_TEXT_BYTES = 36
    FORGOTTEN_AT_ONCE = 4       # of one account, whenever an id is added
    # What holds until the first EV_RULES_SET: a day, 100,000 of each account, 10 million.
    DEFAULT_WINDOW_S = 86_400
    DEFAULT_KEPT_MIN = 100_000
    DEFAULT_KEPT_MAX = 10_000_000

cdef struct ClientId:
    char text[36]               # zeros behind the text
    uint32_t account            # slot in the account table
    uint64_t seq                # of the id's first answer; 0: this entry is free
    uint64_t fingerprint        # of the command that brought it
    uint64_t ended_ns
    uint64_t order_id           # the live order that carries it; 0: it has ended
    uint32_t next               # ended later in the same account, or the next free entry
    uint32_t reserved

cdef struct ClientQueue:
    uint32_t oldest
    uint32_t newest
    uint64_t ended              # how many are queued

cdef struct ClientIds:
    ClientId *entries           # entry 0 is none
    uint32_t capacity
    uint32_t used               # entries ever handed out, entry 0 included
    uint32_t free_head
    uint32_t count              # ids known
    OrderIndex index
    ClientQueue *queues         # by account slot
    uint32_t queues_capacity
    uint32_t slots_capacity
    uint32_t *by_slot           # entry of the live order in a slot of the slab
    uint64_t window_ns
    uint64_t kept_min
    uint64_t kept_max

cdef void client_ids_init(ClientIds *ids) noexcept nogil
cdef void client_ids_free(ClientIds *ids) noexcept nogil
cdef uint64_t fingerprint_of(const Event *command) noexcept nogil

# An entry, or 0.
cdef uint32_t client_find(const ClientIds *ids, uint32_t account, const char *text) noexcept nogil
cdef uint32_t client_of_slot(const ClientIds *ids, uint32_t slot) noexcept nogil

# A new id, which is neither linked nor ended yet: one of the two must follow.
cdef uint32_t client_add(ClientIds *ids, uint32_t account, const char *text, uint64_t seq,
                         uint64_t fingerprint) noexcept nogil
cdef void client_end(ClientIds *ids, uint32_t entry, uint64_t now_ns) noexcept nogil
cdef void client_link(ClientIds *ids, uint32_t entry, uint32_t slot,
                      uint64_t order_id) noexcept nogil
cdef uint32_t client_unlink(ClientIds *ids, uint32_t slot) noexcept nogil
cdef void client_forget(ClientIds *ids, uint32_t account, uint64_t now_ns) noexcept nogil
cdef const ClientQueue *client_queue(const ClientIds *ids, uint32_t account) noexcept nogil

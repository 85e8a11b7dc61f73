# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Orders and own fills of the accounts that somebody asks for, made of committed events.

An account is activated with its live orders as the matcher has them at some seq; from there on its
events are applied. Kept are all its live orders and the newest of the dead ones. Rows are made on
demand, with the fields of PROTOCOLS 7; a row costs nothing before somebody reads it, and an event
of an account that is not active costs a look into a small table.

Beside the ledger stand the answers: the first events of private commands, found by the request id
that the gateway put on them.

A replaced order is canceled with the reason "replaced"; the new one has a new id, the chain's total
as its quantity and what the chain did as its filled quantity. The fills of a chain are kept once;
an order shows those up to the event that changed it last.

At a session roll an OUCH order begins anew with what is open of it, as OUCH tells its owner; orders
by other doors know no sessions.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from cython_core.event cimport *
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport *

cdef enum:
    OPEN = 0
    FILLED = 1
    CANCELED = 2
    REJECTED = 3
    REASON_REPLACED = 82        # "R": OUCH has no letter for it
    CLIENT_ID_MAX = 36
    ORDER_CHANGED = 0
    EXECUTED = 1
    ACCOUNTS_MAX = 1 << 20

cdef struct Row:
    uint64_t order_id
    uint64_t time_ns            # when it was accepted; 0 when that is not known
    uint64_t changed_seq
    int64_t price_units
    uint64_t quantity_lots      # total: done and open, before it was canceled
    uint64_t done_lots          # of the whole chain
    uint64_t open_lots
    uint64_t replaces           # the order that it took the place of, 0 for none
    uint64_t begins_seq         # a roll: fills up to here are of the session before
    uint32_t account            # slots
    uint32_t chain
    uint32_t user_ref_num
    uint32_t reason
    uint32_t older              # of the account, by id
    uint32_t newer
    uint32_t before             # among the live ones by id, or the dead ones by their death
    uint32_t after
    uint16_t instrument_id
    uint8_t user_ref_idx
    uint8_t side
    uint8_t time_in_force
    uint8_t source
    uint8_t status
    uint8_t post_only
    uint8_t client_length
    char client_id[36]

# The fills of an order and of those that it replaced, oldest first. `rows` orders use it.
cdef struct Chain:
    uint32_t head
    uint32_t tail
    uint32_t rows
    uint32_t account
    uint32_t earlier            # the last fill from before the activation, 0 for none
    uint64_t known_lots

cdef struct Own:
    uint64_t match
    uint64_t order_id
    uint64_t time_ns
    uint64_t lots
    int64_t price_units
    uint32_t chain
    uint32_t next               # in the chain
    uint32_t older              # of the account
    uint32_t newer
    uint16_t instrument_id
    uint8_t side
    uint8_t maker

cdef struct Pending:
    uint64_t seq
    uint8_t kind
    Row row
    Own own

cdef struct Account:
    uint32_t account_id
    uint32_t newest
    uint32_t oldest
    uint32_t live_first         # oldest
    uint32_t live_last
    uint32_t live_count
    uint32_t dead_first         # died first
    uint32_t dead_last
    uint32_t dead_count
    uint32_t own_oldest
    uint32_t own_newest
    uint32_t own_earlier        # the last fill from before the activation
    uint32_t own_count
    uint64_t from_seq           # events up to here are in what it was activated with
    bint watched
    bint lost
    Pending *changes
    uint32_t change_count
    uint32_t change_capacity

cdef struct Names:
    uint8_t known
    uint8_t price_decimals
    uint8_t quantity_decimals
    uint64_t lot_size


# ---- slabs: arrays whose free slots are linked ------------------------------------------------

cdef struct Slab:
    char *items
    size_t item_bytes
    uint32_t used               # slot 0 is none
    uint32_t capacity
    uint32_t free_head
    uint32_t live

cdef void slab_init(Slab *slab, size_t item_bytes) noexcept nogil:
    memset(slab, 0, sizeof(Slab))
    slab.item_bytes = item_bytes
    slab.used = 1

cdef inline void *slab_at(const Slab *slab, uint32_t slot) noexcept nogil:
    return slab.items + slot * slab.item_bytes

cdef uint32_t slab_take(Slab *slab) noexcept nogil:
    """A zeroed slot. Pointers into the slab may move."""
    cdef uint32_t slot = slab.free_head
    if slot:
        memcpy(&slab.free_head, slab_at(slab, slot), sizeof(uint32_t))
    else:
        if slab.used >= slab.capacity:
            INVARIANT(slab.used < 0x7FFFFFFF, "the ledger holds less than 2**31 of a kind")
            slab.capacity = slab.capacity * 2 if slab.capacity else 256
            slab.items = <char *>realloc(slab.items, slab.capacity * slab.item_bytes)
            INVARIANT(slab.items != NULL, "out of memory for the ledger")
        slot = slab.used
        slab.used += 1
    memset(slab_at(slab, slot), 0, slab.item_bytes)
    slab.live += 1
    return slot

cdef void slab_give(Slab *slab, uint32_t slot) noexcept nogil:
    memcpy(slab_at(slab, slot), &slab.free_head, sizeof(uint32_t))
    slab.free_head = slot
    slab.live -= 1


# ---- a table from 64-bit ids to slots, open addressing ------------------------------------------

cdef struct Cell:
    uint64_t id
    uint32_t slot               # 0: free

cdef struct Table:
    Cell *cells
    size_t mask
    size_t count

cdef inline size_t table_home(const Table *table, uint64_t id) noexcept nogil:
    return <size_t>((id * <uint64_t>0x9E3779B97F4A7C15) >> 20) & table.mask

cdef void table_init(Table *table, size_t size) noexcept nogil:
    table.cells = <Cell *>calloc(size, sizeof(Cell))
    INVARIANT(table.cells != NULL, "out of memory for the ledger")
    table.mask = size - 1
    table.count = 0

cdef inline uint32_t table_find(const Table *table, uint64_t id) noexcept nogil:
    cdef size_t at = table_home(table, id)
    while table.cells[at].slot:
        if table.cells[at].id == id:
            return table.cells[at].slot
        at = (at + 1) & table.mask
    return 0

cdef void table_put(Table *table, uint64_t id, uint32_t slot) noexcept nogil:
    """Add an id that is not there."""
    cdef Table grown
    cdef size_t at
    if table.count * 2 > table.mask:
        table_init(&grown, (table.mask + 1) * 2)
        for at in range(table.mask + 1):
            if table.cells[at].slot:
                table_put(&grown, table.cells[at].id, table.cells[at].slot)
        free(table.cells)
        table[0] = grown
    at = table_home(table, id)
    while table.cells[at].slot:
        at = (at + 1) & table.mask
    table.cells[at].id = id
    table.cells[at].slot = slot
    table.count += 1

cdef void table_drop(Table *table, uint64_t id) noexcept nogil:
    """Remove an id that is there; what stood behind it moves up."""
    cdef size_t at = table_home(table, id)
    cdef size_t hole, home
    while table.cells[at].slot and table.cells[at].id != id:
        at = (at + 1) & table.mask
    if table.cells[at].slot == 0:
        return
    hole = at
    table.count -= 1
    while True:
        at = (at + 1) & table.mask
        if table.cells[at].slot == 0:
            break
        home = table_home(table, table.cells[at].id)
        # It may move into the hole unless its home lies behind the hole.
        if ((at - home) & table.mask) >= ((at - hole) & table.mask):
            table.cells[hole] = table.cells[at]
            hole = at
    table.cells[hole].slot = 0


# ---- texts --------------------------------------------------------------------------------------

cdef str decimal_of(value, int decimals):
    """An integer with its last `decimals` digits behind the point."""
    text = str(value)
    if decimals == 0:
        return text
    sign = ""
    if text[0] == "-":
        sign, text = "-", text[1:]
    text = text.zfill(decimals + 1)
    return f"{sign}{text[:-decimals]}.{text[-decimals:]}"


cdef uint64_t client_key(uint32_t account_id, const char *text, size_t length) noexcept nogil:
    """A 64-bit key of an account's client id (FNV-1a); who finds by it compares the text."""
    cdef uint64_t key = <uint64_t>0xCBF29CE484222325 ^ account_id * <uint64_t>0x9E3779B97F4A7C15
    cdef size_t index
    for index in range(length):
        key = (key ^ <uint8_t>text[index]) * <uint64_t>0x100000001B3
    return key ^ key >> 29


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


cdef void fill_terms(Row *row, const Event *event, uint64_t order_id) noexcept nogil:
    """The terms of an order, out of an event with the layout of Event."""
    row.order_id = order_id
    row.time_ns = event.time_ns
    row.price_units = event.price_units
    row.quantity_lots = event.quantity_lots
    row.open_lots = event.quantity_lots
    row.user_ref_num = event.user_ref_num
    row.user_ref_idx = event.user_ref_idx
    row.instrument_id = event.instrument_id
    row.side = event.side
    row.time_in_force = event.time_in_force
    row.source = event.source
    row.post_only = event.flags & FLAG_POST_ONLY


cdef void take_client(Row *row, const ExtClientId *ext) noexcept nogil:
    row.client_length = min(ext.length, <uint8_t>CLIENT_ID_MAX)
    memcpy(row.client_id, ext.text, row.client_length)


cdef bint brings_order(const Event *first) noexcept nogil:
    """Whether the first event of a command is a new order, accepted or refused."""
    if first.kind == EV_REJECTED:
        return (first.order_id >> 16 & 0xFF) == CMD_ENTER
    return first.kind == EV_ACCEPTED or first.kind == EV_REPLACED


# What a refused order has of other letters is shown as nothing.
_SIDES = {"B": "buy", "S": "sell", "T": "sell", "E": "sell"}
_TIMES_IN_FORCE = {"0": "day", "1": "gtc", "3": "ioc", "4": "fok"}
_NO_CODES = {}

Change = tuple[int, str, dict]
Trade = tuple[int, int, int, str, int, int]
OwnFill = tuple[int, int, int, int, int, int, int, int, bool]


# ---- the ledger ---------------------------------------------------------------------------------

cdef class Ledger:
    """Orders and own fills of active accounts. One owner at a time.

    `orders_kept` bounds the dead orders of each account, and twice that its fills; `changes_max`
    what waits for the reader of a watched account. `reject_codes` and `cancel_codes` give the
    words for reasons (by number, by OUCH's letter).
    """
    cdef public uint64_t applied_seq
    cdef uint32_t orders_kept
    cdef uint32_t changes_max
    cdef object _reject_codes
    cdef object _cancel_codes
    cdef dict _symbols
    cdef Names *names           # by instrument id
    cdef Slab rows
    cdef Slab chains
    cdef Slab owns
    cdef Table by_id            # rows by order id
    cdef Table by_client        # rows by client_key
    cdef Table by_account       # accounts by account id
    cdef Account *accounts
    cdef uint32_t account_count
    cdef uint32_t account_capacity
    cdef uint32_t incoming      # the row of the command at hand, told when the command is over
    cdef uint64_t incoming_seq

    def __cinit__(self):
        self.names = <Names *>calloc(1 << 16, sizeof(Names))
        INVARIANT(self.names != NULL, "out of memory for the ledger")
        slab_init(&self.rows, sizeof(Row))
        slab_init(&self.chains, sizeof(Chain))
        slab_init(&self.owns, sizeof(Own))
        table_init(&self.by_id, 256)
        table_init(&self.by_client, 64)
        table_init(&self.by_account, 64)

    def __init__(self, uint64_t applied_seq=0, uint32_t orders_kept=100_000, reject_codes=None,
                 cancel_codes=None, uint32_t changes_max=65536):
        if orders_kept < 1:
            raise ValueError("a ledger keeps at least one dead order")
        self.applied_seq = applied_seq
        self.orders_kept = orders_kept
        self.changes_max = changes_max
        self._reject_codes = reject_codes if reject_codes is not None else _NO_CODES
        self._cancel_codes = cancel_codes if cancel_codes is not None else _NO_CODES
        self._symbols = {}

    def __dealloc__(self):
        cdef uint32_t slot
        for slot in range(1, self.account_count + 1):
            free(self.accounts[slot].changes)
        free(self.accounts)
        free(self.names)
        free(self.rows.items)
        free(self.chains.items)
        free(self.owns.items)
        free(self.by_id.cells)
        free(self.by_client.cells)
        free(self.by_account.cells)

    def define(self, uint16_t instrument_id, symbol, uint8_t price_decimals,
               uint8_t quantity_decimals, uint64_t lot_size):
        """Take an instrument's name and scales, for texts."""
        self._symbols[instrument_id] = symbol
        self.names[instrument_id].known = 1
        self.names[instrument_id].price_decimals = price_decimals
        self.names[instrument_id].quantity_decimals = quantity_decimals
        self.names[instrument_id].lot_size = lot_size

    # -- accounts -------------------------------

    def activate(self, uint32_t account_id, EventBatch announced not None, uint64_t seq):
        """Keep the account's orders from now on. `announced` are its live orders at `seq`, as
        Matcher.export_orders gives them; its events up to `seq` are in them and are skipped.
        Nothing happens when it is active already."""
        cdef uint32_t slot
        cdef size_t position = 0
        cdef const Event *event
        if table_find(&self.by_account, account_id):
            return
        slot = self._new_account(account_id, seq)
        places = []
        while position < announced.units.count:
            event = &announced.units.data[position]
            if event.account_id == account_id:
                places.append((event.order_id, position))
            position += 1 + <size_t>event.ext_count
        places.sort()
        for _, place in places:
            self._seed(slot, &announced.units.data[<size_t>place])

    cdef uint32_t _new_account(self, uint32_t account_id, uint64_t seq) except? 0:
        cdef uint32_t slot = self.account_count + 1
        if slot >= ACCOUNTS_MAX:
            raise MemoryError("too many active accounts")
        if slot >= self.account_capacity:
            self.account_capacity = self.account_capacity * 2 if self.account_capacity else 16
            self.accounts = <Account *>realloc(self.accounts,
                                               self.account_capacity * sizeof(Account))
            INVARIANT(self.accounts != NULL, "out of memory for the ledger")
        self.account_count = slot
        memset(&self.accounts[slot], 0, sizeof(Account))
        self.accounts[slot].account_id = account_id
        self.accounts[slot].from_seq = seq
        table_put(&self.by_account, account_id, slot)
        return slot

    cdef void _seed(self, uint32_t account, const Event *event) noexcept nogil:
        """A live order as it was announced."""
        cdef const ExtProgress *progress = <const ExtProgress *>find_ext(event, EXT_PROGRESS)
        cdef uint32_t slot = self._new_row(account, event, event.order_id, 0)
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        row.time_ns = 0
        row.done_lots = progress.chain_done_lots if progress != NULL else 0
        row.quantity_lots = row.done_lots + row.open_lots
        row.changed_seq = self.accounts[account].from_seq
        self._name_client(row, slot, event)

    def is_active(self, uint32_t account_id):
        """Whether the account's orders are kept."""
        return table_find(&self.by_account, account_id) != 0

    def ready(self, uint32_t account_id):
        """Whether what is kept of the account is durable and may be shown."""
        cdef uint32_t slot = table_find(&self.by_account, account_id)
        return slot != 0 and self.accounts[slot].from_seq <= self.applied_seq

    def activated_at(self, uint32_t account_id):
        """The seq of the orders that the account was activated with. KeyError: not active."""
        return self.accounts[self._active(account_id)].from_seq

    def accounts_active(self):
        """Ids of the active accounts."""
        return [self.accounts[slot].account_id for slot in range(1, self.account_count + 1)]

    def counts(self, uint32_t account_id):
        """(live orders, dead orders, fills) that are kept of the account."""
        cdef uint32_t slot = table_find(&self.by_account, account_id)
        if slot == 0:
            return (0, 0, 0)
        return (self.accounts[slot].live_count, self.accounts[slot].dead_count,
                self.accounts[slot].own_count)

    # -- rows -------------------------------

    cdef uint32_t _new_row(self, uint32_t account, const Event *event, uint64_t order_id,
                           uint32_t chain) noexcept nogil:
        """A live order with the terms of an event. `chain` 0 begins one."""
        cdef uint32_t slot = slab_take(&self.rows)
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        if chain == 0:
            chain = slab_take(&self.chains)
            (<Chain *>slab_at(&self.chains, chain)).account = account
        (<Chain *>slab_at(&self.chains, chain)).rows += 1
        fill_terms(row, event, order_id)
        row.account = account
        row.chain = chain
        table_put(&self.by_id, order_id, slot)
        self._link(slot, row)
        return slot

    cdef void _link(self, uint32_t slot, Row *row) noexcept nogil:
        """Put a new row behind all others of its account, and behind the live ones."""
        cdef Account *account = &self.accounts[row.account]
        row.older = account.newest
        if account.newest:
            (<Row *>slab_at(&self.rows, account.newest)).newer = slot
        else:
            account.oldest = slot
        account.newest = slot
        row.before = account.live_last
        if account.live_last:
            (<Row *>slab_at(&self.rows, account.live_last)).after = slot
        else:
            account.live_first = slot
        account.live_last = slot
        account.live_count += 1

    cdef void _name_client(self, Row *row, uint32_t slot, const Event *event) noexcept nogil:
        """Take the client id that the event brings; it leads to this row from now on."""
        cdef const ExtClientId *ext = <const ExtClientId *>find_ext(event, EXT_CLIENT_ID)
        if ext != NULL and ext.length:
            take_client(row, ext)
        if row.client_length:
            self._lead_client(row, slot)

    cdef void _lead_client(self, const Row *row, uint32_t slot) noexcept nogil:
        cdef uint64_t key = client_key(self.accounts[row.account].account_id, row.client_id,
                                       row.client_length)
        if table_find(&self.by_client, key):
            table_drop(&self.by_client, key)
        table_put(&self.by_client, key, slot)

    cdef void _bury(self, uint32_t slot, uint8_t status, uint32_t reason) noexcept nogil:
        """A live order is dead; the oldest dead ones make room."""
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        cdef Account *account = &self.accounts[row.account]
        if row.before:
            (<Row *>slab_at(&self.rows, row.before)).after = row.after
        else:
            account.live_first = row.after
        if row.after:
            (<Row *>slab_at(&self.rows, row.after)).before = row.before
        else:
            account.live_last = row.before
        account.live_count -= 1
        row.status = status
        row.reason = reason
        row.open_lots = 0
        row.after = 0
        row.before = account.dead_last
        if account.dead_last:
            (<Row *>slab_at(&self.rows, account.dead_last)).after = slot
        else:
            account.dead_first = slot
        account.dead_last = slot
        account.dead_count += 1
        while account.dead_count > self.orders_kept and account.dead_first != self.incoming:
            self._evict(account.dead_first)

    cdef void _evict(self, uint32_t slot) noexcept nogil:
        """Forget the order that died first."""
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        cdef Account *account = &self.accounts[row.account]
        cdef uint64_t key
        INVARIANT(account.dead_first == slot, "the order that died first goes first")
        account.dead_first = row.after
        if row.after:
            (<Row *>slab_at(&self.rows, row.after)).before = 0
        else:
            account.dead_last = 0
        account.dead_count -= 1
        if row.older:
            (<Row *>slab_at(&self.rows, row.older)).newer = row.newer
        else:
            account.oldest = row.newer
        if row.newer:
            (<Row *>slab_at(&self.rows, row.newer)).older = row.older
        else:
            account.newest = row.older
        table_drop(&self.by_id, row.order_id)
        if row.client_length:
            key = client_key(account.account_id, row.client_id, row.client_length)
            if table_find(&self.by_client, key) == slot:
                table_drop(&self.by_client, key)
        self._leave_chain(row.chain)
        slab_give(&self.rows, slot)

    cdef void _leave_chain(self, uint32_t slot) noexcept nogil:
        """One user of a chain less; the last one takes the fills along."""
        cdef Chain *chain = <Chain *>slab_at(&self.chains, slot)
        chain.rows -= 1
        if chain.rows:
            return
        while chain.head:
            self._drop_own(chain.head)
        slab_give(&self.chains, slot)

    # -- fills -------------------------------

    cdef uint32_t _new_own(self, const Row *row, const Fill *fill, uint64_t seq,
                           bint maker) noexcept nogil:
        """A fill of this order, not linked yet. Pointers to fills may move."""
        cdef uint32_t slot = slab_take(&self.owns)
        cdef Own *own = <Own *>slab_at(&self.owns, slot)
        own.match = seq
        own.order_id = fill.maker_order_id if maker else fill.taker_order_id
        own.time_ns = fill.time_ns
        own.lots = fill.quantity_lots
        own.price_units = fill.price_units
        own.chain = row.chain
        own.instrument_id = row.instrument_id
        own.side = row.side
        own.maker = maker
        return slot

    cdef void _add_own(self, uint32_t slot, uint32_t account_slot) noexcept nogil:
        """Link a fill behind all others; the oldest ones make room."""
        cdef Own *own = <Own *>slab_at(&self.owns, slot)
        cdef Chain *chain = <Chain *>slab_at(&self.chains, own.chain)
        cdef Account *account = &self.accounts[account_slot]
        if chain.tail:
            (<Own *>slab_at(&self.owns, chain.tail)).next = slot
        else:
            chain.head = slot
        chain.tail = slot
        chain.known_lots += own.lots
        own.older = account.own_newest
        if account.own_newest:
            (<Own *>slab_at(&self.owns, account.own_newest)).newer = slot
        else:
            account.own_oldest = slot
        account.own_newest = slot
        account.own_count += 1
        while account.own_count > 2 * <uint64_t>self.orders_kept:
            self._drop_own(account.own_oldest)

    cdef void _add_earlier(self, uint32_t slot, uint32_t account_slot) noexcept nogil:
        """Link a fill from before the activation: behind other such ones, before all others."""
        cdef Own *own = <Own *>slab_at(&self.owns, slot)
        cdef Chain *chain = <Chain *>slab_at(&self.chains, own.chain)
        cdef Account *account = &self.accounts[account_slot]
        cdef Own *other
        if chain.earlier:
            other = <Own *>slab_at(&self.owns, chain.earlier)
            own.next = other.next
            other.next = slot
        else:
            own.next = chain.head
            chain.head = slot
        if own.next == 0:
            chain.tail = slot
        chain.earlier = slot
        chain.known_lots += own.lots
        own.older = account.own_earlier
        if own.older:
            other = <Own *>slab_at(&self.owns, own.older)
            own.newer = other.newer
            other.newer = slot
        else:
            own.newer = account.own_oldest
            account.own_oldest = slot
        if own.newer:
            (<Own *>slab_at(&self.owns, own.newer)).older = slot
        else:
            account.own_newest = slot
        account.own_earlier = slot
        account.own_count += 1

    cdef void _drop_own(self, uint32_t slot) noexcept nogil:
        """Forget a fill that is the first of its chain."""
        cdef Own *own = <Own *>slab_at(&self.owns, slot)
        cdef Chain *chain = <Chain *>slab_at(&self.chains, own.chain)
        cdef Account *account = &self.accounts[chain.account]
        INVARIANT(chain.head == slot, "fills go oldest first")
        chain.head = own.next
        if chain.tail == slot:
            chain.tail = 0
        if chain.earlier == slot:
            chain.earlier = 0
        chain.known_lots -= own.lots
        if own.older:
            (<Own *>slab_at(&self.owns, own.older)).newer = own.newer
        else:
            account.own_oldest = own.newer
        if own.newer:
            (<Own *>slab_at(&self.owns, own.newer)).older = own.older
        else:
            account.own_newest = own.older
        if account.own_earlier == slot:
            account.own_earlier = own.older
        account.own_count -= 1
        slab_give(&self.owns, slot)

    # -- events -------------------------------

    def apply(self, EventBatch batch not None):
        """Take committed events; they must follow each other. Costs nothing while no account is
        active."""
        if batch.event_count == 0:
            return
        if self.account_count:
            with nogil:
                self._apply(batch.units.data, batch.units.count, batch.first_seq)
        self.applied_seq = batch.first_seq + batch.event_count - 1

    cdef void _apply(self, const Event *units, size_t count, uint64_t seq) noexcept nogil:
        cdef size_t position = 0
        cdef const Event *event
        cdef uint32_t account
        cdef uint8_t kind
        while position < count:
            event = &units[position]
            position += 1 + <size_t>event.ext_count
            kind = event.kind
            if self.incoming and starts_command(event):
                self._settle()
            if kind == EV_FILL:
                self._fill(<const Fill *>event, seq)
            elif kind <= EV_MODIFIED or kind == EV_ANNOUNCED:
                account = table_find(&self.by_account, event.account_id)
                if account and seq > self.accounts[account].from_seq:
                    self._event(event, account, seq)
            seq += 1
        self._settle()

    cdef void _event(self, const Event *event, uint32_t account, uint64_t seq) noexcept nogil:
        """An event of an active account that is no fill."""
        cdef uint32_t slot
        if event.kind == EV_ACCEPTED:
            self.incoming = self._new_row(account, event, event.order_id, 0)
            self.incoming_seq = seq
            self._name_client(<Row *>slab_at(&self.rows, self.incoming), self.incoming, event)
            (<Row *>slab_at(&self.rows, self.incoming)).changed_seq = seq
        elif event.kind == EV_REJECTED:
            self._rejected(event, account, seq)
        elif event.kind == EV_REPLACED:
            self._replaced(event, account, seq)
        else:
            slot = table_find(&self.by_id, event.order_id)
            if slot == 0 or (<Row *>slab_at(&self.rows, slot)).status != OPEN:
                return
            if event.kind == EV_CANCELED:
                self._canceled(<const Canceled *>event, slot, seq)
            elif event.kind == EV_MODIFIED:
                self._modified(<const Modified *>event, slot, seq)
            elif event.kind == EV_ANNOUNCED and source_has_stream(event.source):
                self._announced(event, slot, seq)

    cdef void _rejected(self, const Event *event, uint32_t account, uint64_t seq) noexcept nogil:
        """A refused new order is shown, under the seq of its refusal. What a resend of a known
        client id is answered with is no order."""
        cdef uint32_t reason = event.order_id & 0xFFFF
        cdef uint32_t slot
        cdef Row *row
        if (event.order_id >> 16 & 0xFF) != CMD_ENTER or reason == REJECT_DUPLICATE_CLIENT_ID:
            return
        slot = self._new_row(account, event, seq, 0)
        row = <Row *>slab_at(&self.rows, slot)
        row.changed_seq = seq
        self._name_client(row, slot, event)
        self._bury(slot, REJECTED, reason)
        self._tell_order(slot, seq)

    cdef void _replaced(self, const Event *event, uint32_t account, uint64_t seq) noexcept nogil:
        cdef const ExtReplace *ext = <const ExtReplace *>find_ext(event, EXT_REPLACE)
        cdef uint32_t old, slot
        cdef Row *row
        cdef Row *original
        if ext == NULL:
            return
        old = table_find(&self.by_id, ext.orig_order_id)
        if old and (<Row *>slab_at(&self.rows, old)).status != OPEN:
            old = 0
        slot = self._new_row(account, event, event.order_id,
                             (<Row *>slab_at(&self.rows, old)).chain if old else 0)
        row = <Row *>slab_at(&self.rows, slot)
        row.replaces = ext.orig_order_id
        row.quantity_lots = ext.chain_quantity_lots
        row.done_lots = ext.chain_done_lots
        row.changed_seq = seq
        if old:
            original = <Row *>slab_at(&self.rows, old)
            row.client_length = original.client_length
            memcpy(row.client_id, original.client_id, CLIENT_ID_MAX)
            row.begins_seq = original.begins_seq
        self._name_client(row, slot, event)
        self.incoming = slot
        self.incoming_seq = seq
        if old:
            (<Row *>slab_at(&self.rows, old)).changed_seq = seq
            self._bury(old, CANCELED, REASON_REPLACED)
            self._tell_order(old, seq)

    cdef void _canceled(self, const Canceled *event, uint32_t slot, uint64_t seq) noexcept nogil:
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        row.changed_seq = seq
        if event.remaining_lots:
            row.open_lots = event.remaining_lots
            row.quantity_lots = row.done_lots + row.open_lots
        else:
            self._bury(slot, CANCELED, event.reason)
        self._changed(slot, seq)

    cdef void _modified(self, const Modified *event, uint32_t slot, uint64_t seq) noexcept nogil:
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        row.changed_seq = seq
        row.side = event.side
        row.open_lots = event.quantity_lots
        row.quantity_lots = row.done_lots + row.open_lots
        self._changed(slot, seq)

    cdef void _announced(self, const Event *event, uint32_t slot, uint64_t seq) noexcept nogil:
        """An OUCH order begins the new session with what is open of it, as its owner is told."""
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        row.changed_seq = seq
        row.begins_seq = seq
        row.user_ref_num = event.user_ref_num
        row.done_lots = 0
        row.quantity_lots = row.open_lots
        self._changed(slot, seq)

    cdef inline void _fill(self, const Fill *fill, uint64_t seq) noexcept nogil:
        """The taker's side first, as OUCH tells it."""
        cdef uint32_t account = table_find(&self.by_account, fill.taker_account_id)
        if account and seq > self.accounts[account].from_seq:
            self._fill_side(fill, fill.taker_order_id, account, seq, False)
        account = table_find(&self.by_account, fill.maker_account_id)
        if account and seq > self.accounts[account].from_seq:
            self._fill_side(fill, fill.maker_order_id, account, seq, True)

    cdef void _fill_side(self, const Fill *fill, uint64_t order_id, uint32_t account,
                         uint64_t seq, bint maker) noexcept nogil:
        cdef uint32_t slot = table_find(&self.by_id, order_id)
        cdef Row *row = <Row *>slab_at(&self.rows, slot)
        cdef uint32_t own
        if slot == 0 or row.status != OPEN:
            return
        own = self._new_own(row, fill, seq, maker)
        self._add_own(own, account)
        row.changed_seq = seq
        row.done_lots += fill.quantity_lots
        row.open_lots -= min(fill.quantity_lots, row.open_lots)
        if self.accounts[account].watched:
            self._tell_execution(slot, own, seq)
        if row.open_lots == 0:
            self._bury(slot, FILLED, 0)
        self._changed(slot, seq)

    # -- what a watched account is told -------------------------------

    cdef void _changed(self, uint32_t slot, uint64_t seq) noexcept nogil:
        """An order changed: the order of the command at hand is told when the command is over."""
        if slot == self.incoming:
            self.incoming_seq = seq
        else:
            self._tell_order(slot, seq)

    cdef void _settle(self) noexcept nogil:
        """The command is over."""
        cdef uint32_t slot = self.incoming
        self.incoming = 0
        if slot:
            self._tell_order(slot, self.incoming_seq)

    cdef Pending *_next_change(self, Account *account, uint64_t seq) noexcept nogil:
        """Room for a change, or NULL when too many wait: then none is kept."""
        cdef uint32_t capacity = account.change_capacity
        if account.lost:
            return NULL
        if account.change_count >= self.changes_max:
            self._forget_changes(account)
            account.lost = True
            return NULL
        if account.change_count >= capacity:
            capacity = capacity * 2 if capacity else 64
            account.changes = <Pending *>realloc(account.changes, capacity * sizeof(Pending))
            INVARIANT(account.changes != NULL, "out of memory for the ledger")
            account.change_capacity = capacity
        account.change_count += 1
        account.changes[account.change_count - 1].seq = seq
        return &account.changes[account.change_count - 1]

    cdef void _forget_changes(self, Account *account) noexcept nogil:
        cdef uint32_t index
        for index in range(account.change_count):
            self._leave_chain(account.changes[index].row.chain)
        account.change_count = 0

    cdef void _tell_order(self, uint32_t slot, uint64_t seq) noexcept nogil:
        cdef const Row *row = <const Row *>slab_at(&self.rows, slot)
        cdef Account *account = &self.accounts[row.account]
        cdef Pending *change
        if not account.watched:
            return
        change = self._next_change(account, seq)
        if change != NULL:
            change.kind = ORDER_CHANGED
            change.row = row[0]
            (<Chain *>slab_at(&self.chains, row.chain)).rows += 1

    cdef void _tell_execution(self, uint32_t slot, uint32_t own, uint64_t seq) noexcept nogil:
        cdef const Row *row = <const Row *>slab_at(&self.rows, slot)
        cdef Pending *change = self._next_change(&self.accounts[row.account], seq)
        if change != NULL:
            change.kind = EXECUTED
            change.row = row[0]
            change.own = (<Own *>slab_at(&self.owns, own))[0]
            (<Chain *>slab_at(&self.chains, row.chain)).rows += 1

    def watch(self, uint32_t account_id):
        """Note the account's changes from now on, for `take_changes`. KeyError: not active."""
        cdef uint32_t slot = self._active(account_id)
        self._forget_changes(&self.accounts[slot])
        self.accounts[slot].watched = True
        self.accounts[slot].lost = False

    def unwatch(self, uint32_t account_id):
        """Nobody takes the account's changes any more. KeyError: not active."""
        cdef uint32_t slot = self._active(account_id)
        self._forget_changes(&self.accounts[slot])
        self.accounts[slot].watched = False
        self.accounts[slot].lost = False

    def changed(self):
        """Ids of the watched accounts that have changes to take."""
        return [self.accounts[slot].account_id for slot in range(1, self.account_count + 1)
                if self.accounts[slot].change_count or self.accounts[slot].lost]

    def take_changes(self, uint32_t account_id):
        """[(seq, "order" | "execution", row)] since the last call, in order of seq.

        An order's row is its state right after that seq. An order that a command brought is told
        once, when the command is over; a fill's execution comes before the order's row. None when
        more changes waited than are kept: they are in the log. KeyError: not active.
        """
        cdef uint32_t slot = self._active(account_id)
        cdef Account *account = &self.accounts[slot]
        cdef uint32_t index
        cdef Pending *change
        if account.lost:
            account.lost = False
            return None
        taken = []
        for index in range(account.change_count):
            change = &account.changes[index]
            if change.kind == ORDER_CHANGED:
                fills = self._fills(&change.row)
                taken.append((change.seq, "order", self._order_dict(&change.row, fills)))
            else:
                taken.append((change.seq, "execution", self._own_dict(&change.own, &change.row)))
        self._forget_changes(account)
        return taken

    cdef uint32_t _active(self, account_id) except 0:
        cdef uint32_t slot = table_find(&self.by_account, <uint32_t>account_id)
        if slot == 0:
            raise KeyError(f"account {account_id} is not active")
        return slot

    # -- what was before the activation -------------------------------

    def incomplete(self, uint32_t account_id):
        """[(order id, whether fills are missing)] of the live orders whose time is not known:
        those that the account was activated with. KeyError: not active."""
        cdef uint32_t slot = self.accounts[self._active(account_id)].live_first
        cdef const Row *row
        cdef bint missing
        found = []
        while slot:
            row = <const Row *>slab_at(&self.rows, slot)
            if row.time_ns == 0:
                missing = row.done_lots > (<Chain *>slab_at(&self.chains, row.chain)).known_lots
                found.append((row.order_id, missing))
            slot = row.after
        return found

    def set_beginning(self, uint64_t order_id, uint64_t time_ns, uint64_t replaces):
        """When an order was accepted, and what it replaced (0 for nothing): for one that is known
        from the matcher alone."""
        cdef uint32_t slot = table_find(&self.by_id, order_id)
        if slot:
            (<Row *>slab_at(&self.rows, slot)).time_ns = time_ns
            (<Row *>slab_at(&self.rows, slot)).replaces = replaces

    def add_earlier(self, uint32_t account_id, list fills not None):
        """Take fills of the account's orders from before its activation, as `own_fills` gives
        them, in order of their match; once. KeyError: not active."""
        cdef uint32_t account = self._active(account_id)
        cdef uint32_t slot, own
        cdef Fill fill
        cdef Row row
        cdef bint maker
        memset(&fill, 0, sizeof(fill))
        memset(&row, 0, sizeof(row))
        for match, order_id, live_id, time_ns, lots, price, instrument_id, side, maker in fills:
            slot = table_find(&self.by_id, live_id)
            if slot == 0 or (<Row *>slab_at(&self.rows, slot)).account != account \
                    or match > self.accounts[account].from_seq:
                continue
            row.chain = (<Row *>slab_at(&self.rows, slot)).chain
            row.instrument_id = instrument_id
            row.side = side
            fill.taker_order_id = fill.maker_order_id = order_id
            fill.time_ns = time_ns
            fill.quantity_lots = lots
            fill.price_units = price
            own = self._new_own(&row, &fill, match, maker)
            self._add_earlier(own, account)

    # -- questions -------------------------------

    def order(self, uint32_t account_id, uint64_t order_id):
        """One order of the account, or None when it is not kept or not the account's."""
        cdef uint32_t slot = self._own_row(account_id, order_id)
        cdef const Row *row
        if slot == 0:
            return None
        row = <const Row *>slab_at(&self.rows, slot)
        return self._order_dict(row, self._fills(row))

    def by_client_id(self, uint32_t account_id, str client_order_id not None):
        """The newest order of the account that has, or took over, this client id; or None."""
        cdef uint32_t slot
        cdef const Row *row
        text = client_order_id.encode("ascii", "replace")
        slot = table_find(&self.by_client, client_key(account_id, text, len(text)))
        row = <const Row *>slab_at(&self.rows, slot)
        if slot == 0 or self.accounts[row.account].account_id != account_id \
                or row.client_id[:row.client_length] != text:
            return None
        return self._order_dict(row, self._fills(row))

    def handle(self, uint32_t account_id, uint64_t order_id):
        """What a command about the order needs, in wire integers; or None. `source` is where the
        order came from, `live` whether it can still be canceled."""
        cdef uint32_t slot = self._own_row(account_id, order_id)
        cdef const Row *row = <const Row *>slab_at(&self.rows, slot)
        if slot == 0:
            return None
        return {
            "order_id": row.order_id, "instrument_id": row.instrument_id,
            "user_ref_num": row.user_ref_num, "user_ref_idx": row.user_ref_idx,
            "source": row.source, "live": row.status == OPEN, "price_units": row.price_units,
            "quantity_lots": row.quantity_lots, "done_lots": row.done_lots,
            "open_lots": row.open_lots, "post_only": bool(row.post_only),
            "side": chr(row.side), "time_in_force": chr(row.time_in_force),
        }

    def orders(self, uint32_t account_id, live=None, uint16_t instrument_id=0, uint64_t before=0,
               uint32_t limit=100):
        """Orders of the account, newest (highest id) first.

        `live` True or False takes only such; `instrument_id` 0 takes all; `before` takes only ids
        below it (0: all). KeyError: not active.
        """
        cdef const Account *account = &self.accounts[self._active(account_id)]
        cdef bint only_live = live is True
        cdef bint only_dead = live is False
        cdef uint32_t slot = account.live_last if only_live else account.newest
        cdef const Row *row
        found = []
        while slot and <uint32_t>len(found) < limit:
            row = <const Row *>slab_at(&self.rows, slot)
            if (before == 0 or row.order_id < before) \
                    and (instrument_id == 0 or row.instrument_id == instrument_id) \
                    and not (only_dead and row.status == OPEN):
                found.append(self._order_dict(row, self._fills(row)))
            slot = row.before if only_live else row.older
        return found

    def trades(self, uint32_t account_id, uint16_t instrument_id=0, uint64_t before=0,
               uint32_t limit=100):
        """The account's own fills, newest first; `before` takes only match numbers below it.
        KeyError: not active."""
        cdef uint32_t slot = self.accounts[self._active(account_id)].own_newest
        cdef const Own *own
        cdef uint32_t row
        found = []
        while slot and <uint32_t>len(found) < limit:
            own = <const Own *>slab_at(&self.owns, slot)
            if (before == 0 or own.match < before) \
                    and (instrument_id == 0 or own.instrument_id == instrument_id):
                row = table_find(&self.by_id, own.order_id)
                found.append(self._own_dict(
                    own, <const Row *>slab_at(&self.rows, row) if row else NULL))
            slot = own.older
        return found

    cdef uint32_t _own_row(self, uint32_t account_id, uint64_t order_id) noexcept nogil:
        """The row of an order that is the account's, or 0."""
        cdef uint32_t slot = table_find(&self.by_id, order_id)
        cdef const Row *row = <const Row *>slab_at(&self.rows, slot)
        if slot and self.accounts[row.account].account_id == account_id:
            return slot
        return 0

    # -- rows as dictionaries -------------------------------

    cdef str _price(self, uint16_t instrument_id, int64_t price_units):
        return decimal_of(price_units, self.names[instrument_id].price_decimals)

    cdef str _quantity(self, uint16_t instrument_id, uint64_t lots):
        cdef const Names *names = &self.names[instrument_id]
        return decimal_of(lots * <object>names.lot_size if names.known else lots,
                          names.quantity_decimals)

    cdef dict _order_dict(self, const Row *row, list fills):
        """The order with the fields of PROTOCOLS 7; ids are integers."""
        cdef uint16_t instrument_id = row.instrument_id
        cdef bint market = price_is_market(row.price_units)
        order = {
            "order_id": row.order_id,
            "client_order_id": self._client_text(row),
            "symbol": self._symbols.get(instrument_id),
            "side": _SIDES.get(chr(row.side)),
            "order_type": "market" if market else "limit",
            "time_in_force": _TIMES_IN_FORCE.get(chr(row.time_in_force)),
            "price": None if market else self._price(instrument_id, row.price_units),
            "quantity": self._quantity(instrument_id, row.quantity_lots),
            "filled_quantity": self._quantity(instrument_id, row.done_lots),
            "remaining_quantity": self._quantity(instrument_id, row.open_lots),
            "status": self._status(row),
            "fills": fills,
            "time": row.time_ns,
            "reason": self._reason(row),
        }
        if row.replaces:
            order["replaces"] = row.replaces
        return order

    cdef object _client_text(self, const Row *row):
        if row == NULL or row.client_length == 0:
            return None
        return row.client_id[:row.client_length].decode("ascii", "replace")

    cdef str _status(self, const Row *row):
        if row.status == OPEN:
            return "partially_filled" if row.done_lots else "open"
        if row.status == FILLED:
            return "filled"
        return "canceled" if row.status == CANCELED else "rejected"

    cdef object _reason(self, const Row *row):
        """Why it was refused or canceled, None for an order that was not."""
        if row.status == REJECTED:
            return self._reject_codes.get(row.reason, f"reject_{row.reason:04X}")
        if row.status == CANCELED:
            letter = chr(row.reason)
            return self._cancel_codes.get(letter, letter)
        return None

    cdef list _fills(self, const Row *row):
        """The fills of its chain up to what the row knows, oldest first."""
        cdef uint32_t slot = (<Chain *>slab_at(&self.chains, row.chain)).head
        cdef const Own *own
        fills = []
        while slot:
            own = <const Own *>slab_at(&self.owns, slot)
            if own.match > row.changed_seq:
                break
            if own.match > row.begins_seq:
                fills.append({
                    "match": own.match, "price": self._price(own.instrument_id, own.price_units),
                    "quantity": self._quantity(own.instrument_id, own.lots),
                    "liquidity": "maker" if own.maker else "taker",
                })
            slot = own.next
        return fills

    cdef dict _own_dict(self, const Own *own, const Row *row):
        """A fill of the account's own; `row` is its order when that is kept."""
        return {
            "match": own.match,
            "order_id": own.order_id,
            "client_order_id": self._client_text(row),
            "symbol": self._symbols.get(own.instrument_id),
            "side": _SIDES.get(chr(own.side)),
            "price": self._price(own.instrument_id, own.price_units),
            "quantity": self._quantity(own.instrument_id, own.lots),
            "liquidity": "maker" if own.maker else "taker",
            "time": own.time_ns,
        }

    # -- the order that a command brought -------------------------------

    def order_after(self, EventBatch events not None):
        """The order that one command brought, as the command left it: a function of the command's
        events alone, so it is the same for ever. Of a replace it has the fills of this command
        only; a client id that was taken over is looked up here.

        None when the first event brought no order. Of any account, active or not.
        """
        cdef const Event *first = events.units.data
        cdef size_t position = 0
        cdef uint64_t seq = events.first_seq
        cdef const Event *event
        cdef Row row
        if events.units.count == 0 or not brings_order(first):
            return None
        self._first_row(&row, first, events.first_seq)
        fills = []
        while position < events.units.count:
            event = &events.units.data[position]
            if event.kind == EV_FILL and (<const Fill *>event).taker_order_id == row.order_id:
                fills.append(self._taken(<const Fill *>event, seq))
                row.done_lots += event.quantity_lots
                row.open_lots -= event.quantity_lots
                row.status = FILLED if row.open_lots == 0 else OPEN
            elif event.kind == EV_CANCELED and event.order_id == row.order_id:
                row.open_lots = 0
                row.status = CANCELED
                row.reason = (<const Canceled *>event).reason
            position += 1 + <size_t>event.ext_count
            seq += 1
        return self._order_dict(&row, fills)

    cdef void _first_row(self, Row *row, const Event *first, uint64_t seq) noexcept nogil:
        """A row with the terms of a command's first event."""
        cdef const ExtReplace *ext = <const ExtReplace *>find_ext(first, EXT_REPLACE)
        cdef const ExtClientId *client = <const ExtClientId *>find_ext(first, EXT_CLIENT_ID)
        cdef uint32_t slot
        memset(row, 0, sizeof(Row))
        fill_terms(row, first, first.order_id)
        if first.kind == EV_REJECTED:
            row.order_id = seq
            row.open_lots = 0
            row.status = REJECTED
            row.reason = first.order_id & 0xFFFF
        elif ext != NULL:
            row.replaces = ext.orig_order_id
            row.quantity_lots = ext.chain_quantity_lots
            row.done_lots = ext.chain_done_lots
        if client != NULL:
            take_client(row, client)
        slot = table_find(&self.by_id, row.order_id)
        if row.client_length == 0 and slot:
            row.client_length = (<Row *>slab_at(&self.rows, slot)).client_length
            memcpy(row.client_id, (<Row *>slab_at(&self.rows, slot)).client_id, CLIENT_ID_MAX)

    cdef dict _taken(self, const Fill *fill, uint64_t seq):
        return {
            "match": seq, "price": self._price(fill.instrument_id, fill.price_units),
            "quantity": self._quantity(fill.instrument_id, fill.quantity_lots),
            "liquidity": "taker",
        }


# ---- answers ---------------------------------------------------------------------------------

cdef class Answer:
    """What a command was answered with: its first event, and the events that followed from it.

    `kind` is the first event's; `order_id` the order it is about (0 for none); `reason` why it was
    refused (0 for not). `canceled` counts the orders that it took off the book. The rest is what
    the sender put on it: `target_id` (the order meant; of a client id that is known the seq of its
    first answer), actor, key, text.
    """
    cdef readonly uint32_t request_id
    cdef readonly uint64_t seq
    cdef readonly uint64_t last_seq
    cdef readonly uint8_t kind
    cdef readonly uint8_t command
    cdef readonly uint32_t account_id
    cdef readonly uint16_t instrument_id
    cdef readonly uint64_t order_id
    cdef readonly uint32_t reason
    cdef readonly uint64_t time_ns
    cdef readonly uint64_t canceled
    cdef readonly uint64_t target_id
    cdef readonly uint32_t actor_account_id
    cdef readonly str key
    cdef readonly str text
    cdef EventBatch _batch
    cdef size_t _start
    cdef size_t _units

    @property
    def events(self):
        """The command's events, a copy."""
        cdef EventBatch batch = EventBatch()
        batch._append(&self._batch.units.data[self._start], self._units)
        batch.first_seq = self.seq
        batch.event_count = self.last_seq - self.seq + 1
        return batch


cdef Answer make_answer(EventBatch batch, size_t start, uint64_t seq):
    """The answer that begins at this unit of the batch."""
    cdef Answer answer = Answer.__new__(Answer)
    cdef const Event *event = &batch.units.data[start]
    cdef const ExtOrigin *origin = <const ExtOrigin *>find_ext(event, EXT_ORIGIN)
    cdef size_t position = start
    answer._batch = batch
    answer._start = start
    answer.seq = seq
    answer.kind = event.kind
    answer.account_id = event.account_id
    answer.instrument_id = event.instrument_id
    answer.time_ns = event.time_ns
    if event.kind == EV_REJECTED:
        answer.reason = event.order_id & 0xFFFF
        answer.command = event.order_id >> 16 & 0xFF
    elif EV_ACCEPTED <= event.kind <= EV_MODIFIED:
        answer.order_id = event.order_id
    answer.key = answer.text = ""
    if origin != NULL:
        answer.request_id = origin.request_id
        answer.target_id = origin.order_id
        answer.actor_account_id = origin.actor_account_id
        answer.key = text_of(origin.key, sizeof(origin.key))
        answer.text = text_of(origin.reason, sizeof(origin.reason))
    while True:
        if batch.units.data[position].kind == EV_CANCELED \
                and (<const Canceled *>&batch.units.data[position]).remaining_lots == 0:
            answer.canceled += 1
        position += 1 + <size_t>batch.units.data[position].ext_count
        if position >= batch.units.count or starts_command(&batch.units.data[position]):
            break
        seq += 1
    answer.last_seq = seq
    answer._units = position - start
    return answer


cdef str text_of(const char *data, size_t size):
    return data[:size].rstrip(b"\0").decode("utf-8", "replace")


cdef size_t next_answer(const Units *units, size_t position, uint64_t *seq,
                        bint private) noexcept nogil:
    """The next first event of a private command, or halt, from a unit on; units.count for none.
    `seq` is that of the event before, and then that of the event found.

    Looks at every unit's kind and at nothing else, so that no look waits for the one before.
    """
    cdef size_t start = position
    cdef uint8_t kind
    while position < units.count:
        kind = units.data[position].kind
        if kind >= EV_ACCEPTED:
            start = position
            seq[0] += 1
            if kind == EV_INSTRUMENT_HALTED or kind == EV_INSTRUMENT_RESUMED:
                return position
        elif kind == EXT_ORIGIN and private:
            return start
        position += 1
    return position


def answers(EventBatch batch not None, wanted=None):
    """The answers in a batch of whole commands, in order: those whose request id is in `wanted`
    (None: of every private command), and in any case halts and resumptions of instruments.

    With an empty `wanted` a look at each event's kind is all that it costs.
    """
    cdef size_t position = 0
    cdef uint64_t seq = batch.first_seq - 1
    cdef bint private = wanted is None or len(wanted) > 0
    cdef const ExtOrigin *origin
    cdef uint8_t kind
    found = []
    while True:
        with nogil:
            position = next_answer(&batch.units, position, &seq, private)
        if position >= batch.units.count:
            return found
        kind = batch.units.data[position].kind
        origin = <const ExtOrigin *>find_ext(&batch.units.data[position], EXT_ORIGIN)
        if wanted is None or kind == EV_INSTRUMENT_HALTED or kind == EV_INSTRUMENT_RESUMED \
                or (origin != NULL and origin.request_id in wanted):
            found.append(make_answer(batch, position, seq))
        position += 1 + <size_t>batch.units.data[position].ext_count


def answer_at(EventBatch batch not None, uint64_t seq):
    """The answer of the command whose events this seq is among, of any door; None when the batch,
    which has whole commands, has not this seq."""
    cdef size_t position = 0
    cdef size_t start = 0
    cdef uint64_t current = batch.first_seq
    cdef uint64_t first = current
    if seq < batch.first_seq or seq >= batch.first_seq + batch.event_count:
        return None
    while current <= seq:
        if starts_command(&batch.units.data[position]):
            start, first = position, current
        position += 1 + <size_t>batch.units.data[position].ext_count
        current += 1
    return make_answer(batch, start, first)


def last_whole_seq(EventBatch batch not None, uint64_t seq):
    """The highest seq up to `seq` at which a command of this batch of whole commands ends;
    the seq before the batch when there is none."""
    cdef size_t position = 0
    cdef uint64_t current = batch.first_seq
    cdef uint64_t whole = current - 1
    while position < batch.units.count:
        if starts_command(&batch.units.data[position]):
            whole = current - 1
        if current > seq:
            return whole
        position += 1 + <size_t>batch.units.data[position].ext_count
        current += 1
    return current - 1


def trades_of(EventBatch batch not None, uint16_t instrument_id, uint64_t from_seq,
              uint64_t to_seq):
    """The instrument's trades with from_seq < seq <= to_seq, oldest first:
    (match, price_units, lots, taker's side "B" or "S", time_ns, seq), as Tape gives them."""
    cdef size_t position = 0
    cdef uint64_t seq = batch.first_seq
    cdef const Fill *fill
    found = []
    while position < batch.units.count and seq <= to_seq:
        fill = <const Fill *>&batch.units.data[position]
        if fill.kind == EV_FILL and fill.instrument_id == instrument_id and seq > from_seq:
            found.append((seq, fill.price_units, fill.quantity_lots,
                          "B" if side_is_buy(fill.taker_side) else "S", fill.time_ns, seq))
        position += 1 + <size_t>fill.ext_count
        seq += 1
    return found


def own_fills(EventBatch batch not None, uint32_t account_id, dict live_ids not None,
              list found not None):
    """Add fills of the account's orders in a batch to `found`, for `Ledger.add_earlier`.

    `live_ids` leads from an order's id to the live one of its chain (itself, if it was not
    replaced); others are left out. An order that a session roll announces begins anew.
    """
    cdef size_t position = 0
    cdef uint64_t seq = batch.first_seq
    cdef const Event *event
    cdef const Fill *fill
    cdef uint8_t other
    while position < batch.units.count:
        event = &batch.units.data[position]
        fill = <const Fill *>event
        if event.kind == EV_FILL:
            other = c'S' if side_is_buy(fill.taker_side) else c'B'
            if fill.taker_account_id == account_id and fill.taker_order_id in live_ids:
                found.append((seq, fill.taker_order_id, live_ids[fill.taker_order_id],
                              fill.time_ns, fill.quantity_lots, fill.price_units,
                              fill.instrument_id, fill.taker_side, False))
            if fill.maker_account_id == account_id and fill.maker_order_id in live_ids:
                found.append((seq, fill.maker_order_id, live_ids[fill.maker_order_id],
                              fill.time_ns, fill.quantity_lots, fill.price_units,
                              fill.instrument_id, other, True))
        elif event.kind == EV_ANNOUNCED and source_has_stream(event.source) \
                and event.order_id in live_ids:
            live_id = live_ids[event.order_id]
            found[:] = [row for row in found if row[2] != live_id]
        position += 1 + <size_t>event.ext_count
        seq += 1

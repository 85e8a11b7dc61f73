# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The matcher's anchor: a plain array ladder in C that does the least which matching needs.

One array of price levels for each book, addressed by tick, a bitmap of the levels in use on each
side, orders of 32 bytes in one slab whose free list is last in, first out, and an open-addressing
map from UserRefNum to order. It takes the same commands as our matcher, writes one 64-byte report
for each event, and knows limit, IOC, cancel and replace. No accounts, no risk, no sessions, no
event log, prices only inside its window: what our matcher does beyond that is its own cost.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cython_core.event cimport CommandBatch, Event, ExtReplace, Units, units_next
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport *

cdef extern from *:
    int ctzll "__builtin_ctzll"(unsigned long long value) nogil
    int clzll "__builtin_clzll"(unsigned long long value) nogil

cdef enum:
    NONE = 0                # order 0 is never given out

cdef struct Resting:
    uint32_t ref
    uint32_t price          # tick in the window
    uint32_t open_lots
    uint32_t done_lots
    uint32_t before
    uint32_t after
    uint32_t instrument
    uint8_t buy
    uint8_t reserved[3]

cdef struct Slot:
    uint32_t ref
    uint32_t order          # NONE: free

cdef struct Level:
    uint32_t first
    uint32_t last

cdef struct Book:
    Level *levels
    uint64_t *used[2]       # which levels of each side hold orders, and
    uint64_t *words[2]      # which words of that bitmap are not zero
    int64_t best[2]         # -1 or `ticks` when the side is empty


cdef class Ladder:
    """Books over prices `low_units` .. `low_units + ticks * tick_units`."""
    cdef Book *books
    cdef uint32_t book_count
    cdef int64_t low_units, tick_units, ticks
    cdef Resting *orders
    cdef uint32_t free_first, orders_used, orders_max
    cdef Slot *slots
    cdef uint32_t slot_mask
    cdef Units reports
    cdef readonly uint64_t fills
    cdef readonly uint64_t resting

    def __cinit__(self, instruments, low_units, ticks, tick_units=1, orders_max=1 << 20):
        cdef uint32_t index, side
        cdef Book *book
        self.low_units, self.tick_units = low_units, tick_units
        self.ticks = (ticks + 4095) // 4096 * 4096
        self.book_count, self.orders_max = instruments + 1, orders_max
        self.books = <Book *>calloc(self.book_count, sizeof(Book))
        for index in range(self.book_count):
            book = &self.books[index]
            book.levels = <Level *>calloc(self.ticks, sizeof(Level))
            for side in range(2):
                book.used[side] = <uint64_t *>calloc(self.ticks // 64, 8)
                book.words[side] = <uint64_t *>calloc(self.ticks // 4096, 8)
            book.best[0], book.best[1] = self.ticks, -1
        self.orders = <Resting *>calloc(orders_max, sizeof(Resting))
        self.orders_used = 1
        self.slot_mask = 2 * orders_max - 1
        self.slots = <Slot *>calloc(2 * orders_max, sizeof(Slot))
        memset(&self.reports, 0, sizeof(Units))
        if self.slots == NULL or orders_max & (orders_max - 1):
            raise MemoryError("orders_max is a power of two that memory can hold")

    def __dealloc__(self):
        cdef uint32_t index, side
        for index in range(self.book_count):
            free(self.books[index].levels)
            for side in range(2):
                free(self.books[index].used[side])
                free(self.books[index].words[side])
        free(self.books)
        free(self.orders)
        free(self.slots)
        free(self.reports.data)

    def apply(self, CommandBatch batch not None):
        """Match a batch. Returns the reports written; they are overwritten by the next batch."""
        cdef Event *command = batch.units.data
        cdef Event *end = command + batch.units.count
        self.reports.count = 0
        with nogil:
            while command < end:
                self._command(command)
                command += 1 + command.ext_count
        return self.reports.count

    cdef void _command(self, Event *command) noexcept nogil:
        cdef Resting *order
        cdef uint32_t number, done, instrument
        cdef bint buy
        if command.kind == CMD_ENTER:
            self._report(command, EV_ACCEPTED)
            self._enter(command, command.instrument_id, command.side == c'B',
                        command.quantity_lots, 0)
            return
        number = self._find(command.user_ref_num if command.kind == CMD_CANCEL else
                            (<ExtReplace *>(command + 1)).orig_user_ref_num)
        if number == NONE:
            return
        order = &self.orders[number]
        if command.kind == CMD_CANCEL:
            self._report(command, EV_CANCELED)
            self._remove(&self.books[order.instrument], number)
            return
        done, instrument, buy = order.done_lots, order.instrument, order.buy
        self._remove(&self.books[instrument], number)
        self._report(command, EV_REPLACED if command.quantity_lots > done else EV_REPLACE_REFUSED)
        self._report(command + 1, EXT_REPLACE)
        if command.quantity_lots > done:
            self._enter(command, instrument, buy, command.quantity_lots - done, done)
        else:
            self._report(command, EV_CANCELED)

    cdef void _enter(self, Event *command, uint32_t instrument, bint buy, uint64_t open_lots,
                     uint32_t done_lots) noexcept nogil:
        cdef Book *book = &self.books[instrument]
        cdef int64_t price = (command.price_units - self.low_units) // self.tick_units
        cdef int64_t best
        INVARIANT(price >= 0 and price < self.ticks, "price is inside the ladder")
        while open_lots:
            best = book.best[not buy]
            if best < 0 or best >= self.ticks or (best > price if buy else best < price):
                break
            self._fill(command, book, best, &open_lots, &done_lots)
        if open_lots == 0:
            return
        if command.time_in_force == c'3':
            self._report(command, EV_CANCELED)
            return
        self._rest(command.user_ref_num, instrument, <uint32_t>price, buy, <uint32_t>open_lots,
                   done_lots)

    cdef void _fill(self, Event *command, Book *book, int64_t price, uint64_t *open_lots,
                    uint32_t *done_lots) noexcept nogil:
        """Trade with the oldest order of one level."""
        cdef uint32_t number = book.levels[price].first
        cdef Resting *maker = &self.orders[number]
        cdef uint32_t lots = maker.open_lots
        cdef Event *report
        if lots > open_lots[0]:
            lots = <uint32_t>open_lots[0]
        report = self._report(command, EV_FILL)
        report.price_units = self.low_units + price * self.tick_units
        report.quantity_lots = lots
        report.order_id = maker.ref
        self.fills += 1
        open_lots[0] -= lots
        done_lots[0] += lots
        maker.open_lots -= lots
        maker.done_lots += lots
        if maker.open_lots == 0:
            self._remove(book, number)

    cdef void _rest(self, uint32_t ref, uint32_t instrument, uint32_t price, bint buy,
                    uint32_t open_lots, uint32_t done_lots) noexcept nogil:
        cdef Book *book = &self.books[instrument]
        cdef uint32_t number = self.free_first
        cdef Resting *order
        cdef Level *level = &book.levels[price]
        if number != NONE:
            self.free_first = self.orders[number].after
        else:
            INVARIANT(self.orders_used < self.orders_max, "the slab has room")
            number = self.orders_used
            self.orders_used += 1
        order = &self.orders[number]
        order.ref, order.instrument, order.price, order.buy = ref, instrument, price, buy
        order.open_lots, order.done_lots = open_lots, done_lots
        order.before, order.after = level.last, NONE
        if level.last == NONE:
            level.first = number
            self._open_level(book, price, buy)
        else:
            self.orders[level.last].after = number
        level.last = number
        self._put(ref, number)
        self.resting += 1

    cdef void _open_level(self, Book *book, int64_t price, bint buy) noexcept nogil:
        book.used[buy][price >> 6] |= <uint64_t>1 << (price & 63)
        book.words[buy][price >> 12] |= <uint64_t>1 << (price >> 6 & 63)
        if price > book.best[1] if buy else price < book.best[0]:
            book.best[buy] = price

    cdef void _close_level(self, Book *book, int64_t price, bint buy) noexcept nogil:
        book.used[buy][price >> 6] &= ~(<uint64_t>1 << (price & 63))
        if book.used[buy][price >> 6] == 0:
            book.words[buy][price >> 12] &= ~(<uint64_t>1 << (price >> 6 & 63))
        if price == book.best[buy]:
            book.best[buy] = self._below(book, price) if buy else self._above(book, price)

    cdef int64_t _below(self, Book *book, int64_t price) noexcept nogil:
        """The next used bid level under `price`, -1 if there is none."""
        cdef int64_t at = price >> 6
        cdef uint64_t word = book.used[1][at] & ((<uint64_t>1 << (price & 63)) - 1)
        if word:
            return (at << 6) + 63 - clzll(word)
        price = at
        at >>= 6
        word = book.words[1][at] & ((<uint64_t>1 << (price & 63)) - 1)
        while word == 0:
            at -= 1
            if at < 0:
                return -1
            word = book.words[1][at]
        at = (at << 6) + 63 - clzll(word)
        return (at << 6) + 63 - clzll(book.used[1][at])

    cdef int64_t _above(self, Book *book, int64_t price) noexcept nogil:
        """The next used ask level over `price`, `ticks` if there is none."""
        cdef int64_t at = price >> 6
        cdef uint64_t word = book.used[0][at] & ~((<uint64_t>2 << (price & 63)) - 1)
        if word:
            return (at << 6) + ctzll(word)
        price = at
        at >>= 6
        word = book.words[0][at] & ~((<uint64_t>2 << (price & 63)) - 1)
        while word == 0:
            at += 1
            if at >= self.ticks >> 12:
                return self.ticks
            word = book.words[0][at]
        at = (at << 6) + ctzll(word)
        return (at << 6) + ctzll(book.used[0][at])

    cdef void _remove(self, Book *book, uint32_t number) noexcept nogil:
        cdef Resting *order = &self.orders[number]
        cdef Level *level = &book.levels[order.price]
        if order.before != NONE:
            self.orders[order.before].after = order.after
        else:
            level.first = order.after
        if order.after != NONE:
            self.orders[order.after].before = order.before
        else:
            level.last = order.before
        if level.first == NONE:
            self._close_level(book, order.price, order.buy)
        self._forget(order.ref)
        order.after = self.free_first
        self.free_first = number
        self.resting -= 1

    cdef Event *_report(self, Event *command, uint8_t kind) noexcept nogil:
        cdef Event *report = units_next(&self.reports)
        memcpy(report, command, sizeof(Event))
        report.kind = kind
        return report

    # -- the map from UserRefNum to order: linear probing, deletion moves what follows back ---

    cdef uint32_t _home(self, uint32_t ref) noexcept nogil:
        return ref & self.slot_mask  # numbers come in turn, so neighbours stay neighbours

    cdef uint32_t _find(self, uint32_t ref) noexcept nogil:
        cdef uint32_t at = self._home(ref)
        while self.slots[at].order != NONE:
            if self.slots[at].ref == ref:
                return self.slots[at].order
            at = (at + 1) & self.slot_mask
        return NONE

    cdef void _put(self, uint32_t ref, uint32_t number) noexcept nogil:
        cdef uint32_t at = self._home(ref)
        while self.slots[at].order != NONE:
            at = (at + 1) & self.slot_mask
        self.slots[at].ref, self.slots[at].order = ref, number

    cdef void _forget(self, uint32_t ref) noexcept nogil:
        cdef uint32_t hole = self._home(ref)
        cdef uint32_t at
        while self.slots[hole].ref != ref or self.slots[hole].order == NONE:
            hole = (hole + 1) & self.slot_mask
        at = (hole + 1) & self.slot_mask
        while self.slots[at].order != NONE:
            if (at - self._home(self.slots[at].ref) & self.slot_mask) \
                    >= (at - hole & self.slot_mask):
                self.slots[hole] = self.slots[at]
                hole = at
            at = (at + 1) & self.slot_mask
        self.slots[hole].order = NONE

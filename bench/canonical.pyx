# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The flows that the matcher is measured with, made beforehand, from a seed.

Canonical: 50 % new limit orders around a mid that walks at random (distance exponential, side
random, 1 to 100 lots), 40 % cancels of a random live order, 5 % replaces of price or quantity, 5 %
marketable IOC. A matcher of our own runs along while a flow is made, so that a cancel always names
a live order. The other flows are the same mixture in shapes that hurt: many orders on few levels, a
price that swings, a crash, and books so large that every cancel misses the caches.
"""

cimport cython
from libc.math cimport M_PI, log, sin
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from cython_core.event cimport (Canceled, CommandBatch, Event, EventBatch, ExtReplace, Fill)
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport *

from cython_core.matcher import Matcher

ACCOUNT = 1
BATCH_COMMANDS = 512
PRICE_LOW, PRICE_TICKS = 1, 262_143
MID = 100_000

cdef enum:
    NOWHERE = 0xFFFFFFFF
    WALK_EVERY = 200        # operations of a book until its mid moves, on average


cdef class Flow:
    """Makes commands one by one and knows which orders are live."""
    cdef uint64_t seed

    cdef CommandBatch one
    cdef EventBatch events
    cdef uint32_t *live         # numbers of live orders, in no order
    cdef uint32_t *places       # by number: where it is in `live`
    cdef uint32_t *instruments  # by number
    cdef uint32_t live_count, capacity, last_number
    cdef public list batches
    cdef object matcher
    cdef CommandBatch batch

    def __cinit__(self, seed, instruments=1):
        self.seed = seed * 2 + 1
        self.matcher = Matcher()
        self.one = CommandBatch()
        self.events = EventBatch()
        self.batches = []
        self.batch = CommandBatch()
        definitions = self.definitions(instruments)
        self.matcher.apply(definitions, self.events, 0)

    def __dealloc__(self):
        free(self.live)
        free(self.places)
        free(self.instruments)

    @staticmethod
    def definitions(instruments):
        """The batch that must come first: one account, instruments with a tick of 1."""
        batch = CommandBatch()
        batch.define_account(ACCOUNT, "bench")
        for number in range(1, instruments + 1):
            batch.define_instrument(number, f"BENCH-{number}", f"B{number}", 2, 1, 0)
        return batch

    @property
    def resting(self):
        """Live orders now."""
        return self.live_count

    def finish(self):
        """The batches made since the last call."""
        if len(self.batch):
            self.batches.append(self.batch)
        self.batch = CommandBatch()
        batches, self.batches = self.batches, []
        return batches

    cdef uint64_t draw(self) noexcept:
        """64 random bits (splitmix64)."""
        cdef uint64_t value
        self.seed += <uint64_t>0x9E3779B97F4A7C15
        value = self.seed
        value = (value ^ (value >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        value = (value ^ (value >> 27)) * <uint64_t>0x94D049BB133111EB
        return value ^ (value >> 31)

    @cython.cdivision(True)
    cdef uint32_t below(self, uint32_t limit) noexcept:
        return <uint32_t>(self.draw() >> 11) % limit

    cdef double fraction(self) noexcept:
        """In (0, 1]."""
        return ((self.draw() >> 11) + 1) * (1.0 / (<uint64_t>1 << 53))

    cdef int64_t distance(self, double mean) noexcept:
        return <int64_t>(-log(self.fraction()) * mean)

    cdef int grow(self) except -1:
        cdef uint32_t size = self.capacity * 2 if self.capacity else 65536
        self.live = <uint32_t *>realloc(self.live, size * 4)
        self.places = <uint32_t *>realloc(self.places, size * 4)
        self.instruments = <uint32_t *>realloc(self.instruments, size * 4)
        INVARIANT(self.live != NULL and self.places != NULL and self.instruments != NULL,
                  "out of memory for a flow")
        self.capacity = size
        return 0

    cdef void born(self, uint32_t number) noexcept:
        self.places[number] = self.live_count
        self.live[self.live_count] = number
        self.live_count += 1

    cdef void dead(self, uint32_t number) noexcept:
        cdef uint32_t place = self.places[number]
        if place == NOWHERE:
            return
        self.live_count -= 1
        self.live[place] = self.live[self.live_count]
        self.places[self.live[place]] = place
        self.places[number] = NOWHERE

    cdef int add(self, const void *units, size_t count) except -1:
        """Take the command into the flow and see what it does."""
        cdef const Event *event
        cdef size_t position = 0
        if self.batch.command_count == BATCH_COMMANDS:
            self.batches.append(self.batch)
            self.batch = CommandBatch()
        self.batch._append(units, count)
        self.batch.command_count += 1
        self.one.clear()
        self.one._append(units, count)
        self.one.command_count = 1
        self.events.clear()
        self.matcher.apply(self.one, self.events, 0)
        while position < self.events.units.count:
            event = &self.events.units.data[position]
            if event.kind == EV_ACCEPTED:
                self.born(event.user_ref_num)
            elif event.kind == EV_REPLACED:
                self.dead((<const ExtReplace *>(event + 1)).orig_user_ref_num)
                self.born(event.user_ref_num)
            elif event.kind == EV_FILL:
                self.after_fill(<const Fill *>event)
            elif event.kind == EV_CANCELED and (<const Canceled *>event).remaining_lots == 0:
                self.dead(event.user_ref_num)
            position += 1 + event.ext_count
        return 0

    cdef void after_fill(self, const Fill *fill) noexcept:
        if fill.flags & FILL_MAKER_DONE:
            self.dead(fill.maker_user_ref_num)
        if fill.flags & FILL_TAKER_DONE:
            self.dead(fill.taker_user_ref_num)

    cdef uint32_t next_number(self) except? 0:
        self.last_number += 1
        if self.last_number >= self.capacity:
            self.grow()
        self.places[self.last_number] = NOWHERE
        return self.last_number

    cdef int enter(self, uint32_t instrument, bint buy, int64_t price, uint64_t lots,
                   char time_in_force) except -1:
        cdef Event unit
        memset(&unit, 0, sizeof(unit))
        unit.kind = CMD_ENTER
        unit.instrument_id = instrument
        unit.account_id = ACCOUNT
        unit.price_units = min(max(price, PRICE_LOW + 1), PRICE_TICKS - 1)
        unit.quantity_lots = lots
        unit.user_ref_num = self.next_number()
        unit.side = c'B' if buy else c'S'
        unit.time_in_force = time_in_force
        unit.source = SOURCE_TCP
        memset(unit.client_order, c' ', 14)
        self.instruments[unit.user_ref_num] = instrument
        return self.add(&unit, 1)

    cdef int cancel(self) except -1:
        cdef Event unit
        memset(&unit, 0, sizeof(unit))
        unit.kind = CMD_CANCEL
        unit.account_id = ACCOUNT
        unit.user_ref_num = self.live[self.below(self.live_count)]
        unit.source = SOURCE_TCP
        return self.add(&unit, 1)

    cdef int replace(self, int64_t price, uint64_t lots) except -1:
        """A live order gets a price and a size; its side stays."""
        cdef Event units[2]
        cdef ExtReplace *ext = <ExtReplace *>&units[1]
        cdef uint32_t original = self.live[self.below(self.live_count)]
        memset(units, 0, sizeof(units))
        units[0].kind = CMD_REPLACE
        units[0].ext_count = 1
        units[0].account_id = ACCOUNT
        units[0].price_units = price
        units[0].quantity_lots = lots
        units[0].user_ref_num = self.next_number()
        units[0].time_in_force = c'0'
        units[0].source = SOURCE_TCP
        memset(units[0].client_order, c' ', 14)
        ext.kind = EXT_REPLACE
        ext.orig_user_ref_num = original
        ext.chain_quantity_lots = lots
        self.instruments[units[0].user_ref_num] = self.instruments[original]
        return self.add(units, 2)

    cdef int mixed(self, uint32_t instrument, int64_t mid, double mean) except -1:
        """One operation of the canonical mixture."""
        cdef uint32_t kind = self.below(100)
        cdef bint buy = self.draw() & 1
        cdef int64_t away = self.distance(mean) + 1
        if kind < 50 or self.live_count == 0:
            return self.enter(instrument, buy, mid - away if buy else mid + away,
                              1 + self.below(100), c'0')
        if kind < 90:
            return self.cancel()
        if kind < 95:
            return self.replace(mid - away if buy else mid + away, 1 + self.below(100))
        return self.enter(instrument, buy, mid + 200 if buy else mid - 200, 1 + self.below(100),
                          c'3')

    def fill(self, uint32_t orders, double mean, uint32_t instruments=1):
        """New orders around the mid until so many rest."""
        cdef bint buy
        cdef int64_t away
        while self.live_count < orders:
            buy = self.draw() & 1
            away = self.distance(mean) + 1
            self.enter(1 + self.below(instruments), buy, MID - away if buy else MID + away,
                       1 + self.below(100), c'0')

    def canonical(self, uint64_t operations, uint32_t instruments, double mean):
        """The canonical flow over some books, each with a mid of its own."""
        cdef uint32_t instrument
        cdef list mids = [MID] * (instruments + 1)
        for _ in range(operations):
            instrument = 1 + self.below(instruments)
            if self.below(WALK_EVERY) == 0:
                mids[instrument] += 1 if self.draw() & 1 else -1
            self.mixed(instrument, mids[instrument], mean)

    def quiet(self, uint64_t operations, uint32_t orders):
        """A book of many orders on 60 levels: hardly a price moves."""
        cdef bint buy
        cdef uint32_t kind
        for _ in range(operations):
            kind = self.below(100)
            buy = self.draw() & 1
            if kind < 2:
                self.enter(1, buy, MID + 2 if buy else MID - 2, 1 + self.below(100), c'3')
            elif self.live_count > orders:
                self.cancel()
            else:
                self.enter(1, buy, MID - 1 - self.below(30) if buy else MID + 1 + self.below(30),
                           1 + self.below(100), c'0')

    def swing(self, uint64_t operations, double share, uint32_t cycles, double mean):
        """The mid goes up and down by a share of itself, in a sine."""
        cdef uint64_t index
        cdef int64_t mid
        for index in range(operations):
            mid = MID + <int64_t>(MID * share * sin(2 * M_PI * cycles * index / operations))
            self.mixed(1, mid, mean)

    def crash(self, uint64_t operations, uint32_t crashes, double mean):
        """Now and then the mid falls by a third in a hundredth of the time, and comes back."""
        cdef uint64_t index
        cdef uint64_t period = operations // crashes
        cdef uint64_t fall = period // 100
        cdef int64_t mid
        cdef double at
        for index in range(operations):
            at = index % period - period * 0.5
            mid = MID
            if at >= 0 and at < fall:
                mid = MID - <int64_t>(MID / 3 * (at / fall))
            elif at >= fall and at < 10 * fall:
                mid = MID - <int64_t>(MID / 3 * (1 - (at - fall) / (9 * fall)))
            self.mixed(1, mid, mean)

    def cold(self, uint64_t operations):
        """Cancel a random order, add one, and so on."""
        cdef bint buy
        cdef int64_t away
        for _ in range(operations // 2):
            self.cancel()
            buy = self.draw() & 1
            away = self.distance(2000) + 1
            self.enter(1, buy, MID - away if buy else MID + away, 1 + self.below(100), c'0')

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Trades, candles and 24-hour tickers of all instruments, from committed events alone.

A batch is walked for its fills; everything else is passed over. A match number is the seq of its
fill. Candles exist only where something traded. Rings grow as they fill, up to what is to be kept.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from zlib import crc32

from cython_core.event cimport *
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport *

from cython_core.errors import CoreError

cdef enum:
    INSTRUMENTS = 65536
    INTERVALS = 5
    MINUTES = 1                 # place of the one-minute candles
    TAKE_MAX = 1 << 20
    RING_MIN = 16
    SAVE_VERSION = 1
    # A day, and the minute that has only begun.
    CANDLES_MIN = 1441

INTERVALS_S = (1, 60, 300, 3600, 86400)

cdef uint64_t SECOND_NS = 1000000000
cdef uint64_t DAY_NS = 86400 * SECOND_NS
cdef uint64_t[INTERVALS] _interval_ns = [
    SECOND_NS, 60 * SECOND_NS, 300 * SECOND_NS, 3600 * SECOND_NS, 86400 * SECOND_NS]
cdef char *MAGIC = b"MTCHTAPE"

cdef struct Trade:
    uint64_t match
    uint64_t lots
    uint64_t time_ns
    int64_t price_units
    uint64_t side               # the taker's: B or S

cdef struct Candle:
    uint64_t open_ns
    uint64_t lots
    uint64_t trades
    int64_t open
    int64_t high
    int64_t low
    int64_t close

# The newest `kept` of everything put in. Until it is full its items lie in order from 0.
cdef struct Ring:
    uint8_t *items
    uint32_t size
    uint32_t kept
    uint32_t capacity
    uint32_t next               # where the next one goes
    uint32_t count

cdef struct Market:
    uint16_t instrument_id
    bint dirty
    bint taking
    bint taking_lost
    Ring trades
    Ring candles[INTERVALS]
    uint64_t candle_end_ns[INTERVALS]
    Trade *taken
    size_t taken_count
    size_t taken_capacity

cdef struct SavedHead:
    char magic[8]
    uint32_t version
    uint32_t checksum           # CRC32 of all that follows this field
    uint64_t applied_seq
    uint32_t trades_kept
    uint32_t candles_kept
    uint32_t markets
    uint32_t reserved

cdef struct SavedMarket:
    uint32_t instrument_id
    uint32_t trades
    uint32_t candles[INTERVALS]
    uint32_t reserved


# ---- rings ----------------------------------------------------------------------------------

cdef void *ring_next(Ring *ring) noexcept nogil:
    """Room for the next item, in place of the oldest when the ring is full."""
    cdef uint32_t place
    if ring.next == ring.capacity and ring.capacity < ring.kept:
        ring.capacity = min(ring.capacity * 2, ring.kept) if ring.capacity else \
            min(<uint32_t>RING_MIN, ring.kept)
        ring.items = <uint8_t *>realloc(ring.items, <size_t>ring.capacity * ring.size)
        INVARIANT(ring.items != NULL, "out of memory for trades and candles")
    if ring.next == ring.kept:
        ring.next = 0
    place = ring.next
    ring.next += 1
    ring.count = min(ring.count + 1, ring.kept)
    return ring.items + <size_t>place * ring.size


cdef inline void *ring_item(const Ring *ring, uint32_t back) noexcept nogil:
    """The item that `back` newer ones came after; below `count`."""
    cdef uint32_t place = ring.next + (ring.kept if ring.next <= back else 0) - 1 - back
    return ring.items + <size_t>place * ring.size


cdef void ring_init(Ring *ring, uint32_t size, uint32_t kept) noexcept nogil:
    memset(ring, 0, sizeof(Ring))
    ring.size = size
    ring.kept = kept


# ---- a fill ---------------------------------------------------------------------------------

cdef void count_trade(Market *market, const Trade *trade) noexcept nogil:
    """Take a trade into the candles."""
    cdef uint32_t place
    cdef Candle *candle
    for place in range(<uint32_t>INTERVALS):
        if trade.time_ns < market.candle_end_ns[place]:
            candle = <Candle *>ring_item(&market.candles[place], 0)
            candle.lots += trade.lots
            candle.trades += 1
            candle.high = max(candle.high, trade.price_units)
            candle.low = min(candle.low, trade.price_units)
            candle.close = trade.price_units
            continue
        candle = <Candle *>ring_next(&market.candles[place])
        candle.open_ns = trade.time_ns - trade.time_ns % _interval_ns[place]
        candle.lots = trade.lots
        candle.trades = 1
        candle.open = trade.price_units
        candle.high = trade.price_units
        candle.low = trade.price_units
        candle.close = trade.price_units
        market.candle_end_ns[place] = candle.open_ns + _interval_ns[place]


cdef void keep_taken(Market *market, const Trade *trade) noexcept nogil:
    """Keep a trade for the one who takes them all."""
    cdef size_t capacity
    if market.taken_count == market.taken_capacity:
        if market.taken_count >= TAKE_MAX:
            market.taking_lost = True
            return
        capacity = market.taken_capacity * 2 if market.taken_capacity else RING_MIN
        market.taken = <Trade *>realloc(market.taken, capacity * sizeof(Trade))
        INVARIANT(market.taken != NULL, "out of memory for trades")
        market.taken_capacity = capacity
    market.taken[market.taken_count] = trade[0]
    market.taken_count += 1


cdef tuple trade_tuple(const Trade *trade):
    return (trade.match, trade.price_units, trade.lots, chr(trade.side), trade.time_ns,
            trade.match)


cdef tuple candle_tuple(const Candle *candle):
    return (candle.open_ns, candle.open, candle.high, candle.low, candle.close, candle.lots,
            candle.trades)


# ---- Python ---------------------------------------------------------------------------------

cdef class Tape:
    """What traded, by instrument: the newest trades, candles of five lengths, a day's ticker.

    Prices are wire units, quantities lots, times nanoseconds since 1970 UTC. At least 1,441 candles
    of each length are kept, so that a day of minutes is there. An instrument that never traded has
    no trades and no candles. One owner at a time; not safe for two threads at once.
    """

    cdef Market **markets
    cdef uint32_t *_touched
    cdef uint32_t touched_count
    cdef uint64_t _applied_seq
    cdef uint32_t trades_kept
    cdef uint32_t candles_kept

    def __cinit__(self, *_args, **_names):
        self.markets = <Market **>calloc(INSTRUMENTS, sizeof(Market *))
        self._touched = <uint32_t *>calloc(INSTRUMENTS, sizeof(uint32_t))
        if self.markets == NULL or self._touched == NULL:
            raise MemoryError

    def __init__(self, applied_seq=0, trades_kept=1000, candles_kept=1500):
        self._applied_seq = applied_seq
        self.trades_kept = max(trades_kept, 1)
        self.candles_kept = max(candles_kept, CANDLES_MIN)

    def __dealloc__(self):
        cdef uint32_t number, place
        if self.markets != NULL:
            for number in range(<uint32_t>INSTRUMENTS):
                if self.markets[number] != NULL:
                    free(self.markets[number].trades.items)
                    for place in range(<uint32_t>INTERVALS):
                        free(self.markets[number].candles[place].items)
                    free(self.markets[number].taken)
                    free(self.markets[number])
        free(self.markets)
        free(self._touched)

    @property
    def applied_seq(self):
        """The seq of the last event taken."""
        return self._applied_seq

    cdef Market *_market(self, uint32_t number) noexcept nogil:
        """The entry of an instrument, made when it is new."""
        cdef Market *market = self.markets[number]
        cdef uint32_t place
        if market == NULL:
            market = <Market *>calloc(1, sizeof(Market))
            INVARIANT(market != NULL, "out of memory for an instrument's trades")
            market.instrument_id = <uint16_t>number
            ring_init(&market.trades, sizeof(Trade), self.trades_kept)
            for place in range(<uint32_t>INTERVALS):
                ring_init(&market.candles[place], sizeof(Candle), self.candles_kept)
            self.markets[number] = market
        return market

    def apply(self, EventBatch batch not None):
        """Take committed events, in order. What was taken before is left out. Raises CoreError for
        a gap.
        """
        cdef uint64_t end = batch.first_seq + batch.event_count
        if batch.event_count == 0 or end <= self._applied_seq + 1:
            return
        if batch.first_seq > self._applied_seq + 1:
            raise CoreError(f"events begin at {batch.first_seq}, the tape is at "
                            f"{self._applied_seq}")
        with nogil:
            self._scan(batch.units.data, batch.units.count, batch.first_seq)
        self._applied_seq = end - 1

    cdef void _scan(self, const Event *events, size_t units, uint64_t first_seq) noexcept nogil:
        """Find the fills. Extension units have kinds below those of events and don't count."""
        cdef uint64_t seq = first_seq - 1
        cdef size_t position
        for position in range(units):
            seq += events[position].kind >= EV_ACCEPTED
            if events[position].kind == EV_FILL and seq > self._applied_seq:
                self._fill(<const Fill *>&events[position], seq)

    cdef void _fill(self, const Fill *fill, uint64_t seq) noexcept nogil:
        cdef Market *market = self._market(fill.instrument_id)
        cdef Trade trade
        trade.match = seq
        trade.lots = fill.quantity_lots
        trade.time_ns = fill.time_ns
        trade.price_units = fill.price_units
        trade.side = c'B' if fill.taker_side == c'B' else c'S'
        memcpy(ring_next(&market.trades), &trade, sizeof(Trade))
        count_trade(market, &trade)
        if market.taking:
            keep_taken(market, &trade)
        if not market.dirty:
            market.dirty = True
            self._touched[self.touched_count] = market.instrument_id
            self.touched_count += 1

    def touched(self):
        """The instruments that traded since the last call."""
        cdef uint32_t index
        ids = [self._touched[index] for index in range(self.touched_count)]
        for number in ids:
            self.markets[<uint16_t>number].dirty = False
        self.touched_count = 0
        return ids

    def trades(self, instrument_id, limit):
        """The newest trades, the last one last: (match, price_units, lots, taker side, time_ns,
        seq).
        """
        cdef const Market *market = self.markets[<uint16_t>instrument_id]
        cdef uint32_t back, count
        if market == NULL:
            return []
        count = min(market.trades.count, limit)
        return [trade_tuple(<const Trade *>ring_item(&market.trades, count - 1 - back))
                for back in range(count)]

    def take_trades(self, instrument_id):
        """Every trade since the last call, as `trades` gives them. The first call begins: it gives
        none. Raises CoreError when they were too many to keep.
        """
        cdef Market *market = self._market(<uint16_t>instrument_id)
        cdef size_t index
        market.taking = True
        if market.taking_lost:
            market.taking_lost = False
            market.taken_count = 0
            raise CoreError(f"more than {TAKE_MAX} trades were not taken")
        taken = [trade_tuple(&market.taken[index]) for index in range(market.taken_count)]
        market.taken_count = 0
        return taken

    def leave_trades(self, instrument_id):
        """Keep no more trades for `take_trades`, until it is called again."""
        cdef Market *market = self._market(<uint16_t>instrument_id)
        free(market.taken)
        market.taken = NULL
        market.taken_count = 0
        market.taken_capacity = 0
        market.taking = False
        market.taking_lost = False

    cdef Ring *_candles(self, instrument_id, interval_s) except NULL:
        if interval_s not in INTERVALS_S:
            raise ValueError(f"there are no candles of {interval_s} s, only of {INTERVALS_S}")
        return &self._market(<uint16_t>instrument_id).candles[
            <uint32_t>INTERVALS_S.index(interval_s)]

    def candles(self, instrument_id, interval_s, limit):
        """The newest candles, the last one last: (open_time_ns, open, high, low, close, lots,
        trades). Intervals without a trade have none. Raises ValueError for other intervals than
        INTERVALS_S.
        """
        cdef Ring *ring = self._candles(instrument_id, interval_s)
        cdef uint32_t back, count
        count = min(ring.count, limit)
        return [candle_tuple(<const Candle *>ring_item(ring, count - 1 - back))
                for back in range(count)]

    def candle(self, instrument_id, interval_s):
        """The newest candle, over or not, or None before the first trade."""
        cdef Ring *ring = self._candles(instrument_id, interval_s)
        return candle_tuple(<const Candle *>ring_item(ring, 0)) if ring.count else None

    def ticker(self, instrument_id, now_ns):
        """(open, high, low, last, lots, trades) of the 24 hours before `now_ns`, or None when
        nothing traded. Exact to the minute: the minute that is only partly 24 hours ago is left
        out.
        """
        cdef const Market *market = self.markets[<uint16_t>instrument_id]
        cdef uint64_t now = now_ns
        cdef uint64_t since = now - DAY_NS if now > DAY_NS else 0
        cdef Candle total
        cdef const Candle *candle
        cdef uint32_t back
        if market == NULL:
            return None
        memset(&total, 0, sizeof(Candle))
        for back in range(market.candles[MINUTES].count):
            candle = <const Candle *>ring_item(&market.candles[MINUTES], back)
            if candle.open_ns < since:
                break
            if total.trades == 0:
                total = candle[0]
                continue
            total.open = candle.open
            total.high = max(total.high, candle.high)
            total.low = min(total.low, candle.low)
            total.lots += candle.lots
            total.trades += candle.trades
        if total.trades == 0:
            return None
        return total.open, total.high, total.low, total.close, total.lots, total.trades

    # ---- a checkpoint

    def save(self):
        """All of it as bytes that `load` takes. What was not yet taken or touched is left out."""
        cdef SavedHead head
        cdef uint32_t number
        body = []
        memset(&head, 0, sizeof(head))
        for number in range(<uint32_t>INSTRUMENTS):
            if self.markets[number] != NULL and self.markets[number].trades.count:
                body.append(saved_market(self.markets[number]))
                head.markets += 1
        memcpy(head.magic, MAGIC, 8)
        head.version = SAVE_VERSION
        head.applied_seq = self._applied_seq
        head.trades_kept = self.trades_kept
        head.candles_kept = self.candles_kept
        rest = (<char *>&head.applied_seq)[:sizeof(head) - 16] + b"".join(body)
        head.checksum = crc32(rest)
        return (<char *>&head)[:16] + rest

    @staticmethod
    def load(data):
        """A tape from what `save` gave. Raises CoreError for anything else."""
        cdef const unsigned char[::1] view = data
        cdef SavedHead head
        cdef Tape tape
        cdef Py_ssize_t at = sizeof(SavedHead)
        cdef uint32_t _
        if view.shape[0] < <Py_ssize_t>sizeof(SavedHead):
            raise CoreError("a saved tape is cut short")
        memcpy(&head, &view[0], sizeof(SavedHead))
        if head.magic[:8] != MAGIC[:8] or head.version != SAVE_VERSION:
            raise CoreError("this is no saved tape of this version")
        if crc32(view[16:]) != head.checksum:
            raise CoreError("the checksum of a saved tape is wrong")
        tape = Tape(head.applied_seq, head.trades_kept, head.candles_kept)
        for _ in range(head.markets):
            at = tape._load_market(view, at)
        if at != view.shape[0]:
            raise CoreError("a saved tape goes on behind its end")
        return tape

    cdef Py_ssize_t _load_market(self, const unsigned char[::1] view,
                                 Py_ssize_t at) except -1:
        """Read one instrument; returns where the next one begins."""
        cdef SavedMarket saved
        cdef Market *market
        cdef uint32_t place
        if view.shape[0] - at < <Py_ssize_t>sizeof(SavedMarket):
            raise CoreError("a saved tape is cut short")
        memcpy(&saved, &view[at], sizeof(SavedMarket))
        at += sizeof(SavedMarket)
        if saved.instrument_id >= INSTRUMENTS:
            raise CoreError("a saved tape names an instrument that can't be")
        market = self._market(saved.instrument_id)
        at = load_ring(&market.trades, saved.trades, view, at)
        for place in range(<uint32_t>INTERVALS):
            at = load_ring(&market.candles[place], saved.candles[place], view, at)
            if saved.candles[place]:
                market.candle_end_ns[place] = _interval_ns[place] + (
                    <const Candle *>ring_item(&market.candles[place], 0)).open_ns
        return at


cdef bytes saved_ring(const Ring *ring):
    """The items of a ring, oldest first."""
    cdef size_t first = <size_t>(ring.next if ring.count == ring.kept else 0)
    if ring.count == 0:
        return b""
    return ((<char *>ring.items)[first * ring.size:<size_t>ring.count * ring.size]
            + (<char *>ring.items)[:first * ring.size])


cdef bytes saved_market(const Market *market):
    cdef SavedMarket saved
    cdef uint32_t place
    memset(&saved, 0, sizeof(saved))
    saved.instrument_id = market.instrument_id
    saved.trades = market.trades.count
    parts = [saved_ring(&market.trades)]
    for place in range(<uint32_t>INTERVALS):
        saved.candles[place] = market.candles[place].count
        parts.append(saved_ring(&market.candles[place]))
    return (<char *>&saved)[:sizeof(saved)] + b"".join(parts)


cdef Py_ssize_t load_ring(Ring *ring, uint32_t count, const unsigned char[::1] view,
                          Py_ssize_t at) except -1:
    """Fill an empty ring; returns where to read on."""
    cdef uint32_t _
    if count > ring.kept or view.shape[0] - at < <Py_ssize_t>count * ring.size:
        raise CoreError("a saved tape is cut short")
    for _ in range(count):
        memcpy(ring_next(ring), &view[at], ring.size)
        at += ring.size
    return at

# One account as the load generator sees it: which orders it has out, which rest, what must come
# next. Every answer is checked against that, so an engine that answers wrongly can't look fast.
#
# Orders live in a ring indexed by UserRefNum & mask. A number whose place is still taken is
# skipped (numbers only have to increase), so the ring stays as small as what is alive.
#
#   FREE -> SENT -> LIVE -> CANCELING -> FREE       a resting order, and its cancel
#           SENT -> TAKER -> FREE                   an IOC, filled or canceled at once
#   a fill of all that is open frees an order in any state after SENT
#
# Over TCP answers come in the order of the requests. Datagrams overtake each other: there an
# answer may come to any order that is out, and `window` says how far numbers may lie apart.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from bench.histogram cimport Buckets, record
from bench.wire cimport *

cdef enum:
    FREE = 0
    SENT = 1
    LIVE = 2
    CANCELING = 3
    TAKER = 4
    DRIFT_MAX_TICKS = 500

cdef struct Order:
    uint64_t sent_ns        # intended send time of the message that is out now
    uint32_t ref
    uint32_t open_lots
    uint32_t price
    uint32_t place          # in Trader.live
    uint16_t instrument
    uint8_t state
    uint8_t side
    uint32_t reserved

# What orders look like: prices around a mid that walks, some of them marketable.
cdef struct Market:
    uint64_t random
    uint32_t instruments
    char *symbols           # 8 bytes each
    int32_t *drift_ticks    # of each instrument's mid
    uint32_t base_price
    uint32_t tick
    uint32_t depth_ticks    # scale of the distance from the mid, roughly exponential
    uint32_t taker_share    # marketable IOC orders of 1024

cdef struct Tally:
    uint64_t orders         # answered
    uint64_t cancels        # answered
    uint64_t cancels_void   # the order was filled first: no answer is due
    uint64_t fills
    uint64_t taker_lots
    uint64_t maker_lots
    uint64_t taker_notional
    uint64_t maker_notional
    uint64_t taker_matches  # sum of match numbers, both sides must agree
    uint64_t maker_matches

cdef struct Trader:
    Order *orders
    uint32_t *live          # UserRefNums of resting orders, in no order
    uint32_t *waiting       # UserRefNums in the order sent, from the oldest unanswered on
    uint32_t mask
    uint32_t live_count
    uint32_t waiting_head
    uint32_t waiting_tail
    uint32_t next_ref
    uint32_t unanswered     # orders
    uint32_t cancels_out
    uint32_t window         # no number is sent so far before an unanswered one; 0: answers in turn
    bint closing            # a mass cancel is out and not answered
    bint closed             # it was answered: unasked cancels are right
    uint64_t sequenced      # messages numbered by the server so far
    const char *error
    uint64_t error_ref

cdef inline uint64_t next_random(Market *market) noexcept nogil:
    """xorshift64*: enough for a flow, and the same on every machine."""
    cdef uint64_t x = market.random
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    market.random = x
    return x * <uint64_t>2685821657736338717

cdef inline uint32_t orders_out(const Trader *trader) noexcept nogil:
    return trader.unanswered

cdef inline uint32_t free_ref(const Trader *trader) noexcept nogil:
    """The next number whose place in the ring is free."""
    cdef uint32_t ref = trader.next_ref
    while trader.orders[ref & trader.mask].state != FREE:
        ref += 1
    return ref

cdef inline bint in_window(const Trader *trader) noexcept nogil:
    """Whether the next order's number keeps the oldest unanswered one within reach."""
    if trader.window == 0 or trader.waiting_head == trader.waiting_tail:
        return True
    return free_ref(trader) - trader.waiting[trader.waiting_head & trader.mask] < trader.window

cdef inline bint has_room(const Trader *trader) noexcept nogil:
    """Whether the ring may take another order: it is kept at most half full."""
    return orders_out(trader) + trader.live_count + trader.cancels_out <= trader.mask >> 1

cdef inline size_t fail(Trader *trader, const char *error, uint64_t ref) noexcept nogil:
    if trader.error == NULL:
        trader.error = error
        trader.error_ref = ref
    return 0

cdef inline uint32_t limit_price(Market *market, uint16_t instrument, bint buy, bint taker,
                                 uint64_t random) noexcept nogil:
    cdef int64 distance
    cdef int32_t *drift = &market.drift_ticks[instrument]
    if (random & 63) == 0:
        drift[0] += 1 if random & 64 else -1
        drift[0] = min(max(drift[0], -DRIFT_MAX_TICKS), DRIFT_MAX_TICKS)
    if taker:
        distance = -4 * <int64>market.depth_ticks
    else:
        distance = 1 + <int64>market.depth_ticks * ctzll(random | <uint64_t>1 << 40)
        distance += (random >> 41) % market.depth_ticks
    if buy:
        distance = -distance
    return <uint32_t>(market.base_price + (drift[0] + distance) * <int64>market.tick)

cdef extern from *:
    ctypedef long long int64 "long long"
    int ctzll "__builtin_ctzll"(unsigned long long value) nogil

cdef inline size_t write_order(Trader *trader, Market *market, char *packet, uint64_t now_ns,
                               bint may_take) noexcept nogil:
    """Put the next new order into `packet`; the caller has asked has_room. Returns its bytes."""
    cdef uint64_t random = next_random(market)
    cdef bint buy = random >> 63
    cdef bint taker = may_take and (random >> 32 & 1023) < market.taker_share
    cdef uint32_t ref = free_ref(trader)
    cdef Order *order
    trader.next_ref = ref + 1
    order = &trader.orders[ref & trader.mask]
    order.sent_ns = now_ns
    order.ref = ref
    order.open_lots = 1 + (random >> 44) % 100
    order.state = SENT
    order.side = c'B' if buy else c'S'
    random = next_random(market)
    order.instrument = <uint16_t>((random >> 48) * market.instruments >> 16)
    order.price = limit_price(market, order.instrument, buy, taker, random)
    order.place = taker
    trader.waiting[trader.waiting_tail & trader.mask] = ref
    trader.waiting_tail += 1
    trader.unanswered += 1
    put_enter(packet, ref, order.side, order.open_lots, market.symbols + 8 * order.instrument,
              order.price, c'3' if taker else c'0')
    return ENTER_BYTES

cdef inline void drop_live(Trader *trader, Order *order) noexcept nogil:
    trader.live_count -= 1
    trader.live[order.place] = trader.live[trader.live_count]
    trader.orders[trader.live[order.place] & trader.mask].place = order.place

cdef inline size_t write_cancel(Trader *trader, Market *market, char *packet,
                                uint64_t now_ns) noexcept nogil:
    """Put the cancel of a random resting order into `packet`; there is one. Returns its bytes."""
    cdef uint64_t pick = (next_random(market) >> 32) * trader.live_count >> 32
    cdef Order *order = &trader.orders[trader.live[pick] & trader.mask]
    drop_live(trader, order)
    order.state = CANCELING
    order.sent_ns = now_ns
    trader.cancels_out += 1
    put_cancel(packet, order.ref)
    return CANCEL_BYTES

cdef inline Order *known(Trader *trader, uint32_t ref) noexcept nogil:
    """The order of that number, NULL when it is not alive."""
    cdef Order *order = &trader.orders[ref & trader.mask]
    return NULL if order.state == FREE or order.ref != ref else order

cdef inline bint is_waiting(Trader *trader, uint32_t ref) noexcept nogil:
    cdef Order *order = known(trader, ref)
    return order != NULL and order.state == SENT

cdef inline void on_answered(Trader *trader, Order *order) noexcept nogil:
    """An order that waits was accepted."""
    if order.place:
        order.state = TAKER
    else:
        order.state = LIVE
        order.place = trader.live_count
        trader.live[trader.live_count] = order.ref
        trader.live_count += 1
    trader.unanswered -= 1
    while trader.waiting_head != trader.waiting_tail and \
            not is_waiting(trader, trader.waiting[trader.waiting_head & trader.mask]):
        trader.waiting_head += 1

cdef inline size_t on_accepted(Trader *trader, Market *market, Tally *tally, Buckets *buckets,
                               const char *packet, uint64_t now_ns) noexcept nogil:
    cdef uint32_t ref = get32(packet + ANSWER_REF)
    cdef Order *order = known(trader, ref)
    if not trader.window and (orders_out(trader) == 0
                              or trader.waiting[trader.waiting_head & trader.mask] != ref):
        return fail(trader, "accepted out of turn", ref)
    if order == NULL or order.state != SENT:
        return fail(trader, "accepted what is not out", ref)
    if get32(packet + ACCEPTED_QUANTITY) != order.open_lots:
        return fail(trader, "accepted with another quantity", ref)
    if get64(packet + ACCEPTED_PRICE) != order.price:
        return fail(trader, "accepted with another price", ref)
    if memcmp(packet + ACCEPTED_SYMBOL, market.symbols + 8 * order.instrument, 8):
        return fail(trader, "accepted with another symbol", ref)
    record(buckets, now_ns - order.sent_ns)
    tally.orders += 1
    on_answered(trader, order)
    return ACCEPTED_BYTES

cdef inline size_t on_canceled(Trader *trader, Tally *tally, Buckets *buckets,
                               const char *packet, uint64_t now_ns) noexcept nogil:
    cdef uint32_t ref = get32(packet + ANSWER_REF)
    cdef Order *order = known(trader, ref)
    cdef uint8_t reason = packet[CANCELED_REASON]
    if order == NULL or order.state == SENT:
        return fail(trader, "canceled what is not alive", ref)
    if get32(packet + CANCELED_QUANTITY) != order.open_lots:
        return fail(trader, "canceled another quantity than was open", ref)
    if order.state == TAKER and reason == c'I':
        pass
    elif order.state == CANCELING and reason == c'U':
        record(buckets, now_ns - order.sent_ns)
        tally.cancels += 1
        trader.cancels_out -= 1
    elif order.state == LIVE and reason == c'U' and trader.closed:
        drop_live(trader, order)
    else:
        return fail(trader, "canceled for the wrong reason", ref)
    order.state = FREE
    return CANCELED_BYTES

cdef inline size_t on_executed(Trader *trader, Tally *tally,
                               const char *packet) noexcept nogil:
    cdef uint32_t ref = get32(packet + ANSWER_REF)
    cdef Order *order = known(trader, ref)
    cdef uint32_t lots = get32(packet + EXECUTED_QUANTITY)
    cdef uint64_t price = get64(packet + EXECUTED_PRICE)
    cdef uint8_t liquidity = packet[EXECUTED_LIQUIDITY]
    if order == NULL or order.state == SENT:
        return fail(trader, "executed what is not alive", ref)
    if lots == 0 or lots > order.open_lots:
        return fail(trader, "executed more than was open", ref)
    if price > order.price if order.side == c'B' else price < order.price:
        return fail(trader, "executed beyond the limit", ref)
    tally.fills += 1
    if liquidity == c'R':
        tally.taker_lots += lots
        tally.taker_notional += lots * price
        tally.taker_matches += get64(packet + EXECUTED_MATCH)
    elif liquidity == c'A' and order.state != TAKER:
        tally.maker_lots += lots
        tally.maker_notional += lots * price
        tally.maker_matches += get64(packet + EXECUTED_MATCH)
    else:
        return fail(trader, "executed with the wrong liquidity flag", ref)
    order.open_lots -= lots
    if order.open_lots == 0:
        on_filled(trader, tally, order)
    return EXECUTED_BYTES

cdef inline void on_filled(Trader *trader, Tally *tally, Order *order) noexcept nogil:
    if order.state == LIVE:
        drop_live(trader, order)
    elif order.state == CANCELING:
        trader.cancels_out -= 1
        tally.cancels_void += 1
    order.state = FREE

cdef inline size_t on_echo(Trader *trader, Tally *tally, Buckets *buckets, const char *packet,
                           uint64_t now_ns) noexcept nogil:
    """Our own message came back from an echo server: take it for its answer."""
    cdef uint32_t ref = get32(packet + ENTER_REF)
    cdef Order *order = known(trader, ref)
    cdef bint entered = packet[ANSWER_TYPE] == c'O'
    if order == NULL or order.state != (SENT if entered else CANCELING):
        # What was sent again over UDP comes back twice.
        if trader.window:
            return ENTER_BYTES if entered else CANCEL_BYTES
        return fail(trader, "echo of what was not sent", ref)
    record(buckets, now_ns - order.sent_ns)
    if entered:
        tally.orders += 1
        on_answered(trader, order)
        return ENTER_BYTES
    tally.cancels += 1
    trader.cancels_out -= 1
    order.state = FREE
    return CANCEL_BYTES

cdef inline size_t on_sequenced(Trader *trader, Market *market, Tally *tally, Buckets *buckets,
                                const char *packet, size_t length,
                                uint64_t now_ns) noexcept nogil:
    """One answer of the venue, in a packet of so many bytes or at its place in one. Returns its
    bytes as this generator knows them, 0 when wrong."""
    cdef uint8_t kind = packet[ANSWER_TYPE]
    trader.sequenced += 1
    if kind == c'A':
        return on_accepted(trader, market, tally, buckets, packet, now_ns)
    if kind == c'C':
        return on_canceled(trader, tally, buckets, packet, now_ns)
    if kind == c'E':
        return on_executed(trader, tally, packet)
    if kind == c'X' and trader.closing:
        trader.closing, trader.closed = False, True
        return length
    if kind == c'Q' and trader.window:
        # The login's query, said twice or repeated on the way.
        return length
    return fail(trader, "an answer that nothing asked for", kind)

cdef inline size_t read_packets(Trader *trader, Market *market, Tally *tally, Buckets *buckets,
                                const char *data, size_t size, uint64_t now_ns) noexcept nogil:
    """Take every complete packet in `data`; returns the bytes taken."""
    cdef size_t at = 0
    cdef size_t length, understood
    while size - at >= 3:
        length = 2 + get16(data + at)
        if size - at < length:
            break
        if data[at + 2] == c'S':
            understood = on_sequenced(trader, market, tally, buckets, data + at, length, now_ns)
        elif data[at + 2] == c'U':
            understood = on_echo(trader, tally, buckets, data + at, now_ns)
        elif data[at + 2] == c'H':
            understood = length
        else:
            understood = fail(trader, "a packet that nothing asked for", data[at + 2])
        if understood != length:
            fail(trader, "an answer of the wrong length", length)
            break
        at += length
    return at

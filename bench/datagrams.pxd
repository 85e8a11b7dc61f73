# What a connection of the load generator over UDP has beside its trader (PROTOCOLS 3.2): datagrams
# that wait to be sent together, messages that may have to be sent again, the place in the venue's
# stream of numbered messages, and packets that came before their turn.
#
# A request that is unanswered for `resend_ns` is sent again under its own number, as often as it
# takes. A hole in the numbers is asked for at once and every `ask_ns` after. A heartbeat, or a
# packet whose predecessor is missing, tells of the hole.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from bench.net cimport *
from bench.trader cimport *
from bench.wire cimport *

cdef enum:
    BATCH = 64                      # datagrams in one call of the kernel
    SLOT_BYTES = 9216               # no datagram is larger
    HELD_MAX = 128                  # packets that wait for an earlier one
    SENT_MAX = 1 << 16              # messages that are watched for their answers
    WINDOW = 1024                   # PROTOCOLS 3.2: how far numbers may lie apart
    MOLD_BYTES = 20
    END_OF_SESSION = 0xFFFF
    ASK_MAX = 0xFFFE
    SPEAK_NS = 1_000_000_000        # a client that has nothing to say says so once a second
    DEBUG_BYTES = 256

# What a message that is out was.
cdef enum:
    ORDER = 0
    CANCEL = 1
    MASS_CANCEL = 2

cdef struct Sent:
    uint64_t at_ns
    uint32_t ref
    uint32_t kind

cdef struct Held:
    uint64_t number                 # of its first message
    size_t size                     # 0: nothing is held here
    char *data

cdef struct Counts:
    uint64_t datagrams_out
    uint64_t datagrams_in
    uint64_t resent                 # messages
    uint64_t asked                  # gap requests
    uint64_t early                  # packets that came before their turn
    uint64_t repeated               # packets with nothing new

cdef struct Datagrams:
    mmsghdr in_heads[BATCH]
    iovec in_parts[BATCH]
    char *in_data
    mmsghdr out_heads[BATCH]
    iovec out_parts[BATCH]
    char *out_data
    uint32_t out_first              # the first one that the kernel has not taken
    uint32_t out_count
    uint32_t out_messages           # in the last one; it takes no more when it has `per_datagram`
    uint32_t datagram_bytes
    uint32_t per_datagram
    char session[10]
    bint echo
    uint64_t expected               # number of the next message
    uint64_t told                   # the venue's next number, as far as it said
    Held held[HELD_MAX]
    uint32_t held_count
    Sent *sent                      # a ring in the order of sending
    uint32_t sent_head
    uint32_t sent_tail
    uint64_t resend_ns
    uint64_t ask_ns
    uint64_t asked_at_ns
    uint64_t spoke_at_ns
    Counts counts
    char debug[DEBUG_BYTES]         # the venue's last words

cdef inline void set_up(Datagrams *udp) noexcept nogil:
    """Point every head at its part of the buffers, which are there."""
    cdef int index
    for index in range(BATCH):
        udp.in_parts[index].iov_base = udp.in_data + index * <size_t>SLOT_BYTES
        udp.in_parts[index].iov_len = SLOT_BYTES
        udp.in_heads[index].msg_hdr.msg_iov = &udp.in_parts[index]
        udp.in_heads[index].msg_hdr.msg_iovlen = 1
        udp.out_parts[index].iov_base = udp.out_data + index * <size_t>SLOT_BYTES
        udp.out_heads[index].msg_hdr.msg_iov = &udp.out_parts[index]
        udp.out_heads[index].msg_hdr.msg_iovlen = 1

cdef inline Datagrams *new_datagrams(uint32_t datagram_bytes, uint32_t per_datagram,
                                     uint64_t resend_ns, uint64_t ask_ns,
                                     bint echo) noexcept nogil:
    """NULL when there is no memory for it."""
    cdef Datagrams *udp = <Datagrams *>calloc(1, sizeof(Datagrams))
    cdef int index
    if udp == NULL:
        return NULL
    udp.datagram_bytes, udp.per_datagram, udp.echo = datagram_bytes, per_datagram, echo
    udp.resend_ns, udp.ask_ns = resend_ns, ask_ns
    # Pages that nothing is ever written to cost nothing.
    udp.in_data = <char *>malloc(BATCH * <size_t>SLOT_BYTES)
    udp.out_data = <char *>malloc(BATCH * <size_t>SLOT_BYTES)
    udp.sent = <Sent *>malloc(SENT_MAX * sizeof(Sent))
    udp.held[0].data = <char *>malloc(HELD_MAX * <size_t>SLOT_BYTES)
    if udp.in_data == NULL or udp.out_data == NULL or udp.sent == NULL \
            or udp.held[0].data == NULL:
        free_datagrams(udp)
        return NULL
    for index in range(HELD_MAX):
        udp.held[index].data = udp.held[0].data + index * <size_t>SLOT_BYTES
    set_up(udp)
    return udp

cdef inline void free_datagrams(Datagrams *udp) noexcept nogil:
    if udp == NULL:
        return
    free(udp.in_data)
    free(udp.out_data)
    free(udp.sent)
    free(udp.held[0].data)
    free(udp)

# -- out ---------------------------------------------------------------------------------------

cdef inline bint has_datagrams(const Datagrams *udp) noexcept nogil:
    """Whether an order and a cancel can still be put out, each in a datagram of its own."""
    return udp.out_count + 2 <= BATCH and udp.sent_tail - udp.sent_head + 2 <= SENT_MAX

cdef inline char *own_datagram(Datagrams *udp, size_t size, uint32_t messages) noexcept nogil:
    """Room for `size` bytes in a new datagram, which counts as one of so many messages. NULL when
    every datagram is full."""
    cdef iovec *part
    if udp.out_count >= BATCH:
        return NULL
    part = &udp.out_parts[udp.out_count]
    udp.out_count += 1
    udp.out_messages = messages
    part.iov_len = size
    return <char *>part.iov_base

cdef inline char *datagram_room(Datagrams *udp, size_t size) noexcept nogil:
    """Room for a message at the end of the last datagram, or in a new one; else NULL."""
    cdef iovec *part
    if udp.out_count and udp.out_messages < udp.per_datagram:
        part = &udp.out_parts[udp.out_count - 1]
        if part.iov_len + size <= udp.datagram_bytes:
            udp.out_messages += 1
            part.iov_len += size
            return <char *>part.iov_base + part.iov_len - size
    return own_datagram(udp, size, 1)

cdef inline void watch(Datagrams *udp, uint32_t kind, uint32_t ref, uint64_t now) noexcept nogil:
    """A message that needs an answer goes out now."""
    cdef Sent *sent = &udp.sent[udp.sent_tail & (SENT_MAX - 1)]
    sent.at_ns, sent.ref, sent.kind = now, ref, kind
    udp.sent_tail += 1

cdef inline bint is_out(Trader *trader, const Sent *sent) noexcept nogil:
    """Whether a message still waits for its answer."""
    cdef Order *order
    if sent.kind == MASS_CANCEL:
        return trader.closing
    order = known(trader, sent.ref)
    return order != NULL and order.state == (SENT if sent.kind == ORDER else CANCELING)

cdef inline void put_mass_cancel(char *packet, uint32_t ref) noexcept nogil:
    memcpy(packet, b"\x00\x14UC", 4)
    put32(packet + 4, ref)
    memcpy(packet + 8, b"            \x00\x00", 14)

cdef inline bint send_again(Datagrams *udp, Trader *trader, Market *market, const Sent *sent,
                            uint64_t now) noexcept nogil:
    """The same message under the same number. False when there is no room for it now."""
    cdef Order *order = known(trader, sent.ref)
    cdef char *packet
    if sent.kind == MASS_CANCEL:
        packet = datagram_room(udp, MASS_CANCEL_BYTES)
        if packet != NULL:
            put_mass_cancel(packet, sent.ref)
    elif sent.kind == CANCEL:
        packet = datagram_room(udp, CANCEL_BYTES)
        if packet != NULL:
            put_cancel(packet, sent.ref)
    else:
        packet = datagram_room(udp, ENTER_BYTES)
        if packet != NULL:
            put_enter(packet, order.ref, order.side, order.open_lots,
                      market.symbols + 8 * order.instrument, order.price,
                      c'3' if order.place else c'0')
    if packet == NULL:
        return False
    udp.counts.resent += 1
    watch(udp, sent.kind, sent.ref, now)
    return True

cdef inline void ask(Datagrams *udp, uint64_t count, uint64_t now) noexcept nogil:
    """Ask for `count` messages from the next number on."""
    cdef char *request = own_datagram(udp, MOLD_BYTES, udp.per_datagram)
    if request == NULL:
        return
    memcpy(request, udp.session, 10)
    put64(request + 10, udp.expected)
    put16(request + 18, <uint16_t>min(count, <uint64_t>ASK_MAX))
    udp.asked_at_ns = now
    udp.counts.asked += 1

cdef inline uint64_t hole(const Datagrams *udp) noexcept nogil:
    """How many messages are missing before the next one that is here; 0: none."""
    cdef uint64_t upto = udp.told
    cdef int index
    for index in range(HELD_MAX if udp.held_count else 0):
        if udp.held[index].size and udp.held[index].number < upto:
            upto = udp.held[index].number
    return upto - udp.expected if upto > udp.expected else 0

cdef inline void tend(Datagrams *udp, Trader *trader, Market *market, uint64_t now) noexcept nogil:
    """Send again what is unanswered for too long, ask for what is missing, break the silence."""
    cdef Sent *sent
    cdef bint late = False
    cdef uint64_t missing
    cdef char *packet
    while udp.sent_head != udp.sent_tail:
        sent = &udp.sent[udp.sent_head & (SENT_MAX - 1)]
        if is_out(trader, sent):
            if now - sent.at_ns < udp.resend_ns or udp.out_count == BATCH \
                    or not send_again(udp, trader, market, sent, now):
                break
            late = True
        udp.sent_head += 1
    if udp.echo:
        return
    missing = hole(udp)
    # What is late may have been answered: then the answer is what was lost.
    if (missing or late) and now - udp.asked_at_ns >= udp.ask_ns:
        ask(udp, missing or ASK_MAX, now)
    if now - udp.spoke_at_ns >= SPEAK_NS and udp.out_count == 0:
        packet = own_datagram(udp, 3, udp.per_datagram)
        memcpy(packet, b"\x00\x01R", 3)

# -- in ----------------------------------------------------------------------------------------

cdef inline void take_messages(Datagrams *udp, Trader *trader, Market *market, Tally *tally,
                               Buckets *buckets, const char *data, size_t size,
                               uint64_t now) noexcept nogil:
    """A packet whose first message is not beyond the next number: take what is new of it."""
    cdef uint64_t number = get64(data + 10)
    cdef uint32_t left = get16(data + 18)
    cdef size_t at = MOLD_BYTES
    cdef size_t length
    while left and size - at >= 2:
        length = get16(data + at)
        if length == 0 or size - at - 2 < length:
            break
        if number == udp.expected:
            # Offsets count from the start of a SoupBinTCP packet: a byte before this length.
            if on_sequenced(trader, market, tally, buckets, data + at - 1, length + 3,
                            now) != length + 3:
                fail(trader, "an answer of the wrong length", length)
                return
            udp.expected += 1
        number += 1
        left -= 1
        at += 2 + length
    if left or at != size:
        fail(trader, "a packet whose messages do not fill it", size)

cdef inline void hold(Datagrams *udp, const char *data, size_t size) noexcept nogil:
    """Keep a packet for its turn; without room it will be asked for."""
    cdef uint64_t number = get64(data + 10)
    cdef Held *room = NULL
    cdef int index
    udp.counts.early += 1
    for index in range(HELD_MAX):
        if udp.held[index].size == 0:
            room = &udp.held[index]
        elif udp.held[index].number == number:
            return
    if room != NULL:
        memcpy(room.data, data, size)
        room.number, room.size = number, size
        udp.held_count += 1

cdef inline Held *next_held(Datagrams *udp) noexcept nogil:
    """A packet whose turn has come, NULL when there is none."""
    cdef int index
    for index in range(HELD_MAX if udp.held_count else 0):
        if udp.held[index].size and udp.held[index].number <= udp.expected:
            return &udp.held[index]
    return NULL

cdef inline void take_packet(Datagrams *udp, Trader *trader, Market *market, Tally *tally,
                             Buckets *buckets, const char *data, size_t size,
                             uint64_t now) noexcept nogil:
    """A MoldUDP64 packet of the venue."""
    cdef uint64_t number
    cdef uint32_t count
    cdef Held *held
    if size < MOLD_BYTES or memcmp(data, udp.session, 10):
        fail(trader, "a packet of another session", size)
        return
    number, count = get64(data + 10), get16(data + 18)
    if count == END_OF_SESSION:
        fail(trader, "the session ended", number)
        return
    udp.told = max(udp.told, number + count)
    if count == 0:
        return
    if number > udp.expected:
        hold(udp, data, size)
        return
    if number + count <= udp.expected:
        udp.counts.repeated += 1
    take_messages(udp, trader, market, tally, buckets, data, size, now)
    held = next_held(udp)
    while held != NULL and trader.error == NULL:
        take_messages(udp, trader, market, tally, buckets, held.data, held.size, now)
        held.size = 0
        udp.held_count -= 1
        held = next_held(udp)

cdef inline void take_datagram(Datagrams *udp, Trader *trader, Market *market, Tally *tally,
                               Buckets *buckets, const char *data, size_t size,
                               uint64_t now) noexcept nogil:
    """Whatever came: the first byte tells."""
    udp.counts.datagrams_in += 1
    if size and <uint8_t>data[0] >= 0x20:
        take_packet(udp, trader, market, tally, buckets, data, size, now)
    elif size >= 3 and data[2] == c'+':
        memset(udp.debug, 0, DEBUG_BYTES)
        memcpy(udp.debug, data + 3, min(size - 3, <size_t>DEBUG_BYTES - 1))
        fail(trader, udp.debug, 0)
    elif size >= 3 and data[2] == c'A' and not udp.echo:
        # The login was said twice, so it is answered twice.
        return
    elif not udp.echo or read_packets(trader, market, tally, buckets, data, size, now) != size:
        fail(trader, "a datagram that nothing asked for", size)

cdef inline bint receive_batch(Datagrams *udp, int fd, Trader *trader, Market *market,
                               Tally *tally, Buckets *buckets) noexcept nogil:
    """Read what is there in one call, and check it. False when nothing was there."""
    cdef int got = recvmmsg(fd, udp.in_heads, BATCH, MSG_DONTWAIT, NULL)
    cdef uint64_t now
    cdef int index
    if got <= 0:
        if errno != EAGAIN and errno != EINTR:
            fail(trader, "the server's port is closed", errno)
        return False
    now = clock_ns()
    for index in range(got):
        if udp.in_heads[index].msg_hdr.msg_flags & MSG_TRUNC:
            fail(trader, "a datagram larger than any should be", SLOT_BYTES)
        elif trader.error == NULL:
            take_datagram(udp, trader, market, tally, buckets,
                          <char *>udp.in_parts[index].iov_base, udp.in_heads[index].msg_len, now)
    if udp.told > udp.expected and now - udp.asked_at_ns >= udp.ask_ns and not udp.echo:
        ask(udp, hole(udp), now)
    return True

cdef inline bint send_batch(Datagrams *udp, int fd, Trader *trader) noexcept nogil:
    """Send what is put out in one call. False when the kernel has no room for all of it."""
    cdef int sent
    while udp.out_first < udp.out_count:
        sent = sendmmsg(fd, udp.out_heads + udp.out_first, udp.out_count - udp.out_first,
                        MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                fail(trader, "the server's port is closed", errno)
            return False
        udp.out_first += sent
        udp.counts.datagrams_out += sent
    if udp.out_count:
        udp.spoke_at_ns = clock_ns()
    udp.out_first = udp.out_count = 0
    return True

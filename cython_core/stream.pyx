# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The numbered message streams of the accounts: a pure function of the event log.

Every event of an OUCH order makes at most two messages, and the same event makes the same bytes
for ever (PROTOCOLS 2.4), whether it was committed a moment ago (`Streams.route`) or is read again
from the log for a client that comes back (`encode_account`). A message's number is its place in
the account's stream since the session began, so counting without encoding gives it too.

    accepted A · rejected J · replaced U · canceled C · modified M · fill E to the taker, then E to
    the maker · mass canceled X · entry disabled G, enabled K · account queried Q · announced A

Wire symbols come from the events that define instruments; who starts in the middle of a log gives
the table (`WireNames`) what was defined before. An instrument's wire symbol never changes.

cdivision: the only division is of unsigned time by a constant.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from cython_core.event cimport (AccountAction, Canceled, EventBatch, ExtInstrument, ExtOptions,
                                ExtReplace, Fill)
from cython_core.invariant cimport INVARIANT
from cython_core.model cimport *
from cython_core.wire cimport *

cdef extern from *:
    """
    #define MATCHD_DAY_NS 86400000000000ull
    """
    const uint64_t DAY_NS "MATCHD_DAY_NS"
    int lowest_bit "__builtin_ctz"(unsigned int value) noexcept nogil

cdef enum:
    # Tags that the answers repeat, beyond 12 and 28 which have a rule of their own.
    ECHO_ACCEPTED = (1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10
                     | 1 << 11 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 24
                     | 1 << 25 | 1 << 29 | 1 << 30)
    ECHO_REPLACED = (1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 29
                     | 1 << 30)
    TAG_POST_ONLY = 1 << 12
    TAG_GROUP = 1 << 24
    TAG_SIDE = 1 << 27
    TAG_INDEX = 1 << 28

cdef const char *DISPLAY_LETTERS = b"YNAZ"
cdef const char *CAPACITY_LETTERS = b"APRO"
cdef const char *CROSS_LETTERS = b"NOCHSREA"


# -- one message ---------------------------------------------------------------------------------

cdef inline uint32_t _clamp(uint64_t lots) noexcept nogil:
    return UINT32_MAX if lots > UINT32_MAX else <uint32_t>lots


cdef inline const char *_symbol(const Names *names, uint16_t instrument_id) noexcept nogil:
    if instrument_id >= names.ids:
        return b"        "
    return names.symbols + 8 * instrument_id


cdef inline uint8_t *_start(uint8_t *out, uint8_t letter, uint64_t time_ns,
                            uint32_t user_ref_num) noexcept nogil:
    cdef uint8_t *message = out + FRAME_BYTES
    message[0] = letter
    put64(message + 1, time_ns % DAY_NS)
    put32(message + 9, user_ref_num)
    return message


cdef inline size_t _frame(uint8_t *out, size_t length) noexcept nogil:
    put_frame(out, length, c'S')
    return FRAME_BYTES + length


# The end of a message whose appendage is always there and holds at most UserRefIdx.
cdef inline size_t _end_required(uint8_t *out, size_t fixed, uint8_t index) noexcept nogil:
    cdef uint8_t *message = out + FRAME_BYTES
    if index == 0:
        put16(message + fixed, 0)
        return _frame(out, fixed + 2)
    return _end_optional(out, fixed, index)


# The end of a message that has no appendage unless the order uses a UserRefIdx.
cdef inline size_t _end_optional(uint8_t *out, size_t fixed, uint8_t index) noexcept nogil:
    cdef uint8_t *message = out + FRAME_BYTES
    if index == 0:
        return _frame(out, fixed)
    put16(message + fixed, 3)
    message[fixed + 2] = 2
    message[fixed + 3] = 28
    message[fixed + 4] = index
    return _frame(out, fixed + 5)


cdef inline size_t _executed(const Fill *fill, uint64_t seq, bint maker,
                             uint8_t *out) noexcept nogil:
    cdef uint8_t *message = _start(
        out, c'E', fill.time_ns, fill.maker_user_ref_num if maker else fill.taker_user_ref_num)
    put32(message + 13, _clamp(fill.quantity_lots))
    put64(message + 17, fill.price_units)
    message[25] = c'A' if maker else c'R'
    put64(message + 26, seq)
    return _end_required(
        out, 34, fill.maker_user_ref_idx if maker else fill.taker_user_ref_idx)


cdef inline size_t _accepted(const Names *names, const Event *event, uint8_t *out) noexcept nogil:
    cdef uint8_t *message = _start(out, c'A', event.time_ns, event.user_ref_num)
    message[13] = event.side
    put32(message + 14, _clamp(event.quantity_lots))
    _terms(names, event, message + 18)
    return _end_terms(event, out, 62, ECHO_ACCEPTED)


cdef inline size_t _replaced(const Names *names, const Event *event, uint8_t *out) noexcept nogil:
    cdef const ExtReplace *replace = <const ExtReplace *>_extension(event, EXT_REPLACE)
    cdef uint8_t *message = _start(
        out, c'U', event.time_ns, replace.orig_user_ref_num if replace != NULL else 0)
    put32(message + 13, event.user_ref_num)
    message[17] = event.side
    put32(message + 18, _clamp(event.quantity_lots))
    _terms(names, event, message + 22)
    return _end_terms(event, out, 66, ECHO_REPLACED)


# What Accepted and Replaced have in common: 44 bytes from the symbol to the client's text.
cdef inline void _terms(const Names *names, const Event *event, uint8_t *at) noexcept nogil:
    memcpy(at, _symbol(names, event.instrument_id), 8)
    put64(at + 8, event.price_units)
    at[16] = event.time_in_force
    at[17] = DISPLAY_LETTERS[event.attributes & 3]
    put64(at + 18, event.order_id)
    at[26] = CAPACITY_LETTERS[event.attributes >> ATTR_CAPACITY_SHIFT & 3]
    at[27] = c'Y' if event.attributes >> ATTR_ISO_SHIFT & 1 else c'N'
    at[28] = CROSS_LETTERS[event.attributes >> ATTR_CROSS_SHIFT & 7]
    at[29] = c'L'
    memcpy(at + 30, event.client_order, 14)


cdef inline size_t _end_terms(const Event *event, uint8_t *out, size_t fixed,
                              uint32_t echoed) noexcept nogil:
    cdef const ExtOptions *options
    cdef uint32_t tags
    if event.ext_count == 0 and not event.flags & (FLAG_POST_ONLY | FLAG_POST_ONLY_SET):
        return _end_required(out, fixed, event.user_ref_idx)
    options = <const ExtOptions *>_extension(event, EXT_OPTIONS)
    tags = options.present & echoed if options != NULL else 0
    if event.flags & (FLAG_POST_ONLY | FLAG_POST_ONLY_SET):
        tags |= TAG_POST_ONLY
    if event.user_ref_idx:
        tags |= TAG_INDEX
    return _end_tags(event, options, tags, out, fixed)


cdef const Event *_extension(const Event *event, uint8_t kind) noexcept nogil:
    cdef size_t index
    for index in range(1, event.ext_count + <size_t>1):
        if event[index].kind == kind:
            return &event[index]
    return NULL


# Writes the appendage length and the tags, ascending.
cdef size_t _end_tags(const Event *event, const ExtOptions *options, uint32_t tags,
                      uint8_t *out, size_t fixed) noexcept nogil:
    cdef uint8_t *message = out + FRAME_BYTES
    cdef size_t position = fixed + 2
    cdef size_t width
    cdef int tag
    while tags:
        tag = lowest_bit(tags)
        tags &= tags - 1
        width = _put_value(event, options, tag, message + position + 2)
        message[position] = 1 + width
        message[position + 1] = tag
        position += 2 + width
    put16(message + fixed, position - fixed - 2)
    return _frame(out, position)


# The value of a tag in its width. Tags that are served in their neutral value only have it here.
cdef size_t _put_value(const Event *event, const ExtOptions *options, int tag,
                       uint8_t *at) noexcept nogil:
    if tag == 12:
        at[0] = c'P' if event.flags & FLAG_POST_ONLY else c'N'
    elif tag == 28:
        at[0] = event.user_ref_idx
    elif tag == 4:
        at[0] = options.customer_type
    elif tag == 6:
        at[0] = options.price_type
    elif tag == 10:
        at[0] = options.discretion_price_type
    elif tag == 16:
        at[0] = options.trade_now
    elif tag == 17:
        at[0] = options.handle_inst
    elif tag == 25:
        at[0] = options.shares_located
    elif tag == 29:
        at[0] = options.aiq_strategy
    else:
        return _put_wide_value(options, tag, at)
    return 1


cdef size_t _put_wide_value(const ExtOptions *options, int tag, uint8_t *at) noexcept nogil:
    if tag == 24:
        put16(at, options.group_id)
        return 2
    if tag == 30:
        memcpy(at, options.aiq_group, 2)
        return 2
    if tag == 9:
        put64(at, options.discretion_price_units)
        return 8
    if tag == 2:
        memcpy(at, options.firm, 4)
    elif tag == 3:
        put32(at, _clamp(options.min_quantity_lots))
    elif tag == 5:
        put32(at, _clamp(options.display_quantity_lots))
    elif tag == 7:
        put32(at, <uint32_t>options.peg_offset_units)
    elif tag == 13:
        put32(at, options.random_reserves)
    elif tag == 14:
        memset(at, c' ', 4)
    elif tag == 15:
        put32(at, options.expire_time_s)
    else:
        put32(at, 0)
    return 4


cdef size_t _rejected(const Event *event, uint8_t *out) noexcept nogil:
    cdef uint8_t *message = _start(out, c'J', event.time_ns, event.user_ref_num)
    cdef uint64_t command = event.order_id >> 16 & 0xFF
    put16(message + 13, event.order_id & 0xFFFF)
    if command == CMD_ENTER or command == CMD_REPLACE:
        memcpy(message + 15, event.client_order, 14)
    else:
        memset(message + 15, c' ', 14)
    return _end_optional(out, 29, event.user_ref_idx)


cdef size_t _mass_canceled(const AccountAction *action, uint8_t *out) noexcept nogil:
    cdef uint8_t *message = _start(out, c'X', action.time_ns, action.user_ref_num)
    cdef uint8_t *tags = message + 27
    memcpy(message + 13, action.firm, 4)
    memcpy(message + 17, action.symbol, 8)
    if action.attributes & 1:
        tags[0] = 3
        tags[1] = 24
        put16(tags + 2, action.group_id)
        tags += 4
    if action.side:
        tags[0] = 2
        tags[1] = 27
        tags[2] = action.side
        tags += 3
    if action.user_ref_idx:
        tags[0] = 2
        tags[1] = 28
        tags[2] = action.user_ref_idx
        tags += 3
    put16(message + 25, tags - message - 27)
    return _frame(out, tags - message)


cdef size_t _order_entry(const AccountAction *action, uint8_t *out) noexcept nogil:
    cdef uint8_t letter = c'G' if action.kind == EV_ENTRY_DISABLED else c'K'
    cdef uint8_t *message = _start(out, letter, action.time_ns, action.user_ref_num)
    memcpy(message + 13, action.firm, 4)
    return _end_required(out, 17, action.user_ref_idx)


cdef size_t write_message(const Names *names, const Event *event, uint64_t seq, bint maker,
                          uint8_t *out) noexcept nogil:
    cdef uint8_t kind = event.kind
    cdef uint8_t *message
    if kind == EV_FILL:
        return _executed(<const Fill *>event, seq, maker, out)
    if kind == EV_ACCEPTED or kind == EV_ANNOUNCED:
        return _accepted(names, event, out)
    if kind == EV_CANCELED:
        message = _start(out, c'C', event.time_ns, event.user_ref_num)
        put32(message + 13, _clamp(event.quantity_lots))
        message[17] = (<const Canceled *>event).reason
        return _end_optional(out, 18, event.user_ref_idx)
    if kind == EV_REPLACED:
        return _replaced(names, event, out)
    if kind == EV_REJECTED:
        return _rejected(event, out)
    if kind == EV_MODIFIED:
        message = _start(out, c'M', event.time_ns, event.user_ref_num)
        message[13] = event.side
        put32(message + 14, _clamp(event.quantity_lots))
        return _end_optional(out, 18, event.user_ref_idx)
    if kind == EV_MASS_CANCELED:
        return _mass_canceled(<const AccountAction *>event, out)
    if kind == EV_ACCOUNT_QUERIED:
        _start(out, c'Q', event.time_ns, _clamp(event.order_id))
        return _end_optional(out, 13, event.user_ref_idx)
    INVARIANT(kind == EV_ENTRY_DISABLED or kind == EV_ENTRY_ENABLED, "the event makes a message")
    return _order_entry(<const AccountAction *>event, out)


cdef inline bint _makes_message(const Event *event) noexcept nogil:
    cdef uint8_t kind = event.kind
    return (EV_ACCEPTED <= kind <= EV_ANNOUNCED and source_has_stream(event.source)
            and kind != EV_REPLACE_REFUSED and kind != EV_ROLL_STARTED
            and kind != EV_SESSION_STARTED)


cdef int recipients(const Event *event, uint32_t *accounts) noexcept nogil:
    cdef const Fill *fill
    cdef int count = 0
    if event.kind != EV_FILL:
        accounts[0] = event.account_id
        return _makes_message(event)
    fill = <const Fill *>event
    if not fill.flags & FILL_TAKER_PRIVATE:
        accounts[0] = fill.taker_account_id
        count = 1
    if not fill.flags & FILL_MAKER_PRIVATE:
        accounts[count] = fill.maker_account_id
        count += 1
    return count


# Whether the nth recipient of an event is the maker of a fill.
cdef inline bint _is_maker(const Event *event, int nth) noexcept nogil:
    return event.kind == EV_FILL and (
        nth == 1 or (<const Fill *>event).flags & FILL_TAKER_PRIVATE != 0)


# -- wire symbols --------------------------------------------------------------------------------

cdef class WireNames:
    """Instrument id -> wire symbol, for the messages that name one."""

    def __dealloc__(self):
        free(self.names.symbols)

    def define(self, int instrument_id, wire_symbol):
        """Make an instrument known. Raises ValueError for a symbol over 8 characters."""
        cdef ExtInstrument unit[2]
        cdef bytes raw = (wire_symbol.encode("ascii") if isinstance(wire_symbol, str)
                          else bytes(wire_symbol))
        raw = raw.ljust(8)
        if len(raw) > 8 or not 0 < instrument_id < 65536:
            raise ValueError(f"instrument {instrument_id}, wire symbol {wire_symbol!r}")
        memset(unit, 0, sizeof(unit))
        (<Event *>unit).instrument_id = instrument_id
        (<Event *>unit).ext_count = 1
        unit[1].kind = EXT_INSTRUMENT
        memcpy(unit[1].wire_symbol, <const char *>raw, 8)
        self.learn(<const Event *>unit)

    def symbol(self, int instrument_id):
        """The wire symbol without padding, "" when unknown."""
        return _symbol(&self.names, instrument_id)[:8].decode("ascii").rstrip()

    cdef void learn(self, const Event *event) noexcept nogil:
        cdef const ExtInstrument *ext = <const ExtInstrument *>_extension(event, EXT_INSTRUMENT)
        cdef size_t ids = self.names.ids
        if ext == NULL:
            return
        if event.instrument_id >= ids:
            ids = max(<size_t>64, ids)
            while event.instrument_id >= ids:
                ids *= 2
            self.names.symbols = <char *>realloc(self.names.symbols, 8 * ids)
            INVARIANT(self.names.symbols != NULL, "out of memory for wire symbols")
            memset(self.names.symbols + 8 * self.names.ids, c' ', 8 * (ids - self.names.ids))
            self.names.ids = ids
        memcpy(self.names.symbols + 8 * event.instrument_id, ext.wire_symbol, 8)


# -- live streams --------------------------------------------------------------------------------

cdef class Streams:
    """Counts every account's messages and encodes those of the accounts that are live.

    An account that was never opened starts at number 1. A session start among the events numbers
    every stream from 1 again; live accounts get an End of Session packet after what came before
    it and are live no more, so that the next generation reaches nobody who has not logged in to
    it. `generation` is the newest one seen in an event, 0 before.
    """

    def __init__(self, WireNames names=None):
        self.names = names if names is not None else WireNames()
        self._grow()

    def __dealloc__(self):
        cdef size_t index
        for index in range(self._slot_count):
            free(self._slots[index].buffer)
        free(self._slots)
        free(self._index)
        free(self._queued)

    def open_account(self, uint32_t account_id, uint64_t next_number=1):
        """Set the number that the account's next message will have."""
        self._slot(account_id).next_number = next_number

    def next_number(self, uint32_t account_id):
        """The number of the account's next message."""
        cdef Slot *slot = self._find(account_id)
        return slot.next_number if slot != NULL else 1

    def set_live(self, uint32_t account_id, bint live):
        """Begin or end encoding the account's messages; ending drops what was not taken."""
        cdef Slot *slot = self._slot(account_id)
        slot.live = live
        if not live:
            slot.length = 0

    def is_live(self, uint32_t account_id):
        """Whether the account's messages are encoded."""
        cdef Slot *slot = self._find(account_id)
        return slot != NULL and slot.live

    def route(self, data, uint64_t first_seq=0):
        """Count and encode the messages of events: an EventBatch, or whole units with the seq of
        the first. Raises ValueError when the units do not add up."""
        cdef Py_buffer view
        if isinstance(data, EventBatch):
            first_seq = (<EventBatch>data).first_seq
        _get_units(data, &view)
        try:
            with nogil:
                self._route(<const Event *>view.buf, view.len // sizeof(Event), first_seq)
        finally:
            PyBuffer_Release(&view)

    def touched(self):
        """The accounts that have bytes to take, in the order in which they got them."""
        cdef size_t index
        cdef size_t kept = 0
        cdef Slot *slot
        accounts = []
        for index in range(self._queued_count):
            slot = &self._slots[self._queued[index]]
            slot.queued = slot.length > 0
            if slot.queued:
                self._queued[kept] = self._queued[index]
                kept += 1
                accounts.append(slot.account_id)
        self._queued_count = kept
        return accounts

    def take(self, uint32_t account_id):
        """The account's framed packets since the last take."""
        cdef Slot *slot = self._find(account_id)
        if slot == NULL or slot.length == 0:
            return b""
        data = PyBytes_FromStringAndSize(<const char *>slot.buffer, slot.length)
        slot.length = 0
        if slot.capacity > BUFFER_KEEP_BYTES:
            free(slot.buffer)
            slot.buffer = NULL
            slot.capacity = 0
        return data

    cdef void _route(self, const Event *data, size_t units, uint64_t seq) noexcept nogil:
        cdef size_t position = 0
        cdef const Event *event
        cdef const Fill *fill
        while position < units:
            event = &data[position]
            if event.kind == EV_FILL:
                fill = <const Fill *>event
                if not fill.flags & FILL_TAKER_PRIVATE:
                    self._send(fill.taker_account_id, event, seq, False)
                if not fill.flags & FILL_MAKER_PRIVATE:
                    self._send(fill.maker_account_id, event, seq, True)
            elif _makes_message(event):
                self._send(event.account_id, event, seq, False)
            elif event.kind == EV_SESSION_STARTED:
                self.generation = event.order_id
                self._end_sessions()
            elif event.kind == EV_INSTRUMENT_DEFINED:
                self.names.learn(event)
            position += <size_t>1 + event.ext_count
            seq += 1

    cdef inline void _send(self, uint32_t account_id, const Event *event, uint64_t seq,
                           bint maker) noexcept nogil:
        cdef Slot *slot = self._slot(account_id)
        slot.next_number += 1
        if not slot.live:
            return
        if slot.length + MESSAGE_ROOM > slot.capacity or not slot.queued:
            self._room(slot, MESSAGE_ROOM)
        slot.length += write_message(&self.names.names, event, seq, maker,
                                     slot.buffer + slot.length)

    cdef void _end_sessions(self) noexcept nogil:
        cdef size_t index
        cdef Slot *slot
        for index in range(self._slot_count):
            slot = &self._slots[index]
            slot.next_number = 1
            if slot.live:
                slot.live = False
                self._room(slot, MESSAGE_ROOM)
                put_frame(slot.buffer + slot.length, 0, c'Z')
                slot.length += FRAME_BYTES

    cdef void _room(self, Slot *slot, size_t more) noexcept nogil:
        if not slot.queued:
            slot.queued = True
            self._queued[self._queued_count] = slot - self._slots
            self._queued_count += 1
        if slot.length + more > slot.capacity:
            slot.capacity = max(2 * slot.capacity, <size_t>4096)
            slot.buffer = <uint8_t *>realloc(slot.buffer, slot.capacity)
            INVARIANT(slot.buffer != NULL, "out of memory for messages")

    # The table of accounts: an open-addressing index, at most half full, of slot numbers plus 1.
    cdef inline Slot *_slot(self, uint32_t account_id) noexcept nogil:
        cdef Slot *slot = self._last
        if slot == NULL or slot.account_id != account_id:
            slot = self._find(account_id)
            if slot == NULL:
                slot = self._add(account_id)
            self._last = slot
        return slot

    cdef inline Slot *_find(self, uint32_t account_id) noexcept nogil:
        cdef size_t place = (account_id * <uint32_t>0x9E3779B1) >> self._index_shift
        while self._index[place]:
            if self._slots[self._index[place] - 1].account_id == account_id:
                return &self._slots[self._index[place] - 1]
            place = (place + 1) & (self._index_capacity - 1)
        return NULL

    cdef Slot *_add(self, uint32_t account_id) noexcept nogil:
        cdef size_t place
        cdef Slot *slot
        if 2 * (self._slot_count + 1) > self._index_capacity:
            self._grow()
        slot = &self._slots[self._slot_count]
        memset(slot, 0, sizeof(Slot))
        slot.account_id = account_id
        slot.next_number = 1
        self._slot_count += 1
        place = (account_id * <uint32_t>0x9E3779B1) >> self._index_shift
        while self._index[place]:
            place = (place + 1) & (self._index_capacity - 1)
        self._index[place] = self._slot_count
        return slot

    cdef void _grow(self) noexcept nogil:
        cdef size_t capacity = 2 * self._index_capacity if self._index_capacity else 64
        cdef size_t number
        cdef size_t place
        self._slots = <Slot *>realloc(self._slots, capacity // 2 * sizeof(Slot))
        self._queued = <uint32_t *>realloc(self._queued, capacity // 2 * sizeof(uint32_t))
        free(self._index)
        self._index = <uint32_t *>calloc(capacity, sizeof(uint32_t))
        INVARIANT(self._slots != NULL and self._queued != NULL and self._index != NULL,
                  "out of memory for accounts")
        self._last = NULL
        self._index_shift = self._index_shift - 1 if self._index_capacity else 26
        self._index_capacity = capacity
        for number in range(1, self._slot_count + 1):
            place = (self._slots[number - 1].account_id * <uint32_t>0x9E3779B1)
            place = place >> self._index_shift
            while self._index[place]:
                place = (place + 1) & (capacity - 1)
            self._index[place] = number


# -- streams read again from the log -------------------------------------------------------------

cdef int _get_units(data, Py_buffer *view) except -1:
    cdef const Event *event
    cdef size_t position = 0
    cdef size_t units
    PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    units = view.len // sizeof(Event)
    if view.len % sizeof(Event):
        PyBuffer_Release(view)
        raise ValueError(f"{view.len} bytes are not whole units")
    if isinstance(data, EventBatch):
        return 0
    # Bytes from elsewhere may end with an event that names extensions beyond them.
    event = <const Event *>view.buf
    with nogil:
        while position < units:
            position += <size_t>1 + event[position].ext_count
    if position != units:
        PyBuffer_Release(view)
        raise ValueError("the last event names extension units beyond the end")
    return 0


def count_account(data, uint32_t account_id, uint64_t next_number):
    """The number of the account's next message after these events, `next_number` before them."""
    cdef Py_buffer view
    cdef uint64_t number = next_number
    _get_units(data, &view)
    try:
        with nogil:
            number = _count(<const Event *>view.buf, view.len // sizeof(Event), account_id, number)
    finally:
        PyBuffer_Release(&view)
    return number


cdef uint64_t _count(const Event *data, size_t units, uint32_t account_id,
                     uint64_t number) noexcept nogil:
    cdef uint32_t accounts[2]
    cdef size_t position = 0
    cdef int nth
    while position < units:
        for nth in range(recipients(&data[position], accounts)):
            number += accounts[nth] == account_id
        if data[position].kind == EV_SESSION_STARTED:
            number = 1
        position += <size_t>1 + data[position].ext_count
    return number


cdef struct Walk:
    uint32_t account_id
    uint64_t number
    uint64_t from_number
    uint64_t sessions
    size_t limit_bytes
    uint8_t *out
    size_t length
    size_t capacity


def encode_account(WireNames names not None, data, uint64_t first_seq, uint32_t account_id,
                   uint64_t next_number, uint64_t from_number, size_t limit_bytes):
    """The account's framed packets in these events, from message `from_number` on.

    `data` are whole event units, `first_seq` the seq of the first and `next_number` the number
    that the account's next message has there. Stops before the message that would pass
    `limit_bytes` (but gives at least one). Returns (packets, number after the last message seen,
    session starts met); at a session start what was encoded of the session before it is dropped
    and numbers begin at 1.
    """
    cdef Py_buffer view
    cdef Walk walk
    memset(&walk, 0, sizeof(walk))
    walk.account_id = account_id
    walk.number = next_number
    walk.from_number = from_number
    walk.limit_bytes = limit_bytes
    _get_units(data, &view)
    try:
        with nogil:
            _walk(&names.names, <const Event *>view.buf, view.len // sizeof(Event), first_seq,
                  &walk)
        packets = PyBytes_FromStringAndSize(<const char *>walk.out, walk.length)
    finally:
        free(walk.out)
        PyBuffer_Release(&view)
    return packets, walk.number, walk.sessions


cdef void _walk(const Names *names, const Event *data, size_t units, uint64_t seq,
                Walk *walk) noexcept nogil:
    cdef uint32_t accounts[2]
    cdef size_t position = 0
    cdef int nth
    while position < units:
        for nth in range(recipients(&data[position], accounts)):
            if accounts[nth] == walk.account_id:
                if not _walk_message(names, &data[position], seq, nth, walk):
                    return
        if data[position].kind == EV_SESSION_STARTED:
            walk.number = 1
            walk.length = 0
            walk.sessions += 1
        position += <size_t>1 + data[position].ext_count
        seq += 1


cdef bint _walk_message(const Names *names, const Event *event, uint64_t seq, int nth,
                        Walk *walk) noexcept nogil:
    cdef size_t length
    if walk.number >= walk.from_number:
        if walk.length + MESSAGE_ROOM > walk.capacity:
            walk.capacity = max(2 * walk.capacity, <size_t>4096)
            walk.out = <uint8_t *>realloc(walk.out, walk.capacity)
            INVARIANT(walk.out != NULL, "out of memory for messages")
        length = write_message(names, event, seq, _is_maker(event, nth), walk.out + walk.length)
        if walk.length and walk.length + length > walk.limit_bytes:
            return False
        walk.length += length
    walk.number += 1
    return True


def messages_of(EventBatch batch not None, WireNames names=None):
    """Every message of the events as (account id, unframed message), in order.

    Instruments defined in the batch are known, others have to be in `names`.
    """
    cdef WireNames known = names if names is not None else WireNames()
    cdef uint32_t accounts[2]
    cdef uint8_t out[MESSAGE_ROOM]
    cdef size_t position = 0
    cdef size_t length
    cdef Py_buffer view
    cdef const Event *event
    cdef uint64_t seq = batch.first_seq
    cdef int nth
    messages = []
    _get_units(batch, &view)
    try:
        while position < batch.units.count:
            event = &batch.units.data[position]
            if event.kind == EV_INSTRUMENT_DEFINED:
                known.learn(event)
            for nth in range(recipients(event, accounts)):
                length = write_message(&known.names, event, seq, _is_maker(event, nth), out)
                messages.append((accounts[nth], PyBytes_FromStringAndSize(
                    <char *>out + FRAME_BYTES, length - FRAME_BYTES)))
            position += <size_t>1 + event.ext_count
            seq += 1
    finally:
        PyBuffer_Release(&view)
    return messages

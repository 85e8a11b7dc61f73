# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""OUCH 5.0 (PROTOCOLS sections 2 and 6.5): the door of the venue, and messages for clients.

Two codecs live here side by side. `Decoder` is the hot one: it walks the bytes of one read, packet
by packet, and writes commands straight into a batch, with no Python object per order. `decode`,
`encode_inbound` and `encode_outbound` (from ouch_table) know every message of both directions as
dictionaries, from one table; clients, tools and tests use them, and the tests hold the two against
each other.

What the door decides is the form. Bytes that are not the protocol stop the decoder with a STOP
code and close the session. A well-formed message whose value the venue does not know or serve
becomes a command with FLAG_DOOR_REASON, so that it is rejected by an event like any other; it
carries the raw message, since its fields may not fit a command.
"""

import enum

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from cython_core.event cimport (AccountAction, Event, ExtOptions, ExtRaw, ExtReplace,
                                units_next)
from cython_core.model cimport *
from cython_core.wire cimport *

from cython_core.ouch_table import (INBOUND, OUTBOUND, TAGS, decode, encode_inbound,
                                    encode_outbound)
from cython_core.soupbin import WireError

__all__ = ["INBOUND", "MESSAGE_MAX", "OUTBOUND", "TAGS", "Decoder", "Stop", "SymbolTable",
           "WireError", "decode", "encode_cancel", "encode_enter", "encode_inbound",
           "encode_outbound", "encode_replace"]

MESSAGE_MAX = MESSAGE_BYTES_MAX


class Stop(enum.IntEnum):
    """Why `Decoder.feed` stopped. From LOGIN up the session has to be closed."""
    NEED_MORE = STOP_NEED_MORE
    LOGOUT = STOP_LOGOUT
    LOGIN = STOP_LOGIN
    PACKET_TYPE = STOP_PACKET_TYPE
    PACKET_LENGTH = STOP_PACKET_LENGTH
    OVERSIZED = STOP_OVERSIZED
    MESSAGE_TYPE = STOP_MESSAGE_TYPE
    MESSAGE_LENGTH = STOP_MESSAGE_LENGTH
    APPENDAGE = STOP_APPENDAGE


cdef object _stop_texts = {
    STOP_NEED_MORE: "no fault",
    STOP_LOGOUT: "logout",
    STOP_LOGIN: "a second login on one connection",
    STOP_PACKET_TYPE: "unknown packet type 0x{:02X}",
    STOP_PACKET_LENGTH: "wrong packet length {}",
    STOP_OVERSIZED: "packet length {} is over the limit",
    STOP_MESSAGE_TYPE: "unknown message type 0x{:02X}",
    STOP_MESSAGE_LENGTH: "message type 0x{:02X} has a wrong length",
    STOP_APPENDAGE: "message type 0x{:02X} has a broken appendage",
}

# Which fields a letter is served in, a bit for each; and which OUCH names for them besides.
cdef enum:
    IN_SIDE = 1
    IN_TIME_IN_FORCE = 2
    IN_DISPLAY = 4
    IN_CAPACITY = 8
    IN_ISO = 16
    IN_CROSS = 32
    IN_ENTER = 63
    IN_REPLACE = 22  # time in force, display, ISO

cdef uint8_t SERVED[256]
cdef uint8_t LISTED[256]
cdef uint8_t PACK_DISPLAY[256]
cdef uint8_t PACK_CAPACITY[256]
cdef uint8_t PACK_ISO[256]
cdef uint8_t PACK_CROSS[256]
cdef uint8_t TAG_WIDTH[256]  # 0 for a tag that nobody defined

cdef enum:
    TAGS_ENTER = (1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 11
                  | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 24 | 1 << 25
                  | 1 << 26 | 1 << 28 | 1 << 29 | 1 << 30)
    TAGS_REPLACE = (1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12
                    | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 25 | 1 << 26 | 1 << 27
                    | 1 << 28 | 1 << 29 | 1 << 30)
    TAGS_MASS_CANCEL = 1 << 24 | 1 << 27 | 1 << 28
    TAGS_INDEX = 1 << 28
    # Tags that live in the base unit or in EXT_REPLACE, not in EXT_OPTIONS.
    TAGS_ELSEWHERE = 1 << 12 | 1 << 27 | 1 << 28

# What the tags of one message said. The first fault wins.
cdef struct Terms:
    uint16_t reason
    uint8_t flags
    uint8_t user_ref_idx
    uint8_t side
    ExtOptions options


cdef _fill_letters(uint8_t *table, uint8_t bit, str letters):
    for letter in letters:
        table[ord(letter)] |= bit


cdef _fill_packing(uint8_t *table, str letters, int shift):
    for index, letter in enumerate(letters):
        table[ord(letter)] = index << shift


cdef _fill_tables():
    for bit, served, listed in (
        (IN_SIDE, "BSTE", ""), (IN_TIME_IN_FORCE, "0134", "56E"), (IN_DISPLAY, "YA", "N"),
        (IN_CAPACITY, "APRO", ""), (IN_ISO, "N", "Y"), (IN_CROSS, "N", "OCHSREA"),
    ):
        _fill_letters(SERVED, bit, served)
        _fill_letters(LISTED, bit, listed)
    _fill_packing(PACK_DISPLAY, "YNAZ", 0)
    _fill_packing(PACK_CAPACITY, "APRO", ATTR_CAPACITY_SHIFT)
    _fill_packing(PACK_ISO, "NY", ATTR_ISO_SHIFT)
    _fill_packing(PACK_CROSS, "NOCHSREA", ATTR_CROSS_SHIFT)
    for number, tag in TAGS.items():
        TAG_WIDTH[number] = tag.width


_fill_tables()


# -- symbols -----------------------------------------------------------------------------------

cdef class SymbolTable:
    """Wire symbol -> instrument id. One table serves every decoder; they see additions at once."""

    def __cinit__(self):
        self._grow()

    def __dealloc__(self):
        free(self.map.keys)
        free(self.map.ids)

    def __len__(self):
        return self._count

    def find(self, wire_symbol):
        """The instrument id, or 0 when the symbol is unknown."""
        cdef bytes raw = _symbol_bytes(wire_symbol)
        return _find_symbol(&self.map, <const uint8_t *>PyBytes_AS_STRING(raw))

    def add(self, wire_symbol, int instrument_id):
        """Make a symbol of up to 8 characters known, or give it another id (1..65535).

        Raises ValueError for a blank or too long symbol or an id out of range.
        """
        cdef bytes raw = _symbol_bytes(wire_symbol)
        cdef uint64_t key
        if not raw.strip():
            raise ValueError("a wire symbol can't be blank")
        if not 0 < instrument_id < 65536:
            raise ValueError(f"instrument id {instrument_id} is not within 1..65535")
        if 2 * (self._count + 1) > self.map.capacity:
            self._grow()
        memcpy(&key, PyBytes_AS_STRING(raw), 8)
        self._count += _put_symbol(&self.map, key, instrument_id)

    cdef int _grow(self) except -1:
        cdef SymbolMap old = self.map
        cdef SymbolMap new
        cdef size_t index
        new.capacity = old.capacity * 2 if old.capacity else 64
        new.shift = 64 - (<object>new.capacity).bit_length() + 1
        new.keys = <uint64_t *>calloc(new.capacity, sizeof(uint64_t))
        new.ids = <uint16_t *>calloc(new.capacity, sizeof(uint16_t))
        if new.keys == NULL or new.ids == NULL:
            free(new.keys)
            free(new.ids)
            raise MemoryError
        for index in range(old.capacity):
            if old.keys[index]:
                _put_symbol(&new, old.keys[index], old.ids[index])
        self.map = new
        free(old.keys)
        free(old.ids)
        return 0


cdef bytes _symbol_bytes(symbol):
    raw = symbol.encode("ascii") if isinstance(symbol, str) else bytes(symbol)
    if len(raw) > 8:
        raise ValueError(f"wire symbol {symbol!r} is longer than 8 characters")
    return raw.ljust(8)


cdef inline size_t _slot_of(const SymbolMap *symbols, uint64_t key) noexcept nogil:
    return (key * <uint64_t>0x9E3779B97F4A7C15) >> symbols.shift


cdef int _put_symbol(SymbolMap *symbols, uint64_t key, uint16_t instrument_id) noexcept nogil:
    cdef size_t slot = _slot_of(symbols, key)
    while symbols.keys[slot] and symbols.keys[slot] != key:
        slot = (slot + 1) & (symbols.capacity - 1)
    cdef int added = symbols.keys[slot] == 0
    symbols.keys[slot] = key
    symbols.ids[slot] = instrument_id
    return added


cdef inline uint16_t _find_symbol(const SymbolMap *symbols, const uint8_t *symbol) noexcept nogil:
    cdef uint64_t key
    memcpy(&key, symbol, 8)
    cdef size_t slot = _slot_of(symbols, key)
    while symbols.keys[slot] != key:
        if symbols.keys[slot] == 0:
            return 0
        slot = (slot + 1) & (symbols.capacity - 1)
    return symbols.ids[slot]


# -- the decoder -------------------------------------------------------------------------------

cdef class Decoder:
    """Turns the bytes of one logged-in session into commands.

    `account_id` and `source` (model.Source) are stamped on every command. The counters `messages`,
    `heartbeats` and `debug_packets` run on over all calls; `entered` is how many Enter and Replace
    messages the last call met; `last_stop` is a `Stop`. Once a call has stopped for anything but
    NEED_MORE, later calls take nothing until `reset`.
    """

    def __init__(self, SymbolTable symbols not None, account_id, source=SOURCE_TCP):
        self._symbols = symbols
        self._door.symbols = &symbols.map
        self._door.account_id = account_id
        self._door.source = source

    @property
    def stop_reason(self):
        """The last stop in words, for the log line of the closed session."""
        return _stop_texts[self.last_stop].format(self._detail)

    def reset(self):
        """Forget the last stop and a half-skipped packet: the next bytes start a packet."""
        self.last_stop = STOP_NEED_MORE
        self._skip_bytes = 0

    def feed(self, data, CommandBatch batch not None, enter_budget=-1, Py_ssize_t start=0,
             stop=None):
        """Append the commands in data[start:stop] to `batch`; returns (consumed_bytes, Stop value).

        Takes whole packets only: what is left over has to come again with the bytes after it. At
        most MESSAGE_MAX + 3 bytes are ever left over. Enter and Replace messages beyond
        `enter_budget` (-1: no limit) get FLAG_RATE_EXCEEDED. At a fault, the commands before it
        stay in the batch and consumed_bytes is where the faulty packet starts.
        """
        cdef Py_buffer view
        cdef size_t consumed
        cdef Py_ssize_t end
        cdef int64_t budget = enter_budget
        if batch._exports:
            raise BufferError("the batch is exported and can't grow")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            end = view.len if stop is None else stop
            if not 0 <= start <= end <= view.len:
                raise ValueError(f"[{start}:{end}] is not within {view.len} bytes")
            with nogil:
                consumed = self.feed_bytes(<const uint8_t *>view.buf + start, end - start, batch,
                                           budget)
        finally:
            PyBuffer_Release(&view)
        return consumed, self.last_stop

    cdef size_t feed_bytes(self, const uint8_t *data, size_t length, CommandBatch batch,
                           int64_t enter_budget) noexcept nogil:
        cdef size_t position = 0
        cdef size_t packet_bytes
        cdef int code = self.last_stop
        cdef int64_t allowance = enter_budget if enter_budget >= 0 else INT64_MAX
        self._door.allowance = allowance
        if self._skip_bytes and code == STOP_NEED_MORE:
            position = min(self._skip_bytes, length)
            self._skip_bytes -= position
        while code == STOP_NEED_MORE and length - position >= 2:
            packet_bytes = get16(data + position)
            if (length - position > packet_bytes + 1 and packet_bytes <= MESSAGE_BYTES_MAX
                    and packet_bytes > 1 and data[position + 2] == c'U'):
                code = _message(&self._door, data + position + FRAME_BYTES, packet_bytes - 1, batch)
                if code != STOP_NEED_MORE:
                    self._stop(code, data[position + FRAME_BYTES])
                    break
                self.messages += 1
                position += packet_bytes + 2
                continue
            packet_bytes = 0
            code = self._packet(data + position, length - position, batch, &packet_bytes)
            if packet_bytes == 0:
                break
            position += packet_bytes
        self.entered = allowance - self._door.allowance
        return position

    # Anything but a whole U packet. Leaves `consumed` 0 when more bytes are needed.
    cdef int _packet(self, const uint8_t *packet, size_t length, CommandBatch batch,
                     size_t *consumed) noexcept nogil:
        cdef size_t packet_bytes = get16(packet)
        cdef uint8_t kind
        if packet_bytes == 0:
            return self._stop(STOP_PACKET_LENGTH, 0)
        if length < FRAME_BYTES:
            return STOP_NEED_MORE
        kind = packet[2]
        if kind == c'+':
            # Passed over as it comes, so that no buffer has to hold a debug text of 64 KiB.
            consumed[0] = min(packet_bytes + 2, length)
            self._skip_bytes = packet_bytes + 2 - consumed[0]
            self.debug_packets += 1
            return STOP_NEED_MORE
        if kind == c'U':
            if packet_bytes == 1:
                return self._stop(STOP_PACKET_LENGTH, 1)
            if packet_bytes > MESSAGE_BYTES_MAX:
                return self._stop(STOP_OVERSIZED, packet_bytes)
            return STOP_NEED_MORE
        if kind == c'L':
            return self._stop(STOP_LOGIN, 0)
        if kind != c'R' and kind != c'O':
            return self._stop(STOP_PACKET_TYPE, kind)
        if packet_bytes != 1:
            return self._stop(STOP_PACKET_LENGTH, packet_bytes)
        consumed[0] = FRAME_BYTES
        if kind == c'O':
            return self._stop(STOP_LOGOUT, 0)
        self.heartbeats += 1
        return STOP_NEED_MORE

    cdef int _stop(self, int code, uint32_t detail) noexcept nogil:
        self.last_stop = code
        self._detail = detail
        return code


# -- messages into commands: every function returns a STOP code and leaves no unit on a fault ----

cdef inline int _message(Door *door, const uint8_t *message, size_t length,
                         CommandBatch batch) noexcept nogil:
    cdef uint8_t kind = message[0]
    cdef int code
    if kind == c'O':
        code = _enter(door, message, length, batch)
    elif kind == c'X':
        code = _cancel(door, message, length, batch)
    elif kind == c'U':
        code = _replace(door, message, length, batch)
    elif kind == c'M':
        code = _modify(door, message, length, batch)
    elif kind == c'C':
        code = _mass_cancel(door, message, length, batch)
    elif kind == c'D' or kind == c'E':
        code = _order_entry(door, message, length, batch)
    elif kind == c'Q':
        code = _account_query(door, message, length, batch)
    else:
        return STOP_MESSAGE_TYPE
    batch.command_count += code == STOP_NEED_MORE
    return code


cdef inline Event *_command(Door *door, CommandBatch batch, uint8_t kind,
                            uint32_t user_ref_num) noexcept nogil:
    cdef Event *unit = units_next(&batch.units)
    memset(unit, 0, sizeof(Event))
    unit.kind = kind
    unit.account_id = door.account_id
    unit.user_ref_num = user_ref_num
    unit.source = door.source
    return unit


cdef inline int64_t _price(const uint8_t *at) noexcept nogil:
    cdef uint64_t price = get64(at)
    return INT64_MAX if price > <uint64_t>INT64_MAX else <int64_t>price


cdef inline int _enter(Door *door, const uint8_t *message, size_t length,
                       CommandBatch batch) noexcept nogil:
    cdef Event *unit
    cdef int served
    if length < 47:
        return STOP_MESSAGE_LENGTH
    if get16(message + 45) != length - 47:
        return STOP_APPENDAGE
    unit = _command(door, batch, CMD_ENTER, get32(message + 1))
    unit.side = message[5]
    unit.quantity_lots = get32(message + 6)
    unit.instrument_id = _find_symbol(door.symbols, message + 10)
    unit.price_units = _price(message + 18)
    unit.time_in_force = message[26]
    unit.attributes = (PACK_DISPLAY[message[27]] | PACK_CAPACITY[message[28]]
                       | PACK_ISO[message[29]] | PACK_CROSS[message[30]])
    memcpy(unit.client_order, message + 31, 14)
    unit.flags = FLAG_RATE_EXCEEDED if door.allowance <= 0 else 0
    door.allowance -= 1
    served = ((SERVED[message[5]] & IN_SIDE) | (SERVED[message[26]] & IN_TIME_IN_FORCE)
              | (SERVED[message[27]] & IN_DISPLAY) | (SERVED[message[28]] & IN_CAPACITY)
              | (SERVED[message[29]] & IN_ISO) | (SERVED[message[30]] & IN_CROSS))
    if served == IN_ENTER and length == 47 and unit.instrument_id:
        return STOP_NEED_MORE
    return _enter_with_terms(message, length, batch)


cdef int _enter_with_terms(const uint8_t *message, size_t length,
                           CommandBatch batch) noexcept nogil:
    cdef Terms terms
    cdef size_t first = batch.units.count - 1
    memset(&terms, 0, sizeof(terms))
    _check_letter(&terms, message[5], IN_SIDE, REJECT_SIDE)
    if batch.units.data[first].instrument_id == 0:
        _refuse(&terms, REJECT_SYMBOL, False)
    _check_letter(&terms, message[26], IN_TIME_IN_FORCE, REJECT_OTHER)
    _check_letter(&terms, message[27], IN_DISPLAY, REJECT_DISPLAY)
    _check_letter(&terms, message[28], IN_CAPACITY, REJECT_OTHER)
    _check_letter(&terms, message[29], IN_ISO, REJECT_ISO)
    _check_letter(&terms, message[30], IN_CROSS, REJECT_CROSS)
    return _finish(message, length, 47, TAGS_ENTER, True, &terms, batch, first)


cdef int _replace(Door *door, const uint8_t *message, size_t length,
                  CommandBatch batch) noexcept nogil:
    cdef Event *unit
    cdef ExtReplace *replace
    cdef Terms terms
    cdef size_t first = batch.units.count
    if length < 40:
        return STOP_MESSAGE_LENGTH
    if get16(message + 38) != length - 40:
        return STOP_APPENDAGE
    unit = _command(door, batch, CMD_REPLACE, get32(message + 5))
    unit.quantity_lots = get32(message + 9)
    unit.price_units = _price(message + 13)
    unit.time_in_force = message[21]
    unit.attributes = PACK_DISPLAY[message[22]] | PACK_ISO[message[23]]
    memcpy(unit.client_order, message + 24, 14)
    unit.flags = FLAG_RATE_EXCEEDED if door.allowance <= 0 else 0
    unit.ext_count = 1
    door.allowance -= 1
    replace = <ExtReplace *>units_next(&batch.units)
    memset(replace, 0, sizeof(ExtReplace))
    replace.kind = EXT_REPLACE
    replace.orig_user_ref_num = get32(message + 1)
    replace.chain_quantity_lots = get32(message + 9)
    if length == 40 and ((SERVED[message[21]] & IN_TIME_IN_FORCE)
                         | (SERVED[message[22]] & IN_DISPLAY)
                         | (SERVED[message[23]] & IN_ISO)) == IN_REPLACE:
        return STOP_NEED_MORE
    memset(&terms, 0, sizeof(terms))
    _check_letter(&terms, message[21], IN_TIME_IN_FORCE, REJECT_OTHER)
    _check_letter(&terms, message[22], IN_DISPLAY, REJECT_DISPLAY)
    _check_letter(&terms, message[23], IN_ISO, REJECT_ISO)
    return _finish(message, length, 40, TAGS_REPLACE, True, &terms, batch, first)


cdef inline int _cancel(Door *door, const uint8_t *message, size_t length,
                        CommandBatch batch) noexcept nogil:
    cdef Event *unit
    if length < 9:
        return STOP_MESSAGE_LENGTH
    unit = _command(door, batch, CMD_CANCEL, get32(message + 1))
    unit.quantity_lots = get32(message + 5)
    if length == 9:
        return STOP_NEED_MORE
    return _finish_plain(message, length, 9, batch)


cdef int _modify(Door *door, const uint8_t *message, size_t length,
                 CommandBatch batch) noexcept nogil:
    cdef Event *unit
    if length < 10:
        return STOP_MESSAGE_LENGTH
    unit = _command(door, batch, CMD_MODIFY, get32(message + 1))
    unit.side = message[5]
    unit.quantity_lots = get32(message + 6)
    return _finish_plain(message, length, 10, batch)


cdef int _account_query(Door *door, const uint8_t *message, size_t length,
                        CommandBatch batch) noexcept nogil:
    _command(door, batch, CMD_ACCOUNT_QUERY, 0)
    return _finish_plain(message, length, 1, batch)


cdef int _order_entry(Door *door, const uint8_t *message, size_t length,
                      CommandBatch batch) noexcept nogil:
    cdef AccountAction *unit
    if length < 11:
        return STOP_MESSAGE_LENGTH
    unit = <AccountAction *>_command(
        door, batch, CMD_DISABLE_ENTRY if message[0] == c'D' else CMD_ENABLE_ENTRY,
        get32(message + 1))
    memcpy(unit.firm, message + 5, 4)
    memset(unit.symbol, c' ', 8)
    return _finish_plain(message, length, 9, batch)


cdef int _mass_cancel(Door *door, const uint8_t *message, size_t length,
                      CommandBatch batch) noexcept nogil:
    cdef AccountAction *unit
    cdef Terms terms
    cdef size_t first = batch.units.count
    cdef int code
    if length < 19:
        return STOP_MESSAGE_LENGTH
    if get16(message + 17) != length - 19:
        return STOP_APPENDAGE
    unit = <AccountAction *>_command(door, batch, CMD_MASS_CANCEL, get32(message + 1))
    memcpy(unit.firm, message + 5, 4)
    memcpy(unit.symbol, message + 9, 8)
    memset(&terms, 0, sizeof(terms))
    if memcmp(message + 9, b"        ", 8) != 0:
        unit.instrument_id = _find_symbol(door.symbols, message + 9)
        if unit.instrument_id == 0:
            _refuse(&terms, REJECT_SYMBOL, False)
    code = _scan_tags(message + 19, length - 19, TAGS_MASS_CANCEL, False, &terms)
    if code != STOP_NEED_MORE:
        batch.units.count = first
        return code
    unit.user_ref_idx = terms.user_ref_idx
    unit.side = terms.side
    unit.group_id = terms.options.group_id
    unit.attributes = terms.options.present >> 24 & 1
    if terms.reason:
        _put_refusal(message, length, &terms, batch, first)
    return STOP_NEED_MORE


# -- terms: letters and tags -------------------------------------------------------------------

cdef inline void _refuse(Terms *terms, uint16_t reason, bint unserved) noexcept nogil:
    if terms.reason == 0:
        terms.reason = reason
        terms.flags |= FLAG_DOOR_REASON | (FLAG_UNSERVED if unserved else 0)


cdef inline void _check_letter(Terms *terms, uint8_t letter, uint8_t field,
                               uint16_t reason) noexcept nogil:
    if not SERVED[letter] & field:
        _refuse(terms, reason, LISTED[letter] & field)


# The end of messages that know no tag but UserRefIdx and may leave the appendage out.
cdef int _finish_plain(const uint8_t *message, size_t length, size_t fixed,
                       CommandBatch batch) noexcept nogil:
    cdef Terms terms
    cdef int code = STOP_NEED_MORE
    cdef size_t first = batch.units.count - 1
    if length == fixed:
        return STOP_NEED_MORE
    memset(&terms, 0, sizeof(terms))
    if length < fixed + 2:
        code = STOP_MESSAGE_LENGTH
    elif get16(message + fixed) != length - fixed - 2:
        code = STOP_APPENDAGE
    else:
        code = _scan_tags(message + fixed + 2, length - fixed - 2, TAGS_INDEX, False, &terms)
    if code == STOP_NEED_MORE:
        batch.units.data[first].user_ref_idx = terms.user_ref_idx
    else:
        batch.units.count = first
    return code


# The end of Enter and Replace: tags, then the units that carry them or the refused message.
cdef int _finish(const uint8_t *message, size_t length, size_t fixed, uint32_t known,
                 bint strict, Terms *terms, CommandBatch batch, size_t first) noexcept nogil:
    cdef Event *unit
    cdef int code = _scan_tags(message + fixed, length - fixed, known, strict, terms)
    if code != STOP_NEED_MORE:
        batch.units.count = first
        return code
    unit = &batch.units.data[first]
    unit.user_ref_idx = terms.user_ref_idx
    if unit.kind == CMD_REPLACE:
        (<ExtReplace *>(unit + 1)).command_side = terms.side
    if terms.reason:
        _put_refusal(message, length, terms, batch, first)
        return STOP_NEED_MORE
    unit.flags |= terms.flags
    terms.options.present &= ~<uint32_t>TAGS_ELSEWHERE
    if terms.options.present:
        unit.ext_count += 1
        terms.options.kind = EXT_OPTIONS
        memcpy(units_next(&batch.units), &terms.options, sizeof(ExtOptions))
    return STOP_NEED_MORE


cdef void _put_refusal(const uint8_t *message, size_t length, const Terms *terms,
                       CommandBatch batch, size_t first) noexcept nogil:
    cdef ExtRaw *raw
    cdef size_t position = 0
    batch.units.data[first].order_id = terms.reason
    batch.units.data[first].flags |= terms.flags
    while position < length:
        raw = <ExtRaw *>units_next(&batch.units)
        memset(raw, 0, sizeof(ExtRaw))
        raw.kind = EXT_RAW
        raw.length = min(length - position, sizeof(raw.data))
        memcpy(raw.data, message + position, raw.length)
        position += raw.length
        batch.units.data[first].ext_count += 1


# Walks an appendage. `known` names the tags the message may carry; when `strict`, others are
# a refusal, else they are passed over. A known tag must have its width and come once.
cdef int _scan_tags(const uint8_t *tags, size_t length, uint32_t known, bint strict,
                    Terms *terms) noexcept nogil:
    cdef size_t position = 0
    cdef size_t element
    cdef uint64_t seen[4]
    cdef uint8_t tag
    memset(seen, 0, sizeof(seen))
    while position < length:
        element = tags[position]
        if element == 0 or position + 1 + element > length:
            return STOP_APPENDAGE
        tag = tags[position + 1]
        if TAG_WIDTH[tag]:
            if element != <size_t>TAG_WIDTH[tag] + 1 or seen[tag >> 6] >> (tag & 63) & 1:
                return STOP_APPENDAGE
            seen[tag >> 6] |= <uint64_t>1 << (tag & 63)
        if tag < 32 and known >> tag & 1:
            terms.options.present |= <uint32_t>1 << tag
            _take_tag(terms, tag, tags + position + 2)
        elif strict:
            # As unserved: a Replace must not cost its original for a tag we don't know.
            _refuse(terms, REJECT_OTHER, True)
        position += 1 + element
    return STOP_NEED_MORE


cdef void _take_tag(Terms *terms, uint8_t tag, const uint8_t *value) noexcept nogil:
    cdef ExtOptions *options = &terms.options
    if tag == 2:
        memcpy(options.firm, value, 4)
    elif tag == 3:
        options.min_quantity_lots = get32(value)
    elif tag == 4:
        options.customer_type = value[0]
        if value[0] != c'R' and value[0] != c'N' and value[0] != c' ':
            _refuse(terms, REJECT_OTHER, False)
    elif tag == 6:
        options.price_type = value[0]
        if value[0] != c'L':
            _refuse(terms, REJECT_PEG, _is_one_of(value[0], b"PMRQm"))
    elif tag == 10:
        options.discretion_price_type = value[0]
        if value[0] != c'L':
            _refuse(terms, REJECT_PEG, True)
    elif tag == 12:
        terms.flags |= FLAG_POST_ONLY_SET | (FLAG_POST_ONLY if value[0] == c'P' else 0)
        if value[0] != c'P' and value[0] != c'N':
            _refuse(terms, REJECT_OTHER, False)
    elif tag == 16:
        options.trade_now = value[0]
        if value[0] != c'N' and value[0] != c' ':
            _refuse(terms, REJECT_OTHER, value[0] == c'Y')
    elif tag == 24:
        options.group_id = get16(value)
    elif tag == 25:
        options.shares_located = value[0]
        if value[0] != c'Y' and value[0] != c'N':
            _refuse(terms, REJECT_OTHER, False)
    elif tag == 26:
        memcpy(options.locate_broker, value, 4)
    elif tag == 27:
        terms.side = value[0]
        if not SERVED[value[0]] & IN_SIDE:
            _refuse(terms, REJECT_SIDE, False)
    elif tag == 28:
        terms.user_ref_idx = value[0]
    else:
        _take_unserved_tag(terms, tag, value)


# Tags whose only served value is the neutral one.
cdef void _take_unserved_tag(Terms *terms, uint8_t tag, const uint8_t *value) noexcept nogil:
    if tag == 5:
        if get32(value):
            _refuse(terms, REJECT_MAX_FLOOR, True)
    elif tag == 13:
        if get32(value):
            _refuse(terms, REJECT_OTHER, True)
    elif tag == 7 or tag == 11:
        if get32(value):
            _refuse(terms, REJECT_PEG, True)
    elif tag == 9:
        if get64(value):
            _refuse(terms, REJECT_OTHER, True)
    elif tag == 14:
        if memcmp(value, b"    ", 4) != 0:
            _refuse(terms, REJECT_ROUTE, True)
    elif tag == 15:
        if get32(value):
            _refuse(terms, REJECT_OTHER, True)
    elif tag == 17:
        terms.options.handle_inst = value[0]
        if value[0] != c' ':
            _refuse(terms, REJECT_OTHER, True)
    elif tag == 29:
        terms.options.aiq_strategy = value[0]
        if value[0] != c' ':
            _refuse(terms, REJECT_AIQ, True)
    elif tag == 30:
        memcpy(terms.options.aiq_group, value, 2)
        if memcmp(value, b"  ", 2) != 0:
            _refuse(terms, REJECT_AIQ, True)


cdef inline bint _is_one_of(uint8_t letter, const char *letters) noexcept nogil:
    while letters[0]:
        if letter == <uint8_t>letters[0]:
            return True
        letters += 1
    return False


# -- for clients -------------------------------------------------------------------------------

cdef size_t write_enter(uint8_t *out, uint32_t user_ref_num, uint8_t side, uint32_t quantity,
                        const char *symbol, uint64_t price_units, uint8_t time_in_force,
                        const char *client_order) noexcept nogil:
    out[0] = c'O'
    put32(out + 1, user_ref_num)
    out[5] = side
    put32(out + 6, quantity)
    memcpy(out + 10, symbol, 8)
    put64(out + 18, price_units)
    out[26] = time_in_force
    memcpy(out + 27, b"YPNN", 4)
    memcpy(out + 31, client_order, 14)
    put16(out + 45, 0)
    return ENTER_BYTES


cdef size_t write_replace(uint8_t *out, uint32_t orig_user_ref_num, uint32_t user_ref_num,
                          uint32_t quantity, uint64_t price_units, uint8_t time_in_force,
                          const char *client_order) noexcept nogil:
    out[0] = c'U'
    put32(out + 1, orig_user_ref_num)
    put32(out + 5, user_ref_num)
    put32(out + 9, quantity)
    put64(out + 13, price_units)
    out[21] = time_in_force
    memcpy(out + 22, b"YN", 2)
    memcpy(out + 24, client_order, 14)
    put16(out + 38, 0)
    return REPLACE_BYTES


cdef size_t write_cancel(uint8_t *out, uint32_t user_ref_num, uint32_t quantity) noexcept nogil:
    out[0] = c'X'
    put32(out + 1, user_ref_num)
    put32(out + 5, quantity)
    return CANCEL_BYTES


cdef bytes _padded(text, Py_ssize_t width):
    raw = text.encode("ascii") if isinstance(text, str) else bytes(text)
    if len(raw) > width:
        raise WireError(f"{text!r} is longer than {width} characters")
    return raw.ljust(width)


cdef uint8_t _letter(letter) except? 0:
    if len(letter) != 1 or not 0 < ord(letter) < 128:
        raise WireError(f"{letter!r} is not one ASCII letter")
    return ord(letter)


cdef bytes _message_bytes(uint8_t *packet, size_t length, bint framed):
    if not framed:
        return PyBytes_FromStringAndSize(<char *>packet + FRAME_BYTES, length)
    put_frame(packet, length, c'U')
    return PyBytes_FromStringAndSize(<char *>packet, FRAME_BYTES + length)


def encode_enter(uint32_t user_ref_num, side, uint32_t quantity_lots, symbol,
                 uint64_t price_units, time_in_force="0", client_order="", bint framed=True):
    """An Enter Order without tags (visible, principal, continuous), as a `U` packet or bare.

    Raises WireError for a text that does not fit, OverflowError for a number that does not.
    """
    cdef uint8_t packet[FRAME_BYTES + ENTER_BYTES]
    cdef bytes symbol_bytes = _padded(symbol, 8)
    cdef bytes client_bytes = _padded(client_order, 14)
    length = write_enter(packet + FRAME_BYTES, user_ref_num, _letter(side), quantity_lots,
                         symbol_bytes, price_units, _letter(time_in_force), client_bytes)
    return _message_bytes(packet, length, framed)


def encode_replace(uint32_t orig_user_ref_num, uint32_t user_ref_num, uint32_t quantity_lots,
                   uint64_t price_units, time_in_force="0", client_order="", bint framed=True):
    """A Replace Order Request without tags; `quantity_lots` is the whole chain's liability.

    Raises WireError for a text that does not fit, OverflowError for a number that does not.
    """
    cdef uint8_t packet[FRAME_BYTES + REPLACE_BYTES]
    cdef bytes client_bytes = _padded(client_order, 14)
    length = write_replace(packet + FRAME_BYTES, orig_user_ref_num, user_ref_num, quantity_lots,
                           price_units, _letter(time_in_force), client_bytes)
    return _message_bytes(packet, length, framed)


def encode_cancel(uint32_t user_ref_num, uint32_t quantity_lots=0, bint framed=True):
    """A Cancel Order Request; `quantity_lots` is the new intended size, 0 takes all off."""
    cdef uint8_t packet[FRAME_BYTES + CANCEL_BYTES]
    length = write_cancel(packet + FRAME_BYTES, user_ref_num, quantity_lots)
    return _message_bytes(packet, length, framed)

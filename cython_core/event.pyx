# cython: language_level=3
"""Batches of commands and events, and what Python may see of them.

The layout stands in event.pxd. The hot path works on the structs; this module gives Python the
buffers (for the journal's writes), dictionaries (for `journal dump` and tests) and builders of
commands (for start-up, admin acts and tests). Nothing here runs once per order in the daemon.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from cython_core.model cimport *

from cython_core import model

UNIT_BYTES = 64

cdef object _layouts = (
    ("Event", sizeof(Event)), ("Canceled", sizeof(Canceled)), ("Modified", sizeof(Modified)),
    ("AccountAction", sizeof(AccountAction)), ("Fill", sizeof(Fill)),
    ("ExtOptions", sizeof(ExtOptions)), ("ExtTriggers", sizeof(ExtTriggers)),
    ("ExtClientId", sizeof(ExtClientId)), ("ExtReplace", sizeof(ExtReplace)),
    ("ExtRaw", sizeof(ExtRaw)), ("ExtInstrument", sizeof(ExtInstrument)),
    ("ExtAccount", sizeof(ExtAccount)), ("ExtOrigin", sizeof(ExtOrigin)),
    ("ExtProgress", sizeof(ExtProgress)), ("Rules", sizeof(Rules)),
)
for _name, _size in _layouts:
    if _size != UNIT_BYTES:
        raise ImportError(f"struct {_name} has {_size} bytes, the unit has {UNIT_BYTES}")


cdef class UnitBuffer:
    """A growable array of 64-byte units, readable through the buffer protocol as bytes."""

    def __dealloc__(self):
        free(self.units.data)

    def __len__(self):
        return self.units.count

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("unit buffers are read-only from Python")
        self._shape[0] = self.units.count * sizeof(Event)
        view.buf = self.units.data if self.units.data != NULL else <void *>self._shape
        view.len = self._shape[0]
        view.readonly = 1
        view.itemsize = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = <char *>"B"
        view.ndim = 1
        view.shape = self._shape if flags & PyBUF_ND else NULL
        view.strides = NULL
        if flags & PyBUF_STRIDES == PyBUF_STRIDES:
            view.strides = &view.itemsize
        view.suboffsets = NULL
        view.internal = NULL
        view.obj = self
        self._exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self._exports -= 1

    cdef int _append(self, const void *data, size_t units) except -1:
        if self._exports:
            raise BufferError("the buffer is exported and can't grow")
        units_reserve(&self.units, units)
        memcpy(&self.units.data[self.units.count], data, units * sizeof(Event))
        self.units.count += units
        return 0

    def extend_bytes(self, const unsigned char[::1] data not None):
        """Append whole units from bytes. Raises ValueError for a partial unit."""
        if data.shape[0] % sizeof(Event):
            raise ValueError(f"{data.shape[0]} bytes are not whole units of {sizeof(Event)}")
        if data.shape[0]:
            self._append(&data[0], data.shape[0] // sizeof(Event))

    def clear(self):
        """Forget the units, keep the memory. Raises BufferError while a view is out."""
        if self._exports:
            raise BufferError("the buffer is exported and can't be cleared")
        self.units.count = 0


cdef class EventBatch(UnitBuffer):
    """Event units in log order.

    `first_seq` is the seq of the first event; `event_count` the number of events (extension units
    do not count).
    """

    @staticmethod
    def from_bytes(data, first_seq):
        """A batch over a copy of `data`, whole units. Counts the events."""
        cdef EventBatch batch = EventBatch()
        batch.extend_bytes(data)
        batch.first_seq = first_seq
        batch.event_count = count_events(batch)
        return batch

    def clear(self):
        UnitBuffer.clear(self)
        self.first_seq = 0
        self.event_count = 0

    def dicts(self):
        """The events as dictionaries, see `read_units`."""
        return list(read_units(self, self.first_seq))


cdef class CommandBatch(UnitBuffer):
    """Commands of one source, in order of arrival."""

    def clear(self):
        UnitBuffer.clear(self)
        self.command_count = 0

    def mark(self):
        """Where the batch ends now, for `undo`."""
        return self.units.count, self.command_count

    def undo(self, mark):
        """Take off what was appended since `mark`, so that a datagram counts wholly or not at all.

        Raises ValueError for a mark beyond the end, BufferError while a view is out.
        """
        cdef size_t units, commands
        units, commands = mark
        if self._exports:
            raise BufferError("the buffer is exported and can't be cut")
        if units > self.units.count or commands > self.command_count:
            raise ValueError(f"the batch ends before {mark}")
        self.units.count = units
        self.command_count = commands

    def dicts(self):
        """The commands as dictionaries, see `read_units`."""
        return list(read_units(self, 0))

    def enter(self, account_id, user_ref_num, instrument_id, side, quantity_lots, price_units,
              time_in_force="0", client_order="", user_ref_idx=0, post_only=False,
              min_quantity_lots=0, source=SOURCE_TCP, flags=0, display="Y", capacity="P",
              firm="", request_id=0, order_id=0, actor_account_id=0, key="", reason="",
              client_order_id=""):
        """Append an Enter Order. Side and time in force are OUCH's letters.

        A private order (its source has no stream) has no number: `user_ref_num` 0.
        """
        cdef Event unit
        cdef ExtOptions options
        cdef Private private
        _order_unit(&unit, CMD_ENTER, account_id, user_ref_num, user_ref_idx, instrument_id, side,
                    quantity_lots, price_units, time_in_force, client_order, source)
        unit.attributes = pack_attributes(display, capacity, "N", "N")
        unit.flags = flags | ((FLAG_POST_ONLY | FLAG_POST_ONLY_SET) if post_only else 0)
        _options_unit(&options, min_quantity_lots, firm)
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason,
                       client_order_id)
        self._add(&unit, NULL, &private, &options)

    def replace(self, account_id, orig_user_ref_num, user_ref_num, quantity_lots, price_units,
                time_in_force="0", client_order="", user_ref_idx=0, side="", post_only=None,
                min_quantity_lots=0, source=SOURCE_TCP, flags=0, display="Y", request_id=0,
                order_id=0, actor_account_id=0, key="", reason="", client_order_id=""):
        """Append a Replace; `quantity_lots` is the chain's total. `side` "" and `post_only` None
        keep the original's. A private one names its original by `order_id`."""
        cdef Event unit
        cdef ExtReplace ext
        cdef ExtOptions options
        cdef Private private
        _order_unit(&unit, CMD_REPLACE, account_id, user_ref_num, user_ref_idx, 0, side,
                    quantity_lots, price_units, time_in_force, client_order, source)
        unit.side = 0
        unit.attributes = pack_attributes(display, "A", "N", "N")
        unit.flags = flags
        if post_only is not None:
            unit.flags |= FLAG_POST_ONLY_SET | (FLAG_POST_ONLY if post_only else 0)
        memset(&ext, 0, sizeof(ext))
        ext.kind = EXT_REPLACE
        ext.command_side = ord(side) if side else 0
        ext.orig_user_ref_num = orig_user_ref_num
        ext.chain_quantity_lots = quantity_lots
        _options_unit(&options, min_quantity_lots, "")
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason,
                       client_order_id)
        self._add(&unit, &ext, &private, &options)

    cdef int _add(self, Event *unit, const ExtReplace *replace, const Private *private,
                  const ExtOptions *options) except -1:
        """Append a command with those of its extension units that there are."""
        cdef bint has_options = options != NULL and options.present != 0
        unit.ext_count = ((replace != NULL) + (private.origin.kind != 0)
                          + (private.client_id.kind != 0) + has_options)
        self._append(unit, 1)
        if replace != NULL:
            self._append(replace, 1)
        if private.origin.kind:
            self._append(&private.origin, 1)
        if private.client_id.kind:
            self._append(&private.client_id, 1)
        if has_options:
            self._append(options, 1)
        self.command_count += 1
        return 0

    def cancel(self, account_id, user_ref_num, quantity_lots=0, user_ref_idx=0,
               source=SOURCE_TCP, request_id=0, order_id=0, actor_account_id=0, key="",
               reason=""):
        """Append a Cancel; `quantity_lots` is the new intended size, 0 takes all off.

        A private one names its order by `order_id`, and by its number and channel too if the
        order came by OUCH.
        """
        cdef Event unit
        cdef Private private
        _handle_unit(&unit, CMD_CANCEL, account_id, user_ref_num, user_ref_idx, source)
        unit.quantity_lots = quantity_lots
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        self._add(&unit, NULL, &private, NULL)

    def modify(self, account_id, user_ref_num, side, quantity_lots, user_ref_idx=0,
               source=SOURCE_TCP, request_id=0, order_id=0, actor_account_id=0, key="",
               reason=""):
        """Append a Modify: new side marking and new intended size. OUCH orders only."""
        cdef Event unit
        cdef Private private
        _handle_unit(&unit, CMD_MODIFY, account_id, user_ref_num, user_ref_idx, source)
        unit.quantity_lots = quantity_lots
        unit.side = ord(side)
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        self._add(&unit, NULL, &private, NULL)

    def mass_cancel(self, account_id, user_ref_num, firm="", instrument_id=0, symbol="", side="",
                    group_id=None, user_ref_idx=0, source=SOURCE_TCP, request_id=0, order_id=0,
                    actor_account_id=0, key="", reason=""):
        """Append a Mass Cancel. instrument 0 means every one, `group_id` None any group.

        By OUCH it takes OUCH orders only, from a private source every order of the account.
        """
        cdef AccountAction unit
        cdef Private private
        memset(&unit, 0, sizeof(unit))
        _handle_unit(<Event *>&unit, CMD_MASS_CANCEL, account_id, user_ref_num, user_ref_idx,
                     source)
        unit.instrument_id = instrument_id
        unit.side = ord(side) if side else 0
        _put_text(unit.firm, 4, firm, c' ')
        _put_text(unit.symbol, 8, symbol, c' ')
        if group_id is not None:
            unit.attributes = 1
            unit.group_id = group_id
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        self._add(<Event *>&unit, NULL, &private, NULL)

    def order_entry(self, account_id, user_ref_num, enable, firm="", user_ref_idx=0,
                    source=SOURCE_TCP, request_id=0, order_id=0, actor_account_id=0, key="",
                    reason=""):
        """Append an Enable (True) or Disable (False) Order Entry. From ADMIN it is the kill
        switch, which the account can't undo."""
        cdef AccountAction unit
        cdef Private private
        memset(&unit, 0, sizeof(unit))
        _handle_unit(<Event *>&unit, CMD_ENABLE_ENTRY if enable else CMD_DISABLE_ENTRY,
                     account_id, user_ref_num, user_ref_idx, source)
        _put_text(unit.firm, 4, firm, c' ')
        _put_text(unit.symbol, 8, "", c' ')
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        self._add(<Event *>&unit, NULL, &private, NULL)

    def account_query(self, account_id, user_ref_idx=0, source=SOURCE_TCP, request_id=0,
                      order_id=0, actor_account_id=0, key="", reason=""):
        """Append an Account Query."""
        cdef Event unit
        cdef Private private
        _handle_unit(&unit, CMD_ACCOUNT_QUERY, account_id, 0, user_ref_idx, source)
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        self._add(&unit, NULL, &private, NULL)

    def session_roll(self, source=SOURCE_ADMIN, request_id=0, order_id=0, actor_account_id=0,
                     key="", reason=""):
        """Append a session roll: Day orders end, the next generation begins."""
        cdef Event unit
        cdef Private private
        _handle_unit(&unit, CMD_SESSION_ROLL, 0, 0, 0, source)
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        self._add(&unit, NULL, &private, NULL)

    def halt_instrument(self, instrument_id, source=SOURCE_ADMIN, request_id=0, order_id=0,
                        actor_account_id=0, key="", reason=""):
        """Append a halt: no new orders and replaces until it is resumed. `reason` is kept and
        shown, up to 24 characters."""
        self._add_venue_act(CMD_HALT_INSTRUMENT, instrument_id, 0, 0, source, request_id,
                            order_id, actor_account_id, key, reason)

    def resume_instrument(self, instrument_id, source=SOURCE_ADMIN, request_id=0, order_id=0,
                          actor_account_id=0, key="", reason=""):
        """Append the end of a halt."""
        self._add_venue_act(CMD_RESUME_INSTRUMENT, instrument_id, 0, 0, source, request_id,
                            order_id, actor_account_id, key, reason)

    def admin_act(self, act, account_id=0, instrument_id=0, source=SOURCE_ADMIN, request_id=0,
                  order_id=0, actor_account_id=0, key="", reason=""):
        """Append an act (model.Act) that changes nothing in the matcher, for the log."""
        self._add_venue_act(CMD_ADMIN_ACT, instrument_id, account_id, act, source, request_id,
                            order_id, actor_account_id, key, reason)

    def _add_venue_act(self, kind, instrument_id, account_id, act, source, request_id, order_id,
                       actor_account_id, key, reason):
        cdef Event unit
        cdef Private private
        _handle_unit(&unit, kind, account_id, 0, 0, source)
        unit.instrument_id = instrument_id
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        _origin_unit(&private.origin, source)
        private.origin.act = act
        self._add(&unit, NULL, &private, NULL)

    def set_rules(self, window_ns, kept_min, kept_max, udp_window=0, source=SOURCE_INTERNAL,
                  request_id=0, order_id=0, actor_account_id=0, key="", reason=""):
        """Append how long client order ids are remembered, see client_ids.pxd, and how far behind
        the last number one that was never used is taken over UDP (0 to 1,024; 0: never).

        Raises ValueError for a wider window.
        """
        cdef Rules unit
        cdef Private private
        memset(&unit, 0, sizeof(unit))
        _handle_unit(<Event *>&unit, CMD_SET_RULES, 0, 0, 0, source)
        unit.window_ns = window_ns
        unit.kept_min = kept_min
        unit.kept_max = kept_max
        if not 0 <= udp_window <= UDP_WINDOW_MAX:
            raise ValueError(f"a window of {udp_window} numbers, not 0 to {UDP_WINDOW_MAX}")
        unit.udp_window = udp_window
        _private_units(&private, source, request_id, order_id, actor_account_id, key, reason, "")
        self._add(<Event *>&unit, NULL, &private, NULL)

    def define_instrument(self, instrument_id, symbol, wire_symbol, price_decimals, tick_units,
                          quantity_decimals, lot_size=1, quantity_max_lots=0xFFFFFFFF):
        """Append the definition of an instrument (new, or changed).

        `lot_size` is the lot in units of 10**-quantity_decimals.
        """
        cdef Event unit
        cdef ExtInstrument ext
        _handle_unit(&unit, CMD_DEFINE_INSTRUMENT, 0, 0, 0, SOURCE_INTERNAL)
        unit.instrument_id = instrument_id
        unit.ext_count = 1
        memset(&ext, 0, sizeof(ext))
        ext.kind = EXT_INSTRUMENT
        ext.price_decimals = price_decimals
        ext.quantity_decimals = quantity_decimals
        _put_text(ext.symbol, 24, symbol, 0)
        _put_text(ext.wire_symbol, 8, wire_symbol, c' ')
        ext.lot_size = lot_size
        ext.tick_units = tick_units
        ext.quantity_max_lots = quantity_max_lots
        self._append(&unit, 1)
        self._append(&ext, 1)
        self.command_count += 1

    def define_account(self, account_id, username, firm="", role=0, quantity_max_lots=0,
                       notional_max=0, open_orders_max=0, collar_bps=0, messages_per_second=0):
        """Append the definition of an account (new, or changed limits). Limits of 0 are off."""
        cdef Event unit
        cdef ExtAccount ext
        _handle_unit(&unit, CMD_DEFINE_ACCOUNT, account_id, 0, 0, SOURCE_INTERNAL)
        unit.ext_count = 1
        memset(&ext, 0, sizeof(ext))
        ext.kind = EXT_ACCOUNT
        ext.role = role
        ext.open_orders_max = open_orders_max
        _put_text(ext.username, 24, username, 0)
        _put_text(ext.firm, 4, firm, c' ')
        ext.quantity_max_lots = quantity_max_lots
        ext.notional_max = notional_max
        ext.collar_bps = collar_bps
        ext.messages_per_second = messages_per_second
        self._append(&unit, 1)
        self._append(&ext, 1)
        self.command_count += 1


cdef int _put_text(char *target, Py_ssize_t width, text, char fill) except -1:
    cdef bytes raw = text.encode("ascii")
    if len(raw) > width:
        raise ValueError(f"{text!r} is longer than {width} characters")
    memset(target, fill, width)
    memcpy(target, <const char *>raw, len(raw))
    return 0


cdef int _handle_unit(Event *unit, uint8_t kind, account_id, user_ref_num, user_ref_idx,
                      source) except -1:
    memset(unit, 0, sizeof(Event))
    unit.kind = kind
    unit.account_id = account_id
    unit.user_ref_num = user_ref_num
    unit.user_ref_idx = user_ref_idx
    unit.source = source
    return 0


cdef int _options_unit(ExtOptions *options, min_quantity_lots, firm) except -1:
    memset(options, 0, sizeof(ExtOptions))
    options.kind = EXT_OPTIONS
    if min_quantity_lots:
        options.min_quantity_lots = min_quantity_lots
        options.present |= 1 << 3
    if firm:
        _put_text(options.firm, 4, firm, c' ')
        options.present |= 1 << 2
    return 0


cdef int _origin_unit(ExtOrigin *origin, source) except -1:
    origin.kind = EXT_ORIGIN
    origin.source = source
    return 0


cdef int _private_units(Private *private, source, request_id, order_id, actor_account_id, key,
                        reason, client_order_id) except -1:
    """What a private command carries; a command from inside only if it has something to say."""
    memset(private, 0, sizeof(Private))
    if source == SOURCE_TCP or source == SOURCE_UDP:
        if request_id or order_id or actor_account_id or key or reason or client_order_id:
            raise ValueError("only a private command has an origin and a client order id")
        return 0
    if source != SOURCE_INTERNAL or request_id or order_id or actor_account_id or key or reason:
        _origin_unit(&private.origin, source)
        private.origin.request_id = request_id
        private.origin.order_id = order_id
        private.origin.actor_account_id = actor_account_id
        _put_text(private.origin.key, 16, key, 0)
        _put_text(private.origin.reason, 24, reason, 0)
    if client_order_id:
        private.client_id.kind = EXT_CLIENT_ID
        private.client_id.length = len(client_order_id)
        _put_text(private.client_id.text, 36, client_order_id, 0)
        if "\0" in client_order_id:
            raise ValueError("a client order id has no NUL")
    return 0


cdef int _order_unit(Event *unit, uint8_t kind, account_id, user_ref_num, user_ref_idx,
                     instrument_id, side, quantity_lots, price_units, time_in_force,
                     client_order, source) except -1:
    _handle_unit(unit, kind, account_id, user_ref_num, user_ref_idx, source)
    unit.instrument_id = instrument_id
    unit.side = ord(side) if side else 0
    unit.quantity_lots = quantity_lots
    unit.price_units = price_units
    unit.time_in_force = ord(time_in_force)
    _put_text(unit.client_order, 14, client_order, c' ')
    return 0


def pack_attributes(str display, str capacity, str iso, str cross):
    """Four OUCH letters in one byte. Raises ValueError for a letter OUCH does not have."""
    return ("YNAZ".index(display) | "APRO".index(capacity) << ATTR_CAPACITY_SHIFT
            | "NY".index(iso) << ATTR_ISO_SHIFT | "NOCHSREA".index(cross) << ATTR_CROSS_SHIFT)


def unpack_attributes(int value):
    """The four OUCH letters (display, capacity, ISO, cross type) of an attributes byte."""
    return ("YNAZ"[value & 3], "APRO"[value >> ATTR_CAPACITY_SHIFT & 3],
            "NY"[value >> ATTR_ISO_SHIFT & 1], "NOCHSREA"[value >> ATTR_CROSS_SHIFT & 7])


cdef uint64_t count_units(const Event *data, size_t units) noexcept nogil:
    cdef size_t position = 0
    cdef uint64_t events = 0
    while position < units:
        position += 1 + data[position].ext_count
        events += 1
    return events


def count_events(UnitBuffer buffer not None):
    """Base units in the buffer, that is all units less the extension units."""
    return count_units(buffer.units.data, buffer.units.count)


cdef str _letter(uint8_t value):
    return chr(value) if value else ""


cdef str _text(const char *data, Py_ssize_t width):
    return data[:width].rstrip(b"\0 ").decode("latin-1")


def read_units(data, first_seq=0):
    """Yield each command or event in `data` (bytes-like, whole units) as a dictionary.

    Every dictionary has `seq` (counted on from `first_seq`), `kind` (its lower-case name),
    `account_id`, `instrument_id`, `time_ns`, `source` and what the kind holds besides; extension
    units add their fields. Raises ValueError when the units do not add up.
    """
    cdef const unsigned char[::1] view = data
    cdef Py_ssize_t units = view.shape[0] // sizeof(Event)
    cdef Py_ssize_t position = 0
    cdef const Event *event
    seq = first_seq
    while position < units:
        event = <const Event *>&view[position * sizeof(Event)]
        if position + 1 + event.ext_count > units:
            raise ValueError(f"unit {position} names extension units beyond the end")
        fields = _fields(event)
        for index in range(event.ext_count):
            fields.update(_ext_fields(&event[1 + index], fields))
        yield {"seq": seq, **fields}
        position += 1 + event.ext_count
        seq += 1


cdef dict _fields(const Event *event):
    cdef uint8_t kind = event.kind
    if kind == EV_FILL:
        return _fill_fields(<const Fill *>event)
    rules = kind in (EV_RULES_SET, CMD_SET_RULES)
    fields = {
        "kind": model.KIND_NAMES.get(kind, f"unknown_{kind}"),
        "account_id": event.account_id, "instrument_id": event.instrument_id,
        "time_ns": event.time_ns, "user_ref_num": 0 if rules else event.user_ref_num,
        "user_ref_idx": 0 if rules else event.user_ref_idx,
        "source": model.SOURCE_NAMES[event.source], "first": bool(event.flags & FLAG_FIRST),
    }
    if kind == EV_CANCELED:
        fields.update(_canceled_fields(<const Canceled *>event))
    elif kind == EV_MODIFIED:
        fields.update(_modified_fields(<const Modified *>event))
    elif kind in (CMD_MASS_CANCEL, CMD_DISABLE_ENTRY, CMD_ENABLE_ENTRY, EV_MASS_CANCELED,
                  EV_ENTRY_DISABLED, EV_ENTRY_ENABLED):
        fields.update(_action_fields(<const AccountAction *>event))
    elif kind in (EV_ROLL_STARTED, EV_SESSION_STARTED):
        fields["generation"] = event.order_id
    elif kind in (EV_RULES_SET, CMD_SET_RULES):
        fields.update(_rules_fields(<const Rules *>event))
    elif kind in (EV_INSTRUMENT_HALTED, EV_INSTRUMENT_RESUMED, EV_ADMIN_ACT, CMD_HALT_INSTRUMENT,
                  CMD_RESUME_INSTRUMENT, CMD_ADMIN_ACT):
        pass
    elif kind == EV_ACCOUNT_QUERIED:
        fields["next_user_ref_num"] = event.order_id
    elif kind == EV_REJECTED:
        fields["reason"] = event.order_id & 0xFFFF
        fields["command"] = model.KIND_NAMES[event.order_id >> 16 & 0xFF]
        if event.order_id >> 16 & 0xFF in (CMD_MASS_CANCEL, CMD_DISABLE_ENTRY, CMD_ENABLE_ENTRY):
            fields.update(_action_fields(<const AccountAction *>event))
        else:
            fields.update(_order_fields(event))
    else:
        if event.flags & FLAG_DOOR_REASON and kind < EV_ACCEPTED:
            fields["reason"] = event.order_id & 0xFFFF
        else:
            fields["order_id"] = event.order_id
        fields.update(_order_fields(event))
    return fields


cdef dict _order_fields(const Event *event):
    display, capacity, iso, cross = unpack_attributes(event.attributes)
    return {
        "side": _letter(event.side), "price_units": event.price_units,
        "quantity_lots": event.quantity_lots, "time_in_force": _letter(event.time_in_force),
        "display": display, "capacity": capacity, "iso": iso, "cross": cross,
        "client_order": _text(event.client_order, 14),
        "post_only": bool(event.flags & FLAG_POST_ONLY), "flags": event.flags,
    }


cdef dict _canceled_fields(const Canceled *event):
    return {
        "order_id": event.order_id, "side": _letter(event.side),
        "price_units": event.price_units, "quantity_lots": event.quantity_lots,
        "remaining_lots": event.remaining_lots, "reason": _letter(event.reason),
        "command": model.KIND_NAMES.get(event.command_kind, ""),
        "command_quantity": event.command_quantity,
    }


cdef dict _modified_fields(const Modified *event):
    return {
        "order_id": event.order_id, "side": _letter(event.side),
        "price_units": event.price_units, "quantity_lots": event.quantity_lots,
        "reduced_lots": event.reduced_lots, "previous_side": _letter(event.previous_side),
        "command_side": _letter(event.command_side), "command_quantity": event.command_quantity,
    }


cdef dict _action_fields(const AccountAction *event):
    return {
        "firm": _text(event.firm, 4), "symbol": _text(event.symbol, 8),
        "side": _letter(event.side), "group_id": event.group_id if event.attributes & 1 else None,
    }


cdef dict _rules_fields(const Rules *rules):
    return {"window_ns": rules.window_ns, "kept_min": rules.kept_min, "kept_max": rules.kept_max,
            "udp_window": rules.udp_window}


cdef dict _fill_fields(const Fill *fill):
    return {
        "kind": "fill", "instrument_id": fill.instrument_id, "time_ns": fill.time_ns,
        "price_units": fill.price_units, "quantity_lots": fill.quantity_lots,
        "account_id": fill.taker_account_id, "order_id": fill.taker_order_id,
        "user_ref_num": fill.taker_user_ref_num, "user_ref_idx": fill.taker_user_ref_idx,
        "side": _letter(fill.taker_side), "taker_done": bool(fill.flags & FILL_TAKER_DONE),
        "maker_account_id": fill.maker_account_id, "maker_order_id": fill.maker_order_id,
        "maker_user_ref_num": fill.maker_user_ref_num,
        "maker_user_ref_idx": fill.maker_user_ref_idx,
        "maker_done": bool(fill.flags & FILL_MAKER_DONE), "first": False,
        "taker_private": bool(fill.flags & FILL_TAKER_PRIVATE),
        "maker_private": bool(fill.flags & FILL_MAKER_PRIVATE),
    }


cdef dict _ext_fields(const Event *unit, dict fields):
    if unit.kind == EXT_REPLACE:
        return _replace_fields(<const ExtReplace *>unit)
    if unit.kind == EXT_OPTIONS:
        return {"options": _option_fields(<const ExtOptions *>unit)}
    if unit.kind == EXT_RAW:
        raw = (<const ExtRaw *>unit).data[:(<const ExtRaw *>unit).length]
        return {"raw": fields.get("raw", "") + raw.hex()}
    if unit.kind == EXT_CLIENT_ID:
        return {"client_order_id": _client_text(<const ExtClientId *>unit)}
    if unit.kind == EXT_ORIGIN:
        return _origin_fields(<const ExtOrigin *>unit, fields)
    if unit.kind == EXT_PROGRESS:
        return {"chain_done_lots": (<const ExtProgress *>unit).chain_done_lots}
    if unit.kind == EXT_INSTRUMENT:
        return _instrument_fields(<const ExtInstrument *>unit)
    if unit.kind == EXT_ACCOUNT:
        return _account_fields(<const ExtAccount *>unit)
    if unit.kind == EXT_TRIGGERS:
        return {"triggers": _trigger_fields(<const ExtTriggers *>unit)}
    raise ValueError(f"unit kind {unit.kind} is not an extension")


cdef str _client_text(const ExtClientId *ext):
    return ext.text[:min(ext.length, 36)].decode("latin-1")


cdef dict _origin_fields(const ExtOrigin *ext, dict fields):
    origin = {
        "source": model.SOURCE_NAMES.get(ext.source, ""), "request_id": ext.request_id,
        "order_id": ext.order_id, "actor_account_id": ext.actor_account_id,
        "key": _text(ext.key, 16), "reason": _text(ext.reason, 24),
        "act": model.ACT_NAMES.get(ext.act, ""),
    }
    if "command_quantity" not in fields:
        return {"origin": origin}
    quantity = fields["command_quantity"] | <uint64_t>ext.quantity_high << 32
    return {"origin": origin, "command_quantity": quantity}


cdef dict _replace_fields(const ExtReplace *ext):
    return {
        "orig_user_ref_num": ext.orig_user_ref_num, "orig_order_id": ext.orig_order_id,
        "chain_quantity_lots": ext.chain_quantity_lots, "chain_done_lots": ext.chain_done_lots,
        "orig_price_units": ext.orig_price_units, "orig_open_lots": ext.orig_open_lots,
        "orig_side": _letter(ext.orig_side), "command_side": _letter(ext.command_side),
        "command_flags": ext.command_flags,
        "orig_time_in_force": _letter(ext.orig_time_in_force),
    }


cdef dict _option_fields(const ExtOptions *ext):
    every = {
        2: ("firm", _text(ext.firm, 4)), 3: ("min_quantity_lots", ext.min_quantity_lots),
        4: ("customer_type", _letter(ext.customer_type)),
        5: ("display_quantity_lots", ext.display_quantity_lots),
        6: ("price_type", _letter(ext.price_type)), 7: ("peg_offset_units", ext.peg_offset_units),
        9: ("discretion_price_units", ext.discretion_price_units),
        10: ("discretion_price_type", _letter(ext.discretion_price_type)),
        12: ("post_only_tag", True), 13: ("random_reserves", ext.random_reserves),
        15: ("expire_time_s", ext.expire_time_s), 16: ("trade_now", _letter(ext.trade_now)),
        17: ("handle_inst", _letter(ext.handle_inst)), 24: ("group_id", ext.group_id),
        25: ("shares_located", _letter(ext.shares_located)),
        26: ("locate_broker", _text(ext.locate_broker, 4)),
        29: ("aiq_strategy", _letter(ext.aiq_strategy)),
        30: ("aiq_group", _text(ext.aiq_group, 2)),
    }
    return {name: value for tag, (name, value) in every.items() if ext.present >> tag & 1}


cdef dict _trigger_fields(const ExtTriggers *ext):
    return {
        "trigger": _letter(ext.trigger), "link_group": ext.link_group,
        "stop_price_units": ext.stop_price_units, "expire_at_ns": ext.expire_at_ns,
        "trail_offset_units": ext.trail_offset_units, "order_flags": ext.order_flags,
        "quantity_quote": ext.quantity_quote,
        "discretion_peg_offset_units": ext.discretion_peg_offset_units,
    }


cdef dict _instrument_fields(const ExtInstrument *ext):
    return {
        "symbol": _text(ext.symbol, 24), "wire_symbol": _text(ext.wire_symbol, 8),
        "price_decimals": ext.price_decimals, "quantity_decimals": ext.quantity_decimals,
        "tick_units": ext.tick_units, "lot_size": ext.lot_size,
        "quantity_max_lots": ext.quantity_max_lots, "state": ext.state,
    }


cdef dict _account_fields(const ExtAccount *ext):
    return {
        "username": _text(ext.username, 24), "firm": _text(ext.firm, 4), "role": ext.role,
        "quantity_max_lots": ext.quantity_max_lots, "notional_max": ext.notional_max,
        "open_orders_max": ext.open_orders_max, "collar_bps": ext.collar_bps,
        "messages_per_second": ext.messages_per_second,
    }


def dtype():
    """The Event layout as a numpy dtype, so that `numpy.memmap` opens a segment.

    Raises ImportError where numpy is not installed (it is no dependency of the daemon).
    """
    import numpy
    return numpy.dtype([
        ("kind", "u1"), ("ext_count", "u1"), ("instrument_id", "<u2"), ("account_id", "<u4"),
        ("time_ns", "<u8"), ("order_id", "<u8"), ("price_units", "<i8"),
        ("quantity_lots", "<u8"), ("user_ref_num", "<u4"), ("user_ref_idx", "u1"),
        ("side", "S1"), ("time_in_force", "S1"), ("attributes", "u1"),
        ("client_order", "S14"), ("source", "u1"), ("flags", "u1"),
    ])

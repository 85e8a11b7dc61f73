# One layout for commands and events: units of 64 bytes.
#
# A command is a base unit plus `ext_count` extension units. The matcher's first event for it is
# the same units with another kind and an order id filled in, so the log holds every command whole
# and `journal verify` can take it out again. Fields that a kind does not use are zero.
#
#            0     1    2           4           8        16        24           32
#   Event    kind  ext  instrument  account     time_ns  order_id  price_units  quantity_lots
#            40        44   45    46   47          48             62      63
#            user_ref  idx  side  tif  attributes  client_order[14] source  flags
#
# Other kinds put other things into bytes 48..61; the structs below name them all. Only Fill
# differs before that: its flags are byte 47.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from cython_core.invariant cimport INVARIANT

# Entered, accepted, rejected, replaced, announced.
# A command of any kind uses this layout too, with time_ns 0 until the matcher sets it.
# order_id: the order's id (the seq of its first accepted event);
#   in a command with FLAG_DOOR_REASON the reason; in EV_REJECTED reason | command kind << 16;
#   in roll and session events the generation; in EV_ACCOUNT_QUERIED the next user_ref_num.
# quantity_lots: EV_REPLACED what is open now; CMD_REPLACE the total liability of the chain;
#   CMD_CANCEL and CMD_MODIFY the new intended size.
cdef struct Event:
    uint8_t kind
    uint8_t ext_count
    uint16_t instrument_id
    uint32_t account_id
    uint64_t time_ns
    uint64_t order_id
    int64_t price_units
    uint64_t quantity_lots
    uint32_t user_ref_num
    uint8_t user_ref_idx
    uint8_t side
    uint8_t time_in_force
    uint8_t attributes
    char client_order[14]
    uint8_t source
    uint8_t flags

# EV_CANCELED: quantity_lots came off now. If FLAG_FIRST, command_kind is the command that this is
# the first event of (CMD_CANCEL or CMD_MODIFY) and command_quantity its intended size.
cdef struct Canceled:
    uint8_t kind
    uint8_t ext_count
    uint16_t instrument_id
    uint32_t account_id
    uint64_t time_ns
    uint64_t order_id
    int64_t price_units
    uint64_t quantity_lots
    uint32_t user_ref_num
    uint8_t user_ref_idx
    uint8_t side
    uint8_t time_in_force
    uint8_t attributes
    uint64_t remaining_lots
    uint32_t command_quantity
    uint8_t reason
    uint8_t command_kind
    uint8_t source
    uint8_t flags

# EV_MODIFIED: quantity_lots is open now, reduced_lots came off. command_side is the side asked for.
# When EV_CANCELED came from CMD_MODIFY its time_in_force is the side asked for.
cdef struct Modified:
    uint8_t kind
    uint8_t ext_count
    uint16_t instrument_id
    uint32_t account_id
    uint64_t time_ns
    uint64_t order_id
    int64_t price_units
    uint64_t quantity_lots
    uint32_t user_ref_num
    uint8_t user_ref_idx
    uint8_t side
    uint8_t time_in_force
    uint8_t attributes
    uint64_t reduced_lots
    uint32_t command_quantity
    uint8_t command_side
    uint8_t previous_side
    uint8_t source
    uint8_t flags

# Mass cancel, disable and enable order entry (commands, their events, and their rejects).
# side: 0 or the side asked for. attributes bit 0: group_id is a filter.
cdef struct AccountAction:
    uint8_t kind
    uint8_t ext_count
    uint16_t instrument_id
    uint32_t account_id
    uint64_t time_ns
    uint64_t order_id
    int64_t price_units
    uint64_t quantity_lots
    uint32_t user_ref_num
    uint8_t user_ref_idx
    uint8_t side
    uint8_t time_in_force
    uint8_t attributes
    char firm[4]
    char symbol[8]
    uint16_t group_id
    uint8_t source
    uint8_t flags

# CMD_SET_RULES and EV_RULES_SET: how long the ids that clients gave to private orders are kept
# (client_ids.pxd). kept_min is a number of one account's ids, kept_max of all together. udp_window:
# how far behind the last number one that was never used is still taken over UDP, up to 1,024; 0 in
# logs before layout 3.
cdef struct Rules:
    uint8_t kind
    uint8_t ext_count
    uint16_t instrument_id
    uint32_t account_id
    uint64_t time_ns
    uint64_t order_id
    uint64_t window_ns
    uint64_t kept_min
    uint64_t kept_max
    uint16_t udp_window
    uint8_t reserved[12]
    uint8_t source
    uint8_t flags

# EV_FILL: one event for both sides. The match number is the event's seq. Price is the maker's.
cdef struct Fill:
    uint8_t kind
    uint8_t ext_count
    uint16_t instrument_id
    uint32_t taker_account_id
    uint64_t time_ns
    uint64_t taker_order_id
    int64_t price_units
    uint64_t quantity_lots
    uint32_t taker_user_ref_num
    uint8_t taker_user_ref_idx
    uint8_t taker_side
    uint8_t maker_user_ref_idx
    uint8_t flags
    uint64_t maker_order_id
    uint32_t maker_account_id
    uint32_t maker_user_ref_num

# Optional OUCH tags of an order. `present` has bit t set when tag t (below 32) was given.
cdef struct ExtOptions:
    uint8_t kind
    uint8_t reserved
    uint16_t group_id
    uint32_t present
    uint64_t min_quantity_lots
    uint64_t display_quantity_lots
    uint32_t random_reserves
    uint32_t expire_time_s
    char firm[4]
    int32_t peg_offset_units
    char locate_broker[4]
    uint8_t customer_type
    uint8_t price_type
    uint8_t trade_now
    uint8_t handle_inst
    uint8_t shares_located
    uint8_t discretion_price_type
    uint8_t aiq_strategy
    uint8_t reserved2
    char aiq_group[2]
    uint8_t reserved3[2]
    int64_t discretion_price_units

# Private tags 128-134 (PROTOCOLS 6.5) and what else a later order type needs.
cdef struct ExtTriggers:
    uint8_t kind
    uint8_t trigger
    uint8_t reserved[2]
    uint32_t link_group
    int64_t stop_price_units
    uint64_t expire_at_ns
    int64_t trail_offset_units
    uint64_t order_flags
    uint64_t quantity_quote
    int32_t discretion_peg_offset_units
    uint8_t reserved2[12]

cdef struct ExtClientId:
    uint8_t kind
    uint8_t length
    uint8_t reserved[6]
    char text[36]               # zeros behind the text
    uint8_t reserved2[20]

# Who sent a private command, and what it is about. request_id is the gateway's, to find the answer
# again. order_id is the order to cancel, reduce or replace; in a reject for a client id that is
# remembered, the seq of that id's first answer. source is the command's: a canceled order's event
# has the order's own. quantity_high are the upper 32 bits of a reduction's intended size.
cdef struct ExtOrigin:
    uint8_t kind
    uint8_t act
    uint8_t source
    uint8_t reserved
    uint32_t request_id
    uint64_t order_id
    uint32_t actor_account_id
    uint32_t quantity_high
    char key[16]
    char reason[24]

# What an exported order has done: lots executed by it and by those that it replaced.
cdef struct ExtProgress:
    uint8_t kind
    uint8_t reserved[7]
    uint64_t chain_done_lots
    uint8_t reserved2[48]

# CMD_REPLACE always has one: orig_user_ref_num, command_side (tag 27, 0 = keep) and, after the
# matcher, what the original was. chain_quantity_lots is the total the client asked for. In
# EV_REPLACED the option unit also holds what the original carried over; command_options has the
# bits (as in ExtOptions.present) of the tags that the message itself gave.
cdef struct ExtReplace:
    uint8_t kind
    uint8_t command_side
    uint8_t command_flags
    uint8_t orig_side
    uint32_t orig_user_ref_num
    uint64_t orig_order_id
    uint64_t chain_quantity_lots
    uint64_t chain_done_lots
    int64_t orig_price_units
    uint64_t orig_open_lots
    uint8_t orig_time_in_force
    uint8_t reserved[3]
    uint32_t command_options
    uint8_t reserved2[8]

# A message refused at the door, as it came: 62 bytes a unit.
cdef struct ExtRaw:
    uint8_t kind
    uint8_t length
    char data[62]

cdef struct ExtInstrument:
    uint8_t kind
    uint8_t price_decimals
    uint8_t quantity_decimals
    uint8_t state
    uint8_t reserved[4]
    char symbol[24]
    char wire_symbol[8]
    uint64_t lot_size
    int64_t tick_units
    uint64_t quantity_max_lots

# Limits of 0 are off.
cdef struct ExtAccount:
    uint8_t kind
    uint8_t role
    uint8_t reserved[2]
    uint32_t open_orders_max
    char username[24]
    uint64_t quantity_max_lots
    uint64_t notional_max
    uint32_t collar_bps
    uint32_t messages_per_second
    char firm[4]
    uint8_t reserved2[4]

# The units that only private commands have; kind 0 where there is none.
cdef struct Private:
    ExtOrigin origin
    ExtClientId client_id

# A growable run of units. Inlined, so that writing a unit is a bump of a counter.
cdef struct Units:
    Event *data
    size_t count
    size_t capacity

cdef inline void units_reserve(Units *units, size_t more) noexcept nogil:
    """Make room for `more` units; aborts when memory is out."""
    cdef size_t capacity
    if units.count + more > units.capacity:
        # One order alone makes one or two units, and its batch may be kept for long.
        capacity = units.capacity * 2 if units.capacity >= 4 else 4
        while capacity < units.count + more:
            capacity *= 2
        units.data = <Event *>realloc(units.data, capacity * sizeof(Event))
        INVARIANT(units.data != NULL, "out of memory for units")
        units.capacity = capacity

cdef inline Event *units_next(Units *units) noexcept nogil:
    """The next free unit, uninitialised. Pointers got before may move."""
    if units.count == units.capacity:
        units_reserve(units, 1)
    units.count += 1
    return &units.data[units.count - 1]


cdef class UnitBuffer:
    """Owns a run of units; what commands and events have in common."""
    cdef Units units
    cdef Py_ssize_t _exports
    cdef Py_ssize_t _shape[1]
    cdef int _append(self, const void *data, size_t units) except -1


cdef class EventBatch(UnitBuffer):
    """Events in order. `event_count` leaves extension units out; seqs run on from `first_seq`."""
    cdef public uint64_t first_seq
    cdef public uint64_t event_count


cdef class CommandBatch(UnitBuffer):
    """Commands in order, from one source. A batch of an older generation is ignored."""
    cdef public uint64_t command_count
    cdef public uint16_t generation
    cdef int _add(self, Event *unit, const ExtReplace *replace, const Private *private,
                  const ExtOptions *options) except -1


cdef uint64_t count_units(const Event *data, size_t units) noexcept nogil

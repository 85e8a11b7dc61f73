# The vocabulary every other module shares: kinds, flags, reasons, limits of the wire.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# What the first byte of a 64-byte unit says. Commands, events and the journal's own units
# share one numbering, so a whole segment is one array with a `kind` field.
cdef enum:
    # the journal's own
    KIND_EMPTY = 0
    KIND_SEGMENT_HEADER = 1
    KIND_BLOCK_HEADER = 2
    KIND_PADDING = 3
    # extension units: they follow the unit they extend
    EXT_OPTIONS = 8
    EXT_TRIGGERS = 9
    EXT_CLIENT_ID = 10
    EXT_REPLACE = 11
    EXT_RAW = 12
    EXT_INSTRUMENT = 13
    EXT_ACCOUNT = 14
    EXT_ORIGIN = 15
    EXT_PROGRESS = 16           # in exports only, never in the log
    # commands
    CMD_ENTER = 32
    CMD_REPLACE = 33
    CMD_CANCEL = 34
    CMD_MODIFY = 35
    CMD_MASS_CANCEL = 36
    CMD_DISABLE_ENTRY = 37
    CMD_ENABLE_ENTRY = 38
    CMD_ACCOUNT_QUERY = 39
    CMD_SESSION_ROLL = 40
    CMD_DEFINE_INSTRUMENT = 41
    CMD_DEFINE_ACCOUNT = 42
    CMD_HALT_INSTRUMENT = 43
    CMD_RESUME_INSTRUMENT = 44
    CMD_ADMIN_ACT = 45
    CMD_SET_RULES = 46
    # events
    EV_ACCEPTED = 64
    EV_REJECTED = 65
    EV_REPLACED = 66
    EV_REPLACE_REFUSED = 67
    EV_CANCELED = 68
    EV_MODIFIED = 69
    EV_FILL = 70
    EV_MASS_CANCELED = 71
    EV_ENTRY_DISABLED = 72
    EV_ENTRY_ENABLED = 73
    EV_ACCOUNT_QUERIED = 74
    EV_ROLL_STARTED = 75
    EV_SESSION_STARTED = 76
    EV_ANNOUNCED = 77
    EV_INSTRUMENT_DEFINED = 78
    EV_ACCOUNT_DEFINED = 79
    EV_INSTRUMENT_HALTED = 80
    EV_INSTRUMENT_RESUMED = 81
    EV_ADMIN_ACT = 82
    EV_RULES_SET = 83

# Bits of Event.flags (every kind but EV_FILL).
cdef enum:
    FLAG_POST_ONLY = 1          # the order is post-only (after inheritance on a replace)
    FLAG_POST_ONLY_SET = 2      # the message itself carried tag 12
    FLAG_RATE_EXCEEDED = 4      # the door counted too many messages in this second
    FLAG_DOOR_REASON = 8        # the codec decided the reject; its reason is in order_id
    FLAG_UNSERVED = 16          # ... because the value is valid OUCH but not served
    FLAG_FIRST = 128            # first event of a command: it holds the whole command

# Bits of Fill.flags.
cdef enum:
    FILL_MAKER_DONE = 1         # the maker has nothing left open
    FILL_TAKER_DONE = 2
    FILL_TAKER_PRIVATE = 4      # the order did not come by OUCH: no sequenced message for it
    FILL_MAKER_PRIVATE = 8

# Where a command came from. OUCH sources have a sequenced stream, the others do not.
cdef enum:
    SOURCE_INTERNAL = 0
    SOURCE_TCP = 1
    SOURCE_UDP = 2
    SOURCE_HTTP = 3
    SOURCE_REDIS = 4
    SOURCE_ADMIN = 5

# What an operator did that changes nothing in the matcher (ExtOrigin.act).
cdef enum:
    ACT_NONE = 0
    ACT_DISCONNECT = 1
    ACT_SNAPSHOT = 2
    ACT_OTHER = 3

# Event.attributes packs four one-letter OUCH fields (PROTOCOLS 2.5) into one byte.
#   bits 0-1 display Y N A Z · bits 2-3 capacity A P R O · bit 4 ISO (1 = Y) ·
#   bits 5-7 cross type N O C H S R E A
cdef enum:
    ATTR_CAPACITY_SHIFT = 2
    ATTR_ISO_SHIFT = 4
    ATTR_CROSS_SHIFT = 5

# OUCH reject reasons that the venue uses (PROTOCOLS 2.7).
cdef enum:
    REJECT_DISPLAY = 0x0003
    REJECT_MAX_FLOOR = 0x0004
    REJECT_HALTED = 0x0007
    REJECT_ISO = 0x0008
    REJECT_SIDE = 0x0009
    REJECT_FIRM = 0x000C
    REJECT_MIN_QUANTITY = 0x000D
    REJECT_OTHER = 0x000F
    REJECT_PEG = 0x0011
    REJECT_QUANTITY = 0x0013
    REJECT_CROSS = 0x0014
    REJECT_ROUTE = 0x0016
    REJECT_SYMBOL = 0x0017
    REJECT_PRICE = 0x001D
    REJECT_RISK_OPEN_ORDERS = 0x0020
    REJECT_RISK_COLLAR = 0x0026
    REJECT_RISK_MESSAGE_RATE = 0x0029
    REJECT_RISK_NOTIONAL = 0x0030
    REJECT_RISK_QUANTITY = 0x0031
    REJECT_AIQ = 0x0040

# Reasons that only private commands meet; they are never on the wire.
cdef enum:
    REJECT_UNKNOWN_ORDER = 0x8001       # not live, or not the account's
    REJECT_DUPLICATE_CLIENT_ID = 0x8002
    REJECT_OTHER_DOOR = 0x8003          # only the door that it came by can do this to an order
    REJECT_NOT_SMALLER = 0x8004         # a reduction to what is open, or to more

# Prices of the wire (PROTOCOLS 2.1). An order is a market order at exactly PRICE_MARKET_CROSS
# or from PRICE_MARKET up; between PRICE_LIMIT_MAX and there it has an invalid price.
cdef enum:
    PRICE_LIMIT_MAX = 1999999999
    PRICE_MARKET_CROSS = 2000000000
    PRICE_MARKET = 0x7FFFFFFF

# The widest window of numbers over UDP: how many a channel remembers (used_numbers.pxd).
cdef enum:
    UDP_WINDOW_MAX = 1024

# The version of the matcher's rules. Raise it whenever the same commands may give other events.
# The window of numbers over UDP did not: no command that version 2 ever wrote sets one, and without
# one everything is as it was.
# The version of the layout. Raise it when a reader of the one before would read something wrongly:
# 2 has all of 1, and kinds that 1 does not know; 3 has the window in EV_RULES_SET, without which
# numbers that were overtaken look as if they had been used before.
cdef enum:
    MATCHER_VERSION = 2
    LAYOUT_VERSION = 3

cdef inline bint price_is_market(int64_t price_units) noexcept nogil:
    return price_units >= PRICE_MARKET or price_units == PRICE_MARKET_CROSS

cdef inline bint side_is_buy(uint8_t side) noexcept nogil:
    return side == c'B'

cdef inline bint source_has_stream(uint8_t source) noexcept nogil:
    return source == SOURCE_TCP or source == SOURCE_UDP

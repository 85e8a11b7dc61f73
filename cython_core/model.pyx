# cython: language_level=3
"""The vocabulary for Python: the same constants as model.pxd, as enums and name tables."""

import enum

from cython_core cimport model


class Kind(enum.IntEnum):
    """What the first byte of a unit says."""
    EMPTY = model.KIND_EMPTY
    SEGMENT_HEADER = model.KIND_SEGMENT_HEADER
    BLOCK_HEADER = model.KIND_BLOCK_HEADER
    PADDING = model.KIND_PADDING
    EXT_OPTIONS = model.EXT_OPTIONS
    EXT_TRIGGERS = model.EXT_TRIGGERS
    EXT_CLIENT_ID = model.EXT_CLIENT_ID
    EXT_REPLACE = model.EXT_REPLACE
    EXT_RAW = model.EXT_RAW
    EXT_INSTRUMENT = model.EXT_INSTRUMENT
    EXT_ACCOUNT = model.EXT_ACCOUNT
    EXT_ORIGIN = model.EXT_ORIGIN
    EXT_PROGRESS = model.EXT_PROGRESS
    CMD_ENTER = model.CMD_ENTER
    CMD_REPLACE = model.CMD_REPLACE
    CMD_CANCEL = model.CMD_CANCEL
    CMD_MODIFY = model.CMD_MODIFY
    CMD_MASS_CANCEL = model.CMD_MASS_CANCEL
    CMD_DISABLE_ENTRY = model.CMD_DISABLE_ENTRY
    CMD_ENABLE_ENTRY = model.CMD_ENABLE_ENTRY
    CMD_ACCOUNT_QUERY = model.CMD_ACCOUNT_QUERY
    CMD_SESSION_ROLL = model.CMD_SESSION_ROLL
    CMD_DEFINE_INSTRUMENT = model.CMD_DEFINE_INSTRUMENT
    CMD_DEFINE_ACCOUNT = model.CMD_DEFINE_ACCOUNT
    CMD_HALT_INSTRUMENT = model.CMD_HALT_INSTRUMENT
    CMD_RESUME_INSTRUMENT = model.CMD_RESUME_INSTRUMENT
    CMD_ADMIN_ACT = model.CMD_ADMIN_ACT
    CMD_SET_RULES = model.CMD_SET_RULES
    ACCEPTED = model.EV_ACCEPTED
    REJECTED = model.EV_REJECTED
    REPLACED = model.EV_REPLACED
    REPLACE_REFUSED = model.EV_REPLACE_REFUSED
    CANCELED = model.EV_CANCELED
    MODIFIED = model.EV_MODIFIED
    FILL = model.EV_FILL
    MASS_CANCELED = model.EV_MASS_CANCELED
    ENTRY_DISABLED = model.EV_ENTRY_DISABLED
    ENTRY_ENABLED = model.EV_ENTRY_ENABLED
    ACCOUNT_QUERIED = model.EV_ACCOUNT_QUERIED
    ROLL_STARTED = model.EV_ROLL_STARTED
    SESSION_STARTED = model.EV_SESSION_STARTED
    ANNOUNCED = model.EV_ANNOUNCED
    INSTRUMENT_DEFINED = model.EV_INSTRUMENT_DEFINED
    ACCOUNT_DEFINED = model.EV_ACCOUNT_DEFINED
    INSTRUMENT_HALTED = model.EV_INSTRUMENT_HALTED
    INSTRUMENT_RESUMED = model.EV_INSTRUMENT_RESUMED
    ADMIN_ACT = model.EV_ADMIN_ACT
    RULES_SET = model.EV_RULES_SET


class Source(enum.IntEnum):
    """Where a command came from."""
    INTERNAL = model.SOURCE_INTERNAL
    TCP = model.SOURCE_TCP
    UDP = model.SOURCE_UDP
    HTTP = model.SOURCE_HTTP
    REDIS = model.SOURCE_REDIS
    ADMIN = model.SOURCE_ADMIN


class Act(enum.IntEnum):
    """What an operator did that changes nothing in the matcher."""
    NONE = model.ACT_NONE
    DISCONNECT = model.ACT_DISCONNECT
    SNAPSHOT = model.ACT_SNAPSHOT
    OTHER = model.ACT_OTHER


class Reject(enum.IntEnum):
    """OUCH reject reasons that the venue uses (PROTOCOLS 2.7); from 0x8000 on private ones."""
    DISPLAY = model.REJECT_DISPLAY
    MAX_FLOOR = model.REJECT_MAX_FLOOR
    HALTED = model.REJECT_HALTED
    ISO = model.REJECT_ISO
    SIDE = model.REJECT_SIDE
    FIRM = model.REJECT_FIRM
    MIN_QUANTITY = model.REJECT_MIN_QUANTITY
    OTHER = model.REJECT_OTHER
    PEG = model.REJECT_PEG
    QUANTITY = model.REJECT_QUANTITY
    CROSS = model.REJECT_CROSS
    ROUTE = model.REJECT_ROUTE
    SYMBOL = model.REJECT_SYMBOL
    PRICE = model.REJECT_PRICE
    RISK_OPEN_ORDERS = model.REJECT_RISK_OPEN_ORDERS
    RISK_COLLAR = model.REJECT_RISK_COLLAR
    RISK_MESSAGE_RATE = model.REJECT_RISK_MESSAGE_RATE
    RISK_NOTIONAL = model.REJECT_RISK_NOTIONAL
    RISK_QUANTITY = model.REJECT_RISK_QUANTITY
    AIQ = model.REJECT_AIQ
    UNKNOWN_ORDER = model.REJECT_UNKNOWN_ORDER
    DUPLICATE_CLIENT_ID = model.REJECT_DUPLICATE_CLIENT_ID
    OTHER_DOOR = model.REJECT_OTHER_DOOR
    NOT_SMALLER = model.REJECT_NOT_SMALLER


class Flag(enum.IntFlag):
    """Bits of an event's flags."""
    POST_ONLY = model.FLAG_POST_ONLY
    POST_ONLY_SET = model.FLAG_POST_ONLY_SET
    RATE_EXCEEDED = model.FLAG_RATE_EXCEEDED
    DOOR_REASON = model.FLAG_DOOR_REASON
    UNSERVED = model.FLAG_UNSERVED
    FIRST = model.FLAG_FIRST


KIND_NAMES = {int(kind): kind.name.lower() for kind in Kind}
SOURCE_NAMES = {int(source): source.name.lower() for source in Source}
ACT_NAMES = {int(act): act.name.lower() for act in Act}
LIMIT_PRICE_MAX_UNITS = model.PRICE_LIMIT_MAX
MARKET_PRICE_UNITS = model.PRICE_MARKET
MATCHER_SEMANTICS_VERSION = model.MATCHER_VERSION
EVENT_LAYOUT_VERSION = model.LAYOUT_VERSION

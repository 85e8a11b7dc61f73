# Runs of events as rows of tables: the layout that rows.pyx fills and pgcopy.pyx encodes.
#
# Every table is an array of structs, and a list of columns that says where in the struct a value
# stands and of which kind it is; what reads rows needs nothing else. All integers are int64, with
# NONE where SQL has NULL. Texts are numbers: words that live as long as the Rows (bit 31 clear), or
# places in a run's own texts (bit 31 set), 0 where SQL has NULL.

from libc.stddef cimport size_t
from libc.stdint cimport INT64_MIN as NONE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    INSTRUMENTS = 0
    INSTRUMENT_CHANGES = 1
    ACCOUNTS = 2
    ACCOUNT_CHANGES = 3
    ORDERS = 4
    ORDER_CHANGES = 5
    ORDER_HEIRS = 6
    ORDER_EVENTS = 7
    TRADES = 8
    CANDLES = 9
    POSITIONS = 10
    TABLES = 11
    COLUMNS_MAX = 24

# Kinds of columns.
cdef enum:
    INT = 0                     # int64_t; NONE is NULL
    BOOL = 1                    # uint8_t; 2 is NULL
    WORD = 2                    # uint32_t, a text of few values
    TEXT = 3                    # uint32_t, any text
    WIDE = 4                    # Wide, never NULL

cdef struct Wide:               # an unsigned integer of 128 bits
    uint64_t low
    uint64_t high

cdef struct Column:
    uint8_t kind
    uint16_t offset

cdef struct RowSet:
    char *items
    size_t row_bytes
    size_t count
    size_t capacity
    uint32_t column_count
    Column columns[COLUMNS_MAX]

# Bytes one behind the other; a text is its length in two bytes and then its UTF-8.
cdef struct Arena:
    char *data
    size_t used
    size_t capacity

# From 64-bit keys to numbers of rows. Cells of another epoch are free.
cdef struct Cell:
    uint64_t key
    uint32_t value
    uint32_t epoch

cdef struct Places:
    Cell *cells
    size_t mask
    size_t count
    uint32_t epoch

# The newest candles of a market in this run: the number of their rows, from 1.
cdef struct Market:
    uint64_t candle_end_ns[4]
    uint32_t candle[4]
    uint32_t epoch

cdef struct Tables:
    RowSet sets[TABLES]
    uint32_t kept               # bits of tables
    uint64_t applied_seq
    uint64_t last_time_ns
    uint64_t taken              # events since the last clear
    Arena words
    size_t *word_places
    uint32_t word_count
    uint32_t word_capacity
    Places word_finder          # by hash; who finds compares
    Arena texts
    Market *markets             # by the word of the symbol
    uint32_t market_capacity
    uint32_t epoch
    Places orders               # rows of ORDERS, with CHANGE rows of ORDER_CHANGES
    Places positions
    Places instruments
    Places instrument_changes
    Places accounts
    Places account_changes
    uint32_t *symbols           # by instrument id
    uint32_t *reject_words      # by reason
    uint32_t cancel_words[256]
    uint32_t kind_words[256]
    uint32_t source_words[256]
    uint32_t role_words[256]

cdef inline const char *text_of(const Tables *tables, uint32_t value,
                                uint16_t *length) noexcept nogil:
    """The UTF-8 of a text that is not NULL."""
    cdef const char *at
    if value >> 31:
        at = tables.texts.data + (value & 0x7FFFFFFF)
    else:
        at = tables.words.data + tables.word_places[value]
    length[0] = (<const uint16_t *>at)[0]
    return at + 2


cdef class Rows:
    cdef Tables tables
    cdef list _strings
    cdef int table_number(self, table) except -1
    cdef uint32_t _word(self, str name) except? 0
    cdef object _value(self, const RowSet *rows, size_t index, size_t column)
    cdef object _string(self, uint32_t value)
    cdef RowSet _slice(self, int number, size_t start, stop) except *
    cdef tuple _texts(self, const RowSet *rows, size_t column)

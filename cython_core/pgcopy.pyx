# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Rows as PostgreSQL's binary COPY wants them, without a Python object per row.

A stream is a header, rows and a trailer. A row is the number of its fields in two bytes and then
each field: its length in four bytes, -1 for NULL, and its value, all big-endian.
"""

from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from cython_core.invariant cimport INVARIANT
from cython_core.rows cimport *

from cython_core import rows as row_tables

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline char *put16(char *out, uint16_t value) {
        value = __builtin_bswap16(value);
        memcpy(out, &value, 2);
        return out + 2;
    }
    static inline char *put32(char *out, uint32_t value) {
        value = __builtin_bswap32(value);
        memcpy(out, &value, 4);
        return out + 4;
    }
    static inline char *put64(char *out, uint64_t value) {
        value = __builtin_bswap64(value);
        memcpy(out, &value, 8);
        return out + 8;
    }
    /* Divide a number of 128 bits by 10,000; returns what remains. */
    static inline uint32_t wide_digit(uint64_t *low, uint64_t *high) {
        unsigned __int128 value = (unsigned __int128)*high << 64 | *low;
        uint32_t digit = (uint32_t)(value % 10000);
        value /= 10000;
        *low = (uint64_t)value;
        *high = (uint64_t)(value >> 64);
        return digit;
    }
    """
    char *put16(char *out, uint16_t value) noexcept nogil
    char *put32(char *out, uint32_t value) noexcept nogil
    char *put64(char *out, uint64_t value) noexcept nogil
    uint32_t wide_digit(uint64_t *low, uint64_t *high) noexcept nogil

cdef enum:
    INT8 = 0
    INT4 = 1
    INT2 = 2
    BOOLEAN = 3
    TEXTS = 4
    NUMERIC = 5
    TIMESTAMP = 6               # of nanoseconds since 1970
    FIELDS_MAX = 28
    FIELD_BYTES_MAX = 4 + 8 + 2 * 10
    HEADER_BYTES = 19

cdef struct Field:
    uint8_t kind
    uint8_t column              # of the rows

# What PostgreSQL counts from, in microseconds since 1970: the year 2000.
cdef int64_t EPOCH_US = 946684800000000
cdef const char *HEADER = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"

_TYPES = {INT: "bigint", BOOL: "boolean", WORD: "text", TEXT: "text", WIDE: "numeric"}
_NARROW = {"instrument_id": "integer", "interval_s": "integer", "price_decimals": "smallint",
           "quantity_decimals": "smallint", "user_ref_idx": "smallint"}
_KINDS = {"bigint": INT8, "integer": INT4, "smallint": INT2, "boolean": BOOLEAN, "text": TEXTS,
          "numeric": NUMERIC, "timestamptz": TIMESTAMP}


cdef tuple columns_of(Rows rows, str table):
    """((name, type), the column of Rows it is made of) of each column, times of day included."""
    cdef const RowSet *set = &rows.tables.sets[rows.table_number(table)]
    cdef uint8_t place = 0
    found = []
    for name in row_tables.COLUMNS[table]:
        if name.endswith("time_ns"):
            found.append(((name.removesuffix("_ns"), "timestamptz"), place))
        found.append(((name, _NARROW.get(name, _TYPES[set.columns[place].kind])), place))
        place += 1
    return tuple(found)


cdef dict _fields = {table: columns_of(Rows(0, {}, {}, {}), table) for table in row_tables.COLUMNS}
# The columns of every table and their types in PostgreSQL, in the order of the stream.
COLUMNS = {table: tuple(column for column, _ in fields) for table, fields in _fields.items()}


cdef char *put_time(char *out, int64_t time_ns) noexcept nogil:
    """A timestamptz: microseconds since 2000, what is below is cut off."""
    return put64(put32(out, 8), <uint64_t>(time_ns // 1000 - EPOCH_US))


cdef char *put_numeric(char *out, const Wide *wide) noexcept nogil:
    """A numeric without decimals: digits of base 10,000, the highest first, no zeros at the end."""
    cdef uint16_t digits[10]
    cdef uint64_t low = wide.low
    cdef uint64_t high = wide.high
    cdef int count = 0
    cdef int first = 0
    cdef int index
    while low or high:
        digits[count] = <uint16_t>wide_digit(&low, &high)
        count += 1
    while first < count and digits[first] == 0:
        first += 1
    out = put32(out, <uint32_t>(8 + 2 * (count - first)))
    out = put16(out, <uint16_t>(count - first))
    out = put16(out, <uint16_t>(count - 1 if count else 0))
    out = put32(out, 0)         # sign and scale
    for index in range(count - 1, first - 1, -1):
        out = put16(out, digits[index])
    return out


cdef inline char *put_number(char *out, uint8_t kind, int64_t number) noexcept nogil:
    if number == NONE:
        return put32(out, 0xFFFFFFFF)
    if kind == INT8:
        return put64(put32(out, 8), <uint64_t>number)
    if kind == TIMESTAMP:
        return put_time(out, number)
    if kind == INT4:
        return put32(put32(out, 4), <uint32_t>number)
    return put16(put32(out, 2), <uint16_t>number)


cdef inline char *put_text(char *out, const Tables *tables, uint32_t value) noexcept nogil:
    cdef uint16_t length
    cdef const char *text
    if value == 0:
        return put32(out, 0xFFFFFFFF)
    text = text_of(tables, value, &length)
    out = put32(out, length)
    memcpy(out, text, length)
    return out + length


cdef inline char *put_bool(char *out, uint8_t value) noexcept nogil:
    if value > 1:
        return put32(out, 0xFFFFFFFF)
    out = put32(out, 1)
    out[0] = <char>value
    return out + 1


cdef char *put_row(char *out, const Tables *tables, const RowSet *rows, const char *row,
                   const Field *fields, uint32_t count) noexcept nogil:
    cdef uint32_t index
    cdef const char *at
    cdef uint8_t kind
    out = put16(out, <uint16_t>count)
    for index in range(count):
        kind = fields[index].kind
        at = row + rows.columns[fields[index].column].offset
        if kind == TEXTS:
            out = put_text(out, tables, (<const uint32_t *>at)[0])
        elif kind == BOOLEAN:
            out = put_bool(out, (<const uint8_t *>at)[0])
        elif kind == NUMERIC:
            out = put_numeric(out, <const Wide *>at)
        else:
            out = put_number(out, kind, (<const int64_t *>at)[0])
    return out


cdef size_t text_bytes(const Tables *tables, const RowSet *rows, const char *row) noexcept nogil:
    """What the texts of a row take, without their lengths."""
    cdef size_t total = 0
    cdef uint16_t length
    cdef uint32_t index, value
    for index in range(rows.column_count):
        if rows.columns[index].kind == TEXT or rows.columns[index].kind == WORD:
            value = (<const uint32_t *>(row + rows.columns[index].offset))[0]
            if value:
                text_of(tables, value, &length)
                total += length
    return total


cdef char *put_rows(const Tables *tables, const RowSet *rows, size_t start, size_t end,
                    const Field *fields, uint32_t count, size_t *written) noexcept nogil:
    """The whole stream, in memory that the caller frees; NULL when there is none."""
    cdef size_t row_max = 2 + <size_t>count * FIELD_BYTES_MAX
    cdef size_t capacity = HEADER_BYTES + 2 + (end - start) * (row_max // 2) + row_max
    cdef size_t used = HEADER_BYTES
    cdef size_t index
    cdef const char *row
    cdef char *data = <char *>realloc(NULL, capacity)
    cdef char *grown
    if data == NULL:
        return NULL
    memcpy(data, HEADER, HEADER_BYTES)
    for index in range(start, end):
        row = rows.items + index * rows.row_bytes
        if used + row_max + text_bytes(tables, rows, row) + 2 > capacity:
            capacity = capacity * 2 + (1 << 18)
            grown = <char *>realloc(data, capacity)
            if grown == NULL:
                free(data)
                return NULL
            data = grown
        used = <size_t>(put_row(data + used, tables, rows, row, fields, count) - data)
    put16(data + used, 0xFFFF)
    written[0] = used + 2
    return data


def encode(Rows rows not None, str table, size_t start=0, stop=None):
    """The rows start..stop of a table as one stream for COPY ... FROM STDIN (FORMAT binary), with
    the columns of COLUMNS. KeyError: there is no such table."""
    cdef const RowSet *found = &rows.tables.sets[rows.table_number(table)]
    cdef size_t end = found.count if stop is None else min(<size_t>stop, found.count)
    cdef Field fields[FIELDS_MAX]
    cdef uint32_t count = 0
    cdef size_t written = 0
    cdef char *data
    for (_, type_name), place in _fields[table]:
        INVARIANT(count < FIELDS_MAX, "a table has few columns")
        fields[count].kind = _KINDS[type_name]
        fields[count].column = place
        count += 1
    start = min(start, end)
    with nogil:
        data = put_rows(&rows.tables, found, start, end, fields, count, &written)
    if data == NULL:
        raise MemoryError("no memory for a COPY stream")
    try:
        return PyByteArray_FromStringAndSize(data, written)
    finally:
        free(data)

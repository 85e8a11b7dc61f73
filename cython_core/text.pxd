# Integers as exact decimal texts, made without a division by ten per digit where it can be avoided.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef MATCHD_TEXT_H
    #define MATCHD_TEXT_H
    #include <stdint.h>
    #include <string.h>
    #include <Python.h>
    #define TEXT_BYTES 64
    static const char text_pairs[] =
        "00010203040506070809" "10111213141516171819" "20212223242526272829"
        "30313233343536373839" "40414243444546474849" "50515253545556575859"
        "60616263646566676869" "70717273747576777879" "80818283848586878889"
        "90919293949596979899";
    /* The digits of `value`, written so that they end before `end`. Returns where they begin. */
    static inline char *text_digits(char *end, uint64_t value) {
        while (value >= 100) {
            end -= 2;
            memcpy(end, text_pairs + 2 * (value % 100), 2);
            value /= 100;
        }
        if (value >= 10) {
            end -= 2;
            memcpy(end, text_pairs + 2 * value, 2);
        } else {
            *--end = (char)('0' + value);
        }
        return end;
    }
    /* a * b as digits: the product may have 128 bits. */
    static inline char *text_product(char *end, uint64_t a, uint64_t b) {
        unsigned __int128 value = (unsigned __int128)a * b;
        while (value >> 64) {
            *--end = (char)('0' + (int)(value % 10));
            value /= 10;
        }
        return text_digits(end, (uint64_t)value);
    }
    /* a * b / 10**decimals as a str, exact, with all decimals; decimals is at most 20. */
    static inline PyObject *text_decimal(uint64_t a, uint64_t b, int decimals) {
        char buffer[TEXT_BYTES];
        char *end = buffer + TEXT_BYTES;
        char *start = text_product(end, a, b);
        Py_ssize_t length, whole;
        PyObject *text;
        char *out;
        while (end - start <= decimals) *--start = '0';
        length = end - start;
        whole = length - decimals;
        text = PyUnicode_New(length + (decimals > 0), 127);
        if (text == NULL) return NULL;
        out = (char *)PyUnicode_1BYTE_DATA(text);
        memcpy(out, start, whole);
        if (decimals > 0) {
            out[whole] = '.';
            memcpy(out + whole + 1, start + whole, decimals);
        }
        return text;
    }
    #endif
    """
    char *text_digits(char *end, uint64_t value) noexcept nogil
    char *text_product(char *end, uint64_t a, uint64_t b) noexcept nogil
    object text_decimal(uint64_t a, uint64_t b, int decimals)

cdef enum:
    TEXT_DECIMALS_MAX = 20

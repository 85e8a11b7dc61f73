# A histogram of nanoseconds with 64 steps to each power of two: 1.6 % wide at worst, any value
# up to 68 s. Recording is a shift and an add, so it can stand in the load generator's hot path.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    SUB_BITS = 6
    SUB_COUNT = 64
    VALUE_BITS = 36
    BUCKETS = (VALUE_BITS - SUB_BITS + 1) * SUB_COUNT

cdef extern from *:
    int clzll "__builtin_clzll"(unsigned long long value) nogil

cdef struct Buckets:
    uint64_t count
    uint64_t value_max
    uint64_t value_sum
    uint32_t counts[BUCKETS]

cdef inline uint32_t bucket_of(uint64_t value) noexcept nogil:
    """The bucket that holds `value`; values past the range fall into the last one."""
    cdef uint32_t shift
    if value < SUB_COUNT:
        return <uint32_t>value
    if value >> VALUE_BITS:
        return BUCKETS - 1
    shift = 63 - clzll(value) - SUB_BITS
    return <uint32_t>((<uint64_t>shift << SUB_BITS) + (value >> shift))

cdef inline uint64_t bucket_top(uint32_t bucket) noexcept nogil:
    """The highest value of a bucket."""
    cdef uint32_t shift
    if bucket < SUB_COUNT:
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    return ((<uint64_t>(bucket & (SUB_COUNT - 1)) + SUB_COUNT + 1) << shift) - 1

cdef inline void record(Buckets *buckets, uint64_t value) noexcept nogil:
    buckets.counts[bucket_of(value)] += 1
    buckets.count += 1
    buckets.value_sum += value
    if value > buckets.value_max:
        buckets.value_max = value


cdef class Histogram:
    """Owns buckets; what Python sees of them."""
    cdef Buckets buckets

# Checks of an account's limits before an order may match. Inline: they run once per order.
#
# Each returns an OUCH reject reason, or 0. A limit of 0 is off. Reference prices come from the
# book, so the same log gives the same answers.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cython_core.model cimport (REJECT_RISK_COLLAR, REJECT_RISK_NOTIONAL, REJECT_RISK_QUANTITY)

cdef extern from *:
    """
    #ifndef MATCHD_PRODUCT_H
    #define MATCHD_PRODUCT_H
    static inline int product_exceeds(unsigned long long a, unsigned long long b,
                                      unsigned long long limit) {
        return (unsigned __int128)a * b > limit;
    }
    #endif
    """
    bint product_exceeds(uint64_t a, uint64_t b, uint64_t limit) noexcept nogil

cdef struct Limits:
    uint64_t quantity_max_lots
    uint64_t notional_max       # price units times lots
    uint32_t open_orders_max
    uint32_t collar_bps

cdef inline uint32_t risk_quantity(const Limits *limits, uint64_t quantity_lots) noexcept nogil:
    if limits.quantity_max_lots and quantity_lots > limits.quantity_max_lots:
        return REJECT_RISK_QUANTITY
    return 0

cdef inline uint32_t risk_notional(const Limits *limits, int64_t price_units,
                                   uint64_t quantity_lots) noexcept nogil:
    """`price_units` 0 or below: there is no price to go by, so nothing is checked."""
    if limits.notional_max and price_units > 0 \
            and product_exceeds(<uint64_t>price_units, quantity_lots, limits.notional_max):
        return REJECT_RISK_NOTIONAL
    return 0

cdef inline uint32_t risk_collar(const Limits *limits, int64_t price_units,
                                 int64_t reference_units) noexcept nogil:
    """Both prices are limit prices, so the products stay below 2**63."""
    cdef int64_t distance = price_units - reference_units
    if distance < 0:
        distance = -distance
    if limits.collar_bps and reference_units > 0 \
            and distance * 10000 > <int64_t>limits.collar_bps * reference_units:
        return REJECT_RISK_COLLAR
    return 0

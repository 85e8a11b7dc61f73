# cython: language_level=3
"""The risk checks for Python, one by one: what would the venue say to this order?

The checks themselves are inline in risk.pxd, where the matcher takes them from.
"""


def check_order(price_units, quantity_lots, reference_units=0, *, quantity_max_lots=0,
                notional_max=0, collar_bps=0):
    """The OUCH reject reason for a limit order, or 0, in the matcher's order of checks.

    Prices are in wire units, `notional_max` in price units times lots. A limit of 0 is off;
    `reference_units` 0 means that there is no trade and no quote to go by. Raises OverflowError
    for a number that is not of the wire's width.
    """
    cdef Limits limits
    cdef uint32_t reason
    limits.quantity_max_lots = quantity_max_lots
    limits.notional_max = notional_max
    limits.open_orders_max = 0
    limits.collar_bps = collar_bps
    reason = risk_quantity(&limits, quantity_lots)
    if reason == 0:
        reason = risk_notional(&limits, price_units, quantity_lots)
    if reason == 0:
        reason = risk_collar(&limits, price_units, reference_units)
    return reason

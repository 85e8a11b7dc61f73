def check_order(
    price_units: int,
    quantity_lots: int,
    reference_units: int = 0,
    *,
    quantity_max_lots: int = 0,
    notional_max: int = 0,
    collar_bps: int = 0,
) -> int: ...

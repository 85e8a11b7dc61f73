"""The deterministic core of matchd: no I/O, no clock, no asyncio, no logging."""

"""Rows of `matchd export`: a year of one market's minute candles, and rows made of events."""

from bench.measure import TINY, Pace, Row
from bench.rows_core import run_module

# Days in the log, runs of which the median counts.
FULL_EXPORT = (365, 15)
QUICK_EXPORT = (365, 5)
TINY_EXPORT = (2, 1)
CHART_TARGET_MS = 50
# Operations whose events become rows and COPY streams.
FULL_ROWS, QUICK_ROWS, TINY_ROWS = 2_000_000, 500_000, 5_000
ROWS_TARGET = 1e6


def export(pace: Pace) -> list[Row]:
    """How fast a file reads back, beside the same as CSV; how fast it is made."""
    days, runs = TINY_EXPORT if pace is TINY else QUICK_EXPORT if pace.quick else FULL_EXPORT
    found = run_module("bench.export", str(days), str(runs))
    what = f"{days} days of minute candles in Parquet"
    return [
        Row("export-chart", f"{what}, time, open, high, low, close, volume into memory", "ms",
            found["parquet_chart_ms"], "the same from CSV", found["csv_chart_ms"],
            CHART_TARGET_MS, None, False, found),
        Row("export-whole", f"{what}, all 15 columns into memory", "ms",
            found["parquet_whole_ms"], "the same from CSV", found["csv_whole_ms"], None, None,
            False),
        Row("export-speed", "candles out of the journal into Parquet", "events/s",
            found["parquet_events_per_second"]),
        rows(pace)]


def rows(pace: Pace) -> Row:
    """Events of the canonical flow as rows of all tables, encoded as binary COPY."""
    operations = TINY_ROWS if pace is TINY else QUICK_ROWS if pace.quick else FULL_ROWS
    found = run_module("bench.rowcopy", str(operations))
    return Row("rows", "events into rows of all tables and binary COPY, one thread", "events/s",
               found["events_per_second"], target=ROWS_TARGET, details=found)

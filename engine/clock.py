"""The only file that reads a clock, so that a test can see where time comes in."""

import time

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_S


def now_ns() -> int:
    """Nanoseconds since 1970 UTC, as the system's clock says; it may step back."""
    return time.time_ns()


def monotonic_ns() -> int:
    """Nanoseconds on a clock that never steps back; only differences mean something."""
    return time.monotonic_ns()


def monotonic_s() -> float:
    """Seconds on the same clock that asyncio's loops use."""
    return time.monotonic()


def ns_since_midnight(time_ns: int) -> int:
    """What OUCH calls a timestamp: nanoseconds since midnight UTC."""
    return time_ns % NS_PER_DAY


def next_daily_ns(second_of_day: int, after_ns: int) -> int:
    """The first moment after `after_ns` at which the UTC clock shows this second of the day."""
    at_ns = after_ns - after_ns % NS_PER_DAY + second_of_day * NS_PER_S
    return at_ns if at_ns > after_ns else at_ns + NS_PER_DAY


def yield_core() -> None:
    """Let another thread have the interpreter and the core, if one waits. Not for the loop."""
    time.sleep(0)

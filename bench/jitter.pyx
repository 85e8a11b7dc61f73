# cython: language_level=3
"""How long a core is away: gaps that a loop sees which does nothing but read the clock."""

from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

# What a loop of clock readings takes by itself is far below; a tick of the kernel is not.
cdef enum:
    GAP_NS = 5_000


cdef uint64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1_000_000_000 + <uint64_t>now.tv_nsec


def lost_time(double seconds):
    """Watch the core that we run on. Returns the share of time lost and the longest gap (us)."""
    cdef uint64_t started, now, previous, until
    cdef uint64_t lost = 0
    cdef uint64_t longest = 0
    with nogil:
        started = previous = now = clock_ns()
        until = started + <uint64_t>(seconds * 1e9)
        while now < until:
            now = clock_ns()
            if now - previous > GAP_NS:
                lost += now - previous
                if now - previous > longest:
                    longest = now - previous
            previous = now
    return {"share": lost / (now - started), "longest_us": longest / 1000}

from libc.stdint cimport uint32_t, uint64_t

from cython_core.event cimport Event, EventBatch, Units
from cython_core.state cimport State

# What one run over a batch needs at hand.
cdef struct Run:
    State *state
    Units *events
    uint64_t time_ns
    uint64_t *counts            # events written, by kind


cdef class Matcher:
    cdef State state
    cdef uint64_t _counts[256]
    cdef uint64_t _commands
    cdef uint64_t _stale
    cdef uint64_t _answered
    cdef Py_ssize_t _views      # regions of a save() that are still held

    cdef int _check_free(self) except -1
    cdef void _finish(self, EventBatch events, uint64_t first, uint64_t time_ns) noexcept nogil
    cdef long long _compare(self, const Units *expected, EventBatch events, Units *scratch,
                            const char **trouble) noexcept nogil
    cdef int _export_books(self, EventBatch batch, uint32_t number) except -1
    cdef int _export(self, EventBatch batch, uint32_t slot) except -1

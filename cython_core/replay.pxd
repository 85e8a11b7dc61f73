from cython_core.event cimport Event, Units
from cython_core.state cimport State

# Both return NULL, or what is wrong with the events.
cdef const char *replay_units(State *state, const Event *events, size_t units) noexcept nogil
cdef const char *command_of(const Event *event, size_t units, Units *commands) noexcept nogil

from libc.stdint cimport uint8_t

from cython_core.state cimport Account, State

cdef list list_orders(const State *state, instrument_id)
cdef tuple list_levels(const State *state, instrument_id, depth)
cdef list list_missing(const State *state, const Account *account, uint8_t channel)
cdef dict list_accounts(const State *state)
cdef dict list_instruments(const State *state)
cdef object check_state(const State *state)
cdef bytes hash_state(const State *state)
cdef list save_state(object owner, State *state, Py_ssize_t *views)
cdef int load_state(State *state, data) except -1

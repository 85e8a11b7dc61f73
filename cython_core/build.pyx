# cython: language_level=3
"""How the core was compiled. A bench on a debug build would lie, so it asks here first."""

cdef extern from *:
    """
    #ifdef CORE_DEBUG
    #define MATCHD_BUILD_MODE "debug"
    #else
    #define MATCHD_BUILD_MODE "release"
    #endif
    """
    const char *MATCHD_BUILD_MODE

BUILD_MODE = (<bytes>MATCHD_BUILD_MODE).decode("ascii")

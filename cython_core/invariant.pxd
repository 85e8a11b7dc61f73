# Invariants: checks that stay in every build and stop the process when they fail.
#
# `assert` stops nothing inside `noexcept` code, so core code says INVARIANT(condition, "text").
# The abort line names the .pyx file and line, because the build sets emit_linenums.
# DEBUG_INVARIANT is for walks that are too slow for the release build (CORE_DEBUG=1 only).

cdef extern from *:
    """
    #ifndef MATCHD_INVARIANT_H
    #define MATCHD_INVARIANT_H
    #include <stdio.h>
    #include <stdlib.h>
    #define INVARIANT(condition, text)                                              \\
        do {                                                                        \\
            if (__builtin_expect(!(condition), 0)) {                                \\
                fprintf(stderr, "invariant broken: %s (%s:%d)\\n", (text), __FILE__, \\
                        __LINE__);                                                  \\
                fflush(stderr);                                                     \\
                abort();                                                            \\
            }                                                                       \\
        } while (0)
    #ifdef CORE_DEBUG
    #define DEBUG_INVARIANT(condition, text) INVARIANT(condition, text)
    #else
    #define DEBUG_INVARIANT(condition, text) do { } while (0)
    #endif
    #endif
    """
    void INVARIANT(bint condition, const char *text) noexcept nogil
    void DEBUG_INVARIANT(bint condition, const char *text) noexcept nogil

# cython: language_level=3
"""Anchors of the network rows: echo servers in C, and a pipelined client for Redis.

Both do the least that can be done, so that the figure beside ours is the machine's and not ours.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memmove

from bench.histogram cimport Histogram, record
from bench.net cimport (MSG_NOSIGNAL, MSG_WAITFORONE, clock_ns, iovec, mmsghdr, recv, recvmmsg,
                        send_all, sendmmsg)

import socket
import time

cdef enum:
    ECHO_BYTES = 1 << 20
    BATCH = 64                  # datagrams in one call of the kernel
    SLOT_BYTES = 1 << 13
    ADDRESS_BYTES = 128
    SET_BYTES = 45              # one SET of a 16-byte key to a 3-byte value, as redis-benchmark
    KEYS = 10_000
    REPLY_BYTES = 5             # +OK and the line's end
    IN_FLIGHT_MAX = 1 << 16


def echo(int fd):
    """Send back what comes on a blocking socket until the other side closes it."""
    cdef char *data = <char *>malloc(ECHO_BYTES)
    cdef ssize_t got = 1
    while got > 0:
        with nogil:
            got = recv(fd, data, ECHO_BYTES, 0)
            if got > 0 and not send_all(fd, data, got):
                got = 0
        PyErr_CheckSignals()
    free(data)


cdef struct Batch:
    mmsghdr heads[BATCH]
    iovec parts[BATCH]
    char addresses[BATCH][ADDRESS_BYTES]
    char data[BATCH][SLOT_BYTES]


def echo_datagrams(int fd):
    """Send every datagram that comes on a blocking socket back to where it came from, for ever."""
    cdef Batch *batch = <Batch *>calloc(1, sizeof(Batch))
    cdef int got, index
    if batch == NULL:
        raise MemoryError("a batch of datagrams")
    for index in range(BATCH):
        batch.parts[index].iov_base = batch.data[index]
        batch.heads[index].msg_hdr.msg_iov = &batch.parts[index]
        batch.heads[index].msg_hdr.msg_iovlen = 1
        batch.heads[index].msg_hdr.msg_name = batch.addresses[index]
    try:
        while True:
            with nogil:
                got = echo_batch(fd, batch)
            PyErr_CheckSignals()
            if got < 0 and errno != EINTR:
                raise OSError(errno, "the echo server's socket")
    finally:
        free(batch)


cdef int echo_batch(int fd, Batch *batch) noexcept nogil:
    """What one read brings, in one write; what can't be sent now is lost. Returns how many."""
    cdef int got, index
    for index in range(BATCH):
        batch.parts[index].iov_len = SLOT_BYTES
        batch.heads[index].msg_hdr.msg_namelen = ADDRESS_BYTES
    got = recvmmsg(fd, batch.heads, BATCH, MSG_WAITFORONE, NULL)
    for index in range(max(got, 0)):
        batch.parts[index].iov_len = batch.heads[index].msg_len
    if got > 0:
        sendmmsg(fd, batch.heads, got, MSG_NOSIGNAL)
    return got


cdef class SetClient:
    """Keeps `in_flight` SET commands unanswered on one connection to a Redis server."""
    cdef object sock
    cdef int fd
    cdef char *out
    cdef char *replies
    cdef uint64_t *sent_ns
    cdef uint32_t in_flight
    cdef uint64_t sent
    cdef uint64_t answered
    cdef size_t partial
    cdef bint wrong

    def __cinit__(self, host, port, in_flight):
        if in_flight > IN_FLIGHT_MAX:
            raise ValueError(f"at most {IN_FLIGHT_MAX} in flight")
        self.sock = socket.create_connection((host, port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(None)
        self.fd = self.sock.fileno()
        self.in_flight = in_flight
        self.out = <char *>malloc(SET_BYTES * IN_FLIGHT_MAX)
        self.replies = <char *>malloc(ECHO_BYTES)
        self.sent_ns = <uint64_t *>malloc(IN_FLIGHT_MAX * sizeof(uint64_t))

    def __dealloc__(self):
        free(self.out)
        free(self.replies)
        free(self.sent_ns)

    def run(self, double seconds, double warmup_seconds=0.5):
        """Drive the server. Returns the figures. Raises RuntimeError for a wrong reply."""
        cdef Histogram latency = Histogram()
        self._drive(Histogram(), warmup_seconds)
        before = self.answered
        started, cpu = time.perf_counter(), time.process_time()
        self._drive(latency, seconds)
        elapsed = time.perf_counter() - started
        done = self.answered - before
        return {"messages": done, "seconds": elapsed, "per_second": done / elapsed,
                "generator_cpu": (time.process_time() - cpu) / elapsed,
                "latency": latency.summary()}

    cdef int _drive(self, Histogram latency, double seconds) except -1:
        cdef uint64_t until = clock_ns() + <uint64_t>(seconds * 1e9)
        while clock_ns() < until:
            with nogil:
                self._turn(latency)
            PyErr_CheckSignals()
            if self.wrong:
                raise RuntimeError("the Redis server gave another reply than OK")
        return 0

    cdef void _turn(self, Histogram latency) noexcept nogil:
        """Fill the window in one write, take what one read brings."""
        cdef uint64_t now = clock_ns()
        cdef size_t size = 0
        while self.sent - self.answered < self.in_flight:
            write_set(self.out + size, self.sent % KEYS)
            size += SET_BYTES
            self.sent_ns[self.sent & (IN_FLIGHT_MAX - 1)] = now
            self.sent += 1
        if size and not send_all(self.fd, self.out, size):
            self.wrong = True
            return
        self._take_replies(latency)

    cdef void _take_replies(self, Histogram latency) noexcept nogil:
        cdef ssize_t got = recv(self.fd, self.replies + self.partial,
                                ECHO_BYTES - self.partial, 0)
        cdef size_t at = 0
        cdef uint64_t now = clock_ns()
        if got <= 0:
            self.wrong = errno != EINTR
            return
        self.partial += got
        while self.partial - at >= REPLY_BYTES:
            if memcmp(self.replies + at, b"+OK\r\n", REPLY_BYTES):
                self.wrong = True
                return
            record(&latency.buckets, now - self.sent_ns[self.answered & (IN_FLIGHT_MAX - 1)])
            self.answered += 1
            at += REPLY_BYTES
        self.partial -= at
        memmove(self.replies, self.replies + at, self.partial)


cdef void write_set(char *command, uint64_t key) noexcept nogil:
    cdef int digit
    memcpy(command, b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$3\r\nxxx\r\n", SET_BYTES)
    for digit in range(5):
        command[33 - digit] = c'0' + key % 10
        key //= 10

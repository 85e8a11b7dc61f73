# cython: language_level=3
"""A load generator for HTTP/1.1: keep-alive connections with one request in flight on each.

It runs in a process of its own (bench/request.py). Answers are read to their Content-Length and
their status is checked; order ids must not repeat, so one answer stands for one order. Latency
counts from the write of a request to the last byte of its answer.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from bench.histogram cimport Buckets, Histogram, record
from bench.net cimport *

from bench.cpu import cpu_seconds

import socket
import time

cdef extern from "<string.h>" nogil:
    void *memmem(const void *data, size_t size, const void *wanted, size_t wanted_size)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *one, const char *other, size_t size)

cdef enum:
    ANSWER_MAX = 1 << 16
    EVENTS_MAX = 256
    WAIT_MS = 20
    SLICE_NS = 50_000_000           # how often a run comes up for signals
    STATUS_MAX = 600
    FIGURES = 12                    # of the counter in a request
    IDS_MAX = 1 << 24               # ids that may follow the first one
    IDS_BEFORE = 1 << 12            # answers may come in another order than orders were made

# How long a new connection may take for one that broke.
REOPEN_SECONDS = 1.0
# In a request, these bytes become the running number of the request.
COUNTER = b"#" * FIGURES

cdef struct Link:
    int fd
    bint waiting                    # a request is out
    uint64_t sent_ns
    char *data
    size_t size

cdef struct Request:
    size_t start
    size_t size
    size_t counter_at               # 0: has none

cdef struct Counts:
    uint64_t answers
    uint64_t body_bytes
    uint64_t by_status[STATUS_MAX]
    uint64_t lost                   # requests whose connection broke, or that nobody answered
    uint64_t refused                # connections that could not be opened again


class WrongAnswer(Exception):
    """The server's answers are not what was asked for: its speed means nothing."""


cdef class HttpLoad:
    """`connections` to one server that send `requests` (whole requests as bytes) in turn.

    Every answer must have the status `expect`. `ids_after`: the text in front of a number in each
    body that must not come twice. `once`: requests may not be sent a second time; running out of
    them is an error. Figures have the processor time that `server_pid` took.
    `tolerant`: another status, a broken connection and a missing answer are counted as errors, and
    the run goes on over new connections; only a number that comes twice ends it.
    """
    cdef Link *links
    cdef uint32_t link_count
    cdef int epoll
    cdef char *pool
    cdef Request *requests
    cdef uint64_t request_count
    cdef uint64_t sent
    cdef uint64_t answered
    cdef bint sending
    cdef bint once
    cdef bint tolerant
    cdef uint64_t settle_ns
    cdef uint32_t expected
    cdef bytes ids_text
    cdef char *ids_after
    cdef size_t ids_after_size
    cdef uint64_t ids_from
    cdef uint8_t *ids_seen
    cdef Counts counts
    cdef Buckets *latency
    cdef const char *error
    cdef char wrong_text[400]
    cdef readonly str host
    cdef readonly int port
    cdef readonly int server_pid

    def __cinit__(self, host, port, connections, requests, *, expect=200, ids_after=b"",
                  once=False, server_pid=0, tolerant=False, settle_seconds=10.0):
        cdef uint32_t index
        self.host, self.port, self.server_pid = host, port, server_pid
        self.link_count = connections
        self.expected, self.once, self.tolerant = expect, once, tolerant
        self.settle_ns = <uint64_t>(settle_seconds * 1e9)
        self.ids_text = ids_after
        self.ids_after, self.ids_after_size = self.ids_text, len(ids_after)
        self.links = <Link *>calloc(connections, sizeof(Link))
        self.latency = <Buckets *>calloc(1, sizeof(Buckets))
        self.ids_seen = <uint8_t *>calloc(IDS_MAX // 8, 1)
        for index in range(self.link_count):
            self.links[index].fd = -1
            self.links[index].data = <char *>malloc(ANSWER_MAX)
        self.epoll = epoll_create1(0)
        self._take_requests(requests)

    def __dealloc__(self):
        cdef uint32_t index
        for index in range(self.link_count):
            if self.links[index].fd >= 0:
                close(self.links[index].fd)
            free(self.links[index].data)
        if self.epoll > 0:
            close(self.epoll)
        free(self.links)
        free(self.latency)
        free(self.ids_seen)
        free(self.pool)
        free(self.requests)

    cdef int _take_requests(self, requests) except -1:
        cdef Request *request
        cdef size_t at = 0
        joined = b"".join(requests)
        self.pool = <char *>malloc(len(joined) + 1)
        self.requests = <Request *>calloc(len(requests), sizeof(Request))
        if self.pool == NULL or self.requests == NULL:
            raise MemoryError(f"{len(requests)} requests")
        memcpy(self.pool, <char *>joined, len(joined))
        for index, text in enumerate(requests):
            request = &self.requests[<size_t>index]
            request.start, request.size = at, len(text)
            request.counter_at = max(0, text.find(COUNTER))
            at += request.size
        self.request_count = len(requests)
        return 0

    def connect(self):
        """Open every connection. Raises OSError."""
        cdef uint32_t index
        for index in range(self.link_count):
            self._open(&self.links[index], 30.0)

    cdef int _open(self, Link *link, double timeout) except -1:
        cdef epoll_event event
        sock = socket.create_connection((self.host, self.port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(None)
        link.fd = sock.detach()
        event.events = EPOLLIN
        event.data.ptr = link
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, link.fd, &event)
        return 0

    cdef int _open_again(self) except -1:
        """Give links that broke a new connection."""
        cdef uint32_t index
        for index in range(self.link_count):
            if self.links[index].fd >= 0:
                continue
            try:
                self._open(&self.links[index], REOPEN_SECONDS)
            except OSError:
                self.counts.refused += 1
                return 0
            if self.sending:
                self._send(&self.links[index])
        return 0

    def run(self, seconds, *, warmup_seconds=0.0):
        """Keep one request in flight on each connection. Returns the figures of the time after
        the warm-up. Raises WrongAnswer for the first answer that is not what was expected."""
        cdef Histogram latency = Histogram()
        self.sending = True
        self._fill()
        self._run(warmup_seconds)
        memset(&self.counts, 0, sizeof(Counts))
        memset(self.latency, 0, sizeof(Buckets))
        cpu, server_cpu = time.process_time(), cpu_seconds(self.server_pid)
        started = clock_ns()
        self._run(seconds)
        elapsed = (clock_ns() - started) / 1e9
        answers = self.counts.answers
        memcpy(&latency.buckets, self.latency, sizeof(Buckets))
        figures = {
            "requests": answers, "seconds": elapsed, "per_second": answers / elapsed,
            "body_bytes": self.counts.body_bytes / answers if answers else 0,
            "statuses": {status: self.counts.by_status[status] for status in range(STATUS_MAX)
                         if self.counts.by_status[status]},
            "generator_cpu": (time.process_time() - cpu) / elapsed,
            "server_cpu_seconds": cpu_seconds(self.server_pid) - server_cpu,
            "latency": latency.summary(),
        }
        self._settle()
        return figures | self._errors() if self.tolerant else figures

    def _errors(self):
        """What went wrong behind the warm-up, the answers that came after the end included."""
        statuses = {status: self.counts.by_status[status] for status in range(STATUS_MAX)
                    if self.counts.by_status[status]}
        wrong = sum(count for status, count in statuses.items() if status != self.expected)
        failed = self.counts.lost + self.counts.refused
        return {"statuses": statuses, "lost": self.counts.lost, "refused": self.counts.refused,
                "errors": wrong + failed,
                "error_rate": (wrong + failed) / max(1, self.counts.answers + failed)}

    cdef int _settle(self) except -1:
        """Let the answers that are still out come in."""
        cdef uint64_t until = clock_ns() + self.settle_ns
        self.sending = False
        while self.answered < self.sent:
            self._run(0.005)
            if clock_ns() > until and self.answered < self.sent:
                if not self.tolerant:
                    raise WrongAnswer(f"{self.sent - self.answered} requests were not answered")
                self.counts.lost += self.sent - self.answered
                break
        return 0

    cdef int _run(self, double seconds) except -1:
        cdef uint64_t now = clock_ns()
        cdef uint64_t until = now + <uint64_t>(seconds * 1e9)
        while now < until:
            with nogil:
                now = self._run_slice(min(until, now + SLICE_NS))
            PyErr_CheckSignals()
            if self.error != NULL:
                raise WrongAnswer(self.error.decode()
                                  + self.wrong_text.decode("utf-8", "replace"))
            if self.tolerant and self.sending:
                self._open_again()
                now = clock_ns()
        return 0

    cdef uint64_t _run_slice(self, uint64_t until) noexcept nogil:
        cdef epoll_event events[EVENTS_MAX]
        cdef int count, index
        cdef uint64_t now = clock_ns()
        while now < until and self.error == NULL:
            count = epoll_wait(self.epoll, events, EVENTS_MAX, WAIT_MS)
            for index in range(count):
                self._receive(<Link *>events[index].data.ptr)
            now = clock_ns()
        return now

    # -- requests ----------------------------------------------------------------------------

    cdef void _fill(self) noexcept nogil:
        cdef uint32_t index
        for index in range(self.link_count):
            if not self.links[index].waiting and self.links[index].fd >= 0:
                self._send(&self.links[index])

    cdef void _send(self, Link *link) noexcept nogil:
        cdef Request *request = &self.requests[self.sent % self.request_count]
        if self.once and self.sent >= self.request_count:
            self.error = "there were too few requests for this run"
            return
        if request.counter_at:
            put_number(self.pool + request.start + request.counter_at, self.sent)
        link.sent_ns = clock_ns()
        link.waiting = True
        self.sent += 1
        if not send_all(link.fd, self.pool + request.start, request.size):
            self._fail(link, "a connection broke while sending", 0)

    # -- answers -----------------------------------------------------------------------------

    cdef void _receive(self, Link *link) noexcept nogil:
        cdef size_t body_at, body_size
        cdef ssize_t got = recv(link.fd, link.data + link.size, ANSWER_MAX - link.size,
                                MSG_DONTWAIT)
        if got <= 0:
            if got == 0 or (errno != EAGAIN and errno != EINTR):
                self._fail(link, "the server closed a connection", 0)
            return
        link.size += got
        body_at = head_size(link.data, link.size)
        if not body_at:
            if link.size == ANSWER_MAX:
                self._fail(link, "an answer without an end of its head", 0)
            return
        body_size = content_length(link.data, body_at)
        if body_size > ANSWER_MAX - body_at:
            self._fail(link, "an answer without Content-Length, or a long one: ", link.size)
            return
        if link.size < body_at + body_size:
            return
        if link.size > body_at + body_size or not link.waiting:
            self._fail(link, "an answer that nothing asked for", 0)
            return
        self._take(link, body_at, body_size)

    cdef void _take(self, Link *link, size_t body_at, size_t body_size) noexcept nogil:
        """Check a whole answer, count it, and send the next request."""
        cdef uint32_t status = <uint32_t>read_number(link.data + 9, link.data + 12)
        record(self.latency, clock_ns() - link.sent_ns)
        link.waiting = False
        link.size = 0
        self.answered += 1
        self.counts.answers += 1
        self.counts.body_bytes += body_size
        self.counts.by_status[min(status, <uint32_t>(STATUS_MAX - 1))] += 1
        if status != self.expected and not self.tolerant:
            self._wrong("not the status that was expected: ", link.data, body_at + body_size)
        elif status == self.expected and self.ids_after_size:
            self._check_id(link.data + body_at, body_size)
        if self.sending and self.error == NULL:
            self._send(link)

    cdef void _fail(self, Link *link, const char *text, size_t shown) noexcept nogil:
        """A connection that can't be used any more: the end, or one more error. `shown` bytes of
        what came belong to the text."""
        if not self.tolerant:
            self._wrong(text, link.data, shown)
            return
        close(link.fd)
        link.fd = -1
        link.size = 0
        if link.waiting:
            link.waiting = False
            self.answered += 1
            self.counts.lost += 1

    cdef void _wrong(self, const char *text, const char *answer, size_t size) noexcept nogil:
        size = min(size, sizeof(self.wrong_text) - 1)
        memcpy(self.wrong_text, answer, size)
        self.wrong_text[size] = 0
        self.error = text

    cdef void _check_id(self, const char *body, size_t size) noexcept nogil:
        cdef const char *at = <const char *>memmem(body, size, self.ids_after, self.ids_after_size)
        cdef uint64_t number
        if at == NULL:
            self._wrong("an answer without a number: ", body, size)
            return
        number = read_number(at + self.ids_after_size, body + size)
        if not self.ids_from:
            self.ids_from = number - min(number, <uint64_t>IDS_BEFORE) + 1
        number -= self.ids_from - 1
        if number >= IDS_MAX or self.ids_seen[number >> 3] >> (number & 7) & 1:
            self._wrong("a number came twice, or far from the others: ", body, size)
            return
        self.ids_seen[number >> 3] |= 1 << (number & 7)


cdef size_t head_size(const char *data, size_t size) noexcept nogil:
    """The bytes of an answer's head with its empty line, 0 when it is not complete."""
    cdef const char *end = <const char *>memmem(data, size, b"\r\n\r\n", 4)
    if end == NULL or size < 12:
        return 0
    return end + 4 - data


cdef size_t content_length(const char *data, size_t size) noexcept nogil:
    """The value of Content-Length, more than any body when there is none."""
    cdef const char *at = data
    cdef const char *end = data + size
    cdef const char *found
    while True:
        found = <const char *>memmem(at, end - at, b"\r\n", 2)
        if found == NULL:
            return ~<size_t>0
        at = found + 2
        if end - at > 16 and not strncasecmp(at, b"content-length:", 15):
            at += 15
            while at < end and at[0] == c' ':
                at += 1
            return read_number(at, end)


cdef uint64_t read_number(const char *data, const char *end) noexcept nogil:
    cdef uint64_t value = 0
    while data < end and c'0' <= data[0] <= c'9':
        value = 10 * value + (data[0] - c'0')
        data += 1
    return value


cdef void put_number(char *at, uint64_t value) noexcept nogil:
    cdef int figure
    for figure in range(FIGURES):
        at[FIGURES - 1 - figure] = c'0' + value % 10
        value //= 10

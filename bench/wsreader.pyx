# cython: language_level=3
"""A fast reader of WebSocket feeds: thousands of clients in one thread, every message checked.

It runs in a process of its own (bench/watch.py). It makes the ticks too, so that it knows when each
left, and can send the next one as soon as the server is ready for it: when the first client has
the last tick, and no client is more than so many behind. So the server is never idle, two ticks
never become one, and every client must get every message. `seq` and `prev_seq` of every message
are checked against the client's last one on that chain (a channel and a symbol).
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from bench.histogram cimport Buckets, Histogram, record
from bench.net cimport *
from bench.ticks cimport *
from bench.wire cimport get16, get64

from bench.cpu import cpu_seconds

import base64
import hashlib
import os
import socket
import time

cdef extern from "<string.h>" nogil:
    void *memmem(const void *data, size_t size, const void *wanted, size_t wanted_size)

cdef enum:
    CHAINS_MAX = 16
    PREFIX_MAX = 96
    HEAD_BYTES = 256                # the fields that are checked stand at the start of a message
    TICKS = 1 << 14                 # ring of the ticks whose sending times are known
    READ_BYTES = 1 << 20
    EVENTS_MAX = 256
    WAIT_MS = 20
    SLICE_NS = 50_000_000           # how often a run comes up for signals
    STALL_NS = 10_000_000_000
    QUIET_NS = 250_000_000
    SPIN_NS = 1_500_000
    PONG_MAX = 125

# Frames of RFC 6455, section 5.2.
cdef enum:
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10

cdef struct Client:
    int fd
    uint32_t chains_known           # chains that had their first message
    uint64_t messages               # changes since the phase began
    uint32_t expected               # the chain that is likely to come next
    uint64_t last_seq[CHAINS_MAX]
    char *carry                     # the start of a frame that is not complete yet
    size_t carry_size
    size_t carry_capacity

cdef struct Chain:
    char prefix[PREFIX_MAX]         # a message up to the figures of its seq
    size_t prefix_size

cdef struct Counts:
    uint64_t messages               # changes: what the figures are about
    uint64_t bytes
    uint64_t snapshots
    uint64_t answers
    uint64_t pings
    uint64_t joined                 # ticks that came in one message with a later one

cdef struct Started:
    uint64_t time_ns
    double reader_cpu
    double server_cpu

GREETING = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WrongFeed(Exception):
    """The feed does not fit what was ordered: its speed means nothing."""


cdef const char *find(const char *data, size_t size, const char *wanted,
                      size_t wanted_size) noexcept nogil:
    """What follows `wanted`, NULL when it is not there."""
    cdef const char *found = <const char *>memmem(data, size, wanted, wanted_size)
    if found == NULL:
        return NULL
    return found + wanted_size


cdef const char *number(const char *data, const char *end, uint64_t *value) noexcept nogil:
    """Read decimal figures; returns what follows them."""
    value[0] = 0
    while data < end and c'0' <= data[0] <= c'9':
        value[0] = 10 * value[0] + (data[0] - c'0')
        data += 1
    return data


cdef class Reader:
    """`clients` connections to one feed, `chains` chains on each.

    Connect and subscribe with `connect`, say with `orders` or `bytes_to` what makes ticks, `start`,
    then run phases. Figures of a phase have the processor time that `server_pid` took in it.
    Unless `strict`, a client may be sent a fresh snapshot instead of changes that it was too slow
    for; `snapshots` counts them.
    """
    cdef Client *clients
    cdef uint32_t client_count
    cdef uint32_t chain_count
    cdef uint32_t chains_used
    cdef Chain chains[CHAINS_MAX]
    cdef Ticker ticker
    cdef int epoll
    cdef char *buffer
    cdef size_t capacity
    cdef Counts counts
    cdef Buckets *latency
    cdef uint64_t *sent_ns          # by tick
    cdef uint32_t *arrived          # clients that have a tick, by tick
    cdef uint64_t first_tick        # the newest tick that some client has, by its count of messages
    cdef uint64_t all_tick          # the newest tick that all have
    cdef uint64_t phase_tick
    cdef bint in_loop               # a closed loop's ticks are being counted
    cdef uint32_t behind            # the most ticks that a client may lack; 0: no more ticks
    cdef uint64_t base_seq          # seq before the first tick that counts
    cdef uint64_t base_tick
    cdef uint64_t events_per_tick
    cdef uint64_t newest_seq
    cdef uint64_t last_message_ns
    cdef const char *error
    cdef uint64_t error_client
    cdef list held                  # sockets of the ticker
    cdef readonly int server_pid
    cdef readonly bint strict
    cdef readonly str host
    cdef readonly int port

    def __cinit__(self, host, port, clients, *, chains=5, server_pid=0,
                  strict=True):
        cdef uint32_t index
        if not 0 < chains <= CHAINS_MAX:
            raise ValueError(f"1 to {CHAINS_MAX} chains")
        self.host, self.port, self.server_pid = host, port, server_pid
        self.client_count, self.chain_count, self.strict = clients, chains, strict
        self.clients = <Client *>calloc(clients, sizeof(Client))
        self.capacity = READ_BYTES
        self.buffer = <char *>malloc(self.capacity)
        self.latency = <Buckets *>calloc(1, sizeof(Buckets))
        self.sent_ns = <uint64_t *>calloc(TICKS, sizeof(uint64_t))
        self.arrived = <uint32_t *>calloc(TICKS, sizeof(uint32_t))
        if not (self.clients and self.buffer and self.latency and self.sent_ns and self.arrived):
            raise MemoryError(f"{clients} clients")
        for index in range(self.client_count):
            self.clients[index].fd = -1
        self.epoll = epoll_create1(0)
        self.ticker.fd = -1
        self.held = []

    def __dealloc__(self):
        cdef uint32_t index
        if self.clients != NULL:
            for index in range(self.client_count):
                if self.clients[index].fd >= 0:
                    close(self.clients[index].fd)
                free(self.clients[index].carry)
        if self.epoll > 0:
            close(self.epoll)
        free(self.clients)
        free(self.buffer)
        free(self.latency)
        free(self.sent_ns)
        free(self.arrived)

    # -- connecting --------------------------------------------------------------------------

    def connect(self, requests, *, path="/"):
        """Open every connection, send it each of the `requests` (texts), and wait until it has the
        first message of each chain. Raises OSError, WrongFeed."""
        cdef uint32_t index
        frames = b"".join(masked_frame(OP_TEXT, request.encode()) for request in requests)
        for index in range(self.client_count):
            sock, rest = open_socket(self.host, self.port, path)
            sock.sendall(frames)
            sock.setblocking(False)
            self._add(sock.detach(), rest, index)
        self._wait_for_snapshots()

    cdef int _add(self, int fd, bytes rest, uint32_t index) except -1:
        cdef epoll_event event
        cdef Client *client = &self.clients[index]
        cdef const char *data = rest
        cdef size_t size = len(rest)
        cdef size_t taken = self._take_frames(client, data, size, clock_ns())
        client.fd = fd
        self._keep(client, data + taken, size - taken)
        event.events = EPOLLIN
        event.data.ptr = client
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event)
        return 0

    cdef int _wait_for_snapshots(self) except -1:
        cdef uint64_t started = clock_ns()
        while self.counts.snapshots < <uint64_t>self.client_count * self.chain_count:
            self._run_slice(clock_ns() + SLICE_NS, 0, 0)
            self._look()
            if clock_ns() - max(started, self.last_message_ns) > STALL_NS:
                raise WrongFeed(f"{self.counts.snapshots} first messages came, "
                                f"{self.client_count * self.chain_count} should have")
        return 0

    def orders(self, sock, next_ref, symbols):
        """Make ticks by orders through a connection that is logged in; takes the socket over."""
        cdef uint32_t index
        if not 0 < len(symbols) <= INSTRUMENTS_MAX:
            raise ValueError(f"1 to {INSTRUMENTS_MAX} symbols")
        self.ticker.orders = True
        self.ticker.instruments = len(symbols)
        self.ticker.next_ref = next_ref
        for index, symbol in enumerate(symbols):
            wire = symbol.ljust(8).encode()
            memcpy(self.ticker.symbols + 8 * index, <char *>wire, 8)
        self.events_per_tick = EVENTS_EACH * len(symbols)
        self._watch_ticker(sock)
        send_depth(&self.ticker)

    def bytes_to(self, sock, events_per_tick):
        """Make ticks by one byte each; takes the socket over."""
        self.events_per_tick = events_per_tick
        self.ticker.out_data[0] = c't'
        self._watch_ticker(sock)

    cdef int _watch_ticker(self, sock) except -1:
        cdef epoll_event event
        self.held.append(sock)
        self.ticker.fd = sock.fileno()
        event.events = EPOLLIN
        event.data.ptr = NULL
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.ticker.fd, &event)
        return 0

    # -- phases ------------------------------------------------------------------------------

    def start(self):
        """Send two ticks and wait for them: from the seq they end with on, ticks are counted."""
        for _ in range(2):
            self.base_seq = 0
            self._send_tick(clock_ns())
            self._wait_until_quiet()
        self.base_seq, self.base_tick = self.newest_seq, self.ticker.sent

    def closed_loop(self, seconds, *, behind=3, warmup_seconds=0.0):
        """Tick as fast as the feed delivers. Returns the figures of the time after the warm-up."""
        self._begin_phase()
        self.behind, self.in_loop = behind, True
        self._run(warmup_seconds, 0)
        started = self._reset()
        ticks = self.ticker.sent
        self._run(seconds, 0)
        figures = self._figures(started)
        figures["ticks"] = self.ticker.sent - ticks
        self.behind = 0
        self._wait_until_all(self.ticker.sent)
        self.in_loop = False
        self._check_seq()
        return figures

    def paced(self, per_second, seconds):
        """Send so many ticks a second. Latency counts from the moment a tick was meant to leave.

        Ticks that the feed joins in one message count as messages that came with it in `latency`,
        and in `joined`.
        """
        self._begin_phase()
        started = self._reset()
        ticks = self.ticker.sent
        self._run(seconds, per_second)
        ended_ns = clock_ns()
        # What left in time counts, however late it comes.
        self._wait_until_reached()
        figures = self._figures(started, ended_ns)
        figures["ticks"] = self.ticker.sent - ticks
        figures.update(offered_ticks_per_second=per_second, joined=self.counts.joined,
                       latency=self._latency())
        self._check_seq()
        return figures

    def read(self, seconds):
        """Only read for so long. Returns the figures."""
        started = self._reset()
        self._run(seconds, 0)
        return self._figures(started)

    cdef _latency(self):
        cdef Histogram result = Histogram()
        memcpy(&result.buckets, self.latency, sizeof(Buckets))
        return result.summary()

    cdef _figures(self, Started started, uint64_t ended_ns=0):
        elapsed = ((ended_ns or clock_ns()) - started.time_ns) / 1e9
        messages = self.counts.messages
        return {
            "messages": messages, "seconds": elapsed, "per_second": messages / elapsed,
            "clients": self.client_count, "bytes": self.counts.bytes,
            "message_bytes": self.counts.bytes / messages if messages else 0,
            "snapshots": self.counts.snapshots, "pings": self.counts.pings,
            "reader_cpu": (time.process_time() - started.reader_cpu) / elapsed,
            "server_cpu_seconds": cpu_seconds(self.server_pid) - started.server_cpu,
            "latency": self._latency(),
        }

    cdef Started _reset(self) except *:
        """Count from here on."""
        cdef Started started
        memset(&self.counts, 0, sizeof(Counts))
        memset(self.latency, 0, sizeof(Buckets))
        started.reader_cpu, started.server_cpu = time.process_time(), cpu_seconds(self.server_pid)
        started.time_ns = clock_ns()
        return started

    cdef int _begin_phase(self) except -1:
        cdef uint32_t index
        if self.ticker.fd < 0 or not self.base_seq:
            raise ValueError("a phase needs something that ticks, and start()")
        for index in range(self.client_count):
            self.clients[index].messages = 0
        memset(self.arrived, 0, TICKS * sizeof(uint32_t))
        self.phase_tick = self.first_tick = self.all_tick = self.ticker.sent
        return 0

    # -- how a phase runs --------------------------------------------------------------------

    cdef int _run(self, double seconds, double per_second) except -1:
        """Read, and tick as the loop or the pace says. Raises WrongFeed."""
        cdef uint64_t started = clock_ns()
        cdef uint64_t until = started + <uint64_t>(seconds * 1e9)
        cdef uint64_t first = self.ticker.sent
        cdef uint64_t now = started
        cdef uint64_t due
        self._advance()
        while now < until:
            self._run_slice(min(until, now + SLICE_NS), started, per_second)
            self._look()
            now = clock_ns()
            if self.behind and now - max(started, self.last_message_ns) > STALL_NS:
                raise WrongFeed(f"no message for {STALL_NS // 10**9} s: {self.ticker.sent} ticks "
                                f"sent, the first client has {self.first_tick}, all "
                                f"{self.all_tick}")
        due = <uint64_t>(seconds * per_second)
        while per_second and self.ticker.sent - first < due:
            self._send_tick(started + <uint64_t>((self.ticker.sent - first) * 1e9 / per_second))
        return 0

    cdef int _run_slice(self, uint64_t until, uint64_t started, double per_second) except -1:
        cdef uint64_t first = self.phase_tick
        with nogil:
            self._read_until(until, started, first, per_second)
        PyErr_CheckSignals()
        return 0

    cdef void _read_until(self, uint64_t until, uint64_t started, uint64_t first,
                          double per_second) noexcept nogil:
        cdef epoll_event events[EVENTS_MAX]
        cdef uint64_t now = clock_ns()
        cdef uint64_t next_ns = until
        cdef int count, index
        while now < until and self.error == NULL:
            if per_second:
                next_ns = started + <uint64_t>((self.ticker.sent - first) * 1e9 / per_second)
                while next_ns <= now:
                    self._send_tick(next_ns)
                    next_ns = started + <uint64_t>((self.ticker.sent - first) * 1e9 / per_second)
                next_ns = min(next_ns, until)
            count = epoll_wait(self.epoll, events, EVENTS_MAX,
                               0 if next_ns - now < SPIN_NS else
                               min(<int>((next_ns - now) // 1_000_000), WAIT_MS))
            for index in range(count):
                if events[index].data.ptr == NULL:
                    take_answers(&self.ticker)
                else:
                    self._receive(<Client *>events[index].data.ptr)
            now = clock_ns()

    cdef void _advance(self) noexcept nogil:
        """Closed loop: the next tick leaves when the server has begun to write the last one out
        and nobody is too far behind."""
        while (self.behind and self.first_tick == self.ticker.sent
               and self.ticker.sent - self.all_tick < self.behind):
            self._send_tick(clock_ns())

    cdef void _send_tick(self, uint64_t meant_ns) noexcept nogil:
        self.sent_ns[(self.ticker.sent + 1) % TICKS] = meant_ns
        send_tick(&self.ticker)

    cdef int _look(self) except -1:
        """Raise what went wrong without Python."""
        if self.ticker.error != NULL:
            raise WrongFeed(self.ticker.error.decode())
        if self.error != NULL:
            raise WrongFeed(f"{self.error.decode()} (client {self.error_client})")
        return 0

    cdef int _wait_until_quiet(self) except -1:
        """Until every chain of every client moved and nothing comes any more."""
        cdef uint64_t messages = self.counts.messages
        cdef uint64_t until = clock_ns() + STALL_NS
        while (self.counts.messages - messages < <uint64_t>self.client_count * self.chain_count
               or clock_ns() - self.last_message_ns < QUIET_NS):
            self._run_slice(clock_ns() + SLICE_NS, 0, 0)
            self._look()
            if clock_ns() > until:
                raise WrongFeed(f"a tick brought {self.counts.messages - messages} messages to "
                                f"{self.client_count} clients")
        return 0

    cdef int _wait_until_all(self, uint64_t tick) except -1:
        cdef uint64_t until = clock_ns() + STALL_NS
        while self.all_tick < tick:
            self._run_slice(clock_ns() + SLICE_NS // 10, 0, 0)
            self._look()
            if clock_ns() > until:
                raise WrongFeed(f"{tick} ticks were sent, all clients have only {self.all_tick}")
        return 0

    cdef int _wait_until_reached(self) except -1:
        cdef uint64_t until = clock_ns() + STALL_NS
        while not self._reached(self.ticker.sent):
            self._run_slice(clock_ns() + SLICE_NS // 10, 0, 0)
            self._look()
            if clock_ns() > until:
                raise WrongFeed("the last tick did not come to all clients")
        return 0

    cdef bint _reached(self, uint64_t tick) noexcept nogil:
        """Whether every chain of every client has a message of that tick."""
        cdef uint32_t index, chain
        for index in range(self.client_count):
            for chain in range(self.chain_count):
                if self._tick_of(self.clients[index].last_seq[chain]) < tick:
                    return False
        return True

    cdef uint64_t _tick_of(self, uint64_t seq) noexcept nogil:
        """The tick that an event belongs to, counted as the ticker counts."""
        if not self.base_seq or seq <= self.base_seq:
            return self.base_tick
        return self.base_tick + (seq - self.base_seq - 1) // self.events_per_tick + 1

    cdef int _check_seq(self) except -1:
        """Nothing but our ticks may have moved the venue's seq."""
        wanted = self.base_seq + (self.ticker.sent - self.base_tick) * self.events_per_tick
        # A chain may say the seq of its own instrument's last event.
        if not wanted - self.events_per_tick < self.newest_seq <= wanted:
            raise WrongFeed(f"the feed's seq is {self.newest_seq}, the ticks make it {wanted}")
        return 0

    # -- frames ------------------------------------------------------------------------------

    cdef void _fail(self, Client *client, const char *text) noexcept nogil:
        if self.error == NULL:
            self.error = text
            self.error_client = client - self.clients

    cdef void _keep(self, Client *client, const char *data, size_t size) noexcept nogil:
        """Keep the start of a frame until the rest comes."""
        if size > client.carry_capacity:
            client.carry_capacity = size + 1024
            client.carry = <char *>realloc(client.carry, client.carry_capacity)
        memmove(client.carry, data, size)
        client.carry_size = size

    cdef void _receive(self, Client *client) noexcept nogil:
        """Read once and take every complete frame."""
        cdef ssize_t got
        cdef size_t taken
        if 2 * client.carry_size > self.capacity:
            self.capacity *= 2
            self.buffer = <char *>realloc(self.buffer, self.capacity)
        if client.carry_size:
            memcpy(self.buffer, client.carry, client.carry_size)
        got = recv(client.fd, self.buffer + client.carry_size, self.capacity - client.carry_size,
                   MSG_DONTWAIT)
        if got <= 0:
            if got == 0 or (errno != EAGAIN and errno != EINTR):
                self._fail(client, "the server closed a connection")
            return
        got += client.carry_size
        taken = self._take_frames(client, self.buffer, got, clock_ns())
        client.carry_size = 0
        if taken < <size_t>got:
            self._keep(client, self.buffer + taken, got - taken)

    cdef size_t _take_frames(self, Client *client, const char *data, size_t size,
                             uint64_t now) noexcept nogil:
        """Take whole frames from the start of `data`. Returns their bytes."""
        cdef size_t at = 0
        cdef size_t header, length
        while size - at >= 2 and self.error == NULL:
            header, length = 2, <uint8_t>data[at + 1]
            if length == 126:
                header = 4
            elif length == 127:
                header = 10
            if size - at < header:
                break
            if header == 4:
                length = get16(data + at + 2)
            elif header == 10:
                length = get64(data + at + 2)
            elif length > 127:
                self._fail(client, "a server's frame is masked")
                break
            if size - at - header < length:
                break
            self._take_frame(client, data[at], data + at + header, length, now)
            at += header + length
        return at

    cdef void _take_frame(self, Client *client, uint8_t first, const char *data, size_t size,
                          uint64_t now) noexcept nogil:
        if first == 0x80 | OP_TEXT:
            self._take_message(client, data, size, now)
        elif first == 0x80 | OP_PING and size <= PONG_MAX:
            self.counts.pings += 1
            send_pong(client.fd, data, size)
        elif first == 0x80 | OP_CLOSE:
            self._fail(client, "the server closed a WebSocket")
        elif first != 0x80 | OP_PONG:
            self._fail(client, "a frame that is no whole text message")

    # -- messages ----------------------------------------------------------------------------

    cdef void _take_message(self, Client *client, const char *data, size_t size,
                            uint64_t now) noexcept nogil:
        cdef const char *end = data + min(size, <size_t>HEAD_BYTES)
        cdef uint32_t chain = self._chain_of(client, data, end)
        cdef uint64_t seq, prev_seq
        cdef const char *at
        if chain == CHAINS_MAX:
            self._take_answer(client, data, end)
            return
        self.last_message_ns = now
        at = number(data + self.chains[chain].prefix_size, end, &seq)
        at = find(at, end - at, b'"prev_seq":', 11)
        if at == NULL:
            self._fail(client, "a message without prev_seq")
            return
        at = number(at, end, &prev_seq)
        at = find(at, end - at, b'"type":"', 8)
        if at == NULL or at == end:
            self._fail(client, "a message without type")
            return
        self.newest_seq = max(self.newest_seq, seq)
        if at[0] == c's':
            self._take_snapshot(client, chain, seq)
            return
        if at[0] == c'r' or prev_seq != client.last_seq[chain] or seq <= prev_seq:
            self._fail(client, "a gap in a chain of messages")
            return
        client.last_seq[chain] = seq
        self.counts.bytes += size
        self._count(client, prev_seq, seq, now)

    cdef void _take_snapshot(self, Client *client, uint32_t chain, uint64_t seq) noexcept nogil:
        if self.strict and client.chains_known >> chain & 1:
            self._fail(client, "a client was sent a snapshot instead of every change")
            return
        client.chains_known |= 1 << chain
        client.last_seq[chain] = seq
        self.counts.snapshots += 1

    cdef void _take_answer(self, Client *client, const char *data, const char *end) noexcept nogil:
        self.counts.answers += 1
        if find(data, end - data, b'"ok":true', 9) == NULL:
            self._fail(client, "a request was not answered with ok")

    cdef void _count(self, Client *client, uint64_t prev_seq, uint64_t seq,
                     uint64_t now) noexcept nogil:
        """Count one change, and a tick of this client with the last change of it."""
        cdef uint64_t tick = self._tick_of(prev_seq) + 1
        cdef uint64_t last = self._tick_of(seq)
        self.counts.messages += 1
        if self.base_seq:
            if last > tick:
                self.counts.joined += last - tick
            while tick <= last:
                record(self.latency, now - self.sent_ns[tick % TICKS])
                tick += 1
        client.messages += 1
        if not self.in_loop or client.messages % self.chain_count:
            return
        tick = self.phase_tick + client.messages // self.chain_count
        if tick > self.first_tick:
            self.first_tick = tick
        self.arrived[tick % TICKS] += 1
        if self.arrived[tick % TICKS] == self.client_count:
            self.arrived[tick % TICKS] = 0
            self.all_tick = tick
        self._advance()

    cdef uint32_t _chain_of(self, Client *client, const char *data,
                            const char *end) noexcept nogil:
        """The chain of a message by what stands before its seq; CHAINS_MAX for an answer."""
        cdef uint32_t _tried
        cdef uint32_t chain = client.expected
        cdef size_t size = end - data
        for _tried in range(self.chains_used):
            if chain >= self.chains_used:
                chain = 0
            if (size > self.chains[chain].prefix_size
                    and not memcmp(data, self.chains[chain].prefix,
                                   self.chains[chain].prefix_size)):
                client.expected = chain + 1
                return chain
            chain += 1
        return self._new_chain(client, data, end)

    cdef uint32_t _new_chain(self, Client *client, const char *data,
                             const char *end) noexcept nogil:
        cdef const char *at = find(data, end - data, b'"seq":', 6)
        cdef Chain *chain = &self.chains[self.chains_used]
        if (at == NULL or find(data, end - data, b'"prev_seq":', 11) == NULL
                or find(data, at - data, b'"symbol":"', 10) == NULL):
            return CHAINS_MAX
        if self.chains_used == self.chain_count or at - data > PREFIX_MAX:
            self._fail(client, "a message of a chain that was not subscribed")
            return CHAINS_MAX
        chain.prefix_size = at - data
        memcpy(chain.prefix, data, chain.prefix_size)
        self.chains_used += 1
        return self.chains_used - 1


cdef void send_pong(int fd, const char *data, size_t size) noexcept nogil:
    """Answer a ping; the mask is four zeros, which leaves the bytes as they are."""
    cdef char frame[6 + PONG_MAX]
    frame[0], frame[1] = <char>(0x80 | OP_PONG), <char>(0x80 | size)
    memset(frame + 2, 0, 4)
    memcpy(frame + 6, data, size)
    send(fd, frame, 6 + size, MSG_DONTWAIT | MSG_NOSIGNAL)


def masked_frame(opcode, payload):
    """One whole frame of a client, masked with zeros."""
    size = len(payload)
    if size < 126:
        header = bytes([0x80 | opcode, 0x80 | size])
    elif size < 1 << 16:
        header = bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2, "big")
    else:
        header = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big")
    return header + bytes(4) + payload


def open_socket(host, port, path):
    """Connect and do the HTTP upgrade of RFC 6455. Returns (socket, bytes that came after it).

    Raises OSError, WrongFeed when the server refuses.
    """
    sock = socket.create_connection((host, port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall((f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                  f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                  "Sec-WebSocket-Version: 13\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(4096)
        if not part:
            raise WrongFeed("the server closed a connection during the upgrade")
        head += part
    head, _, rest = head.partition(b"\r\n\r\n")
    accept = base64.b64encode(hashlib.sha1((key + GREETING).encode()).digest())
    if not head.startswith(b"HTTP/1.1 101") or accept not in head:
        raise WrongFeed(f"the upgrade was answered {head[:200]!r}")
    return sock, rest

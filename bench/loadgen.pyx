# cython: language_level=3
"""The load generator: raw non-blocking sockets, driven in closed or in open loop.

It runs in a process of its own (bench/load.py), so that its cost never hides in the engine's.
Closed loop: so many orders are kept unanswered, about as many cancels fly with them. Open loop:
messages leave at a fixed rate whatever comes back, and latency counts from the moment a message
was meant to leave, so a stall is paid by everyone who waited behind it. Every answer is checked
(trader.pxd); a run ends with a proof: `finish` empties the book and compares sums and numbers.
Over UDP what is lost is sent or asked for again (datagrams.pxd); the proof is the same.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from bench.datagrams cimport *
from bench.histogram cimport Buckets, Histogram
from bench.net cimport *
from bench.trader cimport *
from bench.wire cimport *

import socket
import time

from bench import udplogin

cdef enum:
    EVENTS_MAX = 256
    WAIT_MS = 50
    SLICE_NS = 100_000_000          # how often a run comes up for signals
    READ_BYTES_ONE = 1 << 20        # one link reads all the kernel holds at once
    READ_BYTES_MANY = 1 << 14
    UNSENT_MAX_BYTES = 1 << 20      # past it the open loop waits; its clock does not
    TEND_NS = 1_000_000             # how often links over UDP look at their clocks
    TEND_WAIT_MS = 2

# How a turn chooses what to send.
cdef enum:
    PLAN_NOTHING = 0
    PLAN_WINDOW = 1                 # keep so many orders unanswered, a cancel with each
    PLAN_SINGLE = 2                 # one message at a time, order and cancel in turn
    PLAN_FILL = 3                   # orders only, until so many rest

cdef struct Link:
    int fd
    bint waits_to_write
    char *in_data
    size_t in_size
    size_t in_capacity
    char *out_data
    size_t out_start
    size_t out_end
    size_t out_capacity
    Datagrams *udp                  # NULL over TCP, where the buffers above are used
    Trader trader

cdef struct Plan:
    int kind
    bint busy
    uint32_t window                 # orders unanswered, of each link
    uint32_t resting                # orders kept resting, of each link


class WrongAnswer(Exception):
    """The server's answers do not fit what was sent: its speed means nothing."""


cdef Plan plan_of(int kind, bint busy, uint32_t window, uint32_t resting) noexcept nogil:
    cdef Plan plan
    plan.kind, plan.busy, plan.window, plan.resting = kind, busy, window, resting
    return plan


cdef bint has_unsent(const Link *link) noexcept nogil:
    if link.udp != NULL:
        return link.udp.out_first < link.udp.out_count
    return link.out_start < link.out_end


cdef char *room_for(Link *link, size_t size) noexcept nogil:
    """Room for `size` more bytes to send."""
    if link.out_start == link.out_end:
        link.out_start = link.out_end = 0
    while link.out_end + size > link.out_capacity:
        link.out_capacity *= 2
        link.out_data = <char *>realloc(link.out_data, link.out_capacity)
    return link.out_data + link.out_end


cdef class LoadGenerator:
    """Connections to one server and the orders they keep alive.

    `credentials`: (username, password) of each connection, one account each; empty passwords and
    `echo` speak to an echo server instead. `symbols`: wire symbols, used at random.
    Prices are `base_price` plus whole `tick`s; distances from the mid scale with `depth_ticks`.
    `orders_max`: the most orders that will ever be alive on one connection.
    `transport` "udp": a datagram holds up to `orders_per_datagram` messages (0: as many as fit)
    and `datagram_bytes`; what is unanswered for `resend_ms` is sent again, what is missing asked
    for every `ask_ms`. `patience_seconds`: how long `settle` and `finish` wait for answers.
    """
    cdef Link *links
    cdef uint32_t link_count
    cdef uint32_t turn              # the link that sends next in the open loop
    cdef int epoll
    cdef uint64_t tended_ns         # when links over UDP last looked at their clocks
    cdef uint64_t patience_ns
    cdef Market market
    cdef Tally tally
    cdef Buckets *buckets           # where latencies go now
    cdef Buckets *windows           # one histogram for each window of a run
    cdef uint32_t windows_used
    cdef uint64_t orders_before     # answered in phases that are over
    cdef uint64_t cancels_before
    cdef list first_numbers
    cdef readonly list credentials
    cdef readonly str host
    cdef readonly int port
    cdef readonly bint echo
    cdef readonly str transport

    def __cinit__(self, host, port, credentials, symbols, *, echo=False, seed=1,
                  base_price=1_000_000, tick=1, depth_ticks=8, taker_share=51, orders_max=4096,
                  transport="tcp", datagram_bytes=1400, orders_per_datagram=0, resend_ms=100.0,
                  ask_ms=5.0, patience_seconds=30.0):
        cdef uint32_t index
        if transport not in ("tcp", "udp"):
            raise ValueError(f"transport {transport!r} is neither tcp nor udp")
        if not ENTER_BYTES <= datagram_bytes <= SLOT_BYTES:
            raise ValueError(f"datagrams of {datagram_bytes} bytes")
        self.host, self.port, self.echo, self.transport = host, port, echo, transport
        self.patience_ns = <uint64_t>(patience_seconds * 1e9)
        self.credentials = list(credentials)
        self.link_count = len(self.credentials)
        self.links = <Link *>calloc(self.link_count, sizeof(Link))
        self.epoll = epoll_create1(0)
        self.market.random = (seed * 2 + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        self.market.instruments = len(symbols)
        self.market.base_price, self.market.tick = base_price, tick
        self.market.depth_ticks = depth_ticks
        self.market.taker_share = 0 if echo else taker_share
        self.market.symbols = <char *>malloc(8 * len(symbols))
        self.market.drift_ticks = <int32_t *>calloc(len(symbols), sizeof(int32_t))
        for index, symbol in enumerate(symbols):
            wire = symbol.ljust(8).encode()
            memcpy(self.market.symbols + 8 * index, <char *>wire, 8)
        self.buckets = <Buckets *>calloc(1, sizeof(Buckets))
        self.windows = self.buckets
        self.first_numbers = []
        for index in range(self.link_count):
            self._open_link(&self.links[index], orders_max)
            if transport == "udp":
                self._open_datagrams(&self.links[index], datagram_bytes,
                                     orders_per_datagram or datagram_bytes,
                                     resend_ms * 1e6, ask_ms * 1e6)

    def __dealloc__(self):
        cdef uint32_t index
        for index in range(self.link_count):
            close_link(&self.links[index])
        if self.epoll > 0:
            close(self.epoll)
        free(self.windows)
        free(self.links)
        free(self.market.symbols)
        free(self.market.drift_ticks)

    cdef int _open_link(self, Link *link, orders_max) except -1:
        cdef size_t ring = 64
        while ring < 2 * orders_max + 2:
            ring *= 2
        link.fd = -1
        link.in_capacity = READ_BYTES_ONE if self.link_count <= 4 else READ_BYTES_MANY
        link.out_capacity = 4096
        link.in_data = <char *>malloc(link.in_capacity)
        link.out_data = <char *>malloc(link.out_capacity)
        link.trader.mask = ring - 1
        link.trader.orders = <Order *>calloc(ring, sizeof(Order))
        link.trader.live = <uint32_t *>malloc(ring * sizeof(uint32_t))
        link.trader.waiting = <uint32_t *>malloc(ring * sizeof(uint32_t))
        link.trader.next_ref = 1
        if link.trader.waiting == NULL or link.trader.live == NULL or link.trader.orders == NULL:
            raise MemoryError(f"a ring of {ring} orders")
        return 0

    cdef int _open_datagrams(self, Link *link, uint32_t datagram_bytes, uint32_t per_datagram,
                             uint64_t resend_ns, uint64_t ask_ns) except -1:
        link.udp = new_datagrams(datagram_bytes, per_datagram, resend_ns, ask_ns, self.echo)
        if link.udp == NULL:
            raise MemoryError("buffers for datagrams")
        link.trader.window = WINDOW
        return 0

    def connect(self):
        """Connect and log in every link, from the account's next number on.

        Raises OSError, or WrongAnswer when a login is refused.
        """
        cdef uint32_t index
        cdef epoll_event event
        for index in range(self.link_count):
            sock = self._connect_udp(index) if self.links[index].udp != NULL \
                else self._connect_tcp(index)
            sock.setblocking(False)
            self.links[index].fd = sock.detach()
            event.events = EPOLLIN
            event.data.ptr = &self.links[index]
            epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.links[index].fd, &event)

    def _connect_tcp(self, uint32_t index):
        sock = socket.create_connection((self.host, self.port), timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.echo:
            first, next_ref = log_in(sock, *self.credentials[index])
            self.first_numbers.append(first)
            self.links[index].trader.next_ref = next_ref
        return sock

    def _connect_udp(self, uint32_t index):
        cdef Link *link = &self.links[index]
        sock = udplogin.connect(self.host, self.port)
        link.udp.spoke_at_ns = clock_ns()
        if self.echo:
            return sock
        try:
            opened = udplogin.log_in(sock, *self.credentials[index])
        except udplogin.Refused as error:
            raise WrongAnswer(str(error)) from None
        session = opened.session
        memcpy(link.udp.session, <char *>session, 10)
        link.udp.expected = link.udp.told = opened.next_number
        link.trader.next_ref = opened.next_ref
        self.first_numbers.append(opened.next_number)
        return sock

    # -- phases ------------------------------------------------------------------------------

    def closed_loop(self, in_flight, seconds, *, resting=1000, busy=False, warmup_seconds=0.0,
                    window_seconds=0.0):
        """Keep `in_flight` orders unanswered on each link for `seconds`. Returns the figures.

        `resting`: orders kept in the book by each link. `window_seconds`: also a histogram for
        every window of that length (`windows` in the answer).
        """
        cdef Plan plan = plan_of(PLAN_WINDOW, busy, in_flight, resting)
        if warmup_seconds:
            self._run(&plan, warmup_seconds, 0)
        return self._measure(&plan, seconds, window_seconds)

    def round_trips(self, seconds, *, resting=0, busy=False, warmup_seconds=0.0):
        """One message at a time on each link, order and cancel in turn. Returns the figures."""
        cdef Plan plan = plan_of(PLAN_SINGLE, busy, 1, resting)
        self.settle()
        if warmup_seconds:
            self._run(&plan, warmup_seconds, 0)
        return self._measure(&plan, seconds, 0)

    def fill(self, resting, *, in_flight=500):
        """Enter orders until `resting` of each link rest. Returns the figures.

        Raises WrongAnswer when the book does not grow to that within two minutes.
        """
        cdef Plan plan = plan_of(PLAN_FILL, False, in_flight, resting)
        cdef uint32_t share = self.market.taker_share
        started = clock_ns()
        self.market.taker_share = 0
        while self.resting < <uint64_t>resting * self.link_count:
            self._run(&plan, 0.05, 0)
            if clock_ns() - started > 120_000_000_000:
                raise WrongAnswer(f"only {self.resting} orders rest after two minutes")
        self.market.taker_share = share
        self.settle()
        return {"resting": self.resting, "seconds": (clock_ns() - started) / 1e9}

    def open_loop(self, per_second, seconds, *, resting=1000, busy=True, histogram=False):
        """Send `per_second` messages for `seconds`, spread evenly over time and links.

        Latency counts from the intended send time. Returns the figures; `unanswered` says how
        many messages were out at the end (they are waited for and counted in the latencies).
        `histogram`: also all latencies (`histogram` in the answer).
        """
        cdef Plan plan = plan_of(PLAN_NOTHING, busy, 0, resting)
        self.settle()
        self._reset(0)
        cpu, started = time.process_time(), clock_ns()
        sent = self._run_open(&plan, per_second, seconds)
        elapsed = (clock_ns() - started) / 1e9
        answered = self.tally.orders + self.tally.cancels + self.tally.cancels_void
        figures = self._figures(elapsed, time.process_time() - cpu)
        self.settle()
        figures.update(offered_per_second=per_second, sent=sent, unanswered=sent - answered,
                       latency=self._latency(0).summary())
        return figures | {"histogram": self._latency(0)} if histogram else figures

    def settle(self):
        """Wait until every message that needs an answer has one. Raises WrongAnswer when one is
        still out after `patience_seconds`."""
        cdef Plan plan = plan_of(PLAN_NOTHING, False, 0, 0)
        cdef uint64_t until = clock_ns() + self.patience_ns
        while self.unanswered:
            self._run(&plan, 0.001, 0)
            if clock_ns() > until:
                raise WrongAnswer(f"{self.unanswered} messages are still unanswered after "
                                  f"{self.patience_ns / 1e9:g} s")

    def finish(self):
        """Prove that the answers fit: empty the book, compare sums and sequence numbers.

        Every resting order must be canceled with what we think is open; takers and makers must
        have traded the same; the server's next number must be one past what we counted.
        Returns the sums of all phases. Raises WrongAnswer.
        """
        self.settle()
        if not self.echo:
            self._mass_cancel()
            self._compare_sums()
            self._compare_numbers()
        return {"fills": self.tally.fills, "taker_lots": self.tally.taker_lots,
                "orders": self.orders_before + self.tally.orders,
                "cancels": self.cancels_before + self.tally.cancels}

    # -- queries -----------------------------------------------------------------------------

    @property
    def unanswered(self):
        """Orders and cancels that wait for their answer."""
        cdef uint32_t index
        cdef uint64_t count = 0
        for index in range(self.link_count):
            count += orders_out(&self.links[index].trader) + self.links[index].trader.cancels_out
        return count

    @property
    def resting(self):
        """Orders that rest in the book, as far as the answers say."""
        cdef uint32_t index
        cdef uint64_t count = 0
        for index in range(self.link_count):
            count += self.links[index].trader.live_count
        return count

    # -- how a phase runs --------------------------------------------------------------------

    cdef _measure(self, Plan *plan, seconds, window_seconds):
        windows = int(seconds / window_seconds) + 2 if window_seconds else 0
        self._reset(windows)
        cpu, started, wall_ns = time.process_time(), clock_ns(), time.time_ns()
        self._run(plan, seconds, int(window_seconds * 1e9))
        elapsed = (clock_ns() - started) / 1e9
        figures = self._figures(elapsed, time.process_time() - cpu)
        figures["latency"] = self._latency(0).summary()
        if windows:
            figures["started_unix_ns"] = wall_ns
            figures["window_seconds"] = window_seconds
            figures["windows"] = [self._latency(at + 1) for at in range(self.windows_used)]
        return figures

    cdef _figures(self, elapsed, cpu_seconds):
        messages = self.tally.orders + self.tally.cancels
        figures = {
            "messages": messages, "seconds": elapsed, "per_second": messages / elapsed,
            "orders": self.tally.orders, "orders_per_second": self.tally.orders / elapsed,
            "cancels": self.tally.cancels,
            "cancels_void": self.tally.cancels_void, "fills": self.tally.fills,
            "generator_cpu": cpu_seconds / elapsed,
        }
        return figures | {"datagrams": self._datagrams()} if self.transport == "udp" else figures

    def _datagrams(self):
        """What links over UDP counted in this phase, summed."""
        cdef uint32_t index
        cdef Counts *counts
        sums = dict.fromkeys(("out", "in", "resent", "asked", "early", "repeated"), 0)
        for index in range(self.link_count):
            counts = &self.links[index].udp.counts
            sums["out"] += counts.datagrams_out
            sums["in"] += counts.datagrams_in
            sums["resent"] += counts.resent
            sums["asked"] += counts.asked
            sums["early"] += counts.early
            sums["repeated"] += counts.repeated
        return sums

    cdef int _reset(self, windows) except -1:
        """Zero the counts that a phase reports; the sums of trades go on to `finish`."""
        cdef uint32_t index
        self.orders_before += self.tally.orders
        self.cancels_before += self.tally.cancels
        self.tally.orders = self.tally.cancels = self.tally.cancels_void = 0
        for index in range(self.link_count):
            if self.links[index].udp != NULL:
                memset(&self.links[index].udp.counts, 0, sizeof(Counts))
        free(self.windows)
        self.windows = <Buckets *>calloc(max(1, windows), sizeof(Buckets))
        if self.windows == NULL:
            raise MemoryError(f"{windows} histograms")
        self.buckets = self.windows
        self.windows_used = 1
        return 0

    cdef Histogram _latency(self, uint32_t window):
        """One window's histogram, counted from 1; window 0 stands for all of them together."""
        cdef Histogram result = Histogram()
        cdef Histogram part
        cdef uint32_t index
        if window:
            memcpy(&result.buckets, &self.windows[window - 1], sizeof(Buckets))
            return result
        for index in range(self.windows_used):
            part = self._latency(index + 1)
            result.merge(part)
        return result

    cdef int _run(self, Plan *plan, double seconds, uint64_t window_ns) except -1:
        """Follow the plan for that long. Raises WrongAnswer for the first wrong answer."""
        cdef uint64_t started = clock_ns()
        cdef uint64_t until = started + <uint64_t>(seconds * 1e9)
        cdef uint64_t now = started
        while now < until:
            with nogil:
                now = self._run_slice(plan, min(until, now + (window_ns or SLICE_NS)))
            PyErr_CheckSignals()
            self._raise_wrong()
            if window_ns and now < until:
                self.windows_used = <uint32_t>((now - started) // window_ns) + 1
                self.buckets = &self.windows[self.windows_used - 1]
        return 0

    cdef uint64_t _run_slice(self, Plan *plan, uint64_t until) noexcept nogil:
        cdef uint64_t now = clock_ns()
        cdef uint32_t index
        for index in range(self.link_count):
            self._send_by_plan(&self.links[index], plan, now)
        while now < until:
            self._turn(plan, WAIT_MS)
            now = clock_ns()
        return now

    cdef void _turn(self, Plan *plan, int wait_ms) noexcept nogil:
        """Take what came on the links that have something, and answer by the plan."""
        cdef epoll_event events[EVENTS_MAX]
        cdef int count, index
        if self.links[0].udp != NULL:
            wait_ms = min(wait_ms, TEND_WAIT_MS)
            self._tend(clock_ns())
        if self.link_count == 1 and self._receive(&self.links[0]):
            self._send_by_plan(&self.links[0], plan, clock_ns())
            return
        if self.link_count == 1 and plan.busy:
            if has_unsent(&self.links[0]):
                self._flush(&self.links[0])
            return
        count = epoll_wait(self.epoll, events, EVENTS_MAX, 0 if plan.busy else wait_ms)
        for index in range(count):
            if events[index].events & EPOLLOUT:
                self._flush(<Link *>events[index].data.ptr)
            if self._receive(<Link *>events[index].data.ptr):
                self._send_by_plan(<Link *>events[index].data.ptr, plan, clock_ns())

    cdef void _tend(self, uint64_t now) noexcept nogil:
        """Once in a while: what links over UDP do when their time has come."""
        cdef uint32_t index
        cdef Link *link
        if now - self.tended_ns < TEND_NS:
            return
        self.tended_ns = now
        for index in range(self.link_count):
            link = &self.links[index]
            tend(link.udp, &link.trader, &self.market, now)
            if has_unsent(link):
                self._flush(link)

    cdef bint _receive(self, Link *link) noexcept nogil:
        """Read once and check what came. False when nothing was there."""
        cdef size_t taken
        cdef ssize_t got
        if link.udp != NULL:
            return receive_batch(link.udp, link.fd, &link.trader, &self.market, &self.tally,
                                 self.buckets)
        got = recv(link.fd, link.in_data + link.in_size, link.in_capacity - link.in_size,
                   MSG_DONTWAIT)
        if got <= 0:
            if got == 0 or (errno != EAGAIN and errno != EINTR):
                fail(&link.trader, "the server closed the connection", 0)
            return False
        link.in_size += got
        taken = read_packets(&link.trader, &self.market, &self.tally, self.buckets, link.in_data,
                             link.in_size, clock_ns())
        link.in_size -= taken
        if link.in_size:
            memmove(link.in_data, link.in_data + taken, link.in_size)
        return True

    cdef void _send_by_plan(self, Link *link, Plan *plan, uint64_t now) noexcept nogil:
        cdef Trader *trader = &link.trader
        if plan.kind == PLAN_NOTHING or trader.error != NULL:
            if has_unsent(link):
                self._flush(link)
            return
        if plan.kind == PLAN_SINGLE:
            if orders_out(trader) == 0 and trader.cancels_out == 0:
                self._write_one(link, trader.live_count > plan.resting, now, now)
            self._flush(link)
            return
        while orders_out(trader) < plan.window and self._may_send(link):
            if plan.kind == PLAN_FILL and trader.live_count + orders_out(trader) >= plan.resting:
                break
            self._write_one(link, False, now, now)
            if plan.kind == PLAN_WINDOW and trader.live_count > plan.resting:
                self._write_one(link, True, now, now)
        self._flush(link)

    cdef bint _may_send(self, Link *link) noexcept nogil:
        """Whether an order and a cancel can be written now."""
        if not has_room(&link.trader) or not in_window(&link.trader):
            return False
        if link.udp == NULL or has_datagrams(link.udp):
            return True
        self._flush(link)
        return has_datagrams(link.udp)

    cdef void _write_one(self, Link *link, bint cancel, uint64_t meant_ns,
                         uint64_t now) noexcept nogil:
        """Put out an order or a cancel whose latency counts from `meant_ns`."""
        cdef size_t size = CANCEL_BYTES if cancel else ENTER_BYTES
        cdef char *packet
        if link.udp == NULL:
            packet = room_for(link, size)
            link.out_end += size
        else:
            packet = datagram_room(link.udp, size)
        if cancel:
            write_cancel(&link.trader, &self.market, packet, meant_ns)
        else:
            write_order(&link.trader, &self.market, packet, meant_ns, True)
        if link.udp != NULL:
            watch(link.udp, CANCEL if cancel else ORDER, get32(packet + ENTER_REF), now)

    cdef void _flush(self, Link *link) noexcept nogil:
        """Send what is unsent; what the kernel does not take now goes when it can."""
        cdef bint waits
        if link.udp != NULL:
            waits = not send_batch(link.udp, link.fd, &link.trader)
        else:
            waits = not self._send_stream(link)
        if waits != link.waits_to_write:
            self._watch_writing(link, waits)

    cdef bint _send_stream(self, Link *link) noexcept nogil:
        cdef ssize_t sent
        while link.out_start < link.out_end:
            sent = send(link.fd, link.out_data + link.out_start, link.out_end - link.out_start,
                        MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    fail(&link.trader, "the connection broke while sending", errno)
                break
            link.out_start += sent
        return link.out_start == link.out_end

    cdef void _watch_writing(self, Link *link, bint waits) noexcept nogil:
        cdef epoll_event event
        link.waits_to_write = waits
        event.events = EPOLLIN | (EPOLLOUT if waits else 0)
        event.data.ptr = link
        epoll_ctl(self.epoll, EPOLL_CTL_MOD, link.fd, &event)

    cdef uint64_t _run_open(self, Plan *plan, double per_second, double seconds) except? 0:
        cdef uint64_t started = clock_ns()
        cdef uint64_t until = started + <uint64_t>(seconds * 1e9)
        cdef uint64_t now = started
        cdef uint64_t sent = 0
        while now < until:
            with nogil:
                now = self._open_slice(plan, started, min(until, now + SLICE_NS), per_second, &sent)
            PyErr_CheckSignals()
            self._raise_wrong()
        # What was due while we were away at the end was due all the same.
        self._send_due(plan, started, until, per_second, &sent)
        return sent

    cdef uint64_t _open_slice(self, Plan *plan, uint64_t started, uint64_t until,
                              double per_second, uint64_t *sent) noexcept nogil:
        cdef uint64_t now = clock_ns()
        while now < until:
            self._send_due(plan, started, now, per_second, sent)
            self._turn(plan, 1)
            now = clock_ns()
        return now

    cdef void _send_due(self, Plan *plan, uint64_t started, uint64_t now, double per_second,
                        uint64_t *sent) noexcept nogil:
        """Send every message whose intended time has come, link after link."""
        cdef uint64_t due = <uint64_t>((now - started) * per_second / 1e9)
        cdef Link *link
        cdef uint32_t first = self.turn
        cdef uint32_t touched = 0
        while sent[0] < due:
            link = &self.links[self.turn]
            if link.out_end - link.out_start > UNSENT_MAX_BYTES or not self._may_send(link):
                break
            self._write_one(link, sent[0] // self.link_count & 1
                            and link.trader.live_count > plan.resting,
                            started + <uint64_t>(sent[0] * 1e9 / per_second), now)
            sent[0] += 1
            touched += 1
            self.turn = (self.turn + 1) % self.link_count
        for touched in range(min(touched, self.link_count)):
            self._flush(&self.links[(first + touched) % self.link_count])

    # -- proofs ------------------------------------------------------------------------------

    cdef int _raise_wrong(self) except -1:
        cdef uint32_t index
        for index in range(self.link_count):
            if self.links[index].trader.error != NULL:
                text = self.links[index].trader.error.decode()
                raise WrongAnswer(f"{text} ({self.links[index].trader.error_ref}), "
                                  f"connection {index}")
        return 0

    cdef int _mass_cancel(self) except -1:
        cdef Plan plan = plan_of(PLAN_NOTHING, False, 0, 0)
        cdef Link *link
        cdef uint32_t index
        cdef uint64_t until = clock_ns() + self.patience_ns
        for index in range(self.link_count):
            link = &self.links[index]
            link.trader.closing = True
            if link.udp == NULL:
                packet = room_for(link, MASS_CANCEL_BYTES)
                link.out_end += MASS_CANCEL_BYTES
            else:
                packet = datagram_room(link.udp, MASS_CANCEL_BYTES)
                watch(link.udp, MASS_CANCEL, link.trader.next_ref, clock_ns())
            put_mass_cancel(packet, link.trader.next_ref)
            link.trader.next_ref += 1
            self._flush(link)
        while self.resting or not self._all_closed():
            self._run(&plan, 0.001, 0)
            if clock_ns() > until:
                raise WrongAnswer(f"{self.resting} orders survived a mass cancel for "
                                  f"{self.patience_ns / 1e9:g} s")
        return 0

    cdef bint _all_closed(self) noexcept:
        cdef uint32_t index
        for index in range(self.link_count):
            if self.links[index].trader.closing:
                return False
        return True

    cdef int _compare_sums(self) except -1:
        cdef Tally *tally = &self.tally
        for name, taker, maker in (
                ("lots", tally.taker_lots, tally.maker_lots),
                ("notional", tally.taker_notional, tally.maker_notional),
                ("match numbers", tally.taker_matches, tally.maker_matches)):
            if taker != maker:
                raise WrongAnswer(f"takers' {name} sum to {taker}, makers' to {maker}")
        return 0

    cdef int _compare_numbers(self) except -1:
        """Log in once more on every account: the server must have counted what we counted."""
        cdef uint32_t index
        for index in range(self.link_count):
            counted = self.first_numbers[index] + self.links[index].trader.sequenced
            close(self.links[index].fd)
            self.links[index].fd = -1
            number = self._next_number(self.credentials[index])
            if number != counted:
                raise WrongAnswer(f"the server's next number is {number}, we counted {counted}")
        return 0

    def _next_number(self, credentials):
        """What a new login is told."""
        if self.transport == "tcp":
            with socket.create_connection((self.host, self.port), timeout=30) as sock:
                return log_in(sock, *credentials)[0] - 1
        with udplogin.connect(self.host, self.port) as sock:
            number = udplogin.say_login(sock, *credentials)[1]
            sock.send(udplogin.LOGOUT)
            return number


cdef void close_link(Link *link) noexcept:
    if link.fd >= 0 and link.in_data != NULL:
        close(link.fd)
    free_datagrams(link.udp)
    free(link.in_data)
    free(link.out_data)
    free(link.trader.orders)
    free(link.trader.live)
    free(link.trader.waiting)


def log_in(sock, username, password):
    """Log in at the newest number and ask for the next UserRefNum.

    Returns (number of the next sequenced message after that answer, next UserRefNum).
    Raises WrongAnswer when the server refuses.
    """
    login = b"\x00\x2fL" + username.ljust(6).encode() + password.ljust(10).encode()
    sock.sendall(login + b" " * 10 + b"0".rjust(20) + b"\x00\x02UQ")
    packet = _read_packet(sock)
    if packet[:1] != b"A":
        raise WrongAnswer(f"login of {username} was answered {packet!r}")
    number = int(packet[11:31])
    answer = _read_packet(sock)
    if answer[:2] != b"SQ":
        raise WrongAnswer(f"an account query was answered {answer!r}")
    return number + 1, int.from_bytes(answer[10:14], "big")


def _read_packet(sock):
    """The next packet that is not a heartbeat, without its length field."""
    while True:
        length = int.from_bytes(_read_exactly(sock, 2), "big")
        packet = _read_exactly(sock, length)
        if packet != b"H":
            return packet


def _read_exactly(sock, size):
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise WrongAnswer("the server closed the connection during login")
        data += part
    return data

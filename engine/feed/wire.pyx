# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The way to each client's socket, and how one tick's bytes go out to many of them.

A tick makes one `bytes` object for all clients with the same subscriptions. Where nothing waits in
a client's transport it goes straight to the socket in one system call; else the transport gets a
reference and sends when it can. Nothing is copied for each client, so a crowd that stalls holds
each tick's bytes once.

A client is slow when it has not answered a ping for `slow_batches` batches, or its transport was
never empty during as many, and that lasts for `slow_age_ns`. It gets nothing more from `deliver`
then; `take_slow` names it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

cdef extern from "<sys/socket.h>" nogil:
    ssize_t socket_send "send"(int fd, const void *data, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef enum:
    OP_PING = 0x9
    FIN = 0x80
    # One byte of length, or that byte and two, or that byte and eight.
    LENGTH_16 = 126
    LENGTH_64 = 127


def frame(int opcode, bytes payload):
    """One whole WebSocket frame as a server sends it: final, not masked."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    cdef Py_ssize_t head = 2 if size < LENGTH_16 else 4 if size < 65_536 else 10
    cdef bytes made = PyBytes_FromStringAndSize(NULL, head + size)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(made)
    cdef Py_ssize_t rest = size
    cdef int position
    out[0] = <uint8_t>(FIN | opcode)
    out[1] = <uint8_t>(size if head == 2 else LENGTH_16 if head == 4 else LENGTH_64)
    for position in range(head - 1, 1, -1):
        out[position] = <uint8_t>(rest & 0xFF)
        rest >>= 8
    memcpy(out + head, PyBytes_AS_STRING(payload), size)
    return made


cdef class Wire:
    """One client's socket with what was sent through it."""
    # None once the connection is gone and nobody will ask for it.
    cdef readonly object owner
    cdef object _write
    cdef object _waiting
    cdef int _fd
    # Whether anything may still be sent: a closed socket's number may be another's already.
    cdef public bint open
    # Whether the transport was given bytes since it was last seen empty. Only then is it asked:
    # that costs more than anything else here but the system call.
    cdef bint _given
    cdef readonly int64_t messages_sent
    cdef readonly int64_t bytes_sent
    cdef readonly int64_t batches_sent
    # The tick whose batch this client has got, or was left out of.
    cdef readonly int64_t tick
    cdef readonly int64_t latency_ns
    # When the ping was sent that is not answered, 0 for none; and batches sent since.
    cdef readonly int64_t ping_sent_ns
    cdef readonly int64_t behind
    cdef int64_t ping_token
    cdef readonly int64_t pinged_ns
    # Since when, and for how many batches, the transport was never empty.
    cdef int64_t stuck_ns
    cdef readonly int64_t stuck

    def __init__(self, owner, transport, int fd):
        self.owner = owner
        self._write = transport.write
        self._waiting = transport.get_write_buffer_size
        self._fd = fd
        self.open = True
        self._given = True

    def release(self):
        """The connection is gone: hold nothing of it, so that it goes without the collector."""
        self.open = False
        self.owner = self._write = self._waiting = None

    @property
    def unsent_bytes(self):
        """Bytes that wait for the socket, beside what the kernel holds."""
        return self._waiting() if self.open else 0

    @property
    def drained(self):
        """Whether all that was sent has left, and every ping came back."""
        return self.open and self.ping_sent_ns == 0 and <Py_ssize_t>self._waiting() == 0

    def send(self, bytes data, int messages):
        """Send to this client alone."""
        if self.open:
            self.messages_sent += messages
            self.bytes_sent += PyBytes_GET_SIZE(data)
            self._given = True
            self._write(data)

    def given(self):
        """The transport is given bytes of others than this wire: later ones wait behind them."""
        self._given = True

    def skip(self, int64_t tick):
        """Leave the client out of a tick's batch."""
        self.tick = tick

    def ping(self, int64_t token, int64_t now_ns):
        """Send a ping, unless one is out already."""
        if self.open and self.ping_sent_ns == 0:
            self._pinged(token, now_ns)
            self._given = True
            self._write(ping_frame(token))

    def pong(self, bytes payload, int64_t now_ns):
        """A pong came; one that answers no ping of ours changes nothing."""
        if self.ping_sent_ns and payload == self.ping_token.to_bytes(8, "big"):
            self.latency_ns = now_ns - self.ping_sent_ns
            self.ping_sent_ns = 0
            self.behind = 0

    cdef void _pinged(self, int64_t token, int64_t now_ns) noexcept:
        self.ping_token = token
        self.ping_sent_ns = now_ns
        self.pinged_ns = now_ns
        self.behind = 0

    cdef bint _is_slow(self, int64_t batches, int64_t age_ns, int64_t now_ns) noexcept:
        return ((self.ping_sent_ns and self.behind >= batches
                 and now_ns - self.ping_sent_ns >= age_ns)
                or (self.stuck >= batches and now_ns - self.stuck_ns >= age_ns))

    cdef int _put(self, bytes data, int64_t now_ns) except -1:
        """Send one batch: straight to the socket if nothing waits before it."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef ssize_t sent
        self.bytes_sent += size
        self.batches_sent += 1
        if self.ping_sent_ns:
            self.behind += 1
        if (self._given or self._fd < 0) and <Py_ssize_t>self._waiting():
            if self.stuck == 0:
                self.stuck_ns = now_ns
            self.stuck += 1
            self._write(data)
            return 0
        self._given = False
        self.stuck = 0
        if self._fd < 0:
            self._write(data)
            return 0
        sent = socket_send(self._fd, PyBytes_AS_STRING(data), size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent == size:
            return 0
        # Full, or broken: the transport finds out which, and tells.
        self._given = True
        self._write(data if sent <= 0 else data[sent:])
        return 0


def ping_frame(int64_t token):
    """A ping that carries this token."""
    return frame(OP_PING, token.to_bytes(8, "big"))


cdef class FanOut:
    """Gives the batches of one tick to clients."""
    cdef readonly int64_t tick
    cdef int64_t _now_ns
    cdef int64_t _slow_batches
    cdef int64_t _slow_age_ns
    cdef int64_t _ping_every_ns
    cdef bytes _ping
    cdef list _slow
    cdef readonly int64_t batches_sent
    cdef readonly int64_t messages_sent

    def __init__(self, int64_t slow_batches, int64_t slow_age_ns, int64_t ping_every_ns):
        self._slow_batches = slow_batches
        self._slow_age_ns = slow_age_ns
        self._ping_every_ns = ping_every_ns
        self._slow = []
        self._ping = ping_frame(0)

    def begin(self, int64_t now_ns):
        """A new tick: what was left of the last one is not delivered any more."""
        self.tick += 1
        self._now_ns = now_ns
        self._ping = ping_frame(self.tick)

    def deliver(self, list wires, Py_ssize_t start, Py_ssize_t stop, bytes data, int messages):
        """Send the batch to wires[start:stop], but for those that have it or are slow."""
        cdef Wire wire
        cdef bytes with_ping = None
        cdef Py_ssize_t place
        for place in range(start, min(stop, len(wires))):
            wire = <Wire?>wires[place]
            if wire.tick == self.tick or not wire.open:
                continue
            wire.tick = self.tick
            if wire._is_slow(self._slow_batches, self._slow_age_ns, self._now_ns):
                self._slow.append(wire)
                continue
            wire.messages_sent += messages
            self.messages_sent += messages
            self.batches_sent += 1
            if wire.ping_sent_ns == 0 and self._now_ns - wire.pinged_ns >= self._ping_every_ns:
                if with_ping is None:
                    with_ping = data + self._ping
                wire._put(with_ping, self._now_ns)
                wire._pinged(self.tick, self._now_ns)
            else:
                wire._put(data, self._now_ns)

    def take_slow(self):
        """The clients that were left out since the last call because they are slow."""
        slow, self._slow = self._slow, []
        return slow

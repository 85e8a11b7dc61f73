# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Many datagrams in one system call (Linux's recvmmsg and sendmmsg), and orders out of them.

One large buffer takes what has come. Datagrams of logged-in callers that hold nothing but
orders, heartbeats and debug packets are decoded here, straight into one command batch, with no
Python object per datagram but its sender's address; whatever else comes is left to the caller of
this module. A datagram is done whole or not at all (PROTOCOLS 3.2).

An address is the bytes of a `sockaddr_in` (16) or `sockaddr_in6` (28), as the kernel gives it. On
a socket that is bound to every address of the machine, the one that the datagram was sent to (4
or 16 bytes) follows: answers leave from there, and elsewhere the same sender is somebody else.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strerror

from cython_core.event cimport CommandBatch
from cython_core.ouch cimport STOP_LOGOUT, STOP_NEED_MORE, Decoder
from cython_core.wire cimport FRAME_BYTES

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_TRUNC
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    unsigned char *CMSG_DATA(cmsghdr *header)
    size_t CMSG_SPACE(size_t length)
    size_t CMSG_LEN(size_t length)
    int recvmmsg(int fd, mmsghdr *messages, unsigned int count, int flags, void *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        AF_INET
        IPPROTO_IP
        IPPROTO_IPV6
        IP_PKTINFO
        IPV6_PKTINFO
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    cdef struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex

cdef enum:
    # What one read takes at most; the loop comes back for more.
    READ_DATAGRAMS = 256
    # The longest SoupBin packet that may begin a datagram has a length below 8,192.
    READ_BYTES = 8192
    # One datagram's place: not a power of two, or all of them would share a few cache lines.
    READ_STRIDE = READ_BYTES + 64
    SEND_DATAGRAMS = 64
    NAME_BYTES = 28
    NAME4_BYTES = 16
    # An IPv6 name with an address of ours behind it.
    ADDRESS_BYTES = NAME_BYTES + 16
    # Room for one IPV6_PKTINFO.
    CONTROL_WORDS = 8
    CONTROL_BYTES = 8 * CONTROL_WORDS
    LOGIN_BYTES_MIN = 49
    LOGIN_BYTES_MAX = 54
    # From this first byte on a datagram is MoldUDP64 and no SoupBin packet.
    MOLD_FIRST = 0x20

DATAGRAM_MAX = READ_BYTES


cdef class Caller:
    """Who may send orders from an address.

    `decoder` is the session's while it is open, else None; `window` counts the account's orders a
    second, None when there is no limit. `heard` is set by each datagram that was taken.
    """
    cdef public Decoder decoder
    cdef public object window
    cdef public bint heard


@cython.final
cdef class DatagramSocket:
    """Reads and writes many datagrams of a bound, non-blocking UDP socket at once. `everywhere`
    says that it is bound to all addresses of the machine, and told to say which one was meant.

    `count` datagrams of the last `receive` are looked at by index. `strangers` counts those that
    nobody logged in sent and that are no login, `bytes_in` what came, both over all reads;
    `datagrams_out`, `bytes_out` and `failed` (refused by the system, `failure` says why) what went.
    """
    cdef int _fd
    cdef uint8_t *_buffer
    cdef uint8_t *_names
    cdef unsigned int *_name_bytes
    cdef uint8_t *_controls
    cdef bint _everywhere
    cdef uint64_t _control_out[CONTROL_WORDS]
    cdef mmsghdr *_in
    cdef iovec *_in_parts
    cdef mmsghdr *_out
    cdef iovec *_out_parts
    cdef int _errno
    cdef readonly Py_ssize_t count
    cdef readonly bint is_logout
    cdef readonly str fault
    cdef readonly uint64_t strangers
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t datagrams_out
    cdef readonly uint64_t bytes_out
    cdef readonly uint64_t failed

    def __cinit__(self):
        self._fd = -1
        self.fault = ""
        self._buffer = <uint8_t *>calloc(READ_DATAGRAMS, READ_STRIDE)
        self._names = <uint8_t *>calloc(READ_DATAGRAMS, ADDRESS_BYTES)
        self._name_bytes = <unsigned int *>calloc(READ_DATAGRAMS, sizeof(unsigned int))
        self._controls = <uint8_t *>calloc(READ_DATAGRAMS, CONTROL_BYTES)
        self._in = <mmsghdr *>calloc(READ_DATAGRAMS, sizeof(mmsghdr))
        self._in_parts = <iovec *>calloc(READ_DATAGRAMS, sizeof(iovec))
        self._out = <mmsghdr *>calloc(SEND_DATAGRAMS, sizeof(mmsghdr))
        self._out_parts = <iovec *>calloc(SEND_DATAGRAMS, sizeof(iovec))
        if (self._buffer == NULL or self._names == NULL or self._name_bytes == NULL
                or self._controls == NULL or self._in == NULL or self._in_parts == NULL
                or self._out == NULL or self._out_parts == NULL):
            raise MemoryError
        self._join_parts()

    def __init__(self, int fileno, bint everywhere=False):
        cdef Py_ssize_t at
        self._fd = fileno
        self._everywhere = everywhere
        if everywhere:
            for at in range(READ_DATAGRAMS):
                self._in[at].msg_hdr.msg_control = self._controls + at * CONTROL_BYTES
                self._in[at].msg_hdr.msg_controllen = CONTROL_BYTES

    def __dealloc__(self):
        free(self._buffer)
        free(self._names)
        free(self._name_bytes)
        free(self._controls)
        free(self._in)
        free(self._in_parts)
        free(self._out)
        free(self._out_parts)

    cdef void _join_parts(self) noexcept:
        cdef Py_ssize_t at
        for at in range(READ_DATAGRAMS):
            self._in_parts[at].iov_base = self._buffer + at * READ_STRIDE
            self._in_parts[at].iov_len = READ_BYTES
            self._in[at].msg_hdr.msg_iov = &self._in_parts[at]
            self._in[at].msg_hdr.msg_iovlen = 1
            self._in[at].msg_hdr.msg_name = self._names + at * ADDRESS_BYTES
            self._in[at].msg_hdr.msg_namelen = NAME_BYTES
        for at in range(SEND_DATAGRAMS):
            self._out[at].msg_hdr.msg_iov = &self._out_parts[at]
            self._out[at].msg_hdr.msg_iovlen = 1

    @property
    def failure(self):
        """Why the last datagram that could not be sent was refused."""
        return strerror(self._errno).decode("ascii", "replace") if self._errno else ""

    def close(self):
        """Forget the descriptor, before somebody else gets its number."""
        self._fd = -1

    # -- in ------------------------------------------------------------------------------------

    def receive(self):
        """Take what has come, up to a bound; returns how many datagrams. Raises OSError."""
        cdef Py_ssize_t at
        cdef int taken
        # What the last read wrote there.
        for at in range(self.count):
            self._in[at].msg_hdr.msg_namelen = NAME_BYTES
            self._in[at].msg_hdr.msg_controllen = CONTROL_BYTES if self._everywhere else 0
        self.count = 0
        taken = recvmmsg(self._fd, self._in, READ_DATAGRAMS, MSG_DONTWAIT, NULL)
        if taken < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            raise OSError(errno, strerror(errno).decode("ascii", "replace"))
        self.count = taken
        for at in range(taken):
            self.bytes_in += self._in[at].msg_len
            self._name_bytes[at] = self._in[at].msg_hdr.msg_namelen
            if self._everywhere:
                self._add_own(at)
        return taken

    # Puts the address of ours that the datagram was sent to behind the sender's name.
    cdef void _add_own(self, Py_ssize_t at) noexcept:
        cdef cmsghdr *header = CMSG_FIRSTHDR(&self._in[at].msg_hdr)
        cdef uint8_t *behind = self._names + at * ADDRESS_BYTES + self._name_bytes[at]
        if header == NULL:
            return
        if header.cmsg_level == IPPROTO_IP and header.cmsg_type == IP_PKTINFO:
            memcpy(behind, &(<in_pktinfo *>CMSG_DATA(header)).ipi_spec_dst, sizeof(in_addr))
            self._name_bytes[at] += sizeof(in_addr)
        elif header.cmsg_level == IPPROTO_IPV6 and header.cmsg_type == IPV6_PKTINFO:
            memcpy(behind, &(<in6_pktinfo *>CMSG_DATA(header)).ipi6_addr, sizeof(in6_addr))
            self._name_bytes[at] += sizeof(in6_addr)

    def sender(self, Py_ssize_t at):
        """The address of a datagram's sender."""
        return self._sender(self._at(at))

    def data(self, Py_ssize_t at):
        """A datagram's bytes; no more than DATAGRAM_MAX of them."""
        self._at(at)
        return PyBytes_FromStringAndSize(<char *>self._buffer + at * READ_STRIDE,
                                         self._in[at].msg_len)

    def is_cut(self, Py_ssize_t at):
        """Whether a datagram was longer than DATAGRAM_MAX."""
        return self._in[self._at(at)].msg_hdr.msg_flags & MSG_TRUNC != 0

    def take_in(self, dict callers not None, Py_ssize_t start, CommandBatch batch not None,
                now_ns):
        """Decode datagrams from index `start` on, each whole or not at all.

        `callers` has a Caller by address. Returns the index of the first one that is for the
        caller to look at (a login, a request, a logout, wrong bytes, somebody who is not open),
        or `count`. With `is_logout` that one is whole, ends with a logout, and what stood before
        is in the batch; else nothing of it is, and `fault` says what is wrong if it was decoded.
        """
        cdef Py_ssize_t at
        cdef object found = None
        cdef Caller caller
        if batch._exports:
            raise BufferError("the batch is exported and can't grow")
        self.is_logout = False
        self.fault = ""
        for at in range(start, self.count):
            if at == start or not self._is_same_sender(at):
                found = callers.get(self._sender(at))
            if found is None:
                if self._may_be_login(at):
                    return at
                self.strangers += 1
                continue
            caller = <Caller?>found
            if caller.decoder is None or not self._decode(at, caller, batch, now_ns):
                return at
        return self.count

    cdef bint _decode(self, Py_ssize_t at, Caller caller, CommandBatch batch, now_ns) except -1:
        """Whether the datagram is done: orders, heartbeats and debug packets that fill it."""
        cdef const uint8_t *data = self._buffer + at * READ_STRIDE
        cdef size_t length = self._in[at].msg_len
        cdef Decoder decoder = caller.decoder
        cdef size_t units = batch.units.count
        cdef uint64_t commands = batch.command_count
        cdef int64_t budget = -1
        cdef size_t consumed
        cdef bint whole
        if (length < FRAME_BYTES or data[0] >= MOLD_FIRST or data[2] == c'L'
                or self._in[at].msg_hdr.msg_flags & MSG_TRUNC):
            return False
        if caller.window is not None:
            budget = caller.window.budget(now_ns)
        consumed = decoder.feed_bytes(data, length, batch, budget)
        whole = consumed == length and decoder._skip_bytes == 0
        if whole and (decoder.last_stop == STOP_NEED_MORE or decoder.last_stop == STOP_LOGOUT):
            self.is_logout = decoder.last_stop == STOP_LOGOUT
            caller.heard = True
            if caller.window is not None and decoder.entered:
                caller.window.spend(decoder.entered)
            return not self.is_logout
        batch.units.count = units
        batch.command_count = commands
        self.fault = (decoder.stop_reason if decoder.last_stop > STOP_LOGOUT
                      else "a packet that goes beyond the datagram's end" if not decoder.last_stop
                      else "packets behind a logout")
        decoder.reset()
        return False

    cdef inline bint _may_be_login(self, Py_ssize_t at) noexcept:
        cdef unsigned int length = self._in[at].msg_len
        return ((length == LOGIN_BYTES_MIN or length == LOGIN_BYTES_MAX)
                and self._buffer[at * READ_STRIDE + 2] == c'L')

    cdef inline bint _is_same_sender(self, Py_ssize_t at) noexcept:
        cdef unsigned int length = self._name_bytes[at]
        return (length == self._name_bytes[at - 1]
                and memcmp(self._names + at * ADDRESS_BYTES,
                           self._names + (at - 1) * ADDRESS_BYTES, length) == 0)

    cdef inline bytes _sender(self, Py_ssize_t at):
        return PyBytes_FromStringAndSize(<char *>self._names + at * ADDRESS_BYTES,
                                         self._name_bytes[at])

    cdef Py_ssize_t _at(self, Py_ssize_t at) except -1:
        if not 0 <= at < self.count:
            raise IndexError(f"datagram {at} of {self.count}")
        return at

    # -- out -----------------------------------------------------------------------------------

    def send(self, bytes address not None, list datagrams not None, Py_ssize_t start=0):
        """Send datagrams, from index `start` on, to one address; returns the index of the first
        one that the system has no room for now. One that it refuses is counted and passed over."""
        cdef Py_ssize_t at = start
        cdef Py_ssize_t end = len(datagrams)
        cdef Py_ssize_t some
        cdef int sent
        if PyBytes_GET_SIZE(address) not in (NAME4_BYTES, NAME4_BYTES + 4, NAME_BYTES,
                                             ADDRESS_BYTES):
            raise ValueError("that is no address")
        while at < end:
            some = min(end - at, <Py_ssize_t>SEND_DATAGRAMS)
            self._load(address, datagrams, at, some)
            sent = sendmmsg(self._fd, self._out, some, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent > 0:
                self._count_sent(sent)
                at += sent
            elif errno == EAGAIN or errno == ENOBUFS:
                break
            elif errno != EINTR:
                self._errno = errno
                self.failed += 1
                at += 1
        return at

    cdef int _load(self, bytes address, list datagrams, Py_ssize_t start,
                   Py_ssize_t some) except -1:
        cdef Py_ssize_t at
        cdef object datagram
        cdef Py_ssize_t address_bytes = PyBytes_GET_SIZE(address)
        cdef Py_ssize_t name_bytes = NAME4_BYTES if address_bytes < NAME_BYTES else NAME_BYTES
        cdef size_t control_bytes = 0
        if address_bytes > name_bytes:
            control_bytes = self._leave_from(<uint8_t *>PyBytes_AS_STRING(address) + name_bytes,
                                             address_bytes - name_bytes)
        for at in range(some):
            datagram = datagrams[start + at]
            if not isinstance(datagram, bytes):
                raise TypeError("a datagram is bytes")
            self._out_parts[at].iov_base = PyBytes_AS_STRING(datagram)
            self._out_parts[at].iov_len = PyBytes_GET_SIZE(datagram)
            self._out[at].msg_hdr.msg_name = PyBytes_AS_STRING(address)
            self._out[at].msg_hdr.msg_namelen = name_bytes
            self._out[at].msg_hdr.msg_control = self._control_out if control_bytes else NULL
            self._out[at].msg_hdr.msg_controllen = control_bytes
        return 0

    # Writes which address of ours datagrams leave from; returns the bytes of control data.
    cdef size_t _leave_from(self, const uint8_t *own, Py_ssize_t own_bytes) noexcept:
        cdef cmsghdr *header = <cmsghdr *>self._control_out
        memset(self._control_out, 0, CONTROL_BYTES)
        if own_bytes == sizeof(in_addr):
            header.cmsg_level, header.cmsg_type = IPPROTO_IP, IP_PKTINFO
            header.cmsg_len = CMSG_LEN(sizeof(in_pktinfo))
            memcpy(&(<in_pktinfo *>CMSG_DATA(header)).ipi_spec_dst, own, own_bytes)
            return CMSG_SPACE(sizeof(in_pktinfo))
        header.cmsg_level, header.cmsg_type = IPPROTO_IPV6, IPV6_PKTINFO
        header.cmsg_len = CMSG_LEN(sizeof(in6_pktinfo))
        memcpy(&(<in6_pktinfo *>CMSG_DATA(header)).ipi6_addr, own, own_bytes)
        return CMSG_SPACE(sizeof(in6_pktinfo))

    cdef void _count_sent(self, int sent) noexcept:
        cdef int at
        self.datagrams_out += sent
        for at in range(sent):
            self.bytes_out += self._out_parts[at].iov_len

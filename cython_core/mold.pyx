# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""MoldUDP64 1.0 (PROTOCOLS section 4.1): packets built and parsed, both directions.

`Packer` is the hot part: it turns the framed messages that `stream.Streams` gives for a session
into datagrams, each written once and exactly as long as it is. Everything else serves gap
requests, clients, tools and tests.

A downstream packet is a header of 20 bytes and message blocks, a request is a header alone. The
same header with a count of 0 is a heartbeat, with 0xFFFF the end of the session; both carry the
number of the next message.
"""

from collections import namedtuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from cython_core.wire cimport FRAME_BYTES, get16, get64, put16, put64, uint8_t

from cython_core.soupbin import WireError

cdef enum:
    HEADER = 20
    SESSION = 10
    BLOCK = 2  # the length before each message
    DATAGRAM_MAX = 65507  # what UDP over IPv4 can carry
    END_COUNT = 0xFFFF

HEADER_BYTES = HEADER
END_OF_SESSION_COUNT = END_COUNT
DATAGRAM_BYTES_MAX = DATAGRAM_MAX

cdef object _NUMBER_MAX = (1 << 64) - 1

MoldHeader = namedtuple("MoldHeader", "session sequence count")
MoldHeader.__doc__ = """The header of a downstream packet or a request. `session` is stripped of
its padding; `sequence` is the number of the first message, or of the next one in a heartbeat and
at the end of the session; `count` is 0 in a heartbeat, END_OF_SESSION_COUNT at the end."""


# -- building ----------------------------------------------------------------------------------

def build_heartbeat(session, next_number):
    """A downstream packet without messages. Raises WireError for values that do not fit."""
    return _header(session, next_number, 0)


def build_end_of_session(session, next_number):
    """The packet that says that no message will follow `next_number` - 1."""
    return _header(session, next_number, END_COUNT)


def build_request(session, first_number, count):
    """A client's request for `count` messages from `first_number` on: 20 bytes."""
    if not 0 < count < END_COUNT:
        raise WireError(f"a request for {count} messages, not 1 to {END_COUNT - 1}")
    return _header(session, first_number, count)


def build_packet(session, first_number, messages):
    """One downstream packet with all of `messages`, none of them more than 65,535 bytes.

    Raises WireError when they do not fit a datagram. Without messages it is a heartbeat.
    """
    messages = list(messages)
    size = HEADER + sum(BLOCK + len(message) for message in messages)
    if size > DATAGRAM_MAX:
        raise WireError(f"{size} bytes are over the {DATAGRAM_MAX} of a datagram")
    parts = [_header(session, first_number, len(messages))]
    for message in messages:
        parts.append(len(message).to_bytes(BLOCK, "big"))
        parts.append(message)
    return b"".join(parts)


cdef bytes _session(session):
    try:
        raw = session.encode("ascii")
    except UnicodeEncodeError:
        raise WireError(f"session {session!r} is not ASCII") from None
    if len(raw) > SESSION:
        raise WireError(f"session {session!r} is longer than {SESSION} characters")
    if not session.isprintable():
        raise WireError(f"session {session!r} is not printable")
    return raw.rjust(SESSION)


cdef bytes _header(session, number, int count):
    cdef uint8_t header[HEADER]
    cdef bytes padded = _session(session)
    _put_header(header, <const uint8_t *>PyBytes_AS_STRING(padded), _number(number), count)
    return PyBytes_FromStringAndSize(<const char *>header, HEADER)


cdef uint64_t _number(number) except? 0:
    if not 0 <= number <= _NUMBER_MAX:
        raise WireError(f"message number {number} is not within 64 bits")
    return number


cdef inline void _put_header(uint8_t *at, const uint8_t *session, uint64_t number,
                             int count) noexcept nogil:
    memcpy(at, session, SESSION)
    put64(at + SESSION, number)
    put16(at + SESSION + 8, count)


# -- parsing -----------------------------------------------------------------------------------

def is_mold(data):
    """Whether a datagram starts as MoldUDP64 does, and not as a SoupBinTCP packet below 8 KiB."""
    return len(data) > 0 and data[0] >= 0x20


def parse_header(data):
    """Read the first 20 bytes as a `MoldHeader`; what follows is not looked at.

    Raises WireError for fewer bytes, or for a session that is not printable ASCII.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _parse_header(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def parse_packet(data):
    """Read a downstream packet as (`MoldHeader`, list of messages).

    Strict: the blocks are as many as the header says and fill the datagram, a heartbeat and an
    end of session have none. Raises WireError.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        header = _parse_header(<const uint8_t *>view.buf, view.len)
        return header, _parse_blocks(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef object _parse_header(const uint8_t *data, Py_ssize_t length):
    cdef Py_ssize_t index
    if length < HEADER:
        raise WireError(f"a packet of {length} bytes has no header of {HEADER}")
    session = PyBytes_FromStringAndSize(<const char *>data, SESSION)
    for index in range(SESSION):
        if not 0x20 <= data[index] < 0x7F:
            raise WireError(f"session {session!r} is not printable ASCII")
    return MoldHeader(session.strip().decode("ascii"), get64(data + SESSION),
                      get16(data + SESSION + 8))


cdef list _parse_blocks(const uint8_t *data, Py_ssize_t length):
    cdef int count = get16(data + SESSION + 8)
    cdef Py_ssize_t position = HEADER
    cdef Py_ssize_t size
    cdef list messages = []
    for _ in range(0 if count == END_COUNT else count):
        if length - position < BLOCK:
            raise WireError(f"{count} messages are announced, {len(messages)} are there")
        size = get16(data + position)
        position += BLOCK
        if length - position < size:
            raise WireError(f"a message of {size} bytes, of which {length - position} are there")
        messages.append(PyBytes_FromStringAndSize(<const char *>data + position, size))
        position += size
    if position != length:
        raise WireError(f"{length - position} bytes follow the last message")
    return messages


# -- the packer --------------------------------------------------------------------------------

cdef class Packer:
    """Turns SoupBinTCP's Sequenced Data packets into downstream packets, numbered on.

    No datagram has more than `datagram_bytes` bytes. `next_number` is the number of the next
    message; `ended` says that an End of Session came.
    """
    cdef readonly uint64_t next_number
    cdef readonly bint ended
    cdef Py_ssize_t _datagram_bytes
    cdef bytes _session

    def __init__(self, session, next_number, datagram_bytes):
        if not HEADER + BLOCK < datagram_bytes <= DATAGRAM_MAX:
            raise WireError(f"datagrams of {datagram_bytes} bytes, not {HEADER + BLOCK + 1} to "
                            f"{DATAGRAM_MAX}")
        self._session = _session(session)
        self.next_number = _number(next_number)
        self._datagram_bytes = datagram_bytes

    def pack(self, framed):
        """The datagrams for whole packets `S`, of which each holds one message, and maybe a `Z`
        behind them, which becomes an end-of-session packet.

        Takes all or nothing: WireError for anything else, for a message that no datagram can
        hold, and for whatever follows an End of Session.
        """
        cdef Py_buffer view
        cdef list datagrams = []
        cdef uint64_t number = self.next_number
        cdef bint ended = self.ended
        PyObject_GetBuffer(framed, &view, PyBUF_SIMPLE)
        try:
            self._pack(<const uint8_t *>view.buf, view.len, datagrams)
        except WireError:
            self.next_number = number
            self.ended = ended
            raise
        finally:
            PyBuffer_Release(&view)
        return datagrams

    cdef int _pack(self, const uint8_t *framed, Py_ssize_t length, list datagrams) except -1:
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t taken
        while position < length:
            if self.ended:
                raise WireError("a packet behind the end of the session")
            taken = self._datagram(framed + position, length - position, datagrams)
            if taken == 0:
                taken = _end_packet(framed + position, length - position)
                self.ended = True
                datagrams.append(_header(self._session.decode(), self.next_number, END_COUNT))
            position += taken
        return 0

    # One datagram of as many messages as fit; returns the bytes that it took, 0 when the first
    # packet is none of a message.
    cdef Py_ssize_t _datagram(self, const uint8_t *framed, Py_ssize_t length,
                              list datagrams) except -1:
        cdef Py_ssize_t taken = 0
        cdef Py_ssize_t size = HEADER
        cdef Py_ssize_t packet_bytes
        cdef int count = 0
        cdef bytes datagram
        cdef uint8_t *at
        while length - taken >= FRAME_BYTES and framed[taken + 2] == c'S':
            packet_bytes = get16(framed + taken) + 2
            if packet_bytes < FRAME_BYTES or packet_bytes > length - taken:
                break
            # A block is a frame without its letter.
            if size + packet_bytes - 1 > self._datagram_bytes:
                break
            size += packet_bytes - 1
            taken += packet_bytes
            count += 1
        if count == 0:
            _check_first(framed, length, self._datagram_bytes)
            return 0
        datagram = PyBytes_FromStringAndSize(NULL, size)
        at = <uint8_t *>PyBytes_AS_STRING(datagram)
        _put_header(at, <const uint8_t *>PyBytes_AS_STRING(self._session), self.next_number,
                    count)
        _put_blocks(at + HEADER, framed, taken)
        self.next_number += count
        datagrams.append(datagram)
        return taken


cdef inline void _put_blocks(uint8_t *at, const uint8_t *framed, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t size
    while position < length:
        size = get16(framed + position) - 1
        put16(at, size)
        memcpy(at + BLOCK, framed + position + FRAME_BYTES, size)
        at += BLOCK + size
        position += FRAME_BYTES + size


cdef int _check_first(const uint8_t *framed, Py_ssize_t length,
                      Py_ssize_t datagram_bytes) except -1:
    cdef Py_ssize_t packet_bytes
    if length < FRAME_BYTES:
        raise WireError(f"{length} bytes are not a whole packet")
    packet_bytes = get16(framed) + 2
    if framed[2] != c'S':
        return 0
    if packet_bytes < FRAME_BYTES or packet_bytes > length:
        raise WireError(f"a packet of {packet_bytes} bytes, of which {length} are there")
    raise WireError(f"a message of {packet_bytes - FRAME_BYTES} bytes does not fit a datagram of "
                    f"{datagram_bytes}")


cdef Py_ssize_t _end_packet(const uint8_t *framed, Py_ssize_t length) except -1:
    if framed[2] != c'Z' or get16(framed) != 1:
        raise WireError(f"packet {chr(framed[2])!r} is no message for a datagram")
    return FRAME_BYTES

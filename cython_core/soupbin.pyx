# cython: language_level=3
"""SoupBinTCP 3.00 to 4.10 (PROTOCOLS section 1): every packet built and parsed, both directions.

The server's hot path does not come through here (`ouch.Decoder` walks packets itself, and
`stream.Streams` frames its own); logins, heartbeats, clients and tests do.
"""

from collections import namedtuple

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize

from cython_core.wire cimport FRAME_BYTES, get16, put_frame, uint8_t

PAYLOAD_MAX = 65534
LOGIN_PACKET_BYTES = (49, 54)


class WireError(ValueError):
    """Bytes that are not the protocol, or values that the protocol can't carry."""


Login = namedtuple("Login", "username password session sequence heartbeat_timeout_ms")
Login.__doc__ = """A Login Request. Texts are stripped; `sequence` 0 means "only what is new";
`heartbeat_timeout_ms` is None for a login of 47 bytes, or when a 4.10 client left it blank."""

LoginAccepted = namedtuple("LoginAccepted", "session sequence")
LoginAccepted.__doc__ = "A Login Accepted: `sequence` is the number of the next sequenced message."

# Payload bytes of each packet by who sends it; None: any number.
_PAYLOADS = {
    "client": {"+": None, "L": (46, 51), "U": None, "R": (0,), "O": (0,)},
    "server": {"+": None, "A": (30,), "J": (1,), "S": None, "U": None, "H": (0,), "Z": (0,)},
}


# -- building ----------------------------------------------------------------------------------

def build_packet(packet_type, payload=b""):
    """Any packet. Raises WireError when the payload is over 65,534 bytes."""
    cdef uint8_t frame[FRAME_BYTES]
    if len(payload) > PAYLOAD_MAX:
        raise WireError(f"a payload of {len(payload)} bytes is over {PAYLOAD_MAX}")
    put_frame(frame, len(payload), ord(packet_type))
    return PyBytes_FromStringAndSize(<char *>frame, FRAME_BYTES) + payload


CLIENT_HEARTBEAT = build_packet("R")
SERVER_HEARTBEAT = build_packet("H")
LOGOUT_REQUEST = build_packet("O")
END_OF_SESSION = build_packet("Z")


def build_debug(text):
    """A Debug packet, which receivers ignore."""
    return build_packet("+", text.encode("ascii", "replace") if isinstance(text, str) else text)


def build_sequenced(message):
    """A Sequenced Data packet around one application message."""
    return build_packet("S", message)


def build_unsequenced(message):
    """An Unsequenced Data packet around one application message."""
    return build_packet("U", message)


def build_login(username, password, session="", sequence=1, heartbeat_timeout_ms=None):
    """A Login Request: 47 bytes, or 52 when a heartbeat time-out is given (4.10).

    Raises WireError for a field that does not fit.
    """
    payload = (_field(username, 6) + _field(password, 10) + _number_or_text(session, 10)
               + _number(sequence, 20))
    if heartbeat_timeout_ms is not None:
        payload += _number(heartbeat_timeout_ms, 5)
    return build_packet("L", payload)


def build_login_accepted(session, sequence):
    """A Login Accepted, session and next sequence number padded on the left."""
    return build_packet("A", _number_or_text(session, 10) + _number(sequence, 20))


def build_login_rejected(reason):
    """A Login Rejected: `A` not authorised, `S` session not available."""
    if reason not in ("A", "S"):
        raise WireError(f"login reject reason {reason!r} is neither A nor S")
    return build_packet("J", reason.encode())


cdef bytes _ascii(text):
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise WireError(f"{text!r} is not ASCII") from None


cdef bytes _field(text, int width):
    raw = _ascii(text)
    if len(raw) > width:
        raise WireError(f"{text!r} is longer than {width} characters")
    return raw.ljust(width)


cdef bytes _number_or_text(text, int width):
    return _field(text, width).strip().rjust(width)


cdef bytes _number(value, int width):
    if value < 0:
        raise WireError(f"{value} is negative")
    return _field(str(value), width).strip().rjust(width)


# -- parsing -----------------------------------------------------------------------------------

def parse_login(payload):
    """Read the payload of `L` (46 or 51 bytes), whatever the padding, as a `Login`.

    Raises WireError for a wrong length, a number that is not digits, a text that is not ASCII.
    """
    payload = bytes(payload)
    if len(payload) not in _PAYLOADS["client"]["L"]:
        raise WireError(f"a login request has 46 or 51 bytes of payload, this one {len(payload)}")
    timeout = _text(payload[46:])
    return Login(_text(payload[:6]), _text(payload[6:16]), _text(payload[16:26]),
                 _digits(payload[26:46], "sequence number"),
                 _digits(payload[46:], "heartbeat time-out") if timeout else None)


def parse_login_accepted(payload):
    """Read the payload of `A` as a `LoginAccepted`. Raises WireError."""
    payload = bytes(payload)
    if len(payload) != 30:
        raise WireError(f"a login accepted has 30 bytes of payload, this one {len(payload)}")
    return LoginAccepted(_text(payload[:10]), _digits(payload[10:], "sequence number"))


def parse_login_rejected(payload):
    """Read the payload of `J`: `A` or `S`. Raises WireError for anything else."""
    payload = bytes(payload)
    if payload not in (b"A", b"S"):
        raise WireError(f"login reject {payload!r} is neither A nor S")
    return payload.decode()


cdef str _text(bytes raw):
    try:
        return raw.strip(b" \0").decode("ascii")
    except UnicodeDecodeError:
        raise WireError(f"{raw!r} is not ASCII") from None


cdef _digits(bytes raw, str what):
    text = raw.strip(b" \0")
    if not text:
        return 0
    if not text.isdigit():
        raise WireError(f"{what} {raw!r} is not a number")
    return int(text)


cdef class PacketReader:
    """Splits what one side of a connection sends into packets, across any segmentation.

    `sender` is "server" (a client reads) or "client" (a server reads). After `feed`, iterate:
    every step gives (packet type as a letter, payload as bytes); the iteration ends when the rest
    is not a whole packet yet. A packet that `sender` can't send, or of a wrong length, raises
    WireError, after the packets before it.
    """
    cdef bytearray _buffer
    cdef Py_ssize_t _position
    cdef dict _payloads
    cdef readonly str sender

    def __init__(self, sender="server"):
        if sender not in _PAYLOADS:
            raise ValueError(f"sender {sender!r} is neither client nor server")
        self.sender = sender
        self._payloads = _PAYLOADS[sender]
        self._buffer = bytearray()

    def feed(self, data):
        """Add received bytes and return the reader itself, to be iterated."""
        if self._position:
            del self._buffer[:self._position]
            self._position = 0
        self._buffer += data
        return self

    def take_rest(self):
        """The bytes not yet given out as packets; the reader forgets them."""
        rest = bytes(self._buffer[self._position:])
        self._buffer.clear()
        self._position = 0
        return rest

    def __iter__(self):
        return self

    def __next__(self):
        cdef Py_ssize_t left = PyByteArray_GET_SIZE(self._buffer) - self._position
        cdef const uint8_t *packet
        cdef Py_ssize_t length
        if left < 2:
            raise StopIteration
        packet = <const uint8_t *>PyByteArray_AS_STRING(self._buffer) + self._position
        length = get16(packet)
        if length == 0:
            raise WireError("a packet of length zero")
        if left < FRAME_BYTES:
            raise StopIteration
        kind = chr(packet[2])
        self._check(kind, length - 1)
        if left < length + 2:
            raise StopIteration
        self._position += length + 2
        return kind, PyBytes_FromStringAndSize(<const char *>packet + FRAME_BYTES, length - 1)

    cdef int _check(self, str kind, Py_ssize_t payload_bytes) except -1:
        allowed = self._payloads.get(kind, ())
        if allowed is None:
            return 0
        if not allowed:
            raise WireError(f"unknown packet type {kind!r} from the {self.sender}")
        if payload_bytes not in allowed:
            raise WireError(f"packet {kind!r} with {payload_bytes} bytes of payload")
        return 0

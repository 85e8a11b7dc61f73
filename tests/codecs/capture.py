"""Writes a conversation as a capture file that tshark opens: Ethernet, IPv4, TCP or UDP.

Sequence numbers, acknowledgements and checksums are right, so that tshark has nothing of its own
to complain about and reassembles packets across segments.
"""

import struct

CLIENT, SERVER = bytes((127, 0, 0, 1)), bytes((127, 0, 0, 2))
CLIENT_PORT = 40_000
SYN, ACK, PSH, FIN = 2, 16, 8, 1
SEGMENT_BYTES_MAX = 1_400
TCP, UDP = 6, 17


def checksum(data):
    """The ones' complement sum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Frames:
    """The file, frame by frame, of a client and `server_port`."""

    def __init__(self, server_port):
        self._ports = {"client": CLIENT_PORT, "server": server_port}
        self._frames = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)]
        self._time_us = 1_600_000_000_000_000

    def write(self, path):
        """Write the file."""
        path.write_bytes(b"".join(self._frames))

    def _frame(self, sender, protocol, header, data):
        """Add one packet; `header` has its checksum at an offset that `protocol` tells, as 0."""
        source, target = (CLIENT, SERVER) if sender == "client" else (SERVER, CLIENT)
        at = 16 if protocol == TCP else 6
        pseudo = source + target + struct.pack("!BBH", 0, protocol, len(header) + len(data))
        total = checksum(pseudo + header + data)
        segment = header[:at] + struct.pack("!H", total) + header[at + 2:] + data
        address = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol, 0)
        address += source + target
        address = address[:10] + struct.pack("!H", checksum(address)) + address[12:]
        frame = bytes(12) + b"\x08\x00" + address + segment
        self._time_us += 10
        seconds, microseconds = divmod(self._time_us, 1_000_000)
        self._frames.append(struct.pack("<IIII", seconds, microseconds, len(frame), len(frame)))
        self._frames.append(frame)


class Datagrams(Frames):
    """Datagrams between a client and `server_port`."""

    def send(self, sender, data):
        """Put one datagram of the client or the server on the wire."""
        receiver = "server" if sender == "client" else "client"
        header = struct.pack("!HHHH", self._ports[sender], self._ports[receiver], 8 + len(data), 0)
        self._frame(sender, UDP, header, data)


class Capture(Frames):
    """One connection from a client to `server_port`, from SYN to FIN."""

    def __init__(self, server_port):
        super().__init__(server_port)
        self._sequence = {"client": 1_000, "server": 2_000_000_000}
        self._segment("client", b"", SYN)
        self._segment("server", b"", SYN | ACK)
        self._segment("client", b"", ACK)

    def send(self, sender, data):
        """Put bytes of the client or the server on the wire, in as many segments as they need."""
        for start in range(0, len(data), SEGMENT_BYTES_MAX):
            self._segment(sender, data[start:start + SEGMENT_BYTES_MAX], PSH | ACK)

    def write(self, path):
        """End the connection and write the file."""
        for sender in ("client", "server"):
            self._segment(sender, b"", FIN | ACK)
        super().write(path)

    def _segment(self, sender, data, flags):
        receiver = "server" if sender == "client" else "client"
        acknowledged = self._sequence[receiver] if flags & ACK else 0
        header = struct.pack("!HHIIBBHHH", self._ports[sender], self._ports[receiver],
                             self._sequence[sender], acknowledged, 5 << 4, flags, 65_535, 0, 0)
        self._frame(sender, TCP, header, data)
        self._sequence[sender] += len(data) + bool(flags & (SYN | FIN))

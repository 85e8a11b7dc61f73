"""Writes a TCP conversation as a capture file that tshark opens: Ethernet, IPv4, TCP.

Sequence numbers, acknowledgements and checksums are right, so that tshark has nothing of its own
to complain about and reassembles packets across segments.
"""

import struct

CLIENT, SERVER = bytes((127, 0, 0, 1)), bytes((127, 0, 0, 2))
CLIENT_PORT = 40_000
SYN, ACK, PSH, FIN = 2, 16, 8, 1
SEGMENT_BYTES_MAX = 1_400


def checksum(data):
    """The ones' complement sum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Capture:
    """One connection from a client to `server_port`, from SYN to FIN."""

    def __init__(self, server_port):
        self._ports = {"client": CLIENT_PORT, "server": server_port}
        self._sequence = {"client": 1_000, "server": 2_000_000_000}
        self._frames = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)]
        self._time_us = 1_600_000_000_000_000
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
        path.write_bytes(b"".join(self._frames))

    def _segment(self, sender, data, flags):
        receiver = "server" if sender == "client" else "client"
        source, target = (CLIENT, SERVER) if sender == "client" else (SERVER, CLIENT)
        acknowledged = self._sequence[receiver] if flags & ACK else 0
        header = struct.pack("!HHIIBBHHH", self._ports[sender], self._ports[receiver],
                             self._sequence[sender], acknowledged, 5 << 4, flags, 65_535, 0, 0)
        pseudo = source + target + struct.pack("!BBH", 0, 6, len(header) + len(data))
        tcp = header[:16] + struct.pack("!H", checksum(pseudo + header + data)) + header[18:]
        self._frame(source, target, tcp + data)
        self._sequence[sender] += len(data) + bool(flags & (SYN | FIN))

    def _frame(self, source, target, segment):
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0)
        header += source + target
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        frame = bytes(12) + b"\x08\x00" + header + segment
        self._time_us += 10
        seconds, microseconds = divmod(self._time_us, 1_000_000)
        self._frames.append(struct.pack("<IIII", seconds, microseconds, len(frame), len(frame)))
        self._frames.append(frame)

"""What counts as one address where failures and requests are counted."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# An IPv6 subscriber has a network of 64 bits, and as many addresses in it as he likes.
NETWORK6_BYTES = 8
IPV4_BYTES = 4
# How an IPv4 address begins where a socket for both families writes it.
MAPPED = bytes(10) + b"\xff\xff"


def network_of_packed(address: bytes) -> bytes:
    """The IPv4 address, also one in IPv6's clothes, or the network that one IPv6 subscriber has, of
    an address of 4 or 16 bytes."""
    if len(address) == IPV4_BYTES:
        return address
    return address[len(MAPPED):] if address.startswith(MAPPED) else address[:NETWORK6_BYTES]


@lru_cache(4_096)
def network_of(host: str) -> bytes:
    """The same of an address as text. What is no address counts as itself."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host.encode()
    return network_of_packed(address.packed)

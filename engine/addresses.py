"""What counts as one address where failures and requests are counted."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

# An IPv6 subscriber has a network of 64 bits, and as many addresses in it as he likes.
NETWORK6_BYTES = 8


@lru_cache(4_096)
def network_of(host: str) -> bytes:
    """The IPv4 address, also one in IPv6's clothes, or the network that one IPv6 subscriber has.
    What is no address counts as itself."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host.encode()
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed
    mapped = address.ipv4_mapped
    return mapped.packed if mapped else address.packed[:NETWORK6_BYTES]

"""The two doors of order entry under one handle, for tests that hold for both."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import pytest

from tests.support.udp_wire import UdpWire
from tests.support.wire import Wire


class Ports(Protocol):
    """A venue or a daemon."""

    port: int

    @property
    def udp_port(self) -> int:
        """The port of order entry over UDP."""


class Transport(NamedTuple):
    """How clients reach a venue."""

    name: str
    wire: type[Wire]

    def port(self, venue: Ports) -> int:
        """Where the venue listens."""
        return venue.udp_port if self.name == "udp" else venue.port

    async def open(self, venue: Ports) -> Wire:
        """Connect, without a login."""
        return await self.wire.open(self.port(venue))

    async def logged_in(self, venue: Ports, username: str, password: str = "demo",
                        **login: Any) -> Wire:
        """Connect and log in; fails when that is refused."""
        return await self.wire.logged_in(self.port(venue), username, password, **login)


TCP = Transport("tcp", Wire)
UDP = Transport("udp", UdpWire)
BOTH = (TCP, UDP)


def over(*transports: Transport) -> pytest.MarkDecorator:
    """Runs a test over each of these, in place of the fixture `transport`."""
    return pytest.mark.parametrize("transport", transports,
                                   ids=[transport.name for transport in transports])


over_both = over(*BOTH)

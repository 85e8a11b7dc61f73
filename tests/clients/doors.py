"""A venue's door over one of its transports, and a line to it that can be cut: for tests that hold
for both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from engine.clients import OrderEntryClient
from tests.clients.cutting_proxy import CuttingProxy
from tests.support.daemon import Daemon
from tests.support.lossy_link import LossyLink, Rates


@dataclass
class Door:
    """How clients reach a daemon."""

    daemon: Daemon
    transport: str

    @property
    def port(self) -> int:
        return self.daemon.udp_port if self.transport == "udp" else self.daemon.port

    def client(self, account: str = "MAKER1", password: str = "demo",
               **options: Any) -> OrderEntryClient:
        """A client that is not connected yet."""
        port = options.pop("port", self.port)
        return OrderEntryClient("127.0.0.1", port, account, password,
                                transport=self.transport, **options)

    @asynccontextmanager
    async def line(self) -> AsyncIterator[TcpLine | UdpLine]:
        """A line to the door that works, until it is told otherwise."""
        if self.transport == "udp":
            with LossyLink(("127.0.0.1", self.port)) as link:
                yield UdpLine(self, link)
        else:
            async with CuttingProxy(self.port, seed=1, bytes_max=0) as proxy:
                yield TcpLine(self, proxy)


class TcpLine:
    """A line of TCP connections."""

    def __init__(self, door: Door, proxy: CuttingProxy) -> None:
        self._door, self._proxy = door, proxy
        self.port = proxy.port

    def cut(self) -> None:
        """Nothing comes through, and connections break."""
        self._proxy.port_upstream = 1
        self._proxy.cut_all()

    def mend(self) -> None:
        """Everything comes through, to where the daemon listens now."""
        self._proxy.port_upstream = self._door.port


class UdpLine:
    """A line for datagrams."""

    def __init__(self, door: Door, link: LossyLink) -> None:
        self._door, self._link = door, link
        self.port = link.port

    def cut(self) -> None:
        """Nothing comes through, and nobody is told."""
        self._link.stop()

    def mend(self) -> None:
        """Everything comes through, to where the daemon listens now."""
        self._link.target = ("127.0.0.1", self._door.port)
        self._link.heal()

    def fail(self, rates: Rates) -> None:
        """Lose, repeat, reorder, delay and corrupt at these rates."""
        self._link.rates = rates

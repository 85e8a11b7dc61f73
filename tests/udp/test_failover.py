"""A session that changes between TCP and UDP at random moments under load: one unbroken stream,
every order done once."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.daemon import Daemon
from tests.support.lossy_link import LossyLink, Rates
from tests.support.wire import Wire
from tests.udp.flows import BASE, IOC
from tests.udp.journal_judge import judge, numbers_used
from tests.udp.reference import (
    LOGOUT,
    Driver,
    Patience,
    Reference,
    cancel,
    enter,
    login,
    query,
    told,
    unsequenced,
)

HOPS, HOPS_LONG = 16, 300
ORDERS_PER_HOP = 120
# Older orders are canceled.
KEPT = 60
# No order and no fence of the reference client uses it.
CHANNEL = 127


class TcpLeg:
    """The same client over TCP, for a while."""

    def __init__(self, client: Reference, port: int) -> None:
        self._client = client
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._rest = b""
        # The session is named from the second leg on: it must be the one that UDP knows.
        self._socket.sendall(login("MAKER1", "demo", client.session.strip(), client.next_number))
        kind, payload = self._packet()
        assert kind == b"A", (kind, payload)
        assert int(payload[10:]) == client.next_number
        client.session = payload[:10].decode()

    def settle(self) -> None:
        """Send what is not answered, and read until all of it was handled."""
        self._socket.sendall(b"".join(self._client.unanswered()) + unsequenced(query(CHANNEL)))
        letter = channel = None
        while (letter, channel) != ("Q", CHANNEL):
            kind, payload = self._packet()
            if kind == b"S":
                self._client.take(payload)
                letter, _, channel, _ = told(payload)
            else:
                assert kind == b"H", kind

    def leave(self, chance: random.Random) -> None:
        """Go without a word, with a word, or with orders on the way that nobody reads about."""
        how = chance.randrange(3)
        if how == 0:
            self._socket.sendall(LOGOUT)
        elif how == 1:
            self._socket.sendall(b"".join(self._client.unanswered()))
        self._socket.close()

    def _packet(self) -> tuple[bytes, bytes]:
        while len(self._rest) < 2 or len(self._rest) < 2 + int.from_bytes(self._rest[:2], "big"):
            data = self._socket.recv(65_536)
            assert data, "closed by the venue"
            self._rest += data
        end = 2 + int.from_bytes(self._rest[:2], "big")
        packet, self._rest = self._rest[2:end], self._rest[end:]
        return packet[:1], packet[1:]


@contextmanager
def counterparty(daemon: Daemon) -> Iterator[None]:
    """TAKER1 over UDP sells all the time at the price at which MAKER1 buys."""
    stopped, errors = threading.Event(), []

    def trade() -> None:
        client, chance, number = Reference("TAKER1"), random.Random(2), 0
        driver = Driver([client], ("127.0.0.1", daemon.udp_port))
        try:
            while not stopped.is_set():
                for _ in range(chance.randint(1, 20)):
                    number += 1
                    client.ask(number, enter(number, "S", chance.randint(1, 30), BASE, tif=IOC))
                driver.until(lambda: client.idle, 60)
        except BaseException as error:
            errors.append(error)
        driver.close()

    thread = threading.Thread(target=trade, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    assert not errors


class Hopper:
    """MAKER1, which buys over one transport and then over the other."""

    def __init__(self, daemon: Daemon, port: int, seed: int) -> None:
        self.client = Reference("MAKER1", patience=Patience(silence_s=3.0))
        self.number = 0
        self.driver = Driver([self.client], ("127.0.0.1", port))
        self._daemon = daemon
        self._chance = random.Random(seed)
        self._until = 0

    def hop(self) -> None:
        """Another transport, or a new session on the same one."""
        self._until += ORDERS_PER_HOP
        self._chance.choice((self.by_udp, self.by_tcp))()

    def ask_more(self) -> None:
        """A few orders, and cancels of older ones that may live or not."""
        chance, first = self._chance, self.number + 1
        if first > self._until:
            return
        self.number += chance.randint(1, 20)
        for number in range(first, self.number + 1):
            self.client.ask(number, enter(number, "B", chance.randint(1, 30), BASE))
        if first > KEPT:
            # The book stays small, for the oracle's sake.
            self.client.ask_fenced([cancel(number - KEPT)
                                    for number in range(first, self.number + 1)])

    def by_udp(self) -> None:
        """A random while over UDP; it ends in the middle of things."""
        self.client.rejoin()
        self.driver.until(lambda: self.client.state == "open", 30)
        self._for_a_while(self.driver.turn)

    def by_tcp(self) -> None:
        """A random while over TCP."""
        leg = TcpLeg(self.client, self._daemon.port)
        self._for_a_while(leg.settle)
        leg.leave(self._chance)

    def _for_a_while(self, turn: object) -> None:
        ends_s = time.monotonic() + self._chance.uniform(0.0, 0.3)
        while True:
            if len(self.client.unanswered()) < 200:
                self.ask_more()
            turn()
            if time.monotonic() >= ends_s:
                return


async def whole_stream(daemon: Daemon, count: int) -> list[bytes]:
    """MAKER1's messages from the first, as a fresh TCP login replays them."""
    wire = await Wire.logged_in(daemon.port, "MAKER1")
    found = [(await wire.packet(30))[1] for _ in range(count)]
    assert await wire.silent()
    await wire.close()
    return found


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("share", [0.0, 0.15])
def test_a_stream_goes_on_whatever_it_goes_over(daemon: Daemon, long_profile: bool,
                                                share: float) -> None:
    with LossyLink(("127.0.0.1", daemon.udp_port), Rates.all(share), 5) as link:
        hopper = Hopper(daemon, link.port, 4)
        with counterparty(daemon):
            for _ in range(HOPS_LONG if long_profile else HOPS):
                hopper.hop()
            # What TCP, which is strict, does not take any more, UDP does.
            hopper.client.rejoin()
            hopper.driver.until(lambda: hopper.client.idle, 60)
        # Only a heartbeat tells of a last trade that was lost.
        hopper.client.quiet = 0
        hopper.driver.until(lambda: hopper.client.quiet >= 2, 60)
        hopper.driver.close()
    assert hopper.client.messages == asyncio.run(
        whole_stream(daemon, len(hopper.client.messages)))
    used = numbers_used(daemon.data_dir)
    assert set(used.values()) == {1}
    assert {number for account, _, number in used if account == 1} == {
        *range(1, hopper.number + 1)}
    assert any(told(message).letter == "E" for message in hopper.client.messages)
    assert daemon.stop() == 0
    assert daemon.run("journal", "verify").returncode == 0
    judge(daemon.data_dir)

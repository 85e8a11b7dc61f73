"""Random and mutated datagrams, from strangers and from sessions: a session beside them notices
nothing, nobody is sent more than he sent, and the daemon's memory stays where it was."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.lossy_link import corrupted
from tests.udp import reference
from tests.udp.flows import IOC
from tests.udp.journal_judge import judge, numbers_used
from tests.udp.reference import (
    Driver,
    Reference,
    cancel,
    enter,
    query,
    replace,
    told,
    unsequenced,
)

SECONDS, SECONDS_LONG = 4.0, 60.0
# So many are sent at once, then the daemon may breathe: what is tested is what it makes of them,
# not how much a kernel's buffer holds.
BURST, BREATH_S = 40, 0.01
GROWTH_MAX_BYTES = 24 * 2**20
LOG_MAX_BYTES = 2**20
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


def memory_bytes(daemon: Daemon) -> int:
    """What the daemon has in memory."""
    assert daemon.process is not None
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def good_datagrams(chance: random.Random) -> list[bytes]:
    """What a client may send, as a beginning for mutations."""
    number = chance.choice((0, 1, 7, 1_024, 2**31, 2**32 - 1))
    orders = [enter(number, "B", 100, 1_000_000), replace(1, number, 5, 100), cancel(number),
              query(5), enter(number, "S", 1, 2**63, "NOSUCH", "3", channel=200)]
    first = chance.choice((0, 1, 5, 2**40, 2**64 - 1))
    return [b"".join(map(unsequenced, orders)), unsequenced(orders[0]), reference.HEARTBEAT,
            reference.login("MAKER2", "guess", "", 1), reference.login("MAKER2", "", "", 1, 99),
            reference.request("SESSION", first, chance.choice((0, 1, 500, 65_535))),
            reference.soup(b"+", b"hello"), reference.soup(b"S", orders[0]),
            reference.MOLD.pack(b"SESSION   ", 1, 1) + b"\0\1A"]


def hostile(chance: random.Random) -> bytes:
    """One datagram that might hurt somebody."""
    data = chance.choice(good_datagrams(chance))
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.choice((0, 1, 2, 3, 19, 20, 21, 49, 54, 1_400, 9_000)))
    if kind == 1:
        return corrupted(data, chance.getrandbits(60))
    if kind == 2:
        return data * chance.randint(2, 30)
    changed = bytearray(data)
    for _ in range(chance.randint(0, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


class Address:
    """A socket of an attacker, and what went out and came back."""

    def __init__(self, host: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.sent_bytes = 0
        self.received: list[bytes] = []

    def send(self, data: bytes, port: int) -> None:
        self.socket.sendto(data, ("127.0.0.1", port))
        self.sent_bytes += len(data)

    def receive(self) -> None:
        while True:
            try:
                self.received.append(self.socket.recv(65_536))
            except BlockingIOError:
                return

    @property
    def received_bytes(self) -> int:
        return sum(map(len, self.received))


class Attacker(threading.Thread):
    """Sends from a hundred addresses until it is told to stop."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.addresses: list[Address] = []
        self.sent = 0
        self._chance = random.Random(seed)
        self._port = port
        self._stopped = threading.Event()

    def run(self) -> None:
        chance = self._chance
        self.addresses = [Address(chance.choice(HOSTS)) for _ in range(100)]
        while not self._stopped.is_set():
            address = chance.choice(self.addresses)
            for _ in range(chance.choice((1, 5, BURST))):
                address.send(hostile(chance), self._port)
                self.sent += 1
            time.sleep(BREATH_S)

    def stop(self) -> None:
        """Stop, and take what came back, the last answers to logins too."""
        self._stopped.set()
        self.join()
        time.sleep(1.0)
        for address in self.addresses:
            address.receive()
            address.socket.close()


class Calm:
    """A session that does what it should, and what it noticed."""

    def __init__(self, port: int, name: str = "MAKER1") -> None:
        self.client = Reference(name, patience=reference.Patience(
            login_s=10.0, silence_s=10.0, resend_s=5.0, resend_max_s=5.0))
        self.driver = Driver([self.client], ("127.0.0.1", port))
        self.number = 0

    def trade(self, orders: int = 5) -> None:
        """A few orders, answered; none rests, for the oracle's sake."""
        for _ in range(orders):
            self.number += 1
            self.client.ask(self.number, enter(self.number, "B", 1, 10_000, tif=IOC))
        self.driver.until(lambda: self.client.idle, 60)

    def check(self, traded: bool = False) -> None:
        """It had every answer from its one login, without asking twice for anything."""
        assert self.client.state == "open"
        letters = Counter(told(message).letter for message in self.client.messages)
        assert letters["A"] == self.number
        assert traded or letters == {"A": self.number, "C": self.number}
        noticed = {name: count for name, count in self.client.counts.items() if count}
        assert noticed == {"logins": 1}, noticed


def check_passwords(daemon: Daemon) -> None:
    """A few wrong logins: the 16 MiB that a check takes may stay with the thread that does them,
    and nobody shall take them for a growth."""
    for _ in range(3):
        stranger = Address("127.0.0.6")
        stranger.send(reference.login("MAKER2", "guess", "", 1), daemon.udp_port)
        deadline_s = time.monotonic() + 60
        while not stranger.received:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
            stranger.receive()
        stranger.socket.close()


@contextmanager
def calm_session(daemon: Daemon) -> Iterator[Calm]:
    check_passwords(daemon)
    calm = Calm(daemon.udp_port)
    try:
        yield calm
    finally:
        calm.driver.close()


def trade_on(calm: Calm, long_profile: bool) -> None:
    """Trade while something else happens."""
    ends_s = time.monotonic() + (SECONDS_LONG if long_profile else SECONDS)
    while time.monotonic() < ends_s:
        calm.trade()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_datagrams_of_strangers_hurt_nobody(daemon: Daemon, long_profile: bool,
                                                   seed: int) -> None:
    with calm_session(daemon) as calm:
        calm.trade(500)
        before = memory_bytes(daemon)
        attacker = Attacker(daemon.udp_port, seed)
        attacker.start()
        trade_on(calm, long_profile)
        attacker.stop()
        calm.check()
        assert calm.client.debug == []
    assert attacker.sent > 500
    assert any(address.received for address in attacker.addresses)
    for address in attacker.addresses:
        assert address.received_bytes <= address.sent_bytes
        assert {data[:3] for data in address.received} <= {b"\0\2J"}
    assert memory_bytes(daemon) - before < GROWTH_MAX_BYTES
    assert daemon.log_path.stat().st_size < LOG_MAX_BYTES
    assert daemon.stop() == 0
    assert set(numbers_used(daemon.data_dir)) == {(1, 0, n) for n in range(1, calm.number + 1)}


@pytest.mark.timeout(600)
def test_broken_datagrams_with_a_sessions_own_address_do_nothing(daemon: Daemon,
                                                                 long_profile: bool) -> None:
    chance = random.Random(3)
    with calm_session(daemon) as calm:
        calm.trade()
        forge = calm.driver.socket_of(calm.client)
        before = memory_bytes(daemon)
        ends_s = time.monotonic() + (SECONDS_LONG if long_profile else SECONDS)
        while time.monotonic() < ends_s:
            for _ in range(BURST):
                data = chance.choice(good_datagrams(chance))
                forge.sendto(corrupted(data, chance.getrandbits(60)), calm.driver.address)
            calm.trade()
        calm.check()
        # Once a second it is told what is wrong.
        assert 0 < len(calm.client.debug) < 3 * (SECONDS_LONG if long_profile else SECONDS)
    assert memory_bytes(daemon) - before < GROWTH_MAX_BYTES
    assert daemon.log_path.stat().st_size < LOG_MAX_BYTES
    assert daemon.stop() == 0
    assert set(numbers_used(daemon.data_dir)) == {(1, 0, n) for n in range(1, calm.number + 1)}


class Insider(threading.Thread):
    """A session that sends whatever keeps the framing, and logs in again when that ended it."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.answers = 0
        self.logins = 0
        self.session = "       S01"
        self._chance = random.Random(seed)
        self._address = Address("127.0.0.5")
        self._port = port
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            self._log_in()
            for _ in range(self._chance.randint(1, 40)):
                for _ in range(BURST // 4):
                    self._address.send(self._datagram(), self._port)
                time.sleep(BREATH_S)
                self._read()

    def stop(self) -> None:
        """Stop."""
        self._stopped.set()
        self.join()
        self._address.socket.close()

    def _log_in(self) -> None:
        self.logins += 1
        self._address.send(reference.login("TAKER2", "demo", "", self._chance.randint(0, 1)),
                           self._port)
        time.sleep(0.2)
        self._read()

    def _read(self) -> None:
        self._address.received.clear()
        self._address.receive()
        for data in self._address.received:
            self.answers += 1
            if data[2:3] == b"A":
                self.session = data[3:13].decode()

    def _datagram(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.1:
            return reference.request(self.session, chance.choice((0, 1, 9, 2**63)),
                                     chance.choice((1, 100, 65_534)))
        if chance.random() < 0.01:
            return reference.LOGOUT
        messages = []
        for _ in range(chance.randint(1, 12)):
            number = chance.randint(1, 3_000)
            message = bytearray(chance.choice((
                enter(number, chance.choice("BS"), 10, 10_000 + 100 * chance.randint(-3, 3)),
                replace(number - 1, number, 5, 10_100), cancel(number), query(3))))
            if chance.random() < 0.3:
                message[chance.randrange(len(message))] = chance.randrange(256)
            messages.append(unsequenced(bytes(message)))
        return b"".join(messages)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [5, 6])
def test_a_session_that_sends_nonsense_hurts_only_itself(daemon: Daemon, long_profile: bool,
                                                         seed: int) -> None:
    with calm_session(daemon) as calm:
        calm.trade(200)
        before = memory_bytes(daemon)
        insider = Insider(daemon.udp_port, seed)
        insider.start()
        trade_on(calm, long_profile)
        deadline_s = time.monotonic() + SECONDS_LONG
        while insider.answers <= 100 and time.monotonic() < deadline_s:
            calm.trade()
        insider.stop()
        # What it entered may have traded with ours: only our own answers are counted.
        calm.check(traded=True)
    assert insider.answers > 100
    # What it entered rests, and is remembered.
    assert memory_bytes(daemon) - before < GROWTH_MAX_BYTES + 200 * insider.answers
    assert daemon.stop() == 0
    assert daemon.run("journal", "verify").returncode == 0
    judge(daemon.data_dir)

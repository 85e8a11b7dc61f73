"""The lossy link itself: it fails as often as told, the same way for the same seed, and no more."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.lossy_link import Fates, LossyLink, Rates, corrupted, is_framed

ORDERS = b"".join(b"\0\x0aU" + bytes([number]) * 9 for number in range(5))
RESPONSES = b"SESSION001" + bytes(7) + b"\x09\0\2" + b"\0\3abc" + b"\0\0"
WHOLE = [ORDERS, RESPONSES, b"\0\1R", b"\0\1O", RESPONSES[:18] + b"\0\0", RESPONSES[:20],
         RESPONSES[:18] + b"\xff\xff", b"\0\x2fL" + b" " * 46, b"\0\4+hey"]


class Echo:
    """A far end that notes what comes and sends it back."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.3)
        self.seen: list[bytes] = []

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()
        return host, port

    def read(self, answer: bool = True) -> list[bytes]:
        """Everything until nothing comes any more."""
        while True:
            try:
                data, sender = self.socket.recvfrom(65_536)
            except TimeoutError:
                return self.seen
            self.seen.append(data)
            if answer:
                self.socket.sendto(data, sender)


@contextmanager
def link_to_echo(rates: Rates, seed: int = 1) -> Iterator[tuple[LossyLink, Echo, Echo]]:
    far, near = Echo(), Echo()
    with LossyLink(far.address, rates, seed) as link:
        yield link, far, near
    far.socket.close()
    near.socket.close()


def passed(rates: Rates, seed: int, count: int = 300) -> list[bytes]:
    """What of so many orders reaches the far end, in the order of arrival."""
    with link_to_echo(rates, seed) as (link, far, near):
        for number in range(count):
            near.socket.sendto(b"\0\5U" + number.to_bytes(4, "big"), ("127.0.0.1", link.port))
        return far.read(answer=False)


def test_without_rates_everything_passes_in_order_both_ways() -> None:
    with link_to_echo(Rates()) as (link, far, near):
        sent = [b"\0\5U" + number.to_bytes(4, "big") for number in range(200)]
        for data in sent:
            near.socket.sendto(data, ("127.0.0.1", link.port))
        assert far.read() == sent
        assert near.read(answer=False) == sent
        told = link.told()
        assert told["up"]["received"] == told["up"]["sent"] == told["down"]["sent"] == 200


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_each_fate_comes_as_often_as_told_and_alone(share: float) -> None:
    for name in ("drop", "duplicate", "reorder", "delay", "corrupt"):
        chosen = Rates(**{name: share})
        fates = Fates(7, 0, "up")
        drawn = [fates.draw(chosen) for _ in range(4_000)]
        found = {"drop": sum(fate.drop for fate in drawn),
                 "duplicate": sum(fate.duplicate for fate in drawn),
                 "reorder": sum(fate.reorder for fate in drawn),
                 "delay": sum(fate.delay_s > 0 for fate in drawn),
                 "corrupt": sum(fate.corrupt > 0 for fate in drawn)}
        assert found.pop(name) == pytest.approx(share * 4_000, rel=0.2)
        assert set(found.values()) == {0}


def test_the_same_seed_drops_and_corrupts_the_same_datagrams() -> None:
    rates = Rates(drop=0.2, corrupt=0.2)
    first, again, other = passed(rates, 5), passed(rates, 5), passed(rates, 6)
    assert first == again
    assert first != other


def test_what_a_client_meets_does_not_depend_on_other_clients() -> None:
    rates = Rates(drop=0.3)
    alone = passed(rates, 9)
    with link_to_echo(rates, 9) as (link, far, near):
        other = Echo()
        for number in range(300):
            near.socket.sendto(b"\0\5U" + number.to_bytes(4, "big"), ("127.0.0.1", link.port))
            other.socket.sendto(b"\0\1R", ("127.0.0.1", link.port))
        beside = [data for data in far.read(answer=False) if data != b"\0\1R"]
        assert link.clients == 2
        other.socket.close()
    # Which of two clients is the first one is up to the kernel only if they start together.
    assert beside == alone


def test_reordered_delayed_and_repeated_datagrams_all_arrive() -> None:
    found = passed(Rates(duplicate=0.3, reorder=0.3, delay=0.3), 11)
    numbers = [int.from_bytes(data[3:], "big") for data in found]
    assert set(numbers) == set(range(300))
    assert 340 < len(numbers) < 440
    assert numbers != sorted(numbers)


def test_a_stopped_link_passes_nothing_and_a_healed_one_everything() -> None:
    with link_to_echo(Rates()) as (link, far, near):
        there = ("127.0.0.1", link.port)
        near.socket.sendto(b"\0\1R", there)
        assert len(far.read()) == 1
        link.stop()
        near.socket.sendto(b"\0\1R", there)
        assert len(far.read()) == 1
        assert link.counts["up"].stopped == 1
        link.heal()
        near.socket.sendto(b"\0\1R", there)
        assert len(far.read()) == 2


def test_a_client_keeps_its_address_when_the_target_moves() -> None:
    with link_to_echo(Rates()) as (link, far, near):
        moved = Echo()
        near.socket.sendto(b"\0\1R", ("127.0.0.1", link.port))
        _, before = far.socket.recvfrom(100)
        link.target = moved.address
        near.socket.sendto(b"\0\1R", ("127.0.0.1", link.port))
        _, after = moved.socket.recvfrom(100)
        assert before == after
        moved.socket.close()


@given(st.sampled_from(WHOLE), st.integers(0, 2**63))
def test_a_corrupted_datagram_never_passes_for_a_whole_one(data: bytes, seed: int) -> None:
    assert is_framed(data)
    changed = corrupted(data, seed)
    assert not is_framed(changed)
    assert changed == corrupted(data, seed)


def test_a_link_is_closed_at_once_with_datagrams_on_their_way() -> None:
    before = time.monotonic()
    with link_to_echo(Rates(reorder=1.0, delay=1.0, delay_max_s=30.0)) as (link, _, near):
        chance = random.Random(3)
        for _ in range(50):
            near.socket.sendto(chance.randbytes(30), ("127.0.0.1", link.port))
    assert time.monotonic() - before < 20

"""Messages that come in datagrams, put in order; asking for what is missing. No socket, no clock:
the network is a list of what arrives when."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clients.reorder import ASKED_MAX, HELD_MAX, HOLES_MAX, OVERTAKEN_S, Gaps, Reorder
from engine.clients.round_trip import RoundTrip
from engine.clients.soup import Sequenced


def message(number: int) -> bytes:
    return str(number).encode()


def packet(first: int, count: int) -> list[bytes]:
    return [message(number) for number in range(first, first + count)]


def numbered(first: int, end: int) -> list[Sequenced]:
    return [Sequenced(number, message(number)) for number in range(first, end)]


def test_messages_in_order_are_given_out_at_once() -> None:
    reorder = Reorder(5)
    assert reorder.take(5, packet(5, 3)) == numbered(5, 8)
    assert reorder.take(8, packet(8, 1)) == numbered(8, 9)
    assert reorder.complete
    assert list(reorder.holes()) == []


def test_what_overtook_another_waits_for_it() -> None:
    reorder = Reorder(1)
    assert reorder.take(3, packet(3, 2)) == []
    assert list(reorder.holes()) == [(1, 2)]
    assert reorder.take(1, packet(1, 2)) == numbered(1, 5)


def test_a_repeat_is_left_out_and_what_is_new_in_it_is_not() -> None:
    reorder = Reorder(1)
    reorder.take(1, packet(1, 3))
    assert reorder.take(1, packet(1, 3)) == []
    assert reorder.take(2, packet(2, 4)) == numbered(4, 6)
    assert reorder.take(0, packet(0, 2)) == []


def test_a_packet_that_covers_what_was_held_gives_each_message_once() -> None:
    reorder = Reorder(1)
    reorder.take(3, packet(3, 1))
    reorder.take(6, packet(6, 1))
    assert reorder.take(1, packet(1, 5)) == numbered(1, 7)
    assert reorder.complete


def test_a_heartbeat_reveals_that_the_last_messages_are_missing() -> None:
    reorder = Reorder(1)
    reorder.take(1, packet(1, 2))
    reorder.announce(6)
    assert not reorder.complete
    assert list(reorder.holes()) == [(3, 3)]
    reorder.announce(2)
    assert list(reorder.holes()) == [(3, 3)]


def test_what_waits_is_bounded_and_the_rest_is_missing() -> None:
    reorder = Reorder(1)
    reorder.take(2, packet(2, HELD_MAX + 10))
    assert list(reorder.holes()) == [(1, 1), (HELD_MAX + 2, 10)]
    assert reorder.take(1, packet(1, 1)) == numbered(1, HELD_MAX + 2)


@given(st.integers(1, 60), st.data())
def test_any_order_of_any_pieces_gives_each_message_once_in_order(total: int,
                                                                 data: st.DataObject) -> None:
    pieces = st.tuples(st.integers(1, total), st.integers(0, total))
    came = [*data.draw(st.lists(pieces, max_size=40)), (1, total)]
    reorder = Reorder(1)
    given_out: list[Sequenced] = []
    seen: set[int] = set()
    end = 1
    for first, count in came:
        count = min(count, total + 1 - first)
        end = max(end, first + count)
        given_out += reorder.take(first, packet(first, count))
        seen.update(range(first, first + count))
        in_order = next(number for number in range(1, total + 2) if number not in seen)
        assert given_out == numbered(1, in_order)
        missing = [number for first, count in reorder.holes()
                   for number in range(first, first + count)]
        assert missing == [number for number in range(in_order, end)
                           if number not in seen]
    assert given_out == numbered(1, total + 1)


def asking(reorder: Reorder) -> Gaps:
    return Gaps(reorder, RoundTrip(0.1, 0.05, 1.0, random.Random(1)))


def test_what_is_overtaken_by_little_is_not_asked_for() -> None:
    reorder = Reorder(1)
    gaps = asking(reorder)
    assert gaps.due(0.0) is None
    reorder.take(2, packet(2, 1))
    assert gaps.due(1.0) == 1.0 + OVERTAKEN_S
    assert gaps.ask(1.0) == []
    reorder.take(1, packet(1, 1))
    assert gaps.due(1.001) is None
    assert gaps.ask(2.0) == []


def test_a_hole_is_asked_for_again_later_and_later() -> None:
    reorder = Reorder(1)
    gaps = asking(reorder)
    reorder.announce(4)
    times = []
    now = 0.0
    while len(times) < 8:
        due = gaps.due(now)
        assert due is not None and due > now
        now = due
        assert gaps.ask(now) == [(1, 3)]
        times.append(now)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[0] == pytest.approx(0.1, rel=0.21)
    assert waits[4] == pytest.approx(0.4, rel=0.21)
    assert max(waits) <= 1.2


def test_progress_begins_the_waits_anew_and_measures_the_round_trip() -> None:
    reorder = Reorder(1)
    gaps = asking(reorder)
    reorder.announce(100)
    now = gaps.due(0.0)
    assert now is not None
    assert gaps.ask(now) == [(1, 99)]
    reorder.take(1, packet(1, 10))
    # The rest is asked for after the time that the first answer took.
    assert gaps.due(now + 0.02) == pytest.approx(now + 0.04)
    assert gaps.ask(now + 0.04) == [(11, 89)]


def test_holes_and_messages_that_are_asked_for_at_a_time_are_bounded() -> None:
    reorder = Reorder(1)
    for number in range(2, 60, 2):
        reorder.take(number, packet(number, 1))
    gaps = asking(reorder)
    due = gaps.due(0.0)
    assert due is not None
    assert gaps.ask(due) == [(number, 1) for number in range(1, 2 * HOLES_MAX, 2)]
    far = Reorder(1)
    far.announce(3 * ASKED_MAX)
    gaps = asking(far)
    due = gaps.due(0.0)
    assert due is not None
    assert gaps.ask(due) == [(1, ASKED_MAX)]


def test_a_round_trip_is_waited_for_with_a_margin_within_bounds() -> None:
    round_trip = RoundTrip(0.25, 0.05, 2.0, random.Random(7))
    assert round_trip.wait_s(1) == pytest.approx(0.25, rel=0.21)
    for _ in range(50):
        round_trip.measured(0.001)
    assert round_trip.wait_s(1) == pytest.approx(0.05, rel=0.21)
    for _ in range(50):
        round_trip.measured(0.5)
    assert round_trip.mean_s == pytest.approx(0.5, rel=0.05)
    assert 0.4 < round_trip.wait_s(1) < 1.5
    assert round_trip.wait_s(30) <= 2.4
    for _ in range(50):
        round_trip.measured(3.0)
    assert 4.0 < round_trip.wait_s(30) < 7.3
    waits = {round_trip.wait_s(1) for _ in range(20)}
    assert len(waits) == 20


class Server:
    """Sends messages 1 to `total`, some of a packet, at once; answers requests with few."""

    def __init__(self, total: int, chance: random.Random, loss: float) -> None:
        self.total, self._chance, self._loss = total, chance, loss
        # (time, first, count); a heartbeat has no messages.
        self.arriving: list[tuple[float, int, int]] = []

    def send(self, now: float, first: int, count: int) -> None:
        copies = 0 if self._chance.random() < self._loss else 1
        copies += self._chance.random() < self._loss
        for _ in range(copies):
            late_s = self._chance.random() * (0.1 if self._chance.random() < self._loss else 0.01)
            self.arriving.append((now + late_s, first, count))

    def send_all(self, now: float) -> None:
        first = 1
        while first <= self.total:
            count = min(self._chance.randint(1, 30), self.total + 1 - first)
            self.send(now, first, count)
            first += count

    def answer(self, now: float, first: int, count: int) -> None:
        if self._chance.random() < self._loss:
            return
        for _ in range(3):
            count = min(count, self.total + 1 - first)
            if count > 0:
                self.send(now, first, min(count, 20))
            first, count = first + 20, count - 20


@given(st.integers(0, 2**32), st.integers(1, 2_000), st.sampled_from([0.0, 0.05, 0.3]))
def test_everything_comes_over_a_link_that_loses_repeats_and_reorders(
        seed: int, total: int, loss: float) -> None:
    chance = random.Random(seed)
    server = Server(total, chance, loss)
    reorder = Reorder(1)
    gaps = asking(reorder)
    given_out: list[Sequenced] = []
    now, beat = 0.0, 1.0
    server.send_all(now)
    while len(given_out) < total:
        times = [time for time, _, _ in server.arriving] + [beat]
        due = gaps.due(now)
        now = max(now, min(times if due is None else [*times, due]))
        assert now < 60.0
        if now >= beat:
            beat += 1.0
            server.send(now, total + 1, 0)
        came = sorted(one for one in server.arriving if one[0] <= now)
        server.arriving = [one for one in server.arriving if one[0] > now]
        for _, first, count in came:
            given_out += reorder.take(first, packet(first, count))
        for first, count in gaps.ask(now):
            server.answer(now, first, count)
    assert given_out == numbered(1, total + 1)

"""Requests in datagrams over a network that loses, repeats, delays and reorders them. No socket, no
clock: time is a number, and the venue a few lines that take a number once."""

import asyncio
import heapq
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_core import ouch, soupbin
from engine.clients.executions import (
    Accepted,
    AccountQueried,
    Canceled,
    Execution,
    MassCanceled,
    Modified,
)
from engine.clients.parcels import (
    DATAGRAM_BYTES_MAX,
    FENCE_CODES,
    PARCELS_MAX,
    Parcels,
    build_fence,
)
from engine.clients.pending import Answer, Pending, Request


def decoded(datagram: bytes) -> list[dict[str, Any]]:
    """The OUCH messages of a datagram, which they fill."""
    reader = soupbin.PacketReader("client").feed(datagram)
    messages = [ouch.decode("in", payload) for _, payload in reader]
    assert reader.take_rest() == b""
    return messages


class Asker:
    """Makes requests as the client does, and holds them."""

    def __init__(self, window: int = 1_024, seed: int = 0) -> None:
        self.now = 0.0
        self.parcels = Parcels(window, random.Random(seed))
        self.pending = Pending(lambda request: self.parcels.done(request, self.now))
        self.asked: list[Request] = []
        self._next_number = 1

    def enter(self) -> Request:
        number = self._number()
        return self._ask(ouch.encode_inbound("O", user_ref_num=number, side="B", quantity_lots=1,
                                             symbol="GOOG", price_units=100, time_in_force="0",
                                             display="Y", capacity="P", iso="N", cross_type="N",
                                             client_order=""),
                         {number: (Accepted,)}, takes=number, fenced=False)

    def cancel(self, number: int) -> Request:
        return self._ask(ouch.encode_inbound("X", user_ref_num=number, quantity_lots=0),
                         {number: (Canceled,)}, names=number)

    def modify(self, number: int) -> Request:
        return self._ask(ouch.encode_inbound("M", user_ref_num=number, side="B", quantity_lots=1),
                         {number: (Modified,)}, names=number)

    def mass_cancel(self) -> Request:
        number = self._number()
        return self._ask(ouch.encode_inbound("C", user_ref_num=number, firm="", symbol=""),
                         {number: (MassCanceled,)}, takes=number, fenced=False)

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _ask(self, message: bytes, answered_by: Any, **more: Any) -> Request:
        request = Request(len(self.asked), soupbin.build_unsequenced(message), answered_by,
                          Answer(0), 1e9, lambda: None, **more)
        self.asked.append(request)
        self.pending.add(request)
        self.parcels.add(request)
        return request

    def sent(self, after_s: float = 0.0) -> list[list[dict[str, Any]]]:
        """The datagrams that are due after some time."""
        self.now += after_s
        datagrams = self.parcels.datagrams(self.now)
        assert all(len(datagram) <= DATAGRAM_BYTES_MAX for datagram in datagrams)
        return [decoded(datagram) for datagram in datagrams]

    def give(self, request: Request) -> None:
        self.pending.remove(request)
        request.answer.give(None)


def kinds(datagram: list[dict[str, Any]]) -> str:
    return "".join(message["type"] for message in datagram)


def channels(datagram: list[dict[str, Any]]) -> list[int]:
    return [message["options"]["user_ref_idx"] for message in datagram if message["type"] == "Q"]


async def test_requests_of_one_turn_share_datagrams_in_their_order() -> None:
    asker = Asker()
    for _ in range(60):
        asker.enter()
    sent = asker.sent()
    assert [message["user_ref_num"] for datagram in sent for message in datagram] == [
        *range(1, 61)]
    assert [len(datagram) for datagram in sent] == [27, 27, 6]
    assert asker.sent() == []


async def test_an_order_is_sent_without_a_fence_and_again_with_one() -> None:
    asker = Asker()
    asker.enter()
    assert [kinds(one) for one in asker.sent()] == ["O"]
    due = asker.parcels.due()
    assert due is not None
    asker.now = due
    again, = asker.sent()
    assert kinds(again) == "OQQ"
    later, = asker.sent(10.0)
    assert kinds(later) == "OQQ"
    assert channels(again) != channels(later)


async def test_what_the_venue_may_ignore_has_a_fence_from_the_start() -> None:
    asker = Asker()
    asker.cancel(4711)
    sent, = asker.sent()
    assert kinds(sent) == "XQQ"
    first, second = channels(sent)
    assert asker.parcels.fence_answered(7, first, 0.0) == []
    assert asker.parcels.fence_answered(8, second, 0.0) == asker.asked


async def test_a_fence_is_found_behind_other_queries() -> None:
    asker = Asker()
    asker.cancel(4711)
    sent, = asker.sent()
    first, second = channels(sent)
    answers = [first, 200, 7, first, second]
    found = [asker.parcels.fence_answered(number, channel, 0.0)
             for number, channel in enumerate(answers, 1)]
    assert found == [[], [], [], [], asker.asked]


async def test_nothing_about_an_order_follows_its_modify_in_one_datagram() -> None:
    asker = Asker()
    asker.modify(9)
    asker.enter()
    second = asker.modify(9)
    assert [kinds(one) for one in asker.sent()] == ["MOQQ"]
    assert asker.sent() == []
    asker.give(asker.asked[0])
    assert [kinds(one) for one in asker.sent()] == ["MQQ"]
    asker.give(second)


async def test_what_is_unanswered_when_later_ones_are_is_sent_again_at_once() -> None:
    asker = Asker()
    orders = []
    for _ in range(4):
        orders.append(asker.enter())
        asker.sent()
    asker.now += 0.001
    asker.give(orders[2])
    assert asker.sent() == []
    again = asker.sent(0.006)
    assert [one[0]["user_ref_num"] for one in again] == [1, 2]
    # The answer to a second datagram tells as much about the others.
    asker.give(orders[1])
    assert asker.sent(0.006) == []
    for number, channel in enumerate(channels(again[0]), 1):
        asker.parcels.fence_answered(number, channel, asker.now)
    assert [one[0]["user_ref_num"] for one in asker.sent(0.006)] == [4]


@pytest.mark.parametrize("numbers", [(7, 9), (7, 7)])
async def test_half_a_fence_is_none(numbers: tuple[int, int]) -> None:
    asker = Asker()
    asker.cancel(4711)
    sent, = asker.sent()
    for number, channel in zip(numbers, channels(sent), strict=True):
        assert asker.parcels.fence_answered(number, channel, 0.0) == []


async def test_two_fences_that_follow_each_other_are_told_apart() -> None:
    asker = Asker()
    asker.cancel(1)
    first, = asker.sent()
    asker.cancel(2)
    second, = asker.sent()
    assert channels(first) != channels(second)
    found = [asker.parcels.fence_answered(number, channel, 0.0)
             for number, channel in enumerate(channels(first) + channels(second), 1)]
    assert found == [[], [asker.asked[0]], [], [asker.asked[1]]]


async def test_any_datagram_of_a_parcel_stands_for_it() -> None:
    asker = Asker()
    asker.cancel(1)
    first, = asker.sent()
    asker.sent(10.0)
    asker.parcels.fence_answered(1, channels(first)[0], asker.now)
    ignored = asker.parcels.fence_answered(2, channels(first)[1], asker.now)
    assert ignored == asker.asked
    asker.give(ignored[0])
    assert len(asker.parcels) == 0
    assert asker.parcels.due() is None


async def test_what_is_answered_is_not_sent_again() -> None:
    asker = Asker()
    orders = [asker.enter() for _ in range(3)]
    asker.sent()
    asker.give(orders[1])
    again, = asker.sent(10.0)
    assert [message.get("user_ref_num") for message in again] == [1, 3, None, None]
    asker.give(orders[0])
    asker.give(orders[2])
    assert asker.sent(10.0) == []


async def test_a_cancel_goes_with_its_order_or_waits_for_the_answer() -> None:
    asker = Asker()
    asker.enter()
    asker.cancel(1)
    assert [kinds(one) for one in asker.sent()] == ["OXQQ"]
    second = asker.enter()
    asker.sent()
    asker.cancel(2)
    third = asker.enter()
    # What is behind it waits as well: requests leave in their order.
    assert asker.sent() == []
    asker.give(second)
    sent, = asker.sent()
    assert kinds(sent) == "XOQQ"
    assert third.takes == sent[1]["user_ref_num"]


async def test_one_order_is_asked_about_in_one_datagram_at_a_time() -> None:
    asker = Asker()
    first = asker.cancel(9)
    asker.sent()
    asker.cancel(9)
    assert asker.sent() == []
    asker.give(first)
    assert [kinds(one) for one in asker.sent()] == ["XQQ"]


async def test_a_mass_cancel_is_not_overtaken_in_either_direction() -> None:
    asker = Asker()
    order = asker.enter()
    asker.sent()
    mass_cancel = asker.mass_cancel()
    asker.enter()
    assert asker.sent() == []
    asker.give(order)
    assert [kinds(one) for one in asker.sent()] == ["CO"]
    asker.enter()
    assert asker.sent() == []
    asker.give(mass_cancel)
    assert [kinds(one) for one in asker.sent()] == ["O"]


@pytest.mark.parametrize("window", [1, 5, 40, 1_024])
async def test_no_number_is_out_a_window_behind_another(window: int) -> None:
    asker = Asker(window)
    first = asker.enter()
    asker.sent()
    for _ in range(window + 30):
        asker.enter()
    numbers = [one["user_ref_num"] for datagram in asker.sent() for one in datagram]
    assert numbers == [*range(2, window + 1)]
    asker.give(first)
    rest = [one["user_ref_num"] for datagram in asker.sent() for one in datagram]
    assert rest[:1] == [window + 1]


async def test_a_window_of_0_has_one_datagram_with_numbers_out() -> None:
    asker = Asker(0)
    orders = [asker.enter() for _ in range(40)]
    first, = asker.sent()
    assert len(first) == 27
    assert asker.sent() == []
    # A cancel uses no number, but requests leave in their order.
    for order in orders[:27]:
        assert asker.sent() == []
        asker.give(order)
    second, = asker.sent()
    assert [one["user_ref_num"] for one in second] == [*range(28, 41)]


async def test_datagrams_without_an_answer_are_bounded() -> None:
    asker = Asker()
    for _ in range(PARCELS_MAX + 20):
        asker.cancel(10_000 + len(asker.asked))
        asker.sent()
    assert len(asker.parcels) == PARCELS_MAX
    asker.give(asker.asked[0])
    # What waited is packed into one.
    sent, = asker.sent()
    assert kinds(sent) == "X" * 20 + "QQ"


async def test_one_request_that_is_given_up_is_not_sent() -> None:
    asker = Asker()
    asker.enter()
    asker.sent()
    asker.cancel(1)
    asker.pending.fail_all(RuntimeError("the session is over"))
    assert asker.sent() == []
    assert len(asker.parcels) == 0


async def test_after_a_login_everything_is_due() -> None:
    asker = Asker()
    asker.enter()
    asker.sent()
    asker.cancel(4711)
    asker.sent()
    asker.parcels.restart(asker.now)
    assert [kinds(one) for one in asker.sent()] == ["OQQ", "XQQ"]


async def test_waits_grow_and_begin_with_the_measured_round_trip() -> None:
    asker = Asker()
    for _ in range(50):
        request = asker.enter()
        asker.sent()
        asker.now += 0.2
        asker.give(request)
    assert asker.parcels.round_trip.mean_s == pytest.approx(0.2, rel=0.01)
    asker.enter()
    asker.sent()
    waits = []
    for _ in range(8):
        due = asker.parcels.due()
        assert due is not None
        waits.append(due - asker.now)
        asker.now = due
        asker.sent()
    assert waits[0] == pytest.approx(0.2, rel=0.3)
    assert waits[4] > 1.5 * waits[0]
    assert max(waits) < 0.61


async def test_an_answer_after_a_second_sending_is_not_measured_but_its_fence_is() -> None:
    asker = Asker()
    order = asker.enter()
    asker.sent()
    again, = asker.sent(10.0)
    asker.now += 0.03
    asker.give(order)
    assert asker.parcels.round_trip.mean_s == 0.0
    asker.cancel(4711)
    asker.sent()
    again, = asker.sent(10.0)
    asker.now += 0.03
    for number, channel in enumerate(channels(again)):
        asker.parcels.fence_answered(number, channel, asker.now)
    assert asker.parcels.round_trip.mean_s == pytest.approx(0.03)


async def test_an_answer_that_waited_for_a_missing_message_is_not_measured() -> None:
    asker = Asker()
    order = asker.enter()
    asker.sent()
    asker.parcels.disturbed_at = 0.5
    asker.now = 1.0
    asker.give(order)
    assert asker.parcels.round_trip.mean_s == 0.0


async def test_codes_are_used_again_only_after_all_others() -> None:
    asker = Asker()
    asker.cancel(1)
    seen = set()
    for _ in range(1_000):
        sent, = asker.sent(10.0)
        seen.add(tuple(channels(sent)))
    assert len(seen) == 1_000
    # A parcel that is sent for ever uses its own codes again.
    asker.parcels._code = (asker.parcels._code - 500) % FENCE_CODES
    sent, = asker.sent(10.0)
    assert tuple(channels(sent)) in seen
    first, second = channels(sent)
    asker.parcels.fence_answered(1, first, asker.now)
    assert asker.parcels.fence_answered(2, second, asker.now) == asker.asked


@given(st.integers(0, FENCE_CODES - 1))
def test_a_code_is_a_low_and_a_high_channel(code: int) -> None:
    first, second = channels(decoded(build_fence(code)))
    assert (first - 1) * 128 + second - 128 == code
    assert 1 <= first < 128 <= second < 256


# -- a whole network -------------------------------------------------------------------------


class Venue:
    """Takes a number once, as long as it lies in the window, and cancels what is live."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._used: set[int] = set()
        self._live: set[int] = set()
        self._told = 0
        # What was done, in order: letter and number.
        self.done: list[tuple[str, int]] = []

    def handle(self, datagram: bytes) -> list[Execution]:
        return [answer for message in decoded(datagram) for answer in self._answers(message)]

    def _answers(self, message: dict[str, Any]) -> list[Execution]:
        kind, number = message["type"], message.get("user_ref_num", 0)
        if kind == "Q":
            return [self._tell(AccountQueried, next_user_ref_num=1, options=message["options"])]
        if kind == "X":
            return [self._cancel(number, "X")] if number in self._live else []
        last = max(self._used, default=0)
        if number in self._used:
            return []
        # The client never sends what the venue must take for a repeat.
        assert number > last or last - number < self._window
        self._used.add(number)
        self.done.append((kind, number))
        if kind == "O":
            self._live.add(number)
            return [self._tell(Accepted, **{name: message[name] for name in (
                "user_ref_num", "side", "quantity_lots", "symbol", "price_units", "time_in_force",
                "display", "capacity", "iso", "cross_type", "client_order")},
                order_id=number, order_state="L")]
        return [self._tell(MassCanceled, user_ref_num=number, firm="", symbol=""),
                *(self._cancel(live, "C") for live in sorted(self._live))]

    def _cancel(self, number: int, why: str) -> Execution:
        self._live.remove(number)
        if why == "X":
            self.done.append(("X", number))
        return self._tell(Canceled, user_ref_num=number, quantity_lots=1, reason="U")

    def _tell(self, kind: Callable[..., Execution], **fields: Any) -> Execution:
        self._told += 1
        return kind(sequence=self._told, timestamp_ns=0, **fields)


class Network:
    """Runs an asker against a venue until everything is answered. Datagrams of the client meet
    the network; the venue's messages come late, but in order."""

    def __init__(self, asker: Asker, venue: Venue, seed: int, loss: float) -> None:
        self.asker, self.venue = asker, venue
        self._chance, self._loss = random.Random(seed), loss
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._told_until = 0.0

    def at(self, time: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, act))

    def run(self) -> None:
        asker = self.asker
        while self._events or len(asker.pending):
            times = [self._events[0][0]] if self._events else []
            due = asker.parcels.due()
            asker.now = max(asker.now, min(times if due is None else [*times, due]))
            assert asker.now < 1_000.0
            while self._events and self._events[0][0] <= asker.now:
                heapq.heappop(self._events)[2]()
            for datagram in asker.parcels.datagrams(asker.now):
                self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        chance = self._chance
        copies = (chance.random() >= self._loss) + (chance.random() < self._loss)
        for _ in range(copies):
            late_s = 0.01 * chance.random()
            if chance.random() < self._loss:
                late_s = chance.random() ** 4 * 5.0
            self.at(self.asker.now + late_s, lambda: self._arrive(datagram))

    def _arrive(self, datagram: bytes) -> None:
        messages = self.venue.handle(datagram)
        self._told_until = max(self._told_until, self.asker.now + 0.01 * self._chance.random())
        self.at(self._told_until, lambda: self._tell(messages))

    def _tell(self, messages: list[Execution]) -> None:
        asker = self.asker
        for message in messages:
            if isinstance(message, AccountQueried):
                for request in asker.parcels.fence_answered(
                        message.sequence, message.user_ref_idx, asker.now):
                    asker.pending.resolve_fenced(request)
            else:
                asker.pending.resolve(message, getattr(message, "user_ref_num", 0))


async def run_plan(seed: int, loss: float, window: int, requests: int) -> None:
    """Enter and cancel at random, and compare with what the venue did."""
    choose = random.Random(seed)
    asker, venue = Asker(window, seed), Venue(window)
    network = Network(asker, venue, seed, loss)

    def ask() -> None:
        kind = choose.random()
        if kind < 0.02:
            asker.mass_cancel()
        elif kind < 0.4 and asker._next_number > 1:
            asker.cancel(choose.randrange(1, asker._next_number))
        else:
            asker.enter()

    for _ in range(requests):
        network.at(choose.random() ** 2 * requests / 500, ask)
    network.run()
    # All requests are done in an order that respects that of the calls where it matters.
    assert all(request.answer.done() for request in asker.asked)
    taken = [number for kind, number in venue.done if kind in "OC"]
    assert sorted(taken) == [*range(1, asker._next_number)]
    await check_order(asker, venue)


async def check_order(asker: Asker, venue: Venue) -> None:
    """The same requests, one after the other, come to the same."""
    judge = Venue(1_024)
    masses = [request.number for request in asker.asked if request.kind == b"C"]
    for request in asker.asked:
        told = [one for one in judge.handle(request.packet)
                if getattr(one, "user_ref_num", 0) in request.answered_by]
        answer = await request.answer
        if request.kind == b"X" and not told and any(one < request.number for one in masses):
            # A mass cancel in front may have answered it.
            assert answer is None or isinstance(answer, Canceled)
        else:
            assert type(answer) is (type(told[0]) if told else type(None))
    assert sorted(judge.done) == sorted(venue.done)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3]),
       st.sampled_from([0, 1, 30, 1_024]), st.integers(1, 300))
def test_every_request_is_done_once_over_any_network(seed: int, loss: float, window: int,
                                                     requests: int) -> None:
    asyncio.run(run_plan(seed, loss, window, requests))

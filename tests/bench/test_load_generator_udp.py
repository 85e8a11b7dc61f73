"""Over UDP the load generator makes good what is lost, and believes nobody."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.loadgen import LoadGenerator, WrongAnswer
from bench.udplogin import Refused, connect, say_login
from tests.bench.fake_udp_venue import HEADER, SESSION, FakeUdpVenue, Link, Mangle
from tests.bench.fake_venue import Twist
from tests.bench.test_load_generator import changed
from tests.support.daemon import Daemon
from tests.support.lossy_link import LossyLink, Rates

Make = Callable[[FakeUdpVenue], LoadGenerator]


@pytest.fixture
def connected() -> Iterator[Make]:
    """Makes load generators that are logged in at a fake venue, and stops the venue."""
    venues = []

    def make(venue: FakeUdpVenue, **options: float) -> LoadGenerator:
        venues.append(venue)
        made = LoadGenerator("127.0.0.1", venue.port, [("A", "B")], ["BTC-USDT", "X"],
                             transport="udp", **{"resend_ms": 10, "ask_ms": 1} | options)
        made.connect()
        return made

    yield make
    for venue in venues:
        venue.stop()


def test_an_honest_venue_gets_its_figures_and_passes_the_proof(connected: Make) -> None:
    venue = FakeUdpVenue()
    generator = connected(venue)
    assert generator.transport == "udp"
    cancels = 0
    while not cancels:
        figures = generator.closed_loop(20, 0.1, resting=50)
        assert figures["latency"]["count"] == figures["messages"]
        assert figures["orders_per_second"] <= figures["per_second"]
        cancels += figures["cancels"]
    trips = generator.round_trips(0.05, resting=50)
    assert trips["latency"]["count"] == trips["messages"]
    open_loop = generator.open_loop(500, 0.2, resting=50)
    assert open_loop["latency"]["count"] == open_loop["sent"]
    assert generator.fill(200)["resting"] >= 200
    sums = generator.finish()
    assert (sums["fills"], sums["taker_lots"]) == (0, 0)
    # Of every phase, not of the last one.
    assert sums["orders"] + sums["cancels"] > open_loop["sent"]
    assert generator.resting == generator.unanswered == 0
    assert not venue.answers.open


def test_what_is_lost_repeated_or_late_is_made_good(connected: Make) -> None:
    venue = FakeUdpVenue(Link(lost=0.2, repeated=0.2, late=0.2))
    generator = connected(venue)
    seen = dict.fromkeys(("resent", "asked", "early", "repeated"), 0)
    while not all(seen.values()):
        figures = generator.closed_loop(50, 0.2, resting=50, window_seconds=0.1)
        seen = {name: seen[name] + figures["datagrams"][name] for name in seen}
    generator.finish()
    assert not venue.answers.open


def test_a_number_that_is_out_is_never_left_behind(connected: Make) -> None:
    """The first order is lost for good: the window stops what comes behind it."""
    venue = FakeUdpVenue()
    generator = connected(venue, patience_seconds=0.2, resend_ms=1)
    first = venue.answers.last_ref + 1
    venue.used.add(first)
    generator.closed_loop(2_000, 0.3)
    assert first in venue.used
    assert max(venue.used) - first < 1024
    with pytest.raises(WrongAnswer, match="still unanswered after 0.2 s"):
        generator.settle()


def test_orders_share_datagrams_as_far_as_they_may(connected: Make) -> None:
    for per_datagram, datagram_bytes, most in ((1, 1400, 1), (3, 1400, 3), (0, 200, 4)):
        venue = FakeUdpVenue()
        generator = connected(venue, orders_per_datagram=per_datagram,
                              datagram_bytes=datagram_bytes)
        assert generator.fill(400, in_flight=100)["resting"] == 400
        generator.finish()
        assert max(venue.came) == most


def other_session(data: bytes) -> list[bytes]:
    return [b"X" * 10 + data[10:]]


def ended(data: bytes) -> list[bytes]:
    return [data, HEADER.pack(SESSION, 1_000, 0xFFFF)]


def too_long(data: bytes) -> list[bytes]:
    return [data + b"\0"]


def too_many(data: bytes) -> list[bytes]:
    return [data[:18] + (int.from_bytes(data[18:20], "big") + 1).to_bytes(2, "big") + data[20:]]


def debug(data: bytes) -> list[bytes]:
    return [b"\x00\x0d+what is this"]


def stream_packet(data: bytes) -> list[bytes]:
    return [b"\x00\x01S"]


def nothing(data: bytes) -> list[bytes]:
    return [b""]


@pytest.mark.parametrize(("mangle", "text"), [
    (other_session, "a packet of another session"), (ended, "the session ended"),
    (too_long, "do not fill it"), (too_many, "do not fill it"), (debug, "what is this"),
    (stream_packet, "nothing asked for"), (nothing, "nothing asked for")])
def test_a_wrong_datagram_ends_the_run(connected: Make, mangle: Mangle, text: str) -> None:
    venue = FakeUdpVenue()
    generator = connected(venue)
    venue.mangle = mangle
    with pytest.raises(WrongAnswer, match=text):
        generator.closed_loop(20, 5, resting=10)


@pytest.mark.parametrize(("twist", "text"), [
    (changed(b"A", 15, 0xFF), "accepted what is not out"),
    (changed(b"A", 20, 0xFF), "accepted with another quantity"),
    (changed(b"A", 36, 0xFF), "accepted with another price"),
    (changed(b"A", 21, 0x2E), "accepted with another symbol"),
    (changed(b"C", 19, 0xFF), "canceled another quantity than was open"),
    (changed(b"C", 15, 0xFF), "canceled what is not alive"),
    (changed(b"A", 3, 0x4A), "an answer that nothing asked for"),
    (lambda answer: answer * 2 if answer[3:4] == b"A" else answer, "accepted what is not out"),
    (lambda answer: b"\x00\x44" + answer[2:] + b"\0" if answer[3:4] == b"A" else answer,
     "wrong length")])
def test_a_wrong_answer_ends_the_run(connected: Make, twist: Twist, text: str) -> None:
    venue = FakeUdpVenue()
    generator = connected(venue)
    venue.twist = twist
    with pytest.raises(WrongAnswer, match=text):
        generator.closed_loop(20, 5, resting=10)


def test_a_message_that_never_comes_fails_the_proof(connected: Make) -> None:
    generator = connected(FakeUdpVenue(swallow=range(30, 31)), patience_seconds=0.2)
    generator.closed_loop(10, 0.3)
    with pytest.raises(WrongAnswer, match="still unanswered"):
        generator.finish()


def test_an_order_done_twice_fails_the_proof(connected: Make) -> None:
    """A venue that takes a resent number for a new one."""
    venue = FakeUdpVenue(Link(lost=0.3))
    generator = connected(venue)
    venue.used = set_that_forgets()
    with pytest.raises(WrongAnswer, match="accepted what is not out"):
        generator.closed_loop(20, 20, resting=10)


def set_that_forgets() -> set[int]:
    class Forgetful(set[int]):
        def add(self, item: int) -> None:
            """Nothing is remembered."""
    return Forgetful()


def test_a_venue_that_counts_otherwise_fails_the_proof(connected: Make) -> None:
    venue = FakeUdpVenue()
    generator = connected(venue)
    generator.closed_loop(5, 0.05)
    generator.settle()
    venue.answers.open.clear()
    venue.sent.append(b"S" + bytes(9))
    with pytest.raises(WrongAnswer):
        generator.finish()


def test_a_port_that_closes_ends_the_run() -> None:
    venue = FakeUdpVenue()
    generator = LoadGenerator("127.0.0.1", venue.port, [("A", "B")], ["X"], transport="udp")
    generator.connect()
    venue.stop()
    with pytest.raises(WrongAnswer, match="port is closed"):
        generator.closed_loop(5, 5)


def test_a_login_that_is_refused_or_not_answered_says_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as venue:
        venue.bind(("127.0.0.1", 0))
        with connect("127.0.0.1", venue.getsockname()[1]) as sock:
            venue.sendto(b"\x00\x02JA", sock.getsockname())
            with pytest.raises(Refused, match="JA"):
                say_login(sock, "A", "B")


@pytest.mark.parametrize("options", [{"transport": "sctp"}, {"datagram_bytes": 20},
                                     {"datagram_bytes": 60_000}])
def test_what_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        LoadGenerator("127.0.0.1", 1, [("A", "B")], ["X"], **options)  # type: ignore[arg-type]


def test_the_venue_itself_over_a_link_that_loses(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path).start()
    try:
        with LossyLink(("127.0.0.1", daemon.udp_port), seed=3) as link:
            link.rates = Rates(drop=0.1, duplicate=0.1, reorder=0.1)
            generator = LoadGenerator("127.0.0.1", link.port, [("MAKER1", "demo")], ["BTC-USDT"],
                                      transport="udp", resend_ms=30, ask_ms=5)
            generator.connect()
            orders, resent = 0, 0
            while orders < 2_000 or not resent:
                figures = generator.closed_loop(100, 0.5, resting=100)
                generator.settle()
                orders += figures["orders"]
                resent += figures["datagrams"]["resent"]
            link.rates = Rates()
            generator.finish()
    finally:
        daemon.kill()

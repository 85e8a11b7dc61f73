"""The load generator believes nobody: a server that answers wrongly gets no figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bench.histogram import Histogram
from bench.loadgen import LoadGenerator, WrongAnswer
from tests.bench.fake_venue import FakeVenue, Twist, honest

Make = Callable[[Twist], LoadGenerator]


@pytest.fixture
def connected() -> Iterator[Make]:
    """Makes load generators that are logged in at a fake venue."""
    venues = []

    def make(twist: Twist) -> LoadGenerator:
        venues.append(FakeVenue(twist))
        generator = LoadGenerator("127.0.0.1", venues[-1].port, [("A", "B")], ["BTC-USDT", "X"])
        generator.connect()
        return generator

    yield make
    for venue in venues:
        venue.stop()


def changed(kind: bytes, offset: int, value: int) -> Twist:
    """Another byte at an offset of every answer of one kind."""
    def twist(answer: bytes) -> bytes:
        if answer[3:4] != kind:
            return answer
        return answer[:offset] + bytes([value]) + answer[offset + 1:]
    return twist


def test_an_honest_venue_gets_its_figures_and_passes_the_proof(connected: Make) -> None:
    generator = connected(honest)
    cancels = 0
    while not cancels:
        figures = generator.closed_loop(20, 0.1, resting=50)
        assert figures["latency"]["count"] == figures["messages"]
        cancels += figures["cancels"]
    trips = generator.round_trips(0.05, resting=50)
    assert trips["latency"]["count"] == trips["messages"]
    open_loop = generator.open_loop(2_000, 0.2, resting=50)
    assert open_loop["sent"] == pytest.approx(400, abs=1)
    assert open_loop["latency"]["count"] == open_loop["sent"]
    assert generator.fill(200)["resting"] >= 200
    sums = generator.finish()
    assert (sums["fills"], sums["taker_lots"]) == (0, 0)
    # Of every phase, not of the last one.
    assert sums["orders"] + sums["cancels"] > open_loop["sent"]
    assert generator.resting == generator.unanswered == 0


@pytest.mark.parametrize(("twist", "text"), [
    (changed(b"A", 15, 0xFF), "accepted out of turn"),
    (changed(b"A", 20, 0xFF), "accepted with another quantity"),
    (changed(b"A", 36, 0xFF), "accepted with another price"),
    (changed(b"A", 21, 0x2E), "accepted with another symbol"),
    (changed(b"C", 19, 0xFF), "canceled another quantity than was open"),
    (changed(b"C", 20, 0x44), "canceled for the wrong reason"),
    (changed(b"C", 15, 0xFF), "canceled what is not alive"),
    (changed(b"A", 3, 0x4A), "an answer that nothing asked for"),
    (changed(b"A", 2, 0x5A), "a packet that nothing asked for"),
    (lambda answer: answer * 2 if answer[3:4] == b"A" else answer, "accepted out of turn"),
])
def test_a_wrong_answer_ends_the_run(connected: Make, twist: Twist, text: str) -> None:
    generator = connected(twist)
    with pytest.raises(WrongAnswer, match=text):
        generator.closed_loop(20, 5, resting=10)


def test_a_server_that_counts_otherwise_fails_the_proof() -> None:
    venue = FakeVenue()
    generator = LoadGenerator("127.0.0.1", venue.port, [("A", "B")], ["X"])
    generator.connect()
    generator.closed_loop(5, 0.05)
    generator.settle()
    venue.sequence += 1
    with pytest.raises(WrongAnswer, match="next number"):
        generator.finish()
    venue.stop()


def test_a_run_goes_on_where_the_account_stands() -> None:
    venue = FakeVenue()
    for _ in range(2):
        generator = LoadGenerator("127.0.0.1", venue.port, [("A", "B")], ["X"])
        generator.connect()
        generator.closed_loop(5, 0.05)
        generator.finish()
    venue.stop()


def test_a_histogram_knows_its_values_to_two_percent() -> None:
    histogram = Histogram()
    values = [7, 63, 64, 65, 1_000, 12_345, 1_000_000, 123_456_789, 60_000_000_000]
    for value in values:
        histogram.record(value)
    for index, value in enumerate(values, 1):
        found = histogram.percentile(100 * index / len(values))
        assert value <= found <= value * 1.02
    assert histogram.summary()["max_ns"] == values[-1]
    copy = Histogram()
    copy.add_sparse(histogram.sparse())
    copy.merge(histogram)
    assert len(copy) == 2 * len(values)
    assert copy.percentile(50) == histogram.percentile(50)

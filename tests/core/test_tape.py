"""Trades, candles and tickers against a plain computation over the same events."""

import random

import pytest

from cython_core.errors import CoreError
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from cython_core.tape import INTERVALS_S, Tape
from tests.core.flow import INSTRUMENTS, Flow, definitions

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
START_NS = 20_000 * DAY_NS + 12_345_678_901


def run_flow(seed, batches, step_ns):
    """Events of a random flow whose time moves by up to `step_ns` a batch."""
    matcher, flow = Matcher(), Flow(seed)
    time_ns = START_NS
    found = []
    for number in range(batches):
        events = EventBatch()
        commands = definitions() if number == 0 else flow.batch(flow.random.randint(1, 40))
        matcher.apply(commands, events, time_ns)
        time_ns += flow.random.randrange(step_ns)
        if events.event_count:
            found.append(events)
    return found


class PlainTape:
    """The same in a few lines of Python, from all trades."""

    def __init__(self):
        self.all = {}
        self.now_ns = 0

    def apply(self, events):
        for event in events.dicts():
            self.now_ns = event["time_ns"]
            if event["kind"] == "fill":
                self.all.setdefault(event["instrument_id"], []).append((
                    event["seq"], event["price_units"], event["quantity_lots"],
                    "B" if event["side"] == "B" else "S", event["time_ns"], event["seq"]))

    def trades(self, instrument):
        return self.all.get(instrument, [])

    def candles(self, instrument, interval_s):
        table = {}
        for _, price, lots, _, time_ns, _ in self.trades(instrument):
            begin = time_ns // (interval_s * SECOND_NS) * interval_s * SECOND_NS
            table.setdefault(begin, []).append((price, lots))
        return [(begin, rows[0][0], max(row[0] for row in rows), min(row[0] for row in rows),
                 rows[-1][0], sum(row[1] for row in rows), len(rows))
                for begin, rows in table.items()]

    def ticker(self, instrument, now_ns):
        rows = [one for one in self.trades(instrument)
                if one[4] // (60 * SECOND_NS) * 60 * SECOND_NS >= now_ns - DAY_NS]
        if not rows:
            return None
        prices = [row[1] for row in rows]
        return (prices[0], max(prices), min(prices), prices[-1], sum(row[2] for row in rows),
                len(rows))


def compare(tape, naive, kept=None):
    for instrument in (*INSTRUMENTS, 9):
        trades = naive.trades(instrument)
        assert tape.trades(instrument, 10**9) == trades[-(kept or 10**9):]
        assert tape.trades(instrument, 3) == trades[-min(3, kept or 3):]
        for interval_s in INTERVALS_S:
            candles = naive.candles(instrument, interval_s)
            assert tape.candles(instrument, interval_s, 10**9) == candles[-1500:]
            assert tape.candles(instrument, interval_s, 2) == candles[-2:]
            assert tape.candle(instrument, interval_s) == (candles[-1] if candles else None)
        for later_ns in (0, 61 * SECOND_NS, DAY_NS // 2, 2 * DAY_NS):
            assert tape.ticker(instrument, naive.now_ns + later_ns) == naive.ticker(
                instrument, naive.now_ns + later_ns)


@pytest.mark.parametrize(("seed", "step_ns"), [
    (1, SECOND_NS // 10), (2, 30 * SECOND_NS), (3, 3600 * SECOND_NS), (4, DAY_NS)])
def test_against_plain_computation(seed, step_ns):
    tape, naive = Tape(trades_kept=50), PlainTape()
    for number, events in enumerate(run_flow(seed, 400, step_ns)):
        tape.apply(events)
        naive.apply(events)
        if number % 40 == 0:
            compare(tape, naive, 50)
    compare(tape, naive, 50)
    assert sum(map(len, naive.all.values())) > 300
    assert tape.applied_seq == events.first_seq + events.event_count - 1


def test_trades_are_taken_once_and_completely():
    flow = run_flow(5, 300, SECOND_NS)
    tape, naive = Tape(trades_kept=3), PlainTape()
    draw = random.Random(5)
    assert tape.take_trades(1) == []
    taken = []
    for events in flow:
        tape.apply(events)
        naive.apply(events)
        if draw.random() < 0.1:
            taken += tape.take_trades(1)
    assert taken + tape.take_trades(1) == naive.trades(1)
    tape.leave_trades(1)
    assert tape.take_trades(1) == []


def test_touched_names_what_traded():
    tape, naive = Tape(), PlainTape()
    for events in run_flow(6, 100, SECOND_NS):
        before = {one: len(naive.trades(one)) for one in INSTRUMENTS}
        tape.apply(events)
        naive.apply(events)
        traded = {one for one in INSTRUMENTS if len(naive.trades(one)) > before[one]}
        touched = tape.touched()
        assert set(touched) == traded and len(touched) == len(traded)
    assert tape.touched() == []


@pytest.mark.parametrize("cut", [0, 1, 150, 399])
def test_a_saved_tape_goes_on_like_the_one_that_was_not(cut):
    flow = run_flow(7, 400, 200 * SECOND_NS)
    tape, naive = Tape(trades_kept=40), PlainTape()
    for events in flow[:cut]:
        tape.apply(events)
        naive.apply(events)
    loaded = Tape.load(tape.save())
    assert loaded.applied_seq == tape.applied_seq
    assert loaded.save() == tape.save()
    compare(loaded, naive, 40)
    for events in flow[max(0, cut - 2):]:
        loaded.apply(events)
    for events in flow[cut:]:
        naive.apply(events)
    compare(loaded, naive, 40)


def test_damage_of_a_saved_tape_is_found():
    tape = Tape()
    for events in run_flow(8, 40, SECOND_NS):
        tape.apply(events)
    saved = tape.save()
    draw = random.Random(8)
    for _ in range(300):
        place = draw.randrange(len(saved))
        damaged = bytearray(saved)
        damaged[place] ^= 1 << draw.randrange(8)
        with pytest.raises(CoreError):
            Tape.load(bytes(damaged))
    for length in (0, 1, 39, len(saved) - 1):
        with pytest.raises(CoreError):
            Tape.load(saved[:length])
    with pytest.raises(CoreError):
        Tape.load(saved + b"\0")


def test_a_gap_is_refused_and_what_is_known_left_out():
    flow = run_flow(9, 60, SECOND_NS)
    whole = EventBatch.from_bytes(b"".join(bytes(one) for one in flow), 1)
    tape, naive = Tape(), PlainTape()
    naive.apply(whole)
    with pytest.raises(CoreError, match="the tape is at 0"):
        tape.apply(flow[1])
    for events in flow[:30]:
        tape.apply(events)
    tape.apply(flow[2])
    tape.apply(whole)
    compare(tape, naive, 1000)


def test_intervals_that_there_are_not():
    with pytest.raises(ValueError, match="no candles of 7 s"):
        Tape().candles(1, 7, 10)


def test_a_full_ring_of_candles_drops_the_oldest():
    matcher, tape = Matcher(), Tape()
    for number in range(1, 1601):
        batch = definitions() if number == 1 else CommandBatch()
        batch.enter(7, number, 1, "B", 5, 1000, "0")
        batch.enter(8, number, 1, "S", 5, 1000, "3")
        events = EventBatch()
        matcher.apply(batch, events, START_NS + number * 60 * SECOND_NS)
        tape.apply(events)
    candles = tape.candles(1, 60, 10**9)
    assert len(candles) == 1500
    assert candles[-1][0] - candles[0][0] == 1499 * 60 * SECOND_NS
    assert tape.ticker(1, START_NS + 1600 * 60 * SECOND_NS) == (
        1000, 1000, 1000, 1000, 1440 * 5, 1440)

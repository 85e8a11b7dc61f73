"""Gap requests: answered out of memory or the log, within limits, and only to whom they belong."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cython_core.mold import build_packet, parse_header, parse_packet
from engine.intake.sent import KEPT_BYTES, Sent
from tests.support.daemon import Daemon
from tests.support.datagrams import WAIT_S, Raw
from tests.support.numbers import metrics_of
from tests.support.wire import cancel, enter

Start = Callable[..., Daemon]


def fill(raw: Raw, orders: int, each: int = 20) -> list[bytes]:
    """Enter so many orders over a fresh session; returns the stream's messages."""
    found: list[bytes] = []
    for first in range(1, orders + 1, each):
        count = min(each, orders + 1 - first)
        raw.send(*(enter(number) for number in range(first, first + count)))
        found += raw.messages(first, count)
    return found


def ask_all(raw: Raw, first: int, end: int) -> list[bytes]:
    """Ask for messages from `first` up to before `end`, as often as it takes."""
    found: list[bytes] = []
    deadline_s = time.monotonic() + WAIT_S
    while first + len(found) < end:
        assert time.monotonic() < deadline_s
        asked = first + len(found)
        raw.ask(asked, end - asked)
        try:
            while True:
                header, messages = raw.mold(0.05)
                if header.sequence == first + len(found):
                    found += messages
        except TimeoutError:
            pass
    return found


# -- the memory --------------------------------------------------------------------------------

@given(st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=5), min_size=1, max_size=20),
       st.integers(1, 1_000), st.integers(1, 120), st.integers(1, 60), st.integers(1, 2_000))
def test_the_memory_against_a_plain_list(groups: list[list[bytes]], limit_bytes: int, first: int,
                                         count: int, reply_bytes: int) -> None:
    sent, all_messages = Sent(limit_bytes), [b""]
    for group in groups:
        sent.add([build_packet("S", len(all_messages), group)])
        all_messages += group
    oldest = sent.first_number
    kept = [len(build_packet("S", 1, group)) + KEPT_BYTES for group in groups]
    while len(kept) > 1 and sum(kept) > limit_bytes:
        kept.pop(0)
    assert oldest == len(all_messages) - sum(map(len, groups[len(groups) - len(kept):]))
    if oldest <= first < len(all_messages):
        found = sent.messages(first, count, reply_bytes)
        assert found and found == all_messages[first:first + count][:len(found)]


def test_an_empty_memory_keeps_nothing() -> None:
    assert Sent(100).first_number == 0


def test_the_last_ones_are_kept_beside_the_others() -> None:
    sent = Sent(200)
    sent.add([build_packet("S", 1, [b"x" * 60])])
    sent.add([build_packet("S", number, [b"y" * 60]) for number in range(2, 12)], last=True)
    assert sent.first_number == 1
    assert len(sent.messages(2, 100, 10_000)) == 10


# -- the daemon --------------------------------------------------------------------------------

def test_any_stretch_is_sent_again_byte_for_byte(daemon: Daemon) -> None:
    with Raw(daemon.udp_port) as raw:
        raw.login()
        told = fill(raw, 100)
        for first, count in ((1, 1), (1, 100), (50, 3), (99, 2), (100, 1), (37, 0xFFFE)):
            raw.ask(first, count)
            expected = told[first - 1:first - 1 + count]
            assert raw.messages(first, len(expected)) == expected
        found = metrics_of(daemon)
        assert found["udp_gap_requests"] == 6
        assert found["udp_messages_again"] == 1 + 100 + 3 + 2 + 1 + 64


def test_requests_for_what_is_not_there(daemon: Daemon) -> None:
    with Raw(daemon.udp_port) as raw, Raw(daemon.udp_port) as stranger:
        raw.login()
        fill(raw, 3)
        # Beyond the end, nothing, number 0: what the next number is.
        for first, count in ((4, 1), (10**15, 5), (2, 0), (0, 5)):
            raw.ask(first, count)
            header = parse_header(raw.receive())
            assert (header.sequence, header.count) == (4, 0)
        # An End of Session, as a request, is one for very many.
        raw.ask(3, 0xFFFF)
        assert len(raw.messages(3, 1)) == 1
        # Another session's: silence. A stranger's: silence.
        raw.ask(1, 3, "NOTTHISONE")
        stranger.ask(1, 3, raw.session)
        with pytest.raises(TimeoutError):
            raw.mold(0.4)
        assert stranger.silence()
        assert metrics_of(daemon)["udp_dropped{reason=request_session}"] == 1


@pytest.mark.parametrize("sync", ["commit", "off"])
def test_what_left_the_memory_comes_from_the_log(make_daemon: Start, sync: str) -> None:
    daemon = make_daemon(order_entry__udp_memory_bytes=4_096, journal__sync=sync).start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        told = fill(raw, 1_000)
        assert ask_all(raw, 1, 1_001) == told
        # Datagrams are as full as they can be.
        raw.ask(1, 1_000)
        data = raw.until(lambda data: data[18:20] not in (b"\0\0", b""))
        assert 1_400 - 100 < len(data) <= 1_400


def test_what_is_kept_no_more_is_said_so(make_daemon: Start) -> None:
    daemon = make_daemon(order_entry__udp_memory_bytes=4_096, journal__sync="off",
                         journal__memory_max_bytes=20_000).start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        fill(raw, 2_000)
        raw.ask(1, 10)
        assert raw.debug().startswith("messages from number 1 on: ")
        raw.ask(2_000, 1)
        assert len(raw.messages(2_000, 1)) == 1


def test_what_a_roll_cancels_can_be_asked_for_however_much_it_is(make_daemon: Start) -> None:
    daemon = make_daemon(order_entry__udp_memory_bytes=4_096).start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        fill(raw, 1_000)
        assert daemon.run("session", "roll").returncode == 0
        end = raw.until(lambda data: data[18:20] == b"\xff\xff")
        assert parse_header(end).sequence == 2_001
        assert {message[:1] for message in ask_all(raw, 1_001, 2_001)} == {b"C"}


def test_replies_have_a_limit_each_and_a_second(make_daemon: Start) -> None:
    daemon = make_daemon().start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        fill(raw, 2_000)
        raw.ask(1, 2_000)
        datagrams = 0
        try:
            while True:
                raw.mold(0.2)
                datagrams += 1
        except TimeoutError:
            pass
        assert datagrams == 16
        # A flood of requests, as a forger could send them: a bounded number of bytes comes back.
        before, began_s = metrics_of(daemon)["udp_datagrams_out"], time.monotonic()
        for _ in range(5_000):
            raw.ask(1, 2_000)
        raw.send(enter(2_001), cancel(2_001))
        raw.until(lambda data: data[0] >= 0x20 and parse_header(data).sequence == 2_001)
        seconds = time.monotonic() - began_s
        sent = metrics_of(daemon)["udp_datagrams_out"] - before
        assert sent <= (4_096 + 16) * (seconds + 2) + 100
        assert metrics_of(daemon)["udp_dropped{reason=request_rate}"] > 0


def test_small_datagrams(make_daemon: Start) -> None:
    daemon = make_daemon(order_entry__udp_datagram_bytes=512).start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        raw.send(*(enter(number) for number in range(1, 27)))
        sizes, found = [], 0
        while found < 26:
            data = raw.until(lambda data: data[18:20] != b"\0\0")
            sizes.append(len(data))
            found += len(parse_packet(data)[1])
        assert max(sizes) <= 512 and len(sizes) >= 4


def test_a_long_past_comes_in_order_and_is_not_flooded(make_daemon: Start) -> None:
    daemon = make_daemon().start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        told = fill(raw, 8_000)
        raw.logout()
    with Raw(daemon.udp_port) as raw:
        raw.login(sequence=1)
        # Everything, in order, though nobody reads until it is all sent (a buffer of 4 MiB).
        assert raw.messages(1, 8_000) == told
        raw.send(enter(8_001))
        assert raw.mold()[0].sequence == 8_001
    assert metrics_of(daemon)["udp_messages_again"] == 0


def test_the_past_waits_for_a_client_that_speaks(make_daemon: Start) -> None:
    # Small datagrams and the pauses behind them: the past takes longer than four heartbeats, on
    # the fastest machine too.
    daemon = make_daemon(order_entry__heartbeat_ms=4, order_entry__udp_datagram_bytes=512).start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        fill(raw, 8_000)
        raw.logout()
    with Raw(daemon.udp_port) as raw:
        raw.login(sequence=1)
        found = 0
        try:
            while True:
                found += len(raw.mold(1.0)[1])
        except TimeoutError:
            pass
        assert found < 8_000
        while found < 8_000:
            raw.heartbeat()
            found += len(raw.mold()[1])
        assert found == 8_000

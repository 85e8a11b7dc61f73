"""Bad logins: counted by address, and refused unseen from the fifth within a minute on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cython_core.soupbin import build_login
from engine import clock
from engine.intake.throttle import Throttle
from tests.support.daemon import Daemon
from tests.support.datagrams import Raw
from tests.support.numbers import metrics_of
from tests.support.wire import enter

SECOND = clock.NS_PER_S


def test_from_the_fifth_failure_on_until_the_minute_is_over() -> None:
    throttle = Throttle()
    for number in range(5):
        assert not throttle.is_closed("a", number * SECOND)
        throttle.failed("a", number * SECOND)
    assert throttle.is_closed("a", 5 * SECOND)
    assert throttle.is_closed("a", 60 * SECOND - 1)
    # The first one is a minute old: there are four within the last minute.
    assert not throttle.is_closed("a", 60 * SECOND)
    throttle.failed("a", 60 * SECOND)
    assert throttle.is_closed("a", 60 * SECOND)
    assert not throttle.is_closed("b", 60 * SECOND)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=60))
def test_against_a_plain_list_of_failures(steps: list[tuple[int, int]]) -> None:
    throttle, failures, now_s = Throttle(), [], 0
    for wait_s, address in steps:
        now_s += wait_s
        recent = [at for at, who in failures if who == address and now_s - at < 60]
        assert throttle.is_closed(address, now_s * SECOND) == (len(recent) >= 5)
        if len(recent) < 5:
            throttle.failed(address, now_s * SECOND)
            failures.append((now_s, address))


def test_the_table_is_bounded_and_forgets() -> None:
    throttle = Throttle(addresses_max=3)
    for number in range(10):
        throttle.failed(number, number)
        assert len(throttle) <= 3
    throttle.failed("late", 100 * SECOND)
    assert len(throttle) == 1


def test_a_guesser_waits_and_sessions_do_not_suffer(daemon: Daemon) -> None:
    with Raw(daemon.udp_port) as owner:
        owner.login("MAKER1")
        # From ever new ports: it is the host that counts.
        for number in range(4):
            with Raw(daemon.udp_port) as guesser:
                assert guesser.login("MAKER2", f"guess{number}") == b"\0\2JA"
        with Raw(daemon.udp_port) as guesser:
            assert guesser.login("MAKER2", "demo")[2:3] == b"A"
            guesser.logout()
            assert guesser.login("NOBODY", "guess") == b"\0\2JA"
        # Five failures: the right password is not looked at any more.
        with Raw(daemon.udp_port) as guesser:
            for _ in range(20):
                guesser.send(build_login("TAKER1", "demo"))
                assert guesser.receive() == b"\0\2JA"
        daemon.wait_for_line("login refused unseen")
        owner.send(enter(1))
        assert owner.mold()[0].sequence == 1


def test_guesses_all_at_once_are_counted_one_by_one(daemon: Daemon) -> None:
    sockets = [Raw(daemon.udp_port) for _ in range(40)]
    for number, guesser in enumerate(sockets):
        guesser.send(build_login("MAKER1", f"g{number}"))
    assert [guesser.receive() for guesser in sockets] == [b"\0\2JA"] * 40
    # Five were looked at, however many came before the first was refused.
    assert metrics_of(daemon)["udp_logins_throttled"] == 35
    for guesser in sockets:
        guesser.socket.close()

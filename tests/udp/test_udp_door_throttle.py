"""Bad logins over UDP: counted, and refused unseen from the fifth within a minute on. The rules
themselves are tried in tests/sessions/test_throttle.py."""

from __future__ import annotations

from cython_core.soupbin import build_login
from tests.support.daemon import Daemon
from tests.support.datagrams import Raw
from tests.support.numbers import metrics_of
from tests.support.wire import enter


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
            # Who has logged in at this address before answers for its own failures alone.
            assert guesser.login("MAKER2", "demo")[2:3] == b"A"
            guesser.logout()
            for number in range(2):
                assert guesser.login("MAKER2", f"guess{number}") == b"\0\2JA"
            guesser.send(build_login("MAKER2", "demo"))
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

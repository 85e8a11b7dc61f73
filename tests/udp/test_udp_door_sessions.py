"""One session per account, whatever the transport: takeovers, resuming, restarts, rolls."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable

import pytest

from cython_core.mold import parse_header
from cython_core.ouch import decode
from cython_core.soupbin import build_login
from tests.support.daemon import Daemon
from tests.support.datagrams import WAIT_S, Raw
from tests.support.tcp_socket import TcpSocket
from tests.support.wire import enter, message

Start = Callable[..., Daemon]
TAKEN_OVER = "taken over by a new login"


class Udp:
    """A session over UDP behind the calls of a test that is about both transports."""

    def __init__(self, daemon: Daemon) -> None:
        self.raw = Raw(daemon.udp_port)

    def login(self, sequence: int) -> str:
        answer = self.raw.login("MAKER1", sequence=sequence)
        return answer[2:3].decode()

    def send(self, *packets: bytes) -> None:
        self.raw.send(*packets)

    def messages(self, first: int, count: int) -> list[bytes]:
        return self.raw.messages(first, count)

    def is_closed(self) -> bool:
        """Says why, then is silent, whatever is sent."""
        text = self.raw.debug()
        self.raw.send(enter(4_000))
        return text == TAKEN_OVER and self.raw.silence(1.2)

    def close(self) -> None:
        self.raw.socket.close()


class Tcp:
    """The same over TCP."""

    def __init__(self, daemon: Daemon) -> None:
        self.socket = TcpSocket(daemon.port)

    def login(self, sequence: int) -> str:
        self.socket.send(build_login("MAKER1", "demo", "", sequence))
        return self.socket.packet()[0]

    def send(self, *packets: bytes) -> None:
        self.socket.send(b"".join(packets))

    def messages(self, first: int, count: int) -> list[bytes]:
        return [self.socket.sequenced() for _ in range(count)]

    def is_closed(self) -> bool:
        return self.socket.ended()

    def close(self) -> None:
        self.socket.close()


KINDS = {"tcp": Tcp, "udp": Udp}


@pytest.mark.parametrize(("one", "other"), list(itertools.product(KINDS, repeat=2)))
def test_a_login_elsewhere_takes_over_and_goes_on(daemon: Daemon, one: str, other: str) -> None:
    first, second = KINDS[one](daemon), KINDS[other](daemon)
    assert first.login(1) == "A"
    first.send(enter(1), enter(2))
    old = first.messages(1, 2)
    # From the beginning: the same bytes over either transport, then what is new.
    assert second.login(1) == "A"
    assert first.is_closed()
    assert second.messages(1, 2) == old
    second.send(enter(3))
    assert decode("out", second.messages(3, 1)[0])["user_ref_num"] == 3
    # And back again, from the next number.
    third = KINDS[one](daemon)
    assert third.login(4) == "A"
    assert second.is_closed()
    third.send(enter(3), enter(4))
    assert decode("out", third.messages(4, 1)[0])["user_ref_num"] == 4
    for client in (first, second, third):
        client.close()


@pytest.mark.parametrize(("one", "other"), list(itertools.product(KINDS, repeat=2)))
def test_a_second_login_is_refused_if_so_configured(make_daemon: Start, one: str,
                                                    other: str) -> None:
    daemon = make_daemon(order_entry__second_login="refuse").start()
    first, second = KINDS[one](daemon), KINDS[other](daemon)
    assert first.login(1) == "A"
    assert second.login(1) == "J"
    first.send(enter(1))
    assert decode("out", first.messages(1, 1)[0])["user_ref_num"] == 1
    first.close()
    second.close()


@pytest.mark.parametrize("second_login", ["takeover", "refuse"])
def test_a_new_login_at_the_same_address_replaces_the_session(make_daemon: Start,
                                                              second_login: str) -> None:
    daemon = make_daemon(order_entry__second_login=second_login).start()
    with Raw(daemon.udp_port) as raw:
        raw.login("MAKER1", sequence=1)
        raw.send(enter(1), enter(2))
        raw.messages(1, 2)
        # Other bytes than before: checked anew, and then in the old one's place.
        assert raw.login("MAKER1", sequence=2)[2:3] == b"A"
        assert raw.messages(2, 1)
        # No farewell for the old one: it would be taken for one of the new one.
        with pytest.raises(TimeoutError):
            raw.debug(0.3)
        # A wrong password changes nothing.
        assert raw.login("MAKER1", "wrong", sequence=3) == b"\0\2JA"
        raw.send(enter(3))
        assert raw.messages(3, 1)
        # Nor does a number that is not there yet.
        assert raw.login("MAKER1", sequence=50) == b"\0\2JS"
        raw.send(enter(4))
        assert raw.messages(4, 1)


def test_another_account_at_the_same_address_ends_the_first(daemon: Daemon) -> None:
    with Raw(daemon.udp_port) as raw:
        raw.login("MAKER1")
        raw.send(enter(1))
        raw.messages(1, 1)
        raw.login("MAKER2")
        raw.send(enter(1))
        assert raw.mold()[0].sequence == 1
        assert daemon.wait_for_line("session closed", account="MAKER1")["reason"] == (
            "replaced by another login at its address")


def test_a_wrong_password_does_not_take_over(daemon: Daemon) -> None:
    with Raw(daemon.udp_port) as owner, Raw(daemon.udp_port) as thief:
        owner.login("MAKER1")
        assert thief.login("MAKER1", "guess") == b"\0\2JA"
        thief.send(enter(1))
        assert thief.silence()
        owner.send(enter(1))
        assert owner.mold()[0].sequence == 1


def test_only_new_messages_are_sent_to_who_asks_for_none(daemon: Daemon) -> None:
    with Raw(daemon.udp_port) as first, Raw(daemon.udp_port) as second:
        first.login()
        first.send(enter(1), enter(2))
        first.messages(1, 2)
        answer = second.login(sequence=0)
        assert int(answer[13:]) == 3
        second.send(enter(3))
        assert second.mold()[0].sequence == 3
        # The very same login again gets the very same answer, though the stream went on.
        second.send(build_login("MAKER1", "demo", "", 0))
        assert second.until(lambda data: data[2:3] == b"A") == answer


def test_a_kill_loses_nothing_and_numbers_stay_used(make_daemon: Start) -> None:
    daemon = make_daemon().start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        raw.send(enter(5), enter(2), enter(9))
        before = raw.messages(1, 3)
    daemon.kill()
    daemon.start()
    with Raw(daemon.udp_port) as raw:
        raw.login(sequence=1)
        assert raw.messages(1, 3) == before
        # Used ones are silent, those between are new; a query says what is highest.
        raw.send(enter(2), enter(5), enter(9), enter(3), message("Q"))
        found = [decode("out", data) for data in raw.messages(4, 2)]
        assert [(row["type"], row.get("user_ref_num")) for row in found][0] == ("A", 3)
        assert found[1]["next_user_ref_num"] == 10
    tcp = TcpSocket(daemon.port)
    tcp.send(build_login("MAKER1", "demo", "", 1))
    assert tcp.packet()[0] == "A"
    assert [tcp.sequenced() for _ in range(3)] == before
    tcp.close()


def test_a_client_that_was_cut_off_by_a_kill_logs_in_from_its_socket(make_daemon: Start) -> None:
    daemon = make_daemon().start()
    port = daemon.udp_port
    with Raw(port) as raw:
        raw.login()
        raw.send(enter(1))
        raw.messages(1, 1)
        daemon.kill()
        again = make_daemon(order_entry__udp_port=port).start()
        # The new process knows nobody: silence, until the login.
        with contextlib.suppress(ConnectionRefusedError):
            raw.send(enter(2))
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            raw.receive(0.5)
        raw.login(sequence=2)
        raw.send(enter(2))
        assert raw.messages(2, 1)
        again.stop()


def test_the_end_of_the_daemon_is_no_end_of_session(make_daemon: Start) -> None:
    daemon = make_daemon().start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        raw.send(enter(1))
        raw.messages(1, 1)
        session = raw.session
        daemon.stop()
        assert raw.debug() == "the venue stops"
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            raw.receive(0.3)
    daemon.start()
    with Raw(daemon.udp_port) as raw:
        raw.login(sequence=1, session=session)
        assert len(raw.messages(1, 1)) == 1


@pytest.mark.parametrize("sync", ["commit", "interval", "off"])
def test_rolls_during_sessions(make_daemon: Start, sync: str) -> None:
    daemon = make_daemon(journal__sync=sync).start()
    with Raw(daemon.udp_port) as raw, Raw(daemon.udp_port) as other:
        sessions = set()
        for _ in range(3):
            raw.login("MAKER1")
            other.login("MAKER2")
            sessions.add(raw.session)
            raw.send(enter(1, tif="0"), enter(3))
            raw.messages(1, 2)
            assert daemon.run("session", "roll").returncode == 0
            # Both orders are canceled, then the session is over; every number is as announced.
            raw.messages(3, 2)
            for client, number in ((raw, 5), (other, 1)):
                end = client.until(lambda data: data[18:20] == b"\xff\xff")
                assert parse_header(end).sequence == number
                assert parse_header(end).session == raw.session
        assert len(sessions) == 3


def test_a_session_that_is_over_is_told_for_a_while_only(make_daemon: Start) -> None:
    daemon = make_daemon(order_entry__heartbeat_ms=200).start()
    with Raw(daemon.udp_port) as raw:
        raw.login()
        assert daemon.run("session", "roll").returncode == 0
        told = 0
        deadline_s = time.monotonic() + WAIT_S
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < deadline_s:
                told += raw.receive(2.0)[18:20] == b"\xff\xff"
        assert told > 10
        raw.send(enter(1))
        assert raw.silence()


def test_too_many_peers(make_daemon: Start) -> None:
    daemon = make_daemon(order_entry__connections_max=2).start()
    with Raw(daemon.udp_port) as one, Raw(daemon.udp_port) as two, Raw(daemon.udp_port) as three:
        one.login("MAKER1")
        two.login("MAKER2")
        assert three.login("TAKER1") == b"\0\2JS"
        one.logout()
        deadline_s = time.monotonic() + WAIT_S
        while three.login("TAKER1")[2:3] != b"A":
            assert time.monotonic() < deadline_s
        # Who is there may log in again.
        assert two.login("MAKER2", sequence=0)[2:3] == b"A"



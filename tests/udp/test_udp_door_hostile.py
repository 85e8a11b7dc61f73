"""What anybody may send: strangers cost nothing, and nothing of a wrong datagram is done."""

from __future__ import annotations

import random
import time

import pytest

from cython_core.mold import build_heartbeat, build_packet, build_request
from cython_core.ouch import decode
from cython_core.soupbin import build_debug, build_login, build_unsequenced
from tests.support.daemon import Daemon
from tests.support.datagrams import WAIT_S, Raw
from tests.support.numbers import metrics_of
from tests.support.wire import cancel, enter, message, replace

# Each of these behind a good order makes its datagram a wrong one, which is dropped whole.
WRONG = {
    "cut in the frame": b"\0",
    "cut in the message": enter(2)[:-1],
    "cut after the frame": enter(2)[:3],
    "a longer debug packet": build_debug("hello")[:-1],
    "no packet at all": b"\xff\xff\xff\xff",
    "length zero": b"\0\0",
    "an empty message": b"\0\1U",
    "an unknown message": build_unsequenced(b"z" * 47),
    "a wrong length": build_unsequenced(b"O" + bytes(20)),
    "a broken appendage": build_unsequenced(enter(2)[3:-2] + b"\0\5\1\2\3\4\5"),
    "an unknown packet": b"\0\1B",
    "a packet of the server's": b"\0\1H",
    "a heartbeat with a payload": b"\0\2Rx",
    "a login": build_login("MAKER1", "demo"),
    "something behind a logout": b"\0\1O" + enter(2),
    "a request": build_request("0123456789", 1, 1),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    made = Daemon(tmp_path_factory.mktemp("hostile")).start()
    yield made  # type: ignore[misc]
    made.kill()


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_datagram_is_dropped_whole_and_the_session_lives_on(shared: Daemon,
                                                                    name: str) -> None:
    with Raw(shared.udp_port) as raw:
        raw.login("MAKER1", sequence=0)
        raw.send(message("Q"))
        first = decode("out", raw.mold()[1][0])["next_user_ref_num"]
        raw.send(enter(first), cancel(first), WRONG[name])
        assert raw.debug().startswith("datagram dropped: ")
        # A second one is not explained: one a second is.
        raw.send(enter(first), WRONG[name])
        # The number is still free.
        raw.send(enter(first, client_order="good"))
        assert decode("out", raw.mold()[1][0])["client_order"] == "good"
        raw.send(cancel(first))
        raw.mold()


@pytest.mark.parametrize("data", [
    b"", b"\0", b"\0\1", b"A", b"0123456789", build_request("0123456789", 1, 1)[:-1],
    build_request("0123456789", 1, 1) + b"x", build_heartbeat("0123456789", 1)[:19] + b"\xff\xff",
    build_packet("0123456789", 1, [b"x"]), b"\x7f" * 20, b"\xff" * 1_400, bytes(1_400),
    bytes(8_192), bytes(60_000)])
def test_other_datagrams_of_a_session(shared: Daemon, data: bytes) -> None:
    with Raw(shared.udp_port) as raw:
        raw.login("MAKER2", sequence=0)
        raw.send(data)
        raw.send(message("Q"))
        assert decode("out", raw.mold()[1][0])["type"] == "Q"


def test_random_bytes_from_a_session_and_from_strangers(shared: Daemon) -> None:
    seed = random.Random(5)
    packets = [enter(1), replace(1, 2), cancel(1), message("Q"), b"\0\1R", build_debug("x"),
               build_login("MAKER1", "demo"), build_request("0123456789", 1, 5)]
    with Raw(shared.udp_port) as raw, Raw(shared.udp_port) as stranger:
        raw.login("TAKER1", sequence=0)
        for _ in range(3_000):
            data = bytearray(b"".join(seed.choices(packets, k=seed.randint(1, 4))))
            for _ in range(seed.randint(1, 6)):
                at = seed.randrange(len(data))
                kind = seed.randrange(3)
                if kind == 0:
                    data[at] = seed.randrange(256)
                elif kind == 1:
                    del data[at:at + seed.randint(1, 9)]
                else:
                    data[at:at] = seed.randbytes(seed.randint(1, 9))
                data = data or bytearray(b"x")
            # A logout or a good login is not what this is about.
            if b"\0\1O" not in data and b"TAKER1" not in data and b"L" not in data:
                raw.send(bytes(data))
                stranger.send(bytes(data))
        stranger.send(seed.randbytes(1_000))
        raw.send(enter(1_000_000))
        raw.until(lambda data: data[0] >= 0x20 and enter(1_000_000)[4:8] in data)
        assert stranger.silence()


def test_bytes_out_to_an_unverified_address_never_exceed_bytes_in(shared: Daemon) -> None:
    seed = random.Random(6)
    refused = build_login("MAKER1", "wrong")
    for data in (enter(1), b"\0\1R", b"\0\1O", build_debug("?"), build_request("0123456789", 1, 99),
                 b"", b"x", seed.randbytes(49), seed.randbytes(54), bytes(1_400), refused,
                 build_login("NOBODY", "demo", "", 0, 1_000),
                 build_login("MAKER1", "demo", "NOSUCHONE"), build_login("MAKER1", "demo", "", 99),
                 refused + refused):
        with Raw(shared.udp_port) as stranger:
            for _ in range(3):
                stranger.send(data)
            try:
                while True:
                    stranger.receive(0.5)
            except TimeoutError:
                pass
            assert stranger.bytes_in <= stranger.bytes_out


def test_a_flood_of_logins_holds_nobody_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    daemon = Daemon(tmp_path_factory.mktemp("flood")).start()
    try:
        with Raw(daemon.udp_port) as owner:
            owner.login("MAKER1")
            flood = [Raw(daemon.udp_port, local_port=0) for _ in range(300)]
            for _ in range(10):
                for number, stranger in enumerate(flood):
                    stranger.send(build_login("MAKER2", f"g{number}"))
            worst_s = 0.0
            for number in range(1, 200):
                began_s = time.monotonic()
                owner.send(enter(number))
                owner.until(lambda data: data[0] >= 0x20 and data[18:20] != b"\0\0", WAIT_S)
                worst_s = max(worst_s, time.monotonic() - began_s)
            assert worst_s < 10
            for stranger in flood:
                stranger.socket.close()
            found = metrics_of(daemon)
            assert found["udp_peers"] == 1
            # All but five were refused unseen, waited for their turn, or found no room.
            assert found["logins_refused"] <= 3_000
            assert found["udp_logins_throttled"] + sum(
                found[f"udp_dropped{{reason={reason}}}"]
                for reason in ("login_waits", "login_full")) >= 3_000 - 300
    finally:
        daemon.stop()

"""The control socket in the data directory."""

import asyncio
import socket
from pathlib import Path

import pytest

from engine import control
from engine.control import ControlError
from tests.sessions.conftest import StartVenue
from tests.support.venue import Venue
from tests.support.wire import Wire, enter


async def ask(data_dir: Path, operation: str) -> control.Answer:
    return await asyncio.to_thread(control.request, data_dir, operation)


async def test_status_says_how_the_venue_stands(venue: Venue, maker: Wire) -> None:
    maker.send(enter(1))
    await maker.message()
    status = await ask(venue.data_dir, "status")
    assert (status["generation"], status["sessions"]) == (1, 1)
    assert status["resting_orders"] == 1
    assert status["session"] == maker.session
    assert status["metrics"]["commands"] == 1


async def test_only_the_daemons_user_may_connect(venue: Venue) -> None:
    assert (venue.data_dir / control.SOCKET_NAME).stat().st_mode & 0o777 == 0o600


async def test_an_unknown_operation_is_refused_with_what_is_known(venue: Venue) -> None:
    with pytest.raises(ControlError, match="roll, status"):
        await ask(venue.data_dir, "fly")


@pytest.mark.parametrize("line", [b"\n", b"nonsense\n", b"[]\n", b'{"op": []}\n', b"x" * 100_000])
async def test_garbage_is_answered_or_dropped_and_hurts_nobody(venue: Venue, line: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(venue.data_dir / control.SOCKET_NAME))
            peer.sendall(line)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1_000)

    try:
        await asyncio.to_thread(send)
    except ConnectionError:
        # It was dropped before we had sent it all.
        pass
    assert (await ask(venue.data_dir, "status"))["generation"] == 1


async def test_no_daemon_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no daemon answers"):
        await ask(tmp_path, "status")
    with pytest.raises(ControlError, match="no daemon answers"):
        await ask(tmp_path / "missing", "status")


async def test_the_name_of_the_data_directory_may_be_long(start_venue: StartVenue) -> None:
    venue = await start_venue("a" * 120)
    assert (await ask(venue.data_dir, "status"))["generation"] == 1


async def test_the_socket_goes_with_the_venue(venue: Venue) -> None:
    await venue.stop()
    assert not (venue.data_dir / control.SOCKET_NAME).exists()
    with pytest.raises(ControlError):
        await ask(venue.data_dir, "status")

"""The client's side of SoupBinTCP, byte by byte, and a venue that does not keep to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cython_core import ouch, soupbin
from engine.clients import Accepted, LoginRejectedError, OrderEntryClient
from engine.clients.soup import Sequenced, SoupSession
from engine.errors import ProtocolError

ACCEPTED = soupbin.build_login_accepted("S1", 42)
QUERIED = ouch.encode_outbound("Q", timestamp_ns=1, next_user_ref_num=1)


def logged_in() -> SoupSession:
    session = SoupSession()
    assert session.feed(ACCEPTED) == []
    return session


def test_messages_are_counted_from_the_number_of_the_login() -> None:
    session = logged_in()
    assert (session.session, session.first_sequence) == ("S1", 42)
    data = soupbin.build_sequenced(b"one") + soupbin.build_sequenced(b"two")
    assert session.feed(data) == [Sequenced(42, b"one"), Sequenced(43, b"two")]
    assert session.next_sequence == 44


def test_bytes_may_come_one_by_one() -> None:
    session = SoupSession()
    data = (soupbin.build_debug("hello") + ACCEPTED + soupbin.SERVER_HEARTBEAT
            + soupbin.build_sequenced(b"one") + soupbin.END_OF_SESSION)
    found = [message for place in range(len(data))
             for message in session.feed(data[place:place + 1])]
    assert found == [Sequenced(42, b"one")]
    assert session.ended


def test_debug_heartbeats_and_unsequenced_packets_are_not_counted() -> None:
    session = logged_in()
    assert session.feed(soupbin.build_debug("x") + soupbin.SERVER_HEARTBEAT
                        + soupbin.build_unsequenced(b"x")) == []
    assert session.next_sequence == 42


@pytest.mark.parametrize("reason", ["A", "S"])
def test_a_refused_login_says_why(reason: str) -> None:
    session = SoupSession()
    session.feed(soupbin.build_login_rejected(reason))
    assert isinstance(session.fault, LoginRejectedError)
    assert session.fault.reason == reason


@pytest.mark.parametrize("data", [
    soupbin.build_sequenced(b"before the login"), b"\0\0", b"\0\1X", b"\0\2A1",
    soupbin.build_packet("A", b" " * 10 + b"no number".rjust(20)), ACCEPTED + ACCEPTED,
    b"HTTP/1.1 400 Bad Request\r\n",
])
def test_what_is_not_the_protocol_is_a_fault(data: bytes) -> None:
    session = SoupSession()
    assert session.feed(data) == []
    assert isinstance(session.fault, ProtocolError)
    assert session.feed(ACCEPTED + soupbin.build_sequenced(b"later")) == []


def test_messages_before_a_fault_are_good() -> None:
    session = logged_in()
    assert session.feed(soupbin.build_sequenced(b"one") + b"\0\0") == [Sequenced(42, b"one")]
    assert session.fault is not None


@asynccontextmanager
async def wrong_venue(*after_login: bytes) -> AsyncIterator[tuple[int, list[int]]]:
    """Answers every login and the first query, then says what it is told to. Gives its port and
    counts its connections."""
    logins = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        logins[0] += 1
        await reader.readexactly(49)
        writer.write(soupbin.build_login_accepted("S1", 1))
        query = await reader.readexactly(4)
        assert query == soupbin.build_unsequenced(b"Q")
        fence = await reader.readexactly(9)
        writer.write(soupbin.build_sequenced(QUERIED))
        writer.write(soupbin.build_sequenced(ouch.encode_outbound(
            "Q", timestamp_ns=1, next_user_ref_num=1, user_ref_idx=fence[-1])))
        for data in after_login:
            writer.write(data)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], logins
    server.close()


@pytest.mark.parametrize("data", [
    b"\0\0", b"\0\1?", soupbin.build_sequenced(b"?"), soupbin.build_sequenced(b"A too short"),
])
async def test_a_venue_that_breaks_the_protocol_is_left_for_good(data: bytes) -> None:
    async with wrong_venue(data) as (port, logins):
        async with OrderEntryClient("127.0.0.1", port, "MAKER1", "demo") as client:
            with pytest.raises(ProtocolError):
                async with asyncio.timeout(10):
                    async for _ in client.executions():
                        pass
        assert logins == [1]


async def test_messages_before_the_fault_are_given_out_first() -> None:
    accepted = ouch.encode_outbound(
        "A", timestamp_ns=1, user_ref_num=9, side="B", quantity_lots=1, symbol="GOOG",
        price_units=100, time_in_force="0", display="Y", order_id=1, capacity="P", iso="N",
        cross_type="N", order_state="L", client_order="")
    async with wrong_venue(soupbin.build_sequenced(accepted), b"\0\0") as (port, _):
        async with OrderEntryClient("127.0.0.1", port, "MAKER1", "demo") as client:
            seen = []
            with pytest.raises(ProtocolError):
                async for message in client.executions():
                    seen.append(message)
    assert isinstance(seen[-1], Accepted)

"""The client's side of a session over UDP, datagram by datagram, and a venue that does not keep to
it."""

import asyncio
from typing import Any

import pytest

from cython_core import mold, ouch, soupbin
from engine.clients import (
    Accepted,
    ConnectionLostError,
    LoginRejectedError,
    OrderEntryClient,
    SessionEnded,
)
from engine.errors import ProtocolError
from tests.clients.scripted_venue import ScriptedVenue, scripted_venue


def accepted(number: int) -> bytes:
    return ouch.encode_outbound(
        "A", timestamp_ns=1, user_ref_num=number, side="B", quantity_lots=1, symbol="GOOG",
        price_units=100, time_in_force="0", display="Y", order_id=number, capacity="P", iso="N",
        cross_type="N", order_state="L", client_order="")


def connect(venue: ScriptedVenue, **options: Any) -> OrderEntryClient:
    return OrderEntryClient("127.0.0.1", venue.port, "MAKER1", "demo", transport="udp", **options)


def asks_for(data: bytes, number: int) -> bool:
    """Whether a datagram is a login that asks for messages from this number on."""
    return data[2:3] == b"L" and soupbin.parse_login(data[3:]).sequence == number


async def numbers(client: OrderEntryClient, count: int) -> list[int]:
    """The orders that the next so many acceptances tell of."""
    found: list[int] = []
    async with asyncio.timeout(20):
        async for message in client.executions():
            if isinstance(message, Accepted):
                found.append(message.user_ref_num)
            if len(found) == count:
                break
    return found


async def test_a_login_is_sent_again_until_it_is_answered() -> None:
    async with scripted_venue() as venue:
        venue.before = lambda data: len(venue.got) < 3
        async with connect(venue):
            assert len({data for data, _ in venue.all_of("L")}) == 1
            assert len(venue.all_of("L")) >= 3


@pytest.mark.parametrize("reason", ["A", "S"])
async def test_a_refused_login_says_why(reason: Any) -> None:
    def refuse(data: bytes) -> bool:
        # The first refusal is lost.
        if len(venue.got) > 1:
            venue.send(soupbin.build_login_rejected(reason))
        return True

    async with scripted_venue() as venue:
        venue.before = refuse
        with pytest.raises(LoginRejectedError) as refused:
            await connect(venue).connect()
        assert refused.value.reason == reason
        # A blank session may be refused too: to who is second.
        assert ("order_entry.second_login" in refused.value.hint) == (reason == "S")


async def test_a_venue_that_says_nothing_is_given_up_after_the_time_out() -> None:
    async with scripted_venue() as venue:
        venue.before = lambda data: True
        with pytest.raises(ConnectionLostError, match="did not answer in"):
            await connect(venue, login_timeout_s=0.5).connect()


async def test_an_answer_to_another_login_is_none_to_this_one() -> None:
    def answer(data: bytes) -> bool:
        if not asks_for(data, 3):
            return False
        venue.send(soupbin.build_login_accepted("S2", 3))
        venue.send(soupbin.build_login_accepted("S1", 4))
        # The right answer to the first one is lost.
        return len(venue.all_of("L")) < 3

    async with scripted_venue() as venue:
        venue.lose(*(accepted(number) for number in range(1, 5)))
        venue.before = answer
        async with connect(venue, session="S1", sequence=3) as client:
            assert client.session == "S1"
            venue.beat()
            assert await numbers(client, 2) == [3, 4]


@pytest.mark.parametrize("data", [
    b"", b"\0", b"\0\0", b"\0\1X", b"\0\1?\0", b"\0\2A1", b"\0\1S", b"\0\3Z12", b"\0\1Z",
    soupbin.build_sequenced(b"over TCP"), soupbin.build_login_rejected("A"),
    soupbin.build_login_accepted("S1", 99), b"HTTP/1.1 400 Bad Request\r\n", b" " * 20,
    b"\xff" * 30, mold.build_heartbeat("S1", 5)[:-1], mold.build_heartbeat("S9", 50),
    mold.build_packet("S1", 9, [b"cut short"])[:-1], mold.build_packet("S1", 9, [b"more"]) + b"x",
    mold.build_packet("S9", 1, [b"another session"]), mold.build_end_of_session("S9", 1),
    soupbin.build_debug("hello")[:-1],
])
async def test_a_datagram_that_is_not_the_protocol_is_dropped(data: bytes) -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            venue.send(data)
            venue.say(accepted(1))
            venue.send(data)
            venue.say(accepted(2))
            assert await numbers(client, 2) == [1, 2]
            assert client.reconnects == 0


@pytest.mark.parametrize("message", [b"?", b"A too short"])
async def test_a_venue_that_does_not_speak_ouch_is_left_for_good(message: bytes) -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            venue.say(message)
            with pytest.raises(ProtocolError):
                await numbers(client, 1)


async def test_messages_before_the_login_is_answered_come_after_it() -> None:
    def overtake(data: bytes) -> bool:
        if asks_for(data, 1):
            venue.send(mold.build_packet("S1", 1, [accepted(1)]))
        return False

    async with scripted_venue() as venue:
        venue.lose(accepted(1))
        venue.before = overtake
        async with connect(venue, session="S1", sequence=1) as client:
            assert await numbers(client, 1) == [1]


async def test_what_is_missing_is_asked_for_and_given_out_in_order() -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            next_number = client.next_sequence
            venue.lose(accepted(1), accepted(2))
            venue.say(accepted(3))
            assert await numbers(client, 3) == [1, 2, 3]
            assert venue.requests()[0] == ("S1", next_number, 2)


async def test_a_heartbeat_tells_that_the_last_message_is_missing() -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            venue.lose(accepted(1))
            venue.beat()
            assert await numbers(client, 1) == [1]


async def test_a_request_for_what_is_missing_is_sent_again() -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            venue.before = lambda data: mold.is_mold(data) and len(venue.requests()) < 4
            venue.lose(accepted(1))
            venue.say(accepted(2))
            assert await numbers(client, 2) == [1, 2]
            assert len(venue.requests()) >= 4


async def test_repeats_are_left_out() -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            for number in range(1, 4):
                venue.say(accepted(number))
                venue.send(mold.build_packet("S1", 1, venue.stream))
            venue.say(accepted(4))
            assert await numbers(client, 4) == [1, 2, 3, 4]


async def test_a_heartbeat_goes_out_while_nothing_else_does() -> None:
    async with scripted_venue() as venue:
        async with connect(venue, heartbeat_s=0.1):
            await venue.until(lambda: len(venue.all_of("R")) >= 3)
        assert {data for data, _ in venue.all_of("R")} == {soupbin.CLIENT_HEARTBEAT}


async def test_a_client_that_is_closed_logs_out() -> None:
    async with scripted_venue() as venue:
        async with connect(venue):
            pass
        await venue.until(lambda: venue.all_of("O"))
        assert venue.got[-1][0] == soupbin.LOGOUT_REQUEST


async def test_a_silent_venue_is_logged_in_to_again_from_the_same_address() -> None:
    async with scripted_venue() as venue:
        async with connect(venue, silence_max_s=0.6) as client:
            venue.say(accepted(1))
            await numbers(client, 1)
            next_number = client.next_sequence
            await venue.until(lambda: len(venue.all_of("L")) >= 2)
            (_, before), *_, (again, after) = venue.all_of("L")
            assert before == after
            assert again == soupbin.build_login("MAKER1", "demo", "S1", next_number)
            venue.say(accepted(2))
            assert await numbers(client, 1) == [2]


async def test_a_word_of_the_venue_without_anything_behind_it_is_doubted_sooner() -> None:
    async with scripted_venue() as venue:
        async with connect(venue, silence_max_s=60.0) as client:
            venue.send(soupbin.build_debug("taken over by a new login"))
            await venue.until(lambda: len(venue.all_of("L")) >= 2)
            venue.say(accepted(1))
            assert await numbers(client, 1) == [1]


async def test_a_word_of_help_ends_nothing_while_the_venue_goes_on() -> None:
    async with scripted_venue() as venue:
        async with connect(venue, silence_max_s=60.0) as client:
            for _ in range(9):
                venue.send(soupbin.build_debug("datagram dropped: unknown packet type"))
                await asyncio.sleep(0.3)
            venue.say(accepted(1))
            assert await numbers(client, 1) == [1]
            assert client.reconnects == 0


async def end(client: OrderEntryClient) -> SessionEnded:
    async with asyncio.timeout(20):
        async for message in client.executions():
            if isinstance(message, SessionEnded):
                return message
    raise AssertionError("the stream ended")


async def test_behind_the_end_of_a_session_the_next_one_is_opened_from_a_new_address() -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            old_address = venue.client
            venue.send(mold.build_end_of_session("S1", len(venue.stream) + 1))
            venue.session, venue.stream = "S2", []
            ended = await end(client)
            assert (ended.session, ended.next_session, ended.complete) == ("S1", "S2", True)
            # What is still underway from the old one must not be taken for a request in the new.
            assert venue.client != old_address


async def test_the_last_messages_of_a_session_are_asked_for_behind_its_end() -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            first = len(venue.stream) + 1
            venue.lose(accepted(1), accepted(2))
            venue.send(mold.build_end_of_session("S1", len(venue.stream) + 1))
            await venue.until(venue.requests)
            assert venue.requests()[0] == ("S1", first, 2)
            venue.session, venue.stream = "S2", []
            assert (await end(client)).complete


async def test_a_session_whose_last_messages_do_not_come_ended_incomplete() -> None:
    async with scripted_venue() as venue:
        async with connect(venue) as client:
            venue.send(mold.build_end_of_session("S1", len(venue.stream) + 3))
            venue.session, venue.stream = "S2", []
            assert not (await end(client)).complete


async def test_what_the_venue_does_not_send_again_is_asked_for_with_a_login() -> None:
    async with scripted_venue() as venue:
        async with connect(venue, silence_max_s=0.8) as client:
            def answer(data: bytes) -> bool:
                venue.beat()
                return mold.is_mold(data)

            next_number = client.next_sequence
            venue.before = answer
            venue.lose(accepted(1))
            venue.beat()
            await venue.until(lambda: len(venue.all_of("L")) >= 2)
            assert venue.all_of("L")[-1][0] == soupbin.build_login("MAKER1", "demo", "S1",
                                                                    next_number)
            venue.before = lambda data: False
            assert await numbers(client, 1) == [1]


async def test_only_the_venue_is_listened_to() -> None:
    async with scripted_venue() as venue, scripted_venue() as stranger:
        async with connect(venue) as client:
            stranger.client = venue.client
            stranger.send(mold.build_packet("S1", client.next_sequence, [accepted(7)]))
            await asyncio.sleep(0.1)
            venue.say(accepted(1))
            assert await numbers(client, 1) == [1]


async def test_a_transport_is_tcp_or_udp() -> None:
    with pytest.raises(ValueError, match="tcp or udp"):
        connect_over("sctp")


def connect_over(transport: Any) -> OrderEntryClient:
    return OrderEntryClient("127.0.0.1", 1, "MAKER1", "demo", transport=transport)

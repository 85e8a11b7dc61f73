"""The plain-Python client's bytes and the venue's codecs, written from the same rules twice."""

from __future__ import annotations

import pytest

from cython_core import mold, soupbin
from cython_core.ouch import OUTBOUND, encode_inbound, encode_outbound
from tests.support import wire
from tests.udp import reference
from tests.udp.reference import Malformed, Reference, told

SESSION = "       S01"


def outbound(letter: str, channel: int = 0, **known: object) -> bytes:
    """A message of the codec, with nothing in the fields that are not given."""
    empty = {"letter": " ", "text": "", "number": 0, "signed": 0}
    fields = {field.name: empty[field.kind] for field in OUTBOUND[letter].fields}
    return encode_outbound(letter, {"user_ref_idx": channel} if channel else {},
                           **{**fields, **known})


@pytest.mark.parametrize("channel", [0, 5])
def test_requests_are_the_bytes_of_the_codec(channel: int) -> None:
    tag = {"user_ref_idx": channel} if channel else {}
    assert reference.unsequenced(reference.enter(
        7, "S", 30, 10_100, "BTC-USDT", "3", "mine", channel)) == wire.enter(
        7, "S", 30, 10_100, "BTC-USDT", "3", client_order="mine", **tag)
    assert reference.unsequenced(reference.replace(7, 8, 20, 10_200, "1", channel)) == (
        wire.replace(7, 8, 20, 10_200, "1", **tag))
    assert reference.query(channel) == encode_inbound("Q", **tag)
    assert reference.cancel(8, 5, channel) == encode_inbound(
        "X", user_ref_num=8, quantity_lots=5, **tag)


def test_packets_around_them_are_those_of_the_codec() -> None:
    assert reference.login("MAKER1", "demo", SESSION, 12) == soupbin.build_login(
        "MAKER1", "demo", SESSION, 12).ljust(49)
    assert len(reference.login("MAKER1", "demo", timeout_ms=5_000)) == 54
    assert reference.HEARTBEAT == soupbin.CLIENT_HEARTBEAT
    assert reference.LOGOUT == soupbin.LOGOUT_REQUEST
    assert reference.request("S01", 5, 7) == mold.build_request(SESSION, 5, 7)


def test_downstream_packets_are_read_as_they_were_meant() -> None:
    messages = [b"one", b"", b"three"]
    assert reference.parse_mold(mold.build_packet(SESSION, 9, messages)) == (
        SESSION, 9, 3, messages)
    assert reference.parse_mold(mold.build_heartbeat(SESSION, 9)) == (SESSION, 9, 0, [])
    assert reference.parse_mold(mold.build_end_of_session(SESSION, 9)) == (
        SESSION, 9, 0xFFFF, [])


@pytest.mark.parametrize("data", [b"", b"\0\1", b"\0\5A123", b"\0\0", b"\0\1S", b"\0\1A\0"])
def test_what_no_server_sends_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        reference.parse_soup(data)


@pytest.mark.parametrize("letter", list("AUCDEBJPITMRXGKQ"))
@pytest.mark.parametrize("channel", [0, 9])
def test_number_and_channel_stand_where_the_tables_say(letter: str, channel: int) -> None:
    number = {"Q": "next_user_ref_num"}.get(letter, "user_ref_num")
    original = {"orig_user_ref_num": 3} if letter == "U" else {}
    message = outbound(letter, channel, **{number: 77}, **original)
    assert told(message) == (letter, 77, channel, 3 if letter == "U" else 0)


def opened(next_number: int = 1, **more: object) -> Reference:
    """A client that is logged in at time 0."""
    client = Reference("MAKER1", next_number=next_number, **more)
    assert len(client.due(0.0)) == 1
    client.receive(soupbin.build_login_accepted(SESSION, next_number), 0.0)
    assert client.state == "open"
    return client


def accepted(number: int) -> bytes:
    return outbound("A", user_ref_num=number)


def test_messages_come_out_in_order_and_once_however_they_come_in() -> None:
    client = opened()
    sent = [accepted(number) for number in range(1, 7)]
    for first, messages in ((5, sent[4:]), (2, sent[1:3]), (2, sent[1:4]), (1, sent[:2]),
                            (5, sent[4:])):
        client.receive(mold.build_packet(SESSION, first, messages), 0.0)
    assert client.messages == sent
    assert client.next_number == 7


def test_a_gap_is_asked_for_until_it_is_filled() -> None:
    client = opened()
    client.receive(mold.build_packet(SESSION, 4, [accepted(4)]), 0.0)
    client.receive(mold.build_heartbeat(SESSION, 5), 0.0)
    assert mold.build_request(SESSION, 1, 3) in client.due(0.03)
    assert client.due(0.05) == []
    assert mold.build_request(SESSION, 1, 3) in client.due(0.2)
    client.receive(mold.build_packet(SESSION, 1, [accepted(n) for n in (1, 2, 3)]), 0.2)
    assert client.due(0.75) == [reference.HEARTBEAT]


def test_a_heartbeat_reveals_that_the_last_was_lost() -> None:
    client = opened()
    client.receive(mold.build_heartbeat(SESSION, 3), 0.0)
    assert mold.build_request(SESSION, 1, 2) in client.due(0.03)


def test_an_order_is_sent_until_it_is_answered_under_its_own_number() -> None:
    client = opened()
    order = reference.enter(1, "B", 1, 100)
    client.ask(1, order)
    assert client.due(0.0) == [reference.unsequenced(order)]
    assert client.due(0.1) == []
    assert client.due(0.2) == [reference.unsequenced(order)]
    client.receive(mold.build_packet(SESSION, 1, [accepted(1)]), 0.2)
    assert client.idle
    assert client.due(0.6) == []


def test_numbers_stay_within_the_window_of_the_oldest_unanswered() -> None:
    client = opened(in_flight=5_000)
    for number in range(1, 1_100):
        client.ask(number, reference.enter(number, "B", 1, 100))
    sent = b"".join(client.due(0.0))
    assert len(sent) == 1_024 * 50
    client.receive(mold.build_packet(SESSION, 1, [accepted(2)]), 0.0)
    assert client.due(0.0) == []
    client.receive(mold.build_packet(SESSION, 2, [accepted(1)]), 0.0)
    assert len(b"".join(client.due(0.0))) == 2 * 50


def test_what_may_be_ignored_is_answered_by_the_two_queries_behind_it() -> None:
    client = opened()
    for number in (9, 10):
        client.ask_fenced([reference.cancel(number)])
    data = b"".join(client.due(0.0))
    assert data == b"".join(map(reference.unsequenced, (
        reference.cancel(9), reference.query(128), reference.query(192),
        reference.cancel(10), reference.query(128), reference.query(193))))
    answers = [outbound("Q", channel, next_user_ref_num=1) for channel in (128, 192, 128, 193)]
    client.receive(mold.build_packet(SESSION, 1, answers[:1]), 0.0)
    client.receive(mold.build_packet(SESSION, 2, answers[1:3]), 0.0)
    assert not client.idle
    client.receive(mold.build_packet(SESSION, 4, answers[3:]), 0.0)
    assert client.idle


def test_a_silent_venue_is_asked_to_go_on_from_the_next_number() -> None:
    client = opened()
    client.receive(mold.build_packet(SESSION, 1, [accepted(1)]), 0.0)
    assert client.due(2.0) == [reference.login("MAKER1", "demo", "S01", 2)]
    assert client.state == "login"


def test_the_end_of_the_session_comes_after_its_last_message() -> None:
    client = opened()
    client.receive(mold.build_end_of_session(SESSION, 2), 0.0)
    assert client.state == "open"
    client.receive(mold.build_packet(SESSION, 1, [accepted(1)]), 0.0)
    assert client.state == "ended"
    assert client.due(9.0) == []

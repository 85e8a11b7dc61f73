"""Bytes through door, matcher and streams: what comes out follows from the log alone."""

import os

import event_units as units
import wire_strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cython_core import ouch, soupbin, stream
from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher

EXAMPLES = 1_500 if os.environ.get("MATCHD_TEST_PROFILE") == "long" else 150
SYMBOLS = {1: "BTC-USDT", 65_535: "AAPL"}
ACCOUNTS = (7, 8)


def venue():
    """A matcher with two instruments and two accounts, the events so far, and the door's table."""
    matcher, events, commands, table = Matcher(), EventBatch(), CommandBatch(), ouch.SymbolTable()
    for instrument_id, symbol in SYMBOLS.items():
        commands.define_instrument(instrument_id, symbol, symbol, 2, 1, 6)
        table.add(symbol, instrument_id)
    for account in ACCOUNTS:
        commands.define_account(account, f"USER{account}", firm="ABCD")
    matcher.apply(commands, events, units.TIME_NS)
    return matcher, events, table


PLAIN = {"display": "Y", "iso": "N", "client_order": "CL"}
TAGS = st.fixed_dictionaries({}, optional={
    "post_only": st.sampled_from("PN"), "user_ref_idx": st.sampled_from([0, 2]),
    "min_quantity_lots": st.integers(0, 20)})


@st.composite
def days(draw):
    """[(account, message)] that trade, replace, cancel and modify around one price, with any
    other message among them."""
    messages = []
    for number in range(1, draw(st.integers(5, 40))):
        account = draw(st.sampled_from(ACCOUNTS))
        letter = draw(st.sampled_from("OOOOOUUXM?"))
        if letter == "?":
            messages.append((account, draw(wire_strategies.inbound_bytes())))
            continue
        fields = {"quantity_lots": draw(st.integers(1, 50)), "user_ref_num": number}
        if letter in "OU":
            fields |= PLAIN | {"price_units": draw(st.integers(99, 101)),
                               "time_in_force": draw(st.sampled_from("00134"))}
        if letter in "OM":
            fields["side"] = draw(st.sampled_from("BSTE"))
        if letter in "XM":
            fields["user_ref_num"] = draw(st.integers(1, number))
        if letter == "O":
            fields |= {"symbol": "BTC-USDT", "cross_type": "N", "capacity": "P"}
        if letter == "U":
            fields["orig_user_ref_num"] = draw(st.integers(1, number))
        messages.append((account, ouch.encode_inbound(letter, draw(TAGS), **fields)))
    return messages


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(days())
def test_the_streams_of_any_messages_follow_from_the_log(messages):
    matcher, events, table = venue()
    doors = {account: ouch.Decoder(table, account) for account in ACCOUNTS}
    for account, message in messages:
        batch = CommandBatch()
        batch.generation = matcher.generation
        doors[account].reset()
        doors[account].feed(soupbin.build_unsequenced(message), batch)
        matcher.apply(batch, events, units.TIME_NS + 1)
    matcher.check_invariants()

    expected = units.expected_messages(events, events.first_seq, SYMBOLS)
    assert stream.messages_of(events) == expected
    streams = stream.Streams()
    for account in ACCOUNTS:
        streams.set_live(account, True)
    streams.route(events)
    for account in ACCOUNTS:
        mine = [message for owner, message in expected if owner == account]
        assert [payload for _, payload in soupbin.PacketReader().feed(streams.take(account))] == (
            mine)
        assert streams.next_number(account) == matcher.stream_next(account) == len(mine) + 1

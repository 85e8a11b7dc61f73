"""The rules of orders that come without a stream, and of operators, one scene each."""

import pytest

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher, fingerprint
from cython_core.model import Act, Flag, Kind, Reject, Source
from cython_core.stream import messages_of
from tests.oracle.commands import Command, define_instrument, set_rules
from tests.oracle.desk import MARKET, POST_ONLY, Desk

HTTP = Source.HTTP


@pytest.fixture
def desk():
    desk = Desk()
    yield desk
    desk.close()


def private_buy(desk, account_id, quantity_lots, price_units, text="", time_in_force="0", **more):
    told = desk.buy(account_id, quantity_lots, price_units, time_in_force, number=0, source=HTTP,
                    client_order_id=text, **more)
    return told, desk.pair.oracle.events[0].get("order_id", 0)


def private_cancel(desk, account_id, order_id, quantity_lots=0, number=0, channel=0, source=HTTP):
    return desk.cancel(account_id, number, quantity_lots, channel, source=source,
                       order_id=order_id)


def private_replace(desk, account_id, order_id, quantity_lots, price_units, text="", **more):
    return desk.replace(account_id, more.pop("original", 0), quantity_lots, price_units, number=0,
                        source=HTTP, order_id=order_id, client_order_id=text, **more)


def last_event(desk):
    return desk.pair.oracle.events[0]


# Numbers and streams


def test_a_private_order_uses_no_number_and_no_message(desk):
    told, _ = private_buy(desk, 1, 10, 100)
    assert told == [("accepted", 0, 10)]
    private_buy(desk, 1, 10, 100)
    assert desk.query(1) == [("account_queried", 1)]
    assert desk.pair.matcher.stream_next(1) == 2
    assert desk.sell(2, 15, 100) == [
        ("accepted", 1, 15), ("fill", 1, 0, 10, 100), ("fill", 1, 0, 5, 100)]
    assert desk.pair.matcher.stream_next(1) == 2


def test_a_roll_leaves_a_private_order_what_it_is(desk):
    _, kept = private_buy(desk, 1, 10, 100, "kept", "1")
    private_buy(desk, 1, 5, 99, "day", "0")
    desk.sell(2, 4, 100)
    stream_before = desk.pair.matcher.stream_next(1)
    assert desk.roll() == [("roll_started",), ("canceled", 0, 5, "E"), ("session_started",),
                           ("announced", 0, 6)]
    assert stream_before == desk.pair.matcher.stream_next(1) == 1
    assert desk.query(1) == [("account_queried", 1)]
    assert desk.pair.matcher.client_ids(1) == {kept: "kept"}
    # The size of the order is still that of the whole: ten, of which four are executed.
    assert private_cancel(desk, 1, kept, 10) == [("rejected", "8004")]
    assert private_cancel(desk, 1, kept, 9) == [("canceled", 0, 1, "U")]


# Cancel and reduce by id


def test_an_order_is_canceled_and_reduced_by_its_id(desk):
    _, first = private_buy(desk, 1, 10, 100)
    _, second = private_buy(desk, 1, 10, 100)
    assert private_cancel(desk, 1, first, 4) == [("canceled", 0, 6, "U")]
    assert desk.sell(2, 5, 100) == [
        ("accepted", 1, 5), ("fill", 1, 0, 4, 100), ("fill", 1, 0, 1, 100)]
    assert private_cancel(desk, 1, second) == [("canceled", 0, 9, "U")]
    assert private_cancel(desk, 1, second) == [("rejected", "8001")]


@pytest.mark.parametrize("quantity_lots", [10, 11, 2**33, 2**64 - 1])
def test_a_reduction_that_takes_nothing_off_is_rejected(desk, quantity_lots):
    _, order_id = private_buy(desk, 1, 10, 100)
    assert private_cancel(desk, 1, order_id, quantity_lots) == [("rejected", "8004")]


def test_a_reduction_beyond_32_bits_is_whole_in_the_log(desk):
    desk.tell(define_instrument(1, "ONE", 1, 2**50))
    _, order_id = private_buy(desk, 1, 2**40, 100)
    assert private_cancel(desk, 1, order_id, 2**39 + 1) == [("canceled", 0, 2**39 - 1, "U")]
    assert last_event(desk)["command_quantity"] == 2**39 + 1


def test_another_accounts_order_is_unknown(desk):
    _, order_id = private_buy(desk, 1, 10, 100)
    assert private_cancel(desk, 2, order_id) == [("rejected", "8001")]
    assert private_replace(desk, 2, order_id, 5, 100) == [("rejected", "8001")]
    desk.buy(1, 10, 100)
    ouch = last_event(desk)["order_id"]
    assert private_cancel(desk, 2, ouch, number=1) == [("rejected", "8001")]


def test_an_ouch_order_is_canceled_by_its_id_and_handle_and_its_owner_is_told(desk):
    desk.buy(1, 10, 100, channel=3)
    order_id = last_event(desk)["order_id"]
    assert private_cancel(desk, 1, order_id) == [("rejected", "8001")]
    assert private_cancel(desk, 1, order_id + 1, number=1, channel=3) == [("rejected", "8001")]
    assert private_cancel(desk, 1, order_id, 7, 1, 3) == [("canceled", 1, 3, "U")]
    assert last_event(desk)["source"] == "tcp"
    assert last_event(desk)["origin"]["source"] == "http"
    assert private_cancel(desk, 1, order_id, 0, 1, 3, Source.ADMIN) == [("canceled", 1, 7, "U")]
    # A, and two C.
    assert desk.pair.matcher.stream_next(1) == 4


def test_a_private_modify_is_for_another_door(desk):
    _, order_id = private_buy(desk, 1, 10, 100)
    command = Command(Kind.CMD_MODIFY, 1, side="T", quantity_lots=5, source=HTTP,
                      order_id=order_id)
    assert desk.tell(command) == [("rejected", "8003")]


def test_a_cancel_by_ouch_never_finds_a_private_order(desk):
    private_buy(desk, 1, 10, 100)
    assert desk.cancel(1, 0) == []
    assert desk.modify(1, 0, "B", 5) == []
    assert desk.replace(1, 0, 5, 100) == []


# Replace by id


def test_a_private_replace_is_a_new_order_of_the_same_chain(desk):
    _, order_id = private_buy(desk, 1, 10, 100, "mine")
    desk.sell(2, 4, 100)
    assert private_replace(desk, 1, order_id, 12, 101) == [("replaced", 0, 8)]
    replaced = last_event(desk)
    assert (replaced["orig_order_id"], replaced["chain_done_lots"]) == (order_id, 4)
    assert desk.pair.matcher.client_ids(1) == {replaced["order_id"]: "mine"}
    assert private_cancel(desk, 1, order_id) == [("rejected", "8001")]


@pytest.mark.parametrize(("terms", "reason"), [
    ({"quantity_lots": 0}, "0013"), ({"quantity_lots": 4}, "0013"), ({"price_units": 0}, "001D"),
    ({"side": "S"}, "0009"), ({"time_in_force": "9"}, "000F"),
    ({"options": {"min_quantity_lots": 1}}, "000D"), ({"flags": Flag.RATE_EXCEEDED}, "0029"),
    ({"flags": Flag.DOOR_REASON, "door_reason": Reject.PEG}, "0011"),
])
def test_a_private_replace_with_bad_terms_leaves_the_original(desk, terms, reason):
    _, order_id = private_buy(desk, 1, 10, 100)
    desk.sell(2, 4, 100)
    terms = {"quantity_lots": 12, "price_units": 101, **terms}
    assert private_replace(desk, 1, order_id, **terms) == [("rejected", reason)]
    assert private_cancel(desk, 1, order_id) == [("canceled", 0, 6, "U")]


def test_a_limit_refuses_a_private_replace_with_its_own_reason(desk):
    _, order_id = private_buy(desk, 1, 10, 100)
    desk.limits(1, quantity_max_lots=10)
    assert private_replace(desk, 1, order_id, 11, 100) == [("rejected", "0031")]


def test_an_ouch_order_is_replaced_by_ouch_only(desk):
    desk.buy(1, 10, 100)
    order_id = last_event(desk)["order_id"]
    told = private_replace(desk, 1, order_id, 5, 100, original=1)
    assert told == [("rejected", "8003")]
    assert desk.cancel(1, 1) == [("canceled", 1, 10, "U")]


# Ids of clients


def test_an_id_trades_once_and_its_second_use_names_the_first_answer(desk):
    _, order_id = private_buy(desk, 1, 10, 100, "once")
    told, _ = private_buy(desk, 1, 99, 99, "once")
    assert told == [("rejected", "8002")]
    assert last_event(desk)["origin"]["order_id"] == order_id
    told, _ = private_buy(desk, 2, 10, 100, "once")
    assert told == [("accepted", 0, 10)]
    private_cancel(desk, 1, order_id)
    told, _ = private_buy(desk, 1, 10, 100, "once")
    assert told == [("rejected", "8002")]


def test_a_rejected_id_is_remembered_too(desk):
    told, _ = private_buy(desk, 1, 0, 100, "no")
    assert told == [("rejected", "0013")]
    seq = last_event(desk)["seq"]
    private_buy(desk, 1, 5, 100, "no")
    assert last_event(desk)["origin"]["order_id"] == seq
    assert desk.pair.matcher.find_client_order(1, "no")[0] == seq


def test_a_second_use_in_a_replace_keeps_the_target_in_the_log(desk):
    private_buy(desk, 1, 10, 100, "a")
    _, order_id = private_buy(desk, 1, 10, 100, "b")
    assert private_replace(desk, 1, order_id, 5, 100, "a") == [("rejected", "8002")]
    assert last_event(desk)["orig_order_id"] == order_id
    told = private_replace(desk, 1, order_id, 5, 100, "c")
    assert told == [("replaced", 0, 5)]
    newest = last_event(desk)["order_id"]
    assert desk.pair.matcher.client_ids(1)[newest] == "c"
    assert desk.pair.matcher.find_client_order(1, "b")[0] == order_id


def test_an_id_is_kept_while_its_order_lives_whatever_its_age(desk):
    desk.tell(set_rules(0, 0, 0))
    private_buy(desk, 1, 10, 90, "live")
    for number in range(9):
        private_buy(desk, 1, 1, 95, f"ioc {number}", "3")
    assert desk.pair.matcher.find_client_order(1, "live") is not None
    # Each that comes forgets those that ended before it.
    assert desk.pair.matcher.client_ids_known == 2


def test_the_newest_ids_are_kept_whatever_their_age(desk):
    desk.tell(set_rules(0, 3, 0))
    for number in range(9):
        private_buy(desk, 1, 1, 95, f"ioc {number}", "3")
    known = [number for number in range(9)
             if desk.pair.matcher.find_client_order(1, f"ioc {number}")]
    assert known == [5, 6, 7, 8]


def test_an_id_inside_the_window_is_kept_until_there_are_too_many(desk):
    desk.tell(set_rules(1_000, 1, 4))
    for number in range(4):
        private_buy(desk, 1, 1, 95, f"ioc {number}", "3")
    assert desk.pair.matcher.client_ids_known == 4
    private_buy(desk, 1, 1, 95, "ioc 4", "3")
    assert desk.pair.matcher.client_ids_known <= 4
    assert desk.pair.matcher.find_client_order(1, "ioc 0") is None
    desk.pair.time_ns += 1_000
    private_buy(desk, 1, 1, 95, "ioc 5", "3")
    assert desk.pair.matcher.client_ids_known == 2


def test_the_ids_of_an_account_that_went_away_are_forgotten_by_others(desk):
    desk.tell(set_rules(10, 0, 2**64 - 1))
    for number in range(20):
        private_buy(desk, 2, 1, 95, f"ioc {number}", "3")
    desk.pair.time_ns += 10
    for number in range(60):
        private_buy(desk, 1, 1, 95, f"other {number}", "3")
        desk.query(1)
    assert desk.pair.matcher.find_client_order(2, "ioc 19") is None


def test_ids_live_on_in_a_saved_state_and_in_the_log(desk):
    private_buy(desk, 1, 10, 100, "x" * 36)
    private_buy(desk, 1, 1, 100, "gone", "3")
    known = [desk.pair.matcher.find_client_order(1, text) for text in ("x" * 36, "gone")]
    desk.pair.reload()
    replayed = Matcher()
    for events in desk.pair.log:
        replayed.replay(events)
    for matcher in (desk.pair.matcher, replayed):
        assert [matcher.find_client_order(1, text) for text in ("x" * 36, "gone")] == known
        assert matcher.find_client_order(1, "x" * 35) is None
        assert matcher.find_client_order(1, "x" * 37) is None
    with pytest.raises(KeyError):
        replayed.find_client_order(99, "gone")


def body(**changes):
    terms = {"instrument_id": 1, "side": "B", "quantity_lots": 5, "price_units": 100,
             "time_in_force": "0", "post_only": False, "min_quantity_lots": 0}
    batch = CommandBatch()
    who = {"account_id": 1, "source": HTTP, "request_id": 1, "client_order_id": "a",
           **{name: changes.pop(name) for name in ("account_id", "request_id", "key")
              if name in changes}}
    batch.enter(user_ref_num=0, **{**terms, **changes}, **who)
    return fingerprint(batch)


def test_a_fingerprint_is_of_what_is_asked_for(desk):
    assert body() == body(request_id=9, key="k", account_id=2)
    changed = [body(**{name: value}) for name, value in (
        ("instrument_id", 2), ("side", "S"), ("quantity_lots", 6), ("price_units", 99),
        ("time_in_force", "1"), ("post_only", True), ("min_quantity_lots", 2))]
    assert len({body(), *changed}) == 8
    private_buy(desk, 1, 5, 100, "a")
    assert desk.pair.matcher.find_client_order(1, "a")[1] == body()
    with pytest.raises(ValueError, match="no Enter or Replace"):
        fingerprint(CommandBatch())


def test_the_fingerprint_of_a_replace_is_the_same_from_the_command_and_from_the_log(desk):
    _, order_id = private_buy(desk, 1, 10, 100, flags=POST_ONLY, options={"handle_inst": "O"})
    batch = CommandBatch()
    batch.replace(1, 0, 0, 7, 101, "1", source=HTTP, order_id=order_id, client_order_id="new")
    private_replace(desk, 1, order_id, 7, 101, "new", time_in_force="1")
    replayed = Matcher()
    for events in desk.pair.log:
        replayed.replay(events)
    expected = fingerprint(batch)
    assert desk.pair.matcher.find_client_order(1, "new")[1] == expected
    assert replayed.find_client_order(1, "new")[1] == expected


# Whole accounts


def test_a_private_mass_cancel_takes_every_order_and_an_ouch_one_its_own(desk):
    private_buy(desk, 1, 1, 90)
    desk.buy(1, 2, 91)
    assert desk.mass_cancel(1) == [("mass_canceled",), ("canceled", 1, 2, "U")]
    desk.buy(1, 3, 91)
    desk.sell(1, 4, 95)
    told = desk.mass_cancel(1, number=0, source=HTTP, side="B")
    assert told == [("mass_canceled",), ("canceled", 0, 1, "U"), ("canceled", 3, 3, "U")]
    told = desk.mass_cancel(1, number=0, source=Source.ADMIN)
    assert told == [("mass_canceled",), ("canceled", 4, 4, "S")]
    assert desk.query(1) == [("account_queried", 5)]


def test_the_kill_switch_is_the_operators_alone(desk):
    kill = Command(Kind.CMD_DISABLE_ENTRY, 1, source=Source.ADMIN, key="op", reason="limits")
    assert desk.tell(kill) == [("entry_disabled",)]
    assert desk.order_entry(1, enable=True) == [("entry_enabled",)]
    assert desk.buy(1, 1, 100) == [("rejected", "000C")]
    assert private_buy(desk, 1, 1, 100)[0] == [("rejected", "000C")]
    enable = Command(Kind.CMD_ENABLE_ENTRY, 1, source=Source.ADMIN)
    assert desk.tell(enable) == [("entry_enabled",)]
    assert desk.buy(1, 1, 100) == [("accepted", 3, 1)]


def test_an_operator_does_not_undo_what_the_account_switched_off(desk):
    desk.order_entry(1, enable=False)
    desk.tell(Command(Kind.CMD_ENABLE_ENTRY, 1, source=Source.ADMIN))
    assert desk.buy(1, 1, 100) == [("rejected", "000C")]
    desk.tell(Command(Kind.CMD_ENABLE_ENTRY, 1, source=HTTP))
    assert desk.buy(1, 1, 100) == [("accepted", 3, 1)]


# Halts and acts


def halt(desk, instrument_id=1, reason="news"):
    return desk.tell(Command(Kind.CMD_HALT_INSTRUMENT, instrument_id=instrument_id,
                             source=Source.ADMIN, reason=reason, key="op"))


def resume(desk, instrument_id=1):
    return desk.tell(Command(Kind.CMD_RESUME_INSTRUMENT, instrument_id=instrument_id,
                             source=Source.ADMIN))


def test_a_halted_instrument_takes_cancels_only(desk):
    desk.buy(1, 10, 100)
    desk.buy(1, 10, 99)
    _, order_id = private_buy(desk, 2, 10, 98)
    assert halt(desk) == [("instrument_halted",)]
    assert desk.sell(3, 5, 100) == [("rejected", "0007")]
    assert desk.sell(3, 5, MARKET) == [("rejected", "0007")]
    assert private_buy(desk, 3, 5, 100)[0] == [("rejected", "0007")]
    assert desk.sell(3, 5, 100, instrument_id=2) == [("accepted", 3, 5)]
    # By OUCH the number of a replace is used up; the original stays either way.
    assert desk.replace(1, 1, 10, 101) == [("rejected", "0007")]
    assert desk.next_number(1) == 4
    assert private_replace(desk, 2, order_id, 10, 97) == [("rejected", "0007")]
    assert desk.cancel(1, 1, 4) == [("canceled", 1, 6, "U")]
    assert desk.modify(1, 2, "B", 5) == [("modified", 2, 5, "B")]
    assert private_cancel(desk, 2, order_id) == [("canceled", 0, 10, "U")]
    assert resume(desk) == [("instrument_resumed",)]
    assert desk.sell(3, 4, 100) == [("accepted", 4, 4), ("fill", 1, 1, 4, 100)]


def test_a_halt_shows_its_newest_reason_and_survives_everything(desk):
    halt(desk, reason="r" * 24)
    halt(desk, reason="again")
    desk.tell(define_instrument(1, "ONE", 1))
    desk.roll()
    desk.pair.reload()
    row = desk.pair.matcher.instruments()[1]
    assert (row["halted"], row["halt_reason"]) == (True, "again")
    assert desk.buy(1, 1, 100) == [("rejected", "0007")]
    resume(desk)
    row = desk.pair.matcher.instruments()[1]
    assert (row["halted"], row["halt_reason"]) == (False, "")


def test_a_halt_of_an_unknown_instrument_is_answered(desk):
    assert halt(desk, 9) == [("rejected", "0017")]
    assert resume(desk, 9) == [("rejected", "0017")]


def test_an_act_of_an_operator_is_in_the_log_and_changes_nothing(desk):
    before = desk.pair.matcher.levels(1, 9)
    act = Command(Kind.CMD_ADMIN_ACT, 2, source=Source.ADMIN, act=Act.DISCONNECT,
                  actor_account_id=1, key="0123456789abcdef", reason="asked by phone")
    assert desk.tell(act) == [("admin_act",)]
    event = desk.pair.log[-1].dicts()[0]
    assert event["account_id"] == 2
    assert event["origin"] == {"source": "admin", "request_id": 0, "order_id": 0,
                               "actor_account_id": 1, "key": "0123456789abcdef",
                               "reason": "asked by phone", "act": "disconnect"}
    assert desk.pair.matcher.levels(1, 9) == before


# What OUCH is told


def test_the_owner_of_an_ouch_order_is_told_of_what_other_doors_did(desk):
    desk.buy(1, 10, 100, channel=3)
    order_id = last_event(desk)["order_id"]
    _, private_id = private_buy(desk, 1, 10, 100)
    private_cancel(desk, 1, order_id, 4, 1, 3)
    private_cancel(desk, 1, private_id)
    private_cancel(desk, 1, private_id)
    halt(desk)
    desk.mass_cancel(1, number=0, source=Source.ADMIN)
    desk.buy(1, 1, 100, channel=3)
    whole = EventBatch.from_bytes(b"".join(bytes(events) for events in desk.pair.log), 1)
    told = [message for account_id, message in messages_of(whole) if account_id == 1]
    assert [message[:1] for message in told] == [b"A", b"C", b"C", b"J"]
    assert [message[13:18] for message in told[1:3]] == [
        (6).to_bytes(4, "big") + b"U", (4).to_bytes(4, "big") + b"S"]
    assert told[3][13:15] == b"\0\x07"


# Events that do not fit


@pytest.mark.parametrize("spoil", ["order_id", "halt"])
def test_events_of_private_orders_that_do_not_fit_are_reported(desk, spoil):
    _, order_id = private_buy(desk, 1, 10, 100)
    if spoil == "order_id":
        private_cancel(desk, 1, order_id)
        data = bytearray(bytes(desk.pair.log[-1]))
        data[16:24] = (order_id + 1).to_bytes(8, "little")
    else:
        halt(desk)
        data = bytearray(bytes(desk.pair.log[-1]))
        data[2:4] = (77).to_bytes(2, "little")
    replayed = Matcher()
    for events in desk.pair.log[:-1]:
        replayed.replay(events)
    with pytest.raises(Exception, match="does not fit"):
        replayed.replay(EventBatch.from_bytes(bytes(data), replayed.next_seq))

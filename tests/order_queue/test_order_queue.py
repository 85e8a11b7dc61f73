"""Orders from a list or a stream in Redis: the same door, the same answers as over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgpack
import pytest

from engine.config import load_settings
from engine.errors import ConfigError
from tests.order_queue.conftest import Producer, until
from tests.support.http import Caller
from tests.support.redis import RedisServer
from tests.support.venue import Venue, write_config

BUY = {"account": "MAKER1", "symbol": "AAPL", "side": "buy", "quantity": "10", "price": "100.00"}
SELL = BUY | {"side": "sell"}


def events(venue: Venue) -> list[dict[str, Any]]:
    """The events of the log that came from the queue."""
    past = venue.app.journal.past
    return [event for batch in past.events(1, venue.app.market.applied_seq)
            for event in batch.dicts() if event.get("origin", {}).get("source") == "redis"]


def http(venue: Venue, method: str, path: str, body: Any = None) -> Any:
    caller = Caller(venue.app.ports["api"])
    try:
        return caller(method, path, body)
    finally:
        caller.close()


# -- what an entry means ---------------------------------------------------------------------------


async def test_an_order_is_entered_changed_and_canceled(start_venue, producer: Producer) -> None:
    venue = await start_venue()
    entered = await producer.ask(**BUY, client_order_id="a")
    assert (entered["status"], entered["body"]["status"]) == (201, "open")
    assert (entered["account"], entered["client_order_id"]) == ("MAKER1", "a")
    reduced = await producer.ask(account="maker1", op="change", client_order_id="a", quantity="4")
    assert (reduced["status"], reduced["body"]["remaining_quantity"]) == (200, "4")
    assert reduced["body"]["order_id"] == entered["body"]["order_id"]
    moved = await producer.ask(account="MAKER1", op="change", price="101",
                               order_id=entered["body"]["order_id"], new_client_order_id="b")
    assert (moved["status"], moved["body"]["price"]) == (200, "101.0000")
    assert moved["body"]["replaces"] == entered["body"]["order_id"]
    canceled = await producer.ask(account="MAKER1", op="cancel", client_order_id="b")
    assert (canceled["status"], canceled["body"]["status"]) == (200, "canceled")
    assert [event["kind"] for event in events(venue)] == [
        "accepted", "canceled", "replaced", "canceled"]
    # HTTP shows the same orders.
    shown = await asyncio.to_thread(http, venue, "GET", "/v1/orders?status=all")
    assert shown.json["orders"][0] == canceled["body"]
    await until(producer.nothing_left)


REFUSED: list[dict[str, Any]] = [
    {"symbol": "NIX"}, {"price": "100.001"}, {"price": "100.00001"}, {"quantity": "0"},
    {"quantity": "99999999999"}, {"price": 100.5}, {"price": None}, {"side": "both"},
    {"quantity": "ten"}, {"order_type": "market"}, {"post_only": "perhaps"}, {"color": "red"},
    {"time_in_force": "never"}, {"client_order_id": "no spaces"},
    {"order_type": "market", "price": None, "time_in_force": "gtc"},
]


@pytest.mark.parametrize("wrong", REFUSED, ids=str)
async def test_what_is_wrong_is_answered_as_over_http(start_venue, stream: Producer,
                                                      wrong: dict[str, Any]) -> None:
    venue = await start_venue()
    fields = {"client_order_id": "q1"} | BUY | wrong
    queued = await stream.ask(**fields)
    del fields["account"]
    fields.pop("request_id", None)
    if fields["client_order_id"] == "q1":
        fields["client_order_id"] = "h1"
    over_http = await asyncio.to_thread(http, venue, "POST", "/v1/orders", fields)
    shown = over_http.json
    for body in (queued["body"], shown):
        # Each has its own event and its own client's id.
        for name in ("seq", "client_order_id"):
            body["details"].pop(name, None)
    assert (queued["status"], queued["body"]) == (over_http.status, shown)
    await until(stream.nothing_left)


async def test_a_stream_may_hold_the_fields_themselves(start_venue, stream: Producer) -> None:
    await start_venue()
    client = stream.client
    for fields in ({"post_only": "true", "request_id": "7"}, {"op": "cancel"}):
        client.xadd("orders", {"account": "MAKER1", **(
            {"client_order_id": "t"} if "op" in fields else
            {**BUY, "client_order_id": "t"}), **fields})
    entered, canceled = await stream.answers(2)
    assert (entered["status"], entered["request_id"]) == (201, "7")
    assert canceled["body"]["status"] == "canceled"


async def test_one_field_holds_the_order_whatever_it_is_called(start_venue,
                                                               stream: Producer) -> None:
    await start_venue()
    for name, raw in (("payload", json.dumps(BUY)), ("data", msgpack.packb(BUY)),
                      ("account", "MAKER1"), ("order", "{")):
        stream.client.xadd("orders", {name: raw})
    answers = await stream.answers(4)
    assert sorted((answer["status"], answer["body"].get("code") or "") for answer in answers) == [
        (201, ""), (201, ""), (400, "bad_entry"), (400, "missing_field")]


async def test_message_pack_is_read_as_json_is(start_venue, producer: Producer) -> None:
    await start_venue()
    producer.send(msgpack.packb(BUY | {"quantity": 10, "client_order_id": "m"}))
    (answer,) = await producer.answers(1)
    assert (answer["status"], answer["body"]["client_order_id"]) == (201, "m")


async def test_entries_that_cannot_be_read_are_answered_and_gone(start_venue,
                                                                 producer: Producer) -> None:
    await start_venue()
    for raw in (b"", b"{", b"\xff\xff", b"[1]", b'{"a":' * 5_000, b'{"account": 5}',
                b"\x91" * 5_000, b'{"account": "NIX"}', b'{"op": "buy", "account": "MAKER1"}',
                b'{"account": "MAKER1", "request_id": [1]}'):
        producer.send(raw)
    answers = await producer.answers(10)
    assert {answer["status"] for answer in answers} == {400, 403}
    assert {"bad_entry", "unknown_account", "bad_value"} == {
        answer["body"]["code"] for answer in answers}
    await until(producer.nothing_left)
    assert (await producer.ask(**BUY, client_order_id="z"))["status"] == 201


async def test_what_an_entry_that_cannot_be_read_is_told(start_venue, producer: Producer) -> None:
    await start_venue()
    neither = "this is no order: it is neither a map of JSON nor one of MessagePack"
    told = {b"buy 1 BTC-USDT": neither, b"": neither, b"[1]": neither, b"7": neither,
            b"\x91\x01": neither,
            b'{"a": ': "this is no order: its JSON can't be read: Input data was truncated",
            b"\x81\xa1": "this is no order: its MessagePack can't be read: "
                         "Input data was truncated"}
    for raw in told:
        producer.send(raw)
    answers = await producer.answers(len(told))
    assert sorted(one["body"]["message"] for one in answers) == sorted(told.values())


async def test_a_refused_entry_is_told_by_its_names(start_venue, producer: Producer) -> None:
    await start_venue()
    for wrong in ({"price": "x"}, {"account": "NIX"}, {"op": "buy"}, {"colour": "red"}):
        answer = await producer.ask(**(BUY | wrong), client_order_id="mine")
        assert answer["client_order_id"] == "mine"
        assert answer["status"] in (400, 403)
    await until(producer.nothing_left)


async def test_in_a_list_every_entry_needs_an_id_of_its_own(start_venue,
                                                            server: RedisServer) -> None:
    await start_venue()
    producer = Producer(server.client(), "list")
    missing = await producer.ask(**BUY)
    assert (missing["status"], missing["body"]["details"]) == (400, {"field": "client_order_id"})
    producer.send(json.dumps({"account": "MAKER1", "op": "cancel", "client_order_id": "a"})
                  .encode())
    _, unnamed = await producer.answers(2)
    assert unnamed["body"]["details"] == {"field": "request_id"}


async def test_a_stream_gives_an_order_its_entry_id(start_venue, stream: Producer) -> None:
    await start_venue()
    answer = await stream.ask(**BUY)
    assert answer["client_order_id"] == f"entry:{answer['entry']}"
    assert answer["body"]["client_order_id"] == f"entry:{answer['entry']}"


# -- who may -----------------------------------------------------------------------------------


async def test_the_queue_trades_only_for_whom_it_may(start_venue, stream: Producer) -> None:
    await start_venue(redis__order_accounts="maker2,TAKER1",
                      limits={"TAKER1": {"role": "read-only"}})
    for account, status, code in (("MAKER1", 403, "forbidden"), ("TAKER1", 403, "forbidden"),
                                  ("NOBODY", 403, "unknown_account"), ("MAKER2", 201, None)):
        answer = await stream.ask(**(BUY | {"account": account}))
        assert (answer["status"], answer["body"].get("code")) == (status, code)


@pytest.mark.parametrize(("settings", "who"), [
    ({}, "MAKER1"), ({"api__demo_account": "MAKER2"}, "MAKER2"),
    ({"redis__order_accounts": "TAKER1"}, "TAKER1"),
    ({"redis__order_accounts": "MAKER1,TAKER1"}, ""),
], ids=str)
async def test_an_order_that_names_nobody_is_the_demo_accounts_or_the_only_one_s(
        start_venue, stream: Producer, settings: dict[str, str], who: str) -> None:
    await start_venue(**settings)
    order = {name: value for name, value in BUY.items() if name != "account"}
    answer = await stream.ask(**order, client_order_id="a")
    assert (answer["status"], answer.get("account", "")) == (201 if who else 400, who)
    if not who:
        assert answer["body"]["code"] == "missing_field"


def test_a_queue_that_cannot_be_is_a_mistake_of_the_configuration(tmp_path) -> None:
    env = {"MATCHD_REDIS__ORDER_QUEUE": "orders", "MATCHD_REDIS__ORDER_ACCOUNTS": "MAKER1,NOBODY"}
    with pytest.raises(ConfigError) as wrong:
        load_settings(write_config(tmp_path), env)
    assert len(wrong.value.problems) == 2
    assert "redis.order_queue" in wrong.value.problems[0]
    assert "NOBODY" in wrong.value.problems[1]
    env = {"MATCHD_REDIS__ORDER_QUEUE": "orders", "MATCHD_REDIS__URL": "redis://127.0.0.1",
           "REDIS_MAX_CONNECTIONS": "1"}
    with pytest.raises(ConfigError, match="redis.max_connections: expected at least 2 with"):
        load_settings(write_config(tmp_path), env)
    load_settings(write_config(tmp_path), env | {"REDIS_MAX_CONNECTIONS": "2"})


# -- once and in order ---------------------------------------------------------------------------


async def test_the_same_order_again_gets_its_first_answer(start_venue, producer: Producer) -> None:
    venue = await start_venue()
    first = await producer.ask(**BUY, client_order_id="same")
    again = await producer.ask(**BUY, client_order_id="same")
    assert (again["status"], again["body"], again["again"]) == (200, first["body"], "true")
    other = await producer.ask(**(BUY | {"quantity": "11"}), client_order_id="same")
    assert (other["status"], other["body"]["code"]) == (409, "client_order_id_reused")
    # Over HTTP it is the same order too.
    over_http = await asyncio.to_thread(
        http, venue, "POST", "/v1/orders",
        {name: value for name, value in BUY.items() if name != "account"}
        | {"client_order_id": "same"})
    assert (over_http.status, over_http.json) == (200, first["body"])
    assert [event["kind"] for event in events(venue)].count("accepted") == 1


async def test_entries_of_an_account_are_done_in_their_order(start_venue,
                                                             producer: Producer) -> None:
    venue = await start_venue()
    count = 50
    # Each order would trade with the one before it, were that not canceled in between.
    for number in range(count):
        producer.send(**(BUY if number % 2 else SELL), client_order_id=f"o{number}")
        producer.send(account="MAKER1", op="change", client_order_id=f"o{number}", quantity="5")
        producer.send(account="MAKER1", op="change", client_order_id=f"o{number}",
                      price="99" if number % 2 else "101")
        producer.send(account="MAKER1", op="cancel", client_order_id=f"o{number}")
    answers = await producer.answers(4 * count)
    assert {answer["status"] for answer in answers} == {200, 201}, answers
    assert [event["kind"] for event in events(venue)] == [
        "accepted", "canceled", "replaced", "canceled"] * count
    assert not any(answer["body"]["fills"] for answer in answers)


async def test_accounts_do_not_wait_for_each_other(start_venue, stream: Producer) -> None:
    venue = await start_venue()
    for account in ("MAKER1", "MAKER2"):
        for number in range(20):
            stream.send(**(BUY | {"account": account}), client_order_id=f"{number}")
            stream.send(account=account, op="cancel", client_order_id=f"{number}")
    answers = await stream.answers(80)
    assert {answer["status"] for answer in answers} == {200, 201}
    assert len(events(venue)) == 80


async def test_orders_that_waited_for_the_venue_are_taken_when_it_comes(
        start_venue, producer: Producer) -> None:
    for number in range(1_200):
        producer.send(**BUY, client_order_id=f"early{number}")
    venue = await start_venue()
    answers = await producer.answers(1_200)
    assert [answer["client_order_id"] for answer in answers] == [
        f"early{number}" for number in range(1_200)]
    await venue.stop()
    producer.send(**SELL, client_order_id="late")
    await venue.start()
    assert (await producer.answers(1_201))[-1]["body"]["status"] == "filled"
    await until(producer.nothing_left)


async def test_a_stop_leaves_every_entry_done_or_for_the_next_start(start_venue,
                                                                    producer: Producer) -> None:
    venue = await start_venue()
    sent = 0
    for _ in range(6):
        for _ in range(300):
            sent += 1
            producer.send(**BUY, client_order_id=f"s{sent}")
            producer.send(account="MAKER1", op="cancel", client_order_id=f"s{sent}")
        await asyncio.sleep(0.02)
        await venue.stop()
        await venue.start()
    answers = await producer.answers(2 * sent)
    assert {answer["status"] for answer in answers} == {200, 201}
    kinds = [event["kind"] for event in events(venue)]
    assert kinds.count("accepted") == kinds.count("canceled") == sent


# -- pressure and trouble --------------------------------------------------------------------------


async def test_a_full_queue_of_commands_holds_the_reading_up(start_venue,
                                                             stream: Producer) -> None:
    venue = await start_venue(queues__commands_units=16)
    pipe = stream.client.pipeline(transaction=False)
    for number in range(3_000):
        pipe.xadd("orders", BUY | {"client_order_id": f"p{number}"})
    pipe.execute()
    await stream.answers(3_000)
    assert len(events(venue)) == 3_000


async def test_while_the_matcher_is_behind_nothing_is_read(start_venue,
                                                           stream: Producer) -> None:
    venue = await start_venue()
    assert (await stream.ask(**BUY))["status"] == 201
    commands = venue.app.commands
    limit, commands.limit_units = commands.limit_units, 0
    stream.send(**BUY)
    # The read that was waiting takes this one; its order waits for room.
    await until(lambda: venue.app.order_queue.in_flight == 1)
    for _ in range(10):
        stream.send(**BUY)
    await asyncio.sleep(0.1)
    assert (venue.app.order_queue.in_flight, stream.client.xlen("orders")) == (1, 11)
    assert venue.app.metrics.counts()["redis_orders_pauses"] >= 1
    commands.limit_units = limit
    # What the matcher takes in makes room known.
    venue.inside(lambda batch: batch.account_query(1))
    await stream.answers(12)


async def test_no_more_is_taken_than_can_be_under_way(start_venue, producer: Producer,
                                                      monkeypatch) -> None:
    monkeypatch.setattr("engine.intake.redis_orders.WINDOW", 10)
    monkeypatch.setattr("engine.intake.redis_queue.READ_MAX", 5)
    for number in range(300):
        producer.send(**BUY, client_order_id=f"w{number}")
    venue = await start_venue()
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, venue.app.order_queue.in_flight)
        return producer.nothing_left()

    await until(look)
    assert most < 15
    assert len(events(venue)) == 300


async def test_a_full_server_keeps_the_entries_until_there_is_room(
        start_venue, producer: Producer) -> None:
    venue = await start_venue()
    assert (await producer.ask(**BUY, client_order_id="first"))["status"] == 201
    for number in range(100):
        producer.send(**BUY, client_order_id=f"e{number}")
    # Entries that come together with the lack of room for their answers.
    client = producer.client
    producer.client = client.pipeline(transaction=True)
    for number in range(100):
        producer.send(**BUY, client_order_id=f"f{number}")
    producer.client.config_set("maxmemory", "1").execute()
    producer.client = client
    queue = venue.app.order_queue
    await until(lambda: "maxmemory" in queue.error)
    # It tries again and again: between two failures it is connected.
    states: list[str] = []
    while "down" not in states and len(states) < 500:
        health = await asyncio.to_thread(http, venue, "GET", "/health")
        states.append(health.json["parts"]["order_queue"]["state"])
    assert states[-1] == "down" and set(states) <= {"connected", "down"}
    client.config_set("maxmemory", "0")
    answers = await producer.answers(201)
    assert {answer["status"] for answer in answers} == {201}
    assert len(events(venue)) == 201
    await until(producer.nothing_left)


async def test_a_queue_of_a_wrong_type_is_said_and_waited_for(start_venue,
                                                              stream: Producer) -> None:
    stream.client.set("orders", "text")
    venue = await start_venue()
    queue = venue.app.order_queue
    await until(lambda: queue.error.startswith("orders is a string"))
    health = await asyncio.to_thread(http, venue, "GET", "/health")
    assert health.json["status"] == "degraded"
    assert health.json["reasons"] == ["orders are not taken from Redis: a key of another type"]
    stream.client.delete("orders")
    assert (await stream.ask(**BUY))["status"] == 201
    stream.client.delete("orders")
    await until(lambda: not queue.kind)
    assert (await Producer(stream.client, "list").ask(
        **BUY, request_id="new", client_order_id="l"))["status"] == 201


async def test_an_emptied_server_is_served_on(start_venue, stream: Producer) -> None:
    await start_venue()
    await stream.ask(**BUY)
    stream.client.flushall()
    assert (await stream.ask(**BUY))["status"] == 201


async def test_the_server_away_at_the_start_and_back_later(start_venue, stream: Producer,
                                                           server: RedisServer) -> None:
    server.stop()
    venue = await start_venue()
    await until(lambda: venue.app.order_queue.error)
    assert not venue.app.order_queue.connected
    server.start()
    stream.client = server.client()
    assert (await stream.ask(**BUY))["status"] == 201


# -- taken again -----------------------------------------------------------------------------------


async def redelivered(venue: Venue, stream: Producer, entry: str, fields: dict[str, Any],
                      position: bytes) -> None:
    """Stop the venue and hand an entry to it once more, as if its acknowledgement and what came
    after it had been lost; start again."""
    consumer = f"matchd-{venue.app.journal.log_id.hex()}"
    await venue.stop()
    client = stream.client
    client.delete("orders", "orders:replies")
    client.set("orders:position", position)
    client.xadd("orders", {"order": json.dumps(fields)}, id=entry)
    client.xgroup_create("orders", "matchd", id="0")
    client.xreadgroup("matchd", consumer, {"orders": ">"})
    await venue.start()


@pytest.mark.parametrize("change", [{"quantity": "4"}, {"price": "99"}, {"quantity": "20"}],
                         ids=str)
async def test_a_change_whose_answer_was_lost_is_not_done_again(
        start_venue, stream: Producer, change: dict[str, str]) -> None:
    venue = await start_venue()
    await stream.ask(**BUY, client_order_id="a")
    position = stream.client.get("orders:position")
    fields = {"account": "MAKER1", "op": "change", "client_order_id": "a", **change}
    first = await stream.ask(**fields)
    for number in range(3):
        await stream.ask(**BUY, client_order_id=f"other{number}")
    before = len(events(venue))
    await redelivered(venue, stream, first["entry"], fields, position)
    (again,) = await stream.answers(1)
    assert (again["status"], again["body"], again["again"]) == (200, first["body"], "true")
    assert len(events(venue)) == before


async def test_a_change_that_never_was_done_is_done_when_it_comes_again(
        start_venue, stream: Producer) -> None:
    venue = await start_venue()
    await stream.ask(**BUY, client_order_id="a")
    position = stream.client.get("orders:position")
    fields = {"account": "MAKER1", "op": "change", "client_order_id": "a", "quantity": "4"}
    await redelivered(venue, stream, "9999999999999-1", fields, position)
    (answer,) = await stream.answers(1)
    assert (answer["status"], answer["body"]["remaining_quantity"]) == (200, "4")
    assert "again" not in answer


async def test_a_cancel_and_an_order_whose_answers_were_lost_get_them_again(
        start_venue, stream: Producer) -> None:
    venue = await start_venue()
    assert (await stream.ask(**BUY))["status"] == 201
    position = stream.client.get("orders:position")
    fields: dict[str, Any] = dict(BUY)
    entered = await stream.ask(**fields)
    fields["request_id"] = entered["request_id"]
    cancel = {"account": "MAKER1", "op": "cancel", "client_order_id": entered["client_order_id"]}
    canceled = await stream.ask(**cancel)
    before = len(events(venue))
    await redelivered(venue, stream, canceled["entry"], cancel, position)
    (again,) = await stream.answers(1)
    assert (again["status"], again["body"]) == (200, canceled["body"])
    await redelivered(venue, stream, entered["entry"], fields, position)
    (first,) = await stream.answers(1)
    assert (first["status"], first["body"], first["again"]) == (200, entered["body"], "true")
    assert len(events(venue)) == before


async def test_entries_of_a_venue_that_is_gone_are_taken_over(start_venue, stream: Producer,
                                                              monkeypatch) -> None:
    monkeypatch.setattr("engine.intake.redis_queue.ABANDONED_MS", 50)
    monkeypatch.setattr("engine.intake.redis_orders.TAKE_OVER_S", 0.1)
    stream.send(**BUY)
    stream.client.xgroup_create("orders", "matchd", id="0")
    assert stream.client.xreadgroup("matchd", "another", {"orders": ">"})
    await start_venue()
    (answer,) = await stream.answers(1)
    assert answer["status"] == 201

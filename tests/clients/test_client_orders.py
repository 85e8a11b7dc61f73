"""Every request of the client against the running venue, over both transports, and what it refuses
by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from cython_core.model import MARKET_PRICE_UNITS
from engine import clients
from engine.clients import (
    Accepted,
    AccountQueried,
    Canceled,
    ClientError,
    ConnectionLostError,
    EntryDisabled,
    EntryEnabled,
    Executed,
    LoginRejectedError,
    MassCanceled,
    Modified,
    OrderEntryClient,
    Rejected,
    Replaced,
    TimeInForce,
    TooManyInFlightError,
)
from tests.clients.doors import Door
from tests.support.daemon import Daemon


@asynccontextmanager
async def login(door: Door, account: str = "MAKER1",
                **options: Any) -> AsyncIterator[OrderEntryClient]:
    async with door.client(account, **options) as client:
        yield client


async def take(client: OrderEntryClient, kind: type, count: int = 1) -> list[Any]:
    """The next `count` messages of a kind."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        async for message in client.executions():
            if isinstance(message, kind):
                found.append(message)
            if len(found) == count:
                break
    return found


async def test_an_entered_order_is_accepted_with_its_exact_terms(door: Door) -> None:
    async with login(door) as client:
        answer = await client.enter("BTC-USDT", "B", "0.5", "60000.00", client_order="mine")
    assert isinstance(answer, Accepted)
    assert (answer.quantity_lots, answer.price_units) == (500_000, 6_000_000)
    assert (answer.user_ref_num, answer.side, answer.time_in_force) == (1, "B", TimeInForce.DAY)
    assert answer.client_order == "mine"
    assert answer.symbol == "BTC-USDT"


async def test_a_price_is_a_decimal_text_a_decimal_or_wire_units(door: Door) -> None:
    async with login(door) as client:
        for price in ("60000.01", Decimal("60000.01"), 6_000_001):
            answer = await client.enter("BTC-USDT", "S", 7, price)
            assert isinstance(answer, Accepted)
            assert (answer.quantity_lots, answer.price_units) == (7, 6_000_001)


async def test_what_does_not_convert_exactly_is_refused_before_it_is_sent(door: Door) -> None:
    async with login(door) as client:
        for quantity, price in ((0.5, "60000"), ("0.5", 60000.0)):
            with pytest.raises(TypeError, match="not a float"):
                client.enter("BTC-USDT", "B", quantity, price)  # type: ignore[arg-type]
        for quantity, price in (
                ("0.5", "60000.001"), ("0.0000001", "60000"), ("much", "60000"), ("1", "-1"),
                ("1", Decimal("NaN")), ("1", "1e3"), (Decimal("1e-9"), "60000")):
            with pytest.raises(ValueError):
                client.enter("BTC-USDT", "B", quantity, price)
        assert client.next_user_ref_num == 1
        assert client.in_flight == 0


async def test_an_unknown_symbol_needs_integers_and_is_refused_by_the_venue(
        door: Door) -> None:
    async with login(door) as client:
        with pytest.raises(ClientError, match="no instrument"):
            client.enter("NONE", "B", "1", "1")
        answer = await client.enter("NONE", "B", 1, 1)
    assert isinstance(answer, Rejected)
    assert answer.reject_reason == 0x17


async def test_a_trade_is_told_to_both_sides_with_one_match_number(door: Door) -> None:
    async with login(door) as maker, login(door, "TAKER1") as taker:
        resting = await maker.enter("GOOG", "S", 10, "500.00")
        taking = taker.enter("GOOG", "B", 4, None, TimeInForce.IOC)
        assert (await taking).price_units == MARKET_PRICE_UNITS
        sold, = await take(maker, Executed)
        bought, = await take(taker, Executed)
    assert (sold.user_ref_num, sold.liquidity) == (resting.user_ref_num, "A")
    assert (bought.user_ref_num, bought.liquidity) == (taking.user_ref_num, "R")
    assert sold.match_number == bought.match_number
    assert {sold.quantity_lots, bought.quantity_lots} == {4}
    assert {sold.price_units, bought.price_units} == {5_000_000}


async def test_post_only_and_minimum_quantity_reach_the_venue(door: Door) -> None:
    async with login(door) as client:
        await client.enter("GOOG", "S", 10, "500.00")
        refused = client.enter("GOOG", "B", 10, "500.00", post_only=True)
        assert isinstance(await refused, Accepted)
        few = await client.enter("GOOG", "B", 20, "500.00", TimeInForce.IOC, min_quantity=15)
        assert few.options["min_quantity_lots"] == 15
        canceled = await take(client, Canceled, 2)
    assert [message.reason for message in canceled] == ["G", "I"]


async def test_a_replace_is_answered_by_what_came_of_it(door: Door) -> None:
    async with login(door) as client:
        order = await client.enter("BTC-USDT", "B", "0.5", "60000")
        replaced = await client.replace(order, "0.25", "60001.00")
        assert isinstance(replaced, Replaced)
        assert (replaced.orig_user_ref_num, replaced.quantity_lots) == (1, 250_000)
        assert await client.replace(order, "0.25", "60001") is None
        off_tick = await client.replace(replaced, 100, 0)
        assert isinstance(off_tick, Canceled)
        assert off_tick.user_ref_num == replaced.user_ref_num


async def test_a_cancel_takes_all_off_or_a_part_and_says_when_there_was_nothing(
        door: Door) -> None:
    async with login(door) as client:
        order = await client.enter("BTC-USDT", "B", "0.5", "60000")
        part = await client.cancel(order, "0.3")
        assert isinstance(part, Canceled)
        assert part.quantity_lots == 200_000
        rest = await client.cancel(order.user_ref_num)
        assert isinstance(rest, Canceled)
        assert rest.quantity_lots == 300_000
        assert await client.cancel(order) is None
        assert await client.cancel(4711) is None


async def test_a_modify_reduces_or_changes_the_marking(door: Door) -> None:
    async with login(door) as client:
        order = await client.enter("GOOG", "S", 100, "500.00")
        modified = await client.modify(order, "T", 60)
        assert isinstance(modified, Modified)
        assert (modified.side, modified.quantity_lots) == ("T", 60)
        assert isinstance(await client.modify(order, "B", 60), Rejected)
        assert isinstance(await client.modify(order, "T", 0), Canceled)
        assert await client.modify(order, "T", 10) is None


async def test_a_mass_cancel_takes_the_orders_of_a_symbol_and_side(door: Door) -> None:
    async with login(door) as client:
        for symbol, side in (("GOOG", "B"), ("GOOG", "S"), ("AAPL", "B")):
            await client.enter(symbol, side, 1, "100.00" if side == "B" else "900.00")
        answer = await client.mass_cancel("GOOG", side="B")
        assert isinstance(answer, MassCanceled)
        assert answer.symbol == "GOOG"
        assert [one.user_ref_num for one in await take(client, Canceled)] == [1]
        await client.mass_cancel()
        assert [one.user_ref_num for one in await take(client, Canceled, 2)] == [2, 3]


async def test_disabled_order_entry_rejects_until_it_is_enabled(door: Door) -> None:
    async with login(door) as client:
        assert isinstance(await client.disable(), EntryDisabled)
        refused = await client.enter("GOOG", "B", 1, "1.00")
        assert isinstance(refused, Rejected)
        assert refused.reject_reason == 0x0C
        assert isinstance(await client.enable(), EntryEnabled)
        assert isinstance(await client.enter("GOOG", "B", 1, "1.00"), Accepted)


async def test_an_account_query_tells_the_next_number(door: Door) -> None:
    async with login(door) as client:
        await client.enter("GOOG", "B", 1, "1.00")
        answer = await client.account_query()
    assert isinstance(answer, AccountQueried)
    assert answer.next_user_ref_num == 2


async def test_a_new_client_goes_on_with_the_next_number(door: Door) -> None:
    async with login(door) as client:
        await client.enter("GOOG", "B", 1, "1.00")
    async with login(door) as client:
        assert client.next_user_ref_num == 2
        assert isinstance(await client.enter("GOOG", "B", 1, "1.00"), Accepted)


async def test_orders_in_one_turn_of_the_loop_stay_in_order(door: Door) -> None:
    async with login(door) as client:
        answers = [client.enter("GOOG", "B", 1, 100 * price) for price in range(1, 501)]
        accepted = [await answer for answer in answers]
    assert [one.user_ref_num for one in accepted] == list(range(1, 501))
    assert [one.order_id for one in accepted] == sorted(one.order_id for one in accepted)


async def test_a_cancel_behind_its_order_in_one_turn_finds_it(door: Door) -> None:
    async with login(door) as client:
        entered = client.enter("GOOG", "B", 1, "1.00")
        canceled = client.cancel(entered.user_ref_num)
        assert isinstance(await entered, Accepted)
        assert isinstance(await canceled, Canceled)


async def test_a_thousand_cancels_of_nothing_are_all_answered(door: Door) -> None:
    async with login(door) as client:
        answers = []
        for number in range(1, 1001):
            answers.append(client.cancel(10_000 + number))
            if number % 7 == 0:
                await asyncio.sleep(0)
        assert {await answer for answer in answers} == {None}


async def test_more_requests_in_flight_than_allowed_are_refused(door: Door) -> None:
    async with login(door, in_flight_max=3) as client:
        for _ in range(3):
            client.enter("GOOG", "B", 1, "1.00")
        with pytest.raises(TooManyInFlightError):
            client.enter("GOOG", "B", 1, "1.00")
        await client.account_query() if client.in_flight < 3 else await asyncio.sleep(0.2)
        assert isinstance(await client.enter("GOOG", "B", 1, "1.00"), Accepted)


async def test_the_stream_can_start_with_the_first_message_of_the_session(door: Door) -> None:
    async with login(door) as client:
        entered = [await client.enter("GOOG", "B", 1, 100 * price) for price in range(1, 50)]
    async with login(door, sequence=1) as client:
        assert await take(client, Accepted, 49) == entered


async def test_a_client_that_goes_on_from_a_number_gets_what_follows(door: Door) -> None:
    async with login(door) as client:
        for price in range(1, 10):
            await client.enter("GOOG", "B", 1, 100 * price)
        session, sequence = client.session, client.next_sequence
    async with login(door, "TAKER1") as taker:
        await taker.enter("GOOG", "S", 1, 100, TimeInForce.IOC)
    async with login(door, session=session, sequence=sequence) as client:
        first = [message async for message in _first(client, 1)][0]
    assert isinstance(first, Executed)
    assert (first.sequence, first.user_ref_num) == (sequence, 9)


async def _first(client: OrderEntryClient, count: int) -> AsyncIterator[Any]:
    async for message in client.executions():
        yield message
        count -= 1
        if not count:
            return


async def test_the_stream_ends_when_the_client_is_closed(door: Door) -> None:
    async with login(door) as client:
        await client.enter("GOOG", "B", 1, "1.00")
        reading = asyncio.create_task(_collect(client))
        await asyncio.sleep(0)
    kinds = [type(message) for message in await reading]
    assert (set(kinds[:-1]), kinds[-1]) == ({AccountQueried}, Accepted)
    with pytest.raises(ConnectionLostError, match="closed"):
        client.enter("GOOG", "B", 1, "1.00")


async def _collect(client: OrderEntryClient) -> list[Any]:
    return [message async for message in client.executions()]


async def test_a_wrong_password_and_an_unknown_session_are_told_apart(door: Door) -> None:
    with pytest.raises(LoginRejectedError) as wrong:
        await door.client(password="no").connect()
    with pytest.raises(LoginRejectedError) as unknown:
        await door.client(session="NOSUCH", sequence=1).connect()
    assert (wrong.value.reason, unknown.value.reason) == ("A", "S")


async def test_a_venue_that_is_not_there_is_told_at_once(transport: str) -> None:
    with pytest.raises(ConnectionLostError, match="can't reach the venue at 127"):
        await OrderEntryClient("127.0.0.1", 1, "MAKER1", "demo", transport=transport).connect()


async def test_heartbeats_keep_an_idle_session_open(
        make_daemon: Callable[..., Daemon], transport: str) -> None:
    daemon = make_daemon(order_entry__timeout_ms=600, order_entry__heartbeat_ms=100).start()
    async with login(Door(daemon, transport), heartbeat_s=0.2, silence_max_s=0.6) as client:
        await asyncio.sleep(1.5)
        assert isinstance(await client.enter("GOOG", "B", 1, "1.00"), Accepted)
        assert client.reconnects == 0


async def test_every_public_name_is_exported() -> None:
    assert all(hasattr(clients, name) for name in clients.__all__)

"""The client over datagrams that get lost, come twice, too late, or out of order: every order is
done once, every message comes, every answer is the right one."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from engine import control
from engine.clients import (
    Accepted,
    Canceled,
    Executed,
    LoginRejectedError,
    MassCanceled,
    Modified,
    OrderEntryClient,
    RequestIgnoredError,
    SessionEnded,
    SessionOverError,
)
from tests.clients.doors import Door
from tests.clients.trading import Answers, Listener, check, trade_at_random, whole_stream
from tests.support.daemon import Daemon
from tests.support.lossy_link import LossyLink, Rates


@pytest.fixture
def transport() -> str:
    return "udp"


def lossy(door: Door, share: float, seed: int = 1) -> LossyLink:
    return LossyLink(("127.0.0.1", door.port), Rates.all(share), seed)


async def finish(client: OrderEntryClient, listener: Listener) -> None:
    """Wait until the client has heard everything so far."""
    end = await client.account_query()
    await listener.until(end.sequence)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
async def test_a_link_that_fails_loses_and_repeats_nothing(door: Door, long_profile: bool,
                                                           share: float) -> None:
    with lossy(door, share) as link:
        async with door.client(port=link.port) as client:
            listener = Listener(client)
            rounds = 100 if share < 0.3 else 40
            answers = await trade_at_random(client, rounds * (10 if long_profile else 1), seed=7)
            await finish(client, listener)
    assert sum(way.dropped + way.corrupted for way in link.counts.values())
    check(client, answers, listener.messages, await whole_stream(door.daemon, "MAKER1"))


async def test_thousands_of_requests_at_once_are_all_done_once(door: Door,
                                                               long_profile: bool) -> None:
    count = 50_000 if long_profile else 10_000
    with lossy(door, 0.02) as link:
        async with door.client(port=link.port, in_flight_max=2 * count,
                               answer_timeout_s=300) as client:
            listener = Listener(client)
            entered = {}
            canceled = []
            for number in range(1, count + 1):
                entered[number] = client.enter("GOOG", "B", 1, 100)
                if number % 10 == 0:
                    canceled.append(client.cancel(number - 9))
            answers = ({number: await one for number, one in entered.items()},
                       [await one for one in canceled])
            await finish(client, listener)
    assert None not in answers[1]
    check(client, answers, listener.messages, await whole_stream(door.daemon, "MAKER1"))


async def test_a_cancel_right_behind_its_order_finds_it_always(door: Door) -> None:
    with lossy(door, 0.2) as link:
        async with door.client(port=link.port) as client:
            pairs = []
            for number in range(100):
                entered = client.enter("GOOG", "B", 1, "1.00")
                if number % 2:
                    await asyncio.sleep(0)
                pairs.append((entered, client.cancel(entered.user_ref_num)))
            for entered, canceled in pairs:
                assert isinstance(await entered, Accepted)
                assert isinstance(await canceled, Canceled)


async def test_changes_of_one_order_are_answered_each_by_its_own(door: Door) -> None:
    with lossy(door, 0.1) as link:
        async with door.client(port=link.port) as client:
            order = await client.enter("GOOG", "S", 100, "500.00")
            changes = [client.modify(order, "S", lots) for lots in range(99, 60, -2)]
            assert [(await one).quantity_lots for one in changes] == [*range(99, 60, -2)]
            reductions = [client.cancel(order, lots) for lots in range(60, 30, -2)]
            assert [(await one).quantity_lots for one in reductions] == [1] + 14 * [2]
            chain = order
            for lots in range(30, 1, -3):
                chain = await client.replace(chain, 100 - lots, "500.00")
                assert chain.quantity_lots == 100 - lots
            assert await client.cancel(order) is None


async def test_a_mass_cancel_takes_all_that_was_entered_before_it(door: Door) -> None:
    with lossy(door, 0.2) as link:
        async with door.client(port=link.port) as client:
            before = [client.enter("GOOG", "B", 1, "1.00") for _ in range(100)]
            answer = client.mass_cancel()
            after = client.enter("GOOG", "B", 1, "1.00")
            assert isinstance(await answer, MassCanceled)
            assert isinstance(await after, Accepted)
            assert all([isinstance(await one, Accepted) for one in before])
            assert isinstance(await client.cancel(after.user_ref_num), Canceled)
    stream = await whole_stream(door.daemon, "MAKER1")
    assert sum(isinstance(one, Canceled) for one in stream) == 101


@pytest.mark.parametrize("window", [0, 30])
async def test_a_strict_venue_takes_every_number_too(make_daemon: Callable[..., Daemon],
                                                     window: int) -> None:
    door = Door(make_daemon(order_entry__udp_window=window).start(), "udp")
    with lossy(door, 0.1) as link:
        async with door.client(port=link.port, udp_window=window) as client:
            listener = Listener(client)
            answers = await trade_at_random(client, 60, seed=3)
            await finish(client, listener)
    check(client, answers, listener.messages, await whole_stream(door.daemon, "MAKER1"))


async def test_a_number_that_was_used_elsewhere_is_told_as_ignored(door: Door) -> None:
    async with door.client() as client:
        async with OrderEntryClient("127.0.0.1", door.daemon.port, "MAKER1", "demo") as other:
            lost = [other.enter("GOOG", "B", 1, "1.00") for _ in range(3)]
            assert [(await one).user_ref_num for one in lost] == [1, 2, 3]
        await Listener(client).wait_for(Accepted, 3)
        # As if it had not heard of these numbers.
        client._next_user_ref_num = 1
        with pytest.raises(RequestIgnoredError):
            await client.enter("GOOG", "S", 1, "500.00")


@pytest.mark.parametrize("share", [0.0, 0.1])
async def test_a_killed_venue_loses_and_repeats_nothing_over_a_link_that_fails(
        door: Door, long_profile: bool, share: float) -> None:
    daemon = door.daemon
    with lossy(door, share) as link:
        async with door.client(port=link.port, answer_timeout_s=120) as client:
            listener = Listener(client)
            answers: Answers = {}, []
            for kill in range(8 if long_profile else 2):
                await client.account_query()
                trading = asyncio.create_task(trade_at_random(client, 100, kill))
                await asyncio.sleep(0.03)
                daemon.kill()
                await asyncio.to_thread(daemon.start)
                link.target = ("127.0.0.1", daemon.udp_port)
                entered, canceled = await trading
                answers = answers[0] | entered, answers[1] + canceled
            await finish(client, listener)
    check(client, answers, listener.messages, await whole_stream(daemon, "MAKER1"))


async def test_a_roll_over_a_link_that_fails_loses_no_message_and_repeats_no_order(
        door: Door) -> None:
    with lossy(door, 0.1) as link:
        async with door.client(port=link.port) as client:
            listener = Listener(client)
            answers = []
            for turn in range(60):
                answers += [client.enter("GOOG", "B", 1, 100) for _ in range(5)]
                if turn == 30:
                    await asyncio.to_thread(control.request, door.daemon.data_dir, "roll")
                await asyncio.sleep(0.01)
            done = await asyncio.gather(*answers, return_exceptions=True)
            await finish(client, listener)
    ended, = [one for one in listener.messages if isinstance(one, SessionEnded)]
    at = listener.messages.index(ended)
    for part in (listener.messages[:at], listener.messages[at + 1:]):
        numbers = [one.sequence for one in part]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert ended.complete
    accepted = [one for one in listener.messages if isinstance(one, Accepted)]
    taken = [one for one in done if isinstance(one, Accepted)]
    assert all(isinstance(one, Accepted | SessionOverError) for one in done)
    # Each request was taken in the session that it was asked in, or not at all.
    assert sorted(taken, key=lambda one: one.order_id) == accepted
    new = [one for one in await whole_stream(door.daemon, "MAKER1") if isinstance(one, Accepted)]
    assert [one for one in accepted if one in listener.messages[at:]] == new


async def test_a_session_moves_between_the_transports_without_loss_or_repeat(door: Door) -> None:
    daemon = door.daemon
    async with OrderEntryClient("127.0.0.1", daemon.port, "MAKER1", "demo") as client:
        listener = Listener(client)
        entered: dict[int, Any] = {}
        canceled: list[Any] = []
        for turn in range(6):
            trading = asyncio.create_task(trade_at_random(client, 30, turn))
            await asyncio.sleep(0.01)
            if turn % 2:
                # Over TCP numbers are taken in order only, so nothing may be out.
                answers = await trading
                await client.move("tcp", daemon.port)
            else:
                await client.move("udp", daemon.udp_port)
                answers = await trading
            entered |= answers[0]
            canceled += answers[1]
        await finish(client, listener)
        assert client.reconnects == 6
    check(client, (entered, canceled), listener.messages, await whole_stream(daemon, "MAKER1"))


async def test_a_link_that_is_dead_is_left_for_tcp_and_each_order_is_taken_or_told_of(
        door: Door) -> None:
    with lossy(door, 0.3, seed=5) as link:
        async with door.client(port=link.port) as client:
            listener = Listener(client)
            answers = [client.enter("GOOG", "B", 1, "1.00") for _ in range(500)]
            await answers[100]
            link.stop()
            answers += [client.enter("GOOG", "B", 1, "1.00") for _ in range(500)]
            await asyncio.sleep(0.1)
            await client.move("tcp", door.daemon.port)
            done = await asyncio.gather(*answers, return_exceptions=True)
            await finish(client, listener)
    assert all(isinstance(one, Accepted | RequestIgnoredError) for one in done)
    stream = await whole_stream(door.daemon, "MAKER1")
    taken = sorted(one.user_ref_num for one in done if isinstance(one, Accepted))
    assert sorted(one.user_ref_num for one in stream if isinstance(one, Accepted)) == taken
    assert len(taken) >= 500
    numbers = [one.sequence for one in listener.messages]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_a_new_client_goes_on_over_the_other_transport(door: Door) -> None:
    daemon = door.daemon
    async with door.client() as client:
        order = await client.enter("GOOG", "S", 5, "500.00")
        session, sequence = client.session, client.next_sequence
    async with OrderEntryClient("127.0.0.1", daemon.port, "TAKER1", "demo") as taker:
        await taker.enter("GOOG", "B", 2, "500.00")
    async with OrderEntryClient("127.0.0.1", daemon.port, "MAKER1", "demo", session=session,
                                sequence=sequence) as client:
        executed, = await Listener(client).wait_for(Executed)
        assert executed.sequence == sequence
        sequence = client.next_sequence
        assert isinstance(await client.modify(order, "S", 4), Modified)
    async with door.client(session=session, sequence=sequence) as client:
        modified, = await Listener(client).wait_for(Modified)
        assert modified.sequence == sequence
        assert client.next_user_ref_num == 2


async def test_a_long_past_comes_whole_over_a_link_that_fails(door: Door) -> None:
    async with door.client() as client:
        entered = [await one for one in [client.enter("GOOG", "B", 1, 100) for _ in range(5_000)]]
    with lossy(door, 0.1) as link:
        async with door.client(port=link.port, sequence=1) as client:
            assert await Listener(client).wait_for(Accepted, 5_000) == sorted(
                entered, key=lambda one: one.sequence)


async def test_logins_are_throttled_and_sessions_do_not_suffer(door: Door) -> None:
    async with door.client() as client:
        for _ in range(5):
            with pytest.raises(LoginRejectedError) as wrong:
                await door.client("TAKER1", "wrong").connect()
            assert wrong.value.reason == "A"
        with pytest.raises(LoginRejectedError) as throttled:
            await door.client("TAKER1").connect()
        assert throttled.value.reason == "A"
        assert isinstance(await client.enter("GOOG", "B", 1, "1.00"), Accepted)


async def test_a_venue_that_refuses_a_second_login_knows_a_client_by_its_address(
        make_daemon: Callable[..., Daemon]) -> None:
    door = Door(make_daemon(order_entry__second_login="refuse").start(), "udp")
    with lossy(door, 0.0) as link:
        async with door.client(port=link.port, silence_max_s=1.5) as client:
            listener = Listener(client)
            with pytest.raises(LoginRejectedError) as refused:
                await door.client().connect()
            assert refused.value.reason == "S"
            link.stop()
            queued = client.enter("GOOG", "B", 1, "1.00")
            await asyncio.sleep(2.5)
            link.heal()
            assert isinstance(await queued, Accepted)
            await finish(client, listener)
            assert client.reconnects >= 1


async def test_heavy_trading_of_two_accounts_over_links_that_fail(door: Door) -> None:
    choose = random.Random(11)
    with lossy(door, 0.1) as link:
        async with (door.client(port=link.port) as maker,
                    door.client("TAKER1", port=link.port) as taker):
            listeners = Listener(maker), Listener(taker)
            bought = sold = 0
            answers = []
            for _ in range(300):
                lots = choose.randint(1, 5)
                answers.append(maker.enter("GOOG", "S", lots, "500.00"))
                sold += lots
            await asyncio.gather(*answers)
            while bought < sold:
                lots = min(choose.randint(1, 9), sold - bought)
                answers.append(taker.enter("GOOG", "B", lots, "500.00"))
                bought += lots
            await asyncio.gather(*answers)
            await finish(maker, listeners[0])
            await finish(taker, listeners[1])
    fills = [{one.match_number: one.quantity_lots for one in listener.messages
              if isinstance(one, Executed)} for listener in listeners]
    assert fills[0] == fills[1]
    assert sum(fills[0].values()) == sold

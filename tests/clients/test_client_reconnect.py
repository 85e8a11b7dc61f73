"""Connections that break, over both transports: nothing is lost, nothing comes twice, no order is
entered twice."""

import asyncio
from collections.abc import Callable

import pytest

from engine import control
from engine.clients import (
    Accepted,
    AnswerTimeoutError,
    Canceled,
    ConnectionLostError,
    Executed,
    OrderEntryClient,
    Rejected,
    ResumeError,
    SessionEnded,
    SessionOverError,
)
from tests.clients.cutting_proxy import CuttingProxy
from tests.clients.doors import Door
from tests.clients.trading import Answers, Listener, check, trade_at_random, whole_stream
from tests.support.daemon import Daemon


@pytest.mark.parametrize("bytes_max", [1_500, 9_000])
async def test_a_connection_cut_at_random_bytes_loses_and_repeats_nothing(
        daemon: Daemon, long_profile: bool, bytes_max: int) -> None:
    async with CuttingProxy(daemon.port, seed=bytes_max, bytes_max=0) as proxy:
        async with OrderEntryClient("127.0.0.1", proxy.port, "MAKER1", "demo") as client:
            listener = Listener(client)
            proxy.bytes_max = bytes_max
            proxy.cut_all()
            rounds = bytes_max // (10 if long_profile else 150)
            answers = await trade_at_random(client, rounds, seed=7)
            proxy.bytes_max = 0
            end = await client.account_query()
            await listener.until(end.sequence)
        assert client.reconnects >= 3
        stream = await whole_stream(daemon, "MAKER1")
        check(client, answers, listener.messages, stream)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_killed_and_restarted_venue_loses_and_repeats_nothing(
        door: Door, long_profile: bool, seed: int) -> None:
    daemon = door.daemon
    async with door.line() as line:
        async with door.client(port=line.port) as client:
            listener = Listener(client)
            answers: Answers = {}, []
            kills = 10 if long_profile else 2
            for kill in range(kills):
                # Answered, so the link stands again: each kill then costs one reconnect.
                await client.account_query()
                trading = asyncio.create_task(trade_at_random(client, 100, seed + kill))
                await asyncio.sleep(0.02)
                daemon.kill()
                await asyncio.to_thread(daemon.start)
                line.mend()
                entered, canceled = await trading
                answers = answers[0] | entered, answers[1] + canceled
            end = await client.account_query()
            await listener.until(end.sequence)
        assert client.reconnects >= kills
        check(client, answers, listener.messages, await whole_stream(daemon, "MAKER1"))


async def test_executions_while_the_connection_is_down_come_after_it_is_back(
        door: Door) -> None:
    async with door.line() as line:
        async with door.client(port=line.port) as maker, door.client("TAKER1") as taker:
            listener = Listener(maker)
            resting = await maker.enter("GOOG", "S", 10, "500.00")
            line.cut()
            await taker.enter("GOOG", "B", 10, "500.00")
            queued = maker.enter("GOOG", "S", 1, "501.00")
            line.mend()
            executed, = await listener.wait_for(Executed)
            assert executed.user_ref_num == resting.user_ref_num
            assert isinstance(await queued, Accepted)


async def test_a_session_that_is_taken_over_is_taken_back(door: Door) -> None:
    async with door.client() as first:
        listener = Listener(first)
        async with door.client(reconnect_for_s=0) as second:
            await second.enter("GOOG", "S", 1, "500.00")
        accepted, = await listener.wait_for(Accepted)
        assert accepted.user_ref_num == 1
        # The number that the other program took is known here, too.
        assert (await first.enter("GOOG", "S", 1, "500.00")).user_ref_num == 2


async def test_a_rolled_session_is_followed_by_the_next_one(door: Door) -> None:
    async with door.client() as client:
        listener = Listener(client)
        await client.enter("GOOG", "S", 1, "500.00")
        await client.enter("GOOG", "S", 2, "600.00", "1")
        old = client.session
        await asyncio.to_thread(control.request, door.daemon.data_dir, "roll")
        ended, = await listener.wait_for(SessionEnded)
        assert (ended.session, ended.next_session, ended.complete) == (old, client.session, True)
        announced = (await listener.wait_for(Accepted, 3))[2]
        assert (announced.sequence, announced.user_ref_num, announced.quantity_lots) == (1, 1, 2)
        assert (await client.enter("GOOG", "S", 1, "500.00")).user_ref_num == 2
        before = listener.messages[:listener.messages.index(ended)]
        assert [one.reason for one in before if isinstance(one, Canceled)] == ["E"]


async def test_what_a_roll_leaves_unanswered_is_not_sent_again(door: Door) -> None:
    async with door.line() as line:
        async with door.client(port=line.port) as client:
            listener = Listener(client)
            line.cut()
            await asyncio.sleep(0.05)
            lost = client.enter("GOOG", "S", 1, "500.00")
            await asyncio.to_thread(control.request, door.daemon.data_dir, "roll")
            line.mend()
            with pytest.raises(SessionOverError):
                await lost
            ended, = await listener.wait_for(SessionEnded)
            # Over UDP the venue goes on telling that, and how, the session ended.
            assert ended.complete == (door.transport == "udp")
            assert (await client.enter("GOOG", "S", 1, "500.00")).sequence > 0
        assert len([one for one in await whole_stream(door.daemon, "MAKER1")
                    if isinstance(one, Accepted)]) == 1


async def test_a_venue_without_a_journal_begins_a_new_session_after_a_restart(
        make_daemon: Callable[..., Daemon], transport: str) -> None:
    daemon = make_daemon(journal__sync="off").start()
    door = Door(daemon, transport)
    async with door.line() as line:
        async with door.client(port=line.port) as client:
            listener = Listener(client)
            await client.enter("GOOG", "S", 1, "500.00")
            await asyncio.to_thread(daemon.stop)
            await asyncio.to_thread(daemon.start)
            line.mend()
            ended, = await listener.wait_for(SessionEnded)
            assert not ended.complete
            assert (await client.enter("GOOG", "S", 1, "500.00")).user_ref_num == 1


async def test_messages_that_the_venue_no_longer_keeps_end_the_client_with_a_clear_error(
        make_daemon: Callable[..., Daemon], transport: str) -> None:
    daemon = make_daemon(journal__sync="off", journal__memory_max_bytes=4_096,
                         order_entry__udp_memory_bytes=4_096).start()
    door = Door(daemon, transport)
    async with door.line() as line:
        async with door.client(port=line.port) as maker, door.client("TAKER1") as taker:
            await maker.enter("GOOG", "S", 1_000, "500.00")
            line.cut()
            for _ in range(20):
                answers = [taker.enter("GOOG", "B", 1, "500.00") for _ in range(20)]
                await answers[-1]
            line.mend()
            with pytest.raises(ResumeError, match="no longer has message"):
                async for _ in maker.executions():
                    pass


async def test_a_reader_that_is_slow_loses_nothing(door: Door) -> None:
    async with door.client(backlog_max=100) as maker, door.client("TAKER1") as taker:
        await maker.enter("GOOG", "S", 3_000, "500.00")
        stream = maker.executions()
        seen = [await anext(stream)]
        answers = [taker.enter("GOOG", "B", 1, "500.00") for _ in range(3_000)]
        await answers[-1]
        async with asyncio.timeout(30):
            while sum(isinstance(message, Executed) for message in seen) < 3_000:
                seen.append(await anext(stream))
    assert [message.sequence for message in seen] == list(range(1, len(seen) + 1))


async def test_a_client_that_may_not_reconnect_says_that_the_connection_is_gone(
        door: Door) -> None:
    async with door.client(reconnect_for_s=0) as client:
        await asyncio.to_thread(door.daemon.kill)
        with pytest.raises(ConnectionLostError):
            async for _ in client.executions():
                pass
        with pytest.raises(ConnectionLostError):
            client.enter("GOOG", "S", 1, "500.00")


async def test_an_answer_that_does_not_come_in_time_is_an_error(door: Door) -> None:
    async with door.line() as line:
        async with door.client(port=line.port, answer_timeout_s=0.2) as client:
            line.cut()
            with pytest.raises(AnswerTimeoutError):
                await client.enter("GOOG", "S", 1, "500.00")


async def test_a_silent_venue_is_left_after_the_time_out(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(order_entry__heartbeat_ms=15_000).start()

    async def accept_and_say_nothing(reader: asyncio.StreamReader,
                                     writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept_and_say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = OrderEntryClient("127.0.0.1", port, "MAKER1", "demo", login_timeout_s=0.2)
    with pytest.raises(ConnectionLostError, match="did not answer"):
        await client.connect()
    async with CuttingProxy(daemon.port, seed=1, bytes_max=0) as proxy:
        async with OrderEntryClient("127.0.0.1", proxy.port, "MAKER1", "demo",
                                    silence_max_s=2.0, heartbeat_s=0.1) as client:
            # The daemon's heartbeats come too rarely for this client.
            async with asyncio.timeout(10):
                while client.reconnects == 0:
                    await asyncio.sleep(0.05)
            assert not isinstance(await client.enter("GOOG", "S", 1, "500.00"), Rejected)
    server.close()

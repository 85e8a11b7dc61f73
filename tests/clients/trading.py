"""What tests do with a client: listen, trade at random, and compare what it was told with the
session's stream."""

import asyncio
import random
from typing import Any

from engine.clients import Accepted, Canceled, OrderEntryClient
from tests.support.daemon import Daemon


class Listener:
    """Keeps everything that a client's stream gives."""

    def __init__(self, client: OrderEntryClient) -> None:
        self.messages: list[Any] = []
        self._came = asyncio.Event()
        self._task = asyncio.create_task(self._listen(client))

    async def _listen(self, client: OrderEntryClient) -> None:
        async for message in client.executions():
            self.messages.append(message)
            self._came.set()

    async def wait_for(self, kind: type, count: int = 1) -> list[Any]:
        async with asyncio.timeout(30):
            while len(found := [one for one in self.messages if isinstance(one, kind)]) < count:
                self._came.clear()
                await self._came.wait()
        return found

    async def until(self, sequence: int) -> None:
        async with asyncio.timeout(30):
            while not self.messages or self.messages[-1].sequence < sequence:
                self._came.clear()
                await self._came.wait()


async def whole_stream(daemon: Daemon, account: str) -> list[Any]:
    """Every message of the account's session so far, by a client of its own."""
    async with OrderEntryClient("127.0.0.1", daemon.port, account, "demo", sequence=1) as client:
        end = await client.account_query()
        messages = []
        async for message in client.executions():
            if message.sequence == end.sequence:
                return messages
            messages.append(message)
    raise AssertionError("the stream ended")


Answers = tuple[dict[int, Any], list[Any]]


async def trade_at_random(client: OrderEntryClient, rounds: int, seed: int) -> Answers:
    """Enter and cancel; returns the answers of the orders by number, and of the cancels."""
    choose = random.Random(seed)
    entered: list[Any] = []
    canceled: list[Any] = []
    for _ in range(rounds):
        entered += [client.enter("GOOG", choose.choice("BS"), choose.randint(1, 9),
                                 5_000_000 + 100 * choose.randint(-5, 5))
                    for _ in range(choose.randint(1, 8))]
        if choose.random() < 0.5:
            canceled.append(client.cancel(choose.choice(entered).user_ref_num))
        if choose.random() < 0.2:
            await asyncio.gather(*entered[-3:])
        await asyncio.sleep(0)
    return {one.user_ref_num: await one for one in entered}, [await one for one in canceled]


def check(client: OrderEntryClient, answers: Answers, seen: list[Any], stream: list[Any]) -> None:
    """What the client saw is the session's stream, each order was taken once, and each cancel
    was told what it did."""
    numbers = [message.sequence for message in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert seen == stream[numbers[0] - 1:][:len(seen)]
    entered, canceled = answers
    accepted = [one.user_ref_num for one in stream if isinstance(one, Accepted)]
    assert sorted(accepted) == sorted(entered)
    assert all(isinstance(answer, Accepted) for answer in entered.values())
    # Over UDP one cancel may overtake another.
    assert (sorted((one for one in canceled if one is not None), key=lambda one: one.sequence)
            == [one for one in stream if isinstance(one, Canceled)])

"""kill -9 of the real daemon at random moments under load.

Whatever a client was told before is in the replay after the restart, byte for byte and once; and
the book that the clients' streams add up to is the book that the journal adds up to.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cython_core.ouch import decode
from tests.support.daemon import Daemon
from tests.support.wire import Wire, cancel, enter, replace

# A slow disk may need a while for an answer.
WAIT_S = 60.0
ACCOUNTS = ("MAKER1", "TAKER1")
SYMBOLS = ("AAPL", "MSFT")
# A round is one venue that is killed so many times.
KILLS, KILLS_LONG, ROUNDS, ROUNDS_LONG = 15, 25, 1, 20
# Small files and many snapshots, so that kills hit their changes too.
SETTINGS = {"journal__snapshot_events": 2_000, "journal__segment_bytes": 2**19,
            "journal__first_segment_bytes": 2**18}
# For loads whose every row is compared in the end.
GENTLE_S = (0.005, 0.01)


class Stream:
    """What one account was told, and the orders that follow from it."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.last_number = 0
        self.live: dict[int, list[Any]] = {}
        self.order_ids: set[int] = set()
        self._understood = 0

    def understand(self) -> None:
        """Work through the messages that are new."""
        for payload in self.told[self._understood:]:
            self._apply(decode("out", payload))
        self._understood = len(self.told)

    def _apply(self, told: dict[str, Any]) -> None:
        number = told["user_ref_num"]
        if told["type"] in "AU":
            assert told["order_id"] not in self.order_ids, "one order was announced twice"
            self.order_ids.add(told["order_id"])
        if told["type"] in "AUJ":
            assert number > self.last_number, "a number was used twice"
            self.last_number = number
        if told["type"] == "U":
            del self.live[told["orig_user_ref_num"]]
        if told["type"] in "AU":
            self.live[number] = [told["symbol"], told["side"], told["price_units"],
                                 told["quantity_lots"]]
        if told["type"] in "EC":
            order = self.live[number]
            order[3] -= told["quantity_lots"]
            assert order[3] >= 0, "more was taken off than there was"
            if order[3] == 0:
                del self.live[number]


class Load:
    """One account's client: sends at random, with pauses of these, notes what it is told."""

    def __init__(self, stream: Stream, chance: random.Random,
                 pauses_s: Sequence[float] = (0, 0, 0.001, 0.003)) -> None:
        self.stream = stream
        self._chance = chance
        self._pauses_s = pauses_s
        self._number = stream.last_number

    async def run(self, port: int, name: str) -> None:
        """Go on until the connection breaks. Raises TimeoutError when no answers come."""
        sender: asyncio.Task[None] | None = None
        try:
            wire = await Wire.logged_in(port, name, sequence=len(self.stream.told) + 1)
            sender = asyncio.create_task(self._send(wire))
            while (packet := await wire.packet(WAIT_S))[0] == "S":
                self.stream.told.append(packet[1])
        except ConnectionError:
            # Killed between two packets: what was told so far is what counts.
            pass
        finally:
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender])
                wire.writer.close()

    async def _send(self, wire: Wire) -> None:
        while True:
            wire.send(*(self._order() for _ in range(self._chance.randint(1, 40))))
            await wire.writer.drain()
            await asyncio.sleep(self._chance.choice(self._pauses_s))

    def _order(self) -> bytes:
        chance = self._chance
        price = 100 * chance.randint(9_990, 10_010)
        if self._number > 3 and chance.random() < 0.45:
            number = chance.randint(max(1, self._number - 200), self._number)
            if chance.random() < 0.8:
                return cancel(number, chance.choice((0, 0, 10)))
            self._number += 1
            return replace(number, self._number, chance.randint(1, 90), price)
        self._number += 1
        return enter(self._number, chance.choice("BS"), chance.randint(1, 90), price,
                     chance.choice(SYMBOLS), tif=chance.choice("0013"))


async def next_numbers(port: int) -> list[int]:
    """How far each account's stream goes."""
    found = []
    for name in ACCOUNTS:
        wire = await Wire.logged_in(port, name, sequence=0)
        found.append(wire.next_number)
        await wire.close()
    return found


async def check_replay(port: int, streams: list[Stream]) -> None:
    """Replay everything, hold it against what was told, and take over what was not told yet."""
    for name, stream, next_number in zip(ACCOUNTS, streams, await next_numbers(port),
                                         strict=True):
        wire = await Wire.logged_in(port, name, sequence=1)
        replayed = [(await wire.packet())[1] for _ in range(next_number - 1)]
        await wire.close()
        assert replayed[:len(stream.told)] == stream.told, f"{name} was told otherwise"
        stream.told = replayed
        stream.understand()


def told_book(streams: list[Stream], symbol: str) -> dict[str, dict[int, list[int]]]:
    """{side: {price: [quantity, orders]}} as the clients' streams add up to."""
    book: dict[str, dict[int, list[int]]] = {"B": {}, "S": {}}
    for stream in streams:
        for name, side, price, quantity in stream.live.values():
            if name == symbol:
                level = book[side].setdefault(price, [0, 0])
                level[0] += quantity
                level[1] += 1
    return book


def journal_book(daemon: Daemon, symbol: str) -> dict[str, dict[int, list[int]]]:
    """The same, as `matchd book` rebuilds it from the journal beside the running daemon."""
    answer = daemon.run("book", symbol, "--json", "--depth", "1000")
    assert answer.returncode == 0, answer.stderr
    book = json.loads(answer.stdout)
    return {side: {round(float(price) * 10_000): [int(quantity), orders]
                   for price, quantity, orders in book[key]}
            for side, key in (("B", "bids"), ("S", "asks"))}


def check_books(daemon: Daemon, streams: list[Stream]) -> None:
    """The books of the journal are those that the clients were told."""
    for symbol in SYMBOLS:
        assert journal_book(daemon, symbol) == told_book(streams, symbol)


async def load_and_kill(daemon: Daemon, streams: list[Stream], chance: random.Random) -> None:
    """Trade for a random while, then kill."""
    clients = [asyncio.create_task(Load(stream, chance).run(daemon.port, name))
               for name, stream in zip(ACCOUNTS, streams, strict=True)]
    await asyncio.sleep(chance.uniform(0.02, 0.35))
    daemon.kill()
    await asyncio.gather(*clients)


async def kill_again_and_again(daemon: Daemon, chance: random.Random, kills: int) -> None:
    """One round."""
    streams = [Stream() for _ in ACCOUNTS]
    for kill in range(kills):
        if chance.random() < 0.2:
            # Now and then it is killed while it starts.
            daemon.spawn()
            await asyncio.sleep(chance.uniform(0, 0.6))
            daemon.kill()
        daemon.start()
        await check_replay(daemon.port, streams)
        if kill % 5 == 0:
            check_books(daemon, streams)
        await load_and_kill(daemon, streams, chance)
    daemon.start()
    await check_replay(daemon.port, streams)
    assert all(len(stream.told) > 500 for stream in streams)
    check_books(daemon, streams)
    assert daemon.stop() == 0
    assert daemon.run("journal", "verify").returncode == 0


@pytest.mark.timeout(3_600)
async def test_nothing_told_is_lost_when_the_daemon_is_killed(
        make_daemon: Callable[..., Daemon], long_profile: bool) -> None:
    for number in range(ROUNDS_LONG if long_profile else ROUNDS):
        # Every third round syncs at intervals: a kill loses nothing that was written.
        sync = "interval" if number % 3 == 2 else "commit"
        daemon = make_daemon(f"venue{number}", journal__sync=sync, **SETTINGS)
        await kill_again_and_again(daemon, random.Random(20_261_121 + number),
                                   KILLS_LONG if long_profile else KILLS)

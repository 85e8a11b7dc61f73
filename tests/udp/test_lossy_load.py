"""Orders over a link that loses, repeats, reorders, delays and corrupts, to the real daemon.

Every order is done exactly once and every response arrives, in order and once; what comes of the
orders is what comes of them over TCP, and what the slow oracle says to the commands in the order
in which they arrived. The daemon is killed (kill -9) in between.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.daemon import Daemon
from tests.support.lossy_link import LossyLink, Rates
from tests.support.wire import Wire
from tests.udp.flows import ACCOUNTS, SYMBOLS, Commutative, Ledger, Phase, Step, crowded
from tests.udp.journal_judge import judge, numbers_used, trades_by_price
from tests.udp.reference import Driver, Reference, query, told, unsequenced

MakeDaemon = Callable[..., Daemon]
ORDERS, ORDERS_LONG = 4_000, 100_000
CROWDED, CROWDED_LONG = 2_000, 100_000
KILLS, KILLS_LONG = 1, 10
SHARES = (0.0, 0.05, 0.15, 0.3)
# Small files and many snapshots, so that kills hit their changes too.
SETTINGS = {"journal__snapshot_events": 5_000, "journal__segment_bytes": 2**21,
            "journal__first_segment_bytes": 2**19, "order_entry__heartbeat_ms": 200}
FENCE = 255
PATIENCE_S = 900.0


class Outcome(NamedTuple):
    """What is compared between two runs of the same orders."""

    orders: dict[str, dict[tuple[int, int], object]]
    books: dict[str, object]
    trades: Counter[tuple[int, int]]


class LossyRun:
    """A flow between four clients and a daemon, over a link."""

    def __init__(self, daemon: Daemon, share: float, seed: int) -> None:
        chance = random.Random(seed)
        self.daemon = daemon
        self.link = LossyLink(("127.0.0.1", daemon.udp_port), Rates.all(share), seed).start()
        self.clients = {name: Reference(name, packets_max=lambda: chance.randint(1, 27))
                        for name in ACCOUNTS}
        self._driver = Driver(list(self.clients.values()), ("127.0.0.1", self.link.port))
        self._chance = chance

    def run(self, phases: list[Phase], kills: int) -> None:
        """Send everything; the daemon is killed so often, spread over all that is told."""
        steps = sum(len(steps) for phase in phases for steps in phase.values())
        at = sorted(self._chance.randrange(steps // 20, steps) for _ in range(kills))
        for phase in phases:
            for name, of_account in phase.items():
                for step in of_account:
                    step.give(self.clients[name])
            while not all(client.idle for client in self.clients.values()):
                goal = at[0] if at else 2**62
                self._driver.until(lambda goal=goal: self._idle() or self._told() >= goal,
                                   PATIENCE_S)
                if at and self._told() >= at[0]:
                    at.pop(0)
                    self._restart()
        # Only a heartbeat tells of a last message that was lost.
        self._driver.until(lambda: all(client.quiet >= 3 for client in self.clients.values()),
                           PATIENCE_S)

    def close(self) -> None:
        """End link and sockets."""
        self._driver.close()
        self.link.close()

    def _idle(self) -> bool:
        return all(client.idle for client in self.clients.values())

    def _told(self) -> int:
        return sum(len(client.messages) for client in self.clients.values())

    def _restart(self) -> None:
        self.daemon.kill()
        self._driver.turn()
        self.daemon.start()
        self.link.target = ("127.0.0.1", self.daemon.udp_port)


async def stream_of(daemon: Daemon, name: str) -> list[bytes]:
    """Everything an account was ever told, as TCP replays it."""
    wire = await Wire.logged_in(daemon.port, name, sequence=0)
    count = wire.next_number - 1
    await wire.close()
    wire = await Wire.logged_in(daemon.port, name, sequence=1)
    found = [(await wire.packet(60))[1] for _ in range(count)]
    await wire.close()
    return found


async def send_phase(daemon: Daemon, name: str, steps: list[Step]) -> None:
    """One account's part of a phase over TCP, up to the last answer."""
    wire = await Wire.logged_in(daemon.port, name, sequence=0)
    for start in range(0, len(steps), 500):
        wire.send(*(step.packets() for step in steps[start:start + 500]))
        wire.send(unsequenced(query(FENCE)))
        await wire.writer.drain()
        while told((await wire.packet(60))[1])[::2] != ("Q", FENCE):
            pass
    await wire.close()


async def run_over_tcp(daemon: Daemon, phases: list[Phase]) -> None:
    """The same flow over TCP."""
    for phase in phases:
        await asyncio.gather(*(send_phase(daemon, name, steps) for name, steps in phase.items()))


def journal_book(daemon: Daemon, symbol: str) -> dict[str, dict[int, list[int]]]:
    """{side: {price: [lots, orders]}} as `matchd book` rebuilds it from the journal."""
    answer = daemon.run("book", symbol, "--json", "--depth", "1000000")
    assert answer.returncode == 0, answer.stderr
    book = json.loads(answer.stdout)
    return {side: {round(float(price) * 10_000): [int(quantity), orders]
                   for price, quantity, orders in book[key]}
            for side, key in (("B", "bids"), ("S", "asks"))}


def outcome(daemon: Daemon, streams: dict[str, list[bytes]]) -> Outcome:
    """What came of a run; the streams must add up to the books of the journal."""
    ledgers = {name: Ledger(stream) for name, stream in streams.items()}
    books: dict[str, object] = {}
    for symbol in SYMBOLS:
        told_book: dict[str, dict[int, list[int]]] = {"B": {}, "S": {}}
        for ledger in ledgers.values():
            for side, levels in ledger.levels(symbol).items():
                for price, (lots, orders) in levels.items():
                    level = told_book[side].setdefault(price, [0, 0])
                    level[0] += lots
                    level[1] += orders
        books[symbol] = journal_book(daemon, symbol)
        assert books[symbol] == told_book, f"{symbol}: the book is not what the clients were told"
    return Outcome({name: dict(ledger.orders) for name, ledger in ledgers.items()}, books,
                   trades_by_price(daemon.data_dir))


def asked_numbers(phases: list[Phase], fenced: bool) -> set[tuple[str, int, int]]:
    """(account, channel, number) of everything that must be, or may be, answered."""
    return {(name, channel, number) for phase in phases for name, steps in phase.items()
            for step in steps if step.fenced == fenced for channel, number in step.numbers}


def check_once(data_dir: Path, phases: list[Phase]) -> None:
    """Every order was done exactly once, and nothing was that nobody asked for."""
    used = numbers_used(data_dir)
    assert set(used.values()) == {1}, "a number was used twice"
    found = {(ACCOUNTS[account - 1], channel, number) for account, channel, number in used}
    must = asked_numbers(phases, fenced=False)
    assert must <= found, f"{len(must - found)} orders were not done"
    assert found <= must | asked_numbers(phases, fenced=True)


async def check_streams(daemon: Daemon, run: LossyRun) -> dict[str, list[bytes]]:
    """Every client got every response, in order and once: what TCP replays, byte for byte."""
    streams = {}
    for name, client in run.clients.items():
        assert client.state == "open"
        streams[name] = await stream_of(daemon, name)
        assert client.messages == streams[name], f"{name} was told otherwise"
    return streams


def check_link(run: LossyRun, share: float) -> None:
    """The link did its worst, and nothing but that was lost."""
    for counts in run.link.counts.values():
        for name in ("dropped", "duplicated", "reordered", "corrupted"):
            assert (getattr(counts, name) > 0) == (share > 0)
        assert counts.dropped <= counts.received * (share * 1.5 + 0.01) + 5


async def lossy_run(daemon: Daemon, phases: list[Phase], share: float, kills: int,
                    seed: int) -> dict[str, list[bytes]]:
    """Run a flow over a lossy link and check all that holds for any flow; returns the streams."""
    run = LossyRun(daemon, share, seed)
    try:
        await asyncio.to_thread(run.run, phases, kills)
        streams = await check_streams(daemon, run)
        check_link(run, share)
    finally:
        run.close()
    check_once(daemon.data_dir, phases)
    return streams


def stop_and_verify(daemon: Daemon) -> None:
    """It stops as it should, and its commands give its log again."""
    assert daemon.stop() == 0
    verdict = daemon.run("journal", "verify")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("share", SHARES)
async def test_every_order_is_done_once_and_all_comes_out_as_over_tcp(
        make_daemon: MakeDaemon, long_profile: bool, share: float) -> None:
    phases = Commutative(round(share * 100), ORDERS_LONG if long_profile else ORDERS).phases()
    lossy = make_daemon("lossy", **SETTINGS).start()
    streams = await lossy_run(lossy, phases, share, KILLS_LONG if long_profile else KILLS, 7)
    straight = make_daemon("straight", **SETTINGS).start()
    await run_over_tcp(straight, phases)
    expected = {name: await stream_of(straight, name) for name in ACCOUNTS}
    found, wanted = outcome(lossy, streams), outcome(straight, expected)
    assert found.orders == wanted.orders
    assert found.books == wanted.books
    assert found.trades == wanted.trades
    stop_and_verify(lossy)
    assert straight.stop() == 0


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("share", SHARES)
async def test_the_oracle_agrees_with_every_event_in_the_order_of_arrival(
        make_daemon: MakeDaemon, long_profile: bool, share: float) -> None:
    phases = crowded(round(share * 100), CROWDED_LONG if long_profile else CROWDED)
    daemon = make_daemon(**SETTINGS).start()
    streams = await lossy_run(daemon, phases, share, KILLS_LONG if long_profile else KILLS, 8)
    outcome(daemon, streams)
    stop_and_verify(daemon)
    oracle = await asyncio.to_thread(judge, daemon.data_dir)
    for name, account in zip(ACCOUNTS, (1, 2, 3, 4), strict=True):
        assert oracle.accounts[account].stream_next == len(streams[name]) + 1


async def test_the_flow_that_is_compared_does_not_depend_on_the_order_of_arrival(
        make_daemon: MakeDaemon) -> None:
    phases, outcomes = Commutative(3, 400).phases(), []
    for name in ("straight", "shuffled"):
        daemon = make_daemon(name, **SETTINGS).start()
        await run_over_tcp(daemon, phases)
        streams = {account: await stream_of(daemon, account) for account in ACCOUNTS}
        outcomes.append(outcome(daemon, streams))
        judge(daemon.data_dir)
        # Over TCP a channel's numbers have to rise; accounts may come in any order.
        phases = [dict(reversed(phase.items())) for phase in phases]
    assert outcomes[0] == outcomes[1]
    assert sum(outcomes[0].trades.values()) > 1_000

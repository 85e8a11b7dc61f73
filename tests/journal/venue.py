"""A matcher with a journal behind it, fed with random orders: what the journal's tests drive."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from cython_core.event import CommandBatch, EventBatch
from cython_core.matcher import Matcher
from cython_core.model import Source
from cython_core.stream import WireNames, encode_account
from engine.config import Config, JournalConfig
from engine.errors import EngineError
from engine.journal import Journal, MemoryLog, Recovered
from engine.journal.storage import Storage
from engine.queues import BatchQueue

ACCOUNTS = (1, 2, 3, 70_000)
INSTRUMENTS = {1: "AAPL", 2: "MSFT"}
# Small segments: a few hundred events go through several.
SMALL = JournalConfig(segment_bytes=24 << 10, first_segment_bytes=16 << 10, snapshot_events=250,
                      interval_ms=1)


def definitions() -> CommandBatch:
    """The tables, as the venue sends them into a new log."""
    commands = CommandBatch()
    for instrument_id, symbol in INSTRUMENTS.items():
        commands.define_instrument(instrument_id, symbol, symbol, 4, 100, 0)
    for account_id in ACCOUNTS:
        commands.define_account(account_id, f"ACC{account_id}"[:6])
    commands.set_rules(86_400 * 10**9, 100_000, 10_000_000, udp_window=1_024)
    return commands


@dataclass
class Flow:
    """Random commands that always fit the matcher's state; over UDP their numbers come late."""

    rng: random.Random
    numbers: dict[int, int] = field(default_factory=dict)

    def commands(self, matcher: Matcher, count: int, rolls: bool = False) -> CommandBatch:
        """Some commands; now and then a session roll when asked for."""
        batch = CommandBatch()
        batch.generation = matcher.generation
        if rolls and self.rng.random() < 0.02:
            batch.session_roll()
            batch.generation = 0
            return batch
        for _ in range(count):
            self._add(batch, matcher)
        return batch

    def _add(self, batch: CommandBatch, matcher: Matcher) -> None:
        rng = self.rng
        account_id = rng.choice(ACCOUNTS)
        last = max(matcher.last_user_ref_num(account_id), self.numbers.get(account_id, 0))
        if last - matcher.last_user_ref_num(account_id) > 100:
            last = matcher.last_user_ref_num(account_id)
        kind = rng.random()
        number = last + rng.choice((1, 1, 1, 1, 3))
        source = rng.choice((Source.TCP, Source.UDP))
        if source == Source.UDP and rng.random() < 0.3:
            number = rng.choice(matcher.missing_numbers(account_id) or [number])
        if rng.random() < 0.15:
            self._add_private(batch, matcher, account_id)
            return
        if kind < 0.6:
            batch.enter(account_id, number, rng.choice(list(INSTRUMENTS)), rng.choice("BS"),
                        rng.randint(1, 50), 100 * rng.randint(990, 1010), rng.choice("0013"),
                        f"order{number}", source=source)
        elif kind < 0.85:
            batch.cancel(account_id, rng.randint(max(1, last - 20), max(1, last)))
            return
        elif kind < 0.95:
            batch.replace(account_id, rng.randint(max(1, last - 20), max(1, last)), number,
                          rng.randint(1, 60), 100 * rng.randint(990, 1010), source=source)
        else:
            batch.account_query(account_id)
            return
        self.numbers[account_id] = max(number, last)


    def _add_private(self, batch: CommandBatch, matcher: Matcher, account_id: int) -> None:
        """An order without a stream, or the cancel of any order by its id."""
        rng = self.rng
        if rng.random() < 0.6:
            batch.enter(account_id, 0, rng.choice(list(INSTRUMENTS)), rng.choice("BS"),
                        rng.randint(1, 50), 100 * rng.randint(990, 1010), rng.choice("0013"),
                        source=Source.HTTP, client_order_id=f"id {rng.randrange(500)}")
        else:
            order_id = max(1, matcher.next_seq - rng.randint(1, 60))
            batch.cancel(account_id, 0, source=Source.HTTP, order_id=order_id, request_id=1)


class Venue:
    """Matcher and journal, and what an observer saw committed."""

    def __init__(self, storage: Storage, config: JournalConfig = SMALL, seed: int = 0) -> None:
        self.storage, self.config = storage, Config(journal=config)
        self.recovered: Recovered = Journal.open(self.config, storage)
        self.journal: Journal | MemoryLog = self.recovered.journal
        self.matcher = self.recovered.matcher
        self.flow = Flow(random.Random(seed))
        # Everything that was matched in this run, and the highest seq that came out committed.
        self.produced: list[EventBatch] = []
        self.acknowledged_seq = self.matcher.next_seq - 1
        self.error: EngineError | None = None
        self._source: BatchQueue[EventBatch] = BatchQueue("events", 1 << 20)
        self._sink: BatchQueue[EventBatch] = BatchQueue("reports", 1 << 20)

    def apply(self, commands: CommandBatch) -> None:
        """Match commands, and hand what came out to the journal."""
        events = EventBatch()
        self.matcher.apply(commands, events, self.matcher.last_time_ns + 1_000)
        if len(events):
            self.produced.append(events)
            self._source.put_nowait(events)
            self.journal.maybe_snapshot(self.matcher)

    async def run(self, rounds: int, per_round: int = 8, rolls: bool = False,
                  end: str = "close", snapshots: int = 0) -> Venue:
        """Trade for some rounds, and on until so many snapshots are in place, which children
        write at their own pace; then close, or stop as `end` says: "abandon" is a crash."""
        stage = asyncio.ensure_future(self.journal.run(self._source, [self._sink]))
        observer = asyncio.ensure_future(self._observe())
        if self.matcher.next_seq == 1:
            self.apply(definitions())
        done = 0
        while not stage.done() and (done < rounds or self.snapshots_placed < snapshots):
            done += 1
            self.apply(self.flow.commands(self.matcher, self.flow.rng.randint(1, per_round),
                                          rolls))
            if self.flow.rng.random() < 0.7:
                await self._settle(stage)
        self._source.close()
        try:
            await stage
            await observer
        except EngineError as error:
            self.error = error
            observer.cancel()
            await self._drain()
        self.finish(end)
        return self

    @property
    def snapshots_placed(self) -> int:
        """Snapshots that were put in place in this run."""
        return self.journal.snapshots.count if isinstance(self.journal, Journal) else 0

    async def _settle(self, stage: asyncio.Future[None]) -> None:
        """Let what waits be committed, now and then only some of it."""
        target = self.matcher.next_seq - 1
        turns = self.flow.rng.randint(1, 20) if self.flow.rng.random() < 0.2 else -1
        while not stage.done() and self.journal.committed_seq < target and turns:
            await asyncio.sleep(0)
            turns -= 1

    async def _observe(self) -> None:
        while batches := await self._sink.get_many(1 << 20):
            self._acknowledge(batches)

    async def _drain(self) -> None:
        self._acknowledge(self._sink.drain(1 << 30))

    def _acknowledge(self, batches: list[EventBatch]) -> None:
        for batch in batches:
            assert batch.first_seq == self.acknowledged_seq + 1, "committed out of order"
            self.acknowledged_seq += batch.event_count

    def finish(self, end: str) -> None:
        """End the run."""
        if end == "close" and self.error is None:
            try:
                self.journal.close(self.matcher)
            except EngineError as error:
                self.error = error
        else:
            self.journal.abandon()

    def read_all(self, account_id: int, limit_bytes: int = 700) -> bytes:
        """The account's whole stream, slice by slice."""
        number, parts = 1, []
        while True:
            data, after = self.journal.read_stream(account_id, number, limit_bytes)
            if not data:
                assert after == number
                return b"".join(parts)
            assert after > number
            parts.append(data)
            number = after


def wire_names() -> WireNames:
    """The symbols of the tests' instruments."""
    names = WireNames()
    for instrument_id, symbol in INSTRUMENTS.items():
        names.define(instrument_id, symbol)
    return names


def stream_of(batches: list[EventBatch], account_id: int) -> list[bytes]:
    """What an account was told in its present session, one packet each, from the events alone."""
    whole = EventBatch.from_bytes(b"".join(map(bytes, batches)), 1)
    data, _, _ = encode_account(wire_names(), whole, 1, account_id, 1, 1, 1 << 30)
    return split_packets(data)


def split_packets(data: bytes) -> list[bytes]:
    """SoupBinTCP packets, one by one."""
    packets, position = [], 0
    while position < len(data):
        end = position + 2 + int.from_bytes(data[position:position + 2], "big")
        packets.append(data[position:end])
        position = end
    return packets


def state_after(batches: list[EventBatch], seq: int) -> bytes:
    """The state hash after exactly the events through `seq`."""
    matcher = Matcher()
    for batch in batches:
        if batch.first_seq > seq:
            break
        matcher.replay(batch)
    assert matcher.next_seq == seq + 1, "the log ends inside a command"
    return bytes(matcher.state_hash())

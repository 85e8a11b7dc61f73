"""The matcher and the oracle side by side: the same commands to both, everything compared.

`finish` then demands that the log alone leads to the same state by every road there is: replayed
from nothing, replayed on top of a saved state, and matched again from the logged commands.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cython_core.event import EventBatch
from cython_core.matcher import Matcher, commands_of
from cython_core.model import SOURCE_NAMES, Flag
from cython_core.stream import Streams
from tests.oracle.commands import Command, command_batch
from tests.oracle.naive_venue import EventDict, NaiveVenue, Order

LEVELS_MAX = 1_000_000


class VenuePair:
    """Drives both venues; every method raises AssertionError where they differ."""

    def __init__(self, oracle: NaiveVenue | None = None) -> None:
        self.matcher = Matcher()
        self.verifier = Matcher()
        self.oracle = oracle or NaiveVenue()
        self.time_ns = 0
        self.log: list[EventBatch] = []
        self.sent: list[tuple[list[Command], int, int]] = []
        self.saved: bytes | None = None
        self.saved_seq = 0
        self._pending: list[Command] = []
        self._expected: list[EventDict] = []

    def send(self, commands: list[Command], time_ns: int | None = None) -> list[EventDict]:
        """One batch to both. Returns its events."""
        self.time_ns = self.time_ns if time_ns is None else time_ns
        for command in commands:
            self.queue(command)
        return self.flush()

    def queue(self, command: Command) -> None:
        """Let the oracle carry the command out now, the matcher at the next `flush`."""
        self._expected += self.oracle.apply([command], 0, self.time_ns)
        self._pending.append(command)

    def flush(self) -> list[EventDict]:
        """Let the matcher catch up with the oracle, and compare what it says."""
        commands, expected = self._pending, self._expected
        self._pending, self._expected = [], []
        events = EventBatch()
        first_seq = self.matcher.next_seq
        generation = self.matcher.generation
        # In two calls that append to one batch, to which the size of a call must not matter.
        half = len(commands) // 2
        answered = sum(
            self.matcher.apply(command_batch(part, generation), events, self.time_ns)
            for part in (commands[:half], commands[half:]))
        self._compare_events(events.dicts(), expected, commands)
        assert answered == sum(event["first"] for event in expected)
        assert events.event_count == len(expected)
        if expected:
            assert events.first_seq == first_seq
            self.log.append(events)
            self._verify(events, expected[0]["time_ns"])
        self.sent.append((commands, generation, self.time_ns))
        return expected

    def send_stale(self, commands: list[Command], generation: int) -> None:
        """A batch of another generation leaves no trace."""
        events = EventBatch()
        before = self.matcher.state_hash()
        answered = self.matcher.apply(command_batch(commands, generation), events, self.time_ns)
        assert (answered, len(events), self.matcher.state_hash()) == (0, 0, before)

    def _verify(self, events: EventBatch, time_ns: int) -> None:
        """The commands taken back out of the events lead to the same events."""
        again = EventBatch()
        self.verifier.apply(commands_of(events), again, time_ns)
        if bytes(again) != bytes(events):
            self._compare_events(again.dicts(), events.dicts(), [])
            raise AssertionError("events of the logged commands differ in bytes not shown")

    @staticmethod
    def _compare_events(found: list[EventDict], expected: list[EventDict],
                        commands: list[Command]) -> None:
        for index, (theirs, ours) in enumerate(zip(found, expected, strict=False)):
            if theirs != ours:
                different = {key: (theirs.get(key, "absent"), ours.get(key, "absent"))
                             for key in sorted(theirs.keys() | ours.keys())
                             if theirs.get(key, "absent") != ours.get(key, "absent")}
                raise AssertionError(
                    f"event {index}: (matcher, oracle) differ in {different}\n"
                    f"matcher {theirs}\noracle  {ours}\ncommands {commands}")
        if len(found) != len(expected):
            raise AssertionError(
                f"matcher gave {len(found)} events, oracle {len(expected)}; the rest is "
                f"{found[len(expected):]} or {expected[len(found):]}\ncommands {commands}")

    # State

    def compare_state(self) -> None:
        """Everything that both can be asked is the same, and both find themselves in order."""
        self.matcher.check_invariants()
        self.oracle.check()
        matcher, oracle = self.matcher, self.oracle
        assert matcher.next_seq == oracle.next_seq
        assert matcher.last_time_ns == oracle.last_time_ns
        assert matcher.generation == oracle.generation
        assert matcher.resting_orders == len(oracle.live_orders())
        assert matcher.rules() == oracle.rules
        halts = {number: row["halt_reason"] for number, row in matcher.instruments().items()
                 if row["halted"]}
        assert halts == oracle.halts
        for instrument_id in oracle.instruments:
            self._compare_book(instrument_id)
        self._compare_accounts()
        self._compare_client_ids()

    def _compare_client_ids(self) -> None:
        """Both remember the same ids, and know which live order carries which."""
        known = 0
        for account_id in self.oracle.accounts:
            ids = self.oracle.client_ids.get(account_id, {})
            known += len(ids)
            for text, one in ids.items():
                found = self.matcher.find_client_order(account_id, text)
                assert found is not None and found[0] == one.seq
            carried = {order.order_id: order.client_order_id
                       for order in self.oracle.live_orders()
                       if order.account_id == account_id and order.client_order_id}
            assert self.matcher.client_ids(account_id) == carried
        assert self.matcher.client_ids_known == known

    def _compare_book(self, instrument_id: int) -> None:
        bids, asks = self.matcher.levels(instrument_id, LEVELS_MAX)
        our_bids, our_asks = self.oracle.levels(instrument_id)
        assert ([*map(tuple, bids)], [*map(tuple, asks)]) == (our_bids, our_asks)
        buys, sells = self.oracle.orders(instrument_id)
        found = self.matcher.orders(instrument_id)
        assert found == [_fields_of(order) for order in buys + sells]

    def _compare_accounts(self) -> None:
        table = self.matcher.accounts()
        assert table.keys() == self.oracle.accounts.keys()
        open_orders = Counter(order.account_id for order in self.oracle.live_orders())
        for account_id, account in self.oracle.accounts.items():
            assert self.matcher.stream_next(account_id) == account.stream_next
            for user_ref_idx, number in account.last_number.items():
                assert self.matcher.last_user_ref_num(account_id, user_ref_idx) == number
                assert self.matcher.missing_numbers(account_id, user_ref_idx) \
                    == self.oracle.missing_numbers(account_id, user_ref_idx)
            used = {idx: number for idx, number in account.last_number.items() if number}
            assert table[account_id] == {
                **account.definition, "open_orders": open_orders[account_id],
                "entry_disabled": account.entry_disabled, "killed": account.killed,
                "stream_next": account.stream_next,
                "last_user_ref_num": {0: 0} | used}

    def save(self) -> None:
        """Keep the state of now for `finish`."""
        self.saved = b"".join(bytes(region) for region in self.matcher.save())
        self.saved_seq = self.matcher.next_seq

    def reload(self) -> None:
        """Go on with a matcher made from the saved state of this one."""
        before = self.matcher.state_hash()
        self.save()
        self.matcher = Matcher.load(self.saved)
        self.matcher.check_invariants()
        assert self.matcher.state_hash() == before

    def finish(self) -> None:
        """All roads from the log lead to the live state and to the same bytes."""
        self.compare_state()
        live_hash = self.matcher.state_hash()
        assert self.verifier.state_hash() == live_hash
        replayed = Matcher()
        for events in self.log:
            replayed.replay(events)
        self._is_the_same(replayed, live_hash)
        joined = Matcher()
        if self.log:
            whole = b"".join(bytes(events) for events in self.log)
            joined.replay(EventBatch.from_bytes(whole, 1))
            checked = Matcher()
            assert checked.apply_logged(EventBatch.from_bytes(whole, 1), EventBatch()) == -1
            self._is_the_same(checked, live_hash)
        self._is_the_same(joined, live_hash)
        if self.saved is not None:
            resumed = Matcher.load(self.saved)
            for events in self.log:
                if events.first_seq >= self.saved_seq:
                    resumed.replay(events)
            self._is_the_same(resumed, live_hash)
        self._rerun(live_hash)
        self._count_streams()
        self._compare_export()

    def _compare_export(self) -> None:
        """All resting orders at once are those of the books, instrument by instrument."""
        exported = self.matcher.export_orders().dicts()
        expected = [order for instrument_id in sorted(self.oracle.instruments)
                    for side in self.oracle.orders(instrument_id) for order in side]
        assert [(event["order_id"], event["quantity_lots"]) for event in exported] == [
            (order.order_id, order.open_lots) for order in expected]
        for event, order in zip(exported, expected, strict=True):
            assert event.get("chain_done_lots", 0) == order.chain_done_lots
            assert event.get("client_order_id", "") == order.client_order_id
        self._compare_filtered_export(expected)

    def _compare_filtered_export(self, every: list[Order]) -> None:
        for account_id in self.oracle.accounts:
            for instrument_id in (0, *self.oracle.instruments):
                found = self.matcher.export_orders(account_id, instrument_id).dicts()
                assert [event["order_id"] for event in found] == sorted(
                    order.order_id for order in every if order.account_id == account_id
                    and instrument_id in (0, order.instrument_id))
        for instrument_id in self.oracle.instruments:
            found = self.matcher.export_orders(instrument_id=instrument_id).dicts()
            assert [event["order_id"] for event in found] == [
                order.order_id for order in every if order.instrument_id == instrument_id]

    def _count_streams(self) -> None:
        """What the sessions will count from the log is what the matcher counted."""
        streams = Streams()
        for account_id in self.oracle.accounts:
            streams.open_account(account_id)
        for events in self.log:
            streams.route(events, events.first_seq)
        for account_id, account in self.oracle.accounts.items():
            assert streams.next_number(account_id) == account.stream_next

    def _is_the_same(self, other: Matcher, live_hash: bytes) -> None:
        other.check_invariants()
        assert other.next_seq == self.matcher.next_seq
        assert other.state_hash() == live_hash
        for account_id, account in self.oracle.accounts.items():
            assert other.stream_next(account_id) == account.stream_next

    def _rerun(self, live_hash: bytes) -> None:
        again = Matcher()
        log = iter(self.log)
        for commands, generation, time_ns in self.sent:
            events = EventBatch()
            again.apply(command_batch(commands, generation), events, time_ns)
            if events.event_count:
                assert bytes(events) == bytes(next(log))
        assert next(log, None) is None
        assert again.state_hash() == live_hash


def _fields_of(order: Order) -> dict[str, Any]:
    fields = {
        "account_id": order.account_id, "instrument_id": order.instrument_id,
        "user_ref_num": order.user_ref_num, "user_ref_idx": order.user_ref_idx,
        "source": SOURCE_NAMES[order.source], "order_id": order.order_id, "side": order.side,
        "price_units": order.price_units, "quantity_lots": order.open_lots,
        "time_in_force": order.time_in_force, "display": order.display,
        "capacity": order.capacity, "iso": order.iso, "cross": order.cross,
        "client_order": order.client_order, "post_only": Flag.POST_ONLY in order.flags,
        "flags": order.flags, "chain_done_lots": order.chain_done_lots,
    }
    if order.client_order_id:
        fields["client_order_id"] = order.client_order_id
    return {**fields, "options": order.options} if order.options else fields

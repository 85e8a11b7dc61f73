"""Bad logins: counted by address, account and both, and refused unseen from the fifth within a
minute on. Fake time for the rules, real sockets for the doors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cython_core.soupbin import build_login
from engine import clock
from engine.addresses import network_of
from engine.intake.passwords import Turns
from engine.intake.throttle import Guard, Throttle
from tests.sessions.conftest import StartVenue
from tests.support.daemon import Daemon
from tests.support.datagrams import Raw
from tests.support.numbers import metrics_of
from tests.support.venue import Venue
from tests.support.wire import Wire, enter

SECOND = clock.NS_PER_S
REFUSED = b"\0\2JA"


# -- the rules, without a socket -------------------------------------------------------------------

def test_from_the_fifth_failure_on_until_the_minute_is_over() -> None:
    throttle = Throttle()
    for number in range(5):
        assert not throttle.is_closed("a", number * SECOND)
        throttle.failed("a", number * SECOND)
    assert throttle.is_closed("a", 5 * SECOND)
    assert throttle.is_closed("a", 60 * SECOND - 1)
    # The first one is a minute old: there are four within the last minute.
    assert not throttle.is_closed("a", 60 * SECOND)
    throttle.failed("a", 60 * SECOND)
    assert throttle.is_closed("a", 60 * SECOND)
    assert not throttle.is_closed("b", 60 * SECOND)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=60))
def test_against_a_plain_list_of_failures(steps: list[tuple[int, int]]) -> None:
    throttle, failures, now_s = Throttle(), [], 0
    for wait_s, address in steps:
        now_s += wait_s
        recent = [at for at, who in failures if who == address and now_s - at < 60]
        assert throttle.is_closed(address, now_s * SECOND) == (len(recent) >= 5)
        if len(recent) < 5:
            throttle.failed(address, now_s * SECOND)
            failures.append((now_s, address))


def test_the_table_is_bounded_and_forgets() -> None:
    throttle = Throttle(entries_max=3)
    for number in range(10):
        throttle.failed(number, number)
        assert len(throttle) <= 3
    throttle.failed("late", 100 * SECOND)
    assert len(throttle) == 1


class GuardAgainstLists(RuleBasedStateMachine):
    """The guard beside two plain lists: what failed when, and who has logged in where."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = Guard()
        self.now_ns = 0
        self.failures: list[tuple[int, str, str]] = []
        self.known: set[tuple[str, str]] = set()

    def count(self, address: str | None = None, account: str | None = None) -> int:
        return sum(1 for at_ns, where, who in self.failures
                   if self.now_ns - at_ns < 60 * SECOND and address in (None, where)
                   and account in (None, who))

    def shut(self, address: str, account: str) -> bool:
        if (address, account) in self.known:
            return self.count(address, account) >= 5
        return self.count(address=address) >= 5 or self.count(account=account) >= 5

    @rule(wait_s=st.integers(0, 30))
    def wait(self, wait_s: int) -> None:
        self.now_ns += wait_s * SECOND

    @rule(address=st.sampled_from("abc"), account=st.sampled_from("XYZ"), right=st.booleans(),
          times=st.integers(1, 5))
    def log_in(self, address: str, account: str, right: bool, times: int) -> None:
        for _ in range(times):
            closed = self.shut(address, account)
            assert self.guard.is_closed(address, account, self.now_ns) is closed
            if closed:
                return
            if right:
                self.guard.succeeded(address, account)
                self.known.add((address, account))
            else:
                self.guard.failed(address, account, self.now_ns)
                self.failures.append((self.now_ns, address, account))

    @invariant()
    def everybody_is_answered_alike(self) -> None:
        for address in "abc":
            for account in "XYZ":
                assert self.guard.is_closed(address, account, self.now_ns) is self.shut(
                    address, account)


TestGuardAgainstLists = GuardAgainstLists.TestCase


def test_an_account_is_not_shut_out_of_its_usual_place() -> None:
    guard = Guard()
    guard.succeeded("home", "MAKER1")
    for number in range(20):
        # Ever new addresses: the account's count closes it for strangers, after five.
        assert guard.is_closed(number, "MAKER1", 0) is (number >= 5)
        if number < 5:
            guard.failed(number, "MAKER1", 0)
    assert not guard.is_closed("home", "MAKER1", 0)
    # Its neighbours at the same address are others, and one broken client is not their business.
    guard.succeeded("home", "TAKER1")
    for _ in range(5):
        guard.failed("home", "TAKER1", 0)
    assert guard.is_closed("home", "TAKER1", 0)
    assert not guard.is_closed("home", "MAKER1", 0)
    assert guard.is_closed("home", "NEW", 0)
    # Where it has been before it may still guess no more than others.
    for _ in range(5):
        guard.failed("home", "MAKER1", SECOND)
    assert guard.is_closed("home", "MAKER1", SECOND)
    assert not guard.is_closed("home", "MAKER1", 61 * SECOND)


def test_all_tables_are_bounded() -> None:
    guard = Guard(entries_max=100, known_max=50)
    for number in range(2_000):
        guard.failed(number, f"U{number}", 0)
        guard.succeeded(number, "MAKER1")
        assert len(guard) <= 350
    # Who logged in longest ago is forgotten first.
    assert guard.is_known(1_999, "MAKER1") and not guard.is_known(1_949, "MAKER1")


@pytest.mark.parametrize(("host", "network"), [
    ("127.0.0.1", b"\x7f\0\0\1"), ("::ffff:127.0.0.1", b"\x7f\0\0\1"),
    ("2001:db8:1:2:3:4:5:6", bytes.fromhex("20010db800010002")),
    ("2001:db8:1:2::", bytes.fromhex("20010db800010002")),
    ("fe80::1%eth0", bytes.fromhex("fe80000000000000")), ("[::1]", bytes(8)), ("?", b"?")])
def test_what_counts_as_one_address(host: str, network: bytes) -> None:
    assert network_of(host) == network


# -- the queue for passwords -----------------------------------------------------------------------

async def test_turns_are_taken_in_order_and_the_first_go_first() -> None:
    turns, done = Turns(2), []

    async def work(name: str, first: bool) -> None:
        await turns.take(first)
        done.append(name)
        await asyncio.sleep(0.001)
        turns.give()

    await asyncio.gather(*(work(name, name.isupper()) for name in "abcdeFGh"))
    assert "".join(done) == "abFGcdeh"


async def test_who_does_not_wait_any_more_leaves_no_hole() -> None:
    turns = Turns(1)
    await turns.take()
    waiting = [asyncio.create_task(turns.take()) for _ in range(4)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    turns.give()
    # Its turn has come, and in the same moment it goes: the next one has it.
    waiting[1].cancel()
    await asyncio.wait(waiting[:3])
    assert waiting[2].done() and not waiting[2].cancelled() and not waiting[3].done()
    turns.give()
    await waiting[3]


# -- over TCP --------------------------------------------------------------------------------------

async def log_in(venue: Venue, user: str, password: str, host: str = "127.0.0.1") -> bytes:
    """The first bytes of the answer to a login from this address; the connection stays open for
    who was accepted until the loop ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", venue.port,
                                                   local_addr=(host, 0))
    writer.write(bytes(build_login(user, password)))
    answer = await asyncio.wait_for(reader.readexactly(3), 120)
    if answer[2:] == b"J":
        answer += await reader.read()
    writer.close()
    return answer


def throttled(venue: Venue) -> int:
    return int(venue.app.metrics.snapshot()["tcp_logins_throttled"])


async def test_a_guesser_waits_and_his_neighbours_do_not(venue: Venue) -> None:
    neighbour = await Wire.logged_in(venue.port, "TAKER1")
    for number in range(5):
        assert await log_in(venue, "MAKER1", f"g{number}") == REFUSED
    assert throttled(venue) == 0
    # The right password is not looked at any more, from here.
    for _ in range(3):
        assert await log_in(venue, "MAKER1", "demo") == REFUSED
    assert throttled(venue) == 3
    # Nor from elsewhere: the account has failed, wherever that was.
    assert await log_in(venue, "MAKER1", "demo", "127.0.0.2") == REFUSED
    # Others are looked at there, and at this address who has logged in here before.
    assert (await log_in(venue, "MAKER2", "demo", "127.0.0.2"))[2:] == b"A"
    assert await log_in(venue, "MAKER2", "demo") == REFUSED
    neighbour.send(enter(1))
    assert (await neighbour.message())["type"] == "A"
    again = await Wire.logged_in(venue.port, "TAKER1")
    await again.close()


async def test_many_addresses_guess_no_faster_than_one(venue: Venue) -> None:
    usual = await Wire.logged_in(venue.port, "MAKER1")
    await usual.close()
    answers = [await log_in(venue, "maker1", f"g{number}", f"127.0.0.{number + 10}")
               for number in range(40)]
    assert answers == [REFUSED] * 40
    # Five were looked at, whatever the case that the name was written in.
    assert throttled(venue) == 35
    # Its owner does not notice.
    assert (await log_in(venue, "MAKER1", "demo"))[2:] == b"A"
    assert await log_in(venue, "MAKER1", "demo", "127.0.0.9") == REFUSED


async def test_guesses_all_at_once_are_counted_as_they_are_looked_at(venue: Venue) -> None:
    answers = await asyncio.gather(*(log_in(venue, "MAKER1", f"g{n}") for n in range(60)))
    assert answers == [REFUSED] * 60
    # Two are looked at at a time: so five, or six.
    assert throttled(venue) in (54, 55)


async def test_who_hangs_up_before_the_answer_is_counted_too(venue: Venue) -> None:
    async def guess(number: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", venue.port)
        writer.write(bytes(build_login("MAKER1", f"g{number}")))
        await writer.drain()
        writer.close()

    seen = 0
    while throttled(venue) == 0:
        await guess(seen)
        seen += 1
        await asyncio.sleep(0.02)
        assert seen < 2_000
    assert await log_in(venue, "MAKER1", "demo") == REFUSED


async def test_the_doors_count_apart(venue: Venue) -> None:
    with Raw(venue.udp_port) as guesser:
        for number in range(7):
            answer = await asyncio.to_thread(guesser.login, "MAKER1", f"g{number}")
            assert answer == REFUSED
    assert venue.app.metrics.snapshot()["udp_logins_throttled"] == 2
    # Whatever address was forged in datagrams: over TCP nothing has failed.
    assert (await log_in(venue, "MAKER1", "demo"))[2:] == b"A"


def test_it_shows_in_the_daemons_log_and_metrics(
        make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()

    async def guess() -> None:
        for number in range(60):
            wire = await Wire.open(daemon.port)
            assert await wire.login("MAKER1", f"g{number}") == "A"
            await wire.close()
            # Names that strangers make up do not make more lines.
            other = await Wire.open(daemon.port)
            assert await other.login(f"U{number}", "guess") == "A"
            await other.close()

    asyncio.run(guess())
    assert metrics_of(daemon)["tcp_logins_throttled"] >= 110
    refused = [line for line in daemon.lines() if "login refused" in line.get("reason", "")]
    assert 10 <= len(refused) <= 30
    assert any("too many failures" in line["reason"] for line in refused)


# -- the door is full ------------------------------------------------------------------------------

async def test_strangers_do_not_shut_a_newcomer_out(start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__connections_max=4)
    inside = await Wire.logged_in(venue.port, "MAKER1")
    strangers = [await Wire.open(venue.port) for _ in range(3)]
    newcomer = await Wire.open(venue.port)
    # Who waited longest has gone, the others have not.
    assert await strangers[0].closed()
    assert await newcomer.login("TAKER1") != "A"
    more = []
    for number in range(30):
        more.append(await Wire.open(venue.port))
        assert venue.app.door.connection_count <= 6, number
    inside.send(enter(1))
    assert (await inside.message())["type"] == "A"
    newcomer.send(enter(1))
    assert (await newcomer.message())["type"] == "A"
    assert await strangers[1].closed() and await strangers[2].closed()
    assert venue.app.metrics.snapshot()["turned_away"] == 31 and len(more) == 30


async def test_with_everybody_logged_in_the_newcomer_goes(start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__connections_max=2)
    inside = [await Wire.logged_in(venue.port, user) for user in ("MAKER1", "MAKER2")]
    late = await Wire.open(venue.port)
    assert await late.closed()
    for wire in inside:
        wire.send(enter(1))
        assert (await wire.message())["type"] == "A"


async def test_logins_all_at_once_hold_up_nobody_who_is_known(
        start_venue: StartVenue) -> None:
    venue = await start_venue()
    known = await Wire.logged_in(venue.port, "MAKER1")
    await known.close()
    flood = [asyncio.create_task(log_in(venue, f"U{number}", "guess",
                                        f"127.0.1.{1 + number}"))
             for number in range(100)]
    await asyncio.sleep(0.1)
    again = await Wire.logged_in(venue.port, "MAKER1")
    assert sum(task.done() for task in flood) < len(flood)
    again.send(enter(1))
    assert (await again.message())["type"] == "A"
    assert set(await asyncio.gather(*flood)) == {REFUSED}


async def test_who_waits_too_long_for_an_answer_is_gone_unchecked(
        start_venue: StartVenue) -> None:
    venue = await start_venue(order_entry__login_timeout_ms=400, order_entry__heartbeat_ms=100)
    door = venue.app.door
    # Nobody's turn comes while these are taken.
    for _ in range(2):
        await door.passwords.turns.take()
    wires = [await Wire.open(venue.port) for _ in range(50)]
    for number, wire in enumerate(wires):
        wire.send(build_login(f"U{number}", "guess"))
    for wire in wires:
        assert await wire.closed()
    for _ in range(2):
        door.passwords.turns.give()
    # None of them was looked at any more.
    assert len(door.guard) == 0 and door.connection_count == 0
    again = await Wire.logged_in(venue.port, "MAKER1")
    await again.close()

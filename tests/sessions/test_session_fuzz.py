"""A session fed random and mutated bytes, without a socket: it closes with a reason, or goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cython_core.event import CommandBatch
from cython_core.model import Source
from cython_core.ouch import SymbolTable
from cython_core.soupbin import Login, build_debug, build_login
from cython_core.stream import Streams
from engine.accounts import Account
from engine.intake.registry import Registry
from engine.intake.session import Session, State, Times
from engine.metrics import Metrics
from tests.support.wire import cancel, enter, message, replace

ACCOUNT = Account(id=1, username="MAKER1", password_hash="scrypt$2$8$1$AA==$AA==")
NOW_NS = 1_000_000_000


class Past:
    """Nothing was ever said."""

    def session_id(self, generation: int) -> str:
        return f"SESSION{generation:03}"

    def read_stream(self, account_id: int, from_number: int,
                    limit_bytes: int) -> tuple[bytes, int]:
        return b"", from_number


class Recorder:
    """A shell that only notes what the session asks of it."""

    address = "here"
    source = int(Source.TCP)

    def __init__(self) -> None:
        self.written = b""
        self.delivered = 0
        self.reasons: list[str] = []
        self.asked: list[tuple[Account | None, str]] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def deliver(self, batch: CommandBatch) -> None:
        assert batch.command_count
        batch.dicts()
        self.delivered += batch.command_count

    def empty_batch(self) -> CommandBatch:
        return CommandBatch()

    def give_back(self, batch: CommandBatch) -> None:
        assert not batch.command_count

    def check_password(self, login: Login, account: Account | None) -> None:
        self.asked.append((account, login.password))

    def start_stream(self, account_id: int, from_number: int) -> None:
        assert (account_id, from_number) == (1, 1)

    def close(self, reason: str) -> None:
        self.reasons.append(reason)


def new_session() -> tuple[Session, Recorder]:
    symbols = SymbolTable()
    symbols.add("AAPL", 1)
    registry = Registry([ACCOUNT], symbols, Streams(), Past(), 1, "takeover", Metrics())
    shell = Recorder()
    return Session(shell, registry, Times(1_000, 1_000, 3_000), NOW_NS), shell


def feed(session: Session, data: bytes, cuts: list[int]) -> None:
    """Feed the bytes in pieces, keeping what the session did not take, as a connection does."""
    rest = b""
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in zip(edges, edges[1:], strict=False):
        rest += data[start:end]
        taken = session.receive(memoryview(rest), len(rest), NOW_NS)
        assert 0 <= taken <= len(rest)
        rest = rest[taken:]


def check(session: Session, shell: Recorder) -> None:
    assert (session.state is State.CLOSED) == (len(shell.reasons) == 1)
    assert all(shell.reasons)


GOOD = [enter(1), enter(2, min_quantity_lots=5, tif="3"), cancel(1), replace(1, 2), message("Q"),
        message("C", user_ref_num=3, firm="", symbol=""), build_debug("hi"), b"\0\1R"]
cuts = st.lists(st.integers(0, 2_000), max_size=6)


@given(st.binary(max_size=400), cuts)
def test_random_bytes_before_the_login(data: bytes, at: list[int]) -> None:
    session, shell = new_session()
    feed(session, data, at)
    check(session, shell)
    assert shell.delivered == 0


@given(st.lists(st.sampled_from(GOOD), min_size=1, max_size=8), cuts,
       st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=4))
def test_mutated_messages_after_the_login(packets: list[bytes], at: list[int],
                                          changes: list[tuple[int, int]]) -> None:
    session, shell = new_session()
    feed(session, build_login("maker1", "demo"), [])
    assert shell.asked == [(ACCOUNT, "demo")]
    session.password_checked(ACCOUNT, NOW_NS)
    assert session.state is State.OPEN
    data = bytearray(b"".join(packets))
    for place, value in changes:
        data[place % len(data)] = value
    feed(session, bytes(data), at)
    check(session, shell)


@given(st.binary(max_size=60), cuts)
def test_a_login_with_random_fields(fields: bytes, at: list[int]) -> None:
    session, shell = new_session()
    payload = fields.ljust(46)[:46]
    feed(session, b"\0\x2fL" + payload, at)
    assert session.state in (State.PASSWORD, State.CLOSED)
    session.password_checked(None, NOW_NS)
    check(session, shell)
    assert session.state is State.CLOSED


def test_an_answer_that_comes_after_the_end_changes_nothing() -> None:
    session, shell = new_session()
    feed(session, build_login("maker1", "demo"), [])
    session.close("connection lost")
    session.password_checked(ACCOUNT, NOW_NS)
    assert session.state is State.CLOSED
    assert shell.written == b""
    assert shell.reasons == ["connection lost"]
